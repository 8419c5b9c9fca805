"""What the law of order says, in exact arithmetic."""

from fractions import Fraction

import numpy as np

from numbarnn.simd import has_fma


def fma(a, b, c):
    """Compute ``a * b + c`` element by element, with one rounding where the target has FMA."""
    if not has_fma():
        return a * b + c
    exact = (Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in np.broadcast(a, b, c))
    return np.array([float(value) for value in exact]).reshape(np.broadcast_shapes(a.shape, b.shape, c.shape))


def one_chain(a, b, start=0.0):
    """Compute ``start + a @ b`` element by element: k in rising order, one rounding a step where the target has FMA."""
    result = np.zeros((a.shape[0], b.shape[1]), a.dtype) + np.asarray(start, a.dtype)
    for k in range(a.shape[1]):
        result[...] = fma(a[:, k : k + 1], b[k], result)
    return result
