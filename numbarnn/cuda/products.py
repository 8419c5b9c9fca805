"""Products of matrices on the GPU, by cuBLAS."""

import numpy as np

from numbarnn.cuda.arrays import array_module, empty, stands_in
from numbarnn.cuda.machine import current_device, device_of

_tf32 = False


def set_tf32(enabled):
    """Allow products of float32 matrices to round their factors to TF32 (10 bits), on tensor cores; not by default.

    Parameters
    ----------
    enabled : bool
    """
    global _tf32
    if not isinstance(enabled, bool | np.bool_):
        raise TypeError(f"set_tf32: enabled must be True or False, got {enabled!r}")
    _tf32 = bool(enabled)


def get_tf32():
    """Say whether products of float32 matrices may use TF32."""
    return _tf32


def _check(name, array):
    """Refuse an operand that cuBLAS would read, or write, at a place where it is not."""
    if array is None and name == "out":
        return
    if not isinstance(array, array_module().ndarray):
        raise TypeError(
            f"gemm: {name} must be an array on the GPU, got {type(array).__module__}.{type(array).__name__}"
        )
    if device_of(array) != current_device():
        raise ValueError(
            f"gemm: {name} must be on the GPU that computes, cuda:{current_device()}; got {array.dtype}"
            f"{tuple(array.shape)} on cuda:{device_of(array)}"
        )


def gemm(a, b, *, transpose_a=False, transpose_b=False, out=None, accumulate=False):
    """Multiply two matrices on the GPU: ``out = op(a) @ op(b)``, by cuBLAS.

    Parameters
    ----------
    a, b : device array of shape (m, k) and (k, n)
        Of the same dtype, float32 or float64; C-contiguous, or rows of a C-contiguous matrix.
    transpose_a, transpose_b : bool
        Take that operand transposed: then `a` has the shape (k, m), `b` (n, k).
    out : device array of shape (m, n), C-contiguous, optional
        Where the result goes; new by default.
    accumulate : bool
        Add to `out` instead of replacing it.

    Returns
    -------
    device array of shape (m, n)

    Raises
    ------
    TypeError
        For an operand that is no array on a GPU.
    ValueError
        For shapes or dtypes that do not fit, `accumulate` without `out`, or an array on another GPU than the current
        one.
    """
    for name, array in (("a", a), ("b", b), ("out", out)):
        _check(name, array)
    if a.ndim != 2 or b.ndim != 2 or a.dtype != b.dtype or a.dtype.char not in "fd":
        raise ValueError(
            "gemm: a and b must be matrices of one dtype, float32 or float64, got "
            f"{a.dtype}{tuple(a.shape)} and {b.dtype}{tuple(b.shape)}"
        )
    m, k = a.shape[::-1] if transpose_a else a.shape
    rows, n = b.shape[::-1] if transpose_b else b.shape
    if rows != k:
        raise ValueError(f"gemm: the operands have {k} columns and {rows} rows, which should be the same")
    if accumulate and out is None:
        raise ValueError("gemm: accumulate=True needs out, the array to add to")
    if out is None:
        out = empty((m, n), a.dtype)
    elif out.shape != (m, n) or out.dtype != a.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"gemm: out must be a C-contiguous {a.dtype} array of shape {(m, n)}, got {out.dtype}{tuple(out.shape)}"
        )
    if not (m and n and k):
        if not accumulate:
            out[...] = 0
        return out
    module = array_module()
    if not stands_in():
        return _cublas(a, b, transpose_a, transpose_b, out, accumulate)
    product = module.matmul(a.T if transpose_a else a, b.T if transpose_b else b)
    out[...] = out + product if accumulate else product
    return out


def _cublas(a, b, transpose_a, transpose_b, out, accumulate):
    from cupy import cublas
    from cupy.cuda import device
    from cupy_backends.cuda.libs import cublas as library

    handle = device.get_cublas_handle()
    before = library.getMathMode(handle)
    library.setMathMode(handle, library.CUBLAS_TF32_TENSOR_OP_MATH if _tf32 else library.CUBLAS_DEFAULT_MATH)
    try:
        return cublas.gemm(
            "T" if transpose_a else "N", "T" if transpose_b else "N", a, b, out=out, beta=1.0 if accumulate else 0.0
        )
    finally:
        library.setMathMode(handle, before)
