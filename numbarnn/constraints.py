"""What weights are held to: functions applied to a weight after each optimizer step."""

from __future__ import annotations

from functools import partial

from . import ops
from .backend import epsilon, to_snake_case
from .checks import axes, checked, fraction, number
from .serialization import deserialize_keras_object, export, interpret, serialize_keras_object

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]


class Constraint:
    """Base class: an object called with a weight's value that returns the value it should have.

    By itself it allows everything.
    """

    def __call__(self, w):
        """Return the nearest allowed value.

        Parameters
        ----------
        w : array, Variable or Tensor

        Returns
        -------
        array or Tensor
            Of the same shape.
        """
        return w

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make a constraint from `get_config`'s result."""
        return cls(**config)


def _norms(w, axis):
    axis = tuple(axis) if isinstance(axis, list) else axis
    return ops.sqrt(ops.sum(ops.square(w), axis=axis, keepdims=True))


class MaxNorm(Constraint):
    """Keep the norm of the weights that lead into each unit at or below a value.

    Parameters
    ----------
    max_value : float
    axis : int or list of int
        The axes over which a norm is taken; 0 for a kernel of shape (inputs, units).
    """

    @checked(max_value=partial(number, least=0), axis=axes)
    def __init__(self, max_value=2, axis=0):
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w):
        """Return `w`, scaled down where too long (see `Constraint`)."""
        norms = _norms(w, self.axis)
        return ops.multiply(w, ops.clip(norms, 0, self.max_value) / (epsilon() + norms))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"max_value": self.max_value, "axis": self.axis}


class NonNeg(Constraint):
    """Keep weights at or above zero."""

    def __call__(self, w):
        """Return `w` with negative values set to zero (see `Constraint`)."""
        return ops.maximum(w, 0)


class UnitNorm(Constraint):
    """Keep the norm of the weights that lead into each unit at one.

    Parameters
    ----------
    axis : int or list of int
        The axes over which a norm is taken.
    """

    @checked(axis=axes)
    def __init__(self, axis=0):
        self.axis = axis

    def __call__(self, w):
        """Return `w`, scaled to norm one (see `Constraint`)."""
        return ops.divide(w, epsilon() + _norms(w, self.axis))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"axis": self.axis}


class MinMaxNorm(Constraint):
    """Keep the norm of the weights that lead into each unit between two values.

    Parameters
    ----------
    min_value, max_value : float
    rate : float
        Weights are scaled to ``(1 - rate) * norm + rate * clip(norm, min_value, max_value)``: 1 enforces the bounds at
        once, less moves towards them step by step.
    axis : int or list of int
        The axes over which a norm is taken.
    """

    @checked(min_value=partial(number, least=0), max_value=partial(number, least=0), rate=fraction, axis=axes)
    def __init__(self, min_value=0.0, max_value=1.0, rate=1.0, axis=0):
        if min_value > max_value:
            raise ValueError(
                f"`min_value` must be at most `max_value`. Received: min_value={min_value}, max_value={max_value}"
            )
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w):
        """Return `w`, scaled into the bounds (see `Constraint`)."""
        norms = _norms(w, self.axis)
        wanted = self.rate * ops.clip(norms, self.min_value, self.max_value) + (1 - self.rate) * norms
        return ops.multiply(w, wanted / (epsilon() + norms))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"min_value": self.min_value, "max_value": self.max_value, "rate": self.rate, "axis": self.axis}


max_norm = MaxNorm
min_max_norm = MinMaxNorm
non_neg = NonNeg
unit_norm = UnitNorm

_CLASSES = (Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm)
_NAMES = {name: cls for cls in _CLASSES for name in (cls.__name__, to_snake_case(cls.__name__))}
export("keras.constraints", *_CLASSES)


def serialize(constraint):
    """Turn a constraint into plain Python values.

    Parameters
    ----------
    constraint : Constraint or None

    Returns
    -------
    dict or None
    """
    return serialize_keras_object(constraint)


def deserialize(config, custom_objects=None):
    """Make a constraint from `serialize`'s result, or from a name.

    Parameters
    ----------
    config : dict or str
    custom_objects : dict, optional

    Returns
    -------
    Constraint or callable
    """
    return deserialize_keras_object(config, custom_objects, _NAMES)


def get(identifier):
    """Turn whatever may be given for a constraint into one.

    Parameters
    ----------
    identifier : None, str, dict, class or callable

    Returns
    -------
    callable or None

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if identifier is None:
        return None
    return interpret(identifier, "constraint", deserialize, _NAMES)
