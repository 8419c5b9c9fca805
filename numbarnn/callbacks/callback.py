"""`Callback`, the base of all."""

from __future__ import annotations

__all__ = ["Callback"]


class Callback:
    """Base of all callbacks; override what is needed.

    Attributes
    ----------
    model : Model
        Set before anything else happens; setting ``model.stop_training`` ends `fit` after the batch.
    params : dict
        ``verbose``, ``epochs`` and ``steps`` of the run; ``steps`` is None while their number is not known.
    """

    # `BackupAndRestore` keeps the model as all others have left it, and restores it before they look at it.
    _called_last = False

    def __init__(self):
        self.params = None
        self.model = None

    def set_params(self, params):
        """Take the run's parameters: dict."""
        self.params = params

    def set_model(self, model):
        """Take the model."""
        self.model = model

    def get_state(self):
        """What `BackupAndRestore` keeps of this callback, to go on from after an interruption.

        Returns
        -------
        dict or None
            Numbers, strings, None, arrays, and lists and dicts of these; None if there is nothing to keep.
        """

    def set_state(self, state):
        """Go on from what `get_state` returned, after `on_train_begin`: dict."""

    def _join(self, callbacks):
        """Take the list of all callbacks of the run, in their order."""

    def _abandon(self):
        """Close what is open: the run ends with an exception."""

    def on_epoch_begin(self, epoch, logs=None):
        """Called before epoch number `epoch`, from 0."""

    def on_epoch_end(self, epoch, logs=None):
        """Called after an epoch; `logs` holds its loss and metrics, those of the validation as ``val_...``."""

    def on_batch_begin(self, batch, logs=None):
        """As `on_train_batch_begin`."""

    def on_batch_end(self, batch, logs=None):
        """As `on_train_batch_end`."""

    def on_train_batch_begin(self, batch, logs=None):
        """Called before training on batch number `batch` of the epoch, from 0."""
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        """Called after it; `logs` holds the running means of the epoch."""
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch, logs=None):
        """Called before a batch of an evaluation, also within `fit`."""

    def on_test_batch_end(self, batch, logs=None):
        """Called after it."""

    def on_predict_batch_begin(self, batch, logs=None):
        """Called before a batch of `predict`."""

    def on_predict_batch_end(self, batch, logs=None):
        """Called after it; ``logs["outputs"]`` holds the predictions."""

    def on_train_begin(self, logs=None):
        """Called once, before `fit` begins."""

    def on_train_end(self, logs=None):
        """Called once, after `fit`; `logs` are the last epoch's."""

    def on_test_begin(self, logs=None):
        """Called before an evaluation, also within `fit`."""

    def on_test_end(self, logs=None):
        """Called after an evaluation."""

    def on_predict_begin(self, logs=None):
        """Called before `predict`."""

    def on_predict_end(self, logs=None):
        """Called after `predict`."""
