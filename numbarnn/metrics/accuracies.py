"""How often predictions are right."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..arrays import as_array
from ..checks import checked, flag, integer, number
from .arguments import same_rank
from .reduction import MeanMetricWrapper


def accuracy(y_true, y_pred):
    """1 where prediction and target are equal, else 0.

    Parameters
    ----------
    y_true, y_pred : array_like
        Of one shape, but for a trailing 1.

    Returns
    -------
    ndarray of float32
    """
    y_true, y_pred = same_rank(y_true, y_pred)
    return (y_true == y_pred).astype(np.float32)


def binary_accuracy(y_true, y_pred, threshold=0.5):
    """1 where ``y_pred > threshold`` says what `y_true` says.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ...)
    threshold : float

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = same_rank(y_true, y_pred)
    return (y_true == (y_pred > threshold)).astype(np.float32)


def categorical_accuracy(y_true, y_pred):
    """1 where the largest entry of `y_pred` is where that of the one-hot `y_true` is.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ..., classes)

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = as_array(y_true), as_array(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    return (y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(np.float32)


def _labels(y_true, y_pred):
    y_true, y_pred = as_array(y_true), as_array(y_pred)
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    if y_true.shape != y_pred.shape[:-1]:
        raise ValueError(
            "Labels must have the shape of the predictions without the classes. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    return y_true, y_pred


def sparse_categorical_accuracy(y_true, y_pred):
    """1 where the largest entry of `y_pred` is at the place `y_true` names.

    Parameters
    ----------
    y_true : array_like, shape (batch, ...) or (batch, ..., 1)
    y_pred : array_like, shape (batch, ..., classes)

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = _labels(y_true, y_pred)
    matches = y_true == y_pred.argmax(axis=-1)
    if matches.ndim > 1 and matches.shape[-1] == 1:
        matches = matches[..., 0]
    return matches.astype(np.float32)


def top_k_categorical_accuracy(y_true, y_pred, k=5):
    """1 where the class of the one-hot `y_true` is among the `k` greatest entries of `y_pred`.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ..., classes)
    k : int
        Entries as great as the k-th are among them, however many these are.

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    return sparse_top_k_categorical_accuracy(np.argmax(y_true, axis=-1), y_pred, k)


def sparse_top_k_categorical_accuracy(y_true, y_pred, k=5, from_sorted_ids=False):
    """1 where the label is among the `k` greatest entries of `y_pred`.

    Parameters
    ----------
    y_true : array_like, shape (batch, ...) or (batch, ..., 1)
        Labels in [0, classes).
    y_pred : array_like, shape (batch, ..., classes)
        Scores, or labels in falling order of their scores.
    k : int
        Entries as great as the k-th are among them, however many these are.
    from_sorted_ids : bool
        Whether `y_pred` holds labels.

    Returns
    -------
    ndarray of float32, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes do not match, `k` is not positive or a label is not a class.
    """
    integer("k", k, least=1)
    labels, y_pred = _labels(y_true, y_pred)
    if from_sorted_ids:
        return (labels[..., None] == y_pred[..., :k]).any(axis=-1).astype(np.float32)
    labels = labels.astype(np.int64)
    if labels.size and not 0 <= labels.min() <= labels.max() < y_pred.shape[-1]:
        raise ValueError(
            f"Labels must lie in [0, {y_pred.shape[-1]}), the number of classes that the predictions have. Received: "
            f"labels from {labels.min()} to {labels.max()}"
        )
    right = np.take_along_axis(y_pred, labels[..., None], axis=-1)
    # A prediction that is NaN is greater than nothing; it must not count as right.
    hits = (np.count_nonzero(y_pred > right, axis=-1) < k) & (right == right)[..., 0]
    return hits.astype(np.float32)


class Accuracy(MeanMetricWrapper):
    """How often predictions equal targets; see `accuracy`."""

    _direction = "up"

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often thresholded predictions equal targets; see `binary_accuracy`.

    For logits, the threshold is 0.
    """

    _direction = "up"

    @checked(threshold=partial(number, optional=True))
    def __init__(self, name="binary_accuracy", dtype=None, threshold=0.5):
        super().__init__(binary_accuracy, name, dtype, threshold=0.5 if threshold is None else threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is the class of a one-hot target; see `categorical_accuracy`."""

    _direction = "up"

    def __init__(self, name="categorical_accuracy", dtype=None):
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is the labelled class; see `sparse_categorical_accuracy`."""

    _direction = "up"

    def __init__(self, name="sparse_categorical_accuracy", dtype=None):
        super().__init__(sparse_categorical_accuracy, name, dtype)


class TopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the class of a one-hot target is among the `k` greatest; see `top_k_categorical_accuracy`."""

    _direction = "up"

    @checked(k=partial(integer, least=1))
    def __init__(self, k=5, name="top_k_categorical_accuracy", dtype=None):
        super().__init__(top_k_categorical_accuracy, name, dtype, k=k)


class SparseTopKCategoricalAccuracy(MeanMetricWrapper):
    """How often the label is among the `k` greatest; see `sparse_top_k_categorical_accuracy`."""

    _direction = "up"

    @checked(k=partial(integer, least=1), from_sorted_ids=flag)
    def __init__(self, k=5, name="sparse_top_k_categorical_accuracy", dtype=None, from_sorted_ids=False):
        super().__init__(sparse_top_k_categorical_accuracy, name, dtype, k=k, from_sorted_ids=from_sorted_ids)
