"""Which GPUs there are."""

import contextlib
import functools
import importlib.util

from numbarnn.cuda.arrays import INSTALL, array_module, stands_in


def why_not():
    """Return what keeps numbarnn from computing on a GPU, and what to do about it; None if nothing does.

    Returns
    -------
    str or None
    """
    if stands_in():
        return None
    return _missing() or _driver_fault()


def require():
    """Raise an error that says what to do unless a GPU can be computed on.

    Raises
    ------
    ImportError
        If packages are missing.
    RuntimeError
        If there is no driver, no GPU is visible, or the first one is too old.
    """
    if stands_in():
        return
    if _missing():
        raise ImportError(f"To compute on a GPU: {_missing()}")
    if _driver_fault():
        raise RuntimeError(f"There is no GPU to compute on: {_driver_fault()}")


OLDEST = (7, 5)  # compute capability that CUDA's compilers still know
_PACKAGES = {"numba-cuda": "numba_cuda", "CuPy": "cupy", "cuda-core": "cuda.core"}


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
def _driver_fault():
    """Ask the driver itself: importing what computes on a GPU takes a second, which a machine without one is spared."""
    from cuda.bindings import driver

    try:
        (status,) = driver.cuInit(0)
        if status == driver.CUresult.CUDA_SUCCESS:
            status, count = driver.cuDeviceGetCount()
    except RuntimeError:  # no libcuda
        return "no NVIDIA driver was found. Install NVIDIA's driver for your GPU"
    if status == driver.CUresult.CUDA_ERROR_NO_DEVICE or (status == driver.CUresult.CUDA_SUCCESS and not count):
        return "no NVIDIA GPU is visible. See what nvidia-smi lists, and CUDA_VISIBLE_DEVICES"
    if status != driver.CUresult.CUDA_SUCCESS:
        return f"the NVIDIA driver does not start ({status.name}). See what nvidia-smi says"
    found = _capability(driver, 0)
    if found < OLDEST:
        return (
            f"the first visible GPU has compute capability {found[0]}.{found[1]}, {OLDEST[0]}.{OLDEST[1]} or later is "
            "needed. If there is another GPU, choose it by CUDA_VISIBLE_DEVICES"
        )
    return None


def _capability(driver, number):
    _, device = driver.cuDeviceGet(number)
    names = driver.CUdevice_attribute
    parts = (names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, names.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
    return tuple(driver.cuDeviceGetAttribute(part, device)[1] for part in parts)


def device_count():
    """Return how many GPUs can be computed on: none where `why_not` says so, one where a GPU is simulated."""
    if why_not() is not None:
        return 0
    return 1 if stands_in() else array_module().cuda.runtime.getDeviceCount()


def device_name(number=0):
    """Return the name that a GPU goes by, such as ``"NVIDIA H200"``."""
    if stands_in():
        return "simulated GPU"
    return _properties(number)["name"].decode()


def compute_capability(number=0):
    """Return the compute capability of a GPU, such as ``(9, 0)``; of a simulated one, that of Numba's simulator."""
    if stands_in():
        return 5, 2
    properties = _properties(number)
    return properties["major"], properties["minor"]


@functools.cache
def _properties(number):
    """Ask once: the driver takes up to milliseconds."""
    return array_module().cuda.runtime.getDeviceProperties(number)


def capability():
    """Return the compute capability of the current GPU."""
    return compute_capability(current_device())


def multiprocessors():
    """Return how many multiprocessors the current GPU has; something that stands in for one has one."""
    if stands_in():
        return 1
    return _properties(current_device())["multiProcessorCount"]


def current_device():
    """Return the number of the GPU that this thread allocates and launches on."""
    return 0 if stands_in() else array_module().cuda.runtime.getDevice()


def device_of(array):
    """Return the number of the GPU that an array is on."""
    return 0 if stands_in() else array.device.id


def make_current(number):
    """Let this thread allocate and launch on GPU `number` from now on."""
    if not stands_in() and current_device() != number:
        array_module().cuda.runtime.setDevice(number)


@contextlib.contextmanager
def on_device(number):
    """Allocate and launch on GPU `number` within the block, on this thread."""
    if stands_in():
        yield
    else:
        with array_module().cuda.Device(number):
            yield


def synchronize():
    """Wait until the GPU has done all that was asked of it on the current stream."""
    if not stands_in():
        array_module().cuda.get_current_stream().synchronize()
