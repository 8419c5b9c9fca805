"""`EarlyStopping`: end `fit` where nothing gets better any more."""

from __future__ import annotations

import warnings
from functools import partial

from ..checks import checked, flag, integer, level, number
from .monitor import MonitorCallback

__all__ = ["EarlyStopping"]


class EarlyStopping(MonitorCallback):
    """Ends `fit` when a reported number has stopped getting better.

    Parameters
    ----------
    monitor : str
        The number's name in the logs. Where it is missing, a warning says so and nothing is done.
    min_delta : float
        By how much it must be better to count as better.
    patience : int
        Epochs without improvement after which training ends.
    verbose : {0, 1}
        Whether to say so.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" goes by the direction of the metric.
    baseline : float, optional
        Improvements that do not get better than this do not count as such.
    restore_best_weights : bool
        Whether, at the end, the weights become those of the best epoch, also where training ran to its last epoch.
    start_from_epoch : int
        Epochs before this one (from 0) are not looked at.

    Attributes
    ----------
    stopped_epoch : int
        After which epoch (from 0) training was ended; 0 if it was not.
    best : float or None
    best_epoch : int
    best_weights : list of ndarray or None
    wait : int
        Epochs since the last improvement.

    Examples
    --------
    >>> from numbarnn.callbacks import EarlyStopping
    >>> stop = EarlyStopping(patience=3, restore_best_weights=True)
    """

    @checked(verbose=level, baseline=partial(number, finite=False, optional=True), restore_best_weights=flag)
    def __init__(
        self,
        monitor="val_loss",
        min_delta=0,
        patience=0,
        verbose=0,
        mode="auto",
        baseline=None,
        restore_best_weights=False,
        start_from_epoch=0,
    ):
        super().__init__(monitor, mode, min_delta=min_delta)
        self.patience = integer("patience", patience, least=0)
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = integer("start_from_epoch", start_from_epoch, least=0)
        self._begin()

    def _begin(self):
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights = None

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._begin()

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        self._find_direction()
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            # Even where nothing counts as better, there are weights to go back to.
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._is_better(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._is_better(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        """See `Callback`."""
        if self.stopped_epoch > 0 and self.verbose > 0:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping", flush=True)
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                print(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.", flush=True)
            self.model.set_weights(self.best_weights)

    def get_monitor_value(self, logs):
        """The number that is watched, or None, with a warning, where it is missing.

        Parameters
        ----------
        logs : dict or None

        Returns
        -------
        float or None
        """
        logs = logs or {}
        value = logs.get(self.monitor)
        if value is None:
            warnings.warn(
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs)}",
                stacklevel=2,
            )
        return value

    def get_state(self):
        """See `Callback`."""
        names = ("wait", "stopped_epoch", "best", "best_epoch", "best_weights")
        return {name: getattr(self, name) for name in names}

    def set_state(self, state):
        """See `Callback`."""
        vars(self).update(state)
