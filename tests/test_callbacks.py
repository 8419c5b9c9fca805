"""What progress bars leave on a terminal."""

import contextlib
import os
import select

import numpy as np
import pytest

from numbarnn import Sequential, layers

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
