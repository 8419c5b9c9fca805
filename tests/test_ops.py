"""Every operation: value, dtype and shape in three modes, gradients, NumPy's spelling, and what is refused."""

import types

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from scipy import special

from numbarnn import cuda, gemm, ops
from numbarnn.graph import Spec, abstract, evaluate, trace
from numbarnn.jit import kernel_array
from numbarnn.protocols import TracedValueError
from numbarnn.symbolic import Tensor
from numbarnn.variable import Variable

RNG = np.random.default_rng(7)


def draw(*shape, low=-2.0, high=2.0):
    return RNG.uniform(low, high, shape)


A, B, ROW, CUBE = draw(3, 4), draw(3, 4), draw(4), draw(2, 3, 4)
POSITIVE, UNIT = draw(3, 4, low=0.2, high=2.0), draw(3, 4, low=-0.9, high=0.9)
INDEX = np.array([[0, 2], [2, 2]])
KEEP = A > 0


def case(name, ours, numpy, *arrays, oracle=None, differentiable=True):
    """One line of the table: an expression in ops, the same in NumPy, float64 inputs, and the same for autograd."""
    return pytest.param(ours, numpy, oracle, arrays, differentiable, id=name)


def both(name, expression, *arrays, differentiable=True):
    """An expression whose NumPy spelling is the operation's: given ``f(module, *arrays)``."""
    return case(
        name, lambda *x: expression(ops, *x), lambda *x: expression(np, *x), *arrays,
        oracle=lambda *x: expression(anp, *x), differentiable=differentiable,
    )  # fmt: skip


TABLE = [
    # arithmetic and broadcasting
    *[
        both(n, lambda m, a, b, n=n: getattr(m, n)(a, b), A, B)
        for n in ("add", "subtract", "multiply", "maximum", "minimum")
    ],
    *[
        both(f"{n}_row", lambda m, a, b, n=n: getattr(m, n)(a, b), A, ROW)
        for n in ("add", "subtract", "multiply", "maximum")
    ],
    both("column", lambda m, a, b: m.multiply(a, b), A, draw(3, 1)),
    both("new_axes", lambda m, a, b: m.add(a, b), ROW, CUBE),
    both("outer_broadcast", lambda m, a, b: m.multiply(a, b), draw(3, 1), draw(1, 4)),
    both("divide", lambda m, a, b: m.divide(a, b), A, POSITIVE),
    both("power", lambda m, a, b: m.power(a, b), POSITIVE, B),
    both("power_row", lambda m, a, b: m.power(a, b), POSITIVE, ROW),
    both("square_by_power", lambda m, a: m.power(a, 2), A),
    both("power_of_number", lambda m, a: m.power(2.0, a), A),
    both("logaddexp", lambda m, a, b: m.logaddexp(a, b), A, B),
    both("arctan2", lambda m, a, b: m.arctan2(a, b), A, POSITIVE),
    case("mod", ops.mod, np.mod, A, POSITIVE),
    case("floor_divide", ops.floor_divide, np.floor_divide, A, POSITIVE, differentiable=False),
    *[
        both(n, lambda m, a, n=n: getattr(m, n)(a), A)
        for n in ("negative", "abs", "exp", "expm1", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh", "square")
    ],
    *[
        both(n, lambda m, a, n=n: getattr(m, n)(a), POSITIVE)
        for n in ("log", "log1p", "log2", "log10", "sqrt", "reciprocal")
    ],
    *[case(n, getattr(ops, n), getattr(np, n), A, differentiable=False) for n in ("floor", "ceil", "rint", "sign")],
    case("exp2", ops.exp2, np.exp2, A),
    *[both(n, lambda m, a, n=n: getattr(m, n)(a), UNIT) for n in ("arcsin", "arccos", "arctanh", "arcsinh")],
    both("arccosh", lambda m, a: m.arccosh(a), 1 + POSITIVE),
    case("rsqrt", ops.rsqrt, lambda a: 1 / np.sqrt(a), POSITIVE),
    case("trunc", ops.trunc, np.trunc, A, differentiable=False),
    case("round", lambda a: ops.round(a, 1), lambda a: np.round(a, 1), A, differentiable=False),
    case("nan_to_num", ops.nan_to_num, np.nan_to_num, A),
    *[
        case(
            f"isclose{nan}",
            lambda a, b, nan=nan: ops.isclose(a, b, 1e-3, equal_nan=nan),
            lambda a, b, nan=nan: np.isclose(a, b, 1e-3, equal_nan=nan),
            np.array([1, 1, np.nan, np.inf, np.inf, 1.0]),
            np.array([1.0009, 1.002, np.nan, np.inf, -np.inf, np.inf]),
            differentiable=False,
        )
        for nan in (False, True)
    ],
    both("mixed", lambda m, a, b: m.exp(m.negative(a)) * b + 2.0 * a - 1 / (3.0 + b), UNIT, UNIT),
    # choices
    case(
        "where",
        lambda a, b: ops.where(KEEP, a, b),
        lambda a, b: np.where(KEEP, a, b),
        A,
        B,
        oracle=lambda a, b: anp.where(KEEP, a, b),
    ),
    case("where_row", lambda a, b: ops.where(KEEP, a, b), lambda a, b: np.where(KEEP, a, b), ROW, draw(3, 1)),
    case("where_number", lambda a: ops.where(a > 0, a, 0.5), lambda a: np.where(a > 0, a, 0.5), A),
    both("clip", lambda m, a: m.clip(a, -0.5, 1.0), A),
    case("clip_below", lambda a: ops.clip(a, x_min=0.1), lambda a: np.clip(a, 0.1, None), A),
    *[
        case(n, getattr(ops, n), getattr(np, n), A.round(), B.round(), differentiable=False)
        for n in (
            "equal",
            "not_equal",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
            "logical_and",
            "logical_or",
            "logical_xor",
        )
    ],
    *[
        case(n, getattr(ops, n), getattr(np, n), A, differentiable=False)
        for n in ("logical_not", "isfinite", "isnan", "isinf")
    ],
    # reductions
    *[
        both(
            f"{n}_{axis}_{keep}",
            lambda m, a, n=n, axis=axis, keep=keep: getattr(m, n)(a, axis=axis, keepdims=keep),
            CUBE,
        )
        for n in ("sum", "mean", "max", "min", "var", "std", "prod")
        for axis, keep in ((None, False), (1, False), (-1, True), ((0, 2), False))
        if not (n == "prod" and axis == (0, 2))
    ],
    case("prod_two_axes", lambda a: ops.prod(a, axis=(0, 2)), lambda a: np.prod(a, axis=(0, 2)), CUBE),
    case(
        "prod_of_zeros",
        lambda a: ops.prod(a, axis=1),
        lambda a: np.prod(a, axis=1),
        np.array([[0.0, 2, 3], [0, 0, 4], [1, 2, 3]]),
    ),
    case("logsumexp", lambda a: ops.logsumexp(a, axis=1), lambda a: special.logsumexp(a, axis=1), A),
    case("moments", lambda a: ops.moments(a, [0, 1]), lambda a: (a.mean((0, 1)), a.var((0, 1))), CUBE),
    case("cumprod", lambda a: ops.cumprod(a, axis=1), lambda a: np.cumprod(a, axis=1), CUBE),
    case(
        "cumprod_of_zeros",
        lambda a: ops.cumprod(a),
        lambda a: np.cumprod(a),
        np.array([[2.0, 0, 3], [0, 1, 4]]),
    ),
    case("sort", lambda a: ops.sort(a, axis=1), lambda a: np.sort(a, axis=1), CUBE),
    case("sort_flat", lambda a: ops.sort(a, axis=None), lambda a: np.sort(a, axis=None), A),
    case("argsort", lambda a: ops.argsort(a, axis=0), lambda a: np.argsort(a, axis=0), A, differentiable=False),
    case("top_k", lambda a: ops.top_k(a, 2)[0], lambda a: np.sort(a, -1)[..., :-3:-1], CUBE),
    case(
        "top_k_places",
        lambda a: ops.top_k(a.round(), 2)[1] if isinstance(a, np.ndarray) else ops.top_k(ops.round(a), 2)[1],
        lambda a: np.argsort(-a.round(), -1, kind="stable")[..., :2],
        CUBE,
        differentiable=False,
    ),
    both("diff", lambda m, a: m.diff(a, axis=1), CUBE),
    case("diff_twice", lambda a: ops.diff(a, 2), lambda a: np.diff(a, 2), A),
    case("average", lambda a, w: ops.average(a, 1, w), lambda a, w: np.average(a, 1, w), A, POSITIVE[0]),
    case("average_each", lambda a, w: ops.average(a, weights=w), lambda a, w: np.average(a, weights=w), A, POSITIVE),
    case("average_plain", lambda a: ops.average(a, axis=0), lambda a: np.average(a, axis=0), A),
    *[case(n, getattr(ops, n), getattr(np, n), A) for n in ("amax", "amin")],
    case(
        "count_nonzero",
        lambda a: ops.count_nonzero(a > 0, 1),
        lambda a: np.count_nonzero(a > 0, 1),
        A,
        differentiable=False,
    ),
    *[
        case(
            f"norm_{order}",
            lambda a, order=order: ops.norm(a, ord=order, axis=-1, keepdims=True),
            lambda a, order=order: np.linalg.norm(a, ord=order, axis=-1, keepdims=True),
            CUBE,
        )
        for order in (None, 1, 2, 3, np.inf, -np.inf)
    ],
    case("norm_all", lambda a: ops.norm(a), lambda a: np.linalg.norm(a), CUBE),
    case("norm_matrices", lambda a: ops.norm(a, axis=(1, 2)), lambda a: np.linalg.norm(a, axis=(1, 2)), CUBE),
    both("cumsum", lambda m, a: m.cumsum(a, axis=1), CUBE),
    both("cumsum_flat", lambda m, a: m.cumsum(a), A),
    *[
        case(
            n,
            lambda a, n=n: getattr(ops, n)(a, axis=1),
            lambda a, n=n: getattr(np, n)(a, axis=1),
            A,
            differentiable=False,
        )
        for n in ("argmax", "argmin")
    ],
    *[
        case(
            n,
            lambda a, n=n: getattr(ops, n)(a > 0, axis=0),
            lambda a, n=n: getattr(np, n)(a > 0, axis=0),
            A,
            differentiable=False,
        )
        for n in ("any", "all")
    ],
    # products
    both("matmul", lambda m, a, b: m.matmul(a, b), draw(3, 4), draw(4, 5)),
    both("matmul_rank3", lambda m, a, b: m.matmul(a, b), CUBE, draw(4, 5)),
    both("matmul_stack", lambda m, a, b: m.matmul(a, b), draw(2, 3, 4), draw(2, 4, 5)),
    both("matmul_stack_broadcast", lambda m, a, b: m.matmul(a, b), draw(5, 1, 3, 4), draw(2, 4, 3)),
    both("matmul_matrix_stack", lambda m, a, b: m.matmul(a, b), draw(3, 4), draw(2, 4, 5)),
    both("matvec", lambda m, a, b: m.matmul(a, b), A, ROW),
    both("vecmat", lambda m, a, b: m.matmul(a, b), draw(3), A),
    both("vecvec", lambda m, a, b: m.matmul(a, b), ROW, draw(4)),
    both("dot", lambda m, a, b: m.dot(a, b), A, draw(4, 2)),
    both("dot_rank3", lambda m, a, b: m.dot(a, b), CUBE, draw(2, 4, 5)),
    both("gram", lambda m, a: m.matmul(m.transpose(a), a), A),
    both("tensordot", lambda m, a, b: m.tensordot(a, b, axes=2), CUBE, draw(3, 4, 5)),
    both("tensordot_axes", lambda m, a, b: m.tensordot(a, b, axes=((0, 2), (1, 0))), CUBE, draw(4, 2, 5)),
    case("outer", ops.outer, np.outer, ROW, draw(3)),
    both("inner", lambda m, a, b: m.inner(a, b), CUBE, draw(5, 4)),
    case("vdot", ops.vdot, np.vdot, A, draw(4, 3)),
    both("trace", lambda m, a: m.trace(a), A),
    case("trace_axes", lambda a: ops.trace(a, 1, 2, 1), lambda a: np.trace(a, 1, 2, 1), CUBE),
    *[
        both(f"einsum {s}", lambda m, *x, s=s: m.einsum(s, *x), *operands)
        for s, operands in (
            ("bi,ij->bj", (A, draw(4, 5))),
            ("bij,ijkl->bkl", (CUBE, draw(3, 4, 2, 5))),
            ("bij,bjk->bik", (CUBE, draw(2, 4, 5))),
            ("bi,bi->b", (A, B)),
            ("ij->ji", (A,)),
            ("ij->", (A,)),
            ("ij,kj", (A, draw(2, 4))),
            ("i,j->ij", (ROW, draw(3))),
            ("bi,ij,jk->bk", (A, draw(4, 5), draw(5, 2))),
            ("ij,ij->ij", (A, B)),
            ("ia,jb->ij", (A, B)),
        )
    ],
    case(
        "einsum ellipsis",
        lambda a, b: ops.einsum("...i,ij->...j", a, b),
        lambda a, b: np.einsum("...i,ij->...j", a, b),
        CUBE,
        draw(4, 5),
    ),
    # shape
    both("reshape", lambda m, a: m.reshape(a, (2, -1)), CUBE),
    both("transpose", lambda m, a: m.transpose(a, (2, 0, 1)), CUBE),
    both("transpose_all", lambda m, a: m.transpose(a), CUBE),
    both("swapaxes", lambda m, a: m.swapaxes(a, 0, -1), CUBE),
    both("moveaxis", lambda m, a: m.moveaxis(a, 0, -1), CUBE),
    case("moveaxis_two", lambda a: ops.moveaxis(a, (0, 1), (2, 0)), lambda a: np.moveaxis(a, (0, 1), (2, 0)), CUBE),
    both("expand_dims", lambda m, a: m.expand_dims(a, 1), A),
    case("expand_two", lambda a: ops.expand_dims(a, (0, -1)), lambda a: np.expand_dims(a, (0, -1)), A),
    both("squeeze", lambda m, a: m.squeeze(a, 1), draw(3, 1, 2)),
    case("squeeze_all", lambda a: ops.squeeze(a), lambda a: np.squeeze(a), draw(1, 3, 1)),
    case("broadcast_to", lambda a: ops.broadcast_to(a, (2, 3, 4)), lambda a: np.broadcast_to(a, (2, 3, 4)), draw(3, 1)),
    case("flip", lambda a: ops.flip(a, 1), lambda a: np.flip(a, 1), A),
    both("roll", lambda m, a: m.roll(a, 1, 1), A),
    case("roll_flat", lambda a: ops.roll(a, 2), lambda a: np.roll(a, 2), A),
    case("ravel", ops.ravel, np.ravel, A),
    both("concatenate", lambda m, a, b: m.concatenate([a, b], axis=1), A, draw(3, 2)),
    both("concatenate_negative", lambda m, a, b: m.concatenate([a, 2 * b, a], axis=-2), A, draw(2, 4)),
    case("concatenate_array", lambda a: ops.concatenate([a, KEEP], 0), lambda a: np.concatenate([a, KEEP], 0), A),
    both("stack", lambda m, a, b: m.stack([a, b, a], axis=1), A, B),
    case("split", lambda a: ops.split(a, 2, axis=1), lambda a: np.split(a, 2, axis=1), A),
    case("split_at", lambda a: ops.split(a, [1, 3], axis=-1)[1], lambda a: np.split(a, [1, 3], axis=-1)[1], A),
    case(
        "pad_with",
        lambda a: ops.pad(a, 1, "constant", 2.0),
        lambda a: np.pad(a, 1, constant_values=2.0),
        A,
    ),
    case("pad", lambda a: ops.pad(a, ((1, 0), (2, 3))), lambda a: np.pad(a, ((1, 0), (2, 3))), A),
    case("vstack", lambda a, b: ops.vstack([a, b]), lambda a, b: np.vstack([a, b]), A, ROW),
    case("hstack", lambda a, b: ops.hstack([a, b]), lambda a, b: np.hstack([a, b]), A, draw(3, 1)),
    case("unstack", lambda a: ops.unstack(a, axis=1), lambda a: list(np.moveaxis(a, 1, 0)), CUBE),
    *[
        case(f"{n}_{k}", lambda a, n=n, k=k: getattr(ops, n)(a, k), lambda a, n=n, k=k: getattr(np, n)(a, k), CUBE)
        for n in ("tril", "triu")
        for k in (0, 1, -1)
    ],
    *[
        case(f"{n}_{k}", lambda a, n=n, k=k: getattr(ops, n)(a, k), lambda a, n=n, k=k: getattr(np, n)(a, k), A)
        for n in ("diagonal", "diag")
        for k in (0, 2, -1, 5)
    ],
    *[case(f"diag_of_{k}", lambda a, k=k: ops.diag(a, k), lambda a, k=k: np.diag(a, k), ROW) for k in (0, 2, -1)],
    both("repeat", lambda m, a: m.repeat(a, 3, axis=1), A),
    both("tile", lambda m, a: m.tile(a, (2, 1, 2)), A),
    # places
    *[
        both(f"getitem {label}", lambda m, a, key=key: a[key], CUBE)
        for label, key in {
            "int": 1,
            "negative": -1,
            "last": (..., -1),
            "slice": (slice(None), slice(1, 3)),
            "step": (slice(None, None, -2),),
            "none": (None, 0, ..., None),
            "mixed": (0, slice(1), slice(None, None, 2)),
            "array": INDEX % 2,
            "list": ([0, 1, 1],),
            "array_axis": (slice(None), INDEX),
            "two_arrays": (INDEX % 2, INDEX),
            "array_int": (slice(None), INDEX, 1),
            "apart": (INDEX % 2, slice(None), INDEX),
            "mask": CUBE > 0,
            "empty": slice(0, 0),
            "all": (),
        }.items()
    ],  # fmt: skip
    case("take", lambda a: ops.take(a, INDEX, axis=1), lambda a: np.take(a, INDEX, axis=1), CUBE),
    case("take_flat", lambda a: ops.take(a, INDEX), lambda a: np.take(a, INDEX), A),
    case(
        "take_along_axis",
        lambda a: ops.take_along_axis(a, INDEX[:, :1, None] % 4),
        lambda a: np.take_along_axis(a, INDEX[:, :1, None] % 4, -1),
        draw(2, 1, 4),
    ),
    case(
        "slice_update",
        lambda a, b: ops.slice_update(a, (1, 0), b),
        lambda a, b: np.vstack([a[:1], np.hstack([b, a[1:, 2:]])]),
        A,
        draw(2, 2),
    ),
    # activations
    case("sigmoid", ops.sigmoid, special.expit, A, oracle=lambda a: 1 / (1 + anp.exp(-a))),
    case("relu", ops.relu, lambda a: np.maximum(a, 0), A),
    case("softplus", ops.softplus, lambda a: np.logaddexp(a, 0), A),
    case("softsign", ops.softsign, lambda a: a / (1 + abs(a)), A),
    case("hard_sigmoid", ops.hard_sigmoid, lambda a: np.clip(a / 6 + 0.5, 0, 1), 3 * A),
    case("elu", ops.elu, lambda a: np.where(a > 0, a, np.expm1(a)), A),
    case("elu_alpha", lambda a: ops.elu(a, 0.3), lambda a: np.where(a > 0, a, 0.3 * np.expm1(a)), A),
    case("selu", ops.selu, lambda a: 1.0507009873554805 * np.where(a > 0, a, 1.6732632423543772 * np.expm1(a)), A),
    case("silu", ops.silu, lambda a: a * special.expit(a), A),
    case("gelu", ops.gelu, lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))), A),
    case("gelu_exact", lambda a: ops.gelu(a, approximate=False), lambda a: a * special.ndtr(a), A),
    case("leaky_relu", ops.leaky_relu, lambda a: np.where(a > 0, a, 0.2 * a), A),
    case("relu6", ops.relu6, lambda a: np.clip(a, 0, 6), 5 * A),
    case("log_sigmoid", ops.log_sigmoid, special.log_expit, A),
    case("erf", ops.erf, special.erf, A),
    case("normalize", ops.normalize, lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True), CUBE),
    case(
        "normalize_order",
        lambda a: ops.normalize(a, axis=1, order=1),
        lambda a: a / np.abs(a).sum(1, keepdims=True),
        CUBE,
    ),
    case("softmax", ops.softmax, lambda a: special.softmax(a, -1), CUBE),
    case("softmax_axes", lambda a: ops.softmax(a, axis=(0, 1)), lambda a: special.softmax(a, (0, 1)), CUBE),
    case("log_softmax", lambda a: ops.log_softmax(a, axis=1), lambda a: special.log_softmax(a, 1), CUBE),
    # others
    case("cast", lambda a: ops.cast(a, "float32"), lambda a: a.astype("float32"), A, differentiable=False),
    case("copy", ops.copy, np.copy, A),
    case("stop_gradient", lambda a: a * ops.stop_gradient(a), lambda a: a * a, A, differentiable=False),
    case("zeros_like", lambda a: ops.zeros_like(a) + a, lambda a: a, A),
    case(
        "full_like",
        lambda a: ops.full_like(a, 3.0) + ops.ones_like(a),
        lambda a: np.full_like(a, 4.0),
        A,
        differentiable=False,
    ),
]


def leaves(x):
    return list(x) if isinstance(x, (tuple, list)) else [x]


def check(got, expected):
    got, expected = leaves(got), leaves(expected)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert isinstance(a, (np.ndarray, np.generic))
        assert np.shape(a) == np.shape(b) and a.dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("ours, numpy, oracle, arrays, differentiable", TABLE)
def test_value_and_gradient(ours, numpy, oracle, arrays, differentiable):
    expected = numpy(*arrays)
    before = [a.copy() for a in arrays]
    check(ours(*arrays), expected)  # eager

    program = trace(lambda *x: ours(*x), [Spec(a.shape, a.dtype) for a in arrays])  # a program
    check(program(*arrays), expected)
    for tensor, value in zip(program.outputs, leaves(expected), strict=True):
        known = [n if n is not None else m for n, m in zip(tensor.shape, np.shape(value), strict=True)]
        assert tuple(known) == np.shape(value) and tensor.dtype == value.dtype

    inputs = [Tensor(Spec(a.shape, a.dtype)) for a in arrays]  # a functional graph
    outputs = ours(*inputs)
    check(evaluate(outputs, inputs, arrays), expected)

    variables = [Variable(a) for a in arrays]  # variables, read in a program that has no inputs, and eagerly
    check(trace(lambda: ours(*variables), ())(), expected)
    check(ours(*variables), expected)

    if differentiable:
        check_gradient(program, ours, oracle, arrays)
    for a, b in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(a, b)  # no operation writes to its input


def check_gradient(program, ours, oracle, arrays):
    rng = np.random.default_rng(3)
    wanted = list(range(len(program.outputs)))
    forward, backward = program.linearize(wanted, program.inputs)
    _, residuals = forward(*arrays)
    weights = [rng.normal(size=np.shape(y)) for y in leaves(ours(*arrays))]
    gradients = backward(residuals, weights)

    def value(*x):
        return sum(float(np.sum(w * y)) for w, y in zip(weights, leaves(ours(*x)), strict=True))

    for i, (gradient, array) in enumerate(zip(gradients, arrays, strict=True)):
        assert gradient.shape == array.shape and gradient.dtype == array.dtype
        for _ in range(2):
            direction = rng.normal(size=array.shape)
            step = 1e-6 * direction
            moved = [[a + s * step if j == i else a for j, a in enumerate(arrays)] for s in (1, -1)]
            slope = (value(*moved[0]) - value(*moved[1])) / 2e-6
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-7, atol=2e-8)
    if oracle is not None:

        def total(*x):
            return sum(anp.sum(w * y) for w, y in zip(weights, leaves(oracle(*x)), strict=True))

        for i, gradient in enumerate(gradients):
            np.testing.assert_allclose(gradient, autograd.grad(total, i)(*arrays), rtol=1e-11, atol=1e-12)


FLOAT32 = [p for p in TABLE if p.id not in ("cast",)]


@pytest.mark.parametrize("ours, numpy, oracle, arrays, differentiable", FLOAT32)
def test_float32_stays_float32(ours, numpy, oracle, arrays, differentiable):
    arrays = [a.astype("float32") for a in arrays]
    program = trace(lambda *x: ours(*x), [Spec(a.shape, a.dtype) for a in arrays])
    results = leaves(program(*arrays))
    for tensor, value in zip(program.outputs, results, strict=True):
        assert value.dtype == tensor.dtype
        assert value.dtype != np.float64
    if differentiable:
        forward, backward = program.linearize(list(range(len(results))), program.inputs)
        residuals = forward(*arrays)[1]
        for gradient in backward(residuals, [np.ones_like(y) for y in results]):
            assert gradient.dtype == np.float32


SPELLINGS = {
    "np.exp(t)": lambda t: np.exp(t),
    "np.add(array, t)": lambda t: np.add(A, t),
    "array * t": lambda t: A * t,
    "np.float64 * t": lambda t: np.float64(2) * t,
    "2 - t": lambda t: 2 - t,
    "t / 2": lambda t: t / 2,
    "1 / t": lambda t: 1 / t,
    "t ** 2": lambda t: t**2,
    "-t": lambda t: -t,
    "abs(t)": lambda t: abs(t),
    "t > 0": lambda t: t > 0,
    "(t > 0) & (t < 1)": lambda t: (t > 0) & (t < 1),
    "~(t > 0)": lambda t: ~(t > 0),
    "t == t": lambda t: t == t,
    "t % 2": lambda t: t % 2,
    "t // 2": lambda t: t // 2,
    "t @ array": lambda t: t @ B.T,
    "array @ t": lambda t: B.T @ t,
    "t += 1": lambda t: __import__("operator").iadd(t * 1, 1),
    "np.sum(t, axis)": lambda t: np.sum(t, 1),
    "np.sum(t, axis=, keepdims=)": lambda t: np.sum(t, axis=0, keepdims=True),
    "np.sum(t, dtype=)": lambda t: np.sum(t, dtype="float32"),
    "np.mean": lambda t: np.mean(t, axis=(0, 1)),
    "np.max": lambda t: np.max(t, axis=-1),
    "np.var": lambda t: np.var(t, axis=0),
    "np.std": lambda t: np.std(t),
    "np.prod": lambda t: np.prod(t, axis=1),
    "np.any": lambda t: np.any(t > 1, axis=0),
    "np.argmax": lambda t: np.argmax(t, axis=1),
    "np.argmin": lambda t: np.argmin(t),
    "np.cumsum": lambda t: np.cumsum(t, axis=0),
    "np.cumprod": lambda t: np.cumprod(t, axis=0),
    "np.sort": lambda t: np.sort(t),
    "np.argsort": lambda t: np.argsort(t, axis=0),
    "np.diff": lambda t: np.diff(t, axis=0),
    "np.average": lambda t: np.average(t, axis=0, weights=[1.0, 2.0, 3.0]),
    "np.count_nonzero": lambda t: np.count_nonzero(t > 0, axis=0),
    "np.linalg.norm": lambda t: np.linalg.norm(t, axis=1),
    "np.round": lambda t: np.round(t, 2),
    "np.nan_to_num": lambda t: np.nan_to_num(t),
    "np.isclose": lambda t: np.isclose(t, A + 1e-9),
    "np.inner, np.vdot": lambda t: np.inner(t, A) + np.vdot(t, A),
    "np.trace": lambda t: np.trace(t),
    "np.tril, np.triu": lambda t: np.tril(t) - np.triu(t, 1),
    "np.diagonal, np.diag": lambda t: np.diagonal(t) + np.diag(t) + np.diag(t[0, :3]).sum(0),
    "np.arcsinh, np.arctan": lambda t: np.arcsinh(t) + np.arctan(t),
    "np.trunc": lambda t: np.trunc(t),
    "np.amax, np.amin": lambda t: np.amax(t, 0) - np.amin(t, 0),
    "np.add.reduce": lambda t: np.add.reduce(t),
    "np.maximum.reduce": lambda t: np.maximum.reduce(t, axis=1),
    "np.concatenate": lambda t: np.concatenate([t, A]),
    "np.concatenate axis": lambda t: np.concatenate((A, t, t), axis=1),
    "np.concatenate None": lambda t: np.concatenate((A, t), axis=None),
    "np.stack": lambda t: np.stack([t, A], axis=-1),
    "np.vstack": lambda t: np.vstack([t, t]),
    "np.hstack": lambda t: np.hstack([t, t]),
    "np.split": lambda t: np.split(t, 2, axis=1)[0],
    "np.where": lambda t: np.where(t > 0, t, 0.0),
    "np.where array": lambda t: np.where(KEEP, t, A),
    "np.clip": lambda t: np.clip(t, -1, 1),
    "np.clip min=": lambda t: np.clip(t, min=-1.0, max=None),
    "np.dot": lambda t: np.dot(t, B.T),
    "np.matmul": lambda t: np.matmul(B.T, t),
    "np.tensordot": lambda t: np.tensordot(t, B, axes=((0,), (0,))),
    "np.einsum": lambda t: np.einsum("ij,kj->ik", t, B),
    "np.outer": lambda t: np.outer(t, ROW),
    "np.transpose": lambda t: np.transpose(t),
    "np.reshape": lambda t: np.reshape(t, (4, 3)),
    "np.ravel": lambda t: np.ravel(t),
    "np.expand_dims": lambda t: np.expand_dims(t, 0),
    "np.squeeze": lambda t: np.squeeze(np.expand_dims(t, 0), 0),
    "np.swapaxes": lambda t: np.swapaxes(t, 0, 1),
    "np.moveaxis": lambda t: np.moveaxis(t, 0, 1),
    "np.broadcast_to": lambda t: np.broadcast_to(t, (2, 3, 4)),
    "np.flip": lambda t: np.flip(t),
    "np.roll": lambda t: np.roll(t, 1, axis=0),
    "np.take": lambda t: np.take(t, [0, 2], axis=0),
    "np.take_along_axis": lambda t: np.take_along_axis(t, np.argmax(A, 1)[:, None], 1),
    "np.pad": lambda t: np.pad(t, ((0, 1), (1, 0))),
    "np.repeat": lambda t: np.repeat(t, 2, axis=0),
    "np.tile": lambda t: np.tile(t, (2, 1)),
    "np.zeros_like": lambda t: np.zeros_like(t),
    "np.ones_like": lambda t: np.ones_like(t, dtype="float32"),
    "np.full_like": lambda t: np.full_like(t, 2.5),
    "np.copy": lambda t: np.copy(t),
    "np.shape": lambda t: np.zeros(np.shape(t)) + t,
    "np.ndim, np.size": lambda t: t * np.ndim(t) * np.size(t),
    "np.result_type": lambda t: t * (np.result_type(t, np.float32) == np.float64),
    "t.T": lambda t: t.T,
    "t[0], t[..., 0]": lambda t: t[0] + t[..., 0].sum(),
    "t[:, None]": lambda t: t[:, None],
    "t.sum, t.mean": lambda t: t.sum(axis=0) + t.mean(0),
    "t.max, t.min": lambda t: t.max(axis=0) - t.min(axis=0),
    "t.std, t.var": lambda t: t.std(axis=0) - t.var(axis=0),
    "t.reshape": lambda t: t.reshape(4, 3) + t.reshape((4, -1)),
    "t.transpose": lambda t: t.transpose(1, 0) + t.transpose((1, 0)) + t.transpose(),
    "t.astype": lambda t: t.astype("float32"),
    "t.ravel, t.flatten": lambda t: t.ravel() + t.flatten(),
    "t.squeeze, t.swapaxes": lambda t: t[None].squeeze(0).swapaxes(0, 1),
    "t.clip": lambda t: t.clip(-1, 1),
    "t.dot": lambda t: t.dot(B.T),
    "t.take": lambda t: t.take(np.array([0, 1]), axis=1),
    "t.argmax, any": lambda t: t.argmax(axis=0) + (t > 0).any(axis=0),
    "t.cumsum": lambda t: t.cumsum(axis=1),
    "t.copy": lambda t: t.copy(),
    "for row in t": lambda t: sum(row * i for i, row in enumerate(t)),
    "len(t)": lambda t: t * len(t) + t.size + t.ndim,
}  # fmt: skip


FLAT = ("np.zeros_like", "np.full_like", "t // 2", "np.round", "np.trunc")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_numpy_spelling(spelling):
    expression = SPELLINGS[spelling]
    expected = expression(A)
    program = trace(expression, (Spec(A.shape, A.dtype),))
    assert program.outputs[0].variable is None and program.steps or spelling == "t.copy"
    check(program(A), expected)
    tensor = Tensor(Spec(A.shape, A.dtype))
    check(evaluate(expression(tensor), tensor, A), expected)
    check(expression(Variable(A)), expected)
    variable = Variable(A)
    check(trace(lambda: expression(variable), ())(), expected)
    # and through NumPy's spelling the gradient is there, too
    if program.outputs[0].dtype == np.float64 and spelling not in (
        "np.zeros_like",
        "np.full_like",
        "t // 2",
        "np.round",
        "np.trunc",
    ):
        forward, backward = program.linearize(0, program.inputs)
        weights = np.random.default_rng(0).normal(size=np.shape(expected))
        (gradient,) = backward(forward(A)[1], weights)
        direction = np.random.default_rng(1).normal(size=A.shape)
        step = 1e-6 * direction
        slope = np.sum(weights * (expression(A + step) - expression(A - step))) / 2e-6
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, atol=1e-7)


REFUSED = {
    "function": (lambda t: np.linalg.svd(t), TypeError, r"test_ops.py:\d+: np.linalg.svd has no entry"),
    "ufunc": (lambda t: np.cbrt(t), TypeError, r"test_ops.py:\d+: np.cbrt has no entry"),
    "method of a ufunc": (lambda t: np.add.outer(t, t), TypeError, r"np.add.outer has no entry"),
    "argument": (lambda t: np.sum(t, where=KEEP), TypeError, r"np.sum with where= has no entry"),
    "ddof": (lambda t: np.var(t, ddof=1), TypeError, r"np.var with ddof= has no entry"),
    "where without choices": (lambda t: np.where(t > 0), TypeError, r"unknown length"),
    "asarray": (lambda t: np.asarray(t), TracedValueError, r"test_ops.py:\d+: Turning it into an array"),
    "np.array of a list": (lambda t: np.array([t, t]), TracedValueError, r"Turning it into an array"),
    "bool": (lambda t: 1 if t[0, 0] > 0 else 2, TracedValueError, r"test_ops.py:\d+: bool\(\).*ops.where"),
    "float": (lambda t: float(t[0, 0]), TracedValueError, r"float\(\)"),
    "int": (lambda t: int(t[0, 0]), TracedValueError, r"int\(\)"),
    "item": (lambda t: t.item(), TracedValueError, r"\.item\(\)"),
    "numpy": (lambda t: t.numpy(), TracedValueError, r"\.numpy\(\)"),
    "setitem": (lambda t: t.__setitem__(0, 0), TracedValueError, r"Item assignment.*ops.where"),
    "setitem on an array": (
        lambda t: np.zeros((3, 4)).__setitem__(0, t),
        TracedValueError,
        r"Turning it into an array",
    ),
    "in place on an array": (lambda t: np.zeros((3, 4)).__iadd__(t), TracedValueError, r"out="),
    "out of a ufunc": (lambda t: np.exp(t, out=np.zeros((3, 4))), TracedValueError, r"test_ops.py:\d+: np.exp.*out="),
    "out of a function": (lambda t: np.sum(t, out=np.zeros(())), TracedValueError, r"np.sum.*out="),
    "where of a ufunc": (lambda t: np.exp(t, where=KEEP), TracedValueError, r"np.exp.*where="),
    "np.random": (lambda t: np.random.normal(t), TypeError, r"Turning it into an array"),
    "shapes": (
        lambda t: t + np.zeros((2, 2)),
        ValueError,
        r"test_ops.py:\d+: shapes \(3, 4\), \(2, 2\) do not broadcast",
    ),
    "matmul shapes": (lambda t: t @ t, ValueError, r"test_ops.py:\d+: matmul: shapes"),
    "concatenate shapes": (lambda t: np.concatenate([t, np.zeros((2, 2))]), ValueError, r"concatenate: shapes"),
    "reshape": (lambda t: t.reshape(5, 5), ValueError, r"cannot be reshaped"),
    "reshape -1": (lambda t: t.reshape(-1, 5), ValueError, r"cannot be reshaped"),
    "axis": (lambda t: np.sum(t, axis=2), ValueError, r"axis 2 is out of range"),
    "index": (lambda t: t[3], IndexError, r"index 3 is out of range"),
    "indices": (lambda t: t[0, 0, 0], IndexError, r"3 indices for 2 axes"),
    "key": (lambda t: t["a"], IndexError, r"an index is an integer"),
    "float index": (lambda t: t[np.zeros(2)], IndexError, r"integers or booleans"),
    "split": (lambda t: np.split(t, 3, axis=1), ValueError, r"not 3 equal parts"),
    "squeeze": (lambda t: np.squeeze(t, 0), ValueError, r"has not length 1"),
    "einsum": (lambda t: np.einsum("ii", t @ B.T), ValueError, r"names an axis twice"),
    "einsum rank": (lambda t: np.einsum("ijk->k", t), ValueError, r"does not name the axes"),
    "one_hot": (lambda t: ops.one_hot(t, 3), TypeError, r"one_hot takes integers"),
    "top_k": (lambda t: ops.top_k(t, 5), ValueError, r"k=5 for an axis of length 4"),
    "unstack": (lambda t: ops.unstack(t, 4), ValueError, r"an axis of length 3, num=4"),
    "average": (lambda t: np.average(t, weights=ROW), ValueError, r"average: weights of shape \(4,\)"),
    "norm": (lambda t: np.linalg.norm(t, 1), ValueError, r"norm: ord=1 is for vectors"),
    "slice_update": (lambda t: ops.slice_update(t, (2, 0), B), IndexError, r"3 elements from 2 of an axis of length 3"),
    "slice_update rank": (lambda t: ops.slice_update(t, (2,), B), ValueError, r"1 starts and 2 lengths"),
    "diag": (lambda t: ops.diag(t[None]), ValueError, r"diag takes a vector or a matrix"),
    "take_along_axis": (lambda t: ops.take_along_axis(t, np.zeros(3, int)), ValueError, r"indices of shape \(3,\)"),
    "matmul scalar": (lambda t: ops.matmul(t, 2.0), ValueError, r"takes no scalars"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_with_the_line_and_the_way_out(what):
    expression, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        trace(expression, (Spec(A.shape, A.dtype),))


def test_eager_functions_without_an_entry_work_on_variables():
    variable = Variable(A)
    np.testing.assert_array_equal(np.linalg.norm(variable), np.linalg.norm(A))
    np.testing.assert_array_equal(np.cbrt(variable), np.cbrt(A))
    np.testing.assert_array_equal(np.sum(variable, where=KEEP), np.sum(A, where=KEEP))
    target = np.zeros_like(A)
    np.exp(variable, out=target)
    np.testing.assert_array_equal(target, np.exp(A))
    with pytest.raises(TypeError, match="read-only"):
        np.exp(A, out=variable)


@pytest.mark.parametrize(
    "function, shapes, expected",
    [
        (lambda a, b: a + b, [(None, 4), (4,)], (None, 4)),
        (lambda a, b: a + b, [(None, 4), (3, 4)], (3, 4)),
        (lambda a, b: a + b, [(None, 4), (1, 4)], (None, 4)),
        (lambda a, b: a @ b, [(None, None, 4), (4, 5)], (None, None, 5)),
        (lambda a: ops.reshape(a, (-1, 4)), [(None, 2, 4)], (None, 4)),
        (lambda a: ops.reshape(a, (a.shape[0], 8)), [(None, 2, 4)], (None, 8)),
        (lambda a: a.mean(axis=1), [(None, None, 4)], (None, 4)),
        (lambda a: a[:, -1], [(None, None, 4)], (None, 4)),
        (lambda a: a[:, 1:], [(None, None, 4)], (None, None, 4)),
        (lambda a: a[:, :, :2], [(None, None, 4)], (None, None, 2)),
        (lambda a, b: np.concatenate([a, b], axis=-1), [(None, 3), (None, 4)], (None, 7)),
        (lambda a, b: np.concatenate([a, b], axis=0), [(None, 3), (2, 3)], (None, 3)),
        (lambda a: np.transpose(a, (1, 0, 2)), [(None, 5, 4)], (5, None, 4)),
        (lambda a: np.var(a, axis=0), [(None, 5)], (5,)),
        (lambda a: ops.repeat(a, 2, axis=1), [(None, 3)], (None, 6)),
        (lambda a, b: ops.einsum("bi,ij->bj", a, b), [(None, 3), (3, 4)], (None, 4)),
        (lambda a: ops.one_hot(ops.argmax(a, axis=-1), 9), [(None, 3)], (None, 9)),
    ],
)
def test_unknown_lengths(function, shapes, expected):
    assert abstract(function, [Spec(s) for s in shapes]).shape == expected


UNKNOWN = {
    "broadcast": lambda x, y: (x * y + x).sum(),
    "mean": lambda x, y: (x - x.mean(axis=0)).var() + (x * y).mean(axis=1).sum(),
    "matmul": lambda x, y: np.tanh(x @ B.T).sum() + y.sum(),
    "getitem": lambda x, y: x[0].sum() * y[:, -1].sum() + x[:, 1:].sum() + np.take(x, [0, 0], axis=0).sum(),
    "max": lambda x, y: x.max(axis=0).sum() * y.max(),
    "sort": lambda x, y: (np.sort(x, 0)[0] * y.sum(0)).sum() + (ops.top_k(x, 2)[0] ** 2).sum(),
    "reshape": lambda x, y: (x.reshape(-1) * 2).sum() + (y.T * x.T).sum(),
    "softmax": lambda x, y: (ops.softmax(x) * y).sum(),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_gradient_with_unknown_lengths_serves_every_batch(name):
    function = UNKNOWN[name]
    program = trace(function, [Spec((None, 4), "float64"), Spec((None, 4), "float64")])
    forward, backward = program.linearize(0, program.inputs)
    for x, y in (
        (draw(3, 4), draw(3, 4)),
        (draw(5, 4), draw(5, 4)),
        (draw(1, 4), draw(1, 4)),
        (draw(3, 4), draw(1, 4)),
    ):
        known = trace(function, [Spec(x.shape, "float64"), Spec(y.shape, "float64")])
        known_forward, known_backward = known.linearize(0, known.inputs)
        (value, residuals), (expected, known_residuals) = forward(x, y), known_forward(x, y)
        np.testing.assert_allclose(value, expected, rtol=1e-14)
        for a, b in zip(backward(residuals, 1.0), known_backward(known_residuals, 1.0), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


def test_dtypes_follow_numpy():
    f16, f32, f64, i32 = (np.ones(3, d) for d in ("float16", "float32", "float64", "int32"))
    for a, b in ((f32, 2.0), (f32, f64), (i32, f32), (f16, f32), (i32, 2), (i32, 2.5), (f32, np.float64(2)), (f16, 2)):
        for name in ("add", "multiply", "divide", "maximum", "power", "greater"):
            expected = getattr(np, name)(a, b).dtype
            assert getattr(ops, name)(a, b).dtype == expected
            program = trace(lambda x, b=b, name=name: getattr(ops, name)(x, b), (Spec(a.shape, a.dtype),))
            assert program.output_specs.dtype == expected == program(a).dtype
    for name in ("sum", "mean", "prod", "cumsum"):
        for x in (f16, f32, i32, i32 > 0):
            kind = getattr(ops, name)(x).dtype
            assert kind == getattr(np, name)(x).dtype == abstract(getattr(ops, name), (Spec(x.shape, x.dtype),)).dtype


def test_float16_is_computed_in_float32():
    x = np.full(70_000, 0.1, "float16")
    assert ops.sum(x) == np.float16(np.sum(x, dtype="float32"))
    a = RNG.normal(size=(4, 300)).astype("float16")
    product = ops.matmul(a, a.T)
    assert product.dtype == np.float16
    np.testing.assert_array_equal(product, (a.astype("f4") @ a.T.astype("f4")).astype("f2"))
    assert ops.sigmoid(a).dtype == ops.softmax(a).dtype == np.float16


def test_extremes_are_finite_and_nan_stays():
    x = np.array([-1e4, -100.0, 0.0, 100.0, 1e4], "float32")
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for name in ("sigmoid", "softplus", "log_sigmoid", "tanh", "softmax", "log_softmax", "elu", "silu"):
            program = trace(lambda x, name=name: getattr(ops, name)(x), (Spec(x.shape, x.dtype),))
            forward, backward = program.linearize(0, program.inputs)
            value, residuals = forward(x)
            assert np.isfinite(value).all()
            assert np.isfinite(backward(residuals, np.ones_like(value))[0]).all()
    for name in ("sigmoid", "softplus", "tanh", "relu", "elu", "silu", "hard_sigmoid", "softsign", "gelu", "erf"):
        assert np.isnan(getattr(ops, name)(np.array([np.nan]))).all(), name
    assert ops.sigmoid(np.float32(-80)) == pytest.approx(np.exp(-80.0), rel=1e-6)


def test_one_hot_and_creation():
    np.testing.assert_array_equal(
        ops.one_hot([0, 2, 5, -1], 3), np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]], "f4")
    )
    assert ops.one_hot(np.zeros((2, 3), int), 5, axis=1).shape == (2, 5, 3)
    assert (
        ops.zeros((2,)).dtype
        == ops.ones((2,)).dtype
        == ops.eye(2).dtype
        == ops.convert_to_tensor([1.0]).dtype
        == np.float32
    )
    assert ops.identity(2).tolist() == ops.eye(2).tolist() == [[1, 0], [0, 1]]
    assert ops.eye(2, 3, 1, "float64").tolist() == [[0, 1, 0], [0, 0, 1]]
    assert ops.linspace(0, 1, 3).tolist() == [0, 0.5, 1] and ops.linspace(0, 1).dtype == np.float32
    assert ops.arange(3).dtype == np.int32 and ops.arange(0.5, 3).dtype == np.float32
    assert ops.full((2,), 3).tolist() == [3, 3]


def test_ties_share_the_gradient():
    program = trace(lambda a, b: np.maximum(a, b).sum() + a.max(), [Spec((2,), "f8")] * 2)
    forward, backward = program.linearize(0, program.inputs)
    da, db = backward(forward(np.ones(2), np.ones(2))[1], 1.0)
    np.testing.assert_array_equal(da, [1.0, 1.0])
    np.testing.assert_array_equal(db, [0.5, 0.5])


def test_inputs_by_name():
    """Keras's names of the parameters, eagerly and traced."""
    for function, expected in (
        (lambda a: ops.tanh(x=a), np.tanh(A)),
        (lambda a: ops.add(a, x2=B), A + B),
        (lambda a: ops.subtract(x2=a, x1=B), B - A),
        (lambda a: ops.where(condition=KEEP, x1=a, x2=B), np.where(KEEP, A, B)),
        (lambda a: ops.sigmoid(x=a), special.expit(A)),
        (lambda a: ops.matmul(x1=a, x2=B.T), A @ B.T),
        (lambda a: ops.stop_gradient(variable=a), A),
        (lambda a: ops.stack(x=[a, a], axis=0), np.stack([A, A])),
    ):
        np.testing.assert_allclose(function(A), expected, rtol=1e-12)
        np.testing.assert_allclose(trace(function, (Spec(A.shape, A.dtype),))(A), expected, rtol=1e-12)
    for wrong in (lambda: ops.tanh(y=A), lambda: ops.add(A, B, x1=A), lambda: ops.add(x2=B)):
        with pytest.raises(TypeError, match=r"(tanh|add)\(\): .*; it takes x"):
            wrong()


@pytest.mark.parity
def test_parameters_have_keras_names():
    import inspect

    import keras

    for name in sorted(set(ops.__all__) & set(dir(keras.ops))):
        theirs = list(inspect.signature(getattr(keras.ops, name)).parameters)
        ours = list(inspect.signature(getattr(ops, name)).parameters)
        assert ours == theirs[: len(ours)] or name in ("linspace", "bitwise_and", "bitwise_or", "bitwise_xor"), (
            name,
            ours,
            theirs,
        )


def test_lists_and_numbers_compute_at_once():
    assert ops.add([1, 2], [3, 4]).tolist() == [4, 6]
    assert ops.sum([[1.0, 2], [3, 4]], axis=0).tolist() == [4, 6]
    assert ops.exp(0.0) == 1
    assert ops.matmul([[1.0, 2]], [[3.0], [4]]).tolist() == [[11.0]]
    assert ops.shape([[1, 2]]) == (1, 2) and ops.size([[1, 2]]) == 2


def test_products_are_the_same_for_a_row_alone():
    a, b = RNG.normal(size=(7, 33)).astype("f4"), RNG.normal(size=(33, 17)).astype("f4")
    np.testing.assert_array_equal(ops.matmul(a, b)[2:3], ops.matmul(a[2:3], b))
    np.testing.assert_array_equal(ops.matmul(a.reshape(1, 7, 33), b)[0], ops.matmul(a, b))
    stack = np.stack([a, a])
    np.testing.assert_array_equal(ops.matmul(stack, np.stack([b, b]))[1], ops.matmul(a, b))


class Foreign:
    """An array of another module, as far as NumPy's protocols go."""

    log = []

    def __init__(self, data):
        self.data, self.shape, self.dtype, self.ndim = data, data.shape, data.dtype, data.ndim

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        Foreign.log.append(ufunc.__name__)
        return Foreign(getattr(ufunc, method)(*(x.data if isinstance(x, Foreign) else x for x in inputs), **kwargs))

    def __array_function__(self, function, types, args, kwargs):
        Foreign.log.append(function.__name__)
        args = [x.data if isinstance(x, Foreign) else x for x in args]
        return Foreign(function(*args, **kwargs))

    def __array__(self, *args, **kwargs):
        raise TypeError("copied to the host")


def test_the_seam_for_another_array_module():
    x = Foreign(A)
    program = trace(lambda t: ops.mean(np.exp(t) * 2 + 1, axis=0), (Spec(A.shape, A.dtype),))
    result = program(x)
    assert isinstance(result, Foreign) and Foreign.log[:3] == ["exp", "multiply", "add"]
    np.testing.assert_array_equal(result.data, np.mean(np.exp(A) * 2 + 1, axis=0))
    assert ops.array_module(A, 2.0) is np
    module = types.SimpleNamespace(ndarray=Foreign)
    with cuda.use_array_module(module):
        assert ops.array_module(A, x) is module
        assert ops.array_module(A, 2.0) is np


@pytest.mark.parametrize("exponent", [0, 0.0, "array"])
def test_the_slope_of_a_power_of_zero_is_finite(exponent):
    x = np.array([0.0, 2.0, -1.0])
    b = np.array([0.0, 0.0, 2.0])
    if exponent == "array":
        program = trace(lambda x: ops.power(x, b), (Spec.of(x),))
    else:
        program = trace(lambda x: x**exponent, (Spec.of(x),))
    forward, backward = program.linearize(0, program.inputs)
    with np.errstate(all="raise"):
        _, residuals = forward(x)
        (d,) = backward(residuals, np.ones(3))
    np.testing.assert_array_equal(d, [0, 0, -2 if exponent == "array" else 0])


def test_subclasses_of_ndarray_are_arrays(tmp_path):
    """Not what is on the GPU, as all arrays are whose type is another."""
    A.tofile(tmp_path / "a")
    mapped = np.memmap(tmp_path / "a", A.dtype, "r", shape=A.shape)
    assert type(kernel_array(mapped)) is np.ndarray and kernel_array(mapped).flags.writeable
    for found in (ops.matmul(mapped, B.T), gemm.RightOperand(B.T).times(mapped)):
        np.testing.assert_array_equal(found, gemm.matmul(A, B.T))
    np.testing.assert_array_equal(ops.matmul(mapped[None], B.T[None])[0], gemm.matmul(A, B.T))
