"""`Bidirectional` and `Wrapper`: values, bits, masks, restarts, states, configuration, errors."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest
from parity import as_list, make_mask

from numbarnn import backend, graph, layers, models, ops, recurrence, serialization
from numbarnn.graph import Spec
from numbarnn.jit import set_num_threads
from numbarnn.layers import Bidirectional, get_mask
from numbarnn.testing import TOLERANCE, assert_close, check_gradients, reference

B, T, F, U = 4, 6, 3, 5
X = np.random.default_rng(0).standard_normal((B, T, F)).astype("float32")
MASK = make_mask("scattered", B, T, np.random.default_rng(2))
RESET = np.random.default_rng(3).random((B, T)) < 0.3
CELLS = {
    "LSTM": (layers.LSTM, reference.lstm, 2),
    "GRU": (layers.GRU, reference.gru, 1),
    "SimpleRNN": (layers.SimpleRNN, reference.simple_rnn, 1),
}
MERGED = {
    "concat": lambda y, z: [np.concatenate([y, z], axis=-1)],
    "sum": lambda y, z: [y + z],
    "mul": lambda y, z: [y * z],
    "ave": lambda y, z: [(y + z) / 2],
    None: lambda y, z: [y, z],
}


class Decay(layers.Layer):
    """A cell of the user's own, which has no kernels."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        state = 0.5 * states[0] + ops.matmul(inputs, self.kernel)
        return ops.tanh(state), [state]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def states_for(count, seed=1, units=U):
    return list(np.random.default_rng(seed).standard_normal((count, B, units)).astype("float32"))


def same(actual, expected):
    """Assert that two results, or lists of results, are the same bits."""
    for a, b in zip(as_list(actual), as_list(expected), strict=True):
        assert type(a) is type(b) is np.ndarray
        np.testing.assert_array_equal(a, b)


def close(actual, expected, tolerance=TOLERANCE["float32"]):
    for a, b in zip(as_list(actual), as_list(expected), strict=True):
        assert_close(a, b, tolerance)


def naive(loop, weights, x, states, merge_mode="concat", return_sequences=True, **options):
    """Run the naive loop in both directions, in float64; return the merged outputs and the states."""
    half, count = len(weights) // 2, len(states) // 2
    ways = []
    for n in range(2):
        own = [w.astype("float64") for w in weights[n * half : (n + 1) * half]]
        first = [s.astype("float64") for s in states[n * count : (n + 1) * count]]
        ways.append(loop(np, x.astype("float64"), own, first, go_backwards=bool(n), **options))
    (y, last), (z, last_z) = ways
    y, z = (y, z[:, ::-1]) if return_sequences else (y[:, -1], z[:, -1])
    return [*MERGED[merge_mode](y, z), *last, *last_z]


def one_by_one(layer, x, **options):
    """Call the two layers one after the other and merge what they return."""
    states = options.pop("initial_state", None)
    half = len(states or ()) // 2
    ways = [
        as_list(one(x, initial_state=own or None, **options))
        for one, own in zip(
            (layer.forward_layer, layer.backward_layer), ((states or [])[:half], (states or [])[half:]), strict=True
        )
    ]
    (y, *last), (z, *last_z) = ways
    z = ops.flip(z, 1) if layer.return_sequences else z
    return [ops.concatenate([y, z], axis=-1), *last, *last_z]


def differentiate(function, x, weights, d_outputs):
    """Return outputs and gradients of the input and of the weights, of a traced function."""
    program = graph.trace(function, [Spec(x.shape, x.dtype)])
    forward, backward = program.linearize(list(range(len(d_outputs))), [*program.inputs, *weights])
    outputs, residuals = forward(x)
    return outputs, backward(residuals, d_outputs)


# --------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("merge_mode", MERGED)
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_values_are_those_of_the_equations(cell, return_sequences, merge_mode):
    make, loop, count = CELLS[cell]
    layer = Bidirectional(
        make(U, bias_initializer="random_normal", return_sequences=return_sequences, return_state=True),
        merge_mode=merge_mode,
    )
    states = states_for(2 * count)
    for mask in (None, MASK):
        found = layer(X, initial_state=states, mask=mask)
        expected = naive(
            loop, layer.get_weights(), X, states, merge_mode, return_sequences,
            mask=mask, zero_output_for_mask=return_sequences,
        )  # fmt: skip
        assert isinstance(found, list)
        close(found, expected)
    zeros = [np.zeros_like(s) for s in states]
    close(layer(X), naive(loop, layer.get_weights(), X, zeros, merge_mode, return_sequences))
    assert layer.kernel_path == "kernel"


def test_masked_example():
    layer = Bidirectional(
        layers.GRU(
            1,
            kernel_initializer=np.full((1, 3), 0.27),
            recurrent_initializer=np.full((1, 3), 0.15),
            bias_initializer=np.full((2, 3), 0.03),
            return_sequences=True,
        )
    )
    found = layer(np.ones((1, 4, 1), "float32"), mask=np.array([[True, True, False, False]]))
    np.testing.assert_allclose(found[0].T, [[0.128, 0.207, 0, 0], [0.207, 0.128, 0, 0]], atol=6e-4)


def test_parameter_counts():
    model = models.Sequential(
        [
            Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)),
            Bidirectional(layers.LSTM(32)),
            layers.Dense(10),
        ]
    )
    assert [layer.count_params() for layer in model.layers] == [38_400, 41_216, 650]
    assert model.count_params() == 80_266
    assert [layer.output.shape for layer in model.layers] == [(None, 5, 128), (None, 64), (None, 10)]
    first = model.layers[0]
    assert [w.path for w in first.weights] == [
        f"bidirectional/{way}_lstm/lstm_cell/{name}"
        for way in ("forward", "backward")
        for name in ("kernel", "recurrent_kernel", "bias")
    ]


def test_a_model_learns_which_end_is_larger(rng):
    x = rng.standard_normal((256, 5, 2)).astype("float32")
    y = (x[:, 0, :1] > x[:, -1, :1]).astype("float32")
    model = models.Sequential([Bidirectional(layers.GRU(8)), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.02
    history = model.fit(x, y, epochs=12, batch_size=32, verbose=0).history
    assert history["accuracy"][-1] > 0.9
    assert model.predict(x, verbose=0).shape == (256, 1)


# ------------------------------------------------------------------------------ one operation, the bits of two layers


INNER = {
    "LSTM": lambda **o: layers.LSTM(U, dropout=0.3, recurrent_dropout=0.2, seed=4, **o),
    "GRU": lambda **o: layers.GRU(U, reset_after=False, activation="softsign", **o),
    "SimpleRNN": lambda **o: layers.SimpleRNN(U, dropout=0.5, seed=1, **o),
    "stack": lambda **o: layers.RNN([layers.LSTMCell(U), layers.GRUCell(4)], **o),
    "custom": lambda **o: layers.RNN(Decay(U), **o),
    "mixed stack": lambda **o: layers.RNN([layers.LSTMCell(U), Decay(4)], **o),
    "lambda": lambda **o: layers.LSTM(U, activation=halved, **o),
}


def halved(x):
    return 0.5 * x


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("inner", INNER)
def test_bits_are_those_of_the_two_layers(inner, return_sequences, threads):
    set_num_threads(threads)
    layer = Bidirectional(INNER[inner](return_sequences=return_sequences))
    layer.build(X.shape)
    twin = copy.deepcopy(layer)
    for options in ({"training": True}, {"mask": MASK, "training": True}):
        d_out = np.random.default_rng(7).standard_normal(layer(X).shape).astype("float32")
        whole = differentiate(lambda x, o=options: [layer(x, **o)], X, layer.trainable_weights, [d_out])
        parts = differentiate(lambda x, o=options: one_by_one(twin, x, **o), X, twin.trainable_weights, [d_out])
        same(whole[0], parts[0])
        same(whole[1], parts[1])
        assert all(np.abs(g).max() > 0 for g in whole[1])


@pytest.mark.parametrize("batch", [1, 2, 40])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_depend_on_threads(cell, batch, rng):
    layer = Bidirectional(CELLS[cell][0](33, return_sequences=True))
    x = rng.standard_normal((batch, 17, 8)).astype("float32")
    d_out = rng.standard_normal((batch, 17, 66)).astype("float32")
    layer.build(x.shape)
    found = []
    for threads in (1, 2, 5):
        set_num_threads(threads)
        found.append(differentiate(lambda x: [layer(x)], x, layer.trainable_weights, [d_out]))
    for outputs, gradients in found[1:]:
        same(outputs, found[0][0])
        same(gradients, found[0][1])


def test_both_directions_are_one_operation():
    def passes(layer):
        layer(X)
        nodes = graph.trace(lambda x: layer(x), [Spec(X.shape, X.dtype)]).trace.nodes
        return sum(node.name == "fused_rnn" for node in nodes)

    assert passes(Bidirectional(layers.LSTM(U))) == 1
    assert passes(Bidirectional(layers.LSTM(U), backward_layer=layers.GRU(4, go_backwards=True))) == 1
    assert passes(Bidirectional(layers.RNN([layers.LSTMCell(U), layers.GRUCell(4), layers.SimpleRNNCell(3)]))) == 3
    deep = layers.RNN([layers.GRUCell(U), layers.GRUCell(4)], go_backwards=True)
    assert passes(Bidirectional(layers.LSTM(3), backward_layer=deep)) == 2
    mixed = Bidirectional(layers.LSTM(U), backward_layer=layers.RNN(Decay(U), go_backwards=True))
    assert passes(mixed) == 1
    assert mixed.kernel_path == "program"


def test_both_directions_of_one_row_run_at_once(monkeypatch, rng):
    """Each waits for the other: on one thread neither would come to an end."""
    set_num_threads(2)
    layer = Bidirectional(layers.GRU(96, return_sequences=True))
    x = rng.standard_normal((1, 50, 64)).astype("float32")
    expected = layer(x)
    barrier, run_parts = threading.Barrier(2, timeout=60), recurrence._run_parts

    def meet(start, stop, parts):
        assert stop - start == 1
        barrier.wait()
        run_parts(start, stop, parts)

    monkeypatch.setattr(recurrence, "_run_parts", meet)
    same(layer(x), expected)
    assert not barrier.broken


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_everything(cell):
    make, _, count = CELLS[cell]
    layer = Bidirectional(
        make(U, return_sequences=True, return_state=True, bias_initializer="random_normal", dtype="float64"),
        dtype="float64",
    )
    layer.build(X.shape)
    rng = np.random.default_rng(5)
    states = [s.astype("float64") for s in states_for(2 * count)]
    weights, x = layer.trainable_weights, X.astype("float64")
    options = {"mask": MASK, "reset": RESET}
    d_outputs = [rng.standard_normal(out.shape) for out in layer(x, **options)]
    program = graph.trace(
        lambda x, *states: layer(x, initial_state=list(states), **options),
        [Spec(a.shape, a.dtype) for a in (x, *states)],
    )
    forward, backward = program.linearize(list(range(len(d_outputs))), [*program.inputs, *weights])
    gradients = backward(forward(x, *states)[1], d_outputs)

    def total(x, *rest):
        for variable, value in zip(weights, rest[len(states) :], strict=True):
            variable.assign(value)
        outputs = layer(x, initial_state=list(rest[: len(states)]), **options)
        return sum(np.vdot(d, out) for d, out in zip(d_outputs, outputs, strict=True))

    check_gradients(total, [x, *states, *[w.numpy() for w in weights]], gradients, directions=2)


# ------------------------------------------------------------------------------------------------ masks and restarts


def test_masked_timesteps_are_zeros_in_sequences_and_repeated_at_the_end():
    for return_sequences in (False, True):
        layer = Bidirectional(
            layers.GRU(U, return_sequences=return_sequences, zero_output_for_mask=not return_sequences)
        )
        assert layer.forward_layer.zero_output_for_mask is layer.backward_layer.zero_output_for_mask is return_sequences
        mask = np.array([[True] * 3 + [False] * 3] * B)
        found = layer(X, mask=mask)
        alone = layer(X[:, :3])
        if return_sequences:
            same(found[:, :3], alone)
            assert not found[:, 3:].any()
        else:
            same(found, alone)


def test_masks_go_on():
    embedded = layers.Embedding(5, F, mask_zero=True)(np.array([[1, 2, 0], [3, 0, 0]]))
    mask = [[True, True, False], [True, False, False]]
    sequence = Bidirectional(layers.GRU(U, return_sequences=True))(embedded)
    np.testing.assert_array_equal(get_mask(sequence), mask)
    both = Bidirectional(layers.GRU(U, return_sequences=True, return_state=True), merge_mode=None)(embedded)
    assert [None if get_mask(y) is None else get_mask(y).tolist() for y in both] == [mask, mask, None, None]
    assert get_mask(Bidirectional(layers.GRU(U))(embedded)) is None


@pytest.mark.parametrize("merge_mode", ["sum", None])
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_compute_mask_and_shape(return_sequences, return_state, merge_mode):
    options = {"return_sequences": return_sequences, "return_state": return_state}
    layer = Bidirectional(layers.LSTM(U, **options), merge_mode=merge_mode)
    outputs = 2 if merge_mode is None else 1
    expected = [MASK if return_sequences else None] * outputs + [None] * (4 * return_state)
    found = layer.compute_mask(X, MASK)
    assert isinstance(found, list) is (len(expected) > 1)
    assert [id(m) for m in (found if isinstance(found, list) else [found])] == [id(m) for m in expected]
    shape = layer.compute_output_shape(X.shape)
    assert (shape if isinstance(shape, list) else [shape]) == [y.shape for y in as_list(layer(X))]
    symbols = layer(layers.Input((T, F)))
    assert [y.shape[1:] for y in as_list(symbols)] == [y.shape[1:] for y in as_list(layer(X))]


def test_what_is_masked_reaches_nothing():
    layer = Bidirectional(layers.LSTM(U, return_sequences=True, return_state=True))
    d_outputs = [np.ones_like(y) for y in layer(X)]
    spoilt = np.where(MASK[..., None], X, np.float32(np.nan))
    mask = MASK.copy()
    mask[1] = False  # one row altogether
    spoilt[1] = np.nan
    clean = np.where(mask[..., None], X, np.float32(0))
    results = [
        differentiate(lambda x: layer(x, mask=mask), x, layer.trainable_weights, d_outputs) for x in (spoilt, clean)
    ]
    same(results[0][0], results[1][0])
    same(results[0][1], results[1][1])
    assert not results[0][0][0][1].any()


@pytest.mark.parametrize("inner", ["LSTM", "GRU", "stack", "custom"])
def test_a_restart_begins_a_sequence_in_both_directions(inner):
    layer = Bidirectional(INNER[inner](return_sequences=True))
    whole = layer(X, reset=RESET)
    for row in range(B):
        ends = [*(t for t in range(1, T) if RESET[row, t]), T]
        begin = 0
        for end in ends:
            alone = layer(X[row : row + 1, begin:end])
            np.testing.assert_allclose(whole[row : row + 1, begin:end], alone, rtol=1e-5, atol=1e-6)
            begin = end


def test_restarts_and_first_states():
    layer = Bidirectional(layers.GRU(U, return_sequences=True))
    states = states_for(2)
    reset = np.zeros((B, T), bool)
    reset[:, 0] = True  # a sequence begins: the state in front of it counts no more, the one behind it does
    found, plain = layer(X, initial_state=states, reset=reset), layer(X, initial_state=states)
    same(found[..., U:], plain[..., U:])
    same(found[..., :U], layer(X)[..., :U])
    same(layer(X, initial_state=states, reset=reset.astype("int32")), found)
    same(layer(X, initial_state=states, reset=reset.tolist()), found)


def test_time_major():
    layer = Bidirectional(layers.LSTM(U, return_sequences=True, time_major=True))
    layer.build((T, B, F))
    twin = Bidirectional(layers.LSTM(U, return_sequences=True))
    twin.build(X.shape)
    twin.set_weights(layer.get_weights())
    found = layer(X.swapaxes(0, 1), mask=MASK.T, reset=RESET.T)
    same(found.swapaxes(0, 1), twin(X, mask=MASK, reset=RESET))
    assert layer.compute_output_shape((T, B, F)) == found.shape


def test_wrapping_a_layer_that_goes_backwards():
    layer = Bidirectional(layers.LSTM(U, return_sequences=True, go_backwards=True))
    assert (layer.forward_layer.go_backwards, layer.backward_layer.go_backwards) == (True, False)
    layer.build(X.shape)
    weights = layer.get_weights()
    twin = Bidirectional(layers.LSTM(U, return_sequences=True))
    twin.build(X.shape)
    twin.set_weights(weights[3:] + weights[:3])
    for reset in (None, RESET):
        y = layer(X, mask=MASK, reset=reset)[:, ::-1]
        same(np.concatenate([y[..., U:], y[..., :U]], axis=-1), twin(X, mask=MASK, reset=reset))


# --------------------------------------------------------------------------------------------------------- states


def test_stateful():
    layer = Bidirectional(layers.LSTM(U, stateful=True, return_sequences=True))
    assert layer.states is None
    layer.build(X.shape)
    twin = Bidirectional(layers.LSTM(U, return_sequences=True, return_state=True))
    twin.build(X.shape)
    twin.set_weights(layer.get_weights())
    same(layer.states, [np.zeros((B, U), "float32")] * 4)
    _, *states = twin(X)
    layer(X)
    kept = layer.states
    same(kept, states)
    out, *states = twin(X, initial_state=states)
    same(layer(X), out)
    same(layer.states, states)
    same(kept, twin(X)[1:])  # what was read stays what it was
    layer.reset_states()
    same(layer.states, [np.zeros((B, U), "float32")] * 4)
    same(layer(X), twin(X)[0])
    layer.reset_state(states=states)
    same(layer(X), twin(X, initial_state=states)[0])


def test_states_that_do_not_fit():
    layer = Bidirectional(layers.GRU(U, stateful=True))
    layer(X)
    before = layer.states
    for states, message in (
        (before[0], "Unrecognized value for `states`. Expected `states` to be list or tuple."),
        (np.stack(before), "Unrecognized value for `states`. Expected `states` to be list or tuple."),
        (before[:1], "Layer forward_gru.* expects 1 states, but it received 0 state values."),
        ([before[0] + 1, before[1][:1]], "State 0 is incompatible with layer backward_gru"),
    ):
        with pytest.raises(ValueError, match=message):
            layer.reset_states(states)
    same(layer.states, before)


def test_a_given_first_state_counts_at_the_start_only():
    layer = Bidirectional(layers.GRU(U, stateful=True, return_sequences=True))
    states = states_for(2)
    first = layer(X, initial_state=states)
    assert np.abs(first - layer(X, initial_state=states)).max() > 1e-3
    layer.reset_states()
    same(layer(X, initial_state=states), first)


def test_single_rows_start_anew():
    layer = Bidirectional(layers.RNN([layers.LSTMCell(U), layers.GRUCell(3)], stateful=True))
    fresh = layer(X)
    on = layer(X)
    layer.reset_states()
    layer(X)
    rows = np.array([True, False, False, True])
    layer.reset_states(mask=rows)
    found = layer(X)
    same(found[rows], fresh[rows])
    same(found[~rows], on[~rows])


def test_states_of_stacks_nest():
    layer = Bidirectional(layers.RNN([layers.LSTMCell(U), layers.GRUCell(3)], stateful=True, return_state=True))
    _, *found = layer(X)
    assert [len(s) if isinstance(s, list) else s.shape for s in found] == [2, (B, 3), 2, (B, 3)]
    for a, b in zip(found, layer.states, strict=True):
        same(a, b)
    _, *symbols = layer(layers.Input(batch_shape=X.shape))
    assert [len(s) if isinstance(s, list) else s.shape for s in symbols] == [2, (B, 3), 2, (B, 3)]
    other = Bidirectional(layers.RNN([layers.LSTMCell(U), layers.GRUCell(3)]))
    other.build(X.shape)
    other.set_weights(layer.get_weights())
    same(other(X, initial_state=layer.states), layer(X)[0])


def test_layers_of_unequal_numbers_of_states():
    options = {"stateful": True, "return_state": True}
    layer = Bidirectional(layers.LSTM(U, **options), backward_layer=layers.GRU(3, go_backwards=True, **options))
    out, *states = layer(X)
    assert [s.shape for s in states] == [(B, U), (B, U), (B, 3)]
    assert layer.compute_mask(X, MASK) == [None] * 4
    same(layer.states, states)
    on = layer(X)[0]
    layer.reset_states(states)
    same(layer(X)[0], on)
    layer.reset_states()
    same(layer(X, initial_state=states)[0], on)
    symbols = layer(layers.Input(batch_shape=X.shape))
    assert [y.shape for y in symbols] == [y.shape for y in (out, *states)]


def test_a_refused_call_leaves_the_states_of_both(monkeypatch):
    layer = Bidirectional(
        layers.LSTM(U, stateful=True), backward_layer=layers.RNN(Decay(U), stateful=True, go_backwards=True)
    )
    layer(X)
    before = layer.states
    assert all(np.abs(state).max() > 0 for state in before)
    others = [2 * state for state in before[:2]]
    refusals = [
        lambda: layer(X[:2]),
        lambda: layer(X, mask=MASK[:, :2]),
        lambda: layer(X, initial_state=[*states_for(2), np.zeros((B, U + 1), "float32"), np.zeros((B, 1), "float32")]),
        lambda: layer.reset_states([*others, np.zeros((B, U + 1), "float32")]),
        lambda: layer.reset_states([*others, before[2].astype("complex64")]),
        lambda: layer.reset_states(others),
        lambda: layer.reset_states(mask=np.ones(B + 1, bool)),
        lambda: layer.reset_states(7),
    ]
    for refuse in refusals:
        with pytest.raises(ValueError, match=r"."):
            refuse()
    # The second direction alone: in the midst of its run, or with states that cannot be recorded.
    cell = layer.backward_layer.cell
    for wrong in (lambda x, states: 1 / 0, lambda x, states: (states[0], [states[0][:1]])):
        monkeypatch.setattr(cell, "call", wrong)
        with pytest.raises((ZeroDivisionError, ValueError)):
            layer(X)
    same(layer.states, before)


def test_models_reset_their_bidirectional_layers():
    model = models.Sequential([Bidirectional(layers.GRU(U, stateful=True), batch_input_shape=X.shape)])
    first = model.predict(X, batch_size=B, verbose=0)
    assert np.abs(model.predict(X, batch_size=B, verbose=0) - first).max() > 1e-4
    model.reset_states()
    same(model.predict(X, batch_size=B, verbose=0), first)


# ------------------------------------------------------------------------------------- how it is called and is made


def test_lists_and_positions_of_arguments():
    layer = Bidirectional(layers.LSTM(U, return_sequences=True))
    states = states_for(4)
    expected = layer(X, initial_state=states, mask=MASK)
    same(layer([X, *states], mask=MASK), expected)
    same(layer(X, states, MASK), expected)
    same(layer(X, tuple(states), mask=MASK.tolist()), expected)
    same(layer([X, *states], mask=[MASK, None, None, None, None]), expected)
    inputs, first = layers.Input((T, F)), [layers.Input((U,)) for _ in states]
    symbol = layer(inputs, initial_state=first)
    same(graph.evaluate(symbol, [inputs, *first], [X, *states]), layer(X, initial_state=states))


def test_both_layers_are_made_from_the_configuration():
    wrapped = layers.LSTM(U, name="mine", use_cudnn=False, implementation=1, dropout=0.5)
    wrapped.build(X.shape)
    layer = Bidirectional(wrapped)
    layer.build(X.shape)
    assert (layer.forward_layer.name, layer.backward_layer.name) == ("forward_mine", "backward_mine")
    forward, backward = layer.get_weights()[:3], layer.get_weights()[3:]
    assert not np.array_equal(forward[0], backward[0])
    assert not np.array_equal(forward[0], wrapped.get_weights()[0])
    for one in (layer.forward_layer, layer.backward_layer):
        assert (one.use_cudnn, one.implementation) == (False, 1)  # no part of Keras's configuration
    assert not hasattr(Bidirectional(layers.SimpleRNN(U)).forward_layer, "use_cudnn")
    assert layer.layer is wrapped
    assert len(layer.weights) == len(layer.trainable_weights) == 6

    given = layers.GRU(3, go_backwards=True, name="other")
    mixed = Bidirectional(wrapped, backward_layer=given)
    assert mixed.backward_layer is given
    assert given.name == "other"
    assert mixed(X).shape == (B, U + 3)


def scaled(x):
    return ops.tanh(2 * x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.RNN(Decay(U)),
        lambda: layers.RNN([Decay(U), layers.GRUCell(3)]),
        lambda: layers.LSTM(U, activation=scaled, kernel_initializer=tenths),
    ],
    ids=["cell", "stack", "functions"],
)
def test_what_is_the_users_own_needs_no_registration(make):
    layer = Bidirectional(make())
    assert layer(X).shape[0] == B
    ways = [one.cell for one in (layer.forward_layer, layer.backward_layer)]
    assert ways[0] is not ways[1]
    same(copy.deepcopy(layer)(X), layer(X))
    again = Bidirectional.from_config(
        layer.get_config(), custom_objects={"Decay": Decay, "scaled": scaled, "tenths": tenths}
    )
    again.build(X.shape)
    again.set_weights(layer.get_weights())
    same(again(X), layer(X))


def tenths(shape, dtype=None):
    return np.full(shape, 0.1, dtype)


def test_two_things_of_one_name():
    def tanh(x):
        return x

    with pytest.raises(ValueError, match="'tanh' is the name of two different things"):
        Bidirectional(layers.LSTM(U, activation=tanh, recurrent_activation="tanh"))


@pytest.mark.parametrize("backward", [None, lambda: layers.GRU(3, go_backwards=True, return_state=True, name="b")])
@pytest.mark.parametrize("merge_mode", ["concat", None])
def test_configuration(merge_mode, backward):
    layer = Bidirectional(
        layers.LSTM(U, return_state=True, name="inner"),
        merge_mode=merge_mode,
        backward_layer=backward and backward(),
        name="outer",
    )
    layer.build(X.shape)
    config = json.loads(json.dumps(layer.get_config()))
    assert list(config) == ["name", "trainable", "dtype", "merge_mode", "layer", "backward_layer"]
    again = Bidirectional.from_config(config)
    assert again.get_config() == layer.get_config()
    assert not again.weights
    again.build(X.shape)
    assert [w.path for w in again.weights] == [w.path for w in layer.weights]
    again.set_weights(layer.get_weights())
    same(again(X), layer(X))
    other = serialization.deserialize_keras_object(serialization.serialize_keras_object(layer))
    other.set_weights(layer.get_weights())
    same(other(X), layer(X))


def test_configuration_of_keras_2():
    layer = Bidirectional(layers.LSTM(U, name="inner"))
    config = layer.get_config()
    del config["backward_layer"]
    config["layer"]["config"]["name"] = "inner"
    again = Bidirectional.from_config(config)
    assert [one.name for one in (again.forward_layer, again.backward_layer)] == ["forward_inner", "backward_inner"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(copied):
    layer = Bidirectional(layers.LSTM(U, stateful=True))
    layer(X)
    twin = copied(layer)
    same(twin.states, layer.states)
    same(twin(X), layer(X))
    twin.backward_layer.cell.kernel.assign(twin.backward_layer.cell.kernel * 0)
    assert not np.array_equal(twin(X), layer(X))


def test_weights_to_start_from():
    values = Bidirectional(layers.LSTM(U))
    values.build(X.shape)
    layer = Bidirectional(layers.LSTM(U), "concat", values.get_weights())
    same(layer(X), values(X))


def test_trainable():
    layer = Bidirectional(layers.LSTM(U), trainable=False)
    layer.build(X.shape)
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (0, 6)
    layer.trainable = True
    layer.backward_layer.trainable = False
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (3, 3)
    assert Bidirectional(layers.LSTM(U, trainable=False)).trainable is False


def test_losses_are_those_of_both_layers():
    layer = Bidirectional(
        layers.LSTM(U, kernel_regularizer="l2", activity_regularizer="l1", return_sequences=True), merge_mode="sum"
    )
    y, z = Bidirectional.from_config({**layer.get_config(), "merge_mode": None}), None
    y.build(X.shape)
    layer.build(X.shape)
    y.set_weights(layer.get_weights())
    layer(X)
    found = [float(value) for value in layer.losses]
    y, z = y(X)
    kernels = [layer.forward_layer.cell.kernel.numpy(), layer.backward_layer.cell.kernel.numpy()]
    expected = [0.01 * np.abs(a).sum() / B for a in (y, z)] + [0.01 * (k**2).sum() for k in kernels]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_types():
    layer = Bidirectional(layers.GRU(U, dtype="float64"), dtype="float64")
    assert layer(X.astype("float64")).dtype == np.float64
    assert layer(X).dtype == np.float64
    half = Bidirectional(layers.GRU(U, return_state=True, dtype="mixed_float16"), dtype="mixed_float16")
    found = half(X)
    assert {y.dtype for y in found} == {np.dtype("float16")}
    assert {w.dtype for w in half.weights} == {np.dtype("float32")}
    parts = [half.forward_layer(X), half.backward_layer(X)]
    same(found[0], np.concatenate([parts[0][0], parts[1][0]], axis=-1))
    inner = Bidirectional(layers.GRU(U, dtype="mixed_float16"))  # rounds, as the layer does
    same(inner(X), np.concatenate([inner.forward_layer(X), inner.backward_layer(X)], axis=-1).astype("float32"))


class Reversible(layers.Layer):
    """Running sums, in either direction: no `RNN`, but what `Bidirectional` asks for."""

    def __init__(self, go_backwards=False, return_sequences=False, return_state=False, **kwargs):
        super().__init__(**kwargs)
        self.go_backwards = go_backwards
        self.return_sequences = return_sequences
        self.return_state = return_state

    def call(self, x):
        x = ops.flip(x, 1) if self.go_backwards else x
        sums = ops.stack([ops.sum(x[:, : t + 1], axis=1) for t in range(x.shape[1])], axis=1)
        return sums if self.return_sequences else sums[:, -1]


class Doubled(layers.GRU):
    """A layer whose `call` is more than the loop over time."""

    def call(self, sequences, *args, **kwargs):
        return 2 * super().call(sequences, *args, **kwargs)


def test_other_layers():
    expected = np.concatenate([X.cumsum(1), X[:, ::-1].cumsum(1)[:, ::-1]], axis=-1)
    layer = Bidirectional(Reversible(return_sequences=True))
    np.testing.assert_allclose(layer(X), expected, rtol=1e-5, atol=1e-6)
    assert layer.kernel_path == "program"
    with pytest.raises(ValueError, match="`reset` is no argument of the call of layer 'forward_reversible'"):
        layer(X, reset=RESET)
    with pytest.raises(ValueError, match="`mask` is no argument of the call of layer 'forward_reversible'"):
        layer(X, mask=MASK)
    doubled = Bidirectional(Doubled(U, return_sequences=True))
    plain = Bidirectional(layers.GRU(U, return_sequences=True))
    for one in (doubled, plain):
        one.build(X.shape)
    plain.set_weights(doubled.get_weights())
    same(doubled(X, mask=MASK), 2 * plain(X, mask=MASK))


# ---------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Bidirectional(3), ValueError, "Please initialize `Bidirectional` layer with a .*Layer` instance"),
        (lambda: Bidirectional(layers.LSTM(U), backward_layer=3), ValueError, "`backward_layer` need to be a"),
        (
            lambda: Bidirectional(layers.LSTM(U), merge_mode="x"),
            ValueError,
            'Invalid merge mode. Received: x. Merge mode should be one of {"sum", "mul", "ave", "concat", None}',
        ),
        (
            lambda: Bidirectional(layers.LSTM(U), backward_layer=layers.LSTM(U)),
            ValueError,
            "Forward layer and backward layer should have different `go_backwards` value.",
        ),
        (
            lambda: Bidirectional(
                layers.LSTM(U), backward_layer=layers.LSTM(U, go_backwards=True, return_sequences=True)
            ),
            ValueError,
            'same value for attribute "return_sequences", got "False" for forward layer and "True" for backward layer',
        ),
        (
            lambda: Bidirectional(layers.LSTM(U), backward_layer=layers.LSTM(U, go_backwards=True, return_state=True)),
            ValueError,
            'attribute "return_state", got "False"',
        ),
        (
            lambda: Bidirectional(layers.LSTM(U), backward_layer=layers.LSTM(U, go_backwards=True, stateful=True)),
            ValueError,
            'attribute "stateful", got "False"',
        ),
        (
            lambda: Bidirectional(layers.LSTM(U), backward_layer=layers.LSTM(U, go_backwards=True, time_major=True)),
            ValueError,
            'attribute "time_major", got "False"',
        ),
        (
            lambda: Bidirectional(layers.LSTM(1), "ave", backward_layer=layers.LSTM(U, go_backwards=True))(X),
            ValueError,
            'With merge_mode="ave" both layers must have outputs of one size. Received: 1 of forward_layer, 5 of',
        ),
        (lambda: Bidirectional(layers.Dense(3)), ValueError, "needs a layer with the attributes"),
        (lambda: Bidirectional(layers.LSTM(U), foo=1), ValueError, "Unrecognized keyword arguments"),
        (
            lambda: Bidirectional(layers.LSTM(U))(X, initial_state=states_for(3)),
            ValueError,
            "When passing `initial_state` to a Bidirectional RNN, the state should be a list containing the states of "
            "the underlying RNNs",
        ),
        (lambda: Bidirectional(layers.LSTM(U))(X, initial_state=states_for(2)), ValueError, "passed 1 initial states"),
        (
            lambda: Bidirectional(layers.LSTM(U))([X, *states_for(4)], initial_state=states_for(4)),
            ValueError,
            "both in the list of inputs and as a keyword",
        ),
        (lambda: Bidirectional(layers.LSTM(U))(X[0]), ValueError, "expected ndim=3, found ndim=2"),
        (lambda: Bidirectional(layers.LSTM(U))(X[:, :0]), ValueError, "at least one timestep"),
        (lambda: Bidirectional(layers.LSTM(U))(X, mask=MASK[:, 1:]), ValueError, "`mask` of layer 'forward_lstm'"),
        (lambda: Bidirectional(layers.LSTM(U))(X, reset=MASK[:, 1:]), ValueError, "`reset` of layer 'forward_lstm'"),
        (lambda: Bidirectional(layers.LSTM(U))(X, reset=MASK[0]), ValueError, "`reset` of layer 'forward_lstm'"),
        (lambda: Bidirectional(layers.LSTM(U)).reset_states(), AttributeError, "Layer must be stateful."),
        (
            lambda: Bidirectional(layers.LSTM(U, stateful=True)).reset_states(),
            ValueError,
            "it needs to know its batch size",
        ),
        (lambda: Bidirectional(layers.LSTM(U, stateful=True))(layers.Input((T, F))), ValueError, "batch size"),
        (lambda: layers.Wrapper(3), ValueError, "Please initialize `Wrapper` layer with a"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_other_inputs_at_later_calls():
    layer = Bidirectional(layers.LSTM(U, stateful=True))
    layer(X)
    with pytest.raises(ValueError, match=r"expected shape=\(None, None, 3\), found shape=\(4, 6, 2\)"):
        layer(X[..., :2])
    with pytest.raises(ValueError, match="batch size"):
        layer(X[:3])
    built = layers.LSTM(U, go_backwards=True)
    built.build((B, T, F + 1))
    with pytest.raises(ValueError, match="layer 'lstm_1'|layer 'lstm"):
        Bidirectional(layers.LSTM(U), backward_layer=built)(X)


def test_wrapper():
    inner = layers.Dense(2)
    wrapper = layers.Wrapper(inner)
    wrapper.build((None, 3))
    assert inner.built
    assert wrapper.weights == inner.weights
    again = layers.Wrapper.from_config(json.loads(json.dumps(wrapper.get_config())))
    assert again.layer.units == 2
    assert backend.standardize_dtype(again.dtype) == "float32"
