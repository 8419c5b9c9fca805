"""Functional models and Attention against live Keras 3: outputs, losses, metrics and history of several outputs."""

import numpy as np
import pytest

from numbarnn import backend, graph, layers
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
