"""Fresh processes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..timing import Row, summary

__all__ = ["FIRST_STEP", "IMPORT", "seconds", "startup"]

IMPORT = "import numbarnn"
FIRST_STEP = """
import numpy as np
from numbarnn.layers import LSTM, Dense, Embedding
from numbarnn.models import Sequential
model = Sequential([Embedding(100, 16), LSTM(32), Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.train_on_batch(np.zeros((32, 20), np.int64), np.zeros((32, 1), np.float32))
"""
_CLOCK = """
import time
begin = time.perf_counter()
{code}
print(time.perf_counter() - begin)
"""


def seconds(code, cache):
    """Run code in a fresh process.

    Parameters
    ----------
    code : str
    cache : path
        Where its kernels are cached.

    Returns
    -------
    float
        Seconds that the code took, the interpreter's own start not counted.
    """
    environment = {**os.environ, "NUMBARNN_CACHE_DIR": str(cache)}
    # As installed: bytecode is there (pip writes it), though the environment may keep a checkout from writing its own.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", _CLOCK.format(code=code)]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def startup(setup):
    """Import; the first trained step with a kernel cache that is filled, and one that is empty."""
    with tempfile.TemporaryDirectory() as folder:
        filled = Path(folder, "filled")
        seconds(FIRST_STEP, filled)
        yield _row("import", [seconds(IMPORT, filled) for _ in range(7)])
        yield _row("first step, warm", [seconds(FIRST_STEP, filled) for _ in range(5)])
        yield _row("first step, empty", [seconds(FIRST_STEP, Path(folder, str(n))) for n in range(3)])


def _row(what, times):
    return Row("startup", "fresh process", what, {"numbarnn": summary(times)}, "s")
