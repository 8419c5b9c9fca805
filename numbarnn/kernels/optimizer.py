"""Optimizer updates over flat parameter buffers: one pass, one kernel call per step.

Every array is one-dimensional, C-contiguous and of one float dtype; parameters, gradients and slots share one layout
(`ParameterBuffer`). A kernel reads and writes each element once and elements do not depend on each other, so a
range may be split over threads anywhere without changing a bit. The equations are those of Keras 3.

The gradient is scaled (`scale`, for global-norm clipping; 1.0 leaves it alone bit for bit) and then clipped to
`[-limit, limit]` (infinity for none) on its way in. A NaN gradient stays NaN.

The kernels slice their range first and count from zero: an index that could be negative would have to be wrapped, and
LLVM would not vectorise the loop (measured: Adam 2.5 ns an element instead of 0.3).
"""

import math

import numpy as np

from ..jit import njit, parallel_for

# Below this many elements per thread a hand-off to the pool costs more than the update itself.
GRAIN = 1 << 16

# Sums of squares are formed in blocks of this size, each by one thread, then added in order.
_BLOCK = 8192


@njit
def _sgd(start, stop, weight, gradient, rate, scale, limit):
    weight, gradient = weight[start:stop], gradient[start:stop]
    cast = weight.dtype.type
    rate, scale, limit = cast(rate), cast(scale), cast(limit)
    for i in range(weight.size):
        g = gradient[i] * scale
        g = limit if g > limit else g
        g = -limit if g < -limit else g
        weight[i] -= rate * g


@njit
def _sgd_momentum(start, stop, weight, gradient, velocity, rate, momentum, nesterov, scale, limit):
    weight, gradient, velocity = weight[start:stop], gradient[start:stop], velocity[start:stop]
    cast = weight.dtype.type
    rate, momentum, scale, limit = cast(rate), cast(momentum), cast(scale), cast(limit)
    if nesterov:
        for i in range(weight.size):
            g = gradient[i] * scale
            g = limit if g > limit else g
            g = -limit if g < -limit else g
            step = rate * g
            v = momentum * velocity[i] - step
            velocity[i] = v
            weight[i] += momentum * v - step
    else:
        for i in range(weight.size):
            g = gradient[i] * scale
            g = limit if g > limit else g
            g = -limit if g < -limit else g
            v = momentum * velocity[i] - rate * g
            velocity[i] = v
            weight[i] += v


@njit
def _adam(start, stop, weight, gradient, mean, square, alpha, beta_1, beta_2, epsilon, scale, limit):
    weight, gradient, mean, square = weight[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    alpha, epsilon, scale, limit = cast(alpha), cast(epsilon), cast(scale), cast(limit)
    for i in range(weight.size):
        g = gradient[i] * scale
        g = limit if g > limit else g
        g = -limit if g < -limit else g
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        weight[i] -= alpha * m / (np.sqrt(v) + epsilon)


@njit
def _adam_amsgrad(start, stop, weight, gradient, mean, square, peak, alpha, beta_1, beta_2, epsilon, scale, limit):
    weight, gradient, mean = weight[start:stop], gradient[start:stop], mean[start:stop]
    square, peak = square[start:stop], peak[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    alpha, epsilon, scale, limit = cast(alpha), cast(epsilon), cast(scale), cast(limit)
    for i in range(weight.size):
        g = gradient[i] * scale
        g = limit if g > limit else g
        g = -limit if g < -limit else g
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        top = peak[i] if peak[i] > v else v
        peak[i] = top
        weight[i] -= alpha * m / (np.sqrt(top) + epsilon)


@njit
def _rmsprop(
    start, stop, weight, gradient, square, mean, velocity, rate, rho, epsilon, momentum, centered, scale, limit
):
    weight, gradient, square = weight[start:stop], gradient[start:stop], square[start:stop]
    mean, velocity = mean[start:stop], velocity[start:stop]
    cast = weight.dtype.type
    gain, rho, rate, epsilon, momentum = cast(1.0 - rho), cast(rho), cast(rate), cast(epsilon), cast(momentum)
    scale, limit = cast(scale), cast(limit)
    # `mean` and `velocity` are empty where they are not used.
    for i in range(weight.size):
        g = gradient[i] * scale
        g = limit if g > limit else g
        g = -limit if g < -limit else g
        v = rho * square[i] + gain * (g * g)
        square[i] = v
        if centered:
            average = rho * mean[i] + gain * g
            mean[i] = average
            v -= average * average
        step = rate * g / np.sqrt(v + epsilon)
        if momentum > 0:
            step += momentum * velocity[i]
            velocity[i] = step
        weight[i] -= step


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


def square_sum(flat, start, stop):
    """Sum of squares of `flat[start:stop]`, accumulated in float64; the same bits for any number of threads.

    Parameters
    ----------
    flat : ndarray of float32 or float64, shape (n,)
    start, stop : int

    Returns
    -------
    float
    """
    if stop <= start:
        return 0.0
    blocks = -(-(stop - start) // _BLOCK)
    sums = np.empty(blocks, np.float64)
    parallel_for(_square_sums, blocks, GRAIN // _BLOCK, flat, start, stop, sums)
    return math.fsum(sums) if np.isfinite(sums).all() else float(sums.sum())


def scale_range(flat, start, stop, factor):
    """Multiply `flat[start:stop]` by `factor`, in place."""
    parallel_for(_scale, stop - start, GRAIN, flat[start:stop], factor)


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


def sgd(start, stop, weight, gradient, rate, scale=1.0, limit=math.inf):
    """`w -= rate * g` over [start, stop)."""
    _launch(_sgd, start, stop, (weight, gradient), rate, scale, limit)


def sgd_momentum(start, stop, weight, gradient, velocity, rate, momentum, nesterov, scale=1.0, limit=math.inf):
    """`v = momentum * v - rate * g`, then `w += v` (nesterov: `w += momentum * v - rate * g`), over [start, stop)."""
    _launch(_sgd_momentum, start, stop, (weight, gradient, velocity), rate, momentum, nesterov, scale, limit)


def adam(start, stop, weight, gradient, mean, square, alpha, beta_1, beta_2, epsilon, scale=1.0, limit=math.inf):
    """Adam over [start, stop); `alpha` is the bias-corrected rate `lr * sqrt(1 - beta_2**t) / (1 - beta_1**t)`."""
    _launch(_adam, start, stop, (weight, gradient, mean, square), alpha, beta_1, beta_2, epsilon, scale, limit)


def adam_amsgrad(
    start, stop, weight, gradient, mean, square, peak, alpha, beta_1, beta_2, epsilon, scale=1.0, limit=math.inf
):
    """Adam that divides by the largest second moment seen so far (`peak`), over [start, stop)."""
    arrays = weight, gradient, mean, square, peak
    _launch(_adam_amsgrad, start, stop, arrays, alpha, beta_1, beta_2, epsilon, scale, limit)


def rmsprop(
    start,
    stop,
    weight,
    gradient,
    square,
    mean,
    velocity,
    rate,
    rho,
    epsilon,
    momentum,
    centered,
    scale=1.0,
    limit=math.inf,
):
    """RMSprop over [start, stop): ``v = rho v + (1 - rho) g**2``, then ``w -= rate * g / sqrt(v + epsilon)``.

    `centered` subtracts the squared mean gradient below the root (`mean`), `momentum` accumulates the steps
    (`velocity`); those arrays may be empty where they are not used.
    """
    arrays = weight, gradient, square, mean, velocity
    _launch(_rmsprop, start, stop, arrays, rate, rho, epsilon, momentum, centered, scale, limit)


def _launch(kernel, start, stop, arrays, *numbers):
    if stop - start < 2 * GRAIN:
        kernel(start, stop, *arrays, *numbers)
    else:
        parallel_for(kernel, stop - start, GRAIN, *(a[start:stop] for a in arrays), *numbers)
