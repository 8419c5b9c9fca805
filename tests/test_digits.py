import sys

import numpy as np
import pytest

from numbarnn.datasets import digits


def test_shapes_types_and_range():
    (x_train, y_train), (x_test, y_test) = digits.load_data()
    assert x_train.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert y_train.shape == (1437,) and y_test.shape == (360,)
    assert x_train.dtype == np.float32 and y_train.dtype == np.int64
    assert x_train.min() == 0.0 and x_train.max() == 1.0
    assert set(y_train) == set(range(10))


def test_every_picture_is_in_one_part_with_its_own_label():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    (x_train, y_train), (x_test, y_test) = digits.load_data(seed=3)

    def rows(x, y):
        return sorted(map(tuple, np.column_stack([16 * x.reshape(len(x), -1), y]).tolist()))

    both = rows(np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test]))
    assert both == rows(bunch.images / 16, bunch.target)


@pytest.mark.parametrize("fraction", [0.2, 0.05, 0.5, 0.77])
def test_the_split_is_stratified(fraction):
    (_, y_train), (_, y_test) = digits.load_data(fraction, seed=1)
    total = len(y_train) + len(y_test)
    assert len(y_test) == np.ceil(fraction * total)
    shares = np.bincount(np.concatenate([y_train, y_test]), minlength=10) * (len(y_test) / total)
    assert np.abs(np.bincount(y_test, minlength=10) - shares).max() < 1


def test_the_seed_decides():
    first, again, other = (digits.load_data(seed=seed)[1][0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_refuses_a_fraction_out_of_range(fraction):
    with pytest.raises(ValueError, match="`test_fraction` must lie strictly between 0 and 1"):
        digits.load_data(fraction)


def test_names_the_extra_when_scikit_learn_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"numbarnn\[demo\]"):
        digits.load_data()
