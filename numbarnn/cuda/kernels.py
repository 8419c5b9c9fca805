"""Kernels: how they are declared and launched."""

import functools
import threading
import types

import numpy as np

from numbarnn.cuda.arrays import array_module, simulated, stands_in
from numbarnn.cuda.compiling import CubinCache, assembled, bound, made, type_of
from numbarnn.cuda.machine import capability, current_device, multiprocessors

_SHARED = 48 * 1024  # bytes of shared memory that a block has unasked
_NULL_STREAM = 1  # the default stream's other name, for interfaces to which 0 is no stream


class Kernel:
    """A kernel for the GPU; made by `kernel`, launched by `launch`."""

    def __init__(self, function, options):
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options
        self._lock = threading.Lock()
        self._loaded = {}
        self._variants = {}
        self._resident = {}
        self._cache = CubinCache(function, options)

    def launch(self, grid, block, *args, shared=0, cooperative=False, cluster=None):
        """Run the kernel on the current GPU and stream; returns when it is launched (simulated: done).

        Parameters
        ----------
        grid, block : int or tuple of int
            Blocks of the grid (all of them, also where they form clusters), threads of a block.
        *args
            C-contiguous device arrays, whole numbers, NumPy scalars, truth values, None.
        shared : int
            Bytes of dynamic shared memory for each block.
        cooperative : bool
            All blocks run at the same time, so that they may wait for one another.
        cluster : int or tuple of int, optional
            Blocks of a cluster (compute capability 9.0 or higher); the grid is a multiple of it.

        Raises
        ------
        TypeError
            For an argument that kernels do not take.
        ValueError
            For an array that is not C-contiguous, or on another GPU.
        """
        if simulated():
            return self._simulate(grid, block, args, shared)
        numbers, loaded = self._prepare(args)
        from cuda import core

        stream = core.Stream.from_handle(array_module().cuda.get_current_stream().ptr or _NULL_STREAM)
        if shared > _SHARED or cluster is not None:
            _allow(loaded, shared, cluster)
        if cluster is not None:
            grid = tuple(-(-g // c) for g, c in zip(_triple(grid), _triple(cluster), strict=True))
        together = {_cooperative(): True} if cooperative else {}
        config = core.LaunchConfig(grid=grid, block=block, cluster=cluster, shmem_size=shared, **together)
        core.launch(stream, config, loaded, *numbers)

    def compile(self, args, capability):
        """Compile for arguments of these types; needs no GPU.

        Parameters
        ----------
        args : sequence
            As given to `launch`, the arrays' values and places do not matter: NumPy's do.
        capability : (int, int)
            Compute capability.

        Returns
        -------
        Compiled
        """
        return assembled(self, tuple(map(type_of, args)), tuple(capability))

    def with_constants(self, *, max_threads, **constants):
        """Return the kernel with other values of globals that it uses: what the compiler has to know.

        Parameters
        ----------
        max_threads : int
            As in `kernel`.
        **constants
            Whole numbers, and functions that are compiled in, by the names of the globals.

        Returns
        -------
        Kernel
            The same one for the same values.
        """
        key = max_threads, tuple(sorted(constants.items()))
        with self._lock:
            variant = self._variants.get(key)
            if variant is None:
                function = self.function
                copy = types.FunctionType(
                    function.__code__, {**function.__globals__, **constants}, function.__name__, function.__defaults__
                )
                copy.__module__, copy.__qualname__ = function.__module__, function.__qualname__
                said = {name: _said(value) for name, value in key[1]}
                options = {**self.options, "max_threads": max_threads}
                options["constants"] = {**self.options.get("constants", {}), **said}
                variant = self._variants[key] = Kernel(copy, options)
        return variant

    def python(self, cuda):
        """Return the kernel as plain Python, in which the name `cuda` stands for an emulator."""
        return bound(self.function, cuda, lambda device: device.python(cuda))

    def resident_blocks(self, block, *args, shared=0):
        """Return how many blocks the current GPU runs at the same time: the limit of a cooperative launch."""
        if stands_in():
            return 1  # the simulator runs one block after the other
        key = tuple(map(type_of, args)), current_device(), _triple(block), shared
        if key not in self._resident:
            _, loaded = self._prepare(args)
            if shared > _SHARED:
                _allow(loaded, shared, None)
            threads = int(np.prod(_triple(block)))
            each = loaded.occupancy.max_active_blocks_per_multiprocessor(threads, shared)
            self._resident[key] = multiprocessors() * each
        return self._resident[key]

    @functools.cached_property
    def _simulated(self):
        from numba import cuda
        from numba.core.dispatcher import Dispatcher

        function = bound(self.function, cuda, made)
        # Compiled code of the CPU takes no arrays of the simulator.
        names = function.__globals__
        names.update((name, value.py_func) for name, value in names.items() if isinstance(value, Dispatcher))
        return cuda.jit(function)

    def _simulate(self, grid, block, args, shared):
        for arg in args:
            type_of(arg)  # the same errors as on a GPU
        args = [getattr(arg, "in_simulator", arg) for arg in args]
        self._simulated[_triple(grid), _triple(block), 0, shared](*args)

    def _prepare(self, args):
        """Return the arguments as the machine code takes them, and the loaded kernel."""
        kinds = tuple(map(type_of, args))
        number = current_device()
        for arg, (_, ndim) in zip(args, kinds, strict=True):
            if ndim >= 0 and arg.data.device_id != number:
                raise ValueError(
                    f"kernels take arrays on the GPU that they run on, cuda:{number}; got one of shape {arg.shape} on "
                    f"cuda:{arg.data.device_id}"
                )
        _bind_thread(number)
        key = kinds, number
        loaded = self._loaded.get(key)
        if loaded is None:
            with self._lock:
                loaded = self._loaded.get(key)
                if loaded is None:
                    loaded = self._loaded[key] = self._load(kinds)
        numbers = []
        for arg, kind in zip(args, kinds, strict=True):
            numbers += flattened(arg, kind)
        return numbers, loaded

    def _load(self, kinds):
        from cuda import core

        compiled = self._cache.load(kinds, capability())
        if compiled is None:
            compiled = assembled(self, kinds, capability())
            self._cache.save(kinds, capability(), compiled)
        return core.ObjectCode.from_cubin(compiled.cubin, name=self.__name__).get_kernel(compiled.entry)


def kernel(function=None, /, *, max_threads=None, min_blocks=1, fast_division=False):
    """Declare a kernel for the GPU, under the project's one policy; nothing is compiled before its first launch.

    The machine code is kept on disk, in the cache of `numbarnn.kernel_cache`.

    Parameters
    ----------
    function : function, optional
        Returns nothing; absent when options are given.
    max_threads : int, optional
        Threads of a block, at most: bounds the registers of a thread.
    min_blocks : int
        Blocks that a multiprocessor should hold at the same time; with `max_threads`.
    fast_division : bool
        Divide by an approximate reciprocal in float32 (see the top of this file).

    Returns
    -------
    Kernel
    """
    options = {"max_threads": max_threads, "min_blocks": min_blocks, "fast_division": fast_division}
    if function is None:
        return functools.partial(kernel, **options)
    return Kernel(function, options)


def _said(constant):
    """Return what tells a kernel's constant from others, in all processes."""
    return f"{constant.__module__}.{constant.__qualname__}" if hasattr(constant, "__qualname__") else constant


def _triple(size):
    size = (size,) if isinstance(size, int | np.integer) else tuple(size)
    return tuple(int(n) for n in size) + (1,) * (3 - len(size))


def flattened(arg, kind):
    """Return an argument as Numba's kernels take it: for an array, the fields of its descriptor one by one."""
    name, ndim = kind
    if ndim < 0:
        if arg is None:
            return (0,)
        return (arg,) if name in ("bool", "int64") else (np.dtype(name).type(arg),)
    return (0, 0, arg.size, arg.dtype.itemsize, arg.data.ptr, *arg.shape, *arg.strides)


_bound = threading.local()


def _bind_thread(number):
    """Have this thread launch on a GPU: the driver asks each thread for that; CuPy sees to it where it computes."""
    if getattr(_bound, "number", None) != number:
        from cuda import core

        core.Device(number).set_current()
        _bound.number = number


@functools.cache
def _cooperative():
    """Return the option's name, which was another one before cuda-core 1.0."""
    from cuda import core

    return "is_cooperative" if hasattr(core.LaunchConfig, "is_cooperative") else "cooperative_launch"


def _allow(loaded, shared, cluster):
    """Allow a kernel more shared memory than every GPU has, and clusters of more blocks than every GPU can."""
    from cuda.bindings import driver

    attributes = {}
    if shared > _SHARED:
        attributes[driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = shared
    if cluster is not None and np.prod(_triple(cluster)) > 8:
        attributes[driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED] = 1
    for attribute, value in attributes.items():
        (status,) = driver.cuKernelSetAttribute(attribute, value, loaded.handle, current_device())
        if status != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"the GPU refuses {attribute.name} = {value}: {status.name}")
