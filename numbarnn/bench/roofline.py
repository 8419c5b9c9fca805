"""What the arithmetic and the memory of this machine give, to measure kernels by."""

import numpy as np

from .. import gemm
from ..cells import lstm
from ..jit import njit, parallel_for
from ..simd import advance, fma, lanes, load, pointer, store, vector_bytes

__all__ = ["FmaPeak", "PackedProduct", "Pointwise", "Reading"]

# Kept in no cache: that of the kernels does not see edits of this file.


@njit(cache=False)
def _chains(start, stop, numbers, times):
    """Twelve chains of multiply-adds that never leave their registers."""
    for row in range(start, stop):
        memory = pointer(numbers)
        v = lanes(memory)
        memory = advance(memory, 13 * row * v)
        x = load(memory, 0)
        # Twelve different starts: equal chains would be computed once.
        a, b, c, d = load(memory, v), load(memory, 2 * v), load(memory, 3 * v), load(memory, 4 * v)
        e, f, g, h = load(memory, 5 * v), load(memory, 6 * v), load(memory, 7 * v), load(memory, 8 * v)
        i, j, k, m = load(memory, 9 * v), load(memory, 10 * v), load(memory, 11 * v), load(memory, 12 * v)
        for _ in range(times):
            a, b, c, d = fma(a, x, x), fma(b, x, x), fma(c, x, x), fma(d, x, x)
            e, f, g, h = fma(e, x, x), fma(f, x, x), fma(g, x, x), fma(h, x, x)
            i, j, k, m = fma(i, x, x), fma(j, x, x), fma(k, x, x), fma(m, x, x)
        store(memory, 0, ((a + b) + (c + d)) + ((e + f) + (g + h)) + ((i + j) + (k + m)))


class FmaPeak:
    """Nothing but multiply-adds, on some threads. A call takes about a millisecond.

    Parameters
    ----------
    dtype : str
        "float32" or "float64".
    threads : int
        At most `numbarnn.get_num_threads`.

    Attributes
    ----------
    flops : int
        Operations of a call; a multiply-add counts as two.
    """

    def __init__(self, dtype="float32", threads=1):
        self._lanes = vector_bytes() // np.dtype(dtype).itemsize
        self._times, self._threads = 200_000, threads
        self._start = np.linspace(0.1, 0.5, 13 * self._lanes, dtype=dtype)

    @property
    def flops(self):  # noqa: D102 - in the class's docstring
        return 2 * 12 * self._lanes * self._times * self._threads

    def __call__(self):
        """Run it."""
        parallel_for(_chains, self._threads, 1, np.tile(self._start, (self._threads, 1)), self._times)


@njit(cache=False)
def _read(start, stop, numbers, times, sums):
    """Add up blocks of eight vectors, `times` times."""
    memory = pointer(numbers)
    v = lanes(memory)
    first = 8 * v * start
    a, b, c, d = load(memory, first), load(memory, first), load(memory, first), load(memory, first)
    for _ in range(times):
        for block in range(start, stop):
            at = 8 * v * block
            a = a + load(memory, at)
            b = b + load(memory, at + v)
            c = c + load(memory, at + 2 * v)
            d = d + load(memory, at + 3 * v)
            a = a + load(memory, at + 4 * v)
            b = b + load(memory, at + 5 * v)
            c = c + load(memory, at + 6 * v)
            d = d + load(memory, at + 7 * v)
    store(pointer(sums), start * v, (a + b) + (c + d))


class Reading:
    """Reading so many bytes again and again and doing next to nothing with them, each thread its share.

    Parameters
    ----------
    size : int
        Bytes; rounded up to whole blocks of eight vectors.
    times : int
        How often a call reads them.
    """

    def __init__(self, size, times):
        block = 8 * vector_bytes()
        self._blocks, self._times = -(-size // block), times
        self._numbers = gemm.aligned_empty((self._blocks * block // 4,), np.float32)
        self._numbers[:] = 0
        self._sums = np.zeros(self._blocks * vector_bytes() // 4, np.float32)

    def __call__(self):
        """Read."""
        parallel_for(_read, self._blocks, 1, self._numbers, self._times, self._sums)


@njit(cache=False)
def _product(a, packed, c):
    width, columns = packed.shape[2], c.shape[1]
    for panel in range(packed.shape[0]):
        right, goal = advance(pointer(packed), panel * packed.shape[1] * width), advance(pointer(c), panel * width)
        rest = columns - panel * width
        gemm.rows_product(
            pointer(a), a.shape[1], 1, a.shape[0], right, width, a.shape[1], goal, columns, goal, columns, rest
        )


class PackedProduct:
    """The product of a matrix and a packed one, on one thread.

    Parameters
    ----------
    rows, depth, columns : int

    Attributes
    ----------
    flops : int
        Operations of a call.
    """

    def __init__(self, rows, depth, columns):
        rng = np.random.default_rng(0)
        self._a, self._b = rng.random((rows, depth), "f4"), gemm.pack(rng.random((depth, columns), "f4"))
        self._c = np.zeros((rows, columns), "f4")
        self.flops = 2 * rows * depth * columns

    def __call__(self):
        """Multiply."""
        _product(self._a, self._b, self._c)


@njit(cache=False)
def _steps(z, c0, h, c, kept, times):
    rows, units = c0.shape
    zp, c0p, hp, cp, kp = pointer(z), pointer(c0), pointer(h), pointer(c), pointer(kept)
    for _ in range(times):
        for r in range(rows):
            for u in range(0, units, lanes(zp)):
                at, one = r * 4 * units + u, r * units + u
                new = lstm.step(
                    load(zp, at), load(zp, at + units), load(zp, at + 2 * units), load(zp, at + 3 * units),
                    load(c0p, one), None, None,
                )  # fmt: skip
                store(hp, one, new[0])
                store(cp, one, new[1])
                store(kp, at, new[2])
                store(kp, at + units, new[3])
                store(kp, at + 2 * units, new[4])
                store(kp, at + 3 * units, new[5])


class Pointwise:
    """The step of the LSTM without its products, with all loads and stores, on one thread.

    Attributes
    ----------
    units : int
        How many units a call steps.
    """

    def __init__(self):
        rng, times = np.random.default_rng(0), 100
        z, c0 = rng.standard_normal((16, 256), "f4"), rng.standard_normal((16, 64), "f4")
        self._arguments = z, c0, np.empty_like(c0), np.empty_like(c0), np.empty_like(z), times
        self.units = c0.size * times

    def __call__(self):
        """Step."""
        _steps(*self._arguments)
