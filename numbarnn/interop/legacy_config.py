"""Configurations of Keras 2, and of Keras 3's HDF5 files, in the layout that Keras 3's ``.keras`` files have.

What differs: calls in a graph are lists ``[layer, call, output, keyword arguments]``; calls of a model within a model
are counted from 1; lists of one axis; names of types and of the oldest classes; ``hard_sigmoid``, which is another
function in Keras 3; and what Keras 2 says about itself, which has no meaning here.
"""

from __future__ import annotations

from ..serialization import get_registered_object

__all__ = ["modern_compile", "modern_model"]

_MODELS = ("Functional", "Model", "Sequential")
# Arguments that mean nothing here, with the values that they may have.
_WITHOUT_MEANING = {
    "dynamic": (False,),
    "renorm": (False,),
    "fused": (None, True, False),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "synchronized": (False,),
}
_OF_SPATIAL_DROPOUT = {"noise_shape": (None,)}
_OF_OPTIMIZERS = {"jit_compile": (None, True, False), "is_legacy_optimizer": (True, False), "decay": (0, 0.0)}
_TYPES = ("Policy", "PolicyV1")


def modern_model(config, is_keras_2):
    """Return the configuration of a model in Keras 3's layout.

    Parameters
    ----------
    config : dict
        ``{"class_name", "config"}``.
    is_keras_2 : bool
        Whether it was written by Keras 2.

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If it is no configuration, or asks for what does not exist any more.
    """
    try:
        return _Layout(is_keras_2).of(config)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"The configuration of the model cannot be read: {error!r}") from error


def modern_compile(config):
    """Return what a model was compiled with, in Keras 3's layout.

    Parameters
    ----------
    config : dict
        ``training_config`` of an HDF5 file, or ``compile_config`` of a ``.keras`` file of Keras 2.

    Returns
    -------
    dict
        Arguments of `compile`.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        optimizer = config["optimizer_config"] if "optimizer_config" in config else config["optimizer"]
        return {
            "optimizer": optimizer if isinstance(optimizer, str) else _optimizer(optimizer),
            "loss_weights": config.get("loss_weights"),
            **{key: _metric(config.get(key)) for key in ("loss", "metrics", "weighted_metrics")},
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"How the model was compiled cannot be read: {error!r}") from error


def _optimizer(config):
    name = config["class_name"].rpartition(">")[2]
    return {**_object("keras.optimizers", name), "config": _without(config["config"], _OF_OPTIMIZERS, name)}


def _object(module, name):
    return {"module": module, "class_name": name, "registered_name": None}


def _without(config, meaningless, owner):
    """A configuration without arguments that mean nothing, which must not say anything either."""
    kept = {}
    for key, value in config.items():
        if key not in meaningless:
            kept[key] = value
        elif value not in meaningless[key]:
            raise ValueError(f"`{key}={value!r}` of {owner} in the file is not supported")
    return kept


def _metric(config):
    """A loss or metric, or a nest of them."""
    if isinstance(config, list):
        return [_metric(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_name" not in config:
        return {key: _metric(value) for key, value in config.items()}
    if not isinstance(config["config"], dict):
        return config  # a function's name
    inner = dict(config["config"])
    if config["class_name"] == "MeanMetricWrapper" and isinstance(inner.get("fn"), str):
        # A name or function that was passed to `compile`. Its own name is what it is reported as.
        return inner["name"] if inner["name"] in ("accuracy", "acc", "crossentropy", "ce") else inner["fn"]
    if inner.get("reduction") == "none":
        inner["reduction"] = None
    return {**config, "config": {key: value for key, value in inner.items() if key != "fn"}}


class _Layout:
    """Keras 3's layout of what Keras 2, or Keras 3 for its HDF5 files, wrote."""

    def __init__(self, is_keras_2):
        self._is_keras_2 = is_keras_2

    def of(self, item):
        """Return any value of a configuration in the new layout."""
        if isinstance(item, list):
            return [self.of(value) for value in item]
        if not isinstance(item, dict):
            return item
        if not isinstance(item.get("class_name"), str) or "config" not in item:
            return {key: self.of(value) for key, value in item.items()}
        return self._object(item)

    def _object(self, item):
        name, config = item["class_name"].rpartition(">")[2], item["config"]
        if name in _TYPES:
            return config["name"]
        if name == "Sequential":
            if isinstance(config, list):  # before 2.2
                config = {"name": "sequential", "layers": config}
            return {**_object("keras", name), "config": {**config, "layers": self.of(config["layers"])}}
        if name in _MODELS and "layers" in config:
            graph = {**config, **self._graph(config)}
            return {**_object("keras.src.models.functional", "Functional"), "config": graph}
        if name == "Lambda":
            self._check_function(config.get("function"))
        if isinstance(config, dict):
            config = self._arguments(name, config)
        kept = {key: value for key, value in item.items() if key in ("module", "registered_name", "shared_object_id")}
        return {**kept, "class_name": item["class_name"], "config": config}

    @staticmethod
    def _check_function(function):
        if isinstance(function, list):
            raise ValueError(
                "The file holds the code of a Lambda layer, which numbarnn never runs. Make the model in Python, with "
                "a function of yours in place of it, and use `load_weights`."
            )

    def _arguments(self, name, config):
        """A layer's arguments, or those of an initializer or the like."""
        config = _without(config, _WITHOUT_MEANING, name)
        if name == "SpatialDropout1D":
            config = _without(config, _OF_SPATIAL_DROPOUT, name)
        if name == "BatchNormalization" and isinstance(config.get("axis"), list) and len(config["axis"]) == 1:
            (config["axis"],) = config["axis"]
        if name == "Lambda" and config.pop("function_type", None) == "function":
            named = {"module": config.pop("module", None), "class_name": "function", "registered_name": None}
            config["function"] = {**named, "config": config["function"]}
        return {key: self._argument(value) for key, value in config.items()}

    def _argument(self, value):
        if self._is_keras_2 and value == "hard_sigmoid":
            return "hard_sigmoid_k2"
        return self.of(value)

    # -- graphs -------------------------------------------------------------------------------------------------

    def _graph(self, config):
        """The layers of a graph, its inputs and its outputs."""
        kinds = {entry["name"]: entry["class_name"] for entry in config["layers"]}
        layers = []
        for entry in config["layers"]:
            calls = [self._call(call, kinds) for call in entry.get("inbound_nodes", ())]
            kept = self.of(entry)
            if self._is_operation(entry):
                kept["module"] = "keras.ops"
            layers.append({**kept, "name": entry["name"], "inbound_nodes": calls})
        ends = {key: self._ends(config[key], kinds) for key in ("input_layers", "output_layers")}
        return {"layers": layers, **ends}

    def _is_operation(self, entry):
        """Whether it is an operation between layers, for which Keras 3's HDF5 files have no other mark."""
        name = entry["class_name"]
        is_layer = name == "InputLayer" or name in _MODELS or "trainable" in entry["config"]
        return not self._is_keras_2 and not is_layer and get_registered_object(name) is None

    def _call(self, call, kinds):
        if isinstance(call, dict):
            return call  # Keras 3's, in an HDF5 file of Keras 3
        tensors = [self._tensor(place, kinds) for place in call]
        kwargs = call[0][3] if call and len(call[0]) > 3 else {}
        return {
            "args": [tensors if len(tensors) > 1 else tensors[0]],
            "kwargs": {key: self._keyword(value, kinds) for key, value in kwargs.items()},
        }

    def _keyword(self, value, kinds):
        """A keyword argument, in which lists may be Tensors."""
        if isinstance(value, list):
            if 3 <= len(value) <= 4 and value[0] == "_CONSTANT_VALUE":
                return value[2]
            if len(value) >= 3 and isinstance(value[0], str) and value[0] in kinds:
                return self._tensor(value, kinds)
            return [self._keyword(item, kinds) for item in value]
        return self.of(value)

    def _tensor(self, place, kinds):
        name, call, output = place[:3]
        if name not in kinds:
            raise ValueError(f"The configuration of the model names a layer {name!r} that is not in it")
        call -= self._is_keras_2 and kinds[name] in _MODELS
        history = {"shape": None, "dtype": None, "keras_history": [name, call, output]}
        return {"class_name": "__keras_tensor__", "config": history}

    def _ends(self, places, kinds):
        """The inputs or outputs. Keras 3 counts the calls of functional models from 1 here, as Keras 2 those of all."""
        if isinstance(places, dict):
            return {key: self._ends(value, kinds) for key, value in places.items()}
        if len(places) == 3 and isinstance(places[0], str):
            name, call, output = places
            return [name, call - (self._is_keras_2 and kinds.get(name) == "Sequential"), output]
        return [self._ends(value, kinds) for value in places]
