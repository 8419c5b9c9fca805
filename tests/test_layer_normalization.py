"""LayerNormalization: values, gradients, axes, types, masks, and the bits for any number of threads."""

import numpy as np
import pytest

from numbarnn import graph, jit, layers, serialization
from numbarnn.graph import Spec
from numbarnn.kernels import layer_normalization as kernels
from numbarnn.testing.errors import assert_close
from numbarnn.testing.gradients import check_gradients


def reference(x, gamma, beta, axes, epsilon=1e-3):
    """Normalize with NumPy alone, in float64; `gamma` and `beta` have the lengths of the sorted axes."""
    x = x.astype(np.float64)
    axes = tuple(sorted(axis % x.ndim for axis in axes))
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    mean = x.mean(axes, keepdims=True)
    variance = ((x - mean) ** 2).mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma.reshape(shape) + beta.reshape(shape)


def weighted(layer, rng):
    """Give a built layer random weights; return gamma and beta, or what stands for them."""
    for weight in layer.weights:
        weight.assign(rng.standard_normal(weight.shape))
    return [1.0 if w is None else np.asarray(w.value, np.float64) for w in (layer.gamma, layer.beta)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((5, 7), -1), ((3, 4, 6), -1), ((3, 4, 6), 2), ((3, 4, 6), 1), ((3, 4, 6), [1, 2]), ((3, 4, 6), [-1, 1]),
     ((2, 3, 4, 5), [3, 1]), ((6, 3), [0, 1]), ((1, 1), -1), ((70, 33), -1)],
)  # fmt: skip
def test_values(shape, axis, dtype, rng):
    x = rng.standard_normal(shape).astype(dtype)
    layer = layers.LayerNormalization(axis, dtype=dtype)
    layer.build(shape)
    axes = axis if isinstance(axis, list) else [axis]
    assert layer.gamma.shape == layer.beta.shape == tuple(shape[a] for a in sorted(a % len(shape) for a in axes))
    gamma, beta = weighted(layer, rng)
    y = layer(x)
    assert type(y) is np.ndarray and y.dtype == dtype
    assert_close(y, reference(x, gamma, beta, axes), 1e-6 if dtype == "float32" else 1e-14)


def test_options(rng):
    x = rng.standard_normal((3, 5)).astype(np.float32)
    plain = layers.LayerNormalization(center=False, scale=False, epsilon=1e-5)
    assert_close(plain(x), reference(x, np.ones(5), np.zeros(5), [-1], 1e-5), 1e-6)
    assert plain.gamma is None and plain.beta is None and not plain.weights
    only = layers.LayerNormalization(scale=False, beta_initializer="ones", beta_regularizer="l2")
    assert_close(only(x), reference(x, np.ones(5), np.ones(5), [-1]), 1e-6)
    assert only.losses[0] == pytest.approx(0.05)
    with pytest.warns(UserWarning, match="rms_scaling=True"):
        scaled = layers.LayerNormalization(rms_scaling=True, gamma_initializer="ones")
    assert_close(scaled(x), x / np.sqrt(x.astype(np.float64).var(-1, keepdims=True) + 1e-3), 1e-6)
    assert [w.name for w in scaled.weights] == ["gamma"]


@pytest.mark.parametrize(
    ("shape", "axis", "options"),
    [((5, 7), -1, {}), ((3, 4, 6), [1, 2], {}), ((3, 4, 6), 1, {}), ((2, 3, 4), [0, 2], {"scale": False}),
     ((4, 3), -1, {"center": False}), ((130, 5), -1, {})],
)  # fmt: skip
def test_gradients(shape, axis, options, rng):
    x, d = rng.standard_normal(shape), rng.standard_normal(shape)
    layer = layers.LayerNormalization(axis, dtype="float64", **options)
    layer.build(shape)
    weighted(layer, rng)
    program = graph.trace(lambda x: layer(x), (Spec(shape, "float64"),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    y, residuals = forward(x)
    np.testing.assert_array_equal(y, layer(x))

    axes = axis if isinstance(axis, list) else [axis]
    lengths = tuple(shape[a] for a in sorted(a % len(shape) for a in axes))
    names = [w.name for w in layer.weights]

    def loss(x, *weights):
        given = {"gamma": np.ones(lengths), "beta": np.zeros(lengths), **dict(zip(names, weights, strict=True))}
        return (reference(x, given["gamma"], given["beta"], axes) * d).sum()

    point = [x, *(np.array(w.value) for w in layer.weights)]
    check_gradients(loss, point, backward(residuals, d), tolerance=1e-6)


def test_a_large_mean_costs_no_digits(rng):
    x = (rng.standard_normal((4, 50)) + 1e4).astype(np.float32)
    assert_close(layers.LayerNormalization()(x), reference(x, np.ones(50), np.zeros(50), [-1]), 1e-6)


def test_types(rng):
    x = rng.standard_normal((4, 6)).astype(np.float32)
    mixed = layers.LayerNormalization(dtype="mixed_float16")
    y = mixed(x.astype(np.float16))
    assert y.dtype == np.float16 and mixed.gamma.dtype == np.float32
    assert_close(y.astype(np.float32), reference(x, np.ones(6), np.zeros(6), [-1]), 2e-3)
    # Values whose squares leave the range of float16 do no harm.
    assert np.isfinite(mixed((x * 3e4).clip(-6e4, 6e4).astype(np.float16))).all()
    whole = layers.LayerNormalization()(np.arange(12).reshape(3, 4))
    assert whole.dtype == np.float32
    assert_close(whole, reference(np.arange(12).reshape(3, 4), np.ones(4), np.zeros(4), [-1]), 1e-6)
    assert mixed(layers.Input((6,))).dtype == np.float16
    assert layers.LayerNormalization()(layers.Input((4,), dtype="int32")).dtype == np.float32


def test_symbolic_and_unknown_lengths(rng):
    inputs = layers.Input((None, 6))
    outputs = layers.LayerNormalization()(inputs)
    assert outputs.shape == (None, None, 6)
    for shape in ((2, 3, 6), (1, 5, 6)):
        x = rng.standard_normal(shape).astype(np.float32)
        assert_close(graph.evaluate(outputs, inputs, x), reference(x, np.ones(6), np.zeros(6), [-1]), 1e-6)
    assert layers.LayerNormalization([1, 2]).compute_output_shape((None, 3, 4)) == (None, 3, 4)
    program = graph.trace(layers.LayerNormalization(), (Spec((None, None, 6)),))
    assert_close(program(x), reference(x, np.ones(6), np.zeros(6), [-1]), 1e-6)


def test_empty():
    layer = layers.LayerNormalization()
    layer.build((None, 3))
    program = graph.trace(layer, (Spec((None, 3)),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    y, residuals = forward(np.zeros((0, 3), np.float32))
    assert y.shape == (0, 3)
    dx, d_gamma, d_beta = backward(residuals, y)
    assert dx.shape == (0, 3)
    np.testing.assert_array_equal([d_gamma, d_beta], np.zeros((2, 3)))


def test_mask_goes_on_and_a_masked_nan_stays(rng):
    x = rng.standard_normal((3, 4, 5))
    mask = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
    x[~mask] = np.nan
    layers.set_mask(x, mask)
    layer = layers.LayerNormalization(dtype="float64")
    y = layer(x)
    np.testing.assert_array_equal(layers.get_mask(y), mask)
    assert np.isfinite(y[mask]).all()
    program = graph.trace(lambda x: layer(x), (Spec(x.shape, "float64"),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    _, residuals = forward(x)
    for gradient in backward(residuals, rng.standard_normal(x.shape) * mask[..., None]):
        assert np.isfinite(gradient).all()
    # What is not masked is not hidden.
    assert np.isnan(backward(residuals, np.ones(x.shape))[1]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(dtype, rng, monkeypatch):
    monkeypatch.setattr(kernels, "_GRAIN", 1)
    x, dy = rng.standard_normal((2, 5 * kernels.BLOCK + 17, 6)).astype(dtype)
    gamma, beta = rng.standard_normal((2, 6)).astype(dtype)
    results = []
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        y, mean, inverse = kernels.normalize(x, gamma, beta, 1e-3)
        results.append([y, mean, inverse, *kernels.gradients(x, gamma, mean, inverse, dy)])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert_close(results[0][0], reference(x, gamma, beta, [-1]), 1e-6)


def test_configuration():
    layer = layers.LayerNormalization([1, 2], 1e-4, False, True, gamma_regularizer="l1", gamma_constraint="non_neg")
    config = serialization.serialize_keras_object(layer)
    assert serialization.deserialize_keras_object(config).get_config() == layer.get_config()
    assert list(layer.get_config())[3:] == [
        "axis", "epsilon", "center", "scale", "rms_scaling", "beta_initializer", "gamma_initializer",
        "beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint",
    ]  # fmt: skip


def test_errors():
    x = np.ones((2, 3, 4), np.float32)
    with pytest.raises(TypeError, match="Expected an int or a list/tuple of ints for the argument 'axis'"):
        layers.LayerNormalization("1")
    with pytest.raises(ValueError, match=r"Axis 3 is out of bounds for input shape \(2, 3, 4\). Received: axis=3"):
        layers.LayerNormalization(3)(x)
    with pytest.raises(ValueError, match="Axis -4 is out of bounds"):
        layers.LayerNormalization([-4]).compute_output_shape((2, 3, 4))
    with pytest.raises(ValueError, match="must name each axis once"):
        layers.LayerNormalization([-1, 2])(x)
    with pytest.raises(ValueError, match="should be defined. Found None"):
        layers.LayerNormalization()(layers.Input((None,)))
    layer = layers.LayerNormalization(name="n")
    layer(x)
    with pytest.raises(ValueError, match="layer 'n' is incompatible with the layer: expected axis -1 .* value 4"):
        layer(x[..., :3])
