"""What is checked and measured: the cases of a run, and in which order."""

import numpy as np

#: Batch, timesteps and units that the aims name, before the rest of the grid.
HEADLINES = ((16, 1000, 256), (64, 100, 512), (64, 100, 128))
#: Where PyTorch has to loop over the steps itself.
LACKING = (64, 100, 256)
GRID = {"batch": (1, 16, 64, 256), "units": (64, 128, 256, 512, 1024), "timesteps": (100, 1000)}
CELLS = ("LSTM", "GRU", "GRU_RESET_BEFORE", "SIMPLE_RNN")
MASKS = ("none", "none", "right", "scattered", "empty row")
#: Of passes by dtype. In float32 none with a kink: which side of it a sum falls on is a matter of its last bit, and
#: there are millions of sums.
ACTIVATIONS = {
    "float32": (None, None, "softsign", "gelu", "linear"),
    "float64": (None, None, "relu", "softsign", "gelu", "linear"),
}
#: Sizes of random passes, at most: batch, timesteps, inputs, units.
LIMITS = 256, 37, 300, 1030
#: Sizes that a run begins with, in float32, a cell after the other: they come to all bands, with units and rows
#: that blocks do not share evenly, and with as many as they do.
FIRST = (35, 5, 7, 61), (70, 6, 13, 251), (37, 5, 31, 509), (65, 4, 31, 1021), (5, 9, 17, 640), (256, 3, 20, 1024)
#: Models that are trained: entries of `numbarnn.testing.gpu.training.MODELS`.
MODELS = "classifier", "regression"
_PRIMES = (1, 2, 3, 5, 7, 13, 31, 61, 127, 251, 509, 1021)
_REFUSALS = "out of memory", "memoryallocation", "invalidvalue", "invalid_value", "too_large", "captur"
_WORK = 1 << 31  # multiply-adds of a pass, at most: the CPU has to follow


def correctness_cases(seed=0, limits=LIMITS):
    """Yield one case after the other, without end: a dict each, drawn at random.

    Parameters
    ----------
    seed : int
    limits : (int, int, int, int)
        Batch, timesteps, inputs and units, at most.
    """
    rng = np.random.default_rng(seed)
    number = 0
    while True:
        turn, cell = number // len(CELLS), CELLS[number % len(CELLS)]
        sizes = tuple(_size(rng, limit) for limit in limits)
        first = turn < len(FIRST) and limits == LIMITS
        batch, timesteps, inputs, units = FIRST[turn] if first else sizes
        if batch * timesteps * units * (units + inputs) > _WORK:
            continue
        dtype = "float32" if first else ("float32", "float64")[turn % 2]
        yield {
            "kind": "correctness",
            "cell": cell,
            "dtype": dtype,
            "batch": batch,
            "timesteps": timesteps,
            "inputs": inputs,
            "units": units,
            "mask": str(rng.choice(MASKS)),
            "reset": bool(rng.random() < 0.2),
            "zero_output": bool(rng.random() < 0.3),
            "backwards": bool(rng.random() < 0.3),
            "return_sequences": bool(rng.random() < 0.8),
            "initial": bool(rng.random() < 0.5),
            "dropout": str(rng.choice(("none", "none", "shared", "gates"))),
            "activation": rng.choice(ACTIVATIONS[dtype]),
            "seed": number,
        }
        number += 1


def _size(rng, limit):
    """Draw a size, small ones as often as large ones, a third of them primes."""
    if rng.random() < 1 / 3:
        return int(rng.choice([prime for prime in _PRIMES if prime <= limit]))
    return int(round(np.exp(rng.uniform(0, np.log(limit)))))


def speed_cases(cells=("LSTM",), grid=GRID, headlines=HEADLINES, lacking=LACKING):
    """Return the cases that are measured: the headlines, what cuDNN cannot do, then the grid from small to large.

    Returns
    -------
    list of dict
    """
    points = [
        (batch, timesteps, units)
        for batch in grid["batch"]
        for units in grid["units"]
        for timesteps in grid["timesteps"]
    ]
    points.sort(key=lambda point: point[0] * point[1] * point[2] ** 2)
    first = [point for point in headlines if point in points]
    cases = []
    for cell in cells:
        ordered = [*first, *(point for point in points if point not in first)]
        cases += [_speed(cell, point, "cudnn") for point in ordered]
    loops = [_speed("LSTM", lacking, extra) for extra in ("mask", "recurrent dropout", "relu")]
    return cases[: len(first)] + loops + cases[len(first) :]


def _speed(cell, point, against):
    batch, timesteps, units = point
    return {
        "kind": "speed", "cell": cell, "batch": batch, "timesteps": timesteps, "units": units, "against": against,
    }  # fmt: skip


def is_fatal(error):
    """Say whether the GPU answers everything with an error from now on, as it does after a fault in a kernel.

    Not after it has refused something: too much memory, a launch that does not fit, a call while a graph is captured.
    """
    text = f"{type(error).__name__}: {error}"
    refused = any(word in text.lower() for word in _REFUSALS)
    return not refused and any(word in text for word in ("CUDA_ERROR", "cudaError", "CUDARuntimeError", "CUDA error"))
