"""Batches, pass by pass and epoch by epoch: of arrays, of a `PyDataset`, of anything that yields batches.

A source gives `keys()`, an iterator over one pass through its data that costs nothing to move along, and
`take(keys)`, which makes batches of them: (number of samples, (x, y, sample_weight)). `Epochs` cuts passes into epochs.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import math
import operator
import warnings

import numpy as np

from .. import tree
from ..utils.batches import unpack_x_y_sample_weight
from ..utils.py_dataset import is_dataset
from ..utils.sequence import Ragged
from .data import check_batch, check_cardinality
from .ragged import check_lengths, padded

__all__ = ["ArrayBatches", "DatasetBatches", "Epochs", "StreamBatches", "holds_batches", "source_of"]


def holds_batches(x):
    """Say whether `x` yields batches, a `PyDataset` or another iterable, and is no array or nest of arrays."""
    if isinstance(x, (np.ndarray, Ragged, list, tuple, dict, str, bytes)) or x is None:
        return False
    return is_dataset(x) or (
        hasattr(x, "__iter__") and not any(hasattr(x, name) for name in ("shape", "__array__", "__dlpack__"))
    )


class ArrayBatches:
    """Batches of a tuple of nests of arrays.

    Parameters
    ----------
    arrays : tuple of nests of ndarray and Ragged
        (x, y, sample_weight); None stays None. A Ragged comes as one `Padded` per batch.
    samples : int
    batch_size : int
    shuffle : bool or "batch"
        A new order for every pass; "batch" keeps samples in their batch.
    seed : SeedGenerator, optional
        Gives the order.
    """

    once = False

    def __init__(self, arrays, samples, batch_size, shuffle=False, seed=None):
        self.arrays, self.samples, self.batch_size = arrays, samples, batch_size
        self.shuffle, self.seed = shuffle, seed
        self.steps = -(-samples // batch_size)
        self._flat = all(a is None or isinstance(a, np.ndarray) for a in arrays)

    def keys(self):
        """Yield what to take of the arrays for each batch: a slice or an array of places."""
        size, samples = self.batch_size, self.samples
        starts = range(0, samples, size)
        if not self.shuffle:
            return (slice(start, min(start + size, samples)) for start in starts)
        generator = self.seed.next()
        if self.shuffle == "batch":
            return (start + generator.permutation(min(size, samples - start)) for start in starts)
        order = generator.permutation(samples)
        return (order[start : start + size] for start in starts)

    def take(self, keys):
        """Yield batches."""
        for key in keys:
            size = key.stop - key.start if type(key) is slice else len(key)
            if self._flat:
                yield size, tuple(None if a is None else a[key] for a in self.arrays)
            else:
                yield size, tuple(padded(_part(nest, key)) for nest in self.arrays)

    def begin(self):
        """Before an epoch."""

    def end(self):
        """After an epoch."""


class StreamBatches:
    """Batches of an iterable of them: ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``.

    Parameters
    ----------
    stream : iterable
    standardize : callable
        ``standardize(x, y, sample_weight)`` -> these as nests of ndarray and Ragged.
    """

    def __init__(self, stream, standardize):
        self.stream, self.standardize = stream, standardize
        self.once = hasattr(stream, "__next__")  # an iterator gives its batches once
        self.steps = _length(stream)
        if self.steps == 0:
            raise ValueError(f"`x` must hold at least one batch. Received: {stream!r:.200} of length 0")

    def keys(self):
        """Return an iterator over raw batches."""
        return iter(self.stream)

    def take(self, keys):
        """Yield batches."""
        for number, raw in enumerate(keys):
            yield self._batch(raw, number)

    def _batch(self, raw, number):
        if raw is None:
            raise ValueError(f"Batch {number} of the data is None.")
        x, y, w = self.standardize(*unpack_x_y_sample_weight(raw))
        check_batch(x, y, w)
        size = next(leaf for leaf in tree.leaves(x) if leaf is not None).shape[0]
        if not size:
            raise ValueError(f"Batch {number} of the data holds no samples.")
        return size, (padded(x), padded(y), padded(w))

    def begin(self):
        """Before an epoch."""

    def end(self):
        """After an epoch."""


class DatasetBatches(StreamBatches):
    """Batches of a `PyDataset`.

    Parameters
    ----------
    dataset : PyDataset
        Keras's do as well.
    standardize : callable
        As of `StreamBatches`.
    shuffle : bool
        Take the batches in a new order for every pass.
    seed : SeedGenerator, optional
        Gives the order.
    """

    once = False

    def __init__(self, dataset, standardize, shuffle=False, seed=None):
        self.dataset, self.standardize = dataset, standardize
        self.shuffle, self.seed = shuffle, seed
        self._workers = max(1, operator.index(getattr(dataset, "workers", 1)))
        self._ahead = max(1, operator.index(getattr(dataset, "max_queue_size", 10)))
        if getattr(dataset, "use_multiprocessing", False):
            raise ValueError(
                "`use_multiprocessing=True` is not supported: the workers of a dataset are threads. "
                f"Received: {dataset!r:.200}"
            )
        if self.steps == 0:
            raise ValueError(f"`x` must hold at least one batch. Received: {dataset!r:.200} of length 0")

    @property
    def steps(self):
        """Number of batches, which the dataset may change between epochs; None if there is no end."""
        if hasattr(self.dataset, "num_batches"):
            return self.dataset.num_batches
        return len(self.dataset)

    def keys(self):
        """Return an iterator over the numbers of batches."""
        steps = self.steps
        if steps is None:
            return itertools.count()
        return iter(self.seed.next().permutation(steps).tolist() if self.shuffle else range(steps))

    def take(self, keys):
        """Yield batches; with several workers these get the next ones ready, in order."""
        if self._workers == 1:
            for key in keys:
                yield self._batch(self.dataset[key], key)
            return
        with concurrent.futures.ThreadPoolExecutor(self._workers, "numbarnn-data") as pool:
            waiting = collections.deque()
            try:
                for key in keys:
                    waiting.append((key, pool.submit(self.dataset.__getitem__, key)))
                    if len(waiting) >= self._ahead:
                        first, future = waiting.popleft()
                        yield self._batch(future.result(), first)
                while waiting:
                    first, future = waiting.popleft()
                    yield self._batch(future.result(), first)
            finally:
                for _, future in waiting:
                    future.cancel()

    def begin(self):
        """Before an epoch."""
        _call_if_there(self.dataset, "on_epoch_begin")

    def end(self):
        """After an epoch."""
        _call_if_there(self.dataset, "on_epoch_end")


def _part(nest, key):
    return tree.map_structure(lambda a: None if a is None else a[key], nest)


def _length(iterable):
    try:
        return len(iterable)
    except TypeError:  # has none, or does not know it
        return None


def _call_if_there(owner, name):
    method = getattr(owner, name, None)
    if method is not None:
        method()


def source_of(x, y, sample_weight, standardize, *, batch_size=None, steps=None, shuffle=False, seed=None):
    """Make batches of what `fit`, `evaluate` or `predict` was given.

    Parameters
    ----------
    x, y, sample_weight
        Arrays or nests of these; or all in `x`, if that yields batches.
    standardize : callable
        ``standardize(x, y, sample_weight)`` -> these as nests of ndarray and Ragged.
    batch_size, steps : int, optional
        For arrays: 32 samples, or as many as it takes to make `steps` batches.
    shuffle : bool or "batch"
    seed : SeedGenerator, optional

    Returns
    -------
    ArrayBatches, DatasetBatches or StreamBatches

    Raises
    ------
    ValueError
        If the arrays do not fit together, there are no samples, or an argument does not go with the data.
    """
    if holds_batches(x):
        for name, given, which in (("y", y, "the targets"), ("sample_weight", sample_weight, "the sample weights")):
            if given is not None:
                raise ValueError(
                    f"When providing `x` as a {_kind(x)}, `{name}` should not be passed. Instead, {which} should be "
                    f"included as part of the {_kind(x)}."
                )
        if batch_size is not None:
            raise ValueError(
                f"`batch_size` should not be passed when `x` is a {_kind(x)}, which yields batches. "
                f"Received: batch_size={batch_size}"
            )
        if is_dataset(x):
            return DatasetBatches(x, standardize, bool(shuffle), seed)
        return StreamBatches(x, standardize)
    arrays = standardize(x, y, sample_weight)
    samples = check_cardinality(*zip(("x", "y", "sample_weight"), arrays, strict=True))
    check_lengths(*arrays)
    if not samples:
        raise ValueError("`x` holds no samples.")
    if batch_size is None:
        batch_size = 32 if steps is None else math.ceil(samples / steps)
    return ArrayBatches(arrays, samples, batch_size, shuffle, seed)


def _kind(x):
    if is_dataset(x):
        return "PyDataset"
    return "generator" if hasattr(x, "__next__") else type(x).__name__


class Epochs:
    """The batches of a source, epoch after epoch; iterating over it gives those of one epoch.

    Parameters
    ----------
    source : ArrayBatches, DatasetBatches or StreamBatches
    steps : int, optional
        Batches in an epoch. Then a pass through the data may span several epochs, as in Keras, and an epoch ends early
        where the pass does. By default an epoch is a pass.
    argument : str
        The name of `steps`, for messages.

    Attributes
    ----------
    done : int
        How many batches of the epoch have been given.
    before : int
        How many batches of the pass were given in the epochs before.
    drawn : list of int
        State of the shuffle generator when the pass began.
    """

    def __init__(self, source, steps=None, argument="steps_per_epoch"):
        self.source, self.limit, self.argument = source, steps, argument
        self.done = self.before = 0
        self._length = self._keys = None
        self._head = ()
        self._warned = False
        if steps is None and isinstance(source, DatasetBatches) and source.steps is None:
            raise ValueError(f"The dataset has no end (its `num_batches` is None): `{argument}` must be given.")

    @property
    def steps(self):
        """Number of batches in an epoch, None while it is not known."""
        if self.limit is not None:
            return self.limit
        return self._length if self.source.steps is None else self.source.steps

    def begin(self):
        """Prepare an epoch.

        Returns
        -------
        bool
            Whether there is a batch for it.
        """
        self.source.begin()
        self.done = 0
        return self._look_ahead()

    def _look_ahead(self):
        """Fetch the key of the next batch, of a new pass where the last one has ended; say whether there is one."""
        while True:
            fresh = self._keys is None
            if fresh:
                self._start()
            self._head = list(itertools.islice(self._keys, 1))
            if self._head:
                return True
            self._keys = None
            if fresh:
                return False

    def _start(self):
        self.before, self.drawn = 0, self._shuffle_state()
        self._keys = iter(self.source.keys())

    def _shuffle_state(self):
        seed = getattr(self.source, "seed", None)
        return [0, 0] if seed is None else seed.state.numpy().tolist()

    def go_on(self, progress):
        """Prepare the epoch that a training was in, leaving out the batches that are done.

        An iterator gives what comes next: nothing of it is left out.

        Parameters
        ----------
        progress : Progress

        Returns
        -------
        tuple of nests or None
            A batch, to know the form of the data by; None if no batch of the epoch is done.

        Raises
        ------
        ValueError
            If the data hold fewer batches than are done.
        """
        self.source.begin()
        seed = getattr(self.source, "seed", None)
        if seed is not None:
            seed.state.assign(np.asarray(progress.shuffle, np.int64))
        self._start()
        self.done, self.before = progress.batch, progress.seen - progress.batch
        left_out = collections.deque(maxlen=1)
        if not self.source.once:
            left_out.extend(enumerate(itertools.islice(self._keys, progress.seen), 1))
            if progress.seen and (not left_out or left_out[0][0] < progress.seen):
                raise ValueError(
                    f"The training cannot go on: {progress.seen} batches of the data are done, there are not so many."
                )
        if progress.batch and left_out:
            known = [left_out[0][1]]
        elif self._look_ahead():
            known = self._head
        else:
            raise ValueError("The training cannot go on: the data hold no more batches.")
        return next(self.source.take(known))[1] if progress.batch else None

    def __iter__(self):
        """Yield the batches of the epoch that was begun: (number of samples, tuple of nests)."""
        head, self._head = self._head, ()
        keys = itertools.chain(head, self._keys)
        if self.limit is not None:
            keys = itertools.islice(keys, max(0, self.limit - self.done))
        for size, batch in self.source.take(keys):
            self.done += 1
            yield size, batch
        if self.limit is None:
            self._length = self.done
        elif self.done < self.limit:
            self._keys = None
            self.warn()

    def end(self):
        """After an epoch, whether all its batches were taken or not."""
        self.source.end()
        if self.limit is None:
            self._keys = None
        if self._keys is None:
            self.before, self.drawn = 0, self._shuffle_state()
        else:
            self.before += self.done
        self.done = 0

    def restart(self):
        """Begin the next epoch with a new pass; an iterator goes on where it is."""
        if not self.source.once:
            self._keys = None

    def warn(self):
        """Say that there were not as many batches as asked for; once, where no more will come."""
        if self._warned:
            return
        self._warned = self.source.once
        what = "training" if self.source.once else f"the epoch after {self.done} of {self.limit} steps"
        times = " * epochs" if self.argument == "steps_per_epoch" else ""
        warnings.warn(
            f"Your input ran out of data; interrupting {what}. Make sure that your dataset or generator can generate "
            f"at least `{self.argument}{times}` batches.",
            stacklevel=5,
        )
