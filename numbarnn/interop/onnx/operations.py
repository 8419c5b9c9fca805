"""The operations of `numbarnn.ops`, and the kernels but the recurrent ones, in ONNX's operators.

Each converter is ``convert(b, node, *values)``: a `Builder`, the recorded `Node`, and its inputs, each the name of a
value of the graph, an array, a number or None. It returns the output, or a list of them.
"""

from __future__ import annotations

import math

import numpy as np

from ...row_rules import _reshape_rows as _reshape_step_rows
from ...scan import _Scan
from ...symbolic import PYTHON_SCALARS, Spec, Tensor
from ...variable import Variable
from .builder import Unsupported, ints
from .loops import repeat
from .recurrent import recurrent

__all__ = ["convert_nodes"]


def convert_nodes(b, nodes, values):
    """Add what recorded nodes compute.

    Parameters
    ----------
    b : Builder
    nodes : list of Node
        Each after those that it depends on.
    values : dict
        id of a Tensor -> its name or array; what the nodes give is entered.

    Returns
    -------
    callable
        Gives the name of a Tensor, the array of a Variable, and anything else as it is.

    Raises
    ------
    ValueError
        If there is no way to say a node in ONNX.
    """

    def value(x):
        if not isinstance(x, Tensor):
            return x.numpy() if isinstance(x, Variable) else x
        if id(x) not in values:  # a weight
            values[id(x)] = x.variable.numpy()
            b.hint(values[id(x)], x.variable.path)
        return values[id(x)]

    for node in nodes:
        try:
            outputs = _convert(b, node, [value(x) for x in node.inputs])
        except Unsupported as error:
            raise ValueError(
                f"Operation '{node.name}', called at {node.line[0]}:{node.line[1]}, cannot be written as ONNX: {error}"
            ) from None
        values.update(zip(map(id, node.outputs), outputs, strict=True))
    return value


def _convert(b, node, values):
    """Return the outputs of one node: names, or arrays."""
    if not node.operation.effect and all(not isinstance(value, str) for value in values):
        # Nothing but weights and numbers: computed once and for all.
        given = [value if value is None or type(value) in PYTHON_SCALARS else np.asarray(value) for value in values]
        found = node.operation.compute(*given, **node.attrs)
        return list(found) if isinstance(found, tuple) else [np.asarray(found)]
    if node.name == "fused_rnn":
        return recurrent(b, node, values)
    if isinstance(node.operation, _Scan):
        return repeat(b, node, *values, convert_nodes=convert_nodes)
    converter = _rows_reshaped if node.operation is _reshape_step_rows else _CONVERTERS.get(node.name)
    if converter is None:
        raise Unsupported("there is no counterpart of it yet")
    return [converter(b, node, *values)]


# -- element by element --------------------------------------------------------------------------------------


def _as(b, value, given, dtype):
    """Bring an input of a node into a dtype: a value of the graph, an array or a number."""
    if isinstance(value, str):
        return b.cast(value, given.dtype, dtype)
    return np.asarray(value, dtype)


def _operand_dtypes(node):
    """Return the dtypes in which NumPy computes, one for each operand."""
    specs = [Spec.of(x) for x in node.inputs]
    kinds = [spec.dtype if spec.weak is None else type(spec.weak) for spec in specs]
    if all(isinstance(kind, type) for kind in kinds):
        kinds = [spec.dtype for spec in specs]
    kinds = [np.dtype(bool) if kind is bool else kind for kind in kinds]
    return node.operation.ufunc.resolve_dtypes((*kinds, None))[: len(specs)]


def _arithmetic(operator):
    def converter(b, node, *values):
        dtypes = _operand_dtypes(node)
        operands = [_as(b, *each) for each in zip(values, node.inputs, dtypes, strict=True)]
        return b(operator, *operands)

    return converter


def _logical(operator):
    def converter(b, node, *values):
        return b(operator, *(_as(b, value, x, bool) for value, x in zip(values, node.inputs, strict=True)))

    return converter


def _written(formula):
    """A converter of an operation of one floating input, written in operators: ``formula(b, x, number)``."""

    def converter(b, node, x, **attrs):
        dtype = node.outputs[0].dtype
        x = b.cast(x, node.inputs[0].dtype, dtype)
        return formula(b, x, dtype.type, **node.attrs)

    return converter


def _not_equal(b, node, *values):
    return b("Not", _arithmetic("Equal")(b, node, *values))


def _same(b, node, x):
    return x


def _where(b, node, condition, first, second):
    dtype = node.outputs[0].dtype
    _, *others = node.inputs
    return b(
        "Where",
        _as(b, condition, node.inputs[0], bool),
        *(_as(b, value, x, dtype) for value, x in zip((first, second), others, strict=True)),
    )


def _clip(b, node, x, low, high):
    dtype = node.outputs[0].dtype
    x = _as(b, x, node.inputs[0], dtype)
    for operator, bound, given in (("Max", low, node.inputs[1]), ("Min", high, node.inputs[2])):
        if bound is not None:
            x = b(operator, x, _as(b, bound, given, dtype))
    return x


def _cast(b, node, x):
    return b.cast(x, node.inputs[0].dtype, node.outputs[0].dtype)


def _erf_gelu(b, x, number):
    return b("Mul", x, b("Mul", number(0.5), b("Add", number(1), b("Erf", b("Mul", x, number(math.sqrt(0.5)))))))


def _softplus(b, x, number):
    small = b("Log", b("Add", number(1), b("Exp", b("Neg", b("Abs", x)))))
    return b("Add", b("Max", x, number(0)), small)


def _elu(b, x, number, *, alpha):
    below = b("Mul", number(alpha), b("Sub", b("Exp", b("Min", x, number(0))), number(1)))
    return b("Where", b("Greater", x, number(0)), x, below)


def _hard_sigmoid(b, x, number):
    return b("Min", b("Max", b("Add", b("Div", x, number(6)), number(0.5)), number(0)), number(1))


def _softmax(operator):
    def formula(b, x, number, *, axis):
        if not isinstance(axis, (int, np.integer)):
            raise Unsupported(f"the operator {operator} is along one axis, not along {axis}")
        return b(operator, x, axis=int(axis))

    return _written(formula)


# -- over axes -----------------------------------------------------------------------------------------------


def _axes(axis):
    return None if axis is None else ints([axis] if isinstance(axis, (int, np.integer)) else list(axis))


def _reduction(operator):
    def converter(b, node, x):
        x = b.cast(x, node.inputs[0].dtype, node.outputs[0].dtype)
        return b(operator, x, _axes(node.attrs["axis"]), keepdims=int(node.attrs["keepdims"]))

    return converter


def _truth(operator):
    """`any` and `all`: an extreme of 0 and 1."""

    def converter(b, node, x):
        x = b.cast(b.cast(x, node.inputs[0].dtype, bool), bool, np.int32)
        return b.cast(b(operator, x, _axes(node.attrs["axis"]), keepdims=int(node.attrs["keepdims"])), np.int32, bool)

    return converter


def _place(operator):
    def converter(b, node, x):
        axis = node.attrs["axis"]
        if axis is None:
            raise Unsupported("the place of an extreme must be along one axis")
        return b(operator, x, axis=int(axis), keepdims=int(node.attrs["keepdims"]))

    return converter


def _cumsum(b, node, x):
    x = b.cast(x, node.inputs[0].dtype, node.outputs[0].dtype)
    return b("CumSum", x, np.array(node.attrs["axis"], np.int64))


# -- where elements lie --------------------------------------------------------------------------------------


def _lengths(b, x, spec, start, stop=None):
    """Return the lengths of some axes, as an array where they are known."""
    known = spec.shape[start:stop]
    return b.shape(x, start, stop) if None in known else ints(known)


def _join(b, *lengths):
    if all(not isinstance(part, str) for part in lengths):
        return np.concatenate(lengths)
    return b("Concat", *lengths, axis=0)


def _reshape_to(b, x, lengths):
    return b("Reshape", x, lengths, allowzero=int(not isinstance(lengths, str) and 0 in lengths))


def _reshape_rows(b, node, x):
    """The batch stays, the rest gets another shape."""
    return _reshape_to(b, x, _join(b, _lengths(b, x, node.inputs[0], 0, 1), ints(node.attrs["target"])))


def _rows_reshaped(b, node, x):
    return _reshape_to(b, x, _join(b, _lengths(b, x, node.inputs[0], 0, 1), ints(node.attrs["shape"])))


def _fold_timesteps(b, node, x):
    return _reshape_to(b, x, _join(b, ints([-1]), _lengths(b, x, node.inputs[0], 2)))


def _unfold_timesteps(b, node, y, x):
    (after, before) = node.inputs
    return _reshape_to(b, y, _join(b, _lengths(b, x, before, 0, 2), _lengths(b, y, after, 1)))


def _broadcast_to(b, node, x):
    return b("Expand", x, ints([1 if n is None else n for n in node.attrs["shape"]]))


def _transpose(b, node, x):
    axes, rank = node.attrs["axes"], len(node.inputs[0].shape)
    return b.transpose(x, [a % rank for a in (range(rank)[::-1] if axes is None else axes)])


def _flip(b, node, x):
    for axis in node.attrs["axis"]:
        x = b.flip(x, int(axis))
    return x


def _concatenate(b, node, *values):
    dtype = node.outputs[0].dtype
    return b(
        "Concat",
        *(_as(b, value, x, dtype) for value, x in zip(values, node.inputs, strict=True)),
        axis=node.attrs["axis"] % len(node.outputs[0].shape),
    )


def _getitem(b, node, x, *indices):
    """Slices, integers, new axes; and one array of integers, along its axis."""
    key, rank = list(node.attrs["key"]), len(node.inputs[0].shape)
    if len(indices) > 1 or any(Spec.of(i).dtype == bool for i in node.inputs[1:]):
        raise Unsupported("only slices, integers and one array of integers can say which elements to take")
    used = sum(part is not None and part is not Ellipsis for part in key)
    at = key.index(Ellipsis) if Ellipsis in key else len(key)
    key[at : at + 1] = [slice(None)] * (rank - used)
    axis, starts, ends, axes, steps, dropped, new, taken, place = 0, [], [], [], [], [], [], None, 0
    for part in key:
        if part is None:
            new.append(place)
            place += 1
            continue
        if isinstance(part, slice):
            if part != slice(None):
                step = 1 if part.step is None else part.step
                limits = np.iinfo(np.int64)
                first, last = (0, limits.max) if step > 0 else (limits.max, limits.min)
                starts.append(first if part.start is None else part.start)
                ends.append(last if part.stop is None else part.stop)
                axes.append(axis)
                steps.append(step)
            place += 1
        elif isinstance(part, int):
            starts.append(part)
            ends.append(part + 1 if part != -1 else np.iinfo(np.int64).max)
            axes.append(axis)
            steps.append(1)
            dropped.append(axis)
        else:
            taken = axis
            place += 1
        axis += 1
    if taken is not None and (dropped or new):
        raise Unsupported("an array of integers together with integers or new axes cannot be said")
    if axes:
        x = b("Slice", x, ints(starts), ints(ends), ints(axes), ints(steps))
    if dropped:
        x = b("Squeeze", x, ints(dropped))
    if new:
        x = b("Unsqueeze", x, ints(new))
    return x if taken is None else b("Gather", x, indices[0], axis=taken)


def _filled(number):
    def converter(b, node, x):
        return b("Expand", np.full((), number, node.outputs[0].dtype), b.shape(x))

    return converter


def _repeat_rows(b, node, x):
    rank = len(node.inputs[0].shape)
    lengths = ints([1, node.attrs["n"], *[1] * (rank - 1)])
    return b("Expand", b("Unsqueeze", x, ints([1])), lengths)


def _one_hot(b, node, x):
    axis = node.attrs["axis"]
    places = np.arange(node.attrs["num_classes"], dtype=node.inputs[0].dtype)
    hot = b.cast(b("Equal", b("Unsqueeze", x, ints([-1])), places), bool, node.outputs[0].dtype)
    rank = len(node.outputs[0].shape)
    order = [i for i in range(rank - 1)]
    order.insert(axis % rank, rank - 1)
    return hot if axis % rank == rank - 1 else b.transpose(hot, order)


def _pad(b, node, x):
    widths, dtype = node.attrs["widths"], node.outputs[0].dtype
    before, after = zip(*widths, strict=True)
    return b("Pad", x, ints([*before, *after]), np.asarray(node.attrs["constant"], dtype))


# -- products, tables, normalization -------------------------------------------------------------------------


def _matmul(b, node, first, second):
    """Also of a matrix with a packed one, which has one flag only."""
    dtype = node.outputs[0].dtype
    operands = []
    for value, x, flag in zip((first, second), node.inputs, ("transpose_a", "transpose_b"), strict=True):
        value, rank = _as(b, value, x, dtype), len(x.shape)
        if node.attrs.get(flag):
            order = [*range(rank - 2), rank - 1, rank - 2]
            value = b.transpose(value, order) if isinstance(value, str) else value.transpose(order)
        operands.append(value)
    return b("MatMul", *operands)


def _matmul_onto(b, node, start, first, second):
    if node.attrs["transpose_b"]:
        second = b.transpose(second, (1, 0))
    return b("Add", start, b("MatMul", first, second))


def _embedding(b, node, ids, table):
    return b("Gather", table, ids, axis=0)


def _layer_normalization(b, node, x, gamma, beta):
    axes, epsilon, dtype = node.attrs["axes"], node.attrs["epsilon"], node.outputs[0].dtype
    last = ints(range(-axes, 0))
    centred = b("Sub", x, b("ReduceMean", x, last, keepdims=1))
    variance = b("ReduceMean", b("Mul", centred, centred), last, keepdims=1)
    result = b("Div", centred, b("Sqrt", b("Add", variance, np.array(epsilon, dtype))))
    for operator, weight in (("Mul", gamma), ("Add", beta)):
        if weight is not None:
            result = b(operator, result, weight)
    return result


_CONVERTERS = {
    **{
        name: _arithmetic(operator)
        for name, operator in {
            "negative": "Neg", "abs": "Abs", "sign": "Sign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
            "reciprocal": "Reciprocal", "sin": "Sin", "cos": "Cos", "tan": "Tan", "arcsin": "Asin", "arccos": "Acos",
            "arctan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "arcsinh": "Asinh", "arccosh": "Acosh",
            "arctanh": "Atanh", "floor": "Floor", "ceil": "Ceil", "rint": "Round", "isnan": "IsNaN",
            "isinf": "IsInf", "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow",
            "maximum": "Max", "minimum": "Min", "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
            "greater": "Greater", "greater_equal": "GreaterOrEqual",
        }.items()
    },
    **{
        name: _logical(operator)
        for name, operator in {
            "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "logical_not": "Not",
        }.items()
    },
    **{
        name: _written(formula)
        for name, formula in {
            "square": lambda b, x, number: b("Mul", x, x),
            "expm1": lambda b, x, number: b("Sub", b("Exp", x), number(1)),
            "log1p": lambda b, x, number: b("Log", b("Add", x, number(1))),
            "tanh": lambda b, x, number: b("Tanh", x),
            "tanh_of_layers": lambda b, x, number: b("Tanh", x),
            "sigmoid": lambda b, x, number: b("Sigmoid", x),
            "silu": lambda b, x, number: b("Mul", x, b("Sigmoid", x)),
            "relu": lambda b, x, number: b("Max", x, number(0)),
            "erf": lambda b, x, number: b("Erf", x),
            "softsign": lambda b, x, number: b("Div", x, b("Add", number(1), b("Abs", x))),
            "gelu": _erf_gelu, "softplus": _softplus, "elu": _elu, "hard_sigmoid": _hard_sigmoid,
        }.items()
    },
    **{
        name: _reduction(operator)
        for name, operator in {
            "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
        }.items()
    },
    **dict.fromkeys(("same", "copy", "alias", "stop_gradient", "given"), _same),
    "not_equal": _not_equal, "where": _where, "clip": _clip, "cast": _cast, "assign": _cast,
    "softmax": _softmax("Softmax"), "log_softmax": _softmax("LogSoftmax"),
    "any": _truth("ReduceMax"), "all": _truth("ReduceMin"), "argmax": _place("ArgMax"), "argmin": _place("ArgMin"),
    "cumsum": _cumsum,
    "isfinite": lambda b, node, x: b("Not", b("Or", b("IsNaN", x), b("IsInf", x))),
    "timesteps": lambda b, node, x: b("Squeeze", b.shape(x, 1, 2)),
    "packed_matmul": _matmul, "packed_matmul_onto": _matmul_onto,
    "all_rows": _fold_timesteps, "rows_of_steps": _unfold_timesteps,
    "reshape": lambda b, node, x: _reshape_to(b, x, ints(node.attrs["shape"])),
    "reshape_like": lambda b, node, x, like: _reshape_to(b, x, b.shape(like)),
    "reshape_rows": _reshape_rows, "fold_timesteps": _fold_timesteps, "unfold_timesteps": _unfold_timesteps,
    "transpose": _transpose, "flip": _flip, "concatenate": _concatenate, "getitem": _getitem, "pad": _pad,
    "expand_dims": lambda b, node, x: b("Unsqueeze", x, ints(node.attrs["axes"])),
    "squeeze": lambda b, node, x: b("Squeeze", x, ints(node.attrs["axes"])),
    "broadcast_like": lambda b, node, x, like: b("Expand", x, b.shape(like)),
    "broadcast_to": _broadcast_to, "zeros_like": _filled(0), "ones_like": _filled(1), "repeat_rows": _repeat_rows,
    "one_hot": _one_hot, "matmul": _matmul, "embedding": _embedding, "layer_normalization": _layer_normalization,
}  # fmt: skip
