"""`plot_model`: a picture of a model's layers and what goes from one to the next."""

from __future__ import annotations

import re

__all__ = ["plot_model"]

# In inches.
_LINE, _CHARACTER, _PADDING = 0.2, 0.085, 0.14
_BETWEEN_LEVELS, _BETWEEN_BOXES, _LANE = 0.42, 0.35, 0.1


def plot_model(
    model,
    to_file="model.png",
    show_shapes=False,
    show_dtype=False,
    show_layer_names=True,
    rankdir="TB",
    dpi=200,
    show_layer_activations=False,
    show_trainable=False,
):
    """Draw the layers of a model as boxes, and what goes from one to the next as arrows.

    An arrow from a layer with several outputs carries the number of the output. Needs matplotlib.

    Parameters
    ----------
    model : Sequential or Functional
    to_file : path, optional
        Where to save the picture; matplotlib knows the format by the ending. None saves nothing.
    show_shapes, show_dtype, show_layer_names, show_layer_activations, show_trainable : bool
        What to write into the boxes besides the type of the layer; the shapes are those of the outputs.
    rankdir : {"TB", "LR"}
        From top to bottom, or from left to right.
    dpi : int
        Dots per inch in the file.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ValueError
        If the model is not built, or how its layers are connected is known to its `call` only.

    Examples
    --------
    >>> from numbarnn import layers, models, utils
    >>> model = models.Sequential([layers.Embedding(1000, 64), layers.LSTM(128), layers.Dense(10, name="head")])
    >>> figure = utils.plot_model(model, to_file=None, show_shapes=True)
    >>> figure.axes[0].texts[-1].get_text().splitlines()
    ['head: Dense', '(None, 10)']
    """
    if rankdir not in ("TB", "LR"):
        raise ValueError(f'`rankdir` must be "TB" or "LR". Received: rankdir={rankdir!r}')
    rows = model._rows()
    if not rows or not model.built:
        raise ValueError(
            f"Model '{model.name}' has not been built: call it on data, or `build(input_shape)`, before it is drawn."
        )
    if not model._is_connected:
        raise ValueError(
            f"How the layers of model '{model.name}' are connected is known to its `call` only. What can be drawn is a "
            "`Sequential`, or a `Model(inputs, outputs)`."
        )

    def text(row):
        layer, kind = row.layer, type(row.layer).__name__
        lines = [f"{layer.name}: {kind}" if show_layer_names else kind]
        if show_layer_activations and getattr(layer, "activation", None) is not None:
            lines.append(getattr(layer.activation, "__name__", type(layer.activation).__name__))
        if show_shapes:
            lines.append("?" if row.shape is None else str(row.shape))
        if show_dtype and hasattr(layer, "dtype"):
            lines.append(layer.dtype)
        if show_trainable and getattr(layer, "weights", ()):
            lines.append("trainable" if layer.trainable else "not trainable")
        return "\n".join(lines)

    edges = _edges(rows)
    figure = _draw([text(row) for row in rows], edges, rankdir == "LR")
    if to_file is not None:
        figure.savefig(to_file, dpi=dpi)
    return figure


def _edges(rows):
    """(number of the row it comes from, that where it goes, its label) of every connection."""
    numbers = {row.layer.name: i for i, row in enumerate(rows)}
    edges = []
    for i, row in enumerate(rows):
        for connection in row.connections:
            name, output = re.fullmatch(r"(.*)\[\d+\]\[(\d+)\]", connection).groups()
            several = isinstance(rows[numbers[name]].shape, list) and len(rows[numbers[name]].shape) > 1
            edges.append((numbers[name], i, output if several else ""))
    return list(dict.fromkeys(edges))


def _levels(count, edges):
    """How far from the start each box is: after all that it depends on, and inputs next to where they go.

    Only where an arrow comes back to a layer that is used again, its start lies below its end.
    """
    before, after = ([set() for _ in range(count)] for _ in range(2))
    for source, target, _ in edges:
        if source != target:
            before[target].add(source)
            after[source].add(target)
    level, rest = {}, list(range(count))
    while rest:
        i = next((i for i in rest if before[i] <= level.keys()), rest[0])
        rest.remove(i)
        level[i] = max((level[j] + 1 for j in before[i] | after[i] if j in level), default=0)
    for i in range(count):
        if not before[i] and after[i]:
            level[i] = min(level[target] for target in after[i]) - 1
    return level


def _arrange(count, edges, sizes):
    """Where the boxes are across the levels, and the points that long arrows pass on the way.

    Returns
    -------
    levels : list of list of int
        From `count` on, numbers of the points that arrows pass.
    across : dict
        Number -> middle of its place.
    routes : list of list of int
        For each edge the boxes and points that it passes, from above to below.
    """
    level = _levels(count, edges)
    levels = [[] for _ in range(max(level.values()) + 1)]
    for i in range(count):
        levels[level[i]].append(i)
    routes, neighbours, widths = [], {i: [] for i in range(count)}, dict(enumerate(sizes))
    for source, target, _ in edges:
        source, target = sorted((source, target), key=level.get)
        route = [source]
        for between in range(level[source] + 1, level[target]):
            point = len(widths)
            widths[point], neighbours[point] = _LANE, []
            levels[between].append(point)
            route.append(point)
        route.append(target)
        routes.append(route)
        for one, two in zip(route, route[1:], strict=False):
            neighbours[one].append(two)
            neighbours[two].append(one)
    across = {}

    def place(members):
        start = -(sum(widths[i] + _BETWEEN_BOXES for i in members) - _BETWEEN_BOXES) / 2
        for i in members:
            across[i] = start + widths[i] / 2
            start += widths[i] + _BETWEEN_BOXES

    for members in levels:
        place(members)
    for sweep in (levels, levels[::-1]) * 4:
        for members in sweep:  # each to where its neighbours are, on the mean
            middle = {
                i: sum(across[j] for j in neighbours[i]) / len(neighbours[i] or [0]) for i in members if neighbours[i]
            }
            members.sort(key=lambda i: middle.get(i, across[i]))  # noqa: B023 - used at once
            place(members)
    return levels, across, routes


def _draw(texts, edges, sideways):
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path

    sizes = []
    for text in texts:
        lines = text.split("\n")
        sizes.append((_CHARACTER * max(map(len, lines)) + 2 * _PADDING, _LINE * len(lines) + 2 * _PADDING))
    wide, deep = (1, 0) if sideways else (0, 1)  # which of a box's two lengths lies across the levels, and along
    levels, across, routes = _arrange(len(texts), edges, [size[wide] for size in sizes])
    along, rooms, start = {}, {}, 0.0
    for members in levels:
        room = max(sizes[i][deep] for i in members if i < len(texts))
        along.update({i: start + room / 2 for i in members})
        rooms.update({i: room for i in members})
        start += room + _BETWEEN_LEVELS

    def point(across, along):
        return (along, -across) if sideways else (across, -along)

    edge = [across[i] + sign * (sizes[i][wide] / 2) for i in range(len(texts)) for sign in (-1, 1)]
    low, high = min(*edge, *across.values()) - 0.2, max(*edge, *across.values()) + 0.2
    length = start - _BETWEEN_LEVELS
    span = (length + 0.4, high - low) if sideways else (high - low, length + 0.4)
    figure = Figure(figsize=span)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    corners = [point(low, -0.2), point(high, length + 0.2)]
    axes.set_xlim(sorted(x for x, _ in corners))
    axes.set_ylim(sorted(y for _, y in corners))

    def spread(members, i):
        """Where the arrows of one side of a box touch it: side by side, in the order of their other ends."""
        gap = sizes[i][wide] / (len(members) + 1)
        members = sorted(members, key=lambda entry: entry[1])
        return {number: across[i] - sizes[i][wide] / 2 + gap * (k + 1) for k, (number, _) in enumerate(members)}

    leaving, entering = {}, {}
    for number, route in enumerate(routes):
        leaving.setdefault(route[0], []).append((number, across[route[1]]))
        entering.setdefault(route[-1], []).append((number, across[route[-2]]))
    leaving = {i: spread(members, i) for i, members in leaving.items()}
    entering = {i: spread(members, i) for i, members in entering.items()}
    for number, ((source, target, label), route) in enumerate(zip(edges, routes, strict=True)):
        first, last = route[0], route[-1]
        stops = [(leaving[first][number], along[first] + sizes[first][deep] / 2)]
        # Straight past the boxes of the levels between.
        stops += [(across[i], along[i] + sign * rooms[i] / 2) for i in route[1:-1] for sign in (-1, 1)]
        stops.append((entering[last][number], along[last] - sizes[last][deep] / 2))
        if first != source:
            stops.reverse()
        points = [point(*stops[0])]
        for (a, s), (b, t) in zip(stops, stops[1:], strict=False):
            points += [point(a, (s + t) / 2), point(b, (s + t) / 2), point(b, t)]
        if source == target:
            side, reach = across[source] + sizes[source][wide] / 2, sizes[source][deep] / 4
            middle, out = along[source], side + 0.24
            points = [point(side, middle + reach), point(out, middle + reach)]
            points += [point(out, middle - reach), point(side, middle - reach)]
        codes = [Path.MOVETO] + [Path.CURVE4] * (len(points) - 1)
        axes.add_patch(
            FancyArrowPatch(
                path=Path(points, codes), arrowstyle="-|>", mutation_scale=9, color="#555555", zorder=1,
                shrinkA=0, shrinkB=0,
            )
        )  # fmt: skip
        if label:
            axes.annotate(label, points[0], xytext=(3, -8) if not sideways else (3, 3), textcoords="offset points",
                          fontsize=7, color="#555555")  # fmt: skip
    for i, (text, (width, height)) in enumerate(zip(texts, sizes, strict=True)):
        x, y = point(across[i], along[i])
        box = FancyBboxPatch(
            (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor="#eef3f8", edgecolor="#33506e", zorder=2,
        )  # fmt: skip
        axes.add_patch(box)
        axes.text(x, y, text, ha="center", va="center", fontsize=9, linespacing=1.4, zorder=3)
    return figure
