import numpy as np
import pytest

from numbarnn import graph, jit, layers
from numbarnn.graph import Spec
from numbarnn.kernels import normalization as kernels
from numbarnn.layers import get_mask, set_mask


def reference(x, gamma, beta, epsilon, counted, axis):
    """Normalize with the moments of the counted places, in plain NumPy."""
    moved = np.moveaxis(x, axis, -1)
    rows = moved[counted] if counted is not None else moved.reshape(-1, moved.shape[-1])
    mean, variance = rows.mean(0), rows.var(0)
    y = (moved - mean) / np.sqrt(variance + epsilon) * gamma + beta
    return np.moveaxis(y, -1, axis), mean, variance


def make(x, **options):
    layer = layers.BatchNormalization(dtype=str(x.dtype), **options)
    layer.build(x.shape)
    rng = np.random.default_rng(9)
    for variable in layer.trainable_weights:
        variable.assign(rng.standard_normal(variable.shape))
    return layer


def values(layer, channels):
    gamma = np.ones(channels) if layer.gamma is None else layer.gamma.numpy()
    return gamma, np.zeros(channels) if layer.beta is None else layer.beta.numpy()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis"), [((40, 7), -1), ((6, 5, 3), -1), ((6, 5, 3), 1), ((2, 3, 4, 5), 1), ((9, 1), -1)]
)
def test_training(shape, axis, center, scale):
    x = np.random.default_rng(0).standard_normal(shape) * 3 + 1
    layer = make(x, axis=axis, center=center, scale=scale, momentum=0.9)
    channels = shape[axis]
    gamma, beta = values(layer, channels)
    expected, mean, variance = reference(x, gamma, beta, 1e-3, None, axis)
    y = layer(x, training=True)
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(layer.moving_mean.value, 0.1 * mean, atol=1e-14)
    np.testing.assert_allclose(layer.moving_variance.value, 0.9 + 0.1 * variance, atol=1e-13)
    assert len(layer.weights) == 2 + center + scale
    assert [w.name for w in layer.weights][-2:] == ["moving_mean", "moving_variance"]


@pytest.mark.parametrize("axis", [-1, 1])
def test_inference_uses_the_moving_averages(axis):
    x = np.random.default_rng(1).standard_normal((6, 5, 3))
    layer = make(x, axis=axis)
    channels = x.shape[axis]
    mean, variance = np.linspace(-1, 1, channels), np.linspace(0.5, 2, channels)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    gamma, beta = values(layer, channels)
    moved = np.moveaxis(x, axis, -1)
    expected = np.moveaxis((moved - mean) / np.sqrt(variance + 1e-3) * gamma + beta, -1, axis)
    np.testing.assert_allclose(layer(x), expected, atol=1e-13)
    np.testing.assert_allclose(layer(x, training=False), expected, atol=1e-13)
    np.testing.assert_array_equal(layer.moving_mean.value, mean)
    layer.trainable = False  # frozen: as in inference
    np.testing.assert_allclose(layer(x, training=True), expected, atol=1e-13)
    np.testing.assert_array_equal(layer.moving_mean.value, mean)


def test_mask_leaves_timesteps_out_of_the_moments():
    # The example that both Kerases give: mean 1.5, moving mean 0.015.
    x = np.array([[[1.0], [2.0], [100.0]]])
    layer = layers.BatchNormalization(dtype="float64")
    mask = np.array([[True, True, False]])
    y = layer(x, training=True, mask=mask)
    np.testing.assert_allclose(layer.moving_mean.value, [0.015])
    np.testing.assert_allclose(layer.moving_variance.value, [0.99 + 0.01 * 0.25])
    expected, _, _ = reference(x, 1, 0, 1e-3, mask, -1)
    np.testing.assert_allclose(y, expected)
    travelling = x.copy()
    set_mask(travelling, mask)
    twin = layers.BatchNormalization(dtype="float64")
    again = twin(travelling, training=True)
    np.testing.assert_array_equal(again, y)
    assert get_mask(again) is mask


def test_a_mask_of_another_shape():
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    a, b = make(x), make(x)
    one = np.array([[True, False, True]])
    np.testing.assert_array_equal(
        a(x, training=True, mask=one), b(x, training=True, mask=np.repeat(one.astype(float), 2, 0))
    )
    with pytest.raises(ValueError, match="broadcast"):
        a(x, training=True, mask=np.ones((2, 4), bool))


def test_masked_values_do_not_leak():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 6, 3))
    mask = rng.random((4, 6)) < 0.6
    poisoned = np.where(mask[..., None], x, np.nan)
    clean, dirty = make(x), make(x)
    a, b = clean(x, training=True, mask=mask), dirty(poisoned, training=True, mask=mask)
    np.testing.assert_array_equal(a[mask], b[mask])
    np.testing.assert_array_equal(clean.moving_variance.value, dirty.moving_variance.value)
    # and its gradient, if nothing comes back from there
    program = graph.trace(
        lambda x, m: dirty(x, training=True, mask=m), (Spec(x.shape, "float64"), Spec(mask.shape, "bool"))
    )
    forward, backward = program.linearize(0, [program.inputs[0], *dirty.trainable_weights])
    _, residuals = forward(poisoned, mask)
    d = rng.standard_normal(x.shape) * mask[..., None]
    for gradient in backward(residuals, d):
        assert np.isfinite(gradient).all()


def test_everything_masked():
    x = np.ones((2, 3, 2))
    layer = make(x)
    y = layer(x, training=True, mask=np.zeros((2, 3), bool))
    assert np.isfinite(y).all()
    np.testing.assert_allclose(layer.moving_variance.value, [0.99, 0.99])


@pytest.mark.parametrize(
    ("shape", "axis", "with_mask"),
    [((11, 4), -1, False), ((11, 4), -1, True), ((3, 4, 2), -1, False), ((3, 4, 2), -1, True), ((3, 4, 2), 1, False)],
)
def test_gradients(shape, axis, with_mask):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape)
    mask = rng.random(shape[:-1]) < 0.7 if with_mask else None
    layer = make(x, axis=axis)
    gamma, beta = values(layer, shape[axis])
    d = rng.standard_normal(shape)

    def run(x):
        return layer(x, training=True) if mask is None else layer(x, training=True, mask=mask)

    program = graph.trace(run, (Spec(shape, "float64"),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    _, residuals = forward(x)
    found = backward(residuals, d)

    def loss(x, gamma, beta):
        return (reference(x, gamma, beta, 1e-3, mask, axis)[0] * d).sum()

    point = [x, gamma, beta]
    for k, gradient in enumerate(found):
        expected = np.empty_like(point[k])
        for index in np.ndindex(*point[k].shape):
            moved = [[np.array(v) for v in point] for _ in range(2)]
            moved[0][k][index] += 1e-6
            moved[1][k][index] -= 1e-6
            expected[index] = (loss(*moved[0]) - loss(*moved[1])) / 2e-6
        np.testing.assert_allclose(gradient, expected, atol=2e-8, rtol=1e-6)


def test_gradients_through_the_moments():
    """The kernel's pullback also takes what comes back through the mean and the variance."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((8, 3))
    counts = rng.random(8) < 0.7
    d_mean, d_variance = rng.standard_normal((2, 3))
    mean, variance, number = kernels.moments(x, counts)
    inverse = 1 / np.sqrt(variance + 1e-3)
    dx, _, _ = kernels.gradients(x, counts, number, mean, inverse, np.ones(3), np.zeros_like(x), d_mean, d_variance)
    expected = np.empty_like(x)
    for index in np.ndindex(*x.shape):
        total = []
        for step in (1e-6, -1e-6):
            moved = x.copy()
            moved[index] += step
            rows = moved[counts]
            total.append((rows.mean(0) * d_mean).sum() + (rows.var(0) * d_variance).sum())
        expected[index] = (total[0] - total[1]) / 2e-6
    np.testing.assert_allclose(dx, expected, atol=1e-8)


def test_programs_update_the_moving_averages_at_each_replay():
    rng = np.random.default_rng(5)
    batches = rng.standard_normal((3, 16, 4)).astype(np.float32)
    traced, eager = layers.BatchNormalization(), layers.BatchNormalization()
    program = graph.trace(lambda x: traced(x, training=True), (Spec((16, 4)),))
    np.testing.assert_array_equal(traced.moving_mean.value, np.zeros(4))  # tracing itself changes nothing
    for batch in batches:
        np.testing.assert_array_equal(program(batch), eager(batch, training=True))
    np.testing.assert_array_equal(traced.moving_mean.value, eager.moving_mean.value)
    np.testing.assert_array_equal(traced.moving_variance.value, eager.moving_variance.value)
    assert np.any(traced.moving_mean.value)


def test_gradient_of_a_frozen_layer():
    x = np.random.default_rng(6).standard_normal((5, 2))
    layer = make(x)
    layer.moving_variance.assign([4.0, 9.0])
    gamma, _ = values(layer, 2)
    program = graph.trace(lambda x: layer(x), (Spec(x.shape, "float64"),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    _, residuals = forward(x)
    dx, d_gamma, d_beta = backward(residuals, np.ones_like(x))
    np.testing.assert_allclose(dx, np.broadcast_to(gamma / np.sqrt([4.001, 9.001]), x.shape))
    np.testing.assert_allclose(d_gamma, (x / np.sqrt([4.001, 9.001])).sum(0))
    np.testing.assert_allclose(d_beta, [5, 5])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_bits_for_any_number_of_threads(dtype, monkeypatch):
    monkeypatch.setattr(kernels, "_GRAIN", 1)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((5 * kernels.BLOCK + 17, 6)).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    counts = rng.random(len(x)) < 0.8
    results = []
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        mean, variance, number = kernels.moments(x, counts)
        inverse = 1 / np.sqrt(variance + 1e-3)
        y = kernels.normalize(x, mean, inverse, mean, variance)
        back = kernels.gradients(x, counts, number, mean, inverse, variance, dy, 0.0, 0.0)
        results.append([mean, variance, y, *back])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(results[0][0], x[counts].mean(0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(results[0][1], x[counts].astype(np.float64).var(0), rtol=1e-12)


def test_variance_of_large_means_is_exact():
    x = (np.random.default_rng(8).standard_normal((1000, 2)) + 1000).astype(np.float32)
    layer = layers.BatchNormalization(momentum=0.0)
    layer(x, training=True)
    np.testing.assert_allclose(layer.moving_variance.value, x.astype(np.float64).var(0), rtol=1e-6)


def test_empty_batch_and_mixed_precision():
    layer = layers.BatchNormalization()
    assert layer(np.zeros((0, 3), np.float32), training=True).shape == (0, 3)
    assert np.isfinite(layer.moving_mean.value).all()
    mixed = layers.BatchNormalization(dtype="mixed_float16")
    assert mixed(np.ones((2, 3), np.float32), training=True).dtype == np.float16
    assert mixed.moving_mean.dtype == np.float32


def test_errors():
    x = np.ones((2, 3, 4), np.float32)
    with pytest.raises(ValueError, match="The mask provided should be one dimension less than the inputs. Received: "):
        layers.BatchNormalization()(x, training=True, mask=np.ones((2, 3, 4), bool))
    with pytest.raises(ValueError, match="channels are the last axis"):
        layers.BatchNormalization(axis=1)(x, training=True, mask=np.ones((2, 3), bool))
    with pytest.raises(ValueError, match="Axis 3 is out of bounds for input shape"):
        layers.BatchNormalization(axis=3)(x)
    with pytest.raises(ValueError, match="should be defined. Found None"):
        layers.BatchNormalization()(layers.Input((None,)))
    for option in ({"renorm": True}, {"synchronized": True}):
        with pytest.raises(ValueError, match="must be False"):
            layers.BatchNormalization(**option)
    layer = layers.BatchNormalization(name="b")
    layer(x)
    with pytest.raises(ValueError, match="layer 'b' is incompatible with the layer: expected ndim=3, found ndim=2"):
        layer(x[0])
