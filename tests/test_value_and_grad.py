"""`value_and_grad` and `Model.input_gradient`: values by differences, when they trace anew, what is refused."""

import copy
import functools
import pickle
import warnings

import numpy as np
import pytest

from numbarnn import layers, losses, models, ops, optimizers, value_and_grad
from numbarnn.graph import Spec, trace
from numbarnn.layers import get_mask
from numbarnn.testing import check_gradients
from numbarnn.utils import Ragged
from numbarnn.variable import Variable

F8 = {"dtype": "float64"}


def network(**options):
    return models.Sequential(
        [
            layers.LSTM(4, return_sequences=True, **F8, **options),
            layers.Lambda(lambda h: np.tanh(h).mean(axis=1), **F8),
            layers.Dense(2, **F8),
        ]
    )


def by_differences(function, model, gradients):
    """Check the gradients of ``function() -> float`` by the trainable weights of a model."""
    variables = model.trainable_variables
    values = [v.numpy() for v in variables]

    def at(*moved):
        for variable, value in zip(variables, moved, strict=True):
            variable.assign(value)
        return function()

    check_gradients(at, values, gradients)
    at(*values)


# -- values -----------------------------------------------------------------------------------------------------------


def test_loss_and_gradients_of_a_model_not_built_yet(rng):
    model, x, y = network(), rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 2))

    def loss_of(x, y):
        return ops.mean((model(x, training=True) - y) ** 2)

    step = value_and_grad(loss_of, model)
    loss, grads = step(x, y)
    assert loss == pytest.approx(((model(x) - y) ** 2).mean(), rel=1e-12)
    assert [g.shape for g in grads] == [v.shape for v in model.trainable_variables]
    by_differences(lambda: ((model(x) - y) ** 2).mean(), model, grads)
    model.trainable_variables[0].assign(model.trainable_variables[0] * 0.5)  # weights are read at each call
    assert step(x, y)[0] == pytest.approx(((model(x) - y) ** 2).mean(), rel=1e-12) != loss


def test_aux_nests_and_keyword_arguments(rng):
    layer, x = layers.Dense(3, **F8), rng.normal(size=(4, 2))

    def loss_of(batch, *, scale, options):
        y = layer(batch["x"][0])
        return ops.sum(y) * scale, {"y": (y, None), "options": options, "shape": y.shape}

    (loss, aux), grads = value_and_grad(loss_of, layer)({"x": [x]}, scale=2.0, options=["a"])
    np.testing.assert_array_equal(aux["y"][0], layer(x))
    assert aux["y"][1] is None and aux["options"] == ["a"] and aux["shape"] == (4, 3)
    assert loss == pytest.approx(2 * layer(x).sum())
    np.testing.assert_allclose(grads[0], 2 * np.repeat(x.sum(0)[:, None], 3, 1))
    np.testing.assert_allclose(grads[1], [8.0] * 3)


def test_a_list_of_variables_and_a_function_of_nothing_else():
    a, b, unused, count = Variable(3.0, **F8), Variable([1.0, 2.0], **F8), Variable([[5.0]]), Variable(4)
    loss, grads = value_and_grad(lambda: a * ops.sum(b**2), [a, b, unused, count])()
    assert loss == 15 and grads[0] == 5 and grads[1].tolist() == [6, 12]
    assert grads[2].tolist() == [[0.0]] and grads[2].dtype == np.float32 and grads[3] is None
    same, grads = value_and_grad(lambda: a, [a, b])()
    assert same == 3 and grads[0] == 1 and grads[1].tolist() == [0, 0]


def test_gradients_are_the_callers_own(rng):
    """Whatever memory the programs share, what comes out may be written to."""
    a, b, x = Variable(np.ones((2, 3)), **F8), Variable(np.ones((2, 3)), **F8), rng.normal(size=(2, 3))
    step = value_and_grad(lambda x: ops.sum(a + b) + ops.sum(a * x), [a, b])
    first = step(x)[1]
    assert not np.shares_memory(*first)
    kept = [g.copy() for g in first]
    for gradient in first:
        gradient *= 0
    for again, before in zip(step(x)[1], kept, strict=True):
        np.testing.assert_array_equal(again, before)
    alone = value_and_grad(lambda: a[0, 0], [a])
    alone()[1][0][...] = 7
    assert alone()[1][0].sum() == 1


def test_grads_go_to_the_optimizer_as_fit_does_it(rng):
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 2)).astype("float32")

    def make():
        return models.Sequential([layers.Input((3,)), layers.Dense(4, "tanh"), layers.Dropout(0.0), layers.Dense(2)])

    first, second = make(), make()
    second.set_weights(first.get_weights())
    first.compile(optimizers.Adam(0.1), "mse")
    first.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
    optimizer, mse = optimizers.Adam(0.1), losses.MeanSquaredError()

    def loss_of(x, y):
        return mse(y, second(x, training=True))

    for i in range(4):
        rows = slice(4 * (i % 2), 4 * (i % 2) + 4)
        _, grads = value_and_grad(loss_of, second)(x[rows], y[rows])
        if i % 2:
            optimizer.apply_gradients(zip(grads, second.trainable_variables, strict=True))
        else:
            optimizer.apply(grads, second.trainable_variables)
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_masks_come_in_and_go_out(rng):
    embedding, lstm = layers.Embedding(5, 3, mask_zero=True), layers.LSTM(2, return_sequences=True)
    ids = np.array([[1, 2, 0], [3, 0, 0]])

    def loss_of(h):
        out = lstm(h)
        return losses.MeanSquaredError()(np.zeros((2, 3, 2), "float32"), out), out

    h = embedding(ids)
    (loss, out), _ = value_and_grad(loss_of, lstm)(h)
    np.testing.assert_array_equal(get_mask(out), ids != 0)
    valid = lstm(h)[ids != 0]
    assert loss == pytest.approx((valid**2).mean(), rel=1e-5)
    (unmasked, out), _ = value_and_grad(loss_of, lstm)(h.copy())
    assert get_mask(out) is None and unmasked != loss


def test_penalties_are_there_and_no_symbol_stays(rng):
    layer = layers.Dense(2, kernel_regularizer="l2", activity_regularizer="l1")
    x = rng.normal(size=(3, 4)).astype("float32")
    loss, _ = value_and_grad(lambda x: ops.sum(layer(x)) * 0 + sum(layer.losses), layer)(x)
    y = layer(x)
    assert loss == pytest.approx(0.01 * (layer.kernel.numpy() ** 2).sum() + 0.01 * np.abs(y).sum() / 3, rel=1e-5)
    value_and_grad(lambda x: ops.sum(layer(x)), layer)(x)
    assert all(isinstance(value, np.ndarray | np.generic) for value in layer.losses)


def test_draws_differ_and_statistics_move(rng):
    model = models.Sequential([layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(1)])
    x = rng.normal(size=(16, 8)).astype("float32")
    step = value_and_grad(lambda x: ops.mean(model(x, training=True) ** 2), model)
    first, second = step(x)[0], step(x)[0]
    assert first != second
    assert (model.layers[0].moving_mean.numpy() != 0).all()


# -- by the inputs ----------------------------------------------------------------------------------------------------


def test_input_gradients_by_differences(rng):
    model, x, y = network(), rng.normal(size=(3, 5, 2)), rng.normal(size=(3, 2))
    model.compile("sgd", "mse")
    w = rng.uniform(size=3)
    for options, function in (
        ({}, lambda x: model(x).sum()),
        ({"output": 1}, lambda x: model(x)[:, 1].sum()),
        ({"output": lambda out: out[0, 1] * 3}, lambda x: 3 * model(x)[0, 1]),
        ({"output": lambda out: out**2}, lambda x: (model(x) ** 2).sum()),
        ({"y": y}, lambda x: ((model(x) - y) ** 2).mean()),
        ({"y": y, "sample_weight": w}, lambda x: (((model(x) - y) ** 2).mean(1) * w).mean()),
    ):
        gradient = model.input_gradient(x, **options)
        check_gradients(function, [x], [gradient])
        np.testing.assert_array_equal(model.input_gradient(x, **options, training=True), gradient)


def test_input_gradients_leave_the_model_as_it_was(rng):
    model = models.Sequential(
        [
            layers.BatchNormalization(),
            layers.LSTM(3, stateful=True, batch_input_shape=(2, None, 4)),
            layers.Dropout(0.5),
        ]
    )
    x = rng.normal(size=(2, 6, 4)).astype("float32")
    model.predict(x, batch_size=2, verbose=0)
    before = [np.array(v) for v in (*model.weights, *model.layers[1].states)]
    first = model.input_gradient(x, training=True)
    assert (first != model.input_gradient(x, training=True)).any()  # dropout goes on
    np.testing.assert_array_equal(model.input_gradient(x), model.input_gradient(x))
    for a, b in zip(before, (*model.weights, *model.layers[1].states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_input_gradients_of_nests_and_other_types(rng):
    class Two(models.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = layers.Embedding(5, 3), layers.Dense(1, use_bias=False)

        def call(self, inputs):
            return {"a": self.head(inputs["x"]), "b": self.head(self.embedding(inputs["ids"]))}

    model, x, ids = Two(), rng.normal(size=(4, 3)), np.array([1, 2, 3, 4])
    found = model.input_gradient({"x": x, "ids": ids})
    assert found["ids"] is None and found["x"].dtype == np.float32
    np.testing.assert_array_equal(found["x"], np.repeat(model.head.kernel.numpy().T, 4, 0))
    np.testing.assert_array_equal(
        model.input_gradient({"x": x, "ids": ids}, output=lambda out: 2 * out["a"])["x"], 2 * found["x"]
    )
    with pytest.raises(ValueError, match=r"one output, 'two' has 2"):
        model.input_gradient({"x": x, "ids": ids}, output=0)
    with pytest.raises(ValueError, match="depends on no floating point argument"):
        model.input_gradient({"x": x, "ids": ids}, output=lambda out: out["b"])


def test_input_gradients_of_sequences_of_different_lengths(rng):
    rows = [rng.normal(size=(n, 3)).astype("float32") for n in (2, 5)]
    model = models.Sequential([layers.LSTM(4)])
    found = model.input_gradient(Ragged(rows))
    assert isinstance(found, Ragged)
    for row, gradient in zip(rows, found, strict=True):
        np.testing.assert_allclose(gradient, model.input_gradient(row[None])[0], rtol=1e-4, atol=1e-6)


def test_input_gradients_that_are_refused():
    model = models.Sequential([layers.Embedding(5, 3), layers.LSTM(2)])
    with pytest.raises(TypeError, match=r"floating point inputs.*int64.*call the Embedding first"):
        model.input_gradient(np.array([[1, 2]]))
    model = models.Sequential([layers.Dense(2)])
    with pytest.raises(ValueError, match="either targets `y`"):
        model.input_gradient(X, X[:, :2], output=0)
    with pytest.raises(ValueError, match="must be an int or a function"):
        model.input_gradient(X, output="a")
    with pytest.raises(ValueError, match="compile"):
        model.input_gradient(X, X[:, :2])


# -- when it is traced ------------------------------------------------------------------------------------------------


class Counting(layers.Layer):
    """Says how often its `call` ran."""

    def __init__(self, beta=1.0):
        super().__init__()
        self.beta, self._runs = beta, []
        self.inner = layers.Dense(1, use_bias=False, kernel_initializer="ones")

    def call(self, x):
        self._runs.append(1)
        return self.beta * self.inner(x)


X = np.ones((2, 3), "float32")


def test_traced_once_per_signature_also_if_the_function_is_defined_anew():
    layer = Counting()

    def step(x, power=1):
        def loss_of(x):
            return ops.sum(layer(x) ** power)

        return value_and_grad(loss_of, layer)(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            assert step(X)[0] == 6
    assert len(layer._runs) == 1
    step(X[:1])
    assert len(layer._runs) == 2

    def of_a_power(power, x, *, scale=1):
        return scale * ops.sum(layer(x) ** power)

    class Owner:
        def method(self, x):
            return ops.sum(layer(x))

    owner = Owner()
    for make, expected in (
        (lambda: functools.partial(of_a_power, 2, scale=3), 54),
        (lambda: owner.method, 6),
        (lambda: lambda x, pair=(layer, (1, 2)): ops.sum(pair[0](x)) * pair[1][1], 12),
    ):
        before = len(layer._runs)
        for _ in range(8):
            assert value_and_grad(make(), layer)(X)[0] == expected
        assert len(layer._runs) == before + 1
    del layer._runs[2:]
    assert step(X, 2)[0] == 18  # closes over another number: another function
    assert len(layer._runs) == 3
    step(X)
    assert len(layer._runs) == 3


def test_a_changed_attribute_is_seen_in_every_layer_that_is_passed():
    judge, layer = Counting(), Counting()
    step = value_and_grad(lambda x: ops.sum(judge(layer(x) * np.ones((1, 3), "float32"))), layer)
    assert step(X)[0] == 18
    judge.beta = 2.0  # not a part of the layer that is differentiated
    assert step(X)[0] == 36
    layer.beta = 2.0
    assert step(X)[0] == 72
    layer.inner.trainable = False
    assert step(X) == (72, [])
    runs = len(layer._runs)
    layers.Dense(3).extra = 1  # some other layer changes
    step(X)
    assert len(layer._runs) == runs


def test_closing_over_the_data_is_slow_and_said_so():
    layer = Counting()
    with pytest.warns(UserWarning, match=r"loss_of was traced anew 6 times.*of layer, x\).*as arguments"):
        for i in range(6):

            def closing_over(x):
                def loss_of():
                    return ops.sum(layer(x))

                return loss_of

            assert value_and_grad(closing_over(X + i), layer)()[0] == 6 * (1 + i)
    model = models.Sequential([layers.Dense(7)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for i in range(7):
            np.testing.assert_array_equal(model.input_gradient(X, output=i)[1], model.layers[0].kernel[:, i])
    with pytest.warns(UserWarning, match=r"lambda> was traced anew 6 times.*"):
        for i in range(6):
            factor = X[0] + i
            model.input_gradient(X, output=lambda out, factor=factor: out[:, :3] * factor)
    layer = Counting()
    step = value_and_grad(lambda x, factor: ops.sum(layer(x)) * factor, layer)
    with pytest.warns(UserWarning, match="traced anew 6 times for arrays of the same shapes.*as arrays"):
        for i in range(6):
            assert step(X, 0.5 * i)[0] == 3 * i
    runs = len(layer._runs)
    for i in range(6):
        assert step(X, np.float32(0.5 * i))[0] == 3 * i
    assert len(layer._runs) == runs + 1


def test_models_that_were_differentiated_are_copied_and_pickled():
    model = models.Sequential([layers.Input((3,)), layers.Dense(1)])
    value_and_grad(lambda x: ops.sum(model(x)), model)(X)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(X), model(X))


# -- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_refused():
    layer = layers.Dense(2)
    with pytest.raises(ValueError, match=r"must return a floating point scalar.*shape \(2, 2\).*ops.mean"):
        value_and_grad(lambda x: layer(x), layer)(X)
    with pytest.raises(ValueError, match=r"floating point scalar.*NoneType"):
        value_and_grad(lambda x: None, layer)(X)
    with pytest.raises(ValueError, match=r"floating point scalar.*int"):
        value_and_grad(lambda x: ops.argmax(layer(x)), layer)(X)
    with pytest.raises(ValueError, match=r"tuple of 3; put all but the first into one"):
        value_and_grad(lambda x: (ops.sum(layer(x)), 1, 2), layer)(X)
    y = layer(X)
    for independent in (
        lambda x: ops.sum(x),
        lambda x: np.float32(3) * y.sum(),
        lambda x: ops.sum(ops.stop_gradient(layer(x))),
    ):
        with pytest.raises(ValueError, match=r"depends on no trainable variable of Dense 'dense'.*inside the function"):
            value_and_grad(independent, layer)(X)
    with pytest.raises(TypeError, match="`model` must be"):
        value_and_grad(lambda x: x, "model")
    with pytest.raises(ValueError, match="empty list of variables.*pass the layer itself"):
        value_and_grad(lambda x: x, layers.Dense(2).trainable_variables)
    with pytest.raises(TypeError, match="`fn` must be"):
        value_and_grad(3, layer)
    with pytest.raises(TypeError, match="test_value_and_grad.*which has no value"):
        value_and_grad(lambda x: ops.sum(layer(x)), layer)(layers.Input((3,)))
    with pytest.raises(RuntimeError, match="inside a function that is being traced"):
        trace(lambda x: value_and_grad(lambda x: ops.sum(layer(x)), layer)(x), (Spec((2, 3)),))


def test_a_function_that_raises_leaves_the_model_unchanged():
    model = models.Sequential([layers.BatchNormalization(), layers.Dense(1)])

    def loss_of(x, y):
        return losses.SparseCategoricalCrossentropy(from_logits=True)(y, model(x, training=True))

    with pytest.raises(ValueError):
        value_and_grad(loss_of, model)(X, np.array([5, 7]))
    np.testing.assert_array_equal(model.layers[0].moving_mean.numpy(), np.zeros(3))
