"""Recurrent layers on a GPU with the recurrent weights in registers for the whole sequence: the kernels.

One kernel for each direction serves LSTM, GRU (`reset_after`) and SimpleRNN, in two bands.  Band S: a block computes
`ROWS` rows of the batch by itself.  Band M: the blocks of a cluster share the units of `ROWS` rows, and hand each other
what the next step needs through their shared memory.  No block waits for one outside its cluster.

A step forward: each thread multiplies h, from shared memory, by the weights that it holds: all gates of some units, a
piece of the depth.  Then one thread for each (row, unit) adds up the pieces and takes the cell's `step`; h, c and
dropout factors stay in its registers.  A step backward: one thread for each (row, unit) takes `step_back`; then each
thread multiplies the gates' gradients of its block's units by weights, for some units of the cluster and a piece of the
depth.

What another block sends is awaited at a message barrier, of which there are two in turns, as there are of the places
that it is sent to.  That is safe: a block sends for step s + 1 when it has everything of step s from all blocks, which
they send when they are through with the place that step s + 1 will fill.

The arguments are those of band G, `numbarnn.cells.rows_cuda`, in float32.
"""

from numpy import float32

from numbarnn import cuda
from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.cells.steps_cuda import lstm_step, lstm_step_back
from numbarnn.ptxops import (
    barrier_expect,
    barrier_init,
    barrier_wait,
    cluster_barrier,
    cluster_rank,
    divide,
    get,
    hold,
    multiply,
    put,
    send,
    total,
)
from numbarnn.simd import fma

# What the kernels have to know in numbers; `Layout.constants` says what they mean, and sets them.
CELL_STEP, CELL_STEP_BACK = lstm_step, lstm_step_back
GATES, STATES, PLANES, ROWS, UNITS, CLUSTER, BLOCK_UNITS, COPIES = 4, 2, 4, 1, 16, 1, 16, 1
THREADS, GROUPS, THREAD_UNITS, PIECES, GATE_PIECES, QUADS = 64, 16, 1, 4, 4, 1
STAGE_ROW, STAGE_COPY, STAGE_SIZE, SOURCE_GATE, SUMS, SUMS_ROW, SUMS_PIECE = 16, 16, 16, 0, 16, 64, 64
SLOTS, SLOTS_PIECE, SLOTS_SIZE, BARRIERS, SHARED = 0, 0, 0, 0, 288


@cuda.kernel(fast_division=True)
def forward(
    gates, apart, recurrent, bias, states, out, flags, h_factors, first, last, saving, activation, recurrent_activation
):  # fmt: skip
    """Run the steps first..last of all rows."""
    memory = cuda.shared.array(SHARED, float32, alignment=16)
    z, next_z = cuda.local.array(PLANES, float32), cuda.local.array(PLANES, float32)
    sums, biases = cuda.local.array(GATES, float32), cuda.local.array(PLANES, float32)
    kept, state = cuda.local.array(PLANES, float32), cuda.local.array(STATES, float32)
    zero = float32(0)
    batch, units = states.shape[2], states.shape[3]
    slots, emitted = states.shape[1], out.shape[1]
    keeps_all = slots > 2
    slot = first if keeps_all else first % 2
    thread = cuda.threadIdx.x
    rank = cluster_rank() if CLUSTER > 1 else 0
    first_row = divide(cuda.blockIdx.x, CLUSTER)[0] * ROWS

    # For products: all gates of some of the block's units, and a piece of their depth.
    piece, group = divide(thread, GROUPS)
    first_unit = rank * BLOCK_UNITS + group
    # For steps: one row, one of the block's units.
    r, own = divide(thread, BLOCK_UNITS)
    row, unit = first_row + r, rank * BLOCK_UNITS + own
    steps = r < ROWS and row < batch and unit < units
    flag, factor = 0, float32(1)
    for p in range(PLANES):
        z[p], biases[p] = zero, zero
    for p in range(STATES):
        state[p] = zero
    if steps:
        flag = get(flags, first * batch + row)
        for p in range(STATES):
            state[p] = get(states, ((p * slots + slot) * batch + row) * units + unit)
        for p in range(PLANES):
            biases[p] = get(bias, p * units + unit)
        for p in range(GATES):
            z[p] = get(gates, ((first * batch + row) * GATES + p) * units + unit)
        if h_factors.shape[0]:
            factor = get(h_factors, row * units + unit)

    for i in range(thread, COPIES * ROWS * UNITS, THREADS):
        copy, there, k = i // STAGE_COPY, first_row + i % STAGE_COPY // STAGE_ROW, i % STAGE_ROW
        value = zero
        if there < batch and k < units:
            value = get(states, (slot * batch + there) * units + k)
            if h_factors.shape[0]:
                value = value * get(h_factors, (copy * batch + there) * units + k)
        put(memory, i, value)
    if CLUSTER > 1:
        if thread == 0:
            barrier_init(memory, BARRIERS)
            barrier_init(memory, BARRIERS + 2)
        cluster_barrier()
    else:
        cuda.syncthreads()
    weights = hold(
        recurrent, first_unit, piece * 4, units, GATES * units, first_unit, units, GROUPS, GROUPS, units,
        QUADS, GATES, THREAD_UNITS, PIECES,
    )  # fmt: skip

    for s in range(first, last):
        more = s + 1 < last
        now, then = (s - first) % 2, (s - first + 1) % 2
        # What the next step reads from far away is on its way while this one computes.
        next_flag = 0
        for p in range(PLANES):
            next_z[p] = zero
        if steps and more:
            next_flag = get(flags, (s + 1) * batch + row)
            for p in range(GATES):
                next_z[p] = get(gates, (((s + 1) * batch + row) * GATES + p) * units + unit)

        if CLUSTER > 1:
            if thread == 0 and more:
                barrier_expect(memory, BARRIERS + 2 * then, 4 * COPIES * ROWS * UNITS)
            if s > first:
                barrier_wait(memory, BARRIERS + 2 * now, (s - first - 1) // 2 % 2)
        if piece < PIECES:
            multiply(
                weights, memory, now * STAGE_SIZE + piece * 4, STAGE_ROW, SOURCE_GATE,
                memory, SUMS + piece * SUMS_PIECE + group, SUMS_ROW, GROUPS, ROWS, QUADS, GATES, THREAD_UNITS, PIECES,
            )  # fmt: skip
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
                        sums[g] = total(memory, SUMS + r * SUMS_ROW + g * BLOCK_UNITS + own, SUMS_PIECE, PIECES)
                CELL_STEP(z, sums, state, kept, activation, recurrent_activation)
        if r < ROWS and more:
            for copy in range(COPIES):
                value = state[0] * factor
                if COPIES > 1 and steps:
                    value = state[0] * get(h_factors, (copy * batch + row) * units + unit)
                place = then * STAGE_SIZE + copy * STAGE_COPY + r * STAGE_ROW + unit
                if CLUSTER > 1:
                    for block in range(CLUSTER):
                        send(block, memory, place, value, BARRIERS + 2 * then)
                else:
                    put(memory, place, value)
        if steps:
            if keeps_all or not more:
                slot = s + 1 if keeps_all else last % 2
                for p in range(STATES):
                    put(states, ((p * slots + slot) * batch + row) * units + unit, state[p])
            if saving and flag & COUNTS:
                for p in range(GATES):
                    put(gates, ((s * batch + row) * GATES + p) * units + unit, kept[p])
                if PLANES > GATES:
                    put(apart, (s * batch + row) * units + unit, kept[PLANES - 1])
            if emitted:
                put(out, (row * emitted + s) * units + unit, zero if flag & SILENT else state[0])
        flag = next_flag
        for p in range(PLANES):
            z[p] = next_z[p]
        if CLUSTER == 1:
            cuda.syncthreads()


@cuda.kernel(fast_division=True)
def backward(
    gates, apart, transposed, states, d_out, d_states, flags, h_factors, first, last, activation, recurrent_activation
):  # fmt: skip
    """Run the steps last-1 .. first of all rows back."""
    memory = cuda.shared.array(SHARED, float32, alignment=16)
    kept, next_kept = cuda.local.array(PLANES, float32), cuda.local.array(PLANES, float32)
    before, next_before = cuda.local.array(STATES, float32), cuda.local.array(STATES, float32)
    after, d_state = cuda.local.array(STATES, float32), cuda.local.array(STATES, float32)
    found, dz = cuda.local.array(STATES, float32), cuda.local.array(PLANES, float32)
    zero = float32(0)
    batch, units = states.shape[2], states.shape[3]
    slots, emitted = states.shape[1], d_out.shape[1]
    thread = cuda.threadIdx.x
    rank = cluster_rank() if CLUSTER > 1 else 0
    first_row = divide(cuda.blockIdx.x, CLUSTER)[0] * ROWS

    # For products: some of all the units, and a piece of the depth, which is one gate of the block's units.
    piece, group = divide(thread, GROUPS)
    gate, part = divide(piece, GATE_PIECES)
    # For steps: one row, one of the block's units.
    r, own = divide(thread, BLOCK_UNITS)
    row, unit = first_row + r, rank * BLOCK_UNITS + own
    steps = r < ROWS and row < batch and unit < units
    flag, factor, d_emitted = 0, float32(1), zero
    for p in range(STATES):
        d_state[p], before[p], after[p] = zero, zero, zero
    for p in range(PLANES):
        kept[p] = zero
    if steps:
        flag = get(flags, (last - 1) * batch + row)
        for p in range(STATES):
            d_state[p] = get(d_states, (p * batch + row) * units + unit)
            after[p] = get(states, ((p * slots + last) * batch + row) * units + unit)
            before[p] = get(states, ((p * slots + last - 1) * batch + row) * units + unit)
        for p in range(GATES):
            kept[p] = get(gates, (((last - 1) * batch + row) * GATES + p) * units + unit)
        if PLANES > GATES:
            kept[PLANES - 1] = get(apart, ((last - 1) * batch + row) * units + unit)
        if emitted:
            d_emitted = get(d_out, (row * emitted + last - 1) * units + unit)
        if COPIES == 1 and h_factors.shape[0]:
            factor = get(h_factors, row * units + unit)
    if CLUSTER > 1:
        if thread == 0:
            barrier_init(memory, BARRIERS)
            barrier_init(memory, BARRIERS + 2)
        cluster_barrier()
    weights = hold(
        transposed, (gate * units + rank * BLOCK_UNITS) * units + group, part * 4, units - rank * BLOCK_UNITS, units,
        group, units if piece < PIECES else 0, GROUPS, GROUPS, 0, QUADS, 1, THREAD_UNITS, GATE_PIECES,
    )  # fmt: skip

    for s in range(last - 1, first - 1, -1):
        now = (last - 1 - s) % 2
        # What the next step reads from far away is on its way while this one computes.
        next_flag, next_d_emitted = 0, zero
        for p in range(STATES):
            next_before[p] = zero
        for p in range(PLANES):
            next_kept[p] = zero
        if steps and s > first:
            next_flag = get(flags, (s - 1) * batch + row)
            for p in range(STATES):
                next_before[p] = get(states, ((p * slots + s - 1) * batch + row) * units + unit)
            for p in range(GATES):
                next_kept[p] = get(gates, (((s - 1) * batch + row) * GATES + p) * units + unit)
            if PLANES > GATES:
                next_kept[PLANES - 1] = get(apart, ((s - 1) * batch + row) * units + unit)
            if emitted:
                next_d_emitted = get(d_out, (row * emitted + s - 1) * units + unit)

        if CLUSTER > 1 and thread == 0:
            barrier_expect(memory, BARRIERS + 2 * now, 4 * CLUSTER * ROWS * BLOCK_UNITS)
        for p in range(PLANES):
            dz[p] = zero
        if steps:
            if not flag & SILENT:
                d_state[0] += d_emitted
            if flag & COUNTS:
                for p in range(STATES):
                    found[p] = zero if flag & CUT else before[p]
                CELL_STEP_BACK(d_state, kept, found, after, dz, activation, recurrent_activation)
        if r < ROWS:
            for g in range(GATES):
                put(memory, r * STAGE_ROW + g * BLOCK_UNITS + own, dz[g if g + 1 < GATES else PLANES - 1])
        cuda.syncthreads()
        if piece < PIECES:
            multiply(
                weights, memory, gate * BLOCK_UNITS + part * 4, STAGE_ROW, 0, memory,
                SUMS + piece * SUMS_PIECE + group, SUMS_ROW, GROUPS, ROWS, QUADS, 1, THREAD_UNITS, GATE_PIECES,
            )  # fmt: skip
        if steps:  # zeros, too: the gradients of the weights are sums over all steps
            for p in range(GATES):
                put(gates, ((s * batch + row) * GATES + p) * units + unit, dz[p])
            if PLANES > GATES:
                put(apart, (s * batch + row) * units + unit, dz[PLANES - 1])
        cuda.syncthreads()

        # One gradient for each unit of the cluster and row: where the block is alone, its threads have one each.
        product = zero
        for i in range(thread, ROWS * UNITS if CLUSTER > 1 else min(thread + 1, ROWS * UNITS), THREADS):
            there, k = divide(i, UNITS)
            value = zero
            if COPIES == 1:
                value = total(memory, SUMS + i, SUMS_PIECE, PIECES)
            elif first_row + there < batch and k < units:
                for g in range(GATES):
                    part_sum = total(memory, SUMS + g * GATE_PIECES * SUMS_PIECE + i, SUMS_PIECE, GATE_PIECES)
                    value = fma(part_sum, get(h_factors, (g * batch + first_row + there) * units + k), value)
            if CLUSTER > 1:
                block, place = divide(k, BLOCK_UNITS)
                place += SLOTS + now * SLOTS_SIZE + (rank * ROWS + there) * BLOCK_UNITS
                send(block, memory, place, value, BARRIERS + 2 * now)
            else:
                product = value
        if CLUSTER > 1:
            barrier_wait(memory, BARRIERS + 2 * now, (last - 1 - s) // 2 % 2)
        if steps:
            if flag & COUNTS:
                if CLUSTER > 1:
                    place = SLOTS + now * SLOTS_SIZE + r * BLOCK_UNITS + own
                    product = total(memory, place, SLOTS_PIECE, CLUSTER)
                d_state[0] = fma(product, factor, d_state[0])
            if flag & CUT:
                for p in range(STATES):
                    d_state[p] = zero
        flag, d_emitted = next_flag, next_d_emitted
        for p in range(STATES):
            after[p], before[p] = before[p], next_before[p]
        for p in range(PLANES):
            kept[p] = next_kept[p]
    if steps:
        for p in range(STATES):
            put(d_states, (p * batch + row) * units + unit, d_state[p])
