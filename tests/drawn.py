"""Random targets and predictions for losses and metrics, and the precision in which they are compared with Keras."""

from contextlib import contextmanager

import numpy as np
import pytest
from parity import precision

from numbarnn import backend


@contextmanager
def both_in(dtype):
    """Let numbarnn and Keras compute in `dtype`; without Keras, skip the test."""
    pytest.importorskip("keras")
    before = backend.floatx()
    backend.set_floatx(dtype)
    with precision(dtype):
        yield dtype
    backend.set_floatx(before)


def real(rng, shape):
    return rng.normal(size=shape)


def positive(rng, shape):
    return rng.uniform(0.1, 4.0, size=shape)


def share(rng, shape):
    return rng.uniform(0.02, 0.98, size=shape)


def coarse(rng, shape):
    """Shares with many ties, among each other and with thresholds."""
    return rng.integers(0, 9, size=shape) / 8


def distribution(rng, shape):
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1])


def yes_no(rng, shape):
    return rng.integers(0, 2, size=shape).astype(float)


def signs(rng, shape):
    return 2.0 * yes_no(rng, shape) - 1.0


def one_hot(rng, shape):
    return np.eye(shape[-1])[rng.integers(0, shape[-1], size=shape[:-1])]


def labels(rng, shape):
    return rng.integers(0, shape[-1], size=shape[:-1])


def classes(rng, shape):
    return rng.integers(0, 3, size=shape)
