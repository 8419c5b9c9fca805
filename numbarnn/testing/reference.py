"""Recurrent layers as naive loops, straight from their equations: slow, short, and obviously right.

They take the array module, so that the same lines give values on NumPy and exact gradients on `autograd.numpy`.
"""

import math
from functools import partial

__all__ = ["ACTIVATIONS", "lstm"]


def _elu(np, x):
    return np.where(x > 0, x, np.expm1(np.where(x > 0, 0.0, x)))


def _erf(np, x):
    if np.__name__.startswith("autograd"):
        from autograd.scipy.special import erf
    else:
        from scipy.special import erf
    return erf(x)


# Keras 3's definitions, written so that no value overflows on the way.
ACTIVATIONS = {
    "linear": lambda np, x: x,
    "tanh": lambda np, x: np.tanh(x),
    "sigmoid": lambda np, x: 0.5 * (np.tanh(0.5 * x) + 1.0),
    "hard_sigmoid": lambda np, x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "relu": lambda np, x: np.where(x > 0, x, 0.0 * x),
    "softsign": lambda np, x: x / (1.0 + np.abs(x)),
    "softplus": lambda np, x: np.logaddexp(x, 0.0),
    "elu": _elu,
    "selu": lambda np, x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * _elu(np, x)),
    "silu": lambda np, x: x * 0.5 * (np.tanh(0.5 * x) + 1.0),
    "gelu": lambda np, x: 0.5 * x * (1.0 + _erf(np, x / math.sqrt(2.0))),
    "exponential": lambda np, x: np.exp(x),
}


def lstm(
    np,
    x,
    weights,
    states,
    *,
    mask=None,
    reset=None,
    x_factors=None,
    h_factors=None,
    activation="tanh",
    recurrent_activation="sigmoid",
    go_backwards=False,
    zero_output_for_mask=False,
):
    """Run an LSTM over a batch of sequences.

    Parameters
    ----------
    np : module
        `numpy` or `autograd.numpy`.
    x : ndarray of shape (B, T, I)
        The inputs.
    weights : sequence of ndarray
        Kernel (I, 4 H), recurrent kernel (H, 4 H) and, if there is one, bias (4 H,); gates in the order i, f, c, o.
    states : pair of ndarray of shape (B, H)
        Output and cell state before the first step.
    mask : ndarray of bool, shape (B, T), optional
        False where a step does not count: states are carried over it, and the output repeats.
    reset : ndarray of bool, shape (B, T), optional
        True where the states, and what a masked step would repeat, are set to zero before the step.
    x_factors, h_factors : ndarray of shape (M, B, I), (M, B, H), optional
        Dropout factors of the inputs and of h before the recurrent product: M = 1 for all gates, or 4 for each gate.
    activation, recurrent_activation : str or callable
        Names in `ACTIVATIONS`, or functions like those there.
    go_backwards : bool
        Process the last step first; outputs come in the order of processing.
    zero_output_for_mask : bool
        The output of a masked step is zero instead of a repetition.

    Returns
    -------
    (outputs, [h, c])
        `outputs` of shape (B, T, H), and the states after the last step, each (B, H).
    """
    g, s = (partial(ACTIVATIONS.get(given, given), np) for given in (activation, recurrent_activation))
    kernel, recurrent_kernel, *bias = weights
    h, c = states
    shown = 0.0 * h  # what a masked step repeats: zeros before the first step that counts, whatever the initial state
    outputs = []
    order = range(x.shape[1])
    for t in reversed(order) if go_backwards else order:
        if reset is not None:
            h, c, shown = (np.where(reset[:, t : t + 1], 0.0 * v, v) for v in (h, c, shown))
        z = _gates(np, x[:, t], kernel, x_factors) + _gates(np, h, recurrent_kernel, h_factors)
        if bias:
            z = z + bias[0]
        zi, zf, zc, zo = np.split(z, 4, axis=1)
        new_c = s(zf) * c + s(zi) * g(zc)
        new_h = s(zo) * g(new_c)
        counts = np.ones((len(x), 1), dtype=bool) if mask is None else mask[:, t : t + 1]
        shown = np.where(counts, new_h, 0.0 * shown if zero_output_for_mask else shown)
        h, c = np.where(counts, new_h, h), np.where(counts, new_c, c)
        outputs.append(shown)
    return np.stack(outputs, axis=1), [h, c]


def _gates(np, left, weights, factors):
    """The product of one gate after the other, each with its own copy of the left side if there are four."""
    if factors is None:
        return np.dot(left, weights)
    gates = np.split(weights, 4, axis=1)
    return np.concatenate([np.dot(left * factors[k % len(factors)], gate) for k, gate in enumerate(gates)], axis=1)
