"""What constructors ask of their arguments: flags, whole numbers, numbers in an interval, axes.

Each function takes an argument's name and value and returns the value as plain Python, or raises ValueError with the
name, what was expected and what came. `checked` applies them to a constructor.
"""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import os

import numpy as np

__all__ = [
    "axes", "checked", "flag", "fraction", "integer", "level", "number", "path", "real_numbers", "refuse",
    "whole_numbers",
]  # fmt: skip


def checked(**kinds):
    """Decorate a constructor whose arguments are checked before it starts; defaults are not.

    Parameters
    ----------
    **kinds : callable
        For each argument to be checked ``kind(name, value)``, which returns what the constructor gets.

    Returns
    -------
    decorator

    Examples
    --------
    >>> class Huber:
    ...     @checked(delta=functools.partial(number, above=0))
    ...     def __init__(self, delta=1.0):
    ...         self.delta = delta
    >>> Huber(-1.0)
    Traceback (most recent call last):
        ...
    ValueError: `delta` must be a number > 0. Received: delta=-1.0
    """

    def decorate(constructor):
        names = list(inspect.signature(constructor).parameters)[1:]
        unknown = kinds.keys() - set(names)
        if unknown:
            raise TypeError(f"{constructor.__qualname__} has no arguments {sorted(unknown)}")

        def value_of(name, value):
            return kinds[name](name, value) if name in kinds else value

        @functools.wraps(constructor)
        def __init__(self, *args, **kwargs):  # noqa: N807 - it takes the constructor's place
            args = [*map(value_of, names, args), *args[len(names) :]]
            constructor(self, *args, **{name: value_of(name, value) for name, value in kwargs.items()})

        return __init__

    return decorate


def refuse(name, expected, value):
    """Raise the ValueError."""
    raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value


def flag(name, value):
    """Return True or False; ``"False"`` and None are neither.

    Parameters
    ----------
    name : str
    value : bool
        Also 0 or 1.

    Returns
    -------
    bool
    """
    if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
        refuse(name, "True or False", value)
    return bool(value)


def integer(name, value, least=None, optional=False):
    """Return a whole number.

    Parameters
    ----------
    name : str
    value : int
        No bool.
    least : int, optional
        The smallest that is allowed.
    optional : bool
        Whether it may be None.

    Returns
    -------
    int or None
    """
    if value is None and optional:
        return None
    if not _is_integer(value) or (least is not None and value < least):
        expected = "an integer" if least is None else f"an integer >= {least}"
        refuse(name, expected + (" or None" if optional else ""), value)
    return int(value)


def _is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def level(name, value):
    """Return how much is to be told, a whole number of at least 0; True is 1."""
    return integer(name, int(value) if isinstance(value, (bool, np.bool_)) else value, least=0)


def _is_list(value):
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim > 0)


def real_numbers(name, value, optional=False):
    """Return a list, tuple or array of finite numbers as it is; None too if it is `optional`."""
    if value is None and optional:
        return None
    if not _is_list(value):
        refuse(name, "a list of numbers" + (" or None" if optional else ""), value)
    for each in value:
        number(name, each)
    return value


def whole_numbers(name, value):
    """Return several whole numbers as a list of int; a tuple stays one, and a range, however long, is one."""
    if isinstance(value, range):
        return value
    if not _is_list(value) or not all(map(_is_integer, value)):
        refuse(name, "a list of integers", value)
    found = [int(each) for each in value]
    return tuple(found) if isinstance(value, tuple) else found


def axes(name, value, optional=False):
    """Return an axis, or a list of some; None too if it is `optional`."""
    if isinstance(value, (list, tuple)):
        return whole_numbers(name, value)
    if not _is_integer(value) and not (optional and value is None):
        refuse(name, "an integer, or a list of integers" + (", or None" if optional else ""), value)
    return _plain(value)


def number(name, value, least=-math.inf, above=-math.inf, most=math.inf, below=math.inf, finite=True, optional=False):
    """Return a number in an interval; it is no NaN.

    Parameters
    ----------
    name : str
    value : int or float
        No bool.
    least, above, most, below : float
        Bounds, the first and the third included.
    finite : bool
        Whether infinity is refused.
    optional : bool
        Whether it may be None.

    Returns
    -------
    int, float or None
    """
    if value is None and optional:
        return None
    is_number = _is_number(value)
    within = is_number and least <= value <= most and (math.isfinite(value) or not finite)
    if not within or (above > -math.inf and value <= above) or (below < math.inf and value >= below):
        bounds = _interval(least, above, most, below)
        what = "a finite number" if finite and (not bounds or (is_number and math.isinf(value))) else "a number"
        refuse(name, what + bounds + (" or None" if optional else ""), value)
    return _plain(value)


def _is_number(value):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        float(value)
    except OverflowError:  # an int beyond all floats
        return False
    return True


def _interval(least, above, most, below):
    low = "" if max(least, above) == -math.inf else f"> {above}" if above >= least else f">= {least}"
    high = "" if min(most, below) == math.inf else f"< {below}" if below <= most else f"<= {most}"
    if low and high:
        ends = "[" if low.startswith(">=") else "(", "]" if high.startswith("<=") else ")"
        return f" in {ends[0]}{max(least, above)}, {min(most, below)}{ends[1]}"
    return f" {low}{high}" if low or high else ""


def fraction(name, value, *, below=False):
    """Return a float that lies in [0, 1], or in [0, 1) if it must be `below` 1."""
    return float(number(name, value, least=0, most=1, below=1 if below else math.inf))


def path(name, value):
    """Return a path: a string or an `os.PathLike`."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"`{name}` must be a path. Received: {name}={value!r}")
    return value
