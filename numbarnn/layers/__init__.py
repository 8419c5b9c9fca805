"""Layers under Keras's names."""

from .attention import Attention
from .base import InputSpec, Layer
from .bidirectional import Bidirectional
from .core import Activation, Dense, Dropout, Identity, Input, InputLayer, Lambda, SpatialDropout1D
from .embedding import Embedding
from .gru import GRU, GRUCell
from .lstm import LSTM, LSTMCell
from .masking import Masking
from .masks import get_mask, set_mask
from .merging import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from .normalization import BatchNormalization, LayerNormalization
from .pooling import GlobalAveragePooling1D, GlobalAvgPool1D, GlobalMaxPool1D, GlobalMaxPooling1D
from .reshaping import Flatten, Permute, RepeatVector, Reshape
from .rnn import RNN
from .simple_rnn import SimpleRNN, SimpleRNNCell
from .stacked import StackedRNNCells
from .time_distributed import TimeDistributed
from .watching import Directions, LayerTrace
from .wrapper import Wrapper

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Add",
    "Attention",
    "Average",
    "BatchNormalization",
    "Bidirectional",
    "Concatenate",
    "Dense",
    "Directions",
    "Dot",
    "Dropout",
    "Embedding",
    "Flatten",
    "GRUCell",
    "GlobalAveragePooling1D",
    "GlobalAvgPool1D",
    "GlobalMaxPool1D",
    "GlobalMaxPooling1D",
    "Identity",
    "Input",
    "InputLayer",
    "InputSpec",
    "LSTMCell",
    "Lambda",
    "Layer",
    "LayerTrace",
    "LayerNormalization",
    "Masking",
    "Maximum",
    "Minimum",
    "Multiply",
    "Permute",
    "RepeatVector",
    "Reshape",
    "SimpleRNN",
    "SimpleRNNCell",
    "SpatialDropout1D",
    "StackedRNNCells",
    "Subtract",
    "TimeDistributed",
    "Wrapper",
    "add",
    "average",
    "concatenate",
    "dot",
    "get_mask",
    "maximum",
    "minimum",
    "multiply",
    "set_mask",
    "subtract",
]
