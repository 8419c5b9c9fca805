"""Helpers around training: seeds, one-hot labels, padding."""

from .numerical import to_categorical
from .seeds import set_random_seed
from .sequence import pad_sequences

__all__ = ["pad_sequences", "set_random_seed", "to_categorical"]
