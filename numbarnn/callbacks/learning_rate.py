"""Callbacks that set the learning rate: `LearningRateScheduler` by the epoch, `ReduceLROnPlateau` by the results."""

from __future__ import annotations

import inspect
import warnings
from functools import partial

import numpy as np

from ..checks import checked, integer, level, number
from .callback import Callback
from .monitor import MonitorCallback

__all__ = ["LearningRateScheduler", "ReduceLROnPlateau"]


def _learning_rate(model):
    """The optimizer's learning rate as a float."""
    return float(model.optimizer.learning_rate)


class LearningRateScheduler(Callback):
    """Sets the learning rate before every epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)``, or ``schedule(epoch)``, returns the new learning rate, a float; `epoch`
        counts from 0. (Keras calls a function of two arguments that raises TypeError once more, with one.)
    verbose : {0, 1}
        Whether to print the learning rate.

    Raises
    ------
    TypeError
        If `schedule` cannot be called.
    ValueError
        In `fit`, if it returns something else than a float.

    Notes
    -----
    The logs of the epoch get the entry "learning_rate".
    """

    @checked(verbose=level)
    def __init__(self, schedule, verbose=0):
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"`schedule` must be a function of the epoch. Received: schedule={schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        self._epoch = None  # of which the learning rate has been set

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._epoch = None

    def _scheduled(self, epoch):
        current = _learning_rate(self.model)
        try:
            inspect.signature(self.schedule).bind(epoch, current)
        except ValueError:  # it does not tell
            return self.schedule(epoch, current)
        except TypeError:
            return self.schedule(epoch)
        return self.schedule(epoch, current)

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        if epoch == self._epoch:
            return  # an interrupted epoch goes on: what is made of the rate before must not be made twice
        rate = self._scheduled(epoch)
        if not isinstance(rate, (float, np.float32)):
            raise ValueError(f"The output of the `schedule` function should be a float. Got: {rate}")
        self.model.optimizer.learning_rate = rate
        self._epoch = epoch
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}.", flush=True)

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        if logs is not None:
            logs["learning_rate"] = _learning_rate(self.model)

    def get_state(self):
        """See `Callback`."""
        return {"epoch": self._epoch}

    def set_state(self, state):
        """See `Callback`."""
        self._epoch = state["epoch"]


class ReduceLROnPlateau(MonitorCallback):
    """Reduces the learning rate when a reported number has stopped getting better.

    Parameters
    ----------
    monitor : str
        The number's name in the logs. Where it is missing, a warning says so and nothing is done.
    factor : float
        What the learning rate is multiplied by; less than 1.
    patience : int
        Epochs without improvement after which that is done.
    verbose : {0, 1}
        Whether to say so.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" goes by the direction of the metric.
    min_delta : float
        By how much a value must be better to count as better.
    cooldown : int
        Epochs to wait after a reduction before epochs without improvement are counted again.
    min_lr : float
        The learning rate is never made less.

    Raises
    ------
    ValueError
        If `factor` is 1 or more, or a number of epochs is negative.

    Notes
    -----
    The logs of the epoch get the entry "learning_rate", the one with which it was trained.
    """

    @checked(factor=partial(number, least=0, below=1), verbose=level, min_lr=partial(number, least=0))
    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        verbose=0,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_lr=0.0,
    ):
        super().__init__(monitor, mode, min_delta=min_delta)
        self.factor = factor
        self.patience = integer("patience", patience, least=0)
        self.verbose = verbose
        self.cooldown = integer("cooldown", cooldown, least=0)
        self.min_lr = min_lr
        self._begin()

    def _begin(self):
        self.best = None
        self.wait = 0
        self.cooldown_counter = 0

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._begin()

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        self._find_direction()
        logs = {} if logs is None else logs
        logs["learning_rate"] = _learning_rate(self.model)
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs)}.",
                stacklevel=2,
            )
            return
        if self.in_cooldown():
            self.cooldown_counter -= 1
            self.wait = 0
        if self._is_better(current, self.best):
            self.best = current
            self.wait = 0
        elif not self.in_cooldown():
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch):
        before = _learning_rate(self.model)
        if before <= np.float32(self.min_lr):
            return
        rate = max(before * self.factor, self.min_lr)
        self.model.optimizer.learning_rate = rate
        if self.verbose > 0:
            print(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}.", flush=True)
        self.cooldown_counter = self.cooldown
        self.wait = 0

    def in_cooldown(self):
        """Whether the last reduction is so recent that epochs are not counted: bool."""
        return self.cooldown_counter > 0

    def get_state(self):
        """See `Callback`."""
        return {name: getattr(self, name) for name in ("best", "wait", "cooldown_counter")}

    def set_state(self, state):
        """See `Callback`."""
        vars(self).update(state)
