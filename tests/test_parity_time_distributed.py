"""`TimeDistributed` against live Keras: outputs, gradients, masks, shapes, messages."""

import numpy as np
import pytest

from numbarnn import graph, layers
from numbarnn.graph import Spec
from numbarnn.layers import get_mask
from numbarnn.testing import TOLERANCE, assert_close

# Keras has variables that NumPy 2 warns about.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

B, T, N, F = 3, 4, 5, 2
RNG = np.random.default_rng(0)
X = RNG.standard_normal((B, T, F)).astype("float32")
SEQUENCES = RNG.standard_normal((B, T, N, F)).astype("float32")
IDS = RNG.integers(0, 6, (B, T, N))
MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
INNER_MASK = RNG.random((B, T, N)) < 0.6


def dense(package):
    return package.layers.Dense(3, "tanh")


def lstm(package):
    return package.layers.LSTM(3, bias_initializer="random_normal")


def sequences(package):
    return package.layers.LSTM(3, return_sequences=True, go_backwards=True)


def both_ways(package):
    return package.layers.Bidirectional(package.layers.GRU(3, return_sequences=True), merge_mode="sum")


def embedding(package):
    return package.layers.Embedding(6, 3)


def normalization(package):
    return package.layers.BatchNormalization()


def nested(package):
    return package.layers.TimeDistributed(package.layers.Dense(3, "relu"))


def stacked(package):
    return package.models.Sequential([package.layers.Dense(4, "tanh"), package.layers.LSTM(3)])


class Ours:
    """The names of Keras, in numbarnn."""

    from numbarnn import layers, models


def pair(make, x):
    """Return our layer and Keras's, with the same random weights."""
    ours, theirs = layers.TimeDistributed(make(Ours)), keras.layers.TimeDistributed(make(keras))
    ours(x), theirs(torch.tensor(x))
    assert [w.shape for w in ours.weights] == [tuple(w.shape) for w in theirs.weights]
    values = [np.abs(RNG.standard_normal(w.shape)).astype("float32") for w in ours.weights]
    ours.set_weights(values)
    theirs.set_weights(values)
    return ours, theirs


@pytest.mark.parametrize(
    ("make", "x", "mask"),
    [
        (dense, X, None),
        (dense, X, MASK),
        (dense, SEQUENCES, None),
        (lstm, SEQUENCES, None),
        (lstm, SEQUENCES, INNER_MASK),
        (sequences, SEQUENCES, None),
        (sequences, SEQUENCES, INNER_MASK),
        (both_ways, SEQUENCES, None),
        (both_ways, SEQUENCES, INNER_MASK),
        (embedding, IDS, None),
        (normalization, X, None),
        (nested, SEQUENCES, None),
        (nested, SEQUENCES, INNER_MASK),
        (stacked, SEQUENCES, None),
    ],
)
def test_outputs_and_gradients(make, x, mask):
    ours, theirs = pair(make, x)
    program = graph.trace(lambda x: ours(x, mask=mask), (Spec(x.shape, x.dtype),))
    floats = x.dtype.kind == "f"
    forward, backward = program.linearize(0, [*(program.inputs if floats else []), *ours.trainable_weights])
    y, residuals = forward(x)
    tensor = torch.tensor(x, requires_grad=floats)
    other = theirs(tensor, mask=None if mask is None else torch.tensor(mask))
    assert_close(y, other.detach().numpy(), TOLERANCE["float32"])
    d = RNG.standard_normal(y.shape).astype("float32")
    sources = [*([tensor] if floats else []), *(w.value for w in theirs.trainable_weights)]
    for one, two in zip(backward(residuals, d), torch.autograd.grad(other, sources, torch.tensor(d)), strict=True):
        assert_close(one, two.numpy(), 3e-5)
    assert ours.compute_output_shape(x.shape) == tuple(theirs.compute_output_shape(x.shape))


def test_the_mask_of_the_timesteps_goes_on():
    x = SEQUENCES.mean(2)
    x[~MASK] = 0
    ours = layers.TimeDistributed(layers.Dense(3))(layers.Masking()(x))
    theirs = keras.layers.TimeDistributed(keras.layers.Dense(3))(keras.layers.Masking()(torch.tensor(x)))
    np.testing.assert_array_equal(get_mask(ours), theirs._keras_mask.numpy())


@pytest.mark.parametrize("shape", [(B,), (B, T + 1), (B + 1, T), (T, B), (B, T, 7), (B, T)])
def test_masks_that_fit_and_that_do_not(shape):
    found = []
    for package in (Ours, keras):
        layer = package.layers.TimeDistributed(package.layers.Dense(3, name="inner"))
        try:
            layer(X, mask=np.ones(shape, bool))
            found.append(None)
        except ValueError as error:
            # Keras prints the shapes of the backend and adds a note.
            found.append(str(error).replace("torch.Size([", "(").replace("])", ")").replace("(3]", "(3,"))
    if found[0] is None:
        assert found[1] is None
    else:
        assert found[0].partition(" shape (")[0] in found[1]


def test_messages():
    found = []
    for package in (Ours, keras):
        with pytest.raises(ValueError) as error:
            package.layers.TimeDistributed(3)
        found.append(str(error.value).replace("numbarnn.layers", "keras.layers"))
        with pytest.raises(ValueError) as error:
            package.layers.TimeDistributed(package.layers.Dense(3)).compute_output_shape((2, 3))
        found.append(str(error.value))
    assert found[:2] == found[2:]


@pytest.mark.parametrize("make", [dense, lstm, stacked])
def test_configurations_are_read_on_both_sides(make):
    ours = layers.TimeDistributed(make(Ours), name="outer")
    theirs = keras.saving.deserialize_keras_object(
        {"module": "keras.layers", "class_name": "TimeDistributed", "config": ours.get_config(),
         "registered_name": None, "build_config": None}
    )  # fmt: skip
    assert list(theirs.get_config()) == list(ours.get_config())
    assert theirs.layer.name == ours.layer.name
