"""What the tests of recurrent layers share: the kinds there are, small data, and comparisons."""

from dataclasses import dataclass, field

import numpy as np
from parity import as_list, make_mask

from numbarnn import graph, layers
from numbarnn.graph import Spec
from numbarnn.testing import TOLERANCE, assert_close, check_gradients, reference

B, T, F, U = 4, 6, 3, 5
X = np.random.default_rng(0).standard_normal((B, T, F)).astype("float32")
STATES = list(np.random.default_rng(1).standard_normal((2, B, U)).astype("float32"))
MASK = make_mask("scattered", B, T, np.random.default_rng(2))
RESET = np.random.default_rng(3).random((B, T)) < 0.3
EVERYTHING = {"return_sequences": True, "return_state": True}


@dataclass(frozen=True)
class Kind:
    """One of the built-in recurrent layers."""

    name: str  # of its kernels
    layer: type
    cell: type
    naive: object  # its loop in `numbarnn.testing.reference`
    gates: int
    states: int = 1
    options: dict = field(default_factory=dict)

    def make(self, units=U, bias_initializer="random_normal", **options):
        """Make a layer whose bias is not zeros."""
        return self.layer(units, bias_initializer=bias_initializer, **self.options, **options)

    def like(self, layer, **options):
        """Make a built layer with the weights of another and other options."""
        twin = self.make(**options)
        twin.build((B, T, F))
        twin.set_weights(layer.get_weights())
        return twin

    def loop(self, layer, x, states=None, **options):
        """Ask the naive loop, with the layer's weights, in float64; outputs and last states in one list."""
        states = [np.zeros((len(x), layer.units))] * self.states if states is None else states
        weights = [w.astype("float64") for w in layer.get_weights()]
        sequence, last = self.naive(np, x.astype("float64"), weights, states, **self.options, **options)
        return [sequence, *last]

    @property
    def first(self):
        """States to start from."""
        return STATES[: self.states]


KINDS = [
    Kind("SimpleRNN", layers.SimpleRNN, layers.SimpleRNNCell, reference.simple_rnn, gates=1),
    Kind("GRU", layers.GRU, layers.GRUCell, reference.gru, gates=3),
    Kind("GRU reset before", layers.GRU, layers.GRUCell, reference.gru, gates=3, options={"reset_after": False}),
    Kind("LSTM", layers.LSTM, layers.LSTMCell, reference.lstm, gates=4, states=2),
]


def same(actual, expected):
    """Assert that two results, or lists of results, are the same bits."""
    for a, b in zip(as_list(actual), as_list(expected), strict=True):
        assert type(a) is type(b) is np.ndarray
        np.testing.assert_array_equal(a, b)


def close(actual, expected, tolerance=TOLERANCE["float32"]):
    """Assert that two results, or lists of results, differ by rounding only."""
    for a, b in zip(as_list(actual), as_list(expected), strict=True):
        assert_close(a, b, tolerance)


def differentiate(layer, x, d_outputs, **options):
    """Call a layer in a traced program; return outputs and gradients of the input and of the trainable weights."""
    program = graph.trace(lambda x: graph_leaves(layer(x, **options)), [Spec(x.shape, x.dtype)])
    forward, backward = program.linearize(list(range(len(d_outputs))), [*program.inputs, *layer.trainable_weights])
    outputs, residuals = forward(x)
    return outputs, backward(residuals, d_outputs)


def graph_leaves(outputs):
    """Return what a layer returned, lists of states among it, as one list."""
    return [x for item in outputs for x in graph_leaves(item)] if isinstance(outputs, list) else [outputs]


def slopes(layer, x, d_outputs, **options):
    """Check a layer's gradients of x and of its weights by differences, random draws repeated."""
    generators = [v for v in layer.variables if not any(v is w for w in layer.weights)]
    start = [v.numpy() for v in generators]

    def loss(x, *weights):
        layer.set_weights(weights)
        for variable, value in zip(generators, start, strict=True):
            variable.assign(value)
        outputs = graph_leaves(layer(x, **options))
        return sum(np.vdot(d, out) for d, out in zip(d_outputs, outputs, strict=True))

    weights = layer.get_weights()
    outputs, gradients = differentiate(layer, x, d_outputs, **options)
    check_gradients(loss, [x, *weights], gradients)
    return outputs, gradients
