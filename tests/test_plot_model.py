"""`plot_model`: every layer is a box, every connection an arrow, and nothing lies upon anything else."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from numbarnn import Model, layers, models, utils


def translator():
    source, target = layers.Input((None,), name="source"), layers.Input((None,), name="target")
    _, h, c = layers.LSTM(8, return_state=True, name="encoder")(layers.Embedding(10, 4, name="read")(source))
    decoded = layers.LSTM(8, name="decoder")(layers.Embedding(10, 4, name="write")(target), initial_state=[h, c])
    return Model([source, target], layers.Dense(5, activation="softmax", name="head")(decoded))


def tangle(seed):
    """A graph with arrows across many levels."""
    rng = np.random.default_rng(seed)
    tensors = [layers.Input((2,), name=f"in_{i}") for i in range(3)]
    inputs, shared = list(tensors), layers.Dense(2, name="shared")
    for number in range(9):
        chosen = [tensors[i] for i in rng.choice(len(tensors), 3, replace=False)]
        tensors.append(layers.Add(name=f"add_{number}")([*chosen[:2], shared(chosen[2]) if number == 0 else chosen[2]]))
    return Model(inputs, tensors[-3:])


def again():
    """A layer that is used on what it gave itself, at once and two layers later."""
    x, shared = layers.Input((2,), name="x"), layers.Dense(2, name="shared")
    later = layers.Dense(2, name="after")(layers.Dense(2, name="next")(shared(shared(x))))
    return Model(x, layers.Dense(2, name="end")(shared(later)))


def parts(figure):
    (axes,) = figure.axes
    boxes = [p for p in axes.patches if isinstance(p, FancyBboxPatch)]
    arrows = [p for p in axes.patches if isinstance(p, FancyArrowPatch)]
    texts = [t.get_text() for t in axes.texts]
    labels, names = texts[: len(texts) - len(boxes)], texts[len(texts) - len(boxes) :]
    return dict(zip(names, boxes, strict=True)), arrows, labels


def along(arrow):
    """Points on an arrow, which is made of cubic Bezier curves."""
    vertices = arrow._path_original.vertices
    t = np.linspace(0, 1, 40)[:, None]
    weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
    curves = [vertices[i : i + 4] for i in range(0, len(vertices) - 1, 3)]
    return np.concatenate([sum(w * p for w, p in zip(weights, curve, strict=True)) for curve in curves])


def extent(box):
    x, y = box.get_x(), box.get_y()
    return x, y, x + box.get_width(), y + box.get_height()


@pytest.mark.parametrize("rankdir", ["TB", "LR"])
def test_boxes_and_arrows(rankdir):
    figure = utils.plot_model(translator(), to_file=None, rankdir=rankdir)
    assert isinstance(figure, Figure)
    boxes, arrows, labels = parts(figure)
    assert set(boxes) == {
        "source: InputLayer", "target: InputLayer", "read: Embedding", "write: Embedding", "encoder: LSTM",
        "decoder: LSTM", "head: Dense",
    }  # fmt: skip
    assert len(arrows) == 7 and labels == ["1", "2"]
    axis = 0 if rankdir == "LR" else 1
    order = [boxes[name] for name in ("source: InputLayer", "read: Embedding", "encoder: LSTM", "decoder: LSTM")]
    for one, two in itertools.pairwise(order):
        if rankdir == "LR":
            assert extent(one)[2] < extent(two)[0]
        else:
            assert extent(one)[1] > extent(two)[3]
    # the arrow between the last two begins and ends at their edges
    one, two = extent(boxes["decoder: LSTM"]), extent(boxes["head: Dense"])
    start, end = along(arrows[-1])[[0, -1]]
    assert start[axis] == pytest.approx(one[2] if rankdir == "LR" else one[1])
    assert end[axis] == pytest.approx(two[0] if rankdir == "LR" else two[3])


@pytest.mark.parametrize("seed", range(6))
def test_nothing_lies_upon_anything_else(seed):
    model = tangle(seed)
    figure = utils.plot_model(model, to_file=None, show_shapes=True)
    boxes, arrows, _ = parts(figure)
    assert len(boxes) == len(model.layers)
    connections = {(i, c) for i, row in enumerate(model._rows()) for c in row.connections}
    assert len(arrows) == len(connections)
    for one, two in itertools.combinations(map(extent, boxes.values()), 2):
        assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]
    (axes,) = figure.axes
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for box in map(extent, boxes.values()):
        assert left < box[0] and box[2] < right and low < box[1] and box[3] < high
    for arrow in arrows:
        points = along(arrow)
        assert (left <= points[:, 0]).all() and (points[:, 0] <= right).all()
        assert np.all(np.diff(points[:, 1]) <= 1e-9)  # from above to below
        for box in map(extent, boxes.values()):
            inside = (points > np.add(box[:2], 1e-6)).all(1) & (points < np.subtract(box[2:], 1e-6)).all(1)
            assert not inside.any()


@pytest.mark.parametrize("rankdir", ["TB", "LR"])
def test_arrows_come_back_to_a_layer_that_is_used_again(rankdir):
    boxes, arrows, _ = parts(utils.plot_model(again(), to_file=None, rankdir=rankdir))
    boxes = {name.split(":")[0]: np.reshape(extent(box), (2, 2)) for name, box in boxes.items()}
    ends = set()
    for arrow in arrows:
        points = along(arrow)
        touched = [
            next(n for n, box in boxes.items() if (p > box[0] - 1e-6).all() and (p < box[1] + 1e-6).all())
            for p in points[[0, -1]]
        ]
        ends.add(tuple(touched))
        for box in boxes.values():
            assert not ((points > box[0] + 1e-6) & (points < box[1] - 1e-6)).all(1).any()
    chain = [("x", "shared"), ("shared", "next"), ("next", "after"), ("shared", "end")]
    assert ends == {*chain, ("shared", "shared"), ("after", "shared")} and len(arrows) == 6


def test_what_is_written_into_the_boxes():
    model = translator()
    model.get_layer("read").trainable = False
    shown = {"show_shapes": True, "show_dtype": True, "show_layer_activations": True, "show_trainable": True}
    names, _, _ = parts(utils.plot_model(model, to_file=None, show_layer_names=False, **shown))
    assert "InputLayer\n[(None, None)]\nfloat32" in names
    assert "Embedding\n(None, None, 4)\nfloat32\nnot trainable" in names
    assert "LSTM\ntanh\n[(None, 8), (None, 8), (None, 8)]\nfloat32\ntrainable" in names
    assert "Dense\nsoftmax\n(None, 5)\nfloat32\ntrainable" in names
    x = layers.Input((3,))
    names, arrows, _ = parts(utils.plot_model(Model(x, x * 2.0 + x), to_file=None, show_trainable=True))
    assert list(names)[1:] == ["multiply: Operation", "add: Operation"] and len(arrows) == 3


def test_chains_and_files(tmp_path):
    model = models.Sequential([layers.Embedding(10, 4), layers.LSTM(3), layers.Dense(2)])
    names, arrows, _ = parts(utils.plot_model(model, tmp_path / "model.png", dpi=50))
    assert list(names) == ["embedding: Embedding", "lstm: LSTM", "dense: Dense"] and len(arrows) == 2
    picture = imread(tmp_path / "model.png")
    assert picture.ndim == 3 and picture[..., 0].min() < 0.5 < picture[..., 0].max()
    nested = Model(model.inputs, layers.Dense(1)(model(model.inputs[0])))
    assert "sequential: Sequential" in parts(utils.plot_model(nested, str(tmp_path / "nested.svg")))[0]
    assert (tmp_path / "nested.svg").read_text().count("<path") > 4


def test_what_cannot_be_drawn():
    class Own(models.Model):
        def __init__(self):
            super().__init__()
            self.head = layers.Dense(1)

        def call(self, x):
            return self.head(x)

    own = Own()
    own(np.ones((1, 2)))
    with pytest.raises(ValueError, match="known to its `call` only"):
        utils.plot_model(own, to_file=None)
    with pytest.raises(ValueError, match="has not been built"):
        utils.plot_model(models.Sequential([layers.Dense(1)]), to_file=None)
    with pytest.raises(ValueError, match="rankdir='XY'"):
        utils.plot_model(translator(), to_file=None, rankdir="XY")
