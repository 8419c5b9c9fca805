"""Which operations of a step may be done for all timesteps at once, the rows of all of them one below the other.

A value of a step is of one kind:

- `INVARIANT`: the same at each timestep;
- `ROWS`: an array whose first axis may be made longer by the rows of other timesteps;
- `SUMMED`: a sum over all rows, and so over all timesteps (in gradients);
- `STEP`: anything else, computed at each timestep.
"""

from __future__ import annotations

import enum

from .operation import Op
from .ops import _inference, elementwise, indexing, linalg, reduction, shaping
from .symbolic import Spec, Tensor

__all__ = ["INVARIANT", "ROWS", "STEP", "SUMMED", "Kind", "call_on_rows", "kind_of", "stackable"]


class Kind(enum.Enum):
    """See the module."""

    INVARIANT = enum.auto()
    ROWS = enum.auto()
    SUMMED = enum.auto()
    STEP = enum.auto()


INVARIANT, ROWS, SUMMED, STEP = Kind

_sum_to, _sum_like = elementwise._sum_to_shape, elementwise._sum_like
_REDUCTIONS = (reduction._sum, reduction._mean, reduction._max, reduction._min, reduction._prod)
_AXES = (shaping._expand, shaping._squeeze, reduction._restore)

# What is linear in its first input whatever its shape is: a sum stays one.
_LINEAR = (elementwise.negative, elementwise.cast, shaping._reshape, shaping._transpose, shaping._expand)

# The same with the number of rows left open.
_scatter_rows = Op(
    "scatter",
    lambda d, *, key, shape: indexing._scatter(d, (), key, (d.shape[0], *shape[1:])),
    lambda d, *, key, shape: Spec((d.shape[0], *shape[1:]), d.dtype),
)
_scatter_row_pieces = Op(
    "scatter_pieces",
    lambda *ds, keys, shape: indexing._scatter_all(*ds, keys=keys, shape=(ds[0].shape[0], *shape[1:])),
    lambda *ds, keys, shape: Spec((ds[0].shape[0], *shape[1:]), ds[0].dtype),
)
_sum_rows_to = Op(
    "sum_to",
    lambda d, *, shape: elementwise._sum_to(d, (d.shape[0], *shape[1:])),
    lambda d, *, shape: Spec((d.shape[0], *shape[1:]), d.dtype),
)
_reshape_rows = Op(
    "reshape",
    lambda x, *, shape: x.reshape(x.shape[0], *shape),
    lambda x, *, shape: Spec((x.shape[0], *shape), x.dtype),
    lambda node, d: _reshape_rows(d, shape=node.inputs[0].shape[1:]),
)


def stackable(spec, batch):
    """Say whether the arrays of a Spec have a first axis as long as the batch: the timesteps make one array."""
    return spec is not None and batch is not None and len(spec.shape) > 0 and spec.shape[0] == batch


def kind_of(node, kinds, sums=False):
    """Return the kind of what a node gives.

    Parameters
    ----------
    node : Node
    kinds : dict
        The kinds of Tensors, by id.
    sums : bool
        Whether sums over rows stand for sums over all timesteps.
    """
    if node.operation.effect:
        return STEP
    found = {kinds[id(x)] for x in node.inputs if isinstance(x, Tensor)}
    if STEP in found or any(x.spec is None for x in node.outputs):
        return STEP
    if not found - {INVARIANT}:
        return INVARIANT
    rows = [x for x in node.inputs if isinstance(x, Tensor) and kinds[id(x)] is ROWS]
    if SUMMED in found:
        return SUMMED if not rows and _stays_sum(node, kinds) else STEP
    n = rows[0].shape[0]
    if any(x.shape[0] != n for x in rows):
        return STEP
    if sums and _sums_rows(node, rows, n):
        return SUMMED
    whole = all(x.shape and x.shape[0] == n for x in node.outputs)
    return ROWS if whole and _row_by_row(node, kinds, rows, n) else STEP


def _stays_sum(node, kinds):
    if node.operation is elementwise.add:
        return all(isinstance(x, Tensor) and kinds[id(x)] is SUMMED for x in node.inputs)
    return node.operation in _LINEAR


def _sums_rows(node, rows, n):
    operation, attrs = node.operation, node.attrs
    if operation is linalg._matmul:
        return attrs["transpose_a"] and len(rows) == 2 and all(len(x.shape) == 2 for x in rows)
    if operation is _sum_to or operation is _sum_like:
        if rows[0] is not node.inputs[0] or (operation is _sum_like and len(rows) > 1):
            return False
        shape = attrs["shape"] if operation is _sum_to else node.inputs[1].shape
        return len(shape) < len(rows[0].shape) or (shape[0] == 1 and n not in (1, None))
    if operation is reduction._sum:
        return 0 in _inference.axes_of(attrs["axis"], len(rows[0].shape))
    return False


def _row_by_row(node, kinds, rows, n):
    operation, attrs, first = node.operation, node.attrs, node.inputs[0]
    if len(node.outputs) != 1:
        return False
    rank = len(node.outputs[0].shape)
    if operation is linalg._matmul:
        a, b = node.inputs
        if attrs["transpose_a"] or first is not rows[0] or len(a.shape) < 2:
            return False
        if isinstance(b, Tensor) and kinds[id(b)] is ROWS:
            return len(a.shape) == len(b.shape) >= 3
        return len(b.shape) == 2
    if operation.name == "packed_matmul":
        return len(rows) == 1 and first is rows[0]
    if _is_elementwise(operation, attrs):
        return all(_broadcasts(x, kinds, rank) for x in node.inputs)
    if operation is shaping._concatenate:
        axis = attrs["axis"] % rank
        return axis != 0 and len(rows) == len(node.inputs)
    if operation is indexing._scatter_pieces:
        keep = all(_keeps_rows(key, len(attrs["shape"])) for key in attrs["keys"])
        return keep and len(rows) == len(node.inputs)
    if first is not rows[0]:
        return False
    if operation in _REDUCTIONS:
        return 0 not in _inference.axes_of(attrs["axis"], len(first.shape))
    if operation in _AXES:
        return all(axis > 0 for axis in attrs["axes"])
    if operation is shaping._transpose:
        return attrs["axes"] is not None and attrs["axes"][0] == 0
    if operation is shaping._broadcast_like or operation is _sum_like:
        return len(rows) == 2 and len(first.shape) == rank
    if operation is indexing._getitem:
        return len(node.inputs) == 1 and _keeps_rows(attrs["key"], len(first.shape))
    if operation is indexing._scatter_into:
        return len(node.inputs) == 1 and _keeps_rows(attrs["key"], len(attrs["shape"]))
    if operation is _sum_to:
        return len(attrs["shape"]) == len(first.shape)
    if operation is shaping._reshape or operation is shaping._reshape_like:
        one, other = (_inference.product(x.shape[1:]) for x in (first, node.outputs[0]))
        return one is not None and one == other
    return False


def _is_elementwise(operation, attrs):
    if hasattr(operation, "ufunc") or operation in (elementwise.cast, elementwise.where):
        return True
    return operation.infer in (_inference.floating, _inference.like_first) and "axis" not in attrs


def _broadcasts(x, kinds, rank):
    """Say whether an operand still fits when there are more rows."""
    if not hasattr(x, "shape"):
        return True
    if isinstance(x, Tensor) and kinds[id(x)] is ROWS:
        return len(x.shape) == rank
    return len(x.shape) < rank or x.shape[0] == 1


def _keeps_rows(key, rank):
    if not key or not (key[0] is Ellipsis or (isinstance(key[0], slice) and key[0] == slice(None))):
        return False
    return key[0] is not Ellipsis or sum(part is not None for part in key[1:]) < rank


def call_on_rows(node, kinds, args):
    """Repeat a node of kind `ROWS` on values with another number of rows."""
    operation, attrs = node.operation, node.attrs
    if operation is indexing._scatter_into:
        operation = _scatter_rows
    elif operation is indexing._scatter_pieces:
        operation = _scatter_row_pieces
    elif operation is _sum_to:
        operation = _sum_rows_to
    elif operation is shaping._reshape or operation is shaping._reshape_like:
        return _reshape_rows(args[0], shape=node.outputs[0].shape[1:])
    return operation(*args, **attrs)
