"""What all optimizers share: the learning rate, clipping, weight decay, averages of the weights, and their state."""

from __future__ import annotations

import functools
import inspect
import math
import re
import warnings

import numpy as np

from .. import backend, serialization
from ..arrays import as_array, here, where_chosen
from ..checks import flag, fraction, integer, number
from ..kernels import flat
from ..kernels import optimizer as kernels
from ..protocols import local
from ..variable import Variable
from .schedules import LearningRateSchedule
from .state import OptimizerState

__all__ = ["Optimizer", "takes_common_arguments"]


class Optimizer(OptimizerState):
    """Base of all optimizers.

    One step is, in this order: average the accumulated gradients, clip, decay the weights, update them, average them,
    apply their constraints.

    An optimizer of your own defines `update_step` and, if it keeps state, `build`, as in Keras; see the example.

    Parameters
    ----------
    learning_rate : float or callable
        A number, or a schedule (see `numbarnn.optimizers.schedules`): called with the number of steps done so far, it
        returns the rate of the next one. A function without arguments is called without.
    weight_decay : float, optional
        Before each update weights are multiplied by ``1 - weight_decay * learning_rate``, apart from those that
        `exclude_from_weight_decay` names.
    clipnorm : float, optional
        Each variable's gradient is scaled down to at most this Euclidean norm.
    clipvalue : float, optional
        Each element of a gradient is clipped to ``[-clipvalue, clipvalue]``.
    global_clipnorm : float, optional
        All gradients are scaled down together to at most this common norm.
    use_ema : bool
        Keep exponential moving averages of the weights. `fit` puts them in the weights' place at its end; loops of your
        own call `finalize_variable_values`.
    ema_momentum : float
        ``average = ema_momentum * average + (1 - ema_momentum) * weight`` after each step, in [0, 1].
    ema_overwrite_frequency : int, optional
        Replace the weights by their averages every so many steps as well.
    loss_scale_factor : float, optional
        Losses are multiplied by it before the gradients are computed, and gradients divided by it again, so that small
        ones do not vanish in float16. `fit` does the former; loops of your own call `scale_loss`.
    gradient_accumulation_steps : int, optional
        Update only every so many steps, at least 2, by the mean of the gradients since the last update. Schedules count
        all steps, `iterations` and the averages the updates.
    name : str, optional

    Raises
    ------
    ValueError
        If an argument is out of its range or unknown, or more than one way of clipping is asked for.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import Variable, optimizers
    >>> class Momentum(optimizers.Optimizer):
    ...     def build(self, variables):
    ...         super().build(variables)
    ...         self.moving = self.add_optimizer_variables(variables, "moving")
    ...
    ...     def update_step(self, gradient, variable, learning_rate):
    ...         moving = self.moving[self._get_variable_index(variable)]
    ...         self.assign(moving, 0.5 * moving - learning_rate * gradient)
    ...         self.assign_add(variable, moving)
    >>> w = Variable(np.array([1.0, 2.0]))
    >>> optimizer = Momentum(learning_rate=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([np.array([1.0, 1.0])], [w])
    >>> w.numpy()
    array([-0.25,  0.75])
    """

    # What a built-in optimizer declares instead of `update_step`, beside its slots and `coefficients`:
    kernel = None  # its rule, of `kernels.optimizer`
    hyperparameters: tuple[str, ...] = ()  # its own arguments, for `get_config`

    def __init__(
        self,
        learning_rate,
        weight_decay=None,
        clipnorm=None,
        clipvalue=None,
        global_clipnorm=None,
        use_ema=False,
        ema_momentum=0.99,
        ema_overwrite_frequency=None,
        loss_scale_factor=None,
        gradient_accumulation_steps=None,
        name=None,
        **kwargs,
    ):
        if kwargs.pop("decay", None) is not None:
            warnings.warn("Argument `decay` is no longer supported and will be ignored.", stacklevel=2)
        if kwargs:
            known = inspect.signature(type(self).__init__).parameters
            first = next(iter(kwargs))
            meant = serialization.suggestion({"lr": "learning_rate"}.get(first, first), known)
            raise ValueError(f"Argument(s) not recognized: {kwargs}{meant}")
        clipping = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {key: value for key, value in clipping.items() if value is not None}
        if len(given) > 1:
            raise ValueError(f"Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. Received: {given}")
        for key, value in (*given.items(), ("loss_scale_factor", loss_scale_factor)):
            number(key, value, above=0, finite=False, optional=True)
        number("weight_decay", weight_decay, least=0, optional=True)
        integer("gradient_accumulation_steps", gradient_accumulation_steps, least=2, optional=True)
        fraction("ema_momentum", ema_momentum)
        integer("ema_overwrite_frequency", ema_overwrite_frequency, least=1, optional=True)
        self.name = name or backend.auto_name(type(self).__name__)
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = flag("use_ema", use_ema)
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        super().__init__()
        self._schedule = None
        self._takes_step = True
        self.learning_rate = learning_rate
        self._undecayed = []
        self._undecayed_names = None  # compiled pattern

    # ------------------------------------------------------------------------------------------------ settings

    @property
    def iterations(self):
        """How many updates have been done: an int64 `Variable`, or an int where gradients are accumulated."""
        if self.gradient_accumulation_steps:
            return int(self._iterations.data) // self.gradient_accumulation_steps
        return self._iterations

    @iterations.setter
    def iterations(self, value):
        self._iterations.assign(value * (self.gradient_accumulation_steps or 1))

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
            self._takes_step = isinstance(value, LearningRateSchedule) or _takes_an_argument(value)
            return
        if isinstance(self._schedule, LearningRateSchedule):
            raise TypeError(
                "This optimizer was created with a `LearningRateSchedule` object as its `learning_rate`, hence its "
                "learning rate is not settable. Make an optimizer with a float `learning_rate` for that. "
                f"Received: learning_rate={value!r}"
            )
        try:
            rate = float(None if isinstance(value, (str, bytes)) else value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(
                "`learning_rate` must be a number or a schedule that can be called with the step number. "
                f"Received: learning_rate={value!r} (of type {type(value).__name__})"
            ) from None
        number("learning_rate", value if isinstance(value, bool) else rate, least=0)
        self._schedule = None
        self._learning_rate.store(rate)

    def _rate(self):
        if self._schedule is not None:
            step = (int(self._iterations.data),) if self._takes_step else ()
            return float(np.asarray(self._schedule(*step)))
        return float(self._learning_rate.data)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Say which weights are not decayed; before the optimizer is built.

        Parameters
        ----------
        var_list : list of Variable, optional
        var_names : list of str, optional
            A variable in whose `name` one of these regular expressions is found is excluded: ``["bias"]``.

        Raises
        ------
        ValueError
            If the optimizer is built already.
        """
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay()` can only be configured before the optimizer is built. "
                f"Received: var_list={var_list}, var_names={var_names}"
            )
        self._undecayed = list(var_list or ())
        self._undecayed_names = re.compile("|".join(sorted(set(var_names)))) if var_names else None

    def _decays(self, variable):
        if any(variable is v for v in self._undecayed):
            return False
        return self._undecayed_names is None or not self._undecayed_names.search(variable.name)

    def scale_loss(self, loss):
        """Return the loss times `loss_scale_factor`, whose gradients `apply` expects."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    # ------------------------------------------------------------------------------------------------ steps

    @where_chosen
    def apply(self, grads, trainable_variables=None):
        """Update the variables by their gradients.

        Parameters
        ----------
        grads : list of array or None
            One per variable; a variable whose gradient is None stays as it is, with a warning. With no gradients at all
            (an empty list) nothing happens.
        trainable_variables : list of Variable, optional
            Defaults to the variables of the first `build` or `apply`.

        Raises
        ------
        ValueError
            If gradients and variables do not match, in number or in shape, or all gradients are None, or the optimizer
            has yet to learn its variables.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None and not self.built:
            raise ValueError(
                "When passing `grads` without `variables`, the optimizer must already be built on a list of variables. "
                "Call `optimizer.build(trainable_variables)` first."
            )
        variables = self._built_for if trainable_variables is None else list(trainable_variables)
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
        if len(present) < len(variables):
            missing = [v.path for v, g in zip(variables, grads, strict=True) if g is None]
            warnings.warn(f"Gradients do not exist for variables {missing} when minimizing the loss.", stacklevel=2)
        views = self.gradient_views(variables)
        for view, gradient in zip(views, grads, strict=True):
            if gradient is not None:
                view[...] = here(as_array(gradient))
        self.apply_views(present)

    def apply_gradients(self, grads_and_vars):
        """As `apply`, for an iterable of (gradient, variable).

        Returns
        -------
        Variable
            The count of steps.
        """
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self._iterations

    def apply_views(self, variables):
        """Do one step; the gradients have been written to `gradient_views(variables)`, and may be overwritten.

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
        for group in self._groups:
            group.rebind()
            if not local.on_gpu:
                group.bring_home()
        if local.on_gpu:
            plan = [(group.on_gpu, chosen) for group, chosen in plan]
        if self.loss_scale_factor is not None:
            for group, chosen in plan:
                for start, stop, _ in group.runs(chosen):
                    flat.scale_range(group.gradient, start, stop, 1.0 / self.loss_scale_factor)
        step = int(self._iterations.data)
        updates = step // (self.gradient_accumulation_steps or 1)
        if not self.gradient_accumulation_steps or self._accumulated(plan, step):
            self._update(plan, updates + 1)
        if self.use_ema:
            self._average(updates)
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable.value))
        self._iterations.data[...] = step + 1
        self._iterations.touch()

    def _accumulated(self, plan, step):
        """Take the gradients in; at every last step of a round make them the mean of all, and say so."""
        count = self.gradient_accumulation_steps
        last = (step + 1) % count == 0
        for group, chosen in plan:
            total = group.slots["gradient_accumulator"].flat
            for start, stop, _ in group.runs(chosen):
                if last:
                    flat.mean_of_accumulated(total, group.gradient, start, stop, count)
                else:
                    flat.accumulate(total, group.gradient, start, stop)
        for group in self._here():
            if last:
                group.slots["gradient_accumulator"].flat[...] = 0.0
            group.slots["gradient_accumulator"].touch()
        return last

    def _update(self, plan, step):
        """Clip, decay and update; `step` counts updates, from 1."""
        scale = self._clip(plan)
        limit = math.inf if self.clipvalue is None else float(self.clipvalue)
        rate = self._rate()
        decay = 1.0 - self.weight_decay * rate if self.weight_decay else 1.0
        coefficients = () if self._has_update_step else self.coefficients(rate, step)
        for group, chosen in plan:
            for start, stop, keep in group.runs(chosen, decay):
                if self._has_update_step:
                    flat.launch(kernels.prepare, start, stop, group.arrays[:2], keep, scale, limit)
                else:
                    self._update_range(group, start, stop, coefficients, keep, scale, limit)
            if self._has_update_step:
                for number in range(len(group.variables)) if chosen is None else chosen:
                    self.update_step(group.views[number], group.variables[number], rate)
            group.touch()

    def _clip(self, plan):
        """Clip per variable in place; return the factor that clips by the global norm."""
        if self.clipnorm is None and self.global_clipnorm is None:
            return 1.0
        squares = []
        for group, chosen in plan:
            ranges = group.ranges if chosen is None else [group.ranges[i] for i in chosen]
            if self.clipnorm is not None:
                flat.clip_by_norm(group.gradient, ranges, float(self.clipnorm))
            else:
                squares += [flat.square_sum(group.gradient, start, stop) for start, stop in ranges]
        if self.clipnorm is not None:
            return 1.0
        norm = math.sqrt(sum(squares))
        if not math.isfinite(norm):
            return math.nan  # as in Keras: an infinite gradient must not look like a clipped one
        return min(1.0, self.global_clipnorm / norm) if norm else 1.0

    def _update_range(self, group, start, stop, coefficients, keep, scale, limit):
        """Update the elements [start, stop) of a group's flat arrays; see `kernels.optimizer` for the last three."""
        flat.launch(self.kernel, start, stop, group.arrays, *coefficients, keep, scale, limit)

    def coefficients(self, rate, step):
        """What a built-in rule's kernel takes in a step, once for all variables.

        Parameters
        ----------
        rate : float
        step : int
            The number of the update, from 1.

        Returns
        -------
        tuple of float
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `update_step`.")

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable: what an optimizer of your own defines.

        Clipping and weight decay have been done.

        Parameters
        ----------
        gradient : ndarray
            Of the variable's shape and dtype; it may be overwritten.
        variable : Variable
            To be changed by `assign`, `assign_add` or `assign_sub`.
        learning_rate : float
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement `update_step`.")

    @functools.cached_property
    def _has_update_step(self):
        return type(self).update_step is not Optimizer.update_step

    # ------------------------------------------------------------------------------------------------ averages

    def _average(self, step):
        """Take the weights into their averages, and put these in their place where that is due."""
        momentum = float(self.ema_momentum) if step else 0.0
        for group in self._here():
            average = group.slots["average"]
            flat.moving_average(average.flat, group.parameters.flat, momentum)
            average.touch()
        if self.ema_overwrite_frequency and (step + 1) % self.ema_overwrite_frequency == 0:
            for group in self._here():
                group.parameters.flat[...] = group.slots["average"].flat
                group.parameters.touch()

    def finalize_variable_values(self, var_list):
        """Put the averages of the weights in their place, if the optimizer keeps any; `fit` does so at its end.

        Parameters
        ----------
        var_list : list of Variable

        Raises
        ------
        ValueError
            If there is a variable that the optimizer has no average of.
        """
        if not self.use_ema or not int(self._iterations.data):
            return
        variables = [v for v in var_list if v.dtype.kind == "f"]
        for variable in variables:
            if id(variable) not in self._places:
                raise ValueError(
                    f"There is no average of {variable}: the optimizer was not built for it. Please check if the "
                    "optimizer was called on your model."
                )
        for variable in variables:
            group, number = self._places[id(variable)]
            variable.assign(group.slots["average"].variables[number])

    def swap_averages(self):
        """Exchange the weights and their averages, if the optimizer keeps any and has done a step."""
        if not self.use_ema or not int(self._iterations.data):
            return
        for group in self._groups:
            weights, average = group.parameters, group.slots["average"]
            weights.flat[...], average.flat[...] = average.flat.copy(), weights.flat.copy()
            weights.touch()
            average.touch()

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
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
            **{name: getattr(self, name) for name in self.hyperparameters},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make an optimizer from `get_config`'s dict.

        Parameters
        ----------
        config : dict
        custom_objects : dict, optional
            Name -> class or function, for schedules of your own.

        Returns
        -------
        Optimizer
        """
        config = dict(config)
        rate = config.get("learning_rate")
        if isinstance(rate, dict):
            config["learning_rate"] = serialization.deserialize_keras_object(rate, custom_objects)
        return cls(**config)


_COMMON = [parameter for name, parameter in inspect.signature(Optimizer).parameters.items() if name != "learning_rate"]


def takes_common_arguments(init):
    """Let a constructor take the arguments that all optimizers share, after its own, as Keras orders them.

    Parameters
    ----------
    init : function
        ``init(self, own arguments, **common)``. An argument of its own may have the name of a common one.

    Returns
    -------
    function
        It takes the common arguments by position, too; they arrive in ``common``.
    """
    own = list(inspect.signature(init).parameters.values())[:-1]
    names = {parameter.name for parameter in own}
    signature = inspect.Signature(own + [parameter for parameter in _COMMON if parameter.name not in names])

    @functools.wraps(init)
    def __init__(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs).arguments
        init(bound.pop("self"), **bound.pop("kwargs", {}), **bound)

    __init__.__signature__ = signature
    return __init__


def _takes_an_argument(function):
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True
