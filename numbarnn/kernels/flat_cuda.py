"""The kernels of `flat` and `optimizer` on the GPU: the same functions, each thread for a range of one element.

The formulas are those of the CPU, called as they are. Products and sums are not fused on either side, so an update by
the same gradients has the same bits.
"""

import numpy as np

from .. import cuda
from .flat import _accumulate, _average, _mean, _scale
from .optimizer import (
    adadelta,
    adagrad,
    adam,
    adam_amsgrad,
    adamax,
    ftrl,
    lamb_direction,
    lion,
    nadam,
    prepare,
    rmsprop,
    sgd,
    sgd_momentum,
)

__all__ = ["launch"]

_THREADS = 256


@cuda.kernel
def _scale_elements(start, stop, flat, factor):
    i = start + cuda.grid(1)
    if i < stop:
        _scale(i, i + 1, flat, factor)


@cuda.kernel
def _accumulate_elements(start, stop, total, gradient):
    i = start + cuda.grid(1)
    if i < stop:
        _accumulate(i, i + 1, total, gradient)


@cuda.kernel
def _mean_elements(start, stop, total, gradient, count):
    i = start + cuda.grid(1)
    if i < stop:
        _mean(i, i + 1, total, gradient, count)


@cuda.kernel
def _average_elements(start, stop, average, weight, momentum):
    i = start + cuda.grid(1)
    if i < stop:
        _average(i, i + 1, average, weight, momentum)


@cuda.kernel
def _prepare(start, stop, weight, gradient, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        prepare(i, i + 1, weight, gradient, keep, scale, limit)


@cuda.kernel
def _sgd(start, stop, weight, gradient, rate, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        sgd(i, i + 1, weight, gradient, rate, keep, scale, limit)


@cuda.kernel
def _sgd_momentum(start, stop, weight, gradient, velocity, rate, momentum, nesterov, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        sgd_momentum(i, i + 1, weight, gradient, velocity, rate, momentum, nesterov, keep, scale, limit)


@cuda.kernel
def _adam(start, stop, weight, gradient, mean, square, alpha, beta_1, beta_2, epsilon, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        adam(i, i + 1, weight, gradient, mean, square, alpha, beta_1, beta_2, epsilon, keep, scale, limit)


@cuda.kernel
def _adam_amsgrad(
    start, stop, weight, gradient, mean, square, peak, alpha, beta_1, beta_2, epsilon, keep, scale, limit
):
    i = start + cuda.grid(1)
    if i < stop:
        adam_amsgrad(i, i + 1, weight, gradient, mean, square, peak, alpha, beta_1, beta_2, epsilon, keep, scale, limit)


@cuda.kernel
def _nadam(
    start, stop, weight, gradient, mean, square, along, across, correction, beta_1, beta_2, epsilon, keep, scale, limit
):
    i = start + cuda.grid(1)
    if i < stop:
        nadam(
            i,
            i + 1,
            weight,
            gradient,
            mean,
            square,
            along,
            across,
            correction,
            beta_1,
            beta_2,
            epsilon,
            keep,
            scale,
            limit,
        )


@cuda.kernel
def _adamax(start, stop, weight, gradient, mean, norm, alpha, beta_1, beta_2, epsilon, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        adamax(i, i + 1, weight, gradient, mean, norm, alpha, beta_1, beta_2, epsilon, keep, scale, limit)


@cuda.kernel
def _lamb_direction(
    start, stop, weight, gradient, mean, square, correction_1, correction_2, beta_1, beta_2, epsilon, keep, scale, limit
):
    i = start + cuda.grid(1)
    if i < stop:
        lamb_direction(
            i,
            i + 1,
            weight,
            gradient,
            mean,
            square,
            correction_1,
            correction_2,
            beta_1,
            beta_2,
            epsilon,
            keep,
            scale,
            limit,
        )


@cuda.kernel
def _rmsprop(start, stop, weight, gradient, square, velocity, mean, rate, rho, momentum, epsilon, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        rmsprop(i, i + 1, weight, gradient, square, velocity, mean, rate, rho, momentum, epsilon, keep, scale, limit)


@cuda.kernel
def _adagrad(start, stop, weight, gradient, total, rate, epsilon, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        adagrad(i, i + 1, weight, gradient, total, rate, epsilon, keep, scale, limit)


@cuda.kernel
def _adadelta(start, stop, weight, gradient, square, moved, rate, rho, epsilon, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        adadelta(i, i + 1, weight, gradient, square, moved, rate, rho, epsilon, keep, scale, limit)


@cuda.kernel
def _lion(start, stop, weight, gradient, mean, rate, beta_1, beta_2, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        lion(i, i + 1, weight, gradient, mean, rate, beta_1, beta_2, keep, scale, limit)


@cuda.kernel
def _ftrl(start, stop, weight, gradient, total, linear, rate, power, l1, l2, shrinkage, keep, scale, limit):
    i = start + cuda.grid(1)
    if i < stop:
        ftrl(i, i + 1, weight, gradient, total, linear, rate, power, l1, l2, shrinkage, keep, scale, limit)


_TWINS = {
    _scale: _scale_elements,
    _accumulate: _accumulate_elements,
    _mean: _mean_elements,
    _average: _average_elements,
    prepare: _prepare,
    sgd: _sgd,
    sgd_momentum: _sgd_momentum,
    adam: _adam,
    adam_amsgrad: _adam_amsgrad,
    nadam: _nadam,
    adamax: _adamax,
    lamb_direction: _lamb_direction,
    rmsprop: _rmsprop,
    adagrad: _adagrad,
    adadelta: _adadelta,
    lion: _lion,
    ftrl: _ftrl,
}


def launch(kernel, start, stop, arrays, *numbers):
    """Do what ``kernel(start, stop, *arrays, *numbers)`` does, on the GPU.

    Parameters
    ----------
    kernel : Dispatcher
        Of `flat` or `optimizer`.
    start, stop : int
    arrays : sequence of device array, shape (n,)
        One may be empty, for a state that an optimizer does not keep.
    *numbers : float

    Raises
    ------
    NotImplementedError
        For a kernel of somebody else.
    """
    if kernel not in _TWINS:
        raise NotImplementedError(
            f"the update rule {kernel.__name__} has no twin for the GPU; write an `update_step` instead"
        )
    if stop > start:
        blocks = -(-(stop - start) // _THREADS)
        numbers = [x if isinstance(x, bool) else np.float64(x) for x in numbers]
        _TWINS[kernel].launch(blocks, _THREADS, start, stop, *arrays, *numbers)
