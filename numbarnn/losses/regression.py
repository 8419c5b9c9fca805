"""Losses of numbers: differences squared, absolute, relative, logarithmic; angles."""

from __future__ import annotations

from functools import partial

from .. import backend, ops
from ..checks import axes, checked, number
from .arguments import match
from .loss import LossFunctionWrapper, hides, rows


@hides(rows)
def mean_squared_error(y_true, y_pred):
    """``mean((y_true - y_pred)**2, axis=-1)``.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
        A trailing 1 that only one of them has is dropped.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Examples
    --------
    >>> from numbarnn import losses
    >>> losses.mean_squared_error([[0.0, 1.0]], [[1.0, 3.0]])
    array([2.5])
    """
    y_true, y_pred = match(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


@hides(rows)
def mean_absolute_error(y_true, y_pred):
    """``mean(abs(y_true - y_pred), axis=-1)``; arguments and result as `mean_squared_error`."""
    y_true, y_pred = match(y_true, y_pred)
    return ops.mean(ops.abs(ops.subtract(y_pred, y_true)), axis=-1)


@hides(rows)
def mean_absolute_percentage_error(y_true, y_pred):
    """``100 * mean(abs((y_true - y_pred) / y_true), axis=-1)``; arguments and result as `mean_squared_error`.

    Targets nearer to zero than epsilon (`numbarnn.backend.epsilon`) are taken as epsilon.
    """
    y_true, y_pred = match(y_true, y_pred)
    scale = ops.maximum(ops.abs(y_true), backend.epsilon())
    return 100.0 * ops.mean(ops.abs((y_true - y_pred) / scale), axis=-1)


@hides(rows)
def mean_squared_logarithmic_error(y_true, y_pred):
    """``mean((log(1 + y_true) - log(1 + y_pred))**2, axis=-1)``; arguments and result as `mean_squared_error`.

    Values below epsilon, negative ones among them, are taken as epsilon (`numbarnn.backend.epsilon`).
    """
    y_true, y_pred = match(y_true, y_pred)
    least = backend.epsilon()
    difference = ops.log1p(ops.maximum(y_pred, least)) - ops.log1p(ops.maximum(y_true, least))
    return ops.mean(ops.square(difference), axis=-1)


@hides(rows)
def huber(y_true, y_pred, delta=1.0):
    """Half the squared error up to `delta`, beyond it ``delta * (abs(error) - delta / 2)``; mean over the last axis.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
    delta : float
        Positive.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes do not match or `delta` is not positive.
    """
    number("delta", delta, above=0)
    y_true, y_pred = match(y_true, y_pred)
    size = ops.abs(y_pred - y_true)
    near, far = 0.5 * ops.square(size), delta * (size - 0.5 * delta)
    return ops.mean(ops.where(ops.less_equal(size, delta), near, far), axis=-1)


@hides(rows)
def log_cosh(y_true, y_pred):
    """``mean(log(cosh(y_pred - y_true)), axis=-1)``; arguments and result as `mean_squared_error`.

    About half the squared error where that is small, the absolute error less log 2 where it is large.
    """
    y_true, y_pred = match(y_true, y_pred)
    size = ops.abs(y_pred - y_true)
    # log((exp(s) + exp(-s)) / 2), so that small errors do not drown in the rounding of log 2.
    return ops.mean(size + ops.log1p(0.5 * ops.expm1(-2.0 * size)), axis=-1)


@hides(rows)
def cosine_similarity(y_true, y_pred, axis=-1):
    """Minus the cosine of the angle between `y_true` and `y_pred`: -1 for one direction, 0 if one of them is zero.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
    axis : int
        The axis along which they are vectors.

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = match(y_true, y_pred)
    return -ops.sum(ops.normalize(y_true, axis=axis) * ops.normalize(y_pred, axis=axis), axis=axis)


class MeanSquaredError(LossFunctionWrapper):
    """Mean of squared differences; see `Loss` and `mean_squared_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_squared_error", dtype=None):
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(LossFunctionWrapper):
    """Mean of absolute differences; see `Loss` and `mean_absolute_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_absolute_error", dtype=None):
        super().__init__(mean_absolute_error, reduction, name, dtype)


class MeanAbsolutePercentageError(LossFunctionWrapper):
    """Mean of absolute differences in per cent of the targets; see `Loss` and `mean_absolute_percentage_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_absolute_percentage_error", dtype=None):
        super().__init__(mean_absolute_percentage_error, reduction, name, dtype)


class MeanSquaredLogarithmicError(LossFunctionWrapper):
    """Mean of squared differences of logarithms; see `Loss` and `mean_squared_logarithmic_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_squared_logarithmic_error", dtype=None):
        super().__init__(mean_squared_logarithmic_error, reduction, name, dtype)


class Huber(LossFunctionWrapper):
    """Squared error of small differences, absolute error of large ones; see `Loss` and `huber`."""

    @checked(delta=partial(number, above=0))
    def __init__(self, delta=1.0, reduction="sum_over_batch_size", name="huber_loss", dtype=None):
        super().__init__(huber, reduction, name, dtype, delta=delta)


class LogCosh(LossFunctionWrapper):
    """Logarithm of the hyperbolic cosine of differences; see `Loss` and `log_cosh`."""

    def __init__(self, reduction="sum_over_batch_size", name="log_cosh", dtype=None):
        super().__init__(log_cosh, reduction, name, dtype)


class CosineSimilarity(LossFunctionWrapper):
    """Minus the cosine between targets and predictions; see `Loss` and `cosine_similarity`."""

    @checked(axis=axes)
    def __init__(self, axis=-1, reduction="sum_over_batch_size", name="cosine_similarity", dtype=None):
        super().__init__(cosine_similarity, reduction, name, dtype, axis=axis)
