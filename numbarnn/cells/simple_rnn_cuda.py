"""SimpleRNN on the GPU: its step in the loops of band G.  The equation is that of `numbarnn.cells.simple_rnn`.

The arrays are those of `numbarnn.cells.rows_cuda`; the recurrent activation is not used.
"""

from numbarnn.cells.rows_cuda import gate_input, loops
from numbarnn.cells.simple_rnn import CELL, step, step_back
from numbarnn.jit import device


@device
def take_step(
    gates, apart, bias, products, states, slot, new_slot, s, r, unit, flag, saving, activation, recurrent_activation
):  # fmt: skip
    """See `numbarnn.cells.rows_cuda.loops`."""
    h, kh = step(gate_input(gates, bias, products[0], s, r, unit, flag), activation)
    states[0, new_slot, r, unit] = h
    if saving:
        gates[s, r, unit] = kh


@device
def take_step_back(dh, gates, apart, states, d_states, s, r, unit, flag, activation, recurrent_activation):
    """See `numbarnn.cells.rows_cuda.loops`."""
    gates[s, r, unit] = step_back(dh, gates[s, r, unit], activation)
    d_states[0, r, unit] = gates.dtype.type(0)


forward, backward = loops(CELL, take_step, take_step_back)
