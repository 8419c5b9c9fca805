"""Activations and their gradients on whole arrays: the formulas of `simd_math` in one pass over memory.

Arrays are C-contiguous, one-dimensional, all of one length, float32 or float64. Every element is computed by itself:
the bits do not depend on the number of threads or on what stands beside it. So with the rows of a softmax, (N, C).
"""

import numpy as np

from ..jit import device, kernel_array, njit, parallel_for
from ..simd import advance, lanes, load_n, pointer, splat, store_n
from ..simd_math import ACTIVATIONS, activate, activation_slope, exp

__all__ = ["activate_row", "apply", "pull_back", "softmax", "softmax_row"]

_GRAIN = 1 << 16  # about this many elements are worth handing to another thread


@device
def activate_row(source, target, count, code):
    """Apply an activation to `count` elements behind a pointer; `target` may be `source`."""
    width = lanes(source)
    for i in range(0, count, width):
        store_n(target, i, count - i, activate(code, load_n(source, i, count - i)))


@device
def softmax_row(source, target, count):
    """Softmax of `count` elements behind a pointer; `target` may be `source`. Sums go from the first to the last."""
    width = lanes(source)
    top = source[0]
    for i in range(1, count):
        if not source[i] <= top:  # NaN stays
            top = source[i]
    shift = splat(top)
    for i in range(0, count, width):
        store_n(target, i, count - i, exp(load_n(source, i, count - i) - shift))
    total = target[0]
    for i in range(1, count):
        total += target[i]
    for i in range(0, count, width):
        store_n(target, i, count - i, load_n(target, i, count - i) / splat(total))


@njit
def _activate(start, stop, code, x, y):
    activate_row(advance(pointer(x), start), advance(pointer(y), start), stop - start, code)


@njit
def _softmax(start, stop, x, y):
    columns = x.shape[1]
    for row in range(start, stop):
        softmax_row(advance(pointer(x), row * columns), advance(pointer(y), row * columns), columns)


@njit
def _pull_back(start, stop, code, d, saved, result):
    # result = d * slope
    above, kept, target = pointer(d), pointer(saved), pointer(result)
    width = lanes(above)
    for i in range(start, stop, width):
        slope = activation_slope(code, load_n(kept, i, stop - i))
        store_n(target, i, stop - i, load_n(above, i, stop - i) * slope)


_CODES = {name: info.code for name, info in ACTIVATIONS.items()}


def _run(kernel, size, *args):
    if size < 2 * _GRAIN:  # the calls around it would take longer than a small kernel
        kernel(0, size, *args)
    else:
        parallel_for(kernel, size, _GRAIN, *args)


def apply(name, x):
    """Apply an activation.

    Parameters
    ----------
    name : str
        Of `simd_math.ACTIVATIONS`.
    x : ndarray of any shape, float32 or float64

    Returns
    -------
    ndarray
        Like `x`.
    """
    y = np.empty(x.shape, x.dtype)
    _run(_activate, y.size, _CODES[name], kernel_array(x).reshape(-1), y.reshape(-1))
    return y


def softmax(x):
    """Softmax along the last axis.

    Parameters
    ----------
    x : ndarray of shape (..., C), float32 or float64

    Returns
    -------
    ndarray
        Like `x`.
    """
    y = np.empty(x.shape, x.dtype)
    columns = x.shape[-1]
    if y.size:
        rows = y.size // columns
        parallel_for(
            _softmax, rows, max(1, _GRAIN // columns), kernel_array(x).reshape(rows, columns), y.reshape(rows, columns)
        )
    return y


def pull_back(name, d, saved):
    """Multiply by the slope of an activation.

    Parameters
    ----------
    name : str
        Of `simd_math.ACTIVATIONS`.
    d : ndarray of any shape, float32 or float64
        The gradient of the activation's output.
    saved : ndarray
        Like `d`: the activation's output or input, see `simd_math.ActivationInfo`.

    Returns
    -------
    ndarray
        Like `d`.
    """
    result = np.empty(d.shape, d.dtype)
    flat = kernel_array(d).reshape(-1), kernel_array(saved).reshape(-1), result.reshape(-1)
    _run(_pull_back, result.size, _CODES[name], *flat)
    return result
