"""Operations on arrays, under Keras's names, each with its gradient.

Called on arrays they compute with NumPy; while a function is traced, or on symbolic tensors, they record (see `numbarnn.graph`). The
``np.`` functions that have an entry here do the same when they meet a symbolic tensor or a variable: ``np.exp(t)``, ``np.concatenate([a,
b])``, ``t @ w``, ``t[:, -1]``, ``t.sum(axis=0)``.

A new operation is one entry: how to compute it on arrays, what shape and dtype come out, and its gradient written in operations. See the
tables in ``elementwise.py``.
"""
# ruff: noqa: F401

from . import numpy_names
from ._inference import array_module
from .elementwise import (
    abs, absolute, add, arctan, arctan2, astype, bitwise_and, bitwise_or, bitwise_xor, cast, ceil, clip, convert_to_numpy,
    convert_to_tensor, copy, cos, cosh, divide, equal, exp, exp2, expm1, floor, floor_divide, greater, greater_equal, identity, invert,
    isfinite, isinf, isnan, less, less_equal, log, log1p, log2, log10, logaddexp, logical_and, logical_not, logical_or, logical_xor,
    maximum, minimum, mod, multiply, negative, not_equal, power, reciprocal, rint, sign, sin, sinh, sqrt, square, stop_gradient, subtract,
    tan, tanh, true_divide, where,
)  # fmt: skip
from .indexing import (
    arange, eye, full, full_like, getitem, one_hot, ones, ones_like, take, take_along_axis, zeros, zeros_like,
)  # fmt: skip
from .linalg import dot, einsum, matmul, outer, tensordot
from .nn import (
    elu, erf, gelu, hard_sigmoid, leaky_relu, log_sigmoid, log_softmax, relu, relu6, selu, sigmoid, silu, softmax, softplus, softsign, swish,
)  # fmt: skip
from .reduction import all, any, argmax, argmin, cumsum, logsumexp, max, mean, min, moments, prod, std, sum, var
from .shaping import (
    broadcast_like, broadcast_to, concatenate, expand_dims, flip, moveaxis, pad, ravel, repeat, reshape, roll, shape, size, split, squeeze, stack, swapaxes,
    tile, transpose,
)  # fmt: skip


numpy_names.install(globals())
__all__ = ["array_module", *sorted(name for name, value in globals().items() if not name.startswith("_") and numpy_names.is_operation(value))]
