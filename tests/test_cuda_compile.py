"""Kernels for NVIDIA GPUs compiled and assembled for every generation, without a GPU (`tests/gpu_rings.py` runs this).

What the seam promises to those who write kernels, on small ones around a cell's `step`.
"""

import subprocess
import sys

import numpy as np
import pytest
from assembler import CAPABILITIES, check, examine

from numbarnn import cuda
from numbarnn.cells import lstm
from numbarnn.cuda import compiling, kernels
from numbarnn.simd import fma

pytestmark = pytest.mark.gpu


@cuda.device_function
def index():
    """Say which thread of the grid this is."""
    return cuda.grid(1)


@cuda.device_function
def staged(values, row):
    """Return a value by way of shared memory."""
    shared = cuda.shared.array(0, values.dtype)
    shared[cuda.threadIdx.x] = values[row]
    cuda.syncthreads()
    return shared[cuda.threadIdx.x]


@cuda.kernel(max_threads=256)
def lstm_step(z, c, h, tape, code, n):
    """Apply the LSTM's `step` to rows; `code` chooses activations at run time, or is None."""
    i = index()
    if i < n:
        new_h, new_c, ki, kf, kg, ko = lstm.step(z[i, 0], z[i, 1], z[i, 2], z[i, 3], staged(c, i), code, code)
        h[i] = new_h
        c[i] = new_c
        tape[i, 0], tape[i, 1], tape[i, 2], tape[i, 3] = ki, kf, kg, ko


@cuda.kernel(max_threads=256)
def lstm_back(dh, dc, tape, c0, c, dz, code):
    """Apply the LSTM's `step_back` to rows."""
    i = index()
    if i < dh.shape[0]:
        dz[i, 0], dz[i, 1], dz[i, 2], dz[i, 3], dc[i] = lstm.step_back(
            dh[i], dc[i], tape[i, 0], tape[i, 1], tape[i, 2], tape[i, 3], c0[i], c[i], code, code
        )


@cuda.kernel(max_threads=256)
def unfused(a, b, c):
    """Multiply, add: two roundings, as the code says."""
    i = index()
    if i < c.shape[0]:
        c[i] = a[i] * b[i] + c[i]


@cuda.kernel(max_threads=256)
def fused(a, b, c):
    """Multiply and add: one rounding, as the code says."""
    i = index()
    if i < c.shape[0]:
        c[i] = fma(a[i], b[i], c[i])


@cuda.kernel(max_threads=256)
def divided(a, b, c):
    """Divide to the last bit."""
    i = index()
    if i < c.shape[0]:
        c[i] = a[i] / b[i]


@cuda.kernel(max_threads=256, fast_division=True)
def roughly_divided(a, b, c):
    """Divide to two units in the last place."""
    i = index()
    if i < c.shape[0]:
        c[i] = a[i] / b[i]


@cuda.kernel
def grid_wide(a, steps):
    """Let all blocks wait for one another."""
    i = cuda.grid(1)
    grid = cuda.cg.this_grid()
    for _ in range(steps):
        if i + 1 < a.shape[0]:
            a[i] = a[i + 1]
        grid.sync()


@cuda.kernel
def careless(a):
    """Compute in float64 without wanting to."""
    i = cuda.grid(1)
    if i < a.shape[0]:
        a[i] = a[i] * 0.1


def arrays(dtype, *shapes):
    """Return arrays for their types."""
    return [np.empty(shape, dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("code, capability", [*((None, c) for c in CAPABILITIES), (3, (9, 0))], ids=str)
def test_a_step_becomes_machine_code(capability, dtype, code):
    z, c, h, tape = arrays(dtype, (7, 4), 7, 7, (7, 4))
    wide = dtype is np.float64
    check(lstm_step, (z, c, h, tape, code, np.int32(7)), capability, registers=96 if code else 48, float64=wide)
    check(lstm_back, (h, c, tape, c, c, z, code), capability, registers=96 if code else 48, float64=wide)


def test_an_argument_becomes_as_many_parameters_as_are_passed():
    """A launch passes numbers one by one: as many as the machine code takes, in its order and sizes."""
    from cuda.core._kernel_arg_handler import ParamHolder

    z, c, h, tape = arrays(np.float32, (7, 4), 7, 7, (7, 4))
    args = z, c, h, tape, None, np.int32(7)
    taken = examine(lstm_step, args, (9, 0)).parameters
    passed = [number for arg in args for number in kernels.flattened(OnDevice.of(arg), compiling.type_of(arg))]
    assert taken == len(passed) == 2 * 9 + 2 * 7 + 1 + 1
    ParamHolder(tuple(passed))  # cuda-core takes every one of them
    assert passed[:9] == [0, 0, 28, 4, z.ctypes.data, 7, 4, 16, 4]
    assert passed[-2:] == [0, 7] and passed[-1].dtype == np.int32
    ptx = lstm_step.compile(args, (9, 0)).ptx
    sizes = [line.split()[1] for line in ptx.partition(".entry")[2].partition(")")[0].splitlines() if ".param" in line]
    assert sizes == [".u64"] * 33 + [".u32"]


class OnDevice:
    """What CuPy's arrays have, of a NumPy array."""

    def __init__(self, array):
        self.array = array
        self.data = self
        self.ptr = array.ctypes.data

    def __getattr__(self, name):
        return getattr(self.array, name)

    @classmethod
    def of(cls, arg):
        return cls(arg) if isinstance(arg, np.ndarray) else arg


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_nothing_is_fused_but_what_the_code_says(capability):
    abc = arrays(np.float32, 9, 9, 9)
    code = examine(unfused, abc, capability)
    assert code.count("FFMA") == 0 and code.count("FMUL") == 1 and code.count("FADD") == 1
    code = examine(fused, abc, capability)
    assert code.count("FFMA") == 1 and code.count("FMUL") == 0 and code.count("FADD") == 0


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_only_exact_division_has_a_subroutine(capability):
    abc = arrays(np.float32, 9, 9, 9)
    assert check(divided, abc, capability, registers=40).calls
    assert not check(roughly_divided, abc, capability, registers=40, divides=False).calls
    with pytest.raises(AssertionError, match="calls"):
        check(divided, abc, capability, registers=40, divides=False)


def test_the_barrier_of_the_grid_is_linked_in():
    (a,) = arrays(np.float32, 9)
    assert check(grid_wide, (a, 3), (8, 0), registers=48, grid_barrier=True).calls
    with pytest.raises(AssertionError, match="calls.*cudaCGSynchronize"):
        check(grid_wide, (a, 3), (8, 0), registers=48)


def test_the_examination_sees_what_is_wrong():
    z, c, h, tape = arrays(np.float32, (7, 4), 7, 7, (7, 4))
    with pytest.raises(AssertionError, match="float64 instructions"):
        check(careless, (c,), (9, 0), registers=40)
    with pytest.raises(AssertionError, match="registers"):
        check(lstm_step, (z, c, h, tape, None, 7), (9, 0), registers=8)


def test_what_no_kernel_takes_is_refused():
    a, b, c = arrays(np.float32, 9, 9, (9, 9))
    with pytest.raises(TypeError, match="Python float 1.0"):
        fused.compile((a, b, 1.0), (9, 0))
    with pytest.raises(TypeError, match="arrays, numbers"):
        fused.compile((a, b, "c"), (9, 0))
    with pytest.raises(ValueError, match=r"C-contiguous arrays, got one of shape \(9,\)"):
        fused.compile((a, b, c[:, 0]), (9, 0))


def test_a_gpu_newer_than_the_assembler_is_told_what_to_update():
    with pytest.raises(
        RuntimeError, match=r"nvJitLink \d+\.\d+, does not know .* 99\.0 .*: the GPU is newer.*pip install"
    ):
        fused.compile(arrays(np.float32, 9, 9, 9), (99, 0))


IN_A_NEW_PROCESS = """
import numpy as np
from numbarnn.cuda import compiling
from test_cuda_compile import fused
kinds = (("float32", 1),) * 3
stored = fused._cache.load(kinds, (9, 0))
assert stored and stored.entry in stored.ptx and stored.cubin[:4] == b"\\x7fELF", stored
assert fused._cache.load(kinds, (8, 0)) is None
assert fused._cache.load((("float64", 1),) * 3, (9, 0)) is None
"""


def test_machine_code_is_kept_on_disk(tmp_path, monkeypatch):
    from numbarnn import kernel_cache

    monkeypatch.setenv("NUMBARNN_CACHE_DIR", str(tmp_path))
    kernel_cache._folders.cache_clear()
    try:
        kinds = (("float32", 1),) * 3
        assert fused._cache.load(kinds, (9, 0)) is None
        fused._cache.save(kinds, (9, 0), fused.compile(arrays(np.float32, 9, 9, 9), (9, 0)))
        subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS], check=True, cwd=sys.path[0])
    finally:
        monkeypatch.undo()
        kernel_cache._folders.cache_clear()
