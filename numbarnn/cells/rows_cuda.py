"""Band G, which serves every cell, option and size on a GPU: its arrays, its loops, and how states and gradients move.

A thread owns a unit of `ROWS` rows of the batch and computes all gates of it, the grid waits once for each product of a
step.  A grid of any size gives the same bits, also one of a single block, and so does any number of rows; which rows
and units a thread takes follows from its place.

The loops here are those of cells with one product in a step.  What is a cell's own, from the gates' inputs to the new
states and back, is in its file, ``*_cuda.py`` beside the CPU's, whose ``step`` and ``step_back`` it calls on scalars;
a cell with a second product, as `numbarnn.cells.gru_reset_before_cuda`, has loops of its own.

Axes as in `numbarnn.cells.contract`: B batch rows, T steps, H units, G gates, S states.  All arrays are C-contiguous,
of one dtype (float32 or float64) unless said, and lie on the GPU; everything is in the order of the steps.

============ ============== ==========================================================================================
gates        [T, B, G*H]    in: the product of the inputs with the kernel, without the bias, whatever at steps that do
                            not count; `forward` with `saving`: what the tape keeps of each gate; `backward`: the
                            gradients of the gates' inputs, zeros at steps that do not count
apart        [T, B, H]      of a cell whose last gate has something apart (`Cell.apart`), with `saving`.  PRODUCT: its
                            recurrent product, after `backward` the gradient of that; OPERAND: the left side of its
                            recurrent product.  Without `saving` [1, B, H], working memory.  Of others [0, B, H]
recurrent    [H, G*H]       weights; in band G with one axis, [H * G*H], for places that are counted up
transposed   [G*H, H]       the same, transposed; in band G with one axis
bias         [N*H]          where the gates' chains begin (`Cell.chain_bias`)
states       [S, slots, B,  slot 0 holds the first states.  With T+1 slots, slot s+1 holds those after step s; with 2,
             H]             steps alternate: the last states are in slot T % 2
out          [B, T, H]      what the layer emits at each step; [B, 0, H]: nobody asks
flags        [T, B] uint8   COUNTS, CUT, SILENT
h_factors    [M, B, H]      dropout factors of h before the recurrent product: M = 0, 1 or G
d_out        [B, T, H]      gradient of `out`; [B, 0, H]: none
d_states     [S, B, H]      in: gradient of the last states; out: of the first states
activation   int64          codes of `numbarnn.simd_math.ACTIVATIONS`, the same for both kernels; None, which other
                            bands take, stands for the cell's own
============ ============== ==========================================================================================

::

    forward(gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation,
            recurrent_activation)
    backward(gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, activation,
             recurrent_activation)

run the steps ``first <= s < last``, `backward` from the last down to the first.
"""

import numpy as np

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS, CUT, PRODUCT, SILENT
from numbarnn.jit import device
from numbarnn.simd import fma, like

# Constants of the kernels: `bands_cuda` gives them the rows of the batch that a thread computes, `loops` the others.
ROWS = 1
GATES, APART = 1, False
CELL_STEP = CELL_STEP_BACK = None


@device
def slots_of(states, s):
    """The slots of the states before and after step s."""
    return (s, s + 1) if states.shape[1] > 2 else (s % 2, 1 - s % 2)


@device
def state_before(states, plane, slot, r, unit, flag):
    """An element of a state as the step finds it: zero if it is cut."""
    value = states[plane, slot, r, unit]
    return like(value, 0.0) if flag & CUT else value


@device
def any_counts(flags, s, top, rows):
    """Whether step s counts for any of the rows from `top` on."""
    seen = 0
    for r in range(top, min(top + rows, flags.shape[1])):
        seen |= flags[s, r] & COUNTS
    return seen != 0


@device
def add_products(sums, left, top, factors, copies, gate, gates, weights, unit):
    """The loop of `multiply`, over the depth of the products."""
    # Places without a sign, in a loop that ends by a comparison: compilers then see that they are only counted up.
    units, last = np.uint64(left.shape[1]), left.shape[0] - 1
    line = np.uint64(gate) * units + np.uint64(unit)
    k = np.uint64(0)
    while k < units:
        place = line
        for g in range(sums.shape[1]):
            weight = weights[place]
            for i in range(sums.shape[0]):
                r = np.uint64(min(top + i, last))
                value = left[r, k]
                if copies:
                    value = value * factors[np.uint64(min(gate + g, copies - 1)), r, k]
                sums[i, g] = fma(value, weight, sums[i, g])
            place += units
        line += np.uint64(gates) * units
        k += np.uint64(1)


@device
def multiply(products, sums, left, top, factors, gate, gates, weights, unit):
    """Multiply rows of `left`, times their dropout factors, by the columns of a unit.

    Parameters
    ----------
    products : array [R, G']
        To be written: for row ``top + i`` and the gate ``gate + g``.  Rows behind the last give what that gives.
    sums : array [R, G']
        Working memory: indexed by nothing but constants, it stays in registers.
    gate, gates : int
        The first gate, and how many the weights have.
    """
    for i in range(sums.shape[0]):
        for g in range(sums.shape[1]):
            sums[i, g] = left.dtype.type(0)
    if factors.shape[0]:
        add_products(sums, left, top, factors, factors.shape[0], gate, gates, weights, unit)
    else:  # compiled apart, without the factors
        add_products(sums, left, top, factors, 0, gate, gates, weights, unit)
    for i in range(sums.shape[0]):
        for g in range(sums.shape[1]):
            products[i, g] = sums[i, g]


@device
def gate_input(gates, bias, product, s, r, column, flag):
    """Input of a gate: its bias, the product of the inputs, and that of h unless it is cut."""
    value = bias[column] + gates[s, r, column]
    return value if flag & CUT else value + product


@device
def finish_step(states, slot, new_slot, out, s, r, unit, flag):
    """Carry an element of the states over a step that does not count, and emit that of the first state."""
    if not flag & COUNTS:
        for plane in range(states.shape[0]):
            states[plane, new_slot, r, unit] = state_before(states, plane, slot, r, unit, flag)
    if out.shape[1]:
        value = states[0, new_slot, r, unit]
        out[r, s, unit] = like(value, 0.0) if flag & SILENT else value


@device
def gradient_of_h(d_states, d_out, s, r, unit, flag):
    """Gradient of an element of h after step s: from the steps behind it, and of what it emitted."""
    value = d_states[0, r, unit]
    return value + d_out[r, s, unit] if d_out.shape[1] and not flag & SILENT else value


@device
def skip_back(gates, apart, s, r, unit):
    """A step that does not count has no part in the weights' gradients, which are sums over all steps."""
    units = apart.shape[2]
    zero = gates.dtype.type(0)
    for column in range(unit, gates.shape[2], units):
        gates[s, r, column] = zero
    if apart.shape[0]:
        apart[s, r, unit] = zero


@device
def clear(values):
    """Set working memory to zeros."""
    for i in range(values.shape[0]):
        values[i] = values.dtype.type(0)


@device
def multiply_back(totals, sums, dz, top, first, count, factors, gate, weights, unit):
    """Gradients of a unit of the left side of `count` gates, from `gate` on, through their product.

    Parameters
    ----------
    totals : array [R]
        To be added to: for row ``top + i``.
    sums : array [R]
        Working memory.
    dz : array [B, ...]
        Gradients of the gates' inputs, in the columns from `first` on.
    weights : array [G*H * H]
        Transposed.
    """
    units, copies, last = np.uint64(factors.shape[2]), factors.shape[0], dz.shape[0] - 1
    place = np.uint64(gate) * units * units + np.uint64(unit)
    column = np.uint64(first)
    for g in range(count):
        clear(sums)
        k = np.uint64(0)
        while k < units:
            weight = weights[place]
            for i in range(sums.shape[0]):
                sums[i] = fma(dz[np.uint64(min(top + i, last)), column + k], weight, sums[i])
            place += units
            k += np.uint64(1)
        column += units
        for i in range(sums.shape[0]):
            part = sums[i]
            if copies:
                part = part * factors[min(gate + g, copies - 1), min(top + i, last), unit]
            totals[i] += part


@device
def add_back(d_states, totals, flags, s, top, unit):
    """Add the gradients of h that came through products of step s; let none through to states cut before it."""
    for i in range(totals.shape[0]):
        r = top + i
        if r < flags.shape[1]:
            flag = flags[s, r]
            if flag & COUNTS:
                d_states[0, r, unit] += totals[i]
            if flag & CUT:
                for plane in range(d_states.shape[0]):
                    d_states[plane, r, unit] = d_states.dtype.type(0)


@cuda.kernel(max_threads=128)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows, of a cell with one product in a step."""
    batch, units = states.shape[2], states.shape[3]
    first_unit, group = cuda.grid(2)
    unit_step, groups = cuda.gridsize(2)
    grid = cuda.cg.this_grid()
    sums, products = cuda.local.array((ROWS, GATES), gates.dtype), cuda.local.array((ROWS, GATES), gates.dtype)
    for s in range(first, last):
        slot, new_slot = slots_of(states, s)
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                if any_counts(flags, s, top, ROWS):
                    multiply(products, sums, states[0, slot], top, h_factors, 0, GATES, recurrent, unit)
                for i in range(min(ROWS, batch - top)):
                    r = top + i
                    flag = flags[s, r]
                    if flag & COUNTS:
                        CELL_STEP(
                            gates, apart, bias, products[i], states, slot, new_slot, s, r, unit, flag, saving,
                            activation, recurrent_activation,
                        )  # fmt: skip
                    finish_step(states, slot, new_slot, out, s, r, unit, flag)
        grid.sync()


@cuda.kernel(max_threads=128)
def backward(
    gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, activation, recurrent_activation
):  # fmt: skip
    """Run the steps last-1 .. first of all rows back, of a cell with one product in a step."""
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
                        CELL_STEP_BACK(
                            dh, gates, apart, states, d_states, s, r, unit, flag, activation, recurrent_activation
                        )
                    else:
                        d_states[0, r, unit] = dh
                        skip_back(gates, apart, s, r, unit)
        grid.sync()
        for top in range(group * ROWS, batch, groups * ROWS):
            for unit in range(first_unit, units, unit_step):
                clear(totals)
                if any_counts(flags, s, top, ROWS):
                    whole = GATES - 1 if APART else GATES
                    multiply_back(totals, sums, gates[s], top, 0, whole, h_factors, 0, transposed, unit)
                    if APART:
                        multiply_back(totals, sums, apart[s], top, 0, 1, h_factors, whole, transposed, unit)
                add_back(d_states, totals, flags, s, top, unit)


def loops(cell, step, step_back):
    """Return `forward` and `backward` of a cell with one product in a step.

    Parameters
    ----------
    cell : Cell
    step : device function
        ``step(gates, apart, bias, products, states, slot, new_slot, s, r, unit, flag, saving, activation,
        recurrent_activation)`` takes one step, of an element that counts: from `products`, one for each gate, to the
        states in `new_slot` and, with `saving`, to the tape.
    step_back : device function
        ``step_back(dh, gates, apart, states, d_states, s, r, unit, flag, activation, recurrent_activation)`` takes one
        back: to the gates' gradients on the tape, and those of the states before but for what came through the product.

    Returns
    -------
    forward, backward : numbarnn.cuda.Kernel
    """
    shape = {"GATES": cell.gates, "APART": cell.apart == PRODUCT}
    return (
        forward.with_constants(max_threads=128, CELL_STEP=step, **shape),
        backward.with_constants(max_threads=128, CELL_STEP_BACK=step_back, **shape),
    )
