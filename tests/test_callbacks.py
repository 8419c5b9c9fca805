"""Lists of callbacks, and what progress bars leave on a terminal."""

import contextlib
import os
import select

import numpy as np
import pytest

from numbarnn import Sequential, layers
from numbarnn.callbacks import CallbackList, LambdaCallback, ProgbarLogger

pytest.importorskip("pty")
COLUMNS = 60


@contextlib.contextmanager
def terminal(rows=24, columns=COLUMNS):
    """Print to a pseudo-terminal; the list yielded holds, afterwards, what came out."""
    import fcntl
    import pty
    import struct
    import termios

    reader, writer = pty.openpty()
    shown = []
    try:
        with os.fdopen(writer, "w") as screen:
            fcntl.ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            with contextlib.redirect_stdout(screen):
                yield shown
            screen.flush()
            printed = b""
            while select.select([reader], [], [], 0.5)[0]:  # a terminal hands out what was printed piece by piece
                printed += os.read(reader, 1 << 16)
            shown.append(printed.decode())
    finally:
        os.close(reader)


@pytest.fixture
def model():
    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def test_last_drawing_of_a_bar_shows_every_value_on_a_narrow_terminal(model):
    with terminal() as shown:
        history = model.fit(np.ones((8, 3)), np.ones((8, 1)), validation_split=0.5, verbose=1).history
    *drawn, last, end = shown[0].replace("\r\n", "\r").split("\r")
    assert end == ""
    assert last.startswith("1/1 [==============================] - ")
    for name in ("loss", "mae", "val_loss", "val_mae"):
        assert f" - {name}: {history[name][0]:.4f}" in last
    assert drawn
    assert all(len(line) <= COLUMNS for line in drawn)


def test_a_terminal_that_does_not_know_its_size_shows_the_loss(model):
    with terminal(0, 0) as shown:
        history = model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=1).history
    assert f"loss: {history['loss'][0]:.4f}" in shown[0]


def test_bar_after_an_error_draws_on_its_own_line(model):
    with terminal() as shown:
        with pytest.raises(ValueError, match="incompatible") as error:
            model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=1)
        model.predict(np.ones((8, 3)), verbose=1)
    assert "\x1b" not in shown[0]  # no moving up or down to the lines of other bars
    assert error.tb is not None  # it holds the first bar, as an interactive session does


def test_a_bar_is_closed_by_whatever_ends_the_run(model):
    def fail(*args):
        raise KeyboardInterrupt

    bar = ProgbarLogger()
    for hook in ("on_train_batch_end", "on_epoch_end", "on_test_batch_end"):
        with terminal() as shown, pytest.raises(KeyboardInterrupt):
            callbacks = [bar, LambdaCallback(**{hook: fail})]
            model.fit(np.ones((8, 3)), np.ones((8, 1)), validation_split=0.5, verbose=1, callbacks=callbacks)
        assert bar._bar is None
        assert shown[0].endswith("\n")
    with terminal() as shown:
        model.evaluate(np.ones((8, 3)), np.ones((8, 1)), verbose=1, callbacks=[bar])
    assert "1/1 [====" in shown[0]


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_number_of_steps_is_learnt_from_the_first_epoch(model, verbose, capsys):
    """As of generators: driven by hand, three batches an epoch."""
    bar = ProgbarLogger()
    bar.set_params({"verbose": verbose, "epochs": 2, "steps": None})
    bar.set_model(model)
    shown = []
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        for batch in range(3):
            bar._drawn = -1  # do not wait for the next drawing
            bar.on_train_batch_end(batch, {"loss": 0.5})
            if verbose == 1:
                shown.append(str(bar._bar).split(" - ")[0])
        bar.on_epoch_end(epoch, {"loss": 0.25})
    text = capsys.readouterr().out
    if verbose == 1:
        assert shown[:3] == ["1/Unknown", "2/Unknown", "3/Unknown"]
        assert shown[3].startswith("1/3 [=")
        assert text.count(f"3/3 [{'=' * 30}] - ") >= 2
    else:
        assert text.count("\n3/3 - 0s ") == 2
    assert bar.steps == 3


def test_callbacks_come_in_their_order_and_what_one_adds_the_next_sees(model):
    seen = []

    def add(epoch, logs):
        logs["added"] = epoch

    def see(epoch, logs):
        seen.append(dict(logs))

    nested = [[LambdaCallback(on_epoch_end=add)], {"last": LambdaCallback(on_epoch_end=see)}]
    history = model.fit(np.ones((4, 3)), np.ones((4, 1)), epochs=2, verbose=0, callbacks=nested)
    assert [logs["added"] for logs in seen] == history.history["added"] == [0, 1]


def test_lists_of_callbacks_can_be_driven_by_hand(model):
    calls = []
    every = LambdaCallback(
        on_batch_begin=lambda batch, logs=None: calls.append(("begin", batch)),
        on_test_end=lambda logs: calls.append(("test", logs)),
    )
    both = CallbackList([every], add_history=True, model=model, epochs=3, verbose=0)
    assert every.model is model and every.params == {"epochs": 3, "verbose": 0}
    both.on_train_begin()
    both.on_train_batch_begin(4)
    both.on_batch_begin(5)
    both.on_test_end({"loss": 1.0})
    both.on_epoch_end(7, {"loss": 2.0})
    assert calls == [("begin", 4), ("begin", 5), ("test", {"loss": 1.0})]
    assert both.history.epoch == [7] and model.history is both.history
    later = LambdaCallback(on_epoch_end=lambda epoch, logs: calls.append(epoch))
    both.append(later)
    both.on_epoch_end(8, {})
    assert calls[-1] == 8
    with pytest.raises(TypeError, match="`callbacks` must hold instances"):
        both.append(print)


def test_an_unbuilt_model_has_its_weights_before_training_begins(rng):
    shapes = []
    model = Sequential([layers.LSTM(2), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    look = LambdaCallback(on_train_begin=lambda logs: shapes.extend(w.shape for w in model.get_weights()))
    model.fit(rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 1)), verbose=0, callbacks=[look])
    assert shapes == [(5, 8), (2, 8), (8,), (2, 1), (1,)]


def test_what_ends_a_prediction_closes_its_bar(rng):
    def interrupt(batch, logs):
        raise KeyboardInterrupt

    model = Sequential([layers.Input((3,)), layers.Dense(1)])
    bar = ProgbarLogger()
    with terminal(), pytest.raises(KeyboardInterrupt):
        ends = LambdaCallback(on_predict_batch_end=interrupt)
        model.predict(rng.normal(size=(4, 3)), verbose=1, callbacks=[bar, ends])
    assert bar._bar is None
