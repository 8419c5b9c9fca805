"""Metrics: values over several batches, weights, masks, and which accuracy is meant."""

import numpy as np
import pytest

from numbarnn import losses, metrics, models  # noqa: F401 - models join masks to metrics
from numbarnn.layers import set_mask


def test_mean_runs_over_batches(rng):
    mean = metrics.Mean()
    assert mean.result() == 0.0
    a, b = rng.normal(size=7), rng.normal(size=4)
    mean.update_state(a)
    mean.update_state(b)
    assert mean.result() == pytest.approx(np.concatenate([a, b]).mean())
    mean.reset_state()
    mean.update_state(a, sample_weight=np.arange(7))
    mean.update_state(3.0)
    assert mean.result() == pytest.approx(((a * np.arange(7)).sum() + 3.0) / 22)
    mean.reset_states()
    assert mean.result() == 0.0 and [v.name for v in mean.variables] == ["total", "count"]


def test_mean_of_sequences(rng):
    values, weights = rng.normal(size=(3, 4)), rng.uniform(size=(3, 4))
    mean = metrics.Mean()
    mean.update_state(values)
    assert mean.result() == pytest.approx(values.mean())
    mean.reset_state()
    mean.update_state(values, sample_weight=weights)
    assert mean.result() == pytest.approx((values * weights).sum() / weights.sum())
    mean.reset_state()
    mean.update_state(values, sample_weight=weights[:, 0])
    assert mean.result() == pytest.approx((values.mean(1) * weights[:, 0]).sum() / weights[:, 0].sum())


def test_weight_zero_hides_nan():
    mean = metrics.Mean()
    mean.update_state([1.0, np.nan], sample_weight=[1.0, 0.0])
    assert mean.result() == 1.0


def test_sum(rng):
    total = metrics.Sum()
    total.update_state([1.0, 2.0])
    assert total([3.0, 4.0], sample_weight=[1.0, 0.0]) == 6.0


@pytest.mark.parametrize(
    ("metric", "y", "p", "expected"),
    [
        (metrics.Accuracy(), [1, 2, 3, 4], [0, 2, 3, 4], 0.75),
        (metrics.BinaryAccuracy(), [[1], [0], [1], [0]], [[0.9], [0.6], [0.5], [0.1]], 0.5),
        (metrics.BinaryAccuracy(threshold=0.4), [[1], [0]], [[0.45], [0.3]], 1.0),
        (metrics.CategoricalAccuracy(), [[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]], 0.5),
        (metrics.SparseCategoricalAccuracy(), [2, 1], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]], 0.5),
        (metrics.SparseCategoricalAccuracy(), [[2], [1]], [[0.1, 0.6, 0.3], [0.05, 0.95, 0]], 0.5),
        (metrics.SparseCategoricalAccuracy(), [[0, 1]], [[[0.7, 0.3], [0.2, 0.8]]], 1.0),
        (metrics.MeanSquaredError(), [[0.0, 1.0]], [[1.0, 3.0]], 2.5),
        (metrics.MeanAbsoluteError(), [[0.0, 1.0]], [[1.0, 3.0]], 1.5),
        (metrics.SparseCategoricalCrossentropy(from_logits=True), [0], [[0.0, 0.0]], np.log(2)),
        (metrics.CategoricalCrossentropy(), [[0.0, 1.0]], [[0.5, 0.5]], np.log(2)),
        (metrics.BinaryCrossentropy(from_logits=True), [[1.0]], [[0.0]], np.log(2)),
    ],
    ids=lambda x: x.name if isinstance(x, metrics.Metric) else "",
)
def test_values(metric, y, p, expected):
    metric.reset_state()
    metric.update_state(np.array(y), np.array(p))
    assert metric.result() == pytest.approx(expected)


def test_masks_weigh(rng):
    y, p = rng.integers(0, 3, size=(4, 5)), rng.normal(size=(4, 5, 3))
    mask = rng.uniform(size=(4, 5)) < 0.5
    w = rng.uniform(size=(4, 5))
    hits = y == p.argmax(-1)
    set_mask(p, mask)
    metric = metrics.SparseCategoricalAccuracy()
    assert metric(y, p) == pytest.approx(hits[mask].mean())
    metric.reset_state()
    assert metric(y, p, sample_weight=w) == pytest.approx((hits * w)[mask].sum() / w[mask].sum())


@pytest.mark.parametrize("name", ["accuracy", "acc", "Accuracy"])
def test_which_accuracy_is_meant(name):
    def cls(y_shape, p_shape):
        found = metrics.resolve(name, y_shape, p_shape)
        assert found.name == name
        return type(found)

    assert cls((8, 1), (8, 1)) is metrics.BinaryAccuracy
    assert cls((8,), (8, 1)) is metrics.BinaryAccuracy
    assert cls((8,), (8, 3)) is metrics.SparseCategoricalAccuracy
    assert cls((8, 1), (8, 3)) is metrics.SparseCategoricalAccuracy
    assert cls((8, 5), (8, 5, 3)) is metrics.SparseCategoricalAccuracy
    assert cls((8, 3), (8, 3)) is metrics.CategoricalAccuracy


def test_which_crossentropy_is_meant():
    assert type(metrics.resolve("ce", (8,), (8, 3))) is metrics.SparseCategoricalCrossentropy
    assert type(metrics.resolve("crossentropy", (8, 1), (8, 1))) is metrics.BinaryCrossentropy


def test_names_and_functions():
    assert metrics.resolve("mae", (3, 1), (3, 1)).name == "mae"
    assert metrics.resolve(metrics.MeanSquaredError, (3, 1), (3, 1)).name == "mean_squared_error"

    def biggest(y_true, y_pred):
        return np.abs(y_true - y_pred).max(-1)

    metric = metrics.resolve(biggest, (3, 1), (3, 1))
    assert metric.name == "biggest"
    assert metric(np.zeros((2, 2)), np.array([[1.0, 2.0], [3.0, 0.0]])) == 2.5
    with pytest.raises(ValueError, match="Could not interpret metric identifier: foo"):
        metrics.get("foo")


def test_a_metric_of_ones_own():
    class Count(metrics.Metric):
        def __init__(self):
            super().__init__(name="count")
            self.seen = self.add_weight("seen")

        def update_state(self, y_true, y_pred, sample_weight=None):
            self.seen.assign_add(len(y_true))

        def result(self):
            return float(self.seen)

    metric = Count()
    assert metric([1, 2], None) == 2 and metric([1], None) == 3
    metric.reset_state()
    assert metric.result() == 0


def test_shapes_that_do_not_match_raise():
    with pytest.raises(ValueError, match=r"y_true.shape=\(3,\), y_pred.shape=\(2, 4\)"):
        metrics.sparse_categorical_accuracy(np.zeros(3), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="same shape"):
        metrics.categorical_accuracy(np.zeros((2, 3)), np.zeros((2, 4)))


def test_serialization():
    metric = metrics.BinaryAccuracy(threshold=0.3, name="hits")
    twin = metrics.get(metrics.serialize(metric))
    assert twin.get_config() == metric.get_config()
