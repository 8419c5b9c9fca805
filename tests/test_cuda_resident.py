"""Bands S and M, recurrent weights in registers, on an emulator: against naive loops, for many orders of threads."""

import inspect
import re
import textwrap

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="needs pip install '.[gpu-test]'")

from emulator import Emulator, Fault  # noqa: E402
from gpu import fake_cupy  # noqa: E402
from test_cell_kernels import answer, assert_same_bits, covering, expected, named, problem, rows, run, steps  # noqa: E402

from numbarnn import cells, cuda, devices  # noqa: E402
from numbarnn.cells import bands_cuda, resident, resident_cuda  # noqa: E402
from numbarnn.cells.resident import Layout  # noqa: E402
from numbarnn.testing import assert_close  # noqa: E402

pytestmark = pytest.mark.gpu
CELLS = "LSTM", "GRU", "SIMPLE_RNN"
EACH = pytest.mark.parametrize("cell", CELLS)
CLUSTERS = pytest.mark.parametrize("cluster", [1, 2, 4])
GPU = "cuda:0"
TOLERANCE = 1e-5


def layout_of(p, cluster, rows):
    """Return a layout for a small problem; the names are those of `bands_cuda.Problem`."""
    padded = -(-p.units // 16) * 16
    pieces = (2 if cluster == 2 else 1) if p.back else 4 if padded == 16 else 2
    thread_units = 4 if p.back or p.cell.gates == 1 else 1
    return Layout(p.cell, p.back, rows, padded, cluster, pieces, thread_units, max(1, p.h_copies))


@pytest.fixture
def emulated(monkeypatch):
    """Return a function that lets passes run on the emulator, in layouts and an order of its choice."""

    def choose(cluster=1, rows=2, seed=0, change=lambda kernel: kernel):
        def launch(p, *args):
            layout = layout_of(p, cluster, rows)
            codes = (None, None) if p.own_activations else p.codes
            emulator = Emulator(layout.blocks(p.batch), layout.threads, cluster, seed)
            args = [arg.in_simulator if isinstance(arg, fake_cupy.ndarray) else arg for arg in args]
            emulator.run(change(layout.kernel).python(emulator), *args, *codes)

        monkeypatch.setattr(bands_cuda, "BANDS", [bands_cuda.Band("emulated", lambda p: True, launch)])

    with cuda.use_array_module(fake_cupy):
        yield choose


def on_gpu(function, *args, **options):
    """Call a function while the GPU is the current device."""
    with devices.device(GPU):
        return function(*args, **options)


OPTIONS = {
    "size": [(1, 1, 1, 1), (3, 4, 2, 13), (5, 3, 3, 16), (2, 5, 4, 30)],
    "mask": ["none", "right", "left", "scattered", "empty_row"],
    "reset": [False, True],
    "zero_output": [False, True],
    "backwards": [False, True],
    "return_sequences": [True, False],
    "h_copies": [0, 1, "gates"],
    "use_bias": [True, False],
    "initial_states": [True, False],
    "activations": [(None, None), (None, None), ("relu", "hard_sigmoid"), ("gelu", "softsign")],
    "layout": [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 4)],
}
CASES = list(covering(OPTIONS))


def assert_right(cell, case, seed):
    """Assert that a problem of these options has the right answer, the same without a tape."""
    options = {name: value for name, value in case.items() if name not in ("layout", "activations")}
    activation, recurrent_activation = case["activations"]
    p = problem(
        cell, dtype="float32", activation=activation, recurrent_activation=recurrent_activation, seed=seed, **options
    )
    found = on_gpu(answer, p)
    for name, value in expected(p).items():
        if name != "d_bias" or p.bias is not None:
            assert found[name].dtype == np.float32
            assert_close(found[name], value, TOLERANCE, f"{name} of {case}")
    out, states, _ = on_gpu(run, p, save=False)
    unsaved = named(out, states)
    assert_same_bits(unsaved, found, unsaved)


@EACH
@pytest.mark.parametrize("index", range(len(CASES)))
def test_values_and_gradients(index, cell, emulated):
    emulated(*CASES[index]["layout"], seed=index)
    assert_right(cell, CASES[index], index)


@EACH
@CLUSTERS
def test_the_same_bits_in_any_order_of_threads_for_any_rows(cluster, cell, emulated):
    p = problem(cell, (3, 4, 2, 14), "float32", mask="scattered", reset=True, h_copies=1)
    emulated(cluster, 2)
    first = on_gpu(answer, p)
    for seed, some_rows in enumerate((2, 2, 1, 4), 1):
        emulated(cluster, some_rows, seed)
        assert_same_bits(on_gpu(answer, p), first)
    one = on_gpu(answer, rows(p, slice(1, 2)))
    np.testing.assert_array_equal(one["out"], first["out"][1:2])


def assert_parts_make_a_whole(cell, size):
    """Assert that two and three steps, from the states of the two, give the bits of five."""
    p = problem(cell, size, "float32", mask="scattered", h_copies=1, zero_output=True)
    whole = on_gpu(answer, p)
    first, second = steps(p, 0, 2), steps(p, 2, 5)
    out_1, states, _ = on_gpu(run, first, save=True)
    out_2, last, _ = on_gpu(run, second, save=True, initial_states=states)
    assert_same_bits(named(np.hstack([out_1, out_2]), last), whole, ("out", "h"))


@EACH
@CLUSTERS
def test_a_sequence_in_two_parts(cluster, cell, emulated):
    emulated(cluster)
    assert_parts_make_a_whole(cell, (2, 5, 3, 13))


def assert_nothing_leaks(cell):
    """Assert that nothing comes of masked steps: neither of NaN that goes in, nor of weights that are infinite."""
    p = problem(cell, (3, 4, 2, 13), "float32", mask="empty_row", reset=True, zero_output=True)
    empty = ~p.mask.any(axis=1)
    p.x[empty] = np.nan
    p.recurrent[0, 0] = np.inf
    found = on_gpu(answer, p)
    assert np.isfinite(found["out"][empty]).all() and np.isfinite(found["h"][empty]).all()
    assert np.isfinite(found["d_h"][empty]).all() and (found["d_x"][empty] == 0).all()


@EACH
def test_nothing_leaks_out_of_masked_steps(cell, emulated):
    for cluster in (1, 2):
        emulated(cluster)
        assert_nothing_leaks(cell)


# ----------------------------------------------------------------------------------------------- what barriers are for


def rewritten(kernel, change):
    """Return a kernel whose source is what `change` makes of it."""
    source = textwrap.dedent(inspect.getsource(kernel.function))
    names = dict(kernel.function.__globals__)
    exec(change(source[source.index("def ") :]), names)
    return cuda.Kernel(names[kernel.function.__name__], kernel.options)


def without(kernel, call, number):
    """Return a kernel in which one statement, the `number`-th of those that begin with `call`, is missing."""

    def change(source):
        place = list(re.finditer(rf"^ *(?={re.escape(call)})", source, re.MULTILINE))[number].end()
        return source[:place] + "pass" + source[source.index("\n", place) :]

    return rewritten(kernel, change)


def assert_missed(p, emulated, *layout, name, change, seeds=60):
    """Assert that with another kernel of that name some order of the threads gives something else, or ends nowhere."""
    emulated(*layout)
    whole = on_gpu(answer, p)
    for seed in range(seeds):
        emulated(*layout, seed, lambda kernel: change(kernel) if kernel.__name__ == name else kernel)
        try:
            found = on_gpu(answer, p)
        except Fault:
            return
        if any((found[part] != whole[part]).any() for part in whole):
            return
    pytest.fail("nobody misses it")


BARRIERS = [
    ("forward", 1, "cuda.syncthreads()", 0), ("forward", 1, "cuda.syncthreads()", 1),
    ("forward", 1, "cuda.syncthreads()", 2), ("forward", 2, "cluster_barrier()", 0),
    ("forward", 2, "cuda.syncthreads()", 1), ("forward", 2, "barrier_wait(", 0),
    ("backward", 1, "cuda.syncthreads()", 0), ("backward", 1, "cuda.syncthreads()", 1),
    ("backward", 2, "cluster_barrier()", 0), ("backward", 2, "cuda.syncthreads()", 0),
    ("backward", 2, "cuda.syncthreads()", 1), ("backward", 2, "barrier_wait(", 0),
]  # fmt: skip


@pytest.mark.parametrize("name, cluster, call, number", BARRIERS)
def test_each_barrier_is_needed_and_missed(name, cluster, call, number, emulated):
    p = problem("LSTM", (2, 4, 2, 13), "float32")
    assert_missed(p, emulated, cluster, 2, name=name, change=lambda kernel: without(kernel, call, number))


# ------------------------------------------------------------------------------------------------------ which layers


def asked(cell, units, batch=64, dtype="float32", capability=(9, 0), **options):
    """Return what a band is chosen by."""
    values = {
        "back": False, "timesteps": 10, "codes": (0, 0), "own_activations": True, "h_copies": 0, "saving": True,
        "multiprocessors": 1,  # too few for band L
    }  # fmt: skip
    return bands_cuda.Problem(
        cell=cell, batch=batch, units=units, dtype=np.dtype(dtype), capability=capability, **{**values, **options}
    )


@pytest.mark.parametrize(
    "cell, units, capability, band",
    [
        (cells.LSTM, 1, (7, 5), "S"), (cells.LSTM, 96, (8, 6), "S"), (cells.LSTM, 97, (8, 9), "G"),
        (cells.LSTM, 96, (9, 0), "S"),
        (cells.LSTM, 97, (9, 0), "M"), (cells.LSTM, 256, (12, 0), "M"), (cells.LSTM, 257, (10, 0), "G"),
        (cells.GRU, 96, (7, 5), "S"), (cells.GRU, 256, (9, 0), "M"), (cells.GRU_RESET_BEFORE, 8, (9, 0), "G"),
        (cells.SIMPLE_RNN, 192, (8, 0), "S"), (cells.SIMPLE_RNN, 512, (9, 0), "M"),
        (cells.SIMPLE_RNN, 193, (8, 0), "G"), (cells.LSTM, 8, (7, 0), "G"),
    ],
)  # fmt: skip
def test_which_band_serves_what(cell, units, capability, band):
    for back in (False, True):
        for copies in (0, 1, cell.gates):
            p = asked(cell, units, capability=capability, back=back, h_copies=copies)
            if (cell, copies) != (cells.LSTM, 4) or not 64 < units <= 96:
                assert bands_cuda.choose_band(p).name == band
            else:  # no room for factors of each gate
                assert bands_cuda.choose_band(p).name == ("M" if capability >= (9, 0) else "G")
    assert bands_cuda.choose_band(asked(cell, units, dtype="float64", capability=capability)).name == "G"
    assert bands_cuda.choose_band(asked(cell, units, capability=capability, timesteps=0)).name == "G"


@EACH
def test_layouts_fill_the_gpu_and_fit_it(cell):
    cell = getattr(cells, cell)
    for backward in (False, True):
        for units in (*range(1, 300, 7), 512):
            for batch in (1, 16, 132, 133, 512, 10_000):
                for copies in (0, 1, cell.gates):
                    layout = resident.choose(cell, backward, units, batch, copies, (9, 0), 132)
                    if layout is None:
                        assert cell.gates > 1 and units > 256
                        continue
                    assert layout.fits and layout.threads <= 1024 and layout.units >= units
                    assert layout.blocks(batch) * layout.rows >= batch * layout.cluster
                    assert layout.rows == 1 or layout.blocks(batch) * 2 > 132 // layout.cluster * layout.cluster
                    check_numbers(layout)


def check_numbers(layout):
    """Assert what the kernels take for granted of their constants."""
    n = layout.constants
    depth = n["BLOCK_UNITS"] if layout.backward else n["UNITS"]
    assert n["QUADS"] * 4 * layout.pieces == depth
    assert n["BLOCK_UNITS"] * n["CLUSTER"] == n["UNITS"]
    assert n["GROUPS"] * n["THREAD_UNITS"] == (n["UNITS"] if layout.backward else n["BLOCK_UNITS"])
    assert n["GROUPS"] * n["PIECES"] <= n["THREADS"] >= n["ROWS"] * n["BLOCK_UNITS"] and n["THREADS"] % 32 == 0
    assert n["BARRIERS"] % 2 == 0 and n["SUMS"] % 4 == 0
    assert set(n) <= set(vars(resident_cuda))
