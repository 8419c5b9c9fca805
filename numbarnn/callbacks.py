"""Callbacks: what `fit`, `evaluate` and `predict` call between batches and epochs."""

from __future__ import annotations

import os
import sys
import time
import warnings

__all__ = ["Callback", "CallbackList", "History", "ProgbarLogger"]

_HOOKS = tuple(
    f"on_{phase}_{moment}"
    for phase in ("train", "epoch", "train_batch", "test", "test_batch", "predict", "predict_batch")
    for moment in ("begin", "end")
)


class Callback:
    """Base of all callbacks; override what is needed.

    Attributes
    ----------
    model : Model
        Set before anything else happens; setting ``model.stop_training`` ends `fit` after the epoch.
    params : dict
        ``verbose``, ``epochs`` and ``steps`` of the run.
    """

    def __init__(self):
        self.params = None
        self.model = None

    def set_params(self, params):
        """Take the run's parameters: dict."""
        self.params = params

    def set_model(self, model):
        """Take the model."""
        self.model = model

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


class CallbackList:
    """Several callbacks, called in order.

    Parameters
    ----------
    callbacks : list of Callback, Callback or None
    add_history : bool
        Append a `History` unless there is one.
    add_progbar : bool
        Append a `ProgbarLogger` unless there is one.
    model : Model, optional
    **params
        Handed to every callback as ``params``.

    Raises
    ------
    TypeError
        If something else is among the callbacks.
    """

    def __init__(self, callbacks=None, add_history=False, add_progbar=False, model=None, **params):
        if callbacks is None:
            callbacks = []
        elif not isinstance(callbacks, (list, tuple)):
            callbacks = [callbacks]
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(
                    "`callbacks` must hold instances of `numbarnn.callbacks.Callback`. "
                    f"Received: {callback!r} (of type {type(callback).__name__})"
                )
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        if add_history and self._history is None:
            self._history = History()
            self.callbacks.append(self._history)
        self.model = model
        if model is not None:
            self.set_model(model)
        self.set_params(params)
        # Batch hooks are called once a step: those that nobody overrides cost nothing.
        self._listeners = {hook: [c for c in self.callbacks if _listens(c, hook)] for hook in _HOOKS}

    @property
    def history(self):
        """The `History` among the callbacks, or None."""
        return self._history

    def append(self, callback):
        """Add a callback at the end."""
        self.callbacks.append(callback)
        for hook in _HOOKS:
            if _listens(callback, hook):
                self._listeners[hook].append(callback)

    def set_params(self, params):
        """Hand the run's parameters to every callback."""
        self.params = params
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model):
        """Hand the model to every callback."""
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)

    def listening(self, hook):
        """Whether any callback does something at `hook`."""
        return bool(self._listeners[hook])

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._call("on_train_begin", logs)

    def on_train_end(self, logs=None):
        """See `Callback`."""
        self._call("on_train_end", logs)

    def on_test_begin(self, logs=None):
        """See `Callback`."""
        self._call("on_test_begin", logs)

    def on_test_end(self, logs=None):
        """See `Callback`."""
        self._call("on_test_end", logs)

    def on_predict_begin(self, logs=None):
        """See `Callback`."""
        self._call("on_predict_begin", logs)

    def on_predict_end(self, logs=None):
        """See `Callback`."""
        self._call("on_predict_end", logs)

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_train_batch_end", batch, logs)

    def on_test_batch_begin(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_test_batch_end", batch, logs)

    def on_predict_batch_begin(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_predict_batch_begin", batch, logs)

    def on_predict_batch_end(self, batch, logs=None):
        """See `Callback`."""
        self._call_numbered("on_predict_batch_end", batch, logs)

    def _call(self, hook, logs):
        logs = logs or {}
        for callback in self._listeners[hook]:
            getattr(callback, hook)(logs)

    def _call_numbered(self, hook, number, logs):
        listeners = self._listeners[hook]
        if listeners:
            logs = logs or {}
            for callback in listeners:
                getattr(callback, hook)(number, logs)


def _listens(callback, hook):
    kind = type(callback)
    names = [hook]
    if hook.startswith("on_train_batch"):
        names.append(hook.replace("train_", ""))
    return any(getattr(kind, name) is not getattr(Callback, name) or name in vars(callback) for name in names)


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

    ``verbose="auto"`` shows a bar where standard output is a terminal or a notebook, else a line per epoch.
    """

    _REFRESH = 0.1  # seconds between two drawings

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
                bar_format="{n_fmt}/{total_fmt} [{bar:30}] - {desc}",
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
        if self._bar is not None:
            self._bar.total = self._bar.total or self._done  # which is known now
            self._draw(logs, now, refresh=False)  # closing draws once more
            # What will be redrawn is cut to the terminal's width, because a line that wraps cannot be redrawn; the last
            # drawing stays, and must show every value.
            self._bar.ncols = self._bar.dynamic_ncols = None
            self._bar.close()
            self._bar = None
        elif self.verbose == 2:
            print(f"{self._done}/{self._done} - {self._line(logs, now)}", flush=True)

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
