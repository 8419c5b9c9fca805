"""The figures of README and CHANGELOG, measured side by side in one run: python asv_benchmarks/figures.py WHAT ...

peers      LSTM forward and forward + backward against PyTorch's, interleaved; the better of one and two PyTorch threads
options    every option against the plain LSTM, forward + backward: ratios of time
kernels    share of the FMA peak of the matrix product; pointwise part of a step
memory     rise of peak memory in one training step of a warmed-up process, beside PyTorch's (Linux)
startup    seconds to import and to a first training step in a fresh process, kernel cache filled and empty
smallest   `train_on_batch` of Embedding + LSTM(8) + Dense on one sequence of one step

Times are minima unless said; machines are noisy, ratios less so.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from benchmarks.common import LARGE, SMALL

SIZES = SMALL | LARGE
BATCHED = [name for name, size in SIZES.items() if size[0] >= 16]


def interleave(functions, seconds):
    """Run functions in turns for about `seconds`; return {name: (minimum, median)} in ms."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
        function()
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(next(iter(times.values()))) < 5:
        for name, function in functions.items():
            for _ in range(3):
                start = time.perf_counter()
                function()
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: (min(values), sorted(values)[len(values) // 2]) for name, values in times.items()}


class Problem:
    """One LSTM over one batch, forward and forward + backward, with all gradients."""

    def __init__(self, size, **options):
        from numbarnn import recurrence
        from numbarnn.cells import LSTM

        self.batch, self.steps, self.inputs, self.units = size
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(self.batch, self.steps, self.inputs)).astype("f4")
        self.kernel = rng.normal(scale=0.1, size=(self.inputs, 4 * self.units)).astype("f4")
        self.recurrent = rng.normal(scale=0.1, size=(self.units, 4 * self.units)).astype("f4")
        self.bias = np.zeros(4 * self.units, "f4")
        self.d_out = np.ones((self.batch, self.steps, self.units), "f4")
        self.run, self.pack, self.cell, self.options = recurrence.run, recurrence.PackedWeights, LSTM, options
        self.packed = self.pack(self.cell, self.kernel, self.recurrent, self.bias)

    def forward(self):
        """Inference: weights packed before."""
        return self.run(self.cell, self.x, self.packed, None, **self.options)[0]

    def train(self):
        """Forward and back, weights packed anew as after an update."""
        weights = self.pack(self.cell, self.kernel, self.recurrent, self.bias)
        out, _, pullback = self.run(self.cell, self.x, weights, None, save=True, **self.options)
        pullback(self.d_out if out.ndim == 3 else self.d_out[:, 0])

    @property
    def flops(self):
        """Of the products of a forward pass."""
        return 8 * self.batch * self.steps * self.units * (self.inputs + self.units)


def torch_problem(size, threads):
    """The same in PyTorch: (forward, forward and back)."""
    import torch

    batch, steps, inputs, units = size
    layer = torch.nn.LSTM(inputs, units, batch_first=True)
    x = torch.randn(batch, steps, inputs)
    wanted = x.clone().requires_grad_(True)

    def forward():
        torch.set_num_threads(threads)
        with torch.inference_mode():
            layer(x)

    def train():
        torch.set_num_threads(threads)
        layer.zero_grad()
        wanted.grad = None
        layer(wanted)[0].sum().backward()

    return forward, train


def peers(args):
    """Against PyTorch."""
    ratios, rows = [], {}
    heads = "ours", "torch 1", "torch 2", "ratio", "medians", "GFLOP/s"
    print(f"{'size':20s} {'what':18s} " + " ".join(f"{head:>9s}" for head in heads))
    for name in args.sizes or BATCHED:
        ours = Problem(SIZES[name])
        theirs = {threads: torch_problem(SIZES[name], threads) for threads in (1, 2)}
        for number, (what, own) in enumerate((("forward", ours.forward), ("forward+backward", ours.train))):
            found = interleave({"ours": own, **{f"torch {n}": theirs[n][number] for n in theirs}}, args.seconds)
            mine, one, two = (found[key] for key in ("ours", "torch 1", "torch 2"))
            ratio, median = (min(one[n], two[n]) / mine[n] for n in (0, 1))
            ratios.append(ratio)
            rows[f"{name} {what}"] = {"minimum": ratio, "median": median, **found}
            speed = ours.flops * (1, 3)[number] / mine[0] / 1e6
            shown = *(f"{value:9.3f}" for value in (mine[0], one[0], two[0])), f"{ratio:9.2f}", f"{median:9.2f}"
            print(f"{name:20s} {what:18s} {' '.join(shown)} {speed:9.0f}", flush=True)
    print(f"least {min(ratios):.2f}, geometric mean {math.exp(np.mean(np.log(ratios))):.2f}")
    return rows


def options(args):
    """Every option against the plain LSTM."""
    from numbarnn.recurrence import step_flags

    rows = {}
    for name in args.sizes or ["rows_of_digits", "medium"]:
        batch, steps, inputs, units = SIZES[name]
        rng = np.random.default_rng(0)

        def factors(copies, width, rng=rng, batch=batch):
            return ((rng.random((copies, batch, width)) < 0.8) / 0.8).astype("f4")

        right = np.arange(steps) < rng.integers(1, steps + 1, batch)[:, None]
        scattered, reset = rng.random((batch, steps)) < 0.7, rng.random((batch, steps)) < 0.05
        table = {
            "plain": {},
            "mask, right-padded": {"flags": step_flags(batch, steps, right)},
            "mask, scattered": {"flags": step_flags(batch, steps, scattered)},
            "resets": {"flags": step_flags(batch, steps, None, reset)},
            "dropout": {"x_factors": factors(1, inputs)},
            "dropout, recurrent_dropout": {"x_factors": factors(4, inputs), "h_factors": factors(4, units)},
            "recurrent_dropout": {"h_factors": factors(4, units)},
            "go_backwards": {"backwards": True},
            "last output only": {"return_sequences": False},
            "relu, sigmoid": {"activation": "relu"},
            "softsign, hard_sigmoid": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
            "gelu, silu": {"activation": "gelu", "recurrent_activation": "silu"},
        }
        problems = {option: Problem(SIZES[name], **given) for option, given in table.items()}
        for problem in problems.values():
            problem.recurrent *= 0.1  # activations without a bound must not explode
        no_bias = Problem(SIZES[name])
        no_bias.bias = None
        problems["no bias"] = no_bias
        stateful = Problem(SIZES[name])
        start = [np.zeros((batch, units), "f4")] * 2

        def carry_on(stateful=stateful, start=start):
            weights = stateful.pack(stateful.cell, stateful.kernel, stateful.recurrent, stateful.bias)
            stateful.run(stateful.cell, stateful.x, weights, start, save=True)[2](stateful.d_out)

        functions = {option: problem.train for option, problem in problems.items()} | {"stateful": carry_on}
        found = interleave(functions, args.seconds * len(functions) / 2)
        for option, (least, median) in found.items():
            ratio = least / found["plain"][0]
            rows[f"{name} {option}"] = ratio
            medians = median / found["plain"][1]
            print(f"{name:20s} {option:28s} {least:8.3f} ms  {ratio:5.2f}  medians {medians:5.2f}", flush=True)
    return rows


def kernels(args):
    """Matrix product against the peak; the pointwise part."""
    from benchmarks import floor

    peak = floor.fma_peak()
    product = floor.product_speed(64, 256, 1024)
    print(
        f"FMA peak of one core {peak:.1f} GFLOP/s; product 64 x 256 x 1024 {product:.1f} GFLOP/s: {product / peak:.0%}"
    )
    pointwise = floor.pointwise_ns()
    print(f"pointwise part of the LSTM forward: {pointwise:.2f} ns per unit and step")
    return {"peak": peak, "product": product, "pointwise": pointwise}


STEP = """
import sys
sys.path.insert(0, {folder!r})
from figures import SIZES, Problem, torch_problem

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

small = (2, 2, *SIZES[{name!r}][2:])
if {ours}:
    step, warm = Problem(SIZES[{name!r}]).train, Problem(small).train
else:
    step, warm = torch_problem(SIZES[{name!r}], 2)[1], torch_problem(small, 2)[1]
warm()
warm()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew from here
before = status("VmRSS:")
step()
print(status("VmHWM:") - before)
"""


def memory(args):
    """Rise of peak memory in one training step."""
    rows = {}
    folder = os.path.dirname(os.path.abspath(__file__))
    for name in args.sizes or ["medium", "wide"]:
        rise = []
        for ours in (True, False):
            code = STEP.format(folder=folder, name=name, ours=ours)
            rise.append(min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)))
        rows[name] = rise
        print(f"{name:20s} ours {rise[0]:7.1f} MiB, PyTorch {rise[1]:7.1f} MiB, ratio {rise[0] / rise[1]:.2f}")
    return rows


def startup(args):
    """Fresh processes."""
    from benchmarks import startup as fresh

    with tempfile.TemporaryDirectory() as filled, tempfile.TemporaryDirectory() as folder:
        fresh.seconds(fresh.STEP, filled)
        rows = {
            "import": min(fresh.seconds(fresh.IMPORT, filled) for _ in range(7)),
            "first step, warm cache": min(fresh.seconds(fresh.STEP, filled) for _ in range(5)),
            "first step, empty cache": min(fresh.seconds(fresh.STEP, os.path.join(folder, str(n))) for n in range(3)),
        }
    for what, seconds in rows.items():
        print(f"{what:28s} {seconds:6.2f} s")
    return rows


def smallest(args):
    """The price of a call."""
    from benchmarks.lstm import SmallestStep

    case = SmallestStep()
    case.setup()
    times = []
    for _ in range(3000):
        start = time.perf_counter()
        case.time_train_on_batch()
        times.append((time.perf_counter() - start) * 1e6)
    print(f"train_on_batch, B=T=1: minimum {min(times):.0f} us, median {np.median(times):.0f} us")
    return {"minimum": min(times), "median": float(np.median(times))}


def main():
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {f.__name__: f for f in (peers, options, kernels, memory, startup, smallest)}
    parser.add_argument("what", nargs="+", choices=measures)
    parser.add_argument("--sizes", nargs="+", choices=SIZES)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each comparison (default: %(default)s)")
    parser.add_argument("--json", help="write the figures to this file as well")
    args = parser.parse_args()
    found = {what: measures[what](args) for what in args.what}
    if args.json:
        with open(args.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
