"""What holds for every built-in recurrent layer: SimpleRNN, GRU in both forms, LSTM."""

import numpy as np
import pytest
from recurrent import (
    EVERYTHING,
    KINDS,
    MASK,
    RESET,
    STATES,
    B,
    F,
    T,
    U,
    X,
    close,
    differentiate,
    same,
    slopes,
)  # fmt: skip

from numbarnn import graph, initializers, layers, models, ops
from numbarnn.graph import Spec
from numbarnn.recurrence import kernel_calls
from numbarnn.testing import TOLERANCE

pytestmark = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def given_tanh(z):
    """A tanh that has no kernel."""
    return ops.tanh(z)


DROPS = [
    {"dropout": 0.5},
    {"dropout": 0.5, "implementation": 1},
    {"dropout": 0.3, "recurrent_dropout": 0.4},
]


# ------------------------------------------------------------------------------------------ layer, RNN(cell), the cell


@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "zero_output_for_mask": True},
        {"return_state": True, "go_backwards": True, "stateful": True},
        {**EVERYTHING, "time_major": True, "unroll": True},
    ],
    ids=str,
)
def test_the_layer_is_rnn_of_its_cell(kind, options):
    """The same bits, on the same kernels."""
    arguments = {"dropout": 0.3, "recurrent_dropout": 0.2, "seed": 4, "activation": "softsign", **kind.options}
    one, other = kind.layer(U, **arguments, **options), layers.RNN(kind.cell(U, **arguments), **options)
    turn = (lambda a: a.swapaxes(0, 1)) if options.get("time_major") else (lambda a: a)
    one.build(turn(X).shape)
    other.build(turn(X).shape)
    assert [w.shape for w in one.weights] == [w.shape for w in other.weights]
    other.set_weights(one.get_weights())
    assert one.kernel_path == other.kernel_path == "kernel"
    for training in (False, True):
        calls = []
        for layer in (one, other):
            kernel_calls.clear()
            call = {"mask": turn(MASK), "initial_state": kind.first, "training": training}
            calls.append((layer(turn(X), **call), dict(kernel_calls)))
        same(calls[0][0], calls[1][0])
        assert calls[0][1] == calls[1][1] == {(one.cell.fused_cell.name, "forward"): 1}


@pytest.mark.parametrize("activation", ["tanh", given_tanh], ids=["kernel", "program"])
def test_a_cell_called_alone_does_one_step(kind, activation):
    layer = kind.make(activation=activation, **EVERYTHING)
    out, *last = layer(X, initial_state=kind.first)
    states = list(kind.first)
    for t in range(T):
        y, states = layer.cell(X[:, t], states)
        assert type(states) is list
        close(y, out[:, t], 1e-6)
        same(y, states[0])
    close(states, last, 1e-6)
    if activation == "tanh":
        same(states, last)


def test_a_bare_state_comes_back_bare(kind):
    layer = kind.make()
    layer(X)
    if kind.states == 2:
        assert layer.cell.state_size == [U, U]
        with pytest.raises(ValueError, match="has 2 states, but it was called with 1"):
            layer.cell(X[:, 0], STATES[0])
        return
    assert layer.cell.state_size == U
    out, state = layer.cell(X[:, 0], STATES[0])
    listed, [same_state] = layer.cell(X[:, 0], [STATES[0]])
    same([out, state], [listed, same_state])


def test_a_cell_takes_part_in_a_functional_graph(kind):
    cell = kind.cell(U, **kind.options)
    x, states = layers.Input((F,)), [layers.Input((U,)) for _ in kind.first]
    out, new = cell(x, states)
    assert [s.shape for s in (out, *new)] == [(None, U)] * (1 + kind.states)


def test_values_are_those_of_the_equations(kind):
    for options in ({}, {"go_backwards": True, "zero_output_for_mask": True}):
        layer = kind.make(**EVERYTHING, **options)
        found = layer(X, initial_state=kind.first, mask=MASK, reset=RESET)
        close(found, kind.loop(layer, X, kind.first, mask=MASK, reset=RESET, **options))


def test_values_of_the_steps_in_operations(kind):
    """The step of a cell without kernels, against the naive loop too."""
    layer = kind.make(activation="softmax", dtype="float64", **EVERYTHING)
    assert layer.kernel_path == "program"

    def softmax(np, z):
        powers = np.exp(z - z.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    found = layer(X, initial_state=kind.first, mask=MASK, reset=RESET)
    expected = kind.loop(layer, X, kind.first, mask=MASK, reset=RESET, activation=softmax)
    close(found, expected, 1e-12)


def test_which_outputs_come_out(kind):
    layer = kind.make(**EVERYTHING)
    whole = layer(X, mask=MASK)
    assert type(whole) is list and [a.shape for a in whole] == [(B, T, U)] + [(B, U)] * kind.states
    same(kind.like(layer)(X, mask=MASK), whole[0][:, -1])
    same(kind.like(layer, return_state=True)(X, mask=MASK), [whole[0][:, -1], *whole[1:]])
    same(kind.like(layer, **EVERYTHING, unroll=True)(X, mask=MASK), whole)
    reverse = kind.like(layer, **EVERYTHING, go_backwards=True)
    flipped = layer(X[:, ::-1], mask=MASK[:, ::-1], reset=RESET[:, ::-1])
    same(reverse(X, mask=MASK, reset=RESET), flipped)
    shapes = layer.compute_output_shape((None, None, F))
    assert shapes == [(None, None, U)] + [(None, U)] * kind.states
    masks = layer.compute_mask(X, MASK)
    assert masks[0] is MASK and masks[1:] == [None] * kind.states
    assert layers.SimpleRNN(U).compute_mask(X, MASK) is None


def test_every_option_keeps_the_kernels(kind):
    options = {
        "stateful": True, "go_backwards": True, "zero_output_for_mask": True, "unroll": True, "use_bias": False,
        "dropout": 0.5, "recurrent_dropout": 0.5, "activation": "gelu", **EVERYTHING,
    }  # fmt: skip
    layer = kind.make(**options)
    layer.build(X.shape)
    d_outputs = [np.ones(shape, np.float32) for shape in [(B, T, U)] + [(B, U)] * kind.states]
    kernel_calls.clear()
    differentiate(layer, X, d_outputs, mask=MASK, reset=RESET, training=True)
    assert kernel_calls == {(layer.cell.fused_cell.name, way): 1 for way in ("forward", "backward", "weight_gradients")}


@pytest.mark.parametrize("name", ["softmax", "leaky_relu", given_tanh])
def test_other_activations_run_as_programs(kind, name):
    assert kind.make(activation=name).kernel_path == "program"
    if kind.gates > 1:
        assert kind.make(recurrent_activation=name).kernel_path == "program"


def test_a_cell_with_a_step_of_its_own_runs_its_step(kind):
    class Doubled(kind.cell):
        def call(self, inputs, states, training=False):
            out, states = super().call(inputs, states, training)
            return 2 * out, states

    cell = Doubled(U, **kind.options)
    layer = layers.RNN(cell, return_sequences=True)
    assert layer.kernel_path == "program"
    plain = kind.make(return_sequences=True)
    plain.build(X.shape)
    layer.build(X.shape)
    layer.set_weights(plain.get_weights())
    close(layer(X), 2 * plain(X))


def test_a_cell_with_a_start_of_its_own(kind):
    """Also where kernels run."""

    class Begun(kind.cell):
        def get_initial_state(self, batch_size=None):
            return [np.full((batch_size, self.units), 0.5, "float32")] * kind.states

    layer = layers.RNN(Begun(U, **kind.options), return_state=True)
    assert layer.kernel_path == "kernel"
    found = layer(X)
    same(found, kind.like(layer, return_state=True)(X, initial_state=[np.full((B, U), 0.5, "float32")] * kind.states))


# ---------------------------------------------------------------------------------------------------- masks and NaN


@pytest.mark.parametrize("activation", ["tanh", given_tanh], ids=["kernel", "program"])
def test_nan_in_a_masked_timestep_reaches_nothing(kind, activation):
    """No output and no gradient, whatever is dropped and wherever the sequence restarts."""
    layer = kind.make(activation=activation, dropout=0.2, recurrent_dropout=0.2, seed=1, **EVERYTHING)
    layer.build(X.shape)
    generator = layer.cell.seed_generator.state
    start = generator.numpy()
    mask = MASK.copy()
    mask[1] = False  # a row masked whole
    d_outputs = [np.ones(shape, np.float32) for shape in [(B, T, U)] + [(B, U)] * kind.states]
    found = []
    for filler in (np.nan, 0.0):
        x = np.where(mask[..., None], X, np.float32(filler))
        generator.assign(start)
        found.append(differentiate(layer, x, d_outputs, mask=mask, reset=RESET, training=True))
    (outputs, gradients), (expected, expected_gradients) = found
    same(outputs, expected)
    same(gradients, expected_gradients)
    assert all(np.isfinite(a).all() for a in (*outputs, *gradients))
    assert not gradients[0][~mask].any()
    eager = layer(np.where(mask[..., None], X, np.nan), mask=mask)
    assert all(np.isfinite(a).all() for a in eager)
    same([a[1] for a in eager], [np.zeros_like(a[1]) for a in eager])


# --------------------------------------------------------------------------------------------------------- gradients


def zeros(kind):
    return [(B, T, U)] + [(B, U)] * kind.states


@pytest.mark.parametrize("activation", ["tanh", given_tanh], ids=["kernel", "program"])
@pytest.mark.parametrize("drop", [{}, *DROPS], ids=str)
def test_gradients_by_differences(kind, drop, activation, rng):
    layer = kind.make(activation=activation, **drop, **EVERYTHING, dtype="float64", seed=1)
    layer.build(X.shape)
    d_outputs = [rng.standard_normal(shape) for shape in zeros(kind)]
    call = {"training": True, "mask": MASK, "reset": RESET, "initial_state": kind.first}
    slopes(layer, X.astype("float64"), d_outputs, **call)


@pytest.mark.parametrize("drop", [{"use_bias": False}, *DROPS], ids=str)
def test_programs_give_what_kernels_give(kind, drop, rng):
    """Values, draws, gradients of inputs, weights and first states: a callable tanh against the name."""
    options = {**drop, **EVERYTHING, "dtype": "float64", "seed": 7, "go_backwards": True}
    named, given = kind.make(**options), kind.make(activation=given_tanh, **options)
    assert (named.kernel_path, given.kernel_path) == ("kernel", "program")
    for layer in (named, given):
        layer.build(X.shape)
    given.set_weights(named.get_weights())
    arrays = [X.astype("float64"), *(state.astype("float64") for state in kind.first)]
    d_outputs = [rng.standard_normal(shape) for shape in zeros(kind)]
    results = []
    for layer in (named, given):
        program = graph.trace(
            lambda x, *states, layer=layer: layer(x, initial_state=list(states), mask=MASK, reset=RESET, training=True),
            [Spec(a.shape, a.dtype) for a in arrays],
        )
        wrt = [*program.inputs, *layer.trainable_weights]
        forward, backward = program.linearize(list(range(len(d_outputs))), wrt)
        outputs, residuals = forward(*arrays)
        results.append((outputs, backward(residuals, d_outputs)))
    (outputs, gradients), (expected, expected_gradients) = results
    close(outputs, expected, 1e-12)
    close(gradients, expected_gradients, 1e-11)
    assert all(gradient.any() for gradient in gradients)


# ----------------------------------------------------------------------------------------------------------- dropout


@pytest.mark.parametrize("activation", ["tanh", given_tanh], ids=["kernel", "program"])
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_dropout_factors_are_shared_as_keras_shares_them(kind, drop, activation):
    """The draws put into the naive loop: one set for all timesteps, and one for each gate or one for all."""
    layer = kind.make(activation=activation, **drop, seed=3, dtype="float64", **EVERYTHING)
    layer.build(X.shape)
    generator = layer.cell.seed_generator.state
    start = generator.numpy()
    x_factors, h_factors = layer.cell._dropout_factors(X[:, 0].astype("float64"))
    apart = kind.gates > 1 and ("implementation" in drop or "recurrent_dropout" in drop)
    assert x_factors.shape == (kind.gates if apart else 1, B, F)
    assert set(np.unique(x_factors)) == {0.0, 1 / (1 - drop["dropout"])}
    assert (h_factors is None) == ("recurrent_dropout" not in drop)
    if h_factors is not None:
        assert h_factors.shape == (kind.gates, B, U)
    generator.assign(start)
    found = layer(X, initial_state=kind.first, training=True)
    close(found, kind.loop(layer, X, kind.first, x_factors=x_factors, h_factors=h_factors), 1e-12)
    after = layer(X, initial_state=kind.first, training=True)
    assert not np.array_equal(found[0], after[0])  # another batch, other factors


@pytest.mark.parametrize("activation", ["tanh", given_tanh], ids=["kernel", "program"])
@pytest.mark.parametrize("drop", DROPS, ids=str)
def test_dropout_repeats_with_its_seed_and_is_off_in_inference(kind, drop, activation):
    one, other = (kind.make(activation=activation, **drop, seed=5, **EVERYTHING) for _ in range(2))
    one.build(X.shape)
    other.build(X.shape)
    other.set_weights(one.get_weights())
    first, second = one(X, training=True), one(X, training=True)
    assert not np.array_equal(first[0], second[0])
    same(other(X, training=True), first)
    same(other(X, training=True), second)
    plain = kind.like(one, activation=activation, **EVERYTHING)
    same(one(X), plain(X))
    same(plain(X, training=True), plain(X))
    assert len(one.non_trainable_variables) == 1 and len(one.variables) == 4


def test_dropout_of_everything_gives_zeros(kind):
    bare = kind.layer(U, dropout=1.0, recurrent_dropout=1.0, use_bias=False, **kind.options)
    found = bare(X, training=True)
    same(found, np.zeros((B, U), "float32"))
    layer = kind.make(dropout=1.0, recurrent_dropout=1.0, **EVERYTHING)
    found = layer(X, initial_state=kind.first, training=True)
    weights = layer.get_weights()
    layer.set_weights([0 * weights[0], 0 * weights[1], weights[2]])
    close(found, layer(X, initial_state=kind.first))


# ------------------------------------------------------------------------------------------------- weights, penalties


def test_weights_their_order_paths_and_first_values(kind):
    layer = kind.layer(U, bias_initializer=initializers.Constant(0.03), name="l", **kind.options)
    layer.build((None, None, F))
    inner = layer.cell.name
    assert [w.path for w in layer.weights] == [f"l/{inner}/{n}" for n in ("kernel", "recurrent_kernel", "bias")]
    kernel, recurrent, bias = layer.get_weights()
    columns = kind.gates * U
    assert (kernel.shape, recurrent.shape) == ((F, columns), (U, columns))
    limit = np.sqrt(6 / (F + columns))
    assert 0.5 * limit < np.abs(kernel).max() <= limit
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(U), atol=1e-6)
    if kind.name == "LSTM":
        np.testing.assert_array_equal(bias, np.repeat(np.float32([0.03, 1, 0.03, 0.03]), U))
    else:
        assert bias.shape == ((2, columns) if kind.name == "GRU" else (columns,))
        assert np.all(bias == np.float32(0.03))
    no_bias = kind.layer(U, use_bias=False, **kind.options)
    close(no_bias(X), kind.loop(no_bias, X)[0][:, -1])
    assert len(no_bias.weights) == 2 and no_bias.cell.bias is None


@pytest.mark.parametrize("as_rnn", [False, True])
def test_regularizers_constraints_and_the_penalty_on_outputs(kind, as_rnn):
    arguments = {
        "kernel_regularizer": "l1",
        "recurrent_regularizer": "l2",
        "bias_regularizer": "l1_l2",
        "kernel_constraint": "non_neg",
        "recurrent_constraint": "unit_norm",
        "bias_constraint": "max_norm",
        "bias_initializer": "random_normal",
        **kind.options,
    }
    if as_rnn:
        layer = layers.RNN(kind.cell(U, **arguments), return_sequences=True, activity_regularizer="l2")
    else:
        layer = kind.layer(U, **arguments, return_sequences=True, activity_regularizer="l2")
    out = layer(X)
    kernel, recurrent, bias = layer.get_weights()
    expected = [0.01 * np.square(out).sum() / B, 0.01 * np.abs(kernel).sum(), 0.01 * np.square(recurrent).sum()]
    expected.append(0.01 * (np.abs(bias).sum() + np.square(bias).sum()))
    np.testing.assert_allclose([float(loss) for loss in layer.losses], expected, rtol=1e-5)
    assert [type(w.constraint).__name__ for w in layer.trainable_weights] == ["NonNeg", "UnitNorm", "MaxNorm"]


def test_constraints_hold_after_training(kind):
    constraints = {f"{name}_constraint": "non_neg" for name in ("kernel", "recurrent", "bias")}
    layer = kind.make(**constraints)
    model = models.Sequential([layers.Input((T, F)), layer])
    model.compile("sgd", "mse")
    model.fit(X, np.ones((B, U), "float32"), verbose=0)
    assert all((weight >= 0).all() for weight in layer.get_weights())


# ----------------------------------------------------------------------------------------------------- configuration

PLAIN = {
    "activation": "relu",
    "use_bias": False,
    "dropout": 0.25,
    "recurrent_dropout": 0.5,
    "seed": 3,
}
LOOP = {
    "return_sequences": True,
    "return_state": True,
    "go_backwards": True,
    "stateful": True,
    "unroll": True,
    "zero_output_for_mask": True,
}


def test_configurations_make_the_layer_again(kind):
    arguments = {**PLAIN, **LOOP, "kernel_regularizer": "l1", "bias_constraint": "max_norm", **kind.options}
    layer = kind.layer(U, **arguments, activity_regularizer="l2", time_major=True, dtype="float64", name="given")
    config = layer.get_config()
    assert {name: config[name] for name in {**PLAIN, **LOOP}} == {**PLAIN, **LOOP}
    assert config["time_major"] is True and "cell" not in config and "implementation" not in config
    again = kind.layer.from_config(config)
    assert again.get_config() == config and again.cell.get_config() == layer.cell.get_config()
    cell = kind.cell(U, kernel_regularizer="l1", **PLAIN, **kind.options)
    assert kind.cell.from_config(cell.get_config()).get_config() == cell.get_config()
    for name in PLAIN:
        assert getattr(layer, name) == getattr(layer.cell, name)


@pytest.mark.parametrize("implementation", [0, 1, 2])
def test_implementations(kind, implementation):
    """They differ in nothing but how dropout is shared."""
    layer = kind.make(implementation=implementation, **EVERYTHING)
    close(layer(X), kind.loop(layer, X))
    assert layer.implementation == max(1, implementation)


def test_refusals(kind):
    with pytest.raises(ValueError, match="argument `units`, expected a positive integer, got 0."):
        kind.make(0)
    with pytest.raises(ValueError, match="Argument `implementation` must be 0, 1 or 2"):
        kind.make(implementation=3)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to"):
        kind.make(foo=1)
    with pytest.raises(ValueError, match=r"expected ndim=3, found ndim=2. Full shape received: \(6, 3\)"):
        kind.make()(X[0])
    with pytest.raises(ValueError, match=f"Layer has {kind.states} states but was passed 3 initial states."):
        kind.make()(X, initial_state=[STATES[0]] * 3)
    if kind.layer is not layers.SimpleRNN:
        with pytest.raises(ValueError, match="use_cudnn=True was specified, but cuDNN is not supported"):
            kind.make(use_cudnn=True)
        with pytest.raises(ValueError, match="Invalid valid received for argument `use_cudnn`"):
            kind.make(use_cudnn="no")
        assert kind.make().use_cudnn == "auto"
    else:
        assert not hasattr(kind.make(), "use_cudnn")


@pytest.mark.parametrize("dtype", ["float64", "mixed_float16"])
def test_types(kind, dtype):
    layer = kind.make(dtype=dtype, **EVERYTHING)
    found = layer(X, initial_state=kind.first)
    assert {a.dtype.name for a in found} == {"float64" if dtype == "float64" else "float16"}
    close(found, kind.loop(layer, X, kind.first), 2e-3 if dtype == "mixed_float16" else TOLERANCE["float64"])


def test_an_empty_batch(kind):
    for activation in ("tanh", "softmax"):
        layer = kind.make(activation=activation, **EVERYTHING)
        shapes = [(0, T, U)] + [(0, U)] * kind.states
        assert [a.shape for a in layer(X[:0], mask=MASK[:0], reset=RESET[:0])] == shapes


def test_sequences_of_unknown_length(kind):
    x = Spec((None, None, F), "float32")
    for activation in ("tanh", given_tanh):
        layer = kind.make(activation=activation, **EVERYTHING)
        shapes = [out.shape for out in graph.abstract(layer, [x])]
        assert shapes == [(None, None, U)] + [(None, U)] * kind.states
    program = graph.trace(layer, [x])
    for timesteps in (T, 1, 2):
        close(program(X[:, :timesteps]), layer(X[:, :timesteps]), 1e-6)
