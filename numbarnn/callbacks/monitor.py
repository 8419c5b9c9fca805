"""`MonitorCallback`: what callbacks share that watch one of the reported numbers."""

from __future__ import annotations

import math
import operator
import warnings
from functools import partial

from .. import losses
from ..checks import checked, number
from .callback import Callback

__all__ = ["MonitorCallback"]


class MonitorCallback(Callback):
    """Base of callbacks that compare a reported number with its best so far.

    Parameters
    ----------
    monitor : str
        The name in the logs.
    mode : {"auto", "min", "max"}
        Whether less or more is better; "auto" finds out by `monitor`: losses shall be small, and metrics know.
    baseline : float, optional
        What is the best before the first value.
    min_delta : float
        By how much a value must be better to count as better.

    Raises
    ------
    TypeError
        If `monitor` is no string.
    """

    @checked(baseline=partial(number, finite=False, optional=True), min_delta=number)
    def __init__(self, monitor="val_loss", mode="auto", baseline=None, min_delta=0):
        super().__init__()
        if not isinstance(monitor, str):
            raise TypeError(f"`monitor` must be the name of a loss or metric. Received: monitor={monitor!r}")
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"{type(self).__name__} mode '{mode}' is unknown, fallback to auto mode.",
                stacklevel=3,
            )
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.best = baseline
        self.min_delta = abs(min_delta)
        self._better = None

    def _is_better(self, value, than):
        """Whether a value is better, by `min_delta`, than another or None.

        Any number is better than NaN, while in Keras nothing is: a NaN in the first epoch would be the best for ever.
        """
        if than is None or (math.isnan(than) and not math.isnan(value)):
            return True
        if self._better is operator.gt:
            return value - self.min_delta > than
        return value + self.min_delta < than

    def _find_direction(self):
        """Find out whether less or more is better, where that has not been done yet.

        Raises
        ------
        ValueError
            If ``mode="auto"`` does not do: of a metric that does not know, or something that is no metric.
        """
        if self._better is None:
            self._better = {"min": operator.lt, "max": operator.gt}.get(self.mode) or self._direction()

    def _direction(self):
        name = self.monitor.removeprefix("val_")
        for metric in self.model.metrics:
            direction = metric._direction or ("down" if _is_loss(getattr(metric, "_fn", None)) else None)
            if metric.name == name and direction is not None:
                return operator.gt if direction == "up" else operator.lt
        if name == "loss" or (name.endswith("_loss") and name in self.model.metrics_names):
            return operator.lt
        raise ValueError(
            f"{type(self).__name__} callback received monitor={self.monitor}, but numbarnn isn't able to automatically "
            "determine whether that metric should be maximized or minimized. Pass `mode='max'` in order to monitor "
            "based on the highest metric value, or pass `mode='min'` in order to use the lowest value."
        )


def _is_loss(fn):
    """Whether a metric's function is one of `numbarnn.losses`, or a loss."""
    return isinstance(fn, losses.Loss) or (fn is not None and getattr(losses, getattr(fn, "__name__", ""), None) is fn)
