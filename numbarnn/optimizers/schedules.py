"""Learning rates that depend on the number of steps done."""

from __future__ import annotations

from functools import partial

import numpy as np

from .. import serialization
from ..checks import checked, flag, integer, number, real_numbers

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]


class LearningRateSchedule:
    """Base class: an object that is called with the number of steps done and returns the rate of the next one.

    A subclass defines ``__call__(self, step)`` and, if it is to be saved, `get_config`. Those here take numbers and
    arrays of steps, and compute in float64.

    Examples
    --------
    >>> from numbarnn.optimizers import schedules
    >>> schedule = schedules.ExponentialDecay(0.5, decay_steps=10, decay_rate=0.5)
    >>> float(schedule(20))
    0.125
    >>> schedule([0, 10, 20])
    array([0.5  , 0.25 , 0.125])
    """

    def __call__(self, step):
        """Return the learning rate.

        Parameters
        ----------
        step : int or array of int

        Returns
        -------
        float or ndarray
        """
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `__call__(self, step)`."
        )

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `get_config()` in order to be serializable."
        )

    @classmethod
    def from_config(cls, config):
        """Make a schedule from `get_config`'s result."""
        return cls(**config)


class _Decay(LearningRateSchedule):
    """A schedule whose arguments are its attributes."""

    _arguments: tuple[str, ...] = ()

    def get_config(self):
        """Return the constructor's arguments as a dict."""
        return {name: getattr(self, name) for name in self._arguments}


def _steps(step):
    return np.asarray(step, np.float64)


class ExponentialDecay(_Decay):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Positive.
    decay_rate : float
    staircase : bool
        Round ``step / decay_steps`` down.
    name : str
    """

    _arguments = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase", "name")

    @checked(
        initial_learning_rate=partial(number, least=0),
        decay_steps=partial(number, above=0),
        decay_rate=partial(number, least=0),
        staircase=flag,
    )
    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name="ExponentialDecay"):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        return self.initial_learning_rate * np.power(float(self.decay_rate), _periods(self, step))


class InverseTimeDecay(_Decay):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Positive.
    decay_rate : float
    staircase : bool
        Round ``step / decay_steps`` down.
    name : str
    """

    _arguments = ExponentialDecay._arguments

    @checked(
        initial_learning_rate=partial(number, least=0),
        decay_steps=partial(number, above=0),
        decay_rate=partial(number, least=0),
        staircase=flag,
    )
    def __init__(self, initial_learning_rate, decay_steps, decay_rate, staircase=False, name="InverseTimeDecay"):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        return self.initial_learning_rate / (1.0 + self.decay_rate * _periods(self, step))


def _periods(schedule, step):
    periods = _steps(step) / schedule.decay_steps
    return np.floor(periods) if schedule.staircase else periods


class PiecewiseConstantDecay(_Decay):
    """``values[0]`` up to and with step ``boundaries[0]``, ``values[1]`` up to and with ``boundaries[1]``, and so on.

    Parameters
    ----------
    boundaries : list of int
        Ascending.
    values : list of float
        One more than `boundaries`.
    name : str
    """

    _arguments = ("boundaries", "values", "name")

    @checked(boundaries=real_numbers, values=real_numbers)
    def __init__(self, boundaries, values, name="PiecewiseConstant"):
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                "The length of boundaries should be 1 less than the length of values. "
                f"Received: boundaries={boundaries} of length {len(boundaries)}, and values={values} of length "
                f"{len(values)}."
            )
        if any(not low < high for low, high in zip(boundaries[:-1], boundaries[1:], strict=True)):
            raise ValueError(f"`boundaries` must be strictly increasing. Received: boundaries={boundaries}")
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        return np.asarray(self.values, np.float64)[np.searchsorted(_steps(self.boundaries), _steps(step))]


class PolynomialDecay(_Decay):
    """``(initial_learning_rate - end_learning_rate) * (1 - step / decay_steps) ** power + end_learning_rate``.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Positive.
    end_learning_rate : float
    power : float
    cycle : bool
        Past `decay_steps`, stretch it to its next multiple, instead of staying at `end_learning_rate`.
    name : str
    """

    _arguments = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle", "name")

    @checked(
        initial_learning_rate=partial(number, least=0),
        decay_steps=partial(number, above=0),
        end_learning_rate=partial(number, least=0),
        power=partial(number, least=0),
        cycle=flag,
    )
    def __init__(
        self,
        initial_learning_rate,
        decay_steps,
        end_learning_rate=0.0001,
        power=1.0,
        cycle=False,
        name="PolynomialDecay",
    ):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        periods = _steps(step) / self.decay_steps
        share = periods / np.maximum(np.ceil(periods), 1.0) if self.cycle else np.minimum(periods, 1.0)
        fall = self.initial_learning_rate - self.end_learning_rate
        return fall * np.power(1.0 - share, float(self.power)) + self.end_learning_rate


class CosineDecay(_Decay):
    """Half a cosine from the initial learning rate down to `alpha` times it, after a linear rise if asked.

    Parameters
    ----------
    initial_learning_rate : float
    decay_steps : int
        Of the decay alone; positive.
    alpha : float
        The share of the rate that remains.
    name : str
    warmup_target : float, optional
        The rate goes from `initial_learning_rate` to this one in `warmup_steps`, and decays from there. Without it
        there is no warm-up.
    warmup_steps : int
    """

    _arguments = ("initial_learning_rate", "decay_steps", "alpha", "name", "warmup_target", "warmup_steps")

    @checked(
        initial_learning_rate=partial(number, least=0),
        decay_steps=partial(number, above=0),
        alpha=partial(number, least=0),
        warmup_target=partial(number, least=0, optional=True),
        warmup_steps=partial(integer, least=0),
    )
    def __init__(
        self,
        initial_learning_rate,
        decay_steps,
        alpha=0.0,
        name="CosineDecay",
        warmup_target=None,
        warmup_steps=0,
    ):
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        step = _steps(step)
        if self.warmup_target is None:
            return self.initial_learning_rate * self._decayed(step)
        decayed = self.warmup_target * self._decayed(step - self.warmup_steps)
        rise = (self.warmup_target - self.initial_learning_rate) / max(self.warmup_steps, 1)
        return np.where(step < self.warmup_steps, self.initial_learning_rate + rise * step, decayed)[()]

    def _decayed(self, step):
        share = 0.5 * (1.0 + np.cos(np.pi * np.minimum(step / self.decay_steps, 1.0)))
        return (1.0 - self.alpha) * share + self.alpha


class CosineDecayRestarts(_Decay):
    """Half cosines from the initial learning rate down to `alpha` times it, again and again.

    Parameters
    ----------
    initial_learning_rate : float
    first_decay_steps : int
        Length of the first cosine; positive.
    t_mul : float
        Each cosine is so many times as long as the one before.
    m_mul : float
        Each starts at so many times the rate.
    alpha : float
        The share of the rate that remains.
    name : str

    Notes
    -----
    A step at which a cosine starts belongs to it. Keras takes the number of the cosine from a quotient of logarithms,
    which rounding moves by one at some such steps (``t_mul=10``, the fourth cosine); here it is put right.
    """

    _arguments = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha", "name")

    @checked(
        initial_learning_rate=partial(number, least=0),
        first_decay_steps=partial(number, above=0),
        t_mul=partial(number, above=0),
        m_mul=partial(number, least=0),
        alpha=partial(number, least=0),
    )
    def __init__(self, initial_learning_rate, first_decay_steps, t_mul=2.0, m_mul=1.0, alpha=0.0, name="SGDRDecay"):
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def __call__(self, step):
        """Return the learning rate (see `LearningRateSchedule`)."""
        share = _steps(step) / self.first_decay_steps
        growth = float(self.t_mul)
        if growth == 1.0:
            number = np.floor(share)
            share = share - number
        else:
            # Cosine number n starts after (growth**n - 1) / (growth - 1) times the first one's length.
            power = 1.0 + share * (growth - 1.0)
            number = np.round(np.log(power) / np.log(growth))
            number = number - (np.power(growth, number) > power if growth > 1 else np.power(growth, number) < power)
            length = np.power(growth, number)
            share = (share - (length - 1.0) / (growth - 1.0)) / length
        wave = 0.5 * np.power(float(self.m_mul), number) * (1.0 + np.cos(np.pi * share))
        return self.initial_learning_rate * ((1.0 - self.alpha) * wave + self.alpha)


_CLASSES = (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)
serialization.export("keras.optimizers.schedules", LearningRateSchedule, *_CLASSES)


def serialize(learning_rate_schedule):
    """Turn a schedule into a dict.

    Parameters
    ----------
    learning_rate_schedule : LearningRateSchedule

    Returns
    -------
    dict
    """
    return serialization.serialize_keras_object(learning_rate_schedule)


def deserialize(config, custom_objects=None):
    """Make a schedule from `serialize`'s dict.

    Parameters
    ----------
    config : dict
    custom_objects : dict, optional
        Name -> class.

    Returns
    -------
    LearningRateSchedule
    """
    return serialization.deserialize_keras_object(config, custom_objects, {cls.__name__: cls for cls in _CLASSES})
