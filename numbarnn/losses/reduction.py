"""From one value per entry to the number that is minimised: weights, masks, sums and means."""

from __future__ import annotations

import numpy as np

from .. import ops
from .arguments import append_axes, array_of, prediction_of, squeeze_or_expand_to_same_rank

_REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", "auto", None)


def standardize_reduction(reduction):
    """One of "sum_over_batch_size", "sum", "mean_with_sample_weight" and None, for any name of theirs.

    Raises
    ------
    ValueError
        For anything else.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(
            f"Invalid value for argument `reduction`. Expected one of {set(_REDUCTIONS)}. "
            f"Received: reduction={reduction}"
        )
    return {"auto": "sum_over_batch_size", "mean": "sum_over_batch_size", "none": None}.get(reduction, reduction)


def _size(x):
    """Number of elements, as a number where the shape is known."""
    shape = tuple(x.shape)
    if None in shape:
        return ops.cast(ops.size(x), x.dtype)
    return float(np.prod(shape)) if shape else 1.0


def reduce_weighted_values(values, sample_weight=None, mask=None, reduction="sum_over_batch_size"):
    """Weigh per-entry losses and reduce them.

    With a mask, only valid entries count: the mean divides by their number; if there are none, the loss is 0.
    Values under the mask are replaced, not multiplied: a NaN there does no harm.

    Parameters
    ----------
    values : array or Tensor, shape (batch, ...)
    sample_weight : array or Tensor, optional
        Shape (batch,), or any that broadcasts to `values`.
    mask : array or Tensor of bool, optional
    reduction : str or None

    Returns
    -------
    array or Tensor
        A scalar, or shaped like `values` where `reduction` is "none" or None.
    """
    reduction = standardize_reduction(reduction)
    values = prediction_of(values)
    valid = None
    if mask is not None:
        mask = ops.cast(array_of(mask), "bool")
        values, mask = squeeze_or_expand_to_same_rank(values, mask)
        mask = append_axes(mask, values)
        if len(mask.shape) > len(values.shape):
            raise ValueError(
                f"The mask must not have more axes than the loss values. Received: mask of shape {tuple(mask.shape)} "
                f"for values of shape {tuple(values.shape)}"
            )
        values = ops.where(mask, values, 0.0)
        valid = ops.sum(ops.cast(mask, values.dtype))
    if sample_weight is not None:
        sample_weight = ops.cast(array_of(sample_weight), values.dtype)
        values, sample_weight = squeeze_or_expand_to_same_rank(values, sample_weight)
        aligned = append_axes(sample_weight, values)
        if len(aligned.shape) > len(values.shape) or any(
            None not in (a, b) and a not in (b, 1) for a, b in zip(aligned.shape, values.shape, strict=False)
        ):
            raise ValueError(
                "`sample_weight` must have the shape of the loss values or of their first axes. Received: "
                f"sample_weight of shape {tuple(sample_weight.shape)} for loss values of shape {tuple(values.shape)}"
            )
        weighted = values * aligned
    else:
        weighted = values
    if reduction is None or not len(weighted.shape):
        return weighted
    total = ops.sum(weighted)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and sample_weight is not None:
        spread = ops.broadcast_to(append_axes(sample_weight, values), values.shape)
        if mask is not None:
            spread = ops.where(mask, spread, 0.0)
        return _divide_no_nan(total, ops.sum(spread))
    if valid is not None:
        # A mask with fewer axes than the values stands for the same share of them.
        share = _size(values) / _size(mask)
        return _divide_no_nan(total, valid if share == 1.0 else valid * share)
    count = _size(weighted)
    return total if count in (0, 1) else total / count


def _divide_no_nan(a, b):
    zero = ops.equal(b, 0.0)
    return ops.where(zero, 0.0, a / ops.where(zero, 1.0, b))
