"""Products shared by the cells' backward passes: gradients through a weight matrix, and of it."""

import numpy as np

from numbarnn.cells.contract import COUNTS, CUT
from numbarnn.gemm import panel_columns, rows_product
from numbarnn.jit import device, njit
from numbarnn.simd import advance, clear, hold, lanes, load, load_n, pointer, store, store_n

# A weight gradient is computed in blocks whose operands stay in the second-level cache: links of the chains (steps of a
# row of the batch) between two rests in memory, and rows of the result.
DEPTH_BLOCK = 256
ROWS_BLOCK = 384


@device
def multiply_back(dz, rows, gates, units, weights, factors, flags, s, start, zeros, product, target, target_row):
    """Add ``dz @ weights.T`` to the rows of `target` that count, through the dropout factors of the forward product.

    Parameters
    ----------
    dz : pointer
        Gradients of z of the first row; a row has ``gates * units`` elements.
    weights : array [panels, gates * units, panel width]
        ``pack_transposed`` of the weights of all gates.
    factors : array [M, B, columns]
        Dropout factors.
    flags : array [T, B]
        At step `s`, row `start` is the first row here. Rows that do not count are left as they are: zeros times their
        gradient would be NaN where a weight is infinite.
    zeros, product : pointer
        A panel's width of zeros, and room for `rows` rows of a panel.
    target : pointer
        First row, with `target_row` elements from one row to the next; zeros in the rows that count.
    """
    columns = factors.shape[2]
    width = weights.shape[2]
    depth = gates * units
    copies = factors.shape[0]
    split = gates if copies > 1 else 1
    length = depth // split
    gaps = False
    for r in range(rows):
        if not flags[s, start + r] & COUNTS:
            gaps = True
            break
    for panel in range(weights.shape[0]):
        column = panel * width
        valid = min(columns - column, width)
        right = advance(pointer(weights), panel * depth * width)
        if copies == 0 and not gaps:
            goal = advance(target, column)
            rows_product(dz, depth, 1, rows, right, width, depth, goal, target_row, goal, target_row, valid)
            continue
        for g in range(split):
            rows_product(
                advance(dz, g * length), depth, 1, rows, advance(right, g * length * width), width, length,
                zeros, 0, product, width, valid,
            )  # fmt: skip
            for r in range(rows):
                if not flags[s, start + r] & COUNTS:
                    continue
                scale = ((g * factors.shape[1]) + start + r) * columns + column
                for k in range(0, valid, lanes(dz)):
                    here = r * target_row + column + k
                    value = load_n(product, r * width + k, valid - k)
                    if copies:
                        value = value * load_n(pointer(factors), scale + k, valid - k)
                    store_n(target, here, valid - k, load_n(target, here, valid - k) + value)


@njit
def weight_gradients(
    start, stop, by_rows, x, states, flags, live, x_factors, h_factors, dz, first, last, backwards,
    d_kernel, d_recurrent, d_bias,
):  # fmt: skip
    """Add the gradients of the weights over the steps last-1 .. first to `d_kernel`, `d_recurrent` and `d_bias`.

    Each element is one chain over the steps in falling order and, within a step, over the rows in rising order, of
    the rows that count. A call computes the elements of rows start..stop of the kernel with the recurrent kernel
    below it (`by_rows`; the first of these calls also the bias), or of the column panels start..stop of both: calls
    on disjoint ranges may run at once.

    Parameters
    ----------
    dz : array [T, B, G*H]
        The tape as `backward` left it.
    d_kernel, d_recurrent, d_bias : arrays [I, G*H], [H, G*H], [G*H]
        The chains so far: zeros before the last segment of steps.  The other arrays are those of
        `numbarnn.cells.contract`.
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
    block = min(bottom - top, ROWS_BLOCK)
    left_row = -(-block // vector) * vector + 2 * vector  # off the powers of two, which fall on the same cache lines
    scratch = np.empty(DEPTH_BLOCK * (left_row + width), x.dtype)
    left, right = pointer(scratch), advance(pointer(scratch), DEPTH_BLOCK * left_row)
    # Of each link of the chains: where its rows of x, of h (-1: zeros) and of dz begin, and its row in the batch.
    places = np.empty(4 * DEPTH_BLOCK, np.int64)
    x_places = pointer(places)
    h_places, dz_places, rows = (
        advance(x_places, DEPTH_BLOCK), advance(x_places, 2 * DEPTH_BLOCK), advance(x_places, 3 * DEPTH_BLOCK)
    )  # fmt: skip
    s, b = last - 1, 0
    while s >= first:
        depth = 0
        while s >= first and depth < DEPTH_BLOCK:
            if b < min(batch, live[s]):
                flag = flags[s, b]
                if flag & COUNTS:
                    t = timesteps - 1 - s if backwards else s
                    x_places[depth] = (b * timesteps + t) * inputs
                    h_places[depth] = -1 if flag & CUT else (s * batch + b) * units
                    dz_places[depth] = (s * batch + b) * columns
                    rows[depth] = b
                    depth += 1
                b += 1
            else:
                s, b = s - 1, 0
        # Blocks of rows: those of the kernel, then those of the recurrent kernel.
        row = top
        while row < bottom:
            recurrent = row >= inputs
            end = min(row + ROWS_BLOCK, bottom if recurrent else min(bottom, inputs))
            gathered = -1
            for panel in range(first_panel, last_panel):
                split = panel // split_panels
                column = split * split_columns + panel % split_panels * width
                valid = min(width, (split + 1) * split_columns - column)
                if split != gathered:
                    gathered = split
                    source, from_row, factors, here = pointer(x), x_places, x_factors, row
                    if recurrent:
                        source, from_row, factors, here = pointer(states), h_places, h_factors, row - inputs
                    gather_links(source, from_row, depth, here, end - row, factors, split, rows, left, left_row)
                for k in range(depth):
                    for v in range(0, valid, vector):
                        store(right, k * width + v, load_n(pointer(dz), dz_places[k] + column + v, valid - v))
                if row == 0:
                    for v in range(0, valid, vector):
                        total = load_n(pointer(d_bias), column + v, valid - v)
                        for k in range(depth):
                            total = total + load(right, k * width + v)
                        store_n(pointer(d_bias), column + v, valid - v, total)
                goal = advance(pointer(d_kernel), row * columns + column)
                if recurrent:
                    goal = advance(pointer(d_recurrent), (row - inputs) * columns + column)
                step = panel_columns(right)
                for part in range(0, valid, step):
                    target = advance(goal, part)
                    rows_product(
                        left, 1, left_row, end - row, advance(right, part), width, depth,
                        target, columns, target, columns, valid - part,
                    )  # fmt: skip
            row = end
    hold(scratch)
    hold(places)


@device
def gather_links(source, places, depth, first, count, factors, gate, rows, left, left_row):
    """Copy elements first..first+count of the rows at `places`, times their dropout factors; a place of -1: zeros."""
    copies, batch, width = factors.shape
    plane = min(gate, copies - 1) * batch
    scale = pointer(factors)
    for k in range(depth):
        if places[k] < 0:
            clear(left, k * left_row, count)
            continue
        for j in range(0, count, lanes(left)):
            value = load_n(source, places[k] + first + j, count - j)
            if copies:
                value = value * load_n(scale, (plane + rows[k]) * width + first + j, count - j)
            store_n(left, k * left_row + j, count - j, value)
