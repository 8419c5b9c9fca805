"""`Embedding`: a table of vectors, looked up by integer."""

from __future__ import annotations

import numpy as np

from .. import constraints, initializers, ops, regularizers
from ..arrays import zeros
from ..checks import checked, flag
from ..graph import KernelOp, Spec
from ..jit import kernel_array
from ..kernels import embedding as kernels
from ..serialization import export
from .base import Layer
from .masks import attach_mask

__all__ = ["Embedding"]


def _forward(ids, table, *, save, layer):
    flat = kernel_array(ids).reshape(-1)
    if flat.dtype != np.int32 and flat.dtype != np.int64:
        flat = flat.astype(np.int64)
    place = kernels.first_outside(flat, table.shape[0])
    if place >= 0:
        position = tuple(int(i) for i in np.unravel_index(place, ids.shape))
        raise IndexError(
            f"Layer {layer!r}: the ids must be in [0, {table.shape[0]}) (input_dim={table.shape[0]}). "
            f"Received id {int(flat[place])} at position {position}"
        )
    rows = kernels.gather(flat, table).reshape(*ids.shape, table.shape[1])
    return rows, (flat, table.shape, table.dtype) if save else None


def _infer(ids, table, *, layer):
    return Spec((*ids.shape, table.shape[1]), table.dtype)


def _pullback(saved, d_outputs, needs, *, layer):
    flat, (size, width), dtype = saved
    if not needs[1]:
        return None, None
    if d_outputs[0] is None:
        return None, zeros((size, width), dtype)
    return None, kernels.scatter_add(flat, kernel_array(d_outputs[0]).reshape(-1, width), size)


_look_up = KernelOp("embedding", _forward, _infer, _pullback, doc="Take rows of a table.")


class Embedding(Layer):
    """Turn integers into vectors: ``embeddings[ids]``.

    Parameters
    ----------
    input_dim : int
        How many vectors there are; ids are in [0, input_dim).
    output_dim : int
        Their length.
    embeddings_initializer : str, Initializer or callable
    embeddings_regularizer : str, Regularizer or callable, optional
    embeddings_constraint : str, Constraint or callable, optional
    mask_zero : bool
        Whether the id 0 stands for padding: a mask that is False there goes on with the output. Otherwise the mask of
        the ids does, if they have one.
    weights : array, or list of one array, optional
        What `embeddings` starts from.
    input_length : int, optional
        The length of the sequences, where it is fixed.
    sparse : bool
        Keras 2's; gradients are dense, so False only.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    embeddings : Variable, shape (input_dim, output_dim)

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layers.Embedding(10, 4)(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    @checked(mask_zero=flag)
    def __init__(
        self,
        input_dim,
        output_dim,
        embeddings_initializer="uniform",
        embeddings_regularizer=None,
        embeddings_constraint=None,
        mask_zero=False,
        weights=None,
        *,
        input_length=None,
        sparse=False,
        **kwargs,
    ):
        for key, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value <= 0:
                raise ValueError(
                    f"`{key}` must be a positive integer. Received: {key}={value} (of type {type(value).__name__})."
                )
        if sparse:
            raise ValueError(f"Argument `sparse` must be False: gradients are dense. Received: sparse={sparse}")
        if not {"input_shape", "batch_input_shape", "batch_shape"} & set(kwargs):
            # Keras 2: a first layer that is an Embedding needs no Input.
            length = list(input_length) if isinstance(input_length, (list, tuple)) else [input_length]
            kwargs["input_shape"] = tuple(length)
        kwargs.setdefault("autocast", False)  # ids are no numbers to compute with
        super().__init__(**kwargs)
        self.input_dim = int(input_dim)
        self.output_dim = int(output_dim)
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = constraints.get(embeddings_constraint)
        self.mask_zero = mask_zero
        self.input_length = input_length
        self.supports_masking = self.mask_zero
        if weights is not None:
            self.build()
            self.set_weights(weights if isinstance(weights, (list, tuple)) else [weights])

    def build(self, input_shape=None):
        """Make the table; `input_shape` makes no difference."""
        if self.built:
            return
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )

    def call(self, inputs):
        """Look the vectors up.

        Parameters
        ----------
        inputs : array or Tensor, of any shape
            Ids; floats are cut to integers.

        Returns
        -------
        array or Tensor, shape (*inputs.shape, output_dim)

        Raises
        ------
        IndexError
            If an id is not in [0, input_dim); nothing has been computed then.
        """
        ids = ops.cast(inputs, "int32") if inputs.dtype.kind not in "iu" else inputs
        return _look_up(ids, self._working(self.embeddings), layer=self.name)

    def compute_mask(self, inputs, previous_mask=None):
        """Return where the ids are not 0, if `mask_zero`; else None."""
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def _pass_mask(self, first, previous, outputs):
        if self.mask_zero:
            return super()._pass_mask(first, previous, outputs)
        # Ids that come with a mask, of padding: where none is made here, that one goes on (Keras drops it).
        return attach_mask(outputs, previous, (first,))

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return (*input_shape, self.output_dim)

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "embeddings_initializer": initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": regularizers.serialize(self.embeddings_regularizer),
            "embeddings_constraint": constraints.serialize(self.embeddings_constraint),
            "mask_zero": self.mask_zero,
        }
        return config if self.input_length is None else {**config, "input_length": self.input_length}


export("keras.layers", Embedding)
