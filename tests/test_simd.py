"""`numbarnn.simd` and `numbarnn.simd_math`: vectors in kernels, and the accuracy of every activation on them."""

import math
import os
import re
import subprocess
import sys
import warnings

import mpmath
import numba
import numpy as np
import pytest

from numbarnn import simd_math
from numbarnn.jit import njit
from numbarnn.simd import fma, has_fma, lanes, like, load, load_n, pointer, splat, store, store_n, vector_bytes, where
from numbarnn.simd_math import ACTIVATIONS, activate, activation_slope, erf, exp, expm1, log1p, sigmoid, tanh

DTYPES = [np.float32, np.float64]
SCALAR_LIBRARY = r"\b(tanh|exp|exp2|expm1|log|log1p|erf|erfc|fma|ldexp|scalbn|pow|copysign|fabs)f?\b"


# -------------------------------------------------------------------------------------------------------------- kernels


@njit
def _copy(x, y, n):
    store_n(pointer(y), 0, n, load_n(pointer(x), 0, n))


@njit
def _load_partly_store_whole(x, y, n):
    store(pointer(y), 0, load_n(pointer(x), 0, n))


@njit
def _copy_from(x, y, start, target):
    store(pointer(y), target, load(pointer(x), start))


@njit
def _operators(a, b, c, out):
    size = a.shape[0]
    pa, pb, pc, po = pointer(a), pointer(b), pointer(c), pointer(out)
    for i in range(0, size, lanes(a)):
        n = size - i
        x, y, z = load_n(pa, i, n), load_n(pb, i, n), load_n(pc, i, n)
        one, zero = like(x, 1.0), like(x, 0.0)
        store_n(po, i, n, x + y)
        store_n(po, size + i, n, x - y)
        store_n(po, 2 * size + i, n, x * y)
        store_n(po, 3 * size + i, n, x / y)
        store_n(po, 4 * size + i, n, -x)
        store_n(po, 5 * size + i, n, fma(x, y, z))
        store_n(po, 6 * size + i, n, where(x < y, one, zero))
        store_n(po, 7 * size + i, n, where(x <= y, one, zero))
        store_n(po, 8 * size + i, n, where(x > y, one, zero))
        store_n(po, 9 * size + i, n, where(x >= y, one, zero))
        store_n(po, 10 * size + i, n, where(x == y, one, zero))
        store_n(po, 11 * size + i, n, where(x != y, one, zero))
        store_n(po, 12 * size + i, n, where(x < y, x, z))
        store_n(po, 13 * size + i, n, like(x, 0.1))
        store_n(po, 14 * size + i, n, splat(a[i]))


@njit
def _operators_scalar(a, b, c, out):
    for i in range(a.shape[0]):
        x, y, z = a[i], b[i], c[i]
        one, zero = like(x, 1.0), like(x, 0.0)
        out[5, i] = fma(x, y, z)
        out[6, i] = where(x < y, one, zero)
        out[12, i] = where(x < y, x, z)
        out[13, i] = like(x, 0.1)


@njit
def _activate(code, x, y):
    px, py = pointer(x), pointer(y)
    for i in range(0, x.shape[0], lanes(x)):
        store_n(py, i, x.shape[0] - i, activate(code, load_n(px, i, x.shape[0] - i)))


@njit
def _slope(code, x, y):
    px, py = pointer(x), pointer(y)
    for i in range(0, x.shape[0], lanes(x)):
        store_n(py, i, x.shape[0] - i, activation_slope(code, load_n(px, i, x.shape[0] - i)))


@njit
def _activate_scalar(code, x, y, slopes):
    for i in range(x.shape[0]):
        y[i] = activate(code, x[i])
        slopes[i] = activation_slope(code, x[i])


@njit
def _elementary(x, y):
    size = x.shape[0]
    px, py = pointer(x), pointer(y)
    for i in range(0, size, lanes(x)):
        n = size - i
        v = load_n(px, i, n)
        store_n(py, i, n, exp(v))
        store_n(py, size + i, n, expm1(v))
        store_n(py, 2 * size + i, n, log1p(v))
        store_n(py, 3 * size + i, n, erf(v))


@njit
def _elementary_scalar(x, y):
    for i in range(x.shape[0]):
        y[0, i] = exp(x[i])
        y[1, i] = expm1(x[i])
        y[2, i] = log1p(x[i])
        y[3, i] = erf(x[i])


@njit
def _named(x, y):
    """The default pair by name; the same formulas as by code."""
    size = x.shape[0]
    px, py = pointer(x), pointer(y)
    for i in range(0, size, lanes(x)):
        n = size - i
        v = load_n(px, i, n)
        store_n(py, i, n, tanh(v))
        store_n(py, size + i, n, sigmoid(v))


@njit
def _of_integer(i):
    return tanh(i)


# ----------------------------------------------------------------------------------------------------- helpers, oracles


def lane_count(dtype):
    return vector_bytes() // np.dtype(dtype).itemsize


def run(kernel, code, x):
    y = np.full_like(x, 77.0)
    kernel(code, x, y)
    return y


def activated(name, x):
    return run(_activate, ACTIVATIONS[name].code, np.ascontiguousarray(x))


def slopes(name, saved):
    return run(_slope, ACTIVATIONS[name].code, np.ascontiguousarray(saved))


def elementary(x):
    y = np.empty((4, x.size), x.dtype)
    _elementary(x, y)
    return dict(zip(("exp", "expm1", "log1p", "erf"), y, strict=True))


def ulps(got, exact):
    """Distance from `exact` (a wider type) in units in the last place that `exact` has in the type of `got`.

    Where the rounded exact value is infinite or NaN, the distance is 0 for the same value and infinite for another one.
    """
    form = np.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded = exact.astype(got.dtype)
        magnitude = np.maximum(np.abs(exact), exact.dtype.type(form.tiny))
        unit = np.ldexp(exact.dtype.type(1), np.frexp(magnitude)[1] - 1 - form.nmant)
        distance = np.abs(got.astype(exact.dtype) - exact) / unit
    special = ~np.isfinite(rounded)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    return np.where(special | np.isinf(got) | np.isnan(got), np.where(same, 0.0, np.inf), distance.astype(np.float64))


def wide_sigmoid(x):
    with np.errstate(all="ignore"):
        return np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x)))


WIDE = {"tanh": np.tanh, "sigmoid": wide_sigmoid}

# Every formula once more, in mpmath's arithmetic.
EXACT = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "linear": lambda x: x,
    "relu": lambda x: max(x, mpmath.mpf(0)),
    "hard_sigmoid": lambda x: min(max(x / 6 + mpmath.mpf("0.5"), mpmath.mpf(0)), mpmath.mpf(1)),
    "softsign": lambda x: x / (1 + abs(x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
    "elu": lambda x: x if x > 0 else mpmath.expm1(x),
    "selu": lambda x: (
        mpmath.mpf("1.0507009873554804934193349852946")
        * (x if x > 0 else mpmath.mpf("1.6732632423543772848170429916717") * mpmath.expm1(x))
    ),
    "exponential": mpmath.exp,
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "gelu": lambda x: x * mpmath.ncdf(x),
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log1p": mpmath.log1p,
    "erf": mpmath.erf,
}


def exact(name, x):
    """Values of `EXACT` for an array of floats, rounded once, to float64."""
    with mpmath.workdps(50):
        return np.array([float(EXACT[name](mpmath.mpf(float(v)))) for v in x])


def sample(dtype, count, seed=0):
    """Floats of all magnitudes that matter: near zero, around one, and up to where exp under- and overflows."""
    rng = np.random.default_rng(seed)
    limit = 100.0 if dtype == np.float32 else 740.0
    sign = rng.choice([-1.0, 1.0], count)
    parts = [
        sign * np.ldexp(rng.uniform(0.5, 1.0, count), rng.integers(-40, 3, count)),
        rng.uniform(-4.0, 4.0, count),
        rng.uniform(-limit, limit, count),
    ]
    return np.concatenate(parts).astype(dtype)


# ------------------------------------------------------------------------------------------------------- Vec and memory


@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_tails_touch_nothing_beyond(dtype):
    width = lane_count(dtype)
    x = np.arange(1, 2 * width + 1, dtype=dtype)
    x[width:] = np.nan
    for n in range(width + 1):
        y = np.full(2 * width, -5.0, dtype)
        _copy(x, y, n)
        np.testing.assert_array_equal(y[:n], x[:n])
        np.testing.assert_array_equal(y[n:], -5.0)
        source = x.copy()
        source[n:] = np.nan
        _load_partly_store_whole(source, y, n)
        np.testing.assert_array_equal(y[:n], x[:n])
        np.testing.assert_array_equal(y[n:width], 0.0)
        np.testing.assert_array_equal(y[width:], -5.0)


def test_no_pointer_to_an_array_with_gaps():
    x = np.ones(8)
    for other in (x[::2], x[::-1]):
        with pytest.raises(numba.TypingError, match=r"pointer needs a C-contiguous array, got array\(float64, 1d, A\)"):
            _copy(other, x, 4)
    with pytest.raises(numba.TypingError, match=r"pointer needs a C-contiguous array, got array\(float64, 2d, F\)"):
        _copy(np.ones((3, 2)).T, x, 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_loads_and_stores_need_no_alignment(dtype):
    width = lane_count(dtype)
    x = np.arange(3 * width, dtype=dtype)
    for start in range(width):
        y = np.full(3 * width, -5.0, dtype)
        target = width - start
        _copy_from(x, y, start, target)
        np.testing.assert_array_equal(y[target : target + width], x[start : start + width])
        np.testing.assert_array_equal(np.delete(y, np.arange(target, target + width)), -5.0)


GUARDED = """
import ctypes, mmap
import numpy as np
from numbarnn.simd import load_n, pointer, store_n, vector_bytes
from numbarnn.jit import njit

@njit
def copy(x, y, n):
    store_n(pointer(y), 0, n, load_n(pointer(x), 0, n))

page = mmap.PAGESIZE
def before_a_wall():
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) == 0
    return np.frombuffer(memory, np.uint8, page)

source, target = before_a_wall(), before_a_wall()
for dtype in (np.float32, np.float64):
    size = np.dtype(dtype).itemsize
    for n in range(1, vector_bytes() // size + 1):
        x, y = source[page - n * size:].view(dtype), target[page - n * size:].view(dtype)
        x[:] = np.arange(1, n + 1)
        y[:] = 0
        copy(x, y, n)
        assert (y == x).all()
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs mprotect")
def test_tails_at_the_end_of_the_memory(tmp_path):
    script = tmp_path / "guarded.py"
    script.write_text(GUARDED)
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env={**os.environ, **in_tree()})
    assert result.returncode == 0 and "done" in result.stdout, result.stderr


def in_tree():
    """Environment in which a child process finds the package that this one tests."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(simd_math.__file__)))
    return {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


@pytest.mark.parametrize("dtype", DTYPES)
def test_operators_against_numpy(dtype, rng):
    size = 3 * lane_count(dtype) + 1
    a, b, c = (rng.standard_normal(size).astype(dtype) for _ in range(3))
    b[::5] = a[::5]
    a[1::7] = np.nan
    b[2::7] = np.nan
    a[3], b[3] = np.inf, -np.inf
    a[4], b[4] = -0.0, 0.0
    out = np.empty((15, size), dtype)
    _operators(a, b, c, out)
    # fma, row 5, is checked by itself below
    with np.errstate(all="ignore"):
        quotient, total = a / b, a + b
    expected = {
        0: total,
        1: a - b,
        2: a * b,
        3: quotient,
        4: -a,
        6: a < b,
        7: a <= b,
        8: a > b,
        9: a >= b,
        10: a == b,
        11: a != b,
        12: np.where(a < b, a, c),
        13: np.full(size, 0.1, dtype),
        14: np.repeat(a[:: lane_count(dtype)], lane_count(dtype))[:size],
    }
    for row, values in expected.items():
        np.testing.assert_array_equal(out[row], values.astype(dtype), err_msg=f"row {row}")
    assert np.signbit(out[4][4]) == 0 and np.signbit(out[0][4]) == 0
    scalar = np.empty_like(out)
    _operators_scalar(a, b, c, scalar)
    np.testing.assert_array_equal(scalar[[5, 6, 12, 13]], out[[5, 6, 12, 13]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_fma_rounds_once_where_the_target_can(dtype):
    eps = dtype(2.0 ** -(np.finfo(dtype).nmant // 2 + 2))
    size = lane_count(dtype)
    a, b, c = np.full(size, 1 + eps), np.full(size, 1 - eps), np.full(size, dtype(-1))
    out = np.empty((15, size), dtype)
    _operators(a, b, c, out)
    assert a.dtype == dtype and a[0] * b[0] == 1
    np.testing.assert_array_equal(out[5], -eps * eps if has_fma() else 0)
    assert fma(a, b, c).dtype == dtype  # plain Python


def test_plain_python_forms():
    x = np.array([1.0, -2.0], np.float32)
    assert like(x, 0.1).dtype == np.float32 and like(x, 0.1) == np.float32(0.1)
    np.testing.assert_array_equal(where(x > 0, x, like(x, 0.0)), [1.0, 0.0])
    with pytest.raises(NotImplementedError, match="load_n.*not usable in pure-python"):
        load_n(None, 0, 1)


# ------------------------------------------------------------------------------------------------------------- accuracy


@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_float32_pair_over_all_bit_patterns(name):
    """Every 431st of the 2**32 patterns: about ten million floats, denormals, infinities and NaN among them."""
    patterns = np.arange(0, 2**32, 431, dtype=np.uint64).astype(np.uint32).view(np.float32)
    worst = 0.0
    for x in np.array_split(patterns, 40):
        with np.errstate(invalid="ignore"):  # signalling NaNs
            wide = x.astype(np.float64)
        distance = ulps(activated(name, x), WIDE[name](wide))
        worst = max(worst, distance.max())
        assert worst <= 4.0, (name, x[distance.argmax()], worst)
    assert worst > 0.5  # the oracle is not the function itself


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no wider than double here")
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_float64_pair_over_all_magnitudes(name):
    rng = np.random.default_rng(1)
    count = 400_000
    sign = rng.choice([-1.0, 1.0], count)
    for x in (
        np.where(sign > 0, 1, -1) * rng.integers(0, 2**63, count),  # bit patterns
        sign * np.ldexp(rng.uniform(0.5, 1.0, count), rng.integers(-60, 11, count)),
        rng.uniform(-3.0, 3.0, count),
        rng.uniform(-760.0, 40.0, count),
    ):
        x = x.view(np.float64)
        with np.errstate(invalid="ignore"):
            wide = x.astype(np.longdouble)
        distance = ulps(activated(name, x), WIDE[name](wide))
        assert distance.max() <= 4.0, (name, x[distance.argmax()], distance.max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tanh", "sigmoid"])
def test_pair_against_mpmath(name, dtype):
    x = sample(dtype, 700)
    # in units of the type's spacing; the references are rounded to float64, which costs half a unit there
    assert ulps(activated(name, x), exact(name, x).astype(np.longdouble)).max() <= 4.0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n in EXACT if n not in ("tanh", "sigmoid")])
def test_other_functions_against_mpmath(name, dtype):
    x = sample(dtype, 250)
    if name == "log1p":
        x = x[x > -1.0]
    if name in ("exp", "expm1", "exponential"):
        x = x[x < (88.7 if dtype == np.float32 else 709.7)]
    got = activated(name, x) if name in ACTIVATIONS else elementary(x)[name]
    expected = exact(name, x)
    form = np.finfo(dtype)
    bound = 1e-6 if dtype == np.float32 else 1e-13
    # relative, and for denormal results one unit in the last place
    excess = np.abs(got - expected) / (np.abs(expected) * bound + 2.0 * float(form.smallest_subnormal))
    assert excess.max() <= 1.0, (x[excess.argmax()], got[excess.argmax()], expected[excess.argmax()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_at_the_edge_of_the_denormals(dtype):
    low = math.log(float(np.finfo(dtype).smallest_subnormal))
    x = np.linspace(low - 1.5, low + 20.0, 400).astype(dtype)
    for name in ("sigmoid", "exponential", "softplus"):
        got = activated(name, x)
        expected = exact(name, x)
        assert ulps(got, expected.astype(np.longdouble)).max() <= 4.0
        denormal = expected < np.finfo(dtype).tiny
        assert np.abs(got - expected)[denormal].max() <= 1.01 * float(np.finfo(dtype).smallest_subnormal)
        assert got[0] == 0.0 and got[-1] > 0.0
    for name in ("silu", "gelu"):
        x = np.linspace(-40.0 if name == "gelu" else low - 10.0, -5.0, 400).astype(dtype)
        expected = exact(name, x)
        allowed = np.abs(expected) * (1e-6 if dtype == np.float32 else 1e-13) + 2 * np.finfo(dtype).smallest_subnormal
        assert (np.abs(activated(name, x) - expected) <= allowed).all()


LIMITS = {  # at -inf, -0.0, 0.0, inf
    "tanh": (-1.0, -0.0, 0.0, 1.0),
    "sigmoid": (0.0, 0.5, 0.5, 1.0),
    "linear": (-np.inf, -0.0, 0.0, np.inf),
    "relu": (0.0, 0.0, 0.0, np.inf),
    "hard_sigmoid": (0.0, 0.5, 0.5, 1.0),
    "softsign": (-1.0, -0.0, 0.0, 1.0),
    "softplus": (0.0, math.log(2.0), math.log(2.0), np.inf),
    "elu": (-1.0, -0.0, 0.0, np.inf),
    "selu": (-1.7580993408473766, -0.0, 0.0, np.inf),
    "exponential": (0.0, 1.0, 1.0, np.inf),
    "silu": (-0.0, -0.0, 0.0, np.inf),
    "gelu": (-0.0, -0.0, 0.0, np.inf),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits_zeros_and_nan(name, dtype):
    limits = np.array(LIMITS[name], dtype)
    x = np.array([-np.inf, -0.0, 0.0, np.inf], dtype)
    info = ACTIVATIONS[name]
    got, scalar = activated(name, x), np.empty(4, dtype)
    _activate_scalar(info.code, x, scalar, np.empty(4, dtype))
    for values in (got, scalar, info.function(x)):
        np.testing.assert_allclose(values, limits, rtol=4 * np.finfo(dtype).eps)
    if name in ("tanh", "softsign", "elu", "selu", "silu", "gelu", "linear"):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(limits))
    # NaN stays, with any payload and sign, in any lane
    kind = np.uint32 if dtype == np.float32 else np.uint64
    quiet = np.array([np.nan], dtype).view(kind)[0]
    nan = np.array([quiet + kind(k) for k in (0, 1, 2, 3, 0x100, 0x1FF, 0x3FFFF)], kind).view(dtype)
    for values in (nan, -nan):
        assert np.isnan(activated(name, values)).all()
        assert np.isnan(info.function(values)).all()


def test_limits_of_the_elementary_functions():
    for dtype in DTYPES:
        x = np.array([-np.inf, -2.0, -1.0, -0.0, 0.0, np.inf, np.nan, np.finfo(dtype).max, -np.finfo(dtype).max], dtype)
        got = elementary(x)
        inf, nan = np.inf, np.nan
        for name, expected in {
            "exp": [0, np.exp(-2.0), np.exp(-1.0), 1, 1, inf, nan, inf, 0],
            "expm1": [-1, np.expm1(-2.0), np.expm1(-1.0), -0.0, 0, inf, nan, inf, -1],
            "log1p": [nan, nan, -inf, -0.0, 0, inf, nan, np.log(float(np.finfo(dtype).max)), nan],
            "erf": [-1, math.erf(-2), math.erf(-1), -0.0, 0, 1, nan, 1, -1],
        }.items():
            np.testing.assert_allclose(got[name], np.array(expected, dtype), rtol=1e-6, err_msg=name)
            assert np.signbit(got[name][3]) == (name != "exp")
        tiny = np.array([np.finfo(dtype).smallest_subnormal, -np.finfo(dtype).tiny], dtype)
        for name in ("expm1", "log1p"):
            np.testing.assert_array_equal(elementary(tiny)[name], tiny)
        np.testing.assert_array_equal(activated("tanh", tiny), tiny)


def test_tanh_is_odd_and_saturates_exactly():
    for dtype, limit in ((np.float32, 9.02), (np.float64, 19.1)):
        x = np.abs(sample(dtype, 5000))
        y = activated("tanh", x)
        np.testing.assert_array_equal(activated("tanh", -x), -y)
        assert y.max() == 1.0 and (y[x > limit] == 1.0).all()
        assert (activated("sigmoid", 2 * x[x > limit]) == 1.0).all()


# --------------------------------------------------------------------------------------------------------------- slopes


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_against_finite_differences(name):
    info = ACTIVATIONS[name]
    x = np.linspace(-6.0, 6.0, 301)
    x = x[np.abs(np.abs(x) - 3.0) > 1e-3]
    x = x[np.abs(x) > 1e-3]
    h = 1e-5
    difference = (activated(name, x + h) - activated(name, x - h)) / (2 * h)
    saved = activated(name, x) if info.derivative_from == "output" else x
    scale = np.maximum(1.0, np.abs(difference))
    assert (np.abs(slopes(name, saved) - difference) / scale).max() < 1e-9
    assert (np.abs(info.slope(saved) - difference) / scale).max() < 1e-9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slopes_against_mpmath(name, dtype):
    """Absolute accuracy from the rounded output (or the input): slopes have zeros, and the outputs are rounded."""
    info = ACTIVATIONS[name]
    x = np.concatenate([sample(dtype, 40), np.linspace(-20, 20, 61, dtype=dtype)])
    x = x[(np.abs(x) > 1e-6) & (np.abs(np.abs(x) - 3.0) > 1e-3) & (x < 80.0)]
    with mpmath.workdps(40):
        expected = np.array([float(mpmath.diff(EXACT[name], mpmath.mpf(float(v)), h=mpmath.mpf(10) ** -12)) for v in x])
    saved = exact(name, x).astype(dtype) if info.derivative_from == "output" else x
    bound = 1e-6 if dtype == np.float32 else 2e-15
    error = np.abs(slopes(name, saved) - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() <= bound, (x[error.argmax()], error.max())


def test_slopes_at_the_kinks():
    zero = np.zeros(1)
    assert slopes("relu", zero) == 0.0
    np.testing.assert_array_equal(slopes("hard_sigmoid", np.array([0.0, 0.5, 1.0])), [0.0, 1 / 6, 0.0])
    assert slopes("elu", zero) == 1.0
    np.testing.assert_allclose(slopes("selu", zero), 1.7580993408473766)  # the exponential's side, as PyTorch has it
    np.testing.assert_array_equal(slopes("hard_sigmoid", activated("hard_sigmoid", np.array([-3.0, 3.0]))), [0.0, 0.0])
    np.testing.assert_array_equal(ACTIVATIONS["hard_sigmoid"].slope(np.array([0.0, 0.5, 1.0])), [0.0, 1 / 6, 0.0])


@pytest.mark.parametrize("name", ["silu", "gelu"])
def test_slopes_from_the_input_at_its_limits(name):
    for dtype in DTYPES:
        x = np.array([-np.inf, -1e4, 0.0, 1e4, np.inf, np.nan], dtype)
        expected = [0.0, 0.0, 0.5, 1.0, 1.0, np.nan]
        np.testing.assert_allclose(slopes(name, x), np.array(expected, dtype), rtol=2e-7)
        np.testing.assert_array_equal(ACTIVATIONS[name].slope(x), np.array(expected, dtype))


# ---------------------------------------------------------------------------------------------- one formula, three ways


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_scalars_have_the_bits_of_vectors(name, dtype):
    x = sample(dtype, 300)
    code = ACTIVATIONS[name].code
    y, slope = np.empty_like(x), np.empty_like(x)
    _activate_scalar(code, x, y, slope)
    np.testing.assert_array_equal(activated(name, x), y)
    np.testing.assert_array_equal(slopes(name, x), slope)


@pytest.mark.parametrize("dtype", DTYPES)
def test_names_and_codes_give_the_same_bits(dtype):
    x = sample(dtype, 300)
    y = np.empty((2, x.size), dtype)
    _named(x, y)
    np.testing.assert_array_equal(y[0], activated("tanh", x))
    np.testing.assert_array_equal(y[1], activated("sigmoid", x))
    scalar = np.empty((4, x.size), dtype)
    _elementary_scalar(x, scalar)
    for row, values in zip(scalar, elementary(x).values(), strict=True):
        np.testing.assert_array_equal(row, values)


@pytest.mark.parametrize("dtype", [np.float16, *DTYPES])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_plain_python(name, dtype):
    info = ACTIVATIONS[name]
    x = sample(np.float32, 60).astype(dtype)
    if name == "exponential":
        x = np.minimum(x, dtype(10.0))
    with warnings.catch_warnings(), np.errstate(over="raise", divide="raise", invalid="raise"):
        warnings.simplefilter("error")
        y = info.function(x)
        slope = info.slope(y if info.derivative_from == "output" else x)
        assert info.function(x.reshape(2, -1)[:, :3]).shape == (2, 3)
    assert y.dtype == slope.dtype == dtype and y.shape == slope.shape == x.shape
    np.testing.assert_array_equal(activate(info.code, x), y)
    np.testing.assert_array_equal(activation_slope(info.code, y if info.derivative_from == "output" else x), slope)
    expected = exact(name, x)
    # formulas without bit tricks run in the array's own type; the others round once
    relative = 3e-13 if name == "gelu" and dtype == np.float64 else 4 * np.finfo(dtype).eps  # SciPy's accuracy
    smallest = float(np.finfo(dtype).smallest_subnormal)
    allowed = relative * np.abs(expected) + 2.0 * smallest * np.maximum(1.0, np.abs(x))
    assert (np.abs(y - expected) <= allowed).all()
    assert type(info.function(dtype(0.5))) is dtype
    assert isinstance(info.function(0.5), float) and isinstance(float(info.function(1)), float)


def test_integers_become_float64_in_kernels():
    assert _of_integer(1) == activated("tanh", np.ones(1))[0]


def test_table():
    assert list(ACTIVATIONS)[:2] == ["tanh", "sigmoid"]
    assert [info.code for info in ACTIVATIONS.values()] == list(range(len(ACTIVATIONS)))
    from_input = {name for name, info in ACTIVATIONS.items() if info.derivative_from == "input"}
    assert from_input == {"silu", "gelu"}
    for function in (activate, activation_slope):
        with pytest.raises(ValueError, match="code must be one of the codes in ACTIVATIONS .*got 99"):
            function(99, np.zeros(2))
    for dtype in DTYPES:
        x = np.linspace(-1, 1, 40, dtype=dtype)
        assert np.isnan(run(_activate, len(ACTIVATIONS), x)).all() and np.isnan(run(_activate, -1, x)).all()
        assert np.isnan(run(_slope, 99, x)).all()


def test_without_jit():
    program = (
        "import numpy as np; from numbarnn import simd_math as m; x = np.linspace(-3, 3, 7, dtype='f4');"
        "print(all(i.function(x).dtype == x.dtype and i.slope(x).dtype == x.dtype for i in m.ACTIVATIONS.values()),"
        "abs(m.sigmoid(x) - 1 / (1 + np.exp(-x))).max() < 1e-6)"
    )
    env = {**os.environ, **in_tree(), "NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert result.stdout.split() == ["True", "True"], result.stderr


# ------------------------------------------------------------------------------------------------------- generated code


def compiled(kernel, *args):
    """LLVM and machine code of a kernel, compiled anew (what comes from the cache carries no text)."""
    fresh = numba.njit(nogil=True, error_model="numpy")(kernel.py_func)
    fresh(*args)
    (llvm,) = fresh.inspect_llvm().values()
    (machine,) = fresh.inspect_asm().values()
    return llvm, machine


@njit
def _library_tanh(x, y):
    for i in range(x.shape[0]):
        y[i] = math.tanh(x[i])


def test_generated_code_of_float32_kernels():
    x = np.zeros(5, np.float32)
    y = np.empty((4, 5), np.float32)
    for kernel, args in ((_activate, (0, x, y[0])), (_slope, (0, x, y[0])), (_elementary, (x, y))):
        llvm, machine = compiled(kernel, *args)
        doubles = re.findall(r"^.*= (?:fadd|fsub|fmul|fdiv|fneg|fcmp|fpext|fptrunc|sitofp).*\bdouble\b.*$", llvm, re.M)
        assert not doubles
        assert not re.findall(r"<\d+ x double>", llvm)
        assert not re.findall(SCALAR_LIBRARY, machine)
        assert re.findall(r"= fdiv (?:<\d+ x )?float", llvm) or kernel is _slope
    _, machine = compiled(_library_tanh, x, x.copy())
    assert re.findall(SCALAR_LIBRARY, machine)  # the search would find one


NARROW = """
import numpy as np
from numbarnn.jit import njit
from numbarnn.simd import has_fma, lanes, load_n, pointer, store_n, vector_bytes
from numbarnn.simd_math import sigmoid, tanh

@njit(cache=False)
def run(x, y):
    size = x.shape[0]
    for i in range(0, size, lanes(x)):
        v = load_n(pointer(x), i, size - i)
        store_n(pointer(y), i, size - i, tanh(v))
        store_n(pointer(y), size + i, size - i, sigmoid(v))

x = np.random.default_rng(0).uniform(-105, 20, 100000).astype(np.float32)
x[::2] /= 20
y = np.empty((2, x.size), np.float32)
run(x, y)
wide = x.astype(np.float64)
worst = []
for got, exact in zip(y, (np.tanh(wide), 1 / (1 + np.exp(-wide)))):
    spacing = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32))
    worst.append(float((np.abs(got - exact) / spacing).max()))
(machine,) = run.inspect_asm().values()
print(vector_bytes(), has_fma(), max(worst) <= 4.0, "zmm" in machine, "ymm" in machine, "fmaf" in machine)
"""


@pytest.mark.skipif(vector_bytes() < 32, reason="needs an x86 machine with AVX2")
@pytest.mark.parametrize(
    "cpu, features, expected",
    [
        ("haswell", "+avx,+avx2,+fma", ["32", "True", "True", "False", "True", "False"]),
        ("generic", "", ["16", "False", "True", "False", "False", "False"]),
    ],
)
def test_narrow_targets(tmp_path, cpu, features, expected):
    script = tmp_path / "narrow.py"
    script.write_text(NARROW)
    env = {**os.environ, **in_tree(), "NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": features}
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, env=env)
    assert result.stdout.split() == expected, result.stdout + result.stderr


# -------------------------------------------------------------------------------------------------------------- oracles


@pytest.mark.parity
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_against_keras_on_torch(name):
    """Values and gradients, the kinks and their neighbourhood included."""
    torch = pytest.importorskip("torch")
    keras = pytest.importorskip("keras")
    x = np.concatenate([sample(np.float32, 200), np.array([0.0, -3.0, 3.0], np.float32)])
    x = x[x < 80]
    symbol = torch.tensor(x, requires_grad=True)
    value = getattr(keras.activations, name)(symbol)
    value.sum().backward()
    y = activated(name, x)
    # Keras computes gelu as x (1 + erf(..)) / 2, which cancels for negative x
    np.testing.assert_allclose(y, value.detach().numpy(), rtol=3e-6, atol=2e-6 if name == "gelu" else 1e-7)
    slope = slopes(name, y if ACTIVATIONS[name].derivative_from == "output" else x)
    np.testing.assert_allclose(slope, symbol.grad.numpy(), rtol=3e-6, atol=1e-6)
