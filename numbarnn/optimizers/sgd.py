"""Gradient descent with momentum, and by signs."""

from __future__ import annotations

from ..checks import flag, fraction
from ..kernels import optimizer as kernels
from .base import Optimizer, takes_common_arguments

__all__ = ["SGD", "Lion", "changed_momentum"]


def changed_momentum(before, value):
    """Check a new momentum of an optimizer whose state is settled already; return it as a float."""
    value = fraction("momentum", value)
    if bool(value) != bool(before):
        raise ValueError(
            f"momentum: an optimizer made with momentum={before} cannot get momentum={value}, which needs other state; "
            "make a new one"
        )
    return value


class SGD(Optimizer):
    """Gradient descent, with momentum if asked.

    ``v = momentum * v - learning_rate * g`` and ``w += v``; with `nesterov`, ``w += momentum * v - learning_rate * g``.

    Parameters
    ----------
    learning_rate : float or callable
    momentum : float
        In [0, 1].
    nesterov : bool
    **common
        See `Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import Variable, optimizers
    >>> w = Variable(np.array([1.0, 2.0]))
    >>> optimizers.SGD(learning_rate=0.5).apply([np.array([1.0, 1.0])], [w])
    >>> w.numpy()
    array([0.5, 1.5])
    """

    hyperparameters = ("momentum", "nesterov")

    @takes_common_arguments
    def __init__(self, learning_rate=0.01, momentum=0.0, nesterov=False, **common):
        super().__init__(learning_rate, **common)
        self._momentum = fraction("momentum", momentum)
        self.nesterov = flag("nesterov", nesterov)
        self.kernel = kernels.sgd
        if self._momentum:
            self.kernel = kernels.sgd_momentum
            self.kernel_slots = ("momentum",)
            self.slot_blocks = (("momentum",),)

    @property
    def momentum(self):
        """The share of the last update that goes on; whether there is any cannot change."""
        return self._momentum

    @momentum.setter
    def momentum(self, value):
        self._momentum = changed_momentum(self._momentum, value)

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return (rate, self._momentum, self.nesterov) if self._momentum else (rate,)


class Lion(Optimizer):
    """Steps of one size, in the direction of the sign of a momentum.

    ``w -= learning_rate * sign(beta_1 * m + (1 - beta_1) * g)``, then ``m = beta_2 * m + (1 - beta_2) * g``.

    Parameters
    ----------
    learning_rate : float or callable
        A third to a tenth of Adam's.
    beta_1 : float
        Share of the momentum in the direction, in (0, 1].
    beta_2 : float
        Decay of the momentum, in [0, 1].
    **common
        See `Optimizer`.
    """

    kernel = staticmethod(kernels.lion)
    kernel_slots = ("momentum",)
    slot_blocks = (("momentum",),)
    hyperparameters = ("beta_1", "beta_2")

    @takes_common_arguments
    def __init__(self, learning_rate=0.001, beta_1=0.9, beta_2=0.99, **common):
        super().__init__(learning_rate, **common)
        self.beta_1 = fraction("beta_1", beta_1)
        self.beta_2 = fraction("beta_2", beta_2)
        if not self.beta_1:
            raise ValueError(
                "Argument `beta_1` must be in the (0, 1] range. Otherwise, the optimizer degenerates to SignSGD. "
                f"Received: beta_1={beta_1}."
            )

    def coefficients(self, rate, step):
        """See `Optimizer.coefficients`."""
        return rate, self.beta_1, self.beta_2
