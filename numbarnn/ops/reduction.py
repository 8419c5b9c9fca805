"""Over axes: sums, means, extremes, counts."""

import operator

import numpy as np

from ..arrays import total
from ..operation import Op
from ..protocols import user_line
from ..symbolic import Spec
from ._inference import axes_of, like_first, one_axis, product, reduced
from .elementwise import abs, cast, divide, equal, exp, log, not_equal, power, sqrt, square, stop_gradient
from .indexing import take_along_axis
from .shaping import broadcast_like, flip, reshape

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "argsort", "average", "count_nonzero", "cumprod", "cumsum",
    "diff", "logsumexp", "max", "mean", "min", "moments", "norm", "prod", "sort", "std", "sum", "top_k", "var",
]  # fmt: skip


def _axis(axis):
    return tuple(axis) if isinstance(axis, list) else axis


def spread(d, x, axis, keepdims):
    """Repeat the gradient ``d`` of a reduction of ``x`` over the reduced axes."""
    if not keepdims and axis is not None:
        d = _restore(d, axes=axes_of(axis, x.ndim))
    return broadcast_like(d, x)


def _restored(shape, axes):
    lengths = iter(shape)
    return tuple(1 if i in axes else next(lengths) for i in range(len(shape) + len(axes)))


_restore = Op(
    "restore_axes",
    lambda d, *, axes: np.expand_dims(d, axes),
    lambda d, *, axes: Spec(_restored(d.shape, axes), d.dtype),
)


def _infer_sum(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), np.add.reduce(np.empty(0, x.dtype)).dtype)


def _compute_sum(x, *, axis, keepdims):
    if x.dtype == np.float16:
        return total(x, axis, keepdims, np.float32).astype(np.float16)
    return total(x, axis, keepdims)


_sum = Op("sum", _compute_sum, _infer_sum, lambda node, d: spread(d, node.inputs[0], **node.attrs))


def sum(x, axis=None, keepdims=False):
    """Sum over ``axis`` (int, tuple, or None for all)."""
    return _sum(x, axis=_axis(axis), keepdims=keepdims)


def _mean_gradient(node, d):
    x, axis = node.inputs[0], node.attrs["axis"]
    n = product(x.shape[i] for i in axes_of(axis, x.ndim))
    d = divide(d, n) if n is not None else divide(d, cast(_count(x, axis=axis), d.dtype))
    return spread(d, x, **node.attrs)


_count = Op(
    "count",
    lambda x, *, axis: np.int64(product(x.shape[i] for i in axes_of(axis, x.ndim))),
    lambda x, *, axis: Spec((), np.int64),
)


def _infer_mean(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), x.dtype if x.dtype.kind == "f" else np.float64)


_mean = Op("mean", np.mean, _infer_mean, _mean_gradient)


def mean(x, axis=None, keepdims=False):
    """Average over ``axis`` (int, tuple, or None for all)."""
    return _mean(x, axis=_axis(axis), keepdims=keepdims)


def _extreme_gradient(node, d):
    (x,), y = node.inputs, node.outputs[0]
    hit = cast(equal(x, spread(y, x, **node.attrs)), x.dtype)  # equal winners share the gradient
    return hit * spread(d / sum(hit, **node.attrs), x, **node.attrs)


def _infer_extreme(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), x.dtype)


_max = Op("max", np.max, _infer_extreme, _extreme_gradient)
_min = Op("min", np.min, _infer_extreme, _extreme_gradient)


def max(x, axis=None, keepdims=False):
    """Return the greatest element over ``axis``; equal ones share the gradient."""
    return _max(x, axis=_axis(axis), keepdims=keepdims)


def min(x, axis=None, keepdims=False):
    """Return the least element over ``axis``; equal ones share the gradient."""
    return _min(x, axis=_axis(axis), keepdims=keepdims)


def _prod_gradient(node, d):
    # The product of the others, without division, so that zeros are right: of those before times those after.
    x, attrs = node.inputs[0], node.attrs
    return spread(d, x, **attrs) * _others(x, axis=attrs["axis"])


def _product_of_others(x, *, axis):
    axes = axes_of(axis, x.ndim)
    rest = tuple(i for i in range(x.ndim) if i not in axes)
    moved = x.transpose(*rest, *axes)
    flat = moved.reshape(*(x.shape[i] for i in rest), -1)
    ones = np.ones_like(flat[..., :1])
    before = np.cumprod(np.concatenate([ones, flat[..., :-1]], -1), -1)
    after = np.cumprod(np.concatenate([ones, flat[..., :0:-1]], -1), -1)[..., ::-1]
    return (before * after).reshape(moved.shape).transpose(*np.argsort((*rest, *axes)).tolist())


_others = Op("product_of_others", _product_of_others, like_first)


def _infer_prod(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), np.multiply.reduce(np.empty(0, x.dtype)).dtype)


_prod = Op("prod", np.prod, _infer_prod, _prod_gradient)


def prod(x, axis=None, keepdims=False):
    """Multiply over ``axis`` (int, tuple, or None for all)."""
    return _prod(x, axis=_axis(axis), keepdims=keepdims)


def _infer_truth(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), bool)


_any = Op("any", np.any, _infer_truth)
_all = Op("all", np.all, _infer_truth)


def any(x, axis=None, keepdims=False):
    """Say whether any element over ``axis`` is true."""
    return _any(x, axis=_axis(axis), keepdims=keepdims)


def all(x, axis=None, keepdims=False):
    """Say whether all elements over ``axis`` are true."""
    return _all(x, axis=_axis(axis), keepdims=keepdims)


def _infer_argmax(x, *, axis, keepdims):
    return Spec(reduced(x.shape, axis, keepdims), np.intp)


_argmax = Op("argmax", np.argmax, _infer_argmax)
_argmin = Op("argmin", np.argmin, _infer_argmax)


def argmax(x, axis=None, keepdims=False):
    """Return where the greatest element along ``axis`` is (the first one; of the flattened array for None)."""
    return _argmax(x, axis=axis, keepdims=keepdims)


def argmin(x, axis=None, keepdims=False):
    """Return where the least element along ``axis`` is (the first one; of the flattened array for None)."""
    return _argmin(x, axis=axis, keepdims=keepdims)


def _infer_cumsum(x, *, axis):
    one_axis(axis, x.ndim)
    return Spec(x.shape, np.add.reduce(np.empty(0, x.dtype)).dtype)


_cumsum = Op(
    "cumsum",
    np.cumsum,
    _infer_cumsum,
    lambda node, d: flip(cumsum(flip(d, node.attrs["axis"]), node.attrs["axis"]), node.attrs["axis"]),
)


def cumsum(x, axis=None):
    """Running sum along ``axis`` (of the flattened array for None)."""
    return _cumsum(reshape(x, (-1,)), axis=0) if axis is None else _cumsum(x, axis=axis)


def _cumprod_back(d, x, *, axis):
    """The gradient of a running product, also where factors are zero."""
    d, x = np.moveaxis(d, axis, -1), np.moveaxis(x, axis, -1)
    found, before = np.empty_like(x), np.ones_like(x[..., :1])
    for i in range(x.shape[-1]):
        # products up to each later place, without the factor at place i
        without = np.cumprod(np.concatenate([before, x[..., i + 1 :]], -1), -1)
        found[..., i] = total(d[..., i:] * without, -1)
        before = before * x[..., i : i + 1]
    return np.moveaxis(found, -1, axis)


_cumprod_gradient = Op("cumprod_gradient", _cumprod_back, like_first)
_cumprod = Op(
    "cumprod", np.cumprod, _infer_cumsum, lambda node, d: _cumprod_gradient(d, node.inputs[0], axis=node.attrs["axis"])
)


def cumprod(x, axis=None):
    """Running product along ``axis`` (of the flattened array for None)."""
    return _cumprod(reshape(x, (-1,)), axis=0) if axis is None else _cumprod(x, axis=axis)


# -- order ---------------------------------------------------------------------------------------------------


_argsort = Op(
    "argsort",
    lambda x, *, axis: np.argsort(x, axis, kind="stable"),
    lambda x, *, axis: Spec(like_first(x).shape, np.intp),
)
_unsort = Op("unsort", lambda d, order, *, axis: np.take_along_axis(d, np.argsort(order, axis), axis), like_first)
_sort = Op(
    "sort",
    lambda x, *, axis: np.sort(x, axis, kind="stable"),
    like_first,
    lambda node, d: _unsort(d, _argsort(node.inputs[0], **node.attrs), **node.attrs),
)


def _along(x, axis):
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return (reshape(x, (-1,)), 0) if axis is None else (x, one_axis(axis, x.ndim))


def argsort(x, axis=-1):
    """Return the places of the elements in rising order along ``axis`` (of the flattened array for None).

    Equal ones stay in their order.
    """
    x, axis = _along(x, axis)
    return _argsort(x, axis=axis)


def sort(x, axis=-1):
    """Return the elements in rising order along ``axis`` (of the flattened array for None)."""
    x, axis = _along(x, axis)
    return _sort(x, axis=axis)


def top_k(x, k, sorted=True):
    """Return the ``k`` greatest elements along the last axis, the greatest first, and their places.

    They come in order also with ``sorted=False``. Of equal ones the first counts as greater.
    """
    x, axis = _along(x, -1)
    n = x.shape[axis]
    if n is None or not 0 < operator.index(k) <= n:
        raise ValueError(f"{user_line()}: top_k: k={k!r} for an axis of length {n}")
    places = flip(_argsort(flip(x, axis), axis=axis), axis)[..., : operator.index(k)]
    places = n - 1 - places  # of x, not of x reversed: among equals the first wins
    return take_along_axis(x, places, axis), places


# -- written in the others -----------------------------------------------------------------------------------


def var(x, axis=None, keepdims=False):
    """Biased variance over ``axis``."""
    return mean(square(x - mean(x, axis=axis, keepdims=True)), axis=axis, keepdims=keepdims)


def std(x, axis=None, keepdims=False):
    """Square root of the biased variance over ``axis``."""
    return sqrt(var(x, axis=axis, keepdims=keepdims))


def moments(x, axes, keepdims=False):
    """Return mean and biased variance over ``axes``."""
    return mean(x, axes, keepdims), var(x, axes, keepdims)


amax, amin = max, min


def average(x, axis=None, weights=None):
    """Return the mean over ``axis`` (int, tuple, or None for all), weighted if ``weights`` are given.

    The weights have the shape of ``x``, or are one-dimensional and belong to ``axis``.
    """
    if weights is None:
        return mean(x, axis=axis)
    x, weights = (v if hasattr(v, "dtype") else np.asarray(v) for v in (x, weights))
    if len(weights.shape) != len(x.shape):
        if len(weights.shape) != 1 or axis is None or isinstance(axis, (tuple, list)):
            raise ValueError(
                f"{user_line()}: average: weights of shape {weights.shape} for values of shape {x.shape}, axis {axis}"
            )
        weights = reshape(weights, [-1 if i == one_axis(axis, x.ndim) else 1 for i in range(x.ndim)])
    weights = broadcast_like(weights, x)
    return divide(sum(x * weights, axis=axis), sum(weights, axis=axis))


def count_nonzero(x, axis=None):
    """Count the elements that are not zero over ``axis`` (int, tuple, or None for all)."""
    return sum(cast(not_equal(x, 0), np.intp), axis=axis)


def diff(a, n=1, axis=-1):
    """Return the differences of neighbours along ``axis``, taken ``n`` times."""
    a, axis = _along(a, axis)
    lead = (slice(None),) * axis
    for _ in range(operator.index(n)):
        a = a[(*lead, slice(1, None))] - a[(*lead, slice(None, -1))]
    return a


def norm(x, ord=None, axis=None, keepdims=False):
    """Return the norm of vectors along ``axis``, by default the Euclidean one of all elements.

    Parameters
    ----------
    x : array or Tensor
    ord : {None, "euclidean", "fro", 1, 2, inf, -inf} or float
        Of matrices (two axes) None and "fro" alone; else the ``ord``-th root of the sum of powers.
    axis : int, tuple or None
    keepdims : bool
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    x = x if x.dtype.kind == "f" else cast(x, np.float64)
    flat = ord in (None, "euclidean", "fro")
    axes = axes_of(axis, x.ndim)
    if not flat and len(axes) != 1:
        raise ValueError(f"{user_line()}: norm: ord={ord!r} is for vectors, along one axis; got axis={axis}")
    if flat or ord == 2:
        return sqrt(sum(square(x), axis=axes, keepdims=keepdims))
    if ord in (np.inf, -np.inf):
        return (max if ord > 0 else min)(abs(x), axis=axes, keepdims=keepdims)
    if ord == 1:
        return sum(abs(x), axis=axes, keepdims=keepdims)
    return power(sum(power(abs(x), ord), axis=axes, keepdims=keepdims), 1 / ord)


def logsumexp(x, axis=None, keepdims=False):
    """Return ``log(sum(exp(x)))`` over ``axis`` without overflow."""
    top = stop_gradient(max(x, axis=axis, keepdims=True))
    result = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return result if keepdims else sum(result, axis=axis)
