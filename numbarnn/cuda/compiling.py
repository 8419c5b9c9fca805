"""From a Python function to machine code for a GPU, which need not be there."""

import contextlib
import functools
import importlib.metadata
import operator
import re
import sys
import threading
import types
from typing import NamedTuple

import numpy as np

from numbarnn.kernel_cache import KernelCache

_PACKAGE = __name__.rpartition(".")[0]


class DeviceFunction:
    """A function that kernels call and that uses `cuda` itself; made by `device_function`."""

    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.function = function
        self._made = None

    def __call__(self, *args):
        """Run it as the Python it is."""
        return self.function(*args)

    def compiled(self):
        """Return it as Numba's kernels call it."""
        if self._made is None:
            from numba import cuda

            self._made = cuda.jit(bound(self.function, cuda, made), device=True)
        return self._made

    def python(self, cuda):
        """Return it as plain Python, in which the name `cuda` stands for an emulator."""
        return bound(self.function, cuda, lambda device: device.python(cuda))


def device_function(function):
    """Let kernels call a function that uses threads, shared memory or other things of a GPU.

    Parameters
    ----------
    function : function

    Returns
    -------
    DeviceFunction
        Nothing is compiled before a kernel that calls it is.
    """
    return DeviceFunction(function)


made = operator.methodcaller("compiled")  # what `bound` does with device functions for Numba's kernels


def bound(function, cuda, make):
    """Return a copy of a function whose global names stand for what a target gives for them."""
    names = dict(function.__globals__)
    for name in _names(function.__code__):
        value = names.get(name)
        if value is sys.modules[_PACKAGE]:
            names[name] = cuda
        elif isinstance(value, DeviceFunction):
            names[name] = make(value)
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
    return copy


def _names(code):
    """Return the names of globals and attributes in a function and the functions inside it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*inner)


def type_of(arg):
    """Return the type of an argument: name of the dtype, number of axes (-1: no array)."""
    if arg is None:
        return "none", -1
    if isinstance(arg, bool | np.bool_):
        return "bool", -1
    if isinstance(arg, int):
        return "int64", -1
    if isinstance(arg, np.generic):
        return arg.dtype.name, -1
    if isinstance(arg, float):
        raise TypeError(f"kernels take numpy.float32 or numpy.float64 numbers, got the Python float {arg!r}")
    try:
        if not arg.flags.c_contiguous:
            raise ValueError(f"kernels take C-contiguous arrays, got one of shape {arg.shape}, strides {arg.strides}")
        return arg.dtype.name, arg.ndim
    except AttributeError:
        raise TypeError(f"kernels take arrays, numbers, truth values and None, got {arg!r}") from None


def _numba_type(kind):
    from numba.cuda import types as numba_types

    name, ndim = kind
    scalar = getattr(numba_types, {"none": "none", "bool": "boolean"}.get(name, name))
    return scalar if ndim < 0 else numba_types.Array(scalar, ndim, "C")


class Compiled(NamedTuple):
    """A kernel compiled for some argument types and a compute capability.

    Attributes
    ----------
    entry : str
        The name of the kernel in the machine code.
    ptx : str
        What Numba made of it.
    cubin : bytes
        The machine code.
    log : str
        What the assembler says of registers, stack and spills.
    """

    entry: str
    ptx: str
    cubin: bytes
    log: str


_compiling = threading.RLock()


@contextlib.contextmanager
def _compiling_for(capability):
    """Numba asks the current GPU when a kernel calls other functions; answer for it where there is none, or another."""
    from numba.cuda import dispatcher
    from numba.cuda.cudadrv.error import CudaSupportError

    with _compiling:
        before = dispatcher.get_current_device
        try:
            here = tuple(before().compute_capability) == capability
        except CudaSupportError:
            here = False
        if not here:
            dispatcher.get_current_device = lambda: types.SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            dispatcher.get_current_device = before


def assembled(kernel, kinds, capability):
    """Return a kernel compiled for arguments of some types (see `type_of`) and a compute capability."""
    from numba import cuda
    from numba.cuda import types as numba_types
    from numba.cuda.compiler import compile_cuda, kernel_fixup
    from numba.cuda.cudadrv import nvvm

    options = kernel.options
    with _compiling_for(capability):
        function = bound(kernel.function, cuda, made)
        result = compile_cuda(
            function,
            numba_types.void,
            tuple(map(_numba_type, kinds)),
            nvvm_options={"opt": 3, "fma": 0, "prec-div": 0 if options["fast_division"] else 1},
            cc=capability,
        )
        library = result.library
        entry = library.get_function(result.fndesc.llvm_func_name)
        library._entry_name = entry.name
        kernel_fixup(entry, False)
        if options["max_threads"]:
            nvvm.set_launch_bounds(entry, (options["max_threads"], options["min_blocks"]))
        ptx = library.get_asm_str(cc=capability)
    name = re.search(r"\.entry\s+([\w$]+)", ptx)[1]
    return Compiled(name, ptx, *_assemble(ptx, capability, library.use_cooperative))


def _assemble(ptx, capability, grid_barrier):
    """Return machine code and the assembler's log; the barrier of a grid lies in a library."""
    from cuda.bindings import nvjitlink
    from numba.cuda.cudadrv import libs

    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-O3", "-fma=0", "-verbose"]
    try:
        link = nvjitlink.create(len(options), options)
    except nvjitlink.nvJitLinkError as error:
        raise RuntimeError(
            f"CUDA's assembler, nvJitLink {'.'.join(map(str, nvjitlink.version()))}, does not know compute capability "
            f"{capability[0]}.{capability[1]} ({error}): the GPU is newer. Update it, with all that belongs to it: "
            "pip install -U 'numbarnn[cuda]' 'cuda-toolkit[nvjitlink,nvvm,cudart,cublas]'"
        ) from error
    try:
        text = ptx.encode() + b"\0"
        nvjitlink.add_data(link, nvjitlink.InputType.PTX, text, len(text), "kernel.ptx")
        if grid_barrier:
            nvjitlink.add_file(link, nvjitlink.InputType.LIBRARY, str(libs.get_cudalib("cudadevrt", static=True)))
        nvjitlink.complete(link)
        cubin = bytearray(nvjitlink.get_linked_cubin_size(link))
        nvjitlink.get_linked_cubin(link, cubin)
        log = bytearray(nvjitlink.get_info_log_size(link))
        nvjitlink.get_info_log(link, log)
    except nvjitlink.nvJitLinkError as error:
        log = bytearray(nvjitlink.get_error_log_size(link))
        nvjitlink.get_error_log(link, log)
        raise RuntimeError(f"the kernel does not assemble for {options[0]}: {log.decode().strip()}") from error
    finally:
        nvjitlink.destroy(link)
    return bytes(cubin), log.decode().rstrip("\0")


class CubinCache(KernelCache):
    """The disk cache of one kernel's machine code (see `kernel_cache`)."""

    def load(self, kinds, capability):
        """Return what is stored for these types and this capability, or None."""
        return self._read(self._cubin_key(kinds, capability), lambda stored: Compiled(*stored))

    def save(self, kinds, capability, compiled):
        """Store it."""
        self._store(self._cubin_key(kinds, capability), tuple(compiled))

    def _cubin_key(self, kinds, capability):
        return kinds, capability, _toolkit(), *self._of_function()


@functools.cache
def _toolkit():
    """Versions of all that has a part in the machine code."""
    from cuda.bindings import nvjitlink

    names = ("numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc-cu12")  # the compiler comes in one of the latter
    return nvjitlink.version(), *map(_version, names)


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
