"""States that go on between the pieces of a batch, while `fit` cuts batches along time."""

from __future__ import annotations

import weakref

import numpy as np

from ..graph import suspended
from ..protocols import local
from ..variable import Variable

__all__ = ["PieceStates"]


class PieceStates:
    """The states of one recurrent layer.

    A call takes them from one set of variables and leaves them in another until the piece is done, so that the calls of
    two functions on one piece start from the same. The calls within one function, on several inputs, have each their
    own.

    Parameters
    ----------
    shapes : list of tuple of int
        Of the states, without the batch.
    dtype : str
    """

    def __init__(self, shapes, dtype):
        self._shapes, self._dtype = shapes, dtype
        self._kept = {}  # (batch, number of the call) -> pairs of variables: of states, and of which rows are fresh
        self._calls = weakref.WeakKeyDictionary()  # trace -> how many calls it has
        self._untraced = 0

    def __reduce__(self):
        return PieceStates, (self._shapes, self._dtype)  # a copy of a layer is not in the middle of a batch

    def start(self):
        """Before a batch: all rows are at their start."""
        for *states, fresh in self._kept.values():
            for variable in (x for pair in states for x in pair):
                variable.assign(np.zeros(variable.shape, variable.dtype))
            for variable in fresh:
                variable.assign(np.ones(variable.shape, bool))
        self._untraced = 0

    def go_on(self):
        """After a piece: what was left is what the next one starts from."""
        for pairs in self._kept.values():
            for first, last in pairs:
                first.assign(last)
        self._untraced = 0

    def of_call(self, batch):
        """Return the pairs (to take from, to leave in) of the next call: of each state, and of which rows are fresh."""
        trace = local.trace
        if trace is None:
            number, self._untraced = self._untraced, self._untraced + 1
        else:
            number = self._calls.get(trace, 0)
            self._calls[trace] = number + 1
        key = batch, number
        if key not in self._kept:
            with suspended():
                values = [np.zeros((batch, *shape), self._dtype) for shape in self._shapes]
                self._kept[key] = [self._pair(x, "rnn_state") for x in values] + [
                    self._pair(np.ones(batch, bool), "fresh")
                ]
        return self._kept[key]

    @staticmethod
    def _pair(value, name):
        return tuple(Variable(value, trainable=False, name=name, dtype=value.dtype.name) for _ in range(2))
