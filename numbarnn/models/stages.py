"""From a model to the stages of `numbarnn.kernels.streaming`, which compute it one timestep at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .. import activations, gemm, layers
from ..cells.contract import COUNTS
from ..kernels import streaming
from ..layers.base import Layer
from ..layers.cell_protocol import nest_states, sizes_of
from .functional import Functional
from .model import Model
from .sequential import Sequential

__all__ = ["Chain", "Link", "Loop", "chain_of"]

# Activations that have the bits of the kernels as a layer's too.
_ACTIVATIONS = (
    "gelu", "hard_sigmoid", "linear", "relu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
)  # fmt: skip
# Why layers have no stage, where more can be said than that.
_REASONS = {
    "Bidirectional": "its second direction begins at the end of the sequence",
    "Masking": "a stream has no padding; take the layer out, and step only where a timestep counts",
}


class Link(NamedTuple):
    """A stage of a chain, to be made from the weights as they are at the time.

    Attributes
    ----------
    variables : tuple of Variable
        What `pack` reads.
    pack : callable
        ``pack()`` returns the stage; its states and its `out` are the same arrays each time.
    """

    variables: tuple
    pack: Callable


class Loop(NamedTuple):
    """A recurrent layer and the memory of its states.

    Attributes
    ----------
    layer : RNN
    memories : list of ndarray, shape (S, 2, B, U)
        One for each cell: the `states` of its stage.
    """

    layer: Layer
    memories: list

    def states(self):
        """Return views of the states, (B, U) each, in a flat list in the order of the layer's."""
        parts = [list(memory[:, 0]) for memory in self.memories]
        return parts[0] if self.layer.cell is self.layer._fused_cells[0] else self.layer.cell.join_states(parts)

    def nest(self, flat):
        """Return a flat list of states nested like `RNN.states`."""
        return nest_states(sizes_of(self.layer.cell), flat)

    def fitting(self, states=None):
        """Return given states, or what a sequence starts from, as a flat list of arrays; refuse what does not fit."""
        memory = self.memories[0]
        batch = memory.shape[2]
        given = self.layer.get_initial_state(batch_size=batch) if states is None else states
        flat = [np.asarray(state) for state in self.layer._fitting_start(given, batch)]
        for number, state in enumerate(flat):
            if not np.can_cast(state.dtype, memory.dtype, "same_kind"):
                raise ValueError(
                    f"State {number} is incompatible with layer {self.layer.name}: expected dtype={memory.dtype} but "
                    f"found dtype={state.dtype}"
                )
        return flat


class Chain(NamedTuple):
    """The stages of a model for a number of rows.

    Attributes
    ----------
    links : list of Link
    loops : list of Loop
    input_shape, output_shape : tuple
        Of one timestep.
    input_dtype, dtype : dtype
        Of the input, int64 for ids; of all else, float32 or float64.
    """

    links: list
    loops: list
    input_shape: tuple
    output_shape: tuple
    input_dtype: np.dtype
    dtype: np.dtype

    def same_as(self, other):
        """Say whether two chains have the same variables in stages of the same kinds and shapes."""
        return self[2:] == other[2:] and [_outline(link) for link in self.links] == [
            _outline(link) for link in other.links
        ]


def _outline(link):
    stage = link.pack()
    return [id(v) for v in link.variables], type(stage), [getattr(part, "shape", part) for part in stage]


def chain_of(model, batch):
    """Return the chain of a model.

    Parameters
    ----------
    model : Model
    batch : int
        How many rows run side by side.

    Returns
    -------
    Chain
        Its states are those that a sequence starts from.

    Raises
    ------
    ValueError
        If the model is not built, is no chain of layers from one input to one output, or has a layer that cannot run
        one timestep at a time, which is named then.
    """
    walk = _Walk(batch)
    if not isinstance(model, (Sequential, Functional)):
        walk.refuse(model, _OWN_CALL)
    try:
        shape = model.input_shape
    except AttributeError:
        raise ValueError(
            f"Model '{model.name}' must be built before it is stepped through: give it an `Input`, or call `build` "
            "with the shape of its inputs"
        ) from None
    of_ids = isinstance(shape, tuple) and len(shape) == 2
    if not of_ids and not (isinstance(shape, tuple) and len(shape) == 3 and shape[2] is not None):
        raise ValueError(
            f"Model '{model.name}' must take one input of shape (batch, timesteps, features), or ids of shape (batch, "
            f"timesteps), to run one timestep at a time. Received: input_shape={shape}"
        )
    walk.rank, walk.units = len(shape), None if of_ids else shape[2]
    walk.add(model)
    if not walk.links:
        raise ValueError(f"Model '{model.name}' has no layer that computes anything: there is nothing to step through")
    for loop in walk.loops:
        for state, value in zip(loop.states(), loop.fitting(), strict=True):
            state[...] = value
    return Chain(
        walk.links, walk.loops, (batch,) if of_ids else (batch, shape[2]), (batch, walk.units),
        np.dtype(np.int64) if of_ids else walk.dtype, walk.dtype,
    )  # fmt: skip


_OWN_CALL = "it has a `call` of its own. Build it of layers, as a `Sequential` or from inputs and outputs"


def _copied(layer, weight):
    """Return a weight as a stage takes it: an array of the layer's working type that nobody else changes."""
    return np.array(layer._working(weight), order="C")


def _present(*variables):
    return tuple(variable for variable in variables if variable is not None)


class _Walk:
    """Goes through the layers of a model and makes their stages.

    `rank` is that of what the next layer takes, timesteps included, `units` the length of its last axis (None: ids).
    """

    def __init__(self, batch):
        self.batch = batch
        self.links, self.loops = [], []
        self.rank, self.units, self.dtype = None, None, None
        self._entries = []  # models before the first stage, and the types to which they cast their inputs

    @staticmethod
    def refuse(layer, why):
        raise ValueError(
            f"'{layer.name}' ({type(layer).__name__}) cannot run one timestep at a time: {why}. `predict` runs a model "
            "over whole sequences."
        )

    def add(self, layer):
        """Add the stages of a layer."""
        kind = next((kind for kind in type(layer).__mro__ if kind in _ADD), None)
        if isinstance(layer, Model) and (kind is None or type(layer).call is not kind.call):
            self.refuse(layer, _OWN_CALL)
        if kind is None:
            known = ", ".join(sorted(kind.__name__ for kind in _ADD))
            self.refuse(layer, _REASONS.get(type(layer).__name__, f"only these can, and what is made of them: {known}"))
        if type(layer).call is not kind.call:
            self.refuse(layer, "it has a `call` of its own")
        _ADD[kind](self, layer)

    # -- models -------------------------------------------------------------------------------------------------

    def sequential(self, model):
        self._check_step(model)
        for layer in model.layers:
            self.add(layer)

    def functional(self, model):
        self._check_step(model)
        connected = model._graph
        if len(connected.inputs) != 1 or len(connected.outputs) != 1:
            self.refuse(
                model, f"it has {len(connected.inputs)} inputs and {len(connected.outputs)} outputs, not one each"
            )
        here = connected.inputs[0]
        if self.links:
            self._check_entry(model, here.dtype)
        else:
            self._entries.append((model, here.dtype))
        for node in connected.nodes:
            if not isinstance(node.operation, Layer):
                self.refuse(model, f"it has the operation '{node.name}', and only layers can")
            if len(node.args) != 1 or node.args[0] is not here or any(v is not None for v in node.kwargs.values()):
                self.refuse(model, f"layer '{node.operation.name}' takes more than the output of the layer before it")
            self.add(node.operation)
            here = node.outputs[0]

    def _check_step(self, model):
        if model._has_own("predict_step"):
            self.refuse(model, "it has a `predict_step` of its own")

    def _check_entry(self, model, dtype):
        if dtype != self.dtype:
            self.refuse(model, f"it casts its input to {dtype}, and its layers compute in {self.dtype}")

    def time_distributed(self, layer):
        self.rank -= 1
        self.add(layer.layer)
        self.rank += 1

    # -- layers -------------------------------------------------------------------------------------------------

    def _begin(self, layer, of_ids=False):
        """Check the types of a layer that computes."""
        if (self.units is None) is not of_ids:
            self.refuse(layer, "it must come first, for ids" if of_ids else "ids must go to an Embedding first")
        dtype = layer._working_dtype
        if layer._result_dtype is not None or dtype not in (np.float32, np.float64) or self.dtype not in (None, dtype):
            self.refuse(layer, f"it computes in {layer.compute_dtype}, and all must be float32, or all float64")
        first, self.dtype = self.dtype is None, dtype
        if first and not of_ids:
            for entry in self._entries:
                self._check_entry(*entry)

    def _out(self):
        return np.zeros((self.batch, self.units), self.dtype)

    def nothing(self, layer):
        pass

    def recurrent(self, layer):
        cells = layer._fused_cells
        for option in ("go_backwards", "return_state", "time_major"):
            if getattr(layer, option):
                self.refuse(layer, f"it has {option}=True")
        if cells is None:
            self.refuse(
                layer,
                f"its cell {layer.cell} does not run on kernels (`kernel_path` is 'program'). A stepper needs a "
                "built-in cell with one of the activations listed in `LSTMCell`",
            )
        memories = []
        for cell in cells:
            self._begin(cell)
            inputs, self.units = self.units, cell.units
            memories.append(self._cell(cell, inputs))
        self.loops.append(Loop(layer, memories))
        if not layer.return_sequences:
            self.rank -= 1

    def _cell(self, cell, inputs):
        room = gemm.aligned_empty((cell.kernels.room(self.batch, inputs, cell.units, self.dtype),), self.dtype)
        states = gemm.aligned_empty((cell.kernels.states, 2, self.batch, cell.units), self.dtype)
        states[...] = 0
        out, flags = self._out(), np.full((1, self.batch), COUNTS, np.uint8)
        stage = streaming.RECURRENT[cell.kernels.name]

        def pack():
            packed, codes = cell.step_arguments()
            return stage(*packed, states, flags, room, *codes, out)

        self.links.append(Link(_present(cell.kernel, cell.recurrent_kernel, cell.bias), pack))
        return states

    def dense(self, layer):
        self._begin(layer)
        self.units = layer.units
        out = self._out()

        def pack():
            bias = np.empty(0, out.dtype) if layer.bias is None else _copied(layer, layer.bias)
            return streaming.Dense(gemm.pack(np.asarray(layer._working(layer.kernel))), bias, out)

        self.links.append(Link(_present(layer.kernel, layer.bias), pack))
        self.activation(layer)

    def activation(self, layer):
        self._begin(layer)
        given = layer.activation
        name = getattr(given, "__name__", None)
        if name not in _ACTIVATIONS or getattr(activations, name) is not given:
            self.refuse(layer, f"its activation is {name or given}, and only these can: {', '.join(_ACTIVATIONS)}")
        if given is not activations.linear:
            stage = streaming.Activate(streaming.activation_code(name), self._out())
            self.links.append(Link((), lambda: stage))

    def embedding(self, layer):
        if layer.mask_zero:
            self.refuse(layer, "it has mask_zero=True, and a stream has no padding; give the weights to one without it")
        self._begin(layer, of_ids=True)
        self.units, self.rank = layer.output_dim, self.rank + 1
        out = self._out()
        self.links.append(Link((layer.embeddings,), lambda: streaming.Embed(_copied(layer, layer.embeddings), out)))

    def batch_normalization(self, layer):
        self._begin(layer)
        if layer.axis % self.rank != self.rank - 1:
            self.refuse(layer, f"it has axis={layer.axis}, not the last one")
        out = self._out()

        def pack():
            mean, factor = (np.array(a, order="C") for a in layer.moving_scale())
            beta = np.empty(0, out.dtype) if layer.beta is None else _copied(layer, layer.beta)
            return streaming.NormalizeBatch(mean, factor, beta, out)

        self.links.append(Link(_present(layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance), pack))

    def layer_normalization(self, layer):
        self._begin(layer)
        if layer.rms_scaling or layer._axes_of((None,) * self.rank) != [self.rank - 1]:
            self.refuse(
                layer, f"it has axis={layer.axis}, rms_scaling={layer.rms_scaling}, not the last axis and False"
            )
        out, moments = self._out(), np.zeros((2, self.batch))

        def pack():
            gamma = np.ones(out.shape[1], out.dtype) if layer.gamma is None else _copied(layer, layer.gamma)
            beta = np.zeros(out.shape[1], out.dtype) if layer.beta is None else _copied(layer, layer.beta)
            return streaming.NormalizeLayer(gamma.reshape(-1), beta.reshape(-1), layer.epsilon, moments, out)

        self.links.append(Link(_present(layer.gamma, layer.beta), pack))


_ADD = {
    Sequential: _Walk.sequential,
    Functional: _Walk.functional,
    layers.TimeDistributed: _Walk.time_distributed,
    layers.RNN: _Walk.recurrent,
    layers.Dense: _Walk.dense,
    layers.Activation: _Walk.activation,
    layers.Dropout: _Walk.nothing,
    layers.Identity: _Walk.nothing,
    layers.Embedding: _Walk.embedding,
    layers.BatchNormalization: _Walk.batch_normalization,
    layers.LayerNormalization: _Walk.layer_normalization,
}
