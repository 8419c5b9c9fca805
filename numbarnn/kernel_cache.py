"""Where the machine code of kernels is kept between processes.

Numba's own on-disk cache looks at the file of the function alone: after an edit of a callee in another file it goes on
serving the old machine code. Ours lies in a folder named after a hash of *all* kernel sources, so an edit of any is
seen by all.

The folder lies below the first of these: the environment's ``NUMBARNN_CACHE_DIR``; Numba's ``NUMBA_CACHE_DIR``; the
package's ``__pycache__`` and, where that cannot be written, the user's cache folder. The folders of the last few source
versions are kept, older ones removed.

Read-only folders are still read: an image may be delivered with its cache filled (``python -m numbarnn warmup``). What
is found depends on the contents of the sources, the versions of Python, Numba and llvmlite, and the CPU with its
features, not on where the package lies, whose it is or what times its files carry. On another CPU kernels are compiled
anew, into the first folder that can be written.

What is compiled, and for how long, the logger ``numbarnn`` tells at level INFO. Who sits at a terminal or in a notebook
is told on stderr, once, that a process compiles kernels when that has taken half a second.
"""

import functools
import hashlib
import logging
import os
import pickle
import shutil
import sys
import time
import uuid
import warnings
from contextlib import suppress
from pathlib import Path

import llvmlite.binding
import numba
from numba.core import config, serialize, sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numba.core.runtime import _nrt_python

PACKAGE = Path(__file__).resolve().parent
KERNEL_SOURCES = (
    "jit.py", "compiler.py", "kernel_cache.py", "cuda/*.py", "ptxops.py", "simd*.py", "gemm.py", "meeting.py",
    "cells/**/*.py", "kernels/**/*.py",
    "arrays.py", "devices.py", "protocols.py", "tree.py",  # of kernels' modules, where their arrays may be on a GPU
)  # fmt: skip
VERSIONS_KEPT = 8
SILENT_SECONDS = 0.5  # of compiling, before a user who waits is told

_logger = logging.getLogger("numbarnn")


def _stamp(path):
    """What changes with a file; not compared with a clock, as files of images carry any time."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # a notebook cell, exec, a file deleted meanwhile
    return status.st_mtime_ns, status.st_size


def is_ours(function):
    """Say whether a Python function is one of numbarnn's."""
    return _in_package(function.__code__.co_filename)


@functools.cache
def _in_package(path):
    return PACKAGE in Path(path).resolve().parents


class KernelCache(NullCache):
    """The disk cache of one dispatcher, put in the place of Numba's.

    It holds one file per compiled variant, named after a hash of all that the variant depends on. Numba keeps an index
    file instead, which two simultaneous writers can leave naming each other's machine code (for other argument types
    or, on a shared disk, for another CPU). Without an index there is nothing to race for.

    Parameters
    ----------
    function : function
        The Python function that is compiled.
    options : dict
        The options that it is compiled with.
    """

    def __init__(self, function, options):
        self._function = function
        self._options = sorted((k, sorted(v) if isinstance(v, set | frozenset) else v) for k, v in options.items())
        self._stamp = _stamp(function.__code__.co_filename)
        self._begun = None

    @property
    def cache_path(self):
        """Folder of first choice, shown by `dispatcher.stats`."""
        return str(_folders()[0])

    def load_overload(self, signature, target_context):
        """Return the stored compile result for `signature`, or None."""
        if is_ours(self._function):
            _get_ready_to_run()
        else:
            target_context.refresh()
        key = self._key(signature, target_context.codegen())
        found = self._read(key, lambda result: CompileResult._rebuild(target_context, *result))
        if found is None and is_ours(self._function):
            self._begun = progress.begin()
            other = elsewhere.pop(self._function, None)
            while found is None and other is not None:
                other = other if other() else None
                found = self._read(key, lambda result: CompileResult._rebuild(target_context, *result))
                if found is not None:
                    self._note_end("had %s compiled by another process in %.1f s")
                    progress.kept += 1
        return found

    def _note_end(self, told="compiled %s in %.1f s"):
        progress.end(self._begun, f"{self._function.__module__}.{self._function.__qualname__}", told)

    def save_overload(self, signature, result):
        """Store a compile result in the first folder that can be written."""
        if self._begun is not None:
            self._note_end()
        if result.library.has_dynamic_globals:
            _warn_once(f"{self._name} holds addresses of this process and is compiled anew in each")
            return
        *parts, environments = result._reduce()
        if environments:  # loading one imports the module of its function
            code = str(result.library._final_module)
            environments = tuple(each for each in environments if code.count(each.env_name) > 1)  # more than declared
        self._store(self._key(signature, result.codegen), (*parts, environments))

    def _read(self, key, rebuild):
        """Return what `rebuild` makes of what is stored under `key`, or None."""
        for path in self._paths(key):
            try:
                stored_key, result = pickle.loads(path.read_bytes())
                if stored_key == key:
                    progress.folders.add(path.parent)
                    return rebuild(result)
            except OSError:
                continue  # not there, or not ours to read: the next folder may have it
            except Exception as error:  # half a file after a power cut: unpickling it may raise anything
                warnings.warn(f"numbarnn: unreadable cache file {path} ({error!r}), compiling again", stacklevel=2)
        return None

    def _store(self, key, result):
        data = serialize.dumps((key, result))
        refusals = []
        for path in self._paths(key):
            try:
                _write(path, data)
                progress.kept += 1
                progress.folders.add(path.parent)
                return
            except OSError as error:
                refusals.append(str(error))
        if refusals:
            _warn_once(f"compiled code cannot be kept and is compiled anew in each process ({'; '.join(refusals)})")

    def flush(self):
        """Delete all that is stored for the function, as `dispatcher.recompile` asks."""
        for folder in _folders():
            for path in folder.glob(f"{self._name}.*.nbc"):
                path.unlink(missing_ok=True)

    @property
    def _name(self):
        name = f"{self._function.__module__}.{self._function.__qualname__}".replace("<", "").replace(">", "")
        return f"{name[-100:]}-{self._function.__code__.co_firstlineno}"

    @functools.cached_property
    def _file(self):
        """What tells apart functions outside the package (tests, users'); for those inside the folder's name does."""
        if is_ours(self._function):
            return ""
        path = Path(self._function.__code__.co_filename).resolve()
        return f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}"

    def _key(self, signature, codegen):
        """All that a variant depends on beside files; the CPU and its features are in Numba's magic tuple."""
        arguments, return_type = sigutils.normalize_signature(signature)
        return tuple(arguments), return_type, codegen.magic_tuple(), *self._of_function()

    def _of_function(self):
        closure = self._function.__closure__
        captured = serialize.dumps(tuple(cell.cell_contents for cell in closure)) if closure else b""
        code = hashlib.sha256(self._function.__code__.co_code + captured).hexdigest()
        return repr(self._options), self._name, code

    def _paths(self, key):
        """Where the variant may lie: nowhere if the files on disk may no longer be the code that runs here."""
        own = self._function.__code__.co_filename
        loaded = {**_LOADED, own: self._stamp}
        if None in loaded.values() or any(_stamp(path) != stamp for path, stamp in loaded.items()):
            return []  # edited while we run: what we compile is not what the file says
        name = f"{self._name}.{hashlib.sha256(repr((key, self._file)).encode()).hexdigest()[:24]}.nbc"
        return [folder / name for folder in _folders()]


@functools.cache
def _get_ready_to_run():
    """Make Numba's runtime known to the linker, all that stored kernels need.

    Numba's own cache gets ready for compiling at this place, which takes 0.3 s: Numba compiles its runtime, imports all
    that it can compile and, in passing, scipy.linalg. It still does when something is to be compiled.
    """
    for name, address in _nrt_python.c_helpers.items():
        llvmlite.binding.add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


class _Progress:
    """What this process has compiled: seconds and kernels of ours, how many of any are kept, where those in use lie."""

    def __init__(self):
        self.seconds, self.kernels, self.kept = 0.0, 0, 0
        self.folders = set()
        self.told = False

    def begin(self):
        """Note that a kernel is about to be compiled; return when, and what others have taken until then."""
        if self.seconds > SILENT_SECONDS and not self.told:
            self.told = True
            if sys.stderr is not None and (hasattr(sys, "ps1") or sys.stderr.isatty()):
                print("numbarnn: compiling kernels, which takes some seconds the first time ...", file=sys.stderr)
        return time.perf_counter(), self.seconds

    def end(self, begun, name, told="compiled %s in %.1f s"):
        """Note that a kernel has been compiled, in what is left without the kernels that were compiled within it."""
        start, before = begun
        seconds = time.perf_counter() - start - (self.seconds - before)
        self.seconds, self.kernels = self.seconds + seconds, self.kernels + 1
        _logger.info(told, name, seconds)


progress = _Progress()  #: of this process
elsewhere = {}  #: for Python functions that another process compiles, what waits a moment and says if it still runs


def _sources():
    return sorted(path for pattern in KERNEL_SOURCES for path in PACKAGE.glob(pattern))


_LOADED = {path: _stamp(path) for path in _sources()}  # as they are when they are imported


@functools.cache
def _folders():
    """Folders for this version of the sources, first choice first; found once, at the first compilation."""
    version = hashlib.sha256()
    for path in _LOADED:
        source = path.read_bytes()
        version.update(f"{path.relative_to(PACKAGE).as_posix()} {len(source)}\n".encode() + source)
    # Numba's switches change the machine code, yet not the key of its own cache.
    switches = config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT, config.LOOP_VECTORIZE, config.SLP_VECTORIZE
    version.update(repr((numba.__version__, llvmlite.__version__, sys.implementation.cache_tag, switches)).encode())
    chosen = os.environ.get("NUMBARNN_CACHE_DIR") or config.CACHE_DIR
    roots = [Path(chosen)] if chosen else [PACKAGE / "__pycache__", _user_cache()]
    name = Path("numbarnn-kernels", version.hexdigest()[:16])
    folders = [Path(os.path.expanduser(root)).absolute() / name for root in roots]
    for folder in folders:
        with suppress(OSError):  # absent or read-only: nothing will prune it
            os.utime(folder)  # in use, see _prune
    return folders


def can_be_filled(kernels):
    """Say whether the cache can keep kernels, dispatchers of ours, and holds no variant of them yet."""
    names = [kernel._cache._name for kernel in kernels if isinstance(getattr(kernel, "_cache", None), KernelCache)]
    if len(names) < len(kernels) or any(any(folder.glob(f"{name}.*.nbc")) for folder in _folders() for name in names):
        return False
    there = [next(path for path in (folder, *folder.parents) if path.exists()) for folder in _folders()]
    return any(path.is_dir() and os.access(path, os.W_OK) for path in there)


def _user_cache():
    if sys.platform == "win32":
        return os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    if sys.platform == "darwin":
        return "~/Library/Caches"
    return os.environ.get("XDG_CACHE_HOME") or "~/.cache"


def _write(path, data):
    """Write a file that others see whole or not at all."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        _prune(path.parent.parent)
    temporary = path.with_name(f"{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _prune(folder):
    """Remove all but the versions used last; a process that still runs an older one compiles again."""
    ages = {}
    for version in folder.iterdir():
        with suppress(FileNotFoundError):  # another process is pruning as well
            ages[version] = version.stat().st_mtime
    for version in sorted(ages, key=ages.get, reverse=True)[VERSIONS_KEPT:]:
        shutil.rmtree(version, ignore_errors=True)


@functools.cache
def _warn_once(message):
    warnings.warn(f"numbarnn: {message}", stacklevel=3)
