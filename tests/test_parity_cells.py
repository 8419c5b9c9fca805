"""Cells of the user against live Keras: the same equations in both, values and the gradients of all weights."""

import numpy as np
import parity
import pytest

from numbarnn import graph, layers, ops
from numbarnn.graph import Spec

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]

B, T, F, U = 4, 7, 3, 5


def minimal(ops, w, x, s):
    h = ops.matmul(x, w[0]) + ops.matmul(s[0], w[1])
    return h, [h]


def peephole(ops, w, x, s):
    h, c = s
    i, f, g, o = ops.split(ops.matmul(x, w[0]) + ops.matmul(h, w[1]) + w[2], 4, axis=-1)
    i, f = ops.sigmoid(i + c * w[3][0]), ops.sigmoid(f + c * w[3][1])
    c = f * c + i * ops.tanh(g)
    h = ops.sigmoid(o + c * w[3][2]) * ops.tanh(c)
    return h, [h, c]


def normalized(ops, w, x, s):
    def normal(z):
        mean = ops.mean(z, axis=-1, keepdims=True)
        return (z - mean) / ops.sqrt(ops.mean(ops.square(z - mean), axis=-1, keepdims=True) + 1e-3)

    x = normal(ops.matmul(x, w[0])) * w[2] + w[3]
    m = normal(ops.matmul(s[0], w[1]))
    z, r = ops.sigmoid(x[:, :U] + m[:, :U]), ops.sigmoid(x[:, U : 2 * U] + m[:, U : 2 * U])
    h = z * s[0] + (1 - z) * ops.tanh(x[:, 2 * U :] + r * m[:, 2 * U :])
    return h, [h]


CELLS = [
    (minimal, U, [(F, U), (U, U)]),
    (peephole, [U, U], [(F, 4 * U), (U, 4 * U), (4 * U,), (3, U)]),
    (normalized, U, [(F, 3 * U), (U, 3 * U), (3 * U,), (3 * U,)]),
]


def cell_of(layers, ops, step, sizes, shapes):
    """The cell, as a layer of one of both libraries."""

    class Cell(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.state_size = sizes

        def build(self, input_shape):
            self.own = [self.add_weight(shape=s, name=f"w{i}", initializer="zeros") for i, s in enumerate(shapes)]
            self.built = True

        def call(self, inputs, states):
            return step(ops, self.own, inputs, list(states))

    return Cell(dtype="float64")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("step, sizes, shapes", CELLS)
def test_cells_of_the_user_equal_keras(step, sizes, shapes, masked, rng):
    keras = parity.keras()
    import torch

    x = rng.normal(size=(B, T, F))
    mask = np.arange(T) < np.array([[7], [4], [1], [5]]) if masked else None
    weights, d = [rng.normal(size=s) * 0.5 for s in shapes], rng.normal(size=(B, T, U))
    with parity.precision("float64"):
        theirs = keras.layers.RNN(cell_of(keras.layers, keras.ops, step, sizes, shapes), True, dtype="float64")
        theirs.build((B, T, F))
        theirs.set_weights(weights)
        given = torch.tensor(x, requires_grad=True)
        out = theirs(given, mask=None if mask is None else torch.tensor(mask))
        (out * torch.tensor(d)).sum().backward()
        expected = [out, given.grad, *(v.value.grad for v in theirs.trainable_variables)]

    ours = layers.RNN(cell_of(layers, ops, step, sizes, shapes), True, dtype="float64")
    ours.build((B, T, F))
    ours.set_weights(weights)
    program = graph.trace(lambda x: ours(x, mask=mask), (Spec(x.shape, "float64"),))
    forward, backward = program.linearize(0, [*program.inputs, *ours.trainable_variables])
    value, residuals = forward(x)
    for a, b in zip([value, *backward(residuals, d)], expected, strict=True):
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-9, atol=1e-11)
