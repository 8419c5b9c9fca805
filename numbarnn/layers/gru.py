"""`GRUCell` and `GRU`."""

from .. import cells
from ..serialization import export
from .kernel_cell import KernelCell, arguments
from .kernel_rnn import KernelRNN

__all__ = ["GRU", "GRUCell"]


class GRUCell(KernelCell):
    """One step of a gated recurrent unit.

    Parameters
    ----------
    units : int
        Size of the output and of the state.
    activation, recurrent_activation : str or callable
        Of the candidate; of the gates. By kernels: elu, exponential, gelu, hard_sigmoid, linear, relu,
        selu, sigmoid, silu, softplus, softsign, tanh. Others run step by step.
    use_bias : bool
    kernel_initializer, recurrent_initializer, bias_initializer : str, callable or array
    kernel_regularizer, recurrent_regularizer, bias_regularizer : str or callable, optional
    kernel_constraint, recurrent_constraint, bias_constraint : str or callable, optional
    dropout, recurrent_dropout : float
        Part of the inputs, of h, that is set to zero in training, in [0, 1]: the same for all timesteps of a sequence.
        With `recurrent_dropout`, or ``implementation=1``, each gate has its own.
    reset_after : bool
        Whether the reset gate acts on the recurrent product (as cuDNN has it; with a bias of its own), or on h before
        it.
    seed : int, optional
        Of the dropout.
    implementation : int
        1 or 2 (0 is Keras's old name of 1); the results differ in how dropout is shared between the gates only.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    kernel, recurrent_kernel, bias : Variable, shape (inputs, 3 * units), (units, 3 * units), (2, 3 * units)
        Gates in the order z, r, h. The rows of the bias belong to the two products; without `reset_after` its shape is
        (3 * units,).
    state_size, output_size : int

    Raises
    ------
    ValueError
        If `units` is not a positive integer.
    """

    gate_names = ("update", "reset", "candidate")

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
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
        reset_after=True,
        seed=None,
        *,
        implementation=2,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))

    @property
    def kernels(self):
        """The kernels: one set for each place of the reset gate."""
        return cells.GRU if self.reset_after else cells.GRU_RESET_BEFORE

    def one_step(self, x, h, states):  # noqa: D102 - as KernelCell's
        z = self.recurrent_activation(x(0) + h(0))
        r = self.recurrent_activation(x(1) + h(1))
        new = self.activation(x(2) + (r * h(2) if self.reset_after else h(2, r)))
        return [z * states[0] + (1 - z) * new], [z, r, new]


class GRU(KernelRNN):
    """Gated recurrent unit: ``RNN(GRUCell(units, ...))``.

    Parameters
    ----------
    units, activation, recurrent_activation, use_bias, kernel_initializer, recurrent_initializer, bias_initializer, \
kernel_regularizer, recurrent_regularizer, bias_regularizer
        See `GRUCell`.
    activity_regularizer : str or callable, optional
        A penalty on the outputs, divided by the batch size.
    kernel_constraint, recurrent_constraint, bias_constraint, dropout, recurrent_dropout, seed
        See `GRUCell`.
    return_sequences, return_state, go_backwards, stateful, unroll
        See `RNN`.
    reset_after
        See `GRUCell`.
    use_cudnn : bool or "auto"
        Keras's; True raises ValueError.
    time_major, zero_output_for_mask
        See `RNN`.
    implementation
        See `GRUCell`.
    **kwargs
        Of `Layer`, and `checkpoint` of `RNN`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.GRU(4)(np.zeros((2, 5, 3), np.float32)).shape
    (2, 4)
    """

    cell_type = GRUCell

    def __init__(
        self,
        units,
        activation="tanh",
        recurrent_activation="sigmoid",
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
        seed=None,
        return_sequences=False,
        return_state=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        reset_after=True,
        use_cudnn="auto",
        *,
        time_major=False,
        zero_output_for_mask=False,
        implementation=2,
        **kwargs,
    ):
        super().__init__(**arguments(locals()))


export("keras.layers", GRUCell, GRU)
