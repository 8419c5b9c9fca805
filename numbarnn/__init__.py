"""Recurrent networks in plain Python, compiled by Numba: Keras's layers, NumPy's arrays, kernels of our own."""

from numbarnn import (
    activations,
    backend,
    callbacks,
    cells,
    constraints,
    datasets,
    graph,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    plotting,
    random,
    regularizers,
    saving,
    tree,
    utils,
)
from numbarnn.devices import device, get_device, set_device
from numbarnn.gradients import value_and_grad
from numbarnn.jit import get_num_threads, set_num_threads
from numbarnn.layers import Input, Layer
from numbarnn.models import Model, Sequential, load_model
from numbarnn.tensor_shape import TensorShape
from numbarnn.testing.gradcheck import gradcheck
from numbarnn.variable import Variable

__version__ = "0.1.0.dev0"

__all__ = [
    "Input",
    "Layer",
    "Model",
    "Sequential",
    "TensorShape",
    "Variable",
    "activations",
    "backend",
    "callbacks",
    "cells",
    "constraints",
    "datasets",
    "device",
    "get_device",
    "get_num_threads",
    "gradcheck",
    "graph",
    "initializers",
    "layers",
    "load_model",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "plotting",
    "random",
    "regularizers",
    "saving",
    "set_device",
    "set_num_threads",
    "tree",
    "utils",
    "value_and_grad",
]
