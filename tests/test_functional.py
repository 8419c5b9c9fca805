"""Functional models: graphs of layers, their nests, names, masks, errors and copies."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import Model, backend, graph, layers, models, ops, tree


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()


def translator():
    """The guide's encoder and decoder."""
    encoder_input = layers.Input(shape=(None,))
    embedded = layers.Embedding(1000, 64)(encoder_input)
    _, h, c = layers.LSTM(64, return_state=True, name="encoder")(embedded)
    decoder_input = layers.Input(shape=(None,))
    embedded = layers.Embedding(2000, 64)(decoder_input)
    decoded = layers.LSTM(64, name="decoder")(embedded, initial_state=[h, c])
    return Model([encoder_input, decoder_input], layers.Dense(10)(decoded))


def siamese():
    """One Dense for two inputs, and the difference."""
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    dense = layers.Dense(2, name="shared")
    return Model(inputs={"left": a, "right": b}, outputs=[dense(a), layers.Subtract(name="gap")([dense(a), dense(b)])])


class Readout(Model):
    """A subclass that is drawn; at the top of a module, so that it can be pickled."""

    def __init__(self, units):
        x = layers.Input((3,), name="x")
        super().__init__(inputs=x, outputs=ops.tanh(layers.Dense(units)(x)), name="readout")
        self.units = units

    def doubled(self, x):
        return 2 * self(x)


def test_the_guide_s_encoder_and_decoder(rng):
    model = translator()
    assert type(model) is models.Functional and isinstance(model, Model) and model.built
    assert [layer.name for layer in model.layers] == [
        "input_1", "input_2", "embedding", "embedding_1", "encoder", "decoder", "dense",
    ]  # fmt: skip
    assert model.name == "model" and model.input_names == ["input_1", "input_2"] and model.output_names == ["dense"]
    assert model.input_shape == [(None, None), (None, None)] and model.output_shape == (None, 10)
    assert [layer.count_params() for layer in model.layers[2:]] == [64_000, 128_000, 33_024, 33_024, 650]
    assert model.count_params() == 258_698 and len(model.weights) == 10
    x, y = rng.integers(0, 1000, (4, 6)), rng.integers(0, 2000, (4, 5))
    first, second, encoder, decoder, dense = model.layers[2:]
    _, h, c = encoder(first(x))
    expected = dense(decoder(second(y), initial_state=[h, c]))
    for given in ([x, y], (x, y), {"input_2": y, "input_1": x}):
        np.testing.assert_array_equal(model(given), expected)
        np.testing.assert_allclose(model.predict(given, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert translator().name == "model_1"


def test_a_layer_that_is_used_twice_counts_once(rng):
    model = siamese()
    assert [layer.name for layer in model.layers] == ["a", "b", "shared", "gap"] and len(model.weights) == 2
    assert len(model.get_layer("shared")._inbound_nodes) == 3
    assert model.output_names == ["shared", "gap"] and model.input_shape == {"left": (None, 3), "right": (None, 3)}
    with pytest.raises(AttributeError, match="multiple inbound nodes"):
        model.get_layer("shared").output  # noqa: B018
    x, y = rng.normal(size=(2, 5, 3)).astype("float32")
    kernel, bias = model.get_weights()
    ours, gap = model({"left": x, "right": y})
    np.testing.assert_allclose(ours, x @ kernel + bias, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gap, (x - y) @ kernel, rtol=1e-5, atol=1e-5)


def test_nests_of_inputs_and_outputs(rng):
    a, b, c = (layers.Input((2,), name=name) for name in "abc")
    model = Model((a, [b, c]), {"sum": layers.add([a, b, c]), "parts": [b, {"last": c * 2.0}]})
    x, y, z = rng.normal(size=(3, 4, 2)).astype("float32")
    for given in ((x, [y, z]), [x, y, z], {"c": z, "a": x, "b": y}):
        found = model(given)
        np.testing.assert_allclose(found["sum"], x + y + z, rtol=1e-6)
        np.testing.assert_array_equal(found["parts"][0], y)
        np.testing.assert_array_equal(found["parts"][1]["last"], 2 * z)
    assert (
        tree.structure(model.predict((x, [y, z]), verbose=0)) == tree.structure(found) == tree.structure(model.output)
    )
    assert model.output_shape == {"sum": (None, 2), "parts": [(None, 2), {"last": (None, 2)}]}
    assert len(model.outputs) == 3 and model.input == (a, [b, c]) and model.inputs == [a, b, c]


def test_outputs_of_one_layer_are_numbered():
    x = layers.Input((5, 3))
    same, other = layers.LSTM(4, return_state=True, name="rnn_1"), layers.Dense(2, name="rnn_1_1")
    first, h, c = same(x)
    assert Model(x, [first, h, c]).output_names == ["rnn_1", "rnn_1_1", "rnn_1_2"]
    assert Model(x, [h, other(h), c]).output_names == ["rnn_1", "rnn_1_1", "rnn_1_2"]


def test_inputs_come_in_the_type_and_rank_of_their_input(rng):
    ids, flags = layers.Input((4,), dtype="int32", name="ids"), layers.Input((1,), name="flags")
    model = Model([ids, flags], [ids * 1, flags * 1.0])
    given = rng.integers(0, 9, (3, 4))
    one, two = model([given.astype("float64"), np.array([True, False, True])])
    assert one.dtype == np.int32 and two.dtype == np.float32
    np.testing.assert_array_equal(one, given)
    np.testing.assert_array_equal(two, [[1], [0], [1]])
    one, _ = model([given[:, :, None], np.zeros((3, 1))])
    np.testing.assert_array_equal(one, given)
    wide = layers.Input((2,), dtype="float64")
    model = Model(wide, layers.Dense(1, dtype="float64")(wide))
    x = rng.normal(size=(3, 2))
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(model.predict(x, verbose=0), x @ kernel + bias, rtol=1e-14)


def test_models_are_layers(rng):
    x = layers.Input((3,))
    inner = Model(x, [layers.Dense(4, activation="tanh")(x), layers.Dense(2)(x)], name="inner")
    stack = models.Sequential([layers.Input((4,)), layers.Dense(3)], name="stack")
    y = layers.Input((3,))
    hidden, side = inner(y)
    model = Model(y, layers.concatenate([stack(hidden), side, *inner(stack(hidden))]))
    assert [layer.name for layer in model.layers][1:3] == ["inner", "stack"] and len(model.weights) == 6
    data = rng.normal(size=(5, 3)).astype("float32")
    hidden, side = inner(data)
    expected = np.concatenate([stack(hidden), side, *inner(stack(hidden))], axis=1)
    np.testing.assert_allclose(model(data), expected, rtol=1e-6)
    assert model.output_shape == (None, 11)
    assert layers.TimeDistributed(Model(x, inner(x)[0]))(np.ones((2, 7, 3), "float32")).shape == (2, 7, 4)
    outer = Model(stack.inputs, stack.outputs)
    np.testing.assert_array_equal(outer(hidden), stack(hidden))
    deep = models.Sequential([Model(x, inner(x)[1]), layers.Dense(1)])
    assert deep.input_shape == (None, 3) and deep.output_shape == (None, 1)


def test_a_model_may_begin_on_the_way(rng):
    x = layers.Input((3,), name="x")
    hidden = layers.Dense(4, activation="tanh", name="hidden")(x)
    whole = Model(x, layers.Dense(2, name="head")(hidden))
    below, above = Model(x, hidden), Model(hidden, whole.output)
    assert [layer.name for layer in above.layers] == ["hidden_input", "head"]
    data = rng.normal(size=(5, 3)).astype("float32")
    np.testing.assert_array_equal(above(below(data)), whole(data))
    assert above.weights[0] is whole.weights[2]
    np.testing.assert_array_equal(copy.deepcopy(above)(below(data)), whole(data))
    np.testing.assert_array_equal(Model(x, whole.get_layer("hidden").output)(data), below(data))


def test_training_reaches_every_layer():
    x = layers.Input((50,))
    model = Model(x, layers.Dropout(0.5)(x))
    always = Model(x, layers.Dropout(0.5)(x, training=True))
    ones = np.ones((20, 50), "float32")
    np.testing.assert_array_equal(model(ones), ones)
    assert (model(ones, training=True) == 0).any() and (always(ones) == 0).any()
    outer = Model(x, model(x))
    assert (outer(ones, training=True) == 0).any() and not (outer(ones) == 0).any()


def test_masks_go_from_layer_to_layer(rng):
    ids = layers.Input((None,), dtype="int32")
    embedding = layers.Embedding(10, 4, mask_zero=True)
    lower, upper = layers.LSTM(5, return_sequences=True), layers.GRU(3)
    symbol = embedding(ids)
    assert symbol.mask is not None and lower(symbol).mask is not None
    model = Model(ids, [upper(lower(symbol)), lower(symbol)])
    data = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    last, sequence = model(data)
    np.testing.assert_array_equal(layers.get_mask(sequence), data != 0)
    for row, length in enumerate((2, 1)):
        cut = upper(lower(embedding(data[row : row + 1, :length])))
        np.testing.assert_allclose(last[row : row + 1], cut, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.predict(data, verbose=0)[0], last, rtol=1e-5, atol=1e-6)
    # through a model in the model
    outer = Model(ids, upper(Model(ids, lower(symbol))(ids)))
    np.testing.assert_array_equal(outer(data), last)


@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_masks_of_models_within_are_symbols_too(kind):
    ids = layers.Input((None,), dtype="int32")
    embedding, lstm = layers.Embedding(10, 4, mask_zero=True), layers.LSTM(3, return_sequences=True)
    inner = Model(ids, lstm(embedding(ids))) if kind == "functional" else models.Sequential([ids, embedding, lstm])
    calls = [len(layer._inbound_nodes) for layer in (embedding, lstm)]
    fill = layers.Lambda(lambda x, mask: ops.where(ops.expand_dims(mask, -1), x, 7.0))
    read = inner(ids)
    model = Model(ids, [fill(read), read.mask])
    assert [len(layer._inbound_nodes) for layer in (embedding, lstm)] == calls
    data = np.array([[1, 2, 0], [3, 0, 0]])
    filled, mask = model(data)
    np.testing.assert_array_equal(mask, data != 0)
    assert (filled[data == 0] == 7).all() and not (filled[data != 0] == 7).any()
    np.testing.assert_array_equal(model.predict(data, verbose=0)[1], mask)
    last = Model(ids, layers.GRU(2)(inner(ids)))
    assert last.layers[-1].output.mask is None and inner(layers.Input((None,))).mask is not None


def test_masks_that_are_passed(rng):
    a, b = layers.Input((None, 3), name="a"), layers.Input((None, 3), name="b")
    one, two = layers.LSTM(4), layers.GRU(4)
    model = Model([a, b], [one(a), two(b)])
    x, y = rng.normal(size=(2, 2, 5, 3)).astype("float32")
    mask = np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], bool)
    for given in ([mask, None], {"a": mask, "b": None}):
        found = model([x, y], mask=given)
        np.testing.assert_array_equal(found[0], one(x, mask=mask))
        np.testing.assert_array_equal(found[1], two(y))
    assert layers.get_mask(x) is None
    # as an edge of the graph
    flags = layers.Input((None,), dtype="bool", name="flags")
    model = Model([a, flags], one(a, mask=flags))
    np.testing.assert_array_equal(model([x, mask]), one(x, mask=mask))
    # the mask of an argument of another type
    narrow = layers.Masking()(np.where(mask[:, :, None], x, 0))
    wide = narrow.astype("float64")
    layers.set_mask(wide, layers.get_mask(narrow))
    single = Model(a, one(a))
    np.testing.assert_array_equal(single(wide), one(narrow))
    assert not np.allclose(single(wide), one(np.asarray(narrow).copy()))


STATES = [(3, 4), (3, 4)]
CALLS = {
    "state": (lambda x, h: layers.GRU(4), lambda layer, x, h: layer(x, initial_state=h), [(3, 5, 2), (3, 4)]),
    "list": (lambda *_: layers.LSTM(4), lambda layer, *xs: layer(list(xs)), [(3, 5, 2), *STATES]),
    "bidirectional": (
        lambda *_: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        lambda layer, x, *states: layer(x, initial_state=list(states)),
        [(3, 5, 2), *STATES, *STATES],
    ),
    "stack": (
        lambda *_: layers.RNN([layers.GRUCell(4), layers.LSTMCell(4)], return_state=True),
        lambda layer, x, h, *two: layer(x, initial_state=[h, list(two)]),
        [(3, 5, 2), (3, 4), *STATES],
    ),
    "mask": (
        lambda *_: layers.SimpleRNN(4, return_sequences=True),
        lambda layer, x, m: layer(x, mask=m > 0.0),
        [(3, 5, 2), (3, 5)],
    ),
    "distributed": (lambda *_: layers.TimeDistributed(layers.Dense(3)), lambda layer, x: layer(x), [(3, 5, 2)]),
    "attention": (
        lambda *_: layers.Attention(use_scale=True),
        lambda layer, *xs: layer(list(xs), return_attention_scores=True, use_causal_mask=True),
        [(3, 5, 2), (3, 4, 2)],
    ),
    "dot": (lambda *_: layers.Dot(axes=2), lambda layer, *xs: layer(list(xs)), [(3, 5, 2), (3, 4, 2)]),
    "norm": (lambda *_: layers.BatchNormalization(), lambda layer, x: layer(layers.Masking()(x)), [(3, 5, 2)]),
    "pooling": (
        lambda *_: layers.GlobalAveragePooling1D(),
        lambda layer, x, m: layer(x, mask=m > 0.0),
        [(3, 5, 2), (3, 5)],
    ),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_a_graph_is_the_call_itself(name, training, rng):
    make, call, shapes = CALLS[name]
    arrays = [rng.normal(size=shape).astype("float32") for shape in shapes]
    inputs = [layers.Input(shape[1:] if len(shape) < 3 else (None, *shape[2:])) for shape in shapes]
    layer = make(*inputs)
    model = Model(inputs, call(layer, *inputs))
    assert model.weights == layer.weights
    found = model(arrays, training=training)
    if training and name == "norm":
        copied = copy.deepcopy(layer)
        copied.set_weights([*layer.get_weights()[:2], np.zeros(2), np.ones(2)])
        layer, expected = copied, copied(layers.Masking()(arrays[0]), training=True)
    else:
        expected = call(layer, *arrays)
    for one, two in zip(tree.leaves(found), tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, two)
    for symbol, value in zip(tree.leaves(model.output), tree.leaves(found), strict=True):
        assert graph.Spec(symbol.shape, symbol.dtype).fits(value)
    for one, two in zip(tree.leaves(copy.deepcopy(model)(arrays)), tree.leaves(model(arrays)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_lambda_and_operations_between_layers(rng):
    x = layers.Input((4, 3))
    scaled = layers.Lambda(lambda t, factor: t * factor, arguments={"factor": 2.0})(x)
    model = Model(x, ops.concatenate([scaled[:, 0], ops.mean(x, axis=1)], axis=-1) + 1.0)
    data = rng.normal(size=(5, 4, 3)).astype("float32")
    expected = np.concatenate([2 * data[:, 0], data.mean(1)], axis=-1) + 1
    np.testing.assert_allclose(model(data), expected, rtol=1e-5, atol=1e-6)
    assert [layer.name for layer in model.layers] == ["input_1", "lambda"]
    ids = layers.Input((None,))
    masked = layers.Embedding(10, 4, mask_zero=True)(ids)
    for mask, kept in ((None, False), (lambda inputs, mask: mask, True)):
        model = Model(ids, layers.Lambda(lambda t: t + 1, mask=mask)(masked))
        assert (layers.get_mask(model(np.array([[1, 0]]))) is not None) == kept
    seen = layers.Lambda(lambda t, mask: ops.where(ops.expand_dims(mask, -1), t, 7.0))(masked)
    np.testing.assert_array_equal(Model(ids, seen)(np.array([[1, 0]]))[0, 1], [7] * 4)


def test_deep_graphs(rng):
    x = layers.Input((2,))
    y = x
    for _ in range(1500):
        y = y + 1.0
    model = Model(x, y)
    np.testing.assert_array_equal(model(np.zeros((1, 2))), [[1500, 1500]])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(np.zeros((1, 2))), [[1500, 1500]])


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(twin, rng):
    x, y = rng.normal(size=(2, 5, 3)).astype("float32")
    model = siamese()
    other = twin(model)
    assert type(other) is models.Functional and other.layers[2] is not model.layers[2]
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    given = {"left": x, "right": y}
    for ours, theirs in zip(model(given), other(given), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    other.set_weights([w + 1 for w in other.get_weights()])
    assert not np.allclose(model(given)[0], other(given)[0])
    again = twin(other)
    np.testing.assert_array_equal(again(given)[1], other(given)[1])
    text, copied = translator(), twin(translator())
    copied.set_weights(text.get_weights())
    data = [rng.integers(0, 1000, (2, 4)), rng.integers(0, 1000, (2, 3))]
    np.testing.assert_array_equal(copied(data), text(data))
    drawn = twin(Readout(4))
    assert isinstance(drawn, Readout) and drawn.units == 4 and drawn(x).shape == (5, 4)
    assert len(Model(other.inputs, other.outputs).weights) == 2


def test_a_subclass_may_be_drawn(rng):
    model = Readout(4)
    assert isinstance(model, Readout) and isinstance(model, models.Functional) and type(model).__name__ == "Readout"
    assert model.name == "readout" and model.input_names == ["x"] and len(model.layers) == 2
    x = rng.normal(size=(5, 3)).astype("float32")
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(model.doubled(x), 2 * np.tanh(x @ kernel + bias), rtol=1e-5, atol=1e-6)
    assert type(Readout(2)) is type(model)

    class Own(Readout):
        def __init__(self):
            self.before = layers.Dense(7)
            super().__init__(2)

        def call(self, inputs):
            return -super().call(inputs)

    own = Own()
    assert own(x).shape == (5, 2) and own.layers[-1] is not own.before
    kernel, bias = own.layers[-1].get_weights()
    np.testing.assert_allclose(own(x), -np.tanh(x @ kernel + bias), rtol=1e-5, atol=1e-6)
    y = layers.Input((3,))
    np.testing.assert_array_equal(Model(y, own(y))(x), own(x))
    # others of the class stay what they are
    assert not isinstance(Model(name="plain"), models.Functional)


def test_configurations():
    twin = Readout.from_config({"units": Readout(4).get_config()["units"]})
    assert twin.units == 4 and twin.output_shape == (None, 4)
    for model in (siamese(), pickle.loads(pickle.dumps(siamese()))):
        assert Model.from_config(model.get_config()).get_config() == model.get_config()


def test_a_subclass_with_a_step_of_its_own(rng):
    class Noisy(Model):
        def train_step(self, data):
            logs = super().train_step(data)
            return {**logs, "steps": 1.0}

    x = layers.Input((3,))
    model = Noisy(x, layers.Dense(1)(x), name="noisy")
    assert isinstance(model, Noisy) and isinstance(model, models.Functional) and model.name == "noisy"
    model.compile("sgd", "mse")
    history = model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=2, verbose=0).history
    assert list(history) == ["loss", "steps"] and history["loss"][1] < history["loss"][0]
    assert Noisy(inputs=x, outputs=model.output).name.startswith("noisy")


def test_layers_and_weights_are_found(rng):
    model = siamese()
    assert model.get_layer("gap") is model.layers[-1] and model.get_layer(index=2).name == "shared"
    with pytest.raises(ValueError, match=r"No such layer: zz. Existing layers are: \['a', 'b', 'shared', 'gap'\]"):
        model.get_layer("zz")
    assert [v.path for v in model.weights] == ["shared/kernel", "shared/bias"]
    frozen = Model(model.input, model.output, trainable=False)
    assert frozen.trainable_weights == [] and len(frozen.non_trainable_weights) == 2
    model.trainable = True
    model.extra = layers.Dense(2)
    model.extra(np.ones((1, 3)))
    assert len(model.weights) == 4 and model.extra not in model.layers
    state = layers.Input((3,), batch_size=2)
    sequence = layers.Input(batch_shape=(2, 4, 3))
    stateful = Model([sequence, state], layers.GRU(3, stateful=True)(sequence))
    data = [rng.normal(size=(2, 4, 3)).astype("float32"), np.ones((2, 3), "float32")]
    first = stateful(data)
    assert not np.array_equal(stateful(data), first)
    stateful.reset_states()
    np.testing.assert_array_equal(stateful(data), first)


def test_graphs_that_do_not_hold_together():
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    total = layers.Add(name="total")([layers.Dense(3, name="first")(a), b])
    with pytest.raises(ValueError, match="Graph disconnected: cannot find parent for tensor <Tensor 'b'.*'total'"):
        Model(a, total)
    with pytest.raises(ValueError, match="All `inputs` values must be symbolic tensors.*invalid value 3"):
        Model([a, 3], total)
    with pytest.raises(ValueError, match="All `outputs` values must be symbolic tensors"):
        Model([a, b], np.ones(3))
    with pytest.raises(ValueError, match="same input multiple times"):
        Model([a, a], total)
    with pytest.raises(ValueError, match="needs `outputs`"):
        Model(a, [])
    twins = layers.Dense(2, name="same")(layers.Dense(3, name="same")(a))
    with pytest.raises(ValueError, match='The name "same" is used 2 times in the model. All layer names should be'):
        Model(a, twins)
    unused = Model([a, b], layers.Dense(1)(a))
    assert unused([np.ones((2, 3)), np.ones((2, 3))]).shape == (2, 1)
    assert [layer.name for layer in unused.layers] == ["a", "b", "dense"]


def test_a_loss_cannot_be_a_symbol_of_the_graph():
    x = layers.Input((3,))
    model = Model(x, layers.Dense(1)(x))
    with pytest.raises(ValueError, match="add_loss.. was given <Tensor.*within the `call` of a layer"):
        model.add_loss(ops.sum(model.output))

    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(ops.sum(inputs**2))
            return inputs

    model = Model(x, Penalty()(x))
    model.compile("sgd", "mse")
    assert model.evaluate(np.ones((2, 3)), np.ones((2, 3)), verbose=0) == 6.0


def test_inputs_that_do_not_fit():
    a, b = layers.Input((3,), name="a"), layers.Input((None, 2), name="b")
    model = Model([a, b], [layers.Dense(1)(a), layers.LSTM(2)(b)])
    x, y = np.ones((4, 3)), np.ones((4, 5, 2))
    with pytest.raises(ValueError, match=r'Layer "model" expects 2 input\(s\), but it received 1 input tensors'):
        model(x)
    with pytest.raises(ValueError, match="expects 2 input.* received 3"):
        model([x, y, y])
    with pytest.raises(
        ValueError, match=r"Input 0 with name 'a' of layer 'model'.*shape=\(None, 3\), found shape=\(4, 2\)"
    ):
        model([np.ones((4, 2)), y])
    with pytest.raises(ValueError, match="Input 1 with name 'b'"):
        model([x, np.ones((4, 2))])
    with pytest.raises(ValueError, match=r"Missing data for input \"b\". You passed a data dictionary with keys \['a'"):
        model({"a": x, "c": y})
    with pytest.warns(UserWarning, match=r"Input dict contained keys \['c'\]"):
        model({"a": x, "c": y, "b": y})
    with pytest.raises(ValueError, match="'a' is not optional, but None was passed"):
        model([None, y])
    keyed = Model({"one": a, "two": b}, layers.Dense(1)(a))
    with pytest.raises(ValueError, match=r"a dict with the keys \['one', 'two'\]. Received: list"):
        keyed([x, y])
    with pytest.raises(ValueError, match='Missing data for input "one"'):
        keyed({"a": x, "b": y})
    with pytest.raises(ValueError, match="expects 2 input"):
        model.predict(x, verbose=0)
