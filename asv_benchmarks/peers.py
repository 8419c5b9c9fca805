"""One peer in a process of its own, timed on request: python asv_benchmarks/peers.py PEER THREADS

PEER is torch, keras-tensorflow or keras-jax. A line ``CELL BATCH TIMESTEPS INPUTS UNITS WHAT REPEAT`` on standard input
(WHAT: forward, or train for forward and backward with the gradients of inputs and weights, outputs at every step) is
answered by a JSON list of REPEAT times in ms, after one call that is not timed.
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


PEERS = {"torch": torch_peer, "keras-tensorflow": tensorflow_peer, "keras-jax": jax_peer}


def main():
    """Answer requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    problem = functools.cache(PEERS[sys.argv[1]])
    for line in sys.stdin:
        cell, *size, what, repeat = line.split()
        function = problem(cell, *map(int, size))[what]
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
