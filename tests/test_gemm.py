"""Matrix products: values, the law of order, packed layouts, what stays untouched behind the last column."""

import numpy as np
import pytest
from reference import one_chain

from numbarnn import gemm, jit
from numbarnn.gemm import four_gates_product, panel_columns, rows_product, two_gates_product
from numbarnn.jit import njit
from numbarnn.simd import advance, pointer, vector_bytes

DTYPES = ["float32", "float64"]
# (rows, depth, columns): ones, primes, one less and more than vectors and panels, tall, wide, flat, several blocks.
SHAPES = [
    (1, 1, 1), (7, 5, 9), (6, 64, 64), (1, 37, 130), (131, 3, 1), (2, 1, 65), (13, 128, 257), (49, 300, 33), (5, 7, 15),
    (211, 515, 70),
]  # fmt: skip


def vector_width(dtype):
    return vector_bytes() // np.dtype(dtype).itemsize


def matrices(rng, shape, dtype):
    rows, depth, columns = shape
    return rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)


# -------------------------------------------------------------------------------------------------------- matmul


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_matmul(shape, transpose_a, transpose_b, dtype, rng):
    a, b = matrices(rng, shape, dtype)
    exact = a.astype("float64") @ b.astype("float64")
    bound = np.abs(a).astype("float64") @ np.abs(b) * (shape[1] + 1) * np.finfo(dtype).eps
    given = (np.ascontiguousarray(a.T) if transpose_a else a, np.ascontiguousarray(b.T) if transpose_b else b)
    found = gemm.matmul(*given, transpose_a=transpose_a, transpose_b=transpose_b)
    assert found.dtype == dtype and found.shape == exact.shape
    assert np.all(np.abs(found - exact) <= bound)
    np.testing.assert_array_equal(found, gemm.matmul(a, b), err_msg="the transposed operand gives other bits")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 17, 9), (8, 2, 5)])
def test_each_element_is_one_chain_in_rising_order(shape, dtype, rng):
    a, b = matrices(rng, shape, dtype)
    np.testing.assert_array_equal(gemm.matmul(a, b), one_chain(a, b))


# Many rows, many columns: the two ways in which threads share the work.
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(311, 129, 97), (41, 129, 1000)])
def test_threads_rows_and_columns_make_no_difference(shape, dtype, rng, monkeypatch):
    a, b = matrices(rng, shape, dtype)
    parts = []

    def spy(fn, n, grain, *args):
        parts.append(len(jit.chunks(n, grain)))
        jit.parallel_for(fn, n, grain, *args)

    monkeypatch.setattr(gemm, "parallel_for", spy)
    monkeypatch.setattr(gemm, "_GRAIN", 1 << 19)  # products this small are not shared otherwise
    found = {}
    for threads in (1, 2, 3, 7):
        jit.set_num_threads(threads)
        found[threads] = gemm.matmul(a, b)
        assert parts[-1] == threads
        np.testing.assert_array_equal(found[threads], found[1], err_msg=f"{threads} threads")
    for row in (0, 5, 40):
        np.testing.assert_array_equal(gemm.matmul(a[row : row + 1], b), found[1][row : row + 1])
    np.testing.assert_array_equal(gemm.matmul(a, b[:, 13:50]), found[1][:, 13:50])


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
@pytest.mark.parametrize("transpose", [False, True])
def test_empty_products_are_zeros(shape, transpose):
    a, b = np.ones(shape[:2]), np.ones(shape[1:])
    found = gemm.matmul(a.T, b.T, transpose_a=True, transpose_b=True) if transpose else gemm.matmul(a, b)
    np.testing.assert_array_equal(found, np.zeros((shape[0], shape[2])))


# In one call, and packed first.
@pytest.mark.parametrize(
    ("shape", "kernels"),
    [((9, 14, 21), [gemm._multiply_small]), ((259, 144, 41), [gemm._pack, gemm._multiply])],
    ids=["small", "packed"],
)
def test_any_memory_order_and_read_only_arrays(shape, kernels, rng):
    a, b = matrices(rng, shape, "float32")
    expected = gemm.matmul(a, b)
    compiled = [len(kernel.signatures) for kernel in kernels]
    assert all(compiled)
    wide = np.repeat(a, 2, axis=1)
    for other_a, other_b in [(np.asfortranarray(a), np.asfortranarray(b)), (wide[:, ::2], b[::-1][::-1]), (a, b)]:
        for array in (other_a, other_b):
            array.flags.writeable = False
        np.testing.assert_array_equal(gemm.matmul(other_a, other_b), expected)
    assert [len(kernel.signatures) for kernel in kernels] == compiled


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_too_small_to_be_packed_gives_the_same_bits(dtype, rng, monkeypatch):
    """A row alone takes another way than its batch does."""
    a, b = matrices(rng, (270, 140, 41), dtype)
    called = []
    for name in ("_multiply_small", "_multiply"):
        kernel = getattr(gemm, name)
        monkeypatch.setattr(gemm, name, lambda *args, k=kernel, n=name: (called.append(n), k(*args)))
    whole = gemm.matmul(a, b)
    assert set(called) == {"_multiply"}
    called.clear()
    for row in (0, 33, 269):
        np.testing.assert_array_equal(gemm.matmul(a[row : row + 1], b), whole[row : row + 1])
        np.testing.assert_array_equal(
            gemm.matmul(a[row : row + 1], np.ascontiguousarray(b.T), transpose_b=True), whole[row : row + 1]
        )
    np.testing.assert_array_equal(gemm.matmul(a[:9], b[:, 13:40]), whole[:9, 13:40])
    assert set(called) == {"_multiply_small"}


@pytest.mark.parametrize("shape", [(20, 6, 70), (260, 126, 70)], ids=["small", "packed"])
def test_nan_and_infinity_stay_in_their_row_and_column(shape, rng):
    a, b = matrices(rng, shape, "float32")
    expected = gemm.matmul(a, b)
    a[3, 2], b[4, 66] = np.nan, np.inf
    found = gemm.matmul(a, b)
    assert np.isnan(found[3]).all()
    assert not np.isfinite(found[:, 66]).any()
    clean = np.ix_(np.arange(len(a)) != 3, np.arange(70) != 66)
    np.testing.assert_array_equal(found[clean], expected[clean])


@pytest.mark.parametrize(
    ("a", "b", "options", "error", "message"),
    [
        (np.ones(3), np.ones((3, 2)), {}, ValueError, r"two matrices; got a of shape \(3,\)"),
        (np.ones((2, 3)), np.ones((2, 3, 1)), {}, ValueError, r"b of shape \(2, 3, 1\)"),
        (np.ones((2, 3)), np.ones((2, 3)), {}, ValueError, "a has 3 columns but b has 2 rows"),
        (np.ones((2, 3)), np.ones((3, 2)), {"transpose_a": True}, ValueError, "a has 2 columns but b has 3 rows"),
        (np.ones((2, 3)), np.ones((3, 2)), {"transpose_b": True}, ValueError, "a has 3 columns but b has 2 rows"),
        (np.ones((2, 3)), np.ones((3, 2), "float32"), {}, TypeError, "got float64 and float32"),
        (np.ones((2, 3), int), np.ones((3, 2), int), {}, TypeError, "got int64 and int64"),
        (np.ones((2, 3), "float16"), np.ones((3, 2), "float16"), {}, TypeError, "got float16 and float16"),
    ],
)
def test_what_does_not_fit_is_refused(a, b, options, error, message):
    with pytest.raises(error, match=message):
        gemm.matmul(a, b, **options)


# -------------------------------------------------------------------------------------------------------- packing


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (3, 64), (17, 131)])
def test_panels_hold_the_columns_row_after_row(shape, dtype, rng):
    matrix = rng.standard_normal(shape).astype(dtype)
    depth, columns = shape
    packed = gemm.pack(matrix)
    width = gemm.panel_width(dtype)
    assert packed.shape == gemm.packed_shape(depth, columns, dtype) == (-(-columns // width), depth, width)
    whole = packed.transpose(1, 0, 2).reshape(depth, -1)
    np.testing.assert_array_equal(whole[:, :columns], matrix)
    np.testing.assert_array_equal(whole[:, columns:], 0)
    for order in "CF":
        np.testing.assert_array_equal(gemm.pack_transposed(np.array(matrix.T, order=order)), packed)


@pytest.mark.parametrize(
    ("matrix", "gates", "error", "message"),
    [
        (np.ones((3, 16)), (3,), ValueError, r"pack_gates: .*\(depth, gates \* units\), got \(3, 16\), gates=3"),
        (np.ones((3, 16)), (0,), ValueError, "gates=0"),
        (np.ones(16), (4,), ValueError, r"got \(16,\)"),
        (np.ones((3, 16)), (4, 0), ValueError, "shared must be in 1 .. 4, got 0"),
        (np.ones((3, 16)), (4, 5), ValueError, "shared must be in 1 .. 4, got 5"),
        (np.ones((3, 16), "float16"), (4,), TypeError, "float32 or float64, got dtype float16"),
        ([[1.0] * 16], (4,), TypeError, "got a list"),
    ],
)
def test_gates_that_cannot_be_packed_are_refused(matrix, gates, error, message):
    with pytest.raises(error, match=message):
        gemm.pack_gates(matrix, *gates)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("depth", "units", "gates", "shared"),
    [
        (1, 1, 4, 4),
        (3, 7, 4, 4),
        (5, 16, 4, 4),
        (2, 33, 4, 4),
        (4, 20, 3, 3),
        (3, 9, 1, 1),
        (3, 70, 3, 2),
        (2, 5, 4, 2),
    ],
)
def test_packed_gates_lie_side_by_side(depth, units, gates, shared, dtype, rng):
    matrix = rng.standard_normal((depth, gates * units)).astype(dtype)
    width = vector_width(dtype)
    packed = gemm.pack_gates(np.asfortranarray(matrix), gates, shared)
    assert packed.shape == gemm.packed_gates_shape(depth, units, gates, shared, dtype)
    panels = packed.reshape(packed.shape[0], depth, -1, width).transpose(0, 2, 1, 3)
    expected = []  # the vectors of the panels of the shared gates, then those of each other gate
    for group in [range(shared), *([gate] for gate in range(shared, gates))]:
        vectors = [
            matrix[:, gate * units :][:, :units][:, unit : unit + width]
            for unit in range(0, units, width)
            for gate in group
        ]
        vectors += [matrix[:, :0]] * (-len(vectors) % gemm.panel_vectors())
        expected += [np.pad(v, ((0, 0), (0, width - v.shape[1]))) for v in vectors]
    np.testing.assert_array_equal(panels.reshape(-1, depth, width), expected)


# -------------------------------------------------------------------------------------------------- the micro-kernel


@njit
def multiply(a, a_row, a_step, rows, packed, first, depth, c_in, c_in_row, c, columns):
    """Run `rows_product` over all panels, k from `first` on."""
    width = panel_columns(a)
    right = pointer(packed)
    for panel in range(packed.shape[0]):
        rows_product(
            advance(pointer(a), first * a_step), a_row, a_step, rows,
            advance(right, (panel * packed.shape[1] + first) * width), width, depth,
            advance(pointer(c_in), panel * width), c_in_row,
            advance(pointer(c), panel * width), c.shape[1], columns - panel * width,
        )  # fmt: skip


@njit
def multiply_gates(a, rows, gates, packed, bias, c):
    """Run the product for 2 or 4 gates over all panels; `a` holds a copy of each element for each gate."""
    width, depth = panel_columns(a), packed.shape[1]
    left, right = pointer(a), pointer(packed)
    for panel in range(packed.shape[0]):
        gate = panel * (width // (c.shape[1] // gates)) % gates
        x, w = advance(left, gate), advance(right, panel * depth * width)
        b, z = advance(pointer(bias), panel * width), advance(pointer(c), panel * width)
        if gates == 2:
            two_gates_product(x, depth * gates, gates, rows, w, width, depth, b, 0, z, c.shape[1], width)
        else:
            four_gates_product(x, depth * gates, gates, rows, w, width, depth, b, 0, z, c.shape[1], width)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 15, 16, 33, 64, 70])
@pytest.mark.parametrize("rows", range(1, 14))
def test_tiles_write_their_columns_and_nothing_else(rows, columns, dtype, rng):
    a, b = matrices(rng, (rows, 11, columns), dtype)
    bias = rng.standard_normal(columns).astype(dtype)
    c = np.full((rows + 1, columns + 3), np.nan, dtype)
    multiply(a, 11, 1, rows, gemm.pack(b), 0, 11, bias, 0, c, columns)
    expected = bias + a.astype("float64") @ b
    np.testing.assert_allclose(c[:rows, :columns], expected, rtol=0, atol=60 * np.finfo(dtype).eps)
    assert np.isnan(c[rows]).all() and np.isnan(c[:, columns:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_chain_may_rest_in_memory(dtype, rng):
    a, b = matrices(rng, (9, 40, 75), dtype)
    bias, packed = rng.standard_normal(75).astype(dtype), gemm.pack(b)
    whole, parts = np.empty((9, 75), dtype), np.empty((9, 75), dtype)
    multiply(a, 40, 1, 9, packed, 0, 40, bias, 0, whole, 75)
    multiply(a, 40, 1, 9, packed, 0, 0, bias, 0, parts, 75)
    np.testing.assert_array_equal(parts, np.broadcast_to(bias, (9, 75)), err_msg="depth 0 copies")
    for first, last in [(0, 1), (1, 18), (18, 18), (18, 40)]:
        multiply(a, 40, 1, 9, packed, first, last - first, parts, 75, parts, 75)
    np.testing.assert_array_equal(parts, whole)
    transposed = np.ascontiguousarray(a.T)
    multiply(transposed, 1, 9, 9, packed, 0, 40, bias, 0, parts, 75)
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gates", [2, 4])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_gates_with_rows_of_their_own(rows, gates, dtype, rng):
    depth, width = 7, vector_width(dtype)
    blocks = gemm.panel_vectors() // gates or 1  # of units: whole panels
    units = blocks * width
    copies = rng.standard_normal((gates, rows, depth)).astype(dtype)
    b = rng.standard_normal((depth, gates * units)).astype(dtype)
    bias = rng.standard_normal((1, gates * units)).astype(dtype)
    c = np.empty((rows, gates * units), dtype)
    start = gemm.pack_gates(bias, gates).reshape(-1)
    multiply_gates(np.ascontiguousarray(copies.transpose(1, 2, 0)), rows, gates, gemm.pack_gates(b, gates), start, c)
    c = c.reshape(rows, blocks, gates, width)
    for gate in range(gates):
        own = slice(gate * units, (gate + 1) * units)
        expected = np.empty((rows, units), dtype)
        right = gemm.pack(np.ascontiguousarray(b[:, own]))
        multiply(copies[gate], depth, 1, rows, right, 0, depth, bias[0, own], 0, expected, units)
        np.testing.assert_array_equal(c[:, :, gate].reshape(rows, units), expected)
