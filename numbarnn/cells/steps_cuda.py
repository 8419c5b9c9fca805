"""Steps of LSTM, GRU (`reset_after`) and SimpleRNN as the GPU kernels of every cell take them: on working memory.

The formulas are the ``step`` and ``step_back`` of the cells' own files.
"""

from numpy import float32

from numbarnn.cells import gru, lstm, simple_rnn
from numbarnn.jit import device


@device
def lstm_step(z, sums, state, kept, activation, recurrent_activation):
    """Take a step: from the gates' inputs and products to the new state and what the tape keeps."""
    state[0], state[1], kept[0], kept[1], kept[2], kept[3] = lstm.step(
        z[0] + sums[0], z[1] + sums[1], z[2] + sums[2], z[3] + sums[3], state[1], activation, recurrent_activation
    )


@device
def lstm_step_back(d_state, kept, before, after, dz, activation, recurrent_activation):
    """Take a step back: to the gradients of the gates' inputs and of the state, but for those through the product."""
    dz[0], dz[1], dz[2], dz[3], d_state[1] = lstm.step_back(
        d_state[0], d_state[1], kept[0], kept[1], kept[2], kept[3], before[1], after[1], activation,
        recurrent_activation,
    )  # fmt: skip
    d_state[0] = float32(0)


@device
def gru_step(z, sums, state, kept, activation, recurrent_activation):
    """See `lstm_step`; the fourth of `z` is where the candidate's own product begins."""
    m = z[3] + sums[2]
    state[0], kept[0], kept[1], kept[2] = gru.step(
        z[0] + sums[0], z[1] + sums[1], z[2], m, state[0], activation, recurrent_activation
    )
    kept[3] = m


@device
def gru_step_back(d_state, kept, before, after, dz, activation, recurrent_activation):
    """See `lstm_step_back`."""
    dz[0], dz[1], dz[2], dz[3], d_state[0] = gru.step_back(
        d_state[0], kept[0], kept[1], kept[2], kept[3], before[0], activation, recurrent_activation
    )


@device
def simple_rnn_step(z, sums, state, kept, activation, recurrent_activation):
    """See `lstm_step`."""
    state[0], kept[0] = simple_rnn.step(z[0] + sums[0], activation)


@device
def simple_rnn_step_back(d_state, kept, before, after, dz, activation, recurrent_activation):
    """See `lstm_step_back`."""
    dz[0] = simple_rnn.step_back(d_state[0], kept[0], activation)
    d_state[0] = float32(0)


#: By the name of the cell: the step and the step back.
STEPS = {
    "LSTM": (lstm_step, lstm_step_back),
    "GRU": (gru_step, gru_step_back),
    "SimpleRNN": (simple_rnn_step, simple_rnn_step_back),
}
