"""The figures of README and CHANGELOG, measured side by side in one run: python asv_benchmarks/figures.py WHAT ...

peers      forward and forward + backward against peers, interleaved, each in a process of its own (--against):
           PyTorch with one and with two threads, Keras on TensorFlow, Keras on JAX
custom     cells that a user wrote, against the same cells in the peers: forward + backward per timestep
options    every option against the plain layer, forward + backward: ratios of time
lengths    a right-padded batch of sequences of 1..T timesteps, in no order, against the full batch: ratios of time
kernels    share of the FMA peak of the matrix product; pointwise part of a step
memory     rise of peak memory in one training step of a warmed-up process, beside PyTorch's (Linux)
startup    seconds to import and to a first training step in a fresh process, kernel cache filled and empty
streaming  one timestep of LSTM(32) on 8 features, one row: `Model.stepper` from Python and in compiled code, beside
           PyTorch's LSTMCell, ONNX Runtime's LSTM and Keras's `predict_on_batch` (--against)
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
    """One layer over one batch, forward and forward + backward, with all gradients."""

    def __init__(self, size, cell="LSTM", **options):
        from numbarnn import recurrence

        self.batch, self.steps, self.inputs, self.units = size
        self.cell, self.options = records()[cell], options
        columns = self.cell.gates * self.units
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(self.batch, self.steps, self.inputs)).astype("f4")
        self.kernel = rng.normal(scale=0.1, size=(self.inputs, columns)).astype("f4")
        self.recurrent = rng.normal(scale=0.1, size=(self.units, columns)).astype("f4")
        self.bias = np.zeros(self.cell.bias_shape(self.units), "f4")
        self.d_out = np.ones((self.batch, self.steps, self.units), "f4")
        self.start = None
        self.run, self.packed = recurrence.run, self.pack()

    def pack(self):
        """The weights, to be packed when they are needed."""
        from numbarnn.recurrence import PackedWeights

        return PackedWeights(self.cell, self.kernel, self.recurrent, self.bias)

    def forward(self):
        """Inference: weights packed before."""
        return self.run(self.cell, self.x, self.packed, self.start, **self.options)[0]

    def train(self):
        """Forward and back, weights packed anew as after an update."""
        out, _, pullback = self.run(self.cell, self.x, self.pack(), self.start, save=True, **self.options)
        pullback(self.d_out if out.ndim == 3 else self.d_out[:, 0])

    @property
    def flops(self):
        """Of the products of a forward pass."""
        return 2 * self.cell.gates * self.batch * self.steps * self.units * (self.inputs + self.units)


def records():
    """Cells by the names of their layers."""
    from numbarnn import cells

    return {"LSTM": cells.LSTM, "GRU": cells.GRU, "SimpleRNN": cells.SIMPLE_RNN, "GRU before": cells.GRU_RESET_BEFORE}


class Peer:
    """A process that runs one peer."""

    def __init__(self, python, name, threads):
        command = [python, os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers.py"), name, str(threads)]
        self.name = f"{name} {threads}"
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def times(self, request, repeat):
        """Milliseconds of some calls; None for what the peer cannot express."""
        try:
            print(*request, repeat, file=self.process.stdin, flush=True)
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            sys.exit(f"{self.name} did not answer: is it installed for that Python (--peer-python)?")
        return json.loads(answer)

    def close(self):
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def start_peers(args):
    """Start the processes that the command line asks for."""
    return [
        Peer(args.peer_python.get(name, sys.executable), name, threads)
        for name in args.against
        for threads in ((1, 2) if name == "torch" else (2,))
    ]


def beside_peers(function, request, peers, seconds):
    """Run ours and the peers in turns; return {name: (minimum, median)} in ms."""
    times = {"ours": []}
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times["ours"]) < 9:
        function()
        for _ in range(3):
            start = time.perf_counter()
            function()
            times["ours"].append((time.perf_counter() - start) * 1e3)
        for peer in peers:
            found = peer.times(request, 3)
            if found is not None:
                times.setdefault(peer.name, []).extend(found)
            time.sleep(0.02)  # threads of the peer may still spin
    return {name: (min(values), sorted(values)[len(values) // 2]) for name, values in times.items()}


def peers(args):
    """Against the peers."""
    ratios, rows = {}, {}
    running = start_peers(args)
    heads = "ours", *(peer.name for peer in running), "ratio", "medians", "GFLOP/s"
    print(f"{'size':15s} {'what':8s} " + " ".join(f"{head[-14:]:>14s}" for head in heads))
    for cell in args.cells:
        for name in args.sizes or BATCHED:
            problem = Problem(SIZES[name], cell)
            for what in ("forward", "train"):
                request = cell, *SIZES[name], what
                found = beside_peers(getattr(problem, what), request, running, args.seconds)
                mine = found["ours"]
                # The better of minimum and median for the peers, each as a ratio to ours of the same kind.
                ratio, median = (min(found[p.name][n] for p in running) / mine[n] for n in (0, 1))
                ratios.setdefault(cell, []).append(ratio)
                rows[f"{cell} {name} {what}"] = {"minimum": ratio, "median": median, **found}
                speed = problem.flops * (3 if what == "train" else 1) / mine[0] / 1e6
                shown = *(found[key][0] for key in ("ours", *(p.name for p in running))), ratio, median, speed
                print(f"{cell + ' ' + name:15.15s} {what:8s} " + " ".join(f"{v:14.3f}" for v in shown), flush=True)
        print(f"{cell}: least {min(ratios[cell]):.2f}, geometric mean {math.exp(np.mean(np.log(ratios[cell]))):.2f}")
    for peer in running:
        peer.close()
    return rows


def custom(args):
    """Cells that a user wrote, against the same cells in the peers: forward and backward per timestep."""
    import custom_cells

    running = start_peers(args)
    rows = {}
    for name, (_, timesteps, _) in custom_cells.SIZES.items():
        found = beside_peers(custom_cells.training(name), (name, "custom"), running, args.seconds)
        per_step = {who: (least / timesteps * 1e3, median / timesteps * 1e3) for who, (least, median) in found.items()}
        rows[name] = per_step
        shown = ", ".join(
            f"{who} {least:.1f} ({least / per_step['ours'][0]:.2f}x)" for who, (least, _) in per_step.items()
        )
        print(f"{name:18s} us per timestep, minima: {shown}", flush=True)
    for peer in running:
        peer.close()
    return rows


def lengths(args):
    """Right-padded batches against full ones."""
    from numbarnn.recurrence import step_flags

    rows = {}
    for cell in args.cells:
        for name in args.sizes or BATCHED:
            batch, steps, _, _ = SIZES[name]
            rng = np.random.default_rng(0)
            ends = rng.integers(1, steps + 1, batch)
            ends[rng.integers(batch)] = steps
            mask = np.arange(steps) < ends[:, None]
            full, padded = Problem(SIZES[name], cell), Problem(SIZES[name], cell)

            def with_flags(what, padded=padded, mask=mask):
                padded.options = {"flags": step_flags(*mask.shape, mask)}
                getattr(padded, what)()

            for what in ("forward", "train"):
                found = interleave(
                    {"full": getattr(full, what), "padded": lambda what=what: with_flags(what)}, args.seconds
                )
                ratio, median = (found["padded"][n] / found["full"][n] for n in (0, 1))
                rows[f"{cell} {name} {what}"] = {"minimum": ratio, "median": median}
                print(
                    f"{cell:10s} {name:15s} {what:8s} valid {mask.mean():.2f}  full {found['full'][0]:8.3f} ms  "
                    f"ratio {ratio:.2f}, medians {median:.2f}",
                    flush=True,
                )
    return rows


def options(args):
    """Every option against the plain layer."""
    from numbarnn.recurrence import step_flags

    rows = {}
    for cell, name in [(c, n) for c in args.cells for n in args.sizes or ["rows_of_digits", "medium"]]:
        batch, steps, inputs, units = SIZES[name]
        gates = records()[cell].gates
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
            "dropout, recurrent_dropout": {"x_factors": factors(gates, inputs), "h_factors": factors(gates, units)},
            "recurrent_dropout": {"h_factors": factors(gates, units)},
            "go_backwards": {"backwards": True},
            "last output only": {"return_sequences": False},
            "relu": {"activation": "relu"},
            "softsign, hard_sigmoid": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
            "gelu, silu": {"activation": "gelu", "recurrent_activation": "silu"},
        }
        if gates == 1:
            for given in table.values():
                given.pop("recurrent_activation", None)
        problems = {option: Problem(SIZES[name], cell, **given) for option, given in table.items()}
        for problem in problems.values():
            problem.recurrent *= 0.1  # activations without a bound must not explode
        problems["no bias"] = Problem(SIZES[name], cell)
        problems["no bias"].bias = None
        problems["stateful"] = Problem(SIZES[name], cell)
        problems["stateful"].start = [np.zeros((batch, units), "f4")] * records()[cell].states
        functions = {option: problem.train for option, problem in problems.items()}
        found = interleave(functions, args.seconds * len(functions) / 2)
        for option, (least, median) in found.items():
            ratio = least / found["plain"][0]
            rows[f"{cell} {name} {option}"] = ratio
            medians = median / found["plain"][1]
            print(
                f"{cell:10s} {name:15s} {option:28s} {least:8.3f} ms  {ratio:5.2f}  medians {medians:5.2f}", flush=True
            )
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
from figures import SIZES, Problem

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(field))

small = (2, 2, *SIZES[{name!r}][2:])
if {ours}:
    step, warm = Problem(SIZES[{name!r}]).train, Problem(small).train
else:
    import peers
    peers.THREADS = 2
    step, warm = (peers.torch_peer("LSTM", *size)["train"] for size in (SIZES[{name!r}], small))
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


def streaming(args):
    """One timestep at a time."""
    from benchmarks.recurrent import StreamedStep

    case = StreamedStep()
    case.setup()
    running = start_peers(args)
    times = {"ours, from Python": [], "ours, compiled": []}
    begin = time.perf_counter()
    while time.perf_counter() - begin < args.seconds or len(times["ours, compiled"]) < 9:
        for _ in range(10):
            start = time.perf_counter()
            for _ in range(100):
                case.time_from_python()
            middle = time.perf_counter()
            case.time_thousand_compiled()
            end = time.perf_counter()
            times["ours, from Python"].append((middle - start) / 100 * 1e6)
            times["ours, compiled"].append((end - middle) / case.STEPS * 1e6)
        for peer in running:
            found = peer.times(("LSTM", 1, 1, 8, 32, "step"), 300)
            times.setdefault(peer.name, []).extend(t * 1e3 for t in found)
            time.sleep(0.02)  # threads of the peer may still spin
    for peer in running:
        peer.close()
    rows = {name: (min(values), float(np.median(values))) for name, values in times.items()}
    for name, (least, median) in rows.items():
        print(f"{name:20s} minimum {least:8.2f} us, median {median:8.2f} us")
    return rows


def smallest(args):
    """The price of a call."""
    from benchmarks.recurrent import SmallestStep

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
    measures = {f.__name__: f for f in (peers, custom, options, lengths, kernels, memory, startup, streaming, smallest)}
    parser.add_argument("what", nargs="+", choices=measures)
    parser.add_argument("--sizes", nargs="+", choices=SIZES)
    parser.add_argument("--cells", nargs="+", default=["LSTM", "GRU", "SimpleRNN"], help="default: all three")
    parser.add_argument(
        "--against",
        nargs="*",
        default=["torch"],
        choices=["torch", "keras-tensorflow", "keras-jax", "onnxruntime"],
        help="default: torch; onnxruntime is for `streaming` alone",
    )
    parser.add_argument(
        "--peer-python",
        nargs="+",
        default=[],
        metavar="PEER=PYTHON",
        help="interpreters that have a peer which this one lacks",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="for each comparison (default: %(default)s)")
    parser.add_argument("--json", help="write the figures to this file as well")
    args = parser.parse_args()
    args.peer_python = dict(given.split("=", 1) for given in args.peer_python)
    found = {what: measures[what](args) for what in args.what}
    if args.json:
        with open(args.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
