"""`StackedRNNCells`: cells on top of each other, as one cell and run layer by layer on kernels."""

import numpy as np
import pytest
from recurrent import EVERYTHING, MASK, RESET, B, F, T, U, X, close, differentiate, graph_leaves, same, slopes

from numbarnn import graph, layers, models, ops, optimizers, serialization
from numbarnn.graph import Spec
from numbarnn.recurrence import kernel_calls

BUILT_IN = {
    "LSTM, LSTM": lambda **options: [layers.LSTMCell(U, **options), layers.LSTMCell(3, **options)],
    "mixed": lambda **options: [
        layers.GRUCell(4, **options),
        layers.LSTMCell(3, **options),
        layers.SimpleRNNCell(2, **options),
        layers.GRUCell(U, reset_after=False, **options),
    ],
    "one": lambda **options: [layers.LSTMCell(U, **options)],
}


def given_tanh(z):
    """A tanh that has no kernel."""
    return ops.tanh(z)


@serialization.register_keras_serializable("tests")
class Minimal(layers.Layer):
    """A user's cell with one state."""

    def __init__(self, units=U, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        out = ops.tanh(ops.matmul(inputs, self.kernel) + states[0])
        return out, [out]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Plain:
    """A cell that is no layer: a running sum, and how many steps there were."""

    state_size = [F, 1]
    output_size = F

    def call(self, inputs, states):
        total, count = states
        total = total + inputs
        return total / (count + 1), (total, count + 1)


class Stepped(layers.StackedRNNCells):
    """A stack that runs step by step: it does nothing else, but who defines `call` may."""

    def call(self, inputs, states, training=False):
        return super().call(inputs, states, training)


def twins(make, drop=None, **options):
    """Make the stack that runs layer by layer and the one that runs step by step, of the same weights."""
    drop = drop or {}
    quick, slow = (layers.RNN(kind(make(**drop, dtype="float64")), dtype="float64", **EVERYTHING, **options)
                   for kind in (layers.StackedRNNCells, Stepped))  # fmt: skip
    for layer in (quick, slow):
        layer.build(X.shape)
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.4, w.shape) for w in quick.get_weights()]
    quick.set_weights(weights)
    slow.set_weights(weights)
    assert (quick.kernel_path, slow.kernel_path) == ("kernel", "program")
    return quick, slow


# ------------------------------------------------------------------------------------------------------- order, nests


def test_sizes_states_and_outputs_nest_as_in_keras():
    cells = [layers.LSTMCell(4), layers.GRUCell(3), layers.LSTMCell(2)]
    stack = layers.StackedRNNCells(cells)
    assert stack.state_size == [[4, 4], 3, [2, 2]] and stack.output_size == 2
    layer = layers.RNN(stack, return_state=True, return_sequences=True)
    out, [h1, c1], h2, [h3, c3] = layer(X)
    assert [a.shape for a in (out, h1, c1, h2, h3, c3)] == [(B, T, 2), (B, 4), (B, 4), (B, 3), (B, 2), (B, 2)]
    shapes = [(None, T, 2), [(None, 4)] * 2, (None, 3), [(None, 2)] * 2]
    assert layer.compute_output_shape((None, T, F)) == shapes
    symbolic = layer(layers.Input((T, F)))
    assert [s.shape for s in graph_leaves(symbolic)] == [(None, T, 2)] + [(None, n) for n in (4, 4, 3, 2, 2)]
    zeros = stack.get_initial_state(batch_size=B)
    assert [[a.shape for a in graph_leaves([state])] for state in zeros] == [[(B, 4)] * 2, [(B, 3)], [(B, 2)] * 2]
    assert layer.compute_mask(X, MASK)[0] is MASK and len(layer.compute_mask(X, MASK)) == 4


def test_a_stack_of_one_nests_its_states():
    out, [h, c] = layers.RNN([layers.LSTMCell(3)], return_state=True)(X, mask=MASK)
    assert out.shape == h.shape == c.shape == (B, 3)
    out, h = layers.RNN([layers.GRUCell(3)], return_state=True)(X)
    same(out, h)


def test_a_list_of_cells_is_a_stack():
    cells = BUILT_IN["mixed"]()
    layer = layers.RNN(tuple(cells))
    assert type(layer.cell) is layers.StackedRNNCells and layer.cell.cells == cells
    layer(X)
    assert layer.weights == [w for cell in cells for w in cell.weights]
    assert [w.path for w in layer.weights][:2] == [
        "rnn/stacked_rnn_cells/gru_cell/kernel",
        "rnn/stacked_rnn_cells/gru_cell/recurrent_kernel",
    ]
    assert [cell.kernel.shape[0] for cell in cells] == [F, 4, 3, 2]  # each for the outputs of the one before


def test_states_in_reversed_order():
    cells = [layers.LSTMCell(4), layers.GRUCell(3)]
    plain = layers.RNN(layers.StackedRNNCells(cells), **EVERYTHING)
    other = layers.RNN(layers.StackedRNNCells(cells, reverse_state_order=True), **EVERYTHING)
    assert other.state_size == [3, [4, 4]]
    out, first, second = plain(X, mask=MASK)
    reversed_out, *last = other(X, mask=MASK)
    same([reversed_out, *graph_leaves(last)], [out, second, *first])
    out, first, second = plain(X, initial_state=[first, second])
    same(graph_leaves(other(X, initial_state=last)), graph_leaves([out, second, first]))
    config = other.cell.get_config()
    assert config["reverse_state_order"] is True and "reverse_state_order" not in plain.cell.get_config()
    assert layers.StackedRNNCells.from_config(config).state_size == other.state_size


# -------------------------------------------------------------------------------------------------- values, gradients


@pytest.mark.parametrize("make", BUILT_IN.values(), ids=BUILT_IN)
def test_a_stack_is_layers_on_top_of_each_other(make):
    layer = layers.RNN(make(), **EVERYTHING)
    found, *states = layer(X, mask=MASK, reset=RESET)
    x, last = X, []
    for cell in layer.cell.cells:
        x, *own = layers.RNN(cell, **EVERYTHING)(x, mask=MASK, reset=RESET)
        last += own
    same([found, *graph_leaves(states)], [x, *last])


@pytest.mark.parametrize("make", BUILT_IN.values(), ids=BUILT_IN)
@pytest.mark.parametrize(
    "options",
    [{}, {"go_backwards": True}, {"go_backwards": True, "zero_output_for_mask": True}, {"stateful": True}],
    ids=str,
)
def test_layer_by_layer_is_step_by_step(make, options, rng):
    """Values and gradients, masks, resets and first states."""
    quick, slow = twins(make, **options)
    states = [rng.normal(size=a.shape) for a in graph_leaves(quick.get_initial_state(B))]
    d_outputs = [rng.normal(size=(B, T, U if make is not BUILT_IN["LSTM, LSTM"] else 3))]
    d_outputs += [rng.normal(size=a.shape) for a in states]
    x = X.astype("float64")
    for flags in ({}, {"mask": MASK}, {"mask": MASK, "reset": RESET, "initial_state": states}):
        (outputs, gradients), (expected, expected_gradients) = (
            differentiate(layer, x, d_outputs, **flags) for layer in (quick, slow)
        )
        close(outputs, expected, 1e-12)
        close(gradients, expected_gradients, 1e-10)
    close(graph_leaves(quick(x)), graph_leaves(slow(x)), 1e-12)
    last = [layers.RNN(layer.cell, go_backwards=layer.go_backwards, dtype="float64") for layer in (quick, slow)]
    close(last[0](x, mask=MASK), last[1](x, mask=MASK), 1e-12)


@pytest.mark.parametrize("drop", [{"dropout": 0.4, "seed": 3}, {"dropout": 0.3, "recurrent_dropout": 0.4, "seed": 3}])
def test_each_cell_drops_for_itself(drop, rng):
    quick, slow = twins(BUILT_IN["mixed"], drop)
    x = X.astype("float64")
    d_outputs = [rng.normal(size=(B, T, U))] + [rng.normal(size=(B, n)) for n in (4, 3, 3, 2, U)]
    results = [differentiate(layer, x, d_outputs, training=True, mask=MASK) for layer in (quick, slow)]
    close(results[0][0], results[1][0], 1e-12)
    close(results[0][1], results[1][1], 1e-10)
    close(graph_leaves(quick(x, training=False)), graph_leaves(slow(x)), 1e-12)
    assert len(quick.non_trainable_variables) == 4  # one generator a cell
    factors = [cell._dropout_factors(np.ones((B, cell.kernel.shape[0])))[0] for cell in quick.cell.cells]
    assert [f.shape[2] for f in factors] == [F, 4, 3, 2]


@pytest.mark.parametrize("stack", [layers.StackedRNNCells, Stepped])
def test_gradients_by_differences(stack, rng):
    layer = layers.RNN(stack(BUILT_IN["mixed"](dtype="float64")), dtype="float64", go_backwards=True, **EVERYTHING)
    layer.build(X.shape)
    d_outputs = [rng.normal(size=(B, T, U))] + [rng.normal(size=(B, n)) for n in (4, 3, 3, 2, U)]
    slopes(layer, X.astype("float64"), d_outputs, mask=MASK, reset=RESET)


@pytest.mark.parametrize("make", [BUILT_IN["mixed"], lambda: [layers.GRUCell(U, activation=given_tanh), Minimal(U)]])
def test_nan_in_a_masked_timestep_reaches_nothing(make):
    layer = layers.RNN(make(), return_sequences=True)
    layer.build(X.shape)
    results = [
        differentiate(
            layer, np.where(MASK[..., None], X, np.float32(filler)), [np.ones((B, T, U), "float32")], mask=MASK
        )
        for filler in (np.nan, 0)
    ]
    same(*(outputs for outputs, _ in results))
    same(*(gradients for _, gradients in results))
    assert all(np.isfinite(a).all() for a in (*results[0][0], *results[0][1]))


class Direction(layers.Layer):
    """A cell that divides by the size of its inputs."""

    state_size = 3

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

    def call(self, inputs, states):
        z = ops.matmul(inputs, self.kernel)
        out = z / ops.sqrt(ops.sum(z * z, axis=-1, keepdims=True)) + 0.5 * states[0]
        return out, [out]


def test_finite_inputs_of_masked_timesteps_stay(rng):
    """Zeros in their place would give such a cell slopes that are not finite."""
    layer = layers.RNN(Direction(dtype="float64"), dtype="float64", return_sequences=True)
    layer.build(X.shape)
    _, gradients = slopes(layer, X.astype("float64"), [rng.normal(size=(B, T, 3))], mask=MASK)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_one_kernel_call_for_each_cell():
    layer = layers.RNN(BUILT_IN["LSTM, LSTM"](), stateful=True, go_backwards=True, zero_output_for_mask=True)
    layer.build(X.shape)
    kernel_calls.clear()
    layer(X, mask=MASK, reset=RESET)
    assert kernel_calls == {("LSTM", "forward"): 2}


# --------------------------------------------------------------------------------------------------------- other cells


def test_cells_of_the_user_run_step_by_step():
    cells = [layers.LSTMCell(4), Minimal(3), Plain]
    cells[2] = type("Wide", (Plain,), {"state_size": [3, 1], "output_size": 3})()
    layer = layers.RNN(cells, **EVERYTHING)
    assert layer.kernel_path == "program"
    out, [h, c], m, [total, count] = layer(X, mask=MASK)
    lower = layers.RNN(layers.RNN(cells[0]).cell, return_sequences=True)(X, mask=MASK)
    middle = layers.RNN(cells[1], return_sequences=True)(lower, mask=MASK)
    sums = np.cumsum(np.where(MASK[..., None], middle, 0), axis=1)
    close(total, sums[:, -1], 1e-6)
    same(count[:, 0], MASK.sum(axis=1).astype("float32"))
    means = sums / np.maximum(1, np.cumsum(MASK, axis=1))[..., None]
    for row in range(B):
        shown = np.zeros(3)
        for t in range(T):
            shown = means[row, t] if MASK[row, t] else shown
            close(out[row, t], shown, 1e-5)


def test_a_cell_that_is_no_layer():
    for cell in (Plain(), [Plain()]):
        layer = layers.RNN(cell, return_sequences=True)
        close(layer(X), np.cumsum(X, axis=1) / np.arange(1, T + 1)[:, None], 1e-6)
        assert layer.weights == []


def test_training_is_passed_to_cells_that_take_it():
    seen = []

    class Takes(Minimal):
        def call(self, inputs, states, training=None):
            seen.append(training)
            return super().call(inputs, states)

    class PlainTakes(Plain):
        state_size, output_size = [U, 1], U

        def call(self, inputs, states, training=None):
            seen.append(training)
            return super().call(inputs, states)

    layer = layers.RNN([Takes(), Minimal(), PlainTakes()])
    layer(X[:, :2], training=True)  # traced once
    assert seen == [True] * 2
    seen.clear()
    layer(X[:, :1], training=False)
    assert seen == [False] * 2
    seen.clear()
    layer.cell(X[:, 0], layer.cell.get_initial_state(batch_size=B), training=True)
    assert seen == [True] * 2


@pytest.mark.parametrize("activation", ["linear", lambda z: z], ids=["kernel", "program"])
def test_a_cell_within_a_cell_drops_the_same_at_each_step(activation):
    class Around(layers.Layer):
        """Shows the factors that the cell within multiplies its inputs with."""

        def __init__(self):
            super().__init__()
            self.within = layers.SimpleRNNCell(
                U, "linear" if activation == "tanh" else lambda z: z, dropout=0.5, seed=1
            )
            self.state_size = U

        def build(self, input_shape):
            self.within.build(input_shape)
            self.within.set_weights([np.eye(U), np.zeros((U, U)), np.zeros(U)])

        def call(self, inputs, states, training=False):
            return self.within(inputs, states, training=training)

    layer = layers.RNN(Around(), return_sequences=True)
    ones = np.ones((50, T, U), "float32")
    out = layer(ones, training=True)
    assert set(np.unique(out)) == {0, 2} and np.all(out == out[:, :1])
    assert not np.array_equal(layer(ones, training=True), out)
    same(layer(ones), ones)


def test_a_penalty_on_the_outputs_of_a_cell_is_not_lost():
    layer = layers.RNN([layers.GRUCell(3, activity_regularizer="l2"), layers.GRUCell(2)], return_sequences=True)
    assert layer.kernel_path == "program"
    layer(X)
    lower = layers.RNN(layer.cell.cells[0], return_sequences=True)(X)
    # Keras penalizes all that a layer returns: the output and the state.
    np.testing.assert_allclose(sum(map(float, layer.losses)), 2 * 0.01 * np.square(lower).sum() / B, rtol=1e-5)


def test_a_stack_in_a_stack():
    inner = layers.StackedRNNCells([layers.GRUCell(4), layers.LSTMCell(3)])
    layer = layers.RNN([inner, layers.GRUCell(2)], **EVERYTHING)
    out, [h1, [h2, c2]], h3 = layer(X, mask=MASK)
    flat = layers.RNN([*inner.cells, layer.cell.cells[1]], **EVERYTHING)
    close([out, h1, h2, c2, h3], graph_leaves(flat(X, mask=MASK)), 1e-6)
    close(
        graph_leaves(layer(X, initial_state=[[h1, [h2, c2]], h3])),
        graph_leaves(flat(X, initial_state=[h1, [h2, c2], h3])),
        1e-6,
    )


def test_a_cell_called_alone_does_one_step():
    stack = layers.StackedRNNCells(BUILT_IN["mixed"]())
    layer = layers.RNN(stack, **EVERYTHING)
    out, *last = layer(X)
    states = stack.get_initial_state(batch_size=B)
    for t in range(T):
        y, states = stack(X[:, t], states)
        same(y, out[:, t])
    same(graph_leaves(states), graph_leaves(last))


# ------------------------------------------------------------------------------------- models, configuration, refusals


def test_a_stack_is_trained_and_summed_up():
    model = models.Sequential([layers.Input((T, F)), layers.RNN(BUILT_IN["mixed"]()), layers.Dense(1)])
    model.compile(optimizers.Adam(0.03), "mse")
    history = model.fit(X, np.tanh(X[:, 0, :1]), epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    close(model.predict(X, verbose=0), model.layers[1](model.layers[0](X)), 1e-6)


def test_a_program_of_a_stack():
    layer = layers.RNN(BUILT_IN["mixed"](), **EVERYTHING)
    program = graph.trace(lambda x: layer(x, mask=MASK), [Spec(X.shape, "float32")])
    same(graph_leaves(program(X)), graph_leaves(layer(X, mask=MASK)))


def test_configurations():
    cells = [layers.GRUCell(3, reset_after=False, dropout=0.2), Minimal(4)]
    layer = layers.RNN(cells, return_sequences=True)
    config = layer.cell.get_config()
    assert list(config) == ["name", "trainable", "dtype", "cells"] and len(config["cells"]) == 2
    for one in (layer, layer.cell):
        again = serialization.deserialize_keras_object(serialization.serialize_keras_object(one))
        assert type(again) is type(one) and again.get_config() == one.get_config()
    again = layers.RNN.from_config(layer.get_config())
    for one in (again, layer):
        one.build(X.shape)
    again.set_weights(layer.get_weights())
    same(again(X), layer(X))


class NoCall:
    state_size = 3


class NoStates:
    def call(self, x, states):
        return x, states


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([NoCall()], "All cells must have a `call` method. Received cell without a `call` method: "),
        ([layers.GRUCell(3), NoStates()], "All cells must have a `state_size` attribute. Received cell without"),
        ([], "Argument `cells` must be a list of one cell at least"),
        (layers.GRUCell(3), "Argument `cells` must be a list"),
    ],
)
def test_refusals(cells, message):
    with pytest.raises(ValueError, match=message):
        layers.StackedRNNCells(cells)


def test_states_that_do_not_fit():
    layer = layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)])
    h = np.zeros((B, 4), "float32")
    with pytest.raises(ValueError, match="Layer has 3 states but was passed 2 initial states."):
        layer(X, initial_state=[h, h])
    with pytest.raises(ValueError, match=r"`cell.state_size` is \[\[4, 4\], 3\] and the batch size is 4"):
        layer(X, initial_state=[[h, h], h])

    stack = layers.StackedRNNCells([layers.LSTMCell(4), layers.GRUCell(4)], name="s")
    stack.build((None, F))
    for count in (2, 4):
        with pytest.raises(ValueError, match=f"Cell 's' has 3 states, but it was called with {count} of them"):
            stack(X[:, 0], [h] * count)

    class Odd(Minimal):
        def call(self, inputs, states):
            return super().call(inputs, states)[0], [states[0], states[0]]

    with pytest.raises(ValueError, match="has 1 states, but its `call` returned 2 of them"):
        layers.RNN([Odd()])(X)

    class Text(Minimal):
        def __init__(self):
            super().__init__()
            self.state_size = "4"

    with pytest.raises(ValueError, match="must be an int or a numbarnn.TensorShape, .* Received: '4'"):
        layers.RNN(Text())(X)
