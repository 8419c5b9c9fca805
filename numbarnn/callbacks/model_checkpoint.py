"""`ModelCheckpoint`: save the model as training goes on."""

from __future__ import annotations

import os
import warnings
from functools import partial

import numpy as np

from ..checks import checked, flag, level, number, path
from .monitor import MonitorCallback
from .save_frequency import SaveFrequency

__all__ = ["ModelCheckpoint"]

_MODEL_FILES = (".numbarnn", ".keras")
_WEIGHTS_FILES = (".weights.numbarnn", ".weights.h5")


class ModelCheckpoint(MonitorCallback):
    """Saves the model, or its weights, after every epoch or some number of batches, always or when it is the best.

    Parameters
    ----------
    filepath : str or path
        Where to: a file for `model.save` (".numbarnn", ".keras"), or with `save_weights_only` for `model.save_weights`
        (".weights.numbarnn", ".weights.h5"). It may have fields in braces: ``{epoch:02d}`` (from 1), ``{batch}`` (from
        1; where `save_freq` is a number), and everything in the logs, ``{val_loss:.2f}``.
    monitor : str
        What is compared with `save_best_only`.
    verbose : {0, 1}
        Whether to say so.
    save_best_only : bool
        Save only where `monitor` is better than before. Where it is missing, a warning says so and the model is saved.
    save_weights_only : bool
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" goes by the direction of the metric.
    save_freq : "epoch" or int
        At the end of every epoch, or after so many batches, counted over the ends of epochs.
    initial_value_threshold : float, optional
        What the first value must be better than to be saved.

    Raises
    ------
    ValueError
        If `filepath` ends otherwise, or `save_freq` is something else.
    KeyError
        In `fit`, if a field of `filepath` is not in the logs.
    OSError
        In `fit`, if the file is a directory or cannot be written.
    """

    @checked(
        filepath=path,
        verbose=level,
        save_best_only=flag,
        save_weights_only=flag,
        initial_value_threshold=partial(number, finite=False, optional=True),
    )
    def __init__(
        self,
        filepath,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        initial_value_threshold=None,
    ):
        super().__init__(monitor, mode, initial_value_threshold)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self._frequency = SaveFrequency(save_freq)
        is_weights_file = self.filepath.endswith(_WEIGHTS_FILES)
        if save_weights_only and not is_weights_file:
            raise ValueError(
                "When using `save_weights_only=True` in `ModelCheckpoint`, the filepath provided must end in "
                f"{' or '.join(_WEIGHTS_FILES)}. Received: filepath={self.filepath}"
            )
        if not save_weights_only and (is_weights_file or not self.filepath.endswith(_MODEL_FILES)):
            raise ValueError(
                f"The filepath provided must end in {' or '.join(_MODEL_FILES)}, the formats of whole models; weights "
                f"alone are saved with `save_weights_only=True`. Received: filepath={self.filepath}"
            )

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """See `Callback`."""
        if self._frequency.due_at_batch(batch):
            self._find_direction_if_needed()
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        self._find_direction_if_needed()
        if self._frequency.by_epoch:
            self._save(epoch, None, logs or {})

    def _find_direction_if_needed(self):
        if self.save_best_only:
            self._find_direction()

    def _save(self, epoch, batch, logs):
        fields = {"epoch": epoch + 1, **({} if batch is None else {"batch": batch + 1}), **logs}
        try:
            path = self.filepath.format(**fields)
        except KeyError as error:
            raise KeyError(f'Failed to format this callback filepath: "{self.filepath}". Reason: {error}') from None
        if not self._is_wanted(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise IsADirectoryError(
                "Please specify a non-directory filepath for ModelCheckpoint. "
                f"Filepath used is an existing directory: {path}"
            )
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        self._say(epoch, f"finished saving model to {path}")

    def _is_wanted(self, epoch, logs, path):
        """Whether to save now; says so."""
        if not self.save_best_only:
            self._say(epoch, f"saving model to {path}")
            return True
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(f"Can save best model only with {self.monitor} available.", stacklevel=4)
            return True
        if np.ndim(current):
            warnings.warn(
                f"Can save best model only when `monitor` is a scalar value. Received: {current}. "
                "Falling back to `save_best_only=False`.",
                stacklevel=4,
            )
            return True
        best = "None" if self.best is None else f"{self.best:.5f}"
        if not self._is_better(current, self.best):
            self._say(epoch, f"{self.monitor} did not improve from {best}")
            return False
        self._say(epoch, f"{self.monitor} improved from {best} to {current:.5f}, saving model to {path}")
        self.best = current
        return True

    def _say(self, epoch, what):
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: {what}", flush=True)

    def get_state(self):
        """See `Callback`."""
        return {"best": self.best, "frequency": self._frequency.get_state()}

    def set_state(self, state):
        """See `Callback`."""
        self.best = state["best"]
        self._frequency.set_state(state["frequency"])
