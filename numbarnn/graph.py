"""Tracing, and the functional graph: the public face of floor 2.

>>> from numbarnn import ops
>>> program = trace(lambda x, y: ops.sum(x * y), (Spec((3,), "float64"), Spec((3,), "float64")))
>>> forward, backward = program.linearize(0, program.inputs)

A traced function is run once on symbols; the `Program` that comes out is replayed on arrays. What is recorded:

- operations on Tensors and Variables; variables and captured arrays are read at each replay, Python numbers are baked
  in;
- effects (``Variable.assign``, draws of `numbarnn.random`): in their order, used or not.
"""

import threading
import warnings

from . import tree
from .operation import KernelOp, Op
from .program import Program
from .protocols import TracedValueError, local, user_line
from .symbolic import Node, Spec, Tensor, Trace, global_generators, has_assigned, is_tracing, suspended, tracing

__all__ = [
    "FunctionalGraph", "KernelOp", "Node", "Op", "Program", "Spec", "Tensor", "TracedValueError", "abstract",
    "evaluate", "has_assigned", "is_tracing", "record", "suspended", "trace", "trace_within", "user_line",
]  # fmt: skip


def trace(fn, args, kwargs=None, *, name=None):
    """Run a function once on symbols.

    Parameters
    ----------
    fn : callable
        Run as ``fn(*args, **kwargs)``.
    args, kwargs : tuple, dict
        Nests. Each Spec in them becomes an input Tensor; everything else is passed as it is.
    name : str, optional
        For messages and printouts.

    Returns
    -------
    Program
        Called with one array for each Spec, it returns what ``fn`` would, arrays in place of Tensors.

    Raises
    ------
    RuntimeError
        If ``fn`` drew from the global generators of `numpy.random` or `random`, or from a generator that it, or the
        `call` of a layer, names or has as an attribute: the draw would be the same at every replay.
    """
    recorded, inputs, result = _run(fn, args, kwargs)
    return Program(name or getattr(fn, "__name__", type(fn).__name__), recorded, inputs, result)


def trace_within(fn, args):
    """Run a function on symbols within the active trace, whose Tensors it may use; for operations that repeat it.

    Parameters
    ----------
    fn : callable
    args : tuple
        Nests of Specs.

    Returns
    -------
    recorded : Trace
        Its ``captures`` are the Tensors of the active trace that were used.
    inputs : list of Tensor
        One for each Spec.
    result : nest
        What ``fn`` returned.
    """
    return _run(fn, args, None, outer=local.trace)


def _run(fn, args, kwargs, outer=None):
    """Run a function on symbols; return the trace, its inputs, and the result with Tensors in it."""
    recorded, inputs = Trace(outer=outer), []

    def symbol(x):
        if not isinstance(x, Spec):
            return x
        inputs.append(recorded.input(x, name=f"input_{len(inputs)}"))
        return inputs[-1]

    args, kwargs = tree.map_structure(symbol, (tuple(args), dict(kwargs or {})))
    recorded.generators = global_generators()
    recorded.watch(fn)
    with tracing(recorded):
        result = tree.map_structure(recorded.resolve, fn(*args, **kwargs))
    if local.trace is not None:  # what this depends on, the trace around it does, too
        local.trace.layers.update(recorded.layers)
    if recorded.drew():
        raise RuntimeError("A random generator" + _DREW.format(_name(fn)))
    if recorded.generators != global_generators():
        _refuse_draws(fn)
    return recorded, inputs, result


_DREW = (
    " was drawn from while {} was traced: the same draw would be repeated at every call. Draw with numbarnn.random, "
    "which draws anew each time, or pass the numbers in"
)


def _name(fn):
    return getattr(fn, "__name__", fn)


def _refuse_draws(fn):
    message = "np.random or random" + _DREW.format(_name(fn))
    others = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    if not others:
        raise RuntimeError(message)
    warnings.warn(
        f"{message} (unless it was one of {len(others)} other threads that drew)", RuntimeWarning, stacklevel=4
    )


def abstract(fn, args, kwargs=None):
    """Return the result of a function on symbols, as Specs: no program is made and nothing is computed.

    Tensors and Specs among the arguments are replaced by symbols; axes may have unknown length.
    """

    def spec(x):
        return x.spec if isinstance(x, Tensor) else x

    args, kwargs = tree.map_structure(spec, (tuple(args), dict(kwargs or {})))
    _, _, result = _run(fn, args, kwargs)
    return tree.map_structure(spec, result)


def record(operation, args, kwargs, output_specs):
    """Record a call of any callable as a node of a functional graph.

    Parameters
    ----------
    operation : callable
        A layer, say; ``operation(*args, **kwargs)`` with arrays in place of the Tensors gives a nest like
        ``output_specs``.
    args, kwargs : tuple, dict
        Nests in which Tensors occur.
    output_specs : nest of Spec

    Returns
    -------
    nest of Tensor
    """
    inputs = [x for x in tree.leaves((tuple(args), dict(kwargs))) if isinstance(x, Tensor)]
    specs, treedef = tree.flatten(output_specs)
    node = Node(operation, tuple(args), dict(kwargs), inputs, tuple(specs), None)
    return tree.unflatten(treedef, node.outputs)


class FunctionalGraph:
    """The part of a functional graph between inputs and outputs, in an order in which it can be run.

    Parameters
    ----------
    inputs, outputs : nest of Tensor

    Attributes
    ----------
    nodes : list of Node
        Each after those that it depends on.

    Raises
    ------
    ValueError
        If an output depends on a Tensor that is neither among the inputs nor the output of a node.
    """

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs = tree.leaves(inputs), tree.leaves(outputs)
        self.result = outputs
        for x in (*self.inputs, *self.outputs):
            if not isinstance(x, Tensor):
                raise TypeError(f"the inputs and outputs of a graph are symbolic tensors, got {x!r}")
        known = {id(x) for x in self.inputs}
        self.nodes, placed = [], set()
        stack = [(x, None, False) for x in reversed(self.outputs)]
        while stack:  # depth first without recursion: graphs may be deep
            x, taker, expanded = stack.pop()
            if id(x) in known or x.node in placed:
                continue
            if x.node is None:
                where = "" if taker is None else f" at operation '{taker.name}'"
                raise ValueError(
                    f"Graph disconnected: cannot find parent for tensor {x!r}{where}. It is not among the inputs. The "
                    f"following previous operations were accessed without issue: {[node.name for node in self.nodes]}"
                )
            if expanded:
                placed.add(x.node)
                self.nodes.append(x.node)
            else:
                stack.append((x, taker, True))
                stack.extend((y, x.node, False) for y in reversed(x.node.inputs))

    def __call__(self, *values, call=None):
        """Run the nodes on values for the inputs: arrays, or Tensors to connect the graph anew or to trace it.

        Parameters
        ----------
        *values
            One per input.
        call : callable, optional
            ``call(node, args, kwargs)`` runs a node; by default ``node.operation(*args, **kwargs)``.

        Returns
        -------
        nest
            Like ``outputs``.
        """
        if len(values) != len(self.inputs):
            raise TypeError(f"the graph takes {len(self.inputs)} inputs, got {len(values)}")
        known = {id(x): value for x, value in zip(self.inputs, values, strict=True)}

        def value(x):
            return known[id(x)] if isinstance(x, Tensor) else x

        for node in self.nodes:
            args, kwargs = tree.map_structure(value, (node.args, node.kwargs))
            result = node.operation(*args, **kwargs) if call is None else call(node, args, kwargs)
            leaves = [result] if node.single else tree.leaves(result)
            known.update(zip(map(id, node.outputs), leaves, strict=True))
        return tree.map_structure(value, self.result)


def evaluate(outputs, inputs, values, call=None):
    """Run a functional graph from ``inputs`` with ``values`` (a nest like it) to ``outputs``: a `FunctionalGraph`."""
    return FunctionalGraph(inputs, outputs)(*tree.leaves(values), call=call)
