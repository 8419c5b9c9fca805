"""Where the machine code of kernels is kept between processes.

Numba's own on-disk cache looks at the file of the function alone: after an edit of a callee in another file it goes on
serving the old machine code. Ours lies in a folder named after a hash of *all* kernel sources, so an edit of any is
seen by all.

The folder lies below the first of these: the environment's ``NUMBARNN_CACHE_DIR``; Numba's ``NUMBA_CACHE_DIR``; the
package's ``__pycache__`` and, where that cannot be written, the user's cache folder. Read-only folders are still read:
an image may be delivered with its cache filled. The folders of the last few source versions are kept, older ones
removed.
"""

import functools
import hashlib
import os
import pickle
import shutil
import sys
import time
import uuid
import warnings
from contextlib import suppress
from pathlib import Path

import llvmlite
import numba
from numba.core import config, serialize, sigutils
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult

PACKAGE = Path(__file__).resolve().parent
KERNEL_SOURCES = (
    "jit.py",
    "kernel_cache.py",
    "cuda/*.py",
    "ptxops.py",
    "simd*.py",
    "gemm.py",
    "meeting.py",
    "cells/**/*.py",
    "kernels/**/*.py",
)
VERSIONS_KEPT = 8
_IMPORTED = time.time()


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
        self._defined = time.time()

    @property
    def cache_path(self):
        """Folder of first choice, shown by `dispatcher.stats`."""
        return str(_folders()[0])

    def load_overload(self, signature, target_context):
        """Return the stored compile result for `signature`, or None."""
        target_context.refresh()
        key = self._key(signature, target_context.codegen())
        return self._read(key, lambda result: CompileResult._rebuild(target_context, *result))

    def save_overload(self, signature, result):
        """Store a compile result in the first folder that can be written."""
        if result.library.has_dynamic_globals:
            _warn_once(f"{self._name} holds addresses of this process and is compiled anew in each")
            return
        self._store(self._key(signature, result.codegen), result._reduce())

    def _read(self, key, rebuild):
        """Return what `rebuild` makes of what is stored under `key`, or None."""
        for path in self._paths(key):
            try:
                stored_key, result = pickle.loads(path.read_bytes())
                if stored_key == key:
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
                return _write(path, data)
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
        path = Path(self._function.__code__.co_filename).resolve()
        return "" if PACKAGE in path.parents else f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}"

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
        for path, loaded in ((own, self._defined), *((source, _IMPORTED) for source in _sources())):
            try:
                if os.stat(path).st_mtime > loaded:
                    return []  # edited while we run: what we compile is not what the file says
            except OSError:
                return []  # a notebook cell, exec, a file deleted meanwhile
        name = f"{self._name}.{hashlib.sha256(repr((key, self._file)).encode()).hexdigest()[:24]}.nbc"
        return [folder / name for folder in _folders()]


@functools.cache
def _sources():
    return sorted(path for pattern in KERNEL_SOURCES for path in PACKAGE.glob(pattern))


@functools.cache
def _folders():
    """Folders for this version of the sources, first choice first; found once, at the first compilation."""
    version = hashlib.sha256()
    for path in _sources():
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
