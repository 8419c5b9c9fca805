"""`Masking`: skip the timesteps at which all features have one value."""

from __future__ import annotations

from .. import ops
from ..serialization import deserialize_keras_object, export, serialize_keras_object
from .base import Layer
from .masks import set_mask

__all__ = ["Masking"]


class Masking(Layer):
    """Mask the timesteps at which every feature equals a value, and set them to zero.

    Parameters
    ----------
    mask_value : float
    **kwargs
        Of `Layer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> x = np.ones((1, 3, 2), np.float32)
    >>> x[:, 1] = 0
    >>> layers.get_mask(layers.Masking()(x))
    array([[ True, False,  True]])
    """

    def __init__(self, mask_value=0.0, **kwargs):
        super().__init__(**kwargs)
        self.mask_value = deserialize_keras_object(mask_value) if isinstance(mask_value, dict) else mask_value
        self.supports_masking = True
        self._build_at_init()

    def call(self, inputs):
        """Return the inputs with the masked timesteps set to zero.

        Parameters
        ----------
        inputs : array or Tensor, shape (..., features)

        Returns
        -------
        array or Tensor
            Of the same shape; its mask has that shape without the last axis.
        """
        kept = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1, keepdims=True)
        outputs = ops.where(kept, inputs, 0)
        set_mask(outputs, ops.squeeze(kept, axis=-1))
        return outputs

    def compute_mask(self, inputs, previous_mask=None):
        """Return where any feature differs from `mask_value`; the mask of the inputs makes no difference."""
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        return tuple(input_shape)

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the inputs."""
        return self._spec_as(inputs.shape, inputs)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "mask_value": serialize_keras_object(self.mask_value)}


export("keras.layers", Masking)
