"""Losses of sets: how little predicted and true membership overlap.

Their sums run over `axis`: by default over everything, and the loss is a single number. To weigh samples, give the
axes within a sample. Masked entries are left out of the sums (Keras, which multiplies the finished sums by the mask,
counts them).
"""

from __future__ import annotations

from functools import partial

from .. import backend, ops
from ..checks import axes, checked, number
from .arguments import match
from .loss import LossFunctionWrapper, blank, hides


def _left_out(y_true, y_pred, mask, axis=None, **_):
    """The rule of sums over `axis`: zeros add nothing; a value counts if one of its entries does."""
    y_true, y_pred = blank(y_true, mask, 0), blank(y_pred, mask, 0)
    rank, masked = len(y_pred.shape), len(mask.shape)
    axes = range(rank) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    inner = tuple(a % rank for a in axes if a % rank < masked)
    return y_true, y_pred, ops.any(mask, axis=inner) if inner else mask


@hides(_left_out)
def dice(y_true, y_pred, axis=None):
    """``1 - 2 * sum(t * p) / (sum(t) + sum(p))``, t the targets and p the predictions.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ...)
        Membership, in [0, 1].
    axis : int or tuple of int, optional
        Where the sums run; everywhere by default.

    Returns
    -------
    array or Tensor
        The shape of `y_pred` without `axis`.
    """
    y_true, y_pred = match(y_true, y_pred)
    size = ops.sum(y_true, axis=axis) + ops.sum(y_pred, axis=axis)
    return 1.0 - 2.0 * ops.sum(y_true * y_pred, axis=axis) / (size + backend.epsilon())


@hides(_left_out)
def tversky(y_true, y_pred, alpha=0.5, beta=0.5, axis=None):
    """``1 - both / (both + alpha * missed + beta * wrong)``.

    Here ``both = sum(t * p)``, ``missed = sum(t * (1 - p))``, ``wrong = sum((1 - t) * p)``. With both weights 0.5 it
    is `dice`.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ...)
        Membership, in [0, 1].
    alpha, beta : float
        Weights of what is missed and of what is wrongly included.
    axis : int or tuple of int, optional
        Where the sums run; everywhere by default.

    Returns
    -------
    array or Tensor
        The shape of `y_pred` without `axis`.
    """
    y_true, y_pred = match(y_true, y_pred)
    both = ops.sum(y_true * y_pred, axis=axis)
    missed = ops.sum(y_true * (1.0 - y_pred), axis=axis)
    wrong = ops.sum((1.0 - y_true) * y_pred, axis=axis)
    return 1.0 - both / (both + alpha * missed + beta * wrong + backend.epsilon())


class Dice(LossFunctionWrapper):
    """Sørensen-Dice loss; see `Loss` and `dice`."""

    @checked(axis=partial(axes, optional=True))
    def __init__(self, reduction="sum_over_batch_size", name="dice", axis=None, dtype=None):
        super().__init__(dice, reduction, name, dtype, axis=axis)


class Tversky(LossFunctionWrapper):
    """Tversky loss; see `Loss` and `tversky`."""

    @checked(alpha=partial(number, least=0), beta=partial(number, least=0), axis=partial(axes, optional=True))
    def __init__(self, alpha=0.5, beta=0.5, reduction="sum_over_batch_size", name="tversky", axis=None, dtype=None):
        super().__init__(tversky, reduction, name, dtype, alpha=alpha, beta=beta, axis=axis)
