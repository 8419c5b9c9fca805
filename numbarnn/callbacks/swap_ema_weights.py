"""`SwapEMAWeights`: evaluate with the moving averages of the weights."""

from __future__ import annotations

from ..checks import checked, flag
from .callback import Callback

__all__ = ["SwapEMAWeights"]


class SwapEMAWeights(Callback):
    """Puts the moving averages of the weights in the model while it is evaluated or predicts, and takes them out again.

    For an optimizer with ``use_ema=True``. (Keras does not take them out after `predict`.)

    Parameters
    ----------
    swap_on_epoch : bool
        Have them in the model also from the end of an epoch to the beginning of the next one, for callbacks that come
        after this one, as one that saves the model; one that stops training shall come before it.

    Raises
    ------
    ValueError
        In `fit` and its like, if the optimizer keeps no averages.
    """

    @checked(swap_on_epoch=flag)
    def __init__(self, swap_on_epoch=False):
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._in_model = False

    def _put(self, in_model):
        if in_model == self._in_model:
            return
        optimizer = self.model.optimizer
        if optimizer is None or not optimizer.use_ema:
            raise ValueError(
                "SwapEMAWeights must be used when `use_ema=True` is set on the optimizer. "
                f"Received: {optimizer and f'use_ema={optimizer.use_ema}'}"
            )
        optimizer.swap_averages()
        self._in_model = in_model

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        self._put(False)

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        if not self.swap_on_epoch:
            return
        if epoch == self.params["epochs"] - 1 or self.model.stop_training:
            # They stay, as `fit` would have it.
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        else:
            self._put(True)

    def on_test_begin(self, logs=None):
        """See `Callback`."""
        self._put(True)

    def on_test_end(self, logs=None):
        """See `Callback`."""
        self._put(False)

    def on_predict_begin(self, logs=None):
        """See `Callback`."""
        self._put(True)

    def on_predict_end(self, logs=None):
        """See `Callback`."""
        self._put(False)

    def _abandon(self):
        self._put(False)

    def get_state(self):
        """See `Callback`."""
        return {"in_model": self._in_model}

    def set_state(self, state):
        """See `Callback`."""
        self._in_model = state["in_model"]
