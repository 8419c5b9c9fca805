"""`python -m numbarnn bench`: what it understands, its arithmetic, what it prints, how it lives with processes."""

import json
import math
import subprocess
import sys
import textwrap

import pytest

from numbarnn import __main__ as cli
from numbarnn.bench import command, measures, report, timing
from numbarnn.bench.cases import CELLS, GROUPS, Case, parse_cases
from numbarnn.bench.measures import MEASURES, Setup
from numbarnn.bench.peers import clock, recipes
from numbarnn.bench.processes import PEERS, Asked, Peer, missing_packages
from numbarnn.bench.timing import Local, Row, Unable, take_turns


def times(**given):
    """{who: (minimum, median)} as rows hold it."""
    return {
        who.replace("_", " "): {"minimum": least, "median": median, "calls": 9}
        for who, (least, median) in given.items()
    }


# ------------------------------------------------------------------------------------------------------------- sizes


def test_sizes_are_read():
    assert parse_cases(["text"]) == [Case("text", 32, 100, 64, 128)]
    assert parse_cases(["2,3,4,5"]) == [Case("2,3,4,5", 2, 3, 4, 5)]
    (case,) = parse_cases(["2,3,4,5:float64:masked:bidirectional:3-layers"])
    assert (case.size, case.dtype, case.masked, case.bidirectional, case.layers) == (
        (2, 3, 4, 5), "float64", True, True, 3,
    )  # fmt: skip
    assert [case.name for case in parse_cases(["text,wide", "text", "2,3,4,5"])] == ["text", "wide", "2,3,4,5"]


def test_groups_are_what_they_say():
    found = {name: parse_cases([name]) for name in GROUPS}
    assert [case.size for case in found["grid"]] == [
        (64, 28, 28, 64), (256, 50, 8, 16), (16, 1000, 16, 32), (32, 100, 64, 128), (64, 50, 256, 256),
        (64, 25, 512, 512), (1, 100, 64, 128), (1, 100, 512, 512),
    ]  # fmt: skip
    assert [case.batch for case in found["batches"]] == [2, 4, 8]
    assert [case.units for case in found["units"]] == [8, 24, 100, 200, 1024]
    assert [case.timesteps for case in found["timesteps"]] == [1, 10, 4096]
    assert all(case.dtype == "float64" for case in found["float64"])
    assert all(case.masked for case in found["masks"]) and all(case.bidirectional for case in found["bidirectional"])
    assert [case.layers for case in found["stacks"]] == [2, 3, 4]


@pytest.mark.parametrize(
    "text", ["huge", "1,2,3", "1,2,3,4,5", "0,2,3,4", "-1,2,3,4", "text:blue", "text:0-layers", ""]
)
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="is not known"):
        parse_cases([text])


@pytest.mark.parametrize("cell", CELLS)
def test_operations_are_those_of_the_products(cell):
    """Counted product by product: rows x depth x columns, two operations each."""
    gates = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[cell]

    def count(batch, steps, inputs, units):
        return sum(2 * batch * depth * gates * units for _ in range(steps) for depth in (inputs, units))

    (case, stack, masked) = parse_cases(["2,3,5,7", "2,3,5,7:bidirectional:2-layers", "4,6,5,7:masked"])
    assert case.flops(cell) == count(2, 3, 5, 7)
    assert stack.flops(cell) == 2 * count(2, 3, 5, 7) + 2 * count(2, 3, 14, 7)
    assert masked.flops(cell) == count(1, int(recipes.mask(masked.request()).sum()), 5, 7)


# -------------------------------------------------------------------------------------------------------- arithmetic


def test_a_ratio_is_the_less_flattering_one():
    row = Row("layers", "LSTM text", "forward", times(numbarnn=(2.0, 4.0), x=(3.0, 5.0), y=(1.0, 9.0)))
    assert row.ratios == {"x": 1.25, "y": 0.5}
    assert row.best == (0.5, "y")
    assert Row("startup", "process", "import", times(numbarnn=(1.0, 1.0))).best is None


def test_the_better_number_of_threads_counts():
    its = times(numbarnn=(1.0, 1.0))
    its |= {"torch, 1 thread": {"minimum": 3.0, "median": 2.5}, "torch, 2 threads": {"minimum": 2.0, "median": 8.0}}
    assert Row("layers", "LSTM text", "forward", its).ratios == {"torch": 2.0}


def test_sums_and_losses():
    ratios = {("LSTM text", "forward"): 4.0, ("LSTM wide", "forward"): 0.5, ("GRU text", "forward"): 2.0}
    rows = [Row("layers", *what, times(numbarnn=(1.0, 1.0), torch=(r, 2 * r))) for what, r in ratios.items()]
    for row, floors in zip(rows, (2.0, 4.0, 8.0), strict=True):
        row.details["best peer, in floors"] = floors
    assert report.closing(rows) == [
        f"LSTM, forward: geometric mean {math.sqrt(2):.2f}x, least 0.50x (LSTM wide, torch)",
        "GRU, forward: geometric mean 2.00x, least 2.00x (GRU text, torch)",
        f"all: geometric mean {4 ** (1 / 3):.2f}x, least 0.50x (LSTM wide, torch)",
        f"all, one kind alone: geometric mean {4 ** (1 / 3):.2f}x of minima, {2 * 4 ** (1 / 3):.2f}x of medians",
        "at the floor of arithmetic it would be: geometric mean 4.00x, least 2.00x",
        "below the best peer in 1 of 3 comparisons:",
        "    0.50x torch: LSTM wide, forward",
    ]
    assert report.closing(rows[2:])[-1] == "below the best peer in 0 of 1 comparisons"
    assert report.closing([Row("startup", "process", "import", times(numbarnn=(1.0, 1.0)))]) == []
    assert report.closing([]) == []


def test_shares_are_no_losses():
    row = Row(
        "bandwidth", "LSTM wide", "2 threads", times(numbarnn=(2.0, 2.0), reading=(1.0, 1.0)), details={"GB/s": 40.0}
    )
    assert report.lines(row) == [
        f"{'LSTM wide':34s} {'2 threads':20s}        2        2 ms     50% of reading, reading at 40 GB/s"
    ]
    assert report._table([row])[-1] == "| LSTM wide | 2 threads | 2 / 2 | 50% | reading at 40 GB/s |"
    assert report.closing([row]) == []


def test_calls_are_timed_after_a_first_one(monkeypatch):
    """By a clock of our own: the first call takes 50 units, the others one."""
    now, calls = [0.0], []
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def function():
        calls.append(now[0])
        now[0] += 0.05 if len(calls) == 1 else 0.001

    assert clock.timed(function, 0.5) == pytest.approx([1.0] * 10)
    assert len(calls) == 1 + 1 + 10  # the first, a tenth to warm up, those that count


class Other:
    """Somebody who takes turns, with times made by hand."""

    def __init__(self, name, answers):
        self.name, self.answers = name, iter(answers)

    def times(self, seconds):
        found = next(self.answers)
        if isinstance(found, Exception):
            raise found
        return found


def test_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0)
    steady = Other("steady", [[99.0], [3.0, 5.0], [1.0, 9.0], [4.0]])
    absent, dying = Other("absent", [Unable("cannot")]), Other("dying", [[1.0], [1.0], Unable("died")])
    found, unable = take_turns([steady, absent, dying], 0)
    assert found == {"steady": {"minimum": 1.0, "median": 4.0, "calls": 5}}  # without the first turn
    assert unable == {"absent": "cannot", "dying": "died"}
    assert timing.scaled(found, 10)["steady"] == {"minimum": 10.0, "median": 40.0, "calls": 5}
    assert Local("many", lambda: None, parts=4).times(0)[0] < 1


# ----------------------------------------------------------------------------------------------------- what peers get


def test_masked_sequences_are_right_padded_and_one_is_full():
    (case,) = parse_cases(["9,7,2,3:masked"])
    mask, (x, y) = recipes.mask(case.request()), recipes.tokens(case.request())
    assert mask.sum(1).tolist() == recipes.lengths(case.request())
    assert (mask[:, 1:] <= mask[:, :-1]).all() and mask.all(1).any() and mask[:, 0].all()
    assert ((x != 0) == mask).all() and y.shape == (9,)


def write_peer(path, body):
    """An interpreter of a peer, which is a script of ours."""
    path.write_text(f"#!{sys.executable}\nimport json, sys\n{textwrap.dedent(body)}")
    path.chmod(0o755)
    return str(path)


def test_a_process_answers_cannot_fails_and_dies(tmp_path):
    python = write_peer(
        tmp_path / "peer",
        """
        print(json.dumps({"torch": "9.9", "arguments": sys.argv[2:]}), flush=True)
        for line in sys.stdin:
            what = json.loads(line)["what"]
            if what == "die":
                sys.exit("out of memory")
            found = {"forward": {"times": [1.0]}, "train": {"unable": "no"}, "step": {"failed": "Error: x"}}[what]
            print(json.dumps(found), flush=True)
        """,
    )
    peer = Peer("torch", python, 2, "torch, 2 threads")
    try:
        assert peer.versions() == {"torch": "9.9", "arguments": ["torch", "2"]}
        asked = Asked(peer, {"what": "forward"})
        assert (asked.name, asked.times(0.1)) == ("torch, 2 threads", [1.0])
        with pytest.raises(Unable, match="^no$"):
            peer.ask({"what": "train"})
        assert peer.failures == []
        with pytest.raises(Unable, match="failed: Error: x"):
            peer.ask({"what": "step"})
        with pytest.raises(Unable, match="the process of torch, 2 threads ended: out of memory"):
            peer.ask({"what": "die"})
        with pytest.raises(Unable, match="has ended"):
            peer.ask({"what": "forward"})
        assert len(peer.failures) == 2
    finally:
        peer.close()


def test_what_an_interpreter_lacks(tmp_path, monkeypatch):
    monkeypatch.setitem(PEERS, "torch", ("json", "no_such_package"))
    assert missing_packages("torch", sys.executable) == ["no_such_package"]
    link = tmp_path / "python"
    link.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    link.chmod(0o755)
    assert missing_packages("torch", str(link)) == ["no_such_package"]
    with pytest.raises(ValueError, match="no Python interpreter that could be run"):
        missing_packages("torch", write_peer(tmp_path / "broken", "sys.exit(3)"))


# ------------------------------------------------------------------------------------------------------- command line


def refused(arguments, capsys):
    """What is said on standard error; nothing was measured."""
    try:
        status = cli.main(["bench", *arguments])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert status == 2 and "minimum" not in said.out
    return said.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--what", "everything"], "'everything' is not one of layers"),
        (["--cells", "LSTN"], "'LSTN' is not one of LSTM, GRU, SimpleRNN"),
        (["--against", "mxnet"], "'mxnet' is not one of torch"),
        (["--sizes", "huge", "--against"], "size 'huge' is not known. Expected a group (grid"),
        (["--seconds", "0"], "above 0"),
        (["--threads", "0"], "at least 1"),
        (["--peer-python", "torch"], "is not NAME=PYTHON"),
        (["--peer-python", "torch=/no/such/python"], "no interpreter that could be run"),
        (["--json", "/no/such/folder/x.json", "--against"], "no file that could be written"),
        (["--what", "bandwidth", "--sizes", "text", "--against"], "bandwidth takes plain sizes of batch 1; got text"),
        (["--what", "lengths", "--sizes", "text:masked", "--against"], "lengths takes sizes without masks"),
        (["--what", "threads", "--threads", "1", "--against"], "threads needs two threads at least"),
        (["--table", "/no/such/file.json"], "No such file"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(arguments, words, capsys):
    assert words in refused(arguments, capsys)


def test_an_absent_peer_is_named_with_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(PEERS, "keras-jax", ("keras", "no_such_package"))
    monkeypatch.setattr(command, "missing_packages", lambda name, python: ["no_such_package"])
    said = refused(["--against", "keras-jax"], capsys)
    assert "pip install no_such_package" in said and "--peer-python keras-jax=PYTHON" in said


def test_peers_that_are_installed_take_part_by_default(monkeypatch, tmp_path):
    python = write_peer(tmp_path / "python", "")
    here = {"torch": [], "keras-tensorflow": ["tensorflow"], "keras-jax": ["jax"], "onnxruntime": []}
    monkeypatch.setattr(command, "missing_packages", lambda name, where: here[name] if where == sys.executable else [])
    assert list(setup_of([])[1].pythons) == ["torch", "onnxruntime"]
    _, setup = setup_of(["--peer-python", f"keras-jax={python}"])
    assert setup.pythons == {"torch": sys.executable, "keras-jax": python, "onnxruntime": sys.executable}
    assert setup_of(["--against"])[1].pythons == {}
    assert list(setup_of(["--against", "onnxruntime,torch"])[1].pythons) == ["onnxruntime", "torch"]


def setup_of(arguments):
    import argparse

    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command._setup(parser.parse_args(arguments))


@pytest.fixture
def measured(monkeypatch):
    """Two measures made by hand in the place of the real ones."""
    details = {"size": (2, 3, 4, 5), "share of FMA peak": 0.25}
    forward = times(numbarnn=(1.0, 2.0), torch=(2.0, 3.0), jax=(9.0, 9.0))
    both, failed = times(numbarnn=(4.0, 4.0), torch=(3.0, 4.0)), {"jax": "failed: Error"}
    rows = {
        "layers": [
            Row("layers", "LSTM 2,3,4,5", "forward", forward, details=details),
            Row("layers", "LSTM 2,3,4,5", "forward + backward", both, unable=failed, details=details),
        ],
        "lengths": [],
        "startup": [Row("startup", "fresh process", "import", times(numbarnn=(0.5, 0.6)), "s")],
    }
    monkeypatch.setattr(measures.Measure, "run", lambda self, name, setup: iter(rows[name]))
    return rows


def test_what_does_not_fit_is_left_out_and_named(capsys, measured):
    status = cli.main(["bench", "--what", "lengths", "--sizes", "text", "text:masked", "--against"])
    assert status == 0 and "left out: text:masked; lengths takes sizes without masks" in capsys.readouterr().out
    what, setup = setup_of(["--what", "all", "--sizes", "text:masked", "--against", "--threads", "1"])
    assert {"options", "lengths", "bandwidth", "threads"} & set(what) == set() and "layers" in what
    assert "left out: bandwidth takes plain sizes of batch 1; got text:masked" in capsys.readouterr().out
    assert setup.pairs("wide", cells=["GRU"]) == [("GRU", *parse_cases(["text:masked"]))]
    assert [(cell, case.name) for cell, case in Setup(1, 2).pairs("wide")] == [(cell, "wide") for cell in CELLS]


def test_every_measure_is_there():
    import importlib

    for name, measure in MEASURES.items():
        assert callable(getattr(importlib.import_module(f"numbarnn.bench.measures.{measure.module}"), name))


def test_what_is_stored_makes_the_table(measured, tmp_path, capsys):
    path = tmp_path / "figures.json"
    assert cli.main(["bench", "--against", "--what", "layers", "startup", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "1.50x torch" in printed and "best peer 1.50x" in printed and "25% of the FMA peak" in printed
    assert "failed: Error" in printed and "0.75x torch: LSTM 2,3,4,5, forward + backward" in printed
    stored = json.loads(path.read_text())
    assert stored["complete"] and stored["machine"]["versions"]["numba"] and stored["peers"] == {}
    assert stored["rows"][0]["times"]["jax"] == {"minimum": 9.0, "median": 9.0, "calls": 9}
    assert stored["rows"][0]["ratios"] == {"torch": 1.5, "jax": 4.5}
    assert cli.main(["bench", "--table", str(path)]) == 0
    table = capsys.readouterr().out
    lines = table.splitlines()
    assert "| 2, 3, 4, 5 | 1.50x / **0.75x** |" in lines
    assert "| LSTM 2,3,4,5 (2, 3, 4, 5) | forward | 1 / 2 | 1.50x | 4.50x | 1.50x | 25% of the FMA peak |" in lines
    assert (
        "| LSTM 2,3,4,5 (2, 3, 4, 5) | forward + backward | 4 / 4 | **0.75x** |  | **0.75x** | 25% of the FMA peak |"
        in lines
    )
    assert "| fresh process | import | 0.5 / 0.6 |" in lines
    assert "  - 0.75x torch: LSTM 2,3,4,5, forward + backward" in lines
    assert "numba " in lines[0] and "interrupted" not in table


def test_ctrl_c_keeps_what_was_measured(measured, monkeypatch, tmp_path, capsys):
    def run(self, name, setup):
        yield measured[name][0]
        raise KeyboardInterrupt

    monkeypatch.setattr(measures.Measure, "run", run)
    path = tmp_path / "figures.json"
    assert cli.main(["bench", "--against", "--what", "layers", "--json", str(path)]) == 130
    assert len(json.loads(path.read_text())["rows"]) == 1
    capsys.readouterr()
    assert cli.main(["bench", "--table", str(path)]) == 0
    assert "interrupted" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "rows": []}', '{"format": 1, "rows": [{}]}'])
def test_other_files_make_no_table(text, tmp_path, capsys):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert "is no file that --json has written" in refused(["--table", str(path)], capsys)


def test_a_peer_that_fails_or_does_not_start_changes_the_status(measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "missing_packages", lambda name, python: [])
    good = 'print(json.dumps({"torch": "9.9"}), flush=True)\nfor line in sys.stdin: pass\n'
    arguments = ["bench", "--what", "layers", "--against", "torch", "--threads", "1", "--peer-python"]
    assert cli.main([*arguments, f"torch={write_peer(tmp_path / 'good', good)}"]) == 0
    assert "torch 9.9" in capsys.readouterr().out
    bad = write_peer(tmp_path / "bad", "sys.exit('no libblas')")
    assert cli.main([*arguments, f"torch={bad}"]) == 1
    assert "did not start" in (said := capsys.readouterr().err) and "no libblas" in said

    def run(self, name, setup):
        setup.peers[0].failures.append("Error: x")
        return iter(measured[name])

    monkeypatch.setattr(measures.Measure, "run", run)
    assert cli.main([*arguments, f"torch={tmp_path / 'good'}"]) == 1
    assert "torch failed 1 times, first: Error: x" in capsys.readouterr().err


def test_help_names_measures_sizes_and_groups(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0
    assert all(name in said for name in (*MEASURES, *GROUPS, "rows_of_digits", "--peer-python"))


def test_nothing_else_imports_it():
    code = """if True:
        import sys
        from numbarnn.__main__ import main
        main(["info"])
        print([name for name in sys.modules if "bench" in name])
    """
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------------------------------------------------------- live


@pytest.mark.slow
def test_a_tiny_run_alone(tmp_path, capsys):
    """Every measure but those of fresh processes, on sizes of next to nothing."""
    path = tmp_path / "figures.json"
    what = ["layers", "steps", "options", "lengths", "threads", "streaming", "custom", "kernels"]
    arguments = ["--cells", "LSTM", "--sizes", "3,4,5,6", "--against", "--threads", "2", "--seconds", "0.01"]
    assert cli.main(["bench", "--what", *what, *arguments, "--json", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [name for name in MEASURES if any(row["measure"] == name for row in rows)] == sorted(
        what, key=list(MEASURES).index
    )
    assert all(0 < its["minimum"] <= its["median"] for row in rows for its in row["times"].values())
    assert all(0 < row["details"]["share of FMA peak"] < 2 for row in rows if row["measure"] == "layers")
    (product,) = (row for row in rows if row["name"] == "product")
    assert 0.05 < product["ratios"]["FMA peak"] < 5  # wide bounds: it is the unit that could be wrong
    arguments[3] = "1,5,6,64"
    assert cli.main(["bench", "--what", "bandwidth", *arguments, "--json", str(path)]) == 0
    row = json.loads(path.read_text())["rows"][0]
    assert row["details"]["bytes per step"] == 4 * 64 * 64 * 4 and 0 < row["ratios"]["reading"] < 5


@pytest.mark.parity
def test_a_tiny_run_beside_peers(tmp_path, capsys):
    path = tmp_path / "figures.json"
    sizes = ["3,4,5,6", "3,4,5,6:masked:bidirectional:2-layers"]
    arguments = ["--against", "torch,onnxruntime", "--seconds", "0.01", "--threads", "2", "--json", str(path)]
    what = ["--what", "layers", "steps", "streaming", "--cells", "LSTM"]
    status = cli.main(["bench", *what, "--sizes", *sizes, *arguments])
    assert status == 0, capsys.readouterr().err
    stored = json.loads(path.read_text())
    assert set(stored["peers"]) == {"torch", "onnxruntime"}
    for row in stored["rows"]:
        peers = {"torch", "onnxruntime"} if row["what"] == "forward" or row["measure"] == "streaming" else {"torch"}
        assert set(row["ratios"]) == peers
        assert not any(reason.startswith("failed") for reason in row["unable"].values())
    assert len(stored["rows"]) == 2 * 2 + 2 + 2
    names = [row["times"] for row in stored["rows"] if row["measure"] == "layers"]
    assert all({"torch, 1 thread", "torch, 2 threads"} <= set(its) for its in names)


@pytest.mark.parity
@pytest.mark.parametrize("special", ["", ":masked", ":bidirectional:2-layers", ":masked:bidirectional:float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_peers_compute_what_we_compute(cell, special, monkeypatch):
    """PyTorch's weights in our layers: the same inputs and masks, the same outputs. ONNX Runtime's shapes."""
    import importlib

    import numpy as np

    from numbarnn import ops
    from numbarnn.bench import ours
    from numbarnn.gradients import value_and_grad
    from numbarnn.interop.torch import from_torch
    from numbarnn.testing import assert_close
    from numbarnn.variable import Variable

    monkeypatch.syspath_prepend(str(command.Path(clock.__file__).parent))
    torch_peer, onnx_peer = map(importlib.import_module, ("torch_peer", "onnxruntime_peer"))
    (case,) = parse_cases([f"5,7,4,6{special}"])
    layer, x, lengths = torch_peer._layer(cell, case.request())
    theirs = torch_peer._call(layer, x.requires_grad_(True), case.request(), lengths)
    theirs[0].sum().backward()
    stack, mask = from_torch(layer.state_dict()).layers, recipes.mask(case.request())
    variable = Variable(recipes.inputs(case.request()))
    valid = np.ones((5, 7, 1)) if mask is None else mask[..., None]
    assert_close(ours._call(stack, variable.data, mask) * valid, theirs[0].detach().numpy(), 1e-5)

    def total():
        return ops.sum(ours._call(stack, variable, mask) * ops.cast(valid, case.dtype))

    _, (gradient,) = value_and_grad(total, [variable])()
    assert_close(gradient, x.grad.numpy(), 1e-5)
    found = onnx_peer.forward(cell, case.request())
    if case.dtype == "float32":
        assert found()[0].shape == theirs[0].detach().numpy().swapaxes(0, 1).shape
    else:
        assert "float64" in found
