"""What any cell gives to the layer around it: sizes, first states, one step; and how its states nest.

A cell is an object with ``call(inputs, states) -> (output, new_states)`` and a `state_size`, which may be a `Layer`.
Within this package the states of a cell are one flat list; cells themselves see them nested like their `state_size`.
"""

import inspect

import numpy as np

from .base import Layer
from .nests import leaves_of, map_nest

__all__ = ["call_cell", "first_states", "flatten_states", "nest_states", "output_size_of", "sizes_of"]


def sizes_of(cell):
    """Return the sizes of a cell's states, nested as `RNN` shows states: always a list, whose items may be lists.

    Parameters
    ----------
    cell : object

    Returns
    -------
    list of int, or of lists
    """

    def sizes(nest):
        if isinstance(nest, (list, tuple)):
            return [sizes(item) for item in nest]
        if isinstance(nest, (int, np.integer)) and not isinstance(nest, bool):
            return int(nest)
        raise ValueError(f"`cell.state_size` must be an int or a list of ints. Received: {cell.state_size}")

    found = sizes(cell.state_size)
    return found if isinstance(found, list) else [found]


def output_size_of(cell):
    """Return the size of a cell's output: its `output_size`, else that of its first state."""
    size = getattr(cell, "output_size", None)
    return leaves_of(sizes_of(cell))[0] if size is None else int(size)


def nest_states(sizes, flat):
    """Return a flat list of states nested like `sizes`."""
    states = iter(flat)
    return map_nest(lambda _: next(states), sizes)


def flatten_states(sizes, states):
    """Return states that are nested like `sizes`, or come one after the other, or a bare one, as a flat list."""
    states = list(states) if isinstance(states, (list, tuple)) else [states]
    nested = len(states) == len(sizes) and all(
        isinstance(state, (list, tuple)) for size, state in zip(sizes, states, strict=True) if isinstance(size, list)
    )
    if not nested:
        return states
    flat = []
    for size, state in zip(sizes, states, strict=True):
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
        return [np.zeros((batch, size), dtype) for size in leaves_of(sizes)]
    # Keras 2 has (inputs, batch_size, dtype), Keras 3 (batch_size).
    known = {"inputs": None, "batch_size": batch, "dtype": np.dtype(dtype).name}
    taken = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        known = {name: value for name, value in known.items() if name in taken}
    return flatten_states(sizes, make(**known))


def call_cell(cell, inputs, states, training):
    """Run one step.

    Parameters
    ----------
    cell : object
        Is told `training` if its `call` has such a parameter.
    inputs : array or Tensor
    states : list of array or Tensor
        Flat.
    training : bool

    Returns
    -------
    output : array or Tensor
    states : list of array or Tensor
        The new ones, flat.

    Raises
    ------
    ValueError
        If the cell returns more or fewer states than it has sizes.
    """
    sizes = sizes_of(cell)
    given = nest_states(sizes, states)  # a list, also of one: Keras's own cells read ``states[0]``
    if isinstance(cell, Layer):
        takes_training = cell._call_info.has_training
    else:
        takes_training = "training" in inspect.signature(cell.call).parameters
    call = cell if callable(cell) else cell.call
    out, new = call(inputs, given, training=training) if takes_training else call(inputs, given)
    new = flatten_states(sizes, new)
    if len(new) != len(states):
        raise ValueError(f"The cell {cell} has {len(states)} states, but its `call` returned {len(new)} of them")
    return out, new
