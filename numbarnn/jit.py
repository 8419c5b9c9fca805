"""How everything in numbarnn is compiled, and how kernels are spread over threads.

`njit` is the one decorator of all kernels, `parallel_for` the one way in which they run on several cores.

Kernels release the GIL, divide as NumPy does, and use no fastmath, not even ``fastmath={"contract"}``: with it the
compiler fuses ``f * c + i * g`` wherever that suits the surroundings. One step inlined into a training loop (which
stores ``f * c`` as well) and into an inference loop differed in 311 of 1003 values. Where a fused multiply-add is
wanted the code says so, with `numbarnn.simd.fma`.
"""

import functools
import inspect
import operator
import os
import queue
import threading

import numba
import numpy as np
from numba.extending import register_jitable

from numbarnn.compiler import CalleeCompiler, KernelCompiler
from numbarnn.kernel_cache import KernelCache, is_ours

__all__ = [
    "chunks", "device", "get_num_threads", "inlined", "kernel_array", "njit", "parallel_for", "run_chunks",
    "set_num_threads", "usable_cpus",
]  # fmt: skip

INLINE = {"error_model": "numpy", "forceinline": True}  # Numba's options of what is compiled into its callers


def njit(function=None, /, **options):
    """Compile a function under the project's one policy.

    The machine code is kept on disk, in a cache that notices edits of any kernel source (`numbarnn.kernel_cache`). That
    holds for your own functions as well. Decorated with plain ``numba.njit(cache=True)`` they may call kernels too, but
    Numba's cache will not notice when numbarnn has been upgraded.

    Parameters
    ----------
    function : function, optional
        A plain Python function; absent when options are given (``@njit(inline="always")``).
    **options
        Options of `numba.njit` that replace the policy's ``nogil=True``, ``cache=True`` and ``error_model="numpy"``.

    Returns
    -------
    Dispatcher
        Compiled at its first call for each combination of argument types, or read from disk. A function with no source
        file (a notebook cell, ``exec``) is compiled anew in each process. Under ``NUMBA_DISABLE_JIT=1``, `function`
        itself.

    Raises
    ------
    TypeError
        When `function` is no plain function, for instance a signature: types are always taken from the call.
    """
    if function is None:
        return functools.partial(njit, **options)
    if not inspect.isfunction(function):
        raise TypeError(f"njit: function must be a plain Python function, got {function!r}")
    cached = options.pop("cache", True)
    # Wrappers for calls from C take time to compile, and nobody calls from there. Unless they are given, `forceinline`
    # and `fastmath` are those of the caller which happens to compile the function first.
    policy = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, "forceinline": False, "fastmath": False}
    if is_ours(function):
        policy["pipeline_class"] = KernelCompiler
    options = {**policy, **options}
    dispatcher = numba.njit(**options)(function)
    if cached and dispatcher is not function:
        dispatcher._cache = KernelCache(function, options)
    return dispatcher


def device(function):
    """Let compiled code call a function, compiled into its callers; called from Python it runs as the Python it is.

    It has no entry point and no cache file of its own, and compiles faster than under `njit`.

    Parameters
    ----------
    function : function
        A plain Python function, positional arguments only.

    Returns
    -------
    function
        `function` itself.
    """
    return _jitable(function, error_model="numpy", forceinline=False)


def inlined(kernel):
    """Return a kernel as a function that is compiled into its callers, whose constants cut off what they do not need.

    Parameters
    ----------
    kernel : Dispatcher
        Decorated with `njit`.

    Returns
    -------
    function
    """
    return _jitable(getattr(kernel, "py_func", kernel), **INLINE)


def _jitable(function, **options):
    if is_ours(function):
        options["pipeline_class"] = CalleeCompiler
    return register_jitable(no_cpython_wrapper=True, no_cfunc_wrapper=True, nopython=True, cache=False, **options)(
        function
    )


class _Alias:
    """The memory of an array, offered as if it might be written to."""

    def __init__(self, array):
        self.array = array
        interface = array.__array_interface__
        interface["data"] = interface["data"][0], False
        self.__array_interface__ = interface


def kernel_array(array):
    """Return an array as kernels are compiled for, to be read only.

    Numba compiles a kernel anew for arrays of another memory order, and for read-only ones: several seconds each.

    Parameters
    ----------
    array : ndarray, or array on the GPU

    Returns
    -------
    ndarray, or array on the GPU
        C-contiguous and writeable: `array` itself, a copy, or a writeable view of read-only memory.
    """
    flags = array.flags
    if not isinstance(array, np.ndarray):  # on the GPU
        return array if flags.c_contiguous else array.copy(order="C")
    if not flags.c_contiguous:
        return np.ascontiguousarray(array)
    if flags.writeable:
        return array
    alias = array.view(np.ndarray)
    try:
        alias.setflags(write=True)  # a view of what may be written to elsewhere, as the value of a Variable is
    except ValueError:
        return np.asarray(_Alias(array))
    return alias


def set_num_threads(n):
    """Set how many threads kernels use, for the whole process. Results do not depend on it.

    Parameters
    ----------
    n : int
        At least 1; may exceed the number of cores.

    Raises
    ------
    TypeError
        When `n` is not a whole number.
    ValueError
        When `n` is below 1.
    """
    global _num_threads
    if isinstance(n, bool):
        raise TypeError(f"set_num_threads: n must be an int, got {n!r}")
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"set_num_threads: n must be an int, got {n!r} of type {type(n).__name__}") from None
    if count < 1:
        raise ValueError(f"set_num_threads: n must be at least 1, got {n}")
    _num_threads = count


def get_num_threads():
    """Return how many threads kernels use.

    By default ``NUMBARNN_NUM_THREADS`` of the environment, else the number of CPUs that this process may run on.
    """
    return _num_threads


def chunks(n, grain):
    """Split ``range(n)`` into contiguous chunks, one per thread, of nearly equal sizes.

    Parameters
    ----------
    n : int
        Length of the range, at least 0.
    grain : int
        Smallest chunk worth a thread, at least 1.

    Returns
    -------
    list of (start, stop)
        At most `get_num_threads` chunks of at least `grain` each, a single one where ``n < 2 * grain``, none for n = 0.

    Raises
    ------
    ValueError
        When `n` is negative or `grain` below 1.
    """
    if n < 0 or grain < 1:
        raise ValueError(f"chunks: n must be at least 0 and grain at least 1, got n={n}, grain={grain}")
    if n == 0:
        return []
    count = min(_num_threads, n // grain)
    if count < 2:
        return [(0, n)]
    return [(n * i // count, n * (i + 1) // count) for i in range(count)]


def parallel_for(fn, n, grain, *args):
    """Call ``fn(start, stop, *args)`` for each chunk of ``range(n)``, on several threads, and wait for all of them.

    A single chunk is a plain call. Otherwise chunk 0 runs on the calling thread, which afterwards takes on what no
    other thread has begun: a call never waits for a busy pool. It may be called from several Python threads at once,
    inside a chunk, and after `os.fork`. Waking a thread and being woken cost 10 to 70 us, the more the deeper the idle
    cores sleep, so `grain` should stand for 100 us of work or more.

    Parameters
    ----------
    fn : callable
        Called as ``fn(start, stop, *args)``; chunks run side by side as far as `fn` releases the GIL, as kernels do.
    n, grain : int
        Length of the range and smallest chunk, see `chunks`.
    *args
        Handed to every call.

    Raises
    ------
    BaseException
        What `fn` raised for the first (lowest) chunk that failed, after all chunks are done.
    """
    run_chunks(fn, chunks(n, grain), args)


def run_chunks(fn, parts, args):
    """Do what `parallel_for` does, for chunks as `chunks` gives them."""
    if not parts:
        return
    if len(parts) == 1:
        fn(*parts[0], *args)
        return
    job = _Job(fn, args, parts)
    try:  # from the first offer on: others may be at work when Ctrl-C comes
        _pool.offer(job, len(parts) - 1)
        job.run(*parts[0])
        job.work()
    finally:
        job.wait()
    if job.errors:
        try:
            raise min(job.errors)[1]
        finally:
            job.errors.clear()  # no cycle from the traceback back to the arrays


class _Job:
    """One call of `parallel_for`: chunks not yet begun and threads at work, in lists, whose methods are atomic."""

    __slots__ = ("args", "errors", "fn", "helpers", "parts")

    def __init__(self, fn, args, parts):
        self.fn, self.args, self.parts = fn, args, parts[:0:-1]
        self.helpers, self.errors = [], []

    def work(self):
        """Run chunks until none is left."""
        while self.parts:
            try:
                part = self.parts.pop()
            except IndexError:
                return  # another thread took the last one
            self.run(*part)

    def run(self, start, stop):
        """Run one chunk and keep what it raises."""
        try:
            self.fn(start, stop, *self.args)
        except BaseException as error:
            self.errors.append((start, error))
            if not isinstance(error, Exception):  # Ctrl-C: begin nothing more
                self.parts.clear()

    def help(self):
        """Work as a thread of the pool, behind a lock that is listed before the first chunk is taken."""
        busy = threading.Lock()
        with busy:
            self.helpers.append(busy)
            self.work()

    def wait(self):
        """Wait for the chunks that others have begun, also through Ctrl-C: they still write to the caller's arrays."""
        self.parts.clear()
        interrupt = None
        for busy in self.helpers:
            while True:
                try:
                    with busy:
                        break
                except KeyboardInterrupt as error:
                    interrupt = error
        self.fn = self.args = None  # an offer of this job may still lie in the pool: it must not keep arrays alive
        if interrupt is not None:
            raise interrupt


class _Pool:
    """Daemon threads that help with whatever is offered; they start when first needed and then stay."""

    def __init__(self):
        self.offers = queue.SimpleQueue()
        self.size = 0
        self.growing = threading.Lock()

    def offer(self, job, threads):
        """Ask `threads` threads to help with `job`."""
        if self.size < threads:
            self.grow(threads)
        for _ in range(min(threads, self.size)):
            self.offers.put(job)

    def grow(self, size):
        """Start threads up to `size`; where the system gives no more (limits, interpreter exit) callers do it all."""
        with self.growing:
            while self.size < size:
                thread = threading.Thread(target=self.serve, name=f"numbarnn-{self.size + 1}", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return
                self.size += 1

    def serve(self):
        """Help with one job after the other, never held in a variable: a resting thread must not keep arrays alive."""
        while True:
            self.offers.get().help()


def usable_cpus():
    """Return how many CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _default_num_threads():
    text = os.environ.get("NUMBARNN_NUM_THREADS")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"environment variable NUMBARNN_NUM_THREADS must be a whole number >= 1, got {text!r}")
        return int(text)
    return usable_cpus()


def _keep_freed_memory():
    """Have the C library keep what a training step frees for the next step.

    glibc hands freed memory back to the system above a threshold, at first 128 KiB, and a step then gets its pages one
    by one again: up to half of a small step's time. The threshold follows the largest block that was ever freed, up to
    32 MiB; so one of that size is freed, whose pages were never used. `MALLOC_TRIM_THRESHOLD_` of the environment wins.
    """
    np.empty((1 << 25) - (1 << 16), np.uint8)


def _new_pool():
    """Replace the pool: the threads of the old one have not come along into a forked child."""
    global _pool
    _pool = _Pool()


_keep_freed_memory()
_num_threads = _default_num_threads()
_new_pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_pool)
