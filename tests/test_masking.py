import numpy as np
import pytest

from numbarnn import graph, layers, models
from numbarnn.graph import Spec
from numbarnn.layers import get_mask

X = np.array([[[1, 2], [0, 0], [0, 3]], [[5, 5], [5, 1], [0, 0]]], np.float32)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_masks_and_zeroes_the_timesteps(value):
    x = X.copy()
    y = layers.Masking(value)(x)
    expected = (X != value).any(-1)
    np.testing.assert_array_equal(get_mask(y), expected)
    np.testing.assert_array_equal(y, np.where(expected[..., None], X, 0))
    np.testing.assert_array_equal(x, X)
    assert y.dtype == np.float32


def test_the_mask_of_the_input_makes_no_difference():
    layer = layers.Masking()
    np.testing.assert_array_equal(get_mask(layer(layers.Masking(5.0)(X))), [[True, False, True], [False, True, False]])


def test_nan_does_not_count_as_the_value():
    x = X.copy()
    x[0, 1] = np.nan
    assert get_mask(layers.Masking()(x))[0, 1]


def test_on_symbols():
    layer = layers.Masking()
    x = layers.Input((None, 2))
    y = layer(x)
    assert (y.shape, y.dtype) == ((None, None, 2), np.float32)
    assert (y.mask.shape, y.mask.dtype) == ((None, None), np.bool_)
    program = graph.trace(lambda x: (layer(x), layer(x).mask), (Spec(X.shape),))
    y, mask = program(X)
    np.testing.assert_array_equal(y, X)
    np.testing.assert_array_equal(mask, X.any(-1))


def test_no_gradient_flows_into_masked_timesteps():
    program = graph.trace(lambda x: layers.Masking(5.0)(x), (Spec(X.shape),))
    forward, backward = program.linearize(0, program.inputs)
    _, residuals = forward(X)
    (dx,) = backward(residuals, np.ones_like(X))
    np.testing.assert_array_equal(dx, np.broadcast_to((X != 5).any(-1, keepdims=True), X.shape))


@pytest.mark.parametrize("kind", [layers.Masking, layers.Identity])
def test_symbols_have_the_types_of_the_values(kind):
    for dtype, given in (("mixed_float16", "float32"), ("float32", "float64"), ("mixed_float16", "int32")):
        layer = kind(dtype=dtype)
        assert layer(layers.Input((3, 2), dtype=given)).dtype == layer(np.ones((1, 3, 2), given)).dtype


def test_the_mask_of_a_masked_array_is_not_dropped_silently():
    x = np.ma.masked_array(np.ones((2, 5, 3), np.float32), mask=np.zeros((2, 5, 3), bool))
    model = models.Sequential([layers.Dense(1)])
    for call in (lambda: layers.LSTM(4)(x), lambda: layers.Dense(4)(x), lambda: model.predict(x, verbose=0)):
        with pytest.raises(TypeError, match="is a NumPy masked array, whose mask would be lost"):
            call()
