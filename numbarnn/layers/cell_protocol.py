"""What any cell gives to the layer around it: sizes, first states, one step; and how its states nest.

A cell is an object with ``call(inputs, states) -> (output, new_states)`` and a `state_size`, which may be a `Layer`.
Within this package the states of a cell are one flat list; cells themselves see them nested like their `state_size`.
"""

import inspect

import numpy as np

from ..arrays import as_array
from ..graph import KernelOp, Spec, suspended
from ..tensor_shape import TensorShape
from .base import Layer
from .nests import leaves_of, map_nest, pack_like

__all__ = [
    "call_cell",
    "first_states",
    "flatten_states",
    "lengths_of",
    "nest_states",
    "output_size_of",
    "output_sizes_of",
    "sizes_of",
    "takes_constants",
]


class Lengths:
    """The axes of one state or output, where a `TensorShape` gives them: unlike that, no nest of sizes."""

    __slots__ = ("dims",)

    def __init__(self, dims):
        self.dims = tuple(dims)

    def __iter__(self):
        return iter(self.dims)

    def __eq__(self, other):
        return isinstance(other, Lengths) and self.dims == other.dims

    def __hash__(self):
        return hash(self.dims)

    def __repr__(self):
        return f"TensorShape({list(self.dims)})"


def _sizes(nest, name, given):
    if isinstance(nest, TensorShape):
        return Lengths(nest)
    if isinstance(nest, dict):
        return type(nest)((key, _sizes(value, name, given)) for key, value in nest.items())
    if isinstance(nest, (list, tuple)):
        items = [_sizes(item, name, given) for item in nest]
        return type(nest)(*items) if hasattr(nest, "_fields") else type(nest)(items)
    if isinstance(nest, (int, np.integer)) and not isinstance(nest, bool):
        return int(nest)
    raise ValueError(
        f"`cell.{name}` must be an int or a numbarnn.TensorShape, or a list, tuple or dict of these. "
        f"Received: {given!r}"
    )


def sizes_of(cell):
    """Return the sizes of a cell's states, nested as `RNN` shows states: always a list, whose items may be nests.

    Parameters
    ----------
    cell : object

    Returns
    -------
    list of int or Lengths, or of nests of them
        A `state_size` that is a dict or a namedtuple is the one item of the list.
    """
    size = cell.state_size
    found = _lists(_sizes(size, "state_size", size))
    return found if isinstance(found, list) else [found]


def _lists(nest):
    """Return a nest with lists in place of plain tuples."""
    if isinstance(nest, (list, tuple)) and not hasattr(nest, "_fields"):
        return [_lists(item) for item in nest]
    return nest


def output_sizes_of(cell):
    """Return the sizes of a cell's outputs, nested like its `output_size`; else the size of its first state."""
    size = getattr(cell, "output_size", None)
    if size is not None:
        return _sizes(size, "output_size", size)
    sizes = leaves_of(sizes_of(cell))
    if not sizes:
        raise ValueError(f"A cell without states needs an `output_size`. Received: cell={cell}")
    return sizes[0]


def output_size_of(cell):
    """Return the size of a cell's first output: an int, or a tuple where it has more than one axis."""
    size = leaves_of(output_sizes_of(cell))[0]
    return size if isinstance(size, int) else tuple(size)


def lengths_of(size):
    """Return the axes that a size stands for, without the batch."""
    return (size,) if isinstance(size, int) else tuple(size)


def nest_states(sizes, flat):
    """Return a flat list of states nested like `sizes`."""
    return pack_like(sizes, flat)


def flatten_states(sizes, states):
    """Return states that are nested like `sizes`, or come one after the other, or a bare one, as a flat list."""

    def is_record(nest):
        return isinstance(nest, dict) or hasattr(nest, "_fields")

    if is_record(states):
        return leaves_of(states)
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    nested = len(states) == len(sizes) and all(
        is_record(size) == is_record(state)
        if is_record(size) or is_record(state)
        else not isinstance(size, list) or isinstance(state, (list, tuple))
        for size, state in zip(sizes, states, strict=True)
    )
    if not nested:
        return states
    flat = []
    for size, state in zip(sizes, states, strict=True):
        if is_record(size):
            flat += leaves_of(state)
        else:
            flat += flatten_states(size, state) if isinstance(size, list) else [state]
    return flat


def first_states(cell, batch, dtype):
    """Return the states that a cell starts from, those of its `get_initial_state` or zeros, as a flat list.

    Parameters
    ----------
    cell : object
    batch : int
    dtype : dtype
    """
    sizes = sizes_of(cell)
    make = getattr(cell, "get_initial_state", None)
    if make is None:
        return [np.zeros((batch, *lengths_of(size)), dtype) for size in leaves_of(sizes)]
    # Keras 2 has (inputs, batch_size, dtype), Keras 3 (batch_size).
    known = {"inputs": None, "batch_size": batch, "dtype": np.dtype(dtype).name}
    taken = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        known = {name: value for name, value in known.items() if name in taken}
    return flatten_states(sizes, make(**known))


def _takes(cell, name):
    if isinstance(cell, Layer):
        return name in cell._call_info.names
    return name in inspect.signature(cell.call).parameters


def takes_constants(cell):
    """Say whether the `call` of a cell takes `constants`."""
    return _takes(cell, "constants")


def call_cell(cell, inputs, states, training, constants=None):
    """Run one step.

    Parameters
    ----------
    cell : object
        Is told `training` and `constants` if its `call` has such parameters.
    inputs : array or Tensor, or nest of them
    states : list of array or Tensor
        Flat.
    training : bool
    constants : list of array or Tensor, optional

    Returns
    -------
    output : array or Tensor, or nest of them
        Nested like `output_size`.
    states : list of array or Tensor
        The new ones, flat.

    Raises
    ------
    ValueError
        If the cell returns something else than an output and its states, or arrays of other shapes than its sizes.
    """
    sizes = sizes_of(cell)
    given = nest_states(sizes, states)  # a list, also of one: Keras's own cells read ``states[0]``
    if isinstance(cell.state_size, dict) or hasattr(cell.state_size, "_fields"):
        given = given[0]
    options = {"training": training} if _takes(cell, "training") else {}
    if constants is not None and takes_constants(cell):
        options["constants"] = constants
    if callable(getattr(cell, "backward", None)):
        return _by_own_backward(cell, inputs, given, options, sizes)
    call = cell if callable(cell) else cell.call
    returned = call(inputs, given, **options)
    if not isinstance(returned, (list, tuple)) or len(returned) != 2:
        got = f"{len(returned)} things" if isinstance(returned, (list, tuple)) else type(returned).__name__
        raise ValueError(
            f"The `call` of cell {cell} must return two things, its output and its new states: "
            f"`return output, [state]`. It returned {got}"
        )
    return _checked(cell, sizes, inputs, *returned)


def _checked(cell, sizes, inputs, out, new):
    """Return output and flat new states of a step; refuse what does not fit the sizes of the cell."""
    flat, expected = flatten_states(sizes, new), leaves_of(sizes)
    if len(flat) != len(expected):
        raise ValueError(
            f"The cell {cell} has {len(expected)} states, but its `call` returned {len(flat)} of them. `state_size` is "
            f"{cell.state_size}: mend it, or what `call` returns"
        )
    batch = next((x.shape[0] for x in leaves_of(inputs) if getattr(x, "shape", ())), None)
    for number, (state, size) in enumerate(zip(flat, expected, strict=True)):
        if not _fits(state, batch, size):
            raise ValueError(
                f"State {number} that the `call` of cell {cell} returned must have shape {(batch, *lengths_of(size))}; "
                f"got {_shape(state)}. `state_size` is {cell.state_size}: mend it, or what `call` returns"
            )
    sizes = output_sizes_of(cell)
    outs, expected = leaves_of(out), leaves_of(sizes)
    given = "output_size" if getattr(cell, "output_size", None) is not None else "state_size"
    mend = (
        ": mend it, or what `call` returns"
        if given == "output_size"
        else ". A cell whose output has another shape needs an `output_size`"
    )
    if len(outs) != len(expected):
        raise ValueError(
            f"The `call` of cell {cell} returned {len(outs)} outputs; expected {len(expected)}. `{given}` is "
            f"{getattr(cell, given)}{mend}"
        )
    for number, (value, size) in enumerate(zip(outs, expected, strict=True)):
        if not _fits(value, batch, size):
            which = f"Output {number}" if len(outs) > 1 else "The output"
            raise ValueError(
                f"{which} that the `call` of cell {cell} returned must have shape {(batch, *lengths_of(size))}; got "
                f"{_shape(value)}. `{given}` is {getattr(cell, given)}{mend}"
            )
    return pack_like(sizes, outs), flat


def _shape(x):
    return tuple(x.shape) if hasattr(x, "shape") else np.shape(x)


def _fits(x, batch, size):
    shape, expected = _shape(x), (batch, *lengths_of(size))
    return len(shape) == len(expected) and all(
        n is None or m is None or n == m for n, m in zip(shape, expected, strict=True)
    )


# -- cells with a gradient of their own ------------------------------------------------------------------------------


def _by_own_backward(cell, inputs, states, options, sizes):
    """Run a step of a cell that has a `backward`, as one operation whose gradient that is."""
    if isinstance(cell, Layer) and not cell.built:
        cell.build(map_nest(lambda x: tuple(x.shape), inputs))
    constants = options.get("constants")
    weights = list(cell.trainable_weights) if isinstance(cell, Layer) else list(getattr(cell, "trainable_weights", ()))
    operation = _OwnStep(cell, inputs, states, constants, options.get("training"), sizes, len(weights))
    flat = operation(*leaves_of(inputs), *leaves_of(states), *leaves_of(constants or []), *weights)
    outs = leaves_of(output_sizes_of(cell))
    return pack_like(output_sizes_of(cell), list(flat[: len(outs)])), list(flat[len(outs) :])


class _OwnStep(KernelOp):
    """One step of a cell whose `call` returns a third value, `saved`, and whose `backward` takes it."""

    def __init__(self, cell, inputs, states, constants, training, sizes, weights):
        self.cell, self.nests, self.training, self.weights = cell, (inputs, states, constants or []), training, weights
        self.counts = [len(leaves_of(nest)) for nest in self.nests]
        self.sizes = sizes
        super().__init__(f"step_of_{type(cell).__name__}", self._forward, self._infer, self._pullback)

    def _nested(self, values):
        """Return inputs, states and constants as the cell sees them."""
        found, values = [], list(values)
        for nest, count in zip(self.nests, self.counts, strict=True):
            found.append(pack_like(nest, values[:count]))
            values = values[count:]
        return found

    def _infer(self, *specs):
        given = specs[: self.counts[0] + self.counts[1]]
        batch, dtype = given[0].shape[0], next(x.dtype for x in given[self.counts[0] :] or given)
        sizes = [*leaves_of(output_sizes_of(self.cell)), *leaves_of(self.sizes)]
        return tuple(Spec((batch, *lengths_of(size)), dtype) for size in sizes)

    def _forward(self, *arrays, save):
        inputs, states, constants = self._nested(arrays)
        options = {} if self.training is None else {"training": self.training}
        if constants:
            options["constants"] = constants
        with suspended():
            returned = self.cell.call(inputs, states, **options)
        if not isinstance(returned, (list, tuple)) or len(returned) != 3:
            raise ValueError(
                f"The cell {self.cell} has a `backward`, so its `call` must return three things: output, new states, "
                "and what `backward` is to be given as `saved`"
            )
        out, new, saved = returned
        out, new = _checked(self.cell, self.sizes, inputs, out, new)
        dtype = self._infer(*map(Spec.of, arrays))[0].dtype
        results = tuple(as_array(x).astype(dtype, copy=False) for x in (*leaves_of(out), *new))
        return results, (arrays, results, saved)

    def _pullback(self, saved, d_outputs, needs):
        arrays, results, saved = saved
        d = [np.zeros_like(x) if g is None else g for g, x in zip(d_outputs, results, strict=True)]
        inputs, states, _ = self._nested(arrays)
        sizes = output_sizes_of(self.cell)
        outs = len(leaves_of(sizes))
        d_states = pack_like(states, d[outs:])
        with suspended():
            returned = self.cell.backward(pack_like(sizes, d[:outs]), d_states, inputs, states, saved)
        if not isinstance(returned, (list, tuple)) or len(returned) != 3:
            raise ValueError(
                f"The `backward` of cell {self.cell} must return three things: d_inputs, d_states and d_weights, the "
                "gradients with respect to the inputs, the states before and the trainable weights"
            )
        d_inputs, d_states, d_weights = returned
        d_weights = leaves_of([] if d_weights is None else d_weights)
        parts = (
            ("inputs", leaves_of(d_inputs), self.counts[0]),
            ("states", leaves_of(d_states), self.counts[1]),
            ("weights", d_weights, self.weights),
        )
        for name, found, count in parts:
            if len(found) != count:
                raise ValueError(
                    f"The `backward` of cell {self.cell} returned {len(found)} gradients of {name}, which are {count}"
                )
        constants = [None] * self.counts[2]
        gradients = [*parts[0][1], *parts[1][1], *constants, *d_weights]
        first = self.counts[0] + self.counts[1]
        if any(needs[first : first + self.counts[2]]):
            raise ValueError(
                f"The `backward` of cell {self.cell} gives no gradients of the constants, which are needed"
            )
        result = []
        for number, (g, x, need) in enumerate(zip(gradients, arrays, needs, strict=True)):
            g = np.zeros_like(x) if g is None and need else g
            if need and np.shape(g) != x.shape:
                raise ValueError(
                    f"Gradient {number} of those that the `backward` of cell {self.cell} returned must have shape "
                    f"{x.shape}. It has shape {np.shape(g)}"
                )
            result.append(as_array(g).astype(x.dtype, copy=False) if need else None)
        return tuple(result)
