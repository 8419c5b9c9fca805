"""Bands S and M on a GPU: which layers keep their recurrent weights in registers, in what layout, and their launch.

The kernels are those of `numbarnn.cells.resident_cuda`.  A layout is a set of numbers that they are compiled with; few
layouts serve all sizes, since units are padded.

==== ============== =========== ========== ====================================================
band compute        cell        units      a few rows of the batch are computed by
==== ============== =========== ========== ====================================================
S    7.5 and higher LSTM, GRU   up to 96   a block
S    7.5 and higher SimpleRNN   up to 192  a block
M    9.0 and higher LSTM, GRU   up to 256  a cluster of blocks, 4 (up to 128 units) or 8
M    9.0 and higher SimpleRNN   up to 512  a cluster of blocks, 4 (up to 256 units) or 8
==== ============== =========== ========== ====================================================

Both take float32, any activations, masks, resets and dropout factors; with factors for each gate, the LSTM has room for
64 units in a block.  More units are band L's (`numbarnn.cells.persistent`); band G takes the rest: float64, and the GRU
whose reset gate acts before the product.

What a thread has and does in machine code for compute capability 9.0, LSTM, forward and backward:

========= ======= ======== ========= ========== ============= ============== =====================
units     blocks  threads  weights   registers  products of   16-byte loads  other float32 products
                  a block  a thread             a step, row   of a step, row of a step
========= ======= ======== ========= ========== ============= ============== =====================
32        1       128      32        90, 95     32            2              31, 13
64        1       256      64        128, 124   64            4              31, 13
96        1       384      96        160, 162   96            6              31, 13
128       4       256      64        134, 121   64            4              31, 13
192       8       192      96        165, 168   96            6              31, 13
256       8       256      128       200, 190   128           8              31, 13
========= ======= ======== ========= ========== ============= ============== =====================
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from numbarnn.cells import resident_cuda
from numbarnn.cells.steps_cuda import STEPS

__all__ = ["Layout", "choose", "chosen", "launch", "serves_block", "serves_cluster"]

_WARP = 32
_ROWS = (4, 2, 1)
_SHARED = 48 * 1024  # bytes of shared memory that every GPU gives a block
_REGISTERS = 1 << 16  # of a multiprocessor
_STEP_REGISTERS = 64, 96  # that a thread needs beside its weights; with dropout factors for each gate

# Up to how many units a cell takes which cluster, and in how many pieces the depth is cut forward and backward: so that
# a thread has as many weights as leave it the registers that a step needs.
_GATED = ((32, 1, 4, 4), (64, 1, 4, 4), (96, 1, 4, 4), (128, 4, 8, 2), (192, 8, 8, 1), (256, 8, 8, 1))
_PLAIN = (*((units, 1, 8, 8) for units in (32, 64, 128, 192)), (256, 4, 16, 4), (384, 8, 12, 2), (512, 8, 16, 2))
_SIZES = {"LSTM": _GATED, "GRU": _GATED, "SimpleRNN": _PLAIN}
_THREAD_UNITS = {"LSTM": (1, 4), "GRU": (1, 4), "SimpleRNN": (4, 4)}  # whose weights a thread has, forward and backward
_CLUSTERS_SINCE = 9, 0
_BLOCKS_SINCE = 7, 5


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
        step, step_back = STEPS[self.cell.name]
        threads = max(groups * pieces, self.rows * block_units)
        return {
            "CELL_STEP": step,
            "CELL_STEP_BACK": step_back,
            "GATES": gates,
            "STATES": self.cell.states,
            "PLANES": self.cell.planes,
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

    @property
    def fits(self):
        """Whether registers and shared memory of every GPU suffice for a block."""
        registers = self.threads * (self.weights + _STEP_REGISTERS[self.copies > 1])
        return registers <= _REGISTERS and self.shared <= _SHARED

    @cached_property
    def kernel(self):
        """The kernel of this layout."""
        kernel = resident_cuda.backward if self.backward else resident_cuda.forward
        return kernel.with_constants(max_threads=self.threads, **self.constants)

    def blocks(self, batch):
        """How many blocks a batch takes."""
        return -(-batch // self.rows) * self.cluster


@lru_cache(maxsize=256)
def choose(cell, backward, units, batch, copies, capability, multiprocessors):
    """Return the layout of a layer's pass; None where its weights do not fit the registers.

    A block, or cluster, computes 1, 2 or 4 rows of the batch: as few as let all blocks run at the same time, if any do.
    How many does not change the bits of the results.

    Parameters
    ----------
    cell : Cell
    backward : bool
    units, batch : int
    copies : int
        Dropout factors of an element of h: 0, 1 or one for each gate.
    capability : (int, int)
        Compute capability of the GPU.
    multiprocessors : int
        How many it has.

    Returns
    -------
    Layout or None
    """
    for padded, cluster, *pieces in _SIZES.get(cell.name, ()):
        if units > padded or capability < (_CLUSTERS_SINCE if cluster > 1 else _BLOCKS_SINCE):
            continue
        thread_units = _THREAD_UNITS[cell.name][backward]
        layouts = [
            Layout(cell, backward, rows, padded, cluster, pieces[backward], thread_units, max(1, copies))
            for rows in _ROWS
        ]
        fitting = [layout for layout in layouts if layout.fits]  # from most rows to fewest
        at_once = [layout for layout in fitting if layout.blocks(batch) <= multiprocessors]
        if fitting:
            return at_once[-1] if at_once else fitting[0]
    return None


def chosen(choose, problem, multiprocessors):
    """Return what `choose`, of this module or one like it, has for a `numbarnn.cells.bands_cuda.Problem`, or None."""
    if problem.dtype != np.float32 or not problem.timesteps or not problem.batch:
        return None
    return choose(
        problem.cell, problem.back, problem.units, problem.batch, problem.h_copies, problem.capability, multiprocessors
    )


def serves_block(problem):
    """Whether band S takes a `numbarnn.cells.bands_cuda.Problem`."""
    layout = chosen(choose, problem, 1)
    return layout is not None and layout.cluster == 1


def serves_cluster(problem):
    """Whether band M takes a `numbarnn.cells.bands_cuda.Problem`."""
    layout = chosen(choose, problem, 1)
    return layout is not None and layout.cluster > 1


def launch(problem, *args):
    """Launch band S or M, as `numbarnn.cells.bands_cuda.Band` has it."""
    layout = chosen(choose, problem, problem.multiprocessors)
    codes = (None, None) if problem.own_activations else problem.codes
    cluster = layout.cluster if layout.cluster > 1 else None
    layout.kernel.launch(layout.blocks(problem.batch), layout.threads, *args, *codes, cluster=cluster)
