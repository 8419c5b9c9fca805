"""Operations on arrays, under Keras's names, each with its gradient.

Called on arrays they compute with NumPy; while a function is traced, or on symbolic tensors, they record (see
`numbarnn.graph`). The ``np.`` functions that have an entry here do the same when they meet a symbolic tensor or a
variable: ``np.exp(t)``, ``np.concatenate([a, b])``, ``t @ w``, ``t[:, -1]``, ``t.sum(axis=0)``.

A new operation is one entry: how to compute it on arrays, what shape and dtype come out, and its gradient written in
operations. See the tables in ``elementwise.py``.
"""
# ruff: noqa: F403

from ..arrays import array_module
from . import elementwise, indexing, linalg, nn, numpy_names, reduction, shaping
from .elementwise import *
from .indexing import *
from .linalg import *
from .nn import *
from .reduction import *
from .shaping import *

__all__ = [
    "array_module",
    *(name for module in (elementwise, indexing, linalg, nn, reduction, shaping) for name in module.__all__),
]

numpy_names.install({name: globals()[name] for name in __all__})
