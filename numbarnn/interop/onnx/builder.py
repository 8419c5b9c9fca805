"""`Builder`: the graph of ONNX in the making: values, constants, nodes."""

from __future__ import annotations

import contextlib

import numpy as np

__all__ = ["Builder", "Unsupported", "ints"]

OPSET, IR_VERSION = 18, 8


class Unsupported(Exception):
    """What cannot be said in ONNX; the message says why."""


class Builder:
    """Nodes, constants, inputs and outputs of a graph. A value of the graph is a name, a constant is an array.

    Parameters
    ----------
    onnx : module
    """

    def __init__(self, onnx):
        self._onnx = onnx
        self._nodes = []
        self._constants = {}  # name -> array
        self._hints = {}  # id of an array -> (the array, what to call it)
        self._names = set()
        self._made = {}  # name -> (operator, its input, its attribute) of what can be undone
        self._inputs, self._outputs = [], []
        self._seen = {}  # name -> names that the body of the node that it comes from uses

    # -- values -------------------------------------------------------------------------------------------------

    def unique(self, name):
        """Return a name that no value has yet, as near to this one as can be."""
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def input(self, name, spec, axes):
        """Add an input of the graph; return its name.

        Parameters
        ----------
        name : str
        spec : Spec
        axes : sequence
            Names of its axes; those of known length need none.
        """
        name = self.unique(name)
        self._inputs.append(self._info(name, spec, axes))
        return name

    def output(self, name, value, spec):
        """Make a value an output of the graph."""
        name = self.unique(name)
        self._node("Identity", [self.named(value)], [name], {})
        self._outputs.append(self._info(name, spec, ["batch", *spec.shape[1:]][: len(spec.shape)]))

    def _info(self, name, spec, axes):
        shape = [axis if n is None else n for n, axis in zip(spec.shape, axes, strict=True)]
        return self._onnx.helper.make_tensor_value_info(name, self.type_of(spec.dtype), shape)

    def type_of(self, dtype):
        """Return ONNX's number of a dtype."""
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def hint(self, array, name):
        """Say what a constant is to be called."""
        self._hints[id(array)] = array, name

    def named(self, value):
        """Return the name of a value; a constant gets one."""
        if isinstance(value, str):
            return value
        array = np.asarray(value)
        for name, known in self._constants.items():
            same = array is known or (array.size < 64 and array.dtype == known.dtype and array.shape == known.shape)
            if same and np.array_equal(array, known):
                return name
        name = self.unique(self._hints.get(id(value), (None, "constant"))[1])
        self._constants[name] = array
        return name

    # -- nodes --------------------------------------------------------------------------------------------------

    def __call__(self, operator, *inputs, outputs=1, **attributes):
        """Add a node.

        Parameters
        ----------
        operator : str
        *inputs : str, array, number or None
            None is an input that is left out.
        outputs : int
        **attributes
            Of the operator.

        Returns
        -------
        str, or list of str for several outputs
        """
        given = ["" if x is None else self.named(x) for x in inputs]
        names = [self.unique(f"{operator}_out") for _ in range(outputs)]
        self._node(operator, given, names, attributes)
        return names[0] if outputs == 1 else names

    def _node(self, operator, inputs, outputs, attributes):
        while inputs and not inputs[-1]:
            inputs.pop()
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, outputs, **attributes))

    def _undoable(self, operator, value, attribute, undo, make):
        """Add a node, or return what the value was made from, if this would undo it."""
        if self._made.get(value, ("",))[0::2] == (operator, undo):
            return self._made[value][1]
        result = make()
        self._made[result] = (operator, value, attribute)
        return result

    def transpose(self, value, order):
        """Permute the axes."""
        value, order = self.named(value), list(order)
        undo = np.argsort(order).tolist()
        return self._undoable("Transpose", value, order, undo, lambda: self("Transpose", value, perm=order))

    def flip(self, value, axis):
        """Reverse the order along an axis."""
        value, ends = self.named(value), ints([np.iinfo(np.int64).min])
        return self._undoable(
            "Slice", value, axis, axis, lambda: self("Slice", value, ints([-1]), ends, ints([axis]), ints([-1]))
        )

    def cast(self, value, old, new):
        """Bring a value of one dtype into another."""
        if np.dtype(old) == np.dtype(new):
            return value
        return self("Cast", value, to=self.type_of(new))

    def shape(self, value, start=0, stop=None):
        """Return the shape as a value, or the part of it from one axis to another."""
        return self("Shape", value, start=start, **({} if stop is None else {"end": stop}))

    # -- loops --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def body(self):
        """Within the block, nodes belong to the body of a loop, which sees all values around it."""
        body = _Body(self)
        outside, self._nodes = self._nodes, []
        try:
            yield body
            body.nodes = self._nodes
        finally:
            self._nodes = outside

    def scan(self, body, inputs, count):
        """Add a loop over the last `count` inputs along their first axis; return the names of its outputs."""
        nodes, used = _needed(body.nodes, {value.name for value in body.outputs}, self._seen)
        graph = self._onnx.helper.make_graph(nodes, self.unique("body"), body.inputs, body.outputs, [])
        found = self("Scan", *inputs, outputs=len(body.outputs), body=graph, num_scan_inputs=count)
        found = [found] if isinstance(found, str) else found
        self._seen[found[0]] = used
        return found

    # -- the model ----------------------------------------------------------------------------------------------

    def model(self, name):
        """Return the ModelProto of what the outputs need, checked."""
        helper = self._onnx.helper
        nodes, needed = _needed(self._nodes, {value.name for value in self._outputs}, self._seen)
        constants = [
            self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), constant)
            for constant, array in self._constants.items()
            if constant in needed
        ]
        made = helper.make_graph(nodes, name, self._inputs, self._outputs, constants)
        model = helper.make_model(
            made, producer_name="numbarnn", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        self._onnx.checker.check_model(model, full_check=True)
        return model


class _Body:
    """The inputs, outputs and nodes of a loop's body."""

    def __init__(self, builder):
        self._builder = builder
        self.inputs, self.outputs, self.nodes = [], [], []

    def input(self, name, spec):
        """Add an input; return its name."""
        name = self._builder.unique(name)
        self.inputs.append(self._builder._info(name, spec, spec.shape))
        return name

    def output(self, value, spec):
        """Make a value an output."""
        name = self._builder("Identity", value)
        self.outputs.append(self._builder._info(name, spec, spec.shape))


def _needed(nodes, names, seen):
    """Return the nodes that values with these names are made by, and the names of all values that they use."""
    kept, names = [], set(names)
    for node in reversed(nodes):
        if names & set(node.output):
            kept.insert(0, node)
            names |= {*node.input, *seen.get(node.output[0], ())}
    return kept, names


def ints(values):
    """Return integers as the array that ONNX takes for axes, lengths and places."""
    return np.array(values, np.int64)
