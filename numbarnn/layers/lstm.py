"""`LSTMCell` and `LSTM`."""

import threading
from contextlib import contextmanager

import numpy as np

from .. import activations, constraints, initializers, ops, random, regularizers
from ..cells import lstm
from ..serialization import export
from ..simd_math import ACTIVATIONS
from .base import InputSpec, Layer
from .fused import CellRun, PackedCache, run_cells
from .rnn import RNN

__all__ = ["LSTM", "LSTMCell"]


def _kernel_name(activation):
    """Name of an activation that the kernels have, or None."""
    name = getattr(activation, "__name__", None)
    return name if name in ACTIVATIONS and getattr(activations, name, None) is activation else None


class _Sequence(threading.local):
    """Dropout factors of the sequences that this thread is in the midst of, by the id of the cell that steps."""

    factors = {}


_sequence = _Sequence()


class LSTMCell(Layer):
    """One step of a long short-term memory.

    Parameters
    ----------
    units : int
        Size of the output and of both states, h and c.
    activation, recurrent_activation : str or callable
        Of the candidate and the output; of the gates. A callable that is none of numbarnn's own runs step by step.
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str, callable or array
    unit_forget_bias : bool
        Start the forget gate's bias from 1.
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or callable, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or callable, optional
    dropout, recurrent_dropout : float
        Part of the inputs, of h, that is set to zero in training, in [0, 1]: the same for all timesteps of a sequence.
        With `recurrent_dropout`, or ``implementation=1``, each gate has its own.
    seed : int, optional
        Of the dropout.
    implementation : int
        1 or 2 (0 is Keras's old name of 1); the results differ in how dropout is shared between the gates only.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    kernel, recurrent_kernel, bias : Variable, shape (inputs, 4 * units), (units, 4 * units), (4 * units,)
        Gates in the order i, f, c, o.
    state_size : list of int
    output_size : int

    Raises
    ------
    ValueError
        If `units` is not a positive integer.
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        *,
        implementation=2,
        **kwargs,
    ):
        if isinstance(units, bool) or not isinstance(units, (int, np.integer)) or units <= 0:
            raise ValueError(
                f"Received an invalid value for argument `units`, expected a positive integer, got {units!r}."
            )
        if implementation not in (0, 1, 2):
            raise ValueError(f"Argument `implementation` must be 0, 1 or 2. Received: implementation={implementation}")
        super().__init__(**kwargs)
        self.units = int(units)
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.unit_forget_bias = bool(unit_forget_bias)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = min(1.0, max(0.0, dropout))
        self.recurrent_dropout = min(1.0, max(0.0, recurrent_dropout))
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)
        # With dropout of h, Keras computes gate by gate; that is where each gate gets factors of its own.
        self.implementation = 1 if self.recurrent_dropout > 0 else max(1, implementation)
        self.state_size = [self.units, self.units]
        self.output_size = self.units
        self._set_untracked("_packed", PackedCache())

    @property
    def fused_cell(self):
        """The cell's kernels, or None where an activation has none."""
        own = _kernel_name(self.activation), _kernel_name(self.recurrent_activation)
        return lstm.CELL if None not in own else None

    def build(self, input_shape):
        """Make the weights for inputs of shape (batch, features)."""
        units = self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], 4 * units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(units, 4 * units),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            constraint=self.recurrent_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(4 * units,),
                initializer=self._forget_bias if self.unit_forget_bias else self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _forget_bias(self, shape, dtype=None):
        units = self.units
        first = self.bias_initializer((units,), dtype=dtype)
        rest = self.bias_initializer((2 * units,), dtype=dtype)
        return np.concatenate([first, np.ones(units, np.asarray(first).dtype), rest])

    def _weights(self):
        bias = self._working(self.bias) if self.use_bias else None
        return self._working(self.kernel), self._working(self.recurrent_kernel), bias

    def _dropout_factors(self, x, training):
        """Draw the factors of one sequence, (copies, batch, features) of x and of h; None where there is no dropout."""
        if not training or not (self.dropout or self.recurrent_dropout):
            return None, None
        copies = 4 if self.implementation == 1 else 1
        x_factors = h_factors = None
        if self.dropout:
            x_factors = random.dropout_factors(x, self.dropout, copies=copies, seed=self.seed_generator)
        if self.recurrent_dropout:
            h_factors = random.dropout_factors(
                x, self.recurrent_dropout, noise_shape=(None, self.units), copies=copies, seed=self.seed_generator
            )
        return x_factors, h_factors

    def kernel_arguments(self, run):
        """Return what the kernels need for a `CellRun`: arrays and options."""
        kernel, recurrent_kernel, bias = self._weights()
        x = run.sequences if run.sequences.dtype == kernel.dtype else ops.cast(run.sequences, kernel.dtype)
        states = [s if s.dtype == kernel.dtype else ops.cast(s, kernel.dtype) for s in run.states or ()]
        x_factors, h_factors = None, None
        if run.training and (self.dropout or self.recurrent_dropout):
            x_factors, h_factors = self._dropout_factors(x[:, 0], run.training)
        return [x, kernel, recurrent_kernel, bias, x_factors, h_factors, *states], {
            "cell": lstm.CELL,
            "cache": self._packed,
            "variables": (self.kernel, self.recurrent_kernel, self.bias),
            "activations": (_kernel_name(self.activation), _kernel_name(self.recurrent_activation)),
        }

    @contextmanager
    def one_sequence(self, sequences, training):
        """Draw the dropout factors that the steps within share; `RNN` enters it where there are no kernels."""
        before = _sequence.factors
        _sequence.factors = {**before, id(self): self._dropout_factors(sequences[:, 0], training)}
        try:
            yield
        finally:
            _sequence.factors = before

    def call(self, inputs, states, training=False):
        """One step.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, features)
        states : list of two arrays (batch, units)
            h and c.
        training : bool
            Whether dropout is active.

        Returns
        -------
        output : array or Tensor, shape (batch, units)
            The new h.
        states : list of two
            The new h and c.
        """
        inputs = self._working(inputs)
        states = [self._working(state) for state in states]
        if self.fused_cell is not None:
            run = CellRun(self, ops.expand_dims(inputs, 1), states, training=training, return_sequences=False)
            return run_cells([run])[0]
        h, c = states
        x_factors, h_factors = _sequence.factors.get(id(self)) or self._dropout_factors(inputs, training)
        kernel, recurrent_kernel, bias = self._weights()

        def gate(number):
            columns = slice(number * self.units, (number + 1) * self.units)
            x = inputs if x_factors is None else inputs * x_factors[number % x_factors.shape[0]]
            last = h if h_factors is None else h * h_factors[number % h_factors.shape[0]]
            z = ops.matmul(x, kernel[:, columns]) + ops.matmul(last, recurrent_kernel[:, columns])
            return z if bias is None else z + bias[columns]

        i, f = self.recurrent_activation(gate(0)), self.recurrent_activation(gate(1))
        c = f * c + i * self.activation(gate(2))
        h = self.recurrent_activation(gate(3)) * self.activation(c)
        return h, [h, c]

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
        list of two ndarrays of zeros, shape (batch_size, units)
        """
        if inputs is not None:
            batch_size, dtype = inputs.shape[0], dtype or inputs.dtype
        if batch_size is None:
            raise ValueError("Argument `batch_size` must be given where `inputs` are not. Received: batch_size=None")
        return [np.zeros((batch_size, self.units), dtype or self._working_dtype) for _ in range(2)]

    def get_config(self):
        """Return the arguments that make this cell again."""
        return {**super().get_config(), **self._cell_config()}

    def _cell_config(self):
        return {
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "recurrent_activation": activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": initializers.serialize(self.recurrent_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "unit_forget_bias": self.unit_forget_bias,
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "recurrent_constraint": constraints.serialize(self.recurrent_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
        }


def _of_cell(name):
    return property(lambda self: getattr(self.cell, name), doc=f"`LSTMCell.{name}` of the cell.")


class LSTM(RNN):
    """Long short-term memory: ``RNN(LSTMCell(units, ...))``.

    Parameters
    ----------
    units, activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer, \
unit_forget_bias, kernel_regularizer, recurrent_regularizer, bias_regularizer
        See `LSTMCell`.
    activity_regularizer : str or callable, optional
        A penalty on the outputs, divided by the batch size.
    kernel_constraint, recurrent_constraint, bias_constraint, dropout, recurrent_dropout, seed
        See `LSTMCell`.
    return_sequences, return_state, go_backwards, stateful, unroll
        See `RNN`.
    use_cudnn : bool or "auto"
        Keras's; True raises ValueError.
    time_major, zero_output_for_mask
        See `RNN`.
    implementation
        See `LSTMCell`.
    **kwargs
        Of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.LSTM(4)(np.zeros((2, 5, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        unit_forget_bias=True,
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        use_cudnn="auto",
        *,
        time_major=False,
        zero_output_for_mask=False,
        implementation=2,
        **kwargs,
    ):
        if use_cudnn not in ("auto", True, False):
            raise ValueError(
                "Invalid valid received for argument `use_cudnn`. Expected one of {'auto', True, False}. "
                f"Received: use_cudnn={use_cudnn}"
            )
        if use_cudnn is True:
            raise ValueError(
                "use_cudnn=True was specified, but cuDNN is not supported for this layer configuration: kernels here "
                "are numbarnn's own"
            )
        cell = LSTMCell(
            units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            seed=seed,
            implementation=implementation,
            dtype=kwargs.get("dtype"),
            trainable=kwargs.get("trainable", True),
            name="lstm_cell",
        )
        super().__init__(
            cell,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            unroll=unroll,
            zero_output_for_mask=zero_output_for_mask,
            time_major=time_major,
            activity_regularizer=activity_regularizer,
            **kwargs,
        )
        self.input_spec = InputSpec(ndim=3)

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {k: v for k, v in super().get_config().items() if k not in ("cell", "activity_regularizer")}
        for name, value in self.cell._cell_config().items():
            config[name] = value
            if name == "bias_regularizer":  # where Keras has it
                config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return config

    @classmethod
    def from_config(cls, config):
        """Make a layer from `get_config`'s result."""
        return cls(**config)


for _name in (
    "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "unit_forget_bias kernel_regularizer recurrent_regularizer bias_regularizer kernel_constraint "
    "recurrent_constraint bias_constraint dropout recurrent_dropout seed implementation"
).split():
    setattr(LSTM, _name, _of_cell(_name))
export("keras.layers", LSTMCell, LSTM)
