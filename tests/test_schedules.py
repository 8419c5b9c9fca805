"""Learning rate schedules against numbers worked out by hand, and optimizers that follow them."""

import math

import numpy as np
import pytest

from numbarnn import Variable, optimizers
from numbarnn.optimizers import schedules

HALF = 0.5 * (1 + math.cos(math.pi / 4))  # a cosine after a quarter of its way

NUMBERS = [
    (schedules.ExponentialDecay(0.5, 10, 0.25), {0: 0.5, 5: 0.25, 10: 0.125, 20: 0.03125}),
    (schedules.ExponentialDecay(0.5, 10, 0.25, staircase=True), {0: 0.5, 9: 0.5, 10: 0.125, 19: 0.125}),
    (schedules.InverseTimeDecay(0.5, 10, 2.0), {0: 0.5, 5: 0.25, 10: 0.5 / 3, 15: 0.125}),
    (schedules.InverseTimeDecay(0.5, 10, 2.0, staircase=True), {9: 0.5, 10: 0.5 / 3, 19: 0.5 / 3}),
    (schedules.PiecewiseConstantDecay([3, 6], [1.0, 0.5, 0.25]), {0: 1.0, 3: 1.0, 4: 0.5, 6: 0.5, 7: 0.25, 99: 0.25}),
    (schedules.PolynomialDecay(1.0, 10, 0.5), {0: 1.0, 5: 0.75, 10: 0.5, 99: 0.5}),
    (schedules.PolynomialDecay(1.0, 10, 0.0, power=2.0), {5: 0.25, 8: 0.2**2}),
    (schedules.PolynomialDecay(1.0, 10, 0.0, cycle=True), {0: 1.0, 5: 0.5, 10: 0.0, 15: 0.25, 25: 1 / 6}),
    (schedules.CosineDecay(0.5, 20), {0: 0.5, 5: 0.5 * HALF, 10: 0.25, 20: 0.0, 99: 0.0}),
    (schedules.CosineDecay(0.5, 20, alpha=0.5), {0: 0.5, 10: 0.375, 20: 0.25, 99: 0.25}),
    (
        schedules.CosineDecay(0.1, 20, warmup_target=0.5, warmup_steps=8),
        {0: 0.1, 2: 0.2, 4: 0.3, 8: 0.5, 13: 0.5 * HALF, 18: 0.25, 28: 0.0, 99: 0.0},
    ),
    (schedules.CosineDecay(0.1, 20, warmup_target=0.5), {0: 0.5, 10: 0.25}),
    (schedules.CosineDecayRestarts(1.0, 4), {0: 1.0, 1: HALF, 2: 0.5, 4: 1.0, 6: HALF, 8: 0.5, 12: 1.0, 20: 0.5}),
    (schedules.CosineDecayRestarts(1.0, 4, t_mul=1.0, m_mul=0.5, alpha=0.5), {0: 1.0, 4: 0.75, 6: 0.625, 8: 0.625}),
]


@pytest.mark.parametrize(("schedule", "rates"), NUMBERS, ids=lambda value: type(value).__name__)
def test_numbers(schedule, rates):
    for step, rate in rates.items():
        assert schedule(step) == pytest.approx(rate, abs=1e-15)
        assert isinstance(float(schedule(step)), float)
    steps = np.array(list(rates))
    np.testing.assert_allclose(schedule(steps), list(rates.values()), rtol=1e-12, atol=1e-15)
    assert schedule(steps.reshape(1, -1)).shape == (1, len(steps))
    assert schedule(Variable(steps[0])) == schedule(steps[0])


@pytest.mark.parametrize("growth", [1.5, 2.0, 3.0, 5.0, 10.0])
def test_cosines_start_where_they_start(growth):
    """A quotient of logarithms, rounded down, is one less at some of these steps (10: number 3)."""
    schedule = schedules.CosineDecayRestarts(1.0, 1024, t_mul=growth, m_mul=0.5)
    start = 0.0
    for number in range(8):
        assert schedule(start) == pytest.approx(0.5**number, rel=1e-6), number
        assert schedule(start - 0.001) < 1e-5 or number == 0
        start += 1024 * growth**number


@pytest.mark.parametrize("schedule", [schedule for schedule, _ in NUMBERS], ids=lambda value: type(value).__name__)
def test_configurations_make_the_same_schedule(schedule):
    config = schedules.serialize(schedule)
    assert config["module"] == "keras.optimizers.schedules" and config["registered_name"] is None
    twin = schedules.deserialize(config)
    assert type(twin) is type(schedule) and twin.get_config() == schedule.get_config()
    optimizer = optimizers.Adam(schedule)
    again = optimizers.get(optimizers.serialize(optimizer))
    assert again.learning_rate == optimizer.learning_rate == schedule(0)


def test_errors():
    for cls in (schedules.ExponentialDecay, schedules.InverseTimeDecay):
        with pytest.raises(ValueError, match="`decay_steps` must be a number > 0. Received: decay_steps=0"):
            cls(0.1, 0, 0.5)
    for cls in (schedules.PolynomialDecay, schedules.CosineDecay):
        with pytest.raises(ValueError, match="`decay_steps` must be a number > 0"):
            cls(0.1, -1)
    with pytest.raises(ValueError, match="`first_decay_steps` must be a number > 0"):
        schedules.CosineDecayRestarts(0.1, 0)
    with pytest.raises(ValueError, match="length of boundaries should be 1 less"):
        schedules.PiecewiseConstantDecay([1, 2], [0.1, 0.2])
    with pytest.raises(ValueError, match="strictly increasing"):
        schedules.PiecewiseConstantDecay([2, 2], [0.1, 0.2, 0.3])

    class Bare(schedules.LearningRateSchedule):
        pass

    with pytest.raises(NotImplementedError, match="'Bare' must override `__call__"):
        Bare()(0)
    with pytest.raises(NotImplementedError, match="'Bare' must override `get_config"):
        Bare().get_config()


def test_optimizers_follow_schedules():
    v = Variable(np.zeros(1))
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([0, 1], [1.0, 0.5, 0.25]))
    assert [variable.name for variable in optimizer.variables] == ["iteration"]
    for expected in (-1.0, -1.5, -1.75, -2.0):
        optimizer.apply([np.ones(1)], [v])
        np.testing.assert_allclose(v.numpy(), [expected])
    assert optimizer.learning_rate == 0.25
    with pytest.raises(TypeError, match="not settable"):
        optimizer.learning_rate = 0.5
    optimizer.learning_rate = schedules.ExponentialDecay(0.5, 4, 0.5)
    assert optimizer.learning_rate == 0.25


def test_weight_decay_follows_the_schedule():
    v = Variable(np.full(1, 16.0))
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([0], [1.0, 0.5]), weight_decay=0.5)
    optimizer.apply([np.zeros(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [8.0])
    optimizer.apply([np.zeros(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [6.0])


def test_schedules_count_steps_not_updates():
    v = Variable(np.zeros(1))
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([1], [1.0, 0.5]), gradient_accumulation_steps=2)
    for _ in range(4):
        optimizer.apply([np.ones(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [-1.5])


def test_functions_with_and_without_an_argument():
    v = Variable(np.zeros(1))
    for rate in (lambda: 0.5, lambda step: 0.5 + 0 * step):
        optimizers.SGD(rate).apply([np.ones(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [-1.0])
