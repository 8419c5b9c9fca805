"""PyTorch's weights: into layers of ours, and out of them again.

PyTorch keeps each matrix transposed and the gates of a GRU in the order r, z, n; ours are z, r, h. It has two biases in
every cell, which are added up where there is one here (`SimpleRNN`, `LSTM`); on the way back the second one is zero.
Files are safetensors: nothing is unpickled, and PyTorch need not be installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from .. import activations, backend
from ..layers import (
    GRU,
    LSTM,
    RNN,
    Bidirectional,
    Dense,
    Embedding,
    GRUCell,
    Input,
    LayerNormalization,
    LSTMCell,
    SimpleRNN,
    SimpleRNNCell,
)
from ..models import Model, Sequential
from ..utils.files import replacing

__all__ = ["from_torch", "load_torch", "to_torch"]

_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
# Ours, gate by gate, from theirs; each order is its own inverse.
_GATES = {SimpleRNNCell: (0,), GRUCell: (1, 0, 2), LSTMCell: (0, 1, 2, 3)}
_PART_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def from_torch(state_dict, prefix="", *, nonlinearity="tanh", return_sequences=True, dtype=None):
    """Make a model of the weights of an ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``, of any depth, in one or both directions.

    Parameters
    ----------
    state_dict : dict of array or torch.Tensor, or path
        PyTorch's names to values; or a safetensors file of them.
    prefix : str
        What stands before the names, ``"encoder.rnn."`` or ``"encoder.rnn"``; others are left alone.
    nonlinearity : {"tanh", "relu"}
        That of an ``nn.RNN``, which its weights do not show; LSTM and GRU have theirs.
    return_sequences : bool
        Whether the model returns the output of every timestep, as PyTorch does, or the last one alone.
    dtype : str, optional
        Of the layers; that of the weights by default, `numbarnn.backend.floatx` where these are whole numbers.

    Returns
    -------
    Sequential
        One layer for each of theirs, built, from (batch, timesteps, features): PyTorch's ``batch_first=True``.

    Raises
    ------
    ValueError
        If no recurrent module lies at the prefix, names or shapes do not fit together, there is a projection
        (``proj_size``), `nonlinearity` is given for a module that has none, or the file is a pickle.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn.interop.torch import from_torch
    >>> weights = {"weight_ih_l0": np.ones((12, 2)), "weight_hh_l0": np.ones((12, 3))}
    >>> model = from_torch(weights)
    >>> [type(layer).__name__ for layer in model.layers], model.output_shape
    (['LSTM'], (None, None, 3))
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'`nonlinearity` must be "tanh" or "relu". Received: nonlinearity={nonlinearity!r}')
    state, prefix = _read(state_dict), _dotted(prefix)
    depth = _depth(state, prefix)
    reverse = f"{prefix}weight_ih_l0_reverse" in state
    use_bias = f"{prefix}bias_ih_l0" in state
    kernel, recurrent_kernel = state[f"{prefix}weight_ih_l0"], state.get(f"{prefix}weight_hh_l0")
    if recurrent_kernel is None or kernel.ndim != 2 or recurrent_kernel.ndim != 2:
        raise ValueError(f"`state_dict` must hold matrices {prefix}weight_ih_l0 and {prefix}weight_hh_l0")
    units = recurrent_kernel.shape[1]
    types = {1: SimpleRNN, 3: GRU, 4: LSTM}
    gates, rest = divmod(kernel.shape[0], units) if units else (0, 0)
    if rest or gates not in types:
        raise ValueError(
            f"{prefix}weight_ih_l0 must have 1, 3 or 4 times as many rows (RNN, GRU, LSTM) as {prefix}weight_hh_l0 has "
            f"columns. Received: shapes {kernel.shape} and {recurrent_kernel.shape}"
        )
    options = {
        "use_bias": use_bias,
        "dtype": dtype or (kernel.dtype.name if kernel.dtype.kind == "f" else backend.floatx()),
    }
    if gates == 1:
        options["activation"] = nonlinearity
    elif nonlinearity != "tanh":
        raise ValueError(
            f"`nonlinearity` is for an nn.RNN, and this is an nn.{types[gates].__name__}. Received: "
            f"nonlinearity={nonlinearity!r}"
        )
    stack = []
    for level in range(depth):
        layer = types[gates](units, return_sequences=return_sequences or level < depth - 1, **options)
        stack.append(Bidirectional(layer, dtype=options["dtype"]) if reverse else layer)
    model = Sequential([Input((None, kernel.shape[1]), dtype=options["dtype"]), *stack])
    assignments, unused = _assignments(model, state, prefix)
    if unused:
        raise ValueError(
            f"`state_dict` holds what does not belong to the {depth} layers at prefix={prefix!r}: {unused}. They are "
            f"nn.{types[gates].__name__}s {'in both directions' if reverse else 'in one direction'}, "
            f"{'with' if use_bias else 'without'} biases, as the first of them shows"
        )
    for variable, value in assignments:
        variable.assign(value)
    return model


def load_torch(modules, state_dict, prefix="", *, strict=True):
    """Set the weights of layers from those of PyTorch's modules.

    Parameters
    ----------
    modules : Layer, list of Layer, Sequential, or dict
        Recurrent layers one upon the other are one module of PyTorch's; so are `Dense` (``nn.Linear``), `Embedding` and
        `LayerNormalization` (whose `epsilon` PyTorch does not store with the weights: it is 1e-5 there). A dict leads
        from the modules' names to them.
    state_dict : dict of array or torch.Tensor, or path
        PyTorch's names to values; or a safetensors file of them.
    prefix : str
        What stands before all names.
    strict : bool
        Whether every name under the prefix must be used. Names that are missing are refused in any case.

    Raises
    ------
    TypeError
        For a layer that PyTorch has no counterpart of.
    ValueError
        If names or shapes do not fit, or a layer computes something that PyTorch's does not. No weight has changed
        then.
    """
    assignments, unused = _assignments(modules, _read(state_dict), _dotted(prefix))
    if strict and unused:
        raise ValueError(f"`state_dict` holds what no layer takes: {unused}. Pass `strict=False` to leave it out")
    for variable, value in assignments:
        variable.assign(value)


def _assignments(modules, state, prefix):
    """Return [(variable, value)] for all weights of layers, and the names under the prefix that no layer takes."""
    named = _named(modules, prefix)
    for name, module in named:
        _build(module, state, name)
    groups = [group for name, module in named for group in _groups(module, name)]
    used = {name for group in groups for name in group.names}
    missing = sorted(used - set(state))
    if missing:
        raise ValueError(f"`state_dict` lacks {missing}. It holds: {sorted(state)}")
    assignments = []
    for group in groups:
        shapes = [array.shape for array in group.theirs([v.numpy() for v in group.variables])]
        arrays = [state[name] for name in group.names]
        for name, array, shape in zip(group.names, arrays, shapes, strict=True):
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}. Received: {array.shape}")
        assignments += zip(group.variables, group.ours(arrays), strict=True)
    return assignments, sorted(name for name in state if name.startswith(prefix) and name not in used)


def to_torch(modules, path=None, prefix=""):
    """Return the weights of layers under PyTorch's names, for ``load_state_dict``.

    Parameters
    ----------
    modules : Layer, list of Layer, Sequential, or dict
        As in `load_torch`.
    path : path, optional
        A ``.safetensors`` file to write; ``safetensors.torch.load_file`` reads it.
    prefix : str
        What to put before all names.

    Returns
    -------
    dict of ndarray

    Raises
    ------
    TypeError
        For a layer that PyTorch has no counterpart of.
    ValueError
        If a layer has no weights yet, or computes something that PyTorch's does not (other activations, the reset gate
        before the product, outputs that are not concatenated), or `path` has another ending.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models
    >>> from numbarnn.interop.torch import to_torch
    >>> model = models.Sequential([layers.Input((None, 5)), layers.GRU(3)])
    >>> {name: array.shape for name, array in to_torch({"encoder": model}).items()}
    {'encoder.weight_ih_l0': (9, 5), 'encoder.weight_hh_l0': (9, 3), 'encoder.bias_ih_l0': (9,), \
'encoder.bias_hh_l0': (9,)}
    """
    if path is not None and not str(os.fspath(path)).endswith(".safetensors"):
        raise ValueError(f"`path` must end in .safetensors. Received: path={path!r}")
    state = {}
    for name, module in _named(modules, _dotted(prefix)):
        for group in _groups(module, name):
            arrays = group.theirs([variable.numpy() for variable in group.variables])
            state.update(zip(group.names, map(np.ascontiguousarray, arrays), strict=True))
    if path is not None:
        from safetensors.numpy import save

        with replacing(path) as file:
            file.write(save(state))
    return state


# ---------------------------------------------------------------------------------------------------------------
# names and files


def _dotted(prefix):
    return f"{prefix}." if prefix and not prefix.endswith(".") else prefix


def _read(state_dict):
    """Return a dict of arrays, float32 or float64 where they are floats."""
    if isinstance(state_dict, (str, os.PathLike)):
        path = str(os.fspath(state_dict))
        if path.endswith(_PICKLES):
            raise ValueError(
                f"{path} is a pickle, which may run anything when it is read. Save the weights with PyTorch as "
                "safetensors.torch.save_file(module.state_dict(), 'weights.safetensors') and pass that file"
            )
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            state_dict = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    if not isinstance(state_dict, Mapping):
        raise TypeError(
            f"`state_dict` must be a dict of arrays or the path of a safetensors file. Received: {type(state_dict)}"
        )
    return {name: _array(name, value) for name, value in state_dict.items()}


def _array(name, value):
    if hasattr(value, "detach"):  # a tensor of PyTorch's; NumPy has no bfloat16
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"`state_dict` must hold arrays of numbers. Received: {name} of dtype {array.dtype}")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _depth(state, prefix):
    """Return how many layers the recurrent module at the prefix has."""
    depth = 0
    while f"{prefix}weight_ih_l{depth}" in state:
        depth += 1
    if not depth:
        key = "weight_ih_l0"
        found = sorted(name.removesuffix(key) for name in state if name.endswith(key))
        raise ValueError(f"No recurrent module lies at prefix={prefix!r}. `state_dict` has them at {found}")
    if f"{prefix}weight_hr_l0" in state:
        raise ValueError("An LSTM with a projection (proj_size) has no counterpart here")
    return depth


def _named(modules, prefix):
    """Return [(prefix of the module, layer or list of recurrent layers)]."""
    if isinstance(modules, Mapping):
        return [pair for name, module in modules.items() for pair in _named(module, prefix + _dotted(name))]
    if isinstance(modules, Sequential):
        modules = modules.layers
        if len(modules) == 1 and not isinstance(modules[0], (RNN, Bidirectional)):
            modules = modules[0]
    if isinstance(modules, (RNN, Bidirectional)):
        modules = [modules]
    if isinstance(modules, (list, tuple)):
        others = [layer for layer in modules if not isinstance(layer, (RNN, Bidirectional))]
        if others or not modules:
            raise TypeError(
                "A list of layers is one recurrent module of PyTorch's, so it must hold recurrent layers only. "
                f"Received: {others or 'none'}. Pass a dict, from the names of the modules in PyTorch to layers"
            )
        return [(prefix, list(modules))]
    if not isinstance(modules, (Dense, Embedding, LayerNormalization)):
        hint = ": pass a dict, from the names of the modules in PyTorch to layers" if isinstance(modules, Model) else ""
        raise TypeError(
            "PyTorch's weights go into and come from recurrent layers, `Dense`, `Embedding` and `LayerNormalization`. "
            f"Received: {modules!r}{hint}"
        )
    return [(prefix, modules)]


# ---------------------------------------------------------------------------------------------------------------
# which weights belong together


class _Group(NamedTuple):
    """Weights of ours and of theirs that are made of one another."""

    names: tuple
    variables: tuple
    ours: Callable  # list of their arrays -> list of ours
    theirs: Callable


def _build(module, state, prefix):
    """Build the layers that have no weights yet, for as many features as the weights are made for."""
    layers = module if isinstance(module, list) else [module]
    level = 0
    for layer in layers:
        key = f"{prefix}weight_ih_l{level}" if isinstance(layer, (RNN, Bidirectional)) else f"{prefix}weight"
        level += len(getattr(getattr(layer, "cell", None), "cells", [None]))
        if layer.built or key not in state:
            continue
        features = state[key].shape[-1]
        layer.build((None, None, features) if isinstance(layer, (RNN, Bidirectional)) else (None, features))


def _groups(module, prefix):
    layers = module if isinstance(module, list) else [module]
    for layer in layers:
        if not layer.built:
            raise ValueError(f"Layer '{layer.name}' has no weights yet: call it, or `build` it, first")
    if isinstance(module, list):
        return _recurrent_groups(module, prefix)
    if isinstance(module, Embedding):
        return [_Group((f"{prefix}weight",), (module.embeddings,), list, list)]
    if isinstance(module, Dense):
        groups = [_Group((f"{prefix}weight",), (module.kernel,), _transposed, _transposed)]
        pairs = [("bias", module.bias)]
    else:
        _check_normalization(module)
        groups, pairs = [], [("weight", module.gamma), ("bias", module.beta)]
    for name, variable in pairs:
        if variable is not None:
            groups.append(_Group((prefix + name,), (variable,), list, list))
    return groups


def _transposed(arrays):
    return [array.T for array in arrays]


def _check_normalization(layer):
    axes = layer.axis if isinstance(layer.axis, list) else [layer.axis]
    if sorted(axes) != list(range(-len(axes), 0)) or layer.rms_scaling:
        raise ValueError(
            f"Layer '{layer.name}': PyTorch's LayerNorm is over the last axes, given from the end, without "
            f"`rms_scaling`. Received: axis={layer.axis}, rms_scaling={layer.rms_scaling}"
        )


def _recurrent_groups(layers, prefix):
    """Return the weights of recurrent layers one upon the other."""
    levels = [level for layer in layers for level in _levels(layer)]
    for number, layer in enumerate(layers[:-1]):
        if not layer.return_sequences:
            raise ValueError(f"Layer '{layer.name}', number {number} of a stack, must have return_sequences=True")
    _check_alike(levels)
    groups = []
    for number, level in enumerate(levels):
        for direction, cell in enumerate(level):
            end = f"_l{number}" + ("_reverse" if direction else "")
            names = tuple(f"{prefix}{part}{end}" for part in _PART_NAMES[: 4 if cell.use_bias else 2])
            variables = (cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else []))
            groups.append(_Group(names, variables, *_conversions(_kind(cell))))
    return groups


def _levels(layer):
    """Return the cells of a layer, [[forward, backward] or [forward], ...] from the lowest on."""
    if not isinstance(layer, Bidirectional):
        if layer.go_backwards:
            raise ValueError(f"Layer '{layer.name}' goes backwards, which PyTorch's layers alone cannot")
        return [[cell] for cell in _cells(layer)]
    if layer.merge_mode != "concat":
        raise ValueError(
            f"Layer '{layer.name}' must have merge_mode=\"concat\", as PyTorch has it. Received: {layer.merge_mode!r}"
        )
    both = [layer.forward_layer, layer.backward_layer]
    if both[0].go_backwards or not all(isinstance(each, RNN) and len(_cells(each)) == 1 for each in both):
        raise ValueError(
            f"Layer '{layer.name}' must hold one cell in each direction, forwards first: in PyTorch both directions "
            "of a layer go into both of the next one"
        )
    return [[each.cell for each in both]]


def _cells(layer):
    return getattr(layer.cell, "cells", [layer.cell])


def _kind(cell):
    return next((kind for kind in _GATES if type(cell) is kind), None)


def _check_alike(levels):
    """Refuse cells that no module of PyTorch's has together."""
    cells = [cell for level in levels for cell in level]
    for cell in cells:
        kind = _kind(cell)
        if kind is None:
            raise TypeError(f"PyTorch has no counterpart of the cell {cell!r}")
        usual = (activations.tanh, activations.sigmoid)
        if kind is SimpleRNNCell:
            fits = cell.activation in (activations.tanh, activations.relu)
        else:
            fits = (cell.activation, cell.recurrent_activation) == usual
        if not fits or (kind is GRUCell and not cell.reset_after):
            raise ValueError(
                f"Cell '{cell.name}' computes something that PyTorch does not: it has tanh (RNN: or relu), sigmoid for "
                "the gates, and the reset gate of a GRU after the product"
            )
    traits = {
        "number of directions": {len(level) for level in levels},
        "kind of cell": {type(cell).__name__ for cell in cells},
        "units": {cell.units for cell in cells},
        "use_bias": {cell.use_bias for cell in cells},
        "activation": {activations.serialize(cell.activation) for cell in cells},
    }
    for trait, values in traits.items():
        if len(values) > 1:
            raise ValueError(
                f"The layers of one module of PyTorch's have one {trait}. Received: {sorted(values)}. Pass a dict, "
                "from the names of several modules to layers"
            )


def _conversions(kind):
    """Return the functions from their arrays to ours and back: matrices, then biases if there are any."""
    order = _GATES[kind]

    def in_order(array):
        return np.concatenate([np.split(array, len(order))[gate] for gate in order])

    def ours(arrays):
        kernel, recurrent_kernel, *biases = map(in_order, arrays)
        if biases:
            biases = [np.stack(biases) if kind is GRUCell else biases[0] + biases[1]]
        return [kernel.T, recurrent_kernel.T, *biases]

    def theirs(arrays):
        kernel, recurrent_kernel, *bias = arrays
        biases = []
        if bias:
            biases = list(bias[0]) if kind is GRUCell else [bias[0], np.zeros_like(bias[0])]
        return [in_order(array) for array in (kernel.T, recurrent_kernel.T, *biases)]

    return ours, theirs
