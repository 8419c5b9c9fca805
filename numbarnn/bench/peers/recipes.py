"""What numbarnn and Keras write alike, and the data that all get.

A case is a dict: batch, timesteps, inputs, units, dtype, masked, bidirectional, layers. `library` is keras, or
anything else with its `layers`, `models` and `losses`.
"""

import numpy as np

__all__ = [
    "CLASSES", "WORDS", "classifier", "digits_model", "inputs", "labelled", "lengths", "mask", "recurrent_layers",
    "tokens",
]  # fmt: skip

WORDS, CLASSES = 1000, 10


def lengths(case):
    """How long the sequences of a masked case are: 1 to T in no order, one of them T."""
    rng = np.random.default_rng(1)
    ends = rng.integers(1, case["timesteps"] + 1, case["batch"])
    ends[rng.integers(case["batch"])] = case["timesteps"]
    return ends.tolist()


def mask(case):
    """The mask of a case, (B, T) bool, or None."""
    return np.arange(case["timesteps"]) < np.array(lengths(case))[:, None] if case["masked"] else None


def inputs(case):
    """Inputs of layers, (B, T, I)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((case["batch"], case["timesteps"], case["inputs"])).astype(case["dtype"])


def tokens(case):
    """Inputs and targets of `classifier`: words (B, T), zeros where a masked case is padded; classes (B,)."""
    rng = np.random.default_rng(0)
    x = rng.integers(1, WORDS, (case["batch"], case["timesteps"]))
    return (x * mask(case) if case["masked"] else x), rng.integers(0, CLASSES, case["batch"])


def labelled(case, batches):
    """Inputs and targets of `digits_model`, `batches` times B of them."""
    many = {**case, "batch": case["batch"] * batches}
    return inputs(many), np.random.default_rng(2).integers(0, CLASSES, many["batch"])


def recurrent_layers(layers, cell, case, all_steps=True):
    """New recurrent layers of a case; the last one gives its outputs of all steps, or the last one only."""
    made = []
    for number in range(case["layers"]):
        sequences = all_steps or number < case["layers"] - 1
        layer = getattr(layers, cell)(case["units"], return_sequences=sequences, dtype=case["dtype"])
        made.append(layers.Bidirectional(layer, dtype=case["dtype"]) if case["bidirectional"] else layer)
    return made


def classifier(library, cell, case):
    """Embedding, recurrent layers, Dense; compiled with Adam."""
    layers, dtype = library.layers, case["dtype"]
    model = library.models.Sequential(
        [
            layers.Embedding(WORDS, case["inputs"], mask_zero=case["masked"], dtype=dtype),
            *recurrent_layers(layers, cell, case, all_steps=False),
            layers.Dense(CLASSES, dtype=dtype),
        ]
    )
    model.compile(optimizer="adam", loss=library.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def digits_model(library, cell, case):
    """The model of Keras's guide to recurrent networks: pictures read row by row."""
    layers, dtype = library.layers, case["dtype"]
    model = library.models.Sequential(
        [
            *recurrent_layers(layers, cell, case, all_steps=False),
            layers.BatchNormalization(dtype=dtype),
            layers.Dense(CLASSES, dtype=dtype),
        ]
    )
    model.compile(
        optimizer="sgd",
        loss=library.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model
