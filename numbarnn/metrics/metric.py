"""The base of all metrics."""

from __future__ import annotations

import functools

import numpy as np

from .. import backend
from ..loading import allow
from ..protocols import local, user_line
from ..variable import Variable

# A model's file does not hold the states of its metrics, which may be larger than all its weights.
_NUMBERS_FOR_ONE = 16


def _not_traced(update_state):
    """Make an `update_state` refuse to run where there are no values yet."""

    @functools.wraps(update_state)
    def update(self, *args, **kwargs):
        if local.trace is not None:
            raise TypeError(
                f"{user_line()}: metric '{self.name}' cannot be updated in a `call` or a loss: these are traced, run "
                "once on symbols. Give it to `compile(metrics=...)`, or return the value and update the metric in "
                "`train_step`"
            )
        return update_state(self, *args, **kwargs)

    return update


class Metric:
    """Base of all metrics: `update_state` per batch, `result` at any time, `reset_state` to start anew.

    Parameters
    ----------
    name : str, optional
    dtype : str, optional
        Kept for Keras's sake; sums are formed in float64.
    """

    # "up" or "down" where more or less is better, as callbacks want to know.
    _direction = None
    # Whether `update_state` takes arrays on the GPU. Where not, a batch's predictions are moved for it.
    on_gpu = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "update_state" in cls.__dict__:
            cls.on_gpu = cls.__dict__.get("on_gpu", False)
            cls.update_state = _not_traced(cls.update_state)

    def __init__(self, name=None, dtype=None):
        self.name = name or backend.auto_name(type(self).__name__)
        self.dtype = backend.standardize_dtype(dtype)
        self._variables: list[Variable] = []

    @property
    def variables(self):
        """The metric's state, that of metrics among its attributes included: list of `Variable`."""
        found = list(self._variables)
        for value in vars(self).values():
            for item in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(item, Metric):
                    found.extend(item.variables)
        return found

    def add_variable(self, shape=(), initializer=None, dtype="float64", name=None):
        """Add a state variable.

        Parameters
        ----------
        shape : tuple of int
        initializer : callable or str, optional
            Zeros by default.
        dtype, name : str

        Returns
        -------
        Variable
        """
        allow(int(np.prod(shape, dtype=object)) // _NUMBERS_FOR_ONE)
        if initializer is None:
            value = np.zeros(shape, dtype)
        else:
            from .. import initializers

            value = initializers.get(initializer)(tuple(shape), dtype=dtype)
        variable = Variable(value, trainable=False, name=name, dtype=dtype)
        self._variables.append(variable)
        return variable

    def add_weight(self, shape=(), initializer=None, dtype="float64", name=None):
        """As `add_variable`; a string in first place is the name, as in Keras 2."""
        if isinstance(shape, str):
            shape, name = (), shape
        return self.add_variable(shape, initializer, dtype, name)

    def reset_state(self):
        """Set every state variable to zero."""
        for variable in self.variables:
            variable.data.fill(0)
            variable.touch()

    def reset_states(self):
        """As `reset_state`, the name of Keras 2."""
        self.reset_state()

    def update_state(self, *args, **kwargs):
        """Take a batch into account; to be written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must implement `update_state`.")

    def result(self):
        """The metric's value; to be written by subclasses."""
        raise NotImplementedError(f"{type(self).__name__} must implement `result`.")

    def __call__(self, *args, **kwargs):
        """Update the state and return the result."""
        self.update_state(*args, **kwargs)
        return self.result()

    def get_config(self):
        """The constructor's arguments as plain values.

        Returns
        -------
        dict
        """
        return {"name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        """Make a metric from `get_config`'s dict."""
        return cls(**config)

    def __repr__(self):
        return f"<{type(self).__name__} name={self.name}>"
