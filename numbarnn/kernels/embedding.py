"""Table look-up and its gradient.

Arrays are C-contiguous for the kernel: ids `(N,)` int32 or int64, table `(V, D)`, rows `(N, D)` float32 or float64.

The ids are checked, all of them, before anything is written. The gradient adds the rows of equal ids in the order in
which the ids come; threads split the columns, so every sum is one chain and the bits are the same for any number of
threads.
"""

import numpy as np

from ..jit import njit, parallel_for
from . import rows_cuda

# About this many elements are worth handing to another thread.
_GRAIN = 1 << 18


@njit
def _scatter_add(start, stop, ids, d_rows, d_table):
    # Columns [start, stop).
    for n in range(ids.size):
        row = ids[n]
        for d in range(start, stop):
            d_table[row, d] += d_rows[n, d]


def first_outside(ids, size):
    """Find the first id that no row of a table has.

    Parameters
    ----------
    ids : ndarray, shape (N,), int32 or int64
    size : int
        Rows of the table.

    Returns
    -------
    int
        Its place; -1 if there is none.
    """
    if not ids.size or (ids.min() >= 0 and ids.max() < size):
        return -1
    return int(np.argmax((ids < 0) | (ids >= size)))


def gather(ids, table):
    """Take rows of a table.

    Parameters
    ----------
    ids : ndarray, shape (N,), int32 or int64
        All within the table (`first_outside`).
    table : ndarray, shape (V, D)

    Returns
    -------
    ndarray, shape (N, D)
    """
    return np.take(table, ids, axis=0)  # as fast as memory is; only the gradient needs a kernel


def scatter_add(ids, d_rows, size):
    """Add rows up by id: the gradient of `gather` with respect to the table.

    Parameters
    ----------
    ids : ndarray, shape (N,), int32 or int64
    d_rows : ndarray, shape (N, D)
    size : int
        Rows of the table.

    Returns
    -------
    ndarray, shape (size, D)
    """
    if type(d_rows) is not np.ndarray:
        return rows_cuda.scatter_add(ids, d_rows, size)
    d_table = np.zeros((size, d_rows.shape[1]), d_rows.dtype)
    # Sixteen columns are a cache line of float32.
    parallel_for(_scatter_add, d_rows.shape[1], max(16, _GRAIN // max(1, ids.size)), ids, d_rows, d_table)
    return d_table
