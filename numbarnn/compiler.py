"""What Numba's compiler leaves out for numbarnn's own kernels, which so compile in two thirds of the time.

Numba treats each function as one that might be called from Python or through its address: its code is optimised three
times (each function, the module cheaply, the module thoroughly) and turned into machine code, then once more inside of
each caller. Our kernels have many small callees that are nothing but parts of them. So a callee is not optimised and
has no machine code of its own; it is taken into its callers as it is. A kernel is optimised once, as a whole.

The order of floating-point operations is the source's either way: no pass may change it without fastmath, which
kernels do not use.
"""

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

__all__ = ["CalleeCompiler", "KernelCompiler"]


class _KernelLibrary(JITCodeLibrary):
    """The code of a kernel and its callees."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class _CalleeLibrary(_KernelLibrary):
    """The code of a function that is compiled into its callers only."""

    def _optimize_final_module(self):
        """It is done in the callers."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name):
        """Return 0, which Numba takes for a function that cannot be called from Python."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self):
        """Where Numba writes the address of the function's environment: here nowhere, as there is no machine code.

        A function that needs it (to print, to work with Python objects) raises RuntimeError and cannot be a callee.
        """
        return _NoEnvironments


class _NoEnvironments:
    @staticmethod
    def set_env(env_name, env):
        """Do nothing."""


class _LibraryCompiler(Compiler):
    """Numba's compiler of functions, with a library of ours."""

    def compile_extra(self, func):
        """Compile a Python function."""
        if self.state.library is None:
            self.state.library = self.library_class(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
        return super().compile_extra(func)


class KernelCompiler(_LibraryCompiler):
    """For functions with an entry point: the ``pipeline_class`` of `numba.njit`."""

    library_class = _KernelLibrary


class CalleeCompiler(_LibraryCompiler):
    """For functions that are only called by compiled ones."""

    library_class = _CalleeLibrary
