"""The names under which users know the methods that `Model` has from its parts."""

from __future__ import annotations

import functools
import inspect

from ..layers.signatures import arguments_problem
from ..serialization import suggestion

__all__ = ["of_model"]

_HINTS = {"mask": ". Masks come from `numbarnn.utils.Ragged`, `Masking` or `Embedding(mask_zero=True)`"}


def of_model(method):
    """Decorate a method of a part of `Model`: what does not fit its signature is said of `Model`, with a hint.

    Parameters
    ----------
    method : function

    Returns
    -------
    function
    """
    name = f"Model.{method.__name__}()"

    @functools.wraps(method)
    def called(self, *args, **kwargs):
        try:
            return method(self, *args, **kwargs)
        except TypeError:
            problem = arguments_problem(method, (self, *args), kwargs)
            if problem is None:
                raise
        known = inspect.signature(method).parameters
        unknown = next((key for key in kwargs if key not in known and f"'{key}'" in problem), None)
        hint = "" if unknown is None else _HINTS.get(unknown) or suggestion(unknown, known)
        raise TypeError(f"{name} {problem}{hint}")

    called.__qualname__ = name.removesuffix("()")
    return called
