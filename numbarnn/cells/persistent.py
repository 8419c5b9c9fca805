"""Band L on a GPU: which layers share their recurrent weights among all blocks of a grid, in what layout; their launch.

The kernels are those of `numbarnn.cells.persistent_cuda`.  Blocks, a multiprocessor each, divide the weights by units,
8 to 64 a block, so that no thread has more than 160; where that takes but a part of the multiprocessors, groups of rows
of the batch share them out.  So the GPU bounds the number of units:

=============== ======================= ======================= ====================
multiprocessors LSTM, forward, backward GRU, forward, backward  SimpleRNN, both ways
=============== ======================= ======================= ====================
40              640, 512                640, 640                1280
82              840, 768                984, 984                1280
108             864, 864                1092, 1024              1280
132             1056, 1056              1092, 1056              1280
148             1184, 1184              1184, 1184              1280
=============== ======================= ======================= ====================

It takes float32, compute capability 7.5 and higher, any activations, masks, resets and dropout factors, also for each
gate.  What it does not take is band G's: float64, more units, and the GRU whose reset gate acts before the product.

What a thread has and does in machine code for compute capability 9.0, LSTM, forward and backward, with a product for
each weight in a step of a row:

===== ========== ============ ======== ============= ==================
units units      blocks that  weights  registers     16-byte loads of
      of a block share a row           of a thread   a step, row
===== ========== ============ ======== ============= ==================
256   32         8            128, 128 212, 166      8, 32
512   16         32           128, 128 216, 229      8, 16
768   12         64           160, 144 235, 226      10, 12
1024  8          128          128, 128 235, 234      8, 8
===== ========== ============ ======== ============= ==================

Backward, `exchange` grows with the square of the units and with the batch: 8 MiB for 512 units and 64 rows, 256 MiB for
1024 units and 256 rows.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from numbarnn import cuda
from numbarnn.cells import persistent_cuda
from numbarnn.cells.resident import chosen
from numbarnn.cells.steps_cuda import STEPS

__all__ = ["Layout", "Plan", "choose", "launch", "serves"]

THREADS = 256  # of a block: with 128 weights each, they leave a thread the registers that a step needs
SHARED = 48 * 1024  # bytes of shared memory that every GPU gives a block
MOST_WEIGHTS = 160  # that a thread holds
_ROWS = 4, 2, 1
_GATED, _PLAIN = (8, 12, 16, 32), (32, 48, 64)
_BLOCK_UNITS = {"LSTM": _GATED, "GRU": _GATED, "SimpleRNN": _PLAIN}
_THREAD_UNITS = {"LSTM": 1, "GRU": 1, "SimpleRNN": 4}  # whose weights a thread has, forward
_PARTS = 32  # of a sum, at most: numbers that a thread adds up
_BANKS = 32  # of shared memory
_SINCE = 7, 5
# Clock cycles, as estimated: of a tile beside its rows, of a row beside its products, of one that waits for others.
_TILE, _ROW, _WAIT = 600, 64, 1500


@dataclass(frozen=True)
class Layout:
    """How a pass lies on threads.

    Attributes
    ----------
    cell : Cell
        LSTM, GRU or SimpleRNN.
    backward : bool
        Which pass.
    rows : int
        Rows of the batch that are computed together: a tile.
    block_units : int
        Units of a block, a multiple of 4.
    most_units : int
        Units of a layer, at most: a multiple of what the threads of a block have at a time.
    copies : int
        Dropout factors of h: G where each gate has its own, else 1.
    threads : int
        Of a block.
    """

    cell: object
    backward: bool
    rows: int
    block_units: int
    most_units: int
    copies: int = 1
    threads: int = THREADS

    @cached_property
    def constants(self):
        """The kernels' constants, by name."""
        step, step_back = STEPS[self.cell.name]
        return {
            "CELL_STEP": step,
            "CELL_STEP_BACK": step_back,
            "GATES": self.cell.gates,
            "STATES": self.cell.states,
            "PLANES": self.cell.planes,
            "ROWS": self.rows,
            "BLOCK_UNITS": self.block_units,
            "COPIES": self.copies,
            "THREADS": self.threads,
            **(self._back() if self.backward else self._forth()),
        }

    def _forth(self):
        gates, rows, units = self.cell.gates, self.rows, self.block_units
        groups, pieces = _pieces(self.cell, units, self.threads)
        quads = self.most_units // (4 * pieces)
        stage = self.copies * rows * self.most_units
        # Pieces that a warp writes at the same time come to different banks.
        sums = rows * gates * units
        piece = sums + (groups - sums) % _BANKS
        return {
            "GROUPS": groups,
            "THREAD_UNITS": units // groups,
            "PIECES": pieces,
            "QUADS": quads,
            "STAGE_ROW": self.most_units,
            "STAGE_COPY": rows * self.most_units,
            "STAGE": stage,
            "AHEAD": 4 * -(-stage // (4 * self.threads)),
            "SOURCE_GATE": rows * self.most_units if self.copies > 1 else 0,
            "SUMS": stage,
            "SUMS_ROW": gates * units,
            "SUMS_PIECE": piece,
            "SHARED": stage + pieces * piece,
        }

    def _back(self):
        gates, rows, units = self.cell.gates, self.rows, self.block_units
        apart = self.copies > 1  # products of each gate
        quads, stage = units // 4, rows * gates * units
        parts = min(self.threads // units, _PARTS)  # whatever the rows are, for the same bits
        senders = -(-self.most_units // units)
        return {
            "THREAD_UNITS": self.most_units // self.threads,
            "QUADS": quads,
            "STAGE_ROW": gates * units,
            "SOURCE_GATE": 4 if apart else 0,
            "PRODUCT_QUADS": quads if apart else quads * gates,
            "PRODUCT_GATES": gates if apart else 1,
            "PRODUCT_PIECES": gates if apart else 1,
            "PRODUCTS": (gates if apart else 1) * self.most_units // self.threads,
            "SUMS": stage,
            "SUMS_PIECE": rows * units,
            "PARTS": parts,
            "PART_QUADS": rows * units // 4,
            "AHEAD": 4 * -(-senders // parts),
            "SHARED": stage + parts * rows * units,
        }

    @property
    def weights(self):
        """Weights that a thread holds, each in a register."""
        numbers = self.constants
        return 4 * numbers["QUADS"] * numbers["GATES"] * numbers["THREAD_UNITS"]

    @property
    def shared(self):
        """Bytes of shared memory of a block."""
        return 4 * self.constants["SHARED"]

    @property
    def fits(self):
        """Whether registers and shared memory of every GPU suffice for a block."""
        return self.weights <= MOST_WEIGHTS and self.shared <= SHARED and self.rows * self.block_units <= self.threads

    @cached_property
    def kernel(self):
        """The kernel of this layout."""
        kernel = persistent_cuda.backward if self.backward else persistent_cuda.forward
        return kernel.with_constants(max_threads=self.threads, **self.constants)


class Plan(NamedTuple):
    """How a pass lies on a GPU.

    Attributes
    ----------
    layout : Layout
    unit_groups, batch_groups : int
        Blocks that share the units, and the rows of the batch.
    tiles : int
        Of a block: `batch_groups` times `tiles` times the layout's rows are the batch, or a little more.
    """

    layout: Layout
    unit_groups: int
    batch_groups: int
    tiles: int

    @property
    def blocks(self):
        """Blocks of the grid."""
        return self.unit_groups, self.batch_groups

    @property
    def cost(self):
        """Clock cycles of a step, as estimated."""
        return self.tiles * (self.layout.rows * self._row + _TILE) + (_WAIT if self.tiles < 3 else 0)

    @property
    def _row(self):
        return 2 * self.layout.weights + _ROW

    def cost_of_a_row(self, multiprocessors):
        """Clock cycles of a step of a row, as estimated, where there are many rows."""
        return self._row / (multiprocessors // self.unit_groups)

    def working_memory(self):
        """Return the arrays `exchange` and `counters` for one launch."""
        layout, all_tiles = self.layout, self.batch_groups * self.tiles
        if layout.backward:
            received = self.unit_groups * layout.rows * layout.block_units
            exchange = cuda.empty((2, all_tiles, self.unit_groups, received), np.float32)
        else:
            exchange = cuda.zeros((2, all_tiles, layout.constants["STAGE"]), np.float32)
        return exchange, cuda.zeros(all_tiles, np.int32)


def _pieces(cell, block_units, threads):
    """Return how many threads share the units of a block forward, and in how many pieces they cut the depth."""
    groups = block_units // _THREAD_UNITS[cell.name]
    return groups, min(threads // groups, _PARTS)


def plan(cell, backward, units, batch, copies, multiprocessors, rows, block_units, threads=THREADS):
    """Return how a pass lies on a GPU in a layout of so many rows and units of a block; None where it does not fit."""
    unit_groups = -(-units // block_units)
    multiple = threads if backward else 4 * _pieces(cell, block_units, threads)[1]
    layout = Layout(cell, backward, rows, block_units, -(-units // multiple) * multiple, max(1, copies), threads)
    tiles = -(-batch // rows)
    most = min(multiprocessors // unit_groups, tiles)
    if not most or not layout.fits:
        return None
    tiles = -(-tiles // most)
    return Plan(layout, unit_groups, -(-batch // (tiles * rows)), tiles)


@lru_cache(maxsize=256)
def choose(cell, backward, units, batch, copies, capability, multiprocessors):
    """Return how a layer's pass lies on a GPU; None where its weights do not fit the multiprocessors' registers.

    The units of a block are those that take the shortest time for many rows, whatever the batch is: all else that is
    chosen does not change the bits of the results.

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
    Plan or None
    """
    if capability < _SINCE:
        return None
    plans = [
        found
        for block_units in _BLOCK_UNITS.get(cell.name, ())
        for rows in _ROWS
        if (found := plan(cell, backward, units, batch, copies, multiprocessors, rows, block_units))
    ]
    if not plans:
        return None
    fastest = min(plans, key=lambda found: found.cost_of_a_row(multiprocessors)).layout.block_units
    return min((found for found in plans if found.layout.block_units == fastest), key=lambda found: found.cost)


def serves(problem):
    """Whether band L takes a `numbarnn.cells.bands_cuda.Problem`."""
    return chosen(choose, problem, problem.multiprocessors) is not None


def launch(problem, *args):
    """Launch band L, as `numbarnn.cells.bands_cuda.Band` has it."""
    found = chosen(choose, problem, problem.multiprocessors)
    codes = (None, None) if problem.own_activations else problem.codes
    found.layout.kernel.launch(
        found.blocks, found.layout.threads, *args, *found.working_memory(), found.tiles,
        *codes, cooperative=True,
    )  # fmt: skip
