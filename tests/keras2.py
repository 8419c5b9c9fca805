"""What only Keras 2 does, as cases that run on any library of its interface; run it to record what tf_keras answers.

    python tests/keras2.py tests/data/keras2.npz     # where tf_keras is installed; numbarnn need not be

made that file with tf_keras 2.21.0 on tensorflow-cpu 2.21.0. It holds two arrays: `structure`, a JSON text that has for
each case the nested lists of shapes of its results, and `values`, all their numbers in that order, float64.
`tests/test_keras2.py` asks numbarnn the same.
"""

import json
import sys

import numpy as np

B, T, F, H = 2, 4, 3, 2
RIGHT = np.array([[True, True, False, False], [True, True, True, True]])
LEFT = np.array([[False, True, True, True], [False, False, False, False]])
SCATTERED = np.array([[False, True, False, True], [True, False, True, False]])
CASES = {}


def case(function):
    """Register a function of a library, taking and returning what its name says."""
    CASES[function.__name__] = function
    return function


class Library:
    """A library of Keras's interface: its modules, and how it wants arrays (Keras 2 takes states as tensors only)."""

    def __init__(self, layers, models, tensor):
        self.layers, self.models, self.tensor = layers, models, tensor

    def numbers(self, *shape, start=0):
        """Return an array that is the same everywhere, with no structure that a mistake could hide in."""
        return self.tensor(numbers(*shape, start=start))

    def with_weights(self, layer, shape=(B, T, F)):
        """Build a layer, and set its weights."""
        layer.build(shape)
        layer.set_weights([0.7 * numbers(*w.shape, start=100 * i) for i, w in enumerate(layer.get_weights())])
        return layer

    def every(self, **arguments):
        """Yield one of each kind of recurrent layer."""
        layers = self.layers
        for name in ("SimpleRNN", "GRU", "LSTM"):
            yield getattr(layers, name)(H, **arguments)
        yield layers.RNN([layers.GRUCell(H), layers.LSTMCell(H + 1)], **arguments)


def numbers(*shape, start=0):
    """Return numbers between -1 and 1."""
    return np.sin(1.0 + 1.7 * (start + np.arange(np.prod(shape))) ** 1.1).reshape(shape)


def swap(array):
    return None if array is None else array.swapaxes(0, 1)


@case
def time_major(lib):
    """Timesteps first: inputs, masks (timesteps, batch), outputs."""
    results = []
    for options in ({}, {"return_sequences": True, "return_state": True}, {"go_backwards": True}):
        for layer in lib.every(time_major=True, **options):
            lib.with_weights(layer, (T, B, F))
            results += [layer(lib.numbers(T, B, F), mask=swap(mask)) for mask in (None, SCATTERED)]
    return results


@case
def time_major_bidirectional(lib):
    results = []
    for options in ({}, {"return_sequences": True, "return_state": True}):
        for merge_mode in ("concat", "mul", None):
            layer = lib.layers.LSTM(H, time_major=True, **options)
            layer = lib.with_weights(lib.layers.Bidirectional(layer, merge_mode), (T, B, F))
            results.append(layer(lib.numbers(T, B, F), mask=swap(RIGHT)))
    return results


@case
def time_major_stateful(lib):
    layer = lib.with_weights(lib.layers.GRU(H, time_major=True, stateful=True), (T, B, F))
    return [layer(lib.numbers(T, B, F, start=call)) for call in range(3)]


@case
def masked_first_step_with_initial_state(lib):
    """Zeros until the first step that counts, not the initial state; the states themselves are kept."""
    results = []
    for unroll in (False, True):
        layer = lib.layers.LSTM(H, return_sequences=True, return_state=True, unroll=unroll)
        states = [lib.numbers(B, H, start=7), lib.numbers(B, H, start=13)]
        results.append(lib.with_weights(layer)(lib.numbers(B, T, F), mask=LEFT, initial_state=states))
    return results


@case
def unrolled_with_zero_output_for_mask(lib):
    results = []
    for name in ("SimpleRNNCell", "GRUCell", "LSTMCell"):
        for return_sequences in (False, True):
            cell = getattr(lib.layers, name)(H)
            arguments = {"return_sequences": return_sequences, "zero_output_for_mask": True}
            # Keras 2 refuses to unroll this one without sequences; unrolling changes no value.
            layer = lib.layers.RNN(cell, unroll=return_sequences, **arguments)
            results.append(lib.with_weights(layer)(lib.numbers(B, T, F), mask=RIGHT))
    return results


@case
def mask_of_the_input_with_initial_state(lib):
    """A mask that comes along with the input is not lost when initial states are given."""
    x = np.where(SCATTERED[:, :, None], numbers(B, T, F), 0.0)
    results = []
    for layer in lib.every(return_sequences=True):
        states = [lib.numbers(B, H, start=3)]
        if "LSTM" in type(layer).__name__:
            states.append(lib.numbers(B, H, start=9))
        if type(layer).__name__ == "RNN":
            states.append([lib.numbers(B, H + 1, start=5), lib.numbers(B, H + 1, start=6)])
        masked = lib.layers.Masking()(lib.tensor(x))
        results.append(lib.with_weights(layer)(masked, initial_state=states))
    return results


@case
def stateful_with_initial_state(lib):
    """It counts at the first call, and at the first one after a reset; recorded states count at all others."""
    layer = lib.with_weights(lib.layers.LSTM(H, stateful=True))
    states = [lib.numbers(B, H, start=20), lib.numbers(B, H, start=30)]
    results = []
    for call in range(4):
        if call == 2:
            layer.reset_states()
        results.append(layer(lib.numbers(B, T, F, start=call), initial_state=states))
    return results


@case
def reset_states_to_values(lib):
    """The next call goes on from these, whatever the number of states and however they are nested."""
    results = []
    for layer in lib.every(stateful=True, return_state=True):
        lib.with_weights(layer)
        results.append(layer(lib.numbers(B, T, F)))
        sizes = {"LSTM": [H, H], "RNN": [H, H + 1, H + 1]}.get(type(layer).__name__, [H])
        states = [numbers(B, size, start=40 + i) for i, size in enumerate(sizes)]
        layer.reset_states([states[0], states[1:]] if len(states) > 2 else states)
        results.append(layer(lib.numbers(B, T, F, start=1)))
        layer.reset_states()
        results.append(layer(lib.numbers(B, T, F)))
    return results


@case
def stateful_stack(lib):
    """Continues, and starts again after a reset."""
    cells = [lib.layers.LSTMCell(H), lib.layers.SimpleRNNCell(H), lib.layers.GRUCell(H)]
    layer = lib.with_weights(lib.layers.RNN(cells, stateful=True, return_state=True))
    results = []
    for call in range(3):
        if call == 2:
            layer.reset_states()
        results.append(layer(lib.numbers(B, T, F), mask=SCATTERED))
    return results


@case
def stateful_bidirectional(lib):
    """Both directions go on from their own states, masked or not; they are reset to zeros, and to values."""
    results = []
    for options in ({"return_state": True}, {"return_sequences": True}):
        layer = lib.layers.Bidirectional(lib.layers.LSTM(H, stateful=True, **options))
        lib.with_weights(layer)
        for call in range(4):
            if call == 2:
                layer.reset_states()
            if call == 3:
                layer.reset_states([numbers(B, H, start=50 + i) for i in range(4)])
            results.append(layer(lib.numbers(B, T, F), mask=SCATTERED if call % 2 else None))
    return results


@case
def list_as_first_argument(lib):
    """[inputs, *initial states]."""
    x, h, c = (lib.numbers(B, T, F), *(lib.numbers(B, H, start=start) for start in (60, 70)))
    more = [lib.numbers(B, H, start=start) for start in (80, 90)]
    layers = lib.layers
    return [
        lib.with_weights(layers.LSTM(H))([x, h, c]),
        lib.with_weights(layers.GRU(H))([x, h]),
        lib.with_weights(layers.RNN(layers.SimpleRNNCell(H)))([x, h]),
        lib.with_weights(layers.Bidirectional(layers.GRU(H)))([x, h, c]),
        lib.with_weights(layers.Bidirectional(layers.LSTM(H)))([x, h, c, *more]),
    ]


@case
def bidirectional_of_a_layer_that_goes_backwards(lib):
    results = []
    for return_sequences in (False, True):
        for merge_mode in ("concat", "sum", "mul", "ave", None):
            layer = lib.layers.GRU(H, go_backwards=True, return_sequences=return_sequences)
            layer = lib.with_weights(lib.layers.Bidirectional(layer, merge_mode))
            results.append(layer(lib.numbers(B, T, F), mask=RIGHT))
    return results


@case
def stack_of_one_cell(lib):
    """Its states stay nested."""
    results = []
    for mask in (None, SCATTERED):
        layer = lib.layers.RNN([lib.layers.LSTMCell(H)], return_state=True, return_sequences=True)
        results.append(lib.with_weights(layer)(lib.numbers(B, T, F), mask=mask))
    return results


@case
def activity_regularizer(lib):
    """Of every layer, divided by the batch size."""
    results = []
    for name in ("SimpleRNN", "GRU", "LSTM"):
        layer = lib.with_weights(getattr(lib.layers, name)(H, activity_regularizer="l2"))
        layer(lib.numbers(B, T, F))
        results.append(list(layer.losses))
    return results


@case
def implementation_1(lib):
    """The same without dropout."""
    x = lib.numbers(B, T, F)
    return [lib.with_weights(getattr(lib.layers, name)(H, implementation=1))(x) for name in ("GRU", "LSTM")]


@case
def gru_that_resets_before(lib):
    layer = lib.with_weights(lib.layers.GRU(H, reset_after=False, return_sequences=True))
    return layer(lib.numbers(B, T, F), mask=LEFT)


@case
def stateful_model(lib):
    """The second half of the rows goes on from the first half; the model resets its layers."""
    model = lib.models.Sequential([lib.layers.LSTM(H, stateful=True, batch_input_shape=(B, T, F))])
    lib.with_weights(model.layers[0])
    x = np.concatenate([numbers(B, T, F)] * 2)
    results = [model.predict(x, batch_size=B, verbose=0)]
    model.reset_states()
    results.append(model.predict(x[:B], batch_size=B, verbose=0))
    return results


@case
def parameter_counts(lib):
    """Of the models in Keras's guide on recurrent layers."""
    layers = lib.layers
    guide = [
        [layers.Embedding(1000, 64), layers.LSTM(128), layers.Dense(10)],
        [layers.Embedding(1000, 64), layers.GRU(256, return_sequences=True), layers.SimpleRNN(128), layers.Dense(10)],
        [
            layers.Bidirectional(layers.LSTM(64, return_sequences=True), input_shape=(5, 10)),
            layers.Bidirectional(layers.LSTM(32)),
            layers.Dense(10),
        ],
    ]
    results = []
    for model in map(lib.models.Sequential, guide):
        results.append([float(count) for count in (model.count_params(), *(m.count_params() for m in model.layers))])
    return results


def flatten(result, leaves):
    """Return the structure of nested results, lists of shapes; append the arrays in it to `leaves`."""
    if isinstance(result, list | tuple):
        return [flatten(part, leaves) for part in result]
    leaves.append(np.asarray(result, dtype=np.float64))
    return {"shape": list(leaves[-1].shape)}


def main(path):
    """Record the answers of tf_keras."""
    import tensorflow as tf
    import tf_keras

    tf_keras.backend.set_floatx("float64")
    lib = Library(tf_keras.layers, tf_keras.models, tf.constant)
    leaves = []
    structure = {name: flatten(function(lib), leaves) for name, function in CASES.items()}
    np.savez_compressed(path, structure=json.dumps(structure), values=np.concatenate([leaf.ravel() for leaf in leaves]))


if __name__ == "__main__":
    main(sys.argv[1])
