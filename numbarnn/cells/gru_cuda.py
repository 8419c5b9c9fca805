"""GRU on the GPU: the loops of band G.  Equations and formulas are those of `numbarnn.cells.gru`.

The arrays are those of `numbarnn.cells.rows_cuda`; `apart` holds m.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
from numbarnn.cells.gru import step, step_back
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
    z = cuda.local.array(3, gates.dtype)  # inputs of z and r, and m
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    for g in range(2):
                        z[g] = bias[g * units + unit] + gates[s, r, g * units + unit]
                    z[2] = bias[3 * units + unit]
                    add_products(z, states[0, slot], r, h_factors, 0, recurrent, unit, flag)
                    zh = bias[2 * units + unit] + gates[s, r, 2 * units + unit]
                    h0 = state_before(states, 0, slot, r, unit, flag)
                    h, kz, kr, kg = step(z[0], z[1], zh, z[2], h0, activation, recurrent_activation)
                    states[0, new_slot, r, unit] = h
                    if saving:
                        gates[s, r, unit] = kz
                        gates[s, r, units + unit] = kr
                        gates[s, r, 2 * units + unit] = kg
                        apart[s, r, unit] = z[2]
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
    for s in range(last - 1, first - 1, -1):
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                dh = gradient_of_h(d_states, d_out, s, r, unit, flag)
                if flag & COUNTS:
                    dz, dr, dg, dm, dh = step_back(
                        dh, gates[s, r, unit], gates[s, r, units + unit], gates[s, r, 2 * units + unit],
                        apart[s, r, unit], state_before(states, 0, s, r, unit, flag), activation, recurrent_activation,
                    )  # fmt: skip
                    gates[s, r, unit] = dz
                    gates[s, r, units + unit] = dr
                    gates[s, r, 2 * units + unit] = dg
                    apart[s, r, unit] = dm
                else:
                    skip_back(gates, apart, s, r, unit)
                d_states[0, r, unit] = dh
        grid.sync()
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    of_z_and_r = product_back(gates[s], r, 0, 2, h_factors, 0, transposed, unit)
                    of_m = product_back(apart[s], r, 0, 1, h_factors, 2, transposed, unit)
                    d_states[0, r, unit] += of_z_and_r + of_m
                cut_back(d_states, r, unit, flag)
