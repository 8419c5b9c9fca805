"""The layer base: weights, tracking, names, types, masks, training, shapes, configuration."""

import concurrent.futures
import copy
import gc
import pickle
import threading
import time
import warnings

import numpy as np
import pytest

from numbarnn import backend, graph, initializers, layers, ops, regularizers
from numbarnn import random as nb_random
from numbarnn.graph import Spec, Tensor
from numbarnn.layers import InputSpec, Layer, get_mask, set_mask
from numbarnn.layers import base as layers_base
from numbarnn.layers import masks as layers_masks
from numbarnn.random import SeedGenerator
from numbarnn.variable import Variable


@pytest.fixture(autouse=True)
def fresh_names():
    backend.clear_session()
    yield
    backend.set_floatx("float32")


class Scale(Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones", name="scale")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x):
        return x * self.scale


class Pair(Layer):
    """Two scales, one in a list; attributes set before super().__init__()."""

    def __init__(self, **kwargs):
        self.size = 2
        self.inner = [Scale(name="first"), {"second": (Scale(name="second"),)}]
        super().__init__(**kwargs)

    def call(self, x, training=None):
        return self.inner[1]["second"][0](self.inner[0](x))


X = np.arange(6, dtype=np.float32).reshape(2, 3)


# -- weights --------------------------------------------------------------------------------------------------------


def test_arrays_in_plain_arrays_out():
    layer = Scale()
    y = layer(X)
    assert type(y) is np.ndarray
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, X)
    assert layer.built


def test_a_scalar_comes_out_as_an_array():
    class Total(Layer):
        def call(self, x):
            return ops.sum(x)

    y = Total()(X)
    assert type(y) is np.ndarray
    assert y.shape == ()


def test_threads_have_calls_of_their_own():
    import threading

    class Slow(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Note()
            self.meet = threading.Barrier(2)

        def call(self, x, training=None):
            self.meet.wait(30)  # both are within their calls now
            self.inner(x)
            return x

    layers_ = [Slow(), Slow()]
    layers_[1].meet = layers_[0].meet
    threads = [
        threading.Thread(target=layer, args=(X,), kwargs={"training": flag})
        for layer, flag in zip(layers_, (True, False), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [layer.inner.seen for layer in layers_] == [[True], [False]]


def test_weights_order_and_trainable():
    layer = Pair()
    layer(X)
    names = [w.path for w in layer.weights]
    assert names == ["pair/first/scale", "pair/first/count", "pair/second/scale", "pair/second/count"]
    assert [w.name for w in layer.trainable_weights] == ["scale", "scale"]
    assert [w.name for w in layer.non_trainable_weights] == ["count", "count"]
    assert layer.count_params() == 8
    layer.trainable = False
    assert layer.trainable_weights == []
    assert layer.non_trainable_weights == layer.weights
    assert not layer.inner[0].trainable
    layer.trainable = True
    assert [w.name for w in layer.trainable_weights] == ["scale", "scale"]


def test_own_weights_come_before_those_of_layers_within():
    class Mixed(Layer):
        def __init__(self):
            super().__init__()
            self.inner = Scale()

        def build(self, input_shape):
            self.inner.build(input_shape)
            self.late = self.add_weight(shape=(1,), name="late", trainable=False)
            self.own = self.add_weight(shape=(1,), name="own")

        def call(self, x):
            return self.inner(x) + self.own

    layer = Mixed()
    layer(X)
    assert [w.path for w in layer.weights] == ["mixed/own", "mixed/late", "mixed/scale/scale", "mixed/scale/count"]


def test_a_frozen_layer_stays_frozen_when_built():
    layer = Scale(trainable=False)
    layer(X)
    assert layer.trainable_weights == []
    layer.trainable = True
    assert [w.name for w in layer.trainable_weights] == ["scale"]


def test_variables_in_attributes_lists_and_dicts_are_tracked():
    layer = Layer()
    layer.a = Variable(np.zeros(2), name="a")
    layer.b = [Variable(np.zeros(2), name="b"), {"c": Variable(np.zeros(2), name="c")}]
    layer.again = layer.a
    layer.generator = SeedGenerator(3)
    assert [v.name for v in layer.weights] == ["a", "b", "c"]
    assert [v.name for v in layer.variables] == ["a", "seed_generator_state", "b", "c"] or (
        [v.name for v in layer.variables] == ["a", "b", "c", "seed_generator_state"]
    )
    assert len(layer.non_trainable_variables) == 1
    old = layer.a
    layer.a = Variable(np.ones(2), name="d")
    assert old in [*layer.weights]  # still there as `again`
    del layer.again
    assert all(v is not old for v in layer.weights)
    layer.b.append(Scale())
    assert len(layer._flatten_layers()) == 2


def test_state_of_others_can_be_kept_out():
    layer = Layer()
    before = layer.structure_version
    layer._set_untracked("states", [Variable(np.zeros(2))])
    layer.states = [Variable(np.ones(2))]
    assert layer.weights == []
    assert layer.structure_version == before


def test_get_and_set_weights():
    layer = Scale(name="s")
    layer(X)
    values = layer.get_weights()
    values[0] += 1  # a copy
    np.testing.assert_array_equal(layer.scale.value, np.ones(3))
    layer.set_weights(values)
    np.testing.assert_array_equal(layer(X), 2 * X)
    with pytest.raises(
        ValueError,
        match=r"You called `set_weights\(weights\)` on layer 's' with a weight list of length 1, "
        r"but the layer was expecting 2 weights.",
    ):
        layer.set_weights(values[:1])
    with pytest.raises(
        ValueError, match=r"Layer s weight shape \(\) is not compatible with provided weight shape \(2,\)."
    ):
        layer.set_weights([np.zeros(3), np.zeros(2)])
    np.testing.assert_array_equal(layer.scale.value, 2 * np.ones(3))  # nothing was set


def test_count_params_needs_a_built_layer():
    with pytest.raises(
        ValueError, match="You tried to call `count_params` on layer 'scale', but the layer isn't built"
    ):
        Scale().count_params()


def test_add_weight_in_both_spellings():
    layer = Layer()
    keras3 = layer.add_weight((2, 3), "ones", "float64", name="k3", trainable=False, regularizer="l2")
    keras2 = layer.add_weight("k2", (2, 3), None, "ones", None, False)
    assert (keras3.name, keras3.shape, keras3.dtype, keras3.trainable) == ("k3", (2, 3), np.float64, False)
    assert isinstance(keras3.regularizer, regularizers.L2)
    assert (keras2.name, keras2.shape, keras2.dtype, keras2.trainable) == ("k2", (2, 3), np.float32, False)
    np.testing.assert_array_equal(keras2.value, np.ones((2, 3)))
    assert layer.add_weight().shape == ()
    assert layer.add_weight(shape=(), dtype="int32").value == 0
    assert layer.add_weight(shape=4).shape == (4,)
    with pytest.raises(ValueError, match="`shape` was passed both"):
        layer.add_weight((2,), shape=(2,))
    with pytest.raises(TypeError, match="at most 3 positional"):
        layer.add_weight((2,), "ones", None, True)
    with pytest.raises(ValueError, match="fully-defined"):
        layer.add_weight(shape=(None, 2))
    with pytest.raises(TypeError, match="unexpected keyword arguments.*foo"):
        layer.add_weight(shape=(2,), foo=1)
    with pytest.raises(ValueError, match="returned shape"):
        layer.add_weight(shape=(2,), initializer=lambda shape, dtype=None: np.zeros(3))


def test_no_state_after_build():
    layer = Scale()
    layer(X)
    for attempt in (lambda: layer.add_weight(shape=()), lambda: setattr(layer, "new", Scale())):
        with pytest.raises(ValueError, match="You cannot add new elements of state"):
            attempt()


def test_a_failed_build_leaves_nothing_behind():
    class Fails(Layer):
        fail = True

        def build(self, input_shape):
            self.w = self.add_weight(shape=(2,), name="w")
            if self.fail:
                raise OSError("no")

        def call(self, x):
            return x

    layer = Fails()
    with pytest.raises(OSError):
        layer(X)
    assert not layer.built
    layer.fail = False
    layer(X)
    assert len(layer.weights) == 1


def test_initial_weights_by_keyword():
    layer = Scale(weights=[np.full(3, 5.0), 7])
    np.testing.assert_array_equal(layer(X), 5 * X)


def test_super_init_forgotten():
    class Forgets(Layer):
        def __init__(self):
            self.x = 1

        def call(self, x):
            return x

    with pytest.raises(RuntimeError, match=r"you forgot to call `super\(\).__init__\(\)`"):
        Forgets()(X)


# -- names ------------------------------------------------------------------------------------------------------------


def test_names_as_keras_numbers_them():
    class SimpleRNNLike(Layer):
        pass

    assert [SimpleRNNLike().name for _ in range(3)] == ["simple_rnn_like", "simple_rnn_like_1", "simple_rnn_like_2"]
    assert layers.Dense(2).name == "dense"
    assert Layer(name="mine").name == "mine"
    backend.clear_session()
    assert layers.Dense(2).name == "dense"
    with pytest.raises(ValueError, match="must be a string"):
        Layer(name=3)
    with pytest.raises(ValueError, match="cannot contain character `/`"):
        Layer(name="a/b")


def test_bad_keywords():
    with pytest.raises(ValueError, match=r"Unrecognized keyword arguments passed to Dense: \{'foo': 1\}"):
        layers.Dense(2, foo=1)
    with pytest.raises(ValueError, match="Expected `trainable` to be a boolean"):
        Layer(trainable=1)


@pytest.mark.parametrize(
    ("keywords", "shape"),
    [
        ({"input_shape": (5, 10)}, (None, 5, 10)),
        ({"input_shape": (5,), "batch_size": 3}, (3, 5)),
        ({"batch_input_shape": (2, None, 3)}, (2, None, 3)),
        ({"input_dim": 4}, (None, 4)),
        ({"input_dim": 4, "input_length": 6}, (None, 6, 4)),
        ({}, None),
    ],
)
def test_declared_input_shapes(keywords, shape):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Scale(**keywords)._batch_input_shape == shape


# -- types ------------------------------------------------------------------------------------------------------------


def test_inputs_are_cast_to_the_layers_type():
    assert Scale()(X.astype(np.float64)).dtype == np.float32
    layer = Scale(dtype="float64")
    assert layer(X).dtype == np.float64
    assert (layer.dtype, layer.compute_dtype, layer.variable_dtype) == ("float64",) * 3
    assert Scale(autocast=False)(X.astype(np.float64)).dtype == np.float64
    backend.set_floatx("float64")
    assert Scale()(X).dtype == np.float64


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: layers.LSTM(2, **k),
        lambda **k: layers.GRU(2, **k),
        lambda **k: layers.SimpleRNN(2, **k),
        lambda **k: layers.Bidirectional(layers.LSTM(2, **k), **k),
        lambda **k: layers.RNN(layers.LSTMCell(2, **k), **k),
        lambda **k: layers.TimeDistributed(layers.Dense(2, **k), **k),
        lambda **k: layers.BatchNormalization(**k),
        lambda **k: layers.LayerNormalization(**k),
        lambda **k: layers.Dropout(0.5, **k),
    ],
)
def test_one_float_type_throughout(make):
    """Of inputs of either type, by `floatx` and by `dtype`."""
    x = np.ones((2, 3, 4))
    for layer, dtype in ((make(), "float32"), (make(dtype="float64"), "float64")):
        for given in (x, x.astype("float32"), x.astype("float16")):
            assert layer(given).dtype == dtype
        assert {v.dtype.name for v in layer.weights} <= {dtype}
    backend.set_floatx("float64")
    layer = make()
    assert layer(x.astype("float32")).dtype == np.float64
    assert {v.dtype.name for v in layer.weights} <= {"float64"}
    assert layers.Input((3,)).dtype == np.float64


def test_without_autocast_all_arguments_come_as_they_are():
    class Look(Layer):
        def call(self, x, other=None):
            return x, other

    x = np.ones((2, 3))
    for kwargs, dtype in (({}, "float32"), ({"autocast": False}, "float64")):
        layer = Look(**kwargs)
        assert [a.dtype.name for a in layer({"a": x}, other=x)[0].values()] == [dtype]
        assert layer(x, other=[x])[1][0].dtype == dtype


def test_integers_are_left_alone():
    seen = []

    class Look(Layer):
        def call(self, x):
            seen.append(x.dtype)
            return x

    Look()(np.array([1, 2]))
    assert seen == [np.int64]


def test_mixed_float16_computes_in_float32():
    seen = []

    class Look(Scale):
        def call(self, x):
            seen.append(x.dtype)
            return super().call(x)

    layer = Look(dtype="mixed_float16")
    y = layer(X)
    assert (layer.compute_dtype, layer.variable_dtype) == ("float16", "float32")
    assert y.dtype == np.float16
    assert seen == [np.float32]
    assert layer.scale.dtype == np.float32
    assert layer(layers.Input((3,))).dtype == np.float16
    assert Scale(dtype="float16")(X).dtype == np.float16


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "foo", 3.5])
def test_bad_types(dtype):
    with pytest.raises(ValueError, match="Cannot (convert|interpret)"):
        Layer(dtype=dtype)


def test_policies():
    policy = backend.DTypePolicy("mixed_float16")
    assert Layer(dtype=policy).dtype_policy == policy
    config = Layer(dtype=policy).get_config()["dtype"]
    assert config == {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": "mixed_float16"},
        "registered_name": None,
    }
    assert Layer(dtype=config).dtype_policy == policy
    backend.set_dtype_policy("float64")
    try:
        assert Layer().dtype == "float64"
    finally:
        backend.set_dtype_policy(None)
    assert Layer().dtype == "float32"


def test_only_tensors_by_position():
    with pytest.raises(ValueError, match="Only input tensors may be passed as positional arguments.*: 3"):
        Scale()(3)
    with pytest.raises(ValueError, match="Only input tensors"):
        Scale()([1.0, 2.0])
    with pytest.raises(TypeError, match="missing"):
        Scale()()


def test_array_likes_are_taken():
    class Like:
        def __array__(self, dtype=None, copy=None):
            return X

    np.testing.assert_array_equal(Scale()(Like()), X)


# -- input specs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputSpec(ndim=3), r"expected ndim=3, found ndim=2. Full shape received: \(2, 3\)"),
        (InputSpec(min_ndim=3), r"expected min_ndim=3, found ndim=2. Full shape received: \(2, 3\)"),
        (InputSpec(max_ndim=1), "expected max_ndim=1, found ndim=2"),
        (
            InputSpec(axes={-1: 4}),
            r"expected axis -1 of input shape to have value 4, but received input with shape \(2, 3\)",
        ),
        (InputSpec(shape=(None, 4)), r"expected shape=\(None, 4\), found shape=\(2, 3\)"),
        (InputSpec(dtype="int32"), "expected dtype=int32, found dtype=float32"),
    ],
)
def test_input_specs(spec, message):
    layer = Scale(name="s")
    layer.input_spec = spec
    head = "Input 0 of layer 's' is incompatible with the layer: "
    with pytest.raises(ValueError, match=head + message):
        layer(X)
    symbol = layers.Input((3,), batch_size=2, dtype="float32")
    with pytest.raises(ValueError, match=head):
        layer(symbol)


def test_input_specs_that_fit():
    layer = Scale()
    layer.input_spec = InputSpec(shape=(None, 3), axes={1: 3})
    layer(X)
    layer = Scale()
    layer.input_spec = InputSpec(shape=(2, 3, 1), allow_last_axis_squeeze=True)
    layer(X)
    with pytest.raises(ValueError, match="Axis 2 is greater"):
        InputSpec(ndim=2, axes={2: 1})
    with pytest.raises(TypeError, match="dict with integer keys"):
        InputSpec(axes=[1])
    again = InputSpec.from_config(InputSpec(shape=(None, 2), axes={-1: 2}).get_config())
    assert again.shape == (None, 2)
    assert again.axes == {-1: 2}
    assert repr(InputSpec(ndim=2)) == "InputSpec(ndim=2)"


def test_specs_of_several_inputs():
    class Add(Layer):
        def call(self, inputs):
            a, b = inputs.values() if isinstance(inputs, dict) else inputs
            return a + b

    layer = Add(name="add")
    layer.input_spec = [InputSpec(ndim=2, name="a"), InputSpec(ndim=2, name="b")]
    np.testing.assert_array_equal(layer([X, X]), 2 * X)
    np.testing.assert_array_equal(layer({"a": X, "b": X}), 2 * X)
    with pytest.raises(ValueError, match=r'Layer "add" expects 2 input\(s\), but it received 1 input tensors'):
        layer([X])
    with pytest.raises(ValueError, match='Missing data for input "b"'):
        layer({"a": X})


# -- training ---------------------------------------------------------------------------------------------------------


class Note(Layer):
    def __init__(self, default=None, **kwargs):
        super().__init__(**kwargs)
        self.seen = []

    def call(self, x, training=None):
        self.seen.append(training)
        return x * 1


class NoteDefault(Note):
    def call(self, x, training="default"):
        self.seen.append(training)
        return x * 1


class Outer(Layer):
    def __init__(self, inner, **given):
        super().__init__()
        self.inner = inner
        self.given = given

    def call(self, x):
        return self.inner(x, **self.given)


def test_training_explicit_context_default():
    note = Note()
    note(X)
    note(X, training=True)
    note(X, True)
    Outer(note)(X)
    Outer(note)(X, training=True)  # Outer.call has no such parameter
    Outer(Outer(note))(X, training=True)
    Outer(note, training=False)(X, training=True)
    assert note.seen == [None, True, True, None, True, True, False]
    note = NoteDefault()
    note(X)
    Outer(note)(X, training=False)
    assert note.seen == ["default", False]


def test_training_of_a_sibling_does_not_leak():
    first, second = Note(), Note()

    class Both(Layer):
        def __init__(self):
            super().__init__()
            self.parts = [first, second]

        def call(self, x):
            return second(first(x, training=True))

    Both()(X, training=False)
    assert (first.seen, second.seen) == ([True], [False])


def test_an_error_in_call_leaves_the_context():
    class Fails(Layer):
        def call(self, x):
            raise OSError("no")

    with pytest.raises(OSError):
        Fails()(X, training=True)
    note = Note()
    note(X)
    assert note.seen == [None]


# -- masks ------------------------------------------------------------------------------------------------------------

MASK = np.array([[True, False, True], [True, True, False]])
SEQUENCE = np.ones((2, 3, 4), np.float32)


def masked():
    x = SEQUENCE.copy()
    set_mask(x, MASK)
    return x


def test_masks_are_of_one_array_alone():
    x = masked()
    assert get_mask(x) is MASK
    for other in (x[:], x.copy(), x + 0, x.view(), x.reshape(x.shape)):
        assert get_mask(other) is None
    set_mask(x, None)
    assert get_mask(x) is None
    set_mask(x, None)


def test_masks_go_with_their_array():
    count = len(layers_masks._masks)
    x = masked()
    key = id(x)
    assert len(layers_masks._masks) == count + 1
    del x
    gc.collect()
    assert key not in layers_masks._masks
    # A new array at the same place has no mask: identity is checked, not the address alone.
    for _ in range(100):
        y = masked()
        del y
        z = SEQUENCE.copy()
        assert get_mask(z) is None


def test_an_array_takes_no_symbolic_mask():
    with pytest.raises(TypeError, match="symbolic mask"):
        set_mask(SEQUENCE, layers.Input((3,)))


class Passes(Layer):
    def __init__(self, same=False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.same = same
        self.seen = []

    def call(self, x, mask=None):
        self.seen.append(mask)
        return x if self.same else x * 1


class Destroys(Layer):
    def __init__(self, same=False, **kwargs):
        super().__init__(**kwargs)
        self.same = same

    def call(self, x):
        return x if self.same else x * 1


def test_masks_travel_through_layers_that_support_them():
    layer = Passes()
    y = layer(masked())
    assert get_mask(y) is MASK
    assert layer.seen[0].base is MASK  # a view that cannot be written to
    other = ~MASK
    assert get_mask(layer(SEQUENCE, mask=other)) is other
    assert get_mask(layer(masked(), mask=other)) is other
    assert get_mask(layer(masked(), other)) is other
    assert get_mask(layer(SEQUENCE)) is None


def test_the_mask_survives_the_cast_of_the_input():
    x = np.ones((2, 3, 4))
    set_mask(x, MASK)
    layer = Passes()
    assert get_mask(layer(x)) is MASK
    assert layer.seen[0].base is MASK  # a view that cannot be written to


def test_a_layer_that_returns_its_input():
    x = masked()
    assert Passes(same=True)(x) is x
    other = ~MASK
    y = Passes(same=True)(x, mask=other)
    assert y is not x
    assert y.base is x
    assert get_mask(y) is other
    assert get_mask(x) is MASK


@pytest.mark.parametrize("same", [False, True])
def test_a_layer_without_support_warns_and_drops_the_mask(same):
    x = masked()
    layer = Destroys(same)
    with pytest.warns(
        UserWarning, match="Layer 'destroys' .* does not support masking and will therefore destroy the mask"
    ):
        y = layer(x)
    assert get_mask(y) is None
    assert get_mask(x) is MASK
    if same:
        assert np.shares_memory(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(SEQUENCE)


def test_supports_masking_follows_compute_mask():
    class Shortens(Layer):
        def compute_mask(self, inputs, previous_mask=None):
            return None if previous_mask is None else previous_mask[:, 1:]

        def call(self, x):
            return x[:, 1:]

    assert not Layer().supports_masking
    layer = Shortens()
    assert layer.supports_masking
    np.testing.assert_array_equal(get_mask(layer(masked())), MASK[:, 1:])


def test_masks_of_several_outputs():
    class Two(Layer):
        def compute_mask(self, inputs, previous_mask=None):
            return [previous_mask, None]

        def call(self, x):
            return x * 1, x[:, 0]

    first, second = Two()(masked())
    assert get_mask(first) is MASK
    assert get_mask(second) is None


def test_masks_of_outputs_in_a_dict():
    class Two(Layer):
        def compute_mask(self, inputs, previous_mask=None):
            return {"a": previous_mask, "z": None}

        def call(self, x):
            return {"z": x[:, 0], "a": x * 1}

    outputs = Two()(masked())
    assert get_mask(outputs["a"]) is MASK
    assert get_mask(outputs["z"]) is None


def test_masks_of_nested_inputs():
    seen = []

    class Nested(Layer):
        supports = True

        def call(self, inputs, mask=None):
            seen.append(mask)
            return inputs[0] + inputs[1]

    layer = Nested()
    layer.supports_masking = True
    layer.compute_mask = None  # must not be reached with no mask at all
    layer([SEQUENCE, SEQUENCE])
    assert seen == [None]
    layer = Nested()
    with pytest.warns(UserWarning, match="does not support masking"):
        layer([masked(), SEQUENCE])
    assert seen[1][0].base is MASK
    assert seen[1][1] is None


def test_masks_in_a_trace_are_nodes():
    keep, drop = Passes(same=True), Destroys(same=True)

    def run(x, mask):
        x.mask = mask
        y = keep(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z = drop(y)
        assert y.mask is mask
        assert z.mask is None
        return y, z, y.mask

    program = graph.trace(run, (Spec((2, 3, 4)), Spec((2, 3), "bool")))
    y, z, mask = program(SEQUENCE, MASK)
    np.testing.assert_array_equal(y, z)
    np.testing.assert_array_equal(mask, MASK)
    assert get_mask(y) is None  # programs never touch the table


# -- losses -----------------------------------------------------------------------------------------------------------


def test_losses():
    class Costs(Layer):
        def __init__(self):
            super().__init__(activity_regularizer=regularizers.L2(0.5))

        def build(self, input_shape):
            self.w = self.add_weight(shape=(3,), initializer="ones", regularizer="l2", name="w")
            self.frozen = self.add_weight(shape=(3,), initializer="ones", regularizer="l2", name="f", trainable=False)

        def call(self, x):
            self.add_loss(ops.sum(x))
            return x * self.w

    layer = Costs()
    for _ in range(2):  # a second call starts anew
        layer(X)
        np.testing.assert_allclose(layer.losses, [X.sum(), 0.5 * (X**2).sum() / 2, 0.01 * 3], rtol=1e-6)
    outer = Outer(layer)
    outer(X)
    assert len(outer.losses) == 3
    outer._clear_losses()
    assert len(outer.losses) == 1
    layer.trainable = False
    assert outer.losses == []


def test_losses_in_a_trace():
    class Costs(Layer):
        def call(self, x):
            self.add_loss(2 * ops.sum(x))
            return x * 1

    layer = Costs()

    def run(x):
        layer(x)
        return layer.losses[0]

    program = graph.trace(run, (Spec(X.shape),))
    layer._clear_losses()
    assert program(X) == 2 * X.sum()
    layer(layers.Input((3,)))  # finding out the shape is no call
    assert layer.losses == []


# -- symbols ----------------------------------------------------------------------------------------------------------


def test_a_trace_runs_through_the_layer():
    layer = Pair()
    program = graph.trace(lambda x: layer(x), (Spec(X.shape),))
    assert layer.inner[0].built  # weights are made, not traced
    np.testing.assert_array_equal(program(X), X)
    layer.inner[0].scale.assign([1, 2, 3])
    np.testing.assert_array_equal(program(X), X * [1, 2, 3])
    forward, backward = program.linearize(0, layer.trainable_weights)
    _, residuals = forward(X)
    gradients = backward(residuals, np.ones_like(X))
    np.testing.assert_allclose(gradients[0], X.sum(0))
    np.testing.assert_allclose(gradients[1], (X * [1, 2, 3]).sum(0))


def test_a_layer_called_on_an_array_inside_a_trace():
    layer = Scale()
    program = graph.trace(lambda: layer(X), ())
    layer.scale.assign([3, 3, 3])
    np.testing.assert_array_equal(program(), 3 * X)


def test_initial_values_are_not_traced():
    class Noisy(Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(3,), initializer=lambda shape, dtype=None: nb_random.normal(shape))

        def call(self, x):
            return x + self.w

    layer = Noisy()
    program = graph.trace(lambda x: layer(x), (Spec(X.shape),))
    np.testing.assert_array_equal(program(X), program(X))


def test_functional_calls_record_the_layer():
    layer = Pair()
    x = layers.Input((3,))
    y = layer(x)
    assert isinstance(y, Tensor)
    assert (y.shape, y.dtype) == ((None, 3), np.float32)
    assert y.node.operation is layer
    assert layer.input is x
    assert layer.output is y
    np.testing.assert_array_equal(graph.evaluate(y, x, X), X)
    layer(x)
    with pytest.raises(AttributeError, match="multiple inbound nodes"):
        _ = layer.output
    with pytest.raises(AttributeError, match="never been called on symbolic tensors"):
        _ = Scale().input


def test_output_shapes_by_running_on_symbols():
    class Cut(Layer):
        def call(self, inputs):
            return {"a": inputs["x"][:, 1:], "b": ops.sum(inputs["y"], axis=-1)}

    layer = Cut()
    shapes = layer.compute_output_shape({"x": (None, 5), "y": (2, 3, None)})
    assert shapes == {"a": (None, 4), "b": (2, 3)}
    assert Pair().compute_output_shape((None, 7)) == (None, 7)
    assert Pair().compute_output_shape(input_shape=(4, 7)) == (4, 7)


def test_compute_output_shape_of_a_subclass_is_believed():
    class Says(Layer):
        def compute_output_shape(self, input_shape):
            return [(None, 4), (2,)]

        def call(self, x):
            raise AssertionError("not called")

    outputs = Says()(layers.Input((3,)))
    assert [t.shape for t in outputs] == [(None, 4), (2,)]

    class Wrong(Says):
        def compute_output_shape(self, input_shape):
            return 3

    with pytest.raises(ValueError, match="cannot be interpreted as a shape"):
        Wrong()(layers.Input((3,)))


def test_build_with_a_shape_per_argument():
    class Two(Layer):
        def build(self, a_shape, b_shape):
            self.shapes = a_shape, b_shape

        def call(self, a, b):
            return a + b

    layer = Two()
    layer(X, b=X[:1])
    assert layer.shapes == ((2, 3), (1, 3))
    assert layer.get_build_config() == {"shapes_dict": {"a_shape": (2, 3), "b_shape": (1, 3)}}
    again = Two()
    again.build_from_config(layer.get_build_config())
    assert again.shapes == layer.shapes

    class Wrong(Layer):
        def build(self, a_shape, other):
            pass

        def call(self, a):
            return a

    with pytest.raises(ValueError, match="`build\\(\\)` argument `other`"):
        Wrong()(X)


def test_call_is_to_be_defined():
    with pytest.raises(NotImplementedError, match="Layer Layer does not have a `call"):
        Layer()(X)


# -- structure versions -----------------------------------------------------------------------------------------------


def test_structure_version():
    layer = Pair()
    layer(X)
    version, clock = layer.structure_version, layers_base.structure_clock()
    layer(X)
    layer.size = 2  # the same object
    assert (layer.structure_version, layers_base.structure_clock()) == (version, clock)
    layer.inner[0].factor = 3
    assert layer.structure_version > version
    assert layers_base.structure_clock() > clock
    version = layer.structure_version
    layer.trainable = False
    assert layer.structure_version > version


def test_what_call_sets_is_no_change_of_structure():
    class Counts(Layer):
        def call(self, x):
            self.last = x
            return x * 1

    layer = Counts()
    layer(X)
    version = layer.structure_version
    layer(X + 1)
    assert layer.structure_version == version
    np.testing.assert_array_equal(layer.last, X + 1)


# -- configuration ----------------------------------------------------------------------------------------------------


def test_get_config_of_the_base():
    config = Layer(name="n", trainable=False).get_config()
    assert list(config) == ["name", "trainable", "dtype"]
    again = Layer.from_config(config)
    assert (again.name, again.trainable, again.dtype) == ("n", False, "float32")


def test_get_config_from_the_constructor():
    class Auto(Layer):
        def __init__(self, units, *, rate=0.5, shape=(1, 2), **kwargs):
            super().__init__(**kwargs)
            self.units = units

    config = Auto(3, shape=(4, 5), name="a").get_config()
    assert (config["units"], config["shape"], config["name"]) == (3, (4, 5), "a")
    assert "rate" not in config
    assert Auto.from_config(config).units == 3
    with pytest.raises(NotImplementedError, match="Auto .*non-serializable.*units"):
        Auto(np.zeros(3)).get_config()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_have_weights_of_their_own(how):
    layer = layers.Dense(2, activation="tanh", name="d")
    layer(X)
    layer(layers.Input((3,)))
    twin = how(layer)
    np.testing.assert_array_equal(twin(X), layer(X))
    twin.kernel.assign(np.zeros((3, 2)))
    assert np.any(layer.kernel.value)
    assert twin.kernel is twin.weights[0]
    assert twin.kernel.path == "d/kernel"


def test_repr():
    assert repr(layers.Dense(2, name="d")) == "<Dense name=d, built=False>"


def test_default_initializers():
    layer = Layer()
    weight = layer.add_weight(shape=(50, 60))
    assert 0 < np.abs(weight.value).max() <= np.sqrt(6 / 110)
    assert isinstance(initializers.get("glorot_uniform"), initializers.GlorotUniform)


# -- threads and names ------------------------------------------------------------------------------------------------


def test_threads_that_call_a_new_layer_at_once_share_its_weights():
    class Slow(Layer):
        def build(self, input_shape):
            self.a = self.add_weight(shape=input_shape[-1:], name="a")
            time.sleep(0.02)
            self.b = self.add_weight(shape=input_shape[-1:], name="b")

        def call(self, x):
            return x * self.a + self.b

    layer, together = Slow(), threading.Barrier(4)

    def work(_):
        together.wait()
        return layer(X)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert len(layer.weights) == 2
    for result in results:
        np.testing.assert_array_equal(result, layer(X))


def test_self_may_have_another_name():
    class Named(Layer):
        def build(this, input_shape):  # noqa: N805
            this.w = this.add_weight(shape=input_shape[-1:], initializer="ones", name="w")

        def call(this, x, training=False):  # noqa: N805
            return x * this.w * (2 if training else 1)

    layer = Named()
    np.testing.assert_array_equal(layer(X, True), 2 * X)
    np.testing.assert_array_equal(layer(x=X), X)
    assert layer.get_build_config() == {"input_shape": X.shape}
    assert layer.compute_output_shape(X.shape) == X.shape


def test_masks_of_a_dict_stay_with_their_tensors_whatever_the_order_of_the_keys():
    seen = {}

    class Two(layers.Layer):
        def call(self, inputs):
            seen.update({key: layers.get_mask(x) is not None for key, x in inputs.items()})
            return inputs["b"]

    masked = layers.Masking()(layers.Input((4, 2)))
    with pytest.warns(UserWarning, match="destroy the mask"):
        Two()({"b": masked, "a": layers.Input((4, 2))})
    assert seen == {"a": False, "b": True}
