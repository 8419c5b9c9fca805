"""`RNN`: a cell run over the timesteps of its inputs.

A cell with kernels of its own runs them over the whole sequence at once (``kernel_path == "kernel"``): whatever the
masks, states, dropout and options.  Any other cell is called once for each timestep (``"program"``).
"""

from contextlib import nullcontext

import numpy as np

from .. import ops
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from ..variable import Variable
from .base import InputSpec, Layer
from .fused import CellRun, run_cells

__all__ = ["RNN"]

_STATEFUL_BATCH = (
    "If a RNN is stateful, it needs to know its batch size: when using `stateful=True` in a RNN, the batch size must "
    "be static. Give the first layer `batch_input_shape=(batch, timesteps, features)` or `Input(batch_shape=...)`. "
    "Received input with shape {}"
)


class RNN(Layer):
    """Base of recurrent layers: runs a cell over time.

    Parameters
    ----------
    cell : Layer
        With ``call(inputs, states, training) -> (output, new_states)``, a `state_size` and, optionally, an
        `output_size` and ``get_initial_state(batch_size=...)``.
    return_sequences : bool
        Return the output at each timestep, not only the last.
    return_state : bool
        Return ``[output, *states]``.
    go_backwards : bool
        Go through the inputs from the last timestep to the first; outputs come in the order in which they are computed.
    stateful : bool
        Start each batch from the last states of the batch before, row by row.
    unroll : bool
        Accepted for Keras's sake: results are those of the loop.
    zero_output_for_mask : bool
        Give zeros at masked timesteps, not the last output again.
    time_major : bool
        Inputs, outputs and masks have the axes (timesteps, batch, ...).
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    states : list of Variable or None
        The states that a stateful layer goes on from.
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
        **kwargs,
    ):
        if not callable(getattr(cell, "call", None)):
            raise ValueError(f"Argument `cell` should have a `call` method. The RNN was passed: cell={cell}")
        if not hasattr(cell, "state_size"):
            raise ValueError(
                "The RNN cell should have a `state_size` attribute (tuple of integers, one integer per RNN state). "
                f"Received: cell={cell}"
            )
        super().__init__(**kwargs)
        self.cell = cell
        self.return_sequences = bool(return_sequences)
        self.return_state = bool(return_state)
        self.go_backwards = bool(go_backwards)
        self.stateful = bool(stateful)
        self.unroll = bool(unroll)
        self.zero_output_for_mask = bool(zero_output_for_mask)
        self.time_major = bool(time_major)
        self.supports_masking = True
        self.input_spec = InputSpec(min_ndim=3)
        self._single_state = isinstance(cell.state_size, (int, np.integer))
        self._set_untracked("states", None)
        # Whether a stateful layer is at its start, where a given `initial_state` counts.
        self._set_untracked("_fresh", None)

    @property
    def kernel_path(self):
        """How the cell is run: by its own kernels (``"kernel"``) or step by step (``"program"``)."""
        return "kernel" if getattr(self.cell, "fused_cell", None) is not None else "program"

    @property
    def state_size(self):
        """Sizes of the cell's states."""
        return self.cell.state_size

    def _state_sizes(self):
        sizes = self.cell.state_size
        sizes = [sizes] if self._single_state else list(sizes)
        if not all(isinstance(size, (int, np.integer)) for size in sizes):
            raise ValueError(f"`cell.state_size` must be an int or a list of ints. Received: {self.cell.state_size}")
        return [int(size) for size in sizes]

    @property
    def _output_size(self):
        size = getattr(self.cell, "output_size", None)
        return self._state_sizes()[0] if size is None else int(size)

    # -- building -----------------------------------------------------------------------------------------------

    def build(self, sequences_shape, initial_state_shape=None):
        """Build the cell and make the states of a stateful layer."""
        shape = self._batch_major(tuple(sequences_shape))
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build((shape[0], *shape[2:]))
        batch = shape[0] if self.stateful else None
        if self.stateful:
            if batch is None:
                raise ValueError(_STATEFUL_BATCH.format(shape))
            initial = self._as_states(self._cell_initial_state(batch))
            states = []
            for value in initial:
                state = Variable(np.asarray(value), trainable=False, name="rnn_state", dtype=self.variable_dtype)
                state.path = f"{self.name}/rnn_state"
                states.append(state)
            self._set_untracked("states", states)
            self._set_untracked("_fresh", Variable(np.ones((), bool), trainable=False, name="fresh"))
        spec = (None, None, *shape[2:])
        self.input_spec = InputSpec(shape=spec)

    def _batch_major(self, shape):
        return (shape[1], shape[0], *shape[2:]) if self.time_major else shape

    def _as_states(self, states):
        return list(states) if isinstance(states, (list, tuple)) else [states]

    def _cell_initial_state(self, batch):
        make = getattr(self.cell, "get_initial_state", None)
        if make is None:
            return [np.zeros((batch, size), self._working_dtype) for size in self._state_sizes()]
        return make(batch_size=batch)

    # -- calling ------------------------------------------------------------------------------------------------

    def __call__(self, sequences, /, *args, initial_state=None, **kwargs):
        """Run over `sequences`; a list is ``[sequences, *initial_state]``."""
        if isinstance(sequences, list):
            if not sequences or not hasattr(sequences[0], "shape"):
                raise TypeError(
                    f"The inputs of layer '{self.name}' must be an array, or a list [array, *initial_state] of arrays. "
                    "Received a list of Python values: pass np.asarray(inputs)"
                )
            if len(sequences) > 1 and initial_state is not None:
                raise ValueError(
                    "`initial_state` was passed both in the list of inputs and as a keyword argument of layer "
                    f"'{self.name}'"
                )
            sequences, *rest = sequences
            initial_state = rest or initial_state
        if args:
            initial_state, *args = args if initial_state is None else (initial_state, *args)
        mask = kwargs.get("mask")
        if isinstance(mask, list) and mask and (mask[0] is None or hasattr(mask[0], "shape")):
            kwargs["mask"] = mask[0]  # Keras: one mask for each of [inputs, *initial_state]
        elif isinstance(mask, list):
            kwargs["mask"] = np.asarray(mask)
        if initial_state is not None:
            kwargs["initial_state"] = self._check_initial_state(initial_state, sequences)
        return super().__call__(sequences, *args, **kwargs)

    def _check_initial_state(self, initial_state, sequences):
        states = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        sizes = self._state_sizes()
        if len(states) != len(sizes):
            raise ValueError(
                "An `initial_state` was passed that is not compatible with `cell.state_size`. Layer has "
                f"{len(sizes)} states but was passed {len(states)} initial states."
            )
        states = [s if hasattr(s, "shape") else np.asarray(s) for s in states]
        batch = self._batch_major(tuple(np.shape(sequences) if not hasattr(sequences, "shape") else sequences.shape))[0]
        for state, size in zip(states, sizes, strict=True):
            shape = tuple(state.shape)
            fits = len(shape) == 2 and shape[1] == size and (batch is None or shape[0] in (None, batch))
            if not fits:
                raise ValueError(
                    "An `initial_state` was passed that is not compatible with `cell.state_size`. Received state of "
                    f"shape {shape}; however `cell.state_size` is {sizes} and the batch size is {batch}"
                )
        return states

    def call(self, sequences, initial_state=None, mask=None, training=False, reset=None):
        """Run over time.

        Parameters
        ----------
        sequences : array or Tensor, shape (batch, timesteps, ...)
        initial_state : list of arrays (batch, size), optional
            Zeros by default. A stateful layer takes it only at its start.
        mask : array, shape (batch, timesteps), optional
            True where a timestep counts; elsewhere states stay as they are.
        training : bool
            Whether dropout is active.
        reset : array, shape (batch, timesteps), optional
            True where the states of a row are set to zero before the timestep. No gradient flows across.

        Returns
        -------
        array or Tensor, shape (batch, timesteps, size) or (batch, size), or list of it and the last states

        Raises
        ------
        ValueError
            For no timesteps, a mask of another shape, or another batch size than a stateful layer has.
        """
        timesteps = sequences.shape[0 if self.time_major else 1]
        if timesteps == 0:
            raise ValueError(
                f"Layer '{self.name}' needs at least one timestep. Received input with shape {sequences.shape}"
            )
        if self.unroll and timesteps is None:
            raise ValueError(
                "Cannot unroll a RNN if the time dimension is undefined. Pass `input_shape=(timesteps, features)` or "
                f"`Input(shape=(timesteps, features))`. Received input with shape {sequences.shape}"
            )
        sequences = self._working(sequences)
        mask, reset = self._flags("mask", mask, sequences), self._flags("reset", reset, sequences)
        if self.time_major:
            sequences = _swap(sequences)
        states = self._first_states(sequences, initial_state)
        if self.kernel_path == "kernel":
            run = CellRun(
                self.cell,
                sequences,
                states,
                mask=mask,
                reset=reset,
                training=training,
                backwards=self.go_backwards,
                return_sequences=self.return_sequences,
                zero_output=self.zero_output_for_mask,
            )
            out, states = run_cells([run])[0]
        else:
            out, states = self._step_by_step(sequences, states, mask, reset, training)
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
            self._fresh.assign(np.zeros((), bool))
        if self.time_major and self.return_sequences:
            out = _swap(out)
        out = self._working(out)
        return [out, *(self._working(state) for state in states)] if self.return_state else out

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
        batch = sequences.shape[0]
        if initial_state is not None:
            initial_state = [self._working(state) for state in initial_state]
        if not self.stateful:
            if initial_state is None and self.kernel_path == "program":
                initial_state = self._as_states(self._cell_initial_state(batch))
            return initial_state
        expected = self.states[0].shape[0]
        if batch is not None and batch != expected:
            raise ValueError(
                "If an RNN is stateful, the batch size of the input sequences must be the same as the batch size of "
                f"the initial state. \n- Expected batch size: {expected}\n- Received batch size: {batch}"
            )
        recorded = [self._working(state) for state in self.states]
        if initial_state is None:
            return recorded
        return [ops.where(self._fresh, given, own) for given, own in zip(initial_state, recorded, strict=True)]

    def _step_by_step(self, sequences, states, mask, reset, training):
        if sequences.shape[1] is None:
            # Shapes alone are asked for: one timestep gives those of all.
            sequences = sequences[:, :1]
            mask, reset = (None if flags is None else flags[:, :1] for flags in (mask, reset))
        timesteps = sequences.shape[1]
        emitted, last = [], None
        built_in = hasattr(self.cell, "one_sequence")
        with self.cell.one_sequence(sequences, training) if built_in else nullcontext():
            for s in range(timesteps):
                t = timesteps - 1 - s if self.go_backwards else s
                if reset is not None:
                    keep = ops.expand_dims(ops.logical_not(reset[:, t]), -1)
                    states = [ops.where(keep, state, ops.zeros_like(state)) for state in states]
                    last = None if last is None else ops.where(keep, last, ops.zeros_like(last))
                out, new = self._step(sequences[:, t], states, training)
                if mask is not None:
                    counts = ops.expand_dims(mask[:, t], -1)
                    before = ops.zeros_like(out) if last is None or self.zero_output_for_mask else last
                    out = ops.where(counts, out, before)
                    new = [ops.where(counts, a, b) for a, b in zip(new, states, strict=True)]
                states, last = new, out
                emitted.append(out)
        return ops.stack(emitted, axis=1) if self.return_sequences else last, states

    def _step(self, x, states, training):
        given = states[0] if self._single_state else states
        takes_training = isinstance(self.cell, Layer) and self.cell._call_info.has_training
        out, new = self.cell(x, given, training=training) if takes_training else self.cell(x, given)
        return out, self._as_states(new)

    # -- states -------------------------------------------------------------------------------------------------

    def reset_states(self, states=None):
        """Set the states of a stateful layer.

        Parameters
        ----------
        states : list of arrays (batch, size), optional
            Zeros by default, from which a given `initial_state` counts again at the next call.

        Raises
        ------
        AttributeError
            If the layer is not stateful.
        ValueError
            If the batch size is not known yet, or an array does not fit.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        if self.states is None:
            raise ValueError(_STATEFUL_BATCH.format(None))
        if states is None:
            for variable in self.states:
                variable.assign(np.zeros(variable.shape, variable.dtype))
            self._fresh.assign(np.ones((), bool))
            return
        values = [np.asarray(v) for v in (states if isinstance(states, (list, tuple)) else [states])]
        if len(values) != len(self.states):
            raise ValueError(
                f"Layer {self.name} expects {len(self.states)} states, but it received {len(values)} state values. "
                f"States received: {states}"
            )
        for number, (value, variable) in enumerate(zip(values, self.states, strict=True)):
            if value.shape != variable.shape:
                raise ValueError(
                    f"State {number} is incompatible with layer {self.name}: expected shape={variable.shape} but found "
                    f"shape={value.shape}"
                )
        for value, variable in zip(values, self.states, strict=True):
            variable.assign(value)
        self._fresh.assign(np.zeros((), bool))

    def reset_state(self, states=None):
        """Set the states of a stateful layer; the same as `reset_states`."""
        self.reset_states(states)

    def get_initial_state(self, batch_size):
        """Return the states that a sequence starts from: those of the cell, zeros mostly.

        Parameters
        ----------
        batch_size : int

        Returns
        -------
        list of ndarray
        """
        return self._as_states(self._cell_initial_state(batch_size))

    # -- shapes, masks, configuration ---------------------------------------------------------------------------

    def compute_mask(self, inputs, previous_mask=None):
        """Return the mask of the inputs for sequences, None for all else."""
        if isinstance(previous_mask, (list, tuple)):
            previous_mask = previous_mask[0]
        mask = previous_mask if self.return_sequences else None
        return [mask] + [None] * len(self._state_sizes()) if self.return_state else mask

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        """Return the shape of the output, or the shapes of output and states."""
        if isinstance(sequences_shape, list):
            sequences_shape = sequences_shape[0]
        batch, timesteps = self._batch_major(tuple(sequences_shape))[:2]
        size = self._output_size
        if self.return_sequences:
            out = (timesteps, batch, size) if self.time_major else (batch, timesteps, size)
        else:
            out = (batch, size)
        if not self.return_state:
            return out
        return [out, *((batch, size) for size in self._state_sizes())]

    def _loop_config(self):
        config = {
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
        }
        return {**config, "time_major": True} if self.time_major else config

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), **self._loop_config(), "cell": serialize_keras_object(self.cell)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a layer from `get_config`'s result."""
        config = dict(config)
        if isinstance(config.get("cell"), dict):
            config["cell"] = deserialize_keras_object(config["cell"], custom_objects=custom_objects)
        return cls(**config)


def _swap(x):
    return ops.transpose(x, (1, 0, *range(2, len(x.shape))))


export("keras.layers", RNN)
