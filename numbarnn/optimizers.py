"""Optimizers: the update of all weights after a step, fused over flat parameter buffers."""

from __future__ import annotations

import math
import numbers

import numpy as np

from . import backend, serialization
from .kernels import optimizer as kernels
from .variable import ParameterBuffer, Variable

__all__ = ["SGD", "Adam", "Optimizer", "RMSprop", "deserialize", "get", "serialize"]


class _Group:
    """The variables of one dtype, their gradients and slots, each flat and all in one layout."""

    def __init__(self, variables, slot_names):
        self.variables = list(variables)
        self.parameters = ParameterBuffer(self.variables)
        self.slots = {
            name: ParameterBuffer(
                [
                    Variable(np.zeros(v.shape, v.dtype), trainable=False, name=f"{_flat_name(v)}_{name}")
                    for v in self.variables
                ]
            )
            for name in slot_names
        }
        self.gradient = self.parameters.empty_like()
        self.views = self.parameters.views(self.gradient)
        self.ranges = _ranges(self.parameters)

    def rebind(self):
        """Gather the variables again after someone else has moved them; the layout and the slots stay."""
        if not self.parameters.holds(self.variables):
            self.parameters = ParameterBuffer(self.variables)


def _ranges(buffer):
    return [(s.start, s.stop) for s in buffer.slices]


def _flat_name(variable):
    return str(variable.path or variable.name or "variable").replace("/", "_")


class Optimizer:
    """Base of all optimizers: learning rate, clipping, constraints, bookkeeping.

    A subclass names its slots (arrays shaped like the variables) and writes `update_range`.

    Parameters
    ----------
    learning_rate : float or callable
        A number, or a schedule: called with the number of steps done so far, it returns the rate of the next one.
    clipnorm : float, optional
        Each variable's gradient is scaled down to at most this Euclidean norm.
    clipvalue : float, optional
        Each element of a gradient is clipped to ``[-clipvalue, clipvalue]``.
    global_clipnorm : float, optional
        All gradients are scaled down together to at most this common norm.
    name : str, optional

    Raises
    ------
    ValueError
        If more than one way of clipping is asked for, or one is not positive.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, learning_rate=0.001, *, clipnorm=None, clipvalue=None, global_clipnorm=None, name=None):
        clipping = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {key: value for key, value in clipping.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. Received: {given}")
        for key, value in given.items():
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value > 0:
                raise ValueError(f"`{key}` must be a positive number. Received: {key}={value!r}")
        self.name = name or backend.auto_name(type(self).__name__)
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self._iterations = Variable(np.int64(0), trainable=False, name="iteration", dtype="int64")
        self._learning_rate = Variable(np.float64(0.0), trainable=False, name="learning_rate", dtype="float64")
        self._schedule = None
        self.learning_rate = learning_rate
        self._groups: list[_Group] = []
        self._places: dict[int, tuple[_Group, int]] = {}  # id(variable) -> its group and number there
        self._built_for: list[Variable] = []

    # ------------------------------------------------------------------------------------------------ settings

    @property
    def iterations(self):
        """How many steps have been done: an int64 `Variable`."""
        return self._iterations

    @iterations.setter
    def iterations(self, value):
        self._iterations.assign(value)

    @property
    def learning_rate(self):
        """The learning rate: a float64 `Variable`, or the current value of the schedule as a float."""
        if self._schedule is not None:
            return self._rate()
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        if callable(value) and not isinstance(value, Variable):
            self._schedule = value
            return
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(
                "`learning_rate` must be a number or a schedule that can be called with the step number. "
                f"Received: learning_rate={value!r} (of type {type(value).__name__})"
            ) from None
        self._schedule = None
        self._learning_rate.store(number)

    def _rate(self):
        if self._schedule is not None:
            return float(np.asarray(self._schedule(int(self._iterations.data))))
        return float(self._learning_rate.data)

    @property
    def built(self):
        """Whether the optimizer knows its variables."""
        return bool(self._groups)

    @property
    def variables(self):
        """Iteration count, learning rate (unless scheduled) and slots: list of `Variable`, as Keras orders them."""
        own = [self._iterations] if self._schedule is not None else [self._iterations, self._learning_rate]
        for variable in self._built_for:
            group, number = self._places[id(variable)]
            own += [slot.variables[number] for slot in group.slots.values()]
        return own

    # ------------------------------------------------------------------------------------------------ variables

    @property
    def layout(self):
        """An object that changes its identity when variables are laid out anew: `gradient_views` are stale then."""
        return self._groups

    def build(self, variables):
        """Lay the variables out flat and make their slots.

        Variables known already keep their slots; new ones start from zeros.

        Parameters
        ----------
        variables : list of Variable
            Of float32 or float64.

        Raises
        ------
        ValueError
            If a variable has another dtype.
        """
        variables = list(variables)
        for variable in variables:
            if variable.dtype not in (np.float32, np.float64):
                raise ValueError(
                    f"An optimizer updates float32 and float64 variables. Received: {variable.name} of {variable.dtype}"
                )
        if variables and all(id(v) in self._places for v in variables):
            return  # a step traced for another signature comes here again
        known = [v for v in self._built_for if all(v is not w for w in variables)] + variables
        old = self._places
        groups, places = [], {}
        for dtype in (np.float32, np.float64):
            members = [v for v in known if v.dtype == dtype]
            if not members:
                continue
            group = _Group(members, self.slot_names)
            groups.append(group)
            for number, variable in enumerate(members):
                places[id(variable)] = group, number
                if id(variable) in old:
                    before, place = old[id(variable)]
                    for name in self.slot_names:
                        group.slots[name].variables[number].assign(before.slots[name].variables[place])
        self._groups, self._places, self._built_for = groups, places, known

    def gradient_views(self, variables):
        """Writable arrays for the gradients of `variables`, parts of the flat gradient buffer that `apply` reads.

        They stay valid until `build` is called again.

        Parameters
        ----------
        variables : list of Variable

        Returns
        -------
        list of ndarray
        """
        self._require(variables)
        places = self._places
        return [places[id(v)][0].views[places[id(v)][1]] for v in variables]

    def _require(self, variables):
        places = self._places
        for variable in variables:
            if id(variable) not in places:
                self.build(variables)
                return

    def apply(self, grads, trainable_variables=None):
        """Update the variables by their gradients.

        Parameters
        ----------
        grads : list of array or None
            One per variable; a variable whose gradient is None stays as it is.
        trainable_variables : list of Variable, optional
            Defaults to the variables of the first `build` or `apply`.

        Raises
        ------
        ValueError
            If gradients and variables do not match, in number or in shape, or there is no gradient at all.
        """
        variables = self._built_for if trainable_variables is None else list(trainable_variables)
        grads = list(grads)
        if len(grads) != len(variables):
            raise ValueError(
                "`grads` must have one entry per variable. "
                f"Received: {len(grads)} gradients for {len(variables)} variables"
            )
        for gradient, variable in zip(grads, variables, strict=True):
            if gradient is not None and np.shape(gradient) != tuple(variable.shape):
                raise ValueError(
                    f"The gradient of variable '{variable.path or variable.name}' must have its shape "
                    f"{tuple(variable.shape)}. Received: {np.shape(gradient)}"
                )
        present = [v for v, g in zip(variables, grads, strict=True) if g is not None]
        if not present:
            raise ValueError("No gradients provided for any variable.")
        views = self.gradient_views(variables)
        for view, gradient in zip(views, grads, strict=True):
            if gradient is not None:
                view[...] = gradient
        self.apply_views(present)

    def apply_gradients(self, grads_and_vars):
        """As `apply`, for an iterable of (gradient, variable)."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])

    def apply_views(self, variables):
        """Do one step; the gradients have been written to `gradient_views(variables)`.

        Parameters
        ----------
        variables : list of Variable
            The ones to update; the others are left alone.
        """
        places = self._places
        if len(variables) == len(places):
            plan = [(group, None) for group in self._groups]
        else:
            members = {}
            for variable in variables:
                group, number = places[id(variable)]
                members.setdefault(id(group), (group, []))[1].append(number)
            plan = [(group, sorted(chosen)) for group, chosen in members.values()]
        scale = self._clip(plan)
        limit = math.inf if self.clipvalue is None else float(self.clipvalue)
        step, rate = int(self._iterations.data) + 1, self._rate()
        for group, chosen in plan:
            group.rebind()
            for start, stop in _runs(group, chosen):
                self.update_range(group, start, stop, rate, step, scale, limit)
            group.parameters.touch()
            for slot in group.slots.values():
                slot.touch()
        self._iterations.data[...] = step
        self._iterations.touch()
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value))

    def _clip(self, plan):
        """Clip per variable in place; return the factor that clips by the global norm."""
        if self.clipnorm is None and self.global_clipnorm is None:
            return 1.0
        squares = []
        for group, chosen in plan:
            ranges = group.ranges if chosen is None else [group.ranges[i] for i in chosen]
            if self.clipnorm is not None:
                kernels.clip_by_norm(group.gradient, ranges, float(self.clipnorm))
            else:
                squares += [kernels.square_sum(group.gradient, start, stop) for start, stop in ranges]
        if self.clipnorm is not None:
            return 1.0
        norm = math.sqrt(sum(squares))
        if not math.isfinite(norm):
            return math.nan  # as in Keras: an infinite gradient must not look like a clipped one
        return min(1.0, self.global_clipnorm / norm) if norm else 1.0

    def update_range(self, group, start, stop, rate, step, scale, limit):
        """Update the elements [start, stop) of the flat arrays of `group`.

        Parameters
        ----------
        group : object
            ``group.parameters.flat``, ``group.gradient`` and ``group.slots[name].flat`` share one layout.
        start, stop : int
        rate : float
        step : int
            From 1.
        scale, limit : float
            The gradient is multiplied by `scale`, then clipped to ``[-limit, limit]``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `update_range`.")

    # ------------------------------------------------------------------------------------------------ config

    def get_config(self):
        """The constructor's arguments as plain values.

        Returns
        -------
        dict
        """
        rate = float(self._learning_rate.data)
        if self._schedule is not None:
            rate = serialization.serialize_keras_object(self._schedule)
        return {
            "name": self.name,
            "learning_rate": rate,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
        }

    @classmethod
    def from_config(cls, config):
        """Make an optimizer from `get_config`'s dict."""
        config = dict(config)
        rate = config.get("learning_rate")
        if isinstance(rate, dict):
            config["learning_rate"] = serialization.deserialize_keras_object(rate)
        return cls(**config)


def _runs(group, chosen):
    """Contiguous ranges of the flat arrays that cover the chosen variables (None: all of them)."""
    if chosen is None:
        return [(0, group.gradient.size)]
    runs = []
    last = None
    for number in chosen:
        start, stop = group.ranges[number]
        if last is not None and number == last + 1:
            runs[-1] = runs[-1][0], stop
        else:
            runs.append((start, stop))
        last = number
    return runs


def _fraction(name, value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` must be a number in [0, 1]. Received: {name}={value!r}")
    return float(value)


class SGD(Optimizer):
    """Gradient descent, with momentum if asked.

    ``v = momentum * v - learning_rate * g`` and ``w += v``; with `nesterov`, ``w += momentum * v - learning_rate * g``.

    Parameters
    ----------
    learning_rate : float or callable
    momentum : float
        In [0, 1].
    nesterov : bool
    clipnorm, clipvalue, global_clipnorm, name :
        See `Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import Variable, optimizers
    >>> w = Variable(np.array([1.0, 2.0]))
    >>> optimizers.SGD(learning_rate=0.5).apply([np.array([1.0, 1.0])], [w])
    >>> w.numpy()
    array([0.5, 1.5])
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        nesterov=False,
        *,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        name=None,
    ):
        super().__init__(
            learning_rate, clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm, name=name
        )
        self._momentum = _fraction("momentum", momentum)
        self.nesterov = bool(nesterov)
        if self._momentum:
            self.slot_names = ("momentum",)

    @property
    def momentum(self):
        """The share of the last update that goes on; whether there is any cannot change."""
        return self._momentum

    @momentum.setter
    def momentum(self, value):
        value = _fraction("momentum", value)
        if bool(value) != bool(self._momentum):
            raise ValueError(
                f"momentum: an optimizer made with momentum={self._momentum} cannot get momentum={value}, which needs "
                "other state; make a new one"
            )
        self._momentum = value

    def update_range(self, group, start, stop, rate, step, scale, limit):
        """See `Optimizer.update_range`."""
        weight, gradient = group.parameters.flat, group.gradient
        if self.momentum:
            velocity = group.slots["momentum"].flat
            kernels.sgd_momentum(
                start, stop, weight, gradient, velocity, rate, self.momentum, self.nesterov, scale, limit
            )
        else:
            kernels.sgd(start, stop, weight, gradient, rate, scale, limit)

    def get_config(self):
        """See `Optimizer.get_config`."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Adam, with Keras's placement of epsilon.

    ``w -= alpha * m / (sqrt(v) + epsilon)`` with ``alpha = learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t)``.

    Parameters
    ----------
    learning_rate : float or callable
    beta_1, beta_2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
    amsgrad : bool
        Divide by the largest second moment seen so far.
    clipnorm, clipvalue, global_clipnorm, name :
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-7,
        amsgrad=False,
        *,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        name=None,
    ):
        super().__init__(
            learning_rate, clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm, name=name
        )
        self.beta_1 = _fraction("beta_1", beta_1)
        self.beta_2 = _fraction("beta_2", beta_2)
        if 1.0 in (self.beta_1, self.beta_2):
            raise ValueError(f"`beta_1` and `beta_2` must be below 1. Received: beta_1={beta_1}, beta_2={beta_2}")
        self.epsilon = float(epsilon)
        self.amsgrad = bool(amsgrad)
        self.slot_names = ("momentum", "velocity", "velocity_hat") if self.amsgrad else ("momentum", "velocity")

    def update_range(self, group, start, stop, rate, step, scale, limit):
        """See `Optimizer.update_range`."""
        alpha = rate * math.sqrt(1.0 - self.beta_2**step) / (1.0 - self.beta_1**step)
        slots = [slot.flat for slot in group.slots.values()]
        kernel = kernels.adam_amsgrad if self.amsgrad else kernels.adam
        kernel(
            start,
            stop,
            group.parameters.flat,
            group.gradient,
            *slots,
            alpha,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            scale,
            limit,
        )

    def get_config(self):
        """See `Optimizer.get_config`."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


class RMSprop(Optimizer):
    """Gradient divided by a running root mean square, as in Keras: ``w -= learning_rate * g / sqrt(v + epsilon)``.

    Parameters
    ----------
    learning_rate : float or callable
    rho : float
        Decay of the running mean of squares, in [0, 1].
    momentum : float
        In [0, 1].
    epsilon : float
        Inside the root.
    centered : bool
        Subtract the square of the mean gradient: divide by the standard deviation.
    clipnorm, clipvalue, global_clipnorm, name :
        See `Optimizer`.
    """

    def __init__(
        self,
        learning_rate=0.001,
        rho=0.9,
        momentum=0.0,
        epsilon=1e-7,
        centered=False,
        *,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        name=None,
    ):
        super().__init__(
            learning_rate, clipnorm=clipnorm, clipvalue=clipvalue, global_clipnorm=global_clipnorm, name=name
        )
        self.rho = _fraction("rho", rho)
        self.momentum = _fraction("momentum", momentum)
        self.epsilon = float(epsilon)
        self.centered = bool(centered)
        self.slot_names = ("velocity",)
        if self.momentum:
            self.slot_names += ("momentum",)
        if self.centered:
            self.slot_names += ("average_gradient",)

    def update_range(self, group, start, stop, rate, step, scale, limit):
        """See `Optimizer.update_range`."""
        flat = {name: slot.flat for name, slot in group.slots.items()}
        square = flat["velocity"]
        none = square[:0]
        kernels.rmsprop(
            start,
            stop,
            group.parameters.flat,
            group.gradient,
            square,
            flat.get("average_gradient", none),
            flat.get("momentum", none),
            rate,
            self.rho,
            self.epsilon,
            self.momentum,
            self.centered,
            scale,
            limit,
        )

    def get_config(self):
        """See `Optimizer.get_config`."""
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


serialization.export("keras.optimizers", Optimizer, SGD, Adam, RMSprop)
_BY_NAME = {"sgd": SGD, "adam": Adam, "rmsprop": RMSprop}


def serialize(optimizer):
    """Turn an optimizer into a dict.

    Parameters
    ----------
    optimizer : Optimizer

    Returns
    -------
    dict
    """
    return serialization.serialize_keras_object(optimizer)


def deserialize(config, custom_objects=None):
    """Make an optimizer from `serialize`'s dict.

    Parameters
    ----------
    config : dict
    custom_objects : dict, optional
        Name -> class.

    Returns
    -------
    Optimizer
    """
    if str(config.get("class_name", "")).lower() in _BY_NAME:
        config = {**config, "class_name": _BY_NAME[config["class_name"].lower()].__name__}
    return serialization.deserialize_keras_object(config, custom_objects, {c.__name__: c for c in _BY_NAME.values()})


def get(identifier):
    """An optimizer from what `compile` accepts.

    Parameters
    ----------
    identifier : str, dict or Optimizer
        ``"sgd"``, ``"adam"`` (any case), a serialised optimizer, or one that exists.

    Returns
    -------
    Optimizer

    Raises
    ------
    ValueError
        For anything else.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    if isinstance(identifier, dict):
        return deserialize(identifier)
    if isinstance(identifier, str):
        cls = _BY_NAME.get(identifier.lower()) or serialization.get_registered_object(identifier)
        if cls is not None:
            return cls()
    raise ValueError(f"Could not interpret optimizer identifier: {identifier}")
