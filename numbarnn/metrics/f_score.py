"""Harmonic means of precision and recall."""

from __future__ import annotations

import numpy as np

from .. import backend
from .arguments import check_outputs, masked_weight, same_shape
from .metric import Metric

_AVERAGES = (None, "micro", "macro", "weighted")


class FBetaScore(Metric):
    """Weighted harmonic mean of precision and recall: ``(1 + beta**2) * P * R / (beta**2 * P + R)``.

    Parameters
    ----------
    average : {None, "micro", "macro", "weighted"}
        One score for each class; one of all counts together; the mean over the classes, plain or weighted by how often
        they are true.
    beta : float
        How much more recall weighs than precision.
    threshold : float, optional
        In (0, 1]: every prediction greater than it is yes. By default the greatest of a sample is yes.
    name, dtype :
        See `Metric`.

    Raises
    ------
    ValueError
        If an argument is none of these.
    """

    _direction = "up"

    def __init__(self, average=None, beta=1.0, threshold=None, name="fbeta_score", dtype=None):
        super().__init__(name, dtype)
        if average not in _AVERAGES:
            raise ValueError(
                f"Invalid `average` argument value. Expected one of: {_AVERAGES}. Received: average={average}"
            )
        if not isinstance(beta, float) or not beta > 0:
            raise ValueError(
                "Invalid `beta` argument value. It should be a Python float > 0. "
                f"Received: beta={beta} of type {type(beta)}"
            )
        if threshold is not None and not (isinstance(threshold, float) and 0 < threshold <= 1):
            raise ValueError(
                "Invalid `threshold` argument value. It should be a Python float that verifies 0 < threshold <= 1. "
                f"Received: threshold={threshold} of type {type(threshold)}"
            )
        self.average = average
        self.beta = beta
        self.threshold = threshold
        self.true_positives = None  # this and the other counts once the number of classes is known

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true, y_pred : array_like, shape (batch, classes)
        sample_weight : array_like, optional, shape (batch,)

        Raises
        ------
        ValueError
            If the arrays are not of one such shape.
        """
        sample_weight = masked_weight(sample_weight, y_pred)
        y_true, y_pred = same_shape(y_true, y_pred)
        if y_pred.ndim != 2:
            raise ValueError(
                f"{type(self).__name__} expects 2D inputs with shape (batch_size, output_dim). "
                f"Received input shapes: y_pred.shape={y_pred.shape} and y_true.shape={y_true.shape}."
            )
        axis = None if self.average == "micro" else 0
        shape = () if axis is None else y_pred.shape[1:]
        if self.true_positives is None:
            for name in ("true_positives", "false_positives", "false_negatives", "intermediate_weights"):
                setattr(self, name, self.add_variable(shape, name=name))
        check_outputs(shape, self.true_positives)
        if self.threshold is None:
            yes = (y_pred >= y_pred.max(axis=-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            yes = y_pred > self.threshold
        weight = 1.0 if sample_weight is None else np.asarray(sample_weight, np.float64).reshape(-1, 1)
        truth = y_true.astype(np.float64)
        for variable, values in (
            (self.true_positives, truth * yes),
            (self.false_positives, (1.0 - truth) * yes),
            (self.false_negatives, truth * ~yes),
            (self.intermediate_weights, truth),
        ):
            variable.data[...] += (values * weight).sum(axis=axis)
            variable.touch()

    def result(self):
        """The score so far: float, or shape (classes,) without an average; 0.0 if there was nothing."""
        if self.true_positives is None:
            return 0.0
        least = backend.epsilon()
        tp = self.true_positives.data
        precision = tp / (tp + self.false_positives.data + least)
        recall = tp / (tp + self.false_negatives.data + least)
        weight = self.beta**2
        scores = (1.0 + weight) * precision * recall / (weight * precision + recall + least)
        if self.average is None:
            return scores
        if self.average == "weighted":
            shares = self.intermediate_weights.data
            return float((scores * shares).sum() / (shares.sum() + least))
        return float(scores.mean())

    def get_config(self):
        """See `Metric.get_config`."""
        return {
            **super().get_config(),
            "average": self.average,
            "beta": self.beta,
            "threshold": self.threshold,
        }


class F1Score(FBetaScore):
    """Harmonic mean of precision and recall; see `FBetaScore`, beta being 1."""

    def __init__(self, average=None, threshold=None, name="f1_score", dtype=None):
        super().__init__(average, 1.0, threshold, name, dtype)

    def get_config(self):
        """See `Metric.get_config`."""
        config = super().get_config()
        del config["beta"]
        return config
