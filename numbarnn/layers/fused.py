"""Whole recurrent passes as one operation of the graph: inputs, weights and states in, outputs and states out.

The gradient is the cell's hand-written back-propagation through time (`numbarnn.recurrence`). Passes that do not wait
for each other, the two directions of `Bidirectional`, are one operation together.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import recurrence
from ..cells.contract import Cell
from ..graph import KernelOp, Spec
from ..variable import Variable

__all__ = ["CellRun", "PackedCache", "run_abreast", "run_cells", "run_saved"]


@dataclass(frozen=True, slots=True, eq=False)
class CellRun:
    """A cell with kernels and what it is to be run over.

    Attributes
    ----------
    cell : KernelCell
        Its ``kernel_arguments(run)`` returns two things. A list of arrays: x, kernel, recurrent kernel, bias or None,
        the dropout factors of x and of h or None, then no states (zeros) or all of them; all of one dtype. And a dict:
        ``cell``, the kernels (`numbarnn.cells.Cell`); ``cache``, a `PackedCache`; ``variables``, the three weights'
        Variables or None; ``activations``, the names of both or None.
    sequences : array or Tensor, shape (batch, timesteps, features)
        A nest of them, of any rank, where no kernels run; so with the states.
    states : list of arrays (batch, units), or None
        None stands for zeros.
    mask, reset : array or Tensor of bool, shape (batch, timesteps), or None
    constants : list of arrays, or None
        Given to the cell at each step, where no kernels run.
    training, backwards, return_sequences, zero_output : bool
        See `RNN`.
    checkpoint : int or None
        See `RNN`.
    """

    cell: Any
    sequences: Any
    states: Any = None
    mask: Any = None
    reset: Any = None
    constants: Any = None
    training: bool = False
    backwards: bool = False
    return_sequences: bool = True
    zero_output: bool = False
    checkpoint: int | None = None


def run_cells(runs):
    """Run cells with kernels over whole sequences, in one operation.

    Parameters
    ----------
    runs : list of CellRun
        None needs the results of another.

    Returns
    -------
    list of (out, states)
        For each run: what was emitted, (batch, timesteps, units) in the order of the steps or (batch, units), and the
        list of its last states. The bits are those of the runs one by one.
    """
    given = [_given(run) for run in runs]
    passes = tuple(one for _, one in given)
    outputs = iter(_fused_rnn(*(array for arrays, _ in given for array in arrays), passes=passes))
    return [(next(outputs), [next(outputs) for _ in range(one.cell.states)]) for one in passes]


def run_saved(run):
    """Run a cell with kernels on arrays, as in training.

    Parameters
    ----------
    run : CellRun
        Without `checkpoint`.

    Returns
    -------
    out, states
        As of `run_cells`.
    pullback : recurrence.Pullback
        Knows what happened at each step.
    """
    arrays, one = _given(run)
    arrays = [x.value if isinstance(x, Variable) else x for x in arrays]
    (out, *states), (pullback,) = _forward(*arrays, save=True, passes=(one,))
    return out, states, pullback


def _given(run):
    """Return the arrays of a run, and what it is beside them."""
    arrays, kernels = run.cell.kernel_arguments(run)
    arrays = [run.mask, run.reset, *arrays]
    options = run.backwards, run.return_sequences, run.zero_output, run.checkpoint
    return arrays, _Pass(len(arrays), *options, **kernels)


def run_abreast(passes):
    """Run passes over one or several layers of cells abreast: the first cells of all at once, then the second ones.

    Parameters
    ----------
    passes : list of generator
        Each yields `CellRun` after `CellRun`, is sent ``(out, states)`` for each, and returns its own result.

    Returns
    -------
    list
        What each returned.
    """
    results, answers = [None] * len(passes), dict.fromkeys(range(len(passes)))
    while answers:
        runs = {}
        for number, answer in answers.items():
            try:
                runs[number] = passes[number].send(answer)
            except StopIteration as stop:
                results[number] = stop.value
        answers = dict(zip(runs, run_cells(list(runs.values())), strict=True)) if runs else {}
    return results


class PackedCache:
    """The packed weights of one cell, packed again only when a weight has changed."""

    def __init__(self):
        # Versions, arrays, and these packed: in one attribute, which threads that call the layer at once see whole.
        self._kept = None

    def __reduce__(self):
        return PackedCache, ()  # a copy packs its own weights

    def get(self, cell, variables, arrays):
        """Return `arrays` as `recurrence.PackedWeights`.

        Parameters
        ----------
        cell : numbarnn.cells.Cell
        variables : tuple of Variable or None
            Kernel, recurrent kernel and bias.
        arrays : tuple of ndarray or None
            Their values, or other arrays in their place: those are packed anew.
        """
        versions = tuple([v.version for v in variables if v is not None])
        kept = self._kept
        if kept is not None and kept[0] == versions and all([a is b for a, b in zip(kept[1], arrays, strict=True)]):
            if kept[2].cell is cell:  # a GRU may put its reset gate elsewhere
                return kept[2]
        packed = recurrence.PackedWeights(cell, *arrays)
        if all(a is None if v is None else a is v.value for v, a in zip(variables, arrays, strict=True)):
            self._kept = versions, arrays, packed
        return packed


class _Pass(NamedTuple):
    """What a run is beside its arrays, and how many these are."""

    arrays: int
    backwards: bool
    return_sequences: bool
    zero_output: bool
    checkpoint: int | None
    cell: Cell
    cache: PackedCache
    variables: tuple
    activations: tuple


def _split(values, counts):
    """Cut a sequence into pieces of these lengths."""
    values = iter(values)
    return [[next(values) for _ in range(count)] for count in counts]


def _call(one, mask, reset, x, kernel, recurrent_kernel, bias, x_factors, h_factors, *states, save):
    """Return the arguments of `recurrence.run` for one pass."""
    flags = None
    if mask is not None or reset is not None:
        flags = recurrence.step_flags(*x.shape[:2], mask, reset, one.zero_output, one.backwards)
    weights = one.cache.get(one.cell, one.variables, (kernel, recurrent_kernel, bias))
    activation, recurrent_activation = one.activations
    return (one.cell, x, weights, states or None), {
        "flags": flags,
        "x_factors": x_factors,
        "h_factors": h_factors,
        "backwards": one.backwards,
        "return_sequences": one.return_sequences,
        "activation": activation,
        "recurrent_activation": recurrent_activation,
        "save": save,
        "checkpoint": one.checkpoint,
    }


def _forward(*inputs, save, passes):
    parts = _split(inputs, [one.arrays for one in passes])
    calls = [_call(one, *arrays, save=save) for one, arrays in zip(passes, parts, strict=True)]
    outputs, pullbacks = [], []
    for out, states, pullback in recurrence.run_together(calls):
        outputs += [out, *states]
        pullbacks.append(pullback)
    return tuple(outputs), pullbacks


def _infer(*inputs, passes):
    outputs = []
    for one, arrays in zip(passes, _split(inputs, [one.arrays for one in passes]), strict=True):
        _, _, x, _, recurrent_kernel, *_ = arrays
        batch, timesteps = x.shape[:2]
        units = recurrent_kernel.shape[0]
        out = (batch, timesteps, units) if one.return_sequences else (batch, units)
        outputs += [Spec(out, x.dtype), *(Spec((batch, units), x.dtype) for _ in range(one.cell.states))]
    return tuple(outputs)


def _pullback(saved, d_outputs, needs, *, passes):
    d_outputs = _split(d_outputs, [1 + one.cell.states for one in passes])
    parts = _split(needs, [one.arrays for one in passes])
    calls = [
        (pullback, (d_out, d_states), {"need_x": need[2], "need_weights": any(need[3:6])})
        for pullback, (d_out, *d_states), need in zip(saved, d_outputs, parts, strict=True)
    ]
    gradients = []
    for (d_x, d_weights, d_initial), need in zip(recurrence.pull_together(calls), parts, strict=True):
        given = [None, None, d_x, *(d_weights or (None,) * 3), None, None, *d_initial]
        gradients += [g if wanted else None for g, wanted in zip(given, need, strict=False)]  # no states: zeros, fixed
    return tuple(gradients)


#: Inputs, for each pass: mask or None, reset or None, then the arrays of `CellRun.cell.kernel_arguments`. Outputs, for
#: each pass: what is emitted, then the last states.
_fused_rnn = KernelOp("fused_rnn", _forward, _infer, _pullback)
