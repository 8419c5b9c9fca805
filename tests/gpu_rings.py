"""Run the tests of GPU kernels on a machine without a GPU: ``python tests/gpu_rings.py [RING ...]`` (ring 5).

Needs ``pip install -e ".[gpu-test]"``, in an environment of its own.  Each ring is a process with the environment that
it needs:

simulator
    Numba's own: one block, all cells and options, against the CPU's kernels; and models on the stand-in for CuPy.
emulator
    Ours: many blocks, clusters, the exchange within warps, in random orders.
assembler
    Machine code for every generation of GPUs: registers, spills, float64 instructions, calls.

A test file names its kind by being listed here; one that is marked `gpu` and listed nowhere is an error.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
# For each ring: the environment, and its files; the longest first, for the others fit beside it.
RINGS = {
    "assembler": (
        {},
        [
            "test_cuda_compile.py",
            "test_cuda_flat_code.py",
            "test_cuda_cells_code.py",
        ],
    ),
    "assembler, resident kernels": ({}, ["test_cuda_resident_code.py", "test_cuda_persistent_code.py"]),
    "simulator": (
        {"NUMBA_ENABLE_CUDASIM": "1"},
        [
            "test_cuda_simulated.py",
            "test_cuda_recurrence.py",
            "test_cuda_ops.py",
            "test_cuda_training.py",
            "test_cuda_variables.py",
            "test_gpu_command.py",
        ],
    ),
    "emulator": (
        {},
        [
            "test_emulator.py",
            "test_cuda_cells.py",
            "test_cuda_resident.py",
            "test_cuda_persistent.py",
        ],
    ),
}


def unlisted():
    """Return the test files that are marked `gpu` and belong to no ring."""
    listed = {name for _, files in RINGS.values() for name in files}
    marked = {
        path.relative_to(FOLDER).as_posix()
        for path in FOLDER.rglob("test_*.py")
        if "pytest.mark.gpu" in path.read_text(encoding="utf-8")
    }
    return sorted(marked ^ listed)


def run(ring):
    """Run one ring; return its name, exit status, time and what it printed."""
    environment, files = RINGS[ring]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", *(str(FOLDER / name) for name in files)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, **environment, "NUMBARNN_CACHE_DIR": cache}
        done = subprocess.run(
            command, env=environment, cwd=FOLDER.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return ring, done.returncode, time.perf_counter() - begin, done.stdout


def main():
    """Run the rings named on the command line, or all, side by side; return the exit status."""
    names = sys.argv[1:] or list(RINGS)
    unknown = [name for name in names if name not in RINGS]
    if unknown:
        print(f"there is no ring {unknown[0]!r}, but {', '.join(RINGS)}")
        return 2
    if unlisted():
        print(f"tests/gpu_rings.py and the files marked gpu do not agree on {', '.join(unlisted())}")
        return 1
    missing = [name for name in ("numba_cuda", "greenlet") if not importlib.util.find_spec(name)]
    if missing:
        print(f"{', '.join(missing)} not installed: pip install -e '.[gpu-test]'")
        return 1
    status = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for ring, code, seconds, printed in pool.map(run, names):
            print(f"{printed}\n{ring}: {'failed' if code else 'passed'} in {seconds / 60:.1f} min", flush=True)
            status = status or code
    return status


if __name__ == "__main__":
    sys.exit(main())
