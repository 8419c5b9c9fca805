"""`StackedRNNCells`: cells on top of each other as one cell."""

from ..checks import flag
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from ..tensor_shape import TensorShape
from .base import Layer
from .cell_protocol import (
    call_cell,
    first_states,
    flatten_states,
    lengths_of,
    nest_states,
    output_sizes_of,
    sizes_of,
)
from .nests import first_shape, leaves_of, map_nest

__all__ = ["StackedRNNCells"]


class StackedRNNCells(Layer):
    """Cells on top of each other: what one gives is the input of the next. `RNN` makes one of a list of cells.

    Built-in cells run one after the other over the whole sequence, on their kernels.

    Parameters
    ----------
    cells : list of Layer or other cells
    reverse_state_order : bool
        States in the order from the last cell to the first.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    state_size : list
        The state sizes of the cells.
    output_size : int
        That of the last cell.

    Raises
    ------
    ValueError
        If there is no cell, or a cell lacks `call` or `state_size`.

    See Also
    --------
    keras.layers.StackedRNNCells : where the interface comes from.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> stack = layers.StackedRNNCells([layers.LSTMCell(4), layers.LSTMCell(2)])
    >>> out, [h1, c1], [h2, c2] = layers.RNN(stack, return_state=True)(np.zeros((3, 5, 6), np.float32))
    >>> out.shape, c1.shape, c2.shape
    ((3, 2), (3, 4), (3, 2))
    """

    def __init__(self, cells, *, reverse_state_order=False, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})  # each cell brings its inputs into its own type
        if not isinstance(cells, (list, tuple)) or not cells:
            raise ValueError(f"Argument `cells` must be a list of one cell at least. Received: cells={cells}")
        for cell in cells:
            if isinstance(cell, Layer):
                cell._check_super_called()
            if not callable(getattr(cell, "call", None)):
                raise ValueError(f"All cells must have a `call` method. Received cell without a `call` method: {cell}")
            if not hasattr(cell, "state_size"):
                raise ValueError(
                    f"All cells must have a `state_size` attribute. Received cell without a `state_size`: {cell}"
                )
        self.cells = list(cells)
        self.reverse_state_order = flag("reverse_state_order", reverse_state_order)

    def _in_state_order(self, items):
        """Turn a list from the order of the cells into that of the states, or back."""
        return list(items)[::-1] if self.reverse_state_order else list(items)

    @property
    def state_size(self):
        """The state sizes of the cells, a list."""
        return self._in_state_order(cell.state_size for cell in self.cells)

    @property
    def output_size(self):
        """The output size of the last cell."""
        size = getattr(self.cells[-1], "output_size", None)
        if size is None:
            size = output_sizes_of(self.cells[-1])
            return size if isinstance(size, int) else TensorShape(size)
        return size

    @property
    def fused_cells(self):
        """The cells, if all of them have kernels and nothing but these is to be done at each step; else None."""
        plain = type(self).call is StackedRNNCells.call and self._activity_regularizer is None
        has_kernels = all(getattr(cell, "fused_cell", None) is not None for cell in self.cells)
        return self.cells if plain and has_kernels else None

    def split_states(self, flat):
        """Return a flat list of states as one flat list for each cell, in the order of the cells."""
        states, parts = iter(flat), []
        for cell in self._in_state_order(self.cells):
            parts.append([next(states) for _ in leaves_of(sizes_of(cell))])
        return self._in_state_order(parts)

    def join_states(self, parts):
        """Return the flat list of which these are the `split_states`."""
        return [state for part in self._in_state_order(parts) for state in part]

    def build(self, input_shape):
        """Build each cell for the outputs of the one before."""
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(input_shape)
            batch = first_shape(input_shape)[0]
            input_shape = map_nest(lambda size, batch=batch: (batch, *lengths_of(size)), output_sizes_of(cell))

    def call(self, inputs, states, training=False, constants=None):
        """One step of all cells.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, features), or nest of them
        states : list
            Nested like `state_size`, or one after the other.
        training : bool
            Passed to those cells whose `call` takes it.
        constants : list of arrays, optional
            Passed to those cells whose `call` takes it.

        Returns
        -------
        output : array or Tensor, shape (batch, output_size)
        states : list
            The new ones, nested like `state_size`.

        Raises
        ------
        ValueError
            If there are more or fewer states than the cells have.
        """
        sizes, parts = sizes_of(self), []
        flat = flatten_states(sizes, states)
        if len(flat) != len(leaves_of(sizes)):
            raise ValueError(
                f"Cell '{self.name}' has {len(leaves_of(sizes))} states, but it was called with {len(flat)} of them"
            )
        for cell, own in zip(self.cells, self.split_states(flat), strict=True):
            inputs, new = call_cell(cell, inputs, own, training, constants)
            parts.append(new)
        return inputs, nest_states(sizes, self.join_states(parts))

    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        """Return the states that a sequence starts from, those of each cell.

        Parameters
        ----------
        inputs : array or Tensor, optional
            Gives the batch size and the type where these are not given.
        batch_size : int
        dtype : str, optional

        Returns
        -------
        list
            Nested like `state_size`.
        """
        if inputs is not None:
            batch_size, dtype = inputs.shape[0], dtype or inputs.dtype
        parts = [first_states(cell, batch_size, dtype or self._working_dtype) for cell in self.cells]
        return nest_states(sizes_of(self), self.join_states(parts))

    def get_config(self):
        """Return the arguments that make this cell again."""
        config = {**super().get_config(), "cells": serialize_keras_object(self.cells)}
        return {**config, "reverse_state_order": True} if self.reverse_state_order else config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a stack from `get_config`'s result.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Name -> class or function.
        """
        return cls(**{**config, "cells": deserialize_keras_object(config["cells"], custom_objects)})


export("keras.layers", StackedRNNCells)
