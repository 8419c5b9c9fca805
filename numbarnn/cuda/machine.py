"""Which GPUs there are, and on which one, and in what order, this thread computes.

Asking is free of consequences: the driver is started (`cuInit`) in this process when something is computed on a GPU,
not before, so that a process which only looks for one can fork children that use it.  A process forked from one that
has computed on a GPU cannot, whatever the library; it is told so.

**Streams.**  numbarnn computes on one stream of each GPU, its default stream, whichever thread asks: so what it keeps
between calls (weights, the optimizer's state, what programs have captured) is read behind what wrote it.  Who calls
while another stream is CuPy's current one is served in that one's order: the default stream waits for it before, it
waits for the default stream afterwards (`in_order`).
"""

import contextlib
import functools
import importlib.util
import os

from numbarnn.cuda import probe
from numbarnn.cuda.arrays import INSTALL, array_module, stands_in

OLDEST = (7, 5)  # compute capability that CUDA's compilers still know
_PACKAGES = {"numba-cuda": "numba_cuda", "CuPy": "cupy", "cuda-core": "cuda.core"}


def why_not():
    """Return what keeps numbarnn from computing on a GPU, and what to do about it; None if nothing does.

    Returns
    -------
    str or None
    """
    if stands_in():
        return None
    return _missing() or _lost() or _driver_fault()


def require():
    """Raise an error that says what to do unless a GPU can be computed on.

    Raises
    ------
    ImportError
        If packages are missing.
    RuntimeError
        If there is no driver, no GPU is visible, the first one is too old, or this process was forked from one that
        has computed on a GPU.
    """
    if stands_in():
        return
    if _missing():
        raise ImportError(f"To compute on a GPU: {_missing()}")
    if fault := _lost() or _driver_fault():
        raise RuntimeError(f"There is no GPU to compute on: {fault}")


@functools.cache
def _missing():
    missing = [name for name, module in _PACKAGES.items() if not _installed(module)]
    return f"{', '.join(missing)} not installed. Install with: {INSTALL}" if missing else None


def _installed(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it lies in
        return False


@functools.cache
def _driver():
    return probe.driver()


@functools.cache
def _gpus():
    return probe.gpus(_driver())


def _driver_fault():
    if _driver() is None:
        return "no NVIDIA driver was found. Install NVIDIA's driver for your GPU"
    found = _gpus()
    if found == probe.NO_DEVICE:
        return "no NVIDIA GPU is visible. See what nvidia-smi lists, and CUDA_VISIBLE_DEVICES"
    if isinstance(found, str):
        return f"the NVIDIA driver does not start ({found}). See what nvidia-smi says"
    capability = found[0][1]
    if capability < OLDEST:
        return (
            f"the first visible GPU has compute capability {capability[0]}.{capability[1]}, {OLDEST[0]}.{OLDEST[1]} or "
            "later is needed. If there is another GPU, choose it by CUDA_VISIBLE_DEVICES"
        )
    return None


class _Fork:
    """Whether a process was forked from one that had started the driver."""

    started = False  # by this process, when it forked last
    lost = False

    @classmethod
    def before(cls):
        cls.started = _driver.cache_info().currsize > 0 and _driver() is not None and probe.started(_driver())

    @classmethod
    def in_child(cls):
        cls.lost = cls.lost or cls.started


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_Fork.before, after_in_child=_Fork.in_child)


def _lost():
    if _Fork.lost:
        return (
            "this process was forked from one that had computed on a GPU, and CUDA works in no such process. Start it "
            "otherwise, as by multiprocessing.get_context('spawn'), or let it compute on the CPU: "
            'numbarnn.set_device("cpu")'
        )
    return None


def device_count():
    """Return how many GPUs can be computed on: none where `why_not` says so, one where a GPU is simulated."""
    if why_not() is not None:
        return 0
    return 1 if stands_in() else len(_gpus())


def device_name(number=0):
    """Return the name that a GPU goes by, such as ``"NVIDIA H200"``."""
    return "simulated GPU" if stands_in() else _gpus()[number][0]


def compute_capability(number=0):
    """Return the compute capability of a GPU, such as ``(9, 0)``; of a simulated one, that of Numba's simulator."""
    return (5, 2) if stands_in() else _gpus()[number][1]


def capability():
    """Return the compute capability of the current GPU."""
    return compute_capability(current_device())


def multiprocessors():
    """Return how many multiprocessors the current GPU has; something that stands in for one has one."""
    return 1 if stands_in() else _multiprocessors(current_device())


@functools.cache
def _multiprocessors(number):
    """Ask once: the driver takes up to milliseconds."""
    return array_module().cuda.runtime.getDeviceProperties(number)["multiProcessorCount"]


def current_device():
    """Return the number of the GPU that this thread allocates and launches on."""
    return 0 if stands_in() else array_module().cuda.runtime.getDevice()


def device_of(array):
    """Return the number of the GPU that an array is on."""
    return 0 if stands_in() else array.device.id


def make_current(number):
    """Let this thread allocate and launch on GPU `number` from now on."""
    if stands_in():
        return
    if _lost():
        require()
    if current_device() != number:
        array_module().cuda.runtime.setDevice(number)


@contextlib.contextmanager
def on_device(number):
    """Allocate and launch on GPU `number` within the block, on this thread."""
    if stands_in():
        yield
    else:
        with array_module().cuda.Device(number):
            yield


@contextlib.contextmanager
def in_order():
    """Compute on the default stream of the current GPU within the block, in the order of the caller's stream."""
    if stands_in():
        yield
        return
    streams = array_module().cuda
    caller, ours = streams.get_current_stream(), streams.Stream.null
    if caller.ptr == ours.ptr:
        yield
        return
    ours.wait_event(caller.record())
    ours.use()  # not `with`, behind which a stream that the caller has chosen by `use` would be forgotten
    try:
        yield
    finally:
        caller.use()
        caller.wait_event(ours.record())


def synchronize():
    """Wait until the GPU has done all that was asked of it on the current stream."""
    if not stands_in():
        array_module().cuda.get_current_stream().synchronize()
