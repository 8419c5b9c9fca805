"""Random numbers: seeded generators, and draws that a program repeats anew at each replay.

A draw is given by a seed and a counter alone (Philox, a counter-based generator): it depends neither on threads nor on
what else was drawn. In a function that is being traced, the functions below record the draw; `numpy.random` would be
drawn once and baked in.
"""

from __future__ import annotations

import functools
import random as _python_random
import threading

import numpy as np

from . import ops
from .arrays import here
from .backend import auto_name, floatx, standardize_dtype
from .graph import Op, Spec, is_tracing
from .serialization import export
from .variable import Variable

__all__ = [
    "SeedGenerator",
    "draw_normal",
    "draw_truncated_normal",
    "draw_uniform",
    "dropout",
    "dropout_factors",
    "global_generator",
    "global_state",
    "make_default_seed",
    "normal",
    "randint",
    "restore_global_state",
    "seedings",
    "set_seed",
    "truncated_normal",
    "uniform",
]

_lock = threading.Lock()
_seeds = _python_random.Random()  # our own: users' draws from `random` change nothing here
_global: SeedGenerator | None = None
_seedings = 0


class _Streams(threading.local):
    """One bit generator a thread, set to a place for each draw: much quicker than a new one."""

    def __init__(self):
        self.bits = np.random.Philox(0)
        self.generator = np.random.Generator(self.bits)


_streams = _Streams()


def set_seed(seed):
    """Set the global seed, from which unseeded initializers, layers and draws take theirs.

    Parameters
    ----------
    seed : int

    See Also
    --------
    numbarnn.utils.set_random_seed : which seeds NumPy and Python too.
    """
    global _global, _seedings
    _seeds.seed(int(seed))
    _global = None
    _seedings += 1


def seedings():
    """Count the calls of `set_seed` so far: a generator drawn before the last of them is not of the seed set now.

    Returns
    -------
    int
    """
    return _seedings


def make_default_seed():
    """Draw a seed from the global one.

    Returns
    -------
    int
    """
    return _seeds.randint(1, 10**9)


class SeedGenerator:
    """A source of random streams, each new, all given by one seed.

    Kept as an attribute of a layer, it belongs to the layer's `variables` (not its `weights`).

    Parameters
    ----------
    seed : int, optional
        Drawn from the global seed by default.
    name : str, optional

    Attributes
    ----------
    state : Variable
        int64, ``[seed, number of streams given so far]``; not trainable.
    """

    def __init__(self, seed=None, name=None):
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
            raise ValueError(f"Argument `seed` must be an integer. Received: seed={seed}")
        self.name = name if name is not None else auto_name("SeedGenerator")
        self._initial_seed = seed
        start = make_default_seed() if seed is None else int(seed)
        self.state = Variable(np.array([start, 0], np.int64), trainable=False, name="seed_generator_state")
        self.state.path = f"{self.name}/seed_generator_state"

    def _advance(self):
        if is_tracing():
            raise RuntimeError(
                "A SeedGenerator was asked for a stream while a function is being traced: the draw would be the "
                "same at every replay. "
                "Use the functions of numbarnn.random (uniform, normal, dropout, ...) with `seed=generator`, which "
                "draw anew each time."
            )
        with _lock:
            seed, counter = self.state.data.tolist()
            self.state.data[1] = counter + 1
            self.state.touch()
        return seed, counter

    def next(self):
        """Return the next stream.

        Returns
        -------
        numpy.random.Generator
            A new one, given by the seed and by how many came before.

        Raises
        ------
        RuntimeError
            While a function is being traced.
        """
        seed, counter = self._advance()
        return np.random.Generator(np.random.Philox(key=_key(seed), counter=[0, 0, 0, counter]))

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {"seed": self._initial_seed, "name": self.name}

    @classmethod
    def from_config(cls, config):
        """Make a generator from `get_config`'s result; it starts from the beginning."""
        return cls(**config)

    def __repr__(self):
        return f"<SeedGenerator {self.name} state={self.state.data.tolist()}>"


def global_generator():
    """Return the generator of draws that are given no seed; `set_seed` starts it anew.

    Returns
    -------
    SeedGenerator
    """
    global _global
    if _global is None:
        _global = SeedGenerator(name="global_seed_generator")
    return _global


def global_state():
    """Return what later draws from the global seed depend on, as JSON keeps it: dict."""
    return {"seeds": _seeds.getstate(), "global": None if _global is None else _global.state.data.tolist()}


def check_global_state(state):
    """Raise whatever comes of it unless a dict is one that `global_state` returned."""
    version, internal, gauss = state["seeds"]
    _python_random.Random().setstate((version, tuple(internal), gauss))
    if state["global"] is not None and np.array(state["global"], np.int64).shape != (2,):
        raise ValueError("it holds no state of the global generator")


def restore_global_state(state):
    """Go on from what `global_state` returned: dict."""
    global _global
    version, internal, gauss = state["seeds"]
    _seeds.setstate((version, tuple(internal), gauss))
    if state["global"] is None:
        _global = None
    else:
        global_generator().state.store(np.array(state["global"], np.int64))
        _seeds.setstate((version, tuple(internal), gauss))  # of which a new generator has taken its seed


def _key(seed):
    return np.array([seed & 0xFFFFFFFFFFFFFFFF, 0], np.uint64)


def _stream(seed):
    """Return this thread's generator, set to the place that a seed means; to be used up before the next draw."""
    if seed is None:
        seed = global_generator()
    if isinstance(seed, SeedGenerator):
        number, counter = seed._advance()
    elif isinstance(seed, (int, np.integer)) and not isinstance(seed, bool):
        number, counter = int(seed), 0
    else:
        raise ValueError(
            "Argument `seed` must be either an integer or an instance of `SeedGenerator`. "
            f"Received: seed={seed} (of type {type(seed)})"
        )
    _streams.bits.state = {
        "bit_generator": "Philox",
        "state": {"counter": np.array([0, 0, 0, counter], np.uint64), "key": _key(number)},
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return _streams.generator


def _working(dtype):
    """Return the type to draw in: float64 for float64, else float32."""
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


# ---------------------------------------------------------------------------------------------------------------
# arrays at once: for initializers


def draw_uniform(shape, minval, maxval, dtype, seed):
    """Draw an array from [minval, maxval), at once even while a function is being traced.

    Parameters
    ----------
    shape : tuple of int
    minval, maxval : float
    dtype : str
    seed : int, SeedGenerator or None

    Returns
    -------
    numpy.ndarray
    """
    working = _working(dtype)
    values = _stream(seed).random(tuple(shape), working)
    values *= working(maxval - minval)
    values += working(minval)
    # Rounding may reach the open end.
    np.minimum(values, np.nextafter(working(maxval), working(minval)), out=values)
    return values.astype(dtype, copy=False)


def draw_normal(shape, mean, stddev, dtype, seed):
    """Draw a normally distributed array at once; parameters as of `draw_uniform`.

    Parameters
    ----------
    shape : tuple of int
    mean, stddev : float
    dtype : str
    seed : int, SeedGenerator or None

    Returns
    -------
    numpy.ndarray
    """
    working = _working(dtype)
    values = _stream(seed).standard_normal(tuple(shape), working)
    values *= working(stddev)
    values += working(mean)
    return values.astype(dtype, copy=False)


def draw_truncated_normal(shape, mean, stddev, dtype, seed):
    """Draw a normally distributed array at once, drawing again what lies beyond two standard deviations.

    Parameters
    ----------
    shape : tuple of int
    mean, stddev : float
        Of the distribution before it is cut.
    dtype : str
    seed : int, SeedGenerator or None

    Returns
    -------
    numpy.ndarray
    """
    working = _working(dtype)
    stream = _stream(seed)
    values = stream.standard_normal(tuple(shape), working)
    flat = values.reshape(-1)
    beyond = np.flatnonzero(np.abs(flat) > 2)
    while beyond.size:
        flat[beyond] = stream.standard_normal(beyond.size, working)
        beyond = beyond[np.abs(flat[beyond]) > 2]
    flat *= working(stddev)
    flat += working(mean)
    return values.astype(dtype, copy=False)


def _draw_integers(shape, minval, maxval, dtype, seed):
    return _stream(seed).integers(minval, maxval, tuple(shape)).astype(dtype)


def _draw_factors(like, rate, noise_shape, copies, seed):
    dtype = like.dtype if np.dtype(like.dtype).kind == "f" else np.dtype(floatx())
    shape = _noise_shape(like.shape, noise_shape, copies)
    if rate >= 1:
        return np.zeros(shape, dtype)
    kept = _stream(seed).random(shape, np.float32) >= np.float32(rate)
    return np.multiply(kept, dtype.type(1 / (1 - rate)), dtype=dtype)


def _noise_shape(shape, noise_shape, copies):
    if noise_shape is not None:
        if len(noise_shape) != len(shape):
            raise ValueError(
                f"Argument `noise_shape` must have as many axes as the input. Received: noise_shape={noise_shape}, "
                f"input shape {tuple(shape)}"
            )
        shape = tuple(n if wanted is None else wanted for n, wanted in zip(shape, noise_shape, strict=True))
    return tuple(shape) if copies is None else (copies, *shape)


def _infer_factors(like, rate, noise_shape, copies, seed):
    dtype = like.dtype if like.dtype.kind == "f" else floatx()
    return Spec(_noise_shape(like.shape, noise_shape, copies), dtype)


def _placed(draw):
    """Let what `draw` returns be moved to where this thread computes: the bits are the same on every device."""

    @functools.wraps(draw)
    def run(*args, **attrs):
        return here(draw(*args, **attrs))

    return run


def _infer_draw(*, shape, dtype, **_):
    return Spec(shape, dtype)


_uniform = Op("random_uniform", _placed(draw_uniform), _infer_draw, effect=True)
_normal = Op("random_normal", _placed(draw_normal), _infer_draw, effect=True)
_truncated_normal = Op("random_truncated_normal", _placed(draw_truncated_normal), _infer_draw, effect=True)
_integers = Op("random_integers", _placed(_draw_integers), _infer_draw, effect=True)
_factors = Op("dropout_factors", _placed(_draw_factors), _infer_factors, effect=True)


# ---------------------------------------------------------------------------------------------------------------
# arrays, or nodes in a trace


def _shape(shape):
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(n is None for n in shape) and not is_tracing():  # a trace may ask for shapes alone
        raise ValueError(f"Argument `shape` must be fully known. Received: shape={shape}")
    return shape


def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    """Draw uniformly from [minval, maxval).

    Parameters
    ----------
    shape : tuple of int
    minval, maxval : float
    dtype : str, optional
        `floatx` by default.
    seed : int, SeedGenerator, optional
        An integer gives the same values at every call.

    Returns
    -------
    array, or Tensor in a trace
    """
    return _uniform(shape=_shape(shape), minval=minval, maxval=maxval, dtype=standardize_dtype(dtype), seed=seed)


def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Draw from a normal distribution; parameters as of `uniform`.

    Parameters
    ----------
    shape : tuple of int
    mean, stddev : float
    dtype : str, optional
    seed : int, SeedGenerator, optional

    Returns
    -------
    array, or Tensor in a trace
    """
    return _normal(shape=_shape(shape), mean=mean, stddev=stddev, dtype=standardize_dtype(dtype), seed=seed)


def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Draw from a normal distribution cut at two standard deviations; parameters as of `uniform`.

    Parameters
    ----------
    shape : tuple of int
    mean, stddev : float
    dtype : str, optional
    seed : int, SeedGenerator, optional

    Returns
    -------
    array, or Tensor in a trace
    """
    return _truncated_normal(shape=_shape(shape), mean=mean, stddev=stddev, dtype=standardize_dtype(dtype), seed=seed)


def randint(shape, minval, maxval, dtype="int32", seed=None):
    """Draw integers from [minval, maxval); parameters as of `uniform`.

    Parameters
    ----------
    shape : tuple of int
    minval, maxval : int
    dtype : str
    seed : int, SeedGenerator, optional

    Returns
    -------
    array, or Tensor in a trace
    """
    return _integers(shape=_shape(shape), minval=minval, maxval=maxval, dtype=standardize_dtype(dtype), seed=seed)


def dropout_factors(like, rate, noise_shape=None, copies=None, seed=None):
    """Draw what dropout multiplies with: 0 with probability `rate`, else ``1 / (1 - rate)``.

    Parameters
    ----------
    like : array or Tensor
        Gives the shape and the type.
    rate : float
        In [0, 1].
    noise_shape : tuple, optional
        The shape to draw instead, None standing for the length of that axis of `like`.
    copies : int, optional
        Draw this many, along a new first axis.
    seed : int, SeedGenerator, optional

    Returns
    -------
    array, or Tensor in a trace
        No gradient flows into `like` from here.
    """
    noise_shape = None if noise_shape is None else tuple(noise_shape)
    return _factors(like, rate=rate, noise_shape=noise_shape, copies=copies, seed=seed)


def dropout(inputs, rate, noise_shape=None, seed=None):
    """Set a random part of the values to zero and scale the others up, so that the expected sum stays.

    Parameters
    ----------
    inputs : array or Tensor
    rate : float
        The part that is dropped, in [0, 1].
    noise_shape : tuple, optional
        See `dropout_factors`; a length of 1 drops along that axis together.
    seed : int, SeedGenerator, optional

    Returns
    -------
    array or Tensor
        Of the shape of `inputs`.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"Argument `rate` must be in the range [0, 1]. Received: rate={rate}")
    return ops.multiply(inputs, dropout_factors(inputs, rate, noise_shape, seed=seed))


export("keras.random", SeedGenerator)
