"""Recurrent layers that become loops when they are exported."""

import numpy as np

from numbarnn import layers, ops


class Leaky(layers.Layer):
    """A cell of one's own: two states, a constant, an output that is none of the states."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.state_size, self.output_size = units, [units, units], units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.u = self.add_weight(shape=(self.units, self.units), name="u")
        self.log_tau = self.add_weight(shape=(self.units,), name="log_tau")

    def call(self, inputs, states):
        h, count = states
        rate = 1 / (1 + ops.exp(self.log_tau))
        h = (1 - rate) * h + rate * np.tanh(inputs @ self.w + h @ self.u + 0.5)
        return ops.where(h > 0, h, -0.1 * h + count), [h, 0.5 * count + 1]


LOOPS = {
    "a cell": lambda **options: layers.RNN(Leaky(4), **options),
    "a function as activation": lambda **options: layers.SimpleRNN(4, activation=lambda x: x / (2 + x * x), **options),
    "another activation": lambda **options: layers.LSTM(4, activation="softmax", **options),
    "a kernel's activation": lambda **options: layers.LSTM(4, recurrent_activation="silu", **options),
    "the reset gate before": lambda **options: layers.GRU(4, activation="gelu", reset_after=False, **options),
    "a stack": lambda **options: layers.RNN([layers.LSTMCell(3), Leaky(4)], **options),
}
