"""Gradients of a user's own functions: recorded once per signature, replayed afterwards.

`value_and_grad` differentiates by the trainable variables of a model. What models do with gradients by their inputs
goes through the same `Recorder`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import types
import warnings
from collections import Counter, OrderedDict

import numpy as np

from . import graph, tree
from .arrays import brought_back, here, moved, where_chosen
from .graph import Spec, Tensor
from .layers.base import Layer
from .layers.masks import get_mask, set_mask
from .layers.tracking import Settings, structure_clock
from .protocols import local, user_line
from .random import SeedGenerator
from .variable import Variable

__all__ = ["Recorder", "input_gradients", "kept", "put_back", "touched", "value_and_grad", "watching"]

_MAX_FUNCTIONS = 16  # per model, those used last
_MAX_SIGNATURES = 128  # per function, the oldest leave first
_MANY = 6  # so many recordings of one function that could have been one are worth a warning
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


# ---------------------------------------------------------------------------------------------------------------
# what a program changes


def touched(program):
    """The variables that a program assigns or draws from.

    Parameters
    ----------
    program : Program

    Returns
    -------
    list of Variable
    """
    found = {id(v): v for v in program.trace.assigned}
    for node in program.nodes:
        for value in (*node.inputs, *node.kwargs.values()):
            if isinstance(value, SeedGenerator):
                found[id(value.state)] = value.state
    return list(found.values())


def kept(variables):
    """The values of variables, for `put_back`: list of (Variable, array)."""
    return [(v, v.newest.copy()) for v in variables]


def put_back(before):
    """Give variables the values that `kept` found."""
    for variable, value in before:
        variable.store(value)


class _Observer(threading.local):
    report = None


_observer = _Observer()


@contextlib.contextmanager
def watching(report):
    """Have the values of differentiated functions watched during a ``with`` statement, in this thread.

    Parameters
    ----------
    report : callable
        ``report(program, arrays, before)`` is called where a value is not finite, before anything else happens.
        `before` holds the values before of the variables that the program has changed.
    """
    outer, _observer.report = _observer.report, report
    try:
        yield
    finally:
        _observer.report = outer


# ---------------------------------------------------------------------------------------------------------------
# functions


def _identity(x, held, depth=0):
    """What two functions have in common that do the same: their code, and the very values that they close over.

    A function that is defined anew at every step (in a `train_step`, say) is recognised by it. `held` gets what must
    stay alive for the identity to mean anything.
    """
    if isinstance(x, types.MethodType):
        held.append(x.__self__)
        return _identity(x.__func__, held, depth + 1), id(x.__self__)
    if isinstance(x, types.FunctionType) and depth < 8:
        parts = [x.__code__, id(x.__globals__)]
        for cell in x.__closure__ or ():
            try:
                parts.append(_identity(cell.cell_contents, held, depth + 1))
            except ValueError:  # not assigned yet
                parts.append("empty")
        for value in (*(x.__defaults__ or ()), *sorted((x.__kwdefaults__ or {}).items())):
            parts.append(_identity(value, held, depth + 1))
        return tuple(parts)
    if isinstance(x, functools.partial) and depth < 8:
        given = *x.args, *sorted(x.keywords.items())
        return functools.partial, _identity(x.func, held, depth + 1), *(_identity(y, held, depth + 1) for y in given)
    if isinstance(x, tuple) and depth < 8:
        return tuple(_identity(y, held, depth + 1) for y in x)
    if type(x) in _PLAIN:
        return type(x), repr(x)
    held.append(x)
    return id(x)


class _Functions:
    """The functions that a model was differentiated in; copies and pickles of the model start without."""

    def __init__(self):
        self.known = OrderedDict()  # identity -> Recorder
        self.misses = Counter()  # code -> how many functions of it came

    def __reduce__(self):
        return _Functions, ()

    def recorder(self, fn, owner, by_inputs=False, users=None):
        """The `Recorder` of a function; `users` is the part of it that the user wrote, the whole by default."""
        held = []
        key = by_inputs, _identity(fn, held)
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = Recorder(fn, owner, by_inputs)
            found.held = held
            while len(self.known) > _MAX_FUNCTIONS:
                self.known.popitem(last=False)
            users = fn if users is None else users
            while isinstance(users, functools.partial):
                users = users.func
            code = getattr(users, "__code__", None)
            if code is not None:
                self.misses[code] += 1
                if self.misses[code] == _MANY:
                    names = ", ".join(code.co_freevars) or "other values"
                    warnings.warn(
                        f"{_name(users)} was traced anew {_MANY} times, which is slow: each time it was a new function "
                        f"that closes over new values (of {names}). Pass what changes as arguments, "
                        "value_and_grad(fn, model)(x, y), or define the function once",
                        stacklevel=4,
                    )
        else:
            self.known.move_to_end(key)
        return found


def _name(fn):
    return getattr(fn, "__qualname__", type(fn).__name__).replace("<locals>.", "")


def _functions_of(model):
    state = model.__dict__
    if "_functions" not in state:
        state["_functions"] = _Functions()
    return state["_functions"]


# ---------------------------------------------------------------------------------------------------------------
# programs


class _Recorded:
    """The forward and the backward program of one signature."""

    __slots__ = (
        "assigned", "backward", "clock", "forward", "has_aux", "layers", "one", "places", "settings", "touched",
        "version",
    )  # fmt: skip

    def is_stale(self):
        """Say whether a layer that it passed through has changed."""
        if self.settings.changed():
            return True
        clock = structure_clock()
        if clock == self.clock:
            return False
        if self.version != _version(self.layers):
            return True
        self.clock = clock
        return False


def _version(layers):
    return max((layer.structure_version for layer in layers), default=0)


class Recorder:
    """A function of arrays, a scalar, and its gradients; traced once per signature.

    Parameters
    ----------
    fn : callable
        Returns a scalar, or (a scalar, a nest of anything).
    owner : Layer or list of Variable
        Whose trainable variables are differentiated by.
    by_inputs : bool
        Differentiate by the floating point arrays among the arguments instead.
    """

    held = ()
    in_succession = 0  # how often a program was stale at its first use

    def __init__(self, fn, owner, by_inputs=False):
        self.fn, self.owner, self.by_inputs = fn, owner, by_inputs
        self.signatures, self.same_arrays = {}, Counter()

    def __call__(self, args, kwargs):
        """Run the function and its gradient.

        Parameters
        ----------
        args, kwargs : tuple, dict

        Returns
        -------
        value, gradients
            The gradients are a list: one per variable, or one per leaf of the arguments; None for what is no
            floating point number.
        """
        if graph.is_tracing():
            raise RuntimeError(
                f"{user_line()}: gradients of {_name(self.fn)} are not to be had inside a function that is being "
                "traced. Take them outside `call` and outside other differentiated functions, in `train_step` say"
            )
        leaves, treedef = tree.flatten((args, kwargs))
        masks = [get_mask(x) if type(x) is np.ndarray else None for x in leaves]
        leaves = [np.asarray(x) if isinstance(x, np.generic) else x for x in leaves]
        arrays = tuple(
            (x.shape, x.dtype, mask is not None) if isinstance(x, np.ndarray) else None
            for x, mask in zip(leaves, masks, strict=True)
        )
        others = tuple(_baked(x) for x in leaves)
        key = treedef, arrays, others
        recorded = self.signatures.get(key)
        if recorded is None:
            self._count((treedef, arrays))
        elif recorded.is_stale():
            self._count_stale()
            recorded = None
        else:
            self.in_succession = 0
        if recorded is None:
            recorded = self._record(leaves, treedef, masks)
            while len(self.signatures) >= _MAX_SIGNATURES:
                self.signatures.pop(next(iter(self.signatures)))
            self.signatures[key] = recorded
            # What is known by its id must stay alive.
            self.held = [*self.held, *(x for x in leaves if not isinstance(x, np.ndarray) and type(x) not in _PLAIN)]
        return self._run(recorded, leaves, masks)

    def _count(self, arrays):
        self.same_arrays[arrays] += 1
        if self.same_arrays[arrays] == _MANY:
            warnings.warn(
                f"{_name(self.fn)} was traced anew {_MANY} times for arrays of the same shapes, which is slow: it was "
                "called with other numbers or objects each time. Pass numbers that change as arrays, np.float32(0.1)",
                stacklevel=4,
            )

    def _count_stale(self):
        self.in_succession += 1
        if self.in_succession == _MANY:
            warnings.warn(
                f"{_name(self.fn)} was traced anew {_MANY} times in succession, which is slow: an attribute of a layer "
                "that it passes through changes at every step. Keep a number that changes in a variable, which is read "
                "at every step: self.beta = numbarnn.Variable(1.0, trainable=False), then self.beta.assign(0.5)",
                stacklevel=4,
            )

    def _record(self, leaves, treedef, masks):
        layers, shown = [], {}

        def run(values, own_masks):
            local.trace.watch(self.fn)
            for value, mask in zip(values, own_masks, strict=True):
                if mask is not None:
                    set_mask(value, mask)
            args, kwargs = tree.unflatten(treedef, values)
            result = self.fn(*args, **kwargs)
            shown["aux"] = isinstance(result, tuple)
            loss, aux = result if shown["aux"] and len(result) == 2 else (result, None)
            self._check(loss)
            aux_masks = [get_mask(x) if isinstance(x, Tensor) else None for x in tree.leaves(aux)]
            return loss, aux, aux_masks if any(mask is not None for mask in aux_masks) else []

        def spec(x):
            return Spec(x.shape, x.dtype) if isinstance(x, np.ndarray) else x

        try:
            program = graph.trace(
                run, (list(map(spec, leaves)), list(map(spec, masks))), name=getattr(self.fn, "__name__", None)
            )
            layers = list(program.trace.layers.values())
        finally:
            if isinstance(self.owner, Layer):
                layers = [*layers, self.owner]
            for layer in layers:  # what `add_loss` collected are symbols of a trace that has ended
                layer._clear_losses()
        recorded = _Recorded()
        recorded.has_aux = shown["aux"]
        if self.by_inputs:
            inputs = iter(program.inputs)
            wanted = [next(inputs) if isinstance(x, np.ndarray) else None for x in leaves]
        else:
            wanted = self.variables()
        float_only = [x if x is not None and np.dtype(x.dtype).kind == "f" else None for x in wanted]
        recorded.places = [x is not None for x in float_only]
        wrt = [x for x in float_only if x is not None]
        if wrt and not _depends(program, wrt):
            self._refuse_independent()
        recorded.forward, recorded.backward = program.linearize(0, wrt) if wrt else (program, None)
        recorded.one = np.ones((), program.outputs[0].dtype) if wrt else None
        recorded.touched, recorded.assigned = touched(program), program.trace.assigned
        recorded.layers = layers
        recorded.clock, recorded.version = structure_clock(), _version(layers)
        inner = {id(x): x for layer in layers for x in layer._flatten_layers()}
        recorded.settings = Settings(inner.values(), [self.fn])
        return recorded

    def variables(self):
        """The variables that are differentiated by, in order."""
        return self.owner.trainable_variables if isinstance(self.owner, Layer) else self.owner

    def _check(self, loss):
        if isinstance(loss, tuple):
            raise ValueError(
                f"{_name(self.fn)} must return a scalar, or a pair (scalar, anything). Received: a tuple of "
                f"{len(loss)}; put all but the first into one tuple: return loss, (a, b)"
            )
        spec = Spec.of(loss) if hasattr(loss, "dtype") or isinstance(loss, (int, float)) else None
        if spec is None or spec.shape or spec.dtype.kind != "f":
            got = f"{type(loss).__name__}" if spec is None else f"shape {spec.shape}, dtype {spec.dtype}"
            raise ValueError(
                f"{_name(self.fn)} must return a floating point scalar to have gradients. Received: {got}; sum or "
                "average what it returns, ops.mean(loss)"
            )
        if not isinstance(loss, (Tensor, Variable)):
            self._refuse_independent()

    def _refuse_independent(self):
        what = "no floating point argument" if self.by_inputs else f"no trainable variable of {_owner_name(self.owner)}"
        raise ValueError(
            f"What {_name(self.fn)} returns depends on {what}, so all gradients would be zero. Call the model inside "
            "the function, not before it; no gradient passes through argmax, comparisons, casts to integers and "
            "ops.stop_gradient"
        )

    @where_chosen
    def _run(self, recorded, leaves, masks):
        arrays = [x for x in leaves if isinstance(x, np.ndarray)] + [x for x in masks if x is not None]
        if local.on_gpu:
            arrays = moved(arrays)
        before = kept(recorded.touched)
        try:
            if recorded.backward is None:
                (value, aux, aux_masks), found = recorded.forward(*arrays), []
            else:
                (value, aux, aux_masks), residuals = recorded.forward(*arrays)
                if _observer.report is not None and not math.isfinite(value):
                    _observer.report(recorded.forward, arrays, before)
                found = recorded.backward(residuals, here(recorded.one), True)
        except BaseException:
            put_back(before)
            raise
        if self.by_inputs:  # a look at the model, not a step of it; random generators go on
            put_back([(v, value) for v, value in before if v in recorded.assigned])
        if local.on_gpu:  # what users get is NumPy's
            value, aux, aux_masks, found = brought_back((value, aux, aux_masks, found))
        if aux_masks:
            for x, mask in zip(tree.leaves(aux), aux_masks, strict=True):
                if mask is not None:
                    set_mask(x, mask)
        given = iter(_of_its_own(found, recorded.one))
        gradients = [next(given) if place else None for place in recorded.places]
        return ((value, aux) if recorded.has_aux else value), gradients


def _baked(x):
    """What stands in a signature for an argument that is no array: another one gives another program."""
    if isinstance(x, np.ndarray):
        return None
    if isinstance(x, Tensor):
        raise TypeError(
            f"{user_line()}: gradients are of functions of arrays, got {x!r}, which has no value. Call the function "
            "on arrays"
        )
    return (type(x), repr(x)) if type(x) in _PLAIN else id(x)


def _of_its_own(gradients, one):
    """Gradients that may be written to: each its own memory."""
    result, seen = [], {id(one)}
    for gradient in gradients:
        gradient = np.asarray(gradient)
        if gradient.base is not None or not gradient.flags.writeable or id(gradient) in seen:
            gradient = gradient.copy()
        seen.add(id(gradient))
        result.append(gradient)
    return result


def _depends(program, wrt):
    """Say whether a gradient can flow from the first output of a program to one of these variables or inputs."""
    leaves = program.trace.leaves
    active = {id(leaves.get(x)) if isinstance(x, Variable) else id(x) for x in wrt} - {id(None)}
    for node in program.nodes:
        if node.operation.gradient is not None and any(id(x) in active for x in node.inputs):
            active.update(id(x) for x in node.outputs if x.dtype.kind == "f")
    return id(program.outputs[0]) in active


def _owner_name(owner):
    return f"{type(owner).__name__} '{owner.name}'" if isinstance(owner, Layer) else "those given"


# ---------------------------------------------------------------------------------------------------------------
# for users


def value_and_grad(fn, model):
    """Make a function that returns what `fn` does, and its gradients by the variables of a model.

    `fn` is run once on symbols for each signature of its arguments (shapes, dtypes, structure; values of what is no
    array) and replayed afterwards, also where an equal function is defined anew at every step. It is traced again when
    a layer that it passed through has changed.

    Parameters
    ----------
    fn : callable
        ``fn(*args, **kwargs)`` returns a floating point scalar, the loss, or a pair (loss, anything): predictions for
        the metrics, say.
    model : Layer, Model, or list of Variable
        What the gradients are taken by: its `trainable_variables`, as they are when the function is called.

    Returns
    -------
    callable
        ``loss, grads = value_and_grad(fn, model)(*args, **kwargs)``; ``(loss, aux), grads`` where `fn` returns a pair.
        `grads` is a list of ndarrays, one per trainable variable in their order, as ``optimizer.apply``
        takes it: zeros for a variable that the loss does not depend on, None for one that is no floating point number.
        Arrays among the arguments and in `aux` keep their masks.

    Raises
    ------
    TypeError
        If `model` is neither, or a symbolic tensor is passed.
    ValueError
        If the loss is no scalar, or depends on no variable at all, or `model` is an empty list.
    RuntimeError
        If it is called while another function is being traced.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers, ops, value_and_grad
    >>> layer = layers.Dense(1, use_bias=False, kernel_initializer="ones")
    >>> def loss(x, y):
    ...     return ops.mean((layer(x) - y) ** 2)
    >>> value, grads = value_and_grad(loss, layer)(np.ones((4, 3), "float32"), np.ones((4, 1), "float32"))
    >>> float(value), grads[0].tolist()
    (4.0, [[4.0], [4.0], [4.0]])
    """
    if not callable(fn):
        raise TypeError(f"`fn` must be a function that returns a scalar. Received: fn={fn!r}")
    if isinstance(model, Layer):
        recorder = None
    elif isinstance(model, (list, tuple)) and all(isinstance(v, Variable) for v in model):
        if not model:
            raise ValueError(
                "`model` must not be an empty list of variables. Those of a layer that was never called are not there "
                "yet: pass the layer itself"
            )
        recorder = Recorder(fn, list(model))
    else:
        raise TypeError(
            "`model` must be a layer, a model, or a list of variables such as `layer.trainable_variables`. "
            f"Received: model={model!r}"
        )

    def differentiated(*args, **kwargs):
        found = recorder or _functions_of(model).recorder(fn, model)
        return found(args, kwargs)

    differentiated.__name__ = f"value_and_grad_of_{getattr(fn, '__name__', type(fn).__name__)}"
    return differentiated


def input_gradients(fn, model, args, users=None):
    """The gradients of a scalar function by the floating point arrays among its arguments.

    Parameters
    ----------
    fn : callable
        ``fn(*args)`` returns a scalar.
    model : Layer
        Keeps the programs. What the function assigns in it, as the states of stateful layers, is put back; random
        generators go on.
    args : tuple of nests of array
    users : callable, optional
        What `fn` calls that a user wrote.

    Returns
    -------
    list
        One array per leaf of `args`, None where a leaf is no floating point array.
    """
    _, gradients = _functions_of(model).recorder(fn, model, True, users or (lambda: None))(args, {})
    return gradients
