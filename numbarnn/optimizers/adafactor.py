"""Adafactor: second moments kept as row and column means."""

from __future__ import annotations

import math

import numpy as np

from ..checks import flag, number
from ..kernels import expressions, flat
from ..kernels import optimizer as kernels
from ..protocols import local
from .base import Optimizer, takes_common_arguments

__all__ = ["Adafactor"]


class Adafactor(Optimizer):
    """Steps relative to the size of each variable, by second moments that are an outer product of means.

    Matrices are factored over their last two axes, vectors keep a second moment per element. It runs on one thread.

    Parameters
    ----------
    learning_rate : float or callable
    beta_2_decay : float
        Second moments decay by ``1 - t**beta_2_decay``.
    epsilon_1 : float
        Added to squared gradients.
    epsilon_2 : float
        The size that a variable is taken to have at least.
    clip_threshold : float
        Of the root mean square of a step, before the learning rate.
    relative_step : bool
        Let a constant learning rate be at most ``1 / sqrt(t)``. (As in Keras this holds anyway: the step is, too.)
    **common
        See `Optimizer`.
    """

    hyperparameters = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")

    @takes_common_arguments
    def __init__(
        self,
        learning_rate=0.001,
        beta_2_decay=-0.8,
        epsilon_1=1e-30,
        epsilon_2=1e-3,
        clip_threshold=1.0,
        relative_step=True,
        **common,
    ):
        super().__init__(learning_rate, **common)
        self.beta_2_decay = float(number("beta_2_decay", beta_2_decay))
        self.epsilon_1 = float(number("epsilon_1", epsilon_1, least=0))
        self.epsilon_2 = float(number("epsilon_2", epsilon_2, least=0))
        self.clip_threshold = float(number("clip_threshold", clip_threshold, above=0))
        self.relative_step = flag("relative_step", relative_step)
        self._moments = []  # of each variable: (row means, column means, second moment)

    def build(self, variables):
        """See `Optimizer.build`."""
        super().build(variables)
        for variable in self._built_for[len(self._moments) :]:
            shape, dtype = tuple(variable.shape), variable.dtype.name
            if len(shape) < 2:  # placeholders, which Keras's files have
                means = [self.add_variable((), dtype="int32", name=variable.name) for _ in range(2)]
            else:
                means = [
                    self.add_variable(part, dtype=dtype, name=variable.name)
                    for part in (shape[:-1], (*shape[:-2], shape[-1]))
                ]
            self._moments.append((*means, self.add_variable_from_reference(variable, "velocity")))

    def update_step(self, gradient, variable, learning_rate):
        """See `Optimizer.update_step`."""
        step = int(self.iterations) + 1
        size = max(1, gradient.size)
        rate = min(learning_rate, 1.0 / math.sqrt(step))
        rate *= max(self.epsilon_2, math.sqrt(flat.square_sum(variable.here.reshape(-1), 0, gradient.size) / size))
        share = float(step) ** self.beta_2_decay
        rows, columns, velocity = self._moments[self._get_variable_index(variable)]
        if local.on_gpu:
            moments = (rows.here, columns.here, velocity.here) if gradient.ndim > 1 else (None, None, velocity.here)
            expressions.adafactor_direction(gradient, *moments, share, self.epsilon_1)
        elif gradient.ndim < 2:
            arrays = gradient.reshape(-1), velocity.data.reshape(-1)
            kernels.adafactor_vector(0, gradient.size, *arrays, share, self.epsilon_1)
        else:
            matrix = gradient.shape[-2:]
            g, v = gradient.reshape(-1, *matrix), velocity.data.reshape(-1, *matrix)
            r, c = rows.data.reshape(-1, matrix[0]), columns.data.reshape(-1, matrix[1])
            kernels.adafactor_rows(0, r.size, gradient.reshape(-1, matrix[1]), r.reshape(-1), share, self.epsilon_1)
            kernels.adafactor_columns(0, len(c), g, c, share, self.epsilon_1)
            kernels.adafactor_direction(0, len(g), g, v, r, c)
        for moment in (rows, columns, velocity) if gradient.ndim > 1 else (velocity,):
            moment.wrote_here()
        direction = gradient.reshape(-1)
        length = math.sqrt(flat.square_sum(direction, 0, direction.size) / size)
        rate /= np.maximum(1.0, length / self.clip_threshold)  # a NaN stays one
        arrays = variable.here.reshape(-1), direction
        flat.launch(kernels.sgd, 0, direction.size, arrays, float(rate), 1.0, 1.0, math.inf)
        variable.wrote_here()
