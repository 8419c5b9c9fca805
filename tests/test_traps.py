"""What is easily got wrong where Python is run once and replayed: right, or an error that says what to do."""

import builtins
import math
import random
import types
import warnings

import numpy as np
import pytest
from scipy import special

import numbarnn
from numbarnn import callbacks, layers, losses, metrics, models, ops, optimizers, regularizers, value_and_grad
from numbarnn.graph import Tensor
from numbarnn.random import SeedGenerator
from numbarnn.testing import check_gradients
from numbarnn.utils import pad
from numbarnn.variable import Variable

F8 = {"dtype": "float64"}


class Formula(layers.Layer):
    """A layer of one formula, ``formula(layer, x)``, with some weights and whatever else is set on it."""

    def __init__(self, formula, **attributes):
        super().__init__(**F8)
        self.formula = formula
        for name, value in attributes.items():
            setattr(self, name, value)

    def build(self, input_shape):
        n = input_shape[-1]
        self.w = self.add_weight(shape=(n, n), initializer="glorot_uniform", name="w")
        self.v = self.add_weight(shape=(n, n), initializer="glorot_uniform", name="v")
        self.b = self.add_weight(shape=(n,), initializer="uniform", name="b")

    def call(self, x):
        return self.formula(self, x)


class FormulaCell(Formula):
    """The same as a cell: the formula is of the input and the state together."""

    state_size = 3

    def call(self, x, states):
        h = np.tanh(self.formula(self, x) + states[0])
        return h, [h]


def in_a_model(formula, **attributes):
    return models.Sequential([Formula(formula, **attributes)])


def in_a_cell(formula, **attributes):
    return models.Sequential([layers.RNN(FormulaCell(formula, **attributes), **F8)])


WAYS = {"layer": (in_a_model, (4, 3)), "cell": (in_a_cell, (4, 5, 3))}


@pytest.fixture(params=WAYS)
def way(request, rng):
    """Return how to put a formula to use, inputs, targets."""
    make, shape = WAYS[request.param]
    return make, rng.normal(size=shape), rng.normal(size=(4, 3))


def inner(model):
    """Return the layer with the formula."""
    return getattr(model.layers[0], "cell", model.layers[0])


def compiled(model, rate=0.0):
    model.compile(optimizers.SGD(rate), "mse")
    return model


def check_fit(model, x, y):
    """Check one step of `fit` against central differences of what the model says eagerly."""
    compiled(model, 1.0)
    model(x)
    variables = model.trainable_variables
    before = [v.numpy() for v in variables]
    loss = model.train_on_batch(x, y)
    gradients = [a - v.numpy() for a, v in zip(before, variables, strict=True)]

    def value(*values):
        for variable, array in zip(variables, values, strict=True):
            variable.assign(array)
        return ((model(x) - y) ** 2).mean()

    assert loss == pytest.approx(value(*before), rel=1e-12)
    check_gradients(value, before, gradients)
    value(*before)
    return gradients


# -- weights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formula",
    [
        lambda self, x: x @ (np.exp(self.b) * self.w),
        lambda self, x: x @ np.concatenate([self.w[:2], self.v[2:]]) + self.b,
        lambda self, x: (x @ (self.w @ self.v) + np.tanh(self.b)) / (1 + np.sum(self.v**2)),
        lambda self, x: x @ (self.w / np.linalg.norm(self.w, axis=0)) + ops.softmax(self.b) * np.ones(3),
        lambda self, x: x @ np.where(np.eye(3) > 0, self.w, self.v) + self.w.value.T[0] + self.b,
    ],
    ids=["exp", "concatenate", "product", "normalised", "value"],
)
def test_what_is_made_of_weights_alone_has_gradients(way, formula):
    make, x, y = way
    gradients = check_fit(make(formula), x, y)
    assert all(g.any() for g in gradients[:1])


def test_tied_weights_get_both_gradients(way):
    make, x, y = way
    gradients = check_fit(make(lambda self, x: np.tanh(x @ self.w) @ self.w.T + self.w[0]), x, y)
    assert gradients[0].any() and not gradients[1].any()  # v has no part in it


def test_a_layer_used_twice_and_a_weight_shared_by_two(rng):
    class Tied(models.Model):
        def __init__(self):
            super().__init__(**F8)
            self.words = layers.Embedding(7, 3, **F8)
            self.read = layers.LSTM(3, return_sequences=True, **F8)
            self.alike = layers.Dense(3, **F8)

        def call(self, ids):
            h = self.read(self.read(self.words(ids)))
            return np.matmul(self.alike(self.alike(h))[:, -1], self.words.embeddings.T)

    model, ids, y = Tied(), rng.integers(0, 7, (4, 5)), rng.normal(size=(4, 7))
    gradients = check_fit(model, ids, y)
    assert len(gradients) == 6 and all(g.any() for g in gradients)
    first = layers.Dense(3, **F8)
    first.build((None, 3))
    second = Formula(lambda self, x: x @ first.kernel.T + self.b)
    check_fit(models.Sequential([first, second]), rng.normal(size=(4, 3)), rng.normal(size=(4, 3)))


def test_a_weight_changed_between_two_calls_is_read_anew(way):
    make, x, y = way
    model = compiled(make(lambda self, x: x @ np.exp(self.w)))
    step = value_and_grad(lambda x: ops.sum(model(x)), model)
    model.predict(x, verbose=0), model.train_on_batch(x, y), step(x)
    layer = inner(model)
    for change in (
        lambda: layer.w.assign(layer.w * 0.5),
        lambda: layer.w.assign_add(np.ones((3, 3))),
        lambda: model.set_weights([a - 0.1 for a in model.get_weights()]),
    ):
        change()
        expected = model(x)
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-12)
        assert model.train_on_batch(x, y) == pytest.approx(((expected - y) ** 2).mean(), rel=1e-12)
        assert step(x)[0] == pytest.approx(expected.sum(), rel=1e-12)


# -- attributes, data --------------------------------------------------------------------------------------------------


class Anneal(callbacks.Callback):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def on_epoch_begin(self, epoch, logs=None):
        self.change(float(epoch + 1))


def annealed(model, x, y, change):
    """Check the losses of three epochs before which ``change(1.0)``, ``change(2.0)``, ... ran; nothing is learned."""
    history = compiled(model).fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(change)]).history["loss"]
    expected = []
    for factor in (1.0, 2.0, 3.0):
        change(factor)
        expected.append(((model(x) - y) ** 2).mean())
    assert len(set(expected)) == 3
    assert history == pytest.approx(expected, rel=1e-12)


def test_an_attribute_annealed_by_a_callback(way):
    make, x, y = way
    model = make(lambda self, x: x @ self.w * self.beta, beta=1.0)
    annealed(model, x, y, lambda value: setattr(inner(model), "beta", value))


def test_numbers_in_lists_dicts_and_objects_annealed_by_a_callback(way):
    make, x, y = way
    for attributes, formula, change in (
        ({"betas": [1.0, 2]}, lambda self: self.betas[0], lambda layer, v: layer.betas.__setitem__(0, v)),
        ({"options": {"beta": 1.0}}, lambda self: self.options["beta"], lambda layer, v: layer.options.update(beta=v)),
        (
            {"options": {"deep": [{"beta": 1.0}]}},
            lambda self: self.options["deep"][0]["beta"],
            lambda layer, v: layer.options["deep"][0].update(beta=v),
        ),
        (
            {"options": types.SimpleNamespace(beta=1.0)},
            lambda self: self.options.beta,
            lambda layer, v: setattr(layer.options, "beta", v),
        ),
    ):
        model = make(lambda self, x, formula=formula: x @ self.w * formula(self), **attributes)
        annealed(model, x, y, lambda value, model=model, change=change: change(inner(model), value))


def test_a_loss_annealed_by_a_callback(rng):
    class Scaled(losses.Loss):
        factor = 1.0

        def call(self, y_true, y_pred):
            return self.factor * ops.mean((y_true - y_pred) ** 2, axis=-1)

    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    loss = Scaled()
    model = models.Sequential([layers.Dense(3, **F8)])
    model.compile(optimizers.SGD(0.0), loss)
    found = model.fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(lambda v: setattr(loss, "factor", v))])
    assert np.divide(found.history["loss"], found.history["loss"][0]) == pytest.approx([1, 2, 3], rel=1e-12)


FACTOR = 1.0


def scaled(x):
    return x * FACTOR


def test_numbers_that_functions_have_from_outside_are_watched(way):
    make, x, y = way
    factor = 1.0

    def global_(value):
        global FACTOR
        FACTOR = value

    def local(value):
        nonlocal factor
        factor = value

    class Scaling(layers.Layer):
        def call(self, x):
            return x * FACTOR

    class Closing(layers.Layer):
        def call(self, x):
            return x * factor

    for formula, change in (
        (lambda self, x: x @ self.w * FACTOR, global_),
        (lambda self, x: scaled(x @ self.w), global_),
        (lambda self, x: x @ self.w * factor, local),
    ):
        annealed(make(formula), x, y, change)
    for layer, change in ((Scaling(**F8), global_), (Closing(**F8), local)):
        model = make(lambda self, x: x @ self.w)
        model.add(layer)
        annealed(model, x, y, change)

    model = make(lambda self, x: x @ self.w)
    found = []
    for step, change in (
        (value_and_grad(lambda x: ops.sum(model(x)) * FACTOR, model), global_),
        (value_and_grad(lambda x: ops.sum(model(x)) * factor, model), local),
    ):
        for value in (1.0, 2.0):
            change(value)
            found.append(float(step(x)[0]))
    assert found == pytest.approx([found[0], 2 * found[0]] * 2, rel=1e-12)

    model.compile(optimizers.SGD(0.0), lambda a, b: FACTOR * ops.mean((a - b) ** 2, axis=-1))
    loss = model.fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(global_)]).history["loss"]
    assert np.divide(loss, loss[0]) == pytest.approx([1, 2, 3], rel=1e-12)
    global_(1.0)


def test_a_penalty_annealed_by_a_callback(rng):
    x, y = rng.normal(size=(4, 3)), np.zeros((4, 3))
    layer = layers.Dense(3, kernel_regularizer=regularizers.L2(1.0), **F8)
    model = compiled(models.Sequential([layer]))
    found = model.fit(
        x, y, epochs=3, verbose=0, callbacks=[Anneal(lambda v: setattr(layer.kernel_regularizer, "l2", v))]
    ).history["loss"]
    penalty = (layer.kernel.numpy() ** 2).sum()
    assert np.diff(found) == pytest.approx([penalty, penalty], rel=1e-9)


def test_an_attribute_that_changes_at_every_step_is_slow_and_said_so(rng):
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 3))
    model = compiled(in_a_model(lambda self, x: x @ self.w, count=0))

    class Count(callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            inner(self.model).count += 1

    with pytest.warns(UserWarning, match="traced anew 10 times in succession.*numbarnn.Variable"):
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[Count()])
    step = value_and_grad(lambda x: ops.sum(model(x)), model)
    with pytest.warns(UserWarning, match="traced anew 6 times in succession.*numbarnn.Variable"):
        for _ in range(8):
            step(x)
            inner(model).count += 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(
            x, y, batch_size=20, epochs=12, verbose=0, callbacks=[Anneal(lambda v: setattr(inner(model), "count", v))]
        )


def test_a_layer_in_a_loss_that_changes_is_seen(rng):
    judge = Formula(lambda self, x: x * self.beta, beta=1.0)
    judge(np.ones((1, 3)))
    judge.trainable = False
    x, y = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    model = models.Sequential([layers.Dense(3, **F8)])
    model.compile(optimizers.SGD(0.0), lambda y_true, y_pred: ops.mean(judge(y_pred) ** 2, axis=-1))
    found = model.fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(lambda v: setattr(judge, "beta", v))])
    assert np.divide(found.history["loss"], found.history["loss"][0]) == pytest.approx([1, 4, 9], rel=1e-12)


def test_a_layer_that_a_cell_calls_and_does_not_own_is_seen(way):
    make, x, y = way
    judge = Formula(lambda self, x: x * self.beta, beta=1.0)
    judge(np.ones((1, 3)))
    judge.trainable = False
    model = compiled(make(lambda self, x: judge(x @ self.w)))
    model.fit(x, y, verbose=0)
    first, eager = model.predict(x, verbose=0), model(x)
    judge.beta = 2.0
    assert np.abs(model(x) - eager).max() > 1e-3
    assert np.abs(model.predict(x, verbose=0) - first).max() > 1e-3


def test_a_variable_annealed_is_not_traced_again(way):
    make, x, y = way
    runs = []
    beta = Variable(1.0, trainable=False, **F8)
    model = make(lambda self, x: runs.append(1) or x @ self.w * beta)
    compiled(model).fit(x, y, verbose=0)
    before = len(runs)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[Anneal(beta.assign)])
    assert len(runs) == before
    annealed(model, x, y, beta.assign)


def test_captured_data_are_read_at_each_step(way):
    make, x, y = way
    outside, inside = np.ones(3), np.ones(3)
    model = compiled(make(lambda self, x: x @ self.w * outside * self.inside, inside=inside))
    model.fit(x, y, verbose=0)
    for change in (
        lambda: outside.__setitem__(0, 5.0),
        lambda: inside.__imul__(2.0),
        lambda: setattr(inner(model), "inside", np.full(3, 0.5)),
    ):
        change()
        assert model.train_on_batch(x, y) == pytest.approx(((model(x) - y) ** 2).mean(), rel=1e-12)
    check_fit(model, x, y)


# -- random draws ------------------------------------------------------------------------------------------------------


def test_draws_are_new_at_each_step_and_repeat_with_their_seed(way):
    make, x, _ = way

    def losses_of():
        numbarnn.utils.set_random_seed(4)
        model = make(
            lambda self, x: x @ self.w + numbarnn.random.normal((3,), seed=self.seeds, dtype="float64"),
            seeds=SeedGenerator(3),
        )
        step = value_and_grad(lambda x: ops.sum(model(x)), model)
        return [float(step(x)[0]) for _ in range(4)]

    first = losses_of()
    assert len(set(first)) == 4 and first == losses_of()


@pytest.mark.parametrize("draw", [lambda: np.random.normal(size=3), lambda: random.random(), lambda: np.random.rand()])
def test_draws_of_others_are_refused(way, draw):
    make, x, y = way
    with pytest.raises(RuntimeError, match="drawn from while .* was traced.*numbarnn.random"):
        compiled(make(lambda self, x: x @ self.w + draw())).fit(x, y, verbose=0)


@pytest.mark.parametrize("make_generator", [np.random.default_rng, np.random.RandomState, random.Random])
def test_draws_from_generators_within_reach_are_refused(way, make_generator):
    make, x, y = way
    generator = make_generator(0)
    draw = "random" if isinstance(generator, random.Random) else "normal"
    arguments = () if draw == "random" else (0, 1)

    def of_attribute(self, x):
        return x @ self.w + getattr(self.noise, draw)(*arguments)

    class Closing(layers.Layer):
        def call(self, x):
            return x + getattr(generator, draw)(*arguments)

    for model in (
        make(of_attribute, noise=generator),
        models.Sequential([Closing(), make(lambda self, x: x).layers[0]]),
    ):
        with pytest.raises(RuntimeError, match="A random generator was drawn from while .*numbarnn.random"):
            compiled(model).fit(x, y, verbose=0)
    weight = Variable(1.0)
    step = value_and_grad(lambda: weight * getattr(generator, draw)(*arguments), [weight])
    with pytest.raises(RuntimeError, match="A random generator was drawn from"):
        step()


def test_a_generator_may_be_used_to_build_and_between_steps(way):
    make, x, y = way
    generator = np.random.default_rng(0)
    model = make(
        lambda self, x: self.extra(x) + 0 * self.noise.bit_generator.state["has_uint32"],
        extra=layers.Dense(3, kernel_initializer=lambda shape, dtype: generator.normal(size=shape), **F8),
        noise=generator,
    )
    compiled(model).fit(x, y, verbose=0)
    generator.normal()
    model.fit(x, y, epochs=2, verbose=0)


# -- decisions on values -----------------------------------------------------------------------------------------------

LINE = r"test_traps.py:\d+: "
DECISIONS = {
    "if": lambda self, x: x if (x > 0).all() else -x,
    "if of a weight": lambda self, x: x if self.b[0] > 0 else -x,
    "if of a weight alone": lambda self, x: x if ops.sum(self.w) else -x,
    "and": lambda self, x: (x.sum() > 0 and x) + x,
    "not": lambda self, x: x * (not x.sum() > 0),
    "chain": lambda self, x: x * (0 < x.sum() < 1),
    "max": lambda self, x: builtins.max(x.sum(), 0.0) * x,
    "while": lambda self, x: x * next(i for i in range(10) if x.sum() < i),
    "float": lambda self, x: x * float(x.sum()),
    "math": lambda self, x: x * math.exp(x.sum()),
    "range": lambda self, x: x * len(range(int(x.sum()))),
    "index": lambda self, x: x * [1, 2][ops.argmax(x[0])],
    "item": lambda self, x: x * x.sum().item(),
    "numpy": lambda self, x: x * x.numpy(),
    "weight.numpy": lambda self, x: x * self.b.numpy(),
    "np.asarray": lambda self, x: np.asarray(x),
    "np.asarray of a weight": lambda self, x: x * np.asarray(self.b),
}


@pytest.mark.parametrize("name", DECISIONS)
def test_decisions_on_values_are_refused_with_the_line(way, name):
    make, x, y = way
    with pytest.raises(TypeError, match=LINE + r".* is not possible while .* has no value yet.*[Uu]se |Call "):
        compiled(make(DECISIONS[name])).fit(x, y, verbose=0)


@pytest.mark.parametrize(
    "update",
    [lambda metric, x: metric.update_state(ops.mean(x)), lambda metric, x: metric(x)],
)
def test_a_metric_updated_in_a_call_is_refused(way, update):
    make, x, y = way
    model = make(lambda self, x: update(self.metric, x) or x, metric=metrics.Mean(name="mine"))
    with pytest.raises(TypeError, match=LINE + "metric 'mine' cannot be updated in a `call`.*train_step"):
        compiled(model).fit(x, y, verbose=0)


def test_decisions_on_shapes_and_settings_are_fine(way):
    make, x, y = way
    model = make(
        lambda self, x: x @ (self.w if x.shape[-1] == 3 and len(self.w) > 2 and x.ndim > 1 and self.flag else self.v),
        flag=True,
    )
    gradients = check_fit(model, x, y)
    assert gradients[0].any() and not gradients[1].any()
    inner(model).flag = False
    gradients = check_fit(model, x, y)
    assert not gradients[0].any() and gradients[1].any()


# -- writes in place ---------------------------------------------------------------------------------------------------


def assigned(target, key, value):
    target[key] = value
    return target


def added(target, value):
    target += value
    return target


WRITES = {
    "x[0] = ": (lambda self, x: assigned(x, 0, 1.0), "Item assignment.*ops.where"),
    "(x * 2)[:, 0] = ": (lambda self, x: assigned(x * 2, (..., 0), x[..., 0]), "Item assignment.*ops.stack"),
    "array[0] = x": (lambda self, x: assigned(np.zeros(3), ..., x), "Turning it into an array"),
    "array += x": (lambda self, x: added(np.zeros(3), x), "out="),
    "out=": (lambda self, x: np.add(x, 1, out=np.zeros(3)), "out=.*Use the value that it returns"),
    "w[0] = ": (lambda self, x: x @ assigned(self.w, 0, 1.0), "item assignment; use variable.assign"),
    "w += ": (lambda self, x: x @ added(self.w, 1.0), "in-place operator; use assign"),
    "w.value[0] = ": (lambda self, x: x @ assigned(self.w.value, 0, 1.0), "use variable.assign"),
    "np.copyto": (lambda self, x: np.copyto(x, 0.0), "np.copyto has no entry.*numbarnn.ops"),
    "np.put": (lambda self, x: np.put(x, 0, 0.0), "np.put has no entry.*numbarnn.ops"),
    "np.fill_diagonal": (lambda self, x: np.fill_diagonal(x, 0.0), "np.fill_diagonal has no entry.*numbarnn.ops"),
    "np.add.at": (lambda self, x: np.add.at(x, 0, 1.0), "np.add.at has no entry.*numbarnn.ops"),
    "x.fill": (lambda self, x: x.fill(0.0), "fill.*numbarnn.ops"),
    "x.sort": (lambda self, x: x.sort(), "sort.*numbarnn.ops"),
    "x.resize": (lambda self, x: x.resize((1,)), "resize.*numbarnn.ops"),
}


@pytest.mark.parametrize("name", WRITES)
def test_writes_in_place_are_refused_with_the_line(way, name):
    make, x, y = way
    formula, message = WRITES[name]
    with pytest.raises((TypeError, AttributeError), match=LINE + f".*{message}"):
        compiled(make(formula)).fit(x, y, verbose=0)


def test_augmented_assignment_makes_a_new_value(way):
    make, x, y = way

    def formula(self, x):
        kept = x
        x = x @ self.w
        twice = x
        x += self.b
        x *= 2
        return x + twice + kept

    before = x.copy()
    model, same = make(formula), make(lambda self, x: 2 * (x @ self.w + self.b) + x @ self.w + x)
    model.build(x.shape), same.build(x.shape)
    same.set_weights(model.get_weights())
    np.testing.assert_allclose(model.predict(x, verbose=0), same.predict(x, verbose=0), rtol=1e-12)
    for each in (model, same):
        compiled(each, 1.0).train_on_batch(x, y)
    for a, b in zip(model.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("wrap", [Formula, lambda f: layers.Lambda(lambda x: f(None, x))], ids=["call", "Lambda"])
def test_a_call_on_arrays_does_not_write_into_what_it_is_given(wrap):
    x = np.zeros((2, 3), wrap(lambda self, x: x).compute_dtype)
    for write in (lambda self, x: added(x, 1.0), lambda self, x: assigned(x, 0, 1.0)):
        with pytest.raises(ValueError, match="read-only") as caught:
            wrap(write)(x)
        assert any("must not write into what it is given" in note for note in caught.value.__notes__)
    np.testing.assert_array_equal(x, np.zeros((2, 3)))
    # What comes back is the array itself, to be written to, with its mask; its own values may be changed in place.
    layer = wrap(lambda self, x: x)
    layer.supports_masking = True
    assert np.shares_memory(layer(x), x) and layer(x).flags.writeable
    own = wrap(lambda self, x: {"a": added(x * 2, 1.0), "b": [x]})(x)
    np.testing.assert_array_equal(own["a"], np.ones((2, 3)))
    own["b"][0][0] = 5.0
    np.testing.assert_array_equal(x[0], [5.0] * 3)


@pytest.mark.parametrize("given", ["attached", "by name", "by position"])
def test_a_call_on_arrays_does_not_write_into_its_mask(given):
    class Opens(layers.Layer):
        supports_masking = True

        def call(self, x, mask=None):
            return added(x * 2, 1.0) if mask is None else assigned(mask, 0, True) * x

    x, mask = np.zeros((2, 3, 1), "float32"), np.zeros((2, 3), bool)
    args, kwargs = {"attached": ((x,), {}), "by name": ((x,), {"mask": mask}), "by position": ((x, mask), {})}[given]
    if given == "attached":
        layers.set_mask(x, mask)
    with pytest.raises(ValueError, match="read-only") as caught:
        Opens()(*args, **kwargs)
    assert any("must not write into what it is given" in note for note in caught.value.__notes__)
    assert mask.flags.writeable and not mask.any()


def test_parts_of_what_a_call_is_given_come_back_to_be_written_to():
    x = np.ones((2, 3, 2))
    mask = np.ones((2, 2), bool)

    def first_two(self, x):
        part = x[:, :2]
        layers.set_mask(part, mask)
        return [part, ops.reshape(x, (3, 4))]

    part, whole = Formula(first_two)(x)
    assert layers.get_mask(part) is mask
    part += 1
    whole += 1
    np.testing.assert_array_equal(x, np.ones((2, 3, 2)))


def test_a_call_on_arrays_sees_their_masks():
    x = layers.Masking(**F8)(pad([np.ones((2, 3)), np.ones((4, 3))])[0])
    inner = layers.LSTM(2, **F8)
    expected = inner(x)
    assert not np.allclose(expected, inner(x.copy()))
    np.testing.assert_array_equal(Formula(lambda self, x: inner(x), supports_masking=True)(x), expected)


# -- NumPy -------------------------------------------------------------------------------------------------------------

UNKNOWN = {
    "np.linalg.svd": lambda self, x: np.linalg.svd(x)[0],
    "np.fft.fft": lambda self, x: np.fft.fft(x),
    "np.median": lambda self, x: x - np.median(x),
    "np.interp": lambda self, x: np.interp(x, [0, 1], [0, 1]),
    "np.cbrt": lambda self, x: np.cbrt(x),
    "np.apply_along_axis": lambda self, x: np.apply_along_axis(np.sum, 0, x),
    "np.hypot": lambda self, x: np.hypot(x, self.b),
    "np.linalg.inv of a weight": lambda self, x: x @ np.linalg.inv(self.w),
    "expit": lambda self, x: special.expit(x),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_functions_are_refused_by_name(way, name):
    make, x, y = way
    with pytest.raises(
        TypeError, match=LINE + name.split(" of ")[0] + ".* has no entry in numbarnn.ops.*write it with"
    ):
        compiled(make(UNKNOWN[name])).fit(x, y, verbose=0)


def test_unknown_functions_of_plain_arrays_are_fine(way):
    """What is computed from arrays alone is no part of the program."""
    make, x, y = way
    check_fit(make(lambda self, x: x @ self.w * np.median(np.arange(3.0)) + np.linalg.norm(np.ones(4))), x, y)


def test_an_unknown_method_says_where_to_look(way):
    make, x, y = way
    with pytest.raises(AttributeError, match=LINE + ".*nonzero.*numbarnn.ops"):
        compiled(make(lambda self, x: x.nonzero())).fit(x, y, verbose=0)
    variable = Variable(np.ones(2))
    opaque = Tensor(None, name="saved")  # what a kernel keeps: no shape, no dtype
    assert not hasattr(opaque, "shape") and not hasattr(opaque, "fill")
    assert not hasattr(variable, "fill") and not hasattr(variable, "no_such_thing")
