"""Traced steps: what a model does with one batch, recorded once per signature of the data and replayed afterwards."""

from __future__ import annotations

import warnings

import numpy as np

from .. import graph, losses, metrics, ops, tree
from ..arrays import brought_back, here, moved, on_gpu, where_chosen
from ..gradients import kept, put_back, touched
from ..graph import Spec
from ..layers.masks import get_mask, set_mask
from ..layers.tracking import Settings, structure_clock
from ..protocols import local
from .outputs import Outputs, leaves_or_nothing, resolve_losses, resolve_metrics
from .ragged import arrays_of, cut_padding, has_padded, with_masks

__all__ = ["BatchSteps", "Step"]

losses.set_mask_reader(get_mask)

# Signatures kept per model, the oldest leave first: sequences of many lengths are traced again when they come back.
_MAX_STEPS = 512
_MANY = 10  # so many times that the steps were dropped at once are worth a warning


class Step:
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
        self.touched = touched(program)


def _signature(nest):
    if nest is None:
        return None
    if type(nest) is np.ndarray:
        return nest.shape, nest.dtype
    leaves, treedef = tree.flatten(nest)
    return treedef, tuple(None if x is None else (x.shape, x.dtype) for x in leaves)


def _specs(nest):
    return tree.map_structure(lambda x: None if x is None else Spec(x.shape, x.dtype), nest)


def _hand_masks_over(y, predictions, outputs):
    """Give outputs that have lost the mask of their timesteps that of their targets."""
    if y is None:
        return
    for target, output in zip(outputs.match(y, "y"), predictions, strict=True):
        mask = None if target is None else get_mask(target)
        if mask is not None and get_mask(output) is None:
            if tuple(output.shape[:2]) != tuple(mask.shape):
                raise ValueError(
                    "Ragged targets need outputs at every timestep of the inputs. Received: an output of shape "
                    f"{tuple(output.shape)} for targets of {mask.shape[1]} timesteps"
                )
            set_mask(output, mask)


class BatchSteps:
    """The steps of a model on one batch; a part of `Trainer`."""

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
        predictions = leaves_or_nothing(y_pred)
        outputs = Outputs(self, y_pred)
        targets = outputs.match(y, "y")
        weights = outputs.match(sample_weight, "sample_weight", share=True)
        if state.loss_objects is None:
            self._resolve_losses(targets, predictions, outputs.names)
        objects = state.loss_objects
        total, parts = None, []
        for number, (loss, factor) in enumerate(objects):
            if loss is None:
                continue
            if targets[number] is None:
                raise ValueError(f"Output '{outputs.names[number]}' has a loss, but no targets were given for it.")
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

    def _resolve_losses(self, targets, predictions, names):
        state = self._training
        objects = resolve_losses(state.loss, state.loss_weights, names, targets, predictions)
        state.loss_objects = objects
        state.names = None
        if len(predictions) > 1:
            state.names = [f"{names[i]}_loss" for i, (loss, _) in enumerate(objects) if loss is not None]

    def _resolve_metrics(self, y, predictions, y_pred):
        state = self._training
        state.outputs = outputs = Outputs(self, y_pred)
        if state.entries is not None or not state.compiled:
            return
        targets = outputs.match(y, "y")
        state.entries = resolve_metrics(state.metrics, state.weighted_metrics, outputs.names, targets, predictions)

    # ------------------------------------------------------------------------------------------------ steps

    def _step(self, kind, x, y, w):
        """The traced step for data of this signature."""
        state = self._training
        clock = structure_clock()
        if clock != state.clock:
            version = self._structure()
            if version != state.version:
                self._trace_anew()
            state.clock, state.version = clock, version
        if state.settings is not None and state.settings.changed():
            self._trace_anew()
        kind_of_batch = kind, state.on_piece, local.on_gpu
        if type(x) is np.ndarray and type(y) is np.ndarray and w is None:
            key = kind_of_batch, x.shape, x.dtype, y.shape, y.dtype
        else:
            key = kind_of_batch, _signature(x), _signature(y), _signature(w), None
        step = state.steps.get(key)
        if step is None or state.run_eagerly:
            with on_gpu(False):  # weights are made on the CPU
                step = self._trace_step(kind, x, y, w)
            step.one = step.one if step.one is None else here(step.one)
            if self._structure() != state.version:  # layers were built on the way
                state.steps.clear()
            state.clock, state.version = structure_clock(), self._structure()
            while len(state.steps) >= _MAX_STEPS:
                state.steps.pop(next(iter(state.steps)))
            state.steps[key] = step
            # Traces see the same settings: a change clears all steps.
            losses_given = [state.loss, *(loss for loss, _ in state.loss_objects or ())]
            state.settings = Settings((*self._flatten_layers(), *state.strangers), losses_given)
        else:
            state.in_succession = 0
        return step

    def _trace_anew(self):
        """Drop the steps, of which something that they have baked in has changed."""
        state = self._training
        if not state.steps:
            return
        state.steps.clear()
        state.in_succession += 1
        if state.in_succession == _MANY:
            warnings.warn(
                f"The steps of model '{self.name}' were traced anew {_MANY} times in succession, which is slow: an "
                "attribute of one of its layers changes at every step. Keep a number that changes in a variable, which "
                "is read at every step: `self.beta = numbarnn.Variable(1.0, trainable=False)`, then "
                "`self.beta.assign(0.5)`. What `call` does not depend on is better kept elsewhere.",
                stacklevel=6,
            )

    def _structure(self):
        """When anything changed that the steps have baked in."""
        return max(layer.structure_version for layer in (self, *self._training.strangers))

    def _trace_step(self, kind, x, y, w):
        training = kind == "train"
        shown = {}
        flat = all(a is None or type(a) is np.ndarray for a in (x, y, w))
        ragged = not flat and has_padded((x, y, w))

        def step(x, y, w):
            if ragged:
                x, y, w = with_masks(x), with_masks(y), arrays_of(w)
            y_pred = self(x, training=training)
            shown["y_pred"] = y_pred
            predictions = leaves_or_nothing(y_pred)
            if ragged:
                _hand_masks_over(y, predictions, Outputs(self, y_pred))
            masks = [get_mask(p) for p in predictions]
            if type(self).compute_loss is not BatchSteps.compute_loss:
                total = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=w, training=training)
                parts = []
            else:
                total, parts = self._total_loss(y, y_pred, w)
            return total, parts, predictions, masks

        if kind == "predict":
            # One more replay of the layers' `call`; nothing but the predictions comes out.
            def step(x, y, w):
                if not ragged:
                    return self(x, training=False)
                outputs = self(with_masks(x), training=False)
                return outputs, [get_mask(output) for output in leaves_or_nothing(outputs)]

        try:
            program = graph.trace(step, (_specs(x), _specs(y), _specs(w)), name=f"{self.name}.{kind}")
        finally:
            # What `add_loss` collected are symbols of a trace that has ended.
            self._clear_losses()
        own = {id(layer) for layer in (*self._flatten_layers(), *self._training.strangers)}
        self._training.strangers += [layer for key, layer in program.trace.layers.items() if key not in own]
        if kind != "predict":
            self._resolve_metrics(arrays_of(y), leaves_or_nothing(shown["y_pred"]), shown["y_pred"])
        if not training:
            return Step(program, flat)
        self._warn_of_strangers(program)
        variables = self._trained_variables()
        if not variables:
            found = Step(program, flat)
            found.variables = []
            return found
        self._training.optimizer.ensure_built(variables)
        forward, backward = program.linearize(0, variables)
        found = Step(forward, flat)
        found.backward, found.variables = backward, variables
        found.one = np.asarray(self._training.optimizer.scale_loss(1.0), program.outputs[0].dtype)
        return found

    def _trained_variables(self):
        """The variables that the optimizer updates."""
        return [v for v in self.trainable_variables if np.dtype(v.dtype).kind == "f"]

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

    @where_chosen
    def _train_batch(self, x, y, w):
        """Do one step; return the loss. Whatever raises on the way leaves the model as it was."""
        step = self._step("train", x, y, w)
        if local.on_gpu:
            x, y, w = map(moved, (x, y, w))
        state = self._training
        arrays = self._arrays(step, x, y, w)
        before = kept(step.touched)
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
            loss = float(total)
            if loss - loss != 0 and state.watch is not None:  # NaN or infinite
                state.watch.look_into_batch(step, arrays, before, (x, y, w), predictions)
            if state.entries:
                self._update_metrics(y, predictions, masks, w)
            if step.backward is not None:
                optimizer.apply_views(step.variables)
        except BaseException:
            put_back(before)
            raise
        return self._account(x, loss, parts)

    @where_chosen
    def _test_batch(self, x, y, w):
        step = self._step("test", x, y, w)
        if local.on_gpu:
            x, y, w = map(moved, (x, y, w))
        before = kept(step.touched)
        try:
            total, parts, predictions, masks = step.run(*self._arrays(step, x, y, w))
            if self._training.entries:
                self._update_metrics(y, predictions, masks, w)
        except BaseException:
            put_back(before)
            raise
        return self._account(x, float(total), parts)

    @where_chosen
    def _predict_batch(self, x):
        ragged = type(x) is not np.ndarray and has_padded(x)
        if self._training.run_eagerly and not local.on_gpu:
            outputs = self(with_masks(x) if ragged else x, training=False)
            return cut_padding(outputs, [get_mask(y) for y in leaves_or_nothing(outputs)], x) if ragged else outputs
        step = self._step("predict", x, None, None)
        before = kept(step.touched)
        try:
            outputs = step.run(*self._arrays(step, moved(x) if local.on_gpu else x, None, None))
        except BaseException:
            put_back(before)
            raise
        if local.on_gpu:
            outputs = brought_back(outputs)
        return cut_padding(*outputs, x) if ragged else outputs

    def _account(self, x, loss, parts):
        """Take a batch's loss into the running means, weighted by the batch size; return it."""
        state = self._training
        size = x.shape[0] if type(x) is np.ndarray else next(a for a in tree.leaves(x) if a is not None).shape[0]
        state.total += loss * size
        state.count += size
        if parts:
            values = [float(part) * size for part in parts]
            state.parts = values if state.parts is None else [a + b for a, b in zip(state.parts, values, strict=True)]
        return loss

    def _update_metrics(self, y, predictions, masks, w):
        ragged = type(y) is not np.ndarray and has_padded(y)
        if ragged or type(w) is not np.ndarray:
            y, w = arrays_of(y), arrays_of(w)
        single = len(predictions) == 1
        outputs = self._training.outputs
        targets = [y] if single and type(y) is np.ndarray else outputs.match(y, "y")
        weights = [w] if single and w is None else outputs.match(w, "sample_weight", share=True)
        at_home = {}
        for metric, number, weighted in self._training.entries:
            weight = weights[number] if weighted else None
            mask = masks[number]
            target, prediction = targets[number], predictions[number]
            if local.on_gpu and not metric.on_gpu:
                if number not in at_home:
                    at_home[number] = brought_back((target, prediction, weights[number], mask))
                target, prediction, weight, mask = at_home[number]
                weight = weight if weighted else None
            if mask is not None:
                weight = metrics.combine_weight(weight, mask)
                if ragged and mask.shape == prediction.shape[: mask.ndim] == target.shape[: mask.ndim]:
                    # Every timestep counts once, however many are padding in its batch.
                    counts = mask.astype(bool, copy=False)
                    target, prediction, weight = (
                        target[counts],
                        prediction[counts],
                        weight[counts] if weighted else None,
                    )
            if weight is None:
                metric.update_state(target, prediction)
            else:
                metric.update_state(target, prediction, sample_weight=weight)

    def _results(self):
        """What is reported, by name: what the user's own step returned last, else running means."""
        logs = self._training.logs
        return dict(logs) if logs is not None else self._running()

    def _running(self):
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
        if state.logs is not None:
            values = list(state.logs.values())
            return values[0] if len(values) == 1 else values
        if not state.entries and not state.names:
            return state.total / (state.count or 1.0)
        return list(self._results().values())
