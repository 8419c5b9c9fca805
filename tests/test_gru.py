"""`GRUCell` and `GRU`: what is theirs alone; `test_recurrent_laws` has what they share with the others."""

import inspect

import numpy as np
import pytest
from recurrent import EVERYTHING, MASK, STATES, B, F, T, U, X, close, same

from numbarnn import layers, models, ops

LOOP = "return_sequences return_state go_backwards stateful unroll".split()
CELL = (
    "units activation recurrent_activation use_bias kernel_initializer recurrent_initializer bias_initializer "
    "kernel_regularizer recurrent_regularizer bias_regularizer kernel_constraint recurrent_constraint bias_constraint "
    "dropout recurrent_dropout reset_after seed"
).split()


def names(kind):
    """Return the arguments that may come by position."""
    return [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def with_penalty(cell):
    place = cell.index("bias_regularizer") + 1
    return [*cell[:place], "activity_regularizer", *cell[place:]]


def test_arguments_come_in_keras_order():
    assert names(layers.GRUCell) == CELL
    plain = [name for name in with_penalty(CELL) if name not in ("reset_after", "seed")]
    assert names(layers.GRU) == [*plain, "seed", *LOOP, "reset_after", "use_cudnn"]


def test_keys_of_the_configuration_come_in_keras_order():
    base = ["name", "trainable", "dtype"]
    assert list(layers.GRU(3).get_config()) == [*base, *LOOP, "zero_output_for_mask", *with_penalty(CELL)]
    assert list(layers.GRUCell(3).get_config()) == [*base, *CELL]


def test_defaults():
    config = layers.GRU(3).get_config()
    expected = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True, "reset_after": True}
    assert {name: config[name] for name in expected} == expected
    assert config["kernel_initializer"]["class_name"] == "GlorotUniform"
    assert config["recurrent_initializer"]["class_name"] == "Orthogonal"
    assert config["bias_initializer"]["class_name"] == "Zeros"
    cell = layers.GRUCell(3, name="c")
    assert layers.GRU(3).cell.name == "gru_cell" and cell.name == "c"


def test_parameter_counts():
    layer = layers.GRU(256)
    layer.build((None, None, 64))
    assert layer.count_params() == 247_296
    before = layers.GRU(256, reset_after=False)
    before.build((None, None, 64))
    assert before.count_params() == 247_296 - 3 * 256
    model = models.Sequential()
    model.add(layers.Embedding(1000, 64))
    model.add(layers.GRU(256, return_sequences=True))
    model.add(layers.SimpleRNN(128))
    model.add(layers.Dense(10))
    assert model.count_params() == 361_866
    assert [layer.count_params() for layer in model.layers] == [64_000, 247_296, 49_280, 1_290]
    assert [layer.name for layer in model.layers] == ["embedding", "gru_2", "simple_rnn", "dense"]


def test_the_biases_belong_to_the_two_products():
    """The second row comes in before the reset gate, the first after it."""
    layer = layers.GRU(1, activation="linear", recurrent_activation="linear")
    layer.build((1, 1, 1))
    zero = np.zeros((1, 3), "float32")
    for bias, h in (
        ([[0, 0, 2], [0, 0, 0]], 2.0),  # z = r = 0, candidate 2
        ([[0, 0, 0], [0, 0, 3]], 0.0),  # closed by r = 0
        ([[0, 0.5, 0], [0, 0, 3]], 1.5),  # r = 1/2
        ([[0, 0, 0], [0, 0.5, 3]], 1.5),
        ([[0.25, 0, 2], [0, 0, 0]], 1.5),  # z = 1/4 of the last h, which is 0
        ([[0, 0, 2], [0.25, 0, 0]], 1.5),
    ):
        layer.set_weights([zero, zero, np.array(bias, "float32")])
        assert layer(np.zeros((1, 1, 1), "float32"))[0, 0] == h


def test_where_the_reset_gate_acts():
    """Before the product it mixes h, after it the products; with a diagonal matrix that is the same."""
    after, before = layers.GRU(2, use_bias=False), layers.GRU(2, use_bias=False, reset_after=False)
    for layer in (after, before):
        layer.build((1, 1, 1))
    h = np.array([[0.3, -0.6]], "float32")
    kernel = np.array([[0.1, 0.2, 0.5, -0.5, 0.7, -0.1]], "float32")
    for corner, equal in ((0.0, True), (1.0, False)):
        recurrent = np.concatenate([0.1 * np.ones((2, 4)), [[1, corner], [0, 1]]], axis=1).astype("float32")
        results = []
        for layer in (after, before):
            layer.set_weights([kernel, recurrent])
            results.append(layer(np.ones((1, 1, 1), "float32"), initial_state=[h]))
        assert np.allclose(*results, rtol=1e-6) is equal


@pytest.mark.parametrize("activation", ["linear", lambda z: z], ids=["kernel", "program"])
@pytest.mark.parametrize("reset_after", [True, False])
def test_dropped_h_is_kept_whole_where_z_weighs_it(activation, reset_after):
    """z is open for all of h: what is dropped before the products does not show."""
    layer = layers.GRU(
        U, activation=activation, recurrent_activation="sigmoid", reset_after=reset_after, recurrent_dropout=0.5
    )  # fmt: skip
    layer.build((B, T, F))
    kernel, recurrent, bias = layer.get_weights()
    bias = np.zeros_like(bias)
    bias[..., :U] = 50.0  # z = 1
    layer.set_weights([0 * kernel, recurrent, bias])
    close(layer(X, initial_state=STATES[:1], training=True), STATES[0], 1e-6)


@pytest.mark.parametrize("activation", ["linear", lambda z: z], ids=["kernel", "program"])
def test_the_reset_gate_multiplies_dropped_h(activation):
    """The candidate is r times (h times the third set of factors), through the identity."""
    layer = layers.GRU(
        U, activation=activation, recurrent_activation="linear", reset_after=False, recurrent_dropout=0.5, seed=1
    )
    layer.build((B, 1, F))
    kernel, recurrent, bias = (np.zeros_like(w) for w in layer.get_weights())
    recurrent[:, 2 * U :] = np.eye(U)
    bias[U : 2 * U] = 0.5  # r
    layer.set_weights([kernel, recurrent, bias])
    generator = layer.cell.seed_generator.state
    start = generator.numpy()
    factors = layer.cell._dropout_factors(X[:, 0])[1]
    generator.assign(start)
    close(layer(X[:, :1], initial_state=STATES[:1], training=True), 0.5 * STATES[0] * factors[2], 1e-6)
    assert len({a.tobytes() for a in factors}) == 3


def test_a_functional_graph_with_one_state():
    """A single state comes and goes bare or in a list."""
    x, h = layers.Input((T, F)), layers.Input((U,))
    layer = layers.GRU(U, **EVERYTHING)
    out, last = layer(x, initial_state=h)
    assert out.shape == (None, T, U) and last.shape == (None, U)
    same(layer(X, initial_state=STATES[0]), layer(X, initial_state=STATES[:1]))
    same(layer([X, STATES[0]], mask=MASK), layer(X, initial_state=STATES[:1], mask=MASK))


def test_an_activation_of_ones_own_by_name_and_by_function():
    named, given = layers.GRU(U, recurrent_activation="hard_sigmoid"), layers.GRU(U, recurrent_activation=hard)
    named.build(X.shape)
    given.build(X.shape)
    given.set_weights(named.get_weights())
    assert (named.kernel_path, given.kernel_path) == ("kernel", "program")
    close(named(X), given(X), 1e-6)


def hard(z):
    return ops.clip(z / 6 + 0.5, 0, 1)
