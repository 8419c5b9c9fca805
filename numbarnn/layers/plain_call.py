"""`PlainCall`: the call of a recurrent layer on one array of sequences and nothing else, by the shortest way.

A call asks whether arguments, masks, states, weights and the layers around are what they nearly always are, and the
answers cost as much time as the kernels take for a hundred timesteps of a row. They stand as long as no attribute of
any layer changes (`structure_clock`): the next call asks only for what may differ from call to call.
"""

from .. import devices, recurrence
from ..graph import is_tracing
from .input_spec import InputSpec
from .masks import get_mask
from .tracking import calls, structure_clock
from .watching import observer

__all__ = ["PlainCall", "call_plainly"]

_LIBRARY = __name__.partition(".")[0]


def call_plainly(layer, sequences, long_way):
    """Call a layer on an array of NumPy's own type: the short way if that is open, or else ``long_way(sequences)``."""
    plain = layer._plain_call
    if plain.fits(sequences):
        return layer._plain_end(plain(sequences))
    outputs = long_way(sequences)
    # Within another call or a trace it would be of no use.
    if plain.clock != structure_clock() and not calls.stack and not is_tracing():
        layer._set_untracked("_plain_call", PlainCall(layer, sequences))
    return outputs


class PlainCall:
    """What a call of a layer on one array comes to; the results have the bits of the long way.

    It does not refer to the layer, which goes as soon as nobody else does.

    Parameters
    ----------
    layer : RNN or Bidirectional, optional
        Built. Its ``_plain_parts()`` are the layers that each run a cell over the sequences, all at once;
        ``_plain_end(results)`` makes of ``(out, states)`` of each what the layer returns. None: nothing goes this way.
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
        if layer is None or not _is_plain(layer):
            return
        parts = layer._plain_parts()
        if not parts or not all(map(_runs_its_kernels, parts)):
            return
        self._runs = [_Run(part, sequences) for part in parts]
        if all(run.possible for run in self._runs):
            self._dtype, self._features = sequences.dtype, sequences.shape[2]
            self._losses = [one._losses for one in layer._flatten_layers()]
            # A class is not watched as a layer is.
            self._kinds = [type(one) for one in (layer, *parts, *[part.cell for part in parts])]
            self._calls = [kind.call for kind in self._kinds]

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
            and [kind.call for kind in self._kinds] == self._calls
            and not calls.stack
            and not is_tracing()
            and observer() is None
            and devices.gpu() is None
            and not any(self._losses)  # what a call clears
            and get_mask(sequences) is None
        )

    def __call__(self, sequences):
        """Return ``(out, states)`` of each part of the layer, for an array that `fits`."""
        results = recurrence.run_together([run.call(sequences) for run in self._runs])
        return [(out, states) for out, states, _ in results]


class _Run:
    """The kernels of one layer's cell, as `recurrence.run` takes them."""

    def __init__(self, layer, sequences):
        arrays, kernels = layer.cell.kernel_arguments(layer._begin(sequences))
        self.cell, self.cache, self.variables = kernels["cell"], kernels["cache"], kernels["variables"]
        # Nothing cast or drawn on the way.
        expected = sequences, *self.variables, None, None
        self.possible = all(a is b for a, b in zip(arrays, expected, strict=True))
        activation, recurrent_activation = kernels["activations"]
        self.options = {
            "backwards": layer.go_backwards,
            "return_sequences": layer.return_sequences,
            "activation": activation,
            "recurrent_activation": recurrent_activation,
        }

    def call(self, sequences):
        """Arguments of `recurrence.run`."""
        values = tuple([None if v is None else v.value for v in self.variables])
        weights = self.cache.get(self.cell, self.variables, values)
        return (self.cell, sequences, weights, None), self.options


def _is_plain(layer):
    """Say whether a layer does with an array what its class says, and nothing of the user's is called."""
    spec = layer.input_spec
    return (
        _is_our_own(layer)
        and layer._activity_regularizer is None
        and layer._result_dtype is None
        and isinstance(spec, InputSpec)
        and spec.shape is not None
        and tuple(spec.shape[:2]) == (None, None)
        and not (spec.axes or spec.dtype)
    )


def _runs_its_kernels(layer):
    """Say whether a layer's call on an array is a run of its cell's kernels, from zeros, and nothing else."""
    return (
        _is_plain(layer)
        and layer._fused_cells == [layer.cell]
        and _is_our_own(layer.cell)
        and layer._starts_from_zeros()
        and not layer._goes_on
        and not layer.time_major
    )


def _is_our_own(layer):
    """Say whether no method of a layer or cell is the user's, `call` not even where it was put into our class."""
    kind = type(layer)
    modules = kind.__module__, getattr(kind.call, "__globals__", {}).get("__name__", "")
    return all(module.partition(".")[0] == _LIBRARY for module in modules) and not any(
        callable(getattr(kind, name, None)) for name in list(vars(layer))
    )
