"""Cells that a user would write, for figures.py: forward and backward through a sequence, gradients of the weights.

`peers.py` has the same cells for its libraries.
"""

import numpy as np

#: name: batch, timesteps, and what the cells are made of
SIZES = {
    "MinimalRNNCell": (32, 50, {"inputs": 32, "units": 64}),
    "PeepholeLSTMCell": (32, 50, {"inputs": 32, "units": 64}),
    "NestedCell": (64, 50, {"i": (32, 64, 32), "units": (10, 20, 30)}),
}


def training(name):
    """Return one pass over the sequences of `SIZES[name]`."""
    import numbarnn
    from numbarnn import layers, ops

    batch, timesteps, size = SIZES[name]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, timesteps, size["inputs"] if "inputs" in size else size["i"][0])).astype("float32")
    if name == "NestedCell":
        _, i2, i3 = size["i"]
        layer = layers.RNN(nested_cell(*size["units"]), return_sequences=True)
        x = (x, rng.standard_normal((batch, timesteps, i2, i3)).astype("float32"))
    else:
        cell = {"MinimalRNNCell": minimal_cell, "PeepholeLSTMCell": peephole_cell}[name](size["units"])
        layer = layers.RNN(cell, return_sequences=True)

    def total(x):
        out = layer(x)
        return sum(ops.sum(part) for part in out) if isinstance(out, (list, tuple)) else ops.sum(out)

    step = numbarnn.value_and_grad(total, layer)
    return lambda: step(x)


def minimal_cell(units):
    """The minimal cell of Keras's guide."""
    from numbarnn import layers, ops

    class MinimalRNNCell(layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = units

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(units, units), name="recurrent_kernel")

        def call(self, inputs, states):
            out = ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
            return out, [out]

    return MinimalRNNCell()


def peephole_cell(units):
    """An LSTM whose gates also look at the cell state."""
    from numbarnn import layers, ops

    class PeepholeLSTMCell(layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = [units, units]

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4 * units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(units, 4 * units), name="recurrent_kernel")
            self.peephole = self.add_weight(shape=(3, units), name="peephole")

        def call(self, inputs, states):
            h, c = states
            z = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel)
            i, f, g, o = ops.split(z, 4, axis=-1)
            c_new = ops.sigmoid(f + self.peephole[1] * c) * c + ops.sigmoid(i + self.peephole[0] * c) * ops.tanh(g)
            h_new = ops.sigmoid(o + self.peephole[2] * c_new) * ops.tanh(c_new)
            return h_new, [h_new, c_new]

    return PeepholeLSTMCell()


def nested_cell(unit_1, unit_2, unit_3):
    """The nested cell of Keras's guide: two inputs, two states, two outputs."""
    from numbarnn import TensorShape, layers, ops

    class NestedCell(layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = [TensorShape([unit_1]), TensorShape([unit_2, unit_3])]
            self.output_size = [TensorShape([unit_1]), TensorShape([unit_2, unit_3])]

        def build(self, shapes):
            i1, (i2, i3) = shapes[0][1], shapes[1][1:]
            self.kernel_1 = self.add_weight(shape=(i1, unit_1), name="kernel_1")
            self.kernel_2_3 = self.add_weight(shape=(i2, i3, unit_2, unit_3), name="kernel_2_3")

        def call(self, inputs, states):
            out_1 = ops.matmul(inputs[0], self.kernel_1)
            out_2_3 = ops.einsum("bij,ijkl->bkl", inputs[1], self.kernel_2_3)
            states = (states[0] + out_1, states[1] + out_2_3)
            return (out_1, out_2_3), states

    return NestedCell()
