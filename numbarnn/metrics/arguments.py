"""What metrics do with their arguments before they compute."""

from __future__ import annotations

import numpy as np

from ..arrays import as_array
from ..losses import eager_mask, squeeze_or_expand_to_same_rank


def same_rank(y_true, y_pred):
    """Arrays of one rank and of shapes that broadcast, but for a trailing 1 that only one of them has.

    Raises
    ------
    ValueError
        If there is more between them.
    """
    y_true, y_pred = as_array(y_true), as_array(y_pred)
    if y_true.ndim != y_pred.ndim:
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
    if y_true.ndim != y_pred.ndim or any(
        a != b and 1 not in (a, b) for a, b in zip(y_true.shape, y_pred.shape, strict=True)
    ):
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={np.shape(y_true)}, y_pred.shape={np.shape(y_pred)}"
        )
    return y_true, y_pred


def same_shape(y_true, y_pred):
    """As `same_rank`, for shapes that must be equal."""
    y_true, y_pred = same_rank(y_true, y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    return y_true, y_pred


def check_outputs(shape, state):
    """Raise ValueError unless a batch's outputs are as many as those of the batches before, which `state` has."""
    if shape != state.shape:
        raise ValueError(f"Every batch must have {state.shape[0]} outputs, as the first. Received: {shape[0]} outputs")


def combine_weight(sample_weight, mask):
    """Weights with zeros where the mask says that entries do not count.

    Parameters
    ----------
    sample_weight : array_like or None
    mask : ndarray of bool

    Returns
    -------
    ndarray of float64
    """
    mask = as_array(mask).astype(np.float64)
    if sample_weight is None:
        return mask
    weight = as_array(sample_weight).astype(np.float64, copy=False)
    if weight.ndim == mask.ndim + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    weight = weight.reshape(weight.shape + (1,) * (mask.ndim - weight.ndim))
    return weight * mask.reshape(mask.shape + (1,) * (weight.ndim - mask.ndim))


def masked_weight(sample_weight, y_pred):
    """`sample_weight`, multiplied by the mask that `y_pred` carries, if any."""
    mask = eager_mask(y_pred)
    return sample_weight if mask is None else combine_weight(sample_weight, mask)


def spread_weight(sample_weight, shape):
    """Weights of samples (and timesteps) as float64 for every entry.

    Parameters
    ----------
    sample_weight : array_like
        A number, or of the shape of the first axes of the entries; a trailing 1 too many is dropped.
    shape : tuple of int
        That of the entries.

    Returns
    -------
    ndarray, read-only

    Raises
    ------
    ValueError
        If the shapes do not fit.
    """
    weight = np.asarray(sample_weight, np.float64)
    if weight.ndim == len(shape) + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    aligned = weight.reshape(weight.shape + (1,) * (len(shape) - weight.ndim))
    if aligned.ndim > len(shape) or any(a not in (b, 1) for a, b in zip(aligned.shape, shape, strict=True)):
        raise ValueError(
            "`sample_weight` must have the shape of the predictions or of their first axes. Received: "
            f"sample_weight of shape {weight.shape} for predictions of shape {shape}"
        )
    return np.broadcast_to(aligned, shape)


def ratio(part, whole):
    """``part / whole``, 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(np.broadcast_shapes(np.shape(part), np.shape(whole))), where=whole != 0)
