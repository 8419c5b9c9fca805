"""Files of Keras: what live Keras 3 writes, numbarnn reads, and the other way round."""

import warnings

import keras_models
import numpy as np
import pytest

import numbarnn
from numbarnn.interop import keras_files
from numbarnn.testing import assert_close

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")


def compare(name, ours, theirs):
    """Both predict the same."""
    x = keras_models.data(name)
    predictions = [keras_models.outputs(model.predict(x, verbose=0)) for model in (ours, theirs)]
    for one, two in zip(*predictions, strict=True):
        assert_close(one, two, 1e-6, name)


def train(name, model, steps=2):
    """Compile, and do some steps; Keras fails to do several with states that are carried on."""
    if name == "stateful":
        return model
    model.compile("adam", "mse")
    return more(name, model, steps)


def more(name, model, steps=1):
    x = keras_models.data(name)
    y = keras_models.targets(model.predict(x, verbose=0))
    for _ in range(steps):
        model.train_on_batch(x, y)
    return model


@pytest.mark.parametrize("name", keras_models.CASES)
def test_we_read_weights(name, tmp_path):
    theirs, ours = (keras_models.make(name, lib) for lib in (keras, numbarnn))
    theirs.save_weights(tmp_path / "m.weights.h5")
    keras_files.load_weights(ours, tmp_path / "m.weights.h5")
    compare(name, ours, theirs)


@pytest.mark.parametrize("name", keras_models.CASES)
def test_keras_reads_weights(name, tmp_path):
    theirs, ours = (keras_models.make(name, lib) for lib in (keras, numbarnn))
    keras_files.save_weights(ours, tmp_path / "m.weights.h5")
    theirs.load_weights(tmp_path / "m.weights.h5")
    compare(name, ours, theirs)


@pytest.mark.parametrize("name", keras_models.CASES)
def test_we_read_models(name, tmp_path):
    theirs = train(name, keras_models.make(name, keras))
    theirs.save(tmp_path / "m.keras")
    ours = keras_files.load_model(tmp_path / "m.keras")
    compare(name, ours, theirs)
    if name not in [*keras_models.RANDOM, "stateful"]:
        compare(name, more(name, ours), more(name, theirs))


@pytest.mark.parametrize("name", keras_models.CASES)
def test_keras_reads_models(name, tmp_path):
    ours = train(name, keras_models.make(name, numbarnn))
    keras_files.save_model(ours, tmp_path / "m.keras")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    compare(name, ours, theirs)
    if name not in [*keras_models.RANDOM, "stateful"]:
        compare(name, more(name, ours), more(name, theirs))


@pytest.mark.parametrize("name", keras_models.CASES)
def test_we_read_hdf5_models(name, tmp_path):
    theirs = train(name, keras_models.make(name, keras))
    theirs.save(tmp_path / "m.h5")
    ours = keras_files.load_model(tmp_path / "m.h5")
    compare(name, ours, theirs)
    if name not in [*keras_models.RANDOM, "stateful"]:
        compare(name, more(name, ours), more(name, theirs))


OPTIMIZERS = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9, "nesterov": True, "clipnorm": 0.1}),
    "rmsprop": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "amsgrad": ("Adam", {"amsgrad": True, "clipvalue": 0.1}),
    "decay": ("AdamW", {"weight_decay": 0.1, "use_ema": True}),
    "schedule": ("Adam", {"learning_rate": ("ExponentialDecay", (0.01, 2, 0.5))}),
    "nadam": ("Nadam", {}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "adamax": ("Adamax", {}),
    "lion": ("Lion", {}),
    "ftrl": ("Ftrl", {}),
    "adafactor": ("Adafactor", {}),
    "lamb": ("Lamb", {}),
    "accumulation": ("Adam", {"gradient_accumulation_steps": 2}),
}


def optimizer(name, lib):
    class_name, arguments = OPTIMIZERS[name]
    arguments = dict(arguments)
    if isinstance(arguments.get("learning_rate"), tuple):
        schedule, given = arguments["learning_rate"]
        arguments["learning_rate"] = getattr(lib.optimizers.schedules, schedule)(*given)
    return getattr(lib.optimizers, class_name)(**arguments)


FILES = [("keras", "m.keras"), ("keras", "m.h5"), ("keras", "m.weights.h5")]
FILES += [("numbarnn", "m.keras"), ("numbarnn", "m.weights.h5")]
GOING_ON = [(*file, name) for file in FILES for name in OPTIMIZERS]
GOING_ON.remove(("keras", "m.h5", "adafactor"))  # Keras fails to write it


@pytest.mark.parametrize(("writer", "form", "name"), GOING_ON)
def test_training_goes_on(writer, form, name, tmp_path):
    """Three steps, through a file, and two more: the weights are those that the writer comes to with no file."""
    libs = {"keras": keras, "numbarnn": numbarnn}
    model = keras_models.make("merging", libs[writer])
    model.compile(optimizer(name, libs[writer]), "mse")
    more("merging", model, 3)
    (model.save_weights if form == "m.weights.h5" else model.save)(tmp_path / form)
    if form == "m.weights.h5":
        twin = keras_models.make("merging", numbarnn if writer == "keras" else keras)
        twin.compile(optimizer(name, numbarnn if writer == "keras" else keras), "mse")
        twin.optimizer.build(twin.trainable_variables)
        twin.load_weights(tmp_path / form)
    else:
        twin = (numbarnn if writer == "keras" else keras).models.load_model(tmp_path / form)
    for one, two in zip(more("merging", twin, 2).get_weights(), more("merging", model, 2).get_weights(), strict=True):
        assert_close(one, two, 2e-5, name)
    assert int(np.asarray(twin.optimizer.iterations)) == (2 if name == "accumulation" else 5)


def tower(lib):
    """A layer written for both libraries, with layers and weights in whatever a layer may keep them in."""

    class Tower(lib.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units
            self._last = lib.layers.Dense(units)
            self.by_name = {"b": lib.layers.GRU(units, return_sequences=True), "a": lib.layers.Dense(units)}
            self.blocks = [
                [lib.layers.Dense(units), lib.layers.Dense(units)],
                (lib.layers.LSTM(units, return_sequences=True), {"x": lib.layers.Dense(units)}),
            ]
            self.first = self.blocks[0][1]

        def build(self, input_shape):
            self.count = self.add_weight(shape=(), trainable=False, initializer="ones", name="count")
            self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
            for layer in self.chain():
                layer.build((*input_shape[:-1], self.units))

        def chain(self):
            return [*self.by_name.values(), *self.blocks[0], self.blocks[1][0], self.blocks[1][1]["x"], self._last]

        @property
        def also(self):
            return self.by_name["a"]

        @property
        def broken(self):
            raise RuntimeError("no value now")

        def call(self, x):
            x = x * self.scale * self.count
            for layer in self.chain():
                x = layer(x)
            return x

        def compute_output_shape(self, input_shape):
            return (*input_shape[:-1], self.units)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Tower


def packed(lib):
    """A layer that says itself what is stored of it."""

    class Packed(lib.layers.Dense):
        def save_own_variables(self, store):
            kernel, bias = (np.asarray(w) for w in self.get_weights())
            store["both"] = np.concatenate([kernel, bias[None]])

        def load_own_variables(self, store):
            self.kernel.assign(store["both"][:-1])
            self.bias.assign(store["both"][-1])

    return Packed


def minimal(lib):
    """A cell written for both."""
    product = lib.ops.matmul

    class Minimal(lib.layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = self.state_size = self.output_size = units
            self.project = lib.layers.Dense(units)

        def build(self, input_shape):
            self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")
            self.project.build(input_shape)

        def call(self, inputs, states):
            h = lib.ops.tanh(self.project(inputs) + product(states[0], self.recurrent_kernel))
            return h, [h]

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Minimal


@pytest.mark.parametrize("form", ["m.keras", "m.weights.h5"])
@pytest.mark.parametrize("writer", ["keras", "numbarnn"])
def test_layers_and_cells_of_the_user(writer, form, tmp_path, rng):
    def make(lib, custom):
        return lib.models.Sequential(
            [
                lib.layers.Input((4, 2)),
                custom["Tower"](2),
                lib.layers.RNN([custom["Minimal"](3), lib.layers.GRUCell(2)]),
            ]
        )

    libs = {lib: {"Tower": tower(lib), "Minimal": minimal(lib), "Packed": packed(lib)} for lib in (keras, numbarnn)}
    source, target = (keras, numbarnn) if writer == "keras" else (numbarnn, keras)
    model = make(source, libs[source])
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    (model.save if form == "m.keras" else model.save_weights)(tmp_path / form)
    if form == "m.keras":
        twin = target.models.load_model(tmp_path / form, custom_objects=libs[target])
    else:
        twin = make(target, libs[target])
        twin.load_weights(tmp_path / form)
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    assert_close(model.predict(x, verbose=0), twin.predict(x, verbose=0), 1e-6)


def subclass(lib):
    """A model of one's own: where Keras puts its layers depends on the names of their attributes."""

    class Reader(lib.models.Model):
        def __init__(self):
            super().__init__()
            self.encoder = lib.layers.LSTM(3)
            self.zoom = lib.layers.Dense(2)
            self.also_zoom = lib.layers.Dense(3)

        def call(self, x):
            return self.zoom(self.also_zoom(self.encoder(x)))

    model = Reader()
    model.predict(np.ones((1, 4, 2), "float32"), verbose=0)
    return model


@pytest.mark.parametrize("writer", ["keras", "numbarnn"])
def test_models_of_the_user(writer, tmp_path, rng):
    source, target = (keras, numbarnn) if writer == "keras" else (numbarnn, keras)
    model, twin = subclass(source), subclass(target)
    model.save_weights(tmp_path / "m.weights.h5")
    twin.load_weights(tmp_path / "m.weights.h5")
    x = rng.normal(size=(3, 4, 2)).astype("float32")
    assert_close(model.predict(x, verbose=0), twin.predict(x, verbose=0), 1e-6)


def test_forward_layer_that_goes_backwards(tmp_path):
    """Keras can be told of it only with both layers given, as files have them."""
    x = numbarnn.layers.Input((4, 2))
    layer = numbarnn.layers.Bidirectional(numbarnn.layers.GRU(3, go_backwards=True))
    model = numbarnn.models.Model(x, layer(x))
    model.save(tmp_path / "m.keras")
    data = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
    theirs = keras.models.load_model(tmp_path / "m.keras")
    assert_close(model.predict(data, verbose=0), theirs.predict(data, verbose=0), 1e-6)


def test_operations_between_layers(tmp_path):
    for source, target in ((keras, numbarnn), (numbarnn, keras)):
        x = source.layers.Input((4, 2))
        y = source.layers.LSTM(3, return_sequences=True)(x)
        y = source.ops.concatenate([y * 2.0, source.ops.tanh(x)], axis=-1)[:, -1]
        model = source.models.Model(x, source.layers.Dense(2)(y))
        model.save(tmp_path / "m.keras")
        twin = target.models.load_model(tmp_path / "m.keras")
        data = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
        assert_close(model.predict(data, verbose=0), twin.predict(data, verbose=0), 1e-6)


def test_float64_and_mixed_types(tmp_path):
    for dtype, tolerance in (("float64", 1e-6), ("mixed_float16", 1e-3)):
        for source, target in ((keras, numbarnn), (numbarnn, keras)):
            x = source.layers.Input((4, 2), dtype="float32")
            y = source.layers.Dense(2, dtype=dtype)(source.layers.GRU(3, dtype=dtype)(x))
            model = source.models.Model(x, y)
            model.save(tmp_path / "m.keras")
            twin = target.models.load_model(tmp_path / "m.keras")
            assert [w.dtype for w in twin.get_weights()] == [w.dtype for w in model.get_weights()]
            data = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
            assert_close(twin.predict(data, verbose=0), model.predict(data, verbose=0), tolerance, dtype)


@pytest.fixture
def mixed_policy():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("form", ["m.keras", "m.weights.h5"])
@pytest.mark.usefixtures("mixed_policy")
def test_an_optimizer_that_scales_the_loss(form, tmp_path):
    """Keras puts one around the optimizer of a model with a mixed policy; what is in it goes on here."""
    model = keras.Sequential([keras.layers.Input((4, 2)), keras.layers.GRU(3), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    x, y = np.ones((4, 4, 2), "float32"), np.ones((4, 2), "float32")
    model.fit(x, y, epochs=2, verbose=0)
    (model.save if form == "m.keras" else model.save_weights)(tmp_path / form)
    model.save(tmp_path / "m.keras")
    twin = numbarnn.models.load_model(tmp_path / "m.keras", compile=form == "m.keras")
    if form == "m.weights.h5":
        twin.load_weights(tmp_path / form)  # with nothing compiled it is left out
        twin.compile("adam", "mse")
        twin.load_weights(tmp_path / form)
    inner = model.optimizer.inner_optimizer
    assert int(inner.iterations.value) == int(twin.optimizer.iterations) == 2
    for one, two in zip(twin.optimizer.variables, inner.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), keras.ops.convert_to_numpy(two))
    assert np.abs(twin.optimizer.variables[2].numpy()).max() > 0


@numbarnn.saving.register_keras_serializable("parity")
@keras.saving.register_keras_serializable("parity")
def doubled(x):
    return x * 2


def drawn(inputs, outputs):
    return numbarnn.models.Model(inputs, outputs)


def stack(*layers):
    return numbarnn.models.Sequential(list(layers))


L = numbarnn.layers
WORDS, ROWS = np.ones((2, 4), "int32"), np.random.default_rng(0).normal(size=(2, 4, 2)).astype("float32")
ROUND = {
    "embedding with a length": (lambda: stack(L.Embedding(10, 3, input_length=4), L.LSTM(2)), WORDS),
    "embedding alone": (lambda: stack(L.Embedding(10, 3, mask_zero=True), L.LSTM(2)), WORDS),
    "shape of a first layer": (lambda: stack(L.LSTM(2, batch_input_shape=(2, 4, 2)), L.Dense(3)), ROWS),
    "implementation": (lambda: stack(L.Input((4, 2)), L.LSTM(2, implementation=1)), ROWS),
    "both dropouts": (lambda: stack(L.Input((4, 2)), L.LSTM(2, dropout=0.1, recurrent_dropout=0.1)), ROWS),
    "LSTM over time": (lambda: stack(L.Input((1, 4, 2)), L.TimeDistributed(L.LSTM(2))), ROWS[:, None]),
    "hard_sigmoid": (lambda: stack(L.Input((4, 2)), L.GRU(2, recurrent_activation="hard_sigmoid")), ROWS),
    "zeros where masked": (
        lambda: stack(L.Input((4, 2)), L.Masking(), L.GRU(2, return_sequences=True, zero_output_for_mask=True)),
        np.where(ROWS[:, :, :1] > 0, ROWS, 0),
    ),
    "functions of the user": (lambda: stack(L.Input((4, 2)), L.Lambda(doubled), L.GRU(2, activation=doubled)), ROWS),
    "words in a graph": (
        lambda: drawn(x := L.Input((4,), dtype="int32"), L.GRU(2)(L.Embedding(5, 2)(x))),
        WORDS,
    ),
    "dict of inputs": (
        lambda: drawn(x := {k: L.Input((4, 2), name=k) for k in "ab"}, L.Add()([L.GRU(2)(x["a"]), L.GRU(2)(x["b"])])),
        {"a": ROWS, "b": ROWS[::-1]},
    ),
    "states of both directions": (
        lambda: drawn(
            x := [L.Input((4, 2)), L.Input((2,))], L.Bidirectional(L.LSTM(2))(x[0], initial_state=[x[1]] * 4)
        ),
        [ROWS, ROWS[:, 0]],
    ),
    "states in a list": (lambda: drawn(x := [L.Input((4, 2)), L.Input((2,))], L.GRU(2)(x)), [ROWS, ROWS[:, 0]]),
    "mask as an argument": (
        lambda: drawn(x := [L.Input((4, 2)), L.Input((4,), dtype="bool")], L.GRU(2)(x[0], mask=x[1])),
        [ROWS, ROWS[:, :, 0] > 0],
    ),
}


@pytest.mark.parametrize("name", ROUND)
def test_round(name, tmp_path):
    """From numbarnn to Keras and back, with what a model was compiled with."""
    make, x = ROUND[name]
    model = make()
    loss = numbarnn.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile("adam", loss, metrics=["accuracy", numbarnn.metrics.MeanSquaredError(name="error")])
    model.save(tmp_path / "ours.keras", include_optimizer=name != "hard_sigmoid")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")  # it has done no step
        theirs = keras.models.load_model(tmp_path / "ours.keras")
    theirs.save(tmp_path / "theirs.keras")
    twin = numbarnn.models.load_model(tmp_path / "theirs.keras")
    expected = model.predict(x, verbose=0)
    assert_close(theirs.predict(x, verbose=0), expected, 1e-6)
    np.testing.assert_array_equal(twin.predict(x, verbose=0), expected)
    assert twin.compiled == theirs.compiled == (name != "hard_sigmoid")
    if twin.compiled and expected.ndim == 2:
        y = np.eye(expected.shape[1], dtype="float32")[[0] * len(expected)]
        values = [one.evaluate(x, y, verbose=0, return_dict=True) for one in (model, theirs, twin)]
        for value in values[1:]:
            assert value.keys() == values[0].keys() == {"loss", "accuracy", "error"}
            assert_close(list(value.values()), [values[0][key] for key in value], 1e-5)
