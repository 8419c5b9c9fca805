"""Element by element: arithmetic, exponentials, choices.

One line per operation: the NumPy function, and the gradient with respect to each input as a function of the node and
the output's gradient. `unbroadcast` sums a gradient back to its input's shape.
"""

import operator

import numpy as np

from ..arrays import total
from ..kernels import activation as kernels
from ..operation import Op
from ..protocols import local, user_line
from ..symbolic import Spec, Tensor
from ..variable import Variable, default_float
from ._inference import broadcast, has_kernels, like_first, promote, ufunc_spec

__all__ = [
    "abs", "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "astype",
    "bitwise_and", "bitwise_or", "bitwise_xor", "cast", "ceil", "clip", "convert_to_numpy", "convert_to_tensor",
    "copy", "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "floor", "floor_divide", "greater",
    "greater_equal", "invert", "isclose", "isfinite", "isinf", "isnan", "less", "less_equal", "log",
    "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum",
    "minimum", "mod", "multiply", "nan_to_num", "negative", "not_equal", "power", "reciprocal", "rint", "round",
    "rsqrt", "sign", "sin", "sinh", "sqrt", "square", "stop_gradient", "subtract", "tan", "tanh", "true_divide",
    "trunc", "where",
]  # fmt: skip

LN2, LN10 = float(np.log(2.0)), float(np.log(10.0))


# -- broadcasting in gradients -------------------------------------------------------------------------------


def _sum_to(d, shape):
    """Sum ``d`` over the axes along which a value of ``shape`` was repeated."""
    lead = d.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(i + lead for i, n in enumerate(shape) if n == 1 and d.shape[i + lead] != 1)
    return total(d, axes, keepdims=True).reshape(shape) if axes else d


_sum_to_shape = Op("sum_to", lambda d, *, shape: _sum_to(d, shape), lambda d, *, shape: Spec(shape, d.dtype))
_sum_like = Op("sum_like", lambda d, x: _sum_to(d, x.shape), lambda d, x: Spec(x.shape, d.dtype))


def unbroadcast(d, x):
    """Return the gradient ``d`` of a broadcast result as one of the input ``x``: summed to its shape, in its dtype."""
    spec, got = Spec.of(x), Spec.of(d)
    if got.shape != spec.shape or not spec.known:
        # Axes of unknown length may be 1 in one operand and not in the other: that is seen at replay.
        d = (
            _sum_to_shape(d, shape=spec.shape)
            if spec.known and got.known
            else _sum_like(d, x)
            if isinstance(x, Tensor)
            else d
        )
    return d if spec.dtype.kind != "f" or got.dtype == spec.dtype else cast(d, spec.dtype)


# -- the two tables ------------------------------------------------------------------------------------------


def _unary(ufunc, rule=None, name=None):
    """An op of one input; ``rule(d, x, y)`` is its gradient."""
    gradient = rule and (lambda node, d: unbroadcast(rule(d, node.inputs[0], node.outputs[0]), node.inputs[0]))
    op = Op(
        name or ufunc.__name__,
        ufunc,
        ufunc_spec(ufunc),
        gradient,
        doc=f"Element by element, as ``np.{ufunc.__name__}``.",
    ).named("x")
    op.ufunc = ufunc
    return op


def _binary(ufunc, rule_a=None, rule_b=None, name=None):
    """An op of two inputs that broadcast; ``rule(d, a, b, y)`` are its gradients."""

    def gradient(node, d):
        (a, b), y = node.inputs, node.outputs[0]
        return (
            unbroadcast(rule_a(d, a, b, y), a) if isinstance(a, Tensor) else None,
            unbroadcast(rule_b(d, a, b, y), b) if isinstance(b, Tensor) else None,
        )

    op = Op(
        name or ufunc.__name__,
        ufunc,
        ufunc_spec(ufunc),
        rule_a and gradient,
        doc=f"Element by element, as ``np.{ufunc.__name__}``; shapes broadcast.",
    ).named("x1", "x2")
    op.ufunc = ufunc
    return op


def slope_product(name, slope, curvature):
    """Make the op (d, y) -> ``d * slope(y)``: the gradient of an activation from its output, in one pass over memory.

    Parameters
    ----------
    name : str
        Of an activation with a kernel.
    slope, curvature : callable
        The derivative of the activation from its output, and the derivative of that.
    """
    op = Op(
        f"{name}_gradient",
        lambda d, y: kernels.pull_back(name, d, y) if has_kernels(d, y) else d * slope(y),
        like_first,
        lambda node, g: (op(g, node.inputs[1]), g * node.inputs[0] * curvature(node.inputs[1])),
    )
    return op


tanh_gradient = slope_product("tanh", lambda y: 1 - y * y, lambda y: -2 * y)


def _safe_log(a):
    """Return log(a) where a > 0, else 0: the gradient of 0 ** b by b is 0."""
    positive = greater(a, 0)
    return where(positive, log(where(positive, a, 1)), 0)


def _one_less(b):
    """Return b - 1 for the slope b * a ** (b - 1); where b is 0 something finite, as the slope is 0 there."""
    if isinstance(b, (int, float)):
        return b - 1 if b else 1
    return where(equal(b, 0), 1, b - 1)


negative = _unary(np.negative, lambda d, x, y: -d)
abs = absolute = _unary(np.absolute, lambda d, x, y: d * sign(x), name="abs")
sign = _unary(np.sign)
exp = _unary(np.exp, lambda d, x, y: d * y)
exp2 = _unary(np.exp2, lambda d, x, y: d * y * LN2)
expm1 = _unary(np.expm1, lambda d, x, y: d * (y + 1))
log = _unary(np.log, lambda d, x, y: d / x)
log1p = _unary(np.log1p, lambda d, x, y: d / (x + 1))
log2 = _unary(np.log2, lambda d, x, y: d / (x * LN2))
log10 = _unary(np.log10, lambda d, x, y: d / (x * LN10))
sqrt = _unary(np.sqrt, lambda d, x, y: d / (2 * y))
square = _unary(np.square, lambda d, x, y: d * (2 * x))
reciprocal = _unary(np.reciprocal, lambda d, x, y: -d * square(y))
sin = _unary(np.sin, lambda d, x, y: d * cos(x))
cos = _unary(np.cos, lambda d, x, y: -d * sin(x))
tan = _unary(np.tan, lambda d, x, y: d * (1 + square(y)))
arctan = _unary(np.arctan, lambda d, x, y: d / (1 + square(x)))
arcsin = _unary(np.arcsin, lambda d, x, y: d / sqrt(1 - square(x)))
arccos = _unary(np.arccos, lambda d, x, y: -d / sqrt(1 - square(x)))
arcsinh = _unary(np.arcsinh, lambda d, x, y: d / sqrt(1 + square(x)))
arccosh = _unary(np.arccosh, lambda d, x, y: d / sqrt(square(x) - 1))
arctanh = _unary(np.arctanh, lambda d, x, y: d / (1 - square(x)))
sinh = _unary(np.sinh, lambda d, x, y: d * cosh(x))
cosh = _unary(np.cosh, lambda d, x, y: d * sinh(x))
tanh = _unary(np.tanh, lambda d, x, y: tanh_gradient(d, y))
floor = _unary(np.floor)
ceil = _unary(np.ceil)
rint = _unary(np.rint)
trunc = _unary(np.trunc)

add = _binary(np.add, lambda d, a, b, y: d, lambda d, a, b, y: d)
subtract = _binary(np.subtract, lambda d, a, b, y: d, lambda d, a, b, y: -d)
multiply = _binary(np.multiply, lambda d, a, b, y: d * b, lambda d, a, b, y: d * a)
divide = _binary(np.divide, lambda d, a, b, y: d / b, lambda d, a, b, y: -d * y / b)
power = _binary(
    np.power, lambda d, a, b, y: d * (b * power(a, _one_less(b))), lambda d, a, b, y: d * (y * _safe_log(a))
)
maximum = _binary(
    np.maximum, lambda d, a, b, y: d * _share(a, b, greater), lambda d, a, b, y: d * _share(b, a, greater)
)
minimum = _binary(np.minimum, lambda d, a, b, y: d * _share(a, b, less), lambda d, a, b, y: d * _share(b, a, less))
mod = _binary(np.remainder, lambda d, a, b, y: d, lambda d, a, b, y: -d * floor_divide(a, b), name="mod")
floor_divide = _binary(np.floor_divide)
arctan2 = _binary(
    np.arctan2, lambda d, a, b, y: d * b / (square(a) + square(b)), lambda d, a, b, y: -d * a / (square(a) + square(b))
)
logaddexp = _binary(np.logaddexp, lambda d, a, b, y: d * exp(a - y), lambda d, a, b, y: d * exp(b - y))

equal = _binary(np.equal)
not_equal = _binary(np.not_equal)
less = _binary(np.less)
less_equal = _binary(np.less_equal)
greater = _binary(np.greater)
greater_equal = _binary(np.greater_equal)
logical_and = _binary(np.logical_and)
logical_or = _binary(np.logical_or)
logical_xor = _binary(np.logical_xor)
logical_not = _unary(np.logical_not)
bitwise_and = _binary(np.bitwise_and)
bitwise_or = _binary(np.bitwise_or)
bitwise_xor = _binary(np.bitwise_xor)
invert = _unary(np.invert)
isfinite = _unary(np.isfinite)
isnan = _unary(np.isnan)
isinf = _unary(np.isinf)

true_divide = divide


def _share(a, b, wins):
    """Return which part of the gradient ``a`` gets: 1 where it wins over ``b``, half where they are equal."""
    dtype = promote(Spec.of(a), Spec.of(b))
    return cast(wins(a, b), dtype) + 0.5 * cast(equal(a, b), dtype)


# -- those with attributes, or with three inputs -------------------------------------------------------------


def _infer_where(condition, a, b):
    return Spec(broadcast(condition.shape, a.shape, b.shape), promote(a, b))


def _where_gradient(node, d):
    condition, a, b = node.inputs
    zero = np.zeros((), Spec.of(d).dtype)
    return (
        None,
        unbroadcast(where(condition, d, zero), a) if isinstance(a, Tensor) else None,
        unbroadcast(where(condition, zero, d), b) if isinstance(b, Tensor) else None,
    )


where = Op(
    "where",
    np.where,
    _infer_where,
    _where_gradient,
    doc="Take ``x1`` where ``condition`` holds, else ``x2``; shapes broadcast.",
).named("condition", "x1", "x2")


def _clip_gradient(node, d):
    x, low, high = node.inputs
    inside = True
    if low is not None:
        inside = greater_equal(x, low)
    if high is not None:
        inside = logical_and(inside, less_equal(x, high))
    return unbroadcast(d * cast(inside, Spec.of(d).dtype), x) if isinstance(x, Tensor) else None, None, None


def _infer_clip(x, low, high):
    bounds = [spec for spec in (low, high) if spec is not None]
    return Spec(broadcast(x.shape, *(spec.shape for spec in bounds)), promote(x, *bounds))


_clip = Op("clip", np.clip, _infer_clip, _clip_gradient)


def clip(x, x_min=None, x_max=None):
    """Limit ``x`` to [``x_min``, ``x_max``]; None is no limit.

    The gradient passes where ``x`` lies within, the limits included.
    """
    return x if x_min is None and x_max is None else _clip(x, x_min, x_max)


_nan_to_num = Op(
    "nan_to_num",
    lambda x, *, nan, posinf, neginf: np.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf),
    like_first,
    lambda node, d: where(isfinite(node.inputs[0]), d, np.zeros((), Spec.of(d).dtype)),
)


def nan_to_num(x, nan=0.0, posinf=None, neginf=None):
    """Replace NaN and infinities by numbers (the greatest ones of the dtype for None); no gradient passes there."""
    return _nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


_round = Op("round", lambda x, *, decimals: np.round(x, decimals), like_first)


def round(x, decimals=0):
    """Round to so many decimals, halves to even; the gradient is zero."""
    return _round(x, decimals=operator.index(decimals))


def rsqrt(x):
    """Return ``1 / sqrt(x)``."""
    return reciprocal(sqrt(x))


_isclose = Op(
    "isclose",
    lambda a, b, *, rtol, atol, equal_nan: np.isclose(a, b, rtol, atol, equal_nan),
    lambda a, b, **attrs: Spec(broadcast(a.shape, b.shape), bool),
)


def isclose(x1, x2, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Say where ``abs(x1 - x2) <= atol + rtol * abs(x2)``, or both are the same infinity (or NaN, if so asked)."""
    return _isclose(x1, x2, rtol=rtol, atol=atol, equal_nan=equal_nan)


def _cast_array(x, *, dtype):
    if x.dtype.kind in "OSU":  # None would become NaN, and text a number
        raise TypeError(f"Arrays must hold numbers or booleans. Received: an array of dtype {x.dtype}, shape {x.shape}")
    return x.astype(dtype)


_cast = Op(
    "cast",
    _cast_array,
    lambda x, *, dtype: Spec(x.shape, dtype),
    lambda node, d: cast(d, node.inputs[0].dtype) if node.inputs[0].dtype.kind == "f" else None,
)


def cast(x, dtype):
    """Return ``x`` as ``dtype`` (``x`` itself if it is already)."""
    dtype = np.dtype(dtype)
    if isinstance(x, (Tensor, np.ndarray)) and x.dtype == dtype:
        return x
    return _cast(x if hasattr(x, "dtype") else np.asarray(x), dtype=dtype)


astype = cast

same = Op("same", lambda x: x, like_first, lambda node, d: d, doc="Return ``x`` itself.")
copy = Op("copy", np.copy, like_first, lambda node, d: d, doc="Return a copy of ``x``.").named("x")
stop_gradient = Op(
    "stop_gradient", lambda x: x, like_first, doc="Return ``variable``; no gradient flows back through it."
).named("variable")


def convert_to_tensor(x, dtype=None):
    """Return ``x`` as an array; a Tensor stays one. Python floats take `numbarnn.variable.default_float`."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
        if dtype is None and x.dtype.kind == "f":
            dtype = default_float()
    elif isinstance(x, Variable):
        x = same(x)
    return x if dtype is None else cast(x, dtype)


def convert_to_numpy(x):
    """Return ``x`` as a NumPy array; a Tensor has no value and raises."""
    return np.asarray(x)


def _assign(value, *, variable):
    return variable.store(value)


_assign_op = Op(
    "assign",
    _assign,
    lambda value, *, variable: Spec(value.shape, variable.dtype),
    lambda node, d: cast(d, node.inputs[0].dtype),
    effect=True,
)


def assign(value, variable):
    """Record the assignment of ``value`` to a variable in the active trace; later reads there see ``value``."""
    trace = local.trace
    spec = Spec.of(value)
    if len(spec.shape) != variable.ndim or any(
        n is not None and n != m for n, m in zip(spec.shape, variable.shape, strict=True)
    ):
        raise ValueError(f"{user_line()}: {variable!r} cannot be assigned a value of shape {spec.shape}")
    trace.read(variable)
    trace.assigned.add(variable)
    trace.variables[variable] = trace.record(_assign_op, (value,), {"variable": variable}).result
