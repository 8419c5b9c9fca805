"""Layers under Keras's names."""

from .base import InputSpec, Layer
from .core import Activation, Dense, Dropout, Identity, Input, InputLayer, Lambda
from .embedding import Embedding
from .lstm import LSTM, LSTMCell
from .masking import Masking
from .masks import get_mask, set_mask
from .normalization import BatchNormalization
from .rnn import RNN
from .wrapper import Wrapper

__all__ = [
    "LSTM",
    "LSTMCell",
    "RNN",
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
    "Wrapper",
    "get_mask",
    "set_mask",
]
