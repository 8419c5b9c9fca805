"""Matrix products of our own: packed right-hand sides, a register-blocked micro-kernel, one order of summation.

The law of order: every element of a product is one chain of fused multiply-adds, ``c = fma(a[k], b[k], c)`` for k in rising order,
whatever the number of rows, threads or blocks.  A chain may rest in memory between two calls.  So results are bitwise the same for any
split of the work, and a row alone gives what it gives in a batch.

A packed right-hand side is a sequence of panels.  A panel holds ``panel_width`` columns (zeros behind the last column of the matrix),
row after row: ``packed[panel, k, column]``, so that the micro-kernel reads it as one stream.
"""

import functools

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbarnn.jit import get_num_threads, njit, parallel_for
from numbarnn.simd import (
    Vec,
    advance,
    first_lanes,
    fma_ir,
    itemsize,
    lanes,
    load,
    load_n,
    masked_load,
    masked_store,
    masks_are_free,
    pointer,
    register_count,
    splat_ir,
    store,
    vector_address,
    vector_bytes,
)

__all__ = ["matmul", "pack", "pack_gates", "packed_gates_shape", "pack_transposed", "packed_shape", "panel_vectors", "panel_width", "rows_product"]


def panel_vectors():
    """Vector registers across a panel: with tiles of six rows, 24 accumulators of 32 registers or 12 of 16."""
    return 4 if register_count() == 32 else 2


@intrinsic
def panel_is_narrow(typingctx, base):
    """Whether a panel is two vectors wide: a compile-time constant."""

    def codegen(context, builder, sig, args):
        return context.get_constant(types.boolean, panel_vectors() == 2)

    return types.boolean(base), codegen


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


def _define_tile(rows, vectors, gated=False):
    """Micro-kernel for `rows` rows and the first `vectors` vectors of a panel; `rows_product` documents its arguments.

    With `gated`, vector v takes its left factors from ``a + v``: every gate has its own copy of the row, interleaved.
    """

    @intrinsic
    def tile(typingctx, a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
        dtype = b.dtype
        width = Vec(dtype).lanes
        align = dtype.bitwidth // 8

        def codegen(context, builder, sig, args):
            a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns = args
            i64 = ir.IntType(64)
            zero = i64(0)
            masks = [first_lanes(builder, builder.sub(columns, i64(v * width)), dtype) for v in range(vectors)]
            full = builder.icmp_signed(">=", columns, i64(vectors * width))

            def addresses(base, row):
                for m in range(rows):
                    here = builder.gep(base, [builder.mul(row, i64(m))])
                    for v in range(vectors):
                        yield vector_address(builder, here, i64(v * width), dtype), masks[v]

            def read_whole():
                for address, _ in addresses(c_in, c_in_row):
                    value = builder.load(address)
                    value.align = align
                    yield value

            def read_valid():
                for address, mask in addresses(c_in, c_in_row):
                    yield masked_load(builder, address, mask, dtype)

            def merge(one, one_block, other, other_block):
                for x, y in zip(one, other, strict=True):
                    phi = builder.phi(x.type)
                    phi.add_incoming(x, one_block)
                    phi.add_incoming(y, other_block)
                    yield phi

            # Where masks are free they serve all panels; elsewhere whole panels, nearly all of them, go without.
            if masks_are_free():
                start = list(read_valid())
            else:
                with builder.if_else(full) as (whole, partial):
                    with whole:
                        from_whole, whole_block = list(read_whole()), builder.block
                    with partial:
                        from_partial, partial_block = list(read_valid()), builder.block
                start = list(merge(from_whole, whole_block, from_partial, partial_block))

            entry = builder.block
            loop = builder.append_basic_block("k_loop")
            end = builder.append_basic_block("k_end")
            left_rows = [builder.gep(a, [builder.mul(a_row, i64(m))]) for m in range(rows)]
            builder.cbranch(builder.icmp_signed(">", depth, zero), loop, end)

            builder.position_at_end(loop)
            k, a_offset, b_offset = (builder.phi(i64) for _ in range(3))
            for phi in (k, a_offset, b_offset):
                phi.add_incoming(zero, entry)
            chains = [builder.phi(value.type) for value in start]
            for phi, value in zip(chains, start, strict=True):
                phi.add_incoming(value, entry)
            right_here = builder.gep(b, [b_offset])
            right = []
            for v in range(vectors):
                value = builder.load(vector_address(builder, right_here, i64(v * width), dtype))
                value.align = align
                right.append(value)
            links = []
            for m in range(rows):
                left_here = builder.gep(left_rows[m], [a_offset])
                left = splat_ir(builder, builder.load(left_here), width)
                for v in range(vectors):
                    if gated and v:
                        left = splat_ir(builder, builder.load(builder.gep(left_here, [i64(v)])), width)
                    links.append(fma_ir(builder, left, right[v], chains[m * vectors + v]))
            k_next = builder.add(k, i64(1))
            k.add_incoming(k_next, loop)
            a_offset.add_incoming(builder.add(a_offset, a_step), loop)
            b_offset.add_incoming(builder.add(b_offset, b_step), loop)
            for phi, link in zip(chains, links, strict=True):
                phi.add_incoming(link, loop)
            builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, end)

            builder.position_at_end(end)
            result = list(merge(start, entry, links, loop))

            def write_whole():
                for value, (address, _) in zip(result, addresses(c, c_row), strict=True):
                    builder.store(value, address).align = align

            def write_valid():
                for value, (address, mask) in zip(result, addresses(c, c_row), strict=True):
                    masked_store(builder, value, address, mask, dtype)

            if masks_are_free():
                write_valid()
            else:
                with builder.if_else(full) as (whole, partial):
                    with whole:
                        write_whole()
                    with partial:
                        write_valid()
            return context.get_dummy_value()

        i = types.intp
        return types.void(a, i, i, b, i, i, c_in, i, c, i, i), codegen

    return tile


_tile_6x4, _tile_2x4, _tile_1x4 = (_define_tile(rows, 4) for rows in (6, 2, 1))
_tile_6x2, _tile_2x2, _tile_1x2 = (_define_tile(rows, 2) for rows in (6, 2, 1))
_tile_6x1, _tile_2x1, _tile_1x1 = (_define_tile(rows, 1) for rows in (6, 2, 1))
_gated_4x4, _gated_1x4 = (_define_tile(rows, 4, gated=True) for rows in (4, 1))
_gated_4x2, _gated_1x2 = (_define_tile(rows, 2, gated=True) for rows in (4, 1))


@njit
def _rows_4(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
    """`rows_product` for more than two vectors of columns."""
    r = 0
    while rows - r >= 6:
        _tile_6x4(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 6 * a_row), advance(c_in, 6 * c_in_row), advance(c, 6 * c_row)
        r += 6
    while rows - r >= 2:
        _tile_2x4(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 2 * a_row), advance(c_in, 2 * c_in_row), advance(c, 2 * c_row)
        r += 2
    if rows > r:
        _tile_1x4(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)


@njit
def _rows_2(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
    """`rows_product` for two vectors of columns."""
    r = 0
    while rows - r >= 6:
        _tile_6x2(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 6 * a_row), advance(c_in, 6 * c_in_row), advance(c, 6 * c_row)
        r += 6
    while rows - r >= 2:
        _tile_2x2(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 2 * a_row), advance(c_in, 2 * c_in_row), advance(c, 2 * c_row)
        r += 2
    if rows > r:
        _tile_1x2(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)


@njit
def _rows_1(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
    """`rows_product` for one vector of columns."""
    r = 0
    while rows - r >= 6:
        _tile_6x1(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 6 * a_row), advance(c_in, 6 * c_in_row), advance(c, 6 * c_row)
        r += 6
    while rows - r >= 2:
        _tile_2x1(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
        a, c_in, c = advance(a, 2 * a_row), advance(c_in, 2 * c_in_row), advance(c, 2 * c_row)
        r += 2
    if rows > r:
        _tile_1x1(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, columns)


@njit
def rows_product(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns):
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
    """
    width = lanes(b)
    if columns <= width:
        _rows_1(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
    elif columns <= 2 * width or panel_is_narrow(b):
        _rows_2(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns)
    else:
        _rows_4(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row, columns)


@njit
def gated_rows_product(a, a_row, a_step, rows, b, b_step, depth, c_in, c_in_row, c, c_row):
    """`rows_product` of a whole panel whose vector v takes row elements ``a[r, k, v]``: one copy of the row for each gate."""
    r = 0
    if panel_is_narrow(b):
        while rows - r >= 4:
            _gated_4x2(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, 2 * lanes(b))
            a, c_in, c = advance(a, 4 * a_row), advance(c_in, 4 * c_in_row), advance(c, 4 * c_row)
            r += 4
        while rows > r:
            _gated_1x2(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, 2 * lanes(b))
            a, c_in, c = advance(a, a_row), advance(c_in, c_in_row), advance(c, c_row)
            r += 1
    else:
        while rows - r >= 4:
            _gated_4x4(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, 4 * lanes(b))
            a, c_in, c = advance(a, 4 * a_row), advance(c_in, 4 * c_in_row), advance(c, 4 * c_row)
            r += 4
        while rows > r:
            _gated_1x4(a, a_row, a_step, b, b_step, depth, c_in, c_in_row, c, c_row, 4 * lanes(b))
            a, c_in, c = advance(a, a_row), advance(c_in, c_in_row), advance(c, c_row)
            r += 1


def gradient_columns(dtype):
    """Columns of the blocks in which weight gradients are computed: four vectors."""
    return 4 * vector_bytes() // np.dtype(dtype).itemsize


def packed_shape(depth, columns, dtype):
    """Shape (panels, depth, panel width) of a packed right-hand side of `depth` rows and `columns` columns."""
    width = panel_width(dtype)
    return -(-columns // width), depth, width


def packed_gates_shape(depth, units, gates, dtype):
    """Shape of what :func:`pack_gates` fills: (panels, depth, panel width)."""
    width = vector_bytes() // np.dtype(dtype).itemsize
    blocks = -(-units // width)
    return -(-blocks * gates // panel_vectors()), depth, panel_width(dtype)


@njit
def _pack(start, stop, matrix, gates, packed):
    """Fill panels start..stop: packed vector q holds lanes of gate ``q % gates`` of the units of block ``q // gates``."""
    depth, columns = matrix.shape
    source, target = pointer(matrix), pointer(packed)
    width = lanes(source)
    units = columns // gates
    per_panel = packed.shape[2] // width
    for panel in range(start, stop):
        for v in range(per_panel):
            q = panel * per_panel + v
            unit = q // gates * width
            n = max(0, min(width, units - unit))
            column = min(q % gates * units + unit, columns - 1)
            for k in range(depth):
                value = load_n(source, k * columns + column, n)
                store(target, (panel * depth + k) * packed.shape[2] + v * width, value)


@njit
def _pack_transposed(start, stop, matrix, packed):
    """Fill panels start..stop with the columns of ``matrix.T``."""
    columns, depth = matrix.shape
    width = packed.shape[2]
    for panel in range(start, stop):
        n = min(width, columns - panel * width)
        # In blocks of k that keep both the lines read and the lines written in the first-level cache.
        for first in range(0, depth, 16):
            last = min(first + 16, depth)
            for j in range(n):
                for k in range(first, last):
                    packed[panel, k, j] = matrix[panel * width + j, k]
            for k in range(first, last):
                for j in range(n, width):
                    packed[panel, k, j] = 0


_PACK_GRAIN = 1 << 15  # elements: below this a hand-off to another thread costs more than it saves


def _panel_grain(packed):
    return max(1, _PACK_GRAIN // max(1, packed.shape[1] * packed.shape[2]))


def pack(matrix):
    """Pack a C-contiguous (depth, columns) matrix as the right-hand side of products.

    Returns
    -------
    ndarray of shape ``packed_shape(depth, columns, dtype)``
    """
    packed = np.empty(packed_shape(*matrix.shape, matrix.dtype), matrix.dtype)
    parallel_for(_pack, packed.shape[0], _panel_grain(packed), matrix, 1, packed)
    return packed


def pack_gates(matrix, gates):
    """Pack a (depth, gates * units) matrix so that one panel holds the same units of neighbouring gates.

    The product's panels then come out as the operands of a cell's step: vector q of a row of panels holds one vector of units of
    gate ``q % gates``, block ``q // gates``.

    Returns
    -------
    ndarray of shape ``packed_gates_shape(depth, units, gates, dtype)``
    """
    shape = packed_gates_shape(matrix.shape[0], matrix.shape[1] // gates, gates, matrix.dtype)
    packed = np.empty(shape, matrix.dtype)
    parallel_for(_pack, shape[0], _panel_grain(packed), matrix, gates, packed)
    return packed


def pack_transposed(matrix):
    """Pack the transpose of a C-contiguous (columns, depth) matrix: what ``pack(matrix.T)`` would give."""
    packed = np.empty(packed_shape(matrix.shape[1], matrix.shape[0], matrix.dtype), matrix.dtype)
    parallel_for(_pack_transposed, packed.shape[0], _panel_grain(packed), matrix, packed)
    return packed


@njit
def _multiply_rows(start, stop, a, a_row, a_step, depth, packed, c):
    columns, width = c.shape[1], packed.shape[2]
    left = advance(pointer(a), start * a_row)
    for panel in range(packed.shape[0]):
        target = advance(pointer(c), start * columns + panel * width)
        right = advance(pointer(packed), panel * depth * width)
        rows_product(
            left, a_row, a_step, stop - start, right, width, depth, target, columns, target, columns, columns - panel * width
        )  # fmt: skip


@njit
def _multiply_panels(start, stop, a, a_row, a_step, depth, packed, c):
    rows, columns, width = c.shape[0], c.shape[1], packed.shape[2]
    for panel in range(start, stop):
        target = advance(pointer(c), panel * width)
        right = advance(pointer(packed), panel * depth * width)
        rows_product(
            pointer(a), a_row, a_step, rows, right, width, depth, target, columns, target, columns, columns - panel * width
        )  # fmt: skip


_GRAIN = 1 << 19  # multiply-adds: some ten microseconds of one core


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
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    packed = pack_transposed(b) if transpose_b else pack(b)
    a_row, a_step = (1, a.shape[1]) if transpose_a else (a.shape[1], 1)
    if get_num_threads() > packed.shape[0] or rows >= columns:
        grain = max(6, _GRAIN // (depth * columns))
        parallel_for(_multiply_rows, rows, grain, a, a_row, a_step, depth, packed, c)
    else:
        grain = max(1, _GRAIN // (depth * rows * packed.shape[2]))
        parallel_for(_multiply_panels, packed.shape[0], grain, a, a_row, a_step, depth, packed, c)
    return c
