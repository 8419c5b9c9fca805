"""The state of an optimizer: its variables and the weights they belong to, laid out flat."""

from __future__ import annotations

import numpy as np

from .. import backend, initializers
from ..protocols import local
from ..variable import Variable
from .group import Group, state_variable

__all__ = ["OptimizerState"]


class OptimizerState:
    """The half of `Optimizer` that makes, lists and restores its variables."""

    kernel_slots: tuple[str, ...] = ()  # the slots (arrays shaped like the weights) that the update rule takes
    slot_blocks: tuple[tuple[str, ...], ...] = ()  # its slots; `variables` lists block by block, weight by weight
    slot_starts: dict[str, float] = {}  # noqa: RUF012 - where slots do not start from zeros

    def __init__(self):
        self._iterations = self._scalar("iteration", np.int64(0))
        self._learning_rate = self._scalar("learning_rate", np.float64(0.0))
        self._groups: list[Group] = []
        self._places: dict[int, tuple[Group, int]] = {}  # id(variable) -> its group and number there
        self._built_for: list[Variable] = []
        self._added: list[Variable] = []

    def _scalar(self, name, value):
        variable = Variable(value, trainable=False, name=name, dtype=value.dtype)
        variable.path = f"{self.name}/{name}"
        return variable

    @property
    def built(self):
        """Whether the optimizer knows its variables."""
        return bool(self._groups)

    @property
    def layout(self):
        """An object that changes its identity when variables are laid out anew: `gradient_views` are stale then."""
        return self._groups

    def _blocks(self):
        """All slots, in the order in which `variables` lists them."""
        blocks = [("average",)] if self.use_ema else []
        if self.gradient_accumulation_steps:
            blocks.append(("gradient_accumulator",))
        return [*blocks, *self.slot_blocks]

    @property
    def variables(self):
        """All state, as Keras orders it: list of `Variable`.

        The count of steps; the learning rate, unless scheduled; averages of the weights and accumulated gradients, if
        any; the optimizer's own. Their values, assigned to the variables of a fresh optimizer that was built for the
        same weights, make it go on bit for bit.
        """
        found = [self._iterations] if self._schedule is not None else [self._iterations, self._learning_rate]
        return [*found, *self._slot_variables(), *self._added]

    def _slot_variables(self):
        found = []
        for block in self._blocks():
            for variable in self._built_for:
                group, number = self._places[id(variable)]
                found += [group.slots[name].variables[number] for name in block]
        return found

    def __getstate__(self):
        # The flat layout is that of other variables in a copy, and made anew there.
        state = {key: value for key, value in self.__dict__.items() if key not in ("_groups", "_places")}
        return {**state, "_slots": [variable.numpy() for variable in self._slot_variables()]}

    def __setstate__(self, state):
        state = dict(state)
        slots, known = state.pop("_slots"), state.pop("_built_for")
        self.__dict__.update(state, _groups=[], _places={}, _built_for=[])
        self._lay_out(known)
        for variable, value in zip(self._slot_variables(), slots, strict=True):
            variable.assign(value)

    def set_weights(self, weights):
        """Set all state.

        Parameters
        ----------
        weights : list of array
            One per entry of `variables`.

        Raises
        ------
        ValueError
            If the optimizer is not built, or numbers or shapes differ.
        """
        if not self.built:
            raise ValueError(
                "You are calling `set_weights()` on an optimizer that has not yet been built. Please call "
                "`optimizer.build(trainable_variables)` before."
            )
        self._set_variables(weights)

    def _set_variables(self, weights):
        weights, variables = list(weights), self.variables
        if len(weights) != len(variables):
            raise ValueError(
                f"`weights` must have one entry per variable. Received: {len(weights)} weights for {len(variables)} "
                "variables"
            )
        for variable, weight in zip(variables, weights, strict=True):
            if np.shape(weight) != tuple(variable.shape):
                raise ValueError(
                    f"Optimizer variable {variable.path} has shape {variable.shape} not compatible with provided "
                    f"weight shape {np.shape(weight)}."
                )
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store):
        """Write all state into a mapping, under "0", "1", ...

        Parameters
        ----------
        store : mutable mapping
        """
        for number, variable in enumerate(self.variables):
            store[str(number)] = variable.numpy()

    def load_own_variables(self, store):
        """Read the state that `save_own_variables` wrote, into an optimizer built for the same variables.

        Parameters
        ----------
        store : mapping

        Raises
        ------
        ValueError
            If numbers or shapes differ. (Keras leaves the optimizer as it is, with a warning, if numbers do.)
        """
        self._set_variables([np.asarray(store[str(number)]) for number in range(len(store.keys()))])

    def add_variable(self, shape, initializer="zeros", dtype=None, name=None):
        """Make a variable of the optimizer's own, for `build` of a subclass; it becomes part of `variables`.

        Parameters
        ----------
        shape : tuple of int
        initializer : str, Initializer or callable
        dtype : str, optional
            `floatx` by default.
        name : str, optional

        Returns
        -------
        Variable
        """
        dtype = np.dtype(backend.standardize_dtype(dtype))
        value = np.asarray(initializers.get(initializer)(tuple(shape), dtype.name))
        variable = Variable(value, trainable=False, name=name, dtype=dtype)
        variable.path = f"{self.name}/{variable.name}"
        self._added.append(variable)
        return variable

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        """As `add_variable`, of the shape and dtype of a weight, and named after it.

        Parameters
        ----------
        reference_variable : Variable
        name : str, optional
        initializer : str, Initializer or callable

        Returns
        -------
        Variable
        """
        value = initializers.get(initializer)(reference_variable.shape, reference_variable.dtype.name)
        self._added.append(state_variable(reference_variable, name or "var", self.name, value))
        return self._added[-1]

    def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
        """As `add_variable_from_reference`, for each of some weights.

        Parameters
        ----------
        trainable_variables : list of Variable
        name : str or list of str
            With several names, each weight gets one variable of each.
        initializer : str, Initializer or callable, or a list of these, one per name

        Returns
        -------
        list of Variable, or tuple of lists
            A list for one name, a list per name for several.

        Raises
        ------
        ValueError
            If there are not as many initializers as names.
        """
        names = [name] if isinstance(name, str) else list(name)
        starts = list(initializer) if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(starts) != len(names):
            raise ValueError(
                "The number of provided names must match the number of provided initializers. "
                f"Received: name={name}, initializer={initializer}"
            )
        rows = [
            [self.add_variable_from_reference(v, *pair) for pair in zip(names, starts, strict=True)]
            for v in trainable_variables
        ]
        columns = tuple([row[i] for row in rows] for i in range(len(names)))
        return columns[0] if isinstance(name, str) else columns

    def build(self, variables):
        """Lay the variables out flat and make the state.

        Variables known already keep their state; new ones start afresh.

        Parameters
        ----------
        variables : list of Variable
            Of float32 or float64.

        Raises
        ------
        ValueError
            If a variable has another dtype, or is new to an optimizer with an `update_step`, whose `build` makes the
            state of all variables at once.
        """
        variables = list(variables)
        for variable in variables:
            if variable.dtype not in (np.float32, np.float64):
                raise ValueError(
                    f"An optimizer updates float32 and float64 variables. Received: {variable.name} of {variable.dtype}"
                )
        unknown = [v for v in variables if id(v) not in self._places]
        if not unknown:
            return
        if self._built_for and self._has_update_step:
            raise ValueError(
                f"Unknown variable: {unknown[0]}. This optimizer can only be called for the variables it was "
                "originally built with. When working with a new set of variables, make a new optimizer."
            )
        self._lay_out(self._built_for + [v for n, v in enumerate(unknown) if all(v is not w for w in unknown[:n])])

    def _lay_out(self, known):
        """Lay out these variables, and the slots, which keep their values."""
        old = self._places
        slots = {name: self.slot_starts.get(name, 0.0) for block in self._blocks() for name in block}
        groups, places = [], {}
        for dtype in (np.float32, np.float64):
            members = [v for v in known if v.dtype == dtype]
            if not members:
                continue
            group = Group(members, slots, self.kernel_slots, [self._decays(v) for v in members], self.name)
            groups.append(group)
            for number, variable in enumerate(members):
                places[id(variable)] = group, number
                if id(variable) in old:
                    before, place = old[id(variable)]
                    for name in slots:
                        group.slots[name].variables[number].assign(before.slots[name].variables[place])
                elif self.use_ema and self._iterations.data:  # a latecomer
                    group.slots["average"].variables[number].assign(variable)
        self._groups, self._places, self._built_for = groups, places, known

    def ensure_built(self, variables):
        """Call `build` if there is a variable that the optimizer does not know."""
        places = self._places
        for variable in variables:
            if id(variable) not in places:
                self.build(variables)
                return

    def _get_variable_index(self, variable):
        """The number of a variable among those of `build`: Keras's name, which optimizers written for it call."""
        for number, known in enumerate(self._built_for):
            if known is variable:
                return number
        raise ValueError(f"Unknown variable: {variable}. This optimizer was not built for it.")

    def assign(self, variable, value):
        """Set a weight or a variable of the optimizer's own, for `update_step`."""
        variable.assign(value)

    def assign_add(self, variable, value):
        """Add to a weight or a variable of the optimizer's own, for `update_step`."""
        variable.assign_add(value)

    def assign_sub(self, variable, value):
        """Subtract from a weight or a variable of the optimizer's own, for `update_step`."""
        variable.assign_sub(value)

    def gradient_views(self, variables):
        """Writable arrays for the gradients of `variables`, parts of the flat gradient buffer that `apply` reads.

        They stay valid until `build` is called again.

        Parameters
        ----------
        variables : list of Variable

        Returns
        -------
        list of ndarray
            Of device arrays, where this thread computes on the GPU.
        """
        self.ensure_built(variables)
        found = [self._places[id(v)] for v in variables]
        return [(group.on_gpu if local.on_gpu else group).views[number] for group, number in found]

    def _here(self):
        """The groups, with their arrays where this thread computes."""
        return [group.on_gpu for group in self._groups] if local.on_gpu else self._groups
