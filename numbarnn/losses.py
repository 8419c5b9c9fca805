"""Losses: what training minimises.

Everything here is written in `ops`: on arrays it computes at once, inside a model's training step it becomes part of
the program. Cross-entropies over classes run on fused kernels.
"""

from __future__ import annotations

import warnings

import numpy as np

from . import backend, ops, serialization
from .graph import KernelOp, Spec, Tensor
from .jit import kernel_array
from .kernels import crossentropy as kernels

__all__ = [
    "BinaryCrossentropy",
    "CategoricalCrossentropy",
    "Loss",
    "LossFunctionWrapper",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "categorical_crossentropy",
    "deserialize",
    "get",
    "mean_absolute_error",
    "mean_squared_error",
    "serialize",
    "sparse_categorical_crossentropy",
]

_REDUCTIONS = ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", "auto", None)


# ----------------------------------------------------------------------------------------------------- fused operations


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def _infer_classes(predictions, targets, **attrs):
    return Spec(tuple(predictions.shape)[:-1], predictions.dtype)


def _forward_sparse(predictions, labels, *, save, from_logits, ignore, epsilon):
    shape = predictions.shape
    rows = kernel_array(_rows(predictions))
    labels = kernel_array(labels.astype(np.int64, copy=False)).reshape(-1)
    loss, norms = kernels.sparse_forward(rows, labels, from_logits, ignore, epsilon)
    return loss.reshape(shape[:-1]), (rows, labels, norms, shape) if save else None


def _pullback_sparse(saved, d_outputs, needs, *, from_logits, ignore, epsilon):
    rows, labels, norms, shape = saved
    d_loss = d_outputs[0]
    if d_loss is None or not needs[0]:
        return None, None
    d_loss = kernel_array(d_loss.astype(rows.dtype, copy=False)).reshape(-1)
    return kernels.sparse_backward(d_loss, rows, labels, from_logits, ignore, epsilon, norms).reshape(shape), None


def _forward_dense(predictions, targets, *, save, from_logits, epsilon):
    shape = predictions.shape
    rows = kernel_array(_rows(predictions))
    weights = kernel_array(_rows(targets).astype(rows.dtype, copy=False))
    loss, norms = kernels.dense_forward(rows, weights, from_logits, epsilon)
    return loss.reshape(shape[:-1]), (rows, weights, norms, shape) if save else None


def _pullback_dense(saved, d_outputs, needs, *, from_logits, epsilon):
    rows, weights, norms, shape = saved
    d_loss = d_outputs[0]
    if d_loss is None:
        return None, None
    d_loss = kernel_array(d_loss.astype(rows.dtype, copy=False)).reshape(-1)
    d_rows, d_weights = kernels.dense_backward(d_loss, rows, weights, from_logits, epsilon, norms, bool(needs[1]))
    return d_rows.reshape(shape), None if d_weights is None else d_weights.reshape(shape)


_sparse_crossentropy = KernelOp("sparse_crossentropy", _forward_sparse, _infer_classes, _pullback_sparse)
_dense_crossentropy = KernelOp("dense_crossentropy", _forward_dense, _infer_classes, _pullback_dense)


# ------------------------------------------------------------------------------------------------------------ helpers


def _value(x):
    """Arrays from lists and numbers; what is symbolic stays."""
    return x if hasattr(x, "shape") and hasattr(x, "dtype") else np.asarray(x)


def _prediction(x):
    """Predictions as a float array; float16 is computed as float32."""
    x = _value(x)
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


def _match(y_true, y_pred):
    """Both sides of an elementwise loss: same float type, compatible shapes."""
    y_pred = _prediction(y_pred)
    y_true = _value(y_true)
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


def _class_axis_last(x, axis):
    rank = len(x.shape)
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise ValueError(f"`axis` must be of type `int`. Received: axis={axis} of type {type(axis)}")
    if not -rank <= axis < rank:
        raise ValueError(f"`axis` must lie in [{-rank}, {rank}) for predictions of rank {rank}. Received: axis={axis}")
    axis %= rank
    if axis == rank - 1:
        return x
    return ops.transpose(x, [i for i in range(rank) if i != axis] + [axis])


# ------------------------------------------------------------------------------------------------------------ functions


def mean_squared_error(y_true, y_pred):
    """``mean((y_true - y_pred)**2, axis=-1)``.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
        A trailing 1 that only one of them has is dropped.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Examples
    --------
    >>> from numbarnn import losses
    >>> losses.mean_squared_error([[0.0, 1.0]], [[1.0, 3.0]])
    array([2.5])
    """
    y_true, y_pred = _match(y_true, y_pred)
    return ops.mean(ops.square(ops.subtract(y_pred, y_true)), axis=-1)


def mean_absolute_error(y_true, y_pred):
    """``mean(abs(y_true - y_pred), axis=-1)``; arguments and result as `mean_squared_error`."""
    y_true, y_pred = _match(y_true, y_pred)
    return ops.mean(ops.abs(ops.subtract(y_pred, y_true)), axis=-1)


def binary_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """Mean over `axis` of ``-(t log p + (1 - t) log(1 - p))``.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., d)
    from_logits : bool
        `y_pred` holds logits; otherwise probabilities, kept within [epsilon, 1 - epsilon].
    label_smoothing : float
        Targets are squeezed towards 0.5: ``t * (1 - s) + 0.5 * s``.
    axis : int
        The axis of the mean.

    Returns
    -------
    array or Tensor, shape (batch, ...)
    """
    y_true, y_pred = _match(y_true, y_pred)
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + 0.5 * label_smoothing
    if from_logits:
        # Two softplus rather than softplus(z) - t z: nothing cancels for confident correct answers.
        value = y_true * ops.softplus(-y_pred) + (1.0 - y_true) * ops.softplus(y_pred)
    else:
        epsilon = backend.epsilon()
        p = ops.clip(y_pred, epsilon, 1.0 - epsilon)
        value = -(y_true * ops.log(p) + (1.0 - y_true) * ops.log(1.0 - p))
    return ops.mean(value, axis=axis)


def categorical_crossentropy(y_true, y_pred, from_logits=False, label_smoothing=0.0, axis=-1):
    """``-sum(t log p)`` over the classes.

    Parameters
    ----------
    y_true, y_pred : array or Tensor, shape (batch, ..., classes)
        One-hot or soft targets; probabilities (normalised to sum 1, kept within [epsilon, 1 - epsilon]) or logits.
    from_logits : bool
    label_smoothing : float
        Targets become ``t * (1 - s) + s / classes``.
    axis : int
        The class axis.

    Returns
    -------
    array or Tensor, shape (batch, ...)

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    y_pred = _prediction(y_pred)
    y_true = _value(y_true)
    if y_true.dtype != y_pred.dtype:
        y_true = ops.cast(y_true, y_pred.dtype)
    shapes = tuple(y_true.shape), tuple(y_pred.shape)
    if len(shapes[0]) != len(shapes[1]) or any(a != b for a, b in zip(*shapes, strict=True) if None not in (a, b)):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape. "
            f"Received: target.shape={shapes[0]}, output.shape={shapes[1]}"
        )
    if not shapes[1]:
        raise ValueError("Arguments `target` and `output` must be at least rank 1. Received: scalars")
    y_true, y_pred = _class_axis_last(y_true, axis), _class_axis_last(y_pred, axis)
    classes = y_pred.shape[-1]
    if classes == 1:
        warnings.warn(
            "In loss categorical_crossentropy, expected y_pred.shape to be (batch_size, num_classes) with "
            f"num_classes > 1. Received: y_pred.shape={shapes[1]}. Consider using 'binary_crossentropy' if you only "
            "have 2 classes.",
            SyntaxWarning,
            stacklevel=2,
        )
    if label_smoothing:
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    return _dense_crossentropy(y_pred, y_true, from_logits=bool(from_logits), epsilon=backend.epsilon())


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
    y_true, y_pred = _sparse_arguments(y_true, y_pred, axis)
    ignore = kernels.NO_CLASS if ignore_class is None else int(ignore_class)
    return _sparse_crossentropy(y_pred, y_true, from_logits=bool(from_logits), ignore=ignore, epsilon=backend.epsilon())


def _sparse_arguments(y_true, y_pred, axis):
    y_pred, y_true = _prediction(y_pred), _value(y_true)
    if not len(y_pred.shape):
        raise ValueError("Argument `output` must be at least rank 1. Received: a scalar")
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
        y_true = ops.squeeze(y_true, axis=axis)
    y_pred_last = _class_axis_last(y_pred, axis)
    left, right = tuple(y_true.shape), tuple(y_pred_last.shape)[:-1]
    if len(left) != len(right) or any(a != b for a, b in zip(left, right, strict=True) if None not in (a, b)):
        raise ValueError(
            "Arguments `target` and `output` must have the same shape up until the last dimension: "
            f"target.shape={left}, output.shape={tuple(y_pred.shape)}"
        )
    if np.dtype(y_true.dtype) != np.int64:
        y_true = ops.cast(y_true, "int64")
    return y_true, y_pred_last


# -------------------------------------------------------------------------------------------------------------- classes


def _standardize_reduction(reduction):
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
    reduction = _standardize_reduction(reduction)
    values = _prediction(values)
    valid = None
    if mask is not None:
        mask = ops.cast(_value(mask), "bool")
        values, mask = squeeze_or_expand_to_same_rank(values, mask)
        mask = _align(mask, values)
        if len(mask.shape) > len(values.shape):
            raise ValueError(
                f"The mask must not have more axes than the loss values. Received: mask of shape {tuple(mask.shape)} "
                f"for values of shape {tuple(values.shape)}"
            )
        values = ops.where(mask, values, 0.0)
        valid = ops.sum(ops.cast(mask, values.dtype))
    if sample_weight is not None:
        sample_weight = ops.cast(_value(sample_weight), values.dtype)
        values, sample_weight = squeeze_or_expand_to_same_rank(values, sample_weight)
        aligned = _align(sample_weight, values)
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
        spread = ops.broadcast_to(_align(sample_weight, values), values.shape)
        if mask is not None:
            spread = ops.where(mask, spread, 0.0)
        return _divide_no_nan(total, ops.sum(spread))
    if valid is not None:
        # A mask with fewer axes than the values stands for the same share of them.
        share = _size(values) / _size(mask)
        return _divide_no_nan(total, valid if share == 1.0 else valid * share)
    count = _size(weighted)
    return total if count in (0, 1) else total / count


def _align(small, values):
    """Append axes of size 1 until `small` broadcasts from the left, as weights per sample must."""
    missing = len(values.shape) - len(small.shape)
    for _ in range(max(0, missing)):
        small = ops.expand_dims(small, axis=-1)
    return small


def _divide_no_nan(a, b):
    zero = ops.equal(b, 0.0)
    return ops.where(zero, 0.0, a / ops.where(zero, 1.0, b))


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
        _standardize_reduction(reduction)
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
        y_pred = _prediction(y_pred)
        if self._dtype is not None and y_pred.dtype != np.dtype(self.dtype):
            y_pred = ops.cast(y_pred, self.dtype)
        y_true = _value(y_true)
        if mask is not None:
            y_true, y_pred = self._hide(y_true, y_pred, mask)
        values = self.call(y_true, y_pred)
        own = self.compute_mask(y_true, y_pred)
        if own is not None:
            mask = own if mask is None else ops.logical_and(own, ops.cast(mask, "bool"))
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
        """Hide entries that do not count from `call`, where a NaN among them would spoil gradients."""
        return y_true, y_pred

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
        if name is None:
            name = getattr(fn, "__name__", None) or backend.to_snake_case(type(fn).__name__)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.fn = fn
        self._fn_kwargs = kwargs

    def call(self, y_true, y_pred):
        """See `Loss.call`."""
        return self.fn(y_true, y_pred, **self._fn_kwargs)

    def _hide(self, y_true, y_pred, mask):
        if self.fn not in _ELEMENTWISE:
            return y_true, y_pred
        mask = ops.cast(_value(mask), "bool")
        return _blank(y_true, mask), _blank(y_pred, mask)

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


_ELEMENTWISE = (mean_squared_error, mean_absolute_error, binary_crossentropy)


def _blank(x, mask):
    shape, wanted = tuple(x.shape), tuple(mask.shape)
    if len(shape) < len(wanted) or any(a != b for a, b in zip(shape, wanted, strict=False) if None not in (a, b)):
        return x
    return ops.where(_align(mask, x), x, 0)


class MeanSquaredError(LossFunctionWrapper):
    """Mean of squared differences; see `Loss` and `mean_squared_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_squared_error", dtype=None):
        super().__init__(mean_squared_error, reduction, name, dtype)


class MeanAbsoluteError(LossFunctionWrapper):
    """Mean of absolute differences; see `Loss` and `mean_absolute_error`."""

    def __init__(self, reduction="sum_over_batch_size", name="mean_absolute_error", dtype=None):
        super().__init__(mean_absolute_error, reduction, name, dtype)


class BinaryCrossentropy(LossFunctionWrapper):
    """Cross-entropy of yes/no answers; see `Loss` and `binary_crossentropy`."""

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
        labels, _ = _sparse_arguments(y_true, y_pred, self._fn_kwargs["axis"])
        return ops.not_equal(labels, int(ignore_class))


_CLASSES = (
    MeanSquaredError,
    MeanAbsoluteError,
    BinaryCrossentropy,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
)
_FUNCTIONS = {
    "mean_squared_error": mean_squared_error,
    "mse": mean_squared_error,
    "MSE": mean_squared_error,
    "mean_absolute_error": mean_absolute_error,
    "mae": mean_absolute_error,
    "MAE": mean_absolute_error,
    "binary_crossentropy": binary_crossentropy,
    "bce": binary_crossentropy,
    "BCE": binary_crossentropy,
    "categorical_crossentropy": categorical_crossentropy,
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
}
_BY_NAME = {**_FUNCTIONS, **{cls.__name__: cls for cls in _CLASSES}}
serialization.export("keras.losses", Loss, LossFunctionWrapper, *_CLASSES, *dict.fromkeys(_FUNCTIONS.values()))


def serialize(loss):
    """Turn a loss into a dict.

    Parameters
    ----------
    loss : Loss or function

    Returns
    -------
    dict
    """
    return serialization.serialize_keras_object(loss)


def deserialize(name, custom_objects=None):
    """Make a loss from a name or `serialize`'s dict.

    Parameters
    ----------
    name : str or dict
    custom_objects : dict, optional

    Returns
    -------
    Loss or function
    """
    return serialization.deserialize_keras_object(name, custom_objects, _BY_NAME)


def get(identifier):
    """A loss from what `compile` accepts.

    Parameters
    ----------
    identifier : None, str, dict, callable or Loss

    Returns
    -------
    None, Loss or function
        A name of a class gives a new object, a name of a function the function.

    Raises
    ------
    ValueError
        For anything else.
    """
    if identifier is None:
        return None
    if isinstance(identifier, str):
        found = _BY_NAME.get(identifier) or serialization.get_registered_object(identifier)
    elif isinstance(identifier, dict):
        found = deserialize(identifier)
    else:
        found = identifier
    if isinstance(found, type):
        return found()
    if callable(found):
        return found
    raise ValueError(f"Could not interpret loss identifier: {identifier}")
