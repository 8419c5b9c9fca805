"""What fast GPU kernels say to the hardware that Numba has no words for: weights in registers, clusters of blocks.

Beside `numbarnn.cuda` the only file that knows the GPU's instructions.  Its names are used in kernels and device
functions, imported by name; nothing of CUDA is imported before a kernel that uses one of them is compiled.  In an
emulator's plain Python each of them stands for the method of the same name of the emulator (`Kernel.python`).

Products with weights that stay in registers
    `hold` loads a thread's weights once, as a tuple; `multiply` is one step's share of a product with them; `total`
    adds up what the threads that share a column have found.
Blocks of a grid that wait for one another
    `post` writes what other blocks read, `arrive` tells them, `await_arrivals` waits for them, `fetch` reads.
Clusters (compute capability 9.0 and higher)
    `cluster_rank`, `cluster_barrier`; `send` writes a number into the shared memory of another block of the cluster
    and counts its bytes at a *message barrier* there (``mbarrier``), so that the receiver waits for the data themselves
    and the sender for nobody: `barrier_init`, `barrier_expect`, `barrier_wait`.

Shared memory is addressed by the shared array and an index in elements.  Message barriers lie in it as well, each in
the place of two float32 numbers, at an even index.

Source of the instructions' meaning: NVIDIA, "Parallel Thread Execution ISA", chapters ``mbarrier``, ``st.async``,
``mapa``, ``barrier.cluster`` and "Memory Consistency Model".
"""

import itertools

from numbarnn.cuda import DeviceFunction

__all__ = [
    "arrive",
    "await_arrivals",
    "barrier_expect",
    "barrier_init",
    "barrier_wait",
    "cluster_barrier",
    "cluster_rank",
    "divide",
    "fetch",
    "get",
    "hold",
    "multiply",
    "post",
    "put",
    "put_four",
    "send",
    "total",
]

_QUAD = 4  # numbers of one 16-byte load


class Intrinsic(DeviceFunction):
    """A function of kernels whose code is emitted here; in an emulator, the emulator's method of the same name.

    Made of a function as `numba.extending.intrinsic` takes it: from the typing context and the types of a call to
    Numba's signature and the function that emits the code.
    """

    def compiled(self):
        """Return it as Numba's kernels call it."""
        if self._made is None:
            from numba.cuda.extending import intrinsic

            self._made = intrinsic(self.function)
        return self._made

    def python(self, cuda):
        """Return the emulator's stand-in."""
        return getattr(cuda, self.__name__)


# -------------------------------------------------------------------------------------------- products out of registers


@Intrinsic
def hold(
    typingctx, matrix, start, depth, depth_end, depth_stride, unit, unit_end, unit_step, unit_stride, gate_stride,
    quads, gates, units, pieces,
):  # fmt: skip
    """Return a thread's weights, out of a float32 matrix: the tuple that `multiply` takes.

    The thread has ``gates * units`` columns, and of their depth every `pieces`-th group of four, from `depth` on.

    Parameters
    ----------
    matrix : array
    start : int
        Index of the first element among all of the matrix: depth 0 of column 0 of the thread.
    depth, depth_end, depth_stride : int
        First depth of the thread, how many there are (behind the last one weights are zero), elements from one to the
        next.
    unit, unit_end, unit_step : int
        The thread's first unit and the number of steps to its next; weights of units from `unit_end` on are zero.
    unit_stride, gate_stride : int
        Elements from one of the thread's units to the next, and from one gate to the next.
    quads, gates, units, pieces : int
        Constants: groups of four of the thread, gates and units that make its columns, threads that share a column.
    """
    from llvmlite import ir
    from numba.cuda import cgutils, types

    constants = quads, gates, units, pieces
    if not _literal(*constants):
        return None
    quads, gates, units, pieces = (constant.literal_value for constant in constants)
    count = quads * gates * units * _QUAD
    sig = types.UniTuple(types.float32, count)(matrix, *[types.int32] * 9, *constants)

    def codegen(context, builder, sig, args):
        base = _data(context, builder, sig.args[0], args[0])
        start, depth, depth_end, depth_stride, unit, unit_end, unit_step, unit_stride, gate_stride = args[1:10]
        # Loads that need not be made, instead of choices between two values: for want of registers at the start.
        i32, i64 = ir.IntType(32), ir.IntType(64)
        text = "{ .reg .pred there; setp.ne.u32 there, $2, 0; mov.f32 $0, 0f00000000; @there ld.global.f32 $0, [$1]; }"
        load = ir.InlineAsm(ir.FunctionType(ir.FloatType(), [i64, i32]), text, "=&f,l,r", True)

        def plus(value, step, count):
            return builder.add(value, builder.mul(step, step.type(count)))

        start = builder.add(start, builder.mul(depth, depth_stride))
        weights = []
        for q, g, u in itertools.product(range(quads), range(gates), range(units)):
            inside = builder.icmp_signed("<", plus(unit, unit_step, u), unit_end)
            column = plus(plus(start, gate_stride, g), unit_stride, u)
            for e in range(_QUAD):
                d = q * pieces * _QUAD + e
                there = builder.and_(inside, builder.icmp_signed("<", builder.add(depth, depth.type(d)), depth_end))
                address = builder.ptrtoint(builder.gep(base, [plus(column, depth_stride, d)]), i64)
                weights.append(builder.call(load, [address, builder.zext(there, i32)]))
        return cgutils.pack_array(builder, weights)

    return sig, codegen


@Intrinsic
def multiply(
    typingctx, weights, memory, source, source_row, source_gate, sums, target, target_row, target_column,
    rows, quads, gates, units, pieces,
):  # fmt: skip
    """Multiply rows of shared memory by a thread's weights (see `hold`), and write down its part of each sum.

    Parameters
    ----------
    weights : tuple
        Of `hold`, with the same `quads`, `gates`, `units` and `pieces`; or with one gate and `quads` times `gates`
        groups of four.
    memory : shared array
        float32, aligned to 16 bytes.
    source : int
        Index of the thread's first factor, a multiple of 4.
    source_row, source_gate : int
        Constants, multiples of 4: elements from one row of factors to the next, and from those of one gate to those of
        the next; 0: all gates have the same.
    sums : array
        float32: where the sums go, shared memory or the thread's own.
    target : int
        Index of the thread's first sum.
    target_row, target_column : int
        Constants: elements from one row of sums to the next, and from one of the thread's columns to the next.
    rows, quads, gates, units, pieces : int
        Constants.
    """
    from llvmlite import ir
    from numba.cuda import types

    constants = source_row, source_gate, target_row, target_column, rows, quads, gates, units, pieces
    if not _literal(*constants):
        return None
    sig = types.void(weights, memory, types.int64, *constants[:2], sums, types.int64, *constants[2:])
    source_row, source_gate, target_row, target_column, rows, quads, gates, units, pieces = (
        constant.literal_value for constant in constants
    )
    columns = gates * units
    if quads * columns * _QUAD != len(weights):
        return None

    def codegen(context, builder, sig, args):
        base, target = (_data(context, builder, sig.args[i], args[i]) for i in (1, 5))
        quad = ir.VectorType(ir.FloatType(), _QUAD)
        numbers = [builder.extract_value(args[0], i) for i in range(len(weights))]

        def load(offset):
            address = builder.gep(base, [builder.add(args[2], args[2].type(offset))])
            vector = builder.load(builder.bitcast(address, quad.as_pointer()), align=16)
            return [builder.extract_element(vector, ir.IntType(32)(e)) for e in range(_QUAD)]

        for r in range(rows):
            sums = [ir.Constant(ir.FloatType(), 0.0)] * columns
            for q in range(quads):
                for g in range(gates):
                    if g == 0 or source_gate:
                        factors = load(r * source_row + q * pieces * _QUAD + g * source_gate)
                    for c in range(g * units, (g + 1) * units):
                        for e in range(_QUAD):
                            sums[c] = builder.fma(factors[e], numbers[(q * columns + c) * _QUAD + e], sums[c])
            for c in range(columns):
                offset = r * target_row + c * target_column
                builder.store(sums[c], builder.gep(target, [builder.add(args[6], args[6].type(offset))]))
        return context.get_dummy_value()

    return sig, codegen


@Intrinsic
def total(typingctx, memory, start, stride, count):
    """Return the sum of `count` numbers of an array, `stride` elements apart (constants), as a tree."""
    from numba.cuda import types

    if not _literal(stride, count):
        return None
    sig = memory.dtype(memory, types.int64, stride, count)

    def codegen(context, builder, sig, args):
        base = _data(context, builder, sig.args[0], args[0])
        numbers = [
            builder.load(builder.gep(base, [builder.add(args[1], args[1].type(i * stride.literal_value))]))
            for i in range(count.literal_value)
        ]
        while len(numbers) > 1:
            pairs = [builder.fadd(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=False)]
            numbers = pairs + numbers[2 * len(pairs) :]
        return numbers[0]

    return sig, codegen


# --------------------------------------------------------------------------------------------------------------- memory


@Intrinsic
def get(typingctx, array, index):
    """Return an element by its index among all of a C-contiguous array's: no instruction for negative ones."""
    from numba.cuda import types

    def codegen(context, builder, sig, args):
        return builder.load(builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]]))

    return array.dtype(array, types.int64), codegen


@Intrinsic
def put(typingctx, array, index, value):
    """Write an element by its index among all of a C-contiguous array's."""
    from numba.cuda import types

    def codegen(context, builder, sig, args):
        builder.store(args[2], builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64, array.dtype), codegen


@Intrinsic
def divide(typingctx, number, divisor):
    """Return quotient and remainder of a number that is not negative, as int32; `divisor` is a constant.

    Numba's own are int64 and look at signs: twice the registers, in a kernel that has none to spare.
    """
    from llvmlite import ir
    from numba.cuda import cgutils, types

    if not _literal(divisor):
        return None

    def codegen(context, builder, sig, args):
        by = ir.IntType(32)(divisor.literal_value)
        return cgutils.pack_array(builder, [builder.udiv(args[0], by), builder.urem(args[0], by)])

    return types.UniTuple(types.int32, 2)(types.int32, divisor), codegen


@Intrinsic
def put_four(typingctx, array, index, a, b, c, d):
    """Write four neighbours at once, aligned to 16 bytes: `index` is a multiple of 4."""
    from llvmlite import ir
    from numba.cuda import types

    def codegen(context, builder, sig, args):
        quad = ir.VectorType(ir.FloatType(), _QUAD)
        vector = ir.Constant(quad, ir.Undefined)
        for e in range(_QUAD):
            vector = builder.insert_element(vector, args[2 + e], ir.IntType(32)(e))
        address = builder.gep(_data(context, builder, sig.args[0], args[0]), [args[1]])
        builder.store(vector, builder.bitcast(address, quad.as_pointer()), align=16)
        return context.get_dummy_value()

    return types.void(array, types.int64, *[types.float32] * _QUAD), codegen


# ---------------------------------------------------------------------------------------------- the blocks of one grid


@Intrinsic
def post(typingctx, array, index, value):
    """Write an element that another block will `fetch`, after an `arrive` of this one."""
    return put.function(typingctx, array, index, value)


@Intrinsic
def fetch(typingctx, array, index):
    """Return four neighbours out of a float32 array, as other blocks left them: past the cache that others don't see.

    `index` is a multiple of 4, the array is aligned to 16 bytes.
    """
    from llvmlite import ir
    from numba.cuda import cgutils, types

    def codegen(context, builder, sig, args):
        address = _global_address(0, 1)(context, builder, sig, args)
        quad = ir.LiteralStructType([ir.FloatType()] * _QUAD)
        kind = ir.FunctionType(quad, [address.type])
        text = "ld.global.cg.v4.f32 {$0, $1, $2, $3}, [$4];"
        four = builder.call(ir.InlineAsm(kind, text, "=f,=f,=f,=f,l", side_effect=True), [address])
        return cgutils.pack_array(builder, [builder.extract_value(four, e) for e in range(_QUAD)])

    return types.UniTuple(types.float32, _QUAD)(array, types.int64), codegen


@Intrinsic
def arrive(typingctx, counters, place):
    """Count one more arrival; who awaits it sees all that this thread wrote, and its block before a ``syncthreads``.

    Parameters
    ----------
    counters : array
        int32, in the GPU's own memory.
    place : int
        Index of the counter.
    """
    from numba.cuda import types

    text = "red.release.gpu.global.add.u32 [$0], 1;"
    return types.void(counters, types.int64), _assembly(text, "l,~{memory}", None, (_global_address(0, 1),))


@Intrinsic
def await_arrivals(typingctx, counters, place, count):
    """Wait until a counter has reached `count`; what was written before those arrivals is seen behind it."""
    from numba.cuda import types

    text = (
        "{ .reg .pred early; .reg .u32 seen; AGAIN_${:uid}: ld.acquire.gpu.global.u32 seen, [$0]; "
        "setp.lt.u32 early, seen, $1; @early bra AGAIN_${:uid}; }"
    )
    return (
        types.void(counters, types.int64, types.int32),
        _assembly(text, "l,r,~{memory}", None, (_global_address(0, 1), _plain(2))),
    )


# ------------------------------------------------------------------------------------------------------------- clusters


@Intrinsic
def cluster_rank(typingctx):
    """Return the block's number in its cluster."""
    from numba.cuda import types

    return types.int32(), _assembly("mov.u32 $0, %cluster_ctarank;", "=r", "i32", (), effects=False)


@Intrinsic
def cluster_barrier(typingctx):
    """Wait for all threads of the cluster; what they wrote before is seen behind it.  Costly: not for every step."""
    from numba.cuda import types

    return types.void(), _assembly("barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;", "~{memory}")


@Intrinsic
def barrier_init(typingctx, memory, place):
    """Make a message barrier at index `place` of shared memory, for one `barrier_expect` a round.

    One thread does it; a `cluster_barrier` behind it lets the others of the cluster see it.
    """
    from numba.cuda import types

    text = "mbarrier.init.shared::cta.b64 [$0], 1; fence.mbarrier_init.release.cluster;"
    return types.void(memory, types.int64), _assembly(text, "r,~{memory}", None, (_address(0, 1),))


@Intrinsic
def barrier_expect(typingctx, memory, place, count):
    """Say how many bytes the barrier's present round waits for; some may be there.  One thread, once a round."""
    from numba.cuda import types

    text = "mbarrier.arrive.expect_tx.relaxed.cta.shared::cta.b64 _, [$0], $1;"
    return (
        types.void(memory, types.int64, types.int32),
        _assembly(text, "r,r,~{memory}", None, (_address(0, 1), _plain(2))),
    )


@Intrinsic
def barrier_wait(typingctx, memory, place, parity):
    """Wait until the round of this parity (0 for the first, 1 for the second, 0 for the third, ...) is complete."""
    from numba.cuda import types

    text = (
        "{ .reg .pred done; AGAIN_${:uid}: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [$0], $1; "
        "@!done bra AGAIN_${:uid}; }"
    )
    return (
        types.void(memory, types.int64, types.int32),
        _assembly(text, "r,r,~{memory}", None, (_address(0, 1), _plain(2))),
    )


@Intrinsic
def send(typingctx, rank, memory, place, value, barrier):
    """Write a float32 to index `place` of block `rank`'s shared memory, and 4 bytes to its message barrier's account.

    Returns at once: who reads waits for the barrier.  `place` and `barrier` are indices of the sender's own memory;
    the other block's is laid out in the same way.
    """
    from numba.cuda import types

    text = (
        "{ .reg .b32 there, bar; mapa.shared::cluster.u32 there, $0, $3; mapa.shared::cluster.u32 bar, $2, $3; "
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [there], $1, [bar]; }"
    )
    return (
        types.void(types.int32, memory, types.int64, types.float32, types.int64),
        _assembly(text, "r,f,r,r,~{memory}", None, (_address(1, 2), _plain(3), _address(1, 4), _plain(0))),
    )


# ---------------------------------------------------------------------------------------------------- emitting the code


def _literal(*kinds):
    """Whether all types are those of constants; if not, Numba asks again with the constants."""
    from numba.cuda import types

    return all(isinstance(kind, types.IntegerLiteral) for kind in kinds)


def _data(context, builder, kind, array):
    """IR pointer to an array's first element."""
    return context.make_array(kind)(context, builder, value=array).data


def _plain(i):
    """An operand of `_assembly`: the i-th argument as it is."""
    return lambda context, builder, sig, args: args[i]


def _address(array, index):
    """An operand of `_assembly`: the address of an element of a shared array, in the window of shared memory."""
    from llvmlite import ir

    def operand(context, builder, sig, args):
        pointer = builder.gep(_data(context, builder, sig.args[array], args[array]), [args[index]])
        window = builder.addrspacecast(pointer, pointer.type.pointee.as_pointer(3))
        return builder.ptrtoint(window, ir.IntType(32))

    return operand


def _global_address(array, index):
    """An operand of `_assembly`: the address of an element of an array in the GPU's own memory."""
    from llvmlite import ir

    def operand(context, builder, sig, args):
        pointer = builder.gep(_data(context, builder, sig.args[array], args[array]), [args[index]])
        return builder.ptrtoint(pointer, ir.IntType(64))

    return operand


def _assembly(text, constraints, result=None, operands=(), effects=True):
    """Code generator of one piece of inline PTX."""
    from llvmlite import ir

    def codegen(context, builder, sig, args):
        values = [operand(context, builder, sig, args) for operand in operands]
        returned = ir.VoidType() if result is None else ir.IntType(32)
        kind = ir.FunctionType(returned, [value.type for value in values])
        # "convergent": no copy of it may end up in a branch that only some threads take.
        attributes = ("convergent",) if effects else ()
        value = builder.call(ir.InlineAsm(kind, text, constraints, side_effect=effects), values, attrs=attributes)
        return context.get_dummy_value() if result is None else value

    return codegen
