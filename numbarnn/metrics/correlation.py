"""Correlations of targets and predictions."""

from __future__ import annotations

import numpy as np

from .. import backend
from ..checks import axes, checked
from .arguments import same_rank
from .reduction import MeanMetricWrapper


def _centred(y_true, y_pred, axis):
    """Both without their means over `axis`, and these means."""
    y_true, y_pred = (y.astype(np.result_type(y, np.float32)) for y in same_rank(y_true, y_pred))
    means = y_true.mean(axis=axis, keepdims=True), y_pred.mean(axis=axis, keepdims=True)
    return y_true - means[0], y_pred - means[1], *means


def pearson_correlation(y_true, y_pred, axis=-1):
    """Pearson's coefficient: covariance over the product of the standard deviations.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ..., d)
    axis : int
        The axis along which they vary.

    Returns
    -------
    ndarray, shape (batch, ...)
        NaN where one of them does not vary.
    """
    a, b, _, _ = _centred(y_true, y_pred, axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).mean(axis=axis) / (a.std(axis=axis) * b.std(axis=axis))


def concordance_correlation(y_true, y_pred, axis=-1):
    """Lin's coefficient: Pearson's, lowered by differences of mean and scale.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ..., d)
    axis : int
        The axis along which they vary.

    Returns
    -------
    ndarray, shape (batch, ...)
    """
    a, b, mean_a, mean_b = _centred(y_true, y_pred, axis)
    spread = a.var(axis=axis) + b.var(axis=axis) + np.square(mean_a - mean_b).squeeze(axis)
    return 2.0 * (a * b).mean(axis=axis) / (spread + backend.epsilon())


class PearsonCorrelation(MeanMetricWrapper):
    """Mean of Pearson's coefficients of the samples; see `pearson_correlation`."""

    _direction = "up"

    @checked(axis=axes)
    def __init__(self, name="pearson_correlation", dtype=None, axis=-1):
        super().__init__(pearson_correlation, name, dtype, axis=axis)


class ConcordanceCorrelation(MeanMetricWrapper):
    """Mean of Lin's coefficients of the samples; see `concordance_correlation`."""

    _direction = "up"

    @checked(axis=axes)
    def __init__(self, name="concordance_correlation", dtype=None, axis=-1):
        super().__init__(concordance_correlation, name, dtype, axis=axis)
