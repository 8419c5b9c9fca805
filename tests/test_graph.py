"""Traces, programs, their gradients, kernels, effects, functional graphs."""

import gc
import re
import threading
import tracemalloc
import weakref
from collections import namedtuple

import numpy as np
import pytest

from numbarnn import ops, tree
from numbarnn.graph import (
    FunctionalGraph,
    KernelOp,
    Op,
    Spec,
    Tensor,
    abstract,
    evaluate,
    is_tracing,
    record,
    suspended,
    trace,
)  # fmt: skip
from numbarnn.variable import Variable

F8 = "float64"
X = np.random.default_rng(0).normal(size=(3, 4))
SPEC = Spec((3, 4), F8)
Pair = namedtuple("Pair", "first second")


def gradient(program, *arrays, outputs=0, wrt=None, d=1.0):
    forward, backward = program.linearize(outputs, program.inputs if wrt is None else wrt)
    return backward(forward(*arrays)[1], d)


# -- tracing ----------------------------------------------------------------------------------------------------------


def test_traced_once_replayed_often():
    calls = []

    def function(x):
        calls.append(type(x))
        return np.tanh(x) * 2

    program = trace(function, (SPEC,))
    for _ in range(5):
        np.testing.assert_array_equal(program(X), np.tanh(X) * 2)
    forward, backward = program.linearize(0, program.inputs)
    for _ in range(5):
        backward(forward(X)[1], X)
    assert calls == [Tensor]
    assert not is_tracing()


def test_arguments_and_results_are_nests():
    def function(batch, options, *, scale):
        pair = Pair(batch["b"] * scale, [batch["a"][0], options, None])
        return {"out": pair, "t": (pair.first,), "empty": ()}

    program = trace(function, ({"a": [SPEC], "b": Spec((2,), F8)}, "option"), {"scale": 3})
    result = program(X, np.ones(2))
    assert isinstance(result["out"], Pair) and result["out"].second[1:] == ["option", None] and result["empty"] == ()
    assert result["out"].second[0] is X and result["t"][0] is result["out"].first
    assert result["out"].first.tolist() == [3, 3]
    assert program.output_specs["out"].first == Spec((2,), F8)
    assert [x.shape for x in program.inputs] == [(3, 4), (2,)]


def test_unused_pure_nodes_go_effects_stay():
    counter = Variable(0, dtype="int64")

    def function(x):
        np.exp(x)
        counter.assign_add(1)
        return x + 1

    program = trace(function, (SPEC,))
    assert [step.node.name for step in program.steps] == ["add", "assign", "add"]
    program(X)
    program(X)
    assert counter.value == 2


def test_variables_and_captured_arrays_are_read_at_replay_numbers_are_baked():
    v, captured, number = Variable(np.ones(4)), np.ones(4), [1.0]
    program = trace(lambda x: x * v + captured + number[0], (SPEC,))
    v.assign(np.full(4, 2.0))
    captured[:] = 5
    number[0] = 100.0
    np.testing.assert_array_equal(program(X), X * 2 + 5 + 1)
    assert program.variables == [v]


def test_operations_on_variables_alone_are_recorded():
    log_tau, w1, w2 = Variable(0.0, dtype=F8), Variable(np.ones(2)), Variable(np.ones(3))
    program = trace(lambda: (np.exp(log_tau), np.concatenate([w1, w2]).sum(), ops.matmul(w1, w1)), ())
    log_tau.assign(1.0)
    w2.assign(np.full(3, 2.0))
    assert program() == (np.e, 8.0, 2.0)
    d_tau, d_w1, d_w2 = gradient(program, outputs=[0, 1, 2], wrt=[log_tau, w1, w2], d=[1.0, 1.0, 1.0])
    assert d_tau == np.e and d_w1.tolist() == [3, 3] and d_w2.tolist() == [1, 1, 1]


def test_traces_nest_and_are_suspended():
    def outer(x):
        inner = trace(lambda y: y * 2, (Spec((2,), F8),))
        assert is_tracing()
        with suspended():
            assert not is_tracing()
            assert isinstance(ops.exp(np.ones(2)), np.ndarray) and isinstance(v * 2, np.ndarray)
            v.assign([3.0])
        return x + inner(np.ones(2)).sum() + v

    v = Variable([1.0], dtype=F8)
    program = trace(outer, (Spec((1,), F8),))
    assert program(np.zeros(1)) == 7
    with pytest.raises(ZeroDivisionError):
        trace(lambda x: 1 / 0, (SPEC,))
    assert not is_tracing()


def test_symbols_that_escape_are_refused_with_the_line():
    kept = []
    trace(lambda x: kept.append(x * 2), (SPEC,))
    with pytest.raises(ValueError, match=r"test_graph.py:\d+: .*belongs to another traced function"):
        trace(lambda x: x + kept[0], (SPEC,))
    with pytest.raises(ValueError, match=r"test_graph.py:\d+: .*left over"):
        kept[0] + 1
    with pytest.raises(ValueError, match="belongs to a functional graph"):
        trace(lambda x: x + Tensor(SPEC), (SPEC,))
    with pytest.raises(ValueError, match="another traced function"):
        trace(lambda x: trace(lambda: x * 2, ())(), (SPEC,))


def test_draws_from_global_generators_are_refused():
    with pytest.raises(RuntimeError, match="numbarnn.random"):
        trace(lambda x: x + np.random.normal(size=4), (SPEC,))
    with pytest.raises(RuntimeError, match="numbarnn.random"):
        trace(lambda x: x + __import__("random").random(), (SPEC,))

    def lazily_built(x):
        with suspended():
            w = np.random.normal(size=4)
        return x * w

    trace(lazily_built, (SPEC,))
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    try:
        with pytest.warns(RuntimeWarning, match="other threads"):
            trace(lambda x: x + np.random.normal(size=4), (SPEC,))
    finally:
        stop.set()
        other.join()


# -- replay -----------------------------------------------------------------------------------------------------------


def test_wrong_arrays_are_refused():
    program = trace(lambda x: x * 2, (SPEC,), name="double")
    for wrong in (np.zeros((3, 5)), X.astype("f4"), [1.0], np.zeros(3)):
        with pytest.raises(ValueError, match=r"program 'double' was traced for float64\[3, 4\] as input 0"):
            program(np.asarray(wrong))
    with pytest.raises(TypeError):
        program()
    flexible = trace(lambda x: x * 2, (Spec((None, 4), F8),))
    assert flexible(np.ones((7, 4))).shape == (7, 4)
    with pytest.raises(ValueError, match=r"float64\[\?, 4\]"):
        flexible(np.ones((7, 5)))


def test_errors_name_the_step_and_the_line():
    def broken(x):
        raise RuntimeError("no luck")

    fail = Op("fail", broken, lambda x: x)
    program = trace(lambda x: np.exp(fail(x + 1)), (SPEC,))
    with pytest.raises(RuntimeError, match="no luck") as caught:
        program(X)
    (note,) = caught.value.__notes__
    assert re.search(r"step 1: t\d+ = fail\(t\d+\)", note) and re.search(r"recorded at .*test_graph.py:\d+", note)


def test_printing():
    w = Variable(np.ones((4, 2)), name="kernel")
    program = trace(lambda x: {"y": np.tanh(x @ w)}, (SPEC,), name="layer")
    text = str(program)
    assert "program layer(x0: float64[3, 4])" in text and "= tanh(t" in text and "test_graph.py:" in text
    assert len(program.steps) == 2 and repr(program) == "<Program layer: 1 inputs, 2 steps, 1 variables>"
    assert "# kernel" in program.source and program.source.startswith("def replay(x0):")
    forward, backward = program.linearize(0, [w])
    assert "layer_gradient" in str(backward) and "test_graph.py:" in str(backward)


def test_values_are_freed_after_their_last_use():
    alive = []

    def note(x):
        alive.append(sum(r() is not None for r in seen))
        result = x + 1
        seen.append(weakref.ref(result))
        return result

    seen = []
    step = Op("note", note, lambda x: x, lambda node, d: d)

    def function(x):
        for _ in range(5):
            x = step(x)
        return x

    trace(function, (SPEC,))(X)
    assert max(alive) == 1


def test_replays_and_traces_do_not_leak():
    w = Variable(np.ones((4, 4)))

    def step():
        program = trace(lambda x: (np.tanh(x @ w) ** 2).mean(), (SPEC,))
        forward, backward = program.linearize(0, [w])
        for _ in range(100):
            backward(forward(X)[1], 1.0)

    step()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10):
        step()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000, grown


def test_replay_overhead_is_small():
    from time import perf_counter

    cheap = Op("cheap", lambda x: x, lambda x: x, lambda node, d: d)

    def chain(n):
        def function(x):
            for _ in range(n):
                x = cheap(x)
            return x

        return trace(function, (SPEC,))

    def seconds(program):
        best = np.inf
        for _ in range(30):
            start = perf_counter()
            for _ in range(20):
                program(X)
            best = min(best, (perf_counter() - start) / 20)
        return best

    assert (seconds(chain(220)) - seconds(chain(20))) / 200 < 1e-6  # seconds per node; measured 0.05 us


def test_threads_trace_and_replay_at_once():
    shared = trace(lambda x: np.tanh(x * 3).sum(axis=1), (SPEC,))
    forward, backward = shared.linearize(0, shared.inputs)
    failures, barrier = [], threading.Barrier(4)

    def work(seed):
        rng = np.random.default_rng(seed)
        barrier.wait()
        for _ in range(50):
            x = rng.normal(size=(3, 4))
            own = trace(lambda t: (t * seed).sum(), (SPEC,))
            expected = 3 * (1 - np.tanh(x * 3) ** 2)
            got = backward(forward(x)[1], np.ones(3))[0]
            if not (np.allclose(got, expected) and np.allclose(own(x), x.sum() * seed) and not is_tracing()):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


# -- gradients --------------------------------------------------------------------------------------------------------


def test_fan_out_accumulates():
    program = trace(lambda x: (x * x + x + np.sin(x) * x).sum(), (SPEC,))
    np.testing.assert_allclose(gradient(program, X)[0], 2 * X + 1 + np.cos(X) * X + np.sin(X), rtol=1e-14)


def test_outputs_that_are_not_differentiated_and_zero_gradients():
    v, unused = Variable(np.ones(4)), Variable(np.ones((2, 2), "f4"))
    program = trace(lambda x, y: ((x * v).sum(), x * 5, np.argmax(x)), (SPEC, Spec((2,), "f4")))
    forward, backward = program.linearize(0, [unused, program.inputs[1], v])
    (_, five, where), residuals = forward(X, np.ones(2, "f4"))
    d_unused, d_y, d_v = backward(residuals, 1.0)
    np.testing.assert_array_equal(five, X * 5)
    assert where == np.argmax(X)
    assert (
        d_unused.shape == (2, 2)
        and d_unused.dtype == d_y.dtype == np.float32
        and not d_unused.any()
        and d_y.shape == (2,)
    )
    np.testing.assert_allclose(d_v, X.sum(0))
    assert len(residuals) == 1  # x alone: what the other outputs need is not kept
    d_unused += 1
    assert not backward(residuals, 1.0)[0].any()  # zeros are new at each replay


def test_several_outputs():
    program = trace(lambda x: (np.exp(x), {"b": x.sum()}), (SPEC,))
    (got,) = gradient(program, X, outputs=[1, 0], d=[2.0, X])
    np.testing.assert_allclose(got, np.exp(X) * X + 2)


def test_residuals_can_be_used_again_or_released():
    program = trace(lambda x: np.tanh(np.exp(x) * x).sum(), (SPEC,))
    forward, backward = program.linearize(0, program.inputs)
    _, residuals = forward(X)
    first, second = backward(residuals, 1.0)[0], backward(residuals, 2.0)[0]
    np.testing.assert_allclose(second, 2 * first)
    refs = [weakref.ref(r) for r in residuals if r is not X]
    np.testing.assert_array_equal(backward(residuals, 1.0, release=True)[0], first)
    assert residuals == [] and refs and all(r() is None for r in refs)


def test_what_has_no_gradient_is_refused():
    program = trace(lambda x: (x > 0, 3.0, x), (SPEC,))
    with pytest.raises(TypeError, match="output 0 .* is bool"):
        program.linearize(0, program.inputs)
    with pytest.raises(ValueError, match="output 1 .* is 3.0"):
        program.linearize(1, program.inputs)
    with pytest.raises(ValueError, match="no Variable and no input"):
        program.linearize(2, [Tensor(SPEC)])
    with pytest.raises(TypeError, match="not floating point"):
        program.linearize(2, [Variable(3)])
    forward, backward = program.linearize(2, program.inputs)
    with pytest.raises(ValueError, match="as d_outputs entry 0, got float64"):
        backward(forward(X)[1], np.ones(3))


def test_a_wrong_rule_is_found_at_once():
    bad = Op("bad", lambda x: x.sum(axis=0), lambda x: Spec((4,), x.dtype), lambda node, d: d)
    program = trace(lambda x: bad(x), (SPEC,))
    with pytest.raises(ValueError, match="the gradient rule of bad"):
        program.linearize(0, program.inputs)


def test_integers_carry_no_gradient():
    program = trace(lambda x: (x * ops.cast(ops.cast(x, "int32"), F8)).sum(), (SPEC,))
    np.testing.assert_array_equal(gradient(program, X)[0], X.astype("int32"))


def test_gradient_errors_name_the_line_that_is_differentiated():
    def rule(node, d):
        return fails(d)

    def broken(d):
        raise RuntimeError("no luck")

    fails = Op("fails", broken, lambda d: d)
    op = Op("op", lambda x: x, lambda x: x, rule)
    program = trace(lambda x: op(x), (SPEC,))
    line = op_line = program.steps[0].node.line
    forward, backward = program.linearize(0, program.inputs)
    with pytest.raises(RuntimeError) as caught:
        backward(forward(X)[1], X)
    assert f"{line[0]}:{op_line[1]}" in caught.value.__notes__[0]


# -- kernels ----------------------------------------------------------------------------------------------------------


def make_kernel(log):
    """(a, b, None or array) -> (a * b, a + b), with a hand-written pullback that notes how it is called."""

    def forward(a, b, c, *, save, factor):
        log.append(("forward", save))
        return (factor * a * b, a + b), ({"a": a, "b": b} if save else None)

    def infer(a, b, c, *, factor):
        return Spec(a.shape, a.dtype), Spec(a.shape, a.dtype)

    def pullback(saved, d_outputs, needs, *, factor):
        log.append(("pullback", tuple(d is not None for d in d_outputs), needs))
        d_product, d_sum = (0 if d is None else d for d in d_outputs)
        return (
            factor * d_product * saved["b"] + d_sum if needs[0] else None,
            factor * d_product * saved["a"] + d_sum if needs[1] else None,
            None,
        )

    return KernelOp("product_and_sum", forward, infer, pullback)


def test_kernel_in_three_modes_and_its_gradient():
    log = []
    kernel = make_kernel(log)
    product, total = kernel(X, X + 1, None, factor=2.0)
    np.testing.assert_array_equal(product, 2 * X * (X + 1))
    w = Variable(X + 1)
    program = trace(lambda x: (lambda p, s: (np.sin(p) + s).sum())(*kernel(x * 3, w, None, factor=2.0)), (SPEC,))
    program(X)
    assert log == [("forward", False)] * 2
    forward, backward = program.linearize(0, [w, program.inputs[0]])
    log.clear()
    d_w, d_x = backward(forward(X)[1], 1.0)
    assert log == [("forward", True), ("pullback", (True, True), (True, True, False))]
    slope = np.cos(6 * X * (X + 1))
    np.testing.assert_allclose(d_w, slope * 6 * X + 1, rtol=1e-12)
    np.testing.assert_allclose(d_x, 3 * (slope * 2 * (X + 1) + 1), rtol=1e-12)


def test_kernel_is_told_what_is_needed():
    log = []
    kernel = make_kernel(log)
    program = trace(lambda x, y: kernel(x, y, X, factor=1.0)[1], (SPEC, SPEC))
    forward, backward = program.linearize(0, [program.inputs[1]])
    assert np.array_equal(backward(forward(X, X)[1], X)[0], X)
    assert log == [("forward", True), ("pullback", (False, True), (False, True, False))]
    log.clear()
    forward, backward = trace(lambda x, y: (kernel(x, x, None, factor=1.0)[0], y * 1), (SPEC, SPEC)).linearize(1, [])
    forward(X, X)
    assert log == [("forward", False)]  # off the path nothing is saved


def test_a_kernel_that_breaks_its_word_is_named():
    for result, message in (
        ((np.zeros(3),), r"returned float64 \(3,\)"),
        ((None,), "returned None"),
        ((), "returned 0 gradients"),
    ):
        kernel = KernelOp("k", lambda x, save: (x, 1), lambda x: x, lambda saved, d, needs, result=result: result)
        program = trace(lambda x, kernel=kernel: kernel(x), (SPEC,))
        with pytest.raises(ValueError, match=f"the pullback of k {message}"):
            gradient(program, X, d=X)


# -- effects ----------------------------------------------------------------------------------------------------------


def test_effects_run_in_order_at_every_replay():
    log = []
    draw = Op(
        "draw", lambda *, name: log.append(name) or np.float64(len(log)), lambda *, name: Spec((), F8), effect=True
    )

    def function(x):
        a = draw(name="a")
        b = draw(name="b")
        draw(name="c")
        return x * b + a

    program = trace(function, (Spec((), F8),))
    assert log == []
    assert program(np.float64(10)) == 21
    assert program(np.float64(10)) == 54
    assert log == ["a", "b", "c"] * 2
    (d_x,) = gradient(program, np.float64(1))
    assert d_x == 8 and len(log) == 9  # the gradient uses the forward draw, and draws nothing itself


def test_assignments_are_ordered_with_reads():
    v = Variable(np.array([1.0, 2.0]))

    def function(x):
        before = v * 10
        v.assign(v + x)
        after = v * 10
        v.assign_add(x)
        return before, after, v, v.value

    program = trace(function, (Spec((2,), F8),))
    assert v.value.tolist() == [1, 2] and v.version == 0
    before, after, last, also = program(np.ones(2))
    assert before.tolist() == [10, 20] and after.tolist() == [20, 30] and last.tolist() == also.tolist() == [3, 4]
    assert v.value.tolist() == [3, 4] and v.version == 2
    program(np.ones(2))
    assert last.tolist() == [3, 4] and v.value.tolist() == [5, 6]  # what was handed out is not written to
    with pytest.raises(ValueError, match="cannot be assigned a value of shape"):
        trace(lambda x: v.assign(x), (SPEC,))


def test_gradient_uses_the_value_before_an_assignment_and_flows_through_it():
    v = Variable(np.array(3.0))

    def function(x):
        y = x * v
        v.assign(y)
        return y + v * v  # v is now x * v_before

    program = trace(function, (Spec((), F8),))
    d_x, d_v = gradient(program, np.float64(2.0), wrt=[program.inputs[0], v])
    assert (d_x, d_v) == (3 + 2 * 6 * 3, 2 + 2 * 6 * 2)
    assert v.value == 6


def test_a_variable_handed_out_is_a_copy():
    v = Variable(np.ones(2))
    out = trace(lambda: v, ())()
    v.assign(np.zeros(2))
    assert out.tolist() == [1, 1]


# -- functional graphs -------------------------------------------------------------------------------------------------


def test_functional_graph_of_operations_and_callables():
    a, b = Tensor(Spec((None, 4), F8), name="a"), Tensor(Spec((4, 2), F8), name="b")
    w = Variable(np.ones(2))
    hidden = np.tanh(a) @ b + w
    assert hidden.shape == (None, 2) and hidden.node.name == "add"

    def layer(x, scale, training=False):
        return {"y": x["in"] * scale, "n": x["in"].sum()}

    out = record(layer, ({"in": hidden}, 2.0), {"training": True}, {"y": Spec((None, 2), F8), "n": Spec((), F8)})
    node = out["y"].node
    assert (
        node is out["n"].node
        and node.operation is layer
        and node.kwargs == {"training": True}
        and node.inputs == [hidden]
    )
    assert node.args[0]["in"] is hidden and out["y"].index != out["n"].index
    total = [out["y"] + 1, out["n"]]
    graph = FunctionalGraph([a, b], total)
    assert [n.name for n in graph.nodes] == ["tanh", "matmul", "add", "layer", "add"]
    m = np.random.default_rng(1).normal(size=(4, 2))
    expected = 2 * (np.tanh(X) @ m + 1)
    y, n = evaluate(total, [a, b], [X, m])
    np.testing.assert_allclose(y, expected + 1)
    np.testing.assert_allclose(n, expected.sum() / 2)

    # the same graph traced becomes a program with gradients
    program = trace(lambda x, y: graph(x, y)[1], (SPEC, Spec((4, 2), F8)))
    d_w, d_m = gradient(program, X, m, wrt=[w, program.inputs[1]])
    np.testing.assert_allclose(d_w, [3, 3])
    np.testing.assert_allclose(d_m, np.tanh(X).T @ np.ones((3, 2)))

    # and connected anew to other symbols
    again = graph(Tensor(Spec((5, 4), F8)), b)
    assert again[0].shape == (5, 2) and again[0] is not total[0]

    seen = []
    graph(X, m, call=lambda node, args, kwargs: seen.append(node.name) or node.operation(*args, **kwargs))
    assert seen == ["tanh", "matmul", "add", "layer", "add"]


def test_functional_graphs_say_what_is_missing():
    a, b = Tensor(SPEC, name="first"), Tensor(SPEC, name="second")
    with pytest.raises(ValueError, match="disconnected.*'second'.*at operation 'add'"):
        FunctionalGraph([a], [a + b])
    with pytest.raises(TypeError, match="takes 1 inputs, got 2"):
        FunctionalGraph([a], a * 2)(X, X)
    with pytest.raises(TypeError, match="symbolic tensors"):
        FunctionalGraph([X], a)


def test_a_graph_may_be_cut_and_deep():
    a = Tensor(Spec((), F8))
    x = a
    for _ in range(3000):
        x = x + 1
    assert evaluate(x, a, np.float64(0)) == 3000
    middle = x.node.inputs[0]
    assert evaluate(x, middle, np.float64(5)) == 6


def test_long_programs():
    program = trace(lambda x: sum((x * 1.0 for _ in range(1000)), x * 0), (Spec((), F8),))
    assert program(np.float64(2)) == 2000
    assert gradient(program, np.float64(2))[0] == 1000


def test_abstract_computes_nothing():
    ran = []
    op = Op("op", lambda x: ran.append(1), lambda x: Spec((x.shape[0], 7), "int32"))
    v = Variable(1.0)
    spec = abstract(lambda x: {"a": op(x), "b": (v, v.assign(2.0), 3)}, (Tensor(Spec((None, 2))),))
    assert spec == {"a": Spec((None, 7), "int32"), "b": (Spec(()), Spec(()), 3)}
    assert not ran and v.value == 1


def test_inline_repeats_the_operations():
    v = Variable(np.ones(4))

    def function(x):
        y = x * v
        v.assign(y[0])
        return y + v

    program = trace(function, (SPEC,))
    expected = X + X[0]
    np.testing.assert_array_equal(program.inline(X), expected)
    v.assign(np.ones(4))
    outer = trace(lambda x: program.inline(x * 1).sum(), (SPEC,))
    assert outer(X) == expected.sum()
    with pytest.raises(TypeError, match="takes 1 inputs"):
        program.inline()


def test_specs():
    assert Spec((2, None), "f4") == Spec([2, None], np.float32) != Spec((2, 3), "f4")
    assert len({Spec((2,)), Spec((2,))}) == 1 and not Spec((None,)).known and Spec((2, 3)).ndim == 2
    assert Spec((None, 2), F8).fits(np.zeros((5, 2))) and not Spec((None, 2), F8).fits(np.zeros((5, 3)))
    assert repr(Spec((2, None))) == "Spec((2, None), 'float32')"
    assert Spec.of(2.5).weak == 2.5 and Spec.of(np.zeros((2,))) == Spec((2,), F8) and Spec.of(None) is None
    assert tree.leaves([Spec((2,))]) == [Spec((2,))]
