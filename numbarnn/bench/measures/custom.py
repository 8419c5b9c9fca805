"""Cells of a user's own: forward and backward through a sequence, gradients of the weights.

`numbarnn.bench.peers` has the same cells for its libraries.
"""

import numpy as np

from ... import layers, ops
from ...gradients import value_and_grad
from ...tensor_shape import TensorShape
from ..timing import Row, scaled

__all__ = ["SIZES", "custom", "training"]

#: name: batch, timesteps, and what the cells are made of
SIZES = {
    "MinimalRNNCell": (32, 50, {"inputs": 32, "units": 64}),
    "PeepholeLSTMCell": (32, 50, {"inputs": 32, "units": 64}),
    "NestedCell": (64, 50, {"inputs": (32, 64, 32), "units": (10, 20, 30)}),
}


def custom(setup):
    """Each cell of `SIZES`, microseconds per timestep."""
    for name, (batch, timesteps, size) in SIZES.items():
        request = {"what": "custom", "cell": name, "batch": batch, "timesteps": timesteps, "size": size}
        times, unable = setup.against_peers(training(name), request)
        yield Row("custom", name, "forward + backward", scaled(times, 1e3 / timesteps), "us", unable)


def training(name):
    """Return one pass over the sequences of `SIZES[name]`."""
    batch, timesteps, size = SIZES[name]
    rng = np.random.default_rng(0)
    if name == "NestedCell":
        i1, i2, i3 = size["inputs"]
        x = tuple(rng.standard_normal((batch, timesteps, *part)).astype("float32") for part in ((i1,), (i2, i3)))
        layer = layers.RNN(NestedCell(*size["units"]), return_sequences=True)
    else:
        x = rng.standard_normal((batch, timesteps, size["inputs"])).astype("float32")
        layer = layers.RNN(globals()[name](size["units"]), return_sequences=True)

    def total(x):
        out = layer(x)
        return sum(ops.sum(part) for part in out) if isinstance(out, (list, tuple)) else ops.sum(out)

    step = value_and_grad(total, layer)
    return lambda: step(x)


class MinimalRNNCell(layers.Layer):
    """The minimal cell of Keras's guide."""

    def __init__(self, units):
        super().__init__()
        self.state_size = units

    def build(self, shape):
        """Make the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], self.state_size), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.state_size, self.state_size), name="recurrent_kernel")

    def call(self, inputs, states):
        """One step."""
        out = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
        return out, [out]


class PeepholeLSTMCell(layers.Layer):
    """An LSTM whose gates also look at the cell state."""

    def __init__(self, units):
        super().__init__()
        self.state_size = [units, units]

    def build(self, shape):
        """Make the weights."""
        units = self.state_size[0]
        self.kernel = self.add_weight(shape=(shape[-1], 4 * units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(units, 4 * units), name="recurrent_kernel")
        self.peephole = self.add_weight(shape=(3, units), name="peephole")

    def call(self, inputs, states):
        """One step."""
        h, c = states
        z = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        i, f, g, o = ops.split(z, 4, axis=-1)
        c_new = ops.sigmoid(f + self.peephole[1] * c) * c + ops.sigmoid(i + self.peephole[0] * c) * ops.tanh(g)
        h_new = ops.sigmoid(o + self.peephole[2] * c_new) * ops.tanh(c_new)
        return h_new, [h_new, c_new]


class NestedCell(layers.Layer):
    """The nested cell of Keras's guide: two inputs, two states, two outputs."""

    def __init__(self, unit_1, unit_2, unit_3):
        super().__init__()
        self.state_size = [TensorShape([unit_1]), TensorShape([unit_2, unit_3])]
        self.output_size = [TensorShape([unit_1]), TensorShape([unit_2, unit_3])]

    def build(self, shapes):
        """Make the weights."""
        (unit_1,), (unit_2, unit_3) = self.state_size
        i1, (i2, i3) = shapes[0][1], shapes[1][1:]
        self.kernel_1 = self.add_weight(shape=(i1, unit_1), name="kernel_1")
        self.kernel_2_3 = self.add_weight(shape=(i2, i3, unit_2, unit_3), name="kernel_2_3")

    def call(self, inputs, states):
        """One step."""
        out_1 = ops.matmul(inputs[0], self.kernel_1)
        out_2_3 = ops.einsum("bij,ijkl->bkl", inputs[1], self.kernel_2_3)
        states = (states[0] + out_1, states[1] + out_2_3)
        return (out_1, out_2_3), states
