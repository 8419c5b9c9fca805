"""Cross-entropies: of yes/no answers, of one-hot targets, of integer labels."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np

from .. import backend, ops
from ..checks import checked, flag, fraction, integer
from ..kernels.crossentropy import NO_CLASS
from .arguments import array_of, class_axis_last, match, prediction_of, smoothed
from .fused import dense_crossentropy, sparse_crossentropy
from .loss import LossFunctionWrapper, hides, rows


@hides(rows)
def binary_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """Mean over `axis` of ``-(t log p + (1 - t) log(1 - p))``.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
    from_logits : bool
        `y_pred` holds logits; otherwise probabilities, kept within [epsilon, 1 - epsilon].
    label_smoothing : float
        Targets are squeezed towards 0.5: ``t * (1 - s) + 0.5 * s``, s in [0, 1].
    axis : int
        The axis of the mean.

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = match(y_true, y_pred)
    y_true = smoothed(y_true, label_smoothing, 0.5)
    return ops.mean(yes_no_losses(y_true, y_pred, from_logits), axis=axis)


def yes_no_losses(y_true, y_pred, from_logits):
    """``-(t log p + (1 - t) log(1 - p))`` of every entry."""
    if from_logits:
        # Two softplus rather than softplus(z) - t z: nothing cancels for confident correct answers.
        return y_true * ops.softplus(-y_pred) + (1.0 - y_true) * ops.softplus(y_pred)
    p = ops.clip(y_pred, backend.epsilon(), 1.0 - backend.epsilon())
    return -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))


def categorical_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """``-sum(t log p)`` over the classes.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., classes)
        One-hot or soft targets; probabilities (normalised to sum 1, kept within [epsilon, 1 - epsilon]) or logits.
    from_logits : bool
    label_smoothing : float
        Targets become ``t * (1 - s) + s / classes``, s in [0, 1].
    axis : int
        The class axis.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes differ, or `axis` or `label_smoothing` is out of range.
    """
    y_true, y_pred = dense_arguments("categorical_crossentropy", y_true, y_pred, label_smoothing, axis)
    return dense_crossentropy(y_pred, y_true, from_logits=bool(from_logits), epsilon=backend.epsilon())


_SPARSE = ". Labels that are numbers of classes are for `sparse_categorical_crossentropy`, or `utils.to_categorical`"
_DENSE = ". Labels that are one-hot vectors are for `categorical_crossentropy`"


def dense_arguments(name, y_true, y_pred, label_smoothing, axis):
    """Check targets that weigh every class; return them smoothed, and predictions, with the classes last.

    Raises
    ------
    ValueError
        If the shapes differ, or `axis` or `label_smoothing` is out of range.
    """
    y_pred = prediction_of(y_pred)
    y_true = array_of(y_true)
    if y_true.dtype != y_pred.dtype:
        y_true = ops.cast(y_true, y_pred.dtype)
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape. "
            f"Received: target.shape={shapes[0]}, output.shape={shapes[1]}"
            + (_SPARSE if name.startswith("categorical") and len(shapes[0]) == len(shapes[1]) - 1 else "")
        )
    if not shapes[1]:
        raise ValueError("Arguments `target` and `output` must be at least rank 1. Received: scalars")
    y_true, y_pred = class_axis_last(y_true, axis), class_axis_last(y_pred, axis)
    classes = y_pred.shape[-1]
    if classes == 1:
        warnings.warn(
            f"In loss {name}, expected y_pred.shape to be (batch_size, num_classes) with "
            f"num_classes > 1. Received: y_pred.shape={shapes[1]}. Consider using 'binary_crossentropy' if you only "
            "have 2 classes.",
            SyntaxWarning,
            stacklevel=3,
        )
    return smoothed(y_true, label_smoothing, 1.0 / classes if label_smoothing else 0.0), y_pred


def sparse_categorical_crossentropy(y_true, y_pred, from_logits=False, ignore_class=None, axis=-1):
    """``-log p[label]``.

    Parameters
    ----------
    y_true : array or Tensor of labels, shape (batch, ...) or (batch, ..., 1)
        Integers in [0, classes); floats are truncated.
    y_pred : array or Tensor, shape (batch, ..., classes)
        Probabilities (normalised to sum 1, kept within [epsilon, 1 - epsilon]) or logits.
    from_logits : bool
    ignore_class : int, optional
        Entries with this label have loss 0 and do not count.
    axis : int
        The class axis.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes do not match or, on evaluation, a label is not a class.
    """
    y_true, y_pred = sparse_arguments(y_true, y_pred, axis)
    ignore = NO_CLASS if ignore_class is None else int(ignore_class)
    return sparse_crossentropy(y_pred, y_true, from_logits=bool(from_logits), ignore=ignore, epsilon=backend.epsilon())


def sparse_arguments(y_true, y_pred, axis):
    """Check labels; return them as int64, and predictions, with the classes last.

    Raises
    ------
    ValueError
        If the shapes do not match, or `axis` is out of range.
    """
    y_pred, y_true = prediction_of(y_pred), array_of(y_true)
    if not len(y_pred.shape):
        raise ValueError("Argument `output` must be at least rank 1. Received: a scalar")
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
        y_true = ops.squeeze(y_true, axis=axis)
    y_pred_last = class_axis_last(y_pred, axis)
    left, right = tuple(y_true.shape), tuple(y_pred_last.shape)[:-1]
    if len(left) != len(right) or any(a != b for a, b in zip(left, right, strict=True) if None not in (a, b)):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape up until the last dimension: "
            f"target.shape={left}, output.shape={tuple(y_pred.shape)}" + (_DENSE if left == tuple(y_pred.shape) else "")
        )
    if np.dtype(y_true.dtype) != np.int64:
        y_true = ops.cast(y_true, "int64")
    return y_true, y_pred_last


class BinaryCrossentropy(LossFunctionWrapper):
    """Cross-entropy of yes/no answers; see `Loss` and `binary_crossentropy`."""

    @checked(from_logits=flag, label_smoothing=fraction, axis=integer)
    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="binary_crossentropy",
        dtype=None,
    ):
        super().__init__(
            binary_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of one-hot targets; see `Loss` and `categorical_crossentropy`."""

    @checked(from_logits=flag, label_smoothing=fraction, axis=integer)
    def __init__(
        self,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="categorical_crossentropy",
        dtype=None,
    ):
        super().__init__(
            categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(LossFunctionWrapper):
    """Cross-entropy of integer labels; see `Loss` and `sparse_categorical_crossentropy`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import losses
    >>> loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> print(f"{float(loss(np.array([1, 0]), np.zeros((2, 4), 'float32'))):.4f}")
    1.3863
    """

    @checked(from_logits=flag, ignore_class=partial(integer, optional=True), axis=integer)
    def __init__(
        self,
        from_logits=False,
        ignore_class=None,
        reduction="sum_over_batch_size",
        axis=-1,
        name="sparse_categorical_crossentropy",
        dtype=None,
    ):
        super().__init__(
            sparse_categorical_crossentropy,
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )

    def compute_mask(self, y_true, y_pred):
        """The entries whose label is not `ignore_class`; None if no class is ignored."""
        ignore_class = self._fn_kwargs["ignore_class"]
        if ignore_class is None:
            return None
        labels, _ = sparse_arguments(y_true, y_pred, self._fn_kwargs["axis"])
        return ops.not_equal(labels, int(ignore_class))
