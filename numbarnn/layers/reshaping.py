"""`Flatten`, `Reshape`, `RepeatVector`, `Permute`: the same values in other places.

None of them passes a mask on: a mask says which timesteps count, and afterwards there may be none, or others.
"""

from __future__ import annotations

import math

import numpy as np

from .. import ops
from ..backend import standardize_data_format
from ..checks import checked, integer, refuse, whole_numbers
from ..graph import Op, Spec
from ..ops.shaping import reshape_like
from ..serialization import export
from .base import InputSpec, Layer

__all__ = ["Flatten", "Permute", "RepeatVector", "Reshape"]


def _check_target(target):
    """Raise ValueError for a target shape that no input fits."""
    known = [n for n in target if n is not None]
    if any(n < -1 for n in known):
        raise ValueError(
            "Each dimension in `target_shape` must be a non-negative integer, or `-1` for a single unknown dimension. "
            f"Received: target_shape={target}."
        )
    if len(target) - len(known) + known.count(-1) > 1:
        raise ValueError(
            f"There must be at most one unknown dimension (-1) in `target_shape`. Received: target_shape={target}."
        )


def _resolve(shape, target):
    """Return `target` with its -1 found from `shape` (both without the batch); None if that cannot be known yet."""
    if None in shape:
        return tuple(None if n == -1 else n for n in target)
    size, others = math.prod(shape), math.prod(n for n in target if n != -1)
    if -1 not in target:
        if size != others:
            raise ValueError(
                "The total size of the tensor must be unchanged. Received: "
                f"input_shape={tuple(shape)}, target_shape={target}"
            )
        return target
    if others == 0 or size % others != 0:
        raise ValueError(
            "The total size of the tensor must be unchanged, however, the input size cannot by divided by the "
            f"specified dimensions in target_shape. Received: input_shape={tuple(shape)}, target_shape={target}"
        )
    return tuple(size // others if n == -1 else n for n in target)


# `ops.reshape` knows one length that is not known yet; here both the batch and one more may be.
_reshape_rows = Op(
    "reshape_rows",
    lambda x, *, target: x.reshape(x.shape[0], *_resolve(x.shape[1:], target)),
    lambda x, *, target: Spec((x.shape[0], *_resolve(x.shape[1:], target)), x.dtype),
    lambda node, d: reshape_like(d, node.inputs[0]),
)
_repeat_rows = Op(
    "repeat_rows",
    lambda x, *, n: np.repeat(x[:, None], n, axis=1),
    lambda x, *, n: Spec((x.shape[0], n, *x.shape[1:]), x.dtype),
    lambda node, d: ops.sum(d, axis=1),
)


class _Moved(Layer):
    """Base of layers whose output has the values, and so the type, of the input."""

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the output."""
        return self._spec_as(self.compute_output_shape(tuple(inputs.shape)), inputs)


class Flatten(_Moved):
    """Lay all axes but the batch out along one.

    Inputs of shape ``(batch,)`` become ``(batch, 1)``. A mask is not passed on.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        With ``"channels_first"`` axis 1 is moved to the end before; `numbarnn.backend.image_data_format` by default.
    **kwargs
        Of `Layer`.

    Raises
    ------
    ValueError
        If `data_format` is neither.

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Flatten()(layers.Input((10, 64))).shape
    (None, 640)
    """

    def __init__(self, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.input_spec = InputSpec(min_ndim=1)
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs with one axis beside the batch.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, ...)

        Returns
        -------
        array or Tensor, shape (batch, n)
        """
        rank = len(inputs.shape)
        if self.data_format == "channels_first" and rank > 2:
            inputs = ops.transpose(inputs, (0, *range(2, rank), 1))
        return _reshape_rows(inputs, target=(-1,))

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (input_shape[0], *_resolve(input_shape[1:], (-1,)))

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "data_format": self.data_format}


class Reshape(_Moved):
    """Give each sample another shape.

    A mask is not passed on.

    Parameters
    ----------
    target_shape : tuple of int
        Without the batch; one length may be -1: it is found from the others.
    **kwargs
        Of `Layer`.

    Raises
    ------
    ValueError
        If more than one length is unknown, or, when called, if the sizes differ.

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Reshape((-1, 4))(layers.Input((12,))).shape
    (None, 3, 4)
    """

    def __init__(self, target_shape, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(target_shape, (list, tuple)):
            refuse("target_shape", "a tuple of integers", target_shape)
        self.target_shape = tuple(integer("target_shape", n, optional=True) for n in target_shape)
        _check_target(self.target_shape)
        self._target = tuple(-1 if n is None else n for n in self.target_shape)
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs in the new shape.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, ...)

        Returns
        -------
        array or Tensor, shape (batch, *target_shape)
        """
        return _reshape_rows(inputs, target=self._target)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (input_shape[0], *_resolve(input_shape[1:], self._target))

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "target_shape": self.target_shape}


class RepeatVector(_Moved):
    """Repeat each sample `n` times along a new axis 1: what a decoder is fed with.

    A mask is not passed on.

    Parameters
    ----------
    n : int
    **kwargs
        Of `Layer`.

    Raises
    ------
    TypeError
        If `n` is no integer.
    ValueError
        If `n` is not positive.

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.RepeatVector(3)(layers.Input((32,))).shape
    (None, 3, 32)
    """

    def __init__(self, n, **kwargs):
        super().__init__(**kwargs)
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
            raise TypeError(f"Expected an integer value for `n`, got {type(n)}.")
        if n <= 0:
            raise ValueError(f"Argument `n` should be a positive integer. Received: n={n}")
        self.n = int(n)
        self.input_spec = InputSpec(ndim=2)
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs, repeated.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, features)

        Returns
        -------
        array or Tensor, shape (batch, n, features)
        """
        return _repeat_rows(inputs, n=self.n)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (input_shape[0], self.n, input_shape[1])

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "n": self.n}


class Permute(_Moved):
    """Put the axes of each sample in another order.

    A mask is not passed on.

    Parameters
    ----------
    dims : tuple of int
        Which axis of the inputs comes where; counted from 1, the batch being 0.
    **kwargs
        Of `Layer`.

    Raises
    ------
    ValueError
        If `dims` is no permutation of 1, 2, ...

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Permute((2, 1))(layers.Input((10, 64))).shape
    (None, 64, 10)
    """

    @checked(dims=whole_numbers)
    def __init__(self, dims, **kwargs):
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(
                "Invalid permutation argument `dims` for Permute Layer. The set of indices in `dims` must be "
                f"consecutive and start from 1. Received dims={dims}"
            )
        self.input_spec = InputSpec(ndim=len(self.dims) + 1)
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs with permuted axes.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, ...)

        Returns
        -------
        array or Tensor
        """
        return ops.transpose(inputs, (0, *self.dims))

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (input_shape[0], *(input_shape[dim] for dim in self.dims))

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "dims": self.dims}


export("keras.layers", Flatten, Permute, RepeatVector, Reshape)
