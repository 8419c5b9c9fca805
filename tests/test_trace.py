"""What `trace` shows: against the layers' own results, the equations written out, and differences."""

import numpy as np
import pytest
from recurrent import EVERYTHING, KINDS, MASK, RESET, STATES, B, F, T, U, X, close, same

from numbarnn import Input, Model, Sequential, cells, layers, ops, recurrence, utils, value_and_grad
from numbarnn.testing import TOLERANCE, assert_close

kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def sigmoid(z):
    return 0.5 * (np.tanh(0.5 * z) + 1.0)


def written_out(layer, trace):
    """Return the gates at all steps from the inputs, the states before and the weights, as the equations have them."""
    kernel, recurrent, bias = (w.astype("float64") for w in layer.get_weights())
    before = np.concatenate([trace.initial_states[0][:, None], trace.states[0][:, :-1]], axis=1).astype("float64")
    if trace.reset is not None:
        before[trace.reset] = 0
    parts = {}
    for number, name in enumerate(trace.gates):
        columns = slice(number * layer.units, (number + 1) * layer.units)
        own = bias[..., columns]
        x, h = trace.inputs @ kernel[:, columns], before @ recurrent[:, columns]
        if name != "candidate":
            parts[name] = sigmoid(x + h + (own if own.ndim == 1 else own.sum(0)))
        elif "reset" not in parts:
            parts[name] = np.tanh(x + h + own)
        elif layer.reset_after:
            parts[name] = np.tanh(x + own[0] + parts["reset"] * (h + own[1]))
        else:
            parts[name] = np.tanh(x + own + (parts["reset"] * before) @ recurrent[:, columns])
    return parts


class Leaky(layers.Layer):
    """A cell of a user, with an output that is no state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [units, 1], 2

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.state_size[0]), name="kernel")

    def call(self, inputs, states):
        h, count = states
        h = ops.tanh(0.9 * h + inputs @ self.kernel)
        return 3 * h[:, :2], [h, count + 1]


# ---------------------------------------------------------------------------------------------------------------
# layers


@kinds
@dtypes
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("zero_output", [False, True])
def test_it_shows_what_the_layer_returns_and_the_gates_of_the_equations(kind, dtype, go_backwards, zero_output):
    options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output, "dtype": dtype}
    layer = kind.make(**EVERYTHING, **options)
    x, states = X.astype(dtype), [s.astype(dtype) for s in kind.first]
    given = {"initial_state": states, "mask": MASK, "reset": RESET}
    out, *last = layer(x, **given)
    trace = layer.trace(x, **given)

    order = np.arange(T)[::-1] if go_backwards else np.arange(T)
    same(trace.timesteps, order)
    same(trace.inputs, x[:, order])
    same(trace.mask, MASK[:, order])
    same(trace.reset, RESET[:, order])
    same(trace.initial_states, states)
    same(trace.outputs, out)  # to the last bit
    same([state[:, -1] for state in trace.states], last)
    assert tuple(trace.gates) == layer.cell.gate_names
    for name, expected in written_out(layer, trace).items():
        found = trace.gates[name]
        assert found.dtype == dtype and np.isnan(found[~trace.mask]).all()
        assert_close(found[trace.mask], expected[trace.mask], TOLERANCE[dtype], name)


@kinds
def test_the_states_between_are_those_of_shorter_sequences(kind):
    layer = kind.make(**EVERYTHING)
    trace = layer.trace(X, mask=MASK, reset=RESET)
    for t in (1, 3, 5):
        _, *last = layer(X[:, :t], mask=MASK[:, :t], reset=RESET[:, :t])
        same([state[:, t - 1] for state in trace.states], last)


@kinds
def test_the_last_output_alone_is_the_last_of_the_trace(kind):
    layer = kind.make()
    given = {"mask": MASK & (np.arange(B)[:, None] > 0), "initial_state": kind.first}  # a row that is masked whole
    same(layer.trace(X, **given).outputs[:, -1], layer(X, **given))


@kinds
def test_checkpoints_hide_nothing(kind):
    layer = kind.make(return_sequences=True, checkpoint=2)
    trace = layer.trace(X, mask=MASK)
    same(trace.outputs, layer(X, mask=MASK))
    same(trace.states, kind.like(layer, return_sequences=True).trace(X, mask=MASK).states)
    model = Sequential([kind.make(checkpoint=2, name="it")])
    assert np.isfinite(model.trace(X, output=0)["it"].state_gradients[0]).all()
    with pytest.raises(ValueError, match="cannot have checkpoints"):
        layers.RNN(Leaky(3), checkpoint=2).trace(X)


@kinds
@pytest.mark.parametrize("activation", ["gelu", "relu", "own"])
def test_activations_whose_derivative_needs_the_input_and_those_without_kernels(kind, activation):
    def own(x):
        return ops.tanh(x)

    layer = kind.make(activation=own if activation == "own" else activation, return_sequences=True)
    given = {"mask": MASK, "reset": RESET, "initial_state": kind.first}
    trace = layer.trace(X, **given)
    assert layer.kernel_path == ("program" if activation == "own" else "kernel")
    close(trace.outputs, layer(X, **given), 1e-6)
    if activation == "own":
        expected = kind.like(layer, return_sequences=True).trace(X, **given)  # tanh in the kernels
        close(trace.states, expected.states, 1e-6)
        for name, gate in expected.gates.items():
            np.testing.assert_allclose(trace.gates[name], gate, atol=1e-6)
    elif trace.gates:
        z = kind.like(layer, activation="linear", return_sequences=True)
        z.set_weights(layer.get_weights())
        first = z.trace(X[:, :1], initial_state=kind.first).gates["candidate"]
        expected = ops.relu(first) if activation == "relu" else ops.gelu(first, approximate=False)
        close(layer.trace(X[:, :1], initial_state=kind.first).gates["candidate"], np.asarray(expected), 1e-6)


@kinds
def test_a_stateful_layer_starts_from_its_states_and_keeps_them(kind):
    layer = kind.make(stateful=True, return_sequences=True)
    new = layer.trace(X)  # which builds the layer
    same(layer.states, [np.zeros((B, U), "float32")] * kind.states)
    given = [state + 1 for state in layer.states]
    same(new.outputs, layer.trace(X).outputs)
    same(layer(X, initial_state=given), kind.like(layer, return_sequences=True)(X, initial_state=given))  # still fresh
    before = layer.states
    trace = layer.trace(X)
    same(trace.initial_states, before)
    same(layer.states, before)
    same(trace.outputs, layer(X))


def test_time_major_layers_are_shown_batch_first():
    layer = layers.LSTM(U, return_sequences=True, time_major=True)
    trace = layer.trace(X.swapaxes(0, 1), mask=MASK.T)
    same(trace.outputs.swapaxes(0, 1), layer(X.swapaxes(0, 1), mask=MASK.T))
    same(trace.mask, MASK)
    assert trace.gates["input"].shape == (B, T, U)


def test_a_mask_that_travels_with_the_data_counts():
    x, mask = utils.pad([X[0, :2], X[1, :5]])
    layers.set_mask(x, mask)
    trace = layers.GRU(U).trace(x)
    same(trace.mask, mask)
    assert np.isnan(trace.gates["update"][0, 2:]).all()


def test_in_training_it_shows_the_draws_of_that_call():
    layer = layers.LSTM(U, dropout=0.4, recurrent_dropout=0.4, seed=3, return_sequences=True)
    trace = layer.trace(X, training=True)
    twin = layers.LSTM(U, dropout=0.4, recurrent_dropout=0.4, seed=3, return_sequences=True)
    twin.build(X.shape)
    twin.set_weights(layer.get_weights())
    same(trace.outputs, twin(X, training=True))
    assert np.abs(trace.outputs - layer.trace(X).outputs).max() > 0.01


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("reverse_state_order", [False, True])
def test_a_stack_shows_its_cells(go_backwards, own, reverse_state_order):
    top = layers.GRUCell(3, activation=(lambda x: ops.tanh(x)) if own else "tanh")
    stack = layers.StackedRNNCells([layers.LSTMCell(4), top], reverse_state_order=reverse_state_order)
    layer = layers.RNN(stack, go_backwards=go_backwards, **EVERYTHING)
    out, *last = layer(X, mask=MASK)
    trace = layer.trace(X, mask=MASK)
    close(trace.outputs, out, 1e-6)
    flat = [leaf for nest in last for leaf in (nest if isinstance(nest, list) else [nest])]
    shown = [leaf for nest in trace.states for leaf in (nest if isinstance(nest, list) else [nest])]
    close([state[:, -1] for state in shown], flat, 1e-6)
    lower, upper = trace.cells
    assert list(lower.gates) == ["input", "forget", "candidate", "output"]
    assert list(upper.gates) == ["update", "reset", "candidate"] and trace.gates == {}
    same(upper.inputs, lower.outputs)
    same(upper.outputs, trace.outputs)
    same(upper.timesteps, lower.timesteps)
    alone = layers.RNN(layers.LSTMCell(4), return_sequences=True, go_backwards=go_backwards)
    alone.build(X.shape)
    alone.set_weights(layer.get_weights()[:3])
    close(lower.gates["forget"][lower.mask], alone.trace(X, mask=MASK).gates["forget"][lower.mask], 1e-6)


@pytest.mark.parametrize("go_backwards", [False, True])
def test_a_cell_of_a_user_shows_inputs_outputs_and_states(go_backwards):
    layer = layers.RNN(Leaky(4), go_backwards=go_backwards, **EVERYTHING)
    states = [STATES[0][:, :4], np.full((B, 1), 5, "float32")]
    given = {"mask": MASK, "reset": RESET, "initial_state": states}
    out, *last = layer(X, **given)
    trace = layer.trace(X, **given)
    same(trace.outputs, out)
    same([state[:, -1] for state in trace.states], last)
    same(trace.inputs, X[:, ::-1] if go_backwards else X)
    assert trace.gates == {}
    count = states[1].copy()
    for s in range(T):  # the second state counts the steps that count
        count = np.where(trace.reset[:, s : s + 1], 0, count) + trace.mask[:, s : s + 1]
        same(trace.states[1][:, s], count)


def test_nested_states_and_several_inputs():
    class Cell(layers.Layer):
        state_size = {"sum": 2, "last": 3}
        output_size = {"a": 2, "b": 3}

        def call(self, inputs, states):
            x, y = inputs
            new = {"sum": states["sum"] + x, "last": y}
            return {"a": new["sum"], "b": states["last"]}, new

    x, y = X[..., :2], X * 2
    layer = layers.RNN(Cell(), return_sequences=True)
    trace = layer.trace((x, y))
    close(trace.states[0]["sum"], np.cumsum(x, axis=1))
    same(trace.states[0]["last"], y)
    same(trace.outputs["b"], layer((x, y))["b"])
    same(trace.inputs[1], y)


class Shifted(layers.Layer):
    """A cell that adds a constant at each step."""

    state_size = F

    def call(self, inputs, states, constants=None):
        h = ops.tanh(inputs + states[0] + constants[0])
        return h, [h]


def test_constants_are_given_to_the_cell():
    layer, constant = layers.RNN(Shifted(), return_sequences=True), np.ones((B, F), "float32")
    same(layer.trace(X, constants=[constant]).outputs, layer(X, constants=[constant]))
    x, c = Input((T, F)), Input((F,))
    model = Model([x, c], layers.RNN(Shifted(), name="it")(x, constants=[c]))
    trace = model.trace([X, constant], output=0)["it"]
    h, gradient = trace.states[0], trace.state_gradients[0]
    close(gradient[:, -2], gradient[:, -1] * (1 - h[:, -1] ** 2))


def test_a_built_in_cell_with_another_call_is_a_cell_of_a_user():
    class Double(layers.GRUCell):
        def call(self, inputs, states, training=False):
            out, new = super().call(inputs, states, training)
            return 2 * out, new

    layer = layers.RNN(Double(U), return_sequences=True)
    trace = layer.trace(X)
    close(trace.outputs, layer(X), 1e-6)
    close(trace.outputs, 2 * trace.states[0], 1e-6)
    assert trace.gates == {}


def test_both_directions_and_chronological_order():
    layer = layers.Bidirectional(layers.LSTM(U, return_sequences=True))
    out = layer(X, mask=MASK)
    forward, backward = layer.trace(X, mask=MASK)
    same(forward.outputs, out[..., :U])
    assert backward.timesteps.tolist() == [5, 4, 3, 2, 1, 0]
    turned = backward.chronological()
    same(turned.outputs, out[..., U:])
    same(turned.inputs, X)
    same(turned.mask, MASK)
    same(turned.gates["output"], backward.gates["output"][:, ::-1])
    same(turned.states, [state[:, ::-1] for state in backward.states])
    assert turned.timesteps.tolist() == list(range(T))
    assert forward.chronological() is forward


def test_what_is_refused():
    layer = layers.LSTM(U)
    layer(X)
    with pytest.raises(TypeError, match="'lstm' shows arrays. Received symbolic"):
        layer.trace(Input((T, F)))
    with pytest.raises(ValueError, match="`mask` of layer 'lstm' must have shape"):
        layer.trace(X, mask=MASK[:, 1:])

    def loss(x):
        return ops.sum(layer.trace(x).outputs)

    with pytest.raises((RuntimeError, TypeError), match="`trace` of layer 'lstm' shows arrays"):
        value_and_grad(loss, layer)(X)

    class Other(layers.RNN):
        def call(self, sequences, initial_state=None, constants=None):
            return sequences

    with pytest.raises(TypeError, match="does not run the loop"):
        Other(layers.LSTMCell(3)).trace(X)


def test_the_tape_is_shown_until_it_is_overwritten_and_where_there_is_one():
    kernel, recurrent, _ = (np.ones(shape, "float32") for shape in ((F, 4 * U), (U, 4 * U), (4 * U,)))
    weights = recurrence.PackedWeights(cells.LSTM, kernel, recurrent)
    _, last, pullback = recurrence.run(cells.LSTM, X, weights, None, save=True)
    states, _ = pullback.steps(())
    same([state[:, -1] for state in states], last)
    pullback()
    with pytest.raises(RuntimeError, match="can be called once"):
        pullback.steps(())
    *_, pullback = recurrence.run(cells.LSTM, X, weights, None, save=True, checkpoint=2)
    with pytest.raises(ValueError, match="run with `checkpoint`"):
        pullback.steps(())


# ---------------------------------------------------------------------------------------------------------------
# models


def test_a_model_shows_its_recurrent_layers_by_name():
    shared = layers.GRU(F, return_sequences=True, name="shared")
    inner = Sequential([layers.SimpleRNN(4, return_sequences=True, name="plain"), layers.Dense(F)], name="inner")
    x = Input((T, F))
    both = layers.Bidirectional(layers.LSTM(4, name="side"), name="both")
    y = both(shared(inner(shared(x))))
    outside = layers.TimeDistributed(layers.LSTM(2, name="words"), name="each")(ops.expand_dims(x, -1))
    model = Model(x, [layers.Dense(1, name="head")(y), outside])
    trace = model.trace(X)
    assert set(trace) == {"shared", "inner/plain", "shared:2", "both", "each/words"}
    same(trace["shared"].outputs, shared(X))
    same(trace["shared:2"].inputs, inner(shared(X)))
    same(trace["both"].forward.inputs, trace["shared:2"].outputs)
    assert trace["each/words"].outputs.shape == (B * T, F, 2)
    out = model.predict(X, verbose=0)
    last = np.concatenate([side.outputs[:, -1] for side in trace["both"]], axis=1)
    close(last @ model.get_layer("head").get_weights()[0], out[0])


def test_a_model_is_left_as_it_was():
    model = Sequential(
        [
            layers.GRU(4, stateful=True, return_sequences=True, batch_input_shape=(B, T, F)),
            layers.BatchNormalization(),
            layers.LSTM(3, stateful=True),
        ]
    )
    model(X)
    states, weights = model.layers[0].states + model.layers[2].states, model.get_weights()
    trace = model.trace(X, training=True)
    same(trace["gru"].initial_states, states[:1])
    same(model.layers[0].states + model.layers[2].states, states)
    same(model.get_weights(), weights)


def test_ragged_batches_are_padded():
    rows = [X[0, :2], X[1, :5]]
    model = Sequential([layers.Input((None, F)), layers.GRU(U, name="reader"), layers.Dense(1)])
    trace = model.trace(utils.Ragged(rows))["reader"]
    assert trace.mask.sum(axis=1).tolist() == [2, 5]
    close(trace.outputs[1, :5], model.layers[-2].trace(rows[1][None]).outputs[0])


def differences(layer, x, aim, mask, at, state):
    """Differentiate sum(aim * outputs) by one state after one step, in a loop over calls of the cell."""

    def loss(moved):
        states = layer.cell.get_initial_state(batch_size=len(x), dtype="float64")
        shown, total = 0.0, 0.0
        for t in range(x.shape[1]):
            _, new = layer.cell(x[:, t], states)
            states = [np.where(mask[:, t, None], a, b) for a, b in zip(new, states, strict=True)]
            if t == at:
                states[state] = states[state] + moved
            shown = np.where(mask[:, t, None], states[0], shown)
            total += np.vdot(aim[:, t], shown)
        return total

    found = np.empty((len(x), layer.units))
    for place in np.ndindex(found.shape):
        step = np.zeros(found.shape)
        step[place] = 1e-6
        found[place] = (loss(step) - loss(-step)) / 2e-6
    return found


@kinds
@pytest.mark.parametrize("go_backwards", [False, True])
def test_gradients_of_the_states_against_differences(kind, go_backwards, rng):
    x, aim, mask = X.astype("float64")[:2], rng.standard_normal((2, T, U)), MASK[:2]
    model = Sequential([kind.make(dtype="float64", return_sequences=True, go_backwards=go_backwards, name="it")])
    layer = model.layers[0]
    layers.set_mask(x, mask)
    trace = model.trace(x, output=lambda out: out * aim)["it"]
    order = trace.timesteps
    for state, gradient in enumerate(trace.state_gradients):
        assert np.isnan(gradient[~trace.mask]).all() and np.isfinite(gradient[trace.mask]).all()
        for s in (0, 2, T - 1):
            counts = trace.mask[:, s]
            expected = differences(layer, x[:, order], aim, mask[:, order], s, state)
            assert_close(gradient[counts, s], expected[counts], 1e-8)


def test_gradients_reach_through_a_model_of_all_sorts(rng):
    """The loss of `compile`; a stack and a user's cell: the chain rule from layer to layer is written out here."""
    model = Sequential(
        [
            layers.RNN(
                [layers.GRUCell(3, dtype="float64"), layers.LSTMCell(4, dtype="float64")], dtype="float64", name="stack"
            ),
            layers.Dense(2, dtype="float64"),
        ]
    )
    model.compile(loss="mse")
    x, y = X.astype("float64"), rng.standard_normal((B, 2))
    trace = model.trace(x, y)["stack"]
    kernel = model.layers[1].kernel.numpy()
    p = model.predict(x, verbose=0)
    d_h = (p - y) / p.size * 2 @ kernel.T
    gru, lstm = trace.cells
    assert_close(lstm.state_gradients[0][:, -1], d_h, 1e-12)
    # Back through the last step of the LSTM to what came from the GRU, and to h and c before.
    i, f, g, o = (gate[:, -1] for gate in lstm.gates.values())
    c, before = lstm.states[1][:, -1], lstm.states[1][:, -2]
    d_c = d_h * o * (1 - np.tanh(c) ** 2)
    assert not lstm.state_gradients[1][:, -1].any()  # what is added to c after the last step comes too late
    assert_close(lstm.state_gradients[1][:, -2], d_c * f, 1e-12)
    d_z = np.concatenate(
        [d_c * g * i * (1 - i), d_c * before * f * (1 - f), d_c * i * (1 - g**2), d_h * np.tanh(c) * o * (1 - o)],
        axis=1,
    )
    kernel, recurrent = (w.numpy() for w in model.layers[0].cell.cells[1].weights[:2])
    assert_close(gru.state_gradients[0][:, -1], d_z @ kernel.T, 1e-12)
    assert_close(lstm.state_gradients[0][:, -2], d_z @ recurrent.T, 1e-12)
    same(trace.state_gradients[0], gru.state_gradients[0])

    own = Sequential([layers.RNN(Leaky(4, dtype="float64"), dtype="float64", name="own")])
    found = own.trace(x, output=0)["own"]
    state = found.states[0]
    expected = np.zeros((B, T, 4))
    expected[:, -1, 0] = 3  # the output is not the state, so what follows from it after the step does not count ...
    for t in range(T - 2, -1, -1):  # ... at the step itself
        expected[:, t] = 0.9 * (1 - state[:, t + 1] ** 2) * expected[:, t + 1]
    assert_close(found.state_gradients[0][:, :-1], expected[:, :-1], 1e-12)
    assert not found.state_gradients[0][:, -1].any()
    assert not found.state_gradients[1].any()


def test_gradients_of_a_stack_lie_as_its_states_do():
    stack = layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(3)], reverse_state_order=True)
    trace = Sequential([layers.RNN(stack, go_backwards=True, name="it")]).trace(X, output=0)["it"]
    lower, upper = trace.cells
    assert [g.shape for g in trace.state_gradients[1]] == [(B, T, 2)] * 2
    same(trace.state_gradients[0], upper.state_gradients[0])
    same(trace.state_gradients[1], lower.state_gradients)
    assert (upper.state_gradients[0][:, -1] == [1, 0, 0]).all()  # the last step is the first timestep


def test_layers_of_a_subclassed_model_are_found():
    class Reader(Model):
        def __init__(self):
            super().__init__()
            self.first, self.rest = layers.GRU(3, return_sequences=True, name="a"), [layers.LSTM(2, name="b")]

        def call(self, x):
            return self.rest[0](self.first(x))

    model = Reader()
    trace = model.trace(X, output=1)
    assert list(trace) == ["a", "b"]
    same(trace["b"].inputs, trace["a"].outputs)
    same(trace["b"].outputs[:, -1], model(X))
    assert all(one.state_gradients is not None for one in trace.values())


def test_in_training_the_gradients_are_those_of_the_draws_that_are_shown():
    first, second = layers.GRU(8, return_sequences=True, name="a"), layers.GRU(3, name="b")
    model = Sequential([layers.Input((T, F)), first, layers.Dropout(0.5), second])
    trace = model.trace(X, output=0, training=True)
    dropped = trace["b"].inputs[:, -1] == 0
    assert 0.2 < dropped.mean() < 0.8
    same(trace["a"].state_gradients[0][:, -1] == 0, dropped)


def test_a_reset_stops_the_gradient():
    x = Input((T, F), dtype="float64")
    reset = Input((T,), dtype="bool")
    layer = layers.GRU(U, dtype="float64", name="it")
    model = Model([x, reset], layer(x, reset=reset))
    cut = np.zeros((B, T), bool)
    cut[:, 3] = True
    gradient = model.trace([X.astype("float64"), cut], output=0)["it"].state_gradients[0]
    assert not gradient[:, :3].any() and gradient[:, 3:-1].all()


def test_stateful_models_keep_their_states_with_gradients_too():
    model = Sequential([layers.LSTM(U, stateful=True, batch_input_shape=(B, T, F), name="it")])
    model(X)
    states = model.layers[0].states
    trace = model.trace(X, output=0)["it"]
    same(trace.initial_states, states)
    same(model.layers[0].states, states)
    assert np.abs(trace.state_gradients[0][:, :-1]).min() > 0


def test_a_model_refuses_what_it_cannot_show():
    model = Sequential([layers.Dense(2, input_shape=(F,))])
    with pytest.raises(ValueError, match="No recurrent layer ran in model"):
        model.trace(X[:, 0])
    model = Sequential([layers.LSTM(2, input_shape=(T, F))])
    with pytest.raises(ValueError, match="either targets `y`"):
        model.trace(X, np.zeros((B, 2)), output=0)
    with pytest.raises(ValueError, match="needs targets `y`"):
        model.trace(X, sample_weight=np.ones(B))
    with pytest.raises(ValueError, match="compile"):
        model.trace(X, np.zeros((B, 2)))
    with pytest.raises(ValueError, match="`output` must be an int or a function"):
        model.trace(X, output=True)
