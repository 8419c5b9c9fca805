"""What passes over sequences are given, checked before anything is computed: the same on every device."""

from typing import NamedTuple

import numpy as np

from numbarnn.cells.contract import FLOATS
from numbarnn.simd_math import ACTIVATIONS

__all__ = ["Arguments", "activation_codes", "check_arguments", "check_gradients"]


class Arguments(NamedTuple):
    """The arguments of one `run`, checked, as kernels take them."""

    packed: tuple  # the weights
    states: list | None
    given: dict  # flags and dropout factors, those that there are
    codes: tuple  # of the activations


def check_arguments(
    kind, cell, x, weights, initial_states, flags, x_factors, h_factors, activation, recurrent_activation
):  # fmt: skip
    """Check what a pass takes.

    Parameters
    ----------
    kind : class
        Of the pass.  Its ``xp()`` is the array module of the device, ``check(name, array, shape, dtype)`` refuses an
        array or returns it as kernels take it, ``packed(weights)`` returns the weights as kernels take them, and the
        input kernel.
    cell, x, ...
        As `numbarnn.recurrence.run` takes them.

    Returns
    -------
    Arguments

    Raises
    ------
    TypeError, ValueError
        For an argument whose type, dtype or shape does not fit.
    """
    if not isinstance(x, kind.xp().ndarray) or x.dtype not in FLOATS:
        raise TypeError(f"x must be a float32 or float64 NumPy array; got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 3:
        raise ValueError(f"x must have shape (batch, timesteps, inputs); got {x.shape}")
    batch, timesteps, inputs = x.shape
    if timesteps == 0:
        raise ValueError("x must have at least one timestep; got 0")
    dtype = x.dtype
    packed, kernel = kind.packed(weights)  # refused here where they do not fit each other
    units = weights.recurrent_kernel.shape[0]
    kind.check("kernel", kernel, (inputs, cell.gates * units), dtype)
    codes = activation_codes(cell, activation, recurrent_activation)
    if initial_states is not None:
        if len(initial_states) != cell.states:
            raise ValueError(f"initial_states must hold {cell.states} arrays; got {len(initial_states)}")
        initial_states = [
            kind.check(f"initial_states[{n}]", state, (batch, units), dtype) for n, state in enumerate(initial_states)
        ]
    given = {}
    if flags is not None:
        given["flags"] = kind.check("flags", flags, (timesteps, batch), np.dtype(np.uint8))
    for name, factors, width in (("x_factors", x_factors, inputs), ("h_factors", h_factors, units)):
        if factors is not None:
            given[name] = _check_factors(kind.check, name, factors, cell.gates, (batch, width), dtype)
    return Arguments(packed, initial_states, given, codes)


def _check_factors(check, name, factors, gates, shape, dtype):
    copies = len(factors) if np.ndim(factors) == 3 else -1
    if copies not in (1, gates):
        counts = "1" if gates == 1 else f"1 or {gates}"
        raise ValueError(f"{name} must have shape ({counts}, {shape[0]}, {shape[1]}); got {np.shape(factors)}")
    return check(name, factors, (copies, *shape), dtype)


def activation_codes(cell, activation, recurrent_activation):
    """Run-time codes of the activations: None for the cell's own."""
    own = cell.default_activation, cell.default_recurrent_activation
    given = (
        own[0] if activation is None else activation,
        own[1] if recurrent_activation is None else recurrent_activation,
    )
    if given == own:
        return None, None
    for argument, name, default in zip(("activation", "recurrent_activation"), given, own, strict=True):
        if name not in ACTIVATIONS and not name is default is None:
            raise ValueError(f"{argument} must be one of {sorted(ACTIVATIONS)}; got {name!r}")
    if own[1] is None and given[0] == own[0]:
        return None, None
    return tuple(0 if name is None else ACTIVATIONS[name].code for name in given)


def check_gradients(forward, d_out, d_states, need_weights, d_weights):
    """Check what a pass takes back.

    Returns
    -------
    d_out : array of shape (B, T, H)
        (B, 0, H) where there is none, or only that of the last output.
    d_states : array of shape (S, B, H)
        New.
    d_weights : tuple of arrays or None
        The sums so far: `d_weights`, or zeros.
    """
    cell, xp, dtype = forward.cell, forward.xp(), forward.x.dtype
    batch, timesteps, inputs = forward.x.shape
    units = forward.weights.recurrent_kernel.shape[0]
    if d_states is not None and len(d_states) != cell.states:
        raise ValueError(f"d_states must hold {cell.states} arrays; got {len(d_states)}")
    d_last = xp.zeros((cell.states, batch, units), dtype)
    for n, gradient in enumerate(() if d_states is None else d_states):
        if gradient is not None:
            d_last[n] = forward.check(f"d_states[{n}]", gradient, (batch, units), dtype)
    d_sequence = xp.empty((batch, 0, units), dtype)
    if d_out is not None and forward.return_sequences:
        d_sequence = forward.check("d_out", d_out, (batch, timesteps, units), dtype)
    elif d_out is not None:
        d_out = forward.check("d_out", d_out, (batch, units), dtype)
        if forward.silent is not None:
            d_out = xp.where(forward.silent[:, None], xp.zeros((), dtype), d_out)
        d_last[0] += d_out
    if need_weights and d_weights is None:
        columns = cell.gates * units
        shapes = (inputs, columns), (units, columns), cell.bias_shape(units)
        d_weights = tuple(xp.zeros(shape, dtype) for shape in shapes)
    return d_sequence, d_last, d_weights
