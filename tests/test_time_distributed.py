"""`TimeDistributed`: any layer over every timestep, masks, training, penalties, states, configuration, errors."""

import copy
import pickle

import numpy as np
import pytest

from numbarnn import graph, layers, models, ops, optimizers, serialization
from numbarnn.graph import Spec
from numbarnn.layers import TimeDistributed, get_mask, set_mask
from numbarnn.recurrence import kernel_calls
from numbarnn.testing import assert_close, check_gradients

B, T, N, F = 3, 4, 5, 2
X = np.random.default_rng(0).standard_normal((B, T, F)).astype("float32")
SEQUENCES = np.random.default_rng(1).standard_normal((B, T, N, F)).astype("float32")
IDS = np.random.default_rng(2).integers(0, 6, (B, T, N))
MASK = np.array([[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0]], bool)
INNER_MASK = np.random.default_rng(3).random((B, T, N)) < 0.6


def each_step(layer, x, masks=None, **options):
    """Ask the layer within for one timestep after the other, as Keras 3 does."""
    parts = [{} if masks is None else {"mask": masks[:, t]} for t in range(x.shape[1])]
    return np.stack([layer(x[:, t].copy(), **part, **options) for t, part in enumerate(parts)], axis=1)


def same(actual, expected):
    assert type(actual) is np.ndarray
    np.testing.assert_array_equal(actual, expected)


def masked(x, mask):
    x = x.copy()
    set_mask(x, mask)
    return x


class Scale(layers.Layer):
    """A layer of a user's own, of two nested inputs and two outputs."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, inputs):
        return {"sum": (inputs["a"] + inputs["b"]) * self.factor, "shape": [inputs["a"] * 2.0]}


# ---------------------------------------------------------------------------------------------------- any layer


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (layers.Dense(3, "tanh"), X),
        (layers.Activation("softmax"), X),
        (layers.Dropout(0.5), X),
        (layers.Identity(), X),
        (layers.BatchNormalization(), X),
        (layers.Embedding(6, 3), IDS),
        (layers.Masking(), SEQUENCES),
        (layers.LSTM(3), SEQUENCES),
        (layers.LSTM(3, return_sequences=True, go_backwards=True), SEQUENCES),
        (layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]), SEQUENCES),
        (layers.GRU(3), SEQUENCES),
        (layers.SimpleRNN(3, return_sequences=True), SEQUENCES),
        (layers.Bidirectional(layers.LSTM(3)), SEQUENCES),
        (layers.GlobalAveragePooling1D(), SEQUENCES),
        (layers.GlobalMaxPooling1D(), SEQUENCES),
        (layers.Flatten(), SEQUENCES),
        (layers.Permute((2, 1)), SEQUENCES),
        (layers.RepeatVector(2), X),
        (layers.LayerNormalization(), SEQUENCES),
        (layers.SpatialDropout1D(0.5), SEQUENCES),
        (models.Sequential([layers.Dense(4, "relu"), layers.LSTM(3)]), SEQUENCES),
        (TimeDistributed(layers.Dense(3)), SEQUENCES),
        (layers.Lambda(lambda x: x * 2.0), SEQUENCES),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else "",
)
def test_every_timestep_goes_through_the_layer(layer, x):
    outer = TimeDistributed(layer)
    y = outer(x)
    same(y, each_step(layer, x))
    assert outer.compute_output_shape(x.shape) == y.shape
    # The same in a program, on symbols of known and unknown lengths, and in a model.
    program = graph.trace(lambda x: outer(x), [Spec(x.shape, x.dtype)])
    same(program(x), y)
    for lengths in ((None, T), (None, None), (B, None)):
        symbol = outer(layers.Input(batch_shape=(*lengths, *x.shape[2:]), dtype=x.dtype.name))
        assert symbol.shape == (*lengths, *y.shape[2:])
        assert symbol.dtype == y.dtype
    same(models.Sequential([outer]).predict(x, batch_size=2, verbose=0), y)


def test_the_batch_of_the_layer_is_all_timesteps():
    # Keras 2 and the decision in favour of it: moments over samples and timesteps together.
    layer = TimeDistributed(layers.BatchNormalization(momentum=0.0, epsilon=1e-3))
    y = layer(X, training=True)
    mean, variance = X.mean((0, 1)), X.var((0, 1))
    assert_close(y, (X - mean) / np.sqrt(variance + 1e-3), 1e-5)
    assert_close(layer.layer.moving_mean.numpy(), mean, 1e-5)
    assert_close(layer.layer.moving_variance.numpy(), variance, 1e-5)
    # In inference with what was learnt.
    assert_close(layer(X), (X - mean) / np.sqrt(variance + 1e-3), 1e-5)


def test_masked_timesteps_have_no_part_in_the_moments():
    layer = TimeDistributed(layers.BatchNormalization(momentum=0.0))
    x = X.copy()
    x[~MASK] = np.nan
    y = layer(x, training=True, mask=MASK)
    assert_close(layer.layer.moving_mean.numpy(), X[MASK].mean(0), 1e-5)
    assert np.isfinite(y[MASK]).all()


def test_all_timesteps_are_one_run_of_the_kernel():
    layer = TimeDistributed(layers.LSTM(3))
    layer(SEQUENCES)
    kernel_calls.clear()
    layer(SEQUENCES, mask=INNER_MASK)
    assert kernel_calls == {("LSTM", "forward"): 1}


def test_nested_inputs_and_outputs():
    layer = TimeDistributed(Scale())
    inputs = {"b": X, "a": X + 1.0}
    found = layer(inputs)
    same(found["sum"], X + (X + 1.0))
    same(found["shape"][0], (X + 1.0) * 2.0)
    symbols = layer({"b": layers.Input((None, F)), "a": layers.Input((None, F))})
    assert symbols["sum"].shape == symbols["shape"][0].shape == (None, None, F)
    with pytest.raises(ValueError, match="same batch size and number of timesteps"):
        layer({"b": X, "a": X[:, :2]})


def test_several_outputs():
    inner = layers.LSTM(3, return_state=True)
    layer = TimeDistributed(inner)
    found = layer(SEQUENCES)
    assert isinstance(found, list)
    for y, expected in zip(found, zip(*[inner(SEQUENCES[:, t]) for t in range(T)], strict=True), strict=True):
        same(y, np.stack(expected, axis=1))
    assert layer.compute_output_shape((B, None, N, F)) == [(B, None, 3)] * 3


@pytest.mark.parametrize("shape", [(0, T, F), (B, 0, F), (B, T, 1)])
def test_lengths_of_zero_and_one(shape):
    assert TimeDistributed(layers.Dense(3))(np.ones(shape, "float32")).shape == (*shape[:2], 3)


def test_rows_must_come_back():
    layer = TimeDistributed(layers.Lambda(lambda x: ops.sum(x, axis=0)))
    with pytest.raises(ValueError, match="one row for each row"):
        layer(X)


# ---------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Dense(3, "tanh", dtype="float64"), (B, T, F)),
        (lambda: layers.LSTM(3, dtype="float64"), (B, T, N, F)),
        (lambda: layers.BatchNormalization(dtype="float64"), (B, T, F)),
        (lambda: TimeDistributed(layers.Dense(2, dtype="float64")), (B, T, N, F)),
        (lambda: layers.LSTM(3, stateful=True, dtype="float64"), (B, T, N, F)),
    ],
    ids=["Dense", "LSTM", "BatchNormalization", "TimeDistributed", "stateful"],
)
@pytest.mark.parametrize("with_mask", [False, True])
def test_gradients_by_differences(rng, make, shape, with_mask):
    layer = TimeDistributed(make())
    x = rng.standard_normal(shape)
    mask = MASK if with_mask else None
    if with_mask:
        x[~MASK] = 0.3
    layer.build(shape)
    weights = layer.trainable_weights
    d = rng.standard_normal(layer(x).shape)

    def value(x, *values):
        for weight, one in zip(weights, values, strict=True):
            weight.assign(one)
        for inner in layer._flatten_layers():
            if getattr(inner, "stateful", False):
                inner.reset_states()
        return np.vdot(layer(x, training=True, mask=mask), d)

    arrays = [x, *layer.get_weights()[: len(weights)]]
    program = graph.trace(lambda x: layer(x, training=True, mask=mask), [Spec(shape, "float64")])
    forward, backward = program.linearize(0, [*program.inputs, *weights])
    value(*arrays)  # from the states that the differences start from
    for inner in layer._flatten_layers():
        if getattr(inner, "stateful", False):
            inner.reset_states()
    y, residuals = forward(x)
    check_gradients(value, arrays, backward(residuals, d), tolerance=1e-6)


@pytest.mark.parametrize("lengths", [(None, T), (B, None), (None, None)])
def test_a_program_for_any_lengths(rng, lengths):
    layer = TimeDistributed(layers.Dense(3, "tanh"))
    d = rng.standard_normal((B, T, 3)).astype("float32")
    found = []
    for shape in ((B, T), lengths):
        program = graph.trace(lambda x: layer(x), [Spec((*shape, F), "float32")])
        layer.build((None, None, F))
        forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
        y, residuals = forward(X)
        found.append([y, *backward(residuals, d)])
    for one, two in zip(*found, strict=True):
        same(one, two)


def test_nan_in_masked_timesteps_reaches_nothing():
    layer = TimeDistributed(layers.LSTM(3))
    layer.build(SEQUENCES.shape)
    x = SEQUENCES.copy()
    x[~MASK] = np.nan
    program = graph.trace(lambda x: layer(x, mask=MASK), [Spec(x.shape, x.dtype)])
    forward, backward = program.linearize(0, [*program.inputs, *layer.trainable_weights])
    y, residuals = forward(x)
    clean, clean_residuals = forward(SEQUENCES)
    same(y, clean)
    assert not y[~MASK].any()  # rows masked whole
    d = np.ones_like(y)
    for one, two in zip(backward(residuals, d), backward(clean_residuals, d), strict=True):
        assert np.isfinite(one).all()
        same(one, two)


# ---------------------------------------------------------------------------------------------------- masks


class Spy(layers.Layer):
    """Keeps the masks that come to it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._set_untracked("seen", [])
        self.supports_masking = True

    def call(self, inputs, mask=None):
        self.seen.append(mask)
        return inputs


@pytest.mark.parametrize("how", ["argument", "list", "with the input"])
def test_the_layer_gets_its_part_of_the_mask(how):
    layer = TimeDistributed(spy := Spy())
    if how == "with the input":
        y = layer(masked(X, MASK))
    else:
        y = layer(X, mask=MASK if how == "argument" else MASK.tolist())
    (seen,) = spy.seen
    same(seen, MASK.reshape(-1))
    same(get_mask(y), MASK)


def test_masks_with_more_axes():
    layer = TimeDistributed(layers.LSTM(3, return_sequences=True))
    y = layer(SEQUENCES, mask=INNER_MASK)
    same(y, each_step(layer.layer, SEQUENCES, INNER_MASK))
    same(get_mask(layer(masked(SEQUENCES, INNER_MASK))), INNER_MASK)
    # Of a layer that gives up the inner timesteps, the outer mask remains: where anything counted.
    last = TimeDistributed(layers.LSTM(3))
    same(get_mask(last(SEQUENCES, mask=INNER_MASK)), INNER_MASK.any(-1))


def test_a_masked_timestep_is_masked_whole():
    layer = TimeDistributed(layers.LSTM(3, return_sequences=True))
    y = layer(SEQUENCES, mask=MASK)
    same(y, layer(SEQUENCES, mask=np.repeat(MASK[:, :, None], N, axis=2)))
    assert not y[~MASK].any()


@pytest.mark.parametrize(
    "layer",
    [
        layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        layers.RNN([layers.LSTMCell(3), layers.SimpleRNNCell(2)], return_sequences=True),
        layers.GlobalAveragePooling1D(),
        TimeDistributed(layers.Dense(3)),
    ],
)
def test_layers_that_take_masks_get_them(layer):
    inner_mask = INNER_MASK | (np.arange(N) == 2)
    same(TimeDistributed(layer)(SEQUENCES, mask=inner_mask), each_step(layer, SEQUENCES, inner_mask))


@pytest.mark.parametrize(
    ("layer", "x", "mask", "expected"),
    [
        (layers.Dense(3), X, None, None),
        (layers.Dense(3), X, MASK, MASK),
        (layers.Dense(3), SEQUENCES, INNER_MASK, INNER_MASK),
        (layers.Embedding(6, 3, mask_zero=True), IDS, None, IDS != 0),
        (layers.Masking(), np.where(INNER_MASK[..., None], SEQUENCES, 0), None, INNER_MASK),
        (layers.Lambda(lambda x: x), X, MASK, MASK),
        (layers.LSTM(3), SEQUENCES, MASK, MASK),
        (TimeDistributed(layers.Dense(3)), SEQUENCES, INNER_MASK, INNER_MASK),
        (models.Sequential([layers.Masking(), layers.LSTM(3, return_sequences=True)]),
         np.where(INNER_MASK[..., None], SEQUENCES, 0), None, INNER_MASK),
        (models.Sequential([layers.Dense(3), layers.LSTM(3)]), SEQUENCES, MASK, MASK),
    ],
)  # fmt: skip
def test_the_mask_that_goes_on(layer, x, mask, expected):
    outer = TimeDistributed(layer)
    y = outer(x if mask is None else masked(x, mask))
    found = get_mask(y)
    if expected is None:
        assert found is None
    else:
        same(found, expected)
    if not isinstance(layer, models.Model):  # whose mask is known only when it is called
        by_hand = outer.compute_mask(x, mask)
        assert by_hand is None if expected is None else np.array_equal(by_hand, expected)


def test_from_words_to_documents():
    # The masks of words reach the inner LSTM, those of sentences the outer one.
    model = models.Sequential(
        [
            TimeDistributed(layers.Embedding(6, 4, mask_zero=True), input_shape=(None, None)),
            TimeDistributed(layers.LSTM(3)),
            layers.LSTM(2),
        ]
    )
    ids = IDS.copy()
    ids[0, 2:] = 0
    ids[1, :, 3:] = 0
    expected = model(ids)
    padded = np.zeros((B, T + 2, N + 3), int)
    padded[:, :T, :N] = ids
    same(model(padded), expected)
    same(model.predict(padded, verbose=0), expected)


@pytest.mark.parametrize("shape", [(B,), (B, T + 1), (B + 1, T), (T, B)])
def test_masks_that_do_not_fit(shape):
    layer = TimeDistributed(layers.Dense(3))
    message = (
        r"must be at least 2D .* but it has 1 dimension\(s\) with shape \(3,\)"
        if len(shape) < 2
        else r"^The `mask` passed to the `TimeDistributed` layer has a shape .* Expected mask shape prefix: \(3, 4\)"
    )
    with pytest.raises(ValueError, match=message):
        layer(X, mask=np.ones(shape, bool))


def test_no_warning_where_the_layer_knows_no_masks():
    # The mask is that of the timesteps; it is not lost on a layer that looks at one of them.
    class Plain(layers.Layer):
        def call(self, x):
            return x

    y = TimeDistributed(Plain())(masked(X, MASK))
    same(get_mask(y), MASK)


# ------------------------------------------------------------------------------------- training, weights, penalties


@pytest.mark.parametrize("training", [True, False, None])
def test_training_reaches_the_layer(training):
    layer = TimeDistributed(layers.Dropout(0.5, seed=1))
    changed = not np.array_equal(layer(X, training=training), X)
    assert changed is (training is True)
    model = models.Sequential([layer])
    assert (not np.array_equal(model(X, training=training), X)) is changed


def test_weights_are_those_of_the_layer():
    inner = layers.Dense(3)
    layer = TimeDistributed(inner)
    assert layer.weights == []
    layer.build((None, None, F))
    assert [w.path for w in layer.weights] == [f"{layer.name}/{inner.name}/{n}" for n in ("kernel", "bias")]
    assert all(a is b for a, b in zip(layer.weights, inner.weights, strict=True))
    assert layer.count_params() == F * 3 + 3
    layer.trainable = False
    assert layer.trainable_weights == inner.trainable_weights == []


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: TimeDistributed(layers.Dense(3), **options),
        lambda **options: layers.Bidirectional(layers.LSTM(3, return_sequences=True), **options),
        lambda **options: layers.RNN(layers.GRUCell(3), return_sequences=True, **options),
    ],
)
def test_a_layer_around_others_that_is_not_trained(make):
    model = models.Sequential([make(trainable=False, input_shape=(T, F)), layers.Dense(1)])
    outer, head = model.layers
    assert outer.trainable_weights == []
    assert [w.path for w in model.trainable_weights] == [w.path for w in head.weights]
    assert [w.path for w in model.non_trainable_weights] == [w.path for w in outer.weights]
    model.compile("sgd", "mse")
    before = outer.get_weights()
    model.fit(X, np.ones((B, T, 1)), verbose=0)
    for one, two in zip(outer.get_weights(), before, strict=True):
        same(one, two)
    outer.trainable = True
    assert len(model.trainable_weights) == len(model.weights)


def test_penalties_count():
    inner = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")
    layer = TimeDistributed(inner, activity_regularizer="l2")
    y = layer(X)
    kernel = inner.kernel.numpy()
    expected = [0.01 * np.sum(y**2) / B, 0.01 * np.abs(y).sum() / (B * T), 0.01 * np.sum(kernel**2)]
    assert_close(np.array([float(loss) for loss in layer.losses]), expected, 1e-5)
    model = models.Sequential([layer])
    model.compile("sgd", "mse")
    loss = model.test_on_batch(X, np.zeros_like(y))
    assert loss == pytest.approx(float(np.mean(y**2)) + sum(expected), rel=1e-5)


def test_a_model_learns(rng):
    x = rng.standard_normal((64, T, N, F)).astype("float32")
    y = x.sum((2, 3))[..., None]
    model = models.Sequential([TimeDistributed(layers.LSTM(8)), TimeDistributed(layers.Dense(1))])
    model.compile(optimizers.Adam(0.02), "mse")
    history = model.fit(x, y, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.7 * history[0]


# ---------------------------------------------------------------------------------------------------- states


def test_a_stateful_layer_goes_on_from_timestep_to_timestep():
    inner = layers.LSTM(3, stateful=True)
    outer = TimeDistributed(inner)
    y = outer(SEQUENCES)
    inner.reset_states()
    same(y, each_step(inner, SEQUENCES))
    # One long sequence cut into T pieces is the same as the long one.
    long = layers.LSTM(3)
    long.build((B, T * N, F))
    long.set_weights(inner.get_weights())
    same(y[:, -1], long(SEQUENCES.reshape(B, T * N, F)))
    assert outer.compute_output_shape(SEQUENCES.shape) == y.shape


def test_a_stateful_layer_in_a_model():
    inner = layers.LSTM(3, stateful=True)
    model = models.Sequential([TimeDistributed(inner, batch_input_shape=(B, T, N, F))])
    first = model.predict(SEQUENCES, batch_size=B, verbose=0)
    second = model.predict(SEQUENCES, batch_size=B, verbose=0)
    assert not np.array_equal(first, second)
    model.reset_states()
    same(model.predict(SEQUENCES, batch_size=B, verbose=0), first)


def test_a_stateful_layer_gets_its_part_of_the_mask():
    inner = layers.LSTM(3, stateful=True, return_sequences=True)
    y = TimeDistributed(inner)(SEQUENCES, mask=INNER_MASK)
    inner.reset_states()
    same(y, each_step(inner, SEQUENCES, INNER_MASK))


def test_a_stateful_layer_needs_a_timestep():
    with pytest.raises(ValueError, match="there are none"):
        TimeDistributed(layers.LSTM(3, stateful=True))(SEQUENCES[:, :0])


# ------------------------------------------------------------------------------------- types, configuration, errors


def test_types_are_those_of_the_layer():
    # float64 is not rounded on the way in.
    x = X.astype("float64") + 1e-12
    inner = layers.Dense(3, dtype="float64")
    same(TimeDistributed(inner)(x), inner(x))
    half = TimeDistributed(layers.Dense(3, dtype="mixed_float16"))
    assert half(X).dtype == half(layers.Input((None, F))).dtype == np.float16
    assert half.layer.kernel.dtype == np.float32
    outer = TimeDistributed(layers.Dense(3), dtype="mixed_float16")
    assert outer(X).dtype == outer(layers.Input((None, F))).dtype == np.float16


@pytest.mark.parametrize(
    "layer", [layers.Dense(3, "relu", name="inner"), models.Sequential([layers.Dense(3)]), layers.LSTM(2)]
)
def test_configuration_goes_round(layer):
    outer = TimeDistributed(layer, name="outer", trainable=False)
    config = outer.get_config()
    assert set(config) == {"name", "trainable", "dtype", "layer"}
    twin = TimeDistributed.from_config(copy.deepcopy(config))
    assert twin.get_config() == config
    assert type(twin.layer) is type(layer)
    assert serialization.deserialize_keras_object(serialization.serialize_keras_object(outer)).get_config() == config


def test_a_layer_of_ones_own_is_read_back():
    config = TimeDistributed(Scale()).get_config()
    assert type(TimeDistributed.from_config(config, custom_objects={"Scale": Scale}).layer) is Scale


@pytest.mark.parametrize("how", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(how):
    layer = TimeDistributed(layers.LSTM(3))
    y = layer(SEQUENCES)
    twin = how(layer)
    same(twin(SEQUENCES), y)
    assert twin.layer is not layer.layer


@pytest.mark.parametrize("given", [3, None, "dense", layers.Dense])
def test_what_is_no_layer(given):
    with pytest.raises(ValueError, match="Please initialize `TimeDistributed` layer with a "):
        TimeDistributed(given)


@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_too_few_axes(shape):
    message = r"`TimeDistributed` Layer should be passed an `input_shape` with at least 3 dimensions, received: \(2,"
    for built in (False, True):
        layer = TimeDistributed(layers.Dense(3))
        if built:
            layer.build((None, None, 3))
        for attempt in (
            lambda layer=layer: layer(np.ones(shape, "float32")),
            lambda layer=layer: layer.compute_output_shape(shape),
            lambda layer=layer: layer(layers.Input(batch_shape=shape)),
        ):
            with pytest.raises(ValueError, match=message):
                attempt()


def test_inputs_that_the_layer_refuses():
    layer = TimeDistributed(layers.Dense(3))
    layer(X)
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 2"):
        layer(np.ones((B, T, F + 1), "float32"))
