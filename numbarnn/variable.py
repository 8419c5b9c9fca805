"""Variables: named arrays that layers own, and the flat buffers that models keep them in.

A `Variable` is a leaf in a traced function (read at every replay, never baked in) and a read-only array everywhere
else. It is changed by `assign` alone, which counts `version` up, so that whoever derives something from its value
(packed weights) sees when that is stale.
"""

import itertools
import weakref

import numpy as np

from .protocols import OPERATIONS, ArrayLike, local, user_line

__all__ = ["ParameterBuffer", "Variable", "default_float", "set_default_float"]

ALIGNMENT = 64  # bytes: one cache line, and the widest vector register
_default_float = np.dtype("float32")
_ticks = itertools.count(1)
_time = 0
_homes = weakref.WeakValueDictionary()  # id of the array that owns a storage -> its Variable or ParameterBuffer
_former = {}  # id of a `value` handed out before its variable moved to another storage -> weak references to both


def clock():
    """Return the time of the last change of what traced programs have baked in: attributes of layers and variables."""
    return _time


def tick():
    """Note such a change; return its time, which is no other's."""
    global _time
    _time = next(_ticks)
    return _time


def default_float():
    """Return the dtype that Python floats become in a new variable."""
    return _default_float


def set_default_float(dtype):
    """Set the dtype that Python floats become in a new variable (``backend.set_floatx`` calls this)."""
    global _default_float
    _default_float = np.dtype(dtype)


def _aligned(size, dtype):
    """Return a one-dimensional zeroed array whose first element lies on a 64-byte boundary."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)


def _owner(array):
    """Return the array whose memory ``array`` looks at."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _as_array(value, dtype):
    if isinstance(value, ArrayLike):
        if value.symbolic:
            raise TypeError(f"{user_line()}: a Variable cannot start from {value!r}, which has no value yet")
        value = value._view
    array = np.asarray(value)
    if dtype is None:
        # Arrays and NumPy scalars know their dtype; Python floats take the default.
        dtype = array.dtype if hasattr(value, "dtype") or array.dtype.kind != "f" else _default_float
    dtype = np.dtype(dtype)
    if dtype.kind not in "fiub":
        raise TypeError(f"a Variable holds numbers or booleans, got dtype {dtype} (value {value!r:.60})")
    return array.astype(dtype, copy=False)


class Variable(ArrayLike):
    """An array with a name, changed only by `assign`.

    Parameters
    ----------
    value : array_like
        The first value; copied.
    trainable : bool
        Whether a model's optimizer changes it.
    name : str, optional
    dtype : dtype, optional
        By default the dtype of ``value``; Python floats take `default_float`.
    regularizer, constraint : callable, optional
        Kept for the model: a penalty on the value; a projection of the value after an update.

    Attributes
    ----------
    path : str
        The name with its layers before it, as ``lstm/lstm_cell/kernel``.
    version : int
        Rises with every change of the value.
    changed_at : int
        The `clock` at the last change of `trainable` or `regularizer`, which programs of models depend on.
    data : ndarray
        The writable C-contiguous storage, for optimizers and kernels only; who writes to it calls `touch`.
    """

    symbolic = False

    def __init__(self, value, *, trainable=True, name=None, dtype=None, regularizer=None, constraint=None):
        array = _as_array(value, dtype)
        self.name = name if name is not None else "variable"
        self.path = self.name
        self._trainable = bool(trainable)
        self._regularizer = regularizer
        self.constraint = constraint
        self.changed_at = 0
        self.version = 0
        self.shape = array.shape
        self.dtype = array.dtype
        data = _aligned(array.size, array.dtype).reshape(array.shape)
        data[...] = array
        self._bind(data, self)

    @property
    def trainable(self):
        """Whether a model's optimizer changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        if self._trainable != bool(value):
            self._trainable = bool(value)
            self.changed_at = tick()

    @property
    def regularizer(self):
        """The penalty on the value, or None."""
        return self._regularizer

    @regularizer.setter
    def regularizer(self, value):
        if self._regularizer is not value:
            self._regularizer = value
            self.changed_at = tick()

    def _bind(self, data, home):
        """Make ``data``, a piece of the memory of ``home``, the storage."""
        if home is not self:
            _remember(self._view, self)
        self.data = data
        view = data.view()
        view.flags.writeable = False
        self._view = view
        _homes[id(_owner(data))] = home

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def value(self):
        """The value as a read-only array, without a copy.

        It shows later assignments until an optimizer takes the variable into its flat storage: do not keep it.
        While a function is traced this is the variable itself: a program reads values when it is replayed.
        """
        return self._view if local.trace is None else self

    def numpy(self):
        """Return a copy of the value."""
        if local.trace is not None:
            self._refuse(".numpy()", "Use the variable itself: operators and np. functions work on it.")
        return self.data.copy()

    def __array__(self, dtype=None, copy=None):
        if local.trace is not None:
            # It would bake today's value into the program.
            self._refuse("Turning it into an array", "Use the variable itself: operators and np. functions work on it.")
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self.data.astype(dtype)
        return self.data.copy() if copy else self._view

    def _scalar(self, kind):
        if local.trace is not None:
            self._refuse(
                f"{kind.__name__}()",
                "Use ops.where(condition, a, b) or an operation instead of a Python decision on the value.",
            )
        return kind(self._view)

    def __bool__(self):
        return self._scalar(bool)

    def __float__(self):
        return self._scalar(float)

    def __int__(self):
        return self._scalar(int)

    def __index__(self):
        if self.dtype.kind not in "iu":
            raise TypeError(f"only integers can be an index, Variable {self.path!r} is {self.dtype}")
        return self._scalar(int)

    def __complex__(self):
        return self._scalar(complex)

    def __repr__(self):
        value = "" if self.shape else f" value={self.data}"  # a learning rate, a count of steps
        return f"<Variable {self.path!r} shape={self.shape} dtype={self.dtype}{value}>"

    def __format__(self, spec):
        return format(self.data.item() if not self.shape else self._view, spec) if spec else repr(self)

    # -- changing -----------------------------------------------------------------------------------------------------

    def assign(self, value):
        """Replace the value, in place.

        While a function is traced, the assignment is recorded and repeated, in order, at every replay; what is read
        from the variable later in the same function is the assigned value.

        Parameters
        ----------
        value : array_like
            Of the variable's shape; cast to its dtype.

        Returns
        -------
        Variable
            This one.

        Raises
        ------
        ValueError
            If the shape differs.
        """
        if local.trace is not None:
            OPERATIONS["assign"](value, self)
        elif isinstance(value, ArrayLike) and value.symbolic:
            raise TypeError(f"{user_line()}: {self!r} cannot be assigned {value!r}, which has no value yet")
        else:
            self.store(value._view if isinstance(value, Variable) else value)
        return self

    def store(self, value):
        """Copy an array in at once, whether or not a function is being traced; return it in this variable's dtype."""
        array = value if type(value) is np.ndarray else np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(
                f"Variable {self.path!r} has shape {self.shape}, it cannot be assigned a value of shape {array.shape}"
            )
        if array.dtype != self.dtype:
            array = array.astype(self.dtype)
        self.data[...] = array
        self.version += 1
        return array

    def assign_add(self, value):
        """Add ``value``; see `assign`."""
        return self.assign(self + value)

    def assign_sub(self, value):
        """Subtract ``value``; see `assign`."""
        return self.assign(self - value)

    def touch(self):
        """Count the version up, after writing to `data`."""
        self.version += 1

    def __setitem__(self, key, value):
        raise TypeError(f"{user_line()}: {self!r} cannot be changed by item assignment; use variable.assign(value)")

    def _in_place(self, other):
        raise TypeError(
            f"{user_line()}: {self!r} cannot be changed by an in-place operator; use assign, assign_add or assign_sub"
        )

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = __imatmul__ = _in_place
    __iand__ = __ior__ = __ixor__ = _in_place

    def __deepcopy__(self, memo):
        twin = Variable(
            self.data,
            trainable=self.trainable,
            name=self.name,
            regularizer=self.regularizer,
            constraint=self.constraint,
        )
        twin.path = self.path
        memo[id(self)] = twin
        return twin

    def __reduce__(self):
        return _rebuild, (
            self.data.copy(),
            {k: getattr(self, k) for k in ("trainable", "name", "regularizer", "constraint")},
            self.path,
        )


def _rebuild(value, options, path):
    variable = Variable(value, **options)
    variable.path = path
    return variable


def _remember(view, variable):
    key = id(view)

    def forget(reference):
        if _former.get(key, (None,))[0] is reference:
            del _former[key]

    _former[key] = weakref.ref(view, forget), weakref.ref(variable)


def captured(array):
    """Return the Variable whose `value` this very array is, or None.

    Raises
    ------
    TypeError
        If the array is a piece of a variable's storage: a trace would read it, but give it no gradient.
    """
    former = _former.get(id(array))
    if former is not None and former[0]() is array:
        return former[1]()
    found = _homes.get(id(_owner(array)))
    if found is None:
        return None
    candidates = found.variables if isinstance(found, ParameterBuffer) else (found,)
    for variable in candidates:
        if variable._view is array:
            return variable
    for variable in candidates:
        if np.may_share_memory(variable.data, array):
            raise TypeError(
                f"{user_line()}: an array that is a part of {variable!r} (of its .value) is used while a function is "
                "traced; use the variable itself, for instance variable[:3] instead of variable.value[:3]"
            )
    return None


class ParameterBuffer:
    """Variables of one dtype laid out in one flat array, one after the other.

    Their values move here. Moving one of them into another buffer later takes it out of this one, which `holds` then
    denies.

    Parameters
    ----------
    variables : sequence of Variable
        Of one dtype, each once.

    Attributes
    ----------
    flat : ndarray, shape (sum of the sizes,)
        The storage, 64-byte aligned; who writes to it calls `touch`.
    slices : list of slice
        The place of each variable in ``flat``.
    """

    def __init__(self, variables):
        self.variables = list(variables)
        if not self.variables:
            raise ValueError("a ParameterBuffer needs at least one variable")
        dtypes = {v.dtype for v in self.variables}
        if len(dtypes) != 1:
            raise ValueError(f"the variables of a ParameterBuffer have one dtype, got {sorted(map(str, dtypes))}")
        if len({id(v) for v in self.variables}) != len(self.variables):
            raise ValueError("a variable occurs twice in a ParameterBuffer")
        ends = np.cumsum([v.size for v in self.variables]).tolist()
        self.slices = [slice(end - v.size, end) for v, end in zip(self.variables, ends, strict=True)]
        self.flat = _aligned(ends[-1], self.variables[0].dtype)
        for variable, view in zip(self.variables, self.views(self.flat), strict=True):
            view[...] = variable.data
            variable._bind(view, self)
        self._storages = [v.data for v in self.variables]

    def views(self, flat_like):
        """Return a view of each variable's shape into a flat array of this layout, for instance of gradients."""
        if flat_like.shape != self.flat.shape:
            raise ValueError(f"flat_like has shape {flat_like.shape}, this buffer's layout is {self.flat.shape}")
        return [flat_like[s].reshape(v.shape) for s, v in zip(self.slices, self.variables, strict=True)]

    def empty_like(self):
        """Return another zeroed, aligned flat array of this layout."""
        return _aligned(self.flat.size, self.flat.dtype)

    def touch(self):
        """Count every variable's version up, after writing to `flat`."""
        for variable in self.variables:
            variable.version += 1

    def holds(self, variables):
        """Say whether exactly these variables, in this order, still live here."""
        if len(variables) != len(self.variables):
            return False
        for a, b, storage in zip(variables, self.variables, self._storages):  # noqa: B905 - checked, once a step
            if a is not b or a.data is not storage:
                return False
        return True
