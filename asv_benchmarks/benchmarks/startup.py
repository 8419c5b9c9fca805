"""How long a fresh process takes: to import, and to its first training step with a kernel cache empty or filled."""

import os
import tempfile

from . import common  # noqa: F401 - it pins the threads


def seconds(code, cache):
    from numbarnn.bench.measures import startup

    return startup.seconds(getattr(startup, code), cache)


class Startup:
    """Fresh processes. The least of a few, where a few are affordable."""

    timeout = 300

    def setup_cache(self):
        """Fill a kernel cache once for all benchmarks; asv runs this in a folder that it removes in the end."""
        folder = os.path.abspath("kernels")
        seconds("FIRST_STEP", folder)
        return folder

    def track_import(self, cache):
        return min(seconds("IMPORT", cache) for _ in range(5))

    def track_first_step_warm_cache(self, cache):
        return min(seconds("FIRST_STEP", cache) for _ in range(3))

    def track_first_step_empty_cache(self, cache):
        with tempfile.TemporaryDirectory() as empty:
            return seconds("FIRST_STEP", empty)

    track_import.unit = track_first_step_warm_cache.unit = track_first_step_empty_cache.unit = "s"
