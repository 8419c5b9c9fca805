"""Where elements lie: reshaping, joining, cutting, indexing."""

import operator

import numpy as np

from ..operation import Op
from ..protocols import user_line
from ..symbolic import Spec, Tensor
from ._inference import axes_of, broadcast, like_first, one_axis, product, promote
from .elementwise import cast, unbroadcast, where
from .indexing import getitem

__all__ = [
    "broadcast_like", "broadcast_to", "concatenate", "diag", "diagonal", "expand_dims", "flip", "hstack", "moveaxis",
    "ndim", "pad", "ravel", "repeat", "reshape", "roll", "shape", "size", "split", "squeeze", "stack", "swapaxes",
    "tile", "transpose", "tril", "triu", "unstack", "vstack",
]  # fmt: skip


def shape(x):
    """Return the shape as a tuple; None is an axis of unknown length."""
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def size(x):
    """Return the number of elements as an int; None where an axis has no known length."""
    return product(shape(x))


def ndim(x):
    """Return the number of axes."""
    return len(shape(x))


def _lengths(shape):
    return tuple(
        n if n is None else operator.index(n)
        for n in (shape if isinstance(shape, (tuple, list, np.ndarray)) else (shape,))
    )


# -- shape ---------------------------------------------------------------------------------------------------


def _infer_reshape(x, *, shape):
    count, others = product(x.shape), product(n for n in shape if n != -1)
    if shape.count(-1) > 1:
        raise ValueError(f"{user_line()}: reshape to {shape}: only one length may be -1")
    if -1 in shape:
        if count is not None and (others == 0 or count % others):
            raise ValueError(f"{user_line()}: {x.shape} cannot be reshaped to {shape}")
        found = None if count is None else count // others
        return Spec([found if n == -1 else n for n in shape], x.dtype)
    if count is not None and count != others:
        raise ValueError(f"{user_line()}: {x.shape} cannot be reshaped to {shape}")
    return Spec(shape, x.dtype)


_reshape = Op(
    "reshape", lambda x, *, shape: x.reshape(shape), _infer_reshape, lambda node, d: reshape_like(d, node.inputs[0])
)
_reshape_like = Op("reshape_like", lambda x, like: x.reshape(like.shape), lambda x, like: Spec(like.shape, x.dtype))


def reshape(x, newshape):
    """Return the elements in another shape; one length may be -1, or None where the batch size is not known yet."""
    lengths = _lengths(newshape)
    if lengths.count(None) + lengths.count(-1) > 1:
        raise ValueError(f"{user_line()}: reshape to {lengths}: at most one length may be unknown")
    return _reshape(x if hasattr(x, "shape") else np.asarray(x), shape=tuple(-1 if n is None else n for n in lengths))


def ravel(x):
    """Return the elements along one axis."""
    return reshape(x, (-1,))


def reshape_like(x, like):
    """Return ``x`` in the shape of ``like``."""
    if like.shape.count(None) <= 1:
        return _reshape(x, shape=tuple(-1 if n is None else n for n in like.shape))
    return _reshape_like(x, like)


def _infer_transpose(x, *, axes):
    order = tuple(reversed(range(x.ndim))) if axes is None else tuple(one_axis(a, x.ndim) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ValueError(f"{user_line()}: transpose: axes {axes} are no permutation of the {x.ndim} axes")
    return Spec([x.shape[a] for a in order], x.dtype)


def _transpose_gradient(node, d):
    axes = node.attrs["axes"]
    return transpose(d, None if axes is None else tuple(np.argsort([a % d.ndim for a in axes]).tolist()))


_transpose = Op("transpose", lambda x, *, axes: np.transpose(x, axes), _infer_transpose, _transpose_gradient)


def transpose(x, axes=None):
    """Permute the axes; None reverses them."""
    return _transpose(x, axes=None if axes is None else _lengths(axes))


def swapaxes(x, axis1, axis2):
    """Exchange two axes."""
    order = list(range(len(shape(x))))
    a, b = one_axis(axis1, len(order)), one_axis(axis2, len(order))
    order[a], order[b] = order[b], order[a]
    return transpose(x, tuple(order))


def moveaxis(x, source, destination):
    """Move axes to other places; the others keep their order."""
    ndim = len(shape(x))
    sources = [one_axis(a, ndim) for a in _lengths(source)]
    targets = [one_axis(a, ndim) for a in _lengths(destination)]
    order = [a for a in range(ndim) if a not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return transpose(x, tuple(order))


def expand_dims(x, axis):
    """Insert axes of length 1 at ``axis`` (int or tuple) of the result."""
    lengths = list(shape(x))
    axes = axes_of(axis, len(lengths) + (len(axis) if isinstance(axis, (tuple, list)) else 1))
    return _expand(x, axes=axes)


def _infer_expand(x, *, axes):
    lengths = iter(x.shape)
    return Spec([1 if i in axes else next(lengths) for i in range(x.ndim + len(axes))], x.dtype)


_expand = Op(
    "expand_dims",
    lambda x, *, axes: np.expand_dims(x, axes),
    _infer_expand,
    lambda node, d: _squeeze(d, axes=node.attrs["axes"]),
)


def _infer_squeeze(x, *, axes):
    for a in axes:
        if x.shape[a] not in (1, None):
            raise ValueError(f"{user_line()}: squeeze: axis {a} of shape {x.shape} has not length 1")
    return Spec([n for i, n in enumerate(x.shape) if i not in axes], x.dtype)


_squeeze = Op(
    "squeeze",
    lambda x, *, axes: np.squeeze(x, axes),
    _infer_squeeze,
    lambda node, d: _expand(d, axes=node.attrs["axes"]),
)


def squeeze(x, axis=None):
    """Drop axes of length 1: those in ``axis``, or all."""
    lengths = shape(x)
    return _squeeze(
        x, axes=tuple(i for i, n in enumerate(lengths) if n == 1) if axis is None else axes_of(axis, len(lengths))
    )


def _everywhere(x, shape):
    # Gradients of whole sums and means: a third of the time of the general way.
    if isinstance(x, (np.ndarray, np.generic)) and x.ndim == 0 and x.dtype.kind == "f":
        view = np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))
        view.flags.writeable = False
        return view
    return np.broadcast_to(x, shape)


_broadcast_like = Op(
    "broadcast_like",
    lambda d, x: _everywhere(d, x.shape),
    lambda d, x: Spec(x.shape, d.dtype),
    lambda node, d: (unbroadcast(d, node.inputs[0]), None),
)
_broadcast_to = Op(
    "broadcast_to",
    lambda x, *, shape: _everywhere(x, shape),
    lambda x, *, shape: Spec(
        shape if broadcast(x.shape, shape) == shape else broadcast(x.shape, shape, (-1,)), x.dtype
    ),
    lambda node, d: unbroadcast(d, node.inputs[0]),
)


def broadcast_to(x, shape):
    """Repeat ``x`` along axes of length 1 and new leading axes, to ``shape``; a read-only view."""
    return _broadcast_to(x, shape=_lengths(shape))


def broadcast_like(d, x):
    """Repeat ``d`` to the shape of ``x``."""
    lengths = shape(x)
    if shape(d) == lengths and None not in lengths:
        return d
    return _broadcast_like(d, x) if None in lengths else _broadcast_to(d, shape=lengths)


# -- order ---------------------------------------------------------------------------------------------------


_flip = Op("flip", lambda x, *, axis: np.flip(x, axis), like_first, lambda node, d: _flip(d, axis=node.attrs["axis"]))
_roll = Op(
    "roll",
    lambda x, *, shift, axis: np.roll(x, shift, axis),
    like_first,
    lambda node, d: _roll(d, shift=-node.attrs["shift"], axis=node.attrs["axis"]),
)


def flip(x, axis=None):
    """Reverse the order along ``axis`` (int, tuple, or None for all)."""
    return _flip(x, axis=axes_of(axis, len(shape(x))))


def roll(x, shift, axis=None):
    """Move elements by ``shift`` places along ``axis``, those that fall off come in at the other end."""
    return _roll(x, shift=operator.index(shift), axis=axis)


# -- joining and cutting -------------------------------------------------------------------------------------


def _infer_concatenate(*xs, axis):
    axis = one_axis(axis, xs[0].ndim)
    for x in xs:
        if x.ndim != xs[0].ndim or any(
            None not in (n, m) and n != m
            for i, (n, m) in enumerate(zip(x.shape, xs[0].shape, strict=True))
            if i != axis
        ):
            raise ValueError(
                f"{user_line()}: concatenate: shapes {', '.join(str(s.shape) for s in xs)} differ outside axis {axis}"
            )
    lengths = [x.shape[axis] for x in xs]
    known = [next((x.shape[i] for x in xs if x.shape[i] is not None), None) for i in range(xs[0].ndim)]
    known[axis] = None if None in lengths else sum(lengths)
    return Spec(known, promote(*xs))


def _concatenate_gradient(node, d):
    axis = one_axis(node.attrs["axis"], d.ndim)
    gradients, start = [], 0
    for x in node.inputs:
        length = x.shape[axis]
        if length is None:
            raise ValueError(f"concatenate: the gradient needs the lengths along axis {axis}, got shape {x.shape}")
        part = getitem(d, (slice(None),) * axis + (slice(start, start + length),)) if isinstance(x, Tensor) else None
        gradients.append(part if part is None or x.dtype.kind != "f" else cast(part, x.dtype))
        start += length
    return gradients


_concatenate = Op("concatenate", lambda *xs, axis: np.concatenate(xs, axis), _infer_concatenate, _concatenate_gradient)


def concatenate(xs, axis=-1):
    """Join values along an axis that they have (the last one by default, as in Keras, not the first as in NumPy)."""
    return _concatenate(*(x if hasattr(x, "dtype") else np.asarray(x) for x in xs), axis=operator.index(axis))


def stack(x, axis=0):
    """Join the values of one shape that ``x`` lists along a new axis."""
    values = [value if hasattr(value, "dtype") else np.asarray(value) for value in x]
    return concatenate([expand_dims(value, axis) for value in values], axis)


def vstack(xs):
    """Join values along the first axis; vectors become rows."""
    return concatenate([expand_dims(x, 0) if ndim(x) == 1 else x for x in xs], 0)


def hstack(xs):
    """Join values along the second axis, vectors along their only one."""
    return concatenate(xs, 0 if ndim(xs[0]) == 1 else 1)


def unstack(x, num=None, axis=0):
    """Return the list of the values along an axis; ``num``, if given, is its length."""
    lengths = shape(x)
    axis = one_axis(axis, len(lengths))
    if lengths[axis] is None or num not in (None, lengths[axis]):
        raise ValueError(f"{user_line()}: unstack: an axis of length {lengths[axis]}, num={num}")
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return [getitem(x, (slice(None),) * axis + (i,)) for i in range(lengths[axis])]


def _cuts(n, sections):
    if isinstance(sections, int):
        if n is None or n % sections:
            raise ValueError(f"{user_line()}: split: an axis of length {n} has not {sections} equal parts")
        step = n // sections
        return [(i * step, (i + 1) * step) for i in range(sections)]
    ends = [*_lengths(sections), n]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def split(x, indices_or_sections, axis=0):
    """Cut along ``axis`` into so many equal parts, or at these indices; return the list of parts."""
    lengths = shape(x)
    axis = one_axis(axis, len(lengths))
    sections = (
        indices_or_sections if not hasattr(indices_or_sections, "__index__") else operator.index(indices_or_sections)
    )
    return [getitem(x, (slice(None),) * axis + (slice(start, end),)) for start, end in _cuts(lengths[axis], sections)]


def pad(x, pad_width, mode="constant", constant_values=None):
    """Surround ``x`` with a constant, 0 by default; ``pad_width`` as in ``np.pad``: (before, after) for each axis."""
    if mode != "constant":
        raise TypeError(f"{user_line()}: pad with mode={mode!r} has no entry in numbarnn.ops, only 'constant' has")
    widths = np.broadcast_to(np.asarray(pad_width), (len(shape(x)), 2)).tolist()
    return _pad(x, widths=tuple(map(tuple, widths)), constant=0 if constant_values is None else constant_values)


def _pad_gradient(node, d):
    inside = tuple(slice(before, -after if after else None) for before, after in node.attrs["widths"])
    return getitem(d, inside)


_pad = Op(
    "pad",
    lambda x, *, widths, constant: np.pad(x, widths, constant_values=constant),
    lambda x, *, widths, constant: Spec(
        [n if n is None else n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], x.dtype
    ),
    _pad_gradient,
)


def repeat(x, repeats, axis=None):
    """Repeat each element so many times along ``axis`` (of the flattened array for None)."""
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    lengths = list(shape(x))
    axis = one_axis(axis, len(lengths))
    x = expand_dims(x, axis + 1)
    wide = list(shape(x))
    wide[axis + 1] = operator.index(repeats)
    lengths[axis] = None if lengths[axis] is None else lengths[axis] * wide[axis + 1]
    return reshape(broadcast_to(x, wide), lengths)


def tile(x, repeats):
    """Repeat the whole so many times along each axis."""
    counts = _lengths(repeats)
    lengths = (1,) * (len(counts) - len(shape(x))) + shape(x)
    counts = (1,) * (len(lengths) - len(counts)) + counts
    for axis, count in enumerate(counts):
        if count != 1:
            x = concatenate([x if len(shape(x)) == len(lengths) else reshape(x, lengths)] * count, axis)
    return x if len(shape(x)) == len(lengths) else reshape(x, lengths)


# -- diagonals -----------------------------------------------------------------------------------------------


def _triangle(name, function):
    """An op that keeps one triangle of the last two axes."""
    op = Op(name, lambda x, *, k: function(x, k), like_first, lambda node, d: op(d, k=node.attrs["k"]))
    return op


_tril, _triu = _triangle("tril", np.tril), _triangle("triu", np.triu)


def tril(x, k=0):
    """Set what is above the ``k``-th diagonal of the last two axes to zero."""
    return _tril(x, k=operator.index(k))


def triu(x, k=0):
    """Set what is below the ``k``-th diagonal of the last two axes to zero."""
    return _triu(x, k=operator.index(k))


def diagonal(x, offset=0, axis1=0, axis2=1):
    """Return the diagonal ``offset`` places above the main one of two axes, along a new last axis."""
    x = moveaxis(x if hasattr(x, "dtype") else np.asarray(x), (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    if None in (rows, columns):
        raise ValueError(f"{user_line()}: diagonal needs the lengths of its axes, got shape {x.shape}")
    places = np.arange(max(min(rows + min(offset, 0), columns - max(offset, 0)), 0))
    return getitem(x, (..., places + max(-offset, 0), places + max(offset, 0)))


def diag(x, k=0):
    """Return the ``k``-th diagonal of a matrix, or the matrix that has a vector as its ``k``-th diagonal."""
    if ndim(x) == 2:
        return diagonal(x, k)
    if ndim(x) != 1 or None in shape(x):
        raise ValueError(f"{user_line()}: diag takes a vector or a matrix of known lengths, got shape {shape(x)}")
    (count,) = shape(x)
    width = count + abs(k)
    block = where(np.eye(count, width, max(k, 0), dtype=bool), expand_dims(x, 1), 0)
    return pad(block, ((max(-k, 0), max(k, 0)), (0, 0)))
