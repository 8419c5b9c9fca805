"""ONNX: models of ours as graphs of ONNX's operators, for onnxruntime and whatever else reads them.

A model is run once on symbols, as for training. What was recorded is a list of calls of the operations of
`numbarnn.ops` and of a few kernels; each becomes a few nodes of ONNX (`operations`, `recurrent`), whatever layer it
comes from.
"""

from __future__ import annotations

import numpy as np

from ... import graph, tree
from ...graph import Spec, Tensor
from ...layers import Embedding, TimeDistributed
from ...layers.base import Layer
from ...layers.kernel_cell import without_kernels
from ...layers.masks import set_mask
from ...models import Sequential
from ...models.functional import Functional
from ...utils.files import replacing
from .builder import Builder
from .operations import convert_nodes
from .recurrent import is_known

__all__ = ["to_onnx"]


def to_onnx(model, path=None, *, inputs=None, masked=False):
    """Write a model as an ONNX graph that computes what `predict` does.

    Axes of unknown length stay free: batch and timesteps. The states of stateful layers become inputs of the graph,
    named like weights, and outputs with ``_next`` behind the name: give them back at the next call, zeros at the first.
    (A stateful layer with an `initial_state` has an input ``fresh`` too: True for the rows that start from that one.)

    Built-in cells become the operators RNN, GRU and LSTM where these know the activations (elu, hard_sigmoid, linear,
    relu, sigmoid, softplus, softsign, tanh), in float32. Everything else that is recurrent, as a cell of one's own,
    becomes a loop (the operator Scan).

    Masks are computed in the graph, by the layers that make them (`Embedding` with `mask_zero`, `Masking`), or come in
    (`masked`). Any mask is exact: the recurrent operators of ONNX know sequences of different lengths, but only with
    the padding at the end, so the timesteps that count are moved to the front and their outputs back to their places.

    Parameters
    ----------
    model : Sequential, functional Model, or any Layer
    path : path, optional
        Where to write the file.
    inputs : nest of Tensor, optional
        What `Input` returned, nested as the model is called. Only for a model that does not know its inputs: a
        subclass, or a layer by itself. Floats that go nowhere but into an `Embedding` become int64.
    masked : bool
        Whether each input of two axes or more comes with a mask, an input ``<name>_mask`` of shape (batch, timesteps),
        bool, True where a timestep counts: as the padding of a `Ragged` is for `predict`.

    Returns
    -------
    onnx.ModelProto
        Checked by ``onnx.checker``; opset 18.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If `model` is no layer.
    ValueError
        If the model is not built and no `inputs` are given, or it does something that has no counterpart: `reset=` of
        a built-in cell, rarer operations of `numbarnn.ops`. The message names the operation and the line that called
        it.

    Notes
    -----
    The operator Gather takes negative ids for places from the end, where `Embedding` refuses them.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models
    >>> from numbarnn.interop.onnx import to_onnx
    >>> model = models.Sequential([layers.Input((None, 4)), layers.LSTM(8), layers.Dense(2)])
    >>> to_onnx(model, "model.onnx")  # doctest: +SKIP
    >>> session = onnxruntime.InferenceSession("model.onnx")  # doctest: +SKIP
    >>> session.run(None, {session.get_inputs()[0].name: np.zeros((1, 7, 4), np.float32)})  # doctest: +SKIP
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "numbarnn.interop.to_onnx needs onnx, which is not installed. Install it with: pip install 'numbarnn[onnx]'"
        ) from error
    if not isinstance(model, Layer):
        raise TypeError(f"`model` must be a model or a layer. Received: {model!r} (of type {type(model).__name__})")
    nest, names = _signature(model, inputs)
    specs = [_spec(model, x) for x in tree.leaves(nest)]
    masks = [Spec(spec.shape[:2], bool) if masked and spec.ndim > 1 else None for spec in specs]

    def run(specs, masks):
        for x, mask in zip(specs, masks, strict=True):
            if mask is not None:
                set_mask(x, mask)
        return model(tree.unflatten(tree.structure(nest), specs), training=False)

    if not model.built:  # outside of the trace, in which nothing can be made
        graph.abstract(run, (specs, masks))
    with without_kernels(lambda cell: not is_known(cell)):
        recorded, symbols, result = graph.trace_within(run, (specs, masks))
    b = Builder(onnx)
    values = _inputs(b, names, specs, masks, symbols)
    states = [
        variable for variable in recorded.leaves if variable in recorded.assigned and _is_read(recorded, variable)
    ]
    for variable in states:
        values[id(recorded.leaves[variable])] = b.input(variable.path, Spec.of(variable), variable.shape)

    value = convert_nodes(b, recorded.nodes, values)
    leaves = tree.leaves(result)
    for name, x in zip(_output_names(model, leaves), leaves, strict=True):
        b.output(name, value(x), Spec.of(x))
    for variable in states:
        now = recorded.variables[variable]
        b.output(f"{values[id(recorded.leaves[variable])]}_next", value(now), now.spec)
    made = b.model(model.name)
    if path is not None:
        with replacing(path) as file:
            file.write(made.SerializeToString())
    return made


def _signature(model, inputs):
    """Return the symbols that the model is called on, and their names."""
    if inputs is None:
        if isinstance(model, Sequential) and model.built:
            model._draw()
        try:
            inputs = model.input
        except AttributeError:
            inputs = None
    if inputs is None or not all(isinstance(x, Tensor) for x in tree.leaves(inputs)):
        raise ValueError(
            f"What model '{model.name}' is called on is not known: build it, or pass `inputs`, what `Input(shape)` "
            f"returned, nested as in its calls. Received: inputs={inputs}"
        )
    return inputs, [x.name or "input" for x in tree.leaves(inputs)]


def _spec(model, x):
    """Return shape and dtype of an input: int64 for one that is nothing but ids."""
    if x.dtype.kind == "f":
        if isinstance(model, Functional):
            takers = [node.operation for node in model._graph.nodes if any(x is y for y in node.inputs)]
        else:
            takers = model.layers[:1] if isinstance(model, Sequential) else [model]
        if takers and all(_looks_up(layer) for layer in takers):
            return Spec(x.shape, np.int64)
    return x.spec


def _looks_up(layer):
    while isinstance(layer, TimeDistributed):
        layer = layer.layer
    return isinstance(layer, Embedding)


def _inputs(b, names, specs, masks, symbols):
    """Make the inputs of the graph; return the names of the values of the symbols, by their ids."""

    def axes(name, rank):
        steps = "timesteps" if len(specs) == 1 else f"{name}_timesteps"
        return ["batch", steps, *(f"{name}_axis_{i}" for i in range(2, rank))][:rank]

    made = [b.input(name, spec, axes(name, spec.ndim)) for name, spec in zip(names, specs, strict=True)]
    for name, mask in zip(names, masks, strict=True):
        if mask is not None:
            made.append(b.input(f"{name}_mask", mask, axes(name, 2)))
    return dict(zip(map(id, symbols), made, strict=True))


def _is_read(recorded, variable):
    leaf = recorded.leaves[variable]
    return any(x is leaf for node in recorded.nodes for x in node.inputs)


def _output_names(model, leaves):
    names = getattr(model, "output_names", ())
    return names if len(names) == len(leaves) else [model.name] * len(leaves)
