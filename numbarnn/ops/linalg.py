"""Products: everything that multiplies matrices ends in `gemm.matmul`, one fixed chain of additions per element."""

import math

import numpy as np

from .. import cuda, gemm
from ..arrays import contiguous
from ..operation import Op
from ..protocols import user_line
from ..symbolic import Spec, Tensor
from ._inference import broadcast, one_axis, product, promote
from .elementwise import cast, unbroadcast
from .reduction import sum
from .shaping import diagonal, expand_dims, reshape, shape, squeeze, swapaxes, transpose

__all__ = [
    "dot", "einsum", "inner", "matmul", "outer", "tensordot", "trace", "vdot",
]  # fmt: skip


def _product(a, b, *, transpose_a=False, transpose_b=False):
    """Multiply two matrices."""
    dtype = a.dtype if a.dtype == b.dtype else np.result_type(a.dtype, b.dtype)
    if type(a) is not np.ndarray and dtype.char in "fd":
        a, b = (contiguous(x.astype(dtype, copy=False)) for x in (a, b))
        return cuda.gemm(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    if dtype.kind != "f" or type(a) is not np.ndarray:
        return np.matmul(a.T if transpose_a else a, b.T if transpose_b else b)
    work = np.dtype(np.float32) if dtype == np.float16 else dtype
    result = gemm.matmul(
        a.astype(work, copy=False), b.astype(work, copy=False), transpose_a=transpose_a, transpose_b=transpose_b
    )
    return result if work == dtype else result.astype(dtype)


def _stacked_product(a, b):
    """Multiply stacks of matrices whose leading axes broadcast."""
    if type(a) is not np.ndarray:
        return np.matmul(a, b)
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    rows, columns = a.shape[-2], b.shape[-1]
    first = np.broadcast_to(a, (*lead, *a.shape[-2:])).reshape(-1, rows, a.shape[-1])
    second = np.broadcast_to(b, (*lead, *b.shape[-2:])).reshape(-1, b.shape[-2], columns)
    result = np.empty((math.prod(lead), rows, columns), np.result_type(a, b))
    for i in range(len(result)):
        result[i] = _product(first[i], second[i])
    return result.reshape(*lead, rows, columns)


def _compute(a, b, *, transpose_a, transpose_b):
    if a.ndim == 2 and b.ndim == 2:
        return _product(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    if b.ndim == 2:
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return _product(rows, b, transpose_b=transpose_b).reshape(*a.shape[:-1], b.shape[0 if transpose_b else 1])
    return _stacked_product(a, np.swapaxes(b, -1, -2) if transpose_b else b)


def _infer(a, b, *, transpose_a, transpose_b):
    rows, inner = (a.shape[-1], a.shape[-2]) if transpose_a else a.shape[-2:]
    other, columns = (b.shape[-1], b.shape[-2]) if transpose_b else b.shape[-2:]
    if None not in (inner, other) and inner != other:
        raise ValueError(f"{user_line()}: matmul: shapes {a.shape} and {b.shape} do not match: {inner} is not {other}")
    return Spec((*broadcast(a.shape[:-2], b.shape[:-2]), rows, columns), promote(a, b))


def _gradient(node, d):
    a, b = node.inputs
    at, bt = node.attrs["transpose_a"], node.attrs["transpose_b"]
    da = db = None
    if a.ndim == 2 and b.ndim == 2:
        if isinstance(a, Tensor):
            da = (
                _matmul(b, d, transpose_a=bt, transpose_b=True)
                if at
                else _matmul(d, b, transpose_a=False, transpose_b=not bt)
            )
        if isinstance(b, Tensor):
            db = (
                _matmul(d, a, transpose_a=True, transpose_b=at)
                if bt
                else _matmul(a, d, transpose_a=not at, transpose_b=False)
            )
    elif b.ndim == 2:
        if isinstance(a, Tensor):
            da = _matmul(d, b, transpose_a=False, transpose_b=not bt)
        if isinstance(b, Tensor):
            rows, d_rows = reshape(a, (-1, a.shape[-1])), reshape(d, (-1, d.shape[-1]))
            db = (
                _matmul(d_rows, rows, transpose_a=True, transpose_b=False)
                if bt
                else _matmul(rows, d_rows, transpose_a=True, transpose_b=False)
            )
    else:
        if isinstance(a, Tensor):
            da = unbroadcast(_matmul(d, b, transpose_a=False, transpose_b=not bt), a)
        if isinstance(b, Tensor):
            db = matmul(swapaxes(a, -1, -2), d)
            db = unbroadcast(swapaxes(db, -1, -2) if bt else db, b)
    return da if da is None else cast(da, a.dtype), db if db is None else cast(db, b.dtype)


# Operands have two axes or more; transpose_a is for two matrices alone.
_matmul = Op("matmul", _compute, _infer, _gradient)


def matmul(x1, x2):
    """Multiply matrices: the last axis of ``x1`` with the last but one (or the only one) of ``x2``.

    Leading axes broadcast.
    """
    x1, x2 = (x if hasattr(x, "dtype") else np.asarray(x) for x in (x1, x2))
    if x1.ndim == 0 or x2.ndim == 0:
        raise ValueError(f"{user_line()}: matmul takes no scalars, got shapes {x1.shape} and {x2.shape}; use multiply")
    result = _matmul(
        expand_dims(x1, 0) if x1.ndim == 1 else x1,
        expand_dims(x2, 1) if x2.ndim == 1 else x2,
        transpose_a=False,
        transpose_b=False,
    )
    if x2.ndim == 1:
        result = squeeze(result, -1)
    return squeeze(result, -1 if x2.ndim == 1 else -2) if x1.ndim == 1 else result


def dot(x1, x2):
    """Multiply as ``np.dot``: the last axis of ``x1`` with the last but one (or the only one) of ``x2``.

    Scalars multiply element by element.
    """
    ranks = len(shape(x1)), len(shape(x2))
    if 0 in ranks:
        return x1 * x2
    if ranks[1] <= 2:
        return matmul(x1, x2)
    return tensordot(x1, x2, ((ranks[0] - 1,), (ranks[1] - 2,)))


def tensordot(x1, x2, axes=2):
    """Sum products over the last ``axes`` of ``x1`` and the first of ``x2``, or over ``axes`` (of x1, of x2)."""
    x1, x2 = (x if hasattr(x, "dtype") else np.asarray(x) for x in (x1, x2))
    if isinstance(axes, int):
        ours, theirs = tuple(range(x1.ndim - axes, x1.ndim)), tuple(range(axes))
    else:
        ours, theirs = (
            tuple(one_axis(i, x.ndim) for i in (which if isinstance(which, (tuple, list)) else (which,)))
            for which, x in zip(axes, (x1, x2), strict=True)
        )
    if len(ours) != len(theirs) or any(
        None not in (x1.shape[i], x2.shape[j]) and x1.shape[i] != x2.shape[j] for i, j in zip(ours, theirs, strict=True)
    ):
        raise ValueError(f"{user_line()}: tensordot: axes {axes} of shapes {x1.shape} and {x2.shape} do not match")
    rest_a = [i for i in range(x1.ndim) if i not in ours]
    rest_b = [i for i in range(x2.ndim) if i not in theirs]
    inner = math.prod(x2.shape[j] for j in theirs)
    left = reshape(transpose(x1, (*rest_a, *ours)), (-1, inner))
    right = reshape(transpose(x2, (*theirs, *rest_b)), (inner, -1))
    return reshape(matmul(left, right), [x1.shape[i] for i in rest_a] + [x2.shape[j] for j in rest_b])


def outer(x1, x2):
    """Return the products of all elements of ``x1`` with all of ``x2``."""
    return reshape(x1, (-1, 1)) * reshape(x2, (1, -1))


def inner(x1, x2):
    """Sum products over the last axes of both."""
    if 0 in (len(shape(x1)), len(shape(x2))):
        return x1 * x2
    return tensordot(x1, x2, axes=((-1,), (-1,)))


def vdot(x1, x2):
    """Sum the products of all elements of ``x1`` and ``x2``, which have the same number."""
    return matmul(reshape(x1, (-1,)), reshape(x2, (-1,)))


def trace(x, offset=0, axis1=0, axis2=1):
    """Sum the diagonal ``offset`` places above the main one of two axes."""
    return sum(diagonal(x, offset, axis1, axis2), axis=-1)


def _parse(subscripts, operands):
    """Return ([labels of each operand], labels of the result) without ellipses."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        raise ValueError(f"{user_line()}: einsum {subscripts!r} is for {len(terms)} operands, got {len(operands)}")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in subscripts]
    widest = 0
    for k, (term, x) in enumerate(zip(terms, operands, strict=True)):
        if "..." in term:
            count = len(shape(x)) - len(term) + 3
            widest = max(widest, count)
            terms[k] = term.replace("...", "".join(spare[:widest][widest - count :]) if count else "")
    lead = "".join(spare[:widest])
    for term, x in zip(terms, operands, strict=True):
        if len(term) != len(shape(x)):
            raise ValueError(
                f"{user_line()}: einsum {subscripts!r}: {term!r} does not name the axes of shape {shape(x)}"
            )
    if arrow:
        return terms, right.replace("...", lead)
    every = "".join(terms)
    return terms, lead + "".join(sorted(c for c in set(every) if every.count(c) == 1 and c not in lead))


def einsum(subscripts, *operands):
    """Sum products by Einstein's convention, as ``np.einsum`` with a string.

    Two operands at a time, left to right, each pair one `matmul`. A label may not occur twice in one operand (a
    diagonal).
    """
    operands = [x if hasattr(x, "dtype") else np.asarray(x) for x in operands]
    terms, result = _parse(subscripts, operands)
    for term in terms:
        if len(set(term)) != len(term):
            raise ValueError(
                f"{user_line()}: einsum {subscripts!r}: {term!r} names an axis twice, which has no entry here"
            )
    term, x = terms[0], operands[0]
    for k in range(1, len(terms)):
        later = set("".join(terms[k + 1 :]) + result)
        term, x = _contract(term, x, terms[k], operands[k], later)
    dropped = tuple(i for i, c in enumerate(term) if c not in result)
    if dropped:
        x, term = sum(x, axis=dropped), "".join(c for c in term if c in result)
    if sorted(term) != sorted(result):
        raise ValueError(f"{user_line()}: einsum {subscripts!r}: the result names an axis that no operand has")
    return x if term == result else transpose(x, tuple(term.index(c) for c in result))


def _contract(left, a, right, b, later):
    """Multiply two labelled operands and sum over the labels that are not needed later; return (labels, value)."""
    for mine, other, which in ((left, right, 0), (right, left, 1)):
        alone = tuple(i for i, c in enumerate(mine) if c not in other and c not in later)
        if alone:
            reduced, kept = sum((a, b)[which], axis=alone), "".join(c for i, c in enumerate(mine) if i not in alone)
            return _contract(kept, reduced, right, b, later) if which == 0 else _contract(left, a, kept, reduced, later)
    batch = [c for c in left if c in right and c in later]
    inner = [c for c in left if c in right and c not in later]
    rows, columns = [c for c in left if c not in right], [c for c in right if c not in left]
    first = _arranged(left, a, batch, rows, inner)
    second = _arranged(right, b, batch, inner, columns)
    sizes = dict(zip(right, shape(b), strict=True))
    sizes.update((c, n) for c, n in zip(left, shape(a), strict=True) if n != 1 or c not in sizes)
    labels = [*batch, *rows, *columns]
    return "".join(labels), _reshaped(matmul(first, second), [sizes[c] for c in labels])


def _arranged(labels, x, batch, rows, columns):
    """Return ``x`` with the batch axes first, then all of ``rows`` as one axis and all of ``columns`` as one."""
    order = [*batch, *rows, *columns]
    sizes = dict(zip(labels, shape(x), strict=True))
    if order != list(labels):
        x = transpose(x, tuple(labels.index(c) for c in order))
    lengths = [product(sizes[c] for c in part) for part in (rows, columns)]
    return _reshaped(x, [*(sizes[c] for c in batch), *lengths])


def _reshaped(x, lengths):
    return x if tuple(lengths) == shape(x) else reshape(x, lengths)
