"""Training with several inputs and outputs: what goes with which output, and under which name it is reported."""

import numpy as np
import pytest

from numbarnn import Model, backend, layers, metrics, models, optimizers
from numbarnn.utils import Ragged, set_random_seed


def two_by_two(names=("p", "q")):
    a, b = layers.Input((3,), name="a"), layers.Input((2,), name="b")
    hidden = layers.Dense(4, activation="tanh", name="h")(layers.concatenate([a, b]))
    return Model([a, b], [layers.Dense(1, name=names[0])(hidden), layers.Dense(2, name=names[1])(hidden)])


@pytest.fixture
def data(rng):
    return [rng.normal(size=(20, n)).astype("float32") for n in (3, 2)], [
        rng.normal(size=(20, n)).astype("float32") for n in (1, 2)
    ]


def errors(model, x, y):
    """Mean squared and absolute errors of each output."""
    differences = [np.float64(p) - t for p, t in zip(model(x), y, strict=True)]
    return [(d**2).mean() for d in differences], [np.abs(d).mean() for d in differences]


# As tf_keras 2.21 names and orders them.
RECORDED = [
    (
        {"loss": "mse", "metrics": ["mae", "mse"], "weighted_metrics": ["mae"]},
        "loss p_loss q_loss p_mae p_mse p_weighted_mae q_mae q_mse q_weighted_mae",
    ),
    (
        {"loss": {"p": "mse", "q": "mae"}, "metrics": {"q": ["mae", "mse"], "p": "mae"}},
        "loss p_loss q_loss p_mae q_mae q_mse",
    ),
    ({"loss": ["mse", "mae"], "metrics": [["mae"], []]}, "loss p_loss q_loss p_mae"),
    ({"loss": ["mse", None], "metrics": ["mae"]}, "loss p_loss p_mae q_mae"),
    ({"loss": {"p": "mse"}, "metrics": [metrics.MeanSquaredError(name="m")]}, "loss p_loss p_m q_m"),
]


@pytest.mark.parametrize(("arguments", "keys"), RECORDED)
def test_names_and_their_order(arguments, keys, data):
    x, y = data
    model = two_by_two()
    model.compile("sgd", **arguments)
    history = model.fit(x, y, epochs=1, validation_data=(x, y), verbose=0).history
    keys = keys.split()
    assert list(history) == [*keys, *(f"val_{key}" for key in keys)]
    assert model.metrics_names == keys and list(model.evaluate(x, y, verbose=0, return_dict=True)) == keys
    assert len(model.evaluate(x, y, verbose=0)) == len(keys) == len(model.train_on_batch(x, y))


def test_each_output_has_its_own_loss_weight_and_metric(data):
    x, y = data
    model = two_by_two()
    squares, absolutes = errors(model, x, y)
    expected = {
        "loss": 0.5 * squares[0] + 2 * absolutes[1],
        "p_loss": squares[0],
        "q_loss": absolutes[1],
        "p_mae": absolutes[0],
        "q_mse": squares[1],
    }
    for loss, weights, wanted in (
        (["mse", "mae"], [0.5, 2.0], [["mae"], ["mse"]]),
        ({"q": "mae", "p": "mse"}, {"p": 0.5, "q": 2.0}, {"q": ["mse"], "p": ["mae"]}),
    ):
        model.compile("sgd", loss, loss_weights=weights, metrics=wanted)
        found = model.evaluate(x, y, batch_size=7, verbose=0, return_dict=True)
        assert list(found) == list(expected)
        np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    # one for all
    model.compile("sgd", "mse", metrics=["mae", metrics.MeanSquaredError(name="m")])
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    np.testing.assert_allclose([found["p_loss"], found["q_loss"], found["loss"]], [*squares, sum(squares)], rtol=1e-5)
    np.testing.assert_allclose([found["p_mae"], found["q_mae"]], absolutes, rtol=1e-5)
    np.testing.assert_allclose([found["p_m"], found["q_m"]], squares, rtol=1e-5)


def test_inputs_and_targets_in_any_order_by_name(data):
    x, y = data
    first = {}
    forms = [
        (x, y), (tuple(x), tuple(y)), ({"b": x[1], "a": x[0]}, y), (x, {"q": y[1], "p": y[0]}),
        ({"a": x[0], "b": x[1]}, {"p": y[0], "q": y[1]}),
    ]  # fmt: skip
    for given in forms:
        set_random_seed(3)
        backend.clear_session()
        model = two_by_two()
        model.compile(optimizers.SGD(0.1), "mse")
        history = model.fit(*given, epochs=3, verbose=0).history
        assert first.setdefault("history", history) == history
        outputs = model.predict(given[0], verbose=0, batch_size=6)
        assert type(outputs) is list and [p.shape for p in outputs] == [(20, 1), (20, 2)]
    # names that sort against the order of the outputs
    set_random_seed(3)
    backend.clear_session()
    model = two_by_two(("z", "c"))
    model.compile(optimizers.SGD(0.1), {"c": "mse", "z": "mse"}, metrics=["mae"])
    history = model.fit(x, {"c": y[1], "z": y[0]}, epochs=3, verbose=0).history
    assert history["loss"] == first["history"]["loss"] and history["z_loss"] == first["history"]["p_loss"]
    assert history["c_loss"] == first["history"]["q_loss"]
    found = errors(model, x, y)[1]
    np.testing.assert_allclose(model.evaluate(x, {"c": y[1], "z": y[0]}, verbose=0)[3:], found, rtol=1e-5)


def test_sample_weights_per_output(data, rng):
    x, y = data
    model = two_by_two()
    w, v = rng.uniform(size=(2, 20)).astype("float32")
    model.compile("sgd", "mse", weighted_metrics=["mae"])
    outputs = model(x)
    square = [((np.float64(p) - t) ** 2).mean(1) for p, t in zip(outputs, y, strict=True)]
    absolute = [np.abs(np.float64(p) - t).mean(1) for p, t in zip(outputs, y, strict=True)]
    for given, weights in (
        ([w, v], (w, v)),
        ({"q": v, "p": w}, (w, v)),
        ({"q": v}, (np.ones(20), v)),
        (w, (w, w)),
    ):
        found = model.evaluate(x, y, sample_weight=given, verbose=0)
        losses = [(a * b).mean() for a, b in zip(square, weights, strict=True)]
        np.testing.assert_allclose(found[:3], [sum(losses), *losses], rtol=1e-5)
        means = [np.average(a, weights=b) for a, b in zip(absolute, weights, strict=True)]
        np.testing.assert_allclose(found[3:], means, rtol=1e-5)


def test_targets_of_some_outputs(data):
    x, y = data
    model = two_by_two()
    model.compile("sgd", {"q": "mse"}, metrics=["mae"])
    assert list(model.fit(x, {"q": y[1]}, verbose=0).history) == ["loss", "q_loss", "q_mae"]
    assert list(model.fit(x, [None, y[1]], verbose=0).history) == ["loss", "q_loss", "q_mae"]
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Output 'p' has a loss, but no targets"):
        model.fit(x, {"q": y[1]}, verbose=0)
    model.compile("sgd", {"q": "mse"}, metrics={"p": "mae"})
    with pytest.raises(ValueError, match="`metrics` were given for output 'p', but no targets"):
        model.fit(x, {"q": y[1]}, verbose=0)


def test_outputs_in_a_dict(data):
    x, y = data
    flat = two_by_two()
    p, q = flat.outputs
    model = Model(flat.inputs, {"two": q, "one": p, "more": {"far": q}})
    model.compile("sgd", "mse", metrics={"one": ["mae"]})
    targets = {"one": y[0], "two": y[1], "more": {"far": y[1]}}
    found = model.evaluate(x, targets, verbose=0, return_dict=True)
    assert list(found) == ["loss", "more_far_loss", "one_loss", "two_loss", "one_mae"]
    squares, absolutes = errors(flat, x, y)
    expected = [squares[0] + 2 * squares[1], squares[1], squares[0], squares[1], absolutes[0]]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)
    assert model.predict(x, verbose=0)["more"]["far"].shape == (20, 2)
    model.compile("sgd", {"one": "mse", "two": "mse"})
    assert list(model.fit(x, {"two": y[1], "one": y[0]}, verbose=0).history) == ["loss", "one_loss", "two_loss"]


def test_what_names_no_output(data):
    x, y = data
    for arguments, message in (
        ({"loss": {"r": "mse"}}, "`loss` has an entry for 'r', but the outputs are named .'p', 'q'.]?"),
        ({"loss": "mse", "loss_weights": {"r": 1.0}}, "`loss_weights` has an entry for 'r'"),
        ({"loss": "mse", "loss_weights": 2.0}, "`loss_weights` of a model with 2 outputs must be a list, or a dict"),
        ({"loss": "mse", "metrics": {"r": ["mae"]}}, "`metrics` has an entry for 'r'"),
        ({"loss": ["mse"]}, "`loss` must have one entry for each of 2 outputs. Received: 1"),
        ({"loss": "mse", "metrics": [["mae"]]}, "`metrics` must have one entry for each of 2 outputs"),
    ):
        model = two_by_two()
        model.compile("sgd", **arguments)
        with pytest.raises(ValueError, match=message):
            model.fit(x, y, verbose=0)
    model = two_by_two()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"`y` has keys \['p', 'r'\], but the outputs are \['p', 'q'\]"):
        model.fit(x, {"p": y[0], "r": y[1]}, verbose=0)
    with pytest.raises(ValueError, match="`y` must hold one array for each of 2 outputs"):
        model.fit(x, y[0], verbose=0)
    with pytest.raises(ValueError, match="`sample_weight` has keys"):
        model.fit(x, y, sample_weight={"r": np.ones(20)}, verbose=0)
    with pytest.raises(ValueError, match="cardinality"):
        model.fit([x[0], x[1][:4]], y, verbose=0)


def test_a_metric_for_all_outputs_is_one_for_each(data):
    x, y = data
    model, mean = two_by_two(), metrics.MeanAbsoluteError(name="mine")
    model.compile("sgd", "mse", metrics=[mean])
    model.evaluate(x, y, verbose=0)
    assert [metric.name for metric in model.metrics] == ["p_mine", "q_mine"] and mean.name == "mine"
    assert mean not in model.metrics


def test_training_goes_down_through_shared_layers_and_models_within(data):
    x, y = data
    inner = two_by_two()
    a, b = layers.Input((3,)), layers.Input((2,))
    p, q = inner([a, b])
    shared = layers.Dense(2, name="shared")
    model = Model([a, b], [p, shared(q), layers.Flatten(name="end")(shared(shared(q)))])
    model.compile(optimizers.Adam(0.02), "mse")
    before = model.get_weights()
    history = model.fit(x, [*y, y[1]], epochs=60, verbose=0, batch_size=5).history
    assert list(history) == ["loss", f"{inner.name}_loss", "shared_loss", "end_loss"]
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert all(not np.array_equal(one, two) for one, two in zip(before, model.get_weights(), strict=True))


def test_encoder_and_decoder_train(rng):
    source, target = layers.Input((None,), name="source"), layers.Input((None,), name="target")
    embedding = layers.Embedding(6, 8, mask_zero=True)
    _, h, c = layers.LSTM(16, return_state=True, name="encoder")(embedding(source))
    decoded = layers.LSTM(16, return_sequences=True, name="decoder")(embedding(target), initial_state=[h, c])
    model = Model([source, target], layers.Dense(6, activation="softmax", name="out")(decoded))
    model.compile(optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    ids = rng.integers(1, 6, (64, 4))
    shifted = np.concatenate([np.ones((64, 1), int), ids[:, :-1]], axis=1)
    history = model.fit([ids, shifted], ids, epochs=40, verbose=0).history
    assert list(history) == ["loss", "accuracy"] and history["accuracy"][-1] > 0.9
    # the gradient reaches the encoder through the states alone
    assert model.evaluate([ids[::-1], shifted], ids, verbose=0)[0] > 2 * history["loss"][-1]


def test_ragged_and_dense_inputs_together(rng):
    text, other = layers.Input((None, 2), name="text"), layers.Input((3,), name="other")
    read = layers.GRU(4, return_sequences=True)(text)
    pooled = layers.concatenate([layers.GlobalAveragePooling1D()(read), other])
    model = Model([text, other], [layers.Dense(1, name="each")(read), layers.Dense(1, name="all")(pooled)])
    lengths = rng.integers(1, 6, 10)
    x = Ragged([rng.normal(size=(n, 2)).astype("float32") for n in lengths])
    y = Ragged([rng.normal(size=(n, 1)).astype("float32") for n in lengths])
    side, whole = rng.normal(size=(10, 3)).astype("float32"), rng.normal(size=(10, 1)).astype("float32")
    model.compile("sgd", "mse", metrics=["mae"])
    given = {"text": x, "other": side}, {"all": whole, "each": y}
    found = model.evaluate(*given, batch_size=10, verbose=0, return_dict=True)
    singles = [model([x[i][None], side[i : i + 1]]) for i in range(10)]
    each = np.concatenate([p[0] - t for (p, _), t in zip(singles, y, strict=True)])
    at_end = np.concatenate([p for _, p in singles]) - whole
    assert list(found) == ["loss", "each_loss", "all_loss", "each_mae", "all_mae"]
    expected = [(each**2).mean(), (at_end**2).mean(), np.abs(each).mean(), np.abs(at_end).mean()]
    np.testing.assert_allclose(list(found.values())[1:], expected, rtol=1e-4)
    model.fit(*given, epochs=2, batch_size=3, verbose=0)
    sequences, ends = model.predict(given[0], verbose=0)
    assert isinstance(sequences, Ragged) and [len(s) for s in sequences] == list(lengths) and ends.shape == (10, 1)


def test_subclassed_models_with_several_outputs(data):
    class Twice(models.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(2)

        def call(self, inputs):
            a, b = inputs
            return self.head(b), a

    x, y = data
    model = Twice()
    model.compile("sgd", {"output_1": "mse"}, metrics=["mae"])
    found = model.fit(x, {"output_1": y[1], "output_2": x[0]}, verbose=0).history
    assert list(found) == ["loss", "output_1_loss", "output_1_mae", "output_2_mae"] and found["output_2_mae"] == [0.0]
