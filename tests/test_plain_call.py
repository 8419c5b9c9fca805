"""The short way of a recurrent layer's call on one array gives the bits of the long way, and goes no further."""

import copy
import functools
import gc
import weakref

import numpy as np
import pytest

import numbarnn
from numbarnn import layers, ops
from numbarnn.gradients import value_and_grad
from numbarnn.layers import plain_call
from numbarnn.layers.base import Layer, call_context
from numbarnn.layers.masks import get_mask, set_mask


@pytest.fixture
def x(rng):
    return rng.standard_normal((2, 3, 4)).astype("float32")


@pytest.fixture
def long_ways(monkeypatch):
    """A list that grows with each call that goes the long way."""
    calls, inner = [], Layer.__call__

    def count(self, *args, **kwargs):
        calls.append(self)
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(Layer, "__call__", count)
    return calls


def equal(first, second):
    """Compare two results, or lists of them, to the last bit."""
    first, second = ([r] if isinstance(r, np.ndarray) else r for r in (first, second))
    return len(first) == len(second) and all(map(np.array_equal, first, second))


KINDS = [
    lambda **o: layers.LSTM(5, **o),
    lambda **o: layers.GRU(5, **o),
    lambda **o: layers.SimpleRNN(5, **o),
    lambda **o: layers.RNN(layers.LSTMCell(5), **o),
    lambda **o: layers.Bidirectional(layers.GRU(5, **o)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"return_sequences": True, "return_state": True},
        {"return_state": True, "go_backwards": True},
        {"return_sequences": True, "zero_output_for_mask": True, "unroll": True},
    ],
)
def test_the_second_call_goes_the_short_way_to_the_same_bits(kind, options, x, long_ways):
    layer = kind(**options)
    first = layer(x)
    assert len(long_ways) == 1
    again = layer(x)
    assert len(long_ways) == 1
    assert isinstance(again, type(first))
    assert equal(again, first)
    assert equal(layer(x[:, ::-1][:, ::-1]), first)
    assert equal(layer(x[:1, :2]), kind_like(layer)(x[:1, :2]))


def kind_like(layer):
    """A new layer with the weights of another, which goes the long way."""
    new = type(layer).from_config(layer.get_config())
    new.build((None, None, layer.input_spec.shape[2]))
    new.set_weights(layer.get_weights())
    return new


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_what_changes_between_calls_counts(kind, x):
    layer = kind(return_sequences=True)
    layer(x)
    layer(x)
    layer.set_weights([2 * w for w in layer.get_weights()])
    assert equal(layer(x), kind_like(layer)(x))
    layer.cell.activation = numbarnn.activations.relu
    assert equal(layer(x), kind_like(layer)(x))
    layer.return_sequences = False
    assert layer(x).shape == (2, 5)
    layer.go_backwards = True
    assert equal(layer(x), kind_like(layer)(x))
    before = layer(x)
    layer.cell.get_initial_state = lambda **_: [np.ones((2, 5), "float32")] * layer.cell.kernels.states
    assert not equal(layer(x), before)
    assert not equal(layer(x), before)


def test_masks_and_other_arguments_go_the_long_way(x, long_ways):
    layer = layers.LSTM(5, return_sequences=True)
    plain = layer(x)
    mask = np.array([[True, True, False], [True, False, False]])
    masked = layer(x, mask=mask)
    assert not equal(masked, plain)
    carrying = x.copy()
    set_mask(carrying, mask)
    before = len(long_ways)
    out = layer(carrying)
    assert len(long_ways) == before + 1
    assert equal(out, masked)
    assert get_mask(out) is mask
    assert get_mask(layer(x)) is None
    states = [np.ones((2, 5), "float32")] * 2
    assert equal(layer([x, *states]), layer(x, initial_state=states))
    assert not equal(layer(x, initial_state=states), plain)
    assert equal(layer(x.astype("float64")), layer(x))
    assert len(long_ways) > before + 3


@pytest.mark.parametrize("mode", ["sum", "mul", "ave", "concat", None])
def test_both_directions_are_merged(mode, x):
    layer = layers.Bidirectional(layers.LSTM(5, return_sequences=True, return_state=True), merge_mode=mode)
    first = layer(x)
    assert equal(layer(x), first)
    layer.backward_layer.cell.activation = numbarnn.activations.relu
    assert equal(layer(x), kind_like(layer)(x))
    assert not equal(layer(x), first)
    layer.merge_mode = "concat"
    assert layer(x)[0].shape == (2, 3, 10)
    layer.forward_layer.get_initial_state = lambda **_: [np.ones((2, 5), "float32")] * 2
    before = layer(x)
    assert not equal(before, kind_like(layer)(x))
    assert equal(layer(x), before)


def test_states_that_go_on_do(x):
    layer = layers.GRU(5, stateful=True)
    first = layer(x)
    assert not equal(layer(x), first)
    layer.reset_states()
    assert equal(layer(x), first)


def test_who_wants_states_too_late_is_told(x):
    layer = layers.GRU(5)
    before = layer(x)
    layer(x)
    layer.stateful = True
    for _ in range(2):
        with pytest.raises(ValueError, match="'gru.*' was built without states .* `stateful=True` to its constructor"):
            layer(x)
    layer.stateful = False
    assert equal(layer(x), before)


def test_what_a_call_within_another_takes_from_it_counts(x):
    class Wrapped(Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.LSTM(5, dropout=0.5, seed=1)

        def call(self, x):
            return self.inner(x)

    outer = Wrapped()
    calm = outer.inner(x)
    assert equal(outer.inner(x), calm)
    assert not equal(outer(x, training=True), calm)
    assert equal(outer(x), calm)


def test_a_traced_call_is_recorded(x):
    layer = layers.LSTM(5)
    layer(x)
    layer(x)
    gradient = value_and_grad(lambda: ops.sum(layer(x)), layer.trainable_variables)
    _, grads = gradient()
    assert all(np.any(g) for g in grads)


def test_methods_of_the_users_are_called(x):
    called = []

    class Own(layers.LSTM):
        def call(self, sequences, initial_state=None, mask=None, training=False, reset=None, constants=None):
            called.append("call")
            return super().call(sequences, initial_state, mask, training, reset, constants)

    class Started(layers.GRU):
        def get_initial_state(self, batch_size):
            called.append("get_initial_state")
            return super().get_initial_state(batch_size)

    class Cell(layers.SimpleRNNCell):
        def call(self, inputs, states, training=False):
            called.append("call of a cell")
            return super().call(inputs, states, training)

    for layer, name in ((Own(5), "call"), (Started(5), "get_initial_state")):
        layer(x)
        called.clear()
        layer(x)
        layer(x)
        assert called == [name] * 2
    step_by_step = layers.RNN(Cell(5))
    before = step_by_step(x)
    assert called[-1] == "call of a cell"
    assert equal(step_by_step(x), before)


def test_errors_are_those_of_the_long_way(x):
    layer = layers.LSTM(5)
    layer(x)
    layer(x)
    with pytest.raises(ValueError, match="expected shape=\\(None, None, 4\\), found shape=\\(2, 3, 3\\)"):
        layer(x[:, :, :3])
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        layer(x[0])
    with pytest.raises(ValueError, match="at least one timestep"):
        layer(x[:, :0])


def test_copies_have_weights_of_their_own(x):
    layer = layers.LSTM(5)
    before = layer(x)
    layer(x)
    other = copy.deepcopy(layer)
    layer.set_weights([0 * w for w in layer.get_weights()])
    assert equal(other(x), before)
    assert equal(other(x), before)
    assert not np.any(layer(x))


def test_penalties_are_collected_at_each_call(x):
    layer = layers.LSTM(5, activity_regularizer="l2")
    layer(x)
    layer(x)
    assert len(layer.losses) == 1
    layer = layers.LSTM(5)
    layer(x)
    layer.add_loss(np.float32(1))
    assert len(layer.losses) == 1
    layer(x)
    assert not layer.losses


@pytest.mark.parametrize("kind", [layers.LSTM, layers.LSTMCell])
def test_a_call_that_is_put_into_a_class_is_called(kind, x, monkeypatch):
    layer = layers.LSTM(5)
    before = layer(x)
    assert equal(layer(x), before)
    inner = kind.call

    @functools.wraps(inner)
    def call(self, *args, **kwargs):
        results = inner(self, *args, **kwargs)
        return (-results[0], results[1]) if isinstance(results, tuple) else -results  # of a cell, of a layer

    with monkeypatch.context() as patch:
        patch.setattr(kind, "call", call)
        for one in (layer, kind_like(layer)):
            np.testing.assert_allclose(one(x), -before, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(one(x), -before, rtol=1e-5, atol=1e-6)
    assert equal(layer(x), before)
    assert equal(layer(x), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_and_its_weights_go_with_their_last_reference(kind, x):
    gc.disable()
    try:
        layer = kind()
        layer(x)
        layer(x)
        layer.get_weights()
        layer._named_variables()
        gone = [weakref.ref(one) for one in (layer, *layer.trainable_weights)]
        del layer
        assert all(one() is None for one in gone)
    finally:
        gc.enable()


def test_nothing_is_found_out_within_another_call_where_it_is_of_no_use(x, monkeypatch):
    made = []
    monkeypatch.setattr(plain_call, "PlainCall", lambda *args: made.append(args))
    layer = layers.LSTM(5)
    with call_context(layers.Dense(1)):
        layer(x)
    value_and_grad(lambda: ops.sum(layer(x)), layer.trainable_variables)()
    assert not made
    layer(x)
    assert len(made) == 1


def test_the_reset_gate_may_change_its_place(x):
    layer = layers.GRU(5, reset_after=False, use_bias=False)
    before = layer(x)
    layer.cell.reset_after = True
    assert equal(layer(x), kind_like(layer)(x))
    layer.cell.reset_after = False
    assert equal(layer(x), before)
