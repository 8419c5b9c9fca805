"""Event files of `TensorBoard`, read back record by record."""

import struct

import numpy as np
import pytest

from numbarnn import Sequential, layers
from numbarnn.callbacks import TensorBoard

pytest.importorskip("tensorboardX")
X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = X.sum(axis=1, keepdims=True)


def summaries(folder):
    """Return {tag: {step: value of the summary}} of the event files in a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.iterdir():
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)  # length, its checksum, the record, its checksum
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value
    return found


def scalars(folder, tag):
    return {step: value.simple_value for step, value in summaries(folder)[tag].items()}


@pytest.fixture
def model():
    model = Sequential([layers.Input((3,)), layers.Dense(2, name="a"), layers.Dense(1, name="b")])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def test_scalars_by_epoch(model, tmp_path):
    board = TensorBoard(tmp_path, write_steps_per_second=True)
    history = model.fit(X, Y, batch_size=4, epochs=3, validation_data=(X, Y), verbose=0, callbacks=board).history
    for name in ("loss", "mae"):
        for folder, key in (("train", name), ("validation", f"val_{name}")):
            found = scalars(tmp_path / folder, f"epoch_{name}")
            assert list(found) == [0, 1, 2]
            np.testing.assert_allclose(list(found.values()), history[key], rtol=1e-6)
        found = scalars(tmp_path / "validation", f"evaluation_{name}_vs_iterations")
        assert list(found) == [2, 4, 6]
        np.testing.assert_allclose(list(found.values()), history[f"val_{name}"], rtol=1e-6)
    assert scalars(tmp_path / "train", "epoch_learning_rate") == pytest.approx({0: 0.01, 1: 0.01, 2: 0.01})
    assert min(scalars(tmp_path / "train", "epoch_steps_per_second").values()) > 0
    assert not any(tag.startswith("batch_") for tag in summaries(tmp_path / "train"))


@pytest.mark.parametrize(("update_freq", "steps"), [("batch", [1, 2, 3, 4]), (3, [3])])
def test_scalars_by_batch(model, tmp_path, update_freq, steps):
    model.fit(X, Y, batch_size=4, epochs=2, verbose=0, callbacks=TensorBoard(tmp_path, update_freq=update_freq))
    assert list(scalars(tmp_path / "train", "batch_loss")) == steps
    assert list(scalars(tmp_path / "train", "epoch_loss")) == [0, 1]


def test_weights_and_the_table_of_layers(model, tmp_path):
    board = TensorBoard(tmp_path, histogram_freq=2, write_images=True)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=board)
    found = summaries(tmp_path / "train")
    histogram = found["a/kernel/histogram"]
    assert list(histogram) == [0, 2]
    assert histogram[2].histo.num == 6
    assert histogram[2].histo.sum == pytest.approx(model.layers[0].kernel.numpy().sum(), rel=1e-5)
    image = found["a/kernel/image"][0].image
    assert (image.height, image.width) == (3, 2)
    (table,) = [value for tag, steps in found.items() if tag.startswith("model") for value in steps.values()]
    assert b"a (Dense)" in table.tensor.string_val[0]


def test_no_graph_if_not_wanted_and_closed_by_errors(model, tmp_path):
    board = TensorBoard(tmp_path, write_graph=False)
    with pytest.raises(ValueError, match="incompatible"):
        model.fit(X[:, :2], Y, verbose=0, callbacks=board)
    assert board._writers == {}
    model.fit(X, Y, verbose=0, callbacks=board)
    assert not any(tag.startswith("model") for tag in summaries(tmp_path / "train"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"histogram_freq": -1}, "`histogram_freq`"),
        ({"update_freq": "step"}, "`update_freq`"),
        ({"profile_batch": 2}, "`profile_batch` is not supported"),
        ({"embeddings_freq": 1}, "`embeddings_freq` is not supported"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        TensorBoard(**options)
