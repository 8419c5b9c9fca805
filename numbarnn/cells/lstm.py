"""LSTM cell: long short-term memory, its equations and the loops that run them over a batch of sequences.

Gates in the order i, f, c, o (Keras's), states h and c::

    z = b + x W + h R               (one chain for each element: bias, then x in k order, then h in k order)
    i, f, o = sigmoid(z_i), sigmoid(z_f), sigmoid(z_o)          g = tanh(z_c)
    c' = f * c + i * g              h' = o * tanh(c')

Source: S. Hochreiter and J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, with the forget gate
of F. Gers, J. Schmidhuber and F. Cummins, "Learning to Forget", Neural Computation 12(10), 2000.

The tape keeps i, f, g, o (or their inputs, for activations whose derivative needs the input); tanh(c') is computed
again from c', which the states hold already.  `backward` overwrites the tape with the gradients of z.  The arrays are
those of `numbarnn.cells.contract`.
"""

from numbarnn.cells.contract import COUNTS, CUT, NOTHING, SILENT, Cell
from numbarnn.cells.gates import gate, gate_slope, keep, squash, squash_slope, value_of
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
from numbarnn.gemm import four_gates_product, rows_product
from numbarnn.jit import device, njit
from numbarnn.meeting import join, meet, share
from numbarnn.simd import advance, aligned_pointer, clear, fma, hold, lanes, load, load_n, pointer, splat, store_n


@device
def step(zi, zf, zg, zo, c0, activation, recurrent_activation):
    """One step from the gates' inputs and the cell state: (h, c) and what the tape keeps of i, f, g, o."""
    i, f, o = gate(zi, recurrent_activation), gate(zf, recurrent_activation), gate(zo, recurrent_activation)
    g = squash(zg, activation)
    c = fma(f, c0, i * g)
    h = o * squash(c, activation)
    return (
        h,
        c,
        keep(zi, i, recurrent_activation),
        keep(zf, f, recurrent_activation),
        keep(zg, g, activation),
        keep(zo, o, recurrent_activation),
    )


@device
def step_back(dh, dc, ki, kf, kg, ko, c0, c, activation, recurrent_activation):
    """Gradients of `step`: those of (zi, zf, zg, zo, c0), from those of h and c and from what the tape kept."""
    i, f, o = value_of(ki, recurrent_activation), value_of(kf, recurrent_activation), value_of(ko, recurrent_activation)
    g = value_of(kg, activation)
    squashed = squash(c, activation)
    dc = fma(dh * o, squash_slope(keep(c, squashed, activation), activation), dc)
    return (
        dc * g * gate_slope(ki, recurrent_activation),
        dc * c0 * gate_slope(kf, recurrent_activation),
        dc * i * squash_slope(kg, activation),
        dh * squashed * gate_slope(ko, recurrent_activation),
        dc * f,
    )


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
    rows, blocks = stop - start, -(-units // vector)
    block_panels = 4 * vector // width  # panels that hold the four gates of one block of units
    x_copies, h_copies = x_factors.shape[0], h_factors.shape[0]
    # Working memory: the gates' inputs, of several steps ahead or of a block of rows and units at a time; then copies
    # of the left operands where they need one.
    block = min(rows_together(rows), rows)
    step_room = rows * blocks * 4 * vector
    z_room = memory_ahead(block, 4 * vector, step_room, last - first, x, room)
    copied = rows * inputs * max(x_copies, min(order.shape[0], 1))
    most = steps_ahead(z_room, step_room, copied, last - first, x, meeting)
    x_room = most * copied
    scratch = working_memory(z_room + x_room + rows * units * max(h_copies, 1), x, room)
    z = aligned_pointer(scratch)
    x_copy = advance(z, z_room)
    h_copy = advance(x_copy, x_room)
    seat, members = 0, 1
    if meeting is not None:
        seat, members = join(member, meeting)
        if members == 0:
            return
    first_block, last_block = share(blocks, seat, members)
    first_unit, last_unit = min(units, first_block * vector), min(units, last_block * vector)
    panels = (last_block - first_block) * block_panels
    ahead = max(1, min(most, z_room // max(1, rows * panels * width)))
    memory, kept = pointer(states), pointer(tape)
    c_plane = slots * batch * units  # where the states c begin, behind the states h
    training = tape.shape[0] > 0
    zero = x.dtype.type(0)
    x_rows, x_row, x_step, later, tall, z_panel = pointer(x), 0, 1, 0, 0, 0
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        end = counting_end(flags, s, start, stop)
        past = (s - first) % ahead
        if past == 0:
            steps = min(ahead, last - s)
            tall = latest_end(flags, s, steps, start, stop) - start
            x_rows, x_row, later, x_step = operand_of_x(
                x, s, steps, backwards, start, start + tall, order, x_factors, 0, 4, x_copy
            )  # fmt: skip
            if ahead > 1:
                z_panel = steps * tall * width
                input_products(
                    x_rows, x_row, later, x_step, tall, steps, kernel, bias, first_block * block_panels,
                    last_block * block_panels, panels * width, z, z_panel, None, True,
                )  # fmt: skip
        if end > start:
            h_rows, h_row, h_step = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 4, h_copy)
            for row in range(start, end, block):
                count = min(block, end - row)
                h_here = advance(h_rows, (row - start) * h_row)
                for turn in range(first_block, last_block):
                    unit_block = to_and_fro(turn, first_block, last_block, s)
                    panel = unit_block * block_panels
                    z_here = advance(
                        z, (panel - first_block * block_panels) * z_panel + (past * tall + row - start) * width
                    )
                    if ahead == 1:
                        z_here, z_panel = z, count * width
                        input_products(
                            advance(x_rows, (row - start) * x_row), x_row, 0, x_step, count, 1, kernel, bias, panel,
                            panel + block_panels, 4 * vector, z_here, z_panel, None, True,
                        )  # fmt: skip
                    for p in range(block_panels):
                        chains = advance(z_here, p * z_panel)
                        right = advance(pointer(recurrent), (panel + p) * units * width)
                        if h_step > 1:
                            four_gates_product(
                                advance(h_here, p * (width // vector)), h_row, h_step, count, right, width, units,
                                chains, width, chains, width, width,
                            )  # fmt: skip
                        else:
                            rows_product(
                                h_here, h_row, 1, count, right, width, units, chains, width, chains, width, width
                            )  # fmt: skip
                    unit = unit_block * vector
                    n = units - unit
                    second = 2 * vector if block_panels == 1 else z_panel  # where the gates c and o are
                    for k in range(count):
                        r = row + k
                        flag = flags[s, r]
                        if not flag & COUNTS:
                            continue
                        old = (slot * batch + r) * units + unit
                        new = (new_slot * batch + r) * units + unit
                        c0 = load_n(memory, c_plane + old, n)
                        if flag & CUT:
                            c0 = splat(zero)
                        zr = k * width
                        h, c, ki, kf, kg, ko = step(
                            load(z_here, zr), load(z_here, zr + vector), load(z_here, zr + second),
                            load(z_here, zr + second + vector), c0, activation, recurrent_activation,
                        )  # fmt: skip
                        store_n(memory, new, n, h)
                        store_n(memory, c_plane + new, n, c)
                        if training:
                            there = (s * batch + r) * 4 * units + unit
                            store_n(kept, there, n, ki)
                            store_n(kept, there + units, n, kf)
                            store_n(kept, there + 2 * units, n, kg)
                            store_n(kept, there + 3 * units, n, ko)
        carry_rows(states, slot, new_slot, flags, s, first, start, stop, first_unit, last_unit)
        if out.shape[1]:
            emit_rows(states, new_slot, out, flags, s, start, stop, order, first_unit, last_unit)
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
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = recurrent.shape[2]
    vector = lanes(states)
    memory, kept = pointer(states), pointer(tape)
    dh, dc = pointer(d_states), advance(pointer(d_states), batch * units)
    emitted = d_out.shape[1] > 0
    c_plane = slots * batch * units
    zero = states.dtype.type(0)
    nothing = splat(zero)
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
                there = (s * batch + r) * 4 * units + unit
                if counts:
                    c0 = load_n(memory, c_plane + (s * batch + r) * units + unit, n)
                    if flag & CUT:
                        c0 = nothing
                    di, df, dg, do, dc0 = step_back(
                        dh0, load_n(dc, here, n),
                        load_n(kept, there, n), load_n(kept, there + units, n),
                        load_n(kept, there + 2 * units, n), load_n(kept, there + 3 * units, n),
                        c0, load_n(memory, c_plane + ((s + 1) * batch + r) * units + unit, n),
                        activation, recurrent_activation,
                    )  # fmt: skip
                    store_n(kept, there, n, di)
                    store_n(kept, there + units, n, df)
                    store_n(kept, there + 2 * units, n, dg)
                    store_n(kept, there + 3 * units, n, do)
                    store_n(dc, here, n, dc0)
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
    name="LSTM",
    gates=4,
    states=2,
    shared=4,
    apart=NOTHING,
    default_activation="tanh",
    default_recurrent_activation="sigmoid",
    phases=((step, step_back),),
    forward=forward,
    backward=backward,
)
