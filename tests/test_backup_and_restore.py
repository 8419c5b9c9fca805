"""Trainings that are really killed, and go on bit for bit when they are run again."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import interrupted
import numpy as np
import pytest

from numbarnn import Sequential, layers
from numbarnn.callbacks import BackupAndRestore, Callback, EarlyStopping, LambdaCallback, LearningRateScheduler
from numbarnn.models import archive

SCRIPT = Path(interrupted.__file__)


def run(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPT.parent.parent), *sys.path[1:]])}
    return subprocess.run(
        [sys.executable, SCRIPT, folder, *map(str, arguments)], capture_output=True, text=True, env=environment
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
@pytest.mark.parametrize(
    ("kind", "save_freq", "at", "repeated"),
    [
        ("stateful", "epoch", (2, 3), 4),
        ("best", 4, (3, 2), 1),
        ("own", 4, (1, 5), 4),
    ],
)
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, kind, save_freq, at, repeated):
    """Six batches an epoch: with a backup every four, it goes on from the middle of an epoch.

    `repeated` is how many batches were lost. The backup of a batch or epoch comes after the callback that kills.
    """
    expected = interrupted.run(tmp_path, kind, "epoch")
    folder = tmp_path / "killed"
    folder.mkdir()
    assert run(folder, kind, save_freq, *at).returncode == -signal.SIGKILL
    assert (folder / "backup" / "latest.training").exists()
    done = run(folder, kind, save_freq)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    epoch, batch = at
    before = 6 * epoch + (6 if batch < 0 else batch + 1)
    assert expected.pop("batches in this process") == 6 * interrupted.EPOCHS
    assert found.pop("batches in this process") == 6 * interrupted.EPOCHS - before + repeated
    assert found == expected
    assert len(found["history"]["val_loss"]) == interrupted.EPOCHS and not found["left"]


X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = X.sum(axis=1, keepdims=True)


def make():
    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


class Fail(Exception):
    pass


def fail_at(epoch):
    def fail(number, logs):
        if number == epoch:
            raise Fail

    return LambdaCallback(on_epoch_begin=fail)


def fail_in(batch):
    """Fail after a batch, of whatever epoch."""

    def fail(number, logs):
        if number == batch:
            raise Fail

    return fail


def interrupt(model, *others, epoch=2, **options):
    """Train until an exception ends it."""
    with pytest.raises(Fail):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[*others, fail_at(epoch)], **options)


def test_after_an_exception_it_goes_on_as_well(tmp_path):
    whole = make()
    start = whole.get_weights()
    expected = whole.fit(X, Y, epochs=4, verbose=0, shuffle=False).history
    model = make()
    model.set_weights(start)
    interrupt(model, BackupAndRestore(tmp_path / "backup"), shuffle=False)
    other = make()  # of other weights
    history = other.fit(X, Y, epochs=4, verbose=0, shuffle=False, callbacks=BackupAndRestore(tmp_path / "backup"))
    assert history.history == expected and history.epoch == [0, 1, 2, 3]
    for a, b in zip(other.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not (tmp_path / "backup").exists()


@pytest.mark.parametrize("save_freq", ["epoch", 1, 3])
def test_a_rate_made_of_the_one_before_is_made_once_an_epoch(tmp_path, save_freq):
    def scheduler():
        return LearningRateScheduler(lambda epoch, rate: rate * 0.5)

    def fail(batch, logs):
        if scheduled.model.optimizer.iterations.numpy() == 10:  # four batches an epoch
            raise Fail

    options = {"epochs": 4, "batch_size": 2, "verbose": 0}
    expected = make().fit(X, Y, callbacks=scheduler(), **options).history["learning_rate"]
    scheduled, backup = scheduler(), BackupAndRestore(tmp_path, save_freq)
    with pytest.raises(Fail):
        make().fit(X, Y, callbacks=[backup, scheduled, LambdaCallback(on_train_batch_end=fail)], **options)
    again = make().fit(X, Y, callbacks=[BackupAndRestore(tmp_path, save_freq), scheduler()], **options)
    assert again.history["learning_rate"] == expected == [2.0**-n / 100 for n in range(1, 5)]


def test_what_is_not_ours_stays_in_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("of mine")
    make().fit(X, Y, epochs=2, verbose=0, callbacks=BackupAndRestore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_backup_that_is_kept_says_that_training_is_done(tmp_path):
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    first = make().fit(X, Y, epochs=2, verbose=0, callbacks=backup).history
    again = make().fit(X, Y, epochs=2, verbose=0, callbacks=BackupAndRestore(tmp_path, delete_checkpoint=False))
    assert again.history == first
    longer = make().fit(X, Y, epochs=3, verbose=0, callbacks=BackupAndRestore(tmp_path)).history
    assert longer["loss"][:2] == first["loss"] and len(longer["loss"]) == 3


def test_a_training_that_was_stopped_stays_stopped(tmp_path):
    """Killed between the decision to stop and the end of `fit`: the weights are given back in the second run."""
    stop = EarlyStopping("loss", patience=1, min_delta=100, restore_best_weights=True)

    def fail(logs):
        raise Fail

    model = make()
    with pytest.raises(Fail):
        backup = BackupAndRestore(tmp_path)
        model.fit(X, Y, epochs=9, verbose=0, callbacks=[LambdaCallback(on_train_end=fail), backup, stop])
    again = make()
    stop = EarlyStopping("loss", patience=1, min_delta=100, restore_best_weights=True)
    history = again.fit(X, Y, epochs=9, verbose=0, callbacks=[BackupAndRestore(tmp_path), stop])
    assert history.epoch == [0, 1] and stop.stopped_epoch == 1
    for a, b in zip(again.get_weights(), stop.best_weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_backup_before_helps_where_the_latest_is_damaged(tmp_path):
    backup = BackupAndRestore(tmp_path, double_checkpoint=True)
    interrupt(make(), backup, epoch=2)
    latest = tmp_path / "latest.training"
    latest.write_bytes(latest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="The backup before is restored: .*latest.training"):
        history = make().fit(X, Y, epochs=4, verbose=0, callbacks=BackupAndRestore(tmp_path, double_checkpoint=True))
    assert history.epoch == [0, 1, 2, 3]
    interrupt(make(), BackupAndRestore(tmp_path), epoch=2)
    latest.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="latest.training"):
        make().fit(X, Y, epochs=4, verbose=0, callbacks=BackupAndRestore(tmp_path))


def places(nest, path=()):
    """The ways to all values of a nest, but those of long lists of numbers."""
    found = [path] if path else []
    if isinstance(nest, dict) or (isinstance(nest, list) and len(nest) < 20):
        for key in nest if isinstance(nest, dict) else range(len(nest)):
            found += places(nest[key], (*path, key))
    return found


@pytest.mark.parametrize("bad", [None, "x", -1, 10**30, 10**6, [], {}], ids=str)
def test_a_backup_that_somebody_else_wrote_is_taken_whole_or_not_at_all(tmp_path, bad):
    """Its checksums are right and its numbers are not: an error, and the model as it was; or a training."""

    def backup():
        return BackupAndRestore(tmp_path, 1, delete_checkpoint=False)

    with pytest.raises(Fail):
        fail = LambdaCallback(on_train_batch_end=fail_in(2))
        make().fit(X, Y, batch_size=2, verbose=0, callbacks=[backup(), fail])
    path = tmp_path / "latest.training"
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist() if name != "metadata.json"}
    good = json.loads(members["extras.json"])
    refused = 0
    for *before, last in places({key: good[key] for key in ("progress", "frequency", "generators")}):
        extras = json.loads(members["extras.json"])
        around = extras
        for key in before:
            around = around[key]
        around[last] = bad
        archive.write(path, {**members, "extras.json": json.dumps(extras).encode()}, "0")
        model = make()
        weights, drawn = model.get_weights(), str(np.random.get_state())
        try:
            model.fit(X, Y, batch_size=2, verbose=0, callbacks=backup())
        except ValueError as error:
            if "The training cannot go on" in str(error):  # in data that have not so many batches
                continue
            refused += 1
            assert "latest.training cannot be loaded" in str(error), (before, last)
            assert all(map(np.array_equal, weights, model.get_weights())) and str(np.random.get_state()) == drawn
    assert refused > 10


def test_states_of_other_callbacks(tmp_path):
    class Odd(Callback):
        def get_state(self):
            return {"when": {1, 2}}

    with pytest.raises(TypeError, match=r"`get_state` of Odd must return numbers.*\{1, 2\}"):
        make().fit(X, Y, verbose=0, callbacks=[BackupAndRestore(tmp_path), Odd()])
    interrupt(make(), BackupAndRestore(tmp_path), EarlyStopping("loss"), epoch=1)
    with pytest.warns(UserWarning, match="not among those of this fit: EarlyStopping"):
        make().fit(X, Y, verbose=0, epochs=2, callbacks=BackupAndRestore(tmp_path))


def test_wrong_arguments_and_models(tmp_path):
    with pytest.raises(ValueError, match="Empty `backup_dir` argument passed"):
        BackupAndRestore("")
    with pytest.raises(ValueError, match="save_freq: 1.5"):
        BackupAndRestore(tmp_path, save_freq=1.5)
    unbuilt = Sequential([layers.Dense(1)])
    unbuilt.compile("sgd", "mse")
    with pytest.raises(ValueError, match="your model must be built before you call `fit"):
        unbuilt.fit(iter([(X, Y)]), verbose=0, callbacks=BackupAndRestore(tmp_path))
    unbuilt.fit(X, Y, verbose=0, callbacks=BackupAndRestore(tmp_path / "arrays"))  # whose shapes are known beforehand
    interrupt(make(), BackupAndRestore(tmp_path), epoch=1)
    other = Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(1)])
    other.compile("sgd", "mse")
    with pytest.raises(ValueError, match="latest.training cannot be loaded: it does not fit"):
        other.fit(X, Y, verbose=0, callbacks=BackupAndRestore(tmp_path))
