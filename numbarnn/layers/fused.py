"""A whole recurrent pass as one operation of the graph: inputs, weights and states in, outputs and states out.

The gradient is the cell's hand-written back-propagation through time (`numbarnn.recurrence`).
"""

from .. import recurrence
from ..graph import KernelOp, Spec

__all__ = ["PackedCache", "fused_rnn"]


class PackedCache:
    """The packed weights of one cell, packed again only when a weight has changed."""

    def __init__(self):
        # Versions, arrays, and these packed: in one attribute, which threads that call the layer at once see whole.
        self._kept = None

    def __reduce__(self):
        return PackedCache, ()  # a copy packs its own weights

    def get(self, variables, arrays, gates):
        """Return `arrays` as `recurrence.PackedWeights`.

        Parameters
        ----------
        variables : tuple of Variable or None
            Kernel, recurrent kernel and bias.
        arrays : tuple of ndarray or None
            Their values, or other arrays in their place: those are packed anew.
        gates : int
        """
        own = all(
            (v is None and a is None) or (v is not None and a is v.value)
            for v, a in zip(variables, arrays, strict=True)
        )
        if not own:
            return recurrence.PackedWeights(*arrays, gates)
        versions = tuple(v.version for v in variables if v is not None)
        kept = self._kept
        if kept is None or kept[0] != versions or any(a is not b for a, b in zip(kept[1], arrays, strict=True)):
            self._kept = kept = versions, arrays, recurrence.PackedWeights(*arrays, gates)
        return kept[2]


def _forward(
    x, kernel, recurrent_kernel, bias, mask, reset, x_factors, h_factors, *states,
    save, cell, cache, variables, backwards, return_sequences, zero_output, activations,
):  # fmt: skip
    flags = None
    if mask is not None or reset is not None:
        flags = recurrence.step_flags(*x.shape[:2], mask, reset, zero_output, backwards)
    out, states, pullback = recurrence.run(
        cell,
        x,
        cache.get(variables, (kernel, recurrent_kernel, bias), cell.gates),
        states or None,
        flags=flags,
        x_factors=x_factors,
        h_factors=h_factors,
        backwards=backwards,
        return_sequences=return_sequences,
        activation=activations[0],
        recurrent_activation=activations[1],
        save=save,
    )
    return (out, *states), pullback


def _infer(
    x, kernel, recurrent_kernel, bias, mask, reset, x_factors, h_factors, *states, cell, return_sequences, **_
):  # fmt: skip
    batch, timesteps = x.shape[:2]
    units = recurrent_kernel.shape[0]
    out = (batch, timesteps, units) if return_sequences else (batch, units)
    return (Spec(out, x.dtype), *(Spec((batch, units), x.dtype) for _ in range(cell.states)))


def _pullback(saved, d_outputs, needs, **_):
    need_x, need_weights = needs[0], any(needs[1:4])
    d_out, *d_states = d_outputs
    d_x, d_weights, d_initial = saved(d_out, d_states, need_x=need_x, need_weights=need_weights)
    gradients = [d_x, *(d_weights or (None, None, None)), None, None, None, None, *d_initial[: len(needs) - 8]]
    return tuple(g if need else None for g, need in zip(gradients, needs, strict=True))


#: Inputs: x (B, T, I), kernel, recurrent kernel, bias or None, mask or None, reset or None (B, T), the dropout factors
#: or None, then no states (zeros) or all of them (B, H).  Outputs: what is emitted, then the last states.
fused_rnn = KernelOp("fused_rnn", _forward, _infer, _pullback)
