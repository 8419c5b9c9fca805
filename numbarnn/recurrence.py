"""A recurrent layer's pass over a batch of sequences: validate, allocate, pack, launch the cell's kernels, and back.

The one place where the device is chosen (the CPU so far).  Layers above turn masks, resets and options into the
arrays of `numbarnn.cells.contract`; kernels below see nothing else.
"""

import os
import threading
from collections import Counter

import numpy as np

from numbarnn import gemm
from numbarnn.cells.contract import COUNTS, CUT, SILENT
from numbarnn.cells.products import weight_gradients
from numbarnn.jit import chunks, kernel_array, parallel_for
from numbarnn.simd_math import ACTIVATIONS

__all__ = ["PackedWeights", "Pullback", "kernel_calls", "run", "step_flags"]

#: Kernel calls so far, by (cell, pass): one for each thread's chunk of the batch.  For tests and curious users.
kernel_calls = Counter()

_GRAIN = 1 << 21  # multiply-adds worth a thread of their own: some 30 microseconds


class _Spares:
    """Memory of finished passes, kept for the next of the same shape: fresh pages cost a tenth of a pass.

    Parameters
    ----------
    limit : int
        Bytes kept at most; the oldest go first.
    count : int
        Arrays kept at most: sequences of ever new lengths would leave thousands to search through.
    """

    def __init__(self, limit, count):
        self._limit, self._count = limit, count
        self._lock = threading.Lock()
        self._arrays = []

    def take(self, shape, dtype):
        """Return an uninitialised array."""
        dtype = np.dtype(dtype)
        with self._lock:
            for place in range(len(self._arrays) - 1, -1, -1):
                array = self._arrays[place]
                if array.shape == shape and array.dtype == dtype:
                    return self._arrays.pop(place)
        return gemm.aligned_empty(shape, dtype)

    def give(self, *arrays):
        """Take arrays back that nobody uses any more."""
        with self._lock:
            self._arrays += [array for array in arrays if array.nbytes <= self._limit]
            del self._arrays[: -self._count]
            while sum(array.nbytes for array in self._arrays) > self._limit:
                del self._arrays[0]

    def renew_lock(self):
        """After a fork another thread of the parent may hold it."""
        self._lock = threading.Lock()


_spares = _Spares(1 << 27, 64)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_spares.renew_lock)


class PackedWeights:
    """The weights of one layer with their packed forms, each made when it is first needed.

    Parameters
    ----------
    kernel, recurrent_kernel : ndarray of shape (I, G*H), (H, G*H)
        float32 or float64.
    bias : ndarray of shape (G*H,) or None
        None stands for zeros.
    gates : int
        G.
    """

    def __init__(self, kernel, recurrent_kernel, bias, gates):
        self.kernel = kernel
        self.recurrent_kernel = recurrent_kernel
        self.bias = np.zeros(kernel.shape[1], kernel.dtype) if bias is None else bias
        self.gates = gates
        self._forward = None
        self._backward = None

    def forward(self):
        """Kernel, recurrent kernel and bias as `forward` takes them."""
        if self._forward is None:
            self._forward = gemm.pack_cell(self.kernel, self.recurrent_kernel, self.bias, self.gates)
        return self._forward

    def backward(self):
        """Kernel and recurrent kernel as `backward` takes them."""
        if self._backward is None:
            self._backward = gemm.pack_cell_transposed(self.kernel, self.recurrent_kernel)
        return self._backward


def step_flags(batch, timesteps, mask=None, reset=None, zero_output=False, backwards=False):
    """What happens at each step and row, as the kernels read it.

    Parameters
    ----------
    batch, timesteps : int
        B and T.
    mask : ndarray of bool, shape (B, T), optional
        True where the timestep counts.
    reset : ndarray of bool, shape (B, T), optional
        True where the states are set to zero before the timestep.
    zero_output : bool
        Emit zeros at masked timesteps; else the last output again (zeros before the first timestep that counts).
    backwards : bool
        Steps run from the last timestep to the first.

    Returns
    -------
    ndarray of uint8, shape (T, B)
        In the order of the steps.

    Raises
    ------
    TypeError, ValueError
        For a mask or resets that are not bool or not of shape (B, T).
    """
    for name, given in (("mask", mask), ("reset", reset)):
        if given is None:
            continue
        if not isinstance(given, np.ndarray) or given.dtype != bool:
            came = getattr(given, "dtype", type(given).__name__)
            raise TypeError(f"`{name}` must be a NumPy array of bool; got {came}")
        if given.shape != (batch, timesteps):
            raise ValueError(f"`{name}` must have shape {(batch, timesteps)} as the inputs have; got {given.shape}")
    if mask is None and reset is None:
        return np.full((timesteps, batch), COUNTS, np.uint8)
    order = slice(None, None, -1) if backwards else slice(None)
    if mask is None:
        flags = np.full((timesteps, batch), COUNTS, np.uint8)
    else:
        counts = mask.T[order]
        silent = ~counts if zero_output else ~np.logical_or.accumulate(counts, axis=0)
        flags = counts.astype(np.uint8) * np.uint8(COUNTS) + silent.astype(np.uint8) * np.uint8(SILENT)
    if reset is not None:
        flags |= reset.T[order].astype(np.uint8) * np.uint8(CUT)
    return np.ascontiguousarray(flags)


def _check(name, array, shape, dtype):
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}; got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}")
    return kernel_array(array)


def _check_factors(name, factors, gates, shape, dtype):
    copies = len(factors) if np.ndim(factors) == 3 else -1
    if copies not in (1, gates):
        raise ValueError(f"{name} must have shape (1 or {gates}, {shape[0]}, {shape[1]}); got {np.shape(factors)}")
    return _check(name, factors, (copies, *shape), dtype)


def _codes(cell, activation, recurrent_activation):
    """Run-time codes of an activation pair: None for the cell's own."""
    codes = []
    for argument, name in (("activation", activation), ("recurrent_activation", recurrent_activation)):
        if name not in ACTIVATIONS:
            raise ValueError(f"{argument} must be one of {sorted(ACTIVATIONS)}; got {name!r}")
        codes.append(ACTIVATIONS[name].code)
    own = (cell.default_activation, cell.default_recurrent_activation)
    return (None, None) if (activation, recurrent_activation) == own else tuple(codes)


def _live(flags):
    """For each step, how many leading rows hold all those that count."""
    numbers = np.arange(1, flags.shape[1] + 1, dtype=np.int64)
    return np.max((flags & COUNTS) * numbers, axis=1, initial=0)


def run(
    cell,
    x,
    weights,
    initial_states,
    *,
    flags=None,
    x_factors=None,
    h_factors=None,
    backwards=False,
    return_sequences=True,
    activation=None,
    recurrent_activation=None,
    save=False,
):
    """Run a cell over a batch of sequences.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
        Its equations and kernels.
    x : ndarray of shape (B, T, I), float32 or float64
        Inputs; T at least 1.
    weights : PackedWeights
        Of the dtype of `x`.
    initial_states : sequence of S ndarrays of shape (B, H), or None
        First states; None stands for zeros.
    flags : ndarray of uint8, shape (T, B), optional
        From `step_flags`; default: every step counts.
    x_factors, h_factors : ndarray of shape (M, B, I), (M, B, H), optional
        Dropout factors, M = 1 or the number of gates.
    backwards : bool
        Run from the last timestep to the first.
    return_sequences : bool
        Return what is emitted at each step, or only at the last.
    activation, recurrent_activation : str, optional
        Names in `numbarnn.simd_math.ACTIVATIONS`; default: the cell's own.
    save : bool
        Keep what the gradient needs.

    Returns
    -------
    out : ndarray of shape (B, T, H) or (B, H)
        In the order of the steps.
    states : list of S ndarrays of shape (B, H)
        Those after the last step; new arrays.
    pullback : Pullback or None
        The gradient's other half, with `save`.

    Raises
    ------
    TypeError, ValueError
        For an argument whose type, dtype or shape does not fit, before anything is computed.
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float64):
        raise TypeError(f"x must be a float32 or float64 NumPy array; got {getattr(x, 'dtype', type(x).__name__)}")
    if x.ndim != 3:
        raise ValueError(f"x must have shape (batch, timesteps, inputs); got {x.shape}")
    if weights.gates != cell.gates:
        raise ValueError(f"weights must be packed for the {cell.gates} gates of {cell.name}; got {weights.gates}")
    batch, timesteps, inputs = x.shape
    if timesteps == 0:
        raise ValueError("x must have at least one timestep; got 0")
    dtype = x.dtype
    units = weights.recurrent_kernel.shape[0]
    columns = cell.gates * units
    _check("kernel", weights.kernel, (inputs, columns), dtype)
    _check("recurrent_kernel", weights.recurrent_kernel, (units, columns), dtype)
    _check("bias", weights.bias, (columns,), dtype)
    x = kernel_array(x)
    codes = _codes(
        cell,
        cell.default_activation if activation is None else activation,
        cell.default_recurrent_activation if recurrent_activation is None else recurrent_activation,
    )
    empty = _spares.take if save else gemm.aligned_empty
    work = cell.workspace(batch, timesteps, inputs, units, dtype, save, return_sequences, empty)
    if initial_states is not None:
        if len(initial_states) != cell.states:
            raise ValueError(f"initial_states must hold {cell.states} arrays; got {len(initial_states)}")
        for n, state in enumerate(initial_states):
            work.states[n, 0] = _check(f"initial_states[{n}]", state, (batch, units), dtype)
    if flags is not None:
        flags = _check("flags", flags, (timesteps, batch), np.dtype(np.uint8))
        work = work._replace(flags=flags, live=_live(flags))
    if x_factors is not None:
        work = work._replace(x_factors=_check_factors("x_factors", x_factors, cell.gates, (batch, inputs), dtype))
    if h_factors is not None:
        work = work._replace(h_factors=_check_factors("h_factors", h_factors, cell.gates, (batch, units), dtype))
    kernel, recurrent, bias = weights.forward()
    if batch:
        grain = max(1, _GRAIN // (timesteps * (inputs + units) * columns))
        kernel_calls[cell.name, "forward"] += len(chunks(batch, grain))
        parallel_for(
            cell.forward, batch, grain, x, kernel, recurrent, bias, *work, 0, timesteps, backwards, *codes
        )  # fmt: skip
    last = work.states[:, timesteps if save else timesteps % 2]
    final_states = [state.copy() for state in last]
    out = work.out
    if not return_sequences:
        out = last[0].copy()
        if flags is not None:
            out[flags[-1] & SILENT != 0] = 0
    return out, final_states, Pullback(cell, x, weights, work, backwards, codes) if save else None


class Pullback:
    """The way back through one `run`: gradients of its results to gradients of its arguments.  Good for one call.

    It reads the weights' arrays again: what is assigned to them between `run` and here is not undone.
    """

    def __init__(self, cell, x, weights, work, backwards, codes):
        self._cell, self._x, self._weights, self._work = cell, x, weights, work
        self._backwards, self._codes = backwards, codes

    def __call__(self, d_out=None, d_states=None, need_x=True, need_weights=True):
        """Gradients of the inputs, the weights and the initial states.

        Parameters
        ----------
        d_out : ndarray of the shape of `out`, optional
            Gradient of what was emitted; default: zeros.
        d_states : sequence of S ndarrays of shape (B, H) or None, optional
            Gradient of the last states; default: zeros.
        need_x, need_weights : bool
            What is not needed is not computed.

        Returns
        -------
        d_x : ndarray of shape (B, T, I), or None
        d_weights : tuple of ndarrays (I, G*H), (H, G*H), (G*H,), or None
            Of kernel, recurrent kernel and bias.
        d_initial : list of S ndarrays of shape (B, H)

        Raises
        ------
        RuntimeError
            When called a second time: the tape is overwritten by the first.
        TypeError, ValueError
            For a gradient whose type, dtype or shape does not fit, before anything is computed.
        """
        if self._work is None:
            raise RuntimeError("a pullback can be called once: its tape has been overwritten by the first call")
        cell, x, work = self._cell, self._x, self._work
        batch, timesteps, inputs = x.shape
        units, dtype = work.states.shape[3], x.dtype
        columns = cell.gates * units
        if d_states is not None and len(d_states) != cell.states:
            raise ValueError(f"d_states must hold {cell.states} arrays; got {len(d_states)}")
        d_last = np.zeros((cell.states, batch, units), dtype)
        for n, gradient in enumerate(d_states or ()):
            if gradient is not None:
                d_last[n] = _check(f"d_states[{n}]", gradient, (batch, units), dtype)
        sequence = np.empty((batch, 0, units), dtype)
        if d_out is not None:
            if work.out.shape[1]:
                sequence = _check("d_out", d_out, (batch, timesteps, units), dtype)
            else:
                heard = work.flags[-1] & SILENT == 0
                d_last[0][heard] += _check("d_out", d_out, (batch, units), dtype)[heard]
        self._work = None
        d_x = np.zeros((batch, timesteps if need_x else 0, inputs), dtype)
        kernel, recurrent = self._weights.backward()
        if batch:
            grain = max(1, _GRAIN // (timesteps * (inputs + units) * columns))
            kernel_calls[cell.name, "backward"] += len(chunks(batch, grain))
            parallel_for(
                cell.backward, batch, grain, sequence, d_last, kernel, recurrent, work.states, work.flags, work.live,
                work.x_factors, work.h_factors, work.tape, d_x, 0, timesteps, self._backwards, *self._codes,
            )  # fmt: skip
        d_weights = self._weight_gradients(work) if need_weights else None
        _spares.give(work.states, work.tape)
        return d_x if need_x else None, d_weights, list(d_last)

    def _weight_gradients(self, work):
        x = self._x
        batch, timesteps, inputs = x.shape
        units, columns = work.states.shape[3], work.tape.shape[2]
        gradients = tuple(np.zeros(shape, x.dtype) for shape in ((inputs, columns), (units, columns), (columns,)))
        if batch:
            splits = max(1, work.x_factors.shape[0], work.h_factors.shape[0])
            panels = splits * -(-(columns // splits) // gemm.gradient_columns(x.dtype))
            depth = batch * timesteps
            # Threads share the columns, or the rows when there are too few panels of columns.
            by_rows = len(chunks(panels, 1)) < len(chunks(batch * timesteps * columns * (inputs + units), _GRAIN))
            if by_rows:
                n, grain = inputs + units, max(6, _GRAIN // (depth * columns))
            else:
                n, grain = panels, max(1, _GRAIN // (depth * (inputs + units) * (columns // panels)))
            kernel_calls[self._cell.name, "weight_gradients"] += len(chunks(n, grain))
            parallel_for(
                weight_gradients, n, grain, by_rows, x, work.states, work.flags, work.live, work.x_factors,
                work.h_factors, work.tape, 0, timesteps, self._backwards, *gradients,
            )  # fmt: skip
        return gradients
