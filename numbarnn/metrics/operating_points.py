"""The best of one rate at thresholds where another is as good as demanded."""

from __future__ import annotations

import numpy as np

from ..checks import fraction, integer
from ..loading import allow
from .arguments import ratio
from .confusion import ConfusionMetric, Counts


def even_thresholds(number):
    """So many thresholds from 0 to 1 at equal distances; 0.5 if it is one."""
    allow(number)
    return [0.5] if number == 1 else [i / (number - 1) for i in range(number)]


class OperatingPoint(ConfusionMetric):
    """Base of metrics that are the best of one rate at any threshold where another is at least `value`.

    Parameters
    ----------
    value : float
        In [0, 1]; the argument is named after the rate `demanded`.
    num_thresholds : int
        How many thresholds are tried, from 0 to 1 at equal distances.
    class_id : int, optional
        Only this class of the last axis counts.
    name, dtype :
        See `Metric`.

    Raises
    ------
    ValueError
        If `value` is not in [0, 1] or `num_thresholds` not positive.
    """

    _direction = "up"

    demanded = wanted = None  # names of rates, as `_rate` knows them

    def __init__(self, value, num_thresholds, class_id, name, dtype):
        fraction(self.demanded, value)
        integer("num_thresholds", num_thresholds, least=1)
        super().__init__(even_thresholds(num_thresholds), Counts._fields, name, dtype, class_id=class_id)
        self.value = value
        self.num_thresholds = num_thresholds
        setattr(self, self.demanded, value)
        self._add_counts((num_thresholds,))

    def _accumulate(self, truth, predictions, weight):
        super()._accumulate(truth, np.clip(predictions, 0, 1), weight)

    def _rate(self, name):
        tp, fp, tn, fn = (getattr(self, kept).data for kept in Counts._fields)
        if name == "specificity":
            return ratio(tn, tn + fp)
        return ratio(tp, tp + (fp if name == "precision" else fn))

    def result(self):
        """The best rate so far: float, 0.0 where the other was never good enough."""
        feasible = self._rate(self.demanded) >= self.value
        return float(np.max(self._rate(self.wanted), where=feasible, initial=0.0))

    def get_config(self):
        """See `Metric.get_config`."""
        return {
            **super().get_config(),
            "num_thresholds": self.num_thresholds,
            "class_id": self.class_id,
            self.demanded: self.value,
        }


class SensitivityAtSpecificity(OperatingPoint):
    """The best sensitivity where the specificity is at least `specificity`; other arguments as `OperatingPoint`."""

    demanded, wanted = "specificity", "sensitivity"

    def __init__(self, specificity, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(specificity, num_thresholds, class_id, name, dtype)


class SpecificityAtSensitivity(OperatingPoint):
    """The best specificity where the sensitivity is at least `sensitivity`; other arguments as `OperatingPoint`."""

    demanded, wanted = "sensitivity", "specificity"

    def __init__(self, sensitivity, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(sensitivity, num_thresholds, class_id, name, dtype)


class PrecisionAtRecall(OperatingPoint):
    """The best precision where the recall is at least `recall`; other arguments as `OperatingPoint`."""

    demanded, wanted = "recall", "precision"

    def __init__(self, recall, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(recall, num_thresholds, class_id, name, dtype)


class RecallAtPrecision(OperatingPoint):
    """The best recall where the precision is at least `precision`; other arguments as `OperatingPoint`."""

    demanded, wanted = "precision", "recall"

    def __init__(self, precision, num_thresholds=200, class_id=None, name=None, dtype=None):
        super().__init__(precision, num_thresholds, class_id, name, dtype)
