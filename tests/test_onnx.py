"""Exported models, run by ONNX's operators written in NumPy: without onnx. (With onnxruntime: test_parity_onnx.py.)"""

import sys

import numpy as np
import onnx_numpy
import pytest
from onnx_models import LOOPS, Leaky

from numbarnn import activations, layers, models, ops, tree
from numbarnn.interop import to_onnx
from numbarnn.testing import assert_close


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", onnx_numpy)


def check(model, rng, *arrays, **options):
    for variable in model.weights:
        variable.assign(rng.uniform(0.1 if "variance" in variable.path else -0.7, 0.9, variable.shape))
    got = onnx_numpy.run(to_onnx(model, **options), *arrays)
    expected = model(arrays[0] if len(arrays) == 1 else list(arrays), training=False)
    for ours, theirs in zip(expected if isinstance(expected, list) else [expected], got, strict=True):
        assert ours.shape == theirs.shape
        assert_close(theirs, ours, 1e-5)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


CELLS = {
    "SimpleRNN": lambda **options: layers.SimpleRNN(4, activation="softsign", **options),
    "GRU": lambda **options: layers.GRU(4, **options),
    "GRU before": lambda **options: layers.GRU(4, reset_after=False, activation="elu", **options),
    "LSTM": lambda **options: layers.LSTM(4, activation="relu", recurrent_activation="hard_sigmoid", **options),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("bias", [False, True])
def test_recurrent_layers(name, bias, rng):
    x = layers.Input((None, 3))
    both = layers.Bidirectional(CELLS[name](return_sequences=True, use_bias=bias))(x)
    last = CELLS[name](go_backwards=True, return_state=True)(both)
    check(models.Model(x, last), rng, normal(rng, 2, 5, 3))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_masks_of_any_form(name, sequences, zero, rng):
    x, state = layers.Input((None, 3)), [layers.Input((4,)) for _ in range(2 if name == "LSTM" else 1)]
    layer = CELLS[name](return_sequences=sequences, zero_output_for_mask=zero, return_state=True)
    model = models.Model([x, *state], layer(layers.Masking()(x), initial_state=state))
    data = 1 + np.abs(normal(rng, 4, 5, 3))
    data[~np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)] = 0
    check(model, rng, data, *(normal(rng, 4, 4) for _ in state))


def test_words_to_classes(rng):
    stack = [layers.Embedding(9, 4, mask_zero=True), layers.Bidirectional(layers.GRU(3, return_sequences=True), "ave")]
    stack += [layers.LayerNormalization(), layers.Dropout(0.5), layers.TimeDistributed(layers.Dense(3, "gelu"))]
    stack += [layers.GlobalAveragePooling1D(), layers.BatchNormalization(), layers.Dense(2, "softmax")]
    check(models.Sequential(stack), rng, np.array([[1, 2, 0, 0], [3, 0, 4, 0], [8, 7, 6, 5]]))


def test_a_stateful_model_has_its_states_outside(rng):
    model = models.Sequential([layers.Input(batch_shape=(2, None, 3)), layers.LSTM(4, stateful=True)])
    made = to_onnx(model)
    names = [info.name for info in made.graph.input[1:]]
    assert [info.name for info in made.graph.output[1:]] == [f"{name}_next" for name in names] and len(names) == 2
    states = [np.zeros((2, 4), np.float32)] * 2
    for length in (3, 2):
        x = normal(rng, 2, length, 3)
        out, *states = onnx_numpy.run(made, x, *states)
        assert_close(out, model(x), 1e-5)
    for ours, theirs in zip(model.layers[0].states, states, strict=True):
        assert_close(theirs, ours, 1e-5)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_steps_that_are_repeated(name, sequences, backwards, masked, rng):
    x = layers.Input((None, 3))
    layer = LOOPS[name](return_sequences=sequences, go_backwards=backwards, return_state=True)
    model = models.Model(x, tree.leaves(layer(layers.Masking()(x) if masked else x)))
    data = normal(rng, 3, 5, 3)
    data[0, 3:] = data[1, 1::2] = data[2, :2] = 0
    check(model, rng, data)


def test_loops_in_both_directions_with_states_outside(rng):
    model = models.Sequential(
        [layers.Input(batch_shape=(2, None, 3)), layers.RNN(Leaky(4), return_sequences=True, stateful=True)]
    )
    model.add(layers.Bidirectional(layers.RNN(Leaky(2), zero_output_for_mask=True)))
    made = to_onnx(model)
    states = [np.zeros((2, 4), np.float32)] * 2
    for length in (3, 1, 2):
        x = normal(rng, 2, length, 3)
        out, *states = onnx_numpy.run(made, x, *states)
        assert_close(out, model(x), 1e-5)


class Sorting(layers.Layer):
    state_size = 3

    def call(self, inputs, states):
        return ops.sort(inputs + states[0]), [inputs]


def test_a_stateful_layer_with_an_initial_state(rng):
    x, h = layers.Input(batch_shape=(2, None, 3)), layers.Input(batch_shape=(2, 4))
    model = models.Model([x, h], layers.GRU(4, stateful=True)(x, initial_state=h))
    made = to_onnx(model)
    names = [info.name for info in made.graph.input[2:]]
    values = {name: np.ones(2, bool) if name == "fresh" else np.zeros((2, 4), np.float32) for name in names}
    assert len(values) == 2 and "fresh" in values
    first = normal(rng, 2, 4)
    for length in (3, 2):
        data = normal(rng, 2, length, 3)
        out, *after = onnx_numpy.run(made, data, first, *values.values())
        assert_close(out, model([data, first]), 1e-5)
        values = dict(zip(values, after, strict=True))


OTHERS = [
    layers.Flatten,
    lambda: layers.Reshape((2, -1, 2)),
    lambda: layers.Permute((2, 1)),
    layers.GlobalMaxPooling1D,
    lambda: layers.Lambda(lambda x: ops.clip(x[:, 1:, None, -1], -0.5, 0.5) * ops.cast(ops.any(x > 1), "float32")),
    *[
        lambda name=name: layers.Activation(name)
        for name in ("tanh", "silu", "selu", "mish", "hard_silu", "log_softmax")
    ],
]


@pytest.mark.parametrize("number", range(len(OTHERS)))
def test_other_layers(number, rng):
    x = layers.Input((4, 6))
    check(models.Model(x, OTHERS[number]()(x)), rng, normal(rng, 3, 4, 6))


def test_no_activation_is_left_out():
    names = set(activations.__all__) - {"deserialize", "get", "serialize", "threshold"}
    x = layers.Input((4,))
    for name in sorted(names):
        to_onnx(models.Model(x, layers.Activation(name)(x)))


@pytest.mark.parametrize(
    "merge", ["add", "subtract", "multiply", "average", "maximum", "minimum", "concatenate", "dot"]
)
def test_merging(merge, rng):
    a, b = layers.Input((3, 2)), layers.Input((3, 2))
    check(models.Model([a, b], getattr(layers, merge)([a, b])), rng, normal(rng, 2, 3, 2), normal(rng, 2, 3, 2))


def test_attention_and_a_repeated_vector(rng):
    x, y = layers.Input((None, 2)), layers.Input((2,))
    model = models.Model([x, y], layers.Attention()([layers.RepeatVector(3)(y), x]))
    check(model, rng, normal(rng, 2, 5, 2), normal(rng, 2, 2))


def test_names_axes_and_types_of_the_graph():
    source, more = layers.Input((None, 3), name="source"), layers.Input((None,), name="ids")
    read = layers.LSTM(4, name="read")(source)
    made = to_onnx(models.Model([source, more], [read, layers.Embedding(5, 2, name="look")(more)]), masked=True)
    assert [(info.name, info.dtype.name, info.shape) for info in made.graph.input] == [
        ("source", "float32", ["batch", "source_timesteps", 3]),
        ("ids", "int64", ["batch", "ids_timesteps"]),
        ("source_mask", "bool", ["batch", "source_timesteps"]),
        ("ids_mask", "bool", ["batch", "ids_timesteps"]),
    ]
    assert [info.name for info in made.graph.output] == ["read", "look"]
    assert {"read/lstm_cell/W", "read/lstm_cell/R", "read/lstm_cell/B"} <= set(made.graph.initializer)


def test_double_reversal_and_transposition_leave_nothing(rng):
    model = models.Sequential([layers.Input((None, 3)), layers.Bidirectional(layers.LSTM(4, return_sequences=True))])
    operators = [node.op_type for node in to_onnx(model).graph.node]
    assert "Slice" not in operators
    stack = models.Sequential([layers.Input((None, 3)), *[layers.GRU(4, return_sequences=True) for _ in range(3)]])
    assert [node.op_type for node in to_onnx(stack).graph.node].count("Transpose") == 2


@pytest.mark.parametrize(
    ("options", "operator"), [({}, "LSTM"), ({"activation": "gelu"}, "Scan"), ({"dtype": "float64"}, "Scan")]
)
def test_onnx_has_operators_for_what_it_knows(options, operator):
    x = layers.Input((None, 3), dtype=options.get("dtype"))
    layer = layers.LSTM(4, **options)
    operators = {node.op_type for node in to_onnx(models.Model(x, layer(x))).graph.node}
    assert operators & {"LSTM", "Scan"} == {operator}
    assert layer.kernel_path == "kernel"  # here nothing has changed


def test_what_cannot_be_said_is_refused(tmp_path):
    x, path = layers.Input((None, 3)), tmp_path / "model.onnx"
    for layer, words in [
        (layers.RNN(Sorting()), "'sort', called at .*test_onnx.py.*no counterpart"),
        (layers.Lambda(lambda x: ops.sort(x, axis=-1)), "'sort'.*no counterpart"),
    ]:
        with pytest.raises(ValueError, match=words):
            to_onnx(models.Model(x, layer(x)), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="pass `inputs`"):
        to_onnx(models.Sequential([layers.LSTM(3)]))
    with pytest.raises(TypeError, match="`model` must be"):
        to_onnx("model")


def test_without_onnx(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"numbarnn\[onnx\]"):
        to_onnx(models.Sequential([layers.Input((3,)), layers.Dense(2)]))
