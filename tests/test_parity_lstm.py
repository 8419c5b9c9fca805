"""LSTM against live Keras 3 and PyTorch's own layer, on randomly drawn configurations: values and all gradients."""

import numpy as np
import parity
import pytest

from numbarnn.testing import TOLERANCE, assert_close

pytestmark = pytest.mark.parity

CONFIGURATIONS = 200
CONFIGS = [parity.draw(index) for index in range(CONFIGURATIONS)]


def compare(actual, expected, tolerance):
    """Compare two answers, part by part."""
    for call, (ours, theirs) in enumerate(zip(actual.outputs, expected.outputs, strict=True)):
        for part, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_close(a, b, tolerance, f"call {call}, {'state' if part else 'output'} {part}")
    assert_close(actual.d_x, expected.d_x, tolerance, "gradient of the input")
    for name in ("d_states", "d_weights"):
        for number, (a, b) in enumerate(zip(getattr(actual, name), getattr(expected, name), strict=True)):
            assert_close(a, b, tolerance, f"{name}[{number}]")


def test_enough_of_every_kind_is_drawn():
    share = {
        "masks": np.mean([c.mask != "none" for c in CONFIGS]),
        "initial states": np.mean([c.initial_state for c in CONFIGS]),
        "other activations": np.mean([(c.activation, c.recurrent_activation) != ("tanh", "sigmoid") for c in CONFIGS]),
    }
    assert len(CONFIGS) >= 150 and min(share.values()) >= 0.3, share


@pytest.mark.parametrize("index", range(0, CONFIGURATIONS, 4))
def test_the_oracle_follows_the_equations(index):
    """Keras itself against the naive loop: where it does not do what the equations say, it is no oracle."""
    config, data = CONFIGS[index], parity.make_data(CONFIGS[index], index)
    compare(parity.keras_answer(config, data), parity.reference_answer(config, data), TOLERANCE[config.dtype])


@pytest.mark.parametrize("index", range(CONFIGURATIONS))
def test_lstm_equals_keras(index, count_options):
    config, data = CONFIGS[index], parity.make_data(CONFIGS[index], index)
    compare(parity.numbarnn_answer(config, data), parity.keras_answer(config, data), TOLERANCE[config.dtype])
    count_options("configurations", *config.options())


TORCH_SIZES = [(1, 1, 1, 1), (3, 7, 5, 4), (4, 9, 8, 16), (2, 5, 13, 33)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given_states", [False, True])
@pytest.mark.parametrize("size", TORCH_SIZES)
def test_lstm_equals_pytorch_with_weights_converted(size, given_states, dtype, rng):
    """PyTorch keeps each matrix transposed, gates in our order, and two biases that are added."""
    import torch

    from numbarnn.layers import LSTM

    batch, steps, inputs, units = size
    theirs = torch.nn.LSTM(inputs, units, batch_first=True, dtype=getattr(torch, dtype))
    x, *states = (rng.standard_normal(shape).astype(dtype) for shape in ((batch, steps, inputs), *2 * [(batch, units)]))
    d_outputs = [rng.standard_normal(shape).astype(dtype) for shape in ((batch, steps, units), *2 * [(batch, units)])]
    arguments = [torch.tensor(x, requires_grad=True)]
    if given_states:
        arguments.append(tuple(torch.tensor(s[None], requires_grad=True) for s in states))
    else:
        states = []
    output, last = theirs(*arguments)
    sum((torch.tensor(d) * r).sum() for d, r in zip(d_outputs, (output, *last), strict=True)).backward()

    layer = LSTM(units, return_sequences=True, return_state=True, dtype=dtype)
    layer.build(x.shape)
    w_input, w_recurrent, b_input, b_recurrent = (p.detach().numpy() for p in theirs.parameters())
    layer.set_weights([w_input.T, w_recurrent.T, b_input + b_recurrent])
    outputs, d_inputs, d_weights = parity.differentiate(layer, x, None, states, d_outputs)

    tolerance = TOLERANCE[dtype]
    for part, (ours, expected) in enumerate(zip(outputs, (output, *(s[0] for s in last)), strict=True)):
        assert_close(ours, expected.detach().numpy(), tolerance, f"output {part}")
    their_inputs = [arguments[0].grad, *(s.grad[0] for s in (arguments[1] if given_states else ()))]
    for number, (ours, expected) in enumerate(zip(d_inputs, their_inputs, strict=True)):
        assert_close(ours, expected.numpy(), tolerance, f"gradient of input {number}")
    their_weights = [theirs.weight_ih_l0.grad.T, theirs.weight_hh_l0.grad.T, theirs.bias_ih_l0.grad]
    for number, (ours, expected) in enumerate(zip(d_weights, their_weights, strict=True)):
        assert_close(ours, expected.numpy(), tolerance, f"gradient of weight {number}")
