"""What callbacks decide on given series of logs: driven without training, the same way for numbarnn's and Keras's."""

import contextlib
import io
import math
import warnings
from types import SimpleNamespace

NAN, INF = math.nan, math.inf


class Model:
    """What callbacks use of a model; its weights are the number of the epoch."""

    def __init__(self):
        self.metrics, self.metrics_names = [], ["loss"]
        self.optimizer = SimpleNamespace(learning_rate=1.0)
        self.stop_training = False
        self.weights, self.saved = [0], []

    def get_weights(self):
        return list(self.weights)

    def set_weights(self, weights):
        self.weights = list(weights)

    def save(self, path, overwrite=True):
        self.saved.append(str(path))

    save_weights = save


def decisions(callback, series, name="val_loss", batches=()):
    """Run a callback over epochs with these values; return all that it did: what, printed, warned."""
    model, rates, printed = Model(), [], io.StringIO()
    callback.set_model(model)
    callback.set_params({"epochs": len(series), "steps": len(batches), "verbose": 0})
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(printed):
        warnings.simplefilter("always")
        callback.on_train_begin()
        for epoch, value in enumerate(series):
            logs = {"other": 1.0} if value is None else {name: value}
            callback.on_epoch_begin(epoch, {})
            for batch in batches:
                callback.on_train_batch_end(batch, {"loss": value})
            model.weights = [epoch + 1]
            callback.on_epoch_end(epoch, logs)
            rates.append((model.optimizer.learning_rate, logs.get("learning_rate")))
            if model.stop_training:
                break
        callback.on_train_end({})
    return {
        "epochs": epoch + 1,
        "weights": model.weights,
        "rates": rates,
        "saved": model.saved,
        "printed": printed.getvalue(),
        "warned": [str(w.message) for w in caught],
    }


SERIES = {
    "better and worse": [3.0, 2.0, 2.5, 1.9, 1.95, 1.93, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "hardly better": [1.0, 0.9999, 0.9998, 0.9997, 0.9996, 0.5, 0.49999, 0.49998],
    "not a number": [2.0, NAN, 1.0, NAN, NAN, 0.5, INF, 0.4],
    "missing": [1.0, None, 0.9, None, None, 1.0],
    "constant": [1.0] * 7,
}
EARLY_STOPPING = [
    {},
    {"patience": 2, "verbose": 1},
    {"patience": 2, "min_delta": 0.05, "restore_best_weights": True, "verbose": 1},
    {"patience": 3, "baseline": 1.5},
    {"patience": 1, "start_from_epoch": 3, "restore_best_weights": True},
    {"patience": 2, "mode": "max", "restore_best_weights": True},
    {"patience": 0, "baseline": 0.1, "restore_best_weights": True},
    {"patience": 1, "min_delta": -0.2, "mode": "wrong"},
]
PLATEAU = [
    {"patience": 2},
    {"patience": 1, "factor": 0.5, "cooldown": 2, "verbose": 1},
    {"patience": 0, "min_lr": 0.05, "verbose": 1},
    {"patience": 1, "min_delta": 0.3, "mode": "max"},
]
CHECKPOINT = [
    {"save_best_only": True, "verbose": 1},
    {"save_best_only": True, "mode": "max", "initial_value_threshold": 1.5, "verbose": 1},
    {"verbose": 1},
    {"save_freq": 3},
    {"save_freq": 5, "verbose": 1},
]
CHECKPOINT_FILE = "e{epoch:02d}.keras"
