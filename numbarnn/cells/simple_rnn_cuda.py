"""SimpleRNN on the GPU: the loops of band G.  Equation and formulas are those of `numbarnn.cells.simple_rnn`.

The arrays are those of `numbarnn.cells.rows_cuda`; the recurrent activation is not used.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
from numbarnn.cells.rows_cuda import (
    add_products,
    cut_back,
    finish_step,
    gradient_of_h,
    product_back,
    skip_back,
    slots_of,
)
from numbarnn.cells.simple_rnn import step, step_back


@cuda.kernel(max_threads=256)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, first_row = cuda.grid(2)
    unit_step, row_step = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    z = cuda.local.array(1, gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    z[0] = bias[unit] + gates[s, r, unit]
                    add_products(z, states[0, slot], r, h_factors, 0, recurrent, unit, flag)
                    h, kh = step(z[0], activation)
                    states[0, new_slot, r, unit] = h
                    if saving:
                        gates[s, r, unit] = kh
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
                    gates[s, r, unit] = step_back(dh, gates[s, r, unit], activation)
                    d_states[0, r, unit] = gates.dtype.type(0)
                else:
                    d_states[0, r, unit] = dh
                    skip_back(gates, apart, s, r, unit)
        grid.sync()
        for r in range(first_row, batch, row_step):
            flag = flags[s, r]
            for unit in range(first_unit, units, unit_step):
                if flag & COUNTS:
                    d_states[0, r, unit] += product_back(gates[s], r, 0, 1, h_factors, 0, transposed, unit)
                cut_back(d_states, r, unit, flag)
