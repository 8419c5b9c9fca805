"""The masks that travel with values: a Tensor knows its own, those of arrays are kept in a table here."""

from __future__ import annotations

import weakref

import numpy as np

from ..graph import Op, Tensor
from .nests import leaves_of, map_nest

__all__ = ["ReadOnly", "alias", "attach_mask", "get_mask", "masks_of", "set_mask"]

_masks: dict[int, tuple] = {}  # id of an array -> (weak reference to it, its mask)


def get_mask(x):
    """Return the mask that travels with a value.

    Parameters
    ----------
    x : array or Tensor
        Slices, copies and results of arithmetic have lost the mask of what they were made from.

    Returns
    -------
    array, Tensor or None
        True where a timestep counts.
    """
    if isinstance(x, Tensor):
        return x.mask
    entry = _masks.get(id(x))
    # Another array may live at the address of one that is gone.
    return entry[1] if entry is not None and entry[0]() is x else None


def set_mask(x, mask):
    """Let a mask travel with a value.

    Parameters
    ----------
    x : array or Tensor
    mask : array, Tensor or None
        None takes the mask away.

    Raises
    ------
    TypeError
        If a symbolic mask is given for an array: the array would outlive the trace that the mask belongs to.
    """
    if isinstance(x, Tensor):
        x.mask = mask
        return
    key = id(x)
    if mask is None:
        if get_mask(x) is not None:
            del _masks[key]
        return
    if isinstance(mask, Tensor):
        raise TypeError(f"an array cannot carry the symbolic mask {mask!r}")

    def forget(reference):
        entry = _masks.get(key)
        if entry is not None and entry[0] is reference:
            del _masks[key]

    _masks[key] = (weakref.ref(x, forget), mask)


class ReadOnly:
    """Views of arrays that cannot be written to, for a `call` that a user wrote, with the masks of the arrays.

    On symbols ``x += 1`` is a new value. On an array it would change the array of whoever called.
    """

    def __init__(self):
        self._views = []  # (view, array)

    def view(self, x):
        """Return a view of an array; anything else as it is."""
        if not isinstance(x, np.ndarray) or not x.flags.writeable:
            return x
        view = x.view()
        view.flags.writeable = False
        mask = get_mask(x)
        if mask is not None:
            set_mask(view, mask)
        self._views.append((view, x))
        return view

    def holds(self, x):
        """Say whether something is one of the views, or a part of one."""
        if not isinstance(x, np.ndarray) or x.flags.writeable:
            return False
        return any(np.may_share_memory(x, array) for _, array in self._views)

    def release(self, x):
        """Return the array of a view; a copy of a part of one, to be written to; anything else as it is."""
        for view, array in self._views:
            if view is x:
                return array
        if not self.holds(x):
            return x
        copy, mask = x.copy(), get_mask(x)
        if mask is not None:
            set_mask(copy, mask)
        return copy


def masks_of(nest):
    """Return the masks of a nest of values, in its structure; None if there are none at all."""
    if isinstance(nest, (np.ndarray, Tensor)):
        return get_mask(nest)
    masks = map_nest(get_mask, nest)
    return masks if any(mask is not None for mask in leaves_of(masks)) else None


# The same value under another identity: what a layer returns that returns its input but not the input's mask.
alias = Op("alias", lambda x: x.view(), lambda x: x, lambda node, d: d)


def attach_mask(output, mask, incoming):
    """Return an output with its mask, which it keeps if it has one already; `incoming` are the inputs."""
    if not isinstance(output, (np.ndarray, Tensor)):
        return output
    own = get_mask(output)
    if mask is own:
        return output
    if any(output is x for x in incoming):
        output, own = alias(output), None  # the input keeps its own mask
    if own is None and mask is not None:
        set_mask(output, mask)
    return output
