"""`TerminateOnNaN`: end `fit` at a loss that is no number."""

from __future__ import annotations

import math

from ..checks import checked, flag
from .callback import Callback

__all__ = ["TerminateOnNaN"]


class TerminateOnNaN(Callback):
    """Ends `fit` when the loss is NaN or infinite.

    Where that came from, `fit` says in a RuntimeWarning anyway.

    Parameters
    ----------
    raise_error : bool
        Whether to raise instead, with what `fit` would say in the message.

    Raises
    ------
    RuntimeError
        In `fit`, with ``raise_error=True``.
    """

    @checked(raise_error=flag)
    def __init__(self, raise_error=False):
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch, logs=None):
        """See `Callback`."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            watch = self.model._training.watch
            found = watch and watch.found
            raise RuntimeError(
                f"NaN or Inf loss encountered at batch {batch}. Loss value: {loss}. Terminating training immediately."
                + (f" {found}" if found else "")
            )
        print(f"Batch {batch}: Invalid loss, terminating training", flush=True)
        self.model.stop_training = True
