"""A recurrent layer's pass over a batch of sequences: validate, allocate, pack, launch the cell's kernels, and back.

The one place where the device is chosen: what is on a GPU, or is computed where a GPU is the current device, goes to
`numbarnn.recurrence_cuda`.  Layers above turn masks, resets and options into the arrays of `numbarnn.cells.contract`;
kernels below see nothing else.
"""

import functools
import os
import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from numbarnn import cuda, devices, gemm
from numbarnn.cells.contract import COUNTS, SILENT, check_array, plain_options
from numbarnn.cells.gates import value_of
from numbarnn.cells.products import gradient_panels, weight_gradients
from numbarnn.cells.rows import mark_steps, measure_rows
from numbarnn.jit import chunks, kernel_array, parallel_for, run_chunks
from numbarnn.meeting import ALONE
from numbarnn.recurrence_arguments import activation_codes, check_arguments, check_gradients
from numbarnn.teams import run_members, team_of
from numbarnn.way_back import compile_meanwhile

__all__ = [
    "PackedWeights", "Pullback", "activation_codes", "kernel_calls", "pull_together", "run", "run_together",
    "step_flags",
]  # fmt: skip

#: Kernel calls so far, by (cell, pass): one for each thread's part of the work.  For tests and curious users.
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


_plain_options = functools.lru_cache(64)(plain_options)


class PackedWeights:
    """The weights of one layer with their packed forms, each made when it is first needed.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
    kernel, recurrent_kernel : ndarray of shape (I, G*H), (H, G*H)
        float32 or float64; on a GPU device arrays may come, too.
    bias : ndarray of shape ``cell.bias_shape(H)``, optional
        None stands for zeros.
    """

    def __init__(self, cell, kernel, recurrent_kernel, bias=None):
        self.cell = cell
        self.kernel = kernel
        self.recurrent_kernel = recurrent_kernel
        self.bias = bias
        self._forward = None
        self._backward = None
        self._on_gpu = {}

    def forward(self):
        """Kernel, recurrent kernel and bias as `forward` takes them."""
        if self._forward is None:
            self._forward = self.cell.pack(self.kernel, self.recurrent_kernel, self.bias)
        return self._forward

    def backward(self):
        """Kernel and recurrent kernel as `backward` takes them."""
        if self._backward is None:
            self._backward = self.cell.pack_back(self.kernel, self.recurrent_kernel)
        return self._backward

    def on_gpu(self):
        """The weights on the current GPU, as `numbarnn.recurrence_cuda` takes them."""
        number = cuda.current_device()
        if number not in self._on_gpu:
            from numbarnn.recurrence_cuda import DeviceWeights

            self._on_gpu[number] = DeviceWeights(self.cell, self.kernel, self.recurrent_kernel, self.bias)
        return self._on_gpu[number]


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
        In the order of the steps; on the GPU if the mask or the resets are.

    Raises
    ------
    TypeError, ValueError
        For a mask or resets that are not bool or not of shape (B, T).
    """
    if cuda.is_device_array(mask) or cuda.is_device_array(reset):
        from numbarnn.recurrence_cuda import device_step_flags

        return device_step_flags(batch, timesteps, mask, reset, zero_output, backwards)
    for name, given in (("mask", mask), ("reset", reset)):
        if given is None:
            continue
        if not isinstance(given, np.ndarray) or given.dtype != bool:
            came = getattr(given, "dtype", type(given).__name__)
            raise TypeError(f"`{name}` must be a NumPy array of bool; got {came}")
        if given.shape != (batch, timesteps):
            raise ValueError(f"`{name}` must have shape {(batch, timesteps)} as the inputs have; got {given.shape}")
    flags = np.full((timesteps, batch), COUNTS, np.uint8)
    if mask is not None or reset is not None:
        mask, reset = (np.empty((0, 0), bool) if given is None else kernel_array(given) for given in (mask, reset))
        mark_steps(mask, reset, bool(zero_output), bool(backwards), flags)
    return flags


_WORTH_SORTING = 1 / 16  # part of all steps that must be saved


def _order(flags, grain):
    """The kernel's rows: long sequences first, dealt out to the threads like cards; None where it saves too little.

    Rows that have ended (or not begun) leave the products, as far as no longer ones stand behind them.
    """
    timesteps, batch = flags.shape
    lengths = np.empty(batch, np.int64)
    measure_rows(flags, lengths)
    if batch < 2 or lengths.max() * batch - lengths.sum() < _WORTH_SORTING * timesteps * batch:
        return None
    falling = np.argsort(-lengths, kind="stable")
    hands = [stop - start for start, stop in chunks(batch, grain)]
    rounds = min(hands)  # hands differ by a row at most
    order = np.empty(batch, np.int64)
    place, left = 0, rounds * len(hands)
    for hand, size in enumerate(hands):
        order[place : place + rounds] = falling[hand : rounds * len(hands) : len(hands)]
        if size > rounds:
            order[place + rounds] = falling[left]
            left += 1
        place += size
    return order


class _Job(NamedTuple):
    """A kernel over the range of its rows or columns."""

    name: tuple[str, str]  # as in `kernel_calls`
    kernel: Callable
    n: int
    grain: int
    args: tuple


def _launch(jobs):
    """Run jobs that do not depend on each other, side by side where that pays."""
    jobs = [job for job in jobs if job.n]
    if len(jobs) == 1:
        job = jobs[0]
        parts = chunks(job.n, job.grain)
        kernel_calls[job.name] += len(parts)
        run_chunks(job.kernel, parts, job.args)
        return
    parts = [(job, *part) for job in jobs for part in chunks(job.n, job.grain)]
    parts.sort(key=lambda part: part[1] / part[0].n)  # first chunks first: each thread gets its share of every job
    for job, _, _ in parts:
        kernel_calls[job.name] += 1
    # A job smaller than its grain is not worth a thread of its own.
    parallel_for(_run_parts, len(parts), 1 if all(job.n >= job.grain for job in jobs) else len(parts), parts)


def _run_parts(start, stop, parts):
    for job, first, last in parts[start:stop]:
        job.kernel(first, last, *job.args)


def _loop(cell, direction, rows, units, grain, args):
    """The job of a loop over time: threads share the rows, or the units of all of them where there are few rows."""
    name, kernel = (cell.name, direction), getattr(cell, direction)
    meeting = team_of(cell, direction, rows, units, args[0].itemsize)
    if meeting is None:
        return _Job(name, kernel, rows, grain, (*args, 0, ALONE))
    return _Job(name, run_members, len(meeting), 1, (kernel, rows, args, meeting))


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
    checkpoint=None,
):
    """Run a cell over a batch of sequences.

    NumPy arrays are computed with on the current device (`numbarnn.devices`), and give NumPy arrays. What is on a GPU
    is computed with there, and stays there.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
        Its equations and kernels.
    x : ndarray of shape (B, T, I), float32 or float64
        Inputs; T at least 1.
    weights : PackedWeights
        Of the cell and of the dtype of `x`.
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
    checkpoint : int, optional
        Keep it only at every so many steps; on the way back the steps between are computed again, to the same bits.

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
    this = _new_pass(
        cell, x, weights, initial_states, flags=flags, x_factors=x_factors, h_factors=h_factors, backwards=backwards,
        return_sequences=return_sequences, activation=activation, recurrent_activation=recurrent_activation, save=save,
        checkpoint=checkpoint,
    )  # fmt: skip
    _run_abreast([this])
    return this.result()


def run_together(calls):
    """Run several passes that do not depend on each other; those of small batches side by side on the threads.

    Parameters
    ----------
    calls : list of (tuple, dict)
        Positional and keyword arguments of `run`.

    Returns
    -------
    list
        Of what `run` returns for each, to the last bit.
    """
    passes = [_new_pass(*args, **kwargs) for args, kwargs in calls]
    _run_abreast(passes)
    return [this.result() for this in passes]


def _run_abreast(passes):
    """Run the jobs of passes, which have to wait for each other within a pass, and not between passes."""
    if len(passes) == 1:
        for job in passes[0].jobs():
            _launch([job])
        return
    lines = [this.jobs() for this in passes]
    while lines:
        jobs = [(line, next(line, None)) for line in lines]
        lines = [line for line, job in jobs if job is not None]
        _launch([job for _, job in jobs if job is not None])


def _new_pass(cell, x, weights, initial_states, *, save=False, checkpoint=None, **options):
    if not isinstance(weights, PackedWeights):
        raise TypeError(f"weights must be PackedWeights; got {type(weights).__name__}")
    if weights.cell is not cell:
        raise ValueError(f"weights must be packed for the cell {cell.name}; got those of {weights.cell.name}")
    if checkpoint is not None and (isinstance(checkpoint, bool) or not isinstance(checkpoint, (int, np.integer))):
        raise TypeError(f"checkpoint must be a whole number of steps; got {checkpoint!r}")
    if checkpoint is not None and checkpoint < 1:
        raise ValueError(f"checkpoint must be at least 1; got {checkpoint}")
    if not save or getattr(x, "ndim", 0) != 3 or checkpoint is not None and checkpoint >= np.shape(x)[1]:
        checkpoint = None
    if cuda.is_device_array(x) or devices.gpu() is not None:
        from numbarnn.recurrence_cuda import new_pass

        return new_pass(cell, x, weights, initial_states, save=save, checkpoint=checkpoint, **options)
    if save:
        dtype = getattr(x, "dtype", None)
        compile_meanwhile(cell, dtype, options.get("activation"), options.get("recurrent_activation"))
    if checkpoint is not None:
        return LongPass(_Pass, cell, x, weights, initial_states, checkpoint, **options)
    return _Pass(cell, x, weights, initial_states, save=save, **options)


class _Pass:
    """The arguments of one `run`, checked, and the memory it needs."""

    # What a pass on another device has in the place of these, for what all of them share.
    xp = staticmethod(lambda: np)  # the module of its arrays
    check = staticmethod(check_array)

    @staticmethod
    def packed(weights):
        """Return weights as the kernels take them, and the input kernel as it was given."""
        return weights.forward(), weights.kernel

    def __init__(
        self, cell, x, weights, initial_states, flags=None, x_factors=None, h_factors=None, backwards=False,
        return_sequences=True, activation=None, recurrent_activation=None, save=False,
    ):  # fmt: skip
        self.weights_forward, initial_states, given, self.codes = check_arguments(
            _Pass, cell, x, weights, initial_states, flags, x_factors, h_factors, activation, recurrent_activation
        )
        batch, timesteps, inputs = x.shape
        dtype, units = x.dtype, weights.recurrent_kernel.shape[0]
        columns = cell.gates * units
        self.grain = max(1, _GRAIN // (timesteps * (inputs + units) * columns))
        self.order = None if flags is None else _order(given["flags"], self.grain)
        if self.order is not None:
            given = {name: np.take(array, self.order, axis=1) for name, array in given.items()}
            given["order"] = self.order
        empty = _spares.take if save else gemm.aligned_empty
        sizes = batch, timesteps, inputs, units, dtype
        self.work = cell.workspace(*sizes, save, return_sequences, empty, _plain_options(*sizes))
        if given:
            self.work = self.work._replace(**given)
        for n, state in enumerate(initial_states or ()):
            self.work.states[n, 0] = state if self.order is None else state[self.order]
        self.cell, self.x, self.weights, self.save = cell, kernel_array(x), weights, save
        self.backwards, self.return_sequences = bool(backwards), return_sequences
        # Rows whose last output is zeros.
        self.silent = None if flags is None else flags[-1] & SILENT != 0

    def jobs(self):
        batch, timesteps, _ = self.x.shape
        args = self.x, *self.weights_forward, *self.work, 0, timesteps, self.backwards, *self.codes
        units = self.work.states.shape[3]
        yield _loop(self.cell, "forward", batch, units, self.grain, (*args, None))

    def result(self):
        timesteps = self.x.shape[1]
        last = self.work.states[:, timesteps if self.save else timesteps % 2]
        states = [self.in_order(state) for state in last]
        out = self.work.out
        if not self.return_sequences:
            out = states[0].copy()
            if self.silent is not None:
                out[self.silent] = 0
        return out, states, Pullback(self) if self.save else None

    def back(self, *gradients, **wanted):
        return _BackwardPass(self, *gradients, **wanted)

    def steps(self, gate_names):
        """See `Pullback.steps`."""
        work = self.work
        states = [self.in_order(np.swapaxes(plane[1:], 0, 1)) for plane in work.states]
        skipped = self.in_order(work.flags.T & COUNTS == 0)
        return states, values_of_gates(
            self.in_order(np.swapaxes(work.tape, 0, 1)), work.states.shape[3], skipped, self.codes, gate_names
        )

    def in_order(self, array):
        """A copy of an array (B, ...) of the kernel with the data's rows."""
        if self.order is None:
            return array.copy()
        result = np.empty_like(array)
        result[self.order] = array
        return result


def values_of_gates(kept, units, skipped, codes, gate_names):
    """Values of the first gates by name, from what the tape kept (B, T, P*H); NaN at the steps (B, T) skipped."""
    gates = {}
    for number, name in enumerate(gate_names):
        gate = kept[:, :, number * units : (number + 1) * units].copy()
        gate[skipped] = np.nan  # the kernel has not written there
        gates[name] = value_of(gate, codes[0 if name == "candidate" else 1])
    return gates


class LongPass:
    """A pass of the class `kind` that saves states before each segment of its steps, and computes the rest again."""

    def __init__(
        self,
        kind,
        cell,
        x,
        weights,
        initial_states,
        checkpoint,
        flags=None,
        backwards=False,
        return_sequences=True,
        **options,
    ):
        batch, timesteps, _ = x.shape
        if flags is not None:
            flags = kind.check("flags", flags, (timesteps, batch), np.dtype(np.uint8))
        self.kind, self.xp, self.check = kind, kind.xp, kind.check
        self.cell, self.x, self.weights, self.flags = cell, x, weights, flags
        self.backwards, self.return_sequences, self.options = bool(backwards), return_sequences, options
        self.bounds = [(s, min(s + checkpoint, timesteps)) for s in range(0, timesteps, checkpoint)]
        self.first = self.segment(0, initial_states)  # which checks the other arguments
        # Before each segment, and after the last.
        units = weights.recurrent_kernel.shape[0]
        self.states = self.xp().zeros((len(self.bounds) + 1, cell.states, batch, units), x.dtype)
        for n, state in enumerate(initial_states or ()):
            self.states[0, n] = state
        self.out = None

    def times(self, number):
        """The timesteps of a segment."""
        (first, last), timesteps = self.bounds[number], self.x.shape[1]
        return slice(timesteps - last, timesteps - first) if self.backwards else slice(first, last)

    def segment(self, number, states, save=False):
        """A pass over one segment; with `save` nothing is emitted, which has been before."""
        first, last = self.bounds[number]
        flags = None if self.flags is None else self.flags[first:last]
        return self.kind(
            self.cell, self.x[:, self.times(number)], self.weights, states, flags, backwards=self.backwards,
            return_sequences=self.return_sequences and not save, save=save, **self.options,
        )  # fmt: skip

    def jobs(self):
        for number, (first, last) in enumerate(self.bounds):
            this = self.segment(number, list(self.states[number])) if number else self.first
            yield from this.jobs()
            out, states, _ = this.result()
            for n, state in enumerate(states):
                self.states[number + 1, n] = state
            if not self.return_sequences:
                self.out = out
                continue
            if self.out is None:
                self.out = self.xp().empty((len(out), self.x.shape[1], out.shape[2]), out.dtype)
            self.out[:, first:last] = out
        del self.first

    def result(self):
        out, self.out = self.out, None
        return out, [state.copy() for state in self.states[-1]], Pullback(self)

    def back(self, *gradients, **wanted):
        return _LongBackwardPass(self, *gradients, **wanted)

    def steps(self, gate_names):
        raise ValueError("`steps` needs a run that keeps all of them; this one was run with `checkpoint`")


class _LongBackwardPass:
    """The way back through a `LongPass`, segment by segment."""

    def __init__(self, forward, d_out, d_states, need_x, need_weights):
        (batch, timesteps, inputs), dtype = forward.x.shape, forward.x.dtype
        units = forward.weights.recurrent_kernel.shape[0]
        if d_out is not None:
            shape = (batch, timesteps, units) if forward.return_sequences else (batch, units)
            d_out = forward.check("d_out", d_out, shape, dtype)
        self.forward, self.d_out, self.need_x, self.need_weights = forward, d_out, need_x, need_weights
        self.d_x = forward.xp().zeros((batch, timesteps, inputs), dtype) if need_x else None
        self.d_weights, self.d_states = None, d_states
        self.last = self.segment(len(forward.bounds) - 1)  # which checks the other gradients

    def segment(self, number):
        """The backward pass of one segment, whose forward pass has yet to run."""
        forward = self.forward
        first, last = forward.bounds[number]
        d_out = self.d_out
        if d_out is not None and forward.return_sequences:
            d_out = d_out[:, first:last]
        elif last < forward.x.shape[1]:
            d_out = None  # the output is that of the last segment
        this = forward.segment(number, list(forward.states[number]), save=True)
        this.return_sequences = forward.return_sequences
        d_x = self.d_x[:, forward.times(number)] if self.need_x else None
        d_x = d_x if d_x is not None and d_x.flags.c_contiguous else None
        self.in_place = d_x is not None
        return this.back(d_out, self.d_states, self.need_x, self.need_weights, d_weights=self.d_weights, d_x=d_x)

    def jobs(self):
        for number in reversed(range(len(self.forward.bounds))):
            this = self.segment(number) if self.last is None else self.last
            self.last = None
            yield from this.forward.jobs()
            yield from this.jobs()
            d_x, self.d_weights, self.d_states = this.result()
            if self.need_x and not self.in_place:
                self.d_x[:, self.forward.times(number)] = d_x
            del this, d_x  # before the next segment takes memory

    def result(self):
        return self.d_x, self.d_weights, self.d_states


_SPENT = "a pullback can be called once: its tape has been overwritten by the first call"


class Pullback:
    """The way back through one `run`: gradients of its results to gradients of its arguments.  Good for one call.

    It reads the arrays that `run` was given again: what is assigned to weights, inputs, flags or factors between `run`
    and here is not undone.
    """

    def __init__(self, forward):
        self._forward = [forward]  # a list, from which one of several threads takes it

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
        d_weights : tuple of ndarrays, or None
            Of kernel, recurrent kernel and bias, in their shapes.
        d_initial : list of S ndarrays of shape (B, H)

        Raises
        ------
        RuntimeError
            When called a second time: the tape is overwritten by the first.
        TypeError, ValueError
            For a gradient whose type, dtype or shape does not fit, before anything is computed.
        """
        return pull_together([(self, (d_out, d_states, need_x, need_weights), {})])[0]

    def steps(self, gate_names):
        """What happened at each step, as the tape keeps it until the pullback is called.

        Parameters
        ----------
        gate_names : sequence of str
            Names of the cell's gates, in order; none for a cell whose tape keeps none.

        Returns
        -------
        states : list of S ndarrays of shape (B, T, H)
            Those after each step, in the order of the steps.
        gates : dict of str to ndarray of shape (B, T, H)
            Their values, NaN at steps that do not count: there were none.

        Raises
        ------
        RuntimeError
            After a call of the pullback, which overwrites the tape.
        ValueError
            Of a run with `checkpoint`, which keeps the states of some steps only.
        """
        for forward in self._forward:
            return forward.steps(gate_names)
        raise RuntimeError(_SPENT)

    def _begin(self, d_out=None, d_states=None, need_x=True, need_weights=True):
        """Check the gradients; a backward pass ready to run."""
        for forward in self._forward:
            return forward.back(d_out, d_states, need_x, need_weights)
        raise RuntimeError(_SPENT)

    def _spend(self):
        try:
            self._forward.pop()
        except IndexError:
            raise RuntimeError(_SPENT) from None


def pull_together(calls):
    """Call several pullbacks; those of small batches side by side on the threads.

    Parameters
    ----------
    calls : list of (Pullback, tuple, dict)
        Each with the positional and keyword arguments of its call.

    Returns
    -------
    list
        Of what each call returns, to the last bit.

    Raises
    ------
    RuntimeError, TypeError, ValueError
        As each call does, before anything is computed; also where a pullback comes twice.
    """
    if len({id(pullback) for pullback, _, _ in calls}) < len(calls):
        raise RuntimeError("a pullback can be called once: `calls` name one twice")
    passes = [pullback._begin(*args, **kwargs) for pullback, args, kwargs in calls]
    for pullback, _, _ in calls:
        pullback._spend()
    _run_abreast(passes)
    return [this.result() for this in passes]


class _BackwardPass:
    """The arguments of one call of a pullback, checked, and the memory it needs."""

    def __init__(self, forward, d_out, d_states, need_x, need_weights, d_weights=None, d_x=None):
        batch, timesteps, inputs = forward.x.shape
        self.d_out, d_last, self.d_weights = check_gradients(forward, d_out, d_states, need_weights, d_weights)
        self.forward, self.need_x, self.need_weights = forward, need_x, need_weights
        self.d_states = d_last if forward.order is None else np.ascontiguousarray(d_last[:, forward.order])
        shape = batch, timesteps if need_x else 0, inputs
        self.d_x = np.zeros(shape, forward.x.dtype) if d_x is None else d_x

    def jobs(self):
        forward, work = self.forward, self.forward.work
        batch, timesteps, _ = forward.x.shape
        args = (
            self.d_out, self.d_states, *forward.weights.backward(), work.states, work.flags, work.order,
            work.x_factors, work.h_factors, work.tape, self.d_x, 0, timesteps, forward.backwards, *forward.codes,
        )  # fmt: skip
        units = work.states.shape[3]
        yield _loop(forward.cell, "backward", batch, units, forward.grain, args)
        if self.need_weights and batch:
            yield self._weights_job()

    def _weights_job(self):
        forward, work = self.forward, self.forward.work
        batch, timesteps, inputs = forward.x.shape
        d_kernel, d_recurrent, d_bias = self.d_weights
        units, columns = d_recurrent.shape
        panels = gradient_panels(
            columns, units, forward.cell.apart, work.x_factors.shape[0], work.h_factors.shape[0],
            gemm.gradient_columns(forward.x.dtype),
        )  # fmt: skip
        depth = max(1, batch * timesteps)
        # Threads share the columns, or the rows when there are too few panels of columns.
        by_rows = len(chunks(panels, 1)) < len(chunks(depth * columns * (inputs + units), _GRAIN))
        if by_rows:
            n, grain = inputs + units, max(6, _GRAIN // (depth * columns))
        else:
            n, grain = panels, max(1, _GRAIN // (depth * (inputs + units) * (columns // panels)))
        args = (
            by_rows, forward.cell.apart, forward.x, work.states, work.flags, work.order, work.x_factors,
            work.h_factors, work.tape, 0, timesteps, forward.backwards, d_kernel, d_recurrent,
            d_bias.reshape(-1, columns),
        )  # fmt: skip
        return _Job((forward.cell.name, "weight_gradients"), weight_gradients, n, grain, args)

    def result(self):
        work = self.forward.work
        _spares.give(work.states, work.tape)
        d_initial = list(self.d_states)
        if self.forward.order is not None:
            d_initial = [self.forward.in_order(d) for d in d_initial]
        return self.d_x if self.need_x else None, self.d_weights, d_initial
