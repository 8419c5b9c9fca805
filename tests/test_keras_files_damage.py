"""Files of Keras that are damaged, made by hand or by enemies: an error that says so, and no model has changed."""

import json
import zipfile

import numpy as np
import pytest

from numbarnn import layers, models

h5py = pytest.importorskip("h5py")
from keras_h5 import config_of, contents, sequential, small, trained, whole_h5  # noqa: E402


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


def test_weights_that_are_not_numbered(weights):
    with h5py.File(weights, "a") as file:
        file.move(BIAS, "layers/dense/vars/2")
    refused(weights, r"weights of layers/dense/vars are not numbered, but named \['0', '2'\]")


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
    for place in rng.integers(len(whole), size=80):
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
    assert noticed > 5


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
    with pytest.raises(ValueError, match="many more numbers than the file holds"):
        models.load_model(archive)


def test_a_metric_of_many_thresholds(archive):
    config = config_of(archive)
    config["compile_config"]["metrics"] = [
        {"module": "keras.metrics", "class_name": "AUC", "config": {"num_thresholds": 10**7}, "registered_name": None}
    ]
    repacked(archive, **{"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match="many more numbers than the file holds"):
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


def test_what_a_model_of_keras_2_was_compiled_with(tmp_path):
    """Objects, names and functions of the user, as Keras 2 wrote them."""

    def own(y_true, y_pred):
        return (y_true - y_pred) ** 2

    training = {
        "optimizer_config": {
            "class_name": "Adam",
            "config": {"name": "Adam", "learning_rate": 0.5, "decay": 0.0, "beta_1": 0.8, "jit_compile": True},
        },
        "loss": {
            "class_name": "SparseCategoricalCrossentropy",
            "config": {"reduction": "auto", "name": "s", "from_logits": True, "fn": "sparse_categorical_crossentropy"},
        },
        "metrics": [
            {"class_name": "MeanMetricWrapper", "config": {"name": "accuracy", "dtype": "float32", "fn": "x"}},
            {"class_name": "MeanMetricWrapper", "config": {"name": "own", "dtype": "float32", "fn": "own"}},
        ],
        "weighted_metrics": None,
        "loss_weights": None,
    }
    path = whole_h5(tmp_path / "m.h5", sequential(), training_config=json.dumps(training))
    model = models.load_model(path, custom_objects={"own": own})
    assert (float(model.optimizer.learning_rate), model.optimizer.beta_1) == (0.5, 0.8)
    result = model.evaluate(np.ones((1, 2), "float32"), np.array([2]), verbose=0, return_dict=True)
    np.testing.assert_allclose(result["loss"], np.log(1 + np.exp(-1) + np.exp(-2)), rtol=1e-6)  # of 1, 2, 3
    assert result["accuracy"] == 1.0
    np.testing.assert_allclose(result["own"], (1 + 0 + 1) / 3, rtol=1e-6)
    training["optimizer_config"]["config"]["decay"] = 0.1
    whole_h5(path, sequential(), training_config=json.dumps(training))
    with pytest.raises(ValueError, match="`decay=0.1` of Adam in the file is not supported"):
        models.load_model(path, custom_objects={"own": own})
    assert not models.load_model(path, compile=False).compiled


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
