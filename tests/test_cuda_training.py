"""Whole models on the GPU: trained, evaluated and asked there, on a stand-in for CuPy and Numba's simulator.

Everything is compared with the same training on the CPU, in float64.
"""

import functools

import numpy as np
import pytest
from gpu import fake_cupy

import numbarnn
from numbarnn import callbacks, cuda, layers, losses, metrics, models, ops, optimizers
from numbarnn.utils import Ragged, set_random_seed

pytestmark = pytest.mark.gpu

STEPS = 3
RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 4, 3))  # batch, timesteps, features
FLAT = RNG.standard_normal((5, 3))
Y = RNG.standard_normal((5, 2))
IDS = RNG.integers(1, 7, (5, 4))
IDS[0, 2:] = IDS[1, :2] = IDS[2, 1] = 0
HOLES = X.copy()
HOLES[0, 1] = HOLES[2, 3] = 0.0
LABELS = RNG.integers(0, 3, 5)


@pytest.fixture(autouse=True)
def gpu():
    """Let the stand-in be there as a GPU, to be chosen; return the list of its moves."""
    numbarnn.backend.set_floatx("float64")
    with cuda.use_array_module(fake_cupy):
        fake_cupy.moves.clear()
        yield fake_cupy.moves


def trained(make, x, y, device, weights=None):
    """Train a model; return it, and the losses and metrics of all steps."""
    set_random_seed(1)
    model = make()
    with numbarnn.device(device):
        reports = [model.train_on_batch(x, y, sample_weight=weights, return_dict=True) for _ in range(STEPS)]
    return model, [[float(np.sum(value)) for value in report.values()] for report in reports]


def assert_same_training(make, x, y, weights=None, tolerance=1e-10):
    """Train twice, on the CPU and on the GPU: losses, metrics, weights, optimizer and predictions are the same."""
    ours, reports = trained(make, x, y, "cpu", weights)
    theirs, found = trained(make, x, y, "cuda:0", weights)
    close = functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    close(found, reports)
    assert all(isinstance(v.newest, fake_cupy.ndarray) for v in theirs.trainable_variables)
    for a, b in zip(ours.optimizer.variables, theirs.optimizer.variables, strict=True):
        close(b.numpy(), a.numpy(), err_msg=b.path)
    with numbarnn.device("cuda:0"):
        predicted = theirs.predict(x, verbose=0)
    close(predicted, ours.predict(x, verbose=0))
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        close(b, a)
    return theirs


def sequential(*inner, optimizer="adam", loss="mse", shape=(4, 3), **options):
    """Return a function that makes a compiled chain of layers, each given by a function."""

    def make():
        model = models.Sequential([layers.Input(shape), *(one() for one in inner)])
        model.compile(optimizer if isinstance(optimizer, str) else optimizer(), loss, **options)
        return model

    return make


def dense(units, **options):
    return lambda: layers.Dense(units, **options)


# ------------------------------------------------------------------------------------------------------------ layers


class Minimal(layers.Layer):
    """A cell in operations, with NumPy's functions among them."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, self.units), name="recurrent")
        self.tau = self.add_weight(shape=(self.units,), initializer="ones", name="tau")

    def call(self, inputs, states):
        h = np.tanh(inputs @ self.kernel + states[0] @ self.recurrent) / np.exp(self.tau)
        return h, [h]


class Written(layers.Layer):
    """A cell with a step and a gradient in NumPy."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = np.tanh(inputs @ self.kernel + states[0])
        return h, [h], h

    def backward(self, d_output, d_states, inputs, states, saved):
        d = (d_output + d_states[0]) * (1 - saved**2)
        return d @ self.kernel.T, [d], [inputs.T @ d]


CHAINS = {
    "dense": ([dense(4, activation="tanh"), dense(2)], FLAT, Y, {"shape": (3,)}),
    "lstm": ([lambda: layers.LSTM(4), dense(2)], X, Y, {}),
    "gru": ([lambda: layers.GRU(4), dense(2)], X, Y, {}),
    "gru, reset before": ([lambda: layers.GRU(4, reset_after=False), dense(2)], X, Y, {}),
    "simple rnn": ([lambda: layers.SimpleRNN(4, activation="relu"), dense(2)], X, Y, {}),
    "two layers": ([lambda: layers.LSTM(3, return_sequences=True), lambda: layers.GRU(4), dense(2)], X, Y, {}),
    "backwards": ([lambda: layers.LSTM(4, go_backwards=True), dense(2)], X, Y, {}),
    "dropout": (
        [lambda: layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2), lambda: layers.Dropout(0.5), dense(2)], X, Y, {},
    ),
    "masked": ([lambda: layers.Masking(), lambda: layers.LSTM(4), dense(2)], HOLES, Y, {}),
    "bidirectional": ([lambda: layers.Bidirectional(layers.GRU(3)), dense(2)], X, Y, {}),
    "stacked cells": (
        [lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)]), dense(2)], X, Y, {},
    ),
    "stateful": ([lambda: layers.LSTM(4, stateful=True), dense(2)], X, Y, {"shape": (4, 3)}),
    "cell in operations": ([lambda: layers.RNN(Minimal(4)), dense(2)], X, Y, {}),
    "cell in operations, masked": ([lambda: layers.Masking(), lambda: layers.RNN(Minimal(4)), dense(2)], HOLES, Y, {}),
    "cell in operations, all steps": (
        [lambda: layers.RNN(Minimal(4), return_sequences=True), lambda: layers.TimeDistributed(layers.Dense(2))],
        X, RNG.standard_normal((5, 4, 2)), {},
    ),
    "cell with a gradient of its own": ([lambda: layers.RNN(Written(4)), dense(2)], X, Y, {}),
    "softmax as an activation": ([lambda: layers.LSTM(4, activation="softmax"), dense(2)], X, Y, {}),
    "normalization": (
        [lambda: layers.LayerNormalization(), lambda: layers.LSTM(4), lambda: layers.BatchNormalization(), dense(2)],
        X, Y, {},
    ),
    "pooling": ([lambda: layers.GlobalMaxPooling1D(), dense(2)], X, Y, {}),
    "reshaping": (
        [lambda: layers.Reshape((2, 6)), lambda: layers.Permute((2, 1)), lambda: layers.Flatten(), dense(2)], X, Y, {},
    ),
    "penalties and constraints": (
        [dense(4, kernel_regularizer="l1_l2", kernel_constraint="max_norm", activity_regularizer="l2"),
         dense(2, kernel_constraint="unit_norm", bias_constraint="non_neg")], FLAT, Y, {"shape": (3,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_layers(name):
    inner, x, y, options = CHAINS[name]
    if name == "stateful":

        def make():
            model = models.Sequential([layers.Input(batch_shape=(5, 4, 3)), *(one() for one in inner)])
            model.compile("adam", "mse")
            return model

        ours, reports = trained(make, x, y, "cpu")
        theirs, found = trained(make, x, y, "cuda:0")
        np.testing.assert_allclose(found, reports, rtol=1e-10)
        for a, b in zip(ours.layers[0].states, theirs.layers[0].states, strict=True):
            np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-10)
        return
    assert_same_training(sequential(*inner, **options), x, y)


def masked_classifier():
    ids = layers.Input((4,), dtype="int64")
    h = layers.Embedding(7, 3, mask_zero=True)(ids)
    h = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(h)
    h = layers.BatchNormalization()(h)
    attended = layers.Attention()([h, h])
    h = layers.GRU(3)(layers.Concatenate()([h, attended]))
    model = models.Model(ids, layers.Dense(3, activation="softmax")(h))
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("weights", [None, RNG.uniform(0, 2, 5)], ids=["", "weights of samples"])
def test_functional_model_with_masks(weights):
    assert_same_training(masked_classifier, IDS, LABELS, weights)


def test_several_inputs_and_outputs():
    def make():
        a, b = layers.Input((4, 3), name="a"), layers.Input((3,), name="b")
        h = layers.LSTM(3)(a, initial_state=[b, b])
        model = models.Model([a, b], [layers.Dense(2, name="one")(h), layers.Dense(1, name="two")(h)])
        model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 0.3], metrics={"one": ["mae"]})
        return model

    _, reports = trained(make, [X, FLAT], [Y, Y[:, :1]], "cpu")
    model, found = trained(make, [X, FLAT], [Y, Y[:, :1]], "cuda:0")
    np.testing.assert_allclose(found, reports, rtol=1e-10)
    assert all(isinstance(v.newest, fake_cupy.ndarray) for v in model.trainable_variables)


# ---------------------------------------------------------------------------------------------- optimizers, losses


OPTIMIZERS = {
    **{name: functools.partial(getattr(optimizers, name), 0.1) for name in (
        "SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Nadam", "Ftrl", "Lion", "Lamb",
        "Adafactor",
    )},
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "centered": lambda: optimizers.RMSprop(0.1, momentum=0.9, centered=True),
    "amsgrad": lambda: optimizers.Adam(0.1, amsgrad=True),
    "clipnorm": lambda: optimizers.Adam(0.1, clipnorm=0.1),
    "clipvalue": lambda: optimizers.SGD(0.1, clipvalue=0.01),
    "global_clipnorm": lambda: optimizers.SGD(0.1, global_clipnorm=0.1),
    "weight_decay": lambda: optimizers.Adam(0.1, weight_decay=0.1),
    "averages": lambda: optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2),
    "accumulation": lambda: optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "loss_scale_factor": lambda: optimizers.Adam(0.1, loss_scale_factor=8.0),
    "schedule": lambda: optimizers.SGD(optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)),
}  # fmt: skip


class OwnMomentum(optimizers.Optimizer):
    def build(self, variables):
        super().build(variables)
        self.moving = self.add_optimizer_variables(variables, "moving")

    def update_step(self, gradient, variable, learning_rate):
        moving = self.moving[self._get_variable_index(variable)]
        self.assign(moving, 0.5 * moving - learning_rate * np.sign(gradient))
        self.assign_add(variable, moving)


OPTIMIZERS["of a user"] = lambda: OwnMomentum(0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    make = sequential(dense(4, activation="sigmoid"), dense(2), shape=(3,), optimizer=OPTIMIZERS[name])
    model = assert_same_training(make, FLAT, Y)
    model.optimizer.finalize_variable_values(model.trainable_variables)


POSITIVE, TRUTH = RNG.uniform(0, 1, (5, 2)), RNG.integers(0, 2, (5, 2)).astype(float)
HOT = np.eye(3)[LABELS]
LOSSES = {
    **{name: (name, Y, 2, None) for name in ("mse", "mae", "huber", "log_cosh", "cosine_similarity", "hinge")},
    **{name: (name, POSITIVE, 2, "softplus") for name in ("mape", "msle", "poisson", "kl_divergence")},
    **{name: (name, TRUTH, 2, "sigmoid") for name in (
        "binary_crossentropy", "binary_focal_crossentropy", "squared_hinge", "categorical_hinge", "dice", "tversky",
    )},
    "from logits": (losses.BinaryCrossentropy(from_logits=True), TRUTH, 2, None),
    "classes": ("categorical_crossentropy", HOT, 3, "softmax"),
    "classes from logits": (losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), HOT, 3, None),
    "labels": (losses.SparseCategoricalCrossentropy(ignore_class=1), LABELS, 3, "softmax"),
    "labels from logits": (losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=2), LABELS, 3, None),
    "focal": (losses.CategoricalFocalCrossentropy(alpha=[0.1, 0.2, 0.3]), HOT, 3, "softmax"),
    "of a user": (lambda t, p: ops.mean(np.abs(t - p) ** 3, axis=-1), Y, 2, None),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weights", [None, RNG.uniform(0, 2, 5)], ids=["", "weights of samples"])
def test_losses(name, weights):
    loss, y, units, activation = LOSSES[name]
    if name in ("dice", "tversky"):  # one number for the whole batch
        weights = None
    make = sequential(dense(units, activation=activation), shape=(3,), loss=loss, optimizer="sgd")
    assert_same_training(make, FLAT, y, weights)


def test_a_label_that_is_no_class_is_named():
    make = sequential(dense(3), shape=(3,), loss=losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match=r"must lie in \[0, 3\).*Received: label 7"):
        trained(make, FLAT, np.array([0, 1, 7, 2, 0]), "cuda:0")


def test_an_id_outside_of_the_table_is_named():
    make = sequential(lambda: layers.Embedding(5, 2), lambda: layers.LSTM(2), shape=(4,))
    ids = IDS % 5
    ids[3, 1] = 9
    with pytest.raises(IndexError, match=r"Received id 9 at position \(3, 1\)"):
        trained(make, ids, Y, "cuda:0")


@pytest.mark.parametrize(
    ("found", "y", "units", "activation"),
    [
        (lambda: ["mae", "mse", "cosine_similarity", metrics.RootMeanSquaredError()], Y, 2, None),
        (lambda: ["accuracy", "binary_crossentropy"], TRUTH, 2, "sigmoid"),
        (lambda: ["accuracy", "categorical_crossentropy", metrics.TopKCategoricalAccuracy(2)], HOT, 3, "softmax"),
        (lambda: ["accuracy", metrics.SparseTopKCategoricalAccuracy(2)], LABELS, 3, "softmax"),
        (lambda: [lambda t, p: np.abs(t - p).max(axis=-1)], Y, 2, None),
    ],
    ids=["regression", "yes or no", "classes", "labels", "of a user"],
)
def test_metrics_stay_on_the_gpu(found, y, units, activation, gpu):
    loss = "sparse_categorical_crossentropy" if y is LABELS else "mse"

    def make():  # metrics are objects with a state: each model has its own
        options = {"metrics": found(), "weighted_metrics": found()[:1]}
        return sequential(dense(units, activation=activation), shape=(3,), loss=loss, **options)()

    _, reports = trained(make, FLAT, y, "cpu", np.arange(5.0))
    model, theirs = trained(make, FLAT, y, "cuda:0", np.arange(5.0))
    np.testing.assert_allclose(theirs, reports, rtol=1e-10)
    gpu.clear()
    with numbarnn.device("cuda:0"):
        model.train_on_batch(FLAT, y, sample_weight=np.arange(5.0))
    assert {move.shape for move in gpu if move.way == "out"} == {()}


def test_metrics_that_count_get_the_predictions_of_a_batch_once(gpu):
    def make():
        found = [metrics.AUC(), metrics.Precision(), metrics.F1Score(average="macro", threshold=0.5), metrics.R2Score()]
        return sequential(dense(2, activation="sigmoid"), shape=(3,), loss="binary_crossentropy", metrics=found)()

    _, reports = trained(make, FLAT, TRUTH, "cpu")
    model, theirs = trained(make, FLAT, TRUTH, "cuda:0")
    np.testing.assert_allclose(theirs, reports, rtol=1e-10)
    gpu.clear()
    with numbarnn.device("cuda:0"):
        model.train_on_batch(FLAT, TRUTH)
    assert [move.shape for move in gpu if move.way == "out" and move.shape] == [(5, 2), (5, 2)]


# --------------------------------------------------------------------------------------------- what moves, and where


@pytest.mark.parametrize("name", ["lstm", "cell in operations, masked", "normalization", "penalties and constraints"])
def test_a_step_moves_the_batch_in_and_numbers_out(name, gpu):
    inner, x, y, options = CHAINS[name]
    model = sequential(*inner, metrics=["mae"], **options)()
    with numbarnn.device("cuda:0"):
        for _ in range(2):
            model.train_on_batch(x, y)
        gpu.clear()
        model.train_on_batch(x, y)
        assert [move.shape for move in gpu if move.way == "in"] == [x.shape, y.shape]
        assert [move.shape for move in gpu if move.way == "out"] == [(), ()]  # the loss, and the sum of the metric
        gpu.clear()
        model.fit(x, y, epochs=2, batch_size=5, verbose=0, shuffle=False)
        assert [move.shape for move in gpu if move.shape] == [x.shape, y.shape] * 2
        model.predict(x, verbose=0)  # which is recorded
        gpu.clear()
        assert model.predict(x, verbose=0).shape == y.shape
        assert [tuple(move) for move in gpu if move.shape] == [("in", x.shape), ("out", y.shape)]


def test_dropout_has_the_bits_of_the_cpu():
    make = sequential(lambda: layers.Dropout(0.5), dense(2), shape=(3,))
    a, b = trained(make, FLAT, Y, "cpu")[1], trained(make, FLAT, Y, "cuda:0")[1]
    np.testing.assert_allclose(a, b, rtol=1e-14)


def test_fit_goes_to_and_fro_between_devices():
    """Training goes on on the other device where it stopped on the first, weights and optimizer and all."""
    make = sequential(lambda: layers.LSTM(4), dense(2), optimizer=lambda: optimizers.Adam(0.05))
    results = []
    for devices in (["cpu"] * 4, ["cuda:0", "cpu", "cuda:0", "cuda:0"], ["cpu", "cuda:0", "cpu", "cuda:0"]):
        set_random_seed(1)
        model = make()
        for device in devices:
            with numbarnn.device(device):
                model.fit(X, Y, epochs=1, batch_size=2, verbose=0)
        results.append([*model.get_weights(), model.predict(X, verbose=0)])
    for found in results[1:]:
        for a, b in zip(results[0], found, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11)


def test_weights_assigned_in_the_midst_of_training_are_used():
    make = sequential(lambda: layers.GRU(3), dense(2))
    results = []
    for device in ("cpu", "cuda:0"):
        set_random_seed(1)
        model = make()
        with numbarnn.device(device):
            model.train_on_batch(X, Y)
            model.layers[0].set_weights([w * 0.5 for w in model.layers[0].get_weights()])
            model.optimizer.learning_rate = 0.1
            model.train_on_batch(X, Y)
            model.layers[1].bias.assign_add(np.ones(2))
            results.append([model.train_on_batch(X, Y), *model.get_weights()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_saved_in_the_midst_of_fit_and_loaded_on_the_cpu(tmp_path):
    model = sequential(lambda: layers.LSTM(3), dense(2))()
    path = tmp_path / "model.numbarnn"
    with numbarnn.device("cuda:0"):
        model.fit(X, Y, epochs=2, verbose=0, callbacks=[callbacks.ModelCheckpoint(path)])
        there = model.predict(X, verbose=0)
    loaded = models.load_model(path)
    np.testing.assert_allclose(loaded.predict(X, verbose=0), there, rtol=1e-12)
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_callbacks_see_the_weights():
    seen = []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append((self.model.get_weights(), logs["loss"]))

    results = []
    for device in ("cpu", "cuda:0"):
        seen.clear()
        set_random_seed(1)
        model = sequential(dense(2), shape=(3,))()
        with numbarnn.device(device):
            model.fit(FLAT, Y, batch_size=2, epochs=2, verbose=0, validation_split=0.2, callbacks=[Watch()])
        results.append([x for weights, loss in seen for x in (*weights, loss)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_a_step_that_fails_leaves_the_model_as_it_was():
    def make():
        model = models.Sequential(
            [layers.Input((3,)), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(2)]
        )

        def failing(t, p):
            if failing.now:
                raise ZeroDivisionError
            return np.abs(t - p).mean(axis=-1)

        failing.now = False
        model.compile("adam", "mse", metrics=[failing])
        return model, failing

    model, failing = make()
    with numbarnn.device("cuda:0"):
        model.train_on_batch(FLAT, Y)
        before = [v.numpy() for v in model.variables]
        failing.now = True
        with pytest.raises(ZeroDivisionError):
            model.train_on_batch(FLAT, Y)
    for a, v in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(v.numpy(), a, err_msg=v.path)


def test_sequences_of_different_lengths():
    rows = [RNG.standard_normal((n, 3)) for n in (2, 4, 1, 3, 4)]
    targets = [RNG.standard_normal((len(row), 2)) for row in rows]
    results = []
    for device in ("cpu", "cuda:0"):
        set_random_seed(1)
        model = models.Sequential([layers.Input((None, 3)), layers.LSTM(3, return_sequences=True), layers.Dense(2)])
        model.compile("adam", "mse", metrics=["mae"])
        with numbarnn.device(device):
            history = model.fit(Ragged(rows), Ragged(targets), epochs=2, batch_size=3, verbose=0).history
            results.append([*history["loss"], *history["mae"], *model.predict(Ragged(rows), verbose=0)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_truncated_back_propagation():
    results = []
    for device in ("cpu", "cuda:0"):
        set_random_seed(1)
        model = sequential(lambda: layers.LSTM(3, return_sequences=True), dense(2))()
        with numbarnn.device(device):
            model.fit(X, np.repeat(Y[:, None], 4, 1), epochs=2, batch_size=5, verbose=0, bptt_steps=2)
        results.append(model.get_weights())
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-10, atol=1e-12)


def test_float32():
    numbarnn.backend.set_floatx("float32")
    make = sequential(lambda: layers.LSTM(4), lambda: layers.BatchNormalization(), dense(2))
    assert_same_training(make, X.astype("float32"), Y.astype("float32"), tolerance=2e-5)


def test_a_loss_that_is_not_finite_is_looked_into():
    messages = []
    for device in ("cpu", "cuda:0"):
        set_random_seed(1)
        numbarnn.backend.clear_session()
        model = sequential(dense(2, name="first"), lambda: layers.Activation(ops.log, name="logs"), shape=(3,))()
        with (
            np.errstate(all="ignore"),
            numbarnn.device(device),
            pytest.warns(RuntimeWarning, match="is not finite") as caught,
        ):
            model.fit(FLAT, Y, verbose=0, shuffle=False)
        messages.append(str(caught[0].message))
    assert messages[1] == messages[0]
    assert "logs" in messages[0]


def test_a_layer_called_on_an_array_returns_one():
    for layer in (layers.LSTM(3), layers.Dense(3), layers.RNN(Minimal(3))):
        expected = layer(X)
        with numbarnn.device("cuda:0"):
            found = layer(X)
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_steps_of_a_users_own():
    class Own(models.Model):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = layers.LSTM(3), layers.Dense(2)

        def call(self, x):
            return self.head(self.lstm(x))

        def train_step(self, data):
            x, y = data

            def loss_of(x, y):
                y_pred = self(x, training=True)
                return self.compute_loss(y=y, y_pred=y_pred), y_pred

            (loss, y_pred), gradients = numbarnn.value_and_grad(loss_of, self)(x, y)
            assert all(type(g) is np.ndarray for g in (y_pred, *gradients))
            self.optimizer.apply(gradients)
            return {"loss": loss, **self.compute_metrics(x, y, y_pred)}

    def make():
        model = Own()
        model.compile("adam", "mse", metrics=["mae"])
        return model

    assert_same_training(make, X, Y)
