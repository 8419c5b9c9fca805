"""`History`: what every epoch reported."""

from __future__ import annotations

from .callback import Callback

__all__ = ["History"]


class History(Callback):
    """Records what every epoch reported; `fit` returns one.

    Attributes
    ----------
    history : dict of list
        One list per name ("loss", metrics, "val_loss", ...), one entry per epoch.
    epoch : list of int
        The epochs' numbers.
    """

    def __init__(self):
        super().__init__()
        self.history = {}
        self.epoch = []

    def on_train_begin(self, logs=None):
        """Start an empty record of epochs."""
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        """Record an epoch."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self

    def get_state(self):
        """See `Callback`."""
        return {"history": self.history, "epoch": self.epoch}

    def set_state(self, state):
        """See `Callback`."""
        self.history, self.epoch = state["history"], state["epoch"]
