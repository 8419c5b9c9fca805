"""What large weights cost: functions of a weight that are added to the loss."""

from __future__ import annotations

import math
import numbers

import numpy as np

from . import ops
from .backend import to_snake_case
from .serialization import deserialize_keras_object, export, interpret, serialize_keras_object

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "orthogonal_regularizer",
    "serialize",
]


class Regularizer:
    """Base class: an object called with a weight (or an activity) that returns a scalar penalty."""

    def __call__(self, x):
        """Return the penalty.

        Parameters
        ----------
        x : array, Variable or Tensor

        Returns
        -------
        scalar array or Tensor
        """
        return 0.0

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        raise NotImplementedError(f"{self} does not implement get_config()")

    @classmethod
    def from_config(cls, config):
        """Make a regularizer from `get_config`'s result."""
        return cls(**config)


def _penalty_factor(value, name):
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    if not ok:
        raise ValueError(f"Invalid value for argument {name}: expected a non-negative float. Received: {name}={value}")
    return float(value)


class L1L2(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(square(x))``.

    Parameters
    ----------
    l1, l2 : float
        Non-negative.
    """

    def __init__(self, l1=0.0, l2=0.0):
        self.l1 = _penalty_factor(0.0 if l1 is None else l1, "l1")
        self.l2 = _penalty_factor(0.0 if l2 is None else l2, "l2")

    def __call__(self, x):
        """Return the penalty (see `Regularizer`)."""
        terms = []
        if self.l1:
            terms.append(self.l1 * ops.sum(ops.abs(x)))
        if self.l2:
            terms.append(self.l2 * ops.sum(ops.square(x)))
        if not terms:
            return np.zeros((), x.dtype)
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"l1": self.l1, "l2": self.l2}


class L1(Regularizer):
    """``l1 * sum(abs(x))``.

    Parameters
    ----------
    l1 : float
        Non-negative.
    """

    def __init__(self, l1=0.01):
        self.l1 = _penalty_factor(0.01 if l1 is None else l1, "l1")

    def __call__(self, x):
        """Return the penalty (see `Regularizer`)."""
        return self.l1 * ops.sum(ops.abs(x))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"l1": self.l1}


class L2(Regularizer):
    """``l2 * sum(square(x))``.

    Parameters
    ----------
    l2 : float
        Non-negative.
    """

    def __init__(self, l2=0.01):
        self.l2 = _penalty_factor(0.01 if l2 is None else l2, "l2")

    def __call__(self, x):
        """Return the penalty (see `Regularizer`)."""
        return self.l2 * ops.sum(ops.square(x))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean absolute cosine between different rows (or columns) of a matrix.

    Parameters
    ----------
    factor : float
    mode : {"rows", "columns"}
    """

    def __init__(self, factor=0.01, mode="rows"):
        self.factor = _penalty_factor(factor, "factor")
        if mode not in ("rows", "columns"):
            raise ValueError(
                f'Invalid value for argument `mode`. Expected one of {{"rows", "columns"}}. Received: mode={mode}'
            )
        self.mode = mode

    def __call__(self, x):
        """Return the penalty (see `Regularizer`)."""
        if len(x.shape) != 2:
            raise ValueError(f"Inputs to OrthogonalRegularizer must have rank 2. Received: inputs.shape={x.shape}")
        rows = x if self.mode == "rows" else ops.transpose(x)
        size = rows.shape[0]
        rows = ops.normalize(rows, axis=1)
        cosines = ops.matmul(rows, ops.transpose(rows)) * (1.0 - np.eye(size, dtype=x.dtype))
        pairs = max(1.0, size * (size - 1.0) / 2.0)  # of a single row there is none: it costs nothing
        return self.factor * 0.5 * ops.sum(ops.abs(cosines)) / pairs

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"factor": self.factor, "mode": self.mode}


l1 = L1
l2 = L2
l1_l2 = L1L2
orthogonal_regularizer = OrthogonalRegularizer

_CLASSES = (L1, L1L2, L2, OrthogonalRegularizer, Regularizer)
_NAMES = {name: cls for cls in _CLASSES for name in (cls.__name__, to_snake_case(cls.__name__))}
_NAMES["l1_l2"] = L1L2
export("keras.regularizers", *_CLASSES)


def serialize(regularizer):
    """Turn a regularizer into plain Python values.

    Parameters
    ----------
    regularizer : Regularizer or None

    Returns
    -------
    dict or None
    """
    return serialize_keras_object(regularizer)


def deserialize(config, custom_objects=None):
    """Make a regularizer from `serialize`'s result, or from a name.

    Parameters
    ----------
    config : dict or str
    custom_objects : dict, optional

    Returns
    -------
    Regularizer or callable
    """
    return deserialize_keras_object(config, custom_objects, _NAMES)


def get(identifier):
    """Turn whatever may be given for a regularizer into one.

    Parameters
    ----------
    identifier : None, str, dict, class or callable
        A string for `L1L2` (``"l1_l2"``, ``"l1l2"``, ``"L1L2"``) has both factors at 0.01, as in Keras 2 and as Keras 3
        documents it (its own ``"l1l2"`` has both at 0).

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
    if isinstance(identifier, str) and _NAMES.get(identifier) is L1L2:
        return L1L2(0.01, 0.01)
    return interpret(identifier, "regularizer", deserialize, _NAMES)
