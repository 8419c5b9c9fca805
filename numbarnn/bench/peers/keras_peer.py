"""Keras on TensorFlow (compiled by tf.function) or on JAX (by jax.jit), whichever ``KERAS_BACKEND`` says."""

import importlib

__all__ = ["custom", "epoch", "forward", "set_threads", "step", "stream", "train", "versions"]


def _backend():
    import keras

    return keras.backend.backend()


def set_threads(count):
    """Use so many threads; JAX goes by the CPUs that the process may run on."""
    import os

    if _backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
    elif hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def versions():
    """The versions of what is measured."""
    import keras

    backend = importlib.import_module(_backend())
    return {"keras": keras.__version__, backend.__name__: backend.__version__}


def _set_precision(case):
    """JAX has float64 only where it is switched on for everything."""
    if _backend() == "jax":
        import jax

        jax.config.update("jax_enable_x64", case["dtype"] == "float64")


def _layer(cell, case):
    """All layers of a case as one, its inputs and its mask."""
    import keras

    recipes = importlib.import_module("recipes")

    class Layers(keras.layers.Layer):
        def __init__(self):
            super().__init__(dtype=case["dtype"])
            self.parts = recipes.recurrent_layers(keras.layers, cell, case)

        def call(self, x, mask=None, training=False):
            for part in self.parts:
                x = part(x, mask=mask, training=training)
            return x

    _set_precision(case)
    layer, x, mask = Layers(), recipes.inputs(case), recipes.mask(case)
    layer(x, mask=mask)  # which builds it
    return layer, x, mask


def forward(cell, case):
    """Inference of layers."""
    layer, x, mask = _layer(cell, case)
    if _backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x, mask: layer(x, mask=mask))
        given = tf.constant(x), None if mask is None else tf.constant(mask)
        return lambda: call(*given).numpy()
    import jax

    weights, others, given = _jax_values(layer, x, mask)
    call = jax.jit(lambda weights, x, mask: layer.stateless_call(weights, others, x, mask=mask)[0])
    return lambda: call(weights, *given).block_until_ready()


def train(cell, case):
    """Forward and backward through layers."""
    layer, x, mask = _layer(cell, case)
    if _backend() == "tensorflow":
        import tensorflow as tf

        @tf.function
        def gradients(x, mask):
            with tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(layer(x, mask=mask, training=True))
            return tape.gradient(total, [x, *layer.trainable_weights])

        given = tf.constant(x), None if mask is None else tf.constant(mask)
        return lambda: [g.numpy() for g in gradients(*given)]
    import jax

    weights, others, given = _jax_values(layer, x, mask)

    def total(weights, x, mask):
        return layer.stateless_call(weights, others, x, mask=mask, training=True)[0].sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))
    return lambda: jax.block_until_ready(gradients(weights, *given))


def _jax_values(layer, *arrays):
    import jax

    values = [[v.value for v in group] for group in (layer.trainable_variables, layer.non_trainable_variables)]
    return *values, [None if array is None else jax.numpy.asarray(array) for array in arrays]


def step(cell, case):
    """`train_on_batch` of Embedding, recurrent layers, Dense with Adam."""
    import keras

    recipes = importlib.import_module("recipes")
    _set_precision(case)
    model, (x, y) = recipes.classifier(keras, cell, case), recipes.tokens(case)
    return lambda: model.train_on_batch(x, y)


def epoch(cell, case, batches):
    """`fit` of the guide's model for an epoch."""
    import keras

    recipes = importlib.import_module("recipes")
    _set_precision(case)
    model, (x, y) = recipes.digits_model(keras, cell, case), recipes.labelled(case, batches)
    return lambda: model.fit(x, y, batch_size=case["batch"], epochs=1, verbose=0)


def stream(case):
    """`predict_on_batch` of a stateful layer."""
    import keras
    import numpy as np

    shape = case["batch"], 1, case["inputs"]
    model = keras.Sequential([keras.layers.Input(batch_shape=shape), keras.layers.LSTM(case["units"], stateful=True)])
    x = np.ones(shape, "float32")
    return lambda: model.predict_on_batch(x)


def custom(cell, batch, timesteps, size):
    """Cells of one's own through keras.layers.RNN."""
    if cell == "NestedCell":
        return "Keras 3 has no nested inputs of RNN"
    import keras
    import numpy as np
    from keras import ops

    inputs, units = size["inputs"], size["units"]

    class Cell(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.state_size = units if cell == "MinimalRNNCell" else [units, units]

        def build(self, shape):
            gates = 1 if cell == "MinimalRNNCell" else 4
            self.kernel = self.add_weight(shape=(inputs, gates * units), name="kernel")
            self.recurrent_kernel = self.add_weight(shape=(units, gates * units), name="recurrent_kernel")
            if gates == 4:
                self.peephole = self.add_weight(shape=(3, units), name="peephole")
            self.built = True

        def call(self, x, states):
            z = ops.matmul(x, self.kernel) + ops.matmul(states[0], self.recurrent_kernel)
            if cell == "MinimalRNNCell":
                return z, [z]
            c = states[1]
            i, f, g, o = ops.split(z, 4, axis=-1)
            new = ops.sigmoid(f + self.peephole[1] * c) * c + ops.sigmoid(i + self.peephole[0] * c) * ops.tanh(g)
            h = ops.sigmoid(o + self.peephole[2] * new) * ops.tanh(new)
            return h, [h, new]

    layer = keras.layers.RNN(Cell(), return_sequences=True)
    layer.build((batch, timesteps, inputs))
    x = np.random.default_rng(0).standard_normal((batch, timesteps, inputs)).astype("float32")
    if _backend() == "tensorflow":
        import tensorflow as tf

        given = tf.constant(x)

        @tf.function
        def gradients():
            with tf.GradientTape() as tape:
                total = tf.reduce_sum(layer(given, training=True))
            return tape.gradient(total, layer.trainable_weights)

        return lambda: [g.numpy() for g in gradients()]
    import jax

    weights, others, (given,) = _jax_values(layer, x)
    gradients = jax.jit(jax.grad(lambda weights: layer.stateless_call(weights, others, given)[0].sum()))
    return lambda: jax.block_until_ready(gradients(weights))
