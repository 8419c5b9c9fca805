"""Labels as numbers, and rows of unit length."""

import numpy as np

from numbarnn import backend

__all__ = ["normalize", "to_categorical"]


def to_categorical(x, num_classes=None):
    """Turn integer labels into one-hot rows.

    Parameters
    ----------
    x : array_like of int, shape (...) or (..., 1)
        Labels from 0 to ``num_classes - 1``. A trailing axis of length one is dropped, as Keras does, unless it is the
        only axis.
    num_classes : int, optional
        Number of classes; by default the largest label plus one.

    Returns
    -------
    ndarray of shape (..., num_classes)
        In `numbarnn.backend.floatx()`, 1 at the label, 0 elsewhere.

    Raises
    ------
    ValueError
        If `x` is not of integers (or of floats that are whole), is empty with `num_classes` not given, or has a label
        outside the range.
    """
    x = np.asarray(x)
    if x.dtype.kind not in "biuf" or not np.array_equal(x, np.floor(x)):
        raise ValueError(f"`x` must hold integer labels. Received: x of dtype {x.dtype}, not all of it whole numbers")
    labels = x.astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if num_classes is None:
        if labels.size == 0:
            raise ValueError("`num_classes` must be given when `x` is empty.")
        num_classes = int(labels.max()) + 1
    if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
        raise ValueError(
            f"`x` must hold labels from 0 to {num_classes - 1}. Received: labels from {labels.min()} to {labels.max()}"
        )
    return (labels[..., None] == np.arange(num_classes)).astype(backend.floatx())


def normalize(x, axis=-1, order=2):
    """Divide by the norm along an axis; what is all zero stays zero.

    Parameters
    ----------
    x : array_like
    axis : int
        Along which the norm is taken.
    order : int or float
        Of the norm: 2 for lengths, 1 for sums of magnitudes, ``inf`` for the largest.

    Returns
    -------
    ndarray
        Of the shape of `x`, floating point.

    Examples
    --------
    >>> from numbarnn import utils
    >>> utils.normalize([[3.0, 4.0], [0.0, 0.0]])
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    x = np.asarray(x)
    if not x.ndim or x.dtype.kind not in "fiub":
        raise ValueError(f"`x` must be an array of numbers. Received: dtype {x.dtype}, shape {x.shape}")
    norm = np.linalg.norm(x, order, axis, keepdims=True)
    return x / np.where(norm == 0, norm.dtype.type(1), norm)
