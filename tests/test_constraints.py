"""Constraints: values, names, errors; and that they hold after every step of training."""

import numpy as np
import pytest

from numbarnn import constraints, layers, models, optimizers, serialization


def norms(w, axis=0):
    return np.sqrt((w**2).sum(axis, keepdims=True))


def min_max(w, low, high, rate, axis):
    n = norms(w, axis)
    return w * ((1 - rate) * n + rate * np.minimum(np.maximum(n, low), high)) / n


FORMULAS = [
    (constraints.MaxNorm(), lambda w: w * np.minimum(1, 2 / norms(w))),
    (constraints.MaxNorm(0.7, 1), lambda w: w * np.minimum(1, 0.7 / norms(w, 1))),
    (constraints.MaxNorm(0.7, [0, 1]), lambda w: w * np.minimum(1, 0.7 / norms(w, (0, 1)))),
    (constraints.NonNeg(), lambda w: np.where(w > 0, w, 0)),
    (constraints.UnitNorm(), lambda w: w / norms(w)),
    (constraints.UnitNorm((0, 1)), lambda w: w / norms(w, (0, 1))),
    (constraints.MinMaxNorm(1.5, 2.0), lambda w: min_max(w, 1.5, 2.0, 1.0, 0)),
    (constraints.MinMaxNorm(0.5, 1.0, 0.3, 1), lambda w: min_max(w, 0.5, 1.0, 0.3, 1)),
    (constraints.Constraint(), lambda w: w),
]


def identify(value):
    if isinstance(value, constraints.Constraint):
        return "-".join([type(value).__name__, *map(str, value.get_config().values())])
    return None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("constraint", "formula"), FORMULAS, ids=identify)
def test_values(constraint, formula, dtype, rng):
    w = rng.standard_normal((5, 4)).astype(dtype)
    value = constraint(w)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, formula(w), rtol=1e-6)  # Keras's epsilon of 1e-7 stands beside each norm
    again = constraints.get(constraints.serialize(constraint))
    np.testing.assert_array_equal(again(w), value)


def test_zeros_stay_zeros():
    for constraint, _ in FORMULAS:
        np.testing.assert_array_equal(constraint(np.zeros((3, 2))), np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("name", "cls", "config"),
    [
        ("max_norm", constraints.MaxNorm, {"max_value": 2, "axis": 0}),
        ("MaxNorm", constraints.MaxNorm, {"max_value": 2, "axis": 0}),
        ("non_neg", constraints.NonNeg, {}),
        ("NonNeg", constraints.NonNeg, {}),
        ("unit_norm", constraints.UnitNorm, {"axis": 0}),
        ("UnitNorm", constraints.UnitNorm, {"axis": 0}),
        ("min_max_norm", constraints.MinMaxNorm, {"min_value": 0.0, "max_value": 1.0, "rate": 1.0, "axis": 0}),
        ("MinMaxNorm", constraints.MinMaxNorm, {"min_value": 0.0, "max_value": 1.0, "rate": 1.0, "axis": 0}),
        ("constraint", constraints.Constraint, {}),
    ],
)
def test_names(name, cls, config):
    found = constraints.get(name)
    assert type(found) is cls and found.get_config() == config
    written = constraints.serialize(found)
    assert written["module"] == "keras.constraints" and written["class_name"] == cls.__name__
    assert constraints.deserialize(written).get_config() == config
    if name.islower() and name != "constraint":
        assert getattr(constraints, name) is cls


def test_what_get_takes():
    assert constraints.get(None) is None and constraints.serialize(None) is None
    assert isinstance(constraints.get(constraints.NonNeg), constraints.NonNeg)
    instance = constraints.MaxNorm(1)
    assert constraints.get(instance) is instance
    assert constraints.get(halved) is halved
    for wrong in ("foo", 3, {"class_name": "Foo", "config": {}}):
        with pytest.raises(ValueError, match="Could not interpret constraint identifier: "):
            constraints.get(wrong)


@serialization.register_keras_serializable()
def halved(w):
    """Return half the weight."""
    return w / 2


@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
@pytest.mark.parametrize("optimizer", [lambda: optimizers.SGD(0.5), lambda: optimizers.Adam(0.1)])
def test_constraints_hold_after_every_step(name, optimizer, rng):
    """One step of a twin without constraints, then NumPy's formula on each of the three weights."""
    chosen = {
        "kernel_constraint": constraints.MaxNorm(0.8),
        "recurrent_constraint": constraints.UnitNorm(1),
        "bias_constraint": "non_neg",
    }
    formulas = [FORMULAS[0][1], lambda w: w / norms(w, 1), lambda w: np.maximum(w, 0)]
    formulas[0] = lambda w: w * np.minimum(1, 0.8 / norms(w))
    x, y = rng.standard_normal((6, 5, 3)), rng.standard_normal((6, 4))

    def make(**options):
        layer = getattr(layers, name)(4, dtype="float64", bias_initializer="random_normal", **options)
        model = models.Sequential([layers.Input((5, 3), dtype="float64"), layer])
        model.compile(optimizer(), "mse")
        return model

    constrained, free = make(**chosen), make()
    free.set_weights(constrained.get_weights())
    for step in range(3):
        free.set_weights(constrained.get_weights())
        constrained.train_on_batch(x, y)
        free.train_on_batch(x, y)
        if step and isinstance(free.optimizer, optimizers.Adam):
            break  # their moments differ from here on
        for formula, old, new in zip(formulas, free.get_weights(), constrained.get_weights(), strict=True):
            np.testing.assert_allclose(new, formula(old), rtol=1e-6, atol=1e-12)
    for formula, w in zip(formulas, constrained.get_weights(), strict=True):
        np.testing.assert_allclose(w, formula(w), rtol=1e-6, atol=1e-12)


def test_a_function_as_constraint(rng):
    model = models.Sequential(
        [layers.Input((2,)), layers.Dense(3, bias_constraint=halved, kernel_constraint="max_norm")]
    )
    model.compile(optimizers.SGD(0.0), "mse")
    model.layers[0].bias.assign([4.0, -2.0, 1.0])
    model.train_on_batch(np.ones((2, 2), np.float32), np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(model.layers[0].bias, [2.0, -1.0, 0.5])
    assert layers.Dense.from_config(model.layers[0].get_config()).bias_constraint is halved
