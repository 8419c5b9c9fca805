"""Sums and means over all batches, and means of a function's values."""

from __future__ import annotations

import math

import numpy as np

from .. import backend, serialization
from ..arrays import as_array
from ..cuda import is_device_array
from ..losses import eager_mask
from .arguments import combine_weight
from .metric import Metric


def _weigh(values, weights):
    """Values and weights as float64 of one shape, as Keras matches them: sums of weighted values and of weights.

    Values with more axes than the weights are averaged over the axes that are too many.
    """
    weights = as_array(weights).astype(np.float64, copy=False)
    if weights.ndim == values.ndim + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    elif values.ndim == weights.ndim + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > weights.ndim:
        values = values.mean(axis=tuple(range(weights.ndim, values.ndim)), dtype=np.float64)
    weights = np.broadcast_to(weights, values.shape)
    # Entries of weight zero are left out, not multiplied: a NaN there does no harm.
    if type(values) is not np.ndarray and is_device_array(values):
        return np.where(weights != 0, values * weights, 0.0), weights
    products = np.multiply(values, weights, out=np.zeros(values.shape), where=weights != 0)
    return products, weights


class Sum(Metric):
    """Sum of values, weighted if asked.

    Parameters
    ----------
    name, dtype :
        See `Metric`.
    """

    on_gpu = True

    def __init__(self, name="sum", dtype=None):
        super().__init__(name, dtype)
        self.total = self.add_variable(name="total")

    def update_state(self, values, sample_weight=None):
        """Add values.

        Parameters
        ----------
        values : array_like
        sample_weight : array_like, optional
            Broadcasts to `values` from the left.
        """
        values = as_array(values)
        if sample_weight is not None:
            values, _ = _weigh(values, sample_weight)
        self.total.data[...] += values.sum(dtype=np.float64).item()
        self.total.touch()

    def result(self):
        """The sum so far: float."""
        return float(self.total.data)


class Mean(Metric):
    """Mean of values over all batches, weighted if asked.

    Parameters
    ----------
    name, dtype :
        See `Metric`.

    Examples
    --------
    >>> from numbarnn.metrics import Mean
    >>> mean = Mean()
    >>> mean.update_state([1.0, 3.0])
    >>> mean.update_state([8.0])
    >>> mean.result()
    4.0
    """

    on_gpu = True

    def __init__(self, name="mean", dtype=None):
        super().__init__(name, dtype)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values, sample_weight=None):
        """Take values into account.

        Parameters
        ----------
        values : array_like, shape (batch, ...) or ()
            Every sample counts once, with the mean over its other axes.
        sample_weight : array_like, optional
            Broadcasts to `values` from the left.
        """
        values = as_array(values)
        if sample_weight is None:
            shape = values.shape
            if not shape:
                self.add(float(values), 1.0)
            elif values.size:
                if values.dtype.kind == "b":
                    total = int(np.count_nonzero(values))
                else:
                    total = values.sum(dtype=np.float64).item()
                self.add(total if len(shape) == 1 else total * shape[0] / values.size, shape[0])
            return
        products, weights = _weigh(values, sample_weight)
        inner = math.prod(products.shape[1:])
        if inner:
            self.add(float(products.sum()) / inner, float(weights.sum()) / inner)

    def add(self, total, count):
        """Add a sum of `count` values directly.

        Parameters
        ----------
        total, count : float
        """
        number = self.total.data
        number += total
        number = self.count.data
        number += count
        self.total.version += 1
        self.count.version += 1

    def result(self):
        """The mean so far: float, 0.0 if there was nothing."""
        count = self.count.data.item()
        return self.total.data.item() / count if count else 0.0


class MeanMetricWrapper(Mean):
    """Mean of a function's values ``fn(y_true, y_pred, **kwargs)``.

    Parameters
    ----------
    fn : callable
        Gives one value per sample (and per timestep) for arrays.
    name, dtype :
        See `Metric`.
    **kwargs
        Passed to `fn`.
    """

    on_gpu = True

    def __init__(self, fn, name=None, dtype=None, **kwargs):
        if not callable(fn):
            raise TypeError(f"`fn` must be a function of `y_true` and `y_pred`. Received: fn={fn!r}")
        super().__init__(name if name is not None else _function_name(fn), dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true, y_pred : array_like
        sample_weight : array_like, optional
            Multiplied by the mask that `y_pred` carries, if any.
        """
        mask = eager_mask(y_pred)
        if mask is not None:
            sample_weight = combine_weight(sample_weight, mask)
        fn = self._fn
        if self._fn_kwargs:
            values = fn(y_true, y_pred, **self._fn_kwargs)
        else:
            values = fn(y_true, y_pred)
        Mean.update_state(self, values, sample_weight)

    def get_config(self):
        """See `Metric.get_config`."""
        config = super().get_config()
        if type(self) is MeanMetricWrapper:
            config["fn"] = serialization.serialize_keras_object(self._fn)
        return {**config, **serialization.serialize_keras_object(self._fn_kwargs)}

    @classmethod
    def from_config(cls, config):
        """Make a metric from `get_config`'s dict."""
        if "fn" in config:
            config = {**config, "fn": serialization.deserialize_keras_object(config["fn"])}
        return cls(**config)


def _function_name(fn):
    return getattr(fn, "__name__", None) or backend.to_snake_case(type(fn).__name__)
