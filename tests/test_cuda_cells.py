"""Band G on many blocks in any order: its grid waits where it must; and how bands are chosen (`tests/gpu_rings.py`)."""

import types
from dataclasses import replace

import numpy as np
import pytest
from emulator import Emulator
from gpu import fake_cupy
from test_cell_kernels import EACH, answer, assert_same_bits, problem

from numbarnn import cuda, devices
from numbarnn.cells import bands_cuda
from numbarnn.testing import assert_close

pytestmark = pytest.mark.gpu


# ------------------------------------------------------------------------------------------------------ several blocks


class Grid(Emulator):
    """An emulator whose blocks and threads have two axes."""

    def __init__(self, grid, block, **options):
        super().__init__(grid[0] * grid[1], block[0] * block[1], **options)
        self.shape = grid, block

    def grid(self, axes):
        """Return the place of this thread in the grid."""
        (blocks, _), (threads, _) = self.shape
        block, thread = self.blockIdx.x, self.threadIdx.x
        return (
            block % blocks * threads + thread % threads,
            block // blocks * self.shape[1][1] + thread // threads,
        )

    def gridsize(self, axes):
        """Return how many threads there are in each direction."""
        return tuple(blocks * threads for blocks, threads in zip(*self.shape, strict=True))


@pytest.fixture
def emulated(monkeypatch):
    """Let kernels run on the emulator, on any of its orders: set the attribute `seed`."""
    state = types.SimpleNamespace(seed=0, resident=6, grids=set(), barriers=True)

    def launch(kernel, grid, block, *args, cooperative):
        assert cooperative and np.prod(grid) <= state.resident
        state.grids.add(grid)
        emulator = Grid(grid, block, seed=state.seed)
        if not state.barriers:
            emulator.cg.this_grid = lambda: types.SimpleNamespace(sync=emulator._pause)
            emulator.pauses = 0.5
        emulator.run(kernel.python(emulator), *(getattr(arg, "in_simulator", arg) for arg in args))

    monkeypatch.setattr(bands_cuda, "BLOCK", (2, 2))
    monkeypatch.setattr(bands_cuda, "MANY", 0)
    monkeypatch.setattr(bands_cuda, "rows_of_a_thread", lambda capability: 1)
    monkeypatch.setattr(cuda.Kernel, "launch", launch)
    monkeypatch.setattr(cuda.Kernel, "resident_blocks", lambda kernel, block, *args: state.resident)
    with cuda.use_array_module(fake_cupy), devices.device("cuda:0"):
        yield state


OPTIONS = {"mask": "scattered", "reset": True, "x_copies": 1, "h_copies": "gates"}


@EACH
def test_blocks_of_any_number_in_any_order_give_the_bits_of_one(cell, emulated, monkeypatch):
    p = problem(cell, (5, 3, 2, 5), **OPTIONS)
    emulated.resident = 1
    one = answer(p)
    with devices.device("cpu"):
        for name, value in answer(p).items():
            assert_close(one[name], value, 1e-12, name)
    for emulated.resident, emulated.seed in ((2, 1), (6, 2), (132, 3)):
        assert_same_bits(answer(p), one)
    assert emulated.grids == {(1, 1), (2, 1), (3, 2), (3, 3)}
    monkeypatch.setattr(bands_cuda, "rows_of_a_thread", lambda capability: 2)
    assert_same_bits(answer(p), one)


@EACH
def test_without_barriers_it_goes_wrong(cell, emulated):
    """So the emulator sees a barrier that is missing."""
    p = replace(problem(cell, (4, 4, 2, 5)), d_out=np.zeros((4, 4, 5)))
    right = answer(p)
    emulated.barriers = False
    wrong = answer(p)
    assert any(not np.array_equal(wrong[name], right[name]) for name in right)


# --------------------------------------------------------------------------------------------------------------- bands


def test_the_first_band_that_serves_a_problem_is_launched(emulated, monkeypatch):
    """With all that it is chosen by; one way forward, another back."""
    seen = []

    def serves(problem):
        seen.append(problem)
        return problem.back

    def launch(problem, *args):
        launched.append(problem)
        bands_cuda.BANDS[-1].launch(problem, *args)

    launched = []
    monkeypatch.setattr(bands_cuda, "BANDS", [bands_cuda.Band("test", serves, launch), *bands_cuda.BANDS])
    p = problem("LSTM", (2, 3, 4, 5), "float32", h_copies=1, activation="relu")
    answer(p)
    forward, back = seen
    assert launched == [back] and back.back and not forward.back
    assert forward._replace(back=True) == back
    assert back == bands_cuda.Problem(
        p.cell, True, batch=2, timesteps=3, units=5, dtype=np.dtype("float32"), codes=(3, 1), own_activations=False,
        h_copies=1, saving=True, capability=cuda.capability(), multiprocessors=1,
    )  # fmt: skip
    answer(problem("LSTM", (2, 3, 4, 5)))
    assert seen[-1].own_activations and seen[-1].codes == (0, 1) and seen[-1].h_copies == 0
