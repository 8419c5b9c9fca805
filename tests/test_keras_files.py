"""Files of Keras: those that tf_keras recorded, those that hands or enemies make, and what is refused."""

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


def small(units=3):
    model = models.Sequential([layers.Input((4, 2)), layers.LSTM(units), layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def trained():
    model = small()
    model.train_on_batch(np.ones((2, 4, 2), "float32"), np.ones((2, 1), "float32"))
    return model


def contents(path):
    """Return the datasets of a file: path -> array."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


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
    "dropout": (lambda: around(layers.LSTM(2, dropout=0.5, implementation=1)), "`implementation=1` with dropout"),
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


# ---------------------------------------------------------------------------------------------------------------
# files that are not what they should be


@pytest.fixture
def weights(tmp_path):
    """Return the path of a file of weights, to be spoilt."""
    path = tmp_path / "m.weights.h5"
    trained().save_weights(path)
    return path


def refused(path, message):
    """The file is refused, and the model is as it was."""
    model = small()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.load_weights(path)
    for one, two in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)
    assert int(model.optimizer.iterations) == 0


BIAS = "layers/dense/vars/1"


def replaced(path, **kwargs):
    """Put another dataset in the place of the last bias."""
    with h5py.File(path, "a") as file:
        del file[BIAS]
        return file.create_dataset(BIAS, **kwargs).name


def test_another_shape(weights):
    replaced(weights, data=np.zeros(2, "float32"))
    refused(weights, r"layer 'dense.*' at 'layers/dense/vars': weight 'bias' has shape \(1,\), found \(2,\)")


def test_another_type(weights):
    replaced(weights, data=np.zeros(1, "complex64"))
    refused(weights, "array of numbers, not of complex64")
    replaced(weights, data=[b"text"])
    refused(weights, "array of numbers, not of")


def test_something_missing(weights):
    with h5py.File(weights, "a") as file:
        del file[BIAS]
    refused(weights, "expected 2 weights, found 1")
    with h5py.File(weights, "a") as file:
        del file["layers/lstm"]
    refused(weights, r"'lstm_cell.*' at 'layers/lstm/cell/vars': expected 3 weights, found 0")


def test_something_left_over(weights):
    with h5py.File(weights, "a") as file:
        file["layers/gru/cell/vars/0"] = np.zeros(2)
    refused(weights, r"weights for which the model has no layer, at \['layers/gru/cell/vars'\]")


def test_a_group_where_a_dataset_should_be(weights):
    with h5py.File(weights, "a") as file:
        del file[BIAS]
        file.create_group(BIAS)
    refused(weights, "is no dataset")


@pytest.mark.parametrize("place", [BIAS, "layers/dense", "layers"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_links(kind, place, weights):
    with h5py.File(weights, "a") as file:
        file.copy(file[place], "kept", name="kept")
        del file[place]
        file[place] = h5py.SoftLink("/kept") if kind == "soft" else h5py.ExternalLink(str(weights), "/kept")
    refused(weights, "is a link")


def test_numbers_in_other_files(weights, tmp_path):
    (tmp_path / "secret").write_bytes(np.ones(1, "float32").tobytes())
    replaced(weights, shape=(1,), dtype="float32", external=[(str(tmp_path / "secret"), 0, 4)])
    refused(weights, "in another file")
    layout = h5py.VirtualLayout((1,), "float32")
    layout[:] = h5py.VirtualSource(str(weights), "layers/dense/vars/0", (1,))
    with h5py.File(weights, "a") as file:
        del file[BIAS]
        file.create_virtual_dataset(BIAS, layout)
    refused(weights, "in another file")


def test_declared_far_larger_than_stored(weights):
    replaced(weights, shape=(1 << 40,), dtype="float32", chunks=(1024,), compression="gzip")
    refused(weights, r"has shape \(1,\), found")
    replaced(weights, shape=(1,), maxshape=(None,), dtype="float32", chunks=(1 << 28,), compression="gzip")
    refused(weights, "packed in pieces of")


def test_groups_without_end(weights):
    with h5py.File(weights, "a") as file:
        file["layers/dense/again"] = file["layers"]
    refused(weights, "one group too many")
    with h5py.File(weights, "a") as file:
        del file["layers/dense/again"]
        file.create_group("/".join("deeper" for _ in range(100)))
    refused(weights, "one group too many")


def test_cut_short_at_any_place(weights, tmp_path):
    whole = weights.read_bytes()
    for size in (0, 1, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1000):
        weights.write_bytes(whole[:size])
        refused(weights, "not an HDF5 file, or a damaged one|is damaged")


def test_bytes_changed_at_any_place(weights, rng):
    """Either it is noticed, or only numbers have changed: no other error, no part of a model."""
    whole = weights.read_bytes()
    noticed = 0
    for place in rng.integers(len(whole), size=150):
        spoilt = bytearray(whole)
        spoilt[place : place + 8] = rng.bytes(8)
        weights.write_bytes(spoilt)
        model = small()
        before = model.get_weights()
        try:
            model.load_weights(weights)
        except ValueError:
            noticed += 1
            for one, two in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(one, two)
    assert noticed > 10


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        small().load_weights(tmp_path / "m.weights.h5")
    for name in ("m.keras", "m.h5"):
        with pytest.raises(FileNotFoundError):
            models.load_model(tmp_path / name)


def test_models_in_models_have_optimizers_of_their_own(tmp_path):
    x, y = np.ones((2, 4, 2), "float32"), np.ones((2, 1), "float32")

    def make():
        inner = models.Sequential([layers.Input((4, 2)), layers.LSTM(3), layers.Dense(1)])
        outer = models.Sequential([layers.Input((4, 2)), inner, layers.Dense(1)])
        inner.compile("adam", "mse")
        outer.compile("sgd", "mse")
        return outer

    model, twin, other = make(), make(), make()
    model.layers[0].train_on_batch(x, y)
    model.train_on_batch(x, y)
    model.save_weights(tmp_path / "m.weights.h5")
    twin.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(twin.layers[0].optimizer.variables[2], model.layers[0].optimizer.variables[2])
    model.save(tmp_path / "m.keras", include_optimizer=False)
    other.load_weights(tmp_path / "m.keras")
    assert int(other.optimizer.iterations) == 0


def test_skip_mismatch(weights):
    replaced(weights, data=np.zeros(2, "float32"))
    model = small()
    before = model.layers[1].get_weights()
    with pytest.warns(UserWarning, match="Not loaded, because it does not fit the model: layer 'dense"):
        model.load_weights(weights, skip_mismatch=True)
    np.testing.assert_array_equal(model.layers[0].cell.kernel, contents(weights)["layers/lstm/cell/vars/0"])
    for one, two in zip(model.layers[1].get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, two)


def repacked(path, compression=zipfile.ZIP_STORED, **members):
    """Write an archive with other members."""
    with zipfile.ZipFile(path) as archive:
        content = {info.filename: archive.read(info) for info in archive.infolist()}
    content |= {key.replace("__", "/"): value for key, value in members.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.fixture
def archive(tmp_path):
    """Return the path of a whole model, to be spoilt."""
    trained().save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def config_of(path):
    with zipfile.ZipFile(path) as file:
        return json.loads(file.read("config.json"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"..__evil": b"x"}, r"unexpected member '\.\./evil'"),
        ({"__etc__passwd": b"x"}, "unexpected member '/etc/passwd'"),
        ({"assets__words.txt": b"x"}, "unexpected member 'assets/words.txt'"),
        ({"config.json": None}, "has no config.json"),
        ({"model.weights.h5": None}, "has no model.weights.h5"),
        ({"model.weights.h5": b"x"}, "not an HDF5 file"),
        ({"config.json": b"{"}, "cannot be read"),
        ({"config.json": b"[1]"}, "should be a JSON object"),
        ({"config.json": b"[" * 100_000}, "cannot be read"),
        ({"config.json": b'{"a":' * 900 + b"1" + b"}" * 900}, "no model's|makes no sense|cannot be read"),
        ({"config.json": b"{}"}, "no model's"),
        ({"config.json": b'{"class_name": "Dense", "config": {"units": 2}, "module": "keras.layers"}'}, "no model's"),
    ],
)
def test_archives(members, message, archive):
    repacked(archive, **members)
    with pytest.raises(ValueError, match=message):
        models.load_model(archive)


def test_archives_that_unpack_to_far_more(archive):
    repacked(archive, zipfile.ZIP_DEFLATED, **{"model.weights.h5": bytes(1 << 27)})
    with pytest.raises(ValueError, match="would unpack"):
        models.load_model(archive)
    repacked(archive, zipfile.ZIP_DEFLATED, **{"model.weights.h5": b"", "config.json": bytes((1 << 26) + 1)})
    with pytest.raises(ValueError, match="'config.json' would have"):
        models.load_model(archive)


def test_archives_cut_short_or_changed(archive, rng):
    whole = archive.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 5):
        archive.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="not a .keras file, or a damaged one"):
            models.load_model(archive)
    for place in rng.integers(len(whole), size=60):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            models.load_model(archive)
        except ValueError:
            continue


def test_a_layer_of_a_billion_units(archive):
    config = config_of(archive)
    config["config"]["layers"][1]["config"]["units"] = 10**9
    repacked(archive, **{"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match="many more weights than the file holds"):
        models.load_model(archive)


def leaves(item, path=()):
    """Yield the place of each value of a configuration."""
    yield path
    if isinstance(item, dict | list):
        for key in item if isinstance(item, dict) else range(len(item)):
            yield from leaves(item[key], (*path, key))


NONSENSE = [None, -1, "x", [], {}, [[None, 1]], {"class_name": "x", "config": 1}]


@pytest.mark.filterwarnings("ignore:The state of optimizer")
@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_configurations_that_make_no_sense(number, archive):
    """Whatever value is replaced: an error that says so, or a model."""
    config = config_of(archive)
    places = [path for path in leaves(config) if path][number :: len(NONSENSE)]
    refused = 0
    for *path, last in places:
        nonsense = NONSENSE[(number + len(path)) % len(NONSENSE)]
        twin = json.loads(json.dumps(config))
        around = twin
        for key in path:
            around = around[key]
        around[last] = nonsense
        repacked(archive, **{"config.json": json.dumps(twin)})
        try:
            models.load_model(archive)
        except (ValueError, TypeError):
            refused += 1
    assert refused > len(places) // 10


CODE = [
    {"class_name": "__lambda__", "config": {"code": "4wEAAA==", "defaults": None, "closure": None}},
    {"class_name": "function", "config": "system", "module": "os", "registered_name": "function"},
    {"class_name": "Popen", "config": {"args": "true"}, "module": "subprocess", "registered_name": None},
]


@pytest.mark.parametrize("safe_mode", [True, False])
@pytest.mark.parametrize("function", CODE)
def test_nothing_is_run(function, safe_mode, archive):
    config = config_of(archive)
    entry = {"module": "keras.layers", "class_name": "Lambda", "registered_name": None}
    config["config"]["layers"].insert(1, {**entry, "config": {"name": "lambda", "function": function}})
    repacked(archive, **{"config.json": json.dumps(config)})
    with pytest.raises((ValueError, TypeError), match="never runs|Could not locate"):
        models.load_model(archive, safe_mode=safe_mode)


def whole_h5(path, config, **attributes):
    """Write a file as Keras 2 does."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
        file.attrs["keras_version"] = "2.15.0"
        for key, value in attributes.items():
            file.attrs[key] = value
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"dense"]
        dense = group.create_group("dense")
        dense.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        dense["dense/kernel:0"], dense["dense/bias:0"] = np.full((2, 3), 0.5, "float32"), np.arange(3, dtype="float32")
    return path


def sequential(*further, **dense):
    """Return Keras 2's configuration of a model."""
    given = {"name": "dense", "units": 3, "batch_input_shape": [None, 2], "dtype": "float32", **dense}
    return {
        "class_name": "Sequential",
        "config": {"name": "s", "layers": [{"class_name": "Dense", "config": given}, *further]},
    }


def test_hdf5_made_by_hand(tmp_path):
    path = whole_h5(tmp_path / "m.h5", sequential())
    model = models.load_model(path)
    np.testing.assert_array_equal(model.predict(np.ones((1, 2), "float32")), [[1.0, 2.0, 3.0]])
    assert not model.compiled
    layered = sequential()
    layered["config"] = layered["config"]["layers"]  # as before Keras 2.2
    np.testing.assert_array_equal(
        models.load_model(whole_h5(path, layered)).predict(np.ones((1, 2), "float32")), [[1.0, 2.0, 3.0]]
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (sequential({"class_name": "Lambda", "config": {"name": "l", "function": ["4wE=", None, None]}}), "never runs"),
        (sequential(units=4), r"weight 'kernel' has shape \(2, 4\), found \(2, 3\)"),
        (sequential(name="other"), "layer 'dense' of the file is not in the model"),
        (sequential(dynamic=True), "`dynamic=True` of Dense in the file is not supported"),
        (sequential({"class_name": "Dense"}), "no layer|cannot be read|makes no sense|holds|Only instances"),
        ({"class_name": "Sequential", "config": 3}, "cannot be read"),
        ({"class_name": "Functional", "config": {"layers": [{}]}}, "cannot be read"),
    ],
)
def test_hdf5_models(config, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        models.load_model(whole_h5(tmp_path / "m.h5", config))


def test_hdf5_without_a_model(weights, tmp_path):
    (tmp_path / "m.h5").write_bytes(weights.read_bytes())
    with pytest.raises(ValueError, match="holds no model"):
        models.load_model(tmp_path / "m.h5")


@pytest.mark.parametrize("name", [b"../dense/kernel:0", b"/dense/kernel:0", b"", b"dense//kernel:0", b"missing"])
def test_names_of_weights_that_lead_astray(name, tmp_path):
    path = whole_h5(tmp_path / "m.h5", sequential())
    with h5py.File(path, "a") as file:
        file["model_weights/dense"].attrs["weight_names"] = [name, b"dense/bias:0"]
    with pytest.raises(ValueError, match="is no path|is missing"):
        models.load_model(path)


def test_layers_in_their_order(tmp_path):
    """Weights alone go by order, as in Keras, whatever the names."""
    path = whole_h5(tmp_path / "m.h5", sequential())
    model = models.Sequential([layers.Input((2,)), layers.Dense(3, name="another")])
    model.load_weights(path)
    np.testing.assert_array_equal(model.layers[0].bias, [0.0, 1.0, 2.0])
    more = models.Sequential([layers.Input((2,)), layers.Dense(3), layers.Dense(1)])
    with pytest.raises(ValueError, match="Model expected 2 layers, found 1 saved layers"):
        more.load_weights(path)
