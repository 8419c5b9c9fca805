"""Weights of classes, as weights of the samples that are of these classes."""

from __future__ import annotations

import numbers

import numpy as np

from ..utils.sequence import Ragged
from .data import check_cardinality
from .ragged import check_lengths

__all__ = ["check_class_weight", "with_class_weight"]


def check_class_weight(class_weight):
    """Raise unless it maps classes, integers from 0, to weights.

    Parameters
    ----------
    class_weight : dict of int to float, or None

    Raises
    ------
    TypeError, ValueError
    """
    if class_weight is None:
        return
    if not isinstance(class_weight, dict):
        raise TypeError(f"`class_weight` must be a dict of class to weight. Received: class_weight={class_weight!r}")
    for name, weight in class_weight.items():
        if isinstance(name, bool) or not isinstance(name, numbers.Integral) or name < 0:
            raise ValueError(f"The classes in `class_weight` must be integers from 0. Received: class {name!r}")
        if not isinstance(weight, numbers.Real) or not 0 <= weight < np.inf:
            raise ValueError(
                f"The weights in `class_weight` must be finite numbers, not negative. Received: {weight!r} for {name}"
            )


def with_class_weight(y, sample_weight, class_weight, dtype):
    """Multiply the weights of samples, or of timesteps, with those of their classes.

    Parameters
    ----------
    y : ndarray or Ragged
        Labels, of shape (samples,), (samples, 1) or (samples, timesteps, 1), or one-hot, of shape (samples, classes) or
        (samples, timesteps, classes). The sequences of a Ragged may also be plain labels.
    sample_weight : ndarray or Ragged, or None
        Of shape (samples,) or (samples, timesteps).
    class_weight : dict of int to float
        A class that is not in it counts once.
    dtype : dtype
        Of the result.

    Returns
    -------
    ndarray or Ragged
        Of shape (samples,), or (samples, timesteps) where `y` or `sample_weight` has timesteps.

    Raises
    ------
    ValueError
        If there are no targets or several, or they are no classes, or do not fit the weights.
    """
    if y is None:
        raise ValueError("`class_weight` needs targets `y`, of which none were given.")
    if not isinstance(y, (np.ndarray, Ragged)):
        raise ValueError("`class_weight` is only supported for Models with a single output.")
    if isinstance(sample_weight, (list, tuple, dict)):
        raise ValueError("`class_weight` needs `sample_weight` to be a single array.")
    check_cardinality(("y", y), ("sample_weight", sample_weight))
    if isinstance(y, Ragged) or isinstance(sample_weight, Ragged):
        check_lengths(y, None, sample_weight)
        weights = [_weights(each, class_weight, dtype) for each in y]
        if sample_weight is not None:
            # One number per sequence or one per timestep: each broadcasts to the timesteps.
            weights = [a * b for a, b in zip(weights, sample_weight, strict=True)]
        return Ragged(weights, dtype=dtype)
    weights = _weights(y, class_weight, dtype)
    if sample_weight is None:
        return weights
    if sample_weight.ndim == 2 and weights.ndim == 1:
        weights = weights[:, None]
    elif sample_weight.ndim == 1 and weights.ndim == 2:
        sample_weight = sample_weight[:, None]
    return weights * sample_weight


def _weights(y, class_weight, dtype):
    classes = _classes(y)
    found = np.ones(classes.shape, dtype)
    for label, weight in class_weight.items():
        found[classes == label] = weight
    return found


def _classes(y):
    """Return labels as whole numbers: of labels themselves, or of one-hot rows."""
    if y.ndim > 1 and y.shape[-1] != 1:
        # Of labels of several timesteps, or of several labels at once, `argmax` would make one without a word.
        if y.size and not (y.min() >= 0 and np.allclose(y.sum(-1), 1, atol=1e-3)):
            raise ValueError(
                "`class_weight` needs targets that are labels, of shape (samples,) or (samples, 1), or one-hot rows. "
                f"Received: targets of shape {y.shape} with rows that do not add up to 1. For labels at every timestep "
                "add an axis: `y[..., None]`"
            )
        return y.argmax(-1)
    labels = np.round(y)
    if not np.isfinite(labels).all():
        raise ValueError("`class_weight` needs targets that are labels. Received: targets that are not finite")
    return labels[..., 0] if y.ndim > 1 else labels
