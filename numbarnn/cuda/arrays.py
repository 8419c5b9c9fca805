"""Arrays on the GPU, and where their module comes from."""

import contextlib
import os
import sys
import time

import numpy as np

INSTALL = "pip install 'numbarnn[cuda]'"
_swapped = None  # the module of `use_array_module`


def simulated():
    """Whether kernels run on Numba's simulator of a GPU (``NUMBA_ENABLE_CUDASIM=1``)."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def stands_in():
    """Whether something stands in for a GPU: the simulator, or the module of `use_array_module`."""
    return _swapped is not None or simulated()


def array_module():
    """Return the module whose arrays live on the GPU: CuPy; NumPy under the simulator; what `use_array_module` says.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If CuPy is not installed.
    """
    if _swapped is not None:
        return _swapped
    if simulated():
        return np
    try:
        import cupy
    except ImportError as error:
        raise ImportError(f"Computing on a GPU needs CuPy. Install it with: {INSTALL}") from error
    return cupy


@contextlib.contextmanager
def use_array_module(module):
    """Let a module stand in for CuPy within the block, on all threads: the hook of tests that have no GPU.

    `why_not` is None then, and there is one GPU.

    Parameters
    ----------
    module : module or object
        With CuPy's `ndarray`, `asarray`, `asnumpy`, `empty`, `zeros`, `matmul` and what the code under test needs more.
        Kernels launched on its arrays need the simulator, and arrays that NumPy can view without a copy.
    """
    global _swapped
    before, _swapped = _swapped, module
    try:
        yield module
    finally:
        _swapped = before


def is_device_array(x):
    """Say whether `x` is an array on a GPU. Quick, and imports nothing: without CuPy there is no such array."""
    if type(x) is np.ndarray:
        return False
    module = _swapped if _swapped is not None else sys.modules.get("cupy")
    return module is not None and isinstance(x, module.ndarray)


def to_device(array):
    """Return an array on the current GPU with the values of `array`, C-contiguous: itself, if it is one already."""
    module = array_module()
    if is_device_array(array):
        return array if array.flags.c_contiguous else module.ascontiguousarray(array)
    return module.array(array, order="C")  # new under the simulator, too


def to_host(array):
    """Return a NumPy array with the values of `array`; one that is a NumPy array already is handed back."""
    if not is_device_array(array):
        return np.asarray(array)
    return array_module().asnumpy(array)


def empty(shape, dtype):
    """Return an array on the current GPU whose values are not set."""
    return array_module().empty(shape, dtype)


def zeros(shape, dtype):
    """Return an array of zeros on the current GPU."""
    return array_module().zeros(shape, dtype)


def erf(x):
    """Return the error function of an array on the GPU."""
    if stands_in():
        return array_module().erf(x)
    from cupyx.scipy import special

    return special.erf(x)


@contextlib.contextmanager
def poisoned_memory():
    """Let memory that is allocated on the GPU within the block hold NaN at first: for tests."""
    if stands_in():
        yield
        return
    cupy = array_module()

    def allocate(size):
        memory = cupy.get_default_memory_pool().malloc(size)
        if size:
            memory.memset_async(0xFF, size, cupy.cuda.get_current_stream())
        return memory

    with cupy.cuda.using_allocator(allocate):
        yield


def free_memory():
    """Hand memory back to the GPU's driver that no array uses any more, for others to use."""
    if not stands_in():
        array_module().get_default_memory_pool().free_all_blocks()


class Event:
    """A moment on the current stream of the GPU, to measure the time between two."""

    def __init__(self):
        self._event = None if stands_in() else array_module().cuda.Event()
        self._at = None

    def record(self):
        """Let it be when the GPU has done all that was asked of it so far."""
        if self._event is None:
            self._at = time.perf_counter()
        else:
            self._event.record()

    def until(self, later):
        """Wait for a later event, and return the seconds between."""
        if self._event is None:
            return later._at - self._at
        later._event.synchronize()
        return array_module().cuda.get_elapsed_time(self._event, later._event) / 1e3
