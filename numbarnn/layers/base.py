"""`Layer`: the base of everything that has weights and a `call`.

What happens in ``layer(x)``: arrays come in the layer's float type (``autocast``), the shape is checked against
`input_spec`, the layer is built if it is not, `training` and `mask` are filled in, `call` runs, and the mask goes on
to the output.

- On arrays, `call` computes at once and arrays come out.
- On Tensors of a function that is being traced, `call` runs too: its operations become part of the trace.
- On Tensors outside a trace (`Input`), the layer itself becomes one node of a functional graph.
"""

from __future__ import annotations

import inspect
import itertools
import math
import os
import threading
import warnings

import numpy as np

from .. import backend, constraints, graph, initializers, ops, regularizers
from ..graph import Spec, Tensor, suspended
from ..loading import allow, is_expecting
from ..protocols import ArrayLike, local
from ..serialization import export, suggestion
from ..variable import Variable
from .input_spec import InputSpec
from .masks import ReadOnly, attach_mask, get_mask, masks_of, set_mask
from .nests import is_shape, is_values, leaves_of, map_nest, map_shapes, shape_of
from .signatures import arguments_problem, call_info, shape_parameters, wrap_build
from .tracking import Tracked, call_context, calls, structure_clock

__all__ = ["InputSpec", "Layer", "call_context", "get_mask", "serialize_policy", "set_mask", "structure_clock"]

_build_lock = threading.RLock()


def _renew_build_lock():
    global _build_lock
    _build_lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_build_lock)  # another thread may have held it
_losses_added = False  # whether any layer ever called add_loss: only then is there something to clear


class Layer(Tracked):
    """A function with weights, a configuration and a name.

    A subclass gives `call`, and, if it has weights, `build`, in which it makes them with `add_weight`. Layers and
    variables that are set as attributes, also inside lists, tuples and dicts, belong to the layer; `weights` lists
    them in the order in which they came. Attributes may be set before ``super().__init__()`` is called.

    Parameters
    ----------
    activity_regularizer : Regularizer or str, optional
        A penalty on the outputs, divided by the batch size.
    trainable : bool
        Whether the optimizer changes the weights.
    dtype : str, dtype or DTypePolicy, optional
        The float type of weights and results, or ``"mixed_float16"``; `numbarnn.backend.floatx` by default.
    autocast : bool
        Whether floating-point inputs are cast to the layer's type.
    name : str, optional
        By default the class's name in snake case, numbered from the second on.
    input_shape, batch_input_shape, input_dim, input_length, batch_size
        The shape of the input (without and with the batch, or its last axis alone), for a `Sequential` to be built at
        once.
    weights : list of array, optional
        Values that the weights start from.

    Attributes
    ----------
    built : bool
    input_spec : InputSpec or nest of them, or None
        What `__call__` checks its first argument against.
    supports_masking : bool
        Whether a mask may come in and go on; by default whether the class defines `compute_mask`.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> class Scale(layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones", name="scale")
    ...     def call(self, x):
    ...         return x * self.scale
    >>> layer = Scale()
    >>> layer(np.ones((2, 3), np.float32)).shape
    (2, 3)
    >>> layer.scale.path
    'scale/scale'
    """

    _allow_non_tensor_positional_args = False
    _call_info = None
    _argument_hints = {}  # what to say of arguments that other libraries have: name -> hint
    _wraps_function = False  # whether `call` is ours, but calls a function of the user

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        build = cls.__dict__.get("build")
        if build is not None and not getattr(build, "_builds", False):
            cls.build = wrap_build(build)

    def __init__(self, *, activity_regularizer=None, trainable=True, dtype=None, autocast=True, name=None, **kwargs):
        state = self.__dict__
        if name is not None and not isinstance(name, str):
            raise ValueError(f"Argument `name` must be a string. Received: name={name} (of type {type(name)})")
        if name is not None and "/" in name:
            raise ValueError(
                f"Argument `name` must be a string and cannot contain character `/`. Received: name={name}"
            )
        state["_name"] = name if name is not None else self._default_name()
        self._set_policy(dtype)
        if not isinstance(trainable, bool):
            raise ValueError(
                f"Expected `trainable` to be a boolean. Received: trainable={trainable} (of type {type(trainable)})"
            )
        state["_trainable"] = trainable
        state["autocast"] = autocast
        state["_activity_regularizer"] = regularizers.get(activity_regularizer)
        state.setdefault("built", False)
        state.setdefault("_input_spec", None)
        state["_supports_masking"] = type(self).compute_mask is not Layer.compute_mask
        state["_losses"] = []
        state["_inbound_nodes"] = []
        state["_build_shapes"] = None
        state["_batch_input_shape"] = self._declared_shape(kwargs)
        state["_initial_weights"] = kwargs.pop("weights", None)
        if kwargs:
            known = [name for cls in type(self).__mro__ for name in inspect.signature(cls.__init__).parameters]
            hints = [hint for name, hint in self._argument_hints.items() if name in kwargs]
            meant = f". {hints[0]}" if hints else suggestion(next(iter(kwargs)), known)
            raise ValueError(f"Unrecognized keyword arguments passed to {type(self).__name__}: {kwargs}{meant}")
        state["_call_info"] = call_info(type(self).call)

    def _default_name(self):
        return backend.auto_name(type(self).__name__)

    @staticmethod
    def _declared_shape(kwargs):
        """Take the input shape, in any of Keras's spellings, out of the keyword arguments; None if there is none."""
        batch_shape = kwargs.pop("batch_input_shape", None)
        batch_shape = kwargs.pop("batch_shape", batch_shape)
        shape = kwargs.pop("input_shape", None)
        features = kwargs.pop("input_dim", None)
        length = kwargs.pop("input_length", None)
        batch_size = kwargs.pop("batch_size", None)
        if batch_shape is not None:
            return tuple(batch_shape)
        if features is not None:
            shape = (length, features) if length is not None else (features,)
        if shape is None:
            return None
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        return (batch_size, *shape)

    def __getstate__(self):
        state = self.__dict__.copy()
        del state["_version"]  # a time of this process's clock: a copy is as new as its `__new__`
        state["_inbound_nodes"] = []  # the graph is not the layer's
        state["_losses"] = []
        return state

    def __repr__(self):
        return f"<{type(self).__name__} name={self.__dict__.get('_name')}, built={self.__dict__.get('built')}>"

    # -- name and types -----------------------------------------------------------------------------------------

    @property
    def name(self):
        """The layer's name."""
        return self._name

    @name.setter
    def name(self, value):
        self.__dict__["_name"] = value

    def _set_policy(self, dtype):
        policy = backend.get_policy(dtype)
        state = self.__dict__
        state["_dtype_policy"] = policy
        compute = np.dtype(policy.compute_dtype)
        # Nothing is computed below float32; a float16 layer casts what it returns.
        state["_working_dtype"] = np.dtype(np.float32) if compute == np.float16 else compute
        state["_result_dtype"] = compute if compute == np.float16 else None

    @property
    def dtype_policy(self):
        """The `DTypePolicy`."""
        return self._dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value):
        self._set_policy(value)
        self._changed()

    @property
    def dtype(self):
        """The type of the weights, as a string; the same as `variable_dtype`."""
        return self._dtype_policy.variable_dtype

    @property
    def variable_dtype(self):
        """The type of the weights, as a string."""
        return self._dtype_policy.variable_dtype

    @property
    def compute_dtype(self):
        """The type of the results, as a string."""
        return self._dtype_policy.compute_dtype

    @property
    def input_dtype(self):
        """The type that floating-point inputs come in."""
        return self._dtype_policy.compute_dtype

    @property
    def input_spec(self):
        """What the first argument of a call must fit: an `InputSpec`, a nest of them, or None."""
        return self._input_spec

    @input_spec.setter
    def input_spec(self, value):
        self.__dict__["_input_spec"] = value

    @property
    def supports_masking(self):
        """Whether a mask may come in and go on."""
        return self._supports_masking

    @supports_masking.setter
    def supports_masking(self, value):
        self.__dict__["_supports_masking"] = value

    @property
    def activity_regularizer(self):
        """The penalty on the outputs, or None."""
        return self._activity_regularizer

    @activity_regularizer.setter
    def activity_regularizer(self, value):
        self.__dict__["_activity_regularizer"] = regularizers.get(value)

    # -- weights ------------------------------------------------------------------------------------------------

    def add_weight(
        self,
        *args,
        shape=None,
        initializer=None,
        dtype=None,
        trainable=None,
        autocast=True,
        regularizer=None,
        constraint=None,
        aggregation="none",
        overwrite_with_gradient=False,
        name=None,
        **kwargs,
    ):
        """Make a weight of this layer.

        Both of Keras's spellings are understood: ``add_weight(shape, initializer, dtype, ...)`` of Keras 3 and
        ``add_weight(name, shape, dtype, initializer, regularizer, trainable, constraint)`` of Keras 2, told apart by
        whether the first argument is a string.

        Parameters
        ----------
        shape : tuple of int
            ``()`` by default.
        initializer : str, callable or array, optional
            ``"glorot_uniform"`` by default, ``"zeros"`` for a type that is not a float.
        dtype : str, optional
            The layer's `variable_dtype` by default.
        trainable : bool
        regularizer, constraint : str, callable or None
        name : str, optional
        autocast, aggregation, overwrite_with_gradient
            Accepted for Keras's sake: NumPy's promotion casts, there are no replicas, gradients are gradients.

        Returns
        -------
        Variable

        Raises
        ------
        ValueError
            If the layer is built already, or the shape is not fully known.
        """
        self._check_super_called()
        order = ("name", "shape", "dtype", "initializer", "regularizer", "trainable", "constraint")
        if not args or not isinstance(args[0], str):
            order = ("shape", "initializer", "dtype")
        if len(args) > len(order):
            raise TypeError(f"add_weight() takes at most {len(order)} positional arguments but {len(args)} were given.")
        given = {
            "name": name,
            "shape": shape,
            "dtype": dtype,
            "initializer": initializer,
            "regularizer": regularizer,
            "trainable": trainable,
            "constraint": constraint,
        }
        for key, value in zip(order, args, strict=False):
            if given[key] is not None:
                raise ValueError(f"`{key}` was passed both positionally and as a keyword argument.")
            given[key] = value
        unknown = set(kwargs) - {
            "use_resource",
            "synchronization",
            "experimental_autocast",
            "collections",
            "partitioner",
            "getter",
        }
        if unknown:
            raise TypeError(f"add_weight() got unexpected keyword arguments: {sorted(unknown)}")
        if self._locked:
            self._refuse_state()

        shape = given["shape"] if given["shape"] is not None else ()
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if any(n is None for n in shape):
            raise ValueError(
                "Shapes used to initialize variables must be fully-defined (no `None` dimensions). "
                f"Received: shape={shape}"
            )
        allow(math.prod(shape))
        dtype = self.variable_dtype if given["dtype"] is None else backend.standardize_dtype(given["dtype"])
        initializer = given["initializer"]
        if initializer is None:
            initializer = "glorot_uniform" if "float" in dtype else "zeros"
        initializer = initializers.get(initializer)
        if is_expecting() and isinstance(initializer, initializers.RandomInitializer):
            initializer = initializers.Zeros()  # what the file has comes in its place: nothing is drawn
        with suspended():
            value = initializer(shape, dtype=dtype)
        value = np.asarray(value)
        if value.shape != shape:
            raise ValueError(
                f"The initializer of weight {given['name']!r} of layer {self.name!r} returned shape {value.shape}, "
                f"expected {shape}"
            )
        variable = Variable(
            value,
            trainable=given["trainable"] is None or bool(given["trainable"]),
            name=given["name"],
            dtype=dtype,
            regularizer=regularizers.get(given["regularizer"]),
            constraint=constraints.get(given["constraint"]),
        )
        scope = [layer.name for layer, _ in calls.stack]
        if not calls.stack or calls.stack[-1][0] is not self:
            scope.append(self.name)
        variable.path = "/".join([*scope, variable.name])
        self._track(variable)
        self._changed()
        return variable

    def add_variable(self, *args, **kwargs):
        """Make a weight of this layer; the same as `add_weight`."""
        return self.add_weight(*args, **kwargs)

    # -- losses -------------------------------------------------------------------------------------------------

    def add_loss(self, loss):
        """Add a scalar, or several, to the loss of the model that this layer is in; to be called within `call`.

        Parameters
        ----------
        loss : scalar, or list of scalars
        """
        global _losses_added
        _losses_added = True
        for value in leaves_of(loss):
            if isinstance(value, Tensor) and value.trace is None:
                raise ValueError(
                    f"add_loss() was given {value!r}, a symbol of a functional graph, which no training step would "
                    "compute. Call it within the `call` of a layer, and put that layer into the graph."
                )
            if not isinstance(value, (ArrayLike, np.ndarray)):
                value = np.asarray(value, self._working_dtype)
            self._losses.append(value)

    @property
    def losses(self):
        """What the last call added (`add_loss`, activity penalties), then one scalar per regularized weight."""
        found = [loss for layer in self._flatten_layers() for loss in layer._losses]
        return found + [v.regularizer(v) for v in self.trainable_weights if v.regularizer is not None]

    def _clear_losses(self):
        for layer in self._flatten_layers():
            layer._losses.clear()

    # -- building -----------------------------------------------------------------------------------------------

    def build(self, input_shape=None):
        """Make the weights, knowing the shape of the input. Called once, before the first `call`.

        Parameters
        ----------
        input_shape : tuple, or nest of tuples
            None stands for a length that is not known. A subclass may name further parameters after those of `call`,
            with ``_shape`` added (``build(self, a_shape, b_shape)`` for ``call(self, a, b)``).
        """

    def _build_at_init(self):
        """Mark a layer without weights as built."""
        self.__dict__["built"] = True

    def _maybe_build(self, args, kwargs):
        names = shape_parameters(type(self).build)
        if type(self).build is Layer.build or not names:
            self.build(*([shape_of(args[0])] if args and names and is_values(args[0]) else []))
            return
        self.build(**self._shapes_for(names, args, kwargs, "build"))
        if self._input_spec is not None:
            self._check_input(args[0] if args else kwargs.get(self._call_info.first))

    def _shapes_for(self, names, args, kwargs, method):
        """Return the shapes of a call's arguments under the names that `build` or the like has for them."""
        info = self._call_info
        values = {**dict(zip(info.names, args, strict=False)), **kwargs}
        shapes = {}
        for key in [*info.names, *(key for key in kwargs if key not in info.names)]:
            value = values.get(key)
            if key != "mask" and value is not None and is_values(value):
                shapes[f"{key}_shape"] = shape_of(value)
        if len(names) == 1:
            return {names[0]: next(iter(shapes.values()), None)}
        chosen = {}
        for name in names:
            if not name.endswith("_shape") or (name.removesuffix("_shape") not in info.names and not info.keywords):
                raise ValueError(
                    f"For a `{method}()` method with more than one argument, all arguments should have a `_shape` "
                    f"suffix and match an argument from `call()`. E.g. `{method}(self, foo_shape, bar_shape)`. "
                    f"For layer '{type(self).__name__}', received `{method}()` argument `{name}`, and the arguments "
                    f"of `call()` are {info.names}."
                )
            if name in shapes:
                chosen[name] = shapes[name]
        return chosen

    def get_build_config(self):
        """Return the shapes that `build` was called with, or None."""
        shapes = self._build_shapes
        if shapes is None:
            return None
        if len(shapes) == 1:
            return {"input_shape": next(iter(shapes.values()))}
        return {"shapes_dict": shapes}

    def build_from_config(self, config):
        """Build from `get_build_config`'s result.

        Parameters
        ----------
        config : dict
        """
        if "input_shape" in config:
            self.build(_with_tuples(config["input_shape"]))
        elif "shapes_dict" in config:
            self.build(**{name: _with_tuples(shapes) for name, shapes in config["shapes_dict"].items()})

    # -- calling ------------------------------------------------------------------------------------------------

    def call(self, *args, **kwargs):
        """Compute the outputs from the inputs; to be defined by a subclass. Users call the layer itself."""
        raise NotImplementedError(f"Layer {type(self).__name__} does not have a `call()` method implemented.")

    def _check_super_called(self):
        if "_name" not in self.__dict__:
            raise RuntimeError(
                f"In layer '{type(self).__name__}', you forgot to call `super().__init__()` as the first statement "
                "in the `__init__()` method. Go add it!"
            )

    def _check_input(self, x):
        spec = self._input_spec
        if isinstance(spec, InputSpec) and not isinstance(x, (list, tuple, dict)):
            spec.check(x, 0, self.name)
            return
        specs = leaves_of(spec)
        if isinstance(x, dict) and all(s is not None and s.name for s in specs):
            absent = [s.name for s in specs if s.name not in x]
            if absent:
                raise ValueError(
                    f'Missing data for input "{absent[0]}". You passed a data dictionary with keys {list(x)}. '
                    f"Expected the following keys: {[s.name for s in specs]}"
                )
            values = [x[s.name] for s in specs]
        else:
            values = leaves_of(x)
        if len(values) != len(specs):
            raise ValueError(
                f'Layer "{self.name}" expects {len(specs)} input(s), but it received {len(values)} input tensors. '
                f"Inputs received: {values}"
            )
        for index, (value, one) in enumerate(zip(values, specs, strict=True)):
            if one is not None:
                one.check(value, index, self.name)

    def _take(self, x):
        """Bring one value into the layer's float type; its mask comes along."""
        if type(x) is np.ndarray:
            dtype = x.dtype
            if dtype is self._working_dtype or dtype.kind != "f" or not self.autocast or dtype == self._working_dtype:
                return x
            if self._working_dtype.kind != "f":
                return x
            cast = x.astype(self._working_dtype)
        elif isinstance(x, ArrayLike):
            if isinstance(x, Variable) and not graph.is_tracing():
                return self._take(x.value)
            if (
                x.dtype.kind != "f"
                or not self.autocast
                or x.dtype == self._working_dtype
                or self._working_dtype.kind != "f"
            ):
                return x
            cast = ops.cast(x, self._working_dtype)
        elif hasattr(x, "__array__"):
            return self._take(backend.as_ndarray(x, f"an input of layer '{self.name}'"))
        else:
            return x
        mask = get_mask(x)
        if mask is not None:
            set_mask(cast, mask)
        return cast

    def _working(self, x):
        """Bring an input or a weight into the type to compute in: the policy's, but float32 instead of float16."""
        if x.dtype == self._working_dtype:
            return x
        if x.dtype.kind == "c" and self._working_dtype.kind != "c":
            raise TypeError(
                f"Layer '{self.name}' computes in {self._working_dtype}, which has no imaginary part. Received: an "
                f"array of dtype {x.dtype}. Pass real and imaginary part as features"
            )
        return ops.cast(x, self._working_dtype)

    def _take_positional(self, x):
        taken = self._take(x)
        if isinstance(taken, (int, float, complex, str)) and not isinstance(taken, bool):
            raise ValueError(
                "Only input tensors may be passed as positional arguments. The following argument value should be "
                f"passed as a keyword argument: {x} (of type {type(x)})"
            )
        return taken

    def __call__(self, *args, **kwargs):
        """Call the layer on arrays, or on symbolic tensors.

        Parameters
        ----------
        *args, **kwargs
            Those of `call`. `training` and `mask` are filled in where they are not given: `training` from the layer or
            model in whose `call` this one happens, `mask` from the first argument.

        Returns
        -------
        nest of numpy.ndarray, or of Tensor
        """
        info = self._call_info
        if info is None:
            self._check_super_called()

        if len(args) == 1 and not kwargs and type(args[0]) is np.ndarray:  # what is nearly always passed
            first = self._take(args[0])
            return self._call_directly(first, (first,), kwargs, None)

        # The arguments, in the layer's float type.
        if self._allow_non_tensor_positional_args:
            args = tuple([map_nest(self._take, x) for x in args])
        else:
            args = tuple([map_nest(self._take_positional, x) for x in args])
        for key in kwargs:
            if key != "training":
                kwargs[key] = map_nest(self._take, kwargs[key])
        if args:
            first = args[0]
        elif info.first is not None and info.first in kwargs:
            first = kwargs[info.first]
        else:
            self._refuse_misfits(args, kwargs)  # naming what is missing
            first = None

        training = kwargs.pop("training", None)
        if training is None and 0 <= info.training_index < len(args):
            training = args[info.training_index]
        if not graph.is_tracing() and (
            isinstance(first, Tensor) or any(isinstance(x, Tensor) for x in leaves_of((args, kwargs)))
        ):
            return self._call_functional(first, args, kwargs, training)
        return self._call_directly(first, args, kwargs, training)

    def _call_directly(self, first, args, kwargs, training):
        info = self._call_info
        stack = calls.stack
        if self._input_spec is not None:
            self._check_input(first)
        if not self.built:
            with _build_lock:  # of several threads that call a new layer at once, one makes the weights
                if not self.built:
                    self._maybe_build(args, kwargs)
        if not stack and _losses_added:
            self._clear_losses()
        if local.trace is not None:
            local.trace.enter(self, stack)

        # training: as given > as in the call around this one > as by default
        if training is None and stack:
            training = stack[-1][1]
        if training is None:
            training = info.training_default
        if info.has_training and training is not None and info.training_index >= len(args):
            kwargs["training"] = training

        given = kwargs.get("mask") if info.has_mask and info.mask_index >= len(args) else None
        if given is None:
            previous = masks_of(first)
            if info.has_mask and info.mask_index < len(args):
                previous = args[info.mask_index]
            elif info.has_mask and previous is not None:
                kwargs["mask"] = previous
        else:
            previous = given

        stack.append((self, training))
        try:
            if (info.own or self._wraps_function) and local.trace is None:
                outputs = self._finish(self._call_guarded(args, kwargs))
            else:
                outputs = self._finish(self.call(*args, **kwargs))
        except TypeError:
            self._refuse_misfits(args, kwargs)
            raise
        finally:
            stack.pop()

        if previous is None and (not self._supports_masking or type(self).compute_mask is Layer.compute_mask):
            return outputs
        return self._pass_mask(first, previous, outputs)

    def _refuse_misfits(self, args, kwargs):
        """Raise TypeError if it is not what `call` takes, and say what that is."""
        problem = arguments_problem(self.call, args, kwargs)
        if problem is not None:
            raise TypeError(
                f"Call of layer '{self.name}' (of type {type(self).__name__}): {problem}. It takes "
                f"{inspect.signature(self.call)}"
            ) from None

    def _call_guarded(self, args, kwargs):
        """Run a `call` that a user wrote on arrays that it cannot write to."""
        guard = ReadOnly()
        args = [map_nest(guard.view, x) for x in args]
        kwargs = {key: map_nest(guard.view, x) for key, x in kwargs.items()}
        try:
            outputs = self.call(*args, **kwargs)
        except ValueError as error:
            if "read-only" in str(error):
                error.add_note(
                    f"Layer '{self.name}' (of type {type(self).__name__}): `call` must not write into what it is "
                    "given. Write `x = x + y` for `x += y`, and ops.where for an assignment of items"
                )
            raise
        return map_nest(guard.release, outputs) if any(map(guard.holds, leaves_of(outputs))) else outputs

    def _finish(self, outputs):
        """Turn what `call` returned into what the layer returns, and note what it costs."""
        if isinstance(outputs, np.generic):
            outputs = np.asarray(outputs)  # NumPy's reductions return scalars, layers return arrays
        if self._result_dtype is not None:
            outputs = map_nest(self._give, outputs)
        if self._activity_regularizer is not None:
            self._penalize(outputs)
        return outputs

    def _give(self, x):
        """Bring one result into the type that the layer promises."""
        if not hasattr(x, "dtype") or x.dtype.kind != "f" or x.dtype == self._result_dtype:
            return x
        cast = ops.cast(x, self._result_dtype)
        mask = get_mask(x)
        if mask is not None:
            set_mask(cast, mask)
        return cast

    def _penalize(self, outputs):
        for output in leaves_of(outputs):
            if hasattr(output, "shape"):
                penalty = self._activity_regularizer(output)
                if len(output.shape) > 0:
                    # An empty batch costs nothing.
                    penalty = penalty / ops.maximum(ops.cast(ops.shape(output)[0], output.dtype), 1)
                self.add_loss(penalty)

    def _pass_mask(self, first, previous, outputs):
        """Give the outputs their masks."""
        if self._supports_masking:
            masks = self.compute_mask(first, previous)
        else:
            masks = None
            warnings.warn(
                f"Layer '{self.name}' (of type {type(self).__name__}) was passed an input with a mask attached to it. "
                "However, this layer does not support masking and will therefore destroy the mask information. "
                "Downstream layers will not see the mask.",
                stacklevel=4,
            )
        incoming = (first,) if isinstance(first, (np.ndarray, Tensor)) else leaves_of(first)
        if isinstance(outputs, (np.ndarray, Tensor)):
            return attach_mask(outputs, leaves_of(masks)[0] if isinstance(masks, (list, tuple)) else masks, incoming)
        if isinstance(outputs, dict):
            masks = masks if isinstance(masks, dict) else {}
            return type(outputs)((key, attach_mask(x, masks.get(key), incoming)) for key, x in outputs.items())
        flat = itertools.chain(leaves_of(masks), itertools.repeat(None))
        return map_nest(lambda output: attach_mask(output, next(flat), incoming), outputs)

    def _call_functional(self, first, args, kwargs, training):
        """Record this layer as a node of a functional graph."""
        if self._input_spec is not None:
            self._check_input(first)
        if not self.built:
            with _build_lock:  # of several threads that call a new layer at once, one makes the weights
                if not self.built:
                    self._maybe_build(args, kwargs)
        if training is not None and self._call_info.training_index >= len(args):
            kwargs["training"] = training
        self._refuse_misfits(args, kwargs)  # `compute_output_spec` may take more than `call`
        specs = self.compute_output_spec(*args, **kwargs)
        outputs = graph.record(self, args, kwargs, specs)
        node = next(x for x in leaves_of(outputs) if isinstance(x, Tensor)).node
        self._inbound_nodes.append(node)
        previous = kwargs.get("mask")
        if previous is None:
            previous = masks_of(first)
        if previous is None and (not self._supports_masking or type(self).compute_mask is Layer.compute_mask):
            return outputs
        return self._pass_mask(first, previous, outputs)

    # -- shapes and masks ---------------------------------------------------------------------------------------

    def compute_output_spec(self, *args, **kwargs):
        """Say what shape and dtype the outputs have, without computing them.

        Uses `compute_output_shape` where a subclass defines it, and otherwise runs `call` on symbols.

        Parameters
        ----------
        *args, **kwargs
            As of `call`, with Tensors, Specs or arrays.

        Returns
        -------
        Spec, or nest of them
        """
        method = type(self).compute_output_shape
        if method is Layer.compute_output_shape:
            return self._trace_spec(args, kwargs)
        names = shape_parameters(method)
        if names:
            shape = self.compute_output_shape(**self._shapes_for(names, args, kwargs, "compute_output_shape"))
        else:  # (*args, **kwargs)
            shape = self.compute_output_shape(shape_of(args[0]))
        return self._specs_of(shape)

    def _spec_as(self, shape, *inputs):
        """Return the Spec of an output that has the type of the inputs: integers stay what they are."""
        floats = [x.dtype for x in inputs if x.dtype.kind == "f"]
        dtype = np.result_type(*(floats or [x.dtype for x in inputs]))
        return Spec(shape, self._result_dtype or dtype if floats else dtype)

    def _specs_of(self, shape):
        if is_shape(shape):
            return Spec(shape, self.compute_dtype)
        if isinstance(shape, dict):
            return {key: self._specs_of(value) for key, value in shape.items()}
        if not isinstance(shape, (list, tuple)):
            raise ValueError(
                f"Method `compute_output_shape()` of layer {type(self).__name__} is returning a type that cannot be "
                f"interpreted as a shape. It should return a shape tuple. Received: {shape}"
            )
        return type(shape)([self._specs_of(value) for value in shape])

    def _trace_spec(self, args, kwargs):
        def to_spec(x):
            return Spec.of(x) if isinstance(x, (Tensor, Spec)) else x

        symbols = [x for x in leaves_of((args, kwargs)) if isinstance(x, (Tensor, Spec))]
        masks = [get_mask(x) if isinstance(x, Tensor) else None for x in symbols]
        masks = [None if mask is None else Spec.of(mask) for mask in masks]
        spec_args, spec_kwargs = map_nest(to_spec, args), map_nest(to_spec, kwargs)
        # A trace is no call: what it adds to the losses is taken away again.
        before = [(layer, list(layer._losses)) for layer in self._flatten_layers()]

        def run(args, kwargs, masks):
            remaining = iter(masks)
            for x in leaves_of((args, kwargs)):
                if isinstance(x, Tensor):
                    x.mask = next(remaining)
            return self(*args, **kwargs)

        result = graph.abstract(run, (spec_args, spec_kwargs, masks))
        for layer, losses in before:
            layer._losses[:] = losses
        return map_nest(lambda x: x if x is None else Spec.of(x), result)

    def compute_output_shape(self, *args, **kwargs):
        """Say what shape the output has for an input of a shape.

        Parameters
        ----------
        input_shape : tuple, or nest of them
            None stands for a length that is not known.

        Returns
        -------
        tuple, or nest of them
        """
        self._check_super_called()
        shapes = [*args, *kwargs.values()]

        def to_spec(shape):
            if is_shape(shape):
                return Spec(shape, self._working_dtype)
            if isinstance(shape, dict):
                return {key: to_spec(value) for key, value in shape.items()}
            return type(shape)([to_spec(value) for value in shape])

        specs = [None if shape is None else to_spec(shape) for shape in shapes]
        names = [name.removesuffix("_shape") for name in kwargs]
        call_args, call_kwargs = specs[: len(args)], dict(zip(names, specs[len(args) :], strict=True))
        if "input" in call_kwargs or "inputs" in call_kwargs:  # compute_output_shape(input_shape=...)
            call_args = [call_kwargs.pop("input", None) or call_kwargs.pop("inputs")]
        if not self.built:
            self._maybe_build([Tensor(s) if isinstance(s, Spec) else s for s in call_args], {})
        return map_nest(lambda spec: spec.shape, self._trace_spec(tuple(call_args), call_kwargs))

    def compute_mask(self, inputs, previous_mask=None):
        """Say which mask goes on with the output.

        Parameters
        ----------
        inputs : array or Tensor, or nest of them
        previous_mask : array or Tensor, or nest of them, or None
            The mask of `inputs`.

        Returns
        -------
        array or Tensor, or nest of them, or None
        """
        return previous_mask

    # -- the functional graph -----------------------------------------------------------------------------------

    def _only_node(self, what):
        if not self._inbound_nodes:
            raise AttributeError(
                f"The layer {self.name} has never been called on symbolic tensors and thus has no defined {what}."
            )
        if len(self._inbound_nodes) > 1:
            raise AttributeError(
                f"The layer {self.name!r} has multiple inbound nodes, and thus has no unambiguous {what}. Hold on "
                "to the tensors that its calls returned instead."
            )
        return self._inbound_nodes[0]

    @property
    def input(self):
        """The Tensor, or list of them, that the layer was called on in a functional graph."""
        node = self._only_node("input")
        inputs = node.inputs
        return inputs[0] if len(inputs) == 1 else list(inputs)

    @property
    def output(self):
        """The Tensor, or list of them, that the layer returned in a functional graph."""
        outputs = self._only_node("output").outputs
        return outputs[0] if len(outputs) == 1 else list(outputs)

    # -- configuration ------------------------------------------------------------------------------------------

    def get_config(self):
        """Return the arguments that make this layer again, without its weights.

        A subclass adds its own. One that defines no `get_config` gets its constructor's arguments as they were passed,
        if they are plain values.

        Returns
        -------
        dict

        Raises
        ------
        NotImplementedError
            If the arguments are not plain values.
        """
        self._check_super_called()
        config = {"name": self.name, "trainable": self.trainable, "dtype": serialize_policy(self._dtype_policy)}
        if self._activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self._activity_regularizer)
        if type(self).get_config is Layer.get_config and type(self).__init__ is not Layer.__init__:
            config.update(self._constructor_config(set(config)))
        return config

    def _constructor_config(self, known):
        args, kwargs = self._init_arguments
        bound = inspect.signature(type(self).__init__).bind(self, *args, **kwargs).arguments
        extra = {}
        for key, value in list(bound.items())[1:]:
            kind = inspect.signature(type(self).__init__).parameters[key].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                extra.update(value)
            elif kind is inspect.Parameter.VAR_POSITIONAL and value:
                raise NotImplementedError(_NO_CONFIG.format(type(self).__name__, f"*{key}"))
            elif kind is not inspect.Parameter.VAR_POSITIONAL:
                extra[key] = value
        for key, value in extra.items():
            if key not in known and not all(
                v is None or isinstance(v, (bool, int, float, str)) for v in leaves_of(value)
            ):
                raise NotImplementedError(_NO_CONFIG.format(type(self).__name__, key))
        return {key: value for key, value in extra.items() if key not in known}

    @classmethod
    def from_config(cls, config):
        """Make a layer from `get_config`'s result.

        Parameters
        ----------
        config : dict

        Returns
        -------
        Layer
            New, without weights.

        Notes
        -----
        A constructor without parameters for name, trainability or dtype gets none; these are set afterwards.
        """
        config = {key: value for key, value in config.items() if (key, value) not in _NO_EFFECT}
        parameters = inspect.signature(cls.__init__).parameters
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
            return cls(**config)
        unasked = {key: config[key] for key in _OF_ALL_LAYERS if key in config and key not in parameters}
        layer = cls(**{key: value for key, value in config.items() if key not in unasked})
        for key, name in _OF_ALL_LAYERS.items():
            if key in unasked:
                setattr(layer, name, unasked[key])
        return layer


# What Keras's configurations hold beside arguments that are known here.
_NO_EFFECT = (("quantization_config", None), ("enable_caching_device", True), ("enable_caching_device", False))
_OF_ALL_LAYERS = {"name": "name", "trainable": "trainable", "dtype": "dtype_policy"}  # key -> attribute
_NO_CONFIG = (
    "Layer {0} was created by passing non-serializable argument values in `__init__()` ({1}), and therefore the "
    "layer must override `get_config()` in order to be serializable. Please implement `get_config()`."
)
Layer.build = wrap_build(Layer.build)


def _with_tuples(shapes):
    """Return a nest of shapes with the shapes as tuples, which JSON does not have."""
    return shapes if shapes is None else map_shapes(lambda shape: shape, shapes)


def serialize_policy(policy):
    """Return the configuration of a `DTypePolicy`."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": policy.get_config(), "registered_name": None}


export("keras.layers", Layer)
