"""LSTM on the GPU: the loops of band G.  Equations and formulas are those of `numbarnn.cells.lstm`.

The arrays are those of `numbarnn.cells.rows_cuda`.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
from numbarnn.cells.lstm import step, step_back
from numbarnn.cells.rows_cuda import (
    add_products,
    cut_back,
    finish_step,
    gradient_of_h,
    product_back,
    skip_back,
    slots_of,
    state_before,
)


@cuda.kernel(max_threads=256)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, first_row = cuda.grid(2)
    unit_step, row_step = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    z = cuda.local.array(4, gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    for g in range(4):
                        z[g] = bias[g * units + unit] + gates[s, r, g * units + unit]
                    add_products(z, states[0, slot], r, h_factors, 0, recurrent, unit, flag)
                    c0 = state_before(states, 1, slot, r, unit, flag)
                    h, c, ki, kf, kg, ko = step(z[0], z[1], z[2], z[3], c0, activation, recurrent_activation)
                    states[0, new_slot, r, unit] = h
                    states[1, new_slot, r, unit] = c
                    if saving:
                        gates[s, r, unit] = ki
                        gates[s, r, units + unit] = kf
                        gates[s, r, 2 * units + unit] = kg
                        gates[s, r, 3 * units + unit] = ko
                finish_step(states, slot, new_slot, out, s, r, unit, flag)
        grid.sync()


@cuda.kernel(max_threads=256)
def backward(
    gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, activation, recurrent_activation
):  # fmt: skip
    """Run the steps last-1 .. first of all rows back."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, first_row = cuda.grid(2)
    unit_step, row_step = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    zero = gates.dtype.type(0)
    for s in range(last - 1, first - 1, -1):
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
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
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    d_states[0, r, unit] += product_back(gates[s], r, 0, 4, h_factors, 0, transposed, unit)
                cut_back(d_states, r, unit, flag)
