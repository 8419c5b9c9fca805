"""What constructors refuse: every argument that is a flag, a whole number or a number, of every public class."""

import functools
import inspect
import math
import sys

import numpy as np
import pytest

from numbarnn import (
    callbacks,
    checks,
    constraints,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    regularizers,
    saving,
    utils,
)
from numbarnn.optimizers import schedules

ROOMS = layers, optimizers, schedules, losses, metrics, callbacks, initializers, regularizers, constraints
# What the constructors cannot do without.
NEEDED = {
    "units": 3, "input_dim": 5, "output_dim": 3, "rate": 0.5, "activation": "tanh", "n": 2, "target_shape": (3,),
    "dims": (2, 1), "function": abs, "axes": 1, "num_classes": 2, "target_class_ids": [0], "recall": 0.5,
    "precision": 0.5, "sensitivity": 0.5, "specificity": 0.5, "fn": losses.mean_squared_error, "filepath": "a.keras",
    "filename": "a.csv", "schedule": abs, "backup_dir": "backup", "initial_learning_rate": 0.1, "decay_steps": 10,
    "decay_rate": 0.5, "boundaries": [1], "values": [0.1, 0.2], "first_decay_steps": 10, "learning_rate": 0.1,
}  # fmt: skip
MADE = {
    "cell": lambda: layers.LSTMCell(3), "layer": lambda: layers.LSTM(3), "cells": lambda: [layers.LSTMCell(3)],
}  # fmt: skip
# Base classes of others, records, and what takes anything: what is given here is looked at elsewhere, or not at all.
ELSEWHERE = {
    "LayerTrace", "Directions", "InputLayer", "Optimizer", "CallbackList", "Layer", "LearningRateSchedule",
    # Accepted for Keras's sake alone, or nothing but False:
    "BatchNormalization.renorm", "BatchNormalization.renorm_momentum", "BatchNormalization.synchronized",
    "Embedding.sparse",
    # May be an array, or a list:
    "CategoricalFocalCrossentropy.alpha", "Constant.value", "Masking.mask_value",
    # 1 and True are the same:
    "GRU.implementation", "GRUCell.implementation", "LSTM.implementation", "LSTMCell.implementation",
    "SimpleRNN.implementation", "SimpleRNNCell.implementation",
}  # fmt: skip
WRONG = {
    bool: ["no", 2, None],
    int: ["abc", math.nan, [1.0], math.inf],
    float: ["abc", math.nan, [1.0], True],
}


def arguments():
    """Yield (class, needed arguments, name of an argument, wrong value)."""
    found = {getattr(room, name) for room in ROOMS for name in dir(room) if not name.startswith("_")}
    classes = [each for each in found if inspect.isclass(each) and each.__module__.startswith("numbarnn.")]
    for each in sorted(classes, key=lambda each: (each.__module__, each.__qualname__)):
        parameters = [
            p
            for p in inspect.signature(each.__init__).parameters.values()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
        ]
        if each.__name__ in ELSEWHERE:
            continue
        needed = [p.name for p in parameters if p.default is p.empty]
        for p in parameters:
            usual = NEEDED.get(p.name) if p.default is p.empty else p.default
            if f"{each.__name__}.{p.name}" not in ELSEWHERE and type(usual) in WRONG:
                for value in WRONG[type(usual)]:
                    yield each, needed, p.name, value


def test_no_constructor_takes_what_makes_no_sense():
    taken, count = [], 0
    for each, needed, name, value in arguments():
        given = {key: MADE[key]() if key in MADE else NEEDED[key] for key in needed} | {name: value}
        wrong = f"{each.__name__}({name}={value!r})"
        count += 1
        try:
            each(**given)
        except (TypeError, ValueError) as error:
            if name not in str(error):
                taken.append(f"{wrong} says only: {error}")
        else:
            taken.append(wrong)
    assert not taken, "\n".join(taken)
    assert count > 500


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.LSTM(2, dropout="half"), "`dropout` must be a finite number. Received: dropout='half'"),
        (lambda: layers.GRU(2, recurrent_dropout=np.nan), "`recurrent_dropout` must be a finite number"),
        (lambda: layers.LSTM(2, return_sequences="False"), "`return_sequences` must be True or False. Received: .*="),
        (lambda: setattr(layers.Dense(2), "trainable", "no"), "`trainable` must be True or False"),
        (lambda: layers.Reshape((2.5,)), "`target_shape` must be an integer or None. Received: target_shape=2.5"),
        (lambda: layers.BatchNormalization(momentum=1.5), r"`momentum` must be a number in \[0, 1\]"),
        (lambda: optimizers.Adam(-1), "`learning_rate` must be a number >= 0. Received: learning_rate=-1"),
        (lambda: optimizers.SGD(np.nan), "`learning_rate` must be a number >= 0. Received: learning_rate=nan"),
        (lambda: optimizers.RMSprop(epsilon=-1e-7), "`epsilon` must be a number >= 0"),
        (lambda: schedules.CosineDecay(0.1, 10, alpha=-1), "`alpha` must be a number >= 0"),
        (lambda: schedules.PiecewiseConstantDecay([1], ["a", 2]), "`values` must be a finite number. Received"),
        (lambda: losses.BinaryCrossentropy(label_smoothing=2), r"`label_smoothing` must be a number in \[0, 1\]"),
        (lambda: losses.Huber(-1.0), "`delta` must be a number > 0"),
        (lambda: losses.CategoricalFocalCrossentropy(alpha=["a"]), "`alpha` must be a finite number"),
        (lambda: metrics.TopKCategoricalAccuracy(0), "`k` must be an integer >= 1"),
        (lambda: metrics.IoU(2, "ab"), "`target_class_ids` must be a list of integers"),
        (lambda: metrics.Precision(class_id=-1), "`class_id` must be an integer >= 0 or None"),
        (lambda: callbacks.EarlyStopping(baseline="low"), "`baseline` must be a number or None"),
        (lambda: callbacks.ReduceLROnPlateau(factor=-0.5), r"`factor` must be a number in \[0, 1\)"),
        (lambda: callbacks.CSVLogger(3), "`filename` must be a path. Received: filename=3"),
        (lambda: initializers.RandomUniform(1.0, 0.0), "`minval` must be at most `maxval`"),
        (lambda: initializers.RandomNormal(stddev=-1), "`stddev` must be a number >= 0"),
        (lambda: initializers.Constant("a"), "`value` must be a number, or an array of numbers"),
        (lambda: constraints.MinMaxNorm(2.0, 1.0), "`min_value` must be at most `max_value`"),
        (lambda: constraints.MaxNorm(-1), "`max_value` must be a number >= 0"),
    ],
)  # fmt: skip
def test_arguments_out_of_range_are_named(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_numbers_of_numpy_are_as_good_as_pythons():
    assert checks.level("verbose", np.True_) == 1
    layer = layers.LSTM(np.int64(3), dropout=np.float32(0.5), return_sequences=np.bool_(True), use_bias=1)
    assert (layer.units, layer.dropout, layer.return_sequences, layer.cell.use_bias) == (3, 0.5, True, True)
    assert type(layer.return_sequences) is bool and type(layer.cell.use_bias) is bool
    assert type(checks.number("a", np.float64(0.5))) is float and type(checks.integer("a", np.int32(2))) is int
    assert checks.number("a", math.inf, finite=False) == math.inf and checks.number("a", None, optional=True) is None
    with pytest.raises(ValueError, match="`a` must be a finite number >= 0 or None. Received: a=inf"):
        checks.number("a", math.inf, least=0, optional=True)
    assert checks.axes("a", [0, np.int64(1)]) == [0, 1] and checks.level("a", True) == 1
    assert callbacks.EarlyStopping(baseline=-np.inf).baseline == -math.inf


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (checks.number, 10**400),
        (checks.number, -(10**400)),
        (functools.partial(checks.number, finite=False), 10**400),
        (checks.fraction, 10**400),
        (checks.real_numbers, [1, 10**400]),
        (checks.real_numbers, np.array(1.0)),
        (checks.whole_numbers, np.array(1)),
        (lambda _, value: optimizers.SGD(value), 10**400),
    ],
)
def test_what_no_float_holds_and_arrays_without_axes_are_refused_by_name(kind, value):
    with pytest.raises(ValueError, match="`(rates|learning_rate)` must be a "):
        kind("rates", value)


def test_intervals_are_what_they_say():
    bounds = {"least": 0, "above": 0, "most": 1, "below": 1}
    for low in ("least", "above", None):
        for high in ("most", "below", None):
            given = {name: bounds[name] for name in (low, high) if name}
            for value in (-1, 0, 0.5, 1, 2):
                fits = (low is None or value > 0 or (value == 0 and low == "least")) and (
                    high is None or value < 1 or (value == 1 and high == "most")
                )
                if fits:
                    assert checks.number("a", value, **given) == value
                else:
                    with pytest.raises(ValueError, match="`a` must be a number .* Received: a="):
                        checks.number("a", value, **given)


def test_checked_keeps_the_signature_and_refuses_names_that_are_not_there():
    class Kept:
        @checks.checked(b=checks.flag, c=functools.partial(checks.integer, least=1))
        def __init__(self, a, b=False, *, c=2):
            """Take three."""
            self.given = a, b, c

    assert str(inspect.signature(Kept)) == "(a, b=False, *, c=2)" and Kept.__init__.__doc__ == "Take three."
    assert Kept("x", 1, c=np.int64(3)).given == ("x", True, 3)
    with pytest.raises(TypeError, match="positional argument"):
        Kept(1, 0, 3, 4)
    with pytest.raises(TypeError, match=r"has no arguments \['d'\]"):
        checks.checked(d=checks.flag)(Kept.__init__)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 5, 3), "float32")


def classifier(loss):
    model = models.Sequential([layers.Input((5, 3)), layers.GRU(2), layers.Dense(3, activation="softmax")])
    model.compile("sgd", loss)
    return model


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.LSTM(2, activation="tahn"), "activation function identifier: tahn. Did you mean 'tanh'?"),
        (lambda: layers.LSTM(2, kernel_initializer="glorot"), "Did you mean 'glorot_"),
        (lambda: losses.get("mean_square_error"), "mean_square_error. Did you mean 'mean_squared_error'?"),
        (lambda: metrics.get("acuracy"), "metric identifier: acuracy. Did you mean 'accuracy'?"),
        (lambda: optimizers.get("adm"), "optimizer identifier: adm. Did you mean 'adam'?"),
        (lambda: layers.LSTM(2, return_sequence=True), "{'return_sequence': True}. Did you mean 'return_sequences'?"),
        (lambda: layers.LSTM(2, name="a", xyz=1), "passed to LSTM: {'xyz': 1}"),
        (
            lambda: models.Sequential([layers.Input((5, 3)), layers.LSTM(2), layers.LSTM(2)]),
            "Full shape received: (None, 2). Sequences are of shape (batch, timesteps, features)",
        ),
        (lambda: layers.LSTM(2)(np.array([[[None]]], object)), "must hold numbers or booleans. Received: an array of"),
        (lambda: layers.Dense(2)(np.array([["a"]])), "must hold numbers or booleans. Received: an array of dtype <U1"),
        (
            lambda: classifier("categorical_crossentropy").fit(X, np.zeros(4, int), verbose=0),
            "output.shape=(4, 3). Labels that are numbers of classes are for `sparse_categorical_crossentropy`",
        ),
        (
            lambda: classifier("sparse_categorical_crossentropy").fit(X, np.eye(4, 3), verbose=0),
            "output.shape=(4, 3). Labels that are one-hot vectors are for `categorical_crossentropy`",
        ),
    ],
)  # fmt: skip
def test_mistakes_of_beginners_are_told_with_the_way_out(make, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert message in str(caught.value)
    assert ("Did you mean" in message) == ("Did you mean" in str(caught.value))


def of_objects(sequences):
    array = np.empty(len(sequences), object)
    array[:] = sequences
    return array


def reader():
    model = models.Sequential([layers.Input((None, 3)), layers.GRU(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


SEVERAL = (
    "A list is taken as several inputs; sequences of different lengths go in as `numbarnn.utils.Ragged(list)`, of "
)


@pytest.mark.parametrize("lengths", [(2, 3), (3, 3), (2, 2), (2, 3, 4)])
@pytest.mark.parametrize("built", [True, False])
def test_a_list_of_sequences_is_told_how_to_go_in(lengths, built):
    model = reader() if built else models.Sequential([layers.GRU(2), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = [np.ones((n, 3), "float32") for n in lengths], np.zeros(len(lengths))
    calls = [
        lambda: model.fit(x, y, verbose=0), lambda: model.evaluate(tuple(x), y, verbose=0),
        lambda: model.predict(x, verbose=0), lambda: model.train_on_batch(x, y), lambda: model.test_on_batch(x, y),
        lambda: model.predict_on_batch(x), lambda: model.fit(iter([(x, y)]), verbose=0),
    ]  # fmt: skip
    for number, call in enumerate(calls):
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value).endswith(SEVERAL + "equal length as `np.stack(list)`."), number
        ambiguous = len({*lengths, *([len(lengths)] if number not in (2, 5) else [])}) > 1
        assert ("Data cardinality is ambiguous" in str(caught.value)) == ambiguous
    for call in (model.fit, model.train_on_batch):
        with pytest.raises(TypeError, match=r"dtype object.*Ragged\(list\)`, of equal length as `np.stack\(list\)`"):
            call(of_objects(x), y)


def test_lists_for_several_inputs_hear_nothing_of_sequences():
    a, b = layers.Input((2,)), layers.Input((2,))
    model = models.Model([a, b], layers.Dense(1)(layers.add([a, b])))
    model.compile("sgd", "mse")
    x = np.ones((4, 2), "float32")
    assert model.predict([x, x], verbose=0).shape == (4, 1)
    with pytest.raises(ValueError, match="Data cardinality is ambiguous") as caught:
        model.fit([x, x[1:]], np.zeros(4), verbose=0)
    assert "Ragged" not in str(caught.value)
    with pytest.raises(TypeError, match="dtype object") as caught:
        model.fit([x, np.full((4, 2), None)], np.zeros(4), verbose=0)
    assert "Ragged" not in str(caught.value)


class Forgetful(layers.Layer):
    state_size = output_size = 2

    def __init__(self):
        self.units = 2

    def call(self, inputs, states):
        return inputs, states


@pytest.mark.parametrize(
    "make, kind, message",
    [
        (
            lambda: models.Sequential(layers.LSTM(3), layers.Dense(1)),
            ValueError,
            "Sequential takes one list of layers: Sequential([a, b]).",
        ),
        (
            lambda: models.Sequential(layers.Input((3,)), layers.Dense(1), layers.Dense(1), layers.Dense(1)),
            ValueError,
            "Sequential takes one list of layers: Sequential([a, b]).",
        ),
        (
            lambda: layers.Input(None, 1),
            ValueError,
            "You must pass a `shape` argument. `shape` is one tuple: Input((None, 1))",
        ),
        (
            lambda: layers.RNN(Forgetful()),
            RuntimeError,
            "In layer 'Forgetful', you forgot to call `super().__init__()`",
        ),
        (lambda: layers.RNN([layers.LSTMCell(2), Forgetful()]), RuntimeError, "In layer 'Forgetful', you forgot"),
        (lambda: optimizers.Adam(lr=0.1), ValueError, "not recognized: {'lr': 0.1}. Did you mean 'learning_rate'?"),
        (lambda: optimizers.Adam(beta1=0.1), ValueError, "not recognized: {'beta1': 0.1}. Did you mean 'beta_1'?"),
        (lambda: optimizers.SGD("0.1"), ValueError, "`learning_rate` must be a number or a schedule"),
        (
            lambda: layers.LSTM(4, batch_first=True),
            ValueError,
            "passed to LSTM: {'batch_first': True}. Inputs are (batch, timesteps, features) anyway; with "
            "`time_major=True` (timesteps, batch, features)",
        ),
        (lambda: layers.LSTM(4, dtype="int32"), ValueError, "`dtype` must be a floating point type"),
        (lambda: layers.GRUCell(4, dtype=np.int32), ValueError, "`dtype` must be a floating point type"),
        (lambda: layers.LSTM(4)(X * 1j), TypeError, "computes in float32, which has no imaginary part. Received: an a"),
        (lambda: layers.Dense(4)(X * 1j), TypeError, "computes in float32, which has no imaginary part"),
        (lambda: layers.LSTMCell(4)(X[0] * 1j, [np.zeros((5, 4))] * 2), TypeError, "which has no imaginary part"),
        (
            lambda: layers.LSTM(4, name="read")(X, state=1),
            TypeError,
            "Call of layer 'read' (of type LSTM): got an unexpected keyword argument 'state'. It takes (sequences, ",
        ),
        (
            lambda: layers.LSTM(4, name="read")(layers.Input((5, 3)), state=1),
            TypeError,
            "Call of layer 'read' (of type LSTM): got an unexpected keyword argument 'state'. It takes (sequences, ",
        ),
        (
            lambda: layers.LSTMCell(4, name="step")(X[0]),
            TypeError,
            "Call of layer 'step' (of type LSTMCell): missing a required argument: 'states'. It takes (inputs, states,",
        ),
        (lambda: layers.Dense(4, name="head")(), TypeError, "Call of layer 'head' (of type Dense): missing a required"),
        (lambda: reader().compile(optimiser="sgd"), TypeError, "Model.compile() got an unexpected keyword argument"),
        (lambda: reader().fit(X, nb_epoch=3), TypeError, "Model.fit() got an unexpected keyword argument 'nb_epoch'"),
        (lambda: reader().fit(X, callbacks=[3]), TypeError, "`callbacks` must hold instances of"),
        (
            lambda: models.Model(np.zeros((50, 3)), np.zeros((50, 3))),
            ValueError,
            "Received: inputs=array of shape (50, 3), dtype float64 including invalid value array of shape (50, 3), ",
        ),
    ],
)  # fmt: skip
def test_first_steps_that_go_wrong(make, kind, message):
    with pytest.raises(kind) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "train_on_batch"])
def test_who_passes_a_mask_is_told_where_masks_come_from(method):
    with pytest.raises(TypeError) as caught:
        getattr(reader(), method)(X, mask=np.ones((4, 5), bool))
    assert str(caught.value) == (
        f"Model.{method}() got an unexpected keyword argument 'mask'. Masks come from `numbarnn.utils.Ragged`, "
        "`Masking` or `Embedding(mask_zero=True)`"
    )


def test_a_type_error_within_a_call_is_left_as_it_is():
    class Broken(layers.Layer):
        def call(self, inputs):
            return len(3)

    with pytest.raises(TypeError, match="^object of type 'int' has no len"):
        Broken()(X)


class Unknown(layers.Layer):
    def call(self, inputs):
        return inputs


def test_files_that_cannot_be_written_or_read_say_why(tmp_path, monkeypatch):
    model = reader()
    for save, name in ((model.save, "a.numbarnn"), (model.save_weights, "a.weights.numbarnn")):
        with pytest.raises(FileNotFoundError) as caught:
            save(tmp_path / "none" / name)
        assert caught.value.filename == str(tmp_path.resolve() / "none")
        assert f"Cannot write '{name}' into this folder: there is no such folder" in str(caught.value)
    path = tmp_path / "c.numbarnn"
    models.Sequential([layers.Input((3,)), Unknown()]).save(path)
    with pytest.raises(ValueError) as caught:
        models.load_model(path)
    assert f"{path} cannot be loaded: Could not locate class 'Unknown'" in str(caught.value)
    assert "decorated with `numbarnn.saving.register_keras_serializable()`" in str(caught.value)
    assert utils.register_keras_serializable is saving.register_keras_serializable
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'numbarnn\[hdf5\]'"):
        model.save_weights(tmp_path / "a.weights.h5")
