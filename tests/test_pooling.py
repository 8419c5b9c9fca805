"""GlobalAveragePooling1D and GlobalMaxPooling1D: values, masks, gradients, shapes, types."""

import numpy as np
import pytest

from numbarnn import graph, layers, serialization
from numbarnn.graph import Spec
from numbarnn.testing.gradients import check_gradients

MASK = np.array([[1, 1, 1, 1], [0, 1, 0, 1], [1, 0, 0, 0]], bool)
FORMATS = ["channels_last", "channels_first"]


def average(x, mask):
    """Average (batch, steps, features) over the steps that count, row by row."""
    return np.stack([row[keep].mean(0) for row, keep in zip(x, mask, strict=True)])


def gradients(layer, x, d, **kwargs):
    program = graph.trace(lambda x: layer(x, **kwargs), (Spec(x.shape, x.dtype),))
    forward, backward = program.linearize(0, program.inputs)
    y, residuals = forward(x)
    return y, backward(residuals, d)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("data_format", FORMATS)
def test_values(data_format, keepdims, rng):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    axis = 2 if data_format == "channels_first" else 1
    given = x if axis == 1 else np.swapaxes(x, 1, 2)
    mean = layers.GlobalAveragePooling1D(data_format, keepdims)
    for layer, expected in (
        (mean(given), x.mean(1)),
        (mean(given, mask=MASK), average(x, MASK)),
        (mean(given, mask=MASK.astype(np.float32)), average(x, MASK)),
        (layers.GlobalMaxPooling1D(data_format, keepdims)(given), x.max(1)),
    ):
        assert layer.dtype == np.float32
        np.testing.assert_allclose(layer, np.expand_dims(expected, axis) if keepdims else expected, rtol=1e-5)
    shape = (3, 5) if not keepdims else (3, 1, 5) if axis == 1 else (3, 5, 1)
    for kind in (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D):
        assert kind(data_format, keepdims).compute_output_shape(given.shape) == shape
        inputs = layers.Input((None, 5) if axis == 1 else (5, None))
        outputs = kind(data_format, keepdims)(inputs)
        assert outputs.shape == (None, *shape[1:])
        np.testing.assert_array_equal(graph.evaluate(outputs, inputs, given), kind(data_format, keepdims)(given))


def test_the_mask_that_comes_with_the_input_is_used_up(rng):
    x = rng.standard_normal((3, 4, 5)).astype(np.float32)
    layer = layers.GlobalAveragePooling1D()
    expected = layer(x, mask=MASK)
    layers.set_mask(x, MASK)
    y = layer(x)
    np.testing.assert_array_equal(y, expected)
    assert layers.get_mask(y) is None
    inputs = layers.Input((None, 5))
    outputs = layer(layers.Masking()(inputs))
    assert outputs.mask is None
    masked = np.where(MASK[..., None], x, 0)
    np.testing.assert_array_equal(graph.evaluate(outputs, inputs, masked), expected)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("mask", [None, MASK])
def test_gradients(mask, data_format, rng):
    x = rng.standard_normal((3, 4, 5) if data_format == "channels_last" else (3, 5, 4))
    d = rng.standard_normal((3, 5))
    mean = layers.GlobalAveragePooling1D(data_format, dtype="float64")
    y, found = gradients(mean, x, d, mask=mask)
    np.testing.assert_array_equal(y, mean(x, mask=mask))
    check_gradients(lambda x: (mean(x, mask=mask) * d).sum(), [x], found)
    top = layers.GlobalMaxPooling1D(data_format, dtype="float64")
    _, found = gradients(top, x, d)
    check_gradients(lambda x: (top(x) * d).sum(), [x], found)


def test_what_is_masked_is_not_looked_at(rng):
    x = rng.standard_normal((3, 4, 5))
    poisoned = np.where(MASK[..., None], x, np.nan)
    layer, d = layers.GlobalAveragePooling1D(dtype="float64"), rng.standard_normal((3, 5))
    clean, dirty = gradients(layer, x, d, mask=MASK), gradients(layer, poisoned, d, mask=MASK)
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(clean[1][0], dirty[1][0])
    assert not np.any(dirty[1][0][~MASK])


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered")
def test_a_row_masked_whole_has_no_average(rng):
    x, d = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3))
    mask = np.array([[1, 0, 1, 0], [0, 0, 0, 0]], bool)
    y, (dx,) = gradients(layers.GlobalAveragePooling1D(dtype="float64"), x, d, mask=mask)
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()
    assert np.isfinite(dx).all() and not dx[1].any()


def test_types():
    whole = np.arange(24).reshape(2, 3, 4)
    y = layers.GlobalAveragePooling1D()(whole)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, whole.mean(1))
    y = layers.GlobalMaxPooling1D()(whole)
    assert y.dtype == whole.dtype
    np.testing.assert_array_equal(y, whole.max(1))
    symbol = layers.Input((3, 4), dtype="int64")
    assert layers.GlobalAveragePooling1D()(symbol).dtype == np.float32
    assert layers.GlobalMaxPooling1D()(symbol).dtype == np.int64
    for kind in (layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D):
        mixed = kind(dtype="mixed_float16")
        assert mixed(whole.astype(np.float16)).dtype == mixed(layers.Input((3, 4))).dtype == np.float16
    # The sum of many halves leaves the range of float16, their mean does not.
    long = np.full((1, 4000, 1), 100, np.float16)
    np.testing.assert_array_equal(layers.GlobalAveragePooling1D(dtype="mixed_float16")(long), [[100]])


@pytest.mark.parametrize("kind", [layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D])
def test_configuration_and_errors(kind):
    layer = kind("channels_first", True)
    config = serialization.serialize_keras_object(layer)
    assert serialization.deserialize_keras_object(config).get_config() == layer.get_config()
    assert list(layer.get_config())[3:] == ["data_format", "keepdims"]
    alias = kind.__name__.replace("Average", "Avg").replace("Pooling", "Pool")
    assert type(serialization.deserialize_keras_object({**config, "class_name": alias})) is kind
    with pytest.raises(ValueError, match="The `data_format` argument must be one of"):
        kind("first")
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        kind()(np.ones((2, 3)))
