"""The emulator of a GPU that other tests rely on: it does what a GPU does, and shows what is missing (ring 5)."""

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="needs pip install '.[gpu-test]'")

from emulator import Deadlock, Emulator, Fault  # noqa: E402

from numbarnn import cuda  # noqa: E402
from numbarnn.ptxops import (  # noqa: E402
    arrive,
    await_arrivals,
    barrier_expect,
    barrier_init,
    barrier_wait,
    cluster_barrier,
    cluster_rank,
    fetch,
    hold,
    multiply,
    post,
    send,
    total,
)

pytestmark = pytest.mark.gpu
SEEDS = range(20)
float32 = np.float32


@cuda.kernel
def reverse(a, waits):
    """Reverse each block's part of an array by way of shared memory."""
    shared = cuda.shared.array(8, float32)
    i = cuda.threadIdx.x
    start = cuda.blockIdx.x * 8
    shared[i] = a[start + i]
    if waits:
        cuda.syncthreads()
    a[start + i] = shared[7 - i]


@cuda.kernel
def shift(a, rounds, grid_waits):
    """Move an array by one place for each round, over all blocks."""
    grid = cuda.cg.this_grid()
    i = cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x
    size = cuda.blockDim.x * cuda.gridDim.x
    for _ in range(rounds):
        value = a[(i + 1) % size]
        if grid_waits:
            grid.sync()
        a[i] = value
        if grid_waits:
            grid.sync()


@cuda.kernel
def sum_of_warp(a, out):
    """Add up the values of a warp, each lane for itself."""
    i = cuda.threadIdx.x
    value = a[i]
    for distance in (1, 2, 4):
        value = value + cuda.shfl_xor_sync(0xFFFFFFFF, value, distance)
    out[i] = value + cuda.shfl_sync(0xFFFFFFFF, value, 0)


@cuda.kernel
def volley(out, rounds, places, count, waits):
    """Let two blocks hand each other numbers, to which they add their rank, in turns of `places` places."""
    memory = cuda.shared.array(8, float32)
    rank = cluster_rank()
    barrier_init(memory, 4)
    barrier_init(memory, 6)
    cluster_barrier()
    value = float32(rank)
    for n in range(rounds):
        now = 4 + n % 2 * 2
        barrier_expect(memory, now, count)
        send(1 - rank, memory, n % places, value, now)
        if waits:
            barrier_wait(memory, now, n // 2 % 2)
        value = memory[n % places] + rank
    out[cuda.blockIdx.x] = value


@cuda.kernel
def stops_short(n):
    """Let one thread of a block leave before a barrier."""
    if cuda.threadIdx.x != n:
        cuda.syncthreads()


def emulate(kernel, grid, block, *args, seed=0, **options):
    """Run a kernel."""
    emulator = Emulator(grid, block, seed=seed, **options)
    emulator.run(kernel.python(emulator), *args)


def results(kernel, grid, block, *args, **options):
    """Return what the first argument holds after a run, for each seed: NaN where the GPU would not allow it."""
    for seed in SEEDS:
        array = args[0].copy()
        try:
            emulate(kernel, grid, block, array, *args[1:], seed=seed, **options)
        except Fault as fault:
            assert not isinstance(fault, Deadlock)
            array[:] = np.nan
        yield array


def test_blocks_have_shared_memory_of_their_own_and_wait_for_their_threads():
    a = np.arange(24, dtype=np.float32)
    wanted = a.reshape(3, 8)[:, ::-1].reshape(-1)
    assert all((found == wanted).all() for found in results(reverse, 3, 8, a, True))
    assert any(np.isnan(found).any() for found in results(reverse, 3, 8, a, False))


def test_a_grid_waits_for_its_blocks():
    a = np.arange(12, dtype=np.float32)
    assert all((found == np.roll(a, -5)).all() for found in results(shift, 3, 4, a, 5, True))
    assert not all((found == np.roll(a, -5)).all() for found in results(shift, 3, 4, a, 5, False))


def test_lanes_of_a_warp_exchange_values():
    a = np.arange(40, dtype=np.float32)
    out = np.zeros(40, np.float32)
    emulate(sum_of_warp, 1, 40, a, out)
    eights = a.reshape(5, 8).sum(axis=1)
    np.testing.assert_array_equal(out, np.repeat(eights, 8) + np.repeat(eights[[0, 4]], [32, 8]))


def test_clusters_hand_on_what_they_wait_for():
    out, wanted = np.zeros(4, np.float32), [3, 4, 3, 4]
    assert all((found == wanted).all() for found in results(volley, 4, 1, out, 6, 2, 4, True, cluster=2))
    assert not all((found == wanted).all() for found in results(volley, 4, 1, out, 6, 2, 4, False, cluster=2))


def test_a_place_that_is_written_too_early_is_seen():
    """With one place in place of two a block overwrites what the other has not read."""
    out, wanted = np.zeros(4, np.float32), [3, 4, 3, 4]
    assert not all((found == wanted).all() for found in results(volley, 4, 1, out, 6, 1, 4, True, cluster=2))


def test_who_waits_in_vain_is_named():
    with pytest.raises(Deadlock, match=r"3 threads at syncthreads"):
        emulate(stops_short, 1, 4, 2)
    with pytest.raises(Deadlock, match=r"threads at barrier_wait"):
        emulate(volley, 2, 1, np.zeros(2, np.float32), 6, 2, 8, True, cluster=2)


def test_the_same_seed_gives_the_same_run():
    out = np.arange(12, dtype=np.float32)
    once, again = (list(results(shift, 3, 4, out, 5, False)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(once, again, strict=True))


@cuda.kernel
def product(a, weights, out):
    """Multiply rows of 16 by a matrix of two gates of 4 units, in two pieces of the depth."""
    memory = cuda.shared.array(64, float32, alignment=16)
    thread = cuda.threadIdx.x
    for i in range(thread, 32, 8):
        memory[i] = a[i // 16, i % 16]
    cuda.syncthreads()
    piece, unit = thread // 4, thread % 4
    held = hold(weights, unit, piece * 4, 16, 8, unit, 4, 4, 4, 4, 2, 2, 1, 2)
    multiply(held, memory, piece * 4, 16, 0, memory, 32 + piece * 16 + unit, 8, 4, 2, 2, 2, 1, 2)
    cuda.syncthreads()
    for i in range(thread, 16, 8):
        out[i // 8, i % 8] = total(memory, 32 + i, 16, 2)


def test_products_out_of_registers():
    rng = np.random.default_rng(0)
    a, weights = rng.standard_normal((2, 16)).astype("f"), rng.standard_normal((16, 8)).astype("f")
    out = np.zeros((2, 8), np.float32)
    emulate(product, 1, 8, a, weights, out)
    np.testing.assert_allclose(out, a @ weights, rtol=1e-5, atol=1e-6)


@cuda.kernel
def around(out, letters, counters, rounds, places, waits, together):
    """Hand four numbers on to the next block, each time one more; the last thread of a block is its postman."""
    i, block, blocks = cuda.threadIdx.x, cuda.blockIdx.x, cuda.gridDim.x
    value = float32(block)
    for s in range(rounds):
        post(letters, (s % places * blocks + block) * 4 + i, value + i)
        if together:
            cuda.syncthreads()
        if i == 3:
            arrive(counters, 0)
        if waits:
            await_arrivals(counters, 0, (s + 1) * blocks)
        value = fetch(letters, (s % places * blocks + (block + 1) % blocks) * 4)[i] - i + 1
    out[block * 4 + i] = value


def went_around(**changes):
    """Return what is handed on around three blocks, for each seed."""
    options = {"rounds": 4, "places": 2, "waits": True, "together": True, **changes}
    out = np.zeros(12, np.float32)
    for seed in SEEDS:
        letters, counters = np.full(24, np.nan, np.float32), np.zeros(1, np.int32)
        emulate(around, 3, 4, out, letters, counters, *options.values(), seed=seed)
        yield out.copy()


def test_blocks_of_a_grid_see_what_others_have_posted_before_they_arrived():
    wanted = np.repeat(np.float32([5, 6, 4]), 4)
    assert all((found == wanted).all() for found in went_around())
    for missing in ({"waits": False}, {"together": False}, {"places": 1}):
        assert not all((found == wanted).all() for found in went_around(**missing)), missing
