"""Files of Keras: those that tf_keras recorded, those that are written, and what is not."""

import builtins
import io
import json
import zipfile
from pathlib import Path

import keras_models
import numpy as np
import pytest

import numbarnn
from numbarnn import layers, models, optimizers
from numbarnn.interop import keras_files
from numbarnn.interop.legacy_weights import in_our_order
from numbarnn.testing import assert_close

h5py = pytest.importorskip("h5py")
from keras_h5 import config_of, contents, sequential, small, trained, whole_h5  # noqa: E402

RECORDED = Path(__file__).parent / "data" / "keras2_files.zip"
TOLERANCE = 2e-6  # TensorFlow's own sums, after three steps of training


# ---------------------------------------------------------------------------------------------------------------
# Keras 2


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return the folder of the recorded files, and the answers."""
    folder = tmp_path_factory.mktemp("keras2")
    with zipfile.ZipFile(RECORDED) as archive:
        archive.extractall(folder)
    with np.load(folder / "answers.npz") as answers:
        return folder, dict(answers)


def check(answers, name, when, found):
    for number, array in enumerate(found):
        assert_close(array, answers[f"{name}/{when}/{number}"], TOLERANCE, f"{name} {when}, output {number}")
    assert f"{name}/{when}/{len(found)}" not in answers


def predict(model, name):
    return keras_models.outputs(model.predict(keras_models.data(name), batch_size=keras_models.B, verbose=0))


@pytest.mark.parametrize("name", keras_models.RECORDED)
def test_model_of_keras_2(name, recorded):
    """Whole, with its optimizer: it predicts the same, and the next step is the same."""
    folder, answers = recorded
    model = models.load_model(folder / f"{name}.h5")
    check(answers, name, "now", predict(model, name))
    assert isinstance(model.optimizer, optimizers.Adam)
    assert int(model.optimizer.iterations) == 2
    assert model.loss == "mse"
    if name not in keras_models.RANDOM:
        check(answers, name, "later", keras_models.step(model, keras_models.data(name)))


@pytest.mark.parametrize("name", keras_models.RECORDED)
def test_archive_of_keras_2(name, recorded):
    folder, answers = recorded
    model = models.load_model(folder / f"{name}.keras")
    check(answers, name, "now", predict(model, name))
    if name not in keras_models.RANDOM:
        check(answers, name, "later", keras_models.step(model, keras_models.data(name)))


@pytest.mark.parametrize("name", keras_models.RECORDED)
def test_weights_of_keras_2(name, recorded):
    """Into a model made here: layers in their order. What hard_sigmoid was is the model's affair then."""
    folder, answers = recorded
    model = keras_models.make(name, numbarnn)
    model.load_weights(folder / f"{name}_weights.h5")
    if name == "arguments":
        model.layers[1].cell.recurrent_activation = numbarnn.activations.get("hard_sigmoid_k2")
    check(answers, name, "now", predict(model, name))


def test_optimizer_of_before_keras_2_11(recorded):
    folder, answers = recorded
    model = models.load_model(folder / "legacy_optimizer.h5")
    check(answers, "legacy_optimizer", "now", predict(model, "cells"))
    check(answers, "legacy_optimizer", "later", keras_models.step(model, keras_models.data("cells")))


def test_slots_of_before_keras_2_11():
    def names(*kinds):
        return ["Adam/iter:0", *(f"Adam/{weight}/{kind}:0" for kind in kinds for weight in ("a", "b", "c"))]

    assert in_our_order(names("m", "v"), list("i123456"), 3) == list("i142536")
    assert in_our_order(names("m", "v", "vhat"), list("i123456789"), 3) == list("i142536789")
    assert in_our_order(names("rms", "momentum"), list("i123456"), 3) == list("i123456")
    assert in_our_order(["iteration:0", "Adam/m/a:0", "Adam/v/a:0"], list("i12"), 1) == list("i12")
    assert in_our_order([], [], 3) == []


def test_slots_that_keras_2_does_not_use(tmp_path):
    """Its SGD without momentum has some."""
    model = models.Sequential([layers.Input((2,)), layers.Dense(3)])
    model.compile(optimizers.SGD(0.5), "mse")
    path = whole_h5(tmp_path / "m.h5", sequential())
    with h5py.File(path, "a") as file:
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = [b"iteration:0", b"SGD/m/dense/kernel:0", b"SGD/m/dense/bias:0"]
        group["iteration:0"] = 7
        group["SGD/m/dense/kernel:0"], group["SGD/m/dense/bias:0"] = np.zeros((2, 3)), np.zeros(3)
    model.load_weights(path)
    assert int(model.optimizer.iterations) == 7
    assert float(model.optimizer.learning_rate) == 0.5


def test_hard_sigmoid_of_keras_2_is_its_own(recorded, tmp_path):
    folder, _ = recorded
    model = models.load_model(folder / "arguments.h5")
    assert model.layers[1].recurrent_activation.__name__ == "hard_sigmoid_k2"
    with pytest.raises(ValueError, match="hard_sigmoid_k2.*in layer 'gru'"):
        model.save(tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------------------
# what is written


def test_tree_of_weights(tmp_path):
    """Where Keras walks: by class in lists, by attribute in layers; slots after the rate, weight by weight."""
    model = trained()
    model.save_weights(tmp_path / "m.weights.h5")
    found = contents(tmp_path / "m.weights.h5")
    cell, dense = model.layers[0].cell, model.layers[1]
    expected = {
        "layers/lstm/cell/vars/0": cell.kernel,
        "layers/lstm/cell/vars/1": cell.recurrent_kernel,
        "layers/lstm/cell/vars/2": cell.bias,
        "layers/dense/vars/0": dense.kernel,
        "layers/dense/vars/1": dense.bias,
    }
    state = {key: value for key, value in found.items() if key.startswith("optimizer/")}
    assert set(state) == {f"optimizer/vars/{i}" for i in range(12)}
    assert int(state["optimizer/vars/0"]) == 1
    assert_close(state["optimizer/vars/1"], 0.001, 1e-6)
    assert {key: value.shape for key, value in state.items() if key.endswith(("/2", "/3"))} == {
        "optimizer/vars/2": (2, 12),
        "optimizer/vars/3": (2, 12),
    }
    assert set(found) == {*expected, *state}
    for key, variable in expected.items():
        np.testing.assert_array_equal(found[key], variable)
    with h5py.File(tmp_path / "m.weights.h5") as file:
        assert file["layers/lstm/vars"].attrs["name"] == "lstm"


def test_archive_has_the_members_of_keras(tmp_path):
    trained().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        config = json.loads(archive.read("config.json"))
        assert json.loads(archive.read("metadata.json"))["keras_version"].startswith("3.")
    assert (config["module"], config["class_name"]) == ("keras", "Sequential")
    assert config["compile_config"]["loss"] == "mse"


@pytest.mark.parametrize("name", keras_models.CASES)
def test_back_again(name, tmp_path):
    """What was written is read: bit for bit, and the next step too."""
    model = keras_models.make(name, numbarnn)
    x = keras_models.data(name)
    model.compile("adam", "mse")
    keras_models.step(model, x)
    model.save(tmp_path / "m.keras")
    twin = models.load_model(tmp_path / "m.keras")
    model.reset_states()
    for one, two in zip(predict(twin, name), predict(model, name), strict=True):
        np.testing.assert_array_equal(one, two)
    if name not in keras_models.RANDOM:
        for one, two in zip(keras_models.step(twin, x), keras_models.step(model, x), strict=True):
            np.testing.assert_array_equal(one, two)


def test_weights_of_a_whole_model(tmp_path):
    """`load_weights` takes them from any file of Keras."""
    model = trained()
    model.save(tmp_path / "m.keras")
    twin = small()
    twin.load_weights(tmp_path / "m.keras")
    for one, two in zip(twin.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert int(twin.optimizer.iterations) == 1


def test_states_and_seeds_are_not_stored(tmp_path):
    model = models.Sequential(
        [layers.Input(batch_shape=(2, 4, 2)), layers.GRU(2, stateful=True, dropout=0.5), layers.Dropout(0.5)]
    )
    x = np.ones((2, 4, 2), "float32")
    first = model.predict(x, verbose=0)
    model.save(tmp_path / "m.keras")
    np.testing.assert_array_equal(models.load_model(tmp_path / "m.keras").predict(x, verbose=0), first)
    model.save_weights(tmp_path / "m.weights.h5")
    assert set(contents(tmp_path / "m.weights.h5")) == {f"layers/gru/cell/vars/{i}" for i in range(3)}


def test_an_optimizer_that_did_no_step(tmp_path):
    model = small()
    model.optimizer.learning_rate = 0.25
    model.save_weights(tmp_path / "m.weights.h5")
    twin = trained()
    twin.load_weights(tmp_path / "m.weights.h5")
    assert int(twin.optimizer.iterations) == 0
    assert float(twin.optimizer.learning_rate) == 0.25


def test_an_optimizer_of_another_kind_starts_anew(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    other = small()
    other.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="state of optimizer 'sgd' is not loaded, because it has 2 variables and 12"):
        other.load_weights(tmp_path / "m.weights.h5")
    assert int(other.optimizer.iterations) == 0


@numbarnn.saving.register_keras_serializable("tests")
class Tower(layers.Layer):
    """Layers and weights in whatever a layer may keep them in."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self._last = layers.Dense(units)
        self.by_name = {"b": layers.GRU(units, return_sequences=True), "a": layers.Dense(units)}
        self.blocks = [[layers.Dense(units), layers.Dense(units)], (layers.LSTM(units, return_sequences=True),)]

    def build(self, input_shape):
        self.count = self.add_weight(shape=(), trainable=False, initializer="ones", name="count")
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
        for layer in self.chain():
            layer.build((*input_shape[:-1], self.units))

    def chain(self):
        return [*self.by_name.values(), *self.blocks[0], *self.blocks[1], self._last]

    def call(self, x):
        x = x * self.scale * self.count
        for layer in self.chain():
            x = layer(x)
        return x

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_layers_of_the_user(tmp_path):
    model = models.Sequential([layers.Input((4, 2)), Tower(2)])
    model.set_weights([w + 0.5 for w in model.get_weights()])
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    tower = model.layers[0]
    expected = {
        "vars/0": tower.scale,
        "vars/1": tower.count,
        "blocks/container/dense/vars/0": tower.blocks[0][0].kernel,
        "blocks/container/dense_1/vars/0": tower.blocks[0][1].kernel,
        "blocks/container_1/lstm/cell/vars/1": tower.blocks[1][0].cell.recurrent_kernel,
        "by_name/gru/cell/vars/2": tower.by_name["b"].cell.bias,
        "by_name/dense/vars/1": tower.by_name["a"].bias,
        "_last/vars/0": tower._last.kernel,
    }
    found = contents(tmp_path / "m.weights.h5")
    for key, variable in expected.items():
        np.testing.assert_array_equal(found[f"layers/tower/{key}"], variable)
    x = np.ones((1, 4, 2), "float32")
    np.testing.assert_array_equal(models.load_model(tmp_path / "m.keras").predict(x), model.predict(x))


class Packed(layers.Dense):
    """Says itself what is stored of it; may fail in the middle."""

    def save_own_variables(self, store):
        store["both"] = np.concatenate([self.kernel, self.bias[None]])

    def load_own_variables(self, store):
        self.kernel.assign(store["both"][:-1])
        self.bias.assign(store["both"][-1][:2])


def test_layers_that_say_what_is_stored(tmp_path):
    def make(units):
        model = models.Sequential([layers.Input((3,)), layers.Dense(3), Packed(units)])
        model.set_weights([w + 1 for w in model.get_weights()])
        return model

    for units in (2, 3):  # with three, the layer fails to load what it stored
        model, twin = make(units), make(units)
        model.save_weights(tmp_path / "m.weights.h5")
        assert contents(tmp_path / "m.weights.h5")["layers/packed/vars/both"].shape == (4, units)
        expected = model.get_weights()
        if units == 2:
            twin.load_weights(tmp_path / "m.weights.h5")
        else:
            expected = twin.get_weights()
            with pytest.raises(ValueError, match="Nothing was loaded, because `load_own_variables` of layer 'packed"):
                twin.load_weights(tmp_path / "m.weights.h5")
        for one, two in zip(twin.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(one, two)


def test_without_the_optimizer(tmp_path):
    model = trained()
    model.save(tmp_path / "m.keras", include_optimizer=False)
    assert "compile_config" not in config_of(tmp_path / "m.keras")
    twin = models.load_model(tmp_path / "m.keras")
    assert not twin.compiled
    with zipfile.ZipFile(tmp_path / "m.keras") as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as f:
        assert "optimizer" not in f


def test_layers_where_keras_does_not_look(tmp_path):
    class Hidden(layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = {layers.Dense(2)}

        def build(self, input_shape):
            next(iter(self.inner)).build(input_shape)

        def call(self, x):
            return next(iter(self.inner))(x)

    model = models.Sequential([layers.Input((2,)), Hidden()])
    with pytest.raises(ValueError, match=r"weights \['.*kernel', '.*bias'\] .*have no place in Keras's files"):
        model.save_weights(tmp_path / "m.weights.h5")
    assert not list(tmp_path.iterdir())


def around(layer, shape=(4, 2)):
    x = layers.Input(shape)
    return models.Model(x, layer(x))


class Pair(layers.Layer):
    """A cell of nested inputs."""

    state_size = output_size = 2

    def call(self, inputs, states):
        a, b = inputs
        return a + b, [states[0] + a]

    def get_config(self):
        return super().get_config()


def of_two():
    a, b = layers.Input((4, 2)), layers.Input((4, 2))
    return models.Model([a, b], layers.RNN(Pair())((a, b)))


def with_reset():
    x, reset = layers.Input((4, 2)), layers.Input((4,), dtype="bool")
    return models.Model([x, reset], layers.GRU(2)(x, reset=reset))


FOREIGN = {
    "time_major": (lambda: around(layers.LSTM(2, time_major=True)), "no `time_major=True`, in layer 'lstm'"),
    "nested": (of_two, "no recurrent layers with nested inputs, in layer 'rnn'"),
    "reset": (with_reset, "no `reset=`, in a call of layer 'gru'"),
    "activation": (lambda: around(layers.Dense(2, activation="hard_sigmoid_k2")), "hard_sigmoid_k2"),
    "dropout": (
        lambda: around(layers.LSTM(2, dropout=0.5, implementation=1)),
        "`implementation=1` with dropout, which fails",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_keras_has_not(name, tmp_path):
    make, message = FOREIGN[name]
    model = make()
    with pytest.raises(ValueError, match=message):
        model.save(tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    model = trained()
    for name in ("m.keras", "m.weights.h5"):
        path = tmp_path / name
        path.write_bytes(b"before")
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
            save = model.save if name == "m.keras" else model.save_weights
            with pytest.raises(OSError, match="disk full"):
                save(path)
        assert path.read_bytes() == b"before"
        assert len(list(tmp_path.glob("*"))) == (1 if name == "m.keras" else 2)
        save(path)
        assert path.read_bytes() != b"before"


@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5x", "m"])
def test_names_of_files(name, tmp_path):
    for save in (keras_files.save_model, keras_files.save_weights):
        with pytest.raises(ValueError, match="must end in"):
            save(small(), tmp_path / name)


def test_models_that_are_not_built(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    model = models.Sequential([layers.LSTM(3), layers.Dense(1)])
    with pytest.raises(ValueError, match="has not yet been built"):
        keras_files.save_weights(model, tmp_path / "n.weights.h5")
    with pytest.raises(ValueError, match="has not yet been built"):
        keras_files.load_weights(model, tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="saved before it is built"):
        keras_files.save_model(model, tmp_path / "m.keras")
    assert not keras_files.load_model(tmp_path / "m.keras").built


def test_without_h5py(tmp_path, monkeypatch):
    imports = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return imports(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for call in (keras_files.save_model, keras_files.save_weights):
        with pytest.raises(ImportError, match=r"numbarnn\[hdf5\]"):
            call(small(), tmp_path / ("m.keras" if call is keras_files.save_model else "m.weights.h5"))
    with pytest.raises(ImportError, match=r"numbarnn\[hdf5\]"):
        keras_files.load_model(tmp_path / "m.h5")


def test_what_changes_no_result_is_left_out(tmp_path):
    model = numbarnn.Sequential([numbarnn.Input((4, 2)), numbarnn.layers.LSTM(3, checkpoint=2)])
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert "checkpoint" not in archive.read("config.json").decode()
