"""Band L in machine code, for every generation of GPUs, without one: nothing spills, nothing is in float64."""

import numpy as np
import pytest
from assembler import CAPABILITIES, check
from test_cuda_resident_code import arguments

from numbarnn import cells
from numbarnn.cells.persistent import SHARED, THREADS, choose

pytestmark = pytest.mark.gpu
BOTH = pytest.mark.parametrize("backward", [False, True])
REGISTERS = 65536 // THREADS - 1  # of a thread: all that it can have, for a block has a multiprocessor to itself
# How blocks wait for one another: loads past the first cache, arrivals behind a fence, a count that is read anew.
EXCHANGE = "LDG.E.128.STRONG.GPU", "MEMBAR.ALL.GPU", "E.ADD.STRONG.GPU", "LDG.E.STRONG.GPU", "CCTL.IVALL"


def check_plan(capability, name, backward, units, copies=0, code=None, multiprocessors=132):
    """Assert what must hold for every layout, and that its arithmetic is what the products need; return the layout."""
    cell = getattr(cells, name)
    layout = choose(cell, backward, units, 1000, copies, capability, multiprocessors).layout
    *args, activation, recurrent_activation = arguments(layout, code)
    exchange = np.empty((1, 1, 1, 1) if backward else (1, 1, 1), np.float32)
    args = *args, exchange, np.empty(1, np.int32), 1, activation, recurrent_activation
    found = check(layout.kernel, args, capability, registers=REGISTERS, divides=False)
    assert found.shared <= layout.shared + 1024 <= SHARED + 1024  # newer GPUs keep 1 KiB for themselves
    rows = 1 if backward else layout.rows  # backward a loop over the rows
    products = rows * layout.weights
    assert products <= found.count("FFMA") < products + (48 if code is None else 600)
    wide = [i for i in found.instructions if i.operation.startswith("LDS") and i.operation.endswith(".128")]
    assert len(wide) == rows * layout.constants["QUADS"] * (cell.gates if backward or copies > 1 else 1)
    assert all(any(wanted in i.operation for i in found.instructions) for wanted in EXCHANGE)
    return layout


@BOTH
@pytest.mark.parametrize(
    "cell, units, capability, multiprocessors",
    [
        *(("LSTM", 1184, capability, 148) for capability in CAPABILITIES),
        ("GRU", 1024, (8, 0), 108), ("GRU", 640, (12, 0), 132),
        ("SIMPLE_RNN", 1100, (7, 5), 40), ("SIMPLE_RNN", 768, (12, 0), 132),
    ],
    ids=str,
)  # fmt: skip
def test_the_most_weights_fit_every_gpu(cell, units, capability, multiprocessors, backward):
    layout = check_plan(capability, cell, backward, units, multiprocessors=multiprocessors)
    assert layout.weights >= 120 and layout.rows == 4


@BOTH
@pytest.mark.parametrize("cell, units, code, copies", [("LSTM", 768, 3, 0), ("LSTM", 1024, 3, 4), ("GRU", 640, 3, 3)])
def test_options_fit_too(cell, units, code, copies, backward):
    """Activations at run time, and dropout factors for each gate."""
    check_plan((9, 0), cell, backward, units, copies, code)
