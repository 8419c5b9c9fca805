"""`Stepper`: a model one timestep at a time, its states inside; what `Model.stepper` returns."""

from __future__ import annotations

import numpy as np

from ..kernels import streaming
from ..variable import clock
from .stages import chain_of

__all__ = ["Stepper"]


class Stepper:
    """A model that takes one timestep and gives one output, and keeps its states in between.

    Made by `Model.stepper`. Steps have the bits that the model gives for the whole sequence: after the timesteps
    ``x[:, 0], ..., x[:, t]`` the output is ``model.predict(x[:, : t + 1])``, or its last timestep where the model
    returns sequences. The states start as a sequence's do; those of ``stateful=True`` layers in the model are neither
    read nor changed. The first step ever of a kind of chain compiles, for some seconds; the code is kept on disk. Use a
    stepper from one thread at a time. Steps are taken on the CPU, whatever the device is; weights that were trained on
    a GPU are fetched.

    Parameters
    ----------
    model : Model
    batch_size : int
        How many streams run side by side.

    Attributes
    ----------
    batch_size : int
    input_shape, output_shape : tuple
        Of one timestep: (batch_size, features), or (batch_size,) where the model takes ids; (batch_size, units).
    input_dtype, dtype : dtype
        Of what compiled code takes as `x`, int64 for ids; of the output.

    Raises
    ------
    TypeError
        If `batch_size` is no whole number.
    ValueError
        If it is less than 1, or the model cannot run one timestep at a time: the message names the layer.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, models
    >>> model = models.Sequential([layers.Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
    >>> stepper = model.stepper()
    >>> x = np.ones((1, 5, 3), "float32")
    >>> outputs = [stepper(x[:, t]) for t in range(5)]
    >>> bool((outputs[-1] == model.predict(x, verbose=0)).all())
    True
    """

    def __init__(self, model, batch_size=1):
        if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
            raise TypeError(f"Argument `batch_size` must be a whole number. Received: batch_size={batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"Argument `batch_size` must be at least 1. Received: batch_size={batch_size}")
        self.model = model
        self.batch_size = int(batch_size)
        self._chain = chain_of(model, self.batch_size)
        self.input_shape, self.output_shape = self._chain.input_shape, self._chain.output_shape
        self.input_dtype, self.dtype = self._chain.input_dtype, self._chain.dtype
        self._clock = clock()
        self._pack()

    def __repr__(self):
        return f"<Stepper of '{self.model.name}': {self.input_shape} -> {self.output_shape}, {self.dtype}>"

    def __reduce__(self):
        return _resumed, (self.model, self.batch_size, self.states)

    # -- stepping -----------------------------------------------------------------------------------------------

    def step(self, x, out=None):
        """Take one timestep; where something is raised, the states stay as they are.

        Parameters
        ----------
        x : array_like, shape `input_shape`
            Features, or ids (whole numbers) where the model begins with an `Embedding`. Cast and copied unless it is a
            C-contiguous, writeable array of `input_dtype`.
        out : ndarray, shape `output_shape`, dtype `dtype`, optional
            C-contiguous and writeable, to be written: then nothing is allocated. It may be `x`.

        Returns
        -------
        ndarray, shape `output_shape`
            `out`, or a new array.

        Raises
        ------
        TypeError
            If `x` does not hold numbers, or `out` is no array of `dtype`.
        ValueError
            If the shape of one of them is another, or `out` cannot be written to as it lies.
        IndexError
            If an id is not in the table of the `Embedding`.
        RuntimeError
            If layers of the model were changed since the stepper was made, not only their weights.
        """
        if (
            type(x) is not np.ndarray
            or x.dtype != self.input_dtype
            or x.shape != self.input_shape
            or not x.flags.carray
        ):
            x = self._fitting_input(x)
        if out is None:
            out = np.empty(self.output_shape, self.dtype)
        elif (
            type(out) is not np.ndarray
            or out.dtype != self.dtype
            or out.shape != self.output_shape
            or not out.flags.carray
        ):
            self._refuse_output(out)
        if clock() != self._clock:
            self._check_model()
        for variable, version in self._seen:
            if variable.version != version:
                self._pack()
                break
        try:
            streaming.step(self._stages, x, out)
        except IndexError:
            size = len(self._stages[0].table)
            raise IndexError(f"The ids must be in [0, {size}) (input_dim={size}). Received: x={x.tolist()}") from None
        return out

    __call__ = step

    def _fitting_input(self, x):
        x = np.asarray(x)
        kinds, wanted = ("iu", "whole numbers") if self.input_dtype.kind == "i" else ("biuf", "real numbers")
        if x.dtype.kind not in kinds:
            raise TypeError(f"Argument `x` must hold {wanted}. Received: dtype {x.dtype}")
        if x.shape != self.input_shape:
            raise ValueError(f"Argument `x` must have shape {self.input_shape}. Received: shape {x.shape}")
        return np.require(x, self.input_dtype, "CAW")

    def _refuse_output(self, out):
        if type(out) is not np.ndarray or out.dtype != self.dtype:
            found = f"dtype {out.dtype}" if type(out) is np.ndarray else type(out).__name__
            raise TypeError(f"Argument `out` must be a NumPy array of {self.dtype}. Received: {found}")
        if out.shape != self.output_shape:
            raise ValueError(f"Argument `out` must have shape {self.output_shape}. Received: shape {out.shape}")
        raise ValueError(
            f"Argument `out` must be C-contiguous, aligned and writeable. Received: strides {out.strides}, "
            f"writeable={out.flags.writeable}"
        )

    def _check_model(self):
        """Something in some layer has changed: refuse to go on if it was the model's chain; else pack anew."""
        if not chain_of(self.model, self.batch_size).same_as(self._chain):
            raise RuntimeError(
                f"Model '{self.model.name}' has changed since its stepper was made, not only its weights; make a new "
                "one with `model.stepper`"
            )
        self._clock = clock()
        self._pack()

    def _pack(self):
        links = self._chain.links
        self._seen = tuple((variable, variable.version) for link in links for variable in link.variables)
        self._stages = tuple(link.pack() for link in links)

    # -- states -------------------------------------------------------------------------------------------------

    @property
    def states(self):
        """The states after the last step: a list of new read-only arrays for each recurrent layer, as `RNN.states`."""

        def frozen(state):
            value = state.copy()
            value.flags.writeable = False
            return value

        return [loop.nest([frozen(state) for state in loop.states()]) for loop in self._chain.loops]

    def reset(self, states=None, mask=None):
        """Set the states.

        Parameters
        ----------
        states : list, optional
            One item for each recurrent layer, nested like `states`. By default what a sequence starts from: zeros.
        mask : array of bool, shape (batch_size,), optional
            True for the rows to set; all by default.

        Raises
        ------
        ValueError
            If an array does not fit in number, shape or type; nothing is set then.
        """
        loops = self._chain.loops
        if states is None:
            states = [None] * len(loops)
        elif not isinstance(states, (list, tuple)) or len(states) != len(loops):
            found = f"{len(states)} items" if isinstance(states, (list, tuple)) else type(states).__name__
            raise ValueError(
                f"Argument `states` must be a list of {len(loops)} items, one for each recurrent layer. "
                f"Received: {found}"
            )
        values = [loop.fitting(given) for loop, given in zip(loops, states, strict=True)]
        if mask is not None:
            mask = np.asarray(mask)
            if mask.dtype != bool or mask.shape != (self.batch_size,):
                raise ValueError(
                    f"Argument `mask` must be an array of bool of shape {(self.batch_size,)}, one for each row. "
                    f"Received: dtype {mask.dtype}, shape {mask.shape}"
                )
        for loop, flat in zip(loops, values, strict=True):
            for state, value in zip(loop.states(), flat, strict=True):
                np.copyto(state, value, casting="same_kind", where=True if mask is None else mask[:, None])

    # -- compiled code ------------------------------------------------------------------------------------------

    def jit(self):
        """Return the step for code of your own that Numba compiles.

        Returns
        -------
        f : Dispatcher
            ``f(s, x, out)`` takes a timestep and writes the output to `out`, both C-contiguous arrays of
            `input_shape`, `input_dtype` and `output_shape`, `dtype`. ValueError for other shapes, IndexError for an id
            that is not in the table; the states are as before then. TypingError, at compile time, for other types. Call
            it from functions under ``numba.njit`` (with ``cache=True`` too) or `numbarnn.jit.njit`. It is compiled once
            for each kind of chain, and kept on disk.
        s : tuple
            To be passed on as it is. It holds the weights as they are now: after they have changed, call `jit` again.
            The states in it are this stepper's: `step`, `states` and `reset` see what `f` does, and the other way
            round.

        Raises
        ------
        RuntimeError
            If layers of the model were changed since the stepper was made, not only their weights.

        Examples
        --------
        >>> import numba
        >>> import numpy as np
        >>> from numbarnn import layers, models
        >>> model = models.Sequential([layers.Input((None, 3)), layers.LSTM(4), layers.Dense(2)])
        >>> f, s = model.stepper().jit()
        >>> @numba.njit
        ... def last(s, xs, out):
        ...     for t in range(len(xs)):
        ...         f(s, xs[t], out)
        >>> out = np.empty((1, 2), "float32")
        >>> last(s, np.ones((5, 1, 3), "float32"), out)
        >>> bool((out == model.predict(np.ones((1, 5, 3), "float32"), verbose=0)).all())
        True
        """
        if clock() != self._clock:
            self._check_model()
        self._pack()
        return streaming.step, self._stages


def _resumed(model, batch_size, states):
    """Return a new stepper in the midst of a stream: a copy has states of its own."""
    stepper = Stepper(model, batch_size)
    stepper.reset(states)
    return stepper
