"""Variables: named arrays that layers own, and the flat buffers that models keep them in.

A `Variable` is a leaf in a traced function (read at every replay, never baked in) and a read-only array everywhere
else. It is changed by `assign` alone, which counts `version` up, so that whoever derives something from its value
(packed weights) sees when that is stale.

A value may be on the GPU as well, or there alone. `version` says which is the newer one: the copy on the GPU knows the
version that it is of, and is made again when the variable has a later one; what is written on the GPU takes `data` and
`value` away, and who asks for one of them next gets it with the values brought back. So a value is moved when somebody
needs it where it is not, and never seen in an older state, whoever changes it wherever.
"""

import itertools
import weakref

import numpy as np

from . import cuda
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
        self._on_gpu, self._on_gpu_of = None, -1  # the copy on the GPU, and the version that it is of
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
            _remember(self._kept_view, self)
        self._kept = self.data = data
        view = data.view()
        view.flags.writeable = False
        self._kept_view = self._view = view
        self._home = weakref.ref(home)
        self._on_gpu, self._on_gpu_of = None, -1
        _homes[id(_owner(data))] = home

    # -- on the GPU ---------------------------------------------------------------------------------------------------

    def __getattr__(self, name):
        # `data` and `_view` are there as long as the newest value is.
        if name in ("data", "_view") and "_kept" in self.__dict__:
            version = None
            while version != self.version:  # another thread may go on writing on the GPU meanwhile
                self._leave_home()
                version = self.version
                with cuda.in_order():
                    self._kept[...] = cuda.to_host(self._on_gpu)
                self.data, self._view = self._kept, self._kept_view
            return self._kept if name == "data" else self._kept_view
        return super().__getattr__(name)

    @property
    def on_gpu(self):
        """The value as an array on the GPU; who writes to it calls `wrote_on_gpu`."""
        if self._on_gpu_of != self.version:
            with cuda.in_order():
                if self._on_gpu is None:
                    home = self._home()
                    at_home = isinstance(home, ParameterBuffer)
                    self._on_gpu = home.room_on_gpu(self) if at_home else cuda.empty(self.shape, self.dtype)
                self._on_gpu[...] = cuda.to_device(self.data)
            self._on_gpu_of = self.version
        return self._on_gpu

    def wrote_on_gpu(self):
        """Count the version up, after writing to `on_gpu`."""
        if self._on_gpu_of != self.version:
            raise RuntimeError(f"{self!r} was written to on the GPU where another value than its newest one was")
        self.version += 1
        self._on_gpu_of = self.version
        if "data" in self.__dict__:
            self._leave_home()

    def _leave_home(self):
        """Take away what shows an older value than the one on the GPU."""
        for name in ("data", "_view"):
            self.__dict__.pop(name, None)
        home = self._home()
        if isinstance(home, ParameterBuffer):
            home.__dict__.pop("flat", None)

    @property
    def here(self):
        """The storage where this thread computes, `data` or `on_gpu`; who writes to it calls `wrote_here`."""
        return self.on_gpu if local.on_gpu else self.data

    def wrote_here(self):
        """Count the version up, after writing to `here`."""
        if local.on_gpu:
            self.wrote_on_gpu()
        else:
            self.version += 1

    @property
    def newest(self):
        """The value where it was written last: an ndarray, or an array on the GPU; not to be changed."""
        return self._view if "data" in self.__dict__ else self._on_gpu

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def value(self):
        """The value as a read-only array, without a copy.

        It shows later assignments until an optimizer takes the variable into its flat storage: do not keep it.
        While a function is traced this is the variable itself: a program reads values when it is replayed.
        """
        if local.trace is not None:
            return self
        return self.on_gpu if local.on_gpu else self._view

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
            self.store(value.newest if isinstance(value, Variable) else value)
        return self

    def store(self, value):
        """Copy an array in at once, whether or not a function is being traced; return it in this variable's dtype."""
        on_gpu = type(value) is not np.ndarray and cuda.is_device_array(value)
        array = value if on_gpu or type(value) is np.ndarray else np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(
                f"Variable {self.path!r} has shape {self.shape}, it cannot be assigned a value of shape {array.shape}"
            )
        if array.dtype != self.dtype:
            array = array.astype(self.dtype)
        if on_gpu:
            with cuda.in_order():
                self.on_gpu[...] = array
            self.wrote_on_gpu()
        else:
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
        if variable._kept_view is array:
            return variable
    for variable in candidates:
        if np.may_share_memory(variable._kept, array):
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
    on_gpu : device array, shape (sum of the sizes,)
        The same on the GPU, where who writes to it calls `wrote_on_gpu`.
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
        self._storages = [v._kept for v in self.variables]
        self._kept, self._on_gpu = self.flat, None

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

    def __getattr__(self, name):
        # `flat` is there as long as all of the newest values are.
        if name != "flat" or "_kept" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        versions = None
        while versions != (now := [v.version for v in self.variables]):  # another thread may go on writing on the GPU
            versions = now
            self.__dict__.pop("flat", None)
            for variable in self.variables:
                _ = variable.data  # brought back
            self.flat = self._kept
        return self._kept

    def room_on_gpu(self, variable):
        """Return the place of a variable in `on_gpu`, whose values are to be set."""
        if self._on_gpu is None:
            self._on_gpu = cuda.zeros(self._kept.shape, self._kept.dtype)
        number = next(i for i, v in enumerate(self.variables) if v is variable)
        return self._on_gpu[self.slices[number]].reshape(variable.shape)

    @property
    def on_gpu(self):
        """See the class."""
        for variable in self.variables:
            if variable._on_gpu_of != variable.version:
                _ = variable.on_gpu  # brought there
        return self._on_gpu

    def wrote_on_gpu(self):
        """Count every variable's version up, after writing to `on_gpu`."""
        for variable in self.variables:
            variable.wrote_on_gpu()

    def holds(self, variables):
        """Say whether exactly these variables, in this order, still live here."""
        if len(variables) != len(self.variables):
            return False
        for a, b, storage in zip(variables, self.variables, self._storages):  # noqa: B905 - checked, once a step
            if a is not b or a._kept is not storage:
                return False
        return True
