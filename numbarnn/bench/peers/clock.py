"""How calls are timed, here and in the processes of the peers."""

import time

__all__ = ["timed"]

MOST_CALLS = 500
LONG = 0.1  # seconds


def timed(function, seconds):
    """Time calls of a function, after a few that are not timed.

    Parameters
    ----------
    function : callable
        Called without arguments.
    seconds : float
        How long, about: one call at least, three where they are short.

    Returns
    -------
    list of float
        Milliseconds of each call.
    """
    begin = time.perf_counter()
    function()
    first = max(time.perf_counter() - begin, 1e-7)
    calls = max(1 if first > LONG else 3, min(MOST_CALLS, round(seconds / first)))
    for _ in range(calls // 10):
        function()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return times
