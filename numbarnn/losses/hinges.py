"""Hinge losses: zero for answers that are right by a margin of 1."""

from __future__ import annotations

from .. import ops
from .arguments import match
from .loss import LossFunctionWrapper, hides, rows


def _signs(y_true):
    """Targets as -1 and 1, should all of them be 0 or 1."""
    binary = ops.all(ops.logical_or(ops.equal(y_true, 0.0), ops.equal(y_true, 1.0)))
    return ops.where(binary, 2.0 * y_true - 1.0, y_true)


def _margin(y_true, y_pred):
    y_true, y_pred = match(y_true, y_pred)
    return ops.maximum(1.0 - _signs(y_true) * y_pred, 0.0)


@hides(rows)
def hinge(y_true, y_pred):
    """``mean(max(1 - y_true * y_pred, 0), axis=-1)``.

    Parameters
    ----------
    y_true : array or Tensor, shape (batch, ..., d)
        -1 or 1; where all of them are 0 or 1, 0 means -1.
    y_pred : array or Tensor, shape (batch, ..., d)

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    return ops.mean(_margin(y_true, y_pred), axis=-1)


@hides(rows)
def squared_hinge(y_true, y_pred):
    """``mean(max(1 - y_true * y_pred, 0)**2, axis=-1)``; arguments and result as `hinge`."""
    return ops.mean(ops.square(_margin(y_true, y_pred)), axis=-1)


@hides(rows)
def categorical_hinge(y_true, y_pred):
    """``max(1 + highest - right, 0)``: the right class's score must exceed the highest of the others by 1.

    Parameters
    ----------
    y_true : array or Tensor, shape (batch, ..., classes)
        One-hot.
    y_pred : array or Tensor, shape (batch, ..., classes)
        Scores; the right class counts with score 0 among the others, as in Keras.

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = match(y_true, y_pred)
    right = ops.sum(y_true * y_pred, axis=-1)
    highest = ops.max((1.0 - y_true) * y_pred, axis=-1)
    return ops.maximum(highest - right + 1.0, 0.0)


class Hinge(LossFunctionWrapper):
    """Hinge loss of yes/no answers; see `Loss` and `hinge`."""

    def __init__(self, reduction="sum_over_batch_size", name="hinge", dtype=None):
        super().__init__(hinge, reduction, name, dtype)


class SquaredHinge(LossFunctionWrapper):
    """Squared hinge loss of yes/no answers; see `Loss` and `squared_hinge`."""

    def __init__(self, reduction="sum_over_batch_size", name="squared_hinge", dtype=None):
        super().__init__(squared_hinge, reduction, name, dtype)


class CategoricalHinge(LossFunctionWrapper):
    """Hinge loss of one-hot targets; see `Loss` and `categorical_hinge`."""

    def __init__(self, reduction="sum_over_batch_size", name="categorical_hinge", dtype=None):
        super().__init__(categorical_hinge, reduction, name, dtype)
