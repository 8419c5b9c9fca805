"""Metrics by name, as `compile` and saved models give them."""

from __future__ import annotations

from .. import backend, serialization
from . import (
    accuracies,
    auc,
    confusion,
    correlation,
    f_score,
    hinges,
    iou,
    operating_points,
    probabilistic,
    reduction,
    regression,
)
from .metric import Metric
from .reduction import MeanMetricWrapper

_CLASSES = (
    auc.AUC,
    accuracies.Accuracy,
    accuracies.BinaryAccuracy,
    probabilistic.BinaryCrossentropy,
    iou.BinaryIoU,
    accuracies.CategoricalAccuracy,
    probabilistic.CategoricalCrossentropy,
    hinges.CategoricalHinge,
    correlation.ConcordanceCorrelation,
    regression.CosineSimilarity,
    f_score.F1Score,
    f_score.FBetaScore,
    confusion.FalseNegatives,
    confusion.FalsePositives,
    hinges.Hinge,
    iou.IoU,
    probabilistic.KLDivergence,
    regression.LogCoshError,
    reduction.Mean,
    regression.MeanAbsoluteError,
    regression.MeanAbsolutePercentageError,
    iou.MeanIoU,
    regression.MeanSquaredError,
    regression.MeanSquaredLogarithmicError,
    iou.OneHotIoU,
    iou.OneHotMeanIoU,
    correlation.PearsonCorrelation,
    probabilistic.Poisson,
    confusion.Precision,
    operating_points.PrecisionAtRecall,
    regression.R2Score,
    confusion.Recall,
    operating_points.RecallAtPrecision,
    regression.RootMeanSquaredError,
    operating_points.SensitivityAtSpecificity,
    accuracies.SparseCategoricalAccuracy,
    probabilistic.SparseCategoricalCrossentropy,
    accuracies.SparseTopKCategoricalAccuracy,
    operating_points.SpecificityAtSensitivity,
    hinges.SquaredHinge,
    reduction.Sum,
    accuracies.TopKCategoricalAccuracy,
    confusion.TrueNegatives,
    confusion.TruePositives,
)
_FUNCTIONS = (
    accuracies.binary_accuracy,
    accuracies.categorical_accuracy,
    correlation.concordance_correlation,
    correlation.pearson_correlation,
    accuracies.sparse_categorical_accuracy,
    accuracies.sparse_top_k_categorical_accuracy,
    accuracies.top_k_categorical_accuracy,
)
# Short names of Keras 3, and those that Keras 2 had besides.
_SHORT = {
    "bce": probabilistic.BinaryCrossentropy,
    "kld": probabilistic.KLDivergence,
    "mae": regression.MeanAbsoluteError,
    "mape": regression.MeanAbsolutePercentageError,
    "mse": regression.MeanSquaredError,
    "msle": regression.MeanSquaredLogarithmicError,
}
_OF_KERAS_2 = {"log_cosh": regression.LogCoshError, "logcosh": regression.LogCoshError}
_BY_NAME = {cls.__name__: cls for cls in _CLASSES}
_BY_NAME.update({backend.to_snake_case(cls.__name__): cls for cls in _CLASSES})
_BY_NAME.update({**_SHORT, **{name.upper(): cls for name, cls in _SHORT.items()}, **_OF_KERAS_2})
serialization.export("keras.metrics", Metric, MeanMetricWrapper, *_CLASSES, *_FUNCTIONS)


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
    return None if identifier is None else serialization.interpret(identifier, "metric", deserialize, _BY_NAME)


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
            y_true_shape,
            y_pred_shape,
            accuracies.BinaryAccuracy,
            accuracies.SparseCategoricalAccuracy,
            accuracies.CategoricalAccuracy,
        )
        return cls(name=identifier)
    if word in ("crossentropy", "ce"):
        cls = choose_by_shape(
            y_true_shape,
            y_pred_shape,
            probabilistic.BinaryCrossentropy,
            probabilistic.SparseCategoricalCrossentropy,
            probabilistic.CategoricalCrossentropy,
        )
        return cls(name=identifier)
    found = get(identifier)
    if found is None:
        raise ValueError("Expected a metric. Received: None")
    if not isinstance(found, Metric):
        return MeanMetricWrapper(found, name=identifier if isinstance(identifier, str) else _name_of(found))
    if isinstance(identifier, str):
        found.name = identifier
    return found


def _name_of(function):
    name = getattr(function, "name", None) or getattr(function, "__name__", None) or type(function).__name__
    return backend.to_snake_case(name)
