"""What a file holds for the weights of a model: collected and checked before any weight is changed."""

from __future__ import annotations

import warnings

import numpy as np

from ..optimizers import SGD

__all__ = ["Assignments"]


class Assignments:
    """Arrays for variables. Either all are assigned or none.

    Parameters
    ----------
    skip_mismatch : bool
        Warn of what does not fit, and leave it out, instead of raising.
    """

    def __init__(self, skip_mismatch=False):
        self._skip_mismatch = skip_mismatch
        self._pairs, self._loaders, self._problems = [], [], []

    def refuse(self, problem):
        """Note something that does not fit.

        Parameters
        ----------
        problem : str
        """
        self._problems.append(problem)

    def add(self, owner, variables, stored):
        """Read what is stored for the variables of one layer.

        Parameters
        ----------
        owner : str
            Whose they are, for messages.
        variables : list of Variable
        stored : list of Dataset
            In the same order.
        """
        if len(variables) != len(stored):
            self.refuse(f"{owner}: expected {len(variables)} weights, found {len(stored)}")
            return
        pairs = []
        for variable, dataset in zip(variables, stored, strict=True):
            if not np.can_cast(dataset.dtype, variable.dtype, "same_kind"):
                self.refuse(f"{owner}: weight '{variable.name}' is of {variable.dtype}, found {dataset.dtype}")
                return
            if dataset.shape != variable.shape:
                self.refuse(f"{owner}: weight '{variable.name}' has shape {variable.shape}, found {dataset.shape}")
                return
            pairs.append((variable, dataset.read(variable.shape)))
        self._pairs += pairs

    def add_loader(self, layer, store):
        """Keep what is stored for a layer with a `load_own_variables` of its own.

        Parameters
        ----------
        layer : Layer
        store : dict
            Name -> array.
        """
        self._loaders.append((layer, store))

    def add_optimizer(self, optimizer, model, stored):
        """Read what is stored for an optimizer.

        Parameters
        ----------
        optimizer : Optimizer
        model : Model
            If the optimizer is what it was compiled with, it is built for its trainable weights.
        stored : list of Dataset
            The count of steps, the learning rate (which Keras 2 leaves out), the slots.
        """
        if isinstance(optimizer, SGD) and not optimizer.momentum and len(stored) == 1 + len(model._trained_variables()):
            stored = stored[:1]  # Keras 2 has slots for it that it does not use
        own = len(optimizer.variables) if not optimizer.built else _count_of_own(optimizer)
        if len(stored) > own and not optimizer.built and getattr(model, "optimizer", None) is optimizer:
            optimizer.build(model._trained_variables())
        variables = optimizer.variables
        if len(stored) == own:
            variables = variables[:own]  # of an optimizer that had not done a step
        elif len(stored) == len(variables) - 1 and own == 2:
            variables = [variables[0], *variables[2:]]
        if len(stored) != len(variables):
            warnings.warn(
                f"The state of optimizer '{optimizer.name}' is not loaded, because it has {len(variables)} variables "
                f"and {len(stored)} were saved. It starts anew.",
                stacklevel=2,
            )
            return
        self.add(f"optimizer '{optimizer.name}'", variables, stored)

    def _check(self):
        if not self._problems:
            return
        text = "; ".join(self._problems)
        if not self._skip_mismatch:
            raise ValueError(f"The file does not fit the model, and nothing was loaded: {text}")
        warnings.warn(f"Not loaded, because it does not fit the model: {text}", stacklevel=3)

    def assign(self):
        """Set all weights.

        Raises
        ------
        ValueError
            If something does not fit, or a layer's own `load_own_variables` fails; all is as it was then.
        """
        self._check()
        before = [(v, v.numpy()) for v, _ in self._pairs] if self._loaders else []
        before += [(v, v.numpy()) for layer, _ in self._loaders for v in layer.variables]
        for variable, value in self._pairs:
            variable.assign(value)
        for layer, store in self._loaders:
            try:
                layer.load_own_variables(store)
            except Exception as error:
                for variable, value in before:
                    variable.assign(value)
                raise ValueError(
                    f"Nothing was loaded, because `load_own_variables` of layer '{layer.name}' failed: {error!r}"
                ) from error


def _count_of_own(optimizer):
    """How many variables an optimizer has beside its slots: the count of steps, and the rate if no schedule sets it."""
    return 1 + (optimizer.variables[1].name == "learning_rate" if len(optimizer.variables) > 1 else 0)
