"""Numbarnn's side of what is measured beside peers: the public layers and models, as users call them.

The functions are named and called as those in `numbarnn.bench.peers`.
"""

from types import SimpleNamespace

import numpy as np

from .. import layers, losses, models, ops
from ..gradients import value_and_grad
from ..variable import Variable
from .peers import recipes

__all__ = ["StreamedStep", "epoch", "forward", "step", "train"]

_library = SimpleNamespace(layers=layers, losses=losses, models=models)


def _call(stack, x, mask):
    for layer in stack:
        x = layer(x) if mask is None else layer(x, mask=mask)
    return x


def forward(cell, case):
    """Inference of layers; weights stay packed from call to call."""
    stack = recipes.recurrent_layers(layers, cell, case)
    x, mask = recipes.inputs(case), recipes.mask(case)
    return lambda: _call(stack, x, mask)


def train(cell, case):
    """Forward and backward through layers, the gradients of inputs and weights, as after an update of the weights."""
    stack = recipes.recurrent_layers(layers, cell, case)
    given, mask = recipes.inputs(case), recipes.mask(case)
    _call(stack, given[:1, :1], None)  # builds them, and takes next to no memory
    x = Variable(given)
    weights = [v for layer in stack for v in layer.trainable_variables]
    gradients = value_and_grad(lambda: ops.sum(_call(stack, x, mask)), [x, *weights])

    def call():
        for variable in weights:
            variable.touch()  # what was packed is out of date
        gradients()

    return call


def step(cell, case):
    """`train_on_batch` of Embedding, recurrent layers, Dense with Adam."""
    model, (x, y) = recipes.classifier(_library, cell, case), recipes.tokens(case)
    return lambda: model.train_on_batch(x, y)


def epoch(cell, case, batches):
    """`fit` of the guide's model for an epoch."""
    model, (x, y) = recipes.digits_model(_library, cell, case), recipes.labelled(case, batches)
    return lambda: model.fit(x, y, batch_size=case["batch"], epochs=1, verbose=0)


class StreamedStep:
    """One timestep of an LSTM at a time: from Python, and many of them in compiled code.

    Parameters
    ----------
    case : dict
        Its batch, inputs and units are used.
    steps : int
        How many `compiled` makes.
    """

    def __init__(self, case, steps=1000):
        from ..jit import njit

        self._stepper = models.Sequential([layers.Input((None, case["inputs"])), layers.LSTM(case["units"])]).stepper()
        rng = np.random.default_rng(0)
        self._xs = rng.standard_normal((steps, case["batch"], case["inputs"])).astype("float32")
        self._x, self._out = self._xs[0], np.empty((case["batch"], case["units"]), "float32")
        one, self._states = self._stepper.jit()

        @njit(cache=False)
        def run(states, xs, out):
            for t in range(len(xs)):
                one(states, xs[t], out)

        self._run = run

    def from_python(self):
        """Make one timestep."""
        self._stepper.step(self._x, out=self._out)

    def compiled(self):
        """Make all timesteps."""
        self._run(self._states, self._xs, self._out)
