"""What belongs to a layer: the variables and layers among its attributes, found and counted.

Also which layers' calls are under way, because what `call` sets is no change of a layer.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import types

import numpy as np

from ..checks import flag
from ..initializers import Initializer
from ..random import SeedGenerator
from ..variable import Variable, clock, tick

__all__ = ["Settings", "Tracked", "call_context", "calls", "structure_clock"]


class _Calls(threading.local):
    def __init__(self):
        self.stack = []  # (layer, training) of the layers whose call or build is running, outermost first


calls = _Calls()


def structure_clock():
    """Return a number that grows whenever an attribute of any layer changes.

    While it stands still, no `Layer.structure_version` has changed and programs that were traced are still right.

    Returns
    -------
    int
    """
    return clock()


@contextlib.contextmanager
def call_context(layer, training=None):
    """Within the block, what layers are called is called by `layer`: `training` and the first names come from there.

    For code that stands in for a `call`.

    Parameters
    ----------
    layer : Layer
    training : bool, optional
    """
    calls.stack.append((layer, training))
    try:
        yield
    finally:
        calls.stack.pop()


def _is_layer(x):
    return isinstance(x, Tracked)


def _is_variable(x):
    return isinstance(x, Variable)


def _is_seed_generator(x):
    return isinstance(x, SeedGenerator)


def _is_metric(x):
    # Metrics live beside the layers, not beneath them: they are known by what they can do.
    return hasattr(x, "update_state") and hasattr(x, "reset_state") and not isinstance(x, (Tracked, type))


_PLAIN = frozenset((bool, int, float, complex, str, bytes, type(None)))
_NO_SETTINGS = (Variable, SeedGenerator, Initializer, np.ndarray, np.generic, type, types.ModuleType)
_DEPTH, _MOST = 3, 1000


class Settings:
    """The numbers in lists, dicts, plain objects and functions of layers, as they were when a program was traced.

    A change of an attribute of a layer is seen as it happens (`structure_clock`). A change within a list, of an
    attribute of something else, such as a regularizer or a loss, or of a number that a `call` or a function of the user
    has from outside, is not: these are compared, but for lists and dicts of more than a thousand items.

    Parameters
    ----------
    layers : iterable of Layer
    others : iterable of object
        Losses, say.
    """

    def __init__(self, layers, others=()):
        self._found, self._functions, self._seen = [], [], set()
        for layer in layers:
            self._visit(type(layer).call, 0)
            for name, value in layer.__dict__.items():
                if not name.startswith("_"):
                    self._visit(value, 0)
        for other in others:
            self._visit(other, 0)

    def _visit(self, value, depth):
        if type(value) in _PLAIN or depth > _DEPTH or id(value) in self._seen:
            return
        self._seen.add(id(value))
        value = getattr(value, "__func__", value)
        if isinstance(value, types.FunctionType):
            self._visit_function(value, depth)
            return
        if isinstance(value, (list, dict)):
            mapping = value
        elif isinstance(value, tuple):
            for item in value:
                self._visit(item, depth)
            return
        elif isinstance(value, (Tracked, *_NO_SETTINGS)) or _is_metric(value) or not hasattr(value, "__dict__"):
            return
        else:
            mapping = value.__dict__
        values = list(mapping if isinstance(mapping, list) else mapping.values())
        kinds = [type(v) in _PLAIN for v in values]
        if any(kinds) and len(kinds) <= _MOST:
            self._found.append((mapping, all(kinds), _plain(mapping)))
        for item in values:
            self._visit(item, depth + 1)

    def _visit_function(self, function, depth):
        outside = function.__globals__
        if (outside.get("__name__") or "").partition(".")[0] in ("numbarnn", "numpy"):
            return  # what they hold from outside is constant
        names = [name for name in function.__code__.co_names if name in outside]
        plain = tuple(name for name in names if type(outside[name]) in _PLAIN)
        cells = function.__closure__ or ()
        if plain or cells:
            self._functions.append((outside, plain, cells, _from_outside(outside, plain, cells)))
        for name in names:
            if isinstance(outside[name], types.FunctionType):
                self._visit(outside[name], depth + 1)
        for cell in cells:
            self._visit(_content(cell), depth + 1)

    def changed(self):
        """Say whether any of them has changed."""
        for outside, names, cells, before in self._functions:
            if _from_outside(outside, names, cells) != before:
                return True
        for mapping, whole, before in self._found:  # asked at every step
            if (mapping if whole else _plain(mapping)) != before:
                return True
        return False


def _content(cell):
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _from_outside(outside, names, cells):
    """Return the numbers that a function has from outside."""
    contents = [_content(cell) for cell in cells]
    return [outside.get(name) for name in names], [x if type(x) in _PLAIN else ... for x in contents]


def _plain(mapping):
    """Return what is plain in a list or dict."""
    if isinstance(mapping, list):
        return [value if type(value) in _PLAIN else ... for value in mapping]
    return {key: value for key, value in mapping.items() if type(value) in _PLAIN}


def _without(variables, others):
    others = {id(v) for v in others}
    return [v for v in variables if id(v) not in others]


def _within(path, value, wanted):
    """Yield what is ``wanted`` of a value and, if it is a container, in it: pairs of a path and a member."""
    # No function within another that calls itself: a cycle, which would keep the members alive.
    if wanted(value):
        yield path, value
    elif isinstance(value, (dict, list, tuple, set)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if type(item) not in _PLAIN:
                yield from _within(f"{path}/{key}", item, wanted)


# Attributes whose contents are not the layer's members, or are found otherwise.
_NOT_MEMBERS = frozenset(
    (
        "_own_trainable",
        "_own_non_trainable",
        "_init_arguments",
        "_inbound_nodes",
        "_losses",
        "_initial_weights",
        "_build_shapes",
    )
)


class Tracked:
    """Base of `Layer`: the variables and layers among its attributes, also within containers, belong to it."""

    def __new__(cls, *args, **kwargs):
        """Make what must be there before `__init__`: attributes may be set before ``super().__init__()``."""
        self = super().__new__(cls)
        state = self.__dict__
        state["_own_trainable"] = []
        state["_own_non_trainable"] = []
        state["_untracked_names"] = set()
        state["_version"] = tick()  # when it was last changed
        state["_building"] = False
        state["_locked"] = False
        state["_initial_weights"] = None
        state["_init_arguments"] = (args, kwargs)
        return self

    def __setattr__(self, name, value):
        state = self.__dict__
        if name in state["_untracked_names"]:
            object.__setattr__(self, name, value)
            return
        missing = state  # no attribute is its own layer's __dict__
        old = state.get(name, missing)
        if old is value:
            return
        if isinstance(value, (Variable, Tracked)) and self._locked:
            self._refuse_state()
        object.__setattr__(self, name, value)
        if isinstance(old, Variable):
            self._forget(old)
        if isinstance(value, Variable):
            self._track(value)
        self._changed()

    def __delattr__(self, name):
        old = self.__dict__.get(name)
        object.__delattr__(self, name)
        if isinstance(old, Variable):
            self._forget(old)
        self._changed()

    def _changed(self):
        # What `call` itself sets was set by the very run that a trace records; counting it would make every trace
        # stale at once.
        if any(layer is self for layer, _ in calls.stack) and not self._building:
            return
        self.__dict__["_version"] = tick()

    def _refuse_state(self):
        raise ValueError(
            "You cannot add new elements of state (variables or sub-layers) to a layer that is already built. All "
            "state must be "
            f"created in the `__init__()` method or in the `build()` method. Layer: {self.name!r}"
        )

    def _track(self, variable):
        if any(variable is v for v in itertools.chain(self._own_trainable, self._own_non_trainable)):
            return
        (self._own_trainable if variable.trainable else self._own_non_trainable).append(variable)
        if not self.__dict__.get("_trainable", True):
            variable.trainable = False

    def _forget(self, variable):
        if any(value is variable for value in self.__dict__.values()):
            return
        for name in ("_own_trainable", "_own_non_trainable"):
            self.__dict__[name] = [v for v in self.__dict__[name] if v is not variable]

    def _set_untracked(self, name, value):
        """Set an attribute that holds nothing of this layer's and whose change is no change of structure."""
        self._untracked_names.add(name)
        object.__setattr__(self, name, value)

    def _members(self, wanted):
        """Return what is ``wanted`` among the attributes and in lists, tuples, sets and dicts there, each once."""
        return [member for _, member in self._named_members(wanted)]

    def _named_members(self, wanted):
        """Return the same with where each is: pairs of a path, such as ``cells/0``, and a member."""
        found = {}
        for name, value in self.__dict__.items():
            if type(value) not in _PLAIN and name not in _NOT_MEMBERS and name not in self._untracked_names:
                for path, member in _within(name.strip("_"), value, wanted):
                    found.setdefault(id(member), (path, member))
        return list(found.values())

    @property
    def _sublayers(self):
        return [layer for layer in self._members(_is_layer) if layer is not self]

    def _flatten_layers(self, include_self=True, recursive=True):
        """Return this layer and those within it, outer before inner, each once."""
        found, waiting = {}, [self]
        while waiting:
            layer = waiting.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                if recursive or layer is self:
                    waiting += reversed(layer._sublayers)
        layers = list(found.values())
        return layers if include_self else layers[1:]

    @property
    def structure_version(self):
        """A number that grows when an attribute of this layer, of one within it, or of a variable of these changes.

        Programs are traced anew when it does. See also `structure_clock`, which is quicker to ask.
        """
        # The latest time, not a sum of counts: one layer put in the place of another must never give the same number.
        return max(
            version
            for layer in self._flatten_layers()
            for version in (layer._version, *[v.changed_at for v in layer._own_variables()])
        )

    # -- weights ------------------------------------------------------------------------------------------------

    def _own_variables(self):
        # Variables inside lists and dicts are found when they are asked for; what was made or set first comes first.
        own = [*self._own_trainable, *self._own_non_trainable]
        seen = {id(v) for v in own}
        return own + [v for v in self._members(_is_variable) if id(v) not in seen]

    def _carried_variables(self):
        """Return what goes on from batch to batch beside the weights: the states of a stateful layer."""
        return []

    def _named_variables(self):
        """Name all variables by their place in the structure, whatever the layers are called.

        Returns
        -------
        weights, state : dict
            Name, such as ``layers/0/cell/kernel``, -> Variable: the weights; the states of random generators and of
            stateful layers.
        """
        weights, state, seen = {}, {}, set()

        def put(found, name, variable):
            free, copies = name, 0
            while free in found:
                copies += 1
                free = f"{name}_{copies}"
            found[free] = variable

        waiting = [(self, "")]
        while waiting:
            layer, path = waiting.pop()
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            for variable in layer._own_variables():
                if id(variable) not in seen:
                    seen.add(id(variable))
                    put(weights, f"{path}{variable.name}", variable)
            for place, generator in layer._named_members(_is_seed_generator):
                if id(generator.state) not in seen:
                    seen.add(id(generator.state))
                    put(state, f"{path}{place}", generator.state)
            for number, variable in enumerate(layer._carried_variables()):
                put(state, f"{path}states/{number}", variable)
            inner = layer._named_members(_is_layer)
            waiting += [(member, f"{path}{place}/") for place, member in reversed(inner)]
        return weights, state

    def _collect(self, with_seeds, trainable=False):
        found, seen, waiting = {}, set(), [self]
        while waiting:
            layer = waiting.pop()
            if id(layer) in seen or (trainable and not getattr(layer, "_trainable", True)):
                continue
            seen.add(id(layer))
            mine = layer._own_variables()
            if with_seeds:
                mine = mine + [generator.state for generator in layer._members(_is_seed_generator)]
            found.update((id(v), v) for v in mine if id(v) not in found and (v.trainable or not trainable))
            waiting += reversed(layer._sublayers)
        return list(found.values())

    @property
    def weights(self):
        """All weights: the trainable ones made here, then the others made here, then those of the layers within."""
        return self._collect(with_seeds=False)

    @property
    def variables(self):
        """All weights and the states of random generators."""
        return self._collect(with_seeds=True)

    @property
    def trainable_weights(self):
        """The weights that the optimizer changes; none of this or an inner layer that is not trainable."""
        return self._collect(with_seeds=False, trainable=True)

    @property
    def non_trainable_weights(self):
        """The weights that the optimizer leaves alone."""
        return _without(self.weights, self.trainable_weights)

    @property
    def trainable_variables(self):
        """The same as `trainable_weights`."""
        return self._collect(with_seeds=True, trainable=True)

    @property
    def non_trainable_variables(self):
        """`non_trainable_weights` and the states of random generators."""
        return _without(self.variables, self.trainable_variables)

    @property
    def trainable(self):
        """Whether the optimizer changes the weights; setting it sets that of every layer within."""
        return self._trainable

    @trainable.setter
    def trainable(self, value):
        value = flag("trainable", value)
        self.__dict__["_trainable"] = value
        for variable in self._own_trainable:
            variable.trainable = value
        for layer in self._sublayers:
            layer.trainable = value
        self._changed()

    def get_weights(self):
        """Return copies of the values of `weights`.

        Returns
        -------
        list of numpy.ndarray
        """
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights):
        """Set the values of `weights`.

        Parameters
        ----------
        weights : list of array
            In the order of `weights`.

        Raises
        ------
        ValueError
            If their number or a shape differs; nothing is set then.
        """
        own = self.weights
        values = [np.asarray(value) for value in weights]
        if len(own) != len(values):
            raise ValueError(
                f"You called `set_weights(weights)` on layer '{self.name}' with a weight list of length {len(values)}, "
                f"but the layer was expecting {len(own)} weights."
                + ("" if self.built else " It is not built yet: call it, or give it its input shape, first.")
            )
        for variable, value in zip(own, values, strict=True):
            if variable.shape != value.shape:
                raise ValueError(
                    f"Layer {self.name} weight shape {variable.shape} is not compatible with provided weight shape "
                    f"{value.shape}."
                )
        for variable, value in zip(own, values, strict=True):
            variable.assign(value)

    def count_params(self):
        """Count the numbers in all weights.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            If the layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"You tried to call `count_params` on layer '{self.name}', but the layer isn't built. "
                f"You can build it manually via: `layer.build(input_shape)`."
            )
        return sum(variable.size for variable in self.weights)

    @property
    def metrics(self):
        """The metrics among the attributes of this layer and of those within it."""
        return [metric for layer in self._flatten_layers() for metric in layer._members(_is_metric)]
