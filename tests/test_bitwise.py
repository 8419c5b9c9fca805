"""Bit for bit: any number of threads, any row alone, any repetition give the same results, through whole models."""

import numpy as np
import pytest

from numbarnn import backend, graph, jit, layers, losses, models, optimizers, recurrence
from numbarnn.graph import Spec
from numbarnn.utils import set_random_seed

VOCABULARY, CLASSES, BATCH, TIMESTEPS = 50, 5, 40, 48
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (3 * BATCH, TIMESTEPS))
IDS[::2, TIMESTEPS // 2 :] = 0  # masked
LABELS = np.random.default_rng(1).integers(0, CLASSES, 3 * BATCH)
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: optimizers.Adam(0.01, global_clipnorm=1.0),
}
OPTIONS = pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3, "recurrent_dropout": 0.2, "activation": "gelu", "go_backwards": True},
        {"dtype": "float64", "use_bias": False, "recurrent_activation": "hard_sigmoid"},
    ],
    ids=["plain", "dropout", "float64"],
)


def model_of(optimizer="sgd", units=64, **options):
    """Make a model whose layers are large enough for seven threads, from seed 1."""
    backend.clear_session()
    set_random_seed(1)
    dtype = {name: value for name, value in options.items() if name == "dtype"}
    model = models.Sequential(
        [
            layers.Embedding(VOCABULARY, units, mask_zero=True, **dtype),
            layers.LSTM(units, return_sequences=True, **options),
            layers.LSTM(units, **options),
            layers.Dense(CLASSES, **dtype),
        ]
    )
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
    return model


def assert_same_bits(actual, expected):
    for number, (a, b) in enumerate(zip(actual, expected, strict=True)):
        np.testing.assert_array_equal(a, b, err_msg=f"array {number}")


def for_threads(compute):
    """Return the arrays that `compute` gives, for 1, 2, 3 and 7 threads; check that as many were at work."""
    results = []
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        recurrence.kernel_calls.clear()
        results.append(compute())
        for kernel, calls in recurrence.kernel_calls.items():
            assert calls % threads == 0, f"{kernel}: {calls} calls for {threads} threads"
        assert recurrence.kernel_calls
    return results


@OPTIONS
def test_threads_change_no_output_and_no_gradient(options):
    def compute():
        model = model_of(**options)
        x, y = IDS[:BATCH], LABELS[:BATCH]
        model.build((None, TIMESTEPS))

        def loss(x, y):
            return model.compute_loss(x, y, model(x, training=True))

        program = graph.trace(loss, (Spec(x.shape, x.dtype), Spec(y.shape, y.dtype)))
        forward, backward = program.linearize(0, model.trainable_weights)
        value, residuals = forward(x, y)
        return [model.predict_on_batch(x), value, *backward(residuals, np.ones_like(value))]

    first, *others = for_threads(compute)
    assert all(np.isfinite(array).all() and array.any() for array in first)
    for result in others:
        assert_same_bits(result, first)


@OPTIONS
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_threads_change_no_step_of_training(optimizer, options):
    def compute():
        model = model_of(optimizer, **options)
        logs = [model.train_on_batch(IDS[rows], LABELS[rows]) for rows in np.split(np.arange(3 * BATCH), 3)]
        return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables), np.array(logs)]

    first, *others = for_threads(compute)
    for result in others:
        assert_same_bits(result, first)


@OPTIONS
def test_a_row_alone_is_predicted_as_in_its_batch(options):
    model = model_of(units=19, **options)
    whole = model.predict(IDS, batch_size=3 * BATCH, verbose=0)
    for rows in (slice(0, 1), slice(7, 8), slice(3 * BATCH - 1, None), slice(5, 18)):
        np.testing.assert_array_equal(model.predict(IDS[rows], verbose=0), whole[rows])
        np.testing.assert_array_equal(model(IDS[rows]), whole[rows])
    for batch_size in (1, 7, 32):
        np.testing.assert_array_equal(model.predict(IDS[:33], batch_size=batch_size, verbose=0), whole[:33])


def test_what_follows_the_last_step_of_a_row_changes_nothing():
    model = model_of(units=19)
    whole = model.predict(IDS[::2], verbose=0)
    np.testing.assert_array_equal(model.predict(IDS[::2, : TIMESTEPS // 2], verbose=0), whole)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_seed_repeats_a_whole_run(optimizer):
    def train(seed):
        model = model_of(optimizer, units=8, dropout=0.3, recurrent_dropout=0.2)
        set_random_seed(seed)
        history = model.fit(IDS, LABELS, batch_size=32, epochs=2, validation_split=0.2, verbose=0).history
        return [*model.get_weights(), *(np.array(values) for values in history.values())]

    first = train(3)
    assert_same_bits(train(3), first)
    assert not np.array_equal(train(4)[0], first[0]), "the order of the rows depends on the seed"
