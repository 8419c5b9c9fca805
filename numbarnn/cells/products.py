"""Products that the cells share: of the inputs, gradients through a weight matrix, and of it."""

from numbarnn.cells.contract import COUNTS, CUT, NOTHING, OPERAND, PRODUCT
from numbarnn.cells.rows import row_of, to_and_fro, working_memory
from numbarnn.gemm import four_gates_product, panel_columns, rows_product, two_gates_product
from numbarnn.jit import device, njit
from numbarnn.meeting import share
from numbarnn.simd import (
    advance,
    aligned_pointer,
    clear,
    empty,
    hold,
    lanes,
    load_n,
    pointer,
    prefetch,
    store,
    store_n,
)

# A weight gradient is computed in blocks whose operands stay in the second-level cache: links of the chains (steps of
# a row of the batch) between two rests in memory, and rows of the result. A band of rows is one product, during which
# what comes next is fetched; the left side of a band lies together, on few pages.
DEPTH_BLOCK = 256
ROWS_BLOCK = 528
_BAND = 48
_FEW_ROWS = 48  # of the result: the right side is read from where it is
_FEW_LINKS = 32  # rows of the data: with fewer, products of one step's links would be too short
_ROWS_BACK = 192  # rows of gradients, of several steps, that go back to the inputs together


@device
def input_products(
    x, x_row, later, x_step, rows, steps, kernel, bias, first, last, columns, z, z_panel, two=None, four=None
):  # fmt: skip
    """Begin the chains of the gates' inputs: bias, then x, of `steps` steps of `rows` rows.

    Parameters
    ----------
    x, x_row, later, x_step
        As `numbarnn.cells.rows.operand_of_x` gives them, from the first row and step on.
    kernel, bias : array
        As `Cell.forward` has them; of panels first..last, which have `columns` columns.
    z : pointer
        To room for a block [steps, rows, panel width] of each of those panels, `z_panel` elements apart.
    two, four : bool or None
        Whether two or four gates may have rows of their own (then ``x_step`` says whether they do); None compiles
        nothing for that.
    """
    inputs, width = kernel.shape[1], kernel.shape[2]
    # The longer side goes through one product, the other around it.
    lines, line, z_line = steps, later, rows * width
    count, row, z_row = rows, x_row, width
    if rows < steps:
        lines, line, z_line, count, row, z_row = count, row, z_row, lines, line, z_line
    for panel in range(first, last):
        right, begin = advance(pointer(kernel), panel * inputs * width), advance(pointer(bias), panel * width)
        valid = min(width, columns - (panel - first) * width)
        gate = panel * (width // lanes(x)) % x_step  # the first one of this panel
        for k in range(lines):
            left, target = advance(x, k * line + gate), advance(z, (panel - first) * z_panel + k * z_line)
            if two is not None:
                if x_step == 2:
                    two_gates_product(
                        left, row, 2, count, right, width, inputs, begin, 0, target, z_row, width
                    )  # fmt: skip
                    continue
            if four is not None:
                if x_step == 4:
                    four_gates_product(
                        left, row, 4, count, right, width, inputs, begin, 0, target, z_row, width
                    )  # fmt: skip
                    continue
            rows_product(left, row, 1, count, right, width, inputs, begin, 0, target, z_row, valid)


@device
def multiply_back(
    dz, dz_next, count, flags, flag, next_flag, weights, panel, first, length, columns, target, target_next
):  # fmt: skip
    """Add ``dz[:, :length] @ weights[:, first : first + length].T`` to those of some rows that count.

    Rows that do not are left as they are: zeros times their gradient would be NaN where a weight is infinite.

    Parameters
    ----------
    dz, target : pointer
        To gradients of the gates' inputs, and to what is added to: `count` rows of one timestep, or of one row of the
        batch at consecutive steps; `dz_next` and `target_next` elements apart.
    flags : array
        That of the first row is the element number `flag`, the others follow at a distance of `next_flag`.
    weights : array [panels, G*H, panel width]
        ``pack_transposed`` of the weights of all gates, with `columns` columns; of its panel number `panel`.
    """
    depth, width = weights.shape[1], weights.shape[2]
    right = advance(pointer(weights), (panel * depth + first) * width)
    marks = advance(pointer(flags), flag)
    row = 0
    while row < count:
        end = row
        while end < count and marks[end * next_flag] & COUNTS:
            end += 1
        if end > row:
            goal = advance(target, row * target_next + panel * width)
            rows_product(
                advance(dz, row * dz_next), dz_next, 1, end - row, right, width, length,
                goal, target_next, goal, target_next, columns - panel * width,
            )  # fmt: skip
        row = end + 1


@device
def multiply_back_with_factors(
    dz, dz_row, rows, weights, panel, first, length, factors, gate, flags, s, start, order, in_order, zeros, product,
    target, target_row,
):  # fmt: skip
    """Add ``dz[:, :length] @ weights[:, first : first + length].T``, times factors, to the rows that count of a step.

    Parameters
    ----------
    dz : pointer
        Gradients of the gates' inputs of the first of `rows` rows, `dz_row` elements apart.
    weights, panel, first, length
        See `multiply_back`.
    factors : array [M, B, columns]
        Dropout factors of the forward product; `gate` tells which of them.
    flags : array [T, B]
        At step `s`, row `start` is the first row here.
    order, in_order : array, bool
        Row `start` goes to row ``order[start]`` of the target, or to row `start`.
    zeros, product : pointer
        A panel's width of zeros, and room for `rows` rows of a panel.
    target : pointer
        To its row 0, with `target_row` elements from one row to the next.
    """
    copies, batch, columns = factors.shape
    depth, width = weights.shape[1], weights.shape[2]
    column = panel * width
    valid = min(columns - column, width)
    right = advance(pointer(weights), (panel * depth + first) * width)
    rows_product(dz, dz_row, 1, rows, right, width, length, zeros, 0, product, width, valid)
    for r in range(rows):
        if not flags[s, start + r] & COUNTS:
            continue
        plane = (min(gate, copies - 1) * batch + start + r) * columns + column
        here = (start + r if in_order else order[start + r]) * target_row + column
        for k in range(0, valid, lanes(dz)):
            value = load_n(product, r * width + k, valid - k) * load_n(pointer(factors), plane + k, valid - k)
            store_n(target, here + k, valid - k, load_n(target, here + k, valid - k) + value)


@device
def steps_back(rows, order):
    """How many steps' gradients go back to the inputs together, after they have gone back to h one by one.

    Then the weights of the inputs do not drive those of h out of the second-level cache at each step, and few rows
    become many.
    """
    least = 6 if order.shape[0] else 1  # rows in disorder are products of their own
    return max(least, _ROWS_BACK // max(rows, 1))


@device
def back_to_h_and_x(
    d_states, d_x, kernel, recurrent, tape, apart, flags, order, x_factors, h_factors, s, steps, backwards, start, stop,
    first_panel, last_panel, member, members, zeros, product,
):  # fmt: skip
    """Take the gradients of the gates' inputs at step s back to the first state, and of steps s..s+steps to the inputs.

    Parameters
    ----------
    d_states, d_x, kernel, recurrent, tape, flags, order, x_factors, h_factors
        As `Cell.backward` has them, with those gradients in the tape.
    apart : int
        `Cell.apart`. With PRODUCT the last plane of the tape is the last gate's gradient on the way to h; with OPERAND
        that gate takes no part in it.
    start, stop : int
        The kernel's rows.
    first_panel, last_panel : int
        Panels of the recurrent weights, hence units, that this member of a team takes.
    member, members : int
        Which member, of how many; they share the steps on the way to the inputs.
    zeros, product : pointer
        See `multiply_back_with_factors`.
    """
    timesteps, inputs = d_x.shape[1], d_x.shape[2]
    batch, units = d_states.shape[1], d_states.shape[2]
    row = tape.shape[2]
    gates = row // units if apart == NOTHING else row // units - 1
    for back_to_x in range(2 if timesteps and steps else 1):  # a loop, for one copy of the code
        # One at a time: Numba makes tuples of several, and counts references to what is in them.
        weights = recurrent
        factors = h_factors
        in_order, columns = True, units
        target, target_row, target_step = pointer(d_states), units, 0
        begin, end, first_turn, last = s, s + 1, first_panel, last_panel
        joint = gates - (apart != NOTHING)
        count = gates - (apart == OPERAND)
        if back_to_x:
            mine, following = share(steps, member, members)
            begin, end, first_turn, last = s + mine, s + following, 0, kernel.shape[0]
            weights = kernel
            factors = x_factors
            in_order, columns = order.shape[0] == 0, inputs
            t, target_step = (timesteps - 1 - begin, -inputs) if backwards else (begin, inputs)
            target, target_row = advance(pointer(d_x), t * inputs), timesteps * inputs
            joint = count = gates
        rows, many = stop - start, end - begin
        together = 1 if factors.shape[0] > 1 else joint  # gates that share their factors
        along_steps = not in_order or rows < many
        turn = first_turn
        while turn < last:
            panel = to_and_fro(turn, first_turn, last, s)
            g = 0
            while g < count:
                plane = g if g < joint else gates
                length = min(together, count - g) * units
                for line in range(rows if along_steps and factors.shape[0] == 0 else many):
                    r, at = (start + line, begin) if along_steps else (start, begin + line)
                    if factors.shape[0]:
                        r, at = start, begin + line
                    dz = advance(pointer(tape), (at * batch + r) * row + plane * units)
                    goal = advance(target, (at - begin) * target_step)
                    if factors.shape[0]:
                        multiply_back_with_factors(
                            dz, row, rows, weights, panel, g * units, length, factors, g, flags, at, start, order,
                            in_order, zeros, product, goal, target_row,
                        )  # fmt: skip
                        continue
                    goal = advance(goal, (r if in_order else order[r]) * target_row)
                    dz_next, next_flag, target_next, n = row, 1, target_row, rows
                    if along_steps:
                        dz_next, next_flag, target_next, n = batch * row, batch, target_step, many
                    multiply_back(
                        dz, dz_next, n, flags, at * batch + r, next_flag, weights, panel, g * units, length, columns,
                        goal, target_next,
                    )  # fmt: skip
                g += together
            turn += 1


@device
def _head(columns, units, apart, x_copies, h_copies):
    """How many of the first columns of a weight gradient are one product.

    Gates with dropout factors of their own, or with a product of their own, are products with different sides.
    """
    if max(x_copies, h_copies) > 1:
        return units
    return columns if apart == NOTHING else columns - units


@device
def gradient_panels(columns, units, apart, x_copies, h_copies, width):
    """Into how many panels of `width` columns `weight_gradients` cuts the weights' columns."""
    head = _head(columns, units, apart, x_copies, h_copies)
    return (head + width - 1) // width + (columns - head) // units * ((units + width - 1) // width)


@device
def _segment(panel, first, units, width):
    """Of a panel of a weight gradient: its segment, first column and how many columns it has.

    Segment 0 has the columns below `first`, each of the others has `units`; a panel lies in one of them.
    """
    head = (first + width - 1) // width
    if panel < head:
        return 0, panel * width, min(width, first - panel * width)
    per = (units + width - 1) // width
    segment = (panel - head) // per
    column = (panel - head) % per * width
    return 1 + segment, first + segment * units + column, min(width, units - column)


@njit
def weight_gradients(
    start, stop, by_rows, apart, x, states, flags, order, x_factors, h_factors, tape, first, last, backwards,
    d_kernel, d_recurrent, d_bias,
):  # fmt: skip
    """Add the gradients of the weights over the steps last-1 .. first to `d_kernel`, `d_recurrent` and `d_bias`.

    Each element is one chain over the steps in falling order and, within a step, over the data's rows in falling order,
    of the rows that count. A call computes the elements of rows start..stop of the kernel with the recurrent kernel
    below it and a like share of the bias (`by_rows`), or of the column panels start..stop of all three: calls on
    disjoint ranges may run at once.

    Parameters
    ----------
    apart : int
        `Cell.apart`.
    tape : array [T, B, P*H]
        As `backward` left it.
    d_kernel, d_recurrent, d_bias : arrays [I, G*H], [H, G*H], [1 or 2, G*H]
        The chains so far: zeros before the last segment of steps.  The other arrays are those of
        `numbarnn.cells.contract`.
    """
    timesteps, inputs = x.shape[1], x.shape[2]
    batch, units = states.shape[2], states.shape[3]
    columns, tape_row = d_kernel.shape[1], tape.shape[2]
    vector = lanes(x)
    width = 4 * vector
    head = _head(columns, units, apart, x_factors.shape[0], h_factors.shape[0])
    panels = gradient_panels(columns, units, apart, x_factors.shape[0], h_factors.shape[0], width)
    top, bottom = (start, stop) if by_rows else (0, inputs + units)
    first_panel, last_panel = (0, panels) if by_rows else (start, stop)
    blocks = (bottom - top + ROWS_BLOCK - 1) // ROWS_BLOCK
    block = (bottom - top + 6 * blocks - 1) // (6 * max(blocks, 1)) * 6  # nearly equal ones, of whole tiles
    # Links one after the other in memory need not be copied: the tape's for few rows, narrow ones of h, those of x of
    # one row of data.
    even = order.size == 0 and all_count(flags, first, last)
    in_h = even and h_factors.shape[0] == 0 and units <= width
    in_x = even and x_factors.shape[0] == 0 and inputs <= width and not 1 < batch < _FEW_LINKS
    x_step = -timesteps * inputs  # from one of its links to the next
    if batch == 1:
        x_step = inputs if backwards else -inputs
    left_room = (block + 2 * _BAND) * DEPTH_BLOCK  # two parts of whole bands
    scratch = working_memory(DEPTH_BLOCK * width + left_room, x)
    copied = aligned_pointer(scratch)
    left = advance(copied, DEPTH_BLOCK * width)
    places = empty(4 * DEPTH_BLOCK + batch, order)
    x_places = pointer(places)
    h_places, tape_places = advance(x_places, DEPTH_BLOCK), advance(x_places, 2 * DEPTH_BLOCK)
    rows = advance(x_places, 3 * DEPTH_BLOCK)
    rank = advance(x_places, 4 * DEPTH_BLOCK)  # the kernel's row of each row of the data
    for r in range(batch):
        rank[row_of(order, r)] = r
    s, b = last - 1, batch - 1
    while s >= first:
        depth, s, b = collect_links(
            s, b, first, timesteps, batch, inputs, units, tape_row, backwards, flags, even, rank, x_places
        )
        row = top
        while row < bottom:
            end = min(row + block, bottom)
            split = min(max(inputs, row), end)  # rows of the kernel, then those of the recurrent kernel
            h_left = advance(left, -(-(split - row) // _BAND) * _BAND * DEPTH_BLOCK)
            gathered = -1
            for panel in range(first_panel, last_panel):
                segment, column, valid = _segment(panel, head, units, width)
                last_gate = apart != NOTHING and column >= columns - units
                # Sides differ by their factors, and by the operand of the last gate.
                side = segment if max(x_factors.shape[0], h_factors.shape[0]) > 1 or apart == OPERAND else 0
                source, origin, h_side, here = pointer(states), h_places, side, split - inputs
                if last_gate and apart == OPERAND:
                    source, origin, h_side, here = pointer(tape), tape_places, -1, columns + split - inputs
                if side != gathered:
                    gathered = side
                    if not in_x:
                        gather_links(pointer(x), x_places, depth, row, split - row, x_factors, side, rows, left)
                    if not in_h:
                        gather_links(source, origin, depth, here, end - split, h_factors, h_side, rows, h_left)
                # The bias is dealt out like the rows: a row's share of a panel's four vectors.
                some = -(-4 * row // (inputs + units)) * vector
                n = min(-(-4 * end // (inputs + units)) * vector, valid) - some
                for which in range(d_bias.shape[0] if n > 0 else 0):
                    here = column + some + (units if which and last_gate and apart == PRODUCT else 0)
                    goal = advance(pointer(d_bias), which * columns + column + some)
                    total_bias(advance(pointer(tape), here), tape_places, depth, n, goal)
                # Whole vectors only: lanes behind the last column could lie behind the end of the tape.
                whole = valid == vector or valid == 2 * vector or valid == width
                in_tape = even and bottom - top <= _FEW_ROWS and whole
                packed, fetched = -1, 0
                for part in range(2):
                    begin, finish = (split, end) if part else (row, split)
                    if begin == finish:
                        continue
                    here = column + (units if part and last_gate and apart == PRODUCT else 0)
                    right, right_step = copied, width
                    if in_tape:
                        right, right_step = advance(pointer(tape), tape_places[0] + here), -tape_row
                    elif packed != here:
                        packed = here
                        for k in range(depth):
                            for v in range(0, valid, vector):
                                store(right, k * width + v, load_n(pointer(tape), tape_places[k] + here + v, valid - v))
                    goal = advance(pointer(d_kernel), begin * columns + column)
                    if part:
                        goal = advance(pointer(d_recurrent), (begin - inputs) * columns + column)
                    for first_row in range(begin, finish, _BAND):
                        count = min(_BAND, finish - first_row)
                        # Where the next rows' chains rest, and some of the next panel's right side.
                        for k in range(first_row + count, min(first_row + 2 * count, finish)):
                            for v in range(0, valid, vector):
                                prefetch(goal, (k - begin) * columns + v)
                        following = depth * (first_row + count - row) // (end - row)
                        for k in range(fetched, following):
                            for v in range(width, 2 * width, vector):
                                prefetch(pointer(tape), tape_places[k] + here + v)
                        fetched = following
                        band, step = advance(h_left if part else left, (first_row - begin) * DEPTH_BLOCK), _BAND
                        if part and in_h:
                            band, step = advance(source, origin[0] + first_row - inputs), -units
                            if last_gate and apart == OPERAND:
                                band, step = advance(band, columns), -tape_row
                        straight = in_x and not part
                        done = 0
                        while done < depth:  # one product, or one for each step's rows of x
                            links = depth - done
                            if straight:
                                band, step = advance(pointer(x), x_places[done] + first_row), x_step
                                if batch > 1:
                                    links = min(links, rows[done] + 1)
                            for some in range(0, valid, panel_columns(right)):
                                target = advance(goal, (first_row - begin) * columns + some)
                                rows_product(
                                    band, 1, step, count, advance(right, done * right_step + some), right_step, links,
                                    target, columns, target, columns, valid - some,
                                )  # fmt: skip
                            done += links
            row = end
    hold(scratch)
    hold(places)


@device
def collect_links(s, b, first, timesteps, batch, inputs, units, tape_row, backwards, flags, even, rank, places):
    """Find the next DEPTH_BLOCK links that count, or how many there are, from step s and row b of the data on.

    Parameters
    ----------
    even : bool
        All of them count, and the data's rows are the kernel's.
    rank : pointer
        To the kernel's row of each row of the data.
    places : pointer
        To DEPTH_BLOCK numbers four times: where their rows of x, of h (-1: zeros) and of the tape begin; kernel rows.

    Returns
    -------
    depth, s, b : int
        How many, and the step and row to go on from (a step below `first`: none).
    """
    x_places, h_places = places, advance(places, DEPTH_BLOCK)
    tape_places, rows = advance(places, 2 * DEPTH_BLOCK), advance(places, 3 * DEPTH_BLOCK)
    depth = 0
    while s >= first and depth < DEPTH_BLOCK:
        t = timesteps - 1 - s if backwards else s
        begin, x_place, place = depth, t * inputs, s * batch
        if even:
            depth = min(begin + b + 1, DEPTH_BLOCK)
            for k in range(begin, depth):
                r = b + begin - k
                x_places[k] = x_place + r * (timesteps * inputs)
                h_places[k] = (place + r) * units
                tape_places[k] = (place + r) * tape_row
                rows[k] = r
            b -= depth - begin
        else:
            step_flags = advance(pointer(flags), place)
            while b >= 0 and depth < DEPTH_BLOCK:
                r = rank[b]
                if step_flags[r] & COUNTS:
                    x_places[depth] = x_place + b * (timesteps * inputs)
                    h_places[depth] = -1 if step_flags[r] & CUT else (place + r) * units
                    tape_places[depth] = (place + r) * tape_row
                    rows[depth] = r
                    depth += 1
                b -= 1
        if b < 0:
            s, b = s - 1, batch - 1
    return depth, s, b


@device
def all_count(flags, first, last):
    """Whether the steps first..last count for all rows, whose states go on."""
    same = True
    for s in range(first, last):
        for r in range(flags.shape[1]):
            same &= flags[s, r] == COUNTS
    return same


@device
def total_bias(source, places, depth, valid, target):
    """Add `valid` columns of the rows at `places`, four vectors at most, to the chains of a bias."""
    n = lanes(source)
    n1, n2, n3 = valid - n, valid - 2 * n, valid - 3 * n
    total, total1 = load_n(target, 0, valid), load_n(target, n, n1)
    total2, total3 = load_n(target, 2 * n, n2), load_n(target, 3 * n, n3)
    for k in range(depth):
        here = advance(source, places[k])
        total, total1 = total + load_n(here, 0, valid), total1 + load_n(here, n, n1)
        total2, total3 = total2 + load_n(here, 2 * n, n2), total3 + load_n(here, 3 * n, n3)
    store_n(target, 0, valid, total)
    store_n(target, n, n1, total1)
    store_n(target, 2 * n, n2, total2)
    store_n(target, 3 * n, n3, total3)


@device
def gather_links(source, places, depth, first, count, factors, gate, rows, left):
    """Copy elements first..first+count of the rows at `places`, times their dropout factors; a place of -1: zeros.

    Parameters
    ----------
    gate : int
        Which of the factors; -1 for none.
    left : pointer
        To bands [DEPTH_BLOCK, _BAND] of the elements.
    """
    copies, batch, width = factors.shape
    plane = min(gate, copies - 1) * batch
    scale = pointer(factors)
    for k in range(depth):
        for band in range(0, count, _BAND):
            target = band * DEPTH_BLOCK + k * _BAND
            n = min(_BAND, count - band)
            if places[k] < 0:
                clear(left, target, n)
                continue
            here = first + band
            for j in range(0, n, lanes(left)):
                value = load_n(source, places[k] + here + j, n - j)
                if copies and gate >= 0:
                    value = value * load_n(scale, (plane + rows[k]) * width + here + j, n - j)
                store_n(left, target + j, n - j, value)
