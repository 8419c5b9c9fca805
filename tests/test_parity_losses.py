"""Every loss against live Keras 3: values and gradients, over shapes, weights, masks and reductions."""

import numpy as np
import pytest
from drawn import both_in, distribution, labels, one_hot, positive, real, share, signs, yes_no

from numbarnn import graph, losses
from numbarnn.graph import Spec

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}
REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None]


@pytest.fixture(autouse=True)
def dtype(request):
    """The precision in which both libraries compute: double unless a test says otherwise."""
    with both_in(getattr(request, "param", "float64")) as dtype:
        yield dtype


# Name of the class, its arguments, how targets and predictions are drawn.
LOSSES = [
    ("MeanSquaredError", {}, real, real),
    ("MeanAbsoluteError", {}, real, real),
    ("MeanAbsolutePercentageError", {}, positive, real),
    ("MeanSquaredLogarithmicError", {}, positive, real),
    ("Huber", {}, real, real),
    ("Huber", {"delta": 0.3}, real, real),
    ("LogCosh", {}, real, real),
    ("Poisson", {}, positive, positive),
    ("KLDivergence", {}, distribution, distribution),
    ("Hinge", {}, signs, real),
    ("Hinge", {}, yes_no, real),
    ("SquaredHinge", {}, signs, real),
    ("SquaredHinge", {}, yes_no, real),
    ("CategoricalHinge", {}, one_hot, real),
    ("CosineSimilarity", {}, real, real),
    ("CosineSimilarity", {"axis": 1}, real, real),
    ("BinaryCrossentropy", {}, yes_no, share),
    ("BinaryCrossentropy", {"label_smoothing": 0.2}, yes_no, share),
    ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1, "axis": 1}, yes_no, real),
    ("CategoricalCrossentropy", {}, distribution, distribution),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2}, one_hot, distribution),
    ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, one_hot, real),
    ("SparseCategoricalCrossentropy", {}, labels, distribution),
    ("SparseCategoricalCrossentropy", {"from_logits": True}, labels, real),
    ("SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 1}, labels, real),
    ("BinaryFocalCrossentropy", {}, yes_no, share),
    ("BinaryFocalCrossentropy", {"from_logits": True, "gamma": 1.5}, yes_no, real),
    ("BinaryFocalCrossentropy", {"apply_class_balancing": True, "alpha": 0.3, "gamma": 0.0}, yes_no, share),
    ("BinaryFocalCrossentropy", {"label_smoothing": 0.1, "axis": 1, "gamma": 0.5}, yes_no, share),
    ("CategoricalFocalCrossentropy", {}, one_hot, distribution),
    ("CategoricalFocalCrossentropy", {"from_logits": True, "gamma": 1.5, "alpha": 0.4}, one_hot, real),
    ("CategoricalFocalCrossentropy", {"label_smoothing": 0.1, "gamma": 0.5}, one_hot, distribution),
    ("CategoricalGeneralizedCrossEntropy", {"q": 0.3}, labels, distribution),
    ("Dice", {}, yes_no, share),
    ("Dice", {"axis": (1, 2)}, yes_no, share),
    ("Dice", {"axis": -1}, yes_no, share),
    ("Tversky", {"alpha": 0.3, "beta": 0.6}, yes_no, share),
    ("Tversky", {"alpha": 0.2, "axis": (1, 2)}, yes_no, share),
]
SHAPE = (5, 4, 3)
# Those whose values have the axes of a mask of timesteps. (What `ignore_class` adds to a mask: test_losses.py.)
OF_TIMESTEPS = [
    loss
    for loss in LOSSES
    if loss[1].get("axis", -1) == -1 and loss[0] not in ("Dice", "Tversky") and "ignore_class" not in loss[1]
]


def ids(value):
    return value if isinstance(value, str) else getattr(value, "__name__", None) or "-".join(map(str, value.values()))


def keras_answer(name, options, dtype, y, p, weight, mask):
    """The loss and its gradient for predictions, from Keras on torch."""
    import keras
    import torch

    loss = getattr(keras.losses, name)(**options, dtype=dtype)
    p = torch.tensor(p, requires_grad=True)
    target, weight = torch.tensor(y), None if weight is None else torch.tensor(weight)
    if mask is None:
        value = loss(target, p, sample_weight=weight)
    else:
        masked = p * 1.0
        keras.src.backend.set_keras_mask(masked, torch.tensor(mask))
        value = loss(target, masked, sample_weight=weight)
    value.sum().backward()
    return value.detach().numpy(), p.grad.numpy()


def our_answer(name, options, dtype, y, p, weight, mask):
    loss = getattr(losses, name)(**options, dtype=dtype)
    extra = {key: value for key, value in (("sample_weight", weight), ("mask", mask)) if value is not None}

    def fn(y, p, *rest):
        return loss(y, p, **dict(zip(extra, rest, strict=True)))

    arrays = [y, p, *extra.values()]
    program = graph.trace(fn, tuple(Spec(a.shape, a.dtype) for a in arrays))
    forward, backward = program.linearize(0, [program.inputs[1]])
    value, residuals = forward(*arrays)
    np.testing.assert_array_equal(value, fn(*arrays))  # at once, and as a program
    assert value.dtype == dtype
    (d,) = backward(residuals, np.ones(value.shape, value.dtype))
    return value, d


def compare(name, options, draw_y, draw_p, dtype, rng, shape=SHAPE, weight=None, mask=None):
    y, p = draw_y(rng, shape), draw_p(rng, shape).astype(dtype)
    if draw_y is not labels:
        y = y.astype(dtype)
    weight = None if weight is None else weight.astype(dtype)
    ours = our_answer(name, options, dtype, y, p, weight, mask)
    theirs = keras_answer(name, options, dtype, y, p, weight, mask)
    for what, a, b in zip(("value", "gradient"), ours, theirs, strict=True):
        scale = max(1.0, np.abs(b).max(initial=0.0))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=what)
    assert shape != SHAPE or np.abs(ours[1]).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p"), LOSSES, ids=ids)
def test_values_and_gradients(name, options, draw_y, draw_p, dtype, rng):
    shapes = [(5, 4, 3), (1, 2, 7), (3, 1, 2)]
    if not isinstance(options.get("axis"), tuple) and options.get("axis") != 1:
        shapes += [(6, 5), (1, 2)]
    for shape in shapes:
        compare(name, options, draw_y, draw_p, dtype, rng, shape)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p"), LOSSES, ids=ids)
def test_reductions_of_weighted_losses(name, options, draw_y, draw_p, reduction, rng):
    if name in ("Dice", "Tversky") and options.get("axis") != -1:
        weight = rng.uniform(size=SHAPE[:1] if options.get("axis") else ())
    else:
        values = SHAPE[::2] if options.get("axis") == 1 else SHAPE[:2]
        weight = rng.uniform(size=values)
        weight[1] = 0.0
    compare(name, {**options, "reduction": reduction}, draw_y, draw_p, "float64", rng, weight=weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", "none"])
@pytest.mark.parametrize(("name", "options", "draw_y", "draw_p"), OF_TIMESTEPS, ids=ids)
def test_masked_losses(name, options, draw_y, draw_p, reduction, weighted, rng):
    mask = rng.uniform(size=SHAPE[:2]) < 0.6
    mask[2] = False
    weight = rng.uniform(size=SHAPE[:2]) if weighted else None
    options = {**options, "reduction": reduction}
    compare(name, options, draw_y, draw_p, "float64", rng, weight=weight, mask=mask)


@pytest.mark.parametrize("name", ["MeanSquaredError", "Huber", "Hinge", "Poisson", "BinaryFocalCrossentropy"])
@pytest.mark.parametrize("shapes", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3), (4, 3, 1)), ((4, 3, 1), (4, 3))], ids=str)
def test_a_trailing_1(name, shapes, rng):
    import keras
    import torch

    y, p = yes_no(rng, shapes[0]), share(rng, shapes[1])
    ours = getattr(losses, name)(reduction="none")(y, p)
    theirs = getattr(keras.losses, name)(reduction="none")(torch.tensor(y), torch.tensor(p))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10)


def test_names_and_configurations():
    import keras

    names = set(dir(keras.losses)) - {"CTC", "ctc", "Circle", "circle"}
    assert {name for name in names if not name.startswith("_")} <= set(losses.__all__)
    for name in sorted(names):
        theirs = getattr(keras.losses, name)
        if isinstance(theirs, type) and theirs is not keras.losses.Loss:
            made, ours = theirs(), getattr(losses, name)()
            # Keras forgets the axis of CosineSimilarity and Sparse..., and delta.
            assert made.get_config().items() <= ours.get_config().items()
            assert ours.name == made.name
    for name in keras.src.losses.ALL_OBJECTS_DICT:
        if name not in ("CTC", "ctc", "Circle", "circle", "Loss", "LossFunctionWrapper"):
            found, theirs = losses.get(name), keras.losses.get(name)
            assert getattr(found, "__name__", found) == getattr(theirs, "__name__", found)
