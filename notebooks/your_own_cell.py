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
# # Your own cell
#
# You write the mathematics of one timestep; `RNN` runs it over sequences and differentiates it. This notebook writes
# several cells, trains them, checks their gradients, and shows what cannot be written and what you are told then.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from numbarnn import TensorShape, layers, models, ops, optimizers, utils, value_and_grad
from numbarnn.testing import check_gradients

utils.set_random_seed(0)
rng = np.random.default_rng(0)
plt.rcParams["figure.dpi"] = 70

# %% [markdown]
# ## The smallest one
#
# A cell has a `state_size` and a `call(inputs, states)` that takes one timestep, (batch, features), and the list of
# states, and returns the output and the list of new states. A `Layer` may hold weights, made in `build`. `call` may be
# written with `numbarnn.ops`, NumPy's functions, or operators, as you like best.


# %%
class MinimalRNNCell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="orthogonal", name="recurrent_kernel"
        )

    def call(self, inputs, states):
        output = np.tanh(inputs @ self.kernel + states[0] @ self.recurrent_kernel)
        return output, [output]


layer = layers.RNN(MinimalRNNCell(32), return_sequences=True)
print(layer(np.ones((4, 10, 5))).shape, layer.kernel_path)

# %% [markdown]
# `kernel_path` says `"program"`: `call` has been run once on symbols, what it did has been recorded, and the record is
# repeated for every timestep. Its gradient is a second program. `inputs @ self.kernel` does not depend on the state, so
# it is computed for all timesteps in one product before the loop.
#
# ## Is the gradient right?
#
# Ask central differences. `value_and_grad` gives the gradients of a loss by the weights of a layer;
# `testing.check_gradients` moves the weights a little to either side and compares. In float64, since differences in
# float32 say little.


# %%
def gradients_of(cell, features=3):
    layer = layers.RNN(cell, return_sequences=True, dtype="float64")
    x = rng.normal(size=(2, 5, features))
    aim = np.cos(np.arange(layer(x).size)).reshape(layer(x).shape)

    def loss(x):
        return ops.sum(layer(x) * aim)

    def at(*weights):
        layer.set_weights(weights)
        return np.sum(layer(x) * aim)

    weights = layer.get_weights()
    _, gradients = value_and_grad(loss, layer)(x)
    check_gradients(at, weights, gradients)
    return {w.name: g.shape for w, g in zip(layer.trainable_variables, gradients, strict=True)}


print(gradients_of(MinimalRNNCell(4, dtype="float64")))

# %% [markdown]
# No error: they agree to seven digits.
#
# ## An LSTM with peepholes
#
# An LSTM's gates see the input and the last output. Gers and Schmidhuber (2000) let them see the memory `c` as well,
# through one weight per unit and gate: the input and forget gates the old memory, the output gate the new one.
#
# $$
# \begin{aligned}
# i &= \sigma(x W_i + h U_i + p_i \odot c + b_i) &
# f &= \sigma(x W_f + h U_f + p_f \odot c + b_f) \\
# c' &= f \odot c + i \odot \tanh(x W_c + h U_c + b_c) &
# o &= \sigma(x W_o + h U_o + p_o \odot c' + b_o) \qquad h' = o \odot \tanh(c')
# \end{aligned}
# $$
#
# Two states, so `state_size` is a list of two.


# %%
class PeepholeLSTMCell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = [units, units]
        self.output_size = units

    def build(self, input_shape):
        units = self.units
        self.kernel = self.add_weight(shape=(input_shape[-1], 4 * units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(units, 4 * units), initializer="orthogonal", name="recurrent_kernel"
        )
        self.peephole = self.add_weight(shape=(3, units), initializer="zeros", name="peephole")
        self.bias = self.add_weight(shape=(4 * units,), initializer="zeros", name="bias")

    def call(self, inputs, states):
        h, c = states
        z = inputs @ self.kernel + h @ self.recurrent_kernel + self.bias
        i, f, new, o = ops.split(z, 4, axis=-1)
        i = ops.sigmoid(i + self.peephole[0] * c)
        f = ops.sigmoid(f + 1.0 + self.peephole[1] * c)  # begins by keeping, like Keras's unit_forget_bias
        c = f * c + i * np.tanh(new)
        o = ops.sigmoid(o + self.peephole[2] * c)
        h = o * np.tanh(c)
        return h, [h, c]


print(gradients_of(PeepholeLSTMCell(4, dtype="float64")))

# %% [markdown]
# With its peepholes closed it must be Keras's LSTM: the same weights in the same places, with 1 added to the bias of
# the forget gate.

# %%
x = rng.normal(size=(3, 20, 5))
own = layers.RNN(PeepholeLSTMCell(8, dtype="float64"), dtype="float64")
built_in = layers.LSTM(8, dtype="float64")
own(x)
built_in(x)
kernel, recurrent_kernel, bias = built_in.get_weights()
own.set_weights([kernel, recurrent_kernel, np.zeros((3, 8)), bias - np.repeat([0.0, 1.0, 0.0, 0.0], 8)])
print(np.abs(own(x) - built_in(x)).max())

# %% [markdown]
# ## Training
#
# A signal of two sines whose phases differ from sequence to sequence. The model sees one value at each timestep and is
# to say the next.


# %%
def signals(count, length=81):
    t = np.arange(length)
    phases = rng.uniform(0, 2 * np.pi, size=(2, count, 1))
    wave = 0.6 * np.sin(0.33 * t + phases[0]) + 0.4 * np.sin(0.9 * t + phases[1])
    return wave[..., None].astype("float32")


train, test = signals(1024), signals(256)
curves, trained = {}, {}
cells = {"minimal": MinimalRNNCell(32), "peephole LSTM": PeepholeLSTMCell(32), "built-in LSTM": layers.LSTMCell(32)}
for name, cell in cells.items():
    model = models.Sequential([layers.RNN(cell, return_sequences=True, input_shape=(None, 1)), layers.Dense(1)])
    model.compile(optimizer=optimizers.Adam(0.01), loss="mse")
    begin = time.perf_counter()
    curves[name] = model.fit(
        train[:, :-1],
        train[:, 1:],
        validation_data=(test[:, :-1], test[:, 1:]),
        batch_size=32,
        epochs=10,
        verbose=0,
    ).history["val_loss"]
    trained[name] = model
    print(f"{name}: {time.perf_counter() - begin:.1f} s, error {curves[name][-1]:.1e}")

# %%
_, axes = plt.subplots(figsize=(6, 3))
for name, curve in curves.items():
    axes.semilogy(range(1, len(curve) + 1), curve, label=name)
axes.set(xlabel="epoch", title="squared error on signals never seen")
axes.legend()
plt.show()

# %% [markdown]
# Can a model go on by itself? It reads 40 values, then each prediction is its next input. For that the layer must keep
# its states from call to call: the same cell in a stateful `RNN`.


# %%
def continued(model, start, steps):
    recurrent, readout = model.layers
    layer = layers.RNN(recurrent.cell, stateful=True)
    found = [readout(layer(start))]
    for _ in range(steps - 1):
        found.append(readout(layer(found[-1][:, None])))
    return np.stack(found, axis=1)


_, axes = plt.subplots(figsize=(9, 3))
axes.plot(test[0, :, 0], color="0.6", lw=3, label="the signal")
for name, model in trained.items():
    axes.plot(range(40, 81), continued(model, test[:1, :40], 41)[0], label=name)
axes.axvline(39.5, color="0.8")
axes.set(xlabel="timestep", ylim=(-1.6, 1.2), title="from the line on, without looking")
axes.legend(loc="lower left", ncols=4, fontsize=8)
plt.show()

# %% [markdown]
# ## A state that is a matrix
#
# Fast weights (Ba et al., 2016): beside `h`, a matrix `A` for each sequence, which decays, is written by outer products
# of `h` with itself, and is read once at each timestep. `TensorShape` tells a matrix from a list of two states.


# %%
class FastWeightsCell(layers.Layer):
    def __init__(self, units, decay=0.8, rate=0.02, **kwargs):
        super().__init__(**kwargs)
        self.units, self.decay, self.rate = units, decay, rate
        self.state_size = [units, TensorShape([units, units])]
        self.output_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="orthogonal", name="recurrent_kernel"
        )

    def call(self, inputs, states):
        h, memory = states
        z = inputs @ self.kernel + h @ self.recurrent_kernel
        memory = self.decay * memory + self.rate * h[:, :, None] * h[:, None, :]
        h = np.tanh(z + ops.einsum("bij,bj->bi", memory, np.tanh(z)))
        return h, [h, memory]


print(gradients_of(FastWeightsCell(4, dtype="float64")))
out, h, memory = layers.RNN(FastWeightsCell(12), return_state=True)(test[:3])
print(h.shape, memory.shape)

_, all_axes = plt.subplots(1, 3, figsize=(9, 2.6))
for row, axes in enumerate(all_axes):
    axes.imshow(memory[row], cmap="RdBu")
    axes.set(title=f"after sequence {row}", xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## A backward of your own
#
# Where you know a better gradient than the program's, or `call` uses what cannot be traced (a table, SciPy, your own
# `@njit` function), give the cell a `backward`. Then `call` gets arrays and returns a third value, what is to be
# saved; `backward` gets it back and returns the gradients of inputs, states and weights. It need not be the derivative:
# here is a unit that fires or does not, whose step has slope 0 everywhere, trained with a slope that is useful instead
# (a surrogate gradient, as for spiking networks).


# %%
class SpikingCell(layers.Layer):
    def __init__(self, units, leak=0.9, **kwargs):
        super().__init__(**kwargs)
        self.units, self.leak = units, leak
        self.state_size = units  # the potential

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        potential = self.leak * states[0] + inputs @ self.kernel.numpy()
        spikes = (potential > 1).astype(potential.dtype)
        return spikes, [potential - spikes], potential

    def backward(self, d_output, d_states, inputs, states, saved):
        slope = 1 / (1 + 4 * np.abs(saved - 1)) ** 2
        d_potential = d_states[0] + (d_output - d_states[0]) * slope
        return d_potential @ self.kernel.numpy().T, [self.leak * d_potential], [inputs.T @ d_potential]


pattern = (rng.random((1, 60, 40)) < 0.15).astype("float32")
aim = np.zeros((1, 60, 1), "float32")
aim[0, [7, 20, 22, 41, 55]] = 1.0
spiking = models.Sequential([layers.RNN(SpikingCell(1), return_sequences=True, input_shape=(60, 40))])
spiking.compile(optimizer=optimizers.Adam(0.02), loss="mse")
before = spiking.predict(pattern, verbose=0)
losses = spiking.fit(pattern, aim, epochs=400, verbose=0).history["loss"]
after = spiking.predict(pattern, verbose=0)

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.5), width_ratios=[1, 2])
left.plot(losses)
left.set(xlabel="epoch", title="loss")
right.eventplot(
    [np.flatnonzero(spikes[0, :, 0]) for spikes in (aim, before, after)],
    lineoffsets=[2, 1, 0],
    linelengths=0.7,
    colors=["0.5", "tab:orange", "tab:blue"],
)
right.set(yticks=[0, 1, 2], yticklabels=["after", "before", "to learn"], xlabel="timestep", xlim=(-1, 60))
plt.tight_layout()
plt.show()

# %% [markdown]
# ## What cannot be written
#
# `call` is run once on symbols, which have a shape but no values. So what depends on a value in Python is refused, and
# the message says what to write instead:


# %%
class Impatient(MinimalRNNCell):
    def call(self, inputs, states):
        if states[0].sum() > 1:
            return inputs @ self.kernel, states
        return super().call(inputs, states)


class Overwriting(MinimalRNNCell):
    def call(self, inputs, states):
        output, _ = super().call(inputs, states)
        output[:, 0] = 1.0
        return output, [output]


class Forgetful(MinimalRNNCell):
    def call(self, inputs, states):
        output, _ = super().call(inputs, states)
        return output, []


for cell in (Impatient(3), Overwriting(3), Forgetful(3)):
    try:
        layers.RNN(cell)(np.ones((2, 4, 3)))
    except Exception as error:
        print(f"{type(cell).__name__}: {type(error).__name__}: {error}\n")
