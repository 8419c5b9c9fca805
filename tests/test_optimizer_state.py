"""What optimizers keep: variables, averages of the weights, accumulated gradients; and optimizers of one's own."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import Variable, constraints, layers, losses, models, optimizers

NAMES = [
    "SGD",
    "RMSprop",
    "Adam",
    "AdamW",
    "Nadam",
    "Adagrad",
    "Adadelta",
    "Adamax",
    "Lion",
    "Ftrl",
    "Lamb",
    "Adafactor",
]


def make(rng, dtype="float64"):
    shapes = {"kernel": (3, 5), "bias": (5,), "scale": ()}
    return [Variable(rng.normal(size=shape), dtype=dtype, name=name) for name, shape in shapes.items()]


def names(optimizer):
    return [variable.name for variable in optimizer.variables]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_restored_state_goes_on_bit_for_bit(rng, name, dtype):
    options = {"use_ema": True, "ema_overwrite_frequency": 2, "gradient_accumulation_steps": 3, "weight_decay": 0.5}
    if name in ("SGD", "RMSprop"):
        options["momentum"] = 0.5
    if name == "RMSprop":
        options["centered"] = True
    if name in ("Adam", "AdamW"):
        options["amsgrad"] = True
    variables = make(rng, dtype)
    steps = [[rng.normal(size=v.shape).astype(dtype) for v in variables] for _ in range(13)]
    optimizer = getattr(optimizers, name)(0.05, **options)
    for grads in steps[:7]:
        optimizer.apply(grads, variables)
    optimizer.learning_rate.assign(0.02)
    state = [np.array(v.value) for v in optimizer.variables]
    twins = [Variable(v.numpy(), name=v.name) for v in variables]
    fresh = getattr(optimizers, name)(0.05, **options)
    fresh.build(twins)
    for variable, value in zip(fresh.variables, state, strict=True):
        variable.assign(value)
    store = {}
    optimizer.save_own_variables(store)
    third = getattr(optimizers, name)(0.05, **options)
    thirds = [Variable(v.numpy(), name=v.name) for v in variables]
    third.build(thirds)
    third.load_own_variables(store)
    for grads in steps[7:]:
        optimizer.apply(grads, variables)
        fresh.apply(grads, twins)
        third.apply(grads, thirds)
    assert any(not np.array_equal(v.value, s) for v, s in zip(optimizer.variables[2:], state[2:], strict=True))
    for others, their in ((twins, fresh), (thirds, third)):
        for a, b in zip([*variables, *optimizer.variables], [*others, *their.variables], strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)


def test_order_and_names(rng):
    one, two = Variable(np.zeros((2, 3)), name="kernel"), Variable(np.zeros(3), name="bias")
    one.path = "lstm/lstm_cell/kernel"
    optimizer = optimizers.Adam(amsgrad=True, use_ema=True, gradient_accumulation_steps=2, name="mine")
    optimizer.build([one, two])
    prefix = "lstm_lstm_cell_kernel"
    assert names(optimizer) == [
        "iteration",
        "learning_rate",
        *(f"{prefix}_average", "bias_average"),
        *(f"{prefix}_gradient_accumulator", "bias_gradient_accumulator"),
        *(f"{prefix}_momentum", f"{prefix}_velocity", "bias_momentum", "bias_velocity"),
        *(f"{prefix}_velocity_hat", "bias_velocity_hat"),
    ]
    assert optimizer.variables[0].path == "mine/iteration"
    assert optimizer.variables[2].path == f"mine/{prefix}_average"
    centered = optimizers.RMSprop(momentum=0.5, centered=True)
    centered.build([two, one])
    assert [n.rsplit("_", 1)[1] for n in names(centered)[2:]] == ["velocity"] * 2 + ["momentum"] * 2 + ["gradient"] * 2
    nadam = optimizers.Nadam()
    nadam.build([two])
    assert names(nadam)[2:] == ["bias_momentum", "bias_velocity", "variable"]
    assert float(nadam.variables[-1]) == 1.0
    factored = optimizers.Adafactor()
    factored.build([one, two])
    shapes = [tuple(v.shape) for v in factored.variables[2:]]
    assert shapes == [(2,), (3,), (2, 3), (), (), (3,)]
    sums = optimizers.Adagrad(initial_accumulator_value=0.5)
    sums.build([two])
    np.testing.assert_array_equal(sums.variables[2].numpy(), np.full(3, 0.5))


def test_state_that_does_not_fit_is_refused(rng):
    optimizer = optimizers.SGD(momentum=0.5)
    with pytest.raises(ValueError, match="not yet been built"):
        optimizer.set_weights([0, 0.1])
    optimizer.build([Variable(np.zeros(3), name="bias")])
    with pytest.raises(ValueError, match="2 weights for 3 variables"):
        optimizer.set_weights([0, 0.1])
    with pytest.raises(ValueError, match=r"bias_momentum has shape \(3,\) not compatible.*\(2,\)"):
        optimizer.set_weights([5, 0.1, np.zeros(2)])
    assert int(optimizer.iterations) == 0
    optimizer.set_weights([5, 0.5, np.ones(3)])
    assert int(optimizer.iterations) == 5 and float(optimizer.learning_rate) == 0.5


# ---------------------------------------------------------------------------------------------------- common options


def test_averages():
    v = Variable(np.zeros(1))
    optimizer = optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    for _ in range(3):
        optimizer.apply([-np.ones(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [3.0])
    average = 1.0 * 0.75**2 + 2.0 * 0.25 * 0.75 + 3.0 * 0.25  # the first weights are the first average
    np.testing.assert_array_equal(optimizer.variables[2].numpy(), [average])
    optimizer.finalize_variable_values([v])
    np.testing.assert_array_equal(v.numpy(), [average])
    with pytest.raises(ValueError, match="no average of"):
        optimizer.finalize_variable_values([Variable(np.zeros(1))])
    optimizers.SGD().finalize_variable_values([v])  # keeps none
    np.testing.assert_array_equal(v.numpy(), [average])


def test_averages_overwrite_the_weights_of_all_variables():
    v, w = Variable(np.zeros(1)), Variable(np.zeros(1))
    optimizer = optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    optimizer.build([v, w])
    optimizer.apply([-np.ones(1), -np.ones(1)], [v, w])
    np.testing.assert_array_equal([v.numpy(), w.numpy()], [[1.0], [1.0]])
    optimizer.apply([-np.ones(1)], [v])
    np.testing.assert_array_equal([v.numpy(), w.numpy()], [[1.5], [1.0]])


def test_averages_of_latecomers_start_from_their_weights():
    v, w = Variable(np.zeros(1)), Variable(np.full(1, 8.0))
    optimizer = optimizers.SGD(0.5, use_ema=True)
    optimizer.apply([np.ones(1)], [v])
    optimizer.apply([np.zeros(1), np.zeros(1)], [v, w])
    optimizer.finalize_variable_values([v, w])
    np.testing.assert_allclose(w.numpy(), [8.0])


def test_averages_come_before_constraints():
    v = Variable(np.zeros(1), constraint=constraints.NonNeg())
    optimizer = optimizers.SGD(1.0, use_ema=True)
    optimizer.apply([np.ones(1)], [v])
    np.testing.assert_array_equal(v.numpy(), [0.0])
    np.testing.assert_array_equal(optimizer.variables[2].numpy(), [-1.0])


def test_accumulation_waits_and_takes_the_mean():
    v, w = Variable(np.zeros(2)), Variable(np.zeros(1), dtype="float32")
    optimizer = optimizers.SGD(1.0, gradient_accumulation_steps=3)
    for number, gradient in enumerate(([3.0, 0.0], [0.0, 3.0], [3.0, 6.0]), start=1):
        assert not v.numpy().any()
        optimizer.apply([np.array(gradient), np.ones(1)], [v, w])
        assert optimizer.iterations == number // 3
    np.testing.assert_array_equal(v.numpy(), [-2.0, -3.0])
    np.testing.assert_array_equal(w.numpy(), [-1.0])
    assert not optimizer.variables[2].numpy().any()
    optimizer.apply([np.ones(2), np.ones(1)], [v, w])
    np.testing.assert_array_equal(optimizer.variables[2].numpy(), [1.0, 1.0])
    np.testing.assert_array_equal(v.numpy(), [-2.0, -3.0])


def test_weight_decay_leaves_out_what_it_is_told(rng):
    kernel, bias, scale = make(rng)
    before = [v.numpy() for v in (kernel, bias, scale)]
    optimizer = optimizers.SGD(0.5, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[scale], var_names=["^bias$"])
    optimizer.apply([np.zeros(v.shape) for v in (kernel, bias, scale)], [kernel, bias, scale])
    np.testing.assert_array_equal(kernel.numpy(), 0.75 * before[0])
    np.testing.assert_array_equal(bias.numpy(), before[1])
    np.testing.assert_array_equal(scale.numpy(), before[2])
    with pytest.raises(ValueError, match="before the optimizer is built"):
        optimizer.exclude_from_weight_decay(var_names=["kernel"])


@pytest.mark.parametrize("name", NAMES)
def test_nan_shows(name):
    v = Variable(np.ones(8))
    optimizer = getattr(optimizers, name)()
    optimizer.apply([np.array([1.0] * 7 + [np.nan])], [v])
    optimizer.apply([np.ones(8)], [v])
    assert np.isnan(v.numpy()[7])


def data(rng):
    return rng.normal(size=(12, 4, 3)).astype("float32"), rng.normal(size=(12, 2)).astype("float32")


def network():
    return models.Sequential([layers.Input((4, 3)), layers.LSTM(4), layers.Dense(2)])


def test_fit_puts_averages_in_place_and_scales_the_loss(rng):
    x, y = data(rng)
    plain, averaged, scaled = network(), network(), network()
    for model in (averaged, scaled):
        model.set_weights(plain.get_weights())
    found = []
    for model, options in ((plain, {}), (averaged, {"use_ema": True}), (scaled, {"loss_scale_factor": 1024.0})):
        model.compile(optimizers.SGD(0.5, **options), "mse")
        found.append(model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"])
    assert found[0] == found[1] == found[2]  # the loss is reported as it is
    for a, b, c in zip(plain.weights, averaged.weights, scaled.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), c.numpy())  # a power of two changes no bit
        assert not np.array_equal(a.numpy(), b.numpy())
    averages = averaged.optimizer.variables[2:7]
    for variable, average in zip(averaged.trainable_variables, averages, strict=True):
        np.testing.assert_array_equal(variable.numpy(), average.numpy())
    optimizer = scaled.optimizer
    assert optimizer.scale_loss(2.0) == 2048.0 and plain.optimizer.scale_loss(2.0) == 2.0


# ------------------------------------------------------------------------------------------------- one's own, errors


class Momentum(optimizers.Optimizer):
    """Written as for Keras."""

    def __init__(self, learning_rate=0.5, share=0.5, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.share = share

    def build(self, variables):
        super().build(variables)
        self.moving = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        moving = self.moving[self._get_variable_index(variable)]
        self.assign(moving, moving * self.share - gradient * learning_rate)
        self.assign_add(variable, moving)

    def get_config(self):
        return {**super().get_config(), "share": self.share}


@pytest.mark.parametrize(
    "options", [{}, {"clipnorm": 0.5, "weight_decay": 0.25}, {"clipvalue": 0.1, "use_ema": True}], ids=str
)
def test_an_optimizer_of_ones_own_is_as_good_as_ours(rng, options):
    mine, theirs = make(rng), []
    theirs = [Variable(v.numpy(), name=v.name) for v in mine]
    own, sgd = Momentum(**options), optimizers.SGD(0.5, momentum=0.5, **options)
    for _ in range(4):
        grads = [rng.normal(size=v.shape) for v in mine]
        own.apply(grads, mine)
        sgd.apply(grads, theirs)
    assert names(own) == names(sgd)
    for a, b in zip([*mine, *own.variables], [*theirs, *sgd.variables], strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-14)
    twin = Momentum.from_config(own.get_config())
    assert twin.get_config() == own.get_config()


def test_an_optimizer_of_ones_own_trains_a_model(rng):
    x, y = data(rng)
    one, two = network(), network()
    two.set_weights(one.get_weights())
    for model, optimizer in ((one, Momentum()), (two, optimizers.SGD(0.5, momentum=0.5))):
        model.compile(optimizer, losses.MeanSquaredError())
        model.fit(x, y, batch_size=5, epochs=2, shuffle=False, verbose=0)  # two signatures: built once all the same
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="Unknown variable"):
        one.optimizer.apply([np.ones(1)], [Variable(np.zeros(1))])
    with pytest.raises(NotImplementedError, match="`update_step`"):
        optimizers.Optimizer(0.1).apply([np.ones(1)], [Variable(np.zeros(1))])


def test_optimizer_variables_of_several_names(rng):
    variables = make(rng)
    optimizer = Momentum()
    one, two = optimizer.add_optimizer_variables(variables, ["a", "b"], ["zeros", "ones"])
    assert names(optimizer)[2:] == ["kernel_a", "kernel_b", "bias_a", "bias_b", "scale_a", "scale_b"]
    assert all(v.numpy().all() for v in two) and not any(v.numpy().any() for v in one)
    with pytest.raises(ValueError, match="must match the number of provided initializers"):
        optimizer.add_optimizer_variables(variables, ["a", "b"], ["zeros"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gradient_accumulation_steps": 1}, "`gradient_accumulation_steps` must be an integer >= 2"),
        ({"use_ema": True, "ema_momentum": 1.5}, r"`ema_momentum` must be a number in \[0, 1\]"),
        ({"use_ema": True, "ema_overwrite_frequency": 0}, "`ema_overwrite_frequency` must be an integer >= 1"),
        ({"weight_decay": -1}, "`weight_decay` must be a number >= 0"),
        ({"loss_scale_factor": 0}, "`loss_scale_factor` must be a number > 0"),
        ({"lr": 0.1}, r"Argument\(s\) not recognized: {'lr': 0.1}"),
        ({"beta_1": 1.0}, r"`beta_1` must be a number in \[0, 1\)"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        optimizers.Adam(**options)


def test_more_arguments_are_checked():
    with pytest.raises(ValueError, match="weight_decay=None"):
        optimizers.AdamW(weight_decay=None)
    with pytest.raises(ValueError, match="degenerates to SignSGD"):
        optimizers.Lion(beta_1=0.0)
    with pytest.raises(ValueError, match="`learning_rate_power` must be a number <= 0"):
        optimizers.Ftrl(learning_rate_power=0.5)
    for name in ("initial_accumulator_value", "l1_regularization_strength", "l2_regularization_strength"):
        with pytest.raises(ValueError, match=f"`{name}` must be a number >= 0"):
            optimizers.Ftrl(**{name: -0.5})
    with pytest.warns(UserWarning, match="`decay` is no longer supported"):
        optimizers.SGD(decay=0.1)
    with pytest.raises(ValueError, match="must already be built"):
        optimizers.SGD().apply([np.zeros(1)])
    optimizers.SGD().apply([])
    with pytest.raises(AttributeError):
        optimizers.Adam().amsgrad = True
    with pytest.raises(ValueError, match="cannot get momentum=0.5"):
        optimizers.RMSprop().momentum = 0.5


def test_common_arguments_may_come_by_position():
    optimizer = optimizers.Adam(0.5, 0.5, 0.75, 1e-3, True, 0.25, 2.0)
    assert (optimizer.weight_decay, optimizer.clipnorm, optimizer.amsgrad) == (0.25, 2.0, True)
    assert optimizers.AdamW(0.5, 0.25, 0.5).get_config()["beta_1"] == 0.5


@pytest.mark.parametrize("name", NAMES)
def test_strings_and_round_trips(name):
    for alias in (name, name.lower(), name.upper()):
        assert type(optimizers.get(alias)) is getattr(optimizers, name)
    config = optimizers.serialize(getattr(optimizers, name)(0.5, weight_decay=0.25, use_ema=True))
    assert config["module"] == "keras.optimizers" and config["class_name"] == name
    assert optimizers.serialize(optimizers.deserialize(config)) == config


@pytest.mark.parametrize("name", ["Adam", "Nadam", "Adafactor"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_copy_of_a_trained_model_trains_on_with_a_state_of_its_own(name, how, rng):
    x, y = rng.normal(size=(12, 4, 3)).astype("float32"), rng.normal(size=(12, 1)).astype("float32")
    model = models.Sequential([layers.Input((4, 3)), layers.GRU(3), layers.Dense(1)])
    model.compile(getattr(optimizers, name)(use_ema=True), "mse")
    model.optimizer.exclude_from_weight_decay(var_list=model.trainable_variables[:1])
    model.fit(x, y, batch_size=4, verbose=0)
    twin = how(model)
    for each in (model, twin):
        each.train_on_batch(x, y)
    for a, b in zip(model.optimizer.variables, twin.optimizer.variables, strict=True):
        assert a is not b and not np.shares_memory(a.data, b.data)
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    twin.train_on_batch(x, y)
    assert not np.array_equal(model.get_weights()[0], twin.get_weights()[0])
