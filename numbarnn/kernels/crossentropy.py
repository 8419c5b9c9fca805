"""Cross-entropy over classes, from logits or from probabilities, with sparse (integer) or dense targets.

All arrays are C-contiguous: predictions and dense targets `(rows, classes)`, labels int64 `(rows,)`, results `(rows,)`,
float32 or float64. Rows are independent, so the bits do not depend on the number of threads nor on the other rows.

From logits, `loss = sum_k t_k (logsumexp(z) - z_k)`, with the largest logit taken out first. That and the sum of
exponentials are kept for the way back (two numbers a row), the exponentials are formed again.
From probabilities, Keras's rule: `q = clip(p / sum(p), epsilon, 1 - epsilon)`, `loss = -sum_k t_k log(q_k)`; where the
clip holds, no gradient passes.

A row whose incoming gradient is zero (masked, weight 0, ignored class) gets an all-zero gradient and its values are
never looked at: no NaN leaks from it.

Arrays on the GPU go to `expressions`.
"""

import math

import numpy as np

from ..jit import njit, parallel_for
from ..simd import lanes, load, pointer, splat, store, where
from ..simd_math import exp
from . import expressions

# About this many elements are worth handing to another thread.
_GRAIN = 1 << 14


@njit
def _top_and_sum(row, scratch):
    # Largest element and sum of exp(row - largest). Kept apart: their logarithms do not fit into one float.
    # `row` 1-D contiguous; `scratch` one vector long. The order of the sum depends on the length of the row alone.
    classes = row.size
    cast = row.dtype.type
    width = lanes(row)
    source, spare = pointer(row), pointer(scratch)
    full = classes - classes % width
    top = row[0]
    total = cast(0.0)
    if full:
        highs = load(source, 0)
        for k in range(width, full, width):
            part = load(source, k)
            highs = where(part > highs, part, highs)
        store(spare, 0, highs)
        for k in range(width):
            value = scratch[k]
            top = value if value > top else top
    for k in range(full, classes):
        value = row[k]
        top = value if value > top else top
    # A NaN may get lost in the maximum; the sum of exponentials finds it.
    if full:
        shift = splat(top)
        sums = splat(cast(0.0))
        for k in range(0, full, width):
            sums = sums + exp(load(source, k) - shift)
        store(spare, 0, sums)
        for k in range(width):
            total += scratch[k]
    for k in range(full, classes):
        total += exp(row[k] - top)
    return top, total


@njit
def _softmax_sparse(start, stop, logits, labels, ignore, loss, norms, scratch):
    for r in range(start, stop):
        if labels[r] == ignore:
            loss[r] = 0.0
            norms[r] = 1.0
        else:
            top, total = _top_and_sum(logits[r], scratch[start])
            norms[r, 0], norms[r, 1] = top, total
            loss[r] = (top - logits[r, labels[r]]) + logits.dtype.type(math.log(total))


@njit
def _softmax_dense(start, stop, logits, targets, loss, norms, scratch):
    classes = logits.shape[1]
    for r in range(start, stop):
        top, total = _top_and_sum(logits[r], scratch[start])
        norms[r, 0], norms[r, 1] = top, total
        log_total = math.log(np.float64(total))
        value = 0.0
        for k in range(classes):
            t = targets[r, k]
            if t != 0.0:  # 0 * infinity: a class of weight zero may have a logit of minus infinity
                value += t * (np.float64(top - logits[r, k]) + log_total)
        loss[r] = value


@njit
def _softmax_row(row, top, factor, out):
    # out = factor * exp(row - top)
    classes = row.size
    width = lanes(row)
    source, target = pointer(row), pointer(out)
    full = classes - classes % width
    if full:
        shift, gain = splat(top), splat(factor)
        for k in range(0, full, width):
            store(target, k, gain * exp(load(source, k) - shift))
    for k in range(full, classes):
        out[k] = factor * exp(row[k] - top)


@njit
def _softmax_sparse_back(start, stop, d_loss, logits, labels, ignore, norms, d_logits):
    for r in range(start, stop):
        d = d_loss[r]
        if d == 0.0 or labels[r] == ignore:
            d_logits[r] = 0.0
        else:
            _softmax_row(logits[r], norms[r, 0], d / norms[r, 1], d_logits[r])
            d_logits[r, labels[r]] -= d


@njit
def _softmax_dense_back(start, stop, d_loss, logits, targets, norms, d_logits, d_targets, want_targets):
    classes = logits.shape[1]
    for r in range(start, stop):
        d = d_loss[r]
        if d == 0.0:
            d_logits[r] = 0.0
            if want_targets:
                d_targets[r] = 0.0
            continue
        weight = np.float64(0.0)
        for k in range(classes):
            weight += targets[r, k]
        _softmax_row(logits[r], norms[r, 0], logits.dtype.type(d * weight / norms[r, 1]), d_logits[r])
        for k in range(classes):
            d_logits[r, k] -= d * targets[r, k]
        if want_targets:
            for k in range(classes):
                d_targets[r, k] = d * ((norms[r, 0] - logits[r, k]) + math.log(norms[r, 1]))


@njit
def _clipped_log(p, total, epsilon):
    q = p / total
    q = epsilon if q < epsilon else q
    q = 1.0 - epsilon if q > 1.0 - epsilon else q
    return math.log(q)


@njit
def _row_sum(row):
    # In float64, in class order.
    total = 0.0
    for k in range(row.size):
        total += np.float64(row[k])
    return total


@njit
def _sparse(start, stop, predictions, labels, ignore, epsilon, loss, totals):
    for r in range(start, stop):
        if labels[r] == ignore:
            totals[r] = 1.0
            loss[r] = 0.0
        else:
            totals[r] = _row_sum(predictions[r])
            loss[r] = -_clipped_log(np.float64(predictions[r, labels[r]]), totals[r], epsilon)


@njit
def _sparse_back(start, stop, d_loss, predictions, labels, ignore, epsilon, totals, d_predictions):
    for r in range(start, stop):
        d = np.float64(d_loss[r])
        d_predictions[r] = 0.0
        if d == 0.0 or labels[r] == ignore:
            continue
        p = np.float64(predictions[r, labels[r]])
        q = p / totals[r]
        if q < epsilon or q > 1.0 - epsilon:
            continue
        d_predictions[r] = d / totals[r]
        d_predictions[r, labels[r]] = d / totals[r] - d / p


@njit
def _dense(start, stop, predictions, targets, epsilon, loss, totals):
    classes = predictions.shape[1]
    for r in range(start, stop):
        total = _row_sum(predictions[r])
        value = 0.0
        for k in range(classes):
            t = np.float64(targets[r, k])
            if t != 0.0:
                value -= t * _clipped_log(np.float64(predictions[r, k]), total, epsilon)
        totals[r] = total
        loss[r] = value


@njit
def _dense_back(start, stop, d_loss, predictions, targets, epsilon, totals, d_predictions, d_targets, want_targets):
    classes = predictions.shape[1]
    for r in range(start, stop):
        d = np.float64(d_loss[r])
        d_predictions[r] = 0.0
        if want_targets:
            d_targets[r] = 0.0
        if d == 0.0:
            continue
        total = totals[r]
        inside = 0.0
        for k in range(classes):
            q = np.float64(predictions[r, k]) / total
            if not (q < epsilon or q > 1.0 - epsilon):
                inside += np.float64(targets[r, k])
        for k in range(classes):
            p = np.float64(predictions[r, k])
            q = p / total
            slope = inside / total
            if targets[r, k] != 0.0 and not (q < epsilon or q > 1.0 - epsilon):
                slope -= np.float64(targets[r, k]) / p
            d_predictions[r, k] = d * slope
            if want_targets:
                d_targets[r, k] = -d * _clipped_log(p, total, epsilon)


@njit
def _label_range(labels, ignore):
    low, high = np.int64(0), np.int64(-1)
    for i in range(labels.size):
        label = labels[i]
        if label != ignore:
            low = min(low, label)
            high = max(high, label)
    return low, high


# No class has this number: the sentinel for "ignore none".
NO_CLASS = np.iinfo(np.int64).min


def _grain(classes):
    return max(1, _GRAIN // max(1, classes))


def _run(kernel, rows, classes, *args):
    if rows * classes < 2 * _GRAIN:
        kernel(0, rows, *args)
    else:
        parallel_for(kernel, rows, _grain(classes), *args)


def _scratch(rows, classes, dtype):
    # One vector for the sums of each chunk, at the row its chunk starts with; 16 lanes are the widest there are.
    return np.empty((rows if rows * classes >= 2 * _GRAIN else 1, 16), dtype)


def check_labels(labels, classes, ignore=NO_CLASS):
    """Raise unless every label (other than `ignore`) is a class.

    Parameters
    ----------
    labels : ndarray of int64, shape (rows,)
    classes : int
    ignore : int

    Raises
    ------
    ValueError
        Naming the smallest or largest label found.
    """
    low, high = (_label_range if type(labels) is np.ndarray else expressions.label_range)(labels, ignore)
    if low < 0 or high >= classes:
        raise ValueError(
            f"Labels of a sparse cross-entropy must lie in [0, {classes}), the number of classes that the predictions "
            f"have. Received: label {low if low < 0 else high}"
        )


def sparse_forward(predictions, labels, from_logits, ignore, epsilon):
    """Loss of every row and what the way back needs.

    Parameters
    ----------
    predictions : ndarray of float32 or float64, shape (rows, classes)
    labels : ndarray of int64, shape (rows,)
    from_logits : bool
    ignore : int
        Rows with this label have loss 0 and gradient 0 (`NO_CLASS` for none).
    epsilon : float
        Probabilities are kept within [epsilon, 1 - epsilon].

    Returns
    -------
    loss : ndarray, shape (rows,)
    norms : ndarray
        For the way back.

    Raises
    ------
    ValueError
        A label is not a class.
    """
    rows, classes = predictions.shape
    check_labels(labels, classes, ignore)
    if type(predictions) is not np.ndarray:
        return expressions.sparse_forward(predictions, labels, from_logits, ignore, epsilon)
    loss = np.empty(rows, predictions.dtype)
    if from_logits:
        norms = np.empty((rows, 2), predictions.dtype)
        scratch = _scratch(rows, classes, predictions.dtype)
        _run(_softmax_sparse, rows, classes, predictions, labels, ignore, loss, norms, scratch)
    else:
        norms = np.empty(rows, np.float64)
        _run(_sparse, rows, classes, predictions, labels, ignore, epsilon, loss, norms)
    return loss, norms


def sparse_backward(d_loss, predictions, labels, from_logits, ignore, epsilon, norms):
    """Gradient of the predictions, shape (rows, classes), for `d_loss` of shape (rows,); see `sparse_forward`."""
    if type(predictions) is not np.ndarray:
        return expressions.sparse_backward(d_loss, predictions, labels, from_logits, ignore, epsilon, norms)
    rows, classes = predictions.shape
    d_predictions = np.empty_like(predictions)
    if from_logits:
        _run(_softmax_sparse_back, rows, classes, d_loss, predictions, labels, ignore, norms, d_predictions)
    else:
        _run(_sparse_back, rows, classes, d_loss, predictions, labels, ignore, epsilon, norms, d_predictions)
    return d_predictions


def dense_forward(predictions, targets, from_logits, epsilon):
    """As `sparse_forward`, for targets of shape (rows, classes) that weigh every class."""
    if type(predictions) is not np.ndarray:
        return expressions.dense_forward(predictions, targets, from_logits, epsilon)
    rows, classes = predictions.shape
    loss = np.empty(rows, predictions.dtype)
    if from_logits:
        norms = np.empty((rows, 2), predictions.dtype)
        scratch = _scratch(rows, classes, predictions.dtype)
        _run(_softmax_dense, rows, classes, predictions, targets, loss, norms, scratch)
    else:
        norms = np.empty(rows, np.float64)
        _run(_dense, rows, classes, predictions, targets, epsilon, loss, norms)
    return loss, norms


def dense_backward(d_loss, predictions, targets, from_logits, epsilon, norms, want_targets):
    """Gradients of predictions and (if wanted, else None) of targets, both of shape (rows, classes)."""
    if type(predictions) is not np.ndarray:
        return expressions.dense_backward(d_loss, predictions, targets, from_logits, epsilon, norms, want_targets)
    rows, classes = predictions.shape
    d_predictions = np.empty_like(predictions)
    # Always an array, so that the kernel has one signature.
    d_targets = np.empty_like(predictions) if want_targets else np.empty((1, 1), predictions.dtype)
    tail = norms, d_predictions, d_targets, want_targets
    if from_logits:
        _run(_softmax_dense_back, rows, classes, d_loss, predictions, targets, *tail)
    else:
        _run(_dense_back, rows, classes, d_loss, predictions, targets, epsilon, *tail)
    return d_predictions, d_targets if want_targets else None
