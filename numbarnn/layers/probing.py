"""How a loss changes with the states of recurrent layers, at each timestep.

Zeros are added to the states after each step; the gradient with respect to these zeros is that of the states, with all
that the later steps make of them.  For that the cells are called step by step, whatever kernels they have.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace

import numpy as np

from .cell_protocol import call_cell, output_sizes_of
from .nests import leaves_of, map_nest, pack_like
from .stepwise import step_by_step
from .watching import Enclosing, as_size, observing

__all__ = ["Prober", "probes_of", "with_gradients"]


def probes_of(trace):
    """Return what is to be added to the states of a layer in this run: zeros, in the order of the timesteps.

    Parameters
    ----------
    trace : LayerTrace

    Returns
    -------
    list of ndarray, shape (batch, timesteps, size)
        For each cell its states in a flat list, one cell after the other.
    """
    return [np.zeros_like(state) for cell in trace.cells or (trace,) for state in leaves_of(cell.states)]


def with_gradients(trace, gradients):
    """Return a trace with the gradients of its states.

    Parameters
    ----------
    trace : LayerTrace
    gradients : list of ndarray
        Those of `probes_of`.
    """
    if trace.cells:
        given, cells = iter(gradients), []
        for cell in trace.cells:
            cells.append(with_gradients(cell, [next(given) for _ in leaves_of(cell.states)]))
        # A stack's states are those of its cells, in an order of its own.
        places = {}
        for cell in cells:
            pairs = zip(leaves_of(cell.states), leaves_of(cell.state_gradients), strict=True)
            places.update((id(state), gradient) for state, gradient in pairs)
        nested = map_nest(lambda state: places[id(state)], trace.states)
        return replace(trace, cells=tuple(cells), state_gradients=nested)
    in_steps = [g[:, trace.timesteps] for g in gradients]
    if trace.mask is not None:
        for g in in_steps:
            g[~trace.mask] = np.nan
    return replace(trace, state_gradients=pack_like(trace.states, in_steps))


class Prober:
    """Runs recurrent layers on symbols, with something added to their states; an `observer`.

    Parameters
    ----------
    runs : list of (layer, LayerTrace)
        The runs that will come, in order, with what they did on arrays.
    probes : list of list of Tensor
        `probes_of` each.
    """

    of_symbols = True

    def __init__(self, runs, probes):
        self._given = defaultdict(deque)
        for (layer, trace), own in zip(runs, probes, strict=True):
            self._given[id(layer)].append((trace, own))

    def run(self, layer, run):
        """Run a layer; see `observer`."""
        trace, probes = self._given[id(layer)].popleft()
        if run.states is None:
            run = replace(run, states=layer._made_states(run.sequences))
        places = [_output_among_states(cell) for cell in trace.cells or (trace,)]
        with observing(None):
            return step_by_step(
                replace(run, cell=_Probed(run.cell, places), sequences=(run.sequences, tuple(probes))), layer
            )


def _output_among_states(trace):
    """Return which state is the output of a cell, None if none is: then what is added to a state is added to both."""
    outputs = leaves_of(trace.outputs)
    counts = slice(None) if trace.mask is None else trace.mask
    if len(outputs) == 1:
        for place, state in enumerate(leaves_of(trace.states)):
            if state.shape == outputs[0].shape and np.array_equal(state[counts], outputs[0][counts], equal_nan=True):
                return place
    return None


class _Probed(Enclosing):
    """A cell that gets, beside its inputs, what is to be added to its new states."""

    def __init__(self, cell, places):
        super().__init__(cell)
        self.places = places
        self.output_size = map_nest(as_size, output_sizes_of(cell))

    def call(self, inputs, states, training=False, constants=None):
        inputs, probes = inputs
        probes, parts = iter(probes), []
        for inner, own, place in zip(self.levels, self.states_by_level(states), self.places, strict=True):
            out, new = call_cell(inner, inputs, own, training, constants)
            new = [state + next(probes) for state in new]
            inputs = out = out if place is None else new[place]
            parts.append(new)
        return out, self.new_states(parts)
