"""Files that are damaged, hostile or cut short by a kill: a clear error and nothing loaded, or the whole old file."""

import contextlib
import json
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import numbarnn
from numbarnn import layers
from numbarnn.layers import Input
from numbarnn.models import Model, Sequential, archive, load_model
from numbarnn.models.saving import read_training_state, write_training_state

ROOT = Path(numbarnn.__file__).parents[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a trained model and its file."""
    model = Sequential([Input((4, 3)), layers.LSTM(3, dropout=0.2), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(np.ones((4, 4, 3), "f4"), np.ones((4, 1), "f4"), verbose=0)
    path = tmp_path_factory.mktemp("saved") / "m.numbarnn"
    model.save(path)
    return model, path


@contextlib.contextmanager
def little_memory(limit=64 << 20):
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak} bytes"


def state_of(model):
    named = [*model._named_variables(), dict(enumerate(model.optimizer.variables))]
    return [v.numpy() for found in named for v in found.values()]


def assert_refused(saved, path, match="not a numbarnn file, or a damaged one|cannot be loaded"):
    """Assert that neither a model nor weights come of a file, and that the model stays as it was."""
    model, good = saved
    before = state_of(model)
    with little_memory(), pytest.raises(ValueError, match=match) as error:
        load_model(path)
    assert str(path) in str(error.value)
    assert all(map(np.array_equal, before, state_of(model)))


def members_of(path):
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewrite(saved, tmp_path, **changes):
    """Return a file as numbarnn writes it, sizes and checksums right, with some of its members changed."""
    members = {name: content for name, content in members_of(saved[1]).items() if name != "metadata.json"}
    for name, change in changes.items():
        name = name.replace("_", ".")
        members[name] = change(members[name])
    path = tmp_path / "changed.numbarnn"
    archive.write(path, members, "0")
    return path


def as_json(change):
    def changed(content):
        config = json.loads(content)
        return json.dumps(change(config) or config).encode()

    return changed


def as_header(change):
    """Change the header of safetensors: its dict; or return the length and the bytes to write instead."""

    def changed(content):
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        found = change(header)
        if isinstance(found, bytes):
            return found
        text = json.dumps(found or header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return changed


# ---------------------------------------------------------------------------------------------------------------
# damage


def test_every_truncation_is_refused(saved, tmp_path):
    content = saved[1].read_bytes()
    path = tmp_path / "cut.numbarnn"
    for length in [*range(0, len(content) - 1, 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut.numbarnn is not a numbarnn file, or a damaged one"):
            load_model(path)
    assert_refused(saved, path)


def fuzz(saved, tmp_path, count, seed):
    """Change bytes at random: the file is refused, or loads to what it was."""
    model, good = saved
    content, draw = good.read_bytes(), random.Random(seed)
    expected, path = state_of(model), tmp_path / "fuzzed.numbarnn"
    loaded = 0
    for _ in range(count):
        damaged = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            found = load_model(path)
        except ValueError as error:
            assert "fuzzed.numbarnn" in str(error)
        else:
            loaded += 1
            assert all(map(np.array_equal, expected, state_of(found)))
    return loaded


def test_flipped_bytes(saved, tmp_path):
    # what may change unseen: dates of members, say
    with little_memory():
        assert fuzz(saved, tmp_path, 400, seed=1) < 100


def test_flipped_bytes_behind_right_checksums(saved, tmp_path):
    """As somebody would who wants to do harm."""
    model, good = saved
    members, draw = members_of(good), random.Random(2)
    members.pop("metadata.json")
    path, before = tmp_path / "fuzzed.numbarnn", state_of(model)
    with little_memory():
        for _ in range(150):
            name = draw.choice([name for name in members if name != "config.json"])
            content = bytearray(members[name])
            for _ in range(draw.choice((1, 2, 8))):
                content[draw.randrange(min(len(content), 600))] = draw.randrange(256)
            archive.write(path, {**members, name: bytes(content)}, "0")
            with contextlib.suppress(ValueError):
                load_model(path)
            with contextlib.suppress(ValueError):
                model.load_weights(path)
                model.set_weights(before[: len(model.weights)])
    assert all(map(np.array_equal, before, state_of(model)))


def test_flipped_bytes_of_configurations(saved, tmp_path):
    members, draw = members_of(saved[1]), random.Random(3)
    members.pop("metadata.json")
    path = tmp_path / "fuzzed.numbarnn"
    with little_memory():
        for _ in range(100):
            content = bytearray(members["config.json"])
            content[draw.randrange(len(content))] = draw.choice(b'0123456789abcdefghij"{}[],:. -nulltrue')
            archive.write(path, {**members, "config.json": bytes(content)}, "0")
            try:
                found = load_model(path)
            except ValueError as error:
                assert "fuzzed.numbarnn" in str(error)
            else:
                assert isinstance(found, Model)


# ---------------------------------------------------------------------------------------------------------------
# the zip


def zipped(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in members:
            file.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "names", [["../evil"], ["/etc/evil"], ["a/b"], ["config.json"], ["weights.safetensors"], ["metadata.json"]]
)
def test_members_that_should_not_be_there(saved, tmp_path, names):
    path = tmp_path / "bad.numbarnn"
    zipped(path, [*members_of(saved[1]).items(), *((name, b"{}") for name in names)])
    assert_refused(saved, path, "it has a member|it has two members")
    assert not (tmp_path.parent / "evil").exists()


def test_members_that_are_missing(saved, tmp_path):
    members = members_of(saved[1])
    path = tmp_path / "bad.numbarnn"
    for name in members:
        zipped(path, [(other, content) for other, content in members.items() if other != name])
        assert_refused(saved, path, "it has no metadata.json|its members are not those")
    zipped(path, [])
    assert_refused(saved, path)
    for metadata in (b"[]", b"{", b"{}", b'{"format": "numbarnn"}', b'{"format": "numbarnn", "format_version": 2}'):
        zipped(path, [*{**members, "metadata.json": metadata}.items()])
        assert_refused(saved, path)


def test_zip_bombs(saved, tmp_path):
    path = tmp_path / "bomb.numbarnn"
    bomb = bytes(32 << 20)
    zipped(path, [*{**members_of(saved[1]), "config.json": bomb}.items()], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with little_memory(8 << 20):
        assert_refused(saved, path, "is compressed")
    # one that says that it is small, and stored
    packed = zlib.compress(bomb, wbits=-15)
    zipped(path, [("metadata.json", b"{}"), ("config.json", packed)])
    content = path.read_bytes()
    for header, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        at = content.rindex(header) + place
        content = content[:at] + struct.pack("<H", zipfile.ZIP_DEFLATED) + content[at + 2 :]
    path.write_bytes(content)
    with little_memory(8 << 20):
        assert_refused(saved, path)
    # one that says that it is larger than the file
    zipped(path, [("metadata.json", b"{}")])
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02") + 20
    path.write_bytes(content[:at] + struct.pack("<II", 1 << 30, 1 << 30) + content[at + 8 :])
    with little_memory(8 << 20):
        assert_refused(saved, path)


def test_overlapping_members_add_up(saved, tmp_path):
    """Two entries of the directory on one place in the file."""
    path = tmp_path / "bad.numbarnn"
    zipped(path, [("config.json", bytes(4000)), ("extras.json", bytes(4000))])
    content = path.read_bytes()
    second = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: second + 42] + struct.pack("<I", 0) + content[second + 46 :])
    assert_refused(saved, path)


# ---------------------------------------------------------------------------------------------------------------
# what is in the members


def _set(*keys_and_value):
    *keys, last, value = keys_and_value

    def change(config):
        for key in keys:
            config = config[key]
        config[last] = value

    return as_json(change)


def _metric(name, **config):
    return [{"module": "keras.metrics", "class_name": name, "config": config, "registered_name": None}]


LSTM = ("config", "layers", 1)
CONFIGS = {
    "no JSON": lambda content: b"\x80\x04pickle",
    "no dict": lambda content: b"[]",
    "empty": lambda content: b"",
    "nested too deeply": lambda content: b"[" * 100_000,
    "deep dicts": lambda content: b'{"class_name": ' * 50_000,
    "layers in layers": lambda content: (
        b'{"module": "keras", "class_name": "Sequential", "config": {"name": "a", "layers": [' * 2000 + b"]}}" * 2000
    ),
    "an arbitrary class": _set(*LSTM, {"module": "subprocess", "class_name": "Popen", "config": {"args": ["true"]}}),
    "an arbitrary function": _set(*LSTM, {"module": "os", "class_name": "function", "config": "system"}),
    "code": _set(*LSTM, "config", "activation", {"class_name": "__lambda__", "config": {"value": ["4wEAAAA="]}}),
    "a class that is no layer": _set(*LSTM, {"module": "keras.initializers", "class_name": "Zeros", "config": {}}),
    "no model": as_json(lambda config: config["config"]["layers"][1]),
    "no configuration": as_json(lambda config: config.pop("config") and config),
    "a model without layers": _set("config", "layers", None),
    "an unknown argument": _set(*LSTM, "config", "evil", 1),
    "other sizes": _set(*LSTM, "config", "units", 4),
    "billions of units": _set(*LSTM, "config", "units", 10**9),
    "more than billions": _set(*LSTM, "config", "units", 10**30),
    "negative units": _set(*LSTM, "config", "units", -3),
    "units in words": _set(*LSTM, "config", "units", "many"),
    "a shape": _set("config", "layers", 0, "config", "batch_shape", [None, 4, 10**12]),
    "an unknown optimizer": _set("compile_config", "optimizer", "class_name", "Evil"),
    "a loss that is none": _set("compile_config", "loss", {"module": "os", "class_name": "function", "config": "x"}),
    "a string as long as a book, instead of a number": _set(
        "compile_config",
        "loss_weights",
        {"class_name": "__numpy__", "config": {"value": [1.0] * 10, "dtype": "U10000000"}},
    ),
    "an array of objects": _set(
        "compile_config", "loss_weights", {"class_name": "__numpy__", "config": {"value": [1.0], "dtype": "O"}}
    ),
    "a metric of many thresholds": _set("compile_config", "metrics", _metric("AUC", num_thresholds=10**7)),
    "a metric of many classes": _set("compile_config", "metrics", _metric("MeanIoU", num_classes=10**4)),
    "more classes than can be listed": _set("compile_config", "metrics", _metric("OneHotMeanIoU", num_classes=10**12)),
    "a cell of many": _set(
        *LSTM, {"module": "keras.layers", "class_name": "RNN", "config": {"cell": {"class_name": "Zeros"}}}
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_refused(saved, tmp_path, name):
    assert_refused(saved, rewrite(saved, tmp_path, config_json=CONFIGS[name]), "changed.numbarnn")


def test_states_of_a_huge_batch_are_refused(saved, tmp_path):
    model = Sequential([Input(batch_shape=(2, 4, 3)), layers.LSTM(3, stateful=True)])
    path = tmp_path / "m.numbarnn"
    model.save(path)

    @as_json
    def huge(config):
        config["config"]["layers"][0]["config"]["batch_shape"] = [10**9, 4, 3]
        del config["config"]["layers"][1]["build_config"]

    assert_refused(saved, rewrite((model, path), tmp_path, config_json=huge), "changed.numbarnn")


@pytest.mark.parametrize(
    ("class_name", "config"),
    [("Repeat", {"repeats": 10**9, "axis": 1}), ("Split", {"indices_or_sections": 10**8, "axis": 1}), ("Open", {})],
)
def test_operations_that_would_make_very_much_are_refused(saved, tmp_path, class_name, config):
    x = Input((10**8,))
    model = Model(x, x + 1.0)
    path = tmp_path / "m.numbarnn"
    model.save(path)

    @as_json
    def hostile(found):
        entry = found["config"]["layers"][1]
        entry.update(class_name=class_name, config=config)
        entry["inbound_nodes"][0]["args"].pop()

    assert_refused(
        saved, rewrite((model, path), tmp_path, config_json=hostile), "many more numbers|no operation 'Open'"
    )


def _first(header):
    return header[next(key for key in header if key != "__metadata__")]


def _change_first(key, value):
    return as_header(lambda header: _first(header).update({key: value}))


TENSORS = {
    "nothing": lambda content: b"",
    "a huge header": lambda content: struct.pack("<Q", 2**40) + content[8:],
    "a negative header": lambda content: struct.pack("<q", -1) + content[8:],
    "no JSON": lambda content: struct.pack("<Q", 4) + b"evil" + content,
    "deep JSON": lambda content: struct.pack("<Q", 100_000) + b"[" * 100_000,
    "a wrong shape": _change_first("shape", [5, 5]),
    "a negative shape": _change_first("shape", [-1, -12]),
    "a shape that overflows": _change_first("shape", [2**62, 2**62]),
    "a wrong type": _change_first("dtype", "I32"),
    "an unknown type": _change_first("dtype", "EVIL"),
    "a type that NumPy lacks": as_header(
        lambda header: _first(header).update(dtype="BF16", shape=[_first(header)["data_offsets"][1] // 2])
    ),
    "offsets beyond the end": _change_first("data_offsets", [0, 2**40]),
    "offsets that go back": _change_first("data_offsets", [8, 0]),
    "offsets that overlap": as_header(
        lambda header: [v.update(data_offsets=[0, 4]) for k, v in header.items() if k != "__metadata__"] and header
    ),
    "another name": as_header(lambda header: {f"x{key}": value for key, value in header.items()}),
    "one less": lambda content: archive.bytes_of(dict(sorted(archive.arrays_of(content, "x").items())[1:])),
    "one more": lambda content: archive.bytes_of({**archive.arrays_of(content, "x"), "more": np.zeros(3, "f4")}),
    "a piece missing": lambda content: content[:-4],
    "a piece too many": lambda content: content + bytes(4),
}


@pytest.mark.parametrize("member", ["weights", "state", "optimizer"])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_refused(saved, tmp_path, name, member):
    path = rewrite(saved, tmp_path, **{f"{member}_safetensors": TENSORS[name]})
    assert_refused(saved, path, "changed.numbarnn")
    if member == "weights":
        model, before = saved[0], state_of(saved[0])
        with pytest.raises(ValueError, match="changed.numbarnn"):
            model.load_weights(path)
        assert all(map(np.array_equal, before, state_of(model)))


def test_booleans_are_zero_or_one(saved):
    content = archive.bytes_of({"flags": np.array([True, False])})
    with pytest.raises(ValueError, match="other bytes than those of booleans"):
        archive.arrays_of(content[:-2] + b"\x02\x00", "x")


def test_the_optimizers_list_of_weights(saved, tmp_path):
    for change in (lambda _: ["layers/0/evil"], lambda _: {"a": 1}, lambda _: [[1]], lambda names: names[:-1]):
        assert_refused(saved, rewrite(saved, tmp_path, optimizer_json=as_json(change)), "changed.numbarnn")


def test_a_training_state_is_checked_as_well(saved, tmp_path):
    model, before = saved[0], state_of(saved[0])
    path = tmp_path / "state"
    write_training_state(model, path, {"epoch": 1})
    content = path.read_bytes()
    for length in range(0, len(content), 211):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a numbarnn file, or a damaged one"):
            read_training_state(model, path)
    members = {name: found for name, found in members_of(saved[1]).items() if name not in ("metadata.json",)}
    for extras in (b"[]", b"{", b"[" * 100_000):
        archive.write(path, {**members, "extras.json": extras}, "0")
        with pytest.raises(ValueError, match="extras.json|no JSON"):
            read_training_state(model, path)
    assert all(map(np.array_equal, before, state_of(model)))


# ---------------------------------------------------------------------------------------------------------------
# kills


SAVER = """
import os, random, signal, sys, time
import numpy as np
from numbarnn import layers, models

path, draw = sys.argv[1], random.Random(4)
model = models.Sequential([layers.Input((4,)), layers.Embedding(20000, 8)])
model.save(path)
start = time.perf_counter()
model.save(path)
each = time.perf_counter() - start
for _ in range(30):
    child = os.fork()
    if not child:
        for number in range(1, 10**9):
            model.layers[0].embeddings.assign(np.full((20000, 8), number, "f4"))
            model.save(path)
    time.sleep(each * draw.uniform(0.5, 6))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    values = models.load_model(path).get_weights()[0]
    print(int(values[0, 0]) if values.min() == values.max() else -1, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "m.numbarnn"
    done = subprocess.run([sys.executable, "-c", SAVER, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    numbers = list(map(int, done.stdout.split()))
    assert len(numbers) == 30 and -1 not in numbers[10:] and len(set(numbers)) > 2, numbers
    leftovers = [p.name for p in tmp_path.iterdir() if p != path]
    assert leftovers and all(name.startswith(".m.numbarnn.") for name in leftovers)  # they were killed while they saved


def test_an_error_while_writing_leaves_the_old_file(saved, tmp_path, monkeypatch):
    path = tmp_path / "m.numbarnn"
    saved[0].save(path)
    before = path.read_bytes()

    def fails(descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk is full"):
        saved[0].save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.numbarnn"]
