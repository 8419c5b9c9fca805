"""`TensorBoard`: what is reported, and the weights, as event files."""

from __future__ import annotations

import os
import time

import numpy as np

from ..checks import checked, flag, integer, path
from .callback import Callback

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes losses, metrics, the learning rate and histograms of the weights to files that TensorBoard shows.

    Needs tensorboardX (``pip install 'numbarnn[tensorboard]'``), which is imported in `fit`. Show them by
    ``tensorboard --logdir logs``.

    Parameters
    ----------
    log_dir : str or path
        Files go to its folders "train" and "validation".
    histogram_freq : int
        Every so many epochs the weights are written as histograms; 0 for never.
    write_graph : bool
        Write the table that `model.summary` prints, as a text.
    write_images : bool
        Write the weights as images, too, with the histograms.
    write_steps_per_second : bool
        Write how many steps were done per second, by epoch and by batch.
    update_freq : "epoch", "batch" or int
        When losses and metrics of batches are written: never, after each, or after every so many.
    profile_batch, embeddings_freq, embeddings_metadata
        As in Keras's signature, where they are for tools of TensorFlow: they can only be 0, 0 and None.

    Raises
    ------
    ValueError
        If an argument is something else.
    ImportError
        In `fit`, if tensorboardX is not installed.

    Notes
    -----
    The names are Keras's: ``epoch_loss`` by epoch, ``batch_loss`` and ``evaluation_loss_vs_iterations`` by step,
    ``epoch_learning_rate``, ``<path of the weight>/histogram``. Steps that are done again after an interruption are
    written again.
    """

    @checked(log_dir=path, write_graph=flag, write_images=flag, write_steps_per_second=flag)
    def __init__(
        self,
        log_dir="logs",
        histogram_freq=0,
        write_graph=True,
        write_images=False,
        write_steps_per_second=False,
        update_freq="epoch",
        profile_batch=0,
        embeddings_freq=0,
        embeddings_metadata=None,
    ):
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self.histogram_freq = integer("histogram_freq", histogram_freq, least=0)
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        if update_freq == "epoch":
            self.update_freq = update_freq
        else:
            self.update_freq = 1 if update_freq == "batch" else integer("update_freq", update_freq, least=1)
        for name, value in (
            ("profile_batch", profile_batch),
            ("embeddings_freq", embeddings_freq),
            ("embeddings_metadata", embeddings_metadata),
        ):
            if value:
                raise ValueError(
                    f"`{name}` is not supported: it is for tools of TensorFlow. Received: {name}={value!r}"
                )
        self._writers = {}
        self._train_batches = 0

    def _writer(self, name):
        """The writer of a folder, opened when something is to be written."""
        if name not in self._writers:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise ImportError("`TensorBoard` needs tensorboardX: pip install 'numbarnn[tensorboard]'") from error
            self._writers[name] = SummaryWriter(os.path.join(self.log_dir, name))
        return self._writers[name]

    def _abandon(self):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _write(self, folder, logs, name, step):
        for key, value in logs.items():
            if not np.ndim(value):
                self._writer(folder).add_scalar(name.format(key), float(value), step)

    def on_train_begin(self, logs=None):
        """See `Callback`."""
        self._train_batches = 0
        writer = self._writer("train")
        if self.write_graph and self.model.built:
            lines = []
            self.model.summary(print_fn=lines.append)
            writer.add_text("model", "\n".join(f"    {line}" for line in lines), 0)

    def on_train_end(self, logs=None):
        """See `Callback`."""
        self._abandon()

    def on_epoch_begin(self, epoch, logs=None):
        """See `Callback`."""
        self._epoch_began = time.perf_counter(), int(self.model.optimizer.iterations)

    def on_train_batch_begin(self, batch, logs=None):
        """See `Callback`."""
        self._train_batches += 1
        self._batch_began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """See `Callback`."""
        if self.update_freq == "epoch" or self._train_batches % self.update_freq:
            return
        logs = dict(logs or {})
        if self.write_steps_per_second:
            logs["steps_per_second"] = 1 / (time.perf_counter() - self._batch_began)
        self._write("train", logs, "batch_{}", self._train_batches)

    def on_epoch_end(self, epoch, logs=None):
        """See `Callback`."""
        logs = logs or {}
        train = {name: value for name, value in logs.items() if not name.startswith("val_")}
        train["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self.write_steps_per_second:
            began, iterations = self._epoch_began
            done = int(self.model.optimizer.iterations) - iterations
            train["steps_per_second"] = done / (time.perf_counter() - began)
        self._write("train", train, "epoch_{}", epoch)
        validation = {name[4:]: value for name, value in logs.items() if name.startswith("val_")}
        self._write("validation", validation, "epoch_{}", epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._write_weights(epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_test_end(self, logs=None):
        """See `Callback`."""
        if self.model.optimizer is not None:
            step = int(self.model.optimizer.iterations)
            self._write("validation", logs or {}, "evaluation_{}_vs_iterations", step)

    def _write_weights(self, epoch):
        writer = self._writer("train")
        for layer in self.model.layers:
            for weight in layer.weights:
                values = np.asarray(weight)
                writer.add_histogram(f"{weight.path}/histogram", values, epoch)
                if self.write_images:
                    matrix = np.atleast_2d(values)
                    image = matrix.reshape(-1, matrix.shape[-1])
                    low, high = image.min(), image.max()
                    image = (image - low) / (high - low or 1)
                    writer.add_image(f"{weight.path}/image", image, epoch, dataformats="HW")

    def get_state(self):
        """See `Callback`."""
        return {"train_batches": self._train_batches}

    def set_state(self, state):
        """See `Callback`."""
        self._train_batches = state["train_batches"]
