"""What the law of order says, in exact arithmetic."""

from fractions import Fraction

import numpy as np

from numbarnn.simd import has_fma


def one_chain(a, b, start=0.0):
    """Compute ``start + a @ b`` element by element: k in rising order, one rounding a step where the target has FMA."""
    result = np.zeros((a.shape[0], b.shape[1]), a.dtype) + np.asarray(start, a.dtype)
    for m, n in np.ndindex(result.shape):
        for k in range(a.shape[1]):
            if has_fma():
                exact = Fraction(float(a[m, k])) * Fraction(float(b[k, n])) + Fraction(float(result[m, n]))
                result[m, n] = float(exact)
            else:
                result[m, n] += a[m, k] * b[k, n]
    return result
