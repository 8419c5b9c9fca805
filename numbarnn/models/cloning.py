"""Models from other models: `clone_model` and `model_from_json`."""

from __future__ import annotations

import json

from .. import tree
from ..graph import Tensor
from ..layers.base import Layer
from ..layers.core import Input, InputLayer
from ..serialization import deserialize_keras_object, serialize_keras_object
from .functional import Functional
from .model import Model, takes_graph
from .sequential import Sequential

__all__ = ["clone_model", "model_from_json"]


def model_from_json(json_string, custom_objects=None):
    """Make a model from what `Model.to_json`, ours or Keras 3's, returned; its weights are new.

    Parameters
    ----------
    json_string : str
    custom_objects : dict, optional
        Name -> class or function, for what is neither built in nor registered.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If it is no JSON, or describes no model.
    TypeError
        If it names a class or function that is not known.

    Examples
    --------
    >>> from numbarnn import layers, models
    >>> model = models.Sequential([layers.Input((None, 3)), layers.LSTM(4), layers.Dense(1)])
    >>> models.model_from_json(model.to_json()).count_params() == model.count_params()
    True
    """
    config = json.loads(json_string)
    if not isinstance(config, dict) or "class_name" not in config:
        raise ValueError("`json_string` must describe a model, as `model.to_json()` does.")
    model = deserialize_keras_object(config, custom_objects)
    if not isinstance(model, Model):
        raise ValueError(f"`json_string` must describe a model. Received: one of {type(model).__name__}")
    return model


def clone_model(model, input_tensors=None, clone_function=None, call_function=None, recursive=False):
    """Make a model of the same layers with new weights, compiled in the same way.

    Parameters
    ----------
    model : Model
        A subclass that is neither `Sequential` nor made from inputs and outputs is made again from its configuration.
    input_tensors : nest of Tensor, optional
        Like ``model.input``: what the clone starts from.
    clone_function : callable, optional
        ``clone_function(layer)`` -> Layer, for each layer that is no input: a layer that it returns itself is shared.
        By default the layer is made again from its configuration.
    call_function : callable, optional
        ``call_function(layer, *args, **kwargs)`` -> nest of Tensor, how the layers of a functional model are called.
    recursive : bool
        Clone models within the model by these same rules.

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        For arguments that do not fit the model.
    """
    if not isinstance(model, Model):
        raise ValueError(f"`model` must be a Model. Received: {model!r}")
    if isinstance(model, Sequential):
        if call_function is not None:
            raise ValueError("`call_function` is for functional models: a Sequential model does not say how to call.")
        clone = _clone_sequential(model, input_tensors, _Cloning(clone_function, None, recursive))
    elif isinstance(model, Functional):
        clone = _clone_functional(model, input_tensors, _Cloning(clone_function, call_function, recursive))
    else:
        given = {
            "input_tensors": input_tensors, "clone_function": clone_function, "call_function": call_function
        }  # fmt: skip
        if any(value is not None for value in given.values()):
            raise ValueError(
                f"{', '.join(f'`{key}`' for key, value in given.items() if value is not None)}: only of use for "
                f"Sequential and functional models. Received a model of type {type(model).__name__}"
            )
        custom = {type(model).__name__: type(model)}
        return deserialize_keras_object(serialize_keras_object(model), custom)
    if model.compiled:
        clone.compile_from_config(model.get_compile_config())
    return clone


class _Cloning:
    """What becomes of each layer, once for a layer that is used several times."""

    def __init__(self, clone_function, call_function, recursive):
        self._function = clone_function or (lambda layer: type(layer).from_config(layer.get_config()))
        self.call_function, self._recursive, self._made = call_function, recursive, {}

    def __call__(self, layer):
        found = self._made.get(id(layer))
        if found is None:
            if self._recursive and isinstance(layer, Sequential):
                found = _clone_sequential(layer, None, self)
            elif self._recursive and isinstance(layer, Functional):
                found = _clone_functional(layer, None, self)
            else:
                found = self._function(layer)
            if not isinstance(found, Layer):
                raise ValueError(f"`clone_function` must return a layer. Received: {found!r} for layer '{layer.name}'")
            self._made[id(layer)] = found
        return found


def _input_like(layer):
    """Return the symbolic input of a clone."""
    return Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=layer.name, optional=layer.optional)


def _clone_sequential(model, input_tensors, cloning):
    if input_tensors is not None:
        leaves = tree.leaves(input_tensors)
        if len(leaves) != 1 or not isinstance(leaves[0], Tensor):
            raise ValueError(f"`input_tensors` must hold one symbolic tensor. Received: {input_tensors}")
        first = leaves[0]
        if not isinstance(getattr(first, "layer", None), InputLayer):
            first = Input(tensor=first)
        inputs = [first]
    else:
        inputs = [] if model._input is None else [_input_like(model._input)]
    return Sequential([*inputs, *map(cloning, model.layers)], name=model.name, trainable=model.trainable)


def _clone_functional(model, input_tensors, cloning):
    if input_tensors is None:
        values = [_input_like(layer) for layer in model._input_layers]
        inputs = tree.unflatten(tree.structure(model.input), values)
    else:
        inputs = input_tensors
        fits = tree.structure(inputs) == tree.structure(model.input)
        if not fits and len(tree.leaves(inputs)) == len(model.inputs) == 1:
            fits, inputs = True, tree.unflatten(tree.structure(model.input), tree.leaves(inputs))
        values = tree.leaves(inputs)
        if not fits or not all(isinstance(x, Tensor) for x in values):
            raise ValueError(
                f"`input_tensors` must be symbolic tensors in a nest like `model.input`: {model.input}. "
                f"Received: {input_tensors}"
            )

    def call(node, args, kwargs):
        if not isinstance(node.operation, Layer):
            return node.operation(*args, **kwargs)
        layer = cloning(node.operation)
        if cloning.call_function is not None:
            return cloning.call_function(layer, *args, **kwargs)
        return layer(*args, **kwargs)

    outputs = model._graph(*values, call=call)
    cls = type(model) if takes_graph(type(model)) else Functional
    clone = getattr(cls, "_serialized_as", cls)(inputs, outputs, name=model.name)
    if not model.trainable:
        clone.trainable = False
    return clone
