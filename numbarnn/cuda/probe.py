"""Ask NVIDIA's driver which GPUs there are, without starting it in the process that wants to know.

The driver has to be started (`cuInit`) before it answers, and where it was started it fails in every child that is
forked later. So `gpus` lets a process of its own ask, which runs this file: it needs the standard library alone.
"""

import ctypes
import json
import subprocess
import sys

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NO_DEVICE = "CUDA_ERROR_NO_DEVICE"
_SUCCESS, _NOT_INITIALIZED = 0, 3  # of the driver's CUresult
_CAPABILITY = 75, 76  # of its CUdevice_attribute: major and minor number
_SECONDS = 60


def driver():
    """Return the driver's library, loaded but not started; None if there is no driver."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def started(library):
    """Say whether this process has started the driver, by whatever package."""
    return library.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != _NOT_INITIALIZED


def gpus(library):
    """Return the GPUs that can be seen: in this process if it has started the driver, else in one of its own.

    Returns
    -------
    list of (str, (int, int)), or str
        Names and compute capabilities; or what the driver says that keeps it from starting.
    """
    if started(library) or getattr(sys, "frozen", False) or not sys.executable:
        return ask(library)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=_SECONDS,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"no answer within {_SECONDS} s"
    except (OSError, ValueError):
        return ask(library)  # it is not Python that runs us
    return answer if isinstance(answer, str) else [(name, tuple(capability)) for name, capability in answer]


def ask(library):
    """Start the driver in this process, and return what `gpus` does."""
    count = ctypes.c_int()
    status = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if status != _SUCCESS:
        return _name(library, status)
    found = []
    for number in range(count.value):
        device, name, parts = ctypes.c_int(), ctypes.create_string_buffer(256), []
        status = library.cuDeviceGet(ctypes.byref(device), number)
        status = status or library.cuDeviceGetName(name, len(name), device)
        for attribute in _CAPABILITY:
            part = ctypes.c_int()
            status = status or library.cuDeviceGetAttribute(ctypes.byref(part), attribute, device)
            parts.append(part.value)
        if status != _SUCCESS:
            return _name(library, status)
        found.append((name.value.decode(errors="replace"), tuple(parts)))
    return found or NO_DEVICE


def _name(library, status):
    """Return the name of an error."""
    name = ctypes.c_char_p()
    if library.cuGetErrorName(status, ctypes.byref(name)) != _SUCCESS or not name.value:
        return f"error {status}"
    return name.value.decode()


if __name__ == "__main__":
    print(json.dumps(ask(driver())))
