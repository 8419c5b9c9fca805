"""Recurrent layers as the operators RNN, GRU and LSTM."""

from __future__ import annotations

import numpy as np

from ... import activations, cells
from .builder import Unsupported, ints

__all__ = ["is_known", "recurrent"]

# Operator, and its gates as places in ours.
_OPERATORS = {
    cells.SIMPLE_RNN: ("RNN", (0,)),
    cells.GRU: ("GRU", (0, 1, 2)),
    cells.GRU_RESET_BEFORE: ("GRU", (0, 1, 2)),
    cells.LSTM: ("LSTM", (0, 3, 1, 2)),
}
# Name of the activation: that of ONNX, and its alpha and beta. (The recurrent operators take no others.)
_ACTIVATIONS = {
    "tanh": ("Tanh", (), ()),
    "sigmoid": ("Sigmoid", (), ()),
    "relu": ("Relu", (), ()),
    "softsign": ("Softsign", (), ()),
    "softplus": ("Softplus", (), ()),
    "linear": ("Affine", (1.0,), (0.0,)),
    "elu": ("Elu", (1.0,), ()),
    "hard_sigmoid": ("HardSigmoid", (1 / 6,), (0.5,)),
}


def is_known(cell):
    """Say whether the recurrent operators compute what a cell does; onnxruntime has them in float32 only."""
    known = [getattr(activations, name) for name in _ACTIVATIONS]
    own = [a for a in (cell.activation, cell.recurrent_activation) if a is not None]
    return all(any(a is b for b in known) for a in own) and cell.compute_dtype == "float32"


def recurrent(b, node, inputs):
    """Add all passes of a node ``fused_rnn``.

    Parameters
    ----------
    b : Builder
    node : Node
    inputs : list of str, array or None

    Returns
    -------
    list of str
    """
    outputs, place = [], 0
    for one in node.attrs["passes"]:
        outputs += _pass(b, one, *inputs[place : place + one.arrays])
        place += one.arrays
    return outputs


def _pass(b, one, mask, reset, x, kernel, recurrent_kernel, bias, x_factors, h_factors, *states):
    if reset is not None:
        raise Unsupported("`reset=` within a sequence has no counterpart in ONNX's recurrent operators")
    if any(isinstance(weight, str) for weight in (kernel, recurrent_kernel, bias)):
        raise Unsupported("ONNX's recurrent operators take constant weights; here some are computed from the inputs")
    operator, options = _operator(one, recurrent_kernel.shape[0])
    weights = _weights(one, kernel, recurrent_kernel, bias)
    owner = one.variables[0].path.rpartition("/")[0]
    for letter, array in zip("WRB", weights, strict=True):
        b.hint(array, f"{owner}/{letter}")
    first = [b("Unsqueeze", state, ints([0])) for state in states] or [None] * one.cell.states

    def run(x, lengths, direction):
        count = 1 + one.cell.states
        out, *last = b(
            operator,
            b.transpose(x, (1, 0, 2)),
            *weights,
            lengths,
            *first,
            outputs=count,
            direction=direction,
            **options,
        )
        out = b.transpose(b("Squeeze", out, ints([1])), (1, 0, 2))
        return out, [b("Squeeze", state, ints([0])) for state in last]

    if mask is None:
        out, last = run(x, None, "reverse" if one.backwards else "forward")
        if one.backwards:
            out = b.flip(out, 1)  # in the order of the steps
        return [out if one.return_sequences else last[0], *last]
    if one.backwards:
        x, mask = b.flip(x, 1), b.flip(mask, 1)
    return _masked(b, one, x, mask, states, np.zeros((), kernel.dtype), run)


def _masked(b, one, x, mask, states, zero, run):
    """Run over the timesteps that count, moved to the front, and put their outputs where they belong."""
    number = b.cast(mask, bool, np.int64)
    so_far = b("CumSum", number, np.array(1, np.int64))  # timesteps that count, up to this one
    lengths = b("ReduceSum", number, ints([1]), keepdims=0)
    timesteps = b.shape(x, 1, 2)
    # Places in rising order of those that count: the earlier, the larger the key.
    key = b("Mul", number, b("Sub", timesteps, b("Range", np.array(0), b("Squeeze", timesteps), np.array(1))))
    _, places = b("TopK", key, timesteps, outputs=2, axis=1)
    front = b("GatherElements", x, b("Expand", b("Unsqueeze", places, ints([2])), b.shape(x)), axis=1)
    out, last = run(front, b("Cast", lengths, to=b.type_of(np.int32)), "forward")

    some = b("Greater", lengths, np.array(0))
    start = states or [zero] * len(last)
    after = [b("Where", b("Unsqueeze", some, ints([1])), *pair) for pair in zip(last, start, strict=True)]
    if one.return_sequences:
        place = b("Max", b("Sub", so_far, np.array(1)), np.array(0))
        out = b("GatherElements", out, b("Expand", b("Unsqueeze", place, ints([2])), b.shape(out)), axis=1)
        shown = mask if one.zero_output else b("Greater", so_far, np.array(0))
        out = b("Where", b("Unsqueeze", shown, ints([2])), out, zero)
    else:
        shown = some
        if one.zero_output:
            shown = b("Squeeze", b("Slice", mask, ints([-1]), ints([np.iinfo(np.int64).max]), ints([1])), ints([1]))
        out = b("Where", b("Unsqueeze", shown, ints([1])), last[0], zero)
    return [out, *after]


def _operator(one, units):
    """Return the operator and its attributes."""
    operator, _ = _OPERATORS[one.cell]
    activation, recurrent_activation = one.activations
    names = {"RNN": [activation], "GRU": [recurrent_activation, activation]}.get(
        operator, [recurrent_activation, activation, activation]
    )
    found, alpha, beta = zip(*(_ACTIVATIONS[name] for name in names), strict=True)
    options = {"hidden_size": units, "activations": list(found)}
    for key, values in (("activation_alpha", alpha), ("activation_beta", beta)):
        values = [v for each in values for v in each]
        if values:
            options[key] = values
    if one.cell is cells.GRU:
        options["linear_before_reset"] = 1
    return operator, options


def _weights(one, kernel, recurrent_kernel, bias):
    """Return W, R and B: (1, gates * units, ...)."""
    _, gates = _OPERATORS[one.cell]

    def in_order(array):
        parts = np.split(array, len(gates), axis=-1)
        return np.concatenate([parts[gate] for gate in gates], axis=-1)

    weights = [in_order(kernel).T[None], in_order(recurrent_kernel).T[None]]
    if bias is None:
        return [*weights, None]
    both = list(bias) if bias.ndim == 2 else [bias, np.zeros_like(bias)]
    return [*weights, np.concatenate([in_order(each) for each in both])[None]]
