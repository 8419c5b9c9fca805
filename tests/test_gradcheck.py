"""`gradcheck` finds what is wrong, and names it, and passes what is right; it leaves no trace."""

import numpy as np
import pytest
from recurrent import MASK, B, F, T, X

import numbarnn
from numbarnn import Input, Model, Sequential, backend, gradcheck, layers
from numbarnn.graph import KernelOp
from numbarnn.testing import GradientReport

X64 = X.astype("float64")


class OwnBackward(layers.Layer):
    """tanh(x W + h U), with a hand-written gradient that may be given an error."""

    def __init__(self, units, error=None, **kwargs):
        super().__init__(**{"dtype": "float64", **kwargs})
        self.state_size, self.error = units, error

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.state_size), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.state_size, self.state_size), name="recurrent_kernel")

    def call(self, inputs, states):
        h = np.tanh(inputs @ self.kernel.numpy() + states[0] @ self.recurrent_kernel.numpy())
        return h, [h], h

    def backward(self, d_output, d_states, inputs, states, saved):
        d_z = (d_output + d_states[0]) * (1 - saved**2)
        d_inputs, d_before = d_z @ self.kernel.numpy().T, d_z @ self.recurrent_kernel.numpy().T
        d_kernel, d_recurrent = inputs.T @ d_z, states[0].T @ d_z
        if self.error == "recurrent_kernel":
            d_recurrent = d_recurrent * 1.001
        if self.error == "transposed":
            d_recurrent = d_recurrent.T
        if self.error == "inputs":
            d_inputs = d_inputs + 0.01
        if self.error == "nan":
            d_kernel = d_kernel * np.nan
        return d_inputs, [d_before], [d_kernel, d_recurrent]


def own(error=None, **options):
    return layers.RNN(OwnBackward(3, error, name="cell"), dtype="float64", name="it", **options)


def test_a_right_backward_passes():
    report = gradcheck(own(return_sequences=True), X64)
    assert isinstance(report, GradientReport) and report.passed and report.worst.error < 1e-6
    assert [(entry.name, entry.shape) for entry in report.entries] == [
        ("it/cell/kernel", (F, 3)),
        ("it/cell/recurrent_kernel", (3, 3)),
        ("input", (B, T, F)),
    ]
    assert all(abs(entry.slope) > 1e-3 for entry in report.entries)
    assert "it/cell/recurrent_kernel (3, 3)" in str(report) and "wrong" not in str(report)


@pytest.mark.parametrize(
    "error, name",
    [
        ("recurrent_kernel", "it/cell/recurrent_kernel"),
        ("transposed", "it/cell/recurrent_kernel"),
        ("inputs", "input"),
        ("nan", "it/cell/kernel"),
    ],
)
def test_a_wrong_backward_is_found_and_named(error, name):
    with pytest.raises(AssertionError, match=f"The gradient of {name} is wrong") as caught:
        gradcheck(own(error), X64)
    lines = str(caught.value).splitlines()
    marked = [line for line in lines if "<- wrong" in line]
    assert len(marked) == 1 and marked[0].startswith(name + " ")
    # A wrong gradient of the inputs is one in a model as well, in which it is that of the weights below.
    below = Sequential([layers.Dense(F, use_bias=False, dtype="float64", name="below"), own(error)])
    if error == "inputs":
        with pytest.raises(AssertionError, match="below/kernel"):
            gradcheck(below, X64)


def test_a_small_error_beneath_a_large_loss():
    """What counts is the size of the gradient of that weight, not that of the others or the loss."""

    class Two(layers.Layer):
        def build(self, input_shape):
            self.large = self.add_weight(shape=(), initializer="ones", name="large")
            self.small = self.add_weight(shape=(), initializer="ones", name="small")

        def call(self, x):
            return 10 * self.large * x + wrong(1e-4 * self.small)

    wrong = KernelOp(
        "wrong",
        lambda x, save: (x * 1.0, None),
        lambda x: x,
        lambda saved, d, needs: (d[0] * 1.01,),
    )
    with pytest.raises(AssertionError, match="two/small is wrong"):
        gradcheck(Two(dtype="float64"), np.ones((1, 1)))


def test_a_loss_of_a_users():
    sign = KernelOp(
        "absolute",
        lambda x, save: (np.abs(x), x),
        lambda x: x,
        lambda x, d, needs: (d[0] * np.sign(x),),
    )
    unsigned = KernelOp(
        "unsigned",
        lambda x, save: (np.abs(x), x),
        lambda x: x,
        lambda x, d, needs: (d[0] * 1.0,),
    )
    layer, y = layers.Dense(2, dtype="float64"), np.zeros((B, 2))
    assert gradcheck(layer, X64[:, 0], y, loss=lambda y, y_pred: sign(y - y_pred)).passed
    with pytest.raises(AssertionError, match="dense/"):
        gradcheck(layer, X64[:, 0], y, loss=lambda y, y_pred: unsigned(y - y_pred))
    assert gradcheck(layer, X64[:, 0], y, loss="mse").passed
    with pytest.raises(ValueError, match="goes with the loss of `compile`"):
        gradcheck(layer, X64[:, 0], y, loss="mse", sample_weight=np.ones(B))


def test_compiled_models_with_penalties_masks_and_several_inputs():
    words = Input((T,), dtype="int32")
    values = Input((T, F), dtype="float64")
    with_words = layers.Embedding(9, 2, mask_zero=True, dtype="float64")(words)
    both = layers.Concatenate(dtype="float64")([with_words, values])
    state = layers.LSTM(3, kernel_regularizer="l2", dtype="float64")(both)
    model = Model([words, values], layers.Dense(1, dtype="float64")(state))
    model.compile(loss="mse")
    tokens = np.random.default_rng(0).integers(0, 9, size=(B, T)) * MASK
    weights = [w.copy() for w in model.get_weights()]
    report = gradcheck(model, [tokens, X], np.ones((B, 1)), sample_weight=np.arange(B))  # float32 inputs are widened
    assert report.entries[-1].name == "input 1" and len(report.entries) == 7
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_dropout_draws_the_same_each_time_and_generators_go_back():
    options = {"dtype": "float64", "dropout": 0.4, "recurrent_dropout": 0.3}
    model = Sequential([layers.LSTM(4, return_sequences=True, **options), layers.Dropout(0.5, dtype="float64")])
    model(X64)
    seeds = [variable.numpy() for variable in model.non_trainable_variables]
    assert seeds and gradcheck(model, X64, training=True).passed
    for variable, before in zip(model.non_trainable_variables, seeds, strict=True):
        np.testing.assert_array_equal(variable.numpy(), before)

    class Noisy(layers.Layer):  # draws from the global generator
        def build(self, input_shape):
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

        def call(self, x):
            return x * self.scale * numbarnn.random.uniform(x.shape, dtype="float64")

    assert gradcheck(Noisy(dtype="float64"), X64).passed


@pytest.mark.parametrize("built", [False, True])
def test_states_and_statistics_are_put_back(built):
    model = Sequential(
        [
            layers.GRU(3, stateful=True, return_sequences=True, dtype="float64", batch_input_shape=(B, T, F)),
            layers.BatchNormalization(dtype="float64"),
        ]
    )
    if built:
        model(X64, training=True)
    states = model.layers[0].states[0].copy()
    weights = model.get_weights()
    assert gradcheck(model, X64, training=True).passed
    np.testing.assert_array_equal(model.layers[0].states[0], states)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_layer_that_was_never_called_is_built():
    layer = layers.GRU(3, stateful=True, dtype="float64")
    assert gradcheck(layer, X64).passed
    assert not layer.states[0].any()
    out = layer(X64, initial_state=[np.ones((B, 3))])  # taken at the start only
    twin = layers.GRU(3, dtype="float64")
    twin.build(X64.shape)
    twin.set_weights(layer.get_weights())
    np.testing.assert_array_equal(out, twin(X64, initial_state=[np.ones((B, 3))]))


def test_initial_states_in_the_list_of_inputs():
    report = gradcheck(layers.GRU(3, dtype="float64"), [X64, np.ones((B, 3))])
    assert [entry.name for entry in report.entries][-2:] == ["input 0", "input 1"]


def test_masks_of_the_inputs_count():
    x = X64.copy()
    layers.set_mask(x, MASK)
    assert gradcheck(layers.LSTM(3, dtype="float64", return_sequences=True), x).passed


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"wrap a cell: layers.RNN\(cell\). Received: function"):
        gradcheck(lambda x: x, X)
    with pytest.raises(ValueError, match=r"needs float64.*In less: 'gru' \(float32\), 'gru_cell' \(float32\)"):
        gradcheck(layers.GRU(3), X)
    layer = layers.GRU(3, dtype="float64")
    with pytest.raises(ValueError, match="Targets `y` need a loss"):
        gradcheck(layer, X64, np.zeros((B, 3)))
    with pytest.raises(ValueError, match="need targets `y`"):
        gradcheck(layer, X64, loss="mse")
    with pytest.raises(ValueError, match="`step` must be larger than 0. Received: step=0"):
        gradcheck(layer, X64, step=0)
    with pytest.raises(ValueError, match="There is nothing to check"):
        gradcheck(layers.Flatten(dtype="float64"), np.ones((2, 3), int))
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match=f"The loss is {value}: there is nothing to compare"):
            gradcheck(layer, X64, np.zeros((B, 3)), loss=lambda y, y_pred, value=value: (y - y_pred) ** 2 + value)

    class Restless(OwnBackward):
        def call(self, inputs, states):
            h, new, saved = super().call(inputs, states)
            return h + np.random.default_rng().normal(size=h.shape), new, saved

    with pytest.raises(ValueError, match="not the same when it is computed again"):
        gradcheck(layers.RNN(Restless(3), dtype="float64"), X64)


def test_a_model_made_in_float64_as_the_message_says():
    backend.set_floatx("float64")
    x = Input((T, F))
    model = Model(x, layers.Dense(2)(layers.SimpleRNN(3)(x)))
    model.compile(loss="mse")
    assert gradcheck(model, X, np.zeros((B, 2))).passed
