"""What symbolic tensors and variables have in common: operators, array methods and NumPy's two protocols.

Everything ends in the tables below, which `numbarnn.ops` fills when it is imported. This file lies beneath the ops,
so that `Variable` (floor 1) can have operators without importing upwards.
"""

import os
import sys
import threading

import numpy as np

OPERATIONS = {}  # name -> operation, for operators and methods
UFUNCS = {}  # np.ufunc -> operation
FUNCTIONS = {}  # NumPy function -> operation taking that function's arguments

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_WAY_OUT = "write it with functions of numbarnn.ops"
_NUMPY = os.path.dirname(os.path.abspath(np.__file__)) + os.sep


class _Local(threading.local):
    trace = None  # the innermost active trace of this thread
    on_gpu = False  # whether values of variables are read on the GPU


local = _Local()


class TracedValueError(TypeError):
    """A traced value was used where a number is needed that does not exist yet."""


def user_frame():
    """Return ``(file name, line number)`` of the innermost stack frame outside numbarnn and NumPy."""
    frame = inner = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_PACKAGE, _NUMPY, "<")):
            return name, frame.f_lineno
        frame = frame.f_back
    return inner.f_code.co_filename, inner.f_lineno


def user_line():
    """Return ``file:line`` of the user's code that led here."""
    return "{}:{}".format(*user_frame())


def _name_of(function):
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module.replace('numpy', 'np', 1)}.{getattr(function, '__name__', function)}"


def _has_tensor(nest):
    """Say whether a symbolic tensor occurs in (lists and tuples of) arguments."""
    if isinstance(nest, (list, tuple)):
        return any(map(_has_tensor, nest))
    return isinstance(nest, ArrayLike) and nest.symbolic


def _values(nest):
    """Replace variables in (lists and tuples of) arguments by their arrays."""
    if isinstance(nest, (list, tuple)):
        return type(nest)(map(_values, nest))
    return nest.value if isinstance(nest, ArrayLike) else nest


class ArrayLike:
    """Base of `Tensor` and `Variable`: operators, methods and NumPy functions become operations.

    Subclasses give ``shape``, ``dtype`` and ``symbolic`` (True where there is no value yet).
    """

    symbolic = True

    # -- what needs a value ---------------------------------------------------------------------------------------

    def _refuse(self, what, way_out):
        raise TracedValueError(
            f"{user_line()}: {what} is not possible while {self!r} has no value yet (the function is being traced: run "
            f"once on symbols, later replayed on arrays). {way_out}"
        )

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, where=True, dtype=None, **options):
        name = f"{'np.' * hasattr(np, ufunc.__name__)}{ufunc.__name__}" + ("" if method == "__call__" else f".{method}")
        if local.trace is None and not _has_tensor(inputs) and not _has_tensor((where,)):
            if out is not None and any(isinstance(o, ArrayLike) for o in out):
                raise TypeError(
                    f"{user_line()}: {name}(..., out=variable): a Variable is read-only; use variable.assign(value)"
                )
            if out is not None:
                options["out"] = out
            if dtype is not None:
                options["dtype"] = dtype
            if where is not True:
                options["where"] = _values(where)
            return getattr(ufunc, method)(*map(_values, inputs), **options)
        if out is not None:
            self._refuse(f"{name}(..., out=...)", "Use the value that it returns instead of out=.")
        if where is not True:
            self._refuse(f"{name}(..., where=...)", "Use ops.where(condition, a, b) instead of where=.")
        if method == "reduce":
            function = _REDUCTIONS.get(ufunc) if set(options) <= {"axis", "keepdims"} else None
            operation, options = function and OPERATIONS[function], {"axis": 0, **options}
        else:
            operation = UFUNCS.get(ufunc) if method == "__call__" and not options else None
        if operation is None:
            raise TypeError(f"{user_line()}: {name} has no entry in numbarnn.ops, so it cannot be traced; {_WAY_OUT}")
        result = operation(*inputs, **options)
        return result if dtype is None else OPERATIONS["cast"](result, dtype)

    def __array_function__(self, function, types, args, kwargs):
        if local.trace is None and not _has_tensor(args) and not _has_tensor(tuple(kwargs.values())):
            return function(*_values(args), **{name: _values(value) for name, value in kwargs.items()})
        if kwargs.get("out") is not None:
            self._refuse(f"{_name_of(function)}(..., out=...)", "Use the value that it returns instead of out=.")
        operation = FUNCTIONS.get(function)
        if operation is None:
            raise TypeError(
                f"{user_line()}: {_name_of(function)} has no entry in numbarnn.ops, so it cannot be traced; {_WAY_OUT}"
            )
        kwargs = {name: value for name, value in kwargs.items() if name != "out"}
        return operation(*args, **kwargs)

    def __getattr__(self, name):
        # Reached only where there is no such attribute.
        if name.startswith("__") or not hasattr(np.ndarray, name) or "shape" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(
            f"{user_line()}: {self!r} is no array and has no {name}; {_WAY_OUT}, which return new values"
        )

    def __setitem__(self, key, value):
        self._refuse(
            "Item assignment", "Use ops.where(condition, a, b), or build the value with ops.concatenate or ops.stack."
        )

    # -- shape ----------------------------------------------------------------------------------------------------

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self):
        """Number of elements; None where an axis has no known length."""
        size = 1
        for n in self.shape:
            if n is None:
                return None
            size *= n
        return size

    @property
    def T(self):  # noqa: N802
        """The axes in reverse order."""
        return OPERATIONS["transpose"](self)

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of an array without axes")
        if self.shape[0] is None:
            self._refuse("len()", "Use ops.shape, or give the batch size.")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over an array without axes")
        if self.shape[0] is None:
            self._refuse(
                "Iterating over an axis of unknown length", "Use ops.split, or an RNN layer to walk over time."
            )
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, key):
        return OPERATIONS["getitem"](self, key)

    # -- array methods --------------------------------------------------------------------------------------------

    def reshape(self, *shape, order="C"):
        """Return the elements in another shape, as ``ndarray.reshape``; order="C" only."""
        if order != "C":
            raise ValueError(f'reshape: order must be "C", got {order!r}')
        return OPERATIONS["reshape"](self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    def transpose(self, *axes):
        """Permute the axes, as ``ndarray.transpose``."""
        axes = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return OPERATIONS["transpose"](self, axes or None)

    def astype(self, dtype):
        """Return the elements as another dtype."""
        return OPERATIONS["cast"](self, dtype)

    def ravel(self):
        """Return the elements along one axis."""
        return OPERATIONS["reshape"](self, (-1,))

    flatten = ravel

    def copy(self):
        """Return the value: nothing here is changed in place, so no copy is needed of a symbol."""
        return self if self.symbolic else OPERATIONS["copy"](self)


# NumPy's pairwise reductions that operations stand for: ``np.add.reduce`` is what ``np.sum`` runs on plain objects.
_REDUCTIONS = {np.add: "sum", np.maximum: "max", np.minimum: "min", np.logical_and: "all", np.logical_or: "any"}

_BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide", "mod": "mod",
    "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
}  # fmt: skip
_COMPARE = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_UNARY = {"neg": "negative", "abs": "abs", "invert": "invert"}
_METHODS = (
    "sum",
    "mean",
    "max",
    "min",
    "any",
    "all",
    "argmax",
    "argmin",
    "cumsum",
    "clip",
    "squeeze",
    "swapaxes",
    "dot",
    "take",
    "var",
    "std",
    "prod",
)
_SCALAR = {
    "bool": "ops.where(condition, a, b)",
    "float": "an operation on it",
    "int": "an operation on it",
    "index": "ops.take",
    "complex": "an operation on it",
}


def _operator(name, reflected=False):
    def method(self, other):
        return OPERATIONS[name](other, self) if reflected else OPERATIONS[name](self, other)

    return method


def _unary(name):
    def method(self, *args, **kwargs):
        return OPERATIONS[name](self, *args, **kwargs)

    method.__name__, method.__doc__ = name, f"As ``numbarnn.ops.{name}`` of this value."
    return method


def _scalar(name, way_out):
    def method(self):
        return self._refuse(f"{name}()", f"Use {way_out} instead of a Python decision on the value.")

    return method


for _name, _op in _BINARY.items():
    setattr(ArrayLike, f"__{_name}__", _operator(_op))
    setattr(ArrayLike, f"__r{_name}__", _operator(_op, reflected=True))
for _name, _op in _COMPARE.items():
    setattr(ArrayLike, f"__{_name}__", _operator(_op))
for _name, _op in _UNARY.items():
    setattr(ArrayLike, f"__{_name}__", _unary(_op))
for _name in _METHODS:
    setattr(ArrayLike, _name, _unary(_name))
for _name, _way_out in _SCALAR.items():
    setattr(ArrayLike, f"__{_name}__", _scalar(_name, _way_out))
ArrayLike.__hash__ = object.__hash__  # by identity, although == compares elements
