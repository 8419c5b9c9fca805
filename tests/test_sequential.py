"""`Sequential`: adding, building, shapes, masks, errors."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import backend, layers, models


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()


def test_an_input_builds_at_once():
    model = models.Sequential()
    model.add(layers.Input((3,)))
    model.add(layers.Dense(4))
    assert model.built and len(model.weights) == 2
    model.add(layers.Dense(2))
    assert model.input_shape == (None, 3) and model.output_shape == (None, 2)
    assert [layer.name for layer in model.layers] == ["dense", "dense_1"] and model.name == "sequential"
    assert [v.path for v in model.weights] == ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]
    assert model.output_names == ["dense_1"]


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ({"input_shape": (3,)}, (None, 3)),
        ({"batch_input_shape": (5, 3)}, (5, 3)),
        ({"input_dim": 3}, (None, 3)),
        ({"input_shape": (3,), "batch_size": 7}, (7, 3)),
    ],
)
def test_the_first_layer_may_say_the_shape(given, shape):
    model = models.Sequential([layers.Dense(4, **given), layers.Dense(2)])
    assert model.built and model.input_shape == shape and model.output_shape == (shape[0], 2)


def test_an_embedding_needs_no_input():
    model = models.Sequential([layers.Embedding(10, 4)])
    assert model.input_shape == (None, None) and model.output_shape == (None, None, 4)
    assert model.count_params() == 40


def test_deferred_build(rng):
    model = models.Sequential([layers.Dense(4), layers.Dense(2)])
    assert not model.built and model.weights == []
    with pytest.raises(AttributeError, match="no defined output shape"):
        model.output_shape  # noqa: B018
    x = rng.normal(size=(5, 3)).astype("float32")
    first = model(x)
    assert type(first) is np.ndarray and first.shape == (5, 2)
    assert model.output_shape == (None, 2)
    assert [v.path for v in model.weights][0] == "dense/kernel"
    model.add(layers.Dense(1))
    assert model.output_shape == (None, 1) and model(x).shape == (5, 1)
    other = models.Sequential([layers.Dense(4)])
    other.build((None, 6))
    assert other.count_params() == 28


def test_it_computes_the_chain(rng):
    model = models.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(2)])
    x = rng.normal(size=(5, 3)).astype("float32")
    found = model(x)
    w1, b1, w2, b2 = model.get_weights()
    np.testing.assert_allclose(found, np.tanh(x @ w1 + b1) @ w2 + b2, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(model.predict(x, verbose=0), found)
    np.testing.assert_array_equal(model.predict_on_batch(x), found)


def test_pop(rng):
    model = models.Sequential([layers.Input((3,)), layers.Dense(4), layers.Dense(2)])
    assert model.pop().name == "dense_1"
    assert model.output_shape == (None, 4) and len(model.weights) == 2
    x = rng.normal(size=(5, 3)).astype("float32")
    assert model.predict(x, verbose=0).shape == (5, 4)
    model.add(layers.Dense(7))
    assert model.predict(x, verbose=0).shape == (5, 7)
    model.pop()
    model.pop()
    with pytest.raises(TypeError, match="no layers"):
        model.pop()


def test_errors_leave_the_model_as_it_was():
    model = models.Sequential([layers.Input((3,)), layers.Dense(4, name="one")])
    with pytest.raises(ValueError, match="unique names. Name 'one'"):
        model.add(layers.Dense(2, name="one"))
    with pytest.raises(ValueError, match="Only instances of"):
        model.add(3)
    with pytest.raises(ValueError, match="already been configured to use input shape"):
        model.add(layers.Input((4,)))
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        model.add(layers.LSTM(3))

    class Two(layers.Layer):
        def call(self, a, b):
            return a + b

    with pytest.raises(ValueError, match="single positional argument"):
        model.add(Two())
    assert [layer.name for layer in model.layers] == ["one"] and model.output_shape == (None, 4)
    with pytest.raises(ValueError, match="cannot be built because it has no layers"):
        models.Sequential().build((None, 3))
    with pytest.raises(ValueError, match="already been configured"):
        model.build((None, 5))


def test_nested(rng):
    inner = models.Sequential([layers.Input((3,)), layers.Dense(4)])
    model = models.Sequential([inner, layers.Dense(2)])
    assert model.input_shape == (None, 3) and len(model.weights) == 4
    x = rng.normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(model(x), model.layers[1](inner(x)))
    assert model.get_layer("sequential") is inner and model.get_layer(index=1) is model.layers[1]
    with pytest.raises(ValueError, match="No such layer: zz. Existing layers are"):
        model.get_layer("zz")


def test_masks_travel_through_the_chain(rng):
    model = models.Sequential([layers.Embedding(10, 4, mask_zero=True), layers.Dropout(0.5), layers.Dense(3)])
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    np.testing.assert_array_equal(layers.get_mask(model(ids)), ids != 0)
    outer = models.Sequential([model, layers.LSTM(5)])
    inner = model(ids)
    np.testing.assert_array_equal(outer(ids), outer.layers[1](inner))
    cut = outer(ids[1:, :1])
    np.testing.assert_allclose(outer(ids)[1:], cut, rtol=1e-5, atol=1e-6)
    # a mask that is passed by hand
    x = rng.normal(size=(2, 3, 4)).astype("float32")
    model = models.Sequential([layers.LSTM(5)])
    np.testing.assert_array_equal(model(x, mask=ids != 0), model.layers[0](x, mask=ids != 0))
    assert layers.get_mask(x) is None


def test_training_reaches_the_layers(rng):
    model = models.Sequential([layers.Dropout(0.5)])
    x = np.ones((50, 50), "float32")
    np.testing.assert_array_equal(model(x), x)
    assert (model(x, training=True) == 0).any()


def test_config_copy_and_pickle(rng):
    model = models.Sequential([layers.Input((3,)), layers.Dense(4, activation="relu"), layers.Dense(2)], name="mine")
    twin = models.Sequential.from_config(model.get_config())
    assert twin.name == "mine" and twin.output_shape == (None, 2) and len(twin.weights) == 4
    x = rng.normal(size=(5, 3)).astype("float32")
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(x), model(x))
    model.compile("adam", "mse")
    model.train_on_batch(x, np.zeros((5, 2)))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other(x), model(x))
        other.train_on_batch(x, np.zeros((5, 2)))
        assert (other(x) != model(x)).any() and other.output_shape == (None, 2)


def test_float64_layers_keep_their_precision(rng):
    model = models.Sequential([layers.Dense(2, dtype="float64")])
    x = rng.normal(size=(5, 3))
    w, b = (model(x), model.get_weights())[1]
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ w + b, rtol=1e-14)
    assert model.predict(x, verbose=0).dtype == "float64"
