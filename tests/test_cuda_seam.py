"""The seam to NVIDIA GPUs where there is none: what it says, what it leaves alone, the hook for stand-ins."""

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from numbarnn import cuda
from numbarnn.cells import gru_cuda, lstm_cuda, simple_rnn_cuda
from numbarnn.cuda import arrays, kernels, machine, probe, products


class Driver:
    """What stands for the driver's library, loaded: it answers by pointer, as the real one does."""

    NAMES = {3: b"CUDA_ERROR_NOT_INITIALIZED", 100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}

    def __init__(self):
        self.start, self.capabilities, self.started = 0, [(9, 0)], 0

    def cuInit(self, flags):
        self.started += 1
        return self.start

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.capabilities)
        return 0 if self.started else 3

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"NVIDIA H200"
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.capabilities[device.value][attribute - 75]
        return 0

    def cuGetErrorName(self, status, name):
        name._obj.value = self.NAMES.get(status)
        return 0


def forget():
    """Have the machine ask for its driver and GPUs again."""
    machine._driver.cache_clear()
    machine._gpus.cache_clear()


@pytest.fixture
def driver(monkeypatch):
    """Return a made-up driver, whose answers are attributes; the process that is begun to ask it is this one."""
    made_up = Driver()

    def run(command, **options):
        assert command[-1] == probe.__file__
        with contextlib.redirect_stdout(io.StringIO()) as said:
            made_up.asked_elsewhere += 1
            print(json.dumps(probe.ask(made_up)))
        made_up.started = 0  # there, not here
        return types.SimpleNamespace(stdout=said.getvalue())

    made_up.asked_elsewhere = 0
    monkeypatch.setattr(probe, "driver", lambda: made_up)
    monkeypatch.setattr(probe.subprocess, "run", run)
    monkeypatch.setattr(machine, "_missing", lambda: None)
    monkeypatch.setattr(machine, "stands_in", lambda: False)
    forget()
    yield made_up
    forget()


def test_what_the_driver_says_is_said(driver):
    assert cuda.why_not() is None
    cuda.require()
    for start, capabilities, message in [
        (100, [], "no NVIDIA GPU is visible.*CUDA_VISIBLE_DEVICES"),
        (0, [], "no NVIDIA GPU is visible"),
        (803, [(9, 0)], r"does not start \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\)"),
        (999, [(9, 0)], r"does not start \(error 999\)"),
    ]:
        driver.start, driver.capabilities = start, capabilities
        forget()
        with pytest.raises(RuntimeError, match=message):
            cuda.require()


def test_who_asks_does_not_start_the_driver(driver):
    driver.capabilities = [(9, 0), (12, 0)]
    assert cuda.why_not() is None and cuda.device_count() == 2
    assert cuda.device_name(1) == "NVIDIA H200" and cuda.compute_capability(1) == (12, 0)
    assert not driver.started and driver.asked_elsewhere == 1
    forget()
    driver.started = 1  # by somebody else, in this process: it does no further harm to ask here
    assert cuda.device_count() == 2 and driver.asked_elsewhere == 1


FAKE = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int started;
int cuInit(unsigned flags) {
    FILE *f = fopen(getenv("STARTED_BY"), "a"); fprintf(f, "%d\\n", getpid()); fclose(f);
    return started = 1, 0;
}
int cuDeviceGetCount(int *count) { *count = 1; return started ? 0 : 3; }
int cuDeviceGet(int *device, int number) { *device = number; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA H200", size); return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 9 : 0; return 0; }
int cuGetErrorName(int status, const char **name) { *name = "?"; return 0; }
"""
IN_A_NEW_PROCESS = """
import os, sys
import numbarnn
from numbarnn.cuda import machine, probe
machine._missing = lambda: None
assert numbarnn.get_device() == "cuda:0" and numbarnn.devices.describe() == (
    "cuda:0, NVIDIA H200, compute capability 9.0"
)
here = open(os.environ["STARTED_BY"]).read().split()
assert len(here) == 1 and int(here[0]) != os.getpid(), here
child = os.fork()
if not child:
    os._exit(machine.why_not() is not None)  # free to use the GPU
assert os.waitpid(child, 0)[1] == 0
machine._driver().cuInit(0)  # as computing on the GPU does
child = os.fork()
if not child:
    try:
        numbarnn.devices.gpu()
    except RuntimeError as error:
        os._exit("forked from one that had computed on a GPU" not in str(error) or "spawn" not in machine.why_not())
    os._exit(2)
assert os.waitpid(child, 0)[1] == 0
assert machine.why_not() is None
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not shutil.which("cc"), reason="needs Linux and a C compiler"
)
def test_a_process_that_asks_can_fork_children_that_compute_and_one_that_computes_cannot(tmp_path):
    """With a driver of C that says who has started it."""
    (tmp_path / "fake.c").write_text(FAKE)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "fake.c"], check=True)
    environment = {
        **os.environ, "LD_LIBRARY_PATH": str(tmp_path), "STARTED_BY": str(tmp_path / "started"), "NUMBARNN_DEVICE": "",
        "NUMBA_ENABLE_CUDASIM": "0",
    }  # fmt: skip
    subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS], env=environment, check=True)


def test_a_gpu_older_than_the_compilers_know_is_refused(driver):
    driver.capabilities = [(7, 0)]
    assert re.search(r"compute capability 7\.0, 7\.5 or later is needed", cuda.why_not())
    driver.capabilities = [(7, 5)]
    forget()
    assert cuda.why_not() is None


def test_a_driver_that_is_not_there_is_no_error(driver, monkeypatch):
    monkeypatch.setattr(probe, "driver", lambda: None)
    assert "no NVIDIA driver was found. Install" in cuda.why_not()
    assert cuda.device_count() == 0
    monkeypatch.undo()
    monkeypatch.setattr(probe, "LIBRARY", "libcuda-that-is-not-there.so")
    assert probe.driver() is None


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


@pytest.fixture
def streams(monkeypatch):
    """Return what is asked of CuPy's streams, in order; the caller's is the attribute `current`."""
    done = []

    class Stream:
        def __init__(self, name, ptr):
            self.name, self.ptr = name, ptr

        def record(self):
            done.append(f"{self.name} is marked")
            return self.name

        def wait_event(self, event):
            done.append(f"{self.name} waits for {event}")

        def use(self):
            streams.current = self

    null = Stream("default", 0)
    streams = types.SimpleNamespace(
        Stream=types.SimpleNamespace(null=null), get_current_stream=lambda: streams.current, current=null, done=done,
        other=Stream("caller", 77),
    )  # fmt: skip
    monkeypatch.setattr(machine, "stands_in", lambda: False)
    monkeypatch.setattr(machine, "array_module", lambda: types.SimpleNamespace(cuda=streams))
    return streams


def test_another_stream_of_the_caller_is_waited_for_and_waits(streams):
    with cuda.in_order():
        assert streams.current.ptr == 0
    assert streams.done == []
    streams.current = streams.other
    with pytest.raises(ZeroDivisionError), cuda.in_order():
        assert streams.current.ptr == 0
        streams.done.append("work")
        with cuda.in_order():
            streams.done.append("more")
        _ = 1 / 0
    assert streams.current is streams.other
    expected = ["caller is marked", "default waits for caller", "work", "more", "default is marked"]
    assert streams.done == [*expected, "caller waits for default"]


def test_products_are_refused_where_an_operand_is_on_another_gpu(monkeypatch):
    """Or on none: cuBLAS would take the address as it is."""
    on = {}

    class There(Array):
        ndim, dtype = property(lambda self: self.values.ndim), property(lambda self: self.values.dtype)
        shape = property(lambda self: self.values.shape)

    monkeypatch.setattr(products, "device_of", lambda array: on.get(id(array), 1))
    monkeypatch.setattr(products, "current_device", lambda: 1)
    monkeypatch.setattr(products, "_cublas", lambda *operands: "computed")
    monkeypatch.setattr(products, "stands_in", lambda: False)
    a, b, out = (There(np.ones(shape, np.float32)) for shape in ((2, 3), (3, 4), (2, 4)))
    with cuda.use_array_module(types.SimpleNamespace(ndarray=There)):
        assert cuda.gemm(a, b, out=out) == "computed"
        for name, array in (("a", a), ("b", b), ("out", out)):
            on[id(array)] = 0
            with pytest.raises(ValueError, match=rf"gemm: {name} must be on .*cuda:1; got float32\(\d, \d\) on cuda:0"):
                cuda.gemm(a, b, out=out)
            on.clear()
        with pytest.raises(TypeError, match="gemm: b must be an array on the GPU, got numpy.ndarray"):
            cuda.gemm(a, b.values)


def test_no_machine_code_is_taken_for_that_of_other_constants():
    """On disk, where kernels of one function lie side by side: constants of constants count, and what they call."""
    made = [
        kernel.with_constants(max_threads=128, ROWS=rows)
        for cell in (lstm_cuda, gru_cuda, simple_rnn_cuda)
        for kernel in (cell.forward, cell.backward)
        for rows in (1, 2)
    ]
    assert len({kernel._cache._of_function() for kernel in made}) == len(made) == 12
    assert lstm_cuda.forward.with_constants(max_threads=128, ROWS=2) is made[1]


def test_kernels_are_declared_without_cuda():
    code = """
import sys
import numpy as np
from numbarnn import cuda
from numbarnn.cells import gru_cuda, lstm_cuda, simple_rnn_cuda

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
