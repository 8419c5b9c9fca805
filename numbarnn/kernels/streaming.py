"""A chain of layers one timestep at a time, in compiled code: `step`, and the stages that it goes through.

A stage is a named tuple of packed weights, states and `out`, the array that it writes to; its type says which layer it
stands for. So one function serves every chain, compiled once for each kind of chain. Axes: B rows, I inputs of the
stage, U units. Arrays are C-contiguous and of one type, float32 or float64. Every element has the bits that the layer
gives it at that timestep of a whole sequence.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from ..cells import gru, gru_reset_before, lstm, simple_rnn
from ..gemm import rows_product
from ..jit import njit
from ..simd import advance, clear, copy, lanes, load_n, pointer, store_n
from ..simd_math import ACTIVATIONS
from .activation import activate_row, softmax_row
from .layer_normalization import normalize_rows

__all__ = ["RECURRENT", "SOFTMAX", "Dense", "Embed", "NormalizeBatch", "NormalizeLayer", "activation_code", "step"]

SOFTMAX = -1  # beside the codes of `ACTIVATIONS`: it is no function of single elements
_LINEAR = ACTIVATIONS["linear"].code


def activation_code(name):
    """The code of an activation in `Dense`: those with kernels, and softmax; None for any other name.

    Parameters
    ----------
    name : str

    Returns
    -------
    int or None
    """
    return SOFTMAX if name == "softmax" else ACTIVATIONS[name].code if name in ACTIVATIONS else None


def _cell_stage(name):
    stage = namedtuple(name, "kernel recurrent bias states out flags order activation recurrent_activation")
    stage.__doc__ = (
        "A cell: weights of `Cell.pack`; states [S, 2, B, U], slot 0 counts; out [B, 1, U]; flags [1, B] and order [0] as "
        "in `numbarnn.cells.contract`; codes of the activations, None for the cell's own."
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
_LOOPS = {LSTM: lstm.forward, GRU: gru.forward, GRUResetBefore: gru_reset_before.forward, SimpleRNN: simple_rnn.forward}


class Dense(NamedTuple):
    """An activation of ``x @ kernel + bias``: the packed kernel, bias [U] or [0], out [B, U], `activation_code`."""

    kernel: np.ndarray
    bias: np.ndarray
    out: np.ndarray
    activation: int


class Embed(NamedTuple):
    """Rows of a table [V, U]; its input are ids [B] of int64, its out [B, U]."""

    table: np.ndarray
    out: np.ndarray


class NormalizeBatch(NamedTuple):
    """``(x - mean) * factor + beta``: all [U], beta [0] if there is none; out [B, U]."""

    mean: np.ndarray
    factor: np.ndarray
    beta: np.ndarray
    out: np.ndarray


class NormalizeLayer(NamedTuple):
    """Layer normalization along the last axis: gamma, beta [U], moments [2, B] of float64, out [B, U]."""

    gamma: np.ndarray
    beta: np.ndarray
    epsilon: float
    moments: np.ndarray
    out: np.ndarray


def _advance(stage, x):
    """Run one stage: return its output (B, U) for its input."""
    raise NotImplementedError("for compiled code alone")


@overload(_advance)
def _overload_advance(stage, x):
    kind = getattr(stage, "instance_class", None)  # of Numba's two types of named tuples
    return _recurrent(_LOOPS[kind]) if kind in _LOOPS else _ADVANCE.get(kind)


def _recurrent(loop):
    def run(stage, x):
        planes, _, rows, units = stage.states.shape
        inputs = x.shape[1]
        # No dropout, no tape: views cost less than empty arrays.
        no_x, no_h = x.reshape(1, rows, inputs)[:0], stage.out.reshape(1, rows, units)[:0]
        loop(
            0, rows, x.reshape(rows, 1, inputs), stage.kernel, stage.recurrent, stage.bias, stage.states, stage.out,
            stage.flags, stage.order, no_x, no_h, no_h, 0, 1, False, stage.activation, stage.recurrent_activation,
        )  # fmt: skip
        memory, plane = pointer(stage.states), rows * units
        for n in range(planes):  # the step has written slot 1
            copy(memory, (2 * n + 1) * plane, memory, 2 * n * plane, plane)
        return stage.out.reshape(rows, units)

    return run


def _dense(stage, x):
    rows, units = stage.out.shape
    depth, width = stage.kernel.shape[1], stage.kernel.shape[2]
    clear(pointer(stage.out), 0, rows * units)
    for panel in range(stage.kernel.shape[0]):
        target = advance(pointer(stage.out), panel * width)
        right = advance(pointer(stage.kernel), panel * depth * width)
        rows_product(
            pointer(x), depth, 1, rows, right, width, depth, target, units, target, units, units - panel * width
        )
    for row in range(rows):
        here = advance(pointer(stage.out), row * units)
        if stage.bias.size:
            for i in range(0, units, lanes(here)):
                n = units - i
                store_n(here, i, n, load_n(here, i, n) + load_n(pointer(stage.bias), i, n))
        if stage.activation == SOFTMAX:
            softmax_row(here, here, units)
        elif stage.activation != _LINEAR:
            activate_row(here, here, units, stage.activation)
    return stage.out


def _embed(stage, x):
    rows, units = stage.out.shape
    for row in range(rows):
        if not 0 <= x[row] < stage.table.shape[0]:
            raise IndexError("an id is not in the table of the Embedding")
    for row in range(rows):
        copy(pointer(stage.table), x[row] * units, pointer(stage.out), row * units, units)
    return stage.out


def _normalize_batch(stage, x):
    for row in range(x.shape[0]):
        for i in range(x.shape[1]):
            value = (x[row, i] - stage.mean[i]) * stage.factor[i]
            stage.out[row, i] = value + stage.beta[i] if stage.beta.size else value
    return stage.out


def _normalize_layer(stage, x):
    normalize_rows(
        0, x.shape[0], x, stage.gamma, stage.beta, stage.epsilon, stage.moments[0], stage.moments[1], stage.out
    )
    return stage.out


_ADVANCE = {Dense: _dense, Embed: _embed, NormalizeBatch: _normalize_batch, NormalizeLayer: _normalize_layer}


def _chain(stages, x):
    """Run stages one after the other."""
    raise NotImplementedError("for compiled code alone")


@overload(_chain)
def _overload_chain(stages, x):
    if len(stages) == 1:
        return lambda stages, x: _advance(stages[0], x)
    return lambda stages, x: _chain(stages[1:], _advance(stages[0], x))


@njit
def step(stages, x, out):
    """Run a chain for one timestep; the states go on in the stages.

    Parameters
    ----------
    stages : tuple of stages
    x : ndarray of shape (B, I), or (B,) of int64 where an `Embed` is first
    out : ndarray of shape (B, U)
        To be written.
    """
    result = _chain(stages, x)
    copy(pointer(result), 0, pointer(out), 0, out.size)
