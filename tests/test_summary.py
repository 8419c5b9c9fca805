"""The table of `summary`."""

import pytest

from numbarnn import backend, layers, models

GUIDE = """Model: "sequential"
_________________________________________________________________
Layer (type)                 Output Shape              Param #   
=================================================================
embedding (Embedding)        (None, None, 64)          64000     
_________________________________________________________________
lstm (LSTM)                  (None, 128)               98816     
_________________________________________________________________
dense (Dense)                (None, 10)                1290      
=================================================================
Total params: 164,106
Trainable params: 164,106
Non-trainable params: 0
_________________________________________________________________"""  # noqa: W291


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()


def lines(model, **kwargs):
    found = []
    model.summary(print_fn=found.append, **kwargs)
    return found


def test_the_guide_s_first_model():
    model = models.Sequential()
    model.add(layers.Embedding(input_dim=1000, output_dim=64))
    model.add(layers.LSTM(128))
    model.add(layers.Dense(10))
    assert "\n".join(lines(model)) == GUIDE
    assert [layer.count_params() for layer in model.layers] == [64_000, 98_816, 1_290]
    assert model.count_params() == 164_106


def small():
    return models.Sequential([layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])


def test_not_trainable_weights_are_counted_apart(capsys):
    model = small()
    model.summary()
    text = capsys.readouterr().out
    assert "Total params: 42\nTrainable params: 34\nNon-trainable params: 8\n" in text
    model.layers[0].trainable = False
    assert lines(model)[-3:-1] == ["Trainable params: 18", "Non-trainable params: 24"]


def test_layout_arguments():
    wide = lines(small(), line_length=100)
    assert all(len(line) == 100 for line in wide[1:-4])
    shifted = lines(small(), positions=[0.5, 0.8, 1.0])
    assert shifted[2].index("Output Shape") == 32 and shifted[2].index("Param #") == 52
    trainable = lines(small(), show_trainable=True)
    assert trainable[2].rstrip().endswith("Trainable") and trainable[4].rstrip().endswith("Y")
    with pytest.raises(ValueError, match="positions"):
        lines(small(), positions=[0.5, 1.0])


def test_layer_range():
    found = lines(small(), layer_range=["batch", "dense_1"])
    assert [line.split()[0] for line in found[4:8:2]] == ["batch_normalization", "dense_1"]
    assert not any(line.startswith("dense (") for line in found)
    with pytest.raises(ValueError, match="layer_range"):
        lines(small(), layer_range=["foo", "bar"])


def test_nested_models():
    model = models.Sequential([small(), layers.Dense(1)])
    plain, nested = lines(model), lines(model, expand_nested=True)
    assert plain[4].startswith("sequential (Sequential)") and "(None, 2)" in plain[4]
    assert any(line.startswith("| dense (Dense)") for line in nested)
    assert plain[-4] == nested[-4] == "Total params: 45"


def test_unbuilt():
    model = models.Sequential([layers.Dense(4)])
    assert "?" in lines(model)[4] and "0 (unbuilt)" in lines(model)[4]
