"""Exported models in onnxruntime give what they give here: every layer, random stacks, masks, states."""

import itertools

import numpy as np
import pytest
from onnx_models import LOOPS, Leaky

from numbarnn import layers, models, ops, tree
from numbarnn.interop import to_onnx
from numbarnn.testing import assert_close
from numbarnn.utils import Ragged, pad

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5
CELLS = {
    "SimpleRNN": {},
    "GRU": {"reset_after": True},
    "GRU before": {"reset_after": False},
    "LSTM": {},
}


def make(name, units, **options):
    return getattr(layers, name.split()[0])(units, **CELLS[name], **options)


def randomize(model, rng):
    """Give every weight, biases and moving averages among them, a value that shows."""
    for variable in model.weights:
        low = 0.5 if "variance" in variable.path else -0.7
        variable.assign(rng.uniform(low, 0.9, variable.shape))


def session(proto):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options)


def run(proto, *arrays):
    opened = session(proto)
    names = [each.name for each in opened.get_inputs()]
    return opened.run(None, dict(zip(names, arrays, strict=True)))


def check(model, rng, *arrays, **options):
    """Compare on the arrays, then on a shorter batch of them."""
    randomize(model, rng)
    proto = to_onnx(model, **options)
    for given in (arrays, [array[:1] for array in arrays]):
        expected = model(given[0] if len(given) == 1 else list(given), training=False)
        expected = list(expected) if isinstance(expected, (list, tuple)) else [expected]
        got = run(proto, *given)
        assert len(got) == len(expected)
        for ours, theirs in zip(expected, got, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=TOLERANCE * max(1, np.abs(ours).max()))


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


ACTIVATIONS = ["tanh", "sigmoid", "relu", "softsign", "softplus", "linear", "elu", "hard_sigmoid"]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_cells(name, activation, rng):
    others = (
        {} if name == "SimpleRNN" else {"recurrent_activation": ACTIVATIONS[(ACTIVATIONS.index(activation) + 1) % 8]}
    )
    model = models.Sequential([layers.Input((None, 3)), make(name, 4, activation=activation, **others)])
    check(model, rng, 0.3 * normal(rng, 3, 4, 3))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(("sequences", "state", "backwards", "bias"), list(itertools.product((False, True), repeat=4)))
def test_options_of_recurrent_layers(name, sequences, state, backwards, bias, rng):
    layer = make(name, 4, return_sequences=sequences, return_state=state, go_backwards=backwards, use_bias=bias)
    x = layers.Input((None, 3))
    check(models.Model(x, layer(x)), rng, normal(rng, 2, 5, 3))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "ave", "mul", None])
@pytest.mark.parametrize("sequences", [False, True])
def test_both_directions(name, merge_mode, sequences, rng):
    x = layers.Input((None, 3))
    layer = layers.Bidirectional(make(name, 4, return_sequences=sequences, return_state=sequences), merge_mode)
    check(models.Model(x, layer(x)), rng, normal(rng, 2, 5, 3))


MASKS = {
    "right": [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
    "left": [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]],
    "scattered": [[0, 1, 0, 1, 0], [1, 0, 1, 1, 0]],
    "an empty row": [[0, 0, 0, 0, 0], [1, 1, 0, 0, 1]],
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("sequences", "zero", "backwards"), list(itertools.product((False, True), repeat=3)))
def test_masks(name, mask, sequences, zero, backwards, rng):
    mask = np.array(MASKS[mask], bool)
    options = {"return_sequences": sequences, "zero_output_for_mask": zero, "go_backwards": backwards}
    layer = make(name, 4, return_state=True, **options)
    x, h = layers.Input((None, 3)), [layers.Input((4,)) for _ in range(1 + (name == "LSTM"))]
    model = models.Model([x, *h], layer(layers.Masking()(x), initial_state=h))
    data = np.where(mask[..., None], 1 + np.abs(normal(rng, 2, 5, 3)), 0).astype(np.float32)
    check(model, rng, data, *(normal(rng, 2, 4) for _ in h))


@pytest.mark.parametrize("name", CELLS)
def test_a_mask_that_comes_with_the_input(name, rng):
    model = models.Sequential(
        [
            layers.Input((None, 3)),
            layers.Bidirectional(make(name, 4, return_sequences=True)),
            layers.RNN([layers.LSTMCell(5), layers.GRUCell(3)], return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )
    randomize(model, rng)
    sequences = Ragged([normal(rng, length, 3) for length in (4, 1, 6)])
    padded, mask = pad(sequences)
    (got,) = run(to_onnx(model, masked=True), padded, mask)
    for row, expected in zip(got, model.predict(sequences, verbose=0), strict=True):
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=0, atol=TOLERANCE)


def test_ids_of_words_with_padding(rng):
    model = models.Sequential(
        [
            layers.Embedding(9, 4, mask_zero=True),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    check(model, rng, np.array([[1, 2, 0, 0], [3, 0, 4, 0], [8, 7, 6, 5]]))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_the_type_of_ids(dtype, rng):
    x = layers.Input((None,), dtype=dtype)
    model = models.Model(x, layers.GRU(3)(layers.Embedding(9, 4)(x)))
    check(model, rng, np.array([[1, 2], [8, 7]], "int64" if dtype == "float32" else dtype))


@pytest.mark.parametrize("name", CELLS)
def test_a_stateful_model_streams(name, rng):
    model = models.Sequential(
        [
            layers.Input(batch_shape=(2, None, 3)),
            make(name, 4, return_sequences=True, stateful=True),
            layers.Bidirectional(layers.GRU(3, stateful=True)),
            layers.Dense(2),
        ]
    )
    randomize(model, rng)
    proto = to_onnx(model)
    opened = session(proto)
    first, *states = opened.get_inputs()
    assert [f"{each.name}_next" for each in states] == [each.name for each in opened.get_outputs()[1:]]
    values = {each.name: np.zeros(each.shape, np.float32) for each in states}
    for length in (3, 1, 4):
        x = normal(rng, 2, length, 3)
        out, *after = opened.run(None, {first.name: x, **values})
        np.testing.assert_allclose(out, model(x), rtol=0, atol=TOLERANCE)
        values = dict(zip(values, after, strict=True))
    for value, expected in zip(values.values(), [s for layer in model.layers[:2] for s in layer.states], strict=True):
        np.testing.assert_allclose(value, expected, rtol=0, atol=TOLERANCE)


def test_states_in_and_out(rng):
    x, h, c = layers.Input((1, 3)), layers.Input((4,), name="h"), layers.Input((4,), name="c")
    model = models.Model([x, h, c], layers.LSTM(4, return_state=True)(x, initial_state=[h, c]))
    check(model, rng, normal(rng, 2, 1, 3), normal(rng, 2, 4), normal(rng, 2, 4))


LAYERS = {
    "dense": lambda: layers.Dense(4, activation="relu"),
    "batch normalization": layers.BatchNormalization,
    "batch normalization of steps": lambda: layers.BatchNormalization(axis=1),
    "layer normalization": layers.LayerNormalization,
    "layer normalization of two axes": lambda: layers.LayerNormalization(axis=[1, 2], scale=False),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial dropout": lambda: layers.SpatialDropout1D(0.5),
    "flatten": layers.Flatten,
    "reshape": lambda: layers.Reshape((3, -1, 2)),
    "permute": lambda: layers.Permute((2, 1)),
    "average": layers.GlobalAveragePooling1D,
    "maximum": lambda: layers.GlobalMaxPooling1D(keepdims=True),
    "time distributed": lambda: layers.TimeDistributed(layers.Dense(3)),
    "attention": None,
    "identity": layers.Identity,
    "lambda": lambda: layers.Lambda(lambda x: ops.concatenate([x[:, ::2], -x[:, -1:, :]], 1) / 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_other_layers(name, rng):
    x = layers.Input((6, 4))
    y = layers.Attention(use_scale=True)([x, x]) if name == "attention" else LAYERS[name]()(x)
    check(models.Model(x, y), rng, normal(rng, 2, 6, 4))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "merge", ["add", "subtract", "multiply", "average", "maximum", "minimum", "concatenate", "dot"]
)
def test_merging(merge, masked, rng):
    a, b = layers.Input((5, 3)), layers.Input((5, 3))
    first = layers.Masking()(a) if masked else a
    y = getattr(layers, merge)([first, layers.LSTM(3, return_sequences=True)(b)])
    data = normal(rng, 2, 5, 3)
    data[0, 1:3] = 0
    check(models.Model([a, b], y), rng, data, normal(rng, 2, 5, 3))


def activation_names():
    from numbarnn import activations

    return [n for n in activations.__all__ if n not in ("deserialize", "get", "serialize", "threshold", "glu")]


@pytest.mark.parametrize("name", activation_names())
def test_activations_outside_of_cells(name, rng):
    model = models.Sequential([layers.Input((4,)), layers.Activation(name)])
    check(model, rng, np.concatenate([normal(rng, 5, 4), np.array([[-4, 0, 4, 9]], np.float32)]))


def test_an_encoder_and_a_decoder(rng):
    source, given = layers.Input((None,), name="source"), layers.Input((None, 3), name="given")
    _, h, c = layers.LSTM(5, return_state=True)(layers.Embedding(11, 4, mask_zero=True)(source))
    again = layers.RepeatVector(2)(h)
    read = layers.LSTM(5, return_sequences=True)(given, initial_state=[h, c])
    shared = layers.Dense(3)
    model = models.Model([source, given], {"a": shared(read), "b": shared(again), "c": ops.tanh(c) * 2})
    randomize(model, rng)
    ids, x = np.array([[1, 2, 3, 0], [4, 0, 0, 0]]), normal(rng, 2, 6, 3)
    proto = to_onnx(model)
    expected = model([ids.astype(np.float32), x])
    for ours, theirs in zip(expected.values(), run(proto, ids, x), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=TOLERANCE)


def random_model(rng):
    """A stack of recurrent and other layers."""
    options = lambda: {"return_sequences": True, "use_bias": bool(rng.integers(2))}  # noqa: E731
    names = list(CELLS)

    def recurrent():
        units, name = int(rng.integers(1, 20)), names[rng.integers(4)]
        kind = rng.integers(3)
        if kind == 0:
            return make(name, units, go_backwards=bool(rng.integers(2)), **options())
        if kind == 1:
            mode = ["concat", "sum", "ave", "mul"][rng.integers(4)]
            return layers.Bidirectional(make(name, units, **options()), mode)
        cells = [getattr(layers, f"{n.split()[0]}Cell")(units, **CELLS[n]) for n in rng.choice(names, 2)]
        return layers.RNN(cells, return_sequences=True, go_backwards=bool(rng.integers(2)))

    others = [
        lambda: layers.Dense(int(rng.integers(1, 9)), activation="tanh"),
        layers.LayerNormalization,
        layers.BatchNormalization,
        lambda: layers.Dropout(0.3),
        lambda: layers.TimeDistributed(layers.Dense(3, activation="gelu")),
        lambda: layers.Activation("silu"),
    ]
    stack = [layers.Input((None, int(rng.integers(1, 9))))]
    if rng.integers(2):
        stack.append(layers.Masking())
    for _ in range(rng.integers(1, 5)):
        stack.append(recurrent())
        if rng.integers(2):
            stack.append(others[rng.integers(len(others))]())
    if rng.integers(2):
        stack.append(layers.GlobalAveragePooling1D())
    return models.Sequential(stack)


@pytest.mark.parametrize("seed", range(40))
def test_random_models(seed):
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    x = normal(rng, int(rng.integers(1, 6)), int(rng.integers(1, 12)), model.input_shape[-1])
    x[rng.random(x.shape[:2]) < 0.3] = 0
    x[:, 0] = 1  # no row is masked whole: its average would be NaN
    check(model, rng, x)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("masked", [False, True])
def test_float64(name, masked, rng):
    """Onnxruntime has no recurrent operators in float64: these become loops."""
    x = layers.Input((None, 3), dtype="float64")
    read = layers.Bidirectional(make(name, 4, dtype="float64"), dtype="float64")
    y = read(layers.Masking(dtype="float64")(x) if masked else x)
    model = models.Model(x, layers.Dense(2, activation="tanh", dtype="float64")(y))
    randomize(model, rng)
    data = rng.standard_normal((2, 5, 3))
    data[0, 2:] = 0
    (got,) = run(to_onnx(model), data)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, model(data), rtol=0, atol=1e-12)


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
        out, *states = run(made, x, *states)
        assert_close(out, model(x), 1e-5)


def test_loops_in_float64(rng):
    x = layers.Input((None, 3), dtype="float64")
    model = models.Model(x, layers.RNN(Leaky(4, dtype="float64"), dtype="float64")(x))
    randomize(model, rng)
    data = rng.standard_normal((2, 5, 3))
    (got,) = run(to_onnx(model), data)
    np.testing.assert_allclose(got, model(data), rtol=0, atol=1e-12)


def test_what_cannot_be_said_is_refused(tmp_path):
    x = layers.Input((None, 3))
    path = tmp_path / "model.onnx"
    for layer, words in [
        (layers.Lambda(lambda x: ops.sort(x, axis=-1)), "'sort'.*no counterpart"),
    ]:
        with pytest.raises(ValueError, match=words):
            to_onnx(models.Model(x, layer(x)), path)
    assert not path.exists()
    with pytest.raises(ValueError, match="build it"):
        to_onnx(models.Sequential([layers.LSTM(3)]))
    with pytest.raises(TypeError, match="`model` must be"):
        to_onnx("model")


def test_files_and_models_that_do_not_know_their_inputs(tmp_path, rng):
    import onnx

    class Reader(models.Model):
        def __init__(self):
            super().__init__()
            self.read, self.head = layers.GRU(4), layers.Dense(2)

        def call(self, inputs):
            return self.head(self.read(inputs))

    model, path = Reader(), tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="pass `inputs`"):
        to_onnx(model)
    made = to_onnx(model, path, inputs=layers.Input((None, 3), name="x"))
    assert onnx.load(path) == made
    data = normal(rng, 2, 5, 3)
    np.testing.assert_allclose(run(onnx.load(path), data)[0], model(data), rtol=0, atol=TOLERANCE)
    assert any(each.name.endswith("gru_cell/W") for each in made.graph.initializer)
    layer = layers.Bidirectional(layers.LSTM(3))
    x = layers.Input((None, 3))
    made = to_onnx(layer, inputs=x)
    np.testing.assert_allclose(run(made, data)[0], layer(data), rtol=0, atol=TOLERANCE)
