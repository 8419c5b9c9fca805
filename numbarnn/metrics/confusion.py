"""Counts of right and wrong yes/no answers at thresholds, and what is computed from them directly.

An answer is yes where the prediction is greater than the threshold. Thresholds are compared in the predictions' own
precision, so that a prediction of 0.3 is never greater than a threshold of 0.3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..checks import integer, number
from .arguments import masked_weight, ratio, same_shape, spread_weight
from .metric import Metric


class Counts(NamedTuple):
    """(Weighted) numbers of answers, each of shape (thresholds,), or (thresholds, labels) of labels kept apart."""

    true_positives: np.ndarray
    false_positives: np.ndarray
    true_negatives: np.ndarray
    false_negatives: np.ndarray


def _at_one(truth, predictions, threshold):
    positive = predictions > threshold
    both = np.count_nonzero(truth & positive)
    yes, right = np.count_nonzero(positive), np.count_nonzero(truth)
    return Counts(
        *(np.array([n], np.float64) for n in (both, yes - both, truth.size - yes - right + both, right - both))
    )


def _at_many(truth, predictions, weight, thresholds):
    labels, size = predictions.shape[1], len(thresholds) + 1
    # Each prediction falls into the bin of so many thresholds below it; one that is NaN exceeds none.
    bins = np.searchsorted(thresholds, predictions)
    bins[np.isnan(predictions)] = 0
    if labels > 1:
        bins += size * np.arange(labels)
    counts = []
    for chosen in (truth, ~truth):
        weights = None if weight is None else weight[chosen]
        found = np.bincount(bins[chosen], weights, minlength=size * labels).reshape(labels, size).astype(np.float64)
        above = found[:, :0:-1].cumsum(axis=1)[:, ::-1].T
        counts.append((above, found[:, :-1].cumsum(axis=1).T))
    (tp, fn), (fp, tn) = counts
    return Counts(tp, fp, tn, fn)


def count(truth, predictions, weight, thresholds):
    """Count answers.

    Parameters
    ----------
    truth : ndarray of bool, shape (entries,) or (samples, labels)
    predictions : ndarray of float
        Of that shape.
    weight : ndarray of float64 or None
        Of that shape.
    thresholds : ndarray, shape (thresholds,)
        Rising.

    Returns
    -------
    Counts
        Of shape (thresholds,), or (thresholds, labels).
    """
    thresholds = thresholds.astype(predictions.dtype)
    if truth.ndim > 1:
        return _at_many(truth, predictions, weight, thresholds)
    if weight is None and len(thresholds) == 1:
        return _at_one(truth, predictions, thresholds[0])
    columns = (None if array is None else array[:, None] for array in (truth, predictions, weight))
    return Counts(*(found[:, 0] for found in _at_many(*columns, thresholds)))


def check_thresholds(thresholds, default):
    """Thresholds as a list.

    Parameters
    ----------
    thresholds : float, list of float, or None
    default : float
        For None.

    Raises
    ------
    ValueError
        If one is not in [0, 1].
    """
    if thresholds is None:
        return [default]
    found = list(thresholds) if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    if not found:
        raise ValueError(f"`thresholds` must be at least one number. Received: thresholds={thresholds!r}")
    return [number("thresholds", threshold, least=0, most=1) for threshold in found]


class ConfusionMetric(Metric):
    """Base of metrics that are made of counts at thresholds.

    Parameters
    ----------
    thresholds : sequence of float
    kept : tuple of str
        Which fields of `Counts` are accumulated, each in a variable of this name.
    name, dtype :
        See `Metric`.
    top_k : int, optional
        Only the `top_k` greatest predictions along the last axis may be yes.
    class_id : int, optional
        Only this class of the last axis counts.
    """

    def __init__(self, thresholds, kept, name=None, dtype=None, top_k=None, class_id=None):
        super().__init__(name, dtype)
        self.thresholds = list(thresholds)
        self.top_k = integer("top_k", top_k, least=1, optional=True)
        self.class_id = integer("class_id", class_id, least=0, optional=True)
        self._kept = kept
        order = np.argsort(self.thresholds, kind="stable")
        self._rising = np.asarray(self.thresholds, np.float64)[order]
        self._places = None if (order[1:] > order[:-1]).all() else np.argsort(order)

    def _add_counts(self, shape):
        for name in self._kept:
            setattr(self, name, self.add_variable(shape, name=name))

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true : array_like, shape (batch, ...)
            What is not zero is yes.
        y_pred : array_like, shape (batch, ...)
        sample_weight : array_like, optional
            Of the shape of the predictions or of their first axes; multiplied by the mask that `y_pred` carries.

        Raises
        ------
        ValueError
            If the shapes do not match, or there is no class `class_id`.
        """
        sample_weight = masked_weight(sample_weight, y_pred)
        y_true, y_pred = self._chosen(*same_shape(y_true, y_pred))
        if y_pred.dtype.kind != "f" or y_pred.dtype == np.float16:
            y_pred = y_pred.astype(np.float32)
        weight = None if sample_weight is None else spread_weight(sample_weight, y_pred.shape)
        self._accumulate(y_true.astype(bool, copy=False), y_pred, weight)

    def _chosen(self, y_true, y_pred):
        if (self.top_k is not None or self.class_id is not None) and y_pred.ndim < 2:
            raise ValueError(
                "When `top_k` or `class_id` is given, y_pred must have shape (num_samples, num_classes). "
                f"Received: y_pred.shape={y_pred.shape}"
            )
        if self.top_k is not None and self.top_k < y_pred.shape[-1]:
            others = np.argsort(-y_pred, axis=-1, kind="stable")[..., self.top_k :]
            y_pred = y_pred.astype(np.result_type(y_pred, np.float32))
            np.put_along_axis(y_pred, others, -np.inf, axis=-1)
        if self.class_id is not None:
            if not 0 <= self.class_id < y_pred.shape[-1]:
                raise ValueError(f"There is no class {self.class_id} among {y_pred.shape[-1]}.")
            y_true, y_pred = (y[..., self.class_id, None] for y in (y_true, y_pred))
        return y_true, y_pred

    def _accumulate(self, truth, predictions, weight):
        if truth.ndim != 1:
            truth, predictions = truth.ravel(), predictions.ravel()
            weight = None if weight is None else weight.ravel()
        self._take(count(truth, predictions, weight, self._rising))

    def _take(self, counts):
        for name in self._kept:
            found, variable = getattr(counts, name), getattr(self, name)
            number = variable.data
            number += found if self._places is None else found[self._places]
            variable.touch()

    def _per_threshold(self, values):
        return float(values[0]) if len(self.thresholds) == 1 else values


class ConfusionCount(ConfusionMetric):
    """Base of metrics that are one of the counts: its field in `Counts` is `counted`.

    Parameters
    ----------
    thresholds : float or list of float, optional
        In [0, 1]; 0.5 by default.
    name, dtype :
        See `Metric`.

    Raises
    ------
    ValueError
        If a threshold is not in [0, 1].
    """

    counted = None

    def __init__(self, thresholds=None, name=None, dtype=None):
        super().__init__(check_thresholds(thresholds, 0.5), (self.counted,), name, dtype)
        self._given = thresholds
        self._add_counts((len(self.thresholds),))

    def result(self):
        """The number so far: float, or one for each of several thresholds."""
        return self._per_threshold(getattr(self, self.counted).data.copy())

    def get_config(self):
        """See `Metric.get_config`."""
        return {**super().get_config(), "thresholds": self._given}


class TruePositives(ConfusionCount):
    """(Weighted) number of yes answered with yes; arguments as `ConfusionCount`."""

    counted = "true_positives"


class FalsePositives(ConfusionCount):
    """(Weighted) number of no answered with yes; arguments as `ConfusionCount`."""

    counted = "false_positives"


class TrueNegatives(ConfusionCount):
    """(Weighted) number of no answered with no; arguments as `ConfusionCount`."""

    counted = "true_negatives"


class FalseNegatives(ConfusionCount):
    """(Weighted) number of yes answered with no; arguments as `ConfusionCount`."""

    counted = "false_negatives"


class RightShare(ConfusionMetric):
    """Base of metrics that are the true positives' share of these and the field `others` of `Counts`.

    Parameters
    ----------
    thresholds : float or list of float, optional
        In [0, 1]; by default 0.5, or with `top_k` none.
    top_k : int, optional
        Only the `top_k` greatest predictions along the last axis may be yes.
    class_id : int, optional
        Only this class of the last axis counts.
    name, dtype :
        See `Metric`.

    Raises
    ------
    ValueError
        If a threshold is not in [0, 1] or `top_k` not positive.
    """

    _direction = "up"

    others = None

    def __init__(self, thresholds=None, top_k=None, class_id=None, name=None, dtype=None):
        found = check_thresholds(thresholds, 0.5 if top_k is None else -np.inf)
        super().__init__(found, ("true_positives", self.others), name, dtype, top_k, class_id)
        self._given = thresholds
        self._add_counts((len(found),))

    def result(self):
        """The share so far: float, or one for each of several thresholds; 0 where there was nothing."""
        right = self.true_positives.data
        return self._per_threshold(ratio(right, right + getattr(self, self.others).data))

    def get_config(self):
        """See `Metric.get_config`."""
        return {
            **super().get_config(),
            "thresholds": self._given,
            "top_k": self.top_k,
            "class_id": self.class_id,
        }


class Precision(RightShare):
    """Of the answers yes, the share of right ones; arguments as `RightShare`."""

    others = "false_positives"


class Recall(RightShare):
    """Of what is yes, the share that was answered so; arguments as `RightShare`."""

    others = "false_negatives"
