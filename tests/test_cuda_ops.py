"""Operations on arrays of a GPU, on a stand-in for CuPy: the results and gradients that NumPy's arrays give.

The stand-in has only the functions, methods and arguments that CuPy has, mixes nothing with NumPy's arrays and becomes
none unasked; so what passes here asks nothing of CuPy that it has not.
"""

import numpy as np
import pytest
from gpu import fake_cupy

from numbarnn import Variable, arrays, cuda, graph, ops
from numbarnn import random as draws
from numbarnn.graph import Spec

pytestmark = pytest.mark.gpu

RNG = np.random.default_rng(1)
X = RNG.standard_normal((3, 4))
Y = RNG.standard_normal((3, 4))
V = RNG.standard_normal(4)
S = RNG.standard_normal((2, 3, 4))
POSITIVE = RNG.uniform(0.5, 2.0, (3, 4))
INSIDE = RNG.uniform(-0.9, 0.9, (3, 4))
IDS = np.array([[0, 2, 2], [1, 0, 2]])
TIES = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]])
MASK = X > 0

CASES = {
    **{name: (getattr(ops, name), X) for name in (
        "abs", "absolute", "negative", "sign", "exp", "exp2", "expm1", "square", "sin", "cos", "tan", "arctan",
        "arcsinh", "sinh", "cosh", "tanh", "floor", "ceil", "rint", "trunc", "isfinite", "isnan", "isinf",
        "logical_not", "reciprocal", "elu", "selu", "erf", "gelu", "hard_sigmoid", "leaky_relu", "log_sigmoid",
        "log_softmax", "normalize", "relu", "relu6", "sigmoid", "silu", "swish", "softmax", "softplus",
        "softsign", "round", "nan_to_num", "copy", "stop_gradient", "sum", "mean", "max", "min", "amax", "amin",
        "prod", "any", "all", "argmax", "argmin", "cumsum", "cumprod", "sort", "argsort", "var", "std", "norm",
        "logsumexp", "count_nonzero", "average", "transpose", "ravel", "flip", "tril", "triu", "diag",
        "diagonal", "trace", "zeros_like", "ones_like", "diff", "convert_to_tensor",
    )},
    **{name: (getattr(ops, name), POSITIVE) for name in ("log", "log1p", "log2", "log10", "sqrt", "rsqrt")},
    **{name: (getattr(ops, name), INSIDE) for name in ("arcsin", "arccos", "arctanh")},
    "arccosh": (ops.arccosh, POSITIVE + 1),
    **{name: (getattr(ops, name), X, Y) for name in (
        "add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "mod", "floor_divide", "arctan2",
        "logaddexp", "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and",
        "logical_or", "logical_xor", "isclose", "vdot", "inner", "outer",
    )},
    **{name: (getattr(ops, name), MASK, ~MASK) for name in ("bitwise_and", "bitwise_or", "bitwise_xor")},
    "invert": (ops.invert, MASK),
    "power": (ops.power, POSITIVE, Y),
    "broadcast": (lambda a, b: a * b + b, X, V),
    "numbers": (lambda a: 2 * a / 3 - (1 - a) ** 2 + np.float64(0.5), X),
    "cast": (lambda a: ops.cast(ops.cast(a, "float32"), "float64"), X),
    "astype": (lambda a: ops.astype(a, "int64"), X),
    "where": (lambda a, b: ops.where(a > b, a, b), X, Y),
    "where with a number": (lambda a: ops.where(a > 0, a, 0.0), X),
    "clip": (lambda a: ops.clip(a, -0.5, 0.5), X),
    "matmul": (lambda a, b: ops.matmul(a, ops.transpose(b)), X, Y),
    "matmul of stacks": (lambda a, b: ops.matmul(a, ops.swapaxes(b, 1, 2)), S, S[:1] + 1),
    "matmul of a stack": (lambda a, b: ops.matmul(a, ops.transpose(b)), S, X),
    "matmul of whole numbers": (lambda a, b: ops.matmul(a, b), IDS, IDS.T),
    "dot": (ops.dot, X, V),
    "tensordot": (lambda a, b: ops.tensordot(a, b, 1), S, V),
    "einsum": (lambda a, b: ops.einsum("bij,kj->bik", a, b), S, X),
    "reshape": (lambda a: ops.reshape(a, (2, -1)), X),
    "squeeze": (lambda a: ops.squeeze(ops.expand_dims(a, 1)), X),
    "expand_dims": (lambda a: ops.expand_dims(a, (0, 2)), X),
    "swapaxes": (lambda a: ops.swapaxes(a, 0, 2), S),
    "moveaxis": (lambda a: ops.moveaxis(a, 0, -1), S),
    "broadcast_to": (lambda a: ops.broadcast_to(a, (2, 3, 4)), X),
    "broadcast_like": (ops.broadcast_like, V, X),
    "roll": (lambda a: ops.roll(a, 2, 1), X),
    "concatenate": (lambda a, b: ops.concatenate([a, b], 1), X, Y),
    "stack": (lambda a, b: ops.stack([a, b], 1), X, Y),
    "vstack": (lambda a, b: ops.vstack([a, b]), X, V),
    "hstack": (lambda a, b: ops.hstack([a, b]), X, Y),
    "unstack": (lambda a: ops.add(*ops.unstack(a)), S),
    "split": (lambda a: ops.multiply(*ops.split(a, 2, 1)), X),
    "pad": (lambda a: ops.pad(a, ((1, 0), (0, 2)), constant_values=1.5), X),
    "repeat": (lambda a: ops.repeat(a, 2, 0), X),
    "tile": (lambda a: ops.tile(a, (2, 1)), X),
    "getitem": (lambda a: a[1:, ::-2], X),
    "integers": (lambda a: a[1, 2] * a[..., 0], X),
    "index arrays": (lambda a: a[np.array([0, 2, 2, 0])], X),
    "two index arrays": (lambda a: a[np.array([0, 2, 2]), np.array([1, 3, 3])], X),
    "traced index arrays": (lambda a, i: a[:, i], X, IDS),
    "take": (lambda a, i: ops.take(a, i, axis=0), X, IDS),
    "take_along_axis": (lambda a, i: ops.take_along_axis(a, i, axis=1), X[:2], IDS),
    "slice_update": (lambda a, b: ops.slice_update(a, (1, 1), b[:2, :2]), X, Y),
    "one_hot": (lambda i: ops.one_hot(i, 4), IDS),
    "one_hot in front": (lambda i: ops.one_hot(i, 4, axis=0), IDS),
    "full_like": (lambda a: ops.full_like(a, 2.5) * a, X),
    "top_k": (lambda a: ops.top_k(a, 2)[0], TIES),
    "moments": (lambda a: ops.add(*ops.moments(a, (0,))), X),
    "ties": (lambda a: ops.max(a, axis=1) + ops.min(a, axis=1), TIES),
    "keepdims": (lambda a: ops.sum(a, axis=(0, 2), keepdims=True) * ops.mean(a, axis=-1, keepdims=True), S),
    "weighted average": (lambda a, w: ops.average(a, axis=1, weights=w), X, V),
    "norm of order 3": (lambda a: ops.norm(a, ord=3, axis=1), X),
    "softmax over the first axis": (lambda a: ops.softmax(a, axis=0), X),
    "exact gelu": (lambda a: ops.gelu(a, approximate=False), X),
    "constants": (lambda a: a * np.arange(4.0) + np.float32(2) * ops.arange(3)[:, None] + np.ones(()), X),
    "made from nothing": (lambda a: a @ ops.eye(4, dtype="float64") + ops.zeros(4, "float64") + ops.ones(4)
        - ops.full(4, 2) + ops.linspace(0, 1, 4) + ops.identity(4)[0], X),
    "NumPy's functions": (lambda a: np.concatenate([np.exp(a), np.sum(a, axis=0, keepdims=True)]) + np.mean(a), X),
}  # fmt: skip
# Not computed on arrays, or read off them.
NOT_HERE = {"array_module", "shape", "size", "ndim", "convert_to_numpy"}


def test_every_operation_is_tried():
    assert not {name for name in ops.__all__ if name not in CASES} - NOT_HERE - {
        "arange", "eye", "full", "identity", "linspace", "ones", "zeros",  # "made from nothing"
    }  # fmt: skip


def replayed(program, backward, inputs, on_gpu):
    """Return result and gradients of a scalar made of a program's result."""
    move, back = (cuda.to_device, cuda.to_host) if on_gpu else (np.asarray, np.asarray)
    with arrays.on_gpu(on_gpu):
        result = program(*map(move, inputs))
        if backward is None:
            return [back(result)]
        result, residuals = result
        seed = np.random.default_rng(2).standard_normal(result.shape)
        return [back(result), *map(back, backward(residuals, move(seed)))]


@pytest.mark.parametrize("name", CASES)
def test_results_and_gradients_are_those_of_the_cpu(name):
    function, *inputs = CASES[name]
    program = graph.trace(function, [Spec(x.shape, x.dtype) for x in inputs])
    wrt = [t for t in program.inputs if t.dtype.kind == "f"]
    backward = None
    if wrt and program.outputs[0].dtype.kind == "f":
        program, backward = program.linearize(0, wrt)
    expected = replayed(program, backward, inputs, False)
    with cuda.use_array_module(fake_cupy):
        found = replayed(program, backward, inputs, True)
    for a, b in zip(expected, found, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=1e-13, atol=1e-13)


def test_draws_have_the_same_bits():
    generator = draws.SeedGenerator(3)

    def function(x):
        return (
            draws.dropout(x, 0.5, seed=generator) + draws.uniform((4,), dtype="float64", seed=generator)
            + draws.normal((4,), seed=generator) * draws.truncated_normal((4,), seed=generator)
            + draws.randint((4,), 0, 9, seed=generator)
        )  # fmt: skip

    program = graph.trace(function, [Spec(X.shape, X.dtype)])
    start = generator.state.numpy()
    expected = program(X)
    generator.state.assign(start)
    with cuda.use_array_module(fake_cupy), arrays.on_gpu():
        found = cuda.to_host(program(cuda.to_device(X)))
    np.testing.assert_array_equal(found, expected)


def test_captured_arrays_are_moved_once_and_again_when_they_change():
    captured = np.array([1.0, 2.0, 3.0, 4.0])
    program = graph.trace(lambda x: x + captured, [Spec(X.shape, X.dtype)])
    with cuda.use_array_module(fake_cupy), arrays.on_gpu():
        x = cuda.to_device(X)
        program(x)
        before = len(fake_cupy.moves)
        program(x)
        assert len(fake_cupy.moves) == before
        captured[1] = -5.0
        np.testing.assert_array_equal(cuda.to_host(program(x)), X + captured)


def test_equal_places_are_summed_in_the_order_of_the_cpu():
    """To the bit: values of many magnitudes, whose sums depend on their order."""
    rng = np.random.default_rng(5)
    ids = rng.integers(0, 3, 40)
    rows = (rng.standard_normal((40, 2)) * 10.0 ** rng.integers(-8, 8, (40, 2))).astype("float32")
    program = graph.trace(lambda x: x[ids], [Spec((3, 2), "float32")])
    forward, backward = program.linearize(0, program.inputs)
    table = np.zeros((3, 2), "float32")
    expected = np.zeros((3, 2), "float32")
    for i, row in zip(ids, rows, strict=True):
        expected[i] += row
    with cuda.use_array_module(fake_cupy), arrays.on_gpu():
        _, residuals = forward(cuda.to_device(table))
        (found,) = backward(residuals, cuda.to_device(rows))
        np.testing.assert_array_equal(cuda.to_host(found), expected)


def test_an_error_names_the_users_line():
    weight = Variable(np.ones(3))
    program = graph.trace(lambda x: x + weight, [Spec((3,), "float64")])
    with (
        cuda.use_array_module(fake_cupy),
        arrays.on_gpu(),
        pytest.raises(TypeError, match="does not mix") as caught,
    ):
        program(np.ones(3))  # an array of the CPU
    assert "test_cuda_ops.py" in caught.value.__notes__[0]


@pytest.mark.parametrize("bad", [3, -4])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, places: x[places],
        lambda x, places: x[None, 1:, ..., places],
        lambda x, places: x[np.eye(3, dtype=bool), places],
        lambda x, places: ops.take(x, places, axis=-2),
        lambda x, places: ops.take_along_axis(x, places[:, None, None], axis=0),
    ],
)
def test_an_index_outside_of_its_axis_is_refused(function, bad):
    """CuPy takes another element, and tells nobody."""
    x, inside, outside = np.arange(27.0).reshape(3, 3, 3), np.array([0, -1, 1]), np.array([0, bad, 1])
    program = graph.trace(function, [Spec(x.shape, x.dtype), Spec((3,), "int64")])
    expected = program(x, inside)
    with cuda.use_array_module(fake_cupy), arrays.on_gpu():
        there = cuda.to_device(x)
        np.testing.assert_array_equal(cuda.to_host(program(there, cuda.to_device(inside))), expected)
        with pytest.raises(IndexError, match=f"index {bad} is out of bounds for axis [012] with size 3"):
            program(there, cuda.to_device(outside))
