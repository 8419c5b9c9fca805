"""Recurrent layers against live Keras 3, on randomly drawn configurations: values, states and all gradients.

`pytest -m parity` takes the first of them; `pytest -m sweep` takes a thousand others, as many as NUMBARNN_SWEEP says,
still others with another NUMBARNN_SWEEP_SEED.
"""

import os
from collections import Counter

import numpy as np
import parity
import pytest

from numbarnn import backend, constraints, layers, models, optimizers, regularizers
from numbarnn.testing import assert_close

# Keras has variables that NumPy 2 warns about.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

SEED = 1997
CONFIGURATIONS = 200
SWEEP_SEED = int(os.environ.get("NUMBARNN_SWEEP_SEED", 2026))
SWEEP = int(os.environ.get("NUMBARNN_SWEEP", 1000))
AT_A_TIME = 50


def check(index, seed, tally, title):
    """Compare one configuration with its oracle."""
    config = parity.draw(index, seed)
    errors = parity.check(config, parity.make_data(config, index))
    tally(f"{title}, seed {seed}", config.options(), {f"{part}, {config.dtype}": e for part, e in errors.items()})


@pytest.mark.parity
@pytest.mark.parametrize("index", range(CONFIGURATIONS))
def test_recurrent_layers_equal_keras(index, tally):
    check(index, SEED, tally, "parity")


@pytest.mark.sweep
@pytest.mark.parametrize("start", range(0, SWEEP, AT_A_TIME))
def test_sweep(start, tally):
    """As above; what fails is named with what draws it again."""
    failures = []
    for index in range(start, min(start + AT_A_TIME, SWEEP)):
        try:
            check(index, SWEEP_SEED, tally, "sweep")
        except Exception as error:
            failures.append(f"draw({index}, {SWEEP_SEED}): {type(error).__name__}: {error}")
    assert not failures, "\n".join(failures)


@pytest.mark.parity
@pytest.mark.parametrize("start", range(0, CONFIGURATIONS, 40))
def test_the_oracles_agree(start):
    """Keras itself against the naive loops, in every other configuration where it is asked: each checks the other."""
    for index in range(start, start + 40, 2):
        config, data = parity.draw(index, SEED), parity.make_data(parity.draw(index, SEED), index)
        if config.oracle == "Keras":
            parity.compare(parity.keras_answer(config, data), parity.reference_answer(config, data), config.dtype)


@pytest.mark.parametrize(("seed", "count"), [(SEED, CONFIGURATIONS), (SWEEP_SEED, max(SWEEP, 1000))])
def test_enough_of_every_kind_is_drawn(seed, count):
    options = Counter()
    for index in range(count):
        options.update(parity.draw(index, seed).options())
    share = {name: number / count for name, number in options.items()}
    assert count >= 150
    for name in ("masks", "initial_state", "other activations"):
        assert share[name] >= 0.3, (name, share[name])
    assert share["oracle=Keras"] >= 0.7
    rare = {name: value for name, value in share.items() if value < 0.02 and not name.startswith("oracle")}
    assert not rare, rare
    expected = {f"kind={kind}" for kind in parity.KINDS} | {f"merge_mode={mode}" for mode in parity.MERGE_MODES}
    expected |= {f"mask={kind}" for kind in parity.MASKS} | {f"activation={name}" for name in parity.ACTIVATIONS}
    assert expected <= set(share), expected - set(share)


def recurrent(package, kind, **kwargs):
    """Make a layer of a library's `layers`, of one of the kinds in `parity.KINDS`."""
    return getattr(package, parity.KINDS[kind][0])(**parity.KINDS[kind][4], **kwargs)


@pytest.mark.parity
@pytest.mark.parametrize("kind", parity.KINDS)
def test_losses_of_regularizers(kind, rng):
    x = rng.standard_normal((4, 5, 3)).astype(np.float32)

    def make(package, penalties):
        return recurrent(
            package,
            kind,
            units=6,
            return_sequences=True,
            kernel_regularizer="l2",
            recurrent_regularizer=penalties.L1(0.3),
            bias_regularizer=penalties.L1L2(0.1, 0.2),
            activity_regularizer=penalties.L2(0.5),
        )

    ours, theirs = make(layers, regularizers), make(parity.keras().layers, parity.keras().regularizers)
    ours.build(x.shape), theirs.build(x.shape)
    weights = [rng.standard_normal(w.shape).astype(np.float32) for w in ours.weights]
    ours.set_weights(weights), theirs.set_weights(weights)
    y = ours(x)
    theirs(x)
    losses, expected = [np.asarray(value) for value in ours.losses], [value.detach().numpy() for value in theirs.losses]
    if kind == "simple_rnn":  # where Keras 3 forgets the activity's
        expected.append(np.asarray(0.5 * np.sum(np.square(y)) / len(x)))
    # In which order the activity's comes is nobody's business.
    for one, two in zip(sorted(losses), sorted(expected), strict=True):
        assert_close(one, two, 1e-5)


MODELS = {
    "simple_rnn": lambda package, **kwargs: package.SimpleRNN(5, **kwargs),
    "gru": lambda package, **kwargs: package.GRU(5, **kwargs),
    "gru_reset_before": lambda package, **kwargs: package.GRU(5, reset_after=False, **kwargs),
    "stack": lambda package, **kwargs: package.RNN([package.GRUCell(4, **kwargs), package.LSTMCell(5, **kwargs)]),
    "bidirectional": lambda package, **kwargs: package.Bidirectional(package.GRU(3, **kwargs), merge_mode="mul"),
}


@pytest.fixture
def double_precision():
    before = backend.floatx()
    backend.set_floatx("float64")
    with parity.precision("float64"):
        yield
    backend.set_floatx(before)


@pytest.mark.parity
@pytest.mark.parametrize("name", MODELS)
def test_training_with_regularizers_and_constraints(name, double_precision, rng):
    """Some steps of gradient descent: what the losses, the gradients and the constraints give together."""
    keras = parity.keras()
    x, y = rng.standard_normal((6, 7, 3)), rng.standard_normal((6, 2))

    def make(package, models, optimizers, constraints):
        layer = MODELS[name](
            package,
            kernel_regularizer="l2",
            recurrent_regularizer="l1",
            kernel_constraint=constraints.MaxNorm(0.8),
            recurrent_constraint=constraints.UnitNorm(),
            bias_constraint=constraints.NonNeg(),
        )
        model = models.Sequential([layer, package.Dense(2)])
        model.compile(optimizers.SGD(0.1), "mse")
        model.build(x.shape)
        return model

    ours = make(layers, models, optimizers, constraints)
    theirs = make(keras.layers, keras.models, keras.optimizers, keras.constraints)
    theirs.set_weights(ours.get_weights())
    for step in range(5):
        losses = [float(model.train_on_batch(x, y)) for model in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        for number, (one, two) in enumerate(zip(ours.get_weights(), theirs.get_weights(), strict=True)):
            assert_close(one, two, 1e-9, f"step {step}, weight {number}")


@pytest.mark.parity
@pytest.mark.parametrize("seed", range(20))
def test_configurations_are_read_on_both_sides(seed):
    """Keras makes the layer from our description of it, and we from Keras's."""
    from numbarnn import serialization

    config = parity.draw(seed, seed=7)
    keras = parity.keras()
    ours = config.make(layers)
    description = serialization.serialize_keras_object(ours)
    theirs = keras.saving.deserialize_keras_object(description)
    assert type(theirs).__name__ == type(ours).__name__
    again = serialization.deserialize_keras_object(keras.saving.serialize_keras_object(theirs))
    assert again.get_config() == ours.get_config()
