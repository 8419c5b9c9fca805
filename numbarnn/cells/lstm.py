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

import numpy as np

from numbarnn.cells.contract import COUNTS, CUT, NOTHING, SILENT, Cell
from numbarnn.cells.gates import gate, gate_slope, keep, squash, squash_slope, value_of
from numbarnn.cells.products import back_to_h_and_x
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
from numbarnn.gemm import four_gates_product, rows_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, fma, hold, lanes, load, load_n, pointer, splat, store_n


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
    first, last, backwards, activation, recurrent_activation, room=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`."""
    timesteps, inputs = x.shape[1], x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    block_panels = 4 * vector // width  # panels that hold the four gates of one block of units
    x_copies, h_copies = x_factors.shape[0], h_factors.shape[0]
    # Working memory: the gates' inputs of a block of rows, and copies of the left operands where they need one.
    z_row = 4 * vector
    x_room = (stop - start) * inputs * max(x_copies, min(order.shape[0], 1))
    h_room = (stop - start) * units * max(h_copies, 1)
    block = min(ROW_BLOCK, stop - start)
    scratch = working_memory(block * z_row + x_room + h_room, x, room)
    z = pointer(scratch)
    x_copy = advance(z, block * z_row)
    h_copy = advance(x_copy, x_room)
    memory, kept = pointer(states), pointer(tape)
    c_plane = slots * batch * units  # where the states c begin, behind the states h
    training = tape.shape[0] > 0
    zero = x.dtype.type(0)
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        t = timesteps - 1 - s if backwards else s
        end = counting_end(flags, s, start, stop)
        if end > start:
            x_rows, x_row, x_step = operand_of_x(x, t, start, end, order, x_factors, 0, 4, x_copy)
            h_rows, h_row, h_step = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 4, h_copy)
            for row in range(start, end, block):
                count = min(block, end - row)
                x_here, h_here = advance(x_rows, (row - start) * x_row), advance(h_rows, (row - start) * h_row)
                for unit in range(0, units, vector):
                    for p in range(block_panels):
                        panel = unit // vector * block_panels + p
                        z_here = advance(z, p * width)
                        b_here = advance(pointer(bias), panel * width)
                        w_here = advance(pointer(kernel), panel * inputs * width)
                        r_here = advance(pointer(recurrent), panel * units * width)
                        pair = p * (width // vector)  # the first gate of this panel
                        if x_step > 1:
                            four_gates_product(
                                advance(x_here, pair), x_row, x_step, count, w_here, width, inputs,
                                b_here, 0, z_here, z_row, width,
                            )  # fmt: skip
                        else:
                            rows_product(
                                x_here, x_row, 1, count, w_here, width, inputs, b_here, 0, z_here, z_row, width
                            )  # fmt: skip
                        if h_step > 1:
                            four_gates_product(
                                advance(h_here, pair), h_row, h_step, count, r_here, width, units,
                                z_here, z_row, z_here, z_row, width,
                            )  # fmt: skip
                        else:
                            rows_product(
                                h_here, h_row, 1, count, r_here, width, units, z_here, z_row, z_here, z_row, width
                            )  # fmt: skip
                    n = units - unit
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
                        zr = k * z_row
                        h, c, ki, kf, kg, ko = step(
                            load(z, zr), load(z, zr + vector), load(z, zr + 2 * vector), load(z, zr + 3 * vector),
                            c0, activation, recurrent_activation,
                        )  # fmt: skip
                        store_n(memory, new, n, h)
                        store_n(memory, c_plane + new, n, c)
                        if training:
                            there = (s * batch + r) * 4 * units + unit
                            store_n(kept, there, n, ki)
                            store_n(kept, there + units, n, kf)
                            store_n(kept, there + 2 * units, n, kg)
                            store_n(kept, there + 3 * units, n, ko)
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
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    vector = lanes(states)
    memory, kept = pointer(states), pointer(tape)
    dh, dc = pointer(d_states), advance(pointer(d_states), batch * units)
    emitted = d_out.shape[1] > 0
    c_plane = slots * batch * units
    zero = states.dtype.type(0)
    nothing = splat(zero)
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
        end = counting_end(flags, s, start, stop)
        if end > start:
            t = timesteps - 1 - s if backwards else s
            back_to_h_and_x(
                d_states, d_x, kernel, recurrent, tape, NOTHING, flags, order, x_factors, h_factors, s, t, start, end,
                pointer(scratch), product,
            )  # fmt: skip
        cut_rows(d_states, flags, s, start, stop)
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
