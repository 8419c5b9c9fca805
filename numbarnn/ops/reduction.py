"""Over axes: sums, means, extremes, counts."""

import numpy as np

from ..operation import Op
from ..symbolic import Spec
from ._inference import axes_of, like_first, one_axis, product, reduced
from .elementwise import cast, divide, equal, exp, log, sqrt, square, stop_gradient
from .shaping import broadcast_like, flip, reshape

__all__ = [
    "all", "any", "argmax", "argmin", "cumsum", "logsumexp", "max", "mean", "min", "moments", "prod", "std", "sum",
    "var",
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
        return np.add.reduce(x, axis=axis, keepdims=keepdims, dtype=np.float32).astype(np.float16)
    return np.add.reduce(x, axis=axis, keepdims=keepdims)


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
    lambda x, *, axis: np.asarray(product(x.shape[i] for i in axes_of(axis, x.ndim))),
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
    return (before * after).reshape(moved.shape).transpose(np.argsort((*rest, *axes)))


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


def logsumexp(x, axis=None, keepdims=False):
    """Return ``log(sum(exp(x)))`` over ``axis`` without overflow."""
    top = stop_gradient(max(x, axis=axis, keepdims=True))
    result = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return result if keepdims else sum(result, axis=axis)
