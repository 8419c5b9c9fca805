"""A second process compiles the way back of a cell; where it cannot, this process does, to the same bits."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each process compiles a cell anew

STEP = """
import hashlib, logging, sys
import numpy as np

class Names(logging.Handler):
    found = set()

    def emit(self, record):
        if record.msg.startswith("compiled"):
            self.found.add(str(record.args[0]).removeprefix("numbarnn.").removeprefix("cells."))

logging.getLogger("numbarnn").addHandler(Names())
logging.getLogger("numbarnn").setLevel(logging.INFO)
{before}
from numbarnn import cells, recurrence

cell = cells.simple_rnn.CELL
rng = np.random.default_rng(0)
kernel, recurrent_kernel = rng.standard_normal((3, 4), "float32"), rng.standard_normal((4, 4), "float32")
weights = recurrence.PackedWeights(cell, kernel, recurrent_kernel)
out, _, pullback = recurrence.run(cell, rng.standard_normal((2, 5, 3), "float32"), weights, None, save=True)
d_x, d_weights, _ = pullback(np.ones_like(out))
print(hashlib.sha256(b"".join(a.tobytes() for a in (out, d_x, *d_weights))).hexdigest())
print(sorted(name for name in Names.found if name.endswith((".forward", ".backward", ".weight_gradients"))))
"""
BACK = {"simple_rnn.backward", "products.weight_gradients"}


def first_step(cache, before="", threads=2):
    """Run a training step in a fresh process; return a hash of its results, and the loops that it compiled itself."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": path, "NUMBARNN_CACHE_DIR": str(cache), "NUMBARNN_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", STEP.format(before=before)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    bits, names = done.stdout.splitlines()
    return bits, set(eval(names))


def test_another_process_compiles_what_is_needed_later(tmp_path):
    bits, here = first_step(tmp_path / "alone", threads=1)
    assert here == {"simple_rnn.forward", *BACK}
    assert first_step(tmp_path / "two") == (bits, {"simple_rnn.forward"})
    assert first_step(tmp_path / "two") == (bits, set())  # what it stored is found by all


@pytest.mark.parametrize("executable", ["/nowhere/python", None], ids=["absent", "failing"])
def test_who_cannot_have_another_process_compiles_alone(executable, tmp_path):
    if executable is None:
        executable = tmp_path / "python-that-fails"
        executable.write_text("#!/bin/sh\nexit 1\n")
        executable.chmod(0o755)
    _, here = first_step(tmp_path / "cache", before=f"sys.executable = {str(executable)!r}")
    assert here == {"simple_rnn.forward", *BACK}
