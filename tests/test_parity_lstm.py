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
