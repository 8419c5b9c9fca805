"""Passes over flat buffers: how a range is spread over threads, and what optimizers do to gradients and averages.

Every array is one-dimensional, C-contiguous and of one float dtype. Elements do not depend on each other, and sums are
formed in blocks that do not depend on threads either, so a range may be split anywhere without changing a bit.
"""

import math

import numpy as np

from ..jit import njit, parallel_for

# Below this many elements per thread a hand-off to the pool costs more than the pass itself.
GRAIN = 1 << 16

# Sums of squares are formed in blocks of this size, each by one thread, then added in order.
_BLOCK = 8192


def launch(kernel, start, stop, arrays, *numbers):
    """Call ``kernel(start, stop, *arrays, *numbers)``, on several threads where the range is long enough to pay.

    Parameters
    ----------
    kernel : Dispatcher
    start, stop : int
    arrays : sequence of ndarray or of device array, shape (n,)
        Where the range is split, `kernel` gets the slice [start, stop) of each. One may be empty, for a state that an
        optimizer does not keep.
    *numbers : float
    """
    if type(arrays[0]) is not np.ndarray:
        from .flat_cuda import launch as launch_on_gpu  # which imports this module

        launch_on_gpu(kernel, start, stop, arrays, *numbers)
    elif stop - start < 2 * GRAIN:
        kernel(start, stop, *arrays, *numbers)
    else:
        parallel_for(kernel, stop - start, GRAIN, *(a[start:stop] for a in arrays), *numbers)


@njit
def _square_sums(start, stop, flat, first, last, sums):
    # Eight independent float64 chains per block: wide enough to keep an FMA unit busy, the same for every split.
    for block in range(start, stop):
        begin = first + block * _BLOCK
        end = min(begin + _BLOCK, last)
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        i = begin
        while i + 8 <= end:
            s0 += np.float64(flat[i]) * np.float64(flat[i])
            s1 += np.float64(flat[i + 1]) * np.float64(flat[i + 1])
            s2 += np.float64(flat[i + 2]) * np.float64(flat[i + 2])
            s3 += np.float64(flat[i + 3]) * np.float64(flat[i + 3])
            s4 += np.float64(flat[i + 4]) * np.float64(flat[i + 4])
            s5 += np.float64(flat[i + 5]) * np.float64(flat[i + 5])
            s6 += np.float64(flat[i + 6]) * np.float64(flat[i + 6])
            s7 += np.float64(flat[i + 7]) * np.float64(flat[i + 7])
            i += 8
        while i < end:
            s0 += np.float64(flat[i]) * np.float64(flat[i])
            i += 1
        sums[block] = ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@njit
def _scale(start, stop, flat, factor):
    part, factor = flat[start:stop], flat.dtype.type(factor)
    for i in range(part.size):
        part[i] *= factor


@njit
def _accumulate(start, stop, total, gradient):
    total, gradient = total[start:stop], gradient[start:stop]
    for i in range(total.size):
        total[i] += gradient[i]


@njit
def _mean(start, stop, total, gradient, count):
    total, gradient = total[start:stop], gradient[start:stop]
    count = total.dtype.type(count)
    for i in range(total.size):
        gradient[i] = (gradient[i] + total[i]) / count


@njit
def _average(start, stop, average, weight, momentum):
    average, weight = average[start:stop], weight[start:stop]
    share, momentum = average.dtype.type(1.0 - momentum), average.dtype.type(momentum)
    for i in range(average.size):
        average[i] = momentum * average[i] + share * weight[i]


def square_sum(flat, start, stop):
    """Sum of squares of `flat[start:stop]`, accumulated in float64; the same bits for any number of threads.

    Parameters
    ----------
    flat : ndarray or device array of float32 or float64, shape (n,)
    start, stop : int

    Returns
    -------
    float
    """
    if stop <= start:
        return 0.0
    if type(flat) is not np.ndarray:
        part = flat[start:stop].astype(np.float64)
        return float((part * part).sum())
    blocks = -(-(stop - start) // _BLOCK)
    sums = np.empty(blocks, np.float64)
    parallel_for(_square_sums, blocks, GRAIN // _BLOCK, flat, start, stop, sums)
    return math.fsum(sums) if np.isfinite(sums).all() else float(sums.sum())


def scale_range(flat, start, stop, factor):
    """Multiply `flat[start:stop]` by `factor`, in place."""
    launch(_scale, start, stop, (flat,), factor)


def clip_by_norm(flat, ranges, clipnorm):
    """Scale each range of `flat` down, in place, so that its Euclidean norm is at most `clipnorm`.

    Parameters
    ----------
    flat : ndarray of float32 or float64, shape (n,)
    ranges : iterable of (start, stop)
        One range per variable.
    clipnorm : float
    """
    for start, stop in ranges:
        norm = math.sqrt(square_sum(flat, start, stop))
        if not norm <= clipnorm:  # also when the norm is NaN: the update must show it
            scale_range(flat, start, stop, clipnorm / norm)


def accumulate(total, gradient, start, stop):
    """``total += gradient`` over [start, stop)."""
    launch(_accumulate, start, stop, (total, gradient))


def mean_of_accumulated(total, gradient, start, stop, count):
    """``gradient = (gradient + total) / count`` over [start, stop): a mean of `count` gradients."""
    launch(_mean, start, stop, (total, gradient), float(count))


def moving_average(average, weight, momentum):
    """``average = momentum * average + (1 - momentum) * weight``."""
    launch(_average, 0, average.size, (average, weight), momentum)
