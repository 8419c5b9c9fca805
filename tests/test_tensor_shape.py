"""`TensorShape`: a tuple that knows it is one shape."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import TensorShape


def test_it_is_a_tuple():
    shape = TensorShape([None, 3, np.int64(4)])
    assert isinstance(shape, tuple) and shape == (None, 3, 4) == shape and [None, 3, 4] == shape != (None, 3)
    assert not shape != [None, 3, 4] and shape != "a" and {shape: 1}[(None, 3, 4)] == 1
    assert list(shape) == shape.as_list() == shape.dims == [None, 3, 4] and type(shape[2]) is int
    assert shape.rank == shape.ndims == len(shape) == 3
    assert np.zeros(TensorShape([2, 3])).shape == TensorShape([2, 3])
    assert TensorShape(5) == (5,) and TensorShape([]) == () and TensorShape(shape) == shape
    assert repr(shape) == "TensorShape([None, 3, 4])" and str(shape) == "(None, 3, 4)" and str(TensorShape(5)) == "(5,)"
    for twin in (pickle.loads(pickle.dumps(shape)), copy.deepcopy(shape)):
        assert type(twin) is TensorShape and twin == shape


def test_parts_and_sums_are_shapes():
    shape = TensorShape([None, 3, 4])
    for found, expected in (
        (shape[1:], (3, 4)),
        (shape[::-1], (4, 3, None)),
        (shape + [5], (None, 3, 4, 5)),
        ((2,) + shape, (2, None, 3, 4)),
        ([2] + shape, (2, None, 3, 4)),
        (shape.concatenate(5), (None, 3, 4, 5)),
    ):
        assert type(found) is TensorShape and found == expected
    assert shape[1:].num_elements() == 12 and shape.num_elements() is None and TensorShape([]).num_elements() == 1
    assert shape[1:].is_fully_defined() and not shape.is_fully_defined()
    assert shape.is_compatible_with((7, 3, None)) and not shape.is_compatible_with((7, 2, 4))
    assert not shape.is_compatible_with((3, 4))


def test_what_is_refused():
    for wrong in (None, "ab", [1.5], [None, "a"]):
        with pytest.raises(TypeError, match=r"TensorShape\(\[None, 3\]\)"):
            TensorShape(wrong)
    with pytest.raises(ValueError, match="negative"):
        TensorShape([2, -1])
