"""The base of all losses, and losses made from functions."""

from __future__ import annotations

import numpy as np

from .. import backend, ops, serialization
from ..graph import Tensor
from .arguments import append_axes, array_of, prediction_of, squeeze_or_expand_to_same_rank
from .reduction import reduce_weighted_values, standardize_reduction


class Loss:
    """Base of all losses: `call` gives one value per entry, calling the object weighs and reduces them.

    Parameters
    ----------
    name : str, optional
    reduction : str or None
        ``"sum_over_batch_size"`` (also ``"auto"``, ``"mean"``), ``"sum"``, ``"mean_with_sample_weight"``, ``"none"``
        or None.
    dtype : str, optional
        Predictions are cast to it; by default they keep their type (float16 is computed as float32).

    Raises
    ------
    ValueError
        For any other reduction.
    """

    def __init__(self, name=None, reduction="sum_over_batch_size", dtype=None):
        self.name = name or backend.to_snake_case(type(self).__name__)
        standardize_reduction(reduction)
        self.reduction = reduction
        self._dtype = dtype
        self.dtype = backend.standardize_dtype(dtype)

    def __call__(self, y_true, y_pred, sample_weight=None, mask=None):
        """The loss.

        Parameters
        ----------
        y_true, y_pred : array or Tensor
        sample_weight : array or Tensor, optional
            Of shape (batch,) or that of the loss values.
        mask : array or Tensor of bool, optional
            Entries that count; by default the mask that `y_pred` carries.

        Returns
        -------
        array or Tensor
            A scalar, or shaped like the loss values for ``reduction="none"``.
        """
        if mask is None:
            mask = _mask_of(y_pred)
        y_pred = prediction_of(y_pred)
        if self._dtype is not None and y_pred.dtype != np.dtype(self.dtype):
            y_pred = ops.cast(y_pred, self.dtype)
        y_true = array_of(y_true)
        if mask is not None:
            y_true, y_pred, mask = self._hide(y_true, y_pred, ops.cast(array_of(mask), "bool"))
        values = self.call(y_true, y_pred)
        own = self.compute_mask(y_true, y_pred)
        if own is not None:
            mask = own if mask is None else ops.logical_and(own, mask)
        return reduce_weighted_values(values, sample_weight, mask, self.reduction)

    def call(self, y_true, y_pred):
        """One value per entry, to be written by subclasses.

        Parameters
        ----------
        y_true, y_pred : array or Tensor

        Returns
        -------
        array or Tensor
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `call(y_true, y_pred)`.")

    def compute_mask(self, y_true, y_pred):
        """A mask that the loss itself makes (`ignore_class`), or None."""
        return None

    def _hide(self, y_true, y_pred, mask):
        """Targets and predictions without entries that must not reach `call`, and the mask of its values."""
        return y_true, y_pred, mask

    def get_config(self):
        """The constructor's arguments as plain values.

        Returns
        -------
        dict
        """
        return {"name": self.name, "reduction": self.reduction}

    @classmethod
    def from_config(cls, config):
        """Make a loss from `get_config`'s dict."""
        return cls(**config)


def _mask_of(y_pred):
    if isinstance(y_pred, Tensor):
        return y_pred.mask
    return eager_mask(y_pred)


def eager_mask(array):
    """The mask that a layer attached to an array it returned, or None."""
    return None if _mask_reader is None or not isinstance(array, np.ndarray) else _mask_reader(array)


def set_mask_reader(reader):
    """Install the function that finds an array's mask; the layers, a floor above, own the table."""
    global _mask_reader
    _mask_reader = reader


_mask_reader = None


class LossFunctionWrapper(Loss):
    """A loss from a function ``fn(y_true, y_pred, **kwargs)`` that gives one value per entry.

    Parameters
    ----------
    fn : callable
    reduction, name, dtype :
        See `Loss`.
    **kwargs
        Passed to `fn`.
    """

    def __init__(self, fn, reduction="sum_over_batch_size", name=None, dtype=None, **kwargs):
        if not callable(fn):
            raise TypeError(f"`fn` must be a function of `y_true` and `y_pred`. Received: fn={fn!r}")
        if name is None:
            name = getattr(fn, "__name__", None) or backend.to_snake_case(type(fn).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true, y_pred):
        """See `Loss.call`; a trailing 1 that only one of the two has is dropped."""
        y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def _hide(self, y_true, y_pred, mask):
        rule = getattr(self.fn, "hide_masked", None)
        return (y_true, y_pred, mask) if rule is None else rule(y_true, y_pred, mask, **self._fn_kwargs)

    def get_config(self):
        """See `Loss.get_config`."""
        config = super().get_config()
        if type(self) is LossFunctionWrapper:
            config["fn"] = serialization.serialize_keras_object(self.fn)
        return {**config, **serialization.serialize_keras_object(self._fn_kwargs)}

    @classmethod
    def from_config(cls, config):
        """Make a loss from `get_config`'s dict."""
        if "fn" in config:
            config = {**config, "fn": serialization.deserialize_keras_object(config["fn"])}
        return cls(**config)


# ------------------------------------------------------------------------------------------------------------- hiding


def hides(rule):
    """Decorate a loss function with what keeps masked entries from it, where a NaN among them would spoil gradients.

    Parameters
    ----------
    rule : callable
        ``rule(y_true, y_pred, mask, **kwargs)``, with the function's own keyword arguments, returns targets and
        predictions without these entries, and the mask of the function's values.
    """

    def decorator(fn):
        fn.hide_masked = rule
        return fn

    return decorator


def rows(y_true, y_pred, mask, axis=-1, **_):
    """The rule of functions whose values do not depend on each other: masked rows become harmless ones."""
    if axis != -1:
        return y_true, y_pred, mask
    return blank(y_true, mask, 0), blank(y_pred, mask, 1), mask


def blank(x, mask, value):
    """`x` with `value` where the mask of its first axes is False; as it is where the mask is none of its first axes."""
    shape, wanted = tuple(x.shape), tuple(mask.shape)
    if len(shape) < len(wanted) or any(a != b for a, b in zip(shape, wanted, strict=False) if None not in (a, b)):
        return x
    return ops.where(append_axes(mask, x), x, value)
