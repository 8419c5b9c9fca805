"""Rise of peak memory in a training step."""

import json
import os
import subprocess
import sys
from dataclasses import replace

from ..processes import WORKER
from ..timing import Row, summary

__all__ = ["memory"]

_RUNS = 3
# A module with `train`, as peers and ours have it, in a process that a small step has warmed up.
_STEP = """
import importlib, json, sys
module, folder, given = sys.argv[1:]
sys.path.append(folder)
cell, case, small, threads = json.loads(given)
module = importlib.import_module(module)
if hasattr(module, "set_threads"):
    module.set_threads(threads)

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

step, warm = module.train(cell, case), module.train(cell, small)
warm()
warm()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew from here
before = status("VmRSS:")
step()
print(status("VmHWM:") - before)
"""


def memory(setup):
    """MiB that a training step adds to what a process has, beside PyTorch where it is among the peers."""
    sides = {"numbarnn": ("numbarnn.bench.ours", sys.executable)}
    if "torch" in setup.pythons:
        sides["torch"] = ("torch_peer", setup.pythons["torch"])
    for cell, case in setup.pairs("medium", "wide", cells=["LSTM"]):
        small = replace(case, batch=2, timesteps=2)
        environment = {**os.environ, "NUMBARNN_NUM_THREADS": str(setup.threads)}
        given = json.dumps([cell, case.request(), small.request(), setup.threads])
        rises = {}
        for who, (module, python) in sides.items():
            command = [python, "-c", _STEP, module, str(WORKER.parent), given]
            rises[who] = summary(
                [float(subprocess.check_output(command, text=True, env=environment)) for _ in range(_RUNS)]
            )
        yield Row("memory", f"{cell} {case.name}", "forward + backward", rises, "MiB", details={"size": case.size})
