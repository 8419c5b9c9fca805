"""The machine code of band G's kernels, for every generation of GPUs (`tests/gpu_rings.py` runs this)."""

import numpy as np
import pytest
from assembler import CAPABILITIES, check
from test_cell_kernels import CELLS

from numbarnn.cells import bands_cuda

pytestmark = pytest.mark.gpu


def of_types(dtype, back):
    """Return arguments of the types that the kernels take."""
    (one, three, four), flags = (np.empty((1,) * n, dtype) for n in (1, 3, 4)), np.empty((1, 1), np.uint8)
    if back:
        return three, three, one, four, three, three, flags, three, 0, 1, 0, 1
    return three, three, one, one, four, three, flags, three, 0, 1, True, 0, 1


# LSTM, and the cell with loops of its own, for every GPU; the others, in LSTM's loops, for the first and the last.
WHOLE, SOME = CAPABILITIES, (CAPABILITIES[0], (9, 0), CAPABILITIES[-1])
CASES = [
    *((cell, "float32", bands_cuda.rows_of_a_thread(c), c)
      for cell in CELLS for c in (WHOLE if cell in ("LSTM", "GRU_RESET_BEFORE") else SOME)),
    *((cell, "float32", 1, (9, 0)) for cell in CELLS),
    *((cell, "float64", 4, (7, 5)) for cell in CELLS),
    *((cell, "float64", 1, (9, 0)) for cell in ("LSTM", "GRU_RESET_BEFORE")),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "dtype", "rows", "capability"), CASES, ids=str)
def test_machine_code(capability, dtype, rows, cell):
    loops = bands_cuda._LOOPS[CELLS[cell].name]
    for loop, back in ((loops.forward, False), (loops.backward, True)):
        kernel = loop.with_constants(max_threads=bands_cuda.THREADS, ROWS=rows)
        # The products of a thread's rows, which the loop over them reads.
        local = 4 * rows * np.dtype(dtype).itemsize
        wide = dtype == "float64"
        # All that a thread can have: with 128 threads two blocks still share a multiprocessor, as they do with 200.
        check(kernel, of_types(dtype, back), capability, registers=255, local=local, float64=wide, grid_barrier=True)
