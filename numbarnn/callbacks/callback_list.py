"""`CallbackList`: several callbacks as one."""

from __future__ import annotations

from .. import tree
from .callback import Callback
from .history import History
from .progress import ProgbarLogger

__all__ = ["CallbackList"]

_HOOKS = tuple(
    f"on_{phase}_{moment}"
    for phase in ("train", "epoch", "train_batch", "test", "test_batch", "predict", "predict_batch")
    for moment in ("begin", "end")
)


class CallbackList(Callback):
    """Several callbacks, called in order; `BackupAndRestore` after all others.

    Used in a ``with`` statement around a run, it has them close what is open (bars, files) if that ends with an
    exception.

    Parameters
    ----------
    callbacks : Callback, nest of Callback, or None
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
        super().__init__()
        self.callbacks = [] if callbacks is None else tree.leaves(callbacks)
        for callback in self.callbacks:
            _check(callback)
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if add_history and self._history is None:
            self._history = History()
            self.callbacks.append(self._history)
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        self._arrange()
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    def _arrange(self):
        """Note who is called when. Batch hooks are called once a step: those that nobody overrides cost nothing."""
        in_order = sorted(self.callbacks, key=lambda callback: callback._called_last)
        self._listeners = {hook: [c for c in in_order if _listens(c, hook)] for hook in _HOOKS}
        for callback in self.callbacks:
            callback._join(self.callbacks)

    @property
    def history(self):
        """The `History` among the callbacks, or None."""
        return self._history

    def append(self, callback):
        """Add a callback at the end."""
        _check(callback)
        self.callbacks.append(callback)
        self._arrange()

    def set_params(self, params):
        """Hand the run's parameters to every callback."""
        super().set_params(params)
        for callback in self.callbacks:
            callback.set_params(params)

    def set_model(self, model):
        """Hand the model to every callback."""
        super().set_model(model)
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)

    def listening(self, hook):
        """Whether any callback does something at `hook`."""
        return bool(self._listeners[hook])

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is not None:
            for callback in self.callbacks:
                callback._abandon()

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

    def on_batch_begin(self, batch, logs=None):
        """As `on_train_batch_begin`."""
        self.on_train_batch_begin(batch, logs)

    def on_batch_end(self, batch, logs=None):
        """As `on_train_batch_end`."""
        self.on_train_batch_end(batch, logs)

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
        # A copy: what callbacks add for those after them does not reach the loop.
        logs = dict(logs or {})
        for callback in self._listeners[hook]:
            getattr(callback, hook)(logs)

    def _call_numbered(self, hook, number, logs):
        listeners = self._listeners[hook]
        if listeners:
            logs = dict(logs or {})
            for callback in listeners:
                getattr(callback, hook)(number, logs)


def _check(callback):
    if not isinstance(callback, Callback):
        raise TypeError(
            "`callbacks` must hold instances of `numbarnn.callbacks.Callback`. "
            f"Received: {callback!r} (of type {type(callback).__name__})"
        )


def _listens(callback, hook):
    kind = type(callback)
    names = [hook]
    if hook.startswith("on_train_batch"):
        names.append(hook.replace("train_", ""))
    return any(getattr(kind, name) is not getattr(Callback, name) or name in vars(callback) for name in names)
