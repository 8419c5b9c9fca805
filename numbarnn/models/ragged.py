"""Sequences of different lengths on their way through a model.

They come as `numbarnn.utils.Ragged` and stay that until a batch is taken. Then each becomes a `Padded`, an array and
its mask (`padded`); the step lets the array carry the mask (`with_masks`), and what comes out at every timestep is cut
to the lengths again (`cut_padding`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import tree
from ..layers.masks import set_mask
from ..utils.sequence import Ragged, pad

__all__ = ["Padded", "arrays_of", "check_lengths", "cut_padding", "has_padded", "padded", "with_masks"]


def check_lengths(x, y, sample_weight):
    """Raise unless Ragged targets and weights have the lengths of a Ragged input: they are padded as it is.

    Parameters
    ----------
    x, y, sample_weight : nest of ndarray and Ragged

    Raises
    ------
    ValueError
    """
    inputs = [leaf for leaf in tree.leaves(x) if isinstance(leaf, Ragged)]
    for name, nest in (("y", y), ("sample_weight", sample_weight)):
        for leaf in tree.leaves(nest):
            if not isinstance(leaf, Ragged) or any(np.array_equal(leaf.lengths, x.lengths) for x in inputs):
                continue
            if not inputs:
                raise ValueError(
                    f"`{name}` is Ragged but `x` is not: pass both as `numbarnn.utils.Ragged`, or pad both with "
                    "`numbarnn.utils.pad`."
                )
            at = int(np.argmax(leaf.lengths != inputs[0].lengths))
            raise ValueError(
                f"The sequences of `{name}` must be as long as those of `x`. Received: sample {at} has "
                f"{leaf.lengths[at]} timesteps in `{name}`, {inputs[0].lengths[at]} in `x`"
            )


class Padded(NamedTuple):
    """A batch of sequences of different lengths: a nest of its array and its mask."""

    array: np.ndarray
    mask: np.ndarray


def _is_padded(x):
    return isinstance(x, Padded)


def has_padded(nest):
    """Say whether there is a `Padded` in a batch."""
    return any(map(_is_padded, tree.leaves(nest, is_leaf=_is_padded)))


def padded(nest):
    """Return a batch with a `Padded` for each Ragged.

    Parameters
    ----------
    nest : nest of ndarray and Ragged, or None

    Returns
    -------
    nest of ndarray and Padded, or None
    """
    if nest is None or type(nest) is np.ndarray:
        return nest
    return tree.map_structure(
        lambda a: Padded(*pad(a, _length_of_batch(a.lengths.max(initial=1)))) if isinstance(a, Ragged) else a, nest
    )


def _length_of_batch(longest):
    """Return the length to pad to: a multiple of the power of 2 that keeps four binary digits of it.

    A step is traced anew for every shape, for 10 to 60 ms, several times what it takes to run. Rounded like this, the
    lengths up to 1000 are 63 shapes, and an all-masked timestep costs a recurrent layer next to nothing.
    """
    step = 1 << max(0, int(longest).bit_length() - 4)
    return -(-int(longest) // step) * step


def arrays_of(nest):
    """Return a batch with the array of each `Padded` in its place."""
    if nest is None or type(nest) is np.ndarray:
        return nest
    return tree.map_structure(lambda x: x.array if _is_padded(x) else x, nest, is_leaf=_is_padded)


def with_masks(nest):
    """Return a batch, of Tensors or arrays, with the array of each `Padded` in its place, carrying the mask."""

    def attach(x):
        if not _is_padded(x):
            return x
        set_mask(x.array, x.mask)
        return x.array

    return tree.map_structure(attach, nest, is_leaf=_is_padded)


def cut_padding(outputs, masks, x):
    """Return the outputs of a batch; those with timesteps that were padded are cut to the lengths of the inputs.

    Parameters
    ----------
    outputs : nest of ndarray
    masks : list of ndarray or None
        The mask of each output. An output without one has no timesteps, or the model has lost count of them: it stays
        as it is.
    x : nest of ndarray and Padded
        The inputs.

    Returns
    -------
    nest of ndarray and Ragged
    """
    inputs = [leaf.mask for leaf in tree.leaves(x, is_leaf=_is_padded) if _is_padded(leaf)]
    # Of several inputs the shortest one that covers all that counts: the one that this output goes along with.
    inputs.sort(key=np.count_nonzero)
    remaining = iter(masks)

    def cut(output):
        mask = next(remaining)
        if mask is None or mask.ndim < 2 or mask.shape[:2] != output.shape[:2]:
            return output
        counts = mask.any(axis=tuple(range(2, mask.ndim))) if mask.ndim > 2 else mask
        for own in inputs:
            if own.shape == counts.shape and not np.any(counts & ~own):
                return Ragged([row[:length] for row, length in zip(output, own.sum(1), strict=True)])
        return output

    return tree.map_structure(cut, outputs)
