"""A cell run over time in Python, one call for each timestep: what `RNN` does where there are no kernels."""

from dataclasses import replace

from .. import ops
from ..graph import Op, Spec
from .cell_protocol import call_cell
from .kernel_cell import one_sequence

__all__ = ["step_by_step"]


def _no_steps(x, *, layer):
    raise ValueError(
        f"Layer '{layer}' runs its cell step by step: to compute more than shapes it must be traced with a known "
        "number of timesteps"
    )


# Where a sequence of unknown length is asked for its shapes, one timestep stands for all.
_one_timestep = Op("one_timestep", _no_steps, lambda x, *, layer: Spec((x.shape[0], 1, *x.shape[2:]), x.dtype))
_all_timesteps = Op(
    "all_timesteps", lambda out, x: out, lambda out, x: Spec((*x.shape[:2], *out.shape[2:]), out.dtype)
)  # fmt: skip


def step_by_step(run, layer):
    """Call a cell at each timestep.

    Parameters
    ----------
    run : CellRun
        Any cell, its states in one flat list.
    layer : str
        Whose run it is, for an error.

    Returns
    -------
    out : array or Tensor, shape (batch, timesteps, size) or (batch, size)
        In the order of the steps; as kernels give it.
    states : list
        The last ones, flat.
    """
    sequences, states, mask, reset = run.sequences, run.states, run.mask, run.reset
    if sequences.shape[1] is None:
        short = replace(run, sequences=_one_timestep(sequences, layer=layer), mask=None, reset=None)
        out, states = step_by_step(short, layer)
        return _all_timesteps(out, sequences) if run.return_sequences else out, states
    if mask is not None:
        # What a masked step computes is not used, but its slopes are multiplied by zero: they must be finite. Finite
        # inputs stay: there are cells that divide by the size of their inputs.
        counts = ops.expand_dims(mask, tuple(range(2, len(sequences.shape))))
        kept = ops.logical_or(counts, ops.isfinite(sequences))
        sequences = ops.where(kept, sequences, ops.zeros_like(sequences))
    timesteps = sequences.shape[1]
    emitted, last = [], None
    with one_sequence():
        for s in range(timesteps):
            t = timesteps - 1 - s if run.backwards else s
            if reset is not None:
                keep = ops.expand_dims(ops.logical_not(reset[:, t]), -1)
                states = [ops.where(keep, state, ops.zeros_like(state)) for state in states]
                last = None if last is None else ops.where(keep, last, ops.zeros_like(last))
            out, new = call_cell(run.cell, sequences[:, t], states, run.training)
            if mask is not None:
                counts = ops.expand_dims(mask[:, t], -1)
                before = ops.zeros_like(out) if last is None or run.zero_output else last
                out = ops.where(counts, out, before)
                new = [ops.where(counts, a, b) for a, b in zip(new, states, strict=True)]
            states, last = new, out
            emitted.append(out)
    return ops.stack(emitted, axis=1) if run.return_sequences else last, states
