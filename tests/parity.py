"""Random configurations of the recurrent layers, and what answers for the truth: live Keras, or naive loops.

Keras 3 on PyTorch answers wherever it can; where it has a defect, or lacks the option, the loops of
`numbarnn.testing.reference` under autograd do. `Config.oracle` says which, and why.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from unittest import mock

import numpy as np

from numbarnn.testing import TOLERANCE, assert_close, reference, relative_error
from numbarnn.testing.reference import ACTIVATIONS

MASKS = ("none", "right", "left", "scattered", "empty_row")
BOUNDED = {"tanh", "sigmoid", "hard_sigmoid", "softsign"}
KINKED = {"hard_sigmoid", "relu", "selu"}
GROWING = {"exponential", "softplus"}  # of zero, they give more than hardly anything
# Kind of cell: its class, gates, states, and the loop that defines it.
KINDS = {
    "simple_rnn": ("SimpleRNN", 1, 1, reference.simple_rnn, {}),
    "gru": ("GRU", 3, 1, reference.gru, {"reset_after": True}),
    "gru_reset_before": ("GRU", 3, 1, reference.gru, {"reset_after": False}),
    "lstm": ("LSTM", 4, 2, reference.lstm, {}),
}
MERGE_MODES = ("concat", "sum", "mul", "ave", None)


@dataclass(frozen=True)
class Cell:
    """One cell, and what it is made with."""

    kind: str
    units: int
    activation: str
    recurrent_activation: str | None  # a SimpleRNN has none
    use_bias: bool
    unit_forget_bias: bool  # of the LSTM only; the weights are set, so no value depends on it

    @property
    def class_name(self):
        return KINDS[self.kind][0]

    @property
    def state_count(self):
        return KINDS[self.kind][2]

    @property
    def activations(self):
        """The activations that the cell has."""
        return {self.activation, self.recurrent_activation} - {None}

    @property
    def is_default(self):
        """Whether the activations are those that nobody has to name."""
        return self.activation == "tanh" and self.recurrent_activation in (None, "sigmoid")

    def arguments(self):
        """Return the arguments of the cell, which are also those of the layer that has its name."""
        arguments = {"units": self.units, "activation": self.activation, "use_bias": self.use_bias}
        if self.recurrent_activation is not None:
            arguments["recurrent_activation"] = self.recurrent_activation
        if self.kind == "lstm":
            arguments["unit_forget_bias"] = self.unit_forget_bias
        return arguments | KINDS[self.kind][4]

    def weight_shapes(self, inputs):
        """Return the shapes of the weights on `inputs` features."""
        gates = KINDS[self.kind][1] * self.units
        shapes = [(inputs, gates), (self.units, gates)]
        if self.use_bias:
            shapes.append((2, gates) if self.kind == "gru" else (gates,))
        return shapes

    def make(self, layers, dtype):
        """Make the cell of a library's `layers`."""
        return getattr(layers, f"{self.class_name}Cell")(**self.arguments(), dtype=dtype)


@dataclass(frozen=True)
class Config:
    """One way to make and call a recurrent layer. Sizes first, then what is in the layer, then Keras's options."""

    batch: int
    steps: int
    inputs: int
    dtype: str
    form: str  # "layer": LSTM(...); "cell": RNN(LSTMCell(...)); "list": RNN([cells]); "stack": RNN(StackedRNNCells)
    cells: tuple[Cell, ...]
    bidirectional: bool
    merge_mode: str | None
    backward_cells: tuple[Cell, ...] | None  # those of `backward_layer`, if one is given
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    between: str  # between the two calls of a stateful layer: "nothing", "reset_states" or "reset_rows"
    unroll: bool
    time_major: bool
    zero_output_for_mask: bool
    mask: str
    reset: bool  # whether the call argument `reset` restarts rows within the sequence
    initial_state: bool

    @property
    def is_stack(self):
        return self.form in ("list", "stack")

    @property
    def directions(self):
        """Return (cells, whether they go backwards) of each direction; the second one's output is flipped."""
        first = (self.cells, self.go_backwards)
        if not self.bidirectional:
            return [first]
        return [first, (self.backward_cells or self.cells, not self.go_backwards)]

    @property
    def every_cell(self):
        return list(chain.from_iterable(cells for cells, _ in self.directions))

    @property
    def oracle(self):
        """Who answers: "Keras", or the naive loops and why Keras cannot."""
        reasons = {
            "reset=": self.reset,
            "reset_states(mask=)": self.between == "reset_rows",
            "stack of one cell": self.is_stack and min(len(cells) for cells, _ in self.directions) == 1,
            "stateful stack cannot be reset": self.is_stack and self.between == "reset_states",
            "stateful Bidirectional with states out": self.bidirectional and self.stateful and self.return_state,
            # 1/6 is rounded to float32 in PyTorch's hard_sigmoid.
            "hard_sigmoid in float64": self.dtype == "float64"
            and any("hard_sigmoid" in cell.activations for cell in self.every_cell),
        }
        return next((f"loops: {reason}" for reason, holds in reasons.items() if holds), "Keras")

    def options(self):
        """Name what this configuration exercises, for the tally."""
        names = "return_sequences return_state go_backwards stateful unroll time_major zero_output_for_mask".split()
        yield from (name for name in (*names, "reset", "initial_state") if getattr(self, name))
        yield from (f"mask={self.mask}", f"form={self.form}", self.dtype, f"oracle={self.oracle}")
        if self.mask != "none":
            yield "masks"
        if self.stateful:
            yield f"stateful, then {self.between}"
        if self.bidirectional:
            yield from ("Bidirectional", f"merge_mode={self.merge_mode}")
            if self.backward_cells:
                yield "backward_layer"
        if self.is_stack:
            yield f"stack of {len(self.cells)}"
            if len({cell.kind for cell in self.cells}) > 1:
                yield "stack of mixed kinds"
        yield from {f"kind={cell.kind}" for cell in self.every_cell}
        if not all(cell.use_bias for cell in self.every_cell):
            yield "use_bias=False"
        if not all(cell.is_default for cell in self.every_cell):
            yield "other activations"
        yield from {f"activation={cell.activation}" for cell in self.every_cell}
        yield from {
            f"recurrent_activation={cell.recurrent_activation}"
            for cell in self.every_cell
            if cell.recurrent_activation is not None
        }

    def make(self, layers, **kwargs):
        """Make the layer of a library's `layers`, with `kwargs` for each recurrent layer in it."""
        names = ("return_sequences", "return_state", "stateful", "unroll", "zero_output_for_mask", "dtype")
        loop = {name: getattr(self, name) for name in names} | kwargs

        def recurrent(cells, backwards):
            if self.form == "layer":
                return getattr(layers, cells[0].class_name)(**cells[0].arguments(), go_backwards=backwards, **loop)
            cell = [cell.make(layers, self.dtype) for cell in cells]
            if self.form == "cell":
                (cell,) = cell
            if self.form == "stack":
                cell = layers.StackedRNNCells(cell, dtype=self.dtype)
            return layers.RNN(cell, go_backwards=backwards, **loop)

        if not self.bidirectional:
            return recurrent(*self.directions[0])
        forward, backward = (recurrent(*direction) for direction in self.directions)
        if self.backward_cells is None and not (self.go_backwards and layers is keras().layers):
            backward = None  # to be made from the first one; Keras 3 cannot, where that one goes backwards
        return layers.Bidirectional(forward, self.merge_mode, backward_layer=backward, dtype=self.dtype)

    def nest(self, states):
        """Give a flat list of states the form in which the layer takes them, per cell in a stack; None if empty."""
        states, nested = list(states), []
        if not states:
            return None
        states = iter(states)
        for cell in self.every_cell:
            own = [next(states) for _ in range(cell.state_count)]
            nested += [own if len(own) > 1 else own[0]] if self.is_stack else own
        return nested


def draw(index, seed=1997):
    """Draw configuration number `index`; the same number always gives the same one."""
    rng = np.random.default_rng([seed, index])

    def chance(probability):
        return bool(rng.random() < probability)

    def size(usual, largest, may_be_large=True):
        """Draw a size: mostly a small one, for what small ones bring out is found soonest in them."""
        return int(rng.integers(usual + 1, largest + 1) if chance(0.2) and may_be_large else rng.integers(1, usual + 1))

    other = [name for name in ACTIVATIONS if name not in ("tanh", "sigmoid")]
    defaults = chance(0.5)
    dtype = str(rng.choice(["float32", "float64"]))
    sizes = [2, 3, 5, 7, 8, 11, 16, 17, 24, 33, 70]
    if dtype == "float64":
        sizes.append(1)  # a gradient of one number may be a small remainder of large terms, to few of float32's digits

    def cell(kind=None, units=None):
        kind = kind or str(rng.choice(list(KINDS)))
        activation, recurrent_activation = "tanh", "sigmoid"
        if not defaults:
            activation = str(rng.choice(["tanh", "sigmoid", *other]))
            recurrent_activation = str(rng.choice(["sigmoid", "sigmoid", "tanh", *other]))
        # These would run away within a few steps.
        if activation == "exponential":
            recurrent_activation = "sigmoid"
        elif recurrent_activation in GROWING and activation not in BOUNDED:
            activation = str(rng.choice(sorted(BOUNDED)))
        units = units or int(rng.choice(sizes))
        if dtype == "float32" and activation == "relu":
            units = max(units, 8)  # of a few, one only may be alive: again a gradient of one number
        return Cell(
            kind=kind,
            units=units,
            activation=activation,
            recurrent_activation=None if kind == "simple_rnn" else recurrent_activation,
            use_bias=chance(0.75) or recurrent_activation == "exponential",  # see `make_data`
            unit_forget_bias=chance(0.6),
        )

    form = str(rng.choice(["layer", "cell", "list", "stack"], p=[0.45, 0.15, 0.25, 0.15]))
    count = int(rng.choice([1, 2, 3], p=[0.08, 0.57, 0.35])) if form in ("list", "stack") else 1
    cells = tuple(cell() for _ in range(count))
    initial_state = chance(0.5)
    bidirectional = chance(0.35)
    merge_mode = MERGE_MODES[rng.integers(len(MERGE_MODES))] if bidirectional else None
    backward_cells = None
    if bidirectional and chance(0.25):
        # Given states are split in the middle: both directions must have as many.
        kinds = [one.kind if initial_state else None for one in cells]
        units = [None] * (count - 1) + [None if merge_mode in ("concat", None) else cells[-1].units]
        backward_cells = tuple(map(cell, kinds, units))
        if merge_mode not in ("concat", None) and backward_cells[-1].units != cells[-1].units:
            backward_cells = cells
    stateful = chance(0.25)
    names = set().union(*(one.activations for one in (*cells, *(backward_cells or ()))))
    # In float32, of very many values one will lie so near a kink that rounding decides what its slope is.
    smooth = dtype == "float64" or not names & KINKED
    return Config(
        batch=size(7, 40, may_be_large=smooth),
        steps=size(9, 25, may_be_large=smooth and names <= BOUNDED),
        inputs=size(9, 40),
        dtype=dtype,
        form=form,
        cells=cells,
        bidirectional=bidirectional,
        merge_mode=merge_mode,
        backward_cells=backward_cells,
        return_sequences=chance(0.6),
        return_state=chance(0.5),
        go_backwards=chance(0.3),
        stateful=stateful,
        between=str(rng.choice(["nothing", "reset_states", "reset_rows"], p=[0.6, 0.25, 0.15])) if stateful else "",
        unroll=chance(0.25),
        time_major=chance(0.25),
        zero_output_for_mask=chance(0.35),
        mask=str(rng.choice(MASKS, p=[0.4, 0.15, 0.15, 0.15, 0.15])),
        reset=chance(0.1),
        initial_state=initial_state,
    )


@dataclass(frozen=True)
class Data:
    """Arrays for one configuration. The second of `x`, `mask` and `reset` is for a stateful layer's second call."""

    x: tuple[np.ndarray, np.ndarray]
    mask: tuple[np.ndarray | None, np.ndarray | None]
    reset: tuple[np.ndarray | None, np.ndarray | None]
    reset_rows: np.ndarray
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


def make_data(config, index, seed=1998):
    """Draw the arrays for configuration number `index`."""
    rng = np.random.default_rng([seed, index])
    b, t = config.batch, config.steps

    def normal(*shape, factor=1.0):
        return (factor * rng.standard_normal(shape)).astype(config.dtype)

    weights, states = [], []
    for cells, _ in config.directions:
        inputs = config.inputs
        for cell in cells:
            # Activations without a bound feed on themselves: small weights keep both sides where float32 has digits to
            # compare.
            scale = 1.0 if cell.activations <= BOUNDED else 0.1 if "exponential" in cell.activations else 0.3
            kernel, recurrent_kernel, *bias = cell.weight_shapes(inputs)
            weights.append(normal(*kernel, factor=scale / np.sqrt(inputs)))
            weights.append(normal(*recurrent_kernel, factor=scale / np.sqrt(cell.units)))
            # Gates above one let states grow, and larger states open them further: e^-1 is a gate that lets go.
            mean = -1 if cell.recurrent_activation == "exponential" else 0
            weights += [mean + normal(*shape, factor=0.5 * scale) for shape in bias]
            states += [normal(b, cell.units, factor=factor) for factor in (0.5, 1.0)[: cell.state_count]]
            inputs = cell.units
    last = [cells[-1].units for cells, _ in config.directions]
    if config.bidirectional and config.merge_mode is not None:
        last = [sum(last)] if config.merge_mode == "concat" else last[:1]
    shapes = [(b, t, units) if config.return_sequences else (b, units) for units in last]
    if config.return_state:
        shapes += [state.shape for state in states]
    return Data(
        x=(normal(b, t, config.inputs), normal(b, t, config.inputs)),
        mask=(make_mask(config.mask, b, t, rng), make_mask(config.mask, b, t, rng)),
        reset=tuple(rng.random((b, t)) < 0.3 for _ in range(2)) if config.reset else (None, None),
        reset_rows=rng.random(b) < 0.5,
        weights=weights,
        states=states if config.initial_state else [],
        # Of mean one: a gradient that is a small remainder of large terms would measure how its sum was ordered.
        d_outputs=[1 + normal(*shape) for shape in shapes],
    )


@dataclass(frozen=True)
class Answer:
    """Flat lists: outputs of each call ([*outputs, *states] if asked for), gradients of the last one; batch first."""

    outputs: list[list[np.ndarray]]
    d_x: np.ndarray
    d_states: list[np.ndarray]  # empty where the last call did not start from given states
    d_weights: list[np.ndarray]


def compare(actual, expected, dtype):
    """Compare two answers, part by part; return the largest errors of values and of gradients."""
    parts = {"values": [], "gradients": []}
    for call, (ours, theirs) in enumerate(zip(actual.outputs, expected.outputs, strict=True)):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            parts["values"].append((f"call {call}, output or state {number}", *pair))
    parts["gradients"].append(("gradient of the input", actual.d_x, expected.d_x))
    for name in ("d_states", "d_weights"):
        for number, pair in enumerate(zip(getattr(actual, name), getattr(expected, name), strict=True)):
            parts["gradients"].append((f"{name}[{number}]", *pair))
    for what, ours, theirs in chain.from_iterable(parts.values()):
        assert_close(ours, theirs, TOLERANCE[dtype], what)
    return {name: max(relative_error(a, b) for _, a, b in pairs) for name, pairs in parts.items()}


def check(config, data):
    """Compare numbarnn with the oracle of this configuration; return the largest errors."""
    answer = keras_answer if config.oracle == "Keras" else reference_answer
    return compare(numbarnn_answer(config, data), answer(config, data), config.dtype)


def calls(config, data):
    """Yield for each call its number, whether the states are given, and whether it is the last."""
    yield 0, bool(data.states), not config.stateful
    if config.stateful:
        yield 1, bool(data.states) and config.between == "reset_states", True


@cache
def keras():
    """Import Keras on PyTorch, the backend that is on the deciding side wherever Keras's own backends disagree."""
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    assert keras.backend.backend() == "torch"
    return keras


@contextmanager
def precision(dtype):
    """Let Keras on PyTorch work in `dtype` throughout.

    By itself it makes a stack of a list of cells in float32, and multiplies float64 matrices as JAX does, in float32.
    """
    config = keras().config
    from keras.src.backend.common import dtypes

    before = config.floatx(), config.dtype_policy()
    config.set_floatx(dtype)
    config.set_dtype_policy(dtype)  # which Keras makes from floatx once, when it is first asked for
    try:
        with mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, float64="float64"):
            yield
    finally:
        config.set_floatx(before[0])
        config.set_dtype_policy(before[1])


def keras_answer(config, data):
    """Ask live Keras."""
    import torch

    # Copies of what autograd keeps: a stateful layer of Keras overwrites its states while autograd still needs them.
    with precision(config.dtype), torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept):
        return _keras_answer(config, data)


def _keras_answer(config, data):
    import torch

    kwargs = {}
    if config.mask != "none" and (config.go_backwards or config.bidirectional):
        kwargs["unroll"] = False  # its unrolled loop on PyTorch fails on masks run backwards; no value depends on it
    layer = config.make(keras().layers, **kwargs)
    layer.build(data.x[0].shape)
    layer.set_weights(data.weights)
    outputs = []
    for call, given, _ in calls(config, data):
        if call and config.between == "reset_states":
            layer.reset_state()
        x = torch.tensor(data.x[call], requires_grad=True)
        states = [torch.tensor(s, requires_grad=True) for s in data.states] if given else []
        # The mask is always given by hand: Keras drops one that came with the input when initial states are given.
        mask = None if data.mask[call] is None else torch.tensor(data.mask[call])
        for weight in layer.trainable_weights:
            weight.value.grad = None
        result = flat(layer(x, mask=mask, initial_state=config.nest(states)))
        outputs.append([r.detach().numpy().copy() for r in result])
    sum((torch.tensor(d) * r).sum() for d, r in zip(data.d_outputs, result, strict=True)).backward()

    def gradient(tensor):
        return np.zeros(tensor.shape, config.dtype) if tensor.grad is None else tensor.grad.numpy().copy()

    return Answer(
        outputs=outputs,
        d_x=gradient(x),
        d_states=[gradient(s) for s in states],
        d_weights=[gradient(w.value) for w in layer.trainable_weights],
    )


def numbarnn_answer(config, data):
    """Ask numbarnn."""
    from numbarnn import layers

    layer = config.make(layers, time_major=config.time_major)

    def layout(array):
        return array.swapaxes(0, 1) if config.time_major and array is not None else array

    layer.build(layout(data.x[0]).shape)
    layer.set_weights(data.weights)
    sequences = (2 if config.bidirectional and config.merge_mode is None else 1) if config.return_sequences else 0
    outputs = []
    for call, given, last in calls(config, data):
        if call and config.between == "reset_states":
            layer.reset_states()
        if call and config.between == "reset_rows":
            layer.reset_states(mask=data.reset_rows)
        options = {"mask": layout(data.mask[call])}
        if config.reset:
            options["reset"] = layout(data.reset[call])

        def run(x, *states, options=options):
            return flat(layer(x, initial_state=config.nest(states), **options))

        arrays = [layout(data.x[call]), *(data.states if given else ())]
        if last:
            d_outputs = [layout(d) if i < sequences else d for i, d in enumerate(data.d_outputs)]
            result, gradients, d_weights = differentiate(
                run, arrays, layer.trainable_variables, d_outputs, pure=not config.stateful
            )
        else:
            result = run(*arrays)
        outputs.append([layout(r) if i < sequences else r for i, r in enumerate(result)])
    for part in (layer.forward_layer, layer.backward_layer) if config.bidirectional else (layer,):
        assert part.kernel_path == "kernel"
    return Answer(outputs=outputs, d_x=layout(gradients[0]), d_states=gradients[1:], d_weights=d_weights)


def differentiate(call, arrays, variables, d_outputs, *, pure):
    """Run `call` of numbarnn in a traced program; return its outputs, and the gradients of `arrays` and `variables`.

    A `pure` one, that keeps no state, is also called eagerly, and both must give the same bits.
    """
    from numbarnn import graph

    program = graph.trace(call, [graph.Spec(a.shape, a.dtype) for a in arrays])
    forward, backward = program.linearize(list(range(len(d_outputs))), [*program.inputs, *variables])
    outputs, residuals = forward(*arrays)
    if pure:
        for traced, eager in zip(outputs, call(*arrays), strict=True):
            assert type(eager) is np.ndarray
            np.testing.assert_array_equal(traced, eager)
    gradients = backward(residuals, d_outputs)
    return outputs, gradients[: len(arrays)], gradients[len(arrays) :]


def as_list(result):
    """Return a layer's result as a list of outputs."""
    return list(result) if isinstance(result, list | tuple) else [result]


def flat(result):
    """Return what is in lists and tuples, nested or not, as one list."""
    return [leaf for part in result for leaf in flat(part)] if isinstance(result, list | tuple) else [result]


def reference_answer(config, data):
    """Ask the naive loops, in float64, with autograd for the gradients."""
    import autograd
    import autograd.numpy as anp

    outputs = []
    zeros = [np.zeros((config.batch, cell.units)) for cell in config.every_cell for _ in range(cell.state_count)]
    states = zeros
    for call, given, _ in calls(config, data):
        if call and config.between == "reset_states":
            states = zeros
        if call and config.between == "reset_rows":
            states = [np.where(data.reset_rows[:, None], 0.0, state) for state in states]
        if given:
            states = [s.astype(np.float64) for s in data.states]

        def results(x, weights, states, call=call):
            return _reference_layer(anp, config, x, weights, states, data.mask[call], data.reset[call])

        arguments = (data.x[call].astype(np.float64), [w.astype(np.float64) for w in data.weights], states)
        result, states = results(*arguments)
        outputs.append(result)

    def loss(*arguments):
        return sum((d * r).sum() for d, r in zip(data.d_outputs, results(*arguments)[0], strict=True))

    d_x, d_weights, d_states = autograd.grad(loss, (0, 1, 2))(*arguments)
    return Answer(outputs=outputs, d_x=d_x, d_states=list(d_states) if given else [], d_weights=list(d_weights))


def _reference_layer(anp, config, x, weights, states, mask, reset):
    """Return what the layer returns, and all states, both flat."""
    weights, states = iter(weights), iter(states)
    sequences, all_states = [], []
    for cells, backwards in config.directions:
        sequence, restarts = x, reset
        if config.bidirectional and backwards and reset is not None:
            # In both directions the same sequences are kept apart: backwards, one ends before the step in front.
            restarts = np.concatenate([reset[:, 1:], np.zeros_like(reset[:, :1])], axis=1)
        for number, cell in enumerate(cells):
            # The lowest cell of a stack reads the inputs, each other one what the one below gave, in that order.
            reverse = backwards and number > 0
            *_, loop, arguments = KINDS[cell.kind]
            if cell.recurrent_activation is not None:
                arguments = {**arguments, "recurrent_activation": cell.recurrent_activation}
            sequence, last = loop(
                anp,
                sequence,
                [next(weights) for _ in cell.weight_shapes(1)],
                [next(states) for _ in range(cell.state_count)],
                mask=mask[:, ::-1] if reverse and mask is not None else mask,
                reset=restarts[:, ::-1] if reverse and restarts is not None else restarts,
                activation=cell.activation,
                go_backwards=backwards and not reverse,
                # Bidirectional decides it for the layers in it.
                zero_output_for_mask=config.return_sequences if config.bidirectional else config.zero_output_for_mask,
                **arguments,
            )
            all_states += last
        sequences.append(sequence)
    if not config.return_sequences:
        outputs = [sequence[:, -1] for sequence in sequences]
    else:
        outputs = [sequence[:, ::-1] if number else sequence for number, sequence in enumerate(sequences)]
    merge = {
        "concat": lambda: anp.concatenate(outputs, axis=-1),
        "sum": lambda: outputs[0] + outputs[1],
        "mul": lambda: outputs[0] * outputs[1],
        "ave": lambda: (outputs[0] + outputs[1]) / 2,
    }
    if config.merge_mode is not None:
        outputs = [merge[config.merge_mode]()]
    return [*outputs, *(all_states if config.return_state else ())], all_states
