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

import numpy as np

from numbarnn.cells.contract import COUNTS, CUT, PRODUCT, SILENT, Cell
from numbarnn.cells.gates import gate, gate_slope, keep, squash, squash_slope, value_of
from numbarnn.cells.products import back_to_h_and_x
from numbarnn.cells.rows import (
    carry_rows,
    counting_end,
    cut_rows,
    emit_rows,
    operand_of_h,
    operand_of_x,
    row_of,
    working_memory,
)
from numbarnn.gemm import rows_product, two_gates_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, fma, hold, lanes, like, load, load_n, pointer, splat, store_n

ROW_BLOCK = 24  # rows whose gates' inputs stay in the first-level cache between product and step


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
def inputs_of_z_and_r(
    kernel, recurrent, bias, x, x_row, x_step, h, h_row, h_step, count, first_unit, columns, z, z_row
):  # fmt: skip
    """Products of `count` rows for the gates z and r of `columns` units from `first_unit` on, a vector each in turns.

    `x` and `h` are pointers to the left operands, with steps of 2 where each gate has a row of its own.
    """
    inputs, units, width = kernel.shape[1], recurrent.shape[1], kernel.shape[2]
    for half in range(0, 2 * columns, width):
        panel = (2 * first_unit + half) // width
        b_here, z_here = advance(pointer(bias), panel * width), advance(z, half)
        w_here = advance(pointer(kernel), panel * inputs * width)
        r_here = advance(pointer(recurrent), panel * units * width)
        valid = min(width, 2 * columns - half)
        if x_step > 1:
            two_gates_product(x, x_row, 2, count, w_here, width, inputs, b_here, 0, z_here, z_row, width)
        else:
            rows_product(x, x_row, 1, count, w_here, width, inputs, b_here, 0, z_here, z_row, valid)
        if h_step > 1:
            two_gates_product(h, h_row, 2, count, r_here, width, units, z_here, z_row, z_here, z_row, width)
        else:
            rows_product(h, h_row, 1, count, r_here, width, units, z_here, z_row, z_here, z_row, valid)


@device
def operands_of_candidate(
    x, t, states, slot, start, end, order, flags, s, x_factors, h_factors, x_rows, x_row, h_rows, h_row, x_room, h_room
):  # fmt: skip
    """Left operands of the candidate's products: those of the other gates, but for dropout factors of its own.

    Returns
    -------
    x_rows, x_row, h_rows, h_row
        Pointers to their first rows, and elements from one row to the next.
    """
    if x_factors.shape[0] > 1:
        x_rows, x_row, _ = operand_of_x(x, t, start, end, order, x_factors, 2, 1, x_room)
    if h_factors.shape[0] > 1:
        h_rows, h_row, _ = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 2, 1, h_room)
    return x_rows, x_row, h_rows, h_row


@njit
def forward(
    start, stop, x, kernel, recurrent, bias, states, out, flags, order, x_factors, h_factors, tape,
    first, last, backwards, activation, recurrent_activation, room=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`."""
    timesteps, inputs = x.shape[1], x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    # Panels of z and r hold them in turns; those of the candidate come behind, and in `bias` those of m behind these.
    blocks = -(-units // vector)
    zr_panels = -(-2 * blocks * vector // width)
    # Working memory, for a block of rows and as many units as a panel of the candidate has: inputs of z and r in turns,
    # of the candidate, and m; then copies of the left operands where they need one.
    z_row = 4 * width
    x_room, h_room = (stop - start) * inputs, (stop - start) * units
    block = min(ROW_BLOCK, stop - start)
    scratch = working_memory(block * z_row + 3 * (x_room + h_room), x, room)
    z = pointer(scratch)
    x_copy = advance(z, block * z_row)
    h_copy = advance(x_copy, 3 * x_room)
    memory, kept = pointer(states), pointer(tape)
    training = tape.shape[0] > 0
    zero = x.dtype.type(0)
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        t = timesteps - 1 - s if backwards else s
        end = counting_end(flags, s, start, stop)
        if end > start:
            x_rows, x_row, x_step = operand_of_x(x, t, start, end, order, x_factors, 0, 2, x_copy)
            h_rows, h_row, h_step = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 2, h_copy)
            xc_rows, xc_row, hc_rows, hc_row = operands_of_candidate(
                x, t, states, slot, start, end, order, flags, s, x_factors, h_factors, x_rows, x_row, h_rows, h_row,
                advance(x_copy, 2 * x_room), advance(h_copy, 2 * h_room),
            )  # fmt: skip
            for row in range(start, end, block):
                count = min(block, end - row)
                x_here, h_here = advance(x_rows, (row - start) * x_row), advance(h_rows, (row - start) * h_row)
                xc_here, hc_here = advance(xc_rows, (row - start) * xc_row), advance(hc_rows, (row - start) * hc_row)
                for first_unit in range(0, units, width):
                    columns = min(width, -(-(units - first_unit) // vector) * vector)
                    inputs_of_z_and_r(
                        kernel, recurrent, bias, x_here, x_row, x_step, h_here, h_row, h_step, count, first_unit,
                        columns, z, z_row,
                    )  # fmt: skip
                    panel = zr_panels + first_unit // width
                    w_here = advance(pointer(kernel), panel * inputs * width)
                    r_here = advance(pointer(recurrent), panel * units * width)
                    b_here = advance(pointer(bias), panel * width)
                    d_here = advance(b_here, (kernel.shape[0] - zr_panels) * width)
                    g_here, m_here = advance(z, 2 * width), advance(z, 3 * width)
                    rows_product(
                        xc_here, xc_row, 1, count, w_here, width, inputs, b_here, 0, g_here, z_row, columns
                    )  # fmt: skip
                    rows_product(
                        hc_here, hc_row, 1, count, r_here, width, units, d_here, 0, m_here, z_row, columns
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
                            at = k * z_row
                            m = load(m_here, at + place)
                            h, kz, kr, kg = step(
                                load(z, at + 2 * place), load(z, at + 2 * place + vector), load(g_here, at + place), m,
                                h0, activation, recurrent_activation,
                            )  # fmt: skip
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if training:
                                there = (s * batch + r) * 4 * units + unit
                                store_n(kept, there, n, kz)
                                store_n(kept, there + units, n, kr)
                                store_n(kept, there + 2 * units, n, kg)
                                store_n(kept, there + 3 * units, n, m)
        carry_rows(states, slot, new_slot, flags, s, first, start, stop)
        if out.shape[1]:
            emit_rows(states, new_slot, out, flags, s, start, stop, order)
    hold(scratch)


@njit
def backward(
    start, stop, d_out, d_states, kernel, recurrent, states, flags, order, x_factors, h_factors, tape, d_x,
    first, last, backwards, activation, recurrent_activation,
):  # fmt: skip
    """Run the steps last-1 .. first of the rows start..stop back; see `numbarnn.cells.contract`.

    `kernel` and `recurrent` are those of `Cell.pack_back`.
    """
    timesteps = d_x.shape[1]
    batch, units = states.shape[2], states.shape[3]
    vector = lanes(states)
    memory, kept, dh = pointer(states), pointer(tape), pointer(d_states)
    emitted = d_out.shape[1] > 0
    nothing = splat(states.dtype.type(0))
    scratch = np.empty((stop - start + 1) * kernel.shape[2], states.dtype)
    clear(pointer(scratch), 0, kernel.shape[2])
    product = advance(pointer(scratch), kernel.shape[2])
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
        end = counting_end(flags, s, start, stop)
        if end > start:
            t = timesteps - 1 - s if backwards else s
            back_to_h_and_x(
                d_states, d_x, kernel, recurrent, tape, PRODUCT, flags, order, x_factors, h_factors, s, t, start, end,
                pointer(scratch), product,
            )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop)
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
