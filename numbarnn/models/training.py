"""Training, evaluation and prediction: `compile`, `fit`, `evaluate`, `predict` and their one-batch forms.

A step on a batch is one `Program`: the model's `call`, its losses and penalties are traced once per signature
(structure, shapes and dtypes of the data; versions of the layers) and replayed afterwards. For training the program is
linearized with respect to the trainable variables; the gradients land in the optimizer's flat buffer and one kernel
call updates all weights. Metrics are computed from the program's outputs.
"""

from __future__ import annotations

import collections.abc
import numbers

import numpy as np

from .. import backend, optimizers, tree
from ..callbacks import CallbackList
from ..random import SeedGenerator
from ..utils.sequence import Ragged
from .data import ArrayBatches, Collected, check_batch, check_cardinality, standardize, train_validation_split
from .input_gradient import InputGradient
from .looking_inside import LookingInside
from .outputs import check_loss, check_metrics
from .own_steps import OwnSteps
from .ragged import check_lengths, padded
from .steps import State

__all__ = ["Trainer"]


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


class Trainer(InputGradient, LookingInside, OwnSteps):
    """What makes a layer trainable by itself; the other half of `Model`."""

    # ------------------------------------------------------------------------------------------------ compile

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
    ):
        """Say how the model is trained.

        Parameters
        ----------
        optimizer : str or Optimizer
        loss : str, Loss, function, or list or dict (by output name) of these, optional
            Of several outputs; None for outputs without a loss. One alone is the loss of every output.
        loss_weights : list or dict of float, optional
            Of several outputs.
        metrics : list, optional
            Names, metrics or functions ``fn(y_true, y_pred)``. Of several outputs each has all of these (a metric of
            its own, made after the one given), unless they come as a list of lists or a dict by output name. They know
            the mask, not the sample weights.
        weighted_metrics : list, optional
            As `metrics`, with sample weights.
        run_eagerly : bool
            Trace the step anew at every batch and run it operation by operation, to debug a `call` or a loss.
        steps_per_execution, jit_compile
            Accepted for Keras's sake, without effect: every step is compiled, one at a time.

        Raises
        ------
        ValueError
            For an optimizer, loss or metric that is not known; the model stays as it was.
        """
        state = State()
        state.optimizer = optimizers.get(optimizer)
        check_loss(loss)
        check_metrics("metrics", metrics)
        check_metrics("weighted_metrics", weighted_metrics)
        state.loss, state.loss_weights = loss, loss_weights
        state.metrics, state.weighted_metrics = metrics, weighted_metrics
        state.run_eagerly = bool(run_eagerly)
        state.compiled = True
        state.history = self._training.history
        self.__dict__["_training"] = state

    def _require_compiled(self):
        if not self._training.compiled:
            raise ValueError("You must call `compile()` before using the model.")

    @property
    def compiled(self):
        """Whether `compile` has been called."""
        return self._training.compiled

    @property
    def optimizer(self):
        """The optimizer, or None before `compile`."""
        return self._training.optimizer

    @property
    def loss(self):
        """What was passed to `compile`."""
        return self._training.loss

    @property
    def run_eagerly(self):
        """Whether steps are traced anew at every batch."""
        return self._training.run_eagerly

    @run_eagerly.setter
    def run_eagerly(self, value):
        self._training.run_eagerly = bool(value)

    @property
    def stop_training(self):
        """Set by callbacks to end `fit`."""
        return self._training.stop_training

    @stop_training.setter
    def stop_training(self, value):
        self._training.stop_training = bool(value)

    @property
    def history(self):
        """The `History` of the last `fit`, or None."""
        return self._training.history

    @history.setter
    def history(self, value):
        self._training.history = value

    @property
    def metrics(self):
        """The metrics: those of `compile` (known once data have been seen), then those that layers own.

        Where `train_step` or `test_step` is the model's own, a running mean "loss" comes first.
        """
        found = [*self._own_trackers(), *[metric for metric, _, _ in self._training.entries or ()]]
        seen = {id(m) for m in found}
        return found + [m for m in super().metrics if id(m) not in seen]

    @property
    def metrics_names(self):
        """The names under which results are reported, in order: "loss", losses of outputs if several, metrics."""
        state = self._training
        names = ["loss", *(state.names or ())]
        return names + [metric.name for metric, _, _ in state.entries or ()]

    def reset_metrics(self):
        """Start all running means anew."""
        self._training.reset()
        for metric in self.metrics:
            metric.reset_state()

    # ------------------------------------------------------------------------------------------------ data

    def _float_dtype(self):
        """What floating point data are cast to: float32, or float64 for a model that computes in it."""
        return np.dtype(np.float64 if backend.floatx() == "float64" or self.compute_dtype == "float64" else np.float32)

    def _standardize(self, x, y, sample_weight):
        dtype = self._float_dtype()
        if type(x) is not np.ndarray or (x.dtype.kind == "f" and x.dtype != dtype) or x.dtype.kind not in "fiub":
            x = standardize(x, dtype, "x")
        if y is not None:
            if type(y) is not np.ndarray or (y.dtype.kind == "f" and y.dtype != dtype) or y.dtype.kind not in "fiub":
                y = standardize(y, dtype, "y")
        if sample_weight is not None:
            sample_weight = standardize(sample_weight, dtype, "sample_weight")
            sample_weight = tree.map_structure(
                lambda w: w if w is None or w.dtype == dtype else w.astype(dtype), sample_weight
            )
        return x, y, sample_weight

    # ------------------------------------------------------------------------------------------------ one batch

    def train_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Do one step of training.

        Parameters
        ----------
        x, y : array, Ragged, or nest of these
            One batch.
        sample_weight : array or Ragged, optional
            Shape (batch,) or (batch, timesteps).
        return_dict : bool

        Returns
        -------
        float, list of float or dict
            The loss before the step, and the metrics of this batch if there are any.
        """
        state = self._training
        if not state.compiled:
            self._require_compiled()
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        check_batch(x, y, sample_weight)
        if self._has_own("train_step"):
            self.reset_metrics()
        state.reset()
        self._train(padded(x), padded(y), padded(sample_weight))
        return self._report(return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss and metrics on one batch; arguments and result as `train_on_batch`."""
        self._require_compiled()
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        check_batch(x, y, sample_weight)
        self.reset_metrics()
        self._test(padded(x), padded(y), padded(sample_weight))
        return self._report(return_dict)

    def predict_on_batch(self, x):
        """The model's outputs for one batch, computed at once.

        Parameters
        ----------
        x : array, Ragged, or nest of these

        Returns
        -------
        ndarray, Ragged (as `predict` does), or nest of these
        """
        if type(x) is not np.ndarray or x.dtype.kind not in "iub":
            x = standardize(x, self._float_dtype(), "x")
        return self._predict(padded(x))

    # ------------------------------------------------------------------------------------------------ loops

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        *,
        sample_weight=None,
        initial_epoch=0,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Train on arrays, or on sequences of different lengths.

        Parameters
        ----------
        x, y : array, `numbarnn.utils.Ragged`, or nest of these
            Samples along the first axis. Several inputs or outputs: a nest like the model's, or a dict by their names,
            in which targets of outputs without a loss may be missing. Sequences of different lengths are padded batch
            by batch, and masked; Ragged targets have the lengths of a Ragged input.
        batch_size : int
            32 by default; the last batch may be smaller.
        epochs : int
            Number of the last epoch; training starts at `initial_epoch`.
        verbose : {"auto", 0, 1, 2}
            Nothing, a progress bar, or a line per epoch; "auto" is the bar in terminals and notebooks, lines elsewhere.
        callbacks : list of Callback, optional
        validation_split : float
            The share of samples, from the end and before shuffling, to validate on.
        validation_data : (x, y) or (x, y, sample_weight), optional
            Takes precedence over `validation_split`.
        shuffle : bool or "batch"
            A new order in every epoch, drawn from the global seed (`utils.set_random_seed`); "batch" shuffles whole
            batches.
        sample_weight : array or Ragged, optional
            Shape (samples,) or (samples, timesteps); for several outputs also a list, or a dict by their names.
        initial_epoch : int
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or collection of int
            Validate every so many epochs, or after these (counted from 1).

        Returns
        -------
        History
            ``history.history`` maps "loss", the losses and metrics of the outputs, and all with "val_" to one value
            per epoch. Of several outputs they carry the output's name: "<output>_loss", "<output>_<metric>".

        Raises
        ------
        ValueError
            If the model is not compiled, or the arrays do not have the same number of samples, or the sequences of
            targets and inputs not the same lengths.
        """
        self._require_compiled()
        epochs = _positive("epochs", epochs)
        batch_size = 32 if batch_size is None else _positive("batch_size", batch_size)
        validation_batch_size = (
            batch_size if validation_batch_size is None else _positive("validation_batch_size", validation_batch_size)
        )
        if shuffle not in (True, False, "batch"):
            raise ValueError(f'`shuffle` must be True, False or "batch". Received: shuffle={shuffle!r}')
        _check_verbose(verbose)
        if isinstance(validation_freq, numbers.Integral):
            _positive("validation_freq", validation_freq)
        elif not isinstance(validation_freq, collections.abc.Container) or isinstance(validation_freq, str):
            raise ValueError(
                "`validation_freq` must be a positive integer or a collection of epochs. "
                f"Received: validation_freq={validation_freq!r}"
            )
        data = self._standardize(x, y, sample_weight)
        samples = check_cardinality(*zip(("x", "y", "sample_weight"), data, strict=True))
        check_lengths(*data)
        validation = None
        if validation_data is not None:
            validation = self._unpack_validation(validation_data)
        elif validation_split:
            data, validation = train_validation_split(data, validation_split)
        if validation is not None:
            held_out = check_cardinality(*zip(("x", "y", "sample_weight"), validation, strict=True))
            check_lengths(*validation)
            validation = ArrayBatches(validation, held_out, validation_batch_size)
            samples = check_cardinality(*zip(("x", "y", "sample_weight"), data, strict=True))
        if not samples:
            raise ValueError("`x` holds no samples.")
        generators = SeedGenerator()
        batches = ArrayBatches(data, samples, batch_size, shuffle, generators.next)

        callbacks = CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=epochs,
            steps=len(batches),
        )
        state = self._training
        state.stop_training = False
        logs = {}
        callbacks.on_train_begin()
        each_begin = callbacks.listening("on_train_batch_begin")
        each_end = callbacks.listening("on_train_batch_end")
        for epoch in range(initial_epoch, epochs):
            self.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            for number, (_, batch) in enumerate(batches):
                if each_begin:
                    callbacks.on_train_batch_begin(number)
                self._train(*batch)
                if each_end:
                    callbacks.on_train_batch_end(number, self._results())
                if state.stop_training:
                    break
            logs = self._results()
            if validation is not None and _validates(validation_freq, epoch):
                found = self._evaluate(validation, callbacks)
                logs.update({f"val_{name}": value for name, value in found.items()})
            callbacks.on_epoch_end(epoch, logs)
            if state.stop_training:
                break
        callbacks.on_train_end(logs)
        return callbacks.history

    def _unpack_validation(self, validation_data):
        if not isinstance(validation_data, (list, tuple)) or not 1 <= len(validation_data) <= 3:
            raise ValueError(
                "`validation_data` must be a tuple (x, y) or (x, y, sample_weight). "
                f"Received: validation_data of type {type(validation_data).__name__}"
                + (f" and length {len(validation_data)}" if hasattr(validation_data, "__len__") else "")
            )
        return self._standardize(*(*validation_data, None, None)[:3])

    def _evaluate(self, batches, callbacks):
        self.reset_metrics()
        callbacks.on_test_begin()
        logs = {}
        each_begin = callbacks.listening("on_test_batch_begin")
        each_end = callbacks.listening("on_test_batch_end")
        for number, (_, batch) in enumerate(batches):
            if each_begin:
                callbacks.on_test_batch_begin(number)
            self._test(*batch)
            if each_end:
                callbacks.on_test_batch_end(number, self._results())
        logs = self._results()
        callbacks.on_test_end(logs)
        return logs

    def evaluate(
        self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, *, callbacks=None, return_dict=False
    ):
        """Loss and metrics on arrays.

        Parameters
        ----------
        x, y, sample_weight : as in `fit`
        batch_size : int
            32 by default; it changes nothing but speed.
        verbose : {"auto", 0, 1, 2}
        callbacks : list of Callback, optional
        return_dict : bool

        Returns
        -------
        float, list of float or dict
            The loss alone if there are no metrics, else a list in the order of `metrics_names`, or a dict.
        """
        self._require_compiled()
        batch_size = 32 if batch_size is None else _positive("batch_size", batch_size)
        _check_verbose(verbose)
        data = self._standardize(x, y, sample_weight)
        samples = check_cardinality(*zip(("x", "y", "sample_weight"), data, strict=True))
        check_lengths(*data)
        if not samples:
            raise ValueError("`x` holds no samples.")
        batches = ArrayBatches(data, samples, batch_size)
        callbacks = CallbackList(
            callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=len(batches)
        )
        self._evaluate(batches, callbacks)
        return self._report(return_dict)

    def predict(self, x, batch_size=None, verbose="auto", *, callbacks=None):
        """The model's outputs for arrays, batch by batch; `compile` is not needed.

        Parameters
        ----------
        x : array, `numbarnn.utils.Ragged`, or nest of these
        batch_size : int
            32 by default; it changes nothing but speed and memory.
        verbose : {"auto", 0, 1, 2}
        callbacks : list of Callback, optional

        Returns
        -------
        ndarray, Ragged, or nest of these
            As the model returns them, all samples along the first axis. For Ragged inputs, an output that comes with
            the mask of their timesteps is a Ragged, of the same lengths.
        """
        batch_size = 32 if batch_size is None else _positive("batch_size", batch_size)
        _check_verbose(verbose)
        x = standardize(x, self._float_dtype(), "x")
        samples = check_cardinality(("x", x))
        if not samples:
            raise ValueError("`x` holds no samples.")
        batches = ArrayBatches((x,), samples, batch_size)
        callbacks = CallbackList(
            callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=len(batches)
        )
        callbacks.on_predict_begin()
        outputs, start, single = None, 0, False
        each = callbacks.listening("on_predict_batch_begin") or callbacks.listening("on_predict_batch_end")
        for number, (size, (part,)) in enumerate(batches):
            if each:
                callbacks.on_predict_batch_begin(number)
            found = self._predict(part)
            if outputs is None:
                single = isinstance(found, (np.ndarray, Ragged))
                leaves, treedef = ([found], None) if single else tree.flatten(found)
                if any(leaf.shape[:1] != (size,) for leaf in leaves):
                    raise ValueError(
                        "`predict` needs outputs with the samples along the first axis. "
                        f"Received: shapes {[leaf.shape for leaf in leaves]} for a batch of {size}"
                    )
                outputs = [Collected(samples, leaf) for leaf in leaves]
            for whole, piece in zip(outputs, [found] if single else tree.leaves(found), strict=True):
                whole.take(piece, start)
            start += size
            if each:
                callbacks.on_predict_batch_end(number, {"outputs": found})
        callbacks.on_predict_end()
        results = [output.result() for output in outputs]
        return results[0] if single else tree.unflatten(treedef, results)


def _check_verbose(verbose):
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'`verbose` must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')


def _validates(frequency, epoch):
    if isinstance(frequency, numbers.Integral):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency
