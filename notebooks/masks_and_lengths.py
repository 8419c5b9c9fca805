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
# # Masks, lengths, states
#
# Sequences rarely have one length. This notebook shows what to do with a list of them, what a mask does on its way
# through a model, how to read a stream in pieces, and how to start single rows again.

# %%
import matplotlib.pyplot as plt
import numpy as np

from numbarnn import layers, utils
from numbarnn.models import Sequential

utils.set_random_seed(0)
rng = np.random.default_rng(0)
plt.rcParams["figure.dpi"] = 70


def show_mask(axes, mask, title):
    axes.pcolormesh(mask, cmap="Blues", vmin=0, vmax=1.4, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    axes.set(title=title, xlabel="timesteps", ylabel="rows")


# %% [markdown]
# ## A list of sequences becomes an array and a mask
#
# `utils.pad` returns both: the sequences with zeros after their ends, and for each timestep whether it counts.

# %%
sequences = [rng.normal(size=(length, 3)).astype("float32") for length in (4, 9, 2, 12, 7)]
x, mask = utils.pad(sequences)
print(x.shape, mask.shape, mask.sum(axis=1))

_, (left, right) = plt.subplots(1, 2, figsize=(9, 2.5))
show_mask(left, mask, "utils.pad(sequences)")
show_mask(right, utils.pad(sequences, padding="pre")[1], 'utils.pad(sequences, padding="pre")')
plt.tight_layout()
plt.show()

# %% [markdown]
# The first layer takes it as `mask=mask`, uses it and hands it on with its output, so that it need not be named again.
#
# A masked timestep is skipped: the states stay as they were, and nothing of the padding gets into the result. So a
# padded row gives what its sequence gives alone, to the last bit. We put NaN into the padding to show that it is
# not looked at.

# %%
lstm = layers.LSTM(8)
poisoned = np.where(mask[..., None], x, np.nan).astype("float32")
padded = lstm(poisoned, mask=mask)
alone = np.concatenate([lstm(sequence[None]) for sequence in sequences])
print(np.array_equal(padded, alone))

# %% [markdown]
# ## What is returned where nothing was computed
#
# With `return_sequences=True` there is an output at masked timesteps too. By default it is the last one again, and
# zeros before the first; `zero_output_for_mask=True` gives zeros throughout. The mask goes on to the next layer in
# either case, so this matters only if you look at the outputs yourself.

# %%
gap = np.ones((1, 24), bool)
gap[0, :3] = gap[0, 10:16] = gap[0, 21:] = False
signal = np.sin(np.arange(24, dtype="float32") / 2)[None, :, None]
repeats = layers.LSTM(3, return_sequences=True)
zeros = layers.LSTM(3, return_sequences=True, zero_output_for_mask=True)
y = repeats(signal, mask=gap)
zeros.build(signal.shape)
zeros.set_weights(repeats.get_weights())

_, all_axes = plt.subplots(1, 2, figsize=(9, 2.5), sharey=True)
for axes, out, title in zip(all_axes, (y, zeros(signal, mask=gap)), ("default", "zero_output_for_mask"), strict=True):
    axes.step(np.arange(24), out[0], where="mid")
    for t in np.flatnonzero(~gap[0]):
        axes.axvspan(t - 0.5, t + 0.5, color="0.9")
    axes.set(title=title, xlabel="timestep (grey: masked)")
plt.show()

# %% [markdown]
# ## Where masks come from
#
# Besides `pad`, two layers make them: `Embedding(mask_zero=True)`, where word 0 means that there is none, and
# `Masking(mask_value)`, for timesteps whose features all have one value. `layers.get_mask` shows what an array carries.

# %%
words = utils.pad_sequences([[5, 3], [7, 1, 4, 2], [9]], padding="post")
embedded = layers.Embedding(10, 4, mask_zero=True)(words)
print(words)
print(layers.get_mask(embedded).astype(int))
print(layers.get_mask(layers.Masking(mask_value=-1.0)(np.array([[[2.0], [0.0], [-1.0]]]))))

# %% [markdown]
# ## Training on sequences of all lengths
#
# `fit`, `evaluate` and `predict` take the list as it is, as a `Ragged`: every batch is padded to its own longest
# sequence. The task: did the walk end above where it began?

# %%
lengths = rng.choice(np.arange(5, 40, 2), size=2000)
walks = [rng.choice([-1.0, 1.0], size=(length, 1)).astype("float32") for length in lengths]
target = np.array([walk.sum() > 0 for walk in walks], dtype="float32")[:, None]
data = utils.Ragged(walks)
print(data)

model = Sequential([layers.Input((None, 1)), layers.LSTM(16), layers.Dense(1, activation="sigmoid")])
model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
history = model.fit(
    data[:1600], target[:1600], validation_data=(data[1600:], target[1600:]), batch_size=32, epochs=12, verbose=0
).history

# %%
probabilities = model.predict(data[1600:], verbose=0)[:, 0]
ends = np.array([walk.sum() for walk in walks[1600:]])
_, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(history["accuracy"], label="training")
left.plot(history["val_accuracy"], label="never seen")
left.set(xlabel="epoch", title="accuracy")
left.legend()
right.scatter(ends, probabilities, s=8, c=lengths[1600:], cmap="viridis")
right.axvline(0, color="0.8")
right.axhline(0.5, color="0.8")
right.set(xlabel="where the walk ended (colour: its length)", title="predicted: above?")
plt.show()

# %% [markdown]
# ### One output for each timestep
#
# With `return_sequences=True` the targets are a `Ragged` too, of the same lengths. Loss and metrics count the real
# timesteps only, and `predict` returns sequences of the lengths that came in. Here: is the walk above its start now?

# %%
now = utils.Ragged([(np.cumsum(walk, axis=0) > 0).astype("float32") for walk in walks])
tagger = Sequential(
    [layers.Input((None, 1)), layers.GRU(16, return_sequences=True), layers.Dense(1, activation="sigmoid")]
)
tagger.compile(optimizer="adam", loss="binary_crossentropy", weighted_metrics=["accuracy"])
tagger.fit(data[:1600], now[:1600], batch_size=32, epochs=12, verbose=0)
print(tagger.evaluate(data[1600:], now[1600:], verbose=0, return_dict=True))

tagged = tagger.predict(data[1600:], verbose=0)
i = 1600 + int(np.argmax([np.abs(np.diff(np.sign(np.cumsum(walk)))).sum() for walk in walks[1600:]]))
_, axes = plt.subplots(figsize=(9, 2.5))
axes.step(range(len(walks[i])), np.cumsum(walks[i]), where="mid", color="0.5", label="the walk")
axes.plot(tagged[i - 1600][:, 0], "o-", ms=3, label="predicted: above?")
axes.axhline(0, color="0.8")
axes.set_xlabel("timestep")
axes.legend()
plt.show()

# %% [markdown]
# ## A stream in pieces
#
# A stateful layer goes on where the last call ended. Row i of a batch continues row i of the batch before, so pieces
# must come in order, and batches in one size. Cutting a sequence changes nothing, not even the last bit.

# %%
stream = rng.normal(size=(2, 30, 3)).astype("float32")
stateful = layers.GRU(4, return_sequences=True, stateful=True)
pieces = [stateful(stream[:, :11]), stateful(stream[:, 11:12]), stateful(stream[:, 12:])]
whole = layers.GRU(4, return_sequences=True)
whole.build(stream.shape)
whole.set_weights(stateful.get_weights())
print(np.array_equal(np.concatenate(pieces, axis=1), whole(stream)))

# %% [markdown]
# `reset_states()` starts all rows again, `reset_states(mask=...)` some of them: where one stream has ended and another
# takes its row, as with environments that end at different times. `states` are arrays to keep; `reset_states(states=)`
# puts them back.

# %%
kept = stateful.states
stateful.reset_states(mask=[True, False])
print("row 0 starts again, row 1 goes on:", [bool(np.any(row)) for row in stateful.states[0]])
stateful.reset_states(states=kept)
print("both go on:                       ", [bool(np.any(row)) for row in stateful.states[0]])

# %% [markdown]
# ## A new start within a sequence
#
# Where episodes follow each other inside one array, `reset=` says before which timesteps the states are set to zero.
# No gradient flows across. In the picture, the output answers an impulse at timestep 2 until the reset at 15.

# %%
impulse = np.zeros((1, 30, 1), "float32")
impulse[0, 2] = 5.0
reset = np.zeros((1, 30), bool)
reset[0, 15] = True
leaky = layers.SimpleRNN(1, return_sequences=True, kernel_initializer="ones", recurrent_initializer="ones")
_, axes = plt.subplots(figsize=(9, 2.5))
axes.plot(leaky(impulse)[0], label="without reset")
axes.plot(leaky(impulse, reset=reset)[0], label="reset at 15")
axes.set_xlabel("timestep")
axes.legend()
plt.show()

# %% [markdown]
# ## In short
#
# | you have | you use |
# |---|---|
# | a list of sequences, one result for each | `fit(Ragged(sequences), y)` |
# | a list of sequences, a result for each timestep | `fit(Ragged(sequences), Ragged(targets))` |
# | the padded array and its mask | `layer(x, mask=mask)` |
# | word numbers, 0 for none | `Embedding(..., mask_zero=True)` |
# | a stream in pieces | `stateful=True`, `reset_states()` |
# | streams that end at different times | `reset_states(mask=...)` between calls, `reset=` within one |
