"""The way back of a cell, compiled by a second process while this one compiles the way forward.

Half of what the first training step of a process waits for is Python at work, in Numba, and threads would take turns.
So a Python of its own compiles the kernels of the gradients, into the same cache (`numbarnn.kernel_cache`). When this
process comes to need one of them, it waits until the other one has stored it, or has ended.

That is an offer, not a condition: with one thread (``NUMBARNN_NUM_THREADS=1``) or no cache to write, where no process
can be started, or where it fails, this process compiles everything itself.
"""

import importlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from numbarnn import gemm, kernel_cache
from numbarnn.cells.products import weight_gradients
from numbarnn.jit import get_num_threads

__all__ = ["compile_here", "compile_meanwhile"]

_PATIENCE = 60  # seconds that the other process may take; it needs four
_MOMENT = 0.01  # seconds between two looks at what it has stored
_CODE = """
import json, sys
sys.modules["scipy"] = None  # Numba imports it in passing, in a tenth of a second, for BLAS
sys.path[:], *job = json.loads(sys.argv[1])
from numbarnn.way_back import compile_here
compile_here(*job)
"""
_begun = set()


def compile_meanwhile(cell, dtype, activation=None, recurrent_activation=None):
    """Have another process compile the way back of a cell, the first time, if the cache holds neither way yet.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
    dtype : dtype or None
        Of the pass that is about to run forward; nothing happens for what kernels do not take.
    activation, recurrent_activation : str, optional
        As `numbarnn.recurrence.run` takes them.
    """
    job = cell.name, dtype, activation, recurrent_activation
    if job in _begun:
        return
    _begun.add(job)
    kernels = cell.forward, cell.backward
    if get_num_threads() > 1 and _is_python() and kernel_cache.can_be_filled(kernels):
        module = cell.forward.py_func.__module__
        paths = [str(path) for path in sys.path]
        process = _start(json.dumps([paths, module, str(dtype), activation, recurrent_activation]))
        if process is not None:
            other = _Other(process)
            for kernel in (cell.backward, weight_gradients):
                kernel_cache.elsewhere[kernel.py_func] = other.runs_on


def _is_python():
    """Whether `sys.executable` can be expected to be Python: not so in what is frozen, or embeds it."""
    return not hasattr(sys, "frozen") and Path(sys.executable or "").name.lower().startswith("python")


def _start(job):
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    if sys.platform == "win32":
        quiet["creationflags"] = subprocess.CREATE_NO_WINDOW
    try:
        return subprocess.Popen([sys.executable, "-c", _CODE, job], **quiet)
    except OSError:  # none can be started here
        return None


class _Other:
    """The other process, which a thread waits for, so that it leaves nothing behind when it ends."""

    def __init__(self, process):
        self._process = process
        self._end = time.monotonic() + _PATIENCE
        self._ending = threading.Thread(target=process.wait, name="numbarnn-way-back", daemon=True)
        self._ending.start()

    def runs_on(self):
        """Wait a moment; say whether it still runs then, which it may not for ever."""
        self._ending.join(_MOMENT)
        if self._ending.is_alive() and time.monotonic() > self._end:
            self._process.kill()
            self._ending.join()
        return self._ending.is_alive()


class _Unpacked:
    """Weights of one input and one unit, as `numbarnn.recurrence.PackedWeights` without the kernels that pack."""

    def __init__(self, cell, dtype):
        self.kernel = self.recurrent_kernel = np.zeros((1, cell.gates), dtype)

    def forward(self):
        """Return what is as good as packed weights where the way forward is not gone."""
        return (np.zeros((1, 1, 1), self.kernel.dtype),) * 3

    def backward(self):
        """Return packed zeros."""
        return (np.zeros(gemm.packed_shape(self.kernel.size, 1, self.kernel.dtype), self.kernel.dtype),) * 2


def compile_here(module, dtype, activation, recurrent_activation):
    """Compile the way back of the cell of a module into the cache: go it for one row, step and unit."""
    from numbarnn import recurrence  # which imports this module

    cell = importlib.import_module(module).CELL
    this = recurrence._Pass(
        cell, np.zeros((1, 1, 1), dtype), _Unpacked(cell, dtype), None, activation=activation,
        recurrent_activation=recurrent_activation, save=True,
    )  # fmt: skip
    recurrence.Pullback(this)()
