"""Elements by place: basic and advanced indexing, `take`, `one_hot`, and what scatters their gradients back."""

import math
import operator

import numpy as np

from .. import arrays
from ..arrays import array_module
from ..kernels import rows_cuda
from ..operation import Op
from ..protocols import OPERATIONS, ArrayLike, user_line
from ..symbolic import Spec
from ..variable import default_float
from ._inference import broadcast, one_axis

__all__ = [
    "arange", "eye", "full", "full_like", "getitem", "identity", "linspace", "one_hot", "ones", "ones_like",
    "slice_update", "take", "take_along_axis", "zeros", "zeros_like",
]  # fmt: skip


class _Place:
    """In a key: here comes the next index array."""

    def __repr__(self):
        return "[]"

    def __reduce__(self):
        return "_PLACE"


_PLACE = _Place()


def whole_key(key, indices):
    """Return the key with its index arrays."""
    if not indices:
        return key
    given = iter(indices)
    return tuple(next(given) if part is _PLACE else part for part in key)


def _infer_getitem(x, *indices, key):
    consumed = sum((spec.ndim if spec.dtype == bool else 1) for spec in indices) + sum(
        isinstance(part, (int, slice)) for part in key
    )
    if consumed > x.ndim:
        raise IndexError(f"{user_line()}: {consumed} indices for {x.ndim} axes")
    if Ellipsis not in key:
        key = (*key, Ellipsis)
    result, lengths, given = [], iter(x.shape), iter(indices)
    advanced, first, apart, gap = [], None, False, False
    for part in key:
        if part is Ellipsis:
            kept = [next(lengths) for _ in range(x.ndim - consumed)]
            result += kept
        elif part is None:
            result.append(1)
        elif isinstance(part, slice):
            n = next(lengths)
            result.append(_sliced(n, part))
        elif part is _PLACE:
            spec = next(given)
            if spec.dtype == bool:
                for _ in range(spec.ndim):
                    next(lengths)
                advanced.append((None,))
            else:
                next(lengths)
                advanced.append(spec.shape)
            apart, first = apart or gap, len(result) if first is None else first
            gap = False
            continue
        else:
            n = next(lengths)
            if n is not None and not -n <= part < n:
                raise IndexError(
                    f"{user_line()}: index {part} is out of range for an axis of length {n} (shape {x.shape})"
                )
            if indices:  # next to index arrays an integer is one, too
                advanced.append(())
                apart, first = apart or gap, len(result) if first is None else first
                gap = False
            continue
        gap = gap or first is not None
    if advanced:
        at = 0 if apart else first
        result[at:at] = broadcast(*advanced)
    return Spec(result, x.dtype)


def _sliced(n, part):
    if n is not None:
        return len(range(*part.indices(n)))
    if part == slice(None) or part == slice(None, None, -1):
        return None
    if part.start in (0, None) and part.stop is not None and part.stop == 0:
        return 0
    return None


def _scatter(d, indices, key, shape):
    if indices:
        return _add_at(d, whole_key(key, indices), shape)
    result = array_module(d).zeros(shape, d.dtype)
    result[key] = d
    return result


def _add_at(d, key, shape):
    """Return zeros of a shape to which `d` is added at the places of a key, which may name a place twice."""
    module = array_module(d)
    if module is np:
        result = np.zeros(shape, d.dtype)
        np.add.at(result, key, d)
        return result
    size = math.prod(shape)
    places = module.broadcast_to(module.arange(size).reshape(shape)[key], d.shape).reshape(-1)
    return rows_cuda.scatter_add(places, arrays.contiguous(d).reshape(-1, 1), size).reshape(shape)


_scatter_into = Op(
    "scatter",
    lambda d, *indices, key, shape: _scatter(d, indices, key, shape),
    lambda d, *indices, key, shape: Spec(shape, d.dtype),
    lambda node, d: (_getitem(d, *node.inputs[1:], key=node.attrs["key"]), *[None] * (len(node.inputs) - 1)),
)


def _scatter_all(*ds, keys, shape):
    result = array_module(*ds).zeros(shape, ds[0].dtype)
    for d, key in zip(ds, keys, strict=True):
        result[key] += d
    return result


def _side_by_side(keys, shape):
    """Return the axis along which slices lie one behind the other and fill an array of `shape`, and their order.

    (None, None) where they do not.
    """
    cut = {i for key in keys for i, part in enumerate(key) if part != slice(None)}
    if len(cut) != 1 or not all(type(part) is slice and part.step is None for key in keys for part in key):
        return None, None
    axis = cut.pop()
    if any(len(key) <= axis for key in keys) or axis >= len(shape) or shape[axis] is None:
        return None, None
    bounds = [key[axis].indices(shape[axis])[:2] for key in keys]
    order = sorted(range(len(keys)), key=bounds.__getitem__)
    ends = [0, *(bounds[i][1] for i in order)]
    fills = [bounds[i][0] for i in order] == ends[:-1] and ends[-1] == shape[axis]
    return (axis, order) if fills else (None, None)


# The sum of several, as the gradient of what was cut into pieces is: one array instead of one for each piece.
_scatter_pieces = Op(
    "scatter_pieces",
    _scatter_all,
    lambda *ds, keys, shape: Spec(shape, ds[0].dtype),
    lambda node, d: [_getitem(d, key=key) for key in node.attrs["keys"]],
)


def add_pieces(a, b):
    """Return the sum of two gradients in one operation where both are pieces of one array, else None."""
    pieces = []
    for x in (a, b):
        node = getattr(x, "node", None)
        if node is None or node.operation not in (_scatter_into, _scatter_pieces):
            return None
        if node.operation is _scatter_into and len(node.inputs) > 1:
            return None  # index arrays may name an element twice
        keys = node.attrs["keys"] if node.operation is _scatter_pieces else (node.attrs["key"],)
        pieces.append((node, keys))
    (one, keys), (other, more) = pieces
    if one.attrs["shape"] != other.attrs["shape"] or a.dtype != b.dtype:
        return None
    inputs, keys, shape = (*one.inputs, *other.inputs), (*keys, *more), one.attrs["shape"]
    axis, order = _side_by_side(keys, shape)
    if order is not None:  # what `split` has cut is put together again without zeros and sums
        return OPERATIONS["concatenate"]([inputs[i] for i in order], axis)
    return _scatter_pieces(*inputs, keys=keys, shape=shape)


_scatter_like = Op(
    "scatter_like",
    lambda d, x, *indices, key: _scatter(d, indices, key, x.shape),
    lambda d, x, *indices, key: Spec(x.shape, d.dtype),
)


def _getitem_gradient(node, d):
    x, *indices = node.inputs
    key = node.attrs["key"]
    none = [None] * len(indices)
    if None in x.shape:
        return _scatter_like(d, x, *indices, key=key), *none
    return _scatter_into(d, *indices, key=key, shape=x.shape), *none


def _get(x, *indices, key):
    if indices and array_module(x) is not np:
        _refuse_outside(x.shape, key, indices)
    return x[whole_key(key, indices)]


def _refuse_outside(shape, key, indices):
    """Raise IndexError where NumPy does: on the GPU, an index outside of its axis silently names another element."""
    given, axis = iter(indices), 0
    behind = len(shape) - sum(spec.ndim if spec.dtype == bool else 1 for spec in indices)
    for part in key:
        if part is Ellipsis:
            axis += behind - sum(isinstance(other, (int, slice)) for other in key)
        elif part is _PLACE:
            index = next(given)
            if index.dtype != bool:
                _refuse_places(index, shape[axis], axis)
            axis += index.ndim if index.dtype == bool else 1
        elif part is not None:
            axis += 1


def _refuse_places(places, n, axis):
    if places.size and not (-n <= (low := int(places.min())) and (high := int(places.max())) < n):
        raise IndexError(f"index {low if low < -n else high} is out of bounds for axis {axis} with size {n}")


_getitem = Op("getitem", _get, _infer_getitem, _getitem_gradient)


def getitem(x, key):
    """Return ``x[key]`` with NumPy's meaning: integers, slices, ``...``, None, integer arrays and boolean masks."""
    template, indices = [], []
    for part in key if isinstance(key, tuple) else (key,):
        if part is None or part is Ellipsis:
            template.append(part)
        elif isinstance(part, slice):
            template.append(
                slice(*(bound if bound is None else _index(bound) for bound in (part.start, part.stop, part.step)))
            )
        elif isinstance(part, (bool, np.bool_, list)) or getattr(part, "ndim", 0) or isinstance(part, ArrayLike):
            part = part if hasattr(part, "dtype") else np.asarray(part)
            if part.dtype.kind not in "biu":
                raise IndexError(f"{user_line()}: an index array holds integers or booleans, got {part.dtype}")
            template.append(_PLACE)
            indices.append(part)
        else:
            template.append(_index(part))
    return _getitem(x, *indices, key=tuple(template))


def _index(part):
    try:
        return part.__index__()
    except AttributeError:
        raise IndexError(
            f"{user_line()}: an index is an integer, a slice, ..., None or an integer or boolean array, got {part!r}"
        ) from None


def take(x, indices, axis=None):
    """Return the elements at ``indices`` along ``axis`` (of the flattened array for None).

    Negative indices count from the end.
    """
    if axis is None:
        from .shaping import reshape

        x, axis = reshape(x, (-1,)), 0
    x = x if hasattr(x, "dtype") else np.asarray(x)
    axis = one_axis(axis, x.ndim)
    indices = indices if hasattr(indices, "dtype") else np.asarray(indices)
    return getitem(x, (slice(None),) * axis + (indices,))


def _along_places(shape, indices, axis):
    arange = array_module(indices).arange
    places = [arange(n).reshape([-1 if i == j else 1 for j in range(len(shape))]) for i, n in enumerate(shape)]
    places[axis] = indices
    return tuple(places)


def _put_along(d, x, indices, *, axis):
    return _add_at(d, _along_places(x.shape, indices, axis), x.shape)


def _take_along(x, indices, *, axis):
    if array_module(x) is not np:
        _refuse_places(indices, x.shape[axis], axis)
    return np.take_along_axis(x, indices, axis)


_put_along_axis = Op("put_along_axis", _put_along, lambda d, x, indices, *, axis: Spec(x.shape, d.dtype))
_take_along_axis = Op(
    "take_along_axis",
    _take_along,
    lambda x, indices, *, axis: Spec(
        broadcast(indices.shape, [1 if i == axis else n for i, n in enumerate(x.shape)]), x.dtype
    ),
    lambda node, d: (_put_along_axis(d, *node.inputs, axis=node.attrs["axis"]), None),
)


def take_along_axis(x, indices, axis=-1):
    """Return ``x`` at ``indices``, which give one place along ``axis`` for every place along the others."""
    x, indices = (v if hasattr(v, "dtype") else np.asarray(v) for v in (x, indices))
    if indices.ndim != x.ndim:
        raise ValueError(f"{user_line()}: take_along_axis: indices of shape {indices.shape} for shape {x.shape}")
    return _take_along_axis(x, indices, axis=one_axis(axis, x.ndim))


def _sliced_key(shape, start_indices, lengths):
    starts = [operator.index(i) for i in start_indices]
    if len(starts) != len(shape) or len(lengths) != len(shape):
        raise ValueError(f"{user_line()}: slice: {len(starts)} starts and {len(lengths)} lengths for shape {shape}")
    for start, length, n in zip(starts, lengths, shape, strict=True):
        if start < 0 or (length is not None and n is not None and start + length > n):
            raise IndexError(f"{user_line()}: slice: {length} elements from {start} of an axis of length {n}")
    return tuple(
        slice(start, None if length is None else start + length) for start, length in zip(starts, lengths, strict=True)
    )


def _update(x, updates, *, key):
    result = np.copy(x)
    result[key] = updates
    return result


_slice_update = Op(
    "slice_update",
    _update,
    lambda x, updates, *, key: Spec(x.shape, x.dtype),
    lambda node, d: (_slice_update(d, np.zeros((), Spec.of(d).dtype), **node.attrs), getitem(d, node.attrs["key"])),
)


def slice_update(inputs, start_indices, updates):
    """Return ``inputs`` with ``updates`` in the block that starts at the place ``start_indices``; they stay unchanged.

    What stands for ``x[1:3, 2:5] = updates`` in a function that is traced.
    """
    x, updates = (v if hasattr(v, "dtype") else np.asarray(v) for v in (inputs, updates))
    if x.dtype != updates.dtype:
        updates = OPERATIONS["cast"](updates, x.dtype)
    return _slice_update(x, updates, key=_sliced_key(x.shape, start_indices, updates.shape))


def _one_hot_compute(x, *, num_classes, axis, dtype):
    module = array_module(x)
    hot = (np.expand_dims(x, -1) == module.arange(num_classes)).astype(dtype)
    return hot if axis == -1 else np.moveaxis(hot, -1, axis)


def _infer_one_hot(x, *, num_classes, axis, dtype):
    lengths = list(x.shape)
    lengths.insert(one_axis(axis, x.ndim + 1), num_classes)
    return Spec(lengths, dtype)


_one_hot = Op("one_hot", _one_hot_compute, _infer_one_hot)


def one_hot(x, num_classes, axis=-1, dtype=None):
    """Return 1 where the new axis ``axis`` of length ``num_classes`` equals the integer, else 0.

    An integer out of range gives a row of zeros.
    """
    x = x if hasattr(x, "dtype") else np.asarray(x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{user_line()}: one_hot takes integers, got {x.dtype}")
    return _one_hot(x, num_classes=int(num_classes), axis=axis, dtype=np.dtype(dtype or default_float()))


# -- made from nothing ---------------------------------------------------------------------------------------


def _filled(name, module_name):
    return Op(
        name,
        lambda x, *, dtype: getattr(array_module(x), module_name)(x.shape, dtype or x.dtype),
        lambda x, *, dtype: Spec(x.shape, dtype or x.dtype),
    )


_zeros_like, _ones_like = _filled("zeros_like", "zeros"), _filled("ones_like", "ones")
# An effect, so that every replay makes new ones: whoever gets them may write to them.
_fresh_zeros = Op(
    "zeros", lambda *, shape, dtype: arrays.zeros(shape, dtype), lambda *, shape, dtype: Spec(shape, dtype), effect=True
)


def fresh_zeros(shape, dtype):
    """Return zeros, made anew at every replay."""
    return _fresh_zeros(shape=shape, dtype=dtype)


def zeros_like(x, dtype=None):
    """Return zeros of the shape and dtype of ``x``."""
    return _zeros_like(x, dtype=dtype and np.dtype(dtype))


def ones_like(x, dtype=None):
    """Return ones of the shape and dtype of ``x``."""
    return _ones_like(x, dtype=dtype and np.dtype(dtype))


def full_like(x, fill_value, dtype=None):
    """Return an array of the shape and dtype of ``x`` filled with a value."""
    return zeros_like(x, dtype) + fill_value


def zeros(shape, dtype=None):
    """Return zeros (an ndarray) of a shape."""
    return np.zeros(shape, dtype or default_float())


def ones(shape, dtype=None):
    """Return ones (an ndarray) of a shape."""
    return np.ones(shape, dtype or default_float())


def full(shape, fill_value, dtype=None):
    """Return an array of a shape filled with a number."""
    return np.full(shape, fill_value, dtype or default_float())


def arange(start, stop=None, step=1, dtype=None):
    """Return numbers from ``start`` up to ``stop``, as ``np.arange``; Python floats give `default_float`."""
    result = np.arange(start, stop, step) if stop is not None else np.arange(0, start, step)
    return result.astype(dtype or (default_float() if result.dtype.kind == "f" else np.int32))


def linspace(start, stop, num=50, endpoint=True, dtype=None):
    """Return ``num`` numbers at equal distances from ``start`` to ``stop``, as ``np.linspace``."""
    return np.linspace(start, stop, num, endpoint=endpoint, dtype=dtype or default_float())


def eye(N, M=None, k=0, dtype=None):  # noqa: N803 - Keras's names
    """Return N rows and M columns with ones on the ``k``-th diagonal."""
    return np.eye(N, M, k, dtype=dtype or default_float())


def identity(n, dtype=None):
    """Return the identity matrix of n rows."""
    return eye(n, dtype=dtype)
