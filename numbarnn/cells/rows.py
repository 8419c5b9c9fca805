"""Rows of a batch in and out of the kernels' working memory: copies, dropout factors, carried states."""

from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.jit import device
from numbarnn.simd import clear, copy, lanes, load_n, pointer, put, splat, store_n

ROW_BLOCK = 48  # rows whose gates' inputs stay in the first-level cache between product and step


@device
def seen_flags(flags, s, start, stop):
    """All bits that are set for any of the rows start..stop at step s."""
    seen = 0
    for b in range(start, stop):
        seen |= flags[s, b]
        if seen == COUNTS | CUT | SILENT:  # also keeps the compiler from unrolling what is short anyway
            break
    return seen


@device
def gather_rows(source, row, width, start, stop, factors, target):
    """Copy rows start..stop (row b at ``source + (b - start) * row``) to `target`, times their dropout factors.

    With factors for each of G > 1 gates, `target` holds G products for each element, side by side.
    """
    gates, batch = factors.shape[0], factors.shape[1]
    copies = gates if gates else 1
    scale = pointer(factors)
    for b in range(start, stop):
        here = (b - start) * row
        there = (b - start) * width * copies
        if gates == 0:
            copy(source, here, target, there, width)
        elif gates == 1:
            for k in range(0, width, lanes(target)):
                value = load_n(source, here + k, width - k) * load_n(scale, b * width + k, width - k)
                store_n(target, there + k, width - k, value)
        else:
            for g in range(gates):
                for k in range(width):
                    put(target, there + k * gates + g, source[here + k] * scale[(g * batch + b) * width + k])


@device
def carry_row(memory, old, new, units, cut):
    """Take one state of a row over from offset `old` to `new`, or set it to zero with `cut`."""
    if cut:
        clear(memory, new, units)
    else:
        copy(memory, old, memory, new, units)


@device
def emit_rows(states, slot, out, flags, s, start, stop):
    """Write what rows start..stop emit at step s: their first state, or zeros where the SILENT bit is set."""
    memory, goal = pointer(states), pointer(out)
    batch, units = states.shape[2], states.shape[3]
    zero = splat(states.dtype.type(0))
    for b in range(start, stop):
        silent = flags[s, b] & SILENT
        here, there = (slot * batch + b) * units, (b * out.shape[1] + s) * units
        for k in range(0, units, lanes(memory)):
            store_n(goal, there + k, units - k, zero if silent else load_n(memory, here + k, units - k))
