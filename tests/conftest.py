"""What every test starts from: pinned threads, fixed seeds, no picture on a screen; and the tally of the parity ring.

The compiled kernels are cached by numbarnn itself (`numbarnn/jit.py`), in a folder that carries the hash of their
sources: a second run of the tests compiles nothing, an edited kernel is never answered from the cache.
"""

import os
from collections import Counter

# Before anything imports them: two threads on any machine, so that what only threads can break is always tried.
os.environ.setdefault("NUMBARNN_NUM_THREADS", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ["MPLBACKEND"] = "Agg"
os.environ["NUMBARNN_DEVICE"] = "cpu"  # also where there is a GPU; what is tested there says so

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

# The same examples in every run, and no limit on one example's time: the first call of a kernel compiles it.
hypothesis.settings.register_profile("numbarnn", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("numbarnn")

TALLIES = pytest.StashKey[dict]()


@pytest.fixture(autouse=True)
def same_start():
    """Seed every source of randomness, and put back the threads, floatx, device and names that a test changed."""
    from numbarnn import backend, devices, jit
    from numbarnn.utils import set_random_seed

    threads, floatx, device = jit.get_num_threads(), backend.floatx(), devices.get_device()
    backend.clear_session()
    set_random_seed(0)
    yield
    jit.set_num_threads(threads)
    backend.set_floatx(floatx)
    devices.set_device(device)


@pytest.fixture
def rng():
    """Return a NumPy generator, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def tally(request):
    """Return a function that adds a configuration, its options and its errors to a tally printed at the end."""

    def add(title, options, errors):
        options_of, worst = request.config.stash.setdefault(TALLIES, {}).setdefault(title, (Counter(), {}))
        options_of.update(["configurations", *options])
        for name, error in errors.items():
            worst[name] = max(worst.get(name, 0.0), error)

    return add


def pytest_terminal_summary(terminalreporter, config):
    for title, (options, worst) in config.stash.get(TALLIES, {}).items():
        total = options.pop("configurations")
        terminalreporter.section(f"{title}: {total} configurations as they should be")
        for name, count in sorted(options.items()):
            terminalreporter.write_line(f"{count:5d} {count / total:4.0%}  {name}")
        for name, error in sorted(worst.items()):
            terminalreporter.write_line(f"  {error:.1e}  largest error of {name}")
