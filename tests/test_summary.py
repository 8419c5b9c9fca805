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


TRANSLATOR = """Model: "model"
__________________________________________________________________________________________________
Layer (type)                    Output Shape         Param #     Connected to                     
==================================================================================================
input_1 (InputLayer)            [(None, None)]       0                                            
__________________________________________________________________________________________________
input_2 (InputLayer)            [(None, None)]       0                                            
__________________________________________________________________________________________________
embedding_2 (Embedding)         (None, None, 64)     64000       input_1[0][0]                    
__________________________________________________________________________________________________
embedding_3 (Embedding)         (None, None, 64)     128000      input_2[0][0]                    
__________________________________________________________________________________________________
encoder (LSTM)                  [(None, 64), (None,  33024       embedding_2[0][0]                
__________________________________________________________________________________________________
decoder (LSTM)                  (None, 64)           33024       embedding_3[0][0]                
                                                                 encoder[0][1]                    
                                                                 encoder[0][2]                    
__________________________________________________________________________________________________
dense_2 (Dense)                 (None, 10)           650         decoder[0][0]                    
==================================================================================================
Total params: 258,698
Trainable params: 258,698
Non-trainable params: 0
__________________________________________________________________________________________________"""  # noqa: W291


def translator():
    """The guide's third model; its two before it take the first names."""
    for _ in range(2):
        models.Sequential([layers.Embedding(1000, 64), layers.Dense(10)])
    encoder_input = layers.Input(shape=(None,))
    embedded = layers.Embedding(input_dim=1000, output_dim=64)(encoder_input)
    _, state_h, state_c = layers.LSTM(64, return_state=True, name="encoder")(embedded)
    decoder_input = layers.Input(shape=(None,))
    embedded = layers.Embedding(input_dim=2000, output_dim=64)(decoder_input)
    decoded = layers.LSTM(64, name="decoder")(embedded, initial_state=[state_h, state_c])
    return models.Model([encoder_input, decoder_input], layers.Dense(10)(decoded))


def test_the_guide_s_encoder_and_decoder():
    model = translator()
    assert "\n".join(lines(model)) == TRANSLATOR
    shown = lines(model, show_trainable=True, line_length=120)
    assert all(len(line) == 120 for line in shown[1:-4])
    assert shown[2].split() == "Layer (type) Output Shape Param # Connected to Trainable".split()
    assert any("encoder[0][2]" in line for line in shown) and shown[-4] == "Total params: 258,698"
    with pytest.raises(ValueError, match="each of 4 columns"):
        lines(model, positions=[0.3, 0.5, 1.0])


def test_a_functional_chain_needs_no_connections():
    x = layers.Input((3,), name="x")
    found = lines(models.Model(x, layers.Dense(2)(layers.Dense(4)(x))))
    assert len(found[1]) == 65 and not any("Connected" in line for line in found)
    assert [line.split()[0] for line in found[4:-4:2]] == ["x", "dense_1", "dense"]
    assert found[4].split()[1:] == ["(InputLayer)", "[(None,", "3)]", "0"]


def connections(found):
    """The last column, rows by rows."""
    return [line[65:].strip() for line in found[4:-4] if set(line) - set("_=")]


def test_shared_layers_and_operations_say_which_call():
    a, b = layers.Input((3,), name="a"), layers.Input((3,), name="b")
    shared = layers.Dense(3, name="shared")
    shared(a)  # a call that is no part of the model
    total = (shared(a) + shared(b)) + shared(shared(b))
    found = lines(models.Model([a, b], total))
    rows = [line.split()[:2] for line in found[4:-4] if set(line) - set("_=") and not line.startswith(" ")]
    assert rows == [
        ["a", "(InputLayer)"], ["b", "(InputLayer)"], ["shared", "(Dense)"], ["add", "(Operation)"],
        ["add_1", "(Operation)"],
    ]  # fmt: skip
    assert connections(found)[2:6] == ["a[0][0]", "b[0][0]", "b[0][0]", "shared[3][0]"]
    assert sorted(connections(found)[6:8]) == ["shared[1][0]", "shared[2][0]"]
    assert connections(found)[8:] == ["add[0][0]", "shared[4][0]"]
    # the calls of a layer in the order in which they were made, whatever the outputs come from first
    first, second = shared(a), shared(b)
    assert connections(lines(models.Model([a, b], [second, first])))[2:4] == ["a[0][0]", "b[0][0]"]
    assert found[-4] == "Total params: 12"


def test_functional_models_within():
    x, y = layers.Input((3,)), layers.Input((3,))
    inner = models.Model([x, y], [layers.Dense(4, name="within")(layers.add([x, y])), y], name="inner")
    model = models.Model([x, y], layers.concatenate(inner([x, y])))
    plain, nested = lines(model), lines(model, expand_nested=True)
    assert len(nested) == len(plain) + 2 * len(inner.layers) + 1 and len(plain[1]) == 98
    row = next(line for line in plain if line.startswith("inner (Functional)"))
    assert "[(None, 4), (None, 3" in row and row.endswith("input_1[0][0]".ljust(33))
    assert next(line for line in nested if line.startswith("| within (Dense)"))[65:].strip() == "add[0][0]"
    stacked = models.Sequential([layers.Input((3,)), models.Model(x, layers.Dense(2, name="below")(x), name="stack")])
    assert any(line.startswith("| below (Dense)") for line in lines(stacked, expand_nested=True))
