"""GRU cell whose reset gate acts before the recurrent product (Keras's ``reset_after=False``, the original form).

Gates in the order z, r, h (Keras's), one state h::

    z, r = sigmoid(b + x W + h R)           (one chain for each element: bias, then x in k order, then h in k order)
    g = tanh(b_h + x W_h + (r * h) R_h)     (the same, with r * h in the place of h)
    h' = z * h + (1 - z) * g

A step has two phases, each with a product before it: the second takes what the first computes.

Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
EMNLP 2014.

The tape keeps z, r, g (or their inputs, for activations whose derivative needs the input) and r * h, times the dropout
factors of h, which is the left operand of a weight gradient.  `backward` overwrites the first three with the gradients
of the gates' inputs.  The arrays are those of `numbarnn.cells.contract`.
"""

from numbarnn.cells.contract import COUNTS, CUT, OPERAND, SILENT, Cell
from numbarnn.cells.gates import gate, gate_slope, keep, squash, squash_slope, value_of
from numbarnn.cells.gru import operands_of_candidate, recurrent_products_of_z_and_r
from numbarnn.cells.products import back_to_h_and_x, input_products, multiply_back, steps_back
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
from numbarnn.simd import advance, aligned_pointer, clear, fma, hold, lanes, like, load, load_n, pointer, splat, store_n


@device
def reset_step(zz, zr, h0, recurrent_activation):
    """The first phase, from the gates' inputs and h (times its dropout factors): z, r * h, and what the tape keeps."""
    z, r = gate(zz, recurrent_activation), gate(zr, recurrent_activation)
    return z, r * h0, keep(zz, z, recurrent_activation), keep(zr, r, recurrent_activation)


@device
def reset_step_back(d_rh, kr, h0, recurrent_activation):
    """Gradients of (zr, h0) by `reset_step`, from that of r * h."""
    return d_rh * h0 * gate_slope(kr, recurrent_activation), d_rh * value_of(kr, recurrent_activation)


@device
def step(zh, z, h0, activation):
    """The second phase, from the candidate's input, z and h: the new h and what the tape keeps of g."""
    g = squash(zh, activation)
    return fma(z, h0 - g, g), keep(zh, g, activation)


@device
def step_back(dh, kz, kg, h0, activation, recurrent_activation):
    """Gradients of (zz, zh, h0) by `step`, with z's activation, from that of the new h."""
    z, g = value_of(kz, recurrent_activation), value_of(kg, activation)
    return (
        dh * (h0 - g) * gate_slope(kz, recurrent_activation),
        dh * (like(z, 1.0) - z) * squash_slope(kg, activation),
        dh * z,
    )


@njit
def forward(
    start, stop, x, kernel, recurrent, bias, states, out, flags, order, x_factors, h_factors, tape,
    first, last, backwards, activation, recurrent_activation, room=None, member=0, meeting=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`.

    A step has two products, one after the other, and r * h between them: there are no teams, the first member does it.
    """
    if member:
        return
    inputs = x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    x_copies, h_copies = x_factors.shape[0], h_factors.shape[0]
    # Panels of z and r hold them in turns; those of the candidate come behind.
    rows, padded = stop - start, -(-units // vector) * vector
    zr_panels, panels = -(-2 * padded // width), -(-padded // width)
    # Working memory: the gates' inputs of a block of rows and two panels, or of several steps ahead; z and r * h of a
    # block of rows; then copies of the left operands where they need one.
    block = min(rows_together(rows), rows)
    step_room = rows * 3 * panels * width
    z_room = memory_ahead(block, 2 * width, step_room, last - first, x, room)
    copies = 3 if x_copies > 1 else max(x_copies, min(order.shape[0], 1))
    most = steps_ahead(z_room, step_room, copies * rows * inputs, last - first, x, None)
    x_copy_room = most * rows * inputs  # of each of the copies
    x_room = copies * x_copy_room
    h_room = rows * units
    scratch = working_memory(2 * block * units + z_room + x_room + 3 * h_room, x, room)
    z = aligned_pointer(scratch)
    z_value = advance(z, z_room)
    reset_h = advance(z_value, block * units)
    x_copy = advance(reset_h, block * units)
    h_copy = advance(x_copy, x_room)
    ahead = max(1, min(most, z_room // max(1, step_room)))
    memory, kept = pointer(states), pointer(tape)
    training = tape.shape[0] > 0
    zero = x.dtype.type(0)
    x_rows, x_row, x_step, later, tall, z_panel = pointer(x), 0, 1, 0, 0, 0
    xc_rows, xc_row, xc_later = x_rows, 0, 0
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        end = counting_end(flags, s, start, stop)
        past = (s - first) % ahead
        if past == 0:
            steps = min(ahead, last - s)
            top = latest_end(flags, s, steps, start, stop)
            tall = top - start
            x_rows, x_row, later, x_step = operand_of_x(
                x, s, steps, backwards, start, top, order, x_factors, 0, 2, x_copy
            )  # fmt: skip
            xc_rows, xc_row, xc_later = operands_of_candidate(
                x, s, steps, backwards, start, top, order, x_factors, x_rows, x_row, later,
                advance(x_copy, 2 * x_copy_room),
            )  # fmt: skip
            if ahead > 1:
                z_panel = steps * tall * width
                input_products(
                    x_rows, x_row, later, x_step, tall, steps, kernel, bias, 0, zr_panels, 2 * padded, z, z_panel, True
                )  # fmt: skip
                input_products(
                    xc_rows, xc_row, xc_later, 1, tall, steps, kernel, bias, zr_panels, zr_panels + panels, padded,
                    advance(z, zr_panels * z_panel), z_panel, True,
                )  # fmt: skip
        if end > start:
            h_rows, h_row, h_step = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 2, h_copy)
            hc_rows, hc_row = h_rows, h_row
            if h_copies > 1:
                hc_rows, hc_row, _ = operand_of_h(
                    states, slot, start, end, order, flags, s, h_factors, 2, 1, advance(h_copy, 2 * h_room)
                )  # fmt: skip
            for row in range(start, end, block):
                count = min(block, end - row)
                h_here, hc_here = advance(h_rows, (row - start) * h_row), advance(hc_rows, (row - start) * hc_row)
                for turn in range(panels):
                    panel = to_and_fro(turn, 0, panels, s)
                    first_unit = panel * width
                    columns = min(width, padded - first_unit)
                    zr_first, zr_last = 2 * panel, min(2 * panel + 2, zr_panels)
                    z_here = advance(z, zr_first * z_panel + (past * tall + row - start) * width)
                    if ahead == 1:
                        z_here, z_panel = z, count * width
                        input_products(
                            advance(x_rows, (row - start) * x_row), x_row, 0, x_step, count, 1, kernel, bias, zr_first,
                            zr_last, 2 * columns, z_here, z_panel, True,
                        )  # fmt: skip
                    recurrent_products_of_z_and_r(
                        recurrent, h_here, h_row, h_step, count, zr_first, zr_last, 2 * columns, z_here, z_panel
                    )  # fmt: skip
                    for k in range(count):
                        r = row + k
                        if not flags[s, r] & COUNTS:
                            clear(reset_h, k * units + first_unit, min(width, units - first_unit))
                            continue
                        for place in range(0, columns, vector):
                            unit = first_unit + place
                            n = units - unit
                            at = 2 * place // width * z_panel + k * width + 2 * place % width  # of z, then of r
                            value, rh, kz, kr = reset_step(
                                load(z_here, at), load(z_here, at + vector), load_n(hc_here, k * hc_row + unit, n),
                                recurrent_activation,
                            )  # fmt: skip
                            store_n(z_value, k * units + unit, n, value)
                            store_n(reset_h, k * units + unit, n, rh)
                            if training:
                                there = (s * batch + r) * 4 * units + unit
                                store_n(kept, there, n, kz)
                                store_n(kept, there + units, n, kr)
                                store_n(kept, there + 3 * units, n, rh)
                for turn in range(panels):
                    panel = to_and_fro(turn, 0, panels, s)
                    first_unit = panel * width
                    columns = min(width, padded - first_unit)
                    g_here = advance(z, (zr_panels + panel) * z_panel + (past * tall + row - start) * width)
                    if ahead == 1:
                        g_here = z
                        input_products(
                            advance(xc_rows, (row - start) * xc_row), xc_row, 0, 1, count, 1, kernel, bias,
                            zr_panels + panel, zr_panels + panel + 1, columns, g_here, 0, True,
                        )  # fmt: skip
                    right = advance(pointer(recurrent), (zr_panels + panel) * units * width)
                    rows_product(reset_h, units, 1, count, right, width, units, g_here, width, g_here, width, columns)
                    for k in range(count):
                        r = row + k
                        flag = flags[s, r]
                        if not flag & COUNTS:
                            continue
                        for place in range(0, columns, vector):
                            unit = first_unit + place
                            n = units - unit
                            h0 = load_n(memory, (slot * batch + r) * units + unit, n)
                            if flag & CUT:
                                h0 = splat(zero)
                            h, kg = step(
                                load(g_here, k * width + place), load_n(z_value, k * units + unit, n), h0, activation
                            )  # fmt: skip
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if training:
                                store_n(kept, (s * batch + r) * 4 * units + 2 * units + unit, n, kg)
        carry_rows(states, slot, new_slot, flags, s, first, start, stop, 0, units)
        if out.shape[1]:
            emit_rows(states, new_slot, out, flags, s, start, stop, order, 0, units)
    hold(scratch)


@njit
def backward(
    start, stop, d_out, d_states, kernel, recurrent, states, flags, order, x_factors, h_factors, tape, d_x,
    first, last, backwards, activation, recurrent_activation, member=0, meeting=None,
):  # fmt: skip
    """Run the steps last-1 .. first of the rows start..stop back; see `numbarnn.cells.contract`.

    `kernel` and `recurrent` are those of `Cell.pack_back`. There are no teams, as in `forward`.
    """
    if member:
        return
    batch, units = states.shape[2], states.shape[3]
    vector = lanes(states)
    memory, kept, dh = pointer(states), pointer(tape), pointer(d_states)
    emitted = d_out.shape[1] > 0
    nothing, one = splat(states.dtype.type(0)), states.dtype.type(1)
    h_copies = h_factors.shape[0]
    # Working memory: a panel's width of zeros, room for the rows of a panel, and the gradients of r * h.
    width = recurrent.shape[2]
    room = (stop - start + 1) * width
    scratch = working_memory(room + (stop - start) * units, states)
    zeros = aligned_pointer(scratch)
    clear(zeros, 0, width)
    product = advance(zeros, width)
    d_rh = advance(zeros, room - start * units)  # of row 0
    together, done = steps_back(stop - start, order), last
    for s in range(last - 1, first - 1, -1):
        for r in range(start, stop):
            flag = flags[s, r]
            passes = emitted and not flag & SILENT
            counts = flag & COUNTS
            d_row = (row_of(order, r) * d_out.shape[1] + s) * units
            for unit in range(0, units, vector):
                n = units - unit
                here = r * units + unit
                dh0 = load_n(dh, here, n)
                if passes:
                    dh0 = dh0 + load_n(pointer(d_out), d_row + unit, n)
                if counts:
                    there = (s * batch + r) * 4 * units + unit
                    h0 = load_n(memory, (s * batch + r) * units + unit, n)
                    if flag & CUT:
                        h0 = nothing
                    dz, dg, dh0 = step_back(
                        dh0, load_n(kept, there, n), load_n(kept, there + 2 * units, n), h0, activation,
                        recurrent_activation,
                    )  # fmt: skip
                    store_n(kept, there, n, dz)
                    store_n(kept, there + 2 * units, n, dg)
                    store_n(d_rh, here, n, nothing)
                store_n(dh, here, n, dh0)
        end = counting_end(flags, s, start, stop)
        if end > start:
            dg = advance(kept, (s * batch + start) * 4 * units + 2 * units)
            for turn in range(recurrent.shape[0]):
                panel = to_and_fro(turn, 0, recurrent.shape[0], s)
                multiply_back(
                    dg, 4 * units, end - start, flags, s * batch + start, 1, recurrent, panel, 2 * units, units, units,
                    advance(d_rh, start * units), units,
                )  # fmt: skip
            for r in range(start, end):
                flag = flags[s, r]
                if not flag & COUNTS:
                    continue
                plane = (min(2, h_copies - 1) * batch + r) * units
                for unit in range(0, units, vector):
                    n = units - unit
                    here = r * units + unit
                    there = (s * batch + r) * 4 * units + units + unit
                    factor = splat(one)
                    if h_copies:
                        factor = load_n(pointer(h_factors), plane + unit, n)
                    h0 = load_n(memory, (s * batch + r) * units + unit, n) * factor
                    if flag & CUT:
                        h0 = nothing
                    dr, dh0 = reset_step_back(load_n(d_rh, here, n), load_n(kept, there, n), h0, recurrent_activation)
                    store_n(kept, there, n, dr)
                    store_n(dh, here, n, fma(dh0, factor, load_n(dh, here, n)))
        steps = done - s if done - s == together or s == first else 0
        done -= steps
        back_to_h_and_x(
            d_states, d_x, kernel, recurrent, tape, OPERAND, flags, order, x_factors, h_factors, s, steps, backwards,
            start, stop, 0, recurrent.shape[0], 0, 1, zeros, product,
        )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop, 0, units)
    hold(scratch)


CELL = Cell(
    name="GRU (reset before)",
    gates=3,
    states=1,
    shared=2,
    apart=OPERAND,
    default_activation="tanh",
    default_recurrent_activation="sigmoid",
    phases=((reset_step, reset_step_back), (step, step_back)),
    forward=forward,
    backward=backward,
)
