"""When threads share the units of a kernel's rows instead of the rows, and what is done where that does not pay.

See `numbarnn.meeting` for how the members of a team work together.
"""

import os
import threading
import time

from numbarnn.jit import get_num_threads
from numbarnn.meeting import assembly, rests

__all__ = ["run_members", "team_of"]

# A team forms where there are fewer rows than threads, or so few for each of them and recurrent weights of so many
# bytes that each thread is better off with a part of them: fewer rows than a tile of the products has, or some tiles
# where the weights do not fit in a second-level cache (on the way back that was seen to pay for fewer of them). Each
# member takes as many units as make a panel, and multiply-adds of a step that are worth a meeting.
_LESS_THAN_A_TILE = 6, 1 << 19
_ROWS_AND_BYTES = {
    "forward": (_LESS_THAN_A_TILE, (33, 1 << 21)),
    "backward": (_LESS_THAN_A_TILE, (17, 1 << 21)),
}
_UNITS = 64
_STEP = 1 << 16

_REST = 4e-8  # seconds, or more
_PATIENCE = 500  # rests at a meeting: 20 us


class _Trust:
    """Whether the threads get processors of their own: if not, members wait for each other for ever.

    After a pass in which they waited for long, threads share no units in the next pass, after a second such pass in the
    next two, and so on; results are the same.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._skip = self._penalty = 0

    def ask(self):
        """Return whether a team may form now."""
        with self._lock:
            if self._skip:
                self._skip -= 1
                return False
            return True

    def note(self, disappointed):
        """Take notice of how a pass went."""
        with self._lock:
            self._penalty = min(64, 2 * self._penalty or 1) if disappointed else 0
            self._skip = self._penalty

    def renew_lock(self):
        """After a fork another thread of the parent may hold it."""
        self._lock = threading.Lock()


_trust = _Trust()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_trust.renew_lock)


def team_of(cell, direction, rows, units, itemsize):
    """Return a new `meeting` for the team that computes a pass, None where its threads do better without.

    Parameters
    ----------
    cell : numbarnn.cells.Cell
    direction : str
        "forward" or "backward".
    rows, units : int
        B and H.
    itemsize : int
        Bytes of a number.

    Returns
    -------
    ndarray or None
        A row for each member.
    """
    members = min(get_num_threads(), units // _UNITS)
    if members < 2 or len(cell.phases) > 1:
        return None
    weights = cell.gates * units * units
    few = rows < members or any(rows < r * members and weights * itemsize > b for r, b in _ROWS_AND_BYTES[direction])
    if few and rows * weights >= _STEP * members and _trust.ask():
        return assembly(members)
    return None


def run_members(start, stop, kernel, rows, args, meeting):
    """Run the members start..stop of a team, one after the other: as a rule there is one for each call."""
    for member in range(start, stop):
        begin = time.perf_counter()
        kernel(0, rows, *args, member, meeting)
        if member == 0:
            seconds, average = time.perf_counter() - begin, rests(meeting)
            alone = meeting[0, 0] == 0
            waited = average > _PATIENCE and average * _REST * meeting[0, 0] > 0.3 * seconds
            _trust.note(alone or waited)
