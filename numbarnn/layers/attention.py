"""`Attention`: each position of one sequence as a mean over those of another, weighted by how well they fit."""

from __future__ import annotations

from functools import partial

from .. import ops, random
from ..checks import checked, flag, fraction, integer
from ..graph import Spec
from ..serialization import export
from .base import Layer
from .nests import shape_of

__all__ = ["Attention"]


class Attention(Layer):
    """``softmax(scores(query, key)) @ value``: dot-product attention, or additive with ``score_mode="concat"``.

    With queries q of Tq positions, keys k and values v of Tv positions, the scores are, for each pair of positions,

    - "dot": ``scale * sum(q * k)``,
    - "concat": ``weight * sum(tanh(scale * (q + k)))``.

    The layer is called on a list, ``[query, value]`` (then the values are the keys) or ``[query, value, key]``.

    Parameters
    ----------
    use_scale : bool
        Whether `scale` is a weight that is trained, starting from 1; else it is 1.
    score_mode : {"dot", "concat"}
    dropout : float
        The part of the attention weights that is dropped in training, in [0, 1].
    seed : int, optional
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    scale : Variable, shape (), or None
    concat_score_weight : Variable, shape (), or None
        Only with "concat".

    References
    ----------
    Luong, Pham and Manning, Effective approaches to attention-based neural machine translation, EMNLP 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> query, value = np.zeros((2, 3, 4), "float32"), np.ones((2, 5, 4), "float32")
    >>> output, scores = layers.Attention()([query, value], return_attention_scores=True)
    >>> output.shape, scores.shape
    ((2, 3, 4), (2, 3, 5))
    """

    @checked(use_scale=flag, dropout=fraction, seed=partial(integer, optional=True))
    def __init__(self, use_scale=False, score_mode="dot", dropout=0.0, seed=None, **kwargs):
        super().__init__(**kwargs)
        if score_mode not in ("dot", "concat"):
            raise ValueError(
                "Invalid value for argument score_mode. Expected one of {'dot', 'concat'}. "
                f"Received: score_mode={score_mode}"
            )
        self.use_scale = use_scale
        self.score_mode = score_mode
        self.dropout = dropout
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed) if dropout > 0 else None
        self.scale = self.concat_score_weight = None

    def build(self, input_shape):
        """Make the weights.

        Parameters
        ----------
        input_shape : list of tuple
        """
        self._check(input_shape)
        if self.use_scale:
            self.scale = self.add_weight(name="scale", shape=(), initializer="ones")
        if self.score_mode == "concat":
            self.concat_score_weight = self.add_weight(name="concat_score_weight", shape=(), initializer="ones")

    def call(self, inputs, mask=None, training=False, return_attention_scores=False, use_causal_mask=False):
        """Attend.

        Parameters
        ----------
        inputs : list of array or Tensor
            ``query`` of shape (batch, Tq, features), ``value`` (batch, Tv, features), and, if it is not the value,
            ``key`` of the same shape.
        mask : list of array, Tensor or None, optional
            Of the query, shape (batch, Tq): where it is False, the output is zero. Of the value, shape (batch, Tv):
            where it is False, nothing is looked at.
        training : bool
        return_attention_scores : bool
            Whether to return the attention weights too.
        use_causal_mask : bool
            Whether position i looks at positions up to i only.

        Returns
        -------
        array or Tensor, shape (batch, Tq, features)
            With ``return_attention_scores`` a tuple: this and the weights, shape (batch, Tq, Tv), after mask, softmax
            and dropout.
        """
        self._check(inputs, mask)
        query, value, key = self._parts(inputs)
        query_mask, value_mask = (None, None) if mask is None else mask[:2]
        scores = self._scores(query, key)
        allowed = None if value_mask is None else ops.expand_dims(value_mask, -2)
        if use_causal_mask:
            ones = ops.ones_like(scores[:1], dtype="int32")  # as long as the scores, whose length may not be known yet
            earlier = ops.greater_equal(ops.cumsum(ones, axis=-2), ops.cumsum(ones, axis=-1))
            allowed = earlier if allowed is None else ops.logical_and(allowed, earlier)
        if allowed is not None:
            scores = ops.where(allowed, scores, scores - 1e9)  # a row that is masked throughout stays as it is
        weights = ops.softmax(scores, axis=-1)
        if training and self.dropout > 0:
            weights = random.dropout(weights, self.dropout, seed=self.seed_generator)
        outputs = ops.matmul(weights, value)
        if query_mask is not None:
            outputs = ops.where(ops.expand_dims(query_mask, -1), outputs, 0.0)
        return (outputs, weights) if return_attention_scores else outputs

    def _scores(self, query, key):
        scale = None if self.scale is None else self._working(self.scale)
        if self.score_mode == "dot":
            scores = ops.matmul(query, ops.swapaxes(key, -2, -1))
            return scores if scale is None else ops.multiply(scores, scale)
        pairs = ops.expand_dims(query, -2) + ops.expand_dims(key, -3)
        pairs = pairs if scale is None else ops.multiply(pairs, scale)
        return ops.multiply(ops.sum(ops.tanh(pairs), axis=-1), self._working(self.concat_score_weight))

    @staticmethod
    def _parts(inputs):
        query, value = inputs[:2]
        return query, value, inputs[2] if len(inputs) > 2 else value

    def _check(self, inputs, mask=None):
        for what, given in (("inputs", inputs), ("mask", mask)):
            if given is None and what == "mask":
                continue
            names = "[query_mask, value_mask]" if what == "mask" else "[query, value] or [query, value, key]"
            if not isinstance(given, (list, tuple)) or not 2 <= len(given) <= 3:
                raise ValueError(
                    f"{type(self).__name__} layer must be called on a list of {what} of length 2 or 3, namely {names}. "
                    f"Received: {what}={given}"
                )

    def compute_mask(self, inputs, previous_mask=None):
        """Return the query's mask."""
        self._check(inputs, previous_mask)
        return None if previous_mask is None else previous_mask[0]

    def compute_output_shape(self, input_shape):
        """Return the shape of the output for a list of shapes."""
        self._check(input_shape)
        return (*input_shape[0][:-1], input_shape[1][-1])

    def compute_output_spec(
        self, inputs, mask=None, training=None, return_attention_scores=False, use_causal_mask=False
    ):
        """Return the shape and dtype of the output, and of the attention weights if they are wanted."""
        self._check(inputs, mask)
        query, _, key = self._parts(shape_of(inputs))
        output = Spec(self.compute_output_shape(shape_of(inputs)), self.compute_dtype)
        if return_attention_scores:
            return output, Spec((*query[:-1], key[-2]), self.compute_dtype)
        return output

    def get_config(self):
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "use_scale": self.use_scale,
            "score_mode": self.score_mode,
            "dropout": self.dropout,
            "seed": self.seed,
        }


export("keras.layers", Attention)
