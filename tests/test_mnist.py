"""MNIST without MNIST: small files of the same form, a server of our own."""

import functools
import hashlib
import http.server
import sys
import threading

import numpy as np
import pytest

from numbarnn.datasets import mnist

NAMES = ("x_train", "y_train", "x_test", "y_test")


def small(path, **more):
    """Write a file in the form of MNIST; return its arrays."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, size=(5, 28, 28)[: 3 if name[0] == "x" else 1], dtype="uint8") for name in NAMES
    }
    arrays.update(more)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(mnist, "_download", lambda path: pytest.fail(f"would download {path}"))


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """Serve a folder on this machine in the place of the one that MNIST comes from; yield it and what was asked for."""
    pytest.importorskip("pooch")
    folder, asked = tmp_path_factory.mktemp("server"), []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    monkeypatch.setattr(mnist, "URL", f"http://127.0.0.1:{serving.server_port}/mnist.npz")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, asked
    serving.shutdown()
    serving.server_close()


def check(found, arrays):
    (x_train, y_train), (x_test, y_test) = found
    for name, array in zip(NAMES, (x_train, y_train, x_test, y_test), strict=True):
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == np.uint8


def test_a_file_that_is_there_is_read(home, monkeypatch, no_download):
    path = home / "datasets" / "mnist.npz"
    arrays = small(path)
    monkeypatch.setattr(mnist, "SHA256", sha256(path))
    check(mnist.load_data(), arrays)
    check(mnist.load_data(path), arrays)
    path.rename(path.parent / "other.npz")
    check(mnist.load_data("other.npz"), arrays)


def test_the_folder_is_that_of_keras(tmp_path, monkeypatch, no_download):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setattr(mnist.Path, "home", lambda: tmp_path)
    arrays = small(tmp_path / ".keras" / "datasets" / "mnist.npz")
    monkeypatch.setattr(mnist, "SHA256", sha256(tmp_path / ".keras" / "datasets" / "mnist.npz"))
    check(mnist.load_data(), arrays)


def test_the_file_is_downloaded_once(home, server, monkeypatch):
    folder, asked = server
    arrays = small(folder / "mnist.npz")
    monkeypatch.setattr(mnist, "SHA256", sha256(folder / "mnist.npz"))
    for _ in range(2):
        check(mnist.load_data(), arrays)
    assert asked == ["/mnist.npz"]
    assert [path.name for path in (home / "datasets").iterdir()] == ["mnist.npz"]


def test_a_download_of_something_else_is_not_kept(home, server):
    folder, _ = server
    small(folder / "mnist.npz")
    with pytest.raises(ValueError, match="hash"):
        mnist.load_data()
    assert not list((home / "datasets").iterdir())


def test_without_a_network_it_says_so(home, monkeypatch):
    pytest.importorskip("pooch")
    monkeypatch.setattr(mnist, "URL", "http://127.0.0.1:9/mnist.npz")  # where nobody listens
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(OSError, match="127.0.0.1"):
        mnist.load_data()
    assert not (home / "datasets" / "mnist.npz").exists()


@pytest.mark.parametrize("harm", ["cut", "changed", "empty"])
def test_a_damaged_file_is_refused_and_left_alone(home, monkeypatch, no_download, harm):
    path = home / "datasets" / "mnist.npz"
    small(path)
    monkeypatch.setattr(mnist, "SHA256", sha256(path))
    whole = path.read_bytes()
    damaged = {"cut": whole[:-1000], "changed": whole[:500] + b"?" + whole[501:], "empty": b""}[harm]
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"{path} is not MNIST, or not all of it.*Delete it"):
        mnist.load_data()
    assert path.read_bytes() == damaged


@pytest.mark.parametrize(
    "contents", [{"y_test": None}, {"x_train": np.array([{}, 1], dtype=object)}], ids=["missing", "pickle"]
)
def test_a_file_without_the_arrays_is_refused(home, monkeypatch, no_download, contents):
    path = home / "datasets" / "mnist.npz"
    small(path, **contents)
    monkeypatch.setattr(mnist, "SHA256", sha256(path))
    with pytest.raises(ValueError, match="does not hold the arrays of MNIST"):
        mnist.load_data()


def test_names_the_extra_when_pooch_is_missing(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"numbarnn\[datasets\]"):
        mnist.load_data()
