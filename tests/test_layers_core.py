"""Input, Dense, Activation, Dropout, Identity, Lambda."""

import numpy as np
import pytest

from numbarnn import activations, backend, graph, layers, ops, random, serialization
from numbarnn.graph import Spec, Tensor
from numbarnn.layers import get_mask, set_mask

X = np.random.default_rng(0).standard_normal((4, 5, 3)).astype(np.float32)
MASK = np.array([[True, False, True, True, False]] * 4)


def masked():
    x = X.copy()
    set_mask(x, MASK)
    return x


def gradients(layer, x, d_output, training=None):
    """Return the gradients of sum(layer(x) * d_output) with respect to x and the trainable weights."""
    program = graph.trace(lambda x: layer(x, training=training), (Spec(x.shape, x.dtype),))
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    outputs, residuals = forward(x)
    return outputs, backward(residuals, d_output)


# -- Input -----------------------------------------------------------------------------------------------------------


def test_input():
    backend.clear_session()
    x = layers.Input((None, 3))
    assert isinstance(x, Tensor)
    assert (x.shape, x.dtype, x.name) == ((None, None, 3), np.float32, "input_1")
    assert layers.Input(3).name == "input_2"
    assert layers.Input((3,), batch_size=2).shape == (2, 3)
    assert layers.Input(batch_shape=(2, None), dtype="int32", name="ids").dtype == np.int32
    assert layers.Input(batch_input_shape=(2, None)).shape == (2, None)
    assert layers.Input(()).shape == (None,)
    assert layers.Input(tensor=x) is x
    assert isinstance(x.layer, layers.InputLayer)
    layer = layers.InputLayer((3,), name="i")
    assert layer.output.layer is layer
    assert layers.InputLayer.from_config(layer.get_config()).output.shape == (None, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "You must pass a `shape` argument"),
        ({"shape": (1,), "batch_shape": (1, 1)}, "both `shape` and `batch_shape`"),
        ({"batch_size": 1, "batch_shape": (1, 1)}, "both `batch_size` and `batch_shape`"),
        ({"shape": ("a",)}, "invalid entry 'a'"),
        ({"shape": (-1,)}, "invalid entry '-1'"),
        ({"shape": (1,), "sparse": True}, "not supported"),
        ({"shape": (1,), "foo": 1}, "Unrecognized keyword"),
        ({"tensor": 3}, "must be a symbolic Tensor"),
    ],
)
def test_bad_inputs(arguments, message):
    with pytest.raises(ValueError, match=message):
        layers.Input(**arguments)


@pytest.mark.parametrize("arguments", [{"shape": (4,)}, {"batch_size": 2}, {"dtype": "int32"}, {"batch_shape": (1, 3)}])
def test_a_given_tensor_must_fit(arguments):
    with pytest.raises(ValueError, match=f"incompatible `{next(iter(arguments))}`"):
        layers.Input(tensor=layers.Input((3,)), **arguments)


# -- Dense -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("activation", [None, "relu", "softmax"])
@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (2, 1, 2, 3), (0, 3)])
def test_dense(shape, activation, use_bias):
    layer = layers.Dense(6, activation, use_bias, bias_initializer="random_normal", dtype="float64")
    x = np.random.default_rng(1).standard_normal(shape)
    y = layer(x)
    expected = np.einsum("...i,io->...o", x, layer.kernel.value) + (layer.bias.value if use_bias else 0)
    np.testing.assert_allclose(y, activations.get(activation)(expected), atol=1e-14)
    assert y.shape == layer.compute_output_shape(shape)
    assert len(layer.weights) == 1 + use_bias
    assert layer.kernel.shape == (3, 6)


def test_dense_gradients():
    layer = layers.Dense(4, "tanh", dtype="float64")
    x = np.random.default_rng(2).standard_normal((3, 2, 5))
    layer(x)
    d = np.random.default_rng(3).standard_normal((3, 2, 4))
    y, (dx, d_kernel, d_bias) = gradients(layer, x, d)
    dz = d * (1 - y**2)
    np.testing.assert_allclose(dx, dz @ layer.kernel.value.T, atol=1e-13)
    np.testing.assert_allclose(d_kernel, np.einsum("bti,bto->io", x, dz), atol=1e-13)
    np.testing.assert_allclose(d_bias, dz.sum((0, 1)), atol=1e-13)


def test_dense_integers_and_masks():
    layer = layers.Dense(2)
    y = layer(np.array([[1, 2, 3]]))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.array([[1, 2, 3]]) @ layer.kernel.value, rtol=1e-6)
    assert get_mask(layer(masked())) is MASK


def test_dense_rows_do_not_see_each_other():
    """A row alone gives the same bits, whatever the batch, and so do other numbers of threads."""
    from numbarnn import jit

    layer = layers.Dense(37, "sigmoid")
    x = np.random.default_rng(4).standard_normal((65, 129)).astype(np.float32)
    y = layer(x)
    np.testing.assert_array_equal(layer(x[7:8]), y[7:8])
    for threads in (1, 3, 7):
        jit.set_num_threads(threads)
        np.testing.assert_array_equal(layer(x), y)


@pytest.mark.parametrize("units", [0, -1, 2.5, True, "3"])
def test_dense_refuses_units(units):
    with pytest.raises(ValueError, match="Received an invalid value for `units`, expected a positive integer"):
        layers.Dense(units)


def test_dense_refuses_shapes():
    layer = layers.Dense(2, name="d")
    with pytest.raises(ValueError, match="expected min_ndim=2, found ndim=1"):
        layer(np.ones(3))
    with pytest.raises(ValueError, match="The last dimension of the inputs to a Dense layer should be defined"):
        layer(layers.Input((None,)))
    layer(np.ones((1, 3)))
    with pytest.raises(
        ValueError, match="expected axis -1 of input shape to have value 3, but received input with shape"
    ):
        layer(np.ones((1, 4)))


def test_dense_regularizers_and_constraints_are_on_the_weights():
    layer = layers.Dense(2, kernel_regularizer="l1", bias_regularizer="l2", kernel_constraint="non_neg")
    layer(X)
    assert type(layer.kernel.regularizer).__name__ == "L1"
    assert type(layer.bias.regularizer).__name__ == "L2"
    assert type(layer.kernel.constraint).__name__ == "NonNeg"
    assert len(layer.losses) == 2


# -- Activation, Identity, Lambda -------------------------------------------------------------------------------------


def test_activation():
    layer = layers.Activation("relu")
    np.testing.assert_array_equal(layer(X), np.maximum(X, 0))
    assert get_mask(layer(masked())) is MASK
    assert layer.built
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: foo"):
        layers.Activation("foo")


def test_identity():
    x = masked()
    assert layers.Identity()(x) is x
    assert layers.Identity()(layers.Input((3,), dtype="int32")).dtype == np.int32


def test_lambda():
    layer = layers.Lambda(lambda x, factor: x * factor, arguments={"factor": 3})
    np.testing.assert_array_equal(layer(X), 3 * X)
    assert get_mask(layer(masked())) is None
    assert layer(layers.Input((5,))).shape == (None, 5)
    assert layer.compute_output_shape((None, 5)) == (None, 5)
    assert layers.Lambda(lambda x: x, output_shape=(7,))(layers.Input((5,))).shape == (None, 7)
    assert layers.Lambda(lambda x: x, output_shape=lambda s: (*s, 1))(layers.Input((5,))).shape == (None, 5, 1)
    seen = []
    layers.Lambda(lambda x, mask, training: seen.append((mask, training)) or x)(masked(), training=True)
    assert seen[0][0].base is MASK
    assert seen[0][1] is True
    assert get_mask(layers.Lambda(lambda x: x * 1, mask=lambda x, mask: mask)(masked())) is MASK
    with pytest.raises(ValueError, match="must be callable"):
        layers.Lambda(3)
    with pytest.raises(ValueError, match="lambda"):
        layer.get_config()
    named = layers.Lambda.from_config(layers.Lambda(activations.tanh).get_config())
    np.testing.assert_array_equal(named(X), activations.tanh(X))


# -- Dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_is_off_in_inference():
    layer = layers.Dropout(0.5)
    x = masked()
    assert layer(x) is x
    assert layer(x, training=False) is x
    assert layers.Dropout(0.0)(x, training=True) is x
    assert get_mask(layer(x, training=True)) is MASK


def test_dropout_is_inverted_and_random():
    layer = layers.Dropout(0.25, seed=1)
    x = np.ones((200, 300), np.float32)
    y = layer(x, training=True)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(np.unique(y), np.array([0, 1 / 0.75], np.float32))
    assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
    assert not np.array_equal(layer(x, training=True), y)
    np.testing.assert_array_equal(layers.Dropout(0.25, seed=1)(x, training=True), y)
    assert not np.array_equal(layers.Dropout(0.25, seed=2)(x, training=True), y)


def test_dropout_of_everything_gives_zeros():
    np.testing.assert_array_equal(layers.Dropout(1.0)(X, training=True), np.zeros_like(X))


@pytest.mark.parametrize("noise_shape", [(4, 1, 3), (None, 1, None), (1, 5, 1)])
def test_noise_shape(noise_shape):
    x = np.ones((4, 5, 3), np.float32)
    y = layers.Dropout(0.5, noise_shape, seed=3)(x, training=True)
    axes = tuple(i for i, n in enumerate(noise_shape) if n == 1)
    assert np.all(y == y.min(axes, keepdims=True))
    assert 0 < np.mean(y == 0) < 1


def test_dropout_draws_anew_at_each_replay_and_its_gradient_uses_the_same_draw():
    layer = layers.Dropout(0.5, seed=5)
    x = np.ones((20, 30), np.float32)
    program = graph.trace(lambda x: layer(x, training=True), (Spec(x.shape),))
    first, second = program(x), program(x)
    assert not np.array_equal(first, second)
    eager = layers.Dropout(0.5, seed=5)
    np.testing.assert_array_equal(first, eager(x, training=True))
    np.testing.assert_array_equal(second, eager(x, training=True))
    forward, backward = program.linearize(0, program.inputs)
    for _ in range(2):
        y, residuals = forward(x)
        (dx,) = backward(residuals, np.ones_like(x))
        np.testing.assert_array_equal(dx, y)


def test_dropout_unseeded_follows_the_global_seed():
    x = np.ones((20, 30), np.float32)
    random.set_seed(1)
    first = layers.Dropout(0.5)(x, training=True)
    random.set_seed(1)
    np.testing.assert_array_equal(layers.Dropout(0.5)(x, training=True), first)


def test_dropout_state():
    layer = layers.Dropout(0.5, seed=9)
    assert layer.weights == []
    assert len(layer.non_trainable_variables) == 1
    state = layer.seed_generator.state.numpy()
    x = np.ones((5, 5), np.float32)
    first = layer(x, training=True)
    layer.seed_generator.state.assign(state)  # put back, it draws the same
    np.testing.assert_array_equal(layer(x, training=True), first)


@pytest.mark.parametrize("rate", [-0.1, 1.1, "a", None, True])
def test_dropout_refuses_rates(rate):
    with pytest.raises(ValueError, match="Invalid value received for argument `rate`. Expected a float value between"):
        layers.Dropout(rate)


@pytest.mark.parametrize("noise_shape", ["ab", (1, 0), (1, "a"), (1.5,), 3])
def test_dropout_refuses_noise_shapes(noise_shape):
    with pytest.raises(ValueError, match="Invalid value received for argument `noise_shape`"):
        layers.Dropout(0.5, noise_shape)


def test_noise_shape_of_another_rank():
    with pytest.raises(ValueError, match="as many axes as the input"):
        layers.Dropout(0.5, (1, 2))(X, training=True)


# -- configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3, "tanh", False, "he_normal", "ones", "l1", "l2", "l1_l2", "max_norm", "unit_norm", name="d"),
        layers.Activation("swish"),
        layers.Dropout(0.3, (None, 1), 7),
        layers.Identity(),
        layers.InputLayer((2, None), 3, "int32"),
        layers.Embedding(4, 3, "normal", "l2", "non_neg", True),
        layers.Masking(2.0),
        layers.BatchNormalization(1, 0.5, 0.1, False, True, dtype="float64", trainable=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_serialization_round_trip(layer):
    config = serialization.serialize_keras_object(layer)
    assert config["module"] == "keras.layers"
    assert config["registered_name"] is None
    again = serialization.deserialize_keras_object(config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def test_a_built_layer_comes_back_built():
    layer = layers.Dense(3)
    layer(X)
    again = serialization.deserialize_keras_object(serialization.serialize_keras_object(layer))
    assert again.built
    assert again.kernel.shape == (3, 3)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(X), layer(X))


def test_a_chain_carries_its_mask_in_a_functional_graph():
    x = layers.Input((5, 3))
    y = layers.Dense(2)(layers.Dropout(0.5)(layers.Masking()(x)))
    assert y.mask is not None
    assert (y.mask.shape, y.mask.dtype) == ((None, 5), np.bool_)
    values = X.copy()
    values[:, 2] = 0
    outputs, mask = graph.evaluate((y, y.mask), x, values)
    np.testing.assert_array_equal(mask, np.tile([True, True, False, True, True], (4, 1)))
    assert outputs.shape == (4, 5, 2)
    assert ops.sum(outputs) != 0
