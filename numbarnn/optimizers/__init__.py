"""Optimizers: the update of all weights after a step, fused over flat parameter buffers."""

from __future__ import annotations

from .. import serialization
from . import schedules
from .adafactor import Adafactor
from .adam import Adam, Adamax, AdamW, Lamb, Nadam
from .adaptive import Adadelta, Adagrad, Ftrl, RMSprop
from .base import Optimizer
from .sgd import SGD, Lion

__all__ = [
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "Nadam",
    "Optimizer",
    "RMSprop",
    "deserialize",
    "get",
    "schedules",
    "serialize",
]

_CLASSES = (SGD, Adadelta, Adafactor, Adagrad, Adam, AdamW, Adamax, Ftrl, Lamb, Lion, Nadam, RMSprop)
_BY_NAME = {cls.__name__.lower(): cls for cls in _CLASSES}
serialization.export("keras.optimizers", Optimizer, *_CLASSES)


def serialize(optimizer):
    """Turn an optimizer into a dict.

    Parameters
    ----------
    optimizer : Optimizer

    Returns
    -------
    dict
    """
    return serialization.serialize_keras_object(optimizer)


def deserialize(config, custom_objects=None):
    """Make an optimizer from `serialize`'s dict.

    Parameters
    ----------
    config : dict
    custom_objects : dict, optional
        Name -> class.

    Returns
    -------
    Optimizer
    """
    if str(config.get("class_name", "")).lower() in _BY_NAME:
        config = {**config, "class_name": _BY_NAME[config["class_name"].lower()].__name__}
    return serialization.deserialize_keras_object(config, custom_objects, {c.__name__: c for c in _CLASSES})


def get(identifier):
    """An optimizer from what `compile` accepts.

    Parameters
    ----------
    identifier : str, dict or Optimizer
        A class name in any case (``"sgd"``, ``"adamw"``), a serialised optimizer, or one that exists.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        cls = _BY_NAME.get(identifier.lower()) or serialization.get_registered_object(identifier)
        if cls is not None:
            return cls()
    meant = serialization.suggestion(identifier, _BY_NAME) if isinstance(identifier, str) else ""
    raise ValueError(f"Could not interpret optimizer identifier: {identifier}{meant}")
