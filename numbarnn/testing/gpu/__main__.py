"""The command line of `numbarnn.testing.gpu`."""

import argparse
import contextlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from numbarnn import cuda
from numbarnn.testing.gpu import report
from numbarnn.testing.gpu.cases import CELLS, LIMITS, MODELS, correctness_cases, is_fatal, speed_cases

CHECKING = 0.35  # part of the time that is spent on correctness
TRAINING = 0.1  # part of the time that is left of that for models that are trained
START = 120.0  # seconds that the first case may take, with the beginning of the process
LONGEST = 90.0  # ... and any other one: what never ends must not cost all the time
REPEATING = 0.25  # seconds spent on the repetitions of one measurement, where there is time
MEASUREMENTS = 12  # of a case: forward and both ways, with TF32 and without, numbarnn, called and as a graph
TINY = {"batch": (2,), "units": (3,), "timesteps": (2,)}


class Worker:
    """The process in which the cases run: begun anew when one has crashed it, or has not ended in time.

    Parameters
    ----------
    command : list of str
        Its command line: reads cases and answers, a line each, as `work` does.
    """

    def __init__(self, command=(sys.executable, "-m", "numbarnn.testing.gpu", "--worker")):
        self.command = command
        self.process = None

    def run(self, case, seconds):
        """Return the result of a case: with ``error`` if it failed, was lost, or did not end within `seconds`.

        What was found of it until then is there all the same.
        """
        if self.process is None:
            self._begin()
        begin, self.found = time.perf_counter(), {}
        try:
            self.process.stdin.write(json.dumps(case) + "\n")
            self.process.stdin.flush()
            line = self.answers.get(timeout=max(seconds, 1.0))
            result = {"error": "the process crashed"} if line is None else json.loads(line)
            ended = line is None or result.get("fatal")
        except queue.Empty:
            result, ended = {"error": "did not end in time"}, True
        except (BrokenPipeError, ValueError):  # it went in the middle of a line
            result, ended = {"error": "the process ended"}, True
        if ended:
            self.end()
        return {**case, **self.found, **result, "seconds": time.perf_counter() - begin}

    def _begin(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace"
        )
        self.answers = queue.Queue()
        self.listener = threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True)
        self.listener.start()

    def _listen(self, process, answers):
        for line in process.stdout:
            if line.startswith(ANSWER):
                answers.put(line[len(ANSWER) :])
            elif line.startswith(SO_FAR):
                with contextlib.suppress(ValueError):  # the end of a line is missing
                    self.found = json.loads(line[len(SO_FAR) :])
            else:
                print(line, end="", file=sys.stderr)
        answers.put(None)

    def end(self):
        """Stop the process."""
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:  # the driver holds it; the next one may fare better
                return
            self.listener.join()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):  # what was not sent yet
                process.stdin.close()


ANSWER = "numbarnn.testing.gpu: "
SO_FAR = "numbarnn.testing.gpu, so far: "


def work():
    """Run cases from the standard input, one a line; the result is a line as well."""
    from numbarnn.testing.gpu import correctness, speed, training

    kinds = {
        "versions": lambda case: report.versions(),
        "correctness": correctness.check,
        "training": training.check,
        "speed": lambda case: speed.measure(case, lambda found: print(SO_FAR + json.dumps(found), flush=True)),
    }
    for line in sys.stdin:
        case = json.loads(line)
        try:
            result = kinds[case["kind"]](case)
        except Exception as error:  # whatever it is, it is a result, and the next case is tried
            result = {
                "error": f"{type(error).__name__}: {error}"[:2000],
                "traceback": traceback.format_exc()[-4000:],
                "fatal": is_fatal(error),
            }
        print(ANSWER + json.dumps(result), flush=True)


def carry_out(out, minutes, cells, seed, tiny):
    """Run all cases for which there is time; return what was found."""
    begin = time.perf_counter()
    end = begin + 60 * minutes
    worker, found = Worker(), {"minutes": minutes, "correctness": [], "training": [], "speed": [], "left_out": 0}

    def keep():
        found["took"] = time.perf_counter() - begin
        found["summary"] = report.summary(found)
        partial = out.with_name(out.name + ".part")
        partial.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(partial, out)

    try:
        found["versions"] = worker.run({"kind": "versions"}, min(START, 60 * minutes))
        report.print_versions(found["versions"])
        keep()
        limits = (3, 4, 3, 5) if tiny else LIMITS
        stop = begin + (CHECKING - TRAINING) * 60 * minutes
        for case in correctness_cases(seed, limits):
            if time.perf_counter() > stop or tiny and case["seed"] >= 2 * len(CELLS):
                break
            longest = LONGEST if found["correctness"] else START
            found["correctness"].append(worker.run(case, min(longest, end - time.perf_counter())))
            report.print_correctness(found["correctness"][-1])
            keep()
        for case in ({"kind": "training", "model": model, "tiny": tiny} for model in MODELS):
            if time.perf_counter() < begin + CHECKING * 60 * minutes or tiny:
                found["training"].append(worker.run(case, min(LONGEST, end - time.perf_counter())))
                report.print_training(found["training"][-1])
                keep()
        cases = speed_cases(cells, TINY, ((2, 2, 3),), (2, 2, 3)) if tiny else speed_cases(cells)
        for number, case in enumerate(cases):
            left = end - time.perf_counter()
            if left < 5:
                found["left_out"] = len(cases) - number
                break
            # Half of the time is for repetitions: the largest cases, which come last, take long without them.
            case["seconds"] = min(REPEATING, left / 2 / MEASUREMENTS / (len(cases) - number))
            found["speed"].append(worker.run(case, min(left, LONGEST)))
            report.print_speed(found["speed"][-1])
            keep()
    finally:
        worker.end()
        keep()
    return found


def minutes(text):
    """Read a time from the command line."""
    value = float(text)
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a positive number of minutes, got {text}")
    return value


def main(arguments=None):
    """Check and measure; return the exit status: 1 if a result is wrong or there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m numbarnn.testing.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="file to write (default: %(default)s)")
    parser.add_argument("--minutes", type=minutes, default=8.0, help="time to spend (default: %(default)s)")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=["LSTM"], help="cells to measure")
    parser.add_argument("--seed", type=int, default=0, help="of the random passes (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a few tiny cases, for a simulated GPU")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        work()
        return 0
    reason = cuda.why_not()
    if reason:
        print(f"numbarnn.testing.gpu: there is no GPU to check: {reason}", file=sys.stderr)
        return 1
    found = carry_out(options.out, options.minutes, options.cells, options.seed, options.tiny)
    print(report.text(found))
    print(f"written to {options.out}")
    return 0 if found["summary"]["correct"] else 1


if __name__ == "__main__":
    sys.exit(main())
