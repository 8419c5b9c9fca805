"""Sequences of different lengths: `pad`, `pad_sequences`, `Ragged` on its own, and in `fit`, `evaluate`, `predict`."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import backend, layers, losses, models, ops, optimizers
from numbarnn.layers import get_mask, set_mask
from numbarnn.models.ragged import Padded
from numbarnn.testing import assert_close
from numbarnn.utils import Ragged, pad, pad_sequences

F, U = 3, 4
LENGTHS = (5, 2, 9, 0, 7, 1, 3, 9, 4, 6)


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()


def sequences(rng, *trailing, lengths=LENGTHS, dtype="float32"):
    return [rng.standard_normal((n, *trailing)).astype(dtype) for n in lengths]


def same(actual, expected):
    """Assert that two arrays, or the sequences of two, are the same bits."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------------------------------------- pad


@pytest.mark.parametrize(
    ("arguments", "expected", "mask"),
    [
        ({}, [[1, 0, 0], [2, 3, 0], [4, 5, 6], [0, 0, 0]], ["100", "110", "111", "000"]),
        ({"padding": "pre"}, [[0, 0, 1], [0, 2, 3], [4, 5, 6], [0, 0, 0]], ["001", "011", "111", "000"]),
        ({"maxlen": 2}, [[1, 0], [2, 3], [4, 5], [0, 0]], ["10", "11", "11", "00"]),
        ({"maxlen": 2, "truncating": "pre"}, [[1, 0], [2, 3], [5, 6], [0, 0]], ["10", "11", "11", "00"]),
        (
            {"maxlen": 4, "padding": "pre", "value": -1},
            [[-1, -1, -1, 1], [-1, -1, 2, 3], [-1, 4, 5, 6], [-1] * 4],
            ["0001", "0011", "0111", "0000"],
        ),
        ({"maxlen": 0}, [[], [], [], []], ["", "", "", ""]),
    ],
)
@pytest.mark.parametrize("kind", [list, tuple, iter, Ragged])
def test_pad(arguments, expected, mask, kind):
    x, found = pad(kind([[1], [2, 3], [4, 5, 6], []]), **arguments)
    assert x.dtype == np.int64 and found.dtype == bool
    same(x, np.array(expected, np.int64).reshape(4, -1))
    same(found, np.array([[c == "1" for c in row] for row in mask], bool).reshape(4, -1))


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        ([[1.0], [2.0, 3.0]], None, "float32"),
        ([[1], [2, 3]], None, "int64"),
        ([np.ones(2, "int32"), np.ones(1, "int32")], None, "int32"),
        ([np.ones(2, "int32"), np.ones(1, "float32")], None, "float32"),
        ([np.ones(2, "float64"), [1.0]], None, "float64"),
        ([np.ones(2, "float32"), [1.0], [1]], None, "float32"),
        ([np.ones(2, "float16"), np.ones(3, "float16")], None, "float32"),
        ([[np.float64(1.0)], [np.float64(1.0)] * 2], None, "float64"),
        ([[True], [False, True]], None, "bool"),
        ([[], []], None, "float32"),
        ([np.ones((0, 3), "int8"), []], None, "int8"),
        ([[1], [2, 3]], "float64", "float64"),
        ([[1.0], [2, 3]], "int32", "int32"),
    ],
)
def test_types(given, dtype, expected):
    assert pad(given, dtype=dtype)[0].dtype == expected
    assert Ragged(given, dtype=dtype).dtype == expected


def test_plain_floats_are_floatx():
    backend.set_floatx("float64")
    assert pad([[1.0], [2.0, 3.0]])[0].dtype == np.float64


def test_trailing_axes(rng):
    given = sequences(rng, 2, 3)
    x, mask = pad(given)
    assert x.shape == (10, 9, 2, 3)
    for row, counts, sequence in zip(x, mask, given, strict=True):
        same(row[counts], sequence)
        assert not row[~counts].any()
    assert pad([[], np.ones((2, 3))])[0].shape == (2, 2, 3)


@pytest.mark.parametrize(
    ("given", "arguments", "error", "message"),
    [
        (3, {}, ValueError, "`sequences` must be a list of sequences. Received: 3"),
        ("abc", {}, ValueError, "`sequences` must be a list of sequences"),
        ([[1], 2], {}, ValueError, "non-iterable one: 2"),
        ([np.array(3)], {}, ValueError, "non-iterable one"),
        ([[1], iter([2])], {}, ValueError, "non-iterable one"),
        (["abc"], {}, ValueError, "non-iterable one: 'abc'"),
        ([[[1, 2], [3]]], {}, ValueError, "A sequence cannot be turned into an array"),
        ([["a"], ["b"]], {}, TypeError, "must hold numbers or booleans"),
        ([[1j]], {}, TypeError, "must hold numbers or booleans"),
        ([[1]], {"padding": "left"}, ValueError, '`padding` must be "pre" or "post"'),
        ([[1]], {"truncating": "both"}, ValueError, '`truncating` must be "pre" or "post"'),
        ([[1]], {"maxlen": -1}, ValueError, "`maxlen` must not be negative. Received: maxlen=-1"),
        ([[1]], {"value": 0.5}, ValueError, "`value` must be a number that int64 can hold. Received: value=0.5"),
        ([[1]], {"value": np.nan}, ValueError, "`value` must be a number that int64 can hold"),
        ([[1.0]], {"value": "x"}, ValueError, "`value` must be a number that float32 can hold"),
        ([np.ones((2, 3)), np.ones((2, 4))], {}, ValueError, r"trailing shape \(3,\). Received one with \(4,\)"),
        ([np.ones((2, 3)), np.ones(2)], {}, ValueError, r"trailing shape \(3,\). Received one with \(\)"),
        ([np.ones((2, 3)), np.ones((0, 4))], {}, ValueError, r"trailing shape \(3,\). Received one with \(4,\)"),
    ],
)
def test_pad_refuses(given, arguments, error, message):
    with pytest.raises(error, match=message):
        pad(given, **arguments)


def test_nan_may_stand_for_padding():
    x, mask = pad([[1.0], [2.0, 3.0]], value=np.nan)
    np.testing.assert_array_equal(np.isnan(x), ~mask)


def test_inputs_are_not_written_to(rng):
    given = sequences(rng, F)
    before = copy.deepcopy(given)
    pad(given, maxlen=3)[0][...] = 7
    same(given, before)


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(20))
def test_pad_sequences_is_keras(seed):
    keras = pytest.importorskip("keras")
    rng = np.random.default_rng(seed)
    trailing = [(), (2,), (2, 3)][seed % 3]
    given = [rng.integers(0, 9, (n, *trailing)) for n in rng.integers(0, 7, 5)]
    given[seed % 5] = rng.integers(0, 9, (3, *trailing))
    if seed % 2:
        given = [g.tolist() if len(g) else [] for g in given]
    arguments = {
        "maxlen": [None, 3, 8][seed % 3],
        "dtype": ["int32", "float32", "float64"][seed % 3],
        "padding": str(rng.choice(["pre", "post"])),
        "truncating": str(rng.choice(["pre", "post"])),
        "value": int(rng.integers(-2, 3)),
    }
    ours, theirs = pad_sequences(given, **arguments), keras.utils.pad_sequences(given, **arguments)
    assert ours.dtype == theirs.dtype
    same(ours, theirs)


@pytest.mark.parity
@pytest.mark.parametrize("given", [iter([[1]]), ([1] for _ in range(2)), 3, [[1], 2], [np.array(3)]])
def test_pad_sequences_refuses_what_keras_refuses(given):
    keras = pytest.importorskip("keras")
    for function in (keras.utils.pad_sequences, pad_sequences):
        with pytest.raises(ValueError, match="`sequences` must be"):
            function(given)


# ---------------------------------------------------------------------------------------------------- Ragged


def test_a_ragged_is_a_sequence_of_arrays(rng):
    given = sequences(rng, F)
    ragged = Ragged(given)
    assert len(ragged) == 10
    assert ragged.shape == (10, None, F) and ragged.ndim == 3
    same(ragged.lengths, np.array(LENGTHS))
    same(list(ragged), given)
    assert all(a is b for a, b in zip(ragged, given, strict=True))  # not copied
    same(ragged[-1], given[-1])
    same(list(ragged[1:8:3]), given[1:8:3])
    same(list(ragged[[3, 0, -1]]), [given[3], given[0], given[-1]])
    same(list(ragged[np.array([2, 2])]), [given[2], given[2]])
    same(list(ragged[ragged.lengths > 4]), [s for s in given if len(s) > 4])
    same(list(ragged[np.array([3, 0]), ...]), [given[3], given[0]])
    assert len(ragged[[]]) == len(ragged[:0]) == 0
    for index in (10, -11, [10], "a", (0, 1, 2.5), (..., 0), (0, ..., 0), None, np.zeros((2, 2), int), [True]):
        with pytest.raises((IndexError, TypeError)):
            ragged[index]
    with pytest.raises(ValueError, match="read-only"):
        ragged.lengths[0] = 3


def test_a_ragged_of_another_type(rng):
    given = sequences(rng, F)
    twin = Ragged(given).astype("float64")
    assert twin.dtype == np.float64
    same(list(twin[2:4]), [s.astype("float64") for s in given[2:4]])
    assert all(s.dtype == np.float32 for s in given)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x)), Ragged])
def test_copies(rng, how):
    ragged = Ragged(sequences(rng, F))
    twin = how(ragged)
    assert repr(twin) == repr(ragged)
    same(list(twin), list(ragged))


def test_how_a_ragged_shows():
    assert repr(Ragged([[1], [2, 3]])) == "Ragged(2 sequences of 1 to 2 timesteps, int64)"
    assert repr(Ragged([])) == "Ragged(0 sequences, float32)"


def test_a_ragged_is_no_array(rng):
    ragged = Ragged(sequences(rng, F))
    for attempt in (np.asarray, lambda x: x + np.ones(3), layers.LSTM(3), layers.Dense(3)):
        with pytest.raises(TypeError, match="x, mask = numbarnn.utils.pad"):
            attempt(ragged)


# ---------------------------------------------------------------------------------------------------- in models


def tagger(*more, **options):
    """A model with outputs at every timestep."""
    return models.Sequential(
        [layers.LSTM(U, return_sequences=True), *more, layers.TimeDistributed(layers.Dense(2))], **options
    )


def one_by_one(model, x):
    """Ask the model for each sequence alone: no padding, no mask (layers take no sequence without timesteps)."""
    return [
        np.asarray(model(s[None]))[0] if len(s) else np.asarray(model(np.ones((1, 1, *s.shape[1:]), s.dtype)))[0, :0]
        for s in x
    ]


def test_predict_at_every_timestep(rng):
    model, x = tagger(), Ragged(sequences(rng, F))
    model.build((None, None, F))
    for batch_size in (1, 3, 32):
        found = model.predict(x, batch_size=batch_size, verbose=0)
        assert isinstance(found, Ragged)
        assert found.shape == (10, None, 2) and found.dtype == np.float32
        same(list(found), one_by_one(model, x))
    same(list(model.predict_on_batch(x)), list(found))
    model.run_eagerly = True
    same(list(model.predict_on_batch(x)), list(found))


def test_predict_one_output_a_sequence(rng):
    model = models.Sequential([layers.LSTM(U), layers.Dense(2)])
    given = [s for s in sequences(rng, F) if len(s)]
    found = model.predict(Ragged(given), batch_size=4, verbose=0)
    assert type(found) is np.ndarray
    same(found, np.stack(one_by_one(model, given)))


def test_an_empty_sequence_is_a_row_masked_whole(rng):
    model = models.Sequential([layers.LSTM(U)])
    found = model.predict(Ragged([np.empty((0, F), "float32"), rng.standard_normal((3, F))]), verbose=0)
    assert not found[0].any() and found[1].any()
    assert not model.predict(Ragged([np.empty((0, F), "float32")] * 2), verbose=0).any()
    assert [len(y) for y in tagger().predict(Ragged([np.empty((0, F)), np.ones((3, F))]), verbose=0)] == [0, 3]


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [layers.Embedding(9, 5)],
        lambda: [layers.Embedding(9, 5, mask_zero=True)],
        lambda: [layers.Embedding(9, 5), layers.Dropout(0.5), layers.BatchNormalization(), layers.Activation("tanh")],
        lambda: [models.Sequential([layers.Embedding(9, 5), layers.Dense(5)])],
    ],
    ids=["Embedding", "mask_zero", "more", "model"],
)
def test_the_mask_reaches_the_layers_behind(rng, stack):
    # As if a Masking layer had made it; warnings about masks that are lost are errors here.
    model = models.Sequential([*stack(), layers.LSTM(U, return_sequences=True), layers.LSTM(U)])
    x = Ragged([rng.integers(1, 9, n) for n in LENGTHS if n])
    same(model.predict(x, verbose=0), np.stack(one_by_one(model, x)))


@pytest.mark.parametrize(
    "stack",
    [
        lambda: [layers.Bidirectional(layers.LSTM(U, return_sequences=True)), layers.Bidirectional(layers.GRU(U))],
        lambda: [layers.RNN([layers.GRUCell(U), layers.LSTMCell(U)])],
        lambda: [layers.SimpleRNN(U, return_sequences=True), layers.SimpleRNN(U, go_backwards=True)],
        lambda: [layers.GRU(U, return_sequences=True, zero_output_for_mask=True), layers.GlobalAveragePooling1D()],
        lambda: [layers.LayerNormalization(), layers.SpatialDropout1D(0.5), layers.LSTM(U)],
        lambda: [layers.TimeDistributed(layers.Dense(U)), layers.Activation("tanh"), layers.LSTM(U)],
    ],
    ids=["Bidirectional", "stacked", "SimpleRNN", "pooling", "normalization", "TimeDistributed"],
)
def test_every_layer_skips_the_padding(rng, stack):
    model = models.Sequential(stack())
    x = Ragged([s for s in sequences(rng, F) if len(s)])
    for one, two in zip(model.predict(x, verbose=0), one_by_one(model, x), strict=True):
        assert_close(one, two, 1e-6)


def test_sequences_of_sequences(rng):
    # Documents of different lengths, of sentences of one length: a sentence that is padding is masked whole.
    model = models.Sequential([layers.TimeDistributed(layers.LSTM(U)), layers.LSTM(U)])
    x = Ragged([s for s in sequences(rng, 4, F) if len(s)])
    same(model.predict(x, verbose=0), np.stack(one_by_one(model, x)))


def test_the_mask_is_that_of_the_padding(rng):
    class Spy(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self._set_untracked("seen", [])

        def call(self, x, mask=None):
            self.seen.append((x, mask))
            return x

    spy = Spy()
    model = models.Sequential([spy])
    model.run_eagerly = True
    x = Ragged(sequences(rng, F))
    model.predict(x, verbose=0)
    expected, mask = pad(x)
    same(spy.seen[-1][0], expected)
    same(spy.seen[-1][1], mask)


class Branches(models.Model):
    """Two inputs of different lengths, an output for each timestep of the second and one for the whole."""

    def __init__(self):
        super().__init__()
        self.encoder = layers.LSTM(U, return_state=True)
        self.decoder = layers.LSTM(U, return_sequences=True)
        self.head = layers.Dense(2)

    def call(self, inputs):
        _, h, c = self.encoder(inputs["source"])
        y = self.decoder(inputs["target"], initial_state=[h, c])
        return {"each": self.head(y), "whole": h}


def test_nests_of_inputs_and_outputs(rng):
    model = Branches()
    # Of equal length in some batches: there only the mask tells which input an output goes along with.
    source = Ragged(sequences(rng, F))
    target = Ragged(sequences(rng, F, lengths=LENGTHS[::-1]))
    found = model.predict({"source": source, "target": target}, batch_size=4, verbose=0)
    assert type(found["whole"]) is np.ndarray and isinstance(found["each"], Ragged)
    same(found["each"].lengths, target.lengths)
    for i in range(10):
        if source.lengths[i] and target.lengths[i]:
            alone = model({"source": source[i][None], "target": target[i][None]})
            same(found["each"][i], alone["each"][0])
            same(found["whole"][i], alone["whole"][0])
    model.compile("sgd", {"each": "mse", "whole": "mse"})
    y = {"each": Ragged([np.ones((n, 2)) for n in target.lengths]), "whole": np.ones((10, U))}
    history = model.fit({"source": source, "target": target}, y, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    with pytest.raises(ValueError, match="sequences of `y` must be as long as those of `x`"):
        model.fit({"source": source, "target": target[[*range(9), 9]]}, {**y, "each": y["each"][::-1][[*range(9), 0]]})


# ---------------------------------------------------------------------------------------------------- training


def reference_step(model, x, y, w=None):
    """Loss of one batch: the mean over all timesteps, of the squared error of each, weighted."""
    errors = [np.mean((a - b) ** 2, axis=-1) for a, b in zip(one_by_one(model, x), y, strict=True)]
    if w is not None:
        errors = [e * v for e, v in zip(errors, w, strict=True)]
    return np.concatenate(errors).mean()


@pytest.mark.parametrize("weights", [None, "samples", "timesteps"])
def test_loss_and_metrics_do_not_count_the_padding(rng, weights):
    model, x = tagger(), Ragged(sequences(rng, F))
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    y = Ragged(sequences(rng, 2))
    model.build((None, None, F))
    w = given = None
    if weights == "samples":
        given = rng.random(10)
        w = [np.full(n, one) for n, one in zip(LENGTHS, given, strict=True)]
    elif weights == "timesteps":
        w = [rng.random(n) for n in LENGTHS]
        given = Ragged(w)
    loss, mae, mse = model.test_on_batch(x, y, sample_weight=given)
    assert loss == pytest.approx(reference_step(model, x, y, w), rel=1e-5)
    ours, theirs = np.concatenate(one_by_one(model, x)), np.concatenate(list(y))
    assert mae == pytest.approx(np.abs(ours - theirs).mean(), rel=1e-5)
    values = ((ours - theirs) ** 2).mean(-1)
    weight = np.ones(len(values)) if w is None else np.concatenate(w)
    assert mse == pytest.approx((values * weight).sum() / weight.sum(), rel=1e-5)
    # Over several batches of different lengths too, every timestep counts once in the metrics.
    _, mae, mse = model.evaluate(x, y, batch_size=3, sample_weight=given, verbose=0)
    assert mae == pytest.approx(np.abs(ours - theirs).mean(), rel=1e-5)
    assert mse == pytest.approx((values * weight).sum() / weight.sum(), rel=1e-5)


def test_a_step_is_that_of_the_padded_batch(rng):
    x, y = Ragged(sequences(rng, F)), Ragged(sequences(rng, 2))
    ragged, by_hand = tagger(), models.Sequential([layers.Masking(-9.0), *tagger().layers])
    for model in (ragged, by_hand):
        model.build((None, None, F))
        model.compile("adam", "mse", metrics=["mae"])
    by_hand.set_weights(ragged.get_weights())
    array, mask = pad(x, value=-9.0)
    for _ in range(3):
        found = ragged.train_on_batch(x, y)
        expected = by_hand.train_on_batch(array, pad(y)[0])
        assert found == pytest.approx(expected, rel=1e-6)
    for one, two in zip(ragged.get_weights(), by_hand.get_weights(), strict=True):
        assert_close(one, two, 1e-5)


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_training_is_that_of_keras_on_the_padded_batch(rng):
    keras = pytest.importorskip("keras")
    x, y = Ragged([s for s in sequences(rng, F) if len(s)]), Ragged([s for s in sequences(rng, 2) if len(s)])
    ours = tagger()
    theirs = keras.Sequential(
        [
            keras.layers.Masking(-9.0),
            keras.layers.LSTM(U, return_sequences=True),
            keras.layers.TimeDistributed(keras.layers.Dense(2)),
        ]
    )
    ours.build((None, None, F))
    array, _ = pad(x, value=-9.0)
    theirs(array)
    theirs.set_weights(ours.get_weights())
    ours.compile(optimizers.SGD(0.1), "mse", metrics=["mae"])
    theirs.compile(keras.optimizers.SGD(0.1), "mse", metrics=["mae"])
    for _ in range(5):
        expected = theirs.train_on_batch(array, pad(y)[0])
        assert ours.train_on_batch(x, y) == pytest.approx([float(value) for value in expected], rel=1e-5)
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        assert_close(one, np.asarray(two), 1e-5)


def test_longer_padding_changes_nothing(rng):
    # What `fit` rounds lengths up for must not be seen in the weights.
    x, y = Ragged(sequences(rng, F)), Ragged(sequences(rng, 2))
    first, second = tagger(), tagger()
    for model in (first, second):
        model.build((None, None, F))
        model.compile("sgd", "mse")
    second.set_weights(first.get_weights())
    for model, longest in ((first, 9), (second, 13)):
        model._train_batch(Padded(*pad(x, longest)), Padded(*pad(y, longest)), None)
    for one, two in zip(first.get_weights(), second.get_weights(), strict=True):
        assert_close(one, two, 1e-6)


def test_fit_shuffles_and_splits(rng):
    x = Ragged([np.full((n + 1, 1), i, "float32") for i, n in enumerate(LENGTHS)])
    y = np.arange(10.0)
    seen = []

    def watch(y_true, y_pred):
        seen.append(y_true.ravel())
        return np.zeros(len(y_true))

    class First(layers.Layer):
        """The first timestep: the number of the sequence."""

        def __init__(self):
            super().__init__()
            self.supports_masking = True

        def build(self, shape):
            self.factor = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs):
            return inputs[:, 0] * self.factor

        def compute_mask(self, inputs, previous_mask=None):
            return None

    model = models.Sequential([First()])
    model.compile("sgd", "mse", metrics=[watch])
    history = model.fit(x, y, batch_size=4, epochs=2, validation_split=0.3, verbose=0).history
    assert history["loss"] == history["val_loss"] == [0.0, 0.0]  # every sequence with its own target
    batches = [b.tolist() for b in seen]
    assert [len(b) for b in batches] == [4, 3, 3, 4, 3, 3]
    assert sorted(batches[0] + batches[1]) == sorted(batches[3] + batches[4]) == list(range(7))
    assert batches[2] == batches[5] == [7, 8, 9]
    assert batches[:2] != batches[3:5]
    seen.clear()
    model.fit(x, y, batch_size=4, shuffle=False, validation_data=(x[:2], y[:2]), verbose=0)
    assert [b.tolist() for b in seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [0, 1]]
    assert model.evaluate(x, y, batch_size=3, verbose=0)[0] == 0.0


def test_learning(rng):
    # Did more ones than zeros come?
    x = Ragged([rng.integers(0, 2, n) for n in rng.integers(3, 30, 300)])
    y = np.array([s.mean() > 0.5 for s in x])
    model = models.Sequential([layers.Embedding(2, 4), layers.LSTM(8), layers.Dense(1)])
    model.compile(optimizers.Adam(0.02), losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(x, y, epochs=15, verbose=0, validation_split=0.2).history
    assert history["val_accuracy"][-1] > 0.75
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_targets_of_integers(rng):
    x = Ragged(sequences(rng, F))
    y = Ragged([rng.integers(0, 2, n) for n in LENGTHS])
    model = tagger()
    model.compile("sgd", losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    accuracy = model.evaluate(x, y, batch_size=4, verbose=0)[1]
    right = np.concatenate([p.argmax(-1) for p in one_by_one(model, x)]) == np.concatenate(list(y))
    assert accuracy == pytest.approx(right.mean())
    history = model.fit(x, y, verbose=0, epochs=20).history["loss"]
    assert history[-1] < history[0]


def test_an_output_that_has_lost_the_mask_takes_that_of_its_targets(rng):
    class Careless(models.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.LSTM(2, return_sequences=True)

        def call(self, x):
            return self.inner(x) * 2.0  # arithmetic has no mask

    model, x, y = Careless(), Ragged(sequences(rng, F)), Ragged(sequences(rng, 2))
    model.compile("sgd", "mse", metrics=["mae"])
    loss, mae = model.test_on_batch(x, y)
    assert loss == pytest.approx(reference_step(model, x, y), rel=1e-5)
    found = np.concatenate(one_by_one(model, x)) - np.concatenate(list(y))
    assert mae == pytest.approx(np.abs(found).mean(), rel=1e-5)
    with pytest.raises(ValueError, match="outputs of all batches must have one shape"):
        model.predict(x, batch_size=3, verbose=0)


def test_float64(rng):
    x = Ragged(sequences(rng, F, dtype="float64"))
    model = models.Sequential([layers.LSTM(U, dtype="float64")])
    found = model.predict(x, verbose=0)
    assert found.dtype == np.float64
    for one, sequence in zip(found, x, strict=True):
        if len(sequence):
            same(one, model(sequence[None])[0])


def test_stateful(rng):
    first, second = Ragged(sequences(rng, F, lengths=(3, 1))), Ragged(sequences(rng, F, lengths=(2, 4)))
    model = models.Sequential([layers.LSTM(U, stateful=True, batch_input_shape=(2, None, F))])
    model.predict(first, batch_size=2, verbose=0)
    found = model.predict(second, batch_size=2, verbose=0)
    plain = models.Sequential([layers.LSTM(U)])
    plain.build((None, None, F))
    plain.set_weights(model.get_weights())
    same(found, np.stack([plain(np.concatenate(pair)[None])[0] for pair in zip(first, second, strict=True)]))


# ---------------------------------------------------------------------------------------------------- few shapes


def test_lengths_of_batches():
    class Length(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self._set_untracked("seen", [])

        def call(self, x):
            self.seen.append(x.shape[1])
            return x

        def compute_mask(self, inputs, previous_mask=None):
            return None

    layer = Length()
    model = models.Sequential([layer, layers.Lambda(lambda x: ops.sum(x, axis=1))])
    for longest in range(1, 1001):
        model.predict(Ragged([np.ones((longest, 1), "float32"), np.ones((1, 1), "float32")]), verbose=0)
    seen = sorted(set(layer.seen))
    assert layer.seen.count(seen[-1]) <= 2  # traced once (and shown its shape once), replayed then
    assert seen[:16] == [*range(1, 16), 16]
    assert len(seen) <= 64
    for longest in range(1, 1001):
        length = min(n for n in seen if n >= longest)
        assert length <= max(longest * 1.125, longest)


# ---------------------------------------------------------------------------------------------------- errors


def test_errors(rng):
    x, y = Ragged(sequences(rng, F)), Ragged(sequences(rng, 2))
    model = tagger()
    model.compile("sgd", "mse")
    model.build((None, None, F))
    before = model.get_weights()
    for arguments, message in [
        ((x, y[:5]), "Data cardinality is ambiguous"),
        (
            (x, y[::-1]),
            "sequences of `y` must be as long as those of `x`. Received: sample 0 has 6 timesteps in `y`, 5 in",
        ),
        ((pad(x)[0], y), "`y` is Ragged but `x` is not"),
        ((x[:0], y[:0]), "holds no samples"),
        ((list(x), np.ones((10, 2))), r"(?s)cardinality is ambiguous.*numbarnn.utils.Ragged\(list\)"),
    ]:
        for method in (model.fit, model.evaluate, *([] if "no samples" in message else [model.train_on_batch])):
            with pytest.raises(ValueError, match=message):
                method(*arguments, **({} if method == model.train_on_batch else {"verbose": 0}))
    with pytest.raises(ValueError, match="sequences of `sample_weight` must be as long"):
        model.fit(x, y, sample_weight=Ragged([np.ones(n + 1) for n in LENGTHS]), verbose=0)
    with pytest.raises(ValueError, match="sequences of `y` must be as long"):
        model.fit(x, y, validation_data=(x[:2], y[1:3]), verbose=0)
    with pytest.raises(TypeError, match=r"`numbarnn.utils.Ragged\(x\)`, or pad them with `numbarnn.utils.pad`"):
        model.fit([[1.0, 2.0], [3.0]], [1.0, 2.0], verbose=0)
    with pytest.raises(ValueError, match="Ragged targets need outputs at every timestep"):
        last = models.Sequential([layers.LSTM(2)])
        last.compile("sgd", "mse")
        last.fit(x, y, verbose=0)
    same(model.get_weights(), before)


def test_a_mask_of_ids_goes_through_an_embedding():
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    mask = np.array([[1, 1, 0], [1, 0, 0]], bool)
    set_mask(ids, mask)
    same(get_mask(layers.Embedding(4, 2)(ids)), mask)
    assert get_mask(layers.Embedding(4, 2)(ids.copy())) is None
