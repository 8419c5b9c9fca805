"""Variables and parameter buffers."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import ops
from numbarnn import variable as module
from numbarnn.graph import Spec, TracedValueError, trace
from numbarnn.variable import ParameterBuffer, Variable


def test_value_is_a_read_only_view():
    v = Variable(np.arange(6.0).reshape(2, 3), name="kernel")
    assert v.value.base is not None and np.shares_memory(v.value, v.data)
    with pytest.raises(ValueError, match="read-only"):
        v.value[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(v)[0] = 1
    out = v.numpy()
    out[0] = 100
    assert v.value[0, 0] == 0
    assert (v.shape, v.dtype, v.ndim, v.size, v.name, len(v)) == ((2, 3), np.float64, 2, 6, "kernel", 2)
    assert repr(v) == "<Variable 'kernel' shape=(2, 3) dtype=float64>"
    assert repr(Variable(0.25, name="rate")) == "<Variable 'rate' shape=() dtype=float32 value=0.25>"
    source = np.zeros(3)
    w = Variable(source)
    source[:] = 1
    assert not w.value.any()


def test_dtypes():
    assert Variable(1.0).dtype == Variable([1.0, 2]).dtype == np.float32
    assert Variable(np.float64(1)).dtype == Variable(np.zeros(2)).dtype == np.float64
    assert Variable(True).dtype == bool and Variable([1, 2]).dtype.kind == "i"
    assert Variable([1.0], dtype="float16").dtype == np.float16
    with pytest.raises(TypeError, match="numbers or booleans"):
        Variable("text")
    before = module.default_float()
    module.set_default_float("float64")
    try:
        assert Variable(1.0).dtype == np.float64
    finally:
        module.set_default_float(before)


def test_assign_is_in_place_casts_counts_and_checks():
    v = Variable(np.zeros((2, 2), "float32"))
    value, data = v.value, v.data
    assert v.assign([[1, 2], [3, 4]]) is v
    assert v.version == 1 and v.data is data and value.tolist() == [[1, 2], [3, 4]] and value.dtype == np.float32
    v.assign_add(np.ones((2, 2)))
    v.assign_sub(v)
    assert v.version == 3 and not v.value.any()
    v.touch()
    assert v.version == 4
    for wrong in (np.zeros(2), 1.0, np.zeros((1, 2, 2))):
        with pytest.raises(ValueError, match=r"has shape \(2, 2\), it cannot be assigned a value of shape"):
            v.assign(wrong)
    assert v.version == 4


def test_changing_otherwise_is_refused_with_the_line():
    v = Variable(np.zeros(3))
    with pytest.raises(TypeError, match=r"test_variable.py:\d+: .* item assignment; use variable.assign"):
        v[0] = 1
    with pytest.raises(TypeError, match="in-place operator"):
        v += 1
    with pytest.raises(TypeError, match="in-place operator"):
        v @= 1


def test_operators_and_numpy_give_arrays():
    a = np.array([[1.0, -2], [3, 4]])
    v = Variable(a)
    for got, expected in (
        (v + 1, a + 1),
        (1 - v, 1 - a),
        (v * v, a * a),
        (a / v, a / a),
        (v @ a, a @ a),
        (a @ v, a @ a),
        (-v, -a),
        (abs(v), abs(a)),
        (v**2, a**2),
        (v > 0, a > 0),
        (v == a, a == a),
        (v[0], a[0]),
        (v[:, -1], a[:, -1]),
        (v.T, a.T),
        (np.exp(v), np.exp(a)),
        (v.sum(axis=0), a.sum(0)),
        (np.concatenate([v, v]), np.concatenate([a, a])),
        (v.reshape(4), a.reshape(4)),
        (v.astype("float32"), a.astype("float32")),
        (np.linalg.inv(v), np.linalg.inv(a)),
        (v // 2, a // 2),
        (v % 2, a % 2),
    ):
        assert isinstance(got, np.ndarray) and got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert float(Variable(2.0)) == 2 and int(Variable(3)) == 3 and bool(Variable(True)) and [1, 2, 3][Variable(1)] == 2
    assert f"{Variable(0.5):.3f}" == "0.500"
    assert [row.tolist() for row in v] == a.tolist()
    assert len({v, v, Variable(a)}) == 2  # hashed by identity
    with pytest.raises(TypeError, match="only integers"):
        [1, 2][Variable(1.0)]
    out = v.copy()
    out[:] = 0
    np.testing.assert_array_equal(v.value, a)


def test_copies_and_pickles_keep_everything():
    v = Variable(np.arange(3.0), trainable=False, name="a", regularizer=len, constraint=max)
    v.path = "layer/a"
    for twin in (copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        assert (twin.name, twin.path, twin.trainable, twin.regularizer, twin.constraint) == (
            "a",
            "layer/a",
            False,
            len,
            max,
        )
        twin.assign(np.zeros(3))
        assert v.value.tolist() == [0, 1, 2]
    a, b = copy.deepcopy([v, v])
    assert a is b


def test_a_value_is_not_taken_while_tracing():
    v, w = Variable(np.ones(3)), Variable(1.0)
    for function in (lambda: np.asarray(v), lambda: v.numpy(), lambda: float(w), lambda: 1 if w else 2):
        with pytest.raises(TracedValueError, match=r"test_variable.py:\d+: "):
            trace(function, ())
    symbol = []
    trace(lambda x: symbol.append(x), (Spec((3,), "f8"),))
    with pytest.raises(TypeError, match="no value yet"):
        v.assign(symbol[0])
    with pytest.raises(TypeError, match="no value yet"):
        Variable(symbol[0])


def test_the_value_in_a_trace_is_the_variable():
    v = Variable(np.array([1.0, 2.0, 3.0]))
    program = trace(lambda: np.sum(np.square(v.value)) + v.value[1:].sum(), ())
    forward, backward = program.linearize(0, [v])
    np.testing.assert_array_equal(backward(forward()[1], 1.0)[0], 2 * v.numpy() + [0, 1, 1])


def test_an_array_taken_before_stands_for_its_variable_in_a_trace():
    v = Variable(np.array([1.0, 2.0, 3.0]))
    value = v.value
    assert trace(lambda: ops.sum(ops.square(value)), ()).variables == [v]
    assert trace(lambda x: x * value, (Spec((3,), "f8"),)).variables == [v]
    buffer = ParameterBuffer([v, Variable(np.zeros(2))])
    value = v.value
    assert trace(lambda: ops.exp(value), ()).variables == [v]
    for piece in (value[1:], value[::-1], v.data[:2], buffer.flat[:2]):
        with pytest.raises(TypeError, match=r"test_variable.py:\d+: .*use the variable itself"):
            trace(lambda piece=piece: ops.exp(piece), ())


# -- buffers --------------------------------------------------------------------------------------------------------


def variables():
    return [
        Variable(np.full(shape, i, "float32"), name=str(i))
        for i, shape in enumerate([(2, 3), (), (4,), (0, 3), (5, 1)])
    ]


def test_buffer_holds_the_values_in_one_aligned_array():
    own = variables()
    buffer = ParameterBuffer(own)
    assert buffer.flat.shape == (16,) and buffer.flat.ctypes.data % 64 == 0 and buffer.flat.dtype == np.float32
    assert buffer.flat.tolist() == [0] * 6 + [1] + [2] * 4 + [4] * 5
    assert [s.stop - s.start for s in buffer.slices] == [6, 1, 4, 0, 5]
    for v, view in zip(own, buffer.views(buffer.flat), strict=True):
        assert v.size == 0 or np.shares_memory(v.data, buffer.flat)
        assert view.shape == v.shape and v.data.flags.c_contiguous
    buffer.flat += 1
    buffer.touch()
    assert own[2].value.tolist() == [3] * 4 and all(v.version == 1 for v in own)
    own[0].assign(np.zeros((2, 3)))
    assert buffer.flat[:7].tolist() == [0] * 6 + [2]
    with pytest.raises(ValueError, match="read-only"):
        own[0].value[0] = 1
    gradients = buffer.empty_like()
    assert gradients.ctypes.data % 64 == 0 and not gradients.any()
    buffer.views(gradients)[0][...] = 7
    assert gradients[:7].tolist() == [7] * 6 + [0]
    with pytest.raises(ValueError, match="layout"):
        buffer.views(np.zeros(3))


def test_rebinding_is_noticed_by_the_old_buffer():
    own = variables()
    first = ParameterBuffer(own)
    assert first.holds(own) and not first.holds(own[::-1]) and not first.holds(own[:-1])
    second = ParameterBuffer(own[:2])
    assert second.holds(own[:2]) and not first.holds(own) and not first.holds(own[:2])
    own[0].assign(np.full((2, 3), 9))
    assert second.flat[0] == 9 and first.flat[0] == 0
    again = ParameterBuffer(own)
    assert again.holds(own) and again.flat[0] == 9 and not second.holds(own[:2])


def test_programs_follow_a_variable_into_a_buffer():
    v = Variable(np.ones(3))
    program = trace(lambda x: x * v, (Spec((3,), "f8"),))
    ParameterBuffer([v])
    v.assign(np.full(3, 5.0))
    assert program(np.ones(3)).tolist() == [5, 5, 5]


def test_buffers_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="at least one"):
        ParameterBuffer([])
    with pytest.raises(ValueError, match="one dtype"):
        ParameterBuffer([Variable(np.zeros(2)), Variable(np.zeros(2, "f4"))])
    v = Variable(1.0)
    with pytest.raises(ValueError, match="twice"):
        ParameterBuffer([v, v])


def test_a_value_handed_out_before_its_variable_moved_still_means_the_variable():
    v = Variable(np.ones(3, np.float32))
    before = v.value
    ParameterBuffer([v])
    program = trace(lambda x: x * before, (Spec((3,), "float32"),))
    v.assign(np.full(3, 5.0))
    np.testing.assert_array_equal(program(np.ones(3, np.float32)), np.full(3, 5.0))
    forward, backward = program.linearize(0, [v])
    _, residuals = forward(np.full(3, 2.0, np.float32))
    np.testing.assert_array_equal(backward(residuals, np.ones(3, np.float32))[0], np.full(3, 2.0))
