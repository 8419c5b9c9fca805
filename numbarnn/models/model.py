"""`Model`: a layer that can be trained by itself."""

from __future__ import annotations

import inspect
import json
import warnings

import numpy as np

from .. import tree
from ..layers import masks
from ..layers.base import Layer
from ..layers.nests import is_values, shape_of
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from .outputs import given_names
from .state import State
from .summary import Row, print_summary
from .training import Trainer

__all__ = ["Model"]

# Attributes that say nothing about what `call` does: changing them leaves traced programs valid.
_NO_STRUCTURE = frozenset(("stop_training", "history", "run_eagerly"))


class Model(Trainer, Layer):
    """A layer with `compile`, `fit`, `evaluate` and `predict`.

    Subclass it like a layer: make layers in ``__init__``, use them in ``call(self, inputs, training=None)``. Or draw
    it: call layers on what `Input` returns, and say ``Model(inputs, outputs)``; that makes a `Functional`. For a plain
    stack of layers there is `Sequential`.

    Parameters
    ----------
    inputs, outputs : nest of Tensor, optional
        Both or neither: what the model goes from and to.
    **kwargs
        ``name``, ``trainable``, ``dtype`` and the other arguments of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models
    >>> class Reader(models.Model):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.head = layers.Dense(3)
    ...     def call(self, inputs):
    ...         return self.head(inputs)
    >>> Reader().predict(np.ones((5, 2), "float32"), verbose=0).shape
    (5, 3)
    """

    def __new__(cls, *args, **kwargs):  # noqa: D102 - as Layer's
        if cls is Model and _is_drawn(args, kwargs):
            from .functional import Functional as cls
        self = super().__new__(cls, *args, **kwargs)
        self.__dict__["_training"] = State()
        return self

    def __init__(self, *args, **kwargs):
        if not _is_drawn(args, kwargs):
            super().__init__(*args, **kwargs)
            return
        from .functional import Functional, functional_twin

        # super().__init__(inputs, outputs) of a subclass
        object.__setattr__(self, "__class__", functional_twin(type(self)))
        Functional.__init__(self, *args, **kwargs)

    def __setattr__(self, name, value):
        if name in _NO_STRUCTURE:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    # ------------------------------------------------------------------------------------------------ building

    def build(self, input_shape=None):
        """Make the weights of all layers, by running `call` once on symbols.

        Parameters
        ----------
        input_shape : tuple, or nest of tuples
            With the batch axis, which may be None.
        """
        self.built = True
        if input_shape is not None:
            self.__dict__["_build_shapes"] = {"input_shape": input_shape}
            self.compute_output_shape(input_shape)

    # Layers keep their own paths: not as if they were made inside this one.
    build._builds = True

    def build_from_config(self, config):
        """Build from `get_build_config`'s result: by the shapes of all that `call` was given.

        Parameters
        ----------
        config : dict
        """
        if "shapes_dict" in config and type(self).build is Model.build:
            self.built = True
            self.compute_output_shape(**config["shapes_dict"])
        else:
            super().build_from_config(config)

    def _maybe_build(self, args, kwargs):
        if type(self).build is Model.build:
            self.built = True  # the layers are built as `call` comes to them
            given = {**dict(zip(self._call_info.names, args, strict=False)), **kwargs}
            shapes = {f"{key}_shape": shape_of(x) for key, x in given.items() if key != "mask" and is_values(x)}
            self.__dict__["_build_shapes"] = shapes or None
        else:
            super()._maybe_build(args, kwargs)

    def _pass_mask(self, first, previous, outputs):
        # The layers inside have attached their masks already; the input's own mask is not the output's.
        if type(self).compute_mask is Layer.compute_mask:
            return outputs
        return super()._pass_mask(first, previous, outputs)

    def _call_functional(self, first, args, kwargs, training):
        outputs = super()._call_functional(first, args, kwargs, training)
        if self._is_connected:
            # The masks, as symbols: those of the same layers, drawn once more and then forgotten.
            nodes = [(layer, list(layer._inbound_nodes)) for layer in self._flatten_layers()]
            given = {"mask": kwargs.get("mask", masks.masks_of(first))} if self._call_info.has_mask else {}
            drawn = self.call(first, **given)
            for layer, before in nodes:
                layer._inbound_nodes[:] = before
            for output, twin in zip(tree.leaves(outputs), tree.leaves(drawn), strict=True):
                masks.set_mask(output, masks.get_mask(twin))
        return outputs

    # ------------------------------------------------------------------------------------------------ layers

    @property
    def layers(self):
        """The layers that belong to the model directly."""
        return self._sublayers

    def get_layer(self, name=None, index=None):
        """One of `layers`, by name or number.

        Parameters
        ----------
        name : str, optional
        index : int, optional
            Exactly one of the two.

        Returns
        -------
        Layer

        Raises
        ------
        ValueError
            If there is no such layer.
        """
        if (name is None) == (index is None):
            raise ValueError(f"Provide either a layer name or a layer index. Received: index={index}, name={name}.")
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise ValueError(
                    f"Was asked to retrieve layer at index {index} but model only has {len(layers)} layers."
                )
            return layers[index]
        for layer in layers:
            if layer.name == name:
                return layer
        raise ValueError(f"No such layer: {name}. Existing layers are: {[layer.name for layer in layers]}.")

    def reset_states(self):
        """Reset the states of all stateful layers in the model."""
        for layer in self._flatten_layers(include_self=False):
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_states"):
                layer.reset_states()

    def reset_state(self):
        """The same as `reset_states`."""
        self.reset_states()

    def stepper(self, batch_size=1):
        """Return the model as something that takes one timestep at a time and keeps its states.

        For control loops and streams. The outputs have the bits that `predict` gives on the CPU for the sequence so
        far; steps are taken there, whatever the device is.

        Parameters
        ----------
        batch_size : int
            How many streams run side by side.

        Returns
        -------
        Stepper
            ``stepper(x)`` takes ``x`` of shape (batch_size, features), or ids of shape (batch_size,);
            ``f, s = stepper.jit()`` are for code of your own under ``numba.njit``.

        Raises
        ------
        TypeError
            If `batch_size` is no whole number.
        ValueError
            If the model is not built, is no chain of layers from one input to one output, or has a layer that cannot
            run one timestep at a time, which is named then. Recurrent layers over built-in cells can, `Embedding`,
            `Dense`, `Activation`, dropout, `BatchNormalization` and `LayerNormalization` along the last axis, and
            `TimeDistributed` of these.

        See Also
        --------
        numbarnn.models.Stepper : with examples.
        """
        from .stepper import Stepper  # it knows the classes of models

        return Stepper(self, batch_size)

    def summary(
        self,
        line_length=None,
        positions=None,
        print_fn=None,
        expand_nested=False,
        show_trainable=False,
        layer_range=None,
    ):
        """Print a table of the layers, their output shapes and numbers of weights.

        Parameters
        ----------
        line_length : int, optional
            Characters per line, 65 by default.
        positions : list of float or int, optional
            Where columns end, as shares of the line or in characters.
        print_fn : callable, optional
            Called once a line; `print` by default.
        expand_nested : bool
            Show the layers of models within the model.
        show_trainable : bool
            Show which layers are trained.
        layer_range : (str, str), optional
            Patterns for the names of the first and the last layer to show.
        """
        print_summary(self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range)

    # ------------------------------------------------------------------------------------------------ configuration

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a model from `get_config`'s dict, with new weights.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Name -> class or function, for what is not built in.

        Returns
        -------
        Model
        """
        if {"layers", "input_layers", "output_layers"} <= set(config) and takes_graph(cls):
            from .functional import from_graph_config

            return from_graph_config(cls, config, custom_objects)
        return super().from_config(config)

    def to_json(self, **kwargs):
        """The architecture as a JSON string, in Keras 3's layout: what `models.model_from_json` reads.

        Parameters
        ----------
        **kwargs
            Of `json.dumps`.

        Returns
        -------
        str
        """
        return json.dumps(serialize_keras_object(self), **kwargs)

    def save(self, filepath, overwrite=True, zipped=None, include_optimizer=True):
        """Write the whole model to a file: architecture, weights, what it was compiled with and how far training got.

        See `numbarnn.models.save_model`.

        Parameters
        ----------
        filepath : str or path
            Ends in ``.numbarnn``, or in ``.keras`` for Keras.
        overwrite : bool
            Whether a file of this name may be replaced.
        zipped : bool, optional
            Accepted for Keras's sake: a file is one zip; True or None.
        include_optimizer : bool
            Whether what it was compiled with, and the optimizer's state, are written.
        """
        from .saving import save_model

        save_model(self, filepath, overwrite, zipped, include_optimizer)

    def save_weights(self, filepath, overwrite=True):
        """Write the weights to a file.

        Parameters
        ----------
        filepath : str or path
            Ends in ``.weights.numbarnn``, or in ``.weights.h5`` for Keras.
        overwrite : bool
            Whether a file of this name may be replaced.

        Raises
        ------
        ValueError
            If the name ends otherwise, or the model is not built.
        FileExistsError
            If there is such a file and `overwrite` is False.
        """
        from .saving import save_weights

        save_weights(self, filepath, overwrite)

    def load_weights(self, filepath, skip_mismatch=False):
        """Set the weights from a file, all of them or none: by the structure of the model, not by names of layers.

        Parameters
        ----------
        filepath : str or path
            Of weights or of a whole model: ``.numbarnn``, or Keras's ``.weights.h5``, ``.h5`` and ``.keras``.
        skip_mismatch : bool
            Leave out, with a warning, what is missing or does not fit.

        Raises
        ------
        FileNotFoundError
        ValueError
            If the file is damaged or does not fit the model; nothing is changed then.
        """
        from .saving import load_weights

        load_weights(self, filepath, skip_mismatch)

    # What callbacks, which lie below, save and load by.

    def _write_training_state(self, path, extras):
        from .saving import write_training_state

        write_training_state(self, path, extras)

    def _read_training_state(self, path, prepare=None):
        from .saving import read_training_state

        return read_training_state(self, path, prepare)

    def get_compile_config(self):
        """What `compile` was given, as plain values.

        Returns
        -------
        dict
            Empty before `compile`.

        Raises
        ------
        ValueError
            If a loss or metric cannot be serialized, such as a lambda.
        """
        state = self._training
        if not state.compiled:
            return {}
        names = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics", "run_eagerly")
        with given_names(state.entries):
            config = {name: serialize_keras_object(getattr(state, name)) for name in names}
        return {**config, "steps_per_execution": 1, "jit_compile": "auto"}

    def compile_from_config(self, config):
        """Compile as `get_compile_config` says.

        A model whose class has a `compile` of its own is left alone, with a warning: such a class overrides this
        method too.

        Parameters
        ----------
        config : dict
        """
        if type(self).compile is not Model.compile:
            warnings.warn(
                f"`compile()` was not called for model '{self.name}', because its class has a `compile()` of its own. "
                "Override `get_compile_config()` and `compile_from_config(config)` too, or call `compile()`.",
                stacklevel=2,
            )
            return
        self.compile(**deserialize_keras_object(config))

    def _rows(self):
        """What `summary` shows: list of `Row`."""
        return [Row(layer) for layer in self.layers]

    # Whether each layer takes what the one before gives, and nothing else: `summary` needs no connections then.
    _is_chain = True
    # Whether it is known, outside `call`, how the layers are connected.
    _is_connected = False


def _is_drawn(args, kwargs):
    """Whether a model is made from inputs and outputs."""
    return len(args) > 1 or (bool(args) and "outputs" in kwargs) or ("inputs" in kwargs and "outputs" in kwargs)


def takes_graph(cls):
    """Say whether the constructor of a subclass of `Model` takes inputs and outputs.

    Parameters
    ----------
    cls : type

    Returns
    -------
    bool
    """
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    kinds = {p.kind for p in parameters}
    names = [p.name for p in parameters]
    everything = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return everything <= kinds or names[:2] == ["inputs", "outputs"]


def batch_shape_of(layer):
    """The input shape that a layer declares, batch included; None if it does not.

    Parameters
    ----------
    layer : Layer

    Returns
    -------
    tuple or None
    """
    declared = getattr(layer, "_batch_input_shape", None)
    return None if declared is None else tuple(declared)


def with_mask(x, mask):
    """`x` under another identity, carrying `mask`."""
    if mask is None or isinstance(x, (list, tuple, dict)) or masks.get_mask(x) is mask:
        return x
    twin = masks.alias(np.asarray(x) if isinstance(x, np.generic) else x)
    masks.set_mask(twin, mask)
    return twin


export("keras", Model)
