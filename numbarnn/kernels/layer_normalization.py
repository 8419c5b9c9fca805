"""Layer normalization: each row brought to mean 0 and variance 1, then scaled and shifted; and the gradient.

Arrays are C-contiguous: `x`, `y`, `dy`, `dx` `(N, C)`, `gamma`, `beta` `(C,)`, of one type, float32 or float64;
`mean`, `inverse` `(N,)` float64.

Rows are independent and everything is computed in float64 and rounded once: a mean that is large beside the deviations
costs no digits. The order of a row's sums depends on its length alone (LLVM may reassociate them into vectors); the
gradients of `gamma` and `beta` are summed over blocks of a fixed number of rows, then over the blocks: the bits are the
same for any number of threads. A row whose incoming gradient is zero throughout (a masked timestep) is not looked at
on the way back: no NaN leaks from it. Arrays on the GPU go to `expressions`.
"""

import numpy as np

from ..jit import njit, parallel_for
from . import expressions

BLOCK = 64  # rows; fixed, because it decides the order of the sums
_GRAIN = 1 << 16  # about this many elements are worth handing to another thread
_reassociating = njit(fastmath={"reassoc", "contract"})  # sums become vectors; NaN and infinity stay what they are


@_reassociating
def normalize_rows(start, stop, x, gamma, beta, epsilon, mean, inverse, y):
    """Write the normalized rows start..stop, and the mean and the inverse deviation of each; see `normalize`."""
    channels = x.shape[1]
    for n in range(start, stop):
        total = 0.0
        for c in range(channels):
            total += np.float64(x[n, c])
        center = total / channels
        squares = 0.0
        for c in range(channels):
            difference = x[n, c] - center
            squares += difference * difference
        factor = 1.0 / np.sqrt(squares / channels + epsilon)
        mean[n] = center
        inverse[n] = factor
        for c in range(channels):
            y[n, c] = (x[n, c] - center) * factor * gamma[c] + beta[c]


@_reassociating
def _gradient_blocks(start, stop, x, gamma, mean, inverse, dy, dx, sums):
    # sums[k, 0] = the sum of dy, sums[k, 1] = the sum of dy * normalized x, over the rows of block k
    channels = x.shape[1]
    for k in range(start, stop):
        sums[k] = 0.0
        for n in range(k * BLOCK, min(x.shape[0], (k + 1) * BLOCK)):
            counts = False
            for c in range(channels):
                counts |= dy[n, c] != 0.0
            if not counts:
                dx[n] = 0.0
                continue
            center, factor = mean[n], inverse[n]
            plain = weighted = 0.0
            for c in range(channels):
                d = np.float64(dy[n, c]) * gamma[c]
                plain += d
                weighted += d * ((x[n, c] - center) * factor)
            plain /= channels
            weighted /= channels
            for c in range(channels):
                normalized = (x[n, c] - center) * factor
                d = np.float64(dy[n, c])
                dx[n, c] = (d * gamma[c] - plain - normalized * weighted) * factor
                sums[k, 0, c] += d
                sums[k, 1, c] += d * normalized


def normalize(x, gamma, beta, epsilon):
    """Return the normalized rows, scaled and shifted.

    Parameters
    ----------
    x : ndarray, shape (N, C)
    gamma, beta : ndarray, shape (C,)
    epsilon : float
        Added to the variance.

    Returns
    -------
    y : ndarray, shape (N, C)
        Of the type of `x`.
    mean, inverse : ndarray, shape (N,), float64
        Of each row; `inverse` is ``1 / sqrt(variance + epsilon)``.
    """
    if type(x) is not np.ndarray:
        return expressions.layer_normalize(x, gamma, beta, epsilon)
    rows, channels = x.shape
    y, mean, inverse = np.empty_like(x), np.empty(rows), np.empty(rows)
    grain = max(1, _GRAIN // max(1, channels))
    parallel_for(normalize_rows, rows, grain, x, gamma, beta, float(epsilon), mean, inverse, y)
    return y, mean, inverse


def gradients(x, gamma, mean, inverse, dy):
    """Return the gradients of `normalize`.

    Parameters
    ----------
    x, dy : ndarray, shape (N, C)
    gamma : ndarray, shape (C,)
    mean, inverse : ndarray, shape (N,), float64
        As `normalize` returned them.

    Returns
    -------
    dx : ndarray, shape (N, C)
    d_gamma, d_beta : ndarray, shape (C,), float64
    """
    if type(x) is not np.ndarray:
        return expressions.layer_gradients(x, gamma, mean, inverse, dy)
    rows, channels = x.shape
    blocks = -(-rows // BLOCK)
    dx, sums = np.empty_like(x), np.empty((blocks, 2, channels))
    grain = max(1, _GRAIN // max(1, BLOCK * channels))
    parallel_for(_gradient_blocks, blocks, grain, x, gamma, mean, inverse, dy, dx, sums)
    d_beta, d_gamma = np.add.reduce(sums, axis=0)  # along an axis that is not the last one: block after block
    return dx, d_gamma, d_beta
