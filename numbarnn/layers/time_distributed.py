"""`TimeDistributed`: a layer applied to every timestep."""

from .. import ops, tree
from ..graph import Op, Spec
from ..serialization import export
from .masks import masks_of, set_mask
from .nests import is_shape, is_values, leaves_of, map_nest
from .wrapper import Wrapper

__all__ = ["TimeDistributed"]


class TimeDistributed(Wrapper):
    """Apply a layer to every timestep, with the same weights.

    The timesteps of all samples come to the layer as one batch of batch * timesteps, as in Keras 2: what it does over
    its batch (the moments of `BatchNormalization`) it does over samples and timesteps together, and its penalties
    count. A layer with states that go from call to call (``stateful=True``, also somewhere within) is called once for
    each timestep instead, with the batch as it is.

    Parameters
    ----------
    layer : Layer
        It takes (batch, ...) and returns (batch, ...), or nests of these.
    **kwargs
        Of `Layer`. The inputs are not cast here but by the layer within.

    Raises
    ------
    ValueError
        If `layer` is no `Layer`.

    See Also
    --------
    keras.layers.TimeDistributed : where the interface comes from.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> words = np.array([[[1, 2, 0], [3, 0, 0]]])  # one document of two sentences of up to three words
    >>> vectors = layers.TimeDistributed(layers.Embedding(4, 8, mask_zero=True))(words)
    >>> layers.TimeDistributed(layers.LSTM(5))(vectors).shape
    (1, 2, 5)
    """

    def __init__(self, layer, **kwargs):
        kwargs.setdefault("autocast", False)
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    @property
    def _step_by_step(self):
        """Whether the layer is called once for each timestep."""
        return any(getattr(inner, "stateful", False) for inner in self.layer._flatten_layers())

    def build(self, input_shape):
        """Build the layer within.

        Parameters
        ----------
        input_shape : tuple, or nest of them
            (batch, timesteps, ...); batch and timesteps may be None.
        """
        keep_batch = self._step_by_step
        super().build(_map_shapes(lambda shape: _one_step(shape, shape[0] if keep_batch else None), input_shape))

    # -- calling ------------------------------------------------------------------------------------------------

    def call(self, inputs, training=None, mask=None):
        """Apply the layer to every timestep.

        Parameters
        ----------
        inputs : array or Tensor, shape (batch, timesteps, ...), or nest of them
        training : bool, optional
            For the layer within.
        mask : array or Tensor, shape (batch, timesteps, ...), optional
            For the layer within, if its `call` takes one, without the axis of the timesteps. Where that layer takes
            sequences itself, a mask (batch, timesteps) comes to it repeated along them: they are masked whole.

        Returns
        -------
        array or Tensor, shape (batch, timesteps, ...), or nest of them

        Raises
        ------
        ValueError
            If the inputs have fewer than three axes, or the first two of inputs and mask differ.
        """
        first = _check_inputs(inputs)
        mask = _check_mask(mask, first)
        info = self.layer._call_info
        kwargs = {"training": training} if info.has_training and training is not None else {}
        masks = _parts(inputs, mask) if mask is not None and info.has_mask else None
        if self._step_by_step:
            return self._each_step(inputs, masks, first, kwargs)
        if masks is not None:
            kwargs["mask"] = map_nest(_fold, masks)
        outputs = self.layer(map_nest(_fold, inputs), **kwargs)
        # A mask that comes out of a model within is known by now, and only by now.
        found = masks_of(outputs)
        outputs = map_nest(lambda y: self._unfold(y, first), outputs)
        if found is not None:
            for output, one in zip(leaves_of(outputs), leaves_of(found), strict=True):
                if one is not None:
                    set_mask(output, _unfold(one, first))
        return outputs

    def _each_step(self, inputs, masks, first, kwargs):
        timesteps = first.shape[1]
        if timesteps == 0:
            raise ValueError(
                f"Layer '{self.name}' calls the stateful layer within once for each timestep, but there are none. "
                f"Received: inputs of shape {tuple(first.shape)}"
            )
        steps = []
        for t in range(1 if timesteps is None else timesteps):
            if masks is not None:
                kwargs["mask"] = _at(masks, t)
            steps.append(self.layer(_at(inputs, t), **kwargs))
        if timesteps is None:  # shapes alone are asked for: one timestep gives those of all
            return map_nest(lambda y: _unfold_like(y, first), steps[0])
        return tree.map_structure(lambda *values: ops.stack(values, axis=1), *steps)

    def _unfold(self, y, first):
        rows = None if None in first.shape[:2] else first.shape[0] * first.shape[1]
        if not y.shape or (rows is not None and y.shape[0] not in (rows, None)):
            raise ValueError(
                "`TimeDistributed` needs a layer that returns one row for each row of its inputs. Layer "
                f"'{self.layer.name}' returned shape {tuple(y.shape)} for {rows} rows"
            )
        return _unfold(y, first)

    # -- shapes, masks ------------------------------------------------------------------------------------------

    def compute_mask(self, inputs, previous_mask=None):
        """Return the mask that the layer within gives, where it gives none that of the timesteps.

        Parameters
        ----------
        inputs : array or Tensor, or nest of them
        previous_mask : array or Tensor, shape (batch, timesteps, ...), optional

        Returns
        -------
        array or Tensor, shape (batch, timesteps, ...), or nest of them, or None
        """
        first = leaves_of(inputs)[0]
        previous_mask = _check_mask(previous_mask, first)
        found = None
        if self.layer.supports_masking:
            masks = previous_mask
            if masks is not None and self.layer._call_info.has_mask:
                masks = _parts(inputs, masks)
            found = self.layer.compute_mask(map_nest(_fold, inputs), masks if masks is None else map_nest(_fold, masks))
        if any(one is not None for one in leaves_of(found)):
            return map_nest(lambda one: None if one is None else _unfold(one, first), found)
        previous = next((one for one in leaves_of(previous_mask) if one is not None), None)
        if previous is None or len(previous.shape) == 2:
            return previous
        return ops.any(previous, axis=tuple(range(2, len(previous.shape))))

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for one of the input."""
        shapes = []
        _map_shapes(shapes.append, input_shape)
        inner = _map_shapes(lambda shape: _one_step(shape, shape[0]), input_shape)
        return _map_shapes(lambda shape: (*shapes[0][:2], *shape[1:]), self.layer.compute_output_shape(inner))

    def compute_output_spec(self, inputs, training=None, mask=None):
        """Say what shape and dtype the outputs have, without computing them."""
        first = _check_inputs(inputs)
        inner = map_nest(lambda x: Spec(_one_step(tuple(x.shape), first.shape[0]), x.dtype), inputs)

        def with_time(spec):
            dtype = self._result_dtype if self._result_dtype is not None and spec.dtype.kind == "f" else spec.dtype
            return Spec((*first.shape[:2], *spec.shape[1:]), dtype)

        return map_nest(with_time, self.layer.compute_output_spec(inner))


# ---------------------------------------------------------------------------------------------------------------
# the axis of the timesteps


def _one_step(shape, batch):
    """Return the shape of one timestep."""
    if len(shape) < 3:
        raise ValueError(
            "`TimeDistributed` Layer should be passed an `input_shape` with at least 3 dimensions, "
            f"received: {tuple(shape)}"
        )
    return (batch, *shape[2:])


def _map_shapes(fn, shapes):
    """Return a nest of shapes with the results of `fn` on each."""
    if is_shape(shapes):
        return fn(tuple(shapes))
    if isinstance(shapes, dict):
        return {key: _map_shapes(fn, value) for key, value in shapes.items()}
    return type(shapes)([_map_shapes(fn, value) for value in shapes])


def _agree(a, b):
    return all(n is None or m is None or n == m for n, m in zip(a[:2], b[:2], strict=True))


def _check_inputs(inputs):
    """Raise unless all inputs have timesteps, as many of each; return the first input."""
    first, *others = leaves_of(inputs)
    for x in (first, *others):
        if not hasattr(x, "shape"):
            raise ValueError(f"Inputs to a layer should be tensors. Got '{x}' (of type {type(x)}) as input.")
        _one_step(tuple(x.shape), None)
        if not _agree(x.shape, first.shape):
            raise ValueError(
                "All inputs of a `TimeDistributed` layer must have the same batch size and number of timesteps. "
                f"Received: shapes {[tuple(x.shape) for x in (first, *others)]}"
            )
    return first


def _check_mask(mask, first):
    """Return the mask, lists as arrays; raise unless it has the batch size and the timesteps of the first input."""
    if mask is not None and not is_values(mask):
        mask = ops.convert_to_tensor(mask)
    for one in leaves_of(mask):
        if one is None:
            continue
        shape, expected = tuple(one.shape), tuple(first.shape)
        if len(shape) < 2:
            raise ValueError(
                "The `mask` passed to the `TimeDistributed` layer must be at least 2D (e.g., `(batch_size, "
                f"timesteps)`), but it has {len(shape)} dimension(s) with shape {shape}."
            )
        if not _agree(shape, expected):
            raise ValueError(
                f"The `mask` passed to the `TimeDistributed` layer has a shape {shape} that is incompatible with the "
                f"input shape {expected}. The first two dimensions of the mask (batch size and timesteps) must match "
                f"the input's first two dimensions. Expected mask shape prefix: ({expected[0]}, {expected[1]})."
            )
    return mask


def _parts(inputs, mask):
    """Return the masks of the layer within, still with the timesteps.

    A mask (batch, timesteps) over timesteps that hold sequences, (batch, timesteps, steps, ..., features), is repeated
    along these: that is the mask that layers over sequences take.
    """

    def repeated(mask, x):
        if mask is None or len(mask.shape) > 2 or len(x.shape) < 4:
            return mask
        # Compared with a slice of the inputs only to have its shape, which may not be known yet.
        return ops.broadcast_like(ops.expand_dims(mask, -1), x[(slice(None),) * 3 + (0,) * (len(x.shape) - 3)])

    if not isinstance(mask, (list, tuple, dict)):
        return repeated(mask, leaves_of(inputs)[0])
    return tree.map_structure(repeated, mask, inputs)


def _at(nest, t):
    return map_nest(lambda x: None if x is None else x[:, t], nest)


def _fold(x):
    """(batch, timesteps, ...) -> (batch * timesteps, ...)."""
    if x is None:
        return None
    if None in x.shape:
        return _fold_like(x)
    return ops.reshape(x, (x.shape[0] * x.shape[1], *x.shape[2:]))


def _unfold(y, x):
    """(batch * timesteps, ...) -> (batch, timesteps, ...), those of `x`."""
    if None in x.shape[:2] or None in y.shape:
        return _unfold_like(y, x)
    return ops.reshape(y, (*x.shape[:2], *y.shape[1:]))


def _rows(shape):
    return None if None in shape[:2] else shape[0] * shape[1]


# The same where lengths are not known yet.
_fold_like = Op(
    "fold_timesteps",
    lambda x: x.reshape(_rows(x.shape), *x.shape[2:]),
    lambda x: Spec((_rows(x.shape), *x.shape[2:]), x.dtype),
    lambda node, d: _unfold_like(d, node.inputs[0]),
)
_unfold_like = Op(
    "unfold_timesteps",
    lambda y, x: y.reshape(*x.shape[:2], *y.shape[1:]),
    lambda y, x: Spec((*x.shape[:2], *y.shape[1:]), y.dtype),
    lambda node, d: (_fold(d), None),
)


export("keras.layers", TimeDistributed)
