"""Helpers around training: seeds, one-hot labels, sequences of different lengths."""

from .numerical import to_categorical
from .seeds import set_random_seed
from .sequence import Ragged, pad, pad_sequences

__all__ = ["Ragged", "pad", "pad_sequences", "set_random_seed", "to_categorical"]
