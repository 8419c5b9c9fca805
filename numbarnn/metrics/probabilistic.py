"""How far predicted distributions are from the targets."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import losses
from ..arrays import as_array
from ..checks import checked, flag, fraction, integer
from .arguments import combine_weight
from .reduction import MeanMetricWrapper


class BinaryCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of yes/no answers; see `losses.binary_crossentropy`."""

    _direction = "down"

    @checked(from_logits=flag, label_smoothing=fraction)
    def __init__(self, name="binary_crossentropy", dtype=None, from_logits=False, label_smoothing=0):
        super().__init__(
            losses.binary_crossentropy, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing
        )


class CategoricalCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of one-hot targets; see `losses.categorical_crossentropy`."""

    _direction = "down"

    @checked(from_logits=flag, label_smoothing=fraction, axis=integer)
    def __init__(self, name="categorical_crossentropy", dtype=None, from_logits=False, label_smoothing=0, axis=-1):
        super().__init__(
            losses.categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )


class SparseCategoricalCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of integer labels; see `losses.sparse_categorical_crossentropy`.

    Entries with the label `ignore_class` do not count, as in the loss. (Keras counts them as zeros, unless there are
    sample weights.)
    """

    _direction = "down"
    on_gpu = True

    @checked(from_logits=flag, ignore_class=partial(integer, optional=True), axis=integer)
    def __init__(
        self, name="sparse_categorical_crossentropy", dtype=None, from_logits=False, ignore_class=None, axis=-1
    ):
        super().__init__(
            losses.sparse_categorical_crossentropy,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """See `MeanMetricWrapper.update_state`."""
        ignore_class, axis = self._fn_kwargs["ignore_class"], self._fn_kwargs["axis"]
        if ignore_class is not None:
            labels = as_array(y_true)
            if labels.ndim == np.ndim(y_pred) and labels.shape[axis] == 1:
                labels = labels.squeeze(axis)
            sample_weight = combine_weight(sample_weight, labels != ignore_class)
        super().update_state(y_true, y_pred, sample_weight)


class KLDivergence(MeanMetricWrapper):
    """Mean Kullback-Leibler divergence; see `losses.kl_divergence`."""

    _direction = "down"

    def __init__(self, name="kl_divergence", dtype=None):
        super().__init__(losses.kl_divergence, name, dtype)


class Poisson(MeanMetricWrapper):
    """Mean Poisson loss; see `losses.poisson`."""

    _direction = "down"

    def __init__(self, name="poisson", dtype=None):
        super().__init__(losses.poisson, name, dtype)
