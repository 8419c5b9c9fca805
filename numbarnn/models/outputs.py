"""The outputs of a model: their names, losses and metrics, and which targets and weights go with each."""

from __future__ import annotations

import inspect
import math

import numpy as np

from .. import losses, metrics, tree
from ..graph import Tensor

__all__ = [
    "check_loss",
    "check_metrics",
    "leaves_or_nothing",
    "match_outputs",
    "names_of_outputs",
    "resolve_losses",
    "resolve_metrics",
    "unique_names",
]


def leaves_or_nothing(nest):
    """The leaves of a nest as a list, which is empty for None (but None within a nest is a leaf)."""
    if nest is None:
        return []
    if isinstance(nest, (np.ndarray, Tensor)):
        return [nest]
    return tree.leaves(nest)


def names_of_outputs(model, y_pred):
    """The names of a model's outputs, in the order of the leaves of `y_pred`.

    Parameters
    ----------
    model : Model
    y_pred : nest of array or Tensor
        What the model returns.

    Returns
    -------
    list of str
        The keys of a dict, else the model's `output_names` if it has that many, else "output_1" and so on.
    """
    count = len(leaves_or_nothing(y_pred))
    if isinstance(y_pred, dict):
        return sorted(y_pred)
    names = getattr(model, "output_names", None)
    return names if names and len(names) == count else [f"output_{i + 1}" for i in range(count)]


def unique_names(names):
    """Number the names that come again: a, a_1, a_2.

    Parameters
    ----------
    names : list of str

    Returns
    -------
    list of str
    """
    found, copies = {}, {}
    for name in names:
        free = name
        while free in found:
            copies[name] = copies.get(name, 0) + 1
            free = f"{name}_{copies[name]}"
        found[free] = None
    return list(found)


# ---------------------------------------------------------------------------------------------------------------
# losses and metrics


def check_loss(loss):
    """Raise ValueError unless all that is given as `loss` is known; needs no data.

    Parameters
    ----------
    loss : str, Loss, function, or nest of these, or None
    """
    for item in leaves_or_nothing(loss):
        if not (isinstance(item, str) and item.lower() in ("crossentropy", "ce")):
            losses.get(item)


def check_metrics(argument, given):
    """Raise ValueError unless all that is given as metrics is known; needs no data.

    Parameters
    ----------
    argument : str
        The argument's name, for messages.
    given : list, tuple or dict of metrics, or None
    """
    if given is not None and not isinstance(given, (list, tuple, dict)):
        raise ValueError(
            f"Expected `{argument}` argument to be a list, tuple, or dict. "
            f"Received instead: {argument}={given} of type {type(given)}"
        )
    for item in leaves_or_nothing(given):
        if not (isinstance(item, str) and item.lower() in ("accuracy", "acc", "crossentropy", "ce")):
            _ = item is None or _metric(item)


def _metric(item):
    found = metrics.get(item)
    if not isinstance(found, metrics.Metric):
        parameters = _positional(found)
        if parameters is not None and parameters < 2:
            raise ValueError(f"A metric function takes (y_true, y_pred). Received: {found!r}")
    return found


def _positional(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return math.inf
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def resolve_losses(loss, loss_weights, names, targets, predictions):
    """Find the loss and its weight for each output.

    Parameters
    ----------
    loss, loss_weights
        As given to `compile`.
    names : list of str
        Of the outputs.
    targets, predictions : list of array or Tensor
        Their shapes choose among crossentropies.

    Returns
    -------
    list of (Loss or None, float)

    Raises
    ------
    ValueError
        If `loss` or `loss_weights` does not fit the outputs, or must be chosen by targets that are not there.
    """
    count = len(predictions)
    specs = _per_output(loss, names, count, "loss")
    if count > 1 and loss is not None and not isinstance(loss, (list, tuple, dict)):
        specs = [loss] * count
    factors = _per_output(loss_weights, names, count, "loss_weights")
    objects = []
    for number, spec in enumerate(specs):
        factor = factors[number]
        target = targets[number] if number < len(targets) else None
        if isinstance(spec, str) and spec.lower() in ("crossentropy", "ce"):
            if target is None:
                raise ValueError(f"The loss {spec!r} is chosen by the shape of the targets, but none were given.")
            spec = metrics.choose_by_shape(
                target.shape,
                predictions[number].shape,
                losses.binary_crossentropy,
                losses.sparse_categorical_crossentropy,
                losses.categorical_crossentropy,
            )
        found = losses.get(spec)
        if found is not None and not isinstance(found, losses.Loss):
            found = losses.LossFunctionWrapper(found)
        objects.append((found, 1.0 if factor is None else float(factor)))
    return objects


def resolve_metrics(plain, weighted, names, targets, predictions):
    """Find the metrics of each output, and give each a name of its own.

    Parameters
    ----------
    plain, weighted
        `metrics` and `weighted_metrics` as given to `compile`.
    names : list of str
        Of the outputs.
    targets : list of array or None
        One per output; their shapes choose among accuracies and crossentropies.
    predictions : list of array or Tensor

    Returns
    -------
    list of (Metric, int, bool)
        The metric, the number of its output, whether it knows the sample weights.

    Raises
    ------
    ValueError
        If an output has metrics and no targets, or a dict names an output that there is not.
    """
    count = len(predictions)
    entries, taken = [], set()
    for argument, given, is_weighted in (("metrics", plain, False), ("weighted_metrics", weighted, True)):
        if given:
            for number, items in enumerate(_metrics_per_output(given, names, count, argument)):
                for item in items:
                    if item is None:
                        continue
                    if targets[number] is None:
                        raise ValueError(f"`{argument}` were given for output number {number}, but no targets.")
                    metric = metrics.resolve(item, targets[number].shape, predictions[number].shape)
                    prefix = "" if count == 1 else f"{names[number]}_"
                    metric.name = _free_name(prefix, metric.name, is_weighted, taken)
                    taken.add(metric.name)
                    entries.append((metric, number, is_weighted))
    return entries


def _metrics_per_output(given, names, count, argument):
    if count == 1:
        return [leaves_or_nothing(given)]
    if isinstance(given, dict):
        return [_as_list(item) for item in _per_output(given, names, count, argument)]
    if len(given) == count and any(isinstance(item, (list, tuple)) or item is None for item in given):
        return [_as_list(item) for item in given]
    return [list(given)] * count


def _free_name(prefix, own, weighted, taken):
    name = prefix + own
    if weighted and name in taken:
        name = f"{prefix}weighted_{own}"
    plain, copies = name, 0
    while name in taken:
        copies += 1
        name = f"{plain}_{copies}"
    return name


def _as_list(item):
    return list(item) if isinstance(item, (list, tuple)) else [item]


def _per_output(given, names, count, argument):
    """One entry per output from a single value, a list, or a dict by output name; None where nothing is given."""
    if given is None:
        return [None] * count
    if isinstance(given, dict):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"`{argument}` has an entry for {unknown[0]!r}, but the outputs are named {list(names)}.")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != count:
            raise ValueError(
                f"`{argument}` must have one entry for each of {count} outputs. Received: {len(given)} entries"
            )
        return list(given)
    return [given] + [None] * (count - 1)


# ---------------------------------------------------------------------------------------------------------------
# targets and weights


def match_outputs(nest, count, y_pred, what, share=False):
    """The leaves of targets or weights, one per output.

    Parameters
    ----------
    nest : nest of array or Tensor, or None
    count : int
        How many outputs there are.
    y_pred : nest of array or Tensor, or None
        The outputs; if they are a dict, a dict without some of its keys will do.
    what : str
        The argument's name, for messages.
    share : bool
        Whether one array may do for all outputs.

    Returns
    -------
    list of array, Tensor or None

    Raises
    ------
    ValueError
        If there are more or fewer, or keys that are no outputs.
    """
    if nest is None:
        return [None] * count
    if isinstance(nest, dict) and isinstance(y_pred, dict) and set(nest) != set(y_pred):
        if not set(nest) <= set(y_pred):
            raise ValueError(f"`{what}` has keys {sorted(nest)}, but the outputs are {sorted(y_pred)}.")
        return [nest.get(key) for key in sorted(y_pred)]
    leaves = leaves_or_nothing(nest)
    if share and len(leaves) == 1:
        return leaves * count
    if len(leaves) != count:
        raise ValueError(f"`{what}` must hold one array for each of {count} outputs. Received: {len(leaves)} arrays")
    return leaves
