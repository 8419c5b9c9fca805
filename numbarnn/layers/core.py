"""`Input`, `Dense`, `Activation`, `Dropout`, `SpatialDropout1D`, `Identity`, `Lambda`."""

from __future__ import annotations

import inspect

import numpy as np

from .. import activations, backend, constraints, initializers, ops, random, regularizers
from ..checks import checked, flag
from ..graph import Spec, Tensor
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from .base import InputSpec, Layer
from .nests import map_nest

__all__ = ["Activation", "Dense", "Dropout", "Identity", "Input", "InputLayer", "Lambda", "SpatialDropout1D"]


class InputLayer(Layer):
    """The place where data enters a model.

    Parameters
    ----------
    shape : tuple, optional
        Without the batch; None stands for any length.
    batch_size : int, optional
    dtype : str, optional
        `floatx` by default.
    batch_shape : tuple, optional
        With the batch; instead of `shape` and `batch_size`.
    input_tensor : Tensor, optional
        A symbolic tensor to be taken as the input.
    name : str, optional
        ``input_1``, ``input_2``, ... by default.

    Attributes
    ----------
    output : Tensor
        The symbolic input; its ``layer`` leads back here.
    """

    def __init__(
        self,
        shape=None,
        batch_size=None,
        dtype=None,
        sparse=None,
        ragged=None,
        batch_shape=None,
        input_tensor=None,
        optional=False,
        name=None,
        **kwargs,
    ):
        super().__init__(name=name)
        batch_shape = kwargs.pop("batch_input_shape", batch_shape)
        shape = kwargs.pop("input_shape", shape)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}")
        if sparse or ragged:
            raise ValueError(f"Sparse and ragged inputs are not supported. Received: sparse={sparse}, ragged={ragged}")
        if input_tensor is not None:
            if not isinstance(input_tensor, Tensor):
                raise ValueError(
                    "Argument `input_tensor` must be a symbolic Tensor. "
                    f"Received invalid type: input_tensor={input_tensor} (of type {type(input_tensor)})"
                )
            given = {"batch_size": batch_size, "shape": shape, "batch_shape": batch_shape, "dtype": dtype}
            own = input_tensor.shape
            fits = {"batch_size": own[:1] == (batch_size,), "shape": shape is not None and tuple(shape) == own[1:]}
            fits["batch_shape"] = batch_shape is not None and tuple(batch_shape) == own
            fits["dtype"] = dtype is not None and backend.standardize_dtype(dtype) == input_tensor.dtype.name
            for key, value in given.items():
                if value is not None and not fits[key]:
                    raise ValueError(
                        f"When providing the `input_tensor` argument, you cannot provide an incompatible `{key}` "
                        f"argument."
                    )
            batch_shape, dtype = own, input_tensor.dtype.name
        else:
            if shape is not None and batch_shape is not None:
                raise ValueError("You cannot pass both `shape` and `batch_shape` at the same time.")
            if batch_size is not None and batch_shape is not None:
                raise ValueError("You cannot pass both `batch_size` and `batch_shape` at the same time.")
            if shape is None and batch_shape is None:
                several = batch_size is not None or isinstance(dtype, int)
                hint = " `shape` is one tuple: Input((None, 1))" if several else ""
                raise ValueError(f"You must pass a `shape` argument.{hint}")
            if shape is not None:
                batch_shape = (batch_size, *_shape(shape))
        self.batch_shape = _shape(batch_shape)
        self.optional = optional
        self._dtype = backend.standardize_dtype(dtype)
        self._set_untracked("_output", Tensor(Spec(self.batch_shape, self._dtype), name=self.name))
        if input_tensor is not None:
            self._set_untracked("_output", input_tensor)
        self._output.layer = self
        self._build_at_init()

    def _default_name(self):
        return f"input_{backend.get_uid('input')}"

    @property
    def dtype(self):
        """The type of the input, as a string."""
        return self._dtype

    @property
    def output(self):
        """The symbolic input."""
        return self._output

    input = output

    def call(self, inputs):
        """Return the inputs."""
        return inputs

    def compute_output_shape(self, input_shape=None):
        """Return the shape of the input."""
        return self.batch_shape

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {"batch_shape": self.batch_shape, "dtype": self.dtype, "name": self.name}
        return {**config, "optional": True} if self.optional else config

    def __getstate__(self):
        return {key: value for key, value in super().__getstate__().items() if key != "_output"}

    def __setstate__(self, state):
        self.__dict__.update(state)
        tensor = Tensor(Spec(self.batch_shape, self._dtype), name=self.name)
        tensor.layer = self
        self._set_untracked("_output", tensor)


def _shape(shape):
    shape = (shape,) if shape is None or isinstance(shape, (int, np.integer)) else tuple(shape)
    for length in shape:
        if length is not None and (isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length < 0):
            raise ValueError(f"Cannot convert '{shape}' to a shape. Found invalid entry '{length}'.")
    return tuple(length if length is None else int(length) for length in shape)


def Input(  # noqa: N802 - Keras's name
    shape=None,
    batch_size=None,
    dtype=None,
    sparse=None,
    ragged=None,
    batch_shape=None,
    name=None,
    tensor=None,
    optional=False,
    **kwargs,
):
    """Make the symbolic input of a model.

    Parameters
    ----------
    shape : tuple
        Without the batch; None stands for any length.
    batch_size : int, optional
    dtype : str, optional
        `floatx` by default.
    sparse, ragged
        Not supported: None or False.
    batch_shape : tuple, optional
        With the batch; instead of `shape` and `batch_size`. Also understood as ``batch_input_shape``.
    name : str, optional
    tensor : Tensor, optional
        A symbolic tensor to be taken as the input.
    optional : bool
        Whether None may be passed.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> from numbarnn import layers
    >>> layers.Input((None, 28)).shape
    (None, None, 28)
    """
    layer = InputLayer(
        shape=shape,
        batch_size=batch_size,
        dtype=dtype,
        sparse=sparse,
        ragged=ragged,
        batch_shape=batch_shape,
        input_tensor=tensor,
        optional=optional,
        name=name,
        **kwargs,
    )
    return layer.output


class Dense(Layer):
    """``activation(x @ kernel + bias)`` along the last axis.

    Parameters
    ----------
    units : int
        Length of the last axis of the output.
    activation : str or callable, optional
    use_bias : bool
    kernel_initializer, bias_initializer : str, Initializer or callable
    kernel_regularizer, bias_regularizer, activity_regularizer : str, Regularizer or callable, optional
    kernel_constraint, bias_constraint : str, Constraint or callable, optional
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    kernel : Variable, shape (inputs, units)
    bias : Variable, shape (units,), or None
    """

    @checked(use_bias=flag)
    def __init__(
        self,
        units,
        activation=None,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        kernel_regularizer=None,
        bias_regularizer=None,
        activity_regularizer=None,
        kernel_constraint=None,
        bias_constraint=None,
        **kwargs,
    ):
        if isinstance(units, bool) or not isinstance(units, (int, np.integer)) or units <= 0:
            raise ValueError(
                f"Received an invalid value for `units`, expected a positive integer. Received: units={units}"
            )
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.input_spec = InputSpec(min_ndim=2)
        self.supports_masking = True
        self.bias = None

    def build(self, input_shape):
        """Make the weights.

        Parameters
        ----------
        input_shape : tuple
            Its last entry must be known.
        """
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                "The last dimension of the inputs to a Dense layer should be defined. Found None. "
                f"Full input shape received: {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(features, self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = InputSpec(min_ndim=2, axes={-1: features})

    def call(self, inputs, training=None):
        """Return the outputs; see the class.

        Parameters
        ----------
        inputs : array or Tensor, shape (..., inputs)
        training : bool, optional
            Makes no difference.

        Returns
        -------
        array or Tensor, shape (..., units)
        """
        outputs = ops.matmul(self._working(inputs), self._working(self.kernel))
        if self.bias is not None:
            outputs = ops.add(outputs, self._working(self.bias))
        return outputs if self.activation is activations.linear else self.activation(outputs)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (*input_shape[:-1], self.units)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "units": self.units,
            "activation": activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": initializers.serialize(self.kernel_initializer),
            "bias_initializer": initializers.serialize(self.bias_initializer),
            "kernel_regularizer": regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": constraints.serialize(self.kernel_constraint),
            "bias_constraint": constraints.serialize(self.bias_constraint),
        }


class Activation(Layer):
    """An activation as a layer.

    Parameters
    ----------
    activation : str or callable
    **kwargs
        Of `Layer`.
    """

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.supports_masking = True
        self._build_at_init()

    def call(self, inputs):
        """Return the activation of the inputs."""
        return self.activation(inputs)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return tuple(input_shape)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class Dropout(Layer):
    """In training, set a random part of the inputs to zero and scale the others up; else return the inputs.

    Parameters
    ----------
    rate : float
        The part that is dropped, in [0, 1].
    noise_shape : tuple, optional
        The shape of what is drawn, where it is not that of the inputs: a length of 1 drops along that axis together,
        None stands for the length of the inputs' axis.
    seed : int, optional
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    seed_generator : SeedGenerator or None
        None if nothing is ever dropped.
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number)) or not 0 <= rate <= 1:
            raise ValueError(
                "Invalid value received for argument `rate`. Expected a float value between 0 and 1. "
                f"Received: rate={rate}"
            )
        self.rate = float(rate)
        self.seed = seed
        self.noise_shape = self._check_noise_shape(noise_shape)
        self.seed_generator = random.SeedGenerator(seed) if rate > 0 else None
        self.supports_masking = True
        self._build_at_init()

    @staticmethod
    def _check_noise_shape(noise_shape):
        if noise_shape is None:
            return None
        if isinstance(noise_shape, (str, int, float)):
            raise ValueError(
                "Invalid value received for argument `noise_shape`. Expected a tuple or list of integers. "
                f"Received: noise_shape={noise_shape}"
            )
        noise_shape = tuple(noise_shape)
        for index, length in enumerate(noise_shape):
            if length is not None and (
                isinstance(length, bool) or not isinstance(length, (int, np.integer)) or length <= 0
            ):
                raise ValueError(
                    "Invalid value received for argument `noise_shape`. Expected all elements to be positive "
                    "integers or None. "
                    f"Received element at index {index}: {length} (type: {type(length).__name__})"
                )
        return noise_shape

    def call(self, inputs, training=False):
        """Return the inputs, in training with a part of them dropped.

        Parameters
        ----------
        inputs : array or Tensor
        training : bool

        Returns
        -------
        array or Tensor
        """
        if training and self.rate > 0:
            return random.dropout(inputs, self.rate, self.noise_shape, self.seed_generator)
        return inputs

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return tuple(input_shape)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed, "noise_shape": self.noise_shape}


class SpatialDropout1D(Dropout):
    """In training, set whole features to zero, at all timesteps, and scale the others up; else return the inputs.

    Parameters
    ----------
    rate : float
        The part that is dropped, in [0, 1].
    seed : int, optional
    name, dtype, **kwargs
        Of `Layer`.
    """

    def __init__(self, rate, seed=None, name=None, dtype=None, **kwargs):
        super().__init__(rate, (None, 1, None), seed, name=name, dtype=dtype, **kwargs)
        self.input_spec = InputSpec(ndim=3)

    def get_config(self):
        """Return the arguments that make this layer again: no more than Keras's takes."""
        config = super().get_config()
        return {key: config[key] for key in ("rate", "seed", "name", "dtype")}


class Identity(Layer):
    """Return the inputs.

    Parameters
    ----------
    **kwargs
        Of `Layer`.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs."""
        return inputs

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return input_shape

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the inputs."""
        return map_nest(lambda x: self._spec_as(x.shape, x), inputs)


class Lambda(Layer):
    """A function as a layer.

    Parameters
    ----------
    function : callable
        ``function(inputs, **arguments)``; it may also take ``mask`` and ``training``. Weights that it uses are not the
        layer's.
    output_shape : tuple or callable, optional
        The shape of the output without the batch, or a function from the input's shape; found by running the function
        on symbols otherwise.
    mask : array or callable, optional
        The mask that goes on: a value, or ``mask(inputs, mask)``. None goes on by default.
    arguments : dict, optional
    **kwargs
        Of `Layer`.
    """

    _wraps_function = True

    def __init__(self, function, output_shape=None, mask=None, arguments=None, **kwargs):
        super().__init__(**kwargs)
        if not callable(function):
            raise ValueError(f"Argument `function` must be callable. Received: function={function}")
        if arguments is not None and not isinstance(arguments, dict):
            raise TypeError(f"`arguments` must be a dict of keyword arguments. Received: arguments={arguments!r}")
        self.function = function
        self.arguments = arguments or {}
        self.mask = mask
        self._output_shape = output_shape
        self.supports_masking = True
        parameters = inspect.signature(function).parameters
        self._takes = {key for key in ("mask", "training") if key in parameters}
        self._build_at_init()

    def call(self, inputs, mask=None, training=None):
        """Return what the function returns."""
        extra = {key: value for key, value in (("mask", mask), ("training", training)) if key in self._takes}
        return self.function(inputs, **{**self.arguments, **extra})

    def compute_mask(self, inputs, previous_mask=None):
        """Return the mask given at construction, or what the function given there makes of this one."""
        return self.mask(inputs, previous_mask) if callable(self.mask) else self.mask

    def compute_output_spec(self, *args, **kwargs):
        """Say what shape and dtype the output has."""
        return (
            self._trace_spec(args, kwargs)
            if self._output_shape is None
            else super().compute_output_spec(*args, **kwargs)
        )

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        if self._output_shape is None:
            return Layer.compute_output_shape(self, input_shape)
        if callable(self._output_shape):
            return tuple(self._output_shape(input_shape))
        return (input_shape[0], *self._output_shape)

    def get_config(self):
        """Return the arguments that make this layer again; the function must have a name under which it is found."""
        return {
            **super().get_config(),
            "function": serialize_keras_object(self.function),
            "arguments": serialize_keras_object(self.arguments),
            "output_shape": serialize_keras_object(self._output_shape),
            "mask": serialize_keras_object(self.mask),
        }

    @classmethod
    def from_config(cls, config):
        """Make a layer from `get_config`'s result."""
        read = {
            key: deserialize_keras_object(config.get(key)) for key in ("function", "arguments", "output_shape", "mask")
        }
        return cls(**{**config, **read})


export("keras.layers", Activation, Dense, Dropout, Identity, InputLayer, Lambda, SpatialDropout1D)
