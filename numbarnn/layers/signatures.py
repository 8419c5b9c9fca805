"""What layers must know about the signatures of their `call` and `build`, and what stands around every `build`."""

from __future__ import annotations

import functools
import inspect

from ..graph import suspended
from .tracking import calls

__all__ = ["CallInfo", "arguments_problem", "call_info", "shape_parameters", "wrap_build"]


def _parameters(signature):
    """Return the parameters of a method but the first, whatever the class calls `self`."""
    parameters = list(signature.parameters.values())
    own = parameters and parameters[0].kind in (parameters[0].POSITIONAL_ONLY, parameters[0].POSITIONAL_OR_KEYWORD)
    return parameters[1:] if own else parameters


class CallInfo:
    """What must be known about the parameters of a `call`."""

    __slots__ = (
        "first",
        "has_mask",
        "has_training",
        "keywords",
        "mask_index",
        "names",
        "own",
        "signature",
        "training_default",
        "training_index",
    )

    def __init__(self, function):
        self.signature = inspect.signature(function)
        parameters = _parameters(self.signature)
        plain = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self.names = [p.name for p in plain]
        #: Whether a user wrote it: what it is given must not be written to, and it may try.
        self.own = (getattr(function, "__module__", None) or "").partition(".")[0] != "numbarnn"
        self.keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.first = self.names[0] if self.names else None
        self.has_training = "training" in self.names
        self.has_mask = "mask" in self.names
        self.training_index = self.names.index("training") if self.has_training else -1
        self.mask_index = self.names.index("mask") if self.has_mask else -1
        default = self.signature.parameters["training"].default if self.has_training else None
        self.training_default = None if default is inspect.Parameter.empty else default


@functools.lru_cache(maxsize=1024)
def call_info(function):
    """Return the `CallInfo` of a `call`, made once."""
    return CallInfo(function)


@functools.lru_cache(maxsize=1024)
def shape_parameters(function):
    """Return the names of the parameters of a `build` or `compute_output_shape`, but `self`, ``*`` and ``**``."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [p.name for p in _parameters(inspect.signature(function)) if p.kind in kinds]


def arguments_problem(function, args, kwargs):
    """Say why a function cannot be called so: str, or None if it can."""
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        return str(error)
    return None


def wrap_build(build):
    """Make a `build` method leave the layer marked, locked and with its shapes noted, whoever calls it."""

    @functools.wraps(build)
    def wrapped(self, *args, **kwargs):
        state = self.__dict__
        if state["_building"]:  # super().build(...)
            return build(self, *args, **kwargs)
        state["_building"] = True
        before = list(self._own_trainable), list(self._own_non_trainable)
        calls.stack.append((self, None))
        try:
            with suspended():  # weights are made now, also while a function is being traced
                result = build(self, *args, **kwargs)
        except BaseException:
            state["_own_trainable"], state["_own_non_trainable"] = before  # another attempt makes them anew
            raise
        finally:
            calls.stack.pop()
            state["_building"] = False
        bound = inspect.signature(build).bind(self, *args, **kwargs).arguments
        state["_build_shapes"] = {name: value for name, value in bound.items() if value is not self}
        self.built = True
        state["_locked"] = True
        if state["_initial_weights"] is not None:
            self.set_weights(state["_initial_weights"])
            state["_initial_weights"] = None
        return result

    wrapped._builds = True
    return wrapped
