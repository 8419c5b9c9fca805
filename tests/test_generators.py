"""`fit`, `evaluate` and `predict` with what yields batches: generators, iterables, PyDatasets; and parts of epochs."""

import itertools
import threading
import time

import numpy as np
import pytest

from numbarnn import callbacks, layers, models, optimizers, utils
from numbarnn.utils import PyDataset, Ragged, set_random_seed


def line(rate=0.1, **compiled):
    model = models.Sequential([layers.Input((2,)), layers.Dense(1, kernel_initializer="ones", dtype="float64")])
    model.compile(optimizers.SGD(rate), "mse", **compiled)
    return model


def data(rng, n=10):
    return rng.normal(size=(n, 2)), rng.normal(size=(n, 1))


def cut(*arrays, size=4):
    return [tuple(a[i : i + size] for a in arrays) for i in range(0, len(arrays[0]), size)]


class Cut(PyDataset):
    """The batches of arrays; what is asked of it is written down."""

    def __init__(self, *arrays, size=4, **kwargs):
        super().__init__(**kwargs)
        self.batches, self.asked = cut(*arrays, size=size), []

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.asked.append(index)
        return self.batches[index]

    def on_epoch_begin(self):
        self.asked.append("begin")

    def on_epoch_end(self):
        self.asked.append("end")


class Again:
    """An iterable that does not know its length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


class Steps(callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(f"epoch {epoch} of {self.params['steps']}")

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)


def naive(x, y, batches, rate=0.1):
    """Gradient descent by hand: the losses of all batches, and the weights."""
    w, b, found = np.ones((2, 1)), np.zeros(1), []
    for at in batches:
        error = x[at] @ w + b - y[at]
        found.append(np.mean(error**2))
        w = w - rate * 2 * x[at].T @ error / len(error)
        b = b - rate * 2 * error.mean(0)
    return found, [w, b]


# ------------------------------------------------------------------------------------------------ the same from all


@pytest.mark.parametrize("kind", ["list", "generator", "iterator", "dataset", "workers"])
def test_all_kinds_of_batches_train_as_arrays_do(rng, kind):
    x, y = data(rng)
    expected, weights = naive(x, y, [slice(0, 4), slice(4, 8), slice(8, 10)] * 2)
    batches = {
        "list": lambda: Again(cut(x, y)),
        "generator": lambda: (batch for batch in cut(x, y) * 2),
        "iterator": lambda: zip(*zip(*cut(x, y) * 2, strict=True), strict=True),
        "dataset": lambda: Cut(x, y),
        "workers": lambda: Cut(x, y, workers=3, max_queue_size=2),
    }[kind]()
    model = line()
    once = kind in ("generator", "iterator")
    history = model.fit(batches, epochs=2, steps_per_epoch=3 if once else None, shuffle=False, verbose=0).history
    means = [np.average(expected[i : i + 3], weights=[4, 4, 2]) for i in (0, 3)]
    np.testing.assert_allclose(history["loss"], means, rtol=1e-6)
    for found, right in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-6)


def test_evaluate_and_predict_from_batches(rng):
    x, y = data(rng)
    w = rng.uniform(size=10)
    model = line(weighted_metrics=["mae"])
    expected = model.evaluate(x, y, sample_weight=w, batch_size=4, verbose=0)
    outputs = model.predict(x, verbose=0)
    for made in (lambda: iter(cut(x, y, w)), lambda: Again(cut(x, y, w)), lambda: Cut(x, y, w, workers=2)):
        assert model.evaluate(made(), verbose=0) == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(model.predict(made(), verbose=0), outputs, rtol=1e-12)
    few = model.evaluate(x[:8], y[:8], batch_size=4, verbose=0)
    assert model.evaluate(Cut(x, y), steps=2, verbose=0) == pytest.approx(few, rel=1e-12)
    assert model.evaluate(x, y, 4, 0, None, 2) == pytest.approx(few, rel=1e-12)
    for of in (x, Again(cut(x, y))):
        found = model.predict(of, 4 if of is x else None, verbose=0, steps=2)
        np.testing.assert_allclose(found, outputs[:8], rtol=1e-12)
    np.testing.assert_allclose(model.predict(Again([b[0] for b in cut(x)]), verbose=0), outputs, rtol=1e-12)
    labels = Again([(a, np.array(["no", "numbers"])) for a, _ in cut(x, y)])
    np.testing.assert_allclose(model.predict(labels, verbose=0), outputs, rtol=1e-12)


def test_batches_of_ragged_sequences(rng):
    sequences = Ragged([rng.normal(size=(length, 3)).astype("float32") for length in (4, 2, 7, 1, 3)])
    targets = Ragged([rng.normal(size=(length, 2)).astype("float32") for length in (4, 2, 7, 1, 3)])
    model = models.Sequential([layers.LSTM(4, return_sequences=True), layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    whole = model.predict(sequences, batch_size=2, verbose=0)
    found = model.predict(Again([sequences[:2], sequences[2:4], sequences[4:]]), verbose=0)
    assert isinstance(found, Ragged)
    for a, b in zip(found, whole, strict=True):
        np.testing.assert_array_equal(a, b)
    assert model.evaluate(Cut(sequences, targets, size=2), verbose=0) == pytest.approx(
        model.evaluate(sequences, targets, batch_size=2, verbose=0), rel=1e-6
    )
    start = model.get_weights()
    first = model.fit(Again(cut(sequences, targets, size=2)), verbose=0).history
    model.set_weights(start)
    again = model.fit(sequences, targets, batch_size=2, shuffle=False, verbose=0).history
    assert first == again


def test_batches_of_several_lengths_and_nests(rng):
    inputs = {"a": layers.Input((None, 2), name="a"), "b": layers.Input((3,), name="b")}
    h = layers.Concatenate()([layers.LSTM(4)(inputs["a"]), inputs["b"]])
    model = models.Model(inputs, {"p": layers.Dense(1, name="p")(h), "q": layers.Dense(2, name="q")(h)})
    model.compile("sgd", {"p": "mse", "q": "mae"})

    def batches():
        for n, length in ((3, 4), (2, 6), (3, 4)):
            x = {"a": rng.normal(size=(n, length, 2)), "b": rng.normal(size=(n, 3))}
            yield x, {"p": rng.normal(size=(n, 1)), "q": rng.normal(size=(n, 2))}

    history = model.fit(batches(), verbose=0).history
    assert set(history) == {"loss", "p_loss", "q_loss"}
    assert {name: a.shape for name, a in model.predict(batches(), verbose=0).items()} == {"p": (8, 1), "q": (8, 2)}


# ------------------------------------------------------------------------------------------------ epochs and steps


def test_an_epoch_of_some_steps_goes_on_in_the_data(rng):
    x, y = data(rng, 14)
    numbers = itertools.cycle(range(7))
    taken = []

    def forever():
        for number in numbers:
            taken.append(number)
            yield x[2 * number : 2 * number + 2], y[2 * number : 2 * number + 2]

    log = Steps()
    model = line()
    model.fit(forever(), epochs=3, steps_per_epoch=3, verbose=0, callbacks=[log])
    assert taken == [0, 1, 2, 3, 4, 5, 6, 0, 1]  # and not one more
    assert log.seen == [f for e in range(3) for f in (f"epoch {e} of 3", 0, 1, 2)]
    order = [slice(2 * n, 2 * n + 2) for n in taken]
    np.testing.assert_allclose(model.get_weights()[0], naive(x, y, order)[1][0], rtol=1e-6)

    model = line()
    with pytest.warns(UserWarning, match="Your input ran out of data; interrupting the epoch after 1 of 3 steps"):
        model.fit(x, y, batch_size=2, epochs=4, steps_per_epoch=3, shuffle=False, verbose=0)
    order = [slice(2 * n, 2 * n + 2) for n in (*range(7), 0, 1, 2)]
    np.testing.assert_allclose(model.get_weights()[0], naive(x, y, order)[1][0], rtol=1e-6)


def test_steps_without_a_batch_size_share_the_samples_out(rng):
    x, y = data(rng, 10)
    history = line().fit(x, y, steps_per_epoch=3, shuffle=False, verbose=0).history
    losses, _ = naive(x, y, [slice(0, 4), slice(4, 8), slice(8, 10)])
    assert history["loss"] == pytest.approx([np.average(losses, weights=[4, 4, 2])])


def test_an_iterator_that_ends_ends_the_training(rng):
    x, y = data(rng, 10)
    for steps, epochs in ((None, [0]), (2, [0, 1]), (3, [0]), (5, [0])):
        model = line()
        with pytest.warns(UserWarning, match="Your input ran out of data; interrupting training") as found:
            history = model.fit(iter(cut(x, y)), epochs=3, steps_per_epoch=steps, verbose=0)
        assert history.epoch == epochs and len(found) == 1
        order = [slice(0, 4), slice(4, 8), slice(8, 10)]
        np.testing.assert_allclose(model.get_weights()[0], naive(x, y, order)[1][0], rtol=1e-6)
    line().fit(iter(cut(x, y)), verbose=0)  # one epoch of it is nothing to warn of


def test_the_number_of_steps_is_known_after_the_first_epoch(rng, capsys):
    log = Steps()
    line().fit(Again(cut(*data(rng))), epochs=2, verbose=1, callbacks=[log])
    assert log.seen == ["epoch 0 of None", 0, 1, 2, "epoch 1 of 3", 0, 1, 2]
    assert capsys.readouterr().out.count("3/3 [==============================]") >= 2
    line().evaluate(iter(cut(*data(rng))), verbose=2)
    assert capsys.readouterr().out.startswith("3/3 - ")


def test_validation_on_batches(rng):
    x, y = data(rng)
    model = line(rate=0.0)
    whole, part = model.evaluate(x, y, verbose=0), model.evaluate(x[:4], y[:4], verbose=0)
    options = {"epochs": 2, "verbose": 0}
    for validation in (Cut(x, y), Again(cut(x, y))):
        assert model.fit(x, y, validation_data=validation, **options).history["val_loss"] == pytest.approx([whole] * 2)
        found = model.fit(x, y, validation_data=validation, validation_steps=1, **options).history["val_loss"]
        assert found == pytest.approx([part] * 2)
    found = model.fit(x, y, validation_data=(x, y), validation_steps=1, validation_batch_size=4, **options).history
    assert found["val_loss"] == pytest.approx([part] * 2)
    found = model.fit(x, y, 10, validation_data=iter(cut(x, y)), validation_steps=1, **options).history
    assert found["val_loss"] == pytest.approx([part, model.evaluate(x[4:8], y[4:8], verbose=0)])
    found = model.fit(x, y, validation_data=iter(cut(x, y)), validation_freq=2, **options).history
    assert found["val_loss"] == pytest.approx([whole])
    with pytest.warns(UserWarning, match="ran out of data.*`validation_steps`"):
        found = model.fit(x, y, validation_data=iter(cut(x, y)), validation_steps=3, **options).history
    assert len(found["loss"]) == 2 and found["val_loss"] == pytest.approx([whole])
    with pytest.raises(ValueError, match="`validation_data` is an iterator, which gives its batches once.*2 times"):
        model.fit(x, y, validation_data=iter(cut(x, y)), **options)


# ------------------------------------------------------------------------------------------------ PyDataset


def test_the_life_of_a_dataset(rng):
    dataset = Cut(*data(rng))
    line().fit(dataset, epochs=2, shuffle=False, verbose=0)
    assert dataset.asked == ["begin", 0, 1, 2, "end"] * 2
    assert utils.Sequence is PyDataset
    assert len(list(dataset)) == 3


@pytest.mark.parametrize("workers", [1, 3])
def test_a_dataset_is_shuffled_batch_by_batch(rng, workers):
    x, y = data(rng, 40)
    seen = []

    class Order(PyDataset):
        num_batches = 10

        def __getitem__(self, index):
            time.sleep(0.001 * (index % 3))
            return x[4 * index : 4 * index + 4], np.full((4, 1), index)

    def first(y_true, y_pred):
        seen.append(int(y_true[0, 0]))
        return y_pred[:, 0]

    orders = []
    for _ in range(2):
        set_random_seed(3)
        seen.clear()
        line(metrics=[first]).fit(Order(workers=workers, max_queue_size=4), epochs=2, verbose=0)
        orders.append(list(seen))
    assert orders[0] == orders[1]
    assert sorted(orders[0][:10]) == sorted(orders[0][10:]) == list(range(10))
    assert orders[0][:10] != orders[0][10:] and orders[0][:10] != list(range(10))


def test_workers_are_threads_and_as_many_as_asked_for(rng):
    x, y = data(rng, 4)
    meeting = threading.Barrier(3, timeout=20)

    class Together(PyDataset):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            meeting.wait()  # passes only with three at once
            return x, y

    line().fit(Together(workers=3), verbose=0)
    assert not [t for t in threading.enumerate() if t.name.startswith("numbarnn-data")]


def test_an_error_in_a_worker_comes_out(rng):
    class Broken(Cut):
        def __getitem__(self, index):
            if index == 2:
                raise OSError("no such file")
            return super().__getitem__(index)

    for workers in (1, 2):
        with pytest.raises(OSError, match="no such file"):
            line().fit(Broken(*data(rng), workers=workers), verbose=0)


def test_a_dataset_without_end(rng):
    x, y = data(rng, 4)

    class Endless(PyDataset):
        num_batches = None

        def __getitem__(self, index):
            indices.append(index)
            return x, y

    for workers in (1, 2):
        indices = []
        line().fit(Endless(workers=workers), epochs=2, steps_per_epoch=3, verbose=0)
        assert sorted(indices) == list(range(6))
    for call in (line().fit, line().evaluate, line().predict):
        with pytest.raises(ValueError, match="has no end.*steps"):
            call(Endless(), verbose=0)


def test_a_dataset_that_does_not_call_super(rng):
    x, y = data(rng)

    class Plain(PyDataset):
        def __init__(self):
            pass

        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y

    assert line().evaluate(Plain(), verbose=0) == pytest.approx(line().evaluate(x, y, verbose=0))


def test_a_dataset_may_grow_between_epochs(rng):
    class Grows(Cut):
        def __len__(self):
            return 1 + self.asked.count("end")

    log = Steps()
    line().fit(Grows(*data(rng)), epochs=3, shuffle=False, verbose=0, callbacks=[log])
    assert log.seen == ["epoch 0 of 1", 0, "epoch 1 of 2", 0, 1, "epoch 2 of 3", 0, 1, 2]


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("options", [{"workers": -1}, {"workers": 1.5}, {"max_queue_size": 0}])
def test_a_dataset_refuses(options):
    with pytest.raises(ValueError, match=f"`{next(iter(options))}` must be an integer from"):
        PyDataset(**options)


def test_processes_are_refused(rng):
    with pytest.raises(ValueError, match="`use_multiprocessing=True` is not supported"):
        PyDataset(use_multiprocessing=True)
    dataset = Cut(*data(rng))
    dataset.use_multiprocessing = True
    with pytest.raises(ValueError, match="`use_multiprocessing=True` is not supported"):
        line().fit(dataset, verbose=0)


def test_what_does_not_go_together_is_refused(rng):
    x, y = data(rng)
    model = line()
    before = model.get_weights()
    for made, kind in (
        (lambda: iter(cut(x, y)), ".*"),
        (lambda: (b for b in cut(x, y)), "generator"),
        (Cut, "PyDataset"),
    ):
        batches = made(x, y) if made is Cut else made()
        for options, message in (
            ({"y": y}, f"When providing `x` as a {kind}, `y` should not be passed. Instead, the targets should be"),
            ({"sample_weight": y}, f"`x` as a {kind}, `sample_weight` should not be passed"),
            ({"batch_size": 3}, f"`batch_size` should not be passed when `x` is a {kind}"),
            ({"validation_split": 0.2}, "`validation_split` is only supported for arrays"),
        ):
            with pytest.raises(ValueError, match=message):
                model.fit(batches, verbose=0, **options)
    for name, bad in itertools.product(
        ("steps_per_epoch", "validation_steps", "validation_batch_size"), (0, 1.5, True)
    ):
        with pytest.raises(ValueError, match=f"`{name}` must be a positive integer"):
            model.fit(x, y, verbose=0, **{name: bad})
    for bad in (-1, 0.5):
        with pytest.raises(ValueError, match="`initial_epoch` must be an integer from 0"):
            model.fit(x, y, initial_epoch=bad, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_that_are_none_are_refused(rng):
    x, y = data(rng)
    model = line()
    for bad, message in (
        (iter(()), "must hold at least one batch"),
        (Again([]), "must hold at least one batch"),
        (Cut(x[:0], y[:0]), "must hold at least one batch"),
        (iter([None]), "Batch 0 of the data is None"),
        (iter([(x, y), (x[:0], y[:0])]), "Batch 1 of the data holds no samples"),
        (iter([(x, y[:3])]), "Data cardinality is ambiguous"),
        (iter([(x, y, y, y)]), "Data is expected to be in format"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(bad, verbose=0)
    with pytest.raises(ValueError, match="must hold at least one batch"):
        model.predict(iter(()), verbose=0)
    for bad in ("text", object()):
        with pytest.raises((TypeError, ValueError)):
            model.fit(bad, verbose=0)
    with pytest.raises(TypeError, match="iterators are not accepted"):
        model.train_on_batch(iter(cut(x, y)))
