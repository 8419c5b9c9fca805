"""Band L, recurrent weights in the registers of a grid, on an emulator: against naive loops, for many orders of threads."""

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="needs pip install '.[gpu-test]'")

from emulator import Emulator, Fault  # noqa: E402
from gpu import fake_cupy  # noqa: E402
from test_cell_kernels import answer, assert_same_bits, covering, expected, named, problem, rows, run, steps  # noqa: E402
from test_cuda_resident import CELLS, EACH, TOLERANCE, asked, on_gpu, without  # noqa: E402

from numbarnn import cells, cuda  # noqa: E402
from numbarnn.cells import bands_cuda, persistent, persistent_cuda  # noqa: E402
from numbarnn.testing import assert_close  # noqa: E402

pytestmark = pytest.mark.gpu


def plan_of(p, most_groups, rows):
    """Return how a small problem lies on few threads; the names are those of `bands_cuda.Problem`."""
    block_units = {1: 8, 3: 4, 4: 4}[p.cell.gates]
    unit_groups = -(-p.units // block_units)
    return persistent.plan(
        p.cell, p.back, p.units, p.batch, p.h_copies, unit_groups * most_groups, rows, block_units, threads=16
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


OPTIONS = {
    "size": [(1, 1, 1, 1), (3, 4, 2, 7), (5, 3, 3, 8), (7, 2, 2, 10), (2, 5, 4, 13)],
    "mask": ["none", "right", "left", "scattered", "empty_row"],
    "reset": [False, True],
    "zero_output": [False, True],
    "backwards": [False, True],
    "return_sequences": [True, False],
    "h_copies": [0, 1, "gates"],
    "use_bias": [True, False],
    "initial_states": [True, False],
    "activations": [(None, None), (None, None), ("relu", "hard_sigmoid"), ("gelu", "softsign")],
    "layout": [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)],  # groups of blocks, rows of a tile
}
CASES = list(covering(OPTIONS))


@EACH
@pytest.mark.parametrize("index", range(len(CASES)))
def test_values_and_gradients(index, cell, emulated):
    options = dict(CASES[index])
    most_groups, some_rows = options.pop("layout")
    activation, recurrent_activation = options.pop("activations")
    p = problem(
        cell, dtype="float32", activation=activation, recurrent_activation=recurrent_activation, seed=index, **options
    )
    emulated(most_groups, some_rows, seed=index)
    found = on_gpu(answer, p)
    for name, value in expected(p).items():
        if name != "d_bias" or p.bias is not None:
            assert found[name].dtype == np.float32
            assert_close(found[name], value, TOLERANCE, f"{name} of {CASES[index]}")
    out, states, _ = on_gpu(run, p, save=False)
    unsaved = named(out, states)
    assert_same_bits(unsaved, found, unsaved)
