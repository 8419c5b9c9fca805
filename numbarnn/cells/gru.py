"""GRU cell: gated recurrent unit, its equations and the loops that run them over a batch of sequences.

The form whose reset gate acts after the recurrent product (Keras's ``reset_after=True``, cuDNN's).  Gates in the order
z, r, h (Keras's), one state h, two biases b and d::

    z, r = sigmoid(b + d + x W + h R)       (one chain for each element: biases, then x in k order, then h in k order)
    m = d_h + h R_h                         g = tanh(b_h + x W_h + r * m)
    h' = z * h + (1 - z) * g

Source: K. Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
EMNLP 2014; this form: J. Chung et al., "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling",
arXiv 1412.3555, 2014.

The tape keeps z, r, g (or their inputs, for activations whose derivative needs the input) and m.  `backward` overwrites
them with the gradients of the inputs of z, r and g, and of m.  The arrays are those of `numbarnn.cells.contract`.
"""

from numbarnn.cells.contract import COUNTS, CUT, PRODUCT, SILENT, Cell
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
from numbarnn.gemm import rows_product, two_gates_product
from numbarnn.jit import device, njit
from numbarnn.meeting import join, meet, share
from numbarnn.simd import advance, aligned_pointer, clear, fma, hold, lanes, like, load, load_n, pointer, splat, store_n


@device
def step(zz, zr, zh, m, h0, activation, recurrent_activation):
    """One step from the gates' inputs, the candidate's recurrent product and h: h, and what the tape keeps."""
    z, r = gate(zz, recurrent_activation), gate(zr, recurrent_activation)
    zg = fma(r, m, zh)
    g = squash(zg, activation)
    h = fma(z, h0 - g, g)
    return h, keep(zz, z, recurrent_activation), keep(zr, r, recurrent_activation), keep(zg, g, activation)


@device
def step_back(dh, kz, kr, kg, m, h0, activation, recurrent_activation):
    """Gradients of `step`: those of (zz, zr, zh, m, h0), from that of h and from what the tape kept."""
    z, r = value_of(kz, recurrent_activation), value_of(kr, recurrent_activation)
    g = value_of(kg, activation)
    dg = dh * (like(z, 1.0) - z) * squash_slope(kg, activation)
    return (
        dh * (h0 - g) * gate_slope(kz, recurrent_activation),
        dg * m * gate_slope(kr, recurrent_activation),
        dg,
        dg * r,
        dh * z,
    )


@device
def operands_of_candidate(x, s, steps, backwards, start, stop, order, x_factors, x_rows, x_row, later, x_room):
    """Left operand of the candidate's input product: that of the other gates, but for dropout factors of its own.

    Returns
    -------
    x_rows, x_row, later
        Pointer to its first row, and elements from one row to the next and from one step to the next.
    """
    if x_factors.shape[0] > 1:
        x_rows, x_row, later, _ = operand_of_x(x, s, steps, backwards, start, stop, order, x_factors, 2, 1, x_room)
    return x_rows, x_row, later


@device
def recurrent_products_of_z_and_r(recurrent, h, h_row, h_step, count, first, last, columns, z, z_panel):
    """Go on with the chains of z and r, a vector each in turns, in panels first..last of `columns` columns.

    `h` is a pointer to the left operand of `count` rows, with a step of 2 where each gate has a row of its own; `z` to
    the first panel's block of chains, see `input_products`.
    """
    units, width = recurrent.shape[1], recurrent.shape[2]
    for panel in range(first, last):
        right, chains = advance(pointer(recurrent), panel * units * width), advance(z, (panel - first) * z_panel)
        if h_step > 1:
            two_gates_product(h, h_row, 2, count, right, width, units, chains, width, chains, width, width)
        else:
            valid = min(width, columns - (panel - first) * width)
            rows_product(h, h_row, 1, count, right, width, units, chains, width, chains, width, valid)


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
    x_copies, h_copies = x_factors.shape[0], h_factors.shape[0]
    # Panels of z and r hold them in turns; those of the candidate come behind, and in `bias` those of m behind these.
    rows, padded = stop - start, -(-units // vector) * vector
    zr_panels, panels = -(-2 * padded // width), -(-padded // width)
    # Working memory, for a block of rows and as many units as a panel of the candidate has: m; inputs of z and r in
    # turns and of the candidate, or those of several steps ahead; then copies of the left operands where they need one.
    block = min(rows_together(rows), rows)
    step_room = rows * 3 * panels * width
    z_room = memory_ahead(block, 3 * width, step_room, last - first, x, room)
    copies = 3 if x_copies > 1 else max(x_copies, min(order.shape[0], 1))
    most = steps_ahead(z_room, step_room, copies * rows * inputs, last - first, x, meeting)
    x_copy_room = most * rows * inputs  # of each of the copies
    x_room = copies * x_copy_room
    h_room = rows * units
    scratch = working_memory(block * width + z_room + x_room + 3 * h_room, x, room)
    m_here = aligned_pointer(scratch)
    z = advance(m_here, block * width)
    x_copy = advance(z, z_room)
    h_copy = advance(x_copy, x_room)
    seat, members = 0, 1
    if meeting is not None:
        seat, members = join(member, meeting)
        if members == 0:
            return
    first_panel, last_panel = share(panels, seat, members)
    low, high = min(units, first_panel * width), min(units, last_panel * width)
    own, own_columns = last_panel - first_panel, -(-(high - low) // vector) * vector
    ahead = max(1, min(most, z_room // max(1, rows * 3 * own * width)))
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
                    x_rows, x_row, later, x_step, tall, steps, kernel, bias, 2 * first_panel,
                    min(2 * last_panel, zr_panels), 2 * own_columns, z, z_panel, True,
                )  # fmt: skip
                input_products(
                    xc_rows, xc_row, xc_later, 1, tall, steps, kernel, bias, zr_panels + first_panel,
                    zr_panels + last_panel, own_columns, advance(z, 2 * own * z_panel), z_panel, True,
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
                for turn in range(first_panel, last_panel):
                    panel = to_and_fro(turn, first_panel, last_panel, s)
                    first_unit = panel * width
                    columns = min(width, padded - first_unit)
                    zr_first, zr_last = 2 * panel, min(2 * panel + 2, zr_panels)
                    place = (past * tall + row - start) * width
                    z_here = advance(z, 2 * (panel - first_panel) * z_panel + place)
                    g_here = advance(z, (2 * own + panel - first_panel) * z_panel + place)
                    if ahead == 1:
                        z_panel = count * width
                        z_here, g_here = z, advance(z, 2 * z_panel)
                        input_products(
                            advance(x_rows, (row - start) * x_row), x_row, 0, x_step, count, 1, kernel, bias, zr_first,
                            zr_last, 2 * columns, z_here, z_panel, True,
                        )  # fmt: skip
                        input_products(
                            advance(xc_rows, (row - start) * xc_row), xc_row, 0, 1, count, 1, kernel, bias,
                            zr_panels + panel, zr_panels + panel + 1, columns, g_here, z_panel, True,
                        )  # fmt: skip
                    recurrent_products_of_z_and_r(
                        recurrent, h_here, h_row, h_step, count, zr_first, zr_last, 2 * columns, z_here, z_panel
                    )  # fmt: skip
                    right = advance(pointer(recurrent), (zr_panels + panel) * units * width)
                    d_here = advance(pointer(bias), (kernel.shape[0] + panel) * width)
                    rows_product(
                        hc_here, hc_row, 1, count, right, width, units, d_here, 0, m_here, width, columns
                    )  # fmt: skip
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
                            at = 2 * place // width * z_panel + k * width + 2 * place % width  # of z, then of r
                            m = load(m_here, k * width + place)
                            h, kz, kr, kg = step(
                                load(z_here, at), load(z_here, at + vector), load(g_here, k * width + place), m,
                                h0, activation, recurrent_activation,
                            )  # fmt: skip
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if training:
                                there = (s * batch + r) * 4 * units + unit
                                store_n(kept, there, n, kz)
                                store_n(kept, there + units, n, kr)
                                store_n(kept, there + 2 * units, n, kg)
                                store_n(kept, there + 3 * units, n, m)
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
                    there = (s * batch + r) * 4 * units + unit
                    h0 = load_n(memory, (s * batch + r) * units + unit, n)
                    if flag & CUT:
                        h0 = nothing
                    dz, dr, dg, dm, dh0 = step_back(
                        dh0,
                        load_n(kept, there, n), load_n(kept, there + units, n), load_n(kept, there + 2 * units, n),
                        load_n(kept, there + 3 * units, n), h0, activation, recurrent_activation,
                    )  # fmt: skip
                    store_n(kept, there, n, dz)
                    store_n(kept, there + units, n, dr)
                    store_n(kept, there + 2 * units, n, dg)
                    store_n(kept, there + 3 * units, n, dm)
                store_n(dh, here, n, dh0)
        if meeting is not None:
            meet(seat, members, meeting, last - s)
        steps = done - s if done - s == together or s == first else 0
        done -= steps
        back_to_h_and_x(
            d_states, d_x, kernel, recurrent, tape, PRODUCT, flags, order, x_factors, h_factors, s, steps, backwards,
            start, stop, first_panel, last_panel, seat, members, zeros, product,
        )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop, first_unit, last_unit)
    hold(scratch)


CELL = Cell(
    name="GRU",
    gates=3,
    states=1,
    shared=2,
    apart=PRODUCT,
    default_activation="tanh",
    default_recurrent_activation="sigmoid",
    phases=((step, step_back),),
    forward=forward,
    backward=backward,
)
