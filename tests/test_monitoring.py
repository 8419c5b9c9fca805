"""Callbacks that watch what is reported. Where no reason is given, what is expected was recorded from Keras 3.15."""

import math
import operator

import numpy as np
import pytest
from callback_series import CHECKPOINT, CHECKPOINT_FILE, EARLY_STOPPING, PLATEAU, SERIES, decisions

import numbarnn
from numbarnn import Sequential, layers
from numbarnn.callbacks import (
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
)


@pytest.fixture
def model():
    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


X = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
Y = X.sum(axis=1, keepdims=True)


# -- EarlyStopping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "better_and_worse", "hardly_better", "constant"),
    [
        (0, (3, 3), (8, 8), (2, 2)),
        (1, (6, 6), (8, 8), (3, 3)),
        (2, (6, 4), (3, 1), (3, 1)),
        (3, (3, 3), (8, 8), (4, 4)),
        (4, (5, 4), (8, 8), (5, 4)),
        (5, (3, 1), (3, 1), (3, 1)),
        (6, (3, 2), (8, 8), (2, 1)),
    ],
)
def test_early_stopping_ends_when_keras_does(options, better_and_worse, hardly_better, constant):
    """Pairs: after how many epochs, and of which (from 1) the weights are."""
    for series, expected in (
        ("better and worse", better_and_worse),
        ("hardly better", hardly_better),
        ("constant", constant),
    ):
        found = decisions(EarlyStopping(**EARLY_STOPPING[options]), SERIES[series])
        assert (found["epochs"], *found["weights"]) == expected, series


def test_early_stopping_says_what_it_does():
    found = decisions(EarlyStopping(**EARLY_STOPPING[2]), SERIES["better and worse"])
    assert found["printed"] == ("Epoch 6: early stopping\nRestoring model weights from the end of the best epoch: 4.\n")


def test_a_missing_number_is_warned_of():
    found = decisions(EarlyStopping(patience=1), [1.0, None, 1.0])
    assert found["warned"] == [
        "Early stopping conditioned on metric `val_loss` which is not available. Available metrics are: other"
    ]
    found = decisions(ReduceLROnPlateau(patience=1), [1.0, None])
    assert found["warned"] == [
        "Learning rate reduction is conditioned on metric `val_loss` which is not available. "
        "Available metrics are: other,learning_rate."
    ]
    found = decisions(ModelCheckpoint("m.keras", save_best_only=True), [1.0, None])
    assert found["warned"] == ["Can save best model only with val_loss available."]
    assert len(found["saved"]) == 2


def test_any_number_is_better_than_nan():
    """In Keras nothing is, so that a NaN in the first epoch would be the best for ever."""
    series = [math.nan, 3.0, math.nan, 2.0]
    assert decisions(EarlyStopping(patience=2), series)["epochs"] == 4
    saved = decisions(ModelCheckpoint(CHECKPOINT_FILE, save_best_only=True), series)["saved"]
    assert saved == ["e01.keras", "e02.keras", "e04.keras"]


@pytest.mark.parametrize(
    ("monitor", "better"),
    [("val_mae", operator.lt), ("acc", operator.gt), ("loss", operator.lt), ("val_auc", operator.gt)],
)
def test_mode_auto_goes_by_the_direction_of_the_metric(monitor, better):
    model = Sequential([layers.Input((3,)), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=["mae", "acc", numbarnn.metrics.AUC(name="auc")])
    stop = EarlyStopping(monitor, patience=9)
    labels = (Y > 0).astype("float32")
    model.fit(X, labels, validation_data=(X, labels), verbose=0, callbacks=stop)
    assert stop._is_better(1.0, 2.0) == better(1.0, 2.0)
    assert stop._is_better(2.0, 1.0) == better(2.0, 1.0)


def test_losses_of_outputs_have_a_direction_and_unknown_metrics_have_none(model):
    inputs = layers.Input((3,))
    two = numbarnn.Model(inputs, [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)])
    two.compile("sgd", "mse")
    stop = EarlyStopping("val_a_loss", patience=9)
    two.fit(X, [Y, Y], validation_data=(X, [Y, Y]), verbose=0, callbacks=stop)
    assert stop._is_better(1.0, 2.0)

    def own(y_true, y_pred):
        return numbarnn.ops.mean(y_pred, axis=-1)

    model.compile("sgd", "mse", metrics=[own])
    with pytest.raises(ValueError, match=r"monitor=own.*Pass `mode='max'`"):
        model.fit(X, Y, verbose=0, callbacks=EarlyStopping("own"))
    model.fit(X, Y, verbose=0, callbacks=EarlyStopping("own", mode="max"))


def test_early_stopping_gives_back_the_best_weights(model):
    """The second epoch is made worse than the first; its weights must be gone."""
    kept = []

    def spoil(epoch, logs):
        kept.append(model.get_weights())
        model.set_weights([w + 100 for w in kept[-1]])

    stop = EarlyStopping("loss", patience=1, restore_best_weights=True)
    history = model.fit(X, Y, epochs=9, verbose=0, callbacks=[stop, LambdaCallback(on_epoch_end=spoil)])
    assert history.epoch == [0, 1] and stop.stopped_epoch == 1 and stop.best_epoch == 0
    for now, best in zip(model.get_weights(), kept[0], strict=True):
        np.testing.assert_array_equal(now, best)


# -- learning rates ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        (0, [1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001]),
        (1, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625, 0.0625, 0.03125, 0.03125]),
        (2, [1.0, 1.0, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05]),
    ],
)
def test_reduce_lr_on_plateau(options, rates):
    found = decisions(ReduceLROnPlateau(**PLATEAU[options]), SERIES["better and worse"])["rates"]
    np.testing.assert_allclose([rate for rate, _ in found], rates, rtol=1e-12)
    assert [logged for _, logged in found] == [1.0] + [rate for rate, _ in found][:-1]


def test_reduced_learning_rates_are_those_of_the_training(model):
    reduce = ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=100)
    history = model.fit(X, Y, epochs=4, verbose=0, callbacks=reduce).history
    np.testing.assert_allclose(history["learning_rate"], [0.01, 0.01, 0.005, 0.0025], rtol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.00125)


def test_learning_rate_scheduler(model, capsys):
    both = LearningRateScheduler(lambda epoch, rate: rate / 2, verbose=1)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=both).history
    np.testing.assert_allclose(history["learning_rate"], [0.005, 0.0025, 0.00125], rtol=1e-12)
    assert capsys.readouterr().out.startswith("\nEpoch 1: LearningRateScheduler setting learning rate to 0.005.\n")
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=LearningRateScheduler(lambda epoch: 0.5 * epoch)).history
    assert history["learning_rate"] == [0.0, 0.5]
    with pytest.raises(ValueError, match=r"should be a float. Got: 1$"):
        model.fit(X, Y, verbose=0, callbacks=LearningRateScheduler(lambda epoch: 1))


def test_a_type_error_in_a_schedule_is_not_hidden(model):
    """Keras would call it again with the epoch alone, and complain about that."""

    def schedule(epoch, rate):
        return rate + "1"

    with pytest.raises(TypeError, match="unsupported operand"):
        model.fit(X, Y, verbose=0, callbacks=LearningRateScheduler(schedule))


# -- ModelCheckpoint: which files; what is in them is tested where models are saved ----------------------------------


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        (0, "01 02 04 08"),
        (1, "01"),
        (2, "01 02 03 04 05 06 07 08 09 10 11 12"),
        (3, "01 02 03 03 04 05 06 06 07 08 09 09 10 11 12 12"),
        (4, "02 03 04 05 07 08 09 10 12"),
    ],
)
def test_model_checkpoint_saves_when_keras_does(options, saved):
    callback = ModelCheckpoint(CHECKPOINT_FILE, **CHECKPOINT[options])
    found = decisions(callback, SERIES["better and worse"], batches=range(4))["saved"]
    assert found == [f"e{epoch}.keras" for epoch in saved.split()]


def test_fields_of_the_file_name():
    callback = ModelCheckpoint("{epoch:03d}-{val_loss:.2f}.weights.h5", save_weights_only=True)
    assert decisions(callback, [0.123, 5])["saved"] == ["001-0.12.weights.h5", "002-5.00.weights.h5"]
    callback = ModelCheckpoint("{epoch}-{batch}.keras", save_freq=2)
    assert decisions(callback, [1.0, 1.0], batches=range(3))["saved"] == ["1-2.keras", "2-1.keras", "2-3.keras"]
    with pytest.raises(KeyError, match=r"Failed to format this callback filepath.*accuracy"):
        decisions(ModelCheckpoint("{accuracy}.keras"), [1.0])


def test_the_files_hold_the_model_of_their_epoch(model, tmp_path):
    kept = []
    model.fit(
        X,
        Y,
        epochs=3,
        verbose=0,
        callbacks=[
            ModelCheckpoint(tmp_path / "new" / "{epoch}-{loss:.3f}.numbarnn"),
            ModelCheckpoint(tmp_path / "{epoch}.weights.numbarnn", save_weights_only=True),
            LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append((f"{logs['loss']:.3f}", model.get_weights()))),
        ],
    )
    for epoch, (loss, weights) in enumerate(kept, 1):
        whole = numbarnn.models.load_model(tmp_path / "new" / f"{epoch}-{loss}.numbarnn")
        model.load_weights(tmp_path / f"{epoch}.weights.numbarnn")
        assert int(whole.optimizer.iterations) == epoch
        for a, b, c in zip(whole.get_weights(), model.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, c)
    (tmp_path / "1.numbarnn").mkdir()
    with pytest.raises(IsADirectoryError, match="Please specify a non-directory filepath"):
        model.fit(X, Y, verbose=0, callbacks=ModelCheckpoint(tmp_path / "{epoch}.numbarnn"))


# -- CSVLogger -----------------------------------------------------------------------------------------------------


def test_csv_files(model, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("of before\n")
    first = model.fit(X, Y, epochs=2, verbose=0, callbacks=CSVLogger(path, separator=";")).history
    second = model.fit(
        X, Y, epochs=1, verbose=0, validation_data=(X, Y), callbacks=CSVLogger(path, separator=";", append=True)
    ).history
    lines = path.read_bytes().decode().split("\r\n")
    assert lines[0] == "epoch;loss;mae;val_loss;val_mae"
    assert lines[1] == f"0;{first['loss'][0]!r};{first['mae'][0]!r};NA;NA"
    assert lines[2].startswith("1;")
    assert lines[3] == ";".join(["0", *(repr(second[name][0]) for name in ("loss", "mae", "val_loss", "val_mae"))])
    assert lines[4:] == [""]


def test_csv_file_is_emptied_by_a_fit_of_no_epochs_and_closed_by_errors(model, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("of before\n")
    logger = CSVLogger(path)
    model.fit(X, Y, epochs=1, initial_epoch=1, verbose=0, callbacks=logger)
    assert path.read_text() == "" and logger.csv_file is None

    def fail(epoch, logs):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        model.fit(X, Y, verbose=0, callbacks=[logger, LambdaCallback(on_epoch_end=fail)])
    assert logger.csv_file is None and len(path.read_text().splitlines()) == 2


# -- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: EarlyStopping(patience=-1), ValueError, "`patience` must be an integer >= 0. Received: pat"),
        (lambda: EarlyStopping(monitor=3), TypeError, "`monitor` must be the name"),
        (lambda: EarlyStopping(start_from_epoch=1.5), ValueError, "`start_from_epoch`"),
        (
            lambda: ReduceLROnPlateau(factor=1.0),
            ValueError,
            r"`factor` must be a number in \[0, 1\). Received:",
        ),
        (lambda: ReduceLROnPlateau(cooldown="a"), ValueError, "`cooldown`"),
        (lambda: LearningRateScheduler(0.1), TypeError, "`schedule` must be a function"),
        (lambda: ModelCheckpoint("model"), ValueError, r"must end in \.numbarnn or \.keras.*Received: filepath=model"),
        (
            lambda: ModelCheckpoint("model.keras", save_weights_only=True),
            ValueError,
            r"must end in \.weights\.numbarnn or \.w",
        ),
        (lambda: ModelCheckpoint("a.weights.h5"), ValueError, r"must end in \.numbarnn or \.keras.*=a\.weights\.h5"),
        (lambda: ModelCheckpoint("model.keras", save_freq="batch"), ValueError, "Unrecognized save_freq: batch"),
        (lambda: ModelCheckpoint("model.keras", save_freq=0), ValueError, "Unrecognized save_freq: 0"),
        (lambda: CSVLogger("log.csv", separator=", "), ValueError, "`separator` must be one character"),
        (lambda: LambdaCallback(on_epoch_finish=print), TypeError, "`on_epoch_finish` is no method of `Callback`"),
        (lambda: LambdaCallback(on_epoch_end=3), TypeError, "`on_epoch_end` must be a function"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_unknown_mode_is_warned_of():
    with pytest.warns(UserWarning, match="EarlyStopping mode 'best' is unknown, fallback to auto mode"):
        assert EarlyStopping(mode="best").mode == "auto"
