"""A cell run over time as a program: what `RNN` does where there are no kernels.

The cell is called once on symbols; `numbarnn.scan` repeats what it did. Outside a trace, the whole pass is a program
too, kept until the layer or the cell changes.
"""

from dataclasses import replace

import numpy as np

from .. import graph, ops, tree
from ..graph import Spec, Tensor
from ..protocols import local
from ..scan import scan
from .base import Layer
from .cell_protocol import call_cell
from .kernel_cell import one_sequence
from .nests import leaves_of, map_nest, pack_like
from .tracking import Settings, structure_clock

__all__ = ["StepPrograms", "cells_within", "step_by_step"]

_MAX_PROGRAMS = 64  # of one layer, the oldest leave first


class StepPrograms:
    """The programs of a layer that is called on arrays, one for each signature."""

    def __init__(self):
        self._kept = {}
        self._clock = self._version = self._settings = None
        self._strangers = []  # layers that the cell calls and that are not its own

    def __reduce__(self):
        return StepPrograms, ()  # a copy traces its own

    def get(self, layer, key, trace):
        """Return a program, traced anew where the layer has changed since.

        Parameters
        ----------
        layer : RNN
        key : tuple
            All that decides about the program beside the layer.
        trace : callable
            ``trace() -> (program, what goes with it)``.
        """
        if not isinstance(layer.cell, Layer):
            return trace()  # whether its attributes have changed, nobody knows
        clock = structure_clock()
        if clock != self._clock:
            version = self._structure(layer)
            if version != self._version:
                self._kept = {}
            self._clock, self._version = clock, version
        if self._settings is not None and self._settings.changed():
            self._kept = {}
        kept = self._kept
        program = kept.get(key)
        if program is None:
            program = trace()
            own = {id(x) for x in (*layer._flatten_layers(), *self._strangers)}
            self._strangers += [x for key, x in program[0].trace.layers.items() if key not in own]
            version = self._structure(layer)
            if version != self._version:  # a layer was built on the way
                self._kept = kept = {}
                self._clock, self._version = structure_clock(), version
            while len(kept) >= _MAX_PROGRAMS:
                kept.pop(next(iter(kept)), None)
            kept[key] = program
            self._settings = Settings((*layer._flatten_layers(), *self._strangers))
        return program

    def _structure(self, layer):
        return max(x.structure_version for x in (layer, *self._strangers))


def step_by_step(run, layer):
    """Run a cell over time.

    Parameters
    ----------
    run : CellRun
        Any cell, its states in one flat list, its sequences a nest.
    layer : RNN
        Whose run it is.

    Returns
    -------
    outs : nest of array or Tensor, shape (batch, timesteps, ...) or (batch, ...)
        Nested like the cell's `output_size`; in the order of the steps.
    states : list
        The last ones, flat.
    """
    if graph.is_tracing():
        outs, states, losses = _scanned(run)
    else:
        run = replace(run, sequences=map_nest(_array, run.sequences), states=list(map(_array, run.states)))
        given = run.sequences, run.states, map_nest(_array, run.constants), run.mask, run.reset
        options = run.training, run.backwards, run.return_sequences, run.zero_output
        flat, structure = tree.flatten(given)
        specs = [None if x is None else Spec(x.shape, x.dtype) for x in flat]
        moving = len(leaves_of(run.sequences))
        timed = {*range(moving), *(len(flat) - i for i in (1, 2) if flat[-i] is not None)}
        specs = [Spec((x.shape[0], None, *x.shape[2:]), x.dtype) if i in timed else x for i, x in enumerate(specs)]
        program, owners = layer._step_programs.get(
            layer, (structure, tuple(specs), options), lambda: _whole(run, tree.unflatten(structure, specs))
        )
        outs, states, losses = program(*(x for x in flat if x is not None))
        losses = list(zip(owners, losses, strict=True))
    for owner, loss in losses:
        owner.add_loss(loss)
    return outs, states


def _array(x):
    return x if x is None else np.asarray(x)


def _whole(run, specs):
    """Return the program of a whole pass, and the layers that the losses which it returns belong to."""
    owners = []

    def whole(sequences, states, constants, mask, reset):
        given = {"sequences": sequences, "states": states, "constants": constants, "mask": mask, "reset": reset}
        outs, states, losses = _scanned(replace(run, **given))
        owners[:] = [owner for owner, _ in losses]
        return outs, states, [loss for _, loss in losses]

    return graph.trace(whole, specs, name=f"pass_of_{type(run.cell).__name__}"), owners


def _scanned(run):
    """Trace a step and have it repeated; return outputs, last states, and ``(layer, loss)`` for what was added."""
    sequences = leaves_of(run.sequences)
    first, nests = sequences[0], {}
    column = ops.expand_dims(first[(slice(None), *[0] * (len(first.shape) - 1))], -1)
    layers = [layer for cell in cells_within(run.cell) for layer in cell._flatten_layers()]
    owners = []

    def step(inputs, states):
        before = [len(layer._losses) for layer in layers]
        out, new = call_cell(run.cell, pack_like(run.sequences, inputs), states, run.training, run.constants)
        losses = []
        for layer, count in zip(layers, before, strict=True):
            for loss in layer._losses[count:]:
                owners.append(layer)
                losses.append(ops.sum(loss))
            del layer._losses[count:]
        nests["out"] = out
        return leaves_of(out), new, losses

    with one_sequence(column):
        outs, states, losses = scan(
            step,
            sequences,
            run.states,
            mask=run.mask,
            reset=run.reset,
            backwards=run.backwards,
            return_sequences=run.return_sequences,
            zero_output=run.zero_output,
            name=f"step_of_{type(run.cell).__name__}",
        )
        if any(_kept_symbol(value) for holder in (run.cell, *layers) for value in _attributes(holder)):
            # What a step leaves behind for the next one, other than its states, would be lost: a second run says so.
            count = len(owners)
            inputs = [Spec((x.shape[0], *x.shape[2:]), x.dtype) for x in sequences]
            graph.trace_within(step, (inputs, [Spec.of(x) for x in run.states]))
            del owners[count:]
    losses = [(owner, ops.sum(loss)) for owner, loss in zip(owners, losses, strict=True)]
    return pack_like(nests["out"], outs), states, losses


def _attributes(holder):
    return list(getattr(holder, "__dict__", {}).values())


def _kept_symbol(value):
    """Say whether an attribute is a symbol of a step, whose trace has ended."""
    return isinstance(value, Tensor) and value.trace is not None and value.trace.outer is local.trace


def cells_within(cell):
    """Return the layers that a cell is made of: itself, or those that a plain object holds."""
    if isinstance(cell, Layer):
        return [cell]
    held = leaves_of(_attributes(cell))
    return [value for value in held if isinstance(value, Layer)]
