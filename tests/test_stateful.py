"""Recurrent layers that go on from call to call: their states, set, read, kept and forgotten."""

import copy
import pickle

import numpy as np
import pytest
from recurrent import EVERYTHING, KINDS, MASK, RESET, B, F, T, U, X, close, differentiate, graph_leaves, same

from numbarnn import callbacks, graph, layers, models, ops
from numbarnn.graph import Spec
from numbarnn.recurrence import kernel_calls


class OwnCell(layers.Layer):
    """What a user writes: two states, one of them a count."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size = [U, 1]

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], U), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(U, U), name="recurrent_kernel")

    def call(self, inputs, states):
        h, count = states
        h = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel) + 0.1 * count)
        return h + 1, (h, count + 1)


SUBJECTS = {kind.name: kind.make for kind in KINDS} | {
    "program": lambda **options: KINDS[-1].make(activation=lambda z: ops.tanh(z), **options),
    "own cell": lambda **options: layers.RNN(OwnCell(), **options),
    "stack": lambda **options: layers.RNN([layers.LSTMCell(2), layers.GRUCell(3), layers.LSTMCell(U)], **options),
    "stack of one": lambda **options: layers.RNN([layers.LSTMCell(U)], **options),
}
lstm = KINDS[-1].make


@pytest.fixture(params=SUBJECTS)
def make(request):
    """Return a function that makes layers of one sort, which share their weights."""
    weights = []

    def make(batch=B, **options):
        layer = SUBJECTS[request.param](**options)
        layer.build((batch, T, F))
        layer.set_weights(weights or layer.get_weights())
        weights[:] = layer.get_weights()
        return layer

    return make


def flat(*outputs):
    return graph_leaves(list(outputs))


def given_states(layer, seed=5):
    """Return some states that fit, nested like those that the layer returns."""
    rng = np.random.default_rng(seed)

    def draw(nest):
        return [draw(s) for s in nest] if isinstance(nest, list) else rng.standard_normal(nest.shape).astype("float32")

    return draw(layer.get_initial_state(B))


# -------------------------------------------------------------------------------------------------- going on, reading


def test_a_stateful_layer_goes_on(make):
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    out, *last = plain(X)
    zeros = [np.zeros_like(a) for a in flat(*last)]
    assert plain.states is None
    same(flat(*layer.states), zeros)
    first, *middle = layer(X[:, :2])
    same(flat(*layer.states), flat(*middle))
    second, *states = layer(X[:, 2:])
    same([np.hstack([first, second]), *flat(*states)], [out, *flat(*last)])
    same(flat(*layer.states), flat(*last))
    assert layer.weights == layer.cell.weights  # states are none of them
    for reset in (layer.reset_states, layer.reset_state):
        reset()
        same(flat(*layer.states), zeros)
        same(flat(*layer(X)), [out, *flat(*last)])


def test_states_nest_as_they_are_returned(make):
    layer = make(return_state=True, stateful=True)
    _, *last = layer(X)

    def shape(nest):
        return [shape(item) for item in nest] if isinstance(nest, list) else nest.shape

    assert shape(layer.states) == shape(last) == layer.compute_output_shape((B, T, F))[1:]


def test_states_are_new_read_only_arrays(make):
    layer = make(stateful=True)
    layer(X)
    handed_out = flat(*layer.states)
    kept = [a.copy() for a in handed_out]
    for array, again in zip(handed_out, flat(*layer.states), strict=True):
        assert type(array) is np.ndarray and not array.flags.writeable and not np.shares_memory(array, again)
    layer(X)
    same(handed_out, kept)
    assert not np.array_equal(flat(*layer.states)[0], kept[0])


def test_states_start_another_layer(make):
    """What the guide calls reusing states; later calls of the old layer change nothing."""
    old, new = make(stateful=True), make(**EVERYTHING)
    old(X)
    existing = old.states
    expected = new(X, initial_state=existing)
    old(X)
    same(flat(*new(X, initial_state=existing)), flat(*expected))
    assert not np.array_equal(new(X)[0], expected[0])
    assert lstm(stateful=True).states is None  # not built yet


def test_states_outputs_and_arguments_do_not_share_memory(make):
    layer = make(**EVERYTHING, stateful=True)
    first = flat(*layer(X))
    kept = [a.copy() for a in first]
    layer(X)
    same(first, kept)


# ----------------------------------------------------------------------------------------------- initial_state, setting


def test_a_given_state_counts_at_the_start_only(make):
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    states = given_states(plain)
    out, *last = plain(X, initial_state=states)
    first, *_ = layer(X[:, :2], initial_state=states)
    second, *end = layer(X[:, 2:], initial_state=states)  # recorded states win
    same([np.hstack([first, second]), *flat(*end)], [out, *flat(*last)])
    layer.reset_states()
    same(flat(*layer(X, initial_state=states)), [out, *flat(*last)])
    layer.reset_states(states)
    same(flat(*layer(X, initial_state=given_states(plain, 6))), [out, *flat(*last)])
    layer.reset_states([np.zeros_like(a) for a in flat(*states)])  # zeros that were set count as well as others
    same(flat(*layer(X, initial_state=states)), flat(*plain(X)))


def test_states_are_set_nested_or_one_after_the_other(make):
    layer = make(stateful=True)
    states = given_states(layer)
    for given in (states, tuple(states), flat(*states)):
        layer.reset_states()
        layer.reset_states(given)
        same(flat(*layer.states), flat(*states))
    layer.reset_states(states=[a.astype("float64") for a in flat(*states)])
    same(flat(*layer.states), flat(*states))


def test_a_given_state_comes_nested_or_one_after_the_other(make):
    layer = make(**EVERYTHING)
    states = given_states(layer)
    found = flat(*layer(X, initial_state=states))
    same(flat(*layer(X, initial_state=flat(*states))), found)
    same(flat(*layer([X, *states])), found)
    same(flat(*layer([X, *flat(*states)])), found)


def test_a_custom_start_counts_once():
    """`get_initial_state` of the cell at the first call; zeros after a reset, as Keras has it."""

    class Begun(layers.GRUCell):
        def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
            return [np.full((batch_size, self.units), 0.25, dtype)]

    layer = layers.RNN(Begun(U), **EVERYTHING, stateful=True)
    plain = layers.RNN(Begun(U), **EVERYTHING)
    layer.build(X.shape)
    plain.build(X.shape)
    plain.set_weights(layer.get_weights())
    start = np.full((B, U), 0.25, "float32")
    same(layer.states, [start])
    same(layer(X), plain(X))
    same(plain(X), plain(X, initial_state=[start]))
    layer.reset_states()
    same(layer(X), plain(X, initial_state=[0 * start]))
    same(layer.get_initial_state(B), [start])


def test_a_custom_start_may_take_any_arguments():
    class Begun(layers.GRUCell):
        def get_initial_state(self, **given):
            return np.full((given["batch_size"], self.units), 0.25, given["dtype"])

    same(layers.RNN(Begun(U)).get_initial_state(B), [np.full((B, U), 0.25, "float32")])


@pytest.mark.parametrize("stateful", [False, True])
def test_a_custom_start_that_does_not_fit(stateful):
    class Begun(layers.GRUCell):
        def get_initial_state(self, batch_size=None):
            return np.zeros((batch_size, self.units + 1), "float32")

    with pytest.raises(ValueError, match=r"`state_spec`=\[\(4, 6\)\]; however `cell.state_size` is \[5\]"):
        layers.RNN(Begun(U), stateful=stateful)(X)


def test_masked_steps_change_no_recorded_state(make):
    layer = make(stateful=True)
    layer(X)
    before = flat(*layer.states)
    layer(X, mask=np.zeros((B, T), bool))
    same(flat(*layer.states), before)


def test_recorded_states_and_masks_and_given_states_together(make):
    """A call with a mask and a state equals the plain layer's, from the states that a call before has left."""
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    states = given_states(plain)
    _, *middle = plain(X, initial_state=states, mask=MASK)
    expected = plain(X, initial_state=middle, mask=MASK, reset=RESET)
    layer(X, initial_state=states, mask=MASK)
    same(flat(*layer(X, initial_state=states, mask=MASK, reset=RESET)), flat(*expected))


# ------------------------------------------------------------------------------------------------------- single rows


ROWS = np.array([False, True, False, True])


def test_single_rows_start_again(make):
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    layer(X)
    before = flat(*layer.states)
    layer.reset_states(mask=ROWS)
    expected = [np.where(ROWS[:, None], 0, state) for state in before]
    same(flat(*layer.states), expected)
    same(flat(*layer(X)), flat(*plain(X, initial_state=expected)))


def test_a_given_state_counts_for_the_rows_that_start_again(make):
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    given = flat(*given_states(plain))
    layer(X)
    before = flat(*layer.states)
    layer.reset_state(mask=ROWS.tolist())
    expected = plain(X, initial_state=[np.where(ROWS[:, None], a, b) for a, b in zip(given, before, strict=True)])
    same(flat(*layer(X, initial_state=given)), flat(*expected))
    before = flat(*layer.states)
    same(flat(*layer(X, initial_state=given)), flat(*plain(X, initial_state=before)))  # nobody starts again


def test_single_rows_are_set(make):
    layer = make(stateful=True)
    layer(X)
    before, given = flat(*layer.states), flat(*given_states(layer))
    layer.reset_states(given, mask=ROWS)
    same(flat(*layer.states), [np.where(ROWS[:, None], a, b) for a, b in zip(given, before, strict=True)])


def test_a_reset_within_a_sequence_is_a_new_sequence(make):
    layer = make(**EVERYTHING)
    given = flat(*given_states(layer))
    reset = np.zeros((B, T), bool)
    reset[ROWS, 2] = True
    out, *last = layer(X, initial_state=given, reset=reset)
    whole, *whole_last = layer(X, initial_state=given)
    late, *late_last = layer(X[:, 2:])
    same(out[~ROWS], whole[~ROWS])
    same(out[ROWS], np.hstack([whole[:, :2], late])[ROWS])
    for found, a, b in zip(flat(*last), flat(*whole_last), flat(*late_last), strict=True):
        same(found, np.where(ROWS[:, None], b, a))


def test_no_gradient_flows_across_a_reset(make):
    layer = make(return_sequences=True)
    reset = np.zeros((B, T), bool)
    reset[ROWS, 2] = True
    d_out = np.zeros((B, T, U), "float32")
    d_out[:, 2:] = 1
    _, (d_x, *_) = differentiate(layer, X, [d_out], reset=reset)
    assert not d_x[ROWS, :2].any() and d_x[~ROWS, :2].any() and d_x[:, 2:].any()


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": MASK[:, 1:]}, "`mask` of layer .* must have shape"),
        ({"initial_state": [X[:, 0]]}, "is not compatible with `cell.state_size`"),
        ({"reset": RESET[1:]}, "`reset` of layer .* must have shape"),
    ],
)
def test_a_call_that_is_refused_leaves_the_states_alone(make, arguments, message):
    layer = make(stateful=True)
    layer(X)
    before = flat(*layer.states)
    kernel_calls.clear()
    with pytest.raises(ValueError, match=message):
        layer(X, **arguments)
    assert not kernel_calls
    same(flat(*layer.states), before)


def test_a_step_that_fails_leaves_the_states_alone():
    met = []

    def watched(z):
        met.append(z)
        if len(met) > 2 * T + 3:
            raise RuntimeError("a step that fails")
        return np.tanh(z)

    watch = graph.Op("watched", watched, lambda z: z)
    layer = layers.GRU(U, activation=lambda z: watch(z), stateful=True)
    layer(X)
    layer(X)
    assert len(met) == 2 * T
    before = layer.states
    with pytest.raises(RuntimeError, match="a step that fails"):
        layer(X)
    same(layer.states, before)
    with pytest.raises(RuntimeError, match="a step that fails"):
        layer(X, initial_state=[X[:, 0, :1] + np.zeros(U, "float32")])
    same(layer.states, before)


def test_states_of_another_shape_than_the_cell_says_are_refused():
    class Grown(layers.Layer):
        state_size, output_size = [2, 3], F
        grows = False

        def call(self, inputs, states):
            return inputs, [states[0] + 1, states[1][:, :2] if self.grows else states[1]]

    layer = layers.RNN(Grown(), stateful=True)
    layer(X)
    before = layer.states
    layer.cell.grows = True
    with pytest.raises(ValueError, match=r"State 1 .* must have shape \(4, 3\); got \(4, 2\)"):
        layer(X)
    same(layer.states, before)


def test_stateful_layers_need_one_batch_size():
    with pytest.raises(ValueError, match="If a RNN is stateful, it needs to know its batch size") as error:
        lstm(stateful=True)(layers.Input((T, F)))
    assert "when using `stateful=True` in a RNN, the batch size must be static" in str(error.value)
    layer = lstm(stateful=True)
    layer(X)
    before = layer.states
    message = (
        "If an RNN is stateful, the batch size of the input sequences must be the same as the batch size of the "
        "initial state. \n- Expected batch size: 4\n- Received batch size: 3"
    )
    for wrong in (lambda: layer(X[:3]), lambda: layer.build((3, T, F))):
        with pytest.raises(ValueError) as error:
            wrong()
        assert str(error.value).startswith(message)
        assert "need `batch_size=4`, and a number of samples that is a multiple of 4." in str(error.value)
    same(layer.states, before)
    layer.build((B, T, F))
    same(layer.states, before)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (lambda s: s[:1], "Layer r expects 2 states, but it received 1 state values. States received: "),
        (lambda s: [*s, s[0]], "Layer r expects 2 states, but it received 3 state values. States received: "),
        (lambda s: s[0], "Layer r expects 2 states, but it received 1 state values. States received: "),
        (
            lambda s: [s[0], s[1][:2]],
            r"State 1 is incompatible with layer r: expected shape=\(4, 5\) but found shape=\(2, 5\)",
        ),
        (
            lambda s: [s[0][:, 1:], s[1]],
            r"State 0 is incompatible with layer r: expected shape=\(4, 5\) but found shape=\(4, 4\)",
        ),
        (
            lambda s: [s[0], s[1].astype(complex)],
            "State 1 is incompatible with layer r: expected dtype=float32 but found dtype=complex128",
        ),
        (lambda s: [s[0], s[1].astype(str)], "State 1 is incompatible with layer r: expected dtype=float32"),
    ],
)
def test_states_that_do_not_fit(states, message):
    layer = lstm(stateful=True, name="r")
    layer(X)
    before = layer.states
    for way in (layer.reset_states, layer.reset_state):
        with pytest.raises(ValueError, match=message):
            way(states([state + 1 for state in before]))
    same(layer.states, before)


@pytest.mark.parametrize("mask", [ROWS[:3], ROWS[:, None], ROWS.astype(int), [0, 1]])
def test_rows_that_do_not_fit(mask):
    layer = lstm(stateful=True, name="r")
    layer(X)
    before = layer.states
    with pytest.raises(ValueError, match=r"Argument `mask` must be an array of bool of shape \(4,\)"):
        layer.reset_states(mask=mask)
    same(layer.states, before)


def test_resetting_what_has_no_states():
    for arguments in ({}, {"states": [X[:, 0]]}, {"mask": ROWS}):
        with pytest.raises(AttributeError, match="^Layer must be stateful.$"):
            lstm().reset_states(**arguments)
        with pytest.raises(ValueError, match="it needs to know its batch size"):
            lstm(stateful=True).reset_state(**arguments)


# ------------------------------------------------------------------------------------------------ programs and models


def test_a_program_carries_states_from_replay_to_replay(make):
    plain, layer = make(**EVERYTHING), make(**EVERYTHING, stateful=True)
    out, *last = plain(X)
    program = graph.trace(lambda x: layer(x), [Spec((B, 2, F), "float32")])
    found = [program(X[:, t : t + 2]) for t in (0, 2, 4)]
    close([np.hstack([part[0] for part in found]), *flat(*found[-1][1:])], [out, *flat(*last)], 1e-6)
    same(flat(*layer.states), flat(*found[-1][1:]))
    layer.reset_states(mask=ROWS)
    again = graph.trace(lambda x: (layer.states, layer(x), layer.states), [Spec(X.shape, "float32")])
    before = flat(*layer.states)
    for _ in range(2):  # read at every replay, before and after the call
        start, (_, *end), shown = again(X)
        same(flat(*start), before)
        same(flat(*shown), flat(*end))
        before = flat(*layer.states)
        same(before, flat(*end))


def test_a_program_knows_which_rows_are_at_their_start():
    plain, layer = lstm(**EVERYTHING), lstm(**EVERYTHING, stateful=True)
    for one in (plain, layer):
        one.build(X.shape)
    layer.set_weights(plain.get_weights())
    given = given_states(plain)
    program = graph.trace(lambda x, h, c: layer(x, initial_state=[h, c]), [Spec(a.shape, a.dtype) for a in (X, *given)])
    same(program(X, *given), plain(X, initial_state=given))
    states = layer.states
    same(program(X, *given), plain(X, initial_state=states))
    states = layer.states
    layer.reset_states(mask=ROWS)
    mixed = [np.where(ROWS[:, None], a, b) for a, b in zip(given, states, strict=True)]
    same(program(X, *given), plain(X, initial_state=mixed))


def windows():
    """Rows 0 and 1, then their continuation."""
    return np.concatenate([X[:2, :3], X[:2, 3:]])


def test_predict_and_fit_carry_states_from_batch_to_batch(make):
    plain, layer = make(return_state=True), make(batch=2, stateful=True)
    model = models.Sequential([layers.Input(batch_shape=(2, 3, F)), layer, layers.Dense(1)])
    found = model.predict(windows(), batch_size=2, verbose=0)
    first, *states = plain(X[:2, :3])
    second, *last = plain(X[:2, 3:], initial_state=states)
    close(found, model.layers[1](np.concatenate([first, second])), 1e-6)
    close(flat(*layer.states), flat(*last), 1e-6)
    model.reset_states()
    assert not any(state.any() for state in flat(*layer.states))
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0
    model.fit(windows(), np.zeros((4, 1)), batch_size=2, epochs=2, shuffle=False, verbose=0)
    states = None
    for x in 2 * [X[:2, :3], X[:2, 3:]]:
        _, *states = plain(x, initial_state=states)
    close(flat(*layer.states), flat(*states), 1e-6)  # neither between epochs nor at their end are they reset
    with pytest.raises(ValueError, match="Expected batch size: 2\n- Received batch size: 1"):
        model.predict(windows()[:3], batch_size=2, verbose=0)


def test_a_callback_resets_between_epochs():
    layer = lstm(stateful=True)
    model = models.Sequential([layers.Input(batch_shape=(2, 3, F)), layer, layers.Dense(1)])
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0

    class Resets(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            layer.reset_states()

    fit = {"batch_size": 2, "shuffle": False, "verbose": 0}
    once = model.fit(windows(), np.ones((4, 1)), epochs=3, callbacks=[Resets()], **fit).history["loss"]
    assert once[0] == once[1] == once[2]
    going_on = model.fit(windows(), np.ones((4, 1)), epochs=3, **fit).history["loss"]
    assert len(set(going_on)) == 3


def test_the_whole_model_is_reset():
    """Stacks, wrappers, models within models."""
    going_on = {"stateful": True, "return_sequences": True}
    within = models.Sequential([layers.GRU(3, name="deep", **going_on)])
    model = models.Sequential(
        [
            layers.Input(batch_shape=(B, T, F)),
            layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(4)], name="stack", **going_on),
            layers.Bidirectional(layers.GRU(3, **going_on), name="both"),
            within,
            layers.LSTM(2, name="plain"),
        ]
    )  # fmt: skip
    stateful = [model.get_layer("stack"), model.get_layer("both"), within.get_layer("deep")]
    for reset in (model.reset_states, model.reset_state):
        first = model(X)
        assert all(state.any() for layer in stateful for state in flat(*layer.states))
        assert not np.array_equal(model(X), first)
        reset()
        assert not any(state.any() for layer in stateful for state in flat(*layer.states))
        same(model(X), first)
        reset()


def test_states_of_a_stateful_layer_have_the_type_of_its_weights(make):
    layer = make(stateful=True, dtype="mixed_float16")
    assert layer(X).dtype == np.float16
    assert {state.dtype.name for state in flat(*layer.states)} == {"float32"}


def test_copies_have_states_of_their_own():
    layer = lstm(stateful=True)
    layer(X)
    before = layer.states
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        same(twin.states, before)
        twin(X)
        same(layer.states, before)
        twin.reset_states()
        same(layer.states, before)


def test_time_major():
    plain, layer = (lstm(**EVERYTHING, time_major=True, stateful=stateful) for stateful in (False, True))
    turned = X.swapaxes(0, 1)
    for one in (plain, layer):
        one.build(turned.shape)
    layer.set_weights(plain.get_weights())
    _, *states = plain(turned)
    same(layer(turned)[1:], states)
    same(layer.states, states)
    same(layer(turned, mask=MASK.T), plain(turned, mask=MASK.T, initial_state=states))
