"""`compile`, `fit`, `evaluate`, `predict`: against naive training in NumPy, and what they promise."""

import pickle
import subprocess
import sys

import numpy as np
import pytest

import numbarnn.random
from numbarnn import backend, callbacks, layers, losses, metrics, models, ops, optimizers, regularizers
from numbarnn.utils import set_random_seed
from numbarnn.variable import Variable


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()
    set_random_seed(1)


def linear(classes=3, features=4, **compiled):
    model = models.Sequential([layers.Input((features,)), layers.Dense(classes)])
    options = {"loss": losses.SparseCategoricalCrossentropy(from_logits=True), "metrics": ["accuracy"], **compiled}
    model.compile(options.pop("optimizer", optimizers.SGD(0.1)), **options)
    return model


def data(rng, n=50, features=4, classes=3):
    x = rng.normal(size=(n, features)).astype("float32")
    return x, (x @ rng.normal(size=(features, classes))).argmax(-1)


def naive_step(w, b, x, y, rate):
    z = x @ w + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    hits = (z.argmax(1) == y).mean()
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return w - rate * (x.T @ p), b - rate * p.sum(0), loss, hits


# ------------------------------------------------------------------------------------------------ values


def test_fit_is_gradient_descent(rng):
    x, y = data(rng)
    model = linear()
    w, b = (v.astype("float64") for v in model.get_weights())
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    for epoch in range(3):
        total = hits = 0.0
        for start in range(0, 50, 16):
            xs, ys = x[start : start + 16], y[start : start + 16]
            w, b, loss, right = naive_step(w, b, xs, ys, 0.1)
            total += loss * len(ys)
            hits += right * len(ys)
        assert history.history["loss"][epoch] == pytest.approx(total / 50, rel=1e-5)
        assert history.history["accuracy"][epoch] == pytest.approx(hits / 50)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-4, atol=1e-6)
    assert history.epoch == [0, 1, 2] and model.history is history
    assert int(model.optimizer.iterations) == 12


def test_evaluate_and_predict(rng):
    x, y = data(rng)
    model = linear()
    z = model.predict(x, batch_size=7, verbose=0)
    w, b = model.get_weights()
    np.testing.assert_allclose(z, x @ w + b, rtol=1e-5, atol=1e-6)
    _, _, loss, hits = naive_step(w, b, x, y, 0)
    assert model.evaluate(x, y, batch_size=7, verbose=0) == pytest.approx([loss, hits], rel=1e-5)
    assert model.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(
        {"loss": loss, "accuracy": hits}, rel=1e-5
    )
    assert model.test_on_batch(x, y) == pytest.approx([loss, hits], rel=1e-5)
    assert model.train_on_batch(x, y, return_dict=True) == pytest.approx({"loss": loss, "accuracy": hits}, rel=1e-5)
    assert model.metrics_names == ["loss", "accuracy"]
    alone = linear(metrics=None)
    assert isinstance(alone.evaluate(x, y, verbose=0), float) and isinstance(alone.train_on_batch(x, y), float)


def test_gradients_of_a_whole_model_by_differences(rng):
    """Embedding, LSTM, BatchNormalization and Dense, float64: one SGD step against central differences of the loss."""
    set_random_seed(3)
    options = {"dtype": "float64"}
    model = models.Sequential(
        [
            layers.Embedding(7, 3, mask_zero=True, **options),
            layers.LSTM(4, kernel_regularizer=regularizers.L2(0.1), **options),
            layers.Dense(5, activation="tanh", **options),
            layers.Dense(2, **options),
        ]
    )
    ids = rng.integers(1, 7, size=(3, 5))
    ids[0, 3:] = 0
    y, w = rng.integers(0, 2, size=3), np.array([1.0, 0.5, 2.0])
    model.compile(optimizers.SGD(1.0), losses.SparseCategoricalCrossentropy(from_logits=True))
    before = model.get_weights()
    model.train_on_batch(ids, y, sample_weight=w)
    gradients = [a - b for a, b in zip(before, model.get_weights(), strict=True)]

    def value(weights):
        model.set_weights(weights)
        return model.test_on_batch(ids, y, sample_weight=w)

    for _ in range(4):
        direction = [rng.normal(size=a.shape) for a in before]
        step = 1e-6
        up = value([a + step * d for a, d in zip(before, direction, strict=True)])
        down = value([a - step * d for a, d in zip(before, direction, strict=True)])
        slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))
        assert (up - down) / (2 * step) == pytest.approx(slope, rel=1e-6)


def test_penalties_join_the_loss(rng):
    x, y = data(rng, 8)
    model = models.Sequential(
        [
            layers.Dense(
                3, kernel_regularizer=regularizers.L2(0.5), activity_regularizer=regularizers.L1(0.1), input_shape=(4,)
            ),
        ]
    )
    model.compile(optimizers.SGD(0.0), "mse")
    target = rng.normal(size=(8, 3)).astype("float32")
    z = model.predict(x, verbose=0)
    (w, _) = model.get_weights()
    expected = ((z - target) ** 2).mean() + 0.5 * (w**2).sum() + 0.1 * np.abs(z).sum() / 8
    assert model.train_on_batch(x, target) == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(x, target, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert all(isinstance(value, np.ndarray | np.generic) for value in model.losses)

    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(ops.sum(x))
            return x

    model = models.Sequential([layers.Input((4,)), Penalty()])
    model.compile("sgd")
    assert model.train_on_batch(x) == pytest.approx(x.sum(), rel=1e-5, abs=1e-5)


def test_masks_and_weights_in_loss_and_metrics(rng):
    model = models.Sequential([layers.Embedding(9, 3, mask_zero=True), layers.Dense(4)])
    model.compile(
        "sgd", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"], weighted_metrics=["acc"]
    )
    ids = rng.integers(0, 9, size=(6, 5))
    ids[0] = 0
    y, w = rng.integers(0, 4, size=(6, 5)), rng.uniform(size=6)
    z, valid = model.predict(ids, verbose=0).astype("float64"), ids != 0
    each = losses.sparse_categorical_crossentropy(y, z, from_logits=True)
    hits = z.argmax(-1) == y
    spread = np.repeat(w[:, None], 5, 1)
    found = model.test_on_batch(ids, y, sample_weight=w)
    expected = [
        (each * spread)[valid].sum() / valid.sum(),
        hits[valid].mean(),
        (hits * spread)[valid].sum() / spread[valid].sum(),
    ]
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.metrics_names == ["loss", "accuracy", "acc"]
    per_step = rng.uniform(size=(6, 5))
    assert model.test_on_batch(ids, y, sample_weight=per_step)[0] == pytest.approx(
        (each * per_step)[valid].sum() / valid.sum(), rel=1e-5
    )
    nothing = model.train_on_batch(np.zeros((2, 5), int), y[:2])
    assert nothing == [0.0, 0.0, 0.0]


def test_validation(rng):
    x, y = data(rng, 50)
    model = linear(optimizer=optimizers.SGD(0.0))
    expected = model.evaluate(x[40:], y[40:], verbose=0)
    history = model.fit(x, y, validation_split=0.2, epochs=2, verbose=0).history
    assert list(history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert [history["val_loss"][0], history["val_accuracy"][0]] == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] == pytest.approx(model.evaluate(x[:40], y[:40], verbose=0)[0], rel=1e-5)
    given = model.fit(
        x, y, validation_data=(x[:9], y[:9]), validation_split=0.9, verbose=0, validation_batch_size=4
    ).history
    assert given["val_loss"] == pytest.approx([model.evaluate(x[:9], y[:9], verbose=0)[0]], rel=1e-5)
    w = rng.uniform(size=9)
    given = model.fit(x, y, validation_data=(x[:9], y[:9], w), verbose=0).history
    assert given["val_loss"] == pytest.approx([model.evaluate(x[:9], y[:9], sample_weight=w, verbose=0)[0]], rel=1e-5)
    rare = model.fit(x, y, validation_split=0.2, epochs=4, validation_freq=2, verbose=0).history
    assert len(rare["loss"]) == 4 and len(rare["val_loss"]) == 2
    with pytest.raises(ValueError, match="not sufficient to split"):
        model.fit(x[:1], y[:1], validation_split=0.5, verbose=0)


# ------------------------------------------------------------------------------------------------ repeatable


def network():
    return models.Sequential(
        [
            layers.Embedding(11, 4, mask_zero=True),
            layers.LSTM(5, dropout=0.3, recurrent_dropout=0.2),
            layers.BatchNormalization(),
            layers.Dropout(0.4),
            layers.Dense(3),
        ]
    )


def run(threads=None):
    from numbarnn import jit

    if threads:
        jit.set_num_threads(threads)
    set_random_seed(7)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 11, size=(30, 6)), rng.integers(0, 3, size=30)
    model = network()
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    return history.history, model.get_weights()


def test_a_seed_makes_a_run_repeat_bit_for_bit():
    first, second = run(), run()
    assert first[0] == second[0]
    for a, b in zip(first[1], second[1], strict=True):
        np.testing.assert_array_equal(a, b)
    for threads in (1, 3):
        again = run(threads)
        assert first[0] == again[0]
        for a, b in zip(first[1], again[1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_shuffling(rng):
    seen = []

    class Spy(layers.Layer):
        def call(self, x):
            return x

    x = np.arange(10, dtype="float32")[:, None]
    model = models.Sequential([layers.Input((1,)), Spy()])

    def watch(y_true, y_pred):
        seen.append(y_pred[:, 0].copy())
        return y_pred[:, 0]

    model.compile("sgd", "mse", metrics=[watch])

    def epoch(**kwargs):
        seen.clear()
        model.fit(x, x, batch_size=4, verbose=0, **kwargs)
        return np.concatenate(seen)

    np.testing.assert_array_equal(epoch(shuffle=False), np.arange(10))
    first, second = epoch(), epoch()
    assert (first != second).any()
    np.testing.assert_array_equal(np.sort(first), np.arange(10))
    batches = epoch(shuffle="batch")
    assert (batches != np.arange(10)).any()
    np.testing.assert_array_equal(batches // 4, np.arange(10) // 4)
    set_random_seed(5)
    third = epoch()
    set_random_seed(5)
    np.testing.assert_array_equal(epoch(), third)


# ------------------------------------------------------------------------------------------------ callbacks, progress


def test_order_of_callbacks(rng):
    x, y = data(rng, 6)
    calls = []

    class Log(callbacks.Callback):
        pass

    for hook in callbacks.callback_list._HOOKS:

        def method(self, *args, hook=hook):
            calls.append((hook, *[a for a in args if isinstance(a, int)]))

        setattr(Log, hook, method)

    model = linear()
    spy = Log()
    model.fit(x, y, batch_size=3, epochs=2, validation_data=(x, y), validation_batch_size=6, verbose=0, callbacks=[spy])
    epoch = [
        ("on_train_batch_begin", 0),
        ("on_train_batch_end", 0),
        ("on_train_batch_begin", 1),
        ("on_train_batch_end", 1),
        ("on_test_begin",),
        ("on_test_batch_begin", 0),
        ("on_test_batch_end", 0),
        ("on_test_end",),
    ]
    expected = [("on_train_begin",)]
    for i in range(2):
        expected += [("on_epoch_begin", i), *epoch, ("on_epoch_end", i)]
    assert calls == [*expected, ("on_train_end",)]
    assert spy.model is model and spy.params == {"verbose": 0, "epochs": 2, "steps": 2}
    calls.clear()
    model.predict(x, batch_size=3, verbose=0, callbacks=[spy])
    assert [c[0] for c in calls] == [
        "on_predict_begin",
        *["on_predict_batch_begin", "on_predict_batch_end"] * 2,
        "on_predict_end",
    ]


def test_callbacks_see_logs_and_stop(rng):
    x, y = data(rng)
    seen = []

    class Stop(callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(dict(logs))

        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs))
            self.model.stop_training = epoch == 3

    model = linear()
    history = model.fit(x, y, batch_size=25, epochs=10, initial_epoch=2, verbose=0, callbacks=Stop())
    assert history.epoch == [2, 3] and len(seen) == 6
    assert set(seen[0]) == set(seen[2]) == {"loss", "accuracy"}
    assert seen[1] == seen[2] and seen[2]["loss"] == history.history["loss"][0]
    with pytest.raises(TypeError, match="callbacks"):
        model.fit(x, y, verbose=0, callbacks=[3])


@pytest.mark.parametrize("verbose", [1, 2])
def test_progress_is_shown(rng, capsys, verbose):
    x, y = data(rng)
    linear().fit(x, y, epochs=2, verbose=verbose, validation_split=0.2)
    text = capsys.readouterr().out
    assert "Epoch 1/2" in text and "Epoch 2/2" in text and "2/2" in text
    assert "/step" in text and "loss: " in text and "val_accuracy: " in text
    linear().fit(x, y, verbose=0)
    assert capsys.readouterr().out == ""


def test_numbers_are_shown_as_keras_does():
    assert callbacks.progress.format_value(0.12345) == "0.1235"
    assert callbacks.progress.format_value(1.2345e-4) == "1.2345e-04"
    assert callbacks.progress.format_duration(12.3, 1000) == "12s 12ms/step"
    assert callbacks.progress.format_duration(0.5, 1000) == "0s 500us/step"


# ------------------------------------------------------------------------------------------------ what may be passed


def test_data_of_other_types(rng):
    x, y = data(rng, 12)
    model = linear()
    expected = model.test_on_batch(x, y)
    for other in (x.astype("float64"), x.tolist(), x.astype("float64")[:, ::-1][:, ::-1]):
        np.testing.assert_allclose(model.test_on_batch(other, y.tolist()), expected, rtol=1e-6)
    for labels in (y.astype("uint8"), y.astype("int32"), y[:, None], y.astype("float32")):
        np.testing.assert_allclose(model.test_on_batch(x, labels), expected, rtol=1e-6)
    assert model.predict(x.astype("float64"), verbose=0).dtype == "float32"
    assert model.predict(np.ones((3, 4), int), verbose=0).dtype == "float32"


def test_crossentropy_and_accuracy_by_name(rng):
    x, y = data(rng, 12)
    model = models.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
    p = model.predict(x, verbose=0)
    for loss, target in (
        ("sparse_categorical_crossentropy", y),
        ("categorical_crossentropy", np.eye(3)[y]),
        ("crossentropy", y),
        ("ce", np.eye(3)[y]),
    ):
        model.compile("sgd", loss, metrics=["accuracy"])
        found = model.test_on_batch(x, target)
        assert found == pytest.approx([-np.log(p[np.arange(12), y]).mean(), (p.argmax(1) == y).mean()], rel=1e-5)


def test_several_metrics_of_one_name(rng):
    x, y = data(rng, 12)
    model = linear(metrics=["accuracy", "acc", "accuracy", metrics.SparseCategoricalAccuracy()])
    model.test_on_batch(x, y)
    assert model.metrics_names == ["loss", "accuracy", "acc", "accuracy_1", "sparse_categorical_accuracy"]
    model = linear(metrics=["accuracy"], weighted_metrics=["accuracy"])
    model.test_on_batch(x, y)
    assert model.metrics_names == ["loss", "accuracy", "weighted_accuracy"]


def test_a_model_of_ones_own_with_two_outputs(rng):
    class Two(models.Model):
        def __init__(self):
            super().__init__()
            self.body = layers.Dense(5, activation="tanh")
            self.heads = [layers.Dense(3), layers.Dense(1)]

        def call(self, x):
            h = self.body(x)
            return [head(h) for head in self.heads]

    x, y = data(rng, 12)
    target = rng.normal(size=(12, 1)).astype("float32")
    model = Two()
    model.compile(
        "adam",
        [losses.SparseCategoricalCrossentropy(from_logits=True), "mse"],
        loss_weights=[1.0, 2.0],
        metrics=[["accuracy"], ["mae"]],
    )
    history = model.fit(x, [y, target], epochs=2, verbose=0).history
    assert list(history) == ["loss", "output_1_loss", "output_2_loss", "output_1_accuracy", "output_2_mae"]
    assert history["loss"][0] == pytest.approx(history["output_1_loss"][0] + 2 * history["output_2_loss"][0], rel=1e-5)
    outputs = model.predict(x, batch_size=5, verbose=0)
    assert [o.shape for o in outputs] == [(12, 3), (12, 1)]
    assert len(model.trainable_variables) == 6 and model.name == "two"
    with pytest.raises(ValueError, match="one array for each of 2 outputs"):
        model.fit(x, y, verbose=0)


def test_two_inputs(rng):
    class Sum(models.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs["a"] + inputs["b"])

    inputs = {"a": rng.normal(size=(9, 3)).astype("float32"), "b": rng.normal(size=(9, 3)).astype("float32")}
    model = Sum()
    model.compile("sgd", "mse")
    assert model.fit(inputs, np.zeros((9, 2)), batch_size=4, epochs=3, verbose=0).history["loss"][2] > 0
    w, b = model.get_weights()
    np.testing.assert_allclose(
        model.predict(inputs, verbose=0), (inputs["a"] + inputs["b"]) @ w + b, rtol=1e-5, atol=1e-6
    )


def test_sequences_of_several_lengths(rng):
    model = network()
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True))
    for t in (3, 5, 3, 1):
        model.train_on_batch(rng.integers(0, 11, size=(4, t)), rng.integers(0, 3, size=4))
    assert int(model.optimizer.iterations) == 4


# ------------------------------------------------------------------------------------------ programs and structure


def test_a_signature_is_traced_once(rng):
    calls = []

    class Count(layers.Layer):
        def call(self, x):
            calls.append(type(x))
            return x * 1.0

    x, y = data(rng, 12)
    model = models.Sequential([layers.Input((4,)), Count(), layers.Dense(3)])
    calls.clear()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    for _ in range(3):
        model.fit(x, y, batch_size=5, epochs=2, verbose=0)
    assert len(calls) == 2  # 12 = 5 + 5 + 2
    model.optimizer.learning_rate = 0.5
    model.stop_training = False
    model.train_on_batch(x[:5], y[:5])
    assert len(calls) == 2
    model.layers[0].factor = 2.0  # an attribute of a layer: the program may be stale
    model.train_on_batch(x[:5], y[:5])
    assert len(calls) == 3
    model.run_eagerly = True
    model.train_on_batch(x[:5], y[:5])
    model.train_on_batch(x[:5], y[:5])
    assert len(calls) == 5
    model.predict(x, verbose=0)
    assert calls[-1] is np.ndarray


def test_trainable_is_obeyed(rng):
    x, y = data(rng, 12)
    model = models.Sequential([layers.Input((4,)), layers.Dense(5), layers.Dense(3)])
    model.compile(optimizers.SGD(0.1, momentum=0.9), losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(x, y)
    model.layers[0].trainable = False
    before = model.get_weights()
    model.train_on_batch(x, y)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert (before[2] != after[2]).any()
    model.layers[0].trainable = True
    model.train_on_batch(x, y)
    assert (model.get_weights()[0] != after[0]).any()


def test_trainable_of_a_variable_is_obeyed(rng):
    x, y = data(rng, 12)
    model = linear()
    model.train_on_batch(x, y)
    model.layers[0].kernel.trainable = False
    before = model.get_weights()
    model.train_on_batch(x, y)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])
    assert (before[1] != model.get_weights()[1]).any()
    model.layers[0].kernel.trainable = True
    model.train_on_batch(x, y)
    assert (before[0] != model.get_weights()[0]).any()


def test_regularizer_of_a_variable_is_obeyed(rng):
    x, y = data(rng, 12)
    model = linear(metrics=None)
    plain = model.test_on_batch(x, y)
    model.layers[0].kernel.regularizer = regularizers.L2(0.5)
    penalty = 0.5 * np.square(model.get_weights()[0]).sum()
    np.testing.assert_allclose(model.test_on_batch(x, y), plain + penalty, rtol=1e-5)


@pytest.mark.parametrize("changes", range(4))
def test_a_layer_put_in_the_place_of_another_is_used(rng, changes):
    class Wrapped(models.Model):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def call(self, inputs):
            return self.head(inputs)

    x, _ = data(rng, 5)
    first, second = layers.Dense(2), layers.Dense(2)
    second(x)
    first(x)
    for i in range(changes):  # so that counting changes would give the same number for both
        first.note = [i]
    model = Wrapped(first)
    model.predict(x, verbose=0)
    model.head = second
    np.testing.assert_array_equal(model.predict(x, verbose=0), second(x))


def test_a_layer_appended_to_a_list_is_used(rng):
    class Stack(models.Model):
        def __init__(self):
            super().__init__()
            self.stack = [layers.Dense(2)]

        def call(self, inputs):
            for layer in self.stack:
                inputs = layer(inputs)
            return inputs

    x, _ = data(rng, 5)
    model = Stack()
    assert model.predict(x, verbose=0).shape == (5, 2)
    model.stack.append(layers.Dense(7))
    assert model.predict(x, verbose=0).shape == (5, 7)


def test_changes_are_noticed_in_a_process_younger_than_the_model(rng):
    """A pickled model brings no times along that lie in the future of the process that loads it."""
    x, _ = data(rng, 4)
    model = linear()
    script = (
        "import pickle, sys\n"
        "from numbarnn import activations\n"
        "model, x = pickle.load(sys.stdin.buffer)\n"
        "before = model.predict(x, verbose=0)\n"
        "model.layers[0].activation = activations.get('relu')\n"
        "assert before.min() < 0 and model.predict(x, verbose=0).min() >= 0\n"
    )
    for _ in range(2000):
        layers.Dense(1)
    model.note = "changed when thousands of changes had been counted"
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps((model, x)), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("frequency", [0, -1, 1.5, "2"])
def test_validation_freq_is_checked(rng, frequency):
    x, y = data(rng, 12)
    with pytest.raises(ValueError, match="`validation_freq` must be"):
        linear().fit(x, y, validation_data=(x, y), validation_freq=frequency, verbose=0)


def test_batch_normalization_moves_and_is_still_in_inference(rng):
    model = models.Sequential([layers.Input((3,)), layers.BatchNormalization(momentum=0.5)])
    model.compile(optimizers.SGD(0.0), "mse")
    x = (rng.normal(size=(64, 3)) * 3 + 5).astype("float32")
    model.train_on_batch(x, x)
    _, _, mean, variance = model.get_weights()
    np.testing.assert_allclose(mean, 0.5 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(variance, 0.5 + 0.5 * x.var(0), rtol=1e-4)
    model.evaluate(x, x, verbose=0)
    model.predict(x, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[2], mean)


def test_dropout_is_drawn_anew_each_step_and_off_in_inference():
    model = models.Sequential([layers.Input((100,)), layers.Dropout(0.5)])
    seen = []

    def watch(y_true, y_pred):
        seen.append((y_pred == 0).mean())
        seen.append(y_pred.copy())
        return y_pred[:, 0]

    model.compile("sgd", "mse", metrics=[watch])
    x = np.ones((20, 100), "float32")
    model.train_on_batch(x, x)
    model.train_on_batch(x, x)
    assert 0.45 < seen[0] < 0.55 and (seen[1] != seen[3]).any()
    model.test_on_batch(x, x)
    assert seen[4] == 0


def test_stateful_layers_go_on(rng):
    model = models.Sequential([layers.LSTM(3, stateful=True, batch_input_shape=(2, None, 4))])
    x = rng.normal(size=(2, 6, 4)).astype("float32")
    whole = model.predict(x, batch_size=2, verbose=0)
    model.reset_states()
    model.predict(x[:, :4], batch_size=2, verbose=0)
    np.testing.assert_array_equal(model.predict(x[:, 4:], batch_size=2, verbose=0), whole)


# ------------------------------------------------------------------------------------------------ errors


def test_errors_come_early(rng):
    x, y = data(rng, 12)
    model = models.Sequential([layers.Input((4,)), layers.Dense(3)])
    for call in (lambda: model.fit(x, y), lambda: model.evaluate(x, y), lambda: model.train_on_batch(x, y)):
        with pytest.raises(ValueError, match=r"You must call `compile\(\)` before using the model."):
            call()
    assert model.predict(x, verbose=0).shape == (12, 3)
    with pytest.raises(ValueError, match="Could not interpret optimizer identifier: foo"):
        model.compile("foo", "mse")
    with pytest.raises(ValueError, match="Could not interpret loss identifier: foo"):
        model.compile("sgd", "foo")
    with pytest.raises(ValueError, match="Could not interpret metric identifier: foo"):
        model.compile("sgd", "mse", metrics=["foo"])
    with pytest.raises(ValueError, match="Expected `metrics` argument to be a list, tuple, or dict"):
        model.compile("sgd", "mse", metrics="accuracy")
    assert not model.compiled
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Data cardinality is ambiguous"):
        model.fit(x, y[:5])
    with pytest.raises(ValueError, match="Data cardinality is ambiguous"):
        model.train_on_batch(x, y[:5])
    with pytest.raises(ValueError, match="expected axis -1"):
        model.fit(np.ones((5, 3)), np.ones((5, 3)))
    for bad in ({"epochs": 0}, {"batch_size": 0}, {"verbose": 5}, {"shuffle": "no"}, {"validation_data": x}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            model.fit(x, np.zeros((12, 3)), **bad)
    with pytest.raises(TypeError, match="must hold numbers"):
        model.fit(np.array(["a", "b"]), y[:2])
    model.compile("sgd")
    with pytest.raises(ValueError, match="No loss to compute"):
        model.train_on_batch(x, y)
    model.compile("sgd", losses.MeanSquaredError(reduction="none"))
    with pytest.raises(ValueError, match="must be a scalar"):
        model.train_on_batch(x, np.zeros((12, 3)))


def state_of(model):
    return [v.numpy() for v in model.variables], [v.numpy() for v in model.optimizer.variables]


@pytest.mark.parametrize("fault", ["label", "metric", "shape"])
def test_a_call_that_raises_leaves_the_model_unchanged(rng, fault):
    x, y = data(rng, 12)

    def faulty(y_true, y_pred):
        if faulty.armed:
            raise RuntimeError("on purpose")
        return y_pred[:, 0]

    faulty.armed = False
    model = models.Sequential([layers.Input((4,)), layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3)])
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[faulty])
    model.train_on_batch(x, y)
    before = state_of(model)
    faulty.armed = fault == "metric"
    bad = y.copy()
    bad[3] = 3
    with pytest.raises((ValueError, RuntimeError)):
        model.train_on_batch(x[:, :3] if fault == "shape" else x, bad if fault == "label" else y)
    for a, b in zip(before, state_of(model), strict=True):
        for old, new in zip(a, b, strict=True):
            np.testing.assert_array_equal(old, new)
    faulty.armed = False
    model.train_on_batch(x, y)


def test_inputs_are_never_written_to(rng):
    x, y = data(rng, 12)
    x.flags.writeable = y.flags.writeable = False
    model = linear(optimizer="adam")
    model.fit(x, y, epochs=2, verbose=0)
    assert (model.predict(x, verbose=0) != 0).all()


def test_global_seed_is_not_disturbed_by_predict(rng):
    x, _ = data(rng, 12)
    model = linear()
    numbarnn.random.set_seed(3)
    expected = numbarnn.random.make_default_seed()
    numbarnn.random.set_seed(3)
    model.predict(x, verbose=0)
    assert numbarnn.random.make_default_seed() == expected


def test_weights_that_a_model_reads_and_does_not_train_are_announced(rng):
    class Careless(models.Model):
        def call(self, x):
            return layers.Dense(1, name="lost")(x)

    x = rng.normal(size=(4, 3)).astype("float32")
    model = Careless(name="careless")
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="'careless' reads weights that are not its own.*lost/kernel, .*lost/bias"):
        model.fit(x, x[:, :1], verbose=0)

    judge, factor = layers.Dense(2), Variable(2.0)  # neither a frozen layer nor a variable of the user's is a mistake
    judge(x[:, :1])
    judge.trainable = False
    model = models.Sequential([layers.Dense(1)])
    model.compile("sgd", lambda y, p: factor * ops.mean((judge(y) - judge(p)) ** 2, axis=-1))
    model.fit(x, x[:, :1], verbose=0)
