"""The one way to NVIDIA GPUs: which are there, arrays and products on them, and how kernels are compiled and launched.

This package and `ptxops.py` alone name numba-cuda, CuPy, cuda-core and PTX.  Importing it imports none of them: they
are looked for when something is asked of a GPU (``pip install 'numbarnn[cuda]'`` installs them).

How to write a kernel, in a file ``cells/*_cuda.py``::

    from numbarnn import cuda
    from numbarnn.cells.lstm import step          # the cell's formula, on scalars; nothing is said twice
    from numbarnn.simd import fma

    @cuda.device_function                         # a helper that uses `cuda` itself; a plain formula needs no decorator
    def lane():
        return cuda.threadIdx.x % 32

    @cuda.kernel(max_threads=256)
    def forward(z, c, h, code, n):
        i = cuda.grid(1)                          # here `cuda` is Numba's: grid, threadIdx, shared, syncthreads, ...
        if i < n:
            h[i], c[i], ki, kf, kg, ko = step(z[i, 0], z[i, 1], z[i, 2], z[i, 3], c[i], code, code)

    forward.launch(blocks, 256, z, c, h, None, np.int32(n))

- Within kernels and device functions the name of this package stands for `numba.cuda`, under the simulator for the
  simulator's, and in `Kernel.python` for any emulator.  Give it no other name than ``cuda``, and import intrinsics and
  device functions by name.  Functions decorated with `numbarnn.jit.device` (``step``, ``step_back``, the activations of
  `simd_math`, `like`, `where`, `fma`) are compiled in as they are.
- Arguments are C-contiguous device arrays, whole numbers (int64), NumPy scalars (their own type), truth values and
  None.  None is a constant for the compiler: ``code=None`` cuts off all activations but the cell's own pair.  A Python
  float is refused: it would make float64 of float32.
- Nothing is fused that the code does not say: write ``fma(a, b, c)`` in every sum of products.  Bare literals make
  float64 of float32: use ``like(z, 0.5)``, or ``z.dtype.type(0)``.
- Division is exact to the last bit, through a subroutine for the rare operands; ``fast_division=True`` is 2 units in
  the last place off, without one, and gives 0 for divisors above 2**126.
- Shared memory of a size known at launch: ``cuda.shared.array(0, z.dtype)`` and ``launch(..., shared=bytes)``; several
  of them are one memory, so slice one.
- A launch goes to CuPy's current stream of the thread; who launches on arrays that are kept does it within `in_order`
  (see `numbarnn.cuda.machine`).
"""

from numbarnn.cuda.arrays import (
    Event,
    array_module,
    empty,
    erf,
    free_memory,
    is_device_array,
    poisoned_memory,
    simulated,
    stands_in,
    to_device,
    to_host,
    use_array_module,
    zeros,
)
from numbarnn.cuda.compiling import Compiled, DeviceFunction, device_function
from numbarnn.cuda.kernels import Kernel, kernel
from numbarnn.cuda.machine import (
    capability,
    compute_capability,
    current_device,
    device_count,
    device_name,
    device_of,
    in_order,
    make_current,
    multiprocessors,
    on_device,
    require,
    synchronize,
    why_not,
)
from numbarnn.cuda.products import gemm, get_tf32, set_tf32

__all__ = [
    "Compiled",
    "DeviceFunction",
    "Event",
    "Kernel",
    "array_module",
    "capability",
    "compute_capability",
    "current_device",
    "device_count",
    "device_function",
    "device_name",
    "device_of",
    "empty",
    "erf",
    "free_memory",
    "gemm",
    "get_tf32",
    "in_order",
    "is_device_array",
    "kernel",
    "make_current",
    "multiprocessors",
    "on_device",
    "poisoned_memory",
    "require",
    "set_tf32",
    "simulated",
    "stands_in",
    "synchronize",
    "to_device",
    "to_host",
    "use_array_module",
    "why_not",
    "zeros",
]
