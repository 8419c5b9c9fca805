"""Gradients checked by central differences along random directions."""

import numpy as np

__all__ = ["check_gradients", "slopes"]


def slopes(function, arrays, gradients, *, directions=3, step=1e-6, seed=0):
    """Yield what gradients say, and what central differences say, along random directions of length 1.

    Parameters
    ----------
    function, arrays, gradients, directions, step, seed
        As of `check_gradients`; all arrays with a gradient are float64.

    Yields
    ------
    index : int
        Of the argument.
    slope, difference : float
    """
    rng = np.random.default_rng(seed)
    arrays = list(arrays)
    for index, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        if gradient is None or array.size == 0:
            continue
        for _ in range(directions):
            direction = rng.standard_normal(array.shape)
            direction /= np.linalg.norm(direction)
            moved = [
                float(function(*arrays[:index], array + sign * step * direction, *arrays[index + 1 :]))
                for sign in (1, -1)
            ]
            yield index, float(np.vdot(gradient, direction)), (moved[0] - moved[1]) / (2 * step)


def check_gradients(function, arrays, gradients, *, directions=3, step=1e-6, tolerance=1e-7, seed=0):
    """Check the gradients of a scalar function, one argument at a time, along random directions.

    Parameters
    ----------
    function : callable
        ``function(*arrays) -> float``.
    arrays : sequence of float64 ndarray
        Where to check. They are not written to.
    gradients : sequence of ndarray or None
        For each array the gradient to check, of the same shape; None leaves that argument out.
    directions : int
        Number of random directions per argument.
    step : float
        Length of the step taken to either side.
    tolerance : float
        Largest difference between slope and central difference, relative to the larger of 1 and the slope's size.
    seed : int
        Seed of the directions.

    Raises
    ------
    AssertionError
        Naming the argument whose gradient is wrong.
    TypeError
        If an array to be checked is not float64: central differences mean nothing in float32.
    """
    for index, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        if gradient is None or array.size == 0:
            continue
        if array.dtype != np.float64:
            raise TypeError(f"`arrays` must be float64. Received: argument {index} of {array.dtype}")
        assert gradient.shape == array.shape, f"argument {index}: gradient {gradient.shape}, array {array.shape}"
    for index, slope, numeric in slopes(function, arrays, gradients, directions=directions, step=step, seed=seed):
        assert abs(slope - numeric) <= tolerance * max(1.0, abs(slope)), (
            f"argument {index}: slope {slope!r}, central difference {numeric!r}"
        )
