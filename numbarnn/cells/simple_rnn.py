"""SimpleRNN cell: a fully connected recurrent layer, its equation and the loops that run it over a batch of sequences.

One gate, one state h::

    z = b + x W + h R               (one chain for each element: bias, then x in k order, then h in k order)
    h' = tanh(z)

Source: J. Elman, "Finding Structure in Time", Cognitive Science 14(2), 1990.

The tape keeps nothing for tanh, whose derivative needs h' alone, which the states hold already; for other activations
h', or z for those whose derivative needs the input.  `backward` writes the gradients of z to it.  The arrays are those
of `numbarnn.cells.contract`; the recurrent activation is not used.
"""

import numpy as np

from numbarnn.cells.contract import COUNTS, NOTHING, SILENT, Cell
from numbarnn.cells.gates import keep, squash, squash_slope
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
from numbarnn.gemm import rows_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, hold, lanes, load, load_n, pointer, splat, store_n


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
    first, last, backwards, activation, recurrent_activation, room=None,
):  # fmt: skip
    """Run the steps first..last of the rows start..stop; see `numbarnn.cells.contract`."""
    timesteps, inputs = x.shape[1], x.shape[2]
    slots, batch, units = states.shape[1], states.shape[2], states.shape[3]
    width = kernel.shape[2]
    vector = lanes(kernel)
    # Working memory: the gate's inputs of a block of rows, and copies of the left operands where they need one.
    x_room = (stop - start) * inputs
    block = min(ROW_BLOCK, stop - start)
    scratch = working_memory(block * width + x_room + (stop - start) * units, x, room)
    z = pointer(scratch)
    x_copy = advance(z, block * width)
    h_copy = advance(x_copy, x_room)
    memory, kept = pointer(states), pointer(tape)
    training = tape.shape[0] > 0
    for s in range(first, last):
        slot, new_slot = (s, s + 1) if slots > 2 or training else (s % 2, 1 - s % 2)
        t = timesteps - 1 - s if backwards else s
        end = counting_end(flags, s, start, stop)
        if end > start:
            x_rows, x_row, _ = operand_of_x(x, t, start, end, order, x_factors, 0, 1, x_copy)
            h_rows, h_row, _ = operand_of_h(states, slot, start, end, order, flags, s, h_factors, 0, 1, h_copy)
            for row in range(start, end, block):
                count = min(block, end - row)
                x_here, h_here = advance(x_rows, (row - start) * x_row), advance(h_rows, (row - start) * h_row)
                for panel in range(kernel.shape[0]):
                    first_unit = panel * width
                    columns = min(width, -(-(units - first_unit) // vector) * vector)
                    w_here = advance(pointer(kernel), panel * inputs * width)
                    r_here = advance(pointer(recurrent), panel * units * width)
                    b_here = advance(pointer(bias), panel * width)
                    rows_product(x_here, x_row, 1, count, w_here, width, inputs, b_here, 0, z, width, columns)
                    rows_product(h_here, h_row, 1, count, r_here, width, units, z, width, z, width, columns)
                    for k in range(count):
                        r = row + k
                        if not flags[s, r] & COUNTS:
                            continue
                        for place in range(0, columns, vector):
                            unit = first_unit + place
                            n = units - unit
                            h, kh = step(load(z, k * width + place), activation)
                            store_n(memory, (new_slot * batch + r) * units + unit, n, h)
                            if activation is not None and training:
                                store_n(kept, (s * batch + r) * units + unit, n, kh)
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
                    there = (s * batch + r) * units + unit
                    if activation is None:
                        kh = load_n(memory, ((s + 1) * batch + r) * units + unit, n)
                    else:
                        kh = load_n(kept, there, n)
                    store_n(kept, there, n, step_back(dh0, kh, activation))
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
