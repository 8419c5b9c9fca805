"""Flatten, Reshape, RepeatVector, Permute, SpatialDropout1D: values, shapes, types, gradients, masks, errors."""

import numpy as np
import pytest

from numbarnn import backend, graph, layers, serialization
from numbarnn.graph import Spec
from numbarnn.testing.gradients import check_gradients

# layer, shape of the input, what NumPy makes of it
CASES = {
    "flatten": (lambda: layers.Flatten(), (3, 4, 5), lambda x: x.reshape(len(x), -1)),
    "flatten a vector": (lambda: layers.Flatten(), (3,), lambda x: x[:, None]),
    "flatten a matrix": (lambda: layers.Flatten("channels_first"), (3, 4), lambda x: x),
    "flatten channels first": (
        lambda: layers.Flatten("channels_first"),
        (2, 3, 4, 5),
        lambda x: np.stack([row.transpose(1, 2, 0).ravel() for row in x]),
    ),
    "reshape": (lambda: layers.Reshape((2, 6)), (3, 4, 3), lambda x: x.reshape(3, 2, 6)),
    "reshape with -1": (lambda: layers.Reshape((-1, 2, 3)), (3, 4, 3), lambda x: x.reshape(3, 2, 2, 3)),
    "reshape with None": (lambda: layers.Reshape([None, 4]), (3, 4, 3), lambda x: x.reshape(3, 3, 4)),
    "reshape to nothing": (lambda: layers.Reshape(()), (3, 1), lambda x: x[:, 0]),
    "repeat": (lambda: layers.RepeatVector(4), (3, 5), lambda x: np.stack([x] * 4, axis=1)),
    "repeat once": (lambda: layers.RepeatVector(np.int64(1)), (3, 5), lambda x: x[:, None]),
    "permute": (lambda: layers.Permute((2, 1)), (3, 4, 5), lambda x: np.swapaxes(x, 1, 2)),
    "permute three": (lambda: layers.Permute([3, 1, 2]), (2, 3, 4, 5), lambda x: np.moveaxis(x, 3, 1)),
}


@pytest.fixture(params=CASES)
def case(request):
    """Return a layer, an array for it, and the expected result."""
    make, shape, expected = CASES[request.param]
    x = np.random.default_rng(0).standard_normal(shape)
    return make(), x, expected(x)


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_values_and_types(case, dtype):
    layer, x, expected = case
    y = layer(x.astype(dtype))
    assert type(y) is np.ndarray and y.dtype == dtype
    np.testing.assert_array_equal(y, expected.astype(dtype))
    assert layer.compute_output_shape(x.shape) == expected.shape
    assert layer.compute_output_shape((None, *x.shape[1:])) == (None, *expected.shape[1:])
    symbol = layer(layers.Input(x.shape[1:], dtype=dtype))
    assert (symbol.shape, symbol.dtype) == ((None, *expected.shape[1:]), dtype)
    assert layer(x[:0].astype(dtype)).shape == (0, *expected.shape[1:])


def test_unknown_lengths(case):
    layer, x, expected = case
    inputs = layers.Input([None] * (x.ndim - 1))
    outputs = layer(inputs)
    assert len(outputs.shape) == expected.ndim
    np.testing.assert_array_equal(graph.evaluate(outputs, inputs, x.astype("f")), expected.astype("f"))
    program = graph.trace(layer, (Spec((None,) * x.ndim),))
    np.testing.assert_array_equal(program(x.astype("f")), expected.astype("f"))
    for known, length in zip(outputs.shape, expected.shape, strict=True):
        assert known in (None, length)


def test_gradients(case, rng):
    layer, x, expected = case
    backend.set_floatx("float64")
    layer = type(layer).from_config({**layer.get_config(), "dtype": "float64"})
    d = rng.standard_normal(expected.shape)
    for lengths in (x.shape, (None,) * x.ndim):
        program = graph.trace(layer, (Spec(lengths, "float64"),))
        forward, backward = program.linearize(0, program.inputs)
        _, residuals = forward(x)
        check_gradients(lambda x: (layer(x) * d).sum(), [x], backward(residuals, d))


def test_mixed_precision(case):
    layer, x, expected = case
    layer = type(layer).from_config({**layer.get_config(), "dtype": "mixed_float16"})
    assert layer(x).dtype == np.float16
    assert layer(layers.Input(x.shape[1:])).dtype == np.float16
    assert layer(x.astype(int)).dtype == np.int64
    assert layer(layers.Input(x.shape[1:], dtype="int64")).dtype == np.int64


def test_configuration(case):
    layer, x, _ = case
    config = serialization.serialize_keras_object(layer)
    again = serialization.deserialize_keras_object(config)
    assert again.get_config() == layer.get_config()
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize(
    ("make", "mask"),
    [
        (layers.Flatten, np.ones((2, 6), bool)),
        (lambda: layers.Reshape((3, 8)), np.ones((2, 6), bool)),
        (lambda: layers.Permute((2, 1)), np.ones((2, 6), bool)),
        (lambda: layers.RepeatVector(2), np.ones(2, bool)),
        (layers.GlobalMaxPooling1D, np.ones((2, 6), bool)),
    ],
)
def test_a_mask_is_destroyed_with_a_warning(make, mask):
    layer = make()
    assert not layer.supports_masking
    shape = (2, 4) if mask.ndim == 1 else (2, 6, 4)
    x = np.ones(shape, np.float32)
    layers.set_mask(x, mask)
    with pytest.warns(UserWarning, match=f"Layer '{layer.name}' .* does not support masking"):
        y = layer(x)
    assert layers.get_mask(y) is None
    if mask.ndim == 2:
        symbol = layers.Masking()(layers.Input(shape[1:]))
        with pytest.warns(UserWarning, match="does not support masking"):
            assert layer(symbol).mask is None


def test_errors():
    with pytest.raises(ValueError, match=r"must be a non-negative integer, or `-1` .* target_shape=\(-2,\)"):
        layers.Reshape((-2,))
    for target in ((-1, -1), (None, -1)):
        with pytest.raises(ValueError, match="There must be at most one unknown dimension"):
            layers.Reshape(target)
    wrong = r"The total size of the tensor must be unchanged. Received: input_shape=\(5,\), target_shape=\(2, 2\)"
    with pytest.raises(ValueError, match=wrong):
        layers.Reshape((2, 2))(np.ones((3, 5)))
    with pytest.raises(ValueError, match=wrong):
        layers.Reshape((2, 2))(layers.Input((5,)))
    with pytest.raises(ValueError, match="cannot by divided by the specified dimensions"):
        layers.Reshape((-1, 2))(np.ones((3, 5)))
    outputs = layers.Reshape((-1, 2))(inputs := layers.Input((None, 3)))
    assert outputs.shape == (None, None, 2)
    with pytest.raises(ValueError, match="cannot by divided"):
        graph.evaluate(outputs, inputs, np.ones((2, 3, 3), np.float32))
    for n in (2.0, True, "2"):
        with pytest.raises(TypeError, match="Expected an integer value for `n`, got"):
            layers.RepeatVector(n)
    with pytest.raises(ValueError, match="Argument `n` should be a positive integer. Received: n=0"):
        layers.RepeatVector(0)
    with pytest.raises(ValueError, match="expected ndim=2, found ndim=3"):
        layers.RepeatVector(2)(np.ones((2, 3, 4)))
    for dims in ((0, 1), (1, 3), (2, 2)):
        with pytest.raises(ValueError, match="Invalid permutation argument `dims` for Permute Layer"):
            layers.Permute(dims)
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        layers.Permute((2, 1))(np.ones((2, 3)))
    with pytest.raises(ValueError, match="The `data_format` argument must be one of"):
        layers.Flatten("last")


def test_spatial_dropout():
    layer = layers.SpatialDropout1D(0.4, seed=3)
    x = np.arange(1, 1 + 40 * 7 * 10, dtype=np.float32).reshape(40, 7, 10)
    np.testing.assert_array_equal(layer(x), x)
    y = layer(x, training=True)
    kept = y != 0
    np.testing.assert_array_equal(kept, np.broadcast_to(kept[:, :1], x.shape))  # whole features, all steps alike
    np.testing.assert_allclose(y[kept], x[kept] / 0.6, rtol=1e-6)
    assert abs(kept[:, 0].mean() - 0.6) < 0.1
    assert np.any(layer(x, training=True) != y)
    np.testing.assert_array_equal(layers.SpatialDropout1D(0.4, seed=3)(x, training=True), y)
    np.testing.assert_array_equal(layers.SpatialDropout1D(1.0)(x, training=True), 0 * x)

    mask = np.ones((40, 7), bool)
    layers.set_mask(x, mask)
    np.testing.assert_array_equal(layers.get_mask(layer(x, training=True)), mask)
    assert layer(layers.Input((None, 10))).shape == (None, None, 10)
    config = layer.get_config()
    assert list(config) == ["rate", "seed", "name", "dtype"]
    assert layers.SpatialDropout1D.from_config(config).get_config() == config
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        layer(x[0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        layers.SpatialDropout1D(1.5)

    program = graph.trace(lambda x: layer(x, training=True), (Spec((40, 7, 10)),))
    forward, backward = program.linearize(0, program.inputs)
    y, residuals = forward(x)
    (gradient,) = backward(residuals, np.ones_like(x))
    np.testing.assert_allclose(gradient * x, y, rtol=1e-6)
