"""Losses against their formulas in NumPy, their gradients against finite differences, masks and weights."""

import pickle

import numpy as np
import pytest

from numbarnn import graph, losses, models, ops  # noqa: F401 - models join masks to losses
from numbarnn.graph import Spec
from numbarnn.kernels import crossentropy as kernels
from numbarnn.layers import set_mask


def gradient(loss, y, z, **kwargs):
    """Value and gradient of a loss by tracing; keyword arguments are inputs too."""
    names = list(kwargs)

    def fn(y, z, *rest):
        return loss(y, z, **dict(zip(names, rest, strict=True)))

    arrays = [y, z, *kwargs.values()]
    program = graph.trace(fn, tuple(Spec(a.shape, a.dtype) for a in arrays))
    forward, backward = program.linearize(0, [program.inputs[1]])
    value, residuals = forward(*arrays)
    (d,) = backward(residuals, np.ones((), value.dtype))
    return value, d


def differences(loss, y, z, step=1e-6, **kwargs):
    d = np.zeros_like(z)
    for index in np.ndindex(z.shape):
        up, down = z.copy(), z.copy()
        up[index] += step
        down[index] -= step
        d[index] = (loss(y, up, **kwargs) - loss(y, down, **kwargs)) / (2 * step)
    return d


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------------------ values


def test_elementwise_values(rng):
    y, p = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    np.testing.assert_allclose(losses.mean_squared_error(y, p), ((y - p) ** 2).mean(-1))
    np.testing.assert_allclose(losses.mean_absolute_error(y, p), np.abs(y - p).mean(-1))
    t, q = rng.uniform(size=(4, 5)), rng.uniform(0.01, 0.99, size=(4, 5))
    expected = -(t * np.log(q) + (1 - t) * np.log(1 - q)).mean(-1)
    np.testing.assert_allclose(losses.binary_crossentropy(t, q), expected)
    np.testing.assert_allclose(losses.binary_crossentropy(t, np.log(q / (1 - q)), from_logits=True), expected)
    s = 0.9 * t + 0.05
    np.testing.assert_allclose(
        losses.binary_crossentropy(t, q, label_smoothing=0.1), -(s * np.log(q) + (1 - s) * np.log(1 - q)).mean(-1)
    )


@pytest.mark.parametrize("classes", [1, 2, 10, 16, 37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_crossentropy_values(rng, classes, dtype):
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    z = (4 * rng.normal(size=(3, 4, classes))).astype(dtype)
    y = rng.integers(0, classes, size=(3, 4))
    p = softmax(z.astype("float64"))
    picked = np.take_along_axis(p, y[..., None], -1)[..., 0]
    got = losses.sparse_categorical_crossentropy(y, z, from_logits=True)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, -np.log(picked), rtol=tolerance, atol=tolerance)
    clipped = np.clip(picked, 1e-7, 1 - 1e-7)
    got = losses.sparse_categorical_crossentropy(y[..., None], (3 * p).astype(dtype))
    np.testing.assert_allclose(got, -np.log(clipped), rtol=tolerance, atol=tolerance)
    if classes > 1:
        t = rng.dirichlet(np.ones(classes), size=(3, 4)).astype(dtype)
        expected = -(t * np.log(p)).sum(-1)
        got = losses.categorical_crossentropy(t, z, from_logits=True)
        np.testing.assert_allclose(got, expected, rtol=10 * tolerance)
        got = losses.categorical_crossentropy(t, p.astype(dtype))
        expected = -(t * np.log(np.clip(p, 1e-7, 1 - 1e-7))).sum(-1)
        np.testing.assert_allclose(got, expected, rtol=10 * tolerance)
        smooth = t * 0.8 + 0.2 / classes
        got = losses.categorical_crossentropy(t, z, from_logits=True, label_smoothing=0.2)
        np.testing.assert_allclose(got, -(smooth * np.log(p)).sum(-1), rtol=10 * tolerance)


def test_class_axis(rng):
    z, y = rng.normal(size=(3, 5, 4)), rng.integers(0, 5, size=(3, 4))
    expected = losses.sparse_categorical_crossentropy(y, np.moveaxis(z, 1, -1), from_logits=True)
    np.testing.assert_array_equal(losses.sparse_categorical_crossentropy(y, z, from_logits=True, axis=1), expected)
    with pytest.raises(ValueError, match="axis"):
        losses.sparse_categorical_crossentropy(y, z, axis=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_any_size_are_stable(dtype):
    z = np.array([[1e4, 0.0, -1e4], [-1e4, -1e4, -1e4]], dtype)
    value = losses.sparse_categorical_crossentropy(np.array([1, 2]), z, from_logits=True)
    np.testing.assert_allclose(value, [1e4, np.log(3)], rtol=1e-6)
    confident = losses.binary_crossentropy(np.ones((1, 1)), np.full((1, 1), 30.0), from_logits=True)
    np.testing.assert_allclose(confident, [np.exp(-30.0)], rtol=1e-6)
    assert np.isnan(losses.sparse_categorical_crossentropy([0], np.array([[np.nan] * 3 + [1.0] * 30], dtype), True)[0])


def test_regression_values(rng):
    y, p = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    e = p - y
    for name, expected in [
        ("mean_absolute_percentage_error", 100 * np.abs(e / y).mean(-1)),
        ("huber", np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5).mean(-1)),
        ("log_cosh", np.log(np.cosh(e)).mean(-1)),
        ("cosine_similarity", -(y * p).sum(-1) / np.linalg.norm(y, axis=-1) / np.linalg.norm(p, axis=-1)),
    ]:
        np.testing.assert_allclose(losses.get(name)(y, p), expected, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(losses.huber(y, p, delta=2.0), 4 * losses.huber(y / 2, p / 2), rtol=1e-12)
    # |x| - log 2, where cosh itself would overflow
    np.testing.assert_allclose(losses.log_cosh([[0.0]], [[-1000.0]]), 1000 - np.log(2))
    small = losses.log_cosh(np.zeros((1, 1), "float32"), np.full((1, 1), 1e-3, "float32"))
    np.testing.assert_allclose(small, 1e-6 / 2, rtol=1e-3)
    y, p = np.abs(y), np.abs(p)
    np.testing.assert_allclose(losses.mean_squared_logarithmic_error(y, p), (np.log((1 + p) / (1 + y)) ** 2).mean(-1))
    np.testing.assert_allclose(losses.poisson(y, p), (p - y * np.log(p + 1e-7)).mean(-1))
    y, p = rng.dirichlet(np.ones(5), size=4), rng.dirichlet(np.ones(5), size=4)
    np.testing.assert_allclose(losses.kl_divergence(y, p), (y * np.log(y / p)).sum(-1))


def test_hinge_values():
    y, p = np.array([[1.0, -1.0, -1.0]]), np.array([[0.25, -3.0, 0.5]])
    for targets in (y, (y + 1) / 2):  # of 0 and 1 alone, 0 stands for -1
        np.testing.assert_allclose(losses.hinge(targets, p), [(0.75 + 0 + 1.5) / 3])
        np.testing.assert_allclose(losses.squared_hinge(targets, p), [(0.75**2 + 1.5**2) / 3])
    np.testing.assert_allclose(losses.categorical_hinge([[0.0, 1.0, 0.0]], [[0.5, 1.25, -1.0]]), [0.25])


def test_focal_values(rng):
    t, q = rng.integers(0, 2, size=(4, 5)).astype(float), rng.uniform(0.01, 0.99, size=(4, 5))
    right = np.where(t == 1, q, 1 - q)
    for gamma in (0.0, 0.5, 2.0):
        expected = -((1 - right) ** gamma * np.log(right)).mean(-1)
        np.testing.assert_allclose(losses.binary_focal_crossentropy(t, q, gamma=gamma), expected)
        logits = np.log(q / (1 - q))
        np.testing.assert_allclose(losses.binary_focal_crossentropy(t, logits, gamma=gamma, from_logits=True), expected)
    balanced = -(np.where(t == 1, 0.3, 0.7) * (1 - right) ** 2 * np.log(right)).mean(-1)
    got = losses.binary_focal_crossentropy(t, q, apply_class_balancing=True, alpha=0.3)
    np.testing.assert_allclose(got, balanced)
    z, y = rng.normal(size=(4, 3)), rng.integers(0, 3, size=4)
    p = softmax(z)[np.arange(4), y]
    alpha = np.array([0.2, 0.5, 0.9])
    expected = -alpha[y] * (1 - p) ** 1.5 * np.log(p)
    for answers, from_logits in ((z, True), (7 * softmax(z), False)):
        got = losses.categorical_focal_crossentropy(np.eye(3)[y], answers, alpha, 1.5, from_logits)
        np.testing.assert_allclose(got, expected)
    np.testing.assert_allclose(losses.categorical_generalized_cross_entropy(y, softmax(z), 0.5), 2 * (1 - p**0.5))


def test_overlap_values(rng):
    t, p = rng.integers(0, 2, size=(3, 4, 2)).astype(float), rng.uniform(size=(3, 4, 2))
    np.testing.assert_allclose(losses.dice(t, p), 1 - 2 * (t * p).sum() / (t.sum() + p.sum()), rtol=1e-6)
    both, missed, wrong = ((a).sum((1, 2)) for a in (t * p, t * (1 - p), (1 - t) * p))
    np.testing.assert_allclose(
        losses.tversky(t, p, alpha=0.3, beta=0.9, axis=(1, 2)),
        1 - both / (both + 0.3 * missed + 0.9 * wrong),
        rtol=1e-6,
    )
    np.testing.assert_allclose(losses.tversky(t, p), losses.dice(t, p), rtol=1e-6)


# ------------------------------------------------------------------------------------------------ gradients


@pytest.mark.parametrize("classes", [2, 9, 21])
@pytest.mark.parametrize("from_logits", [True, False])
def test_crossentropy_gradients(rng, classes, from_logits):
    z = rng.normal(size=(4, classes))
    if not from_logits:
        z = np.exp(z)
        z[0, 0] = 1e-12  # below the clip: no gradient passes
    y = rng.integers(0, classes, size=4)
    y[0] = 0
    w = rng.uniform(size=4)
    w[2] = 0
    loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    value, d = gradient(loss, y, z, sample_weight=w)
    np.testing.assert_allclose(value, loss(y, z, sample_weight=w))
    rows = slice(None) if from_logits else slice(1, None)
    np.testing.assert_allclose(d[rows], differences(loss, y, z, sample_weight=w)[rows], atol=1e-8)
    assert from_logits or not d[0].any()
    assert not d[2].any() and d[1].any()

    t = rng.dirichlet(np.ones(classes), size=4) * 1.5
    loss = losses.CategoricalCrossentropy(from_logits=from_logits)
    if not from_logits:
        z[0, 0] = 1.0
    value, d = gradient(loss, t, z)
    np.testing.assert_allclose(d, differences(loss, t, z), atol=1e-8)


def test_gradient_of_soft_targets(rng):
    z, t = rng.normal(size=(3, 4)), rng.uniform(0.1, 1, size=(3, 4))
    for from_logits in (True, False):
        p = z if from_logits else np.exp(z)
        program = graph.trace(
            lambda t, p: ops.sum(losses.categorical_crossentropy(t, p, from_logits=from_logits)),  # noqa: B023
            (Spec(t.shape, t.dtype), Spec(p.shape, p.dtype)),
        )
        forward, backward = program.linearize(0, program.inputs)
        d_t, d_p = backward(forward(t, p)[1], np.ones(()))
        q = softmax(z)
        np.testing.assert_allclose(d_t, -np.log(q), atol=1e-9)
        assert d_p.shape == p.shape


ELEMENTWISE = [
    losses.MeanSquaredError(),
    losses.MeanAbsoluteError(),
    losses.MeanAbsolutePercentageError(),
    losses.MeanSquaredLogarithmicError(),
    losses.Huber(delta=0.3),
    losses.LogCosh(),
    losses.CosineSimilarity(),
    losses.KLDivergence(),
    losses.Poisson(),
    losses.Hinge(),
    losses.SquaredHinge(),
    losses.CategoricalHinge(),
    losses.BinaryCrossentropy(),
    losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1),
    losses.BinaryFocalCrossentropy(gamma=0.5, label_smoothing=0.1),
    losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True),
    losses.CategoricalFocalCrossentropy(gamma=1.5),
    losses.CategoricalFocalCrossentropy(gamma=0.5, from_logits=True, label_smoothing=0.1),
    losses.Dice(),
    losses.Dice(axis=-1),
    losses.Tversky(alpha=0.3, axis=1),
]


@pytest.mark.parametrize("loss", ELEMENTWISE, ids=lambda loss: loss.name)
def test_elementwise_gradients(rng, loss):
    y, p = rng.uniform(size=(3, 4)), rng.uniform(0.1, 0.9, size=(3, 4))
    value, d = gradient(loss, y, p)
    np.testing.assert_allclose(value, loss(y, p))
    np.testing.assert_allclose(d, differences(loss, y, p), atol=1e-6, rtol=1e-6)
    assert np.abs(d).max() > 1e-3


def test_gradient_of_the_generalized_crossentropy(rng):
    loss, y, p = losses.CategoricalGeneralizedCrossEntropy(0.7), rng.integers(0, 4, size=3), softmax(np.eye(3, 4))
    _, d = gradient(loss, y, p)
    np.testing.assert_allclose(d, differences(loss, y, p), atol=1e-8)
    assert np.count_nonzero(d) == 3


def test_saturated_answers_have_finite_gradients():
    y, p = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]])
    for cls in (losses.BinaryFocalCrossentropy, losses.CategoricalFocalCrossentropy):
        assert np.isfinite(gradient(cls(gamma=0.5), y, p)[1]).all()
        z = np.array([[800.0, -800.0]])
        assert np.isfinite(gradient(cls(gamma=0.5, from_logits=True), y, z)[1]).all()
        value, d = gradient(cls(gamma=0.5, from_logits=True), y, -z)  # and those wrong altogether, as they should
        assert np.isfinite(value) and np.abs(d).max() > 0.1


def test_gradient_of_a_logit_of_zero():
    _, d = gradient(losses.BinaryCrossentropy(from_logits=True), np.array([[1.0], [0.0]]), np.zeros((2, 1)))
    np.testing.assert_allclose(d, [[-0.25], [0.25]])


def test_crossentropy_is_the_same_for_any_threads_and_rows(rng):
    from numbarnn import jit

    z = rng.normal(size=(300, 203)).astype("float32")
    y = rng.integers(0, 203, size=300)
    d = rng.uniform(size=300).astype("float32")
    for from_logits in (True, False):
        p = z if from_logits else np.exp(z)
        answers = []
        for threads in (1, 2, 7):
            jit.set_num_threads(threads)
            loss, norms = kernels.sparse_forward(p, y, from_logits, kernels.NO_CLASS, 1e-7)
            back = kernels.sparse_backward(d, p, y, from_logits, kernels.NO_CLASS, 1e-7, norms)
            answers.append((loss, back))
        for loss, back in answers[1:]:
            np.testing.assert_array_equal(loss, answers[0][0])
            np.testing.assert_array_equal(back, answers[0][1])
        alone, _ = kernels.sparse_forward(p[77:78].copy(), y[77:78].copy(), from_logits, kernels.NO_CLASS, 1e-7)
        assert alone[0] == answers[0][0][77]


# ------------------------------------------------------------------------------------------ reduction, masks, weights


def test_reductions(rng):
    y, p = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 4))
    w = rng.uniform(size=(3, 2))
    each = ((y - p) ** 2).mean(-1)
    for name, expected in [
        ("sum_over_batch_size", (each * w).mean()),
        ("auto", (each * w).mean()),
        ("mean", (each * w).mean()),
        ("sum", (each * w).sum()),
        ("mean_with_sample_weight", (each * w).sum() / w.sum()),
        ("none", each * w),
        (None, each * w),
    ]:
        np.testing.assert_allclose(losses.MeanSquaredError(reduction=name)(y, p, sample_weight=w), expected)
    # One weight per sample counts for all its timesteps.
    np.testing.assert_allclose(losses.MeanSquaredError()(y, p, sample_weight=w[:, 0]), (each * w[:, :1]).mean())
    with pytest.raises(ValueError, match="reduction"):
        losses.MeanSquaredError(reduction="max")


@pytest.mark.parametrize("eager", [True, False])
def test_a_mask_leaves_the_mean_over_valid_entries(rng, eager):
    y, z = rng.integers(0, 5, size=(3, 4)), rng.normal(size=(3, 4, 5))
    mask = rng.uniform(size=(3, 4)) < 0.6
    mask[0] = False
    w = rng.uniform(size=3)
    each = losses.sparse_categorical_crossentropy(y, z, from_logits=True)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    if eager:
        masked = z.copy()
        set_mask(masked, mask)
        value, weighted = loss(y, masked), loss(y, masked, sample_weight=w)
    else:
        value, d = gradient(loss, y, z, mask=mask)
        assert not d[~mask].any() and d[mask].all()
        weighted, _ = gradient(loss, y, z, mask=mask, sample_weight=w)
    np.testing.assert_allclose(value, each[mask].mean())
    np.testing.assert_allclose(weighted, (each * w[:, None])[mask].sum() / mask.sum())


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
def test_everything_masked_is_zero(rng, reduction):
    y, z = rng.integers(0, 5, size=(3, 4)), rng.normal(size=(3, 4, 5))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    value, d = gradient(loss, y, z, mask=np.zeros((3, 4), bool))
    assert value == 0 and not d.any()


SPARSE = [
    losses.SparseCategoricalCrossentropy(from_logits=True),
    losses.CategoricalGeneralizedCrossEntropy(),
]


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum"])
@pytest.mark.parametrize("loss", [*ELEMENTWISE, *SPARSE], ids=lambda loss: loss.name)
def test_nan_under_the_mask_does_no_harm(rng, loss, reduction):
    if isinstance(loss, losses.Tversky):
        loss = losses.Tversky(axis=(1, 2))  # one value per sample, of which one is masked whole
    loss = type(loss).from_config({**loss.get_config(), "reduction": reduction})
    mask = np.array([[True, True, False], [True, False, False], [False, False, False]])
    p = rng.uniform(0.1, 0.9, size=(3, 3, 4))
    y = rng.integers(0, 4, size=(3, 3)) if type(loss) in map(type, SPARSE) else rng.uniform(size=(3, 3, 4))
    clean, clean_d = gradient(loss, y, p, mask=mask)
    assert np.abs(clean_d[mask]).max() > 0
    if y.dtype.kind == "f":
        y[~mask] = np.nan
    p[~mask] = np.nan
    value, d = gradient(loss, y, p, mask=mask)
    np.testing.assert_array_equal(value, clean)
    np.testing.assert_array_equal(d, clean_d)
    assert not d[~mask].any()


def test_masked_entries_are_no_part_of_an_overlap(rng):
    t, p = rng.integers(0, 2, size=(3, 4, 2)).astype(float), rng.uniform(size=(3, 4, 2))
    mask = np.array([[True, True, False, False], [True, False, False, False], [False] * 4])
    short = [losses.dice(t[i, mask[i]], p[i, mask[i]]) for i in range(2)]
    np.testing.assert_allclose(losses.Dice(axis=(1, 2))(t, p, mask=mask), np.mean(short), rtol=1e-12)
    np.testing.assert_allclose(losses.Dice(axis=(1, 2), reduction="none")(t, p, mask=mask), [*short, 0], rtol=1e-12)
    np.testing.assert_allclose(losses.Dice()(t, p, mask=mask), losses.dice(t[mask], p[mask]), rtol=1e-12)
    np.testing.assert_allclose(
        losses.Dice(axis=-1)(t, p, mask=mask), losses.dice(t[mask], p[mask], axis=-1).mean(), rtol=1e-12
    )


def test_ignore_class(rng):
    y, z = rng.integers(0, 4, size=(2, 6)), rng.normal(size=(2, 6, 4))
    y[0, :3] = 255
    each = losses.sparse_categorical_crossentropy(y, z, from_logits=True, ignore_class=255)
    assert not each[0, :3].any()
    loss = losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255)
    value, d = gradient(loss, y, z)
    np.testing.assert_allclose(value, each[y != 255].mean())
    assert not d[0, :3].any()
    mask = np.ones((2, 6), bool)
    mask[1, 4:] = False
    value, _ = gradient(loss, y, z, mask=mask)
    np.testing.assert_allclose(value, each[(y != 255) & mask].mean())


def test_ranks_are_fixed_up():
    y, p = np.array([1.0, 2.0]), np.array([[1.5], [2.5]])
    np.testing.assert_allclose(losses.mean_squared_error(y, p), [0.25, 0.25])
    with pytest.raises(ValueError, match=r"y_true.shape=\(3,\), y_pred.shape=\(2, 3\)"):
        losses.mean_squared_error(np.zeros(3), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="same shape"):
        losses.categorical_crossentropy(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="same shape up until the last dimension"):
        losses.sparse_categorical_crossentropy(np.zeros(3), np.zeros((2, 4)))


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_must_be_classes(label):
    with pytest.raises(ValueError, match=rf"\[0, 4\).*label {label}"):
        losses.sparse_categorical_crossentropy(np.array([0, label]), np.zeros((2, 4)))


# ------------------------------------------------------------------------------------------------ objects


def test_get_and_serialize():
    for name, fn in [
        ("mse", losses.mean_squared_error),
        ("mae", losses.mean_absolute_error),
        ("bce", losses.binary_crossentropy),
        ("mape", losses.mean_absolute_percentage_error),
        ("msle", losses.mean_squared_logarithmic_error),
        ("kld", losses.kl_divergence),
    ]:
        assert losses.get(name) is fn and losses.get(name.upper()) is fn and losses.get(fn.__name__) is fn
    assert losses.get("logcosh") is losses.get("log_cosh") is losses.log_cosh
    assert losses.get("huber_loss") is losses.huber
    assert isinstance(losses.get("MeanSquaredError"), losses.MeanSquaredError)
    assert losses.get(None) is None
    with pytest.raises(ValueError, match="Could not interpret loss identifier: foo"):
        losses.get("foo")


@pytest.mark.parametrize(
    "loss",
    [
        losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=3, reduction="sum", name="hop"),
        losses.Huber(0.3),
        losses.CategoricalFocalCrossentropy(alpha=np.array([0.2, 0.3, 0.5]), gamma=1.0),
        losses.Tversky(0.1, 0.2, axis=-1),
        losses.LossFunctionWrapper(losses.huber, delta=2.0),
        *(getattr(losses, name)() for name in losses.__all__ if name[0].isupper() and not name.startswith("Loss")),
    ],
    ids=lambda loss: loss.name,
)
def test_copies(loss, rng):
    y, p = np.eye(3)[[0, 2]], rng.uniform(0.1, 0.9, size=(2, 3))
    y = y.argmax(-1) if loss.name.startswith(("hop", "sparse", "categorical_gen")) else y
    for twin in (losses.get(losses.serialize(loss)), pickle.loads(pickle.dumps(loss))):
        assert type(twin) is type(loss) and twin.get_config() == loss.get_config()
        np.testing.assert_array_equal(twin(y, p), loss(y, p))
    assert losses.serialize(loss)["module"] == "keras.losses"


def test_wrong_arguments_are_named():
    y = np.zeros((2, 3))
    for call, message in [
        (lambda: losses.huber(y, y, delta=0.0), "`delta` must be a number > 0. Received: delta=0.0"),
        (lambda: losses.binary_focal_crossentropy(y, y, gamma=-1.0), "`gamma` must not be negative"),
        (lambda: losses.binary_crossentropy(y, y, label_smoothing=1.5), r"`label_smoothing` must lie in \[0, 1\]"),
        (lambda: losses.CategoricalFocalCrossentropy(alpha=[1, 2])(y, y), "`alpha` must be a number or have one"),
        (lambda: losses.CategoricalGeneralizedCrossEntropy(q=1), r"`q` must be a number in \(0, 1\)"),
        (lambda: losses.Hinge()(y, np.zeros((2, 4))), r"y_true.shape=\(2, 3\), y_pred.shape=\(2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for label in (-1, 3):
        with pytest.raises(IndexError):
            losses.CategoricalGeneralizedCrossEntropy()(np.array([0, label]), y)


def test_a_function_of_ones_own_gets_one_rank():
    loss = losses.LossFunctionWrapper(lambda y, p: ops.mean(ops.square(y - p), axis=-1))
    np.testing.assert_allclose(loss(np.array([1.0, 2.0]), np.array([[1.5], [3.0]])), (0.25 + 1.0) / 2)


def test_a_loss_of_ones_own(rng):
    class Huge(losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)

    y, p = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    value, d = gradient(Huge(), y, p)
    np.testing.assert_allclose(value, (np.abs(y - p) ** 3).mean())
    np.testing.assert_allclose(d, differences(Huge(), y, p), atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (4, 7), (4, 5, 2)])
def test_sample_weights_of_a_wrong_shape_are_named(shape):
    y = np.zeros((4, 5, 2), "float32")
    with pytest.raises(ValueError, match="`sample_weight` must have the shape of the loss values"):
        losses.MeanSquaredError()(y, y, sample_weight=np.ones(shape, "float32"))


def test_mean_with_sample_weight_of_masked_values_without_weights_is_their_mean():
    y, p = np.zeros((2, 2, 1), "float32"), np.array([[[1], [2]], [[3], [4]]], "float32")
    mask = np.array([[True, False], [True, True]])
    loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
    np.testing.assert_allclose(loss(y, p, mask=mask), (1 + 9 + 16) / 3)
