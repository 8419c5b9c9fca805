"""`ProgbarLogger`: a bar, or a line, per epoch."""

from __future__ import annotations

import os
import sys
import time
import warnings

from .callback import Callback

__all__ = ["ProgbarLogger"]


def format_value(value):
    """A loss or metric as Keras prints it: ``%.4f``, or ``%.4e`` where that would show nothing."""
    return f"{value:.4f}" if abs(value) > 1e-3 or value == 0 else f"{value:.4e}"


def format_duration(seconds, steps):
    """Total time and time per step, e.g. ``12s 11ms/step``."""
    step = seconds / max(1, steps)
    if step >= 1 or step == 0:
        each = f"{step:.0f}s/step"
    elif step >= 1e-3:
        each = f"{step * 1e3:.0f}ms/step"
    else:
        each = f"{step * 1e6:.0f}us/step"
    return f"{seconds:.0f}s {each}"


def _interactive():
    """Whether a bar that redraws itself makes sense on standard output."""
    if "ipykernel" in sys.modules:
        return True
    return bool(getattr(sys.stdout, "isatty", lambda: False)())


def _size_of_terminal():
    """Say how large a terminal is that does not know it (in containers, under recorders): tqdm would show nothing."""
    unknown = sys.stdout.isatty() and 0 in os.get_terminal_size(sys.stdout.fileno())
    return {"ncols": 80, "nrows": 24} if unknown else {}


class ProgbarLogger(Callback):
    """Shows progress: a bar per epoch (``verbose=1``, by tqdm, in terminals and notebooks), or a line per epoch (2).

    ``verbose="auto"`` shows a bar where standard output is a terminal or a notebook, else a line per epoch. While the
    number of steps is not known, as in the first epoch on a generator, steps are counted.
    """

    _REFRESH = 0.1  # seconds between two drawings
    _BAR = "{n_fmt}/{total_fmt} [{bar:30}] - {desc}"
    _COUNT = "{n_fmt}/Unknown - {desc}"

    def __init__(self):
        super().__init__()
        self.verbose = 1
        self.epochs = None
        self.steps = None
        self._bar = None
        self._in_training = False

    def set_params(self, params):
        """See `Callback`."""
        super().set_params(params)
        verbose = params.get("verbose", 1)
        if verbose == "auto":
            verbose = 1 if _interactive() else 2
        self.verbose = int(verbose)
        self.epochs = params.get("epochs")
        self.steps = params.get("steps")

    def _open(self):
        self._start = self._drawn = time.perf_counter()
        self._done = 0
        if self.verbose == 1:
            with warnings.catch_warnings():
                # In a notebook without ipywidgets it says so, and then does what we want: a bar of characters.
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm

            self._bar = tqdm(
                total=self.steps,
                **_size_of_terminal(),
                file=sys.stdout,
                ascii=" >=",
                bar_format=self._COUNT if self.steps is None else self._BAR,
                mininterval=self._REFRESH,
                position=0,  # where a bar goes that an exception left open, and tqdm would keep its line free
            )

    def _advance(self, number, logs):
        self._done = number + 1
        if self._bar is None:
            return
        now = time.perf_counter()
        if now - self._drawn >= self._REFRESH:
            self._drawn = now
            self._draw(logs, now)

    def _draw(self, logs, now, refresh=True):
        self._bar.n = self._done
        self._bar.set_description_str(self._line(logs, now), refresh=refresh)

    def _line(self, logs, now):
        parts = [format_duration(now - self._start, self._done)]
        parts += [f"{name}: {format_value(value)}" for name, value in logs.items() if _is_number(value)]
        return " - ".join(parts)

    def _close(self, logs):
        now = time.perf_counter()
        if self.steps is None:
            self.steps = self._done
            if self._bar is not None:
                self._bar.total, self._bar.bar_format = self.steps, self._BAR
        if self._bar is not None:
            self._draw(logs, now, refresh=False)  # closing draws once more
            # What will be redrawn is cut to the terminal's width, because a line that wraps cannot be redrawn; the last
            # drawing stays, and must show every value.
            self._bar.ncols = self._bar.dynamic_ncols = None
            self._bar.close()
            self._bar = None
        elif self.verbose == 2:
            print(f"{self._done}/{self._done} - {self._line(logs, now)}", flush=True)

    def _abandon(self):
        self._in_training = False
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._in_training = True

    def on_train_end(self, logs=None):
        """See `Callback`."""
        self._in_training = False

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        if self.verbose and self.epochs and self.epochs > 1:
            print(f"Epoch {epoch + 1}/{self.epochs}", flush=True)
        self._open()

    def on_train_batch_end(self, batch, logs=None):
        """See `Callback`."""
        self._advance(batch, logs or {})

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        self._close(logs or {})

    def on_test_begin(self, logs=None):
        """See `Callback`."""
        if not self._in_training:
            self._open()

    def on_test_batch_end(self, batch, logs=None):
        """See `Callback`."""
        if not self._in_training:
            self._advance(batch, logs or {})

    def on_test_end(self, logs=None):
        """See `Callback`."""
        if not self._in_training:
            self._close(logs or {})

    def on_predict_begin(self, logs=None):
        """See `Callback`."""
        self._open()

    def on_predict_batch_end(self, batch, logs=None):
        """See `Callback`."""
        self._advance(batch, {})

    def on_predict_end(self, logs=None):
        """See `Callback`."""
        self._close({})


def _is_number(value):
    return isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0
