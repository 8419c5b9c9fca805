"""`LambdaCallback`: functions as a callback."""

from __future__ import annotations

from .callback import Callback

__all__ = ["LambdaCallback"]


class LambdaCallback(Callback):
    """A callback made of functions.

    Parameters
    ----------
    on_epoch_begin, on_epoch_end : callable, optional
        ``fn(epoch, logs)``.
    on_train_begin, on_train_end : callable, optional
        ``fn(logs)``.
    on_train_batch_begin, on_train_batch_end : callable, optional
        ``fn(batch, logs)``.
    **kwargs : callable
        Any other method of `Callback`, by its name: ``on_test_end=fn``.

    Raises
    ------
    TypeError
        If `Callback` has no such method, or what is given is not callable. (Keras ignores misspelt names.)

    Examples
    --------
    >>> from numbarnn.callbacks import LambdaCallback
    >>> tell = LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs["loss"]))
    """

    def __init__(
        self,
        on_epoch_begin=None,
        on_epoch_end=None,
        on_train_begin=None,
        on_train_end=None,
        on_train_batch_begin=None,
        on_train_batch_end=None,
        **kwargs,
    ):
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for name, function in given.items():
            if name.startswith("_") or not callable(getattr(Callback, name, None)):
                raise TypeError(f"`{name}` is no method of `Callback`. Received: {name}={function!r}")
            if function is not None:
                if not callable(function):
                    raise TypeError(f"`{name}` must be a function. Received: {name}={function!r}")
                setattr(self, name, function)
