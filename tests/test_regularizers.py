"""Regularizers: values, gradients, names, errors; and that a layer's penalties move its weights in training."""

import numpy as np
import pytest

from numbarnn import graph, layers, models, optimizers, regularizers, serialization
from numbarnn.graph import Spec
from numbarnn.testing.gradients import check_gradients

FORMULAS = [
    (regularizers.L1(0.2), lambda w: 0.2 * np.abs(w).sum()),
    (regularizers.L2(0.3), lambda w: 0.3 * (w**2).sum()),
    (regularizers.L1L2(0.2, 0.3), lambda w: 0.2 * np.abs(w).sum() + 0.3 * (w**2).sum()),
    (regularizers.L1L2(l1=0.2), lambda w: 0.2 * np.abs(w).sum()),
    (regularizers.L1L2(), lambda w: 0.0),
    (regularizers.OrthogonalRegularizer(0.5), lambda w: 0.5 * mean_cosine(w)),
    (regularizers.OrthogonalRegularizer(0.5, "columns"), lambda w: 0.5 * mean_cosine(w.T)),
]


def identify(value):
    if isinstance(value, regularizers.Regularizer):
        return "-".join([type(value).__name__, *map(str, value.get_config().values())])
    return None


def mean_cosine(w):
    """Return the mean absolute cosine between two different rows, pair by pair."""
    cosines = [
        abs(w[i] @ w[j]) / np.sqrt((w[i] @ w[i]) * (w[j] @ w[j])) for i in range(len(w)) for j in range(i)
    ]  # fmt: skip
    return np.mean(cosines)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("regularizer", "formula"), FORMULAS, ids=identify)
def test_values(regularizer, formula, dtype, rng):
    w = rng.standard_normal((4, 6)).astype(dtype)
    penalty = regularizer(w)
    assert penalty.dtype == dtype and penalty.shape == ()
    np.testing.assert_allclose(penalty, formula(w.astype(np.float64)), rtol=1e-6)


@pytest.mark.parametrize(("regularizer", "formula"), [f for f in FORMULAS if f[1](np.eye(2) + 1)], ids=identify)
def test_gradients(regularizer, formula, rng):
    w = rng.standard_normal((4, 6))
    program = graph.trace(regularizer, (Spec(w.shape, "float64"),))
    forward, backward = program.linearize(0, program.inputs)
    penalty, residuals = forward(w)
    np.testing.assert_allclose(penalty, formula(w), rtol=1e-12)
    check_gradients(formula, [w], backward(residuals, np.float64(1)))


def test_corners(rng):
    orthogonal = regularizers.OrthogonalRegularizer()
    np.testing.assert_allclose(orthogonal(np.eye(3, 5)), 0)
    np.testing.assert_allclose(orthogonal(np.ones((3, 5))), 0.01)
    assert orthogonal(np.ones((1, 5))) == 0  # one row alone: no pairs, where Keras has NaN
    assert orthogonal(np.zeros((2, 5))) == 0
    with pytest.raises(ValueError, match=r"must have rank 2. Received: inputs.shape=\(3,\)"):
        orthogonal(np.ones(3))
    assert regularizers.Regularizer()(np.ones(3)) == 0


@pytest.mark.parametrize(
    ("name", "cls", "config"),
    [
        ("l1", regularizers.L1, {"l1": 0.01}),
        ("L1", regularizers.L1, {"l1": 0.01}),
        ("l2", regularizers.L2, {"l2": 0.01}),
        ("L2", regularizers.L2, {"l2": 0.01}),
        ("l1_l2", regularizers.L1L2, {"l1": 0.01, "l2": 0.01}),
        ("l1l2", regularizers.L1L2, {"l1": 0.01, "l2": 0.01}),
        ("L1L2", regularizers.L1L2, {"l1": 0.01, "l2": 0.01}),
        ("orthogonal_regularizer", regularizers.OrthogonalRegularizer, {"factor": 0.01, "mode": "rows"}),
        ("OrthogonalRegularizer", regularizers.OrthogonalRegularizer, {"factor": 0.01, "mode": "rows"}),
    ],
)
def test_names(name, cls, config):
    found = regularizers.get(name)
    assert type(found) is cls and found.get_config() == config
    written = regularizers.serialize(found)
    assert written["module"] == "keras.regularizers" and written["class_name"] == cls.__name__
    for again in (regularizers.get(written), regularizers.deserialize(written)):
        assert type(again) is cls and again.get_config() == config


def test_what_get_takes():
    assert regularizers.get(None) is None and regularizers.serialize(None) is None
    assert isinstance(regularizers.get(regularizers.L2), regularizers.L2)
    instance = regularizers.L1(0.5)
    assert regularizers.get(instance) is instance
    assert regularizers.get(half) is half
    assert (regularizers.l1, regularizers.l2, regularizers.l1_l2) == (
        regularizers.L1, regularizers.L2, regularizers.L1L2,
    )  # fmt: skip
    assert regularizers.orthogonal_regularizer is regularizers.OrthogonalRegularizer
    for wrong in ("foo", 3, {"class_name": "Foo", "config": {}}):
        with pytest.raises(ValueError, match="Could not interpret regularizer identifier: "):
            regularizers.get(wrong)
    for wrong in (-1.0, float("nan"), float("inf"), "1", True):
        for make in (regularizers.L1, regularizers.L2, regularizers.OrthogonalRegularizer):
            with pytest.raises(ValueError, match="expected a non-negative float"):
                make(wrong)
    with pytest.raises(ValueError, match="Invalid value for argument `mode`"):
        regularizers.OrthogonalRegularizer(mode="both")
    with pytest.raises(NotImplementedError, match="get_config"):
        regularizers.Regularizer().get_config()


@serialization.register_keras_serializable()
def half(w):
    """Return half the sum of squares."""
    return 0.5 * (w * w).sum()


KINDS = {"kernel": "l1", "recurrent": regularizers.OrthogonalRegularizer(0.4), "bias": regularizers.L2(0.2)}


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_penalties_of_a_recurrent_layer_move_its_weights(name, wrapped, rng):
    """The data cost nothing: what an SGD step changes is the penalties' gradient, of each of the three weights."""
    options = {f"{key}_regularizer": value for key, value in KINDS.items()}
    # Neither zeros nor orthogonal: there the penalties have no slope, or none that differences could find.
    options |= {"bias_initializer": "random_normal", "recurrent_initializer": "glorot_uniform"}
    if wrapped:
        layer = layers.RNN(getattr(layers, f"{name}Cell")(3, dtype="float64", **options), dtype="float64")
    else:
        layer = getattr(layers, name)(3, dtype="float64", **options)
    model = models.Sequential([layers.Input((4, 2), dtype="float64"), layer])
    model.compile(optimizers.SGD(0.1), "mse")
    x = rng.standard_normal((5, 4, 2))
    before = [np.array(w) for w in model.get_weights()]
    formulas = [lambda w: 0.01 * np.abs(w).sum(), lambda w: 0.4 * mean_cosine(w), lambda w: 0.2 * (w**2).sum()]
    expected = [formula(w) for formula, w in zip(formulas, before, strict=True)]
    np.testing.assert_allclose(layer.losses, expected)
    loss = model.train_on_batch(x, model.predict(x, verbose=0))
    assert loss == pytest.approx(sum(expected), rel=1e-6)
    after = model.get_weights()
    for formula, old, new in zip(formulas, before, after, strict=True):
        assert np.any(old != new)
        check_gradients(formula, [old], [(old - new) / 0.1])


def test_a_penalty_of_nothing_trains(rng):
    model = models.Sequential([layers.Input((3,)), layers.Dense(2, kernel_regularizer=regularizers.L1L2())])
    model.compile(optimizers.SGD(0.1), "mse")
    x = rng.standard_normal((4, 3)).astype(np.float32)
    before = model.get_weights()
    assert model.train_on_batch(x, model.predict(x, verbose=0)) == 0
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_frozen_layer_has_no_penalty():
    layer = layers.LSTM(3, kernel_regularizer="l2", recurrent_regularizer="l2")
    layer.build((None, None, 2))
    assert len(layer.losses) == 2
    layer.trainable = False
    assert layer.losses == []


def test_a_function_as_regularizer(rng):
    layer = layers.Dense(3, kernel_regularizer=half, dtype="float64")
    x = rng.standard_normal((4, 2))
    layer(x)
    np.testing.assert_allclose(layer.losses, [0.5 * (np.asarray(layer.kernel) ** 2).sum()])
    again = layers.Dense.from_config(layer.get_config())
    assert again.kernel_regularizer is half
