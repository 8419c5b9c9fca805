"""Products shared by the cells' backward passes: gradients through a weight matrix, and of it."""

import numpy as np

from numbarnn.cells.contract import COUNTS, CUT
from numbarnn.cells.rows import copy_row, zero_row
from numbarnn.gemm import panel_columns, rows_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, hold, lanes, load_n, pointer, store, store_n

DEPTH_BLOCK = 128  # steps of a weight gradient's chain between two rests in memory: operands that stay in the caches


@device
def multiply_back(dz, rows, gates, units, weights, factors, start, scratch, zeros, target, target_row):
    """Add ``dz @ weights.T`` to the rows of `target`, through the dropout factors of the forward product.

    Parameters
    ----------
    dz : pointer
        Gradients of z of the first row; a row has ``gates * units`` elements.
    weights : array [panels, gates * units, panel width]
        ``pack_transposed`` of the weights of all gates.
    factors : array [M, B, columns]
        Dropout factors; `start` is the batch row of the first row here.
    scratch : array
        Room for `rows` rows of one panel.
    zeros : array
        One panel width of zeros.
    target : pointer
        First row, with `target_row` elements from one row to the next.
    """
    columns = factors.shape[2]
    width = weights.shape[2]
    depth = gates * units
    copies = factors.shape[0]
    split = gates if copies > 1 else 1
    for panel in range(weights.shape[0]):
        column = panel * width
        valid = columns - column
        right = advance(pointer(weights), panel * depth * width)
        if copies == 0:
            goal = advance(target, column)
            rows_product(dz, depth, 1, rows, right, width, depth, goal, target_row, goal, target_row, valid)
            continue
        valid = min(valid, width)
        product = pointer(scratch)
        for g in range(split):
            length = depth // split
            rows_product(
                advance(dz, g * length), depth, 1, rows, advance(right, g * length * width), width, length,
                pointer(zeros), 0, product, width, valid,
            )  # fmt: skip
            for r in range(rows):
                scale = advance(pointer(factors), (g * factors.shape[1] + start + r) * columns + column)
                goal = advance(target, r * target_row + column)
                for k in range(0, valid, lanes(dz)):
                    n = valid - k
                    value = load_n(goal, k, n) + load_n(product, r * width + k, n) * load_n(scale, k, n)
                    store_n(goal, k, n, value)


@njit
def weight_gradients(
    start, stop, by_rows, x, states, flags, live, x_factors, h_factors, dz, first, last, backwards,
    d_kernel, d_recurrent, d_bias,
):  # fmt: skip
    """Add the gradients of the weights over the steps last-1 .. first to `d_kernel`, `d_recurrent` and `d_bias`.

    Each element is one chain over the steps in falling order and, within a step, over the rows in rising order, of the rows that count.
    A call computes the elements of rows start..stop of the kernel with the recurrent kernel below it (`by_rows`; the first of these
    calls also the bias), or of the column panels start..stop of both: calls on disjoint ranges may run at once.

    Parameters
    ----------
    dz : array [T, B, G*H]
        The tape as `backward` left it.
    d_kernel, d_recurrent, d_bias : arrays [I, G*H], [H, G*H], [G*H]
        The chains so far: zeros before the last segment of steps.  The other arrays are those of `numbarnn.cells.contract`.
    """
    timesteps, inputs = x.shape[1], x.shape[2]
    batch, units = states.shape[2], states.shape[3]
    columns = d_kernel.shape[1]
    vector = lanes(x)
    width = 4 * vector
    # With dropout factors of their own for each gate, the gates' columns are products with different left sides.
    splits = max(1, x_factors.shape[0], h_factors.shape[0])
    split_columns = columns // splits
    split_panels = -(-split_columns // width)
    top, bottom = (start, stop) if by_rows else (0, inputs + units)
    first_panel, last_panel = (0, splits * split_panels) if by_rows else (start, stop)
    x_top, x_rows = min(top, inputs), min(bottom, inputs) - min(top, inputs)
    h_top, h_rows = max(top - inputs, 0), max(bottom - inputs, 0) - max(top - inputs, 0)
    h_place = -(-x_rows // vector) * vector
    left_row = h_place + -(-h_rows // vector) * vector + vector  # off the powers of two, which fall on the same cache lines
    left_array = np.empty((DEPTH_BLOCK, left_row), x.dtype)
    right_array = np.empty((DEPTH_BLOCK, width), x.dtype)
    step_of, row_of = np.empty(DEPTH_BLOCK, np.int64), np.empty(DEPTH_BLOCK, np.int64)
    left, right, memory, inputs_here = pointer(left_array), pointer(right_array), pointer(states), pointer(x)
    gradients, bias = pointer(dz), pointer(d_bias)
    s, b = last - 1, 0
    while s >= first:
        depth = 0
        while s >= first and depth < DEPTH_BLOCK:
            if b < min(batch, live[s]):
                if flags[s, b] & COUNTS:
                    step_of[depth], row_of[depth] = s, b
                    depth += 1
                b += 1
            else:
                s, b = s - 1, 0
        gathered = -1
        for panel in range(first_panel, last_panel):
            split = panel // split_panels
            column = split * split_columns + panel % split_panels * width
            valid = min(width, (split + 1) * split_columns - column)
            if split != gathered:
                gathered = split
                for k in range(depth):
                    t = timesteps - 1 - step_of[k] if backwards else step_of[k]
                    source = (row_of[k] * timesteps + t) * inputs + x_top
                    gather_scaled(inputs_here, source, x_factors, split, row_of[k], x_top, left, k * left_row, x_rows)
                    there = k * left_row + h_place
                    if flags[step_of[k], row_of[k]] & CUT:
                        zero_row(x.dtype.type(0), left, there, h_rows)
                    else:
                        source = (step_of[k] * batch + row_of[k]) * units + h_top
                        gather_scaled(memory, source, h_factors, split, row_of[k], h_top, left, there, h_rows)
            for v in range(0, valid, vector):
                n = valid - v
                total = load_n(bias, column + v, n)
                for k in range(depth):
                    value = load_n(gradients, (step_of[k] * batch + row_of[k]) * columns + column + v, n)
                    store(right, k * width + v, value)
                    total = total + value
                if top == 0:
                    store_n(bias, column + v, n, total)
            goal = advance(pointer(d_kernel), x_top * columns + column)
            rows_panels(left, left_row, x_rows, right, width, depth, goal, columns, valid)
            goal = advance(pointer(d_recurrent), h_top * columns + column)
            rows_panels(advance(left, h_place), left_row, h_rows, right, width, depth, goal, columns, valid)
    hold(left_array)
    hold(right_array)


@device
def rows_panels(left, left_row, rows, right, width, depth, goal, goal_row, valid):
    """`rows_product` with the transpose of `left`, over as many of the micro-kernel's panels as `width` holds."""
    step = panel_columns(right)
    for column in range(0, valid, step):
        target = advance(goal, column)
        rows_product(
            left, 1, left_row, rows, advance(right, column), width, depth, target, goal_row, target, goal_row, valid - column
        )  # fmt: skip


@device
def gather_scaled(source, offset, factors, gate, row, first, target, place, count):
    """Copy `count` elements of a row, times their dropout factors for `gate` if there are any."""
    copies, batch, width = factors.shape
    if copies == 0:
        copy_row(source, offset, target, place, count)
        return
    scale = (min(gate, copies - 1) * batch + row) * width + first
    for k in range(0, count, lanes(target)):
        n = count - k
        store_n(target, place + k, n, load_n(source, offset + k, n) * load_n(pointer(factors), scale + k, n))
