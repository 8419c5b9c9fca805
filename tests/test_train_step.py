"""Steps of a user's own, as in Keras's guides to customising `fit`: what they see, what is reported, when they run."""

import pickle

import numpy as np
import pytest

import numbarnn
from numbarnn import backend, callbacks, layers, losses, metrics, models, ops, optimizers, value_and_grad
from numbarnn.layers import get_mask
from numbarnn.utils import Ragged, pack_x_y_sample_weight, set_random_seed, unpack_x_y_sample_weight


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()
    set_random_seed(1)


@pytest.fixture
def data(rng):
    x = rng.normal(size=(50, 4)).astype("float32")
    return x, (x @ rng.normal(size=(4, 2))).astype("float32")


class Plain(models.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(5, activation="tanh", kernel_regularizer="l2")
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


class Guide(Plain):
    """The guide's first example."""

    def train_step(self, data):
        x, y, w = unpack_x_y_sample_weight(data)

        def loss_of(x, y, w):
            y_pred = self(x, training=True)
            return self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=w), y_pred

        (loss, y_pred), grads = value_and_grad(loss_of, self)(x, y, w)
        self.optimizer.apply(grads)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=len(x))
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


def trained(cls, x, y, **options):
    set_random_seed(3)
    model = cls()
    model.compile(optimizers.Adam(0.01), "mse", metrics=["mae"])
    return model, model.fit(x, y, batch_size=16, epochs=3, verbose=0, **options).history


def test_the_guides_step_is_what_fit_does(data):
    x, y = data
    for options in ({}, {"sample_weight": np.linspace(0.1, 1, 50)}, {"validation_split": 0.2}):
        plain, expected = trained(Plain, x, y, **options)
        guide, found = trained(Guide, x, y, **options)
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, rel=1e-5), name
        for a, b in zip(plain.get_weights(), guide.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert guide.train_on_batch(x, y) == pytest.approx(plain.train_on_batch(x, y), rel=1e-4)
    assert guide.train_on_batch(x, y, return_dict=True).keys() == {"loss", "mae"}


def test_a_functional_model_of_ones_own_class(data):
    x, y = data

    class Own(models.Model):
        train_step = Guide.train_step

    def build(cls):
        set_random_seed(5)
        inputs = layers.Input((4,))
        model = cls(inputs, layers.Dense(2)(layers.Dense(5, activation="tanh")(inputs)))
        model.compile(optimizers.Adam(0.01), "mse", metrics=["mae"])
        return model, model.fit(x, y, epochs=2, verbose=0).history

    (own, found), (plain, expected) = build(Own), build(models.Model)
    assert isinstance(own, Own) and list(found) == list(expected)
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert own.evaluate(x, y, verbose=0) == pytest.approx(plain.evaluate(x, y, verbose=0), rel=1e-4)


def test_losses_that_layers_add_and_several_outputs(data):
    x, y = data

    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * ops.mean(x**2))
            return x

    class Two(models.Model):
        def __init__(self):
            super().__init__()
            self.inside = [{"first": layers.Dense(3)}, Penalty()]  # found however deep they are
            self.a, self.b = layers.Dense(2), layers.Dense(1)

        def call(self, x):
            h = self.inside[1](self.inside[0]["first"](x))
            return {"a": self.a(h), "b": self.b(h)}

    class Own(Two):
        def train_step(self, data):
            x, y = data

            def loss_of(x, y):
                y_pred = self(x, training=True)
                return self.compute_loss(x, y, y_pred), y_pred

            (loss, y_pred), grads = value_and_grad(loss_of, self)(x, y)
            self.optimizer.apply(grads)
            self.metrics[0].update_state(loss, sample_weight=len(x))
            return self.compute_metrics(x, y, y_pred)

    results = []
    for cls in (Two, Own):
        set_random_seed(6)
        model = cls()
        model.compile(optimizers.SGD(0.1), "mse", metrics={"a": ["mae"]})
        history = model.fit(x, {"a": y, "b": y[:, :1]}, epochs=2, verbose=0, shuffle=False).history
        results.append((history["loss"], history["a_mae"], model.get_weights()))
    assert len(results[0][2]) == 6
    for a, b in zip(*results, strict=True):
        for i, j in zip(a, b, strict=True):
            np.testing.assert_allclose(i, j, rtol=1e-4, atol=1e-6)


def test_metrics_of_ones_own_and_no_compiled_loss(data):
    """The guide's second example: nothing but an optimizer is compiled; `metrics` says what is reset each epoch."""
    x, y = data

    class Own(Plain):
        def __init__(self):
            super().__init__()
            self.loss_tracker = metrics.Mean(name="loss")
            self.mae_metric = metrics.MeanAbsoluteError(name="mae")
            self.loss_fn = losses.MeanSquaredError()

        def train_step(self, data):
            x, y = data

            def loss_of(x, y):
                y_pred = self(x, training=True)
                return self.loss_fn(y, y_pred), y_pred

            (loss, y_pred), grads = value_and_grad(loss_of, self)(x, y)
            self.optimizer.apply_gradients(zip(grads, self.trainable_variables, strict=True))
            self.loss_tracker.update_state(loss)
            self.mae_metric.update_state(y, y_pred)
            return {"loss": self.loss_tracker.result(), "mae": self.mae_metric.result()}

        @property
        def metrics(self):
            return [self.loss_tracker, self.mae_metric]

    model = Own()
    model.compile(optimizer="sgd")
    seen = []

    class Watch(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(logs)

    history = model.fit(x, y, batch_size=25, epochs=2, verbose=0, callbacks=[Watch()], shuffle=False).history
    assert list(history) == ["loss", "mae"] and len(seen) == 4
    assert [seen[1], seen[3]] == [{k: v[i] for k, v in history.items()} for i in (0, 1)]
    third = model.fit(x, y, batch_size=50, verbose=0).history  # a mean of this epoch alone
    assert third["loss"][0] < min(history["loss"])


def test_test_step_and_predict_step(data):
    x, y = data

    class Own(Plain):
        def test_step(self, data):
            x, y = data
            y_pred = self(x, training=False)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(self.compute_loss(y=y, y_pred=y_pred), sample_weight=len(x))
                else:
                    metric.update_state(y, y_pred)
            return {m.name: m.result() for m in self.metrics}

        def predict_step(self, data):
            return {"out": self(data, training=False), "twice": 2 * super().predict_step(data)}

    own = Own()
    own.compile("sgd", "mse", metrics=["mae"])
    plain = Plain()
    plain.compile("sgd", "mse", metrics=["mae"])
    plain(x), own(x)
    plain.set_weights(own.get_weights())
    expected = plain.evaluate(x, y, batch_size=16, verbose=0)
    assert own.evaluate(x, y, batch_size=16, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert own.evaluate(x, y, batch_size=16, verbose=0, return_dict=True) == pytest.approx(
        dict(zip(("loss", "mae"), expected, strict=True)), rel=1e-5
    )
    assert own.test_on_batch(x, y) == pytest.approx(plain.test_on_batch(x, y), rel=1e-5)
    history = own.fit(x, y, epochs=1, validation_data=(x, y), verbose=0).history
    assert list(history) == ["loss", "mae", "val_loss", "val_mae"]
    found = own.predict(x, batch_size=16, verbose=0)
    np.testing.assert_allclose(found["twice"], 2 * found["out"], rtol=1e-6)
    np.testing.assert_allclose(found["out"], own(x), rtol=1e-6)
    assert own.predict_on_batch(x)["out"].shape == (50, 2)


def test_super_steps_and_more_logs(data):
    x, y = data

    class More(Plain):
        steps = 0

        def train_step(self, data):
            type(self).steps += 1
            return {**super().train_step(data), "steps": np.float32(self.steps)}

    _, expected = trained(Plain, x, y, validation_split=0.5)
    _, found = trained(More, x, y, validation_split=0.5)
    assert found.pop("steps") == [2, 4, 6]
    assert found == expected


def test_compute_metrics_and_an_overridden_loss(data):
    x, y = data

    class Own(Plain):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.abs(y - y_pred)) + sum(self.losses)

    class Step(Own):
        def train_step(self, data):
            x, y = data

            def loss_of(x, y):
                y_pred = self(x, training=True)
                return self.compute_loss(x, y, y_pred), y_pred

            (loss, y_pred), grads = value_and_grad(loss_of, self)(x, y)
            self.optimizer.apply(grads)
            self.metrics[0].update_state(loss, sample_weight=len(x))
            return self.compute_metrics(x, y, y_pred)

    expected, found = trained(Own, x, y)[1], trained(Step, x, y)[1]
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_gan(rng):
    """Two models, two optimizers, a `compile` of one's own, no `call`."""

    class GAN(models.Model):
        def __init__(self):
            super().__init__()
            self.discriminator = models.Sequential([layers.Dense(8, "tanh"), layers.Dense(1)])
            self.generator = models.Sequential([layers.Dense(8, "tanh"), layers.Dense(2)])
            self.d_loss, self.g_loss = metrics.Mean(name="d_loss"), metrics.Mean(name="g_loss")
            self.seeds = numbarnn.random.SeedGenerator(1)

        def compile(self, d_optimizer, g_optimizer, loss_fn):
            super().compile()
            self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

        def train_step(self, real):
            z = numbarnn.random.normal((len(real), 3), seed=self.seeds)
            both = np.concatenate([self.generator(z), real])
            labels = np.concatenate([np.ones((len(real), 1)), np.zeros((len(real), 1))]).astype("float32")

            def d_loss_of(x, labels):
                return self.loss_fn(labels, self.discriminator(x))

            loss, grads = value_and_grad(d_loss_of, self.discriminator)(both, labels)
            self.d_optimizer.apply(grads, self.discriminator.trainable_variables)
            self.d_loss.update_state(loss)

            def g_loss_of(z, misleading):
                return self.loss_fn(misleading, self.discriminator(self.generator(z)))

            before = self.discriminator.get_weights()
            step = value_and_grad(g_loss_of, self.generator)
            loss, grads = step(z, np.zeros((len(real), 1), "float32"))
            self.g_optimizer.apply(grads, self.generator.trainable_variables)
            assert step(z, np.zeros((len(real), 1), "float32"))[0] < loss
            for a, b in zip(before, self.discriminator.get_weights(), strict=True):
                np.testing.assert_array_equal(a, b)
            self.g_loss.update_state(loss)
            return {"d_loss": self.d_loss.result(), "g_loss": self.g_loss.result()}

    real = (rng.normal(size=(64, 2)) * 0.1 + [2.0, -1.0]).astype("float32")
    gan = GAN()
    gan.compile(optimizers.SGD(0.05), optimizers.SGD(0.05), losses.BinaryCrossentropy(from_logits=True))
    history = gan.fit(real, batch_size=32, epochs=5, verbose=0).history
    assert list(history) == ["d_loss", "g_loss"] and np.isfinite(history["d_loss"]).all()


def test_sequences_of_different_lengths_come_with_their_masks(rng):
    x = Ragged([rng.normal(size=(n, 3)).astype("float32") for n in (2, 5, 3, 4)])
    y = rng.normal(size=(4, 1)).astype("float32")
    masks = []

    def reader(cls):
        set_random_seed(2)
        model = cls([layers.LSTM(4), layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    class Own(models.Sequential):
        def train_step(self, data):
            x, y = data
            masks.append(get_mask(x))

            def loss_of(x, y):
                return self.compute_loss(y=y, y_pred=self(x, training=True))

            loss, grads = value_and_grad(loss_of, self)(x, y)
            self.optimizer.apply(grads)
            return {"loss": loss, "also": super().test_step(data)["loss"]}

        def predict_step(self, data):
            return super().predict_step(data)

    own, plain = reader(Own), reader(models.Sequential)
    expected = plain.fit(x, y, batch_size=4, shuffle=False, verbose=0).history["loss"]
    found = own.fit(x, y, batch_size=4, shuffle=False, verbose=0).history
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert masks[0].sum(1).tolist() == [2, 5, 3, 4]
    assert found["also"] == pytest.approx([plain.evaluate(x, y, verbose=0)], rel=1e-5)
    np.testing.assert_allclose(own.predict(x, verbose=0), plain.predict(x, verbose=0), rtol=1e-4)


def test_a_step_set_on_a_model_and_pickling(data):
    x, y = data
    model, _ = trained(Guide, x, y)
    pickle.loads(pickle.dumps(model.optimizer))
    plain, _ = trained(Plain, x, y)
    plain.train_step = lambda data: {"loss": 7.0}
    assert plain.fit(x, y, verbose=0).history == {"loss": [7.0]}
    assert plain.train_on_batch(x, y) == 7.0


def test_what_is_refused(data):
    x, y = data

    class Silent(Plain):
        def train_step(self, data):
            pass

    model = Silent()
    with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
        model.fit(x, y, verbose=0)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`train_step` must return a dict.*Received: None"):
        model.fit(x, y, verbose=0)


def test_packing():
    for args in ((1,), ([1, 2],), (1, 2), (1, 2, 3), (1, None, 3)):
        x, y, w = unpack_x_y_sample_weight(pack_x_y_sample_weight(*args))
        assert (x, y, w) == (*args, None, None)[:3]
    assert unpack_x_y_sample_weight([1, 2]) == (1, 2, None)
    with pytest.raises(ValueError, match="a tuple of 4"):
        unpack_x_y_sample_weight((1, 2, 3, 4))
