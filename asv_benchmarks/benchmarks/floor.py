"""What the kernel floor reaches of the machine, as `numbarnn bench` measures it: products, pointwise steps, memory."""

from .common import case_of


def least_ms(function, seconds=1.0):
    """Return the least time of many calls."""
    from numbarnn.bench.peers.clock import timed

    return min(timed(function, seconds))


class Floor:
    """Speeds of one core."""

    def track_fma_peak(self):
        from numbarnn.bench.roofline import FmaPeak

        peak = FmaPeak()
        return peak.flops / least_ms(peak) / 1e6

    def track_product(self):
        from numbarnn.bench.roofline import PackedProduct

        product = PackedProduct(64, 256, 1024)
        return product.flops / least_ms(product) / 1e6

    def track_pointwise(self):
        from numbarnn.bench.roofline import Pointwise

        pointwise = Pointwise()
        return least_ms(pointwise) / pointwise.units * 1e6

    track_fma_peak.unit = track_product.unit = "GFLOP/s"
    track_pointwise.unit = "ns"


class Hardware:
    """Shares of what two threads and the memory give, from runs in turns."""

    def track_threads(self, what):
        from numbarnn.bench.measures import Setup
        from numbarnn.bench.measures.hardware import threads

        setup = Setup(seconds=0.5, threads=2, cells=["LSTM"], cases=[case_of("rows_of_digits")])
        return next(row.best[0] for row in threads(setup) if row.what == what)

    track_threads.params = ["forward", "forward + backward"]
    track_threads.param_names = ["what"]
    track_threads.unit = "times as fast as one thread"

    def track_bandwidth(self):
        from numbarnn.bench.measures import Setup
        from numbarnn.bench.measures.hardware import bandwidth

        setup = Setup(seconds=0.5, threads=2, cells=["LSTM"], cases=[case_of("one_at_a_time_wide")])
        *_, row = bandwidth(setup)
        return row.best[0]

    track_bandwidth.unit = "share of reading the weights"
