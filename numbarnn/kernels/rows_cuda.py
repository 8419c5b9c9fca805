"""Rows of a table added up by number on the GPU: the gradient of looking rows up, and of any indexing.

The rows of one number are added in the order in which they come, as on the CPU, to the same bits and from run to run:
they are found side by side in a stable order of the numbers, and one thread adds up what belongs to one element of the
result. Nothing is added by atomics, whose order is that of chance.
"""

import numpy as np

from .. import cuda

__all__ = ["scatter_add"]

_THREADS = 128


@cuda.kernel
def _add_runs(numbers, order, rows, result):
    # One thread for each element of `rows` in the order of the numbers; the first of a run does the work of all.
    place = cuda.grid(1)
    width = rows.shape[1]
    first, column = place // width, place % width
    if first >= numbers.shape[0]:
        return
    number = numbers[order[first]]
    if first > 0 and numbers[order[first - 1]] == number:
        return
    total = result[number, column]
    k = first
    while k < numbers.shape[0] and numbers[order[k]] == number:
        total += rows[order[k], column]
        k += 1
    result[number, column] = total


def scatter_add(numbers, rows, size):
    """Add rows up by number.

    Parameters
    ----------
    numbers : device array, shape (N,), int32 or int64
        All in [0, size).
    rows : device array, shape (N, D), C-contiguous
    size : int

    Returns
    -------
    device array, shape (size, D)
    """
    result = cuda.zeros((size, rows.shape[1]), rows.dtype)
    if rows.size:
        order = np.argsort(numbers, kind="stable")
        blocks = -(-rows.size // _THREADS)
        _add_runs.launch(blocks, _THREADS, numbers, order, rows, result)
    return result
