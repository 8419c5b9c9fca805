"""The names from TensorFlow that scripts about Keras's recurrent layers use, on numbarnn.

For running such a script after changing its import lines alone::

    import numbarnn as keras
    from numbarnn import layers
    from numbarnn import tf_names as tf

In new code, `numbarnn.ops`, `numbarnn.tree` and `numbarnn` have all of it and more. Arrays are ndarrays: a ``.numpy()``
on one goes.
"""

import sys
from types import SimpleNamespace

import numpy as np

from . import ops, tree
from .devices import device
from .tensor_shape import TensorShape

__all__ = ["TensorShape", "argmax", "device", "einsum", "expand_dims", "keras", "matmul", "nest"]

keras = sys.modules[__package__]


def matmul(a, b, transpose_a=False, transpose_b=False, name=None):
    """As `numbarnn.ops.matmul`, of the operands with their last two axes exchanged if so asked.

    Parameters
    ----------
    a, b : array, Variable or Tensor
    transpose_a, transpose_b : bool
    name : str, optional
        Accepted for TensorFlow's sake.

    Returns
    -------
    array or Tensor
    """
    return ops.matmul(ops.swapaxes(a, -1, -2) if transpose_a else a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def einsum(equation, *inputs, **kwargs):
    """As `numbarnn.ops.einsum`.

    Parameters
    ----------
    equation : str
    *inputs : array, Variable or Tensor
    **kwargs
        ``name`` and ``optimize`` are accepted for TensorFlow's sake.

    Returns
    -------
    array or Tensor
    """
    unknown = set(kwargs) - {"name", "optimize"}
    if unknown:
        raise TypeError(f"einsum() got unexpected keyword arguments: {sorted(unknown)}")
    return ops.einsum(equation, *inputs)


def argmax(input, axis=None, output_type=np.int64, name=None):
    """As `numbarnn.ops.argmax`, but along the first axis by default.

    Parameters
    ----------
    input : array, Variable or Tensor
    axis : int, optional
        0 by default.
    output_type : dtype
    name : str, optional
        Accepted for TensorFlow's sake.

    Returns
    -------
    array or Tensor
    """
    return ops.cast(ops.argmax(input, axis=0 if axis is None else axis), output_type)


def expand_dims(input, axis, name=None):
    """As `numbarnn.ops.expand_dims`.

    Parameters
    ----------
    input : array, Variable or Tensor
    axis : int
    name : str, optional
        Accepted for TensorFlow's sake.

    Returns
    -------
    array or Tensor
    """
    return ops.expand_dims(input, axis)


def _flatten(structure, expand_composites=False):
    """Return the leaves of a nest as a list."""
    return tree.leaves(structure)


def _map_structure(func, *structure, expand_composites=False):
    """Call a function on the corresponding leaves of nests."""
    return tree.map_structure(func, *structure)


def _pack_sequence_as(structure, flat_sequence, expand_composites=False):
    """Return a flat list of leaves as a nest."""
    return tree.unflatten(tree.structure(structure), list(flat_sequence))


nest = SimpleNamespace(
    flatten=_flatten, map_structure=_map_structure, pack_sequence_as=_pack_sequence_as, is_nested=tree.is_nested
)


# What scripts ask TensorFlow for, and what does it here.
_INSTEAD = {
    "GradientTape": "numbarnn.value_and_grad",
    "Variable": "numbarnn.Variable",
    "concat": "numbarnn.ops.concatenate",
    "constant": "numbarnn.ops.convert_to_tensor",
    "function": "nothing: functions are traced where that is of use",
    "gather": "numbarnn.ops.take",
    "reduce_max": "numbarnn.ops.max",
    "reduce_mean": "numbarnn.ops.mean",
    "reduce_min": "numbarnn.ops.min",
    "reduce_sum": "numbarnn.ops.sum",
}


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    where = _INSTEAD.get(name) or next(
        (f"numbarnn.{room}.{name}" for room in ("ops", "random", "tree") if hasattr(getattr(keras, room), name)), None
    )
    instead = f"use {where}" if where else "see numbarnn.ops, numbarnn.random and numbarnn.tree"
    raise AttributeError(f"numbarnn.tf_names has {', '.join(__all__)}, but no {name!r}: {instead}")
