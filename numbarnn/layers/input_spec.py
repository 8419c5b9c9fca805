"""`InputSpec`: what a layer expects of an input."""

from __future__ import annotations

from functools import partial

from .. import backend
from ..checks import checked, flag, integer, refuse
from ..serialization import export

__all__ = ["InputSpec"]


class InputSpec:
    """What a layer expects of an input: its rank, shape, dtype, or the length of some axes.

    Parameters
    ----------
    dtype : str, optional
    shape : tuple, optional
        None stands for any length.
    ndim, max_ndim, min_ndim : int, optional
    axes : dict, optional
        Axis -> length, or None for any.
    allow_last_axis_squeeze : bool
        Whether a last axis of length 1 may be missing or too many.
    name : str, optional
        The key of the input if inputs come as a dict.
    optional : bool
        Whether None may be passed.
    """

    @checked(
        ndim=partial(integer, least=0, optional=True),
        max_ndim=partial(integer, least=0, optional=True),
        min_ndim=partial(integer, least=0, optional=True),
        allow_last_axis_squeeze=flag,
        optional=flag,
    )
    def __init__(
        self,
        dtype=None,
        shape=None,
        ndim=None,
        max_ndim=None,
        min_ndim=None,
        axes=None,
        allow_last_axis_squeeze=False,
        name=None,
        optional=False,
    ):
        self.hint = ""  # what a layer has to say besides where the number of axes is wrong
        self.dtype = None if dtype is None else backend.standardize_dtype(dtype)
        if shape is not None and not isinstance(shape, (list, tuple)):
            refuse("shape", "a tuple of integers and None", shape)
        self.shape = None if shape is None else tuple(shape)
        self.ndim = len(self.shape) if shape is not None else ndim
        self.max_ndim = max_ndim
        self.min_ndim = min_ndim
        self.name = name
        self.optional = optional
        self.allow_last_axis_squeeze = allow_last_axis_squeeze
        try:
            self.axes = {int(axis): length for axis, length in (axes or {}).items()}
        except (AttributeError, TypeError, ValueError):
            raise TypeError(f"Argument `axes` must be a dict with integer keys. Received: axes={axes}") from None
        highest = self.ndim if self.ndim is not None else self.max_ndim
        if self.axes and highest is not None and max(self.axes) > highest - 1:
            raise ValueError(f"Axis {max(self.axes)} is greater than the maximum allowed value: {highest - 1}")

    def __repr__(self):
        shown = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes")
        return f"InputSpec({', '.join(f'{name}={getattr(self, name)}' for name in shown if getattr(self, name))})"

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        names = ("dtype", "shape", "ndim", "max_ndim", "min_ndim", "axes", "optional")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config):
        """Make a spec from `get_config`'s result."""
        return cls(**config)

    def check(self, x, index, layer_name):
        """Raise ValueError unless a value fits.

        Parameters
        ----------
        x : array or Tensor
        index : int
            Which input it is, for the message.
        layer_name : str
        """
        if x is None and self.optional:
            return
        if not hasattr(x, "shape"):
            raise ValueError(
                f"Inputs to a layer should be tensors. Got '{x}' (of type {type(x)}) as input for layer '{layer_name}'."
            )
        problem = self._problem(x, tuple(x.shape))
        if problem is not None:
            name = "" if self.name is None else f" with name '{self.name}'"
            raise ValueError(f"Input {index}{name} of layer '{layer_name}' is incompatible with the layer: {problem}")

    def _problem(self, x, shape):
        """Say what is wrong with a value of a shape; None if nothing is."""
        ndim = len(shape)
        full = "Full shape received:"
        if self.ndim is not None and ndim != self.ndim and not self.allow_last_axis_squeeze:
            return f"expected ndim={self.ndim}, found ndim={ndim}. {full} {shape}{self.hint}"
        if self.max_ndim is not None and ndim > self.max_ndim:
            return f"expected max_ndim={self.max_ndim}, found ndim={ndim}"
        if self.min_ndim is not None and ndim < self.min_ndim:
            return f"expected min_ndim={self.min_ndim}, found ndim={ndim}. {full} {shape}"
        if self.dtype is not None and x.dtype != self.dtype:
            return f"expected dtype={self.dtype}, found dtype={x.dtype}"
        for axis, length in self.axes.items():
            if length is not None and shape[axis] != length and shape[axis] is not None:
                return (
                    f"expected axis {axis} of input shape to have value {length}, but received input with shape {shape}"
                )
        if self.shape is not None:
            expected, found = self.shape, shape
            if self.allow_last_axis_squeeze:
                found = found[:-1] if found and found[-1] == 1 else found
                expected = expected[:-1] if expected and expected[-1] == 1 else expected
            differ = len(expected) != len(found) or any(
                a is not None and b is not None and a != b for a, b in zip(expected, found, strict=True)
            )
            if differ:
                return f"expected shape={self.shape}, found shape={shape}"
        return None


export("keras.layers", InputSpec)
