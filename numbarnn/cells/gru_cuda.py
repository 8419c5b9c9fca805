"""GRU on the GPU: the loops of band G.  Equations and formulas are those of `numbarnn.cells.gru`.

The arrays are those of `numbarnn.cells.rows_cuda`; `apart` holds m.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS, CUT
from numbarnn.cells.gru import step, step_back
from numbarnn.cells.rows_cuda import (
    ROWS,
    add_back,
    any_counts,
    clear,
    finish_step,
    gate_input,
    gradient_of_h,
    multiply,
    multiply_back,
    skip_back,
    slots_of,
    state_before,
)


@cuda.kernel(max_threads=128)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, group = cuda.grid(2)
    unit_step, groups = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    sums, products = cuda.local.array((ROWS, 3), gates.dtype), cuda.local.array((ROWS, 3), gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                if any_counts(flags, s, top, ROWS):
                    multiply(products, sums, states[0, slot], top, h_factors, 0, 3, recurrent, unit)
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        zz = gate_input(gates, bias, products[i, 0], s, r, unit, flag)
                        zr = gate_input(gates, bias, products[i, 1], s, r, units + unit, flag)
                        zh = bias[2 * units + unit] + gates[s, r, 2 * units + unit]
                        m = bias[3 * units + unit]
                        if not flag & CUT:
                            m += products[i, 2]
                        h0 = state_before(states, 0, slot, r, unit, flag)
                        h, kz, kr, kg = step(zz, zr, zh, m, h0, activation, recurrent_activation)
                        states[0, new_slot, r, unit] = h
                        if saving:
                            gates[s, r, unit] = kz
                            gates[s, r, units + unit] = kr
                            gates[s, r, 2 * units + unit] = kg
                            apart[s, r, unit] = m
                    finish_step(states, slot, new_slot, out, s, r, unit, flag)
        grid.sync()


@cuda.kernel(max_threads=128)
def backward(
    gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, activation, recurrent_activation
):  # fmt: skip
    """Run the steps last-1 .. first of all rows back."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, group = cuda.grid(2)
    unit_step, groups = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    totals, sums = cuda.local.array(ROWS, gates.dtype), cuda.local.array(ROWS, gates.dtype)
    for s in range(last - 1, first - 1, -1):
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                for r in range(top, min(top + ROWS, batch)):
                    flag = flags[s, r]
                    dh = gradient_of_h(d_states, d_out, s, r, unit, flag)
                    if flag & COUNTS:
                        dz, dr, dg, dm, dh = step_back(
                            dh, gates[s, r, unit], gates[s, r, units + unit], gates[s, r, 2 * units + unit],
                            apart[s, r, unit], state_before(states, 0, s, r, unit, flag),
                            activation, recurrent_activation,
                        )  # fmt: skip
                        gates[s, r, unit] = dz
                        gates[s, r, units + unit] = dr
                        gates[s, r, 2 * units + unit] = dg
                        apart[s, r, unit] = dm
                    else:
                        skip_back(gates, apart, s, r, unit)
                    d_states[0, r, unit] = dh
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    multiply_back(totals, sums, gates[s], top, 0, 2, h_factors, 0, transposed, unit)
                    multiply_back(totals, sums, apart[s], top, 0, 1, h_factors, 2, transposed, unit)
                add_back(d_states, totals, flags, s, top, unit)
