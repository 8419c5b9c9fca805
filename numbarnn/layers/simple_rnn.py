"""`SimpleRNNCell` and `SimpleRNN`."""

from .. import cells
from ..serialization import export
from .kernel_cell import KernelCell, arguments
from .kernel_rnn import KernelRNN

__all__ = ["SimpleRNN", "SimpleRNNCell"]


class SimpleRNNCell(KernelCell):
    """One step of a plain recurrent network: its output comes back as an input.

    Parameters
    ----------
    units : int
        Size of the output and of the state.
    activation : str or callable
        By kernels: elu, exponential, gelu, hard_sigmoid, linear, relu, selu, sigmoid, silu, softplus, softsign, tanh.
        Others run step by step.
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str, callable or array
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or callable, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or callable, optional
    dropout, recurrent_dropout : float
        Part of the inputs, of h, that is set to zero in training, in [0, 1]: the same for all timesteps of a sequence.
    seed : int, optional
        Of the dropout.
    implementation : int
        0, 1 or 2, without effect: Keras 2 takes it.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    kernel, recurrent_kernel, bias : Variable, shape (inputs, units), (units, units), (units,)
    state_size, output_size : int

    Raises
    ------
    ValueError
        If `units` is not a positive integer.
    """

    kernels = cells.SIMPLE_RNN

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
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

    def one_step(self, x, h, states):  # noqa: D102 - as KernelCell's
        return [self.activation(x(0) + h(0))], []


class SimpleRNN(KernelRNN):
    """Plain recurrent network, its output fed back: ``RNN(SimpleRNNCell(units, ...))``.

    Parameters
    ----------
    units, activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer, kernel_regularizer, \
recurrent_regularizer, bias_regularizer
        See `SimpleRNNCell`.
    activity_regularizer : str or callable, optional
        A penalty on the outputs, divided by the batch size.
    kernel_constraint, recurrent_constraint, bias_constraint, dropout, recurrent_dropout
        See `SimpleRNNCell`.
    return_sequences, return_state, go_backwards, stateful, unroll
        See `RNN`.
    seed
        See `SimpleRNNCell`.
    time_major, zero_output_for_mask
        See `RNN`.
    implementation
        See `SimpleRNNCell`.
    **kwargs
        Of `Layer`, and `checkpoint` of `RNN`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.SimpleRNN(4)(np.zeros((2, 5, 3), np.float32)).shape
    (2, 4)
    """

    cell_type = SimpleRNNCell
    knows_cudnn = False

    def __init__(
        self,
        units,
        activation="tanh",
        use_bias=True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        seed=None,
        *,
        time_major=False,
        zero_output_for_mask=False,
        implementation=2,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


export("keras.layers", SimpleRNNCell, SimpleRNN)
