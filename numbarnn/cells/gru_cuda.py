"""GRU on the GPU: its step in the loops of band G.  Equations and formulas are those of `numbarnn.cells.gru`.

The arrays are those of `numbarnn.cells.rows_cuda`; `apart` holds m.
"""

from numbarnn.cells.contract import CUT
from numbarnn.cells.gru import CELL, step, step_back
from numbarnn.cells.rows_cuda import gate_input, loops, state_before
from numbarnn.jit import device


@device
def take_step(
    gates, apart, bias, products, states, slot, new_slot, s, r, unit, flag, saving, activation, recurrent_activation
):  # fmt: skip
    """See `numbarnn.cells.rows_cuda.loops`."""
    units = states.shape[3]
    zz = gate_input(gates, bias, products[0], s, r, unit, flag)
    zr = gate_input(gates, bias, products[1], s, r, units + unit, flag)
    zh = bias[2 * units + unit] + gates[s, r, 2 * units + unit]
    m = bias[3 * units + unit]
    if not flag & CUT:
        m += products[2]
    h0 = state_before(states, 0, slot, r, unit, flag)
    h, kz, kr, kg = step(zz, zr, zh, m, h0, activation, recurrent_activation)
    states[0, new_slot, r, unit] = h
    if saving:
        gates[s, r, unit] = kz
        gates[s, r, units + unit] = kr
        gates[s, r, 2 * units + unit] = kg
        apart[s, r, unit] = m


@device
def take_step_back(dh, gates, apart, states, d_states, s, r, unit, flag, activation, recurrent_activation):
    """See `numbarnn.cells.rows_cuda.loops`."""
    units = states.shape[3]
    dz, dr, dg, dm, dh = step_back(
        dh, gates[s, r, unit], gates[s, r, units + unit], gates[s, r, 2 * units + unit], apart[s, r, unit],
        state_before(states, 0, s, r, unit, flag), activation, recurrent_activation,
    )  # fmt: skip
    gates[s, r, unit] = dz
    gates[s, r, units + unit] = dr
    gates[s, r, 2 * units + unit] = dg
    apart[s, r, unit] = dm
    d_states[0, r, unit] = dh


forward, backward = loops(CELL, take_step, take_step_back)
