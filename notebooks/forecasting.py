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
# # Forecasting, honestly
#
# Two records, each with a question. **Sunspots**: yearly numbers since 1700; what will the next eleven years, one solar
# cycle, look like? **CO2** on Mauna Loa: weekly, with weeks in which nothing was measured; what was there, in the gaps?
#
# The notebook is about method as much as about networks: splits in time, baselines that are hard to beat, forecasts of
# several steps, errors by horizon, and looking inside of what was trained. It needs statsmodels, for the data.

# %%
import matplotlib.pyplot as plt
import numpy as np
import statsmodels.datasets as data

from numbarnn import callbacks, layers, models, optimizers, plotting, utils

utils.set_random_seed(0)
plt.rcParams["figure.dpi"] = 50

sunspots = data.sunspots.load_pandas().data
years, spots = sunspots.YEAR.to_numpy().astype(int), sunspots.SUNACTIVITY.to_numpy()

# %% [markdown]
# ## Sunspots
#
# The past is split once, in time: 1700-1919 to train, 1920-1959 to decide when to stop, 1960-2008 to test. Numbers of
# scaling come from the training years alone. Counts swing more where they are large; the square root makes the swings
# alike.

# %%
TRAIN, VALID = np.searchsorted(years, [1920, 1960])
HORIZON = 11
root = np.sqrt(spots)
mean, std = root[:TRAIN].mean(), root[:TRAIN].std()
z = ((root - mean) / std).astype("float32")


def to_spots(z):
    """Back to numbers of spots."""
    return np.clip(z * std + mean, 0, None) ** 2


_, axes = plt.subplots(figsize=(9, 2.6))
for begin, end, name in ((0, TRAIN, "train"), (TRAIN, VALID, "stop"), (VALID, len(years), "test")):
    axes.plot(years[begin : end + 1], spots[begin : end + 1], label=name)
axes.set(xlabel="year", ylabel="sunspot number")
axes.legend(ncols=3)
plt.show()

# %% [markdown]
# A forecast is made at an *origin*: what is observed up to and with that year may be used, nothing after it, for the
# eleven years that follow. We forecast from every origin from 1959 to 1997, so that all eleven years are in the test.
#
# Two forecasts need no training. *Naive*: it stays as it is. *Seasonal naive*: what was eleven years before. A model
# that is no better than these has learnt nothing worth having. The third is a hundred years old: autoregression, which
# Yule invented in 1927 for just this series; each of the coming years is a linear function of the last eleven,
# fitted by least squares.

# %%
origins = np.arange(VALID - 1, len(years) - HORIZON)
ahead = origins[:, None] + np.arange(1, HORIZON + 1)  # places of the years that are forecast
truth = spots[ahead]
forecasts = {"naive": np.repeat(spots[origins, None], HORIZON, axis=1), "seasonal naive": spots[ahead - 11]}


def last_eleven(places):
    return np.column_stack([z[places[:, None] + np.arange(-10, 1)], np.ones(len(places))])


fitted = np.arange(10, TRAIN - HORIZON)  # origins whose eleven coming years are all in the training part
coming = z[fitted[:, None] + np.arange(1, HORIZON + 1)]
coefficients = np.linalg.lstsq(last_eleven(fitted), coming, rcond=None)[0]
forecasts["linear"] = to_spots(last_eleven(origins) @ coefficients)

# %% [markdown]
# ### Windows
#
# The plain way: cut the series into windows of 33 years, each with the eleven years that follow as its target. Windows
# overlap, which is fine, but no target of a training window may lie in a later split. With 177 windows there is little
# to learn from and much to learn by heart: hence a small network, dropout, and stopping early.


# %%
def windows(first, last, length=33):
    """Windows whose targets all lie in the places first <= t < last."""
    ends = np.arange(max(first, length), last - HORIZON + 1)
    x = np.stack([z[end - length : end] for end in ends])
    return x[..., None], np.stack([z[end : end + HORIZON] for end in ends])


x_train, y_train = windows(0, TRAIN)
x_stop, y_stop = windows(TRAIN, VALID)
x_test, _ = windows(VALID, len(z))
print(x_train.shape, y_train.shape, x_stop.shape, x_test.shape)


def windowed(seed):
    utils.set_random_seed(seed)
    model = models.Sequential(
        [layers.Input((None, 1)), layers.GRU(24, recurrent_dropout=0.3, name="memory"), layers.Dense(HORIZON)]
    )
    model.compile(optimizer=optimizers.Adam(0.005), loss="mse")
    stop = callbacks.EarlyStopping(patience=40, restore_best_weights=True)
    history = model.fit(
        x_train, y_train, validation_data=(x_stop, y_stop), batch_size=16, epochs=200, callbacks=[stop], verbose=0
    )
    return model, history


SEEDS = 3  # one run of training says little: the forecast is the mean of three
runs = [windowed(seed) for seed in range(SEEDS)]
forecasts["windows"] = np.mean([to_spots(model.predict(x_test, verbose=0)) for model, _ in runs], axis=0)
model, history = runs[0]
axes = plotting.plot_history(history)
axes.set_title("GRU on windows", fontsize="medium")
plt.show()

# %% [markdown]
# ### One long series: stateful, with truncated back-propagation
#
# Windows forget what came before them. A *stateful* layer reads the series once from its start, in pieces, and goes on
# where the last piece has ended: its states are carried from batch to batch, while gradients end at the piece's border
# (truncated back-propagation through time). At each year the model is asked for the next eleven. Row 0 of a
# batch must go on where row 0 of the batch before has ended: pieces in order, `batch_size=1`, no shuffling, and
# `reset_states` before the series is read again from its start. (Where whole sequences fit into a batch,
# `fit(..., bptt_steps=19)` cuts them and carries the states by itself.)

# %%
PIECE = 19
pieces = (TRAIN - HORIZON) // PIECE
places = np.arange(pieces * PIECE)
x_pieces = z[places].reshape(pieces, PIECE, 1)
y_pieces = z[places[:, None] + np.arange(1, HORIZON + 1)].reshape(pieces, PIECE, HORIZON)


def read(model):
    """The forecasts of every year of the whole series, each from what lies before it."""
    model.reset_states()
    return model(z[None, :, None])[0]


def stateful(seed, epochs=100):
    utils.set_random_seed(seed)
    model = models.Sequential(
        [
            layers.GRU(24, recurrent_dropout=0.2, stateful=True, return_sequences=True, batch_input_shape=(1, None, 1)),
            layers.Dense(HORIZON),
        ]
    )
    model.compile(optimizer=optimizers.Adam(0.005), loss="mse")
    places = np.arange(TRAIN - 1, VALID - HORIZON)
    best, weights = np.inf, None
    for _ in range(epochs):
        model.reset_states()
        model.fit(x_pieces, y_pieces, batch_size=1, shuffle=False, verbose=0)
        error = np.mean((read(model)[places] - z[places[:, None] + np.arange(1, HORIZON + 1)]) ** 2)
        if error < best:
            best, weights = error, model.get_weights()
    model.set_weights(weights)
    return model


readers = [stateful(seed) for seed in range(SEEDS)]
forecasts["stateful"] = np.mean([to_spots(read(model)[origins]) for model in readers], axis=0)

# %% [markdown]
# ### Step by step, fed with its own forecasts
#
# Instead of eleven numbers at once, the same models can forecast one year, take that for true, and go on. To try this
# from each origin, the states are kept and put back: `layer.states` are arrays, `reset_states(states=...)` sets them.


# %%
def fed_back(model):
    layer, found = model.layers[0], []
    model.reset_states()
    model(z[None, : origins[0], None])
    for origin in origins:
        latest = model(z[None, origin : origin + 1, None])[0, -1, 0]
        at_origin, path = layer.states, [latest]
        for _ in range(HORIZON - 1):
            latest = model(np.full((1, 1, 1), latest))[0, -1, 0]
            path.append(latest)
        found.append(path)
        layer.reset_states(states=at_origin)
    return to_spots(np.array(found))


forecasts["stateful, fed back"] = np.mean([fed_back(model) for model in readers], axis=0)

# %% [markdown]
# ### All of them, in one table and one picture

# %%
print(f"{'mean absolute error':20} {'1 year':>7} {'5 years':>8} {'11 years':>9} {'all':>6} {'vs naive':>9}")
errors = {name: np.abs(found - truth) for name, found in forecasts.items()}
for name, error in errors.items():
    by_year = error.mean(axis=0)
    share = error.mean() / errors["naive"].mean()
    print(f"{name:20} {by_year[0]:7.1f} {by_year[4]:8.1f} {by_year[10]:9.1f} {error.mean():6.1f} {share:9.0%}")

origin = int(np.searchsorted(years, 1985))
shown = {name: found[origin - origins[0]] for name, found in forecasts.items()}
recent = slice(origin - 35, origin + HORIZON + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(13, 3.8), width_ratios=[3, 2], layout="constrained")
plotting.plot_predictions(
    spots[recent], shown, time=years[recent], start=36, xlabel="year", ylabel="sunspot number", ax=left
)
left.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
left.axvline(years[origin] + 0.5, color="0.8", zorder=0)
for line, (name, error) in zip(left.lines[1:], errors.items(), strict=False):
    right.plot(range(1, HORIZON + 1), error.mean(axis=0), color=line.get_color(), marker=".", label=name)
right.set(xlabel="years ahead", ylabel="mean absolute error (spots)", ylim=0, title="all origins 1959-1997")
right.title.set_fontsize("medium")
plt.show()

# %% [markdown]
# The network on windows halves the error of the naive forecast in the first year, and is better than the seasonal one
# in the first years; far ahead, all come back to the cycle, as little else is known. And Yule's linear model is as good
# or better nearly throughout: with some two hundred values of one series that is the rule, and the reason to fit it
# first. How sure is this order? The 39 origins overlap; the test has four cycles, not 39 independent cases. Differences
# of a few spots between the models mean nothing; another seed moves them as much. And the table is on the lucky side:
# an LSTM in place of the GRU did equally well in the stop years and worse in the test (33.5 spots over all years): we
# know that only because we looked. Forty years are too few to choose between networks.
#
# ### What does the GRU look at?
#
# `model.trace` runs the model and shows gates and states at every timestep; with `output=` it also differentiates.
# First the gates over one window: where `update` is open the unit holds what it has, where it is closed the candidate
# comes in. Then how much a forecast changes with the state of each year. Where that line is down by powers of ten,
# the years before hardly count: the network looks back over about one cycle, though it is given three.

# %%
model = runs[0][0]
trace = model.trace(x_test, output=lambda out: out[:, 4])["memory"]  # the fifth year ahead
row = origin - origins[0]
plotting.plot_gates(trace, row=row).set_title(f"memory: the window that ends in {years[origin]}", fontsize="medium")
plt.show()

axes = plotting.plot_gradient_norms(trace)
axes.set_title("d forecast of the fifth year / d state", fontsize="medium")
axes.set_xlabel("year of the window")
plt.show()

# %% [markdown]
# ## CO2, with gaps
#
# Weekly means from 1958 to 2001, 59 of them missing: single weeks, and one gap of 18. Nothing is interpolated. A model
# is told which weeks there are, by a mask: masked weeks are skipped by the layer, and count nothing in the loss.
#
# The record has a trend, and what a network has never seen it cannot extrapolate. So each window is taken relative to
# its last measurement: the model learns changes, of the coming year by those of the last two.

# %%
record = data.co2.load_pandas().data
weeks, co2 = record.index.to_numpy(), record.co2.to_numpy()
known = np.isfinite(co2)
YEAR, PAST, SCALE = 52, 104, 3.0  # weeks, weeks, ppm
begin_stop, begin_test = np.searchsorted(weeks, np.array(["1986-01-01", "1992-01-01"], "datetime64[D]"))
carried = co2[np.maximum.accumulate(np.where(known, np.arange(len(co2)), 0))]  # the last measurement, at each week


def yearly(first, last, step=1):
    """Windows of two years and the year after, which lies in the weeks first <= t < last."""
    ends = np.arange(max(first, PAST), last - YEAR + 1, step)
    past, coming = ends[:, None] + np.arange(-PAST, 0), ends[:, None] + np.arange(YEAR)
    base = carried[ends - 1]
    x = np.where(known[past], (co2[past] - base[:, None]) / SCALE, 0.0)
    y = np.where(known[coming], (co2[coming] - base[:, None]) / SCALE, 0.0)
    return x[..., None].astype("float32"), known[past], y[..., None].astype("float32"), known[coming], ends, base


x, x_known, y, y_known, _, _ = yearly(0, begin_stop, step=2)
x_stop, x_stop_known, y_stop, y_stop_known, _, _ = yearly(begin_stop, begin_test, step=4)
x_test, x_test_known, _, _, ends, base = yearly(begin_test, len(co2), step=4)

utils.set_random_seed(0)
inputs, mask = layers.Input((PAST, 1)), layers.Input((PAST,), dtype="bool")
state = layers.GRU(24, name="memory")(inputs, mask=mask)
year_ahead = layers.Reshape((YEAR, 1))(layers.Dense(YEAR)(state))
forecaster = models.Model([inputs, mask], year_ahead)
forecaster.compile(optimizer=optimizers.Adam(0.005), loss="mse")
forecaster.fit(
    [x, x_known],
    y,
    sample_weight=y_known.astype("float32"),  # weeks that nobody measured cost nothing
    validation_data=([x_stop, x_stop_known], y_stop, y_stop_known.astype("float32")),
    batch_size=32,
    epochs=25,
    callbacks=[callbacks.EarlyStopping(patience=6, restore_best_weights=True)],
    verbose=0,
)

coming = ends[:, None] + np.arange(YEAR)
growth = carried[ends - 1] - carried[ends - 1 - YEAR]  # of the last year
yearly_forecasts = {
    "naive": np.repeat(base[:, None], YEAR, axis=1),
    "seasonal naive": carried[coming - YEAR],
    "seasonal naive + growth": carried[coming - YEAR] + growth[:, None],
    "GRU, masked": forecaster.predict([x_test, x_test_known], verbose=0)[..., 0] * SCALE + base[:, None],
}
print(f"{'mean absolute error, ppm':26} {'4 weeks':>8} {'26 weeks':>9} {'52 weeks':>9} {'all':>6}")
for name, found in yearly_forecasts.items():
    error = np.where(known[coming], np.abs(found - co2[coming]), np.nan)
    by_week = np.nanmean(error, axis=0)
    print(f"{name:26} {by_week[3]:8.2f} {by_week[25]:9.2f} {by_week[51]:9.2f} {np.nanmean(error):6.2f}")

last = len(ends) - 1
part = slice(ends[last] - PAST, ends[last] + YEAR)
plotting.plot_predictions(
    co2[part],
    {name: found[last] for name, found in yearly_forecasts.items()},
    time=weeks[part],
    ylabel="CO2 (ppm)",
    xlabel="week",
)
plt.show()

# %% [markdown]
# CO2 repeats its year, plus a trend: seasonal naive with growth has no parameters, and is hard to beat. The network is
# somewhat better, most of all a year ahead, where the growth of one single year is a rough guide.
#
# ## Both directions: right for gaps, wrong for forecasts
#
# To say what was there in a gap, both sides of it may be used: that is what `Bidirectional` is for. For a forecast it
# is not allowed, and it fails in a way that looks like success. We ask each of two models, at each week, for the
# measurement of the *next* week. One reads forwards. The other one reads in both directions: at every week but the last
# its backward layer has already read the answer.


# %%
def complete(first, last, length, step):
    """Windows in which no week is missing, relative to their first week."""
    starts = [t for t in range(first, last - length + 1, step) if known[t : t + length].all()]
    x = np.stack([co2[t : t + length] - co2[t] for t in starts]) / SCALE
    return x[..., None].astype("float32")


train, test = complete(0, begin_test, 53, 7), complete(begin_test, len(co2), 53, 7)
print(f"{'mean absolute error of the next week, ppm':42} {'inside':>7} {'at the end':>11}")
for name, both in (("forwards", False), ("both directions", True)):
    utils.set_random_seed(0)
    layer = layers.GRU(16, return_sequences=True)
    model = models.Sequential(
        [layers.Input((None, 1)), layers.Bidirectional(layer) if both else layer, layers.Dense(1)]
    )
    model.compile(optimizer=optimizers.Adam(0.01), loss="mse")
    model.fit(train[:, :-1], train[:, 1:], batch_size=16, epochs=40, verbose=0)
    error = np.abs(model.predict(test[:, :-1], verbose=0) - test[:, 1:])[..., 0] * SCALE
    print(f"{name:42} {error[:, :-1].mean():7.2f} {error[:, -1].mean():11.2f}")

# %% [markdown]
# *Inside* the windows the second model seems far better, on weeks never trained on at that. *At the end*, where the
# next week has not been measured yet, which is the only place where a forecast is of use, that is gone. Splits in time
# do not reveal it, for the leak is within each window: only a test at the end of the data does.
#
# ### Filling gaps
#
# For gaps it is the right tool. A model sees 80 weeks, of which some are hidden, and a second number at each week that
# says whether there is a measurement. (No mask here: a masked week would be skipped, and its output is what we want.)
# In training we hide weeks that we know, gaps of 1 to 20 weeks; the loss counts these alone. The test hides gaps of 18
# weeks from 1992 on. The comparison: a straight line through the gap, and the same model forwards only.

# %%
SPAN = 80
rng = np.random.default_rng(0)


def with_gaps(first, last, count, lengths):
    """Windows without missing weeks, a gap hidden in each: inputs, truth, and 1 where it was hidden."""
    possible = [t for t in range(first, last - SPAN + 1) if known[t : t + SPAN].all()]
    starts = rng.choice(possible, size=count)
    truth = np.stack([co2[t : t + SPAN] for t in starts])
    hidden = np.zeros((count, SPAN), bool)
    for row in hidden:
        length = rng.choice(lengths)
        at = rng.integers(8, SPAN - 8 - length + 1)
        row[at : at + length] = True
    return *relative(truth, ~hidden), truth, hidden


def relative(values, there):
    """Inputs of the model, and the level that they are relative to: the mean of what is there."""
    level = np.nanmean(np.where(there, values, np.nan), axis=1, keepdims=True)
    x = np.where(there, (values - level) / SCALE, 0.0)
    return np.stack([x, there], axis=-1).astype("float32"), level


def filler(both):
    utils.set_random_seed(0)
    layer = layers.LSTM(24, return_sequences=True, name="reader")
    model = models.Sequential(
        [layers.Input((SPAN, 2)), layers.Bidirectional(layer, name="both") if both else layer, layers.Dense(1)]
    )
    model.compile(optimizer=optimizers.Adam(0.01), loss="mse")
    model.fit(x, y, sample_weight=hidden.astype("float32"), batch_size=32, epochs=25, verbose=0)
    return model


def straight(values, there):
    return np.stack([np.interp(np.arange(SPAN), np.flatnonzero(k), v[k]) for v, k in zip(values, there, strict=True)])


x, level, truth, hidden = with_gaps(0, begin_test, 1200, np.arange(1, 21))
y = ((truth - level) / SCALE)[..., None].astype("float32")
x_test, level, truth, hidden_test = with_gaps(begin_test, len(co2), 100, [18])
fillers = {"LSTM, forwards": filler(False), "LSTM, both directions": filler(True)}
filled = {"straight line": straight(truth, ~hidden_test)}
for name, model in fillers.items():
    filled[name] = model.predict(x_test, verbose=0)[..., 0] * SCALE + level
for name, values in filled.items():
    print(f"{name:22} mean absolute error in the gap {np.abs(values - truth)[hidden_test].mean():.2f} ppm")

# %% [markdown]
# Now the real gap of 18 weeks, where nobody knows the truth. To either side the model sees what was measured; shorter
# gaps nearby are missing to it as they are to us.

# %%
edges = np.flatnonzero(np.diff(np.concatenate([[0], ~known, [0]]).astype(int)))
gaps = edges.reshape(-1, 2)
at, end = gaps[np.argmax(gaps[:, 1] - gaps[:, 0])]
part = slice((at + end - SPAN) // 2, (at + end + SPAN) // 2)
there = known[part][None]
x_gap, level = relative(co2[part][None], there)
best = fillers["LSTM, both directions"]
guesses = {"straight line": straight(co2[part][None], there)[0]}
guesses["LSTM, both directions"] = best.predict(x_gap, verbose=0)[0, :, 0] * SCALE + level[0]
guesses = {name: np.where(there[0], np.nan, values) for name, values in guesses.items()}
plotting.plot_predictions(co2[part], guesses, time=weeks[part], label="measured", xlabel="week", ylabel="CO2 (ppm)")
plt.show()

# %% [markdown]
# Does it use both sides? The gradient of what it says in the middle of the gap, with respect to the states of both
# layers: the forward layer carries the weeks before, the backward layer those after.

# %%
middle = (at + end) // 2 - part.start
trace = best.trace(x_gap, output=lambda out: out[:, middle])
axes = plotting.plot_gradient_norms(trace)
axes.axvspan(at - part.start, end - part.start - 1, color="0.9", zorder=0)
axes.set_title("d value in the middle of the gap (grey) / d state", fontsize="medium")
axes.set_xlabel("week of the window")
plt.show()

# %% [markdown]
# ## In short
#
# - Split in time, scale by the training part, forecast from every origin of the test, and put the naive forecasts into
#   the same table.
# - Windows are the plain way. `stateful=True` reads one long series in pieces: in order, unshuffled, reset before it is
#   read again.
# - Several steps: all at once, or one by one with the forecasts fed back. Show errors by horizon.
# - Missing values: a mask for what comes in, `sample_weight` for what is asked.
# - `Bidirectional` is for what lies between, never for what lies ahead.
