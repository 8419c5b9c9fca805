"""How Numba compiles numbarnn's own kernels: with less than it takes for any function, in about half the time.

Numba optimises a function three times (by itself, its module cheaply, its module thoroughly) and makes machine code of
it, then all of that once more in each caller, as it might be called from Python or through its address. Our kernels
have many small callees which are nothing but parts of them. So a callee is neither optimised nor made machine code,
but taken into its callers as it is, and a kernel is optimised once, as a whole. The steps between for what kernels do
not contain (closures, array expressions, ``with`` blocks, generators, literal loops) are left out.

What is computed stays the same to the last bit: the steps left in keep the order of all operations on floats, but for
kernels with `fastmath`, whose sums LLVM makes into vectors in its one thorough pass.
"""

import gc
from types import BuiltinFunctionType

from numba.core import ir, lowering, types
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import PassManager, register_pass

__all__ = ["CalleeCompiler", "KernelCompiler"]


_signatures = {}  # by function and types of arguments


class _TypingContext:
    """Numba's typing context, asked once in a process what a builtin function makes of which integers.

    Each time it would try the rules for sets, strings, dates and arrays as well: a tenth of the time of compiling.
    """

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def resolve_function_type(self, func, args, kws):
        """Return the signature of a call."""
        if kws or not all(isinstance(arg, types.Integer | types.Boolean) for arg in args) or not _is_builtin(func):
            return self._context.resolve_function_type(func, args, kws)
        key = func, args
        if key not in _signatures:
            _signatures[key] = self._context.resolve_function_type(func, args, kws)
        return _signatures[key]


def _is_builtin(func):
    function = func.typing_key if isinstance(func, types.Function) else func
    return isinstance(function, BuiltinFunctionType) or function is bool


@register_pass(mutates_CFG=True, analysis_only=False)
class _TypeInference(typed.NopythonTypeInference):
    _name = "kernel_type_inference"

    def run_pass(self, state):
        """Find the types of all variables."""
        context = state.typingctx
        state.typingctx = _TypingContext(context)
        try:
            return super().run_pass(state)
        finally:
            state.typingctx = context


class _Lower(lowering.Lower):
    """Lowers a function without counting references to arrays, if all that it has are its caller's.

    LLVM cannot take these counts out of loops: with few rows they were a sixth of the time of a step. Without them it
    would take whole loops into a kernel, whose activations then have their constants pushed out of the registers (a
    tenth of their time): a callee that loops stays a function of its own.
    """

    def pre_lower(self):
        """Find out whether all arrays are arguments."""
        assigned = (one for block in self.blocks.values() for one in block.find_insts(ir.Assign))
        made = [self.typeof(one.target.name) for one in assigned if not isinstance(one.value, ir.Arg | ir.Var)]
        models = self.context.data_model_manager
        self._borrows = not any(models[type_].contains_nrt_meminfo() for type_ in (*made, self.fndesc.restype))
        super().pre_lower()

    def post_lower(self):
        """Keep loops apart."""
        super().post_lower()
        if self._borrows and not self.fndesc.inline and compute_cfg_from_blocks(self.blocks).loops():
            self.function.attributes.add("noinline")

    def incref(self, typ, val):
        """Count a reference."""
        if not self._borrows:
            super().incref(typ, val)

    def decref(self, typ, val):
        """Count one reference less."""
        if not self._borrows:
            super().decref(typ, val)


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(typed.BaseNativeLowering):
    _name = "kernel_lowering"
    lowering_class = _Lower


_PASSES = (
    untyped.TranslateByteCode,
    untyped.FixupArgs,
    untyped.IRProcessing,
    untyped.RewriteSemanticConstants,
    untyped.DeadBranchPrune,
    untyped.GenericRewrites,
    untyped.ReconstructSSA,
    untyped.DeadBranchPrune,  # again: a variable that two branches set has become several
    _TypeInference,
    typed.PreLowerStripPhis,
    typed.IRLegalization,
    _Lowering,
    typed.NoPythonBackend,
)


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
        """The callers' business."""

    def _finalize_final_module(self):
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True

    def get_pointer_to_function(self, name):
        """Return 0, by which Numba knows that the function cannot be called from Python."""
        self._ensure_finalized()
        return 0

    @property
    def codegen(self):
        """Where Numba puts the environment of the function: in its machine code, and there is none.

        A callee that needs an environment (to print, to work with Python objects) raises RuntimeError when it runs.
        """
        return _NoEnvironments


class _NoEnvironments:
    @staticmethod
    def set_env(env_name, env):
        """Do nothing."""


class _Compiler(Compiler):
    def compile_extra(self, func):
        """Compile a Python function into a library of ours."""
        if self.state.library is None:
            self.state.library = self.library_class(self.state.targetctx.codegen(), func.__qualname__)
            self.state.library.enable_object_caching()
        collecting = gc.isenabled()
        gc.disable()  # hundreds of thousands of objects come to be, all in use till the end: a twelfth of the time
        try:
            return super().compile_extra(func)
        finally:
            if collecting:
                gc.enable()

    def define_pipelines(self):
        """Return Numba's passes without those that kernels do not need."""
        passes = PassManager("kernel")
        for step in _PASSES:
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


class KernelCompiler(_Compiler):
    """For functions with an entry point: the ``pipeline_class`` of `numba.njit`."""

    library_class = _KernelLibrary


class CalleeCompiler(_Compiler):
    """For functions that are only called by compiled ones."""

    library_class = _CalleeLibrary
