"""`RNN`: a cell run over the timesteps of its inputs.

A cell with kernels of its own runs them over the whole sequence at once (``kernel_path == "kernel"``): whatever the
masks, states, dropout and options.  A stack of such cells does so cell by cell.  Any other cell is called once for each
timestep (``"program"``).
"""

import math
from dataclasses import replace

import numpy as np

from .. import graph, ops
from ..checks import flag
from ..loading import allow
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from ..variable import Variable
from .base import InputSpec, Layer
from .cell_protocol import (
    first_states,
    flatten_states,
    lengths_of,
    nest_states,
    output_sizes_of,
    sizes_of,
    takes_constants,
)
from .fused import CellRun, run_abreast, run_cells
from .kernel_cell import KernelCell
from .nests import first_shape, is_shape, is_values, leaves_of, map_nest, map_shapes
from .pieces import PieceStates
from .plain_call import PlainCall, call_plainly
from .stacked import StackedRNNCells
from .stepwise import StepPrograms, step_by_step
from .watching import observer, trace_of

__all__ = ["RNN", "call_arguments", "listed"]

_AXES = (
    ". Sequences are of shape (batch, timesteps, features); a recurrent layer in front of this one gives them with "
    "`return_sequences=True`"
)
_BATCH_SIZE = (
    "If an RNN is stateful, the batch size of the input sequences must be the same as the batch size of the initial "
    "state. \n- Expected batch size: {0}\n- Received batch size: {1}\n"
    "`fit`, `evaluate` and `predict` of a model with a stateful layer need `batch_size={0}`, and a number of samples "
    "that is a multiple of {0}."
)
_STATEFUL_BATCH = (
    "If a RNN is stateful, it needs to know its batch size: when using `stateful=True` in a RNN, the batch size must "
    "be static. Give the first layer `batch_input_shape=(batch, timesteps, features)` or `Input(batch_shape=...)`. "
    "Received input with shape {}"
)


class RNN(Layer):
    """Base of recurrent layers: runs a cell over time.

    Parameters
    ----------
    cell : Layer or other object, or list of them
        With ``call(inputs, states) -> (output, new_states)``, where `training` and `constants` are passed to a `call`
        that has such parameters; a `state_size` and, where outputs are not like the first state, an `output_size`: an
        int, a `numbarnn.TensorShape` for arrays of more axes, or a list, tuple or dict of these with an entry for each;
        and, optionally, ``get_initial_state(inputs, batch_size, dtype)``. A list becomes `StackedRNNCells`.
        `call` is run once on symbols, differentiated and repeated. A cell that has a
        ``backward(d_output, d_states, inputs, states, saved) -> (d_inputs, d_states, d_weights)`` gives the gradient
        itself: its `call` returns a third value, `saved`; both run on arrays, at each step.
    return_sequences : bool
        Return the output at each timestep, not only the last.
    return_state : bool
        Return ``[output, *states]``; the states of a stack are one list for each cell.
    go_backwards : bool
        Go through the inputs from the last timestep to the first; outputs come in the order in which they are computed.
    stateful : bool
        Start each batch from the last states of the batch before, row by row; see `reset_states`.
    unroll : bool
        Accepted for Keras's sake: results are those of the loop.
    zero_output_for_mask : bool
        Give zeros at masked timesteps, not the last output again.
    time_major : bool
        Inputs, outputs and masks have the axes (timesteps, batch, ...).
    checkpoint : int, optional
        Of cells with kernels: keep the states of every so many timesteps for the gradient, and compute the rest again
        on the way back. Gradients are the same to the last bit, a training step takes about a third longer, and what it
        keeps of T timesteps is least, some 2 sqrt(T) timesteps' worth, for about sqrt(T).
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    states : list of ndarray, or None
        The states that a stateful layer goes on from, nested like those that it returns: new read-only arrays each
        time, which later calls do not change. None before the layer is built, and where it is not stateful.
    kernel_path : str
        ``"kernel"`` or ``"program"``: how the cell is run.

    See Also
    --------
    keras.layers.RNN : where the interface comes from.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layer = layers.RNN(layers.LSTMCell(4), return_sequences=True)
    >>> layer(np.zeros((2, 5, 3), np.float32)).shape
    (2, 5, 4)
    """

    _argument_hints = {
        "batch_first": "Inputs are (batch, timesteps, features) anyway; with `time_major=True` (timesteps, batch, "
        "features)",
    }

    def __init__(
        self,
        cell,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        zero_output_for_mask=False,
        *,
        time_major=False,
        checkpoint=None,
        **kwargs,
    ):
        whole = isinstance(checkpoint, (int, np.integer)) and not isinstance(checkpoint, bool)
        if checkpoint is not None and not (whole and checkpoint > 0):
            raise ValueError(f"Argument `checkpoint` must be a positive integer. Received: checkpoint={checkpoint!r}")
        if isinstance(cell, (list, tuple)):
            cell = StackedRNNCells(cell)
        if not callable(getattr(cell, "call", None)):
            raise ValueError(f"Argument `cell` should have a `call` method. The RNN was passed: cell={cell}")
        if not hasattr(cell, "state_size"):
            raise ValueError(
                "The RNN cell should have a `state_size` attribute (tuple of integers, one integer per RNN state). "
                f"Received: cell={cell}"
            )
        if isinstance(cell, Layer):
            cell._check_super_called()
        super().__init__(**kwargs)
        self.cell = cell
        self.return_sequences = flag("return_sequences", return_sequences)
        self.return_state = flag("return_state", return_state)
        self.go_backwards = flag("go_backwards", go_backwards)
        self.stateful = flag("stateful", stateful)
        self.unroll = flag("unroll", unroll)
        self.zero_output_for_mask = flag("zero_output_for_mask", zero_output_for_mask)
        self.time_major = flag("time_major", time_major)
        self.checkpoint = None if checkpoint is None else int(checkpoint)
        self.supports_masking = True
        # A cell of the user's may take inputs with more axes.
        self.input_spec = InputSpec(min_ndim=3) if self._fused_cells is None else InputSpec(ndim=3)
        self.input_spec.hint = _AXES
        self._set_untracked("_num_constants", None)
        # Of a stateful layer: its states, flat, and for each row whether it is at its start, where a given
        # `initial_state` counts.
        self._set_untracked("_state_variables", None)
        self._set_untracked("_fresh", None)
        self._set_untracked("_step_programs", StepPrograms())
        self._set_untracked("_plain_call", PlainCall())
        # While `fit` cuts batches into pieces: a `PieceStates`; whether this call is on a piece; what it goes on from.
        self._set_untracked("_pieces", None)
        self._set_untracked("_on_piece", False)
        self._set_untracked("_going_on", None)

    @property
    def kernel_path(self):
        """How the cell is run: by its own kernels (``"kernel"``) or step by step (``"program"``)."""
        return "program" if self._fused_cells is None else "kernel"

    @property
    def _fused_cells(self):
        """The cells that run one after the other over the whole sequence; None where it goes step by step."""
        if getattr(self.cell, "fused_cell", None) is not None:
            return [self.cell]
        return getattr(self.cell, "fused_cells", None)

    @property
    def state_size(self):
        """Sizes of the cell's states."""
        return self.cell.state_size

    # -- building -----------------------------------------------------------------------------------------------

    def build(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        """Build the cell and make the states of a stateful layer."""
        if not is_shape(sequences_shape) and self.kernel_path == "kernel":
            raise ValueError(
                f"The cell of layer '{self.name}' takes one array at each timestep, not a nest. Received inputs with "
                f"shapes {sequences_shape}"
            )
        shapes = map_shapes(self._batch_major, sequences_shape)
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build(map_shapes(lambda shape: (shape[0], *shape[2:]), shapes))
        if self.stateful:
            self._make_states(first_shape(shapes))
        self.input_spec = map_shapes(lambda shape: InputSpec(shape=(None, None, *shape[2:])), shapes)

    def _make_states(self, shape):
        batch = shape[0]
        if batch is None:
            raise ValueError(_STATEFUL_BATCH.format(shape))
        if self._state_variables is not None:
            expected = self._fresh.shape[0]
            if batch != expected:
                raise ValueError(_BATCH_SIZE.format(expected, batch))
            return
        allow(batch * sum(math.prod(lengths_of(size)) for size in leaves_of(sizes_of(self.cell))))
        variables = []
        for value in self._fitting_start(self.get_initial_state(batch_size=batch), batch):
            variable = Variable(np.asarray(value), trainable=False, name="rnn_state", dtype=self.variable_dtype)
            variable.path = f"{self.name}/rnn_state"
            variables.append(variable)
        self._set_untracked("_state_variables", variables)
        self._set_untracked("_fresh", Variable(np.ones(batch, bool), trainable=False, name="fresh"))

    def _carried_variables(self):
        return [] if self._state_variables is None else [*self._state_variables, self._fresh]

    def _batch_major(self, shape):
        return (shape[1], shape[0], *shape[2:]) if self.time_major else shape

    # -- calling ------------------------------------------------------------------------------------------------

    def __call__(self, sequences, /, *args, **kwargs):
        """Run over `sequences`; a list is ``[sequences, *initial_state, *constants]``, a tuple or dict is a nest."""
        if type(sequences) is np.ndarray and not args and not kwargs and "_plain_call" in self.__dict__:
            return call_plainly(self, sequences, super().__call__)
        sequences, kwargs = call_arguments(self, sequences, args, kwargs)
        return super().__call__(sequences, **kwargs)

    def _plain_parts(self):
        """See `PlainCall`."""
        return [self]

    def _plain_end(self, results):
        ((out, states),) = results
        return [out, *states] if self.return_state else out

    def _call_functional(self, first, args, kwargs, training):
        if kwargs.get("initial_state") is not None:
            batch = self._batch_major(leaves_of(first)[0].shape)[0]
            kwargs["initial_state"] = self._fitting_start(kwargs["initial_state"], batch)
        return super()._call_functional(first, args, kwargs, training)

    def _fitting_start(self, initial_state, batch):
        """Return states to start from as a flat list of arrays; refuse those that do not fit."""
        nest = sizes_of(self.cell)
        sizes, states = leaves_of(nest), flatten_states(nest, initial_state)
        if len(states) != len(sizes):
            raise ValueError(
                "An `initial_state` was passed that is not compatible with `cell.state_size`. Layer has "
                f"{len(sizes)} states but was passed {len(states)} initial states."
            )
        states = [s if hasattr(s, "shape") else np.asarray(s) for s in states]
        for state, size in zip(states, sizes, strict=True):
            shape = tuple(state.shape)
            fits = len(shape) > 0 and shape[1:] == lengths_of(size) and (batch is None or shape[0] in (None, batch))
            if not fits:
                spec = [tuple(s.shape) for s in states]
                raise ValueError(
                    "An `initial_state` was passed that is not compatible with `cell.state_size`. Received "
                    f"`state_spec`={spec}; however `cell.state_size` is {nest} and the batch size is {batch}"
                )
        return states

    def call(self, sequences, initial_state=None, mask=None, training=False, reset=None, constants=None):
        """Run over time.

        Parameters
        ----------
        sequences : array or Tensor, shape (batch, timesteps, ...), or nest of them
        initial_state : list of arrays (batch, size), optional
            Nested like `states`, or one after the other. Zeros by default. A stateful layer takes it only at its start.
        mask : array, shape (batch, timesteps), optional
            True where a timestep counts; elsewhere states stay as they are.
        training : bool
            Whether dropout is active.
        reset : array, shape (batch, timesteps), optional
            True where the states of a row are set to zero before the timestep. No gradient flows across.
        constants : list of arrays, optional
            The same at each timestep; for cells whose `call` has a parameter `constants`.

        Returns
        -------
        array or Tensor, shape (batch, timesteps, size) or (batch, size), or list of it and the last states
            A nest of outputs is nested like the cell's `output_size`; together with states, its items are in the list.

        Raises
        ------
        ValueError
            For no timesteps, a mask of another shape, another batch size than a stateful layer has, or constants that
            the cell does not take.
        """
        run = self._begin(sequences, initial_state, mask, training, reset, constants)
        # What `_passes` would come to, the short way.
        if getattr(self.cell, "fused_cell", None) is not None and observer() is None:
            out, states = run_cells([run])[0]
        else:
            out, states = run_abreast([self._passes(run)])[0]
        return self._end(out, states)

    # A call in three parts, for `Bidirectional` to begin two layers, run both at once and end both: what is wrong comes
    # out at the beginning, states are recorded at the end.

    def _begin(self, sequences, initial_state=None, mask=None, training=False, reset=None, constants=None):
        """Check the arguments of a call; return what is to be run as a `CellRun`, batch first, its states flat."""
        first = leaves_of(sequences)[0]
        if isinstance(sequences, (list, tuple, dict)):
            self._check_nest(sequences)
        if constants is not None:
            constants = self._checked_constants(constants)
        timesteps = first.shape[0 if self.time_major else 1]
        if timesteps == 0:
            raise ValueError(
                f"Layer '{self.name}' needs at least one timestep. Received input with shape {first.shape}"
            )
        if self.unroll and timesteps is None:
            raise ValueError(
                "Cannot unroll a RNN if the time dimension is undefined. Pass `input_shape=(timesteps, features)` or "
                f"`Input(shape=(timesteps, features))`. Received input with shape {first.shape}"
            )
        if initial_state is not None:
            initial_state = self._fitting_start(initial_state, self._batch_major(first.shape)[0])
        mask, reset = self._flags("mask", mask, first), self._flags("reset", reset, first)
        if sequences is first:  # what is nearly always passed
            sequences = self._working(sequences)
            first = sequences = _swap(sequences) if self.time_major else sequences
        else:
            sequences = map_nest(self._working, sequences)
            sequences = map_nest(_swap, sequences) if self.time_major else sequences
            first = leaves_of(sequences)[0]
        return CellRun(
            self.cell,
            sequences,
            self._first_states(first, initial_state),
            mask=mask,
            reset=reset,
            constants=constants,
            training=training,
            backwards=self.go_backwards,
            return_sequences=self.return_sequences,
            zero_output=self.zero_output_for_mask,
            checkpoint=self.checkpoint,
        )

    def _check_nest(self, sequences):
        """Refuse sequences that cannot be gone through together."""
        shapes = [tuple(x.shape) for x in leaves_of(sequences)]
        for shape in shapes[1:]:
            if len(shape) < 2 or any(
                a is not None and b is not None and a != b for a, b in zip(shape[:2], shapes[0][:2], strict=True)
            ):
                raise ValueError(
                    f"All inputs of layer '{self.name}' must have the same batch size and number of timesteps. "
                    f"Received inputs with shapes {shapes}"
                )

    def _checked_constants(self, constants):
        """Return the constants as a list; refuse them where no cell takes any."""
        if not any(map(takes_constants, getattr(self.cell, "cells", [self.cell]))):
            raise ValueError(f"RNN cell {self.cell} does not support constants. Received: constants={constants}")
        constants = list(constants) if isinstance(constants, (list, tuple)) else [constants]
        self._num_constants = len(constants)
        given = [c if hasattr(c, "shape") else np.asarray(c) for c in constants]
        return [self._working(c) if c.dtype.kind == "f" else c for c in given]

    def _passes(self, run):
        """Yield the runs of single cells that make up `run`, for `run_abreast`; return output and last states."""
        cells = self._fused_cells
        if cells is None and self.checkpoint is not None:
            raise ValueError(
                f"Layer '{self.name}' cannot have checkpoints: its cell {self.cell} has no kernels. Leave "
                f"`checkpoint` out. Received: checkpoint={self.checkpoint}"
            )
        observing = observer()
        if observing is not None:
            return observing.run(self, run)
        if cells is None:
            return step_by_step(run, self)
        if cells[0] is self.cell:
            return (yield run)
        parts = [None] * len(cells) if run.states is None else self.cell.split_states(run.states)
        top = len(cells) - 1
        for level, cell in enumerate(cells):
            out, parts[level] = yield replace(
                run,
                cell=cell,
                states=parts[level],
                return_sequences=run.return_sequences or level < top,
            )
            if level == 0 and run.backwards:
                # The outputs of the lowest cell come in the order of the steps, in which the others go on.
                flipped = (None if flags is None else ops.flip(flags, 1) for flags in (run.mask, run.reset))
                run = replace(run, backwards=False, mask=next(flipped), reset=next(flipped))
            run = replace(run, sequences=out)
        return out, self.cell.join_states(parts)

    def _end(self, out, states):
        """Record the last states of a stateful layer; return what its call returns."""
        if self.time_major and self.return_sequences:
            out = map_nest(_swap, out)
        out, shown = map_nest(self._working, out), [self._working(state) for state in states]
        if self._goes_on:
            self._record(states)
        return [*listed(out), *nest_states(sizes_of(self.cell), shown)] if self.return_state else out

    def _flags(self, name, flags, sequences):
        """Bring a mask into the form that the kernels take: bool, (batch, timesteps)."""
        if flags is None:
            return None
        if not hasattr(flags, "shape"):
            flags = np.asarray(flags)
        shape = tuple(sequences.shape[:2])
        if len(flags.shape) == 3 and flags.shape[2] == 1:
            flags = ops.reshape(flags, tuple(-1 if n is None else n for n in flags.shape[:2]))
        fits = len(flags.shape) == 2 and all(
            a is None or b is None or a == b for a, b in zip(flags.shape, shape, strict=True)
        )
        if not fits:
            axes = "(timesteps, batch)" if self.time_major else "(batch, timesteps)"
            raise ValueError(
                f"`{name}` of layer '{self.name}' must have shape {axes} = {shape}. Received shape {tuple(flags.shape)}"
            )
        flags = flags if flags.dtype == bool else ops.cast(flags, bool)
        return ops.transpose(flags, (1, 0)) if self.time_major else flags

    def _first_states(self, sequences, initial_state):
        """Return the flat list of states to start from; None stands for zeros where kernels run."""
        batch = sequences.shape[0]
        if initial_state is not None:
            initial_state = [self._working(state) for state in initial_state]
        if not self._goes_on:
            if initial_state is None and not self._starts_from_zeros():
                initial_state = self._made_states(sequences)
            return initial_state
        if self.stateful:
            if self._fresh is None:
                raise ValueError(
                    f"Layer '{self.name}' was built without states to go on from. Give `stateful=True` to its "
                    "constructor, or set it before the layer is built"
                )
            if batch is not None and batch != self._fresh.shape[0]:
                raise ValueError(_BATCH_SIZE.format(self._fresh.shape[0], batch))
            *variables, fresh = self._carried_variables()
        else:
            pairs = self._pieces.of_call(batch)
            self._set_untracked("_going_on", pairs)
            *variables, fresh = [first for first, _ in pairs]
            if initial_state is None and not self._starts_from_zeros():
                initial_state = self._made_states(sequences)
        recorded = [self._working(variable) for variable in variables]
        if initial_state is None:
            return recorded
        return [_by_row(fresh, given, own) for given, own in zip(initial_state, recorded, strict=True)]

    def _starts_from_zeros(self):
        """Say whether kernels run, and nobody has redefined what a sequence starts from."""
        cells = self._fused_cells
        own = type(self).get_initial_state is not RNN.get_initial_state or "get_initial_state" in vars(self)
        if cells is None or own:
            return False
        return all(
            type(cell).get_initial_state is KernelCell.get_initial_state and "get_initial_state" not in vars(cell)
            for cell in cells
        )

    def _made_states(self, sequences):
        batch = sequences.shape[0]
        states = self._fitting_start(self.get_initial_state(batch_size=1 if batch is None else batch), batch)
        states = [self._working(state) for state in states]
        if batch is not None:
            return states
        # As many rows as the inputs will have.
        column = ops.zeros_like(sequences[(slice(None), *[0] * (len(sequences.shape) - 1))])
        return [state + ops.expand_dims(column, tuple(range(1, len(state.shape)))) for state in states]

    def trace(self, sequences, /, *args, **kwargs):
        """Run over `sequences` and show what happened at each timestep: outputs, states and gates.

        The layer is left as it was: a stateful one starts from its states, which stay what they are.

        Parameters
        ----------
        sequences, *args, **kwargs
            As of a call on arrays.

        Returns
        -------
        LayerTrace
            All of it, whatever `return_sequences` says; in the order of the steps, batch first.

        Raises
        ------
        TypeError
            If something symbolic is passed.
        RuntimeError
            Within a function that is being traced.
        TypeError, ValueError
            Those of a call.

        Examples
        --------
        >>> import numpy as np
        >>> from numbarnn import layers
        >>> trace = layers.LSTM(4, name="reader").trace(np.zeros((2, 5, 3), np.float32))
        >>> trace.gates["forget"].shape
        (2, 5, 4)
        >>> trace
        <LayerTrace of reader: 2 rows, 5 timesteps, 2 states, gates input, forget, candidate, output>
        """
        return trace_of(self, sequences, args, kwargs)

    # -- states -------------------------------------------------------------------------------------------------

    @property
    def states(self):
        """The states that a stateful layer goes on from: new read-only arrays; within a trace, Tensors."""
        variables = self._state_variables
        if variables is None:
            return None
        return nest_states(sizes_of(self.cell), [_frozen(variable) for variable in variables])

    @property
    def _goes_on(self):
        """Whether states go on from call to call."""
        return self.stateful or self._on_piece

    def _record(self, states):
        *variables, fresh = self._carried_variables() if self.stateful else [last for _, last in self._going_on]
        for state, variable in zip(states, variables, strict=True):
            variable.assign(state)
        fresh.assign(np.zeros(fresh.shape, bool))
        self._set_untracked("_going_on", None)

    def _expect_pieces(self, expected):
        """Before and after batches are cut into pieces: what is traced of their calls must not be used for others."""
        shapes = [lengths_of(size) for size in leaves_of(sizes_of(self.cell))]
        self._set_untracked("_pieces", PieceStates(shapes, self.variable_dtype) if expected else None)
        self._changed()

    def reset_states(self, states=None, mask=None):
        """Set the states of a stateful layer.

        Parameters
        ----------
        states : list of arrays (batch, size), optional
            Nested like `states`, or one after the other. Zeros by default, from which a given `initial_state` counts
            again at the next call.
        mask : array of bool, shape (batch,), optional
            True for the rows to set; all by default.

        Raises
        ------
        AttributeError
            If the layer is not stateful.
        ValueError
            If the batch size is not known yet, or an array does not fit in number, shape or type; nothing is set then.
        """
        values, fresh = self._new_states(states, mask)
        for value, variable in zip(values, self._state_variables, strict=True):
            variable.assign(value)
        self._fresh.assign(fresh)

    def _new_states(self, states=None, mask=None):
        """Return what `reset_states` sets, the states and whether rows are at their start; refuse what does not fit."""
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        variables = self._state_variables
        if variables is None:
            raise ValueError(_STATEFUL_BATCH.format(None))
        values = [np.zeros(v.shape, v.dtype) for v in variables] if states is None else self._fitting(states)
        fresh = np.full(self._fresh.shape, states is None)
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype != bool or mask.shape != self._fresh.shape:
                raise ValueError(
                    f"Argument `mask` must be an array of bool of shape {self._fresh.shape}, one for each row that "
                    f"layer {self.name} keeps states of. Received: dtype {mask.dtype}, shape {mask.shape}"
                )
            fresh = ops.where(mask, fresh, self._fresh)
            values = [_by_row(mask, value, v) for value, v in zip(values, variables, strict=True)]
        return values, fresh

    def _fitting(self, states):
        """Return given states as a flat list of arrays of the variables' shapes and types."""
        variables = self._state_variables
        values = [np.asarray(value) for value in flatten_states(sizes_of(self.cell), states)]
        if len(values) != len(variables):
            raise ValueError(
                f"Layer {self.name} expects {len(variables)} states, but it received {len(values)} state values. "
                f"States received: {states}"
            )
        for number, (value, variable) in enumerate(zip(values, variables, strict=True)):
            if value.shape != variable.shape:
                raise ValueError(
                    f"State {number} is incompatible with layer {self.name}: expected shape={variable.shape} but found "
                    f"shape={value.shape}"
                )
            if not np.can_cast(value.dtype, variable.dtype, "same_kind"):
                raise ValueError(
                    f"State {number} is incompatible with layer {self.name}: expected dtype={variable.dtype} but found "
                    f"dtype={value.dtype}"
                )
        return [value.astype(variable.dtype) for value, variable in zip(values, variables, strict=True)]

    def reset_state(self, states=None, mask=None):
        """Set the states of a stateful layer; the same as `reset_states`."""
        self.reset_states(states, mask)

    def get_initial_state(self, batch_size):
        """Return the states that a sequence starts from: those of the cell, zeros mostly.

        Parameters
        ----------
        batch_size : int

        Returns
        -------
        list of ndarray
            Nested like `states`.
        """
        return nest_states(sizes_of(self.cell), first_states(self.cell, batch_size, self._working_dtype))

    # -- shapes, masks, configuration ---------------------------------------------------------------------------

    def compute_mask(self, inputs, previous_mask=None):
        """Return the mask of the inputs for sequences, None for all else."""
        mask = _one_mask(previous_mask) if self.return_sequences else None
        masks = map_nest(lambda _: mask, output_sizes_of(self.cell))
        return [*listed(masks), *[None] * len(sizes_of(self.cell))] if self.return_state else masks

    def compute_output_shape(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        """Return the shape of the output, or the shapes of output and states; nested as these are."""
        if isinstance(sequences_shape, list) and not is_shape(sequences_shape):
            sequences_shape = sequences_shape[0]
        batch, timesteps = self._batch_major(first_shape(sequences_shape))[:2]

        def shape(size):
            if not self.return_sequences:
                return (batch, *lengths_of(size))
            return (*((timesteps, batch) if self.time_major else (batch, timesteps)), *lengths_of(size))

        out = map_nest(shape, output_sizes_of(self.cell))
        if not self.return_state:
            return out
        states = map_nest(lambda size: (batch, *lengths_of(size)), sizes_of(self.cell))
        return [*([out] if is_shape(out) else listed(out)), *states]

    def _loop_config(self):
        config = {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }
        if self.time_major:
            config["time_major"] = True
        if self.checkpoint is not None:
            config["checkpoint"] = self.checkpoint
        if self._num_constants is not None:
            config["num_constants"] = self._num_constants
        return config

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), **self._loop_config(), "cell": serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a layer from `get_config`'s result."""
        config = dict(config)
        if isinstance(config.get("cell"), dict):
            config["cell"] = deserialize_keras_object(config["cell"], custom_objects=custom_objects)
        constants = config.pop("num_constants", None)
        layer = super().from_config(config)
        layer._num_constants = constants
        return layer


def call_arguments(layer, sequences, args, kwargs):
    """Return the inputs and the other arguments of a recurrent layer's call, however they came, by name."""
    layer._check_super_called()
    if isinstance(sequences, list):
        if not sequences or not is_values(sequences[0]):
            raise TypeError(
                f"The inputs of layer '{layer.name}' must be an array, or a list [array, *initial_state] of arrays. "
                "Received a list of Python values: pass np.asarray(inputs)"
            )
        sequences, *states = sequences
        count = layer._num_constants or 0
        if count and kwargs.get("constants") is None and len(states) >= count:
            states, kwargs["constants"] = states[:-count], states[-count:]
    else:
        states = []
    if isinstance(sequences, (tuple, dict)) and isinstance(layer.input_spec, InputSpec) and not layer.built:
        layer.input_spec = map_nest(lambda _: InputSpec(min_ndim=2), sequences)
    names = layer._call_info.names[1:]
    if len(args) > len(names):
        raise TypeError(f"The call of layer '{layer.name}' takes {1 + len(names)} arguments, got {1 + len(args)}")
    for name, value in zip(names, args, strict=False):
        if name in kwargs:
            raise TypeError(f"The call of layer '{layer.name}' got two values for argument '{name}'")
        kwargs[name] = value
    if states:
        if kwargs.get("initial_state") is not None:
            raise ValueError(
                f"`initial_state` was passed both in the list of inputs and as a keyword argument of layer "
                f"'{layer.name}'"
            )
        kwargs["initial_state"] = states
    mask = kwargs.get("mask")
    if isinstance(mask, dict) or (
        isinstance(mask, (list, tuple)) and any(hasattr(m, "shape") for m in leaves_of(mask))
    ):
        kwargs["mask"] = _one_mask(mask)  # Keras: one mask for each of [inputs, *initial_state], or of a nest of inputs
    elif isinstance(mask, (list, tuple)):
        kwargs["mask"] = np.asarray(mask)
    return sequences, kwargs


def _one_mask(masks):
    """Return the mask of a nest of inputs: the first that there is, for one mask counts for all of them."""
    return next((mask for mask in leaves_of(masks) if mask is not None), None)


def listed(outputs):
    """Return one output, or the outputs of a list or tuple, as a list."""
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _by_row(flags, x, other):
    """Return the rows of `x` where the flags are set, elsewhere those of `other`."""
    return ops.where(ops.expand_dims(flags, tuple(range(1, len(x.shape)))), x, other)


def _frozen(variable):
    """Return the value that a variable has now, as an array that nobody changes."""
    if graph.is_tracing():
        return ops.copy(variable)
    value = variable.numpy()
    value.flags.writeable = False
    return value


def _swap(x):
    return ops.transpose(x, (1, 0, *range(2, len(x.shape))))


export("keras.layers", RNN)
