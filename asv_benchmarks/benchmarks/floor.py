"""What the kernel floor reaches of the machine: the matrix product, the pointwise part of a step."""

import time

import numpy as np

from . import common  # noqa: F401 - it pins the threads


def least_seconds(function, *args, repeat=400):
    """Return the least time of many calls."""
    function(*args)
    best = np.inf
    for _ in range(repeat):
        start = time.perf_counter()
        function(*args)
        best = min(best, time.perf_counter() - start)
    return best


def fma_peak():
    """Measure one core's multiply-adds: GFLOP/s of twelve chains that never leave their registers."""
    from numbarnn.jit import njit
    from numbarnn.simd import fma, lanes, load, pointer, store, vector_bytes

    @njit
    def chains(numbers, times):
        memory = pointer(numbers)
        v = lanes(memory)
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

    times = 20_000
    lanes_ = vector_bytes() // 4
    numbers = np.linspace(0.1, 0.5, 13 * lanes_, dtype="f4")
    return 2 * 12 * lanes_ * times / least_seconds(chains, numbers, times) / 1e9


def product_speed(rows, depth, columns):
    """Measure one core's product of a matrix and a packed one: GFLOP/s."""
    from numbarnn import gemm
    from numbarnn.jit import njit
    from numbarnn.simd import advance, pointer

    @njit
    def product(a, packed, c):
        width, columns = packed.shape[2], c.shape[1]
        for panel in range(packed.shape[0]):
            right, goal = advance(pointer(packed), panel * packed.shape[1] * width), advance(pointer(c), panel * width)
            rest = columns - panel * width
            gemm.rows_product(
                pointer(a), a.shape[1], 1, a.shape[0], right, width, a.shape[1], goal, columns, goal, columns, rest
            )

    rng = np.random.default_rng(0)
    a, b = rng.random((rows, depth), "f4"), rng.random((depth, columns), "f4")
    c = np.zeros((rows, columns), "f4")
    return 2 * rows * depth * columns / least_seconds(product, a, gemm.pack(b), c) / 1e9


def pointwise_ns():
    """Measure the step of the LSTM without its products: ns for each unit, with all loads and stores."""
    from numbarnn.cells import lstm
    from numbarnn.jit import njit
    from numbarnn.simd import lanes, load, pointer, store

    @njit
    def steps(z, c0, h, c, kept, times):
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

    rng = np.random.default_rng(0)
    z, c0 = rng.standard_normal((16, 256), "f4"), rng.standard_normal((16, 64), "f4")
    h, c, kept = np.empty_like(c0), np.empty_like(c0), np.empty_like(z)
    times = 100
    return least_seconds(steps, z, c0, h, c, kept, times) / (c0.size * times) * 1e9


class Floor:
    """Speeds of one core."""

    def track_fma_peak(self):
        return fma_peak()

    def track_product(self):
        return product_speed(64, 256, 1024)

    def track_pointwise(self):
        return pointwise_ns()

    track_fma_peak.unit = track_product.unit = "GFLOP/s"
    track_pointwise.unit = "ns"
