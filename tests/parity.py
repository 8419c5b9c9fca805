"""Random LSTM configurations, and what answers for the truth: live Keras, and the naive loop under autograd."""

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from functools import cache
from unittest import mock

import numpy as np

from numbarnn.testing import reference

MASKS = ("none", "right", "left", "scattered", "empty_row")
BOUNDED = {"tanh", "sigmoid", "hard_sigmoid", "softsign"}


@dataclass(frozen=True)
class Config:
    """One way to call an LSTM. Sizes first, then the options in Keras's names."""

    batch: int
    steps: int
    inputs: int
    units: int
    dtype: str
    activation: str
    recurrent_activation: str
    use_bias: bool
    unit_forget_bias: bool
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    unroll: bool
    zero_output_for_mask: bool
    time_major: bool
    as_rnn: bool  # RNN(LSTMCell) instead of LSTM
    mask: str
    initial_state: bool

    def options(self):
        """Name what this configuration exercises, for the tally: sizes are left out, defaults are named as such."""
        for field in fields(self)[4:]:
            yield f"{field.name}={getattr(self, field.name)}"
        if (self.activation, self.recurrent_activation) != ("tanh", "sigmoid"):
            yield "other activations"

    def cell_arguments(self):
        """Return the arguments of an LSTMCell."""
        names = ("units", "activation", "recurrent_activation", "use_bias", "unit_forget_bias")
        return {name: getattr(self, name) for name in names}

    def loop_arguments(self):
        """Return the arguments of the RNN around the cell."""
        names = ("return_sequences", "return_state", "go_backwards", "stateful", "unroll", "zero_output_for_mask")
        return {name: getattr(self, name) for name in names}


def draw(index):
    """Draw configuration number `index`; the same number always gives the same one."""
    rng = np.random.default_rng([1997, index])
    other = [name for name in reference.ACTIVATIONS if name not in ("tanh", "sigmoid")]
    activation, recurrent_activation = "tanh", "sigmoid"
    if rng.random() < 0.5:
        activation = str(rng.choice(["tanh", "sigmoid", *other]))
        recurrent_activation = str(rng.choice(["sigmoid", "sigmoid", "tanh", *other]))
        if activation == "exponential":  # on both sides it would run away within a few steps
            recurrent_activation = "sigmoid"
    dtype = str(rng.choice(["float32", "float64"]))
    if "hard_sigmoid" in (activation, recurrent_activation):
        dtype = "float32"  # PyTorch knows the slope 1/6 in float32 only
    return Config(
        batch=int(rng.integers(1, 8)),
        steps=int(rng.integers(1, 10)),
        inputs=int(rng.integers(1, 10)),
        units=int(rng.choice([1, 2, 3, 5, 7, 8, 11, 16, 17, 24, 33])),
        dtype=dtype,
        activation=activation,
        recurrent_activation=recurrent_activation,
        use_bias=bool(rng.random() < 0.75),
        unit_forget_bias=bool(rng.random() < 0.6),
        return_sequences=bool(rng.random() < 0.6),
        return_state=bool(rng.random() < 0.5),
        go_backwards=bool(rng.random() < 0.3),
        stateful=bool(rng.random() < 0.25),
        unroll=bool(rng.random() < 0.25),
        zero_output_for_mask=bool(rng.random() < 0.35),
        time_major=bool(rng.random() < 0.25),
        as_rnn=bool(rng.random() < 0.3),
        mask=str(rng.choice(MASKS, p=[0.4, 0.15, 0.15, 0.15, 0.15])),
        initial_state=bool(rng.random() < 0.5),
    )


@dataclass(frozen=True)
class Data:
    """Arrays for one configuration. The second of `x` and `mask` is for a stateful layer's second call."""

    x: tuple[np.ndarray, np.ndarray]
    mask: tuple[np.ndarray | None, np.ndarray | None]
    weights: list[np.ndarray]
    states: list[np.ndarray]
    d_outputs: list[np.ndarray]


def make_mask(kind, batch, steps, rng):
    """Make a mask (batch, steps) of one of the kinds in MASKS."""
    if kind == "none":
        return None
    lengths = rng.integers(1, steps + 1, size=batch)
    if kind == "right":
        return np.arange(steps) < lengths[:, None]
    if kind == "left":
        return np.arange(steps) >= steps - lengths[:, None]
    mask = rng.random((batch, steps)) < 0.6
    if kind == "empty_row":
        mask[rng.integers(batch)] = False
    return mask


def make_data(config, index):
    """Draw the arrays for configuration number `index`."""
    rng = np.random.default_rng([1998, index])
    b, t, i, u = config.batch, config.steps, config.inputs, config.units
    # Activations without a bound feed on themselves: small weights keep both sides where float32 has digits to compare.
    scale = 1.0 if {config.activation, config.recurrent_activation} <= BOUNDED else 0.3
    if "exponential" in (config.activation, config.recurrent_activation):
        scale = 0.1

    def normal(*shape, factor=1.0):
        return (factor * rng.standard_normal(shape)).astype(config.dtype)

    weights = [normal(i, 4 * u, factor=scale / np.sqrt(i)), normal(u, 4 * u, factor=scale / np.sqrt(u))]
    if config.use_bias:
        weights.append(normal(4 * u, factor=0.5 * scale))
    states = [normal(b, u, factor=0.5), normal(b, u)] if config.initial_state else []
    shapes = [(b, t, u) if config.return_sequences else (b, u)] + ([(b, u)] * 2 if config.return_state else [])
    return Data(
        x=(normal(b, t, i), normal(b, t, i)),
        mask=(make_mask(config.mask, b, t, rng), make_mask(config.mask, b, t, rng)),
        weights=weights,
        states=states,
        d_outputs=[normal(*shape) for shape in shapes],
    )


@dataclass(frozen=True)
class Answer:
    """Outputs of each call ([output, *states] if asked for), and the gradients of the last one; batch first."""

    outputs: list[list[np.ndarray]]
    d_x: np.ndarray
    d_states: list[np.ndarray]  # empty where the last call did not start from given states
    d_weights: list[np.ndarray]


@cache
def keras():
    """Import Keras on PyTorch, the backend that is on the deciding side wherever Keras's own backends disagree."""
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    assert keras.backend.backend() == "torch"
    return keras


@contextmanager
def products_in_float64():
    """Let Keras on PyTorch multiply float64 matrices as such: by itself it promotes as JAX does, to float32."""
    from keras.src.backend.common import dtypes

    with mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"):
        yield


def keras_answer(config, data):
    """Ask live Keras."""
    layers = keras().layers
    with products_in_float64() if config.dtype == "float64" else nullcontext():
        return _keras_answer(layers, config, data)


def _keras_answer(layers, config, data):
    import torch

    loop = config.loop_arguments()
    if config.go_backwards and config.mask != "none":
        loop["unroll"] = (
            False  # Keras's unrolled loop on PyTorch fails on a mask run backwards; unrolling changes no value
        )
    if config.as_rnn:
        cell = layers.LSTMCell(**config.cell_arguments(), dtype=config.dtype)
        layer = layers.RNN(cell, **loop, dtype=config.dtype)
    else:
        layer = layers.LSTM(**config.cell_arguments(), **loop, dtype=config.dtype)
    layer.build(data.x[0].shape)
    layer.set_weights(data.weights)
    outputs = []
    for call in range(2 if config.stateful else 1):
        x = torch.tensor(data.x[call], requires_grad=True)
        if call == 0:
            states = [torch.tensor(s, requires_grad=True) for s in data.states]
        else:  # copies of what it recorded: it overwrites its state variables while autograd still needs them
            states = [s.value.detach().clone() for s in layer.states]
        # The mask is always given by hand: Keras drops one that came with the input when initial states are given.
        mask = None if data.mask[call] is None else torch.tensor(data.mask[call])
        for weight in layer.trainable_weights:
            weight.value.grad = None
        result = layer(x, mask=mask, initial_state=states or None)
        result = list(result) if config.return_state else [result]
        outputs.append([r.detach().numpy().copy() for r in result])
    sum((torch.tensor(d) * r).sum() for d, r in zip(data.d_outputs, result, strict=True)).backward()

    def gradient(tensor):
        return np.zeros(tensor.shape, config.dtype) if tensor.grad is None else tensor.grad.numpy().copy()

    return Answer(
        outputs=outputs,
        d_x=gradient(x),
        d_states=[] if config.stateful else [gradient(s) for s in states],
        d_weights=[gradient(w.value) for w in layer.trainable_weights],
    )


def numbarnn_answer(config, data):
    """Ask numbarnn."""
    from numbarnn import layers

    loop = {**config.loop_arguments(), "time_major": config.time_major, "dtype": config.dtype}
    if config.as_rnn:
        layer = layers.RNN(layers.LSTMCell(**config.cell_arguments(), dtype=config.dtype), **loop)
    else:
        layer = layers.LSTM(**config.cell_arguments(), **loop)

    def layout(array):
        return array.swapaxes(0, 1) if config.time_major and array is not None else array

    layer.build(layout(data.x[0]).shape)
    layer.set_weights(data.weights)
    outputs = []
    if config.stateful:
        outputs.append(as_list(layer(layout(data.x[0]), mask=layout(data.mask[0]), initial_state=data.states or None)))
    call = len(outputs)
    states = [] if config.stateful else data.states
    d_outputs = list(data.d_outputs)
    if config.return_sequences:
        d_outputs[0] = layout(d_outputs[0])
    last, d_inputs, d_weights = differentiate(layer, layout(data.x[call]), layout(data.mask[call]), states, d_outputs)
    outputs.append(last)
    if config.return_sequences:
        outputs = [[layout(first), *rest] for first, *rest in outputs]
    return Answer(outputs=outputs, d_x=layout(d_inputs[0]), d_states=d_inputs[1:], d_weights=d_weights)


def differentiate(layer, x, mask, states, d_outputs):
    """Call a layer of numbarnn in a traced program; return its outputs, and the gradients of its inputs and weights.

    A layer that keeps no state is also called eagerly, and both calls must give the same bits.
    """
    from numbarnn import graph

    def call(x, *states):
        return as_list(layer(x, mask=mask, initial_state=list(states) or None))

    arrays = [x, *states]
    program = graph.trace(call, [graph.Spec(a.shape, a.dtype) for a in arrays])
    variables = layer.trainable_variables
    forward, backward = program.linearize(list(range(len(d_outputs))), [*program.inputs, *variables])
    outputs, residuals = forward(*arrays)
    if not layer.stateful:
        for traced, eager in zip(outputs, call(*arrays), strict=True):
            assert type(eager) is np.ndarray
            np.testing.assert_array_equal(traced, eager)
    gradients = backward(residuals, d_outputs)
    return outputs, gradients[: len(arrays)], gradients[len(arrays) :]


def as_list(result):
    """Return a layer's result as a list of outputs."""
    return list(result) if isinstance(result, list | tuple) else [result]


def reference_answer(config, data):
    """Ask the naive loop, in float64, with autograd for the gradients."""
    import autograd
    import autograd.numpy as anp

    states = [s.astype(np.float64) for s in data.states]
    outputs = []
    for call in range(2 if config.stateful else 1):
        given = bool(states) and call == 0
        if not states:
            states = [np.zeros((config.batch, config.units))] * 2

        def results(x, weights, states, mask=data.mask[call]):
            sequence, last = reference.lstm(
                anp,
                x,
                weights,
                states,
                mask=mask,
                activation=config.activation,
                recurrent_activation=config.recurrent_activation,
                go_backwards=config.go_backwards,
                zero_output_for_mask=config.zero_output_for_mask,
            )
            return [
                sequence if config.return_sequences else sequence[:, -1],
                *(last if config.return_state else ()),
            ], last

        arguments = (data.x[call].astype(np.float64), [w.astype(np.float64) for w in data.weights], states)
        result, states = results(*arguments)
        outputs.append(result)

    def loss(*arguments):
        return sum((d * r).sum() for d, r in zip(data.d_outputs, results(*arguments)[0], strict=True))

    d_x, d_weights, d_states = autograd.grad(loss, (0, 1, 2))(*arguments)
    return Answer(outputs=outputs, d_x=d_x, d_states=list(d_states) if given else [], d_weights=list(d_weights))
