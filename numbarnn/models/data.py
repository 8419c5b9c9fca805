"""Data as arrays: what `fit`, `evaluate` and `predict` make of what they are given."""

from __future__ import annotations

import math

import numpy as np

from .. import tree
from ..backend import as_ndarray
from ..utils.sequence import Ragged
from .frames import as_columns, is_frame
from .ragged import check_lengths

__all__ = ["Collected", "check_batch", "check_cardinality", "check_list", "standardize", "train_validation_split"]

_SEQUENCES = (
    "sequences of different lengths go in as `numbarnn.utils.Ragged(list)`, of equal length as `np.stack(list)`."
)


def standardize(data, float_dtype, what):
    """Bring data into the form the programs take: a nest of arrays, floats in one dtype, integers as they are.

    Parameters
    ----------
    data : array, nested list of numbers, Ragged, or nest (list, tuple, dict) of arrays and Ragged
        Arrays are whatever NumPy can take, and those of pandas: the columns of a DataFrame become the last axis.
    float_dtype : numpy.dtype
        What floating point data become.
    what : str
        The argument's name, for messages.

    Returns
    -------
    ndarray, Ragged or nest of these

    Raises
    ------
    TypeError
        If something is not made of numbers.
    """
    if data is None:
        return None
    if isinstance(data, np.ndarray):
        return _array(data, float_dtype, what)
    if isinstance(data, (list, tuple, dict)):
        leaves = tree.leaves(data)
        if not leaves or not any(_is_array(leaf) for leaf in leaves):
            # A list of numbers, or of lists of them, is one array.
            return _array(data, float_dtype, what)
        return tree.map_structure(lambda leaf: None if leaf is None else _array(leaf, float_dtype, what), data)
    return _array(data, float_dtype, what)


def _is_array(x):
    if x is None or getattr(x, "shape", None) == ():  # a scalar of NumPy's is a number in a list of numbers
        return False
    return any(hasattr(x, name) for name in ("shape", "__array__", "__dlpack__"))


def _array(x, float_dtype, what):
    if isinstance(x, Ragged):
        return x.astype(float_dtype) if x.dtype.kind == "f" else x
    if isinstance(x, dict):
        raise TypeError(f"`{what}` must hold arrays. Received: {x!r:.200}")
    if not isinstance(x, np.ndarray) and hasattr(x, "__next__"):
        raise TypeError(f"`{what}` must be an array or a nest of arrays; iterators are not accepted. Received: {x!r}")
    array = _as_ndarray(x, what)
    kind = array.dtype.kind
    if kind == "f":
        return array if array.dtype == float_dtype else array.astype(float_dtype)
    if kind in "iub":
        return array
    holds_arrays = kind == "O" and array.size and hasattr(array.flat[0], "__len__")
    hint = f". What an array of objects holds is not looked into; {_SEQUENCES}" if holds_arrays else ""
    raise TypeError(
        f"`{what}` must hold numbers or booleans. Received: an array of dtype {array.dtype}, shape {array.shape}{hint}"
    )


def _as_ndarray(x, what):
    if isinstance(x, np.ndarray):
        return as_ndarray(x, f"`{what}`")
    if is_frame(x):
        return as_columns(x, what)
    try:
        if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
            return np.from_dlpack(x)
        return as_ndarray(x, f"`{what}`")
    except ValueError as error:
        raise TypeError(
            f"`{what}` cannot be turned into an array: {error}. Sequences of different lengths: pass "
            f"`numbarnn.utils.Ragged({what})`, or pad them with `numbarnn.utils.pad`."
        ) from None
    except (RuntimeError, BufferError) as error:  # of a library whose arrays are not in reach, as on a GPU
        raise TypeError(f"`{what}`, of type {type(x).__name__}, cannot be turned into an array: {error}") from error


def check_cardinality(*named):
    """Raise unless all arrays have the same number of samples; return it.

    Parameters
    ----------
    *named : (str, nest of ndarray and Ragged)

    Returns
    -------
    int

    Raises
    ------
    ValueError
        If the numbers differ, or an array has no axis to count along.
    """
    sizes = {}
    for name, nest in named:
        found = []
        for leaf in tree.leaves(nest):
            if leaf is None:
                continue
            if not leaf.ndim:
                raise ValueError(f"`{name}` must have at least one axis, the samples. Received: a scalar")
            found.append(leaf.shape[0])
        if found:
            sizes[name] = found
    counts = {n for found in sizes.values() for n in found}
    if len(counts) > 1:
        text = "".join(f"'{name}' sizes: {', '.join(map(str, found))}\n" for name, found in sizes.items())
        raise ValueError(
            f"Data cardinality is ambiguous. Make sure all arrays contain the same number of samples.\n{text}"
        )
    if not counts:
        raise ValueError("No data: at least one array is needed.")
    return counts.pop()


def check_list(x, y, sample_weight, rank):
    """Raise where a list of arrays, meant as one input, cannot be the data of several; say how to pass it.

    Parameters
    ----------
    x, y, sample_weight : nest of ndarray and Ragged, or None
    rank : int or None
        How many axes the only input of the model has, 0 if that is not known; None for a model of several inputs.

    Raises
    ------
    ValueError
        If `x` is a list of several arrays, and the numbers of samples differ or all of them lack one axis.
    """
    if rank is None or not isinstance(x, (list, tuple)) or len(x) < 2:
        return
    try:
        check_cardinality(("x", x), ("y", y), ("sample_weight", sample_weight))
    except ValueError as error:
        problem = str(error).rstrip()
    else:
        if any(leaf is None or leaf.ndim + 1 != rank for leaf in tree.leaves(x)):
            return
        problem = f"The model has one input, of {rank} axes. Received: a list of {len(x)} arrays of {rank - 1} axes."
    raise ValueError(f"{problem}\nA list is taken as several inputs; {_SEQUENCES}")


def check_batch(x, y, sample_weight):
    """Raise unless the arrays of one batch have the same number of samples, and sequences the same lengths."""
    if type(x) is np.ndarray and type(y) is np.ndarray and sample_weight is None and x.ndim and y.ndim:
        if x.shape[0] == y.shape[0]:
            return
    check_cardinality(("x", x), ("y", y), ("sample_weight", sample_weight))
    check_lengths(x, y, sample_weight)


def train_validation_split(arrays, validation_split):
    """Split off the last samples, as Keras does, before any shuffling.

    Parameters
    ----------
    arrays : tuple of nests of ndarray and Ragged
    validation_split : float
        The share to split off, in (0, 1).

    Returns
    -------
    train, validation : tuple of nests

    Raises
    ------
    ValueError
        If one side would be empty.
    """
    samples = check_cardinality(*((str(i), a) for i, a in enumerate(arrays)))
    if not 0 <= validation_split < 1:
        raise ValueError(f"`validation_split` must be in [0, 1). Received: validation_split={validation_split}")
    at = int(math.floor(samples * (1.0 - validation_split)))
    if at in (0, samples):
        raise ValueError(
            f"Training data contains {samples} samples, which is not sufficient to split it into a validation and "
            f"training set as specified by `validation_split={validation_split}`. Either provide more data, or a "
            "different value for the `validation_split` argument."
        )

    def part(take):
        return tuple(tree.map_structure(lambda a: None if a is None else take(a), nest) for nest in arrays)

    return part(lambda a: a[:at]), part(lambda a: a[at:])


class Collected:
    """One output of `predict`, batch after batch.

    Parameters
    ----------
    samples : int or None
        How many there will be, if that is known.
    first : ndarray or Ragged
        The output for the first batch, not taken yet.
    """

    def __init__(self, samples, first):
        self._ragged = isinstance(first, Ragged)
        self._shape = first.shape[1:]
        self._whole = None if self._ragged or samples is None else np.empty((samples, *self._shape), first.dtype)
        self._pieces = []
        self._count = 0

    def take(self, piece):
        """Take the output for the next samples."""
        if self._ragged:
            self._pieces.extend(piece)
            return
        if piece.shape[1:] != self._shape:
            raise ValueError(
                f"The outputs of all batches must have one shape. Received: {piece.shape[1:]} after {self._shape}"
            )
        if self._whole is None:
            self._pieces.append(piece)
        else:
            self._whole[self._count : self._count + len(piece)] = piece
            self._count += len(piece)

    def result(self):
        """Return all of it."""
        if self._ragged:
            return Ragged(self._pieces)
        return np.concatenate(self._pieces) if self._whole is None else self._whole[: self._count]
