"""What losses do with their arguments before they compute: types, ranks, axes."""

from __future__ import annotations

import numpy as np

from .. import backend, ops


def array_of(x):
    """Arrays from lists and numbers; what is symbolic stays."""
    return x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)


def prediction_of(x):
    """Predictions as a float array; float16 is computed as float32."""
    x = array_of(x)
    if x.dtype == np.float16:
        return ops.cast(x, "float32")
    if np.dtype(x.dtype).kind != "f":
        return ops.cast(x, backend.floatx())
    return x


def squeeze_or_expand_to_same_rank(x1, x2, expand_rank_1=True):
    """Drop or add a trailing axis of size 1 where the ranks of two arrays differ by one.

    Parameters
    ----------
    x1, x2 : array or Tensor
    expand_rank_1 : bool
        Bring a rank-1 array to rank 2 rather than squeezing the other one.

    Returns
    -------
    x1, x2 : array or Tensor
    """
    rank_1, rank_2 = len(x1.shape), len(x2.shape)
    if rank_1 == rank_2 + 1 and x1.shape[-1] == 1:
        if rank_2 == 1 and expand_rank_1:
            x2 = ops.expand_dims(x2, axis=-1)
        else:
            x1 = ops.squeeze(x1, axis=-1)
    elif rank_2 == rank_1 + 1 and x2.shape[-1] == 1:
        if rank_1 == 1 and expand_rank_1:
            x1 = ops.expand_dims(x1, axis=-1)
        else:
            x2 = ops.squeeze(x2, axis=-1)
    return x1, x2


def match(y_true, y_pred):
    """Both sides of an elementwise loss: same float type, compatible shapes."""
    y_pred = prediction_of(y_pred)
    y_true = array_of(y_true)
    if y_true.dtype != y_pred.dtype:
        y_true = ops.cast(y_true, y_pred.dtype)
    y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
    same = len(y_true.shape) == len(y_pred.shape)
    for a, b in zip(y_true.shape, y_pred.shape, strict=False):
        same = same and (a == b or a is None or b is None or 1 in (a, b))
    if not same:
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={tuple(y_true.shape)}, y_pred.shape={tuple(y_pred.shape)}"
        )
    return y_true, y_pred


def class_axis_last(x, axis):
    """`x` with `axis` moved to the end.

    Raises
    ------
    ValueError
        If `axis` is no int or out of range.
    """
    rank = len(x.shape)
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ValueError(f"`axis` must be of type `int`. Received: axis={axis} of type {type(axis)}")
    if not -rank <= axis < rank:
        raise ValueError(f"`axis` must lie in [{-rank}, {rank}) for predictions of rank {rank}. Received: axis={axis}")
    axis %= rank
    if axis == rank - 1:
        return x
    return ops.transpose(x, [i for i in range(rank) if i != axis] + [axis])


def append_axes(small, values):
    """Append axes of size 1 until `small` broadcasts from the left, as masks and weights per sample must."""
    missing = len(values.shape) - len(small.shape)
    for _ in range(max(0, missing)):
        small = ops.expand_dims(small, axis=-1)
    return small


def smoothed(y_true, label_smoothing, share):
    """Targets of which the part `label_smoothing` is given away, to each class a `share` of it.

    Raises
    ------
    ValueError
        If `label_smoothing` is not in [0, 1].
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"`label_smoothing` must lie in [0, 1]. Received: label_smoothing={label_smoothing}")
    return y_true * (1.0 - label_smoothing) + label_smoothing * share if label_smoothing else y_true
