"""One peer in a process of its own, timed on request: python asv_benchmarks/peers.py PEER THREADS

PEER is torch, keras-tensorflow, keras-jax or onnxruntime. A line ``CELL BATCH TIMESTEPS INPUTS UNITS WHAT REPEAT`` on
standard input (WHAT: forward, or train for forward and backward with the gradients of inputs and weights, outputs at
every step) is answered by a JSON list of REPEAT times in ms, after one call that is not timed. WHAT may also be step:
one timestep whose states go on, for which alone onnxruntime is there. ``NAME custom REPEAT`` asks for a cell of
`custom_cells.py`; null stands for what the peer cannot express.
"""

import functools
import json
import os
import sys
import time


def torch_peer(cell, batch, timesteps, inputs, units):
    """PyTorch's own layers."""
    import torch

    torch.set_num_threads(THREADS)
    layer = {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "SimpleRNN": torch.nn.RNN}[cell](
        inputs, units, batch_first=True
    )
    x = torch.randn(batch, timesteps, inputs)
    wanted = x.clone().requires_grad_(True)

    def forward():
        with torch.inference_mode():
            layer(x)

    def train():
        layer.zero_grad()
        wanted.grad = None
        layer(wanted)[0].sum().backward()

    return {"forward": forward, "train": train}


def tensorflow_peer(cell, batch, timesteps, inputs, units):
    """Keras on TensorFlow, compiled by tf.function."""
    import keras
    import tensorflow as tf

    layer = getattr(keras.layers, cell)(units, return_sequences=True)
    layer.build((batch, timesteps, inputs))
    x = tf.random.normal((batch, timesteps, inputs))
    call = tf.function(lambda a: layer(a))

    @tf.function
    def gradients(a):
        with tf.GradientTape() as tape:
            tape.watch(a)
            total = tf.reduce_sum(layer(a, training=True))
        return tape.gradient(total, [a, *layer.trainable_weights])

    return {"forward": lambda: call(x).numpy(), "train": lambda: [g.numpy() for g in gradients(x)]}


def jax_peer(cell, batch, timesteps, inputs, units):
    """Keras on JAX, compiled by jax.jit."""
    import jax
    import keras

    layer = getattr(keras.layers, cell)(units, return_sequences=True)
    layer.build((batch, timesteps, inputs))
    weights = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    x = jax.random.normal(jax.random.key(0), (batch, timesteps, inputs))

    def call(weights, a):
        return layer.stateless_call(weights, others, a)[0]

    forward = jax.jit(call)
    gradients = jax.jit(jax.grad(lambda weights, a: call(weights, a).sum(), argnums=(0, 1)))
    return {
        "forward": lambda: forward(weights, x).block_until_ready(),
        "train": lambda: jax.block_until_ready(gradients(weights, x)),
    }


def torch_custom(name, batch, timesteps, size):
    """Cells of one's own in PyTorch, eagerly."""
    import torch

    torch.set_num_threads(THREADS)

    def weight(*shape):
        return (0.1 * torch.randn(shape)).requires_grad_(True)

    if name == "NestedCell":
        (i1, i2, i3), (u1, u2, u3) = size["i"], size["units"]
        x1, x2 = torch.randn(batch, timesteps, i1), torch.randn(batch, timesteps, i2, i3)
        weights = [weight(i1, u1), weight(i2, i3, u2, u3)]

        def total():
            s1, s2, outs = torch.zeros(batch, u1), torch.zeros(batch, u2, u3), []
            for t in range(timesteps):
                o1, o2 = x1[:, t] @ weights[0], torch.einsum("bij,ijkl->bkl", x2[:, t], weights[1])
                s1, s2 = s1 + o1, s2 + o2
                outs.append((o1, o2))
            return sum(torch.stack(parts, 1).sum() for parts in zip(*outs, strict=True))

    else:
        inputs, units = size["inputs"], size["units"]
        x = torch.randn(batch, timesteps, inputs)
        gates = 1 if name == "MinimalRNNCell" else 4
        weights = [weight(inputs, gates * units), weight(units, gates * units), weight(3, units)]
        if gates == 1:
            weights.pop()

        def total():
            h, c, outs = torch.zeros(batch, units), torch.zeros(batch, units), []
            for t in range(timesteps):
                z = x[:, t] @ weights[0] + h @ weights[1]
                if gates == 1:
                    h = z
                else:
                    i, f, g, o = z.chunk(4, -1)
                    p = weights[2]
                    new = torch.sigmoid(f + p[1] * c) * c + torch.sigmoid(i + p[0] * c) * torch.tanh(g)
                    c, h = new, torch.sigmoid(o + p[2] * new) * torch.tanh(new)
                outs.append(h)
            return torch.stack(outs, 1).sum()

    def train():
        for w in weights:
            w.grad = None
        total().backward()

    return train


def keras_custom(name, batch, timesteps, size):
    """The same through keras.layers.RNN; None for nested inputs, which Keras 3 does not have."""
    if name == "NestedCell":
        return None
    import keras
    import numpy as np
    from keras import ops

    inputs, units = size["inputs"], size["units"]

    class Cell(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = units if name == "MinimalRNNCell" else [units, units]

        def build(self, shape):
            gates = 1 if name == "MinimalRNNCell" else 4
            self.kernel = self.add_weight(shape=(inputs, gates * units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(units, gates * units), name="recurrent_kernel")
            if gates == 4:
                self.peephole = self.add_weight(shape=(3, units), name="peephole")
            self.built = True

        def call(self, x, states):
            z = ops.matmul(x, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
            if name == "MinimalRNNCell":
                return z, [z]
            c = states[1]
            i, f, g, o = ops.split(z, 4, axis=-1)
            new = ops.sigmoid(f + self.peephole[1] * c) * c + ops.sigmoid(i + self.peephole[0] * c) * ops.tanh(g)
            h = ops.sigmoid(o + self.peephole[2] * new) * ops.tanh(new)
            return h, [h, new]

    layer = keras.layers.RNN(Cell(), return_sequences=True)
    layer.build((batch, timesteps, inputs))
    x = np.random.default_rng(0).standard_normal((batch, timesteps, inputs)).astype("float32")
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        given = tf.constant(x)

        @tf.function
        def gradients():
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(layer(given, training=True))
            return tape.gradient(total, layer.trainable_weights)

        return lambda: [g.numpy() for g in gradients()]
    import jax

    weights = [v.value for v in layer.trainable_variables]
    others = [v.value for v in layer.non_trainable_variables]
    gradients = jax.jit(jax.grad(lambda weights: layer.stateless_call(weights, others, x)[0].sum()))
    return lambda: jax.block_until_ready(gradients(weights))


def torch_step(inputs, units):
    """PyTorch's LSTMCell."""
    import torch

    torch.set_num_threads(THREADS)
    cell, x = torch.nn.LSTMCell(inputs, units).requires_grad_(False), torch.randn(1, inputs)
    states = torch.zeros(1, units), torch.zeros(1, units)

    def step():
        nonlocal states
        states = cell(x, states)

    return step


def onnxruntime_step(inputs, units):
    """A graph of one LSTM node."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * units, inputs), "R": (1, 4 * units, units), "B": (1, 8 * units)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype("f4"), name) for name, s in shapes.items()]

    def values(**shapes):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    state = (1, 1, units)
    node = helper.make_node(
        "LSTM", ["x", "W", "R", "B", "", "h0", "c0"], ["", "h", "c"], hidden_size=units, direction="forward"
    )
    graph = helper.make_graph(
        [node], "step", values(x=(1, 1, inputs), h0=state, c0=state), values(h=state, c=state), weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one row is not worth a second one
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": np.ones((1, 1, inputs), "f4"), "h0": np.zeros(state, "f4"), "c0": np.zeros(state, "f4")}

    def step():
        feed["h0"], feed["c0"] = session.run(None, feed)

    return step


def keras_step(inputs, units):
    """`predict_on_batch` of a stateful layer."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.layers.Input(batch_shape=(1, 1, inputs)), keras.layers.LSTM(units, stateful=True)])
    x = np.ones((1, 1, inputs), "f4")
    return lambda: model.predict_on_batch(x)


STEPS = {
    "torch": torch_step,
    "keras-tensorflow": keras_step,
    "keras-jax": keras_step,
    "onnxruntime": onnxruntime_step,
}
PEERS = {"torch": torch_peer, "keras-tensorflow": tensorflow_peer, "keras-jax": jax_peer}


def custom_problem(name):
    """One training pass of a cell of `custom_cells.SIZES`, or None."""
    from custom_cells import SIZES

    batch, timesteps, size = SIZES[name]
    return (torch_custom if sys.argv[1] == "torch" else keras_custom)(name, batch, timesteps, size)


def main():
    """Answer requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    problem = functools.cache(PEERS.get(sys.argv[1], lambda *size: {}))
    one_step = functools.cache(STEPS[sys.argv[1]])
    custom = functools.cache(custom_problem)
    for line in sys.stdin:
        cell, *size, what, repeat = line.split()
        if what == "custom":
            function = custom(cell)
        elif what == "step":
            function = one_step(int(size[2]), int(size[3]))
        else:
            function = problem(cell, *map(int, size)).get(what)
        if function is None:
            print("null", file=answers, flush=True)
            continue
        function()
        times = []
        for _ in range(int(repeat)):
            start = time.perf_counter()
            function()
            times.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    THREADS = int(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = sys.argv[2]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.argv[1].startswith("keras-"):
        os.environ["KERAS_BACKEND"] = sys.argv[1].removeprefix("keras-")
    main()
