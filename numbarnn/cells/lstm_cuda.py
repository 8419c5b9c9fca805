"""LSTM on the GPU: the loops of band G.  Equations and formulas are those of `numbarnn.cells.lstm`.

The arrays are those of `numbarnn.cells.rows_cuda`.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
from numbarnn.cells.lstm import step, step_back
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
    sums, products = cuda.local.array((ROWS, 4), gates.dtype), cuda.local.array((ROWS, 4), gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                if any_counts(flags, s, top, ROWS):
                    multiply(products, sums, states[0, slot], top, h_factors, 0, 4, recurrent, unit)
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        zi = gate_input(gates, bias, products[i, 0], s, r, unit, flag)
                        zf = gate_input(gates, bias, products[i, 1], s, r, units + unit, flag)
                        zg = gate_input(gates, bias, products[i, 2], s, r, 2 * units + unit, flag)
                        zo = gate_input(gates, bias, products[i, 3], s, r, 3 * units + unit, flag)
                        c0 = state_before(states, 1, slot, r, unit, flag)
                        h, c, ki, kf, kg, ko = step(zi, zf, zg, zo, c0, activation, recurrent_activation)
                        states[0, new_slot, r, unit] = h
                        states[1, new_slot, r, unit] = c
                        if saving:
                            gates[s, r, unit] = ki
                            gates[s, r, units + unit] = kf
                            gates[s, r, 2 * units + unit] = kg
                            gates[s, r, 3 * units + unit] = ko
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
    zero = gates.dtype.type(0)
    for s in range(last - 1, first - 1, -1):
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                for r in range(top, min(top + ROWS, batch)):
                    flag = flags[s, r]
                    dh = gradient_of_h(d_states, d_out, s, r, unit, flag)
                    if flag & COUNTS:
                        di, df, dg, do, dc0 = step_back(
                            dh, d_states[1, r, unit],
                            gates[s, r, unit], gates[s, r, units + unit],
                            gates[s, r, 2 * units + unit], gates[s, r, 3 * units + unit],
                            state_before(states, 1, s, r, unit, flag), states[1, s + 1, r, unit],
                            activation, recurrent_activation,
                        )  # fmt: skip
                        gates[s, r, unit] = di
                        gates[s, r, units + unit] = df
                        gates[s, r, 2 * units + unit] = dg
                        gates[s, r, 3 * units + unit] = do
                        d_states[0, r, unit] = zero
                        d_states[1, r, unit] = dc0
                    else:
                        d_states[0, r, unit] = dh
                        skip_back(gates, apart, s, r, unit)
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    multiply_back(totals, sums, gates[s], top, 0, 4, h_factors, 0, transposed, unit)
                add_back(d_states, totals, flags, s, top, unit)
