"""Matrix products of our own: packed right-hand sides, a register-blocked micro-kernel, one order of summation.

The law of order: every element of a product is one chain of fused multiply-adds, ``c = fma(a[k], b[k], c)`` for k in
rising order, whatever the number of rows, threads or blocks.  A chain may rest in memory between two calls.  So results
are bitwise the same for any split of the work, and a row alone gives what it gives in a batch.

A packed right-hand side is a sequence of panels.  A panel holds ``panel_width`` columns (zeros behind the last column
of the matrix), row after row: ``packed[panel, k, column]``, so that the micro-kernel reads it as one stream.
"""

import functools
import itertools
import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbarnn import cuda
from numbarnn.jit import device, get_num_threads, kernel_array, njit, parallel_for
from numbarnn.simd import (
    Vec,
    advance,
    clear,
    copy,
    first_lanes,
    fma_ir,
    lanes,
    load_n,
    masked_load,
    masked_store,
    masks_are_free,
    pointer,
    put,
    register_count,
    splat_ir,
    store,
    transpose,
    vector_address,
    vector_bytes,
)

__all__ = [
    "RightOperand",
    "aligned_empty",
    "four_gates_product",
    "gradient_columns",
    "matmul",
    "pack",
    "pack_cell",
    "pack_cell_transposed",
    "pack_gates",
    "pack_transposed",
    "packed_gates_shape",
    "packed_shape",
    "panel_columns",
    "panel_vectors",
    "panel_width",
    "rows_product",
    "two_gates_product",
]


_I64 = ir.IntType(64)


def panel_vectors():
    """Vector registers across a panel: with tiles of six rows, 24 accumulators of 32 registers or 12 of 16."""
    return 4 if register_count() == 32 else 2


@intrinsic
def panel_columns(typingctx, base):
    """Columns of a panel of what is behind the pointer: a compile-time constant."""
    columns = panel_vectors() * Vec(base.dtype).lanes

    def codegen(context, builder, sig, args):
        return context.get_constant(types.intp, columns)

    return types.intp(base), codegen


@functools.cache
def panel_width(dtype):
    """Columns of a panel for `dtype` (float32 or float64)."""
    return panel_vectors() * vector_bytes() // np.dtype(dtype).itemsize


_TILE_ROWS = (6, 4, 2, 1)
_GATED_ROWS = (4, 1)


class _Tile:
    """Emits the micro-kernel for `rows` rows and the first `vectors` vectors of a panel into the current block.

    With several `gates`, vector v takes its left factors from ``a + v % gates``: every gate has its own copy of the
    row, interleaved.
    """

    def __init__(self, builder, dtype, rows, vectors, gates):
        self.builder, self.dtype, self.rows, self.vectors, self.gates = builder, dtype, rows, vectors, gates
        self.width = Vec(dtype).lanes
        self.align = dtype.bitwidth // 8

    def _addresses(self, base, row, masks):
        for m in range(self.rows):
            here = self.builder.gep(base, [self.builder.mul(row, _I64(m))])
            for v in range(self.vectors):
                yield vector_address(self.builder, here, _I64(v * self.width), self.dtype), masks[v]

    def _load(self, address):
        value = self.builder.load(address)
        value.align = self.align
        return value

    def _merge(self, one, one_block, other, other_block):
        phis = []
        for x, y in zip(one, other, strict=True):
            phi = self.builder.phi(x.type)
            phi.add_incoming(x, one_block)
            phi.add_incoming(y, other_block)
            phis.append(phi)
        return phis

    def _read(self, base, row, masks, full):
        # Where masks are free they serve all panels; elsewhere whole panels, nearly all of them, go without.
        builder = self.builder
        if masks_are_free():
            return [masked_load(builder, *place, self.dtype) for place in self._addresses(base, row, masks)]
        with builder.if_else(full) as (whole, partial):
            with whole:
                one = [self._load(address) for address, _ in self._addresses(base, row, masks)]
                one_block = builder.block
            with partial:
                other = [masked_load(builder, *place, self.dtype) for place in self._addresses(base, row, masks)]
                other_block = builder.block
        return self._merge(one, one_block, other, other_block)

    def _write(self, values, base, row, masks, full):
        def write_valid():
            for value, (address, mask) in zip(values, self._addresses(base, row, masks), strict=True):
                masked_store(self.builder, value, address, mask, self.dtype)

        if masks_are_free():
            write_valid()
            return
        with self.builder.if_else(full) as (whole, partial):
            with whole:
                for value, (address, _) in zip(values, self._addresses(base, row, masks), strict=True):
                    self.builder.store(value, address).align = self.align
            with partial:
                write_valid()

    def emit(self, a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
        """Emit ``c = c_in + a @ b``; the arguments are `rows_product`'s, as IR values."""
        builder, width, vectors = self.builder, self.width, self.vectors
        masks = [first_lanes(builder, builder.sub(columns, _I64(v * width)), self.dtype) for v in range(vectors)]
        full = builder.icmp_signed(">=", columns, _I64(vectors * width))
        start = self._read(c_in, c_in_row, masks, full)
        left_rows = [builder.gep(a, [builder.mul(a_row, _I64(m))]) for m in range(self.rows)]
        entry = builder.block
        loop, end = builder.append_basic_block("k_loop"), builder.append_basic_block("k_end")
        builder.cbranch(builder.icmp_signed(">", depth, _I64(0)), loop, end)

        builder.position_at_end(loop)
        k, a_offset, b_offset = (builder.phi(_I64) for _ in range(3))
        for phi in (k, a_offset, b_offset):
            phi.add_incoming(_I64(0), entry)
        chains = [builder.phi(value.type) for value in start]
        for phi, value in zip(chains, start, strict=True):
            phi.add_incoming(value, entry)
        right_here = builder.gep(b, [b_offset])
        right = [self._load(vector_address(builder, right_here, _I64(v * width), self.dtype)) for v in range(vectors)]
        links = []
        for m in range(self.rows):
            left_here = builder.gep(left_rows[m], [a_offset])
            lefts = [builder.load(builder.gep(left_here, [_I64(g)])) for g in range(min(self.gates, vectors))]
            lefts = [splat_ir(builder, left, width) for left in lefts]
            for v in range(vectors):
                links.append(fma_ir(builder, lefts[v % self.gates], right[v], chains[m * vectors + v]))
        k_next = builder.add(k, _I64(1))
        k.add_incoming(k_next, loop)
        a_offset.add_incoming(builder.add(a_offset, a_step), loop)
        b_offset.add_incoming(builder.add(b_offset, b_step), loop)
        for phi, link in zip(chains, links, strict=True):
            phi.add_incoming(link, loop)
        builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, end)

        builder.position_at_end(end)
        self._write(self._merge(start, entry, links, loop), c, c_row, masks, full)


def _emit_walk(builder, dtype, vectors, gates, args):
    """Emit tiles of `vectors` vectors over all rows: tall ones first, then lower ones for what is left."""
    a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns = args
    for tall in _TILE_ROWS if gates == 1 else _GATED_ROWS:
        before = builder.block
        test, body, done = (builder.append_basic_block(name) for name in ("test", "tile", "done"))
        builder.branch(test)
        builder.position_at_end(test)
        state = [builder.phi(value.type) for value in (rows, a, c_in, c)]
        for phi, value in zip(state, (rows, a, c_in, c), strict=True):
            phi.add_incoming(value, before)
        rows, a, c_in, c = state
        builder.cbranch(builder.icmp_signed(">=", rows, _I64(tall)), body, done)
        builder.position_at_end(body)
        _Tile(builder, dtype, tall, vectors, gates).emit(
            a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns
        )
        following = [builder.sub(rows, _I64(tall))]
        for pointer_, row in ((a, a_row), (c_in, c_in_row), (c, c_row)):
            following.append(builder.gep(pointer_, [builder.mul(row, _I64(tall))]))
        for phi, value in zip(state, following, strict=True):
            phi.add_incoming(value, builder.block)
        builder.branch(test)
        builder.position_at_end(done)
    builder.ret_void()


def _rows_product_function(module, dtype, types_, gates):
    """Find or define the compiled function behind `rows_product` in an LLVM module.

    It is a function of its own, never inlined, and not a Numba function: each kernel then compiles its tiles once.
    """
    name = f"numbarnn_rows_product_{gates}_{dtype}"
    function = module.globals.get(name)
    if function is not None:
        return function
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types_), name)
    function.linkage = "linkonce_odr"  # one copy for all functions that a kernel is linked from
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    columns = function.args[-1]
    width = Vec(dtype).lanes
    if gates == 1:
        for vectors in (1, 2):
            if vectors < panel_vectors():
                few = builder.icmp_signed("<=", columns, _I64(vectors * width))
                with builder.if_then(few):
                    _emit_walk(builder, dtype, vectors, gates, function.args)
                    # The walk returns; if_then needs an open block to close.
                    builder.position_at_end(builder.append_basic_block("unreachable"))
    _emit_walk(builder, dtype, panel_vectors(), gates, function.args)
    return function


def _define_rows_product(gates, doc):
    @intrinsic
    def product(typingctx, a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
        if not (isinstance(a, types.CPointer) and a == b == c_in == c):
            return None

        def codegen(context, builder, sig, args):
            function = _rows_product_function(builder.module, b.dtype, [arg.type for arg in args], gates)
            builder.call(function, args)
            return context.get_dummy_value()

        i = types.intp
        return types.void(a, i, i, i, b, i, i, c_in, i, c, i, i), codegen

    product.__doc__ = doc
    return product


rows_product = _define_rows_product(
    1,
    """``c[r] = c_in[r] + sum over k of a[r, k] * b[k]`` for the rows of one panel, each element one FMA chain.

    Parameters
    ----------
    a, b, c_in, c : pointer
        To ``a[0, 0]``, the panel, and the first rows of the chains' starts and ends (`c_in` and `c` may be the same).
    a_row, a_step : int
        Elements from one row of `a` to the next and from one k to the next.
    rows : int
        Rows of `a`, `c_in` and `c`.
    b_step : int
        Elements from one k of the panel to the next.
    depth : int
        Length of the chains; 0 copies `c_in` to `c`.
    c_in_row, c_row : int
        Elements from one row to the next; ``c_in_row=0`` starts every row from the same values.
    columns : int
        Valid columns from the panel's first on (more than the panel has means all); others are not read or written in
        `c_in` and `c`.
    """,
)

two_gates_product = _define_rows_product(
    2,
    """`rows_product` of a whole panel whose vector v takes ``a[r, k, v % 2]``: each of two gates has its own row.""",
)

four_gates_product = _define_rows_product(
    4,
    """`rows_product` of a whole panel whose vector v takes ``a[r, k, v % 4]``: each of four gates has its own row.""",
)


def gradient_columns(dtype):
    """Columns of the blocks in which weight gradients are computed: four vectors."""
    return 4 * vector_bytes() // np.dtype(dtype).itemsize


def aligned_empty(shape, dtype):
    """Allocate an array that begins on a cache line, so that no vector in it lies across two (a small one may not).

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype

    Returns
    -------
    ndarray
        Uninitialised, C-contiguous.
    """
    (array,) = _aligned_together([shape], np.dtype(dtype))
    return array


def _aligned_together(shapes, dtype):
    """Allocate several arrays as `aligned_empty` does, in one piece of memory: much of its time is one address."""
    sizes = [-(-math.prod(shape) * dtype.itemsize // 64) * 64 for shape in shapes]
    size = sum(sizes)
    if size < 1 << 10:  # alignment costs more than it saves
        return [np.empty(shape, dtype) for shape in shapes]
    memory = np.empty(size + 63, np.uint8)
    places = itertools.accumulate(sizes, initial=-memory.__array_interface__["data"][0] % 64)
    return [np.ndarray(shape, dtype, memory, place) for shape, place in zip(shapes, places, strict=False)]


@functools.cache
def packed_shape(depth, columns, dtype):
    """Shape (panels, depth, panel width) of a packed right-hand side of `depth` rows and `columns` columns."""
    width = panel_width(dtype)
    return -(-columns // width), depth, width


@functools.cache
def packed_gates_shape(depth, units, gates, shared, dtype):
    """Shape of what :func:`pack_gates` fills: (panels, depth, panel width)."""
    width = vector_bytes() // np.dtype(dtype).itemsize
    blocks = -(-units // width)
    panels = -(-blocks * shared // panel_vectors()) + (gates - shared) * -(-blocks // panel_vectors())
    return panels, depth, panel_width(dtype)


@device
def _pack_panels(start, stop, matrix, gates, shared, packed):
    """Fill panels start..stop; see `pack_gates`."""
    depth, columns = matrix.shape
    source, target = pointer(matrix), pointer(packed)
    width = lanes(source)
    units = columns // gates
    per_panel = packed.shape[2] // width
    blocks = (units + width - 1) // width
    shared_panels = (blocks * shared + per_panel - 1) // per_panel
    gate_panels = (blocks + per_panel - 1) // per_panel
    for panel in range(start, stop):
        first_gate, mixed, place = 0, shared, panel
        if panel >= shared_panels:
            first_gate = shared + (panel - shared_panels) // gate_panels
            mixed, place = 1, (panel - shared_panels) % gate_panels
        for v in range(per_panel):
            q = place * per_panel + v
            unit = q // mixed * width
            n = max(0, min(width, units - unit))
            column = min((first_gate + q % mixed) * units + unit, columns - 1)
            for k in range(depth):
                value = load_n(source, k * columns + column, n)
                store(target, (panel * depth + k) * packed.shape[2] + v * width, value)


@device
def _pack_panels_transposed(start, stop, matrix, packed):
    """Fill panels start..stop with the columns of ``matrix.T``."""
    columns, depth = matrix.shape
    width, side = packed.shape[2], lanes(packed)
    for panel in range(start, stop):
        n = min(width, columns - panel * width)
        source = advance(pointer(matrix), panel * width * depth)
        target = advance(pointer(packed), panel * depth * width)
        for first in range(0, depth, side):
            last = min(first + side, depth)
            in_squares = n // side * side if last - first == side else 0
            for j in range(0, in_squares, side):
                transpose(source, j * depth + first, depth, target, first * width + j, width)
            for j in range(in_squares, n):
                for k in range(first, last):
                    put(target, k * width + j, source[j * depth + k])
            if n < width:
                for k in range(first, last):
                    clear(target, k * width + n, width - n)


@njit
def _pack(start, stop, matrix, gates, shared, packed):
    _pack_panels(start, stop, matrix, gates, shared, packed)


@njit
def _pack_transposed(start, stop, matrix, packed):
    _pack_panels_transposed(start, stop, matrix, packed)


@njit
def _pack_cell(start, stop, kernel, recurrent, bias, gates, bias_gates, shared, to_kernel, to_recurrent, to_bias):
    for which in range(3):  # a loop, for one copy of the code
        first, last, count, matrix, packed = start, stop, gates, kernel, to_kernel
        if which == 1:
            matrix, packed = recurrent, to_recurrent
        elif which == 2:
            matrix, packed, count = bias, to_bias, bias_gates
            if stop == to_kernel.shape[0]:  # a bias may have more panels
                last = to_bias.shape[0]
        _pack_panels(first, last, matrix, count, shared, packed)


@njit
def _pack_cell_transposed(start, stop, kernel, recurrent, to_kernel, to_recurrent):
    panels = to_kernel.shape[0]
    first, last, matrix, packed = min(start, panels), min(stop, panels), kernel, to_kernel
    for _ in range(2):
        _pack_panels_transposed(first, last, matrix, packed)
        first, last, matrix, packed = max(start, panels) - panels, max(stop, panels) - panels, recurrent, to_recurrent


_PACK_GRAIN = 1 << 17  # elements: below this a hand-off to another thread costs more than it saves


def _panel_grain(*packed):
    return max(1, _PACK_GRAIN // max(1, sum(array.shape[1] * array.shape[2] for array in packed)))


def pack(matrix):
    """Pack a (depth, columns) matrix as the right-hand side of products.

    Returns
    -------
    ndarray of shape ``packed_shape(depth, columns, dtype)``
    """
    packed = aligned_empty(packed_shape(*matrix.shape, matrix.dtype), matrix.dtype)
    parallel_for(_pack, packed.shape[0], _panel_grain(packed), kernel_array(matrix), 1, 1, packed)
    return packed


def pack_transposed(matrix):
    """Pack the transpose of a (columns, depth) matrix: what ``pack(matrix.T)`` would give."""
    packed = aligned_empty(packed_shape(matrix.shape[1], matrix.shape[0], matrix.dtype), matrix.dtype)
    parallel_for(_pack_transposed, packed.shape[0], _panel_grain(packed), kernel_array(matrix), packed)
    return packed


def pack_gates(matrix, gates, shared=None):
    """Pack a (depth, gates * units) matrix so that one panel holds the same units of neighbouring gates.

    The product's panels then come out as the operands of a cell's step: vector q of the first panels holds one vector
    of units of gate ``q % shared``, block ``q // shared``.  Gates from `shared` on follow, each in panels of its own.

    Returns
    -------
    ndarray of shape ``packed_gates_shape(depth, units, gates, shared, dtype)``

    Raises
    ------
    ValueError
        If the matrix does not have two axes, the second a multiple of gates, or `shared` is not in 1 .. gates.
    TypeError
        If it is not a NumPy array of float32 or float64.
    """
    shared = gates if shared is None else shared
    if not isinstance(matrix, np.ndarray) or matrix.dtype not in (np.float32, np.float64):
        came = f"dtype {matrix.dtype}" if isinstance(matrix, np.ndarray) else f"a {type(matrix).__name__}"
        raise TypeError(f"pack_gates: matrix must be an array of float32 or float64, got {came}")
    if matrix.ndim != 2 or gates < 1 or matrix.shape[1] % gates:
        raise ValueError(f"pack_gates: matrix must be (depth, gates * units), got {matrix.shape}, gates={gates}")
    if not 1 <= shared <= gates:
        raise ValueError(f"pack_gates: shared must be in 1 .. {gates}, got {shared}")
    packed = aligned_empty(_gates_shape(matrix, gates, shared), matrix.dtype)
    parallel_for(_pack, packed.shape[0], _panel_grain(packed), kernel_array(matrix), gates, shared, packed)
    return packed


def _gates_shape(matrix, gates, shared):
    return packed_gates_shape(matrix.shape[0], matrix.shape[1] // gates, gates, shared, matrix.dtype)


def pack_cell(kernel, recurrent_kernel, bias, gates, shared):
    """Pack the weights of a cell for its forward pass: `pack_gates` of each, the bias as a matrix of one row.

    Parameters
    ----------
    kernel, recurrent_kernel : ndarray of shape (I, gates * H), (H, gates * H)
    bias : ndarray of shape (n * H,)
        The starts of the chains: n = gates, or more where a gate has several.
    gates, shared : int
        See `pack_gates`.

    Returns
    -------
    tuple of three ndarrays
    """
    matrices = [kernel_array(matrix) for matrix in (kernel, recurrent_kernel, bias.reshape(1, -1))]
    bias_gates = bias.size * gates // max(1, kernel.shape[1])
    shapes = [_gates_shape(m, n, shared) for m, n in zip(matrices, (gates, gates, bias_gates), strict=True)]
    packed = _aligned_together(shapes, kernel.dtype)
    grain = _panel_grain(*packed[:2])
    parallel_for(_pack_cell, packed[0].shape[0], grain, *matrices, gates, bias_gates, shared, *packed)
    return tuple(packed)


def pack_cell_transposed(kernel, recurrent_kernel):
    """Pack the weights of a cell for its backward pass: `pack_transposed` of each.

    Returns
    -------
    tuple of two ndarrays
    """
    matrices = [kernel_array(kernel), kernel_array(recurrent_kernel)]
    packed = _aligned_together([packed_shape(m.shape[1], m.shape[0], m.dtype) for m in matrices], kernel.dtype)
    panels = packed[0].shape[0] + packed[1].shape[0]
    parallel_for(_pack_cell_transposed, panels, _panel_grain(packed[0]), *matrices, *packed)
    return tuple(packed)


@njit
def _multiply_small(a, a_row, a_step, b, b_row, b_step, panel, c):
    """Multiply with one panel of `b` packed at a time: one call for what is not worth more."""
    rows, columns = c.shape
    depth, width = panel.shape[1], panel.shape[2]
    source, here = pointer(b), pointer(panel)
    for first in range(0, columns, width):
        n = min(width, columns - first)
        for k in range(depth):
            if b_step == 1:
                copy(source, k * b_row + first, here, k * width, n)
            else:
                for j in range(n):
                    put(here, k * width + j, source[k * b_row + (first + j) * b_step])
            clear(here, k * width + n, width - n)  # what memory happens to hold may be denormal, and slow
        target = advance(pointer(c), first)
        rows_product(pointer(a), a_row, a_step, rows, here, width, depth, target, columns, target, columns, n)


_BLOCK_ROWS = 204  # tiles of six; with _BLOCK_DEPTH steps a block of `a` that the second-level cache holds
_BLOCK_DEPTH = 256


@njit
def _multiply(start, stop, by_rows, a, a_row, a_step, packed, c):
    """Multiply rows start..stop with all panels, or (not `by_rows`) all rows with panels start..stop.

    In blocks: the chains rest in `c` between two blocks of k. From a transposed `a`, blocks are copied, because each
    step of a tile would read from another page.
    """
    rows, columns = c.shape
    panels, depth, width = packed.shape
    first_row, last_row, first_panel, last_panel = start, stop, 0, panels
    if not by_rows:
        first_row, last_row, first_panel, last_panel = 0, rows, start, stop
    line = _BLOCK_ROWS + 4  # whole vectors, and no power of two, whose columns would share a few sets of the cache
    block = np.empty((_BLOCK_DEPTH if a_row == 1 and a_step != 1 else 0, line), a.dtype)
    for row in range(first_row, last_row, _BLOCK_ROWS):
        height = min(_BLOCK_ROWS, last_row - row)
        for k in range(0, depth, _BLOCK_DEPTH):
            links = min(_BLOCK_DEPTH, depth - k)
            left, left_step = advance(pointer(a), row * a_row + k * a_step), a_step
            if block.shape[0]:
                for i in range(links):
                    copy(left, i * a_step, pointer(block), i * line, height)
                left, left_step = pointer(block), line
            for panel in range(first_panel, last_panel):
                target = advance(pointer(c), row * columns + panel * width)
                right = advance(pointer(packed), (panel * depth + k) * width)
                rows_product(
                    left, a_row, left_step, height, right, width, links,
                    target, columns, target, columns, columns - panel * width,
                )  # fmt: skip


_SMALL = 1 << 20  # multiply-adds and packing of what takes less than the calls of two kernels, some ten microseconds
_GRAIN = 1 << 22  # multiply-adds: some 75 microseconds of one core, what a hand-off may cost


def matmul(a, b, *, transpose_a=False, transpose_b=False):
    """Product of two matrices, bitwise the same for any number of threads and for a row alone.

    Parameters
    ----------
    a, b : ndarray, 2-D, float32 or float64 (the same)
        Operands; copied first when they are not C-contiguous.
    transpose_a, transpose_b : bool
        Multiply by the transpose of `a` or of `b` instead.

    Returns
    -------
    ndarray of shape (rows, columns)
        Element (m, n) is the chain ``fma(a[m, k], b[k, n], ...)`` from 0 for k = 0, 1, ...

    Raises
    ------
    ValueError
        When an operand is not 2-D or the inner sizes differ.
    TypeError
        When the operands are not both float32 or both float64.
    """
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(f"matmul needs two matrices; got a of shape {a.shape} and b of shape {b.shape}")
    if a.dtype != b.dtype or a.dtype not in (np.float32, np.float64):
        raise TypeError(f"matmul needs a and b both float32 or both float64; got {a.dtype} and {b.dtype}")
    rows, depth = a.shape[::-1] if transpose_a else a.shape
    b_depth, columns = b.shape[::-1] if transpose_b else b.shape
    if depth != b_depth:
        raise ValueError(
            f"matmul: a has {depth} columns but b has {b_depth} rows (shapes {a.shape}, {b.shape}, "
            f"transpose_a={transpose_a}, transpose_b={transpose_b})"
        )
    c = np.zeros((rows, columns), a.dtype)
    if not (rows and columns and depth):
        return c
    a = kernel_array(a)
    a_row, a_step = (1, a.shape[1]) if transpose_a else (a.shape[1], 1)
    if depth * columns * (rows + 8) <= _SMALL:
        panel = aligned_empty((1, depth, panel_width(a.dtype)), a.dtype)
        b_row, b_step = (1, b.shape[1]) if transpose_b else (b.shape[1], 1)
        _multiply_small(a, a_row, a_step, kernel_array(b), b_row, b_step, panel, c)
        return c
    packed = pack_transposed(b) if transpose_b else pack(b)
    if get_num_threads() > packed.shape[0] or rows >= columns:
        grain = max(6, _GRAIN // (depth * columns))
        parallel_for(_multiply, rows, grain, True, a, a_row, a_step, packed, c)
    else:
        grain = max(1, _GRAIN // (depth * rows * packed.shape[2]))
        parallel_for(_multiply, packed.shape[0], grain, False, a, a_row, a_step, packed, c)
    return c


class RightOperand:
    """A matrix that many others are multiplied by: packed once, at its first product, instead of at each.

    Parameters
    ----------
    array : ndarray or array on the GPU, 2-D, float32 or float64
        Not to be changed as long as this is in use.
    """

    __slots__ = ("_prepared", "array", "dtype", "shape")

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self._prepared = {}

    def times(self, a, *, transpose=False, start=None):
        """Return ``matmul(a, array)``, with the same bits, or with `transpose` ``matmul(a, array.T)``.

        Parameters
        ----------
        a : ndarray, 2-D, of the same dtype
        transpose : bool
        start : ndarray, optional
            Like the result: what its chains of additions start from, instead of zeros.
        """
        if not isinstance(a, np.ndarray):  # on the GPU
            out = None if start is None else start.copy(order="C")
            operands = kernel_array(a), kernel_array(self.array)
            return cuda.gemm(*operands, transpose_b=transpose, out=out, accumulate=out is not None)
        packed, columns, alone = self._prepared.get(transpose) or self._prepare(transpose)
        rows = len(a)
        c = np.zeros((rows, columns), self.dtype) if start is None else np.array(start, order="C")
        if packed is not None and rows < alone:
            _multiply(0, rows, True, kernel_array(a), packed.shape[1], 1, packed, c)
        elif packed is not None:
            parallel_for(_multiply, rows, alone // 2, True, kernel_array(a), packed.shape[1], 1, packed, c)
        return c

    def _prepare(self, transpose):
        """Return the packed matrix (None if it is empty), its columns, and with how many rows threads share."""
        columns, depth = self.shape if transpose else self.shape[::-1]
        packed = None
        if columns and depth:
            packed = pack_transposed(self.array) if transpose else pack(self.array)
        grain = max(6, _GRAIN // max(1, depth * columns))
        self._prepared[transpose] = packed, columns, 2 * grain
        return self._prepared[transpose]
