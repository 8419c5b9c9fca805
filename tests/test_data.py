"""What may be passed as data: tables of pandas, arrays of other libraries; and weights of classes."""

import numpy as np
import pytest

from numbarnn import layers, losses, models, optimizers
from numbarnn.models.data import standardize
from numbarnn.utils import Ragged


def linear(classes=3, features=4, loss=None, **compiled):
    model = models.Sequential([layers.Input((features,)), layers.Dense(classes)])
    model.compile(optimizers.SGD(0.1), loss or losses.SparseCategoricalCrossentropy(from_logits=True), **compiled)
    return model


def data(rng, n=12):
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, size=n)


# ------------------------------------------------------------------------------------------------ tables


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


def test_tables_of_pandas(rng, pd):
    x, y = data(rng)
    w = rng.uniform(size=12)
    model = linear(weighted_metrics=["accuracy"])
    table, labels, weights = pd.DataFrame(x, columns=list("abcd")), pd.Series(y), pd.Series(w)
    table.index = labels.index = weights.index = np.arange(12)[::-1]  # rows are taken by place
    expected = model.evaluate(x, y, sample_weight=w, verbose=0)
    assert model.evaluate(table, labels, sample_weight=weights, verbose=0) == expected
    assert model.test_on_batch(table, labels, weights) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_array_equal(model.predict(table, verbose=0), model.predict(x, verbose=0))
    np.testing.assert_array_equal(model.predict_on_batch(table), model.predict_on_batch(x))
    start = model.get_weights()
    first = model.fit(table, labels, sample_weight=weights, validation_split=0.25, shuffle=False, verbose=0).history
    model.set_weights(start)
    assert model.fit(x, y, sample_weight=w, validation_split=0.25, shuffle=False, verbose=0).history == first
    batches = [(table[:6], labels[:6]), (table[6:], labels[6:])]
    assert model.evaluate(iter(batches), verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6)


def test_columns_of_pandas_keep_their_numbers(pd):
    table = pd.DataFrame(
        {"a": [1.5, np.nan], "b": [True, False], "c": pd.array([3, 4], "Int64"), "d": pd.array([5.0, None], "Float64")}
    )
    found = standardize(table, np.dtype("float32"), "x")
    np.testing.assert_array_equal(found, np.array([[1.5, 1, 3, 5], [np.nan, 0, 4, np.nan]], "float32"))
    assert found.dtype == np.float32
    for name, values in (("c", [[3], [4]]), ("b", [[True], [False]])):
        found = standardize(table[name], np.dtype("float32"), "x")
        np.testing.assert_array_equal(found, values)
        assert found.dtype == np.asarray(values).dtype


def test_inputs_by_name_from_columns(rng, pd):
    inputs = {name: layers.Input((1,), name=name) for name in "ab"}
    model = models.Model(inputs, layers.Dense(1)(layers.Concatenate()([inputs["a"], inputs["b"]])))
    table = pd.DataFrame({"a": rng.normal(size=5), "b": rng.normal(size=5)})
    weights, bias = model.get_weights()
    found = model.predict({"a": table["a"], "b": table["b"]}, verbose=0)
    np.testing.assert_allclose(found, table.to_numpy() @ weights + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "dtype", "error", "message"),
    [
        (["x", "y"], "category", TypeError, "column 'k' of dtype category"),
        (["x", "y"], "string", TypeError, "column 'k' of dtype string"),
        (["x", "y"], object, TypeError, "column 'k' of dtype object"),
        (["2020-01-01", "2020-01-02"], "datetime64[ns]", TypeError, "column 'k' of dtype datetime64"),
        ([1, None], "Int64", ValueError, "missing values in column 'k' of dtype Int64"),
        ([True, None], "boolean", ValueError, "missing values in column 'k' of dtype boolean"),
    ],
)
def test_columns_that_are_not_numbers_are_refused(pd, column, dtype, error, message):
    table = pd.DataFrame({"a": [1.0, 2.0], "k": pd.Series(column, dtype=dtype)})
    model = linear(features=2)
    for call in (
        lambda: model.predict(table, verbose=0),
        lambda: model.fit(table, np.zeros(2), verbose=0),
        lambda: model.fit(np.ones((2, 2)), table["k"], verbose=0),
        lambda: model.fit(np.ones((2, 2)), np.zeros(2), sample_weight=table["k"], verbose=0),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_table_without_columns_is_refused(pd):
    with pytest.raises(ValueError, match="`x` must have columns"):
        linear().predict(pd.DataFrame(index=range(3)), verbose=0)


# ------------------------------------------------------------------------------------------------ other arrays


class OnlyArray:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array if dtype is None else self._array.astype(dtype)


class OnlyDLPack:
    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **kwargs):
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


@pytest.mark.parametrize("kind", [OnlyArray, OnlyDLPack])
def test_arrays_of_other_libraries(rng, kind):
    x, y = data(rng)
    w = rng.uniform(size=12).astype("float32")
    model = linear(weighted_metrics=["accuracy"])
    expected = model.evaluate(x, y, sample_weight=w, verbose=0)
    assert model.evaluate(kind(x), kind(y), sample_weight=kind(w), verbose=0) == expected
    assert model.evaluate(iter([(kind(x), kind(y), kind(w))]), verbose=0) == expected
    np.testing.assert_array_equal(model.predict(kind(x), verbose=0), model.predict(x, verbose=0))
    np.testing.assert_array_equal(model.predict([kind(x)][0], verbose=0), model.predict(x, verbose=0))
    assert np.isfinite(model.train_on_batch(kind(x), kind(y), kind(w))).all()


@pytest.mark.parametrize("scalar", [np.float32, np.array, np.int64], ids=["float32", "array of no axis", "int64"])
def test_a_list_of_numpys_scalars_is_one_array(rng, scalar):
    x, y = rng.standard_normal((6, 2), "float32"), [1, 2, 3, 4, 5, 6]
    model = models.Sequential([layers.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    expected = model.evaluate(x, np.array(y), verbose=0)
    assert model.evaluate(x, [scalar(each) for each in y], verbose=0) == expected
    assert model.evaluate(x, tuple(scalar(each) for each in y), verbose=0) == expected
    with pytest.raises(ValueError, match="Data cardinality is ambiguous"):
        model.evaluate(x, [scalar(each) for each in y[1:]], verbose=0)


def test_an_array_out_of_reach_is_refused():
    class OnDevice:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("is on a device")

    with pytest.raises(TypeError, match="`x`, of type OnDevice, cannot be turned into an array: is on a device"):
        linear().predict(OnDevice(), verbose=0)


# ------------------------------------------------------------------------------------------------ class weights

WEIGHTS = {0: 0.5, 2: 3.0}
FACTORS = np.array([0.5, 1.0, 3.0])


def same(history, expected):
    assert list(history) == list(expected)
    for name, values in history.items():
        assert values == pytest.approx(expected[name], rel=1e-6)


def test_class_weights_are_sample_weights(rng):
    x, y = data(rng)
    w = rng.uniform(size=12)
    for of in (None, w):
        weights = FACTORS[y] * (1 if of is None else of)
        expected = linear(weighted_metrics=["accuracy"])
        found = linear(weighted_metrics=["accuracy"])
        found.set_weights(expected.get_weights())
        right = expected.fit(x, y, sample_weight=weights, batch_size=5, shuffle=False, verbose=0).history
        options = {"class_weight": WEIGHTS, "shuffle": False, "verbose": 0}
        history = found.fit(x, y, sample_weight=of, batch_size=5, **options).history
        same(history, right)
        for a, b in zip(found.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        batches = [(x[i : i + 5], y[i : i + 5]) + (() if of is None else (of[i : i + 5],)) for i in (0, 5, 10)]
        right = expected.fit(x, y, sample_weight=weights, batch_size=5, shuffle=False, verbose=0).history
        same(found.fit(iter(batches), **options).history, right)
        right = expected.train_on_batch(x, y, weights)
        assert found.train_on_batch(x, y, of, WEIGHTS) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y[:, None],
        lambda y: y.astype("float32"),
        lambda y: np.eye(3)[y],
        lambda y: np.eye(3, dtype="int8")[y],
    ],
)
def test_labels_of_all_forms_have_their_weights(rng, form):
    x, y = data(rng)
    one_hot = form(y).shape[1:] == (3,)
    model = linear(loss=losses.CategoricalCrossentropy(from_logits=True) if one_hot else None)
    expected = model.test_on_batch(x, form(y), FACTORS[y])
    assert model.train_on_batch(x, form(y), class_weight=WEIGHTS) == pytest.approx(expected, rel=1e-6)


def tagger():
    model = models.Sequential([layers.SimpleRNN(4, return_sequences=True), layers.Dense(3)])
    model.compile(optimizers.SGD(0.0), losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_labels_at_every_timestep_have_their_weights(rng):
    x, y, w = rng.normal(size=(5, 6, 4)), rng.integers(0, 3, size=(5, 6)), rng.uniform(size=5)
    model = tagger()
    expected = model.test_on_batch(x, y[..., None], FACTORS[y])
    assert model.train_on_batch(x, y[..., None], class_weight=WEIGHTS) == pytest.approx(expected, rel=1e-6)
    expected = model.test_on_batch(x, y[..., None], FACTORS[y] * w[:, None])
    for weights in (w, np.repeat(w[:, None], 6, 1)):
        found = model.train_on_batch(x, y[..., None], weights, WEIGHTS)
        assert found == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ValueError, match=r"rows that do not add up to 1.*`y\[..., None\]`"):
        model.train_on_batch(x, y, class_weight=WEIGHTS)


def test_ragged_labels_have_their_weights(rng):
    lengths = (3, 1, 4)
    x = Ragged([rng.normal(size=(n, 4)) for n in lengths])
    y = [rng.integers(0, 3, size=n) for n in lengths]
    w = rng.uniform(size=3)
    model = tagger()
    for weights, factor in (
        (None, np.ones(3)),
        (w, w),
        (Ragged([np.full(n, f) for n, f in zip(lengths, w, strict=True)]), w),
    ):
        expected = model.test_on_batch(
            x, Ragged(y), Ragged([FACTORS[labels] * f for labels, f in zip(y, factor, strict=True)])
        )
        for labels in (Ragged(y), Ragged([each[:, None] for each in y])):
            found = model.fit(x, labels, sample_weight=weights, class_weight=WEIGHTS, verbose=0).history["loss"]
            assert found == pytest.approx([expected], rel=1e-6)


def test_validation_knows_no_class_weights(rng):
    x, y = data(rng)
    model = linear(metrics=["accuracy"])
    history = model.fit(x, y, validation_data=(x, y), class_weight={0: 100.0}, verbose=0).history
    assert history["val_loss"] == pytest.approx([model.evaluate(x, y, verbose=0)[0]], rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 2.0], TypeError, "`class_weight` must be a dict"),
        ({"a": 1.0}, ValueError, "must be integers from 0. Received: class 'a'"),
        ({-1: 1.0}, ValueError, "must be integers from 0. Received: class -1"),
        ({0: -1.0}, ValueError, "must be finite numbers, not negative. Received: -1.0 for 0"),
        ({0: np.nan}, ValueError, "must be finite numbers"),
        ({0: "1"}, ValueError, "must be finite numbers"),
    ],
)
def test_class_weights_are_checked(rng, weights, error, message):
    x, y = data(rng)
    for call in (linear().fit, linear().train_on_batch):
        with pytest.raises(error, match=message):
            call(x, y, class_weight=weights)


def test_class_weights_need_classes(rng):
    x, y = data(rng)
    model = linear()
    for targets, weight, message in (
        (None, None, "needs targets `y`"),
        ([y, y], None, "only supported for Models with a single output"),
        ({"a": y}, None, "only supported for Models with a single output"),
        (y, [np.ones(12)], "needs `sample_weight` to be a single array"),
        (np.ones((12, 3)), None, "rows that do not add up to 1"),
        (np.full(12, np.nan), None, "targets that are not finite"),
        (y, np.ones(5), "Data cardinality is ambiguous"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, targets, sample_weight=weight, class_weight=WEIGHTS, verbose=0)
