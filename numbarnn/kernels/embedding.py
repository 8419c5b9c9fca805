"""Table look-up and its gradient.

Arrays are C-contiguous: ids `(N,)` int32 or int64, table `(V, D)`, rows `(N, D)` float32 or float64.

The ids are checked, all of them, before anything is written. The gradient adds the rows of equal ids in the order in
which the ids come; threads split the columns, so every sum is one chain and the bits are the same for any number of
threads.
"""

import numpy as np

from ..jit import njit, parallel_for

# About this many elements are worth handing to another thread.
_GRAIN = 1 << 18


@njit
def _first_outside(ids, size):
    # The place of the first id that is not in [0, size), or -1.
    for n in range(ids.size):
        if ids[n] < 0 or ids[n] >= size:
            return n
    return -1


@njit
def _gather(start, stop, ids, table, rows):
    for n in range(start, stop):
        row = ids[n]
        for d in range(table.shape[1]):
            rows[n, d] = table[row, d]


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
    return _first_outside(ids, size)


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
    rows = np.empty((ids.size, table.shape[1]), table.dtype)
    parallel_for(_gather, ids.size, max(1, _GRAIN // max(1, table.shape[1])), ids, table, rows)
    return rows


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
    d_table = np.zeros((size, d_rows.shape[1]), d_rows.dtype)
    # Sixteen columns are a cache line of float32.
    parallel_for(_scatter_add, d_rows.shape[1], max(16, _GRAIN // max(1, ids.size)), ids, d_rows, d_table)
    return d_table
