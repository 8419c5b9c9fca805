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
    for one, two in zip(
        keras_models.outputs(ours.predict(x, verbose=0)),
        keras_models.outputs(theirs.predict(x, verbose=0)),
        strict=True,
    ):
        assert_close(one, two, 1e-6, name)


def train(name, model, steps=2):
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
