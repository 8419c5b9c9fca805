"""What the cells' CUDA kernels have in common: the arrays that they take, and how states and gradients move.

The loops of band G, which serves every cell, option and size: a thread owns an element (row of the batch, unit) and
computes all gates of it, the grid waits once for each product of a step.  A grid of any size gives the same bits, also
one of a single block; which rows and units a thread takes follows from its place.  Formulas are the ``step`` and
``step_back`` of the CPU's cell files, on scalars.

Axes as in `numbarnn.cells.contract`: B batch rows, T steps, H units, G gates, S states.  All arrays are C-contiguous,
of one dtype (float32 or float64) unless said, and lie on the GPU; everything is in the order of the steps.

============ ============== ==========================================================================================
gates        [T, B, G*H]    in: the product of the inputs with the kernel, without the bias, whatever at steps that do
                            not count; `forward` with `saving`: what the tape keeps of each gate; `backward`: the
                            gradients of the gates' inputs, zeros at steps that do not count
apart        [T, B, H]      of a cell whose last gate has something apart (`Cell.apart`), with `saving`.  PRODUCT: its
                            recurrent product, after `backward` the gradient of that; OPERAND: the left side of its
                            recurrent product.  Without `saving` [1, B, H], working memory.  Of others [0, B, H]
recurrent    [H, G*H]       weights
transposed   [G*H, H]       the same, transposed
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

from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.jit import device
from numbarnn.simd import fma, like


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
def add_products(sums, left, r, factors, gate, weights, unit, flag):
    """Add the products of row r of `left`, times its dropout factors, with the columns of a unit to `sums`.

    ``sums[g]`` is that of the gate ``gate + g``.  A row that is cut adds nothing.
    """
    units, copies = left.shape[1], factors.shape[0]
    if flag & CUT:
        return
    for k in range(units):
        value = left[r, k]
        for g in range(sums.shape[0]):
            side = value
            if copies:
                side = value * factors[min(gate + g, copies - 1), r, k]
            sums[g] = fma(side, weights[k, (gate + g) * units + unit], sums[g])


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
def product_back(dz, r, first, count, factors, gate, transposed, unit):
    """Gradient of an element of the left side of `count` gates, from `gate` on, through their recurrent product.

    The first of them has its gradients in the columns of `dz` from `first` on.
    """
    units, copies = transposed.shape[1], factors.shape[0]
    zero = dz.dtype.type(0)
    total = zero
    for g in range(count):
        part = zero
        for k in range(units):
            part = fma(dz[r, first + g * units + k], transposed[(gate + g) * units + k, unit], part)
        if copies:
            part = part * factors[min(gate + g, copies - 1), r, unit]
        total = total + part
    return total


@device
def cut_back(d_states, r, unit, flag):
    """Let no gradient through to states that were cut before a step."""
    if flag & CUT:
        for plane in range(d_states.shape[0]):
            d_states[plane, r, unit] = d_states.dtype.type(0)
