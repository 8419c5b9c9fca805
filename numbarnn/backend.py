"""Global settings: default float type, fuzz factor, automatic names, dtype policies."""

from __future__ import annotations

import re
import threading

import numpy as np

from .variable import set_default_float

__all__ = [
    "DTypePolicy",
    "as_ndarray",
    "auto_name",
    "clear_session",
    "dot",
    "dtype_policy",
    "epsilon",
    "floatx",
    "get_policy",
    "get_uid",
    "image_data_format",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "standardize_data_format",
    "standardize_dtype",
    "to_snake_case",
]

_FLOATS = ("float16", "float32", "float64")
_DTYPES = frozenset(
    ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
)

_settings = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last", "policy": None}
_uids: dict[str, int] = {}
_uids_lock = threading.Lock()


# ---------------------------------------------------------------------------------------------------------------
# settings


def floatx():
    """Return the default float type, ``"float32"`` unless `set_floatx` was called.

    Returns
    -------
    str
    """
    return _settings["floatx"]


def set_floatx(value):
    """Set the default float type of weights, computations and converted inputs.

    Parameters
    ----------
    value : {"float16", "float32", "float64"}

    Raises
    ------
    ValueError
        For any other value.
    """
    name = value if isinstance(value, str) else _dtype_name(value)
    if name not in _FLOATS:
        raise ValueError(f"Unknown `floatx` value: {value}. Expected one of {set(_FLOATS)}")
    _settings["floatx"] = name
    set_default_float(name)


def epsilon():
    """Return the fuzz factor that keeps logarithms and divisions finite (1e-7).

    Returns
    -------
    float
    """
    return _settings["epsilon"]


def set_epsilon(value):
    """Set the fuzz factor.

    Parameters
    ----------
    value : float
    """
    _settings["epsilon"] = float(value)


def image_data_format():
    """Return ``"channels_last"`` or ``"channels_first"``: where layers expect the channels of a picture.

    Returns
    -------
    str
    """
    return _settings["image_data_format"]


def set_image_data_format(data_format):
    """Set where layers expect the channels of a picture.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}

    Raises
    ------
    ValueError
        For any other value.
    """
    _settings["image_data_format"] = standardize_data_format(str(data_format))


def as_ndarray(x, what):
    """Turn data into an array, as `numpy.asarray`, but lose nothing.

    Parameters
    ----------
    x : array_like
    what : str
        What the data are, for the message.

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        For a masked array, whose mask would be dropped.
    """
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(
            f"{what} is a NumPy masked array, whose mask would be lost. Pass its `data`, and which timesteps count as "
            "`mask=`, of shape (batch, timesteps), or through a `Masking` layer"
        )
    return np.asarray(x)


def standardize_data_format(data_format):
    """Return a data format as it is spelled, or the one that is set.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"} or None
        None for `image_data_format`.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        For any other value.
    """
    if data_format is None:
        return image_data_format()
    name = str(data_format).lower()
    if name not in ("channels_first", "channels_last"):
        raise ValueError(
            "The `data_format` argument must be one of {'channels_first', 'channels_last'}. "
            f"Received: data_format={data_format}"
        )
    return name


# ---------------------------------------------------------------------------------------------------------------
# names


def get_uid(prefix=""):
    """Count up the number that belongs to `prefix`, from 1.

    Parameters
    ----------
    prefix : str

    Returns
    -------
    int

    Examples
    --------
    >>> from numbarnn import backend
    >>> backend.clear_session()
    >>> backend.get_uid("dense"), backend.get_uid("dense")
    (1, 2)
    """
    with _uids_lock:
        _uids[prefix] = _uids.get(prefix, 0) + 1
        return _uids[prefix]


def auto_name(prefix):
    """Return the next automatic name for `prefix`: ``lstm``, ``lstm_1``, ``lstm_2``, ...

    Parameters
    ----------
    prefix : str
        A class name; it is turned into snake case.

    Returns
    -------
    str
    """
    prefix = to_snake_case(prefix)
    number = get_uid(prefix) - 1
    return f"{prefix}_{number}" if number else prefix


def to_snake_case(name):
    """Turn a class name into snake case, as Keras does (``SimpleRNN`` -> ``simple_rnn``).

    Parameters
    ----------
    name : str

    Returns
    -------
    str
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def clear_session(free_memory=True):
    """Start the numbering of automatic names anew.

    Parameters
    ----------
    free_memory : bool
        Accepted for Keras's sake; numbarnn keeps no global graph that could be freed.
    """
    with _uids_lock:
        _uids.clear()


# ---------------------------------------------------------------------------------------------------------------
# types


def _dtype_name(dtype):
    try:
        return np.dtype(dtype).name
    except TypeError:
        return None


def standardize_dtype(dtype):
    """Return the name of a dtype; None is `floatx`.

    Parameters
    ----------
    dtype : str, numpy.dtype, type or None

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it is none of bool, int8 .. int64, uint8 .. uint64, float16, float32, float64.
    """
    if dtype is None:
        return floatx()
    if isinstance(dtype, str) and dtype in _DTYPES:
        return dtype
    if dtype is int or dtype == "int":
        return "int32"
    if dtype is float or dtype == "float":
        return floatx()
    name = _dtype_name(dtype)
    if name not in _DTYPES:
        raise ValueError(f"Invalid dtype: {dtype!r}. Expected one of {sorted(_DTYPES)}.")
    return name


class DTypePolicy:
    """In which type a layer keeps its weights and in which it hands out results.

    Parameters
    ----------
    name : str or None
        ``"float32"``, ``"float64"``, ``"float16"`` (or any other dtype name), or ``"mixed_float16"``: weights and
        computation in float32, results cast to float16. None is the global policy.

    Attributes
    ----------
    name, compute_dtype, variable_dtype : str
        `compute_dtype` is the type of the results. Computation itself never runs below float32.
    """

    def __init__(self, name=None):
        if name is None:
            name = dtype_policy().name
        if not isinstance(name, str):
            raise TypeError(
                f"'name' must be a string, such as 'mixed_float16'. Received: name={name} (of type {type(name)})"
            )
        if name == "mixed_float16":
            self._compute, self._variable = "float16", "float32"
        else:
            try:
                self._compute = self._variable = standardize_dtype(name)
            except ValueError:
                raise ValueError(
                    f"Cannot convert '{name}' to a mixed precision DTypePolicy. Valid policies include "
                    "'mixed_float16' and the name of any NumPy float type such as 'float32'."
                ) from None
        self._name = name

    @property
    def name(self):
        """The policy's name."""
        return self._name

    @property
    def compute_dtype(self):
        """The type of a layer's results."""
        return self._compute

    @property
    def variable_dtype(self):
        """The type of a layer's weights."""
        return self._variable

    def get_config(self):
        """Return the arguments that make this policy again."""
        return {"name": self._name}

    @classmethod
    def from_config(cls, config):
        """Make a policy from `get_config`'s result."""
        return cls(**config)

    def __eq__(self, other):
        return isinstance(other, DTypePolicy) and other._name == self._name

    def __hash__(self):
        return hash(self._name)

    def __repr__(self):
        return f'<DTypePolicy "{self._name}">'


def get_policy(identifier):
    """Turn what a layer's `dtype=` may be into a `DTypePolicy`.

    Parameters
    ----------
    identifier : None, str, numpy.dtype, type, DTypePolicy or its serialised dict

    Returns
    -------
    DTypePolicy

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if identifier is None:
        return dtype_policy()
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        if identifier.get("class_name") not in ("DTypePolicy", "FloatDTypePolicy", "Policy"):
            raise ValueError(f"Cannot interpret `dtype` argument. Received: dtype={identifier}")
        return DTypePolicy(**identifier["config"])
    if isinstance(identifier, str):
        return DTypePolicy(identifier)
    try:
        return DTypePolicy(standardize_dtype(identifier))
    except ValueError:
        raise ValueError(
            "Cannot interpret `dtype` argument. Expected a string or an instance of DTypePolicy. "
            f"Received: dtype={identifier}"
        ) from None


def dtype_policy():
    """Return the policy of layers that were given no `dtype`: `floatx`, unless `set_dtype_policy` was called.

    Returns
    -------
    DTypePolicy
    """
    policy = _settings["policy"]
    return policy if policy is not None else DTypePolicy(floatx())


def set_dtype_policy(policy):
    """Set the policy of layers that are given no `dtype`.

    Parameters
    ----------
    policy : str, DTypePolicy or None
        None returns to `floatx`.
    """
    _settings["policy"] = None if policy is None else get_policy(policy)


def dot(x, y):
    """Multiply two arrays or symbolic tensors as Keras's ``backend.dot``: last axis of `x`, second-last of `y`.

    Parameters
    ----------
    x, y : array, Variable or Tensor

    Returns
    -------
    array or Tensor
        Of shape ``x.shape[:-1] + y.shape[:-2] + y.shape[-1:]``.
    """
    from . import ops  # ops reads the settings above

    return ops.dot(x, y)
