"""`GlobalAveragePooling1D`, `GlobalMaxPooling1D`: one vector for a whole sequence."""

from __future__ import annotations

from .. import ops
from ..backend import standardize_data_format
from ..checks import checked, flag
from ..serialization import export
from .base import InputSpec, Layer

__all__ = ["GlobalAveragePooling1D", "GlobalAvgPool1D", "GlobalMaxPool1D", "GlobalMaxPooling1D"]


class _GlobalPooling1D(Layer):
    """Base of both: where the steps are, and what shape comes out."""

    @checked(keepdims=flag)
    def __init__(self, data_format=None, keepdims=False, **kwargs):
        super().__init__(**kwargs)
        self.data_format = standardize_data_format(data_format)
        self.keepdims = keepdims
        self.input_spec = InputSpec(ndim=3)
        self._build_at_init()

    @property
    def _steps_axis(self):
        return 1 if self.data_format == "channels_last" else 2

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        axis = self._steps_axis
        return (*input_shape[:axis], *((1,) if self.keepdims else ()), *input_shape[axis + 1 :])

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "data_format": self.data_format, "keepdims": self.keepdims}


class GlobalAveragePooling1D(_GlobalPooling1D):
    """Average over the timesteps that count.

    The mask is used up: none goes on. Of a row that is masked whole there is no average: it is NaN, as in Keras. What
    stands at masked timesteps has no part in the result nor in any gradient, be it NaN.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Whether inputs are (batch, steps, features) or (batch, features, steps);
        `numbarnn.backend.image_data_format` by default.
    keepdims : bool
        Whether an axis of length 1 stays where the steps were.
    **kwargs
        Of `Layer`.

    Raises
    ------
    ValueError
        If `data_format` is neither.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> x = np.array([[[1.0], [3.0], [99.0]]])
    >>> layers.GlobalAveragePooling1D()(x, mask=np.array([[True, True, False]]))
    array([[2.]], dtype=float32)
    """

    def __init__(self, data_format=None, keepdims=False, **kwargs):
        super().__init__(data_format, keepdims, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        """Average.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, steps, features), or (batch, features, steps)
        mask : array or Tensor, optional
            Shape (batch, steps); True where a timestep counts.

        Returns
        -------
        array or Tensor, shape (batch, features)
            With `keepdims` the axis of the steps stays, with length 1.
        """
        axis = self._steps_axis
        x = self._working(inputs)
        if mask is None:
            return ops.mean(x, axis=axis, keepdims=self.keepdims)
        counts = ops.expand_dims(ops.cast(mask, bool), 3 - axis)
        total = ops.sum(ops.where(counts, x, 0), axis=axis, keepdims=self.keepdims)
        return total / ops.sum(ops.cast(counts, x.dtype), axis=axis, keepdims=self.keepdims)

    def compute_mask(self, inputs, previous_mask=None):
        """Return None: there are no timesteps left."""
        return None


class GlobalMaxPooling1D(_GlobalPooling1D):
    """The largest value over all timesteps.

    A mask is not taken into account, as in Keras, and not passed on. Equal winners share the gradient.

    Parameters
    ----------
    data_format : {"channels_last", "channels_first"}, optional
        Whether inputs are (batch, steps, features) or (batch, features, steps);
        `numbarnn.backend.image_data_format` by default.
    keepdims : bool
        Whether an axis of length 1 stays where the steps were.
    **kwargs
        Of `Layer`.

    Raises
    ------
    ValueError
        If `data_format` is neither.
    """

    def call(self, inputs):
        """Take the largest.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, steps, features), or (batch, features, steps)

        Returns
        -------
        array or Tensor, shape (batch, features)
            With `keepdims` the axis of the steps stays, with length 1.
        """
        return ops.max(inputs, axis=self._steps_axis, keepdims=self.keepdims)

    def compute_output_spec(self, inputs):
        """Return the shape and dtype of the output: integers stay integers."""
        return self._spec_as(self.compute_output_shape(tuple(inputs.shape)), inputs)


GlobalAvgPool1D = GlobalAveragePooling1D
GlobalMaxPool1D = GlobalMaxPooling1D

export(
    "keras.layers",
    GlobalAveragePooling1D,
    GlobalMaxPooling1D,
    GlobalAvgPool1D=GlobalAvgPool1D,
    GlobalMaxPool1D=GlobalMaxPool1D,
)
