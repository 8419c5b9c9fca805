import math

import numpy as np
import pytest

from numbarnn import initializers, random
from numbarnn.random import SeedGenerator

BIG = (400, 300)


@pytest.fixture(autouse=True)
def seeded():
    random.set_seed(0)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("glorot_uniform", math.sqrt(6 / 700)),
        ("he_uniform", math.sqrt(6 / 400)),
        ("lecun_uniform", math.sqrt(3 / 400)),
        ("random_uniform", 0.05),
        ("uniform", 0.05),
    ],
)
def test_uniform_distributions(name, limit):
    values = initializers.get(name)(BIG)
    assert values.dtype == np.float32
    assert limit * 0.999 < np.abs(values).max() <= limit
    assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.01)
    assert abs(values.mean()) < 0.01 * limit


@pytest.mark.parametrize(
    ("name", "stddev", "cut"),
    [
        ("glorot_normal", math.sqrt(2 / 700), True),
        ("he_normal", math.sqrt(2 / 400), True),
        ("lecun_normal", math.sqrt(1 / 400), True),
        ("random_normal", 0.05, False),
        ("normal", 0.05, False),
    ],
)
def test_normal_distributions(name, stddev, cut):
    values = initializers.get(name)(BIG)
    assert values.std() == pytest.approx(stddev, rel=0.01)
    beyond = 2 * stddev / 0.87962566103423978
    assert bool(np.abs(values).max() <= beyond * 1.0001) is cut


def test_truncated_normal_keeps_the_stddev_before_the_cut():
    values = initializers.TruncatedNormal(1.0, 0.5)(BIG)
    assert np.abs(values - 1).max() <= 1.0
    assert values.std() == pytest.approx(0.5 * 0.87962566103423978, rel=0.01)
    # Uniform redraws or clipping would pile values up elsewhere: compare a quantile of the truncated distribution.
    assert np.mean(np.abs(values - 1) < 0.5) == pytest.approx(0.68268949 / 0.95449974, abs=0.005)


@pytest.mark.parametrize("distribution", ["truncated_normal", "untruncated_normal", "uniform", "normal"])
@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 400), ("fan_out", 300), ("fan_avg", 350)])
def test_variance_scaling_has_the_variance_it_says(distribution, mode, fan):
    values = initializers.VarianceScaling(3.0, mode, distribution, seed=1)(BIG, dtype="float64")
    assert values.dtype == np.float64
    assert values.var() == pytest.approx(3.0 / fan, rel=0.02)


@pytest.mark.parametrize(("shape", "fans"), [((), (1, 1)), ((5,), (5, 5)), ((3, 4), (3, 4)), ((2, 3, 4, 5), (24, 30))])
def test_fans(shape, fans):
    assert initializers.compute_fans(shape) == fans


def test_fans_of_named_axes():
    assert initializers.compute_fans((2, 3, 5), [0, 2], [1]) == (10, 3)
    with pytest.raises(ValueError, match="given together"):
        initializers.VarianceScaling(input_axes=[0])


@pytest.mark.parametrize("shape", [(7, 7), (5, 20), (20, 5), (2, 3, 4)])
def test_orthogonal_is_orthonormal_over_the_whole_matrix(shape):
    values = initializers.Orthogonal(gain=2.0, seed=3)(shape, dtype="float64")
    assert values.shape == shape
    matrix = values.reshape(-1, shape[-1])
    small = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_signs_are_uniform():
    """Without fixing the signs by R, the first entry would have one sign nearly always."""
    firsts = [initializers.Orthogonal(seed=seed)((3, 3))[0, 0] for seed in range(60)]
    assert 15 < sum(value > 0 for value in firsts) < 45


def test_orthogonal_needs_two_axes():
    with pytest.raises(ValueError, match="at least two-dimensional"):
        initializers.Orthogonal()((3,))


def test_identity():
    np.testing.assert_array_equal(initializers.Identity(2.0)((2, 3)), [[2, 0, 0], [0, 2, 0]])
    with pytest.raises(ValueError, match="2D"):
        initializers.Identity()((2, 2, 2))


@pytest.mark.parametrize(("name", "value"), [("zeros", 0), ("zero", 0), ("Zeros", 0), ("ones", 1), ("one", 1)])
def test_constant_aliases(name, value):
    np.testing.assert_array_equal(initializers.get(name)((2, 2)), np.full((2, 2), value, "float32"))


def test_seeds():
    one = initializers.GlorotUniform(seed=5)
    np.testing.assert_array_equal(one((3, 4)), one((3, 4)))
    np.testing.assert_array_equal(one((3, 4)), initializers.GlorotUniform(seed=5)((3, 4)))
    assert not np.array_equal(one((3, 4)), initializers.GlorotUniform(seed=6)((3, 4)))
    unseeded = initializers.GlorotUniform()
    np.testing.assert_array_equal(unseeded((3, 4)), unseeded((3, 4)))  # as Keras: the seed is drawn once
    assert not np.array_equal(unseeded((3, 4)), initializers.GlorotUniform()((3, 4)))
    moving = initializers.GlorotUniform(seed=SeedGenerator(5))
    assert not np.array_equal(moving((3, 4)), moving((3, 4)))


def test_the_global_seed_decides_unseeded_ones():
    random.set_seed(3)
    first = [initializers.HeNormal()((2, 3)) for _ in range(2)]
    random.set_seed(3)
    second = [initializers.HeNormal()((2, 3)) for _ in range(2)]
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("seed", ["a", 1.5, True])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match="`seed` argument should be an instance"):
        initializers.RandomNormal(seed=seed)


def test_get():
    assert initializers.get(None) is None
    assert isinstance(initializers.get("glorot_uniform"), initializers.GlorotUniform)
    assert isinstance(initializers.get("GlorotUniform"), initializers.GlorotUniform)
    assert isinstance(initializers.get(initializers.Ones), initializers.Ones)

    def function(shape, dtype=None):
        return np.full(shape, 7, dtype)

    assert initializers.get(function) is function
    array = np.arange(4.0).reshape(2, 2)
    np.testing.assert_array_equal(initializers.get(array)((2, 2), "float32"), array)
    with pytest.raises(ValueError, match="Expected `shape` to be"):
        initializers.get(array)((2, 3))
    for bad in ("foo", 3):
        with pytest.raises(ValueError, match=f"Could not interpret initializer identifier: {bad}"):
            initializers.get(bad)


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.Zeros(),
        initializers.Ones(),
        initializers.Constant(0.3),
        initializers.Identity(2.0),
        initializers.RandomNormal(1.0, 2.0, seed=1),
        initializers.TruncatedNormal(1.0, 2.0, seed=1),
        initializers.RandomUniform(1.0, 2.0, seed=1),
        initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=1),
        initializers.GlorotNormal(seed=4),
        initializers.Orthogonal(0.5, seed=4),
        initializers.get(np.eye(3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_configurations_make_the_same_initializer(initializer):
    config = initializers.serialize(initializer)
    again = initializers.get(config)
    assert type(again) is type(initializer)
    np.testing.assert_array_equal(again((3, 3)), initializer((3, 3)))
    np.testing.assert_array_equal(initializer.clone()((3, 3)), initializer((3, 3)))


def test_configuration_is_in_keras_format():
    assert initializers.serialize(initializers.Constant(2)) == {
        "module": "keras.initializers",
        "class_name": "Constant",
        "config": {"value": 2},
        "registered_name": None,
    }
    # Keras 2's, without a module
    assert initializers.get({"class_name": "RandomUniform", "config": {"minval": 1, "maxval": 2}}).maxval == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0}, "`scale` must be a number > 0"),
        ({"mode": "fan"}, "Invalid `mode` argument: fan"),
        ({"distribution": "flat"}, "Invalid `distribution` argument: flat"),
    ],
)
def test_variance_scaling_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        initializers.VarianceScaling(**arguments)


def test_float16_values_are_float16():
    assert initializers.GlorotUniform()((3, 3), dtype="float16").dtype == np.float16


def test_empty_shape():
    assert initializers.GlorotUniform()((0, 3)).shape == (0, 3)
    assert initializers.RandomNormal()(()).shape == ()
