"""Intersection over union: of all that is or is said to be of a class, the share that is both."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import backend
from ..checks import checked, flag, integer, number, whole_numbers
from .arguments import masked_weight, spread_weight
from .metric import Metric


class IoU(Metric):
    """Mean intersection over union of chosen classes.

    It is ``tp / (tp + fp + fn)`` for each; classes that never occur do not count. Sample weights count as given (Keras
    truncates them to integers unless `dtype` is a float).

    Parameters
    ----------
    num_classes : int
    target_class_ids : sequence of int
        The classes whose mean is reported.
    name, dtype :
        See `Metric`.
    ignore_class : int, optional
        Entries with this label do not count; nor do those with a label or prediction outside [0, num_classes).
    sparse_y_true, sparse_y_pred : bool
        Targets and predictions are class numbers; otherwise scores of the classes, of which the greatest is taken.
    axis : int
        The class axis of scores.

    Raises
    ------
    ValueError
        If one of `target_class_ids` is not in [0, num_classes).
    """

    _direction = "up"

    @checked(
        num_classes=partial(integer, least=1),
        target_class_ids=whole_numbers,
        ignore_class=partial(integer, optional=True),
        sparse_y_true=flag,
        sparse_y_pred=flag,
        axis=integer,
    )
    def __init__(
        self,
        num_classes,
        target_class_ids,
        name=None,
        dtype=None,
        ignore_class=None,
        sparse_y_true=True,
        sparse_y_pred=True,
        axis=-1,
    ):
        super().__init__(name, dtype)
        self.total_cm = self.add_variable((num_classes, num_classes), name="total_confusion_matrix")
        for class_id in target_class_ids:
            if not 0 <= class_id < num_classes:
                raise ValueError(f"Target class id {class_id} is out of range, which is [0, {num_classes}).")
        self.num_classes = num_classes
        self.target_class_ids = list(target_class_ids)
        self.ignore_class = ignore_class
        self.sparse_y_true = sparse_y_true
        self.sparse_y_pred = sparse_y_pred
        self.axis = axis

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true, y_pred : array_like, shape (batch, ...)
            Class numbers, or with a class axis more.
        sample_weight : array_like, optional
            Of the shape of the class numbers or of their first axes; multiplied by the mask that `y_pred` carries.

        Raises
        ------
        ValueError
            If there are not as many targets as predictions.
        """
        sample_weight = masked_weight(sample_weight, y_pred)
        true = np.asarray(y_true) if self.sparse_y_true else np.argmax(y_true, axis=self.axis)
        predicted = np.asarray(y_pred) if self.sparse_y_pred else np.argmax(y_pred, axis=self.axis)
        if true.size != predicted.size:
            raise ValueError(
                "Targets and predictions must be as many. "
                f"Received: y_true.shape={np.shape(y_true)}, y_pred.shape={np.shape(y_pred)}"
            )
        weight = None if sample_weight is None else spread_weight(sample_weight, true.shape).ravel()
        true, predicted = (labels.ravel().astype(np.int64) for labels in (true, predicted))
        counts = (np.minimum(true, predicted) >= 0) & (np.maximum(true, predicted) < self.num_classes)
        if self.ignore_class is not None:
            counts &= true != self.ignore_class
        found = np.bincount(
            true[counts] * self.num_classes + predicted[counts],
            None if weight is None else weight[counts],
            minlength=self.num_classes**2,
        )
        self.total_cm.data[...] += found.reshape(self.total_cm.shape)
        self.total_cm.touch()

    def result(self):
        """The mean so far: float, 0.0 if there was nothing."""
        matrix = self.total_cm.data
        both = matrix.diagonal()
        either = (matrix.sum(axis=0) + matrix.sum(axis=1) - both)[self.target_class_ids]
        occurs = either > 1e-9
        least = backend.epsilon()
        shares = np.where(occurs, both[self.target_class_ids] / (either + least), 0.0)
        return float(shares.sum() / (np.count_nonzero(occurs) + least))

    def get_config(self):
        """See `Metric.get_config`."""
        config = {
            **super().get_config(),
            "num_classes": self.num_classes,
            "target_class_ids": self.target_class_ids,
            "ignore_class": self.ignore_class,
            "sparse_y_true": self.sparse_y_true,
            "sparse_y_pred": self.sparse_y_pred,
            "axis": self.axis,
        }
        return {key: value for key, value in config.items() if key not in self._implied}

    _implied = ()  # arguments of this class that a subclass does not have


class BinaryIoU(IoU):
    """Mean intersection over union of yes and no; see `IoU`.

    Parameters
    ----------
    target_class_ids : sequence of int
        Which of 0 (no) and 1 (yes) are reported.
    threshold : float
        Predictions not less than it are yes.
    name, dtype :
        See `Metric`.
    """

    _implied = ("num_classes", "ignore_class", "sparse_y_true", "sparse_y_pred", "axis")

    @checked(threshold=number)
    def __init__(self, target_class_ids=(0, 1), threshold=0.5, name=None, dtype=None):
        super().__init__(2, target_class_ids, name, dtype)
        self.threshold = threshold

    def update_state(self, y_true, y_pred, sample_weight=None):
        """See `IoU.update_state`; `y_pred` holds probabilities."""
        super().update_state(y_true, np.asarray(y_pred) >= self.threshold, masked_weight(sample_weight, y_pred))

    def get_config(self):
        """See `Metric.get_config`."""
        return {**super().get_config(), "threshold": self.threshold}


class MeanIoU(IoU):
    """Mean intersection over union of all classes; see `IoU`."""

    _implied = ("target_class_ids",)

    @checked(num_classes=partial(integer, least=1))
    def __init__(
        self,
        num_classes,
        name=None,
        dtype=None,
        ignore_class=None,
        sparse_y_true=True,
        sparse_y_pred=True,
        axis=-1,
    ):
        super().__init__(num_classes, range(num_classes), name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis)


class OneHotIoU(IoU):
    """Mean intersection over union of chosen classes, with one-hot targets; see `IoU`."""

    _implied = ("sparse_y_true",)

    def __init__(
        self,
        num_classes,
        target_class_ids,
        name=None,
        dtype=None,
        ignore_class=None,
        sparse_y_pred=False,
        axis=-1,
    ):
        super().__init__(num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis)


class OneHotMeanIoU(MeanIoU):
    """Mean intersection over union of all classes, with one-hot targets; see `IoU`."""

    _implied = ("target_class_ids", "sparse_y_true")

    def __init__(self, num_classes, name=None, dtype=None, ignore_class=None, sparse_y_pred=False, axis=-1):
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)
