"""Metrics: values over several batches, weights, masks, and which accuracy is meant."""

import copy
import json
import pickle

import numpy as np
import pytest

from numbarnn import layers, losses, metrics, models
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


@pytest.mark.parametrize(
    ("metric", "y", "p", "expected"),
    [
        (metrics.BinaryAccuracy(threshold=0.0), [[1], [0]], [[0.4], [-0.3]], 1.0),  # of logits
        (metrics.TopKCategoricalAccuracy(k=2), [[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.0, 0.95]], 0.5),
        (metrics.SparseTopKCategoricalAccuracy(k=1), [2, 0], [[0.1, 0.6, 0.6], [0.5, 0.95, 0.0]], 0.5),
        (metrics.SparseTopKCategoricalAccuracy(k=2, from_sorted_ids=True), [2, 0], [[1, 2, 0], [2, 1, 0]], 0.5),
        (metrics.RootMeanSquaredError(), [0.0, 1.0, 5.0], [3.0, 1.0, 1.0], 5 / np.sqrt(3)),
        (metrics.MeanAbsolutePercentageError(), [[1.0, 4.0]], [[1.5, 3.0]], 37.5),
        (metrics.MeanSquaredLogarithmicError(), [[0.0]], [[np.e - 1]], 1.0),
        (metrics.CosineSimilarity(), [[0.0, 1.0], [1.0, 1.0]], [[1.0, 0.0], [3.0, 3.0]], 0.5),
        (metrics.LogCoshError(), [[0.0]], [[1.0]], np.log(np.cosh(1.0))),
        (metrics.R2Score(), [[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]], 0.5),
        (metrics.R2Score(num_regressors=1), [[1.0], [2.0], [3.0]], [[1.0], [2.0], [4.0]], 0.0),
        (metrics.PearsonCorrelation(), [[1.0, 2.0, 3.0]], [[4.0, 3.0, 2.0]], -1.0),
        (metrics.ConcordanceCorrelation(), [[1.0, 2.0, 3.0]], [[2.0, 3.0, 4.0]], 4 / 7),
        (metrics.KLDivergence(), [[0.5, 0.5]], [[0.25, 0.75]], 0.5 * np.log(4 / 3)),
        (metrics.Poisson(), [[2.0]], [[1.0]], 1.0),
        (metrics.Hinge(), [[1, 0]], [[0.25, 0.5]], 1.125),
        (metrics.SquaredHinge(), [[-1, 1]], [[0.0, 2.0]], 0.5),
        (metrics.CategoricalHinge(), [[0, 1]], [[0.5, 1.0]], 0.5),
        (metrics.F1Score(average="micro"), [[1, 0], [1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], 2 / 3),
        (metrics.FBetaScore("macro", 2.0, 0.5), [[1], [1], [0]], [[0.9], [0.2], [0.6]], 0.5),
        (metrics.BinaryIoU(), [0, 1, 0, 1], [0.1, 0.5, 0.6, 0.2], 1 / 3),
        (metrics.IoU(3, [0, 2]), [0, 0, 1, 1], [0, 1, 0, 1], 1 / 3),  # there is no 2, which does not count
        (metrics.MeanIoU(2), [0, 0, 1, 1], [0, 1, 0, 1], 1 / 3),
        (metrics.MeanIoU(2, ignore_class=0), [0, 0, 1, 1], [0, 1, 0, 1], 0.25),
        (metrics.OneHotMeanIoU(2), [[1, 0], [0, 1]], [[0.2, 0.1], [0.9, 0.3]], 0.25),
        (metrics.OneHotIoU(2, [0]), [[1, 0], [0, 1]], [[0.2, 0.1], [0.9, 0.3]], 0.5),
    ],
    ids=lambda x: x.name if isinstance(x, metrics.Metric) else "",
)
def test_more_values(metric, y, p, expected):
    metric.reset_state()
    metric.update_state(np.array(y), np.array(p))
    assert metric.result() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    metric.update_state(np.array(y), np.array(p))  # the same once more changes nothing
    if not getattr(metric, "num_regressors", 0):
        assert metric.result() == pytest.approx(expected, rel=1e-6, abs=1e-6)
    metric.reset_state()
    assert not any(v.numpy().any() for v in metric.variables)


COUNTS = {
    metrics.TruePositives: lambda y, yes: y & yes,
    metrics.FalsePositives: lambda y, yes: ~y & yes,
    metrics.TrueNegatives: lambda y, yes: ~y & ~yes,
    metrics.FalseNegatives: lambda y, yes: y & ~yes,
}


@pytest.mark.parametrize("thresholds", [None, 0.25, [0.7, 0.2, 0.25], [0.0, 1.0]], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_counts(rng, thresholds, weighted):
    given = [0.5] if thresholds is None else np.atleast_1d(thresholds)
    y, p, w = rng.integers(0, 2, size=(9, 4)), rng.integers(0, 9, size=(9, 4)) / 8, rng.uniform(size=9)
    weight = w if weighted else None
    for cls, answers in COUNTS.items():
        metric = cls(thresholds=thresholds)
        for part in (slice(0, 5), slice(5, 9)):
            metric.update_state(y[part], p[part], None if weight is None else weight[part])
        wanted = [(answers(y == 1, p > t) * (w[:, None] if weighted else 1)).sum() for t in given]
        np.testing.assert_allclose(metric.result(), wanted if len(given) > 1 else wanted[0], rtol=1e-12)


def test_a_threshold_in_the_precision_of_the_predictions():
    p = np.array([0.3], "float32")  # a little more than the double 0.3
    assert metrics.TruePositives(thresholds=0.3)([1], p) == 0
    assert list(metrics.TruePositives(thresholds=[0.3, 0.2])([1], p)) == [0, 1]


def test_a_prediction_that_is_nan_is_no():
    for thresholds in (0.5, [0.0, 0.5]):
        found = metrics.FalsePositives(thresholds=thresholds)([0, 0], np.array([np.nan, 1.0]))
        assert np.all(found == 1)
        weighted = metrics.Recall(thresholds=thresholds)([1, 1], np.array([np.nan, 1.0]), [0.0, 1.0])
        assert np.all(np.asarray(weighted) == 1)


def test_precision_and_recall(rng):
    y, p = rng.integers(0, 2, size=(9, 4)), rng.uniform(size=(9, 4))
    best = p >= np.sort(p, axis=-1)[:, -2:-1]
    assert metrics.Precision(top_k=2)(y, p) == pytest.approx(y[best].mean())
    assert metrics.Recall(top_k=2)(y, p) == pytest.approx((y * best).sum() / y.sum())
    assert metrics.Recall(class_id=1)(y, p) == pytest.approx((p[:, 1] > 0.5)[y[:, 1] == 1].mean())
    both = best[:, 3] & (p[:, 3] > 0.4)
    assert metrics.Precision(0.4, top_k=2, class_id=3)(y, p) == pytest.approx(y[both, 3].mean())
    assert metrics.Precision()([0, 0], [0.1, 0.2]) == 0.0


def area(y, p, w=None):
    """The exact area under the ROC curve: the share of pairs in the right order."""
    w = np.ones(len(y)) if w is None else w
    pairs = w[y == 1][:, None] * w[y == 0]
    above = p[y == 1][:, None] - p[y == 0]
    return (pairs * ((above > 0) + 0.5 * (above == 0))).sum() / pairs.sum()


def test_auc(rng):
    y, p, w = rng.integers(0, 2, size=60), rng.integers(1, 17, size=60) / 16, rng.uniform(size=60)
    auc = metrics.AUC(num_thresholds=17)  # between two of its thresholds there is one value
    for part in (slice(0, 40), slice(40, 60)):
        auc.update_state(y[part], p[part])
    assert auc.result() == pytest.approx(area(y, p))
    auc.reset_state()
    assert auc(y, p, w) == pytest.approx(area(y, p, w))
    assert auc(y, p, w) == pytest.approx(area(y, p, w))  # weights twice as large
    logits = np.log((p + 1e-3) / (1.001 - p))
    assert metrics.AUC(from_logits=True, num_thresholds=2000)(y, logits) == pytest.approx(area(y, p))
    labels = y.reshape(20, 3), p.reshape(20, 3)
    each = [area(labels[0][:, j], labels[1][:, j]) for j in range(3)]
    assert metrics.AUC(17, multi_label=True)(*labels) == pytest.approx(np.mean(each))
    weighted = metrics.AUC(17, multi_label=True, label_weights=[1.0, 3.0, 0.0])(*labels)
    assert weighted == pytest.approx((each[0] + 3 * each[1]) / 4)
    weighted = metrics.AUC(17, label_weights=[1.0, 3.0, 0.0])(*labels)
    assert weighted == pytest.approx(area(y, p, np.tile([1.0, 3.0, 0.0], 20)))
    assert metrics.AUC(1000)(y, 3 * p - 1) == pytest.approx(area(y, np.clip(3 * p - 1, 0, 1)))


def test_auc_of_precision_over_recall():
    y, p = np.array([0, 0, 1, 1]), np.array([0.1, 0.5, 0.3, 0.9])
    # Thresholds -0, 0.5, 1+: (recall, precision) are (1, 1/2), (1/2, 1), (0, 0).
    assert metrics.AUC(3, "PR", "majoring")(y, p) == pytest.approx(0.5 * 1 + 0.5 * 1)
    assert metrics.AUC(3, "PR", "minoring")(y, p) == pytest.approx(0.5 * 0.5 + 0.5 * 0)
    # From 0.5 down to 0 one right and two wrong come in: tp = 1 + (t - 1) / 3, t from 1 to 4 answers.
    t = np.linspace(1, 4, 100001)
    inner = np.trapezoid((1 + (t - 1) / 3) / t, t) / 3 / 2
    assert metrics.AUC(3, "PR")(y, p) == pytest.approx(0.5 + inner)


def test_operating_points():
    y, p = [0, 0, 0, 1, 1], [0.0, 0.3, 0.8, 0.3, 0.8]
    assert metrics.SensitivityAtSpecificity(0.5)(y, p) == 0.5
    assert metrics.SpecificityAtSensitivity(0.9)(y, p) == pytest.approx(1 / 3)
    assert metrics.PrecisionAtRecall(0.9)(y, p) == 0.5
    assert metrics.RecallAtPrecision(0.5)(y, p) == 1.0
    assert metrics.RecallAtPrecision(0.9)(y, p) == 0.0


def test_weights_of_samples_reach_their_timesteps(rng):
    y, p, w = rng.integers(0, 2, size=(4, 5, 2)), rng.uniform(size=(4, 5, 2)), rng.uniform(size=4)
    whole = np.broadcast_to(w[:, None, None], y.shape).copy()
    for metric in (metrics.AUC, metrics.Precision, metrics.TruePositives, metrics.BinaryIoU):
        assert metric()(y, p, w) == metric()(y, p, whole)
    with pytest.raises(ValueError, match=r"sample_weight of shape \(5,\) for predictions of shape \(4, 5, 2\)"):
        metrics.AUC().update_state(y, p, np.ones(5))


@pytest.mark.parametrize(
    "make",
    [
        metrics.AUC,
        metrics.Precision,
        metrics.FalseNegatives,
        metrics.BinaryIoU,
        metrics.RootMeanSquaredError,
        lambda: metrics.RecallAtPrecision(0.5),
        lambda: metrics.Recall([0.2, 0.6]),
    ],
)
def test_masked_entries_do_not_count(rng, make):
    y, p, mask = rng.integers(0, 2, size=(4, 5)), rng.uniform(size=(4, 5)), rng.uniform(size=(4, 5)) < 0.5
    w = rng.uniform(size=(4, 5))
    expected = make()(y[mask], p[mask]), make()(y[mask], p[mask], w[mask])
    p[~mask] = np.nan
    set_mask(p, mask)
    np.testing.assert_allclose(make()(y, p), expected[0])
    np.testing.assert_allclose(make()(y, p, w), expected[1])


def test_an_ignored_class_does_not_count():
    y, p = np.array([[0, 2, 1], [2, 2, 0]]), np.full((2, 3, 2), 0.5)
    p[0, 0] = [0.9, 0.1]
    metric = metrics.SparseCategoricalCrossentropy(ignore_class=2)
    assert metric(y, p) == pytest.approx(-(np.log(0.9) + 2 * np.log(0.5)) / 3)


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


MADE = [
    metrics.BinaryAccuracy(threshold=0.3, name="hits"),
    metrics.SparseTopKCategoricalAccuracy(2, from_sorted_ids=True),
    metrics.AUC(thresholds=[0.2, 0.1], curve="PR", label_weights=[1.0, 2.0], from_logits=True),
    metrics.AUC(multi_label=True, num_labels=2),
    metrics.AUC(multi_label=True),
    metrics.Precision([0.2, 0.1], top_k=2, class_id=1),
    metrics.SensitivityAtSpecificity(0.3, num_thresholds=7),
    metrics.SpecificityAtSensitivity(0.3),
    metrics.PrecisionAtRecall(0.3),
    metrics.RecallAtPrecision(0.3, class_id=0),
    metrics.F1Score("macro", 0.5),
    metrics.FBetaScore(beta=2.0),
    metrics.IoU(3, (0, 2), ignore_class=1),
    metrics.OneHotIoU(3, [0], axis=1),
    metrics.MeanIoU(3, sparse_y_pred=False),
    metrics.OneHotMeanIoU(3),
    metrics.R2Score("variance_weighted_average", 2),
    metrics.SparseCategoricalCrossentropy(ignore_class=0),
    metrics.MeanMetricWrapper(losses.huber, delta=2.0),
    *(
        getattr(metrics, name)()
        for name in metrics.__all__
        if name[0].isupper() and "At" not in name and name not in ("Metric", "MeanMetricWrapper")
        if not name.endswith("IoU") or name == "BinaryIoU"
    ),
]


@pytest.mark.parametrize("metric", MADE, ids=lambda metric: metric.name)
def test_copies(metric):
    twin = metrics.get(metrics.serialize(metric))
    assert type(twin) is type(metric) and twin.get_config() == metric.get_config()
    assert metrics.serialize(metric)["module"] == "keras.metrics"
    assert pickle.loads(pickle.dumps(metric)).get_config() == metric.get_config()
    assert json.loads(json.dumps(metrics.serialize(metric))) is not None


def test_a_copy_keeps_the_state(rng):
    auc = metrics.AUC(multi_label=True)
    value = auc(rng.integers(0, 2, size=(9, 2)), rng.uniform(size=(9, 2)))
    for twin in (copy.deepcopy(auc), pickle.loads(pickle.dumps(auc))):
        assert twin.result() == value
        twin.reset_state()
        assert twin.result() == 0.0 and auc.result() == value


def test_wrong_arguments_are_named():
    y = np.zeros((2, 3))
    for call, message in [
        (lambda: metrics.Precision(1.5), r"`thresholds` must be a number in \[0, 1\]. Received: thresholds=1.5"),
        (lambda: metrics.Recall(top_k=0), "`top_k` must be an integer >= 1"),
        (lambda: metrics.Recall(class_id=3)(y, y), "There is no class 3 among 3"),
        (lambda: metrics.Recall(class_id=0)(y[0], y[0]), "y_pred must have shape"),
        (lambda: metrics.AUC(1), "`num_thresholds` must be an integer >= 2"),
        (lambda: metrics.AUC(curve="DET"), "Invalid AUC curve value: 'DET'"),
        (lambda: metrics.AUC(summation_method="mean"), "Invalid AUC summation method value: 'mean'"),
        (
            lambda: metrics.AUC(thresholds=[0.5, 2.0]),
            r"`thresholds` must be a number in \[0, 1\]. Received: thresholds=2.0",
        ),
        (lambda: metrics.AUC(num_labels=2), "`num_labels` is needed only when"),
        (lambda: metrics.AUC(label_weights=[1.0])(y, y), "one weight for each of 3 labels. Received: 1 weights"),
        (lambda: metrics.AUC(multi_label=True)(y[0], y[0]), "`y_pred` must have shape"),
        (lambda: metrics.AUC()(y[:, 0], y), r"y_true.shape=\(2,\), y_pred.shape=\(2, 3\)"),
        (lambda: metrics.RecallAtPrecision(1.5), r"`precision` must be a number in \[0, 1\]"),
        (lambda: metrics.RecallAtPrecision(0.5, 0), "`num_thresholds` must be an integer >= 1"),
        (lambda: metrics.F1Score("mean"), "Invalid `average` argument value"),
        (lambda: metrics.FBetaScore(beta=1), "Invalid `beta` argument value"),
        (lambda: metrics.F1Score(threshold=0.0), "Invalid `threshold` argument value"),
        (lambda: metrics.F1Score()(y[0], y[0]), "F1Score expects 2D inputs"),
        (lambda: metrics.IoU(2, [2]), r"Target class id 2 is out of range, which is \[0, 2\)"),
        (lambda: metrics.MeanIoU(2)([0], [0, 1]), "Targets and predictions must be as many"),
        (lambda: metrics.R2Score("mean"), "Invalid value for argument `class_aggregation`"),
        (lambda: metrics.R2Score()(y[0], y[0]), "R2Score expects 2D inputs"),
        (lambda: metrics.SparseTopKCategoricalAccuracy(k=0)([0], y[:1]), "`k` must be an integer >= 1"),
        (lambda: metrics.SparseTopKCategoricalAccuracy()([3], y[:1]), r"Labels must lie in \[0, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for metric in (metrics.F1Score(), metrics.R2Score(), metrics.AUC(multi_label=True)):
        metric.update_state(y, y)
        with pytest.raises(ValueError, match="3"):
            metric.update_state(y[:, :1], y[:, :1])
    with pytest.warns(UserWarning, match="needs 7 target values. Received: 6"):
        metrics.R2Score(num_regressors=5)(np.eye(2, 3), np.eye(2, 3))


def test_names_in_training(rng):
    model = models.Sequential([layers.Input((3,)), layers.Dense(1, activation="sigmoid")])
    x, y, w = rng.normal(size=(12, 3)), rng.integers(0, 2, size=12), rng.uniform(size=12)
    plain = ["AUC", "precision", metrics.Recall(name="found")]
    model.compile("sgd", "Huber", metrics=plain, weighted_metrics=["auc", "AUC"])
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert list(history) == ["loss", "AUC", "precision", "found", "auc", "weighted_AUC"]
    found = model.evaluate(x, y, sample_weight=w, verbose=0, return_dict=True)
    p = model.predict(x, verbose=0)[:, 0]
    assert found["AUC"] == pytest.approx(metrics.AUC()(y, p))
    assert found["auc"] == found["weighted_AUC"]
    assert found["weighted_AUC"] == pytest.approx(metrics.AUC()(y, p, w)) != found["AUC"]
    assert found["found"] == pytest.approx((p > 0.5)[y == 1].mean())


def test_metrics_of_sequences_know_the_mask(rng):
    model = models.Sequential([layers.Input((None, 2)), layers.Masking(), layers.SimpleRNN(2, return_sequences=True)])
    model.add(layers.Dense(1, activation="sigmoid"))
    x, y = rng.normal(size=(6, 5, 2)), rng.integers(0, 2, size=(6, 5, 1))
    mask = np.arange(5) < np.array([5, 2, 1, 3, 4, 5])[:, None]
    x[~mask] = 0
    model.compile("sgd", losses.BinaryFocalCrossentropy(), metrics=[metrics.AUC(1000), "recall"])
    loss, auc, recall = model.evaluate(x, y, verbose=0)
    p = model.predict(x, verbose=0).astype(np.float64)
    assert auc == pytest.approx(area(y[mask, 0], p[mask, 0]), abs=0.01)
    assert recall == pytest.approx((p[mask] > 0.5)[y[mask] == 1].mean())
    assert loss == pytest.approx(losses.binary_focal_crossentropy(y[mask], p[mask]).mean(), rel=1e-5)


def test_metrics_within_a_metric_start_anew_with_it():
    class Range(metrics.Metric):
        def __init__(self):
            super().__init__(name="range")
            self.squares = metrics.Mean()
            self.others = [metrics.Sum()]

        def update_state(self, values):
            self.squares.update_state(np.square(values))
            self.others[0].update_state(values)

        def result(self):
            return self.squares.result() + self.others[0].result()

    metric = Range()
    assert metric([1.0, 3.0]) == 9.0 and len(metric.variables) == 3
    metric.reset_state()
    assert metric.result() == 0.0


def test_short_names():
    for name, cls in [("kld", metrics.KLDivergence), ("mape", metrics.MeanAbsolutePercentageError)]:
        assert type(metrics.get(name)) is cls and type(metrics.get(name.upper())) is cls
    assert type(metrics.get("r2_score")) is metrics.R2Score and type(metrics.get("f1_score")) is metrics.F1Score
    assert metrics.resolve(losses.Huber(), (3, 1), (3, 1)).name == "huber_loss"
