"""Optimizers that divide each gradient by its own history: RMSprop, Adagrad, Adadelta and Ftrl."""

from __future__ import annotations

from ..checks import flag, fraction, number
from ..kernels import optimizer as kernels
from .base import Optimizer, takes_common_arguments
from .sgd import changed_momentum

__all__ = ["Adadelta", "Adagrad", "Ftrl", "RMSprop"]


class RMSprop(Optimizer):
    """Gradient divided by a running root mean square, as in Keras: ``w -= learning_rate * g / sqrt(v + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable
    rho : float
        Decay of the running mean of squares, in [0, 1].
    momentum : float
        In [0, 1].
    epsilon : float
        Inside the root.
    centered : bool
        Subtract the square of the mean gradient: divide by the standard deviation.
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.rmsprop)
    kernel_slots = ("velocity", "momentum", "average_gradient")
    hyperparameters = ("rho", "momentum", "epsilon", "centered")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False, **common):
        super().__init__(learning_rate, **common)
        self.rho = fraction("rho", rho)
        self._momentum = fraction("momentum", momentum)
        self.epsilon = float(number("epsilon", epsilon, least=0))
        used = {"velocity": True, "momentum": self._momentum, "average_gradient": flag("centered", centered)}
        self.slot_blocks = tuple((name,) for name in self.kernel_slots if used[name])

    @property
    def momentum(self):
        """The share of the last update that goes on; whether there is any cannot change."""
        return self._momentum

    @momentum.setter
    def momentum(self, value):
        self._momentum = changed_momentum(self._momentum, value)

    @property
    def centered(self):
        """Whether it divides by the standard deviation; settled at construction."""
        return ("average_gradient",) in self.slot_blocks

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return rate, self.rho, self._momentum, self.epsilon


class Adagrad(Optimizer):
    """Gradient divided by the root of the sum of all its squares: ``w -= learning_rate * g / sqrt(a + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable
    initial_accumulator_value : float
        What the sums start from, at least 0.
    epsilon : float
        Inside the root.
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.adagrad)
    kernel_slots = ("accumulator",)
    slot_blocks = (("accumulator",),)
    hyperparameters = ("initial_accumulator_value", "epsilon")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, initial_accumulator_value=0.1, epsilon=1e-7, **common):
        super().__init__(learning_rate, **common)
        self.initial_accumulator_value = _not_negative("initial_accumulator_value", initial_accumulator_value)
        self.epsilon = float(number("epsilon", epsilon, least=0))
        self.slot_starts = {"accumulator": self.initial_accumulator_value}

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return rate, self.epsilon


class Adadelta(Optimizer):
    """Gradient times the ratio of the running root mean squares of steps and gradients, and times the learning rate.

    Parameters
    ----------
    learning_rate : float or callable
        The method as published has 1.0.
    rho : float
        Decay of the running means of squares, in [0, 1].
    epsilon : float
        Inside both roots.
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.adadelta)
    kernel_slots = ("accumulated_grad", "accumulated_delta_var")
    slot_blocks = (("accumulated_grad", "accumulated_delta_var"),)
    hyperparameters = ("rho", "epsilon")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, rho=0.95, epsilon=1e-7, **common):
        super().__init__(learning_rate, **common)
        self.rho = fraction("rho", rho)
        self.epsilon = float(number("epsilon", epsilon, least=0))

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return rate, self.rho, self.epsilon


class Ftrl(Optimizer):
    """Follow the regularised leader: for large sparse models, sets weights to zero exactly.

    ``a`` sums the squared gradients g and ``z += g - (a_new**p - a_old**p) / learning_rate * w``, where p is
    ``-learning_rate_power``. Then w is 0 where ``|z| <= l1``, else
    ``(sign(z) * l1 - z) / ((a**p + beta) / learning_rate + 2 * l2)``.

    Parameters
    ----------
    learning_rate : float or callable
    learning_rate_power : float
        At most 0; 0 keeps the learning rate fixed.
    initial_accumulator_value : float
        What the sums of squares start from, at least 0.
    l1_regularization_strength, l2_regularization_strength : float
        At least 0.
    l2_shrinkage_regularization_strength : float
        Of an L2 penalty on the weights, which is added to the gradient in ``z`` but not in ``a``; at least 0.
    beta : float
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.ftrl)
    kernel_slots = ("accumulator", "linear")
    slot_blocks = (("accumulator", "linear"),)
    hyperparameters = (
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    @takes_common_arguments
    def __init__(
        self,
        learning_rate=0.001,
        learning_rate_power=-0.5,
        initial_accumulator_value=0.1,
        l1_regularization_strength=0.0,
        l2_regularization_strength=0.0,
        l2_shrinkage_regularization_strength=0.0,
        beta=0.0,
        **common,
    ):
        super().__init__(learning_rate, **common)
        self.learning_rate_power = float(number("learning_rate_power", learning_rate_power, most=0))
        self.initial_accumulator_value = _not_negative("initial_accumulator_value", initial_accumulator_value)
        self.l1_regularization_strength = _not_negative("l1_regularization_strength", l1_regularization_strength)
        self.l2_regularization_strength = _not_negative("l2_regularization_strength", l2_regularization_strength)
        self.l2_shrinkage_regularization_strength = _not_negative(
            "l2_shrinkage_regularization_strength", l2_shrinkage_regularization_strength
        )
        self.beta = float(number("beta", beta, least=0))
        self.slot_starts = {"accumulator": self.initial_accumulator_value}

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        l2 = self.l2_regularization_strength + (self.beta / (2.0 * rate) if self.beta else 0.0)
        penalties = self.l1_regularization_strength, l2, self.l2_shrinkage_regularization_strength
        return rate, -self.learning_rate_power, *penalties


def _not_negative(name, value):
    return float(number(name, value, least=0))
