"""``python -m numbarnn.testing.gpu``: what it says without a GPU, what it draws, how it goes on, what it concludes."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from numbarnn import cells, cuda
from numbarnn.cells import bands_cuda
from numbarnn.cuda import machine
from numbarnn.testing.gpu import __main__ as command
from numbarnn.testing.gpu import cases, report, speed

simulator = pytest.mark.skipif(not cuda.simulated(), reason="needs NUMBA_ENABLE_CUDASIM=1")


def test_without_a_gpu_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cuda, "why_not", lambda: "no NVIDIA driver was found. Install NVIDIA's driver for your GPU")
    assert command.main(["--out", str(tmp_path / "gpu.json")]) == 1
    assert "there is no GPU to check: no NVIDIA driver was found" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--minutes", "0"], ["--minutes", "nan"], ["--cells", "RNN"]])
def test_a_wrong_command_line_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2


def test_random_passes_cover_cells_dtypes_and_options_within_the_limits():
    drawn = list(itertools.islice(cases.correctness_cases(0), 200))
    again = list(itertools.islice(cases.correctness_cases(0), 200))
    assert drawn == again and json.loads(json.dumps(drawn)) == drawn
    for name, values in {
        "cell": set(cases.CELLS),
        "dtype": {"float32", "float64"},
        "mask": set(cases.MASKS),
        "dropout": {"none", "shared", "gates"},
        "activation": {*cases.ACTIVATIONS["float32"], *cases.ACTIVATIONS["float64"]},
        "backwards": {False, True},
        "reset": {False, True},
        "initial": {False, True},
        "zero_output": {False, True},
        "return_sequences": {False, True},
    }.items():
        assert {case[name] for case in drawn} == values
    assert len({(case["cell"], case["dtype"]) for case in drawn}) == 8
    assert {case["dtype"] for case in drawn if case["activation"] == "relu"} == {"float64"}  # its slope has a step
    for name, limit in zip(("batch", "timesteps", "inputs", "units"), cases.LIMITS, strict=True):
        sizes = [case[name] for case in drawn]
        assert min(sizes) == 1 and limit / 3 < max(sizes) <= limit


def test_a_run_begins_with_sizes_of_all_bands():
    """In float32, on GPUs with clusters and without."""
    drawn = [case for case in itertools.islice(cases.correctness_cases(0), len(cases.CELLS) * len(cases.FIRST))]
    sizes = [tuple(case[name] for name in ("batch", "timesteps", "inputs", "units")) for case in drawn]
    assert sizes[:: len(cases.CELLS)] == list(cases.FIRST) and {case["dtype"] for case in drawn} == {"float32"}
    for capability, multiprocessors, letters in (((9, 0), 132, "SMLG"), ((8, 0), 108, "SLG"), ((7, 5), 40, "SLG")):
        for name in ("LSTM", "GRU", "SIMPLE_RNN"):
            bands = {
                bands_cuda.choose_band(
                    bands_cuda.Problem(
                        getattr(cells, name), False, *size[:2], size[3], np.dtype(dtype), (0, 0), True, 0, True,
                        capability, multiprocessors,
                    )
                ).name
                for size in cases.FIRST
                for dtype in ("float32", "float64")
            }  # fmt: skip
            assert bands == set(letters)


def test_the_grid_is_whole_and_begins_with_what_is_aimed_at():
    measured = cases.speed_cases()
    points = [(c["batch"], c["timesteps"], c["units"]) for c in measured if c["against"] == "cudnn"]
    assert len(points) == len(set(points)) == 4 * 5 * 2
    assert points[: len(cases.HEADLINES)] == list(cases.HEADLINES)
    assert [c["against"] for c in measured if c["against"] != "cudnn"] == ["mask", "recurrent dropout", "relu"]
    assert len(cases.speed_cases(("LSTM", "GRU"))) == 2 * 40 + 3


def timed(numbarnn, cudnn, graph):
    """Return what a measurement returns, forward and forward+backward the same."""
    times = {"numbarnn": numbarnn, "cudnn": cudnn, "cudnn, graph": graph}
    times = {name: {"median": seconds, "samples": [seconds]} for name, seconds in times.items()}
    return {"fp32": {"forward": times, "both": times}}


def test_a_ratio_is_that_of_the_best_opponent():
    def case(batch, timesteps, units, times, against="cudnn"):
        return {
            "cell": "LSTM", "batch": batch, "timesteps": timesteps, "units": units, "against": against, "times": times,
        }  # fmt: skip

    found = {
        "correctness": [{"passed": True}, {"passed": False}, {"error": "it crashed"}],
        "speed": [
            case(16, 1000, 256, timed(1.0, 9.0, 4.0)),
            case(1, 100, 64, timed(2.0, 2.0, 4.0)),
            case(64, 100, 256, timed(1.0, 30.0, 20.0), "mask"),
            {**case(1, 1, 1024, {}), "error": "no memory"},
        ],
        "training": [{"passed": True}, {"skipped": "no optree"}, {"passed": False}],
        "left_out": 3,
    }
    found["summary"] = summary = report.summary(found)
    assert (summary["checked"], summary["wrong"], summary["correct"]) == (3, 3, False)
    assert summary["failed to measure"] == 1
    figures = summary["ratios"]["LSTM fp32 both"]
    assert figures["points"] == 2 and figures["least"] == 1.0 and figures["(16, 1000, 256)"] == 4.0
    assert figures["geometric mean"] == pytest.approx(2.0) and figures["geometric mean, H <= 128"] == 1.0
    assert summary["against a loop over the steps"] == {"mask": {"fp32 forward": 20.0, "fp32 both": 20.0}}
    text = report.text(found)
    assert (
        "no time was left for 3 measurements" in text
        and "no memory" in text
        and "3 random passes, 2 models trained, 3 wrong" in text
    )


SCRIPT = """
import json, os, sys, time
for line in sys.stdin:
    case = json.loads(line)
    if case["do"] == "crash": os._exit(139)
    if case["do"] == "hang":
        print("numbarnn.testing.gpu, so far: " + json.dumps({"half": 1}), flush=True)
        time.sleep(60)
    if case["do"] == "cut": print("numbarnn.testing.gpu: {", end="", flush=True); os._exit(1)
    print("some library's chatter")
    print("numbarnn.testing.gpu: " + json.dumps({"process": os.getpid(), "fatal": case["do"] == "fault"}), flush=True)
"""


@pytest.fixture
def worker(monkeypatch):
    """Return a worker whose process does what the cases say."""
    worker = command.Worker([sys.executable, "-c", SCRIPT])
    yield worker
    worker.end()


def test_a_crash_a_fault_or_a_kernel_that_never_ends_costs_one_case(worker, capfd):
    first = worker.run({"do": "well"}, 30)
    assert worker.run({"do": "well"}, 30)["process"] == first["process"]
    assert worker.run({"do": "crash"}, 30)["error"] == "the process crashed"
    second = worker.run({"do": "well"}, 30)
    assert second["process"] != first["process"] and "error" not in second
    assert worker.run({"do": "hang"}, 1) | {"seconds": 0} == {
        "do": "hang", "half": 1, "error": "did not end in time", "seconds": 0,
    }  # fmt: skip
    assert worker.run({"do": "cut"}, 30)["error"] == "the process ended"
    third = worker.run({"do": "fault"}, 30)
    assert third["do"] == "fault" and third["fatal"] and third["seconds"] > 0
    assert worker.run({"do": "well"}, 30)["process"] not in (second["process"], third["process"])
    assert "chatter" in capfd.readouterr().err


def test_what_can_be_measured_of_a_case_is(monkeypatch):
    case = {**cases.speed_cases()[0], "seconds": 0.0}

    def does(error=None):
        def make(way):
            def call():
                if error:
                    raise error

            return call

        return make

    monkeypatch.setattr(speed, "_ours", lambda case: does())
    monkeypatch.setattr(speed, "_clock", lambda name: cuda.Event)
    given = {"cudnn": AttributeError("no such name"), "cudnn, graph": RuntimeError("CUDA error: capture failed")}
    monkeypatch.setattr(
        speed, "_peers", lambda *_: {name: does(error) for name, error in given.items()} | {"x": does()}
    )
    told = []
    with cuda.use_array_module(np):
        result = speed.measure(case, lambda found: told.append(json.dumps(found)))
        assert {tuple(timed) for ways in result["times"].values() for timed in ways.values()} == {("numbarnn", "x")}
        assert len(told) == 2 * 2 * 4 and json.loads(told[-1])["times"] == result["times"] and "error" not in result
        assert len(result["notes"]) == 8 and "fp32 both cudnn: AttributeError: no such name" in result["notes"]
        given["cudnn"] = RuntimeError("CUDA error: an illegal memory access was encountered")
        result = speed.measure(case)
    assert result["fatal"] and "illegal memory" in result["error"] and list(result["times"]) == ["fp32"]
    assert "numbarnn" in result["times"]["fp32"]["both"] and report.ratios(result) == {}


WELL = {"worst": 0.0, "passed": True, "same_bits": True, "bands": "SS", "times": {}, "notes": []}


class Clockwork:
    """A worker and the time that its cases take."""

    def __init__(self, monkeypatch, costs):
        self.now, self.costs, self.cases = 0.0, costs, []
        monkeypatch.setattr(command.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(command, "Worker", lambda: self)

    def run(self, case, seconds):
        self.cases.append(case)
        cost = self.costs(case)
        self.now += min(cost, max(seconds, 1.0))
        return {**case, "error": "did not end in time"} if cost > seconds else {**case, **WELL}

    def end(self):
        self.now += 0.1


@pytest.mark.parametrize("slow", [1.0, 3.0, 30.0, 1000.0])
def test_it_ends_when_it_is_told_to(slow, monkeypatch, tmp_path):
    def costs(case):
        once = {"versions": 4.0, "correctness": 4.0, "training": 10.0}
        return slow * once.get(case["kind"], 12 * case.get("seconds", 0))

    clockwork = Clockwork(monkeypatch, costs)
    found = command.carry_out(tmp_path / "gpu.json", 8.0, ["LSTM"], 0, False)
    assert clockwork.now <= 8 * 60 + 5
    measured = [case for case in clockwork.cases if case["kind"] == "speed"]
    assert found["left_out"] == len(cases.speed_cases()) - len(measured) and all(c["seconds"] > 0 for c in measured)
    assert found["left_out"] == 0 or slow > 1
    assert len(found["correctness"]) > 1 or slow > 3


def test_a_run_that_is_broken_off_leaves_what_it_has_found(monkeypatch, tmp_path):
    def costs(case):
        if case["kind"] == "speed" and case["units"] == 1024:
            raise KeyboardInterrupt
        return 1.0

    Clockwork(monkeypatch, costs)
    out = tmp_path / "gpu.json"
    with pytest.raises(KeyboardInterrupt):
        command.carry_out(out, 8.0, ["LSTM"], 0, False)
    found = json.loads(out.read_text())
    assert len(found["correctness"]) > 100 and len(found["speed"]) > 3 and list(tmp_path.iterdir()) == [out]


@pytest.mark.gpu
@simulator
@pytest.mark.parametrize("number", range(4))
def test_a_random_pass_is_right_on_the_stand_in(number):
    from gpu import fake_cupy

    from numbarnn.testing.gpu import correctness

    case = next(itertools.islice(cases.correctness_cases(1, (3, 4, 3, 5)), number, None))
    with cuda.use_array_module(fake_cupy):
        result = correctness.check(case)
    assert result["passed"] and result["same_bits"] and result["worst"] <= 1e-5, result
    assert set(result["errors"]) == set(correctness.NAMES) and result["bands"] == "GG"


@pytest.mark.gpu
@simulator
@pytest.mark.parametrize("model", cases.MODELS)
def test_a_model_is_trained_on_the_stand_in(model):
    from gpu import fake_cupy

    from numbarnn.testing.gpu import training

    assert tuple(training.MODELS) == cases.MODELS
    with cuda.use_array_module(fake_cupy):
        result = training.check({"model": model, "tiny": True})
    assert result["passed"] and "predictions" in result["errors"], result


@pytest.mark.gpu
@simulator
def test_a_wrong_pass_is_found(monkeypatch):
    from numbarnn.testing.gpu import correctness

    case = next(cases.correctness_cases(1, (3, 4, 3, 5)))
    right = cuda.gemm
    monkeypatch.setattr(
        cuda, "gemm", lambda *args, **options: np.multiply(out := right(*args, **options), 1.01, out=out)
    )
    result = correctness.check(case)
    assert not result["passed"] and result["same_bits"] and result["worst"] > 1e-4


@pytest.mark.gpu
@simulator
def test_the_whole_command_on_a_simulated_gpu(tmp_path):
    out = tmp_path / "gpu.json"
    line = [sys.executable, "-m", "numbarnn.testing.gpu", "--tiny", "--minutes", "4", "--out", str(out)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["summary"]["correct"] and found["summary"]["checked"] >= 1
    assert found["versions"]["versions"]["gpu"] == "simulated GPU"
    assert not [case for case in found["speed"] if "error" in case]
    assert "0 wrong or failed" in done.stdout


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(machine, "_missing", lambda: "CuPy not installed. Install with: pip install 'numbarnn[cuda]'")
    monkeypatch.setattr(machine, "stands_in", lambda: False)
    assert machine.why_not() == "CuPy not installed. Install with: pip install 'numbarnn[cuda]'"


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("CUDA_ERROR_LAUNCH_FAILED"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"), False),
        (RuntimeError("CUDA_ERROR_INVALID_VALUE: one or more parameters are out of range"), False),
        (RuntimeError("CUDA error: operation failed due to a previous error during capture"), False),
        (ValueError("x must have three axes"), False),
    ],
)
def test_a_fault_in_a_kernel_ends_the_process_and_a_refusal_does_not(error, fatal):
    assert cases.is_fatal(error) == fatal


NOTHING_ELSE = """
import sys
for name in ("optree", "safetensors", "tqdm", "torch", "pandas", "sklearn", "matplotlib", "h5py", "greenlet"):
    sys.modules[name] = None  # importing it fails
from numbarnn import cuda
from numbarnn.testing.gpu import __main__, cases, correctness, report, speed, training
cuda.why_not = lambda: "this test wants none"
assert __main__.main([]) == 1
if cuda.simulated():
    cuda.why_not = lambda: None
    assert correctness.check(next(cases.correctness_cases(1, (2, 2, 2, 2))))["passed"]
"""


def check_nothing_else():
    done = subprocess.run([sys.executable, "-c", NOTHING_ELSE], capture_output=True, text=True)
    assert done.returncode == 0 and "this test wants none" in done.stderr, done.stderr


def test_it_needs_no_other_packages():
    check_nothing_else()


@pytest.mark.gpu
@simulator
def test_it_needs_no_other_packages_to_compute():
    check_nothing_else()
