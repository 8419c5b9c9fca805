"""Band L, weights in the registers of a grid, on an emulator: against naive loops, for many orders of threads."""

import itertools
import re

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="needs pip install '.[gpu-test]'")

from emulator import Emulator  # noqa: E402
from gpu import fake_cupy  # noqa: E402
from test_cell_kernels import answer, assert_same_bits, covering, problem, rows  # noqa: E402
from test_cuda_resident import (  # noqa: E402
    EACH,
    OPTIONS,
    asked,
    assert_missed,
    assert_nothing_leaks,
    assert_parts_make_a_whole,
    assert_right,
    on_gpu,
    rewritten,
    without,
)

from numbarnn import cells, cuda  # noqa: E402
from numbarnn.cells import bands_cuda, persistent, persistent_cuda  # noqa: E402

pytestmark = pytest.mark.gpu


def plan_of(p, most_groups, rows):
    """Return how a small problem lies on few threads; the names are those of `bands_cuda.Problem`."""
    block_units, threads = (8, 32) if p.cell.gates == 1 else (4, 16)
    unit_groups = -(-p.units // block_units)
    return persistent.plan(
        p.cell, p.back, p.units, p.batch, p.h_copies, unit_groups * most_groups, rows, block_units, threads
    )


@pytest.fixture
def emulated(monkeypatch):
    """Return a function that lets passes run on the emulator, on so many groups of blocks in an order of its choice."""

    def choose(most_groups=1, rows=1, seed=0, change=lambda kernel: kernel):
        def launch(p, *args):
            plan = plan_of(p, most_groups, rows)
            plans.append(plan)
            codes = (None, None) if p.own_activations else p.codes
            emulator = Emulator(plan.blocks, plan.layout.threads, seed=seed)
            exchange, counters = plan.working_memory()
            if p.back:
                exchange[...] = np.nan
            args = *args, exchange, counters, plan.tiles, *codes
            args = [arg.in_simulator if isinstance(arg, fake_cupy.ndarray) else arg for arg in args]
            emulator.run(change(plan.layout.kernel).python(emulator), *args)

        monkeypatch.setattr(bands_cuda, "BANDS", [bands_cuda.Band("emulated", lambda p: True, launch)])
        plans = []
        return plans

    with cuda.use_array_module(fake_cupy):
        yield choose


CASES = list(
    covering(
        {
            **OPTIONS,
            "size": [(1, 1, 1, 1), (3, 4, 2, 7), (5, 3, 3, 8), (7, 2, 2, 18), (2, 5, 4, 13)],
            "layout": [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 4)],  # groups of blocks, rows of a tile
        }
    )
)


@EACH
@pytest.mark.parametrize("index", range(len(CASES)))
def test_values_and_gradients(index, cell, emulated):
    emulated(*CASES[index]["layout"], seed=index)
    assert_right(cell, CASES[index], index)


@EACH
def test_the_same_bits_in_any_order_of_threads_for_any_rows_and_blocks(cell, emulated):
    p = problem(cell, (7, 3, 2, 18), "float32", mask="scattered", reset=True, h_copies=1)
    emulated(1, 1)
    first = on_gpu(answer, p)
    for seed, (most_groups, some_rows) in enumerate(((1, 1), (2, 1), (7, 1), (1, 2), (2, 2), (1, 4), (2, 4)), 1):
        plans = emulated(most_groups, some_rows, seed)
        assert_same_bits(on_gpu(answer, p), first)
        assert {(plan.batch_groups, plan.layout.rows) for plan in plans} == {(min(most_groups, 7), some_rows)}
    one = on_gpu(answer, rows(p, slice(1, 2)))
    np.testing.assert_array_equal(one["out"], first["out"][1:2])


@EACH
def test_a_sequence_in_two_parts(cell, emulated):
    emulated()
    assert_parts_make_a_whole(cell, (4, 5, 3, 9))


@EACH
def test_nothing_leaks_out_of_masked_steps(cell, emulated):
    for some_rows in (1, 2):
        emulated(1, some_rows)
        assert_nothing_leaks(cell)


# ----------------------------------------------------------------------------------------------- what barriers are for

BARRIERS = [
    *(("forward", 4, "cuda.syncthreads()", number) for number in (0, 1, 2, 3)),
    *(("forward", 1, "cuda.syncthreads()", number) for number in (1, 2, 3, 4)),
    ("forward", 4, "await_arrivals(", 0), ("forward", 1, "await_arrivals(", 1),
    *(("forward", 1, "arrive(", number) for number in (0, 1)),
    *(("backward", 4, "cuda.syncthreads()", number) for number in (0, 2)),
    *(("backward", 1, "cuda.syncthreads()", number) for number in (0, 1, 2)),
    ("backward", 4, "await_arrivals(", 0), ("backward", 1, "await_arrivals(", 1), ("backward", 1, "arrive(", 0),
]  # fmt: skip


@pytest.mark.parametrize("name, batch, call, number", BARRIERS)
def test_each_barrier_is_needed_and_missed(name, batch, call, number, emulated):
    """Of one tile, and of four."""
    p = problem("LSTM", (batch, 4, 2, 7), "float32")
    assert_missed(p, emulated, 1, 1, name=name, change=lambda kernel: without(kernel, call, number))


@pytest.mark.parametrize("name", ["forward", "backward"])
def test_two_places_of_a_tile_are_needed(name, emulated):
    """With one of them a block overwrites what others have not read."""

    def change(kernel):
        return rewritten(kernel, lambda source: source.replace("% 2 * all_tiles", "% 1 * all_tiles"))

    assert_missed(problem("LSTM", (1, 4, 2, 10), "float32"), emulated, 1, 1, name=name, change=change)


# ------------------------------------------------------------------------------------------------------ which layers


@pytest.mark.parametrize(
    "cell, units, capability, multiprocessors, band",
    [
        (cells.LSTM, 96, (7, 5), 40, "S"), (cells.LSTM, 97, (7, 5), 40, "L"), (cells.LSTM, 512, (7, 5), 40, "L"),
        (cells.LSTM, 700, (7, 5), 40, "G"), (cells.LSTM, 256, (8, 9), 128, "L"), (cells.LSTM, 256, (9, 0), 132, "M"),
        (cells.LSTM, 257, (9, 0), 132, "L"), (cells.LSTM, 1021, (9, 0), 132, "L"),
        (cells.LSTM, 1024, (12, 0), 170, "L"),
        (cells.LSTM, 1100, (9, 0), 132, "G"), (cells.LSTM, 864, (8, 0), 108, "L"), (cells.LSTM, 872, (8, 0), 108, "G"),
        (cells.LSTM, 512, (7, 0), 80, "G"), (cells.GRU, 257, (9, 0), 132, "L"), (cells.GRU, 1024, (8, 0), 108, "L"),
        (cells.SIMPLE_RNN, 193, (8, 0), 108, "L"), (cells.SIMPLE_RNN, 512, (9, 0), 132, "M"),
        (cells.SIMPLE_RNN, 1024, (7, 5), 40, "L"), (cells.GRU_RESET_BEFORE, 512, (9, 0), 132, "G"),
    ],
)  # fmt: skip
def test_which_band_serves_what(cell, units, capability, multiprocessors, band):
    sizes = {"units": units, "capability": capability, "multiprocessors": multiprocessors}
    for back in (False, True):
        for copies in (0, 1, cell.gates):
            for batch in (1, 300):
                p = asked(cell, batch=batch, back=back, h_copies=copies, **sizes)
                if (cell, units, copies) != (cells.LSTM, 96, 4):  # no room for factors of each gate in a block
                    assert bands_cuda.choose_band(p).name == band
    assert bands_cuda.choose_band(asked(cell, dtype="float64", **sizes)).name == "G"
    assert bands_cuda.choose_band(asked(cell, timesteps=0, **sizes)).name == "G"
    assert bands_cuda.choose_band(asked(cell, batch=0, **sizes)).name == "G"


def test_how_many_units_a_gpu_has_room_for():
    """The table of `numbarnn.cells.persistent`."""
    table = re.findall(r"^(\d+) +(\d+), (\d+) +(\d+), (\d+) +(\d+)$", persistent.__doc__, re.MULTILINE)
    assert len(table) == 5
    for multiprocessors, *limits in (map(int, line) for line in table):
        for cell, (forth, back) in zip(
            (cells.LSTM, cells.GRU, cells.SIMPLE_RNN), (limits[:2], limits[2:4], limits[4:] * 2), strict=True
        ):
            for backward, most in ((False, forth), (True, back)):
                assert persistent.choose(cell, backward, most, 1, 0, (9, 0), multiprocessors)
                assert not persistent.choose(cell, backward, most + 1, 1, 0, (9, 0), multiprocessors)


@EACH
def test_plans_fill_the_gpu_and_fit_it(cell):
    cell = getattr(cells, cell)
    served = 0
    for back in (False, True):
        for multiprocessors, units in itertools.product((40, 82, 132), (1, 100, 257, 512, 640, 777, 1021, 1024)):
            for copies in (0, 1, cell.gates):
                found = [
                    persistent.choose(cell, back, units, batch, copies, (9, 0), multiprocessors)
                    for batch in (1, 3, 16, 64, 257, 1000)
                ]
                if None in found:
                    assert set(found) == {None} and 4 * 1.3 * cell.gates * units**2 > multiprocessors * 128 * 1024
                    continue
                served += 1
                assert len({plan.layout.block_units for plan in found}) == 1  # so that bits are the same for any batch
                for batch, plan in zip((1, 3, 16, 64, 257, 1000), found, strict=True):
                    check_plan(plan, units, batch, multiprocessors)
    assert served > 60


def check_plan(plan, units, batch, multiprocessors):
    """Assert that a plan covers the units and the batch, without idle blocks, and what kernels take for granted."""
    layout, rows_of_a_block = plan.layout, plan.tiles * plan.layout.rows
    assert layout.fits and layout.most_units >= units
    assert 0 <= plan.unit_groups * layout.block_units - units < layout.block_units
    assert plan.batch_groups * rows_of_a_block >= batch > (plan.batch_groups - 1) * rows_of_a_block
    assert plan.unit_groups * plan.batch_groups <= multiprocessors
    assert batch < 1000 or plan.unit_groups * plan.batch_groups > 0.6 * multiprocessors
    n = layout.constants
    assert set(n) <= set(vars(persistent_cuda))
    assert n["ROWS"] * n["BLOCK_UNITS"] <= n["THREADS"] and n["BLOCK_UNITS"] % 4 == n["SUMS"] % 4 == 0
    if layout.backward:
        assert n["THREAD_UNITS"] * n["THREADS"] == layout.most_units and 4 * n["QUADS"] == n["BLOCK_UNITS"]
        assert n["PARTS"] * n["PART_QUADS"] <= n["THREADS"]
        assert n["AHEAD"] // 4 * n["PARTS"] >= plan.unit_groups
    else:
        assert n["GROUPS"] * n["THREAD_UNITS"] == n["BLOCK_UNITS"] and n["GROUPS"] * n["PIECES"] <= n["THREADS"]
        assert 4 * n["QUADS"] * n["PIECES"] == layout.most_units == n["STAGE_ROW"]
        assert n["SUMS_PIECE"] >= n["ROWS"] * n["SUMS_ROW"] and (n["SUMS_PIECE"] - n["GROUPS"]) % 32 == 0
        assert n["AHEAD"] * n["THREADS"] >= n["STAGE"] == n["STAGE_COPY"] * n["COPIES"]


def test_a_launch_takes_all_that_the_kernels_take(monkeypatch):
    """All blocks at once, working memory of the plan, and the cell's own activations as constants."""
    launched = []
    monkeypatch.setattr(cuda.Kernel, "launch", lambda *args, **options: launched.append((*args, options)))
    with cuda.use_array_module(fake_cupy):
        for back in (False, True):
            p = asked(cells.LSTM, 520, back=back, multiprocessors=132)
            plan = persistent.choose(cells.LSTM, back, 520, 64, 0, (9, 0), 132)
            bands_cuda.choose_band(p).launch(p, "arrays")
            kernel, blocks, threads, first, exchange, counters, tiles, *codes, options = launched[-1]
            assert kernel is plan.layout.kernel and (blocks, threads) == (plan.blocks, plan.layout.threads)
            assert first == "arrays" and tiles == plan.tiles and codes == [None, None]
            assert options == {"cooperative": True}
            assert counters.shape == (plan.batch_groups * tiles,) and counters.dtype == np.int32
            of_a_tile = plan.unit_groups**2 * plan.layout.rows * plan.layout.block_units if back else None
            assert exchange.size == 2 * counters.size * (of_a_tile or plan.layout.constants["STAGE"])
        bands_cuda.choose_band(p).launch(p._replace(own_activations=False, codes=(3, 1)), "arrays")
        assert launched[-1][-3:-1] == (3, 1)
