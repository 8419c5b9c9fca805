"""Where the newest value of a variable is: read and written on both sides, on a stand-in for CuPy that counts moves."""

import contextlib
import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from gpu import fake_cupy

from numbarnn import Variable, arrays, cuda, devices, layers, models, ops
from numbarnn.variable import ParameterBuffer, captured

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu():
    """Let the stand-in be the GPU; return the list of its moves, empty at the start."""
    with cuda.use_array_module(fake_cupy):
        fake_cupy.moves.clear()
        yield fake_cupy.moves


def write(variable, number):
    """Set all elements on the GPU, as a kernel does."""
    variable.on_gpu[...] = number
    variable.wrote_on_gpu()


READS = {
    "value": lambda v: v.value,
    "numpy": lambda v: v.numpy(),
    "data": lambda v: v.data,
    "asarray": lambda v: np.asarray(v),
    "array of float32": lambda v: np.asarray(v, "float32"),
    "an operation": lambda v: ops.multiply(v, 1),
    "a NumPy function": lambda v: np.maximum(v, -100),
    "an operator": lambda v: v + 0,
    "a copy": lambda v: copy.deepcopy(v).value,
    "a pickle": lambda v: pickle.loads(pickle.dumps(v)).value,
    "another variable": lambda v: Variable(v).value,
    "assigned to another": lambda v: Variable(np.zeros(3)).assign(v).value,
    "format": lambda v: np.array(format(v, "").count("Variable") * [float(v[0])] * 3),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("in_buffer", [False, True])
def test_what_was_written_on_the_gpu_is_read_everywhere(read, in_buffer):
    variable = Variable(np.zeros(3))
    kept = in_buffer and ParameterBuffer([Variable(np.ones(2)), variable])
    version = variable.version
    write(variable, 7.0)
    assert variable.version > version
    np.testing.assert_array_equal(READS[read](variable), [7.0] * 3)
    write(variable, 8.0)
    np.testing.assert_array_equal(READS[read](variable), [8.0] * 3)
    if kept:
        np.testing.assert_array_equal(kept.flat, [1, 1, 8, 8, 8])


WRITES = {
    "assign": lambda v: v.assign(np.full(3, 5.0)),
    "assign_add": lambda v: v.assign_add(5.0 - v),
    "assign of a device array": lambda v: v.assign(cuda.to_device(np.full(3, 5.0))),
    "assign of float32": lambda v: v.assign(cuda.to_device(np.full(3, 5.0, "float32"))),
    "assign of a variable": lambda v: v.assign(Variable(np.full(3, 5.0))),
    "data and touch": lambda v: (v.data.fill(5.0), v.touch()),
    "on the GPU": lambda v: write(v, 5.0),
}


@pytest.mark.parametrize("write_it", WRITES)
def test_what_is_written_is_seen_on_both_sides(write_it):
    variable = Variable(np.zeros(3))
    write(variable, 1.0)
    WRITES[write_it](variable)
    np.testing.assert_array_equal(variable.on_gpu.get(), [5.0] * 3)
    np.testing.assert_array_equal(variable.numpy(), [5.0] * 3)
    WRITES[write_it](variable)
    np.testing.assert_array_equal(variable.numpy(), [5.0] * 3)
    np.testing.assert_array_equal(variable.on_gpu.get(), [5.0] * 3)


def test_a_buffer_is_one_array_on_the_gpu_and_moves_what_is_stale(gpu):
    first, second = Variable(np.ones((2, 2))), Variable(np.zeros(3))
    buffer = ParameterBuffer([first, second])
    flat = buffer.on_gpu
    assert [move.shape for move in gpu] == [(2, 2), (3,)]
    flat[...] = 4.0
    buffer.wrote_on_gpu()
    np.testing.assert_array_equal(first.numpy(), np.full((2, 2), 4.0))
    second.assign(np.full(3, -1.0))
    gpu.clear()
    np.testing.assert_array_equal(buffer.on_gpu._a, [4, 4, 4, 4, -1, -1, -1])
    assert [move.shape for move in gpu] == [(3,)]
    assert buffer.on_gpu is flat
    np.testing.assert_array_equal(buffer.flat, [4, 4, 4, 4, -1, -1, -1])


def test_a_buffer_that_was_written_on_the_gpu_goes_on_on_the_cpu():
    variables = [Variable(np.ones(2)), Variable(np.ones(3))]
    buffer = ParameterBuffer(variables)
    buffer.on_gpu[...] = 2.0
    buffer.wrote_on_gpu()
    assert buffer.holds(variables)
    buffer.flat[...] += 1.0
    buffer.touch()
    np.testing.assert_array_equal(variables[1].on_gpu.get(), [3.0] * 3)


def test_a_variable_takes_its_value_along_when_it_moves():
    variable = Variable(np.ones(2))
    ParameterBuffer([variable])
    write(variable, 6.0)
    other = ParameterBuffer([variable, Variable(np.zeros(1))])
    np.testing.assert_array_equal(other.flat, [6, 6, 0])
    np.testing.assert_array_equal(other.on_gpu.get(), [6, 6, 0])


def test_nothing_moves_while_nothing_changes(gpu):
    variable = Variable(np.ones(3))
    write(variable, 2.0)
    gpu.clear()
    for _ in range(3):
        write(variable, 3.0)
        assert variable.newest.shape == (3,)
    assert gpu == []
    for _ in range(3):
        assert variable.value[0] == 3.0
        assert variable.on_gpu.shape == (3,)
    assert [move.way for move in gpu] == ["out"]


def test_scalars_move_too():
    rate = Variable(0.5)
    assert float(rate.on_gpu) == 0.5
    rate.assign(0.25)
    assert rate.on_gpu.shape == ()
    assert float(rate.on_gpu) == 0.25


def test_values_are_read_where_the_thread_computes():
    variable = Variable(np.ones(3))
    with arrays.on_gpu():
        assert isinstance(variable.value, fake_cupy.ndarray)
        assert isinstance(0.5 * variable, fake_cupy.ndarray)
    assert type(variable.value) is np.ndarray
    assert type(0.5 * variable) is np.ndarray


def test_writing_over_a_newer_value_is_an_error():
    variable = Variable(np.ones(3))
    variable.on_gpu[...] = 2.0
    variable.assign(np.zeros(3))
    with pytest.raises(RuntimeError, match="where another value than its newest one was"):
        variable.wrote_on_gpu()


def test_views_handed_out_before_are_known_as_the_variables():
    variable = Variable(np.ones(3))
    view = variable.value
    write(variable, 2.0)
    assert captured(view) is variable
    assert variable.value is view
    np.testing.assert_array_equal(view, [2.0] * 3)


def test_an_array_of_a_wrong_shape_is_refused():
    variable = Variable(np.ones(3))
    with pytest.raises(ValueError, match=r"has shape \(3,\)"):
        variable.assign(cuda.to_device(np.ones(4)))
    assert variable.version == 0


def test_a_value_written_while_it_is_brought_back_is_not_missed(monkeypatch):
    """As one thread reads the weights while another one trains."""
    variable = Variable(np.zeros(3))
    write(variable, 1.0)
    to_host = cuda.to_host

    def slow(array):
        values = to_host(array)
        monkeypatch.setattr(cuda, "to_host", to_host)
        write(variable, 2.0)  # the other thread
        return values

    monkeypatch.setattr(cuda, "to_host", slow)
    assert variable.data.tolist() == [2.0, 2.0, 2.0]
    assert variable.numpy().tolist() == [2.0, 2.0, 2.0]


def test_what_is_kept_on_the_gpu_is_moved_in_the_one_order(monkeypatch):
    """On the default stream: not on whatever stream is the current one of who happens to ask first."""
    inside, moved = [], []

    @contextlib.contextmanager
    def in_order():
        inside.append(None)
        try:
            yield
        finally:
            inside.pop()

    def watched(function):
        def call(*args, **options):
            assert inside, function.__name__
            moved.append(function.__name__)
            return function(*args, **options)

        return call

    monkeypatch.setattr(cuda, "in_order", in_order)
    for name in ("to_device", "to_host", "empty", "zeros", "gemm"):
        monkeypatch.setattr(cuda, name, watched(getattr(cuda, name)))
    variable = Variable(np.zeros(3))
    with in_order():
        there = cuda.to_device(np.ones(3))
    variable.assign(there)
    np.testing.assert_array_equal(variable.numpy(), [1, 1, 1])
    variable.assign(np.ones(3) * 2)
    _ = variable.on_gpu
    assert moved == ["to_device", "empty", "to_device", "to_host", "to_device"]
    captured_array = np.ones((1, 3), "float32")
    with devices.device("cuda:0"):
        model = models.Sequential(
            [layers.Input((4,)), layers.Dense(3), layers.Lambda(lambda x: x * captured_array), layers.Dense(2)]
        )
        model.compile("adam", "mse")
        model.fit(np.ones((4, 4), "float32"), np.ones((4, 2), "float32"), epochs=2, verbose=0)
        model.predict(np.ones((2, 4), "float32"), verbose=0)
    model.get_weights()
    assert {"gemm", "zeros", "to_host"} <= set(moved)


def test_a_buffer_shows_no_value_older_than_one_written_while_others_are_brought_back(monkeypatch):
    first, second = Variable(np.zeros(2)), Variable(np.zeros(3))
    buffer = ParameterBuffer([first, second])
    write(first, 1.0)
    write(second, 1.0)
    to_host = cuda.to_host

    def slow(array):
        if array.shape == second.shape:
            monkeypatch.setattr(cuda, "to_host", to_host)
            write(first, 2.0)  # the other thread, after the first one has been brought back
        return to_host(array)

    monkeypatch.setattr(cuda, "to_host", slow)
    assert buffer.flat.tolist() == [2.0, 2.0, 1.0, 1.0, 1.0]
    assert buffer.flat.tolist() == [2.0, 2.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "float16", "complex128", "int8"])
def test_an_array_that_a_program_has_captured_moves_again_when_a_bit_of_it_changes(gpu, dtype):
    kept = np.zeros((4, 6), dtype)
    array = kept[::2, ::-2]
    constant = arrays.Constant(array)
    changes = [0, 1, 3] if dtype == "int8" else [0.0, -0.0, np.nan, 1.0]
    for change in changes:
        array[1, 1] = change
        for _ in range(2):
            assert constant().get().tobytes() == array.tobytes()
    assert [move.way for move in gpu] == (["in", "out", "out"] * len(changes))


def test_to_see_that_a_captured_array_has_not_changed_takes_no_copy_of_it():
    constant = arrays.Constant(np.zeros(1 << 17))
    constant()
    tracemalloc.start()
    try:
        constant()
        assert tracemalloc.get_traced_memory()[1] < 1 << 18  # a byte for a number
    finally:
        tracemalloc.stop()
