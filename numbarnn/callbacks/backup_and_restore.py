"""`BackupAndRestore`: a training that was killed goes on where it was."""

from __future__ import annotations

import base64
import contextlib
import os
import random
import sys
import warnings
from collections import Counter

import numpy as np

from ..checks import checked, flag, integer, path
from ..random import check_global_state, global_state, restore_global_state
from .callback import Callback
from .save_frequency import SaveFrequency

__all__ = ["BackupAndRestore"]

_LATEST = "latest.training"
_PREVIOUS = "previous.training"


class BackupAndRestore(Callback):
    """Keeps the whole state of a training in a folder, from which the same `fit`, run again, goes on.

    The script that was killed is run again as it is. Where there is a backup, `fit` continues from it, with the same
    results bit for bit as if it had never stopped: weights, optimizer, states of stateful layers, random generators
    (NumPy's and Python's global ones, too), the order of the samples, running means, and what the other callbacks keep
    (`Callback.get_state`), `History` and the file of `CSVLogger` among them. A backup is whole or not there, whenever
    the process is killed.

    Parameters
    ----------
    backup_dir : str or path
        A folder for this training alone.
    save_freq : "epoch" or int
        At the end of every epoch, or after so many batches; then `fit` goes on in the middle of an epoch.
    double_checkpoint : bool
        Keep the backup before as well, for use where the latest cannot be read.
    delete_checkpoint : bool
        Whether the backup is removed when training has come to its end.

    Raises
    ------
    ValueError
        If `backup_dir` is empty, or `save_freq` is something else; in `fit`, if the model has no weights yet, or the
        backup is of another model.

    Notes
    -----
    Unless the data are arrays, the model must be built before `fit`. Data given as an iterator are not drawn again:
    `fit` goes on with what it gives. A `train_step` of your own resumes likewise, as far as it keeps its numbers in
    variables of the model. For an epoch that goes on in its middle, callbacks have `on_epoch_begin` called again.

    Examples
    --------
    >>> from numbarnn.callbacks import BackupAndRestore
    >>> backup = BackupAndRestore("backups/forecast", save_freq=100)
    """

    _called_last = True

    @checked(backup_dir=path, double_checkpoint=flag, delete_checkpoint=flag)
    def __init__(self, backup_dir, save_freq="epoch", double_checkpoint=False, delete_checkpoint=True):
        super().__init__()
        if not backup_dir:
            raise ValueError(f"Empty `backup_dir` argument passed. Received: backup_dir={backup_dir!r}")
        self.backup_dir = os.fspath(backup_dir)
        self.save_freq = save_freq
        self.double_checkpoint = double_checkpoint
        self.delete_checkpoint = delete_checkpoint
        self._frequency = SaveFrequency(save_freq)
        self._latest = os.path.join(self.backup_dir, _LATEST)
        self._previous = os.path.join(self.backup_dir, _PREVIOUS)
        self._others = []

    def _join(self, callbacks):
        self._others = [callback for callback in callbacks if callback is not self]

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        if not self.model.built:
            raise ValueError(
                "To use the BackupAndRestore callback, your model must be built before you call `fit()`. Model "
                f"'{self.model.name}' is unbuilt. You can build it beforehand by calling it on a batch of data."
            )
        os.makedirs(self.backup_dir, exist_ok=True)
        if os.path.exists(self._latest):
            try:
                self._restore(self._latest)
            except ValueError as error:
                if not os.path.exists(self._previous):
                    raise
                warnings.warn(f"The backup before is restored: {error}", stacklevel=2)
                self._restore(self._previous)
        elif os.path.exists(self._previous):
            self._restore(self._previous)

    def on_train_batch_end(self, batch, logs=None):
        """See `Callback`."""
        # Where training stops after this batch, the end of the epoch is still to come.
        if self._frequency.due_at_batch(batch) and not self.model.stop_training:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        if self._frequency.by_epoch:
            self._save()

    def on_train_end(self, logs=None):
        """See `Callback`."""
        if self.delete_checkpoint:
            for path in (self._latest, self._previous):
                with contextlib.suppress(FileNotFoundError):
                    os.remove(path)
            with contextlib.suppress(OSError):  # other files are there, which are not ours to remove
                os.rmdir(self.backup_dir)

    def _save(self):
        progress = self.model._progress()
        if self.model.stop_training:
            progress = progress._replace(epoch=self.params["epochs"])
        extras = {
            "progress": progress._asdict(),
            "frequency": self._frequency.get_state(),
            "generators": {
                "numbarnn": global_state(),
                "numpy": _encoded(np.random.get_state(legacy=False)),
                "random": random.getstate(),
            },
            "callbacks": [[type(c).__name__, _encoded(c.get_state(), c)] for c in self._others],
        }
        if self.double_checkpoint and os.path.exists(self._latest):
            os.replace(self._latest, self._previous)
        self.model._write_training_state(self._latest, extras)

    def _restore(self, path):
        extras = self.model._read_training_state(path, self._prepare)
        generators = extras["generators"]
        restore_global_state(generators["numbarnn"])
        np.random.set_state(_decoded(generators["numpy"]))
        random.setstate(_state_of_random(generators["random"]))
        self._frequency.set_state(extras["frequency"])
        self.model._resume(extras["progress"])

    def _prepare(self, extras):
        """Before anything is put back, raise whatever comes of extras that no `_save` wrote; set callbacks' states."""
        progress, generators = extras["progress"], extras["generators"]
        for count in (*(progress[name] for name in ("epoch", "batch", "seen")), extras["frequency"]["seen"]):
            if integer("count", count, least=0) > sys.maxsize:
                raise ValueError(f"it counts to {count}")
        integer("last", extras["frequency"]["last"], least=-1)
        self.model._check_progress(progress)
        numpy_state = _decoded(generators["numpy"])
        integer("pos", numpy_state["state"]["pos"], least=0)
        if numpy_state["state"]["pos"] > 624:  # NumPy would read beyond its numbers
            raise ValueError("it holds no state of a random generator")
        np.random.RandomState().set_state(numpy_state)
        random.Random().setstate(_state_of_random(generators["random"]))  # noqa: S311
        check_global_state(generators["numbarnn"])
        self._restore_others(extras["callbacks"])

    def _restore_others(self, states):
        """Give every callback its state: the first of a class the first one's, and so on."""
        kept, seen = {}, Counter()
        for name, state in states:
            if state is not None:
                kept[name, seen[name]] = state
                seen[name] += 1
        seen.clear()
        for callback in self._others:
            name = type(callback).__name__
            state = kept.pop((name, seen[name]), None)
            seen[name] += 1
            if state is not None:
                callback.set_state(_decoded(state))
        if kept:
            warnings.warn(
                f"The backup in {self.backup_dir} holds the states of callbacks that are not among those of this fit: "
                f"{', '.join(name for name, _ in kept)}",
                stacklevel=4,
            )


def _state_of_random(state):
    """Return the state of a `random.Random` as it was before JSON made lists of its tuples."""
    version, internal, gauss = state
    return version, tuple(internal), gauss


def _encoded(nest, owner=None):
    """Return a nest as JSON keeps it exactly, arrays as their bytes."""
    if isinstance(nest, np.ndarray):
        return {"array": [nest.dtype.str, nest.shape, base64.b64encode(np.ascontiguousarray(nest)).decode()]}
    if isinstance(nest, np.generic):
        return nest.item()
    if isinstance(nest, dict):
        return {"dict": {key: _encoded(item, owner) for key, item in nest.items()}}
    if isinstance(nest, (list, tuple)):
        return [_encoded(item, owner) for item in nest]
    if nest is None or isinstance(nest, (bool, int, float, str)):
        return nest
    raise TypeError(
        f"`get_state` of {type(owner).__name__} must return numbers, strings, None, arrays, and lists and dicts of "
        f"these. Received: {nest!r:.100} (of type {type(nest).__name__})"
    )


def _decoded(nest):
    """Undo `_encoded`."""
    if isinstance(nest, list):
        return [_decoded(item) for item in nest]
    if not isinstance(nest, dict):
        return nest
    if "dict" in nest:
        return {key: _decoded(item) for key, item in nest["dict"].items()}
    dtype, shape, content = nest["array"]
    return np.frombuffer(base64.b64decode(content), dtype).reshape(shape)
