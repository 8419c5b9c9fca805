"""Helpers around training: seeds, labels, data that come batch by batch, sequences, pictures of models."""

from ..serialization import register_keras_serializable
from .batches import pack_x_y_sample_weight, unpack_x_y_sample_weight
from .model_plot import plot_model
from .numerical import normalize, to_categorical
from .py_dataset import PyDataset, Sequence
from .seeds import set_random_seed
from .sequence import Ragged, pad, pad_sequences
from .timeseries import timeseries_dataset_from_array

__all__ = [
    "PyDataset",
    "Ragged",
    "Sequence",
    "normalize",
    "pack_x_y_sample_weight",
    "pad",
    "pad_sequences",
    "plot_model",
    "register_keras_serializable",
    "set_random_seed",
    "timeseries_dataset_from_array",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
