"""Errors of numbers."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np

from .. import losses
from ..checks import axes, checked, integer
from .arguments import check_outputs, masked_weight, same_rank, same_shape, spread_weight
from .metric import Metric
from .reduction import MeanMetricWrapper


class MeanSquaredError(MeanMetricWrapper):
    """Mean of squared differences; see `losses.mean_squared_error`."""

    _direction = "down"

    def __init__(self, name="mean_squared_error", dtype=None):
        super().__init__(losses.mean_squared_error, name, dtype)


class MeanAbsoluteError(MeanMetricWrapper):
    """Mean of absolute differences; see `losses.mean_absolute_error`."""

    _direction = "down"

    def __init__(self, name="mean_absolute_error", dtype=None):
        super().__init__(losses.mean_absolute_error, name, dtype)


class MeanAbsolutePercentageError(MeanMetricWrapper):
    """Mean of absolute differences in per cent of the targets; see `losses.mean_absolute_percentage_error`."""

    _direction = "down"

    def __init__(self, name="mean_absolute_percentage_error", dtype=None):
        super().__init__(losses.mean_absolute_percentage_error, name, dtype)


class MeanSquaredLogarithmicError(MeanMetricWrapper):
    """Mean of squared differences of logarithms; see `losses.mean_squared_logarithmic_error`."""

    _direction = "down"

    def __init__(self, name="mean_squared_logarithmic_error", dtype=None):
        super().__init__(losses.mean_squared_logarithmic_error, name, dtype)


class LogCoshError(MeanMetricWrapper):
    """Mean logarithm of the hyperbolic cosine of differences; see `losses.log_cosh`."""

    _direction = "down"

    def __init__(self, name="logcosh", dtype=None):
        super().__init__(losses.log_cosh, name, dtype)


def _cosine(y_true, y_pred, axis=-1):
    return -losses.cosine_similarity(y_true, y_pred, axis)


class CosineSimilarity(MeanMetricWrapper):
    """Mean cosine of the angle between targets and predictions: 1 for one direction, the loss with its sign turned.

    Parameters
    ----------
    name, dtype :
        See `Metric`.
    axis : int
        The axis along which they are vectors.
    """

    _direction = "up"

    @checked(axis=axes)
    def __init__(self, name="cosine_similarity", dtype=None, axis=-1):
        super().__init__(_cosine, name, dtype, axis=axis)


def _squared_error(y_true, y_pred):
    y_true, y_pred = same_rank(y_true, y_pred)
    return np.square(np.subtract(y_pred, y_true, dtype=np.float64))


class RootMeanSquaredError(MeanMetricWrapper):
    """Square root of the mean of squared differences."""

    _direction = "down"

    def __init__(self, name="root_mean_squared_error", dtype=None):
        super().__init__(_squared_error, name, dtype)

    def result(self):
        """The root so far: float, 0.0 if there was nothing."""
        return math.sqrt(super().result())


class R2Score(Metric):
    """Coefficient of determination: 1 for perfect predictions, 0 for those no better than the targets' mean.

    Parameters
    ----------
    class_aggregation : {"uniform_average", "variance_weighted_average", None}
        How the scores of several outputs become one; None leaves them apart.
    num_regressors : int
        For the adjusted score, the number of independent variables; 0 for the plain one. As in Keras, the number of
        samples in its formula counts every target value.
    name, dtype :
        See `Metric`.

    Raises
    ------
    ValueError
        For another aggregation, or a negative number.
    """

    _direction = "up"

    @checked(num_regressors=partial(integer, least=0))
    def __init__(self, class_aggregation="uniform_average", num_regressors=0, name="r2_score", dtype=None):
        super().__init__(name, dtype)
        known = None, "uniform_average", "variance_weighted_average"
        if class_aggregation not in known:
            raise ValueError(
                f"Invalid value for argument `class_aggregation`. Expected one of {known}. "
                f"Received: class_aggregation={class_aggregation}"
            )
        self.class_aggregation = class_aggregation
        self.num_regressors = num_regressors
        self.num_samples = self.add_variable(name="num_samples")
        self.squared_sum = None  # this and the others once the number of outputs is known

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true, y_pred : array_like, shape (batch, outputs)
        sample_weight : array_like, optional
            Shape (batch,), or that of `y_true`.

        Raises
        ------
        ValueError
            If the arrays are not of one such shape.
        """
        sample_weight = masked_weight(sample_weight, y_pred)
        y_true, y_pred = same_shape(y_true, y_pred)
        if y_pred.ndim != 2:
            raise ValueError(
                "R2Score expects 2D inputs with shape (batch_size, output_dim). "
                f"Received input shapes: y_pred.shape={y_pred.shape} and y_true.shape={y_true.shape}."
            )
        if self.squared_sum is None:
            for name in ("squared_sum", "sum", "total_mse", "count"):
                setattr(self, name, self.add_variable(y_pred.shape[1:], name=name))
        check_outputs(y_pred.shape[1:], self.squared_sum)
        y_true = y_true.astype(np.float64)
        weight = spread_weight(1.0 if sample_weight is None else sample_weight, y_true.shape)
        weighted = y_true * weight
        for variable, new in (
            (self.sum, weighted.sum(axis=0)),
            (self.squared_sum, (y_true * weighted).sum(axis=0)),
            (self.total_mse, (np.square(y_true - y_pred) * weight).sum(axis=0)),
            (self.count, weight.sum(axis=0)),
            (self.num_samples, y_true.size),
        ):
            variable.data[...] += new
            variable.touch()

    def result(self):
        """The score so far: float, or shape (outputs,); NaN where there was nothing or the targets did not vary."""
        if self.squared_sum is None:
            return math.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            total = self.squared_sum.data - np.square(self.sum.data) / self.count.data
            scores = 1.0 - self.total_mse.data / total
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "uniform_average":
                scores = scores.mean()
            elif self.class_aggregation is not None:
                scores = (total * scores).sum() / total.sum()
        spare = float(self.num_samples.data) - 1.0 - self.num_regressors
        if self.num_regressors and spare > 0:
            scores = 1.0 - (1.0 - scores) * (spare + self.num_regressors) / spare
        elif self.num_regressors:
            warnings.warn(
                f"The adjusted R2 score of {self.num_regressors} regressors needs {self.num_regressors + 2} target "
                f"values. Received: {int(self.num_samples.data)}; the plain score is returned",
                stacklevel=2,
            )
        return scores if np.ndim(scores) else float(scores)

    def get_config(self):
        """See `Metric.get_config`."""
        return {
            **super().get_config(),
            "class_aggregation": self.class_aggregation,
            "num_regressors": self.num_regressors,
        }
