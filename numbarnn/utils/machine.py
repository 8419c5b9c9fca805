"""What Python and this machine are called, for reports."""

import importlib.metadata
import platform
from pathlib import Path

__all__ = ["cpu_name", "version"]


def version(package):
    """Return the installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed as a package)"  # numbarnn run from a checkout


def cpu_name():
    """Return the name that the CPU goes by."""
    linux = Path("/proc/cpuinfo")
    for line in linux.read_text().splitlines() if linux.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
