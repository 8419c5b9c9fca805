"""Data that come batch by batch, from a class of one's own."""

import itertools
import numbers

__all__ = ["PyDataset", "Sequence", "is_dataset"]


class PyDataset:
    """Base of data sets that make each batch when it is asked for; given to `fit`, `evaluate` and `predict` as ``x``.

    A subclass defines ``__getitem__(index)``, which returns a whole batch, ``(x,)``, ``(x, y)`` or
    ``(x, y, sample_weight)``, and ``__len__``, the number of batches in an epoch (or the property `num_batches`, which
    may be None: without end). `fit` takes the batches in a new order in every epoch, unless ``shuffle=False``.

    Parameters
    ----------
    workers : int
        More than one make batches ahead, in threads, so that `__getitem__` must be safe to call from several at once.
        The order of the batches stays the same.
    use_multiprocessing : bool
        Must be False. The workers are threads: NumPy and Numba let them run at the same time.
    max_queue_size : int
        How many batches the workers may be ahead.

    Raises
    ------
    ValueError
        If `use_multiprocessing` is asked for, or a number is not a positive integer.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import utils
    >>> class Squares(utils.PyDataset):
    ...     def __len__(self):
    ...         return 3
    ...     def __getitem__(self, index):
    ...         x = np.arange(4 * index, 4 * index + 4)
    ...         return x, x**2
    >>> [y.tolist() for x, y in Squares()]
    [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81, 100, 121]]
    """

    # Here too, for subclasses that do not call `super().__init__`.
    workers = 1
    use_multiprocessing = False
    max_queue_size = 10

    def __init__(self, workers=1, use_multiprocessing=False, max_queue_size=10):
        for name, value, least in (("workers", workers, 0), ("max_queue_size", max_queue_size, 1)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
                raise ValueError(f"`{name}` must be an integer from {least}. Received: {name}={value!r}")
        if use_multiprocessing:
            raise ValueError(
                "`use_multiprocessing=True` is not supported: the workers of a PyDataset are threads. "
                f"Received: use_multiprocessing={use_multiprocessing!r}"
            )
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, False, max_queue_size

    def __getitem__(self, index):
        """Return batch number `index`; to be written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must implement `__getitem__`.")

    @property
    def num_batches(self):
        """Number of batches in an epoch: int, or None for a data set without end."""
        if hasattr(self, "__len__"):
            return len(self)
        raise NotImplementedError(f"{type(self).__name__} must implement `__len__` or the property `num_batches`.")

    def on_epoch_begin(self):
        """Called before every epoch."""

    def on_epoch_end(self):
        """Called after every epoch: the place to change the data for the next one."""

    def __iter__(self):
        """Yield the batches of an epoch in order."""
        count = self.num_batches
        for index in itertools.count() if count is None else range(count):
            yield self[index]


Sequence = PyDataset  # the name in Keras 2


def is_dataset(x):
    """Say whether `x` is a `PyDataset`, or one of Keras's, which is alike.

    Parameters
    ----------
    x : object

    Returns
    -------
    bool
    """
    return isinstance(x, PyDataset) or (hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end"))
