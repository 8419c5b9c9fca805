"""Fifty steps of training against live Keras 3: losses, metrics and weights along the way, float64."""

import numpy as np
import pytest

from numbarnn import backend, constraints, layers, losses, models, optimizers, regularizers
from numbarnn.utils import set_random_seed

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
STEPS = 50


@pytest.fixture(autouse=True)
def double_precision():
    keras = pytest.importorskip("keras")
    ours, theirs, policy = backend.floatx(), keras.config.floatx(), keras.config.dtype_policy()
    backend.set_floatx("float64")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")  # which Keras makes from floatx once, when it is first asked for
    set_random_seed(1)
    yield
    backend.set_floatx(ours)
    keras.config.set_floatx(theirs)
    keras.config.set_dtype_policy(policy)


def both(build):
    """The same model from our layers and from Keras's, with the same weights."""
    import keras

    ours = build(layers, models, regularizers, constraints)
    theirs = build(keras.layers, keras.models, keras.regularizers, keras.constraints)
    theirs.set_weights(ours.get_weights())
    return ours, theirs


def compare(ours, theirs, batches, atol=1e-7):
    for number, batch in enumerate(batches):
        a = np.ravel(ours.train_on_batch(*batch))
        b = np.ravel([float(v) for v in np.ravel(theirs.train_on_batch(*batch))])
        # What Keras reports is a float32, whatever it computes with.
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=f"step {number}")
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol)


def perceptron(layers, models, regularizers, constraints):
    return models.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="tanh", kernel_regularizer=regularizers.L2(2**-7), name="one"),
            layers.Dense(4, bias_constraint=constraints.NonNeg(), name="two"),
        ]
    )


def reader(layers, models, regularizers, constraints):
    return models.Sequential(
        [
            layers.Input((None,)),
            layers.Embedding(12, 5, mask_zero=True, name="embedding"),
            layers.LSTM(7, return_sequences=True, activity_regularizer=regularizers.L2(2**-7), name="lower"),
            layers.LSTM(6, name="upper"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="head"),
        ]
    )


def tagger(layers, models, regularizers, constraints):
    return models.Sequential(
        [
            layers.Input((None,)),
            layers.Embedding(12, 5, mask_zero=True, name="embedding"),
            layers.LSTM(7, return_sequences=True, recurrent_regularizer=regularizers.L1(2**-10), name="lstm"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


# Powers of two, which Keras cannot round. (It does round something to float32 on the way: one SGD step of one Dense
# layer differs from the same step in NumPy by 2e-9. Hence the tolerances.)
OPTIMIZERS = [
    ("SGD", {"learning_rate": 2**-3}),
    ("SGD", {"learning_rate": 2**-4, "momentum": 0.875}),
    ("SGD", {"learning_rate": 2**-4, "momentum": 0.875, "nesterov": True}),
    ("SGD", {"learning_rate": 2**-3, "clipnorm": 2**-4}),
    ("SGD", {"learning_rate": 2**-3, "clipvalue": 2**-6}),
    ("SGD", {"learning_rate": 2**-3, "global_clipnorm": 2**-3}),
    ("Adam", {"learning_rate": 2**-7}),
    ("Adam", {"learning_rate": 2**-7, "amsgrad": True, "beta_2": 0.75}),
    ("Adam", {"learning_rate": 2**-7, "global_clipnorm": 2**-3}),
    ("RMSprop", {"learning_rate": 2**-8}),
    ("RMSprop", {"learning_rate": 2**-8, "momentum": 0.5, "centered": True}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
def test_optimizers(name, options, rng):
    import keras

    ours, theirs = both(perceptron)
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(getattr(library, name)(**options), loss.SparseCategoricalCrossentropy(from_logits=True))
    batches = [(rng.normal(size=(9, 6)), rng.integers(0, 4, size=9)) for _ in range(STEPS)]
    compare(ours, theirs, batches)


LOSSES = [
    ("MeanSquaredError", {}, "real"),
    ("MeanAbsoluteError", {"reduction": "sum"}, "real"),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.125}, "share"),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.125}, "one_hot"),
    ("CategoricalCrossentropy", {"from_logits": True, "reduction": "mean_with_sample_weight"}, "one_hot"),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 2}, "label"),
]


@pytest.mark.parametrize(("name", "options", "kind"), LOSSES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_losses(name, options, kind, weighted, rng):
    import keras

    ours, theirs = both(perceptron)
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(library.SGD(2**-4), getattr(loss, name)(**options), metrics=["accuracy"])
    batches = []
    for _ in range(STEPS):
        y = {
            "real": lambda: rng.normal(size=(9, 4)),
            "share": lambda: rng.uniform(size=(9, 4)),
            "one_hot": lambda: np.eye(4)[rng.integers(0, 4, size=9)],
            "label": lambda: rng.integers(0, 4, size=9),
        }[kind]()
        batches.append((rng.normal(size=(9, 6)), y, rng.uniform(size=9)) if weighted else (rng.normal(size=(9, 6)), y))
    compare(ours, theirs, batches)


def ids(rng, size=(6, 7)):
    """Token numbers with zeros behind each row's end."""
    found = rng.integers(1, 12, size=size)
    return np.where(np.arange(size[1]) < rng.integers(1, size[1] + 1, size=size[0])[:, None], found, 0)


def test_masked_classification(rng):
    import keras

    ours, theirs = both(reader)
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(library.Adam(2**-7), loss.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    compare(ours, theirs, [(ids(rng), rng.integers(0, 3, size=6)) for _ in range(STEPS)], atol=5e-6)
    x = ids(rng)
    np.testing.assert_allclose(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_masked_tagging(rng, weighted):
    import keras

    ours, theirs = both(tagger)
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(
            library.SGD(2**-3, momentum=0.5),
            loss.SparseCategoricalCrossentropy(),
            metrics=["accuracy"],
            weighted_metrics=["sparse_categorical_crossentropy"] if weighted else None,
        )
    batches = []
    for _ in range(STEPS):
        batch = ids(rng), rng.integers(0, 3, size=(6, 7))
        batches.append((*batch, rng.uniform(size=(6, 7))) if weighted else batch)
    compare(ours, theirs, batches, atol=1e-6)


def test_fit_without_shuffling(rng):
    import keras

    x, y = rng.normal(size=(45, 6)), rng.integers(0, 4, size=45)
    ours, theirs = both(perceptron)
    histories = []
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(library.SGD(2**-3), loss.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        histories.append(
            model.fit(x, y, batch_size=8, epochs=4, validation_split=0.3, shuffle=False, verbose=0).history
        )
    assert set(histories[0]) == set(histories[1])
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=1e-6, err_msg=key)
