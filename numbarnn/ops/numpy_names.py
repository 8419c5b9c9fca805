"""The NumPy functions that work on symbols and variables, and the operations that they stand for."""

import functools
import inspect

import numpy as np

from .. import protocols
from . import elementwise, indexing, linalg, reduction, shaping

# NumPy's function: the operation, and which of its parameters each of NumPy's is ("theirs=ours" where the names
# differ). NumPy's other parameters must be left at their defaults; dtype= is what is computed in.
_TABLE = {
    np.sum: (reduction.sum, "a=x axis keepdims"),
    np.mean: (reduction.mean, "a=x axis keepdims"),
    np.prod: (reduction.prod, "a=x axis keepdims"),
    np.max: (reduction.max, "a=x axis keepdims"),
    np.min: (reduction.min, "a=x axis keepdims"),
    np.amax: (reduction.max, "a=x axis keepdims"),
    np.amin: (reduction.min, "a=x axis keepdims"),
    np.any: (reduction.any, "a=x axis keepdims"),
    np.all: (reduction.all, "a=x axis keepdims"),
    np.var: (reduction.var, "a=x axis keepdims"),
    np.std: (reduction.std, "a=x axis keepdims"),
    np.argmax: (reduction.argmax, "a=x axis keepdims"),
    np.argmin: (reduction.argmin, "a=x axis keepdims"),
    np.cumsum: (reduction.cumsum, "a=x axis"),
    np.cumprod: (reduction.cumprod, "a=x axis"),
    np.sort: (reduction.sort, "a=x axis"),
    np.argsort: (reduction.argsort, "a=x axis"),
    np.diff: (reduction.diff, "a n axis"),
    np.average: (reduction.average, "a=x axis weights"),
    np.count_nonzero: (reduction.count_nonzero, "a=x axis"),
    np.linalg.norm: (reduction.norm, "x ord axis keepdims"),
    np.round: (elementwise.round, "a=x decimals"),
    np.nan_to_num: (elementwise.nan_to_num, "x nan posinf neginf"),
    np.isclose: (elementwise.isclose, "a=x1 b=x2 rtol atol equal_nan"),
    np.transpose: (shaping.transpose, "a=x axes"),
    np.reshape: (shaping.reshape, "a=x shape=newshape newshape"),  # "newshape" before NumPy 2.1
    np.ravel: (shaping.ravel, "a=x"),
    np.expand_dims: (shaping.expand_dims, "a=x axis"),
    np.squeeze: (shaping.squeeze, "a=x axis"),
    np.swapaxes: (shaping.swapaxes, "a=x axis1 axis2"),
    np.moveaxis: (shaping.moveaxis, "a=x source destination"),
    np.broadcast_to: (shaping.broadcast_to, "array=x shape"),
    np.flip: (shaping.flip, "m=x axis"),
    np.roll: (shaping.roll, "a=x shift axis"),
    np.split: (shaping.split, "ary=x indices_or_sections axis"),
    np.stack: (shaping.stack, "arrays=x axis"),
    np.repeat: (shaping.repeat, "a=x repeats axis"),
    np.tril: (shaping.tril, "m=x k"),
    np.triu: (shaping.triu, "m=x k"),
    np.diagonal: (shaping.diagonal, "a=x offset axis1 axis2"),
    np.diag: (shaping.diag, "v=x k"),
    np.tile: (shaping.tile, "A=x reps=repeats"),
    np.shape: (shaping.shape, "a=x"),
    np.take: (indexing.take, "a=x indices axis"),
    np.take_along_axis: (indexing.take_along_axis, "arr=x indices axis"),
    np.zeros_like: (indexing.zeros_like, "a=x dtype"),
    np.ones_like: (indexing.ones_like, "a=x dtype"),
    np.full_like: (indexing.full_like, "a=x fill_value dtype"),
    np.tensordot: (linalg.tensordot, "a=x1 b=x2 axes"),
    np.outer: (linalg.outer, "a=x1 b=x2"),
    np.trace: (linalg.trace, "a=x offset axis1 axis2"),
}


def _spelled(function, operation, parameters):
    """Return ``operation`` with the signature of a NumPy function."""
    ours = dict(pair.split("=") if "=" in pair else (pair, pair) for pair in parameters.split())

    @functools.wraps(operation)
    def spelled(*args, **kwargs):
        signature = inspect.signature(function)
        given = signature.bind(*args, **kwargs).arguments
        dtype = given.pop("dtype", None) if "dtype" not in ours else None
        for name, value in given.items():
            if name not in ours and value is not signature.parameters[name].default:
                raise TypeError(
                    f"{protocols.user_line()}: np.{function.__name__} with {name}= has no entry in numbarnn.ops"
                )
        options = {ours[name]: value for name, value in given.items() if name in ours}
        if dtype is None:
            return operation(**options)
        if "x" in options:
            options["x"] = elementwise.cast(options["x"], dtype)  # what is accumulated, not only what comes out
        return elementwise.cast(operation(**options), dtype)

    return spelled


# Those whose signature older NumPys do not tell, or that differ by more than names.


def _concatenate(arrays, axis=0):
    if axis is None:
        return shaping.concatenate([shaping.ravel(x) for x in arrays], 0)
    return shaping.concatenate(arrays, axis)


def _where(condition, *choices):
    if len(choices) != 2:
        raise TypeError(
            f"{protocols.user_line()}: np.where(condition) alone has a result of unknown length; give both choices"
        )
    return elementwise.where(condition, *choices)


def _clip(a, a_min=None, a_max=None, *, min=None, max=None):
    return elementwise.clip(a, a_min if min is None else min, a_max if max is None else max)


def _pad(array, pad_width, mode="constant", *, constant_values=0):
    return shaping.pad(array, pad_width, mode, constant_values)


def _einsum(subscripts, *operands, optimize=False):
    return linalg.einsum(subscripts, *operands)


def _size(a, axis=None):
    return shaping.size(a) if axis is None else shaping.shape(a)[axis]


_OTHERS = {
    np.concatenate: _concatenate,
    np.where: _where,
    np.dot: linalg.dot,
    np.inner: linalg.inner,
    np.vdot: linalg.vdot,
    np.clip: _clip,
    np.pad: _pad,
    np.einsum: _einsum,
    np.vstack: shaping.vstack,
    np.hstack: shaping.hstack,
    np.size: _size,
    np.ndim: shaping.ndim,
    np.copy: lambda a: elementwise.same(a),
    np.result_type: lambda *xs: np.result_type(*(x.dtype if isinstance(x, protocols.ArrayLike) else x for x in xs)),
}


def install(operations):
    """Fill the tables that operators, methods and NumPy's protocols look into, from a dict of the public operations."""
    protocols.OPERATIONS.update(operations)
    protocols.OPERATIONS.update(assign=elementwise.assign, zeros=indexing.fresh_zeros, add_pieces=indexing.add_pieces)
    protocols.UFUNCS.update({op.ufunc: op for op in vars(elementwise).values() if hasattr(op, "ufunc")})
    protocols.UFUNCS[np.matmul] = linalg.matmul
    protocols.FUNCTIONS.update(_OTHERS)
    protocols.FUNCTIONS.update({function: _spelled(function, *row) for function, row in _TABLE.items()})
