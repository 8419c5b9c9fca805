"""Several `fit` are one long one, and a training that was cut off goes on where it was: bit for bit."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest

from numbarnn import callbacks, layers, losses, metrics, models
from numbarnn.models.state import Progress
from numbarnn.random import SeedGenerator
from numbarnn.utils import PyDataset, set_random_seed

EPOCHS, SAMPLES, SIZE = 4, 22, 5


def make(seed=7):
    """A model with all that draws or goes on: dropout, moving averages, Adam, metrics."""
    set_random_seed(seed)
    model = models.Sequential(
        [
            layers.Input((6, 3)),
            layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2),
            layers.BatchNormalization(),
            layers.Dropout(0.4),
            layers.Dense(3),
        ]
    )
    model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(SAMPLES, 6, 3)).astype("float32"), rng.integers(0, 3, size=SAMPLES)


class Cut(PyDataset):
    def __len__(self):
        return -(-SAMPLES // SIZE)

    def __getitem__(self, index):
        return tuple(a[SIZE * index : SIZE * index + SIZE] for a in data())


def everything(model):
    """All that training has changed: list of array."""
    return [v.numpy().copy() for v in (*model.variables, *model.optimizer.variables)]


def same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------------ several fits


@pytest.mark.parametrize("shuffle", [True, "batch", False])
def test_two_fits_are_one(shuffle):
    x, y = data()
    options = {"batch_size": SIZE, "shuffle": shuffle, "validation_data": (x, y), "verbose": 0}
    model = make()
    history = model.fit(x, y, epochs=EPOCHS, **options).history
    whole = everything(model)
    model = make()
    first = model.fit(x, y, epochs=2, **options).history
    second = model.fit(x, y, epochs=EPOCHS, initial_epoch=2, **options).history
    same(everything(model), whole)
    assert {name: values + second[name] for name, values in first.items()} == history


def test_two_fits_draw_different_orders_and_a_new_seed_starts_anew():
    x, y = data()
    model = make()
    assert model._training.shuffle_seed is None
    model.fit(x, y, verbose=0)
    generator = model._training.shuffle_seed
    assert isinstance(generator, SeedGenerator) and generator.state.numpy()[1] == 1
    model.fit(x, y, verbose=0)
    assert model._training.shuffle_seed is generator and generator.state.numpy()[1] == 2
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    assert model._training.shuffle_seed is generator
    set_random_seed(3)
    assert model._training.shuffle_seed is None
    model.fit(x, y, verbose=0)
    first = model._training.shuffle_seed
    assert first is not generator and first.state.numpy()[1] == 1
    set_random_seed(3)
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True))
    model = copy.deepcopy(model)
    model.fit(x, y, verbose=0)
    same([model._training.shuffle_seed.state.numpy()], [first.state.numpy()])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_with_the_same_orders(how):
    x, y = data()
    model = make()
    model.fit(x, y, batch_size=SIZE, verbose=0)
    twin = how(model)
    for each in (model, twin):
        each.fit(x, y, batch_size=SIZE, verbose=0)
    same(twin.get_weights(), model.get_weights())


def test_a_generator_that_is_assigned_outlives_seeds_set_before():
    x, y = data()
    model = make()
    model.fit(x, y, epochs=2, batch_size=SIZE, shuffle=True, verbose=0)
    kept = model._training.shuffle_seed.state.numpy().copy()
    set_random_seed(99)
    model._training.shuffle_seed = SeedGenerator(0, name="shuffle")
    model._training.shuffle_seed.state.assign(kept)
    model.fit(x, y, batch_size=SIZE, verbose=0)
    same([model._training.shuffle_seed.state.numpy()], [kept + [0, 1]])


# ------------------------------------------------------------------------------------------------ cut off


class Killed(Exception):
    pass


class Backup(callbacks.Callback):
    """Keeps all of a training in memory after batch or epoch number `at`, then kills it; a second one goes on there."""

    def __init__(self, at=None, hook="batch", kept=None):
        super().__init__()
        self.at, self.hook, self.kept, self.count = at, hook, kept, 0

    def variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def on_train_begin(self, logs=None):
        if self.kept is not None:
            values, progress = self.kept
            self.model.optimizer.ensure_built(self.model.trainable_variables)
            for variable, value in zip(self.variables(), values, strict=True):
                variable.assign(value)
            self.model._training.resume = Progress(**json.loads(progress))

    def count_down(self):
        if self.count == self.at:
            progress = json.dumps(self.model._progress()._asdict())
            self.kept = [v.numpy().copy() for v in self.variables()], progress
            raise Killed
        self.count += 1

    def on_train_batch_end(self, batch, logs=None):
        if self.hook == "batch":
            self.count_down()

    def on_epoch_end(self, epoch, logs=None):
        if self.hook == "epoch":
            self.count_down()


def cut_off_and_gone_on(source, options, at, hook):
    """Train in two processes, as it were; return history of the second one and all variables."""
    killed = Backup(at, hook)
    with pytest.raises(Killed):
        make().fit(*source(), callbacks=[killed], **options)
    model = make(seed=1234)  # everything is put back, whatever the second process began with
    history = model.fit(*source(), callbacks=[Backup(kept=killed.kept)], **options)
    assert model._training.resume is None and model._training.epochs is None
    return history, everything(model)


@pytest.mark.parametrize("at", [0, 3, 4, 5, 7, 12, 18, 19])
@pytest.mark.parametrize("kind", ["arrays", "batch", "dataset"])
def test_a_training_goes_on_in_the_middle_of_an_epoch(kind, at):
    options = {"epochs": EPOCHS, "verbose": 0}
    if kind != "dataset":
        options.update(batch_size=SIZE, shuffle="batch" if kind == "batch" else True)
    source = (lambda: (Cut(),)) if kind == "dataset" else data
    model = make()
    expected = model.fit(*source(), **options)
    history, found = cut_off_and_gone_on(source, options, at, "batch")
    same(found, everything(model))
    first = at // 5  # epochs of five batches
    assert history.epoch == expected.epoch[first:]
    assert history.history == {name: values[first:] for name, values in expected.history.items()}


@pytest.mark.parametrize("at", [0, 2])
def test_a_training_goes_on_after_an_epoch(at):
    options = {"epochs": EPOCHS, "batch_size": SIZE, "verbose": 0, "validation_data": data()}
    model = make()
    expected = model.fit(*data(), **options)
    history, found = cut_off_and_gone_on(data, options, at, "epoch")
    same(found, everything(model))
    assert history.history == {name: values[at + 1 :] for name, values in expected.history.items()}


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
# Five batches a pass: epochs of 2, 2, 1 and 2.
@pytest.mark.parametrize(("hook", "at"), [("batch", n) for n in range(7)] + [("epoch", n) for n in range(EPOCHS)])
def test_a_training_goes_on_where_passes_span_epochs(hook, at):
    options = {"epochs": EPOCHS, "batch_size": SIZE, "steps_per_epoch": 2, "verbose": 0}
    model = make()
    model.fit(*data(), **options)
    _, found = cut_off_and_gone_on(data, options, at, hook)
    same(found, everything(model))


def test_a_training_with_steps_of_ones_own_goes_on():
    class Own(models.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(3)
            self.build((None, 6, 3))

        def call(self, x):
            return self.head(x[:, 0])

        def train_step(self, batch):
            super().train_step(batch)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(self._training.total / self._training.count)
            return {metric.name: metric.result() for metric in self.metrics}

    def make_own():
        set_random_seed(5)
        model = Own()
        model.compile("adam", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model

    options = {"epochs": 2, "batch_size": SIZE, "verbose": 0}
    model = make_own()
    expected = model.fit(*data(), **options).history
    for at in (2, 4):
        killed = Backup(at)
        with pytest.raises(Killed):
            make_own().fit(*data(), callbacks=[killed], **options)
        twin = make_own()
        assert twin.fit(*data(), callbacks=[Backup(kept=killed.kept)], **options).history == expected
        same(everything(twin), everything(model))


def make_regression(*given):
    set_random_seed(5)
    model = models.Sequential([layers.Input((6, 3)), layers.Dropout(0.5), layers.Flatten(), layers.Dense(2)])
    model.compile("adam", "mse", metrics=[metric() for metric in given])
    return model


def test_metrics_that_make_their_variables_late_go_on():
    x, _ = data()
    options = {"epochs": 2, "batch_size": SIZE, "verbose": 0}
    kinds = (metrics.R2Score, metrics.MeanAbsoluteError)
    model = make_regression(*kinds)
    expected = model.fit(x, x[:, 0, :2], **options).history
    killed = Backup(2)
    with pytest.raises(Killed):
        make_regression(*kinds).fit(x, x[:, 0, :2], callbacks=[killed], **options)
    twin = make_regression(*kinds)
    assert twin.fit(x, x[:, 0, :2], callbacks=[Backup(kept=killed.kept)], **options).history == expected
    same(everything(twin), everything(model))
    with pytest.raises(ValueError, match="its metrics are not those of the model"):
        make_regression().fit(x, x[:, 0, :2], callbacks=[Backup(kept=killed.kept)], **options)


def test_nothing_of_an_iterator_is_left_out():
    x, y = data()
    taken = []

    def stream(first):
        for number in itertools.count(first):
            taken.append(number)
            yield x[:5] + number, y[:5]

    options = {"epochs": 2, "steps_per_epoch": 4, "verbose": 0}
    model = make()
    model.fit(stream(0), **options)
    killed, twin = Backup(2), make()
    with pytest.raises(Killed):
        make().fit(stream(0), callbacks=[killed], **options)
    taken.clear()
    twin.fit(stream(3), callbacks=[Backup(kept=killed.kept)], **options)
    assert taken == [3, 4, 5, 6, 7]
    same(everything(twin), everything(model))


def test_data_that_are_too_short_to_go_on_are_refused():
    x, y = data()
    killed = Backup(3)
    options = {"batch_size": SIZE, "verbose": 0}
    with pytest.raises(Killed):
        make().fit(x, y, callbacks=[killed], **options)
    with pytest.raises(ValueError, match="4 batches of the data are done, there are not so many"):
        make().fit(x[:12], y[:12], callbacks=[Backup(kept=killed.kept)], **options)
