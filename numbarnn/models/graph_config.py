"""The graph of a functional model as plain values, in Keras 3's layout, and back.

Each layer comes with its ``inbound_nodes``, the calls of it, in whose arguments a ``__keras_tensor__`` says by
``[layer, number of its call, number of the output]`` where a Tensor comes from.
"""

from __future__ import annotations

from ..graph import Tensor
from ..layers.base import Layer
from ..layers.bidirectional import Bidirectional
from ..layers.core import InputLayer
from ..layers.rnn import RNN
from ..serialization import deserialize_keras_object, lookup, serialize_keras_object, sharing
from ..variable import Variable
from . import operations
from .outputs import unique_names

__all__ = ["describe", "draw"]


# ---------------------------------------------------------------------------------------------------------------
# a graph to plain values


def describe(inputs, outputs, entries, calls, is_drawn):
    """Describe a graph.

    Parameters
    ----------
    inputs, outputs : nest of Tensor
    entries : dict
        id of an input -> its InputLayer.
    calls : dict
        Owner (a Layer, or something with a `name`) -> its calls, the nodes in the order in which they were made.
    is_drawn : callable
        Whether a layer is a `Functional`, whose calls Keras counts from 1 in ``output_layers``.

    Returns
    -------
    dict
        ``layers``, ``input_layers``, ``output_layers``.

    Raises
    ------
    ValueError
        If an operation between the layers cannot be described.
    """
    return _Description(entries, calls, is_drawn).of(inputs, outputs)


class _Description:
    def __init__(self, entries, calls, is_drawn):
        self._entries = []  # (owner, its name, its calls)
        self._places = {}  # id of a Tensor -> name, number of the call, number of the output, whether of a Functional
        layers_first = sorted(calls, key=lambda owner: not isinstance(owner, Layer))
        names = dict(zip(layers_first, unique_names([owner.name for owner in layers_first]), strict=True))
        for owner, nodes in calls.items():
            name = names[owner]
            self._entries.append((owner, name, nodes))
            for number, node in enumerate(nodes):
                for index, x in enumerate(node.outputs):
                    self._places[id(x)] = name, number, index, is_drawn(owner)
        self._places.update((x, (layer.name, 0, 0, False)) for x, layer in entries.items())

    def of(self, inputs, outputs):
        with sharing() as drop_single:
            layers = [self._layer(*entry) for entry in self._entries]
            return drop_single(
                {"layers": layers, "input_layers": self._place(inputs), "output_layers": self._place(outputs)}
            )

    def _layer(self, owner, name, nodes):
        if isinstance(owner, Layer):
            return {
                **serialize_keras_object(owner),
                "name": name,
                "inbound_nodes": [self._call(node, node.args) for node in nodes],
            }
        module, class_name, config, args = operations.describe(nodes[0])
        return {
            "module": module,
            "class_name": class_name,
            "config": {"name": name, **serialize_keras_object(config)},
            "registered_name": None,
            "name": name,
            "inbound_nodes": [self._call(nodes[0], args, {})],
        }

    def _call(self, node, args, kwargs=None):
        # A tuple of arrays is not everywhere what a list of them is; Keras knows lists alone.
        layer = node.operation
        listed = not isinstance(layer, (RNN, Bidirectional)) and _is_keras(layer)
        kwargs = node.kwargs if kwargs is None else kwargs
        call = {
            "args": [self._values(x, listed) for x in args],
            "kwargs": {key: self._values(x, listed) for key, x in kwargs.items()},
        }
        if "training" in kwargs:
            call["training"] = kwargs["training"]
        return call

    def _values(self, x, listed):
        if isinstance(x, Tensor):
            name, number, index, _ = self._places[id(x)]
            config = {"shape": list(x.shape), "dtype": x.dtype.name, "keras_history": [name, number, index]}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(x, list) or (isinstance(x, tuple) and listed):
            return [self._values(item, listed) for item in x]
        if isinstance(x, tuple):
            return {"class_name": "__tuple__", "config": {"value": [self._values(item, listed) for item in x]}}
        if isinstance(x, dict):
            return {key: self._values(item, listed) for key, item in x.items()}
        if isinstance(x, Variable):
            raise ValueError(
                f"{x!r} is used between the layers of a model, where it belongs to none of them, so that it could not "
                "be saved. Make it in a layer, with `add_weight`."
            )
        return serialize_keras_object(x)

    def _place(self, nest):
        if isinstance(nest, Tensor):
            name, number, index, of_drawn = self._places[id(nest)]
            return [name, number + of_drawn, index]
        if isinstance(nest, dict):
            return {key: self._place(x) for key, x in nest.items()}
        return type(nest)(map(self._place, nest)) if type(nest) in (list, tuple) else [self._place(x) for x in nest]


def _is_keras(operation):
    if not isinstance(operation, Layer):
        return True
    cls = type(operation)
    return lookup("keras.layers", cls.__name__) is cls or lookup("keras", cls.__name__) is cls


# ---------------------------------------------------------------------------------------------------------------
# plain values to a graph


def draw(config, custom_objects, is_drawn):
    """Make the layers of a description, ours or Keras's, and call them.

    Parameters
    ----------
    config : dict
        With ``layers``, ``input_layers`` and ``output_layers``.
    custom_objects : dict or None
        Name -> class or function.
    is_drawn : callable
        See `describe`.

    Returns
    -------
    inputs, outputs : nest of Tensor

    Raises
    ------
    ValueError
        If the layers cannot be connected as they say.
    """
    with sharing():
        return _Drawing(config, custom_objects, is_drawn).ends(config)


class _NotYetError(Exception):
    """A call takes what another call gives that has not been made."""


class _Drawing:
    def __init__(self, config, custom_objects, is_drawn):
        self._is_drawn = is_drawn
        self._custom_objects = custom_objects
        self._made = {}  # name -> what is called
        self._outputs = {}  # name -> for each call made the Tensors that it gave
        waiting = {}
        for entry in config["layers"]:
            name = entry.get("name", entry["config"].get("name"))
            if name in self._made:
                raise ValueError(f"The configuration of a model names two layers {name!r}.")
            self._made[name] = called = self._make(entry)
            is_input = isinstance(called, InputLayer)
            self._outputs[name] = [[called.output]] if is_input else []
            if entry["inbound_nodes"] and not is_input:
                waiting[name] = list(entry["inbound_nodes"])
        while waiting:  # a layer may be called again on what comes of its output
            done = [name for name, calls in waiting.items() if self._call_all(name, calls)]
            if not done:
                raise ValueError(
                    "The configuration of a model cannot be connected: the inputs of these layers come from nowhere, "
                    f"or from themselves: {sorted(waiting)}"
                )
            waiting = {name: calls for name, calls in waiting.items() if calls}

    def _make(self, entry):
        if operations.is_operation(entry.get("module")):
            given = {key: deserialize_keras_object(value) for key, value in entry["config"].items()}
            return lambda *args, **kwargs: operations.run(
                entry["module"], entry["class_name"], given, list(args), kwargs
            )
        layer = deserialize_keras_object(
            {key: value for key, value in entry.items() if key not in ("name", "inbound_nodes")}, self._custom_objects
        )
        if not isinstance(layer, Layer):
            raise ValueError(f"The configuration of a model holds {layer!r} where a layer should be.")
        return layer

    def _call_all(self, name, calls):
        """Make those calls that can be made, in order; say whether there was any."""
        count, called = len(calls), self._made[name]
        while calls:
            try:
                args, kwargs = self._arguments(calls[0])
            except _NotYetError:
                break
            result = [x for x in _leaves(called(*args, **kwargs)) if isinstance(x, Tensor)]
            self._outputs[name].append(result[0].node.outputs if isinstance(called, Layer) else result)
            calls.pop(0)
        return len(calls) < count

    def _arguments(self, call):
        args = [self._values(x) for x in call["args"]]
        kwargs = {key: self._values(x) for key, x in call["kwargs"].items()}
        if "training" not in call and not kwargs.get("training"):
            # Keras notes False also where nothing was said, and lets `fit` have its way.
            kwargs.pop("training", None)
        return args, kwargs

    def _tensor(self, name, number, index):
        if name not in self._outputs:
            raise ValueError(f"The configuration of a model names a layer {name!r} that is not in it.")
        if number >= len(self._outputs[name]):
            raise _NotYetError
        return self._outputs[name][number][index]

    def _values(self, x):
        if isinstance(x, list):
            return [self._values(item) for item in x]
        if not isinstance(x, dict):
            return x
        kind = x.get("class_name") if "config" in x else None
        if kind == "__keras_tensor__":
            return self._tensor(*x["config"]["keras_history"])
        if kind == "__tuple__":
            return tuple(self._values(item) for item in x["config"]["value"])
        if kind is None:
            return {key: self._values(item) for key, item in x.items()}
        return deserialize_keras_object(x, self._custom_objects)

    def ends(self, config):
        return self._place(config["input_layers"], False), self._place(config["output_layers"], True)

    def _place(self, nest, is_output):
        if isinstance(nest, dict):
            return {key: self._place(x, is_output) for key, x in nest.items()}
        if len(nest) == 3 and isinstance(nest[0], str):
            name, number, index = nest
            try:
                return self._tensor(name, number - (is_output and self._is_drawn(self._made.get(name))), index)
            except _NotYetError:
                raise ValueError(f"Layer {name!r} has no call {number} in the configuration of its model.") from None
        items = [self._place(x, is_output) for x in nest]
        return tuple(items) if isinstance(nest, tuple) else items


def _leaves(x):
    if isinstance(x, dict):
        x = [x[key] for key in sorted(x)]
    if isinstance(x, (list, tuple)):
        return [leaf for item in x for leaf in _leaves(item)]
    return [x]
