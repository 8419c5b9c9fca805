"""Rows of a batch in and out of the kernels' working memory: copies, dropout factors, carried states."""

from numbarnn.cells.contract import CUT, SILENT
from numbarnn.jit import njit
from numbarnn.simd import lanes, load, load_n, pointer, splat, store, store_n

ROW_BLOCK = 48  # rows whose gates' inputs stay in the first-level cache between product and step


@njit
def any_flag(flags, s, start, stop, bit):
    """Whether any of the rows start..stop has `bit` set at step s."""
    for b in range(start, stop):
        if flags[s, b] & bit:
            return True
    return False


@njit
def copy_row(source, source_offset, target, target_offset, count):
    """Copy `count` elements between pointers."""
    for k in range(0, count, lanes(source)):
        store_n(target, target_offset + k, count - k, load_n(source, source_offset + k, count - k))


@njit
def zero_row(zero, target, target_offset, count):
    """Set `count` elements behind a pointer to `zero` (a scalar of their type)."""
    for k in range(0, count, lanes(target)):
        store_n(target, target_offset + k, count - k, splat(zero))


@njit
def gather_rows(source, row, width, start, stop, factors, flags, s, cut, target):
    """Copy rows start..stop (row b at ``source + (b - start) * row``) to `target`, times their dropout factors.

    With factors for each of G > 1 gates, `target` holds G products for each element, side by side.  With `cut`, rows whose CUT bit
    is set at step s are zeros.
    """
    gates = factors.shape[0]
    goal, scale = pointer(target), pointer(factors)
    zero = target.dtype.type(0)
    copies = max(1, gates)
    batch = factors.shape[1]
    for b in range(start, stop):
        here = (b - start) * row
        there = (b - start) * width * copies
        if cut and flags[s, b] & CUT:
            zero_row(zero, goal, there, width * copies)
        elif gates == 0:
            copy_row(source, here, goal, there, width)
        elif gates == 1:
            for k in range(0, width, lanes(goal)):
                value = load_n(source, here + k, width - k) * load_n(scale, b * width + k, width - k)
                store_n(goal, there + k, width - k, value)
        else:
            for g in range(gates):
                for k in range(width):
                    goal[there + k * gates + g] = source[here + k] * scale[(g * batch + b) * width + k]


@njit
def carry_row(states, slot, new_slot, b, cut):
    """Take the states of row b over from one slot to another, or set them to zero with `cut`."""
    memory = pointer(states)
    count, slots, batch, units = states.shape
    for n in range(count):
        new = ((n * slots + new_slot) * batch + b) * units
        if cut:
            zero_row(states.dtype.type(0), memory, new, units)
        else:
            copy_row(memory, ((n * slots + slot) * batch + b) * units, memory, new, units)


@njit
def emit_rows(states, slot, out, flags, s, start, stop):
    """Write what rows start..stop emit at step s: their first state, or zeros where the SILENT bit is set."""
    memory, goal = pointer(states), pointer(out)
    batch, units = states.shape[2], states.shape[3]
    for b in range(start, stop):
        there = (b * out.shape[1] + s) * units
        if flags[s, b] & SILENT:
            zero_row(out.dtype.type(0), goal, there, units)
        else:
            copy_row(memory, (slot * batch + b) * units, goal, there, units)
