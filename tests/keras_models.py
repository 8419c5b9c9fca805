"""Models that numbarnn, Keras 3 and Keras 2 all have, for the tests of Keras's files.

    python tests/keras_models.py tests/data/keras2_files.zip     # where tf_keras is installed; numbarnn need not be

recorded that archive with tf_keras 2.21.0 on tensorflow-cpu 2.21.0. It has for each case in `RECORDED` a model trained
for two steps, whole (``.h5``, ``.keras``) and its weights alone (``_weights.h5``), and in ``answers.npz`` its
predictions and those after one more step.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

CASES = {}
B, T, F = 3, 4, 2


def case(*shapes):
    """Register a function that makes a model from a library's `layers` and `models`.

    Its inputs have the shapes; a shape of one axis is one of words, 0 to 9.
    """

    def register(function):
        CASES[function.__name__] = function, shapes
        return function

    return register


def make(name, lib):
    """Make a model of a library, an object with `layers` and `models`."""
    return CASES[name][0](lib.layers, lib.models)


def data(name, seed=0):
    """Return inputs for a model: an array, or a list of them."""
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 10, size=(B, *shape)).astype("int32")
        if len(shape) == 1
        else rng.normal(size=(B, *shape)).astype("float32")
        for shape in CASES[name][1]
    ]
    return arrays[0] if len(arrays) == 1 else arrays


def outputs(prediction):
    """Return predictions as a list."""
    return list(prediction) if isinstance(prediction, list | tuple) else [prediction]


def targets(prediction):
    """Return something to train for."""
    shapes = [np.shape(y) for y in outputs(prediction)]
    arrays = [np.linspace(-1, 1, int(np.prod(shape))).reshape(shape).astype("float32") for shape in shapes]
    return arrays[0] if len(arrays) == 1 else arrays


@case((T,))
def text(layers, models):
    return models.Sequential(
        [
            layers.Input((T,)),
            layers.Embedding(10, 3, mask_zero=True),
            layers.LSTM(4, return_sequences=True),
            layers.Dropout(0.1),
            layers.LSTM(3),
            layers.Dense(2, activation="softmax"),
        ]
    )


@case((T, F))
def every_layer(layers, models):
    x = layers.Input((T, F))
    masked = layers.Masking(0.5)(x)
    every = [
        layers.SimpleRNN(3, return_sequences=True, activation="relu"),
        layers.GRU(3, use_bias=False),
        layers.GRU(4, return_sequences=True, go_backwards=True, recurrent_activation="tanh"),
        layers.LSTM(3, return_sequences=True, unit_forget_bias=False, dropout=0.1),
        layers.GRU(3, return_sequences=True, reset_after=False),
        layers.LSTM(2, unroll=True),
        layers.GRU(2, reset_after=False, use_bias=False, recurrent_dropout=0.1),
    ]
    return models.Model(x, [layer(masked) for layer in every])


@case((T, F))
def cells(layers, models):
    x = layers.Input((T, F))
    every = [
        layers.RNN(layers.LSTMCell(3), return_sequences=True),
        layers.RNN(layers.GRUCell(2, reset_after=False)),
        layers.RNN([layers.LSTMCell(3), layers.LSTMCell(2), layers.GRUCell(3)], return_sequences=True),
        layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(3), layers.SimpleRNNCell(2)])),
    ]
    return models.Model(x, [layer(x) for layer in every])


@case((T, F))
def bidirectional(layers, models):
    x = layers.Input((T, F))
    y = [
        layers.Bidirectional(layers.LSTM(3), merge_mode="concat")(x),
        layers.Bidirectional(layers.GRU(3), merge_mode="sum")(x),
        layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True), merge_mode="mul")(x),
        layers.Bidirectional(layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)]), merge_mode="ave")(x),
        *layers.Bidirectional(layers.LSTM(2), merge_mode=None)(x),
        layers.Bidirectional(layers.LSTM(2), backward_layer=layers.GRU(3, go_backwards=True))(x),
    ]
    return models.Model(x, y)


@case((T, F))
def around_recurrence(layers, models):
    return models.Sequential(
        [
            layers.Input((T, F)),
            layers.TimeDistributed(layers.Dense(3, activation="tanh")),
            layers.BatchNormalization(),
            layers.LSTM(3, return_sequences=True),
            layers.LayerNormalization(),
            layers.SpatialDropout1D(0.1),
            layers.TimeDistributed(layers.BatchNormalization()),
            layers.GlobalAveragePooling1D(),
            layers.RepeatVector(2),
            layers.Reshape((3, 2)),
            layers.Permute((2, 1)),
            layers.Flatten(),
            layers.Activation("sigmoid"),
            layers.Dense(2, use_bias=False),
        ]
    )


@case((T,), (T, F))
def encoder_decoder(layers, models):
    source, target = layers.Input((T,), name="source"), layers.Input((T, F), name="target")
    x = layers.Embedding(10, 3, name="words")(source)
    x, h, c = layers.LSTM(3, return_state=True, name="encoder")(x)
    y = layers.LSTM(3, return_sequences=True, name="decoder")(target, initial_state=[h, c])
    y = layers.TimeDistributed(layers.Dense(2))(y)
    return models.Model([source, target], [y, layers.Dense(2, name="summary")(x)])


@case((T, F), (T, F))
def merging(layers, models):
    a, b = layers.Input((T, F)), layers.Input((T, F))
    read = layers.GRU(3, return_sequences=True)  # shared
    x, y = read(a), read(b)
    merged = [getattr(layers, name)()([x, y]) for name in ("Add", "Subtract", "Multiply", "Average", "Maximum")]
    z = layers.Concatenate(axis=-1)([*merged, layers.Minimum()([x, y])])
    z = layers.LSTM(3)(z)
    return models.Model([a, b], layers.Dot(axes=1)([z, layers.LSTM(3)(x)]))


@case((T, F))
def nested_sequential(layers, models):
    inner = models.Sequential([layers.Input((T, F)), layers.LSTM(3, return_sequences=True), layers.Dense(2)])
    return models.Sequential([layers.Input((T, F)), inner, layers.GRU(3), layers.Dense(1)])


@case((T, F))
def nested_functional(layers, models):
    a = layers.Input((T, F))
    inner = models.Model(a, layers.Dense(2)(layers.LSTM(3, return_sequences=True)(a)), name="inner")
    stack = models.Sequential([layers.Input((T, 2)), layers.GRU(3), layers.Dense(2)], name="stack")
    x = layers.Input((T, F))
    y = inner(inner(x))
    return models.Model(x, layers.Add()([stack(y), stack(x)]))


@case((T, F))
def stateful(layers, models):
    return models.Sequential(
        [
            layers.Input(batch_shape=(B, T, F)) if "tf_keras" not in layers.__name__ else layers.Input((T, F), B),
            layers.LSTM(3, stateful=True, return_sequences=True),
            layers.Bidirectional(layers.GRU(2, stateful=True)),
        ]
    )


@case((T, F))
def arguments(layers, models):
    """What is no number: initializers, regularizers, constraints, frozen layers."""
    frozen = layers.GRU(3, return_sequences=True, kernel_constraint="non_neg", recurrent_activation="hard_sigmoid")
    frozen.trainable = False
    return models.Sequential(
        [
            layers.Input((T, F)),
            layers.LSTM(3, return_sequences=True, kernel_regularizer="l2", recurrent_initializer="glorot_normal"),
            frozen,
            layers.SimpleRNN(2, kernel_initializer="he_uniform", bias_initializer="ones", bias_regularizer="l1"),
            layers.Dense(1, trainable=False),
        ]
    )


@case((T, F))
def without_input(layers, models):
    """Built by its first call."""
    model = models.Sequential([layers.LSTM(3, return_sequences=True), layers.Dense(1)])
    model.predict(data("without_input"), verbose=0)
    return model


@case((T, F), (T, F))
def attention(layers, models):
    a, b = layers.Input((T, F)), layers.Input((T, F))
    query, value = layers.LSTM(3, return_sequences=True)(a), layers.GRU(3, return_sequences=True)(b)
    return models.Model([a, b], layers.Attention(use_scale=True)([query, value]))


RECORDED = ["text", "every_layer", "cells", "bidirectional", "around_recurrence", "encoder_decoder", "merging"]
RECORDED += ["nested_sequential", "nested_functional", "stateful", "arguments", "without_input"]
RANDOM = ["text", "every_layer", "around_recurrence"]  # dropout: another step cannot be the same


def step(model, x):
    """Train on one batch; return what the model predicts then."""
    prediction = outputs(model.predict(x, batch_size=B, verbose=0))
    model.train_on_batch(x, targets(prediction))
    model.reset_states()
    return outputs(model.predict(x, batch_size=B, verbose=0))


def record(path):
    """Record files and answers of tf_keras."""
    import tf_keras

    answers = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as folder:
        for name in RECORDED:
            tf_keras.backend.clear_session()
            model, x = make(name, tf_keras), data(name)
            model.compile(tf_keras.optimizers.Adam(0.01), "mse")
            for _ in range(2):
                prediction = step(model, x)
            model.save(Path(folder, f"{name}.h5"))
            model.save_weights(Path(folder, f"{name}_weights.h5"))
            model.save(Path(folder, f"{name}.keras"))
            for kind, arrays in (("now", prediction), ("later", step(model, x))):
                answers.update({f"{name}/{kind}/{i}": array for i, array in enumerate(arrays)})
        model = make("cells", tf_keras)
        model.compile(tf_keras.optimizers.legacy.Adam(0.01), "mse")
        for _ in range(2):
            prediction = step(model, data("cells"))
        model.save(Path(folder, "legacy_optimizer.h5"))
        for kind, arrays in (("now", prediction), ("later", step(model, data("cells")))):
            answers.update({f"legacy_optimizer/{kind}/{i}": array for i, array in enumerate(arrays)})
        np.savez_compressed(Path(folder, "answers.npz"), **answers)
        for file in sorted(Path(folder).iterdir()):
            archive.write(file, file.name)


if __name__ == "__main__":
    record(sys.argv[1])
