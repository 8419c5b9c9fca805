"""Run the kernel tests as narrower CPUs would: ``python tests/narrow.py`` (ring 4).

Two child processes, each with a kernel cache of its own: one compiles for AVX2 with fused multiply-add, one for the
base of the architecture, which multiplies, then adds. When its tests have passed, a child searches the assembly of
every kernel that it compiled, the tests' own among them, for what such a CPU does not have.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FILES = ["test_simd.py", "test_gemm.py", "test_cell_kernels.py"]
# For each target: the environment, what its assembly must hold (or the search saw nothing), and what it must not.
TARGETS = {
    "haswell": (
        {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
        r"vfmadd\w*\s.*%ymm",
        r"%zmm\d+|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[0-7]\b",
    ),
    "generic": (
        {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
        r"\bmulp[sd]\b",
        r"%[yz]mm\d+|vfn?m(add|sub)|%k[0-7]\b",
    ),
}


class AssemblySearch:
    """A pytest plugin: after the tests, search what numbarnn has compiled in this process."""

    def __init__(self, target):
        self.target = target

    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus:
            return
        _, required, forbidden = (TARGETS[self.target][0], *map(re.compile, TARGETS[self.target][1:]))
        found, kernels, faults = False, 0, []
        for name, assembly in compiled_kernels():
            kernels += 1
            found = found or required.search(assembly) is not None
            line = next((line.strip() for line in assembly.splitlines() if forbidden.search(line)), None)
            if line:
                faults.append(f"{name}: {line}")
        print(f"\n{self.target}: searched the assembly of {kernels} compiled kernels")
        if not found or kernels < 10:
            faults.append(f"no vector instruction found in {kernels} kernels: the search proves nothing")
        for fault in faults:
            print(f"{self.target}: {fault}")
        if faults:
            session.exitstatus = 1


def compiled_kernels():
    """Yield name and assembly of every variant of a kernel, of numbarnn or of its tests, compiled in this process."""
    from numba.core.dispatcher import Dispatcher

    seen = set()
    for module_name, module in list(sys.modules.items()):
        if not module_name.startswith(("numbarnn", "test_")):
            continue
        for value in vars(module).values():
            if isinstance(value, Dispatcher) and id(value) not in seen:
                seen.add(id(value))
                for signature, assembly in value.inspect_asm().items():
                    yield f"{value.__module__}.{value.__qualname__}{signature}", assembly


def child(target):
    """Run the tests in this process, whose environment names the target."""
    import pytest

    sys.path.insert(0, str(FOLDER.parent))  # the checkout, installed or not
    from numbarnn import recurrence

    recurrence.compile_meanwhile = lambda *job: None  # what another process compiles cannot be searched here
    missing = [name for name in FILES if not (FOLDER / name).exists()]
    if missing:
        print(f"tests/narrow.py names files that do not exist: {', '.join(missing)}")
        return 1
    return pytest.main(["-q", *(str(FOLDER / name) for name in FILES)], plugins=[AssemblySearch(target)])


def main():
    """Run each target in a process of its own; return the exit status."""
    if len(sys.argv) == 2:
        return child(sys.argv[1])
    if os.uname().machine != "x86_64":
        print("the narrow-CPU ring knows x86-64 only")
        return 1
    status = 0
    for target, (environment, _, _) in TARGETS.items():
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, **environment, "NUMBARNN_CACHE_DIR": cache}
            status = (
                subprocess.run([sys.executable, __file__, target], env=environment, cwd=FOLDER.parent).returncode
                or status
            )
        print(
            f"{target}: {'failed' if status else 'passed'} in {(time.perf_counter() - begin) / 60:.1f} min", flush=True
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
