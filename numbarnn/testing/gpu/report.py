"""What was found on a GPU, in numbers and in words."""

import importlib.metadata
import math
import platform
import subprocess

from numbarnn import cuda

PACKAGES = (
    "numbarnn", "numpy", "scipy", "numba", "llvmlite", "numba-cuda", "cuda-core", "cuda-bindings", "cupy-cuda13x",
    "cupy-cuda12x", "nvidia-nvvm", "nvidia-nvjitlink", "nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12",
    "torch",
)  # fmt: skip


def versions():
    """Return what has a part in the results: packages, GPU, driver, clocks."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found["python"] = f"{platform.python_version()} on {platform.platform()}"
    found["gpu"] = cuda.device_name(0)
    found["compute capability"] = "{}.{}".format(*cuda.compute_capability(0))
    try:
        import torch

        found["cudnn"] = torch.backends.cudnn.version()
    except ImportError:
        pass
    query = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,temperature.gpu,memory.total"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
        found["nvidia-smi"] = dict(zip(query.split(","), map(str.strip, done.stdout.split(",")), strict=False))
    except (OSError, subprocess.TimeoutExpired):
        pass
    return {"versions": found}


def ratios(result):
    """Return, by mode and way, the best opponent's time over numbarnn's; above 1 numbarnn is faster.

    Of a case that was broken off there is none: the best opponent may be missing.
    """
    found = {}
    if "error" in result:
        return found
    for mode, ways in result.get("times", {}).items():
        for way, times in ways.items():
            peers = [timed["median"] for name, timed in times.items() if name != "numbarnn"]
            if peers and "numbarnn" in times:
                found[f"{mode} {way}"] = min(peers) / times["numbarnn"]["median"]
    return found


def summary(found):
    """Return the figures that are aimed at."""
    checked = found["correctness"]
    tried = [case for case in found["training"] if "skipped" not in case]
    wrong = [case for case in (*checked, *tried) if not case.get("passed")]
    grid = [case for case in found["speed"] if case["against"] == "cudnn"]
    by_kind = {}
    for case in grid:
        for kind, ratio in ratios(case).items():
            by_kind.setdefault(f"{case['cell']} {kind}", []).append((ratio, case))
    figures = {}
    for kind, pairs in by_kind.items():
        values = [ratio for ratio, _ in pairs]
        small = [ratio for ratio, case in pairs if case["units"] <= 128]
        headline = [r for r, c in pairs if (c["batch"], c["timesteps"], c["units"]) == (16, 1000, 256)]
        figures[kind] = {
            "points": len(values),
            "geometric mean": math.exp(sum(map(math.log, values)) / len(values)),
            "least": min(values),
            "geometric mean, H <= 128": math.exp(sum(map(math.log, small)) / len(small)) if small else None,
            "(16, 1000, 256)": headline[0] if headline else None,
        }
    lacking = {case["against"]: ratios(case) for case in found["speed"] if case["against"] != "cudnn"}
    return {
        "checked": len(checked),
        "trained": len(tried),
        "wrong": len(wrong),
        "correct": bool(checked) and not wrong,
        "failed to measure": sum("error" in case for case in found["speed"]),
        "ratios": figures,
        "against a loop over the steps": lacking,
    }


def print_versions(result):
    """Print versions, or why there are none."""
    for name, value in result.get("versions", {"error": result.get("error")}).items():
        print(f"{name + ':':<20} {value}")


def print_correctness(result):
    """Print a line about a random pass."""
    if "error" in result:
        verdict = f"FAILED: {result['error']}"
    else:
        verdict = f"{result['worst']:.1e} {'ok' if result['passed'] else 'WRONG'}, bands {result['bands']}"
        verdict += "" if result["same_bits"] else ", other bits the second time"
    sizes = "x".join(str(result[name]) for name in ("batch", "timesteps", "inputs", "units"))
    print(f"{result['seed']:4d} {result['cell']:<16} {result['dtype']} {sizes:<18} {verdict}", flush=True)


def print_training(result):
    """Print a line about a model that was trained."""
    verdict = result.get("error") or result.get("skipped")
    verdict = verdict or f"{result['worst']:.1e} {'ok' if result['passed'] else 'WRONG'}"
    print(f"trained: {result['model']:<12} {verdict}", flush=True)


def print_speed(result):
    """Print a line about a measurement: milliseconds, and ratios."""
    where = f"{result['cell']} B={result['batch']} T={result['timesteps']} H={result['units']} {result['against']}"
    if "error" in result:
        where = f"{where}: FAILED: {result['error']}"
    parts = []
    for mode, ways in result.get("times", {}).items():
        for way, times in ways.items():
            numbers = ", ".join(f"{name} {1e3 * timed['median']:.3f}" for name, timed in times.items())
            parts.append(f"  {mode} {way:<8} {numbers} ms")
    print(where, *parts, *(f"  {note}" for note in result.get("notes", ())), sep="\n", flush=True)


def text(found):
    """Return the table of ratios and the verdict."""
    lines = ["", "ratios: the best of PyTorch's times / numbarnn's; above 1 numbarnn is faster"]
    for case in found["speed"]:
        values = "  ".join(f"{kind} {ratio:6.2f}" for kind, ratio in ratios(case).items())
        lines.append(
            f"{case['cell']:<10} B={case['batch']:<4} T={case['timesteps']:<5} H={case['units']:<5} "
            f"{case['against']:<18} {values or case.get('error', 'nothing to compare with')}"
            f"{'  (with notes)' if case.get('notes') else ''}"
        )
    result = found["summary"]
    for kind, figures in result["ratios"].items():
        numbers = ", ".join(
            f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()
        )
        lines.append(f"{kind}: {numbers}")
    if found["left_out"]:
        lines.append(f"no time was left for {found['left_out']} measurements")
    tried = f"{result['checked']} random passes, {result['trained']} models trained"
    lines.append(f"correctness: {tried}, {result['wrong']} wrong or failed")
    return "\n".join(lines)
