"""Bit for bit: any number of threads, any row alone, any repetition give the same results, through whole models."""

from functools import partial

import numpy as np
import pytest

from numbarnn import backend, graph, jit, layers, losses, models, optimizers, recurrence
from numbarnn.graph import Spec
from numbarnn.utils import set_random_seed

VOCABULARY, CLASSES, BATCH, TIMESTEPS = 50, 5, 40, 48
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (3 * BATCH, TIMESTEPS))
IDS[::2, TIMESTEPS // 2 :] = 0  # masked
IDS[1::4, 1:][np.arange(1, TIMESTEPS) > np.random.default_rng(2).integers(0, TIMESTEPS, (30, 1))] = 0  # any length
LABELS = np.random.default_rng(1).integers(0, CLASSES, 3 * BATCH)
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: optimizers.Adam(0.01, global_clipnorm=1.0),
}


def stack(units, return_sequences=False, go_backwards=False, dtype=None, **options):
    """Make a layer of three cells of different kinds."""
    simple = {name: value for name, value in options.items() if name != "recurrent_activation"}
    cells = [
        layers.GRUCell(units, dtype=dtype, **options),
        layers.SimpleRNNCell(units, dtype=dtype, **simple),
        layers.LSTMCell(units, dtype=dtype, **options),
    ]
    return layers.RNN(cells, return_sequences=return_sequences, go_backwards=go_backwards, dtype=dtype)


def both_ways(units, **options):
    """Make a layer of two directions, as wide as the others."""
    dtype = {name: value for name, value in options.items() if name == "dtype"}
    return layers.Bidirectional(layers.GRU(units, **options), merge_mode="sum", **dtype)


LAYERS = {
    "LSTM": layers.LSTM,
    "SimpleRNN": layers.SimpleRNN,
    "GRU": layers.GRU,
    "GRU_reset_before": partial(layers.GRU, reset_after=False),
    "Bidirectional": both_ways,
    "stack": stack,
}
SETTINGS = {
    "plain": {},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.2, "activation": "gelu", "go_backwards": True},
    "float64": {"dtype": "float64", "use_bias": False, "recurrent_activation": "hard_sigmoid"},
}
CASES = [
    *(("LSTM", setting) for setting in SETTINGS),
    *((kind, setting) for kind in LAYERS if kind != "LSTM" for setting in ("plain", "dropout")),
    ("GRU", "float64"),
]
OPTIONS = pytest.mark.parametrize(
    ("kind", "options"), [pytest.param(kind, SETTINGS[setting], id=f"{kind}-{setting}") for kind, setting in CASES]
)


def model_of(kind="LSTM", optimizer="sgd", units=64, **options):
    """Make a model whose layers are large enough for seven threads, from seed 1."""
    backend.clear_session()
    set_random_seed(1)
    dtype = {name: value for name, value in options.items() if name == "dtype"}
    if kind == "SimpleRNN":
        options.pop("recurrent_activation", None)
    model = models.Sequential(
        [
            layers.Embedding(VOCABULARY, units, mask_zero=True, **dtype),
            LAYERS[kind](units, return_sequences=True, **options),
            LAYERS[kind](units, **options),
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
def test_threads_change_no_output_and_no_gradient(kind, options):
    def compute():
        model = model_of(kind, **options)
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
def test_threads_change_no_step_of_training(kind, options):
    def compute():
        model = model_of(kind, "adam" if "dropout" in options else "sgd", **options)
        logs = [model.train_on_batch(IDS[rows], LABELS[rows]) for rows in np.split(np.arange(3 * BATCH), 3)]
        return [*model.get_weights(), *(v.numpy() for v in model.optimizer.variables), np.array(logs)]

    first, *others = for_threads(compute)
    for result in others:
        assert_same_bits(result, first)


@OPTIONS
def test_a_row_alone_is_predicted_as_in_its_batch(kind, options):
    model = model_of(kind, units=19, **options)
    whole = model.predict(IDS, batch_size=3 * BATCH, verbose=0)
    for rows in (slice(0, 1), slice(7, 8), slice(3 * BATCH - 1, None), slice(5, 18)):
        np.testing.assert_array_equal(model.predict(IDS[rows], verbose=0), whole[rows])
        np.testing.assert_array_equal(model(IDS[rows]), whole[rows])
    for batch_size in (1, 7, 32):
        np.testing.assert_array_equal(model.predict(IDS[:33], batch_size=batch_size, verbose=0), whole[:33])


@pytest.mark.parametrize("kind", LAYERS)
def test_what_follows_the_last_step_of_a_row_changes_nothing(kind):
    model = model_of(kind, units=19)
    whole = model.predict(IDS[::2], verbose=0)
    np.testing.assert_array_equal(model.predict(IDS[::2, : TIMESTEPS // 2], verbose=0), whole)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["LSTM", "Bidirectional", "stack"])
def test_a_seed_repeats_a_whole_run(kind, optimizer):
    def train(seed):
        model = model_of(kind, optimizer, units=8, dropout=0.3, recurrent_dropout=0.2)
        set_random_seed(seed)
        history = model.fit(IDS, LABELS, batch_size=32, epochs=2, validation_split=0.2, verbose=0).history
        return [*model.get_weights(), *(np.array(values) for values in history.values())]

    first = train(3)
    assert_same_bits(train(3), first)
    assert not np.array_equal(train(4)[0], first[0]), "the order of the rows depends on the seed"
