"""`KernelCell`: what the cells that have kernels share: weights, dropout, one step, arguments of the kernels."""

import inspect
import threading
from contextlib import contextmanager
from functools import partial

import numpy as np

from .. import activations, constraints, initializers, ops, random, regularizers
from ..checks import flag, number
from ..protocols import local
from ..recurrence import activation_codes
from ..simd_math import ACTIVATIONS
from ..symbolic import tracing
from .base import Layer
from .fused import CellRun, PackedCache, run_cells

__all__ = ["KernelCell", "argument_kind", "arguments", "one_sequence", "without_kernels"]

#: Who understands and serializes the arguments whose names end like this.
_KINDS = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


def argument_kind(name):
    """Return the module that has `get` and `serialize` for an argument, None for a plain value."""
    return _KINDS.get(name.rsplit("_", 1)[-1])


def arguments(given):
    """Return a constructor's arguments by name, ``**kwargs`` among them, from its ``locals()``."""
    named = {name: value for name, value in given.items() if name not in ("self", "kwargs", "__class__")}
    return {**named, **given["kwargs"]}


def _kernel_name(activation):
    """Name of an activation that the kernels have, or None."""
    name = getattr(activation, "__name__", None)
    return name if name in ACTIVATIONS and getattr(activations, name, None) is activation else None


class _Steps(threading.local):
    """The sequence whose steps this thread is in the midst of; and which cells run without their kernels on it."""

    sequence = None
    without_kernels = None


_steps = _Steps()


class _Sequence:
    """What the steps of one sequence share: dropout factors, by the id of the cell."""

    def __init__(self, column):
        self.column, self.drawn = column, {}
        self.outside = local.trace

    def factors(self, cell, dtype):
        """Return the factors of a cell, drawn at its first step, outside of what is repeated."""
        if id(cell) not in self.drawn:
            with tracing(self.outside):
                self.drawn[id(cell)] = cell._dropout_factors(ops.cast(self.column, dtype))
        return self.drawn[id(cell)]


@contextmanager
def one_sequence(column):
    """Within the block, the steps of each cell, however deep within other cells, share their dropout factors.

    Parameters
    ----------
    column : array or Tensor, shape (batch, 1)
        Gives the batch size.
    """
    before, _steps.sequence = _steps.sequence, _Sequence(column)
    try:
        yield
    finally:
        _steps.sequence = before


@contextmanager
def without_kernels(which):
    """Within the block, on this thread, cells run step by step, in operations that say what their kernels compute.

    Parameters
    ----------
    which : callable
        ``which(cell) -> bool``.
    """
    before, _steps.without_kernels = _steps.without_kernels, which
    try:
        yield
    finally:
        _steps.without_kernels = before


class _OneStep(CellRun):
    """A step of a sequence that is gone through in Python."""

    __slots__ = ()


class KernelCell(Layer):
    """Base of the cells that have kernels.

    A subclass has its constructor, `kernels` and `one_step`.

    Parameters
    ----------
    implementation : int
        1: each gate has dropout factors of its own; 2: the gates share them. (0 is Keras's old name of 1.)
    **given
        The arguments that the constructor of the subclass names, and those of `Layer`.

    Attributes
    ----------
    kernels : numbarnn.cells.Cell
        The kernels of the cell, which also say how many gates and states it has.
    gate_names : tuple of str
        Names of the gates, in the order in which the weights hold them; none for a cell without gates.
    """

    kernels = None
    gate_names = ()
    recurrent_activation = None  # of a cell that has gates

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if KernelCell in cls.__bases__:
            # What the constructor takes by position is what the configuration holds, in the same order.
            parameters = inspect.signature(cls.__init__).parameters.values()
            cls.argument_names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:]

    def __init__(self, *, units, dropout, recurrent_dropout, seed, implementation=2, **given):
        if isinstance(units, bool) or not isinstance(units, (int, np.integer)) or units <= 0:
            raise ValueError(
                f"Received an invalid value for argument `units`, expected a positive integer, got {units!r}."
            )
        if implementation not in (0, 1, 2):
            raise ValueError(f"Argument `implementation` must be 0, 1 or 2. Received: implementation={implementation}")
        own = {name: given.pop(name) for name in self.argument_names if name in given}
        super().__init__(**given)
        if self._working_dtype.kind != "f":
            raise ValueError(f"`dtype` must be a floating point type. Received: dtype={self.dtype!r}")
        self.units = int(units)
        for name, value in own.items():
            kind = argument_kind(name)
            setattr(self, name, flag(name, value) if kind is None else kind.get(value))
        # As in Keras, what lies outside of [0, 1] becomes its nearer end.
        self.dropout = min(1.0, max(0.0, float(number("dropout", dropout))))
        self.recurrent_dropout = min(1.0, max(0.0, float(number("recurrent_dropout", recurrent_dropout))))
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)
        # With dropout of h, Keras computes gate by gate; that is where each gate gets factors of its own.
        self.implementation = 1 if self.recurrent_dropout > 0 else max(1, implementation)
        states = self.kernels.states
        self.state_size = self.units if states == 1 else [self.units] * states
        self.output_size = self.units
        self._set_untracked("_packed", PackedCache())

    # -- weights ------------------------------------------------------------------------------------------------

    def build(self, input_shape):
        """Make the weights for inputs of shape (batch, features)."""
        columns = self.kernels.gates * self.units
        self.kernel = self._add("kernel", (input_shape[-1], columns), self.kernel_initializer)
        self.recurrent_kernel = self._add("recurrent_kernel", (self.units, columns), self.recurrent_initializer)
        self.bias = None
        if self.use_bias:
            self.bias = self._add("bias", self.kernels.bias_shape(self.units), self.first_bias)

    def _add(self, name, shape, initializer):
        option = name.removesuffix("_kernel")
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=getattr(self, f"{option}_regularizer"),
            constraint=getattr(self, f"{option}_constraint"),
        )

    def first_bias(self, shape, dtype=None):
        """Return what the bias starts from."""
        return self.bias_initializer(shape, dtype=dtype)

    def _weights(self):
        bias = self._working(self.bias) if self.use_bias else None
        return self._working(self.kernel), self._working(self.recurrent_kernel), bias

    # -- dropout ------------------------------------------------------------------------------------------------

    def _dropout_factors(self, x):
        """Draw the factors of one sequence, (copies, batch, features) of x and of h; None where nothing is dropped."""

        def draw(rate, features):
            copies = self.kernels.gates if self.implementation == 1 else 1
            return random.dropout_factors(
                x, rate, noise_shape=(None, features), copies=copies, seed=self.seed_generator
            )

        return (
            draw(self.dropout, self.kernel.shape[0]) if self.dropout else None,
            draw(self.recurrent_dropout, self.units) if self.recurrent_dropout else None,
        )

    def _shared_factors(self, x, training):
        """Return the factors that the steps of one sequence share; without `one_sequence` a step has its own."""
        if not training or not (self.dropout or self.recurrent_dropout):
            return None, None
        sequence = _steps.sequence
        return self._dropout_factors(x) if sequence is None else sequence.factors(self, x.dtype)

    # -- kernels ------------------------------------------------------------------------------------------------

    @property
    def fused_cell(self):
        """The cell's kernels; None where an activation has none, or where each step has more to do."""
        if type(self).call is not KernelCell.call or self._activity_regularizer is not None:
            return None  # a subclass with a step of its own, or a penalty on each output
        if _steps.without_kernels is not None and _steps.without_kernels(self):
            return None
        names = _kernel_name(self.activation), _kernel_name(self.recurrent_activation)
        return self.kernels if None not in names[: 1 + (self.recurrent_activation is not None)] else None

    def kernel_arguments(self, run):
        """Return what the kernels need for a `CellRun`: arrays and options."""
        kernel, recurrent_kernel, bias = self._weights()
        given = (run.sequences, *(run.states or ()))
        x, *states = (a if a.dtype == kernel.dtype else ops.cast(a, kernel.dtype) for a in given)
        if isinstance(run, _OneStep):
            x_factors, h_factors = self._shared_factors(x[:, 0], run.training)
        elif run.training:
            x_factors, h_factors = self._dropout_factors(x[:, 0])
        else:
            x_factors, h_factors = None, None
        return [x, kernel, recurrent_kernel, bias, x_factors, h_factors, *states], {
            "cell": self.kernels,
            "cache": self._packed,
            "variables": (self.kernel, self.recurrent_kernel, self.bias),
            "activations": (_kernel_name(self.activation), _kernel_name(self.recurrent_activation)),
        }

    def step_arguments(self):
        """Return what a single step of the kernels needs beside the data.

        Returns
        -------
        tuple of three ndarrays
            Kernel, recurrent kernel and bias, packed; not to be changed.
        tuple of two int or None
            The codes of the activations.
        """
        variables = self.kernel, self.recurrent_kernel, self.bias
        arrays = tuple(None if v is None else np.asarray(self._working(v)) for v in variables)
        names = _kernel_name(self.activation), _kernel_name(self.recurrent_activation)
        return self._packed.get(self.kernels, variables, arrays).forward(), activation_codes(self.kernels, *names)

    # -- one step -----------------------------------------------------------------------------------------------

    def call(self, inputs, states, training=False):
        """One step.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, features)
        states : list of arrays (batch, units)
            A cell with one state takes it bare too.
        training : bool
            Whether dropout is active.

        Returns
        -------
        output : array or Tensor, shape (batch, units)
            The first of the new states.
        states : list
            The new states; bare where they came bare.

        Raises
        ------
        ValueError
            If inputs or states do not fit in number or shape.
        """
        listed = isinstance(states, (list, tuple))
        states = list(states) if listed else [states]
        if len(states) != self.kernels.states:
            raise ValueError(
                f"Cell '{self.name}' has {self.kernels.states} states, but it was called with {len(states)} of them"
            )
        inputs, *states = (self._working(a if hasattr(a, "dtype") else np.asarray(a)) for a in (inputs, *states))
        self._check_step(inputs, states)
        if self.fused_cell is not None:
            run = _OneStep(self, ops.expand_dims(inputs, 1), states, training=training, return_sequences=False)
            out, states = run_cells([run])[0]
        else:
            states, _ = self._by_operations(inputs, states, training)
            out = states[0]
        return out, states if listed else states[0]

    def _check_step(self, inputs, states):
        """Refuse what operations would stretch, or refuse in words of their own."""
        batch, features = inputs.shape[0] if inputs.shape else None, self.kernel.shape[0]
        fits = len(inputs.shape) == 2 and inputs.shape[1] == features
        for state in states:
            fits = fits and len(state.shape) == 2 and state.shape[1] == self.units
            fits = fits and (state.shape[0] == batch or None in (state.shape[0], batch))
        if not fits:
            raise ValueError(
                f"Cell '{self.name}' takes inputs of shape (batch, {features}) and states of shape (batch, "
                f"{self.units}). Received: inputs of shape {tuple(inputs.shape)}, states of shapes "
                f"{[tuple(state.shape) for state in states]}"
            )

    def step_with_gates(self, inputs, states, training=False):
        """One step, for those who look at the gates.

        Parameters
        ----------
        inputs, states, training
            As of `call`; of shapes that fit, the states in a list.

        Returns
        -------
        states : list of arrays (batch, units)
            The new ones; the first is the output.
        gates : list of arrays (batch, units)
            One for each of `gate_names`.
        """
        inputs, *states = (self._working(a) for a in (inputs, *states))
        return self._by_operations(inputs, states, training)

    def _by_operations(self, inputs, states, training):
        x_factors, h_factors = self._shared_factors(inputs, training)
        kernel, recurrent_kernel, bias = self._weights()
        biases = (bias, None) if bias is None or len(bias.shape) == 1 else (bias[0], bias[1])

        def product(left, factors, weights, bias, gate, times=None):
            columns = slice(gate * self.units, (gate + 1) * self.units)
            if factors is not None:
                left = left * factors[gate % factors.shape[0]]
            z = ops.matmul(left if times is None else times * left, weights[:, columns])
            return z if bias is None else z + bias[columns]

        return self.one_step(
            partial(product, inputs, x_factors, kernel, biases[0]),
            partial(product, states[0], h_factors, recurrent_kernel, biases[1]),
            states,
        )

    def one_step(self, x, h, states):
        """Return the new states of one step and its gates, written in operations.

        Parameters
        ----------
        x, h : callable
            ``x(gate)`` and ``h(gate)`` are the products of a gate with the inputs and with the last output, each with
            its bias and its dropout; ``h(gate, times)`` that of the last output multiplied by `times`.
        states : list of arrays (batch, units)

        Returns
        -------
        states : list of arrays (batch, units)
        gates : list of arrays (batch, units)
            One for each of `gate_names`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no `one_step`")

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        """Return the states that a sequence starts from.

        Parameters
        ----------
        inputs : array or Tensor, optional
            Gives the batch size and the type where these are not given.
        batch_size : int
        dtype : str, optional

        Returns
        -------
        list of ndarrays of zeros, shape (batch_size, units)
        """
        if inputs is not None:
            batch_size, dtype = inputs.shape[0], dtype or inputs.dtype
        if batch_size is None:
            raise ValueError("Argument `batch_size` must be given where `inputs` are not. Received: batch_size=None")
        return [np.zeros((batch_size, self.units), dtype or self._working_dtype) for _ in range(self.kernels.states)]

    # -- configuration ------------------------------------------------------------------------------------------

    def get_config(self):
        """Return the arguments that make this cell again."""
        return {**super().get_config(), **self.cell_config()}

    def cell_config(self):
        """Return the cell's own arguments, those of `Layer` left out."""
        values = {name: (argument_kind(name), getattr(self, name)) for name in self.argument_names}
        config = {name: value if kind is None else kind.serialize(value) for name, (kind, value) in values.items()}
        if self.implementation == 1 and not self.recurrent_dropout:
            config["implementation"] = 1  # as Keras's configurations never say: which dropout each gate has
        return config
