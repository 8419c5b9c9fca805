import math

import numpy as np
import pytest

from numbarnn import activations, graph, ops
from numbarnn.graph import Spec

X = np.concatenate([np.linspace(-7.3, 7.1, 41), [-0.5, 0.5, 1e-3]]).reshape(4, 11)


def erf(x):
    return np.vectorize(math.erf)(x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softplus(x):
    return np.log1p(np.exp(x))


FORMULAS = {
    "linear": lambda x: x,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.2 * x),
    "softmax": lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True),
    "log_softmax": lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "celu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softplus": softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "gelu": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(x),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_k2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "log_sigmoid": lambda x: np.log(sigmoid(x)),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "squareplus": lambda x: (x + np.sqrt(x * x + 4)) / 2,
    "sparse_plus": lambda x: np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x)),
    "sparse_sigmoid": lambda x: np.where(x <= -1, 0, np.where(x >= 1, 1, (x + 1) / 2)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_values(name):
    function = activations.get(name)
    np.testing.assert_allclose(function(X), FORMULAS[name](X), rtol=1e-12, atol=1e-14)
    single = function(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, FORMULAS[name](X), rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients(name):
    function = activations.get(name)
    point = X + 0.01  # away from the kinks
    weights = np.linspace(0.3, 1.9, X.size).reshape(X.shape)
    program = graph.trace(lambda x: ops.sum(function(x) * weights), (Spec(X.shape, "float64"),))
    forward, backward = program.linearize(0, program.inputs)
    _, residuals = forward(point)
    (found,) = backward(residuals, np.array(1.0))
    step = 1e-6
    expected = np.empty_like(X)
    for index in np.ndindex(*X.shape):
        high, low = point.copy(), point.copy()
        high[index] += step
        low[index] -= step
        difference = FORMULAS[name](high) * weights - FORMULAS[name](low) * weights
        expected[index] = difference.sum() / (2 * step)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max())


def test_glu():
    x = np.array([[1.0, 2.0, 0.5, -1.0]])
    np.testing.assert_allclose(activations.glu(x), x[:, :2] * sigmoid(x[:, 2:]))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"negative_slope": 0.1}, [-0.3, 0.0, 0.5, 2.0]),
        ({"alpha": 0.1}, [-0.3, 0.0, 0.5, 2.0]),
        ({"max_value": 1.0}, [0.0, 0.0, 0.5, 1.0]),
        ({"threshold": 1.0}, [0.0, 0.0, 0.0, 2.0]),
        ({"threshold": 1.0, "negative_slope": 0.5}, [-2.0, -0.5, -0.25, 2.0]),
    ],
)
def test_relu_arguments(arguments, expected):
    np.testing.assert_allclose(activations.relu(np.array([-3.0, 0.0, 0.5, 2.0]), **arguments), expected)


def test_other_arguments():
    x = np.array([-1.0, 2.0])
    np.testing.assert_allclose(activations.elu(x, 0.5), [0.5 * np.expm1(-1), 2])
    np.testing.assert_allclose(activations.celu(x, 2.0), [2 * np.expm1(-0.5), 2])
    np.testing.assert_allclose(activations.threshold(x, 0.0, 9.0), [9, 2])
    approximate = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(activations.gelu(x, approximate=True), approximate)
    np.testing.assert_allclose(activations.softmax(x.reshape(2, 1), axis=0).sum(), 1)


@pytest.mark.parametrize("name", ["elu", "selu", "softplus", "mish", "celu", "log_sigmoid", "squareplus"])
def test_large_inputs_do_not_overflow(name):
    x = np.array([-1e4, 1e4], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        assert np.isfinite(activations.get(name)(x)).all()


def test_get():
    assert activations.get(None) is activations.linear
    assert activations.get(activations.tanh) is activations.tanh
    assert activations.get(ops.tanh) is activations.tanh
    custom = lambda x: x + 1  # noqa: E731
    assert activations.get(custom) is custom
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: foo"):
        activations.get("foo")
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: 3"):
        activations.get(3)


def test_serialize():
    for name, function in ((name, activations.get(name)) for name in FORMULAS):
        text = activations.serialize(function)
        assert isinstance(text, str)
        assert activations.deserialize(text) is function, name
    assert activations.serialize(activations.get("swish")) == "silu"
    with pytest.raises(ValueError, match="lambda"):
        activations.serialize(lambda x: x)
    config = activations.serialize(FORMULAS_FUNCTION)
    assert config["class_name"] == "function"
    with pytest.raises(ValueError, match="Could not interpret"):
        activations.get(config)
    assert activations.deserialize(config, {"FORMULAS_FUNCTION": FORMULAS_FUNCTION}) is FORMULAS_FUNCTION


def FORMULAS_FUNCTION(x):  # noqa: N802
    return x


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus", "softsign", "hard_sigmoid", "silu", "gelu", "softmax"])
def test_arrays_of_another_byte_order(name):
    function, x = activations.get(name), X.astype(">f4")
    np.testing.assert_allclose(function(x), function(X.astype("f4")), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classes", [50_257, 1_000_003])
def test_softmax_of_many_classes(classes, rng):
    logits = (5 * rng.standard_normal((2, classes))).astype("float32")
    shifted = np.exp(logits.astype("float64") - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(ops.softmax(logits), shifted / shifted.sum(-1, keepdims=True), rtol=4e-6)
    np.testing.assert_allclose(ops.softmax(np.zeros_like(logits)), 1 / classes, rtol=2e-7)


def test_softmax_without_axes():
    assert ops.softmax(np.ones((), "float32")) == 1
