"""Where a number that is not finite comes from: a program is replayed operation by operation, and looked at backwards.

NaN and infinity by design are nobody's fault: scores of -inf before a softmax, NaN at masked timesteps. So the search
goes from the result back through values that are not finite, never to those that the result does not depend on; and
inputs are the cause only if the result is finite without theirs.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from . import cuda
from .gradients import kept, put_back
from .symbolic import Node, Tensor
from .variable import Variable

__all__ = [
    "Origin", "describe_inputs", "describe_operation", "describe_variables", "find_origin", "is_finite",
    "listing", "name_of_layer",
]  # fmt: skip

_SHOWN = 5  # so many rows, weights, ... are named


class Origin(NamedTuple):
    """Where a number that is not finite appears first.

    Attributes
    ----------
    node : Node or None
        The operation that makes it of finite ones.
    inputs : list of int
        Else: which inputs of the program hold it,
    variables : list of Variable
        or which variables.
    values : dict
        The values of all Tensors by their ids.
    """

    node: Node | None
    inputs: list
    variables: list
    values: dict


def is_finite(x):
    """Whether all of an array, a Variable or a number is finite; what is no floating point number is.

    Parameters
    ----------
    x : any

    Returns
    -------
    bool
    """
    x = _array(x)
    return x is None or bool(np.isfinite(x).all())


def _array(x):
    """The floating point array of a value, or None."""
    x = x.data if isinstance(x, Variable) else cuda.to_host(x) if cuda.is_device_array(x) else x
    if not isinstance(x, (float, np.ndarray, np.generic)):
        return None
    x = np.asarray(x)
    return x if x.dtype.kind in "fc" else None


def find_origin(program, arrays, before):
    """Find out where the first output of a program gets what is not finite.

    Parameters
    ----------
    program : Program
    arrays : sequence of ndarray
        What it was called on.
    before : list of (Variable, ndarray)
        Of variables that it has changed, the values before. They are as they were found when this returns.

    Returns
    -------
    Origin or None
        None where the first output is finite, or nothing is to be found.
    """
    after = kept([variable for variable, _ in before])

    def search(arrays):
        put_back(before)
        return _search(program, program.values(*arrays))

    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = search(arrays)
            if found is not None and found.inputs:
                # The cause, or what a mask hides while something else went wrong?
                without = search([a if is_finite(a) else _repaired(a) for a in arrays])
                found = found if without is None else without
            return found
    finally:
        put_back(after)


def _repaired(array):
    """An array with what is usual in its column in place of what is not finite; zeros might be no better to a log."""
    columns = np.atleast_2d(array).reshape(-1, array.shape[-1] if array.ndim > 1 else 1)
    good = np.isfinite(columns)
    means = np.where(good, columns, 0).mean(axis=0) * len(columns) / np.maximum(good.sum(axis=0), 1)
    return np.where(good, columns, means.astype(array.dtype)).reshape(array.shape)


def _search(program, values):
    bad = {id(x) for x in (*program.inputs, *program.trace.leaves.values()) if not is_finite(values[id(x)])}
    for node in program.nodes:
        given = [values[id(x)] if isinstance(x, Tensor) else x for x in node.inputs]
        spoilt = any(isinstance(x, Tensor) and id(x) in bad for x in node.inputs)
        infinite = not spoilt and not all(map(is_finite, (*given, *node.attrs.values())))
        for x in node.outputs:
            value = _array(values[id(x)])
            if value is not None and not np.isfinite(value).all():
                # Infinities that were written down, -inf under a mask, and what is infinite for them, are meant to be.
                if not infinite or np.isnan(value).any():
                    bad.add(id(x))
    head = program.outputs[0]
    if not isinstance(head, Tensor) or id(head) not in bad:
        return None
    makers = {id(x): node for node in program.nodes for x in node.outputs}
    waiting, seen, nodes, leaves = [head], {id(head)}, [], set()
    while waiting:
        x = waiting.pop()
        node = makers.get(id(x))
        if node is None:
            leaves.add(id(x))
            continue
        causes = [y for y in node.inputs if isinstance(y, Tensor) and id(y) in bad]
        if not causes:
            nodes.append(node)
        for y in causes:
            if id(y) not in seen:
                seen.add(id(y))
                waiting.append(y)
    inputs = [i for i, x in enumerate(program.inputs) if id(x) in leaves]
    variables = [variable for variable, leaf in program.trace.leaves.items() if id(leaf) in leaves]
    first = None
    if not inputs and not variables:
        first = min(nodes, key=program.nodes.index)
    return Origin(first, inputs, [] if inputs else variables, values)


# ---------------------------------------------------------------------------------------------------------------
# in words


def name_of_layer(layer):
    """How a message calls a layer, or the place outside all layers."""
    return "the computation of the loss" if layer is None else f"layer '{layer.name}' ({type(layer).__name__})"


def _what(value):
    return "NaN" if np.isnan(value).any() else "infinity"


def _first(value):
    return tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])


def listing(items):
    """The first few of several things, and how many more: str."""
    items = list(map(str, items))
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more


def describe_inputs(origin, names, arrays, rows=None):
    """Say which inputs hold what, in which rows.

    Parameters
    ----------
    origin : Origin
    names : list of str
        Of the program's inputs.
    arrays : sequence of ndarray
        The inputs.
    rows : ndarray of bool, optional
        Which samples' results are not finite, to name only these.

    Returns
    -------
    str
    """
    parts = []
    for i in origin.inputs:
        name, array = names[i], arrays[i]
        is_bad = ~np.isfinite(array)
        where = ""
        if array.ndim:
            found = is_bad.reshape(len(array), -1).any(axis=1)
            if rows is not None and len(rows) == len(found) and (found & rows).any():
                found &= rows
            found = np.flatnonzero(found)
            index = (int(found[0]), *_first(array[found[0]])) if array.ndim > 1 else (int(found[0]),)
            where = f" in row{'s' if len(found) > 1 else ''} {listing(found)} of the batch, first at index {index}"
        parts.append(f"`{name}` holds {_what(array)}{where}")
    return " and ".join(parts)


def describe_variables(variables, verb="held"):
    """Say which variables hold what.

    Parameters
    ----------
    variables : list of Variable
    verb : str

    Returns
    -------
    str
    """
    return (
        f"{listing(repr(v.path) for v in variables)} {verb} {' and '.join(sorted({_what(v.data) for v in variables}))}"
    )


def describe_operation(origin, own_line=None):
    """Say in which layer which operation made it of what.

    Parameters
    ----------
    origin : Origin
    own_line : (str, int), optional
        Where the program was traced from: of operations recorded there, the line says nothing.

    Returns
    -------
    str
    """
    node, values = origin.node, origin.values
    number = next(i for i, x in enumerate(node.outputs) if not is_finite(values[id(x)]))
    value = _array(values[id(node.outputs[number])])
    where = "" if node.line == own_line else f" at {node.line[0]}:{node.line[1]}"
    index = f" at index {_first(value)} of its result (shape {value.shape})" if value.ndim else ""
    return f"{name_of_layer(node.layer)}: `{node.name}`{where} made {_what(value)}{index} from {_largest(node, values)}"


def _largest(node, values):
    """What the operation made it of: how large the largest number is, and which; or what is infinite by design."""
    best, best_name = None, ""
    for x in node.inputs:
        value = _array(values[id(x)] if isinstance(x, Tensor) else x)
        if value is None or not value.size:
            continue
        if not np.isfinite(value).all():
            return f"{_what(value)} that stands there as a constant"
        size = float(np.abs(value).max())
        if best is None or size > best:
            variable = x.variable if isinstance(x, Tensor) else None
            best, best_name = size, "" if variable is None else f" (of {variable.path!r})"
    return "finite numbers" + ("" if best is None else f" of magnitude up to {best:.3g}{best_name}")
