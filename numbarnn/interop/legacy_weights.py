"""Weights in Keras's older HDF5 files: a group for each of the model's layers, named in an attribute, in their order.

Keras 2 writes such files by default (``save_weights("x.h5")``, and the group ``model_weights`` of a whole model), and
Keras 3 still can.
"""

from __future__ import annotations

from .assignments import Assignments

__all__ = ["in_our_order", "read", "read_optimizer"]

_TOP_LEVEL = "top_level_model_weights"
_IN_TURN = {("m:0", "v:0"), ("accum_grad:0", "accum_var:0"), ("accumulator:0", "linear:0")}


def _weights(layer):
    """A layer's weights in the order of these files."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _stored(group):
    names = group.texts("weight_names") or []
    return [group.dataset(name) for name in names]


def read(model, root, *, by_name=False, skip_mismatch=False):
    """Read what a file holds for a model; nothing is changed yet.

    Parameters
    ----------
    model : Model
        Built.
    root : Group
        The one that has the attribute ``layer_names``.
    by_name : bool
        Find layers by their names, not by their order.
    skip_mismatch : bool
        Leave out layers that do not fit, with a warning.

    Returns
    -------
    Assignments

    Raises
    ------
    ValueError
        If something is damaged or no group or dataset of this file, or there is another number of layers.
    """
    names = root.texts("layer_names")
    if names is None:
        raise ValueError("The file is not one of Keras: the attribute 'layer_names' is missing")
    result = Assignments(skip_mismatch)
    layers = [layer for layer in model.layers if _weights(layer)]
    groups = {name: stored for name in names if (stored := _stored(root.group(name)))}
    if by_name:
        known = {layer.name for layer in layers}
        for name in groups.keys() - known:
            result.refuse(f"layer '{name}' of the file is not in the model")
        pairs = [(layer, layer.name) for layer in layers]
    else:
        if len(layers) != len(groups):
            # Which belongs to which is not known then, so nothing can be skipped.
            raise ValueError(
                f"Layer count mismatch when loading weights from file. Model expected {len(layers)} layers, found "
                f"{len(groups)} saved layers."
            )
        pairs = zip(layers, groups, strict=True)
    for layer, name in pairs:
        result.add(f"layer '{layer.name}' from '{name}'", _weights(layer), groups.get(name, []))
    top = root.find(_TOP_LEVEL)
    if top is not None:
        own = model._own_variables()
        weights = [v for v in _weights(model) if any(v is w for w in own)]
        result.add(f"model '{model.name}'", weights, _stored(top))
    return result


def read_optimizer(model, root, result):
    """Read what a file of a whole model holds for its optimizer.

    Parameters
    ----------
    model : Model
        Compiled.
    root : Group
        Of the file.
    result : Assignments
        Takes it.
    """
    group = root.find("optimizer_weights")
    if group is None:
        return
    names, stored = group.texts("weight_names") or [], _stored(group)
    stored = in_our_order(names, stored, len(model._trained_variables()))
    if stored:
        result.add_optimizer(model.optimizer, model, stored)


def in_our_order(names, stored, count):
    """Put the state of one of the oldest optimizers (before Keras 2.11) into the order of all later ones.

    Parameters
    ----------
    names : list of str
        Of what is stored. Those of the oldest optimizers begin with ``.../iter:0`` and end with the slot's name.
    stored : list
        The count of steps, then one slot of all weights, then the next slot of all weights.
    count : int
        Of the weights.

    Returns
    -------
    list
        The first two slots taken in turn for each weight, where later optimizers have them so.
    """
    kinds = [name.rpartition("/")[2] for name in names]
    if not kinds or not kinds[0].startswith("iter:") or tuple(kinds[1 :: count or 1][:2]) not in _IN_TURN:
        return stored
    first, second, rest = stored[1 : 1 + count], stored[1 + count : 1 + 2 * count], stored[1 + 2 * count :]
    return [stored[0], *(slot for pair in zip(first, second, strict=True) for slot in pair), *rest]
