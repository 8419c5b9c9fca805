"""Compiling ahead of time: ``python -m numbarnn warmup`` fills the kernel cache, so that no later process compiles.

Kernels are compiled by running what needs them: small models, for one training step and one prediction each.
"""

import time

import numpy as np

from . import backend, kernel_cache, layers, models

__all__ = ["CELLS", "DTYPES", "warm_up"]

CELLS = {
    "LSTM": (layers.LSTM, {}),
    "GRU": (layers.GRU, {}),
    "GRU-before": (layers.GRU, {"reset_after": False}),
    "SimpleRNN": (layers.SimpleRNN, {}),
}
DTYPES = ("float32", "float64")


def warm_up(cells=tuple(CELLS), dtypes=("float32",), tell=print):
    """Compile into the kernel cache what layers, losses and optimizers commonly need.

    That is: each cell with its own activations, forward and back, masked or not, whatever its other arguments;
    `Embedding`, `Dense` with ``relu``, ``sigmoid`` and ``softmax``, `BatchNormalization`, `LayerNormalization`; the
    cross-entropies; the optimizers SGD, RMSprop, Adam and AdamW. What is in the cache already is left as it is. Other
    activations of cells, other optimizers and `Model.stepper` compile when they are first used.

    Parameters
    ----------
    cells : sequence of str
        Names in `CELLS`; ``"GRU-before"`` is ``GRU(reset_after=False)``.
    dtypes : sequence of str
        Of ``"float32"``, ``"float64"``.
    tell : callable
        Called with a line for each part that is done.

    Returns
    -------
    compiled, kept : int
        How many kernels were compiled, and how many of them are on disk now.
    folders : list of str
        Where the kernels lie.

    Raises
    ------
    ValueError
        For a cell or dtype that is not listed above.
    """
    for argument, given, known in (("cells", cells, tuple(CELLS)), ("dtypes", dtypes, DTYPES)):
        for name in given:
            if name not in known:
                raise ValueError(f"warm_up: {argument} must be of {known}; got {name!r}")
    progress = kernel_cache.progress
    progress.told = True  # lines of our own say so
    before = progress.kernels, progress.kept
    floatx = backend.floatx()
    try:
        for dtype in dtypes:
            backend.set_floatx(dtype)
            parts = [(name, lambda name=name: _run_cell(name)) for name in cells]
            for name, part in [*parts, ("other layers, losses, optimizers", _run_others)]:
                start, kernels = time.perf_counter(), progress.kernels
                part()
                seconds = time.perf_counter() - start
                tell(f"{f'{name}, {dtype}:':<45} {progress.kernels - kernels:3d} kernels compiled, {seconds:5.1f} s")
    finally:
        backend.set_floatx(floatx)
    return progress.kernels - before[0], progress.kept - before[1], sorted(map(str, progress.folders))


def _train(model, x, y, **options):
    model.compile(**options)
    model.train_on_batch(x, y)
    model.predict(x, verbose=0)


def _run_cell(name):
    """Masked sequences through two layers, then wide ones."""
    layer, options = CELLS[name]
    ids = np.tile(np.arange(6) % 5, (4, 1))
    first, second = layer(3, return_sequences=True, dropout=0.5, **options), layer(3, **options)
    _train(
        models.Sequential([layers.Embedding(5, 3, mask_zero=True), first, second, layers.Dense(1)]),
        ids, np.zeros((4, 1)), optimizer="adam", loss="mse",
    )  # fmt: skip
    x = np.zeros((64, 2, 64), backend.floatx())
    _train(models.Sequential([layer(64, **options), layers.Dense(1)]), x, x[:, 0, :1], optimizer="adam", loss="mse")


def _run_others():
    """Whatever stands around recurrent layers, in matrices small and large."""
    for size in (4, 256):
        x = np.linspace(-1, 1, size * size, dtype=backend.floatx()).reshape(size, size)
        for optimizer, loss, activation, y in (
            ("sgd", "sparse_categorical_crossentropy", "softmax", np.arange(size) % 3),
            ("rmsprop", "categorical_crossentropy", "softmax", np.eye(3, dtype=x.dtype)[np.arange(size) % 3]),
            ("adam", "binary_crossentropy", "sigmoid", np.zeros((size, 3), x.dtype)),
            ("adamw", "mse", "relu", np.zeros((size, 3), x.dtype)),
        ):
            normalizations = [layers.BatchNormalization(), layers.LayerNormalization()]
            hidden = layers.Dense(size, activation="relu")
            model = models.Sequential([hidden, *normalizations, layers.Dense(3, activation=activation)])
            _train(model, x, y, optimizer=optimizer, loss=loss, metrics=["accuracy"])
