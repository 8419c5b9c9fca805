"""Which device is computed on: names, defaults, errors; the machine's GPUs are made up here, and mostly absent."""

import asyncio
import logging
import subprocess
import sys
import threading

import numpy as np
import pytest

import numbarnn
from numbarnn import arrays, cuda, devices
from numbarnn.cuda import machine


@pytest.fixture
def fresh(monkeypatch):
    """Let the process have no device yet."""
    monkeypatch.setattr(devices, "_of_process", None)
    monkeypatch.delenv(devices.VARIABLE, raising=False)


@pytest.fixture
def bare(monkeypatch):
    """Take the packages away."""
    monkeypatch.setattr(machine, "_missing", lambda: f"CuPy not installed. Install with: {cuda.arrays.INSTALL}")


@pytest.fixture
def no_driver(monkeypatch):
    """Install the packages, but no driver."""
    monkeypatch.setattr(machine, "_missing", lambda: None)
    monkeypatch.setattr(machine, "_driver_fault", lambda: "no NVIDIA driver was found")


@pytest.fixture
def two_gpus(monkeypatch):
    """Install the packages and two GPUs; collect the numbers that are made current."""
    made = []
    monkeypatch.setattr(machine, "_missing", lambda: None)
    monkeypatch.setattr(machine, "_driver_fault", lambda: None)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "device_name", lambda number: "NVIDIA H200")
    monkeypatch.setattr(cuda, "compute_capability", lambda number: (9, 0))
    monkeypatch.setattr(cuda, "make_current", made.append)
    monkeypatch.setattr(cuda, "in_order", numbarnn.devices.contextlib.nullcontext)
    monkeypatch.setattr(cuda, "on_device", lambda number: numbarnn.devices.contextlib.nullcontext(made.append(number)))
    return made


@pytest.mark.parametrize("name", ["cpu", "cpu:0", "/cpu:0", "CPU:0", "/device:CPU:0", "/job:local/task:0/device:cpu:0"])
def test_every_name_of_the_cpu(name):
    with numbarnn.device(name):
        assert numbarnn.get_device() == "cpu:0" and devices.gpu() is None
        assert numbarnn.layers.Dense(3)(np.ones((2, 4))).shape == (2, 3)


@pytest.mark.parametrize("name", ["cuda:1", "gpu:1", "GPU:1", "/gpu:1", "/device:GPU:1", " CUDA:1 "])
def test_every_name_of_a_gpu(name, two_gpus):
    with numbarnn.device(name):
        assert numbarnn.get_device() == "cuda:1" and devices.gpu() == 1
    assert two_gpus == [1, 1]
    assert numbarnn.get_device() == "cpu:0"


@pytest.mark.parametrize("choose", [numbarnn.set_device, lambda name: numbarnn.device(name).__enter__()])
def test_what_is_no_device_is_refused(choose, two_gpus):
    for name in ("disk", "", "cpu:x", "cuda:-1", "tpu:0", "/device:TPU:0"):
        with pytest.raises(ValueError, match="A device is named"):
            choose(name)
    with pytest.raises(ValueError, match="no device 'cpu:1'.*set_num_threads"):
        choose("cpu:1")
    with pytest.raises(ValueError, match='no device \'cuda:2\': the GPUs here are "cuda:0", "cuda:1"'):
        choose("cuda:2")
    with pytest.raises(TypeError, match="by a string"):
        choose(0)


def test_a_gpu_without_the_extra_says_what_to_install(bare, fresh, monkeypatch):
    with pytest.raises(ImportError, match=r"pip install 'numbarnn\[cuda\]'"), numbarnn.device("cuda"):
        pass
    with pytest.raises(ImportError, match=r"pip install 'numbarnn\[cuda\]'"):
        numbarnn.set_device("gpu:0")
    monkeypatch.setenv("NUMBARNN_DEVICE", "cuda")
    with pytest.raises(ImportError, match=r"NUMBARNN_DEVICE=cuda: .*pip install 'numbarnn\[cuda\]'"):
        numbarnn.get_device()
    assert cuda.device_count() == 0


def test_a_gpu_without_a_driver_says_so(no_driver, fresh, monkeypatch):
    with pytest.raises(RuntimeError, match="no NVIDIA driver"), numbarnn.device("cuda"):
        pass
    monkeypatch.setenv("NUMBARNN_DEVICE", "cuda:0")
    with pytest.raises(RuntimeError, match="NUMBARNN_DEVICE=cuda:0: .*no NVIDIA driver"):
        numbarnn.layers.Dense(3)(np.ones((2, 4)))
        numbarnn.get_device()


def test_a_wrong_variable_of_the_environment_is_named(fresh, monkeypatch):
    monkeypatch.setenv("NUMBARNN_DEVICE", "dist")
    with pytest.raises(ValueError, match="NUMBARNN_DEVICE=dist: A device is named"):
        numbarnn.get_device()


def test_the_default_is_the_cpu_where_there_is_no_gpu(bare, fresh, caplog):
    with caplog.at_level(logging.INFO, "numbarnn"):
        assert numbarnn.get_device() == "cpu:0"
        assert numbarnn.get_device() == "cpu:0"
    assert [record.message for record in caplog.records] == [
        "computing on cpu:0, no GPU: CuPy not installed. Install with: pip install 'numbarnn[cuda]'"
    ]


def test_the_default_is_the_gpu_where_there_is_one(two_gpus, fresh, caplog):
    with caplog.at_level(logging.INFO, "numbarnn"):
        assert numbarnn.get_device() == "cuda:0"
        with numbarnn.device("cpu"):
            assert numbarnn.get_device() == "cpu:0"
    assert [record.message for record in caplog.records] == ["computing on cuda:0, NVIDIA H200, compute capability 9.0"]
    numbarnn.set_device("cpu")
    assert numbarnn.get_device() == "cpu:0"
    numbarnn.set_device("auto")
    assert numbarnn.get_device() == "cuda:0"


def test_the_environment_chooses(two_gpus, fresh, monkeypatch, caplog):
    monkeypatch.setenv("NUMBARNN_DEVICE", "cuda:1")
    with caplog.at_level(logging.INFO, "numbarnn"):
        assert numbarnn.get_device() == "cuda:1"
    assert [record.message for record in caplog.records] == ["computing on cuda:1, as NUMBARNN_DEVICE=cuda:1 says"]


def test_blocks_nest_and_end_with_errors(two_gpus):
    with numbarnn.device("cuda:0"):
        with pytest.raises(ZeroDivisionError), numbarnn.device("cuda:1"):
            _ = 1 / 0
        assert numbarnn.get_device() == "cuda:0"
    assert numbarnn.get_device() == "cpu:0"


def test_a_block_is_that_of_its_thread_and_task(two_gpus):
    seen = {}

    def look(name):
        seen[name] = numbarnn.get_device()

    async def task(name):
        with numbarnn.device(name):
            await asyncio.sleep(0.001)
            look(name)

    async def both():
        await asyncio.gather(task("cuda:0"), task("cuda:1"))

    asyncio.run(both())
    with numbarnn.device("cuda:1"):
        thread = threading.Thread(target=look, args=("thread",))
        thread.start()
        thread.join()
    numbarnn.set_device("cuda:1")
    thread = threading.Thread(target=look, args=("process",))
    thread.start()
    thread.join()
    assert seen == {"cuda:0": "cuda:0", "cuda:1": "cuda:1", "thread": "cpu:0", "process": "cuda:1"}


def test_models_keep_to_one_gpu(two_gpus, monkeypatch):
    """Their weights are on the first; kernels that get pointers into another GPU fail, or worse."""
    monkeypatch.setattr(arrays, "_the_gpu", None)
    where = arrays.where_chosen(numbarnn.get_device)
    for _ in range(2):
        with numbarnn.device("cuda:1"):
            assert where() == "cuda:1"
    with numbarnn.device("cpu"):
        assert where() == "cpu:0"
    with numbarnn.device("cuda:0"), pytest.raises(RuntimeError, match="one GPU in a process, here on cuda:1"):
        where()


def test_importing_and_computing_on_the_cpu_loads_nothing_of_cuda():
    code = """
import sys
import numpy as np
import numbarnn
numbarnn.layers.Dense(2)(np.ones((2, 3)))
assert numbarnn.get_device() == "cpu:0"
heavy = [n for n in sys.modules if n.split(".")[0] in ("cupy", "cuda") or n.startswith("numba.cuda.")]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
