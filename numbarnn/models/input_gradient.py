"""How a model's outputs change with its inputs."""

from __future__ import annotations

import operator

import numpy as np

from .. import ops, tree
from ..gradients import input_gradients
from ..utils.sequence import Ragged
from .data import standardize
from .outputs import leaves_or_nothing
from .ragged import Padded, arrays_of, has_padded, padded, with_masks

__all__ = ["InputGradient", "check_choice", "scalar_of"]


class InputGradient:
    """The method `input_gradient` of `Model`."""

    def input_gradient(self, x, y=None, *, output=None, sample_weight=None, training=False):
        """The gradient of the outputs, or of what is chosen of them, or of the loss, with respect to the inputs.

        It leaves the model as it was: states and statistics that the call moves are put back. In training and in
        inference it is the same gradient, but for layers that do something else in training, such as `Dropout`.

        Parameters
        ----------
        x : array, Ragged, or nest of these
            A batch. Floating point; for token numbers, take the gradient of the layers after the `Embedding`.
        y, sample_weight : nest of array, optional
            Targets: the gradient is that of the loss of `compile`, with its penalties.
        output : int or callable, optional
            What to differentiate instead: an int is an index into the last axis of the model's only output; a function
            takes the outputs and returns a scalar, or an array, which is summed. Without `y` and `output` it is the
            sum of all outputs.
        training : bool
            In which mode the layers are called.

        Returns
        -------
        ndarray, Ragged, or nest of these
            Like `x`, in the model's float type; None in place of integers, beside other inputs. Of the sum over a
            batch, so that each sample has its own gradient as long as the samples do not mix.

        Raises
        ------
        TypeError
            If no input is floating point.
        ValueError
            If both `y` and `output` are given, what is chosen depends on no input, or `y` comes before `compile`.

        Examples
        --------
        >>> import numpy as np
        >>> from numbarnn import layers, models
        >>> model = models.Sequential([layers.Dense(2, kernel_initializer="ones")])
        >>> model.input_gradient(np.zeros((1, 3), "float32"), output=0).tolist()
        [[1.0, 1.0, 1.0]]
        """
        check_choice("input_gradient", self, y, output, sample_weight)
        x, y, sample_weight = self._standardize(x, y, sample_weight)
        x = padded(standardize(x, self._float_dtype(), "x"))
        floats = [leaf.dtype.kind == "f" for leaf in tree.leaves(arrays_of(x))]
        if not any(floats):
            raise TypeError(
                "Gradients are with respect to floating point inputs. Received: inputs of dtypes "
                f"{sorted({str(leaf.dtype) for leaf in tree.leaves(arrays_of(x))})}. For token numbers, call the "
                "Embedding first and take the gradient of the layers after it, with respect to what it returned"
            )
        number = None if output is None or callable(output) else np.asarray(operator.index(output))
        function = output if callable(output) else None

        def scalar(x, y, sample_weight, number):
            return scalar_of(self, x, y, sample_weight, function, number, training)

        args = with_masks(x), with_masks(padded(y)), arrays_of(padded(sample_weight)), number
        given = iter(input_gradients(scalar, self, args, function))
        gradient = tree.map_structure(lambda _: next(given), arrays_of(x))
        return _cut(x, gradient) if has_padded(x) else gradient


def check_choice(method, model, y, output, sample_weight):
    """Refuse a choice of what is to be differentiated that is none."""
    if output is not None and (y is not None or sample_weight is not None):
        raise ValueError(f"Give `{method}` either targets `y`, for the loss, or `output`, not both.")
    if output is not None and (isinstance(output, bool) or not (callable(output) or hasattr(output, "__index__"))):
        raise ValueError(f"`output` must be an int or a function of the outputs. Received: output={output!r}")
    if y is not None:
        model._require_compiled()
    elif sample_weight is not None:
        raise ValueError(f"The `sample_weight` of `{method}` needs targets `y`, whose losses it weighs.")


def scalar_of(model, x, y, sample_weight, function, number, training):
    """Call a model on symbols; return its loss, or the sum of what is chosen of its outputs.

    Parameters
    ----------
    model : Model
    x, y, sample_weight : nest of Tensor
        With `y` it is the loss.
    function : callable, optional
        Of the outputs: what it returns is summed.
    number : int or Tensor, optional
        An index into the last axis of the only output.
    training : bool

    Returns
    -------
    Tensor
    """
    y_pred = model(x, training=training)
    if y is not None:
        return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
    if function is not None:
        return _total(function(y_pred))
    if number is None:
        return _total(y_pred)
    if len(leaves_or_nothing(y_pred)) != 1:
        raise ValueError(
            f"An int as `output` is for a model with one output, {model.name!r} has "
            f"{len(leaves_or_nothing(y_pred))}. Pass a function of the outputs: output=lambda out: out[0]"
        )
    return _total(leaves_or_nothing(y_pred)[0][..., number])


def _total(values):
    """Sum all elements of a nest."""
    total = None
    for value in leaves_or_nothing(values):
        value = ops.sum(value)
        total = value if total is None else total + ops.cast(value, total.dtype)
    return total


def _cut(x, gradient):
    """Return the gradients of sequences of different lengths as such."""
    if isinstance(x, Padded):
        return Ragged([row[:n] for row, n in zip(gradient, np.count_nonzero(x.mask, axis=1), strict=True)])
    if isinstance(x, dict):
        return {key: _cut(x[key], gradient[key]) for key in x}
    if isinstance(x, (list, tuple)):
        return type(x)([_cut(a, b) for a, b in zip(x, gradient, strict=True)])
    return gradient
