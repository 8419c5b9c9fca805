import random

import numpy as np
import pytest

from numbarnn.testing import assert_close, check_gradients, reference, relative_error
from numbarnn.utils import pad_sequences, set_random_seed, to_categorical


def draws():
    import numbarnn.random

    return random.random(), np.random.random(3).tolist(), np.asarray(numbarnn.random.normal((3,))).tolist()


def test_one_seed_repeats_every_source():
    set_random_seed(7)
    first = draws()
    set_random_seed(7)
    assert draws() == first
    set_random_seed(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", True])
def test_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="`seed` must be an integer from 0"):
        set_random_seed(seed)


def test_to_categorical():
    expected = [[1, 0, 0], [0, 0, 1]]
    np.testing.assert_array_equal(to_categorical([0, 2]), expected)
    np.testing.assert_array_equal(to_categorical(np.array([[0], [2]])), expected)
    assert to_categorical([0, 2]).dtype == np.float32
    assert to_categorical([[0, 1], [1, 1]], num_classes=4).shape == (2, 2, 4)
    assert to_categorical(np.zeros((0,), int), num_classes=3).shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 3], 3, "labels from 0 to 2. Received: labels from 0 to 3"),
        ([-1], 3, "labels from -1 to -1"),
        ([0.5], None, "integer labels"),
        ([np.nan], None, "integer labels"),
        (["a"], None, "integer labels"),
        (np.zeros(0, int), None, "`num_classes` must be given"),
    ],
)
def test_to_categorical_refuses(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        to_categorical(labels, classes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, [[0, 0, 1], [0, 2, 3], [4, 5, 6]]),
        ({"padding": "post"}, [[1, 0, 0], [2, 3, 0], [4, 5, 6]]),
        ({"maxlen": 2}, [[0, 1], [2, 3], [5, 6]]),
        ({"maxlen": 2, "truncating": "post"}, [[0, 1], [2, 3], [4, 5]]),
        ({"maxlen": 4, "value": 9}, [[9, 9, 9, 1], [9, 9, 2, 3], [9, 4, 5, 6]]),
        ({"maxlen": 0}, [[], [], []]),
    ],
)
def test_pad_sequences(arguments, expected):
    padded = pad_sequences([[1], [2, 3], [4, 5, 6]], **arguments)
    assert padded.dtype == np.int32
    np.testing.assert_array_equal(padded, np.array(expected, dtype=int).reshape(3, -1))


def test_pad_sequences_keeps_trailing_axes_and_empty_sequences():
    padded = pad_sequences([np.ones((2, 3)), []], dtype="float32")
    assert padded.shape == (2, 2, 3) and padded.dtype == np.float32
    np.testing.assert_array_equal(padded, [np.ones((2, 3)), np.zeros((2, 3))])
    assert pad_sequences([["a"], ["b", "c"]], dtype=object, value="-").tolist() == [["-", "a"], ["b", "c"]]


@pytest.mark.parametrize(
    ("sequences", "arguments", "message"),
    [
        (3, {}, "`sequences` must be a list"),
        ([[1], 2], {}, "non-iterable one: 2"),
        ([[1]], {"padding": "left"}, '`padding` must be "pre" or "post"'),
        ([[1]], {"truncating": "both"}, '`truncating` must be "pre" or "post"'),
        ([[1]], {"value": "x"}, "`value` is a string"),
        ([np.ones((2, 3)), np.ones((2, 4))], {}, r"trailing shape \(3,\). Received one with \(4,\)"),
    ],
)
def test_pad_sequences_refuses(sequences, arguments, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences(sequences, **arguments)


def test_relative_error():
    assert relative_error([1.0, -10.0], [2.0, -10.0]) == 0.1
    assert relative_error([0.0], [1e-9]) == pytest.approx(1e-6)  # against 1e-3 at least
    assert relative_error([], []) == 0.0
    assert relative_error([np.inf, 1.0], [np.inf, 1.0]) == 0.0
    assert np.isnan(relative_error([np.nan], [1.0])) and relative_error([np.inf], [1.0]) == np.inf
    with pytest.raises(ValueError, match="one shape"):
        relative_error([1.0], [[1.0]])


@pytest.mark.parametrize("actual", [[1.0, np.nan], [1.0, 2.1], [1.0], [np.inf, 2.0]])
def test_assert_close_catches(actual):
    assert_close([1.0, 2.0], [1.0, 2.0], 0.0)
    with pytest.raises(AssertionError, match="the product"):
        assert_close(actual, [1.0, 2.0], 1e-3, "the product")


def test_check_gradients_catches_one_wrong_argument(rng):
    a, b = rng.standard_normal((3, 2)), rng.standard_normal(2)

    def function(a, b):
        return np.sin(a @ b).sum()

    slope = np.cos(a @ b)
    d_a, d_b = slope[:, None] * b, a.T @ slope
    check_gradients(function, [a, b], [d_a, d_b])
    check_gradients(function, [a, b], [None, d_b])
    with pytest.raises(AssertionError, match="argument 1"):
        check_gradients(function, [a, b], [d_a, 1.001 * d_b])
    with pytest.raises(TypeError, match="argument 0 of float32"):
        check_gradients(function, [a.astype(np.float32), b], [d_a, d_b])


def test_the_naive_lstm_with_one_step_done_by_hand():
    x, h, c = np.array([[[0.5]]]), np.array([[0.25]]), np.array([[-1.0]])
    kernel, recurrent, bias = np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[0.5, 0.0, -0.5, 1.0]]), np.full(4, 0.1)
    outputs, states = reference.lstm(np, x, [kernel, recurrent, bias], [h, c])
    i, f, g, o = 1 / (1 + np.exp(-0.725)), 1 / (1 + np.exp(-1.1)), np.tanh(1.475), 1 / (1 + np.exp(-2.35))
    new_c = f * -1.0 + i * g
    np.testing.assert_allclose(states[1], [[new_c]], rtol=1e-15)
    np.testing.assert_allclose(outputs, [[[o * np.tanh(new_c)]]], rtol=1e-15)


def test_the_naive_lstm_skips_masked_steps(rng):
    x = rng.standard_normal((1, 5, 2))
    weights = [rng.standard_normal(shape) for shape in ((2, 12), (3, 12), (12,))]
    states = [rng.standard_normal((1, 3)), rng.standard_normal((1, 3))]
    mask = np.array([[False, True, False, True, False]])
    masked, last = reference.lstm(np, x, weights, states, mask=mask)
    short, expected = reference.lstm(np, x[:, [1, 3]], weights, states)
    np.testing.assert_array_equal(last, expected)
    np.testing.assert_array_equal(masked, np.stack([0 * short[:, 0], *short[:, [0, 0, 1, 1]].swapaxes(0, 1)], axis=1))
    zeroed, _ = reference.lstm(np, x, weights, states, mask=mask, zero_output_for_mask=True)
    np.testing.assert_array_equal(zeroed, masked * mask[..., None])
