"""The seam to GPUs on Numba's simulator (`tests/gpu_rings.py` sets it up): launching, arrays, products, devices."""

import numpy as np
import pytest

import numbarnn
from numbarnn import cuda, devices
from numbarnn.cells import lstm
from numbarnn.simd import fma

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda.simulated(), reason="needs NUMBA_ENABLE_CUDASIM=1"),
]


@cuda.device_function
def index():
    """Say which thread of the grid this is."""
    return cuda.grid(1)


@cuda.device_function
def neighbour(values, i):
    """Return the next thread's value, by way of shared memory and of another device function."""
    shared = cuda.shared.array(0, values.dtype)
    if index() < values.shape[0]:
        shared[cuda.threadIdx.x] = values[i]
    cuda.syncthreads()
    return shared[(cuda.threadIdx.x + 1) % cuda.blockDim.x]


@cuda.kernel(max_threads=256)
def lstm_step(z, c, h, code):
    """Apply the LSTM's `step` to rows; `code` chooses activations at run time, or is None."""
    i = index()
    if i < h.shape[0]:
        h[i], c[i], _, _, _, _ = lstm.step(z[i, 0], z[i, 1], z[i, 2], z[i, 3], c[i], code, code)


@cuda.kernel
def rotate(a, b):
    """Write the next thread's value, times two, plus one."""
    i = index()
    b[i] = fma(neighbour(a, i), a.dtype.type(2), a.dtype.type(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_launch_runs_the_cells_own_step(rng, dtype):
    z, c, h = (rng.normal(size=shape).astype(dtype) for shape in ((7, 4), 7, 7))
    want_h, want_c, *_ = lstm.step(*z.T, c, None, None)
    lstm_step.launch(2, 4, z, c, h, None)
    np.testing.assert_allclose(h, want_h, rtol=1e-6)
    np.testing.assert_allclose(c, want_c, rtol=1e-6)


def test_device_functions_call_one_another_and_share_memory(rng):
    a = rng.normal(size=6).astype(np.float32)
    b = np.empty_like(a)
    rotate.launch(1, 6, a, b, shared=6 * 4)
    np.testing.assert_array_equal(b, 2 * np.roll(a, -1) + 1)


def test_what_a_gpu_does_not_take_the_simulator_refuses(rng):
    a = rng.normal(size=(6, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="C-contiguous"):
        rotate.launch(1, 6, a[:, 0], a[:, 1])
    with pytest.raises(TypeError, match="Python float 1.0"):
        lstm_step.launch(1, 6, a, a, a, 1.0)


def test_a_simulated_gpu_is_one_that_must_be_asked_for():
    assert cuda.why_not() is None and cuda.device_count() == 1 and cuda.array_module() is np
    numbarnn.set_device("auto")
    assert numbarnn.get_device() == "cpu:0"
    with numbarnn.device("cuda"):
        assert numbarnn.get_device() == "cuda:0" and devices.gpu() == 0
    with pytest.raises(ValueError, match='the GPUs here are "cuda:0"'), numbarnn.device("cuda:1"):
        pass


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_products(rng, transpose_a, transpose_b):
    a, b = rng.normal(size=(3, 5)), rng.normal(size=(5, 4))
    given = a.T.copy() if transpose_a else a, b.T.copy() if transpose_b else b
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    np.testing.assert_allclose(cuda.gemm(*given, **options), a @ b)
    out = np.ones((3, 4))
    assert cuda.gemm(*given, **options, out=out) is out
    np.testing.assert_allclose(out, a @ b)
    cuda.gemm(*given, **options, out=out, accumulate=True)
    np.testing.assert_allclose(out, 2 * (a @ b))


def test_products_of_nothing():
    out = np.ones((3, 4))
    cuda.gemm(np.ones((3, 0)), np.ones((0, 4)), out=out, accumulate=True)
    assert (out == 1).all()
    cuda.gemm(np.ones((3, 0)), np.ones((0, 4)), out=out)
    assert (out == 0).all()
    assert cuda.gemm(np.ones((0, 5)), np.ones((5, 4))).shape == (0, 4)


def test_products_that_do_not_fit_are_refused():
    a, b = np.ones((3, 5)), np.ones((5, 4))
    for given, options, message in [
        ((a, b.astype(np.float32)), {}, "one dtype"),
        ((a, b[0]), {}, "matrices"),
        ((a.astype(int), b.astype(int)), {}, "float32 or float64"),
        ((a, b), {"transpose_a": True}, "3 columns and 5 rows"),
        ((a, b), {"accumulate": True}, "needs out"),
        ((a, b), {"out": np.ones((4, 3))}, r"shape \(3, 4\), got float64\(4, 3\)"),
        ((a, b), {"out": np.ones((4, 3)).T}, "C-contiguous"),
    ]:
        with pytest.raises(ValueError, match=message):
            cuda.gemm(*given, **options)


def test_tf32_is_asked_for():
    assert cuda.get_tf32() is False
    with pytest.raises(TypeError, match="True or False"):
        cuda.set_tf32("yes")
    cuda.set_tf32(True)
    try:
        assert cuda.get_tf32() is True
    finally:
        cuda.set_tf32(False)
