"""What a result has to say about where it came from."""

import datetime
import os
import platform

from ..utils.machine import cpu_name, version

__all__ = ["describe", "sentence"]


def describe(threads):
    """Describe the machine and what runs on it, as plain values.

    Parameters
    ----------
    threads : int
        How many are used.

    Returns
    -------
    dict
    """
    from .. import simd

    return {
        "cpu": cpu_name(),
        "cpus": os.cpu_count(),
        "vector_bits": 8 * simd.vector_bytes(),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numbarnn", "numba", "llvmlite", "numpy")},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def sentence(machine, peers):
    """The same in a sentence.

    Parameters
    ----------
    machine : dict
        From `describe`.
    peers : dict
        ``{peer: {package: version}}``.

    Returns
    -------
    str
    """
    packages = dict(machine["versions"])
    for found in peers.values():
        packages.update(found)
    versions = ", ".join(f"{name} {number}" for name, number in packages.items())
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return (
        f"{machine['cpu']}, {machine['vector_bits']}-bit vectors, {threads} on {machine['cpus']} CPUs; "
        f"Python {machine['python']}, {versions}; {machine['date']}"
    )
