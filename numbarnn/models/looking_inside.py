"""What the recurrent layers of a model do at each timestep."""

from __future__ import annotations

import operator

from ..gradients import Recorder
from ..layers.probing import Prober, probes_of, with_gradients
from ..layers.watching import by_path, observing, watch
from ..random import global_generator
from .data import standardize
from .input_gradient import check_choice, scalar_of
from .ragged import arrays_of, padded, with_masks

__all__ = ["LookingInside"]


class LookingInside:
    """The method `trace` of `Model`."""

    def trace(self, x, y=None, *, output=None, sample_weight=None, training=False):
        """Call the model on a batch and show what its recurrent layers did at each timestep: outputs, states, gates.

        It leaves the model as it was: states and statistics that the call moves are put back.

        Parameters
        ----------
        x : array, Ragged, or nest of these
            A batch.
        y, sample_weight : nest of array, optional
            Targets: the traces then have `state_gradients`, those of the loss of `compile`, with its penalties.
        output : int or callable, optional
            What to differentiate instead of the loss; see `input_gradient`.
        training : bool
            In which mode the layers are called.

        Returns
        -------
        dict of str to LayerTrace or Directions
            By the names of the layers, in the order in which they ran: `LayerTrace` for an `RNN` of any kind, a pair of
            them for a `Bidirectional`. A layer within a layer comes by its path, ``"encoder/lstm"``; where a layer runs
            again, ``":2"`` and so on follow its name.

        Raises
        ------
        ValueError
            If no recurrent layer ran, both `y` and `output` are given, or `y` comes before `compile`.

        Notes
        -----
        The gradient of a state is with respect to the state after a step, all its later effects included: the output at
        that step, where it is one of the states, as it is for all built-in cells.  At a step before which the
        states are set to zero, it does not go on to the steps before.

        Examples
        --------
        >>> import numpy as np
        >>> from numbarnn import layers, models
        >>> model = models.Sequential([layers.GRU(4, name="reader"), layers.Dense(1)])
        >>> trace = model.trace(np.ones((2, 5, 3), "float32"), output=0)["reader"]
        >>> trace.gates["update"].shape, trace.state_gradients[0].shape
        ((2, 5, 4), (2, 5, 4))
        """
        check_choice("trace", self, y, output, sample_weight)
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        x = padded(standardize(x, self._float_dtype(), "x"))
        drawn_from = [*self.non_trainable_variables, global_generator().state]
        start = [variable.numpy() for variable in drawn_from]
        records = watch(self, lambda: self(with_masks(x), training=training))
        if not records:
            raise ValueError(
                f"No recurrent layer ran in model '{self.name}'. Its layers: {[layer.name for layer in self.layers]}"
            )
        if y is not None or output is not None:
            for variable, value in zip(drawn_from, start, strict=True):
                variable.assign(value)  # the same draws again
            records = self._with_gradients(records, x, y, output, sample_weight, training)
        return by_path(records)

    def _with_gradients(self, records, x, y, output, sample_weight, training):
        """Return the records with the gradients of the states."""
        number = None if output is None or callable(output) else operator.index(output)
        function = output if callable(output) else None
        runs = [(layers[-1], trace) for layers, trace in records]

        def scalar(probes, x, y, sample_weight):
            with observing(Prober(runs, probes)):
                return scalar_of(self, x, y, sample_weight, function, number, training)

        probes = [probes_of(trace) for _, trace in runs]
        args = probes, with_masks(x), with_masks(padded(y)), arrays_of(padded(sample_weight))
        _, gradients = Recorder(scalar, self, by_inputs=True)(args, {})
        gradients = iter(gradients)
        given = [[next(gradients) for _ in own] for own in probes]
        return [(layers, with_gradients(trace, own)) for (layers, trace), own in zip(records, given, strict=True)]
