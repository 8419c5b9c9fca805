"""Losses of distributions and counts."""

from __future__ import annotations

from .. import backend, ops
from .arguments import match
from .loss import LossFunctionWrapper, hides, rows


@hides(rows)
def kl_divergence(y_true, y_pred):
    """Kullback-Leibler divergence ``sum(y_true * log(y_true / y_pred), axis=-1)``.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., classes)
        Probabilities, kept within [epsilon, 1] (`numbarnn.backend.epsilon`).

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = match(y_true, y_pred)
    y_true, y_pred = (ops.clip(p, backend.epsilon(), 1.0) for p in (y_true, y_pred))
    return ops.sum(y_true * ops.log(y_true / y_pred), axis=-1)


@hides(rows)
def poisson(y_true, y_pred):
    """``mean(y_pred - y_true * log(y_pred + epsilon), axis=-1)``: how badly rates predict counts.

    Parameters
    ----------
    y_true : array or Tensor, shape (batch, ..., d)
        Counts.
    y_pred : array or Tensor, shape (batch, ..., d)
        Rates, not negative.

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = match(y_true, y_pred)
    return ops.mean(y_pred - y_true * ops.log(y_pred + backend.epsilon()), axis=-1)


class KLDivergence(LossFunctionWrapper):
    """Kullback-Leibler divergence of predictions from targets; see `Loss` and `kl_divergence`."""

    def __init__(self, reduction="sum_over_batch_size", name="kl_divergence", dtype=None):
        super().__init__(kl_divergence, reduction, name, dtype)


class Poisson(LossFunctionWrapper):
    """Poisson loss of rates; see `Loss` and `poisson`."""

    def __init__(self, reduction="sum_over_batch_size", name="poisson", dtype=None):
        super().__init__(poisson, reduction, name, dtype)
