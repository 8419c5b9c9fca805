"""One seed for everything random."""

import random

import numpy as np

import numbarnn.random

__all__ = ["set_random_seed"]


def set_random_seed(seed):
    """Seed Python's `random`, NumPy's global generator and numbarnn, so that a training run repeats bit for bit.

    Call it before the model is made: the initial weights, the shuffling of `fit` and every dropout draw follow from it.
    Results do not depend on the number of threads.

    Parameters
    ----------
    seed : int
        From 0 to 2**32 - 1.

    Raises
    ------
    ValueError
        If `seed` is not an integer in that range.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be an integer from 0 to 2**32 - 1. Received: seed={seed!r}")
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)
    numbarnn.random.set_seed(seed)
