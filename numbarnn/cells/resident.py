"""Bands S and M on a GPU: which layers keep their recurrent weights in registers, in what layout, and their launch.

The kernels are those of `numbarnn.cells.resident_cuda`.  A layout is a set of numbers that they are compiled with; few
layouts serve all sizes, since units are padded.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbarnn.cells import resident_cuda

__all__ = ["Layout", "choose"]

_STEPS = {
    "LSTM": (resident_cuda.lstm_step, resident_cuda.lstm_step_back),
    "GRU": (resident_cuda.gru_step, resident_cuda.gru_step_back),
    "SimpleRNN": (resident_cuda.simple_rnn_step, resident_cuda.simple_rnn_step_back),
}
_WARP = 32
_SHARED = 48 * 1024  # bytes of shared memory that every GPU gives a block
_ROWS = (1, 2, 4)

# Up to how many units a cell takes which cluster, in how many pieces forward and backward: as many weights to a thread
# as leave it the registers that a step needs.
_SIZES = {
    "LSTM": [(32, 1, 4, 4), (64, 1, 4, 4), (96, 1, 4, 4), (128, 4, 8, 2), (192, 8, 8, 1), (256, 8, 8, 1)],
    "GRU": [(32, 1, 4, 4), (64, 1, 4, 4), (96, 1, 4, 4), (128, 4, 8, 2), (192, 8, 8, 1), (256, 8, 8, 1)],
    "SimpleRNN": [
        (32, 1, 8, 8), (64, 1, 8, 8), (128, 1, 8, 8), (192, 1, 8, 8), (256, 4, 16, 4), (384, 8, 12, 2), (512, 8, 16, 2),
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """How a pass lies on blocks and threads.

    Attributes
    ----------
    cell : Cell
        LSTM, GRU or SimpleRNN.
    backward : bool
        Which pass.
    rows : int
        Rows of the batch that a cluster computes.
    units : int
        Units, padded to a multiple of ``4 * pieces`` forward, of ``4 * cluster * pieces`` backward.
    cluster : int
        Blocks that share the units; 1: band S.
    pieces : int
        Into how many pieces, a thread each, the depth of a product is cut; backward that of each gate.
    thread_units : int
        Units whose weights a thread holds.
    copies : int
        Dropout factors of h: G where each gate has its own, else 1.
    """

    cell: object
    backward: bool
    rows: int
    units: int
    cluster: int
    pieces: int
    thread_units: int
    copies: int = 1

    @cached_property
    def constants(self):
        """The kernels' constants, by name."""
        gates, block_units = self.cell.gates, self.units // self.cluster
        depth = block_units if self.backward else self.units
        groups = (self.units if self.backward else block_units) // self.thread_units
        pieces = self.pieces * gates if self.backward else self.pieces
        row = gates * block_units if self.backward else self.units  # factors of the products, in shared memory
        sums_row = self.units if self.backward else gates * block_units
        copies = 1 if self.backward else self.copies
        stages = 2 if self.cluster > 1 and not self.backward else 1
        sums = stages * copies * self.rows * row
        slots = sums + pieces * self.rows * sums_row
        slots_size = self.rows * self.units if self.cluster > 1 and self.backward else 0
        barriers = slots + 2 * slots_size
        step, step_back = _STEPS[self.cell.name]
        threads = max(groups * pieces, self.rows * block_units)
        return {
            "CELL_STEP": step,
            "CELL_STEP_BACK": step_back,
            "GATES": gates,
            "STATES": self.cell.states,
            "PLANES": self.cell.planes,
            "IN_GATES": gates,
            "ROWS": self.rows,
            "UNITS": self.units,
            "CLUSTER": self.cluster,
            "BLOCK_UNITS": block_units,
            "COPIES": self.copies,
            "THREADS": -(-threads // _WARP) * _WARP,
            "GROUPS": groups,
            "THREAD_UNITS": self.thread_units,
            "PIECES": pieces,
            "GATE_PIECES": self.pieces,
            "QUADS": depth // (4 * self.pieces),
            "STAGE_ROW": row,
            "STAGE_COPY": self.rows * row,
            "STAGE_SIZE": sums // 2 if stages == 2 else 0,
            "SOURCE_GATE": self.rows * row if copies > 1 else 0,
            "SUMS": sums,
            "SUMS_ROW": sums_row,
            "SUMS_PIECE": self.rows * sums_row,
            "SLOTS": slots,
            "SLOTS_PIECE": self.rows * block_units,
            "SLOTS_SIZE": slots_size,
            "BARRIERS": barriers,
            "SHARED": barriers + (4 if self.cluster > 1 else 0),
        }

    @property
    def threads(self):
        """Threads of a block."""
        return self.constants["THREADS"]

    @property
    def weights(self):
        """Weights that a thread holds, each in a register."""
        return 4 * self.constants["QUADS"] * self.thread_units * (1 if self.backward else self.cell.gates)

    @property
    def shared(self):
        """Bytes of shared memory of a block."""
        return 4 * self.constants["SHARED"]

    def blocks(self, batch):
        """How many blocks a batch takes."""
        return -(-batch // self.rows) * self.cluster

    @property
    def kernel(self):
        """The kernel, compiled for this layout."""
        kernel = resident_cuda.backward if self.backward else resident_cuda.forward
        return kernel.with_constants(max_threads=self.threads, **self.constants)

    def launch(self, *args):
        """Run the kernel; its arguments are those of band G."""
        states = args[5] if not self.backward else args[3]
        cluster = self.cluster if self.cluster > 1 else None
        self.kernel.launch(self.blocks(states.shape[2]), self.threads, *args, cluster=cluster)


def choose(cell, units, batch, dtype, copies, capability, multiprocessors):
    """Return the layouts of a layer's two passes, or None where its weights do not fit the registers.

    ============== ========== ============== ================================================
    compute        dtype      cell           units
    ============== ========== ============== ================================================
    7.5 and higher float32    LSTM, GRU      up to 96: band S
    7.5 and higher float32    SimpleRNN      up to 192: band S
    9.0 and higher float32    LSTM, GRU      97 to 256: band M, clusters of 4 (to 128) or 8
    9.0 and higher float32    SimpleRNN      193 to 512: band M, clusters of 4 (to 256) or 8
    ============== ========== ============== ================================================

    Anything else is band G's.  A block or cluster computes 1, 2 or 4 rows of the batch, the fewest with which all blocks
    run at the same time; beyond that, blocks wait for their turn.

    Parameters
    ----------
    cell : Cell
    units, batch : int
    dtype : str or dtype
    copies : int
        Dropout factors of h: 0, 1 or one for each gate.
    capability : (int, int)
        Compute capability of the GPU.
    multiprocessors : int
        How many it has.

    Returns
    -------
    (Layout, Layout) or None
        Forward and backward.
    """
    if np.dtype(dtype) != np.float32 or capability < (7, 5):
        return None
    size = next((size for size in _SIZES.get(cell.name, ()) if units <= size[0]), None)
    if size is None or (size[1] > 1 and capability < (9, 0)):
        return None
    padded, cluster, *pieces = size
    fewest = next((rows for rows in _ROWS if -(-batch // rows) * cluster <= multiprocessors), _ROWS[-1])
    thread_units = 4 if cell.gates == 1 else 1, 4
    for rows in reversed(_ROWS[: _ROWS.index(fewest) + 1]):
        layouts = tuple(
            Layout(cell, backward, rows, padded, cluster, pieces[backward], thread_units[backward], max(1, copies))
            for backward in (False, True)
        )
        if all(layout.shared <= _SHARED for layout in layouts):
            return layouts
    return None
