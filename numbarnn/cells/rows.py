"""Rows of a batch: which of their steps count, and how they come in and out of the kernels' working memory."""

from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, copy, empty, lanes, load_n, pointer, put, splat, store_n

ROW_BLOCK = 72  # rows whose gates' inputs stay in the first-level cache between product and step
_AHEAD = 1 << 18  # bytes of gates' inputs that the second-level cache holds beside the recurrent weights
_COPIED = 1 << 20  # bytes of x in a copy: steps of wide rows fill tiles long before


@njit
def mark_steps(mask, reset, zero_output, backwards, flags):
    """Write what happens at each step.

    Parameters
    ----------
    mask, reset : arrays [B, T] of bool
        Which timesteps count, and before which the state is cut; [0, 0]: all, none.
    zero_output : bool
        Emit zeros at masked timesteps; else only before the first that counts.
    backwards : bool
        Steps run from the last timestep to the first.
    flags : array [T, B] uint8
        To be written, in the order of the steps.
    """
    timesteps, batch = flags.shape
    for b in range(batch):
        shown = False
        for s in range(timesteps):
            t = timesteps - 1 - s if backwards else s
            flag = COUNTS
            if reset.shape[0] and reset[b, t]:
                flag |= CUT
            if mask.shape[0] and not mask[b, t]:
                flag ^= COUNTS
                if zero_output or not shown:
                    flag |= SILENT
            else:
                shown = True
            flags[s, b] = flag


@njit
def measure_rows(flags, lengths):
    """Write how many steps there are from the first to the last that counts, for each row."""
    timesteps, batch = flags.shape
    lengths[:] = 0
    for s in range(timesteps):
        for r in range(batch):
            if lengths[r] == 0 and flags[s, r] & COUNTS:
                lengths[r] = s + 1  # for now the first of them
    for r in range(batch):
        end = timesteps
        while end and not flags[end - 1, r] & COUNTS:
            end -= 1
        if end:
            lengths[r] = end - lengths[r] + 1


@device
def working_memory(size, like, room=None):
    """An array with `size` elements or more behind its `aligned_pointer`, of the type of `like`, not initialised.

    `room`, unless that is None.
    """
    size += 64 // like.itemsize
    if room is None:
        return empty(size, like)
    if room.size < size:
        raise ValueError("room must have as many elements as `Cell.room` says")
    return room


@device
def rows_together(rows):
    """How many of a kernel's rows go through product and step together: nearly equal blocks, of whole tiles."""
    blocks = max(1, (rows + ROW_BLOCK - 1) // ROW_BLOCK)
    return (rows + 6 * blocks - 1) // (6 * blocks) * 6


@device
def memory_ahead(rows, width, step_room, steps, like, room):
    """How many elements of working memory the gates' inputs get, see `working_memory`.

    Parameters
    ----------
    rows, width : int
        Of a block of rows and units that goes through product and step together: there is room for one at least.
    step_room, steps : int
        Elements of a step, for all rows and units, and how many steps there are.
    """
    least = rows * width
    if room is not None:
        return least
    return max(least, min(_AHEAD // like.itemsize, step_room * steps))


@device
def steps_ahead(z_room, step_room, copied, steps, like, meeting):
    """For how many steps at most, at least one, the gates' inputs of all rows have room, and x where it is copied.

    Parameters
    ----------
    z_room, step_room : int
        Elements that there are for the gates' inputs, see `memory_ahead`, and of a step.
    copied : int
        Elements of x, of type `like`, of which a step needs copies.
    steps : int
        How many there are.
    meeting : array or None
        Of the members who share the gates.
    """
    members = 1
    if meeting is not None:
        members = meeting.shape[0]
    room = _COPIED // like.itemsize
    return max(1, min(steps, z_room * members // max(1, step_room), room // max(1, copied)))


@device
def to_and_fro(turn, first, last, s):
    """Which of the panels first..last of the weights has its turn at step s: at every second step the last is first.

    What a cache still holds of weights that do not fit is what was used last.
    """
    return first + last - 1 - turn if s & 1 else turn


@device
def row_of(order, r):
    """The data's row for row r of the kernel."""
    return order[r] if order.shape[0] else r


@device
def counting_end(flags, s, start, stop):
    """The row behind the last one of start..stop that counts at step s; `start` if none does."""
    while stop > start and not flags[s, stop - 1] & COUNTS:
        stop -= 1
    return stop


@device
def latest_end(flags, s, steps, start, stop):
    """The row behind the last one of start..stop that counts at one of the steps s..s+steps."""
    end = start
    for k in range(steps):
        end = max(end, counting_end(flags, s + k, start, stop))
    return end


@device
def any_cut(flags, s, start, stop):
    """Whether the state of any of the rows start..stop is cut before step s."""
    seen = 0
    for r in range(start, stop):
        seen |= flags[s, r] & CUT
        if seen:  # also keeps the compiler from unrolling what is short anyway
            break
    return seen != 0


@device
def gather_rows(source, row, width, start, stop, order, in_order, factors, first, gates, target):
    """Copy rows start..stop, of which the data's row b lies at ``source + b * row``, to `target`.

    With `in_order` the data's rows are those of the kernel.

    With dropout factors for each gate, `target` holds the products of each element with the factors of `gates` gates
    from `first` on, side by side; else one copy, times the factors that all gates share.
    """
    copies, batch = factors.shape[0], factors.shape[1]
    scale = pointer(factors)
    sides = gates if copies > 1 else 1
    for r in range(start, stop):
        here = (r if in_order else order[r]) * row
        there = (r - start) * width * sides
        if copies == 0:
            copy(source, here, target, there, width)
        elif sides == 1:
            plane = (min(first, copies - 1) * batch + r) * width
            for k in range(0, width, lanes(target)):
                value = load_n(source, here + k, width - k) * load_n(scale, plane + k, width - k)
                store_n(target, there + k, width - k, value)
        else:
            for g in range(gates):
                for k in range(width):
                    factor = scale[((first + g) * batch + r) * width + k]
                    put(target, there + k * gates + g, source[here + k] * factor)


@device
def operand_of_x(x, s, steps, backwards, start, stop, order, x_factors, first, gates, room):
    """Left operand of the input products of rows start..stop at steps s..s+steps: where it lies, or a copy in `room`.

    Returns
    -------
    rows : pointer
    row, later, step : int
        Elements from one row to the next, from one step to the next, and from one column to the next.
    """
    timesteps, inputs = x.shape[1], x.shape[2]
    t, ahead = (timesteps - 1 - s, -1) if backwards else (s, 1)
    source, row = advance(pointer(x), t * inputs), timesteps * inputs
    if x_factors.shape[0] == 0 and order.shape[0] == 0:
        return advance(source, start * row), row, ahead * inputs, 1
    step = gates if x_factors.shape[0] > 1 else 1
    later = (stop - start) * inputs * step
    for k in range(steps):
        gather_rows(
            advance(source, k * ahead * inputs), row, inputs, start, stop, order, order.shape[0] == 0, x_factors, first,
            gates, advance(room, k * later),
        )  # fmt: skip
    return room, inputs * step, later, step


@device
def operand_of_h(states, slot, start, stop, order, flags, s, h_factors, first, gates, room):
    """Left operand of the recurrent product: the first state, with factors and cuts applied; see `operand_of_x`."""
    batch, units = states.shape[2], states.shape[3]
    source = advance(pointer(states), slot * batch * units)
    cut = any_cut(flags, s, start, stop)
    if h_factors.shape[0] == 0 and not cut:
        return advance(source, start * units), units, 1
    gather_rows(source, units, units, start, stop, order, True, h_factors, first, gates, room)
    step = gates if h_factors.shape[0] > 1 else 1
    if cut:
        for r in range(start, stop):
            if flags[s, r] & CUT:
                clear(room, (r - start) * units * step, units * step)
    return room, units * step, step


@device
def carry_rows(states, slot, new_slot, flags, s, first, start, stop, unit, end):
    """Take units unit..end of rows that do not count at step s over to the new slot; zeros where they are cut."""
    planes, slots, batch, units = states.shape
    memory = pointer(states)
    for r in range(start, stop):
        flag = flags[s, r]
        if flag & COUNTS:
            continue
        if slots == 2 and s > first:
            before = flags[s - 1, r]
            if not before & COUNTS and not (flag | before) & CUT:
                continue  # the steps alternate between the slots, and both hold this row's state already
        for plane in range(planes):
            old, new = (plane * slots + slot) * batch + r, (plane * slots + new_slot) * batch + r
            if flag & CUT:
                clear(memory, new * units + unit, end - unit)
            else:
                copy(memory, old * units + unit, memory, new * units + unit, end - unit)


@device
def cut_rows(d_states, flags, s, start, stop, unit, end):
    """Let no gradient through to units unit..end of the states that were cut before step s."""
    planes, batch, units = d_states.shape
    for r in range(start, stop):
        if flags[s, r] & CUT:
            for plane in range(planes):
                clear(pointer(d_states), (plane * batch + r) * units + unit, end - unit)


@device
def emit_rows(states, slot, out, flags, s, start, stop, order, unit, end):
    """Write units unit..end of what rows start..stop emit at step s: their first state, zeros where it is SILENT."""
    memory, goal = pointer(states), pointer(out)
    batch, units = states.shape[2], states.shape[3]
    zero = splat(states.dtype.type(0))
    for r in range(start, stop):
        silent = flags[s, r] & SILENT
        here, there = (slot * batch + r) * units, (row_of(order, r) * out.shape[1] + s) * units
        for k in range(unit, end, lanes(memory)):
            store_n(goal, there + k, end - k, zero if silent else load_n(memory, here + k, end - k))
