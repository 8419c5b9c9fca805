"""Configurations go from live Keras to numbarnn and back: the same predictions by the same weights."""

import numpy as np
import pytest

import numbarnn
from numbarnn.testing import TOLERANCE, assert_close

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")


# Models written once, for whichever library.


def lstm(library):
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((5, 4)),
            layers.LSTM(3, return_sequences=True, kernel_regularizer="l2", unit_forget_bias=False, dropout=0.1),
            layers.LSTM(2, go_backwards=True, recurrent_activation="hard_sigmoid"),
            layers.Dense(2, activation="relu"),
        ]
    )


def gru(library):
    layers = library.layers
    first = layers.GRU(3, reset_after=False, return_sequences=True)
    return library.Sequential([layers.Input((None, 4)), first, layers.GRU(2), layers.Dropout(0.3), layers.Dense(2)])


def simple_rnn(library):
    layers = library.layers
    rnn = layers.SimpleRNN(3, return_sequences=True, activation="relu")
    return library.Sequential([layers.Input((None, 4)), layers.Masking(), rnn, layers.TimeDistributed(layers.Dense(2))])


def bidirectional(library):
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((None, 4)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode="sum"),
            layers.BatchNormalization(),
            layers.LayerNormalization(),
            layers.Bidirectional(layers.GRU(2), backward_layer=layers.GRU(2, go_backwards=True, activation="relu")),
        ]
    )


def cells(library):
    layers = library.layers
    stack = [layers.LSTMCell(3), layers.GRUCell(2), layers.SimpleRNNCell(4)]
    return library.Sequential(
        [layers.Input((None, 4)), layers.RNN(stack, return_sequences=True), layers.RNN(layers.LSTMCell(3))]
    )


def embedding(library):
    layers = library.layers
    table = layers.Embedding(5, 4, mask_zero=True)
    return library.Sequential([layers.Input((None,), dtype="int32"), table, layers.LSTM(3), layers.Dense(1)])


def unbuilt_embedding(library):
    layers = library.layers
    model = library.Sequential([layers.Embedding(5, 4), layers.GRU(3)])
    model.build((None, None))
    return model


def encoder_decoder(library):
    layers, ops = library.layers, library.ops
    read, spoken = layers.Input((None, 4), name="read"), layers.Input((None, 4), name="spoken")
    _, h, c = layers.LSTM(3, return_state=True)(layers.Masking()(read))
    states = layers.LSTM(3, return_sequences=True)(spoken, initial_state=[h, c])
    head = layers.Dense(2)
    both = ops.concatenate([head(states) + 2.0 * head(-states), states], axis=-1)
    return library.Model({"read": read, "spoken": spoken}, [both, both[:, -1], {"mean": ops.mean(both, axis=1)}])


def models_within(library):
    layers = library.layers
    x = layers.Input((6, 3))
    inner = library.Model(x, [layers.GRU(3)(x), layers.Dense(3)(x)], name="inner")
    chain = library.Sequential([layers.Input((6, 3)), layers.LSTM(3)], name="chain")
    y = layers.Input((6, 3))
    first, second = inner(y), inner(y * 2.0)
    return library.Model(y, [layers.add([first[0], second[0], chain(y)]), second[1]])


def masks_between(library):
    layers = library.layers
    words = layers.Input((None,), dtype="int32")
    read = layers.Embedding(6, 4, mask_zero=True)(words)
    forth = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(read)
    # Keras names the operations of its masks as it goes, and refuses a layer of the same name.
    both = layers.concatenate([forth, layers.GRU(6, return_sequences=True)(read)], name="both")
    return library.Model(words, layers.Dense(2)(layers.LSTM(3)(both)))


def operations(library):
    layers, ops = library.layers, library.ops
    x = layers.Input((4, 6))
    y = ops.transpose(ops.reshape(x, (-1, 6, 4)), (0, 2, 1))
    y = ops.tanh(y) / 2.0 - ops.exp(-x) + ops.log1p(ops.square(x)) * ops.cos(x)
    y = ops.matmul(ops.squeeze(ops.expand_dims(y, 1), 1), ops.transpose(x, (0, 2, 1)))
    z = ops.softmax(ops.where(y > 0.0, y, 0.1 * y), axis=-1)
    hot = ops.one_hot(ops.argmax(z, axis=-1), 4) + ops.zeros_like(z)
    ends = [ops.sum(z, axis=(1, 2)), ops.max(y, axis=-1, keepdims=True), z[:, 0, 1:3], ops.flip(z, axis=1), hot]
    return library.Model(x, [*ends, ops.relu(y), ops.sigmoid(y), ops.any(z > 0.5, axis=1), ops.cumsum(y, axis=1)])


WORDS = {embedding, unbuilt_embedding, masks_between}
FEATURES = {operations: (4, 6), models_within: (6, 3)}
MODELS = [
    lstm, gru, simple_rnn, bidirectional, cells, embedding, unbuilt_embedding, encoder_decoder, models_within,
    masks_between, operations,
]  # fmt: skip


def values_for(build, rng):
    if build in WORDS:
        return rng.integers(0, 5, (3, 5)).astype("int32")
    if build is encoder_decoder:
        return {"read": values_for(lstm, rng), "spoken": rng.normal(size=(3, 2, 4)).astype("f4")}
    x = rng.normal(size=(3, *FEATURES.get(build, (5, 4)))).astype("f4")
    if build not in FEATURES:
        x[0, 3:] = 0  # what Masking masks
    return x


def leaves(nest):
    if isinstance(nest, dict):
        return [leaf for key in sorted(nest) for leaf in leaves(nest[key])]
    return [leaf for item in nest for leaf in leaves(item)] if isinstance(nest, (list, tuple)) else [nest]


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours", "theirs"])
def test_models_go_over(build, ours_first, rng):
    source, target = (numbarnn, keras) if ours_first else (keras, numbarnn)
    model = build(source)
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 0.9, size=tuple(weight.shape)))
    x = values_for(build, rng)
    expected = leaves(model.predict(x, verbose=0))
    there = target.models.model_from_json(model.to_json())
    back = source.models.model_from_json(there.to_json())
    for other in (there, back):
        other.set_weights([np.asarray(w) for w in model.get_weights()])
        for found, want in zip(leaves(other.predict(x, verbose=0)), expected, strict=True):
            assert found.shape == want.shape and found.dtype == want.dtype
            assert_close(found.astype("f8"), want.astype("f8"), TOLERANCE["float32"])
    assert [layer.name for layer in there.layers if "not_" not in layer.name][-1] == model.layers[-1].name


def test_compile_goes_over():
    model = lstm(numbarnn)
    model.compile("sgd", "mse", metrics=["mae"])
    there = keras.models.model_from_json(model.to_json())
    assert isinstance(there.optimizer, keras.optimizers.SGD) and there.loss == "mse"


def test_keys_of_a_functional_entry_are_those_of_keras():
    ours, theirs = (encoder_decoder(library).get_config() for library in (numbarnn, keras))
    assert list(ours) == list(theirs)
    assert {key for entry in ours["layers"] for key in entry} == {key for entry in theirs["layers"] for key in entry}
