"""Layers under Keras's names."""

from .base import InputSpec, Layer, get_mask, set_mask
from .core import Activation, Dense, Dropout, Identity, Input, InputLayer, Lambda
from .embedding import Embedding
from .masking import Masking
from .normalization import BatchNormalization

__all__ = [
    "Activation",
    "BatchNormalization",
    "Dense",
    "Dropout",
    "Embedding",
    "Identity",
    "Input",
    "InputLayer",
    "InputSpec",
    "Lambda",
    "Layer",
    "Masking",
    "get_mask",
    "set_mask",
]
