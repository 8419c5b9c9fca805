"""The layers of a functional model in order, and their calls."""

from __future__ import annotations

from .. import tree
from ..layers.base import Layer
from ..layers.core import InputLayer
from .outputs import unique_names
from .summary import Row

__all__ = ["CallOrder", "Operation", "shapes_of"]


def shapes_of(nest):
    """Return a nest of Tensors with their shapes in place of them."""
    return tree.map_structure(lambda x: tuple(x.shape), nest)


class Operation:
    """A call of an operation of `numbarnn.ops` in the graph, between the layers."""

    def __init__(self, node):
        self.node, self.name = node, node.name


class CallOrder:
    """The layers of a graph in Keras's order: by their distance from the outputs, then as they are met from there.

    Parameters
    ----------
    graph : FunctionalGraph
    input_layers : list of InputLayer

    Attributes
    ----------
    owners : list of Layer and Operation
        Whose calls the nodes are.
    entries : dict
        id of an input -> its layer.
    is_chain : bool
        Whether each call takes what the one before gives, and nothing else.
    """

    def __init__(self, graph, input_layers):
        self.entries = {id(x): layer for x, layer in zip(graph.inputs, input_layers, strict=True)}
        self._operations = {}
        met, calls = self._walk(graph.outputs)
        operations = [self._operations[call] for call in calls if call in self._operations]
        for operation, name in zip(operations, unique_names([x.node.name for x in operations]), strict=True):
            operation.name = name
        depths, owner_depths = {}, {}
        for call in reversed(calls):
            owner = self._owner(call)
            depth = depths[call] = max(depths.get(call, 0), owner_depths.get(owner, 0))
            owner_depths[owner] = depth
            for x in self._inputs_of(call):
                before = self._call(x)
                depths[before] = max(depth + 1, depths.get(before, 0))
        for layer in input_layers:  # those that no output depends on
            if layer not in owner_depths:
                depths[layer] = owner_depths[layer] = 0
                met[layer] = -1
        self.owners = sorted(owner_depths, key=lambda owner: (-owner_depths[owner], met[owner]))
        self._calls = {owner: [] for owner in self.owners}
        for call in calls:
            self._calls[self._owner(call)].append(call)
        at = list(depths.values())
        self.is_chain = (
            len(set(at)) == len(at)
            and all(len(self._inputs_of(call)) < 2 for call in calls)
            and all(len(calls) < 2 for calls in self._calls.values())
        )

    # A call is a Node, or an InputLayer: that is where data enter.

    def _call(self, x):
        return self.entries.get(id(x), x.node)

    def _owner(self, call):
        if isinstance(call, InputLayer):
            return call
        if isinstance(call.operation, Layer):
            return call.operation
        return self._operations.setdefault(call, Operation(call))

    @staticmethod
    def _inputs_of(call):
        return [] if isinstance(call, InputLayer) else call.inputs

    def source(self, x):
        """Return the layer or operation that a Tensor comes from."""
        return self._owner(self._call(x))

    def _walk(self, outputs):
        """Walk from the outputs to the inputs: owner -> when it was met first, and the calls after their inputs."""
        met, calls, done = {}, [], set()
        stack = [(self._call(x), False) for x in reversed(outputs)]
        while stack:  # depth first without recursion: graphs may be deep
            call, expanded = stack.pop()
            if call in done:
                continue
            if expanded:
                done.add(call)
                calls.append(call)
                continue
            met.setdefault(self._owner(call), len(met))
            stack.append((call, True))
            stack.extend((self._call(x), False) for x in reversed(self._inputs_of(call)))
        return met, calls

    def calls(self):
        """Return the calls of each layer and operation, in the order in which they were made; an input has none."""
        return {owner: self._made(owner) for owner in self.owners}

    def _made(self, owner):
        if isinstance(owner, InputLayer):
            return []
        calls = self._calls[owner]
        return sorted(calls, key=owner._inbound_nodes.index) if isinstance(owner, Layer) else calls

    def rows(self):
        """Return what `summary` shows: list of `Row`."""
        return [self._row(owner) for owner in self.owners]

    def _row(self, owner):
        if isinstance(owner, InputLayer):
            return Row(owner, [owner.batch_shape])
        calls = self._made(owner)
        shapes = [shapes_of(call.outputs if len(call.outputs) > 1 else call.outputs[0]) for call in calls]
        shape = shapes[0] if all(other == shapes[0] for other in shapes) else None
        return Row(owner, shape, [self._edge(x) for call in calls for x in call.inputs])

    def _edge(self, x):
        """Return ``name[call][output]`` of where a Tensor comes from."""
        owner, call = self.source(x), self._call(x)
        number = owner._inbound_nodes.index(call) if call in getattr(owner, "_inbound_nodes", ()) else 0
        return f"{owner.name}[{number}][{x.index}]"
