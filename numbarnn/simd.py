"""One SIMD register as a value: the `Vec` type of Numba kernels, with its loads, stores and operators.

A formula written with ``+ - * /``, :func:`fma`, :func:`where` and :func:`like` runs unchanged on three kinds of
values: on a `Vec` inside an ``@njit`` kernel (all lanes at once), on scalars inside any kernel, and on NumPy arrays
in plain Python.  The vector width is that of the *target* Numba compiles for (``NUMBA_CPU_FEATURES`` may narrow it),
not that of the host.

Memory is addressed by a pointer and an offset counted in elements.  ``pointer(array)`` gives the pointer; the array
must stay alive and C-contiguous for as long as the pointer is used.  Nothing here checks bounds.
"""

import functools
import operator
import platform

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.core.errors import TypingError
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

__all__ = [
    "Mask",
    "Vec",
    "advance",
    "aligned_pointer",
    "borrowed",
    "clear",
    "copy",
    "fma",
    "has_fma",
    "hold",
    "lanes",
    "like",
    "load",
    "load_n",
    "pointer",
    "prefetch",
    "put",
    "register_count",
    "splat",
    "store",
    "store_n",
    "target_features",
    "transpose",
    "vector_bytes",
    "where",
]


# ---------------------------------------------------------------------------------------------------------- the target


@functools.cache
def target_features():
    """Names of the instruction-set extensions that Numba compiles for, e.g. ``{"avx2", "fma", ...}``.

    Returns
    -------
    frozenset of str
        Empty for a target without extensions.
    """
    features = config.CPU_FEATURES if config.CPU_FEATURES is not None else get_host_cpu_features()
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


def _is_arm():
    return platform.machine().lower() in ("aarch64", "arm64")


def vector_bytes():
    """Bytes of one vector register of the target: 64 (AVX-512), 32 (AVX2) or 16 (SSE, NEON)."""
    features = target_features()
    if "avx512f" in features:
        return 64
    return 32 if "avx2" in features else 16


def register_count():
    """Vector registers of the target: 32 (AVX-512, NEON) or 16."""
    return 32 if "avx512f" in target_features() or _is_arm() else 16


def has_fma():
    """Whether the target multiplies and adds in one rounding; without it `fma` multiplies, then adds."""
    return bool({"fma", "avx512f"} & target_features()) or _is_arm()


def masks_are_free():
    """Whether the target's masked loads and stores cost what plain ones do."""
    return "avx512f" in target_features()


# ----------------------------------------------------------------------------------------------------------- the types


class Vec(types.Type):
    """Numba type of one vector register of `dtype` (``float32`` or ``float64``) lanes."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = vector_bytes() * 8 // dtype.bitwidth
        super().__init__(f"Vec({dtype}, {self.lanes})")


class Mask(types.Type):
    """Numba type of the truth values, one per lane, that comparing two `Vec` gives."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.lanes = Vec(dtype).lanes
        super().__init__(f"Mask({dtype}, {self.lanes})")


def _scalar_ir(dtype):
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def _vector_ir(dtype):
    return ir.VectorType(_scalar_ir(dtype), Vec(dtype).lanes)


@register_model(Vec)
class _VecModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _vector_ir(fe_type.dtype))


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(ir.IntType(1), fe_type.lanes))


def _is_float(ty):
    return ty in (types.float32, types.float64)


def splat_ir(builder, scalar, lanes_):
    """IR of a vector of `lanes_` lanes that all hold `scalar`."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes_), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes_), [0] * lanes_)
    return builder.shuffle_vector(one, undefined, zeros)


def call_llvm(builder, name, result, args):
    """Emit a call of the LLVM intrinsic `name` with IR values `args`, declared in the module when it is new there."""
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, ir.FunctionType(result, [a.type for a in args]), name)
    return builder.call(function, args)


def _suffix(dtype):
    return f"v{Vec(dtype).lanes}f{dtype.bitwidth}"


# ---------------------------------------------------------------------------------------------------- pointers, memory


@intrinsic
def pointer(typingctx, array):
    """Pointer to the first element of a C-contiguous array; of another, the code does not compile."""
    if not isinstance(array, types.Array):
        return None
    if array.layout != "C":  # every kernel counts elements from here: it would read, and write, the wrong ones
        raise TypingError(f"pointer needs a C-contiguous array, got {array}; np.ascontiguousarray makes one")

    def codegen(context, builder, sig, args):
        return context.make_array(sig.args[0])(context, builder, value=args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def aligned_pointer(typingctx, array):
    """Pointer to the first element of a C-contiguous array that begins a cache line, 64 bytes behind its start at most.

    A vector that lies across two lines takes two loads.
    """
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None

    def codegen(context, builder, sig, args):
        start = context.make_array(sig.args[0])(context, builder, value=args[0]).data
        address = builder.ptrtoint(start, ir.IntType(64))
        address = builder.and_(builder.add(address, address.type(63)), address.type(-64))
        return builder.inttoptr(address, start.type)

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def borrowed(typingctx, array):
    """The same array without a share in its memory, which must stay alive: reference counts are atomic, and slow."""
    if not isinstance(array, types.Array):
        return None

    def codegen(context, builder, sig, args):
        view = context.make_array(array)(context, builder, value=args[0])
        view.meminfo = context.get_constant_null(types.voidptr)
        return view._getvalue()

    return array(array), codegen


@intrinsic
def hold(typingctx, array):
    """Keep an array alive up to here: Numba frees one that is only pointed to after its last use by name."""

    def codegen(context, builder, sig, args):
        return context.get_dummy_value()

    return types.void(array), codegen


@intrinsic
def advance(typingctx, base, offset):
    """Pointer `offset` elements behind `base`."""
    if not isinstance(base, types.CPointer):
        return None

    def codegen(context, builder, sig, args):
        return builder.gep(args[0], [args[1]])

    return base(base, types.intp), codegen


@intrinsic
def lanes(typingctx, base):
    """Elements per vector register, behind a pointer, in an array or in a `Vec`: a compile-time constant."""
    count = Vec(base.dtype).lanes

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, count)

    return types.intp(base), codegen


def vector_address(builder, base, offset, dtype):
    """IR pointer to the vector that starts `offset` elements behind `base`."""
    return builder.bitcast(builder.gep(base, [offset]), _vector_ir(dtype).as_pointer())


@intrinsic
def load(typingctx, base, offset):
    """The `Vec` that starts `offset` elements behind the pointer `base`."""
    if not (isinstance(base, types.CPointer) and _is_float(base.dtype)):
        return None
    dtype = base.dtype

    def codegen(context, builder, sig, args):
        value = builder.load(vector_address(builder, args[0], args[1], dtype))
        value.align = dtype.bitwidth // 8
        return value

    return Vec(dtype)(base, types.intp), codegen


@intrinsic
def prefetch(typingctx, base, offset):
    """Fetch the line at `offset` into the second-level cache, without waiting for it."""
    if not isinstance(base, types.CPointer):
        return None

    def codegen(context, builder, sig, args):
        i32 = ir.IntType(32)
        address = builder.gep(args[0], [args[1]])
        call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), [address, i32(0), i32(2), i32(1)])
        return context.get_dummy_value()

    return types.void(base, types.intp), codegen


@intrinsic
def store(typingctx, base, offset, value):
    """Write a `Vec` to `offset` elements behind the pointer `base`."""
    if not (isinstance(base, types.CPointer) and isinstance(value, Vec) and value.dtype == base.dtype):
        return None
    dtype = base.dtype

    def codegen(context, builder, sig, args):
        instruction = builder.store(args[2], vector_address(builder, args[0], args[1], dtype))
        instruction.align = dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


def first_lanes(builder, n, dtype):
    """IR mask that is true in the first `n` lanes (`n` an IR intp; all lanes when it is larger)."""
    lanes_ = Vec(dtype).lanes
    i32 = ir.IntType(32)
    wide = builder.icmp_signed(">", n, n.type(lanes_))
    count = builder.trunc(builder.select(wide, n.type(lanes_), n), i32)
    numbers = ir.Constant(ir.VectorType(i32, lanes_), list(range(lanes_)))
    return builder.icmp_signed("<", numbers, splat_ir(builder, count, lanes_))


def masked_load(builder, address, mask, dtype):
    """IR of a load of the lanes where `mask` holds; the others are zero and their memory is not touched."""
    vector = _vector_ir(dtype)
    name = f"llvm.masked.load.{_suffix(dtype)}.p0"
    align = ir.IntType(32)(dtype.bitwidth // 8)
    return call_llvm(builder, name, vector, [address, align, mask, ir.Constant(vector, None)])


def masked_store(builder, value, address, mask, dtype):
    """IR of a store of the lanes where `mask` holds."""
    name = f"llvm.masked.store.{_suffix(dtype)}.p0"
    align = ir.IntType(32)(dtype.bitwidth // 8)
    return call_llvm(builder, name, ir.VoidType(), [value, address, align, mask])


def _all_lanes(builder, n, dtype):
    return builder.icmp_signed(">=", n, n.type(Vec(dtype).lanes))


@intrinsic
def load_n(typingctx, base, offset, n):
    """The first `n` lanes of the `Vec` at `offset`, zeros behind them; memory behind the n-th element is not read."""
    if not (isinstance(base, types.CPointer) and _is_float(base.dtype)):
        return None
    dtype = base.dtype

    def codegen(context, builder, sig, args):
        address = vector_address(builder, args[0], args[1], dtype)
        with builder.if_else(_all_lanes(builder, args[2], dtype), likely=True) as (whole, partial):
            with whole:
                plain = builder.load(address)
                plain.align = dtype.bitwidth // 8
                from_whole = builder.block
            with partial:
                masked = masked_load(builder, address, first_lanes(builder, args[2], dtype), dtype)
                from_partial = builder.block
        value = builder.phi(plain.type)
        value.add_incoming(plain, from_whole)
        value.add_incoming(masked, from_partial)
        return value

    return Vec(dtype)(base, types.intp, types.intp), codegen


@intrinsic
def store_n(typingctx, base, offset, n, value):
    """Write the first `n` lanes of `value` to `offset` elements behind `base`; what lies behind them is not touched."""
    if not (isinstance(base, types.CPointer) and isinstance(value, Vec) and value.dtype == base.dtype):
        return None
    dtype = base.dtype

    def codegen(context, builder, sig, args):
        address = vector_address(builder, args[0], args[1], dtype)
        with builder.if_else(_all_lanes(builder, args[2], dtype), likely=True) as (whole, partial):
            with whole:
                builder.store(args[3], address).align = dtype.bitwidth // 8
            with partial:
                masked_store(builder, args[3], address, first_lanes(builder, args[2], dtype), dtype)
        return context.get_dummy_value()

    return types.void(base, types.intp, types.intp, value), codegen


@intrinsic
def clear(typingctx, base, offset, count):
    """Set `count` elements from `offset` on to zero."""
    if not isinstance(base, types.CPointer):
        return None
    size = base.dtype.bitwidth // 8

    def codegen(context, builder, sig, args):
        address = builder.gep(args[0], [args[1]])
        cgutils.memset(builder, address, builder.mul(args[2], args[2].type(size)), 0)
        return context.get_dummy_value()

    return types.void(base, types.intp, types.intp), codegen


@intrinsic
def put(typingctx, base, offset, value):
    """Write one element, by itself: for transpositions, which compilers blow up into gathers and scatters."""
    if not (isinstance(base, types.CPointer) and base.dtype == value):
        return None
    size = base.dtype.bitwidth // 8

    def codegen(context, builder, sig, args):
        # An atomic store of the weakest order is a plain store that never becomes part of a vector.
        builder.store_atomic(args[2], builder.gep(args[0], [args[1]]), "monotonic", size)
        return context.get_dummy_value()

    return types.void(base, types.intp, value), codegen


@intrinsic
def copy(typingctx, source, source_offset, target, target_offset, count):
    """Copy `count` elements between two places that do not overlap."""
    if not (isinstance(source, types.CPointer) and source == target):
        return None
    size = source.dtype.bitwidth // 8

    def codegen(context, builder, sig, args):
        here, there = builder.gep(args[0], [args[1]]), builder.gep(args[2], [args[3]])
        cgutils.raw_memcpy(builder, there, here, args[4], size)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), codegen


@intrinsic
def transpose(typingctx, source, source_offset, source_step, target, target_offset, target_step):
    """Copy a square of `lanes` rows and columns as its transpose; the steps lead from row to row.

    The squares do not overlap.
    """
    if not (isinstance(source, types.CPointer) and source == target and _is_float(source.dtype)):
        return None
    dtype, n = source.dtype, Vec(source.dtype).lanes

    def codegen(context, builder, sig, args):
        from_, offset, step, to, to_offset, to_step = args

        def row(base, first, step, number):
            return vector_address(builder, base, builder.add(first, builder.mul(step, step.type(number))), dtype)

        rows = [builder.load(row(from_, offset, step, number), align=dtype.bitwidth // 8) for number in range(n)]
        # Pairs of rows half the square apart are shuffled like cards, as often as n can be halved.
        low, high = ([half + k // 2 + n * (k % 2) for k in range(n)] for half in (0, n // 2))
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), n), mask) for mask in (low, high)]
        for _ in range(n.bit_length() - 1):
            rows = [
                builder.shuffle_vector(a, b, mask)
                for a, b in zip(rows[: n // 2], rows[n // 2 :], strict=True)
                for mask in masks
            ]
        for number, vector in enumerate(rows):
            builder.store(vector, row(to, to_offset, to_step, number), align=dtype.bitwidth // 8)
        return context.get_dummy_value()

    places = types.intp, types.intp
    return types.void(source, *places, target, *places), codegen


@intrinsic
def splat(typingctx, value):
    """A `Vec` with the float `value` in every lane."""
    if not _is_float(value):
        return None

    def codegen(context, builder, sig, args):
        return splat_ir(builder, args[0], sig.return_type.lanes)

    return Vec(value)(value), codegen


# ----------------------------------------------------------------------------------------------------------- operators


def _define_arithmetic(function, instruction):
    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(args[0], *args)

    @lower_builtin(function, Vec, Vec)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


def _define_comparison(function, symbol):
    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vec) and args[0] == args[1]:
                return signature(Mask(args[0].dtype), *args)

    @lower_builtin(function, Vec, Vec)
    def _lower(context, builder, sig, args):
        # Ordered, as in IEEE 754: false where a lane is NaN, except for "!=".
        compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
        return compare(symbol, *args)


for _function, _instruction in [
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
]:
    _define_arithmetic(_function, _instruction)

for _function, _symbol in [
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
]:
    _define_comparison(_function, _symbol)


@infer_global(operator.neg)
class _NegTemplate(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 1 and isinstance(args[0], Vec):
            return signature(args[0], *args)


@lower_builtin(operator.neg, Vec)
def _lower_neg(context, builder, sig, args):
    return builder.fneg(args[0])


# ------------------------------------------------------------------- what formulas use beside the arithmetic operators


def like(value, constant):
    """`constant` in the type of `value`: a `Vec`, a float or an array's dtype.

    A bare literal in a formula would turn float32 into float64.
    """
    return np.asarray(value).dtype.type(constant)


def where(condition, a, b):
    """`a` where `condition` holds, else `b`, lane by lane (element by element on arrays)."""
    return np.where(condition, a, b)


def fma(a, b, c):
    """``a * b + c``, in one rounding where the target can."""
    return a * b + c


def fma_ir(builder, a, b, c):
    """IR of ``a * b + c`` on vectors or scalars: one instruction where the target has it, else multiply, then add."""
    if not has_fma():
        return builder.fadd(builder.fmul(a, b), c)
    if isinstance(a.type, ir.VectorType):
        bits = 32 if isinstance(a.type.element, ir.FloatType) else 64
        return call_llvm(builder, f"llvm.fma.v{a.type.count}f{bits}", a.type, [a, b, c])
    return call_llvm(builder, f"llvm.fma.f{32 if isinstance(a.type, ir.FloatType) else 64}", a.type, [a, b, c])


def _define_generic(function, resolve, emit, *kinds):
    """Let compiled code call a function of formulas: typed by `resolve`, emitted in place, with no call left.

    An inlined `overload` would do the same, at a price in compile time that kernels full of formulas feel.
    """

    @infer_global(function)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            result = resolve(*args) if len(args) == len(kinds[0]) and not kws else None
            return None if result is None else signature(result, *args)

    for kind in kinds:
        lower_builtin(function, *kind)(emit)


def _emit_like(context, builder, sig, args):
    value, constant = sig.args
    if not isinstance(value, Vec):
        return context.cast(builder, args[1], constant, value)
    return splat_ir(builder, context.cast(builder, args[1], constant, value.dtype), value.lanes)


_define_generic(
    like,
    lambda value, constant: value if isinstance(value, Vec) or _is_float(value) else None,
    _emit_like,
    (Vec, types.Number),
    (types.Float, types.Number),
)
_define_generic(
    where,
    lambda condition, a, b: a if a == b and (isinstance(a, Vec) or _is_float(a)) else None,
    lambda context, builder, sig, args: builder.select(*args),
    (Mask, Vec, Vec),
    (types.Boolean, types.Float, types.Float),
)
_define_generic(
    fma,
    lambda a, b, c: a if a == b == c and (isinstance(a, Vec) or _is_float(a)) else None,
    lambda context, builder, sig, args: fma_ir(builder, *args),
    (Vec, Vec, Vec),
    (types.Float, types.Float, types.Float),
)
