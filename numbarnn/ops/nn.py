"""Activations, and what losses are made of."""

import inspect
from functools import partial, wraps

import numpy as np

from .. import backend, cuda
from ..arrays import total
from ..kernels import activation as kernels
from ..operation import Op
from ._inference import floating, has_kernels, inexact, like_first
from .elementwise import (
    abs,
    cast,
    clip,
    divide,
    exp,
    greater,
    less_equal,
    logical_and,
    maximum,
    slope_product,
    sqrt,
    square,
    tanh,
    tanh_gradient,
    where,
)
from .reduction import norm, sum

__all__ = [
    "elu", "erf", "gelu", "hard_sigmoid", "leaky_relu", "log_sigmoid", "log_softmax", "normalize", "relu", "relu6",
    "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "swish",
]  # fmt: skip

SQRT_HALF = 0.7071067811865476
INVERSE_SQRT_2PI = 0.3989422804014327
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _activation(compute, rule, name=None, kernel=None):
    """An op of one input in floating point (float16 by way of float32); ``rule(d, x, y)`` is its gradient.

    ``kernel(x)``, where given, computes it for the arrays that have kernels, to the bits of the recurrent kernels.
    """

    @wraps(compute)
    def run(x, **attrs):
        if kernel is not None and has_kernels(x):
            return kernel(x, **attrs)
        dtype = x.dtype if x.dtype.kind == "f" else inexact(x.dtype)
        x = x if x.dtype == dtype else x.astype(dtype)
        work = x.astype(np.float32) if dtype == np.float16 else x
        result = kernel(work, **attrs) if kernel is not None and has_kernels(work) else compute(work, **attrs)
        return result if result.dtype == dtype else result.astype(dtype)

    name = name or compute.__name__.strip("_")
    op = Op(
        name, run, floating, lambda node, d: rule(d, node.inputs[0], node.outputs[0], **node.attrs), doc=compute.__doc__
    )
    return op.named("x") if len(inspect.signature(compute).parameters) == 1 else op


def _step(condition, like):
    return cast(condition, like.dtype)


def _sigmoid(x):
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _relu(x):
    """The positive part: max(x, 0)."""
    return np.maximum(x, 0)


def _softplus(x):
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _softsign(x):
    """x / (1 + abs(x))."""
    return x / (1 + np.abs(x))


def _hard_sigmoid(x):
    """x / 6 + 1/2, limited to [0, 1]."""
    return np.clip(x / 6 + 0.5, 0, 1)


def _erf(x):
    """The error function."""
    if type(x) is not np.ndarray and cuda.is_device_array(x):
        return cuda.erf(x)
    from scipy import special

    return special.erf(x)


def _elu(x, *, alpha):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _gelu(x):
    return x * (0.5 * (1 + _erf(x * SQRT_HALF)))


def _silu_rule(d, x):
    gate = sigmoid(x)
    return d * (gate * (1 + x * (1 - gate)))


def _gelu_rule(d, x, y):
    return d * (0.5 * (1 + erf(x * SQRT_HALF)) + x * (exp(-0.5 * square(x)) * INVERSE_SQRT_2PI))


# As a layer's activation: to the bits of the recurrent kernels, where `tanh` has those of NumPy.
tanh_of_layers = _activation(
    lambda x: np.tanh(x),
    lambda d, x, y: tanh_gradient(d, y),
    name="tanh_of_layers",
    kernel=partial(kernels.apply, "tanh"),
)
_sigmoid_gradient = slope_product("sigmoid", lambda y: y * (1 - y), lambda y: 1 - 2 * y)
sigmoid = _activation(_sigmoid, lambda d, x, y: _sigmoid_gradient(d, y), kernel=partial(kernels.apply, "sigmoid"))
relu = Op("relu", _relu, like_first, lambda node, d: d * _step(node.outputs[0] > 0, d), doc=_relu.__doc__).named("x")
softplus = _activation(_softplus, lambda d, x, y: d * sigmoid(x), kernel=partial(kernels.apply, "softplus"))
softsign = _activation(_softsign, lambda d, x, y: d * square(1 - abs(y)), kernel=partial(kernels.apply, "softsign"))
hard_sigmoid = _activation(
    _hard_sigmoid,
    lambda d, x, y: d * (_step(logical_and(greater(x, -3), less_equal(x, 3)), d) * (1 / 6)),
    kernel=partial(kernels.apply, "hard_sigmoid"),
)
erf = _activation(_erf, lambda d, x, y: d * (exp(-square(x)) * 1.1283791670955126))
_elu_op = _activation(_elu, lambda d, x, y, alpha: d * where(greater(x, 0), 1.0, y + alpha), name="elu")
_gelu_op = _activation(_gelu, _gelu_rule, name="gelu", kernel=partial(kernels.apply, "gelu"))
_silu_op = _activation(
    lambda x: x * _sigmoid(x), lambda d, x, y: _silu_rule(d, x), name="silu", kernel=partial(kernels.apply, "silu")
)


def elu(x, alpha=1.0):
    """``x`` where positive, else ``alpha * (exp(x) - 1)``."""
    return _elu_op(x, alpha=float(alpha))


def selu(x):
    """Scaled exponential linear unit."""
    return SELU_SCALE * elu(x, SELU_ALPHA)


def leaky_relu(x, negative_slope=0.2):
    """``x`` where positive, else ``negative_slope * x``."""
    return where(greater(x, 0), x, negative_slope * x)


def relu6(x):
    """Limit to [0, 6]."""
    return clip(x, 0, 6)


def silu(x):
    """``x * sigmoid(x)``."""
    return _silu_op(x)


swish = silu


def gelu(x, approximate=True):
    """Gaussian error linear unit, ``approximate`` by tanh (Keras's default for the op, not for the activation)."""
    if not approximate:
        return _gelu_op(x)
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * (x * square(x)))))


def log_sigmoid(x):
    """log(sigmoid(x)), without overflow."""
    return -softplus(-x)


def _softmax_compute(x, *, axis):
    z = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return z / total(z, axis, keepdims=True)


def _log_softmax_compute(x, *, axis):
    z = x - np.max(x, axis=axis, keepdims=True)
    return z - np.log(total(np.exp(z), axis, keepdims=True))


_softmax = _activation(
    _softmax_compute,
    lambda d, x, y, axis: y * (d - sum(d * y, axis=axis, keepdims=True)),
    name="softmax",
    kernel=lambda x, axis: (
        kernels.softmax(x) if x.ndim and axis in (-1, x.ndim - 1) else _softmax_compute(x, axis=axis)
    ),
)
_log_softmax = _activation(
    _log_softmax_compute, lambda d, x, y, axis: d - exp(y) * sum(d, axis=axis, keepdims=True), name="log_softmax"
)


def softmax(x, axis=-1):
    """Exponentials that sum to 1 over ``axis`` (int or tuple)."""
    return _softmax(x, axis=tuple(axis) if isinstance(axis, list) else axis)


def log_softmax(x, axis=-1):
    """log(softmax(x)), without overflow."""
    return _log_softmax(x, axis=tuple(axis) if isinstance(axis, list) else axis)


def normalize(x, axis=-1, order=2, epsilon=None):
    """Bring ``x`` to the norm 1 of an order along ``axis``; zeros stay zeros.

    ``epsilon``, `numbarnn.backend.epsilon` by default, is the least norm that is divided by.
    """
    least = backend.epsilon() if epsilon is None else epsilon
    if order == 2:  # the root of what is not zero: it has a slope everywhere
        return divide(x, sqrt(maximum(sum(square(x), axis=axis, keepdims=True), least**2)))
    return divide(x, maximum(norm(x, ord=order, axis=axis, keepdims=True), least))
