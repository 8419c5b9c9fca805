"""`Bidirectional`: one layer over the sequences, a second one over the same sequences from their ends."""

import inspect

import numpy as np

from .. import ops
from ..serialization import custom_object_scope, deserialize_keras_object, export, serialize_keras_object, sharing
from .base import Layer
from .cell_protocol import output_size_of, output_sizes_of, sizes_of
from .fused import run_abreast
from .masks import get_mask
from .nests import is_shape, leaves_of, map_nest, map_shapes, pack_like
from .plain_call import PlainCall, call_plainly
from .rnn import RNN, call_arguments, listed
from .watching import trace_of
from .wrapper import Wrapper

__all__ = ["Bidirectional"]

_MERGE_MODES = ("sum", "mul", "ave", "concat", None)


class Bidirectional(Wrapper):
    """Two recurrent layers, one for each direction of time, with their outputs merged.

    Where both layers have kernels, both directions are one operation, side by side on the threads when the batch is
    small.

    Parameters
    ----------
    layer : RNN, or Layer with `go_backwards`, `return_sequences`, `return_state`
        Only its configuration is used: `forward_layer` is made from it, with weights of its own.
    merge_mode : {"concat", "sum", "mul", "ave"} or None
        How the outputs of both directions become one. With None both are returned.
    weights : list of array, optional
        Values that the weights start from: those of `forward_layer`, then those of `backward_layer`.
    backward_layer : Layer, optional
        The layer for the other direction, used as it is. By default one like `layer`, with the other `go_backwards`.
    **kwargs
        Of `Layer`.

    Attributes
    ----------
    forward_layer, backward_layer : Layer
        At masked timesteps both emit zeros if they return sequences, and their last output again if not, whatever their
        `zero_output_for_mask` was.
    return_sequences, return_state, stateful : bool
    kernel_path : str
        ``"kernel"`` if both layers run on kernels, else ``"program"``.

    Raises
    ------
    ValueError
        For an unknown `merge_mode`, what is no layer, and two layers that do not fit together.

    Notes
    -----
    A `layer` that goes backwards is accepted: then both outputs are in reversed time.

    Examples
    --------
    >>> import numpy as np
    >>> from numbarnn import layers
    >>> layer = layers.Bidirectional(layers.LSTM(4, return_sequences=True))
    >>> layer(np.zeros((2, 5, 3), np.float32)).shape
    (2, 5, 8)
    """

    def __init__(self, layer, merge_mode="concat", weights=None, backward_layer=None, **kwargs):
        if backward_layer is not None and not isinstance(backward_layer, Layer):
            raise ValueError(
                f"`backward_layer` need to be a `numbarnn.layers.Layer` instance. Received: {backward_layer}"
            )
        if merge_mode not in _MERGE_MODES:
            raise ValueError(
                f"Invalid merge mode. Received: {merge_mode}. Merge mode should be one of "
                '{"sum", "mul", "ave", "concat", None}'
            )
        # The weights are those of the two layers made from it.
        self._set_untracked("layer", None)
        self._set_untracked("_plain_call", PlainCall())
        self._set_untracked("_num_constants", getattr(layer, "_num_constants", None))
        super().__init__(layer, weights=weights, **{"trainable": getattr(layer, "trainable", True), **kwargs})
        absent = [name for name in ("go_backwards", "return_sequences", "return_state") if not hasattr(layer, name)]
        if absent:
            raise ValueError(f"`Bidirectional` needs a layer with the attributes {absent}. Received: {layer}")
        self.forward_layer = _made_again(layer, "forward_", layer.go_backwards)
        if backward_layer is None:
            backward_layer = _made_again(layer, "backward_", not layer.go_backwards)
        self.backward_layer = backward_layer
        self._check_layers()
        for each in self._both:
            if hasattr(each, "zero_output_for_mask"):
                each.zero_output_for_mask = each.return_sequences
        self.merge_mode = merge_mode
        self.return_sequences = layer.return_sequences
        self.return_state = layer.return_state
        self.stateful = getattr(layer, "stateful", False)
        self.supports_masking = True
        self.input_spec = layer.input_spec

    def _check_layers(self):
        forward, backward = self._both
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                "Forward layer and backward layer should have different `go_backwards` value. Received: "
                f"forward_layer.go_backwards={forward.go_backwards}, "
                f"backward_layer.go_backwards={backward.go_backwards}"
            )
        for name in ("stateful", "return_sequences", "return_state", "time_major"):
            values = [getattr(layer, name, False) for layer in self._both]
            if values[0] != values[1]:
                raise ValueError(
                    f'Forward layer and backward layer are expected to have the same value for attribute "{name}", got '
                    f'"{values[0]}" for forward layer and "{values[1]}" for backward layer'
                )

    @property
    def _both(self):
        return self.forward_layer, self.backward_layer

    @property
    def kernel_path(self):
        """How the cells are run: both by kernels of their own (``"kernel"``) or step by step (``"program"``)."""
        paths = [getattr(layer, "kernel_path", "program") for layer in self._both]
        return "kernel" if paths == ["kernel", "kernel"] else "program"

    def build(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        """Build both layers."""
        for layer in self._both:
            if not layer.built:
                layer.build(sequences_shape)
        sizes = [output_size_of(layer.cell) for layer in self._both if isinstance(layer, RNN)]
        if self.merge_mode in ("sum", "mul", "ave") and len(set(sizes)) > 1:
            raise ValueError(
                f'With merge_mode="{self.merge_mode}" both layers must have outputs of one size. Received: '
                f"{sizes[0]} of forward_layer, {sizes[1]} of backward_layer"
            )
        self.input_spec = self.forward_layer.input_spec

    # -- calling ------------------------------------------------------------------------------------------------

    def __call__(self, sequences, /, *args, **kwargs):
        """Run over `sequences`; a list is ``[sequences, *initial_state, *constants]``, a tuple or dict is a nest."""
        if type(sequences) is np.ndarray and not args and not kwargs and "_plain_call" in self.__dict__:
            return call_plainly(self, sequences, super().__call__)
        sequences, kwargs = call_arguments(self, sequences, args, kwargs)
        states = kwargs.get("initial_state")
        if states is not None:
            kwargs["initial_state"] = states = list(states) if isinstance(states, (list, tuple)) else [states]
            if len(states) % 2 and len(states) != sum(self._state_counts):
                raise ValueError(
                    "When passing `initial_state` to a Bidirectional RNN, the state should be a list containing the "
                    f"states of the underlying RNNs. Received: {states}"
                )
        return super().__call__(sequences, **kwargs)

    def call(self, sequences, initial_state=None, mask=None, training=False, reset=None, constants=None):
        """Run over time in both directions.

        Parameters
        ----------
        sequences : array or Tensor, shape (batch, timesteps, ...)
        initial_state : list of arrays, optional
            Those for `forward_layer`, then as many for `backward_layer`.
        mask : array, shape (batch, timesteps), optional
            True where a timestep counts.
        training : bool
            Whether dropout is active.
        reset : array, shape (batch, timesteps), optional
            True where a new sequence begins within a row: the states going forwards are set to zero before that
            timestep, those going backwards before the one in front of it, which is the last of the sequence before.
            So each sequence gets what it would alone. No gradient flows across.
        constants : list of arrays, optional
            For both layers; see `RNN`.

        Returns
        -------
        array or Tensor
            The merged output, with `return_state` in a list together with the last states of `forward_layer`, then
            those of `backward_layer`. Without a merge mode, a list that begins with both outputs. Sequences of
            `backward_layer` are turned round: both outputs speak of the same timestep.

        Raises
        ------
        ValueError
            Of either layer; the recorded states of both stay as they were.
        """
        axis = 0 if getattr(self.forward_layer, "time_major", False) else 1
        halves = (None, None) if initial_state is None else self._halves(initial_state)
        calls = []
        for layer, own in zip(self._both, halves, strict=True):
            given = {"initial_state": own, "mask": mask, "training": training, "reset": reset, "constants": constants}
            if reset is not None and layer.go_backwards:
                given["reset"] = _seen_backwards(reset, axis)
            calls.append(given)
        if constants is not None:
            self._num_constants = len(constants) if isinstance(constants, (list, tuple)) else 1
        return self._merged(self._run(sequences, calls))

    def _plain_parts(self):
        """See `PlainCall`."""
        return self._both if all(map(_has_parts, self._both)) else []

    def _plain_end(self, results):
        return self._merged([layer._plain_end([one]) for layer, one in zip(self._both, results, strict=True)])

    def _merged(self, both):
        """Return what a call returns, from what both layers do."""
        axis, states = 0 if getattr(self.forward_layer, "time_major", False) else 1, []
        if self.return_state:
            for i, (result, layer) in enumerate(zip(both, self._both, strict=True)):
                count = _output_count(layer)
                both[i] = result[0] if count is None else result[:count]
                states += result[1 if count is None else count :]
        y, y_rev = (map_nest(self._working, result) for result in both)
        if self.return_sequences:
            y_rev = map_nest(lambda x: ops.flip(x, axis), y_rev)
        states = [map_nest(self._working, state) for state in states]
        if self.merge_mode is None:
            return [*listed(y), *listed(y_rev), *states]
        merged = pack_like(y, [self._merge(*pair) for pair in zip(leaves_of(y), leaves_of(y_rev), strict=True)])
        return [*listed(merged), *states] if self.return_state else merged

    def _run(self, sequences, calls):
        """Return what both layers do."""
        if not all(_has_parts(layer) for layer in self._both):
            return [self._whole(layer, sequences, given) for layer, given in zip(self._both, calls, strict=True)]
        for layer in self._both:
            layer._check_input(sequences)
        begun = [layer._begin(sequences, **given) for layer, given in zip(self._both, calls, strict=True)]
        results = run_abreast([layer._passes(one) for layer, one in zip(self._both, begun, strict=True)])
        # From here on nothing is refused: states are recorded.
        outputs = [layer._end(*result) for layer, result in zip(self._both, results, strict=True)]
        return [layer._finish(output) for layer, output in zip(self._both, outputs, strict=True)]

    def _whole(self, layer, sequences, given):
        """Call a layer that is more than its loop over time."""
        info = layer._call_info
        taken = {name: value for name, value in given.items() if info.keywords or name in info.names}
        for name in given:
            # A mask that travels with the sequences is the layer's own affair.
            if name in taken or given[name] is None or name == "training" or given[name] is get_mask(sequences):
                continue
            raise ValueError(f"`{name}` is no argument of the call of layer '{layer.name}'")
        return layer(sequences, **{name: value for name, value in taken.items() if value is not None})

    def _merge(self, y, y_rev):
        if self.merge_mode == "concat":
            return ops.concatenate([y, y_rev], axis=-1)
        if self.merge_mode == "sum":
            return y + y_rev
        if self.merge_mode == "ave":
            return (y + y_rev) / 2
        return y * y_rev

    def trace(self, sequences, /, *args, **kwargs):
        """Run over `sequences` and show what happened in both layers at each timestep.

        Parameters
        ----------
        sequences, *args, **kwargs
            As of a call on arrays.

        Returns
        -------
        Directions
            ``forward`` and ``backward``: the `LayerTrace` of each layer, each in the order of its own steps; see
            `RNN.trace`.
        """
        return trace_of(self, sequences, args, kwargs)

    # -- states -------------------------------------------------------------------------------------------------

    @property
    def _state_counts(self):
        return [len(sizes_of(layer)) if isinstance(layer, RNN) else 0 for layer in self._both]

    def _halves(self, states):
        """Return the states of each layer out of those of both: the halves, unless one layer has more states."""
        counts = self._state_counts
        first = counts[0] if len(states) == sum(counts) else len(states) // 2
        return states[:first], states[first:]

    @property
    def states(self):
        """The states that a stateful layer goes on from: those of `forward_layer`, then those of `backward_layer`."""
        states = [getattr(layer, "states", None) for layer in self._both]
        return None if any(own is None for own in states) else [*states[0], *states[1]]

    def reset_states(self, states=None, mask=None):
        """Set the states of both layers.

        Parameters
        ----------
        states : list of arrays (batch, size), optional
            Those of `forward_layer`, then those of `backward_layer`; zeros by default, from which a given
            `initial_state` counts again at the next call.
        mask : array of bool, shape (batch,), optional
            True for the rows that are set; all by default.

        Raises
        ------
        AttributeError
            If the layer is not stateful.
        ValueError
            If the batch size is not known yet, or something does not fit; no state is set then.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        halves = None, None
        if states is not None:
            if not isinstance(states, (list, tuple)):
                raise ValueError(
                    f"Unrecognized value for `states`. Expected `states` to be list or tuple. Received: {states}"
                )
            halves = self._halves(states)
        given = [{} if own is None else {"states": own} for own in halves]
        if mask is not None:
            given = [{**own, "mask": mask} for own in given]
        for layer, own in zip(self._both, given, strict=True):
            if isinstance(layer, RNN):
                layer._new_states(**own)  # what does not fit either layer is refused before anything is set
        for layer, own in zip(self._both, given, strict=True):
            layer.reset_states(**own)

    def reset_state(self, states=None, mask=None):
        """Set the states of both layers; the same as `reset_states`."""
        self.reset_states(states, mask)

    # -- shapes, masks, configuration ---------------------------------------------------------------------------

    def compute_mask(self, inputs, previous_mask=None):
        """Return the mask of the inputs for sequences, None for all else."""
        mask = next((m for m in leaves_of(previous_mask) if m is not None), None) if self.return_sequences else None
        outputs = output_sizes_of(self.forward_layer.cell) if isinstance(self.forward_layer, RNN) else 0
        masks = map_nest(lambda _: mask, outputs)
        if self.merge_mode is None:
            masks = [*listed(masks), *listed(masks)]
        if self.return_state:
            masks = [*listed(masks), *[None] * sum(self._state_counts)]
        return masks

    def compute_output_shape(self, sequences_shape, initial_state_shape=None, constants_shape=None):
        """Return the shape of the output, or the shapes of outputs and states."""
        both, states = [layer.compute_output_shape(sequences_shape) for layer in self._both], []
        if self.return_state:
            for i, (result, layer) in enumerate(zip(both, self._both, strict=True)):
                count = _output_count(layer)
                both[i] = result[0] if count is None else list(result[:count])
                states += result[1 if count is None else count :]
        if self.merge_mode is None:
            return [
                *([both[0]] if is_shape(both[0]) else both[0]),
                *([both[1]] if is_shape(both[1]) else both[1]),
                *states,
            ]
        out = both[0]
        if self.merge_mode == "concat":
            others = []
            map_shapes(others.append, both[1])
            others = iter(others)
            out = map_shapes(lambda shape: (*shape[:-1], shape[-1] + next(others)[-1]), out)
        if not self.return_state:
            return out
        return [*([out] if is_shape(out) else listed(out)), *states]

    def get_config(self):
        """Return the arguments that make this layer again."""
        config = {**Layer.get_config(self), "merge_mode": self.merge_mode}
        for name, layer in zip(("layer", "backward_layer"), self._both, strict=True):
            config[name] = serialize_keras_object(layer)
            config[name].pop("build_config", None)  # both are built here, under this layer's name
        if self._num_constants is not None:
            config["num_constants"] = self._num_constants
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make a layer from `get_config`'s result.

        Parameters
        ----------
        config : dict
            ``backward_layer`` may be absent, as in configurations of Keras 2.
        custom_objects : dict, optional
            Name -> class or function.

        Returns
        -------
        Bidirectional
            New, without weights.
        """
        backward = deserialize_keras_object(config.get("backward_layer"), custom_objects=custom_objects)
        config = {**config, "backward_layer": backward}
        constants = config.pop("num_constants", None)
        layer = super().from_config(config, custom_objects)
        layer._num_constants = constants
        return layer


def _output_count(layer):
    """Return how many outputs of a layer come in a list together with its states; None for a single one."""
    outputs = output_sizes_of(layer.cell) if isinstance(layer, RNN) else None
    return len(outputs) if isinstance(outputs, (list, tuple)) else None


def _has_parts(layer):
    """Say whether a call of a layer is the beginning, passes and end that `RNN` has, all unchanged."""
    return isinstance(layer, RNN) and all(
        getattr(type(layer), name) is getattr(RNN, name) for name in ("__call__", "call")
    )


def _seen_backwards(reset, axis):
    """Move restarts to the timesteps in front: there, seen from behind, another sequence begins."""
    reset = reset if hasattr(reset, "shape") else np.asarray(reset)
    if len(reset.shape) <= axis:
        return reset  # the layer will say what is wrong
    before = (slice(None),) * axis
    moved = [reset[(*before, slice(1, None))], ops.zeros_like(reset[(*before, slice(1))])]
    return ops.concatenate(moved, axis=axis)


def _made_again(layer, prefix, go_backwards):
    """Return a layer of the same configuration, with weights of its own."""
    # Apart: what is made here twice is not one, also where both are parts of a model that is being read.
    with sharing(apart=True), custom_object_scope(_named_within(layer)):
        config = {
            **layer.get_config(),
            "go_backwards": go_backwards,
            "name": prefix + layer.name.removeprefix(prefix),
        }
        again = type(layer).from_config(config)
    _copy_unserialized(layer, again)
    return again


def _named_within(layer):
    """Return by name the classes and functions, the user's among them, that a layer's configuration may name."""
    named = {}
    for inner in layer._flatten_layers():
        values = [item for value in vars(inner).values() for item in (value if isinstance(value, list) else [value])]
        for value in (inner, *values):
            item = value if inspect.isfunction(value) else type(value)
            if value is item or hasattr(value, "get_config"):
                if named.setdefault(item.__name__, item) is not item:
                    raise ValueError(
                        f"Layer '{layer.name}' cannot be made again from its configuration: {item.__name__!r} is the "
                        "name of two different things in it. Rename one of them"
                    )
    return named


def _copy_unserialized(old, new):
    """Copy what Keras's configurations leave out."""
    for name in ("implementation", "use_cudnn"):
        if name in vars(old):
            setattr(new, name, vars(old)[name])
    for cells in zip(_cells(old), _cells(new), strict=True):
        _copy_unserialized(*cells)


def _cells(layer):
    return [cell for cell in (getattr(layer, "cell", None), *getattr(layer, "cells", ())) if cell is not None]


export("keras.layers", Bidirectional)
