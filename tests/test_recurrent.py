"""`RNN`, `LSTMCell` and `LSTM`: options, masks, states, dropout, types, configuration, errors."""

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from parity import as_list
from recurrent import EVERYTHING, KINDS, MASK, RESET, STATES, B, F, T, U, X, close, differentiate, same, slopes

from numbarnn import backend, cells, graph, initializers, layers, models, ops, random, serialization
from numbarnn.graph import Spec
from numbarnn.layers import get_mask
from numbarnn.layers.fused import PackedCache
from numbarnn.recurrence import kernel_calls
from numbarnn.simd_math import ACTIVATIONS
from numbarnn.variable import Variable


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()
    yield
    backend.set_floatx("float32")


[LSTM] = [kind for kind in KINDS if kind.name == "LSTM"]
lstm, like, naive = LSTM.make, LSTM.like, LSTM.loop


# ---------------------------------------------------------------------------------------------- one layer, three ways


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True},
        {"return_state": True, "go_backwards": True},
        {**EVERYTHING, "zero_output_for_mask": True},
        {**EVERYTHING, "time_major": True},
        {**EVERYTHING, "unroll": True},
        {"stateful": True, **EVERYTHING},
    ],
    ids=str,
)
@pytest.mark.parametrize("training", [False, True])
def test_lstm_is_rnn_of_its_cell(options, training):
    cell = {"units": U, "dropout": 0.3, "recurrent_dropout": 0.2, "seed": 4, "activation": "softsign"}
    one, other = layers.LSTM(**cell, **options), layers.RNN(layers.LSTMCell(**cell), **options)
    turn = (lambda a: a.swapaxes(0, 1)) if options.get("time_major") else (lambda a: a)
    one.build(turn(X).shape)
    other.build(turn(X).shape)
    other.set_weights(one.get_weights())
    for _ in range(2):
        found = one(turn(X), mask=turn(MASK), initial_state=STATES, training=training)
        same(found, other(turn(X), mask=turn(MASK), initial_state=STATES, training=training))


def test_the_cell_stepped_by_hand_is_the_layer():
    layer = lstm(**EVERYTHING)
    out, h, c = layer(X, initial_state=STATES)
    states = STATES
    for t in range(T):
        y, states = layer.cell(X[:, t], states)
        same([y, states[0]], [out[:, t], states[0]])
    same(states, [h, c])
    same(layer.cell.get_initial_state(batch_size=2), [np.zeros((2, U), "float32")] * 2)
    same(layer.get_initial_state(2), layer.cell.get_initial_state(batch_size=2))


def test_values_are_those_of_the_equations():
    layer = lstm(**EVERYTHING)
    found = layer(X, initial_state=STATES, mask=MASK, reset=RESET)
    close(found, naive(layer, X, STATES, mask=MASK, reset=RESET))


def test_which_outputs_come_out():
    layer = lstm(**EVERYTHING)
    whole = layer(X, mask=MASK)
    assert type(whole) is list and [a.shape for a in whole] == [(B, T, U), (B, U), (B, U)]
    same(like(layer)(X, mask=MASK), whole[0][:, -1])
    same(like(layer, return_sequences=True)(X, mask=MASK), whole[0])
    same(like(layer, return_state=True)(X, mask=MASK), [whole[0][:, -1], *whole[1:]])
    time_major = lstm(**EVERYTHING, time_major=True)
    time_major.build((T, B, F))
    time_major.set_weights(layer.get_weights())
    out, *last = time_major(X.swapaxes(0, 1), mask=MASK.T)
    same([out.swapaxes(0, 1), *last], whole)
    same(like(layer, **EVERYTHING, unroll=True)(X, mask=MASK), whole)


def test_go_backwards_is_the_layer_on_the_reversed_sequence():
    layer = lstm(**EVERYTHING, go_backwards=True)
    found = layer(X, mask=MASK, reset=RESET)
    same(found, like(layer, **EVERYTHING)(X[:, ::-1], mask=MASK[:, ::-1], reset=RESET[:, ::-1]))


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("return_state", [False, True])
def test_output_shapes(return_state, return_sequences, time_major):
    layer = lstm(return_sequences=return_sequences, return_state=return_state, time_major=time_major)
    x = X.swapaxes(0, 1) if time_major else X
    shapes = layer.compute_output_shape(x.shape)
    shapes = shapes if return_state else [shapes]
    assert [tuple(shape) for shape in shapes] == [a.shape for a in as_list(layer(x))]
    symbolic = as_list(layer(layers.Input(batch_shape=(None, *x.shape[1:]))))
    assert [s.shape[1:] for s in symbolic] == [shape[1:] for shape in shapes]


# ------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("zero_output_for_mask", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_masked_steps(go_backwards, zero_output_for_mask):
    layer = lstm(**EVERYTHING, go_backwards=go_backwards, zero_output_for_mask=zero_output_for_mask)
    found = layer(X, mask=MASK)
    options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output_for_mask}
    close(found, naive(layer, X, mask=MASK, **options))
    last = like(layer, go_backwards=go_backwards, zero_output_for_mask=zero_output_for_mask)
    same(last(X, mask=MASK), found[0][:, -1])
    final = MASK[:, 0 if go_backwards else -1]
    assert not final.all() and final.any()
    assert (last(X, mask=MASK)[~final] == 0).all() == zero_output_for_mask


@pytest.mark.parametrize(
    "form",
    [
        lambda m: m.astype(int),
        lambda m: m.astype("float32"),
        lambda m: m[:, :, None],
        lambda m: [m],
        lambda m: m.tolist(),
        np.asfortranarray,
    ],
    ids=["int", "float", "(B, T, 1)", "list of masks", "nested list", "Fortran"],
)
def test_forms_of_a_mask(form):
    layer = lstm(**EVERYTHING)
    mask = form(MASK)
    if isinstance(mask, list) and not isinstance(mask[0], np.ndarray):
        mask = np.array(mask)
    same(layer(X, mask=mask), layer(X, mask=MASK))


def test_masks_travel_into_the_layer_and_out_of_it():
    ids = np.array([[1, 2, 0, 3], [4, 0, 0, 0], [0, 5, 6, 7]])
    embedded = layers.Embedding(8, F, mask_zero=True)(ids)
    first, second = lstm(return_sequences=True), lstm(return_state=True)
    hidden = first(embedded)
    np.testing.assert_array_equal(get_mask(hidden), ids != 0)
    found = second(hidden)
    same(found, second(first(embedded + 0, mask=ids != 0) + 0, mask=ids != 0))
    assert not np.array_equal(found[0], second(first(embedded + 0) + 0)[0])
    assert all(get_mask(a) is None for a in found)
    x = X.copy()
    x[~MASK] = 7
    same(first(layers.Masking(7.0)(x)), first(x, mask=MASK))


def test_compute_mask():
    assert lstm(return_sequences=True).compute_mask(X, MASK) is MASK
    assert lstm().compute_mask(X, MASK) is None
    first, *rest = lstm(**EVERYTHING).compute_mask(X, MASK)
    assert first is MASK and rest == [None, None]


def test_a_mask_that_travels_counts_beside_an_initial_state_too():
    """Keras 3 loses it there."""
    layer = lstm(**EVERYTHING)
    x = X.copy()
    x[~MASK] = 0
    same(layer(layers.Masking()(x), initial_state=STATES), layer(x, mask=MASK, initial_state=STATES))


def test_a_row_masked_whole_keeps_its_states_and_shows_zeros():
    layer = lstm(**EVERYTHING)
    mask = MASK.copy()
    mask[1] = False
    out, h, c = layer(X, mask=mask, initial_state=STATES)
    same([out[1], h[1], c[1]], [np.zeros((T, U), "float32"), STATES[0][1], STATES[1][1]])


# ------------------------------------------------------------------------------------------------------------ states


def test_states_may_be_given_in_many_ways():
    layer = lstm(**EVERYTHING)
    found = layer(X, initial_state=STATES)
    same(layer([X, *STATES]), found)
    same(layer(X, initial_state=tuple(STATES)), found)
    same(layer(X, initial_state=[state.astype("float64") for state in STATES]), found)
    same(layer(X, initial_state=[state.tolist() for state in STATES]), found)
    same(layer([X]), layer(X))
    close(found, naive(layer, X, STATES))


# ----------------------------------------------------------------------------------------------------------- weights


def test_weights_their_order_and_first_values():
    layer = layers.LSTM(U, bias_initializer=initializers.Constant(0.03), name="l")
    layer.build((None, None, F))
    assert [w.path for w in layer.weights] == [f"l/lstm_cell/{name}" for name in ("kernel", "recurrent_kernel", "bias")]
    kernel, recurrent, bias = layer.get_weights()
    assert (kernel.shape, recurrent.shape, bias.shape) == ((F, 4 * U), (U, 4 * U), (4 * U,))
    assert layer.count_params() == 4 * U * (F + U + 1)
    limit = np.sqrt(6 / (F + 4 * U))
    assert 0.8 * limit < np.abs(kernel).max() <= limit
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(U), atol=1e-6)
    np.testing.assert_array_equal(bias, np.repeat(np.float32([0.03, 1, 0.03, 0.03]), U))


@pytest.mark.parametrize(
    ("options", "bias"),
    [
        ({}, np.repeat([0.0, 1, 0, 0], U)),
        ({"unit_forget_bias": False}, np.zeros(4 * U)),
        ({"unit_forget_bias": False, "bias_initializer": "ones"}, np.ones(4 * U)),
    ],
)
def test_first_bias(options, bias):
    layer = layers.LSTM(U, **options)
    layer(X)
    np.testing.assert_array_equal(layer.get_weights()[2], bias)


def test_no_bias():
    layer = layers.LSTM(U, use_bias=False, **EVERYTHING)
    found = layer(X)
    close(found, naive(layer, X))
    assert len(layer.weights) == 2 and layer.cell.bias is None


def test_changed_weights_are_seen():
    """Packed weights are kept from call to call."""
    layer = lstm()
    first = layer(X)
    layer.cell.recurrent_kernel.assign(0.5 * layer.cell.recurrent_kernel.numpy())
    second = layer(X)
    assert not np.array_equal(first, second)
    close(second, naive(layer, X)[0][:, -1])
    layer.set_weights([1.5 * w for w in layer.get_weights()])
    close(layer(X), naive(layer, X)[0][:, -1])


def test_every_weight_is_watched():
    """Also one that is replaced by another of the same version."""
    arrays = tuple(Variable(np.full(shape, 0.5)) for shape in ((F, 4 * U), (U, 4 * U), (4 * U,)))
    cache = PackedCache()
    packed = cache.get(cells.LSTM, arrays, tuple(v.value for v in arrays))
    assert cache.get(cells.LSTM, arrays, tuple(v.value for v in arrays)) is packed
    for place in range(3):
        others = tuple(Variable(v.numpy()) if n == place else v for n, v in enumerate(arrays))
        found = cache.get(cells.LSTM, others, tuple(v.value for v in others))
        assert found is not packed, place
        packed = cache.get(cells.LSTM, arrays, tuple(v.value for v in arrays))


def test_copies_come_without_packed_weights():
    layer = lstm()
    layer.build(X.shape)
    size = len(pickle.dumps(layer))
    found = layer(X)
    assert len(pickle.dumps(layer)) == size
    same(pickle.loads(pickle.dumps(layer))(X), found)
    twin = copy.deepcopy(layer)
    twin.set_weights([0.5 * w for w in layer.get_weights()])
    same(layer(X), found)
    assert not np.array_equal(twin(X), found)


def test_threads_may_call_one_layer_at_once():
    layer = lstm(**EVERYTHING)
    inputs = [X + number for number in range(4)]
    expected = [layer(x) for x in inputs]
    gradients = [differentiate(layer, x, [x[..., :1] + np.ones(U, "float32")])[1] for x in inputs]
    with ThreadPoolExecutor(4) as threads:
        for number, found in zip(20 * list(range(4)), threads.map(layer, 20 * inputs), strict=True):
            same(found, expected[number])
        again = threads.map(lambda x: differentiate(layer, x, [x[..., :1] + np.ones(U, "float32")])[1], 5 * inputs)
        for number, found in zip(5 * list(range(4)), again, strict=True):
            same(found, gradients[number])


def test_two_layers_may_share_a_cell():
    cell = layers.LSTMCell(U)
    one, other = layers.RNN(cell), layers.RNN(cell, go_backwards=True)
    same(one(X), other(X[:, ::-1]))
    assert one.weights == other.weights


def test_regularizers_constraints_and_the_penalty_on_outputs():
    layer = layers.LSTM(
        U,
        kernel_regularizer="l1",
        recurrent_regularizer="l2",
        bias_regularizer="l1_l2",
        activity_regularizer="l2",
        kernel_constraint="non_neg",
        recurrent_constraint="unit_norm",
        bias_constraint="max_norm",
    )
    out = layer(X)
    kernel, recurrent, bias = layer.get_weights()
    expected = [0.01 * np.abs(kernel).sum(), 0.01 * (recurrent**2).sum(), 0.01 * (out**2).sum() / B]
    found = sorted(float(loss) for loss in layer.losses)
    expected.append(0.01 * np.abs(bias).sum() + 0.01 * (bias**2).sum())
    assert len(found) == 4
    np.testing.assert_allclose(sorted(expected)[-3:], found[-3:], rtol=1e-5)
    constraints = [type(w.constraint).__name__ for w in layer.trainable_weights]
    assert constraints == ["NonNeg", "UnitNorm", "MaxNorm"]


def test_a_frozen_layer():
    layer = lstm(trainable=False)
    layer(X)
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 3
    layer.trainable = True
    assert len(layer.trainable_weights) == 3


# ----------------------------------------------------------------------------------------------------- configuration

LSTM_KEYS = (
    "name trainable dtype return_sequences return_state go_backwards stateful unroll zero_output_for_mask "
    "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "unit_forget_bias kernel_regularizer recurrent_regularizer bias_regularizer activity_regularizer "
    "kernel_constraint recurrent_constraint bias_constraint dropout recurrent_dropout seed"
).split()
LOOP_KEYS = LSTM_KEYS[:9]
CELL_KEYS = [key for key in LSTM_KEYS if key not in LOOP_KEYS[3:] + ["activity_regularizer"]]
ARGUMENTS = {
    "activation": "relu",
    "recurrent_activation": "hard_sigmoid",
    "use_bias": False,
    "kernel_initializer": "he_normal",
    "recurrent_initializer": "glorot_uniform",
    "bias_initializer": "ones",
    "unit_forget_bias": False,
    "kernel_regularizer": "l1",
    "recurrent_regularizer": "l2",
    "bias_regularizer": "l1_l2",
    "kernel_constraint": "non_neg",
    "recurrent_constraint": "unit_norm",
    "bias_constraint": "max_norm",
    "dropout": 0.25,
    "recurrent_dropout": 0.5,
    "seed": 3,
}
LOOP_ARGUMENTS = {
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "zero_output_for_mask": True,
}
OTHER_ARGUMENTS = {"name": "given", "trainable": False, "dtype": "float64"}


def test_configurations():
    layer = layers.LSTM(U, **ARGUMENTS, **LOOP_ARGUMENTS, **OTHER_ARGUMENTS, activity_regularizer="l2", time_major=True)
    cell = layers.LSTMCell(U, **ARGUMENTS, **OTHER_ARGUMENTS)
    config = layer.get_config()
    assert [key for key in config if key != "time_major"] == LSTM_KEYS and config["time_major"] is True
    assert sorted(cell.get_config()) == sorted(CELL_KEYS)
    rnn = layers.RNN(cell, **LOOP_ARGUMENTS, **OTHER_ARGUMENTS)
    assert list(rnn.get_config()) == [*LOOP_KEYS, "cell"]
    for one in (layer, cell, rnn):
        other = type(one).from_config(one.get_config())
        assert other.get_config() == one.get_config()
        again = serialization.deserialize_keras_object(serialization.serialize_keras_object(one))
        assert type(again) is type(one) and again.get_config() == one.get_config()
    assert {key: config[key] for key in LOOP_ARGUMENTS} == LOOP_ARGUMENTS
    plain = {
        "activation",
        "recurrent_activation",
        "use_bias",
        "unit_forget_bias",
        "dropout",
        "recurrent_dropout",
        "seed",
    }
    assert {key: config[key] for key in plain} == {key: ARGUMENTS[key] for key in plain}
    assert type(lstm(dropout=np.float32(0.5)).get_config()["dropout"]) is float  # as JSON takes it
    assert "time_major" not in lstm().get_config() and list(lstm().get_config()) == LSTM_KEYS


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (layers.LSTM, [key for key in LSTM_KEYS if key not in LOOP_KEYS] + [*LOOP_KEYS[3:8], "use_cudnn"]),
        (layers.LSTMCell, [key for key in LSTM_KEYS if key not in [*LOOP_KEYS, "activity_regularizer"]]),
        (layers.RNN, ["cell", *LOOP_KEYS[3:]]),
    ],
)
def test_arguments_come_in_keras_order(kind, names):
    parameters = inspect.signature(kind).parameters.values()
    assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == names


def test_the_cells_arguments_are_the_layers_attributes():
    layer = layers.LSTM(U, **ARGUMENTS, implementation=0)
    for name in (*ARGUMENTS, "units", "implementation"):
        assert getattr(layer, name) is getattr(layer.cell, name)
    assert layer.units == U and layer.dropout == 0.25 and layer.implementation == 1
    assert layers.LSTM(U, dropout=7, recurrent_dropout=-1).get_config()["dropout"] == 1.0


# ------------------------------------------------------------------------------------------------------------- types


@pytest.mark.parametrize(
    ("layer_dtype", "input_dtype", "output_dtype", "variable_dtype"),
    [
        ("float64", "float64", "float64", "float64"),
        ("float64", "float32", "float64", "float64"),
        ("float32", "float64", "float32", "float32"),
        ("float32", "float16", "float32", "float32"),
        ("float32", "int32", "float32", "float32"),
        ("float32", "uint8", "float32", "float32"),
        ("mixed_float16", "float32", "float16", "float32"),
        ("float16", "float32", "float16", "float16"),
    ],
)
@pytest.mark.parametrize("make", [lstm, lambda **kw: layers.RNN(layers.LSTMCell(U, dtype=kw["dtype"]), **kw)])
def test_types(make, layer_dtype, input_dtype, output_dtype, variable_dtype):
    layer = make(dtype=layer_dtype, **EVERYTHING)
    x = (3 * np.abs(X)).astype(input_dtype)
    found = layer(x, initial_state=STATES)
    assert {a.dtype.name for a in found} == {output_dtype}
    assert {w.dtype.name for w in layer.weights} == {variable_dtype}
    expected = naive(layer, x, STATES)
    close(found, expected, {"float16": 2e-3, "float32": 1e-5, "float64": 1e-12}[output_dtype])


def test_arrays_of_any_memory_order():
    layer = lstm(**EVERYTHING)
    expected = layer(X, initial_state=STATES, mask=MASK)
    for change in (np.asfortranarray, lambda a: a[::-1].copy()[::-1], lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
        same(layer(change(X), initial_state=[change(s) for s in STATES], mask=change(MASK)), expected)
    read_only = X.copy()
    read_only.flags.writeable = False
    same(layer(read_only, initial_state=STATES, mask=MASK), expected)


def test_an_empty_batch():
    layer = lstm(**EVERYTHING)
    assert [a.shape for a in layer(X[:0])] == [(0, T, U), (0, U), (0, U)]
    assert lstm()(X[:0]).shape == (0, U)
    program = lstm(activation="softmax", **EVERYTHING)
    assert [a.shape for a in program(X[:0])] == [(0, T, U), (0, U), (0, U)]
    for one in (layer, program):
        assert [a.shape for a in one(X[:0], mask=MASK[:0], reset=RESET[:0])] == [(0, T, U), (0, U), (0, U)]


# ----------------------------------------------------------------------------------------------------------- dropout


def open_gates(inputs, drop):
    """Make an LSTM whose c is the product of what its gates i and g see, and whose h is that times what o sees."""
    layer = layers.LSTM(
        inputs,
        activation="linear",
        recurrent_activation="linear",
        use_bias=False,
        dtype="float64",
        **EVERYTHING,
        **drop,
    )
    layer.build((None, None, inputs))
    one, zero = np.eye(inputs), np.zeros((inputs, inputs))
    layer.set_weights([np.hstack([one, zero, one, one])] * 2)
    return layer


# Each gate sees its own dropped inputs, or all the same: the chance that the product of three is left.
@pytest.mark.parametrize(("implementation", "left"), [(2, 0.5), (1, 0.125)])
def test_dropout_of_the_inputs_is_shared_over_time(implementation, left):
    layer = open_gates(400, {"dropout": 0.5, "seed": 1, "implementation": implementation})
    x = np.ones((10, 5, 400))
    layer.cell.recurrent_kernel.assign(np.zeros((400, 1600)))
    out, *_ = layer(x, training=True)
    assert set(np.unique(out)) == {0, 8}
    assert np.all(out == out[:, :1])
    assert np.mean(out != 0) == pytest.approx(left, abs=0.03)
    again, *_ = layer(x, training=True)
    assert not np.array_equal(again, out)
    same(layer(x)[0], np.ones_like(out))


def test_dropout_of_h_is_shared_over_time_and_each_gate_has_its_own():
    layer = open_gates(300, {"recurrent_dropout": 0.5, "seed": 1})
    ones = np.ones((10, 300))
    out, _, c = layer(np.zeros((10, 3, 300)), initial_state=[ones, ones], training=True)
    kept = out[:, 0] != 0
    assert kept.mean() == pytest.approx(0.125, abs=0.03)
    for t, value in enumerate((8.0, 8 * 8.0**3, 8 * (8 * 8.0**3) ** 3)):
        np.testing.assert_array_equal(out[:, t], np.where(kept, value, 0))
    _, _, c = layer(np.zeros((10, 1, 300)), initial_state=[ones, ones], training=True)
    assert set(np.unique(c)) == {0, 4} and np.mean(c != 0) == pytest.approx(
        0.25, abs=0.03
    )  # i times g; h alone is dropped


@pytest.mark.parametrize(
    "drop", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}, {"dropout": 0.4, "recurrent_dropout": 0.3}]
)
@pytest.mark.parametrize("activation", ["tanh", lambda z: ops.tanh(z)], ids=["kernel", "program"])
def test_dropout_repeats_with_its_seed_and_is_off_in_inference(activation, drop):
    one, other = (lstm(activation=activation, **drop, seed=5, **EVERYTHING) for _ in range(2))
    one.build(X.shape)
    other.build(X.shape)
    other.set_weights(one.get_weights())
    first, second = one(X, training=True), one(X, training=True)
    assert not np.array_equal(first[0], second[0])
    same(other(X, training=True), first)
    same(other(X, training=True), second)
    plain = like(one, activation=activation, **EVERYTHING)
    same(one(X), plain(X))
    same(one(X, training=False), plain(X))
    same(plain(X, training=True), plain(X))


def test_the_factors_of_a_sequence_end_with_it():
    """Also where a step fails; and they are those of one thread."""
    met = []

    def activation(z):
        if met:
            met.pop()()
        return ops.tanh(z)

    def fail():
        raise RuntimeError("a step that fails")

    layer = lstm(activation=activation, dropout=0.9, seed=1, **EVERYTHING)
    expected, step = layer(X), layer.cell(X[:, 0], STATES)
    met.append(fail)
    with pytest.raises(RuntimeError, match="a step that fails"):
        layer(X, training=True)
    same(layer.cell(X[:, 0], STATES)[0], step[0])
    with ThreadPoolExecutor(1) as other:
        found = []
        met.append(lambda: found.append(other.submit(layer.cell, X[:, 0], STATES).result()))
        assert not np.array_equal(layer(X, training=True)[0], expected[0])
        same(found[0][0], step[0])


@pytest.mark.parametrize("drop", [{"dropout": 1.0}, {"dropout": 1.0, "recurrent_dropout": 1.0}])
def test_dropout_of_everything_leaves_the_bias(drop):
    layer = lstm(**drop, **EVERYTHING)
    found = layer(X, training=True)
    zeroed = like(layer, **EVERYTHING)
    if "recurrent_dropout" in drop:
        zeroed.cell.recurrent_kernel.assign(np.zeros((U, 4 * U)))
    close(found, zeroed(0 * X))
    same(layers.LSTM(U, dropout=1.0, use_bias=False)(X, training=True), np.zeros((B, U), "float32"))


@pytest.mark.parametrize("activation", ["tanh", lambda z: ops.tanh(z)], ids=["kernel", "program"])
@pytest.mark.parametrize(
    "drop", [{}, {"dropout": 0.5}, {"dropout": 0.5, "implementation": 1}, {"dropout": 0.3, "recurrent_dropout": 0.4}]
)
def test_gradients_also_through_dropout(drop, activation, rng):
    layer = lstm(activation=activation, **drop, **EVERYTHING, dtype="float64", seed=1)
    layer.build(X.shape)
    d_outputs = [rng.standard_normal(shape) for shape in ((B, T, U), (B, U), (B, U))]
    slopes(layer, X.astype("float64"), d_outputs, training=True, mask=MASK, reset=RESET, initial_state=STATES)


# ----------------------------------------------------------------------------------------------- kernels and programs


@pytest.mark.parametrize("place", ["activation", "recurrent_activation"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_named_activations_have_kernels(name, place):
    layer = lstm(**{place: name})
    assert layer.kernel_path == layers.RNN(layer.cell).kernel_path == "kernel"
    kernel_calls.clear()
    layer(X[:1])
    assert kernel_calls == {("LSTM", "forward"): 1}


@pytest.mark.parametrize("activation", ["softmax", "leaky_relu", "mish", lambda z: z, np.tanh])
def test_other_activations_run_as_programs(activation):
    assert lstm(activation=activation).kernel_path == "program"
    assert lstm(recurrent_activation=activation).kernel_path == "program"


def test_resets_and_masks_keep_the_kernel():
    layer = lstm(
        stateful=True, dropout=0.5, recurrent_dropout=0.5, go_backwards=True, zero_output_for_mask=True, unroll=True
    )
    kernel_calls.clear()
    layer(X, mask=MASK, reset=RESET, training=True)
    assert kernel_calls == {("LSTM", "forward"): 1}


def softmax(np, z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
def test_softmax_against_the_naive_loop(zero_output_for_mask, go_backwards, masked):
    layer = lstm(
        activation="softmax",
        go_backwards=go_backwards,
        zero_output_for_mask=zero_output_for_mask,
        dtype="float64",
        **EVERYTHING,
    )
    flags = {"mask": MASK, "reset": RESET} if masked else {}
    found = layer(X, initial_state=STATES, **flags)
    options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output_for_mask}
    close(found, naive(layer, X, STATES, activation=softmax, **flags, **options), 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"go_backwards": True, "stateful": True},
        {"dropout": 0.4, "seed": 7},
        {"dropout": 0.4, "implementation": 1, "recurrent_dropout": 0.3, "seed": 7, "zero_output_for_mask": True},
        {"use_bias": False, "stateful": True},
    ],
    ids=str,
)
def test_programs_give_what_kernels_give(options, rng):
    """Values, draws, gradients and states: a callable tanh against the name."""
    options = {**options, **EVERYTHING, "dtype": "float64"}
    named, given = lstm(**options), lstm(activation=lambda z: ops.tanh(z), **options)
    assert (named.kernel_path, given.kernel_path) == ("kernel", "program")
    for layer in (named, given):
        layer.build(X.shape)
    given.set_weights(named.get_weights())
    x = X.astype("float64")
    d_outputs = [rng.standard_normal(shape) for shape in ((B, T, U), (B, U), (B, U))]
    for flags in ({}, {"mask": MASK}, {"mask": MASK, "reset": RESET}):
        results = [differentiate(layer, x, d_outputs, training=True, **flags) for layer in (named, given)]
        (outputs, gradients), (expected, expected_gradients) = results
        close(outputs, expected, 1e-12)
        close(gradients, expected_gradients, 1e-11)


# ------------------------------------------------------------------------------------------------------------ refusals


class NoCall:
    state_size = 3


class NoStates:
    def call(self, x, states):
        return x, states


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: layers.RNN(NoCall()),
            ValueError,
            "Argument `cell` should have a `call` method. The RNN was passed: cell=",
        ),
        (lambda: layers.RNN(NoStates()), ValueError, "The RNN cell should have a `state_size` attribute"),
        (lambda: lstm(0), ValueError, "invalid value for argument `units`, expected a positive integer, got 0."),
        (lambda: lstm(2.5), ValueError, "invalid value for argument `units`, expected a positive integer, got 2.5."),
        (lambda: lstm("4"), ValueError, "invalid value for argument `units`, expected a positive integer, got '4'."),
        (lambda: lstm(use_cudnn=True), ValueError, "use_cudnn=True was specified, but cuDNN is not supported"),
        (lambda: lstm(use_cudnn="no"), ValueError, "Invalid valid received for argument `use_cudnn`"),
        (lambda: lstm(implementation=3), ValueError, "Argument `implementation` must be 0, 1 or 2"),
        (lambda: lstm(dropout=None), ValueError, "`dropout` must be a finite number. Received: dropout=None"),
        (lambda: lstm(dropout=np.nan), ValueError, "`dropout` must be a finite number. Received: dropout=nan"),
        (lambda: lstm(recurrent_dropout="a"), ValueError, "`recurrent_dropout` must be a finite number.*='a'"),
        (lambda: lstm(activation="foo"), ValueError, "Could not interpret activation function identifier: foo"),
        (lambda: lstm(recurrent_initializer="foo"), ValueError, "foo"),
        (lambda: lstm(unknown=1), (TypeError, ValueError), "unknown"),
        (
            lambda: lstm()(X[0]),
            ValueError,
            "Input 0 .*layer .*lstm.*expected ndim=3, found ndim=2. Full shape received",
        ),
        (lambda: lstm()(X[:, :0]), ValueError, "needs at least one timestep"),
        (lambda: lstm(activation="softmax")(X[:, :0]), ValueError, "needs at least one timestep"),
        (
            lambda: graph.abstract(lstm(unroll=True), [Spec((B, None, F), "float32")]),
            ValueError,
            "Cannot unroll a RNN if the time dimension is",
        ),
        (
            lambda: lstm()(X, initial_state=STATES[:1]),
            ValueError,
            "Layer has 2 states but was passed 1 initial states.",
        ),
        (
            lambda: lstm()(X, initial_state=[STATES[0], STATES[1][:, 1:]]),
            ValueError,
            "not compatible with `cell.state_size`",
        ),
        (lambda: lstm()(X, initial_state=[STATES[0], STATES[1][1:]]), ValueError, "the batch size is 4"),
        (lambda: lstm()([X, *STATES], initial_state=STATES), ValueError, "both in the list of inputs and as a keyword"),
        (lambda: lstm()([X, STATES[0]]), ValueError, "Layer has 2 states but was passed 1"),
        (
            lambda: lstm()(X, mask=MASK[:, 1:]),
            ValueError,
            r"`mask` of layer 'lstm' must have shape .*\(4, 6\).*\(4, 5\)",
        ),
        (lambda: lstm()(X, mask=MASK[0]), ValueError, "`mask` of layer 'lstm' must have shape"),
        (lambda: lstm(activation="softmax")(X, mask=MASK[1:]), ValueError, "`mask` of layer 'lstm' must have shape"),
        (lambda: lstm()(X, reset=RESET[:, 1:]), ValueError, "`reset` of layer 'lstm' must have shape"),
    ],
)
def test_refusals(make, error, message):
    kernel_calls.clear()
    with pytest.raises(error, match=message):
        make()
    assert not kernel_calls


def given_tanh(x):
    return ops.tanh(x)


@pytest.mark.parametrize("activation", ["tanh", given_tanh])
@pytest.mark.parametrize(
    ("x", "states"),
    [
        (X[:, 0, :2], STATES),
        (X, STATES),  # more axes, which would broadcast
        (X[0, 0], STATES),
        (X[:, 0], [STATES[0], STATES[1][:1]]),  # one row, which would broadcast
        (X[:, 0], [STATES[0][:, 1:], STATES[1]]),
        (X[:, 0], [STATES[0], STATES[1][0]]),
    ],
)
def test_a_step_that_does_not_fit(activation, x, states):
    cell = layers.LSTMCell(U, activation=activation, name="c")
    cell.build((None, F))
    with pytest.raises(ValueError, match=r"Cell 'c' takes inputs of shape \(batch, 3\) and states of .*\(batch, 5\)"):
        cell(x, states)


@pytest.mark.parametrize(
    ("activation", "message"),
    [("tanh", "expected ndim=3, found ndim=4"), (given_tanh, "Cell 'gru_cell' takes inputs of shape")],
)
def test_sequences_of_more_than_vectors(activation, message):
    for make in (lambda cell: cell, lambda cell: [cell, layers.LSTMCell(2)]):
        backend.clear_session()
        with pytest.raises(ValueError, match=message):
            layers.RNN(make(layers.GRUCell(U, activation=activation)))(np.zeros((B, T, B, F), "float32"))


def test_the_number_of_features_is_fixed_by_the_first_call():
    layer = lstm(name="l")
    layer(X)
    with pytest.raises(ValueError, match=r"expected shape=\(None, None, 3\), found shape=\(4, 6, 2\)"):
        layer(X[:, :, :2])
    layer(X[:, :2])  # other lengths and batches are fine
    layer(X[:1])


def test_python_lists_are_no_sequences_but_may_be_masks(rng):
    layer, x = layers.LSTM(4), rng.normal(size=(2, 3, 5)).astype("float32")
    with pytest.raises(TypeError, match="np.asarray"):
        layer(x.tolist())
    mask = [[True, True, False], [True, False, False]]
    for form in (mask, tuple(mask), (np.array(mask), None, None)):
        np.testing.assert_array_equal(layer(x, mask=form), layer(x, mask=np.array(mask)))


def test_a_layer_may_draw_in_the_shape_of_its_input():
    class Noise(layers.Layer):
        def call(self, x):
            return x + 0 * random.normal(x.shape)

    x, y = np.ones((4, 3, 2), np.float32), np.ones((4, 1), np.float32)
    model = models.Sequential([Noise(), layers.LSTM(3), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    assert model.predict(x, verbose=0).shape == (4, 1)
