"""Helpers around training: seeds, one-hot labels, sequences of different lengths, pictures of models."""

from .batches import pack_x_y_sample_weight, unpack_x_y_sample_weight
from .model_plot import plot_model
from .numerical import to_categorical
from .seeds import set_random_seed
from .sequence import Ragged, pad, pad_sequences

__all__ = [
    "Ragged",
    "pack_x_y_sample_weight",
    "pad",
    "pad_sequences",
    "plot_model",
    "set_random_seed",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
