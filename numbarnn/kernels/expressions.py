"""What kernels of the CPU compute, as expressions on arrays of the GPU: one module for all that is no loop over time.

Each function has the arguments and results of its namesake in `crossentropy`, `normalization`, `layer_normalization`,
`optimizer`; arrays are on the GPU. Sums are formed in float64; rows that do not count are replaced, not multiplied by
zero: no NaN leaks from them.
"""

import numpy as np

from .. import cuda

__all__ = [
    "adafactor_direction", "batch_gradients", "batch_moments", "batch_normalize", "dense_backward", "dense_forward",
    "label_range", "layer_gradients", "layer_normalize", "sparse_backward", "sparse_forward",
]  # fmt: skip


def total(x, axis=None, keepdims=False, dtype=None):
    """Sum over `axis`."""
    return x.sum(axis=axis, keepdims=keepdims, dtype=dtype)


# -- cross-entropies ---------------------------------------------------------------------------------------------


def label_range(labels, ignore):
    """The least and the greatest label but `ignore`, 0 and -1 at the least and most: two ints."""
    counts = labels != ignore
    return int(np.where(counts, labels, 0).min()), int(np.where(counts, labels, -1).max())


def _top_and_sum(logits):
    top = np.max(logits, axis=1, keepdims=True)
    return top, total(np.exp(logits - top), 1, keepdims=True)


def _clipped(q, epsilon):
    q = np.where(q < epsilon, epsilon, q)
    return np.where(q > 1.0 - epsilon, 1.0 - epsilon, q)


def _at_labels(predictions, labels, ignore):
    # Which rows count, what stands at their labels, and where that is.
    counts = labels != ignore
    places = np.where(counts, labels, 0)[:, None]
    here = cuda.array_module().arange(predictions.shape[1]) == places
    return counts[:, None], np.take_along_axis(predictions, places, 1), here


def sparse_forward(predictions, labels, from_logits, ignore, epsilon):
    """See `crossentropy.sparse_forward`."""
    counts, found, _ = _at_labels(predictions, labels, ignore)
    if from_logits:
        top, norm = norms = _top_and_sum(predictions)
        loss = (top - found) + np.log(norm)
    else:
        norms = total(predictions, 1, keepdims=True, dtype=np.float64)
        loss = -np.log(_clipped(found / norms, epsilon))
    return np.where(counts, loss, 0.0)[:, 0].astype(predictions.dtype), norms


def sparse_backward(d_loss, predictions, labels, from_logits, ignore, epsilon, norms):
    """See `crossentropy.sparse_backward`."""
    counts, found, here = _at_labels(predictions, labels, ignore)
    d = d_loss[:, None]
    counts = np.logical_and(counts, d != 0.0)
    if from_logits:
        top, norm = norms
        gradient = np.exp(predictions - top) * (d / norm)
        gradient = np.where(here, gradient - d, gradient)
    else:
        q = found / norms
        counts = np.logical_and(counts, np.logical_not(np.logical_or(q < epsilon, q > 1.0 - epsilon)))
        slope = d / norms
        gradient = np.where(here, slope - d / found, slope)
    return np.where(counts, gradient, 0.0).astype(predictions.dtype)


def dense_forward(predictions, targets, from_logits, epsilon):
    """See `crossentropy.dense_forward`."""
    if from_logits:
        top, norm = norms = _top_and_sum(predictions)
        each = (top - predictions) + np.log(norm)
    else:
        norms = total(predictions, 1, keepdims=True, dtype=np.float64)
        each = -np.log(_clipped(predictions / norms, epsilon))
    # 0 * infinity: a class of weight zero may have a logit of minus infinity
    loss = total(np.where(targets != 0.0, targets * each, 0.0), 1, dtype=np.float64)
    return loss.astype(predictions.dtype), norms


def dense_backward(d_loss, predictions, targets, from_logits, epsilon, norms, want_targets):
    """See `crossentropy.dense_backward`."""
    d = d_loss[:, None]
    if from_logits:
        top, norm = norms
        weight = total(targets, 1, keepdims=True, dtype=np.float64)
        gradient = np.exp(predictions - top) * (d * weight / norm) - d * targets
        d_targets = d * ((top - predictions) + np.log(norm)) if want_targets else None
    else:
        q = predictions / norms
        inside = np.logical_not(np.logical_or(q < epsilon, q > 1.0 - epsilon))
        slope = total(np.where(inside, targets, 0.0), 1, keepdims=True, dtype=np.float64) / norms
        own = np.logical_and(inside, targets != 0.0)
        gradient = d * (slope - np.where(own, targets / np.where(own, predictions, 1.0), 0.0))
        d_targets = -d * np.log(_clipped(q, epsilon)) if want_targets else None
    counts = d != 0.0
    return tuple(
        None if g is None else np.where(counts, g, 0.0).astype(predictions.dtype) for g in (gradient, d_targets)
    )


# -- normalization -------------------------------------------------------------------------------------------------


def batch_moments(x, counts):
    """See `normalization.moments`; the number of rows stays on the GPU."""
    counts = counts[:, None]
    number = total(counts, dtype=np.int64)
    divisor = np.maximum(number, 1)
    mean = total(np.where(counts, x, 0.0), 0, dtype=np.float64) / divisor
    variance = total(np.where(counts, np.square(x - mean), 0.0), 0, dtype=np.float64) / divisor
    return mean, variance, number


def batch_normalize(x, mean, inverse, gamma, beta):
    """See `normalization.normalize`."""
    return ((x - mean) * inverse * gamma + beta).astype(x.dtype)


def batch_gradients(x, counts, number, mean, inverse, gamma, dy, d_mean, d_variance):
    """See `normalization.gradients`."""
    counts, number = counts[:, None], np.maximum(number, 1)
    d_beta = total(dy, 0, dtype=np.float64)
    heard = np.logical_or(counts, dy != 0)
    d_gamma = total(np.where(heard, dy * ((x - mean) * inverse), 0.0), 0, dtype=np.float64)
    by_mean = (d_mean - d_beta * gamma * inverse) / number
    by_variance = (2.0 * d_variance - d_gamma * gamma * inverse * inverse) / number
    dx = dy * (inverse * gamma) + np.where(counts, by_mean + by_variance * (x - mean), 0.0)
    return dx.astype(x.dtype), d_gamma, d_beta


def layer_normalize(x, gamma, beta, epsilon):
    """See `layer_normalization.normalize`."""
    mean = total(x, 1, dtype=np.float64) / x.shape[1]
    centered = x - mean[:, None]
    inverse = 1.0 / np.sqrt(total(np.square(centered), 1) / x.shape[1] + epsilon)
    return (centered * inverse[:, None] * gamma + beta).astype(x.dtype), mean, inverse


def layer_gradients(x, gamma, mean, inverse, dy):
    """See `layer_normalization.gradients`."""
    counts = np.any(dy != 0.0, axis=1, keepdims=True)
    inverse = inverse[:, None]
    normalized = np.where(counts, (x - mean[:, None]) * inverse, 0.0)
    d = dy * gamma.astype(np.float64)
    plain = total(d, 1, keepdims=True) / x.shape[1]
    weighted = total(d * normalized, 1, keepdims=True) / x.shape[1]
    dx = np.where(counts, (d - plain - normalized * weighted) * inverse, 0.0)
    return dx.astype(x.dtype), total(dy * normalized, 0), total(dy, 0, dtype=np.float64)


# -- optimizers ----------------------------------------------------------------------------------------------------


def adafactor_direction(gradient, rows, columns, velocity, share, epsilon):
    """Do what `optimizer.adafactor_rows`, `adafactor_columns` and `adafactor_direction` do, or `adafactor_vector`.

    Parameters
    ----------
    gradient, velocity : device array, shape (...)
        Overwritten.
    rows, columns : device array, gradient.shape[:-1], (*gradient.shape[:-2], gradient.shape[-1])
        Running means of squares, brought up to date; None for a gradient of fewer than two axes.
    share, epsilon : float
    """
    squares = np.square(gradient.astype(np.float64)) + epsilon
    if rows is None:
        velocity += share * (squares - velocity)
    else:
        for axis, means in ((-1, rows), (-2, columns)):
            means += share * (squares.mean(axis=axis) - means)
        shares = rows / rows.mean(axis=-1, keepdims=True)
        velocity[...] = shares[..., None] * columns[..., None, :]
    gradient /= np.sqrt(velocity)
