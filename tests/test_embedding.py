import numpy as np
import pytest

from numbarnn import graph, jit, layers, ops
from numbarnn.graph import Spec
from numbarnn.kernels import embedding as kernels
from numbarnn.layers import get_mask


def test_looks_up_rows_of_ids_of_any_rank():
    layer = layers.Embedding(10, 4)
    for shape in [(), (3,), (2, 3), (2, 3, 2), (0, 3)]:
        ids = np.random.default_rng(0).integers(0, 10, shape)
        y = layer(ids)
        assert type(y) is np.ndarray
        np.testing.assert_array_equal(y, layer.embeddings.value[ids])
        assert layer.compute_output_shape(shape) == y.shape
    assert np.abs(layer.embeddings.value).max() <= 0.05
    assert layer.embeddings.path.endswith("/embeddings")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_types_of_ids(dtype):
    layer = layers.Embedding(10, 4)
    ids = np.array([[1, 9, 0]])
    np.testing.assert_array_equal(layer(ids.astype(dtype)), layer(ids))


def test_float_ids_are_cut_and_not_rounded_to_float32():
    layer = layers.Embedding(3, 2)
    np.testing.assert_array_equal(layer(np.array([1.9])), layer(np.array([1])))
    with pytest.raises(IndexError, match="Received id 16777217 "):  # float32 has no such number
        layer(np.array([2.0**24 + 1]))


@pytest.mark.parametrize("bad", [-1, 5, 2**40])
def test_ids_outside_the_table(bad):
    layer = layers.Embedding(5, 2, name="words")
    ids = np.array([[0, 1, 2], [3, bad, 9]])
    message = rf"Layer 'words': the ids must be in \[0, 5\) .*Received id {bad} at position \(1, 1\)"
    with pytest.raises(IndexError, match=message):
        layer(ids)
    program = graph.trace(lambda x: layer(x), (Spec(ids.shape, "int64"),))
    with pytest.raises(IndexError, match=message):
        program(ids)
    forward, _ = program.linearize(0, layer.trainable_weights)
    with pytest.raises(IndexError, match=message):
        forward(ids)


def test_mask_zero():
    layer = layers.Embedding(5, 2, mask_zero=True)
    ids = np.array([[3, 0, 1], [0, 0, 2]])
    np.testing.assert_array_equal(get_mask(layer(ids)), ids != 0)
    np.testing.assert_array_equal(get_mask(layer(np.array([[0.5, 0.0]]))), [[True, False]])  # of the values as given
    assert layer.supports_masking
    plain = layers.Embedding(5, 2)
    assert not plain.supports_masking
    assert get_mask(plain(ids)) is None
    symbol = layer(layers.Input((None,), dtype="int32"))
    assert symbol.mask.shape == (None, None)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradient(dtype):
    rng = np.random.default_rng(1)
    layer = layers.Embedding(7, 5, dtype=dtype)
    ids = rng.integers(0, 7, (4, 9))
    layer(ids)
    d = rng.standard_normal((4, 9, 5)).astype(dtype)
    program = graph.trace(lambda x: layer(x), (Spec(ids.shape, "int64"),))
    forward, backward = program.linearize(0, layer.trainable_weights)
    _, residuals = forward(ids)
    (found,) = backward(residuals, d)
    expected = np.zeros((7, 5), dtype)
    for row, place in zip(ids.reshape(-1), d.reshape(-1, 5), strict=True):
        expected[row] += place  # one sum, in the order of the ids: the same bits
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)


def test_same_bits_for_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(kernels, "_GRAIN", 1)
    rng = np.random.default_rng(2)
    ids = rng.integers(0, 11, 500)
    table = rng.standard_normal((11, 70)).astype(np.float32)
    d = rng.standard_normal((500, 70)).astype(np.float32)
    results = []
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        results.append((kernels.gather(ids, table), kernels.scatter_add(ids, d, 11)))
    for rows, gradient in results[1:]:
        np.testing.assert_array_equal(rows, results[0][0])
        np.testing.assert_array_equal(gradient, results[0][1])


def test_weights_argument():
    values = np.arange(6.0).reshape(3, 2)
    for given in (values, [values]):
        layer = layers.Embedding(3, 2, weights=given)
        assert layer.built
        np.testing.assert_array_equal(layer(np.array([2])), [[4, 5]])
    with pytest.raises(ValueError, match="not compatible with provided weight shape"):
        layers.Embedding(3, 2, weights=values.T)


def test_an_embedding_needs_no_input_shape():
    assert layers.Embedding(3, 2)._batch_input_shape == (None, None)
    assert layers.Embedding(3, 2, input_length=7)._batch_input_shape == (None, 7)
    assert layers.Embedding(3, 2, batch_input_shape=(4, 7))._batch_input_shape == (4, 7)
    assert layers.Embedding(3, 2, input_length=7).get_config()["input_length"] == 7


@pytest.mark.parametrize("bad", [0, -1, 2.0, True])
@pytest.mark.parametrize("name", ["input_dim", "output_dim"])
def test_refuses_sizes(name, bad):
    arguments = {"input_dim": 3, "output_dim": 2, name: bad}
    message = rf"`{name}` must be a positive integer. Received: {name}={bad} \(of type {type(bad).__name__}\)."
    with pytest.raises(ValueError, match=message):
        layers.Embedding(**arguments)


def test_refuses_sparse():
    with pytest.raises(ValueError, match="`sparse` must be False"):
        layers.Embedding(3, 2, sparse=True)


def test_activity_regularizer_and_mixed_precision():
    layer = layers.Embedding(4, 2, "ones", activity_regularizer="l2", dtype="mixed_float16")
    assert layer(np.array([[1, 2], [3, 0]])).dtype == np.float16
    np.testing.assert_allclose(layer.losses, [0.01 * 8 / 2], rtol=1e-3)
    assert layers.Embedding(4, 2, dtype="float16")(np.array([1])).dtype == np.float16


def test_a_gradient_of_nothing_is_zero():
    layer = layers.Embedding(4, 2, dtype="float64")
    layer(np.array([0]))
    program = graph.trace(lambda x: ops.sum(ops.stop_gradient(layer(x))), (Spec((3,), "int64"),))
    forward, backward = program.linearize(0, layer.trainable_weights)
    _, residuals = forward(np.array([1, 2, 3]))
    np.testing.assert_array_equal(backward(residuals, np.array(1.0))[0], np.zeros((4, 2)))
