"""Shapes and dtypes of results that do not exist yet."""

import operator

import numpy as np

from ..protocols import user_line
from ..symbolic import Spec


def has_kernels(x, *others):
    """Say whether our kernels take these arrays: NumPy's own, of native float32 or float64, all the same."""
    if type(x) is not np.ndarray or x.dtype.char not in "fd" or not x.dtype.isnative:
        return False
    for other in others:  # asked at each step of a loop
        if type(other) is not np.ndarray or other.dtype is not x.dtype and other.dtype != x.dtype:
            return False
    return True


def promote(*specs):
    """Return the dtype of an operation on values of these Specs; Python numbers give way, as in NumPy 2."""
    return np.result_type(*(spec.dtype if spec.weak is None else spec.weak for spec in specs if spec is not None))


def inexact(dtype):
    """Return the floating point dtype that NumPy's exp gives for a dtype."""
    return np.exp.resolve_dtypes((np.dtype(dtype), None))[-1]


def broadcast(*shapes):
    """Return the shape that shapes broadcast to; None is an axis of unknown length."""
    rank = max(map(len, shapes), default=0)
    result = []
    for lengths in zip(*[(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes], strict=True):
        known = {n for n in lengths if n is not None and n != 1}
        if len(known) > 1:
            raise ValueError(f"{user_line()}: shapes {', '.join(map(str, shapes))} do not broadcast together")
        result.append(known.pop() if known else None if None in lengths else 1)
    return tuple(result)


def axes_of(axis, ndim):
    """Return axes as a sorted tuple of non-negative ints; all for None."""
    if axis is None:
        return tuple(range(ndim))
    return tuple(sorted(one_axis(a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))))


def one_axis(axis, ndim):
    """Return an axis as a non-negative int."""
    index = operator.index(axis)
    if not -ndim <= index < ndim:
        raise ValueError(f"{user_line()}: axis {axis} is out of range for {ndim} axes")
    return index % ndim


def product(lengths):
    """Multiply lengths; None if one is unknown."""
    result = 1
    for n in lengths:
        if n is None:
            return None
        result *= n
    return result


def reduced(shape, axis, keepdims):
    """Return the shape after a reduction over ``axis``."""
    axes = axes_of(axis, len(shape))
    return tuple(1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes)


def like_first(x, *others, **attrs):
    """Infer: the first input's shape and dtype."""
    return Spec(x.shape, x.dtype)


def floating(x, *others, **attrs):
    """Infer: the first input's shape, as floating point."""
    return Spec(x.shape, inexact(x.dtype))


def ufunc_spec(ufunc):
    """Return an infer function with the broadcasting and the type resolution of a NumPy ufunc."""

    def infer(*specs):
        kinds = [spec.dtype if spec.weak is None else type(spec.weak) for spec in specs]
        if all(isinstance(kind, type) for kind in kinds):
            kinds = [spec.dtype for spec in specs]
        kinds = [np.dtype(bool) if kind is bool else kind for kind in kinds]
        return Spec(broadcast(*(spec.shape for spec in specs)), ufunc.resolve_dtypes((*kinds, None))[-1])

    return infer
