"""Inputs, outputs and states that are nests: the guide's NestedCell, a version with dicts, matrices as states."""

from collections import namedtuple

import numpy as np
import pytest

import numbarnn
from numbarnn import graph, layers, ops
from numbarnn.graph import Spec
from numbarnn.tree import leaves

B, T, I1, I2, I3, U1, U2, U3 = 3, 4, 2, 3, 2, 5, 2, 3
MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)


class NestedCell(layers.Layer):
    """The guide's cell: two inputs of different rank, two states, two outputs."""

    def __init__(self, unit_1, unit_2, unit_3, **kwargs):
        self.unit_1, self.unit_2, self.unit_3 = unit_1, unit_2, unit_3
        self.state_size = [numbarnn.TensorShape([unit_1]), numbarnn.TensorShape([unit_2, unit_3])]
        self.output_size = [numbarnn.TensorShape([unit_1]), numbarnn.TensorShape([unit_2, unit_3])]
        super().__init__(**kwargs)

    def build(self, input_shapes):
        i1, i2, i3 = input_shapes[0][1], input_shapes[1][1], input_shapes[1][2]
        self.kernel_1 = self.add_weight(shape=(i1, self.unit_1), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(
            shape=(i2, i3, self.unit_2, self.unit_3), initializer="uniform", name="kernel_2_3"
        )

    def call(self, inputs, states):
        input_1, input_2 = inputs
        s1, s2 = states
        output_1 = ops.matmul(input_1, self.kernel_1)
        output_2_3 = ops.einsum("bij,ijkl->bkl", input_2, self.kernel_2_3)
        state_1 = s1 + output_1
        state_2_3 = s2 + output_2_3
        return (state_1, ops.tanh(state_2_3)), (state_1, state_2_3)

    def get_config(self):
        raise AssertionError("nothing but saving needs a configuration")


Pair = namedtuple("Pair", "z a")


class DictCell(layers.Layer):
    """The same with dicts; the states are a namedtuple that holds one."""

    def __init__(self, unit_1, unit_2, unit_3, **kwargs):
        super().__init__(**kwargs)
        self.units = unit_1, unit_2, unit_3
        matrix = numbarnn.TensorShape([unit_2, unit_3])
        self.state_size = Pair(z={"w": unit_1, "b": matrix}, a=1)
        self.output_size = {"w": unit_1, "b": matrix}

    def build(self, input_shapes):
        i1, (i2, i3) = input_shapes["w"][1], input_shapes["b"][1:]
        self.kernel_1 = self.add_weight(shape=(i1, self.units[0]), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(shape=(i2, i3, *self.units[1:]), initializer="uniform", name="kernel_2_3")

    def call(self, inputs, states):
        s1, s2 = states.z["w"], states.z["b"]
        s1 = s1 + ops.matmul(inputs["w"], self.kernel_1)
        s2 = s2 + np.einsum("bij,ijkl->bkl", inputs["b"], self.kernel_2_3)
        return {"w": s1, "b": ops.tanh(s2)}, Pair(z={"w": s1, "b": s2}, a=states.a + 1)


def naive(x1, x2, k1, k23, h1=0.0, h2=0.0, mask=None):
    """The equations of both cells; (outputs, last states)."""
    s1, s2 = np.zeros((B, U1)) + h1, np.zeros((B, U2, U3)) + h2
    o1, o2, outs = np.zeros((B, U1)), np.zeros((B, U2, U3)), []
    for t in range(x1.shape[1]):
        for b in range(B):
            if mask is None or mask[b, t]:
                s1[b] += x1[b, t] @ k1
                s2[b] += np.tensordot(x2[b, t], k23, 2)
                o1[b], o2[b] = s1[b], np.tanh(s2[b])
        outs.append((o1.copy(), o2.copy()))
    return [np.stack([o[i] for o in outs], 1) for i in (0, 1)], [s1, s2]


@pytest.fixture
def x(rng):
    return rng.normal(size=(B, T, I1)), rng.normal(size=(B, T, I2, I3))


def nested(**options):
    return layers.RNN(NestedCell(U1, U2, U3, dtype="float64"), dtype="float64", **options)


def with_dicts(**options):
    return layers.RNN(DictCell(U1, U2, U3, dtype="float64"), dtype="float64", **options)


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_values_of_the_guides_cell(x, mask):
    layer = nested(return_sequences=True, return_state=True)
    found = layer(x, mask=mask)
    weights = [w.numpy() for w in layer.weights]
    outs, states = naive(*x, *weights, mask=mask)
    for a, b in zip(found, [*outs, *states], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    last = nested()
    last.cell = layer.cell
    for a, b in zip(last(x, mask=mask), outs, strict=True):
        np.testing.assert_allclose(a, b[:, -1], rtol=1e-12, atol=1e-14)


def test_values_of_the_cell_with_dicts(x):
    layer = with_dicts(return_sequences=True, return_state=True)
    inputs = {"w": x[0], "b": x[1]}
    out, state = layer(inputs)[0], layer(inputs)[1]
    outs, states = naive(*x, *(w.numpy() for w in layer.weights))
    assert list(out) == ["w", "b"] and isinstance(state, Pair)
    for a, b in zip((out["w"], out["b"], state.z["w"], state.z["b"]), [*outs, *states], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert np.all(state.a == T)
    plain = with_dicts()
    plain.cell = layer.cell
    np.testing.assert_allclose(plain(inputs)["b"], outs[1][:, -1], rtol=1e-12)


@pytest.mark.parametrize("make", [nested, with_dicts])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_gradients(make, mask, x, rng):
    layer = make(return_sequences=True, return_state=True)
    whole = (lambda a, b: (a, b)) if make is nested else (lambda a, b: {"w": a, "b": b})
    layer(whole(*x))

    def run(a, b):
        return leaves(layer(whole(a, b), mask=mask))

    program = graph.trace(run, tuple(Spec(a.shape, a.dtype) for a in x))
    numbers = range(len(program.outputs))
    d = [rng.normal(size=x.spec.shape) for x in program.outputs]
    forward, backward = program.linearize(list(numbers), [*layer.trainable_variables, *program.inputs])
    _, residuals = forward(*x)
    gradients = backward(residuals, d)

    def loss():
        return sum(np.sum(a * b) for a, b in zip(program(*x), d, strict=True))

    for target, gradient in zip([*layer.trainable_variables, *x], gradients, strict=True):
        value = target.data if hasattr(target, "data") and hasattr(target, "touch") else target
        direction = rng.normal(size=value.shape)
        before = value.copy()
        value += 1e-6 * direction
        high = loss()
        value[...] = before - 1e-6 * direction
        low = loss()
        value[...] = before
        np.testing.assert_allclose(np.sum(gradient * direction), (high - low) / 2e-6, rtol=1e-6, atol=1e-8)


def test_the_guides_shapes():
    """The guide: two inputs (batch, None, 32) and (batch, None, 64, 32), units 10, 20, 30."""
    cell = NestedCell(10, 20, 30)
    layer = layers.RNN(cell)
    shapes = layer.compute_output_shape(((None, None, 32), (None, None, 64, 32)))
    assert [tuple(s) for s in shapes] == [(None, 10), (None, 20, 30)]
    outputs = layer((numbarnn.Input((None, 32)), numbarnn.Input((None, 64, 32))))
    assert [o.shape for o in outputs] == [(None, 10), (None, 20, 30)]
    assert layer.count_params() == 32 * 10 + 64 * 32 * 20 * 30
    sequences = layers.RNN(cell, return_sequences=True, return_state=True)
    shapes = sequences.compute_output_shape(((7, 5, 32), (7, 5, 64, 32)))
    assert [tuple(s) for s in shapes] == [(7, 5, 10), (7, 5, 20, 30), (7, 10), (7, 20, 30)]


def test_shapes_with_dicts():
    layer = with_dicts(return_sequences=True)
    shapes = layer.compute_output_shape({"w": (B, T, I1), "b": (B, T, I2, I3)})
    assert shapes == {"w": (B, T, U1), "b": (B, T, U2, U3)}
    outputs = layer({"w": numbarnn.Input((T, I1)), "b": numbarnn.Input((T, I2, I3))})
    assert {key: o.shape for key, o in outputs.items()} == {"w": (None, T, U1), "b": (None, T, U2, U3)}


@pytest.mark.parametrize("make", [nested, with_dicts])
def test_stateful(make, x):
    whole = (lambda a, b: (a, b)) if make is nested else (lambda a, b: {"w": a, "b": b})
    layer = make(stateful=True, return_sequences=True)
    together = make(return_sequences=True)
    together.cell = layer.cell
    expected = leaves(together(whole(*x)))
    first = leaves(layer(whole(x[0][:, :2], x[1][:, :2])))
    second = leaves(layer(whole(x[0][:, 2:], x[1][:, 2:])))
    for a, b, c in zip(first, second, expected, strict=True):
        np.testing.assert_allclose(np.concatenate([a, b], 1), c, rtol=1e-12)
    states = leaves(layer.states)
    layer.reset_states()
    assert all(not np.any(s) for s in leaves(layer.states))
    layer.reset_states(states)
    for a, b in zip(leaves(layer.states), states, strict=True):
        np.testing.assert_array_equal(a, b)
    layer.reset_states(mask=np.array([True, False, False]))
    assert all(not np.any(s[0]) and np.any(s[1]) for s in leaves(layer.states))


def test_initial_states_time_major_backwards_and_masks(x, rng):
    h1, h2 = rng.normal(size=(B, U1)), rng.normal(size=(B, U2, U3))
    layer = nested(return_state=True, go_backwards=True, time_major=True)
    swapped = tuple(np.swapaxes(a, 0, 1) for a in x)
    found = layer(swapped, initial_state=[h1, h2])
    weights = [w.numpy() for w in layer.weights]
    outs, states = naive(*(a[:, ::-1] for a in x), *weights, h1, h2)
    for a, b in zip(found, [outs[0][:, -1], outs[1][:, -1], *states], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    listed = layer([swapped, h1, h2])
    for a, b in zip(listed, found, strict=True):
        np.testing.assert_array_equal(a, b)
    masked = nested(return_sequences=True, return_state=True)
    masks = masked.compute_mask(x, (MASK, None))
    assert masks[0] is MASK and masks[1] is MASK and masks[2:] == [None, None]


def test_in_a_stack_and_under_bidirectional(x):
    class Join(layers.Layer):
        """Takes both outputs of the cell below."""

        state_size = 2

        def build(self, shapes):
            self.kernel = self.add_weight(shape=(U1 + U2 * U3, 2), name="kernel")

        def call(self, inputs, states):
            a, b = inputs
            joined = ops.concatenate([a, ops.reshape(b, (B, U2 * U3))])
            out = ops.tanh(ops.matmul(joined, self.kernel) + states[0])
            return out, [out]

    stack = layers.RNN([NestedCell(U1, U2, U3, dtype="float64"), Join(dtype="float64")], dtype="float64")
    below = nested(return_sequences=True)
    found = stack(x)
    below.cell = stack.cell.cells[0]
    above = layers.RNN(stack.cell.cells[1], dtype="float64")
    np.testing.assert_allclose(found, above(tuple(below(x))), rtol=1e-12)

    class Copied(NestedCell):
        def get_config(self):
            return {"unit_1": U1, "unit_2": U2, "unit_3": U3, "dtype": "float64"}

    both = layers.Bidirectional(
        layers.RNN(Copied(U1, U2, U3), return_sequences=True, return_state=True, dtype="float64"), dtype="float64"
    )
    outs = both(x)
    ahead, back = both.forward_layer(x), both.backward_layer(x)
    assert [o.shape for o in outs] == [tuple(s) for s in both.compute_output_shape(tuple(a.shape for a in x))]
    np.testing.assert_allclose(outs[0], np.concatenate([ahead[0], back[0][:, ::-1]], -1))
    np.testing.assert_allclose(outs[1], np.concatenate([ahead[1], back[1][:, ::-1]], -1))
    for a, b in zip(outs[2:], [*ahead[2:], *back[2:]], strict=True):
        np.testing.assert_array_equal(a, b)


def test_refusals(x):
    with pytest.raises(
        ValueError, match="All inputs of layer .* must have the same batch size and number of timesteps"
    ):
        nested()((x[0], x[1][:, :2]))
    with pytest.raises(ValueError, match="takes one array at each timestep, not a nest"):
        layers.RNN(layers.LSTMCell(3))(x)
    with pytest.raises(ValueError, match="An `initial_state` was passed that is not compatible with `cell.state_size`"):
        nested()(x, initial_state=[np.zeros((B, U1)), np.zeros((B, U2 * U3))])
