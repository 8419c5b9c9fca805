"""`Concatenate`, `Add`, `Subtract`, `Multiply`, `Average`, `Maximum`, `Minimum`, `Dot`: several inputs, one output.

Masks, as in Keras 3: the result of an elementwise layer has a mask if all its inputs have one, and counts where any of
them does. `Multiply`, `Maximum` and `Minimum` leave a masked input out where it is masked; `Add`, `Subtract` and
`Average` take what stands there.
"""

from __future__ import annotations

from functools import reduce

import numpy as np

from .. import ops
from ..checks import checked, flag, integer
from ..serialization import export
from .base import Layer
from .masks import get_mask
from .nests import is_shape, shape_of

__all__ = [
    "Add",
    "Average",
    "Concatenate",
    "Dot",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
    "add",
    "average",
    "concatenate",
    "dot",
    "maximum",
    "minimum",
    "multiply",
    "subtract",
]


def _is_list_of_shapes(shapes):
    return isinstance(shapes, (list, tuple)) and len(shapes) > 0 and all(s is not None and is_shape(s) for s in shapes)


def _common_type(inputs):
    """Bring integers among floats into the type of these."""
    floats = [x.dtype for x in inputs if x.dtype.kind == "f"]
    if not floats:
        return list(inputs)
    dtype = np.result_type(*floats)
    return [x if x.dtype.kind == "f" else ops.cast(x, dtype) for x in inputs]


def _raise_ranks(values):
    """Insert axes after the first until all values have the same rank."""
    rank = max(len(x.shape) for x in values)
    return [ops.expand_dims(x, tuple(range(1, 1 + rank - len(x.shape)))) if len(x.shape) < rank else x for x in values]


def _broadcast_shapes(first, second):
    """Return the shape of an elementwise result, without the batch; unknown where either length is."""
    if len(first) < len(second):
        first, second = second, first
    lead = len(first) - len(second)
    lengths = list(first[:lead])
    for a, b in zip(first[lead:], second, strict=True):
        if a is not None and b is not None and a != b and 1 not in (a, b):
            raise ValueError(f"Inputs have incompatible shapes. Received shapes {first} and {second}")
        lengths.append(None if a is None or b is None else b if a == 1 else a)
    return tuple(lengths)


class _Merge(Layer):
    """Base of layers that are called on a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        """Check the shapes.

        Parameters
        ----------
        input_shape : list of tuple
        """
        self.compute_output_shape([] if input_shape is None else input_shape)

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the output: integers stay integers."""
        return self._spec_as(self.compute_output_shape(shape_of(inputs)), *inputs)

    @staticmethod
    def _check_masks(inputs, masks):
        if not isinstance(masks, (list, tuple)):
            raise ValueError(f"`mask` should be a list. Received: mask={masks}")
        if not isinstance(inputs, (list, tuple)):
            raise ValueError(f"`inputs` should be a list. Received: inputs={inputs}")
        if len(masks) != len(inputs):
            raise ValueError(
                f"The lists `inputs` and `mask` should have the same length. Received: inputs={inputs} of length "
                f"{len(inputs)}, and mask={masks} of length {len(masks)}"
            )


class _Elementwise(_Merge):
    """Base of layers that combine elements at the same place.

    Inputs of lower rank get axes of length 1 after the batch; then shapes broadcast.
    """

    def call(self, inputs):
        """Combine the inputs.

        Parameters
        ----------
        inputs : list of array or Tensor
            Of shapes that broadcast, with the same batch.

        Returns
        -------
        array or Tensor

        Raises
        ------
        ValueError
            If it is no list, or the shapes do not fit.
        """
        self.compute_output_shape(shape_of(inputs))
        return self._merge(_common_type(inputs), [get_mask(x) for x in inputs])

    def _merge(self, inputs, masks):
        raise NotImplementedError

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for a list of shapes."""
        if isinstance(input_shape, (list, tuple)) and len(input_shape) == 0:
            raise ValueError("A merge layer should be called on a list of at least 1 input. Received 0 inputs.")
        if not _is_list_of_shapes(input_shape):
            raise ValueError(
                "A merge layer should be called on a list of inputs. "
                f"Received: input_shape={input_shape} (not a list of shapes)"
            )
        batches = {shape[0] for shape in input_shape if shape} - {None}
        if len(batches) > 1:
            raise ValueError(
                f"Cannot merge tensors with different batch sizes. Received tensors with shapes {input_shape}"
            )
        return (batches.pop() if batches else None, *reduce(_broadcast_shapes, [tuple(s[1:]) for s in input_shape]))

    def compute_mask(self, inputs, previous_mask=None):
        """Return where any input counts; None unless all have a mask."""
        if previous_mask is None:
            return None
        self._check_masks(inputs, previous_mask)
        if any(mask is None for mask in previous_mask):
            return None
        return reduce(ops.logical_or, _raise_ranks(previous_mask))


def _with_features(mask, x):
    """Give a mask of the first axes all axes of `x`, of length 1."""
    missing = len(x.shape) - len(mask.shape)
    return ops.expand_dims(mask, tuple(range(-missing, 0))) if missing else mask


def _raise_both(inputs, masks):
    """Return inputs of one rank, and masks that broadcast against them."""
    masks = [None if mask is None else _with_features(mask, x) for x, mask in zip(inputs, masks, strict=True)]
    rank = max(len(x.shape) for x in inputs)
    raised = [
        None if mask is None else ops.expand_dims(mask, tuple(range(1, 1 + rank - len(mask.shape)))) for mask in masks
    ]
    return _raise_ranks(inputs), raised


class Add(_Elementwise):
    """The sum of the inputs.

    Parameters
    ----------
    **kwargs
        Of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.Add()([np.ones((1, 2)), np.full((1, 2), 2.0)])
    array([[3., 3.]], dtype=float32)
    """

    def _merge(self, inputs, masks):
        return reduce(ops.add, _raise_ranks(inputs))


class Subtract(_Elementwise):
    """The first input minus the second.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    def _merge(self, inputs, masks):
        return ops.subtract(*_raise_ranks(inputs))

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for a list of two shapes."""
        shape = super().compute_output_shape(input_shape)
        if len(input_shape) != 2:
            raise ValueError(
                f"A `Subtract` layer should be called on exactly 2 inputs. Received: input_shape={input_shape}"
            )
        return shape


class Multiply(_Elementwise):
    """The product of the inputs.

    Where an input is masked it counts as 1; where all are, the result is 0.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    def _merge(self, inputs, masks):
        inputs, masks = _raise_both(inputs, masks)
        factors = [x if mask is None else ops.where(mask, x, 1) for x, mask in zip(inputs, masks, strict=True)]
        product = reduce(ops.multiply, factors)
        if any(mask is None for mask in masks):
            return product
        return ops.where(reduce(ops.logical_or, masks), product, 0)


class Average(_Elementwise):
    """The mean of the inputs.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    def _merge(self, inputs, masks):
        total = reduce(ops.add, _raise_ranks(inputs))
        # Integers divide into the layer's floats, not into NumPy's float64.
        return (total if total.dtype.kind == "f" else self._working(total)) / len(inputs)

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the output: floats in any case."""
        return self._specs_of(self.compute_output_shape(shape_of(inputs)))


class _Extreme(_Elementwise):
    """Base of `Maximum` and `Minimum`: where one of two inputs is masked, the other one wins."""

    _choose = None

    def _merge(self, inputs, masks):
        inputs, masks = _raise_both(inputs, masks)
        result, valid = inputs[0], masks[0]
        for x, mask in zip(inputs[1:], masks[1:], strict=True):
            other = x if mask is None else ops.where(mask, x, result)
            result = type(self)._choose(result if valid is None else ops.where(valid, result, other), other)
            valid = None if mask is None or valid is None else ops.logical_or(valid, mask)
        return result


class Maximum(_Extreme):
    """The largest of the inputs, at each place.

    Where an input is masked it does not compete. Equal winners share the gradient.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    _choose = staticmethod(ops.maximum)


class Minimum(_Extreme):
    """The smallest of the inputs, at each place.

    Where an input is masked it does not compete. Equal winners share the gradient.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    _choose = staticmethod(ops.minimum)


class Concatenate(_Merge):
    """Join the inputs along an axis.

    The masks are joined too, those of unmasked inputs being all True; along the last axis, a timestep counts where it
    does in any input. The result has a mask if any input has.

    Parameters
    ----------
    axis : int
    **kwargs
        Of `Layer`.

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Concatenate()([layers.Input((None, 4)), layers.Input((None, 3))]).shape
    (None, None, 7)
    """

    @checked(axis=integer)
    def __init__(self, axis=-1, **kwargs):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, inputs):
        """Join the inputs.

        Parameters
        ----------
        inputs : list of array or Tensor
            Of equal shapes but along `axis`.

        Returns
        -------
        array or Tensor

        Raises
        ------
        ValueError
            If it is no list, or the shapes do not fit.
        """
        self.compute_output_shape(shape_of(inputs))
        return ops.concatenate(_common_type(inputs), axis=self.axis)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for a list of shapes."""
        if not _is_list_of_shapes(input_shape):
            raise ValueError(
                "A `Concatenate` layer should be called on a list of at least 1 input. "
                f"Received: input_shape={input_shape}"
            )
        rank = len(input_shape[0])
        ranks_fit = all(len(shape) == rank for shape in input_shape)
        if ranks_fit and not -rank <= self.axis < rank:
            raise ValueError(f"Axis {self.axis} is out of bounds for input shapes {input_shape}.")
        axis = self.axis % rank if ranks_fit else None
        if not ranks_fit or any(
            len({lengths for lengths in along if lengths is not None}) > 1
            for i, along in enumerate(zip(*input_shape, strict=True))
            if i != axis
        ):
            raise ValueError(
                "A `Concatenate` layer requires inputs with matching shapes except for the concatenation axis. "
                f"Received: input_shape={input_shape}"
            )
        lengths = [shape[axis] for shape in input_shape]
        joined = None if None in lengths else sum(lengths)
        return (*input_shape[0][:axis], joined, *input_shape[0][axis + 1 :])

    def compute_mask(self, inputs, previous_mask=None):
        """Return the joined masks; None if there are none."""
        if previous_mask is None:
            return None
        self._check_masks(inputs, previous_mask)
        if all(mask is None for mask in previous_mask):
            return None
        masks = [_without_features(mask, x) for x, mask in zip(inputs, previous_mask, strict=True)]
        axis = self.axis % len(inputs[0].shape)
        if axis == len(inputs[0].shape) - 1:
            return reduce(ops.logical_or, masks)
        return ops.concatenate(masks, axis=axis)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "axis": self.axis}


def _without_features(mask, x):
    """Return a mask, all True if there is none, with the axes of `x` but the last one."""
    places = x[..., 0]
    if mask is None:
        return ops.broadcast_like(np.ones((), bool), places)
    if len(mask.shape) == len(x.shape):
        return ops.any(mask, axis=-1)
    return ops.broadcast_like(_with_features(mask, places), places)


class Dot(_Merge):
    """The dot products of two inputs along an axis of each, sample by sample.

    The axes that are left come first from the first input, then from the second; if none is, one of length 1. Masks
    make no difference and end here, as in Keras.

    Parameters
    ----------
    axes : int or (int, int)
        The axis of both inputs, or of each; not 0, the batch.
    normalize : bool
        Whether the inputs are brought to length 1 along the axis before: the result is the cosine then.
    **kwargs
        Of `Layer`.

    Raises
    ------
    TypeError, ValueError
        If `axes` is neither.

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Dot((2, 1))([layers.Input((5, 3)), layers.Input((3, 10))]).shape
    (None, 5, 10)
    """

    @checked(normalize=flag)
    def __init__(self, axes, normalize=False, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(axes, int):
            if not isinstance(axes, (list, tuple)):
                raise TypeError(
                    f"Invalid type for argument `axes`: it should be a list or an int. Received: axes={axes}"
                )
            if len(axes) != 2:
                raise ValueError(
                    f"Invalid format for argument `axes`: it should contain two elements. Received: axes={axes}"
                )
            if not all(isinstance(axis, int) for axis in axes):
                raise ValueError(
                    f"Invalid format for argument `axes`: list elements should be integers. Received: axes={axes}"
                )
        self.axes = axes
        self.normalize = normalize

    def _axes_of(self, shapes):
        """Return the two axes, counted from the front; raise ValueError if the shapes do not fit."""
        if not _is_list_of_shapes(shapes) or len(shapes) != 2:
            raise ValueError(f"A `Dot` layer should be called on a list of 2 inputs. Received: input_shape={shapes}")
        given = (self.axes, self.axes) if isinstance(self.axes, int) else self.axes
        for axis, shape in zip(given, shapes, strict=True):
            if len(shape) < 2 or not -len(shape) <= axis < len(shape):
                raise ValueError(f"Axis {axis} is out of bounds for input shapes {shapes}. Received: axes={self.axes}")
        axes = tuple(axis % len(shape) for axis, shape in zip(given, shapes, strict=True))
        if 0 in axes:
            raise ValueError(f"Cannot perform batch_dot over axis 0, the batch. Received: axes={self.axes}")
        (first, second), (i, j) = shapes, axes
        if None not in (first[i], second[j]) and first[i] != second[j]:
            raise ValueError(
                f"Incompatible input shapes: axis values {first[i]} (at axis {i}) != {second[j]} (at axis {j}). "
                f"Full input shapes: {first}, {second}"
            )
        return axes

    def call(self, inputs):
        """Take the dot products.

        Parameters
        ----------
        inputs : list of two arrays or Tensors, shapes (batch, ...)

        Returns
        -------
        array or Tensor

        Raises
        ------
        ValueError
            If it is no list of two, or the axes differ in length.
        """
        axes = self._axes_of(shape_of(inputs))
        inputs = _common_type(inputs)
        if self.normalize:
            inputs = [ops.normalize(x, axis=axis) for x, axis in zip(inputs, axes, strict=True)]
        flat = [len(x.shape) == 2 for x in inputs]
        # With an axis beside the one that is summed over, nothing needs a new shape: lengths may be unknown.
        inputs = [ops.expand_dims(x, 1) if is_flat else x for x, is_flat in zip(inputs, flat, strict=True)]
        letters = iter("cdefghijklmnopqrstuvwxyz")
        labels = [["a", *(next(letters) for _ in x.shape[1:])] for x in inputs]
        for label, axis, is_flat in zip(labels, axes, flat, strict=True):
            label[2 if is_flat else axis] = "b"
        first, second = ("".join(label) for label in labels)
        rest = (first + second).replace("a", "").replace("b", "")
        result = ops.einsum(f"{first},{second}->a{rest}", *inputs)
        return ops.squeeze(result, 1) if flat[0] else ops.squeeze(result, -1) if flat[1] else result

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for a list of two shapes."""
        axes = self._axes_of(input_shape)
        rest = [n for s, axis in zip(input_shape, axes, strict=True) for i, n in enumerate(s) if i not in (0, axis)]
        return (input_shape[0][0], *(rest or [1]))

    def compute_mask(self, inputs, previous_mask=None):
        """Return None."""
        return None

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "axes": self.axes, "normalize": self.normalize}


def _function_of(cls):
    """Return the functional form of a layer that takes a list."""

    def merge(inputs, **kwargs):
        return cls(**kwargs)(inputs)

    name = cls.__name__.lower()
    merge.__name__ = merge.__qualname__ = name
    merge.__doc__ = f"""Call a new `{cls.__name__}` layer.

    Parameters
    ----------
    inputs : list of array or Tensor
    **kwargs
        Of `{cls.__name__}`.

    Returns
    -------
    array or Tensor
    """
    return merge


add, subtract, multiply, average, maximum, minimum = map(
    _function_of, (Add, Subtract, Multiply, Average, Maximum, Minimum)
)


def concatenate(inputs, axis=-1, **kwargs):
    """Call a new `Concatenate` layer.

    Parameters
    ----------
    inputs : list of array or Tensor
    axis : int
    **kwargs
        Of `Layer`.

    Returns
    -------
    array or Tensor
    """
    return Concatenate(axis=axis, **kwargs)(inputs)


def dot(inputs, axes=-1, **kwargs):
    """Call a new `Dot` layer.

    Parameters
    ----------
    inputs : list of two arrays or Tensors
    axes : int or (int, int)
    **kwargs
        Of `Dot`.

    Returns
    -------
    array or Tensor
    """
    return Dot(axes=axes, **kwargs)(inputs)


export("keras.layers", Add, Average, Concatenate, Dot, Maximum, Minimum, Multiply, Subtract)
