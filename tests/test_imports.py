"""The order of the house: who may import whom, and what `import numbarnn` may do."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import numbarnn
from numbarnn import kernel_cache

PACKAGE = Path(numbarnn.__file__).parent

# Floor of each module or subpackage directly below numbarnn. Imports go down, or stay on a floor without going round in
# a circle. "numbarnn" itself, the front door with the public names, is on top: nothing inside imports from it.
FLOORS = {
    "simd": 0,
    "simd_math": 0,
    "gemm": 0,
    "meeting": 0,
    "jit": 0,
    "kernel_cache": 0,
    "compiler": 0,
    "cuda": 0,
    "ptxops": 0,
    "tensor_shape": 0,
    "arrays": 1,
    "devices": 1,
    "tree": 0,
    "loading": 0,
    "protocols": 0,
    "cells": 1,
    "kernels": 1,
    "variable": 1,
    "symbolic": 2,
    "operation": 2,
    "program": 2,
    "graph": 2,
    "ops": 2,
    "recurrence": 2,
    "recurrence_arguments": 2,
    "recurrence_cuda": 2,
    "teams": 2,
    "row_rules": 2,
    "scan": 2,
    "backend": 2,
    "checks": 2,
    "random": 2,
    "serialization": 2,
    "losses": 2,
    "optimizers": 2,
    "metrics": 2,
    "callbacks": 2,
    "initializers": 2,
    "regularizers": 2,
    "constraints": 2,
    "activations": 2,
    "layers": 3,
    "gradients": 3,
    "nonfinite": 3,
    "models": 4,
    "datasets": 4,
    "utils": 4,
    "testing": 4,
    "plotting": 4,
    "interop": 5,
    "saving": 5,
    "sklearn": 5,
    "tf_names": 5,
    "bench": 5,
    "warmup": 5,
    "__main__": 5,
    "numbarnn": 5,
}
HIGHEST_FLOOR_WITH_NUMBA = 1
LAZY = {
    "scipy", "tqdm", "sklearn", "matplotlib", "keras", "torch", "autograd", "cupy", "pandas", "safetensors",
    "tensorboardX", "pooch", "h5py", "onnx", "cuda", "onnxruntime", "jax", "tensorflow",
}  # fmt: skip
# Made of scikit-learn's classes; nothing else imports it.
NOT_LIGHT = {"numbarnn.__main__", "numbarnn.sklearn"}


def module_name(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("numbarnn", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def floor(module):
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else "numbarnn"
    assert room in FLOORS, f"numbarnn/{room} has no floor: enter it in FLOORS of {Path(__file__).name}"
    return FLOORS[room]


@cache
def imports(module):
    """Return (imported module, line number, at module level) for each import statement, resolved to modules of ours."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.Lambda) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (base, node.module) if part)
            names = [full if (full := f"{source}.{alias.name}") in MODULES else source for alias in node.names]
        else:
            continue
        found += [(name, node.lineno, id(node) not in inside) for name in names]
    return found


def ours(name):
    return name.split(".")[0] == "numbarnn"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    for name, line, _ in imports(module):
        if ours(name):
            assert name in MODULES, f"{module}:{line} imports {name}, which is no module"
            assert floor(name) <= floor(module), (
                f"{module}:{line} (floor {floor(module)}) imports {name} (floor {floor(name)})"
            )
            assert name != "numbarnn" or module in ("numbarnn", "numbarnn.__main__"), (
                f"{module}:{line} imports from the front door; import from the module that defines the name"
            )


def test_imports_go_round_in_no_circle():
    """Imports in functions are left out: they run when all modules are there."""
    graph = {module: {name for name, _, top in imports(module) if top and ours(name)} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' <- '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_numba_is_named_on_the_lowest_floors_only(module):
    if floor(module) > HIGHEST_FLOOR_WITH_NUMBA:
        for name, line, _ in imports(module):
            assert name.split(".")[0] not in ("numba", "llvmlite"), f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", MODULES)
def test_cuda_is_named_in_the_seam_only(module):
    if module == "numbarnn.ptxops" or f"{module}.".startswith("numbarnn.cuda."):
        return
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names] if not node.level else []
        for name in names:
            assert not f"{name}.".startswith(("numba.cuda.", "cupy.", "cupyx.", "cuda.", "numba_cuda.")), (
                f"{module}:{node.lineno} imports {name}"
            )


def test_every_kernel_is_in_the_hash_of_the_kernel_sources():
    """A file with kernels, or that kernels read constants from, must be among those that name the cache's folder."""
    hashed = {module_name(path) for path in kernel_cache._sources()}
    assert {"numbarnn.jit", "numbarnn.kernel_cache"} <= hashed
    for module in MODULES:
        for name, line, _ in imports(module):
            compiles = name.split(".")[0] in ("numba", "llvmlite")
            if name == "numbarnn.jit":
                tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
                compiles = any(isinstance(node, ast.Name) and node.id == "njit" for node in ast.walk(tree))
            if compiles and floor(module) < FLOORS["__main__"] and not module.startswith("numbarnn.cuda"):
                assert module in hashed, f"{module}:{line} has kernels: add it to kernel_cache.KERNEL_SOURCES"
            if module in hashed and ours(name):
                assert name in hashed, f"{module}:{line} has kernels and imports {name}, not in KERNEL_SOURCES"


IMPORT = """
import sys
import numba.core.event as event

before = set(sys.modules)  # Numba by itself imports SciPy's front, to check its version
compiled = event.RecordingListener()
with event.install_listener("numba:compile", compiled):
    import {module}
assert not compiled.buffer, [str(e.data["dispatcher"]) for _, e in compiled.buffer]

from numba.core.dispatcher import Dispatcher
for name, module in list(sys.modules.items()):
    if name.split(".")[0] == "numbarnn":
        for attribute, value in vars(module).items():
            if isinstance(value, Dispatcher):
                assert not value.signatures, f"{{name}}.{{attribute}} was compiled"
early = sorted(name for name in set(sys.modules) - before if name.split(".")[0] in {lazy!r})
assert not early, f"imported early: {{early}}"
"""


def check_import(module):
    code = IMPORT.format(module=module, lazy=LAZY)
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"import {module}: {done.stderr}"


def test_import_compiles_nothing_and_stays_light():
    check_import("numbarnn")


def test_no_module_compiles_or_grows_heavy_when_imported():
    check_import(", ".join(module for module in MODULES if module not in NOT_LIGHT))


def test_nothing_imports_what_is_not_light():
    for module in MODULES:
        for name, line, _ in imports(module):
            assert name not in NOT_LIGHT, f"{module}:{line} imports {name}"
