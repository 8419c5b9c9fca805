"""Configurations in Keras 3's ``.keras`` files: read without trust, and checked before they are written."""

from __future__ import annotations

import json

from ..layers.base import InputSpec, Layer
from ..layers.kernel_cell import KernelCell
from ..layers.rnn import RNN
from ..layers.stacked import StackedRNNCells
from ..loading import expecting
from ..models.model import Model
from ..serialization import deserialize_keras_object, serialize_keras_object

__all__ = ["described", "made", "parsed"]

# What a damaged or invented configuration may lead to, where it leads to no ValueError or TypeError by itself.
_NONSENSE = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError)
_ONLY_OURS = ("reset", "constants")  # arguments of calls


def parsed(text, name):
    """Read a JSON object.

    Parameters
    ----------
    text : bytes or str
    name : str
        Of the file, for messages.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: a configuration in it cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name}: a configuration in it should be a JSON object, not {type(value).__name__}")
    return value


def made(config, compiled, count):
    """Make the model of a configuration.

    Parameters
    ----------
    config : dict
    compiled : dict or None
        What it was compiled with.
    count : int
        How many numbers the file has for it: it may ask for about as many.

    Returns
    -------
    Model
        With new weights.

    Raises
    ------
    ValueError, TypeError
        If it is no model's, holds code, names what is not known, or is too large.
    """
    try:
        with expecting(count):
            model = deserialize_keras_object(config)
            if not isinstance(model, Model):
                raise ValueError(f"The configuration is no model's, but makes {model!r}")
            if compiled:
                model.compile_from_config(compiled)
    except _NONSENSE as error:
        raise ValueError(f"The configuration of the model makes no sense: {error!r}") from error
    return model


def described(model):
    """Return the configuration of a model that Keras 3 can make.

    Parameters
    ----------
    model : Model

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the model has something that Keras has not.
    NotImplementedError
        If a layer has no configuration.
    """
    for layer in model._flatten_layers():
        reason = _foreign(layer)
        if reason is not None:
            raise ValueError(_NOT_IN_KERAS.format(f"{reason}, in layer '{layer.name}'"))
    config = serialize_keras_object(model)
    _tidy(config)
    return config


_NOT_IN_KERAS = (
    "Keras has no {}, so the model cannot be written as a file of Keras. `save_weights` can store its weights."
)


def _foreign(layer):
    """Say what a layer has that Keras has not; None if there is nothing."""
    if isinstance(layer, RNN):
        if layer.time_major:
            return "`time_major=True`"
        if layer._num_constants:
            return "`constants`"
        if not isinstance(layer.cell, Layer):
            return f"cells that are no layers, such as {layer.cell!r}"
        if layer.built and not isinstance(layer.input_spec, InputSpec):
            return "recurrent layers with nested inputs"
    if isinstance(layer, StackedRNNCells) and layer.reverse_state_order:
        return "`reverse_state_order=True`"
    if isinstance(layer, KernelCell) and layer.implementation == 1 and layer.dropout and not layer.recurrent_dropout:
        return "`implementation=1` with dropout, which fails there"
    for name in ("activation", "recurrent_activation"):
        if getattr(getattr(layer, name, None), "__name__", None) == "hard_sigmoid_k2":
            return f"`{name}='hard_sigmoid_k2'`, which Keras 2's hard_sigmoid is here"
    return None


def _tidy(config):
    """Refuse operations and arguments of calls that Keras has not; leave out what it would warn of."""
    waiting = [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if str(item.get("module")) == "numbarnn.ops":
                raise ValueError(_NOT_IN_KERAS.format(f"operation '{item['class_name']}' as ours between layers"))
            if item.get("class_name") == "Embedding" and item.get("module") == "keras.layers":
                item["config"].pop("input_length", None)  # the shape of the input says it
            if isinstance(item.get("config"), dict) and str(item.get("module")) == "keras.layers":
                item["config"].pop("checkpoint", None)  # what is kept for gradients: results are the same without
            for call in item.get("inbound_nodes") or ():
                for key in _ONLY_OURS:
                    if call["kwargs"].get(key) is not None and str(item.get("module")).startswith("keras"):
                        raise ValueError(_NOT_IN_KERAS.format(f"`{key}=`, in a call of layer '{item['name']}'"))
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
