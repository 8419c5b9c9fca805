"""The cells' kernels, below the layers: against the naive loops, and the laws that hold bit for bit."""

import inspect
import time
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import combinations, product

import autograd
import autograd.numpy as anp
import numba
import numpy as np
import pytest
from parity import BOUNDED, MASKS, make_mask
from reference import fma, one_chain

from numbarnn import cells, gemm, jit, recurrence
from numbarnn import teams as teams_
from numbarnn.cells.contract import OPERAND, PRODUCT
from numbarnn.cells.products import _FEW_LINKS, _FEW_ROWS, DEPTH_BLOCK, ROWS_BLOCK, weight_gradients
from numbarnn.cells.rows import ROW_BLOCK, mark_steps, measure_rows, steps_ahead
from numbarnn.meeting import ALONE, assembly
from numbarnn.recurrence import kernel_calls
from numbarnn.simd_math import ACTIVATIONS
from numbarnn.testing import TOLERANCE, assert_close, check_gradients, reference

CELLS = {
    name: getattr(cells, name) for name in ("SIMPLE_RNN", "LSTM", "GRU", "GRU_RESET_BEFORE") if hasattr(cells, name)
}
NAIVE = {
    "SIMPLE_RNN": reference.simple_rnn,
    "LSTM": reference.lstm,
    "GRU": partial(reference.gru, reset_after=True),
    "GRU_RESET_BEFORE": partial(reference.gru, reset_after=False),
}
EACH = pytest.mark.parametrize("cell", CELLS)
SHARED_KERNELS = weight_gradients, mark_steps, measure_rows, gemm._pack_cell, gemm._pack_cell_transposed
PASSES = ("forward", "backward", "weight_gradients")
WEIGHTS = ("d_kernel", "d_recurrent", "d_bias")


@dataclass(frozen=True)
class Problem:
    """All arrays and options of one pass forward and back; arrays may be given any values that their places allow."""

    name: str  # of the cell
    x: np.ndarray
    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray | None
    h: np.ndarray | None
    c: np.ndarray | None
    mask: np.ndarray | None
    reset: np.ndarray | None
    x_factors: np.ndarray | None
    h_factors: np.ndarray | None
    d_out: np.ndarray
    d_h: np.ndarray
    d_c: np.ndarray | None
    zero_output: bool = False
    backwards: bool = False
    return_sequences: bool = True
    activation: str | None = None  # the cell's own
    recurrent_activation: str | None = None

    @property
    def cell(self):
        """The cell's record."""
        return CELLS[self.name]

    @property
    def states(self):
        """First states; None for zeros."""
        return None if self.h is None else [self.h, self.c][: self.cell.states]

    @property
    def d_states(self):
        """Gradients of the last states."""
        return [self.d_h, self.d_c][: self.cell.states]

    @property
    def weights(self):
        """The weights, packed when they are needed."""
        return recurrence.PackedWeights(self.cell, self.kernel, self.recurrent, self.bias)

    def arrays(self):
        """Return the arrays by name, absent ones left out."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if isinstance(value, np.ndarray)}

    def changed(self, change):
        """Return this problem with `change(name, array)` for each array."""
        return replace(self, **{name: change(name, array) for name, array in self.arrays().items()})


def problem(
    cell,
    size=(5, 7, 6, 11),
    dtype="float64",
    mask="none",
    reset=False,
    x_copies=0,
    h_copies=0,
    use_bias=True,
    initial_states=True,
    seed=0,
    **options,
):
    """Draw a problem of size (B, T, I, H) for the cell of that name; copies of factors: 0, 1 or "gates" for G."""
    rng = np.random.default_rng(seed)
    b, t, i, h = size
    gates, states = CELLS[cell].gates, CELLS[cell].states
    if CELLS[cell].default_recurrent_activation is None:
        options.pop("recurrent_activation", None)
    names = {options.get("activation", "tanh"), options.get("recurrent_activation", "sigmoid")}
    # Activations without a bound feed on themselves.
    t = min(t, 2) if options.get("activation") == "exponential" else t
    scale = 1.0 if names <= BOUNDED else 0.1 if "exponential" in names else 0.3
    # Few large products (hence the 4 below) saturate activations: 1 - h * h has no digits left to compare.

    def normal(*shape, factor=1.0):
        return (factor * rng.standard_normal(shape)).astype(dtype)

    def factors(copies, width):
        copies = gates if copies == "gates" else copies
        kept = rng.random((copies, b, width)) < 0.7
        return (kept / 0.7).astype(dtype) if copies else None

    return Problem(
        name=cell,
        x=normal(b, t, i),
        kernel=normal(i, gates * h, factor=scale / np.sqrt(max(i, 4))),
        recurrent=normal(h, gates * h, factor=scale / np.sqrt(max(h, 4))),
        bias=normal(*CELLS[cell].bias_shape(h), factor=0.5 * scale) if use_bias else None,
        h=normal(b, h, factor=0.5) if initial_states else None,
        c=normal(b, h) if initial_states and states > 1 else None,
        mask=make_mask(mask, b, t, rng),
        reset=rng.random((b, t)) < 0.25 if reset else None,
        x_factors=factors(x_copies, i),
        h_factors=factors(h_copies, h),
        d_out=normal(*((b, t, h) if options.get("return_sequences", True) else (b, h))),
        d_h=normal(b, h),
        d_c=normal(b, h) if states > 1 else None,
        **options,
    )


def flags_of(p):
    """Return the problem's flags; None where every step counts."""
    if p.mask is None and p.reset is None:
        return None
    return recurrence.step_flags(*p.x.shape[:2], p.mask, p.reset, p.zero_output, p.backwards)


def arguments(p, **changes):
    """Return the arguments of `recurrence.run` by name; `changes` replace some."""
    return {
        "cell": p.cell,
        "x": p.x,
        "weights": p.weights,
        "initial_states": p.states,
        "flags": flags_of(p),
        "x_factors": p.x_factors,
        "h_factors": p.h_factors,
        "backwards": p.backwards,
        "return_sequences": p.return_sequences,
        "activation": p.activation,
        "recurrent_activation": p.recurrent_activation,
        **changes,
    }


def run(p, save, **changes):
    """Run the problem forward; `changes` replace arguments."""
    return recurrence.run(**arguments(p, save=save, **changes))


def named(out, states, d_x=None, d_weights=(), d_initial=()):
    """Name results, absent ones left out."""
    results = {"out": out, **dict(zip("hc", states, strict=False))}
    results |= {"d_x": d_x, **dict(zip(WEIGHTS, d_weights, strict=False))}
    results |= dict(zip(("d_h", "d_c"), d_initial, strict=False))
    return {name: value for name, value in results.items() if value is not None}


def answer(p):
    """Return outputs, last states and all gradients by name."""
    out, states, pullback = run(p, save=True)
    return named(out, states, *pullback(p.d_out, p.d_states))


def expected(p):
    """Return what `answer` should: the naive loop in float64, and autograd."""
    p = p.changed(lambda name, array: array.astype("float64") if array.dtype != bool else array)
    names = ("activation", "recurrent_activation")
    activations = {name: getattr(p, name) for name in names if getattr(p, name) is not None}

    def results(x, weights, states):
        sequence, last = NAIVE[p.name](
            anp,
            x,
            weights,
            states,
            mask=p.mask,
            reset=p.reset,
            x_factors=p.x_factors,
            h_factors=p.h_factors,
            go_backwards=p.backwards,
            zero_output_for_mask=p.zero_output,
            **activations,
        )
        return [sequence if p.return_sequences else sequence[:, -1], *last]

    def loss(*given):
        return sum((d * value).sum() for d, value in zip([p.d_out, *p.d_states], results(*given), strict=True))

    bias = np.zeros(p.cell.bias_shape(len(p.recurrent))) if p.bias is None else p.bias
    states = [np.zeros_like(d) for d in p.d_states] if p.states is None else p.states
    given = (p.x, [p.kernel, p.recurrent, bias], states)
    out, *states = results(*given)
    return named(out, states, *autograd.grad(loss, (0, 1, 2))(*given))


def assert_same_bits(actual, expected, names=None):
    """Assert that two answers agree exactly in the parts of that name, by default all."""
    for name in names or expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def rows(p, index):
    """Return the problem of some rows of the batch."""
    shared = ("kernel", "recurrent", "bias")
    return p.changed(
        lambda name, array: array if name in shared else array[:, index] if name.endswith("factors") else array[index]
    )


def steps(p, first, last):
    """Return the problem of the steps `first` to `last`, counted in the order in which they are run."""
    t = p.x.shape[1]
    when = slice(t - last, t - first) if p.backwards else slice(first, last)
    own = {name: array[:, when] for name, array in p.arrays().items() if name in ("x", "mask", "reset")}
    return replace(p, **own, d_out=p.d_out[:, first:last])


# -------------------------------------------------------------------------------------------- against the naive loop

# One alone; one step; one unit; primes; whole vectors; more than one vector, panel, block of rows, block of links.
SIZES = [
    (1, 1, 1, 1), (1, 9, 3, 7), (4, 1, 5, 16), (3, 6, 7, 1), (2, 5, 16, 33), (7, 5, 11, 13), (3, 4, 70, 70),
    (ROW_BLOCK + 5, 3, 2, 3), (DEPTH_BLOCK // 4, 4, 3, 2), (DEPTH_BLOCK // 7 + 5, 7, 5, 4),
]  # fmt: skip
WIDE = [(2, 3, ROWS_BLOCK + 10, 9), (2, 3, 9, ROWS_BLOCK + 10)]
OPTIONS = {
    "size": SIZES,
    "dtype": ["float32", "float64"],
    "mask": MASKS,
    "reset": [False, True],
    "zero_output": [False, True],
    "backwards": [False, True],
    "return_sequences": [True, False],
    "x_copies": [0, 1, "gates"],
    "h_copies": [0, 1, "gates"],
    "use_bias": [True, False],
    "initial_states": [True, False],
    "activation": list(ACTIVATIONS),
    "recurrent_activation": list(ACTIVATIONS),
}


def covering(options):
    """Draw cases, dicts of a value for each option, until every pair of values of two options has occurred."""
    rng = np.random.default_rng(0)

    def pairs(case):
        return set(combinations(sorted(case.items(), key=lambda item: item[0]), 2))

    missing = set()
    for one, other in combinations(sorted(options), 2):
        missing |= {((one, a), (other, b)) for a, b in product(options[one], options[other])}
    while missing:
        wanted = dict(min(missing, key=repr))
        drawn = [
            {name: values[rng.integers(len(values))] for name, values in options.items()} | wanted for _ in range(20)
        ]
        best = max(drawn, key=lambda case: len(pairs(case) & missing))
        missing -= pairs(best)
        yield best


CASES = [
    *covering(OPTIONS),
    # The default pair has kernels of its own: every mask and size once more.
    *(
        {"size": size, "dtype": dtype, "mask": mask, "reset": index % 3 == 0, "zero_output": index % 2 == 0}
        for index, (size, dtype, mask) in enumerate(product(SIZES, OPTIONS["dtype"], MASKS))
    ),
    *(
        {"size": size, "dtype": dtype, "mask": "scattered", "reset": True, "x_copies": copies, "h_copies": copies}
        for size, dtype, copies in product(WIDE, OPTIONS["dtype"], (0, "gates"))
    ),
]


@EACH
@pytest.mark.parametrize("index", range(len(CASES)))
def test_values_and_gradients(index, cell):
    p = problem(cell, **CASES[index], seed=index)
    before = {name: array.copy() for name, array in p.arrays().items()}
    for array in p.arrays().values():
        array.flags.writeable = False
    found = answer(p)
    for name, value in expected(p).items():
        if name != "d_bias" or p.bias is not None:
            assert found[name].dtype == p.x.dtype
            # Among few sums all may be small by cancellation, and none sets the scale.
            tolerance = TOLERANCE[p.x.dtype.name] * (4 if value.size < 16 else 1)
            assert_close(found[name], value, tolerance, f"{name} of {CASES[index]}")
    out, states, pullback = run(p, save=False)
    unsaved = named(out, states)
    assert_same_bits(unsaved, found, unsaved)
    assert pullback is None
    for name, array in p.arrays().items():
        np.testing.assert_array_equal(array, before[name], err_msg=f"{name} was written to")


@EACH
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": "scattered", "reset": True, "x_copies": "gates", "h_copies": 1},
        {"mask": "left", "backwards": True, "return_sequences": False, "x_copies": 1, "h_copies": "gates"},
        {"mask": "empty_row", "zero_output": True, "activation": "gelu", "recurrent_activation": "softsign"},
        {"activation": "silu", "recurrent_activation": "silu", "use_bias": False, "reset": True},
    ],
)
def test_gradients_are_slopes(options, cell):
    """Central differences of the kernels' own values: the second witness, blind to what the naive loop believes."""
    p = problem(cell, (3, 5, 4, 6), **options)
    names = ("x", "kernel", "recurrent", "bias", "h", "c")
    given = [name for name in names if getattr(p, name) is not None]

    def loss(*arrays):
        out, states, _ = run(replace(p, **dict(zip(given, arrays, strict=True))), save=False)
        return sum(np.vdot(d, value) for d, value in zip([p.d_out, *p.d_states], [out, *states], strict=True))

    found = answer(p)
    check_gradients(loss, [getattr(p, name) for name in given], [found[f"d_{name}"] for name in given])


# -------------------------------------------------------------------------------------------------------------- laws

FULL = {"mask": "scattered", "reset": True, "x_copies": "gates", "h_copies": "gates"}
PLAIN = {}
OTHER = {
    "mask": "right",
    "activation": "gelu",
    "recurrent_activation": "hard_sigmoid",
    "backwards": True,
    "h_copies": 1,
}
LAWS = pytest.mark.parametrize("options", [PLAIN, FULL, OTHER], ids=["plain", "full", "other"])
BOTH = pytest.mark.parametrize("dtype", ["float32", "float64"])


@EACH
@BOTH
@LAWS
def test_threads_make_no_difference(options, dtype, cell):
    p = problem(cell, (40, 48, 64, 64), dtype, **options)
    answers = {}
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        kernel_calls.clear()
        answers[threads] = answer(p)
        assert kernel_calls == {(p.cell.name, kernel): threads for kernel in PASSES}
        assert_same_bits(answers[threads], answers[1])


TEAMS = ["LSTM", "GRU", "SIMPLE_RNN"]  # of a cell with two phases the first member does all


@pytest.fixture
def teams(monkeypatch):
    """Let teams form for the smallest problems."""
    for name, value in (
        ("_UNITS", 1),
        ("_ROWS_AND_BYTES", {"forward": ((6, 0),), "backward": ((6, 0),)}),
        ("_STEP", 0),
    ):
        monkeypatch.setattr(teams_, name, value)
    monkeypatch.setattr(teams_._Trust, "ask", lambda trust: True)
    before = jit.get_num_threads()
    yield
    jit.set_num_threads(before)


@pytest.mark.parametrize("cell", TEAMS)
@BOTH
@LAWS
def test_threads_that_share_the_units(teams, options, dtype, cell):
    p = problem(cell, (3, 5, 6, 83), dtype, **options)
    answers = []
    for members in (1, 2, 3):
        jit.set_num_threads(members)
        kernel_calls.clear()
        answers.append(answer(p))
        loops = {(p.cell.name, "forward"): members, (p.cell.name, "backward"): members}
        assert {name: calls for name, calls in kernel_calls.items() if name in loops} == loops
    for found in answers[1:]:
        assert_same_bits(found, answers[0])


@pytest.mark.parametrize("cell", TEAMS)
def test_a_member_that_does_not_come_is_not_waited_for(cell):
    """Nor does one that comes too late write anything: others may have gone on to use the arrays."""
    p = problem(cell, (2, 3, 4, 70), "float32")
    alone, late = ([p.cell.workspace(2, 3, 4, 70, "float32", training=True), assembly(n)] for n in (1, 2))
    for work, meeting in (alone, late):
        p.cell.forward(0, 2, p.x, *p.weights.forward(), *work, 0, 3, False, None, None, None, 0, meeting)
    assert_same_bits(alone[0]._asdict(), late[0]._asdict(), ("states", "out"))
    work, meeting = late
    work.states[:, 1:] = 0
    p.cell.forward(0, 2, p.x, *p.weights.forward(), *work, 0, 3, False, None, None, None, 1, meeting)
    assert not work.states.any()


@pytest.mark.parametrize("cell", TEAMS)
def test_a_first_member_that_does_not_come_is_not_waited_for(cell):
    """Its thread may be busy with another job: who has come goes on alone, and soon."""
    p = problem(cell, (2, 3, 4, 70), "float32")
    alone, early = (p.cell.workspace(2, 3, 4, 70, "float32", training=True) for _ in range(2))

    def forward(work, member, meeting):
        begin = time.process_time()
        p.cell.forward(0, 2, p.x, *p.weights.forward(), *work, 0, 3, False, None, None, None, member, meeting)
        return time.process_time() - begin

    forward(alone, 0, assembly(1))
    meeting = assembly(3)
    assert forward(early, 1, meeting) < 0.2
    assert_same_bits(alone._asdict(), early._asdict(), ("states", "out"))
    early.states[:, 1:] = 0
    for late in (0, 2):
        forward(early, late, meeting)
        assert not early.states[:, 1:].any()


def test_threads_that_wait_for_each_other_share_no_units_for_a_while():
    trust = teams_._Trust()
    asked = []
    for disappointed in (False, True, True, True, False):
        asked.append(trust.ask())
        while not asked[-1]:
            asked.append(trust.ask())
        trust.note(disappointed)
    assert asked == [True, True, *[False] * 1, True, *[False] * 2, True, *[False] * 4, True]
    assert trust.ask(), "all is forgiven"


@pytest.mark.parametrize("cell, units", [("LSTM", 130), ("GRU", 170), ("GRU_RESET_BEFORE", 170), ("SIMPLE_RNN", 500)])
def test_more_inputs_of_gates_than_are_computed_ahead(cell, units):
    """Many rows of many units go step by step, a few steps of single rows at once."""
    p = problem(cell, (ROW_BLOCK + 11, 2, 3, units), "float64", x_copies="gates", mask="scattered")
    whole = answer(p)
    for b in (0, ROW_BLOCK + 5):
        assert_same_bits(answer(rows(p, slice(b, b + 1))), own(whole, slice(b, b + 1)))


@EACH
def test_copies_of_wide_inputs_are_of_a_few_steps(cell):
    p = problem(cell, (5, 40, 700, 3), "float64", x_copies="gates", mask="right")
    whole = kernels(p, [(0, 40)], [(0, 5)])
    assert_same_bits(kernels(p, [(s, s + 1) for s in range(40)], [(0, 5)]), whole, ("out", "h", "d_x", *WEIGHTS))
    room = 1 << 20
    for copied in (0, 1, 700, 32 * 10_000 * 4):
        for itemsize, x in ((4, np.float32(0)), (8, np.float64(0))):
            steps = steps_ahead(1 << 16, 64, copied, 1000, x, None)
            assert steps == 1 or steps * copied * itemsize <= room
            assert steps == 1000 or (steps + 1) * copied * itemsize > room


def own(found, index=slice(None)):
    """What an answer says of rows of the batch, without the weights' gradients that they share."""
    return {name: value[index] for name, value in found.items() if name not in WEIGHTS}


@EACH
@BOTH
@LAWS
@pytest.mark.parametrize("batch", [1, 2, 5, 6, 7, ROW_BLOCK + 7])
def test_a_row_alone_and_rows_in_another_order(batch, options, dtype, cell):
    p = problem(cell, (batch, 4, 9, 19), dtype, **options)
    whole = answer(p)
    order = np.random.default_rng(1).permutation(batch)
    for index in [order, *(slice(b, b + 1) for b in {0, batch // 2, batch - 1})]:
        assert_same_bits(answer(rows(p, index)), own(whole, index))


@EACH
@BOTH
@LAWS
def test_a_sequence_in_two_parts(options, dtype, cell):
    """The second part starts from the first one's states; its gradients of them go into the first one's pullback."""
    p = problem(cell, dtype=dtype, zero_output=True, **options)
    whole = answer(p)
    for cut in (1, 3, 6):
        first, second = steps(p, 0, cut), steps(p, cut, 7)
        out_1, states, pullback_1 = run(first, save=True)
        out_2, last, pullback_2 = run(second, save=True, initial_states=states)
        d_x_2, d_weights_2, d_states = pullback_2(second.d_out, p.d_states)
        d_x_1, d_weights_1, d_initial = pullback_1(first.d_out, d_states)
        d_x = (d_x_2, d_x_1) if p.backwards else (d_x_1, d_x_2)
        sums = [a + b for a, b in zip(d_weights_1, d_weights_2, strict=True)]
        parts = named(np.hstack([out_1, out_2]), last, np.hstack(d_x), sums, d_initial)
        assert_same_bits(parts, own(whole))
        for name in WEIGHTS:
            assert_close(parts[name], whole[name], TOLERANCE[dtype], name)


def kernels(p, segments, blocks, order=None):
    """Return what `answer` does by calling the kernels as `numbarnn.cells.contract` says: by steps and by rows."""
    cell = p.cell
    (batch, timesteps, inputs), units = p.x.shape, p.recurrent.shape[0]
    codes = recurrence.activation_codes(cell, p.activation, p.recurrent_activation)
    place = np.arange(batch) if order is None else order  # of the kernel's rows in the data
    given = {"flags": flags_of(p), "x_factors": p.x_factors, "h_factors": p.h_factors}
    given = {name: array.take(place, axis=1) for name, array in given.items() if array is not None}
    if order is not None:
        given["order"] = order

    def in_data(states):
        result = np.empty_like(states)
        result[:, place] = states
        return result

    for training in (False, True):
        work = cell.workspace(batch, timesteps, inputs, units, p.x.dtype, training)._replace(**given)
        work.states[:, 0] = 0 if p.states is None else np.array(p.states)[:, place]
        for segment, block in product(segments, blocks):
            cell.forward(*block, p.x, *p.weights.forward(), *work, *segment, p.backwards, *codes, None, 0, ALONE)
        last = in_data(work.states[:, timesteps if training else timesteps % 2])
        if not training:
            unsaved = named(work.out, last)
    states, out, *shared, tape = work
    kept, d_x, d_states = tape.copy(), np.zeros_like(p.x), np.array(p.d_states).take(place, axis=1)
    d_weights = [
        np.zeros_like(p.kernel),
        np.zeros_like(p.recurrent),
        np.zeros_like(p.kernel, shape=cell.bias_shape(units)),
    ]
    for segment in reversed(segments):
        for block in blocks:
            cell.backward(
                *block, p.d_out, d_states, *p.weights.backward(), states, *shared, tape, d_x,
                *segment, p.backwards, *codes, 0, ALONE,
            )  # fmt: skip
        weight_gradients(
            0, inputs + units, True, cell.apart, p.x, states, *shared, tape, *segment, p.backwards,
            *d_weights[:2], d_weights[2].reshape(-1, cell.gates * units),
        )  # fmt: skip
    result = named(out, last, d_x, d_weights, in_data(d_states))
    assert_same_bits(unsaved, result, unsaved)
    return {**result, "kept": kept, "tape": tape, "before": states[0, :-1]}


@EACH
@BOTH
@LAWS
def test_segments_of_steps_and_blocks_of_rows(options, dtype, cell):
    """As for checkpoints and truncation: also the weights' gradients are the bits of one pass."""
    p = problem(cell, (9, 10, 5, 18), dtype, **options)
    whole = answer(p)
    for segments in ([(0, 10)], [(0, 1), (1, 4), (4, 10)], [(s, s + 1) for s in range(10)]):
        assert_same_bits(kernels(p, segments, [(0, 9)]), whole, whole)
    assert_same_bits(kernels(p, [(0, 3), (3, 10)], [(7, 9), (0, 1), (1, 7)]), whole, whole)


@EACH
@BOTH
def test_every_gate_is_one_chain_in_the_order_of_the_law(dtype, cell):
    """Bias, then x, then h in rising order: what the tape keeps where no activation changes it."""
    p = problem(cell, (3, 1, 4, 5), dtype, activation="linear", recurrent_activation="linear")
    x, h, last = p.x[:, 0], p.h, slice(-5, None)
    joint = p.bias if p.bias.ndim == 1 else p.bias[0] + p.bias[1]
    z = one_chain(np.hstack([x, h]), np.vstack([p.kernel, p.recurrent]), joint)
    if p.cell.apart == PRODUCT:  # of the last gate: two chains, with a bias each
        m = one_chain(h, p.recurrent[:, last], p.bias[1, last])
        z[:, last] = fma(z[:, 5:10], m, one_chain(x, p.kernel[:, last], p.bias[0, last]))
        z = np.hstack([z, m])
    if p.cell.apart == OPERAND:  # of the last gate: r * h in the place of h
        left = z[:, 5:10] * h
        z[:, last] = one_chain(np.hstack([x, left]), np.vstack([p.kernel, p.recurrent])[:, last], joint[last])
        z = np.hstack([z, left])
    np.testing.assert_array_equal(kernels(p, [(0, 1)], [(0, 3)])["kept"][0], z)


@EACH
@BOTH
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((3, 4, 2, 3), {"mask": "scattered", "x_copies": "gates"}),
        ((3, 4, 2, 3), {"h_copies": "gates"}),
        ((3, 4, 2, 3), {}),
        # Links that are read where they lie: all but those of x above, x of one row of data, of many, in two blocks.
        ((1, 5, 2, 3), {}),
        ((1, 5, 2, 3), {"backwards": True}),
        ((_FEW_LINKS, 3, 2, 2), {"backwards": True}),
        ((_FEW_LINKS + 1, DEPTH_BLOCK // _FEW_LINKS + 1, 1, 1), {}),
        ((2, 2, 3, _FEW_ROWS), {}),  # copied, for many rows
    ],
    ids=str,
)
def test_every_gradient_of_a_weight_is_one_chain_in_the_order_of_the_law(size, options, dtype, cell):
    """Over falling steps, and in each over falling rows, of those that count."""
    p = problem(cell, size, dtype, **options)
    batch, steps, _, units = size
    found = kernels(p, [(0, steps)], [(0, batch)])
    timestep = range(steps)[::-1] if p.backwards else range(steps)
    links = [
        (s, b)
        for s in reversed(range(steps))
        for b in reversed(range(batch))
        if p.mask is None or p.mask[b, timestep[s]]
    ]
    kept, dz, h = (np.array([found[name][link] for link in links]) for name in ("kept", "tape", "before"))
    for gate in range(p.cell.gates):
        own, extra = (slice(units * g, units * (g + 1)) for g in (gate, p.cell.gates))
        x = np.array([p.x[b, timestep[s]] for s, b in links])
        if p.x_factors is not None:
            x *= np.array([p.x_factors[gate, b] for _, b in links])
        left, right = h, dz[:, own]
        if gate == p.cell.gates - 1 and p.cell.apart == PRODUCT:
            right = dz[:, extra]
        if gate == p.cell.gates - 1 and p.cell.apart == OPERAND:
            left = kept[:, extra]
        elif p.h_factors is not None:
            left = h * np.array([p.h_factors[gate, b] for _, b in links])
        np.testing.assert_array_equal(found["d_kernel"][:, own], one_chain(x.T, dz[:, own]))
        np.testing.assert_array_equal(found["d_recurrent"][:, own], one_chain(left.T, right))
        for d_bias, d in zip(np.atleast_2d(found["d_bias"]), (dz[:, own], right), strict=False):
            np.testing.assert_array_equal(d_bias[own], one_chain(np.ones((1, len(d)), dtype), d)[0])


@EACH
@LAWS
def test_rows_in_any_order_in_the_kernel(options, cell):
    """`order` says where the kernel's rows lie in the data."""
    p = problem(cell, (9, 6, 5, 18), **options)
    whole = answer(p)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(9)
        assert_same_bits(kernels(p, [(0, 2), (2, 6)], [(0, 4), (4, 9)], order), whole, whole)


@EACH
@BOTH
@pytest.mark.parametrize("mask", MASKS[1:])
@pytest.mark.parametrize("options", [{}, {"x_copies": "gates", "h_copies": 1, "backwards": True}])
def test_masked_steps_could_as_well_be_taken_out(options, mask, dtype, cell):
    p = problem(cell, (6, 9, 4, 13), dtype, mask=mask, **options)
    for b in range(6):
        row = rows(p, slice(b, b + 1))
        counts = row.mask[0]
        emitted = counts[::-1] if p.backwards else counts
        row = replace(row, d_out=row.d_out * emitted[None, :, None])
        found = answer(row)
        assert not found["d_x"][:, ~counts].any()
        if not counts.any():
            nothing = [0 * found[name] for name in ("out", "d_x", *WEIGHTS)]
            assert_same_bits(found, named(nothing[0], row.states, nothing[1], nothing[2:], row.d_states))
            continue
        short = answer(replace(row, x=row.x[:, counts], mask=None, d_out=row.d_out[:, emitted]))
        found["out"], found["d_x"] = found["out"][:, emitted], found["d_x"][:, counts]
        assert_same_bits(found, short)


@EACH
@BOTH
@LAWS
def test_backwards_is_forwards_on_the_reversed_sequence(options, dtype, cell):
    p = problem(cell, dtype=dtype, **{**options, "backwards": True})
    turned = {name: array[:, ::-1] for name, array in p.arrays().items() if name in ("x", "mask", "reset")}
    mirrored = answer(replace(p, **turned, backwards=False))
    assert_same_bits(answer(p), {**mirrored, "d_x": mirrored["d_x"][:, ::-1]})


@EACH
@pytest.mark.parametrize("mask", MASKS[1:])
@LAWS
def test_nothing_leaks_out_of_masked_steps(options, mask, cell):
    """Neither of what goes in there, nor of the gradient of zeros that are emitted there."""
    p = problem(cell, **{**options, "mask": mask, "zero_output": True})
    emitted = p.mask[:, ::-1] if p.backwards else p.mask
    clean, poisoned = p.x.copy(), p.x.copy()
    clean[~p.mask], poisoned[~p.mask] = 0, np.nan
    d_clean, d_poisoned = p.d_out.copy(), p.d_out.copy()
    d_clean[~emitted], d_poisoned[~emitted] = 0, np.nan
    found = answer(replace(p, x=poisoned, d_out=d_poisoned))
    assert all(np.isfinite(value).all() for value in found.values())
    assert_same_bits(found, answer(replace(p, x=clean, d_out=d_clean)))


@EACH
def test_a_reset_cuts_values_and_gradients(cell):
    p = problem(cell, reset=True, mask="scattered")
    p.reset[:, 4] = True
    before, after = steps(replace(p, d_out=0 * p.d_out), 0, 4), steps(p, 4, 7)
    afresh = answer(replace(after, h=None, c=None))
    assert_same_bits(answer(p), {name: afresh[name] for name in ("h", "c") if name in afresh})
    found = answer(replace(p, d_out=np.concatenate([before.d_out, after.d_out], axis=1)))
    assert not any(found[name].any() for name in ("d_h", "d_c") if name in found) and not found["d_x"][:, :4].any()
    assert found["d_x"][:, 4:].any()
    poisoned = p.x.copy()
    poisoned[:, :4] = np.nan
    assert np.isfinite(answer(replace(p, x=poisoned))["h"]).all()


@EACH
def test_nan_stays_in_its_row(cell):
    p = problem(cell, (8, 6, 4, 17), "float32")
    poisoned = p.x.copy()
    poisoned[2, 3] = np.nan
    found, clean = answer(replace(p, x=poisoned)), answer(p)
    others = np.arange(8) != 2
    assert_same_bits(own(found, others), own(clean, others))
    np.testing.assert_array_equal(found["out"][2, :3], clean["out"][2, :3])
    assert np.isnan(found["out"][2, 3:]).all() and np.isnan(found["d_kernel"]).all()


# -------------------------------------------------------------------------------------------- rows of many lengths


def ragged(cell, side="right", dtype="float32", **options):
    """Draw a problem whose rows have all lengths, none and the whole included, in no order."""
    p = problem(cell, (41, 48, 64, 64), dtype, **options)
    rng = np.random.default_rng(2)
    lengths = rng.permutation(np.r_[0, 48, rng.integers(1, 48, 39)])[:, None]
    begin = {"right": 0, "left": 48 - lengths, "middle": (48 - lengths) // 2}[side]
    return replace(p, mask=(begin <= np.arange(48)) & (np.arange(48) < begin + lengths))


RAGGED = [
    {},
    {"backwards": True, "return_sequences": False},
    {"side": "left", "dtype": "float64", "return_sequences": False, "zero_output": True, **OTHER},
    {"side": "middle", **FULL},
]


@EACH
@pytest.mark.parametrize("options", RAGGED, ids=["right", "backwards", "left", "middle"])
def test_rows_are_sorted_by_length_and_dealt_to_threads_and_nobody_can_tell(options, cell, monkeypatch):
    options = {name: value for name, value in options.items() if name != "mask"}
    p = ragged(cell, **options)
    # The kernels on the data's order, with the last output's gradient where it belongs.
    d_out = p.d_out
    if not p.return_sequences:
        d_out = np.zeros_like(p.x)
        d_out[:, -1] = p.d_out
    whole = kernels(replace(p, d_out=d_out, return_sequences=True), [(0, 48)], [(0, 41)])
    whole["out"] = whole["out"] if p.return_sequences else whole["out"][:, -1]
    orders = []
    inner = recurrence._order
    monkeypatch.setattr(recurrence, "_order", lambda *given: orders.append(inner(*given)) or orders[-1])
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        kernel_calls.clear()
        found = answer(p)
        assert_same_bits(found, whole, found)
        assert kernel_calls[p.cell.name, "forward"] == threads
        shuffled = np.random.default_rng(threads).permutation(41)
        assert_same_bits(answer(rows(p, shuffled)), own({name: whole[name] for name in found}, shuffled))
    assert len(orders) == 8 and all(np.array_equal(np.sort(order), np.arange(41)) for order in orders)
    for b in range(41):
        assert_same_bits(answer(rows(p, slice(b, b + 1))), own({name: whole[name] for name in found}, slice(b, b + 1)))
    out, states, _ = run(p, save=False)
    unsaved = named(out, states)
    assert_same_bits(unsaved, whole, unsaved)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_every_thread_gets_its_share_of_long_rows_and_those_first(threads):
    p = ragged("LSTM")
    jit.set_num_threads(threads)
    order, lengths = recurrence._order(flags_of(p), 1), p.mask.sum(axis=1)
    shares = [lengths[order[start:stop]] for start, stop in jit.chunks(41, 1)]
    assert len(shares) == threads and all((np.diff(share) <= 0).all() for share in shares)
    assert max(map(sum, shares)) - min(map(sum, shares)) <= lengths.max()
    assert recurrence._order(flags_of(replace(p, mask=lengths[:, None] >= 0 * p.mask)), 1) is None, "nothing to save"


# ----------------------------------------------------------------------------------------------- several passes at once


def several():
    """Return problems of every cell, both directions, all sizes and options."""
    return [
        problem(cell, (5, 7, 6, 11), backwards=backwards, mask=mask, x_copies="gates")
        for cell, (backwards, mask) in product(CELLS, [(False, "right"), (True, "none")])
    ] + [problem("LSTM", (9, 40, 32, 48), "float32", return_sequences=False), problem("LSTM", (0, 2, 3, 4))]


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_passes_side_by_side_give_the_bits_of_one_after_the_other(threads):
    jit.set_num_threads(threads)
    problems = several()
    for chosen in (problems, problems[:2], problems[2:3], []):
        alone = [answer(p) for p in chosen]
        kernel_calls.clear()
        for save in (False, True):
            results = recurrence.run_together([((), arguments(p, save=save)) for p in chosen])
            for (out, states, pullback), expected in zip(results, alone, strict=True):
                unsaved = named(out, states)
                assert_same_bits(unsaved, expected, unsaved)
                assert (pullback is not None) == save
        pulled = recurrence.pull_together(
            [
                (pullback, (p.d_out,), {"d_states": p.d_states})
                for p, (_, _, pullback) in zip(chosen, results, strict=True)
            ]
        )
        for (out, states, _), gradients, expected in zip(results, pulled, alone, strict=True):
            assert_same_bits(named(out, states, *gradients), expected)
        counted = kernel_calls.copy()
        kernel_calls.clear()
        for p in chosen:
            answer(p)
            run(p, save=False)
        assert counted == kernel_calls


def test_one_pass_that_does_not_fit_starts_none():
    problems = several()[:3]
    kernel_calls.clear()
    calls = [((), arguments(p, save=True)) for p in problems]
    with pytest.raises(TypeError, match="x must be .* got list"):
        recurrence.run_together([*calls, ((), arguments(problems[0], x=[]))])
    assert not kernel_calls
    pullbacks = [pullback for _, _, pullback in recurrence.run_together(calls)]
    good = [(pullback, (p.d_out, p.d_states), {}) for p, pullback in zip(problems, pullbacks, strict=True)]
    kernel_calls.clear()
    with pytest.raises(ValueError, match="d_out must have shape"):
        recurrence.pull_together([*good[:2], (pullbacks[2], (problems[2].d_out[1:],), {})])
    with pytest.raises(RuntimeError, match="a pullback can be called once"):
        recurrence.pull_together([*good, good[0]])
    assert not kernel_calls
    for p, (out, states, _), gradients in zip(
        problems, recurrence.run_together(calls), recurrence.pull_together(good), strict=True
    ):
        assert_same_bits(named(out, states, *gradients), answer(p))


# ------------------------------------------------------------------------------------- one kernel for all options

EVERY_OPTION = [
    {},
    *({"mask": mask} for mask in MASKS[1:]),
    {"reset": True},
    {"zero_output": True, "mask": "scattered"},
    {"backwards": True},
    {"return_sequences": False},
    *({"x_copies": x, "h_copies": h} for x, h in [(1, 0), (0, 1), ("gates", 0), (0, "gates"), (1, "gates")]),
    {"use_bias": False},
    {"initial_states": False},
    *({"activation": name} for name in ("relu", "gelu")),
    {"recurrent_activation": "hard_sigmoid"},
]


@EACH
@pytest.mark.parametrize("options", EVERY_OPTION, ids=str)
def test_every_option_keeps_the_kernel(options, cell):
    kernel_calls.clear()
    answer(problem(cell, (5, 70, 3, 4), **options))
    assert kernel_calls == {(CELLS[cell].name, kernel): 1 for kernel in PASSES}


@EACH
def test_inputs_of_any_memory_order_and_read_only(cell):
    p = problem(cell, (5, 6, 7, 9), **FULL)
    whole = answer(p)

    def read_only(name, array):
        array = array.copy()
        array.flags.writeable = False
        return array

    def strided(name, array):
        return np.repeat(array, 2, axis=-1)[..., ::2]

    def turned(name, array):
        return array[::-1].copy()[::-1]

    def given(change):
        q = p.changed(change)
        out, states, pullback = run(q, save=True, flags=change("flags", flags_of(q)), backwards=int(q.backwards))
        return named(out, states, *pullback(q.d_out, np.array(q.d_states)))

    for change in (lambda name, array: np.asfortranarray(array), strided, turned, read_only):
        assert_same_bits(given(change), whole)
    for kernel in (p.cell.forward, p.cell.backward, *SHARED_KERNELS):
        arrays = [a for signature in kernel.signatures for a in signature if isinstance(a, numba.types.Array)]
        assert arrays and all(a.layout == "C" and a.mutable for a in arrays), f"{kernel} was compiled for no reason"
    for kernel in (p.cell.forward, p.cell.backward):
        place = list(inspect.signature(kernel.py_func).parameters).index("backwards")
        assert all(signature[place] == numba.types.boolean for signature in kernel.signatures), "of `backwards`"


@EACH
@BOTH
@pytest.mark.parametrize("return_sequences", [True, False])
def test_an_empty_batch_gives_empty_results(return_sequences, dtype, cell):
    p = problem(cell, (0, 3, 4, 5), dtype, return_sequences=return_sequences, x_copies=1, mask="scattered", reset=True)
    kernel_calls.clear()
    found = answer(p)
    assert found["out"].shape == p.d_out.shape and found["h"].shape == (0, 5) and found["d_x"].shape == p.x.shape
    assert_same_bits(found, {"d_kernel": 0 * p.kernel, "d_recurrent": 0 * p.recurrent, "d_bias": 0 * p.bias})
    assert not kernel_calls


@EACH
@pytest.mark.parametrize("size", [(0, 3, 4, 5), (2, 0, 4, 5), (0, 0, 4, 5)])
def test_kernels_take_no_rows_and_no_steps(size, cell):
    p = problem(cell, size, x_copies="gates", h_copies="gates")
    for order in (None, np.arange(size[0])):
        found = kernels(p, [(0, size[1])], [(0, size[0])], order)
        assert_same_bits(found, {"out": p.d_out, "h": p.h, "d_x": p.x, "d_h": p.d_h, "d_kernel": 0 * p.kernel})


@EACH
def test_absent_gradients_stand_for_zeros(cell):
    p = problem(cell, mask="scattered")
    nothing = answer(replace(p, d_out=0 * p.d_out, d_h=0 * p.d_h))
    for d_out, d_h in product((None, 0 * p.d_out), (None, 0 * p.d_h)):
        out, states, pullback = run(p, save=True)
        assert_same_bits(named(out, states, *pullback(d_out, [d_h, *p.d_states[1:]])), nothing)
    found = run(p, save=True)[2]()
    assert not any(array.any() for array in (found[0], *found[1], *found[2]))


@EACH
def test_only_what_is_needed(cell):
    p = problem(cell)
    whole = answer(p)
    out, states, pullback = run(p, save=True)
    found = named(out, states, *pullback(p.d_out, p.d_states, need_x=False))
    assert_same_bits(found, {name: value for name, value in whole.items() if name != "d_x"})
    assert "d_x" not in found
    kernel_calls.clear()
    d_x, d_weights, _ = run(p, save=True)[2](p.d_out, p.d_states, need_weights=False)
    assert d_weights is None and kernel_calls == {(p.cell.name, kernel): 1 for kernel in PASSES[:2]}
    np.testing.assert_array_equal(d_x, whole["d_x"])


@EACH
@LAWS
def test_memory_of_a_finished_pass_may_hold_anything(options, cell, monkeypatch):
    monkeypatch.setattr(recurrence, "_spares", recurrence._Spares(1 << 20, 4))
    p = problem(cell, (5, 7, 6, 19), **options)
    first = answer(p)
    arrays = list(recurrence._spares._arrays)
    assert len(arrays) == 2
    for array in arrays:
        array[...] = np.nan
    assert_same_bits(answer(p), first)
    assert all(a is b for a, b in zip(arrays, recurrence._spares._arrays, strict=True))


def test_little_memory_is_kept():
    spares = recurrence._Spares(1000, 3)
    arrays = [np.empty(n, np.uint8) for n in (0, 1001, 10, 20, 30, 990)]
    spares.give(*arrays[:2])
    assert spares.take((1001,), "uint8") is not arrays[1]
    spares.give(*arrays[2:5])
    assert spares.take((0,), "uint8") is not arrays[0], "the oldest of more than three"
    assert spares.take((20,), "float32").nbytes == 80
    spares.give(arrays[5])
    assert spares.take((10,), "uint8") is not arrays[2], "the oldest of more than 1000 bytes"
    assert spares.take((990,), np.dtype("uint8")) is arrays[5]
    assert spares.take((990,), "uint8") is not arrays[5], "handed out once"


@EACH
def test_states_handed_out_are_new(cell):
    p = problem(cell)
    for save in (False, True):
        out, states, pullback = run(p, save=save)
        for state in states:
            assert state.base is None and not np.shares_memory(state, out)
            state[:] = np.nan
        if save:
            out[:] = np.nan
            assert np.isfinite(pullback(p.d_out)[0]).all()


# ---------------------------------------------------------------------------------------------------------- refusals

P = problem("LSTM", (3, 4, 5, 6), x_copies=1, h_copies=4, mask="right")
FLAGS = flags_of(P)


def weights(**changes):
    return recurrence.PackedWeights(
        **{"cell": P.cell, "kernel": P.kernel, "recurrent_kernel": P.recurrent, "bias": P.bias, **changes}
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": P.x.tolist()}, TypeError, "x must be a float32 or float64 NumPy array; got list"),
        ({"x": P.x.tolist(), "checkpoint": 1}, TypeError, "x must be .* got list"),
        ({"x": P.x.astype(int)}, TypeError, "x must be .* got int64"),
        ({"x": P.x.astype("float16")}, TypeError, "x must be .* got float16"),
        ({"x": P.x[0]}, ValueError, r"x must have shape \(batch, timesteps, inputs\); got \(4, 5\)"),
        ({"x": P.x[:, :0]}, ValueError, "x must have at least one timestep; got 0"),
        ({"x": P.x[:, :, 1:]}, ValueError, r"kernel must have shape \(4, 24\); got \(5, 24\)"),
        ({"x": P.x.astype("float32")}, TypeError, "kernel must be float32; got float64"),
        ({"weights": weights(recurrent_kernel=P.recurrent[:, 1:])}, ValueError, "recurrent_kernel must have shape"),
        ({"weights": weights(recurrent_kernel=P.recurrent.astype("float32"))}, TypeError, "recurrent_kernel must be"),
        ({"weights": weights(bias=P.bias[1:])}, ValueError, r"bias must have shape \(24,\); got \(23,\)"),
        ({"weights": weights(bias=P.bias.astype("float32"))}, TypeError, "bias must be float64"),
        ({"initial_states": [P.h]}, ValueError, "initial_states must hold 2 arrays; got 1"),
        ({"initial_states": [P.h, P.c[1:]]}, ValueError, r"initial_states\[1\] must have shape \(3, 6\); got \(2, 6\)"),
        ({"initial_states": [P.h.astype("float32"), P.c]}, TypeError, r"initial_states\[0\] must be float64"),
        ({"initial_states": [P.h, P.c.tolist()]}, TypeError, r"initial_states\[1\] must be a NumPy array; got list"),
        ({"flags": FLAGS.T}, ValueError, r"flags must have shape \(4, 3\); got \(3, 4\)"),
        ({"flags": FLAGS.astype(bool)}, TypeError, "flags must be uint8"),
        ({"weights": (P.kernel, P.recurrent, P.bias)}, TypeError, "weights must be PackedWeights; got tuple"),
        ({"cell": replace(cells.LSTM, name="Other")}, ValueError, "packed for the cell Other; got those of LSTM"),
        ({"x_factors": P.x_factors[0]}, ValueError, r"x_factors must have shape \(1 or 4, 3, 5\); got \(3, 5\)"),
        ({"x_factors": P.x_factors.tolist()}, TypeError, "x_factors must be a NumPy array; got list"),
        ({"x_factors": P.x_factors.astype("float32")}, TypeError, "x_factors must be float64"),
        ({"h_factors": P.h_factors[:3]}, ValueError, r"h_factors must have shape \(1 or 4, 3, 6\); got \(3, 3, 6\)"),
        ({"h_factors": P.h_factors[:, :2]}, ValueError, r"h_factors must have shape \(4, 3, 6\); got \(4, 2, 6\)"),
        ({"activation": "mish"}, ValueError, "activation must be one of .* got 'mish'"),
        ({"recurrent_activation": "softmax"}, ValueError, "recurrent_activation must be one of .* got 'softmax'"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_kernel_starts(changes, error, message):
    kernel_calls.clear()
    with pytest.raises(error, match=message):
        run(P, save=True, **changes)
    assert not kernel_calls


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"kernel": P.kernel.tolist()}, TypeError, "kernel must be a float32 or float64 NumPy array; got list"),
        ({"kernel": P.kernel.astype("float16")}, TypeError, "kernel must be a float32 or float64 .* got float16"),
        ({"recurrent_kernel": None}, TypeError, "recurrent_kernel must be a .* NumPy array; got NoneType"),
        ({"kernel": P.kernel[0]}, ValueError, r"kernel must have two axes; got shape \(24,\)"),
        ({"recurrent_kernel": P.recurrent[:0]}, ValueError, r"at least one row; got shape \(0, 24\)"),
        ({"kernel": P.kernel[:, :20]}, ValueError, r"kernel must have shape \(5, 24\); got \(5, 20\)"),
        ({"recurrent_kernel": P.recurrent.astype("float32")}, TypeError, "recurrent_kernel must be float64; got fl"),
        ({"bias": P.bias.tolist()}, TypeError, "bias must be a NumPy array; got list"),
        ({"bias": P.bias[:12]}, ValueError, r"bias must have shape \(24,\); got \(12,\)"),
    ],
)
def test_weights_that_do_not_fit_each_other_are_not_packed(changes, error, message):
    """Kernels trust the sizes of what is packed: they would read behind its end."""
    given = {"kernel": P.kernel, "recurrent_kernel": P.recurrent, "bias": P.bias, **changes}
    with pytest.raises(error, match=message):
        P.cell.pack(**given)
    with pytest.raises(error, match=message):
        run(P, save=False, weights=weights(**changes))


@pytest.mark.parametrize(
    ("cell", "changes", "message"),
    [
        ("GRU", {"bias": np.zeros(18)}, r"bias must have shape \(2, 18\); got \(18,\)"),
        ("GRU_RESET_BEFORE", {"bias": np.zeros((2, 18))}, r"bias must have shape \(18,\); got \(2, 18\)"),
        ("GRU", {"x_factors": np.ones((4, 3, 5))}, r"x_factors must have shape \(1 or 3, 3, 5\); got \(4, 3, 5\)"),
        ("SIMPLE_RNN", {"h_factors": np.ones((2, 3, 6))}, r"h_factors must have shape \(1, 3, 6\); got \(2, 3, 6\)"),
        ("SIMPLE_RNN", {"h": np.ones((3, 5))}, r"initial_states\[0\] must have shape \(3, 6\); got \(3, 5\)"),
        ("SIMPLE_RNN", {"recurrent_activation": "mish"}, "recurrent_activation must be one of .* got 'mish'"),
    ],
)
def test_every_cell_knows_its_shapes(cell, changes, message):
    kernel_calls.clear()
    with pytest.raises(ValueError, match=message):
        run(replace(problem(cell, (3, 4, 5, 6)), **changes), save=True)
    assert not kernel_calls


def test_a_cell_without_gates_has_no_use_for_their_activation():
    p = problem("SIMPLE_RNN", activation="gelu")
    assert_same_bits(answer(replace(p, recurrent_activation="relu")), answer(p))


@pytest.mark.parametrize(
    ("gradients", "error", "message"),
    [
        ({"d_out": P.d_out[:, 1:]}, ValueError, r"d_out must have shape \(3, 4, 6\); got \(3, 3, 6\)"),
        ({"d_out": P.d_out.astype("float32")}, TypeError, "d_out must be float64"),
        ({"d_out": P.d_out.tolist()}, TypeError, "d_out must be a NumPy array; got list"),
        ({"d_states": [P.d_h, P.d_c[1:]]}, ValueError, r"d_states\[1\] must have shape \(3, 6\); got \(2, 6\)"),
        ({"d_states": [P.d_h, P.d_c, P.d_c]}, ValueError, "d_states must hold 2 arrays; got 3"),
    ],
)
def test_a_pullback_refuses_what_does_not_fit_and_stays_good(gradients, error, message):
    _, _, pullback = run(P, save=True)
    kernel_calls.clear()
    with pytest.raises(error, match=message):
        pullback(**gradients)
    assert not kernel_calls
    np.testing.assert_array_equal(pullback(P.d_out, P.d_states)[0], answer(P)["d_x"])


def test_a_pullback_is_good_for_one_call():
    _, _, pullback = run(P, save=True)
    pullback(P.d_out)
    with pytest.raises(RuntimeError, match="a pullback can be called once"):
        pullback(P.d_out)


def test_a_pullback_is_good_for_one_of_two_threads(monkeypatch):
    """Its memory would come back twice, and two later passes would share it."""
    _, _, pullback = run(P, save=True)
    inner, answers = recurrence._BackwardPass, []

    def interrupted(*given):
        monkeypatch.setattr(recurrence, "_BackwardPass", inner)
        answers.append(pullback(P.d_out, P.d_states))  # the other thread's call, as a whole
        return inner(*given)

    monkeypatch.setattr(recurrence, "_BackwardPass", interrupted)
    with pytest.raises(RuntimeError, match="a pullback can be called once"):
        pullback(P.d_out)
    np.testing.assert_array_equal(answers[0][0], answer(P)["d_x"])


# -------------------------------------------------------------------------------- the equations, and compiled callers

PAIRS = [
    (None, None),
    *((ACTIVATIONS[a].code, ACTIVATIONS[b].code) for a, b in zip(ACTIVATIONS, reversed(ACTIVATIONS), strict=True)),
]
NAMES = {info.code: name for name, info in ACTIVATIONS.items()}


def names_of(codes):
    """Return the naive loop's activations for run-time codes."""
    return {"activation": NAMES.get(codes[0], "tanh"), "recurrent_activation": NAMES.get(codes[1], "sigmoid")}


@pytest.mark.parametrize("codes", PAIRS)
def test_the_step_of_the_simple_rnn_in_plain_python(codes, rng):
    """`step` and `step_back` are Python that NumPy arrays can go through: the reference, to read and to try."""
    ((step, step_back),) = cells.SIMPLE_RNN.phases
    z, d_h = rng.standard_normal((2, 5, 7))
    activation = NAMES.get(codes[0], "tanh")
    h, kept = step(z, codes[0])
    _, (expected,) = reference.simple_rnn(np, z[:, None], [np.eye(7), np.zeros((7, 7))], [0 * z], activation=activation)
    assert_close(h, expected, 1e-14)
    slopes = step_back(d_h, kept if codes[0] else h, codes[0])
    check_gradients(lambda z: np.vdot(d_h, step(z, codes[0])[0]), [z], [slopes])


@pytest.mark.parametrize("codes", PAIRS)
def test_the_step_of_the_lstm_in_plain_python(codes, rng):
    ((step, step_back),) = cells.LSTM.phases
    z = list(rng.standard_normal((4, 5, 7)))
    c0, d_h, d_c = rng.standard_normal((3, 5, 7))
    h, c, *kept = step(*z, c0, *codes)
    _, (h_expected, c_expected) = reference.lstm(
        np, np.hstack(z)[:, None], [np.eye(28), np.zeros((7, 28))], [0 * c0, c0], **names_of(codes)
    )
    assert_close(h, h_expected, 1e-14)
    assert_close(c, c_expected, 1e-14)

    def loss(*arrays):
        h, c, *_ = step(*arrays, *codes)
        return np.vdot(d_h, h) + np.vdot(d_c, c)

    check_gradients(loss, [*z, c0], step_back(d_h, d_c, *kept, c0, c, *codes))


@pytest.mark.parametrize("codes", PAIRS)
def test_the_step_of_the_gru_in_plain_python(codes, rng):
    ((step, step_back),) = cells.GRU.phases
    z = list(rng.standard_normal((3, 5, 7)))
    m, h0, d_h = rng.standard_normal((3, 5, 7))
    h, *kept = step(*z, m, h0, *codes)
    # The recurrent bias of the candidate is m, of which a row alone has one value for each unit.
    for b in range(5):
        bias = np.concatenate([np.zeros(35), m[b]]).reshape(2, 21)
        weights = [np.eye(21), np.zeros((7, 21)), bias]
        _, (expected,) = reference.gru(np, np.hstack(z)[b : b + 1, None], weights, [h0[b : b + 1]], **names_of(codes))
        assert_close(h[b : b + 1], expected, 1e-14)

    def loss(*arrays):
        return np.vdot(d_h, step(*arrays, *codes)[0])

    check_gradients(loss, [*z, m, h0], step_back(d_h, *kept, m, h0, *codes))


@pytest.mark.parametrize("codes", PAIRS)
def test_the_steps_of_the_gru_that_resets_before_in_plain_python(codes, rng):
    (reset_step, reset_back), (step, step_back) = cells.GRU_RESET_BEFORE.phases
    z = list(rng.standard_normal((3, 5, 7)))
    h0, d_h, d_rh = rng.standard_normal((3, 5, 7))
    # The naive loop, with the candidate's input by a recurrent kernel of ones in the diagonal.
    weights = [np.eye(21), np.hstack([np.zeros((7, 14)), np.eye(7)])]
    _, (expected,) = reference.gru(np, np.hstack(z)[:, None], weights, [h0], reset_after=False, **names_of(codes))
    update, rh, kz, kr = reset_step(z[0], z[1], h0, codes[1])
    h, kg = step(z[2] + rh, update, h0, codes[0])
    assert_close(h, expected, 1e-14)

    def reset(zr, h0):
        return np.vdot(d_rh, reset_step(z[0], zr, h0, codes[1])[1])

    check_gradients(reset, [z[1], h0], reset_back(d_rh, kr, h0, codes[1]))

    def loss(zz, zh, h0):
        update = reset_step(zz, z[1], h0, codes[1])[0]
        return np.vdot(d_h, step(zh, update, h0, codes[0])[0])

    check_gradients(loss, [z[0], z[2] + rh, h0], step_back(d_h, kz, kg, h0, *codes))


def row_by_row(forward):
    """Make a user's own compiled function around a cell's kernel."""

    @numba.njit
    def run(x, weights, work):
        batch, timesteps, _ = x.shape
        kernel, recurrent, bias = weights
        states, out, flags, order, x_factors, h_factors, tape = work
        for b in range(batch):
            forward(
                b, b + 1, x, kernel, recurrent, bias, states, out, flags, order, x_factors, h_factors, tape,
                0, timesteps, False, None, None,
            )  # fmt: skip
        return states[0, timesteps % 2].copy()

    return run


@pytest.mark.parametrize("cell", ["SIMPLE_RNN", "GRU_RESET_BEFORE"])  # the LSTM: see the example in `numbarnn.cells`
def test_the_kernel_in_compiled_code(cell):
    p = problem(cell, (4, 5, 3, 6))
    work = p.cell.workspace(4, 5, 3, 6, "float64")
    work.states[:, 0] = p.states
    h = row_by_row(p.cell.forward)(p.x, p.cell.pack(p.kernel, p.recurrent, p.bias), work)
    assert_same_bits({"out": work.out, "h": h}, answer(p), ("out", "h"))


# --------------------------------------------------------------------------------------------------------- flags


def test_flags():
    mask = np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]], bool)
    reset = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    counts, cut, silent = 1, 2, 4

    def flags(**options):
        return recurrence.step_flags(3, 4, **options).T.tolist()

    assert flags() == [[counts] * 4] * 3
    repeated = [[silent, counts, 0, counts], [silent] * 4, [counts, counts, counts, 0]]
    zeros = [[silent, counts, silent, counts], [silent] * 4, [counts, counts, counts, silent]]
    assert flags(mask=mask) == repeated
    assert flags(mask=mask, zero_output=True) == zeros
    assert flags(reset=reset) == [[counts, counts, counts | cut, counts], [counts | cut, *[counts] * 3], [counts] * 4]
    assert flags(mask=mask, reset=reset)[0] == [silent, counts, cut, counts]
    assert flags(mask=mask[:, ::-1], reset=reset[:, ::-1], backwards=True) == flags(mask=mask, reset=reset)
    assert flags(mask=mask[:, ::-1], zero_output=True, backwards=True) == zeros


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("backwards", [False, True])
def test_how_many_steps_there_are_from_the_first_to_the_last_that_counts(backwards, mask, rng):
    given = make_mask(mask, 9, 12, rng)
    flags = recurrence.step_flags(9, 12, given, rng.random((9, 12)) < 0.3, backwards=backwards)
    lengths = np.full(9, -1)
    measure_rows(flags, lengths)
    counting = [np.flatnonzero(row) for row in (given if given is not None else np.ones((9, 12)))]
    assert lengths.tolist() == [int(np.ptp(steps)) + 1 if steps.size else 0 for steps in counting]


@pytest.mark.parametrize("name", ["mask", "reset"])
def test_flags_of_what_does_not_fit_are_refused(name):
    with pytest.raises(TypeError, match=f"`{name}` must be a NumPy array of bool; got int64"):
        recurrence.step_flags(2, 3, **{name: np.array([[2, 1, 0]] * 2)})
    with pytest.raises(TypeError, match=f"`{name}` must be a NumPy array of bool; got list"):
        recurrence.step_flags(1, 2, **{name: [[True, False]]})
    with pytest.raises(ValueError, match=rf"`{name}` must have shape \(2, 3\) as the inputs have; got \(2, 1\)"):
        recurrence.step_flags(2, 3, **{"mask": np.ones((2, 3), bool), name: np.ones((2, 1), bool)})


@EACH
@pytest.mark.parametrize("poison", [np.inf, np.nan])
@pytest.mark.parametrize("where", ["kernel", "recurrent"])
def test_masked_rows_are_skipped_not_multiplied_by_zero(where, poison, cell):
    p = replace(problem(cell, (2, 1, 2, 2)), mask=np.array([[False], [True]]))
    getattr(p, where)[0, 0], p.d_h[0, 0] = poison, -0.0
    found = answer(p)
    # Bit for bit: the gradient of a step that did not happen is the gradient that came, its signs of zero included.
    expected = named(np.zeros((2, 1, 2)), p.states, np.zeros((2, 1, 2)), d_initial=p.d_states)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name][0].view(np.int64), value[0].view(np.int64), err_msg=name)
    assert np.isnan(found["d_x" if where == "kernel" else "d_h"][1]).any(), "the row that counts met the weight"
