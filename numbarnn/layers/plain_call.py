"""`PlainCall`: the call of a recurrent layer on one array of sequences and nothing else, by the shortest way.

A call asks whether arguments, masks, states, weights and the layers around are what they nearly always are, and the
answers cost as much time as the kernels take for a hundred timesteps of a row. They stand as long as no attribute of
any layer changes (`structure_clock`): the next call asks only for what may differ from call to call.
"""

from .. import devices, recurrence
from ..graph import is_tracing
from . import base
from .masks import get_mask
from .tracking import calls, structure_clock
from .watching import observer

__all__ = ["PlainCall"]

_LIBRARY = __name__.partition(".")[0]


class PlainCall:
    """What a call of a layer on one array comes to; the results have the bits of the long way.

    Parameters
    ----------
    layer : RNN, optional
        Built. None: nothing goes this way yet.
    sequences : ndarray of shape (batch, timesteps, features)
        On which it has been called without an error.

    Attributes
    ----------
    clock : int or None
        The `structure_clock` of which this is true.
    """

    def __init__(self, layer=None, sequences=None):
        self.clock = None if layer is None else structure_clock()
        self._features = None
        if layer is None or not _as_usual(layer):
            return
        cell = layer.cell
        arrays, kernels = cell.kernel_arguments(layer._begin(sequences))
        weights = kernels["variables"]
        if all(a is b for a, b in zip(arrays, (sequences, *weights, None, None), strict=True)):  # nothing cast or drawn
            self._dtype, self._features = sequences.dtype, sequences.shape[2]
            self._cell, self._cache, self._variables = kernels["cell"], kernels["cache"], weights
            activation, recurrent_activation = kernels["activations"]
            self._options = {
                "backwards": layer.go_backwards,
                "return_sequences": layer.return_sequences,
                "activation": activation,
                "recurrent_activation": recurrent_activation,
            }
            self._return_state = layer.return_state

    def __reduce__(self):
        return PlainCall, ()  # a copy of the layer makes its own

    def fits(self, sequences):
        """Say whether an array of NumPy's own type may go this way, here and now."""
        return (
            self._features is not None
            and sequences.ndim == 3
            and sequences.shape[2] == self._features
            and sequences.shape[1] > 0
            and sequences.dtype == self._dtype
            and self.clock == structure_clock()
            and not calls.stack
            and not is_tracing()
            and observer() is None
            and devices.gpu() is None
            and not base._losses_added
            and get_mask(sequences) is None
        )

    def __call__(self, sequences):
        """Return what the layer returns for an array that `fits`."""
        values = tuple([None if v is None else v.value for v in self._variables])
        weights = self._cache.get(self._cell, self._variables, values)
        out, states, _ = recurrence.run(self._cell, sequences, weights, None, **self._options)
        return [out, *states] if self._return_state else out


def _as_usual(layer):
    """Say whether a layer's call on an array is a run of its cell's kernels, from zeros, and nothing else."""
    spec = layer.input_spec
    return (
        _is_our_own(layer)
        and layer._fused_cells == [layer.cell]
        and _is_our_own(layer.cell)
        and layer._starts_from_zeros()
        and not layer._goes_on
        and not layer.time_major
        and not is_tracing()
        and layer._activity_regularizer is None
        and layer._result_dtype is None
        and isinstance(spec, base.InputSpec)
        and spec.shape is not None
        and tuple(spec.shape[:2]) == (None, None)
        and not (spec.axes or spec.dtype)
    )


def _is_our_own(layer):
    """Say whether no method of a layer or cell is the user's."""
    kind = type(layer)
    return kind.__module__.partition(".")[0] == _LIBRARY and not any(
        callable(getattr(kind, name, None)) for name in vars(layer)
    )
