"""Small models and files for the tests of Keras's files."""

import json
import zipfile

import h5py
import numpy as np

from numbarnn import layers, models


def small(units=3):
    model = models.Sequential([layers.Input((4, 2)), layers.LSTM(units), layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def trained():
    model = small()
    model.train_on_batch(np.ones((2, 4, 2), "float32"), np.ones((2, 1), "float32"))
    return model


def contents(path):
    """Return the datasets of a file: path -> array."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def config_of(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json"))


def whole_h5(path, config, **attributes):
    """Write a file as Keras 2 does."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        for key, value in attributes.items():
            file.attrs[key] = value
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense"]
        dense = group.create_group("dense")
        dense.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        dense["dense/kernel:0"], dense["dense/bias:0"] = np.full((2, 3), 0.5, "float32"), np.arange(3, dtype="float32")
    return path


def sequential(*further, **dense):
    """Return Keras 2's configuration of a model."""
    given = {"name": "dense", "units": 3, "batch_input_shape": [None, 2], "dtype": "float32", **dense}
    return {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [{"class_name": "Dense", "config": given}, *further]},
    }
