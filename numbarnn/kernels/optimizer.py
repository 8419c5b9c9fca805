"""Update rules of the optimizers over flat parameter buffers: one pass, one kernel call per step.

Every array is one-dimensional, C-contiguous and of one float dtype; parameters, gradients and slots share one layout
(`ParameterBuffer`). A kernel reads and writes each element once and elements do not depend on each other, so a
range may be split over threads anywhere without changing a bit. The equations are those of Keras 3.

All rules take the same last three numbers. The weight is multiplied by `keep` first (decoupled weight decay; 1.0
leaves it alone bit for bit). The gradient is multiplied by `scale` (for global-norm clipping) and then clipped to
``[-limit, limit]`` (infinity for none) on its way in. A NaN gradient stays NaN.

The kernels slice their range first and count from zero: an index that could be negative would have to be wrapped, and
LLVM would not vectorise the loop (measured: Adam 2.5 ns an element instead of 0.3).

On the GPU the same functions run for one element each (`flat_cuda`), where Numba has `math.sqrt` and no `numpy.sqrt`.
"""

import math

import numpy as np

from ..jit import device, njit


@device
def _incoming(gradient, scale, limit):
    g = gradient * scale
    g = limit if g > limit else g
    return -limit if g < -limit else g


@njit
def prepare(start, stop, weight, gradient, keep, scale, limit):
    """Weight decay and clipping alone, for rules that are not of one pass: the gradient is clipped in place."""
    weight, gradient = weight[start:stop], gradient[start:stop]
    cast = weight.dtype.type
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        weight[i] *= keep
        gradient[i] = _incoming(gradient[i], scale, limit)


@njit
def sgd(start, stop, weight, gradient, rate, keep, scale, limit):
    """``w -= rate * g``."""
    weight, gradient = weight[start:stop], gradient[start:stop]
    cast = weight.dtype.type
    rate, keep, scale, limit = cast(rate), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        weight[i] = weight[i] * keep - rate * g


@njit
def sgd_momentum(start, stop, weight, gradient, velocity, rate, momentum, nesterov, keep, scale, limit):
    """``v = momentum * v - rate * g``, then ``w += v`` (nesterov: ``w += momentum * v - rate * g``)."""
    weight, gradient, velocity = weight[start:stop], gradient[start:stop], velocity[start:stop]
    cast = weight.dtype.type
    rate, momentum, keep, scale, limit = cast(rate), cast(momentum), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        step = rate * _incoming(gradient[i], scale, limit)
        v = momentum * velocity[i] - step
        velocity[i] = v
        weight[i] = weight[i] * keep + (momentum * v - step if nesterov else v)


@njit
def adam(start, stop, weight, gradient, mean, square, alpha, beta_1, beta_2, epsilon, keep, scale, limit):
    """Adam; `alpha` is the bias-corrected rate ``lr * sqrt(1 - beta_2**t) / (1 - beta_1**t)``."""
    weight, gradient, mean, square = weight[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    alpha, epsilon, keep, scale, limit = cast(alpha), cast(epsilon), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        weight[i] = weight[i] * keep - alpha * m / (math.sqrt(v) + epsilon)


@njit
def adam_amsgrad(start, stop, weight, gradient, mean, square, peak, alpha, beta_1, beta_2, epsilon, keep, scale, limit):
    """Adam that divides by the largest second moment seen so far (`peak`)."""
    weight, gradient, mean = weight[start:stop], gradient[start:stop], mean[start:stop]
    square, peak = square[start:stop], peak[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    alpha, epsilon, keep, scale, limit = cast(alpha), cast(epsilon), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        top = peak[i] if peak[i] > v else v
        peak[i] = top
        weight[i] = weight[i] * keep - alpha * m / (math.sqrt(top) + epsilon)


@njit
def nadam(
    start, stop, weight, gradient, mean, square, along, across, correction, beta_1, beta_2, epsilon, keep, scale, limit
):
    """Adam with Nesterov momentum: ``w -= (along * m + across * g) / (sqrt(correction * v) + epsilon)``."""
    weight, gradient, mean, square = weight[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    along, across, correction, epsilon = cast(along), cast(across), cast(correction), cast(epsilon)
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        weight[i] = weight[i] * keep - (along * m + across * g) / (math.sqrt(correction * v) + epsilon)


@njit
def adamax(start, stop, weight, gradient, mean, norm, alpha, beta_1, beta_2, epsilon, keep, scale, limit):
    """``u = max(beta_2 * u, |g|)``, then ``w -= alpha * m / (u + epsilon)``; `alpha` is ``lr / (1 - beta_1**t)``."""
    weight, gradient, mean, norm = weight[start:stop], gradient[start:stop], mean[start:stop], norm[start:stop]
    cast = weight.dtype.type
    gain, beta_2 = cast(1.0 - beta_1), cast(beta_2)
    alpha, epsilon, keep, scale, limit = cast(alpha), cast(epsilon), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        m = mean[i] + (g - mean[i]) * gain
        u, size = beta_2 * norm[i], abs(g)
        u = size if size > u else u  # a NaN gradient shows in `m`
        mean[i] = m
        norm[i] = u
        weight[i] = weight[i] * keep - alpha * m / (u + epsilon)


@njit
def lamb_direction(
    start, stop, weight, gradient, mean, square, correction_1, correction_2, beta_1, beta_2, epsilon, keep, scale, limit
):
    """Decay the weight and turn the gradient, in place, into Adam's ``m / (sqrt(v) + epsilon)``, bias-corrected."""
    weight, gradient, mean, square = weight[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2 = cast(1.0 - beta_1), cast(1.0 - beta_2)
    correction_1, correction_2, epsilon = cast(correction_1), cast(correction_2), cast(epsilon)
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        m = mean[i] + (g - mean[i]) * gain_1
        v = square[i] + (g * g - square[i]) * gain_2
        mean[i] = m
        square[i] = v
        weight[i] *= keep
        gradient[i] = correction_1 * m / (math.sqrt(correction_2 * v) + epsilon)


@njit
def rmsprop(start, stop, weight, gradient, square, velocity, mean, rate, rho, momentum, epsilon, keep, scale, limit):
    """``v = rho * v + (1 - rho) * g**2``, then ``w -= rate * g / sqrt(v + epsilon)``.

    With `mean`, the squared mean gradient is subtracted below the root; with `velocity`, steps accumulate. Those arrays
    are empty where they are not used.
    """
    centered, moving = mean.size > 0, velocity.size > 0
    weight, gradient, square = weight[start:stop], gradient[start:stop], square[start:stop]
    velocity, mean = velocity[start:stop], mean[start:stop]
    cast = weight.dtype.type
    gain, rho, rate, epsilon, momentum = cast(1.0 - rho), cast(rho), cast(rate), cast(epsilon), cast(momentum)
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        v = rho * square[i] + gain * (g * g)
        square[i] = v
        if centered:
            average = rho * mean[i] + gain * g
            mean[i] = average
            v -= average * average
        step = rate * g / math.sqrt(v + epsilon)
        if moving:
            step += momentum * velocity[i]
            velocity[i] = step
        weight[i] = weight[i] * keep - step


@njit
def adagrad(start, stop, weight, gradient, total, rate, epsilon, keep, scale, limit):
    """``a += g**2``, then ``w -= rate * g / sqrt(a + epsilon)``."""
    weight, gradient, total = weight[start:stop], gradient[start:stop], total[start:stop]
    cast = weight.dtype.type
    rate, epsilon, keep, scale, limit = cast(rate), cast(epsilon), cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        a = total[i] + g * g
        total[i] = a
        weight[i] = weight[i] * keep - rate * g / math.sqrt(a + epsilon)


@njit
def adadelta(start, stop, weight, gradient, square, moved, rate, rho, epsilon, keep, scale, limit):
    """``step = g * sqrt((d + epsilon) / (v + epsilon))``, `v` and `d` running mean squares of gradients and steps."""
    weight, gradient, square, moved = weight[start:stop], gradient[start:stop], square[start:stop], moved[start:stop]
    cast = weight.dtype.type
    gain, rho, rate, epsilon = cast(1.0 - rho), cast(rho), cast(rate), cast(epsilon)
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        v = rho * square[i] + gain * (g * g)
        square[i] = v
        step = math.sqrt(moved[i] + epsilon) * g / math.sqrt(v + epsilon)
        moved[i] = rho * moved[i] + gain * (step * step)
        weight[i] = weight[i] * keep - rate * step


@njit
def lion(start, stop, weight, gradient, mean, rate, beta_1, beta_2, keep, scale, limit):
    """``w -= rate * sign(beta_1 * m + (1 - beta_1) * g)``, then ``m = beta_2 * m + (1 - beta_2) * g``."""
    weight, gradient, mean = weight[start:stop], gradient[start:stop], mean[start:stop]
    cast = weight.dtype.type
    gain_1, gain_2, beta_1, beta_2 = cast(1.0 - beta_1), cast(1.0 - beta_2), cast(beta_1), cast(beta_2)
    rate, keep, scale, limit = cast(rate), cast(keep), cast(scale), cast(limit)
    one = cast(1.0)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        c = beta_1 * mean[i] + gain_1 * g
        c = one if c > 0 else (-one if c < 0 else c)  # zero and NaN stay
        mean[i] = beta_2 * mean[i] + gain_2 * g
        weight[i] = weight[i] * keep - rate * c


@njit
def ftrl(start, stop, weight, gradient, total, linear, rate, power, l1, l2, shrinkage, keep, scale, limit):
    """Follow the regularised leader: `total` sums squared gradients, `linear` is the leader's linear term.

    `power` is the negative of the learning rate's power, `l2` includes ``beta / (2 * rate)``.
    """
    weight, gradient, total, linear = weight[start:stop], gradient[start:stop], total[start:stop], linear[start:stop]
    root = power == 0.5
    cast = weight.dtype.type
    rate, power, l1, l2, shrinkage = cast(rate), cast(power), cast(l1), cast(2.0 * l2), cast(2.0 * shrinkage)
    keep, scale, limit = cast(keep), cast(scale), cast(limit)
    for i in range(weight.size):
        g = _incoming(gradient[i], scale, limit)
        w = weight[i] * keep
        a = total[i] + g * g
        before = math.sqrt(total[i]) if root else total[i] ** power
        after = math.sqrt(a) if root else a**power
        total[i] = a
        z = linear[i] + (g + shrinkage * w - (after - before) / rate * w)
        linear[i] = z
        inside = l1 if z > l1 else (-l1 if z < -l1 else z)
        weight[i] = (inside - z) / (after / rate + l2)


@njit
def adafactor_rows(start, stop, gradient, rows, share, epsilon):
    """``rows = (1 - share) * rows + share * mean(g**2 + epsilon)`` over the last axis; [start, stop) counts rows.

    `gradient` has shape (rows, columns), `rows` (rows,).
    """
    cast = rows.dtype.type
    for i in range(start, stop):
        total = 0.0
        for g in gradient[i]:
            total += np.float64(g) * np.float64(g) + epsilon
        rows[i] += cast(share) * (cast(total / gradient.shape[1]) - rows[i])


@njit
def adafactor_columns(start, stop, gradient, columns, share, epsilon):
    """As `adafactor_rows`, over the axis before the last; [start, stop) counts blocks of columns.

    `gradient` has shape (blocks, rows, columns), `columns` (blocks, columns).
    """
    cast = columns.dtype.type
    sums = np.empty(columns.shape[1], np.float64)
    for block in range(start, stop):
        sums[:] = 0.0
        for row in gradient[block]:
            for j in range(row.size):
                sums[j] += np.float64(row[j]) * np.float64(row[j]) + epsilon
        for j in range(sums.size):
            columns[block, j] += cast(share) * (cast(sums[j] / gradient.shape[1]) - columns[block, j])


@njit
def adafactor_direction(start, stop, gradient, velocity, rows, columns):
    """``v`` is the outer product of its row and column means; the gradient becomes, in place, ``g / sqrt(v)``.

    `gradient` and `velocity` have shape (blocks, rows, columns), `rows` and `columns` lack one axis; [start, stop)
    counts blocks.
    """
    cast = velocity.dtype.type
    for block in range(start, stop):
        total = 0.0
        for row in rows[block]:
            total += row
        mean = cast(total / rows.shape[1])
        for i in range(rows.shape[1]):
            share = rows[block, i] / mean
            g, v = gradient[block, i], velocity[block, i]
            for j in range(g.size):
                v[j] = share * columns[block, j]
                g[j] /= math.sqrt(v[j])


@njit
def adafactor_vector(start, stop, gradient, velocity, share, epsilon):
    """As `adafactor_direction`, for one axis: `velocity` itself is the running mean of ``g**2 + epsilon``."""
    gradient, velocity = gradient[start:stop], velocity[start:stop]
    cast = velocity.dtype.type
    share, epsilon = cast(share), cast(epsilon)
    for i in range(gradient.size):
        g = gradient[i]
        v = velocity[i] + share * (g * g + epsilon - velocity[i])
        velocity[i] = v
        gradient[i] = g / math.sqrt(v)
