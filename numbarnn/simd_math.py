"""Activation functions and their derivatives, written once for SIMD registers, scalars and arrays.

Each public function runs on

- a `Vec` inside an ``@njit`` kernel (all lanes at once, no branch, no library call),
- a float32 or float64 scalar inside any kernel, with the same bits as one lane of the `Vec`,
- NumPy arrays and scalars in plain Python: the reference that the tests and the reader compare with.

How a kernel gets its code: the formula below is a plain Python function.  When Numba compiles a call of, say, `tanh`,
the formula runs *once* on `_Value` objects, whose operators append instructions to the function being compiled.  That
costs Numba's type inference one call instead of twenty statements, so kernels with many activations still compile fast,
and a `Vec`, a scalar and (for formulas without bit tricks) an array share one text.

Numerics.  Nothing here relies on fast-math: the results are the same in every kernel, NaN stays NaN, and the only fused
operation is the explicit `_fma`.  All exponential-based functions share one reduction, ``x = n ln2 + r`` with
``|r| <= ln2 / 2``, and one fact: with the even function ``A(r) = (r/2) coth(r/2) = 1 + r**2/12 - ...``

    exp(r) = (A + r/2) / (A - r/2),

a ratio whose two halves are a short polynomial in ``r**2`` and two additions.  `sigmoid` and `tanh` put the halves into
the one division that they need anyway, so that their exponential needs no long polynomial and no division of its own.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from numbarnn.simd import Vec, fma_ir

__all__ = [
    "ACTIVATIONS",
    "ActivationInfo",
    "activate",
    "activation_slope",
    "elu",
    "elu_slope",
    "erf",
    "exp",
    "expm1",
    "exponential",
    "exponential_slope",
    "gelu",
    "gelu_slope",
    "hard_sigmoid",
    "hard_sigmoid_slope",
    "linear",
    "linear_slope",
    "log1p",
    "relu",
    "relu_slope",
    "selu",
    "selu_slope",
    "sigmoid",
    "sigmoid_slope",
    "silu",
    "silu_slope",
    "softplus",
    "softplus_slope",
    "softsign",
    "softsign_slope",
    "tanh",
    "tanh_slope",
]

_LOG2E = 1.0 / math.log(2.0)


# -------------------------------------------------------------------------------------- what differs between the dtypes


class _Format(NamedTuple):
    """Bit layout of a float type, the limits that follow from it, and the coefficients that are exact enough for it."""

    mantissa: int  # stored bits of the significand
    bias: int  # of the exponent
    ln2_high: float  # its product with any exponent is exact, so that the reduction works without FMA
    ln2_low: float
    tanh_limit: float  # behind it tanh is +-1
    sigmoid_low: float  # below it sigmoid(x) and x * sigmoid(x) are zero
    sigmoid_high: float  # behind it sigmoid is 1
    sigmoid_scale: int  # exponent that keeps exp(-sigmoid_low) finite and lets denormal results be rounded once
    exp_low: float  # below it exp is zero
    exp_high: float  # behind it exp is infinite
    expm1_low: float  # below it expm1 is -1
    largest: float
    tiny: float  # nearer to zero, expm1(x) and log1p(x) are x
    tail_limit: float  # behind it the upper tail of the normal distribution, times its abscissa, is zero
    tail_centre: float  # of the map of [0, tail_limit] to [-1, 1]
    half_coth: tuple  # (z coth(z) - 1) / z**2 in powers of z**2, |z| <= ln2 / 4
    log: tuple  # (2 atanh(s) / s - 2) / s**2 in powers of s**2, |s| <= 0.1717
    erf: tuple  # erf(x) / x in powers of x**2, |x| <= 1
    tail: tuple  # (1 + w) exp(w**2 / 2) Phi(-w) in powers of (w - centre) / (w + centre)

    def pattern(self, number):
        """Return the bits of `number`, as an integer."""
        if self.mantissa == 23:
            return int(np.float32(number).view(np.int32))
        return int(np.float64(number).view(np.int64))


# The coefficients are minimax fits (Remez exchange in 50 digits); relative errors float32 / float64:
# half_coth 2e-9 / 9e-19, log 8e-10 / 1e-18, erf 4e-8 / 7e-18, tail 1e-7 / 5e-17.
_FLOAT32 = _Format(
    mantissa=23,
    bias=127,
    ln2_high=0.693145751953125,
    ln2_low=1.42860682030941723212e-6,
    tanh_limit=10.0,
    sigmoid_low=-110.0,
    sigmoid_high=30.0,
    sigmoid_scale=-40,
    exp_low=-110.0,
    exp_high=89.0,
    expm1_low=-20.0,
    largest=float(np.finfo(np.float32).max),
    tiny=2.0**-30,
    tail_limit=14.6,
    tail_centre=3.0,
    half_coth=(0.33333250861652606344, -0.022133693142377080944),
    log=(0.66666779753370580362, 0.39977080732445264644, 0.29885157738181219876),
    erf=(
        1.1283791224970944334,
        -0.37612326202967010491,
        0.11280180241708505177,
        -0.026711315104548996896,
        0.0049175559874612667121,
        -0.00056314412488173332518,
    ),
    tail=(
        0.48605583210454154052,
        -0.096527153126254205825,
        -0.016434643655274981498,
        0.045172086230211140377,
        -0.022702725443637191317,
        0.0011186688251605374074,
        0.0029020127571332795092,
        -0.00028612120023903658387,
        -0.00034304808846560188149,
    ),
)
_FLOAT64 = _Format(
    mantissa=52,
    bias=1023,
    ln2_high=6.93147180369123816490e-1,
    ln2_low=1.90821492927058770002e-10,
    tanh_limit=20.0,
    sigmoid_low=-760.0,
    sigmoid_high=50.0,
    sigmoid_scale=-100,
    exp_low=-765.0,
    exp_high=710.0,
    expm1_low=-50.0,
    largest=float(np.finfo(np.float64).max),
    tiny=2.0**-60,
    tail_limit=39.0,
    tail_centre=4.0,
    half_coth=(
        0.33333333333333201664,
        -0.022222222221602872178,
        0.0021164020217791357742,
        -0.00021163390046802287406,
        0.000021186538683511570092,
    ),
    log=(
        0.66666666666667393378,
        0.39999999999378201795,
        0.28571428751260057899,
        0.22222197591335242066,
        0.1818361879535627881,
        0.15312574540067993523,
        0.14811495714603076589,
    ),
    erf=(
        1.1283791670955125657,
        -0.37612638903183519455,
        0.11283791670944181834,
        -0.02686617064311109391,
        0.0052239776061159415963,
        -0.00085483259292118187227,
        0.00012055293574251506212,
        -0.000014924712257386026586,
        1.6447131081921731166e-6,
        -1.6206310389279202707e-7,
        1.3710967166546994422e-8,
        -7.7794458703245919345e-10,
    ),
    tail=(
        0.47205320650984466234,
        -0.096703477326525578282,
        0.013999634724431365224,
        0.02860036405352536297,
        -0.032197837428405255452,
        0.017936097480472443165,
        -0.0050023785842853792354,
        -0.00028562310903626435466,
        0.00069489703035824926468,
        -0.000094430173491527228555,
        -0.00008785270280149251994,
        0.000021249722166064814136,
        0.00001362490582883609371,
        -3.4314773737930701887e-6,
        -2.607709281993806701e-6,
        4.0387816547820469962e-7,
        5.4308875295518097045e-7,
        6.8075736911108214803e-10,
        -1.0144879860468369269e-7,
        -1.7454081008502172621e-8,
        1.1823316881243125236e-8,
        3.9343817002162751904e-9,
    ),
)


# --------------------------------------------------------------------------- values whose operators append instructions


class _Value:
    """A float (or truth value) of the function being compiled, vector or scalar; its operators append instructions.

    Python numbers among the operands become constants of the value's own type.
    """

    __slots__ = ("builder", "ir")

    def __init__(self, builder, value):
        self.builder = builder
        self.ir = value

    @property
    def element(self):
        """LLVM type of one lane."""
        return getattr(self.ir.type, "element", self.ir.type)

    @property
    def format(self):
        return _FLOAT32 if isinstance(self.element, ir.FloatType) else _FLOAT64

    def constant(self, number):
        """Return the IR constant with `number` in every lane, or the IR of a `_Value`."""
        if isinstance(number, _Value):
            return number.ir
        return self._fill(self.ir.type, float(number))

    def like(self, number):
        """Return `number` as a value of this type."""
        return _Value(self.builder, self.constant(number))

    @staticmethod
    def _fill(type_, number):
        return ir.Constant(type_, [number] * type_.count if isinstance(type_, ir.VectorType) else number)

    def _integers(self):
        """LLVM type of the value's bits."""
        bits = ir.IntType(32 if isinstance(self.element, ir.FloatType) else 64)
        return ir.VectorType(bits, self.ir.type.count) if isinstance(self.ir.type, ir.VectorType) else bits

    def bits(self, instruction, number):
        """Return the value after the integer `instruction` (``"shl"``, ...) on its bits and the integer `number`."""
        integers = self._integers()
        result = getattr(self.builder, instruction)(
            self.builder.bitcast(self.ir, integers), self._fill(integers, number)
        )
        return _Value(self.builder, self.builder.bitcast(result, self.ir.type))

    def copy_sign(self, other):
        """Return this value, which must not be negative, with the sign of `other`."""
        sign = other.bits("and_", -1 << (31 if self.format.mantissa == 23 else 63))
        integers = self._integers()
        both = (self.builder.bitcast(v.ir, integers) for v in (self, sign))
        return _Value(self.builder, self.builder.bitcast(self.builder.or_(*both), self.ir.type))

    def select(self, a, b):
        """Return `a` where this truth value holds, else `b`; at least one of them is a `_Value`."""
        like = a if isinstance(a, _Value) else b
        return _Value(self.builder, self.builder.select(self.ir, like.constant(a), like.constant(b)))

    def _binary(self, instruction, a, b):
        return _Value(self.builder, getattr(self.builder, instruction)(self.constant(a), self.constant(b)))

    def _compare(self, symbol, other):
        # Ordered: false where a lane is NaN.
        return _Value(self.builder, self.builder.fcmp_ordered(symbol, self.ir, self.constant(other)))

    def __add__(self, other):
        return self._binary("fadd", self, other)

    def __radd__(self, other):
        return self._binary("fadd", other, self)

    def __sub__(self, other):
        return self._binary("fsub", self, other)

    def __rsub__(self, other):
        return self._binary("fsub", other, self)

    def __mul__(self, other):
        return self._binary("fmul", self, other)

    def __rmul__(self, other):
        return self._binary("fmul", other, self)

    def __truediv__(self, other):
        return self._binary("fdiv", self, other)

    def __rtruediv__(self, other):
        return self._binary("fdiv", other, self)

    def __neg__(self):
        return self._binary("fsub", -0.0, self)  # becomes fneg, an instruction that CUDA's compiler does not know

    def __abs__(self):
        # On the bits, as copy_sign: CUDA's compiler does not know the LLVM intrinsics for them.
        return self.bits("and_", (1 << (31 if self.format.mantissa == 23 else 63)) - 1)

    def __lt__(self, other):
        return self._compare("<", other)

    def __le__(self, other):
        return self._compare("<=", other)

    def __gt__(self, other):
        return self._compare(">", other)

    def __ge__(self, other):
        return self._compare(">=", other)


def _where(condition, a, b):
    """Return `a` where `condition` holds, else `b`, for formulas (on `_Value` or arrays)."""
    return condition.select(a, b) if isinstance(condition, _Value) else np.where(condition, a, b)[()]


def _like(x, number):
    """Return `number` in the type (and shape) of `x`, for formulas (on `_Value` or arrays)."""
    if isinstance(x, _Value):
        return x.like(number)
    x = np.asarray(x)
    return np.full(x.shape, number, x.dtype if np.issubdtype(x.dtype, np.floating) else np.float64)[()]


def _fma(a, b, c):
    """Return ``a * b + c`` in one rounding where the target can; at least one operand is a `_Value`."""
    like = next(v for v in (a, b, c) if isinstance(v, _Value))
    return _Value(like.builder, fma_ir(like.builder, like.constant(a), like.constant(b), like.constant(c)))


def _at_least(x, low):
    """Return `x`, or `low` where x is smaller; NaN stays (LLVM's `maxnum` would lose it)."""
    return _where(x < low, low, x)


def _at_most(x, high):
    return _where(x > high, high, x)


def _horner(x, coefficients):
    """Polynomial in `x`, constant term first."""
    result = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        result = _fma(result, x, c)
    return result


# ------------------------------------------------------------------------------------ from formula to compiled function


def _dtype(ty):
    """Return the float type of a value that formulas accept, else None."""
    dtype = ty.dtype if isinstance(ty, Vec) else ty
    return dtype if dtype in (types.float32, types.float64) else None


def _kernel_of(function):
    """Register the decorated formula (on a `_Value`) as what compiled code runs for calls of `function`."""

    def register(formula):
        @infer_global(function)
        class _Template(AbstractTemplate):
            def generic(self, args, kws):
                if len(args) != 1 or kws:
                    return None
                if _dtype(args[0]) is not None:
                    return signature(args[0], args[0])
                if isinstance(args[0], types.Integer | types.Boolean):  # as NumPy: integers become float64
                    return signature(types.float64, types.float64)
                return None

        def lower(context, builder, sig, args):
            return formula(_Value(builder, args[0])).ir

        lower_builtin(function, Vec)(lower)
        lower_builtin(function, types.Float)(lower)
        _FORMULAS[function] = formula
        return formula

    return register


# The formula of each function: what `activate` compiles.
_FORMULAS = {}


def _everywhere(formula):
    """Declare a formula without bit tricks: compiled code and arrays run the same text."""
    _PLAIN_FORMULAS.append(formula)  # registered at the end of the module: Numba looks for the function in it
    return formula


_PLAIN_FORMULAS = []


def _reference(function):
    """Make the plain version of a function round once: narrow floats are computed in float64."""

    @functools.wraps(function)
    def plain(x):
        x = np.asarray(x)
        if x.dtype == np.float64 or not np.issubdtype(x.dtype, np.floating):
            return function(x)[()]
        return function(x.astype(np.float64)).astype(x.dtype)[()]

    return plain


# ----------------------------------------------------------------------------------------------- the shared exponential


def _split(x, scale, offset=0):
    """Round ``x * scale`` to an integer n: (n as a float, ``2**(n + offset)``); `offset` a number or a `_Value`.

    The addition of a large number rounds, and its low bits are then n (plus the exponent's bias), ready to be shifted
    into place: no conversion to integers, which would be undefined for NaN.  NaN gives NaN for n and any power.
    """
    magic = offset + (1.5 * 2.0**x.format.mantissa + x.format.bias)
    rounded = _fma(x, scale, magic)
    return rounded - magic, rounded.bits("shl", x.format.mantissa)


def _reduce(x, n):
    """Return ``x - n ln2`` in two steps, of which the first is exact."""
    return _fma(n, -x.format.ln2_low, _fma(n, -x.format.ln2_high, x))


def _twice_a(r):
    """Return ``2 A(r) = r coth(r/2)``: exp(r) is ``(2A + r) / (2A - r)``."""
    return _horner(r * r, [2.0, *(c * 2.0 / 4.0 ** (i + 1) for i, c in enumerate(r.format.half_coth))])


def _exp_factors(x, low=0.0):
    """Return ``exp(x + low)`` as two factors: a normal number, and a power of two to be multiplied last.

    The first may be multiplied further; only the last product may overflow or round to a denormal.
    """
    x = _at_most(_at_least(x, x.format.exp_low), x.format.exp_high)
    # 2**n alone does not always fit into the format; 2**(n +- 100) does.
    small = x < 0.0
    n, power = _split(x, _LOG2E, _where(small, x.like(100.0), -100.0))
    r = _reduce(x, n) + low
    a = _twice_a(r)
    return power * (a + r) / (a - r), _where(small, x.like(2.0**-100), 2.0**100)


def _sigmoid_halves(x):
    """Return numerator, denominator and their difference for sigmoid(x) = ``s / (s + s exp(-x))``; s a scale."""
    form = x.format
    x = _at_most(_at_least(x, form.sigmoid_low), form.sigmoid_high)
    n, power = _split(x, -_LOG2E, form.sigmoid_scale)
    r = _reduce(x, -n)
    a = _twice_a(r)
    numerator = (a + r) * 2.0**form.sigmoid_scale
    return numerator, _fma(power, a - r, numerator), power * (a - r)


def _normal_tail(w):
    """Return Phi(-w) and exp(-w**2 / 2), w >= 0, both still to be multiplied by the third value, a power of two."""
    # The rounding error of w**2 would be magnified by exp: split w so that the square of its upper half is exact.
    upper = w.bits("and_", -1 << (w.format.mantissa // 2 + 1))
    density, power = _exp_factors(upper * upper * -0.5, (w - upper) * (w + upper) * -0.5)
    centre = w.format.tail_centre
    return density * _horner((w - centre) / (w + centre), w.format.tail) / (1.0 + w), density, power


# ------------------------------------------------------------------------------------------------- elementary functions


@_reference
def exp(x):
    """Exponential function."""
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(x)


@_kernel_of(exp)
def _exp(x):
    value, power = _exp_factors(x)
    return value * power


@_reference
def expm1(x):
    """``exp(x) - 1``, exact also near zero."""
    with np.errstate(over="ignore", under="ignore"):
        return np.expm1(x)


@_kernel_of(expm1)
def _expm1(x):
    form = x.format
    y = _at_most(_at_least(x, form.expm1_low), form.exp_high)
    n, power = _split(y, _LOG2E, -2)  # a quarter of 2**n, which alone does not fit for the largest x
    r = _reduce(y, n)
    a = _twice_a(r)
    result = _fma(a, power - 0.25, r * (power + 0.25)) / (a - r) * 4.0
    return _where(abs(x) < form.tiny, x, result)


@_reference
def log1p(x):
    """``log(1 + x)``, exact also near zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log1p(x)


@_kernel_of(log1p)
def _log1p(x):
    form = x.format
    u = 1.0 + x
    lost = _where(x < 1.0, x - (u - 1.0), 1.0 - (u - x))
    # k: the exponent that takes u into [sqrt(1/2), sqrt(2)), found in the bits; then 4 / 2**k, which fits for every u.
    offset = form.pattern(1.0) - form.pattern(math.sqrt(0.5))
    biased = u.bits("add", offset).bits("lshr", form.mantissa)
    shrink = biased.bits("xor", -1).bits("add", 2 * form.bias + 3).bits("shl", form.mantissa)
    magic = 1.5 * 2.0**form.mantissa
    k = biased.bits("add", form.pattern(magic)) - (magic + form.bias)
    f = (u * 0.25 * shrink - 1.0) + lost * 0.25 * shrink
    s = f / (2.0 + f)
    z = s * s
    log_f = _fma(s * z, _horner(z, form.log), 2.0 * s)
    result = _fma(k, form.ln2_high, _fma(k, form.ln2_low, log_f))
    result = _where(abs(x) < form.tiny, x, result)
    result = _where(x < math.inf, result, x)
    return _where(x > -1.0, result, _where(x < -1.0, x.like(math.nan), result - math.inf))


@_reference
def erf(x):
    """Error function."""
    from scipy.special import erf as scipy_erf

    return scipy_erf(x)


@_kernel_of(erf)
def _erf(x):
    small = x * _horner(x * x, x.format.erf)
    w = abs(x) * math.sqrt(2.0)
    tail, _, power = _normal_tail(_at_most(w, x.format.tail_limit))
    large = 1.0 - 2.0 * (tail * power)
    return _where(abs(x) < 1.0, small, large.copy_sign(x))


# ------------------------------------------------------------------------------------------------- activation functions


@_reference
def tanh(x):
    """Hyperbolic tangent, within 3 units in the last place everywhere; odd, bit by bit."""
    return np.tanh(x)


@_kernel_of(tanh)
def _tanh(x):
    # tanh(x) = (e - 1) / (e + 1), e = exp(2x) = 2**n p / q with p, q = A +- r, is (2**n p - q) / (2**n p + q).  The
    # numerator is (2**n - 1) p + 2r as well: for x > 0 nothing cancels there, and where n = 0 it is 2r.
    form = x.format
    positive = _at_most(abs(x), form.tanh_limit)
    n, power = _split(positive, 2.0 * _LOG2E)
    r = _fma(n, -0.5 * math.log(2.0), positive)  # one step is enough: where n is large, tanh hardly depends on r
    a = _horner(r * r, [1.0, *form.half_coth])
    p, q = a + r, a - r
    return (_fma(power - 1.0, p, r + r) / _fma(power, p, q)).copy_sign(x)


@_everywhere
def tanh_slope(y):
    """Return the derivative of `tanh` from its output."""
    return 1.0 - y * y


@_reference
def sigmoid(x):
    """``1 / (1 + exp(-x))``, within 4 units in the last place everywhere."""
    e = np.exp(-np.abs(np.clip(x, -800.0, 800.0)))
    return np.where(x < 0.0, e, 1.0) / (1.0 + e)


@_kernel_of(sigmoid)
def _sigmoid(x):
    numerator, denominator, _ = _sigmoid_halves(x)
    return numerator / denominator


@_everywhere
def sigmoid_slope(y):
    """Return the derivative of `sigmoid` from its output."""
    return y * (1.0 - y)


@_everywhere
def hard_sigmoid(x):
    """``clip(x / 6 + 1/2, 0, 1)``, as Keras 3 defines it."""
    return _at_most(_at_least(x + 3.0, 0.0), 6.0) / 6.0


@_everywhere
def hard_sigmoid_slope(y):
    """Return the derivative of `hard_sigmoid` from its output; zero where it saturates."""
    inside = _where(y < 1.0, _like(y, 1.0 / 6.0), 0.0)
    return _where(y > 0.0, inside, 0.0)


@_everywhere
def relu(x):
    """``max(x, 0)``."""
    return _where(x <= 0.0, 0.0, x)


@_everywhere
def relu_slope(y):
    """Return the derivative of `relu` from its output; zero at zero."""
    return _where(y > 0.0, _like(y, 1.0), 0.0)


@_everywhere
def linear(x):
    """`x` itself."""
    return x


@_everywhere
def linear_slope(y):
    """Return the derivative of `linear`: one."""
    return _like(y, 1.0)


@_everywhere
def softsign(x):
    """``x / (1 + |x|)``; its limits are -1 and 1."""
    largest = (
        x.format.largest if isinstance(x, _Value) else np.finfo(np.result_type(np.asarray(x).dtype, np.float16)).max
    )
    bounded = _at_most(_at_least(x, -largest), largest)
    return bounded / (1.0 + abs(bounded))


@_everywhere
def softsign_slope(y):
    """Return the derivative of `softsign` from its output."""
    slack = 1.0 - abs(y)
    return slack * slack


@_reference
def softplus(x):
    """``log(1 + exp(x))``."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


@_kernel_of(softplus)
def _softplus(x):
    return _where(x > 0.0, x, 0.0) + _log1p(_exp(-abs(x)))


@_reference
def softplus_slope(y):
    """Return the derivative of `softplus` from its output."""
    return -np.expm1(-y)


@_kernel_of(softplus_slope)
def _softplus_slope(y):
    return -_expm1(-y)


# As Keras and PyTorch have it: the mean and variance of its output are those of a standard normal input.
_SELU_SCALE = 1.0507009873554804934193349852946
_SELU_ALPHA = 1.6732632423543772848170429916717


@_reference
def elu(x):
    """``x`` where positive, else ``exp(x) - 1``."""
    return np.where(x > 0.0, x, np.expm1(np.minimum(x, 0.0)))


@_kernel_of(elu)
def _elu(x):
    return _where(x > 0.0, x, _expm1(x))


@_everywhere
def elu_slope(y):
    """Return the derivative of `elu` from its output."""
    return _where(y > 0.0, _like(y, 1.0), y + 1.0)


@_reference
def selu(x):
    """Scaled `elu`: ``1.0507 x`` where positive, else ``1.7581 (exp(x) - 1)``."""
    return np.where(x > 0.0, _SELU_SCALE * x, _SELU_SCALE * _SELU_ALPHA * np.expm1(np.minimum(x, 0.0)))


@_kernel_of(selu)
def _selu(x):
    return _where(x > 0.0, _SELU_SCALE * x, (_SELU_SCALE * _SELU_ALPHA) * _expm1(x))


@_everywhere
def selu_slope(y):
    """Return the derivative of `selu` from its output."""
    return _where(y > 0.0, _like(y, _SELU_SCALE), y + _SELU_SCALE * _SELU_ALPHA)


@_reference
def silu(x):
    """``x sigmoid(x)``, also known as swish."""
    x = np.maximum(x, -800.0)
    e = np.exp(-np.abs(x))
    return np.where(x < 0.0, np.minimum(x, 0.0) * e, x) / (1.0 + e)


@_kernel_of(silu)
def _silu(x):
    numerator, denominator, _ = _sigmoid_halves(x)
    result = _at_least(x, x.format.sigmoid_low) * numerator / denominator
    return _where(abs(x) < x.format.tiny, 0.5 * x, result)  # the numerator's scale would push them below the denormals


@_reference
def silu_slope(x):
    """Return the derivative of `silu` from its *input*."""
    x = np.clip(x, -800.0, 800.0)
    s = sigmoid(x)
    return s * (1.0 + x * sigmoid(-x))


@_kernel_of(silu_slope)
def _silu_slope(x):
    # s (1 + x (1 - s)) with s = sigmoid(x); 1 - s from its own numerator: it is small where x is large
    limit = -x.format.sigmoid_low
    numerator, denominator, rest = _sigmoid_halves(x)
    bounded = _at_most(_at_least(x, -limit), limit)
    return numerator / denominator * _fma(bounded, rest / denominator, 1.0)


@_reference
def gelu(x):
    """``x Phi(x)`` with the normal distribution function Phi (the exact form, not the approximation by tanh)."""
    from scipy.special import ndtr

    return np.maximum(x, -40.0) * ndtr(x)


@_kernel_of(gelu)
def _gelu(x):
    limit = x.format.tail_limit
    tail, _, power = _normal_tail(_at_most(abs(x), limit))
    result = _where(x < 0.0, _at_least(x, -limit) * tail * power, x * (1.0 - tail * power))
    return _where(abs(x) < x.format.tiny, 0.5 * x, result)  # the tail's scale would push them below the denormals


@_reference
def gelu_slope(x):
    """Return the derivative of `gelu` from its *input*."""
    from scipy.special import ndtr

    bounded = np.clip(x, -40.0, 40.0)
    return ndtr(x) + bounded * np.exp(-0.5 * bounded * bounded) / math.sqrt(2.0 * math.pi)


@_kernel_of(gelu_slope)
def _gelu_slope(x):
    limit = x.format.tail_limit
    bounded = _at_most(_at_least(x, -limit), limit)
    tail, density, power = _normal_tail(abs(bounded))
    slope = _fma(bounded, density * (1.0 / math.sqrt(2.0 * math.pi)), _where(x < 0.0, tail, -tail)) * power
    return _where(x < 0.0, slope, 1.0 + slope)


exponential = exp


@_everywhere
def exponential_slope(y):
    """Return the derivative of `exponential` from its output: the output."""
    return y


for _formula in _PLAIN_FORMULAS:
    _kernel_of(_formula)(_formula)


# --------------------------------------------------------------------------------------------- the table of activations


class ActivationInfo(NamedTuple):
    """One row of `ACTIVATIONS`.

    Attributes
    ----------
    code : int
        What kernels take to choose the activation at run time.
    derivative_from : str
        ``"output"`` or ``"input"``: what `slope` has to be given, so what a forward pass has to save.
    function, slope : callable
        The activation and its derivative.
    """

    code: int
    derivative_from: str
    function: object
    slope: object


ACTIVATIONS = {
    name: ActivationInfo(code, derivative_from, function, slope)
    for code, (name, derivative_from, function, slope) in enumerate(
        [
            ("tanh", "output", tanh, tanh_slope),
            ("sigmoid", "output", sigmoid, sigmoid_slope),
            ("linear", "output", linear, linear_slope),
            ("relu", "output", relu, relu_slope),
            ("hard_sigmoid", "output", hard_sigmoid, hard_sigmoid_slope),
            ("softsign", "output", softsign, softsign_slope),
            ("softplus", "output", softplus, softplus_slope),
            ("elu", "output", elu, elu_slope),
            ("selu", "output", selu, selu_slope),
            ("exponential", "output", exponential, exponential_slope),
            ("silu", "input", silu, silu_slope),
            ("gelu", "input", gelu, gelu_slope),
        ]
    )
}


def _row(code):
    for info in ACTIVATIONS.values():
        if info.code == code:
            return info
    raise ValueError(f"code must be one of the codes in ACTIVATIONS (0 to {len(ACTIVATIONS) - 1}), got {code!r}")


def activate(code, z):
    """Activation of `z`, chosen by its code at run time.

    Parameters
    ----------
    code : int
        ``ACTIVATIONS[name].code``. An unknown code gives NaN in compiled code.
    z : Vec, float or ndarray
        Pre-activation.

    Returns
    -------
    Vec, float or ndarray
        Like `z`.

    Raises
    ------
    ValueError
        In plain Python, for an unknown code.
    """
    return _row(code).function(z)


def activation_slope(code, saved):
    """Return the derivative of the activation `code` from its output or input (see `ACTIVATIONS`).

    Parameters
    ----------
    code : int
        ``ACTIVATIONS[name].code``. An unknown code gives NaN in compiled code.
    saved : Vec, float or ndarray
        Output or input of the activation.

    Returns
    -------
    Vec, float or ndarray
        Like `saved`.

    Raises
    ------
    ValueError
        In plain Python, for an unknown code.
    """
    return _row(code).slope(saved)


def _kernel_by_code(function, column):
    """Register `function(code, value)` as a switch over one column of the table.

    The switch is inlined: calling it instead makes the kernel spill vectors to a stack that is not aligned for them,
    which took up to twice the time, depending on where the process found its stack.
    """

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and not kws and isinstance(args[0], types.Integer) and _dtype(args[1]) is not None:
                return signature(args[1], types.intp, args[1])
            return None

    def lower(context, builder, sig, args):
        type_ = args[1].type
        name = f"numbarnn_{function.__name__}_{str(type_).strip('<>').replace(' ', '_')}"
        switch = builder.module.globals.get(name)
        if switch is None:
            switch = ir.Function(builder.module, ir.FunctionType(type_, [args[0].type, type_]), name)
            switch.linkage = "internal"
            switch.attributes.add("alwaysinline")
            start = switch.append_basic_block()
            unknown = switch.append_basic_block("unknown")
            inner = ir.IRBuilder(start)
            value = _Value(inner, switch.args[1])
            branches = inner.switch(switch.args[0], unknown)
            for activation, info in ACTIVATIONS.items():
                block = switch.append_basic_block(activation)
                branches.add_case(info.code, block)
                inner.position_at_end(block)
                inner.ret(_FORMULAS[getattr(info, column)](value).ir)
            inner.position_at_end(unknown)
            inner.ret(value.constant(math.nan))
        return builder.call(switch, args)

    lower_builtin(function, types.Integer, Vec)(lower)
    lower_builtin(function, types.Integer, types.Float)(lower)


_kernel_by_code(activate, "function")
_kernel_by_code(activation_slope, "slope")
