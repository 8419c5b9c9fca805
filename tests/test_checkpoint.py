"""`checkpoint=`: the same bits as without, and memory that grows as the square root of the length."""

import math
import tracemalloc

import numpy as np
import pytest
from recurrent import KINDS, MASK, RESET, B, T, X, differentiate, same

from numbarnn import jit, layers, models, recurrence
from numbarnn.layers import Layer
from numbarnn.utils import set_random_seed

RNG = np.random.default_rng(5)
D_SEQUENCE = RNG.standard_normal((B, T, 5)).astype("float32")
D_STATES = list(RNG.standard_normal((2, B, 5)).astype("float32"))


def twins(kind, k, **options):
    """A layer without checkpoints and its twin with them."""
    layer = kind.make(**options)
    layer(X)
    return layer, kind.like(layer, checkpoint=k, **options)


@pytest.mark.parametrize("k", [1, 2, T - 1, T + 3])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_bits_are_those_without(kind, k):
    for options, call in (
        ({"return_sequences": True, "return_state": True}, {"initial_state": kind.first, "mask": MASK, "reset": RESET}),
        ({"go_backwards": True, "return_sequences": True, "return_state": True}, {"mask": MASK}),
        ({"return_state": True, "zero_output_for_mask": True}, {"mask": MASK}),
    ):
        plain, layer = twins(kind, k, **options)
        d_out = D_SEQUENCE if options.get("return_sequences") else D_SEQUENCE[:, 0]
        gradients = [d_out, *D_STATES[: kind.states]]
        found, expected = (differentiate(each, X, gradients, **call) for each in (layer, plain))
        for ours, theirs in zip(found, expected, strict=True):
            same(ours, theirs)
        same(layer(X, **call), plain(X, **call))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_dropout_draws_are_the_same(kind):
    results = []
    for k in (None, 4):
        set_random_seed(3)
        layer = kind.make(dropout=0.4, recurrent_dropout=0.3, return_sequences=True, checkpoint=k)
        results.append(differentiate(layer, X, [D_SEQUENCE], training=True))
    for ours, theirs in zip(*results, strict=True):
        same(ours, theirs)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: layers.Bidirectional(layers.LSTM(4, return_sequences=True, checkpoint=k)),
        lambda k: layers.RNN([layers.GRUCell(3), layers.LSTMCell(4)], stateful=True, checkpoint=k),
        lambda k: layers.SimpleRNN(4, stateful=True, checkpoint=k),
    ],
    ids=["Bidirectional", "stack", "stateful"],
)
def test_training_is_the_same(make):
    weights = []
    for k in (None, 4):
        set_random_seed(1)
        model = models.Sequential([layers.Input(batch_shape=(B, T, 3)), make(k), layers.Dense(2)])
        model.compile("adam", "mse")
        y = np.zeros((B, *model.output_shape[1:]))
        model.fit(X, y, epochs=3, batch_size=B, verbose=0)
        weights.append(model.get_weights())
    same(*weights)


def test_configurations_carry_it():
    layer = layers.LSTM.from_config(layers.LSTM(3, checkpoint=7).get_config())
    assert layer.checkpoint == 7 and "checkpoint" not in layers.LSTM(3).get_config()
    both = layers.Bidirectional(layers.GRU(3, checkpoint=5))
    assert both.forward_layer.checkpoint == both.backward_layer.checkpoint == 5


@pytest.mark.parametrize("k", [0, -1, 1.5, True, "4"])
def test_what_is_no_number_of_steps_is_refused(k):
    with pytest.raises(ValueError, match="`checkpoint` must be a positive integer"):
        layers.LSTM(3, checkpoint=k)


def test_cells_without_kernels_are_refused():
    class Cell(Layer):
        state_size = 2

        def call(self, inputs, states):
            return states[0], states

    with pytest.raises(ValueError, match="cannot have checkpoints.*has no kernels"):
        layers.RNN(Cell(), checkpoint=2)(X)


# One row, whose segments are read where they lie; several, which are copied a segment at a time.
@pytest.mark.parametrize(("kind", "batch"), [*((kind, 1) for kind in KINDS), (KINDS[1], 2), (KINDS[3], 2)])
def test_memory_of_a_long_sequence(kind, batch):
    """Beyond inputs, outputs and their gradients: at most what 2 sqrt(T) timesteps keep without checkpoints."""
    timesteps, units = 100_000, 32
    cell = kind.cell(units, **kind.options)
    cell.build((batch, 32))
    weights = recurrence.PackedWeights(cell.kernels, *cell.get_weights())
    x = RNG.standard_normal((batch, timesteps, 32)).astype("float32")
    d_out = np.ones((batch, timesteps, units), "float32")

    def step(length, k):
        pullback = recurrence.run(cell.kernels, x[:, :length], weights, None, save=True, checkpoint=k)[2]
        return pullback(d_out[:, :length])

    def peak(length, k):
        """What a pass takes beyond its outputs and the gradient of its inputs."""
        recurrence._spares._arrays.clear()
        tracemalloc.start()
        try:
            d_x, _, _ = step(length, k)
            return tracemalloc.get_traced_memory()[1] - 2 * d_x.nbytes
        finally:
            tracemalloc.stop()

    jit.set_num_threads(1)  # each has working memory of its own
    step(50, 10)  # compiled and packed
    working_memory = peak(2, 1)
    per_step = batch * units * 4 * (cell.kernels.states + cell.kernels.planes)
    assert peak(timesteps, math.isqrt(timesteps)) - working_memory <= 2 * math.sqrt(timesteps) * per_step
