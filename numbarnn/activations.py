"""Activations: the functions that layers end with, under Keras's names.

They are written in `numbarnn.ops`: on arrays they compute, on symbolic tensors they record.
"""

from __future__ import annotations

from . import ops
from .ops import nn
from .serialization import deserialize_keras_object, export, interpret, serialize_keras_object

__all__ = [
    "celu",
    "deserialize",
    "elu",
    "exponential",
    "gelu",
    "get",
    "glu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_sigmoid_k2",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "mish",
    "relu",
    "relu6",
    "selu",
    "serialize",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softmax",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh",
    "tanh_shrink",
    "threshold",
]


def linear(x):
    """Return `x` as it is."""
    return x


def sigmoid(x):
    """Return ``1 / (1 + exp(-x))``."""
    return ops.sigmoid(x)


def tanh(x):
    """Return the hyperbolic tangent."""
    return nn.tanh_of_layers(x)


def relu(x, negative_slope=0.0, max_value=None, threshold=0.0, alpha=None):
    """Return ``max(x, 0)``, or the bent line that the arguments describe.

    Parameters
    ----------
    x : array or Tensor
    negative_slope : float
        The slope below the threshold.
    max_value : float, optional
        The largest value that is returned.
    threshold : float
        Below it the result is ``negative_slope * (x - threshold)``.
    alpha : float, optional
        Keras 2's name of `negative_slope`.

    Returns
    -------
    array or Tensor
    """
    slope = negative_slope if alpha is None else alpha
    if slope == 0 and max_value is None and threshold == 0:
        return ops.relu(x)
    below = slope * (x - threshold) if slope else 0 * x
    result = ops.where(x >= threshold if threshold else x > 0, x, below)
    return result if max_value is None else ops.minimum(result, max_value)


def leaky_relu(x, negative_slope=0.2):
    """Return `x` where positive, else ``negative_slope * x``."""
    return relu(x, negative_slope)


def relu6(x):
    """Return `x` held between 0 and 6."""
    return ops.clip(x, 0, 6)


def softmax(x, axis=-1):
    """Return ``exp(x) / sum(exp(x))`` along an axis."""
    return ops.softmax(x, axis=axis)


def log_softmax(x, axis=-1):
    """Return the logarithm of `softmax`."""
    return ops.log_softmax(x, axis=axis)


def elu(x, alpha=1.0):
    """Return `x` where positive, else ``alpha * (exp(x) - 1)``."""
    if alpha == 1:
        return ops.elu(x)
    return ops.where(x > 0, x, alpha * ops.expm1(ops.minimum(x, 0)))


def celu(x, alpha=1.0):
    """Return `x` where positive, else ``alpha * (exp(x / alpha) - 1)``."""
    return ops.where(x > 0, x, alpha * ops.expm1(ops.minimum(x, 0) / alpha))


def selu(x):
    """Return ``scale * elu(x, alpha)`` with the constants of self-normalizing networks."""
    return ops.selu(x)


def softplus(x):
    """Return ``log(1 + exp(x))``."""
    return ops.softplus(x)


def softsign(x):
    """Return ``x / (1 + abs(x))``."""
    return ops.softsign(x)


def exponential(x):
    """Return ``exp(x)``."""
    return ops.exp(x)


def gelu(x, approximate=False):
    """Return ``x * P(X <= x)`` for a standard normal X; approximated by tanh if so wanted."""
    return ops.gelu(x, approximate=approximate)


def silu(x):
    """Return ``x * sigmoid(x)``, also called swish."""
    return ops.silu(x)


def hard_sigmoid(x):
    """Return ``clip(x / 6 + 1 / 2, 0, 1)``, as Keras 3 defines it."""
    return ops.hard_sigmoid(x)


def hard_sigmoid_k2(x):
    """Return ``clip(0.2 * x + 0.5, 0, 1)``, as Keras 2 defines hard_sigmoid."""
    return ops.clip(0.2 * x + 0.5, 0, 1)


def hard_silu(x):
    """Return ``x * hard_sigmoid(x)``, also called hard_swish."""
    return x * ops.hard_sigmoid(x)


def hard_tanh(x):
    """Return `x` held between -1 and 1."""
    return ops.clip(x, -1, 1)


def log_sigmoid(x):
    """Return ``log(sigmoid(x))``."""
    return -ops.softplus(-x)


def mish(x):
    """Return ``x * tanh(softplus(x))``."""
    return x * ops.tanh(ops.softplus(x))


def glu(x, axis=-1):
    """Return the first half along an axis times the sigmoid of the second half."""
    value, gate = ops.split(x, 2, axis=axis)
    return value * ops.sigmoid(gate)


def hard_shrink(x, threshold=0.5):
    """Return `x` where its size is above the threshold, else 0."""
    return ops.where(ops.abs(x) > threshold, x, 0 * x)


def soft_shrink(x, threshold=0.5):
    """Return `x` brought nearer to 0 by the threshold, and 0 where it is within it."""
    return x - ops.clip(x, -threshold, threshold)


def tanh_shrink(x):
    """Return ``x - tanh(x)``."""
    return x - ops.tanh(x)


def squareplus(x, b=4):
    """Return ``(x + sqrt(x ** 2 + b)) / 2``."""
    return (x + ops.sqrt(ops.square(x) + b)) / 2


def sparse_plus(x):
    """Return 0 up to -1, ``(x + 1) ** 2 / 4`` up to 1, then `x`."""
    return ops.where(x >= 1, x, ops.square(ops.clip(x, -1, 1) + 1) / 4)


def sparse_sigmoid(x):
    """Return 0 up to -1, ``(x + 1) / 2`` up to 1, then 1."""
    return (ops.clip(x, -1, 1) + 1) / 2


def threshold(x, threshold, default_value):
    """Return `x` where above the threshold, else the default value."""
    return ops.where(x > threshold, x, default_value)


_FUNCTIONS = {name: globals()[name] for name in __all__ if name not in ("deserialize", "get", "serialize")}
_ALIASES = {"swish": silu, "hard_swish": hard_silu}
_KNOWN = {**_FUNCTIONS, **_ALIASES}
# The same function from ops is taken for ours, so that a layer sees by the function which kernel it can use.
# (Not gelu: that of ops is the approximation by default.)
_FROM_OPS = {
    getattr(ops, name): function for name, function in _FUNCTIONS.items() if hasattr(ops, name) and name != "gelu"
}
export("keras.activations", *_FUNCTIONS.values(), **_ALIASES)


def serialize(activation):
    """Turn an activation into its name, or, if it is not one of these, into a dict.

    Parameters
    ----------
    activation : callable

    Returns
    -------
    str or dict

    Raises
    ------
    ValueError
        If it has no name under which it could be found again (a lambda).
    """
    for name, function in _FUNCTIONS.items():
        if function is activation:
            return name
    return serialize_keras_object(activation)


def deserialize(config, custom_objects=None):
    """Find an activation from `serialize`'s result.

    Parameters
    ----------
    config : str or dict
    custom_objects : dict, optional

    Returns
    -------
    callable
    """
    return deserialize_keras_object(config, custom_objects, _KNOWN)


def get(identifier):
    """Turn whatever may be given for an activation into a function.

    Parameters
    ----------
    identifier : None, str, dict or callable
        None is `linear`.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        If it is none of these, or an unknown name.
    """
    if identifier is None:
        return linear
    if callable(identifier):
        return _FROM_OPS.get(identifier, identifier)
    return interpret(identifier, "activation function", deserialize, _KNOWN)
