"""The loops over batches and epochs: `fit`, `evaluate` and `predict`."""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import itertools
import numbers

import numpy as np

from .. import tree
from ..callbacks import CallbackList
from ..gradients import kept, put_back
from ..utils.sequence import Ragged
from .batches import ArrayBatches, Epochs, holds_batches, source_of
from .class_weight import check_class_weight
from .data import Collected, check_list, standardize, train_validation_split
from .loss_watch import watched
from .method_names import of_model
from .own_steps import OwnSteps
from .state import Progress
from .truncated import Pieces

__all__ = ["Loops"]


class Loops(OwnSteps):
    """`fit`, `evaluate` and `predict`; a part of `Trainer`."""

    @of_model
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
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        *,
        bptt_steps=None,
    ):
        """Train on arrays, on sequences of different lengths, or on anything that yields batches.

        Parameters
        ----------
        x, y : array, `numbarnn.utils.Ragged`, or nest of these
            Samples along the first axis. Several inputs or outputs: a nest like the model's, or a dict by their names,
            in which targets of outputs without a loss may be missing. Sequences of different lengths are padded batch
            by batch, and masked; Ragged targets have the lengths of a Ragged input. Arrays of pandas and of any library
            that NumPy can take from are as good.

            Or `x` yields batches, ``x``, ``(x, y)`` or ``(x, y, sample_weight)`` of the above, and `y` is left out: a
            `numbarnn.utils.PyDataset`, a generator, a data loader, any iterable. A shape of batch that has not come
            before is traced once, for 10 to 60 ms.
        batch_size : int
            32 by default; the last batch may be smaller. For arrays only.
        epochs : int
            Number of the last epoch; training starts at `initial_epoch`.
        verbose : {"auto", 0, 1, 2}
            Nothing, a progress bar, or a line per epoch; "auto" is the bar in terminals and notebooks, lines elsewhere.
        callbacks : list of Callback, optional
        validation_split : float
            The share of samples, from the end and before shuffling, to validate on. For arrays only.
        validation_data : (x, y), (x, y, sample_weight), or what yields batches, optional
            Takes precedence over `validation_split`.
        shuffle : bool or "batch"
            A new order in every epoch, drawn from the global seed (`utils.set_random_seed`); several `fit` in a row
            draw on. "batch" shuffles within batches. Of a `PyDataset` the order of the batches is drawn. Other
            iterables are taken in their own order.
        class_weight : dict of int to float, optional
            A factor for the loss of each class; those that are not in it count once. Multiplied with `sample_weight`.
            Targets must be labels or one-hot, of one output.
        sample_weight : array or Ragged, optional
            Shape (samples,) or (samples, timesteps); for several outputs also a list, or a dict by their names.
        initial_epoch : int
        steps_per_epoch : int, optional
            End an epoch after so many batches. The next one goes on in the data where it ended. Of an iterator that
            does not end it is needed.
        validation_steps : int, optional
            Validate on the first so many batches; on the next ones, of an iterator.
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or collection of int
            Validate every so many epochs, or after these (counted from 1).
        bptt_steps : int, optional
            Truncated back-propagation through time: cut each batch into pieces of so many timesteps, with one update of
            the weights after each. The states of recurrent layers go on from piece to piece and start anew with each
            batch; no gradient flows back into an earlier piece. Targets have the timesteps of the inputs; what is
            reported is the mean over the pieces. Stateful layers go on from batch to batch as ever; no recurrent
            layer may go backwards.

        Returns
        -------
        History
            ``history.history`` maps "loss", the losses and metrics of the outputs, and all with "val_" to one value
            per epoch. Of several outputs they carry the output's name: "<output>_loss", "<output>_<metric>".

        Warns
        -----
        UserWarning
            If the data end before all epochs are done: an iterator's training ends there.

        Raises
        ------
        ValueError
            If the model is not compiled, or the arrays do not have the same number of samples, or the sequences of
            targets and inputs not the same lengths, or an argument does not go with the kind of data.
        """
        self._require_compiled()
        epochs = _positive("epochs", epochs)
        batch_size = _positive_or_none("batch_size", batch_size)
        validation_batch_size = _positive_or_none("validation_batch_size", validation_batch_size)
        steps_per_epoch = _positive_or_none("steps_per_epoch", steps_per_epoch)
        validation_steps = _positive_or_none("validation_steps", validation_steps)
        bptt_steps = _positive_or_none("bptt_steps", bptt_steps)
        if isinstance(initial_epoch, bool) or not isinstance(initial_epoch, numbers.Integral) or initial_epoch < 0:
            raise ValueError(f"`initial_epoch` must be an integer from 0. Received: initial_epoch={initial_epoch!r}")
        if shuffle not in (True, False, "batch"):
            raise ValueError(f'`shuffle` must be True, False or "batch". Received: shuffle={shuffle!r}')
        _check_verbose(verbose)
        _check_frequency(validation_freq)
        check_class_weight(class_weight)
        if validation_data is None and validation_split:
            if holds_batches(x):
                raise ValueError(
                    "`validation_split` is only supported for arrays, of which the last part can be split off. "
                    f"Received: x of type {type(x).__name__}"
                )
            (x, y, sample_weight), validation_data = train_validation_split(
                self._standardize(x, y, sample_weight), validation_split
            )
        state = self._training
        source = source_of(
            x,
            y,
            sample_weight,
            functools.partial(self._standardize, class_weight=class_weight),
            batch_size=batch_size,
            steps=steps_per_epoch,
            shuffle=shuffle,
            seed=state.shuffle_generator(),
        )
        batches = Epochs(source, steps_per_epoch)
        validation = None
        if validation_data is not None:
            if validation_batch_size is None and not holds_batches(validation_data):
                validation_batch_size = batch_size
            validation = self._validation(validation_data, validation_batch_size, validation_steps)
            times = sum(_validates(validation_freq, epoch) for epoch in range(initial_epoch, epochs))
            if validation.source.once and validation_steps is None and times > 1:
                raise ValueError(
                    "`validation_data` is an iterator, which gives its batches once, and is needed "
                    f"{times} times: pass `validation_steps`, or data that can be gone through again, such as a "
                    "`numbarnn.utils.PyDataset`."
                )
        callbacks = CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            epochs=epochs,
            steps=batches.steps,
        )
        state.stop_training = False
        state.epochs = batches
        try:
            with callbacks, watched(self) as watch:
                epochs, train = range(initial_epoch, epochs), self._train
                with contextlib.nullcontext() if bptt_steps is None else Pieces(self, bptt_steps) as pieces:
                    if pieces is not None:
                        train = functools.partial(pieces.train, train)
                    self._fit(batches, validation, callbacks, epochs, validation_freq, watch, train)
        finally:
            state.epochs = state.resume = None
        return callbacks.history

    def _fit(self, batches, validation, callbacks, epochs, validation_freq, watch, train):
        state = self._training
        logs = {}
        if not self.built and isinstance(batches.source, ArrayBatches):
            _, (x, y, _) = next(batches.source.take([slice(0, min(batches.source.batch_size, batches.source.samples))]))
            self._prepare(x, y)  # callbacks may want to see, or to set, the weights
        callbacks.on_train_begin()
        resume, state.resume = state.resume, None
        if resume is not None:
            epochs = range(resume.epoch, epochs.stop)
        each_begin = callbacks.listening("on_train_batch_begin")
        each_end = callbacks.listening("on_train_batch_end")
        for epoch in epochs:
            self.reset_metrics()
            if resume is not None:
                self._go_on(batches, resume)
                resume = None
            elif not batches.begin():
                if epoch == epochs.start:
                    raise ValueError("The data must hold at least one batch. Received: data without any")
                batches.warn()
                break
            if callbacks.params["steps"] != batches.steps:
                callbacks.set_params({**callbacks.params, "steps": batches.steps})
            callbacks.on_epoch_begin(epoch)
            state.position = epoch, batches.done
            for number, (_, batch) in enumerate(batches, batches.done):
                if each_begin:
                    callbacks.on_train_batch_begin(number)
                watch.begin_step(epoch, number)
                train(*batch)
                if each_end:
                    state.position = epoch, number + 1
                    callbacks.on_train_batch_end(number, self._results())
                watch.end_step()
                if state.stop_training:
                    break
            logs = self._results()
            batches.end()
            if validation is not None and _validates(validation_freq, epoch):
                found = self._validate(validation, callbacks)
                logs.update({f"val_{name}": value for name, value in found.items()})
            state.position = epoch + 1, 0
            callbacks.on_epoch_end(epoch, logs)
            if state.stop_training:
                break
        state.optimizer.finalize_variable_values(self.trainable_variables)  # moving averages, if it keeps any
        callbacks.on_train_end(logs)
        watch.end()

    # ------------------------------------------------------------------------------------------------ resuming

    def _progress(self):
        """Where `fit` is, for `State.resume`; to be asked in `on_train_batch_end` and `on_epoch_end`.

        Returns
        -------
        Progress
        """
        state = self._training
        epoch, batch = state.position
        totals = {}
        if batch:
            totals = {
                "loss": [state.total, state.count],
                "parts": state.parts,
                "logs": state.logs,
                "metrics": [[v.numpy().tolist() for v in metric.variables] for metric in self.metrics],
            }
        return Progress(epoch, batch, state.epochs.before + batch, state.epochs.drawn, totals)

    def _check_progress(self, progress):
        """Raise whatever comes of it unless a dict is one that `_progress` may have returned."""
        progress = Progress(**progress)
        np.asarray(progress.shuffle, np.int64).reshape(2)
        if progress.batch:
            total, count = progress.totals["loss"]
            list(map(float, (total, count, *(progress.totals["parts"] or ()))))
            for values in itertools.chain(*progress.totals["metrics"]):
                np.asarray(values, float)
            dict(progress.totals["logs"] or {})

    def _resume(self, progress):
        """Have `fit` go on from what `_progress` returned, as a dict; to be called in `on_train_begin`."""
        self._training.resume = Progress(**progress)

    def _go_on(self, batches, progress):
        """Put the loop where it was when `_progress` was asked."""
        progress = Progress(*progress)
        example = batches.go_on(progress)
        if example is None:
            return
        # The metrics of `compile` are known, and have all their variables, once they have seen a batch.
        if self._has_own("train_step"):
            self._prepare(*example[:2])
        else:
            before = kept(self._step("test", *example).touched)
            self._test_batch(*example)
            put_back(before)
        state, totals = self._training, progress.totals
        state.total, state.count = totals["loss"]
        state.parts, state.logs = totals["parts"], totals["logs"]
        variables = [metric.variables for metric in self.metrics]
        if [len(each) for each in variables] != [len(values) for values in totals["metrics"]]:
            raise ValueError(
                "The training cannot go on in the middle of an epoch: its metrics are not those of the model, "
                f"{[metric.name for metric in self.metrics]}, or make their variables later."
            )
        for variable, value in zip(itertools.chain(*variables), itertools.chain(*totals["metrics"]), strict=True):
            variable.assign(np.asarray(value, variable.dtype))

    # ------------------------------------------------------------------------------------------------ validation

    def _validation(self, validation_data, batch_size, steps):
        if holds_batches(validation_data):
            data = validation_data, None, None
        elif isinstance(validation_data, (list, tuple)) and 1 <= len(validation_data) <= 3:
            data = (*validation_data, None, None)[:3]
        else:
            raise ValueError(
                "`validation_data` must be a tuple (x, y) or (x, y, sample_weight), or yield batches. "
                f"Received: validation_data of type {type(validation_data).__name__}"
                + (f" and length {len(validation_data)}" if hasattr(validation_data, "__len__") else "")
            )
        source = source_of(*data, self._standardize, batch_size=batch_size, steps=steps)
        return Epochs(source, steps, "validation_steps")

    def _validate(self, validation, callbacks):
        validation.restart()
        if not validation.begin():
            validation.warn()
            return {}
        return self._evaluate(validation, callbacks)

    def _evaluate(self, batches, callbacks):
        self.reset_metrics()
        callbacks.on_test_begin()
        each_begin = callbacks.listening("on_test_batch_begin")
        each_end = callbacks.listening("on_test_batch_end")
        for number, (_, batch) in enumerate(batches):
            if each_begin:
                callbacks.on_test_batch_begin(number)
            self._test(*batch)
            if each_end:
                callbacks.on_test_batch_end(number, self._results())
        batches.end()
        logs = self._results()
        callbacks.on_test_end(logs)
        return logs

    @of_model
    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
    ):
        """Loss and metrics on arrays, or on what yields batches.

        Parameters
        ----------
        x, y, sample_weight : as in `fit`
        batch_size : int
            32 by default; it changes nothing but speed. For arrays only.
        verbose : {"auto", 0, 1, 2}
        steps : int, optional
            Stop after so many batches.
        callbacks : list of Callback, optional
        return_dict : bool

        Returns
        -------
        float, list of float or dict
            The loss alone if there are no metrics, else a list in the order of `metrics_names`, or a dict.
        """
        self._require_compiled()
        batch_size = _positive_or_none("batch_size", batch_size)
        steps = _positive_or_none("steps", steps)
        _check_verbose(verbose)
        batches = Epochs(
            source_of(x, y, sample_weight, self._standardize, batch_size=batch_size, steps=steps), steps, "steps"
        )
        callbacks = CallbackList(
            callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=batches.steps
        )
        if not batches.begin():
            raise ValueError("The data must hold at least one batch. Received: data without any")
        with callbacks:
            self._evaluate(batches, callbacks)
        return self._report(return_dict)

    # ------------------------------------------------------------------------------------------------ prediction

    @of_model
    def predict(self, x, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """The model's outputs, batch by batch; `compile` is not needed.

        Parameters
        ----------
        x : array, `numbarnn.utils.Ragged`, or nest of these
            Or what yields batches, as in `fit`; targets and weights in them are left alone.
        batch_size : int
            32 by default; it changes nothing but speed and memory. For arrays only.
        verbose : {"auto", 0, 1, 2}
        steps : int, optional
            Stop after so many batches.
        callbacks : list of Callback, optional

        Returns
        -------
        ndarray, Ragged, or nest of these
            As the model returns them, all samples along the first axis. For Ragged inputs, an output that comes with
            the mask of their timesteps is a Ragged, of the same lengths.
        """
        batch_size = _positive_or_none("batch_size", batch_size)
        steps = _positive_or_none("steps", steps)
        _check_verbose(verbose)
        source = source_of(x, None, None, self._inputs_alone, batch_size=batch_size, steps=steps)
        batches = Epochs(source, steps, "steps")
        callbacks = CallbackList(
            callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=batches.steps
        )
        if not batches.begin():
            raise ValueError("The data must hold at least one batch. Received: data without any")
        with callbacks:
            callbacks.on_predict_begin()
            samples = getattr(source, "samples", None)
            outputs, single, treedef = None, False, None
            each = callbacks.listening("on_predict_batch_begin") or callbacks.listening("on_predict_batch_end")
            for number, (size, (part, _, _)) in enumerate(batches):
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
                    whole.take(piece)
                if each:
                    callbacks.on_predict_batch_end(number, {"outputs": found})
            batches.end()
            callbacks.on_predict_end()
        results = [output.result() for output in outputs]
        return results[0] if single else tree.unflatten(treedef, results)

    def _inputs_alone(self, x, y, sample_weight):
        x = standardize(x, self._float_dtype(), "x")
        if type(x) is not np.ndarray:
            check_list(x, None, None, self._rank_of_input())
        return x, None, None


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


def _positive_or_none(name, value):
    return None if value is None else _positive(name, value)


def _check_verbose(verbose):
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'`verbose` must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')


def _check_frequency(frequency):
    if isinstance(frequency, numbers.Integral):
        _positive("validation_freq", frequency)
    elif not isinstance(frequency, collections.abc.Container) or isinstance(frequency, str):
        raise ValueError(
            "`validation_freq` must be a positive integer or a collection of epochs. "
            f"Received: validation_freq={frequency!r}"
        )


def _validates(frequency, epoch):
    if isinstance(frequency, numbers.Integral):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency
