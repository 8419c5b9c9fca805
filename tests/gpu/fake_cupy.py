"""A strict stand-in for CuPy over NumPy, for tests on machines that have no GPU.

Use it with ``numbarnn.cuda.use_array_module(fake_cupy)``. It is stricter than convenient, as CuPy is:

- its `ndarray` is no NumPy array and does not become one unasked;
- it does not mix with NumPy's arrays, but with numbers;
- there are only the functions, ufuncs and methods that CuPy has and that are named below; where CuPy is installed,
  every call must fit the signature of CuPy's function: what only NumPy takes is refused;
- an index array may point outside: it wraps around, and nobody is told;
- what is not initialised holds NaN, or a number that is no sensible index;
- `moves` counts what goes in and comes out.
"""

import builtins
import inspect
from functools import cache, wraps
from typing import NamedTuple

import numpy as np

try:
    import cupy as real
except ImportError:
    real = None

_SCALARS = (bool, int, float, complex, np.generic)
_POISON = 0x5A5A5A5A


class Move(NamedTuple):
    """One transfer: "in" or "out", and the shape."""

    way: str
    shape: tuple


moves = []


class TransferError(TypeError):
    """An array would have been moved that nobody asked to move."""


def _refuse(x):
    raise TransferError(f"Unsupported type {type(x)}: fake CuPy does not mix with NumPy's arrays, got shape {x.shape}")


def _unwrap(x):
    if isinstance(x, ndarray):
        return x._a
    if isinstance(x, np.ndarray):
        _refuse(x)
    if isinstance(x, (list, tuple)):
        return type(x)(map(_unwrap, x))
    return x


def _wrapped(key, shape):
    """Return a key whose index arrays point inside."""
    of_each = [part.ndim if isinstance(part, np.ndarray) and part.dtype == bool else part is not None for part in key]
    result, axis = [], 0
    for part, axes in zip(key, of_each, strict=True):
        if part is Ellipsis:
            axes = len(shape) - (builtins.sum(of_each) - 1)
        elif isinstance(part, np.ndarray) and part.dtype.kind in "iu":
            part = part % (shape[axis] or 1)
        result.append(part)
        axis += axes
    return tuple(result)


def _wrap(x):
    if isinstance(x, (list, tuple)):
        return type(x)(map(_wrap, x))
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(np.asarray(x))
    return x


@cache
def _signature(name, owner=None):
    try:
        return inspect.signature(getattr(owner or real, name))
    except (ValueError, TypeError):  # of Cython's functions, some tell
        return None


class ndarray:  # noqa: N801 - CuPy's name
    """An array on the GPU that is none."""

    __hash__ = None
    __slots__ = ("__weakref__", "_a")

    def __init__(self, array):
        self._a = array

    # -- what it never does ---------------------------------------------------------------------------------------

    def __array__(self, dtype=None, copy=None):
        raise TransferError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    # -- the two protocols ----------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        if method != "__call__" or ufunc.__name__ not in _UFUNCS:
            raise TypeError(f"fake CuPy has no {ufunc.__name__}.{method}")
        if set(options) - {"dtype", "casting"}:
            raise TypeError(f"fake CuPy's {ufunc.__name__} does not take {sorted(options)}")
        if out is not None:
            options["out"] = _unwrap(out)
        return _wrap(ufunc(*map(_unwrap, inputs), **options))

    def __array_function__(self, function, types, args, kwargs):
        name = function.__name__
        if name not in _FUNCTIONS or function.__module__ != "numpy":
            raise TypeError(f"fake CuPy has no {function.__module__}.{name}")
        return globals()[name](*args, **kwargs)

    # -- attributes -----------------------------------------------------------------------------------------------

    @property
    def in_simulator(self):
        """The array that kernels in Numba's simulator get."""
        return self._a if self._a.flags.writeable else self._a.copy()  # CuPy has no read-only views

    @property
    def T(self):  # noqa: N802
        return ndarray(self._a.T)

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    nbytes = property(lambda self: self._a.nbytes)
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: self._a.flags)

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return f"<fake GPU array {self.dtype}{self.shape}>"

    # -- places ---------------------------------------------------------------------------------------------------

    def __getitem__(self, key):
        key = _unwrap(key) if isinstance(key, tuple) else (_unwrap(key),)
        if not builtins.any(part is Ellipsis for part in key):
            key = (*key, Ellipsis)  # an element is an array without axes, and a view
        return ndarray(self._a[_wrapped(key, self.shape)])

    def __setitem__(self, key, value):
        value = _unwrap(value)
        if not isinstance(value, _SCALARS) and not isinstance(value, np.ndarray):
            raise TypeError(f"fake CuPy assigns arrays and numbers, got {type(value)}")
        self._a[_unwrap(key)] = value

    # -- what comes out -------------------------------------------------------------------------------------------

    def get(self):
        moves.append(Move("out", self.shape))
        return self._a.copy()

    def item(self):
        moves.append(Move("out", self.shape))
        return self._a.item()

    def tolist(self):
        moves.append(Move("out", self.shape))
        return self._a.tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __bool__(self):
        return bool(self.item())

    def __index__(self):
        return self.get().__index__()

    # -- methods --------------------------------------------------------------------------------------------------

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        return ndarray(self._a.astype(dtype, order=order, copy=copy))

    def fill(self, value):
        self._a.fill(value)

    def view(self, dtype=None):
        return ndarray(self._a.view() if dtype is None else self._a.view(dtype))


def _method(name):
    def method(self, *args, **kwargs):
        if real is not None and (signature := _signature(name, real.ndarray)) is not None:
            signature.bind(self, *args, **kwargs)
        return _wrap(getattr(self._a, name)(*map(_unwrap, args), **{k: _unwrap(v) for k, v in kwargs.items()}))

    return method


for _name in (
    "all", "any", "argmax", "argmin", "argsort", "clip", "copy", "cumprod", "cumsum", "dot", "max", "mean", "min",
    "prod", "ravel", "repeat", "reshape", "round", "squeeze", "std", "sum", "swapaxes", "take", "transpose", "var",
):  # fmt: skip
    setattr(ndarray, _name, _method(_name))

_BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}  # fmt: skip
_COMPARE = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
}  # fmt: skip


def _operator(ufunc, kind):
    def method(self, other):
        if not isinstance(other, (ndarray, np.ndarray, *_SCALARS)):
            return NotImplemented
        if kind == "in place":
            self.__array_ufunc__(ufunc, "__call__", self, other, out=(self,))
            return self
        return self.__array_ufunc__(ufunc, "__call__", *((other, self) if kind == "reflected" else (self, other)))

    return method


for _name, _ufunc in {**_BINARY, **_COMPARE}.items():
    setattr(ndarray, f"__{_name}__", _operator(_ufunc, "plain"))
    if _name in _BINARY:
        setattr(ndarray, f"__r{_name}__", _operator(_ufunc, "reflected"))
        setattr(ndarray, f"__i{_name}__", _operator(_ufunc, "in place"))
for _name, _ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
    setattr(ndarray, f"__{_name}__", lambda self, ufunc=_ufunc: self.__array_ufunc__(ufunc, "__call__", self))

_UFUNCS = {
    "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "bitwise_and",
    "bitwise_or", "bitwise_xor", "ceil", "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "floor",
    "floor_divide", "greater", "greater_equal", "invert", "isfinite", "isinf", "isnan", "less", "less_equal", "log",
    "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "matmul",
    "maximum", "minimum", "multiply", "negative", "not_equal", "power", "reciprocal", "remainder", "rint", "sign",
    "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh", "trunc",
}  # fmt: skip
_FUNCTIONS = {
    "all", "any", "argmax", "argmin", "argsort", "broadcast_to", "clip", "concatenate", "copy", "count_nonzero",
    "cumprod", "cumsum", "empty_like", "expand_dims", "flip", "full_like", "isclose", "max", "mean", "min",
    "moveaxis", "nan_to_num", "ndim", "ones_like", "pad", "prod", "ravel", "repeat", "reshape", "roll", "round",
    "shape", "size", "sort", "squeeze", "stack", "sum", "swapaxes", "take", "take_along_axis", "transpose", "tril",
    "triu", "where", "zeros_like",
}  # fmt: skip


def _function(name):
    numpys = getattr(np, name)

    @wraps(numpys)
    def function(*args, **kwargs):
        if real is not None and (signature := _signature(name)) is not None:
            signature.bind(*args, **kwargs)
        return _wrap(numpys(*map(_unwrap, args), **{key: _unwrap(value) for key, value in kwargs.items()}))

    return function


for _name in _UFUNCS | _FUNCTIONS:
    globals()[_name] = _function(_name)


def take_along_axis(a, indices, axis):
    """Wrap around."""
    return ndarray(np.take_along_axis(_unwrap(a), _unwrap(indices) % a.shape[axis], axis))


# -- arrays made from nothing, and brought in ------------------------------------------------------------------------


def empty(shape, dtype=float):
    dtype = np.dtype(dtype)
    return ndarray(np.full(shape, np.nan if dtype.kind == "f" else _POISON % (1 << (8 * dtype.itemsize - 1)), dtype))


def zeros(shape, dtype=float):
    return ndarray(np.zeros(shape, dtype))


def ones(shape, dtype=float):
    return ndarray(np.ones(shape, dtype))


def full(shape, fill_value, dtype=None):
    return ndarray(np.full(shape, fill_value, dtype))


def arange(start, stop=None, step=1, dtype=None):
    return ndarray(np.arange(start, stop, step, dtype) if stop is not None else np.arange(0, start, step, dtype))


def asarray(a, dtype=None, order=None):
    if isinstance(a, ndarray):
        return ndarray(np.asarray(a._a, dtype, order))
    moves.append(Move("in", np.shape(a)))
    return ndarray(np.array(a, dtype, order=order or "K"))


def ascontiguousarray(a, dtype=None):
    if not isinstance(a, ndarray):
        moves.append(Move("in", np.shape(a)))
    return ndarray(np.ascontiguousarray(_unwrap(a) if isinstance(a, ndarray) else a, dtype))


def asnumpy(a):
    return a.get()


def erf(x):
    from scipy import special  # CuPy has it as cupyx.scipy.special.erf

    return ndarray(special.erf(x._a))


def array(obj, dtype=None, copy=True, order="K"):
    if isinstance(obj, ndarray):
        return ndarray(np.array(obj._a, dtype, order=order))
    moves.append(Move("in", np.shape(obj)))
    return ndarray(np.array(obj, dtype, order=order))
