"""One random pass on the GPU against the same on the CPU, in float64."""

import numpy as np

from numbarnn import cells, cuda, devices
from numbarnn.cells.bands_cuda import Problem, choose_band
from numbarnn.recurrence import PackedWeights, run, step_flags
from numbarnn.testing.errors import TOLERANCE, relative_error

NAMES = "out", "states", "d_x", "d_kernel", "d_recurrent", "d_bias", "d_initial"


def check(case):
    """Return the errors of a case, the worst of them, and whether it passed.

    Parameters
    ----------
    case : dict
        Of `numbarnn.testing.gpu.cases.correctness_cases`.

    Returns
    -------
    dict
        ``errors`` by result, ``worst``, ``same_bits`` (of two runs), ``passed``, ``bands``: the letters of those that
        took the pass forward and back.
    """
    cell = getattr(cells, case["cell"])
    given = arguments(cell, case)
    with devices.device("cpu"):
        expected = both_ways(cell, _converted(given, np.float64), case)
    with devices.device("cuda"), cuda.poisoned_memory():
        on_gpu = {name: _moved(value) for name, value in given.items()}
        bands = "".join(band(cell, given, case, back).name for back in (False, True))
        results = [[cuda.to_host(array) for array in both_ways(cell, on_gpu, case)] for _ in range(2)]
    names = [name for name in NAMES for _ in range(cell.states if name in ("states", "d_initial") else 1)]
    errors = {}
    for name, actual, right in zip(names, results[0], expected, strict=True):
        # A gradient is as exact as the largest term of its sum: weights' are sums over all steps.
        error = relative_error(actual, right)
        errors[name] = max(errors.get(name, 0.0), error if np.isfinite(actual).all() else np.inf)
    same = all(np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in zip(*results, strict=True))
    worst = max(errors.values())
    return {
        "errors": errors, "worst": worst, "same_bits": same, "passed": bool(worst <= TOLERANCE[case["dtype"]] and same),
        "bands": bands,
    }  # fmt: skip


def arguments(cell, case):
    """Return the arrays of a case, on the CPU, by name."""
    rng = np.random.default_rng(case["seed"])
    batch, timesteps, inputs, units = (case[name] for name in ("batch", "timesteps", "inputs", "units"))
    dtype, width = np.dtype(case["dtype"]), cell.gates * units

    def normal(*shape, scale=1.0):
        return (scale * rng.normal(size=shape)).astype(dtype)

    def factors(width):
        copies = {"none": 0, "shared": 1, "gates": cell.gates}[case["dropout"]]
        kept = rng.random((copies, batch, width)) < 0.7
        return (kept / 0.7).astype(dtype) if copies else None

    mask = {
        "none": lambda: None,
        "right": lambda: np.arange(timesteps) < rng.integers(1, timesteps + 1, batch)[:, None],
        "scattered": lambda: rng.random((batch, timesteps)) < 0.6,
        "empty row": lambda: (np.arange(batch) > 0)[:, None] & np.ones((1, timesteps), bool),
    }[case["mask"]]()
    reset = rng.random((batch, timesteps)) < 0.1 if case["reset"] else None
    long = case["return_sequences"]
    return {
        "x": normal(batch, timesteps, inputs),
        "kernel": normal(inputs, width, scale=inputs**-0.5),
        "recurrent": normal(units, width, scale=0.7 * units**-0.5),
        "bias": normal(*cell.bias_shape(units), scale=0.1),
        "initial": [normal(batch, units, scale=0.5) for _ in range(cell.states)] if case["initial"] else None,
        "flags": step_flags(batch, timesteps, mask, reset, case["zero_output"], case["backwards"]),
        "x_factors": factors(inputs),
        "h_factors": factors(units),
        "d_out": normal(*((batch, timesteps, units) if long else (batch, units))),
        "d_states": [normal(batch, units) for _ in range(cell.states)],
    }


def band(cell, given, case, back):
    """Return the band that takes a pass on the current GPU, one way."""
    copies = 0 if given["h_factors"] is None else len(given["h_factors"])
    return choose_band(
        Problem(
            cell, back, case["batch"], case["timesteps"], case["units"], given["x"].dtype, (0, 0),
            case["activation"] is None, copies, True, cuda.capability(), cuda.multiprocessors(),
        )
    )  # fmt: skip


def both_ways(cell, given, case):
    """Run a pass and its way back; return all results in one list."""
    weights = PackedWeights(cell, given["kernel"], given["recurrent"], given["bias"])
    out, states, pullback = run(
        cell, given["x"], weights, given["initial"], flags=given["flags"], x_factors=given["x_factors"],
        h_factors=given["h_factors"], backwards=case["backwards"], return_sequences=case["return_sequences"],
        activation=case["activation"], save=True,
    )  # fmt: skip
    out, states = out.copy(), [state.copy() for state in states]
    d_x, d_weights, d_initial = pullback(given["d_out"], given["d_states"])
    return [out, *states, d_x, *d_weights, *d_initial]


def _converted(given, dtype):
    return {name: _each(value, lambda array: _as(array, dtype)) for name, value in given.items()}


def _as(array, dtype):
    return array.astype(dtype) if array.dtype.kind == "f" else array


def _moved(value):
    return _each(value, cuda.to_device)


def _each(value, function):
    if value is None:
        return None
    return [function(array) for array in value] if isinstance(value, list) else function(value)
