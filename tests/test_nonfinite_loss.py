"""What `fit` says of a loss that is not finite: the step, the layer, the operation, the rows of the data."""

import warnings

import numpy as np
import pytest

from numbarnn import Model, Sequential, layers, ops, optimizers, value_and_grad
from numbarnn.callbacks import LambdaCallback, TerminateOnNaN
from numbarnn.utils import Ragged, set_random_seed

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero|overflow) encountered:RuntimeWarning")


@pytest.fixture
def data(rng):
    return rng.standard_normal((24, 6, 3), "float32"), rng.standard_normal((24, 1), "float32")


def warning_of(model, x, y, **options):
    """Train; return the one warning, "" if there was none."""
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(x, y, **options)
    found = [str(w.message) for w in caught if str(w.message).startswith(("The loss of model", "The losses of model"))]
    assert len(found) <= 1
    if found:
        (warning,) = (w for w in caught if str(w.message) == found[0])
        assert warning.category is RuntimeWarning and warning.filename == __file__
    return "".join(found)


def chain(*stack, loss="mse", rate=0.01):
    model = Sequential([*stack, layers.Dense(1, name="head")], name="chain")
    model.compile(optimizers.SGD(rate), loss)
    return model


def test_logarithm_of_a_negative_number(data):
    x, y = data[0][:, 0], data[1]
    x[:, 0] = np.abs(x[:, 0]) + 1
    x[13, 0] = -5  # the fifth row of the second batch
    one = np.zeros((3, 1), "float32")
    one[0] = 1
    first = layers.Dense(1, use_bias=False, trainable=False, name="first")
    model = chain(layers.Input((3,)), first, layers.Lambda(lambda t: ops.log(t), name="logarithm"))
    first.set_weights([one])
    text = warning_of(model, x, y, epochs=3)
    assert "The loss of model 'chain' is not finite from batch 1 of epoch 1 on (batches count from 0)." in text
    assert "It first appeared in layer 'logarithm' (Lambda): `log` at " in text
    assert f"{__file__}:{test_logarithm_of_a_negative_number.__code__.co_firstlineno + 7} made NaN" in text
    assert "at index (5, 0) of its result (shape (8, 1)) from finite numbers of magnitude up to 5" in text


def test_exploding_weights(data):
    x, y = data[0][:, 0], data[1]
    model = chain(layers.Input((3,)), layers.Dense(4, name="first"), rate=1e20)
    model.layers[0].set_weights([np.full((3, 4), 1.0), np.zeros(4)])
    text = warning_of(model, x, y)
    assert "from batch 1 of epoch 1 on" in text
    assert "layer 'head' (Dense): `matmul` made infinity" in text
    assert "finite numbers of magnitude up to" in text


def test_an_update_that_spoils_the_weights(data):
    """The square root of 0 is finite, its derivative is not."""
    x, y = data[0][:, 0], data[1]
    root = layers.Lambda(lambda t: ops.sqrt(ops.relu(t)), name="root")
    model = chain(layers.Input((3,)), layers.Dense(2, kernel_initializer="zeros", name="first"), root)
    text = warning_of(model, x, y)
    assert "not finite from batch 1 of epoch 1 on" in text
    assert "The weights of layer 'first' (Dense) were not finite before this step: 'first/kernel'" in text
    assert "the step before, of which the loss was finite, left them so (learning rate 0.01)" in text


@pytest.mark.parametrize("before", [False, True])
def test_weights_that_the_last_step_has_spoiled(data, before):
    """No loss tells of it any more."""
    x, y = data[0][:, 0], data[1]
    root = layers.Lambda(lambda t: ops.sqrt(ops.relu(t)), name="root")
    model = chain(layers.Input((3,)), layers.Dense(2, kernel_initializer="zeros", name="first"), root)
    if before:  # meant to be
        model.layers[0].bias.trainable = False
        model.layers[0].bias.assign([0.0, -np.inf])
    text = warning_of(model, x, y, batch_size=24)
    assert "were finite, but not all weights are after its last step, batch 0 of epoch 1: 'first/kernel'" in text
    assert "(learning rate 0.01)." in text and ("'first/bias'" in text) == (not before)
    model.set_weights([np.full_like(w, 10 * (w.ndim == 1)) for w in model.get_weights()])
    assert warning_of(model, x, y, batch_size=24) == ""


def test_weights_that_were_so_when_training_began(data):
    model = chain(layers.Input((3,)))
    model.set_weights([np.full((3, 1), np.inf), np.zeros(1)])
    text = warning_of(model, data[0][:, 0], data[1])
    assert "The weights of layer 'head' (Dense)" in text
    assert "'head/kernel' held infinity; so they were when `fit` began." in text


@pytest.mark.parametrize("shape", [None, 1])
def test_nan_in_rows_of_the_inputs(data, shape):
    x, y = data
    x = x if shape is None else x[:, 0]
    x[17, ..., 2] = np.nan
    x[19, ..., 1] = np.nan
    model = chain(layers.Input(x.shape[1:]), *([layers.GRU(2)] if shape is None else []))
    text = warning_of(model, x, y, epochs=2)
    assert "batch 2 of epoch 1" in text
    index = "(1, 0, 2)" if shape is None else "(1, 2)"
    assert f"The data are the cause: `x` holds NaN in rows 1, 3 of the batch, first at index {index}." in text


def test_nan_in_targets_and_in_one_of_several_inputs(data):
    x, y = data[0][:, 0], data[1].copy()
    y[3] = np.nan
    assert "`y` holds NaN in row 3 of the batch" in warning_of(chain(layers.Input((3,))), x, y)
    inputs = {"a": layers.Input((3,), name="a"), "b": layers.Input((3,), name="b")}
    model = Model(inputs, layers.Dense(1)(layers.Add()([inputs["a"], inputs["b"]])))
    model.compile("sgd", "mse")
    b = x.copy()
    b[0] = np.inf
    text = warning_of(model, {"a": x, "b": b}, data[1])
    assert "`x['b']` holds infinity in row 0 of the batch, first at index (0, 0)" in text


def test_nan_in_sequences_of_different_lengths(rng, data):
    x = [rng.standard_normal((n, 3), "float32") for n in (3, 5, 2, 4)]
    x[3][2, 1] = np.nan
    model = chain(layers.Input((None, 3)), layers.LSTM(2))
    text = warning_of(model, Ragged(x), data[1][:4])
    assert "`x` holds NaN in row 3 of the batch, first at index (3, 2, 1)." in text


def test_a_loss_that_divides_by_zero(data):
    def loss(y_true, y_pred):
        return ops.mean((y_true - y_pred) / (y_true - y_true))

    text = warning_of(chain(layers.Input((3,)), loss=loss), data[0][:, 0], data[1])
    assert f"in the computation of the loss: `divide` at {__file__}:" in text
    assert "made infinity" in text


def test_overflow_within_a_recurrent_layer(data):
    rnn = layers.SimpleRNN(2, activation="linear", return_sequences=True, name="grows")
    model = chain(layers.Input((6, 3)), rnn, layers.LSTM(2, name="after"))
    rnn.set_weights([np.full((3, 2), 1e15), np.full((2, 2), 1e15), np.zeros(2)])
    text = warning_of(model, np.abs(data[0]), data[1])
    assert "layer 'grows' (SimpleRNN)" in text
    assert "at index (0, 2, 0) of its result (shape (8, 6, 2))" in text  # 1e15, 1e30, then more than float32 holds
    assert "magnitude up to 1e+15" in text


class Root(layers.Layer):
    """A cell with a square root; states of the cell are never negative, inputs are."""

    state_size = output_size = 2

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], 2), initializer="ones", name="kernel")

    def call(self, x, states):
        h = ops.sqrt(states[0] + ops.matmul(x, self.kernel))
        return h, [h]


def test_nan_within_a_cell_of_ones_own(data):
    model = chain(layers.Input((6, 3)), layers.RNN(Root(), name="own"))
    text = warning_of(model, data[0] - 3, data[1])
    assert "in layer 'own' (RNN)" in text and "made NaN" in text


def test_states_that_are_not_finite(data):
    x, y = data
    rnn = layers.SimpleRNN(2, stateful=True, name="keeps")
    model = chain(layers.Input(batch_shape=(8, 6, 3)), rnn)
    before = model.get_weights()
    rnn.reset_states([np.full((8, 2), np.nan, "float32")])
    text = warning_of(model, x, y)
    assert (
        "The states of layer 'keeps' (SimpleRNN) were not finite before this step: 'keeps/rnn_state' held NaN" in text
    )
    assert "so they were when `fit` began" in text
    model.set_weights(before)
    model.reset_states()

    def spoil(batch, logs):
        if batch == 1:
            rnn.reset_states([np.full((8, 2), np.nan, "float32")])

    text = warning_of(model, x, y, callbacks=LambdaCallback(on_train_batch_end=spoil))
    assert "batch 2 of epoch 1" in text
    assert "The states of layer 'keeps' (SimpleRNN)" in text and "of which the loss was finite, left them so." in text


class Masked(Model):
    """NaN marks padding; the mask keeps it from the result."""

    def __init__(self, after):
        super().__init__()
        self.rnn, self.after, self.head = layers.LSTM(2), after, layers.Dense(1)

    def call(self, x):
        return self.head(self.after(self.rnn(x, mask=ops.all(x == x, axis=-1))))


def test_nan_under_a_mask_is_nobodys_fault(data):
    x, y = data
    x[:, 4:] = np.nan
    model = Masked(layers.Lambda(lambda t: t))
    model.compile("sgd", "mse")
    assert warning_of(model, x, y) == ""
    model = Masked(layers.Lambda(lambda t: ops.log(ops.abs(t) * -1), name="wrong"))
    model.compile("sgd", "mse")
    assert "It first appeared in layer 'wrong' (Lambda): `log`" in warning_of(model, x, y)


def test_infinity_that_is_written_down_is_not_the_origin(data):
    """Scores of -inf are common before a softmax; only a row of nothing else makes NaN."""

    def attend(t):
        scores = ops.where(t > 0, t, -np.inf)
        return ops.softmax(scores, axis=-1)

    x, y = np.abs(data[0][:, 0]), data[1]
    model = chain(layers.Input((3,)), layers.Lambda(attend, name="attend"))
    assert warning_of(model, x, y) == ""
    x[9] = -1
    text = warning_of(model, x, y)
    assert "batch 1 of epoch 1" in text and "layer 'attend' (Lambda)" in text and "made NaN" in text
    assert "`where`" not in text and "infinity that stands there as a constant" in text


def test_a_constant_that_is_not_a_number(data):
    scale = layers.Lambda(lambda t: t * np.array([1, np.nan, 1], "float32"), name="scale")
    text = warning_of(chain(layers.Input((3,)), scale), data[0][:, 0], data[1])
    assert "layer 'scale' (Lambda): `multiply` at" in text and "NaN that stands there as a constant" in text


def test_the_data_are_blamed_although_zero_would_be_no_better(data):
    """To see whether the data are the cause it takes something in their place, of which there is a logarithm."""
    x = np.abs(data[0][:, 0]) + 1
    x[4, 1] = np.nan
    text = warning_of(chain(layers.Input((3,)), layers.Lambda(lambda t: ops.log(t))), x, data[1])
    assert "The data are the cause: `x` holds NaN in row 4 of the batch, first at index (4, 1)." in text


def test_looking_changes_nothing(data):
    """Weights, states and random draws go on bit for bit as with `train_on_batch`, which does not look."""
    x, y = data
    x[3] = np.nan

    def make():
        set_random_seed(5)
        model = Sequential(
            [layers.Input(batch_shape=(8, 6, 3)), layers.SimpleRNN(2, stateful=True), layers.Dropout(0.5, seed=3)]
        )
        model.compile("sgd", lambda t, p: ops.mean(ops.where(p == p, p, 0.0)) + ops.sum(p[:4] * 0))
        model.set_weights([np.full(w.shape, 0.3, w.dtype) for w in model.get_weights()])
        return model

    watched, plain = make(), make()
    assert warning_of(watched, x, y)
    for i in (0, 8, 16):
        plain.train_on_batch(x[i : i + 8], y[i : i + 8])
    for a, b in zip(watched.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


class Own(Model):
    def __init__(self, inside):
        super().__init__()
        self.head, self.inside = layers.Dense(1, name="head"), inside

    def call(self, x):
        return ops.log(self.head(x) * 0 - 1) if self.inside else self.head(x)

    def train_step(self, batch):
        x, y = batch

        def loss_of(x, y):
            return self.compute_loss(y=y, y_pred=self(x, training=True))

        loss, gradients = value_and_grad(loss_of, self)(x, y)
        self.optimizer.apply(gradients)
        return {"loss": loss if self.inside else float("nan")}


def test_a_train_step_of_ones_own(data):
    for inside, expected in ((True, "(Own): `log` at"), (False, "`train_step` reported it")):
        model = Own(inside)
        model.compile("sgd", "mse")
        text = warning_of(model, data[0][:, 0], data[1])
        assert "batch 0 of epoch 1" in text and expected in text


def test_terminate_on_nan_raises_with_the_reason(data, capsys):
    x, y = data[0][:, 0], data[1]
    x[9] = np.nan
    model = chain(layers.Input((3,)))
    with warnings.catch_warnings():  # the error takes the warning's place
        warnings.simplefilter("error")
        with pytest.raises(RuntimeError, match=r"loss encountered at batch 1\. .*`x` holds NaN in row 1 of the batch"):
            model.fit(x, y, batch_size=8, shuffle=False, verbose=0, callbacks=TerminateOnNaN(raise_error=True))
    model = chain(layers.Input((3,)))
    assert "batch 1 of epoch 1" in warning_of(model, x, y, epochs=3, callbacks=[TerminateOnNaN()])
    assert capsys.readouterr().out == "Batch 1: Invalid loss, terminating training\n"
    assert model.history.epoch == [0] and len(model.history.history["loss"]) == 1


def test_only_fit_looks_and_once_each_time(data):
    x, y = data[0][:, 0], data[1]
    x[0] = np.nan
    model = chain(layers.Input((3,)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        model.evaluate(x, y, verbose=0)
        model.train_on_batch(x, y)
    model.set_weights([np.ones((3, 1)), np.zeros(1)])
    assert "`x` holds NaN" in warning_of(model, x, y, epochs=3)
    model.set_weights([np.ones((3, 1)), np.zeros(1)])
    assert "`x` holds NaN" in warning_of(model, x, y)
