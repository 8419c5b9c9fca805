"""A script about Keras's recurrent layers, run after changing its import lines alone; and the names it finds there."""

import numpy as np
import pytest

import numbarnn as keras
from numbarnn import layers
from numbarnn import tf_names as tf
from numbarnn.graph import Spec, trace

# -- the guide, example by example -------------------------------------------------------------------------------------


def shapes_and_counts(model):
    return {layer.name: (tuple(layer.output.shape), layer.count_params()) for layer in model.layers}


def test_an_lstm_on_embedded_words():
    model = keras.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))
    model.add(layers.LSTM(128))
    model.add(layers.Dense(10))
    assert shapes_and_counts(model) == {
        "embedding": ((None, None, 64), 64000),
        "lstm": ((None, 128), 98816),
        "dense": ((None, 10), 1290),
    }


def test_two_recurrent_layers():
    model = keras.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))
    model.add(layers.GRU(256, return_sequences=True))
    model.add(layers.SimpleRNN(128))
    model.add(layers.Dense(10))
    assert shapes_and_counts(model) == {
        "embedding": ((None, None, 64), 64000),
        "gru": ((None, None, 256), 247296),
        "simple_rnn": ((None, 128), 49280),
        "dense": ((None, 10), 1290),
    }


def test_an_encoder_and_a_decoder(capsys):
    encoder_input = layers.Input(shape=(None,))
    encoder_embedded = layers.Embedding(input_dim=1000, output_dim=64)(encoder_input)
    output, state_h, state_c = layers.LSTM(64, return_state=True, name="encoder")(encoder_embedded)
    encoder_state = [state_h, state_c]
    decoder_input = layers.Input(shape=(None,))
    decoder_embedded = layers.Embedding(input_dim=2000, output_dim=64)(decoder_input)
    decoder_output = layers.LSTM(64, name="decoder")(decoder_embedded, initial_state=encoder_state)
    output = layers.Dense(10)(decoder_output)
    model = keras.Model([encoder_input, decoder_input], output)
    model.summary()
    assert model.count_params() == 258698 and "258698" in capsys.readouterr().out.replace(",", "")
    assert model([np.ones((2, 3)), np.ones((2, 5))]).shape == (2, 10)


def test_states_across_batches():
    paragraph1 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph2 = np.random.random((20, 10, 50)).astype(np.float32)
    paragraph3 = np.random.random((20, 10, 50)).astype(np.float32)
    lstm_layer = layers.LSTM(64, stateful=True)
    first = lstm_layer(paragraph1)
    lstm_layer(paragraph2)
    lstm_layer(paragraph3)
    existing_state = lstm_layer.states
    new_lstm_layer = layers.LSTM(64)
    assert new_lstm_layer(paragraph3, initial_state=existing_state).shape == (20, 64)
    lstm_layer.reset_states()
    np.testing.assert_array_equal(lstm_layer(paragraph1), first)


def test_both_directions():
    model = keras.Sequential()
    model.add(layers.Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)))
    model.add(layers.Bidirectional(layers.LSTM(32)))
    model.add(layers.Dense(10))
    assert [v for v in shapes_and_counts(model).values()] == [
        ((None, 5, 128), 38400),
        ((None, 64), 41216),
        ((None, 10), 650),
    ]


def test_pictures_row_by_row(rng):
    batch_size, units, output_size, input_dim = 64, 64, 10, 28

    def build_model(allow_cudnn_kernel=True):
        if allow_cudnn_kernel:
            lstm_layer = keras.layers.LSTM(units, input_shape=(None, input_dim))
        else:
            lstm_layer = keras.layers.RNN(keras.layers.LSTMCell(units), input_shape=(None, input_dim))
        return keras.models.Sequential([lstm_layer, keras.layers.BatchNormalization(), keras.layers.Dense(output_size)])

    x_train, y_train = rng.uniform(0, 255, (256, 28, 28)), rng.integers(0, 10, 256)
    x_train = x_train / 255.0
    sample, sample_label = x_train[0], y_train[0]
    model = build_model(allow_cudnn_kernel=True)
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=["accuracy"]
    )
    history = model.fit(
        x_train, y_train, validation_data=(x_train[:64], y_train[:64]), batch_size=batch_size, epochs=1, verbose=0
    )
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    noncudnn_model = build_model(allow_cudnn_kernel=False)
    noncudnn_model.set_weights(model.get_weights())
    noncudnn_model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=["accuracy"]
    )
    with tf.device("CPU:0"):
        cpu_model = build_model(allow_cudnn_kernel=True)
        cpu_model.set_weights(model.get_weights())
        result = tf.argmax(cpu_model.predict_on_batch(tf.expand_dims(sample, 0)), axis=1)
    assert result.shape == (1,) and result.dtype == np.int64 and 0 <= sample_label < 10
    other = tf.argmax(noncudnn_model.predict_on_batch(tf.expand_dims(sample, 0)), axis=1)
    assert result[0] == other[0]


def test_a_cell_of_ones_own_and_a_stack_of_them(rng):
    class MinimalRNNCell(keras.layers.Layer):
        def __init__(self, units, **kwargs):
            self.units = units
            self.state_size = units
            super(MinimalRNNCell, self).__init__(**kwargs)  # noqa: UP008 - as the guide has it

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], self.units), initializer="uniform", name="kernel")
            self.recurrent_kernel = self.add_weight(
                shape=(self.units, self.units), initializer="uniform", name="recurrent_kernel"
            )
            self.built = True

        def call(self, inputs, states):
            prev_output = states[0]
            h = keras.backend.dot(inputs, self.kernel)
            output = h + keras.backend.dot(prev_output, self.recurrent_kernel)
            return output, [output]

    cell = MinimalRNNCell(32)
    x = keras.Input((None, 5))
    y = layers.RNN(cell)(x)
    assert y.shape == (None, 32) and cell.count_params() == 5 * 32 + 32 * 32
    y = layers.RNN([MinimalRNNCell(32), MinimalRNNCell(64)])(x)
    assert y.shape == (None, 64)
    model = keras.Model(x, layers.Dense(1)(y))
    model.compile("adam", "mse")
    data = rng.normal(size=(8, 6, 5))
    losses = model.fit(data, data.sum((1, 2)), epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


# -- the names ---------------------------------------------------------------------------------------------------------

A, B = np.random.default_rng(0).normal(size=(2, 3, 4)), np.random.default_rng(1).normal(size=(2, 3, 4))
CASES = {
    "matmul": (lambda a, b: tf.matmul(a, b, transpose_b=True), np.matmul(A, B.swapaxes(1, 2))),
    "matmul_a": (lambda a, b: tf.matmul(a, b, transpose_a=True, name="m"), np.matmul(A.swapaxes(1, 2), B)),
    "einsum": (lambda a, b: tf.einsum("bij,bkj->bik", a, b, name="e"), np.einsum("bij,bkj->bik", A, B)),
    "argmax": (lambda a, b: tf.argmax(a), A.argmax(0)),
    "argmax_axis": (lambda a, b: tf.argmax(a, axis=-1, output_type="int32"), A.argmax(-1).astype("int32")),
    "expand_dims": (lambda a, b: tf.expand_dims(a, axis=1), A[:, None]),
    "nest": (lambda a, b: tf.nest.flatten({"y": [b], "x": a})[0] * 2, A * 2),
    "map": (lambda a, b: tf.nest.map_structure(lambda x, y: x - y, [a], [b])[0], A - B),
    "dot": (lambda a, b: keras.backend.dot(a, b[0].T), A @ B[0].T),
}


@pytest.mark.parametrize("name", CASES)
def test_operations_on_arrays_and_traced(name):
    function, expected = CASES[name]
    program = trace(function, (Spec(A.shape, "float64"), Spec(B.shape, "float64")))
    for found in (function(A, B), program(A, B)):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_nests():
    flat = tf.nest.flatten(((1, [2]), {"b": 4, "a": tf.TensorShape([3])}))
    assert flat == [1, 2, tf.TensorShape([3]), 4] and type(flat[2]) is tf.TensorShape
    assert tf.nest.pack_sequence_as(((1, [2]), {"b": 4, "a": 3}), range(4)) == ((0, [1]), {"a": 2, "b": 3})
    assert tf.nest.is_nested([1]) and not tf.nest.is_nested(1)


def test_paths_of_names():
    assert tf.keras is keras and tf.TensorShape is keras.TensorShape and tf.device is keras.device
    for path in (
        "Input",
        "Model",
        "Sequential",
        "models.Model",
        "models.Sequential",
        "layers.Layer",
        "layers.Input",
        "layers.RNN",
        "losses.SparseCategoricalCrossentropy",
        "backend.dot",
        "backend.set_floatx",
        "datasets",
        "optimizers.Adam",
        "metrics.Mean",
        "callbacks.Callback",
        "initializers.GlorotUniform",
        "regularizers.L2",
        "utils.to_categorical",
    ):
        found = tf.keras
        for name in path.split("."):
            found = getattr(found, name)
    assert all(getattr(tf, name).__doc__ for name in tf.__all__)


def test_what_is_not_there_says_what_is():
    with pytest.raises(AttributeError, match=r"no 'concatenate': use numbarnn.ops.concatenate"):
        _ = tf.concatenate
    with pytest.raises(AttributeError, match=r"has TensorShape, argmax.*no 'function': see numbarnn.ops"):
        _ = tf.function
    with pytest.raises(TypeError, match="unexpected keyword"):
        tf.einsum("i->", np.ones(3), axis=1)
