"""Small models trained on the GPU against the same on the CPU, in float64: losses, weights, predictions."""

import importlib.util

import numpy as np

from numbarnn import backend, devices
from numbarnn.testing.errors import relative_error
from numbarnn.utils import set_random_seed

TOLERANCE = 1e-8
EPOCHS = 2


def check(case):
    """Return the errors of a trained model, whether it passed, or why it was not tried.

    Parameters
    ----------
    case : dict
        ``model`` names an entry of `MODELS`; ``tiny``: as a simulated GPU can bear.

    Returns
    -------
    dict
    """
    if importlib.util.find_spec("optree") is None:
        return {"skipped": "models need optree, which is not installed"}
    before = backend.floatx()
    backend.set_floatx("float64")
    try:
        there, here = (_trained(case, device) for device in ("cuda", "cpu"))
    finally:
        backend.set_floatx(before)
    names = ["losses", "predictions", *(f"weight {n}" for n in range(len(here) - 2))]
    errors = {name: relative_error(a, b) for name, a, b in zip(names, there, here, strict=True)}
    worst = max(errors.values())
    return {"errors": errors, "worst": worst, "passed": bool(worst <= TOLERANCE)}


def _trained(case, device):
    """Return losses, predictions, and weights; predictions are made on the CPU by what was trained."""
    rng = np.random.default_rng(0)
    set_random_seed(0)
    batch, timesteps, units = (3, 2, 2) if case["tiny"] else (32, 11, 12)
    x, y, make = MODELS[case["model"]](rng, batch, timesteps, units)
    with devices.device(device):
        model = make()
        history = model.fit(x, y, batch_size=-(-batch // 3), epochs=EPOCHS, shuffle=False, verbose=0)
    with devices.device("cpu"):
        predicted = model.predict(x, verbose=0)
    return [np.array(history.history["loss"]), predicted, *model.get_weights()]


def _classifier(rng, batch, timesteps, units):
    """Masked words through both directions of an LSTM and a GRU: Embedding, BatchNormalization, Adam, crossentropy."""
    from numbarnn import layers, models

    words = rng.integers(1, 2 * units, (batch, timesteps))
    words[np.arange(timesteps) >= rng.integers(1, timesteps + 1, batch)[:, None]] = 0

    def make():
        model = models.Sequential(
            [
                layers.Input((timesteps,), dtype="int64"),
                layers.Embedding(2 * units, units, mask_zero=True),
                layers.Bidirectional(layers.LSTM(units, return_sequences=True)),
                layers.GRU(units),
                layers.BatchNormalization(),
                layers.Dense(4, activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return words, rng.integers(0, 4, batch), make


def _regression(rng, batch, timesteps, units):
    """Sequences to sequences: SimpleRNN, LayerNormalization, TimeDistributed, SGD with momentum."""
    from numbarnn import layers, models, optimizers

    def make():
        model = models.Sequential(
            [
                layers.Input((timesteps, 5)),
                layers.SimpleRNN(units + 1, return_sequences=True, activation="relu"),
                layers.LayerNormalization(),
                layers.TimeDistributed(layers.Dense(2)),
            ]
        )
        model.compile(optimizers.SGD(0.05, momentum=0.9, clipnorm=1.0), "mse")
        return model

    return rng.normal(size=(batch, timesteps, 5)), rng.normal(size=(batch, timesteps, 2)), make


MODELS = {"classifier": _classifier, "regression": _regression}
