"""Optimizers against the update rules written out in NumPy."""

import numpy as np
import pytest

from numbarnn import constraints, optimizers
from numbarnn.kernels import flat
from numbarnn.variable import ParameterBuffer, Variable

SHAPES = [(3, 5), (7,), (), (2, 2, 2)]


def make(rng, dtype="float64", shapes=SHAPES):
    return [Variable(rng.normal(size=shape), dtype=dtype, name=f"v{i}") for i, shape in enumerate(shapes)]


def naive(name, options, values, gradients_of_steps):
    """The equations, one array at a time, in float64."""
    values = [v.astype("float64") for v in values]
    m = [np.zeros_like(v) for v in values]
    s = [np.zeros_like(v) for v in values]
    top = [np.zeros_like(v) for v in values]
    rate = options.get("learning_rate", {"sgd": 0.01}.get(name, 0.001))
    for t, gradients in enumerate(gradients_of_steps, start=1):
        gradients = clip(gradients, options)
        for i, g in enumerate(gradients):
            if name == "sgd":
                mu = options.get("momentum", 0.0)
                m[i] = mu * m[i] - rate * g
                values[i] = values[i] + (mu * m[i] - rate * g if options.get("nesterov") else m[i])
            elif name == "adam":
                b1, b2, eps = options.get("beta_1", 0.9), options.get("beta_2", 0.999), options.get("epsilon", 1e-7)
                m[i] = b1 * m[i] + (1 - b1) * g
                s[i] = b2 * s[i] + (1 - b2) * g * g
                top[i] = np.maximum(top[i], s[i])
                bottom = top[i] if options.get("amsgrad") else s[i]
                alpha = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
                values[i] = values[i] - alpha * m[i] / (np.sqrt(bottom) + eps)
            else:
                rho, eps = options.get("rho", 0.9), options.get("epsilon", 1e-7)
                s[i] = rho * s[i] + (1 - rho) * g * g
                bottom = s[i]
                if options.get("centered"):
                    top[i] = rho * top[i] + (1 - rho) * g
                    bottom = bottom - top[i] ** 2
                m[i] = options.get("momentum", 0.0) * m[i] + rate * g / np.sqrt(bottom + eps)
                values[i] = values[i] - m[i]
    return values


def clip(gradients, options):
    if "clipvalue" in options:
        return [np.clip(g, -options["clipvalue"], options["clipvalue"]) for g in gradients]
    if "clipnorm" in options:
        return [g * min(1.0, options["clipnorm"] / np.linalg.norm(g)) for g in gradients]
    if "global_clipnorm" in options:
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        return [g * min(1.0, options["global_clipnorm"] / norm) for g in gradients]
    return gradients


CASES = [
    ("sgd", {}),
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
    ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("sgd", {"clipvalue": 0.3}),
    ("sgd", {"momentum": 0.5, "clipnorm": 0.7}),
    ("sgd", {"global_clipnorm": 1.0}),
    ("adam", {}),
    ("adam", {"learning_rate": 0.05, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3}),
    ("adam", {"amsgrad": True, "beta_2": 0.5}),
    ("adam", {"clipnorm": 0.5}),
    ("adam", {"global_clipnorm": 0.5}),
    ("adam", {"clipvalue": 0.1}),
    ("rmsprop", {}),
    ("rmsprop", {"rho": 0.7, "momentum": 0.4, "centered": True}),
    ("rmsprop", {"momentum": 0.4, "clipnorm": 0.5}),
]
CLASSES = {"sgd": optimizers.SGD, "adam": optimizers.Adam, "rmsprop": optimizers.RMSprop}


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_updates_are_the_equations(rng, name, options, dtype):
    variables = make(rng, dtype)
    start = [v.numpy() for v in variables]
    steps = [[rng.normal(size=v.shape).astype(dtype) for v in variables] for _ in range(6)]
    optimizer = CLASSES[name](**options)
    for gradients in steps:
        optimizer.apply(gradients, variables)
    expected = naive(name, options, start, steps)
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=tolerance, atol=tolerance)
    assert int(optimizer.iterations) == 6
    assert all(v.version == 6 for v in variables)


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop"])
def test_any_threads_give_the_same_bits(rng, name):
    from numbarnn import jit

    size = 5 * flat.GRAIN + 13
    start, steps = rng.normal(size=size), rng.normal(size=(3, size))
    found = []
    for threads in (1, 2, 7):
        jit.set_num_threads(threads)
        variable = Variable(start, dtype="float32")
        optimizer = optimizers.get({"class_name": name, "config": {"global_clipnorm": 10.0}})
        for gradient in steps:
            optimizer.apply([gradient.astype("float32")], [variable])
        found.append(variable.numpy())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert abs(found[0] - start).max() > 0


def test_square_sum_is_exact_enough(rng):
    values = rng.normal(size=100_003).astype("float32")
    np.testing.assert_allclose(
        flat.square_sum(values, 5, 99_990), (values[5:99_990].astype("float64") ** 2).sum(), rtol=1e-13
    )
    assert flat.square_sum(values, 4, 4) == 0.0


def test_nan_and_infinity_are_not_hidden():
    for options in ({"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}, {}):
        variable = Variable(np.zeros(3))
        optimizers.SGD(**options).apply([np.array([1.0, np.nan, 1.0])], [variable])
        assert np.isnan(variable.numpy()[1]), options
    a, b = Variable(np.zeros(2)), Variable(np.zeros(2))
    optimizers.SGD(global_clipnorm=1.0).apply([np.array([np.inf, 1.0]), np.ones(2)], [a, b])
    assert np.isnan(b.numpy()).all()


def test_small_gradients_are_not_scaled_up(rng):
    for options in ({"clipnorm": 100.0}, {"global_clipnorm": 100.0}, {"clipvalue": 100.0}):
        a, b = Variable(np.zeros(4)), Variable(np.zeros(4))
        g = rng.normal(size=4)
        optimizers.SGD().apply([g], [a])
        optimizers.SGD(**options).apply([g], [b])
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_mixed_dtypes_and_subsets(rng):
    wide, narrow, last = Variable(np.ones(3), dtype="float64"), Variable(np.ones(2)), Variable(np.ones(4))
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.build([wide, narrow, last])
    with pytest.warns(UserWarning, match="Gradients do not exist for variables"):
        optimizer.apply([np.full(3, 0.25), None, np.ones(4)], [wide, narrow, last])
    np.testing.assert_array_equal(wide.numpy(), np.full(3, 0.75))
    np.testing.assert_array_equal(narrow.numpy(), np.ones(2))
    np.testing.assert_array_equal(last.numpy(), np.zeros(4))
    optimizer.apply_gradients([(np.ones(2), narrow)])
    np.testing.assert_array_equal(narrow.numpy(), np.zeros(2))
    np.testing.assert_array_equal(last.numpy(), np.zeros(4))
    new = Variable(np.zeros(1))
    optimizer.apply([np.ones(4), np.ones(1)], [last, new])  # a variable that comes later; the others keep their slots
    np.testing.assert_array_equal(last.numpy(), np.full(4, -1.5))
    np.testing.assert_array_equal(new.numpy(), [-1.0])


def test_two_optimizers_can_share_variables(rng):
    a, b = Variable(np.zeros(3)), Variable(np.zeros(3))
    one, two = optimizers.SGD(1.0), optimizers.Adam(1.0)
    for _ in range(3):
        one.apply([np.ones(3), np.ones(3)], [a, b])
        two.apply([np.ones(3)], [b])
    np.testing.assert_allclose(a.numpy(), np.full(3, -3.0))
    np.testing.assert_allclose(b.numpy(), np.full(3, -6.0), rtol=1e-5)


def test_a_buffer_moved_by_someone_else_is_found_again(rng):
    v = Variable(np.zeros(3))
    optimizer = optimizers.SGD(1.0, momentum=0.5)
    optimizer.apply([np.ones(3)], [v])
    ParameterBuffer([v])
    optimizer.apply([np.ones(3)], [v])
    np.testing.assert_allclose(v.numpy(), np.full(3, -2.5))


def test_constraints_come_after_the_update():
    v = Variable(np.array([0.5, 2.0]), constraint=constraints.NonNeg())
    optimizers.SGD(1.0).apply([np.array([1.0, 1.0])], [v])
    np.testing.assert_array_equal(v.numpy(), [0.0, 1.0])


def test_learning_rate_is_settable_and_may_be_a_schedule():
    v = Variable(np.zeros(1))
    optimizer = optimizers.SGD(1)
    optimizer.apply([np.ones(1)], [v])
    optimizer.learning_rate = 0.5
    assert float(optimizer.learning_rate) == 0.5
    optimizer.apply([np.ones(1)], [v])
    optimizer.learning_rate.assign(0.25)
    optimizer.apply([np.ones(1)], [v])
    np.testing.assert_allclose(v.numpy(), [-1.75])
    seen = []
    optimizer.learning_rate = lambda step: seen.append(step) or 0.1 * step
    optimizer.apply([np.ones(1)], [v])
    assert seen == [3]
    np.testing.assert_allclose(v.numpy(), [-2.05])
    with pytest.raises(ValueError, match="learning_rate"):
        optimizers.SGD("fast")


def test_errors():
    with pytest.raises(ValueError, match="Only one of"):
        optimizers.Adam(clipnorm=1.0, clipvalue=1.0)
    with pytest.raises(ValueError, match="`clipnorm` must be a positive number"):
        optimizers.Adam(clipnorm=0)
    with pytest.raises(ValueError, match="momentum"):
        optimizers.SGD(momentum=2.0)
    with pytest.raises(ValueError, match="Could not interpret optimizer identifier: foo"):
        optimizers.get("foo")
    v = Variable(np.zeros(3))
    with pytest.raises(ValueError, match=r"shape.*\(3,\).*\(2,\)"):
        optimizers.SGD().apply([np.zeros(2)], [v])
    with pytest.raises(ValueError, match="2 gradients for 1 variables"):
        optimizers.SGD().apply([np.zeros(3)] * 2, [v])
    with pytest.raises(ValueError, match="No gradients provided"):
        optimizers.SGD().apply([None], [v])
    with pytest.raises(ValueError, match="int64"):
        optimizers.SGD().build([Variable(np.zeros(2, "int64"))])


def test_serialization_and_variables(rng):
    optimizer = optimizers.Adam(0.02, beta_1=0.8, amsgrad=True, clipnorm=2.0, name="mine")
    twin = optimizers.get(optimizers.serialize(optimizer))
    assert twin.get_config() == optimizer.get_config()
    assert optimizers.get("Adam").get_config()["learning_rate"] == 0.001
    assert optimizers.get(optimizer) is optimizer
    optimizer.build(make(rng))
    assert len(optimizer.variables) == 2 + 3 * len(SHAPES)
    assert optimizer.variables[2].shape == optimizer.variables[3].shape == SHAPES[0]


def test_building_again_for_known_variables_moves_nothing():
    a, b = Variable(np.ones(3, "float32")), Variable(np.ones(2, "float32"))
    optimizer = optimizers.Adam()
    optimizer.build([a, b])
    layout, storage = optimizer.layout, a.data
    optimizer.build([b])
    assert optimizer.layout is layout and a.data is storage
    optimizer.build([a, b, Variable(np.ones(1, "float32"))])
    assert optimizer.layout is not layout


def test_momentum_changes_but_does_not_appear():
    with_momentum, without = optimizers.SGD(momentum=0.5), optimizers.SGD()
    with_momentum.momentum = 0.9
    assert with_momentum.get_config()["momentum"] == 0.9
    with pytest.raises(ValueError, match="momentum=0.9"):
        without.momentum = 0.9
