"""Callbacks against live Keras: the order of calls, decisions on the same series of logs, files."""

import warnings

import numpy as np
import pytest
from callback_series import CHECKPOINT, CHECKPOINT_FILE, EARLY_STOPPING, PLATEAU, SERIES, decisions

import numbarnn
from numbarnn.callbacks import callback_list

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def keras():
    return pytest.importorskip("keras")


def same(ours, theirs):
    for key in theirs:
        if key == "rates":
            np.testing.assert_array_equal(np.array(ours[key], float), np.array(theirs[key], float))
        else:
            assert ours[key] == theirs[key], key


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("options", EARLY_STOPPING, ids=str)
def test_early_stopping(keras, options, series):
    made = [library.callbacks.EarlyStopping for library in (numbarnn, keras)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the wrong mode
        ours, theirs = (EarlyStopping(**options) for EarlyStopping in made)
    same(decisions(ours, SERIES[series]), decisions(theirs, SERIES[series]))
    for name in ("wait", "stopped_epoch", "best_epoch"):
        assert getattr(ours, name) == getattr(theirs, name)
    np.testing.assert_equal(ours.best, theirs.best)


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("options", PLATEAU, ids=str)
def test_reduce_lr_on_plateau(keras, options, series):
    same(*(decisions(library.callbacks.ReduceLROnPlateau(**options), SERIES[series]) for library in (numbarnn, keras)))


@pytest.mark.parametrize("series", SERIES)
@pytest.mark.parametrize("options", CHECKPOINT, ids=str)
def test_model_checkpoint(keras, options, series):
    same(
        *(
            decisions(library.callbacks.ModelCheckpoint(CHECKPOINT_FILE, **options), SERIES[series], batches=range(4))
            for library in (numbarnn, keras)
        )
    )


def test_learning_rate_scheduler(keras):
    for schedule in (lambda epoch, rate: rate * 0.5, lambda epoch: 0.1 / (epoch + 1)):
        same(
            *(
                decisions(library.callbacks.LearningRateScheduler(schedule, verbose=1), [1.0] * 4)
                for library in (numbarnn, keras)
            )
        )


def recorder(base):
    """Return a callback that writes down each hook with its number and the names of its logs."""

    class Record(base):
        def __init__(self):
            super().__init__()
            self.calls = []

    for hook in (*callback_list._HOOKS, "on_batch_begin", "on_batch_end"):

        def method(self, *args, hook=hook, logs=None):
            number = next((a for a in args if not isinstance(a, dict)), None)
            logs = next((a for a in args if isinstance(a, dict)), logs)
            self.calls.append((hook, number, sorted(logs or {})))
            number = () if number is None else (number,)
            getattr(super(Record, self), hook)(*number, logs)

        setattr(Record, hook, method)
    return Record()


def run(library, stop):
    """Run fit, evaluate and predict; return all calls, and `params` as seen."""
    model = library.Sequential([library.layers.Input((3,)), library.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((20, 3), "float32"), np.ones((20, 1), "float32")
    record = recorder(library.callbacks.Callback)

    class Stop(library.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if stop == ("batch", batch):
                self.model.stop_training = True

        def on_epoch_end(self, epoch, logs=None):
            if stop == ("epoch", epoch):
                self.model.stop_training = True

    history = model.fit(
        x, y, batch_size=6, epochs=4, initial_epoch=1, validation_split=0.4, verbose=0, callbacks=[record, Stop()]
    )
    params = [dict(record.params)]
    model.evaluate(x, y, batch_size=8, verbose=0, callbacks=[record])
    params.append(dict(record.params))
    model.predict(x, batch_size=8, verbose=0, callbacks=[record])
    params.append(dict(record.params))
    return record.calls, history.epoch, sorted(history.history), params


@pytest.mark.parametrize("stop", [None, ("batch", 0), ("batch", 1), ("epoch", 2)])
def test_order_of_calls(keras, stop):
    ours, theirs = run(numbarnn, stop), run(keras, stop)
    assert ours == theirs


def test_csv_files_hold_the_same(keras, tmp_path):
    """Numbers aside, which rounding tells apart: those that are reported are written in full."""
    x = np.linspace(-1, 1, 24, dtype="float32").reshape(8, 3)
    y = x.sum(axis=1, keepdims=True)
    texts = {}
    for library in (numbarnn, keras):
        model = library.Sequential([library.layers.Input((3,)), library.layers.Dense(1)])
        model.set_weights([np.ones((3, 1)), np.zeros(1)])
        model.compile("sgd", "mse", metrics=["mae"])
        path = tmp_path / f"{library.__name__}.csv"
        options = {"batch_size": 4, "shuffle": False, "verbose": 0}
        for append, validation in ((False, None), (True, (x, y))):
            logger = library.callbacks.CSVLogger(path, separator=";", append=append)
            model.fit(x, y, epochs=2, validation_data=validation, callbacks=logger, **options)
        texts[library.__name__] = path.read_bytes().decode().split("\r\n")
    ours, theirs = texts["numbarnn"], texts["keras"]
    assert len(ours) == len(theirs) == 6
    assert ours[0] == theirs[0] == "epoch;loss;mae;val_loss;val_mae"
    for mine, other in zip(ours[1:-1], theirs[1:-1], strict=True):
        for a, b in zip(mine.split(";"), other.split(";"), strict=True):
            assert a == b or float(a) == pytest.approx(float(b), rel=1e-5, abs=1e-7)
    assert ours[1].endswith("NA;NA")


def test_directions_of_metrics(keras):
    arguments = {
        "IoU": (2, [0]), "OneHotIoU": (2, [0]), "MeanIoU": (2,), "OneHotMeanIoU": (2,), "MeanMetricWrapper": (len,),
        "SensitivityAtSpecificity": (0.5,), "SpecificityAtSensitivity": (0.5,), "PrecisionAtRecall": (0.5,),
        "RecallAtPrecision": (0.5,),
    }  # fmt: skip
    tried = 0
    for name, kind in vars(keras.metrics).items():
        if isinstance(kind, type) and issubclass(kind, keras.metrics.Metric) and hasattr(numbarnn.metrics, name):
            theirs = getattr(kind(*arguments.get(name, ())), "_direction", None)
            assert getattr(numbarnn.metrics, name)._direction == theirs, name
            tried += 1
    assert tried > 30


@pytest.mark.parametrize(
    ("metric", "monitor"),
    [("mae", "val_mae"), ("accuracy", "val_accuracy"), ("a loss", "huber"), ("mse", "loss"), ("mse", "val_mse")],
)
def test_mode_auto_finds_the_same_direction(keras, metric, monitor):
    found = []
    for library in (numbarnn, keras):
        model = library.Sequential([library.layers.Input((3,)), library.layers.Dense(1)])
        model.compile("sgd", "mse", metrics=[library.losses.huber if metric == "a loss" else metric])
        stop = library.callbacks.EarlyStopping(monitor, patience=100)
        x = np.ones((4, 3), "float32")
        model.fit(x, x[:, :1], validation_data=(x, x[:, :1]), verbose=0, callbacks=stop)
        better = stop._is_better if library is numbarnn else stop._is_improvement
        found.append((better(1.0, 2.0), better(2.0, 1.0)))
    assert found[0] == found[1]


def test_terminate_on_nan(keras, capsys):
    said = []
    for library in (numbarnn, keras):
        model = library.Sequential([library.layers.Input((3,)), library.layers.Dense(1)])
        model.compile("sgd", "mse")
        x = np.ones((12, 3), "float32")
        x[9] = np.nan  # in the last batch: Keras may be a batch late, its callbacks run in another thread
        options = {"batch_size": 4, "shuffle": False, "verbose": 0, "epochs": 3}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            history = model.fit(x, x[:, :1], callbacks=library.callbacks.TerminateOnNaN(), **options)
        said.append((capsys.readouterr().out, history.epoch))
        model = library.models.clone_model(model) if library is keras else model
        with pytest.raises(RuntimeError) as error, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            model.compile("sgd", "mse")
            model.fit(x, x[:, :1], callbacks=library.callbacks.TerminateOnNaN(raise_error=True), **options)
        said[-1] += (str(error.value).split(" Terminating")[0].split("batch")[0],)
    assert said[0] == said[1]


def test_keras_takes_the_same_arguments(keras):
    import inspect

    for name in numbarnn.callbacks.__all__:
        if name in ("MonitorCallback", "CallbackList"):
            continue
        ours = inspect.signature(getattr(numbarnn.callbacks, name)).parameters.values()
        theirs = inspect.signature(getattr(keras.callbacks, name)).parameters.values()
        theirs = [p for p in theirs if name == "LambdaCallback" or p.kind is not p.VAR_KEYWORD]
        assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs], name
