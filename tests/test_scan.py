"""A step repeated over time as one operation: against the same steps written one after the other."""

import numpy as np
import pytest

from numbarnn import graph, layers, ops, random, utils
from numbarnn.graph import Spec
from numbarnn.scan import scan
from numbarnn.variable import Variable

B, T, F, U = 3, 5, 4, 6


@pytest.fixture
def weights(rng):
    def weight(*shape):
        return Variable(rng.normal(size=shape) * 0.5, name="w", dtype="float64")

    return {"kernel": weight(F, U), "again": weight(U, U), "bias": weight(U), "scale": weight(), "row": weight(1, U)}


def everything(w):
    """A step with parts of all kinds: of weights alone, of inputs alone, of states; sums, shapes, choices."""

    def step(inputs, states):
        (x,), (h, count) = inputs, states
        gate = ops.sigmoid(ops.matmul(x, w["kernel"]) * ops.exp(w["scale"]) + w["bias"])
        pair = ops.concatenate([gate, ops.square(x)], axis=-1)
        z = ops.tanh(ops.matmul(h, ops.transpose(w["again"]) + 0.1) + pair[:, :U] + w["row"])
        z = z - ops.mean(z, axis=-1, keepdims=True)
        parts = ops.reshape(z, (-1 if x.shape[0] is None else x.shape[0], 2, U // 2))
        z = z + ops.reshape(
            ops.sum(parts, axis=1, keepdims=True) * ops.ones((2, 1)), z.shape if z.shape[0] else (-1, U)
        )
        new = h + ops.where(z > 0, z, 0.5 * z) / (count + 1)
        return [ops.matmul(new, w["again"]), pair], [new, count + 1], [ops.sum(z * z)]

    return step


def one_by_one(step, x, states, mask, reset, backwards, return_sequences, zero_output):
    """The same, unrolled."""
    emitted, extras, last = [], [], None
    order = range(x.shape[1])[:: -1 if backwards else 1]
    for t in order:
        if reset is not None:
            keep = ops.expand_dims(ops.logical_not(reset[:, t]), -1)
            states = [ops.where(keep, s, ops.zeros_like(s)) for s in states]
            last = last and [ops.where(keep, s, ops.zeros_like(s)) for s in last]
        outs, new, extra = step([x[:, t]], states)
        if mask is not None:
            counts = ops.expand_dims(mask[:, t], -1)
            before = [ops.zeros_like(out) for out in outs] if last is None or zero_output else last
            outs = [ops.where(counts, a, b) for a, b in zip(outs, before, strict=True)]
            new = [ops.where(counts, a, b) for a, b in zip(new, states, strict=True)]
        states, last = new, outs
        emitted.append(outs)
        extras.append(extra)
    shown = [ops.stack(o, axis=1) for o in zip(*emitted, strict=True)] if return_sequences else last
    return shown, states, [ops.stack(e) for e in zip(*extras, strict=True)]


MASK = np.array([[1, 1, 0, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 0]], bool)
RESET = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [0, 1, 0, 0, 0]], bool)


def gradients(run, x, h, variables, mask, reset, specs, rng):
    def whole(x, h):
        outs, states, extras = run(x, [h, ops.zeros_like(h[:, :1])])
        return [*outs, *states, *extras]

    program = graph.trace(whole, specs)
    heads = list(range(len(program.outputs)))
    forward, backward = program.linearize(heads, [*variables, *program.inputs])
    values, residuals = forward(x, h)
    d = [np.cos(np.arange(v.size, dtype=float)).reshape(v.shape) for v in values]
    return values, backward(residuals, d), program


@pytest.mark.parametrize("known", [True, "batch", False], ids=["known", "timesteps unknown", "nothing known"])
@pytest.mark.parametrize("flags", ["", "mask", "reset", "mask and reset"])
@pytest.mark.parametrize(
    "options",
    [{}, {"backwards": True, "return_sequences": False}, {"zero_output": True}],
    ids=["forwards", "backwards", "zeros"],
)
def test_values_and_gradients_are_those_of_the_steps_one_by_one(options, flags, known, weights, rng):
    x, h = rng.normal(size=(B, T, F)), rng.normal(size=(B, U))
    given = {
        "mask": MASK if "mask" in flags else None,
        "reset": RESET if "reset" in flags else None,
        **{"backwards": False, "return_sequences": True, "zero_output": False},
        **options,
    }
    step, variables = everything(weights), list(weights.values())
    whole = Spec((B, T, F), "float64"), Spec((B, U), "float64")
    some = {True: whole, "batch": (Spec((B, None, F), "float64"), whole[1])}
    specs = some.get(known, (Spec((None, None, F), "float64"), Spec((None, U), "float64")))
    expected = gradients(lambda x, s: one_by_one(step, x, s, **given), x, h, variables, None, None, whole, rng)
    found = gradients(lambda x, s: scan(step, [x], s, **given), x, h, variables, None, None, specs, rng)
    for a, b in zip(found[0] + found[1], expected[0] + expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def loop_of(program):
    """The program within a program that a scan repeats."""
    (node,) = [node for node in program.nodes if node.operation.name.startswith("repeat_")]
    return node.operation.loop


def names(program):
    return [step.node.operation.name for step in program.steps]


def test_what_needs_no_state_is_done_once_for_all_timesteps(weights):
    def step(inputs, states):
        z = ops.matmul(inputs[0], weights["kernel"]) + weights["bias"]
        new = ops.tanh(z * ops.exp(weights["scale"]) + ops.matmul(states[0], weights["again"]))
        return [new], [new], []

    program = graph.trace(
        lambda x, h: scan(step, [x], [h])[0][0], (Spec((B, T, F), "float64"), Spec((B, U), "float64"))
    )
    assert names(loop_of(program).program) == ["packed_matmul_onto", "tanh"]
    assert names(program).count("matmul") == names(program).count("exp") == 1
    plan = loop_of(program).plan((True,) * len(loop_of(program).program.inputs))
    assert "matmul" not in names(plan.back) and names(plan.tail).count("matmul") == 1
    assert plan.step_sums == []


def test_variables_assigned_in_a_step_go_on_from_step_to_step(rng):
    total = Variable(np.zeros(2), name="total", dtype="float64")

    def step(inputs, states):
        total.assign(total * 0.5 + ops.sum(inputs[0], axis=0))
        return [inputs[0] * total], [states[0] + 1], []

    program = graph.trace(
        lambda x: (scan(step, [x], [np.zeros((B, 1))])[0][0], total + 0), (Spec((B, T, 2), "float64"),)
    )
    x = rng.normal(size=(B, T, 2))
    for _ in range(2):
        now, expected = total.numpy(), []
        for t in range(T):
            now = now * 0.5 + x[:, t].sum(0)
            expected.append(x[:, t] * now)
        out, after = program(x)
        np.testing.assert_allclose(out, np.stack(expected, 1), rtol=1e-13)
        np.testing.assert_allclose(total.numpy(), now, rtol=1e-13)
        np.testing.assert_array_equal(after, total.numpy())


def test_each_step_draws_anew_and_going_back_uses_the_same_draws():
    generator = random.SeedGenerator(5)
    w = Variable(np.ones(U), name="w", dtype="float64")

    def step(inputs, states):
        noise = random.normal((B, U), dtype="float64", seed=generator)
        return [noise], [states[0] + noise * w], []

    program = graph.trace(lambda x: scan(step, [x], [np.zeros((B, U))])[:2], (Spec((B, T, F), "float64"),))
    state = [i for i, x in enumerate(program.outputs) if x.shape == (B, U)]
    forward, backward = program.linearize(state[0], [w])
    ([noise], [last]), residuals = forward(np.zeros((B, T, F)))
    assert len(np.unique(noise)) == noise.size
    np.testing.assert_allclose(noise.sum(1), last, rtol=1e-12)
    np.testing.assert_allclose(backward(residuals, np.ones((B, U)))[0], noise.sum((0, 1)), rtol=1e-12)
    ([again], _), _ = forward(np.zeros((B, T, F)))
    assert not np.any(again == noise)


def test_steps_that_do_not_fit_are_refused():
    x, h = Spec((B, T, F)), Spec((B, U))
    with pytest.raises(ValueError, match="the step has 1 states, but it returned 2 of them"):
        graph.trace(lambda x, h: scan(lambda i, s: (s, [*s, *s], []), [x], [h]), (x, h))
    with pytest.raises(ValueError, match=r"returned state 0 of shape \(3, 4\), it had \(3, 6\)"):
        graph.trace(lambda x, h: scan(lambda i, s: (s, i, []), [x], [h]), (x, h))


def test_an_error_names_the_line_of_the_step(rng):
    fails = graph.Op("fails", lambda z: 1 / 0, lambda z: z)
    program = graph.trace(
        lambda x, h: scan(lambda i, s: (s, [fails(s[0])], []), [x], [h]), (Spec((B, T, F)), Spec((B, U)))
    )
    with pytest.raises(ZeroDivisionError) as caught:
        program(np.zeros((B, T, F), "float32"), np.zeros((B, U), "float32"))
    assert any("test_scan.py" in note for note in caught.value.__notes__)


def test_the_programs_of_a_layer_are_used_again_until_it_changes():
    calls = []

    class Cell(layers.Layer):
        state_size = U
        scale = 1.0

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], U), name="kernel")

        def call(self, inputs, states):
            calls.append(1)
            new = ops.matmul(inputs, self.kernel) * self.scale + states[0]
            return new, [new]

    utils.set_random_seed(1)
    layer = layers.RNN(Cell())
    x = np.ones((B, T, F), "float32")
    first = layer(x)
    before = len(calls)
    np.testing.assert_array_equal(layer(x), first)
    np.testing.assert_allclose(layer(x[:, :2]) * (T / 2), first, rtol=1e-5)  # any number of timesteps
    assert len(calls) == before
    layer.cell.kernel.assign(layer.cell.kernel * 2)
    np.testing.assert_allclose(layer(x), 2 * first, rtol=1e-5)
    assert len(calls) == before
    layer.cell.scale = 0.5
    np.testing.assert_allclose(layer(x), first, rtol=1e-5)
    assert len(calls) == before + 1


def test_attributes_of_a_plain_cell_are_seen():
    class Plain:
        state_size = F
        scale = 1.0

        def call(self, inputs, states):
            new = states[0] + self.scale * inputs
            return new, new

    layer = layers.RNN(Plain())
    x = np.ones((B, T, F), "float32")
    assert layer(x)[0, 0] == T
    layer.cell.scale = 3.0
    assert layer(x)[0, 0] == 3 * T


def test_gradients_of_pieces_become_one_array(rng):
    w = Variable(rng.normal(size=(F, 3 * U)), name="w", dtype="float64")

    def run(x):
        z = ops.matmul(x, w)
        a, b, c = ops.split(z, 3, axis=-1)
        return ops.sum(ops.sin(a) * b + ops.square(c) + ops.cos(z[:, 1 : 1 + U]))  # the last overlaps two of them

    program = graph.trace(run, (Spec((B, F), "float64"),))
    forward, backward = program.linearize(0, [w])
    assert names(backward).count("scatter_pieces") == 1 and "add" not in names(backward)
    x = rng.normal(size=(B, F))
    gradient = backward(forward(x)[1], np.ones(()))[0]
    direction, start = rng.normal(size=w.shape), w.numpy()
    values = []
    for step in (1e-6, -1e-6):
        w.assign(start + step * direction)
        values.append(program(x))
    np.testing.assert_allclose(np.sum(gradient * direction), (values[0] - values[1]) / 2e-6, rtol=1e-7)


def test_a_row_alone_has_the_bits_that_it_has_in_a_batch(rng):
    """In a batch of one, a row of weights has the shape of a product."""
    w = {
        name: Variable(rng.normal(size=s), name=name, dtype="float64") for name, s in (("again", (U, U)), ("b", (1, U)))
    }

    def step(inputs, states):
        new = ops.tanh(ops.matmul(states[0], w["again"]) + w["b"] + inputs[0][:, :1])
        return [new], [new], []

    x, h = rng.normal(size=(40, T, F)), rng.normal(size=(40, U))

    def run(x, h):
        specs = Spec(x.shape, x.dtype), Spec(h.shape, h.dtype)
        return graph.trace(lambda x, h: scan(step, [x], [h])[0][0], specs)(x, h)

    whole = run(x, h)
    for row in range(40):
        np.testing.assert_array_equal(run(x[row : row + 1], h[row : row + 1])[0], whole[row])
