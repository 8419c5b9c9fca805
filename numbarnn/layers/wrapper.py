"""`Wrapper`: a layer around another layer."""

from ..serialization import deserialize_keras_object, export, serialize_keras_object
from .base import Layer

__all__ = ["Wrapper"]


class Wrapper(Layer):
    """Base of layers that do something with another layer.

    Parameters
    ----------
    layer : Layer
        The one within; its weights belong to the wrapper too.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    layer : Layer

    Raises
    ------
    ValueError
        If `layer` is no `Layer`.

    See Also
    --------
    keras.layers.Wrapper : where the interface comes from.
    """

    def __init__(self, layer, **kwargs):
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Please initialize `{type(self).__name__}` layer with a `numbarnn.layers.Layer` instance. "
                f"Received: {layer}"
            )
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape=None):
        """Build the layer within for inputs of the same shape."""
        if not self.layer.built:
            self.layer.build(input_shape)

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "layer": serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a layer from `get_config`'s result.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Name -> class or function.

        Returns
        -------
        Wrapper
            New, without weights.
        """
        config = dict(config)
        layer = deserialize_keras_object(config.pop("layer"), custom_objects=custom_objects)
        return cls(layer, **config)


export("keras.layers", Wrapper)
