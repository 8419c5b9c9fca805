"""Sequences of different lengths as one array."""

import numpy as np

__all__ = ["pad_sequences"]


def pad_sequences(sequences, maxlen=None, dtype="int32", padding="pre", truncating="pre", value=0.0):
    """Bring sequences to one length, by padding the short ones and cutting the long ones.

    Parameters
    ----------
    sequences : iterable of array_like, each of shape (length, ...)
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
    for name, side in (("padding", padding), ("truncating", truncating)):
        if side not in ("pre", "post"):
            raise ValueError(f'`{name}` must be "pre" or "post". Received: {name}={side!r}')
    if not hasattr(sequences, "__len__"):
        raise ValueError(f"`sequences` must be a list of sequences. Received: {sequences!r}")
    for sequence in sequences:
        if not hasattr(sequence, "__len__"):
            raise ValueError(f"`sequences` must be a list of sequences. Found a non-iterable one: {sequence!r}")
    if isinstance(value, str) and np.dtype(dtype).kind not in "USO":
        raise ValueError(f"`value` is a string, so `dtype` must be one of strings or object. Received: dtype={dtype}")
    trailing = next((np.shape(s)[1:] for s in sequences if len(s)), ())
    if maxlen is None:
        maxlen = max((len(s) for s in sequences), default=0)
    padded = np.full((len(sequences), maxlen, *trailing), value, dtype=dtype)
    for row, sequence in zip(padded, sequences, strict=True):
        if len(sequence) == 0 or maxlen == 0:
            continue
        kept = np.asarray(sequence[-maxlen:] if truncating == "pre" else sequence[:maxlen], dtype=dtype)
        if kept.shape[1:] != trailing:
            raise ValueError(
                f"Every sequence must have the same trailing shape {trailing}. Received one with {kept.shape[1:]}"
            )
        if padding == "pre":
            row[-len(kept) :] = kept
        else:
            row[: len(kept)] = kept
    return padded
