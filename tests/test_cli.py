import re
import subprocess
import sys

import numpy as np
import pytest

import numbarnn
from numbarnn import __main__ as cli


def test_demo_learns_and_draws(tmp_path, capsys):
    """Eight epochs, a fifth of the real thing: enough to be far from chance, and the picture is one."""
    from matplotlib.image import imread

    path = tmp_path / "digits.png"
    assert cli.main(["demo", "--epochs", "8", "--seed", "1", "--out", str(path)]) == 0
    printed = capsys.readouterr().out
    accuracy, right, total = re.search(r"test accuracy ([\d.]+): (\d+) of (\d+) digits", printed).groups()
    assert int(total) == 360 and float(accuracy) == pytest.approx(int(right) / 360, abs=1e-4)
    assert float(accuracy) > 0.8
    assert (
        f"val_accuracy: {float(accuracy):.4f}" in printed
    )  # what `fit` reported last and what `predict` gives are one
    picture = imread(path)
    assert picture.shape == (660, 1210, 4) and picture.std() > 0.1


@pytest.mark.parametrize(
    ("path", "said"), [("absent/a.png", "there is no folder .*absent"), ("a.foo", "must end in one")]
)
def test_demo_asks_where_the_picture_goes_before_it_trains(path, said, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", "--out", str(tmp_path / path)])
    assert stop.value.code == 2
    assert re.search(said, capsys.readouterr().err)


def test_demo_names_the_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert cli.main(["demo", "--out", str(tmp_path / "x.png")]) == 1
    assert "pip install 'numbarnn[demo]'" in capsys.readouterr().err


def test_draw_with_none_wrong_and_with_many(tmp_path, rng):
    x, y = rng.random((30, 8, 8)), rng.integers(0, 10, 30)
    history = {name: [1.0, 0.5] for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
    sizes = []
    for number, read in enumerate((y, (y + 1) % 10)):
        path = tmp_path / f"{number}.png"
        cli.draw(history, x, y, read, path)
        sizes.append(path.stat().st_size)
    assert sizes[0] < sizes[1]


def test_info_tells_the_target():
    from numbarnn import simd

    command = [sys.executable, "-m", "numbarnn", "info"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = dict(re.findall(r"^([a-z ]+): +(.*)$", printed, re.MULTILINE))
    assert list(rows) == [
        "versions",
        "optional",
        "python",
        "cpu",
        "cpu features",
        "vector width",
        "device",
        "threads",
        "kernel cache",
    ]
    assert f"numpy {np.__version__}" in rows["versions"]
    assert rows["vector width"].startswith(f"{8 * simd.vector_bytes()} bits")
    assert re.match(r"[1-9]\d* on [1-9]\d* CPUs", rows["threads"])
    assert re.search(r"(^|, )scikit-learn \d", rows["optional"])
    assert rows["device"].startswith("cpu:0")
    assert "numbarnn-kernels" in rows["kernel cache"]


def test_info_tells_what_slows_down(capsys, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setattr("numbarnn.kernel_cache.KernelCache.cache_path", str(blocked / "numbarnn-kernels"))
    monkeypatch.setattr("numbarnn.jit._num_threads", 1000)
    monkeypatch.setattr(cli.util, "find_spec", lambda name: None)
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"threads: +1000 on \d+ CPUs \(more threads than CPUs wait for each other\)", printed)
    assert re.search(r"kernel cache: .*file.numbarnn-kernels \(cannot be written", printed)
    assert re.search(r"optional: +none of h5py, ", printed)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"numbarnn {numbarnn.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["sing"], ["demo", "--epochs", "0"], ["demo", "--units", "-1"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: numbarnn" in capsys.readouterr().err
