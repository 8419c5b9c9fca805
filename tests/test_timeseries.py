"""Windows of a series, and rows of unit length."""

import numpy as np
import pytest

from numbarnn import layers, models
from numbarnn.utils import normalize, set_random_seed, timeseries_dataset_from_array


def naive(data, targets, length, stride=1, rate=1, start=None, end=None):
    """All windows and their targets, one by one."""
    begin, stop = start or 0, len(data) if end is None else end
    windows, found = [], []
    for at in range(begin, stop, stride):
        steps = [at + rate * n for n in range(length)]
        if steps[-1] >= stop or (targets is not None and at >= len(targets)):
            break
        windows.append([data[n] for n in steps])
        found.append(None if targets is None else targets[at])
    return np.array(windows), np.array(found)


CASES = [
    {},
    {"stride": 3},
    {"rate": 2},
    {"stride": 4, "rate": 3},
    {"start": 5},
    {"end": 17},
    {"start": 4, "end": 20, "stride": 2, "rate": 2},
]
NAMES = {"stride": "sequence_stride", "rate": "sampling_rate", "start": "start_index", "end": "end_index"}


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("targets", [None, 30, 12])
@pytest.mark.parametrize("batch_size", [None, 1, 4, 100])
def test_windows(rng, options, targets, batch_size):
    data = rng.normal(size=(30, 2))
    y = None if targets is None else rng.normal(size=(targets, 3))
    windows, found = naive(data, y, 4, **options)
    dataset = timeseries_dataset_from_array(
        data, y, 4, batch_size=batch_size, **{NAMES[name]: value for name, value in options.items()}
    )
    for _ in range(2):  # as often as one likes
        parts = list(dataset)
        assert len(parts) == len(dataset)
        if y is None:
            np.testing.assert_array_equal((np.stack if batch_size is None else np.concatenate)(parts), windows)
        else:
            for part, whole in zip(zip(*parts, strict=True), (windows, found), strict=True):
                np.testing.assert_array_equal((np.stack if batch_size is None else np.concatenate)(part), whole)
        if batch_size is not None:
            sizes = [len(part if y is None else part[0]) for part in parts]
            assert set(sizes[:-1]) <= {batch_size} and 0 < sizes[-1] <= batch_size


def test_the_next_step_is_foretold():
    series = np.arange(12.0)
    ((x, y),) = timeseries_dataset_from_array(series[:-3], series[3:], sequence_length=3)
    np.testing.assert_array_equal(y, x[:, -1] + 1)
    assert len(x) == 7  # the last window that has a step behind it, in data that end three steps early


def test_a_new_order_each_time(rng):
    series = np.arange(40)

    def orders(seed, count=2):
        dataset = timeseries_dataset_from_array(series, series, 3, batch_size=7, shuffle=True, seed=seed)
        found = []
        for _ in range(count):
            parts = list(dataset)
            assert all((x[:, 0] == y).all() for x, y in parts)
            found.append(np.concatenate([y for _, y in parts]).tolist())
        return found

    first, second = orders(1)
    assert first != second and sorted(first) == sorted(second) == list(range(38)) != first
    assert orders(1) == [first, second] and orders(2) != [first, second]
    set_random_seed(4)
    drawn = orders(None)
    set_random_seed(4)
    assert orders(None) == drawn


def test_fit_takes_it(rng):
    series = rng.normal(size=(50, 2)).astype("float32")
    dataset = timeseries_dataset_from_array(series[:-5], series[5:], 5, batch_size=16)
    model = models.Sequential([layers.Input((5, 2)), layers.LSTM(3), layers.Dense(2)])
    model.compile("sgd", "mse")
    start = model.get_weights()
    history = model.fit(dataset, epochs=2, verbose=0).history
    model.set_weights(start)
    x, y = naive(series[:-5], series[5:], 5)
    assert model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0).history == history
    assert len(model.predict(dataset, verbose=0)) == len(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_index": -1}, "`start_index` must be 0 or greater"),
        ({"start_index": 10}, "`start_index` must be lower than the length of the data"),
        ({"start_index": 5, "end_index": 5}, "`end_index` must be higher than `start_index`"),
        ({"end_index": 10}, "`end_index` must be lower than the length of the data"),
        ({"end_index": -2}, "`end_index` must be higher than 0"),
        ({"end_index": 0}, "`end_index` must be higher than 0"),
        ({"sampling_rate": 0}, "`sampling_rate` must be higher than 0"),
        ({"sampling_rate": 10}, "`sampling_rate` must be lower than the length of the data"),
        ({"sequence_stride": -1}, "`sequence_stride` must be higher than 0"),
        ({"sequence_stride": 10}, "`sequence_stride` must be lower than the length of the data"),
        ({"sequence_length": 0}, "`sequence_length` must be higher than 0"),
        ({"sequence_length": 2.0}, "`sequence_length` must be an integer"),
        ({"batch_size": 0}, "`batch_size` must be higher than 0"),
        ({"sequence_length": 11}, "There is no window of 11 timesteps"),
        ({"targets": np.zeros(0)}, "There is no window of 3 timesteps.* with 0 targets"),
        ({"start_index": 4, "targets": np.zeros(4)}, "There is no window"),
        ({"data": 1.0}, "must have an axis of timesteps"),
        ({"shuffle": True, "seed": 1.5}, "`seed` must be an integer"),
    ],
)
def test_what_makes_no_windows_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timeseries_dataset_from_array(**{"data": np.zeros(10), "targets": None, "sequence_length": 3, **options})


def test_normalize(rng):
    x = rng.normal(size=(4, 3, 2)).astype("float32")
    np.testing.assert_allclose(np.sqrt((normalize(x) ** 2).sum(-1)), 1, rtol=1e-6)
    np.testing.assert_allclose(np.abs(normalize(x, 1, 1)).sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.abs(normalize(x, axis=0, order=np.inf)).max(0), 1, rtol=1e-6)
    assert normalize(x).dtype == "float32" and (normalize(x) * x > 0).all()
    np.testing.assert_array_equal(normalize([[0, 0], [3, 4]]), [[0, 0], [0.6, 0.8]])
    for bad in ("a", 3.0):
        with pytest.raises(ValueError, match="`x` must be an array of numbers"):
            normalize(bad)
