"""One timestep at a time: the bits of whole sequences, the states, compiled code, errors."""

import copy
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numba
import numpy as np
import pytest

from numbarnn import layers, models, optimizers
from numbarnn.kernels import streaming

BATCH, TIMESTEPS, FEATURES = 3, 6, 5


def sequential(*stack, features=FEATURES, dtype="float32"):
    return models.Sequential([layers.Input((None, features), dtype=dtype), *stack])


def cell_layer(kind, units=11, return_sequences=False, **options):
    made = {
        "LSTM": layers.LSTM,
        "GRU": layers.GRU,
        "GRU_reset_before": lambda *args, **given: layers.GRU(*args, reset_after=False, **given),
        "SimpleRNN": layers.SimpleRNN,
    }[kind]
    return made(units, return_sequences=return_sequences, bias_initializer="uniform", **options)


def shake(model, rng):
    """Give all weights values of no special kind, variances positive ones."""
    for variable in model.variables:
        if variable.dtype.kind == "f":
            value = rng.uniform(-0.2, 0.6, variable.shape)
            variable.assign(np.abs(value) + 0.05 if "variance" in variable.name else value)


def prefixes(model, x):
    """What the model predicts after each timestep: from sequences that end there."""
    out = [model.predict(x[:, : t + 1], verbose=0) for t in range(x.shape[1])]
    return [o[:, -1] if o.ndim == 3 else o for o in out]


def assert_same_bits(model, x):
    """Step through `x`, from Python and from compiled code, and compare with the prefixes."""
    stepper = model.stepper(len(x))
    expected = prefixes(model, x)
    assert len({e.tobytes() for e in expected}) == len(expected), "outputs are alike"
    for t, y in enumerate(expected):
        found = stepper(x[:, t])
        assert found.dtype == y.dtype and found.shape == y.shape == stepper.output_shape
        assert found.tobytes() == y.tobytes(), f"timestep {t}"
    stepper.reset()
    f, s = stepper.jit()
    out = np.empty(stepper.output_shape, stepper.dtype)
    for t, y in enumerate(expected):
        f(s, np.ascontiguousarray(x[:, t], stepper.input_dtype), out)
        assert out.tobytes() == y.tobytes(), f"timestep {t}"


# --------------------------------------------------------------------------------------------------- the same bits


@pytest.mark.parametrize("batch", [1, BATCH])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "GRU_reset_before", "SimpleRNN"])
def test_cells(kind, batch, rng):
    model = sequential(cell_layer(kind))
    assert_same_bits(model, rng.normal(size=(batch, TIMESTEPS, FEATURES)).astype("f4"))


@pytest.mark.parametrize("units", [1, 16, 37])
def test_sizes_around_the_vectors(units, rng):
    model = sequential(cell_layer("LSTM", units), features=1)
    assert_same_bits(model, rng.normal(size=(1, TIMESTEPS, 1)).astype("f4"))


@pytest.mark.parametrize(
    ("kind", "activations"),
    [("SimpleRNN", {}), pytest.param("LSTM", {"recurrent_activation": "hard_sigmoid"}, marks=pytest.mark.slow)],
)
def test_float64_and_activations_of_run_time(kind, activations, rng):
    layer = cell_layer(kind, activation="gelu", use_bias=False, dtype="float64", **activations)
    model = sequential(layer, layers.Dense(4, dtype="float64"), dtype="float64")
    assert_same_bits(model, rng.normal(size=(BATCH, TIMESTEPS, FEATURES)))


@pytest.mark.slow  # kinds of chains of their own to compile
def test_layers_around_and_between(rng):
    model = sequential(
        layers.SpatialDropout1D(0.5),
        layers.BatchNormalization(scale=False),
        layers.Dense(7, use_bias=False),
        layers.TimeDistributed(models.Sequential([layers.LayerNormalization(center=False), layers.Dropout(0.5)])),
        cell_layer("SimpleRNN"),
        layers.Identity(),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.Dense(3),
    )
    shake(model, rng)
    assert_same_bits(model, rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4"))


@pytest.mark.parametrize("channels", [2, 8, 61])
def test_layer_normalization_by_itself(channels, rng):
    model = sequential(layers.LayerNormalization(), features=channels)
    shake(model, rng)
    assert_same_bits(model, (3 + rng.normal(size=(BATCH, TIMESTEPS, channels))).astype("f4"))


ACTIVATIONS = [
    "gelu", "hard_sigmoid", "relu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations(dtype, rng):
    x = (4 * rng.normal(size=(BATCH, TIMESTEPS, 19))).astype(dtype)
    x[:, 1, :5] = 0.0, -0.0, np.inf, -np.inf, np.nan
    for name in ACTIVATIONS:
        assert_same_bits(sequential(layers.Activation(name, dtype=dtype), features=19, dtype=dtype), x)


def test_activations_of_dense_and_sequences_out(rng):
    model = sequential(layers.Dense(9, activation="softmax", bias_initializer="uniform"), layers.Dense(2, "relu"))
    assert_same_bits(model, rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4"))


def test_ids_go_through_the_embedding(rng):
    model = models.Sequential([layers.Embedding(13, 4), cell_layer("GRU")])
    for dtype in ("int64", "int32", "uint8"):
        assert_same_bits(model, rng.integers(0, 13, (BATCH, TIMESTEPS)).astype(dtype))


def test_a_stack_of_cells_in_either_order_of_states(rng):
    x = rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4")
    for reverse in (False, True):
        cells = [layers.SimpleRNNCell(6), layers.SimpleRNNCell(4)]
        stack = layers.StackedRNNCells(cells, reverse_state_order=reverse)
        model = sequential(layers.RNN(stack))
        assert_same_bits(model, x)
        stepper = model.stepper(BATCH)
        for t in range(TIMESTEPS):
            stepper(x[:, t])
        expected = layers.RNN(stack, return_state=True)(x)[1:]
        assert [s.tobytes() for s in stepper.states[0]] == [s.tobytes() for s in expected]


@pytest.mark.slow  # kinds of chains of their own to compile
def test_functional_chains_and_models_within(rng):
    inner = models.Sequential([layers.Input((None, FEATURES)), cell_layer("SimpleRNN")])
    twice = layers.Dense(11, activation="tanh", bias_initializer="uniform")
    x = layers.Input((None, FEATURES))
    drawn = models.Model(x, twice(twice(inner(x))))
    model = sequential(drawn, layers.Dense(2))
    assert_same_bits(model, rng.normal(size=(1, TIMESTEPS, FEATURES)).astype("f4"))


def test_a_nan_stays_in_its_row(rng):
    x = rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4")
    model = sequential(cell_layer("LSTM"))
    clean, stepper = model.stepper(BATCH), model.stepper(BATCH)
    for t in range(TIMESTEPS):
        expected = clean(x[:, t])
        step = x[:, t].copy()
        step[1] = np.nan
        found = stepper(step)
        assert np.isnan(found[1]).all()
        assert found[::2].tobytes() == expected[::2].tobytes()


# --------------------------------------------------------------------------------------------------- states, weights


@pytest.fixture
def lstm():
    return sequential(cell_layer("LSTM"))


def steps(rng, count=TIMESTEPS, batch=BATCH):
    return rng.normal(size=(count, batch, FEATURES)).astype("f4")


def test_states_are_those_of_the_layer_and_are_new_each_time(rng):
    layer = cell_layer("LSTM", return_state=True)
    x = steps(rng)
    expected = layer(np.swapaxes(x, 0, 1))[1:]
    model = sequential(layers.LSTM.from_config({**layer.get_config(), "return_state": False}))
    model.set_weights(layer.get_weights())
    stepper = model.stepper(BATCH)
    (first,) = stepper.states
    assert [s.shape for s in first] == [(BATCH, 11)] * 2 and not any(s.any() for s in first)
    for step in x:
        stepper(step)
    (last,) = stepper.states
    assert [s.tobytes() for s in last] == [s.tobytes() for s in expected]
    assert not any(s.flags.writeable for s in last) and not first[0].any()


def test_reset_sets_states_by_row(lstm, rng):
    x = steps(rng)
    stepper = lstm.stepper(BATCH)
    start = stepper(x[0])
    stepper(x[1])
    stepper.reset(mask=[True, False, True])
    again = stepper(x[0])
    assert (again[::2] == start[::2]).all() and (again[1] != start[1]).any()
    kept = stepper.states
    following = stepper(x[2])
    stepper(x[3])
    stepper.reset(kept)
    assert stepper(x[2]).tobytes() == following.tobytes()
    stepper.reset([[np.ones((BATCH, 11)), np.zeros((BATCH, 11))]], mask=np.array([False, True, False]))
    (h, c), ((h0, c0),) = stepper.states[0], [[np.array(s) for s in kept[0]]]
    assert (h[1] == 1).all() and (c[1] == 0).all() and (h[0] != 1).all()
    assert h0.shape == c0.shape


def test_a_layer_of_ones_own_first_states_starts_from_them(rng):
    class Warm(layers.LSTM):
        def get_initial_state(self, batch_size):
            return [np.full((batch_size, self.units), 0.5, "f4") for _ in range(2)]

    model = sequential(Warm(11))
    assert_same_bits(model, rng.normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("f4"))
    stepper = model.stepper()
    assert (stepper.states[0][0] == 0.5).all()


def test_a_stateful_layer_is_left_alone(rng):
    model = models.Sequential([layers.Input(batch_shape=(1, None, FEATURES)), layers.LSTM(11, stateful=True)])
    before = [s.copy() for s in model.layers[0].states]
    stepper = model.stepper()
    stepper(steps(rng, batch=1)[0])
    assert all((a == b).all() for a, b in zip(model.layers[0].states, before, strict=True))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda stepper: pickle.loads(pickle.dumps(stepper))])
def test_a_copy_goes_on_by_itself(lstm, copied, rng):
    x = steps(rng)
    stepper = lstm.stepper(BATCH)
    stepper(x[0])
    twin = copied(stepper)
    second = stepper(x[1])
    assert twin(x[1]).tobytes() == second.tobytes()
    twin.reset()
    assert stepper.states[0][0].tobytes() == second.tobytes()


def test_weights_that_change_are_seen(lstm, rng):
    x = np.swapaxes(steps(rng), 0, 1)
    stepper = lstm.stepper(BATCH)
    f, s = stepper.jit()
    old = stepper(x[:, 0])
    lstm.compile(optimizers.SGD(1.0), "mse")
    lstm.train_on_batch(x, np.ones((BATCH, 11), "f4"))
    stepper.reset()
    new = stepper(x[:, 0])
    assert new.tobytes() == lstm.predict(x[:, :1], verbose=0).tobytes() and (new != old).any()
    out = np.empty_like(new)
    stepper.reset()
    f(s, x[:, 0].copy(), out)
    assert out.tobytes() == old.tobytes(), "`s` holds the weights as they were"
    stepper.reset()
    f, s = stepper.jit()
    f(s, x[:, 0].copy(), out)
    assert out.tobytes() == new.tobytes()


def test_a_changed_model_is_refused_an_unchanged_one_is_not(lstm, rng):
    stepper = lstm.stepper(BATCH)
    x = steps(rng)
    stepper(x[0])
    states = stepper.states
    sequential(layers.Dense(2))  # another model, which moves the clock of changes
    expected = lstm.predict(np.swapaxes(x[:2], 0, 1), verbose=0)
    assert stepper(x[1]).tobytes() == expected.tobytes()
    stepper.reset(states)
    lstm.add(layers.Dense(2))
    for call in (lambda: stepper(x[1]), stepper.jit):
        with pytest.raises(RuntimeError, match="has changed"):
            call()
    assert stepper.states[0][0].tobytes() == states[0][0].tobytes()


# --------------------------------------------------------------------------------------------------- compiled code


def test_python_and_compiled_code_share_the_states(lstm, rng):
    x = steps(rng)
    expected = lstm.predict(np.swapaxes(x, 0, 1), verbose=0)
    stepper = lstm.stepper(BATCH)
    f, s = stepper.jit()

    @numba.njit
    def run(s, xs, out):
        for t in range(len(xs)):
            f(s, xs[t], out)

    out = np.empty(stepper.output_shape, "f4")
    run(s, x[:3], out)
    stepper(x[3])
    run(s, x[4:], out)
    assert out.tobytes() == expected.tobytes()


def test_compiled_code_checks_shapes_and_ids(lstm, rng):
    f, s = lstm.stepper().jit()
    out = np.zeros((1, 11), "f4")
    for x, y in (
        (np.ones((1, 4), "f4"), out),
        (np.ones((2, 5), "f4"), out),
        (np.ones((1, 5), "f4"), out[:, :-1].copy()),
    ):
        with pytest.raises(ValueError, match="must have the shape"):
            f(s, x, y)
    with pytest.raises(ValueError, match="room"):
        f((s[0]._replace(room=s[0].room[:1].copy()),), np.ones((1, 5), "f4"), out)
    assert not out.any() and not s[0].states.any()
    stepper = models.Sequential([layers.Embedding(13, 4), cell_layer("GRU")]).stepper(2)
    f, s = stepper.jit()
    for ids in ([0, 13], [-1, 0]):
        with pytest.raises(IndexError, match="not in the table"):
            f(s, np.array(ids), np.zeros((2, 11), "f4"))
        with pytest.raises(IndexError, match=r"in \[0, 13\).*x=\[.*"):
            stepper(ids)
    with pytest.raises(ValueError, match="must have the shape"):
        f(s, np.array([1, 2, 3]), np.zeros((2, 11), "f4"))
    assert not stepper.states[0][0].any()


@pytest.mark.parametrize(
    ("name", "x", "out"),
    [
        ("x", np.ones((1, 5)), np.zeros((1, 11), "f4")),
        ("x", np.ones((1, 10), "f4")[:, ::2], np.zeros((1, 11), "f4")),
        ("x", np.ones(5, "f4"), np.zeros((1, 11), "f4")),
        ("out", np.ones((1, 5), "f4"), np.zeros((1, 11))),
    ],
)
def test_compiled_code_names_the_argument_of_another_type(name, x, out, lstm):
    f, s = lstm.stepper().jit()
    with pytest.raises(numba.TypingError, match=rf"f\(s, x, out\): {name} must be a C-contiguous array of float32"):
        f(s, x, out)


PROCESS = """
import json
import numba
import numpy as np
from numbarnn import layers, models, utils

utils.set_random_seed(0)
f, s = models.Sequential([layers.Input((None, 5)), layers.LSTM(11)]).stepper().jit()

@numba.njit(cache=True)
def run(s, xs, out):
    for t in range(len(xs)):
        f(s, xs[t], out)

def main():
    out = np.empty((1, 11), "float32")
    run(s, np.ones((4, 1, 5), "float32"), out)
    print(json.dumps([out.tolist(), sum(run.stats.cache_hits.values())]))
    x = np.ones((1, 5), "float32")
    f(s, x, out)
    print(sum(f.stats.cache_hits.values()))
"""


def test_a_second_process_finds_the_compiled_code(tmp_path, monkeypatch):
    (tmp_path / "user.py").write_text(PROCESS)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "theirs"))  # ours stays where it was
    if "NUMBARNN_CACHE_DIR" not in os.environ:
        monkeypatch.setenv("NUMBARNN_CACHE_DIR", str(tmp_path / "ours"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(streaming.__file__).parents[2]), str(tmp_path)]))

    def run():
        done = subprocess.run(
            [sys.executable, "-c", "import user; user.main()"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        return *json.loads(first), int(second)

    values, hits, _ = run()
    assert hits == 0
    assert run() == (values, 1, 1)


@pytest.mark.parametrize("count", [1000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_steps_into_out_allocate_nothing(count, rng):
    model = models.Sequential([layers.Embedding(13, 4), cell_layer("GRU")])
    stepper = model.stepper(64)
    x, out = rng.integers(0, 13, 64), np.empty((64, 11), "f4")
    tracemalloc.start()
    try:
        for _ in range(500):  # Python keeps up to so many small objects for the next time
            stepper.step(x, out=out)
        grown, peaks = [], []
        for _ in range(3):  # an end of a thread or process of another test may fall into one of them
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(count):
                stepper.step(x, out=out)
            after, peak = tracemalloc.get_traced_memory()
            grown.append(after - before)
            peaks.append(peak - before)
    finally:
        tracemalloc.stop()
    assert min(grown) < 1000 and min(peaks) < 2000 < out.nbytes  # no array, not even for a moment


# --------------------------------------------------------------------------------------------------- arguments


def test_what_is_taken_as_x_and_out(lstm, rng):
    x = steps(rng)[0]
    expected = lstm.stepper(BATCH)(x)
    frozen = x.copy()
    frozen.flags.writeable = False
    for given in (x.tolist(), frozen, np.asfortranarray(x), x.astype("f8"), np.repeat(x, 2, axis=1)[:, ::2]):
        assert lstm.stepper(BATCH).step(given).tobytes() == expected.tobytes()
    whole = np.ones((BATCH, FEATURES), int)
    assert lstm.stepper(BATCH)(whole).tobytes() == lstm.predict(whole[:, None], verbose=0).tobytes()
    out = np.empty_like(expected)
    assert lstm.stepper(BATCH).step(x, out=out) is out and out.tobytes() == expected.tobytes()


def test_out_may_be_x(rng):
    model = sequential(cell_layer("SimpleRNN", FEATURES))
    x = steps(rng)[0]
    expected = model.stepper(BATCH)(x)
    assert model.stepper(BATCH).step(x, out=x).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("error", "x", "out"),
    [
        (TypeError, np.array([["a"] * FEATURES] * BATCH), None),
        (TypeError, np.ones((BATCH, FEATURES), "c8"), None),
        (ValueError, np.ones(FEATURES, "f4"), None),
        (ValueError, np.ones((BATCH, 1, FEATURES), "f4"), None),
        (TypeError, np.ones((BATCH, FEATURES), "f4"), np.empty((BATCH, 11))),
        (TypeError, np.ones((BATCH, FEATURES), "f4"), [[0.0] * 11] * BATCH),
        (ValueError, np.ones((BATCH, FEATURES), "f4"), np.empty((1, 11), "f4")),
        (ValueError, np.ones((BATCH, FEATURES), "f4"), np.empty((11, BATCH), "f4").T),
        (ValueError, np.ones((BATCH, FEATURES), "f4"), np.broadcast_to(np.float32(0), (BATCH, 11))),
    ],
)
def test_wrong_arguments_change_nothing(lstm, error, x, out):
    stepper = lstm.stepper(BATCH)
    with pytest.raises(error, match="Argument `x`" if out is None else "Argument `out`"):
        stepper.step(x, out=out)
    assert not stepper.states[0][0].any()


def test_ids_are_whole_numbers():
    stepper = models.Sequential([layers.Embedding(13, 4), cell_layer("GRU")]).stepper()
    with pytest.raises(TypeError, match="whole numbers"):
        stepper(np.array([1.0]))


def test_wrong_states_and_masks_change_nothing(rng):
    stepper = sequential(cell_layer("SimpleRNN", return_sequences=True), cell_layer("SimpleRNN")).stepper(BATCH)
    stepper(steps(rng)[0])
    good, before = [np.zeros((BATCH, 11), "f4")], stepper.states
    for states, mask in [
        (good[0], None),
        ([good], None),
        ([good, good * 2], None),
        ([good, [np.zeros((1, 11))]], None),
        ([good, [good[0] + 0j]], None),
        (None, [True, False]),
        (None, [1, 0, 1]),
    ]:
        with pytest.raises(ValueError):
            stepper.reset(states, mask)
    for a, b in zip(stepper.states, before, strict=True):
        assert [s.tobytes() for s in a] == [s.tobytes() for s in b]


@pytest.mark.parametrize(
    ("batch_size", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), (None, TypeError)]
)
def test_the_batch_size_is_checked(lstm, batch_size, error):
    with pytest.raises(error, match="batch_size"):
        lstm.stepper(batch_size)


class Tripled(layers.Dense):
    def call(self, inputs):
        return 3 * super().call(inputs)


class Peephole(layers.LSTMCell):
    def call(self, inputs, states, training=False):
        return super().call(inputs, states, training)


def within(layer):
    return models.Sequential([layers.Input((4, FEATURES)), layer])


REFUSED = {
    "bidirectional": (lambda: within(layers.Bidirectional(layers.LSTM(2))), "Bidirectional.*second direction"),
    "masking": (lambda: within(layers.Masking()), "Masking.*no padding"),
    "mask_zero": (lambda: models.Sequential([layers.Embedding(5, 2, mask_zero=True)]), "mask_zero"),
    "backwards": (lambda: within(layers.LSTM(2, go_backwards=True, name="back")), "'back'.*go_backwards"),
    "time_major": (lambda: within(layers.LSTM(2, time_major=True)), "time_major"),
    "states": (
        lambda: models.Sequential([layers.Input((4, FEATURES)), layers.LSTM(2, return_state=True)]),
        "return_st",
    ),
    "own cell": (lambda: within(layers.RNN(Peephole(2))), "does not run on kernels"),
    "activation of a cell": (
        lambda: within(layers.LSTM(2, activation="softmax")),
        "does not run on kernels.*`LSTMCell`",
    ),
    "activation": (lambda: within(layers.Dense(2, activation="elu")), "activation is elu.*softplus"),
    "own call": (lambda: within(Tripled(2)), "Tripled.*`call` of its own"),
    "flatten": (lambda: within(layers.Flatten()), "Flatten.*only these can"),
    "pooling": (lambda: within(layers.GlobalMaxPooling1D()), "GlobalMaxPooling1D.*only these can"),
    "lambda": (lambda: within(layers.Lambda(lambda x: x)), "Lambda.*only these can"),
    "axis of a batch": (lambda: within(layers.BatchNormalization(axis=1)), "axis=1"),
    "axis of a row": (lambda: within(layers.LayerNormalization(axis=[1, 2])), r"axis=\[1, 2\]"),
    "half": (lambda: within(layers.Dense(2, dtype="mixed_float16")), "float16"),
    "two types": (lambda: sequential(layers.Dense(2), layers.Dense(2, dtype="float64")), "float64"),
    "no ids": (lambda: models.Sequential([layers.Input((4,)), layers.Dense(2)]), "ids"),
    "no layer": (lambda: within(layers.Dropout(0.5)), "nothing to step"),
    "not built": (lambda: models.Sequential([layers.LSTM(2)]), "built"),
    "four axes": (lambda: models.Sequential([layers.Input((4, 3, 2)), layers.Dense(2)]), "input_shape"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_streamed_is_refused_by_name(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make().stepper()


def test_graphs_that_are_no_chain_are_refused():
    x, other = layers.Input((None, FEATURES)), layers.Input((None, FEATURES))
    read = layers.LSTM(FEATURES, return_sequences=True)(x)
    wide = layers.Input((None, FEATURES), dtype="float64")

    class Own(models.Model):
        def call(self, inputs):
            return inputs

    class Shifted(models.Sequential):
        def predict_step(self, data):
            return super().predict_step(data) + 1

    for model, message in [
        (models.Model([x, other], layers.add([x, other])), "input"),
        (models.Model(x, layers.add([x, read])), "takes more than"),
        (models.Model(x, layers.LSTM(2)(read, initial_state=[read[:, 0, :2]] * 2)), "cannot run"),
        (models.Model(x, read + 1), "operation"),
        (models.Model(wide, layers.Dense(2)(wide)), "operation 'cast'"),
        (models.Model(wide, models.Sequential([layers.Dense(2)])(wide)), "casts its input to float64"),
        (Own(), "`call` of its own"),
        (sequential(Own()), "Own.*`call` of its own"),
        (Shifted([layers.Input((None, FEATURES)), layers.Dense(2)]), "predict_step"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.stepper()
