"""Arrays where they are: NumPy's in memory, CuPy's on the GPU. How one program runs on both.

**Which functions.** What computes (operations, losses, metrics, constraints) is written with NumPy's functions and
operators. NumPy hands arrays that are not its own over to the module that they come from, so most of it runs on the GPU
as it stands. Behind this seam is the rest: arrays made from nothing (`array_module`, `zeros`, `here`), sums (`total`:
the methods of ufuncs are quick for NumPy's arrays, and not all there for others), and what has kernels of ours for the
CPU: such a place asks ``type(x) is np.ndarray`` and has an expression, or a kernel of `numbarnn.cuda`, for the others.

**Where a step runs.** A step on the GPU is run ``with on_gpu()``: on this thread, programs then replay a second text of
theirs that reads variables on the GPU, and takes the arrays that the traced function had captured as `Constant`, which
moves them there once, and again if they have changed. Of a batch the arrays go in, `float(loss)` and the sums of
metrics come out; parameters, gradients and the state of the optimizer stay. What cannot be done there raises;
nothing goes on on the CPU unasked, but for metrics that count (`Metric.on_gpu`), which get the predictions of a batch.

**Where a value is.** A variable knows where its newest value is (`numbarnn.variable`) and moves it when it is asked for
on the other side. Nobody copies weights about: predicting on the CPU what was trained on the GPU, saving in the middle
of `fit`, assigning at any time are reads and writes of the variable.

**Streams.** A step runs on the one stream of the GPU on which numbarnn keeps things, in the order of the caller's (see
`numbarnn.cuda.machine`). Operations on arrays of the user's that lie on a GPU keep nothing, and run on CuPy's current
stream, as CuPy's own do.

**Random numbers** are drawn by the same generator on the CPU and moved in: dropout has the same bits on every device,
and a training can be repeated, or gone on with, elsewhere. That costs a transfer of each mask; a generator of our own
on the GPU would have to give Philox's bits and is not there yet.

**Order of sums.** On the GPU they are those of cuBLAS and CuPy: close to the CPU's results, not their bits, but the
same from run to run. Gradients of looked up rows are summed in the order of the CPU, by sorted places, without atomics.
"""

import contextlib
import functools

import numpy as np

from . import cuda, tree
from .devices import gpu
from .protocols import local

__all__ = [
    "Constant", "array_module", "as_array", "brought_back", "contiguous", "here", "moved", "on_gpu",
    "total", "where_chosen", "zeros",
]  # fmt: skip


def array_module(*arrays):
    """Return the module whose functions make arrays like these: NumPy, or that of arrays on the GPU."""
    for x in arrays:
        if type(x) is not np.ndarray and cuda.is_device_array(x):
            return cuda.array_module()
    return np


_the_gpu = None  # on which this process keeps variables


def _keep_to_one(number):
    """Refuse to compute programs on a second GPU: variables, gradients and the optimizer's state stay on the first."""
    global _the_gpu
    if _the_gpu is None:
        _the_gpu = number
    if number != _the_gpu:
        raise RuntimeError(
            f"models are computed on one GPU in a process, here on cuda:{_the_gpu}, where their weights are; to use "
            f"cuda:{number}, start another process, with NUMBARNN_DEVICE=cuda:{number}"
        )


@contextlib.contextmanager
def on_gpu(there=True):
    """Within the block, on this thread, programs run on the GPU and variables are read there; or else on the CPU."""
    before, local.on_gpu = local.on_gpu, there
    try:
        with cuda.in_order() if there else contextlib.nullcontext():
            yield
    finally:
        local.on_gpu = before


def where_chosen(function):
    """Decorate what is to run `on_gpu` where `numbarnn.devices` says that a GPU is to be computed on."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        if local.on_gpu or (number := gpu()) is None:
            return function(*args, **kwargs)
        _keep_to_one(number)
        with on_gpu():
            return function(*args, **kwargs)

    return run


def moved(nest):
    """Return a nest of arrays, or of None, with all of them on the GPU."""
    return tree.map_structure(lambda x: x if x is None else cuda.to_device(x), nest)


def brought_back(nest):
    """Return a nest of arrays with those on the GPU as ndarrays."""
    return tree.map_structure(lambda x: cuda.to_host(x) if cuda.is_device_array(x) else x, nest)


def here(array):
    """Return an array, just made on the CPU, where this thread computes."""
    return cuda.to_device(array) if local.on_gpu else array


def as_array(x):
    """Return what is array-like as an ndarray; an array on the GPU stays one."""
    return x if type(x) is np.ndarray or cuda.is_device_array(x) else np.asarray(x)


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
        # Compared bit by bit: a NaN is the same NaN, 0.0 and -0.0 are not the same.
        size = array.itemsize
        self._bits = array.view(f"u{size}" if size in (1, 2, 4, 8) else f"V{size}")
        self._last = None, None  # the bits and the array on the GPU, together: threads share programs

    def __call__(self):
        """Return it as it is now: device array."""
        seen, moved = self._last
        if moved is None or not np.array_equal(seen, self._bits):
            now = self._array.copy()
            moved = cuda.to_device(now)
            self._last = now.view(self._bits.dtype), moved
        return moved
