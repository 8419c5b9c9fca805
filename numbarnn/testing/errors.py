"""The one definition of error: the largest difference, relative to the largest value."""

import numpy as np

__all__ = ["TOLERANCE", "assert_close", "relative_error"]

# What two correct implementations of a recurrent layer may differ by, forward and gradients.
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def relative_error(actual, expected):
    """Return ``max|actual - expected| / max(1e-3, max|expected|)``.

    Parameters
    ----------
    actual, expected : array_like of equal shapes

    Returns
    -------
    float
        0.0 for empty arrays, NaN if either holds a NaN, infinity if they differ in an infinity.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    actual, expected = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    if actual.shape != expected.shape:
        raise ValueError(f"`actual` and `expected` must have one shape. Received: {actual.shape} and {expected.shape}")
    if actual.size == 0:
        return 0.0
    unequal = actual != expected  # equal infinities count as no difference, where subtracting them would give NaN
    difference = np.abs(np.subtract(actual, expected, where=unequal, out=np.zeros_like(actual))).max()
    return float(difference / max(1e-3, np.abs(expected).max()))


def assert_close(actual, expected, tolerance, what=""):
    """Assert that `actual` is finite and within `tolerance` of `expected` by `relative_error`.

    Parameters
    ----------
    actual, expected : array_like of equal shapes
    tolerance : float
        Largest relative error allowed.
    what : str
        What is compared, for the message.

    Raises
    ------
    AssertionError
        If a shape or value differs, or a value is not finite.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(actual).all(), f"{what}: not finite"
    error = relative_error(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.3g} above {tolerance:.3g}"
