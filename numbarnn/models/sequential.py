"""`Sequential`: a plain stack of layers."""

from __future__ import annotations

import inspect

import numpy as np

from .. import graph
from ..graph import Tensor
from ..layers.base import Layer, serialize_policy
from ..layers.core import InputLayer
from ..serialization import custom_object_scope, deserialize_keras_object, export, serialize_keras_object
from .model import Model, batch_shape_of, with_mask
from .outputs import unique_names
from .summary import Row

__all__ = ["Sequential"]


class Sequential(Model):
    """Layers one after the other, each with one input and one output.

    The model is built as layers are added where the shape of the input is known: from an `Input` in first place, from
    ``input_shape=`` (or ``batch_input_shape=``, ``input_dim=``) of the first layer, or because the first layer is an
    `Embedding` (any number of timesteps). Otherwise it is built at the first call.

    Parameters
    ----------
    layers : list of Layer, optional
    trainable : bool
    name : str, optional

    Examples
    --------
    >>> from numbarnn import layers, models
    >>> model = models.Sequential([layers.Input((4,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    >>> model.output_shape
    (None, 1)
    >>> model.count_params()
    49
    """

    def __new__(cls, *args, **kwargs):  # noqa: D102 - as Model's
        if cls.__init__ is Sequential.__init__ and any(isinstance(x, (Layer, Tensor)) for x in args):
            raise ValueError(f"Sequential takes one list of layers: Sequential([a, b]). Received: {args}")
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, layers=None, trainable=True, name=None):
        # Inputs go to the first layer as they are; it casts them to its own type.
        super().__init__(trainable=trainable, autocast=False, name=name)
        self._layers = []
        # The symbolic input and what each layer makes of it; None until the shape of the input is known.
        self._set_untracked("_input", None)
        self._set_untracked("_symbols", None)
        if layers is not None and not isinstance(layers, (list, tuple)):
            raise ValueError(f"`layers` must be a list of layers. Received: {layers!r}")
        for layer in layers or ():
            self.add(layer)

    # ------------------------------------------------------------------------------------------------ the stack

    def add(self, layer):
        """Put a layer on top.

        Parameters
        ----------
        layer : Layer, or the Tensor that `Input` returns (in first place)

        Raises
        ------
        ValueError
            If it is no layer, its name is taken, or it cannot take what the layer below gives; the model stays as it
            was.
        """
        if isinstance(layer, Tensor) and isinstance(getattr(layer, "layer", None), InputLayer):
            layer = layer.layer
        if not isinstance(layer, Layer):
            raise ValueError(
                "Only instances of `numbarnn.Layer` can be added to a Sequential model. "
                f"Received: {layer} (of type {type(layer)})"
            )
        if layer is self:
            raise ValueError("A Sequential model cannot be added to itself.")
        if any(other is layer or other.name == layer.name for other in self._layers):
            raise ValueError(
                f"All layers added to a Sequential model should have unique names. Name '{layer.name}' is already the "
                "name of a layer in this model. Update the `name` argument to pass a unique name."
            )
        if isinstance(layer, InputLayer):
            if self._input is not None:
                raise ValueError(
                    f"Sequential model '{self.name}' has already been configured to use input shape "
                    f"{self._input.batch_shape}. You cannot add a different Input layer to it."
                )
            if self._layers:
                raise ValueError(
                    f"An Input must come first. Sequential model '{self.name}' has {len(self._layers)} layers already."
                )
            self._input = layer
            self._symbols = [layer.output]
            self._changed()
            return
        if not self._layers and self._input is None:
            shape = _shape_of_input(layer)
            if shape is not None:
                first = InputLayer(batch_shape=shape, name=f"{layer.name}_input")
                symbols = [first.output, _apply(layer, first.output)]
                self._input, self._symbols = first, symbols
                self._layers.append(layer)
                self.built = True
                self._changed()
                return
        if self._symbols is not None:
            self._symbols.append(_apply(layer, self._symbols[-1]))
            self.built = True
        else:
            self.built = False
        self._layers.append(layer)
        self._changed()

    def pop(self):
        """Take the topmost layer off.

        Returns
        -------
        Layer

        Raises
        ------
        TypeError
            If there is none.
        """
        if not self._layers:
            raise TypeError("There are no layers in the model.")
        layer = self._layers.pop()
        if self._symbols is not None:
            self._symbols.pop()
        if not self._layers:
            self.built = False
            if self._input is not None and self._input.name == f"{layer.name}_input":
                # The shape came with the layer and goes with it.
                self._input = self._symbols = None
        self._changed()
        return layer

    @property
    def layers(self):
        """The layers as added, without the input."""
        return list(self._layers)

    def _rows(self):
        self._draw()
        if self._symbols is None:
            return super()._rows()
        before = [(), *([f"{layer.name}[0][0]"] for layer in self._layers)]  # what each layer takes
        return [Row(*row) for row in zip(self._layers, map(_shape, self._symbols[1:]), before, strict=False)]

    @property
    def _is_connected(self):
        return self._symbols is not None

    # ------------------------------------------------------------------------------------------------ building

    def build(self, input_shape=None):
        """Make the weights.

        Parameters
        ----------
        input_shape : tuple
            With the batch axis, which may be None. Not needed where the model knows the shape of its input.

        Raises
        ------
        ValueError
            If there are no layers, or the model was configured for another shape.
        """
        if not self._layers:
            raise ValueError(
                f"Sequential model {self.name} cannot be built because it has no layers. Call `model.add(layer)`."
            )
        if self._symbols is not None:
            known = self._input.batch_shape
            if input_shape is not None and not _compatible(known, input_shape):
                raise ValueError(
                    f"Sequential model '{self.name}' has already been configured to use input shape {known}. You "
                    f"cannot build it with input_shape {tuple(input_shape)}"
                )
            self.built = True
            return
        if input_shape is None:
            raise ValueError(
                f"Sequential model '{self.name}' needs `input_shape` to be built: the batch axis and all others."
            )
        if not all(n is None or isinstance(n, (int, np.integer)) for n in input_shape):
            # Nested inputs: every layer is built as it is called.
            self.built = True
            return
        first = InputLayer(batch_shape=input_shape, name=f"{self._layers[0].name}_input")
        symbols = [first.output]
        for layer in self._layers:
            symbols.append(_apply(layer, symbols[-1]))
        self._input, self._symbols = first, symbols
        self.built = True

    build._builds = True  # the layers keep their own paths

    def _maybe_build(self, args, kwargs):
        x = args[0] if args else next(iter(kwargs.values()), None)
        if not hasattr(x, "shape") or not self._layers or self._symbols is not None:
            self.built = bool(self._layers)
            return
        shape = tuple(x.shape)
        with graph.suspended():
            if shape and shape[0] is not None and not self._needs_batch():
                shape = (None, *shape[1:])
            self.build(shape)

    def _needs_batch(self):
        return any(getattr(layer, "stateful", False) for layer in self._flatten_layers(include_self=False))

    def _draw(self):
        """Draw the chain of symbols again, where only the shape of the input was kept (in a copy of a model)."""
        if self._symbols is None and self._input is not None:
            symbols = [self._input.output]
            for layer in self._layers:
                symbols.append(_apply(layer, symbols[-1]))
            self._symbols = symbols

    def __getstate__(self):
        return {**super().__getstate__(), "_symbols": None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._draw()

    # ------------------------------------------------------------------------------------------------ calling

    def call(self, inputs, training=None, mask=None):
        """Apply the layers in order; masks go from each to the next.

        Parameters
        ----------
        inputs : array or Tensor, or nest of them
        training : bool, optional
            For all layers.
        mask : array or Tensor, optional
            Of `inputs`.

        Returns
        -------
        array or Tensor, or nest of them
        """
        x = with_mask(inputs, mask)
        for layer in self._layers:
            x = layer(x)
        return x

    def _only(self, what):
        self._draw()
        if self._symbols is None or (what.startswith("output") and not self._layers):
            raise AttributeError(f"Sequential model '{self.name}' has no defined {what} yet.")
        return self._symbols

    @property
    def inputs(self):
        """The symbolic input, in a list."""
        return [self._only("inputs")[0]]

    @property
    def outputs(self):
        """The symbolic output, in a list."""
        return _leaves(self._only("outputs")[-1])

    @property
    def input(self):
        """The symbolic input."""
        return self._only("input")[0]

    @property
    def output(self):
        """The symbolic output."""
        return self._only("output")[-1]

    @property
    def input_shape(self):
        """The shape of the input, batch included."""
        return _shape(self._only("input shape")[0])

    @property
    def output_shape(self):
        """The shape of the output, batch included."""
        return _shape(self._only("output shape")[-1])

    @property
    def input_names(self):
        """The name of the input, in a list."""
        return [self._input.name] if self._input is not None else []

    @property
    def output_names(self):
        """The names of the outputs: that of the last layer, numbered from the second on."""
        if not self._layers:
            return []
        count = len(_leaves(self._symbols[-1])) if self._symbols is not None else 1
        return unique_names([self._layers[-1].name] * count)

    # ------------------------------------------------------------------------------------------------ types, config

    def _rank_of_input(self):
        if self._input is not None:
            return len(self._input.batch_shape)
        return getattr(self._layers[0].input_spec, "ndim", None) or 0 if self._layers else 0

    def _float_dtype(self):
        first = self._layers[0] if self._layers else self
        dtypes = {first.compute_dtype, self.compute_dtype} if first is not self else {self.compute_dtype}
        return np.dtype(np.float64) if "float64" in dtypes else super()._float_dtype()

    def get_config(self):
        """Name, trainability and the layers' configurations.

        Returns
        -------
        dict
        """
        layers = [self._input, *self._layers] if self._input is not None else self._layers
        config = {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": serialize_policy(self.dtype_policy),
            "layers": serialize_keras_object(layers),
        }
        if self._input is not None:
            config["build_input_shape"] = self._input.batch_shape
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a model from `get_config`'s dict, with new weights.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Name -> class, for layers that are not built in.

        Returns
        -------
        Sequential
        """
        if "name" not in config or "layers" not in config:
            raise ValueError(
                "A Sequential model configuration must be a dictionary containing the 'name' and 'layers' keys. "
                f"Received: config={config}"
            )
        model = cls(name=config["name"], trainable=config.get("trainable", True))
        with custom_object_scope(custom_objects or {}):
            for layer in deserialize_keras_object(config["layers"], custom_objects):
                model.add(layer)
        if isinstance(config.get("dtype"), dict):
            model.dtype_policy = config["dtype"]
        shape = config.get("build_input_shape")
        if model._symbols is None and model._layers and isinstance(shape, (list, tuple)):
            model.build(tuple(shape))
        return model


def _shape_of_input(layer):
    """The input shape that a first layer brings along; None if it does not."""
    shape = batch_shape_of(layer)
    if shape is None and isinstance(layer, Model):
        try:
            shape = layer.input_shape
        except AttributeError:
            return None
    return shape


def _apply(layer, x):
    """A layer on symbols: one more node of the chain."""
    try:
        return layer(x)
    except TypeError:
        parameters = inspect.signature(layer.call).parameters.values()
        required = [
            p.name
            for p in parameters
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is inspect.Parameter.empty
        ]
        takes_none = not any(
            p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters
        )
        if takes_none or len(required) > 1:
            raise ValueError(
                "Layers added to a Sequential model should have a single positional argument, the input tensor. "
                f"Layer {type(layer).__name__} requires {required or 'no positional argument'}."
            ) from None
        raise


def _leaves(x):
    # Not `layers.nests.leaves_of`: a dict stays one output here.
    return [leaf for item in x for leaf in _leaves(item)] if isinstance(x, (list, tuple)) else [x]


def _shape(x):
    if isinstance(x, (list, tuple)):
        return [_shape(item) for item in x]
    return tuple(x.shape)


def _compatible(known, shape):
    return len(known) == len(tuple(shape)) and all(
        a is None or b is None or a == b for a, b in zip(known, shape, strict=True)
    )


export("keras", Sequential)
