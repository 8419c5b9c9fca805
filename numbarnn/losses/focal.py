"""Cross-entropies that weigh examples by how badly they are answered.

The focal losses (Lin et al. 2017, "Focal Loss for Dense Object Detection") take confident correct answers back by
``(1 - p)**gamma``; the generalised cross-entropy (Zhang & Sabuncu 2018) takes hopeless ones back, which may be wrong
labels.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import backend, ops
from ..checks import checked, flag, fraction, integer, number, real_numbers
from .arguments import match, smoothed
from .crossentropies import dense_arguments, sparse_arguments, yes_no_losses
from .loss import LossFunctionWrapper, hides, rows


def _focus(miss, gamma):
    """``miss ** gamma``, with a slope also where nothing is missed and gamma < 1."""
    if not gamma >= 0:
        raise ValueError(f"`gamma` must not be negative. Received: gamma={gamma}")
    return ops.power(ops.maximum(miss, backend.epsilon()), float(gamma))


@hides(rows)
def binary_focal_crossentropy(
    y_true,
    y_pred,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    label_smoothing=0.0,
    axis=-1,
):
    """Mean over `axis` of the cross-entropy of yes/no answers times ``(1 - p_t)**gamma``.

    ``p_t = t p + (1 - t) (1 - p)`` is the probability given to the right answer.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
    apply_class_balancing : bool
        Weigh yes by `alpha`, no by ``1 - alpha``.
    alpha : float
    gamma : float
        Not negative; 0 gives `binary_crossentropy`.
    from_logits : bool
        `y_pred` holds logits; otherwise probabilities, whose logarithm is taken within [epsilon, 1 - epsilon].
    label_smoothing : float
        Targets are squeezed towards 0.5: ``t * (1 - s) + 0.5 * s``, s in [0, 1].
    axis : int
        The axis of the mean.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes do not match, `gamma` is negative, or `label_smoothing` is not in [0, 1].
    """
    y_true, y_pred = match(y_true, y_pred)
    y_true = smoothed(y_true, label_smoothing, 0.5)
    p, not_p = (ops.sigmoid(y_pred), ops.sigmoid(-y_pred)) if from_logits else (y_pred, 1.0 - y_pred)
    # 1 - p_t, written so that nothing cancels where it is small.
    missed = y_true * not_p + (1.0 - y_true) * p
    value = _focus(missed, gamma) * yes_no_losses(y_true, y_pred, from_logits)
    if apply_class_balancing:
        value = (y_true * alpha + (1.0 - y_true) * (1.0 - alpha)) * value
    return ops.mean(value, axis=axis)


def _weights(name, value):
    """Return a weight for all classes, or those of each."""
    return real_numbers(name, value) if isinstance(value, (list, tuple, np.ndarray)) else number(name, value, least=0)


@hides(rows)
def categorical_focal_crossentropy(
    y_true, y_pred, alpha=0.25, gamma=2.0, from_logits=False, label_smoothing=0.0, axis=-1
):
    """``-sum(alpha t (1 - p)**gamma log p)`` over the classes.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., classes)
        One-hot or soft targets; probabilities (normalised to sum 1, kept within [epsilon, 1 - epsilon]) or logits.
    alpha : float or array_like, shape (classes,)
        One weight for all classes, or one for each.
    gamma : float
        Not negative.
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
        If the shapes differ, or `axis`, `gamma` or `label_smoothing` is out of range.
    """
    y_true, y_pred = dense_arguments("categorical_focal_crossentropy", y_true, y_pred, label_smoothing, axis)
    weight = np.asarray(alpha, np.dtype(y_pred.dtype))
    if weight.ndim and weight.shape != (y_pred.shape[-1],):
        raise ValueError(
            f"`alpha` must be a number or have one weight for each of {y_pred.shape[-1]} classes. Received: {alpha}"
        )
    if from_logits:
        log_p = ops.log_softmax(y_pred)
        p = ops.exp(log_p)
    else:
        p = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
        p = ops.clip(p, backend.epsilon(), 1.0 - backend.epsilon())
        log_p = ops.log(p)
    return ops.sum(-y_true * log_p * (_focus(1.0 - p, gamma) * weight), axis=-1)


@hides(rows)
def categorical_generalized_cross_entropy(y_true, y_pred, q):
    """``(1 - p[label]**q) / q``: close to the cross-entropy for small q, to the absolute error for q near 1.

    Parameters
    ----------
    y_true : array or Tensor of labels, shape (batch, ...) or (batch, ..., 1)
        Integers in [0, classes).
    y_pred : array or Tensor, shape (batch, ..., classes)
        Probabilities.
    q : float
        In (0, 1).

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes do not match, or `q` is not in (0, 1).
    IndexError
        On evaluation, if a label is not a class.
    """
    number("q", q, above=0, below=1)
    y_true, y_pred = sparse_arguments(y_true, y_pred, -1)
    # An index of -1 would silently be the last class; that of one class too many is refused.
    places = ops.where(ops.less(y_true, 0), y_pred.shape[-1], y_true)
    picked = ops.squeeze(ops.take_along_axis(y_pred, ops.expand_dims(places, axis=-1), axis=-1), axis=-1)
    return (1.0 - ops.power(picked, float(q))) / float(q)


class BinaryFocalCrossentropy(LossFunctionWrapper):
    """Focal cross-entropy of yes/no answers; see `Loss` and `binary_focal_crossentropy`."""

    @checked(
        apply_class_balancing=flag,
        alpha=fraction,
        gamma=partial(number, least=0),
        from_logits=flag,
        label_smoothing=fraction,
        axis=integer,
    )
    def __init__(
        self,
        apply_class_balancing=False,
        alpha=0.25,
        gamma=2.0,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="binary_focal_crossentropy",
        dtype=None,
    ):
        super().__init__(
            binary_focal_crossentropy,
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalFocalCrossentropy(LossFunctionWrapper):
    """Focal cross-entropy of one-hot targets; see `Loss` and `categorical_focal_crossentropy`."""

    @checked(alpha=_weights, gamma=partial(number, least=0), from_logits=flag, label_smoothing=fraction, axis=integer)
    def __init__(
        self,
        alpha=0.25,
        gamma=2.0,
        from_logits=False,
        label_smoothing=0.0,
        axis=-1,
        reduction="sum_over_batch_size",
        name="categorical_focal_crossentropy",
        dtype=None,
    ):
        super().__init__(
            categorical_focal_crossentropy,
            reduction,
            name,
            dtype,
            alpha=alpha.tolist() if isinstance(alpha, np.ndarray) else alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class CategoricalGeneralizedCrossEntropy(LossFunctionWrapper):
    """Cross-entropy that bears wrong labels; see `Loss` and `categorical_generalized_cross_entropy`."""

    @checked(q=partial(number, above=0, below=1))
    def __init__(
        self, q=0.5, reduction="sum_over_batch_size", name="categorical_generalized_cross_entropy", dtype=None
    ):
        super().__init__(categorical_generalized_cross_entropy, reduction, name, dtype, q=q)
