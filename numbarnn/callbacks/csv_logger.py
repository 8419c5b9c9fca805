"""`CSVLogger`: what every epoch reported, in a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable

from ..checks import checked, flag, path
from .callback import Callback

__all__ = ["CSVLogger"]


class CSVLogger(Callback):
    """Writes what every epoch reports to a file, a row per epoch: its number from 0, then losses and metrics by name.

    Columns are those of the first epoch, in alphabetical order; where that was not validated, "val_" columns are added
    for epochs that are. What an epoch does not report is "NA".

    Parameters
    ----------
    filename : str or path
    separator : str
        One character between columns.
    append : bool
        Go on at the end of a file that exists, instead of beginning it anew.
    """

    @checked(filename=path, append=flag)
    def __init__(self, filename, separator=",", append=False):
        super().__init__()
        self.filename = os.fspath(filename)
        if not isinstance(separator, str) or len(separator) != 1:
            raise ValueError(f"`separator` must be one character. Received: separator={separator!r}")
        self.sep = separator
        self.append = append
        self.csv_file = None

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._abandon()
        self.csv_file = open(self.filename, "a", newline="")
        self.keys = None
        # Emptied at the first row only: a training that goes on after an interruption keeps its rows.
        self._keeps = self.append

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(key.startswith("val_") for key in self.keys):
                self.keys += [f"val_{key}" for key in self.keys]
        self._empty()
        writer = csv.writer(self.csv_file, delimiter=self.sep)
        if not self.csv_file.tell():
            writer.writerow(["epoch", *self.keys])
        writer.writerow([epoch, *(_text(logs.get(key, "NA")) for key in self.keys)])
        self.csv_file.flush()

    def _empty(self):
        if not self._keeps:
            self._cut(0)
            self._keeps = True

    def _cut(self, size):
        self.csv_file.truncate(size)
        self.csv_file.seek(size)

    def on_train_end(self, logs=None):
        """See `Callback`."""
        self._empty()
        self._abandon()

    def _abandon(self):
        if self.csv_file is not None:
            self.csv_file.close()
            self.csv_file = None

    def get_state(self):
        """See `Callback`."""
        return {"keys": self.keys, "size": self.csv_file.tell() if self._keeps else 0}

    def set_state(self, state):
        """See `Callback`: rows of epochs that will be trained again are cut off."""
        self.keys, self._keeps = state["keys"], True
        self._cut(min(state["size"], self.csv_file.tell()))


def _text(value):
    """What stands in a row for a value; arrays as in Keras."""
    if isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1):
        return '"[' + ", ".join(map(str, value)) + ']"'
    return value
