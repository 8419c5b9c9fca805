"""Bands S and M in machine code, for every generation of GPUs, without one: nothing spills, nothing is in float64."""

import numpy as np
import pytest
from assembler import CAPABILITIES, check

from numbarnn import cells
from numbarnn.cells.resident import choose

pytestmark = pytest.mark.gpu
MULTIPROCESSORS = 132
WITH_CLUSTERS = [capability for capability in CAPABILITIES if capability >= (9, 0)]
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
    assert not found.calls
    assert found.shared <= layout.shared + 1024  # newer GPUs keep 1 KiB for themselves
    products = layout.rows * layout.weights
    assert products <= found.count("FFMA") < products + (48 if code is None else 600)
    same_for_all = layout.copies == 1 or layout.backward
    loads = layout.rows * layout.constants["QUADS"] * (1 if same_for_all else layout.cell.gates)
    assert loads == found.count("LDS.128")
    assert (found.count("STAS") > 0) == (layout.cluster > 1)
    return found


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("cell", MOST)
@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
def test_band_s_fits_every_gpu(capability, cell, backward):
    check_layout(choose(getattr(cells, cell), backward, MOST[cell], 4 * MULTIPROCESSORS, 0, MULTIPROCESSORS), capability)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("cell", MOST)
@pytest.mark.parametrize("capability", WITH_CLUSTERS, ids=str)
def test_band_m_fits_every_gpu_with_clusters(capability, cell, backward):
    layout = choose(getattr(cells, cell), backward, MOST_IN_CLUSTERS[cell], MULTIPROCESSORS, 0, MULTIPROCESSORS)
    assert layout.cluster == 8
    check_layout(layout, capability)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("cell", MOST)
@pytest.mark.parametrize("units", [96, 256])
def test_options_fit_too(units, cell, backward):
    """Activations at run time, and dropout factors for each gate."""
    cell = getattr(cells, cell)
    check_layout(choose(cell, backward, units, 1, 0, MULTIPROCESSORS), (9, 0), code=3)
    if cell.gates > 1:
        check_layout(choose(cell, backward, units, 1, cell.gates, MULTIPROCESSORS), (9, 0))


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("cell", MOST)
@pytest.mark.parametrize("units", [32, 64, 128, 192, 384])
def test_all_sizes_fit(units, cell, backward):
    for batch in (1, 4 * MULTIPROCESSORS):
        layout = choose(getattr(cells, cell), backward, units, batch, 0, MULTIPROCESSORS)
        if layout is not None:
            check_layout(layout, (9, 0))
