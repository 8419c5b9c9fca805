"""Dense, Embedding, Masking, BatchNormalization, activations, regularizers, constraints against live Keras."""

import numpy as np
import pytest

from numbarnn import activations, constraints, graph, initializers, layers, regularizers, serialization
from numbarnn.graph import Spec
from numbarnn.layers import get_mask

# Keras has variables that NumPy 2 warns about.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 5, 4)).astype(np.float32)


def close(ours, theirs, tolerance=1e-5):
    theirs = np.asarray(theirs)
    assert np.shape(ours) == theirs.shape
    error = np.max(np.abs(ours - theirs), initial=0) / max(1e-3, np.max(np.abs(theirs), initial=0))
    assert error < tolerance


def pair(name, *args, x=X, **kwargs):
    """Return our layer and Keras's, with the same random weights."""
    ours, theirs = getattr(layers, name)(*args, **kwargs), getattr(keras.layers, name)(*args, **kwargs)
    ours(x), theirs(x)
    values = [np.abs(RNG.standard_normal(w.shape)).astype(np.float32) for w in ours.weights]
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    assert [w.name for w in ours.weights] == [w.name for w in theirs.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    return ours, theirs


def both(ours, theirs, x, d, **kwargs):
    """Return outputs and gradients (of the input, if it has any, and the trainable weights) of both."""
    program = graph.trace(lambda x: ours(x, **kwargs), (Spec(x.shape, x.dtype),))
    wanted = [*(program.inputs if x.dtype.kind == "f" else []), *ours.trainable_weights]
    forward, backward = program.linearize(0, wanted)
    y, residuals = forward(x)
    tensor = torch.tensor(x, requires_grad=x.dtype.kind == "f")
    other = theirs(tensor, **kwargs)
    sources = [*([tensor] if x.dtype.kind == "f" else []), *(w.value for w in theirs.trainable_weights)]
    expected = torch.autograd.grad(other, sources, torch.tensor(d))
    return (y, backward(residuals, d)), (other.detach().numpy(), [g.numpy() for g in expected])


def check(ours, theirs, x, **kwargs):
    d = RNG.standard_normal(ours(x).shape).astype(np.float32)
    (y, gradients), (other, expected) = both(ours, theirs, x, d, **kwargs)
    close(y, other)
    assert len(gradients) == len(expected)
    for one, two in zip(gradients, expected, strict=True):
        close(one, two, 3e-5)


@pytest.mark.parametrize("activation", [None, "tanh", "relu", "softmax", "gelu", "hard_sigmoid"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_dense(activation, use_bias):
    check(*pair("Dense", 3, activation, use_bias), X)


def test_embedding():
    ids = RNG.integers(0, 7, (6, 5))
    check(*pair("Embedding", 7, 3, mask_zero=True, x=ids), ids)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("options", [{}, {"center": False}, {"scale": False}, {"momentum": 0.5, "epsilon": 0.1}])
def test_batch_normalization(axis, options):
    ours, theirs = pair("BatchNormalization", axis, **options)
    check(ours, theirs, X, training=True)
    for _ in range(2):
        ours(X, training=True), theirs(X, training=True)
    # `check` and `pair` called both equally often.
    for one, two in zip(ours.get_weights()[-2:], theirs.get_weights()[-2:], strict=True):
        close(one, two)
    check(ours, theirs, X, training=False)


def test_batch_normalization_with_a_mask():
    mask = RNG.random((6, 5)) < 0.6
    ours, theirs = pair("BatchNormalization")
    y = ours(X, training=True, mask=mask)
    other = theirs(X, training=True, mask=torch.tensor(mask))
    close(y, other.detach())
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close(one, two)


def test_masking():
    x = X.copy()
    x[1, 2] = x[3, :2] = 2.0
    ours, theirs = layers.Masking(2.0)(x), keras.layers.Masking(2.0)(x)
    close(ours, theirs)
    np.testing.assert_array_equal(get_mask(ours), np.asarray(theirs._keras_mask))


@pytest.mark.parametrize("name", sorted(set(activations.__all__) - {"deserialize", "get", "serialize"}))
def test_activations(name):
    if name == "hard_sigmoid_k2":
        expected = np.clip(0.2 * X + 0.5, 0, 1)
        close(activations.hard_sigmoid_k2(X), expected)
        return
    arguments = {"threshold": (0.3, 1.5)}.get(name, ())
    close(getattr(activations, name)(X, *arguments), getattr(keras.activations, name)(torch.tensor(X), *arguments))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Dense(3, "tanh", False, "he_normal", "ones", "l2", "l1_l2", None, "max_norm", "unit_norm", name="d"),
        layers.Activation("swish"),
        layers.Dropout(0.3, None, 7),
        layers.Identity(),
        layers.Embedding(4, 3, "normal", "l2", "non_neg", True),
        layers.Masking(2.0),
        layers.BatchNormalization(1, 0.5, 0.1, False, True, trainable=False),
        layers.InputLayer((2, None), 3, "int32"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configurations_are_read_on_both_sides(layer):
    config = serialization.serialize_keras_object(layer)
    theirs = keras.saving.deserialize_keras_object(config)
    assert type(theirs).__name__ == type(layer).__name__
    their_config = keras.saving.serialize_keras_object(theirs)
    ours = serialization.deserialize_keras_object(
        {**their_config, "config": {k: v for k, v in their_config["config"].items() if k in layer.get_config()}}
    )
    assert ours.get_config() == layer.get_config()
    extra = {"quantization_config", "lora_rank", "lora_alpha", "renorm", "renorm_clipping", "renorm_momentum"}
    extra |= {"sparse", "ragged", "optional", "activity_regularizer"}
    assert set(theirs.get_config()) - extra == set(layer.get_config()) - extra


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=1),
        initializers.GlorotUniform(seed=4),
        initializers.Orthogonal(0.5, seed=4),
        initializers.TruncatedNormal(1.0, 2.0, seed=1),
        initializers.Constant(0.3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_initializers_have_keras_distributions(initializer):
    theirs = keras.saving.deserialize_keras_object(initializers.serialize(initializer))
    assert initializers.get(keras.saving.serialize_keras_object(theirs)).get_config() == initializer.get_config()
    ours, expected = initializer((150, 400)), np.asarray(theirs((150, 400)))
    points = np.linspace(0.02, 0.98, 13)
    scale = max(float(expected.std()), 1e-6)
    assert np.max(np.abs(np.quantile(ours, points) - np.quantile(expected, points))) < 0.04 * scale
    assert float(ours.max()) == pytest.approx(float(expected.max()), abs=0.6 * scale)


@pytest.mark.parametrize(
    "regularizer",
    [
        regularizers.L1(0.2),
        regularizers.L2(0.2),
        regularizers.L1L2(0.1, 0.3),
        regularizers.OrthogonalRegularizer(0.2),
        regularizers.OrthogonalRegularizer(0.2, "columns"),
    ],
    ids=lambda value: f"{type(value).__name__}-{getattr(value, 'mode', '')}",
)
def test_regularizers(regularizer):
    theirs = keras.saving.deserialize_keras_object(regularizers.serialize(regularizer))
    close(regularizer(X[0]), theirs(torch.tensor(X[0])))


@pytest.mark.parametrize(
    "constraint",
    [constraints.MaxNorm(1.0, 1), constraints.NonNeg(), constraints.UnitNorm(0), constraints.MinMaxNorm(0.5, 1.0, 0.7)],
    ids=lambda value: type(value).__name__,
)
def test_constraints(constraint):
    theirs = keras.saving.deserialize_keras_object(constraints.serialize(constraint))
    close(constraint(X[0]), theirs(torch.tensor(X[0])))


@pytest.mark.parametrize(
    ("name", "arguments", "x"),
    [
        ("Dense", (0,), None),
        ("Embedding", (0, 2), None),
        ("Embedding", (2, -1), None),
        ("Dropout", (1.5,), None),
        ("Dense", (2,), np.ones(3, np.float32)),
    ],
)
def test_messages(name, arguments, x):
    found = []
    for library in (layers, keras.layers):
        with pytest.raises(ValueError) as error:
            layer = getattr(library, name)(*arguments, **({} if x is None else {"name": "same"}))
            layer(x)
        found.append(" ".join(str(error.value).split()))
    found[1] = found[1].replace(" with name 'None'", "")  # an input without a name is not given one
    # Keras may add its own notes after the message.
    assert found[1].startswith(found[0].rstrip(".")) or found[0] in found[1]


def test_losses_of_a_layer():
    def make(package, penalty):
        return package.Dense(2, kernel_initializer="ones", kernel_regularizer="l2", activity_regularizer=penalty(0.3))

    ours, theirs = make(layers, regularizers.L1), make(keras.layers, keras.regularizers.L1)
    ours(X), theirs(X)
    assert len(ours.losses) == len(theirs.losses) == 2
    for one, two in zip(ours.losses, theirs.losses, strict=True):
        close(np.asarray(one), two.detach())
