"""Kernels compiled ahead of time, and found where they are delivered."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import numbarnn
from numbarnn import __main__ as cli
from numbarnn import backend
from numbarnn.warmup import warm_up

STEP = """
import json
import numpy as np
import numba.core.event as event
from numbarnn.layers import LSTM, Dense, Embedding
from numbarnn.models import Sequential

compiled = event.RecordingListener()
with event.install_listener("numba:compile", compiled):
    for length, activation in ((20, None), (7, "sigmoid")):
        model = Sequential([Embedding(100, 16, mask_zero=True), LSTM(32, dropout=0.1), Dense(1, activation=activation)])
        model.compile(optimizer="adam", loss="mse")
        model.train_on_batch(np.arange(32 * length).reshape(32, length) % 100, np.zeros((32, 1), np.float32))
        model.predict(np.ones((3, length), np.int64), verbose=0)
import numbarnn
print(json.dumps([sorted({str(e.data["dispatcher"]) for _, e in compiled.buffer}), numbarnn.__file__]))
"""


def run(*command, package, home, **environment):
    names = "NUMBARNN_CACHE_DIR", "NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(home))
    done = subprocess.run(
        [sys.executable, *command],
        env={**inherited, **homes, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        cwd=package.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_an_image_with_a_filled_cache_compiles_nothing(tmp_path):
    built, home = tmp_path / "built" / "numbarnn", tmp_path / "home"
    shutil.copytree(Path(numbarnn.__file__).parent, built, ignore=shutil.ignore_patterns("__pycache__"))
    printed = run("-m", "numbarnn", "warmup", "--cells", "LSTM", package=built, home=home)
    assert f"kernels lie in {built / '__pycache__' / 'numbarnn-kernels'}" in printed
    assert not home.exists()
    assert "\n0 kernels compiled" in run("-m", "numbarnn", "warmup", "--cells", "LSTM", package=built, home=home)

    image = tmp_path / "image" / "site-packages" / "numbarnn"
    shutil.copytree(built, image, copy_function=shutil.copyfile)  # with times of its own
    paths = [image, *image.rglob("*")]
    for number, path in enumerate(paths):
        os.utime(path, (number * 3e7, number * 3e7))
        path.chmod(0o555 if path.is_dir() else 0o444)
    compiled, file = json.loads(run("-c", STEP, package=image, home=home))
    assert Path(file).parent == image
    assert compiled == []
    assert sorted([image, *image.rglob("*")]) == sorted(paths) and not home.exists()
    # Another CPU does not use what was compiled for this one.
    narrow = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    compiled, _ = json.loads(run("-c", STEP, package=image, home=home, **narrow))
    assert any("lstm" in name or "forward" in name for name in compiled)
    for path in paths:
        path.chmod(0o755)


@pytest.mark.parametrize(
    ("given", "message"), [({"cells": ["LSTM", "lstm"]}, "cells .*'lstm'"), ({"dtypes": ["f4"]}, "dtypes .*'f4'")]
)
def test_what_is_not_known_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        warm_up(**given)
    assert backend.floatx() == "float32"


def test_the_command_tells_where_kernels_lie_and_what_is_not_kept(monkeypatch, capsys):
    asked = []

    def fake(cells, dtypes, tell):
        asked.append((list(cells), list(dtypes)))
        tell("a line")
        return 3, len(dtypes) + 1, ["/a", "/b"]

    monkeypatch.setattr("numbarnn.warmup.warm_up", fake)
    for dtypes, status in ((["float64", "float32"], 0), (["float64"], 1)):
        assert cli.main(["warmup", "--cells", "gru", "GRU-Before", "--dtypes", *dtypes]) == status
        out, err = capsys.readouterr()
        assert out.startswith("a line\n3 kernels compiled, ") and out.endswith("kernels lie in /a, /b\n")
        assert ("1 of them could not be kept" in err) == (status == 1)
    cells = ["GRU", "GRU-before"]
    assert asked == [(cells, ["float64", "float32"]), (cells, ["float64"])]
    with pytest.raises(SystemExit):
        cli.main(["warmup", "--cells", "RNN"])
