"""How kernels are compiled: what is left out of Numba's pipeline changes no result and frees all memory."""

import gc
import re
import sys

import numpy as np
import pytest
from numba.core.registry import cpu_target
from numba.core.runtime import _nrt_python, rtsys
from numba.extending import register_jitable

from numbarnn import compiler
from numbarnn.compiler import CalleeCompiler, KernelCompiler
from numbarnn.jit import njit
from numbarnn.simd import empty, lanes

NOT_FROM_PYTHON = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": CalleeCompiler}


def kernel(function):
    """Compile a function as the package's own are, which it is not."""
    return njit(function, cache=False, pipeline_class=KernelCompiler)


@kernel
def extremes(a, b, c):
    return min(a, b), max(a, b), min(a, b, c), max(1, c)


@pytest.mark.parametrize("numbers", [(3, -2, 7), (2.5, float("nan"), -1.0), (float("nan"), 1.0, 0.5), (4, 0.5, True)])
def test_min_and_max_are_pythons(numbers):
    np.testing.assert_array_equal(extremes(*numbers), extremes.py_func(*numbers))


def test_min_of_what_is_no_number_is_refused():
    @kernel
    def least_of(values):
        return min(values)

    with pytest.raises(Exception, match="least"):
        least_of(np.zeros(3))


@kernel
def names_for_arrays(array, size, other):
    alias = array
    if size % 2:
        alias = other
    made = empty(size, array)
    for k in range(size):
        if k % 3 == 0:
            made = empty(size + k, array)  # the one before is freed
        view = alias[: size - k]
        made[k] = view.shape[0]
    kept = made if size > 4 else alias
    return kept, alias[1:]


@pytest.fixture
def counted_memory():
    _nrt_python.memsys_enable_stats()
    yield
    _nrt_python.memsys_disable_stats()


@pytest.mark.parametrize("size", [2, 3, 6, 7])
def test_references_are_counted_where_they_must_be(size, counted_memory):
    array, other = np.arange(10.0), np.arange(10.0, 20.0)
    names_for_arrays(array, size, other)
    gc.collect()
    counts, allocated = [sys.getrefcount(each) for each in (array, other)], rtsys.get_allocation_stats()
    for _ in range(5):
        kept, view = names_for_arrays(array, size, other)
        source = other if size % 2 else array
        np.testing.assert_array_equal(view, source[1:])
        assert np.shares_memory(view, source)
        if size > 4:
            last = size - 1
            assert kept[last] == 1 and len(kept) == size + last // 3 * 3
        else:
            np.testing.assert_array_equal(kept, source)
    del kept, view, source
    gc.collect()
    after = rtsys.get_allocation_stats()
    assert [sys.getrefcount(each) for each in (array, other)] == counts
    assert after.alloc - allocated.alloc == after.free - allocated.free > 0


@kernel
def outlived(size, like):
    made = empty(size, like)
    made[:] = 1
    kept = like
    if size > 1:
        kept = made
    made = empty(size, like)  # where the first one was, unless that is still held
    made[:] = 2
    return kept[0], made[0]


def test_an_array_lives_as_long_as_any_of_its_names():
    assert outlived(1000, np.zeros(3)) == (1, 2)


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


@kernel
def all_of_them(x, y, times):
    chosen = either(x, y, times > 1)
    copy = chosen.copy()
    return total(copy, x, times) + total_of_views(copy, times) + total(either(y, copy, False), x, 1)


def test_references_are_counted_in_callees_that_make_arrays(counted_memory):
    x, y = np.arange(4.0), np.arange(4.0) + 10
    all_of_them(x, y, 3)
    before = rtsys.get_allocation_stats()
    answer = all_of_them(x, y, 3)
    after = rtsys.get_allocation_stats()
    assert answer == 2 * y.sum() + x.sum() + sum(y[n:].sum() + 4 - n for n in range(3)) + y.sum()
    assert after.alloc - before.alloc == after.free - before.free > 3


def test_loops_over_arrays_of_the_caller_stay_apart_and_count_no_references():
    all_of_them(np.arange(4.0), np.arange(4.0), 1)
    (text,) = all_of_them.inspect_llvm().values()
    bodies = {re.search(r'@"?([^"(]+)', body)[1]: body for body in text.split("\ndefine ")[1:]}
    (apart,) = (body for name, body in bodies.items() if "5total" in name and "14total_of_views" not in name)
    assert "call" not in apart  # nothing else in it; and it has not been taken into its caller
    assert "NRT_decref" in "".join(bodies.values())


class _Counting:
    """A typing context that counts how often it is asked."""

    def __init__(self):
        self.asked = 0

    def resolve_function_type(self, func, args, kws):
        self.asked += 1
        return cpu_target.typing_context.resolve_function_type(func, args, kws)


def test_a_signature_is_asked_for_once(monkeypatch):
    monkeypatch.setattr(compiler, "_signatures", {})
    numba_context = cpu_target.typing_context
    context = compiler._TypingContext(counting := _Counting())
    i64, f64 = compiler.types.int64, compiler.types.float64
    array = compiler.types.Array(f64, 1, "C")
    of_lanes = numba_context.resolve_value_type(lanes)
    for func, args in ((compiler.operator.add, (i64, i64)), (compiler.operator.add, (i64, f64)), (of_lanes, (array,))):
        expected = numba_context.resolve_function_type(func, args, {})
        before = counting.asked
        assert [context.resolve_function_type(func, args, {}) for _ in range(2)] == [expected, expected]
        assert counting.asked == before + 1
    many = compiler.operator.getitem, (array, i64)  # an array's rules may yet grow
    assert [context.resolve_function_type(*many, {}) for _ in range(2)][0].return_type == f64
    assert counting.asked == 3 + 2
