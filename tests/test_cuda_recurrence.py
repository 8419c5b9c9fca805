"""Recurrent passes on a GPU, band G, against the CPU's kernels, and the laws that hold.

They run on Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``) with a stand-in for CuPy, which is as strict and whose memory
is NaN until it is set; or on a GPU if there is one.
"""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from gpu import fake_cupy
from test_cell_kernels import (
    CELLS,
    EACH,
    FULL,
    LAWS,
    PASSES,
    WEIGHTS,
    answer,
    arguments,
    assert_same_bits,
    covering,
    flags_of,
    named,
    problem,
    run,
    steps,
)

from numbarnn import cuda, devices, layers, recurrence
from numbarnn.cells import bands_cuda
from numbarnn.recurrence import kernel_calls
from numbarnn.simd_math import ACTIVATIONS
from numbarnn.testing import assert_close

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda.why_not() is not None, reason="needs a GPU, or NUMBA_ENABLE_CUDASIM=1"),
]
GPU = "cuda:0"
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
# Codes at run time meet every activation in either place; one pair is enough for each.
PAIRS = [(None, None), *zip(ACTIVATIONS, [*list(ACTIVATIONS)[5:], *list(ACTIVATIONS)[:5]], strict=True)]
OPTIONS = {
    "size": [(1, 1, 1, 1), (1, 5, 3, 2), (3, 1, 2, 4), (2, 4, 3, 1), (5, 3, 2, 7), (2, 3, 1, 5), (3, 4, 5, 9)],
    "dtype": ["float32", "float64"],
    "mask": ["none", "right", "left", "scattered", "empty_row"],
    "reset": [False, True],
    "zero_output": [False, True],
    "backwards": [False, True],
    "return_sequences": [True, False],
    "x_copies": [0, 1, "gates"],
    "h_copies": [0, 1, "gates"],
    "use_bias": [True, False],
    "initial_states": [True, False],
    "activations": PAIRS,
}
CASES = list(covering(OPTIONS))
# GRU and SimpleRNN run in the LSTM's loops: they get every third, which has every value of every option.
EVERY = {"GRU": 3, "SIMPLE_RNN": 3}


@pytest.fixture(autouse=True)
def simulator(monkeypatch):
    """Give the simulator arrays, and blocks that it can run."""
    if not cuda.simulated():
        yield
        return
    monkeypatch.setattr(bands_cuda, "BLOCK", (4, 2))
    monkeypatch.setattr(bands_cuda, "rows_of_a_thread", lambda capability: 2)
    monkeypatch.setattr(bands_cuda, "MANY", 12)  # so that there are problems on either side
    with cuda.use_array_module(fake_cupy):
        yield


def on_gpu(function, *args, **options):
    """Call a function while the GPU is the current device."""
    with devices.device(GPU):
        return function(*args, **options)


def case(cell, index):
    """Return a problem by its number."""
    options = dict(CASES[index])
    activation, recurrent_activation = options.pop("activations")
    return problem(cell, activation=activation, recurrent_activation=recurrent_activation, **options, seed=index)


def assert_agrees(found, expected, dtype):
    """Assert that two answers are close in all parts."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert type(found[name]) is np.ndarray and found[name].dtype == value.dtype
        assert_close(found[name], value, TOLERANCE[dtype], name)


def test_every_cell_meets_every_option():
    for every in (1, *EVERY.values()):
        for name, values in OPTIONS.items():
            assert {str(case[name]) for case in map(dict, CASES[::every])} == set(map(str, values))


@pytest.mark.parametrize(
    ("cell", "index"), [(cell, n) for cell in CELLS for n in range(0, len(CASES), EVERY.get(cell, 1))]
)
def test_values_and_gradients(index, cell):
    p = case(cell, index)
    before = {name: array.copy() for name, array in p.arrays().items()}
    for array in p.arrays().values():
        array.flags.writeable = False
    found = on_gpu(answer, p)
    assert_agrees(found, answer(p), p.x.dtype.name)
    out, states, pullback = on_gpu(run, p, save=False)
    unsaved = named(out, states)
    assert_same_bits(unsaved, found, unsaved)
    assert pullback is None
    for name, array in p.arrays().items():
        np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")


@EACH
@LAWS
def test_any_block_gives_the_same_bits_again_and_again(options, cell, monkeypatch):
    p = problem(cell, (3, 4, 5, 7), "float32", **options)
    first = on_gpu(answer, p)
    assert_same_bits(on_gpu(answer, p), first)
    monkeypatch.setattr(bands_cuda, "MANY", 0)
    for block, rows in (((1, 1), 1), ((2, 3), 2), ((7, 1), 4)):
        monkeypatch.setattr(bands_cuda, "BLOCK", block)
        monkeypatch.setattr(bands_cuda, "rows_of_a_thread", lambda capability, rows=rows: rows)
        assert_same_bits(on_gpu(answer, p), first)


# ---------------------------------------------------------------------------------------------------------------- laws


@EACH
@LAWS
def test_a_sequence_in_two_parts(options, cell):
    p = problem(cell, (3, 5, 4, 5), zero_output=True, **options)
    whole = on_gpu(answer, p)
    first, second = steps(p, 0, 2), steps(p, 2, 5)
    with devices.device(GPU):
        out_1, states, pullback_1 = run(first, save=True)
        out_2, last, pullback_2 = run(second, save=True, initial_states=states)
        d_x_2, d_weights_2, d_states = pullback_2(second.d_out, p.d_states)
        d_x_1, d_weights_1, d_initial = pullback_1(first.d_out, d_states)
    d_x = (d_x_2, d_x_1) if p.backwards else (d_x_1, d_x_2)
    sums = [a + b for a, b in zip(d_weights_1, d_weights_2, strict=True)]
    assert_agrees(named(np.hstack([out_1, out_2]), last, np.hstack(d_x), sums, d_initial), whole, "float64")


@EACH
@pytest.mark.parametrize("options", [{}, {"x_copies": "gates", "h_copies": 1, "backwards": True}])
def test_masked_steps_could_as_well_be_taken_out(options, cell):
    counts = np.array([True, False, True, True, False, True, False])
    p = replace(problem(cell, (1, 7, 3, 4), **options), mask=counts[None])
    emitted = counts[::-1] if p.backwards else counts
    p = replace(p, d_out=p.d_out * emitted[None, :, None])
    found = on_gpu(answer, p)
    assert not found["d_x"][:, ~counts].any()
    short = on_gpu(answer, replace(p, x=p.x[:, counts], mask=None, d_out=p.d_out[:, emitted]))
    found["out"], found["d_x"] = found["out"][:, emitted], found["d_x"][:, counts]
    assert_agrees(found, short, "float64")


@EACH
@LAWS
def test_backwards_is_forwards_on_the_reversed_sequence(options, cell):
    p = problem(cell, (3, 4, 2, 5), **{**options, "backwards": True})
    turned = {name: array[:, ::-1] for name, array in p.arrays().items() if name in ("x", "mask", "reset")}
    mirrored = on_gpu(answer, replace(p, **turned, backwards=False))
    assert_same_bits(on_gpu(answer, p), {**mirrored, "d_x": mirrored["d_x"][:, ::-1]})


@EACH
@pytest.mark.parametrize("copies", [0, 1, "gates"])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nothing_leaks_out_of_masked_steps(copies, cell):
    """Neither NaN of what goes in there, nor of the gradient of what is emitted there, nor of infinite weights."""
    p = problem(cell, (4, 5, 3, 5), mask="empty_row", reset=True, zero_output=True, x_copies=copies, h_copies=copies)
    empty = ~p.mask.any(axis=1)
    clean, poisoned = p.x.copy(), p.x.copy()
    clean[~p.mask], poisoned[~p.mask] = 0, np.nan
    d_clean, d_poisoned = p.d_out.copy(), p.d_out.copy()
    d_clean[~p.mask], d_poisoned[~p.mask] = 0, np.nan
    h = p.h.copy()
    h[empty] = np.inf
    found = on_gpu(answer, replace(p, x=poisoned, d_out=d_poisoned, h=h))
    expected = on_gpu(answer, replace(p, x=clean, d_out=d_clean))
    assert empty.any() and all(np.isfinite(value).all() for value in expected.values())
    assert_same_bits(found, {**expected, "h": np.where((empty & ~p.reset.any(axis=1))[:, None], np.inf, expected["h"])})
    # A row that is masked whole has no gradient, whatever the weights are.
    kernel = p.kernel.copy()
    kernel[0] = np.inf
    assert not on_gpu(answer, replace(p, kernel=kernel))["d_x"][empty].any()


@EACH
def test_a_reset_cuts_values_and_gradients(cell):
    p = problem(cell, (3, 5, 3, 4), reset=True, mask="scattered")
    p.reset[:, 3] = True
    afresh = on_gpu(answer, replace(steps(p, 3, 5), h=None, c=None))
    found = on_gpu(answer, replace(p, d_out=np.concatenate([0 * p.d_out[:, :3], p.d_out[:, 3:]], axis=1)))
    for name in ("h", "c")[: p.cell.states]:
        assert_close(found[name], afresh[name], 1e-12, name)
        assert not found[f"d_{name}"].any()
    assert not found["d_x"][:, :3].any() and found["d_x"][:, 3:].any()


# ----------------------------------------------------------------------------------------- how passes are made and used


@EACH
@pytest.mark.parametrize("checkpoint", [1, 2, 3])
@pytest.mark.parametrize("return_sequences", [True, False])
def test_checkpoints(return_sequences, checkpoint, cell):
    options = {"mask": "scattered", "reset": True, "x_copies": 1, "h_copies": "gates", "backwards": checkpoint == 2}
    p = problem(cell, (3, 5, 2, 4), return_sequences=return_sequences, **options)
    with devices.device(GPU):
        out, states, pullback = run(p, save=True, checkpoint=checkpoint)
        with pytest.raises(ValueError, match="was run with `checkpoint`"):
            pullback.steps(())
        found = named(out, states, *pullback(p.d_out, p.d_states))
    assert_agrees(found, answer(p), "float64")


@EACH
@LAWS
def test_what_happened_at_each_step(options, cell):
    p = problem(cell, (3, 4, 2, 5), **options)
    names = {"LSTM": ["i", "f", "candidate", "o"], "SimpleRNN": []}.get(p.cell.name, ["z", "r", "candidate"])
    (states, gates), (expected_states, expected_gates) = (
        on_gpu(run, p, save=True)[2].steps(names),
        run(p, save=True)[2].steps(names),
    )
    for found, expected in zip(states, expected_states, strict=True):
        assert_close(found, expected, 1e-12)
    assert gates.keys() == expected_gates.keys()
    for name, expected in expected_gates.items():
        assert type(gates[name]) is np.ndarray
        np.testing.assert_allclose(gates[name], expected, 1e-12, 1e-14, err_msg=name)


@EACH
def test_kernels_are_counted_and_only_what_is_needed_runs(cell):
    p = problem(cell, (2, 3, 2, 3), **FULL)
    whole = on_gpu(answer, p)
    with devices.device(GPU):
        kernel_calls.clear()
        out, states, pullback = run(p, save=True)
        d_x, d_weights, d_initial = pullback(p.d_out, p.d_states, need_x=False)
        assert d_x is None and kernel_calls == {(p.cell.name, kernel): 1 for kernel in PASSES}
        found = named(out, states, None, d_weights, d_initial)
        assert_same_bits(found, {name: value for name, value in whole.items() if name != "d_x"})
        kernel_calls.clear()
        d_x, d_weights, _ = run(p, save=True)[2](p.d_out, p.d_states, need_weights=False)
        assert d_weights is None and kernel_calls == {(p.cell.name, kernel): 1 for kernel in PASSES[:2]}
        np.testing.assert_array_equal(d_x, whole["d_x"])
        with pytest.raises(RuntimeError, match="a pullback can be called once"):
            pullback(p.d_out)


@EACH
def test_absent_gradients_stand_for_zeros(cell):
    p = problem(cell, (2, 3, 2, 3))
    nothing = on_gpu(answer, replace(p, d_out=0 * p.d_out, d_h=0 * p.d_h))
    with devices.device(GPU):
        out, states, pullback = run(p, save=True)
        assert_same_bits(named(out, states, *pullback(None, [None, *p.d_states[1:]])), nothing)


@EACH
@pytest.mark.parametrize("return_sequences", [True, False])
def test_an_empty_batch_gives_empty_results(return_sequences, cell):
    p = problem(cell, (0, 3, 4, 5), return_sequences=return_sequences, x_copies=1, mask="scattered", reset=True)
    kernel_calls.clear()
    found = on_gpu(answer, p)
    assert found["out"].shape == p.d_out.shape and found["h"].shape == (0, 5) and found["d_x"].shape == p.x.shape
    assert not any(found[name].any() for name in WEIGHTS) and not kernel_calls


@EACH
def test_inputs_without_features(cell):
    p = problem(cell, (2, 3, 0, 4), x_copies="gates")
    assert_agrees(on_gpu(answer, p), answer(p), "float64")


def test_passes_together_and_one_that_does_not_fit_starts_none():
    problems = [problem(cell, (2, 3, 2, 3), mask="right", backwards=n % 2 == 0) for n, cell in enumerate(CELLS)]
    alone = [on_gpu(answer, p) for p in problems]
    calls = [((), arguments(p, save=True)) for p in problems]
    with devices.device(GPU):
        kernel_calls.clear()
        with pytest.raises(TypeError, match="x must be .* got list"):
            recurrence.run_together([*calls, ((), arguments(problems[0], x=[]))])
        assert not kernel_calls
        results = recurrence.run_together(calls)
        pulled = recurrence.pull_together(
            [(pullback, (p.d_out, p.d_states), {}) for p, (*_, pullback) in zip(problems, results, strict=True)]
        )
    for (out, states, _), gradients, expected in zip(results, pulled, alone, strict=True):
        assert_same_bits(named(out, states, *gradients), expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": np.zeros((2, 3, 4), int)}, TypeError, "x must be a float32 or float64"),
        ({"x": np.zeros((2, 3))}, ValueError, "x must have shape"),
        ({"x": np.zeros((2, 0, 4))}, ValueError, "at least one timestep"),
        ({"x": np.zeros((2, 3, 5))}, ValueError, "kernel must have shape"),
        ({"x": np.zeros((2, 3, 4), "float32")}, TypeError, "kernel must be float32"),
        ({"initial_states": [np.zeros((2, 5))]}, ValueError, "initial_states must hold 2"),
        ({"initial_states": [np.zeros((2, 5)), np.zeros((2, 4))]}, ValueError, r"initial_states\[1\] must have shape"),
        ({"flags": np.ones((2, 3), np.uint8)}, ValueError, "flags must have shape"),
        ({"flags": np.ones((3, 2), bool)}, TypeError, "flags must be uint8"),
        ({"h_factors": np.ones((3, 2, 5))}, ValueError, "h_factors must have shape"),
        ({"x_factors": np.ones((1, 2, 4), "float32")}, TypeError, "x_factors must be float64"),
        ({"activation": "sin"}, ValueError, "activation must be one of"),
        ({"checkpoint": 0}, ValueError, "checkpoint must be at least 1"),
    ],
)
def test_arguments_are_refused_before_anything_is_computed(changes, error, message):
    p = problem("LSTM", (2, 3, 4, 5))
    kernel_calls.clear()
    with devices.device(GPU), pytest.raises(error, match=message):
        run(p, save=True, **changes)
    assert not kernel_calls


def test_gradients_are_refused_before_anything_is_computed():
    p = problem("LSTM", (2, 3, 4, 5))
    with devices.device(GPU):
        _, _, pullback = run(p, save=True)
        kernel_calls.clear()
        with pytest.raises(ValueError, match="d_out must have shape"):
            pullback(p.d_out[:, 1:])
        with pytest.raises(TypeError, match=r"d_states\[1\] must be float64"):
            pullback(p.d_out, [p.d_h, p.d_c.astype("float32")])
        assert not kernel_calls
        assert_agrees(named(*run(p, save=False)[:2], *pullback(p.d_out, p.d_states)), answer(p), "float64")


def test_weights_that_do_not_fit_each_other_are_refused():
    p = problem("GRU", (2, 3, 4, 5))
    for changes, message in (
        ({"recurrent": p.recurrent[:, 1:]}, "recurrent_kernel must have shape"),
        ({"bias": p.bias[0]}, "bias must have shape"),
    ):
        with devices.device(GPU), pytest.raises(ValueError, match=message):
            run(replace(p, **changes), save=False)


def test_weights_stay_on_the_gpu_until_they_change():
    p = problem("LSTM", (2, 3, 4, 5))
    weights = p.weights
    on_gpu(run, p, save=False, weights=weights)
    first = on_gpu(weights.on_gpu)
    on_gpu(run, p, save=False, weights=weights)
    assert on_gpu(weights.on_gpu) is first


# -------------------------------------------------------------------------------------------------- arrays on the GPU


def moved(p):
    """Return a problem with all its arrays on the GPU."""
    return p.changed(lambda name, array: cuda.to_device(array))


@EACH
@LAWS
@pytest.mark.parametrize("checkpoint", [None, 2])
def test_from_arrays_on_the_gpu_to_arrays_on_the_gpu(checkpoint, options, cell):
    """Whatever is the current device, and nothing is moved between."""
    p = problem(cell, (3, 4, 2, 5), **options)
    given = replace(moved(p), reset=None, mask=None)  # fields of arrays that are NumPy's
    flags = flags_of(p)
    flags = None if flags is None else cuda.to_device(flags)
    before = len(fake_cupy.moves)
    out, states, pullback = run(given, save=True, flags=flags, checkpoint=checkpoint)
    found = named(out, states, *pullback(given.d_out, given.d_states))
    assert len(fake_cupy.moves) == before
    assert all(cuda.is_device_array(value) for value in found.values())
    assert_agrees({name: cuda.to_host(value) for name, value in found.items()}, answer(p), "float64")


def test_a_pass_runs_in_the_one_order_from_the_first_move_to_the_last(monkeypatch):
    inside, launched = [], []

    @contextlib.contextmanager
    def in_order():
        inside.append(None)
        yield
        inside.pop()

    def launch(problem, *args, band=bands_cuda.BANDS[-1]):
        assert inside
        launched.append(problem.back)
        band.launch(problem, *args)

    def to_host(array, right=cuda.to_host):
        assert inside
        return right(array)

    monkeypatch.setattr(cuda, "in_order", in_order)
    monkeypatch.setattr(cuda, "to_host", to_host)
    monkeypatch.setattr(bands_cuda, "BANDS", [bands_cuda.BANDS[-1]._replace(launch=launch)])
    p = problem("LSTM", (2, 3, 4, 5))
    on_gpu(answer, p)
    assert launched == [False, True] and not inside


@pytest.mark.parametrize("mask", ["none", "right", "left", "scattered", "empty_row"])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("zero_output", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_flags_of_masks_on_the_gpu(backwards, zero_output, reset, mask):
    p = problem("LSTM", (4, 6, 1, 1), mask=mask, reset=reset)
    given = [None if array is None else cuda.to_device(array) for array in (p.mask, p.reset)]
    if given == [None, None]:
        return
    options = {"zero_output": zero_output, "backwards": backwards}
    found = recurrence.step_flags(4, 6, *given, **options)
    assert cuda.is_device_array(found) and found.dtype == np.uint8
    np.testing.assert_array_equal(cuda.to_host(found), recurrence.step_flags(4, 6, p.mask, p.reset, **options))


def test_masks_on_the_gpu_that_do_not_fit_are_refused():
    mask = cuda.to_device(np.ones((4, 6), bool))
    with pytest.raises(ValueError, match="mask must have shape"):
        recurrence.step_flags(4, 7, mask)
    with pytest.raises(TypeError, match="reset must be bool"):
        recurrence.step_flags(4, 6, mask, mask.astype(np.uint8))


def test_an_array_on_the_gpu_is_not_computed_with_on_the_cpu_unasked():
    p = problem("LSTM", (2, 3, 4, 5))
    with devices.device("cpu"), pytest.raises(TypeError, match="kernel must be a float32 or float64 NumPy array"):
        run(replace(moved(p), x=p.x, h=None), save=False)


# --------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("reset_after", [True, False])
def test_a_layer_on_the_gpu_takes_and_gives_numpy_arrays(reset_after):
    rng = np.random.default_rng(0)
    x, mask = rng.normal(size=(3, 4, 2)).astype("float32"), rng.random((3, 4)) < 0.7
    layer = layers.Bidirectional(layers.GRU(3, return_sequences=True, reset_after=reset_after))
    layer(x)
    for _ in range(2):  # the second time with other weights
        kernel_calls.clear()
        found = on_gpu(layer, x, mask=mask)
        assert sum(kernel_calls.values()) == 2
        assert type(found) is np.ndarray
        assert_close(found, layer(x, mask=mask), TOLERANCE["float32"])
        layer.set_weights([w + 0.1 for w in layer.get_weights()])


def test_the_device_is_asked_for_at_every_call():
    """No result of one device is mixed up with one of the other, and flags serve both."""
    p = problem("LSTM", (2, 3, 4, 5), mask="right")
    flags, weights = flags_of(p), p.weights
    here = run(p, save=False, flags=flags, weights=weights)[0]
    there = on_gpu(run, p, save=False, flags=flags, weights=weights)[0]
    again = run(p, save=False, flags=flags, weights=weights)[0]
    np.testing.assert_array_equal(here, again)
    assert_close(there, here, 1e-12)
