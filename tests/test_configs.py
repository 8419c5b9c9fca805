"""Configurations: plain JSON from which the same model comes again, shared objects shared."""

import json

import numpy as np
import pytest

import numbarnn
from numbarnn import layers, models, ops, serialization
from numbarnn.layers import Input
from numbarnn.models import Model, Sequential, clone_model, model_from_json
from numbarnn.serialization import (
    custom_object_scope,
    deserialize_keras_object,
    register_keras_serializable,
    serialize_keras_object,
)
from numbarnn.utils import set_random_seed


def through_json(item, custom_objects=None):
    """Return what a configuration, written and read as JSON, makes."""
    return deserialize_keras_object(json.loads(json.dumps(serialize_keras_object(item))), custom_objects)


def same(a, b):
    """Say whether two nests of arrays have the same structure and bits."""
    if isinstance(a, dict):
        return isinstance(b, dict) and set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a.dtype == b.dtype and np.array_equal(a, b)


def again(model, x, custom_objects=None):
    """Return the model that comes of a model's JSON, after checking that it computes the same."""
    twin = model_from_json(model.to_json(), custom_objects)
    twin.set_weights(model.get_weights())
    assert same(model.predict(x, verbose=0), twin.predict(x, verbose=0))
    assert twin.to_json() == model.to_json()
    return twin


LAYERS = [
    layers.SimpleRNN(3, activation="relu", use_bias=False, dropout=0.2, seed=4),
    layers.GRU(3, reset_after=False, return_sequences=True, recurrent_regularizer="l2"),
    layers.LSTM(3, unit_forget_bias=False, go_backwards=True, time_major=True, zero_output_for_mask=True),
    layers.LSTM(3, implementation=1, dropout=0.1),
    layers.LSTM(3, bias_initializer=numbarnn.initializers.Constant(0.5), kernel_constraint="non_neg"),
    layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)], return_state=True),
    layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(2)], reverse_state_order=True)),
    layers.Bidirectional(layers.GRU(2, return_sequences=True), merge_mode="ave"),
    layers.Bidirectional(layers.LSTM(2), backward_layer=layers.GRU(2, go_backwards=True), merge_mode=None),
    layers.TimeDistributed(layers.Dense(2, activation="gelu")),
    layers.Embedding(5, 2, mask_zero=True, input_length=4),
    layers.Masking(2.5),
    layers.Masking(float("nan")),
    layers.BatchNormalization(momentum=0.5, scale=False),
    layers.LayerNormalization(axis=-1, epsilon=0.1),
    layers.Dropout(0.3, noise_shape=(None, 1, None), seed=2),
    layers.SpatialDropout1D(0.3),
    layers.Activation(ops.tanh),
    layers.Reshape((2, -1)),
    layers.Permute((2, 1)),
    layers.RepeatVector(3),
    layers.Flatten(),
    layers.Concatenate(axis=1),
    layers.Dot(axes=(1, 2), normalize=True),
    layers.Add(),
    layers.Attention(use_scale=True),
    layers.GlobalAveragePooling1D(keepdims=True),
    layers.GlobalMaxPooling1D(),
    layers.Identity(),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layers(layer):
    twin = through_json(layer)
    assert type(twin) is type(layer) and twin is not layer
    assert json.dumps(twin.get_config()) == json.dumps(layer.get_config())
    if isinstance(layer, layers.RNN):
        for name in ("implementation", "dropout", "stateful", "time_major"):
            assert getattr(twin, name, None) == getattr(layer, name, None)


def test_every_layer_is_among_those_tested():
    named = {item for item in vars(layers).values() if isinstance(item, type) and issubclass(item, layers.Layer)}
    within = {type(inner) for layer in LAYERS for inner in layer._flatten_layers()}
    # bases, and those in the models below
    assert named - within <= {
        layers.Layer, layers.Wrapper, layers.InputLayer, layers.Lambda, layers.Average, layers.Maximum, layers.Minimum,
        layers.Multiply, layers.Subtract,
    }  # fmt: skip


def test_merging_layers_by_functions(rng):
    a, b = Input((3,)), Input((3,))
    outputs = [f([a, b]) for f in (layers.average, layers.maximum, layers.minimum, layers.multiply, layers.subtract)]
    again(Model([a, b], outputs), [rng.normal(size=(2, 3)).astype("f4") for _ in range(2)])


def test_sequential(rng):
    model = Sequential([Input((None, 3)), layers.LSTM(4, return_sequences=True), layers.GRU(2)], name="both")
    twin = again(model, rng.normal(size=(2, 5, 3)).astype("f4"))
    assert twin.name == "both" and [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]
    assert twin.input_shape == (None, None, 3) and twin.built
    later = Sequential([layers.LSTM(4), layers.Dense(2)])
    assert not through_json(later).built
    later.build((None, 5, 3))
    assert through_json(later).input_shape == (None, 5, 3)


def encoder_decoder():
    words, start = Input((None,), dtype="int32", name="words"), Input((None, 3), name="start")
    read = layers.Embedding(7, 4, mask_zero=True, name="table")(words)
    _, h, c = layers.LSTM(5, return_state=True, name="encoder")(read)
    spoken = layers.LSTM(5, return_sequences=True, name="decoder")(start, initial_state=[h, c])
    head = layers.Dense(2, name="head")
    twice = head(spoken) + 2.0 * head(-spoken)
    return Model({"words": words, "start": start}, (twice, {"last": twice[:, -1], "states": [h, c]}))


def test_functional(rng):
    x = {"words": np.array([[1, 2, 0, 0], [3, 1, 4, 6]], "i4"), "start": rng.normal(size=(2, 3, 3)).astype("f4")}
    model = encoder_decoder()
    twin = Model.from_config(model.get_config())
    twin.set_weights(model.get_weights())
    assert same(model.predict(x, verbose=0), twin.predict(x, verbose=0))
    twin = model_from_json(model.to_json())
    twin.set_weights(model.get_weights())
    # JSON has lists alone
    assert same(list(model.predict(x, verbose=0)), twin.predict(x, verbose=0))
    entries = {entry["name"]: entry for entry in json.loads(model.to_json())["config"]["layers"]}
    assert [len(call["args"]) for call in entries["head"]["inbound_nodes"]] == [1, 1]
    states = entries["decoder"]["inbound_nodes"][0]["kwargs"]["initial_state"]
    assert [x["config"]["keras_history"] for x in states] == [["encoder", 0, 1], ["encoder", 0, 2]]


def test_models_within_models(rng):
    x = Input((4, 3))
    inner = Model(x, [layers.GRU(2, name="in")(x), layers.Dense(2)(x[:, 0])], name="inner")
    chain = Sequential([Input((4, 3)), layers.SimpleRNN(2)], name="chain")
    y = Input((4, 3))
    first, second = inner(y), inner(y * 2.0)
    model = Model(y, [first[0] + second[1], chain(y), second[0]])
    twin = again(model, rng.normal(size=(3, 4, 3)).astype("f4"))
    assert len(twin.weights) == len(model.weights) == 8 and twin.get_layer("inner").layers[1].name == "in"
    # a layer called on its own output, and an input on the way
    cell = layers.Dense(3)
    again(Model(y, cell(cell(cell(y)))), rng.normal(size=(3, 4, 3)).astype("f4"))
    again(Model(first[0], first[0] * 2.0), rng.normal(size=(3, 2)).astype("f4"))


def test_nested_inputs_constants_masks_and_training(rng):
    class Weighted(layers.Layer):
        state_size = output_size = 2

        def call(self, inputs, states, constants):
            return inputs[0] + inputs[1] * constants[0], [states[0] + 1]

    a, b, factor = Input((3, 2)), Input((3, 2)), Input((2,))
    out = layers.RNN(Weighted(), return_sequences=True)((a, b), constants=[factor])
    values = [rng.normal(size=shape).astype("f4") for shape in ((4, 3, 2), (4, 3, 2), (4, 2))]
    again(Model([a, b, factor], out), values, {"Weighted": Weighted})

    mask = Input((3,), dtype="bool")
    masked = layers.LSTM(2)(a, mask=mask)
    again(Model([a, mask], masked), [values[0], rng.random((4, 3)) < 0.5])

    noisy = Model(a, layers.Dropout(0.5, seed=1)(a, training=True))
    twin = model_from_json(noisy.to_json())
    assert (twin.predict(values[0], verbose=0) == 0).any()  # also where it is not trained
    frozen = Model(a, layers.Dropout(0.5, seed=1)(a, training=False))
    np.testing.assert_array_equal(model_from_json(frozen.to_json())(values[0], training=True), values[0])


OPERATIONS = {
    "arithmetic": lambda x: -x / (x * x + 1.0) - 2.0**x,
    "constants": lambda x: x + np.arange(4, dtype="f4") * np.float32(0.5),
    "comparison": lambda x: ops.where(ops.logical_and(x > 0, x <= 1), x, 0.1 * x),
    "reductions": lambda x: [ops.sum(x, axis=(1, 2)), ops.mean(x, 1, True), ops.max(x, -1), ops.any(x > 1, axis=1)],
    "shapes": lambda x: ops.squeeze(ops.expand_dims(ops.transpose(ops.reshape(x, (-1, 4, 3)), (0, 2, 1)), 1), 1),
    "indices": lambda x: [x[:, 1], x[..., ::2], x[:, None, -1], x[:, np.array([2, 0])], x[:, 1:, 0]],
    "pieces": lambda x: ops.concatenate([ops.flip(x, 1), ops.roll(x, 1, axis=1), *ops.split(x, 3, axis=1)], axis=1),
    "products": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "functions": lambda x: [ops.tanh(x), ops.relu(x), ops.softmax(x), ops.sigmoid(x), ops.gelu(x), ops.silu(x)],
    "types": lambda x: [ops.cast(x, "float64"), ops.one_hot(ops.argmax(x, -1), 4), ops.ones_like(x), ops.round(x, 1)],
    "cumulative": lambda x: [ops.cumsum(x, axis=1), ops.sort(x), ops.clip(x, -0.5, 0.5), ops.pad(x, ((0, 0),) * 3)],
    "composed": lambda x: [ops.var(x, axis=1), *ops.top_k(x, 2), ops.einsum("bij,bkj->bik", x, x), ops.norm(x, axis=1)],
    "own": lambda x: ops.stop_gradient(ops.take(x, np.array([0, 2]), axis=1) + ops.erf(x)[:, :1]),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_between_layers(name, rng):
    x = Input((3, 4))
    again(Model(x, OPERATIONS[name](x)), rng.normal(size=(2, 3, 4)).astype("f4"))


def test_what_cannot_be_described_is_refused():
    x = Input((3,))
    with pytest.raises(ValueError, match="belongs to none of them"):
        Model(x, x * numbarnn.Variable(np.ones(3, "f4"))).get_config()
    with pytest.raises(ValueError, match="lambda cannot be serialized.*register_keras_serializable"):
        Model(x, layers.Lambda(lambda x: x)(x)).to_json()
    with pytest.raises(ValueError, match="never runs"):
        layers.Lambda.from_config(
            {"name": "l", "function": {"class_name": "__lambda__", "config": {"value": ["4wEAAAA=", None, None]}}}
        )


@register_keras_serializable(package="tests")
def doubled(x):
    return 2 * x


def test_functions_by_name(rng):
    x = Input((3,))
    again(Model(x, layers.Lambda(doubled)(x)), np.ones((2, 3), "f4"))
    assert serialize_keras_object(doubled)["config"] == "tests>doubled"
    twin = through_json(layers.Dense(2, activation=doubled))
    assert twin.activation is doubled


# ---------------------------------------------------------------------------------------------------------------
# classes of the user


class Scale(layers.Layer):
    def __init__(self, factor, axes=(0, 1)):
        super().__init__()
        self.factor, self.axes = factor, axes

    def call(self, x):
        return x * self.factor


class Block(Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.rnn, self.head = layers.LSTM(units), layers.Dense(1)

    def call(self, x):
        return self.head(self.rnn(x))


def test_recorded_arguments_serve_where_there_is_no_get_config(rng):
    layer = Scale(3.0)
    layer.name, layer.trainable = "kept", False
    twin = through_json(layer, {"Scale": Scale})
    assert (twin.factor, twin.name, twin.trainable) == (3.0, "kept", False)
    with custom_object_scope({"Scale": Scale}):
        assert through_json(layer).factor == 3.0
    with pytest.raises(TypeError, match="Could not locate class 'Scale'"):
        through_json(layer)
    with pytest.raises(NotImplementedError, match="Scale.*non-serializable.*factor"):
        serialize_keras_object(Scale(np.ones(2)))

    block = Block(3, name="block")
    x = rng.normal(size=(2, 5, 4)).astype("f4")
    block(x)
    twin = again(block, x, {"Block": Block})  # built by its shape
    assert (twin.units, twin.name) == (3, "block")


class Pair(Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = layers.GRU(2), layers.Dense(2)

    def call(self, sequences, weights, training=None):
        return self.first(sequences) * self.second(weights["w"])


def test_a_model_of_several_arguments_is_built_by_all_of_them(rng):
    pair = Pair()
    values = rng.normal(size=(2, 4, 3)).astype("f4"), {"w": rng.normal(size=(2, 5)).astype("f4")}
    expected = pair(*values)
    twin = through_json(pair, {"Pair": Pair})
    twin.set_weights(pair.get_weights())
    np.testing.assert_array_equal(twin(*values), expected)


def test_nested_inputs_of_a_sequential_model(rng):
    class Nested(layers.Layer):
        state_size = output_size = 3

        def build(self, shapes):
            self.kernel = self.add_weight(shape=(shapes[0][-1] + shapes[1][-1], 3), name="kernel")

        def call(self, inputs, states):
            out = ops.matmul(ops.concatenate(list(inputs), axis=-1), self.kernel) + states[0]
            return out, [out]

    model = Sequential([layers.RNN(Nested()), layers.Dense(1)])
    values = rng.normal(size=(2, 4, 3)).astype("f4"), rng.normal(size=(2, 4, 2)).astype("f4")
    expected = model(values)
    twin = through_json(model, {"Nested": Nested})
    twin.set_weights(model.get_weights())
    np.testing.assert_array_equal(twin(values), expected)


def test_registered_classes():
    @register_keras_serializable(package="tests", name="Other")
    class Mine(layers.Layer):
        def __init__(self, inner, **kwargs):
            super().__init__(**kwargs)
            self.inner = inner

        def get_config(self):
            return {**super().get_config(), "inner": self.inner}

        @classmethod
        def from_config(cls, config):
            return cls(**{**config, "inner": deserialize_keras_object(config["inner"])})

    config = serialize_keras_object(Mine(layers.Dense(3)))
    assert (config["registered_name"], config["class_name"]) == ("tests>Other", "Mine")
    assert deserialize_keras_object(json.loads(json.dumps(config))).inner.units == 3


def test_subclasses_drawn_from_inputs_and_outputs(rng):
    class Noisy(Model):
        def train_step(self, data):
            return {**super().train_step(data), "mine": 1.0}

    x = Input((3,))
    model = Noisy(x, layers.Dense(2)(x))
    twin = again(model, np.ones((2, 3), "f4"), {"Noisy": Noisy})
    assert isinstance(twin, Noisy) and isinstance(twin, models.Functional)


# ---------------------------------------------------------------------------------------------------------------
# what is shared


def test_a_cell_in_two_layers_is_one_cell(rng):
    cell = layers.LSTMCell(3)
    model = Sequential([Input((4, 3)), layers.RNN(cell, return_sequences=True), layers.RNN(cell)])
    twin = again(model, rng.normal(size=(2, 4, 3)).astype("f4"))
    assert twin.layers[0].cell is twin.layers[1].cell and len(twin.weights) == 3
    config = json.loads(model.to_json())["config"]["layers"]
    marks = [entry["config"]["cell"]["shared_object_id"] for entry in config[1:]]
    assert marks == [1, 1] and "shared_object_id" not in config[1]
    stack = through_json(layers.StackedRNNCells([cell, cell]))
    assert stack.cells[0] is stack.cells[1]
    assert Sequential.from_config(model.get_config()).layers[0].cell is not cell


def test_layers_that_are_made_again_share_nothing_with_others(rng):
    shared, within = layers.GRUCell(3), layers.GRUCell(3)
    model = Sequential(
        [
            Input((4, 3)),
            layers.RNN(shared, return_sequences=True),
            layers.RNN(shared, return_sequences=True),
            layers.Bidirectional(layers.RNN([within, within])),
        ]
    )
    config = json.loads(model.to_json())
    del config["config"]["layers"][3]["config"]["backward_layer"]  # as Keras 2 has it
    twin = deserialize_keras_object(config)
    both = twin.layers[2]
    cells = [layer.cell.cells for layer in (both.forward_layer, both.backward_layer)]
    assert all(first is second for first, second in cells)
    assert len({id(twin.layers[0].cell), id(cells[0][0]), id(cells[1][0])}) == 3
    assert len(twin.weights) == len(model.weights) == 9
    again(model, rng.normal(size=(2, 4, 3)).astype("f4"))


def test_a_layer_in_two_models_is_one_layer(rng):
    head, x = layers.Dense(3, name="head"), Input((3,))
    one, two = Model(x, head(x), name="one"), Model(x, head(head(x)), name="two")
    y = Input((3,))
    twin = again(Model(y, [one(y), two(y)]), rng.normal(size=(2, 3)).astype("f4"))
    assert twin.get_layer("one").get_layer("head") is twin.get_layer("two").get_layer("head")
    assert len(twin.weights) == 2


# ---------------------------------------------------------------------------------------------------------------
# compile, clone_model


@register_keras_serializable(package="tests")
def halved_error(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) / 2


def test_compile_comes_along(rng):
    x = Input((3,))
    model = Model(x, [layers.Dense(1, name="a")(x), layers.Dense(1, name="b")(x)])
    assert model.get_compile_config() == {}
    model.compile(
        numbarnn.optimizers.Adam(0.25, beta_1=0.5),
        loss={"a": halved_error, "b": numbarnn.losses.MeanSquaredError(name="mine")},
        loss_weights={"a": 2.0},
        metrics={"b": ["mae", numbarnn.metrics.MeanSquaredError(name="own")]},
        weighted_metrics=[["mse"], None],
    )
    twin = model_from_json(model.to_json())
    assert twin.to_json() == model.to_json()
    assert twin.loss["a"] is halved_error and twin.optimizer.beta_1 == 0.5
    twin.set_weights(model.get_weights())
    data = np.ones((4, 3), "f4"), [np.ones((4, 1), "f4")] * 2
    histories = [m.fit(*data, epochs=2, shuffle=False, verbose=0).history for m in (model, twin)]
    assert histories[0] == histories[1] and "b_own" in histories[0]
    trained = model_from_json(model.to_json())  # the names of metrics are those that were given
    assert list(trained.fit(*data, verbose=0).history) == list(histories[0])
    assert list(model.fit(*data, verbose=0).history) == list(histories[0])
    model.compile("sgd", lambda y_true, y_pred: ops.mean(y_pred))
    with pytest.raises(ValueError, match="lambda cannot be serialized"):
        model.to_json()


def test_compile_of_ones_own_is_left_alone():
    class Own(Sequential):
        def compile(self, mine):
            super().compile("sgd", "mse")

    model = Own([Input((2,)), layers.Dense(1)])
    model.compile(3)
    with pytest.warns(UserWarning, match="compile.* was not called"):
        assert not through_json(model, {"Own": Own}).compiled


def test_clone_model(rng):
    set_random_seed(1)
    values = rng.normal(size=(2, 4, 3)).astype("f4")
    chain = Sequential([Input((None, 3)), layers.LSTM(2), layers.Dense(1)], name="chain")
    chain.compile("sgd", "mse")
    clone = clone_model(chain)
    assert clone.compiled and clone.name == "chain" and clone.layers[0] is not chain.layers[0]
    assert not np.array_equal(clone.get_weights()[0], chain.get_weights()[0])
    clone.set_weights(chain.get_weights())
    np.testing.assert_array_equal(clone(values), chain(values))

    x = Input((4, 3), name="x")
    shared = layers.Dense(3)
    model = Model({"x": x}, [shared(shared(x)) + x, chain(x)])
    twin = clone_model(model)
    assert len(twin.weights) == len(model.weights) and twin.input_names == ["x"]
    twin.set_weights(model.get_weights())
    assert same(model({"x": values}), twin({"x": values}))

    def seeded(layer):
        return layers.Dense(5) if isinstance(layer, layers.Dense) else type(layer).from_config(layer.get_config())

    assert clone_model(chain, clone_function=seeded).output_shape == (None, 5)
    assert clone_model(chain, clone_function=lambda layer: layer).layers[0] is chain.layers[0]
    deep = clone_model(Model(x, chain(x)), clone_function=seeded, recursive=True)
    assert deep.output_shape == (None, 5)
    y = Input((4, 3))
    assert clone_model(Model(x, shared(x)), input_tensors=y).input is y
    other = clone_model(Model(x, shared(x)), call_function=lambda layer, *args: layer(*args) * 0.0)
    assert not other(values).any()
    for wrong in ({"input_tensors": [1]}, {"input_tensors": [x, y]}, {"call_function": len}):
        with pytest.raises(ValueError, match="input_tensors|call_function"):
            clone_model(chain, **wrong)
    with custom_object_scope({"Block": Block}):
        assert clone_model(Block(3)).units == 3
    with pytest.raises(ValueError, match="clone_function"):
        clone_model(Block(3), clone_function=seeded)


# ---------------------------------------------------------------------------------------------------------------
# what is wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["layers"].append(c["layers"][0]), "two layers 'x'"),
        (lambda c: c["layers"][1]["inbound_nodes"][0]["args"].__setitem__(0, _tensor("zz")), "names a layer 'zz'"),
        (lambda c: c["layers"][1]["inbound_nodes"][0]["args"].__setitem__(0, _tensor("d")), "from themselves"),
        (lambda c: c.update(output_layers=["d", 3, 0]), "no call 3"),
        (lambda c: c["layers"][1].update(class_name="Constant", module="keras.initializers"), "where a layer"),
    ],
)
def test_graphs_that_cannot_be(change, message):
    x = Input((3,), name="x")
    config = json.loads(json.dumps(Model(x, layers.Dense(2, name="d")(x)).get_config()))
    change(config)
    if config["layers"][1]["class_name"] == "Constant":
        config["layers"][1]["config"] = {"value": 1.0}
    with pytest.raises(ValueError, match=message):
        Model.from_config(config)


def _tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


def test_json_of_no_model():
    for text in ("[]", "{}", json.dumps(serialize_keras_object(layers.Dense(1))), "{"):
        with pytest.raises(ValueError, match="json_string|Expecting"):
            model_from_json(text)


def test_serialization_knows_slices_and_returns_its_lists():
    for item in (slice(1, None, -2), Ellipsis, {"a": [None, 1.5, "x"]}, np.arange(3)):
        found = through_json(item)
        assert np.array_equal(found, item) if isinstance(item, np.ndarray) else found == item
    with serialization.sharing() as drop_single:
        config = [serialize_keras_object(layer) for layer in (LAYERS[0], LAYERS[0])]
        assert [entry["shared_object_id"] for entry in drop_single(config)] == [1, 1]
