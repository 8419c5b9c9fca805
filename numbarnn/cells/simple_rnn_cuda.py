"""SimpleRNN on the GPU: the loops of band G.  Equation and formulas are those of `numbarnn.cells.simple_rnn`.

The arrays are those of `numbarnn.cells.rows_cuda`; the recurrent activation is not used.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
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
)
from numbarnn.cells.simple_rnn import step, step_back


@cuda.kernel(max_threads=128)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, group = cuda.grid(2)
    unit_step, groups = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    sums, products = cuda.local.array((ROWS, 1), gates.dtype), cuda.local.array((ROWS, 1), gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                if any_counts(flags, s, top, ROWS):
                    multiply(products, sums, states[0, slot], top, h_factors, 0, 1, recurrent, unit)
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        h, kh = step(gate_input(gates, bias, products[i, 0], s, r, unit, flag), activation)
                        states[0, new_slot, r, unit] = h
                        if saving:
                            gates[s, r, unit] = kh
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
                        gates[s, r, unit] = step_back(dh, gates[s, r, unit], activation)
                        d_states[0, r, unit] = gates.dtype.type(0)
                    else:
                        d_states[0, r, unit] = dh
                        skip_back(gates, apart, s, r, unit)
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    multiply_back(totals, sums, gates[s], top, 0, 1, h_factors, 0, transposed, unit)
                add_back(d_states, totals, flags, s, top, unit)
