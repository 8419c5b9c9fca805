"""Tables of pandas as arrays. pandas is not imported: who passes one of its objects has done that."""

from __future__ import annotations

import numpy as np

__all__ = ["as_columns", "is_frame"]


def is_frame(x):
    """Say whether `x` is a DataFrame, Series or Index of pandas."""
    kind = next((k for k in type(x).__mro__ if k.__module__.partition(".")[0] == "pandas"), None)
    return kind is not None and hasattr(x, "to_numpy")


def as_columns(x, what):
    """Turn a table into an array, its columns along the last axis.

    Parameters
    ----------
    x : DataFrame, Series or Index
        Of numbers or booleans.
    what : str
        The argument's name, for messages.

    Returns
    -------
    ndarray of shape (rows, columns)
        As in Keras, a Series is one column.

    Raises
    ------
    TypeError
        For a column of strings, categories, dates or other objects.
    ValueError
        For missing values among integers or booleans, or a table without columns.
    """
    if x.ndim == 1:
        return _column(x, what)[:, None]
    columns = [_column(x.iloc[:, i], what) for i in range(x.shape[1])]
    if not columns:
        raise ValueError(f"`{what}` must have columns. Received: a DataFrame of shape {x.shape}")
    return np.stack(columns, axis=1)


def _column(column, what):
    dtype = column.dtype
    if getattr(dtype, "kind", "O") not in "fiub":
        raise TypeError(
            f"`{what}` must hold numbers or booleans. Received: column {column.name!r} of dtype {dtype}. Turn it into "
            "numbers first: of categories, `column.cat.codes`"
        )
    if dtype.kind == "f":
        # The missing values of pandas' own types are its NA, those of NumPy's are NaN already.
        return column.to_numpy(dtype=getattr(dtype, "numpy_dtype", None), na_value=np.nan)
    if column.hasnans:
        raise ValueError(
            f"`{what}` has missing values in column {column.name!r} of dtype {dtype}, which cannot hold NaN. "
            "Fill them, or turn the column into floats"
        )
    return column.to_numpy(dtype=getattr(dtype, "numpy_dtype", None))
