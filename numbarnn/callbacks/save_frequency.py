"""`SaveFrequency`: after which epochs or batches something is saved."""

from __future__ import annotations

import numbers

__all__ = ["SaveFrequency"]


class SaveFrequency:
    """Counts batches, over the ends of epochs, until it is time to save.

    Parameters
    ----------
    save_freq : "epoch" or int
        At the end of every epoch, or after so many batches.

    Raises
    ------
    ValueError
        If it is neither.
    """

    def __init__(self, save_freq):
        is_count = isinstance(save_freq, numbers.Integral) and not isinstance(save_freq, bool) and save_freq > 0
        if save_freq != "epoch" and not is_count:
            raise ValueError(
                f"Unrecognized save_freq: {save_freq}. Expected save_freq are 'epoch' or integer values (positive)"
            )
        self.by_epoch = save_freq == "epoch"
        self.batches = None if self.by_epoch else int(save_freq)
        self.seen = 0  # batches since the last saving
        self.last = -1

    def due_at_batch(self, batch):
        """Take note of a batch; say whether to save after it.

        Parameters
        ----------
        batch : int
            Its number in the epoch. It may be more than the last one's plus 1 where not every batch is told.

        Returns
        -------
        bool
        """
        if self.by_epoch:
            return False
        self.seen += batch + 1 if batch <= self.last else batch - self.last
        self.last = batch
        if self.seen < self.batches:
            return False
        self.seen = 0
        return True

    def get_state(self):
        """The counts: dict of int."""
        return {"seen": self.seen, "last": self.last}

    def set_state(self, state):
        """Go on from counts that `get_state` returned."""
        vars(self).update(state)
