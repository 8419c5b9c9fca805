"""What all benchmarks share: pinned threads, and sizes that are the same on every machine."""

import os

# Two machines, or two commits, are comparable only with these fixed. (asv's matrix sets them too, but not in an
# existing environment.)
os.environ.setdefault("NUMBARNN_NUM_THREADS", "2")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from numbarnn.bench.cases import GROUPS, parse_cases
from numbarnn.bench.cases import SIZES as ALL

PROFILE = os.environ.get("NUMBARNN_BENCHMARK_PROFILE", "small")
PROFILES = {  # tiny: to see that all of it runs
    "tiny": ["rows_of_digits"],
    "small": ["rows_of_digits", "short_series", "one_at_a_time"],
    "large": GROUPS["grid"],
}
if PROFILE not in PROFILES:
    raise ValueError(f"environment variable NUMBARNN_BENCHMARK_PROFILE must be in {list(PROFILES)}, got {PROFILE!r}")
NAMES = PROFILES[PROFILE]
SIZES = {name: ALL[name] for name in NAMES}


def case_of(text):
    """Return the case that a size of `python -m numbarnn bench` stands for."""
    return parse_cases([text])[0]


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
