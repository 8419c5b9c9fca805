"""The UCI handwritten digits that scikit-learn bundles: 1,797 pictures of 8 x 8 grey levels.

Nothing is downloaded: the pictures lie inside the scikit-learn package, which the extra ``numbarnn[demo]`` installs.
"""

import math

import numpy as np

__all__ = ["load_data"]


def load_data(test_fraction=0.2, seed=0):
    """Load the handwritten digits as sequences of eight rows, split into a training and a test part.

    The split is stratified: each digit is as frequent in the test part as in the whole, to within one picture.

    Parameters
    ----------
    test_fraction : float
        Share of the pictures kept for the test, strictly between 0 and 1. The number of test pictures is rounded up.
    seed : int
        Seed of the split; the same seed gives the same split on every machine.

    Returns
    -------
    ((x_train, y_train), (x_test, y_test))
        `x` is float32 of shape (pictures, 8, 8), grey levels scaled to [0, 1], each row from top to bottom a timestep.
        `y` is int64 of shape (pictures,), the digit 0 to 9. Both parts are shuffled.

    Raises
    ------
    ValueError
        If `test_fraction` does not lie strictly between 0 and 1.
    ImportError
        If scikit-learn is not installed.
    """
    if not 0.0 < test_fraction < 1.0:
        raise ValueError(f"`test_fraction` must lie strictly between 0 and 1. Received: test_fraction={test_fraction}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "numbarnn.datasets.digits reads the pictures that scikit-learn bundles, and scikit-learn is not installed. "
            "Install it with: pip install 'numbarnn[demo]'"
        ) from error
    bunch = load_digits()
    x = (bunch.images / 16.0).astype(np.float32)
    y = bunch.target.astype(np.int64)
    test = stratified_choice(y, test_fraction, np.random.default_rng(seed))
    train = np.setdiff1d(np.arange(len(y)), test)
    rng = np.random.default_rng([seed, 1])
    train, test = rng.permutation(train), rng.permutation(test)
    return (x[train], y[train]), (x[test], y[test])


def stratified_choice(labels, fraction, rng):
    """Choose a `fraction` of the positions of `labels` so that every label keeps its share.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        The label of each position.
    fraction : float
        Share to choose, in (0, 1). ``ceil(fraction * n)`` positions are chosen in all.
    rng : numpy.random.Generator
        Source of the choice.

    Returns
    -------
    ndarray of int
        The chosen positions, sorted.
    """
    values, counts = np.unique(labels, return_counts=True)
    total = math.ceil(fraction * len(labels))
    exact = counts * (total / len(labels))
    quota = np.floor(exact).astype(int)
    # The largest remainders get what rounding down left over, so that the quotas add up to the total.
    quota[np.argsort(quota - exact, kind="stable")[: total - quota.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(labels == value))[:n] for value, n in zip(values, quota, strict=True)]
    return np.sort(np.concatenate(chosen))
