"""Nests of values: the short way for what is nearly always one array.

Lists, tuples, namedtuples and dicts are nests, everything else is a leaf. `numbarnn.tree` knows more containers, and
brings in optree.
"""

from __future__ import annotations

import numpy as np

__all__ = ["first_shape", "is_shape", "is_values", "leaves_of", "map_nest", "map_shapes", "pack_like", "shape_of"]


def map_nest(fn, nest):
    """Return a nest of the same structure with the results of `fn` on the leaves, called in the order of dicts."""
    if isinstance(nest, dict):
        return type(nest)((key, map_nest(fn, value)) for key, value in nest.items())
    if isinstance(nest, (list, tuple)):
        items = [map_nest(fn, item) for item in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
    return fn(nest)


def leaves_of(nest):
    """Return the leaves of a nest as a list, dicts in the order of their sorted keys; None is a leaf."""
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in leaves_of(nest[key])]
    if isinstance(nest, (list, tuple)):
        return [leaf for item in nest for leaf in leaves_of(item)]
    return [nest]


def pack_like(nest, flat):
    """Return values nested like `nest`, whose `leaves_of` these are to be.

    Parameters
    ----------
    nest : nest
    flat : iterable
        As many as the nest has leaves.
    """
    values = iter(flat)

    def fill(nest):
        if isinstance(nest, dict):
            found = {key: fill(nest[key]) for key in sorted(nest)}
            return type(nest)((key, found[key]) for key in nest)
        if isinstance(nest, (list, tuple)):
            items = [fill(item) for item in nest]
            return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
        return next(values)

    return fill(nest)


def is_shape(x):
    """Say whether something is one shape: a list or tuple of lengths, None among them."""
    return isinstance(x, (list, tuple)) and all(n is None or isinstance(n, (int, np.integer)) for n in x)


def map_shapes(fn, nest):
    """Return a nest of shapes with the results of `fn` on each shape."""
    if is_shape(nest):
        return fn(tuple(nest))
    if isinstance(nest, dict):
        return type(nest)((key, map_shapes(fn, value)) for key, value in nest.items())
    items = [map_shapes(fn, item) for item in nest]
    return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)


def first_shape(shapes):
    """Return the first shape of a nest of them."""
    found = []
    map_shapes(found.append, shapes)
    return found[0]


def shape_of(nest):
    """Return the shapes of a nest of values, in its structure; None for what has none."""
    return map_nest(lambda x: tuple(x.shape) if hasattr(x, "shape") else None, nest)


def is_values(nest):
    """Say whether something can have a shape: an array, a Tensor, a Variable, or a nest of these."""
    leaves = leaves_of(nest)
    return any(hasattr(x, "shape") for x in leaves) and all(x is None or hasattr(x, "shape") for x in leaves)
