"""What all benchmarks share: pinned threads, and sizes that are the same on every machine."""

import os

# Two machines, or two commits, are comparable only with these fixed. (asv's matrix sets them too, but not in an
# existing environment.)
os.environ.setdefault("NUMBARNN_NUM_THREADS", "2")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

# name: batch, timesteps, inputs, units
SMALL = {"rows_of_digits": (64, 28, 28, 64), "short_series": (256, 50, 8, 16), "one_at_a_time": (1, 100, 64, 128)}
LARGE = {
    "long_series": (16, 1000, 16, 32),
    "text": (32, 100, 64, 128),
    "medium": (64, 50, 256, 256),
    "wide": (64, 25, 512, 512),
    "one_at_a_time_wide": (1, 100, 512, 512),
}
PROFILE = os.environ.get("NUMBARNN_BENCHMARK_PROFILE", "small")
if PROFILE not in ("small", "large"):
    raise ValueError(f'environment variable NUMBARNN_BENCHMARK_PROFILE must be "small" or "large", got {PROFILE!r}')
SIZES = SMALL if PROFILE == "small" else SMALL | LARGE


class Sized:
    """Base of what runs over `SIZES`, layers and types. `setup` compiles, so that nothing timed does."""

    params = (list(SIZES), ["LSTM", "GRU", "SimpleRNN"], ["float32", "float64"])
    param_names = ("size", "layer", "dtype")

    def setup(self, size, layer, dtype):
        from numbarnn.utils import set_random_seed

        if dtype == "float64" and layer != "LSTM":
            raise NotImplementedError("one layer is enough to follow float64")  # asv leaves it out
        set_random_seed(0)
        self.batch, self.steps, self.inputs, self.units = SIZES[size]
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((self.batch, self.steps, self.inputs)).astype(dtype)
        self.y = rng.integers(0, 10, self.batch)
        self.prepare(layer, dtype)

    def recurrent(self, layer, dtype, **options):
        """Return a new layer of that name."""
        from numbarnn import layers

        return getattr(layers, layer)(self.units, dtype=dtype, **options)

    def model(self, layer, dtype):
        """Return a compiled classifier of ten classes."""
        from numbarnn.layers import Dense
        from numbarnn.losses import SparseCategoricalCrossentropy
        from numbarnn.models import Sequential

        first = self.recurrent(layer, dtype, input_shape=self.x.shape[1:])
        model = Sequential([first, Dense(10, dtype=dtype)])
        model.compile(optimizer="adam", loss=SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        return model
