"""PyTorch's weights, without PyTorch: its equations in NumPy, its names, what is refused."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from numbarnn import layers, models
from numbarnn.interop.torch import from_torch, load_torch, to_torch
from numbarnn.testing import assert_close

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step(kind, x, h, c, w_ih, w_hh, b_ih=0.0, b_hh=0.0):
    """One step as PyTorch's documentation has it."""
    a, b = w_ih @ x + b_ih, w_hh @ h + b_hh
    if kind == "RNN":
        return np.tanh(a + b), c
    if kind == "GRU":
        (ar, az, an), (br, bz, bn) = np.split(a, 3), np.split(b, 3)
        r, z = sigmoid(ar + br), sigmoid(az + bz)
        return (1 - z) * np.tanh(an + r * bn) + z * h, c
    i, f, g, o = np.split(a + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def run(kind, x, state, depth, bidirectional):
    """Run a whole module over one sequence (timesteps, features)."""
    for level in range(depth):
        outputs = []
        for end in ("", "_reverse")[: 1 + bidirectional]:
            names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            weights = [state[f"{name}_l{level}{end}"] for name in names if f"{name}_l{level}{end}" in state]
            h = c = np.zeros(weights[1].shape[1])
            rows = []
            for row in x[::-1] if end else x:
                h, c = step(kind, row, h, c, *weights)
                rows.append(h)
            outputs.append(np.array(rows[::-1] if end else rows))
        x = np.concatenate(outputs, -1)
    return x


def weights(rng, kind, features=3, units=4, depth=1, bidirectional=False, bias=True, dtype="float64"):
    state, rows = {}, GATES[kind] * units
    for level in range(depth):
        width = features if level == 0 else units * (1 + bidirectional)
        for end in ("", "_reverse")[: 1 + bidirectional]:
            state[f"weight_ih_l{level}{end}"] = rng.standard_normal((rows, width)).astype(dtype)
            state[f"weight_hh_l{level}{end}"] = rng.standard_normal((rows, units)).astype(dtype)
            if bias:
                state[f"bias_ih_l{level}{end}"] = rng.standard_normal(rows).astype(dtype)
                state[f"bias_hh_l{level}{end}"] = rng.standard_normal(rows).astype(dtype)
    return state


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("depth", "bidirectional", "bias"), [(1, False, True), (2, True, True), (2, False, False)])
def test_a_module_computes_what_pytorch_documents(kind, depth, bidirectional, bias, rng):
    state = weights(rng, kind, depth=depth, bidirectional=bidirectional, bias=bias)
    model = from_torch(state)
    x = rng.standard_normal((2, 5, 3))
    expected = np.stack([run(kind, row, state, depth, bidirectional) for row in x])
    assert len(model.layers) == depth
    assert_close(model(x), expected, 1e-10)


@pytest.mark.parametrize("kind", GATES)
def test_weights_come_out_as_they_came_in(kind, rng):
    state = weights(rng, kind, depth=2, bidirectional=True)
    again = to_torch(from_torch(state))
    assert list(again) == list(state)
    for name, array in state.items():
        if kind == "GRU" or not name.startswith("bias"):
            np.testing.assert_array_equal(again[name], array)
        elif name.startswith("bias_ih"):  # one bias here: the sum, and zero
            other = name.replace("bias_ih", "bias_hh")
            np.testing.assert_array_equal(again[name], array + state[other])
            np.testing.assert_array_equal(again[other], 0 * array)


def test_a_file_with_several_modules(tmp_path, rng):
    state = {f"encoder.rnn.{name}": array for name, array in weights(rng, "GRU", dtype="float32").items()}
    state |= {"head.weight": np.ones((2, 4), np.float32), "head.bias": np.arange(2, dtype=np.float32)}
    state |= {"words.weight": rng.standard_normal((7, 3)).astype(np.float32)}
    state |= {"norm.weight": np.full(4, 2.0, np.float32), "norm.bias": np.full(4, 3.0, np.float32)}
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    words, norm, head = layers.Embedding(7, 3), layers.LayerNormalization(epsilon=1e-5), layers.Dense(2)
    rnn = from_torch(path, prefix="encoder.rnn", return_sequences=False)
    load_torch({"words": words, "norm": norm, "head": head}, path, strict=False)
    np.testing.assert_array_equal(words.embeddings, state["words.weight"])
    model = models.Sequential([words, rnn, norm, head])
    ids = np.array([[1, 2, 6, 0]])
    h = run("GRU", state["words.weight"][ids[0]], {n.removeprefix("encoder.rnn."): a for n, a in state.items()}, 1, 0)
    normal = (h[-1] - h[-1].mean()) / np.sqrt(h[-1].var() + 1e-5)
    assert_close(model(ids), ((normal * 2 + 3) @ np.ones((4, 2)) + [0, 1])[None], 1e-5)
    modules = {"words": words, "encoder": {"rnn": rnn}, "norm": norm, "head": head}
    again = to_torch(modules, tmp_path / "again.safetensors")
    assert again.keys() == state.keys()
    for name, array in load_file(tmp_path / "again.safetensors").items():
        np.testing.assert_array_equal(array, state[name])


def test_a_stack_of_cells_is_one_module(rng):
    state = weights(rng, "LSTM", depth=2)
    stack = layers.RNN([layers.LSTMCell(4), layers.LSTMCell(4)], return_sequences=True)
    load_torch(stack, state)
    x = rng.standard_normal((1, 5, 3))
    assert_close(stack(x), run("LSTM", x[0], state, 2, False)[None], 1e-5)
    assert to_torch(stack).keys() == state.keys()


def test_relu_and_prefixes_of_other_modules(rng):
    state = {f"a.{n}": v for n, v in weights(rng, "RNN").items()} | {"b.anything": np.ones(3)}
    assert from_torch(state, "a.", nonlinearity="relu").layers[0].activation.__name__ == "relu"
    with pytest.raises(ValueError, match=r"No recurrent module.*\['a\.'\]"):
        from_torch(state)


def lstm(**options):
    layer = layers.LSTM(4, **{"return_sequences": True, **options})
    layer.build((None, None, 3))
    return layer


def gru(**options):
    layer = layers.GRU(4, **options)
    layer.build((None, None, 4))
    return layer


def both(**options):
    layer = layers.Bidirectional(layers.LSTM(4), **options)
    layer.build((None, None, 3))
    return layer


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lstm(activation="relu"), "computes something that PyTorch does not"),
        (lambda: gru(reset_after=False), "computes something that PyTorch does not"),
        (lambda: lstm(go_backwards=True), "goes backwards"),
        (lambda: both(merge_mode="sum"), "merge_mode"),
        (lambda: layers.LSTM(4), "no weights yet"),
        (lambda: [lstm(), gru()], "one kind of cell"),
        (lambda: [lstm(return_sequences=False), lstm()], "return_sequences=True"),
    ],
)
def test_what_pytorch_does_not_have_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        to_torch(make())


def test_layers_without_a_counterpart_are_refused():
    for modules in ([layers.Dense(3)], layers.Dropout(0.5), models.Sequential([lstm(), layers.Dense(2)])):
        with pytest.raises(TypeError, match="PyTorch"):
            to_torch(modules)
    with pytest.raises(ValueError, match=r"\.safetensors"):
        to_torch(lstm(), "weights.pt")


def test_weights_that_do_not_fit_change_nothing(rng):
    layer = lstm()
    before = layer.get_weights()
    good = weights(rng, "LSTM")
    wrong = [
        ({**good, "bias_hh_l0": np.ones(3)}, "bias_hh_l0 must have shape"),
        ({n: v for n, v in good.items() if n != "bias_hh_l0"}, "lacks"),
        ({**good, "weight_ih_l1": np.ones((16, 4))}, "no layer takes"),
    ]
    for state, words in wrong:
        with pytest.raises(ValueError, match=words):
            load_torch(layer, state)
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_pickles_projections_and_other_things_are_refused(tmp_path, rng):
    with pytest.raises(ValueError, match="pickle.*safetensors.torch.save_file"):
        from_torch("model.pt")
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no safetensors file"):
        from_torch(tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="proj_size"):
        from_torch({**weights(rng, "LSTM"), "weight_hr_l0": np.ones((2, 4))})
    with pytest.raises(ValueError, match="nonlinearity"):
        from_torch(weights(rng, "RNN"), nonlinearity="gelu")
    with pytest.raises(ValueError, match="1, 3 or 4 times"):
        from_torch({"weight_ih_l0": np.ones((8, 3)), "weight_hh_l0": np.ones((8, 4))})
    with pytest.raises(ValueError, match="`nonlinearity` is for an nn.RNN, and this is an nn.LSTM"):
        from_torch(weights(rng, "LSTM"), nonlinearity="relu")
    with pytest.raises(TypeError, match="state_dict"):
        from_torch([1, 2])


def test_names_that_do_not_belong_to_a_module_are_refused(rng):
    """There is no `strict` to be given up: they are said to be in the way of what the first layer shows."""
    good = weights(rng, "LSTM")
    for other, name, words in (
        ({**good, "fc.weight": np.ones((2, 4))}, "fc.weight", "1 layers .* in one direction, with biases"),
        ({n: v for n, v in good.items() if n != "bias_ih_l0"}, "bias_hh_l0", "without biases"),
    ):
        with pytest.raises(ValueError, match=f"does not belong .*{words}") as caught:
            from_torch(other)
        assert name in str(caught.value) and "strict" not in str(caught.value)


def test_weights_of_whole_numbers(rng):
    state = {name: np.sign(value).astype("int64") for name, value in weights(rng, "GRU").items()}
    x = rng.normal(size=(2, 5, 3)).astype("f4")
    floats = {name: value.astype("f4") for name, value in state.items()}
    np.testing.assert_array_equal(from_torch(state)(x), from_torch(floats)(x))
