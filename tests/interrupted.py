"""A training that may be killed: ``interrupted.py FOLDER KIND SAVE_FREQ [EPOCH BATCH]``; prints what came of it."""

import hashlib
import json
import os
import pathlib
import random
import signal
import sys

import numpy as np

from numbarnn import Model, Sequential, callbacks, layers, optimizers, value_and_grad
from numbarnn.random import uniform
from numbarnn.utils import set_random_seed

EPOCHS = 5


class Kill(callbacks.Callback):
    """Kill this process as nothing can prevent: when the batch is done, or the epoch (batch -1) is."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, -1) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def draws():
    """Draw from every global generator."""
    unseeded = layers.Dense(1)
    unseeded.build((None, 1))
    return [np.random.rand(), random.random(), float(uniform((1,))[0]), float(unseeded.kernel.numpy()[0, 0])]


class Counts(callbacks.Callback):
    """A user's own, with a state."""

    def __init__(self):
        super().__init__()
        self.batches = self.here = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.here += 1
        draws()

    def get_state(self):
        return {"batches": self.batches}

    def set_state(self, state):
        self.batches = state["batches"]


class Own(Model):
    def __init__(self):
        super().__init__()
        self.body = Sequential(
            [layers.Input((5, 3)), layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2), layers.Dense(1)]
        )

    def call(self, x, training=None):
        return self.body(x, training=training)

    def train_step(self, data):
        x, y = data
        (loss, y_pred), gradients = value_and_grad(self._loss_of, self)(x, y)
        self.optimizer.apply(gradients)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return self.get_metrics_result()

    def _loss_of(self, x, y):
        y_pred = self(x, training=True)
        return self.compute_loss(y=y, y_pred=y_pred), y_pred


def make(kind):
    if kind == "own":
        model = Own()
        model.build((None, 5, 3))
        return model
    shape = {"batch_shape": (4, 5, 3)} if kind == "stateful" else {"shape": (5, 3)}
    return Sequential(
        [
            layers.Input(**shape),
            layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2, stateful=kind == "stateful"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(1),
        ]
    )


def run(folder, kind, save_freq, *at):
    """Train; return everything that could tell that it was interrupted."""
    set_random_seed(3)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((24, 5, 3), "float32"), rng.standard_normal((24, 1), "float32")
    model = make(kind)
    model.compile(optimizers.Adam(0.05), "mse", metrics=["mae"])
    stop = callbacks.EarlyStopping("loss", patience=9, restore_best_weights=kind == "best")
    counts = Counts()
    others = [
        stop,
        callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=0.2),
        callbacks.CSVLogger(os.path.join(folder, "log.csv")),
        counts,
    ]
    if at:
        others.append(Kill(*at))
    backup = callbacks.BackupAndRestore(os.path.join(folder, "backup"), save_freq=save_freq)
    history = model.fit(
        x, y, batch_size=4, epochs=EPOCHS, validation_data=(x[:8], y[:8]), verbose=0, callbacks=[backup, *others],
        shuffle=kind != "stateful",
    )  # fmt: skip
    values = [np.array(v) for v in (*model.variables, *model.optimizer.variables)]
    return {
        "values": hashlib.sha256(b"".join(map(bytes, values))).hexdigest(),
        "history": history.history,
        "epochs": history.epoch,
        "best": [stop.best, stop.best_epoch],
        "batches": counts.batches,
        "batches in this process": counts.here,
        "csv": pathlib.Path(folder, "log.csv").read_text(),
        "a later fit": model.fit(x, y, batch_size=4, verbose=0).history,
        "later draws": draws(),
        "left": os.path.exists(os.path.join(folder, "backup")),
    }


if __name__ == "__main__":
    folder, kind, save_freq, *at = sys.argv[1:]
    print(json.dumps(run(folder, kind, save_freq if save_freq == "epoch" else int(save_freq), *map(int, at))))
