"""Symbols: what a function sees instead of arrays while it is run once to be turned into a program."""

import contextlib
import random

import numpy as np

from .protocols import ArrayLike, local, user_frame, user_line
from .variable import Variable, captured

PYTHON_SCALARS = (bool, int, float, complex)


class Spec:
    """Shape and dtype of a value that does not exist yet.

    Parameters
    ----------
    shape : sequence of (int or None)
        None is an axis whose length is not known.
    dtype : dtype

    Attributes
    ----------
    weak : Python number or None
        The number itself where this describes a Python number, whose dtype gives way to the other operand's.
    """

    __slots__ = ("dtype", "shape", "weak")

    def __init__(self, shape, dtype="float32", weak=None):
        self.shape = tuple(n if n is None else int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.weak = weak

    @classmethod
    def of(cls, x):
        """Return the Spec of a Tensor, Variable, array or number; None for None."""
        if isinstance(x, (Tensor, Spec)) or x is None:
            return x.spec if isinstance(x, Tensor) else x
        if type(x) in PYTHON_SCALARS:
            return cls((), np.result_type(type(x)), weak=x)
        return cls(x.shape, x.dtype) if hasattr(x, "dtype") else cls.of(np.asarray(x))

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    @property
    def known(self):
        """Whether the length of every axis is known."""
        return None not in self.shape

    def fits(self, array):
        """Say whether an array has this dtype and shape, axes of unknown length aside."""
        if array.dtype != self.dtype:
            return False
        return array.shape == self.shape or (
            len(array.shape) == len(self.shape)
            and all(n is None or n == m for n, m in zip(self.shape, array.shape, strict=True))
        )

    def __eq__(self, other):
        return isinstance(other, Spec) and (self.shape, self.dtype) == (other.shape, other.dtype)

    def __hash__(self):
        return hash((self.shape, self.dtype))

    def __repr__(self):
        return f"Spec({self.shape}, {self.dtype.name!r})"


class Tensor(ArrayLike):
    """A symbolic value: the output of a node, or an input.

    Attributes
    ----------
    spec : Spec
    shape, dtype : tuple, dtype
        Those of ``spec``; None is an axis of unknown length.
    node : Node or None
        Where it comes from; None for an input and for a variable that is read.
    index : int
        Its place among the outputs of the node.
    variable : Variable or None
        The variable that it stands for.
    mask : Tensor or None
        Set by layers: which timesteps count.
    name : str or None
    """

    symbolic = True

    def __init__(self, spec, node=None, index=0, *, trace=None, variable=None, name=None):
        self.spec = spec
        if spec is not None:  # None: what a kernel saves for its pullback, opaque
            self.shape = spec.shape
            self.dtype = spec.dtype
        self.node = node
        self.index = index
        self.trace = trace
        self.variable = variable
        self.mask = None
        self.name = name

    def __array__(self, dtype=None, copy=None):
        self._refuse(
            "Turning it into an array", "Use functions of numbarnn.ops, or np. functions that have an entry there."
        )

    def numpy(self):
        """Raise: there is no value yet."""
        self._refuse(".numpy()", "Call the model or the function on arrays to see values.")

    def item(self):
        """Raise: there is no value yet."""
        self._refuse(".item()", "Call the model or the function on arrays to see values.")

    tolist = item

    def __repr__(self):
        name = f"{self.name!r} " if self.name else f"of {self.node.name} " if self.node is not None else ""
        return f"<Tensor {name}shape={self.shape} dtype={self.dtype}>"


class Node:
    """One recorded call of an operation.

    Attributes
    ----------
    operation : Op, KernelOp or any callable
        ``operation(*args, **kwargs)`` repeats the call.
    args, kwargs : tuple, dict
        As called. For an `Op`, ``args`` are its inputs (Tensors, arrays, numbers, None) and ``kwargs`` its
        attributes; for another operation they are nests in which Tensors occur.
    inputs : list
        For an `Op`, ``args``; for another operation, the Tensors in ``args`` and ``kwargs``.
    outputs : list of Tensor
    line : (str, int)
        File and line of the user's code that made the call.
    layer : Layer or None
        The innermost layer in whose `call` it was made, in a trace.
    """

    __slots__ = ("args", "inputs", "kwargs", "layer", "line", "operation", "outputs", "saved", "single")

    def __init__(self, operation, args, kwargs, inputs, specs, trace):
        self.operation, self.args, self.kwargs, self.inputs = operation, args, kwargs, inputs
        self.single = specs is None or isinstance(specs, Spec)
        self.outputs = [Tensor(spec, self, i, trace=trace) for i, spec in enumerate((specs,) if self.single else specs)]
        self.line = user_frame()
        self.layer = trace.callers[-1][0] if trace is not None and trace.callers else None
        self.saved = None  # the Tensor of what a kernel saved for its pullback

    @property
    def attrs(self):
        """The attributes of an `Op` node."""
        return self.kwargs

    @property
    def name(self):
        """The name of the operation."""
        return getattr(self.operation, "name", None) or getattr(
            self.operation, "__name__", type(self.operation).__name__
        )

    @property
    def result(self):
        """The outputs as the call returned them: one Tensor, or a tuple."""
        return self.outputs[0] if self.single else tuple(self.outputs)

    def __repr__(self):
        return f"<Node {self.name} at {self.line[0]}:{self.line[1]}>"


class Trace:
    """The record of one run of a function on symbols.

    Parameters
    ----------
    forward : Trace, optional
        The trace that this one differentiates. Its Tensors may be used here and become `residuals`.
    outer : Trace, optional
        The trace within which this one is made, of a step that is repeated. Its Tensors may be used here and become
        `captures`.
    """

    def __init__(self, forward=None, outer=None):
        self.forward, self.outer = forward, outer
        self.line = user_frame()  # where it was made from
        self.nodes = []
        self.variables = {}  # Variable -> the Tensor that it reads as now
        self.leaves = {}  # Variable -> the Tensor of its value at the start
        self.assigned = set()
        self.layers = {}  # id -> layer: those that it passed through, whose changes make it stale
        self.callers = ()  # (layer, ...) of the layers whose `call` is running
        self.known = {}  # only in a gradient: call -> its node
        self.generators = None  # the states of the global random generators at the start
        self.own_generators = {}  # id -> [a generator that the function could draw from, its state]
        self.residuals = {}  # id of a Tensor of `forward` -> (that Tensor, the one standing for it here)
        self.captures = {}  # the same of Tensors of `outer`

    def enter(self, layer, callers):
        """Note a layer that it passes through, the stack of those running, and random generators within its reach."""
        self.callers = callers
        if id(layer) not in self.layers:
            self.layers[id(layer)] = layer
            self.watch(type(layer).call, vars(layer).values())

    def watch(self, function, values=()):
        """Note the random generators that a function names, and those among values."""
        function = getattr(function, "__func__", function)
        code = getattr(function, "__code__", None)
        if code is not None:
            values = [*values, *(function.__globals__.get(name) for name in code.co_names)]
            for cell in function.__closure__ or ():
                with contextlib.suppress(ValueError):  # not assigned yet
                    values.append(cell.cell_contents)
        for value in values:
            if isinstance(value, _GENERATORS) and id(value) not in self.own_generators:
                self.own_generators[id(value)] = [value, _state_of(value)]

    def drew(self):
        """Say whether one of these generators was drawn from."""
        return any(_state_of(generator) != state for generator, state in self.own_generators.values())

    def input(self, spec, name=None):
        """Return a new input Tensor."""
        return Tensor(spec, trace=self, name=name)

    def read(self, variable):
        """Return the Tensor of a variable's value at this point."""
        tensor = self.variables.get(variable)
        if tensor is None:
            tensor = Tensor(Spec.of(variable), trace=self, variable=variable, name=variable.path)
            self.variables[variable] = self.leaves[variable] = tensor
        return tensor

    def residual(self, tensor):
        """Return the Tensor that stands here for one of the trace that is differentiated."""
        return self._twin(tensor, self.residuals)

    def _twin(self, tensor, known):
        entry = known.get(id(tensor))
        if entry is None:
            entry = known[id(tensor)] = (tensor, Tensor(tensor.spec, trace=self, name=tensor.name))
        return entry[1]

    def resolve(self, x):
        """Return ``x`` as an input of a node of this trace."""
        if isinstance(x, Tensor):
            if x.trace is self:
                return x
            if x.trace is not None and x.trace is self.forward:
                return self.residual(x)
            if x.trace is not None and self.outer is not None:
                return self._twin(self.outer.resolve(x), self.captures)
            whence = "a functional graph" if x.trace is None else "another traced function"
            raise ValueError(
                f"{user_line()}: {x!r} belongs to {whence} and has no value here. Pass it to this function as an "
                "argument; keep nothing symbolic on self or in a global between calls"
            )
        if isinstance(x, Variable):
            return self.read(x)
        if type(x) is np.ndarray and (variable := captured(x)) is not None:
            return self.read(variable)
        return x

    def record(self, operation, inputs, attrs):
        """Append a node; return it."""
        inputs = [self.resolve(x) for x in inputs]
        key = self._key(operation, inputs, attrs)
        if key in self.known:
            return self.known[key]
        specs = operation.infer(*map(Spec.of, inputs), **attrs)
        node = Node(operation, tuple(inputs), attrs, inputs, specs, self)
        self.nodes.append(node)
        if key is not None:
            self.known[key] = node
        return node

    def _key(self, operation, inputs, attrs):
        """Return what makes two calls in gradient rules the same, to be made once; None for what is never shared."""
        if self.forward is None or operation.effect:
            return None
        key = (
            operation,
            *((type(x), repr(x)) if type(x) in PYTHON_SCALARS else id(x) for x in inputs),
            *sorted(attrs.items()),
        )
        try:
            hash(key)
        except TypeError:
            return None
        return key


@contextlib.contextmanager
def tracing(trace):
    """Make ``trace`` the active one of this thread; None suspends tracing."""
    outer, local.trace = local.trace, trace
    try:
        yield trace
    finally:
        local.trace = outer


@contextlib.contextmanager
def suspended():
    """Suspend tracing in a ``with`` block, in which operations compute at once (to build a layer, say)."""
    outer = local.trace
    before = global_generators() if outer is not None else None
    drew = outer is not None and outer.drew()
    try:
        with tracing(None):
            yield
    finally:
        # A draw in here is meant to happen once.
        if outer is not None and outer.generators == before:
            outer.generators = global_generators()
        if outer is not None and not drew:
            for entry in outer.own_generators.values():
                entry[1] = _state_of(entry[0])


_GENERATORS = (np.random.Generator, np.random.RandomState, random.Random)


def _state_of(generator):
    """Return the state of a random generator, to compare."""
    if isinstance(generator, np.random.Generator):
        return repr(generator.bit_generator.state)
    if isinstance(generator, np.random.RandomState):
        return repr(generator.get_state(legacy=False))
    return generator.getstate()


def global_generators():
    """Return the states of the global random generators, to compare."""
    state = np.random.get_state(legacy=False)
    return random.getstate(), state["state"]["pos"], state["state"]["key"].tobytes(), state["gauss"]


def is_tracing():
    """Say whether a function is being traced in this thread."""
    return local.trace is not None


def has_assigned(variable):
    """Say whether the function that is being traced has assigned a variable so far."""
    return local.trace is not None and variable in local.trace.assigned
