"""GRU whose reset gate acts before the recurrent product, on the GPU: the loops of band G.

Equations and formulas are those of `numbarnn.cells.gru_reset_before`.  The arrays are those of
`numbarnn.cells.rows_cuda`; `apart` holds r * h, times the dropout factors of h.
"""

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS
from numbarnn.cells.gates import value_of
from numbarnn.cells.gru_reset_before import reset_step, reset_step_back, step, step_back
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
from numbarnn.jit import device
from numbarnn.simd import fma, like


@device
def factor_of_candidate(like_this, h_factors, r, unit):
    """The dropout factor of an element of h before the candidate's product."""
    copies = h_factors.shape[0]
    return h_factors[min(2, copies - 1), r, unit] if copies else like(like_this, 1.0)


@cuda.kernel(max_threads=128)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, group = cuda.grid(2)
    unit_step, groups = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    sums, products = cuda.local.array((ROWS, 2), gates.dtype), cuda.local.array((ROWS, 2), gates.dtype)
    last_sums, last_products = cuda.local.array((ROWS, 1), gates.dtype), cuda.local.array((ROWS, 1), gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        place = min(s, apart.shape[0] - 1)
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
                        h0 = state_before(states, 0, slot, r, unit, flag)
                        h0 = h0 * factor_of_candidate(h0, h_factors, r, unit)
                        _, rh, kz, kr = reset_step(zz, zr, h0, recurrent_activation)
                        gates[s, r, unit] = kz
                        gates[s, r, units + unit] = kr
                        apart[place, r, unit] = rh
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                if any_counts(flags, s, top, ROWS):
                    multiply(last_products, last_sums, apart[place], top, h_factors[:0], 2, 3, recurrent, unit)
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        zh = gate_input(gates, bias, last_products[i, 0], s, r, 2 * units + unit, flag)
                        h0 = state_before(states, 0, slot, r, unit, flag)
                        h, kg = step(zh, value_of(gates[s, r, unit], recurrent_activation), h0, activation)
                        states[0, new_slot, r, unit] = h
                        if saving:
                            gates[s, r, 2 * units + unit] = kg
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
    of_rh = cuda.local.array(ROWS, gates.dtype)  # indexed at run time
    for s in range(last - 1, first - 1, -1):
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                for r in range(top, min(top + ROWS, batch)):
                    flag = flags[s, r]
                    dh = gradient_of_h(d_states, d_out, s, r, unit, flag)
                    if flag & COUNTS:
                        dz, dg, dh = step_back(
                            dh, gates[s, r, unit], gates[s, r, 2 * units + unit],
                            state_before(states, 0, s, r, unit, flag), activation, recurrent_activation,
                        )  # fmt: skip
                        gates[s, r, unit] = dz
                        gates[s, r, 2 * units + unit] = dg
                    else:
                        skip_back(gates, apart, s, r, unit)
                    d_states[0, r, unit] = dh
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    multiply_back(totals, sums, gates[s], top, 2 * units, 1, h_factors[:0], 2, transposed, unit)
                for i in range(ROWS):
                    of_rh[i] = totals[i]
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        d_rh = of_rh[i]
                        factor = factor_of_candidate(d_rh, h_factors, r, unit)
                        h0 = state_before(states, 0, s, r, unit, flag) * factor
                        dr, dh = reset_step_back(d_rh, gates[s, r, units + unit], h0, recurrent_activation)
                        gates[s, r, units + unit] = dr
                        d_states[0, r, unit] = fma(dh, factor, d_states[0, r, unit])
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    multiply_back(totals, sums, gates[s], top, 0, 2, h_factors, 0, transposed, unit)
                add_back(d_states, totals, flags, s, top, unit)
