"""Commands: ``python -m numbarnn demo`` trains an LSTM on digits, ``... info``, ``... warmup`` and ``... bench``.

A command is one entry of `COMMANDS`: a function that adds its arguments to a parser, and one that carries it out.
"""

import argparse
import os
import platform
import sys
import time
from importlib import util
from pathlib import Path

import numpy as np

from numbarnn import __version__

__all__ = ["main"]


def demo_arguments(parser):
    """Add the arguments of ``demo``."""
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of split, weights and shuffling (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=positive, default=40, help="passes over the data (default: %(default)s)")
    parser.add_argument("--units", type=positive, default=64, help="units of the LSTM (default: %(default)s)")
    parser.add_argument("--out", type=picture, default=Path("demo.png"), help="picture to write (default: %(default)s)")


def demo(options):
    """Train LSTM + BatchNormalization + Dense on the digits, print the score, draw the picture."""
    from numbarnn.datasets import digits
    from numbarnn.layers import LSTM, BatchNormalization, Dense
    from numbarnn.losses import SparseCategoricalCrossentropy
    from numbarnn.models import Sequential
    from numbarnn.optimizers import Adam
    from numbarnn.utils import set_random_seed

    begin = time.perf_counter()
    set_random_seed(options.seed)
    (x_train, y_train), (x_test, y_test) = digits.load_data(test_fraction=0.2, seed=options.seed)
    # Moving averages over ten batches: at the default momentum of 0.99 they would lag a whole epoch behind the weights.
    model = Sequential(
        [LSTM(options.units, input_shape=x_train.shape[1:]), BatchNormalization(momentum=0.9), Dense(10)]
    )
    model.summary()
    model.compile(
        optimizer=Adam(learning_rate=0.005),
        loss=SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train, y_train, batch_size=32, epochs=options.epochs, validation_data=(x_test, y_test), verbose=2
    )
    read = model.predict(x_test, verbose=0).argmax(axis=1)
    right = int((read == y_test).sum())
    draw(history.history, x_test, y_test, read, options.out)
    print(f"test accuracy {right / len(y_test):.4f}: {right} of {len(y_test)} digits read right")
    print(f"picture in {options.out}; {time.perf_counter() - begin:.1f} s in all")
    return 0


def draw(history, x, y, read, path):
    """Draw the learning curves and the digits read wrong.

    Parameters
    ----------
    history : dict of str to list of float
        With the keys loss, accuracy, val_loss and val_accuracy: one value per epoch each.
    x : ndarray of shape (n, 8, 8)
        Pictures in [0, 1].
    y, read : ndarray of int, shape (n,)
        The digits, and what the model took them for.
    path : pathlib.Path
        PNG file to write.

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "The demo draws with Matplotlib, which is not installed. Install it with: pip install 'numbarnn[demo]'"
        ) from error
    figure = Figure(figsize=(11, 6), layout="constrained")  # no pyplot: nothing looks for a screen
    curves, gallery = figure.subfigures(1, 2, width_ratios=(1, 1.1))
    for axes, name in zip(curves.subplots(2, 1, sharex=True), ("loss", "accuracy"), strict=True):
        epochs = range(1, len(history[name]) + 1)
        axes.plot(epochs, history[name], label="training")
        axes.plot(epochs, history[f"val_{name}"], label="test")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
        axes.legend()
    axes.set_xlabel("epoch")
    wrong = np.flatnonzero(y != read)
    shown = wrong[:20]
    gallery.suptitle(
        f"{len(wrong)} of {len(y)} digits read wrong" + (f", {len(shown)} shown" if len(wrong) > 20 else "")
    )
    for axes, index in zip(
        gallery.subplots(4, 5, squeeze=False).flat, [*shown, *[None] * (20 - len(shown))], strict=True
    ):
        axes.set_axis_off()
        if index is not None:
            axes.imshow(x[index], cmap="gray_r", vmin=0, vmax=1)
            axes.set_title(f"{y[index]} read as {read[index]}", fontsize=9)
    figure.savefig(path, dpi=110)


def info_arguments(parser):
    """Add the arguments of ``info``: it has none."""


def info(options):
    """Print what matters about this machine and installation when a result or a time is to be understood."""
    from numbarnn import devices, jit, simd
    from numbarnn.kernel_cache import KernelCache
    from numbarnn.utils.machine import cpu_name, version

    features = sorted(simd.target_features())
    packages = ("numbarnn", "numba", "llvmlite", "numpy", "scipy", "optree")
    found = [f"{name} {version(name)}" for name in _OPTIONAL if util.find_spec(_MODULES.get(name, name))]
    threads, cpus = jit.get_num_threads(), jit.usable_cpus()
    cache = KernelCache(info, {}).cache_path
    rows = {
        "versions": ", ".join(f"{name} {version(name)}" for name in packages),
        "optional": ", ".join(found) or "none of " + ", ".join(_OPTIONAL),
        "python": f"{platform.python_version()} ({platform.python_implementation()}) on {platform.platform()}",
        "cpu": cpu_name(),
        "cpu features": " ".join(features) or "none beyond the base of the architecture",
        "vector width": f"{8 * simd.vector_bytes()} bits ({simd.vector_bytes() // 4} float32, "
        f"{simd.vector_bytes() // 8} float64), {simd.register_count()} registers, "
        + ("fused multiply-add" if simd.has_fma() else "no fused multiply-add"),
        "device": devices.describe(),
        "threads": f"{threads} on {cpus} CPUs" + " (more threads than CPUs wait for each other)" * (threads > cpus),
        "kernel cache": cache + ("" if _can_be_written(cache) else " (cannot be written: each process compiles anew)"),
    }
    for name, value in rows.items():
        print(f"{name + ':':<14} {value}")
    return 0


_MODULES = {"scikit-learn": "sklearn", "numba-cuda": "numba_cuda"}
_OPTIONAL = (
    "h5py", "onnx", "onnxruntime", "scikit-learn", "pandas", "matplotlib", "pooch", "tensorboardX", "keras", "torch",
    "tensorflow", "jax", "numba-cuda",
)  # fmt: skip


def _can_be_written(folder):
    """Say whether files can be put into a folder, which may not be there yet."""
    there = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def warmup_arguments(parser):
    """Add the arguments of ``warmup``."""
    from numbarnn.warmup import CELLS, DTYPES

    cells, names = tuple(CELLS), {name.lower(): name for name in CELLS}
    parser.add_argument(
        "--cells", nargs="+", type=lambda text: names.get(text.lower(), text), choices=cells, default=cells,
        help="recurrent layers (default: all); what else is compiled, and what is not: help(numbarnn.warmup.warm_up)",
    )  # fmt: skip
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES[:1], help="(default: float32)")


def warmup(options):
    """Compile what layers need into the kernel cache, for this kind of CPU, and say where it lies."""
    from numbarnn.warmup import warm_up

    begin = time.perf_counter()
    compiled, kept, folders = warm_up(options.cells, options.dtypes, lambda line: print(line, flush=True))
    print(f"{compiled} kernels compiled, {time.perf_counter() - begin:.1f} s; kernels lie in {', '.join(folders)}")
    if kept < compiled:
        print(f"numbarnn: {compiled - kept} of them could not be kept", file=sys.stderr)
        return 1
    return 0


def bench_arguments(parser):
    """Add the arguments of ``bench``."""
    from numbarnn.bench import command

    command.add_arguments(parser)


def bench(options):
    """Measure numbarnn beside other libraries."""
    from numbarnn.bench import command

    return command.run(options)


def positive(text):
    """Read a positive integer from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def picture(text):
    """Read the path of a picture to write from the command line."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if path.suffix.lower() not in _PICTURES:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(_PICTURES)}, got {text}")
    return path


_PICTURES = (".png", ".pdf", ".svg", ".jpg")

COMMANDS = {
    "demo": (
        demo_arguments,
        demo,
        "train an LSTM on handwritten digits (some seconds; a quarter of a minute with kernels to compile)",
    ),
    "warmup": (warmup_arguments, warmup, "compile the kernels ahead of time, for container images and CI caches"),
    "info": (info_arguments, info, "print versions, CPU features, threads and the kernel cache's folder"),
    "bench": (bench_arguments, bench, "measure numbarnn beside other libraries on this machine"),
}


def main(arguments=None):
    """Run one command.

    Parameters
    ----------
    arguments : list of str, optional
        The command line, by default that of the process.

    Returns
    -------
    int
        Exit status.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="numbarnn", description="Recurrent networks on NumPy and Numba.")
    parser.add_argument("--version", action="version", version=f"numbarnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, (add_arguments, run, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if arguments[:1] == [name]:  # those of the others may need what this one does not
            add_arguments(command)
        command.set_defaults(run=run)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        print(f"numbarnn: {error}", file=sys.stderr)  # an extra is missing: what to type is all there is to say
        return 1


if __name__ == "__main__":
    sys.exit(main())
