"""Adam and its kin: steps by running moments of the gradient."""

from __future__ import annotations

import math

from ..checks import flag, fraction, number
from ..kernels import flat
from ..kernels import optimizer as kernels
from .base import Optimizer, takes_common_arguments

__all__ = ["Adam", "AdamW", "Adamax", "Lamb", "Nadam"]


class _Moments(Optimizer):
    """What these optimizers have in common: a decay for each of two moments, and an epsilon."""

    kernel_slots = ("momentum", "velocity")
    slot_blocks = (("momentum", "velocity"),)
    hyperparameters = ("beta_1", "beta_2", "epsilon")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, **common):
        super().__init__(learning_rate, **common)
        self.beta_1 = fraction("beta_1", beta_1, below=True)
        self.beta_2 = fraction("beta_2", beta_2, below=True)
        self.epsilon = float(number("epsilon", epsilon, least=0))


class Adam(_Moments):
    """Adam, with Keras's placement of epsilon.

    ``w -= alpha * m / (sqrt(v) + epsilon)`` with ``alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)``.

    Parameters
    ----------
    learning_rate : float or callable
    beta_1, beta_2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
    amsgrad : bool
        Divide by the largest second moment seen so far.
    **common
        See `Optimizer`.
    """

    hyperparameters = ("beta_1", "beta_2", "epsilon", "amsgrad")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False, **common):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **common)
        self.kernel = kernels.adam
        if flag("amsgrad", amsgrad):
            self.kernel = kernels.adam_amsgrad
            self.kernel_slots = ("momentum", "velocity", "velocity_hat")
            self.slot_blocks = (("momentum", "velocity"), ("velocity_hat",))

    @property
    def amsgrad(self):
        """Whether it divides by the largest second moment; settled at construction."""
        return "velocity_hat" in self.kernel_slots

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        alpha = rate * math.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        return alpha, self.beta_1, self.beta_2, self.epsilon


class AdamW(Adam):
    """Adam with weight decay that does not pass through the moments.

    Parameters
    ----------
    learning_rate : float or callable
    weight_decay : float
    beta_1, beta_2, epsilon, amsgrad
        See `Adam`.
    **common
        See `Optimizer`.
    """

    @takes_common_arguments
    def __init__(
        self,
        learning_rate=0.001,
        weight_decay=0.004,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        **common,
    ):
        if weight_decay is None:
            raise ValueError("Argument `weight_decay` must be a float. Received: weight_decay=None")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **common)


class Nadam(_Moments):
    """Adam with Nesterov momentum.

    With ``u[t] = beta_1 * (1 - 0.5 * 0.96**t)`` and `U` the product of all u up to t, the first moment of Adam becomes
    ``u[t + 1] * m / (1 - U * u[t + 1]) + (1 - u[t]) * g / (1 - U)``.

    Parameters
    ----------
    learning_rate : float or callable
    beta_1, beta_2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.nadam)
    _u_product = None  # made by `build`

    def build(self, variables):
        """See `Optimizer.build`."""
        variables = list(variables)
        super().build(variables)
        if self._u_product is None and variables:
            # Keras's name, without the optimizer's before it
            self._u_product = self.add_variable((), "ones", variables[0].dtype.name, "variable")

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        now, later = (self.beta_1 * (1.0 - 0.5 * 0.96**t) for t in (step, step + 1))
        self._u_product.store(float(self._u_product.data) * now)
        product = float(self._u_product.data)
        along = rate * later / (1.0 - product * later)
        across = rate * (1.0 - now) / (1.0 - product)
        return along, across, 1.0 / (1.0 - self.beta_2**step), self.beta_1, self.beta_2, self.epsilon


class Adamax(_Moments):
    """Adam with the largest decayed gradient in place of the second moment.

    ``u = max(beta_2 * u, |g|)`` and ``w -= learning_rate * m / ((1 - beta_1**t) * (u + epsilon))``.

    Parameters
    ----------
    learning_rate : float or callable
    beta_1, beta_2 : float
        Decay of the first moment and of the largest gradient, in [0, 1).
    epsilon : float
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.adamax)
    kernel_slots = ("momentum", "norm")
    slot_blocks = (("momentum", "norm"),)

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return rate / (1.0 - self.beta_1**step), self.beta_1, self.beta_2, self.epsilon


class Lamb(_Moments):
    """Adam whose step, for each variable, is as long as the variable's norm times the learning rate.

    For large batches. A variable of zeros, and a direction of zeros, are left their own lengths.

    Parameters
    ----------
    learning_rate : float or callable
    beta_1, beta_2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.lamb_direction)

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`; the first one, the rate, is for the second pass."""
        corrections = 1.0 / (1.0 - self.beta_1**step), 1.0 / (1.0 - self.beta_2**step)
        return rate, *corrections, self.beta_1, self.beta_2, self.epsilon

    def _update_range(self, group, start, stop, coefficients, keep, scale, limit):
        rate, *others = coefficients
        super()._update_range(group, start, stop, others, keep, scale, limit)
        weight, direction = group.parameters.flat, group.gradient
        for first, last in group.ranges:
            if start <= first and last <= stop:
                ours = math.sqrt(flat.square_sum(weight, first, last))
                its = math.sqrt(flat.square_sum(direction, first, last))
                ratio = ours / its if ours > 0 and its > 0 else 1.0
                flat.launch(kernels.sgd, first, last, (weight, direction), rate * ratio, 1.0, 1.0, math.inf)
