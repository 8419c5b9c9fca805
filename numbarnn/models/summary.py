"""The table that `Model.summary` prints, in the layout of TensorFlow up to 2.8."""

from __future__ import annotations

import re

__all__ = ["print_summary"]


def print_summary(
    model,
    line_length=None,
    positions=None,
    print_fn=None,
    expand_nested=False,
    show_trainable=False,
    layer_range=None,
):
    """Print the table; see `Model.summary`.

    Raises
    ------
    ValueError
        If `positions` does not fit the columns, or `layer_range` names no layer.
    """
    print_fn = print if print_fn is None else print_fn
    titles = ["Layer (type)", "Output Shape", "Param #"]
    default = [0.45, 0.85, 1.0]
    if show_trainable:
        titles.append("Trainable")
        default = [0.38, 0.72, 0.86, 1.0]
    line_length = line_length or (75 if show_trainable else 65)
    rows = _select(_collect(model, expand_nested, show_trainable, 0), layer_range)
    if not show_trainable and any("unbuilt" in fields[2] for _, fields in rows):
        default = [0.45, 0.82, 1.0]  # room for the word
    positions = list(positions or default)
    if len(positions) < len(titles):
        raise ValueError(
            f"`positions` must say where each of {len(titles)} columns ends. Received: positions={positions}"
        )
    if positions[-1] <= 1:
        positions = [int(line_length * p) for p in positions]

    print_fn(f'Model: "{model.name}"')
    print_fn("_" * line_length)
    print_fn(_row(titles, positions))
    print_fn("=" * line_length)
    for number, (_, fields) in enumerate(rows):
        print_fn(_row(fields, positions))
        print_fn(("=" if number == len(rows) - 1 else "_") * line_length)
    trainable = _count(model.trainable_weights)
    other = _count(model.non_trainable_weights)
    print_fn(f"Total params: {trainable + other:,}")
    print_fn(f"Trainable params: {trainable:,}")
    print_fn(f"Non-trainable params: {other:,}")
    print_fn("_" * line_length)


def _count(variables):
    return sum(v.size for v in variables)


def _row(fields, positions):
    line = ""
    for number, (field, end) in enumerate(zip(fields, positions, strict=False)):
        if number:
            line = line[:-1] + " "
        line = (line + str(field))[:end].ljust(end)
    return line


def _collect(model, expand_nested, show_trainable, depth):
    """(name, columns) of every layer to show."""
    found = []
    for layer, shape in model._rows():
        prefix = "| " * depth
        own = layer.weights
        if shape is None:
            shown = "?" if not layer.built else "multiple"
        else:
            shown = _shape_text(shape)
        count = str(_count(own)) if layer.built else f"{_count(own)} (unbuilt)"
        fields = [f"{prefix}{layer.name} ({type(layer).__name__})", shown, count]
        if show_trainable:
            fields.append("Y" if layer.trainable else "N")
        found.append((layer.name, fields))
        if expand_nested and hasattr(layer, "_rows"):
            found += _collect(layer, True, show_trainable, depth + 1)
    return found


def _shape_text(shape):
    if isinstance(shape, list):
        return "[" + ", ".join(map(_shape_text, shape)) + "]"
    if isinstance(shape, dict):
        return str({key: _shape_text(value) for key, value in shape.items()})
    return str(tuple(shape))


def _select(rows, layer_range):
    if layer_range is None:
        return rows
    if len(layer_range) != 2 or not all(isinstance(name, str) for name in layer_range):
        raise ValueError(f"`layer_range` must be a pair of strings. Received: layer_range={layer_range}")
    first = [i for i, (name, _) in enumerate(rows) if re.match(layer_range[0], name)]
    last = [i for i, (name, _) in enumerate(rows) if re.match(layer_range[1], name)]
    if not first or not last:
        raise ValueError(
            f"Passed layer_range does not match any layers. Received: layer_range={layer_range}, "
            f"layers: {[name for name, _ in rows]}"
        )
    bounds = sorted((min(first), max(last)))
    return rows[bounds[0] : bounds[1] + 1]
