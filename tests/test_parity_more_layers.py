"""Live Keras beside the layers that reshape, pool, merge and normalize, and beside regularizers and constraints."""

import warnings

import numpy as np
import pytest

from numbarnn import constraints, graph, layers, models, optimizers, regularizers, serialization
from numbarnn.graph import Spec
from numbarnn.testing.errors import TOLERANCE, assert_close

# Keras has variables that NumPy 2 warns about.
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:__array__ implementation")]
keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
MASKS = RNG.random((3, 4, 6)) < 0.6
MASKS[:, 0] = True
MASKS[1, 2] = False  # a row masked whole, in one of the masks


def arrays(*shapes):
    return [RNG.standard_normal(shape).astype(np.float32) for shape in shapes]


def pair(name, args, kwargs, shapes, listed=False):
    """Return our layer and Keras's, with the same random weights; `listed`: called on a list even of one."""
    ours, theirs = getattr(layers, name)(*args, **kwargs), getattr(keras.layers, name)(*args, **kwargs)
    xs = [np.zeros(shape, np.float32) for shape in shapes]
    given = xs if listed or len(xs) > 1 else xs[0]
    ours(given), theirs(given)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, tuple(w.shape)) for w in theirs.weights]
    values = [RNG.standard_normal(w.shape).astype(np.float32) for w in ours.weights]
    ours.set_weights(values), theirs.set_weights(values)
    return ours, theirs


def compare(ours, theirs, xs, masks=(), listed=True):
    """Compare outputs, masks, and the gradients of all inputs and weights, for a random gradient of the output."""
    masks = [*masks, *[None] * (len(xs) - len(masks))]

    def traced(xs, masks):
        for x, mask in zip(xs, masks, strict=True):
            x.mask = mask
        return ours(list(xs) if listed else xs[0])

    tensors = [torch.tensor(x, requires_grad=True) for x in xs]
    for tensor, mask in zip(tensors, masks, strict=True):
        if mask is not None:
            keras.src.backend.set_keras_mask(tensor, torch.tensor(mask))
    expected = theirs(tensors if listed else tensors[0])
    specs = [Spec(x.shape, x.dtype) for x in xs]
    program = graph.trace(traced, (specs, [None if m is None else Spec(m.shape, "bool") for m in masks]))
    floats = program.inputs[: len(xs)]
    forward, backward = program.linearize(0, [*floats, *ours.trainable_weights])
    y, residuals = forward(*xs, *(m for m in masks if m is not None))
    assert_close(y, expected.detach().numpy(), TOLERANCE["float32"], "output")

    eager = [x.copy() for x in xs]
    for x, mask in zip(eager, masks, strict=True):
        layers.set_mask(x, mask)
    result = ours(eager if listed else eager[0])
    np.testing.assert_array_equal(result, y)
    theirs_mask = keras.src.backend.get_keras_mask(expected)
    if theirs_mask is None:
        assert layers.get_mask(result) is None
    else:
        np.testing.assert_array_equal(layers.get_mask(result), theirs_mask.numpy())

    d = RNG.standard_normal(y.shape).astype(np.float32)
    sources = [*tensors, *(w.value for w in theirs.trainable_weights)]
    for k, (found, wanted) in enumerate(
        zip(backward(residuals, d), torch.autograd.grad(expected, sources, torch.tensor(d)), strict=True)
    ):
        assert_close(found, wanted.numpy(), TOLERANCE["float32"], f"gradient {k}")


FIRST = ("channels_first",)
ONE = [
    ("Flatten", (), {}, (4, 6, 5)),
    ("Flatten", ("channels_first",), {}, (4, 6, 5)),
    ("Flatten", (), {}, (4,)),
    ("Reshape", ((3, 10),), {}, (4, 6, 5)),
    ("Reshape", ((-1, 2, 3),), {}, (4, 6, 5)),
    ("RepeatVector", (3,), {}, (4, 5)),
    ("Permute", ((2, 1),), {}, (4, 6, 5)),
    ("GlobalAveragePooling1D", (), {}, (4, 6, 5)),
    ("GlobalAveragePooling1D", ("channels_first", True), {}, (4, 5, 6)),
    ("GlobalMaxPooling1D", (), {"keepdims": True}, (4, 6, 5)),
    ("GlobalMaxPooling1D", ("channels_first",), {}, (4, 5, 6)),
    ("SpatialDropout1D", (0.3,), {}, (4, 6, 5)),
    ("LayerNormalization", (), {}, (4, 6, 5)),
    ("LayerNormalization", ([-1],), {"epsilon": 0.1}, (4, 6, 5)),
    ("LayerNormalization", ([1, 2],), {}, (4, 6, 5)),
    ("LayerNormalization", ([-2, -1],), {"center": False}, (4, 6, 5)),  # Keras on PyTorch fails on axis 1 alone
    ("LayerNormalization", ([1, 3],), {"scale": False}, (4, 3, 2, 5)),
    ("LayerNormalization", (), {"rms_scaling": True}, (4, 6, 5)),
]


def identify(value):
    return None if isinstance(value, dict) else str(value)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), ONE, ids=identify)
def test_one_input(name, args, kwargs, shape):
    ours, theirs = pair(name, args, kwargs, [shape])
    compare(ours, theirs, arrays(shape), listed=False)
    assert ours.compute_output_shape(shape) == tuple(theirs.compute_output_shape(shape))
    unknown = (None, *shape[1:])
    assert ours.compute_output_shape(unknown) == tuple(theirs.compute_output_shape(unknown))
    assert ours.supports_masking == theirs.supports_masking


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_average_with_a_mask(data_format):
    ours, theirs = pair("GlobalAveragePooling1D", (data_format,), {}, [(4, 6, 5)])
    compare(ours, theirs, arrays((4, 6, 5) if data_format == "channels_last" else (4, 5, 6)), MASKS[:1], listed=False)


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_average_of_a_row_masked_whole():
    x = arrays((4, 6, 5))[0]
    expected = keras.layers.GlobalAveragePooling1D()(x, mask=torch.tensor(MASKS[1])).numpy()
    np.testing.assert_allclose(layers.GlobalAveragePooling1D()(x, mask=MASKS[1]), expected, rtol=1e-5)
    assert np.isnan(expected[2]).all()


# Not where the mask's steps are another axis.
MASKABLE = [(n, a, s) for n, a, k, s in ONE if len(s) == 3 and (n, a[:1]) != ("GlobalAveragePooling1D", FIRST)]


@pytest.mark.parametrize(("name", "args", "shape"), MASKABLE, ids=identify)
def test_what_becomes_of_a_mask(name, args, shape):
    """The same mask comes out; and where it ends, both warn."""
    ours, theirs = pair(name, args, {}, [shape])
    x, mask = arrays(shape)[0], MASKS[0]
    found = []
    for layer, value in ((ours, x.copy()), (theirs, torch.tensor(x))):
        if layer is ours:
            layers.set_mask(value, mask)
        else:
            keras.src.backend.set_keras_mask(value, torch.tensor(mask))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            y = layer(value)
        left = layers.get_mask(y) if layer is ours else keras.src.backend.get_keras_mask(y)
        warned = any("does not support masking" in str(w.message) for w in caught)
        found.append((warned, None if left is None else np.asarray(left).tolist()))
    assert found[0] == found[1]


SHAPES = [[(4, 6, 5)] * 2, [(4, 6, 5)] * 3, [(4, 6, 5)], [(4, 6, 1), (4, 1, 5)], [(4, 5), (4, 6, 5)]]


NAMES = ["Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract"]


@pytest.mark.parametrize(
    ("name", "shapes"), [(n, s) for n in NAMES for s in SHAPES if n != "Subtract" or len(s) == 2], ids=str
)
def test_elementwise(name, shapes):
    ours, theirs = pair(name, (), {}, shapes, listed=True)
    compare(ours, theirs, arrays(*shapes))
    for unknown in (shapes, [(None, *shape[1:]) for shape in shapes], [(None, None, *s[2:]) for s in shapes]):
        if min(map(len, shapes)) > 2:
            assert ours.compute_output_shape(unknown) == tuple(theirs.compute_output_shape(unknown))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_elementwise_with_masks(name, count):
    shapes = [(4, 6, 5)] * (2 if name == "Subtract" else 3)
    ours, theirs = pair(name, (), {}, shapes)
    compare(ours, theirs, arrays(*shapes), MASKS[:count][: len(shapes)])


@pytest.mark.parametrize("masked", [0, 1, 2])
@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_concatenate(axis, masked):
    shapes = [(4, 6, 5)] * 2 if axis == 1 else [(4, 6, 5), (4, 6, 2)]
    ours, theirs = pair("Concatenate", (axis,), {}, shapes)
    compare(ours, theirs, arrays(*shapes), MASKS[:masked])
    assert ours.compute_output_shape(shapes) == tuple(theirs.compute_output_shape(shapes))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        ([(4, 5), (4, 5)], 1), ([(4, 5), (4, 5)], -1), ([(4, 6, 5), (4, 5)], (2, 1)), ([(4, 6, 5), (4, 3, 5)], 2),
        ([(4, 6, 5), (4, 2, 6)], (1, 2)), ([(4, 2, 6, 5), (4, 3, 5)], (3, 2)),
    ],
)  # fmt: skip
def test_dot(shapes, axes, normalize):
    ours, theirs = pair("Dot", (axes, normalize), {}, shapes)
    compare(ours, theirs, arrays(*shapes))
    assert ours.compute_output_shape(shapes) == tuple(theirs.compute_output_shape(shapes))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "average", "maximum", "minimum", "concatenate", "dot"])
def test_functional_forms(name):
    xs = arrays((4, 5), (4, 5))
    assert_close(getattr(layers, name)(xs), np.asarray(getattr(keras.layers, name)(xs)), 1e-6)


@pytest.mark.parametrize("name", ["Add", "Average", "Concatenate", "Flatten", "GlobalAveragePooling1D", "Maximum"])
def test_integers(name):
    whole = RNG.integers(-9, 9, (4, 6, 5)).astype(np.int32)
    given = [whole, whole + 1] if name in ("Add", "Average", "Concatenate", "Maximum") else whole
    ours, theirs = getattr(layers, name)()(given), getattr(keras.layers, name)()(given)
    assert ours.dtype.name == keras.backend.standardize_dtype(theirs.dtype)
    np.testing.assert_array_equal(ours, theirs.numpy())


@pytest.mark.parametrize(
    ("name", "args", "shapes"),
    [
        ("Flatten", (), [(4, 6)]), ("LayerNormalization", (), [(4, 6)]), ("Add", (), [(4, 6)] * 2),
        ("GlobalAveragePooling1D", (), [(4, 6, 5)]), ("Concatenate", (), [(4, 6)] * 2),
    ],
)  # fmt: skip
def test_mixed_precision(name, args, shapes):
    ours, theirs = pair(name, args, {"dtype": "mixed_float16"}, shapes)
    xs = arrays(*shapes)
    one, two = (layer(xs if len(xs) > 1 else xs[0]) for layer in (ours, theirs))
    assert one.dtype == np.float16 and two.dtype == torch.float16
    assert_close(one.astype(np.float32), two.detach().float().numpy(), 3e-3)


@pytest.mark.parametrize(
    "layer",
    [
        layers.Flatten("channels_first"),
        layers.Reshape((-1, 3)),
        layers.RepeatVector(4),
        layers.Permute((2, 1)),
        layers.GlobalAveragePooling1D("channels_first", True),
        layers.GlobalMaxPooling1D(),
        layers.SpatialDropout1D(0.3, 7),
        layers.LayerNormalization([1, 2], 0.1, False, True, "ones", "zeros", "l2", "l1_l2", "non_neg", "max_norm"),
        *(getattr(layers, name)() for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")),
        layers.Concatenate(1),
        layers.Dot((1, 2), True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_configurations_are_read_on_both_sides(layer):
    config = serialization.serialize_keras_object(layer)
    theirs = keras.saving.deserialize_keras_object(config)
    assert type(theirs).__name__ == type(layer).__name__
    their_config = keras.saving.serialize_keras_object(theirs)
    ours = serialization.deserialize_keras_object(their_config)
    if type(layer) is layers.SpatialDropout1D:  # Keras writes the name of the dtype alone there
        assert list(theirs.get_config()) == list(layer.get_config())
        assert ours.get_config() == layer.get_config()
        return
    extra = {"activity_regularizer"}
    assert [k for k in theirs.get_config() if k not in extra] == [k for k in layer.get_config() if k not in extra]
    assert ours.get_config() == layer.get_config()


@pytest.mark.parametrize(
    ("name", "args", "shapes"),
    [
        ("Reshape", ((-2,),), None),
        ("Reshape", ((-1, -1),), None),
        ("Reshape", ((2, 2),), [(3, 5)]),
        ("Reshape", ((-1, 2),), [(3, 5)]),
        ("RepeatVector", (0,), None),
        ("RepeatVector", (1.0,), None),
        ("RepeatVector", (2,), [(3, 4, 5)]),
        ("Permute", ((1, 3),), None),
        ("Permute", ((2, 1),), [(3, 4)]),
        ("Flatten", ("last",), None),
        ("GlobalMaxPooling1D", (), [(3, 4)]),
        ("SpatialDropout1D", (2.0,), None),
        ("LayerNormalization", ("1",), None),
        ("Add", (), [(3, 4)]),
        ("Maximum", (), [(3, 4), (2, 4)]),
        ("Multiply", (), [(3, 4), (3, 2)]),
        ("Subtract", (), [(3, 4)] * 3),
        ("Concatenate", (), [(3, 4)]),
        ("Concatenate", (), [(3, 4, 5), (3, 2, 5)]),
        ("Concatenate", (), [(3, 4, 5), (3, 5)]),
        ("Dot", ("1",), None),
        ("Dot", ((1,),), None),
        ("Dot", ((1, 1.0),), None),
        ("Dot", (1,), [(3, 4), (3, 5)]),
        ("Dot", (1,), [(3, 4)] * 3),
    ],
)
def test_messages(name, args, shapes):
    found = []
    for library in (layers, keras.layers):
        with pytest.raises((ValueError, TypeError)) as error:
            layer = getattr(library, name)(*args, **({} if shapes is None else {"name": "same"}))
            xs = [np.ones(shape, np.float32) for shape in shapes]
            layer(xs if len(xs) > 1 else xs[0])
        found.append((type(error.value), " ".join(str(error.value).split())))
    assert found[0][0] is found[1][0]
    text = found[1][1].replace(" with name 'None'", "")  # an input without a name is not given one
    # Keras may set its own notes around the message.
    assert text.startswith(found[0][1].rstrip(".")) or found[0][1] in text


# -- regularizers and constraints ----------------------------------------------------------------------------

REGULARIZERS = [
    regularizers.L1(0.2), regularizers.L2(0.2), regularizers.L1L2(0.1, 0.3), regularizers.L1L2(),
    regularizers.OrthogonalRegularizer(0.2), regularizers.OrthogonalRegularizer(0.2, "columns"),
]  # fmt: skip
CONSTRAINTS = [
    constraints.MaxNorm(0.7), constraints.MaxNorm(0.7, [0, 1]), constraints.NonNeg(), constraints.UnitNorm(1),
    constraints.MinMaxNorm(0.5, 1.0, 0.7), constraints.MinMaxNorm(0.5, 1.0, axis=1),
]  # fmt: skip


def label(value):
    return "-".join([type(value).__name__, *map(str, value.get_config().values())])


@pytest.mark.parametrize("regularizer", REGULARIZERS, ids=label)
def test_regularizers(regularizer):
    theirs = keras.saving.deserialize_keras_object(regularizers.serialize(regularizer))
    w = arrays((4, 6))[0]
    tensor = torch.tensor(w, requires_grad=True)
    expected = theirs(tensor)
    assert_close(regularizer(w), expected.detach().numpy(), 1e-5)
    again = regularizers.get(keras.saving.serialize_keras_object(theirs))
    assert again.get_config() == pytest.approx(regularizer.get_config())
    if not expected.requires_grad:
        return  # a penalty of nothing
    program = graph.trace(regularizer, (Spec(w.shape),))
    forward, backward = program.linearize(0, program.inputs)
    _, residuals = forward(w)
    expected.backward()
    assert_close(backward(residuals, np.float32(1))[0], tensor.grad.numpy(), 1e-5)


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=label)
def test_constraints(constraint):
    theirs = keras.saving.deserialize_keras_object(constraints.serialize(constraint))
    w = arrays((4, 6))[0]
    assert_close(constraint(w), theirs(torch.tensor(w)).numpy(), 1e-6)
    assert constraints.get(keras.saving.serialize_keras_object(theirs)).get_config() == constraint.get_config()


@pytest.mark.parametrize("package", ["regularizers", "constraints"])
def test_names(package):
    """Every string and every public name that Keras knows is known here, for the same thing."""
    ours, theirs = {"regularizers": regularizers, "constraints": constraints}[package], getattr(keras, package)
    names = {key for key in dir(theirs) if not key.startswith("_")}
    assert names <= set(ours.__all__)
    source = __import__(f"keras.src.{package}", fromlist=["ALL_OBJECTS_DICT"])
    for name, cls in source.ALL_OBJECTS_DICT.items():
        assert type(ours.get(name)).__name__ == cls.__name__
    with pytest.raises(ValueError, match="Could not interpret") as one:
        ours.get("foo")
    with pytest.raises(ValueError, match="Could not interpret") as two:
        theirs.get("foo")
    assert str(one.value) == str(two.value)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_training_with_both(name, optimizer):
    """Three steps with a penalty and a constraint on each weight: losses and weights stay together."""
    found = []
    x, y = arrays((6, 5, 3), (6, 4))
    start = None
    for library, compiled in ((layers, optimizers), (keras.layers, keras.optimizers)):
        layer = getattr(library, name)(
            4,
            bias_initializer="random_normal",
            recurrent_initializer="glorot_uniform",  # the penalty of an orthogonal one has no slope
            kernel_regularizer="l2",
            recurrent_regularizer="orthogonal_regularizer",
            bias_regularizer="l1",
            activity_regularizer=None if name == "SimpleRNN" else "l2",  # Keras's SimpleRNN loses it
            kernel_constraint="max_norm",
            recurrent_constraint="unit_norm",
            bias_constraint="min_max_norm",
        )
        sequential = models.Sequential if library is layers else keras.Sequential
        model = sequential([library.Input((5, 3)), layer])
        start = model.get_weights() if start is None else start
        model.set_weights(start)
        model.compile(optimizer=getattr(compiled, optimizer)(0.05), loss="mse")
        losses = [model.train_on_batch(x, y) for _ in range(3)]
        found.append(([np.asarray(loss) for loss in losses], [np.asarray(w) for w in model.get_weights()]))
    (losses, weights), (their_losses, their_weights) = found
    assert_close(losses, their_losses, 1e-5, "losses")
    for one, two in zip(weights, their_weights, strict=True):
        assert_close(one, two, 1e-4, "weights")


def test_a_model_of_these_layers_in_training():
    """A mask from the embedding, through the recurrent layer and the normalization, into the average."""
    ids = RNG.integers(1, 9, (6, 7))
    ids[1, 3:] = ids[4, 1:] = 0
    y = RNG.standard_normal((6, 6)).astype(np.float32)
    found, start = [], None
    for library, sgd in ((layers, optimizers.SGD(0.1)), (keras.layers, keras.optimizers.SGD(0.1))):
        model = (models.Sequential if library is layers else keras.Sequential)(
            [
                library.Input((None,), dtype="int32"),
                library.Embedding(9, 4, mask_zero=True),
                library.LSTM(5, return_sequences=True),
                library.LayerNormalization(gamma_regularizer="l2", beta_constraint="non_neg"),
                library.SpatialDropout1D(0.0),
                library.GlobalAveragePooling1D(),
                library.RepeatVector(2),
                library.Permute((2, 1)),
                library.Reshape((-1,)),
                library.Dense(6),
            ]
        )
        start = model.get_weights() if start is None else start
        model.set_weights(start)
        model.compile(optimizer=sgd, loss="mse")
        losses = [model.train_on_batch(ids, y) for _ in range(3)]
        found.append(([np.asarray(loss) for loss in losses], [np.asarray(w) for w in model.get_weights()]))
    (losses, weights), (their_losses, their_weights) = found
    assert_close(losses, their_losses, 1e-5, "losses")
    for one, two in zip(weights, their_weights, strict=True):
        assert_close(one, two, 1e-5, "weights")
