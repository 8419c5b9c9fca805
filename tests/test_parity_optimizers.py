"""Optimizers against live Keras: every rule with a grid of options, on a small recurrent model, and the schedules."""

import inspect
import re

import numpy as np
import pytest

from numbarnn import backend, constraints, initializers, layers, losses, models, optimizers, value_and_grad
from numbarnn.utils import set_random_seed

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
STEPS = 50
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


@pytest.fixture
def double_precision():
    keras = pytest.importorskip("keras")
    ours, theirs, policy = backend.floatx(), keras.config.floatx(), keras.config.dtype_policy()
    backend.set_floatx("float64")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    backend.set_floatx(ours)
    keras.config.set_floatx(theirs)
    keras.config.set_dtype_policy(policy)


# Each rule's own options, then the common ones.
OWN = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.875}),
    ("SGD", {"momentum": 0.875, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"rho": 0.75, "momentum": 0.5}),
    ("RMSprop", {"centered": True, "epsilon": 1e-3}),
    ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adam", {}),
    ("Adam", {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 1e-3}),
    ("Adam", {"amsgrad": True, "beta_2": 0.75}),
    ("AdamW", {}),
    ("AdamW", {"weight_decay": 0.5, "amsgrad": True}),
    ("Nadam", {}),
    ("Nadam", {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 1e-3}),
    ("Adagrad", {}),
    ("Adagrad", {"initial_accumulator_value": 0.0, "epsilon": 1e-3}),
    ("Adadelta", {}),
    ("Adadelta", {"rho": 0.5, "epsilon": 1e-3}),
    ("Adamax", {}),
    ("Adamax", {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 1e-3}),
    ("Lion", {}),
    ("Lion", {"beta_1": 0.5, "beta_2": 0.75}),
    ("Ftrl", {}),
    ("Ftrl", {"learning_rate_power": -0.75, "beta": 0.5}),
    ("Ftrl", {"l1_regularization_strength": 2**-6, "l2_regularization_strength": 0.5}),
    ("Ftrl", {"l2_shrinkage_regularization_strength": 0.25, "initial_accumulator_value": 1.0}),
    ("Lamb", {}),
    ("Lamb", {"beta_1": 0.75, "beta_2": 0.875, "epsilon": 1e-3}),
    ("Adafactor", {}),
    ("Adafactor", {"beta_2_decay": -0.5, "clip_threshold": 0.5, "relative_step": False, "epsilon_2": 0.5}),
]
COMMON = [
    {"weight_decay": 0.25},
    {"clipnorm": 2**-4},
    {"clipvalue": 2**-7},
    {"global_clipnorm": 2**-3},
    {"use_ema": True, "ema_momentum": 0.75},
    {"use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": 3},
    {"gradient_accumulation_steps": 4},
    {"loss_scale_factor": 3.0},
    {"gradient_accumulation_steps": 3, "use_ema": True, "ema_overwrite_frequency": 2, "weight_decay": 0.25},
    {"gradient_accumulation_steps": 2, "clipnorm": 2**-4, "loss_scale_factor": 4.0},
]
RATES = {"SGD": 2**-3, "Lion": 2**-9, "Ftrl": 2**-4, "Adadelta": 1.0}


def network(library):
    return library.Sequential(
        [
            library.layers.Input((5, 3)),
            library.layers.LSTM(4, kernel_constraint=library.constraints.MaxNorm(1.0), name="lstm"),
            library.layers.Dense(2, name="head"),
        ]
    )


class Ours:
    layers, constraints, Sequential = layers, constraints, models.Sequential


def pair_of(name, options, schedule=None):
    """The same optimizer, ours and Keras's."""
    import keras

    made = []
    for library in (optimizers, keras.optimizers):
        rate = RATES.get(name, 2**-6)
        if schedule is not None:
            rate = getattr(library.schedules, schedule[0])(*schedule[1:])
        made.append(getattr(library, name)(rate, **options))
    return made


def models_of(seed=1):
    """The same network, ours and Keras's, with the same weights."""
    import keras

    class Theirs:
        layers, constraints, Sequential = keras.layers, keras.constraints, keras.Sequential

    set_random_seed(seed)
    model, twin = network(Ours), network(Theirs)
    twin.set_weights(model.get_weights())
    return model, twin


def follow(name, options, schedule=None, exclude=None, dtype="float64"):
    """Train our model, and Keras's by the same gradients; return the weights of both, and the optimizers."""
    import keras

    rng = np.random.default_rng(5)
    model, twin = models_of()
    weights, theirs = model.trainable_variables, twin.trainable_variables
    pair = pair_of(name, options, schedule)
    for optimizer, variables in zip(pair, (weights, theirs), strict=True):
        if exclude:
            optimizer.exclude_from_weight_decay(var_list=[variables[0]], var_names=[exclude])
        optimizer.build(variables)
    step = value_and_grad(lambda x, y: losses.MeanSquaredError()(y, model(x)), model)
    for _ in range(STEPS):
        _, grads = step(rng.normal(size=(6, 5, 3)).astype(dtype), rng.normal(size=(6, 2)).astype(dtype))
        pair[1].apply([keras.ops.convert_to_tensor(np.array(g)) for g in grads], theirs)
        pair[0].apply(grads, weights)
    for optimizer, variables in zip(pair, (weights, theirs), strict=True):
        optimizer.finalize_variable_values(variables)
    return weights, theirs, pair


def array(value):
    import keras

    return keras.ops.convert_to_numpy(value)


def own_name(name):
    """Keras puts the model's name before the layers' (not ours), and numbers variables that have no name."""
    return re.sub(r"^variable_\d+$", "variable", re.sub(r"^sequential(_\d+)?_", "", name))


def compare(weights, theirs, pair, tolerance):
    """Weights, and the optimizers' variables: number, order, names, shapes and values."""
    assert [v.name for v in pair[0].variables] == [own_name(v.name) for v in pair[1].variables]
    for mine, other in zip([*weights, *pair[0].variables], [*theirs, *pair[1].variables], strict=True):
        assert tuple(mine.shape) == tuple(other.shape)
        np.testing.assert_allclose(mine.numpy(), array(other), rtol=tolerance, atol=tolerance, err_msg=mine.path)


def tolerance_of(name, options):
    """1e-10; but Keras on torch rounds to float32 in `ops.maximum`, `ops.minimum` and `ops.mean` of float64 tensors.

    Clipping by norms and Adafactor go through those. The default tests hold them to NumPy at 1e-12.
    """
    return 2e-7 if name == "Adafactor" or {"clipnorm", "global_clipnorm"} & set(options) else 1e-10


GRID = OWN + [(name, options) for name in NAMES for options in COMMON]


@pytest.mark.parametrize(("name", "options"), GRID, ids=str)
@pytest.mark.usefixtures("double_precision")
def test_trajectories(name, options):
    compare(*follow(name, options), tolerance_of(name, options))


@pytest.mark.parametrize("name", NAMES)
def test_trajectories_in_float32(name):
    """Both compute in float32, in another order; after 50 steps a few roundings of 6e-8 have added up."""
    pytest.importorskip("keras")
    weights, theirs, _ = follow(name, {"weight_decay": 0.25}, dtype="float32")
    for mine, other in zip(weights, theirs, strict=True):
        assert mine.dtype == np.float32
        np.testing.assert_allclose(mine.numpy(), array(other), rtol=2e-5, atol=2e-5, err_msg=mine.path)


SCHEDULES = [
    ("ExponentialDecay", 0.25, 7, 0.5),
    ("ExponentialDecay", 0.25, 7, 0.5, True),
    ("CosineDecay", 0.25, 30),
    ("CosineDecay", 0.0, 30, 0.125, "name", 0.25, 10),
    ("CosineDecayRestarts", 0.25, 6),
    ("CosineDecayRestarts", 0.25, 6, 1.0, 0.5, 0.25),
    ("CosineDecayRestarts", 0.25, 6, 1.5, 0.75),
    ("InverseTimeDecay", 0.25, 7, 0.5),
    ("InverseTimeDecay", 0.25, 7, 0.5, True),
    ("PiecewiseConstantDecay", [5, 12, 30], [0.5, 0.25, 0.125, 0.0625]),
    ("PolynomialDecay", 0.25, 20),
    ("PolynomialDecay", 0.25, 20, 0.0625, 2.0, True),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
@pytest.mark.usefixtures("double_precision")
def test_schedules(schedule):
    import keras

    name, *arguments = schedule
    ours = getattr(optimizers.schedules, name)(*arguments)
    theirs = getattr(keras.optimizers.schedules, name)(*arguments)
    steps = np.arange(70)
    expected = [float(array(theirs(step))) for step in steps]
    np.testing.assert_allclose(ours(steps), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal([ours(int(step)) for step in steps], ours(steps))
    assert ours.get_config() == theirs.get_config()
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert optimizers.schedules.serialize(ours) == keras.optimizers.schedules.serialize(theirs)


@pytest.mark.parametrize("schedule", [SCHEDULES[0], SCHEDULES[9]], ids=str)
@pytest.mark.parametrize("options", [{"weight_decay": 0.25}, {"gradient_accumulation_steps": 3}], ids=str)
@pytest.mark.usefixtures("double_precision")
def test_trajectories_with_schedules(schedule, options):
    """Of weight decay, and of steps, not updates, where gradients are accumulated."""
    compare(*follow("Adam", options, schedule), 1e-10)


@pytest.mark.usefixtures("double_precision")
def test_exclusion_from_weight_decay():
    compare(*follow("AdamW", {"weight_decay": 0.5}, exclude="bias"), 1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_and_configurations(name):
    keras = pytest.importorskip("keras")
    ours, theirs = getattr(optimizers, name), getattr(keras.optimizers, name)
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    options = {"weight_decay": 0.25, "clipnorm": 2.0, "use_ema": True, "gradient_accumulation_steps": 2, "name": "mine"}
    mine, other = ours(0.5, **options), theirs(0.5, **options)
    assert mine.get_config() == other.get_config()
    assert list(mine.get_config()) == list(other.get_config())
    assert optimizers.deserialize(keras.optimizers.serialize(other)).get_config() == other.get_config()
    if name != "Lamb":  # which Keras cannot find by itself
        assert keras.optimizers.deserialize(optimizers.serialize(mine)).get_config() == mine.get_config()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("double_precision")
def test_state_of_keras_goes_on_here(name):
    """Set in an optimizer of ours, the state of one of Keras's goes on as there."""
    import keras

    options = {"use_ema": True, "gradient_accumulation_steps": 3}
    (model, twin), (mine, other) = models_of(), pair_of(name, options)
    weights, theirs = model.trainable_variables, twin.trainable_variables
    rng = np.random.default_rng(5)
    steps = [[rng.normal(size=v.shape) for v in weights] for _ in range(17)]
    for number, grads in enumerate(steps):
        if number == 8:
            mine.build(weights)
            mine.set_weights([array(v) for v in other.variables])
            model.set_weights(twin.get_weights())
        other.apply([keras.ops.convert_to_tensor(g) for g in grads], theirs)
        if number >= 8:
            mine.apply(grads, weights)
    compare(weights, theirs, (mine, other), tolerance_of(name, options))


FITTED = [
    ("SGD", {"use_ema": True, "ema_momentum": 0.75}),
    ("Nadam", {"gradient_accumulation_steps": 2, "use_ema": True, "ema_momentum": 0.75, "ema_overwrite_frequency": 3}),
    ("Adam", {"loss_scale_factor": 16.0, "weight_decay": 0.125}),
]


@pytest.mark.parametrize(("name", "options"), FITTED, ids=str)
@pytest.mark.usefixtures("double_precision")
def test_fit(name, options):
    """`fit` scales the loss and puts the averages in place, as Keras's; whose LSTM and losses round to float32."""
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(20, 5, 3)), rng.normal(size=(20, 2))
    ours, theirs = models_of()
    found = []
    for model, optimizer in zip((ours, theirs), pair_of(name, options), strict=True):
        model.compile(optimizer, "mse")
        found.append(model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_names_of_initializers():
    """All of Keras's but those of the short-time Fourier transform, by attribute and by string."""
    keras = pytest.importorskip("keras")
    for name in dir(keras.initializers):
        if not name.startswith("_") and "stft" not in name.lower():
            mine, other = getattr(initializers, name), getattr(keras.initializers, name)
            assert mine.__name__ == other.__name__
    for name in ("zero", "one", "normal", "uniform", "IdentityInitializer", "OrthogonalInitializer", "he_normal"):
        assert type(initializers.get(name)).__name__ == type(keras.initializers.get(name)).__name__
