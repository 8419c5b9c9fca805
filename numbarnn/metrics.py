"""Metrics: what training reports. Computed eagerly, on arrays, accumulated in float64."""

from __future__ import annotations

import functools
import math

import numpy as np

from . import backend, losses, serialization
from .protocols import local, user_line
from .variable import Variable

__all__ = [
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "Mean",
    "MeanAbsoluteError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "Metric",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "Sum",
    "accuracy",
    "binary_accuracy",
    "categorical_accuracy",
    "deserialize",
    "get",
    "resolve",
    "serialize",
    "sparse_categorical_accuracy",
]


def _not_traced(update_state):
    """Make an `update_state` refuse to run where there are no values yet."""

    @functools.wraps(update_state)
    def update(self, *args, **kwargs):
        if local.trace is not None:
            raise TypeError(
                f"{user_line()}: metric '{self.name}' cannot be updated in a `call` or a loss: these are traced, run "
                "once on symbols. Give it to `compile(metrics=...)`, or return the value and update the metric in "
                "`train_step`"
            )
        return update_state(self, *args, **kwargs)

    return update


class Metric:
    """Base of all metrics: `update_state` per batch, `result` at any time, `reset_state` to start anew.

    Parameters
    ----------
    name : str, optional
    dtype : str, optional
        Kept for Keras's sake; sums are formed in float64.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "update_state" in cls.__dict__:
            cls.update_state = _not_traced(cls.update_state)

    def __init__(self, name=None, dtype=None):
        self.name = name or backend.auto_name(type(self).__name__)
        self.dtype = backend.standardize_dtype(dtype)
        self._variables: list[Variable] = []

    @property
    def variables(self):
        """The metric's state: list of `Variable`."""
        return list(self._variables)

    def add_variable(self, shape=(), initializer=None, dtype="float64", name=None):
        """Add a state variable.

        Parameters
        ----------
        shape : tuple of int
        initializer : callable or str, optional
            Zeros by default.
        dtype, name : str

        Returns
        -------
        Variable
        """
        if initializer is None:
            value = np.zeros(shape, dtype)
        else:
            from . import initializers

            value = initializers.get(initializer)(tuple(shape), dtype=dtype)
        variable = Variable(value, trainable=False, name=name, dtype=dtype)
        self._variables.append(variable)
        return variable

    def add_weight(self, shape=(), initializer=None, dtype="float64", name=None):
        """As `add_variable`; a string in first place is the name, as in Keras 2."""
        if isinstance(shape, str):
            shape, name = (), shape
        return self.add_variable(shape, initializer, dtype, name)

    def reset_state(self):
        """Set every state variable to zero."""
        for variable in self._variables:
            variable.data.fill(0)
            variable.touch()

    def reset_states(self):
        """As `reset_state`, the name of Keras 2."""
        self.reset_state()

    def update_state(self, *args, **kwargs):
        """Take a batch into account; to be written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must implement `update_state`.")

    def result(self):
        """The metric's value; to be written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must implement `result`.")

    def __call__(self, *args, **kwargs):
        """Update the state and return the result."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self):
        """The constructor's arguments as plain values.

        Returns
        -------
        dict
        """
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        """Make a metric from `get_config`'s dict."""
        return cls(**config)

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name}>"


def _weigh(values, weights):
    """Values and weights as float64 of one shape, as Keras matches them: sums of weighted values and of weights.

    Values with more axes than the weights are averaged over the axes that are too many.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if weights.ndim == values.ndim + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    elif values.ndim == weights.ndim + 1 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim > weights.ndim:
        values = values.mean(axis=tuple(range(weights.ndim, values.ndim)), dtype=np.float64)
    weights = np.broadcast_to(weights, values.shape)
    # Entries of weight zero are left out, not multiplied: a NaN there does no harm.
    products = np.multiply(values, weights, out=np.zeros(values.shape), where=weights != 0)
    return products, weights


class Sum(Metric):
    """Sum of values, weighted if asked.

    Parameters
    ----------
    name, dtype :
        See `Metric`.
    """

    def __init__(self, name="sum", dtype=None):
        super().__init__(name, dtype)
        self.total = self.add_variable(name="total")

    def update_state(self, values, sample_weight=None):
        """Add values.

        Parameters
        ----------
        values : array_like
        sample_weight : array_like, optional
            Broadcasts to `values` from the left.
        """
        values = np.asarray(values)
        if sample_weight is not None:
            values, _ = _weigh(values, sample_weight)
        self.total.data[...] += values.sum(dtype=np.float64)
        self.total.touch()

    def result(self):
        """The sum so far: float."""
        return float(self.total.data)


class Mean(Metric):
    """Mean of values over all batches, weighted if asked.

    Parameters
    ----------
    name, dtype :
        See `Metric`.

    Examples
    --------
    >>> from numbarnn.metrics import Mean
    >>> mean = Mean()
    >>> mean.update_state([1.0, 3.0])
    >>> mean.update_state([8.0])
    >>> mean.result()
    4.0
    """

    def __init__(self, name="mean", dtype=None):
        super().__init__(name, dtype)
        self.total = self.add_variable(name="total")
        self.count = self.add_variable(name="count")

    def update_state(self, values, sample_weight=None):
        """Take values into account.

        Parameters
        ----------
        values : array_like, shape (batch, ...) or ()
            Every sample counts once, with the mean over its other axes.
        sample_weight : array_like, optional
            Broadcasts to `values` from the left.
        """
        values = np.asarray(values)
        if sample_weight is None:
            shape = values.shape
            if not shape:
                self.add(float(values), 1.0)
            elif values.size:
                if values.dtype.kind == "b":
                    total = np.count_nonzero(values)
                else:
                    total = values.sum(dtype=np.float64).item()
                self.add(total if len(shape) == 1 else total * shape[0] / values.size, shape[0])
            return
        products, weights = _weigh(values, sample_weight)
        inner = math.prod(products.shape[1:])
        if inner:
            self.add(float(products.sum()) / inner, float(weights.sum()) / inner)

    def add(self, total, count):
        """Add a sum of `count` values directly.

        Parameters
        ----------
        total, count : float
        """
        number = self.total.data
        number += total
        number = self.count.data
        number += count
        self.total.version += 1
        self.count.version += 1

    def result(self):
        """The mean so far: float, 0.0 if there was nothing."""
        count = self.count.data.item()
        return self.total.data.item() / count if count else 0.0


class MeanMetricWrapper(Mean):
    """Mean of a function's values ``fn(y_true, y_pred, **kwargs)``.

    Parameters
    ----------
    fn : callable
        Gives one value per sample (and per timestep) for arrays.
    name, dtype :
        See `Metric`.
    **kwargs
        Passed to `fn`.
    """

    def __init__(self, fn, name=None, dtype=None, **kwargs):
        super().__init__(name if name is not None else _function_name(fn), dtype)
        self._fn = fn
        self._fn_kwargs = kwargs

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Take a batch into account.

        Parameters
        ----------
        y_true, y_pred : array_like
        sample_weight : array_like, optional
            Multiplied by the mask that `y_pred` carries, if any.
        """
        mask = losses.eager_mask(y_pred)
        if mask is not None:
            sample_weight = combine_weight(sample_weight, mask)
        fn = self._fn
        if self._fn_kwargs:
            values = fn(y_true, y_pred, **self._fn_kwargs)
        else:
            values = fn(y_true, y_pred)
        Mean.update_state(self, values, sample_weight)

    def get_config(self):
        """See `Metric.get_config`."""
        config = super().get_config()
        if type(self) is MeanMetricWrapper:
            config["fn"] = serialization.serialize_keras_object(self._fn)
        return {**config, **serialization.serialize_keras_object(self._fn_kwargs)}

    @classmethod
    def from_config(cls, config):
        """Make a metric from `get_config`'s dict."""
        if "fn" in config:
            config = {**config, "fn": serialization.deserialize_keras_object(config["fn"])}
        return cls(**config)


def _function_name(fn):
    return getattr(fn, "__name__", None) or backend.to_snake_case(type(fn).__name__)


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
    mask = np.asarray(mask, dtype=np.float64)
    if sample_weight is None:
        return mask
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.ndim == mask.ndim + 1 and weight.shape[-1] == 1:
        weight = weight[..., 0]
    weight = weight.reshape(weight.shape + (1,) * (mask.ndim - weight.ndim))
    return weight * mask.reshape(mask.shape + (1,) * (weight.ndim - mask.ndim))


# ------------------------------------------------------------------------------------------------------------ functions


def _same_rank(y_true, y_pred):
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim != y_pred.ndim:
        y_true, y_pred = losses.squeeze_or_expand_to_same_rank(y_true, y_pred)
    if y_true.ndim != y_pred.ndim or any(
        a != b and 1 not in (a, b) for a, b in zip(y_true.shape, y_pred.shape, strict=True)
    ):
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={np.shape(y_true)}, y_pred.shape={np.shape(y_pred)}"
        )
    return y_true, y_pred


def accuracy(y_true, y_pred):
    """1 where prediction and target are equal, else 0.

    Parameters
    ----------
    y_true, y_pred : array_like
        Of one shape, but for a trailing 1.

    Returns
    -------
    ndarray of float32
    """
    y_true, y_pred = _same_rank(y_true, y_pred)
    return (y_true == y_pred).astype(np.float32)


def binary_accuracy(y_true, y_pred, threshold=0.5):
    """1 where ``y_pred > threshold`` says what `y_true` says.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ...)
    threshold : float

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = _same_rank(y_true, y_pred)
    return (y_true == (y_pred > threshold)).astype(np.float32)


def categorical_accuracy(y_true, y_pred):
    """1 where the largest entry of `y_pred` is where that of the one-hot `y_true` is.

    Parameters
    ----------
    y_true, y_pred : array_like, shape (batch, ..., classes)

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            "Targets and predictions must have the same shape. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    return (y_true.argmax(axis=-1) == y_pred.argmax(axis=-1)).astype(np.float32)


def sparse_categorical_accuracy(y_true, y_pred):
    """1 where the largest entry of `y_pred` is at the place `y_true` names.

    Parameters
    ----------
    y_true : array_like, shape (batch, ...) or (batch, ..., 1)
    y_pred : array_like, shape (batch, ..., classes)

    Returns
    -------
    ndarray of float32, shape (batch, ...)
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == 1:
        y_true = y_true[..., 0]
    if y_true.shape != y_pred.shape[:-1]:
        raise ValueError(
            "Labels must have the shape of the predictions without the classes. "
            f"Received: y_true.shape={y_true.shape}, y_pred.shape={y_pred.shape}"
        )
    matches = y_true == y_pred.argmax(axis=-1)
    if matches.ndim > 1 and matches.shape[-1] == 1:
        matches = matches[..., 0]
    return matches.astype(np.float32)


# -------------------------------------------------------------------------------------------------------------- classes


class Accuracy(MeanMetricWrapper):
    """How often predictions equal targets; see `accuracy`."""

    def __init__(self, name="accuracy", dtype=None):
        super().__init__(accuracy, name, dtype)


class BinaryAccuracy(MeanMetricWrapper):
    """How often thresholded predictions equal targets; see `binary_accuracy`."""

    def __init__(self, name="binary_accuracy", dtype=None, threshold=0.5):
        if threshold is not None and not 0 < threshold < 1:
            raise ValueError(
                "Invalid value for argument `threshold`. Expected a value in interval (0, 1). "
                f"Received: threshold={threshold}"
            )
        super().__init__(binary_accuracy, name, dtype, threshold=0.5 if threshold is None else threshold)


class CategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is the class of a one-hot target; see `categorical_accuracy`."""

    def __init__(self, name="categorical_accuracy", dtype=None):
        super().__init__(categorical_accuracy, name, dtype)


class SparseCategoricalAccuracy(MeanMetricWrapper):
    """How often the largest prediction is the labelled class; see `sparse_categorical_accuracy`."""

    def __init__(self, name="sparse_categorical_accuracy", dtype=None):
        super().__init__(sparse_categorical_accuracy, name, dtype)


class MeanSquaredError(MeanMetricWrapper):
    """Mean of squared differences; see `losses.mean_squared_error`."""

    def __init__(self, name="mean_squared_error", dtype=None):
        super().__init__(losses.mean_squared_error, name, dtype)


class MeanAbsoluteError(MeanMetricWrapper):
    """Mean of absolute differences; see `losses.mean_absolute_error`."""

    def __init__(self, name="mean_absolute_error", dtype=None):
        super().__init__(losses.mean_absolute_error, name, dtype)


class BinaryCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of yes/no answers; see `losses.binary_crossentropy`."""

    def __init__(self, name="binary_crossentropy", dtype=None, from_logits=False, label_smoothing=0):
        super().__init__(
            losses.binary_crossentropy, name, dtype, from_logits=from_logits, label_smoothing=label_smoothing
        )


class CategoricalCrossentropy(MeanMetricWrapper):
    """Mean cross-entropy of one-hot targets; see `losses.categorical_crossentropy`."""

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
    """Mean cross-entropy of integer labels; see `losses.sparse_categorical_crossentropy`."""

    def __init__(self, name="sparse_categorical_crossentropy", dtype=None, from_logits=False, axis=-1):
        super().__init__(losses.sparse_categorical_crossentropy, name, dtype, from_logits=from_logits, axis=axis)


_CLASSES = (
    Accuracy,
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    Mean,
    MeanAbsoluteError,
    MeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    Sum,
)
_FUNCTIONS = {
    "binary_accuracy": binary_accuracy,
    "categorical_accuracy": categorical_accuracy,
    "sparse_categorical_accuracy": sparse_categorical_accuracy,
}
_BY_NAME = {cls.__name__: cls for cls in _CLASSES}
_BY_NAME.update({backend.to_snake_case(cls.__name__): cls for cls in _CLASSES})
_BY_NAME.update({"mse": MeanSquaredError, "MSE": MeanSquaredError, "mae": MeanAbsoluteError, "MAE": MeanAbsoluteError})
_BY_NAME.update({"bce": BinaryCrossentropy, "BCE": BinaryCrossentropy})
serialization.export("keras.metrics", Metric, MeanMetricWrapper, *_CLASSES, *_FUNCTIONS.values())


def serialize(metric):
    """Turn a metric into a dict.

    Parameters
    ----------
    metric : Metric or function

    Returns
    -------
    dict
    """
    return serialization.serialize_keras_object(metric)


def deserialize(config, custom_objects=None):
    """Make a metric from a name or `serialize`'s dict.

    Parameters
    ----------
    config : str or dict
    custom_objects : dict, optional

    Returns
    -------
    Metric or function
    """
    return serialization.deserialize_keras_object(config, custom_objects, _BY_NAME)


def get(identifier):
    """A metric from a name, a serialised metric, a class, a function or a metric.

    Parameters
    ----------
    identifier : None, str, dict, type, callable or Metric

    Returns
    -------
    None, Metric or callable

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
        found = found()
    if callable(found):
        return found
    raise ValueError(f"Could not interpret metric identifier: {identifier}")


def choose_by_shape(y_true_shape, y_pred_shape, binary, sparse, categorical):
    """One of three, by the shapes of targets and predictions, as Keras chooses what "accuracy" means.

    Parameters
    ----------
    y_true_shape, y_pred_shape : tuple of int
    binary, sparse, categorical : object

    Returns
    -------
    object
    """
    last_true = y_true_shape[-1] if y_true_shape else None
    last_pred = y_pred_shape[-1] if y_pred_shape else None
    if last_pred == 1:
        return binary
    if len(y_true_shape) < len(y_pred_shape) or (last_true == 1 and last_pred is not None and last_pred > 1):
        return sparse
    return categorical


def resolve(identifier, y_true_shape, y_pred_shape):
    """The metric that an entry of ``compile(metrics=...)`` means for given shapes.

    Parameters
    ----------
    identifier : str, dict, type, callable or Metric
        "accuracy"/"acc" and "crossentropy"/"ce" are chosen by the shapes; the user's spelling stays the name.
    y_true_shape, y_pred_shape : tuple of int

    Returns
    -------
    Metric
    """
    word = identifier.lower() if isinstance(identifier, str) else None
    if word in ("accuracy", "acc"):
        cls = choose_by_shape(
            y_true_shape, y_pred_shape, BinaryAccuracy, SparseCategoricalAccuracy, CategoricalAccuracy
        )
        return cls(name=identifier)
    if word in ("crossentropy", "ce"):
        cls = choose_by_shape(
            y_true_shape, y_pred_shape, BinaryCrossentropy, SparseCategoricalCrossentropy, CategoricalCrossentropy
        )
        return cls(name=identifier)
    found = get(identifier)
    if found is None:
        raise ValueError("Expected a metric. Received: None")
    if not isinstance(found, Metric):
        return MeanMetricWrapper(found, name=identifier if isinstance(identifier, str) else None)
    if isinstance(identifier, str):
        found.name = identifier
    return found
