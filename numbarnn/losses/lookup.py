"""Losses by name, as `compile` and saved models give them."""

from __future__ import annotations

from .. import serialization
from . import crossentropies, divergences, focal, hinges, overlap, regression
from .loss import Loss, LossFunctionWrapper

_CLASSES = (
    crossentropies.BinaryCrossentropy,
    focal.BinaryFocalCrossentropy,
    crossentropies.CategoricalCrossentropy,
    focal.CategoricalFocalCrossentropy,
    focal.CategoricalGeneralizedCrossEntropy,
    hinges.CategoricalHinge,
    regression.CosineSimilarity,
    overlap.Dice,
    hinges.Hinge,
    regression.Huber,
    divergences.KLDivergence,
    regression.LogCosh,
    regression.MeanAbsoluteError,
    regression.MeanAbsolutePercentageError,
    regression.MeanSquaredError,
    regression.MeanSquaredLogarithmicError,
    divergences.Poisson,
    crossentropies.SparseCategoricalCrossentropy,
    hinges.SquaredHinge,
    overlap.Tversky,
)
_FUNCTIONS = (
    crossentropies.binary_crossentropy,
    focal.binary_focal_crossentropy,
    crossentropies.categorical_crossentropy,
    focal.categorical_focal_crossentropy,
    focal.categorical_generalized_cross_entropy,
    hinges.categorical_hinge,
    regression.cosine_similarity,
    overlap.dice,
    hinges.hinge,
    regression.huber,
    divergences.kl_divergence,
    regression.log_cosh,
    regression.mean_absolute_error,
    regression.mean_absolute_percentage_error,
    regression.mean_squared_error,
    regression.mean_squared_logarithmic_error,
    divergences.poisson,
    crossentropies.sparse_categorical_crossentropy,
    hinges.squared_hinge,
    overlap.tversky,
)
# Short names of Keras 3, and those that Keras 2 had besides.
_SHORT = {
    "bce": crossentropies.binary_crossentropy,
    "kld": divergences.kl_divergence,
    "mae": regression.mean_absolute_error,
    "mape": regression.mean_absolute_percentage_error,
    "mse": regression.mean_squared_error,
    "msle": regression.mean_squared_logarithmic_error,
}
_OF_KERAS_2 = {
    "huber_loss": regression.huber,
    "kullback_leibler_divergence": divergences.kl_divergence,
    "logcosh": regression.log_cosh,
}
_BY_NAME = {item.__name__: item for item in (*_CLASSES, *_FUNCTIONS)}
_BY_NAME.update({**_SHORT, **{name.upper(): fn for name, fn in _SHORT.items()}, **_OF_KERAS_2})
serialization.export("keras.losses", Loss, LossFunctionWrapper, *_CLASSES, *_FUNCTIONS)


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
    return None if identifier is None else serialization.interpret(identifier, "loss", deserialize, _BY_NAME)
