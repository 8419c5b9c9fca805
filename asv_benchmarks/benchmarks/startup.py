"""How long a fresh process takes: to import, and to its first training step with a kernel cache empty or filled."""

import os
import subprocess
import sys
import tempfile

from . import common  # noqa: F401 - it pins the threads

IMPORT = "import numbarnn"
STEP = """
import numpy as np
from numbarnn.layers import LSTM, Dense, Embedding
from numbarnn.models import Sequential
model = Sequential([Embedding(100, 16), LSTM(32), Dense(1)])
model.compile(optimizer="adam", loss="mse")
model.train_on_batch(np.zeros((32, 20), np.int64), np.zeros((32, 1), np.float32))
"""
CLOCK = """
import time
begin = time.perf_counter()
{code}
print(time.perf_counter() - begin)
"""


def seconds(code, cache):
    """Run `code` in a fresh process with its kernels cached in `cache`; return the seconds that it took."""
    assert os.environ["NUMBARNN_NUM_THREADS"] and common.SIZES
    environment = {**os.environ, "NUMBARNN_CACHE_DIR": cache}
    # As installed: bytecode is there (pip writes it), though the environment may keep a checkout from writing its own.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", CLOCK.format(code=code)]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


class Startup:
    """Fresh processes. The least of a few, where a few are affordable."""

    timeout = 300

    def setup_cache(self):
        """Fill a kernel cache once for all benchmarks; asv runs this in a folder that it removes in the end."""
        folder = os.path.abspath("kernels")
        seconds(STEP, folder)
        return folder

    def track_import(self, cache):
        return min(seconds(IMPORT, cache) for _ in range(5))

    def track_first_step_warm_cache(self, cache):
        return min(seconds(STEP, cache) for _ in range(3))

    def track_first_step_empty_cache(self, cache):
        with tempfile.TemporaryDirectory() as empty:
            return seconds(STEP, empty)

    track_import.unit = track_first_step_warm_cache.unit = track_first_step_empty_cache.unit = "s"
