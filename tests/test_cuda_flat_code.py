"""The machine code of updates by optimizers, and of added up rows (`tests/gpu_rings.py` runs this)."""

import inspect

import numpy as np
import pytest
from assembler import examine

from numbarnn.kernels import flat, flat_cuda, optimizer, rows_cuda

pytestmark = pytest.mark.gpu

ARRAYS = {
    "flat", "weight", "gradient", "velocity", "mean", "square", "peak", "norm", "total", "moved", "linear", "average",
}  # fmt: skip
ELEMENTWISE = [name for name in dir(optimizer) if hasattr(getattr(optimizer, name), "py_func")]
FOR = [("float32", (7, 5)), ("float32", (9, 0)), ("float64", (9, 0))]


def given(rule, dtype):
    """Return arguments of the types that the twin of a rule gets."""
    array, names = np.empty(1, dtype), list(inspect.signature(rule.py_func).parameters)[2:]
    return 0, 1, *(array if n in ARRAYS else True if n == "nesterov" else np.float64(1) for n in names)


def test_every_rule_of_one_pass_has_a_twin():
    without = [name for name in ELEMENTWISE if getattr(optimizer, name) not in flat_cuda._TWINS]
    assert without == [name for name in ELEMENTWISE if name.startswith("adafactor")]  # which are expressions
    assert {flat._scale, flat._accumulate, flat._mean, flat._average} <= set(flat_cuda._TWINS)


@pytest.mark.parametrize(("dtype", "capability"), [FOR[0], FOR[-1]], ids=str)
def test_updates(dtype, capability):
    for rule, kernel in flat_cuda._TWINS.items():
        code = examine(kernel, given(rule, dtype), capability)
        assert code.spills == 0, rule.__name__
        assert code.registers <= 128, rule.__name__


@pytest.mark.parametrize(("dtype", "capability"), FOR, ids=str)
def test_rows_added_up(dtype, capability):
    rows = np.empty((1, 1), dtype)
    for ids in ("int32", "int64"):
        numbers = np.empty(1, ids)
        code = examine(rows_cuda._add_runs, (numbers, np.empty(1, "int64"), rows, rows), capability)
        assert code.spills == 0
        assert not any(code.count(atomic) for atomic in ("ATOM", "RED"))
        assert dtype == "float64" or not code.float64()
