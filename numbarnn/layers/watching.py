"""What recurrent layers do at each timestep, watched while they run.

A layer with kernels runs them as in training, and what their tape keeps is shown. Any other cell is called as always,
within a cell that gives out all there is to see.
"""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .. import graph
from ..graph import Tensor
from ..tensor_shape import TensorShape
from .cell_protocol import call_cell, flatten_states, nest_states, output_sizes_of, sizes_of
from .fused import run_saved
from .kernel_cell import KernelCell
from .nests import leaves_of, map_nest
from .stacked import StackedRNNCells
from .stepwise import StepPrograms, cells_within, step_by_step
from .tracking import calls

__all__ = [
    "Directions",
    "Enclosing",
    "LayerTrace",
    "as_size",
    "by_path",
    "moving_variables",
    "observer",
    "observing",
    "trace_of",
    "unmoved",
    "watch",
]


@dataclass(frozen=True, eq=False, repr=False)
class LayerTrace:
    """What a recurrent layer did at each timestep.

    All arrays are in the order of the steps, which is the order of the layer's outputs: with `go_backwards` the first
    step reads the last timestep. `timesteps` says which timestep a step has read; `chronological` turns it all round.
    They are in the type that the layer computes in: float32 for a layer of float16.

    Attributes
    ----------
    name : str
        Of the layer; within `cells` of the cell.
    inputs : ndarray of shape (batch, timesteps, ...), or nest of them
        What came in.
    outputs : ndarray of shape (batch, timesteps, size), or nest of them
        What the layer returns with `return_sequences`: to the last bit where kernels run and for a cell that is called,
        up to rounding for a built-in cell without kernels.
    states : list of ndarray of shape (batch, timesteps, size)
        Those after each step, nested like the layer's `states`: h and c of an LSTM. A masked step leaves them as they
        were.
    gates : dict of str to ndarray of shape (batch, timesteps, units)
        Of an LSTM: ``"input"``, ``"forget"``, ``"candidate"``, ``"output"``; of a GRU ``"update"``, ``"reset"``,
        ``"candidate"``. After their activations, NaN at masked steps, which have none. Empty for other cells.
    initial_states : list of ndarray of shape (batch, size)
        Those before the first step.
    timesteps : ndarray of int, shape (timesteps,)
        Which timestep of the inputs each step has read.
    mask, reset : ndarray of bool, shape (batch, timesteps), or None
        Where steps count; where states were set to zero before the step.
    cells : tuple of LayerTrace
        Of a stack: what each of its cells did, the lowest first.
    state_gradients : list of ndarray of shape (batch, timesteps, size), or None
        How the loss changes with the states after each step, nested like `states`; see `Model.trace`. NaN at masked
        steps.
    """

    name: str
    inputs: Any
    outputs: Any
    states: list
    gates: dict
    initial_states: list
    timesteps: np.ndarray
    mask: np.ndarray | None = None
    reset: np.ndarray | None = None
    cells: tuple = ()
    state_gradients: list | None = field(default=None)

    def chronological(self):
        """Return the same with all arrays in the order of the timesteps of the inputs.

        Returns
        -------
        LayerTrace
        """
        if np.all(np.diff(self.timesteps) > 0):
            return self

        def turned(nest):
            return map_nest(lambda x: None if x is None else x[:, ::-1], nest)

        moved = {name: turned(getattr(self, name)) for name in ("inputs", "outputs", "states", "mask", "reset")}
        return replace(
            self,
            **moved,
            gates={name: turned(gate) for name, gate in self.gates.items()},
            timesteps=self.timesteps[::-1],
            cells=tuple(cell.chronological() for cell in self.cells),
            state_gradients=None if self.state_gradients is None else turned(self.state_gradients),
        )

    def __repr__(self):
        batch, timesteps = leaves_of(self.outputs)[0].shape[:2]
        parts = [f"{batch} rows, {timesteps} timesteps", f"{len(leaves_of(self.states))} states"]
        if self.gates:
            parts.append(f"gates {', '.join(self.gates)}")
        if self.cells:
            parts.append(f"cells {', '.join(cell.name for cell in self.cells)}")
        if self.state_gradients is not None:
            parts.append("gradients of the states")
        return f"<LayerTrace of {self.name}: {', '.join(parts)}>"


class Directions(NamedTuple):
    """What the two layers of a `Bidirectional` did at each timestep; None for one that is no `RNN`."""

    forward: LayerTrace | None
    backward: LayerTrace | None


# ---------------------------------------------------------------------------------------------------------------
# who looks on


class _Observing(threading.local):
    observer = None


_observing = _Observing()


def observer():
    """Return who runs the recurrent layers of this thread now in their stead, or None.

    Returns
    -------
    object with ``run(layer, run) -> (out, states)``, or None
        Takes a `CellRun` of a layer, and returns what running it comes to.
    """
    found = _observing.observer
    return found if found is not None and found.of_symbols == graph.is_tracing() else None


@contextlib.contextmanager
def observing(found):
    """Within the block, `observer` returns `found`; None stands for nobody."""
    before, _observing.observer = _observing.observer, found
    try:
        yield
    finally:
        _observing.observer = before


class Watcher:
    """Runs recurrent layers on arrays, and keeps what happens.

    Attributes
    ----------
    records : list of (tuple of Layer, LayerTrace)
        For each call of a recurrent layer, in order: the layers whose calls it was within, outermost first, the
        recurrent one last; and what it did.
    """

    of_symbols = False

    def __init__(self):
        self.records = []

    def run(self, layer, run):
        """Run a layer; see `observer`."""
        whole = replace(run, return_sequences=True, checkpoint=None)
        with observing(None):
            watched = _by_steps if layer._fused_cells is None else _by_kernels
            out, states, parts = watched(layer, whole)
        around = [outer for outer, _ in calls.stack]
        if not around or around[-1] is not layer:  # a layer that another one runs without calling it
            around.append(layer)
        self.records.append((tuple(around), _whole_trace(layer, run, out, parts)))
        return (out if run.return_sequences else map_nest(lambda x: x[:, -1], out)), states


def _by_kernels(layer, run):
    """Run a layer with kernels; return what it emits, its last states, and a `LayerTrace` for each cell."""
    passes, answer, parts = layer._passes(run), None, []
    timesteps = run.sequences.shape[1]
    order = np.arange(timesteps)[:: -1 if run.backwards else 1]
    while True:
        try:
            one = passes.send(answer)
        except StopIteration as stop:
            return *stop.value, parts
        out, last, pullback = run_saved(one)
        states, gates = pullback.steps(one.cell.gate_names)
        zeros = [np.zeros_like(state) for state in last]
        start = zeros if one.states is None else [np.array(state) for state in one.states]
        parts.append(_part(one.cell, one, out, states, gates, start, order))
        answer = out, last


def _by_steps(layer, run):
    """The same as `_by_kernels` for a cell that is called at each timestep."""
    cell = _Revealing(run.cell)
    holder = SimpleNamespace(cell=cell, _step_programs=StepPrograms())
    seen, last = step_by_step(replace(run, cell=cell), holder)
    timesteps = leaves_of(run.sequences)[0].shape[1]
    order = np.arange(timesteps)[:: -1 if run.backwards else 1]
    mask, reset = (_in_steps(flags, run.backwards) for flags in (run.mask, run.reset))
    starts = _split(run.cell, run.states)
    parts = []
    for inner, (out, states, gates), start in zip(cell.levels, seen, starts, strict=True):
        start = [np.array(state) for state in start]
        if mask is not None:
            states = [_carried(*each, mask, reset) for each in zip(states, start, strict=True)]
            gates = [np.where(mask[:, :, None], gate, np.nan).astype(gate.dtype) for gate in gates]
        named = dict(zip(inner.gate_names if gates else (), gates, strict=True))
        if parts:  # the cells above read what the one below gives, in the order of the steps
            run = replace(run, sequences=parts[-1].outputs, mask=mask, reset=reset, backwards=False)
        parts.append(_part(inner, run, out, states, named, start, order))
    return parts[-1].outputs, last, parts


def _part(cell, run, out, states, gates, start, order):
    """Return the `LayerTrace` of one cell, its states in a flat list."""
    sizes = sizes_of(cell)
    return LayerTrace(
        name=getattr(cell, "name", type(cell).__name__),
        inputs=map_nest(lambda x: _in_steps(x, run.backwards), run.sequences),
        outputs=out,
        states=nest_states(sizes, states),
        gates=gates,
        initial_states=nest_states(sizes, start),
        timesteps=order,
        mask=_in_steps(run.mask, run.backwards),
        reset=_in_steps(run.reset, run.backwards),
    )


def _whole_trace(layer, run, out, parts):
    """Return the `LayerTrace` of a layer from those of its cells."""
    first = parts[0]
    if _levels_of(run.cell) == [run.cell]:
        return replace(first, name=layer.name)
    return replace(
        first,
        name=layer.name,
        outputs=out,
        states=_joined(run.cell, [part.states for part in parts]),
        gates={},
        initial_states=_joined(run.cell, [part.initial_states for part in parts]),
        cells=tuple(parts),
    )


def _in_steps(x, backwards):
    """Return an array over time in the order of the steps."""
    if x is None:
        return None
    return np.array(np.asarray(x)[:, ::-1] if backwards else x)


def _carried(states, start, mask, reset):
    """Return the states after each step, those of masked steps as they were."""
    states, current = states.copy(), start
    for t in range(states.shape[1]):
        after = (slice(None), *[None] * (states.ndim - 2))
        if reset is not None:
            current = np.where(reset[:, t][after], 0, current)
        states[:, t] = current = np.where(mask[:, t][after], states[:, t], current)
    return states


# ---------------------------------------------------------------------------------------------------------------
# cells that show what is within


def _levels_of(cell):
    """Return the cells of a stack that does nothing but call one after the other; else the cell itself, in a list."""
    stack = isinstance(cell, StackedRNNCells) and type(cell).call is StackedRNNCells.call
    return cell.cells if stack and cell.activity_regularizer is None else [cell]


def _split(cell, flat):
    """Return a flat list of states as one flat list for each of `_levels_of`."""
    return [list(flat)] if _levels_of(cell) == [cell] else cell.split_states(flat)


def _joined(cell, parts):
    """Return states of a stack, nested like its `states`, from those of its cells."""
    return nest_states(sizes_of(cell), cell.join_states([leaves_of(part) for part in parts]))


class Enclosing:
    """A cell around another one, called in its stead: the states are the same.

    Parameters
    ----------
    cell : Layer or other object
    """

    def __init__(self, cell):
        self.cell, self.levels = cell, _levels_of(cell)
        self.state_size = cell.state_size
        self.layers = cells_within(cell)  # whose losses count

    def states_by_level(self, states):
        """Return states, as a `call` gets them, as one flat list for each level."""
        return _split(self.cell, flatten_states(sizes_of(self.cell), states))

    def new_states(self, parts):
        """Return flat lists for each level as a `call` returns states."""
        flat = parts[0] if self.levels == [self.cell] else self.cell.join_states(parts)
        nested = nest_states(sizes_of(self.cell), flat)
        record = isinstance(self.state_size, dict) or hasattr(self.state_size, "_fields")
        return nested[0] if record else nested


class _Revealing(Enclosing):
    """A cell whose outputs are, for each level: outputs, states, gates."""

    def __init__(self, cell):
        super().__init__(cell)
        self.output_size = [
            [
                map_nest(as_size, output_sizes_of(inner)),
                [as_size(size) for size in leaves_of(sizes_of(inner))],
                [inner.units] * len(inner.gate_names) if _has_gates(inner) else [],
            ]
            for inner in self.levels
        ]

    def call(self, inputs, states, training=False, constants=None):
        seen = []
        for inner, own in zip(self.levels, self.states_by_level(states), strict=True):
            if _has_gates(inner):
                new, gates = inner.step_with_gates(inputs, own, training)
                out = new[0]
            else:
                (out, new), gates = call_cell(inner, inputs, own, training, constants), []
            seen.append([out, new, gates])
            inputs = out
        return seen, self.new_states([new for _, new, _ in seen])


def _has_gates(cell):
    """Say whether a cell can do its step so that the gates are seen."""
    return isinstance(cell, KernelCell) and type(cell).call is KernelCell.call and len(cell.gate_names) > 0


def as_size(size):
    """Return a size of `sizes_of` as a cell gives it."""
    return size if isinstance(size, int) else TensorShape(list(size))


# ---------------------------------------------------------------------------------------------------------------
# traces


def watch(owner, call):
    """Run a call on arrays and watch the recurrent layers in it; states and statistics are put back afterwards.

    Parameters
    ----------
    owner : Layer
        That is called, or that what is called belongs to.
    call : callable
        Without arguments.

    Returns
    -------
    list of (tuple of Layer, LayerTrace)
        The `records` of a `Watcher`.

    Raises
    ------
    RuntimeError
        Within a function that is being traced.
    """
    if graph.is_tracing():
        raise RuntimeError(
            f"`trace` of layer '{owner.name}' shows arrays, and there are none inside a function that is being traced. "
            "Call it outside `call`, losses and other differentiated functions"
        )
    watcher = Watcher()
    with unmoved(owner), observing(watcher):
        call()
    return watcher.records


def moving_variables(owner):
    """Return what calls of a layer change in it and in the layers within, but for random generators.

    Parameters
    ----------
    owner : Layer

    Returns
    -------
    list of Variable
        Weights that are not trained, such as statistics, and the states of stateful layers.
    """
    found = []
    for layer in owner._flatten_layers():
        found += layer._own_non_trainable
        if getattr(layer, "_state_variables", None) is not None:
            found += [*layer._state_variables, layer._fresh]
    return found


@contextlib.contextmanager
def unmoved(owner):
    """After the block, give `moving_variables` the values that they had before; new states are zeros."""
    before = [(variable, variable.numpy()) for variable in moving_variables(owner)]
    known = {id(variable) for variable, _ in before}
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        for layer in owner._flatten_layers():
            fresh = getattr(layer, "_fresh", None)
            if fresh is not None and id(fresh) not in known:  # the block has built it
                layer.reset_states()


def trace_of(layer, sequences, args, kwargs):
    """Return the trace of one recurrent layer; see `RNN.trace` and `Bidirectional.trace`."""
    given = leaves_of([sequences, list(args), list(kwargs.values())])
    if any(isinstance(x, Tensor) for x in given):
        raise TypeError(
            f"`trace` of layer '{layer.name}' shows arrays. Received symbolic tensors, which have no values"
        )
    records = watch(layer, lambda: layer(sequences, *args, **kwargs))
    found = by_path([(layers[layers.index(layer) :], trace) for layers, trace in records])
    if "" not in found:
        raise TypeError(
            f"The call of layer '{layer.name}' (of type {type(layer).__name__}) does not run the loop of `RNN`: there "
            "is nothing to trace"
        )
    return found[""]


def by_path(records):
    """Return traces by the paths of their layers.

    Parameters
    ----------
    records : list of (tuple of Layer, LayerTrace)
        The first layer of each is the one that all are in.

    Returns
    -------
    dict of str to LayerTrace or Directions
        By the names of the layers from there on, ``"encoder/lstm"``. Where a layer is called again, ``":2"`` and so on
        follow.
    """
    found, counts = {}, {}
    for layers, trace in records:
        *around, layer = layers
        sides = [getattr(around[-1], name, None) for name in ("forward_layer", "backward_layer")] if around else []
        side = next((name for name, x in zip(Directions._fields, sides, strict=False) if x is layer), None)
        path = "/".join(outer.name for outer in (around if side else layers)[1:])
        again = counts.get((path, side), 0) + 1
        counts[path, side] = again
        key = path if again == 1 else f"{path}:{again}"
        found[key] = trace if side is None else found.get(key, Directions(None, None))._replace(**{side: trace})
    return found
