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

import numpy as np

from numbarnn.cells.contract import COUNTS, CUT, OPERAND, SILENT, Cell
from numbarnn.cells.gates import gate, gate_slope, keep, squash, squash_slope, value_of
from numbarnn.cells.gru import inputs_of_z_and_r, operands_of_candidate
from numbarnn.cells.products import back_to_h_and_x, multiply_back
from numbarnn.cells.rows import (
    ROW_BLOCK,
    carry_rows,
    counting_end,
    cut_rows,
    emit_rows,
    operand_of_h,
    operand_of_x,
    row_of,
    working_memory,
)
from numbarnn.gemm import rows_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, fma, hold, lanes, like, load, load_n, pointer, splat, store_n


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
    first, last, backwards, activation, recurrent_activation, room=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`."""
    timesteps, inputs = x.shape[1], x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    # Panels of z and r hold them in turns; those of the candidate come behind.
    blocks = -(-units // vector)
    zr_panels = -(-2 * blocks * vector // width)
    # Working memory: the gates' inputs of a block of rows and two panels; z and r * h of a block of rows; then copies
    # of the left operands where they need one.
    z_row = 2 * width
    x_room, h_room = (stop - start) * inputs, (stop - start) * units
    block = min(ROW_BLOCK, stop - start)
    scratch = working_memory(block * (z_row + 2 * units) + 3 * (x_room + h_room), x, room)
    z = pointer(scratch)
    z_value = advance(z, block * z_row)
    reset_h = advance(z_value, block * units)
    x_copy = advance(reset_h, block * units)
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
                    for k in range(count):
                        r = row + k
                        if not flags[s, r] & COUNTS:
                            clear(reset_h, k * units + first_unit, min(width, units - first_unit))
                            continue
                        for place in range(0, columns, vector):
                            unit = first_unit + place
                            n = units - unit
                            at = k * z_row + 2 * place
                            value, rh, kz, kr = reset_step(
                                load(z, at), load(z, at + vector), load_n(hc_here, k * hc_row + unit, n),
                                recurrent_activation,
                            )  # fmt: skip
                            store_n(z_value, k * units + unit, n, value)
                            store_n(reset_h, k * units + unit, n, rh)
                            if training:
                                there = (s * batch + r) * 4 * units + unit
                                store_n(kept, there, n, kz)
                                store_n(kept, there + units, n, kr)
                                store_n(kept, there + 3 * units, n, rh)
                for first_unit in range(0, units, width):
                    columns = min(width, -(-(units - first_unit) // vector) * vector)
                    panel = zr_panels + first_unit // width
                    b_here = advance(pointer(bias), panel * width)
                    w_here = advance(pointer(kernel), panel * inputs * width)
                    r_here = advance(pointer(recurrent), panel * units * width)
                    rows_product(xc_here, xc_row, 1, count, w_here, width, inputs, b_here, 0, z, z_row, columns)
                    rows_product(reset_h, units, 1, count, r_here, width, units, z, z_row, z, z_row, columns)
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
                                load(z, k * z_row + place), load_n(z_value, k * units + unit, n), h0, activation
                            )  # fmt: skip
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if training:
                                store_n(kept, (s * batch + r) * 4 * units + 2 * units + unit, n, kg)
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
    nothing, one = splat(states.dtype.type(0)), states.dtype.type(1)
    h_copies = h_factors.shape[0]
    # Working memory: a panel's width of zeros, room for the rows of a panel, and the gradients of r * h.
    room = (stop - start + 1) * kernel.shape[2]
    scratch = np.empty(room + (stop - start) * units, states.dtype)
    clear(pointer(scratch), 0, kernel.shape[2])
    product = advance(pointer(scratch), kernel.shape[2])
    d_rh = advance(pointer(scratch), room - start * units)  # of row 0
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
            t = timesteps - 1 - s if backwards else s
            dz = advance(kept, (s * batch + start) * 4 * units)
            multiply_back(
                advance(dz, 2 * units), 4 * units, end - start, recurrent, 2 * units, units, h_factors[:0], 0,
                flags, s, start, order[:0], pointer(scratch), product, d_rh, units,
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
            back_to_h_and_x(
                d_states, d_x, kernel, recurrent, tape, OPERAND, flags, order, x_factors, h_factors, s, t, start, end,
                pointer(scratch), product,
            )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop)
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
