"""Training against live Keras 3: fifty steps, and `fit` from all kinds of data; losses, metrics, weights, float64."""

import inspect

import numpy as np
import pytest

from numbarnn import backend, constraints, layers, losses, models, optimizers, regularizers, utils
from numbarnn.datasets import mnist
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


def classifiers():
    """Our perceptron and Keras's, compiled."""
    import keras

    ours, theirs = both(perceptron)
    for model, library, loss in ((ours, optimizers, losses), (theirs, keras.optimizers, keras.losses)):
        model.compile(
            library.SGD(2**-3),
            loss.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            weighted_metrics=["sparse_categorical_crossentropy"],
        )
    return ours, theirs


def labelled(rng, samples=45):
    return rng.normal(size=(samples, 6)), rng.integers(0, 4, size=samples), rng.uniform(size=samples)


def parts(*arrays, size=8):
    """Cut arrays into batches."""
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


def dataset_of(library, batches, **kwargs):
    class Batches(library.PyDataset):
        def __len__(self):
            return len(batches)

        def __getitem__(self, index):
            return batches[index]

    return Batches(**kwargs)


def same_history(ours, theirs, fit):
    """Call ``fit(model, library)`` on both; compare what was reported and the weights."""
    import keras

    histories = [fit(ours, utils).history, fit(theirs, keras.utils).history]
    assert set(histories[0]) == set(histories[1])
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=2e-6, err_msg=key)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_fit_without_shuffling(rng):
    x, y, w = labelled(rng)
    options = {"batch_size": 8, "epochs": 4, "validation_split": 0.3, "shuffle": False, "verbose": 0}
    same_history(*classifiers(), lambda model, _: model.fit(x, y, **options))
    same_history(*classifiers(), lambda model, _: model.fit(x, y, sample_weight=w, **options))


def test_fit_with_class_weights(rng):
    x, y, _ = labelled(rng)
    options = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0, "class_weight": {0: 0.25, 3: 4.0}}
    same_history(*classifiers(), lambda model, _: model.fit(x, y, validation_data=(x, y), **options))
    same_history(*classifiers(), lambda model, _: model.fit(x, y[:, None], **options))
    ours, theirs = classifiers()
    a = ours.train_on_batch(x, y, None, {1: 2.0})
    np.testing.assert_allclose(a, [float(v) for v in theirs.train_on_batch(x, y, None, {1: 2.0})], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras says so at every end
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_from_a_generator(rng, weighted):
    batches = parts(*labelled(rng)[: 3 if weighted else 2])

    def forever():
        while True:
            yield from batches

    held_out = parts(*labelled(rng, 20))
    same_history(
        *classifiers(),
        lambda model, _: model.fit(
            forever(), epochs=3, steps_per_epoch=4, shuffle=False, validation_data=held_out[0], verbose=0
        ),
    )
    ours, theirs = classifiers()
    for a, b in (
        (ours.evaluate(iter(batches), verbose=0), theirs.evaluate((batch for batch in batches), verbose=0)),
        (ours.evaluate(forever(), steps=3, verbose=0), theirs.evaluate(forever(), steps=3, verbose=0)),
        (ours.predict(forever(), steps=3, verbose=0), theirs.predict(forever(), steps=3, verbose=0)),
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("workers", [1, 2])  # of ours: with two Keras loses the first batch, with which it builds
@pytest.mark.parametrize("weighted", [False, True])
def test_fit_from_a_dataset(rng, weighted, workers):
    batches = parts(*labelled(rng)[: 3 if weighted else 2])
    held_out = parts(*labelled(rng, 20))
    more = {} if weighted else {"class_weight": {2: 3.0}}
    same_history(
        *classifiers(),
        lambda model, library: model.fit(
            dataset_of(library, batches, workers=workers if library is utils else 1),
            epochs=3,
            shuffle=False,
            validation_data=dataset_of(library, held_out),
            validation_freq=2,
            verbose=0,
            **more,
        ),
    )


def test_our_fit_takes_a_dataset_of_keras(rng):
    import keras

    batches = parts(*labelled(rng))
    same_history(
        *classifiers(),
        lambda model, _: model.fit(dataset_of(keras.utils, batches), epochs=2, shuffle=False, verbose=0),
    )


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
@pytest.mark.parametrize("options", [{"batch_size": 8}, {}])
def test_fit_for_some_steps_and_validation_for_some(rng, options):
    x, y, _ = labelled(rng)
    more = {"validation_steps": 2, "validation_batch_size": 5, "shuffle": False, "verbose": 0}
    same_history(
        *classifiers(),
        lambda model, _: model.fit(x, y, epochs=5, steps_per_epoch=4, validation_data=(x, y), **more, **options),
    )


@pytest.mark.parametrize("where", ["x", "y", "sample_weight"])
def test_fit_from_tables(rng, where):
    pandas = pytest.importorskip("pandas")
    given = dict(zip(("x", "y", "sample_weight"), labelled(rng), strict=True))
    given[where] = (pandas.DataFrame if where == "x" else pandas.Series)(given[where])
    same_history(*classifiers(), lambda model, _: model.fit(**given, epochs=2, shuffle=False, verbose=0))


def test_fit_from_a_data_loader(rng):
    import torch

    x, y, _ = labelled(rng)
    found = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    loader = torch.utils.data.DataLoader(found, batch_size=8)
    same_history(*classifiers(), lambda model, _: model.fit(loader, epochs=2, shuffle=False, verbose=0))


def test_signatures():
    import keras

    for name in ("compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch"):
        ours, theirs = (
            {
                parameter.name: parameter.default
                for parameter in inspect.signature(getattr(library.Model, name)).parameters.values()
                if parameter.kind is parameter.POSITIONAL_OR_KEYWORD  # what is ours alone goes by keyword
            }
            for library in (models, keras)
        )
        assert list(ours.items()) == list(theirs.items()), name


def test_utilities(rng):
    import keras

    for labels, classes in (([0, 2, 1], None), (np.array([[1], [0]]), 4), (rng.integers(0, 3, size=(2, 3)), None)):
        expected = keras.utils.to_categorical(labels, classes)
        np.testing.assert_array_equal(utils.to_categorical(labels, classes), expected)
    x = rng.normal(size=(3, 4, 5))
    x[0] = 0
    for arguments in ((), (1,), (-1, 1), (2, np.inf)):
        np.testing.assert_allclose(utils.normalize(x, *arguments), keras.utils.normalize(x, *arguments), rtol=1e-12)


def test_the_same_mnist():
    import keras

    source = inspect.getsource(keras.datasets.mnist.load_data)
    folder, _, name = mnist.URL.rpartition("/")
    assert mnist.SHA256 in source and f'"{folder}/"' in source and f"{{origin_folder}}{name}" in source
