"""Models go through files: everything comes back, and training goes on as if it had not stopped."""

import json
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

import numbarnn
from numbarnn import layers, models, ops, saving
from numbarnn.layers import Input
from numbarnn.models import Model, Sequential, load_model
from numbarnn.models.saving import read_training_state, write_training_state
from numbarnn.utils import set_random_seed


def bits(model):
    """Return all that training changes, to compare."""
    weights, state = model._named_variables()
    own = {} if not model.compiled else {str(i): v for i, v in enumerate(model.optimizer.variables)}
    return {(kind, name): v.numpy() for kind, named in enumerate((weights, state, own)) for name, v in named.items()}


def assert_same(first, second):
    a, b = bits(first), bits(second)
    assert list(a) == list(b) and a
    for key, value in a.items():
        assert value.dtype == b[key].dtype, key
        np.testing.assert_array_equal(value, b[key], err_msg=str(key))


def trained(rng, **options):
    """Return a small model that has trained for two epochs, and its data."""
    model = Sequential(
        [Input((4, 3)), layers.LSTM(3, dropout=0.2, recurrent_dropout=0.1), layers.Dropout(0.2), layers.Dense(1)]
    )
    model.compile(numbarnn.optimizers.Adam(0.05), "mse", metrics=["mae"])
    data = rng.normal(size=(8, 4, 3)).astype("f4"), rng.normal(size=(8, 1)).astype("f4")
    model.fit(*data, batch_size=4, epochs=2, verbose=0, **options)
    return model, data


# ---------------------------------------------------------------------------------------------------------------
# whole models


def test_a_model_comes_back(rng, tmp_path):
    model, (x, y) = trained(rng)
    path = tmp_path / "m.numbarnn"
    model.save(path)
    twin = load_model(path)
    assert_same(model, twin)
    np.testing.assert_array_equal(model.predict(x, verbose=0), twin.predict(x, verbose=0))
    histories = [m.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0).history for m in (model, twin)]
    assert histories[0] == histories[1]
    assert_same(model, twin)
    assert [p.name for p in tmp_path.iterdir()] == ["m.numbarnn"]
    # others' names for the same
    for load in (numbarnn.load_model, saving.load_model, models.load_model):
        assert load(str(path)).compiled
    plain = load_model(path, compile=False)
    assert not plain.compiled
    np.testing.assert_array_equal(plain.get_weights()[0], load_model(path).get_weights()[0])
    model.save(path, include_optimizer=False)
    assert not load_model(path).compiled


def test_what_is_in_the_file(rng, tmp_path):
    model, _ = trained(rng)
    model.save(tmp_path / "m.numbarnn")
    with zipfile.ZipFile(tmp_path / "m.numbarnn") as archive:
        names = set(archive.namelist())
        tensors = load_tensors(archive.read("weights.safetensors"))
        metadata = json.loads(archive.read("metadata.json"))
        assert json.loads(archive.read("config.json"))["class_name"] == "Sequential"
    assert names == {
        *("metadata.json", "config.json", "optimizer.json"),
        *("weights.safetensors", "state.safetensors", "optimizer.safetensors"),
    }
    assert metadata["numbarnn_version"] == numbarnn.__version__
    np.testing.assert_array_equal(tensors["layers/0/cell/recurrent_kernel"], model.layers[0].cell.recurrent_kernel)


def test_loading_draws_no_first_values(rng, tmp_path, monkeypatch):
    model, _ = trained(rng)
    model.save(tmp_path / "m.numbarnn")
    monkeypatch.setattr(numbarnn.initializers.Orthogonal, "__call__", lambda *args, **kwargs: 1 / 0)  # takes its time
    assert_same(load_model(tmp_path / "m.numbarnn"), model)
    with pytest.raises(ZeroDivisionError):
        layers.LSTM(3).build((None, 4, 3))


class Net(Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.parts = {"table": layers.Embedding(5, units), "rnns": [layers.GRU(units), layers.GRU(units)]}

    def call(self, ids):
        x = self.parts["table"](ids)
        return self.parts["rnns"][0](x) + self.parts["rnns"][1](x)


def test_models_of_every_kind(rng, tmp_path):
    x = Input((4, 3), name="x")
    head = layers.Dense(3, name="head")
    within = Sequential([Input((4, 3)), layers.SimpleRNN(3, return_sequences=True)], name="within")
    out, h, c = layers.LSTM(3, return_sequences=True, return_state=True)(within(x) + head(head(x)))
    functional = Model({"x": x}, ({"out": out, "last": out[:, -1]}, [h, c]))
    values = {"x": rng.normal(size=(2, 4, 3)).astype("f4")}
    functional.save(tmp_path / "f.numbarnn")
    twin = load_model(tmp_path / "f.numbarnn")
    first, second = functional.predict(values, verbose=0), twin.predict(values, verbose=0)
    assert type(second) is tuple and type(second[1]) is list  # not what JSON makes of it
    np.testing.assert_array_equal(first[0]["last"], second[0]["last"])
    np.testing.assert_array_equal(first[1][1], second[1][1])
    assert_same(functional, twin)

    ids = np.array([[1, 2, 4], [0, 3, 3]])
    net = Net(3)
    net(ids)
    net.save(tmp_path / "n.numbarnn")
    twin = load_model(tmp_path / "n.numbarnn", {"Net": Net})
    np.testing.assert_array_equal(net(ids), twin(ids))
    assert list(net._named_variables()[0])[:2] == ["parts/table/embeddings", "parts/rnns/0/cell/kernel"]
    with saving.custom_object_scope({"Net": Net}):
        assert load_model(tmp_path / "n.numbarnn").units == 3
    with pytest.raises(ValueError, match=r"n.numbarnn cannot be loaded.*Could not locate class 'Net'"):
        load_model(tmp_path / "n.numbarnn")

    cell = layers.GRUCell(3)
    shared = Sequential([Input((4, 3)), layers.RNN(cell, return_sequences=True), layers.RNN(cell)])
    shared.save(tmp_path / "s.numbarnn")
    twin = load_model(tmp_path / "s.numbarnn")
    assert twin.layers[0].cell is twin.layers[1].cell
    assert_same(shared, twin)

    unbuilt = Sequential([layers.LSTM(2)])
    unbuilt.save(tmp_path / "u.numbarnn")
    assert not load_model(tmp_path / "u.numbarnn").built


def test_states_of_stateful_layers_go_on(rng, tmp_path):
    x = rng.normal(size=(2, 3, 2)).astype("f4")
    cells = [layers.LSTMCell(2), layers.GRUCell(2)]
    model = Sequential(
        [
            Input(batch_shape=(2, 3, 2)),
            layers.Bidirectional(layers.GRU(2, stateful=True, return_sequences=True)),
            layers.RNN(cells, stateful=True),
        ]
    )
    model.predict(x, batch_size=2, verbose=0)
    model.layers[1].reset_states(mask=np.array([True, False]))
    model.save(tmp_path / "m.numbarnn")
    twin = load_model(tmp_path / "m.numbarnn")
    assert_same(model, twin)
    initial = model.layers[1].states
    for _ in range(2):
        np.testing.assert_array_equal(
            model.predict(x, batch_size=2, verbose=0), twin.predict(x, batch_size=2, verbose=0)
        )
    assert any(not np.array_equal(a, b) for a, b in zip(initial[0], model.layers[1].states[0], strict=True))


TYPES = {
    "float64": np.array([np.pi, np.nan, -np.inf, 5e-324]),
    "float16": np.array([[1.5, -0.0]], "f2"),
    "bool": np.array([True, False, True]),
    "int8": np.array([-128, 127], "i1"),
    "int64": np.array([[2**62 + 1]]),
    "uint32": np.array([2**32 - 1], "u4"),
}


@pytest.mark.parametrize("name", [*TYPES, "scalar", "empty", "no axes but none"])
def test_variables_of_every_type(name, tmp_path):
    value = TYPES.get(name, {"scalar": np.float32(2.5), "empty": np.zeros((3, 0), "f4")}.get(name, np.zeros(0, "i4")))

    class Holder(layers.Layer):
        def build(self, shape):
            value_of = lambda shape, dtype=None: np.zeros(shape, dtype)  # noqa: E731
            self.held = self.add_weight(
                shape=np.shape(value),
                dtype=np.asarray(value).dtype.name,
                initializer=value_of,
                trainable=False,
                name="v",
            )

        def call(self, x):
            return x

    model = Sequential([Input((2,)), Holder()])
    model.layers[0].held.assign(value)
    model.save(tmp_path / "m.numbarnn")
    found = load_model(tmp_path / "m.numbarnn", {"Holder": Holder}).layers[0].held
    assert found.shape == np.shape(value) and found.dtype == np.asarray(value).dtype
    assert found.numpy().tobytes() == np.asarray(value).tobytes()  # NaN, and -0, too


def test_arrays_as_they_may_lie_in_memory():
    from numbarnn.models.archive import arrays_of, bytes_of

    x = np.arange(24.0).reshape(4, 6)
    arrays = {
        "transposed": x.T, "strided": x[::-1, ::2], "fortran": np.asfortranarray(x), "big": x.astype(">f8"),
        "broadcast": np.broadcast_to(np.float32(3), (2, 5)), "scalar": np.array(7, ">i2"), "empty": x[:0],
    }  # fmt: skip
    found = arrays_of(bytes_of(arrays), "x")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].shape == array.shape and found[name].dtype == array.dtype.newbyteorder("=")
    assert arrays_of(bytes_of({}), "x") == {}


@pytest.mark.parametrize("name, copies", [("m.numbarnn", 0.2), ("m.keras", 1.5)])
def test_saving_needs_no_copies_of_the_weights(tmp_path, name, copies):
    model = Sequential([Input((600,)), layers.Dense(600)])
    model.compile("adam", "mse")
    model.train_on_batch(np.ones((1, 600), "float32"), np.ones((1, 600), "float32"))
    model.save(tmp_path / name)  # imports what it needs
    size = sum(v.numpy().nbytes for v in (*model.weights, *model.optimizer.variables))
    tracemalloc.start()
    try:
        model.save(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < copies * size
    finally:
        tracemalloc.stop()


# ---------------------------------------------------------------------------------------------------------------
# training goes on


PROGRAM = """
import sys
import numpy as np
import numbarnn
from numbarnn import layers, models, utils

folder, part = sys.argv[1:]
rng = np.random.default_rng(0)
x, y = rng.normal(size=(8, 5, 3)).astype("f4"), rng.normal(size=(8, 1)).astype("f4")

def make():
    i = layers.Input(batch_shape=(4, 5, 3))
    h = layers.LSTM(3, return_sequences=True, stateful=True, dropout=0.2, recurrent_dropout=0.1)(i)
    h = layers.Dropout(0.3)(layers.BatchNormalization()(h))
    model = models.Model(i, layers.Dense(1)(layers.GRU(2, implementation=1, dropout=0.3)(h)))
    model.compile(numbarnn.optimizers.Adam(0.05, global_clipnorm=0.5), "mse", metrics=["mae"])
    return model

if part == "after":
    model = models.load_model(folder + "/m.numbarnn")
else:
    utils.set_random_seed(5)
    model = make()
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    if part == "before":
        model.save(folder + "/m.numbarnn")
        sys.exit()
losses = model.fit(x, y, batch_size=4, initial_epoch=2, epochs=4, verbose=0).history["loss"]
states = [state.numpy() for state in model._named_variables()[1].values()]
np.savez(f"{folder}/{part}.npz", losses, *model.get_weights(), *states, *[v.numpy() for v in model.optimizer.variables])
"""


def test_training_goes_on_in_another_process_bit_for_bit(tmp_path):
    for part in ("whole", "before", "after"):
        command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path), part]
        done = subprocess.run(command, cwd=Path(numbarnn.__file__).parents[1], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    whole, after = (np.load(tmp_path / f"{part}.npz") for part in ("whole", "after"))
    assert len(whole.files) == len(after.files) > 30
    for name in whole.files:
        np.testing.assert_array_equal(whole[name], after[name], err_msg=name)
    assert len(set(whole["arr_0"])) == 2


def test_a_training_state_is_put_back(rng, tmp_path):
    model, (x, y) = trained(rng, shuffle=False)
    path = tmp_path / "state"
    write_training_state(model, path, {"epoch": 2, "logs": {"loss": 0.1}})
    before = bits(model)
    expected = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
    after = bits(model)
    assert read_training_state(model, path) == {"epoch": 2, "logs": {"loss": 0.1}}
    assert all(np.array_equal(value, bits(model)[key]) for key, value in before.items())
    assert model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history == expected
    assert all(np.array_equal(value, bits(model)[key]) for key, value in after.items())
    write_training_state(model, path)
    assert read_training_state(model, path) == {}

    other = Sequential([Input((4, 3)), layers.LSTM(3, dropout=0.2), layers.Dense(2)])
    other.compile("adam", "mse")
    kept = bits(other)
    with pytest.raises(ValueError, match="does not fit model.*nothing was loaded"):
        read_training_state(other, path)
    assert all(np.array_equal(value, bits(other)[key]) for key, value in kept.items())
    with pytest.raises(ValueError, match="compile model"):
        read_training_state(Sequential([Input((4, 3)), layers.Dense(1)]), path)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="does not fit the optimizer"):
        read_training_state(model, path)


def test_the_optimizer_keeps_its_order(rng, tmp_path):
    # what was frozen at first comes last, though it is first in the model
    model, (x, y) = trained(rng)
    frozen = Sequential([Input((4, 3)), layers.LSTM(3), layers.Dense(1)])
    frozen.layers[0].trainable = False
    frozen.compile(numbarnn.optimizers.Adam(0.1, global_clipnorm=0.1), "mse")
    frozen.fit(x, y, verbose=0)
    frozen.layers[0].trainable, frozen.layers[1].trainable = True, False
    frozen.fit(x, y, verbose=0)
    frozen.save(tmp_path / "m.numbarnn")
    twin = load_model(tmp_path / "m.numbarnn")
    assert_same(frozen, twin)
    assert [v.shape for v in twin.optimizer._built_for] == [(3, 1), (1,), (3, 12), (3, 12), (12,)]
    model.optimizer.build([*model.trainable_variables, numbarnn.Variable(np.ones(2, "f4"), name="alien")])
    with pytest.raises(ValueError, match=r"not the model's.*alien.*include_optimizer=False"):
        model.save(tmp_path / "m.numbarnn")
    assert_same(frozen, load_model(tmp_path / "m.numbarnn"))  # nothing was written
    model.save(tmp_path / "m.numbarnn", include_optimizer=False)


# ---------------------------------------------------------------------------------------------------------------
# weights


def test_weights_go_by_structure(rng, tmp_path):
    path = tmp_path / "a.weights.numbarnn"

    def make(**options):
        return Sequential([Input((4, 3)), layers.LSTM(3, dropout=0.5), layers.Dense(1)], **options)

    model, twin = make(name="one"), make(name="two")
    model.save_weights(path)
    seeds = [v.numpy() for v in twin._named_variables()[1].values()]
    twin.load_weights(path)
    assert all(map(np.array_equal, model.get_weights(), twin.get_weights()))
    assert all(map(np.array_equal, seeds, [v.numpy() for v in twin._named_variables()[1].values()]))
    model.save(tmp_path / "m.numbarnn")
    third = make()
    third.load_weights(tmp_path / "m.numbarnn")  # those of a whole model
    assert all(map(np.array_equal, model.get_weights(), third.get_weights()))


def test_weights_that_do_not_fit(rng, tmp_path):
    path = str(tmp_path / "a.weights.numbarnn")
    model = Sequential([Input((4, 3)), layers.LSTM(3), layers.Dense(1)])
    model.save_weights(path)
    other = Sequential([Input((4, 3)), layers.LSTM(3), layers.Dense(2), layers.Dense(1)])
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"layers/1/kernel' has shape \(3, 1\), the model's \(3, 2\).*layers/2"):
        other.load_weights(path)
    assert all(map(np.array_equal, before, other.get_weights()))
    with pytest.warns(UserWarning, match="Not loaded.*layers/1/kernel"):
        other.load_weights(path, skip_mismatch=True)
    for number, (mine, was, saved) in enumerate(zip(other.get_weights(), before, model.get_weights(), strict=False)):
        np.testing.assert_array_equal(mine, saved if number < 3 else was)
    wide = Sequential([Input((4, 3)), layers.LSTM(3, dtype="float64"), layers.Dense(1, dtype="float64")])
    wide.load_weights(path)  # exact in float64
    np.testing.assert_array_equal(wide.get_weights()[0], model.get_weights()[0])
    wide.save_weights(path)
    with pytest.raises(ValueError, match="of float64, the model's of float32"):
        model.load_weights(path)
    with pytest.raises(ValueError, match="not built"):
        Sequential([layers.LSTM(3)]).load_weights(path)
    with pytest.raises(ValueError, match="no weights to save yet"):
        Sequential([layers.LSTM(3)]).save_weights(path)


# ---------------------------------------------------------------------------------------------------------------
# what is refused before anything is written


def test_names_of_files(rng, tmp_path):
    model = Sequential([Input((4, 3)), layers.Dense(1)])
    for name in ("m", "m.zip", "m.weights.numbarnn", "m.h5", ""):
        with pytest.raises(ValueError, match=r"must end in .numbarnn or .keras. Received"):
            model.save(tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in .weights.numbarnn or .weights.h5"):
        model.save_weights(tmp_path / "m.numbarnn")
    with pytest.raises(ValueError, match=r".numbarnn or .keras or .h5 or .hdf5"):
        load_model(tmp_path / "m.txt")
    with pytest.raises(ValueError, match=r".weights.h5 or .h5 or .hdf5 or .keras"):
        model.load_weights(tmp_path / "m.txt")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "m.numbarnn")
    with pytest.raises(FileNotFoundError):
        model.save(tmp_path / "no" / "m.numbarnn")
    model.save(tmp_path / "m.numbarnn")
    before = (tmp_path / "m.numbarnn").read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        model.save(tmp_path / "m.numbarnn", overwrite=False)
    assert (tmp_path / "m.numbarnn").read_bytes() == before
    with pytest.raises(ValueError, match="zipped=False"):
        model.save(tmp_path / "m.numbarnn", zipped=False)
    with pytest.raises(ValueError, match="must be a Model"):
        saving.save_model(layers.Dense(1), tmp_path / "m.numbarnn")
    model.save_weights(tmp_path / "m.weights.numbarnn")
    with pytest.raises(FileExistsError):
        model.save_weights(tmp_path / "m.weights.numbarnn", overwrite=False)
    with pytest.raises(ValueError, match=r"it has no config.json"):
        load_model(tmp_path / "m.weights.numbarnn")


def test_what_cannot_be_saved_leaves_the_file_alone(rng, tmp_path):
    path = tmp_path / "m.numbarnn"
    Sequential([Input((3,)), layers.Dense(1)]).save(path)
    before = path.read_bytes()
    x = Input((3,))
    with_lambda = Model(x, layers.Lambda(lambda x: x * 2)(x))
    with pytest.raises(ValueError, match="lambda cannot be serialized"):
        with_lambda.save(path)
    compiled = Model(x, layers.Dense(1)(x))
    compiled.compile("sgd", lambda y_true, y_pred: ops.mean(y_pred))
    with pytest.raises(ValueError, match="lambda cannot be serialized"):
        compiled.save(path)

    class Own(layers.Layer):
        def __init__(self, table):
            super().__init__()
            self.table = table

        def call(self, x):
            return x

    with pytest.raises(NotImplementedError, match="override `get_config"):
        Model(x, Own(np.ones(3))(x)).save(path)
    aside = Model(x, layers.Dense(1)(x))
    aside.extra = layers.Dense(2)
    with pytest.raises(ValueError, match=r"not among its `layers`.*\['dense"):
        aside.save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.numbarnn"]


def test_links_and_rights_are_kept(tmp_path):
    model = Sequential([Input((3,)), layers.Dense(1)])
    real, link = tmp_path / "real.numbarnn", tmp_path / "link.numbarnn"
    model.save(real)
    link.symlink_to(real)
    set_random_seed(1)
    other = Sequential([Input((3,)), layers.Dense(1)])
    other.save(link)
    assert link.is_symlink()
    assert_same(load_model(real), other)
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert real.stat().st_mode == plain.stat().st_mode
