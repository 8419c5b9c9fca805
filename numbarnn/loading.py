"""Weights and states of a model that comes from a file: not far more than it has, and zeros until it has been read."""

from __future__ import annotations

import contextlib
import threading

__all__ = ["allow", "expecting", "is_expecting"]

_SLACK = 1 << 20


class _Limit(threading.local):
    left = None


_limit = _Limit()


@contextlib.contextmanager
def expecting(count):
    """Within the block, weights, and states of layers and metrics, may have about so many numbers in all.

    A configuration from a file is then no way to fill the memory, such as by a layer of a billion units.

    Parameters
    ----------
    count : int
    """
    before, _limit.left = _limit.left, 2 * count + _SLACK
    try:
        yield
    finally:
        _limit.left = before


def is_expecting():
    """Say whether weights that are made now get their values from a file."""
    return _limit.left is not None


def allow(count):
    """Raise ValueError if so many numbers more are too many.

    Parameters
    ----------
    count : int
        Of a weight, or state, that is about to be made.
    """
    if _limit.left is not None:
        _limit.left -= count
        if _limit.left < 0:
            raise ValueError("the configuration asks for many more numbers than the file holds")
