"""A recurrent layer's pass on a GPU: what `numbarnn.recurrence` does on the CPU, for arrays that lie on a GPU.

The products with the inputs, for all steps at once, and those of the weights' gradients are cuBLAS's; between them runs
one kernel over the steps (`numbarnn.cells.bands_cuda`).  Everything is kept in the order of the steps.

Steps that do not count have no part in any sum: their gradients are zeros, their inputs and states are replaced by
zeros, and the gradients of their inputs are set to zero.  Whatever is there, NaN as well, stays there.
"""

import contextlib

import numpy as np

from numbarnn import cuda, devices
from numbarnn.cells.bands_cuda import Problem, choose_band
from numbarnn.cells.contract import COUNTS, CUT, NOTHING, OPERAND, PRODUCT, SILENT, check_array
from numbarnn.recurrence import LongPass, Pullback, kernel_calls, values_of_gates
from numbarnn.recurrence_arguments import check_arguments, check_gradients
from numbarnn.simd_math import ACTIVATIONS

__all__ = ["DeviceWeights", "device_step_flags", "new_pass"]


class DeviceWeights:
    """The weights of one layer on a GPU, with what is made of them when it is first needed.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
    kernel, recurrent_kernel : array of shape (I, G*H), (H, G*H)
        float32 or float64, on the CPU or on a GPU.
    bias : array of shape ``cell.bias_shape(H)``, optional
        None stands for zeros.

    Raises
    ------
    TypeError, ValueError
        For a weight whose type, dtype or shape does not fit the others.
    """

    def __init__(self, cell, kernel, recurrent_kernel, bias=None):
        kernel, recurrent_kernel, bias = map(_moved, (kernel, recurrent_kernel, bias))
        dtype, units = cell.check_weights(kernel, recurrent_kernel, cuda.array_module().ndarray)
        if bias is None:
            bias = cuda.zeros(cell.bias_shape(units), dtype)
        bias = _DevicePass.check("bias", bias, cell.bias_shape(units), dtype)
        self.kernel, self.recurrent = kernel, recurrent_kernel
        self.bias = cell.chain_bias(bias, cuda.array_module())
        self._transposed = None

    @property
    def transposed(self):
        """The recurrent kernel, transposed."""
        if self._transposed is None:
            self._transposed = cuda.array_module().ascontiguousarray(self.recurrent.T)
        return self._transposed


def device_step_flags(batch, timesteps, mask, reset, zero_output, backwards):
    """`numbarnn.recurrence.step_flags` of a mask or resets on the GPU."""
    xp = cuda.array_module()
    mask, reset = (
        None if given is None else check_array(name, _moved(given), (batch, timesteps), np.dtype(bool), xp.ndarray)
        for name, given in (("mask", mask), ("reset", reset))
    )
    flags = xp.full((timesteps, batch), COUNTS, np.uint8)
    if mask is not None:
        counts = _by_step(mask, backwards)
        flags = xp.where(counts, flags, xp.zeros((), np.uint8))
        silent = ~counts
        if not zero_output:
            silent = silent & (xp.cumsum(counts, axis=0) == 0)
        flags = flags | silent.astype(np.uint8) * np.uint8(SILENT)
    if reset is not None:
        flags = flags | _by_step(reset, backwards).astype(np.uint8) * np.uint8(CUT)
    return flags


def new_pass(cell, x, weights, initial_states, *, save, checkpoint, **options):
    """Return a pass on the GPU that `x` is on, or on the current one: then from NumPy arrays to NumPy arrays.

    Arguments are those of `numbarnn.recurrence.run`, with a `checkpoint` only where steps are computed again.
    """
    from_host = not cuda.is_device_array(x)
    number = devices.gpu() if from_host else cuda.device_of(x)
    with _on(number):
        names = ("flags", "x_factors", "h_factors")
        options |= {name: _moved(options[name]) for name in names if options.get(name) is not None}
        if initial_states is not None:
            initial_states = [_moved(state) for state in initial_states]
        if checkpoint is None:
            this = _DevicePass(cell, _moved(x), weights, initial_states, save=save, **options)
        else:
            this = LongPass(_DevicePass, cell, _moved(x), weights, initial_states, checkpoint, **options)
    return _There(this, number, from_host)


def _moved(array):
    """Return an array as kernels on the GPU take it; what is no array is refused later, with its name."""
    known = isinstance(array, np.ndarray) or cuda.is_device_array(array)
    return cuda.to_device(array) if known else array


@contextlib.contextmanager
def _on(number):
    """Compute on GPU `number` within the block, on the stream on which the weights are kept."""
    with cuda.on_device(number), cuda.in_order():
        yield


class _There:
    """A pass, or its way back, while its GPU is the current one; its results as NumPy arrays with `to_host`."""

    def __init__(self, inner, number, to_host):
        self.inner, self.number, self.to_host = inner, number, to_host

    def jobs(self):
        """Launch everything: the GPU leaves nothing to the threads of this machine."""
        with _on(self.number):
            yield from self.inner.jobs()

    def result(self):
        with _on(self.number):
            return self._given(self.inner.result())

    def steps(self, gate_names):
        with _on(self.number):
            return self._given(self.inner.steps(gate_names))

    def back(self, d_out, d_states, need_x, need_weights):
        with _on(self.number):
            d_states = None if d_states is None else [_moved(gradient) for gradient in d_states]
            inner = self.inner.back(_moved(d_out), d_states, need_x, need_weights)
        return _There(inner, self.number, self.to_host)

    def _given(self, results):
        """Return results, nested as they are, as the caller gets them."""
        if isinstance(results, Pullback):
            return Pullback(self)
        if isinstance(results, dict):
            return {name: self._given(result) for name, result in results.items()}
        if isinstance(results, tuple | list):
            return type(results)(map(self._given, results))
        return results if results is None or not self.to_host else cuda.to_host(results)


def _by_step(array, backwards):
    """Return an array (B, T, ...) as a new or the same C-contiguous one (T, B, ...), in the order of the steps."""
    array = array.swapaxes(0, 1)
    return cuda.array_module().ascontiguousarray(array[::-1] if backwards else array)


def _only(where, array):
    """Return an array (T, B, ...) with zeros, whatever is there, where the condition (T, B) does not hold."""
    xp = cuda.array_module()
    return xp.where(where[:, :, None], array, xp.zeros((), array.dtype))


def _flat(array):
    """Return a C-contiguous array (T, B, ...) as a matrix (T * B, ...)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


def _columns(array, first, count):
    """Return columns of a matrix as cuBLAS takes them."""
    if count == array.shape[-1]:
        return array
    return cuda.array_module().ascontiguousarray(array[..., first : first + count])


class _DevicePass:
    """The arguments of one `numbarnn.recurrence.run` on a GPU, checked, and what they come to."""

    xp = staticmethod(cuda.array_module)

    @staticmethod
    def check(name, array, shape, dtype):
        """`numbarnn.cells.contract.check_array` for arrays on the GPU."""
        return check_array(name, _moved(array), shape, dtype, cuda.array_module().ndarray)

    @staticmethod
    def packed(weights):
        """Return weights as they are used here, and the input kernel."""
        weights = weights.on_gpu()
        return weights, weights.kernel

    def __init__(
        self, cell, x, weights, initial_states, flags=None, x_factors=None, h_factors=None, backwards=False,
        return_sequences=True, activation=None, recurrent_activation=None, save=False,
    ):  # fmt: skip
        self.device_weights, self.initial_states, given, codes = check_arguments(
            _DevicePass, cell, x, weights, initial_states, flags, x_factors, h_factors, activation, recurrent_activation
        )
        self.cell, self.x, self.weights, self.save = cell, x, weights, save
        self.backwards, self.return_sequences = bool(backwards), return_sequences
        (batch, timesteps, inputs), units = x.shape, self.device_weights.recurrent.shape[0]
        self.size = batch, timesteps, inputs, units
        self.flags, self.x_factors, self.h_factors = map(given.get, ("flags", "x_factors", "h_factors"))
        self.own_activations = codes == (None, None)
        defaults = cell.default_activation, cell.default_recurrent_activation or "linear"
        self.codes = tuple(ACTIVATIONS[name].code for name in defaults) if self.own_activations else codes
        self.silent = None if self.flags is None else self.flags[-1] & SILENT != 0

    def problem(self, back):
        """What a band is chosen by."""
        batch, timesteps, _, units = self.size
        copies = 0 if self.h_factors is None else len(self.h_factors)
        return Problem(
            self.cell, back, batch, timesteps, units, self.x.dtype, self.codes, self.own_activations, copies, self.save,
            cuda.capability(), cuda.multiprocessors(),
        )  # fmt: skip

    def jobs(self):
        batch, timesteps, _, units = self.size
        cell, dtype, xp = self.cell, self.x.dtype, self.xp()
        self.gates = cuda.empty((timesteps, batch, cell.gates * units), dtype)
        copies = 0 if cell.apart == NOTHING else timesteps if self.save else 1
        self.apart = cuda.empty((copies, batch, units), dtype)
        self.states = cuda.empty((cell.states, timesteps + 1 if self.save else 2, batch, units), dtype)
        self.out = cuda.empty((batch, timesteps if self.return_sequences else 0, units), dtype)
        if self.initial_states is None:
            self.states[:, 0] = 0
        for n, state in enumerate(self.initial_states or ()):
            self.states[n, 0] = state
        if batch:
            weights = self.device_weights
            self._multiply_inputs(_by_step(self.x, self.backwards), weights.kernel)
            self.step_flags = xp.full((timesteps, batch), COUNTS, np.uint8) if self.flags is None else self.flags
            problem = self.problem(back=False)
            choose_band(problem).launch(
                problem, self.gates, self.apart, weights.recurrent, weights.bias, self.states, self.out,
                self.step_flags, self.factors_of_h(), 0, timesteps, self.save,
            )  # fmt: skip
            kernel_calls[self.cell.name, "forward"] += 1
        yield from ()

    def factors_of_h(self):
        """The dropout factors of h as kernels take them."""
        batch, _, _, units = self.size
        return cuda.empty((0, batch, units), self.x.dtype) if self.h_factors is None else self.h_factors

    def _multiply_inputs(self, x, kernel):
        """Write the products of the inputs (T, B, I) with the kernel to `gates`."""
        units, copies = self.size[3], 0 if self.x_factors is None else len(self.x_factors)
        if copies < 2:
            left = x * self.x_factors[0] if copies else x
            cuda.gemm(_flat(left), kernel, out=_flat(self.gates))
            return
        for g in range(copies):
            product = cuda.gemm(_flat(x * self.x_factors[g]), _columns(kernel, g * units, units))
            self.gates[:, :, g * units : (g + 1) * units] = product.reshape(self.gates.shape[:2] + (units,))

    def result(self):
        last = self.states[:, -1 if self.save else self.size[1] % 2]
        states = [state.copy() for state in last]
        out = self.out
        if not self.return_sequences:
            out = states[0].copy()
            if self.silent is not None:
                out = self.xp().where(self.silent[:, None], self.xp().zeros((), out.dtype), out)
        if not self.save:
            del self.gates, self.apart, self.states
        del self.out
        return out, states, Pullback(self) if self.save else None

    def steps(self, gate_names):
        """See `numbarnn.recurrence.Pullback.steps`."""
        states = [self.xp().ascontiguousarray(plane[1:].swapaxes(0, 1)) for plane in self.states]
        kept, flags = (cuda.to_host(array).swapaxes(0, 1) for array in (self.gates, self.step_flags))
        gates = values_of_gates(kept, self.size[3], flags & COUNTS == 0, self.codes, gate_names)
        return states, {name: cuda.to_device(gate) for name, gate in gates.items()}

    def back(self, *gradients, **wanted):
        return _DeviceBackwardPass(self, *gradients, **wanted)


class _DeviceBackwardPass:
    """The arguments of one call of a pullback on a GPU, checked, and what they come to."""

    def __init__(self, forward, d_out, d_states, need_x, need_weights, d_weights=None, d_x=None):
        self.d_out, self.d_states, self.d_weights = check_gradients(forward, d_out, d_states, need_weights, d_weights)
        self.forward, self.need_x, self.need_weights, self.d_x = forward, need_x, need_weights, d_x

    def jobs(self):
        forward = self.forward
        batch, timesteps, inputs, _ = forward.size
        if batch:
            problem = forward.problem(back=True)
            choose_band(problem).launch(
                problem, forward.gates, forward.apart, forward.device_weights.transposed, forward.states, self.d_out,
                self.d_states, forward.step_flags, forward.factors_of_h(), 0, timesteps,
            )  # fmt: skip
            kernel_calls[forward.cell.name, "backward"] += 1
            if self.need_x:
                self._back_to_inputs()
            if self.need_weights:
                self._weights()
                kernel_calls[forward.cell.name, "weight_gradients"] += 1
        elif self.need_x:
            self.d_x = cuda.zeros((batch, timesteps, inputs), forward.x.dtype)
        yield from ()

    def _back_to_inputs(self):
        forward, kernel = self.forward, self.forward.device_weights.kernel
        batch, timesteps, inputs, units = forward.size
        factors = forward.x_factors
        if factors is None or len(factors) == 1:
            d_x = cuda.gemm(_flat(forward.gates), kernel, transpose_b=True).reshape(timesteps, batch, inputs)
            if factors is not None:
                d_x *= factors[0]
        else:
            d_x = cuda.zeros((timesteps, batch, inputs), forward.x.dtype)
            for g, factor in enumerate(factors):
                dz, weights = (_columns(array, g * units, units) for array in (forward.gates, kernel))
                d_x += cuda.gemm(_flat(dz), weights, transpose_b=True).reshape(d_x.shape) * factor
        if forward.flags is not None:
            d_x = _only(forward.flags & COUNTS != 0, d_x)
        if forward.backwards:
            d_x = d_x[::-1]
        d_x = d_x.swapaxes(0, 1)
        if self.d_x is None:
            self.d_x = forward.xp().ascontiguousarray(d_x)
        else:
            self.d_x[...] = d_x

    def _weights(self):
        """Add this pass's part of the weights' gradients, whole products over all steps."""
        forward, (d_kernel, d_recurrent, d_bias) = self.forward, self.d_weights
        cell, (_, timesteps, _, units) = forward.cell, forward.size
        gates, apart = forward.gates, forward.apart
        x, h = _by_step(forward.x, forward.backwards), forward.states[0, :timesteps]
        if forward.flags is not None:
            counts = forward.flags & COUNTS != 0
            x, h = _only(counts, x), _only(counts & (forward.flags & CUT == 0), h)
        last = cell.gates - 1
        for first, count in _runs(cell.gates, forward.x_factors, NOTHING):
            left = x if forward.x_factors is None else x * forward.x_factors[min(first, len(forward.x_factors) - 1)]
            _add_product(d_kernel, left, gates, first * units, count * units)
        for first, count in _runs(cell.gates, forward.h_factors, cell.apart):
            left, right, place = h, gates, first * units
            if forward.h_factors is not None:
                left = h * forward.h_factors[min(first, len(forward.h_factors) - 1)]
            if first == last and cell.apart == OPERAND:
                left = apart
            if first == last and cell.apart == PRODUCT:
                right, place = apart, 0
            _add_product(d_recurrent, left, right, first * units, count * units, place)
        total = _flat(gates).sum(axis=0)
        if cell.apart == PRODUCT:
            d_bias[0] += total
            d_bias[1, : last * units] += total[: last * units]
            d_bias[1, last * units :] += _flat(apart).sum(axis=0)
        else:
            d_bias += total

    def result(self):
        del self.forward.gates, self.forward.apart, self.forward.states
        return self.d_x if self.need_x else None, self.d_weights, list(self.d_states)


def _runs(gates, factors, apart):
    """Return runs of gates, (first, count), whose products have the same left side, and come side by side."""
    if factors is not None and len(factors) > 1:
        return [(g, 1) for g in range(gates)]
    return [(0, gates)] if apart == NOTHING else [(0, gates - 1), (gates - 1, 1)]


def _add_product(total, left, right, first, count, place=None):
    """Add ``left.T @ right``, of `count` columns of `right` from `place` on, to columns of `total` from `first` on."""
    right = _columns(right, first if place is None else place, count)
    total[:, first : first + count] += cuda.gemm(_flat(left), _flat(right), transpose_a=True)
