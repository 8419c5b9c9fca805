"""Recurrent layers on a GPU whose blocks share the recurrent weights for the whole sequence: the kernels of band L.

One kernel for each direction serves LSTM, GRU (`reset_after`) and SimpleRNN.  A block holds all gates of `BLOCK_UNITS`
units in the registers of its threads, and computes them for a group of rows of the batch, *tiles* of `ROWS` rows one
after the other; blocks with the same rows, one for each group of units, need what the others find at every step.  They
leave it in `exchange`, count themselves at the tile's counter, and wait there for the others of the tile and for nobody
else.  Meanwhile they compute other tiles, if there are any: with three or more nobody waits for what is under way, and
the factors of the next product travel while the present one is computed.

Forward, blocks exchange h, times its dropout factors: one thread for each (row, unit) adds up the pieces of the
products and takes the cell's `step`.  Backward, one thread for each (row, unit) takes `step_back`; then each thread
multiplies the gates' gradients of the block's units by their weights, for some of all the units, and leaves its part
of the gradients of h to the block that has those units, which adds up the parts in the order of the blocks.

There are two places in `exchange` for each tile, in turns.  That is safe: a block that fills one of them has waited for
all arrivals of the step before, and a block arrives when it is through with what it has read.

The arguments are those of band G, `numbarnn.cells.rows_cuda`, in float32, and:

======== ============================== ===============================================================================
exchange [2, tiles in all, ...]         forward [..., M, ROWS, DEPTH], zeros at the start: the factors of a tile's
                                        products.  backward [..., groups of units, groups of units, ROWS, BLOCK_UNITS],
                                        whatever at the start: for each receiver, from each sender
counters [tiles in all] int32           zeros at the start: how many blocks have arrived
tiles    int64                          of a block
======== ============================== ===============================================================================
"""

from numpy import float32, int32

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.cells.steps_cuda import lstm_step, lstm_step_back
from numbarnn.ptxops import arrive, await_arrivals, divide, fetch, get, hold, multiply, post, put, put_four, total
from numbarnn.simd import fma

# What the kernels have to know in numbers; `Layout.constants` says what they mean, and sets them.
CELL_STEP, CELL_STEP_BACK = lstm_step, lstm_step_back
GATES, STATES, PLANES, ROWS, BLOCK_UNITS, THREADS, COPIES = 4, 2, 4, 1, 8, 256, 1
GROUPS, THREAD_UNITS, PIECES, QUADS, AHEAD = 8, 1, 32, 1, 4
STAGE_ROW, STAGE_COPY, STAGE, SOURCE_GATE, SUMS, SUMS_ROW, SUMS_PIECE, SHARED = 128, 128, 128, 0, 128, 32, 40, 1408
PRODUCT_QUADS, PRODUCT_GATES, PRODUCT_PIECES, PRODUCTS, PARTS, PART_QUADS = 8, 1, 1, 1, 32, 2


@cuda.device_function
def post_h(exchange, place, copy_size, h, h_factors, row, unit):
    """Leave an element of h, times each of its dropout factors, to other blocks."""
    copies, batch, units = h_factors.shape
    if not copies:
        post(exchange, place, h)
    for copy in range(copies):
        post(exchange, place + copy * copy_size, h * get(h_factors, (copy * batch + row) * units + unit))


@cuda.device_function
def fetch_stage(ahead, exchange, source, quads, threads, thread):
    """Read what all threads of a block, one after the other, find from `source` on."""
    for i in range(ahead.shape[0] // 4):
        quad = i * threads + thread
        if quad < quads:
            ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = fetch(exchange, source + 4 * quad)


@cuda.device_function
def put_stage(memory, ahead, quads, threads, thread):
    """Put what `fetch_stage` has read in shared memory."""
    for i in range(ahead.shape[0] // 4):
        quad = i * threads + thread
        if quad < quads:
            put_four(memory, 4 * quad, ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3])


@cuda.kernel(fast_division=True)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, exchange, counters, tiles,
    activation, recurrent_activation,
):  # fmt: skip
    """Run the steps first..last of all rows."""
    memory = cuda.shared.array(SHARED, float32, alignment=16)
    z, biases = cuda.local.array(PLANES, float32), cuda.local.array(PLANES, float32)
    sums, kept = cuda.local.array(GATES, float32), cuda.local.array(PLANES, float32)
    state, ahead = cuda.local.array(STATES, float32), cuda.local.array(AHEAD, float32)
    zero = float32(0)
    batch, units = states.shape[2], states.shape[3]
    slots, emitted, all_tiles = states.shape[1], out.shape[1], counters.shape[0]
    keeps_all = slots > 2
    thread, rank, unit_groups = cuda.threadIdx.x, cuda.blockIdx.x, cuda.gridDim.x
    top = cuda.blockIdx.y * tiles

    # For products: some of the block's units, and a piece of the depth.
    piece, group = divide(thread, GROUPS)
    first_unit = rank * BLOCK_UNITS + group
    # For steps: a row of a tile, one of the block's units.
    r, own = divide(thread, BLOCK_UNITS)
    unit = rank * BLOCK_UNITS + own
    owns = r < ROWS and unit < units
    for p in range(PLANES):
        biases[p] = zero
        if owns:
            biases[p] = get(bias, p * units + unit)

    for tile in range(top, top + tiles):
        row = tile * ROWS + r
        if owns and row < batch:
            slot = first if keeps_all else first % 2
            place = (first % 2 * all_tiles + tile) * STAGE + r * STAGE_ROW + unit
            h = get(states, (slot * batch + row) * units + unit)
            post_h(exchange, place, STAGE_COPY, h, h_factors, row, unit)
    cuda.syncthreads()
    if thread == 0:
        for tile in range(top, top + tiles):
            arrive(counters, tile)
    weights = hold(
        recurrent, first_unit, piece * 4, units, GATES * units, first_unit, units, GROUPS, GROUPS, units,
        QUADS, GATES, THREAD_UNITS, PIECES,
    )  # fmt: skip

    # Step s of a tile is computed in the turn after its factors have been fetched, in which those of the next are.
    turns = (last - first) * tiles
    s, tile, next_s, next_tile = first, top, first, top
    for turn in range(turns + 1):
        computing, fetching = turn > 0, turn < turns
        early = fetching and tiles > 2
        source = (next_s % 2 * all_tiles + next_tile) * STAGE
        awaited = (next_s - first + 1) * unit_groups
        row = tile * ROWS + r
        steps = computing and owns and row < batch
        flag = 0
        for p in range(PLANES):
            z[p] = zero
        if steps:
            flag = get(flags, s * batch + row)
            slot = s if keeps_all else s % 2
            for p in range(STATES):
                state[p] = get(states, ((p * slots + slot) * batch + row) * units + unit)
            for p in range(GATES):
                z[p] = get(gates, ((s * batch + row) * GATES + p) * units + unit)
        if early:
            await_arrivals(counters, next_tile, awaited)
            fetch_stage(ahead, exchange, source, STAGE // 4, THREADS, thread)
        if computing and piece < PIECES:
            multiply(
                weights, memory, piece * 4, STAGE_ROW, SOURCE_GATE, memory, SUMS + piece * SUMS_PIECE + group,
                SUMS_ROW, GROUPS, ROWS, QUADS, GATES, THREAD_UNITS, PIECES,
            )  # fmt: skip
        cuda.syncthreads()

        if computing:
            for i in range(thread, ROWS * GATES * BLOCK_UNITS, THREADS):
                put(memory, SUMS + i, total(memory, SUMS + i, SUMS_PIECE, PIECES))
        if early:
            put_stage(memory, ahead, STAGE // 4, THREADS, thread)
        cuda.syncthreads()

        if steps:
            if flag & CUT:
                for p in range(STATES):
                    state[p] = zero
            if flag & COUNTS:
                for p in range(PLANES):
                    z[p] = biases[p] + z[p]
                for g in range(GATES):
                    sums[g] = zero
                    if not flag & CUT:
                        sums[g] = get(memory, SUMS + r * SUMS_ROW + g * BLOCK_UNITS + own)
                CELL_STEP(z, sums, state, kept, activation, recurrent_activation)
            place = ((s + 1) % 2 * all_tiles + tile) * STAGE + r * STAGE_ROW + unit
            post_h(exchange, place, STAGE_COPY, state[0], h_factors, row, unit)
        cuda.syncthreads()
        if computing and thread == 0:
            arrive(counters, tile)
        if steps:  # what no block waits for
            slot = s + 1 if keeps_all else (s + 1) % 2
            for p in range(STATES):
                put(states, ((p * slots + slot) * batch + row) * units + unit, state[p])
            if saving and flag & COUNTS:
                for p in range(GATES):
                    put(gates, ((s * batch + row) * GATES + p) * units + unit, kept[p])
                if PLANES > GATES:
                    put(apart, (s * batch + row) * units + unit, kept[PLANES - 1])
            if emitted:
                put(out, (row * emitted + s) * units + unit, zero if flag & SILENT else state[0])
        if fetching and not early:
            await_arrivals(counters, next_tile, awaited)
            fetch_stage(ahead, exchange, source, STAGE // 4, THREADS, thread)
            put_stage(memory, ahead, STAGE // 4, THREADS, thread)
            cuda.syncthreads()
        s, tile = next_s, next_tile
        next_tile += 1
        if next_tile == top + tiles:
            next_s, next_tile = s + 1, top


@cuda.device_function
def fetch_parts(ahead, exchange, source, senders, part, parts, quad, part_quads):
    """Read four neighbouring gradients from every `parts`-th sender, from number `part` on."""
    zero = float32(0)
    for i in range(ahead.shape[0] // 4):
        sender = i * parts + part
        ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = zero, zero, zero, zero
        if part < parts and sender < senders:
            ahead[4 * i], ahead[4 * i + 1], ahead[4 * i + 2], ahead[4 * i + 3] = fetch(
                exchange, source + 4 * (sender * part_quads + quad)
            )


@cuda.device_function
def put_parts(memory, ahead, place, part, parts, quad, part_quads):
    """Put the sums of what `fetch_parts` has read in shared memory."""
    for i in range(1, ahead.shape[0] // 4):
        ahead[0] += ahead[4 * i]
        ahead[1] += ahead[4 * i + 1]
        ahead[2] += ahead[4 * i + 2]
        ahead[3] += ahead[4 * i + 3]
    if part < parts:
        put_four(memory, place + 4 * (part * part_quads + quad), ahead[0], ahead[1], ahead[2], ahead[3])


@cuda.kernel(fast_division=True)
def backward(
    gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, exchange, counters, tiles,
    activation, recurrent_activation,
):  # fmt: skip
    """Run the steps last-1 .. first of all rows back."""
    memory = cuda.shared.array(SHARED, float32, alignment=16)
    kept, dz = cuda.local.array(PLANES, float32), cuda.local.array(PLANES, float32)
    before, after = cuda.local.array(STATES, float32), cuda.local.array(STATES, float32)
    d_state, ahead = cuda.local.array(STATES, float32), cuda.local.array(AHEAD, float32)
    sums = cuda.local.array(PRODUCTS, float32)
    zero = float32(0)
    batch, units = states.shape[2], states.shape[3]
    slots, emitted, all_tiles = states.shape[1], d_out.shape[1], counters.shape[0]
    thread, rank, unit_groups = cuda.threadIdx.x, cuda.blockIdx.x, cuda.gridDim.x
    top = cuda.blockIdx.y * tiles
    received = unit_groups * ROWS * BLOCK_UNITS  # numbers that are left to a block, for a step of a tile

    # For products: every THREADS-th unit, and all that the block's units have to give to it.
    weights = hold(
        transposed, rank * BLOCK_UNITS * units + thread, 0, units - rank * BLOCK_UNITS, units, thread, units, THREADS,
        THREADS, units * units, QUADS, GATES, THREAD_UNITS, 1,
    )  # fmt: skip
    # For what other blocks have left: four neighbours, from some of the blocks.
    part, quad = divide(thread, PART_QUADS)
    # For steps: a row of a tile, one of the block's units.
    r, own = divide(thread, BLOCK_UNITS)
    unit = rank * BLOCK_UNITS + own
    own_block, own_place = divide(own, 4)
    owns = r < ROWS and unit < units

    # Step s of a tile is taken back in the turn in which the products of the turn before it are computed.  Behind the
    # first step each tile has one more turn, for the products of that.
    turns = (last - first) * tiles
    s, tile, done_s, done_tile = last - 1, top, last - 1, top
    for turn in range(turns + tiles):
        multiplying = 0 < turn <= turns
        receiving = s < last - 1
        early = receiving and tiles > 2
        source = ((s + 1) % 2 * all_tiles + tile) * unit_groups * received + rank * received
        awaited = (last - 1 - s) * unit_groups
        row = tile * ROWS + r
        here = owns and row < batch
        steps = here and s >= first
        # What the step reads from far away is on its way while products are computed.
        flag_behind, factor, d_emitted = 0, float32(1), zero
        for p in range(PLANES):
            kept[p] = zero
        for p in range(STATES):
            d_state[p], before[p], after[p] = zero, zero, zero
        if steps:
            for p in range(STATES):
                after[p] = get(states, ((p * slots + s + 1) * batch + row) * units + unit)
                before[p] = get(states, ((p * slots + s) * batch + row) * units + unit)
            for p in range(GATES):
                kept[p] = get(gates, ((s * batch + row) * GATES + p) * units + unit)
            if PLANES > GATES:
                kept[PLANES - 1] = get(apart, (s * batch + row) * units + unit)
            if emitted:
                d_emitted = get(d_out, (row * emitted + s) * units + unit)
        if early:
            await_arrivals(counters, tile, awaited)
            fetch_parts(ahead, exchange, source, unit_groups, part, PARTS, quad, PART_QUADS)
        if multiplying:
            target = (done_s % 2 * all_tiles + done_tile) * unit_groups * received
            for there in range(ROWS):
                multiply(
                    weights, memory, there * STAGE_ROW, 0, SOURCE_GATE, sums, 0, 0, 1, 1,
                    PRODUCT_QUADS, PRODUCT_GATES, THREAD_UNITS, PRODUCT_PIECES,
                )  # fmt: skip
                there_row = done_tile * ROWS + there
                for c in range(THREAD_UNITS):
                    k = thread + c * THREADS
                    if k < units and there_row < batch:
                        value = sums[c]
                        if COPIES > 1:
                            value = zero
                            for g in range(PRODUCT_GATES):
                                dropped = get(h_factors, (g * batch + there_row) * units + k)
                                value = fma(sums[g * THREAD_UNITS + c], dropped, value)
                        receiver, place = divide(k, BLOCK_UNITS)
                        place = int32((receiver * unit_groups + rank) * ROWS * BLOCK_UNITS + place)
                        post(exchange, target + there * BLOCK_UNITS + place, value)
        if early:
            put_parts(memory, ahead, SUMS, part, PARTS, quad, PART_QUADS)
        cuda.syncthreads()
        if multiplying and thread == 0:
            arrive(counters, done_tile)
        if receiving and not early:
            await_arrivals(counters, tile, awaited)
            fetch_parts(ahead, exchange, source, unit_groups, part, PARTS, quad, PART_QUADS)
            put_parts(memory, ahead, SUMS, part, PARTS, quad, PART_QUADS)
            cuda.syncthreads()

        if here:
            for p in range(STATES):
                d_state[p] = get(d_states, (p * batch + row) * units + unit)
            if receiving:
                flag_behind = get(flags, (s + 1) * batch + row)
                if COPIES == 1 and h_factors.shape[0]:
                    factor = get(h_factors, row * units + unit)
            if flag_behind & COUNTS:
                product = total(memory, SUMS + r * BLOCK_UNITS + own, SUMS_PIECE, PARTS)
                d_state[0] = fma(product, factor, d_state[0])
            if flag_behind & CUT:
                for p in range(STATES):
                    d_state[p] = zero
        for p in range(PLANES):
            dz[p] = zero
        if steps:
            flag = get(flags, s * batch + row)
            if not flag & SILENT:
                d_state[0] += d_emitted
            if flag & COUNTS:
                if flag & CUT:
                    for p in range(STATES):
                        before[p] = zero
                CELL_STEP_BACK(d_state, kept, before, after, dz, activation, recurrent_activation)
            for p in range(GATES):  # zeros, too: the gradients of the weights are sums over all steps
                put(gates, ((s * batch + row) * GATES + p) * units + unit, dz[p])
            if PLANES > GATES:
                put(apart, (s * batch + row) * units + unit, dz[PLANES - 1])
        if here:
            for p in range(STATES):
                put(d_states, (p * batch + row) * units + unit, d_state[p])
        if r < ROWS:
            for g in range(GATES):
                place = r * STAGE_ROW + (own_block * GATES + g) * 4 + own_place
                put(memory, place, dz[g if g + 1 < GATES else PLANES - 1])
        cuda.syncthreads()
        done_s, done_tile = s, tile
        tile += 1
        if tile == top + tiles:
            s, tile = s - 1, top
