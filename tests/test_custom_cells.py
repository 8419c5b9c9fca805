"""Cells that a user writes: values against naive NumPy, gradients by differences, training; errors that say what to
mend."""

import numpy as np
import pytest

import numbarnn
from numbarnn import graph, layers, models, ops, utils
from numbarnn.graph import Spec

B, T, F, U = 3, 6, 4, 5
MASK = np.array([[1, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 0]], bool)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


class Cell(layers.Layer):
    """What the cells below share: weights by name, of given shapes."""

    def __init__(self, units=U, **kwargs):
        self.units = units
        self.state_size = self.sizes(units)  # before super().__init__(), as the guide has it
        super().__init__(**kwargs)

    def sizes(self, units):
        return units

    def build(self, input_shape):
        for name, shape in self.shapes(input_shape[-1], self.units).items():
            setattr(self, name, self.add_weight(shape=shape, initializer="random_normal", name=name))
        self.built = True


class Minimal(Cell):
    """The guide's MinimalRNNCell, with `K.dot`."""

    def shapes(self, n, u):
        return {"kernel": (n, u), "recurrent_kernel": (u, u)}

    def call(self, inputs, states):
        h = numbarnn.backend.dot(inputs, self.kernel)
        output = h + numbarnn.backend.dot(states[0], self.recurrent_kernel)
        return output, [output]

    @staticmethod
    def naive(w, x, s):
        h = x @ w["kernel"] + s[0] @ w["recurrent_kernel"]
        return h, [h]


class PlainNumPy(Minimal):
    """In functions of NumPy; the state comes back bare."""

    def call(self, inputs, states):
        output = np.tanh(inputs @ self.kernel + np.dot(states[0], self.recurrent_kernel))
        return output, output

    @staticmethod
    def naive(w, x, s):
        h = np.tanh(x @ w["kernel"] + s[0] @ w["recurrent_kernel"])
        return h, [h]


class Peephole(Cell):
    """The LSTM whose gates see the cell state."""

    def sizes(self, u):
        return (u, u)

    def shapes(self, n, u):
        return {"kernel": (n, 4 * u), "recurrent_kernel": (u, 4 * u), "bias": (4 * u,), "peep": (3, u)}

    def call(self, inputs, states):
        h, c = states
        z = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel) + self.bias
        i, f, g, o = ops.split(z, 4, axis=-1)
        i, f = ops.sigmoid(i + c * self.peep[0]), ops.sigmoid(f + c * self.peep[1])
        c = f * c + i * ops.tanh(g)
        h = ops.sigmoid(o + c * self.peep[2]) * ops.tanh(c)
        return h, (h, c)

    @staticmethod
    def naive(w, x, s):
        h, c = s
        i, f, g, o = np.split(x @ w["kernel"] + h @ w["recurrent_kernel"] + w["bias"], 4, -1)
        i, f = sigmoid(i + c * w["peep"][0]), sigmoid(f + c * w["peep"][1])
        c = f * c + i * np.tanh(g)
        h = sigmoid(o + c * w["peep"][2]) * np.tanh(c)
        return h, [h, c]


def normalized(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-3)


class NormalizedGRU(Cell):
    """A GRU with layer normalisation of its products."""

    def shapes(self, n, u):
        return {"kernel": (n, 3 * u), "recurrent_kernel": (u, 3 * u), "gamma": (3 * u,), "beta": (3 * u,)}

    def normal(self, z):
        mean = ops.mean(z, axis=-1, keepdims=True)
        return (z - mean) / ops.sqrt(ops.mean(ops.square(z - mean), axis=-1, keepdims=True) + 1e-3)

    def call(self, inputs, states):
        (h,), u = states, self.units
        x = self.normal(ops.matmul(inputs, self.kernel)) * self.gamma + self.beta
        m = self.normal(ops.matmul(h, self.recurrent_kernel))
        z, r = ops.sigmoid(x[:, :u] + m[:, :u]), ops.sigmoid(x[:, u : 2 * u] + m[:, u : 2 * u])
        h = z * h + (1 - z) * ops.tanh(x[:, 2 * u :] + r * m[:, 2 * u :])
        return h, [h]

    @staticmethod
    def naive(w, x, s):
        h = s[0]
        x = normalized(x @ w["kernel"]) * w["gamma"] + w["beta"]
        m = normalized(h @ w["recurrent_kernel"])
        (xz, xr, xh), (mz, mr, mh) = np.split(x, 3, -1), np.split(m, 3, -1)
        z = sigmoid(xz + mz)
        h = z * h + (1 - z) * np.tanh(xh + sigmoid(xr + mr) * mh)
        return h, [h]


class Clockwork(Cell):
    """Units that move at every timestep, at every second, at every fourth; the time is a state."""

    periods = np.array([1, 1, 2, 2, 4])

    def sizes(self, u):
        return [u, 1]

    def shapes(self, n, u):
        return {"kernel": (n, u), "recurrent_kernel": (u, u), "bias": (u,)}

    def call(self, inputs, states):
        h, t = states
        slower = (self.periods[:, None] >= self.periods[None, :]).astype(self.dtype)
        new = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel * slower) + self.bias)
        h = ops.where(ops.equal(ops.mod(t, self.periods.astype(self.dtype)), 0), new, h)
        return h, [h, t + 1]

    @classmethod
    def naive(cls, w, x, s):
        h, t = s
        new = np.tanh(x @ w["kernel"] + h @ (w["recurrent_kernel"] * (cls.periods[:, None] >= cls.periods)) + w["bias"])
        h = np.where(t % cls.periods == 0, new, h)
        return h, [h, t + 1]


class FastWeights(Cell):
    """A hidden state, and a matrix that is written by outer products and read."""

    def sizes(self, u):
        return [u, numbarnn.TensorShape([u, u])]

    def shapes(self, n, u):
        return {"kernel": (n, u), "recurrent_kernel": (u, u), "rate": ()}

    def call(self, inputs, states):
        h, matrix = states
        z = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        matrix = 0.9 * matrix + self.rate * ops.expand_dims(h, 2) * ops.expand_dims(h, 1)
        h = ops.tanh(z + ops.einsum("bij,bj->bi", matrix, ops.tanh(z)))
        return h, [h, matrix]

    @staticmethod
    def naive(w, x, s):
        h, matrix = s
        z = x @ w["kernel"] + h @ w["recurrent_kernel"]
        matrix = 0.9 * matrix + w["rate"] * h[:, :, None] * h[:, None, :]
        h = np.tanh(z + np.einsum("bij,bj->bi", matrix, np.tanh(z)))
        return h, [h, matrix]


class OwnBackward(Minimal):
    """With a gradient of its own, in any NumPy."""

    def call(self, inputs, states):
        h = np.tanh(np.asarray(inputs) @ self.kernel.numpy() + states[0] @ self.recurrent_kernel.numpy())
        return h, [h], {"slope": 1 - h * h}

    def backward(self, d_output, d_states, inputs, states, saved):
        dz = (d_output + d_states[0]) * saved["slope"]
        d_weights = [inputs.T @ dz, states[0].T @ dz]
        return dz @ self.kernel.numpy().T, [dz @ self.recurrent_kernel.numpy().T], d_weights

    naive = PlainNumPy.naive


CELLS = [Minimal, PlainNumPy, Peephole, NormalizedGRU, Clockwork, FastWeights, OwnBackward]


def lengths(size):
    return (size,) if isinstance(size, int) else tuple(size)


def sizes(cell):
    found = cell.state_size
    return list(found) if isinstance(found, (list, tuple)) else [found]


def run_naively(layer, x, mask=None, states=None, zero_output=False):
    """Outputs at all timesteps and last states, row by row."""
    cell = layer.cell
    weights = {w.name: w.numpy() for w in cell.weights}
    states = states or [np.zeros((B, *lengths(size))) for size in sizes(cell)]
    out, outs = np.zeros((B, U)), []
    states = [np.array(s, "float64") for s in states]
    for t in range(x.shape[1]):
        for b in range(B):
            if mask is not None and not mask[b, t]:
                out[b] = 0 if zero_output else out[b]
                continue
            row, new = type(cell).naive(weights, x[b : b + 1, t], [s[b : b + 1] for s in states])
            out[b] = row[0]
            for s, n in zip(states, new, strict=True):
                s[b] = n[0]
        outs.append(out.copy())
    return np.stack(outs, 1), states


def layer_of(kind, **options):
    layer = layers.RNN(kind(dtype="float64"), dtype="float64", **options)
    layer.build((None, None, F))
    return layer


def spread(layer, rng):
    for w in layer.weights:
        w.assign(rng.normal(size=w.shape) * 0.4)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_values(kind, mask, rng):
    x = rng.normal(size=(B, T, F))
    layer = layer_of(kind, return_sequences=True, return_state=True)
    spread(layer, rng)
    start = [rng.normal(size=(B, *lengths(size))) for size in sizes(layer.cell)]
    if kind is Clockwork:
        start[1] = np.array([[0.0], [1.0], [2.0]])
    out, *states = layer(x, mask=mask, initial_state=start)
    outs, last = run_naively(layer, x, mask, start)
    for a, b in zip([out, *states], [outs, *last], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    backwards = layers.RNN(layer.cell, go_backwards=True, zero_output_for_mask=True, dtype="float64")
    flipped = None if mask is None else mask[:, ::-1]
    expected = run_naively(layer, x[:, ::-1], flipped, zero_output=True)[0][:, -1]
    np.testing.assert_allclose(backwards(x, mask=mask), expected, rtol=1e-10, atol=1e-12)


def check_gradients(layer, arrays, run, rng):
    """Compare gradients of all weights and arrays with differences."""
    program = graph.trace(run, tuple(Spec(a.shape, a.dtype) for a in arrays))
    variables = layer.trainable_variables
    heads = [i for i, x in enumerate(program.outputs) if x.dtype.kind == "f"]
    d = [rng.normal(size=program.outputs[i].shape) for i in heads]
    forward, backward = program.linearize(heads, [*variables, *program.inputs])
    gradients = backward(forward(*arrays)[1], d)

    def loss():
        found = program(*arrays)
        return sum(np.sum(found[i] * g) for i, g in zip(heads, d, strict=True))

    for target, gradient in zip([*(v.data for v in variables), *arrays], gradients, strict=True):
        direction, before = rng.normal(size=target.shape), target.copy()
        target += 1e-6 * direction
        high = loss()
        target[...] = before - 1e-6 * direction
        low = loss()
        target[...] = before
        np.testing.assert_allclose(np.sum(gradient * direction), (high - low) / 2e-6, rtol=1e-6, atol=2e-8)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_gradients(kind, mask, rng):
    layer = layer_of(kind, return_sequences=True, return_state=True)
    spread(layer, rng)
    start = [rng.normal(size=(B, *lengths(size))) for size in sizes(layer.cell)]
    if kind is Clockwork:
        start = start[:1]
    x = rng.normal(size=(B, T, F))

    def run(x, *states):
        states = [*states, np.zeros((B, 1))] if kind is Clockwork else list(states)
        return layer(x, initial_state=states, mask=mask)

    check_gradients(layer, [x, *start], run, rng)


@pytest.mark.parametrize("kind", CELLS)
def test_training_lowers_the_loss(kind, rng):
    utils.set_random_seed(3)
    x = rng.normal(size=(64, 5, F)).astype("float32")
    y = x.sum((1, 2), keepdims=False)[:, None]
    model = models.Sequential([layers.RNN(kind()), layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.learning_rate = 0.02
    losses = model.fit(x, y, epochs=12, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("kind", CELLS)
def test_in_stacks_both_ways_and_stateful(kind, rng):
    x = rng.normal(size=(B, T, F))
    stack = layers.RNN(
        [layers.GRUCell(F, dtype="float64"), kind(dtype="float64"), layers.LSTMCell(2, dtype="float64")],
        dtype="float64",
        stateful=True,
    )
    stack.build((B, None, F))
    spread(stack, rng)
    below = layers.RNN(stack.cell.cells[0], return_sequences=True, dtype="float64")
    middle = layers.RNN(stack.cell.cells[1], return_sequences=True, dtype="float64")
    top = layers.RNN(stack.cell.cells[2], dtype="float64")
    expected = top(middle(below(x)))
    stack(x[:, :2])
    np.testing.assert_allclose(stack(x[:, 2:]), expected, rtol=1e-9, atol=1e-12)
    both = layers.Bidirectional(
        layers.RNN(kind(dtype="float64"), return_sequences=True, dtype="float64"), dtype="float64"
    )
    out = both(x)
    assert out.shape == (B, T, 2 * U)
    np.testing.assert_allclose(out[..., U:], both.backward_layer(x)[:, ::-1], rtol=1e-6)


# -- constants -------------------------------------------------------------------------------------------------


class WithConstants(Cell):
    """Keras 2's test cell: a product with a constant at each timestep."""

    def shapes(self, n, u):
        return {"kernel": (n, u), "recurrent_kernel": (u, u), "constant_kernel": (3, u)}

    def call(self, inputs, states, constants):
        (c,) = constants
        h = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
        h = ops.tanh(h + ops.matmul(c, self.constant_kernel))
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_constants_and_their_gradients(rng):
    x, c, h = rng.normal(size=(B, T, F)), rng.normal(size=(B, 3)), rng.normal(size=(B, U))
    layer = layer_of(WithConstants, return_sequences=True)
    spread(layer, rng)
    w = {v.name: v.numpy() for v in layer.weights}
    now, expected = h, []
    for t in range(T):
        z = x[:, t] @ w["kernel"] + now @ w["recurrent_kernel"] + c @ w["constant_kernel"]
        now = np.tanh(z)
        expected.append(now)
    expected = np.stack(expected, 1)
    np.testing.assert_allclose(layer(x, initial_state=[h], constants=[c]), expected, rtol=1e-11)
    np.testing.assert_allclose(layer([x, h, c]), expected, rtol=1e-11)  # their number is known by now
    assert layer.get_config()["num_constants"] == 1
    again = layers.RNN.from_config(layer.get_config(), custom_objects={"WithConstants": WithConstants})
    again.build((None, None, F))
    again.set_weights(layer.get_weights())
    np.testing.assert_allclose(again([x, h, c]), expected, rtol=1e-11)
    run = lambda x, h, c: [layer(x, initial_state=[h], constants=c, mask=MASK)]  # noqa: E731
    check_gradients(layer, [x, h, c], run, rng)


def test_constants_both_ways_and_in_stacks(rng):
    x, c = rng.normal(size=(B, T, F)).astype("float32"), rng.normal(size=(B, 3)).astype("float32")
    both = layers.Bidirectional(layers.RNN(WithConstants()))
    out = both(x, constants=[c])
    ahead, back = both.forward_layer(x, constants=[c]), both.backward_layer(x, constants=[c])
    np.testing.assert_allclose(out, np.concatenate([ahead, back], -1), rtol=1e-6)
    np.testing.assert_allclose(both([x, c]), out)
    assert both.get_config()["num_constants"] == 1
    stack = layers.RNN([layers.GRUCell(F), WithConstants(), Minimal()])
    other = stack(x, constants=[2 * c])
    assert other.shape == (B, U) and not np.allclose(other, stack(x, constants=[c]))


def test_constants_in_a_functional_model(rng):
    x, c = numbarnn.Input((T, F)), numbarnn.Input((3,))
    layer = layers.RNN(WithConstants())
    model = models.Model([x, c], layer(x, constants=[c]))
    values = [rng.normal(size=(B, T, F)).astype("float32"), rng.normal(size=(B, 3)).astype("float32")]
    found = model.predict(values, verbose=0)
    np.testing.assert_allclose(found, layer(values[0], constants=values[1:]), rtol=1e-6)


def test_constants_that_no_cell_takes():
    x, c = np.zeros((B, T, F), "float32"), np.zeros((B, 3), "float32")
    for layer in (layers.RNN(Minimal()), layers.LSTM(3), layers.RNN([Minimal(), layers.GRUCell(2)])):
        with pytest.raises(ValueError, match="RNN cell .* does not support constants. Received: constants="):
            layer(x, constants=[c])


# -- the built-in cells, written again -------------------------------------------------------------------------


class SimpleAgain(Cell):
    def shapes(self, n, u):
        return {"kernel": (n, u), "recurrent_kernel": (u, u), "bias": (u,)}

    def call(self, inputs, states):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias + ops.matmul(states[0], self.recurrent_kernel))
        return h, [h]


class LSTMAgain(Cell):
    def sizes(self, u):
        return [u, u]

    def shapes(self, n, u):
        return {"kernel": (n, 4 * u), "recurrent_kernel": (u, 4 * u), "bias": (4 * u,)}

    def call(self, inputs, states):
        h, c = states
        z = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel) + self.bias
        i, f, g, o = ops.split(z, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]


class GRUAgain(Cell):
    def shapes(self, n, u):
        return {"kernel": (n, 3 * u), "recurrent_kernel": (u, 3 * u), "bias": (2, 3 * u)}

    def call(self, inputs, states):
        h = states[0]
        xz, xr, xh = ops.split(ops.matmul(inputs, self.kernel) + self.bias[0], 3, axis=1)
        mz, mr, mh = ops.split(ops.matmul(h, self.recurrent_kernel) + self.bias[1], 3, axis=1)
        z = ops.sigmoid(xz + mz)
        h = z * h + (1 - z) * ops.tanh(xh + ops.sigmoid(xr + mr) * mh)
        return h, [h]


class GRUBeforeAgain(Cell):
    def shapes(self, n, u):
        return {"kernel": (n, 3 * u), "recurrent_kernel": (u, 3 * u), "bias": (3 * u,)}

    def call(self, inputs, states):
        h, u = states[0], self.units
        x = ops.matmul(inputs, self.kernel) + self.bias
        z = ops.sigmoid(x[:, :u] + ops.matmul(h, self.recurrent_kernel[:, :u]))
        r = ops.sigmoid(x[:, u : 2 * u] + ops.matmul(h, self.recurrent_kernel[:, u : 2 * u]))
        h = z * h + (1 - z) * ops.tanh(x[:, 2 * u :] + ops.matmul(r * h, self.recurrent_kernel[:, 2 * u :]))
        return h, [h]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "kind, make, options",
    [
        (SimpleAgain, layers.SimpleRNN, {}),
        (LSTMAgain, layers.LSTM, {}),
        (GRUAgain, layers.GRU, {}),
        (GRUBeforeAgain, layers.GRU, {"reset_after": False}),
    ],
)
def test_a_built_in_cell_written_again_gives_its_numbers(kind, make, options, masked, rng):
    x, mask = rng.normal(size=(B, T, F)), MASK if masked else None
    written = layer_of(kind, return_sequences=True, return_state=True)
    built_in = make(U, return_sequences=True, return_state=True, dtype="float64", **options)
    built_in.build((None, None, F))
    spread(built_in, rng)
    written.set_weights(built_in.get_weights())
    results = []
    for layer in (written, built_in):
        program = graph.trace(lambda x, layer=layer: layer(x, mask=mask), (Spec(x.shape, "float64"),))
        heads = list(range(len(program.outputs)))
        forward, backward = program.linearize(heads, [*layer.trainable_variables, *program.inputs])
        values, residuals = forward(x)
        results.append([*values, *backward(residuals, [np.cos(np.arange(v.size)).reshape(v.shape) for v in values])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * np.abs(b).max())


# -- other things that a cell may do ---------------------------------------------------------------------------


def test_training_output_size_and_first_states(rng):
    class Sure:
        """A plain object; its output is wider than its state."""

        state_size, output_size = 2, 2 * F

        def call(self, inputs, states, training=False):
            new = states[0] + (2.0 if training else 1.0)
            return np.concatenate([inputs, inputs * new[:, :1]], axis=-1), (new,)

        def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
            return np.full((batch_size, 2), 10, dtype)

    x = rng.normal(size=(B, T, F)).astype("float32")
    layer = layers.RNN(Sure(), return_state=True)
    for training, step in ((False, 1), (True, 2)):
        out, state = layer(x, training=training)
        assert np.all(state == 10 + step * T)
        np.testing.assert_allclose(out[:, F:], x[:, -1] * (10 + step * T), rtol=1e-6)
    inputs = numbarnn.Input((T, F))
    assert layer(inputs)[0].shape == (None, 2 * F)
    model = models.Model(inputs, layer(inputs)[0])
    np.testing.assert_allclose(model.predict(x, verbose=0)[:, F:], x[:, -1] * (10 + T), rtol=1e-6)


def test_a_cell_without_states(rng):
    class Now(layers.Layer):
        state_size, output_size = [], F

        def call(self, inputs, states):
            assert states == []
            return inputs * 2, []

    x = rng.normal(size=(B, T, F)).astype("float32")
    np.testing.assert_array_equal(layers.RNN(Now(), return_sequences=True)(x), 2 * x)


def test_losses_added_in_a_step(rng):
    class Costs(Minimal):
        def call(self, inputs, states):
            out, states = super().call(inputs, states)
            self.add_loss(ops.sum(ops.square(out)))
            return out, states

    x = rng.normal(size=(B, T, F)).astype("float32")
    layer = layers.RNN(Costs(), return_sequences=True)
    out = layer(x)
    np.testing.assert_allclose(layer.losses[0], np.sum(out**2), rtol=1e-5)
    assert len(layer.losses) == 1
    np.testing.assert_allclose(sum(layer.losses), np.sum(layer(x) ** 2), rtol=1e-5)


# -- what is wrong ---------------------------------------------------------------------------------------------


def bad(**changes):
    """A cell with something wrong."""
    return type("Bad", (Minimal,), changes)()


REFUSED = [
    (lambda self, x, s: (x, [s[0], s[0]]), "has 1 states, but its `call` returned 2 of them. `state_size` is 5"),
    (lambda self, x, s: (s[0], [s[0][:, :2]]), r"State 0 .* must have shape \(3, 5\); got \(3, 2\). `state_size` is 5"),
    (lambda self, x, s: (s[0][:, :2], s), r"output .* must have shape \(3, 5\); got \(3, 2\).* needs an `output_size`"),
    (lambda self, x, s: s[0], "must return two things, its output and its new states: `return output, .state.`"),
    (lambda self, x, s: ((s[0], s[0]), s), "returned 2 outputs; expected 1"),
    (lambda self, x, s: (np.linalg.svd(s[0])[0], s), "np.linalg.svd has no entry in numbarnn.ops"),
    (lambda self, x, s: (s[0], s) if s[0][0, 0] > 0 else (x, s), "ops.where"),
]


@pytest.mark.parametrize("call, message", REFUSED)
def test_bad_cells(call, message):
    layer = layers.RNN(bad(call=call))
    with pytest.raises((ValueError, TypeError), match=message):
        layer(np.ones((B, T, F), "float32"))


def test_bad_sizes():
    x = np.ones((B, T, F), "float32")
    with pytest.raises(ValueError, match="`cell.state_size` must be an int or a numbarnn.TensorShape.* Received: 2.5"):
        cell = Minimal()
        cell.state_size = 2.5
        layers.RNN(cell)(x)
    declared = bad(output_size=3)
    with pytest.raises(ValueError, match=r"must have shape \(3, 3\); got \(3, 5\). `output_size` is 3: mend it"):
        layers.RNN(declared)(x)
    with pytest.raises(ValueError, match="A cell without states needs an `output_size`"):
        layers.RNN(type("None_", (Minimal,), {"sizes": lambda self, u: []})()).compute_output_shape(x.shape)


def test_bad_backward(rng):
    class Short(OwnBackward):
        def backward(self, d_output, d_states, inputs, states, saved):
            return inputs, states, []

    layer = layer_of(Short)
    program = graph.trace(lambda x: layer(x), (Spec((B, T, F), "float64"),))
    forward, backward = program.linearize(0, layer.trainable_variables)
    _, residuals = forward(np.ones((B, T, F)))
    with pytest.raises(ValueError, match="`backward` of cell .* returned 0 gradients of weights, which are 2"):
        backward(residuals, np.ones((B, U)))

    class NoSaved(Minimal):
        def backward(self, *args):
            return None

    with pytest.raises(ValueError, match="has a `backward`, so its `call` must return three things"):
        layer_of(NoSaved)(np.ones((B, T, F)))


@pytest.mark.parametrize("plain", [False, True])
def test_what_a_step_leaves_on_self_for_the_next_is_refused(plain):
    class Leaves(Minimal):
        before = 0

        def call(self, inputs, states):
            out = states[0] + inputs[:, :1] + self.before
            self.before = out
            return out, [out]

    class Held:
        state_size, before, call = U, 0, Leaves.call

    with pytest.raises(ValueError, match="belongs to another traced function and has no value here.* keep nothing"):
        layers.RNN(Held() if plain else Leaves())(np.ones((B, T, F), "float32"))


def test_what_a_step_only_leaves_on_self_does_no_harm():
    class Shows(Minimal):
        def call(self, inputs, states):
            self.shown = inputs
            self.add_loss(ops.sum(inputs))
            return super().call(inputs, states)

    layer = layers.RNN(Shows(), return_sequences=True)
    x = np.ones((B, T, F), "float32")
    assert layer(x).shape == (B, T, U)
    assert len(layer.losses) == 1 and layer.losses[0] == x.sum()


@pytest.mark.parametrize(
    "options", [{}, {"return_sequences": True}, {"return_sequences": True, "go_backwards": True}, {"time_major": True}]
)
def test_what_comes_out_shares_no_memory(options):
    class Passes:
        state_size, output_size = U, (F, 2, U)

        def call(self, inputs, states):
            return (inputs, inputs[:, :2], states[0]), states

    x, h = np.ones((B, T, F), "float32"), np.ones((T if options.get("time_major") else B, U), "float32")
    found = layers.RNN(Passes(), return_state=True, **options)(x, initial_state=[h])
    assert len(found) == 4
    for array in found:
        array += 1
    for array in (x, h, *(array - 1 for array in found)):
        np.testing.assert_array_equal(array, np.ones_like(array))
