"""How Numba compiles numbarnn's own kernels: with less than it takes for any function, in about half the time.

Numba optimises a function three times (by itself, its module cheaply, its module thoroughly) and makes machine code of
it, then all of that once more in each caller, as it might be called from Python or through its address. Our kernels
have many small callees which are nothing but parts of them. So a callee is neither optimised nor made machine code,
but taken into its callers as it is, and a kernel is optimised once, as a whole. The steps between for what kernels do
not contain (closures, array expressions, ``with`` blocks, generators, literal loops) are left out, and so is what would
be removed again or never read: counts of references that a caller holds, lifetimes of variables between passes.

LLVM unrolls no loop by itself. Kernels ran as fast without, or faster where sequences run alone, and compile with a
quarter less code.

What is computed stays the same to the last bit: the steps left in keep the order of all operations on floats, but for
kernels with `fastmath`, whose sums LLVM makes into vectors in its one thorough pass.
"""

import gc
import operator
from types import BuiltinFunctionType

from llvmlite import binding as llvm
from numba.core import cgutils, config, ir, types
from numba.core import typed_passes as typed
from numba.core import untyped_passes as untyped
from numba.core.analysis import compute_cfg_from_blocks
from numba.core.codegen import JITCodeLibrary, _parse_refprune_flags
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.debuginfo import DummyDIBuilder
from numba.core.extending import _Intrinsic
from numba.core.ir_utils import build_definitions
from numba.core.lowering import Lower
from numba.core.ssa import reconstruct_ssa
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

__all__ = ["CalleeCompiler", "KernelCompiler"]


_signatures = {}  # by function and types of arguments


class _TypingContext:
    """Numba's typing context, asked once in a process what a builtin function or an intrinsic makes of which values.

    Each time it would try the rules for sets, strings, dates and arrays as well: a tenth of the time of compiling.
    """

    def __init__(self, context):
        self._context = context

    def __getattr__(self, name):
        return getattr(self._context, name)

    def resolve_function_type(self, func, args, kws):
        """Return the signature of a call."""
        if kws or not _is_lasting(func, args):
            return self._context.resolve_function_type(func, args, kws)
        key = func, args
        if key not in _signatures:
            _signatures[key] = self._context.resolve_function_type(func, args, kws)
        return _signatures[key]


def _is_lasting(func, args):
    """Whether nothing but the types of its arguments decides what a function returns."""
    function = func.typing_key if isinstance(func, types.Function) else func
    if isinstance(function, _Intrinsic):
        return True
    if not (isinstance(function, BuiltinFunctionType) or function in (bool, least, most)):
        return False
    return all(isinstance(arg, types.Number | types.Boolean | types.CPointer) for arg in args)


def least(*numbers):
    """Return the least of numbers: `min` in compiled code."""
    return min(numbers)


def most(*numbers):
    """Return the greatest of numbers: `max` in compiled code."""
    return max(numbers)


def _define_extreme(function, better):
    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if kws or len(args) < 2 or not all(isinstance(arg, types.Number | types.Boolean) for arg in args):
                return None
            return signature(self.context.unify_types(*args), *args)

    @lower_builtin(function, types.VarArg(types.Any))
    def lower(context, builder, sig, args):
        from numba.cpython.builtins import do_minmax  # which Numba imports when it compiles

        return do_minmax(context, builder, sig.args, args, better)


_define_extreme(least, operator.lt)
_define_extreme(most, operator.gt)


@register_pass(mutates_CFG=False, analysis_only=False)
class _Extremes(FunctionPass):
    """Replace `min` and `max`, of which Numba compiles a function for each combination of types, by instructions."""

    _name = "kernel_extremes"

    def __init__(self):
        super().__init__()

    def run_pass(self, state):
        """Replace the functions where they are looked up."""
        for block in state.func_ir.blocks.values():
            for assignment in block.find_insts(ir.Assign):
                found = assignment.value
                if isinstance(found, ir.Global) and (found.value is min or found.value is max):
                    assignment.value = ir.Global(found.name, least if found.value is min else most, found.loc)
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _ReconstructSSA(untyped.ReconstructSSA):
    """Numba's pass without the lifetimes of variables, which those behind it compute when they need them."""

    _name = "kernel_ssa"

    def run_pass(self, state):
        """Give each assignment a variable of its own."""
        state.func_ir = reconstruct_ssa(state.func_ir)
        self._patch_locals(state)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


@register_pass(mutates_CFG=False, analysis_only=False)
class _StripPhis(typed.PreLowerStripPhis):
    """Numba's pass without the lifetimes of variables, which the one behind it computes."""

    _name = "kernel_strip_phis"

    def run_pass(self, state):
        """Replace phi nodes by assignments."""
        state.func_ir = self._strip_phi_nodes(state.func_ir)
        state.func_ir._definitions = build_definitions(state.func_ir.blocks)
        return True


class _Lower(Lower):
    """Numba's, which writes out less that LLVM would have to remove: a fifth of the instructions.

    A caller holds its arguments while the function runs. So their references are not counted, nor those of other names
    for them; and what holds no reference is not cleared after its last use. LLVM cannot take these counts out of loops:
    with few rows they were a sixth of the time of a step.

    Without them it would take whole loops into a kernel, whose activations then have their constants pushed out of the
    registers (a tenth of their time): a function that loops stays one of its own.
    """

    _counts = True  # whether the statement that is being emitted counts references

    def pre_lower(self):
        """Find the variables that need no count of references."""
        super().pre_lower()
        assignments = [each for block in self.blocks.values() for each in block.find_insts(ir.Assign)]
        owners = {each.target.name for each in assignments if not isinstance(each.value, ir.Arg | ir.Var)}
        aliases = [(each.value.name, each.target.name) for each in assignments if isinstance(each.value, ir.Var)]
        known = 0
        while len(owners) > known:
            known = len(owners)
            owners.update(alias for name, alias in aliases if name in owners)
        models = self.context.data_model_manager
        self._counted = {name for name in owners if models[self.typeof(name)].contains_nrt_meminfo()}

    def post_lower(self):
        """Keep loops apart."""
        super().post_lower()
        if not (self._counted or self.fndesc.inline) and compute_cfg_from_blocks(self.blocks).loops():
            self.function.attributes.add("noinline")

    def lower_inst(self, inst):
        """Emit the instructions of a statement."""
        if isinstance(inst, ir.Del) and inst.value not in self._counted:
            return
        if isinstance(inst, ir.Assign) and isinstance(inst.value, ir.Arg | ir.Var):
            self._counts = inst.target.name in self._counted
        super().lower_inst(inst)
        self._counts = True

    def incref(self, typ, val):
        """Count one reference more."""
        if self._counts:
            super().incref(typ, val)

    def decref(self, typ, val):
        """Count one reference less."""
        if self._counts:
            super().decref(typ, val)

    def alloca_lltype(self, name, lltype, datamodel=None):
        """Make room for a variable, whose size (LLVM parses a module to say it) only a debugger wants to know."""
        if type(self.debuginfo) is not DummyDIBuilder:
            return super().alloca_lltype(name, lltype, datamodel)
        return cgutils.alloca_once(self.builder, lltype, name=name, zfill=False)


@register_pass(mutates_CFG=True, analysis_only=False)
class _NativeLowering(typed.NativeLowering):
    _name = "kernel_lowering"
    lowering_class = _Lower


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


_PASSES = (
    untyped.TranslateByteCode,
    untyped.FixupArgs,
    untyped.IRProcessing,
    _Extremes,
    untyped.RewriteSemanticConstants,
    untyped.DeadBranchPrune,
    untyped.GenericRewrites,
    _ReconstructSSA,
    untyped.DeadBranchPrune,  # again: a variable that two branches set has become several
    _TypeInference,
    _StripPhis,
    typed.IRLegalization,
    _NativeLowering,
    typed.NoPythonBackend,
)


class _KernelLibrary(JITCodeLibrary):
    """The code of a kernel and its callees."""

    def _optimize_functions(self, ll_module):
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self):
        options = llvm.create_pipeline_tuning_options(int(config.OPT))
        options.loop_vectorization, options.slp_vectorization = config.LOOP_VECTORIZE, config.SLP_VECTORIZE
        options.loop_unrolling = False
        builder = llvm.create_pass_builder(self._codegen._tm, options)
        passes = builder.getModulePassManager()
        passes.add_refprune_pass(_parse_refprune_flags())
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
