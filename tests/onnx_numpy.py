"""ONNX's operators in NumPy, straight from its specification; and a stand-in for the `onnx` package, collecting nodes.

For the tests that run without onnx and onnxruntime. Only what exported models use.
"""

from types import SimpleNamespace

import numpy as np
from scipy import special

DTYPES = [np.dtype(name) for name in ("float32", "float64", "int32", "int64", "bool")]

helper = SimpleNamespace(
    make_node=lambda operator, inputs, outputs, **attributes: SimpleNamespace(
        op_type=operator, input=inputs, output=outputs, attributes=attributes
    ),
    make_tensor_value_info=lambda name, dtype, shape: SimpleNamespace(name=name, dtype=DTYPES[dtype], shape=shape),
    np_dtype_to_tensor_dtype=DTYPES.index,
    make_graph=lambda nodes, name, inputs, outputs, constants: SimpleNamespace(
        node=nodes, name=name, input=inputs, output=outputs, initializer=dict(constants)
    ),
    make_model=lambda graph, **options: SimpleNamespace(graph=graph, **options),
    make_opsetid=lambda domain, version: (domain, version),
)
numpy_helper = SimpleNamespace(from_array=lambda array, name: (name, array))
checker = SimpleNamespace(check_model=lambda model, full_check: None)


def run(model, *arrays):
    """Run a collected model; return its outputs."""
    graph = model.graph
    values = {"": None, **graph.initializer}
    for info, array in zip(graph.input, arrays, strict=True):
        assert info.dtype == array.dtype and len(info.shape) == array.ndim
        values[info.name] = array
    return evaluate(graph, values)


def evaluate(graph, values):
    for node in graph.node:
        given = [values[name] for name in node.input]
        found = (
            scan(values, *given, **node.attributes)
            if node.op_type == "Scan"
            else OPERATORS[node.op_type](*given, **node.attributes)
        )
        found = found if isinstance(found, tuple) else (found,)
        values.update(zip(node.output, found, strict=False))
    for info in graph.output:
        assert values[info.name].dtype == info.dtype
    return [values[info.name] for info in graph.output]


def scan(outside, *given, body, num_scan_inputs):
    """A loop over the first axis of the last inputs; its body sees the values around it."""
    count = len(given) - num_scan_inputs
    states, moving, shown = list(given[:count]), given[count:], []
    for now in zip(*moving, strict=True):
        inputs = dict(zip([info.name for info in body.input], [*states, *now], strict=True))
        found = evaluate(body, {**outside, **inputs})
        states = found[:count]
        shown.append(found[count:])
    return (*states, *(np.stack(rows) for rows in zip(*shown, strict=True)))


ACTIVATIONS = {
    "Tanh": np.tanh,
    "Sigmoid": special.expit,
    "Relu": lambda x: np.maximum(x, 0),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.logaddexp(0, x),
    "Affine": lambda x: x,
    "Elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "HardSigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
}


def recurrent(kind, x, w, r, b=None, lengths=None, *first, hidden_size, direction, activations, **options):
    """RNN, GRU and LSTM in one direction; padding at the end."""
    (w, r), gates = (w[0], r[0]), {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    wb, rb = np.split(b[0], 2) if b is not None else [np.zeros(gates * hidden_size, x.dtype)] * 2
    steps, batch, _ = x.shape
    lengths = np.full(batch, steps) if lengths is None else lengths
    zero = np.zeros((batch, hidden_size), x.dtype)
    h, c = [first[i][0] if len(first) > i and first[i] is not None else zero for i in range(2)]
    out = np.zeros((steps, batch, hidden_size), x.dtype)
    f, g, *rest = [ACTIVATIONS[name] for name in [*activations, "Tanh"]]
    for t in range(steps)[:: -1 if direction == "reverse" else 1]:
        parts = np.split(x[t] @ w.T + wb, gates, -1)
        own = np.split(h @ r.T + rb, gates, -1)
        new_c = c
        if kind == "RNN":
            new_h = f(parts[0] + own[0])
        elif kind == "GRU":
            z, reset = f(parts[0] + own[0]), f(parts[1] + own[1])
            if options.get("linear_before_reset"):
                new = g(parts[2] + reset * own[2])
            else:
                rows = slice(2 * hidden_size, None)
                new = g(parts[2] + (reset * h) @ r[rows].T + rb[rows])
            new_h = (1 - z) * new + z * h
        else:  # gates i, o, f, c
            i, o, forget = (f(parts[k] + own[k]) for k in range(3))
            new_c = forget * c + i * g(parts[3] + own[3])
            new_h = o * rest[0](new_c)
        counts = (t < lengths)[:, None]
        h, c = np.where(counts, new_h, h), np.where(counts, new_c, c)
        out[t] = np.where(counts, new_h, 0)
    return out[:, None], h[None], c[None]


def slice_(x, starts, ends, axes, steps=None):
    key = [slice(None)] * x.ndim
    for i, axis in enumerate(axes):
        step = 1 if steps is None else int(steps[i])
        key[axis] = slice(int(starts[i]), None if abs(int(ends[i])) > 2**62 else int(ends[i]), step)
    return x[tuple(key)]


def reshape(x, shape, allowzero=0):
    return x.reshape([x.shape[i] if n == 0 and not allowzero else n for i, n in enumerate(shape)])


def reduction(function):
    return lambda x, axes=None, keepdims=1: np.asarray(
        function(x, axis=None if axes is None else tuple(axes), keepdims=bool(keepdims)), x.dtype
    )


def top_k(x, k, axis):
    places = np.argsort(-x, axis=axis, kind="stable").take(np.arange(int(k[0])), axis)
    return np.take_along_axis(x, places, axis), places


OPERATORS = {
    **{
        name: getattr(np, name.lower())
        for name in "Abs Sign Exp Log Sqrt Reciprocal Sin Cos Tan Sinh Cosh Tanh Floor Ceil Equal Less Greater".split()
    },
    "Neg": np.negative, "Asin": np.arcsin, "Acos": np.arccos, "Atan": np.arctan, "Round": np.rint,
    "Not": np.logical_not,
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power, "Max": np.maximum,
    "Min": np.minimum, "LessOrEqual": np.less_equal, "GreaterOrEqual": np.greater_equal, "And": np.logical_and,
    "Or": np.logical_or, "Where": np.where, "MatMul": np.matmul, "Sigmoid": special.expit, "Erf": special.erf,
    "Cast": lambda x, to: x.astype(DTYPES[to]),
    "IsNaN": np.isnan, "IsInf": np.isinf, "Identity": lambda x: x,
    "Softmax": lambda x, axis: special.softmax(x, axis), "LogSoftmax": lambda x, axis: special.log_softmax(x, axis),
    "ReduceSum": reduction(np.sum), "ReduceMean": reduction(np.mean), "ReduceMax": reduction(np.max),
    "ReduceMin": reduction(np.min), "CumSum": lambda x, axis: np.cumsum(x, int(axis)),
    "Reshape": reshape, "Transpose": lambda x, perm: x.transpose(perm), "Slice": slice_,
    "Squeeze": lambda x, axes=None: np.squeeze(x, None if axes is None else tuple(axes)),
    "Unsqueeze": lambda x, axes: np.expand_dims(x, tuple(axes)), "Concat": lambda *xs, axis: np.concatenate(xs, axis),
    "Expand": lambda x, shape: x * np.ones(shape, x.dtype) if x.dtype != bool else x & np.ones(shape, bool),
    "Shape": lambda x, start=0, end=None: np.array(x.shape[start:end]), "Range": lambda a, b, c: np.arange(a, b, c),
    "Gather": lambda x, places, axis: np.take(x, places, axis), "TopK": top_k,
    "GatherElements": lambda x, places, axis: np.take_along_axis(x, places, axis),
    **{kind: lambda *args, kind=kind, **options: recurrent(kind, *args, **options) for kind in ("RNN", "GRU", "LSTM")},
}  # fmt: skip
