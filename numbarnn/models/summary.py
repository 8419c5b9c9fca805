"""The table that `Model.summary` prints, in the layout of TensorFlow up to 2.8."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Row", "print_summary"]


class Row(NamedTuple):
    """What the table shows of one layer.

    Parameters
    ----------
    layer : Layer, or anything with a name
    shape : tuple, or nest of tuples, or None
        Of the output; None if it is not known, or not one.
    connections : list of str
        Where the inputs come from.
    """

    layer: object
    shape: object = None
    connections: tuple = ()


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
    rows = _select(_collect(model, expand_nested, show_trainable, model._is_chain, 0), layer_range)
    if not model._is_chain:
        titles.append("Connected to")
        default, width = [0.33, 0.55, 0.67, 1.0], 98
        if show_trainable:
            default, width = [0.3, 0.5, 0.61, 0.9, 1.0], 109
    elif show_trainable:
        default, width = [0.38, 0.72, 0.86, 1.0], 75
    else:  # room for the word
        default, width = [0.45, 0.82 if any("unbuilt" in fields[2] for _, fields, _ in rows) else 0.85, 1.0], 65
    if show_trainable:
        titles.append("Trainable")
    line_length = line_length or width
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
    for number, (_, fields, more) in enumerate(rows):
        print_fn(_row(fields, positions))
        for connection in more:
            print_fn(_row(["", "", "", connection, ""], positions))
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


def _collect(model, expand_nested, show_trainable, is_chain, depth):
    """(name, columns, connections below the first) of every layer to show."""
    found = []
    for layer, shape, connections in model._rows():
        kind = type(layer).__name__
        built, own = True, ()
        if hasattr(layer, "weights"):
            built, own = layer.built, layer.weights
        if shape is None:
            shown = "multiple" if built else "?"
        else:
            shown = _shape_text(shape)
        fields = [f"{'| ' * depth}{layer.name} ({kind})", shown, f"{_count(own)}{'' if built else ' (unbuilt)'}"]
        if not is_chain:
            fields.append(connections[0] if connections else "")
        if show_trainable:
            fields.append("Y" if getattr(layer, "trainable", False) else "N")
        found.append((layer.name, fields, () if is_chain else connections[1:]))
        if expand_nested and hasattr(layer, "_rows"):
            found += _collect(layer, True, show_trainable, is_chain, depth + 1)
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
    first = [i for i, (name, *_) in enumerate(rows) if re.match(layer_range[0], name)]
    last = [i for i, (name, *_) in enumerate(rows) if re.match(layer_range[1], name)]
    if not first or not last:
        raise ValueError(
            f"Passed layer_range does not match any layers. Received: layer_range={layer_range}, "
            f"layers: {[name for name, *_ in rows]}"
        )
    bounds = sorted((min(first), max(last)))
    return rows[bounds[0] : bounds[1] + 1]
