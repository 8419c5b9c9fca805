"""How everything in numbarnn is compiled, and how its kernels are spread over threads (first version, being perfected)."""

import os
import threading

import numba

_threads = int(os.environ.get("NUMBARNN_NUM_THREADS") or len(os.sched_getaffinity(0)))


def njit(function=None, **options):
    """Compile `function` under the project's one policy (usable bare or with keyword overrides)."""
    if function is None:
        return lambda f: njit(f, **options)
    return numba.njit(**{"nogil": True, "cache": True, "error_model": "numpy", **options})(function)


def set_num_threads(n):
    global _threads
    _threads = n


def get_num_threads():
    return _threads


def chunks(n, grain):
    """Split range(n) into at most `get_num_threads()` contiguous chunks of at least `grain`."""
    count = max(1, min(_threads, n // max(1, grain)))
    bounds = [n * i // count for i in range(count + 1)]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def parallel_for(fn, n, grain, *args):
    """Call ``fn(start, stop, *args)`` for each chunk of range(n)."""
    parts = chunks(n, grain)
    threads = [threading.Thread(target=fn, args=(start, stop, *args)) for start, stop in parts[1:]]
    for t in threads:
        t.start()
    fn(*parts[0], *args)
    for t in threads:
        t.join()
