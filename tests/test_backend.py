"""Settings, names, serialization, random streams, regularizers, constraints."""

import copy

import numpy as np
import pytest

from numbarnn import backend, constraints, graph, ops, random, regularizers, serialization
from numbarnn.graph import Spec
from numbarnn.random import SeedGenerator
from numbarnn.variable import Variable

# -- settings ---------------------------------------------------------------------------------------------------------


def test_floatx():
    assert backend.floatx() == "float32"
    try:
        backend.set_floatx(np.float64)
        assert backend.floatx() == "float64"
        assert Variable(1.0).dtype == np.float64
    finally:
        backend.set_floatx("float32")
    for bad in ("int32", "foo", 3):
        with pytest.raises(ValueError, match=f"Unknown `floatx` value: {bad}"):
            backend.set_floatx(bad)


def test_epsilon_and_data_format():
    assert backend.epsilon() == 1e-7
    try:
        backend.set_epsilon(1e-3)
        backend.set_image_data_format("channels_first")
        assert backend.epsilon() == 1e-3
        assert backend.image_data_format() == "channels_first"
    finally:
        backend.set_epsilon(1e-7)
        backend.set_image_data_format("channels_last")
    with pytest.raises(ValueError, match="data_format=foo"):
        backend.set_image_data_format("foo")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "float32"),
        ("float64", "float64"),
        (np.int64, "int64"),
        (np.dtype("bool"), "bool"),
        (int, "int32"),
        (float, "float32"),
    ],
)
def test_standardize_dtype(given, name):
    assert backend.standardize_dtype(given) == name


@pytest.mark.parametrize("bad", ["foo", "complex64", object, 3])
def test_standardize_dtype_refuses(bad):
    with pytest.raises(ValueError, match="Invalid dtype"):
        backend.standardize_dtype(bad)


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("LSTM", "lstm"),
        ("SimpleRNN", "simple_rnn"),
        ("GRUCell", "gru_cell"),
        ("Conv2D", "conv2d"),
        ("MyLayer", "my_layer"),
    ],
)
def test_snake_case(name, snake):
    assert backend.to_snake_case(name) == snake


def test_names():
    backend.clear_session()
    assert [backend.get_uid("a"), backend.get_uid("a"), backend.get_uid("b")] == [1, 2, 1]
    assert [backend.auto_name("MyLayer") for _ in range(2)] == ["my_layer", "my_layer_1"]
    backend.clear_session()
    assert backend.get_uid("a") == 1


def test_dot():
    a, b = np.ones((2, 3, 4)), np.arange(20.0).reshape(4, 5)
    np.testing.assert_allclose(backend.dot(a, b), np.dot(a, b))


# -- serialization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "a", [1, [2]], {"a": [1, 2]}, b"ab"])
def test_plain_values_come_back(value):
    assert serialization.deserialize_keras_object(serialization.serialize_keras_object(value)) == value


def test_tuples():
    assert serialization.serialize_keras_object((1, (2, None))) == (1, (2, None))
    written = {"class_name": "__tuple__", "config": {"value": [1, None]}}
    assert serialization.deserialize_keras_object(written) == (1, None)


def test_arrays_come_back():
    value = np.arange(6, dtype=np.int16).reshape(2, 3)
    again = serialization.deserialize_keras_object(serialization.serialize_keras_object(value))
    assert again.dtype == np.int16
    np.testing.assert_array_equal(again, value)
    assert serialization.serialize_keras_object(np.float32(0.5)) == 0.5


class Mine:
    def __init__(self, a=1):
        self.a = a

    def get_config(self):
        return {"a": self.a}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


def test_custom_objects():
    config = serialization.serialize_keras_object(Mine(5))
    assert (config["class_name"], config["registered_name"]) == ("Mine", "Mine")
    with pytest.raises(TypeError, match="Could not locate class 'Mine'.*register_keras_serializable"):
        serialization.deserialize_keras_object(config)
    assert serialization.deserialize_keras_object(config, {"Mine": Mine}).a == 5
    with serialization.custom_object_scope({"Mine": Mine}):
        assert serialization.deserialize_keras_object(config).a == 5
    with pytest.raises(TypeError):
        serialization.deserialize_keras_object(config)


def test_registered_objects():
    @serialization.register_keras_serializable("pack")
    class Known(Mine):
        pass

    @serialization.register_keras_serializable("pack", name="fn")
    def function(x):
        return x

    try:
        config = serialization.serialize_keras_object(Known(2))
        assert config["registered_name"] == "pack>Known"
        assert serialization.deserialize_keras_object(config).a == 2
        assert serialization.deserialize_keras_object(serialization.serialize_keras_object(function)) is function
        assert serialization.get_registered_object("pack>fn") is function
    finally:
        for name in ("pack>Known", "pack>fn"):
            del serialization.get_custom_objects()[name]
    with pytest.raises(ValueError, match="get_config"):
        serialization.register_keras_serializable()(type("Bare", (), {}))


@pytest.mark.parametrize("value", [object(), Mine, lambda x: x])
def test_what_cannot_be_serialized(value):
    with pytest.raises(ValueError, match="serialize"):
        serialization.serialize_keras_object(value)


# -- random -----------------------------------------------------------------------------------------------------------


def test_streams_follow_seed_and_counter():
    a, b = SeedGenerator(3), SeedGenerator(3)
    first = [a.next().random(4) for _ in range(3)]
    np.testing.assert_array_equal(first, [b.next().random(4) for _ in range(3)])
    assert len({x[0] for x in first}) == 3
    np.testing.assert_array_equal(a.state.value, [3, 3])
    twin = copy.deepcopy(a)
    np.testing.assert_array_equal(twin.next().random(4), a.next().random(4))
    assert SeedGenerator.from_config(a.get_config()).get_config() == a.get_config()
    held = a.next(), a.next()  # streams are independent objects
    assert held[0].random() != held[1].random()
    for bad in ("a", 1.5, True):
        with pytest.raises(ValueError, match="`seed` must be an integer"):
            SeedGenerator(bad)
    SeedGenerator(-1).next()
    SeedGenerator(2**63 - 1).next()


def test_a_stream_is_not_drawn_while_tracing():
    generator = SeedGenerator(1)
    with pytest.raises(RuntimeError, match="while a function is being traced"):
        graph.trace(lambda x: x * generator.next().random(), (Spec((2,)),))


@pytest.mark.parametrize(
    ("draw", "low", "high"),
    [
        (lambda seed: random.uniform((1000,), 2, 3, seed=seed), 2, 3),
        (lambda seed: random.normal((1000,), 5, 0.1, seed=seed), 4, 6),
        (lambda seed: random.truncated_normal((1000,), 5, 0.1, seed=seed), 4.8, 5.2),
        (lambda seed: random.randint((1000,), 3, 6, seed=seed), 3, 5.5),
    ],
)
def test_draws(draw, low, high):
    values = draw(4)
    assert low <= values.min() < values.max() <= high
    np.testing.assert_array_equal(values, draw(4))
    generator = SeedGenerator(4)
    np.testing.assert_array_equal(values, draw(generator))
    assert not np.array_equal(values, draw(generator))
    random.set_seed(8)
    first = draw(None)
    assert not np.array_equal(first, draw(None))
    random.set_seed(8)
    np.testing.assert_array_equal(first, draw(None))
    program = graph.trace(lambda: draw(generator), ())
    assert not np.array_equal(program(), program())


def test_draw_types_and_errors():
    assert random.uniform((2,)).dtype == np.float32
    assert random.uniform(2, dtype="float64").dtype == np.float64
    assert random.normal((2,), dtype="float16").dtype == np.float16
    assert random.randint((2,), 0, 3).dtype == np.int32
    with pytest.raises(ValueError, match="fully known"):
        random.uniform((None, 2))
    with pytest.raises(ValueError, match="either an integer or an instance of `SeedGenerator`"):
        random.uniform((2,), seed="a")
    with pytest.raises(ValueError, match="range \\[0, 1\\]"):
        random.dropout(np.ones(3), 1.5)


def test_uniform_never_reaches_the_open_end():
    values = random.uniform((1 << 20,), 1.0, 1.0 + 2**-20, seed=0)
    assert values.max() < np.float32(1.0 + 2**-20)
    assert values.min() >= 1


def test_dropout_factors():
    x = np.ones((3, 1000), np.float32)
    factors = random.dropout_factors(x, 0.5, (1, None), copies=4, seed=1)
    assert factors.shape == (4, 1, 1000)
    assert not np.array_equal(factors[0], factors[1])
    assert random.dropout_factors(np.ones((2, 2), int), 0.5).dtype == np.float32
    program = graph.trace(lambda x: random.dropout(x, 0.5, seed=SeedGenerator(3)), (Spec((3, None)),))
    assert program(x).shape == x.shape


# -- regularizers and constraints -------------------------------------------------------------------------------------

W = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])


@pytest.mark.parametrize(
    ("regularizer", "expected"),
    [
        (regularizers.L1(0.1), 0.1 * 7.5),
        (regularizers.L2(0.1), 0.1 * 15.25),
        (regularizers.L1L2(0.1, 0.2), 0.75 + 0.2 * 15.25),
        (regularizers.L1L2(), 0.0),
        (regularizers.get("l1"), 0.01 * 7.5),
        (regularizers.get("L2"), 0.01 * 15.25),
        (regularizers.get("l1_l2"), 0.01 * 22.75),
        (regularizers.OrthogonalRegularizer(0.5), 0.5 * 6.5 / np.sqrt(5.25 * 10)),
    ],
)
def test_penalties(regularizer, expected):
    np.testing.assert_allclose(regularizer(W), expected, rtol=1e-12)
    assert np.shape(regularizer(W)) == ()
    np.testing.assert_allclose(regularizer(Variable(W)), expected, rtol=1e-12)
    assert np.asarray(regularizer(W.astype(np.float32))).dtype == np.float32
    again = regularizers.get(regularizers.serialize(regularizer))
    np.testing.assert_allclose(again(W), expected, rtol=1e-12)
    variable = Variable(W)
    program = graph.trace(lambda: ops.add(regularizer(variable), 0.0), ())
    np.testing.assert_allclose(program(), expected, rtol=1e-12)


def test_orthogonal_regularizer_by_columns():
    cosines = [
        abs(W[:, i] @ W[:, j]) / np.linalg.norm(W[:, i]) / np.linalg.norm(W[:, j]) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    found = regularizers.OrthogonalRegularizer(0.3, "columns")(W)
    np.testing.assert_allclose(found, 0.3 * np.mean(cosines))
    with pytest.raises(ValueError, match="rank 2"):
        regularizers.OrthogonalRegularizer()(np.ones(3))
    with pytest.raises(ValueError, match="`mode`"):
        regularizers.OrthogonalRegularizer(mode="x")


@pytest.mark.parametrize("bad", [-1, np.inf, np.nan, "a", True])
def test_bad_factors(bad):
    with pytest.raises(ValueError, match="expected a non-negative float"):
        regularizers.L2(bad)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (constraints.MaxNorm(2.0), W * np.minimum(1, 2 / np.linalg.norm(W, axis=0))),
        (constraints.MaxNorm(2.0, axis=1), W * np.minimum(1, 2 / np.linalg.norm(W, axis=1, keepdims=True))),
        (constraints.MaxNorm(2.0, axis=[0, 1]), W * min(1, 2 / np.linalg.norm(W))),
        (constraints.NonNeg(), np.maximum(W, 0)),
        (constraints.UnitNorm(), W / np.linalg.norm(W, axis=0)),
        (constraints.MinMaxNorm(2.0, 3.0), W * np.clip(np.linalg.norm(W, axis=0), 2, 3) / np.linalg.norm(W, axis=0)),
        (
            constraints.MinMaxNorm(0, 1, 0.5),
            W * (0.5 * np.clip(np.linalg.norm(W, axis=0), 0, 1) / np.linalg.norm(W, axis=0) + 0.5),
        ),
    ],
)
def test_constraints(constraint, expected):
    np.testing.assert_allclose(constraint(W), expected, atol=1e-6)
    np.testing.assert_allclose(constraint(Variable(W)), expected, atol=1e-6)
    assert constraint(W.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(constraints.get(constraints.serialize(constraint))(W), expected, atol=1e-6)


@pytest.mark.parametrize("module", [regularizers, constraints])
def test_get(module):
    assert module.get(None) is None
    function = abs
    assert module.get(function) is function
    kind = module.__name__.rpartition(".")[2].removesuffix("s")
    for bad in ("foo", 3):
        with pytest.raises(ValueError, match=f"Could not interpret {kind} identifier: {bad}"):
            module.get(bad)


@pytest.mark.parametrize("name", ["max_norm", "MaxNorm", "non_neg", "unit_norm", "min_max_norm"])
def test_constraint_names(name):
    assert backend.to_snake_case(type(constraints.get(name)).__name__) == backend.to_snake_case(name)
