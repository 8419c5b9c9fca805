"""Sequences of different lengths: as one padded array with its mask, or as they are, to be padded batch by batch."""

import collections.abc
import operator

import numpy as np

from numbarnn import backend

__all__ = ["Ragged", "pad", "pad_sequences"]


def pad_sequences(sequences, maxlen=None, dtype="int32", padding="pre", truncating="pre", value=0.0):
    """Bring sequences to one length, by padding the short ones and cutting the long ones: Keras's function.

    `pad` also returns the mask, keeps the type and pads at the end.

    Parameters
    ----------
    sequences : list of array_like, each of shape (length, ...)
        The sequences; their trailing shapes must be equal.
    maxlen : int, optional
        Length of the result; by default that of the longest sequence.
    dtype : str or dtype
        Type of the result.
    padding, truncating : {"pre", "post"}
        Whether to pad, or cut, at the beginning or at the end.
    value : float or str
        What to pad with.

    Returns
    -------
    ndarray of shape (number of sequences, maxlen, ...)

    Raises
    ------
    ValueError
        If `sequences` is not a list of sequences, a trailing shape differs, `padding` or `truncating` is neither "pre"
        nor "post", or `value` is a string and `dtype` is not one of strings or objects.
    """
    _check_sides(padding, truncating)
    if not hasattr(sequences, "__len__"):
        raise ValueError(f"`sequences` must be a list of sequences. Received: {sequences!r}")
    if isinstance(value, str) and np.dtype(dtype).kind not in "USO":
        raise ValueError(f"`value` is a string, so `dtype` must be one of strings or object. Received: dtype={dtype}")
    lengths = [_length(sequence) for sequence in sequences]
    trailing = next((np.shape(s)[1:] for s, n in zip(sequences, lengths, strict=True) if n), ())
    maxlen = max(lengths, default=0) if maxlen is None else operator.index(maxlen)
    kept = [np.asarray(_cut(s, maxlen, truncating), dtype=dtype) if len(s) else None for s in sequences]
    for sequence in kept:
        if sequence is not None and sequence.shape[1:] != trailing and maxlen:
            raise ValueError(
                f"Every sequence must have the same trailing shape {trailing}. Received one with {sequence.shape[1:]}"
            )
    return _fill([() if s is None else s for s in kept], maxlen, trailing, dtype, padding, value)


def _check_sides(padding, truncating):
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ValueError(f'`{name}` must be "pre" or "post". Received: {name}={side!r}')


def _length(sequence):
    try:
        return len(sequence)
    except TypeError:  # a number, a generator, an array without axes
        raise ValueError(f"`sequences` must be a list of sequences. Found a non-iterable one: {sequence!r}") from None


def _cut(sequence, length, truncating):
    if len(sequence) <= length:
        return sequence
    return sequence[len(sequence) - length :] if truncating == "pre" else sequence[:length]


def _fill(sequences, length, trailing, dtype, padding, value):
    """Return the sequences, none longer than `length`, as the rows of one array."""
    padded = np.full((len(sequences), length, *trailing), value, dtype=dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        if len(sequence):
            if padding == "pre":
                row[length - len(sequence) :] = sequence
            else:
                row[: len(sequence)] = sequence
    return padded


def pad(sequences, maxlen=None, dtype=None, padding="post", truncating="post", value=0):
    """Bring sequences of different lengths to one length, and say which timesteps are theirs.

    Parameters
    ----------
    sequences : Ragged, or iterable of array_like, each of shape (length, ...)
        The sequences; their trailing shapes must be equal. One of length 0 becomes a row that is masked whole.
    maxlen : int, optional
        Length of the result; by default that of the longest sequence.
    dtype : str or dtype, optional
        Type of the result. By default the sequences' own, where floats are float32 or float64; plain Python floats
        are `numbarnn.backend.floatx`.
    padding : {"post", "pre"}
        Whether to pad at the end or at the beginning. Padding at the end is the faster one: sequences that have ended
        leave the computation of a recurrent layer.
    truncating : {"post", "pre"}
        Whether sequences longer than `maxlen` lose their end or their beginning.
    value : number
        What to pad with.

    Returns
    -------
    x : ndarray of shape (number of sequences, maxlen, ...)
    mask : ndarray of bool, shape (number of sequences, maxlen)
        True where a timestep is one of the sequence, False where it is padding: the ``mask=`` of a layer.

    Raises
    ------
    ValueError
        If something is not a sequence, trailing shapes differ, `padding` or `truncating` is neither "post" nor "pre",
        `maxlen` is negative, or `dtype` cannot hold `value`.
    TypeError
        If the sequences do not hold numbers or booleans.

    See Also
    --------
    Ragged : sequences that `fit` pads batch by batch.
    pad_sequences : Keras's function.

    Examples
    --------
    >>> from numbarnn import utils
    >>> x, mask = utils.pad([[1.0, 2.0], [3.0], []])
    >>> x
    array([[1., 2.],
           [3., 0.],
           [0., 0.]], dtype=float32)
    >>> mask
    array([[ True,  True],
           [ True, False],
           [False, False]])
    """
    _check_sides(padding, truncating)
    sequences = sequences if isinstance(sequences, Ragged) else Ragged(sequences)
    dtype = sequences.dtype if dtype is None else np.dtype(dtype)
    _check_value(value, dtype)
    length = int(max(sequences.lengths, default=0)) if maxlen is None else operator.index(maxlen)
    if length < 0:
        raise ValueError(f"`maxlen` must not be negative. Received: maxlen={maxlen}")
    kept = [_cut(sequence, length, truncating) for sequence in sequences]
    padded = _fill(kept, length, sequences.shape[2:], dtype, padding, value)
    counts = np.minimum(sequences.lengths, length)[:, None]
    steps = np.arange(length)
    return padded, steps >= length - counts if padding == "pre" else steps < counts


def _check_value(value, dtype):
    try:
        with np.errstate(all="ignore"):
            held = np.asarray(value).astype(dtype)
        fits = held.ndim == 0 and np.isclose(complex(held), complex(value), equal_nan=True)
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(f"`value` must be a number that {dtype} can hold. Received: value={value!r}")


class Ragged(collections.abc.Sequence):
    """Sequences of different lengths, to be given to `fit`, `evaluate` and `predict` as they are.

    Every batch is padded at the end, to its own longest sequence, and comes to the model with the mask of what is
    padding, as if a `Masking` layer had made it: recurrent layers skip the padding, loss and metrics do not count it.
    The length is rounded up by up to an eighth, so that a model meets few shapes (exact below 16 timesteps, then eight
    lengths in each doubling): for each new shape the training step is traced once more, which takes longer than a
    step.

    `x` may be one, or a nest with some; then `y` and `sample_weight` may be as well, with sequences of the same lengths
    as those of an `x`, for targets at every timestep. `predict` returns a Ragged for outputs at every timestep: those
    of the padding are cut off.

    Parameters
    ----------
    sequences : iterable of array_like, each of shape (length, ...)
        Their trailing shapes must be equal. Arrays are not copied. A length may be 0: a row that is masked whole.
    dtype : str or dtype, optional
        By default the sequences' own, where floats are float32 or float64; plain Python floats are
        `numbarnn.backend.floatx`.

    Attributes
    ----------
    lengths : ndarray of int
    shape : tuple
        (number of sequences, None, ...); None stands for the length.
    dtype : dtype

    Raises
    ------
    ValueError
        If something is not a sequence, or trailing shapes differ.
    TypeError
        If the sequences do not hold numbers or booleans.

    See Also
    --------
    pad : all sequences as one array, and its mask.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models, utils
    >>> x = utils.Ragged([np.ones((length, 3)) for length in (4, 2, 7)])
    >>> x
    Ragged(3 sequences of 2 to 7 timesteps, each of shape (3,), float64)
    >>> model = models.Sequential([layers.LSTM(5, return_sequences=True)])
    >>> [y.shape for y in model.predict(x, verbose=0)]
    [(4, 5), (2, 5), (7, 5)]
    """

    def __init__(self, sequences, dtype=None):
        if isinstance(sequences, (str, bytes)) or not hasattr(sequences, "__iter__"):
            raise ValueError(f"`sequences` must be a list of sequences. Received: {sequences!r:.200}")
        sequences = list(sequences)
        # A list that holds nothing says nothing of its type and trailing shape.
        given = [(s, isinstance(s, np.ndarray) or _length(s) > 0) for s in sequences]
        arrays = [_as_array(s) if counts else None for s, counts in given]
        shapes = [a.shape[1:] for a in arrays if a is not None]
        trailing = shapes[0] if shapes else ()
        for shape in shapes:
            if shape != trailing:
                raise ValueError(
                    f"Every sequence must have the same trailing shape {trailing}. Received one with {shape}"
                )
        self.dtype = _common_dtype(sequences, arrays) if dtype is None else np.dtype(dtype)
        if self.dtype.kind not in "fiub":
            raise TypeError(f"Sequences must hold numbers or booleans. Received: dtype {self.dtype}")
        empty = np.empty((0, *trailing), self.dtype)
        self._arrays = [empty if a is None else a for a in arrays]
        self._trailing = trailing
        self.lengths = np.array([len(a) for a in self._arrays], dtype=np.int64)
        self.lengths.flags.writeable = False

    def _of(self, arrays, lengths, dtype):
        """Return another one of sequences that are known to fit."""
        made = object.__new__(type(self))
        made._arrays, made._trailing, made.lengths, made.dtype = arrays, self._trailing, lengths, dtype
        return made

    @property
    def shape(self):
        """(number of sequences, None, ...)."""
        return (len(self._arrays), None, *self._trailing)

    @property
    def ndim(self):
        """Number of axes, those of the sequences and of the timesteps among them."""
        return 2 + len(self._trailing)

    def __len__(self):
        return len(self._arrays)

    def __getitem__(self, index):
        """Return one sequence for an integer, a Ragged for a slice, a list or array of integers, or of booleans.

        ``[index, ...]`` is the same, as for an array: so scikit-learn takes its folds.
        """
        if isinstance(index, tuple) and len(index) == 2 and index[1] is Ellipsis:
            index = index[0]
        if isinstance(index, slice):
            return self._of(self._arrays[index], self.lengths[index], self.dtype)
        if hasattr(index, "__index__") and not getattr(index, "ndim", 0):
            return self._arrays[operator.index(index)].astype(self.dtype, copy=False)
        places = np.asarray(index)
        if places.ndim != 1 or (places.size and places.dtype.kind not in "biu"):
            raise IndexError(
                f"A Ragged takes an integer, a slice, or a list of integers or booleans. Received: {index!r:.200}"
            )
        places = np.arange(len(self))[places.astype(bool if places.dtype == bool else np.int64)]
        return self._of([self._arrays[i] for i in places], self.lengths[places], self.dtype)

    def astype(self, dtype):
        """Return the same sequences as of another type; nothing is copied before they are asked for."""
        return self._of(self._arrays, self.lengths, np.dtype(dtype))

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            f"{self!r} is no array. Pass it to `fit`, `evaluate` or `predict`; elsewhere make one of it: "
            "x, mask = numbarnn.utils.pad(ragged)"
        )

    def __repr__(self):
        count = f"{len(self)} sequence{'' if len(self) == 1 else 's'}"
        span = f" of {self.lengths.min()} to {self.lengths.max()} timesteps" if len(self) else ""
        each = f", each of shape {self._trailing}" if self._trailing else ""
        return f"Ragged({count}{span}{each}, {self.dtype})"


def _as_array(sequence):
    try:
        array = np.asarray(sequence)
    except ValueError as error:  # lists of different lengths within one sequence
        raise ValueError(f"A sequence cannot be turned into an array: {error}. Received: {sequence!r:.200}") from None
    if not array.ndim:
        raise ValueError(f"`sequences` must be a list of sequences. Found a non-iterable one: {sequence!r:.200}")
    return array


def _common_dtype(sequences, arrays):
    """Return the type that holds all sequences; plain Python numbers give way to arrays."""
    floatx = np.dtype(backend.floatx())
    found = []
    for sequence, array in zip(sequences, arrays, strict=True):
        if array is not None:
            plain = array.dtype.kind == "f" and not isinstance(sequence, np.ndarray) and not _holds_arrays(sequence)
            found.append((array.dtype, plain))
    floats = [dtype for dtype, plain in found if dtype.kind == "f" and not plain]
    if floats:
        return np.dtype(np.float64 if np.result_type(np.float32, *floats) != np.float32 else np.float32)
    if any(plain for _, plain in found):
        return floatx
    return np.result_type(*(dtype for dtype, _ in found)) if found else floatx


def _holds_arrays(sequence):
    return any(hasattr(item, "dtype") for item in sequence)
