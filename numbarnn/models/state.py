"""What `compile` and the training loop keep."""

from __future__ import annotations

from typing import NamedTuple

from .. import metrics
from ..random import SeedGenerator, seedings

__all__ = ["Progress", "State"]


class Progress(NamedTuple):
    """Where a training is, between two of its batches: all that `fit` needs to go on from there.

    Made of integers, floats, strings, lists and dicts, so that JSON keeps it exactly.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 0.
    batch : int
        How many batches of the epoch are done.
    seen : int
        How many batches of the pass through the data are done: `batch`, unless `steps_per_epoch` lets a pass span
        several epochs.
    shuffle : list of int
        The state of the shuffle generator when the order of the pass was drawn.
    totals : dict
        The running sums of loss and metrics of the epoch.
    """

    epoch: int
    batch: int
    seen: int
    shuffle: list
    totals: dict


class State:
    """All that `compile` and the training loop keep; one object, which the layer's bookkeeping does not look into.

    Attributes
    ----------
    shuffle_seed : SeedGenerator or None
        Gives the order of the samples in each epoch; every `fit` goes on with it, so that several are one long one.
        Made by `fit` from the global seed; None before that, and again when `set_seed` has been called since. To
        restore a training outside of `fit`, assign a generator; within, use `resume`.
    resume : Progress or None
        From where `fit` is to go on. A callback's `on_train_begin` may set it, to what `Trainer._progress` returned in
        an earlier `on_train_batch_end` or `on_epoch_end`, after it has put back weights, optimizer and the states of
        random generators as they were then. `fit` starts at that epoch (instead of `initial_epoch`), draws its order
        again, and leaves out the batches that are done; then it sets `resume` to None. Data given as an iterator cannot
        be drawn again: nothing of it is left out.
    position : (int, int)
        The epoch that `fit` is in and how many of its batches are done.
    epochs : Epochs or None
        The data that `fit` is training on.
    watch : LossWatch or None
        Looks into losses that are not finite, in `fit`.
    """

    def __init__(self):
        self.shuffle_seed = None
        self.resume = self.epochs = self.watch = None
        self.position = 0, 0
        self.compiled = False
        self.optimizer = self.loss = self.loss_weights = self.metrics = self.weighted_metrics = None
        self.run_eagerly = False
        self.stop_training = False
        self.history = None
        self.forget()

    def forget(self):
        """Drop what was derived from the settings: programs, resolved losses and metrics, running means."""
        self.steps = {}
        self.clock = self.version = None
        self.settings = None  # `Settings` that the steps have baked in
        self.in_succession = 0  # how often steps were dropped before any was used twice
        self.strangers = []  # layers that the steps pass through and that are not the model's, as in a loss
        self.loss_objects = None  # per output: (Loss or None, weight)
        self.outputs = None  # an `Outputs`
        self.entries = None  # (metric, number of its output, weighted)
        self.tracker = metrics.Mean(name="loss")  # for steps of the user's own
        self.prepared = False  # whether these know their metrics and variables
        self.names = None  # of losses per output (only for several outputs)
        self.reset()

    def reset(self):
        """Start the running means anew."""
        self.logs = None  # what a step of the user's own returned
        self.total = self.count = 0.0
        self.parts = None
        for metric, _, _ in self.entries or ():
            metric.reset_state()

    @property
    def shuffle_seed(self):
        """See the class."""
        return self._shuffle_seed if self._seeding == seedings() else None

    @shuffle_seed.setter
    def shuffle_seed(self, generator):
        self._shuffle_seed, self._seeding = generator, seedings()

    def shuffle_generator(self):
        """Return `shuffle_seed`, made if there is none."""
        if self.shuffle_seed is None:
            self.shuffle_seed = SeedGenerator(name="shuffle")
        return self._shuffle_seed

    def __getstate__(self):
        # Programs are traced again where they are needed.
        gone = dict.fromkeys(("clock", "version", "settings", "history", "epochs", "watch"))
        return {**self.__dict__, **gone, "steps": {}, "_shuffle_seed": self.shuffle_seed}

    def __setstate__(self, kept):
        self.__dict__.update(kept)
        self._seeding = seedings()  # which are counted per process
