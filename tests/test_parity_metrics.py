"""Every metric against live Keras 3, over several batches, with and without weights, and at the extremes."""

import re

import numpy as np
import pytest
from drawn import both_in, classes, coarse, distribution, labels, one_hot, positive, real, share, yes_no

from numbarnn import layers, losses, metrics, models

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


@pytest.fixture(autouse=True)
def double_precision():
    with both_in("float64"):
        yield


FLAT, ROWS, STEPS = (8,), (8, 3), (8, 5, 3)
# Name of the class, its arguments, how targets and predictions are drawn, of which shapes.
METRICS = [
    ("Accuracy", {}, classes, classes, [FLAT, ROWS]),
    ("BinaryAccuracy", {}, yes_no, coarse, [FLAT, (8, 1), ROWS, STEPS]),
    ("BinaryAccuracy", {"threshold": 0.25}, yes_no, coarse, [ROWS]),
    ("BinaryAccuracy", {"threshold": 0.0}, yes_no, real, [ROWS]),
    ("CategoricalAccuracy", {}, one_hot, real, [ROWS, STEPS]),
    ("SparseCategoricalAccuracy", {}, labels, real, [ROWS, STEPS]),
    ("TopKCategoricalAccuracy", {"k": 2}, one_hot, coarse, [(8, 6), (8, 5, 6)]),
    ("TopKCategoricalAccuracy", {}, one_hot, real, [(8, 6)]),
    ("SparseTopKCategoricalAccuracy", {"k": 2}, labels, coarse, [(8, 6), (8, 5, 6)]),
    ("SparseTopKCategoricalAccuracy", {"k": 2, "from_sorted_ids": True}, labels, classes, [(8, 6)]),
    ("MeanSquaredError", {}, real, real, [(8, 1), ROWS, STEPS]),
    ("RootMeanSquaredError", {}, real, real, [FLAT, (8, 1), ROWS, STEPS]),
    ("MeanAbsoluteError", {}, real, real, [ROWS, STEPS]),
    ("MeanAbsolutePercentageError", {}, positive, real, [ROWS, STEPS]),
    ("MeanSquaredLogarithmicError", {}, positive, positive, [ROWS, STEPS]),
    ("LogCoshError", {}, real, real, [ROWS, STEPS]),
    ("CosineSimilarity", {}, real, real, [ROWS, STEPS]),
    ("R2Score", {}, real, real, [ROWS, (8, 1)]),
    ("R2Score", {"class_aggregation": None}, real, real, [ROWS]),
    ("R2Score", {"class_aggregation": "variance_weighted_average", "num_regressors": 2}, real, real, [ROWS]),
    ("PearsonCorrelation", {}, real, real, [ROWS, STEPS]),
    ("PearsonCorrelation", {"axis": 1}, real, real, [STEPS]),
    ("ConcordanceCorrelation", {}, real, real, [ROWS, STEPS]),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, yes_no, share, [ROWS, STEPS]),
    ("BinaryCrossentropy", {"from_logits": True}, yes_no, real, [ROWS]),
    ("CategoricalCrossentropy", {"label_smoothing": 0.1}, one_hot, distribution, [ROWS, STEPS]),
    ("CategoricalCrossentropy", {"from_logits": True}, one_hot, real, [ROWS]),
    ("SparseCategoricalCrossentropy", {}, labels, distribution, [ROWS, STEPS]),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, labels, real, [ROWS]),
    ("KLDivergence", {}, distribution, distribution, [ROWS, STEPS]),
    ("Poisson", {}, positive, positive, [ROWS, STEPS]),
    ("Hinge", {}, yes_no, real, [ROWS, STEPS]),
    ("SquaredHinge", {}, yes_no, real, [ROWS, STEPS]),
    ("CategoricalHinge", {}, one_hot, real, [ROWS, STEPS]),
    *(
        (name, options, yes_no, coarse, [FLAT, (8, 1), ROWS, STEPS])
        for name in ("TruePositives", "FalsePositives", "TrueNegatives", "FalseNegatives", "Precision", "Recall")
        for options in ({}, {"thresholds": 0.25}, {"thresholds": [0.75, 0.2, 0.375]}, {"thresholds": [0.0, 0.5, 1.0]})
    ),
    *(
        (name, options, yes_no, share, [(8, 6), (8, 5, 6)])
        for name in ("Precision", "Recall")
        for options in ({"top_k": 2}, {"class_id": 1}, {"top_k": 3, "class_id": 0, "thresholds": [0.3, 0.6]})
    ),
    *(
        (name, {argument: value, **options}, yes_no, coarse, [FLAT, ROWS])
        for name, argument in [
            ("SensitivityAtSpecificity", "specificity"),
            ("SpecificityAtSensitivity", "sensitivity"),
            ("PrecisionAtRecall", "recall"),
            ("RecallAtPrecision", "precision"),
        ]
        for value, options in [(0.5, {"num_thresholds": 9}), (0.3, {"num_thresholds": 1}), (0.9, {})]
    ),
    ("SensitivityAtSpecificity", {"specificity": 0.5, "class_id": 2, "num_thresholds": 33}, yes_no, share, [ROWS]),
    *(
        ("AUC", {"curve": curve, "summation_method": method, **options}, yes_no, draw, [FLAT, STEPS])
        for curve in ("ROC", "PR", "PRGAIN")
        for method in ("interpolation", "minoring", "majoring")
        for draw, options in [(share, {}), (coarse, {"num_thresholds": 9}), (coarse, {"thresholds": [0.75, 0.2]})]
    ),
    ("AUC", {"from_logits": True}, yes_no, real, [FLAT, ROWS]),
    ("AUC", {"label_weights": [0.5, 2.0, 0.0]}, yes_no, share, [ROWS]),
    ("AUC", {"multi_label": True}, yes_no, share, [ROWS]),
    ("AUC", {"multi_label": True, "num_labels": 3, "curve": "PR"}, yes_no, coarse, [ROWS]),
    ("AUC", {"multi_label": True, "label_weights": [0.5, 2.0, 0.0], "num_thresholds": 9}, yes_no, coarse, [ROWS]),
    *(
        ("FBetaScore", {"average": average, "beta": 2.0, "threshold": threshold}, one_hot, share, [ROWS])
        for average in (None, "micro", "macro", "weighted")
        for threshold in (None, 0.4)
    ),
    ("F1Score", {}, one_hot, distribution, [ROWS]),
    ("IoU", {"num_classes": 3, "target_class_ids": [0, 2]}, classes, classes, [FLAT, ROWS]),
    ("IoU", {"num_classes": 2, "target_class_ids": [1], "ignore_class": 0}, classes, classes, [FLAT]),
    ("IoU", {"num_classes": 3, "target_class_ids": [1], "sparse_y_pred": False}, labels, real, [ROWS]),
    ("BinaryIoU", {}, yes_no, coarse, [FLAT, ROWS]),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.25}, yes_no, coarse, [FLAT]),
    ("MeanIoU", {"num_classes": 4}, classes, classes, [FLAT, ROWS]),
    ("OneHotIoU", {"num_classes": 3, "target_class_ids": [0, 2]}, one_hot, real, [ROWS]),
    ("OneHotMeanIoU", {"num_classes": 3, "sparse_y_pred": True}, one_hot, labels, [ROWS]),
]
OF_SETS = ("IoU", "BinaryIoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU")


UNNUMBERED = re.compile(r"(?<!r2)_\d+$")  # the count at the end of a name made for an object


def ids(value):
    if isinstance(value, dict):
        return "-".join(f"{k}={v}" for k, v in value.items())
    return value if isinstance(value, str) else getattr(value, "__name__", "")


def pair(name, options):
    import keras

    return getattr(metrics, name)(**options), getattr(keras.metrics, name)(**options)


def numbers(result):
    """A result of either library as an array."""
    return np.asarray(result.detach().numpy() if hasattr(result, "detach") else result, dtype=np.float64)


def weights(name, options, draw_y, shape, rng):
    """Weights of such shapes as Keras can spread."""
    if name in OF_SETS:
        return rng.integers(0, 4, size=shape[:-1] if draw_y in (one_hot, labels) else shape)  # it truncates others
    # Eighths: their sums are exact in float32 too, which Keras sometimes takes.
    return rng.integers(1, 9, size=shape[:1] if "axis" in options else shape[:-1] or shape) / 8


def update(ours, theirs, y, p, weight=None):
    import torch

    given = [None if a is None else torch.tensor(a) for a in (y, p, weight)]
    if weight is None:
        ours.update_state(y, p)
        theirs.update_state(*given[:2])
    else:
        ours.update_state(y, p, sample_weight=weight)
        theirs.update_state(*given[:2], sample_weight=given[2])


def compare(ours, theirs, what=""):
    a, b = numbers(ours.result()), numbers(theirs.result())
    assert a.shape == b.shape
    # Keras's IoU is float32, whatever its dtype.
    np.testing.assert_allclose(a, b, rtol=1e-6 if "IoU" in type(ours).__name__ else 1e-9, atol=1e-10, err_msg=what)
    return a


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p", "shapes"), METRICS, ids=ids)
def test_over_batches(name, options, draw_y, draw_p, shapes, weighted, rng):
    for shape in shapes:
        ours, theirs = pair(name, options)
        last = None
        for number, size in enumerate((shape[0], 13, 1)):
            whole = (size, *shape[1:])
            y, p = draw_y(rng, whole), draw_p(rng, whole)
            weight = weights(name, options, draw_y, whole, rng) if weighted else None
            update(ours, theirs, y, p, weight)
            last = compare(ours, theirs, f"shape {shape}, batch {number}")
        assert np.isfinite(last).all()
        for metric in (ours, theirs):
            metric.reset_state()
        y, p = draw_y(rng, shape), draw_p(rng, shape)
        update(ours, theirs, y, p)
        compare(ours, theirs, f"shape {shape}, after reset_state")


WEIGHTED = [
    *(
        (name, shapes)
        for name in ("AUC", "Precision", "TruePositives")
        for shapes in [((8, 3), (8, 3)), ((8, 3), (8, 1))]
    ),
    *(
        (name, shapes)
        for name in ("BinaryAccuracy", "RootMeanSquaredError")
        for shapes in [((8, 3), (8, 3)), ((8, 3), (8, 1)), ((8, 5, 3), (8,)), ((8, 5, 3), (8, 5)), ((8,), (8, 1))]
    ),
]


@pytest.mark.parametrize(("name", "shapes"), WEIGHTED, ids=str)
def test_shapes_of_weights(name, shapes, rng):
    ours, theirs = pair(name, {})
    for _ in range(3):
        weight = rng.integers(1, 9, size=shapes[1]) / 8
        weight[1] = 0
        update(ours, theirs, yes_no(rng, shapes[0]), share(rng, shapes[0]), weight)
        compare(ours, theirs)


@pytest.mark.parametrize(
    ("name", "options", "draw_y", "draw_p", "shapes"),
    [m for m in METRICS if m[2] is yes_no and "top_k" not in m[1]],  # of equal ones, Keras takes any k
    ids=ids,
)
def test_all_of_one_kind(name, options, draw_y, draw_p, shapes):
    """All targets one class, all predictions at one place: at the ends, at a threshold; then all weights zero."""
    shape = shapes[-1]
    for y, p in [(0.0, 0.0), (0.0, 0.5), (1.0, 0.5), (1.0, 1.0)]:
        ours, theirs = pair(name, options)
        update(ours, theirs, np.full(shape, y), np.full(shape, p))
        compare(ours, theirs, f"{y} {p}")
    ours, theirs = pair(name, options)
    update(
        ours,
        theirs,
        np.full(shape, 1.0),
        np.full(shape, 0.5),
        np.zeros(shape if name in OF_SETS else shape[:-1] or shape, int),
    )
    compare(ours, theirs, "weights of zero")


@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p", "shapes"), METRICS, ids=ids)
def test_nothing(name, options, draw_y, draw_p, shapes):
    ours, theirs = pair(name, options)
    if options.get("multi_label") or name in ("R2Score", "FBetaScore", "F1Score"):
        assert np.isnan(ours.result()) if name == "R2Score" else ours.result() == 0.0  # Keras raises AttributeError
        return
    compare(ours, theirs)


@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p", "shapes"), METRICS, ids=ids)
def test_configurations(name, options, draw_y, draw_p, shapes):
    import keras

    ours, theirs = pair(name, options)
    config = theirs.get_config()
    assert ours.name == UNNUMBERED.sub("", theirs.name)
    del config["dtype"], config["name"]
    if config.get("label_weights") is not None:
        config["label_weights"] = config["label_weights"].tolist()
    if "from_sorted_ids" in ours.get_config():
        config.setdefault("from_sorted_ids", False)
    for key, value in config.items():
        np.testing.assert_equal(ours.get_config()[key], value)
    # What we write Keras reads.
    written = ours.get_config()
    for key in ("axis",) if name == "CosineSimilarity" else ():
        written.pop(key)
    assert type(getattr(keras.metrics, name).from_config(written)) is type(theirs)


def test_names():
    import keras

    names = {name for name in dir(keras.metrics) if not name.startswith("_")}
    assert names <= set(metrics.__all__)
    demanding = ("IoU", "At", "MeanMetricWrapper", "Metric")
    for name, cls in keras.src.metrics.ALL_OBJECTS_DICT.items():
        if not any(part in cls.__name__ for part in demanding):
            ours, theirs = metrics.get(name), keras.metrics.get(name)
            assert type(ours).__name__ == type(theirs).__name__
            assert UNNUMBERED.sub("", ours.name) == UNNUMBERED.sub("", theirs.name)


def two_headed(layers, models):
    x = layers.Input((6,), name="x")
    yes = layers.Dense(1, activation="sigmoid", name="yes")(x)
    which = layers.Dense(3, activation="softmax", name="which")(x)
    return models.Model(x, [yes, which])


def history(model, losses, metrics, x, y, w, arguments):
    model.compile("sgd", ["binary_crossentropy", losses.CategoricalFocalCrossentropy()], **arguments(metrics))
    fitted = model.fit(x, y, sample_weight=w, epochs=2, batch_size=8, shuffle=False, verbose=0).history
    return fitted, model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0, return_dict=True)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda m: {"metrics": [["AUC", "precision", m.Recall(name="found"), "AUC"], ["accuracy", "kl_divergence"]]},
        lambda m: {
            "metrics": {"yes": ["mse", m.AUC(curve="PR")], "which": m.TopKCategoricalAccuracy(2)},
            "weighted_metrics": {"yes": ["mse", m.Precision()]},
            "loss_weights": [0.25, 2.0],
        },
        lambda m: {
            "metrics": [None, [m.F1Score(average="macro")]],
            "weighted_metrics": [["bce", "bce"], ["acc", m.F1Score(average="macro")]],
            "loss_weights": [0.5, 3.0],
        },
    ],
    ids=["plain", "dicts", "weighted"],
)
def test_in_training(arguments, rng):
    import keras

    keras.utils.clear_session()  # names count from the start
    ours, theirs = two_headed(layers, models), two_headed(keras.layers, keras.models)
    theirs.set_weights(ours.get_weights())
    x, y = rng.normal(size=(24, 6)), [yes_no(rng, (24, 1)), one_hot(rng, (24, 3))]
    w = [rng.uniform(size=24), rng.uniform(size=24)]
    a = history(ours, losses, metrics, x, y, w, arguments)
    b = history(theirs, keras.losses, keras.metrics, x, y, w, arguments)
    for mine, other in zip(a, b, strict=True):
        assert set(mine) == set(other)
        for key, value in other.items():
            np.testing.assert_allclose(mine[key], value, rtol=1e-6, err_msg=key)
