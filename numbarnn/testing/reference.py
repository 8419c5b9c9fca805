"""Recurrent layers as naive loops, straight from their equations: slow, short, and obviously right.

They take the array module, so that the same lines give values on NumPy and exact gradients on `autograd.numpy`.
"""

import math

__all__ = ["ACTIVATIONS", "lstm"]


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
    "elu": lambda np, x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
    "selu": lambda np, x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0.0))),
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
    activation, recurrent_activation : str
        Names in `ACTIVATIONS`.
    go_backwards : bool
        Process the last step first; outputs come in the order of processing.
    zero_output_for_mask : bool
        The output of a masked step is zero instead of a repetition.

    Returns
    -------
    (outputs, [h, c])
        `outputs` of shape (B, T, H), and the states after the last step, each (B, H).
    """
    g, s = (lambda z, name=name: ACTIVATIONS[name](np, z) for name in (activation, recurrent_activation))
    kernel, recurrent_kernel, *bias = weights
    h, c = states
    shown = 0.0 * h  # what a masked step repeats: zeros before the first step that counts, whatever the initial state
    outputs = []
    order = range(x.shape[1])
    for t in reversed(order) if go_backwards else order:
        z = np.dot(x[:, t], kernel) + np.dot(h, recurrent_kernel)
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
