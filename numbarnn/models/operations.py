"""Operations between the layers of a functional model, as configurations: those of Keras where it has the same.

``x + y`` of symbols is a node of the graph whose operation is one of `numbarnn.ops`. Keras has a class for each of its
own, whose configuration holds what the call was given beside the arrays; it is written under Keras's name, and read by
calling the function of `numbarnn.ops` that has this name. What Keras lacks is written as ``numbarnn.ops``.
"""

from __future__ import annotations

import math

from .. import backend, ops, random
from ..graph import Op, Tensor
from ..layers import masks
from ..loading import allow
from ..ops import elementwise, indexing, linalg, nn, reduction, shaping
from ..serialization import export

__all__ = ["describe", "is_operation", "run"]

_KERAS_MODULES = ("keras.src.ops.", "keras.ops")
_OURS = "numbarnn.ops"

# Name here -> (module of Keras, class there, {attribute here: argument there}); arrays come in the same order.
_AXIS, _REDUCED = {"axis": "axis"}, {"axis": "axis", "keepdims": "keepdims"}
_SPECIAL = {
    "abs": ("numpy", "Absolute", {}),
    "all": ("numpy", "All", _REDUCED),
    "any": ("numpy", "Any", _REDUCED),
    "argmax": ("numpy", "Argmax", _REDUCED),
    "argmin": ("numpy", "Argmin", _REDUCED),
    "argsort": ("numpy", "Argsort", _AXIS),
    "broadcast_to": ("numpy", "BroadcastTo", {"shape": "shape"}),
    "cast": ("core", "Cast", {"dtype": "dtype"}),
    "concatenate": ("numpy", "Concatenate", _AXIS),
    "cumprod": ("numpy", "Cumprod", _AXIS),
    "cumsum": ("numpy", "Cumsum", _AXIS),
    "elu": ("nn", "Elu", {"alpha": "alpha"}),
    "erf": ("math", "Erf", {}),
    "expand_dims": ("numpy", "ExpandDims", {"axes": "axis"}),
    "flip": ("numpy", "Flip", _AXIS),
    "getitem": ("numpy", "GetItem", {}),
    "hard_sigmoid": ("nn", "HardSigmoid", {}),
    "isclose": ("numpy", "Isclose", {"rtol": "rtol", "atol": "atol", "equal_nan": "equal_nan"}),
    "log_softmax": ("nn", "LogSoftmax", _AXIS),
    "matmul": ("numpy", "Matmul", {}),
    "max": ("numpy", "Max", _REDUCED),
    "mean": ("numpy", "Mean", _REDUCED),
    "min": ("numpy", "Min", _REDUCED),
    "nan_to_num": ("numpy", "NanToNum", {"nan": "nan", "posinf": "posinf", "neginf": "neginf"}),
    "one_hot": ("nn", "OneHot", {"num_classes": "num_classes", "axis": "axis", "dtype": "dtype"}),
    "ones_like": ("numpy", "OnesLike", {"dtype": "dtype"}),
    "prod": ("numpy", "Prod", _REDUCED),
    "relu": ("nn", "Relu", {}),
    "reshape": ("numpy", "Reshape", {"shape": "newshape"}),
    "roll": ("numpy", "Roll", {"shift": "shift", "axis": "axis"}),
    "round": ("numpy", "Round", {"decimals": "decimals"}),
    "sigmoid": ("nn", "Sigmoid", {}),
    "silu": ("nn", "Silu", {}),
    "softmax": ("nn", "Softmax", _AXIS),
    "softplus": ("nn", "Softplus", {}),
    "softsign": ("nn", "Softsign", {}),
    "sort": ("numpy", "Sort", _AXIS),
    "squeeze": ("numpy", "Squeeze", {"axes": "axis"}),
    "stop_gradient": ("core", "StopGradient", {}),
    "sum": ("numpy", "Sum", _REDUCED),
    "take_along_axis": ("numpy", "TakeAlongAxis", _AXIS),
    "transpose": ("numpy", "Transpose", {"axes": "axes"}),
    "tril": ("numpy", "Tril", {"k": "k"}),
    "triu": ("numpy", "Triu", {"k": "k"}),
    "zeros_like": ("numpy", "ZerosLike", {"dtype": "dtype"}),
}
# Those of one or two arrays and nothing else: the class has the function's name.
_PLAIN = (
    "add subtract multiply divide power maximum minimum mod floor_divide arctan2 logaddexp equal not_equal less "
    "less_equal greater greater_equal logical_and logical_or logical_xor logical_not negative sign exp exp2 expm1 log "
    "log1p log2 log10 sqrt square reciprocal sin cos tan arctan arcsin arccos arcsinh arccosh arctanh sinh cosh tanh "
    "floor ceil trunc isfinite isnan isinf where"
).split()
_TABLE = {
    **{name: ("numpy", "".join(part.capitalize() for part in name.split("_")), {}) for name in _PLAIN},
    **_SPECIAL,
}
_NAMES = {cls: name for name, (_, cls, _) in _TABLE.items()}  # Keras's class -> name here
# These make indices, or one array after the other, already as they are called on symbols.
_MAKE_MANY = frozenset(("Diag", "Diagonal", "Repeat", "Split", "Tile", "Trace", "Unstack"))
_MODULES = (elementwise, indexing, linalg, masks, nn, random, reduction, shaping)
_OPERATIONS = {value.name: value for module in _MODULES for value in vars(module).values() if isinstance(value, Op)}

# As activations and the like they are functions of Keras's.
export("keras.ops", *[value for name in ops.__all__ if isinstance(value := getattr(ops, name), Op)])


def describe(node):
    """Describe a call of an operation.

    Parameters
    ----------
    node : Node
        Of a functional graph.

    Returns
    -------
    module, class_name : str
    config : dict
        What the call was given beside the arrays.
    args : list
        Tensors, arrays and numbers.

    Raises
    ------
    ValueError
        If it is no operation of `numbarnn.ops`.
    """
    operation, attrs, args = node.operation, node.attrs, list(node.args)
    name = operation.name
    if _OPERATIONS.get(name) is not operation:
        raise ValueError(
            f"Operation '{name}' between the layers of a model has no configuration. Put it into the `call` of a layer."
        )
    if name in _TABLE and not (name == "matmul" and any(attrs.values())):
        module, class_name, renamed = _TABLE[name]
        if name == "getitem":
            args = [args[0], list(indexing.whole_key(attrs["key"], args[1:]))]
        if name == "concatenate":
            args = [args]
        config = {there: attrs[here] for here, there in renamed.items()}
        return f"keras.src.ops.{module}", class_name, config, args
    return _OURS, name, dict(attrs), args


def is_operation(module):
    """Say whether a module named in a configuration holds operations.

    Parameters
    ----------
    module : str or None

    Returns
    -------
    bool
    """
    return isinstance(module, str) and (module == _OURS or module.startswith(_KERAS_MODULES))


def run(module, class_name, config, args, kwargs):
    """Do again what `describe`, or Keras, described.

    Parameters
    ----------
    module, class_name : str
    config, kwargs : dict
    args : list
        With the Tensors of the graph to be.

    Returns
    -------
    nest of Tensor

    Raises
    ------
    ValueError
        If there is no such operation, it lacks a symbolic tensor, or would make very much of a small file.
    """
    config = {key: _tuples(value) for key, value in config.items() if key not in ("name", "dtype_policy")}
    if module == _OURS:
        function = _OPERATIONS.get(class_name)
    else:
        name = _NAMES.get(class_name) or backend.to_snake_case(class_name)
        function = getattr(ops, name) if name in ops.__all__ else None
        if class_name == "GetItem":
            args = [args[0], tuple(args[1]) if isinstance(args[1], list) else args[1]]
        if class_name == "Einsum":
            args = [config.pop("subscripts"), *args]
    if function is None:
        raise ValueError(f"numbarnn has no operation '{class_name}' (of module '{module}').")
    if not any(isinstance(x, Tensor) for x in _flat(args)) and not any(isinstance(x, Tensor) for x in kwargs.values()):
        raise ValueError(f"Operation '{class_name}' between layers needs a symbolic tensor among its arguments.")
    if class_name in _MAKE_MANY:
        lengths = [n for x in _flat(args) if isinstance(x, Tensor) for n in x.shape if n]
        counts = [n for n in _flat(config.values()) if isinstance(n, int) and n > 1]
        allow(max(lengths, default=1) * math.prod(counts))
    if module != _OURS:  # Keras writes every default, also of arguments that functions here do not have
        config = {key: value for key, value in config.items() if value is not None and value is not False}
    return function(*args, **config, **kwargs)


def _flat(args):
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def _tuples(value):
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
