"""Functional models and Attention against live Keras 3: outputs, losses, metrics and history of several outputs."""

import numpy as np
import pytest

from numbarnn import backend, graph, layers, models, optimizers
from numbarnn.graph import Spec

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def double_precision():
    theirs, policy = keras.config.floatx(), keras.config.dtype_policy()
    backend.set_floatx("float64")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(theirs)
    keras.config.set_dtype_policy(policy)


MASKS = {
    "none": None,
    "value": [None, np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)],
    "both": [np.array([[1, 1, 1, 0], [0, 1, 1, 1]], bool), np.array([[1, 1, 1, 1, 1], [1, 0, 0, 1, 0]], bool)],
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("score_mode", ["dot", "concat"])
def test_attention(score_mode, use_scale, causal, mask, rng):
    arrays = [rng.normal(size=(2, t, 3)) for t in (4, 5, 5)]
    # Keras's products are float32 on PyTorch, whatever is asked for.
    arguments = {"use_scale": use_scale, "score_mode": score_mode}
    ours, theirs = layers.Attention(**arguments), keras.layers.Attention(**arguments)
    call = {"mask": MASKS[mask], "use_causal_mask": causal, "return_attention_scores": True}
    for number in (2, 3):
        ours(arrays[:number])
        theirs([torch.tensor(x) for x in arrays[:number]])
        assert [w.path.split("/")[-1] for w in ours.weights] == [w.name for w in theirs.weights]
        values = rng.normal(size=len(ours.weights))
        ours.set_weights(list(values))
        theirs.set_weights(list(values))
        tensors = [torch.tensor(x, requires_grad=True) for x in arrays[:number]]
        expected = theirs(
            tensors, **{**call, "mask": call["mask"] and [m if m is None else torch.tensor(m) for m in call["mask"]]}
        )
        d = rng.normal(size=(2, 4, 3))
        program = graph.trace(lambda *x: ours(list(x), **call), [Spec(x.shape, x.dtype) for x in arrays[:number]])
        wanted = [*program.inputs, *ours.trainable_weights]
        forward, backward = program.linearize(0, wanted)
        found, residuals = forward(*arrays[:number])
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, two.detach().numpy(), rtol=1e-5, atol=1e-6)
        gradients = torch.autograd.grad(
            expected[0], [*tensors, *(w.value for w in theirs.trainable_weights)], torch.tensor(d, dtype=torch.float32)
        )
        for one, two in zip(backward(residuals, d), gradients, strict=True):
            np.testing.assert_allclose(one, two.numpy(), rtol=3e-5, atol=1e-5)


def both(build):
    """The same model from our layers and from Keras's, with the same weights."""
    ours, theirs = build(layers, models), build(keras.layers, keras.models)
    assert [layer.name for layer in ours.layers] == [layer.name for layer in theirs.layers]
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    theirs.set_weights(ours.get_weights())
    return ours, theirs


def reader(layers, models):
    """Text and numbers in, a class and a number out; one LSTM is used twice and hands its states on."""
    text, numbers = layers.Input((None,), name="text"), layers.Input((4,), name="numbers")
    embedded = layers.Embedding(20, 5, name="embedding")(text)
    lstm = layers.LSTM(6, return_state=True, name="lstm")
    _, h, c = lstm(embedded)
    again, _, _ = lstm(layers.Dropout(0.0, name="dropout")(embedded), initial_state=[h, c])
    merged = layers.Concatenate(name="merged")([again, layers.Dense(3, activation="tanh", name="dense")(numbers), h])
    return models.Model(
        [text, numbers],
        [
            layers.Dense(3, activation="softmax", name="kind")(merged),
            layers.Dense(2, name="amount")(layers.Add(name="sum")([c, h])),
        ],
        name="reader",
    )


def test_two_inputs_and_two_outputs(rng):
    ours, theirs = both(reader)
    x = {"text": rng.integers(0, 20, (32, 7)), "numbers": rng.normal(size=(32, 4))}
    y = {"kind": rng.integers(0, 3, 32), "amount": rng.normal(size=(32, 2))}
    weights = {"kind": np.linspace(0, 1, 32), "amount": np.linspace(2, 1, 32)}
    for one, two in zip(ours(x), theirs(x), strict=True):
        np.testing.assert_allclose(one, two.detach().numpy(), rtol=1e-5, atol=1e-6)
    arguments = {
        "loss": {"kind": "sparse_categorical_crossentropy", "amount": "mse"},
        "loss_weights": {"kind": 0.5, "amount": 2.0},
        "metrics": {"kind": ["accuracy"], "amount": ["mae"]},
    }
    options = {"epochs": 4, "batch_size": 8, "shuffle": False, "verbose": 0}
    ours.compile(optimizers.SGD(0.1), **arguments)
    theirs.compile(keras.optimizers.SGD(0.1), **arguments)
    found = ours.fit(x, y, sample_weight=weights, validation_data=(x, y), **options).history
    y, weights = list(y.values()), list(weights.values())  # as dicts, Keras cannot read them here
    expected = theirs.fit(x, y, sample_weight=weights, validation_data=(x, y), **options).history
    assert set(found) == set(expected)
    assert list(found)[:5] == ["loss", "kind_loss", "amount_loss", "kind_accuracy", "amount_mae"]
    for key, values in found.items():
        np.testing.assert_allclose(values, expected[key], rtol=1e-5, atol=1e-6, err_msg=key)
    for one, two in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    for one, two in zip(ours.predict(x, verbose=0), theirs.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def drawn(layers, models, seed):
    """A graph of many layers, some of which are used more than once."""
    rng = np.random.default_rng(seed)
    inputs = [layers.Input((2,), name=f"input_{i}") for i in range(rng.integers(1, 4))]
    tensors, shared = list(inputs), [layers.Dense(2, name=f"shared_{i}") for i in range(2)]
    for number in range(rng.integers(2, 12)):
        chosen = [tensors[i] for i in rng.integers(0, len(tensors), rng.integers(1, 4))]
        if len(chosen) == 1:
            kind = rng.integers(0, 3)
            layer = layers.Dense(2, name=f"dense_{number}") if kind == 0 else shared[kind - 1]
            tensors.append(layer(chosen[0]))
        else:
            tensors.append(layers.Add(name=f"add_{number}")(chosen))
    ends = rng.choice(np.arange(len(inputs), len(tensors)), min(rng.integers(1, 4), len(tensors) - len(inputs)), False)
    return models.Model(inputs, [tensors[i] for i in ends], name="drawn")


@pytest.mark.parametrize("seed", range(25))
def test_order_of_layers_and_weights(seed, rng):
    ours, theirs = both(lambda *library: drawn(*library, seed))
    assert ours.count_params() == theirs.count_params()
    data = [rng.normal(size=(3, 2)) for _ in ours.inputs]
    found, expected = ours(data), theirs(data)
    if len(ours.outputs) == 1:
        found, expected = [found], [expected]
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two.detach().numpy(), rtol=1e-4, atol=1e-4)
