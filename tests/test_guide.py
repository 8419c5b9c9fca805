"""Keras's guide "Working with RNNs" and its page on `RNN`: each example, spelled as there, after the imports below.

The sizes and the counts of parameters are those that the guide prints.
"""

import inspect

import numpy as np
import pytest

import numbarnn as keras
from numbarnn import layers
from numbarnn import tf_names as tf
from numbarnn.testing import assert_close


def rows(model):
    """Return what the summary says of each layer: name, shape of the output, parameters."""
    return [(layer.name, tuple(layer.output.shape), layer.count_params()) for layer in model.layers]


def numbers(text):
    return text.replace(",", "")


# -- built-in layers ---------------------------------------------------------------------------------------------------


def test_two_models_of_words(capsys):
    model = keras.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))
    model.add(layers.LSTM(128))
    model.add(layers.Dense(10))
    model.summary()
    assert rows(model) == [
        ("embedding", (None, None, 64), 64000),
        ("lstm", (None, 128), 98816),
        ("dense", (None, 10), 1290),
    ]
    printed = capsys.readouterr().out
    assert 'Model: "sequential"' in printed and "Total params: 164106\n" in numbers(printed)

    model = keras.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))
    model.add(layers.GRU(256, return_sequences=True))
    model.add(layers.SimpleRNN(128))
    model.add(layers.Dense(10))
    model.summary()
    assert rows(model) == [
        ("embedding_1", (None, None, 64), 64000),
        ("gru", (None, None, 256), 247296),
        ("simple_rnn", (None, 128), 49280),
        ("dense_1", (None, 10), 1290),
    ]
    printed = capsys.readouterr().out
    assert 'Model: "sequential_1"' in printed and "Total params: 361866\n" in numbers(printed)
    assert model(np.array([[1, 2, 999]])).shape == (1, 10)


def test_an_encoder_hands_its_states_to_a_decoder(capsys, rng):
    encoder_vocab, decoder_vocab = 1000, 2000

    encoder_input = layers.Input(shape=(None,))
    encoder_embedded = layers.Embedding(input_dim=encoder_vocab, output_dim=64)(encoder_input)
    output, state_h, state_c = layers.LSTM(64, return_state=True, name="encoder")(encoder_embedded)
    encoder_state = [state_h, state_c]

    decoder_input = layers.Input(shape=(None,))
    decoder_embedded = layers.Embedding(input_dim=decoder_vocab, output_dim=64)(decoder_input)
    decoder_output = layers.LSTM(64, name="decoder")(decoder_embedded, initial_state=encoder_state)
    output = layers.Dense(10)(decoder_output)

    model = keras.Model([encoder_input, decoder_input], output)
    model.summary()
    assert {name: (shape, count) for name, shape, count in rows_of_functional(model)} == {
        "input_1": ((None, None), 0),
        "input_2": ((None, None), 0),
        "embedding": ((None, None, 64), 64000),
        "embedding_1": ((None, None, 64), 128000),
        "encoder": ((None, 64), 33024),
        "decoder": ((None, 64), 33024),
        "dense": ((None, 10), 650),
    }
    printed = capsys.readouterr().out
    assert model.name == "model" and "Total params: 258698\n" in numbers(printed)
    for connection in ("encoder[0][1]", "encoder[0][2]", "embedding_1[0][0]", "decoder[0][0]"):
        assert connection in printed

    words, others = rng.integers(0, encoder_vocab, (2, 3)), rng.integers(0, decoder_vocab, (2, 5))
    encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
    _, h, c = encoder(model.get_layer("embedding")(words))
    by_hand = model.get_layer("dense")(decoder(model.get_layer("embedding_1")(others), initial_state=[h, c]))
    assert_close(model([words, others]), by_hand, 1e-5)
    assert np.abs(model([words[:, ::-1], others]) - by_hand).max() > 1e-5  # the first text counts


def rows_of_functional(model):
    for layer in model.layers:
        output = layer.output
        first = output[0] if isinstance(output, (list, tuple)) else output
        yield layer.name, tuple(first.shape), layer.count_params()


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_a_layer_is_its_cell_run_over_time(name, rng):
    x = rng.normal(size=(3, 6, 5)).astype("float32")
    layer = getattr(layers, name)(10)
    wrapped = layers.RNN(getattr(layers, name + "Cell")(10))
    expected = layer(x)
    wrapped(x)
    assert [w.shape for w in wrapped.get_weights()] == [w.shape for w in layer.get_weights()]
    wrapped.set_weights(layer.get_weights())
    np.testing.assert_array_equal(wrapped(x), expected)


def test_states_across_batches(rng):
    paragraph1 = rng.random((20, 10, 50)).astype(np.float32)
    paragraph2 = rng.random((20, 10, 50)).astype(np.float32)
    paragraph3 = rng.random((20, 10, 50)).astype(np.float32)

    lstm_layer = layers.LSTM(64, stateful=True)
    first = lstm_layer(paragraph1)
    lstm_layer(paragraph2)
    output = lstm_layer(paragraph3)

    whole = layers.LSTM(64)
    whole(paragraph1)
    whole.set_weights(lstm_layer.get_weights())
    assert_close(output, whole(np.concatenate([paragraph1, paragraph2, paragraph3], axis=1)), 1e-5)

    lstm_layer.reset_states()
    np.testing.assert_array_equal(lstm_layer(paragraph1), first)


def test_states_are_used_again(rng):
    paragraph1, paragraph2, paragraph3 = rng.random((3, 20, 10, 50)).astype(np.float32)
    lstm_layer = layers.LSTM(64, stateful=True)
    lstm_layer(paragraph1)
    output = lstm_layer(paragraph2)
    existing_state = lstm_layer.states
    assert [np.shape(state) for state in existing_state] == [(20, 64), (20, 64)]
    np.testing.assert_array_equal(existing_state[0], output)

    new_lstm_layer = layers.LSTM(64)
    new_output = new_lstm_layer(paragraph3, initial_state=existing_state)
    assert new_output.shape == (20, 64)
    new_lstm_layer.set_weights(lstm_layer.get_weights())
    assert_close(new_lstm_layer(paragraph3, initial_state=existing_state), lstm_layer(paragraph3), 1e-5)


def test_both_directions(capsys):
    model = keras.Sequential()
    model.add(layers.Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)))
    model.add(layers.Bidirectional(layers.LSTM(32)))
    model.add(layers.Dense(10))
    model.summary()
    assert rows(model) == [
        ("bidirectional", (None, 5, 128), 38400),
        ("bidirectional_1", (None, 64), 41216),
        ("dense", (None, 10), 650),
    ]
    assert "Total params: 80266\n" in numbers(capsys.readouterr().out)
    assert model(np.ones((2, 5, 10))).shape == (2, 10)


# -- pictures, row by row ----------------------------------------------------------------------------------------------


def build_model(units, input_dim, output_size, allow_cudnn_kernel=True):
    if allow_cudnn_kernel:
        lstm_layer = keras.layers.LSTM(units, input_shape=(None, input_dim))
    else:
        lstm_layer = keras.layers.RNN(keras.layers.LSTMCell(units), input_shape=(None, input_dim))
    return keras.models.Sequential([lstm_layer, keras.layers.BatchNormalization(), keras.layers.Dense(output_size)])


def test_pictures_row_by_row():
    (x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data()
    sample, sample_label = x_train[0], y_train[0]

    model = build_model(64, 8, 10, allow_cudnn_kernel=True)
    assert [count for _, _, count in rows(model)] == [4 * 64 * (8 + 64 + 1), 4 * 64, 65 * 10]
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=["accuracy"]
    )
    history = model.fit(x_train, y_train, validation_data=(x_test, y_test), batch_size=8, epochs=3, verbose=0)
    assert list(history.history) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    assert history.history["loss"][-1] < 1 < 1.5 < history.history["loss"][0]
    assert history.history["val_accuracy"][-1] > 0.6

    noncudnn_model = build_model(64, 8, 10, allow_cudnn_kernel=False)
    noncudnn_model.set_weights(model.get_weights())
    noncudnn_model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), optimizer="sgd", metrics=["accuracy"]
    )
    np.testing.assert_array_equal(noncudnn_model.predict(x_test, verbose=0), model.predict(x_test, verbose=0))
    further = [m.fit(x_train, y_train, epochs=1, shuffle=False, verbose=0) for m in (model, noncudnn_model)]
    assert further[0].history["loss"] == further[1].history["loss"]

    with tf.device("CPU:0"):
        cpu_model = build_model(64, 8, 10, allow_cudnn_kernel=True)
        cpu_model.set_weights(model.get_weights())
        result = tf.argmax(cpu_model.predict_on_batch(tf.expand_dims(sample, 0)), axis=1)
    assert result.shape == (1,) and result[0] == sample_label


# -- own cells ---------------------------------------------------------------------------------------------------------


class MinimalRNNCell(keras.layers.Layer):
    """The cell of the page on `RNN`: attributes before `super().__init__`, `built` set by hand."""

    def __init__(self, units, **kwargs):
        self.units = units
        self.state_size = units
        super().__init__(**kwargs)

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


def minimal_by_hand(x, kernel, recurrent_kernel):
    h = np.zeros((len(x), recurrent_kernel.shape[0]))
    found = []
    for t in range(x.shape[1]):
        h = x[:, t] @ kernel + h @ recurrent_kernel
        found.append(h)
    return np.stack(found, axis=1)


def test_a_cell_of_one_s_own(rng):
    x = rng.normal(size=(2, 7, 5))
    cell = MinimalRNNCell(32)
    symbolic = keras.Input((None, 5))
    layer = keras.layers.RNN(cell, dtype="float32")
    y = layer(symbolic)
    assert tuple(y.shape) == (None, 32) and layer.count_params() == 5 * 32 + 32 * 32
    model = keras.Model(symbolic, y)
    weights = [w.astype("float64") for w in layer.get_weights()]
    assert_close(model.predict(x, verbose=0), minimal_by_hand(x, *weights)[:, -1].astype("float32"), 1e-5)


def test_cells_one_on_the_other(rng):
    x = rng.normal(size=(2, 7, 5))
    cells = [MinimalRNNCell(32), MinimalRNNCell(64)]
    symbolic = keras.Input((None, 5))
    layer = keras.layers.RNN(cells)
    y = layer(symbolic)
    assert tuple(y.shape) == (None, 64) and layer.count_params() == 37 * 32 + 96 * 64
    weights = [w.astype("float64") for w in layer.get_weights()]
    below = minimal_by_hand(x, *weights[:2])
    model = keras.Model(symbolic, y)
    assert_close(model(x), minimal_by_hand(below, *weights[2:])[:, -1].astype("float32"), 1e-5)

    model.compile("adam", "mse")
    losses = model.fit(x, np.ones((2, 64)), epochs=3, verbose=0).history["loss"]
    assert losses[2] < losses[1] < losses[0]


class NestedCell(keras.layers.Layer):
    """The guide's cell of two inputs of different rank, its faulty `get_config` included: nobody may call that."""

    def __init__(self, unit_1, unit_2, unit_3, **kwargs):
        self.unit_1 = unit_1
        self.unit_2 = unit_2
        self.unit_3 = unit_3
        self.state_size = [tf.TensorShape([unit_1]), tf.TensorShape([unit_2, unit_3])]
        self.output_size = [tf.TensorShape([unit_1]), tf.TensorShape([unit_2, unit_3])]
        super().__init__(**kwargs)

    def build(self, input_shapes):
        i1 = input_shapes[0][1]
        i2 = input_shapes[1][1]
        i3 = input_shapes[1][2]
        self.kernel_1 = self.add_weight(shape=(i1, self.unit_1), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(
            shape=(i2, i3, self.unit_2, self.unit_3), initializer="uniform", name="kernel_2_3"
        )

    def call(self, inputs, states):
        input_1, input_2 = tf.nest.flatten(inputs)
        s1, s2 = states
        output_1 = tf.matmul(input_1, self.kernel_1)
        output_2_3 = tf.einsum("bij,ijkl->bkl", input_2, self.kernel_2_3)
        state_1 = s1 + output_1
        state_2_3 = s2 + output_2_3
        return (output_1, output_2_3), (state_1, state_2_3)

    def get_config(self):
        return {"unit_1": self.unit_1, "unit_2": unit_2, "unit_3": self.unit_3}  # noqa: F821 - as the guide has it


def test_nested_inputs_outputs_and_states(capsys, rng):
    keras.layers.RNN(keras.layers.LSTMCell(64))  # the guide has one before: hence the names below
    i1, i2, i3, batch_size, num_batches, timestep = 32, 64, 32, 8, 2, 5

    cell = NestedCell(10, 20, 30)
    rnn = keras.layers.RNN(cell)
    input_1 = keras.Input((None, i1))
    input_2 = keras.Input((None, i2, i3))
    outputs = rnn((input_1, input_2))
    model = keras.models.Model([input_1, input_2], outputs)
    model.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
    assert [tuple(output.shape) for output in outputs] == [(None, 10), (None, 20, 30)]
    assert model.count_params() == 32 * 10 + 64 * 32 * 20 * 30 == 1229120
    model.summary()
    assert "Total params: 1229120\n" in numbers(capsys.readouterr().out)

    samples = batch_size * num_batches
    input_data = [rng.random((samples, timestep, i1)), rng.random((samples, timestep, i2, i3))]
    target_data = [rng.random((samples, 10)), rng.random((samples, 20, 30))]
    history = model.fit(input_data, target_data, batch_size=batch_size, epochs=3, verbose=0).history
    names = ["loss", "rnn_1_loss", "rnn_1_1_loss", "rnn_1_accuracy", "rnn_1_1_accuracy"]
    assert list(history) == names and all(len(values) == 3 for values in history.values())
    assert history["loss"][-1] < history["loss"][0]
    np.testing.assert_allclose(history["loss"], np.add(history["rnn_1_loss"], history["rnn_1_1_loss"]), rtol=1e-6)

    first, second = model.predict(input_data, verbose=0)
    last = [x[:, -1] for x in input_data]  # this cell's output forgets all but the last timestep
    assert_close(first, last[0] @ cell.kernel_1.numpy(), 1e-5)
    assert_close(second, np.einsum("bij,ijkl->bkl", last[1], cell.kernel_2_3.numpy()), 1e-5)


class DictCell(NestedCell):
    """The same with its inputs and outputs in dicts."""

    def build(self, input_shapes):
        super().build([input_shapes["vector"], input_shapes["matrix"]])

    def call(self, inputs, states):
        (vector, matrix), new_states = super().call([inputs["vector"], inputs["matrix"]], states)
        return {"vector": vector, "matrix": matrix}, new_states


def test_inputs_and_outputs_in_dicts(rng):
    cell = DictCell(3, 4, 5)
    cell.output_size = {"vector": tf.TensorShape([3]), "matrix": tf.TensorShape([4, 5])}
    inputs = {"vector": keras.Input((None, 2)), "matrix": keras.Input((None, 6, 7))}
    model = keras.Model(inputs, keras.layers.RNN(cell)(inputs))
    model.compile("adam", {"vector": "mse", "matrix": "mae"})
    x = {"vector": rng.random((16, 5, 2)), "matrix": rng.random((16, 5, 6, 7))}
    y = {"vector": rng.random((16, 3)), "matrix": rng.random((16, 4, 5))}
    history = model.fit(x, y, batch_size=8, epochs=3, verbose=0).history
    assert set(history) == {"loss", "vector_loss", "matrix_loss"} and history["loss"][-1] < history["loss"][0]
    found = model.predict(x, verbose=0)
    assert_close(found["vector"], x["vector"][:, -1] @ cell.kernel_1.numpy(), 1e-5)
    assert_close(found["matrix"], np.einsum("bij,ijkl->bkl", x["matrix"][:, -1], cell.kernel_2_3.numpy()), 1e-5)
    by_hand = [np.mean((found["vector"] - y["vector"]) ** 2), np.mean(np.abs(found["matrix"] - y["matrix"]))]
    assert_close(model.evaluate(x, y, verbose=0), [sum(by_hand), *by_hand[::-1]], 1e-5)


# -- what the page on `RNN` says of its arguments ----------------------------------------------------------------------


def test_only_a_stateful_layer_is_reset(rng):
    layer = keras.layers.RNN(MinimalRNNCell(4))
    layer(rng.normal(size=(2, 3, 5)))
    with pytest.raises(AttributeError, match="must be stateful"):
        layer.reset_states()


def test_a_stateful_layer_wants_its_batch_size():
    with pytest.raises(ValueError, match="batch size"):
        keras.layers.RNN(MinimalRNNCell(4), stateful=True)(keras.Input((None, 5)))


def test_states_may_be_set(rng):
    x, state = rng.normal(size=(2, 3, 5)).astype("float32"), rng.normal(size=(2, 4)).astype("float32")
    layer = keras.layers.RNN(MinimalRNNCell(4), stateful=True)
    layer(x)
    layer.reset_states(states=[state])
    found = layer(x)
    layer.reset_states()
    np.testing.assert_array_equal(found, layer(x, initial_state=[state]))
    with pytest.raises(ValueError, match="shape"):
        layer.reset_states(states=[state[:1]])


def test_masked_steps_repeat_or_are_zero(rng):
    x, mask = rng.normal(size=(2, 4, 5)).astype("float32"), np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    layer = keras.layers.RNN(MinimalRNNCell(4), return_sequences=True)
    repeated = layer(x, mask=mask)
    np.testing.assert_array_equal(repeated[0, 2], repeated[0, 1])
    zeros = keras.layers.RNN(layer.cell, return_sequences=True, zero_output_for_mask=True)(x, mask=mask)
    np.testing.assert_array_equal(zeros, np.where(mask[..., None], repeated, 0))


class CellWithConstants(MinimalRNNCell):
    def build(self, input_shape):
        super().build(input_shape)
        self.constant_kernel = self.add_weight(shape=(3, self.units), name="constant_kernel")

    def call(self, inputs, states, constants):
        output, _ = super().call(inputs, states)
        output = output + keras.backend.dot(constants[0], self.constant_kernel)
        return output, [output]


def test_constants_reach_every_timestep(rng):
    x, c = keras.Input((None, 5)), keras.Input((3,))
    layer = keras.layers.RNN(CellWithConstants(4))
    y = layer(x, constants=c)
    model = keras.Model([x, c], y)
    data, constant = rng.normal(size=(2, 4, 5)), rng.normal(size=(2, 3))
    kernel, recurrent_kernel, constant_kernel = (w.astype("float64") for w in layer.get_weights())
    h = np.zeros((2, 4))
    for t in range(4):
        h = data[:, t] @ kernel + h @ recurrent_kernel + constant @ constant_kernel
    assert_close(model([data, constant]), h, 1e-5)


def test_time_may_come_first(rng):
    x = rng.normal(size=(2, 4, 5)).astype("float32")
    layer = keras.layers.RNN(MinimalRNNCell(4), return_sequences=True, time_major=False)
    first = keras.layers.RNN(layer.cell, return_sequences=True, time_major=True)
    np.testing.assert_array_equal(first(x.swapaxes(0, 1)), layer(x).swapaxes(0, 1))


def test_arguments_of_an_embedding():
    names = inspect.signature(keras.layers.Embedding).parameters
    expected = "input_dim output_dim embeddings_initializer embeddings_regularizer embeddings_constraint mask_zero "
    assert set((expected + "input_length sparse").split()) <= set(names)
    layer = keras.layers.Embedding(10, 3, input_length=4, mask_zero=True, activity_regularizer="l2")
    assert layer(np.array([[1, 0, 2, 0]])).shape == (1, 4, 3) and layer.input_length == 4


def test_types_of_numbers(rng):
    keras.backend.set_floatx("float32")
    x = rng.normal(size=(2, 3, 4))
    assert x.dtype == np.float64 and keras.layers.LSTM(5)(x).dtype == np.float32
    double = keras.layers.LSTM(5, dtype="float64")
    assert double(x.astype("float32")).dtype == np.float64 and double.get_weights()[0].dtype == np.float64
