"""Gradients of a model, layer, cell or loss of a user, checked by central differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import losses, ops, tree
from ..gradients import Recorder, kept, put_back
from ..layers import InputLayer, Layer, get_mask, set_mask
from ..layers.nests import leaves_of
from ..layers.watching import moving_variables, unmoved
from ..models import Model
from ..random import global_generator
from .gradients import slopes

__all__ = ["GradientReport", "gradcheck"]


class Checked(NamedTuple):
    """How the gradient of one weight or input did along the direction in which it did worst."""

    name: str
    shape: tuple
    slope: float  # what the gradient says
    difference: float  # what the loss does
    error: float


@dataclass(frozen=True)
class GradientReport:
    """What `gradcheck` found.

    Attributes
    ----------
    entries : tuple of (name, shape, slope, difference, error)
        For each trainable weight and each input, along the direction in which the gradient did worst: the slope of the
        loss by the gradient, by the central difference, and the error between the two, relative to their size.
    tolerance : float
        Largest error allowed.
    """

    entries: tuple
    tolerance: float

    @property
    def worst(self):
        """The entry with the largest error."""
        return max(self.entries, key=lambda entry: np.inf if np.isnan(entry.error) else entry.error)

    @property
    def passed(self):
        """Whether all errors are within the tolerance."""
        return bool(self.worst.error <= self.tolerance)

    def __str__(self):
        names = [f"{entry.name} {entry.shape}" for entry in self.entries]
        width = max(len("weight or input"), *map(len, names))
        lines = [f"{'weight or input':{width}}  {'by gradient':>13}  {'by difference':>13}  {'error':>8}"]
        for name, entry in zip(names, self.entries, strict=True):
            mark = "" if entry.error <= self.tolerance else "  <- wrong"
            lines.append(f"{name:{width}}  {entry.slope:13.6g}  {entry.difference:13.6g}  {entry.error:8.1e}{mark}")
        return "\n".join(lines)


def gradcheck(
    model, x, y=None, *, loss=None, sample_weight=None, training=False, directions=3, step=1e-6, tolerance=1e-6, seed=0
):
    """Check the gradients of a model or layer, those of all trainable weights and inputs, by central differences.

    For layers, cells and losses of your own, above all for a cell with a `backward`. The weights and inputs are moved a
    little along random directions, and what the loss does is compared with what its gradient says. Random draws, as of
    dropout in training, are the same in all evaluations; states of stateful layers, statistics and random generators
    are afterwards what they were.

    Parameters
    ----------
    model : Layer or Model
        That computes in float64. Differences in float32 say next to nothing.
    x : array, or nest of arrays
        A batch. A small one does, with values at which the loss is smooth.
    y, sample_weight : nest of array, optional
        Targets: the loss is that of `compile`, or `loss`. Without, it is the sum of all outputs, each times a number of
        its own. Penalties are added.
    loss : str or callable, optional
        In place of that of `compile`: ``loss(y, y_pred)``; what is no scalar is averaged.
    training : bool
        In which mode the layers are called.
    directions : int
        How many, for each weight and input.
    step : float
        How far to either side.
    tolerance : float
        Largest error relative to the slope; what rounding of the loss explains is never an error.
    seed : int
        Of the directions.

    Returns
    -------
    GradientReport
        Where all gradients are right.

    Raises
    ------
    AssertionError
        Where one is not, or is not finite: with the report, and the name of the worst.
    TypeError
        If `model` is no layer.
    ValueError
        If something computes in less than float64, `y` comes without a loss or a loss without `y`, the loss is not
        finite, not the same when it is computed again, or does not depend on what is checked, or there is nothing to
        check.

    Examples
    --------
    >>> import numpy as np
    >>> import numbarnn
    >>> from numbarnn import layers
    >>> layer = layers.GRU(2, dtype="float64", name="gru")
    >>> report = numbarnn.gradcheck(layer, np.ones((2, 3, 4)))
    >>> [entry.name for entry in report.entries]
    ['gru/gru_cell/kernel', 'gru/gru_cell/recurrent_kernel', 'gru/gru_cell/bias', 'input']
    >>> report.worst.error < 1e-6
    True
    """
    if not isinstance(model, Layer):
        raise TypeError(
            f"`model` must be a layer or a model; wrap a cell: layers.RNN(cell). Received: {type(model).__name__}"
        )
    for name, value in (("directions", directions), ("step", step), ("tolerance", tolerance)):
        if not value > 0:
            raise ValueError(f"`{name}` must be larger than 0. Received: {name}={value}")
    compiled = isinstance(model, Model) and model.compiled
    if y is None and (loss is not None or sample_weight is not None):
        raise ValueError("`loss` and `sample_weight` need targets `y`")
    if loss is not None and sample_weight is not None:
        raise ValueError("`sample_weight` goes with the loss of `compile`. Received: `loss` as well")
    if y is not None and loss is None and not compiled:
        raise ValueError("Targets `y` need a loss: compile the model, or give `loss`")
    x, y, sample_weight = (tree.map_structure(_wide, nest) for nest in (x, y, sample_weight))
    with unmoved(model):
        model(x)  # builds what is not built
        _refuse_narrow(model)

        function = _loss_of(model, None if loss is None else losses.get(loss), training)
        args = x, y, sample_weight
        moving = [*moving_variables(model), *model.non_trainable_variables, global_generator().state]
        before = kept(moving)
        try:
            entries = _check(model, function, args, before, directions, step, tolerance, seed)
        finally:
            put_back(before)
    if not entries:
        raise ValueError(f"There is nothing to check: layer '{model.name}' has no trainable weight and no float input")
    report = GradientReport(tuple(entries), tolerance)
    if not report.passed:
        worst = report.worst
        raise AssertionError(
            f"The gradient of {worst.name} is wrong: along a direction it says {worst.slope:.6g}, the loss changes by "
            f"{worst.difference:.6g} (relative error {worst.error:.1e}, allowed {tolerance:.1e}).\n{report}\n"
            "Where the loss has a kink (relu, maximum, hard_sigmoid) differences are wrong, not gradients: try other "
            "values of `x`."
        )
    return report


def _wide(x):
    """Return an array with its floats in float64; its mask stays with it."""
    if x is None:
        return None
    array = np.asarray(x)
    wide = array.astype(np.float64) if array.dtype.kind == "f" else array
    mask = get_mask(x) if isinstance(x, np.ndarray) else None
    if mask is not None:
        set_mask(wide, mask)
    return wide


def _refuse_narrow(model):
    """Refuse a model in which something is computed in less than float64."""
    narrow = []
    for layer in model._flatten_layers():
        dtype = np.dtype(layer.output.dtype if isinstance(layer, InputLayer) else layer.compute_dtype)
        if not isinstance(layer, Model) and dtype.kind == "f" and dtype != np.float64:
            narrow.append(f"'{layer.name}' ({dtype})")
    if narrow:
        raise ValueError(
            "`gradcheck` needs float64: in less, differences say next to nothing. Make the model anew after "
            f"numbarnn.backend.set_floatx('float64'), or its layers with dtype='float64'. In less: {', '.join(narrow)}"
        )


def _loss_of(model, loss, training):
    """Return ``function(x, y, sample_weight)``, the scalar that is differentiated."""

    def function(x, y, sample_weight):
        out = model(x, training=training)
        if y is not None and loss is None:
            return model.compute_loss(x=x, y=y, y_pred=out, sample_weight=sample_weight, training=training)
        if y is None:
            value = 0.0
            for leaf in leaves_of(out):
                # No two outputs count the same, or what is exchanged would not be seen.
                factors = np.cos(np.arange(np.prod(leaf.shape, dtype=int))).reshape(leaf.shape)
                value = value + ops.sum(leaf * factors)
        else:
            value = ops.mean(loss(y, out))
        for penalty in model.losses:
            value = value + ops.sum(penalty)
        return value

    return function


def _check(model, function, args, before, directions, step, tolerance, seed):
    """Return a list of `Checked`."""
    weights = [v for v in model.trainable_variables if v.data.dtype == np.float64]
    leaves, structure = tree.flatten(args[0])
    floats = [place for place, x in enumerate(leaves) if x.dtype.kind == "f"]
    by_weights, by_inputs = Recorder(function, model), Recorder(function, model, by_inputs=True)

    def run(recorder, moved=()):
        put_back(before)
        places = dict(zip(floats, moved, strict=False))
        x = tree.unflatten(structure, [_in_place_of(leaf, places.get(k)) for k, leaf in enumerate(leaves)])
        value, gradients = recorder((x, *args[1:]), {})
        return float(value), gradients

    names, arrays, gradients, functions = [], [], [], []
    if weights:
        start = [v.numpy() for v in weights]

        def by_weight(*values):
            for variable, value in zip(weights, values, strict=True):
                variable.assign(value)
            try:
                return run(by_weights)[0]
            finally:
                for variable, value in zip(weights, start, strict=True):
                    variable.assign(value)

        value, found = run(by_weights)
        found = {id(v): g for v, g in zip(model.trainable_variables, found, strict=True)}
        names.append([v.path for v in weights])
        arrays.append(start)
        gradients.append([found[id(v)] for v in weights])
        functions.append(by_weight)
    if floats:
        value, found = run(by_inputs)
        names.append(["input" if len(leaves) == 1 else f"input {place}" for place in floats])
        arrays.append([leaves[place] for place in floats])
        gradients.append([found[place] for place in floats])
        functions.append(lambda *moved: run(by_inputs, moved)[0])
    entries = []
    for own_names, own_arrays, own_gradients, own_function in zip(names, arrays, gradients, functions, strict=True):
        if not np.isfinite(value):
            raise ValueError(f"The loss is {value!r}: there is nothing to compare. Check it where it is finite")
        if own_function(*own_arrays) != value:
            raise ValueError(
                f"The loss is not the same when it is computed again: {value!r}, then {own_function(*own_arrays)!r}. "
                "Draw random numbers from numbarnn.random"
            )
        worst = {}
        given = {"directions": directions, "step": step, "seed": seed}
        for index, slope, difference in slopes(own_function, own_arrays, own_gradients, **given):
            gradient = own_gradients[index]
            typical = np.linalg.norm(gradient) / np.sqrt(gradient.size)
            # Sums of the loss are off by some ulps.
            rounding = 16 * np.finfo(float).eps * max(abs(value), 1e-3) / step
            error = abs(slope - difference) / max(abs(slope), abs(difference), typical, rounding / tolerance)
            entry = Checked(own_names[index], own_arrays[index].shape, slope, difference, float(error))
            if index not in worst or not entry.error <= worst[index].error:
                worst[index] = entry
        entries += worst.values()
    return entries


def _in_place_of(leaf, moved):
    """Return the moved array with the mask of the one that it is in place of."""
    if moved is None:
        return leaf
    moved = np.array(moved)
    mask = get_mask(leaf)
    if mask is not None:
        set_mask(moved, mask)
    return moved
