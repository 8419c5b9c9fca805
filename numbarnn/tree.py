"""Nested structures: tuples, lists, dicts, namedtuples and whatever else optree knows, of any depth.

A *nest* is either a leaf (anything that is not a registered container: an array, a number, a string, a variable,
``None``) or a container of nests. Dicts are walked in sorted key order. optree is imported at the first use.
"""

from functools import cache

__all__ = ["flatten", "flatten_with_paths", "is_nested", "leaves", "map_structure", "structure", "unflatten"]


@cache
def _optree():
    import optree

    return optree


def flatten(nest, is_leaf=None):
    """Take a nest apart.

    Parameters
    ----------
    nest : any
        A leaf or a container of nests; ``None`` is a leaf.
    is_leaf : callable, optional
        ``is_leaf(x) -> bool`` stops the walk early, for instance at shapes that are tuples.

    Returns
    -------
    leaves : list
    treedef : optree.PyTreeSpec
        The structure, for `unflatten`.
    """
    return _optree().tree_flatten(nest, is_leaf=is_leaf, none_is_leaf=True)


def unflatten(treedef, leaves):
    """Put leaves back into the structure that `flatten` returned.

    Raises
    ------
    ValueError
        If the number of leaves is not the structure's.
    """
    return _optree().tree_unflatten(treedef, leaves)


def leaves(nest, is_leaf=None):
    """Return the leaves of a nest as a list, without its structure."""
    return _optree().tree_leaves(nest, is_leaf=is_leaf, none_is_leaf=True)


def structure(nest, is_leaf=None):
    """Return the structure of a nest; structures compare with ``==``."""
    return _optree().tree_structure(nest, is_leaf=is_leaf, none_is_leaf=True)


def map_structure(fn, nest, *nests, is_leaf=None):
    """Call ``fn`` on the corresponding leaves of one or more nests of equal structure.

    Returns
    -------
    nest
        Of the same structure, holding the results.

    Raises
    ------
    ValueError
        If the structures differ.
    """
    return _optree().tree_map(fn, nest, *nests, is_leaf=is_leaf, none_is_leaf=True)


def flatten_with_paths(nest, is_leaf=None):
    """Return ``[(path, leaf), ...]``; a path is a tuple of the keys, indices and field names that lead to the leaf."""
    paths, found, _ = _optree().tree_flatten_with_path(nest, is_leaf=is_leaf, none_is_leaf=True)
    return list(zip(paths, found, strict=True))


def is_nested(x):
    """Say whether ``x`` is a container that `flatten` takes apart (an empty one too)."""
    return not _optree().tree_is_leaf(x, none_is_leaf=True)
