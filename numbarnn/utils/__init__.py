"""Helpers around training: seeds, one-hot labels, sequences of different lengths."""

from .batches import pack_x_y_sample_weight, unpack_x_y_sample_weight
from .numerical import to_categorical
from .seeds import set_random_seed
from .sequence import Ragged, pad, pad_sequences

__all__ = [
    "Ragged",
    "pack_x_y_sample_weight",
    "pad",
    "pad_sequences",
    "set_random_seed",
    "to_categorical",
    "unpack_x_y_sample_weight",
]
