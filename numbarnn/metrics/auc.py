"""The area under a curve that a threshold runs along."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import backend, ops
from ..checks import checked, flag, integer, real_numbers
from .arguments import ratio
from .confusion import ConfusionMetric, Counts, check_thresholds, count
from .operating_points import even_thresholds

_CURVES = ("ROC", "PR", "PRGAIN")
_SUMMATIONS = ("interpolation", "majoring", "minoring")


class AUC(ConfusionMetric):
    """Area under the ROC curve, or under a precision-recall curve, from counts at many thresholds.

    Parameters
    ----------
    num_thresholds : int
        At least 2; at equal distances from 0 to 1, the outer ones moved out a little.
    curve : {"ROC", "PR", "PRGAIN"}
        Recall over the share of false alarms; precision over recall; precision gain over recall gain (Flach & Kull
        2015, "Precision-Recall-Gain Curves").
    summation_method : {"interpolation", "majoring", "minoring"}
        Between thresholds the mean height, the greater or the lesser one. The interpolation of "PR" is that of the
        counts, not of the precision (Davis & Goadrich 2006, "The Relationship Between Precision-Recall and ROC
        Curves").
    name, dtype :
        See `Metric`.
    thresholds : list of float, optional
        Thresholds in [0, 1] in place of those at equal distances; the outer ones are added.
    multi_label : bool
        Predictions are of shape (batch, labels), each label has an area of its own, the result is their mean.
        Otherwise all entries make one area.
    num_labels : int, optional
        The number of labels of `multi_label`, known with the first batch otherwise.
    label_weights : list of float, optional
        Weights of the labels: in the mean of the areas for `multi_label`, of the entries otherwise.
    from_logits : bool
        Predictions are logits rather than probabilities.

    Raises
    ------
    ValueError
        If an argument is none of these.

    Examples
    --------
    >>> from numbarnn.metrics import AUC
    >>> auc = AUC(num_thresholds=3)
    >>> auc.update_state([0, 0, 1, 1], [0.0, 0.5, 0.3, 0.9])
    >>> auc.result()
    0.75
    """

    _direction = "up"

    @checked(
        num_thresholds=partial(integer, least=2),
        multi_label=flag,
        label_weights=partial(real_numbers, optional=True),
        num_labels=partial(integer, least=1, optional=True),
        from_logits=flag,
    )
    def __init__(
        self,
        num_thresholds=200,
        curve="ROC",
        summation_method="interpolation",
        name=None,
        dtype=None,
        thresholds=None,
        multi_label=False,
        num_labels=None,
        label_weights=None,
        from_logits=False,
    ):
        if str(curve).upper() not in _CURVES:
            raise ValueError(f"Invalid AUC curve value: {curve!r}. Expected values are {list(_CURVES)}")
        if str(summation_method).lower() not in _SUMMATIONS:
            raise ValueError(
                f"Invalid AUC summation method value: {summation_method!r}. Expected values are {list(_SUMMATIONS)}"
            )
        if num_labels and not multi_label:
            raise ValueError("`num_labels` is needed only when `multi_label` is True.")
        inner = (
            even_thresholds(num_thresholds)[1:-1] if thresholds is None else sorted(check_thresholds(thresholds, 0.5))
        )
        margin = backend.epsilon()
        super().__init__([-margin, *inner, 1.0 + margin], Counts._fields, name, dtype)
        self.num_thresholds = len(self.thresholds)
        self.curve = str(curve).upper()
        self.summation_method = str(summation_method).lower()
        self.multi_label = multi_label
        self.num_labels = num_labels
        self.label_weights = None if label_weights is None else np.asarray(label_weights, np.float64)
        self.from_logits = from_logits
        self._given = thresholds
        self.true_positives = None  # this and the other counts once the number of labels is known
        if num_labels or not multi_label:
            self._add_counts((self.num_thresholds, num_labels) if multi_label else (self.num_thresholds,))

    def _accumulate(self, truth, predictions, weight):
        predictions = ops.sigmoid(predictions) if self.from_logits else np.clip(predictions, 0, 1)
        labels = predictions.shape[-1] if predictions.ndim else 1
        if self.label_weights is not None and self.label_weights.shape != (labels,):
            raise ValueError(
                f"`label_weights` must have one weight for each of {labels} labels. "
                f"Received: {self.label_weights.size} weights"
            )
        if not self.multi_label:
            if self.label_weights is not None:
                weight = np.broadcast_to(self.label_weights, truth.shape) * (1.0 if weight is None else weight)
            super()._accumulate(truth, predictions, weight)
            return
        known = self.num_labels if self.true_positives is None else self.true_positives.shape[1]
        if predictions.ndim != 2 or (known and labels != known):
            raise ValueError(
                f"`y_pred` must have shape (batch, {known or 'labels'}) when `multi_label=True`. "
                f"Received: y_pred.shape={predictions.shape}"
            )
        if self.true_positives is None:
            self._add_counts((self.num_thresholds, labels))
        self._take(count(truth, predictions, weight, self._rising))

    def result(self):
        """The area so far: float, 0.0 if there was nothing."""
        if self.true_positives is None:
            return 0.0
        if self.curve == "PR" and self.summation_method == "interpolation":
            areas = self._interpolated()
        else:
            x, y = {"ROC": self._roc, "PR": self._pr, "PRGAIN": self._pr_gain}[self.curve]()
            left, right = y[:-1], y[1:]
            heights = {
                "interpolation": lambda: (left + right) / 2,
                "minoring": lambda: np.minimum(left, right),
                "majoring": lambda: np.maximum(left, right),
            }[self.summation_method]()
            areas = (x[:-1] - x[1:]) * heights
        area = areas.sum(axis=0)
        if not self.multi_label:
            return float(area)
        weights = np.ones_like(area) if self.label_weights is None else self.label_weights
        return float(ratio((area * weights).sum(), weights.sum()))

    def _counts(self):
        return tuple(getattr(self, name).data for name in Counts._fields)

    def _roc(self):
        tp, fp, tn, fn = self._counts()
        return ratio(fp, fp + tn), ratio(tp, tp + fn)

    def _pr(self):
        tp, fp, _, fn = self._counts()
        return ratio(tp, tp + fn), ratio(tp, tp + fp)

    def _pr_gain(self):
        tp, fp, tn, fn = self._counts()
        odds = ratio(tp + fn, tn + fp)
        found = tp != 0
        recall = np.where(found, 1.0 - odds * ratio(fn, tp), 0.0)
        precision = np.where(found, 1.0 - odds * ratio(fp, tp), 1.0)
        return np.maximum(recall, 0.0), precision

    def _interpolated(self):
        # Between two thresholds true positives are taken as linear in all positives: tp = slope * p + offset. The
        # integral of tp / p over tp is then slope * (change of tp + offset * log(ratio of p)).
        tp, fp, _, fn = self._counts()
        p = tp + fp
        d_tp, d_p = tp[:-1] - tp[1:], p[:-1] - p[1:]
        slope = ratio(d_tp, np.maximum(d_p, 0.0))
        offset = tp[1:] - slope * p[1:]
        both = (p[:-1] > 0) & (p[1:] > 0)
        growth = np.where(both, ratio(p[:-1], p[1:]), 1.0)
        return ratio(slope * (d_tp + offset * np.log(growth)), np.maximum(tp[1:] + fn[1:], 0.0))

    def get_config(self):
        """See `Metric.get_config`."""
        config = {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "curve": self.curve,
            "summation_method": self.summation_method,
            "multi_label": self.multi_label,
            "num_labels": self.num_labels,
            "label_weights": None if self.label_weights is None else self.label_weights.tolist(),
            "from_logits": self.from_logits,
        }
        return config if self._given is None else {**config, "thresholds": self.thresholds[1:-1]}
