"""Windows of a long series as a data set."""

import math
import numbers

import numpy as np

from numbarnn.random import SeedGenerator

__all__ = ["WindowDataset", "timeseries_dataset_from_array"]


def timeseries_dataset_from_array(
    data,
    targets,
    sequence_length,
    sequence_stride=1,
    sampling_rate=1,
    batch_size=128,
    shuffle=False,
    seed=None,
    start_index=None,
    end_index=None,
):
    """Cut windows out of a series, to learn from each what comes at its target.

    Parameters
    ----------
    data : array of shape (timesteps, ...)
    targets : array of shape (timesteps, ...) or None
        ``targets[i]`` belongs to the window that begins at ``data[i]``: to foretell the step after windows of length L,
        pass ``data[:-L]`` and ``data[L:]``. Windows without a target are left out.
    sequence_length : int
        Timesteps in a window.
    sequence_stride : int
        From the beginning of one window to that of the next, in timesteps of `data`.
    sampling_rate : int
        From one timestep of a window to the next.
    batch_size : int or None
        Windows in a batch; the last one may be smaller. None for single windows.
    shuffle : bool
        Windows come in a new order each time the data set is gone through.
    seed : int, optional
        Of the orders; by default drawn from the global seed.
    start_index, end_index : int, optional
        Use ``data[start_index:end_index]`` and the targets of the same places alone.

    Returns
    -------
    WindowDataset
        To be given to `fit` as it is. Going through it yields ``(windows, targets)``, or windows alone, as often as it
        is asked to; ``len()`` is the number of batches.

    Raises
    ------
    ValueError
        If a number is out of range, or there is no window.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import utils
    >>> series = np.arange(6)
    >>> for x, y in utils.timeseries_dataset_from_array(series[:-3], series[3:], sequence_length=2, batch_size=2):
    ...     print(x.tolist(), y.tolist())
    [[0, 1], [1, 2]] [3, 4]
    """
    data = np.asarray(data)
    targets = None if targets is None else np.asarray(targets)
    if not data.ndim or (targets is not None and not targets.ndim):
        raise ValueError("`data` and `targets` must have an axis of timesteps. Received: a scalar")
    for name, value in (
        ("sequence_length", sequence_length),
        ("sampling_rate", sampling_rate),
        ("sequence_stride", sequence_stride),
        ("batch_size", 1 if batch_size is None else batch_size),
    ):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise ValueError(f"`{name}` must be an integer. Received: {name}={value!r}")
        if value <= 0:
            raise ValueError(f"`{name}` must be higher than 0. Received: {name}={value}")
    for name, value in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if value >= len(data):
            raise ValueError(
                f"`{name}` must be lower than the length of the data. Received: {name}={value}, for data of length "
                f"{len(data)}"
            )
    start, end = _bounds(start_index, end_index, len(data))
    span = (sequence_length - 1) * sampling_rate + 1
    count = end - start - span + 1
    if targets is not None:
        count = min(count, len(targets) - start)
    if count <= 0:
        raise ValueError(
            f"There is no window of {sequence_length} timesteps, {sampling_rate} apart, in the {end - start} timesteps "
            f"from {start} to {end}" + ("." if targets is None else f", with {len(targets)} targets.")
        )
    starts = np.arange(start, start + count, sequence_stride)
    offsets = np.arange(0, span, sampling_rate)
    return WindowDataset(data, targets, starts, offsets, batch_size, SeedGenerator(seed) if shuffle else None)


def _bounds(start_index, end_index, length):
    if start_index is not None:
        if start_index < 0:
            raise ValueError(f"`start_index` must be 0 or greater. Received: start_index={start_index}")
        if start_index >= length:
            raise ValueError(
                "`start_index` must be lower than the length of the data. "
                f"Received: start_index={start_index}, for data of length {length}"
            )
    start = start_index or 0
    if end_index is None:
        return start, length
    if end_index <= 0:
        raise ValueError(f"`end_index` must be higher than 0. Received: end_index={end_index}")
    if end_index <= start:
        raise ValueError(
            f"`end_index` must be higher than `start_index`. Received: start_index={start_index}, end_index={end_index}"
        )
    if end_index >= length:
        raise ValueError(
            "`end_index` must be lower than the length of the data. "
            f"Received: end_index={end_index}, for data of length {length}"
        )
    return start, end_index


class WindowDataset:
    """What `timeseries_dataset_from_array` returns: an iterable of batches of windows.

    Parameters
    ----------
    data : ndarray
    targets : ndarray or None
    starts : ndarray of int
        Where windows begin.
    offsets : ndarray of int
        Where their timesteps are from there.
    batch_size : int or None
    generator : SeedGenerator or None
        Gives a new order each time.
    """

    def __init__(self, data, targets, starts, offsets, batch_size, generator):
        self._data, self._targets = data, targets
        self._starts, self._offsets = starts, offsets
        self._batch_size, self._generator = batch_size, generator

    def __len__(self):
        return len(self._starts) if self._batch_size is None else math.ceil(len(self._starts) / self._batch_size)

    def __iter__(self):
        starts = self._starts if self._generator is None else self._generator.next().permutation(self._starts)
        size = self._batch_size or 1
        for first in range(0, len(starts), size):
            places = starts[first] if self._batch_size is None else starts[first : first + size]
            windows = self._data[places[..., None] + self._offsets]
            yield windows if self._targets is None else (windows, self._targets[places])

    def __repr__(self):
        return f"<WindowDataset of {len(self._starts)} windows of {len(self._offsets)} timesteps>"
