"""Moving averages in place of the weights."""

import numpy as np
import pytest

from numbarnn import Sequential, layers, optimizers
from numbarnn.callbacks import EarlyStopping, LambdaCallback, SwapEMAWeights

X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = X.sum(axis=1, keepdims=True)


@pytest.fixture
def model():
    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    return model


def train(model, *callbacks, **options):
    """Train, keeping the weights after each batch; return the averages by the definition."""
    after = []
    keep = LambdaCallback(on_train_batch_end=lambda batch, logs: after.append(model.get_weights()))
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[keep, *callbacks], **options)
    averages = [after[0]]
    for weights in after[1:]:
        averages.append([0.5 * a + 0.5 * w for a, w in zip(averages[-1], weights, strict=True)])
    return after, averages


def same(weights, expected):
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_evaluation_sees_the_averages_and_training_goes_on_with_the_weights(model):
    seen = []
    look = LambdaCallback(on_test_batch_end=lambda batch, logs: seen.append(model.get_weights()))
    start, validation = model.get_weights(), (X[:4], Y[:4])
    after, averages = train(model, SwapEMAWeights(), look, epochs=3, validation_data=validation, shuffle=False)
    same(seen[0], averages[1])
    same(seen[2], averages[5])
    same(model.get_weights(), averages[5])  # which `fit` puts there at its end
    plain = Sequential([layers.Input((3,)), layers.Dense(1)])
    plain.compile(optimizers.SGD(0.1), "mse")
    plain.set_weights(start)
    without = []
    keep = LambdaCallback(on_train_batch_end=lambda batch, logs: without.append(plain.get_weights()))
    plain.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=keep)
    for weights, expected in zip(after, without, strict=True):
        same(weights, expected)


def test_evaluate_and_predict_leave_the_weights_as_they_were(model):
    model.train_on_batch(X, Y)
    model.train_on_batch(X, Y)
    before = model.get_weights()
    seen = []
    look = LambdaCallback(
        on_predict_batch_end=lambda batch, logs: seen.append(model.get_weights()),
        on_test_batch_end=lambda batch, logs: seen.append(model.get_weights()),
    )
    model.predict(X, verbose=0, callbacks=[SwapEMAWeights(), look])
    model.evaluate(X, Y, verbose=0, callbacks=[SwapEMAWeights(), look])
    same(seen[0], seen[1])
    assert not np.allclose(seen[0][0], before[0])
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stopped", [False, True])
def test_from_epoch_to_epoch(model, stopped):
    """Callbacks after it see the averages at the end of an epoch; at the very end they stay."""
    seen = []
    look = LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(model.get_weights()))
    stop = [EarlyStopping("loss", patience=1, min_delta=1e9)] if stopped else []
    _, averages = train(model, *stop, SwapEMAWeights(swap_on_epoch=True), look, epochs=9 if stopped else 2)
    same(seen[0], averages[1])
    same(seen[1], averages[3])
    same(model.get_weights(), averages[3])


def test_an_optimizer_without_averages(model):
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must be used when `use_ema=True` is set"):
        model.evaluate(X, Y, verbose=0, callbacks=[SwapEMAWeights()])
