"""`Functional`: what ``Model(inputs, outputs)`` makes, a model drawn as a graph of layers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from .. import backend, graph, ops, tree
from ..graph import Tensor
from ..layers.base import Layer
from ..layers.core import InputLayer
from ..layers.input_spec import InputSpec
from ..layers.masks import get_mask
from ..serialization import custom_object_scope, export
from . import graph_config
from .call_order import CallOrder, shapes_of
from .model import Model, takes_graph, with_mask
from .outputs import unique_names

__all__ = ["Functional", "from_graph_config", "functional_twin"]


@dataclass(frozen=True)
class _Place:
    """Where a Tensor comes from, without the Tensor: an input (step -1), or an output of a step of a recipe."""

    step: int
    index: int


class Functional(Model):
    """The layers between symbolic inputs and outputs, as a model; made by ``Model(inputs, outputs)``.

    Layers may be shared, have several inputs and outputs, and be models themselves. A Tensor that a layer is given as
    a keyword argument (``initial_state=``) is an edge of the graph like any other. Masks go from layer to layer when
    the model is called; they are no edges.

    Parameters
    ----------
    inputs : nest of Tensor
        What `Input` returned, or Tensors on the way, where data then enter. Calls take a nest like it, or a dict by
        the names of the inputs.
    outputs : nest of Tensor
        Calls return a nest like it; a list of one is taken for what it holds.
    name : str, optional
        ``model``, ``model_1``, ... by default.
    trainable : bool
        False freezes all layers.

    Raises
    ------
    ValueError
        If something is no symbolic Tensor, an input comes twice, two layers have one name, or an output depends on a
        Tensor that is not among the inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models
    >>> text, other = layers.Input((None,), name="text"), layers.Input((4,), name="other")
    >>> read = layers.LSTM(8)(layers.Embedding(100, 5)(text))
    >>> model = models.Model([text, other], layers.Dense(3)(layers.concatenate([read, other])))
    >>> model([np.ones((2, 6)), np.ones((2, 4))]).shape
    (2, 3)
    >>> model({"text": np.ones((2, 6)), "other": np.ones((2, 4))}).shape
    (2, 3)
    """

    def __init__(self, inputs, outputs, name=None, trainable=True):
        # Inputs are cast one by one, each to the type of its `Input`.
        super().__init__(name=name, autocast=False)
        if any(isinstance(x, Tensor) for x in tree.leaves(self._init_arguments)):
            self.__dict__["_init_arguments"] = (), {}  # the graph keeps the symbols
        for what, nest in (("inputs", inputs), ("outputs", outputs)):
            for x in tree.leaves(nest):
                if not isinstance(x, Tensor) or x.trace is not None:
                    raise ValueError(
                        f"All `{what}` values must be symbolic tensors, as `Input` returns and layers called on them. "
                        f"Received: {what}={tree.map_structure(_shown, nest)} including invalid value {_shown(x)} of "
                        f"type {type(x)}"
                    )
            if not tree.leaves(nest):
                raise ValueError(f"A model needs `{what}`. Received: {what}={nest}")
        inputs, outputs = (nest[0] if type(nest) is list and len(nest) == 1 else nest for nest in (inputs, outputs))
        flat = tree.leaves(inputs)
        if len({id(x) for x in flat}) != len(flat):
            raise ValueError(
                "The list of inputs passed to the model contains the same input multiple times. All inputs should "
                f"only appear once. Received inputs={inputs}"
            )
        self._set_untracked("_input_layers", [_input_layer(x) for x in flat])
        self._connect(inputs, outputs)
        self._graph_layers = [layer for layer in self._order.owners if isinstance(layer, Layer)]
        names = [layer.name for layer in self._graph_layers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f'The name "{name}" is used {names.count(name)} times in the model. All layer names should be '
                    "unique."
                )
        self.built = True
        if not trainable:
            self.trainable = False

    def _default_name(self):
        return backend.auto_name("Model" if type(self) is Functional else type(self).__name__)

    # ------------------------------------------------------------------------------------------------ the graph

    def _connect(self, inputs, outputs):
        """Take the graph between two nests of Tensors for this model's."""
        connected = graph.FunctionalGraph(inputs, outputs)
        self._set_untracked("_inputs", inputs)
        self._set_untracked("_graph", connected)
        self._set_untracked("_order", CallOrder(connected, self._input_layers))

    def __getstate__(self):
        state = {key: value for key, value in super().__getstate__().items() if key not in _DRAWN}
        return {**state, "_recipe": self._recipe()}

    def __setstate__(self, state):
        recipe = state.pop("_recipe")
        self.__dict__.update(state)
        self._draw(*recipe)

    def _recipe(self):
        """What a copy draws the graph from: the inputs, the calls one after the other, the outputs.

        The graph itself leads from symbol to symbol, ever deeper, and to other models that the layers are in.
        """
        places = {id(x): _Place(-1, i) for i, x in enumerate(self._graph.inputs)}

        def placed(nest):
            return tree.map_structure(lambda x: places[id(x)] if isinstance(x, Tensor) else x, nest)

        steps = []
        for number, node in enumerate(self._graph.nodes):
            steps.append((node.operation, placed(node.args), placed(node.kwargs)))
            places.update((id(x), _Place(number, i)) for i, x in enumerate(node.outputs))
        return placed(self._inputs), steps, placed(self._graph.result)

    def _draw(self, inputs, steps, outputs):
        """Draw the graph of a recipe, on new symbols."""
        made = {-1: [layer.output for layer in self._input_layers]}

        def symbols(nest):
            return tree.map_structure(lambda x: made[x.step][x.index] if isinstance(x, _Place) else x, nest)

        for number, (operation, args, kwargs) in enumerate(steps):
            result = operation(*symbols(args), **symbols(kwargs))
            made[number] = next(x for x in tree.leaves(result) if isinstance(x, Tensor)).node.outputs
        self._connect(symbols(inputs), symbols(outputs))

    @property
    def layers(self):
        """The layers of the graph, its inputs among them, those nearer to the inputs first."""
        return list(self._graph_layers)

    @property
    def inputs(self):
        """The symbolic inputs, in a list."""
        return list(self._graph.inputs)

    @property
    def outputs(self):
        """The symbolic outputs, in a list."""
        return list(self._graph.outputs)

    @property
    def input(self):
        """The symbolic inputs as they were given."""
        return self._inputs

    @property
    def output(self):
        """The symbolic outputs as they were given."""
        return self._graph.result

    @property
    def input_shape(self):
        """The shape of the input, batch included; of several, a nest of them."""
        return shapes_of(self._inputs)

    @property
    def output_shape(self):
        """The shape of the output, batch included; of several, a nest of them."""
        return shapes_of(self._graph.result)

    @property
    def input_names(self):
        """The names of the inputs."""
        return [layer.name for layer in self._input_layers]

    @property
    def output_names(self):
        """The names of the outputs: those of the layers that they come from, numbered where one comes again."""
        return unique_names([self._order.source(x).name for x in self._graph.outputs])

    # ------------------------------------------------------------------------------------------------ calling

    def build(self, input_shape=None):
        """Do nothing: the layers were built when they were called on the symbolic inputs."""
        self.built = True

    build._builds = True

    def call(self, inputs, training=None, mask=None):
        """Run data through the graph.

        Parameters
        ----------
        inputs : nest of array or Tensor
            Like the model's inputs, or a dict by their names. Each is cast to the type of its `Input`; a last axis of
            length 1 may be missing or too many.
        training : bool, optional
            For all layers.
        mask : nest of array, Tensor or None, optional
            Of `inputs`.

        Returns
        -------
        nest of array or Tensor
            Like the model's outputs.

        Raises
        ------
        ValueError
            If there are more or fewer inputs, or one has another shape.
        """
        values = self._by_input(inputs)
        masks = [None] * len(values) if mask is None else self._by_input(mask)
        return self._graph(*[self._enter(i, x, m) for i, (x, m) in enumerate(zip(values, masks, strict=True))])

    def _by_input(self, given):
        """The leaves of a nest of values (or masks), one per input."""
        expected, count = self._inputs, len(self._graph.inputs)
        if isinstance(given, dict):
            keys = list(expected) if isinstance(expected, dict) else self.input_names
            missing = [key for key in keys if key not in given]
            if missing:
                raise ValueError(
                    f'Missing data for input "{missing[0]}". You passed a data dictionary with keys {list(given)}. '
                    f"Expected the following keys: {keys}"
                )
            unknown = [key for key in given if key not in keys]
            if unknown:
                warnings.warn(
                    f"Input dict contained keys {unknown} which did not match any model input. They will be ignored "
                    "by the model.",
                    stacklevel=5,
                )
            given = {key: given[key] for key in keys}
            if not isinstance(expected, dict):
                return list(given.values())
        elif isinstance(expected, dict) and isinstance(given, (list, tuple)):
            raise ValueError(
                f'The inputs of model "{self.name}" are a dict with the keys {list(expected)}. '
                f"Received: {type(given).__name__}"
            )
        leaves = tree.leaves(given)
        if len(leaves) != count:
            raise ValueError(
                f'Layer "{self.name}" expects {count} input(s), but it received {len(leaves)} input tensors. Inputs '
                f"received: {given}"
            )
        return leaves

    def _enter(self, index, x, mask):
        """One input in the type and rank of its `Input`, with its mask."""
        layer, symbol = self._input_layers[index], self._graph.inputs[index]
        if x is None:
            if not layer.optional:
                raise ValueError(
                    f"The input '{layer.name}' is not optional, but None was passed. Please provide a valid tensor."
                )
            return None
        shape = (None, *symbol.shape[1:]) if symbol.shape else ()
        InputSpec(shape=shape, allow_last_axis_squeeze=True, name=layer.name).check(x, index, self.name)
        mask = get_mask(x) if mask is None else mask
        if x.dtype != symbol.dtype:
            x = ops.cast(x, symbol.dtype)
        if len(x.shape) > len(shape):
            x = ops.squeeze(x, -1)
        elif len(x.shape) < len(shape):
            x = ops.expand_dims(x, -1)
        return with_mask(x, mask)

    # ------------------------------------------------------------------------------------------------ types, config

    def get_config(self):
        """The layers and how they are called, in Keras 3's layout.

        Returns
        -------
        dict
            Of a subclass with a constructor of its own, the arguments of that, if they are plain values.

        Raises
        ------
        ValueError
            If something between the layers has no configuration: a variable, an operation of the user's.
        NotImplementedError
            If the arguments are not plain values.
        """
        if takes_graph(type(self)):
            graph = graph_config.describe(
                self._inputs, self._graph.result, self._order.entries, self._order.calls(), _is_functional
            )
            return {"name": self.name, "trainable": self.trainable, **graph}
        config = super().get_config()
        if type(self).get_config is Functional.get_config:
            config.update(self._constructor_config(set(config)))
        return config

    def _float_dtype(self):
        wide = any(x.dtype == np.float64 for x in (*self._graph.inputs, *self._graph.outputs))
        return np.dtype(np.float64) if wide else super()._float_dtype()

    def _rank_of_input(self):
        return len(self._graph.inputs[0].shape) if len(self._graph.inputs) == 1 else None

    _is_connected = True

    @property
    def _is_chain(self):
        return self._order.is_chain

    def _rows(self):
        return self._order.rows()


def _shown(x):
    """Return what stands for a value in a message: of an array its shape and type."""
    return f"array of shape {x.shape}, dtype {x.dtype}" if isinstance(x, np.ndarray) else x


# What is drawn anew in a copy.
_DRAWN = frozenset(("_inputs", "_graph", "_order"))


def _input_layer(x):
    """The layer of an input; a new one for a Tensor on the way."""
    layer = getattr(x, "layer", None)
    if isinstance(layer, InputLayer) and layer.output is x:
        return layer
    source = f"{x.node.name}_{x.index}" if x.index else x.node.name
    return InputLayer(batch_shape=x.shape, dtype=x.dtype.name, name=f"{source}_input")


def _is_functional(layer):
    return isinstance(layer, Functional)


def from_graph_config(cls, config, custom_objects):
    """Make a model of a class, whose constructor takes inputs and outputs, from what `Functional.get_config` returned.

    Parameters
    ----------
    cls : subclass of Model
    config : dict
    custom_objects : dict, optional
        Name -> class or function.

    Returns
    -------
    Model
    """
    with custom_object_scope(custom_objects or {}):
        inputs, outputs = graph_config.draw(config, custom_objects, _is_functional)
    further = {key: value for key, value in config.items() if key not in ("layers", "input_layers", "output_layers")}
    trainable = further.pop("trainable", True)
    model = cls(inputs=inputs, outputs=outputs, **further)
    if trainable is False:
        model.trainable = False
    return model


def functional_twin(cls):
    """The class of instances of `cls` that are made from inputs and outputs: `cls`, then `Functional`.

    Not the class itself, because others of its instances may have a `call` of their own.

    Parameters
    ----------
    cls : subclass of Model

    Returns
    -------
    type
    """
    twin = cls.__dict__.get("_functional_twin")
    if twin is None:
        own = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        own["_serialized_as"] = cls
        twin = cls._functional_twin = type(cls.__name__, (cls, Functional), {**own, "__reduce__": _reduce_twin})
    return twin


def _reduce_twin(self):
    return _new_twin, (type(self).__mro__[1],), self.__getstate__()


def _new_twin(cls):
    twin = functional_twin(cls)
    return twin.__new__(twin)


export("keras.src.models.functional", Functional)  # where Keras finds its own
