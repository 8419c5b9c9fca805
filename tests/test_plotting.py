"""What the pictures hold: the numbers that were given, at their places, with names and units."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from recurrent import MASK, B, F, T, X

from numbarnn import Sequential, callbacks, layers, ops, plotting


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def traces():
    model = Sequential(
        [
            layers.Input((T, F)),
            layers.Bidirectional(layers.LSTM(5, return_sequences=True), name="both"),
            layers.SimpleRNN(4, return_sequences=True, name="plain"),
            layers.GRU(3, name="reader"),
        ]
    )
    x = X.copy()
    layers.set_mask(x, MASK)
    return model.trace(x, output=0)


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def line(axes, label):
    return next(found for found in axes.lines if found.get_label() == label)


# ---------------------------------------------------------------------------------------------------------------
# all of them


def test_every_function_draws_into_given_axes_or_new_ones_and_shows_nothing(traces, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("shown"))
    draw = [
        lambda **given: plotting.plot_history({"loss": [2.0, 1.0]}, **given),
        lambda **given: plotting.plot_gates(traces["reader"], **given),
        lambda **given: plotting.plot_gradient_norms(traces, **given),
        lambda **given: plotting.plot_recurrent_spectrum(np.eye(3), **given),
        lambda **given: plotting.plot_predictions([1.0, 2.0], [2.0], **given),
    ]
    for function in draw:
        before = dict(plt.rcParams)
        axes = function()
        assert isinstance(axes, Axes) and plt.get_fignums() == [axes.figure.number]
        assert axes.get_xlabel() and (axes.get_ylabel() or axes.get_yticklabels())
        assert dict(plt.rcParams) == before
        plt.close("all")
        _, (left, right) = plt.subplots(1, 2)
        plt.sca(left)
        assert function(ax=right) is right
        assert len(plt.get_fignums()) == 1 and plt.gca() is left and not left.has_data()
        right.figure.canvas.draw()
        plt.close("all")
        with pytest.raises(TypeError, match="`ax` must be an Axes"):
            function(ax="there")


# ---------------------------------------------------------------------------------------------------------------
# one by one


def test_plot_history():
    values = {"loss": [3.0, 2.0, 1.0], "val_loss": [3.5, 2.5, 2.75], "accuracy": [0.1, 0.2, 0.3]}
    history = callbacks.History()
    history.history, history.epoch = values, [4, 5, 6]
    axes = plotting.plot_history(history)
    assert line(axes, "training").get_xydata().tolist() == [[5, 3], [6, 2], [7, 1]]
    assert line(axes, "validation").get_ydata().tolist() == values["val_loss"]
    assert line(axes, "best: 2.5 in epoch 6").get_xydata().tolist() == [[6, 2.5]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "loss")
    axes = plotting.plot_history(values, ["accuracy", "loss"])
    assert texts(axes)[:2] == ["accuracy, training", "loss, training"]
    assert line(axes, "loss, training").get_xdata().tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="`metrics` must be among .* Received: 'f1'"):
        plotting.plot_history(values, "f1")
    with pytest.raises(TypeError, match="`history` must be"):
        plotting.plot_history([1, 2])


def test_plot_gates(traces):
    backward = traces["both"].backward
    axes = plotting.plot_gates(backward, row=1)
    meshes = [found for found in axes.collections if found.get_array() is not None]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["input", "forget", "candidate", "output"]
    for mesh, gate in zip(meshes, backward.gates.values(), strict=True):
        expected = gate[1, ::-1].T  # the layer goes backwards, time goes to the right
        shown = np.ma.filled(np.ma.masked_invalid(mesh.get_array()), np.nan)
        np.testing.assert_allclose(shown.reshape(expected.shape), expected, rtol=1e-6)
    assert [mesh.get_clim() for mesh in meshes] == [(0, 1), (0, 1), (-1, 1), (0, 1)]
    assert [mesh.cmap.name for mesh in meshes] == ["Blues", "Blues", "BrBG", "Blues"]
    assert texts(axes) == ["masked"]
    assert "row 1" in axes.get_title() and backward.name in axes.get_title()
    grey = [p.get_x() + 0.5 for p in axes.patches if p.get_facecolor() == to_rgba("0.82")]
    assert grey == np.flatnonzero(~MASK[1]).tolist()

    axes = plotting.plot_gates(traces["both"].forward, ["state 1", "forget"])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["state 1", "forget"]
    assert [label.get_text() for label in plotting.plot_gates(traces["plain"]).get_yticklabels()] == ["outputs"]


def test_plot_gates_gives_all_with_both_signs_one_scale():
    layer = layers.RNN(layers.LSTMCell(3, activation="linear", kernel_initializer="ones"))
    trace = layer.trace(20 * np.abs(X))
    axes = plotting.plot_gates(trace, ["candidate", "state 1"])
    largest = max(np.abs(trace.gates["candidate"][0]).max(), np.abs(trace.states[1][0]).max())
    meshes = [found for found in axes.collections if found.get_array() is not None]
    for mesh in meshes:
        np.testing.assert_allclose(mesh.get_clim(), (-largest, largest), rtol=1e-6)


@pytest.mark.parametrize("layout", [None, "tight", "constrained"])
def test_the_colour_bars_of_plot_gates_do_not_lie_upon_one_another(layout, traces):
    figure, grid = plt.subplots(2, 2, figsize=(12, 8), layout=layout)
    for axes in grid.flat:
        plotting.plot_gates(traces["reader"], ax=axes)
    figure.canvas.draw()
    bars = [axes.get_tightbbox() for axes in figure.axes if axes not in grid]
    assert len(bars) == 8
    for number, bar in enumerate(bars):
        assert not any(bar.overlaps(other) for other in bars[:number])


def test_plot_gates_refuses(traces):
    with pytest.raises(TypeError, match=r"choose trace.forward or trace.backward"):
        plotting.plot_gates(traces["both"])
    with pytest.raises(TypeError, match=r"choose trace\['both'\] or trace\['plain'\]"):
        plotting.plot_gates(traces)
    with pytest.raises(TypeError, match="Received: ndarray"):
        plotting.plot_gates(X)
    with pytest.raises(ValueError, match="`gates` must be among .*'update'.* Received: 'forget'"):
        plotting.plot_gates(traces["reader"], "forget")
    with pytest.raises(ValueError, match=f"one of the {B} rows"):
        plotting.plot_gates(traces["reader"], row=B)


def test_plot_gradient_norms(traces):
    axes = plotting.plot_gradient_norms(traces)
    names = ["both, forward, h", "both, forward, c", "both, backward, h", "both, backward, c", "plain", "reader"]
    assert texts(axes) == names
    assert axes.get_yscale() == "log"
    gradient = traces["both"].backward.state_gradients[0][:, ::-1]
    norms = np.linalg.norm(gradient, axis=2)
    shown = line(axes, "both, backward, h")
    for t, value in zip(shown.get_xdata()[::-1], shown.get_ydata(), strict=True):
        t = T - 1 - t
        column = norms[:, t][np.isfinite(norms[:, t]) & (norms[:, t] > 0)]
        np.testing.assert_allclose(value, np.median(column), rtol=1e-6)
    model = Sequential([layers.GRU(3, name="reader", input_shape=(T, F))])
    with pytest.raises(ValueError, match="The trace of layer 'reader' has no gradients. Give `model.trace` targets"):
        plotting.plot_gradient_norms(model.trace(X))


def test_plot_recurrent_spectrum():
    turn = np.array([[0.0, -2.0], [2.0, 0.0]])
    axes = plotting.plot_recurrent_spectrum(np.concatenate([turn, 0.5 * np.eye(2)], axis=1))
    first, second = (found.get_offsets() for found in axes.collections)
    np.testing.assert_allclose(sorted(np.asarray(first).tolist()), [[0, -2], [0, 2]])
    assert np.asarray(second).tolist() == [[0.5, 0], [0.5, 0]]
    assert texts(axes) == ["unit circle", "block 0: radius 2.00", "block 1: radius 0.50"]
    np.testing.assert_allclose(np.hypot(*axes.lines[0].get_data()), 1)
    assert axes.get_aspect() == 1

    layer = layers.LSTM(4, name="it")
    layer(X)
    axes = plotting.plot_recurrent_spectrum(layer)
    values = np.linalg.eigvals(layer.cell.recurrent_kernel.numpy()[:, 4:8])
    np.testing.assert_allclose(axes.collections[1].get_offsets()[:, 0], values.real, atol=1e-6)
    assert [text.split(":")[0] for text in texts(axes)[1:]] == ["input", "forget", "candidate", "output"]

    class Own(layers.Layer):
        state_size = 3

        def build(self, input_shape):
            self.recurrent_kernel = self.add_weight(shape=(3, 3))

        def call(self, inputs, states):
            out = ops.tanh(states[0] @ self.recurrent_kernel + inputs)
            return out, [out]

    own = layers.RNN(Own())
    own(X)
    assert len(plotting.plot_recurrent_spectrum(own).collections) == 1


def test_plot_recurrent_spectrum_refuses():
    with pytest.raises(ValueError, match="has no weights yet"):
        plotting.plot_recurrent_spectrum(layers.GRU(3))
    with pytest.raises(TypeError, match="layer.forward_layer or layer.backward_layer"):
        plotting.plot_recurrent_spectrum(layers.Bidirectional(layers.GRU(3)))
    with pytest.raises(TypeError, match="has several cells"):
        plotting.plot_recurrent_spectrum(layers.RNN([layers.GRUCell(3), layers.GRUCell(3)]))
    dense = layers.Dense(3)
    dense(X)
    with pytest.raises(TypeError, match="Received: Dense"):
        plotting.plot_recurrent_spectrum(dense)
    with pytest.raises(ValueError, match=r"Received shape \(3, 4\)"):
        plotting.plot_recurrent_spectrum(np.ones((3, 4)))


def test_plot_predictions():
    series = np.arange(10.0)
    series[2] = np.nan
    given = {"naive": [7.0, 7.0, 7.0], "model": np.arange(8.0, 12.0)[:, None]}
    axes = plotting.plot_predictions(series, given, start={"model": 8}, ylabel="CO2 (ppm)")
    np.testing.assert_array_equal(line(axes, "observed").get_ydata(), series)
    assert line(axes, "naive").get_xydata().tolist() == [[7, 7], [8, 7], [9, 7]]
    assert line(axes, "model").get_xydata().tolist() == [[8, 8], [9, 9], [10, 10], [11, 11]]
    assert axes.get_ylabel() == "CO2 (ppm)" and texts(axes) == ["observed", "naive", "model"]
    years = np.arange("2000", "2012", dtype="datetime64[Y]")
    axes = plotting.plot_predictions(series, [1.0, 2.0], time=years, start=10, label="ring widths")
    assert line(axes, "predicted").get_xdata().tolist() == years[10:].tolist()
    assert texts(axes)[0] == "ring widths"


def test_plot_predictions_refuses():
    with pytest.raises(ValueError, match=r"`series` must be numbers along one axis. Received: shape \(2, 3\)"):
        plotting.plot_predictions(np.ones((2, 3)), [1.0])
    with pytest.raises(ValueError, match=r"The 3 values of predictions\['a'\], from place -1 on, do not fit"):
        plotting.plot_predictions([1.0, 2.0], {"a": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="do not fit into the 4 places"):
        plotting.plot_predictions([1.0, 2.0], {"a": [1.0, 2.0, 3.0]}, start=2, time=range(4))
    with pytest.raises(ValueError, match="`time` must have one axis and a place for each of the 2 points"):
        plotting.plot_predictions([1.0, 2.0], [1.0], time=[1])
