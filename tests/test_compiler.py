"""How kernels are compiled: what is left out is not missed."""

import re

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys
from numba.extending import register_jitable

from numbarnn.compiler import CalleeCompiler, KernelCompiler

NOT_FROM_PYTHON = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": CalleeCompiler}


@register_jitable(**NOT_FROM_PYTHON)
def total(x, y, times):
    """Only arguments; loops."""
    result = 0.0
    for n in range(times):
        chosen = x
        if n == 1:
            chosen = y
        for k in range(len(chosen)):
            result += chosen[k]
    return result


@register_jitable(**NOT_FROM_PYTHON)
def either(x, y, second):
    """Returns an argument."""
    return y if second else x


@register_jitable(**NOT_FROM_PYTHON)
def total_of_views(x, times):
    """Makes arrays."""
    result = 0.0
    for n in range(times):
        part = x[n:]
        pair = part, np.ones(len(part))
        result += (pair[0] + pair[1]).sum()
    return result


@numba.njit(pipeline_class=KernelCompiler)
def all_of_them(x, y, times):
    chosen = either(x, y, times > 1)
    copy = chosen.copy()
    return total(copy, x, times) + total_of_views(copy, times) + total(either(y, copy, False), x, 1)


@pytest.fixture
def count():
    """Return how many arrays of compiled code have been made, and how many freed."""

    def counted():
        stats = rtsys.get_allocation_stats()
        return stats.alloc, stats.free

    _nrt_python.memsys_enable_stats()
    yield counted
    _nrt_python.memsys_disable_stats()


def test_references_are_counted_where_arrays_are_made(count):
    x, y = np.arange(4.0), np.arange(4.0) + 10
    all_of_them(x, y, 3)
    made, freed = count()
    answer = all_of_them(x, y, 3)
    assert answer == 2 * y.sum() + x.sum() + sum(y[n:].sum() + 4 - n for n in range(3)) + y.sum()
    made, freed = np.subtract(count(), (made, freed))
    assert made == freed > 3


def test_arrays_of_the_caller_are_not_counted():
    all_of_them(np.arange(4.0), np.arange(4.0), 1)
    (text,) = all_of_them.inspect_llvm().values()
    bodies = {re.search(r'@"?([^"(]+)', body)[1]: body for body in text.split("\ndefine ")[1:]}
    (apart,) = (body for name, body in bodies.items() if "5total" in name and "14total_of_views" not in name)
    assert "call" not in apart  # nothing else in it; and it has not been taken into its caller
    assert "NRT_decref" in "".join(bodies.values())
