"""The seam to NVIDIA GPUs where there is none: what it says, what it leaves alone, the hook for stand-ins."""

import re
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from numbarnn import cuda
from numbarnn.cuda import arrays, kernels, machine


class Status:
    """What the driver answers."""

    def __init__(self, name):
        self.name = name


@pytest.fixture
def driver(monkeypatch):
    """Return a made-up driver; its answers are attributes."""
    results = {
        name: Status(name) for name in ("CUDA_SUCCESS", "CUDA_ERROR_NO_DEVICE", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")
    }
    made_up = types.SimpleNamespace(CUresult=types.SimpleNamespace(**results), start="CUDA_SUCCESS", count=1)
    made_up.cuInit = lambda flags: (results[made_up.start],)
    made_up.cuDeviceGetCount = lambda: (results["CUDA_SUCCESS"], made_up.count)
    made_up.capability = {"MAJOR": 9, "MINOR": 0}
    names = {f"CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{part}": part for part in made_up.capability}
    made_up.CUdevice_attribute = types.SimpleNamespace(**names)
    made_up.cuDeviceGet = lambda number: (results["CUDA_SUCCESS"], number)
    made_up.cuDeviceGetAttribute = lambda part, device: (results["CUDA_SUCCESS"], made_up.capability[part])
    bindings = types.ModuleType("cuda.bindings")
    bindings.driver = made_up
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", made_up)
    monkeypatch.setattr(machine, "_missing", lambda: None)
    monkeypatch.setattr(machine, "stands_in", lambda: False)
    machine._driver_fault.cache_clear()
    yield made_up
    machine._driver_fault.cache_clear()


def test_what_the_driver_says_is_said(driver):
    assert cuda.why_not() is None
    cuda.require()
    for start, count, message in [
        ("CUDA_ERROR_NO_DEVICE", 0, "no NVIDIA GPU is visible.*CUDA_VISIBLE_DEVICES"),
        ("CUDA_SUCCESS", 0, "no NVIDIA GPU is visible"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", 1, r"does not start \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\)"),
    ]:
        driver.start, driver.count = start, count
        machine._driver_fault.cache_clear()
        with pytest.raises(RuntimeError, match=message):
            cuda.require()


def test_a_gpu_older_than_the_compilers_know_is_refused(driver):
    driver.capability = {"MAJOR": 7, "MINOR": 0}
    assert re.search(r"compute capability 7\.0, 7\.5 or later is needed", cuda.why_not())
    driver.capability["MINOR"] = 5
    machine._driver_fault.cache_clear()
    assert cuda.why_not() is None


def test_a_driver_that_is_not_there_is_no_error(driver):
    def absent(flags):
        raise RuntimeError("Failed to dlopen libcuda.so.1")

    driver.cuInit = absent
    assert "no NVIDIA driver was found. Install" in cuda.why_not()
    assert cuda.device_count() == 0


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr(machine, "_PACKAGES", {"NumPy": "numpy", "CuPy": "no_such_module", "cuda-core": "no.such"})
    machine._missing.cache_clear()
    try:
        assert machine._missing() == "CuPy, cuda-core not installed. Install with: pip install 'numbarnn[cuda]'"
    finally:
        machine._missing.cache_clear()


class Array:
    """An array somewhere else."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.flags = self.values.flags


def test_a_stand_in_is_asked_for_arrays():
    stand_in = types.SimpleNamespace(
        ndarray=Array,
        array=lambda values, order: Array(np.array(values, order=order)),
        asnumpy=lambda array: array.values,
        ascontiguousarray=lambda array: Array(np.ascontiguousarray(array.values)),
    )
    x = np.arange(6.0).reshape(2, 3)
    assert not cuda.is_device_array(Array(x))
    with cuda.use_array_module(stand_in):
        assert cuda.why_not() is None and cuda.device_count() == 1 and cuda.array_module() is stand_in
        there = cuda.to_device(x)
        assert cuda.is_device_array(there) and not cuda.is_device_array(x) and not cuda.is_device_array([1.0])
        assert cuda.to_device(there) is there
        np.testing.assert_array_equal(cuda.to_host(there), x)
        turned = cuda.to_device(Array(x.T))
        assert turned.flags.c_contiguous
    assert not cuda.stands_in() and cuda.to_host(x) is x
    with pytest.raises(ZeroDivisionError), cuda.use_array_module(stand_in):
        _ = 1 / 0
    assert arrays._swapped is None


def test_what_a_launch_needs_of_its_thread_and_arrays(monkeypatch):
    """Each thread tells the driver which GPU it is for, once; a pointer into another GPU's memory is refused."""
    bound = []
    core = types.ModuleType("cuda.core")
    core.Device = lambda number: types.SimpleNamespace(set_current=lambda: bound.append(number))
    package = types.ModuleType("cuda")
    package.core = core
    monkeypatch.setitem(sys.modules, "cuda", package)
    monkeypatch.setitem(sys.modules, "cuda.core", core)
    monkeypatch.setattr(kernels, "current_device", lambda: 1)
    monkeypatch.setattr(kernels, "_bound", threading.local())

    def array(number):
        x = np.zeros((2, 3), np.float32)
        return types.SimpleNamespace(
            flags=x.flags, dtype=x.dtype, ndim=2, size=6, shape=x.shape, strides=x.strides,
            data=types.SimpleNamespace(ptr=64, device_id=number),
        )  # fmt: skip

    kernel = cuda.kernel(lambda a, n: None)
    kernel._loaded[(("float32", 2), ("int64", -1)), 1] = "loaded"
    expected = [0, 0, 6, 4, 64, 2, 3, 12, 4, 7], "loaded"
    assert kernel._prepare((array(1), 7)) == kernel._prepare((array(1), 7)) == expected and bound == [1]
    thread = threading.Thread(target=kernel._prepare, args=((array(1), 7),))
    thread.start()
    thread.join()
    assert bound == [1, 1]
    with pytest.raises(ValueError, match=r"run on, cuda:1; got one of shape \(2, 3\) on cuda:0"):
        kernel._prepare((array(0), 7))


def test_kernels_are_declared_without_cuda():
    code = """
import sys
import numpy as np
from numbarnn import cuda

@cuda.device_function
def twice(x):
    return x + x

@cuda.kernel(max_threads=128)
def double(a):
    i = cuda.grid(1)
    a[i] = twice(a[i])

class Emulator:
    def grid(self, axes):
        return 1

a = np.arange(3.0)
double.python(Emulator())(a)
assert a.tolist() == [0.0, 2.0, 2.0] and twice(2) == 4
assert not cuda.is_device_array(a)
heavy = [n for n in sys.modules if n.split(".")[0] in ("cupy", "cuda") or n.startswith("numba.cuda.")]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
