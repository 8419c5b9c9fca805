"""`fit(bptt_steps=...)`: the steps that a loop over pieces with stateful layers does."""

import pickle

import numpy as np
import pytest

from numbarnn import Input, Model, Sequential, callbacks, layers, ops, optimizers, value_and_grad
from numbarnn.utils import Ragged

SAMPLES, T, F = 6, 7, 3
RNG = np.random.default_rng(0)
X, Y = (RNG.standard_normal((SAMPLES, T, n)).astype("float32") for n in (F, 2))


def stack(batch=None, **options):
    def recurrent(kind, **more):
        return kind(4, return_sequences=True, **options, **more)

    shape = {"shape": (None, F)} if batch is None else {"batch_shape": (batch, None, F)}
    found = [recurrent(layers.LSTM), layers.RNN([layers.GRUCell(3)], return_sequences=True, **options)]
    return Sequential([Input(**shape), *found, layers.Dense(2)])


def compiled(model, weights=None, optimizer="sgd"):
    model.compile(optimizer, "mse", metrics=["mae"])
    if weights is not None:
        model.set_weights(weights)
    return model


def by_hand(model, x, y, k):
    """Train on one batch in pieces, by a model whose layers are stateful."""
    model.reset_states()
    return [model.train_on_batch(x[:, t : t + k], y[:, t : t + k]) for t in range(0, x.shape[1], k)]


def same(a, b):
    for ours, theirs in zip(a, b, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("k", [1, 3, T])
def test_weights_are_those_of_a_loop_over_pieces(k):
    model = compiled(stack())
    start = model.get_weights()
    twins = {n: compiled(stack(n, stateful=True)) for n in (4, 2)}  # the last batch is smaller
    weights, losses = start, []
    for _ in range(2):
        for n, rows in ((4, slice(0, 4)), (2, slice(4, 6))):
            twins[n].set_weights(weights)
            losses.append([n * loss for loss, _ in by_hand(twins[n], X[rows], Y[rows], k)])
            weights = twins[n].get_weights()
    history = model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, bptt_steps=k).history
    same(model.get_weights(), weights)
    pieces = -(-T // k)
    expected = [sum(map(sum, losses[i : i + 2])) / SAMPLES / pieces for i in (0, 2)]
    np.testing.assert_allclose(history["loss"], expected, rtol=1e-6)


def test_one_piece_is_the_whole_batch_and_nothing_is_left_behind():
    model = compiled(stack(), optimizer=optimizers.Adam(0.01))
    twin = compiled(stack(), model.get_weights(), optimizers.Adam(0.01))
    first = model.fit(X, Y, batch_size=3, epochs=2, verbose=0, shuffle=False, bptt_steps=100).history
    second = twin.fit(X, Y, batch_size=3, epochs=2, verbose=0, shuffle=False).history
    assert first == second
    model.fit(X, Y, verbose=0, shuffle=False)
    twin.fit(X, Y, verbose=0, shuffle=False)
    same(model.get_weights(), twin.get_weights())
    same([model.predict(X, verbose=0)], [twin.predict(X, verbose=0)])


def test_validation_is_on_whole_sequences():
    model = compiled(stack())
    history = model.fit(X, Y, validation_data=(X[:5], Y[:5]), verbose=0, bptt_steps=2).history
    np.testing.assert_allclose(history["val_loss"][-1], model.evaluate(X[:5], Y[:5], verbose=0)[0], rtol=1e-6)


def test_a_given_first_state_is_that_of_the_first_piece_and_inputs_without_time_go_with_every_piece():
    def make(batch, **options):
        x, h, shift = (Input(batch_shape=(batch, *shape)) for shape in ((None, F), (4,), (2,)))
        out = layers.GRU(4, return_sequences=True, **options)(x, initial_state=[h])
        return Model([x, h, shift], layers.add([layers.Dense(2)(out), layers.Reshape((1, 2))(shift)]))

    h, shift = RNG.standard_normal((SAMPLES, 4)).astype("f4"), RNG.standard_normal((SAMPLES, 2)).astype("f4")
    model = compiled(make(None))
    twin = compiled(make(SAMPLES, stateful=True), model.get_weights())
    model.fit([X, h, shift], Y, batch_size=SAMPLES, shuffle=False, verbose=0, bptt_steps=3)
    for t in range(0, T, 3):
        twin.train_on_batch([X[:, t : t + 3], h, shift], Y[:, t : t + 3])
    same(model.get_weights(), twin.get_weights())


def test_lengths_and_weights_of_timesteps():
    lengths = [2, 3, 1]
    x, y = (Ragged([a[i, :n] for i, n in enumerate(lengths)]) for a in (X, Y))
    model = compiled(stack())
    twin = compiled(stack(), model.get_weights())
    model.fit(x, y, batch_size=3, shuffle=False, verbose=0, bptt_steps=2)
    padded_x, padded_y = np.zeros((3, 4, F), "f4"), np.zeros((3, 4, 2), "f4")
    mask = np.arange(4) < np.array(lengths)[:, None]
    padded_x[mask], padded_y[mask] = np.concatenate(list(x)), np.concatenate(list(y))
    # Weights of zero do what a mask does to the loss, but for what it is divided by.
    weights = mask * np.repeat([6 / 5, 6 / 1], 2)
    twin.fit(padded_x, padded_y, sample_weight=weights, batch_size=3, shuffle=False, verbose=0, bptt_steps=2)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert model.optimizer.iterations.numpy() == 2  # pieces that are all padding are left out


def loss_in_pieces(model, x, y, generator=False):
    """What `fit` finds with weights that stay as they are: the loss on whole sequences, where pieces are equal."""
    model.compile(optimizers.SGD(0.0), "mse")
    data = {"x": iter([(x, y)])} if generator else {"x": x, "y": y, "batch_size": len(y)}
    found = model.fit(**data, shuffle=False, verbose=0, bptt_steps=2).history["loss"][0]
    return found, model.evaluate(x, y, verbose=0)


def test_a_layer_that_is_called_twice_goes_on_from_each_of_its_calls():
    a, b = Input((None, F)), Input((None, F))
    shared = layers.GRU(2, return_sequences=True)
    model = Model([a, b], layers.subtract([shared(a), shared(b)]))
    found, expected = loss_in_pieces(model, [X[:, :6], X[:, 1:]], Y[:, :6])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("generator", [False, True])
def test_layers_that_are_made_when_the_model_is_built(generator):
    class Late(Model):
        def build(self, shape):
            self.inner = layers.GRU(2, return_sequences=True)

        def call(self, x):
            return self.inner(x)

    x, y = X[:, :6], Y[:, :6]
    found, expected = loss_in_pieces(Late(), x, y, generator)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_that_a_layer_makes_more_of():
    class Twice(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = layers.GRU(2, return_sequences=True)

        def call(self, x):
            return self.inner(ops.concatenate([x, -x], 0))[: x.shape[0]]

    found, expected = loss_in_pieces(Sequential([Twice()]), X[:, :6], Y[:, :6])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class LearnsItsStart(layers.Layer):
    state_size = 2

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2))
        self.start = self.add_weight(shape=(2,), initializer="ones")

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return [ops.ones((batch_size, 1)) * self.start]

    def call(self, x, states):
        out = ops.tanh(ops.matmul(x, self.kernel) + states[0])
        return out, [out]


def test_a_first_state_is_learned():
    model = compiled(Sequential([Input((None, F)), layers.RNN(LearnsItsStart(), return_sequences=True)]))
    twin = compiled(Sequential([Input((None, F)), layers.RNN(LearnsItsStart(), return_sequences=True)]))
    twin.set_weights(model.get_weights())
    model.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0, bptt_steps=T)
    twin.fit(X, Y, batch_size=3, epochs=2, shuffle=False, verbose=0)
    assert not np.allclose(model.layers[0].cell.start, 1)
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    found, expected = loss_in_pieces(model, X[:, :6], Y[:, :6])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_callbacks_do_between_is_on_whole_sequences():
    model = stack()
    found = []

    class Between(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(model.train_on_batch(X[:3, :2], Y[:3, :2]))  # as a piece looks
            found.append(model.evaluate(X[:3, :2], Y[:3, :2], verbose=0))
            pickle.loads(pickle.dumps(model.layers[0]))

    model.compile(optimizers.SGD(0.0), "mse")
    model.fit(X, Y, batch_size=3, epochs=2, verbose=0, bptt_steps=2, callbacks=[Between()])
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_a_step_of_ones_own_may_call_the_model_again():
    class Own(Sequential):
        def train_step(self, data):
            x, y = data
            loss, grads = value_and_grad(lambda x, y: self.compute_loss(y=y, y_pred=self(x, training=True)), self)(x, y)
            self.optimizer.apply(grads)
            return {"loss": loss, "after": np.mean((self(x) - y) ** 2)}

    model = Own([Input((None, F)), layers.GRU(2, return_sequences=True)])
    model.compile(optimizers.SGD(0.0), "mse")
    logs = model.fit(X, Y, batch_size=SAMPLES, shuffle=False, verbose=0, bptt_steps=2).history
    np.testing.assert_allclose(logs["after"], logs["loss"], rtol=1e-6)
    out = model.predict(X, verbose=0)
    np.testing.assert_allclose(logs["loss"][0], np.mean((out - Y)[:, 6:] ** 2), rtol=1e-6)


class SelfAttention(layers.Layer):
    def __init__(self):
        super().__init__()
        self.attention = layers.Attention()

    def call(self, x):
        return self.attention([x, x])


@pytest.mark.parametrize(
    ("layer", "x", "y", "steps", "message"),
    [
        (layers.Bidirectional(layers.GRU(2, return_sequences=True)), X, Y, 2, "'bidirectional.*starts at their ends"),
        (layers.GRU(2, return_sequences=True, go_backwards=True), X, Y, 2, "'gru.*starts at their ends"),
        (SelfAttention(), X, Y, 2, "'attention.*looks at all timesteps at once"),
        (layers.GRU(2), X, Y[:, 0], 2, "needs targets at each of the 7 timesteps"),
        (layers.Reshape((1, F)), X[:, 0, 0], Y, 2, "needs inputs of shape"),
        (layers.GRU(2, return_sequences=True), X, Y, 0, "`bptt_steps` must be a positive integer"),
    ],
)
def test_what_cannot_be_cut_is_refused(layer, x, y, steps, message):
    model = Sequential([layer])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0, bptt_steps=steps)
