"""Recurrent layers as naive loops, straight from their equations: slow, short, and obviously right.

They take the array module, so that the same lines give values on NumPy and exact gradients on `autograd.numpy`.
"""

import math
from functools import partial

__all__ = ["ACTIVATIONS", "gru", "lstm", "simple_rnn"]


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


def simple_rnn(
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
    go_backwards=False,
    zero_output_for_mask=False,
):
    """Run a SimpleRNN over a batch of sequences: ``h' = g(x W + h U + b)``.

    Parameters
    ----------
    np : module
        `numpy` or `autograd.numpy`.
    x : ndarray of shape (B, T, I)
        The inputs.
    weights : sequence of ndarray
        Kernel (I, H), recurrent kernel (H, H) and, if there is one, bias (H,).
    states : sequence of one ndarray of shape (B, H)
        h before the first step.
    mask, reset, x_factors, h_factors, activation, go_backwards, zero_output_for_mask
        As `lstm` takes them; M = 1.

    Returns
    -------
    (outputs, [h])
        `outputs` of shape (B, T, H), and the state after the last step, (B, H).
    """
    g = partial(ACTIVATIONS.get(activation, activation), np)
    kernel, recurrent_kernel, *bias = weights

    def step(x, states):
        (h,) = states
        z = _gates(np, x, kernel, x_factors, 1) + _gates(np, h, recurrent_kernel, h_factors, 1)
        return [g(z + bias[0] if bias else z)]

    return _loop(np, step, x, states, mask, reset, go_backwards, zero_output_for_mask)


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

    ``c' = s(z_f) c + s(z_i) g(z_c)`` and ``h' = s(z_o) g(c')``, where ``z = x W + h U + b``.

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
        Dropout factors of the inputs and of h before the recurrent product: M = 1 for all gates, or one for each gate.
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

    def step(x, states):
        h, c = states
        z = _gates(np, x, kernel, x_factors, 4) + _gates(np, h, recurrent_kernel, h_factors, 4)
        zi, zf, zc, zo = np.split(z + bias[0] if bias else z, 4, axis=1)
        c = s(zf) * c + s(zi) * g(zc)
        return [s(zo) * g(c), c]

    return _loop(np, step, x, states, mask, reset, go_backwards, zero_output_for_mask)


def gru(
    np,
    x,
    weights,
    states,
    *,
    reset_after=True,
    mask=None,
    reset=None,
    x_factors=None,
    h_factors=None,
    activation="tanh",
    recurrent_activation="sigmoid",
    go_backwards=False,
    zero_output_for_mask=False,
):
    """Run a GRU over a batch of sequences.

    ``h' = z h + (1 - z) g(a)`` with the gates ``z, r = s(x W + b + h U + b')`` of their columns of the weights, and
    the candidate's ``a = x W + b + r (h U + b')``, or ``a = x W + b + (r h) U`` with the reset gate before the product.

    Parameters
    ----------
    np : module
        `numpy` or `autograd.numpy`.
    x : ndarray of shape (B, T, I)
        The inputs.
    weights : sequence of ndarray
        Kernel (I, 3 H), recurrent kernel (H, 3 H) and, if there is one, bias: (2, 3 H), b above b', with `reset_after`,
        else b alone, (3 H,), and b' is zero.  Gates in the order z, r, candidate.
    states : sequence of one ndarray of shape (B, H)
        h before the first step.
    reset_after : bool
        The reset gate multiplies the recurrent product of the candidate; else h before that product.
    mask, reset, x_factors, h_factors, activation, recurrent_activation, go_backwards, zero_output_for_mask
        As `lstm` takes them.  `h_factors` multiply h before the products only, not where z weighs it.

    Returns
    -------
    (outputs, [h])
        `outputs` of shape (B, T, H), and the state after the last step, (B, H).
    """
    g, s = (partial(ACTIVATIONS.get(given, given), np) for given in (activation, recurrent_activation))
    kernel, recurrent_kernel, *bias = weights
    b_x, b_h = (bias[0] if reset_after else (bias[0], 0.0)) if bias else (0.0, 0.0)

    def step(x, states):
        (h,) = states
        x_z, x_r, x_a = np.split(_gates(np, x, kernel, x_factors, 3) + b_x, 3, axis=1)
        h_z, h_r, h_a = np.split(_gates(np, h, recurrent_kernel, h_factors, 3) + b_h, 3, axis=1)
        z, r = s(x_z + h_z), s(x_r + h_r)
        if reset_after:
            a = x_a + r * h_a
        else:
            left = r * h if h_factors is None else r * (h * h_factors[-1])
            a = x_a + np.dot(left, np.split(recurrent_kernel, 3, axis=1)[2])
        return [z * h + (1.0 - z) * g(a)]

    return _loop(np, step, x, states, mask, reset, go_backwards, zero_output_for_mask)


def _loop(np, step, x, states, mask, reset, go_backwards, zero_output_for_mask):
    """Run ``step(x_t, states) -> new states`` over time; the first state is the output."""
    shown = 0.0 * states[0]  # what a masked step repeats: zeros before the first step that counts, whatever the state
    outputs = []
    order = range(x.shape[1])
    for t in reversed(order) if go_backwards else order:
        if reset is not None:
            shown, *states = (np.where(reset[:, t : t + 1], 0.0 * v, v) for v in (shown, *states))
        new = step(x[:, t], states)
        counts = np.ones((len(x), 1), dtype=bool) if mask is None else mask[:, t : t + 1]
        shown = np.where(counts, new[0], 0.0 * shown if zero_output_for_mask else shown)
        states = [np.where(counts, after, before) for after, before in zip(new, states, strict=True)]
        outputs.append(shown)
    return np.stack(outputs, axis=1), list(states)


def _gates(np, left, weights, factors, gates):
    """The product of one gate after the other, each with its own copy of the left side if there are as many."""
    if factors is None:
        return np.dot(left, weights)
    parts = np.split(weights, gates, axis=1)
    return np.concatenate([np.dot(left * factors[k % len(factors)], part) for k, part in enumerate(parts)], axis=1)
