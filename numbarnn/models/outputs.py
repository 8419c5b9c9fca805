"""The outputs of a model: their names, losses and metrics, and which targets and weights go with each."""

from __future__ import annotations

import contextlib
import copy
import inspect
import math

import numpy as np

from .. import losses, metrics, tree
from ..graph import Tensor

__all__ = [
    "Outputs",
    "check_loss",
    "check_metrics",
    "given_names",
    "leaves_or_nothing",
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


class Outputs:
    """What a model returns, as far as targets, losses and metrics are concerned.

    Parameters
    ----------
    model : Model
    y_pred : nest of array or Tensor
        What the model returned.

    Attributes
    ----------
    names : list of str
        One per leaf of `y_pred`: the keys of a dict, else the model's `output_names` if it has that many, else
        "output_1" and so on.
    """

    def __init__(self, model, y_pred):
        count = len(leaves_or_nothing(y_pred))
        self._parts = None  # key -> number of leaves there, if the outputs are a dict
        if isinstance(y_pred, dict):
            self._parts = {key: len(leaves_or_nothing(y_pred[key])) for key in sorted(y_pred)}
            self.names = ["_".join(map(str, path)) for path, _ in tree.flatten_with_paths(y_pred)]
        else:
            names = getattr(model, "output_names", None)
            self.names = names if names and len(names) == count else [f"output_{i + 1}" for i in range(count)]

    def match(self, nest, what, share=False):
        """The leaves of targets or weights, one per output.

        Parameters
        ----------
        nest : nest of array or Tensor, or None
            Like the outputs, or a dict by their names (by their keys, if they are a dict) without some of them.
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
        count = len(self.names)
        if nest is None:
            return [None] * count
        leaves = []
        if isinstance(nest, dict):
            parts = self._parts or dict.fromkeys(self.names, 1)
            if not set(nest) <= set(parts):
                raise ValueError(f"`{what}` has keys {sorted(nest)}, but the outputs are {list(parts)}.")
            for key, size in parts.items():
                part = nest.get(key)
                leaves += [None] * size if part is None else leaves_or_nothing(part)
        else:
            leaves = leaves_or_nothing(nest)
            if share and len(leaves) == 1:
                return leaves * count
        if len(leaves) != count:
            raise ValueError(
                f"`{what}` must hold one array for each of {count} outputs. Received: {len(leaves)} arrays"
            )
        return leaves


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
    for_all = loss is None or not isinstance(loss, (list, tuple, dict))
    specs = [loss] * count if for_all else _per_output(loss, names, count, "loss")
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
    entries, taken = [], set()
    given = [
        (argument, is_weighted, *_metrics_per_output(given, names, argument))
        for argument, given, is_weighted in (("metrics", plain, False), ("weighted_metrics", weighted, True))
        if given
    ]
    for number, name in enumerate(names):
        prefix = f"{name}_" if len(names) > 1 else ""
        for argument, is_weighted, for_all, items in given:
            if for_all and targets[number] is None:
                continue  # that is, for all that have targets
            for item in items[number]:
                if item is None:
                    continue
                if targets[number] is None:
                    raise ValueError(f"`{argument}` were given for output '{name}', but no targets.")
                metric = metrics.resolve(item, targets[number].shape, predictions[number].shape)
                if for_all and metric is item:
                    metric = copy.deepcopy(item)  # each output has its own
                # As it was given: what it is called here is no part of its configuration.
                metric.given_name = getattr(metric, "given_name", metric.name)
                metric.name = _free_name(prefix, metric.given_name, is_weighted, taken)
                taken.add(metric.name)
                entries.append((metric, number, is_weighted))
    return entries


@contextlib.contextmanager
def given_names(entries):
    """Within the block, metrics have the names that they were given with.

    Parameters
    ----------
    entries : list or None
        What `resolve_metrics` returned.
    """
    names = [(metric, metric.name) for metric, _, _ in entries or ()]
    for metric, _ in names:
        metric.name = metric.given_name
    try:
        yield
    finally:
        for metric, name in names:
            metric.name = name


def _metrics_per_output(given, names, argument):
    """Whether the metrics are those of all outputs, and a list of them for each output."""
    count = len(names)
    if count == 1 and not isinstance(given, dict):
        return False, [leaves_or_nothing(given)]
    if isinstance(given, dict) or any(isinstance(item, (list, tuple, dict)) or item is None for item in given):
        return False, [_as_list(item) for item in _per_output(given, names, count, argument)]
    return True, [list(given)] * count


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
    if count > 1:
        raise ValueError(
            f"`{argument}` of a model with {count} outputs must be a list, or a dict by their names {list(names)}. "
            f"Received: {given!r}"
        )
    return [given]
