"""Truncated back-propagation through time: batches cut into pieces along time, states carried from one to the next."""

from __future__ import annotations

import numpy as np

from .. import tree
from ..layers.attention import Attention
from ..layers.bidirectional import Bidirectional
from ..layers.rnn import RNN
from ..layers.time_distributed import TimeDistributed
from ..layers.tracking import structure_clock
from .ragged import Padded

__all__ = ["Pieces"]


def _recurrent(layer):
    """Return the recurrent layers that go through the timesteps of the model's data."""
    if isinstance(layer, Bidirectional) or (isinstance(layer, RNN) and layer.go_backwards):
        raise ValueError(
            f"`bptt_steps` cuts sequences into pieces, one after the other, but layer '{layer.name}' (of type "
            f"{type(layer).__name__}) starts at their ends. Leave `bptt_steps` out, or let the layer go forwards"
        )
    if isinstance(layer, Attention):
        raise ValueError(
            f"`bptt_steps` cuts sequences into pieces, one after the other, but layer '{layer.name}' (of type "
            f"{type(layer).__name__}) looks at all timesteps at once. Leave `bptt_steps` out"
        )
    if isinstance(layer, RNN):
        return [layer]
    if isinstance(layer, TimeDistributed):  # has sequences of its own at each timestep
        return []
    return [found for inner in layer._sublayers for found in _recurrent(inner)]


class Pieces:
    """Cuts the batches of one `fit`; to be entered around it.

    Parameters
    ----------
    model : Model
    steps : int
        Timesteps of a piece; the last of a batch may have less.

    Raises
    ------
    ValueError
        If a layer goes through the timesteps from their end, or looks at all of them at once.
    """

    def __init__(self, model, steps):
        self.model, self.steps, self.layers = model, steps, []
        self._clock = None
        _recurrent(model)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for layer in self.layers:
            layer._expect_pieces(False)

    def _find_layers(self):
        if self._clock == structure_clock():
            return
        # Stateful layers go on from batch to batch as ever.
        found = {id(layer): layer for layer in _recurrent(self.model) if not layer.stateful}
        for layer in found.values():
            if not any(layer is known for known in self.layers):
                layer._expect_pieces(True)
                self.layers.append(layer)
        self._clock = structure_clock()

    def train(self, train, x, y, sample_weight):
        """Call ``train(x, y, sample_weight)`` for the pieces of a batch, states going on between them."""
        if not self.model.built:  # some layers may not be there yet
            self.model._prepare(x, y)
        self._find_layers()
        for layer in self.layers:
            layer._pieces.start()
        for piece in _cut(x, y, sample_weight, self.steps):
            try:
                self._mark(True)
                train(*piece)
            finally:
                self._mark(False)
            for layer in self.layers:
                layer._pieces.go_on()

    def _mark(self, on_piece):
        self.model._training.on_piece = on_piece
        for layer in self.layers:
            layer._on_piece = on_piece


def _cut(x, y, sample_weight, steps):
    """Cut a batch along time.

    Parameters
    ----------
    x, y, sample_weight : nest of ndarray and Padded, or None
        The first array of `x` says how many timesteps there are. Targets have as many along axis 1; so may the other
        arrays, and those that have not go with every piece.
    steps : int

    Yields
    ------
    (x, y, sample_weight)
        But for pieces that are padding throughout.

    Raises
    ------
    ValueError
        If there are no timesteps, or targets without them.
    """
    first = tree.leaves(x)[0]
    if first.ndim < 2:
        raise ValueError(f"`bptt_steps` needs inputs of shape (batch, timesteps, ...). Received: {first.shape}")
    timesteps = first.shape[1]
    for target in tree.leaves(y) if y is not None else ():
        if target is not None and (target.ndim < 2 or target.shape[1] != timesteps):
            raise ValueError(
                f"`bptt_steps` needs targets at each of the {timesteps} timesteps of the inputs, along axis 1. "
                f"Received: targets of shape {target.shape}"
            )
    padded = [x for x in tree.leaves(x, is_leaf=_is_padded) if _is_padded(x)]
    for start in range(0, timesteps, steps):
        piece = slice(start, start + steps)
        if padded and not any(x.mask[:, piece].any() for x in padded):
            continue

        def cut(a, piece=piece):
            return a if a is None or a.ndim < 2 or a.shape[1] != timesteps else np.ascontiguousarray(a[:, piece])

        yield tuple(None if nest is None else tree.map_structure(cut, nest) for nest in (x, y, sample_weight))


def _is_padded(x):
    return isinstance(x, Padded)
