"""The machine code of band G's kernels, for every generation of GPUs (`tests/gpu_rings.py` runs this)."""

import numpy as np
import pytest
from assembler import CAPABILITIES, check
from test_cell_kernels import CELLS, EACH

from numbarnn.cells import bands_cuda

pytestmark = pytest.mark.gpu


def of_types(dtype, back):
    """Return arguments of the types that the kernels take."""
    (one, three, four), flags = (np.empty((1,) * n, dtype) for n in (1, 3, 4)), np.empty((1, 1), np.uint8)
    if back:
        return three, three, one, four, three, three, flags, three, 0, 1, 0, 1
    return three, three, one, one, four, three, flags, three, 0, 1, True, 0, 1


@EACH
@pytest.mark.parametrize(
    ("rows", "dtype", "capability"),
    [
        *((bands_cuda.rows_of_a_thread(capability), "float32", capability) for capability in CAPABILITIES),
        (1, "float32", (9, 0)), (4, "float64", (7, 5)), (1, "float64", (9, 0)),
    ],
    ids=str,
)  # fmt: skip
def test_machine_code(capability, dtype, rows, cell):
    loops = bands_cuda._LOOPS[CELLS[cell].name]
    for loop, back in ((loops.forward, False), (loops.backward, True)):
        kernel = loop.with_constants(max_threads=bands_cuda.THREADS, ROWS=rows)
        # The products of a thread's rows, which the loop over them reads.
        local = 4 * rows * np.dtype(dtype).itemsize
        wide = dtype == "float64"
        # All that a thread can have: with 128 threads two blocks still share a multiprocessor, as they do with 200.
        check(kernel, of_types(dtype, back), capability, registers=255, local=local, float64=wide, grid_barrier=True)
