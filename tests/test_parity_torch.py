"""PyTorch's own recurrent layers, with weights converted by hand: values and all gradients.

PyTorch keeps each matrix transposed, and two biases where only a GRU needs them; its GRU has the reset gate first.
"""

import numpy as np
import parity
import pytest

from numbarnn.testing import TOLERANCE, assert_close

pytestmark = pytest.mark.parity

SIZES = [(1, 1, 1, 1), (3, 7, 5, 4), (4, 9, 8, 16), (2, 5, 13, 33)]
# Name: arguments of PyTorch's layer, kind of our cell, its gates in PyTorch's order.
LAYERS = {
    "RNN tanh": ("RNN", {"nonlinearity": "tanh"}, "simple_rnn", [0]),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}, "simple_rnn", [0]),
    "GRU": ("GRU", {}, "gru", [1, 0, 2]),
    "LSTM": ("LSTM", {}, "lstm", [0, 1, 2, 3]),
}


def convert(parameters, gates, kind):
    """Bring PyTorch's weights, or their gradients, of one layer and direction into the order and layout of Keras."""
    kernel, recurrent_kernel, bias, recurrent_bias = (
        np.concatenate([np.split(array, len(gates))[gate] for gate in gates]) for array in parameters
    )
    bias = np.stack([bias, recurrent_bias]) if kind == "gru" else bias + recurrent_bias
    return [kernel.T, recurrent_kernel.T, bias]


# A single number says nothing in float32: where its terms cancel there is no other that gives the scale.
@pytest.mark.parametrize(
    ("size", "dtype"), [*((size, "float64") for size in SIZES), *((size, "float32") for size in SIZES[1:])]
)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("given_states", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_pytorch(name, size, given_states, bidirectional, depth, dtype, rng):
    import torch

    from numbarnn import layers

    torch.manual_seed(0)  # PyTorch draws the weights
    class_name, options, kind, gates = LAYERS[name]
    batch, steps, inputs, units = size
    directions = 2 if bidirectional else 1
    theirs = getattr(torch.nn, class_name)(
        inputs, units, depth, batch_first=True, bidirectional=bidirectional, dtype=getattr(torch, dtype), **options
    )

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    names = ("h", "c") if kind == "lstm" else ("h",)
    x, states = normal(batch, steps, inputs), [normal(depth * directions, batch, units) for _ in names]
    d_output = 1 + normal(batch, steps, directions * units)
    d_states = [1 + normal(depth * directions, batch, units) for _ in names]
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, *states)]
    given = () if not given_states else (tuple(tensors[1:]) if kind == "lstm" else tensors[1],)
    output, last = theirs(tensors[0], *given)
    last = last if kind == "lstm" else (last,)
    sum((torch.tensor(d) * r).sum() for d, r in zip((d_output, *d_states), (output, *last), strict=True)).backward()

    # PyTorch's weights and states: for each layer and, in it, each direction.
    parameters = [p.detach().numpy() for p in theirs.parameters()]
    gradients = [p.grad.numpy() for p in theirs.parameters()]
    arguments = {"return_sequences": True, "return_state": True, "dtype": dtype}
    if class_name == "RNN":
        arguments["activation"] = options["nonlinearity"]
    ours = []
    for number in range(depth):
        layer = getattr(layers, parity.KINDS[kind][0])(units, **arguments)
        ours.append(layers.Bidirectional(layer, dtype=dtype) if bidirectional else layer)
        ours[-1].build((batch, steps, directions * units if number else inputs))
        mine = parameters[number * directions * 4 : (number + 1) * directions * 4]
        ours[-1].set_weights(
            [w for start in range(0, len(mine), 4) for w in convert(mine[start : start + 4], gates, kind)]
        )

    def in_our_order(states):
        """One state of all layers and directions after the other -> layer, direction, state."""
        return [state[place] for place in range(depth * directions) for state in states]

    def call(sequence, *states):
        results, count = [], directions * len(names)
        for number, layer in enumerate(ours):
            own = list(states[number * count : (number + 1) * count]) or None
            sequence, *after = layer(sequence, initial_state=own)
            results += after
        return [sequence, *results]

    variables = [w for layer in ours for w in layer.trainable_variables]
    arrays = [x, *(in_our_order(states) if given_states else ())]
    results, d_inputs, d_weights = parity.differentiate(
        call, arrays, variables, [d_output, *in_our_order(d_states)], pure=True
    )
    for part, (a, b) in enumerate(zip(results, (output, *in_our_order(last)), strict=True)):
        assert_close(a, b.detach().numpy(), TOLERANCE[dtype], f"output or state {part}")
    expected = [tensors[0].grad.numpy()]
    if given_states:
        expected += in_our_order([t.grad.numpy() for t in tensors[1:]])
    for part, (a, b) in enumerate(zip(d_inputs, expected, strict=True)):
        assert_close(a, b, TOLERANCE[dtype], f"gradient of input {part}")
    expected = []
    for start in range(0, len(gradients), 4):
        kernel, recurrent_kernel, bias = convert(gradients[start : start + 4], gates, kind)
        expected += [kernel, recurrent_kernel, bias if kind == "gru" else bias / 2]  # each of the two has all of it
    for part, (a, b) in enumerate(zip(d_weights, expected, strict=True)):
        assert_close(a, b, TOLERANCE[dtype], f"gradient of weight {part}")
