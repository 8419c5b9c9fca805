"""The tree of weights in Keras 3's files (``model.weights.h5``, ``*.weights.h5``).

Keras names no layer in it: it walks from the model along attributes, in the order of their names, and a layer's place
is the way to it, such as ``layers/bidirectional/forward_layer/cell``. Layers in a list or dict count by class:
``layers/lstm``, ``layers/lstm_1``. Each place has a group ``vars``, with the layer's own weights ``0``, ``1``, ... in
it. `places` walks the same way, so that layers of the user, written for both libraries, are found where Keras puts
them.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..backend import to_snake_case
from ..layers.base import Layer
from ..models.functional import Functional
from ..models.sequential import Sequential
from ..optimizers import Optimizer
from .assignments import Assignments
from .hdf5 import require_h5py

__all__ = ["Place", "pack", "places", "read"]

# Of a model with a mixed policy, whose optimizer Keras puts into one that scales the loss.
_SCALED = "inner_optimizer/vars"
# Of the first releases that wrote such files.
_EARLY_LAYERS = "_layer_checkpoint_dependencies"


@dataclass(frozen=True)
class Place:
    """Where something with weights of its own is in a file.

    Attributes
    ----------
    path : str
        Of its group, ``""`` for the model itself.
    owner : Layer or Optimizer
    holder : Layer or None
        Of which the owner is an attribute, or in one; None for the model itself.
    """

    path: str
    owner: Layer | Optimizer
    holder: Layer | None

    @property
    def variables(self):
        """The owner's own weights in the order of the file: list of `Variable`."""
        return self.owner.variables if isinstance(self.owner, Optimizer) else _own_variables(self.owner)

    @property
    def is_own_affair(self):
        """Whether a layer itself says what is stored, by Keras's `save_own_variables` and `load_own_variables`."""
        return isinstance(self.owner, Layer) and hasattr(self.owner, "save_own_variables")

    @property
    def values(self):
        """What is stored: dict of name -> array."""
        if not self.is_own_affair:
            return {str(number): variable.data for number, variable in enumerate(self.variables)}
        store = {}
        self.owner.save_own_variables(store)
        return {str(name): np.asarray(value) for name, value in store.items()}

    @property
    def group(self):
        """The path of the group that holds them."""
        return _join(self.path, "vars")


def _own_variables(layer):
    """A layer's own weights: those that were trainable when they were made, then the others."""
    frozen = {id(v) for v in layer._own_non_trainable}
    known = frozen | {id(v) for v in layer._own_trainable}
    own = layer._own_variables()
    return sorted(own, key=lambda v: id(v) in frozen or (id(v) not in known and not v.trainable))


def _join(path, name):
    return f"{path}/{name}" if path else name


@cache
def _of_every_layer():
    """The names of attributes that no layer's walk follows: those that `Layer` itself has."""
    return frozenset(dir(Layer(name="layer")))


def _children(layer):
    """Yield (name, value) of the attributes of a layer that Keras looks at, in its order: private ones come last."""
    if isinstance(layer, (Sequential, Functional)):
        yield "layers", layer.layers
    passed = _of_every_layer() | layer._untracked_names
    names = [name for name in dir(layer) if not name.startswith("__") and name not in passed]
    for name in sorted(names, key=lambda name: f"~{name}" if name.startswith("_") else name):
        try:
            yield name, getattr(layer, name)
        except Exception:  # noqa: BLE001, S112 - a property that has no value now, whatever it raises
            continue


def places(model):
    """Find what has weights of its own in a model: its layers and theirs, and the optimizer.

    Parameters
    ----------
    model : Layer

    Returns
    -------
    list of Place
        Each layer once, at the place where the walk comes to it first.
    """
    found, seen = [], set()

    def visit(owner, path, holder):
        if id(owner) in seen:
            return
        seen.add(id(owner))
        found.append(Place(path, owner, holder))
        if isinstance(owner, Layer):
            for name, value in _children(owner):
                step(value, _join(path, name), owner, set())

    def step(value, path, holder, containers):
        if isinstance(value, (Layer, Optimizer)):
            visit(value, path, holder)
        elif isinstance(value, (list, tuple, dict)) and id(value) not in containers:
            containers.add(id(value))
            counts = {}
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, (Layer, Optimizer)):
                    name = to_snake_case(type(item).__name__)
                elif isinstance(item, (list, tuple, dict)):
                    name = "container"
                else:
                    continue
                number = counts[name] = counts.get(name, -1) + 1
                step(item, _join(path, f"{name}_{number}" if number else name), holder, containers)

    visit(model, "", None)
    return found


def pack(model, include_optimizer=True):
    """Make a file of a model's weights and its optimizer's state.

    Parameters
    ----------
    model : Model
    include_optimizer : bool

    Returns
    -------
    memoryview

    Raises
    ------
    ValueError
        If a weight is where Keras would not look for it.
    """
    found = places(model)
    reached = {id(v) for place in found for v in place.variables}
    missed = [v.path for v in model.weights if id(v) not in reached]
    if missed:
        raise ValueError(
            f"The weights {missed} of model '{model.name}' have no place in Keras's files: Keras finds layers that are "
            "attributes of layers, or in lists, tuples and dicts there, and weights that layers made or have as "
            "attributes."
        )
    buffer = io.BytesIO()
    with require_h5py().File(buffer, "w") as file:
        for place in found:
            if isinstance(place.owner, Optimizer) and not include_optimizer:
                continue
            group = file.require_group(place.group)
            group.attrs["name"] = place.owner.name
            for name, value in place.values.items():
                group.create_dataset(name, data=value)
    return buffer.getbuffer()


def read(model, root, skip_mismatch=False):
    """Read what a file holds for a model; nothing is changed yet.

    Parameters
    ----------
    model : Model
        Built.
    root : Group
        Of the file.
    skip_mismatch : bool
        Leave out layers that do not fit, with a warning.

    Returns
    -------
    Assignments

    Raises
    ------
    ValueError
        If something is damaged or no group or dataset of this file.
    """
    result = Assignments(skip_mismatch)
    claimed = set()
    for place in places(model):
        path = place.group
        group = root.find(path)
        if group is None and root.find(_EARLY_LAYERS) is not None:
            path = path.replace("layers", _EARLY_LAYERS)
            group = root.find(path)
        claimed.add(path)
        if isinstance(place.owner, Optimizer) and (inner := root.find(_join(place.path, _SCALED))) is not None:
            group = inner
            claimed.add(_join(place.path, _SCALED))
        names = [] if group is None else sorted(group.names(), key=_number)
        stored = [group.dataset(name) for name in names]
        if place.is_own_affair:
            result.add_loader(place.owner, {name: dataset.read() for name, dataset in zip(names, stored, strict=True)})
        elif names != [str(number) for number in range(len(names))]:
            result.refuse(f"weights of {path} are not numbered, but named {names}")
        elif isinstance(place.owner, Optimizer):
            if stored:
                result.add_optimizer(place.owner, place.holder, stored)
        else:
            result.add(f"layer '{place.owner.name}' at '{path}'", place.variables, stored)
    left = [path for path in root.contents() if path not in claimed and not _is_beside(path)]
    if left:
        result.refuse(f"weights for which the model has no layer, at {left}")
    return result


def _is_beside(path):
    """Whether it is of an optimizer, as a model that is not compiled has none, or of a metric of Keras 2."""
    return f"/{path}".endswith(("/optimizer/vars", f"/optimizer/{_SCALED}")) or path.startswith("metrics/")


def _number(name):
    """Sort 2 before 10."""
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)
