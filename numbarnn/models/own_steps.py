"""Steps of a user's own: `train_step`, `test_step` and `predict_step` as a subclass of `Model` may define them.

They run in Python, step by step, around what is compiled: layers, losses, `numbarnn.value_and_grad`, the optimizer. A
model that defines none of them runs the recorded steps of `BatchSteps`.
"""

from __future__ import annotations

import contextlib

import numpy as np

from .. import graph, tree
from ..graph import Spec
from ..layers.base import Layer
from ..layers.masks import get_mask
from ..utils.batches import pack_x_y_sample_weight, unpack_x_y_sample_weight
from .outputs import leaves_or_nothing
from .ragged import Padded, arrays_of, cut_padding, has_padded, with_masks
from .steps import BatchSteps

__all__ = ["OwnSteps"]


def _padded_again(nest):
    """Return a batch with a `Padded` for each array that carries a mask."""

    def wrap(x):
        mask = get_mask(x) if isinstance(x, np.ndarray) else None
        return x if mask is None else Padded(x, mask)

    return tree.map_structure(wrap, nest)


class OwnSteps(BatchSteps):
    """What a subclass of `Model` may replace, and how `fit` and its like come to it."""

    # ------------------------------------------------------------------------------------------------ to be overridden

    def train_step(self, data):
        """One step of training on a batch; a subclass may define its own.

        Parameters
        ----------
        data : nest of array
            ``x``, ``(x, y)`` or ``(x, y, sample_weight)``: see `numbarnn.utils.unpack_x_y_sample_weight`. Sequences
            of different lengths come padded, as arrays that carry their mask.

        Returns
        -------
        dict of float
            What is reported under these names. For an epoch it is what the last step returns: metrics that are
            updated at each step are running means.

        Examples
        --------
        >>> import numpy as np
        >>> from numbarnn import layers, losses, models, ops, value_and_grad
        >>> class Own(models.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.head = layers.Dense(1)
        ...     def call(self, x):
        ...         return self.head(x)
        ...     def train_step(self, data):
        ...         x, y = data
        ...         def loss_of(x, y):
        ...             y_pred = self(x, training=True)
        ...             return self.compute_loss(y=y, y_pred=y_pred), y_pred
        ...         (loss, y_pred), grads = value_and_grad(loss_of, self)(x, y)
        ...         self.optimizer.apply(grads)
        ...         for metric in self.metrics:
        ...             if metric.name == "loss":
        ...                 metric.update_state(loss)
        ...             else:
        ...                 metric.update_state(y, y_pred)
        ...         return {metric.name: metric.result() for metric in self.metrics}
        >>> model = Own()
        >>> model.compile("adam", "mse", metrics=["mae"])
        >>> x = np.ones((8, 3), "float32")
        >>> history = model.fit(x, x[:, :1], epochs=2, verbose=0)
        >>> list(history.history)
        ['loss', 'mae']
        """
        self._train_batch(*map(_padded_again, unpack_x_y_sample_weight(data)))
        return self._running()

    def test_step(self, data):
        """Loss and metrics on a batch; a subclass may define its own.

        Parameters
        ----------
        data : nest of array
            As of `train_step`.

        Returns
        -------
        dict of float
        """
        self._test_batch(*map(_padded_again, unpack_x_y_sample_weight(data)))
        return self._running()

    def predict_step(self, data):
        """The outputs for a batch; a subclass may define its own.

        Parameters
        ----------
        data : nest of array
            ``x`` or ``(x,)``.

        Returns
        -------
        nest of ndarray
        """
        return self._predict_batch(_padded_again(unpack_x_y_sample_weight(data)[0]))

    # ------------------------------------------------------------------------------------------------ for use in them

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Bring the metrics of `compile` up to date with a batch, and return all results.

        Parameters
        ----------
        x, y, y_pred, sample_weight : nest of array

        Returns
        -------
        dict of float
        """
        predictions = leaves_or_nothing(y_pred)
        self._resolve_metrics(y, predictions, y_pred)
        self._update_metrics(y, predictions, [get_mask(p) for p in predictions], sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """The results of all `metrics`, by name: dict of float."""
        found = {}
        for metric in self.metrics:
            value = metric.result()
            found.update(value if isinstance(value, dict) else {metric.name: value})
        return found

    # ------------------------------------------------------------------------------------------------ how they are run

    def _has_own(self, name):
        return getattr(type(self), name) is not getattr(OwnSteps, name) or name in self.__dict__

    def _own_trackers(self):
        """The running mean "loss" that a step of one's own finds among `metrics`, to be updated there."""
        if self._training.compiled and (self._has_own("train_step") or self._has_own("test_step")):
            return [self._training.tracker]
        return []

    def _train(self, x, y, w):
        if self._has_own("train_step"):
            self._run_own("train_step", x, y, w)
        else:
            self._train_batch(x, y, w)

    def _test(self, x, y, w):
        if self._has_own("test_step"):
            self._run_own("test_step", x, y, w)
        else:
            self._test_batch(x, y, w)

    def _predict(self, x):
        if not self._has_own("predict_step"):
            return self._predict_batch(x)
        outputs = self.predict_step(pack_x_y_sample_weight(with_masks(x)))
        if has_padded(x):
            return cut_padding(outputs, [get_mask(output) for output in leaves_or_nothing(outputs)], x)
        return outputs

    def _run_own(self, name, x, y, w):
        self._prepare(x, y)
        watch = self._training.watch if name == "train_step" else None
        with contextlib.nullcontext() if watch is None else watch.during_own_step():
            logs = getattr(self, name)(pack_x_y_sample_weight(with_masks(x), with_masks(y), arrays_of(w)))
        if not isinstance(logs, dict):
            raise ValueError(
                f"`{name}` must return a dict, the names and values to report: return {{'loss': loss}}. "
                f"Received: {logs!r:.200}"
            )
        logs = self._training.logs = {key: _number(value) for key, value in logs.items()}
        if watch is not None:
            watch.look_at_logs(logs)

    def _prepare(self, x, y):
        """Before the first step: make the weights, and tell optimizer and metrics what they are for.

        So that `optimizer.apply(grads)` knows its variables, and `metrics` are complete.
        """
        state = self._training
        if state.prepared or type(self).call is Layer.call:  # a model of models: its steps say what is called
            return
        try:
            specs = tree.map_structure(lambda a: Spec(a.shape, a.dtype), arrays_of(x))
            y_pred = graph.abstract(lambda x: self(x, training=True), (specs,))
        except Exception:
            # `call` is for something else than the data; then there must be nothing that needs its outputs.
            if state.metrics or state.weighted_metrics:
                raise
        else:
            self._resolve_metrics(arrays_of(y), leaves_or_nothing(y_pred), y_pred)
            variables = self._trained_variables()
            if variables:
                state.optimizer.ensure_built(variables)
        finally:
            self._clear_losses()
        state.prepared = True


def _number(value):
    """Return a log's value as a float where it is a number: an array of one, a Variable."""
    return float(value) if hasattr(value, "shape") and not value.shape else value
