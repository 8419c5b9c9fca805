"""Training, evaluation and prediction: `compile`, and the one-batch forms of `fit`, `evaluate` and `predict`.

A step on a batch is one `Program`: the model's `call`, its losses and penalties are traced once per signature
(structure, shapes and dtypes of the data; versions of the layers) and replayed afterwards. For training the program is
linearized with respect to the trainable variables; the gradients land in the optimizer's flat buffer and one kernel
call updates all weights. Metrics are computed from the program's outputs.
"""

from __future__ import annotations

import numpy as np

from .. import backend, optimizers, tree
from .class_weight import check_class_weight, with_class_weight
from .data import check_batch, check_list, standardize
from .input_gradient import InputGradient
from .looking_inside import LookingInside
from .loops import Loops
from .method_names import of_model
from .outputs import check_loss, check_metrics
from .ragged import padded
from .state import State

__all__ = ["Trainer"]


class Trainer(InputGradient, LookingInside, Loops):
    """What makes a layer trainable by itself; the other half of `Model`."""

    # ------------------------------------------------------------------------------------------------ compile

    @of_model
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
        auto_scale_loss=True,
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
        auto_scale_loss
            Accepted for Keras's sake, without effect: under ``mixed_float16`` gradients are float32 here, and need no
            scale.

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
        state.history, state.shuffle_seed = self._training.history, self._training.shuffle_seed
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

    def _rank_of_input(self):
        """How many axes the only input has, 0 if that is not known; None if there are several inputs."""
        return 0

    def _standardize(self, x, y, sample_weight, class_weight=None):
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
        if type(x) is not np.ndarray:
            check_list(x, y, sample_weight, self._rank_of_input())
        if class_weight is not None:
            sample_weight = with_class_weight(y, sample_weight, class_weight, dtype)
        return x, y, sample_weight

    # ------------------------------------------------------------------------------------------------ one batch

    @of_model
    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Do one step of training.

        Parameters
        ----------
        x, y : array, Ragged, or nest of these
            One batch.
        sample_weight : array or Ragged, optional
            Shape (batch,) or (batch, timesteps).
        class_weight : dict of int to float, optional
            As in `fit`.
        return_dict : bool

        Returns
        -------
        float, list of float or dict
            The loss before the step, and the metrics of this batch if there are any.
        """
        state = self._training
        if not state.compiled:
            self._require_compiled()
        if class_weight is not None:
            check_class_weight(class_weight)
        x, y, sample_weight = self._standardize(x, y, sample_weight, class_weight)
        check_batch(x, y, sample_weight)
        if self._has_own("train_step"):
            self.reset_metrics()
        state.reset()
        self._train(padded(x), padded(y), padded(sample_weight))
        return self._report(return_dict)

    @of_model
    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss and metrics on one batch; arguments and result as `train_on_batch`."""
        self._require_compiled()
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        check_batch(x, y, sample_weight)
        self.reset_metrics()
        self._test(padded(x), padded(y), padded(sample_weight))
        return self._report(return_dict)

    @of_model
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
            x, _, _ = self._inputs_alone(x, None, None)
        return self._predict(padded(x))
