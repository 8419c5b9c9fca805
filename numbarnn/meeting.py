"""Threads that share the units of one kernel's rows, and meet at each step.

Where a batch has too few rows to go round, the members of a team each compute a part of the units of all rows.  A step
needs what all members have computed in the one before, so they meet in compiled code: that takes some 0.2 us, where a
hand-off between Python threads takes 20.

`meeting` is an array [members, 16] of int64, zeros at the start of a kernel, two cache lines for each member: how many
meetings it has come to, whether it is there, how often it has rested; the first member's row also says how the team has
been decided.
Nobody waits for a thread that may never come: who has come early works alone when the others are late.
"""

import os
import platform

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbarnn.jit import device
from numbarnn.simd import call_llvm, pointer

__all__ = ["ALONE", "assembly", "join", "meet", "rests", "share"]

_PLACES = 16  # numbers of two cache lines
_RESTED = 8
_TOGETHER, _ALONE = 1, 2  # _ALONE + member
# In rests of some 40 ns: a thread that is awake comes within 0.1 ms. By then the first member has decided, unless its
# thread has been stopped or is busy with another job.
_COMING, _DECIDING, _YIELDING = 5_000, 10_000, 2_000


def assembly(members):
    """Return a new array for a team to meet at."""
    return np.zeros((members, _PLACES), np.int64)


def rests(meeting):
    """Return how often, on the average of its meetings, the first member has rested: 40 ns or, at length, more."""
    return meeting[0, _RESTED] / max(1, meeting[0, 0])


ALONE = assembly(1)  #: For a kernel without a team.


@intrinsic
def _read(typingctx, base, offset):
    """The number at `offset`, before anything that is read afterwards."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(builder.gep(args[0], [args[1]]), "acquire", 8)

    return types.int64(base, types.intp), codegen


@intrinsic
def _write(typingctx, base, offset, value):
    """Write a number to `offset`, after everything that was written before."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "release", 8)
        return context.get_dummy_value()

    return types.void(base, types.intp, types.int64), codegen


@intrinsic
def _settle(typingctx, base, offset, value):
    """Write a number to `offset` if a zero is there; return what stands there then."""

    def codegen(context, builder, sig, args):
        zero = ir.IntType(64)(0)
        place = builder.gep(args[0], [args[1]])
        before = builder.extract_value(builder.cmpxchg(place, zero, args[2], "acq_rel", "acquire"), 0)
        return builder.select(builder.icmp_signed("==", before, zero), args[2], before)

    return types.int64(base, types.intp, types.int64), codegen


@intrinsic
def _rest(typingctx, rests):
    """Wait a moment; after many `rests` offer the core to another thread, perhaps to the one that is waited for."""

    def codegen(context, builder, sig, args):
        if platform.machine().lower() in ("x86_64", "amd64", "i686"):
            call_llvm(builder, "llvm.x86.sse2.pause", ir.VoidType(), [])
        if os.name == "posix":
            with builder.if_then(builder.icmp_signed(">", args[0], ir.IntType(64)(_YIELDING)), likely=False):
                call_llvm(builder, "sched_yield", ir.IntType(32), [])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@device
def join(member, meeting):
    """Say that a member is there, before anything that could fail is left to do.

    Returns
    -------
    seat, members : int
        Which of how many members this one is: as it was called, or 0 of 1, alone; 0 of 0 is not needed.
    """
    members = meeting.shape[0]
    if members == 1:
        return 0, 1
    places = pointer(meeting)
    rests, decided = 0, 0
    if member == 0:
        here = 1
        while here < members and rests < _COMING:
            if _read(places, here * _PLACES + 1):
                here += 1
            else:
                rests += 1
                _rest(rests)
        decided = _settle(places, 2, _TOGETHER if here == members else _ALONE)
    else:
        _write(places, member * _PLACES + 1, 1)
        while decided == 0 and rests < _DECIDING:
            decided = _read(places, 2)
            rests += 1
            _rest(rests)
        if decided == 0:
            decided = _settle(places, 2, _ALONE + member)
    if decided == _TOGETHER:
        return member, members
    return 0, 1 if decided == _ALONE + member else 0


@device
def meet(member, members, meeting, count):
    """Wait until all members have come to meeting number `count`, 1 at first: what each has written, all may read."""
    if members > 1:
        places = pointer(meeting)
        _write(places, member * _PLACES, count)
        rests = 0
        for other in range(members):
            while _read(places, other * _PLACES) < count:
                rests += 1
                _rest(rests)
        places[member * _PLACES + _RESTED] += rests


@device
def share(n, member, members):
    """Start and end of a member's share of ``range(n)``."""
    return n * member // members, n * (member + 1) // members
