"""A GPU in plain Python: blocks, clusters, warps and their memory, a greenlet for each thread, in a seeded order.

It runs the Python of a kernel (`Kernel.python`), in which the name ``cuda`` and the intrinsics of `numbarnn.ptxops`
stand for an `Emulator`.  Unlike Numba's own simulator it runs all blocks at once and knows clusters.  What a GPU leaves
open is drawn at random: which thread goes on, also in the middle between two barriers; when data sent to another block
arrive.  Shared and local memory begins as NaN.  So a barrier that is missing shows as a wrong result for some seeds,
and one that is never reached as `Deadlock`.
"""

import contextvars
import random
import types

import numpy as np
import pytest

# Without it the tests that import this file are skipped; tests/gpu_rings.py insists on it.
pytest.importorskip("greenlet", reason="needs pip install '.[gpu-test]'")

from greenlet import getcurrent, greenlet  # noqa: E402


class Fault(RuntimeError):
    """What a GPU does not allow."""


class Deadlock(Fault):
    """All threads that have not finished wait for something that nobody will do."""


def require(condition, rule):
    """Raise a `Fault` if a rule is broken."""
    if not condition:
        raise Fault(rule)


class Thread(greenlet):
    """A thread of the GPU."""

    def __init__(self, function, block, number):
        super().__init__(function)
        self.block = block
        self.number = number
        self.threadIdx = types.SimpleNamespace(x=number, y=0, z=0)
        self.arrays = 0  # how many shared arrays it has asked for
        self.votes = {}  # rounds of each kind of barrier that it has come to
        self.waits_for, self.on = None, ""
        self.gr_context = contextvars.copy_context()  # with NumPy's errstate


class MessageBarrier:
    """Counts one arrival and the bytes of what is sent, a round at a time."""

    def __init__(self):
        self.arrivals, self.bytes, self.round = 1, 0, 0

    def settle(self):
        """Begin the next round if this one is complete, and say whether it is."""
        complete = self.arrivals == 0 and self.bytes == 0
        if complete:
            self.arrivals, self.round = 1, self.round + 1
        return complete


class Emulator:
    """A GPU that runs one kernel.

    Parameters
    ----------
    grid, block : int
        Blocks of the grid (a pair: along two axes), threads of a block.
    cluster : int
        Blocks of a cluster.
    seed : int
        Of the order of things.
    pauses : float
        Probability that a thread is interrupted where an intrinsic touches shared memory.
    """

    def __init__(self, grid, block, cluster=1, seed=0, pauses=0.1):
        across, down = grid if isinstance(grid, tuple) else (grid, 1)
        grid = across * down
        if grid % cluster:
            raise ValueError(f"grid must be a multiple of cluster, got {grid} and {cluster}")
        self.blocks, self.threads, self.cluster = grid, block, cluster
        self.gridDim = types.SimpleNamespace(x=across, y=down, z=1)
        self.blockDim = types.SimpleNamespace(x=block, y=1, z=1)
        self.random = random.Random(seed)
        self.pauses = pauses
        slow = self.random.choice(("none", "threads", "blocks"))
        self.slow_threads = {n for n in range(block) if slow == "threads" and self.random.random() < 0.3}
        self.slow_blocks = {b for b in range(grid) if slow == "blocks" and self.random.random() < 0.5}
        self.ready, self.waiting, self.in_flight, self.posted = [], [], [], []
        self.shared_arrays = [[] for _ in range(grid)]
        self.message_barriers = {}
        self.arrived = {}
        self.shared = types.SimpleNamespace(array=self._shared_array)
        self.local = types.SimpleNamespace(array=self._local_array)
        self.cg = types.SimpleNamespace(this_grid=lambda: types.SimpleNamespace(sync=self._grid_sync))

    def run(self, function, *args):
        """Run a kernel's Python on all threads.

        Raises
        ------
        Deadlock
            If threads are left that wait.
        """
        self.hub = getcurrent()
        with np.errstate(all="ignore"):
            self.ready = [Thread(function, b, n) for b in range(self.blocks) for n in range(self.threads)]
            while self.ready or self.waiting or self.in_flight:
                if self.in_flight and (not self.ready or self.random.random() < 0.2):
                    self._deliver()
                    continue
                if self.posted and self.random.random() < 0.05:
                    self._show(self.posted.pop(self.random.randrange(len(self.posted))))
                if not self.ready:
                    raise Deadlock(self._who_waits())
                thread = self._next()
                thread.switch(*args) if not thread else thread.switch()
                if not thread.dead and thread.waits_for is None:
                    self.ready.append(thread)

    def _next(self):
        """Take the next thread to run out of those that are ready; rarely one that this seed makes slow."""
        place = self.random.randrange(len(self.ready))
        if self._slow(self.ready[place]) and self.random.random() < 0.99:
            place = next((i for i, thread in enumerate(self.ready) if not self._slow(thread)), place)
        thread = self.ready[place]
        self.ready[place] = self.ready[-1]
        self.ready.pop()
        return thread

    def _slow(self, thread):
        return thread.number in self.slow_threads or thread.block in self.slow_blocks

    # ------------------------------------------------------------------------------------------------------- waiting

    def _pause(self):
        if self.random.random() < self.pauses:
            self.hub.switch()

    def _wait(self, what, on):
        """Sleep until `what` says yes."""
        thread = getcurrent()
        if not what():
            thread.waits_for, thread.on = what, on
            self.waiting.append(thread)
            self.hub.switch()

    def _wake(self):
        """Let go on who need not wait any more."""
        asleep = []
        for thread in self.waiting:
            if thread.waits_for():
                thread.waits_for = None
                self.ready.append(thread)
            else:
                asleep.append(thread)
        self.waiting = asleep

    def _who_waits(self):
        places = {}
        for thread in self.waiting:
            places.setdefault(thread.on, []).append((thread.block, thread.number))
        return "; ".join(f"{len(who)} threads at {on}, as (block, thread) {who[0]}" for on, who in places.items())

    def _barrier(self, group, size, on):
        """Wait for `size` threads to come to this round of the barrier of `group`."""
        thread = getcurrent()
        key = group, thread.votes.get(group, 0)
        thread.votes[group] = key[1] + 1
        self.arrived[key] = self.arrived.get(key, 0) + 1
        if self.arrived[key] == size:
            self._wake()
        self._wait(lambda: self.arrived[key] == size, on)
        self._pause()

    # ------------------------------------------------------------------------------------------------ what Numba knows

    @property
    def threadIdx(self):
        return getcurrent().threadIdx

    @property
    def blockIdx(self):
        down, across = divmod(getcurrent().block, self.gridDim.x)
        return types.SimpleNamespace(x=across, y=down, z=0)

    def syncthreads(self):
        self._barrier(("block", getcurrent().block), self.threads, "syncthreads")

    def syncwarp(self, mask=0xFFFFFFFF):
        thread = getcurrent()
        first = thread.number // 32 * 32
        self._barrier(("warp", thread.block, first), min(32, self.threads - first), "syncwarp")

    def _grid_sync(self):
        self._barrier("grid", self.blocks * self.threads, "grid.sync")

    def _shared_array(self, shape, dtype, alignment=None):
        thread = getcurrent()
        arrays = self.shared_arrays[thread.block]
        if thread.arrays == len(arrays):
            arrays.append(np.full(shape, np.nan, dtype))
        thread.arrays += 1
        return arrays[thread.arrays - 1]

    def _local_array(self, shape, dtype):
        return np.full(shape, np.nan, dtype)

    def shfl_sync(self, mask, value, lane):
        return self._exchange(value)[lane]

    def shfl_xor_sync(self, mask, value, lane_mask):
        return self._exchange(value)[getcurrent().number % 32 ^ lane_mask]

    def _exchange(self, value):
        """Return what all lanes of the warp hold."""
        thread = getcurrent()
        group = "values", thread.block, thread.number // 32
        key = group, thread.votes.get(group, 0)
        thread.votes[group] = key[1] + 1
        values = self.arrived.setdefault(key, {})
        values[thread.number % 32] = value
        lanes = min(32, self.threads - thread.number // 32 * 32)
        if len(values) == lanes:
            self._wake()
        self._wait(lambda: len(values) == lanes, "warp exchange")
        return values

    # -------------------------------------------------------------------------------------------- intrinsics of ptxops

    def cluster_rank(self):
        return getcurrent().block % self.cluster

    def cluster_barrier(self):
        self._barrier(("cluster", getcurrent().block // self.cluster), self.threads * self.cluster, "cluster_barrier")

    def hold(
        self, matrix, start, depth, depth_end, depth_stride, unit, unit_end, unit_step, unit_stride, gate_stride,
        quads, gates, units, pieces,
    ):  # fmt: skip
        flat = matrix.reshape(-1)
        weights = np.zeros((quads, gates, units, 4), np.float32)
        for q, g, u, e in np.ndindex(weights.shape):
            d = depth + q * pieces * 4 + e
            if d < depth_end and unit + u * unit_step < unit_end:
                weights[q, g, u, e] = flat[start + d * depth_stride + u * unit_stride + g * gate_stride]
        return weights

    def multiply(
        self, weights, memory, source, source_row, source_gate, sums, target, target_row, target_column,
        rows, quads, gates, units, pieces,
    ):  # fmt: skip
        require(source % 4 == source_row % 4 == source_gate % 4 == 0, "16-byte loads need aligned places")
        weights = weights.reshape(quads, gates, units, 4)
        for r in range(rows):
            for g in range(gates):
                self._pause()
                found = np.zeros(units, np.float32)
                for q in range(quads):
                    here = source + r * source_row + g * source_gate + q * pieces * 4
                    found += weights[q, g] @ memory[here : here + 4]
                self._pause()
                for u in range(units):
                    sums[target + r * target_row + (g * units + u) * target_column] = found[u]

    def total(self, memory, start, stride, count):
        self._pause()
        return np.float32(memory[start : start + (count - 1) * stride + 1 : stride].sum())

    def divide(self, number, divisor):
        return divmod(number, divisor)

    def get(self, array, index):
        require(0 <= index < array.size, "there is no element outside of an array")
        return array.reshape(-1)[index]

    def put(self, array, index, value):
        require(0 <= index < array.size, "there is no element outside of an array")
        array.reshape(-1)[index] = value

    def put_four(self, array, index, a, b, c, d):
        require(index % 4 == 0, "16-byte stores need aligned places")
        for e, value in enumerate((a, b, c, d)):
            self.put(array, index + e, value)

    def post(self, array, index, value):
        """Others see it when this thread, or one of its block behind a barrier, has arrived; or at any time before."""
        require(0 <= index < array.size, "there is no element outside of an array")
        thread = getcurrent()
        self._pause()
        when = thread.block, thread.number, thread.votes.get(("block", thread.block), 0)
        self.posted.append((when, array, index, value))

    def arrive(self, counters, place):
        thread = getcurrent()
        self._pause()
        barriers = thread.votes.get(("block", thread.block), 0)
        posted, self.posted = self.posted, []
        for letter in posted:
            (block, number, at), *_ = letter
            if block == thread.block and (number == thread.number or at < barriers):
                self._show(letter)
            else:
                self.posted.append(letter)
        counters[place] += 1
        self._wake()

    def _show(self, letter):
        _, array, index, value = letter
        array.reshape(-1)[index] = value

    def await_arrivals(self, counters, place, count):
        self._pause()
        self._wait(lambda: counters[place] >= count, "await_arrivals")
        self._pause()

    def fetch(self, array, index):
        require(index % 4 == 0, "16-byte loads need aligned places")
        require(0 <= index <= array.size - 4, "there is no element outside of an array")
        self._pause()
        return tuple(array.reshape(-1)[index : index + 4])

    def barrier_init(self, memory, place):
        require(place % 2 == 0, "a message barrier needs 8 aligned bytes")
        self.message_barriers[getcurrent().block, place] = MessageBarrier()

    def _message_barrier(self, block, place):
        require((block, place) in self.message_barriers, "a message barrier begins with barrier_init")
        return self.message_barriers[block, place]

    def barrier_expect(self, memory, place, count):
        self._pause()
        barrier = self._message_barrier(getcurrent().block, place)
        require(barrier.arrivals == 1, "a round of a message barrier has one barrier_expect")
        barrier.arrivals, barrier.bytes = 0, barrier.bytes + count
        if barrier.settle():
            self._wake()

    def barrier_wait(self, memory, place, parity):
        self._pause()
        barrier = self._message_barrier(getcurrent().block, place)
        self._wait(lambda: barrier.round % 2 != parity, "barrier_wait")

    def send(self, rank, memory, place, value, barrier):
        thread = getcurrent()
        self._pause()
        other = thread.block // self.cluster * self.cluster + rank
        number = next(i for i, array in enumerate(self.shared_arrays[thread.block]) if array is memory)
        self.in_flight.append((other, number, place, value, barrier))

    def _deliver(self):
        block, number, place, value, barrier = self.in_flight.pop(self.random.randrange(len(self.in_flight)))
        barrier = self._message_barrier(block, barrier)
        self.shared_arrays[block][number][place] = value
        barrier.bytes -= 4
        if barrier.settle():
            self._wake()
