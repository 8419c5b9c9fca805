"""Activations inside a cell: the cell's own pair, or any other by its run-time code.

``code is None`` stands for the default (sigmoid for a gate, tanh for a candidate): Numba drops the other branch, so
that the default kernel holds no choice.  The tape keeps of an activation what its derivative needs: its value, or its
input.
"""

from numbarnn.jit import device
from numbarnn.simd import fma, like
from numbarnn.simd_math import ACTIVATIONS, activate, activation_slope, sigmoid, tanh

# The table lists the activations whose derivative needs the input last.
_FIRST_FROM_INPUT = min(info.code for info in ACTIVATIONS.values() if info.derivative_from == "input")


@device
def gate(z, code):
    """Activation of a gate."""
    return sigmoid(z) if code is None else activate(code, z)


@device
def squash(z, code):
    """Activation of a candidate or an output."""
    return tanh(z) if code is None else activate(code, z)


@device
def keep(z, value, code):
    """What the tape keeps of ``value = activation(z)``."""
    if code is None:
        return value
    return z if code >= _FIRST_FROM_INPUT else value


@device
def value_of(kept, code):
    """The activation's value from what the tape kept."""
    if code is None:
        return kept
    return activate(code, kept) if code >= _FIRST_FROM_INPUT else kept


@device
def gate_slope(kept, code):
    """Derivative of a gate's activation from what the tape kept."""
    return fma(-kept, kept, kept) if code is None else activation_slope(code, kept)


@device
def squash_slope(kept, code):
    """Derivative of a candidate's activation from what the tape kept."""
    return fma(-kept, kept, like(kept, 1.0)) if code is None else activation_slope(code, kept)
