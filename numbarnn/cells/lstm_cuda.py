"""LSTM on the GPU: its step in the loops of band G.  Equations and formulas are those of `numbarnn.cells.lstm`.

The arrays are those of `numbarnn.cells.rows_cuda`.
"""

from numbarnn.cells.lstm import CELL, step, step_back
from numbarnn.cells.rows_cuda import gate_input, loops, state_before
from numbarnn.jit import device


@device
def take_step(
    gates, apart, bias, products, states, slot, new_slot, s, r, unit, flag, saving, activation, recurrent_activation
):  # fmt: skip
    """See `numbarnn.cells.rows_cuda.loops`."""
    units = states.shape[3]
    zi = gate_input(gates, bias, products[0], s, r, unit, flag)
    zf = gate_input(gates, bias, products[1], s, r, units + unit, flag)
    zg = gate_input(gates, bias, products[2], s, r, 2 * units + unit, flag)
    zo = gate_input(gates, bias, products[3], s, r, 3 * units + unit, flag)
    c0 = state_before(states, 1, slot, r, unit, flag)
    h, c, ki, kf, kg, ko = step(zi, zf, zg, zo, c0, activation, recurrent_activation)
    states[0, new_slot, r, unit] = h
    states[1, new_slot, r, unit] = c
    if saving:
        gates[s, r, unit] = ki
        gates[s, r, units + unit] = kf
        gates[s, r, 2 * units + unit] = kg
        gates[s, r, 3 * units + unit] = ko


@device
def take_step_back(dh, gates, apart, states, d_states, s, r, unit, flag, activation, recurrent_activation):
    """See `numbarnn.cells.rows_cuda.loops`."""
    units = states.shape[3]
    di, df, dg, do, dc0 = step_back(
        dh, d_states[1, r, unit],
        gates[s, r, unit], gates[s, r, units + unit], gates[s, r, 2 * units + unit], gates[s, r, 3 * units + unit],
        state_before(states, 1, s, r, unit, flag), states[1, s + 1, r, unit], activation, recurrent_activation,
    )  # fmt: skip
    gates[s, r, unit] = di
    gates[s, r, units + unit] = df
    gates[s, r, 2 * units + unit] = dg
    gates[s, r, 3 * units + unit] = do
    d_states[0, r, unit] = gates.dtype.type(0)
    d_states[1, r, unit] = dc0


forward, backward = loops(CELL, take_step, take_step_back)
