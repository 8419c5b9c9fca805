"""The two kinds of operation: `Op`, whose gradient is written in operations, and `KernelOp`, with a pullback on arrays.

Both have three modes, chosen at the call:

==============================================  ==================================================================
called                                          does
==============================================  ==================================================================
in a trace, on a Tensor or a Variable           records a `Node` of the trace, returns Tensors
outside a trace, on a Tensor                    records a `Node` of a functional graph, returns Tensors
else (arrays, numbers, Variables)               computes at once, returns arrays
==============================================  ==================================================================
"""

import inspect
import pickle
import pkgutil
import sys

import numpy as np

from .protocols import ArrayLike, local, user_line
from .symbolic import Node, Spec, Tensor
from .variable import Variable, captured


class _Operation:
    effect = False
    parameters = ()

    def __call__(self, *inputs, **attrs):
        if attrs and self.parameters:
            inputs, attrs = self._by_name(inputs, attrs), {}
        arrays = others = False
        for x in inputs:
            kind = type(x)
            if kind is np.ndarray:
                arrays = True
            elif isinstance(x, ArrayLike):
                return self._symbolic(inputs, attrs)
            elif kind is list or kind is tuple or isinstance(x, np.ndarray):
                others = True
        trace = local.trace
        if trace is not None and (
            self.effect or any(type(x) is np.ndarray and captured(x) is not None for x in inputs)
        ):
            return trace.record(self, inputs, attrs).result
        if others or not arrays:
            inputs = _arrays(inputs)
        return self.compute(*inputs, **attrs)

    def named(self, *parameters):
        """Give the inputs names, by which they may then be passed; return the operation."""
        self.parameters = parameters
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        self.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in parameters])
        return self

    def _by_name(self, inputs, given):
        try:
            return tuple(self.__signature__.bind(*inputs, **given).arguments.values())
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}; it takes {', '.join(self.parameters)}") from None

    def _symbolic(self, inputs, attrs):
        inputs = [np.asarray(x) if isinstance(x, (list, tuple)) else x for x in inputs]
        if local.trace is not None:
            return local.trace.record(self, inputs, attrs).result
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if not tensors:
            return self(*(x.value if isinstance(x, Variable) else x for x in inputs), **attrs)
        for x in tensors:
            if x.trace is not None:
                raise ValueError(
                    f"{user_line()}: {x!r} is left over from a traced function, which has ended; it has no value"
                )
        specs = self.infer(*map(Spec.of, inputs), **attrs)
        return Node(self, tuple(inputs), attrs, tensors, specs, None).result

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}>"

    def __reduce__(self):
        # There is one of each: a copy is the operation itself, a pickle says where it is found.
        for module, contents in [(name, vars(module)) for name, module in list(sys.modules.items()) if module]:
            for name, value in contents.items():
                if value is self:
                    return pkgutil.resolve_name, (f"{module}:{name}",)
        raise pickle.PicklingError(f"{self!r} cannot be copied or pickled: it is no attribute of any module")


def _arrays(inputs):
    """Return lists and subclasses of ndarray as arrays, and numbers too where nothing else decides about the dtype."""
    inputs = [np.asarray(x) if isinstance(x, (list, tuple, np.ndarray)) else x for x in inputs]
    if any(hasattr(x, "dtype") for x in inputs):
        return inputs
    return [x if x is None else np.asarray(x) for x in inputs]


class Op(_Operation):
    """An operation on arrays with a gradient rule written in operations.

    Parameters
    ----------
    name : str
    compute : callable
        ``compute(*arrays, **attrs)`` -> array, or a tuple of arrays. It may return a view of its input, and changes
        no input.
    infer : callable
        ``infer(*specs, **attrs)`` -> Spec, or a tuple of Specs. A Python number comes as a Spec with ``weak`` set,
        None as None.
    gradient : callable, optional
        ``gradient(node, *d_outputs)`` -> one Tensor or None per input (bare for one input), written in operations on
        ``node.inputs``, ``node.outputs`` and ``node.attrs``. An entry of ``d_outputs`` is None where nothing depends
        on that output. Without a rule nothing flows back.
    effect : bool
        Whether a call does more than return a value (draws, assigns): recorded also without a symbolic input, kept
        though its output is not used, and repeated at every replay.
    """

    kernel = False

    def __init__(self, name, compute, infer, gradient=None, *, effect=False, doc=None):
        self.name = self.__name__ = name
        self.compute, self.infer, self.gradient, self.effect = compute, infer, gradient, effect
        self.__doc__ = doc or getattr(compute, "__doc__", None)


class KernelOp(_Operation):
    """An operation with a hand-written pullback on arrays.

    Parameters
    ----------
    name : str
    forward : callable
        ``forward(*arrays, save, **attrs)`` -> ``(output or tuple of outputs, saved)``. ``saved`` is whatever the
        pullback wants; with ``save=False`` no gradient will be asked and it is ignored.
    infer : callable
        As for `Op`.
    pullback : callable
        ``pullback(saved, d_outputs, needs, **attrs)`` -> tuple with one array or None per input. ``d_outputs`` is a
        tuple with None where nothing depends on that output; ``needs`` says for which inputs a gradient is wanted.
    effect : bool
        As for `Op`.
    """

    kernel = True

    def __init__(self, name, forward, infer, pullback=None, *, effect=False, doc=None):
        self.name = self.__name__ = name
        self.forward, self.infer, self.pullback, self.effect = forward, infer, pullback, effect
        self.gradient = pullback
        self.__doc__ = doc or getattr(forward, "__doc__", None)

    def compute(self, *arrays, **attrs):
        """Run the forward kernel without saving anything."""
        return self.forward(*arrays, save=False, **attrs)[0]


class Pullback:
    """The pullback of a `KernelOp`, as the operation of a node in a backward program."""

    kernel = effect = False
    gradient = None

    def __init__(self, op, needs, present, specs):
        self.name = f"{op.name}_pullback"
        self.op, self.needs, self.present, self.specs = op, needs, present, specs

    def infer(self, *inputs, **attrs):
        """Return the Specs of the gradients."""
        return self.specs

    def compute(self, saved, *d_outputs, **attrs):
        """Run the pullback; return the wanted gradients alone."""
        given = iter(d_outputs)
        gradients = self.op.pullback(
            saved, tuple(next(given) if p else None for p in self.present), self.needs, **attrs
        )
        if len(gradients) != len(self.needs):
            raise ValueError(
                f"the pullback of {self.op.name} returned {len(gradients)} gradients for {len(self.needs)} inputs"
            )
        wanted = tuple(g for g, need in zip(gradients, self.needs, strict=True) if need)
        for gradient, spec in zip(wanted, self.specs, strict=True):
            if gradient is None or not spec.fits(gradient):
                got = "None" if gradient is None else f"{gradient.dtype} {gradient.shape}"
                raise ValueError(f"the pullback of {self.op.name} returned {got} where a gradient of {spec} is needed")
        return wanted
