"""Which kernels run a cell on a GPU: bands of sizes, each with a layout of its own for the same arrays.

All bands take the arrays of `numbarnn.cells.rows_cuda`, and leave on the tape what those do, so that a pass may go
forward in one band and back in another.  Band G serves everything.  A faster band is entered in `BANDS` before it: its
`serves` says whether it takes a `Problem`, by the cell, the options, the sizes, the dtype and the GPU.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from numbarnn.cells import gru_cuda, gru_reset_before_cuda, lstm_cuda, persistent, resident, simple_rnn_cuda
from numbarnn.cells.contract import Cell

__all__ = ["BANDS", "Band", "Problem", "choose_band", "rows_of_a_thread"]

#: Threads of a block in band G, at most: all, and along units and groups of rows.
THREADS = 128
BLOCK = 32, 4
#: Elements of a state from which on a thread of band G computes several rows: below, the GPU needs all threads that it
#: can get to hide how long memory takes.
MANY = 1 << 16

_LOOPS = {
    "LSTM": lstm_cuda,
    "GRU": gru_cuda,
    "GRU (reset before)": gru_reset_before_cuda,
    "SimpleRNN": simple_rnn_cuda,
}


class Problem(NamedTuple):
    """What a band is chosen by.

    Attributes
    ----------
    cell : numbarnn.cells.Cell
    back : bool
        The way back, not the way forward.
    batch, timesteps, units : int
        B, T, H.
    dtype : numpy.dtype
        float32 or float64.
    codes : (int, int)
        Of activation and recurrent activation, in `numbarnn.simd_math.ACTIVATIONS`.
    own_activations : bool
        They are the cell's default pair.
    h_copies : int
        M: how many dropout factors there are for an element of h.
    saving : bool
        The tape is kept for the way back.
    capability : (int, int)
        The GPU's compute capability.
    multiprocessors : int
        How many it has.
    """

    cell: Cell
    back: bool
    batch: int
    timesteps: int
    units: int
    dtype: np.dtype
    codes: tuple[int, int]
    own_activations: bool
    h_copies: int
    saving: bool
    capability: tuple[int, int]
    multiprocessors: int


class Band(NamedTuple):
    """Kernels for some problems.

    Attributes
    ----------
    name : str
        A letter, for tests and curious users.
    serves : callable
        ``serves(problem) -> bool``.
    launch : callable
        ``launch(problem, *args)``: `forward` or, with ``problem.back``, `backward` of `numbarnn.cells.rows_cuda` with
        all arguments but the activations, on the current GPU and stream.
    """

    name: str
    serves: Callable
    launch: Callable


def rows_of_a_thread(capability):
    """Return how many rows a thread of band G computes where there are many: four do not fit the newest registers.

    The assembler unrolls the loop over them further for compute capability 10 and later, and spills.
    """
    return 4 if capability < (10, 0) else 2


def _launch_grid(problem, *args):
    """Launch band G: as many blocks as there is work for and as the GPU runs at the same time."""
    loops = _LOOPS[problem.cell.name]
    rows = rows_of_a_thread(problem.capability) if problem.batch * problem.units >= MANY else 1
    kernel = (loops.backward if problem.back else loops.forward).with_constants(max_threads=THREADS, ROWS=rows)
    groups = -(-problem.batch // rows)
    block = min(BLOCK[0], problem.units), min(BLOCK[1], groups)
    weights = args[2].reshape(-1)
    args = *args[:2], weights, *args[3:], *problem.codes
    most = kernel.resident_blocks(block, *args)
    across = min(-(-problem.units // block[0]), most)
    down = min(-(-groups // block[1]), most // across)
    kernel.launch((across, down), block, *args, cooperative=True)


#: In the order in which they are asked.
BANDS = [
    Band("S", resident.serves_block, resident.launch),
    Band("M", resident.serves_cluster, resident.launch),
    Band("L", persistent.serves, persistent.launch),
    Band("G", lambda problem: True, _launch_grid),
]


def choose_band(problem):
    """Return the first of `BANDS` that serves a problem.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    Band
    """
    return next(band for band in BANDS if band.serves(problem))
