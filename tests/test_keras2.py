"""What only Keras 2 does, against recorded answers of tf_keras: `tests/keras2.py` has the cases, and records them."""

import json
from pathlib import Path

import keras2
import numpy as np
import pytest

from numbarnn import backend, layers, models
from numbarnn.testing import assert_close

RECORDED = Path(__file__).parent / "data" / "keras2.npz"


@pytest.fixture(scope="module")
def answers():
    """Return for each case its structure and its arrays."""
    with np.load(RECORDED) as file:
        structure, values = json.loads(str(file["structure"])), file["values"]
    begin, answers = 0, {}

    def arrays(nested):
        nonlocal begin
        if isinstance(nested, list):
            return [array for part in nested for array in arrays(part)]
        size = int(np.prod(nested["shape"]))
        begin += size
        return [values[begin - size : begin].reshape(nested["shape"])]

    for name, nested in structure.items():
        answers[name] = nested, arrays(nested)
    assert begin == len(values)
    return answers


@pytest.mark.parametrize("name", keras2.CASES)
def test_equals_keras_2(name, answers):
    backend.set_floatx("float64")
    leaves = []
    structure = keras2.flatten(keras2.CASES[name](keras2.Library(layers, models, np.asarray)), leaves)
    expected_structure, expected = answers[name]
    assert structure == expected_structure
    for number, (ours, theirs) in enumerate(zip(leaves, expected, strict=True)):
        assert_close(ours, theirs, 1e-10, f"array {number}")


def test_parameter_counts(answers):
    """What was recorded is what the guide prints."""
    _, counts = answers["parameter_counts"]
    assert [int(count) for count in counts] == [
        *(164106, 64000, 98816, 1290),
        *(361866, 64000, 247296, 49280, 1290),
        *(80266, 38400, 41216, 650),
    ]
