"""`BatchNormalization`, `LayerNormalization`."""

from __future__ import annotations

import math
import warnings
from functools import partial

import numpy as np

from .. import constraints, initializers, ops, regularizers
from ..arrays import array_module, zeros
from ..checks import axes, checked, flag, fraction, number
from ..graph import KernelOp, Spec
from ..jit import kernel_array
from ..kernels import layer_normalization as row_kernels
from ..kernels import normalization as kernels
from ..serialization import export
from .base import InputSpec, Layer

__all__ = ["BatchNormalization", "LayerNormalization"]


def _rows(x):
    """Return a copy-free (where possible) view of `x` with one row per place; the channels are the last axis."""
    return kernel_array(x).reshape(-1, x.shape[-1])


def _channels(value, default, rows):
    return array_module(rows).full(rows.shape[1], default) if value is None else value.astype(np.float64)


def _forward(x, mask, gamma, beta, *, save, epsilon):
    rows = _rows(x)
    if mask is None:
        counts = array_module(rows).ones(len(rows), np.bool_)
    else:  # kernels do not check lengths
        counts = kernel_array(np.broadcast_to(mask, x.shape[:-1]).astype(np.bool_, copy=False)).reshape(-1)
    mean, variance, number = kernels.moments(rows, counts)
    inverse = 1.0 / np.sqrt(variance + epsilon)
    scale = _channels(gamma, 1.0, rows)
    y = kernels.normalize(rows, mean, inverse, scale, _channels(beta, 0.0, rows)).reshape(x.shape)
    saved = (rows, counts, number, mean, inverse, scale) if save else None
    return (y, mean.astype(x.dtype), variance.astype(x.dtype)), saved


def _infer(x, mask, gamma, beta, *, epsilon):
    channels = Spec(x.shape[-1:], x.dtype)
    return Spec(x.shape, x.dtype), channels, channels


def _pullback(saved, d_outputs, needs, *, epsilon):
    rows, counts, number, mean, inverse, scale = saved
    dy, d_mean, d_variance = d_outputs
    shape = rows.shape if dy is None else dy.shape
    dy = np.zeros_like(rows) if dy is None else _rows(dy)
    d_mean = 0.0 if d_mean is None else d_mean.astype(np.float64)
    d_variance = 0.0 if d_variance is None else d_variance.astype(np.float64)
    dx, d_gamma, d_beta = kernels.gradients(rows, counts, number, mean, inverse, scale, dy, d_mean, d_variance)
    wanted = (dx.reshape(shape), None, d_gamma.astype(rows.dtype), d_beta.astype(rows.dtype))
    return tuple(gradient if need else None for gradient, need in zip(wanted, needs, strict=True))


_normalize_batch = KernelOp("batch_normalization", _forward, _infer, _pullback)


class BatchNormalization(Layer):
    """Bring each channel to mean 0 and variance 1, then scale and shift it.

    In training the mean and variance are those of the batch (over all axes but one, masked timesteps left out), and
    moving averages of them are kept, which are used otherwise. With ``trainable = False`` the layer also normalizes
    with the moving averages while training, and leaves them alone.

    Parameters
    ----------
    axis : int
        The axis of the channels.
    momentum : float
        What remains of the moving averages at each step.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a `beta` that is added, and a `gamma` to multiply with.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer : str, Initializer or
    callable
    beta_regularizer, gamma_regularizer : str, Regularizer or callable, optional
    beta_constraint, gamma_constraint : str, Constraint or callable, optional
    renorm, synchronized : bool
        Not supported: False only.
    renorm_clipping, renorm_momentum
        Accepted for Keras's sake; they mean something with `renorm` only.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    gamma, beta : Variable, shape (channels,), or None
    moving_mean, moving_variance : Variable, shape (channels,)
        Not trainable; the variance is the biased one.
    """

    @checked(axis=axes, momentum=fraction, epsilon=partial(number, least=0), center=flag, scale=flag)
    def __init__(
        self,
        axis=-1,
        momentum=0.99,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        moving_mean_initializer="zeros",
        moving_variance_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        renorm=False,
        renorm_clipping=None,
        renorm_momentum=0.99,
        synchronized=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if renorm or synchronized:
            raise ValueError(
                f"Arguments `renorm` and `synchronized` must be False. Received: renorm={renorm}, "
                f"synchronized={synchronized}"
            )
        if isinstance(axis, (list, tuple)):
            if len(axis) != 1:
                raise ValueError(f"Argument `axis` must be one axis. Received: axis={axis}")
            axis = axis[0]
        self.axis = axis
        self.momentum = momentum
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.supports_masking = True
        self.gamma = None
        self.beta = None

    def build(self, input_shape):
        """Make the weights.

        Parameters
        ----------
        input_shape : tuple
            The length of `axis` must be known.
        """
        self._check_axis(input_shape)
        channels = input_shape[self.axis]
        if channels is None:
            raise ValueError(
                f"Axis {self.axis} of the inputs to a BatchNormalization layer should be defined. Found None. "
                f"Full input shape received: {tuple(input_shape)}"
            )
        if self.scale:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(channels,),
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                name="beta",
                shape=(channels,),
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )
        self.moving_mean = self.add_weight(
            name="moving_mean", shape=(channels,), initializer=self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            name="moving_variance", shape=(channels,), initializer=self.moving_variance_initializer, trainable=False
        )
        self.input_spec = InputSpec(ndim=len(input_shape), axes={self.axis: channels})

    def _check_axis(self, input_shape):
        if not -len(input_shape) <= self.axis < len(input_shape):
            raise ValueError(
                f"Axis {self.axis} is out of bounds for input shape {tuple(input_shape)}. Received: axis={self.axis}"
            )

    def call(self, inputs, training=None, mask=None):
        """Normalize.

        Parameters
        ----------
        inputs : array or Tensor
        training : bool, optional
            Whether to use, and take up into the moving averages, the mean and variance of this batch.
        mask : array or Tensor, optional
            Of one axis less than the inputs: which places have a part in the mean and variance.

        Returns
        -------
        array or Tensor
            Of the shape of `inputs`.
        """
        if mask is not None and len(mask.shape) != len(inputs.shape) - 1:
            raise ValueError(
                "The mask provided should be one dimension less than the inputs. Received: "
                f"mask.shape={mask.shape}, inputs.shape={inputs.shape}"
            )
        x = self._working(inputs)
        beta = None if self.beta is None else self._working(self.beta)
        axis = self.axis % len(x.shape)
        last = len(x.shape) - 1
        if training and self.trainable:
            if mask is not None and axis != last:
                raise ValueError(
                    f"A mask has a part in the moments only where the channels are the last axis. Received: "
                    f"axis={self.axis}, "
                    f"inputs.shape={inputs.shape}, mask.shape={mask.shape}"
                )
            turned = x if axis == last else ops.transpose(x, _to_last(axis, last))
            gamma = None if self.gamma is None else self._working(self.gamma)
            outputs, mean, variance = _normalize_batch(turned, mask, gamma, beta, epsilon=self.epsilon)
            keep = self.momentum
            self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
            self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
            return outputs if axis == last else ops.transpose(outputs, _from_last(axis, last))
        mean, factor = self.moving_scale()
        if axis != last:
            along = [1] * len(x.shape)
            along[axis] = x.shape[axis]
            mean, factor = ops.reshape(mean, along), ops.reshape(factor, along)
            beta = None if beta is None else ops.reshape(beta, along)
        outputs = (x - mean) * factor
        return outputs if beta is None else outputs + beta

    def moving_scale(self):
        """Return the moving mean, and what `call` multiplies with otherwise than in training; shape (channels,)."""
        factor = 1.0 / ops.sqrt(self._working(self.moving_variance) + self.epsilon)
        if self.gamma is not None:
            factor = factor * self._working(self.gamma)
        return self._working(self.moving_mean), factor

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        self._check_axis(input_shape)
        return tuple(input_shape)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "moving_mean_initializer": initializers.serialize(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.serialize(self.moving_variance_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
            "synchronized": False,
        }


def _to_last(axis, last):
    return tuple(i for i in range(last + 1) if i != axis) + (axis,)


def _from_last(axis, last):
    return (*range(axis), last, *range(axis, last))


def _flat(x, axes):
    """Return `x` with its last `axes` axes as one, and one row per sample."""
    return kernel_array(x).reshape(-1, math.prod(x.shape[len(x.shape) - axes :]))


def _layer_forward(x, gamma, beta, *, save, axes, epsilon):
    if x.size == 0:
        return np.empty_like(x), (x, None, None, None)
    rows = _flat(x, axes)
    gamma = array_module(x).ones(rows.shape[1], x.dtype) if gamma is None else kernel_array(gamma.reshape(-1))
    beta = array_module(x).zeros(rows.shape[1], x.dtype) if beta is None else kernel_array(beta.reshape(-1))
    y, mean, inverse = row_kernels.normalize(rows, gamma, beta, epsilon)
    return y.reshape(x.shape), (rows, gamma, mean, inverse) if save else None


def _layer_pullback(saved, d_outputs, needs, *, axes, epsilon):
    rows, gamma, mean, inverse = saved
    (dy,) = d_outputs
    lengths = dy.shape[len(dy.shape) - axes :]
    if dy.size == 0:
        wanted = np.zeros_like(dy), zeros(lengths, dy.dtype), zeros(lengths, dy.dtype)
    else:
        dx, *d_weights = row_kernels.gradients(rows, gamma, mean, inverse, _flat(dy, axes))
        wanted = dx.reshape(dy.shape), *(d.astype(dy.dtype).reshape(lengths) for d in d_weights)
    return tuple(gradient if need else None for gradient, need in zip(wanted, needs, strict=True))


_normalize_rows = KernelOp(
    "layer_normalization",
    _layer_forward,
    lambda x, gamma, beta, *, axes, epsilon: Spec(x.shape, x.dtype),
    _layer_pullback,
)


class LayerNormalization(Layer):
    """Bring each sample to mean 0 and variance 1 along some axes, then scale and shift it.

    A mask goes on unchanged: every timestep is normalized by itself, unless `axis` names that of the steps.

    Parameters
    ----------
    axis : int or list of int
        The axes along which the mean and the variance are taken; their lengths must be known.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there is a `beta` that is added, and a `gamma` to multiply with.
    beta_initializer, gamma_initializer : str, Initializer or callable
    beta_regularizer, gamma_regularizer : str, Regularizer or callable, optional
    beta_constraint, gamma_constraint : str, Constraint or callable, optional
    rms_scaling : bool
        Deprecated in Keras: divide by the standard deviation without taking the mean out first; there is no `beta`
        then, and always a `gamma`.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    gamma, beta : Variable, or None
        Of the lengths of `axis`, in the order of the axes.

    Raises
    ------
    TypeError
        If `axis` is neither an int nor a list of int.
    ValueError
        If, when built, an axis is out of bounds, named twice, or of unknown length.

    References
    ----------
    Ba, Kiros and Hinton, "Layer Normalization", arXiv:1607.06450.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.LayerNormalization(epsilon=0.0)(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])).round(3)
    array([[-1.414, -0.707,  0.   ,  0.707,  1.414]], dtype=float32)
    """

    @checked(epsilon=partial(number, least=0), center=flag, scale=flag, rms_scaling=flag)
    def __init__(
        self,
        axis=-1,
        epsilon=1e-3,
        center=True,
        scale=True,
        beta_initializer="zeros",
        gamma_initializer="ones",
        beta_regularizer=None,
        gamma_regularizer=None,
        beta_constraint=None,
        gamma_constraint=None,
        *,
        rms_scaling=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        if not all(isinstance(a, (int, np.integer)) and not isinstance(a, bool) for a in axes):
            raise TypeError(f"Expected an int or a list/tuple of ints for the argument 'axis', but received: {axis!r}")
        if rms_scaling:
            warnings.warn(
                "You passed `rms_scaling=True`, which is deprecated in Keras: it scales by the standard deviation, not "
                "by the root mean square.",
                stacklevel=2,
            )
        self.axis = [int(a) for a in axes] if isinstance(axis, (list, tuple)) else int(axis)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.rms_scaling = rms_scaling
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.supports_masking = True
        self.gamma = None
        self.beta = None

    def _axes_of(self, shape):
        """Return the axes, counted from the front, in order."""
        given = self.axis if isinstance(self.axis, list) else [self.axis]
        for axis in given:
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"Axis {axis} is out of bounds for input shape {tuple(shape)}. Received: axis={self.axis}"
                )
        axes = sorted(axis % len(shape) for axis in given)
        if not axes or len(set(axes)) != len(axes):
            raise ValueError(
                f"Argument `axis` must name each axis once, and at least one. Received: axis={self.axis} for input "
                f"shape {tuple(shape)}"
            )
        return axes

    def build(self, input_shape):
        """Make the weights.

        Parameters
        ----------
        input_shape : tuple
            The lengths of `axis` must be known.
        """
        shape = tuple(input_shape[axis] for axis in self._axes_of(input_shape))
        if None in shape:
            raise ValueError(
                f"Axis {self.axis} of the inputs to a LayerNormalization layer should be defined. Found None. "
                f"Full input shape received: {tuple(input_shape)}"
            )
        if self.scale or self.rms_scaling:
            self.gamma = self.add_weight(
                name="gamma",
                shape=shape,
                initializer=self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center and not self.rms_scaling:
            self.beta = self.add_weight(
                name="beta",
                shape=shape,
                initializer=self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )
        given = self.axis if isinstance(self.axis, list) else [self.axis]
        self.input_spec = InputSpec(
            min_ndim=max(axis + 1 if axis >= 0 else -axis for axis in given),
            axes={axis: input_shape[axis] for axis in given},
        )

    def call(self, inputs):
        """Normalize.

        Parameters
        ----------
        inputs : array or Tensor

        Returns
        -------
        array or Tensor
            Of the shape of `inputs`.
        """
        x = self._working(inputs)
        rank = len(x.shape)
        axes = self._axes_of(x.shape)
        order = [axis for axis in range(rank) if axis not in axes] + axes
        turned = x if order == sorted(order) else ops.transpose(x, order)
        gamma = None if self.gamma is None else self._working(self.gamma)
        beta = None if self.beta is None else self._working(self.beta)
        if self.rms_scaling:
            last = tuple(range(rank - len(axes), rank))
            outputs = turned * (gamma / ops.sqrt(ops.var(turned, axis=last, keepdims=True) + self.epsilon))
        else:
            outputs = _normalize_rows(turned, gamma, beta, axes=len(axes), epsilon=self.epsilon)
        return outputs if turned is x else ops.transpose(outputs, np.argsort(order).tolist())

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        self._axes_of(input_shape)
        return tuple(input_shape)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            "rms_scaling": self.rms_scaling,
            "beta_initializer": initializers.serialize(self.beta_initializer),
            "gamma_initializer": initializers.serialize(self.gamma_initializer),
            "beta_regularizer": regularizers.serialize(self.beta_regularizer),
            "gamma_regularizer": regularizers.serialize(self.gamma_regularizer),
            "beta_constraint": constraints.serialize(self.beta_constraint),
            "gamma_constraint": constraints.serialize(self.gamma_constraint),
        }


export("keras.layers", BatchNormalization, LayerNormalization)
