"""What `fit` says of a loss that is not finite: at which step, and where in the model, it appeared."""

from __future__ import annotations

import contextlib
import math
import warnings

import numpy as np

from .. import tree
from ..arrays import array_module, brought_back
from ..gradients import watching
from ..nonfinite import (
    describe_inputs,
    describe_operation,
    describe_variables,
    find_origin,
    is_finite,
    listing,
    name_of_layer,
)
from .ragged import Padded

__all__ = ["LossWatch", "watched"]


@contextlib.contextmanager
def watched(model):
    """Watch the loss of a model during a ``with`` statement.

    Parameters
    ----------
    model : Model

    Yields
    ------
    LossWatch
    """
    state = model._training
    outer, state.watch = state.watch, LossWatch(model)
    try:
        yield state.watch
    finally:
        state.watch = outer


class LossWatch:
    """Looks into the first step whose loss is not finite.

    Parameters
    ----------
    model : Model

    Attributes
    ----------
    found : str or None
        What it found.
    """

    def __init__(self, model):
        self.model = model
        self.found = None
        self._told = False
        self._position = self._first = None
        self._before = []  # weights that were not finite when `fit` began

    def begin_step(self, epoch, batch):
        """Note which step comes."""
        self._position = epoch, batch
        if self._first is None:
            self._first = self._position
            self._before = _not_finite(self.model.weights)

    def end_step(self):
        """Warn of what was found, once."""
        if self.found is not None and not self._told:
            self._told = True
            epoch, batch = self._position
            warnings.warn(
                f"The loss of model '{self.model.name}' is not finite from batch {batch} of epoch {epoch + 1} on "
                f"(batches count from 0). {self.found}",
                RuntimeWarning,
                stacklevel=5,
            )

    def end(self):
        """Warn of what the last steps have left behind, of which no loss tells any more."""
        if self._told or self._position is None:
            return
        spoilt = [v for v in _not_finite(self.model.weights) if not any(v is one for one in self._before)]
        if spoilt:
            epoch, batch = self._position
            warnings.warn(
                f"The losses of model '{self.model.name}' were finite, but not all weights are after its last step, "
                f"batch {batch} of epoch {epoch + 1}: {describe_variables(spoilt, 'hold')} (learning rate "
                f"{float(self.model.optimizer.learning_rate):g}).",
                RuntimeWarning,
                stacklevel=5,
            )

    def look_into_batch(self, step, arrays, before, data, predictions):
        """Find out where the loss of a step comes from, run just now and the weights not yet changed.

        Parameters
        ----------
        step : Step
        arrays : sequence of ndarray
            What it was run on.
        before : list of (Variable, ndarray)
            The values before of what it has changed.
        data : tuple of nests
            ``(x, y, sample_weight)``.
        predictions : list of ndarray
        """
        names = []
        for name, nest in zip(("x", "y", "sample_weight"), data, strict=True):
            for path, leaf in tree.flatten_with_paths(nest, is_leaf=lambda x: isinstance(x, Padded)):
                place = name + "".join(f"[{key!r}]" for key in path)
                names += [] if leaf is None else [place, f"mask of {place}"] if isinstance(leaf, Padded) else [place]
        predictions = brought_back(predictions)
        spoilt = [~np.isfinite(p).reshape(len(p), -1).all(axis=1) for p in predictions if p.ndim and p.size]
        rows = np.any(spoilt, axis=0) if len({len(of_one) for of_one in spoilt}) == 1 else None
        self._look_into(step.run, arrays, before, names, rows)

    def during_own_step(self):
        """For a ``with`` statement around a step of the user's own: look into what `value_and_grad` runs there."""
        return watching(self._look_into_function)

    def _look_into_function(self, program, arrays, before):
        self._look_into(program, arrays, before, [f"argument {i}" for i in range(len(arrays))])

    def _look_into(self, program, arrays, before, names, rows=None):
        if self.found is not None:
            return
        arrays = brought_back(list(arrays))
        origin = find_origin(program, arrays, before)
        if origin is None:
            self.found = "Where it came from was not found: it did not come again when the step was repeated."
        elif origin.variables:
            self.found = self._of_variables(origin.variables)
        elif origin.inputs:
            self.found = f"The data are the cause: {describe_inputs(origin, names, arrays, rows)}."
        else:
            self.found = f"It first appeared in {describe_operation(origin, program.trace.line)}."

    def look_at_logs(self, logs):
        """Look at what a `train_step` of the user's own reports, where `value_and_grad` has not found anything."""
        loss = logs.get("loss")
        if self.found is not None or not isinstance(loss, float) or math.isfinite(loss):
            return
        spoilt = [v for v in self.model.variables if not is_finite(v)]
        now = f"Now {describe_variables(spoilt)}" if spoilt else "All weights are finite"
        self.found = f"`train_step` reported it, and what that computed is not known. {now}."

    def _of_variables(self, variables):
        owners = [layer for layer in self.model.layers if not _variables_of(layer).isdisjoint(map(id, variables))]
        weights = {id(v) for v in self.model.weights}
        kinds = {"weights" if id(v) in weights else "states" for v in variables}
        whose = f" of {listing(map(name_of_layer, owners))}" if owners else ""
        if self._position == self._first:
            since = "so they were when `fit` began"
        else:
            since = "the step before, of which the loss was finite, left them so"
            if "weights" in kinds:
                since += f" (learning rate {float(self.model.optimizer.learning_rate):g})"
        what = " and ".join(sorted(kinds, reverse=True))
        return f"The {what}{whose} were not finite before this step: {describe_variables(variables)}; {since}."


def _not_finite(weights):
    values = [(v, v.newest) for v in weights if v.dtype.kind == "f"]
    return [v for v, value in values if not array_module(value).isfinite(value).all()]


def _variables_of(layer):
    """The ids of a layer's variables, with the states that it and layers in it go on from."""
    states = [v for inner in layer._flatten_layers() for v in getattr(inner, "_state_variables", None) or ()]
    return {id(v) for v in (*layer.variables, *states)}
