"""A chain of layers one timestep at a time, in compiled code: `step`, and the stages that it goes through.

A stage is a named tuple of packed weights, states and `out`, the array [B, U] that it writes to; its type says what it
computes. So one function serves every chain, compiled once for each kind of chain, with the loops over time of the
cells compiled into it: what a single step does not need falls away. Axes: B rows, I inputs of the stage, U units.
Arrays are C-contiguous and, unless said, of one type, float32 or float64. Every element has the bits that the layer
gives it at that timestep of a whole sequence.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from numba import carray, types
from numba.core.errors import TypingError
from numba.extending import overload

from ..cells import gru, gru_reset_before, lstm, simple_rnn
from ..gemm import rows_product
from ..jit import INLINE, device, inlined, njit
from ..simd import advance, borrowed, clear, copy, lanes, load_n, pointer, store_n
from ..simd_math import ACTIVATIONS
from .activation import activate_row, softmax_row
from .layer_normalization import normalize_rows

__all__ = ["RECURRENT", "Activate", "Dense", "Embed", "NormalizeBatch", "NormalizeLayer", "activation_code", "step"]

_SOFTMAX = -1  # beside the codes of `ACTIVATIONS`: it is no function of single elements
_IN_ORDER = np.empty(0, np.int64)


def activation_code(name):
    """Return the code of an activation in `Activate`.

    Parameters
    ----------
    name : str
        Of `simd_math.ACTIVATIONS`, or softmax.

    Returns
    -------
    int
    """
    return _SOFTMAX if name == "softmax" else ACTIVATIONS[name].code


# ---------------------------------------------------------------------------------------------------------- the stages


def _cell_stage(name):
    stage = namedtuple(name, "kernel recurrent bias states flags room activation recurrent_activation out")
    stage.__doc__ = (
        "A cell: weights of `Cell.pack`; states [S, 2, B, U], of which slot 0 counts; flags [1, B] of uint8, all "
        "`numbarnn.cells.contract.COUNTS`; room as of `Cell.room`; codes of the activations, None for the cell's own."
    )
    return stage


LSTM, GRU, GRUResetBefore, SimpleRNN = map(_cell_stage, ("LSTM", "GRU", "GRUResetBefore", "SimpleRNN"))

#: The stage of each cell, by its name.
RECURRENT = {
    lstm.CELL.name: LSTM,
    gru.CELL.name: GRU,
    gru_reset_before.CELL.name: GRUResetBefore,
    simple_rnn.CELL.name: SimpleRNN,
}


class Dense(NamedTuple):
    """``x @ kernel + bias``: the kernel of `gemm.pack`, bias [U], or [0] if there is none."""

    kernel: np.ndarray
    bias: np.ndarray
    out: np.ndarray


class Activate(NamedTuple):
    """An activation, by its `activation_code`."""

    activation: int
    out: np.ndarray


class Embed(NamedTuple):
    """Rows of a table [V, U]; its input are ids [B] of int64."""

    table: np.ndarray
    out: np.ndarray


class NormalizeBatch(NamedTuple):
    """``(x - mean) * factor + beta``: all [U], beta [0] if there is none."""

    mean: np.ndarray
    factor: np.ndarray
    beta: np.ndarray
    out: np.ndarray


class NormalizeLayer(NamedTuple):
    """Layer normalization along the last axis: gamma, beta [U], moments [2, B] of float64 to be written."""

    gamma: np.ndarray
    beta: np.ndarray
    epsilon: float
    moments: np.ndarray
    out: np.ndarray


# ---------------------------------------------------------------------------------------------- what each of them does


@device
def _check(x, rows, columns):
    if x.shape[0] != rows or x.shape[1] != columns:
        raise ValueError("x must have the shape (batch_size, features) of the stepper")


def _recurrent(loop):
    def run(stage, x):
        kernel, recurrent, bias = borrowed(stage.kernel), borrowed(stage.recurrent), borrowed(stage.bias)
        states, out, flags = borrowed(stage.states), borrowed(stage.out), borrowed(stage.flags)
        planes, _, rows, units = states.shape
        inputs = kernel.shape[1]
        _check(x, rows, inputs)
        nothing = carray(pointer(x), (0, rows, inputs))  # no dropout, no tape
        loop(
            0, rows, carray(pointer(x), (rows, 1, inputs)), kernel, recurrent, bias, states,
            carray(pointer(out), (rows, 1, units)), flags, _IN_ORDER, nothing, nothing, nothing,
            0, 1, False, stage.activation, stage.recurrent_activation, borrowed(stage.room),
        )  # fmt: skip
        memory, plane = pointer(states), rows * units
        for n in range(planes):  # the step has written slot 1
            copy(memory, (2 * n + 1) * plane, memory, 2 * n * plane, plane)
        return out

    return run


def _dense(stage, x):
    kernel, bias, out = borrowed(stage.kernel), borrowed(stage.bias), borrowed(stage.out)
    rows, units = out.shape
    panels, depth, width = kernel.shape
    _check(x, rows, depth)
    clear(pointer(out), 0, rows * units)
    for panel in range(panels):
        target = advance(pointer(out), panel * width)
        right = advance(pointer(kernel), panel * depth * width)
        rows_product(
            pointer(x), depth, 1, rows, right, width, depth, target, units, target, units, units - panel * width
        )
    if bias.size:
        for row in range(rows):
            here = advance(pointer(out), row * units)
            for i in range(0, units, lanes(here)):
                n = units - i
                store_n(here, i, n, load_n(here, i, n) + load_n(pointer(bias), i, n))
    return out


def _activate(stage, x):
    out = borrowed(stage.out)
    rows, units = out.shape
    _check(x, rows, units)
    for row in range(rows):
        source, target = advance(pointer(x), row * units), advance(pointer(out), row * units)
        if stage.activation == _SOFTMAX:
            softmax_row(source, target, units)
        else:
            activate_row(source, target, units, stage.activation)
    return out


def _embed(stage, x):
    table, out = borrowed(stage.table), borrowed(stage.out)
    rows, units = out.shape
    if x.shape[0] != rows:
        raise ValueError("x must have the shape (batch_size,) of the stepper")
    for row in range(rows):
        if not 0 <= x[row] < table.shape[0]:
            raise IndexError("an id is not in the table of the Embedding")
    for row in range(rows):
        copy(pointer(table), x[row] * units, pointer(out), row * units, units)
    return out


def _normalize_batch(stage, x):
    mean, factor, beta = borrowed(stage.mean), borrowed(stage.factor), borrowed(stage.beta)
    out = borrowed(stage.out)
    rows, units = out.shape
    _check(x, rows, units)
    for row in range(rows):
        for i in range(units):
            value = (x[row, i] - mean[i]) * factor[i]
            out[row, i] = value + beta[i] if beta.size else value
    return out


def _normalize_layer(stage, x):
    out, moments = borrowed(stage.out), borrowed(stage.moments)
    _check(x, out.shape[0], out.shape[1])
    normalize_rows(
        0, out.shape[0], x, borrowed(stage.gamma), borrowed(stage.beta), stage.epsilon, moments[0], moments[1], out
    )
    return out


_ADVANCE = {
    LSTM: _recurrent(inlined(lstm.forward)),
    GRU: _recurrent(inlined(gru.forward)),
    GRUResetBefore: _recurrent(inlined(gru_reset_before.forward)),
    SimpleRNN: _recurrent(inlined(simple_rnn.forward)),
    Dense: _dense,
    Activate: _activate,
    Embed: _embed,
    NormalizeBatch: _normalize_batch,
    NormalizeLayer: _normalize_layer,
}


def _advance(stage, x):
    """Run one stage: return its output (B, U) for its input."""
    raise NotImplementedError("for compiled code alone")


@overload(_advance, jit_options=INLINE)
def _overload_advance(stage, x):
    return _ADVANCE.get(getattr(stage, "instance_class", None))  # of Numba's two types of named tuples


def _chain(stages, x):
    """Run stages one after the other."""
    raise NotImplementedError("for compiled code alone")


@overload(_chain, jit_options=INLINE)
def _overload_chain(stages, x):
    if len(stages) == 1:
        return lambda stages, x: _advance(stages[0], x)
    return lambda stages, x: _chain(stages[1:], _advance(stages[0], x))


def _refuse_types(stages, x, out):
    """Refuse arrays of other types than the chain's, while the caller is compiled."""
    raise NotImplementedError("for compiled code alone")


@overload(_refuse_types, jit_options=INLINE)
def _overload_refuse_types(stages, x, out):
    last = stages[-1]
    dtype = last.types[last.fields.index("out")].dtype
    for name, given in (("x", x), ("out", out)):
        ids = name == "x" and stages[0].instance_class is Embed
        fits = isinstance(given, types.Array) and given.ndim == (1 if ids else 2)
        if ids:
            fits, wanted = fits and isinstance(given.dtype, types.Integer), "ids: int64, of 1 axis"
        else:
            fits, wanted = fits and given.dtype == dtype and given.layout == "C", f"{dtype}, of 2 axes"
        if not fits:
            raise TypingError(f"f(s, x, out): {name} must be a C-contiguous array of {wanted}. Received: {given}")
    return lambda stages, x, out: None


@njit
def step(stages, x, out):
    """Run a chain for one timestep; the states go on in the stages.

    Parameters
    ----------
    stages : tuple of stages
    x : ndarray of shape (B, I), or (B,) of int64 where an `Embed` is first
    out : ndarray of shape (B, U)
        To be written.

    Raises
    ------
    ValueError
        For an `x` or `out` of another shape; nothing has changed then.
    IndexError
        For an id that is not in the table of the `Embed`; nothing has changed then.
    numba.TypingError
        While the caller is compiled, for an `x` or `out` of another type or not C-contiguous.
    """
    _refuse_types(stages, x, out)
    rows, units = borrowed(stages[-1].out).shape
    if out.shape[0] != rows or out.shape[1] != units:
        raise ValueError("out must have the shape (batch_size, units) of the stepper's output")
    result = _chain(stages, borrowed(x))
    copy(pointer(result), 0, pointer(borrowed(out)), 0, rows * units)
