"""How weights start: Keras's initializers with Keras's distributions."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from . import random
from .backend import standardize_dtype, to_snake_case
from .checks import checked, number
from .serialization import deserialize_keras_object, export, interpret, serialize_keras_object

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomInitializer",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "compute_fans",
    "deserialize",
    "get",
    "serialize",
]

# A normal distribution cut at two standard deviations has this standard deviation.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer:
    """Base class: an object that is called with a shape and returns the values a weight starts from.

    A subclass defines ``__call__(self, shape, dtype=None)`` and, if it has arguments, `get_config`.
    """

    def __call__(self, shape, dtype=None):
        """Return the initial values.

        Parameters
        ----------
        shape : tuple of int
        dtype : str, optional
            `floatx` by default.

        Returns
        -------
        numpy.ndarray
        """
        raise NotImplementedError("Initializer subclasses must implement the `__call__()` method.")

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Make an initializer from `get_config`'s result."""
        return cls(**config)

    def clone(self):
        """Return a new initializer with the same arguments."""
        return type(self).from_config(self.get_config())

    def __repr__(self):
        arguments = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


class Zeros(Initializer):
    """All zeros."""

    def __call__(self, shape, dtype=None):
        """Return zeros (see `Initializer`)."""
        return np.zeros(shape, standardize_dtype(dtype))


class Ones(Initializer):
    """All ones."""

    def __call__(self, shape, dtype=None):
        """Return ones (see `Initializer`)."""
        return np.ones(shape, standardize_dtype(dtype))


class Constant(Initializer):
    """One value everywhere.

    Parameters
    ----------
    value : float
    """

    def __init__(self, value=0.0):
        if np.asarray(value).dtype.kind not in "fiub":
            raise ValueError(f"`value` must be a number, or an array of numbers. Received: value={value!r}")
        self.value = value

    def __call__(self, shape, dtype=None):
        """Return the constant (see `Initializer`)."""
        return np.full(shape, self.value, standardize_dtype(dtype))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"value": serialize_keras_object(self.value)}

    @classmethod
    def from_config(cls, config):
        """Make an initializer from `get_config`'s result."""
        return cls(deserialize_keras_object(config["value"]))


class Identity(Initializer):
    """The identity matrix times `gain`; two axes only, not necessarily square.

    Parameters
    ----------
    gain : float
    """

    @checked(gain=number)
    def __init__(self, gain=1.0):
        self.gain = gain

    def __call__(self, shape, dtype=None):
        """Return the matrix (see `Initializer`)."""
        if len(shape) != 2:
            raise ValueError(
                "Identity matrix initializer can only be used for 2D matrices. "
                f"Received: shape={shape} of rank {len(shape)}."
            )
        dtype = standardize_dtype(dtype)
        return np.eye(*shape, dtype=dtype) * np.asarray(self.gain, dtype)

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"gain": self.gain}


class RandomInitializer(Initializer):
    """Base class of initializers that draw.

    Parameters
    ----------
    seed : int, SeedGenerator or None
        With an integer, or None (a seed is then drawn from the global one at construction), every call of this instance
        gives the same values; with a `SeedGenerator` every call gives new ones.
    """

    def __init__(self, seed=None):
        self._init_seed = seed
        if seed is None:
            seed = random.make_default_seed()
        elif isinstance(seed, dict):
            seed = deserialize_keras_object(seed)
        elif isinstance(seed, bool) or not isinstance(seed, (int, np.integer, random.SeedGenerator)):
            raise ValueError(
                "`seed` argument should be an instance of `numbarnn.random.SeedGenerator()` or an integer. "
                f"Received: seed={seed}"
            )
        self.seed = seed

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"seed": serialize_keras_object(self._init_seed)}


class RandomNormal(RandomInitializer):
    """Normally distributed values.

    Parameters
    ----------
    mean, stddev : float
    seed : int, SeedGenerator or None
        See `RandomInitializer`.
    """

    @checked(mean=number, stddev=partial(number, least=0))
    def __init__(self, mean=0.0, stddev=0.05, seed=None):
        self.mean = mean
        self.stddev = stddev
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        """Draw (see `Initializer`)."""
        return random.draw_normal(shape, self.mean, self.stddev, standardize_dtype(dtype), self.seed)

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"mean": self.mean, "stddev": self.stddev, **super().get_config()}


class TruncatedNormal(RandomNormal):
    """Normally distributed values, those beyond two standard deviations drawn again.

    Parameters
    ----------
    mean, stddev : float
        Of the distribution before it is cut.
    seed : int, SeedGenerator or None
        See `RandomInitializer`.
    """

    def __call__(self, shape, dtype=None):
        """Draw (see `Initializer`)."""
        return random.draw_truncated_normal(shape, self.mean, self.stddev, standardize_dtype(dtype), self.seed)


class RandomUniform(RandomInitializer):
    """Uniformly distributed values from [minval, maxval).

    Parameters
    ----------
    minval, maxval : float
    seed : int, SeedGenerator or None
        See `RandomInitializer`.
    """

    @checked(minval=number, maxval=number)
    def __init__(self, minval=-0.05, maxval=0.05, seed=None):
        if minval > maxval:
            raise ValueError(f"`minval` must be at most `maxval`. Received: minval={minval}, maxval={maxval}")
        self.minval = minval
        self.maxval = maxval
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        """Draw (see `Initializer`)."""
        return random.draw_uniform(shape, self.minval, self.maxval, standardize_dtype(dtype), self.seed)

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"minval": self.minval, "maxval": self.maxval, **super().get_config()}


class VarianceScaling(RandomInitializer):
    """Values whose variance is `scale` divided by the number of inputs, of outputs, or their mean.

    Parameters
    ----------
    scale : float
        Positive.
    mode : {"fan_in", "fan_out", "fan_avg"}
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        ``"normal"`` means ``"truncated_normal"``. Uniform values lie within ``sqrt(3 * scale / n)``.
    seed : int, SeedGenerator or None
        See `RandomInitializer`.
    input_axes, output_axes : list of int, optional
        The axes of the weight that count as inputs and as outputs, where the usual rule (`compute_fans`) does not hold.
    """

    @checked(scale=partial(number, above=0))
    def __init__(
        self,
        scale=1.0,
        mode="fan_in",
        distribution="truncated_normal",
        seed=None,
        input_axes=None,
        output_axes=None,
    ):
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"Invalid `mode` argument: {mode}. Please use one of {{'fan_in', 'fan_out', 'fan_avg'}}.")
        distribution = str(distribution).lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if (input_axes is None) != (output_axes is None):
            raise ValueError(
                "`input_axes` and `output_axes` must be given together. "
                f"Received: input_axes={input_axes}, output_axes={output_axes}"
            )
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(
                f"Invalid `distribution` argument: {distribution}. Please use one of "
                "{'uniform', 'truncated_normal', 'untruncated_normal'}."
            )
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.input_axes = input_axes
        self.output_axes = output_axes
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        """Draw (see `Initializer`)."""
        fan_in, fan_out = compute_fans(shape, self.input_axes, self.output_axes)
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2.0}[self.mode]
        scale = self.scale / max(1.0, fans)
        dtype = standardize_dtype(dtype)
        if self.distribution == "truncated_normal":
            return random.draw_truncated_normal(shape, 0.0, math.sqrt(scale) / _TRUNCATED_STDDEV, dtype, self.seed)
        if self.distribution == "untruncated_normal":
            return random.draw_normal(shape, 0.0, math.sqrt(scale), dtype, self.seed)
        limit = math.sqrt(3.0 * scale)
        return random.draw_uniform(shape, -limit, limit, dtype, self.seed)

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        config = {"scale": self.scale, "mode": self.mode, "distribution": self.distribution}
        axes = {"input_axes": self.input_axes, "output_axes": self.output_axes}
        return {**config, **super().get_config(), **axes}


class _FixedScaling(VarianceScaling):
    """A `VarianceScaling` whose scale, mode and distribution are settled."""

    _scaling: tuple = ()

    def __init__(self, seed=None, input_axes=None, output_axes=None):
        super().__init__(*self._scaling, seed, input_axes, output_axes)

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        config = super().get_config()
        return {key: config[key] for key in ("seed", "input_axes", "output_axes")}


class GlorotUniform(_FixedScaling):
    """Uniform within ``sqrt(6 / (fan_in + fan_out))``; also called Xavier uniform."""

    _scaling = (1.0, "fan_avg", "uniform")


class GlorotNormal(_FixedScaling):
    """Truncated normal of standard deviation ``sqrt(2 / (fan_in + fan_out))``; also called Xavier normal."""

    _scaling = (1.0, "fan_avg", "truncated_normal")


class LecunNormal(_FixedScaling):
    """Truncated normal of standard deviation ``sqrt(1 / fan_in)``."""

    _scaling = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_FixedScaling):
    """Uniform within ``sqrt(3 / fan_in)``."""

    _scaling = (1.0, "fan_in", "uniform")


class HeNormal(_FixedScaling):
    """Truncated normal of standard deviation ``sqrt(2 / fan_in)``."""

    _scaling = (2.0, "fan_in", "truncated_normal")


class HeUniform(_FixedScaling):
    """Uniform within ``sqrt(6 / fan_in)``."""

    _scaling = (2.0, "fan_in", "uniform")


class Orthogonal(RandomInitializer):
    """A random matrix with orthonormal columns, or rows if there are fewer rows than columns.

    All axes but the last are taken as rows. The matrix is the Q of a QR decomposition of normal values, its signs fixed
    by R's diagonal.

    Parameters
    ----------
    gain : float
    seed : int, SeedGenerator or None
        See `RandomInitializer`.
    """

    @checked(gain=number)
    def __init__(self, gain=1.0, seed=None):
        self.gain = gain
        super().__init__(seed)

    def __call__(self, shape, dtype=None):
        """Draw (see `Initializer`)."""
        if len(shape) < 2:
            raise ValueError(
                "The tensor to initialize must be at least two-dimensional. Received: "
                f"shape={shape} of rank {len(shape)}."
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        values = random.draw_normal((max(rows, columns), min(rows, columns)), 0.0, 1.0, "float64", self.seed)
        q, r = np.linalg.qr(values)
        q *= np.sign(np.diagonal(r))
        if rows < columns:
            q = q.T
        return np.ascontiguousarray((self.gain * q).reshape(shape), dtype=standardize_dtype(dtype))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"gain": self.gain, **super().get_config()}


def compute_fans(shape, input_axes=None, output_axes=None):
    """Count the inputs and outputs of a weight.

    Parameters
    ----------
    shape : tuple of int
        The last two axes are inputs and outputs, those before are a receptive field; one axis is both.
    input_axes, output_axes : list of int, optional
        The axes that count as inputs and as outputs instead.

    Returns
    -------
    tuple of int
        ``(fan_in, fan_out)``.
    """
    shape = tuple(shape)
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[axis] for axis in input_axes), math.prod(shape[axis] for axis in output_axes)
    if len(shape) < 1:
        return 1, 1
    if len(shape) == 1:
        return int(shape[0]), int(shape[0])
    field = math.prod(shape[:-2])
    return int(shape[-2] * field), int(shape[-1] * field)


_CLASSES = (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    Identity,
    LecunNormal,
    LecunUniform,
    Ones,
    Orthogonal,
    RandomNormal,
    RandomUniform,
    TruncatedNormal,
    VarianceScaling,
    Zeros,
)
_NAMES = {name: cls for cls in _CLASSES for name in (cls.__name__, to_snake_case(cls.__name__))}
_NAMES.update(IdentityInitializer=Identity, OrthogonalInitializer=Orthogonal)
globals().update(_NAMES)  # Keras has the classes under these names, too
_NAMES.update(uniform=RandomUniform, normal=RandomNormal, zero=Zeros, one=Ones)
export("keras.initializers", *_CLASSES)


def serialize(initializer):
    """Turn an initializer into plain Python values.

    Parameters
    ----------
    initializer : Initializer or function

    Returns
    -------
    dict
    """
    return serialize_keras_object(initializer)


def deserialize(config, custom_objects=None):
    """Make an initializer from `serialize`'s result, or from a name.

    Parameters
    ----------
    config : dict or str
    custom_objects : dict, optional

    Returns
    -------
    Initializer or callable
    """
    return deserialize_keras_object(config, custom_objects, _NAMES)


def get(identifier):
    """Turn whatever may be given for an initializer into one.

    Parameters
    ----------
    identifier : None, str, dict, class, callable or array
        A name in either spelling (``"glorot_uniform"``, ``"GlorotUniform"``), a configuration, an `Initializer` or any
        ``f(shape, dtype=None)``, or the values themselves.

    Returns
    -------
    callable or None
        None for None.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if identifier is None:
        return None
    if isinstance(identifier, (np.ndarray, np.generic)):
        return _FixedValues(identifier)
    return interpret(identifier, "initializer", deserialize, _NAMES)


class _FixedValues(Initializer):
    """An array given as an initializer."""

    def __init__(self, values):
        self.values = np.array(values)

    def __call__(self, shape, dtype=None):
        if tuple(shape) != self.values.shape:
            raise ValueError(
                f"Expected `shape` to be {self.values.shape} for direct tensor as initializer. Received shape={shape}"
            )
        return self.values.astype(standardize_dtype(dtype))

    def get_config(self):
        return {"values": serialize_keras_object(self.values)}

    @classmethod
    def from_config(cls, config):
        return cls(deserialize_keras_object(config["values"]))


export("numbarnn.initializers", _FixedValues)
