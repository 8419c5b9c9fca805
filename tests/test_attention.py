"""`Attention`: against its formula, masks, dropout, errors; gradients by finite differences."""

import numpy as np
import pytest

from numbarnn import Model, backend, graph, layers, ops
from numbarnn.graph import Spec
from numbarnn.testing import check_gradients

B, TQ, TV, F = 2, 4, 5, 3


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def naive(query, value, key, score, allowed=None):
    """Position by position."""
    outputs, weights = np.zeros((B, TQ, F)), np.zeros((B, TQ, TV))
    for b in range(B):
        for i in range(TQ):
            seen = [j for j in range(TV) if allowed is None or allowed[b, i, j]]
            weights[b, i, seen] = softmax(np.array([score(query[b, i], key[b, j]) for j in seen]))
            outputs[b, i] = weights[b, i] @ value[b]
    return outputs, weights


def data(rng):
    return [rng.normal(size=(B, t, F)) for t in (TQ, TV, TV)]


@pytest.fixture(autouse=True)
def double_precision():
    backend.set_floatx("float64")


SCORES = {
    ("dot", False): lambda q, k: q @ k,
    ("dot", True): lambda q, k: 0.7 * (q @ k),
    ("concat", False): lambda q, k: -1.3 * np.tanh(q + k).sum(),
    ("concat", True): lambda q, k: -1.3 * np.tanh(0.7 * (q + k)).sum(),
}


def built(score_mode, use_scale):
    layer = layers.Attention(use_scale=use_scale, score_mode=score_mode)
    layer.build([(None, TQ, F), (None, TV, F)])
    layer.set_weights([0.7] * use_scale + [-1.3] * (score_mode == "concat"))
    return layer


@pytest.mark.parametrize(("score_mode", "use_scale"), SCORES)
@pytest.mark.parametrize("causal", [False, True])
def test_the_formula(score_mode, use_scale, causal, rng):
    query, value, key = data(rng)
    layer, score = built(score_mode, use_scale), SCORES[score_mode, use_scale]
    seen = np.broadcast_to(np.tri(TQ, TV, dtype=bool) if causal else True, (B, TQ, TV))
    for inputs in ([query, value], [query, value, key]):
        output, weights = layer(inputs, return_attention_scores=True, use_causal_mask=causal)
        expected = naive(query, value, inputs[-1], score, seen)
        np.testing.assert_allclose(output, expected[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(weights, expected[1], rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(layer(inputs, use_causal_mask=causal), output)
    mask = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)
    masked = layer([query, value], mask=[None, mask], use_causal_mask=causal)
    expected, _ = naive(query, value, value, score, seen & mask[:, None])
    np.testing.assert_allclose(masked, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("score_mode", "use_scale"), SCORES)
def test_gradients(score_mode, use_scale, rng):
    query, value, key = data(rng)
    mask = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 0, 0]], bool)
    layer = built(score_mode, use_scale)
    factors = rng.normal(size=(B, TQ, F))

    def loss(q, v, k):
        return ops.sum(layer([q, v, k], mask=[mask[:, :TQ], mask], use_causal_mask=True) * factors)

    arrays, variables = (query, value, key), layer.trainable_variables
    program = graph.trace(loss, [Spec(x.shape, x.dtype) for x in arrays])
    forward, backward = program.linearize(0, [*program.inputs, *variables])
    found = backward(forward(*arrays)[1], np.ones(()))

    def moved(q, v, k, *weights):
        for variable, value in zip(variables, weights, strict=True):
            variable.assign(value)
        return loss(q, v, k)

    check_gradients(moved, (*arrays, *[np.array(v.value) for v in variables]), found)


def test_masks_come_along_and_go_on(rng):
    ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    memory = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    embedding, attention = layers.Embedding(10, F, mask_zero=True), layers.Attention()
    output = attention([embedding(ids), embedding(memory)])
    np.testing.assert_array_equal(layers.get_mask(output), ids != 0)
    assert not np.any(output[ids == 0])
    row = attention([embedding(ids)[:1, :2].copy(), embedding(memory)[:1, :3].copy()])
    np.testing.assert_allclose(output[:1, :2], row, rtol=1e-12)
    x, y = layers.Input((None,)), layers.Input((None,))
    model = Model([x, y], attention([embedding(x), embedding(y)]))
    np.testing.assert_array_equal(model([ids, memory]), output)
    np.testing.assert_allclose(model.predict([ids, memory], verbose=0), output, rtol=1e-6, atol=1e-7)
    # nothing to look at: as if nothing were masked, as in Keras
    nowhere = attention([embedding(ids), embedding(memory)], mask=[None, np.zeros((2, 5), bool)])
    np.testing.assert_allclose(nowhere, attention([embedding(ids), embedding(memory)], mask=[None, None]), rtol=1e-6)


def test_symbolic_shapes(rng):
    query, value = layers.Input((None, F)), layers.Input((TV, 7))
    output, scores = layers.Attention()(
        [query, value, layers.Input((TV, F))], return_attention_scores=True, use_causal_mask=True
    )
    assert output.shape == (None, None, 7) and scores.shape == (None, None, TV)
    inner = Model([query, value], layers.Attention()([query, layers.Dense(F)(value)], use_causal_mask=True))
    outer = Model([query, value], inner([query, value]))  # traced with lengths that are not known
    assert outer([np.ones((2, 6, F)), np.ones((2, TV, 7))]).shape == (2, 6, F)


def test_dropout(rng):
    value = np.ones((1, 1000, 1))
    layer = layers.Attention(dropout=0.25, seed=3)
    output, weights = layer([np.zeros((1, 2, 1)), value], training=True, return_attention_scores=True)
    dropped = np.mean(weights == 0)
    assert 0.2 < dropped < 0.3
    np.testing.assert_allclose(weights[weights > 0], 1 / 1000 / 0.75, rtol=1e-6)
    np.testing.assert_allclose(output[..., 0], weights.sum(-1), rtol=1e-12)
    np.testing.assert_allclose(layer([np.zeros((1, 2, 1)), value]), 1, rtol=1e-12)
    assert layers.Attention().seed_generator is None


def test_it_trains(rng):
    query, value = layers.Input((TQ, F)), layers.Input((TV, F))
    attended = layers.Attention(use_scale=True, score_mode="concat")([layers.Dense(F)(query), value])
    model = Model([query, value], attended)
    model.compile("adam", "mse")
    x = [rng.normal(size=(16, t, F)) for t in (TQ, TV)]
    y = np.repeat(x[1].mean(1, keepdims=True), TQ, axis=1)
    losses = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0] and len(model.trainable_weights) == 4


def test_errors_and_config():
    x = np.ones((1, 2, 3))
    with pytest.raises(ValueError, match="Attention layer must be called on a list of inputs .*namely .query, value"):
        layers.Attention()(x)
    with pytest.raises(ValueError, match="length 2 or 3"):
        layers.Attention()([x])
    with pytest.raises(ValueError, match="list of mask of length 2 or 3"):
        layers.Attention()([x, x], mask=np.ones((1, 2), bool))
    with pytest.raises(ValueError, match="score_mode=cos"):
        layers.Attention(score_mode="cos")
    with pytest.raises(ValueError, match="dropout=1.5"):
        layers.Attention(dropout=1.5)
    layer = layers.Attention(use_scale=True, score_mode="concat", dropout=0.5, seed=1, name="a")
    assert layers.Attention.from_config(layer.get_config()).get_config() == layer.get_config()


def test_half_precision():
    output = layers.Attention(dtype="mixed_float16")([np.ones((1, 2, 3)), np.ones((1, 2, 3))])
    assert output.dtype == np.float16
