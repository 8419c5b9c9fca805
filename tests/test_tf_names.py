"""TensorFlow's names for a script whose import lines alone were changed. The guide that uses them: `test_guide.py`."""

import numpy as np
import pytest

import numbarnn as keras
from numbarnn import tf_names as tf
from numbarnn.graph import Spec, trace

A, B = np.random.default_rng(0).normal(size=(2, 3, 4)), np.random.default_rng(1).normal(size=(2, 3, 4))
CASES = {
    "matmul": (lambda a, b: tf.matmul(a, b, transpose_b=True), np.matmul(A, B.swapaxes(1, 2))),
    "matmul_a": (lambda a, b: tf.matmul(a, b, transpose_a=True, name="m"), np.matmul(A.swapaxes(1, 2), B)),
    "einsum": (lambda a, b: tf.einsum("bij,bkj->bik", a, b, name="e"), np.einsum("bij,bkj->bik", A, B)),
    "argmax": (lambda a, b: tf.argmax(a), A.argmax(0)),
    "argmax_axis": (lambda a, b: tf.argmax(a, axis=-1, output_type="int32"), A.argmax(-1).astype("int32")),
    "expand_dims": (lambda a, b: tf.expand_dims(a, axis=1), A[:, None]),
    "nest": (lambda a, b: tf.nest.flatten({"y": [b], "x": a})[0] * 2, A * 2),
    "map": (lambda a, b: tf.nest.map_structure(lambda x, y: x - y, [a], [b])[0], A - B),
    "dot": (lambda a, b: keras.backend.dot(a, b[0].T), A @ B[0].T),
}


@pytest.mark.parametrize("name", CASES)
def test_operations_on_arrays_and_traced(name):
    function, expected = CASES[name]
    program = trace(function, (Spec(A.shape, "float64"), Spec(B.shape, "float64")))
    for found in (function(A, B), program(A, B)):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nests():
    flat = tf.nest.flatten(((1, [2]), {"b": 4, "a": tf.TensorShape([3])}))
    assert flat == [1, 2, tf.TensorShape([3]), 4] and type(flat[2]) is tf.TensorShape
    assert tf.nest.pack_sequence_as(((1, [2]), {"b": 4, "a": 3}), range(4)) == ((0, [1]), {"a": 2, "b": 3})
    assert tf.nest.is_nested([1]) and not tf.nest.is_nested(1)


def test_paths_of_names():
    assert tf.keras is keras and tf.TensorShape is keras.TensorShape and tf.device is keras.device
    for path in (
        "Input",
        "Model",
        "Sequential",
        "models.Model",
        "models.Sequential",
        "layers.Layer",
        "layers.Input",
        "layers.RNN",
        "losses.SparseCategoricalCrossentropy",
        "backend.dot",
        "backend.set_floatx",
        "datasets",
        "optimizers.Adam",
        "metrics.Mean",
        "callbacks.Callback",
        "initializers.GlorotUniform",
        "regularizers.L2",
        "utils.to_categorical",
    ):
        found = tf.keras
        for name in path.split("."):
            found = getattr(found, name)
    assert all(getattr(tf, name).__doc__ for name in tf.__all__)


def test_what_is_not_there_says_what_is():
    with pytest.raises(AttributeError, match=r"no 'concatenate': use numbarnn.ops.concatenate"):
        _ = tf.concatenate
    with pytest.raises(AttributeError, match=r"has TensorShape, argmax.*no 'data': see numbarnn.ops"):
        _ = tf.data
    with pytest.raises(AttributeError, match=r"no 'GradientTape': use numbarnn.value_and_grad"):
        _ = tf.GradientTape
    for instead in tf._INSTEAD.values():
        found = keras
        for part in instead.split(":")[0].split(".")[1:]:
            found = getattr(found, part)
    with pytest.raises(TypeError, match="unexpected keyword"):
        tf.einsum("i->", np.ones(3), axis=1)
