"""SimpleRNN cell: a fully connected recurrent layer, its equation and the loops that run it over a batch of sequences.

One gate, one state h::

    z = b + x W + h R               (one chain for each element: bias, then x in k order, then h in k order)
    h' = tanh(z)

Source: J. Elman, "Finding Structure in Time", Cognitive Science 14(2), 1990.

The tape keeps nothing for tanh, whose derivative needs h' alone, which the states hold already; for other activations
h', or z for those whose derivative needs the input.  `backward` writes the gradients of z to it.  The arrays are those
of `numbarnn.cells.contract`; the recurrent activation is not used.
"""

from numbarnn.cells.contract import COUNTS, NOTHING, SILENT, Cell
from numbarnn.cells.gates import keep, squash, squash_slope
from numbarnn.cells.products import back_to_h_and_x, input_products, steps_back
from numbarnn.cells.rows import (
    carry_rows,
    counting_end,
    cut_rows,
    emit_rows,
    latest_end,
    memory_ahead,
    operand_of_h,
    operand_of_x,
    row_of,
    rows_together,
    steps_ahead,
    to_and_fro,
    working_memory,
)
from numbarnn.gemm import rows_product
from numbarnn.jit import device, njit
from numbarnn.meeting import join, meet, share
from numbarnn.simd import advance, aligned_pointer, clear, hold, lanes, load, load_n, pointer, splat, store_n


@device
def step(z, activation):
    """One step from the gate's input: h and what the tape keeps of it."""
    h = squash(z, activation)
    return h, keep(z, h, activation)


@device
def step_back(dh, kh, activation):
    """Gradient of `step`: that of z, from that of h and from what the tape kept."""
    return dh * squash_slope(kh, activation)


@njit
def forward(
    start, stop, x, kernel, recurrent, bias, states, out, flags, order, x_factors, h_factors, tape,
    first, last, backwards, activation, recurrent_activation, room=None, member=0, meeting=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`."""
    inputs = x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    rows, panels = stop - start, kernel.shape[0]
    # Working memory: the gate's inputs, of several steps ahead or of a block of rows and a panel at a time; then copies
    # of the left operands where they need one.
    block = min(rows_together(rows), rows)
    step_room = rows * panels * width
    z_room = memory_ahead(block, width, step_room, last - first, x, room)
    copied = rows * inputs * max(x_factors.shape[0], min(order.shape[0], 1))
    most = steps_ahead(z_room, step_room, copied, last - first, x, meeting)
    x_room = most * copied
    scratch = working_memory(z_room + x_room + rows * units, x, room)
    z = aligned_pointer(scratch)
    x_copy = advance(z, z_room)
    h_copy = advance(x_copy, x_room)
    seat, members = 0, 1
    if meeting is not None:
        seat, members = join(member, meeting)
        if members == 0:
            return
    first_panel, last_panel = share(panels, seat, members)
    low, high = min(units, first_panel * width), min(units, last_panel * width)
    ahead = max(1, min(most, z_room // max(1, rows * (last_panel - first_panel) * width)))
    memory, kept = pointer(states), pointer(tape)
    training = tape.shape[0] > 0
    x_rows, x_row, later, tall, z_panel = pointer(x), 0, 0, 0, 0
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        end = counting_end(flags, s, start, stop)
        past = (s - first) % ahead
        if past == 0:
            steps = min(ahead, last - s)
            tall = latest_end(flags, s, steps, start, stop) - start
            x_rows, x_row, later, _ = operand_of_x(
                x, s, steps, backwards, start, start + tall, order, x_factors, 0, 1, x_copy
            )  # fmt: skip
            if ahead > 1:
                z_panel = steps * tall * width
                input_products(
                    x_rows, x_row, later, 1, tall, steps, kernel, bias, first_panel, last_panel,
                    -(-(high - low) // vector) * vector, z, z_panel,
                )  # fmt: skip
        if end > start:
            h_rows, h_row, _ = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 1, h_copy)
            for row in range(start, end, block):
                count = min(block, end - row)
                h_here = advance(h_rows, (row - start) * h_row)
                for turn in range(first_panel, last_panel):
                    panel = to_and_fro(turn, first_panel, last_panel, s)
                    first_unit = panel * width
                    columns = min(width, -(-(units - first_unit) // vector) * vector)
                    r_here = advance(pointer(recurrent), panel * units * width)
                    z_here = advance(z, (panel - first_panel) * z_panel + (past * tall + row - start) * width)
                    if ahead == 1:
                        z_here = z
                        input_products(
                            advance(x_rows, (row - start) * x_row), x_row, 0, 1, count, 1, kernel, bias, panel,
                            panel + 1, columns, z, 0,
                        )  # fmt: skip
                    rows_product(h_here, h_row, 1, count, r_here, width, units, z_here, width, z_here, width, columns)
                    for k in range(count):
                        r = row + k
                        if not flags[s, r] & COUNTS:
                            continue
                        for place in range(0, columns, vector):
                            unit = first_unit + place
                            n = units - unit
                            h, kh = step(load(z_here, k * width + place), activation)
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if activation is not None and training:
                                store_n(kept, (s * batch + r) * units + unit, n, kh)
        carry_rows(states, slot, new_slot, flags, s, first, start, stop, low, high)
        if out.shape[1]:
            emit_rows(states, new_slot, out, flags, s, start, stop, order, low, high)
        if meeting is not None:
            meet(seat, members, meeting, s - first + 1)
    hold(scratch)


@njit
def backward(
    start, stop, d_out, d_states, kernel, recurrent, states, flags, order, x_factors, h_factors, tape, d_x,
    first, last, backwards, activation, recurrent_activation, member=0, meeting=None,
):  # fmt: skip
    """Run the steps last-1 .. first of the rows start..stop back; see `numbarnn.cells.contract`.

    `kernel` and `recurrent` are those of `Cell.pack_back`.
    """
    batch, units = states.shape[2], states.shape[3]
    width = recurrent.shape[2]
    vector = lanes(states)
    memory, kept, dh = pointer(states), pointer(tape), pointer(d_states)
    emitted = d_out.shape[1] > 0
    nothing = splat(states.dtype.type(0))
    scratch = working_memory((stop - start + 1) * width, states)
    zeros = aligned_pointer(scratch)
    clear(zeros, 0, width)
    product = advance(zeros, width)
    seat, members = 0, 1
    if meeting is not None:
        seat, members = join(member, meeting)
        if members == 0:
            return
    first_panel, last_panel = share(recurrent.shape[0], seat, members)
    first_unit, last_unit = min(units, first_panel * width), min(units, last_panel * width)
    together, done = steps_back(stop - start, order), last
    for s in range(last - 1, first - 1, -1):
        for r in range(start, stop):
            flag = flags[s, r]
            passes = emitted and not flag & SILENT
            counts = flag & COUNTS
            d_row = (row_of(order, r) * d_out.shape[1] + s) * units
            for unit in range(first_unit, last_unit, vector):
                n = units - unit
                here = r * units + unit
                dh0 = load_n(dh, here, n)
                if passes:
                    dh0 = dh0 + load_n(pointer(d_out), d_row + unit, n)
                if counts:
                    there = (s * batch + r) * units + unit
                    if activation is None:
                        kh = load_n(memory, ((s + 1) * batch + r) * units + unit, n)
                    else:
                        kh = load_n(kept, there, n)
                    store_n(kept, there, n, step_back(dh0, kh, activation))
                    store_n(dh, here, n, nothing)
                else:
                    store_n(dh, here, n, dh0)
        if meeting is not None:
            meet(seat, members, meeting, last - s)
        steps = done - s if done - s == together or s == first else 0
        done -= steps
        back_to_h_and_x(
            d_states, d_x, kernel, recurrent, tape, NOTHING, flags, order, x_factors, h_factors, s, steps, backwards,
            start, stop, first_panel, last_panel, seat, members, zeros, product,
        )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop, first_unit, last_unit)
    hold(scratch)


CELL = Cell(
    name="SimpleRNN",
    gates=1,
    states=1,
    shared=1,
    apart=NOTHING,
    default_activation="tanh",
    default_recurrent_activation=None,
    phases=((step, step_back),),
    forward=forward,
    backward=backward,
)
