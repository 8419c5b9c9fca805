"""Training, evaluation and prediction: `compile`, `fit`, `evaluate`, `predict` and their one-batch forms.

A step on a batch is one `Program`: the model's `call`, its losses and penalties are traced once per signature
(structure, shapes and dtypes of the data; versions of the layers) and replayed afterwards. For training the program is
linearized with respect to the trainable variables; the gradients land in the optimizer's flat buffer and one kernel
call updates all weights. Metrics are computed from the program's outputs.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
import numbers
import warnings

import numpy as np

from .. import backend, graph, losses, metrics, ops, optimizers, tree
from ..callbacks import CallbackList
from ..graph import Spec, Tensor
from ..layers import base
from ..random import SeedGenerator
from .data import ArrayBatches, check_cardinality, standardize, train_validation_split

__all__ = ["Trainer"]

losses.set_mask_reader(base.get_mask)

# Signatures kept per model, the oldest leave first: sequences of many lengths are traced again when they come back.
_MAX_STEPS = 512


class _Step:
    """A traced step and what is needed to run it.

    Attributes
    ----------
    run : Program
        ``run(*arrays)`` -> (total, parts, predictions, masks), for training with residuals.
    touched : list of Variable
        What the program assigns or draws from: put back if the step fails.
    """

    __slots__ = ("backward", "flat", "layout", "one", "run", "touched", "variables", "views")

    def __init__(self, program, flat):
        self.run = program
        self.flat = flat  # whether the data are single arrays (or None), not nests
        self.backward = self.variables = self.views = self.layout = self.one = None
        self.touched = _touched(program)


def _touched(program):
    found = {id(v): v for v in program.trace.assigned}
    for node in program.nodes:
        for value in (*node.inputs, *node.kwargs.values()):
            if isinstance(value, SeedGenerator):
                found[id(value.state)] = value.state
    return list(found.values())


class _State:
    """All that `compile` and the training loop keep; one object, which the layer's bookkeeping does not look into."""

    def __init__(self):
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
        self.loss_objects = None  # per output: (Loss or None, weight)
        self.entries = None  # (metric, number of its output, weighted)
        self.names = None  # of losses per output (only for several outputs)
        self.reset()

    def reset(self):
        """Start the running means anew."""
        self.total = self.count = 0.0
        self.parts = None
        for metric, _, _ in self.entries or ():
            metric.reset_state()

    def __getstate__(self):
        # Programs are traced again where they are needed.
        return {**self.__dict__, "steps": {}, "clock": None, "version": None, "history": None}


def _signature(nest):
    if nest is None:
        return None
    if type(nest) is np.ndarray:
        return nest.shape, nest.dtype
    leaves, treedef = tree.flatten(nest)
    return treedef, tuple(None if x is None else (x.shape, x.dtype) for x in leaves)


def _specs(nest):
    return tree.map_structure(lambda x: None if x is None else Spec(x.shape, x.dtype), nest)


def _leaves(nest):
    if nest is None:
        return []
    if isinstance(nest, (np.ndarray, Tensor)):
        return [nest]
    return tree.leaves(nest)


def _positive(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}")
    return int(value)


class Trainer:
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
            Of several outputs; None for outputs without a loss.
        loss_weights : list or dict of float, optional
            Of several outputs.
        metrics : list, optional
            Names, metrics or functions ``fn(y_true, y_pred)``; of several outputs also a list of lists or a dict by
            output name. They know the mask, not the sample weights.
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
        state = _State()
        state.optimizer = optimizers.get(optimizer)
        for item in _leaves(loss):
            if not (isinstance(item, str) and item.lower() in ("crossentropy", "ce")):
                losses.get(item)
        for name, value in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if value is not None and not isinstance(value, (list, tuple, dict)):
                raise ValueError(
                    f"Expected `{name}` argument to be a list, tuple, or dict. "
                    f"Received instead: {name}={value} of type {type(value)}"
                )
            for item in _leaves(value):
                if not (isinstance(item, str) and item.lower() in ("accuracy", "acc", "crossentropy", "ce")):
                    _ = item is None or _metric(item)
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
        """The metrics: those of `compile` (known once data have been seen), then those that layers own."""
        found = [metric for metric, _, _ in self._training.entries or ()]
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

    # ------------------------------------------------------------------------------------------------ losses

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The scalar that training minimises; may be overridden.

        Parameters
        ----------
        x, y, y_pred, sample_weight : nest of Tensor or array
        training : bool

        Returns
        -------
        Tensor or scalar array
        """
        return self._total_loss(y, y_pred, sample_weight)[0]

    def _total_loss(self, y, y_pred, sample_weight):
        """The loss, penalties included, and the losses of the outputs if there are several."""
        state = self._training
        predictions = _leaves(y_pred)
        if state.loss_objects is None:
            self._resolve_losses(_leaves(y), y_pred)
        objects = state.loss_objects
        targets = _match_outputs(y, len(predictions), y_pred, "y") if y is not None else [None] * len(predictions)
        weights = _match_outputs(sample_weight, len(predictions), y_pred, "sample_weight", share=True)
        total, parts = None, []
        for number, (loss, factor) in enumerate(objects):
            if loss is None:
                continue
            if targets[number] is None:
                raise ValueError(f"Output number {number} has a loss, but no targets were given for it.")
            value = loss(targets[number], predictions[number], sample_weight=weights[number])
            if len(value.shape):
                raise ValueError(
                    f"The loss '{loss.name}' must be a scalar to be minimised. Received: a value of shape "
                    f"{tuple(value.shape)}; was it made with reduction={loss.reduction!r}?"
                )
            parts.append(value)
            if factor != 1.0:
                value = value * factor
            total = value if total is None else total + ops.cast(value, total.dtype)
        for value in self.losses:
            if len(np.shape(value) if not hasattr(value, "shape") else value.shape):
                value = ops.sum(value)
            total = value if total is None else total + ops.cast(value, total.dtype)
        if total is None:
            raise ValueError("No loss to compute. Provide a `loss` argument in `compile()`.")
        return total, (parts if len(predictions) > 1 else [])

    def _resolve_losses(self, targets, y_pred):
        state = self._training
        predictions = _leaves(y_pred)
        count = len(predictions)
        names = self._names_of_outputs(y_pred)
        specs = _per_output(state.loss, names, count, "loss")
        if count > 1 and state.loss is not None and not isinstance(state.loss, (list, tuple, dict)):
            specs = [state.loss] * count
        factors = _per_output(state.loss_weights, names, count, "loss_weights")
        objects = []
        for number, spec in enumerate(specs):
            factor = factors[number]
            target = targets[number] if number < len(targets) else None
            if isinstance(spec, str) and spec.lower() in ("crossentropy", "ce"):
                if target is None:
                    raise ValueError(f"The loss {spec!r} is chosen by the shape of the targets, but none were given.")
                spec = metrics.choose_by_shape(
                    target.shape,
                    predictions[number].shape,
                    losses.binary_crossentropy,
                    losses.sparse_categorical_crossentropy,
                    losses.categorical_crossentropy,
                )
            loss = losses.get(spec)
            if loss is not None and not isinstance(loss, losses.Loss):
                loss = losses.LossFunctionWrapper(loss)
            objects.append((loss, 1.0 if factor is None else float(factor)))
        state.loss_objects = objects
        state.names = None
        if count > 1:
            state.names = [f"{names[i]}_loss" for i, (loss, _) in enumerate(objects) if loss is not None]

    def _resolve_metrics(self, y, predictions, y_pred):
        state = self._training
        if state.entries is not None or not state.compiled:
            return
        count = len(predictions)
        names = self._names_of_outputs(y_pred)
        targets = _match_outputs(y, count, y_pred, "y") if y is not None else [None] * count
        entries, taken = [], set()
        for argument, weighted in (("metrics", False), ("weighted_metrics", True)):
            given = getattr(state, argument)
            if not given:
                continue
            if count == 1:
                per_output = [_leaves(given)]
            elif isinstance(given, dict):
                per_output = [_as_list(item) for item in _per_output(given, names, count, argument)]
            elif len(given) == count and any(isinstance(item, (list, tuple)) or item is None for item in given):
                per_output = [_as_list(item) for item in given]
            else:
                per_output = [list(given)] * count
            for number, items in enumerate(per_output):
                for item in items:
                    if item is None:
                        continue
                    if targets[number] is None:
                        raise ValueError(f"`{argument}` were given for output number {number}, but no targets.")
                    metric = metrics.resolve(item, targets[number].shape, predictions[number].shape)
                    prefix = "" if count == 1 else f"{names[number]}_"
                    name = prefix + metric.name
                    if weighted and name in taken:
                        name = f"{prefix}weighted_{metric.name}"
                    plain, copies = name, 0
                    while name in taken:
                        copies += 1
                        name = f"{plain}_{copies}"
                    taken.add(name)
                    metric.name = name
                    entries.append((metric, number, weighted))
        state.entries = entries

    def _names_of_outputs(self, y_pred):
        count = len(_leaves(y_pred))
        if isinstance(y_pred, dict):
            return sorted(y_pred)
        names = getattr(self, "output_names", None)
        return names if names and len(names) == count else [f"output_{i + 1}" for i in range(count)]

    # ------------------------------------------------------------------------------------------------ steps

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

    def _step(self, kind, x, y, w):
        """The traced step for data of this signature."""
        state = self._training
        clock = base.structure_clock()
        if clock != state.clock:
            version = self.structure_version
            if version != state.version:
                state.steps.clear()
            state.clock, state.version = clock, version
        if type(x) is np.ndarray and type(y) is np.ndarray and w is None:
            key = kind, x.shape, x.dtype, y.shape, y.dtype
        else:
            key = kind, _signature(x), _signature(y), _signature(w), None
        step = state.steps.get(key)
        if step is None or state.run_eagerly:
            step = self._trace_step(kind, x, y, w)
            if self.structure_version != state.version:  # layers were built on the way
                state.steps.clear()
            state.clock, state.version = base.structure_clock(), self.structure_version
            while len(state.steps) >= _MAX_STEPS:
                state.steps.pop(next(iter(state.steps)))
            state.steps[key] = step
        return step

    def _trace_step(self, kind, x, y, w):
        training = kind == "train"
        shown = {}

        def step(x, y, w):
            y_pred = self(x, training=training)
            shown["y_pred"] = y_pred
            predictions = _leaves(y_pred)
            masks = [base.get_mask(p) for p in predictions]
            if type(self).compute_loss is not Trainer.compute_loss:
                total = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=w, training=training)
                parts = []
            else:
                total, parts = self._total_loss(y, y_pred, w)
            return total, parts, predictions, masks

        if kind == "predict":
            # One more replay of the layers' `call`; nothing but the predictions comes out.
            def step(x, y, w):
                return self(x, training=False)

        try:
            program = graph.trace(step, (_specs(x), _specs(y), _specs(w)), name=f"{self.name}.{kind}")
        finally:
            # What `add_loss` collected are symbols of a trace that has ended.
            self._clear_losses()
        if kind != "predict":
            self._resolve_metrics(y, _leaves(shown["y_pred"]), shown["y_pred"])
        flat = all(a is None or type(a) is np.ndarray for a in (x, y, w))
        if not training:
            return _Step(program, flat)
        self._warn_of_strangers(program)
        variables = [v for v in self.trainable_variables if np.dtype(v.dtype).kind == "f"]
        if not variables:
            found = _Step(program, flat)
            found.variables = []
            return found
        self._training.optimizer.build(variables)
        forward, backward = program.linearize(0, variables)
        found = _Step(forward, flat)
        found.backward, found.variables = backward, variables
        found.one = np.ones((), program.outputs[0].dtype)
        return found

    def _warn_of_strangers(self, program):
        """Say which layers' weights the training step reads but will not train, as those of a layer made in `call`."""
        own = {id(v) for v in self.variables}
        # A path with a layer in it: variables that belong to no layer are a user's own knobs, such as a loss's factor.
        found = [v.path for v in program.variables if v.trainable and "/" in v.path and id(v) not in own]
        if found:
            warnings.warn(
                f"Training of model '{self.name}' reads weights that are not its own and so stay as they are: "
                f"{', '.join(found)}. Make layers in `__init__` or `build`, as attributes, not in `call`; set "
                "`trainable = False` on a layer that is not to be trained.",
                stacklevel=2,
            )

    @staticmethod
    def _arrays(step, x, y, w):
        if step.flat:
            if w is None:
                return (x,) if y is None else (x, y)
            return (x, w) if y is None else (x, y, w)
        return [a for nest in (x, y, w) if nest is not None for a in tree.leaves(nest) if a is not None]

    def _train_batch(self, x, y, w):
        """Do one step; return the loss. Whatever raises on the way leaves the model as it was."""
        step = self._step("train", x, y, w)
        state = self._training
        arrays = self._arrays(step, x, y, w)
        before = [(v, v.data.copy()) for v in step.touched]
        try:
            if step.backward is None:
                total, parts, predictions, masks = step.run(*arrays)
            else:
                optimizer = state.optimizer
                (total, parts, predictions, masks), residuals = step.run(*arrays)
                gradients = step.backward(residuals, step.one, True)
                if step.layout is not optimizer.layout:
                    step.views = optimizer.gradient_views(step.variables)
                    step.layout = optimizer.layout
                for view, gradient in zip(step.views, gradients):  # noqa: B905 - equal by construction, once a step
                    view[...] = gradient
            if state.entries:
                self._update_metrics(y, predictions, masks, w)
            if step.backward is not None:
                optimizer.apply_views(step.variables)
        except BaseException:
            _put_back(before)
            raise
        return self._account(x, total, parts)

    def _test_batch(self, x, y, w):
        step = self._step("test", x, y, w)
        before = [(v, v.data.copy()) for v in step.touched]
        try:
            total, parts, predictions, masks = step.run(*self._arrays(step, x, y, w))
            if self._training.entries:
                self._update_metrics(y, predictions, masks, w)
        except BaseException:
            _put_back(before)
            raise
        return self._account(x, total, parts)

    def _predict_batch(self, x):
        if self._training.run_eagerly:
            return self(x, training=False)
        step = self._step("predict", x, None, None)
        before = [(v, v.data.copy()) for v in step.touched]
        try:
            return step.run(*self._arrays(step, x, None, None))
        except BaseException:
            _put_back(before)
            raise

    def _account(self, x, total, parts):
        """Take a batch's loss into the running means, weighted by the batch size; return it."""
        state = self._training
        size = x.shape[0] if type(x) is np.ndarray else next(a for a in tree.leaves(x) if a is not None).shape[0]
        loss = float(total)
        state.total += loss * size
        state.count += size
        if parts:
            values = [float(part) * size for part in parts]
            state.parts = values if state.parts is None else [a + b for a, b in zip(state.parts, values, strict=True)]
        return loss

    def _update_metrics(self, y, predictions, masks, w):
        single = len(predictions) == 1
        targets = [y] if single and type(y) is np.ndarray else _leaves(y)
        weights = (
            [None] * len(predictions)
            if w is None
            else _match_outputs(w, len(predictions), None, "sample_weight", share=True)
        )
        for metric, number, weighted in self._training.entries:
            weight = weights[number] if weighted else None
            mask = masks[number]
            if mask is not None:
                weight = metrics.combine_weight(weight, mask)
            if weight is None:
                metric.update_state(targets[number], predictions[number])
            else:
                metric.update_state(targets[number], predictions[number], sample_weight=weight)

    def _results(self):
        """Running means by name: dict of float, in the order of `metrics_names`."""
        state = self._training
        count = state.count or 1.0
        logs = {"loss": state.total / count}
        for name, value in zip(state.names or (), state.parts or (), strict=False):
            logs[name] = value / count
        for metric, _, _ in state.entries or ():
            value = metric.result()
            if isinstance(value, dict):
                logs.update(value)
            else:
                logs[metric.name] = value
        return logs

    def _report(self, return_dict):
        state = self._training
        if return_dict:
            return self._results()
        if not state.entries and not state.names:
            return state.total / (state.count or 1.0)
        return list(self._results().values())

    # ------------------------------------------------------------------------------------------------ one batch

    def train_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Do one step of training.

        Parameters
        ----------
        x, y : array or nest of arrays
            One batch.
        sample_weight : array, optional
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
        state.reset()
        self._train_batch(x, y, sample_weight)
        return self._report(return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss and metrics on one batch; arguments and result as `train_on_batch`."""
        self._require_compiled()
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        check_batch(x, y, sample_weight)
        self._training.reset()
        self._test_batch(x, y, sample_weight)
        return self._report(return_dict)

    def predict_on_batch(self, x):
        """The model's outputs for one batch, computed at once.

        Parameters
        ----------
        x : array or nest of arrays

        Returns
        -------
        ndarray or nest of ndarray
        """
        if type(x) is not np.ndarray or x.dtype.kind not in "iub":
            x = standardize(x, self._float_dtype(), "x")
        return self._predict_batch(x)

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
        """Train on arrays.

        Parameters
        ----------
        x, y : array or nest of arrays
            Samples along the first axis.
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
        sample_weight : array, optional
            Shape (samples,) or (samples, timesteps).
        initial_epoch : int
        validation_batch_size : int, optional
            `batch_size` by default.
        validation_freq : int or collection of int
            Validate every so many epochs, or after these (counted from 1).

        Returns
        -------
        History
            ``history.history`` maps "loss", the metrics, and both with "val_" to one value per epoch.

        Raises
        ------
        ValueError
            If the model is not compiled or the arrays do not have the same number of samples.
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
        validation = None
        if validation_data is not None:
            validation = self._unpack_validation(validation_data)
        elif validation_split:
            data, validation = train_validation_split(data, validation_split)
        if validation is not None:
            held_out = check_cardinality(*zip(("x", "y", "sample_weight"), validation, strict=True))
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
            state.reset()
            callbacks.on_epoch_begin(epoch)
            for number, (_, batch) in enumerate(batches):
                if each_begin:
                    callbacks.on_train_batch_begin(number)
                self._train_batch(*batch)
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
        state = self._training
        state.reset()
        callbacks.on_test_begin()
        logs = {}
        each_begin = callbacks.listening("on_test_batch_begin")
        each_end = callbacks.listening("on_test_batch_end")
        for number, (_, batch) in enumerate(batches):
            if each_begin:
                callbacks.on_test_batch_begin(number)
            self._test_batch(*batch)
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
        x : array or nest of arrays
        batch_size : int
            32 by default; it changes nothing but speed and memory.
        verbose : {"auto", 0, 1, 2}
        callbacks : list of Callback, optional

        Returns
        -------
        ndarray or nest of ndarray
            As the model returns them, all samples along the first axis.
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
            found = self._predict_batch(part)
            if outputs is None:
                single = isinstance(found, np.ndarray)
                leaves, treedef = ([found], None) if single else tree.flatten(found)
                if any(leaf.shape[:1] != (size,) for leaf in leaves):
                    raise ValueError(
                        "`predict` needs outputs with the samples along the first axis. "
                        f"Received: shapes {[leaf.shape for leaf in leaves]} for a batch of {size}"
                    )
                outputs = [np.empty((samples, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
            for whole, piece in zip(outputs, [found] if single else tree.leaves(found), strict=True):
                if piece.shape[1:] != whole.shape[1:]:
                    raise ValueError(
                        "The outputs of all batches must have one shape. "
                        f"Received: {piece.shape[1:]} after {whole.shape[1:]}"
                    )
                whole[start : start + size] = piece
            start += size
            if each:
                callbacks.on_predict_batch_end(number, {"outputs": found})
        callbacks.on_predict_end()
        return outputs[0] if single else tree.unflatten(treedef, outputs)


def check_batch(x, y, sample_weight):
    """Raise unless the arrays of one batch have the same number of samples."""
    if type(x) is np.ndarray and type(y) is np.ndarray and sample_weight is None and x.ndim and y.ndim:
        if x.shape[0] == y.shape[0]:
            return
    check_cardinality(("x", x), ("y", y), ("sample_weight", sample_weight))


def _put_back(before):
    for variable, value in before:
        variable.data[...] = value
        variable.touch()


def _metric(item):
    found = metrics.get(item)
    if not isinstance(found, metrics.Metric):
        parameters = _positional(found)
        if parameters is not None and parameters < 2:
            raise ValueError(f"A metric function takes (y_true, y_pred). Received: {found!r}")
    return found


def _positional(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return math.inf
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _check_verbose(verbose):
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'`verbose` must be "auto", 0, 1 or 2. Received: verbose={verbose!r}')


def _validates(frequency, epoch):
    if isinstance(frequency, numbers.Integral):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def _as_list(item):
    return list(item) if isinstance(item, (list, tuple)) else [item]


def _per_output(given, names, count, argument):
    """One entry per output from a single value, a list, or a dict by output name; None where nothing is given."""
    if given is None:
        return [None] * count
    if isinstance(given, dict):
        unknown = [name for name in given if name not in names]
        if unknown:
            raise ValueError(f"`{argument}` has an entry for {unknown[0]!r}, but the outputs are named {list(names)}.")
        return [given.get(name) for name in names]
    if isinstance(given, (list, tuple)):
        if len(given) != count:
            raise ValueError(
                f"`{argument}` must have one entry for each of {count} outputs. Received: {len(given)} entries"
            )
        return list(given)
    return [given] + [None] * (count - 1)


def _match_outputs(nest, count, y_pred, what, share=False):
    """The leaves of targets or weights, one per output."""
    if nest is None:
        return [None] * count
    if isinstance(nest, dict) and isinstance(y_pred, dict) and set(nest) != set(y_pred):
        if not set(nest) <= set(y_pred):
            raise ValueError(f"`{what}` has keys {sorted(nest)}, but the outputs are {sorted(y_pred)}.")
        return [nest.get(key) for key in sorted(y_pred)]
    leaves = _leaves(nest)
    if share and len(leaves) == 1:
        return leaves * count
    if len(leaves) != count:
        raise ValueError(f"`{what}` must hold one array for each of {count} outputs. Received: {len(leaves)} arrays")
    return leaves
