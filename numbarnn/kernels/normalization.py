"""Batch normalization in training: moments over all axes but one, and the gradient through them.

Arrays are C-contiguous: `x`, `y`, `dy`, `dx` `(N, C)` float32 or float64, one row per place, one column per channel;
`counts` `(N,)` bool, the rows that count in the moments (a masked row is normalized too, but has no part in mean and
variance); everything per channel `(C,)` float64.

Sums run over blocks of a fixed number of rows, in float64, each block in row order and the blocks in theirs: the bits
are the same for any number of threads. A row that does not count is looked at only where its own result is made: no
NaN leaks from it. Arrays on the GPU go to `expressions`.
"""

import numpy as np

from ..jit import njit, parallel_for
from . import expressions

BLOCK = 256  # rows; fixed, because it decides the order of the sums
_GRAIN = 1 << 16  # about this many elements are worth handing to another thread


@njit
def _sum_blocks(start, stop, x, counts, sums):
    # sums[k] = the sum of x over the counted rows of block k
    for k in range(start, stop):
        for c in range(x.shape[1]):
            sums[k, c] = 0.0
        for n in range(k * BLOCK, min(x.shape[0], (k + 1) * BLOCK)):
            if counts[n]:
                for c in range(x.shape[1]):
                    sums[k, c] += x[n, c]


@njit
def _square_blocks(start, stop, x, counts, mean, sums):
    # sums[k] = the sum of (x - mean) ** 2 over the counted rows of block k
    for k in range(start, stop):
        for c in range(x.shape[1]):
            sums[k, c] = 0.0
        for n in range(k * BLOCK, min(x.shape[0], (k + 1) * BLOCK)):
            if counts[n]:
                for c in range(x.shape[1]):
                    difference = x[n, c] - mean[c]
                    sums[k, c] += difference * difference


@njit
def _normalize(start, stop, x, mean, inverse, gamma, beta, y):
    # y = (x - mean) * inverse * gamma + beta, in float64, rounded once
    for n in range(start, stop):
        for c in range(x.shape[1]):
            y[n, c] = (x[n, c] - mean[c]) * inverse[c] * gamma[c] + beta[c]


@njit
def _gradient_blocks(start, stop, x, counts, mean, inverse, dy, sums):
    # sums[k, 0] = the sum of dy, sums[k, 1] = the sum of dy * (x - mean) * inverse, over the rows of block k
    for k in range(start, stop):
        for c in range(x.shape[1]):
            sums[k, 0, c] = 0.0
            sums[k, 1, c] = 0.0
        for n in range(k * BLOCK, min(x.shape[0], (k + 1) * BLOCK)):
            if counts[n]:
                for c in range(x.shape[1]):
                    sums[k, 0, c] += dy[n, c]
                    sums[k, 1, c] += dy[n, c] * ((x[n, c] - mean[c]) * inverse[c])
            else:
                for c in range(x.shape[1]):
                    if dy[n, c] != 0:
                        sums[k, 0, c] += dy[n, c]
                        sums[k, 1, c] += dy[n, c] * ((x[n, c] - mean[c]) * inverse[c])


@njit
def _gradient_rows(start, stop, x, counts, mean, inverse, gamma, by_mean, by_variance, dy, dx):
    # y depends on x directly and, for counted rows, through the mean and the variance.
    for n in range(start, stop):
        if counts[n]:
            for c in range(x.shape[1]):
                through = by_mean[c] + by_variance[c] * (x[n, c] - mean[c])
                dx[n, c] = dy[n, c] * (inverse[c] * gamma[c]) + through
        else:
            for c in range(x.shape[1]):
                dx[n, c] = dy[n, c] * (inverse[c] * gamma[c])


def _row_grain(x):
    return max(1, _GRAIN // max(1, x.shape[1]))


def _total(blocks):
    # One block after the other: np.sum would pair them.
    total = blocks[0].copy() if len(blocks) else np.zeros(blocks.shape[1:])
    for block in blocks[1:]:
        total += block
    return total


def moments(x, counts):
    """Return the mean and the (biased) variance of each channel over the rows that count.

    Parameters
    ----------
    x : ndarray, shape (N, C)
    counts : ndarray, shape (N,), bool

    Returns
    -------
    mean, variance : ndarray, shape (C,), float64
        Zeros if no row counts.
    number : int
        How many rows count.
    """
    if type(x) is not np.ndarray:
        return expressions.batch_moments(x, counts)
    blocks = -(-x.shape[0] // BLOCK)
    number = int(np.count_nonzero(counts))
    grain = max(1, _GRAIN // max(1, BLOCK * x.shape[1]))
    sums = np.empty((blocks, x.shape[1]))
    parallel_for(_sum_blocks, blocks, grain, x, counts, sums)
    mean = _total(sums) / max(1, number)
    parallel_for(_square_blocks, blocks, grain, x, counts, mean, sums)
    return mean, _total(sums) / max(1, number), number


def normalize(x, mean, inverse, gamma, beta):
    """Return ``(x - mean) * inverse * gamma + beta``.

    Parameters
    ----------
    x : ndarray, shape (N, C)
    mean, inverse, gamma, beta : ndarray, shape (C,), float64

    Returns
    -------
    ndarray, shape (N, C)
        Of the type of `x`.
    """
    if type(x) is not np.ndarray:
        return expressions.batch_normalize(x, mean, inverse, gamma, beta)
    y = np.empty_like(x)
    parallel_for(_normalize, x.shape[0], _row_grain(x), x, mean, inverse, gamma, beta, y)
    return y


def gradients(x, counts, number, mean, inverse, gamma, dy, d_mean, d_variance):
    """Return the gradients of batch normalization in training.

    Parameters
    ----------
    x, dy : ndarray, shape (N, C)
    counts : ndarray, shape (N,), bool
    number : int
        How many rows count.
    mean, inverse, gamma : ndarray, shape (C,), float64
        As in the forward pass; `inverse` is ``1 / sqrt(variance + epsilon)``.
    d_mean, d_variance : ndarray, shape (C,), or 0.0
        What comes in from other uses of the moments.

    Returns
    -------
    dx : ndarray, shape (N, C)
    d_gamma, d_beta : ndarray, shape (C,), float64
    """
    if type(x) is not np.ndarray:
        return expressions.batch_gradients(x, counts, number, mean, inverse, gamma, dy, d_mean, d_variance)
    blocks = -(-x.shape[0] // BLOCK)
    sums = np.empty((blocks, 2, x.shape[1]))
    grain = max(1, _GRAIN // max(1, BLOCK * x.shape[1]))
    parallel_for(_gradient_blocks, blocks, grain, x, counts, mean, inverse, dy, sums)
    d_beta, d_gamma = _total(sums)
    number = max(1, number)
    by_mean = (d_mean - d_beta * gamma * inverse) / number
    by_variance = (2.0 * d_variance - d_gamma * gamma * inverse * inverse) / number
    dx = np.empty_like(x)
    parallel_for(
        _gradient_rows, x.shape[0], _row_grain(x), x, counts, mean, inverse, gamma, by_mean, by_variance, dy, dx
    )
    return dx, d_gamma, d_beta
