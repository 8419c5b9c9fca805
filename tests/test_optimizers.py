"""Optimizers against the update rules written out in NumPy."""

import numpy as np
import pytest

from numbarnn import constraints, jit, optimizers
from numbarnn.kernels import flat
from numbarnn.variable import ParameterBuffer, Variable

SHAPES = [(3, 5), (7,), (), (2, 2, 2)]


def make(rng, dtype="float64", shapes=SHAPES):
    return [Variable(rng.normal(size=shape), dtype=dtype, name=f"v{i}") for i, shape in enumerate(shapes)]


def sgd(state, w, g, rate, t, momentum=0.0, nesterov=False):
    v = state["v"] = momentum * state.get("v", 0) - rate * g
    return w + (momentum * v - rate * g if nesterov else v)


def moments(state, g, beta_1, beta_2):
    state["m"] = beta_1 * state.get("m", 0) + (1 - beta_1) * g
    state["s"] = beta_2 * state.get("s", 0) + (1 - beta_2) * g * g
    return state["m"], state["s"]


def adam(state, w, g, rate, t, beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False):
    m, s = moments(state, g, beta_1, beta_2)
    state["top"] = np.maximum(state.get("top", 0), s)
    bottom = state["top"] if amsgrad else s
    return w - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(bottom) + epsilon)


def nadam(state, w, g, rate, t, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, s = moments(state, g, beta_1, beta_2)
    u = [beta_1 * (1 - 0.5 * 0.96**i) for i in range(1, t + 2)]
    m_hat = u[t] * m / (1 - np.prod(u)) + (1 - u[t - 1]) * g / (1 - np.prod(u[:t]))
    return w - rate * m_hat / (np.sqrt(s / (1 - beta_2**t)) + epsilon)


def adamax(state, w, g, rate, t, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, _ = moments(state, g, beta_1, beta_2)
    state["u"] = np.maximum(beta_2 * state.get("u", 0), abs(g))
    return w - rate / (1 - beta_1**t) * m / (state["u"] + epsilon)


def lamb(state, w, g, rate, t, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    m, s = moments(state, g, beta_1, beta_2)
    direction = m / (1 - beta_1**t) / (np.sqrt(s / (1 - beta_2**t)) + epsilon)
    return w - rate * np.sqrt((w**2).sum() / (direction**2).sum()) * direction


def lion(state, w, g, rate, t, beta_1=0.9, beta_2=0.99):
    m = state.get("m", 0)
    state["m"] = beta_2 * m + (1 - beta_2) * g
    return w - rate * np.sign(beta_1 * m + (1 - beta_1) * g)


def rmsprop(state, w, g, rate, t, rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    mean, s = moments(state, g, rho, rho)
    state["v"] = momentum * state.get("v", 0) + rate * g / np.sqrt(s - centered * mean**2 + epsilon)
    return w - state["v"]


def adagrad(state, w, g, rate, t, initial_accumulator_value=0.1, epsilon=1e-7):
    state["a"] = state.get("a", initial_accumulator_value) + g * g
    return w - rate * g / np.sqrt(state["a"] + epsilon)


def adadelta(state, w, g, rate, t, rho=0.95, epsilon=1e-7):
    _, s = moments(state, g, rho, rho)
    step = np.sqrt(state.get("d", 0) + epsilon) / np.sqrt(s + epsilon) * g
    state["d"] = rho * state.get("d", 0) + (1 - rho) * step**2
    return w - rate * step


def ftrl(state, w, g, rate, t, power=0.5, start=0.1, l1=0.0, l2=0.0, shrinkage=0.0, beta=0.0):
    before = state.get("a", start)
    after = state["a"] = before + g * g
    z = state["z"] = state.get("z", 0) + g + 2 * shrinkage * w - (after**power - before**power) / rate * w
    return np.where(abs(z) <= l1, 0.0, (np.sign(z) * l1 - z) / ((after**power + beta) / rate + 2 * l2))


def adafactor(state, w, g, rate, t, beta_2_decay=-0.8, epsilon_1=1e-30, epsilon_2=1e-3, clip_threshold=1.0):
    keep, squares = 1 - t**beta_2_decay, g * g + epsilon_1
    if g.ndim < 2:
        state["v"] = v = keep * state.get("v", 0) + (1 - keep) * squares
    else:
        r = state["r"] = keep * state.get("r", 0) + (1 - keep) * squares.mean(-1)
        c = state["c"] = keep * state.get("c", 0) + (1 - keep) * squares.mean(-2)
        v = (r / r.mean(-1, keepdims=True))[..., None] * c[..., None, :]
    u = g / np.sqrt(v)
    u = u / max(1.0, np.sqrt((u**2).mean()) / clip_threshold)
    return w - max(epsilon_2, np.sqrt((w**2).mean())) * min(rate, 1 / np.sqrt(t)) * u


RULES = {
    "SGD": sgd,
    "RMSprop": rmsprop,
    "Adam": adam,
    "AdamW": adam,
    "Nadam": nadam,
    "Adagrad": adagrad,
    "Adadelta": adadelta,
    "Adamax": adamax,
    "Lion": lion,
    "Ftrl": ftrl,
    "Lamb": lamb,
    "Adafactor": adafactor,
}
FTRL = {
    "learning_rate_power": "power",
    "initial_accumulator_value": "start",
    "l1_regularization_strength": "l1",
    "l2_regularization_strength": "l2",
    "l2_shrinkage_regularization_strength": "shrinkage",
}


def naive(name, options, values, gradients_of_steps):
    """The equations, one array at a time, in float64; the common options around them."""
    options = dict(options)
    common = {
        key: options.pop(key)
        for key in ("weight_decay", "clipvalue", "clipnorm", "global_clipnorm", "gradient_accumulation_steps")
        if key in options
    }
    rate = options.pop("learning_rate", 0.01 if name == "SGD" else 0.001)
    decay = common.get("weight_decay", 0.004 if name == "AdamW" else 0.0)
    if name == "Ftrl":
        options = {FTRL.get(key, key): abs(value) for key, value in options.items()}
    values, states = [v.astype("float64") for v in values], [{} for _ in values]
    rounds = common.get("gradient_accumulation_steps", 1)
    for t in range(1, len(gradients_of_steps) // rounds + 1):
        several = gradients_of_steps[(t - 1) * rounds : t * rounds]
        gradients = clip([np.mean(gs, axis=0, dtype="float64") for gs in zip(*several, strict=True)], common)
        for i, g in enumerate(gradients):
            values[i] = RULES[name](states[i], values[i] * (1 - rate * decay), g, rate, t, **options)
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
    ("SGD", {}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"clipvalue": 0.3}),
    ("SGD", {"momentum": 0.5, "clipnorm": 0.7}),
    ("SGD", {"global_clipnorm": 1.0}),
    ("Adam", {}),
    ("Adam", {"learning_rate": 0.05, "beta_1": 0.7, "beta_2": 0.9, "epsilon": 1e-3}),
    ("Adam", {"amsgrad": True, "beta_2": 0.5}),
    ("Adam", {"clipnorm": 0.5}),
    ("Adam", {"global_clipnorm": 0.5}),
    ("Adam", {"clipvalue": 0.1}),
    ("AdamW", {"learning_rate": 0.05}),
    ("AdamW", {"learning_rate": 0.05, "weight_decay": 0.5, "amsgrad": True}),
    ("Nadam", {"learning_rate": 0.05, "beta_1": 0.7, "beta_2": 0.9}),
    ("Adamax", {"learning_rate": 0.05, "beta_1": 0.7, "beta_2": 0.9}),
    ("Lamb", {"learning_rate": 0.05, "beta_2": 0.9}),
    ("Lion", {"learning_rate": 0.05}),
    ("RMSprop", {}),
    ("RMSprop", {"rho": 0.7, "momentum": 0.4, "centered": True, "epsilon": 1e-3}),
    ("RMSprop", {"momentum": 0.4, "clipnorm": 0.5}),
    ("Adagrad", {"learning_rate": 0.05}),
    ("Adagrad", {"learning_rate": 0.05, "initial_accumulator_value": 0.0, "epsilon": 1e-3}),
    ("Adadelta", {"learning_rate": 1.0, "rho": 0.7, "epsilon": 1e-3}),
    ("Ftrl", {"learning_rate": 0.05}),
    ("Ftrl", {"learning_rate": 0.05, "learning_rate_power": -0.7, "beta": 0.5, "l2_regularization_strength": 0.5}),
    ("Ftrl", {"learning_rate": 0.5, "l1_regularization_strength": 0.6, "l2_shrinkage_regularization_strength": 0.1}),
    ("Adafactor", {"learning_rate": 0.05}),
    ("Adafactor", {"learning_rate": 0.7, "beta_2_decay": -0.5, "clip_threshold": 0.5}),
    *[(name, {"learning_rate": 0.05, "weight_decay": 0.5, "clipnorm": 0.5}) for name in RULES],
    *[(name, {"learning_rate": 0.05, "gradient_accumulation_steps": 2, "clipvalue": 0.5}) for name in RULES],
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_updates_are_the_equations(rng, name, options, dtype):
    variables = make(rng, dtype)
    start = [v.numpy() for v in variables]
    steps = [[rng.normal(size=v.shape).astype(dtype) for v in variables] for _ in range(6)]
    optimizer = getattr(optimizers, name)(**options)
    for gradients in steps:
        optimizer.apply(gradients, variables)
    expected = naive(name, options, start, steps)
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for variable, value in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=tolerance, atol=tolerance)
    assert int(optimizer.iterations) == 6 // options.get("gradient_accumulation_steps", 1)
    assert all(v.version >= int(optimizer.iterations) for v in variables)


@pytest.fixture
def threads_as_before():
    before = jit.get_num_threads()
    yield
    jit.set_num_threads(before)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.usefixtures("threads_as_before")
def test_any_threads_give_the_same_bits(rng, name):
    size = 5 * flat.GRAIN + 13
    start, steps = rng.normal(size=size), rng.normal(size=(4, size))
    found = []
    for threads in (1, 2, 7):
        jit.set_num_threads(threads)
        variable = Variable(start, dtype="float32")
        options = {"global_clipnorm": 10.0, "use_ema": True, "weight_decay": 0.5, "gradient_accumulation_steps": 2}
        optimizer = optimizers.get({"class_name": name, "config": options})
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
    with pytest.raises(ValueError, match="`clipnorm` must be a number > 0"):
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
