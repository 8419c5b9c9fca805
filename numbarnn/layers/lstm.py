"""`LSTMCell` and `LSTM`."""

import numpy as np

from .. import cells
from ..serialization import export
from .kernel_cell import KernelCell, arguments
from .kernel_rnn import KernelRNN

__all__ = ["LSTM", "LSTMCell"]


class LSTMCell(KernelCell):
    """One step of a long short-term memory.

    Parameters
    ----------
    units : int
        Size of the output and of both states, h and c.
    activation, recurrent_activation : str or callable
        Of the candidate and the output; of the gates. By kernels: elu, exponential, gelu, hard_sigmoid, linear, relu,
        selu, sigmoid, silu, softplus, softsign, tanh. Others run step by step.
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

    kernels = cells.LSTM
    gate_names = ("input", "forget", "candidate", "output")

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
        super().__init__(**arguments(locals()))

    def first_bias(self, shape, dtype=None):
        """Return what the bias starts from: ones for the forget gate."""
        if not self.unit_forget_bias:
            return super().first_bias(shape, dtype)
        units = self.units
        first = self.bias_initializer((units,), dtype=dtype)
        rest = self.bias_initializer((2 * units,), dtype=dtype)
        return np.concatenate([first, np.ones(units, np.asarray(first).dtype), rest])

    def one_step(self, x, h, states):  # noqa: D102 - as KernelCell's
        activation, recurrent_activation = self.activation, self.recurrent_activation
        i, f, g, o = (x(gate) + h(gate) for gate in range(4))
        i, f, g, o = recurrent_activation(i), recurrent_activation(f), activation(g), recurrent_activation(o)
        c = f * states[1] + i * g
        return [o * activation(c), c], [i, f, g, o]


class LSTM(KernelRNN):
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
        Of `Layer`, and `checkpoint` of `RNN`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.LSTM(4)(np.zeros((2, 5, 3), np.float32)).shape
    (2, 4)
    """

    cell_type = LSTMCell

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
        super().__init__(**arguments(locals()))


export("keras.layers", LSTMCell, LSTM)
