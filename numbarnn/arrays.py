"""Arrays where they are: NumPy's in memory, CuPy's on the GPU. How one program runs on both.

**Which functions.** What computes (operations, losses, metrics, constraints) is written with NumPy's functions and
operators. NumPy hands arrays that are not its own over to the module that they come from, so most of it runs on the GPU
as it stands. Behind this seam is the rest: arrays made from nothing (`array_module`, `zeros`, `here`), sums (`total`:
the methods of ufuncs are quick for NumPy's arrays, and not all there for others), and what has kernels of ours for the
CPU: such a place asks ``type(x) is np.ndarray`` and has an expression, or a kernel of `numbarnn.cuda`, for the others.

**Where a step runs.** A step on the GPU is run ``with on_gpu()``: on this thread, programs then replay a second text of
theirs that reads variables on the GPU, and takes the arrays that the traced function had captured as `Constant`, which
moves them there once, and again if they have changed. Of a batch the arrays go in, `float(loss)` and the sums of
metrics come out; parameters, gradients and the state of the optimizer stay. What cannot be done there raises
`NotOnGPU`; nothing goes on on the CPU unasked.

**Where a value is.** A variable knows where its newest value is (`numbarnn.variable`) and moves it when it is asked for
on the other side. Nobody copies weights about: predicting on the CPU what was trained on the GPU, saving in the middle
of `fit`, assigning at any time are reads and writes of the variable.

**Random numbers** are drawn by the same generator on the CPU and moved in: dropout has the same bits on every device,
and a training can be repeated, or gone on with, elsewhere. That costs a transfer of each mask; a generator of our own
on the GPU would have to give Philox's bits and is not there yet.

**Order of sums.** On the GPU they are those of cuBLAS and CuPy: close to the CPU's results, not their bits, but the
same from run to run. Gradients of looked up rows are summed in the order of the CPU, by sorted places, without atomics.
"""

import contextlib

import numpy as np

from . import cuda
from .protocols import local

__all__ = ["Constant", "NotOnGPU", "array_module", "contiguous", "here", "on_gpu", "total", "zeros"]


class NotOnGPU(NotImplementedError):
    """Something was asked of a GPU that numbarnn does on the CPU alone."""


def array_module(*arrays):
    """Return the module whose functions make arrays like these: NumPy, or that of arrays on the GPU."""
    for x in arrays:
        if type(x) is not np.ndarray and cuda.is_device_array(x):
            return cuda.array_module()
    return np


@contextlib.contextmanager
def on_gpu():
    """Within the block, on this thread, programs run on the GPU and variables are read there."""
    before, local.on_gpu = local.on_gpu, True
    try:
        yield
    finally:
        local.on_gpu = before


def here(array):
    """Return an array, just made on the CPU, where this thread computes."""
    return cuda.to_device(array) if local.on_gpu else array


def contiguous(x):
    """Return a C-contiguous array with the values of one on the GPU: itself, if it is one."""
    return x if x.flags.c_contiguous else cuda.array_module().ascontiguousarray(x)


def zeros(shape, dtype):
    """Return zeros where this thread computes."""
    return cuda.zeros(shape, dtype) if local.on_gpu else np.zeros(shape, dtype)


def total(x, axis=None, keepdims=False, dtype=None):
    """Sum over `axis` (int, tuple, or None for all)."""
    if type(x) is not np.ndarray and cuda.is_device_array(x):
        return x.sum(axis=axis, keepdims=keepdims, dtype=dtype)
    return np.add.reduce(x, axis=axis, keepdims=keepdims, dtype=dtype)


class Constant:
    """An array that a program has captured, as one on the GPU.

    Parameters
    ----------
    array : ndarray
        Somebody may write to it between two calls, and then the program sees that.
    """

    def __init__(self, array):
        self._array = array
        self._seen = self._moved = None

    def __call__(self):
        """Return it as it is now: device array."""
        if self._seen is None or self._seen.tobytes() != self._array.tobytes():
            self._seen = self._array.copy()
            self._moved = cuda.to_device(self._seen)
        return self._moved
