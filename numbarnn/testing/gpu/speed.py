"""Times of recurrent passes on the GPU, beside PyTorch's cuDNN: one after the other, medians by events."""

import statistics
import time

import numpy as np

from numbarnn import cells, cuda, devices
from numbarnn.cells.contract import COUNTS, SILENT
from numbarnn.recurrence import PackedWeights, run
from numbarnn.testing.gpu.cases import is_fatal

REPETITIONS = 3, 30  # at least, at most
LONG = 1.0  # seconds of a call from which on one is enough
_TORCH_NAMES = {"LSTM": "LSTM", "GRU": "GRU", "SIMPLE_RNN": "RNN"}


def measure(case, so_far=lambda found: None):
    """Return the times of a case in seconds.

    Parameters
    ----------
    case : dict
        Of `numbarnn.testing.gpu.cases.speed_cases`; ``seconds``: to spend on the repetitions of one measurement.
    so_far : callable
        Called with what was found, after each measurement.

    Returns
    -------
    dict
        ``times``: ``{"forward": {"numbarnn": {"median": s, "samples": [...]}, ...}, "both": ...}``, under
        ``"fp32"`` and ``"tf32"``; ``notes``: what could not be measured, and why; with ``fatal`` and ``error`` if the
        GPU answers nothing any more, which ends the measurements.
    """
    times, notes, before = {}, [], cuda.get_tf32()
    with devices.device("cuda"):
        try:
            for tf32 in (False, True):
                cuda.set_tf32(tf32)
                mode = "tf32" if tf32 else "fp32"
                times[mode] = {way: {} for way in ("forward", "both")}
                for name, make in {"numbarnn": _ours(case), **_peers(case, tf32, notes)}.items():
                    for way, timed in times[mode].items():
                        try:
                            timed[name] = _timed(make(way), _clock(name), case["seconds"])
                        except Exception as error:  # whatever it is: the others are measured
                            notes.append(f"{mode} {way} {name}: {type(error).__name__}: {error}"[:300])
                            if is_fatal(error):
                                return {"times": times, "notes": notes, "fatal": True, "error": notes[-1]}
                        so_far({"times": times, "notes": notes})
                        cuda.free_memory()
                        _empty_torch_cache()
        finally:
            cuda.set_tf32(before)
    return {"times": times, "notes": sorted(set(notes))}


def _timed(call, event, seconds):
    """Return the median and all samples of the seconds that `call` takes, measured for so many `seconds`."""
    begin = time.perf_counter()
    call()  # compiles
    cuda.synchronize()
    first = time.perf_counter() - begin
    if first < LONG:
        call()
    samples, begin = [], time.perf_counter()
    while len(samples) < REPETITIONS[1] and (len(samples) < REPETITIONS[0] or time.perf_counter() - begin < seconds):
        start, stop = event(), event()
        start.record()
        call()
        stop.record()
        samples.append(start.until(stop))
        if samples[-1] > LONG:
            break
    return {"median": statistics.median(samples), "samples": samples, "first": first}


def _clock(name):
    return cuda.Event if name == "numbarnn" else _torch_event()


# ------------------------------------------------------------------------------------------------------------ numbarnn


def _ours(case):
    """Return ``make(way)``, which returns a function that runs the case once on numbarnn."""
    cell = getattr(cells, case["cell"])
    batch, timesteps, units = case["batch"], case["timesteps"], case["units"]
    rng = np.random.default_rng(0)
    width = cell.gates * units

    def normal(*shape, scale=1.0):
        return cuda.to_device((scale * rng.normal(size=shape)).astype(np.float32))

    kernel, recurrent = (normal(units, width, scale=units**-0.5) for _ in range(2))
    bias, x, d_out = normal(*cell.bias_shape(units), scale=0.1), normal(batch, timesteps, units), None
    options = {}
    if case["against"] == "mask":
        counts = rng.random((timesteps, batch)) < 0.7
        flags = np.where(counts, COUNTS, 0).astype(np.uint8)
        flags[(np.cumsum(counts, axis=0) == 0)] |= SILENT
        options["flags"] = cuda.to_device(flags)
    elif case["against"] == "recurrent dropout":
        options["h_factors"] = cuda.to_device(
            (rng.random((1, batch, units)) < 0.8).astype(np.float32) / np.float32(0.8)
        )
    elif case["against"] != "cudnn":
        options["activation"] = case["against"]

    def make(way):
        nonlocal d_out
        if way == "both" and d_out is None:
            d_out = normal(batch, timesteps, units)

        def forward():
            run(cell, x, PackedWeights(cell, kernel, recurrent, bias), None, **options)

        def both():
            _, _, pullback = run(cell, x, PackedWeights(cell, kernel, recurrent, bias), None, save=True, **options)
            pullback(d_out)

        return forward if way == "forward" else both

    return make


# ------------------------------------------------------------------------------------------------------------- PyTorch


def _torch():
    """Return PyTorch and the device that it computes on: the CPU where a GPU is simulated."""
    import torch

    return torch, "cpu" if cuda.stands_in() else "cuda"


def _torch_event():
    torch, device = _torch()
    if device == "cpu":
        return cuda.Event

    class Event:
        def __init__(self):
            self.event = torch.cuda.Event(enable_timing=True)
            self.record = self.event.record

        def until(self, later):
            later.event.synchronize()
            return self.event.elapsed_time(later.event) / 1e3

    return Event


def _empty_torch_cache():
    import sys

    if "torch" in sys.modules and not cuda.stands_in():
        sys.modules["torch"].cuda.empty_cache()


def _peers(case, tf32, notes):
    """Return the opponents: cuDNN, called and replayed as a graph; or a loop over the steps for what it cannot do."""
    try:
        torch, device = _torch()
    except ImportError:
        notes.append("PyTorch is not installed: nothing to compare with")
        return {}
    if case["cell"] not in _TORCH_NAMES:
        notes.append(f"PyTorch has no {case['cell']}")
        return {}
    if device == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    called = _cudnn if case["against"] == "cudnn" else _step_loop
    name = "cudnn" if case["against"] == "cudnn" else "step loop"
    peers = {name: lambda way: called(case, way)}
    if device == "cuda":
        peers[f"{name}, graph"] = lambda way: _graphed(called(case, way))
    return peers


def _cudnn(case, way):
    torch, device = _torch()
    batch, timesteps, units = case["batch"], case["timesteps"], case["units"]
    layer = getattr(torch.nn, _TORCH_NAMES[case["cell"]])(units, units, batch_first=True).to(device)
    x = torch.randn(batch, timesteps, units, device=device, requires_grad=way == "both")
    return _forward_or_both(layer, lambda: layer(x)[0], x, way)


def _step_loop(case, way):
    """An LSTM as a loop of PyTorch's operations, for a mask, recurrent dropout or another activation."""
    torch, device = _torch()
    batch, timesteps, units = case["batch"], case["timesteps"], case["units"]
    layer = torch.nn.LSTM(units, units, batch_first=True).to(device)
    x = torch.randn(batch, timesteps, units, device=device, requires_grad=way == "both")
    mask = torch.rand(timesteps, batch, 1, device=device) < 0.7
    factor = (torch.rand(batch, units, device=device) < 0.8) / 0.8
    squash = torch.relu if case["against"] == "relu" else torch.tanh
    zeros = torch.zeros(batch, units, device=device)

    def call():
        h = c = zeros
        inputs = torch.nn.functional.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0)
        outputs = []
        for t in range(timesteps):
            left = h * factor if case["against"] == "recurrent dropout" else h
            i, f, g, o = (inputs[:, t] + left @ layer.weight_hh_l0.T).chunk(4, 1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * squash(g)
            new_h = torch.sigmoid(o) * squash(new_c)
            if case["against"] == "mask":
                new_h, new_c = torch.where(mask[t], new_h, h), torch.where(mask[t], new_c, c)
            h, c = new_h, new_c
            outputs.append(h)
        return torch.stack(outputs, 1)

    return _forward_or_both(layer, call, x, way)


def _forward_or_both(layer, call, x, way):
    torch, device = _torch()
    d_out = torch.randn(x.shape, device=device)
    leaves = [x, *layer.parameters()]

    def forward():
        with torch.no_grad():
            return call()

    def both():
        return torch.autograd.grad(call(), leaves, d_out)

    layer.train(way == "both")
    return forward if way == "forward" else both


def _graphed(call):
    """Return the replay of a call as a CUDA graph."""
    torch, _ = _torch()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):  # another one would wait for what autograd did on this one
        kept = call()

    def replay(kept=kept):
        graph.replay()

    return replay
