"""Layers of several inputs: values, broadcasting, masks, gradients, types, errors, functional forms."""

from functools import reduce

import numpy as np
import pytest

from numbarnn import graph, layers, serialization
from numbarnn.graph import Spec
from numbarnn.testing.gradients import check_gradients

ELEMENTWISE = {
    "Add": lambda xs: reduce(np.add, xs),
    "Multiply": lambda xs: reduce(np.multiply, xs),
    "Average": lambda xs: reduce(np.add, xs) / len(xs),
    "Maximum": lambda xs: reduce(np.maximum, xs),
    "Minimum": lambda xs: reduce(np.minimum, xs),
}
M1 = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
M2 = np.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1]], bool)


def masked(x, mask):
    """Return a copy of an array, with a mask."""
    x = x.copy()
    layers.set_mask(x, mask)
    return x


def both_ways(layer, xs):
    """Call a layer eagerly; its results in a trace with unknown lengths and in a functional graph must be the same."""
    y = layer(xs)
    program = graph.trace(lambda xs: layer(xs), ([Spec((None,) * x.ndim, x.dtype) for x in xs],))
    np.testing.assert_array_equal(program(*xs), y)
    inputs = [layers.Input((None,) * (x.ndim - 2) + x.shape[-1:], dtype=x.dtype.name) for x in xs]
    outputs = layer(inputs)
    assert outputs.dtype == y.dtype
    assert all(known in (None, n) for known, n in zip(outputs.shape, y.shape, strict=True))
    np.testing.assert_array_equal(graph.evaluate(outputs, inputs, xs), y)
    return y


def gradients(layer, xs, d):
    program = graph.trace(lambda xs: layer(xs), ([Spec(x.shape, x.dtype) for x in xs],))
    forward, backward = program.linearize(0, program.inputs)
    _, residuals = forward(*xs)
    return backward(residuals, d)


@pytest.mark.parametrize("dtype", ["float32", "int32"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name, count, dtype, rng):
    xs = [(rng.standard_normal((3, 4, 5)) * 4).astype(dtype) for _ in range(count)]
    layer = getattr(layers, name)()
    y = both_ways(layer, xs)
    assert type(y) is np.ndarray
    assert y.dtype == ("float32" if name == "Average" else dtype)
    np.testing.assert_allclose(y, ELEMENTWISE[name](xs), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(getattr(layers, name.lower())(xs), y)
    assert layer.compute_output_shape([x.shape for x in xs]) == y.shape


def test_subtract(rng):
    a, b = rng.standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(both_ways(layers.Subtract(), [a, b]), a - b)
    np.testing.assert_array_equal(layers.subtract((a, b)), a - b)
    for count in (1, 3):
        with pytest.raises(ValueError, match="A `Subtract` layer should be called on exactly 2 inputs"):
            layers.Subtract()([a] * count)


@pytest.mark.parametrize(
    ("shapes", "result"),
    [
        ([(3, 4, 5), (3, 1, 5)], (3, 4, 5)),
        ([(3, 4, 1), (3, 1, 5)], (3, 4, 5)),
        ([(3, 5), (3, 4, 5)], (3, 4, 5)),  # as (3, 1, 5)
        ([(3, 2, 4, 5), (3, 5), (3, 4, 5)], (3, 2, 4, 5)),
        ([(3, 4), (3, 4, 1)], (3, 4, 4)),
        ([(3,), (3, 2)], (3, 2)),
    ],
)
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_different_shapes(name, shapes, result, rng):
    xs = [rng.standard_normal(shape) for shape in shapes]
    rank = max(map(len, shapes))
    raised = [x.reshape(3, *(1,) * (rank - x.ndim), *x.shape[1:]) for x in xs]
    layer = getattr(layers, name)(dtype="float64")
    y = layer(xs)
    np.testing.assert_allclose(y, ELEMENTWISE[name](raised), rtol=1e-14)
    assert y.shape == layer.compute_output_shape(shapes) == result
    assert layer.compute_output_shape([(None, *shape[1:]) for shape in shapes]) == (None, *result[1:])
    if len(xs) == 2:
        d = rng.standard_normal(result)
        check_gradients(lambda a, b: (layer([a, b]) * d).sum(), xs, gradients(layer, xs, d))


def test_unknown_lengths_as_keras_names_them():
    shape = layers.Add().compute_output_shape
    assert shape([(None, None, 3), (None, 4, 3)]) == (None, None, 3)
    assert shape([(2, 1, 3), (None, None, 3)]) == (2, None, 3)
    assert layers.Concatenate(1).compute_output_shape([(None, None, 3), (None, 4, 3)]) == (None, None, 3)
    assert layers.Concatenate(-1).compute_output_shape([(None, None, 3), (None, 4, 3)]) == (None, None, 6)


def test_integers_among_floats(rng):
    x = rng.standard_normal((2, 3)).astype(np.float32)
    whole = np.arange(6).reshape(2, 3)
    for layer in (layers.Add(), layers.Concatenate(), layers.Maximum(), layers.Dot(1)):
        y = both_ways(layer, [whole, x])
        assert y.dtype == np.float32
    np.testing.assert_array_equal(layers.Add()([whole, x]), whole.astype(np.float32) + x)
    mixed = layers.Add(dtype="mixed_float16")
    assert mixed([x, x]).dtype == mixed([layers.Input((3,))] * 2).dtype == np.float16
    assert mixed([whole, whole]).dtype == mixed([layers.Input((3,), dtype="int64")] * 2).dtype == np.int64
    # Summed in float32 and rounded once: 60000 + 10000 - 20000 leaves the range of float16 on the way.
    halves = [np.full((1, 1), v, np.float16) for v in (6e4, 1e4, -2e4)]
    np.testing.assert_array_equal(mixed(halves), np.float16([[5e4]]))


@pytest.mark.parametrize("axis", [-1, 1, 2, -2])
def test_concatenate(axis, rng):
    lengths = [2, 3, 1]
    shapes = [[3, 4, 5] for _ in lengths]
    for shape, length in zip(shapes, lengths, strict=True):
        shape[axis] = length
    xs = [rng.standard_normal(shape) for shape in shapes]
    layer = layers.Concatenate(axis, dtype="float64")
    y = layer(xs)
    np.testing.assert_array_equal(y, np.concatenate(xs, axis))
    np.testing.assert_array_equal(layers.concatenate(xs, axis=axis, dtype="float64"), y)
    d = rng.standard_normal(y.shape)
    check_gradients(lambda *xs: (np.concatenate(xs, axis) * d).sum(), xs, gradients(layer, xs, d))
    np.testing.assert_array_equal(layers.Concatenate()([xs[0].astype("f")]), xs[0].astype("f"))
    both_ways(layers.Concatenate(1), [x[..., :1].astype("f") for x in xs] if axis in (1, -2) else [xs[0].astype("f")])


# -- masks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ELEMENTWISE, "Subtract"])
def test_elementwise_masks(name, rng):
    a, b = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    layer = getattr(layers, name)()
    assert layer.supports_masking
    assert layers.get_mask(layer([a, b])) is None
    assert layers.get_mask(layer([masked(a, M1), b])) is None
    np.testing.assert_array_equal(layers.get_mask(layer([masked(a, M1), masked(b, M2)])), M1 | M2)
    if name != "Subtract":
        one = masked(a, M1)
        np.testing.assert_array_equal(layers.get_mask(layer([one])), M1)
        np.testing.assert_array_equal(layers.get_mask(one), M1)
    # symbolic: the mask is there before any value is
    x, y = layers.Input((None, 5)), layers.Input((None, 5))
    outputs = layer([layers.Masking(7.0)(x), layers.Masking(8.0)(y)])
    values = np.where(M1[..., None], a, 7), np.where(M2[..., None], b, 8)
    result, mask = graph.evaluate((outputs, outputs.mask), (x, y), tuple(v.astype(np.float32) for v in values))
    np.testing.assert_array_equal(mask, M1 | M2)
    zeroed = masked(np.where(M1[..., None], a, 0), M1), masked(np.where(M2[..., None], b, 0), M2)
    np.testing.assert_array_equal(result, layer(list(zeroed)))


def test_values_where_inputs_are_masked(rng):
    a, b = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    m1, m2 = M1[..., None], M2[..., None]
    for name in ("Add", "Average", "Subtract"):  # take what stands there
        layer = getattr(layers, name)()
        np.testing.assert_array_equal(layer([masked(a, M1), masked(b, M2)]), layer([a, b]))
    product = np.where(m1, a, 1) * np.where(m2, b, 1)
    np.testing.assert_array_equal(layers.multiply([masked(a, M1), masked(b, M2)]), np.where(m1 | m2, product, 0))
    np.testing.assert_array_equal(layers.multiply([masked(a, M1), b]), np.where(m1, a * b, b))
    for name, choose in (("Maximum", np.maximum), ("Minimum", np.minimum)):
        layer = getattr(layers, name)()
        y = layer([masked(a, M1), masked(b, M2)])
        expected = np.where(m1 & m2, choose(a, b), np.where(m1, a, b))
        np.testing.assert_array_equal(y[M1 | M2], expected[M1 | M2])
        np.testing.assert_array_equal(layer([a, masked(b, M2)]), np.where(m2, choose(a, b), a))
        # and what is masked leaks nowhere, be it NaN
        poisoned = [masked(np.where(m1, a, np.nan), M1), masked(np.where(m2, b, np.nan), M2)]
        np.testing.assert_array_equal(layer(poisoned)[M1 | M2], y[M1 | M2])


def test_masks_of_different_ranks(rng):
    sequence, vector = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 5))
    keep = np.array([True, False, True])
    layer = layers.Maximum(dtype="float64")
    y = layer([masked(sequence, M1), masked(vector, keep)])
    np.testing.assert_array_equal(layers.get_mask(y), M1 | keep[:, None])
    np.testing.assert_array_equal(y[1][M1[1]], sequence[1][M1[1]])  # the vector of row 1 does not compete
    np.testing.assert_array_equal(y[0], np.where(M1[0][:, None], np.maximum(sequence[0], vector[0]), vector[0]))


@pytest.mark.parametrize("name", ["Multiply", "Maximum", "Minimum"])
def test_gradients_where_inputs_are_masked(name, rng):
    a, b, d = rng.standard_normal((3, 3, 4, 5))
    layer = getattr(layers, name)(dtype="float64")

    def call(a, b):
        layers.set_mask(a, M1)
        layers.set_mask(b, M2)
        return layer([a, b])

    def traced(a, b, m1, m2):
        a.mask, b.mask = m1, m2
        return layer([a, b])

    program = graph.trace(traced, (*[Spec(a.shape, "float64")] * 2, *[Spec(M1.shape, "bool")] * 2))
    forward, backward = program.linearize(0, program.inputs[:2])
    y, residuals = forward(a, b, M1, M2)
    np.testing.assert_array_equal(y, call(a.copy(), b.copy()))
    found = backward(residuals, d)
    check_gradients(lambda a, b: (call(a, b) * d).sum(), [a, b], found)
    neither = M1 | M2
    assert np.isfinite(found[0]).all() and np.any(found[0][neither])


@pytest.mark.parametrize("axis", [1, -1, 2])
def test_masks_of_concatenate(axis, rng):
    a, b = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    layer = layers.Concatenate(axis)
    ones = np.ones((3, 4), bool)
    join = (lambda m, n: np.concatenate([m, n], 1)) if axis == 1 else np.logical_or
    assert layers.get_mask(layer([a, b])) is None
    np.testing.assert_array_equal(layers.get_mask(layer([masked(a, M1), masked(b, M2)])), join(M1, M2))
    np.testing.assert_array_equal(layers.get_mask(layer([a, masked(b, M2)])), join(ones, M2))
    np.testing.assert_array_equal(layers.get_mask(layer([masked(a, M1)])), M1)
    x, y = layers.Input((None, 5)), layers.Input((None, 5))
    outputs = layer([layers.Masking(7.0)(x), y])
    values = np.where(M1[..., None], a, np.float32(7)), b
    _, mask = graph.evaluate((outputs, outputs.mask), (x, y), values)
    np.testing.assert_array_equal(mask, join(M1, ones))
    # A mask of the input's own rank: a place counts if any of its features does.
    full = rng.random((3, 4, 5)) < 0.3
    np.testing.assert_array_equal(layers.get_mask(layer([masked(a, full), masked(b, M2)])), join(full.any(-1), M2))


def test_compute_mask_checks_its_arguments():
    x = np.ones((3, 4, 5))
    for layer in (layers.Add(), layers.Concatenate()):
        assert layer.compute_mask([x, x], None) is None
        assert layer.compute_mask([x, x], [None, None]) is None
        with pytest.raises(ValueError, match="`mask` should be a list"):
            layer.compute_mask([x, x], M1)
        with pytest.raises(ValueError, match="`inputs` should be a list"):
            layer.compute_mask(x, [M1])
        with pytest.raises(ValueError, match="should have the same length"):
            layer.compute_mask([x, x], [M1])


# -- the dot product -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "axes", "formula"),
    [
        ([(3, 4), (3, 4)], 1, "bi,bi->b"),
        ([(3, 4), (3, 4)], -1, "bi,bi->b"),
        ([(3, 5, 4), (3, 4)], (2, 1), "bxi,bi->bx"),
        ([(3, 4), (3, 5, 4)], (1, 2), "bi,byi->by"),
        ([(3, 5, 4), (3, 4, 6)], (2, 1), "bxi,biy->bxy"),
        ([(3, 4, 5), (3, 6, 4)], (1, -1), "bix,byi->bxy"),
        ([(3, 2, 4, 5), (3, 6, 4)], (2, 2), "bxiy,bzi->bxyz"),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_dot(shapes, axes, formula, normalize, rng):
    xs = [rng.standard_normal(shape) for shape in shapes]
    xs[0][0] = 0  # has no direction
    each = (axes, axes) if isinstance(axes, int) else axes

    def reference(*xs):
        if normalize:
            norms = [np.linalg.norm(x, axis=axis, keepdims=True) for x, axis in zip(xs, each, strict=True)]
            xs = [x / np.where(norm == 0, 1, norm) for x, norm in zip(xs, norms, strict=True)]
        result = np.einsum(formula, *xs)
        return result[:, None] if result.ndim == 1 else result

    layer = layers.Dot(axes, normalize, dtype="float64")
    y = layer(xs)
    np.testing.assert_allclose(y, reference(*xs), atol=1e-14)
    assert layer.compute_output_shape(shapes) == y.shape
    assert layer([layers.Input(shape[1:]) for shape in shapes]).shape == (None, *y.shape[1:])
    np.testing.assert_array_equal(layers.dot(xs, axes, normalize=normalize, dtype="float64"), y)
    xs[0][0] = 1
    d = rng.standard_normal(y.shape)
    check_gradients(lambda *xs: (reference(*xs) * d).sum(), xs, gradients(layer, xs, d))


def test_dot_ends_masks_and_takes_any_batch(rng):
    a, b = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    layer = layers.Dot(2)
    assert layers.get_mask(layer([masked(a, M1), masked(b, M2)])) is None
    inputs = [layers.Input((4, 5)), layers.Input((None, 5))]
    outputs = layer(inputs)
    assert outputs.shape == (None, 4, None)
    np.testing.assert_array_equal(graph.evaluate(outputs, inputs, [a, b]), layer([a, b]))


# -- configuration and errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [*(getattr(layers, name)(name="m") for name in ELEMENTWISE), layers.Concatenate(1), layers.Dot((1, 2), True)],
    ids=lambda layer: type(layer).__name__,
)
def test_configuration(layer):
    again = serialization.deserialize_keras_object(serialization.serialize_keras_object(layer))
    assert type(again) is type(layer) and again.get_config() == layer.get_config()


def test_errors():
    x = np.ones((2, 3, 4), np.float32)
    for name in ELEMENTWISE:
        layer = getattr(layers, name)
        with pytest.raises(ValueError, match=r"on a list of inputs. Received: input_shape=\(2, 3, 4\) \(not a list"):
            layer()(x)
        with pytest.raises(ValueError, match="A merge layer should be called on a list of at least 1 input"):
            layer()([])
        with pytest.raises(ValueError, match="Cannot merge tensors with different batch sizes. Received tensors with"):
            layer()([x, x[:1]])
        with pytest.raises(ValueError, match=r"Inputs have incompatible shapes. Received shapes \(3, 4\) and \(3, 3\)"):
            layer()([x, x[..., :3]])
        with pytest.raises(ValueError, match="incompatible shapes"):
            layer()([layers.Input((3, 4)), layers.Input((2, 4))])
        built = layer()
        built([x, x])
        with pytest.raises(ValueError, match="different batch sizes"):  # not only at the first call
            built([x, x[:1]])
    for wrong in (x, []):
        with pytest.raises(ValueError, match="A `Concatenate` layer should be called on a list of at least 1 input"):
            layers.Concatenate()(wrong)
    for wrong in ([x, x[:, :2]], [x, x[0]]):
        with pytest.raises(ValueError, match="requires inputs with matching shapes except for the concatenation axis"):
            layers.Concatenate()(wrong)
    with pytest.raises(ValueError, match="Axis 3 is out of bounds"):
        layers.Concatenate(3)([x, x])
    with pytest.raises(TypeError, match="Invalid type for argument `axes`: it should be a list or an int"):
        layers.Dot("1")
    with pytest.raises(ValueError, match="it should contain two elements"):
        layers.Dot((1,))
    with pytest.raises(ValueError, match="list elements should be integers"):
        layers.Dot((1, 2.0))
    for wrong in (x, [x], [x, x, x]):
        with pytest.raises(ValueError, match="A `Dot` layer should be called on a list of 2 inputs"):
            layers.Dot(1)(wrong)
    with pytest.raises(ValueError, match=r"axis values 3 \(at axis 1\) != 4 \(at axis 2\)"):
        layers.Dot((1, 2))([x, x])
    for axes in (0, (1, -3)):
        with pytest.raises(ValueError, match="Cannot perform batch_dot over axis 0"):
            layers.Dot(axes)([x, x])
    with pytest.raises(ValueError, match="out of bounds"):
        layers.Dot(3)([x, x])
