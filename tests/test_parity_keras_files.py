"""Files of Keras: what live Keras 3 writes, numbarnn reads, and the other way round."""

import keras_models
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
