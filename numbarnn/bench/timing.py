"""Turns, minima and medians, ratios.

Whoever is compared runs in turns of some milliseconds, again and again, so that all of them meet the same weather on a
machine that others use as well. A ratio is how many times as fast the subject is as its reference, taken from minima
and from medians: the lower of the two counts.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from .peers.clock import timed

__all__ = ["Local", "Row", "Unable", "geometric_mean", "scaled", "summary", "take_turns"]

TURN = 0.05  # seconds, or a few calls where these take longer
REST = 0.25  # seconds: OpenMP's threads spin for 0.2 after their last task, and would take half of the next one's cores
LEAST_TURNS = 3


class Unable(Exception):
    """Whoever was asked cannot do this: the message says why."""


@dataclass
class Local:
    """Somebody who runs in this process.

    Attributes
    ----------
    name : str
    function : callable
        What is timed, without arguments.
    parts : int
        How many of what is counted a call does.
    """

    name: str
    function: Callable
    parts: int = 1

    def times(self, seconds):
        """Milliseconds of some calls, for about `seconds`."""
        return [milliseconds / self.parts for milliseconds in timed(self.function, seconds)]


@dataclass
class Row:
    """One comparison.

    Attributes
    ----------
    measure : str
        Which measure it is of.
    name, what : str
        What was measured, in two parts.
    times : dict
        ``{who: {"minimum": ..., "median": ..., "calls": ...}}`` in the order of appearance; the first one is the
        subject, which the others are references for. "torch, 1 thread" and "torch, 2 threads" are one peer.
    unit : str
        Of the times.
    unable : dict
        ``{who: reason}`` for references without times.
    details : dict
        More numbers: the size, operations, shares of what the machine can do.
    """

    measure: str
    name: str
    what: str
    times: dict
    unit: str = "ms"
    unable: dict = field(default_factory=dict)
    details: dict = field(default_factory=dict)

    @property
    def subject(self):
        """Name of who is compared with the others."""
        return next(iter(self.times))

    @property
    def ratios(self):
        """``{peer: how many times as fast the subject is}``; of a peer's numbers of threads, the better one's."""
        own = self.times[self.subject]
        found = {}
        for who, its in self.times.items():
            if who == self.subject:
                continue
            peer = who.split(",")[0]
            ratio = min(its[kind] / own[kind] for kind in ("minimum", "median"))
            found[peer] = min(ratio, found.get(peer, math.inf))
        return found

    @property
    def best(self):
        """(ratio, name) of the fastest peer; None without peers."""
        return min(((ratio, peer) for peer, ratio in self.ratios.items()), default=None)

    def as_dict(self):
        """The row as it is stored."""
        return {**asdict(self), "ratios": self.ratios}

    @classmethod
    def from_dict(cls, stored):
        """Read a stored row."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__})


def scaled(times, factor):
    """Times as `take_turns` gives them, in another unit."""
    return {
        who: {**its, "minimum": its["minimum"] * factor, "median": its["median"] * factor} for who, its in times.items()
    }


def summary(values):
    """Minimum, median and number of times."""
    return {"minimum": min(values), "median": statistics.median(values), "calls": len(values)}


def geometric_mean(values):
    """The geometric mean of positive numbers."""
    return math.exp(statistics.fmean(map(math.log, values)))


def take_turns(participants, seconds):
    """Time participants in turns, after one turn each that does not count.

    Parameters
    ----------
    participants : list
        Each with a `name` and a method ``times(seconds)`` that returns milliseconds, or raises `Unable`.
    seconds : float
        For all of them together; each has three turns at least.

    Returns
    -------
    times : dict
        ``{name: {"minimum": ..., "median": ..., "calls": ...}}`` in ms.
    unable : dict
        ``{name: reason}``.
    """
    times, unable = {}, {}
    running = []
    for one in participants:
        try:
            one.times(TURN)
            running.append(one)
        except Unable as reason:
            unable[one.name] = str(reason)
    begin, turns = time.perf_counter(), 0
    while running and (turns < LEAST_TURNS or time.perf_counter() - begin < seconds):
        turns += 1
        for one in list(running):
            try:
                times.setdefault(one.name, []).extend(one.times(TURN))
            except Unable as reason:  # a process that died in the middle
                unable[one.name] = str(reason)
                times.pop(one.name, None)
                running.remove(one)
            if not isinstance(one, Local):
                time.sleep(REST)
    return {name: summary(values) for name, values in times.items()}, unable
