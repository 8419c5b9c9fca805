# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Working with RNNs
#
# A recurrent network reads a sequence one timestep after the other and keeps a state of what it has read. This notebook
# goes the way of Keras's guide of the same name, example by example, on numbarnn. The calls are the guide's; only the
# import lines are ours. Arrays go in and NumPy arrays come out, so where the guide says `.numpy()`, we say nothing.

# %%
import matplotlib.pyplot as plt
import numpy as np

import numbarnn as keras
from numbarnn import layers
from numbarnn import tf_names as tf

keras.utils.set_random_seed(0)
# %matplotlib inline
plt.rcParams["figure.dpi"] = 70

# %% [markdown]
# ## Built-in layers
#
# There are three: `SimpleRNN`, `GRU` and `LSTM`. Each takes (batch, timesteps, features) and by default returns its
# output at the last timestep only, (batch, units). Here an `Embedding` turns integers into vectors of 64 numbers, and
# an LSTM reads them. No input size is declared: an embedding takes sequences of any length.

# %%
model = keras.Sequential()
model.add(layers.Embedding(input_dim=1000, output_dim=64))
model.add(layers.LSTM(128))
model.add(layers.Dense(10))
model.summary()

# %% [markdown]
# `return_sequences=True` gives the output at every timestep, (batch, timesteps, units). A recurrent layer below
# another one needs it.

# %%
model = keras.Sequential()
model.add(layers.Embedding(input_dim=1000, output_dim=64))
model.add(layers.GRU(256, return_sequences=True))
model.add(layers.SimpleRNN(128))
model.add(layers.Dense(10))
model.summary()

# %% [markdown]
# ## States in, states out
#
# `return_state=True` returns the last states after the output: one array for a GRU or a SimpleRNN, two for an LSTM
# (the output `h` and the memory `c`). `initial_state=` starts a layer from given states; the number of units must
# be the same. With both, an encoder hands what it has read to a decoder.

# %%
encoder_vocab = 1000
decoder_vocab = 2000

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

# %% [markdown]
# The same as a picture. The numbers at the arrows are the outputs of the encoder: 1 is `h`, 2 is `c`.

# %%
keras.utils.plot_model(model, to_file=None, show_shapes=True, dpi=70)

# %% [markdown]
# ## Layers and cells
#
# A cell computes one timestep; `RNN(cell)` runs it over a sequence. `RNN(LSTMCell(10))` and `LSTM(10)` have the same
# weights in the same order, take the same kernels and give the same bits.

# %%
x = np.random.default_rng(0).normal(size=(4, 20, 8)).astype("float32")
layer, wrapped = layers.LSTM(10), layers.RNN(layers.LSTMCell(10))
layer(x)
wrapped(x)
wrapped.set_weights(layer.get_weights())
print(np.array_equal(layer(x), wrapped(x)), layer.kernel_path, wrapped.kernel_path)

# %% [markdown]
# ## Long sequences in pieces
#
# A sequence too long for one call can be read in pieces. A layer with `stateful=True` starts each call where the last
# one ended, row by row, until `reset_states()`.

# %%
paragraph1 = np.random.random((20, 10, 50)).astype(np.float32)
paragraph2 = np.random.random((20, 10, 50)).astype(np.float32)
paragraph3 = np.random.random((20, 10, 50)).astype(np.float32)

lstm_layer = layers.LSTM(64, stateful=True)
output = lstm_layer(paragraph1)
output = lstm_layer(paragraph2)
output = lstm_layer(paragraph3)

# The three pieces read at once give the same bits.
whole = layers.LSTM(64)
whole.build((20, None, 50))
whole.set_weights(lstm_layer.get_weights())
print(np.array_equal(output, whole(np.concatenate([paragraph1, paragraph2, paragraph3], axis=1))))

lstm_layer.reset_states()

# %% [markdown]
# `layer.states` are the states that the next call starts from, as arrays. Another layer can start from them:

# %%
lstm_layer = layers.LSTM(64, stateful=True)
output = lstm_layer(paragraph1)
output = lstm_layer(paragraph2)
existing_state = lstm_layer.states

new_lstm_layer = layers.LSTM(64)
new_output = new_lstm_layer(paragraph3, initial_state=existing_state)
print([state.shape for state in existing_state], new_output.shape)

# %% [markdown]
# ## Both directions
#
# What a word means can depend on the words after it. `Bidirectional` copies a recurrent layer, lets the copy read
# backwards and, by default, concatenates the two outputs. `merge_mode` knows other ways.

# %%
model = keras.Sequential()
model.add(layers.Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)))
model.add(layers.Bidirectional(layers.LSTM(32)))
model.add(layers.Dense(10))
model.summary()

# %% [markdown]
# ## Pictures, row by row
#
# The guide reads MNIST's digits as sequences of 28 rows. To stay offline we take the 1,797 smaller digits that
# scikit-learn brings along: eight rows of eight grey levels. The guide compares a layer on cuDNN with a cell that is
# run step by step, much slower. Here both take the same kernel, so that the one's weights give the other's bits.

# %%
batch_size = 16
input_dim = 8
units = 64
output_size = 10  # labels are from 0 to 9


def build_model(allow_cudnn_kernel=True):
    if allow_cudnn_kernel:
        lstm_layer = keras.layers.LSTM(units, input_shape=(None, input_dim))
    else:
        lstm_layer = keras.layers.RNN(keras.layers.LSTMCell(units), input_shape=(None, input_dim))
    return keras.models.Sequential(
        [
            lstm_layer,
            keras.layers.BatchNormalization(),
            keras.layers.Dense(output_size),
        ]
    )


(x_train, y_train), (x_test, y_test) = keras.datasets.digits.load_data()
sample, sample_label = x_test[0], y_test[0]

model = build_model(allow_cudnn_kernel=True)
model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer="sgd",
    metrics=["accuracy"],
)
history = model.fit(
    x_train, y_train, validation_data=(x_test, y_test), batch_size=batch_size, epochs=15, verbose=0
).history

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
for axes, name in ((left, "loss"), (right, "accuracy")):
    axes.plot(history[name], label="training")
    axes.plot(history["val_" + name], label="never seen")
    axes.set(xlabel="epoch", title=name)
left.legend()
plt.show()

# %% [markdown]
# The other model, with the first one's weights, goes on from there:

# %%
noncudnn_model = build_model(allow_cudnn_kernel=False)
noncudnn_model.set_weights(model.get_weights())
noncudnn_model.compile(
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    optimizer="sgd",
    metrics=["accuracy"],
)
print(np.array_equal(model.predict(x_test, verbose=0), noncudnn_model.predict(x_test, verbose=0)))
history = noncudnn_model.fit(
    x_train, y_train, validation_data=(x_test, y_test), batch_size=batch_size, epochs=1, verbose=2
)

# %% [markdown]
# A model trained in one place predicts in another. `tf.device` is there for the script's sake.

# %%
with tf.device("CPU:0"):
    cpu_model = build_model(allow_cudnn_kernel=True)
    cpu_model.set_weights(model.get_weights())
    result = tf.argmax(cpu_model.predict_on_batch(tf.expand_dims(sample, 0)), axis=1)
print(f"Predicted result is: {result}, target result is: {sample_label}")

# %%
read = model.predict(x_test, verbose=0).argmax(axis=1)
wrong = np.flatnonzero(read != y_test)
shown = np.concatenate([np.flatnonzero(read == y_test)[:4], wrong[:4]])
_, all_axes = plt.subplots(1, len(shown), figsize=(9, 1.7))
for axes, i in zip(all_axes, shown, strict=True):
    axes.imshow(x_test[i], cmap="gray_r")
    axes.set_title(f"{y_test[i]} read as {read[i]}", fontsize=8, color="black" if read[i] == y_test[i] else "tab:red")
    axes.axis("off")
plt.show()

# %% [markdown]
# ## A cell of one's own
#
# The page on `RNN` has the smallest one: a cell is anything with `call(inputs, states)` and a `state_size`. No
# backward is written. `your_own_cell.ipynb` takes it from here.


# %%
class MinimalRNNCell(keras.layers.Layer):
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


x = keras.Input((None, 5))
print(layers.RNN(MinimalRNNCell(32))(x).shape)
print(layers.RNN([MinimalRNNCell(32), MinimalRNNCell(64)])(x).shape)  # one on top of the other

# %% [markdown]
# ## Nested inputs, outputs and states
#
# What a timestep holds need not be one vector. The guide's `NestedCell` takes two inputs of different rank, keeps two
# states and returns two outputs: tuples here, lists or dicts do as well. `TensorShape` says that a size has several
# axes.


# %%
class NestedCell(keras.layers.Layer):
    def __init__(self, unit_1, unit_2, unit_3, **kwargs):
        self.unit_1 = unit_1
        self.unit_2 = unit_2
        self.unit_3 = unit_3
        self.state_size = [tf.TensorShape([unit_1]), tf.TensorShape([unit_2, unit_3])]
        self.output_size = [tf.TensorShape([unit_1]), tf.TensorShape([unit_2, unit_3])]
        super().__init__(**kwargs)

    def build(self, input_shapes):
        # two inputs: [(batch, i1), (batch, i2, i3)]
        i1 = input_shapes[0][1]
        i2 = input_shapes[1][1]
        i3 = input_shapes[1][2]
        self.kernel_1 = self.add_weight(shape=(i1, self.unit_1), initializer="uniform", name="kernel_1")
        self.kernel_2_3 = self.add_weight(
            shape=(i2, i3, self.unit_2, self.unit_3), initializer="uniform", name="kernel_2_3"
        )

    def call(self, inputs, states):
        # inputs: [(batch, input_1), (batch, input_2, input_3)]; states: [(batch, unit_1), (batch, unit_2, unit_3)]
        input_1, input_2 = tf.nest.flatten(inputs)
        s1, s2 = states

        output_1 = tf.matmul(input_1, self.kernel_1)
        output_2_3 = tf.einsum("bij,ijkl->bkl", input_2, self.kernel_2_3)
        state_1 = s1 + output_1
        state_2_3 = s2 + output_2_3

        return (output_1, output_2_3), (state_1, state_2_3)


unit_1, unit_2, unit_3 = 10, 20, 30
i1, i2, i3 = 32, 64, 32

cell = NestedCell(unit_1, unit_2, unit_3)
rnn = keras.layers.RNN(cell)

input_1 = keras.Input((None, i1))
input_2 = keras.Input((None, i2, i3))
outputs = rnn((input_1, input_2))

model = keras.models.Model([input_1, input_2], outputs)
model.compile(optimizer="adam", loss="mse", metrics=["accuracy"])
model.summary()

# %% [markdown]
# Inputs and targets are nested the same way. Each output has its loss and its metrics. (The guide's data, with 20
# timesteps in place of 50.)

# %%
batch_size = 64
num_batches = 5
timestep = 20
samples = batch_size * num_batches

input_1_data = np.random.random((samples, timestep, i1))
input_2_data = np.random.random((samples, timestep, i2, i3))
target_1_data = np.random.random((samples, unit_1))
target_2_data = np.random.random((samples, unit_2, unit_3))

history = model.fit(
    [input_1_data, input_2_data], [target_1_data, target_2_data], batch_size=batch_size, epochs=8, verbose=0
).history
print(list(history))

_, axes = plt.subplots(figsize=(6, 3))
for name in list(history)[:3]:
    axes.plot(history[name], label=name)
axes.set_xlabel("epoch")
axes.legend()
plt.show()

# %% [markdown]
# ## Types of numbers
#
# Layers compute in float32 unless told otherwise, and cast what they are given. `dtype="float64"` does so for one
# layer, `set_floatx` for all that are made afterwards.

# %%
keras.backend.set_floatx("float32")
x = np.random.random((2, 3, 4))
print(x.dtype, layers.LSTM(5)(x).dtype, layers.LSTM(5, dtype="float64")(x).dtype)
