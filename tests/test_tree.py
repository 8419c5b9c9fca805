"""Nested structures."""

from collections import namedtuple

import numpy as np
import pytest

from numbarnn import tree
from numbarnn.graph import Spec, Tensor
from numbarnn.variable import Variable

Pair = namedtuple("Pair", "left right")


@pytest.mark.parametrize(
    "nest, leaves",
    [
        (3, [3]),
        (None, [None]),
        ("text", ["text"]),
        ([], []),
        ((1, [2, (3,)]), [1, 2, 3]),
        ({"b": 1, "a": {"c": None}}, [None, 1]),
        (Pair(1, [2, 3]), [1, 2, 3]),
        ([(), {"x": ()}, 5], [5]),
    ],
)
def test_flatten_and_back(nest, leaves):
    found, treedef = tree.flatten(nest)
    assert found == leaves == tree.leaves(nest)
    back = tree.unflatten(treedef, found)
    assert back == nest and type(back) is type(nest)
    assert tree.structure(nest) == treedef
    assert tree.is_nested(nest) == (leaves != [nest])
    assert [leaf for _, leaf in tree.flatten_with_paths(nest)] == leaves


@pytest.mark.parametrize(
    "leaf",
    [np.zeros((2, 2)), Variable(1.0), Tensor(Spec((2,))), Spec((2,)), 1.5, "a", None, range(3), slice(2)],
    ids=repr,
)
def test_what_is_a_leaf(leaf):
    assert not tree.is_nested(leaf)
    (found,) = tree.leaves([leaf])
    assert found is leaf


def test_map_structure():
    assert tree.map_structure(lambda x: x * 2, Pair(1, {"a": [2]})) == Pair(2, {"a": [4]})
    assert tree.map_structure(lambda a, b: a + b, (1, [2]), (10, [20])) == (11, [22])
    with pytest.raises(ValueError):
        tree.map_structure(lambda a, b: a, (1, 2), (1, 2, 3))
    with pytest.raises(ValueError):
        tree.unflatten(tree.structure((1, 2)), [1])


def test_is_leaf_stops_the_walk_and_paths_name_places():
    assert tree.leaves([(2, 3), (4,)], is_leaf=lambda x: isinstance(x, tuple)) == [(2, 3), (4,)]
    assert tree.map_structure(len, [(2, 3), (4,)], is_leaf=lambda x: isinstance(x, tuple)) == [2, 1]
    assert tree.flatten_with_paths({"a": [1, 2]}) == [(("a", 0), 1), (("a", 1), 2)]
