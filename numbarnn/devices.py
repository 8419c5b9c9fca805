"""Where things are computed: on the CPU, or on an NVIDIA GPU.

The process has a device: the GPU if ``pip install 'numbarnn[cuda]'`` was done and one is visible, else the CPU, unless
``NUMBARNN_DEVICE`` of the environment or `set_device` say otherwise.  `device` chooses another one for a block of code.

Which device it is may be asked anywhere.  A process that has computed on a GPU, however, gives no GPU to children that
it forks (that is CUDA's rule): begin those by ``multiprocessing.get_context("spawn")``, or let them compute on the CPU.
"""

import contextlib
import logging
import os
import re
import threading
from contextvars import ContextVar

from numbarnn import cuda

__all__ = ["device", "get_device", "gpu", "set_device"]

VARIABLE = "NUMBARNN_DEVICE"
_CPU = -1  # beside the numbers of GPUs
_NAME = re.compile(
    r"(?:/job:\w+)?(?:/replica:\d+)?(?:/task:\d+)?/?(?:device:)?(?P<kind>[A-Za-z]+)(?::(?P<number>\d+))?"
)

_of_block = ContextVar("numbarnn_device", default=None)
_of_process = None  # until it is first asked for
_choosing = threading.Lock()
_log = logging.getLogger("numbarnn")


@contextlib.contextmanager
def device(name):
    """Compute on a device within the block.

    Other threads, and other tasks of an event loop, are not affected, also not those that are started in the block.

    Parameters
    ----------
    name : str
        ``"cpu"`` or ``"cuda:0"``, a GPU by its number; ``"auto"``, the first GPU if there is one.  Keras's and
        TensorFlow's names mean the same: ``"gpu:0"``, ``"/cpu:0"``, ``"/device:GPU:0"``.

    Raises
    ------
    TypeError
        If `name` is no string.
    ValueError
        If it names no device, or one that is not there beside others.
    ImportError
        If it is a GPU, and what numbarnn needs to compute there is not installed.
    RuntimeError
        If it is a GPU, and there is no driver or none is visible.

    Examples
    --------
    >>> import numbarnn
    >>> with numbarnn.device("cpu"):
    ...     numbarnn.ops.matmul([[1.0, 2.0]], [[3.0], [4.0]]).tolist()
    [[11.0]]
    """
    number = _resolved(name)
    token = _of_block.set(number)
    try:
        with contextlib.nullcontext() if number == _CPU else cuda.on_device(number):
            yield
    finally:
        _of_block.reset(token)


def set_device(name):
    """Set the device of the process, on all threads, in place of ``NUMBARNN_DEVICE``; a block of `device` wins over it.

    Parameters
    ----------
    name : str
        As `device` takes it.

    Raises
    ------
    TypeError, ValueError, ImportError, RuntimeError
        As `device` does.
    """
    global _of_process
    number = _resolved(name)
    with _choosing:
        _of_process = number


def get_device():
    """Return the name of the device that is computed on here and now.

    Returns
    -------
    str
        ``"cpu:0"``, ``"cuda:0"``, ``"cuda:1"``, ...

    Raises
    ------
    ValueError, ImportError, RuntimeError
        If ``NUMBARNN_DEVICE`` names a device that is not there.
    """
    return _name(_current())


def gpu():
    """Return the number of the GPU to compute on here and now, made current for CuPy and launches; None for the CPU.

    Returns
    -------
    int or None
    """
    number = _current()
    if number == _CPU:
        return None
    cuda.make_current(number)
    return number


def _name(number):
    return "cpu:0" if number == _CPU else f"cuda:{number}"


def _current():
    number = _of_block.get()
    if number is None:
        number = _of_process if _of_process is not None else _choose()
    return number


def _choose():
    """Find the device of the process, once, and say so in the log."""
    global _of_process
    with _choosing:
        if _of_process is None:
            name = os.environ.get(VARIABLE) or "auto"
            try:
                number = _resolved(name)
            except (ValueError, ImportError, RuntimeError) as error:
                raise type(error)(f"environment variable {VARIABLE}={name}: {error}") from None
            if name == "auto":
                _log.info("computing on %s", describe(number))
            else:
                _log.info("computing on %s, as %s=%s says", _name(number), VARIABLE, name)
            _of_process = number
        return _of_process


def describe(number=None):
    """Return a device in words, for `info` and the log: where a GPU could be and is not, what keeps it away.

    Parameters
    ----------
    number : int, optional
        By default the device that is computed on here and now.
    """
    if number is None:
        number = _current()
    if number != _CPU:
        capability = "{}.{}".format(*cuda.compute_capability(number))
        return f"{_name(number)}, {cuda.device_name(number)}, compute capability {capability}"
    reason = cuda.why_not()
    return f"cpu:0, no GPU: {reason}" if reason else f"cpu:0; {cuda.device_count()} GPUs are visible"


def _resolved(name):
    """Return the number of the GPU that a name stands for, or `_CPU`."""
    if not isinstance(name, str):
        raise TypeError(f'A device is named by a string, such as "cpu" or "cuda:0". Received: {name!r}')
    if name.strip().lower() == "auto":
        return _CPU if cuda.stands_in() or cuda.why_not() else 0  # a simulated GPU must be asked for
    found = _NAME.fullmatch(name.strip())
    kind = found["kind"].lower() if found else None
    if kind not in ("cpu", "cuda", "gpu"):
        raise ValueError(f'A device is named "cpu", "cuda:0" (a GPU by its number) or "auto". Received: {name!r}')
    number = int(found["number"] or 0)
    if kind == "cpu":
        if number:
            raise ValueError(f'There is no device {name!r}: all cores together are "cpu", see set_num_threads')
        return _CPU
    cuda.require()
    if number >= cuda.device_count():
        there = ", ".join(f'"cuda:{n}"' for n in range(cuda.device_count()))
        raise ValueError(f"There is no device {name!r}: the GPUs here are {there}")
    return number
