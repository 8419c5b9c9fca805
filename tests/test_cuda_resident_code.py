"""Bands S and M in machine code, for every generation of GPUs, without one: nothing spills, nothing is in float64."""

import numpy as np
import pytest
from assembler import CAPABILITIES, check

from numbarnn import cells
from numbarnn.cells.resident import choose

pytestmark = pytest.mark.gpu
MULTIPROCESSORS = 132
BOTH = pytest.mark.parametrize("backward", [False, True])
MOST = {"LSTM": 96, "GRU": 96, "SIMPLE_RNN": 192}  # units of band S
MOST_IN_CLUSTERS = {"LSTM": 256, "GRU": 256, "SIMPLE_RNN": 512}


def arguments(layout, code):
    """Return arguments of the types of a launch."""
    cell, units, batch, steps = layout.cell, 8, 2, 3
    wide = cell.gates * units

    def array(*shape):
        return np.empty(shape, np.float32)

    flags = np.empty((steps, batch), np.uint8)
    tape = array(steps, batch, wide), array(steps, batch, units)
    states, factors = array(cell.states, steps + 1, batch, units), array(1, batch, units)
    sequence = array(batch, steps, units)
    if layout.backward:
        last = array(cell.states, batch, units)
        return (*tape, array(wide, units), states, sequence, last, flags, factors, 0, steps, code, code)
    return (
        *tape, array(units, wide), array(wide), states, sequence, flags, factors, 0, steps, True, code, code,
    )  # fmt: skip


def check_layout(layout, capability, code=None):
    """Assert what must hold for every layout, and that its arithmetic is what the products need."""
    limit = min(255, 65536 // layout.threads // 8 * 8)
    found = check(layout.kernel, arguments(layout, code), capability, registers=limit, divides=False)
    assert found.shared <= layout.shared + 1024  # newer GPUs keep 1 KiB for themselves
    products = layout.rows * layout.weights
    assert products <= found.count("FFMA") < products + (48 if code is None else 600)
    same_for_all = layout.copies == 1 or layout.backward
    loads = layout.rows * layout.constants["QUADS"] * (1 if same_for_all else layout.cell.gates)
    wide = [i for i in found.instructions if i.operation.startswith("LDS") and i.operation.endswith(".128")]
    assert len(wide) == loads
    assert (found.count("STAS") > 0) == (layout.cluster > 1)
    return found


def layout_of(cell, backward, units, copies=0, batch=4 * MULTIPROCESSORS):
    """Return the layout of a large batch, whose blocks have the most rows."""
    return choose(getattr(cells, cell), backward, units, batch, copies, (9, 0), MULTIPROCESSORS)


@BOTH
@pytest.mark.parametrize(
    "cell, capability",
    [
        *(("LSTM", capability) for capability in CAPABILITIES),
        *((cell, capability) for cell in ("GRU", "SIMPLE_RNN") for capability in ((7, 5), (12, 0))),
    ],
    ids=str,
)
def test_band_s_fits_every_gpu(cell, capability, backward):
    layout = layout_of(cell, backward, MOST[cell])
    assert layout.cluster == 1
    check_layout(layout, capability)


@BOTH
@pytest.mark.parametrize(
    "cell, capability",
    [("LSTM", (9, 0)), ("LSTM", (10, 0)), ("LSTM", (12, 0)), ("GRU", (9, 0)), ("SIMPLE_RNN", (9, 0))],
    ids=str,
)
def test_band_m_fits_every_gpu_with_clusters(cell, capability, backward):
    layout = layout_of(cell, backward, MOST_IN_CLUSTERS[cell])
    assert layout.cluster == 8
    check_layout(layout, capability)


@BOTH
@pytest.mark.parametrize(
    "cell, units, code, copies",
    [("LSTM", 96, 3, 0), ("LSTM", 256, 3, 4), ("LSTM", 64, None, 4), ("GRU", 96, 3, 3), ("SIMPLE_RNN", 192, 3, 0)],
)
def test_options_fit_too(cell, units, code, copies, backward):
    """Activations at run time, and dropout factors for each gate."""
    check_layout(layout_of(cell, backward, units, copies), (9, 0), code)


@BOTH
@pytest.mark.parametrize("units", [32, 64, 128, 192])
def test_smaller_sizes_fit(units, backward):
    check_layout(layout_of("LSTM", backward, units, batch=1), (9, 0))
