"""`SimpleRNNCell` and `SimpleRNN`: what is theirs alone; `test_recurrent_laws` has what they share with the others."""

import inspect

import numpy as np
import pytest
from recurrent import EVERYTHING, STATES, B, F, T, U, X, close, same

from numbarnn import layers

LOOP = "return_sequences return_state go_backwards stateful unroll".split()
CELL = (
    "units activation use_bias kernel_initializer recurrent_initializer bias_initializer kernel_regularizer "
    "recurrent_regularizer bias_regularizer kernel_constraint recurrent_constraint bias_constraint dropout "
    "recurrent_dropout seed"
).split()


def names(kind):
    """Return the arguments that may come by position."""
    return [p.name for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]


def with_penalty(cell):
    place = cell.index("bias_regularizer") + 1
    return [*cell[:place], "activity_regularizer", *cell[place:]]


def test_arguments_come_in_keras_order():
    assert names(layers.SimpleRNNCell) == CELL
    assert names(layers.SimpleRNN) == [*with_penalty(CELL)[:-1], *LOOP, "seed"]


def test_keys_of_the_configuration_come_in_keras_order():
    base = ["name", "trainable", "dtype"]
    assert list(layers.SimpleRNN(3).get_config()) == [*base, *LOOP, "zero_output_for_mask", *with_penalty(CELL)]
    assert list(layers.SimpleRNNCell(3).get_config()) == [*base, *CELL]


def test_defaults():
    config = layers.SimpleRNN(3).get_config()
    assert (config["activation"], config["use_bias"], config["dropout"], config["seed"]) == ("tanh", True, 0.0, None)
    assert config["recurrent_initializer"]["class_name"] == "Orthogonal"
    assert layers.SimpleRNN(3).cell.name == "simple_rnn_cell"
    assert not hasattr(layers.SimpleRNN(3), "recurrent_activation")
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to SimpleRNN"):
        layers.SimpleRNN(3, use_cudnn="auto")


def test_parameter_counts():
    layer = layers.SimpleRNN(128)
    layer.build((None, None, 256))
    assert layer.count_params() == 49_280
    assert [w.shape for w in layer.weights] == [(256, 128), (128, 128), (128,)]


def test_a_running_sum():
    """With the identity for both matrices it adds up its inputs."""
    layer = layers.SimpleRNN(F, activation="linear", **EVERYTHING)
    layer.build(X.shape)
    layer.set_weights([np.eye(F), np.eye(F), np.full(F, 0.5)])
    out, last = layer(X)
    close(out, np.cumsum(X + 0.5, axis=1), 1e-6)
    same(out[:, -1], last)


@pytest.mark.parametrize("activation", ["linear", lambda z: z], ids=["kernel", "program"])
def test_one_set_of_dropout_factors(activation):
    """Whatever the implementation; h is dropped before its product only."""
    layer = layers.SimpleRNN(
        U, activation=activation, recurrent_dropout=0.5, implementation=1, seed=2, return_sequences=True
    )
    layer.build((B, T, F))
    layer.set_weights([np.zeros((F, U)), np.eye(U), np.zeros(U)])
    out = layer(X, initial_state=STATES[:1], training=True)
    kept = out[:, 0] != 0
    assert kept.any() and not kept.all()
    for t in range(T):
        np.testing.assert_array_equal(out[:, t], np.where(kept, 2 ** (t + 1) * STATES[0], 0))


def test_the_penalty_on_outputs_is_applied():
    """Keras 3 forgets it."""
    layer = layers.SimpleRNN(U, activity_regularizer="l1")
    out = layer(X)
    np.testing.assert_allclose([float(loss) for loss in layer.losses], [0.01 * np.abs(out).sum() / B], rtol=1e-5)
