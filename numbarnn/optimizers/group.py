"""The variables of one dtype with all that an optimizer keeps for them, flat and in one layout."""

from __future__ import annotations

import functools

import numpy as np

from .. import cuda
from ..variable import ParameterBuffer, Variable

__all__ = ["Group", "GroupOnGPU", "state_variable"]


class Group:
    """Parameters, gradients and slots of the variables of one dtype: flat arrays that share one layout.

    Parameters
    ----------
    variables : list of Variable
        Of one dtype. Their values move here.
    slots : dict
        Name -> the value that each element of the slot starts from.
    kernel_slots : sequence of str
        The slots that the update rule takes, in its order; one that is not among `slots` is an empty array.
    decayed : list of bool
        Which variables weight decay is for.
    prefix : str
        Of the paths of the slots' variables.

    Attributes
    ----------
    parameters : ParameterBuffer
    gradient : ndarray, shape (n,)
    views : list of ndarray
        The gradient of each variable, in its shape.
    slots : dict of ParameterBuffer
    arrays : tuple of ndarray
        What the update rule takes: parameters, gradient and the slots of `kernel_slots`.
    ranges : list of (start, stop)
        The place of each variable in the flat arrays.
    """

    def __init__(self, variables, slots, kernel_slots, decayed, prefix):
        self.variables, self.kernel_slots = list(variables), tuple(kernel_slots)
        self.parameters = ParameterBuffer(self.variables)
        self.slots = {
            name: ParameterBuffer([state_variable(v, name, prefix, value) for v in self.variables])
            for name, value in slots.items()
        }
        self.gradient = self.parameters.empty_like()
        self.views = self.parameters.views(self.gradient)
        self.ranges = [(s.start, s.stop) for s in self.parameters.slices]
        self.decayed = None if all(decayed) else decayed
        none = self.gradient[:0]
        slots = (self.slots[name].flat if name in self.slots else none for name in kernel_slots)
        self.arrays = self.parameters.flat, self.gradient, *slots
        self._all = [*self.variables, *(v for slot in self.slots.values() for v in slot.variables)]

    def rebind(self):
        """Gather the variables again after someone else has moved them; the layout and the slots stay."""
        if not self.parameters.holds(self.variables):
            self.parameters = ParameterBuffer(self.variables)
            self.arrays = self.parameters.flat, *self.arrays[1:]

    def bring_home(self):
        """Have the newest values in `arrays`, also where they were written on the GPU."""
        for buffer in (self.parameters, *self.slots.values()):
            _ = buffer.flat

    @functools.cached_property
    def on_gpu(self):
        """The same arrays on the GPU."""
        return GroupOnGPU(self)

    def touch(self):
        """Count the versions of all variables and slots up, after writing to the flat arrays."""
        for variable in self._all:
            variable.version += 1

    def runs(self, chosen, keep=1.0):
        """Contiguous ranges of the flat arrays.

        Parameters
        ----------
        chosen : list of int, optional
            The numbers of the variables to cover, ascending; all by default.
        keep : float
            The factor of weight decay.

        Returns
        -------
        list of (start, stop, keep)
            With 1.0 for variables that are not decayed. Neighbours of the same factor are one range.
        """
        if chosen is None and (keep == 1.0 or self.decayed is None):
            return [(0, self.gradient.size, keep)]
        runs = []
        for number in range(len(self.ranges)) if chosen is None else chosen:
            start, stop = self.ranges[number]
            factor = keep if self.decayed is None or self.decayed[number] else 1.0
            if runs and runs[-1][1:] == (start, factor):
                runs[-1] = runs[-1][0], stop, factor
            else:
                runs.append((start, stop, factor))
        return runs


class GroupOnGPU:
    """The arrays of a `Group` on the GPU, under the same names."""

    def __init__(self, group):
        self._group = group
        self.variables, self.ranges, self.decayed, self.runs = group.variables, group.ranges, group.decayed, group.runs
        self.gradient = cuda.zeros(group.gradient.shape, group.gradient.dtype)
        self.views = group.parameters.views(self.gradient)
        self.slots = {name: _BufferOnGPU(buffer) for name, buffer in group.slots.items()}

    @property
    def parameters(self):
        """See `Group`."""
        return _BufferOnGPU(self._group.parameters)

    @property
    def arrays(self):
        """See `Group`."""
        none = self.gradient[:0]
        names = self._group.kernel_slots
        slots = (self.slots[name].flat if name in self.slots else none for name in names)
        return self.parameters.flat, self.gradient, *slots

    def touch(self):
        """See `Group`: of the arrays that an update rule writes to."""
        self._group.parameters.wrote_on_gpu()
        for name in self._group.kernel_slots:
            if name in self.slots:
                self.slots[name].touch()


class _BufferOnGPU:
    """The side of a `ParameterBuffer` on the GPU, under the names of the other."""

    def __init__(self, buffer):
        self.variables, self.touch, self._buffer = buffer.variables, buffer.wrote_on_gpu, buffer

    @property
    def flat(self):
        return self._buffer.on_gpu


def state_variable(variable, name, prefix, value=0.0):
    """Make a variable like another one, to keep something for it: named ``<its path>_<name>``, as Keras names them.

    Parameters
    ----------
    variable : Variable
    name, prefix : str
        `prefix` comes before the name in the new variable's path.
    value : float or array of the variable's shape

    Returns
    -------
    Variable
    """
    path = str(variable.path or variable.name).replace("/", "_")
    made = Variable(
        np.full(variable.shape, value, variable.dtype), trainable=False, name=f"{path}_{name}", dtype=variable.dtype
    )
    made.path = f"{prefix}/{made.name}"
    return made
