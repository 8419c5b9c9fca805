"""Pictures for people who train recurrent networks: histories, gates, gradients through time, spectra, predictions.

Each function draws into an `Axes` of matplotlib, given or new, and returns it.  Nothing is shown or saved: that is
``plt.show()`` or ``axes.figure.savefig(...)`` of the caller.  Needs matplotlib (``pip install "numbarnn[demo]"``).
"""

from __future__ import annotations

import itertools

import numpy as np

from .layers import Bidirectional, Directions, LayerTrace
from .layers.nests import leaves_of

__all__ = ["plot_gates", "plot_gradient_norms", "plot_history", "plot_predictions", "plot_recurrent_spectrum"]

_MASKED = "0.82"  # grey


def _axes(ax, figsize):
    """Return the given axes, or those of a new figure."""
    if ax is None:
        import matplotlib.pyplot as plt

        return plt.subplots(figsize=figsize, layout="constrained")[1]
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise TypeError(f"`ax` must be an Axes of matplotlib. Received: ax={ax!r} (of type {type(ax).__name__})")
    return ax


def _colors():
    """Return colours that are told apart in black and white, and by everybody: Okabe and Ito's, dark ones first."""
    return itertools.cycle(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"))


def _plain(axes):
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


# ---------------------------------------------------------------------------------------------------------------
# training


def plot_history(history, metrics="loss", *, ax=None):
    """Draw how metrics went from epoch to epoch: in training as lines, in validation dashed.

    Parameters
    ----------
    history : History or dict of str to list of float
        What `fit` returns, or its `history`.
    metrics : str or list of str
        Which of them; those of the validation, ``"val_loss"`` for ``"loss"``, come along where there are any, with a
        dot at the best epoch of a loss or error, which is the lowest.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `history` is neither, or `ax` is no Axes.
    ValueError
        If it has no such metric.
    """
    values = getattr(history, "history", history)
    if not isinstance(values, dict):
        raise TypeError(f"`history` must be what `fit` returns, or a dict. Received: {type(history).__name__}")
    metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    for name in metrics:
        if name not in values:
            raise ValueError(f"`metrics` must be among {sorted(values)}. Received: {name!r}")
    axes = _axes(ax, (6, 3.4))
    epochs = getattr(history, "epoch", None)
    for name, color in zip(metrics, _colors(), strict=False):
        for key, style, label in ((name, "-", "training"), (f"val_{name}", "--", "validation")):
            if key not in values:
                continue
            y = np.asarray(values[key], dtype=float)
            known = epochs is not None and len(epochs) == len(y)
            x = np.asarray(epochs) + 1 if known else np.arange(1, len(y) + 1)
            what = label if len(metrics) == 1 else f"{name}, {label}"
            axes.plot(x, y, style, color=color, label=what, marker="." if len(y) < 2 else None)
            if key != name and _is_error(name) and np.isfinite(y).any():
                best = np.nanargmin(y)
                axes.plot(x[best], y[best], "o", color=color, label=f"best: {y[best]:.3g} in epoch {x[best]}")
    axes.set(xlabel="epoch", ylabel=_words(metrics[0]) if len(metrics) == 1 else "value")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes)
    beside = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(metrics) > 1 else {}
    axes.legend(frameon=False, **beside)
    return axes


def _is_error(name):
    return any(part in name for part in ("loss", "error", "mse", "mae", "mape", "crossentropy"))


def _words(name):
    return name.replace("_", " ")


# ---------------------------------------------------------------------------------------------------------------
# traces


def _layer_trace(trace, what):
    """Return a trace of one layer; say what to pass where there are several."""
    if isinstance(trace, dict):
        names = [f"trace[{name!r}]" for name in trace]
    elif isinstance(trace, Directions):
        names = ["trace.forward", "trace.backward"]
    elif isinstance(trace, LayerTrace):
        return trace
    else:
        raise TypeError(
            f"`{what}` must be what `layer.trace` returns, or one of the items that `model.trace` returns. "
            f"Received: {type(trace).__name__}"
        )
    raise TypeError(f"`{what}` must be the trace of one layer. Received those of several: choose {' or '.join(names)}")


def plot_gates(trace, gates=None, *, row=0, ax=None):
    """Draw gates as a heat map: time from left to right, a line for each unit, one gate above the other.

    What lies between 0 and 1, as the gates of a sigmoid, is drawn from white to blue: white is closed. What has both
    signs, as candidates and states, goes from brown over white to green. Masked timesteps are grey.

    Parameters
    ----------
    trace : LayerTrace
        What `layer.trace` returns, or one of the items that `model.trace` returns; see there.
    gates : str or list of str, optional
        Names in ``trace.gates``, ``"outputs"``, and ``"state 0"``, ``"state 1"``, ...: h and c of an LSTM. By default
        all gates, or the outputs where there are none.
    row : int
        Which sequence of the batch.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `trace` is not that of one layer, or `ax` is no Axes.
    ValueError
        For a name that it does not have, or a row that is none.
    """
    from matplotlib.patches import Patch

    trace = _layer_trace(trace, "trace").chronological()
    shown = {**trace.gates, "outputs": leaves_of(trace.outputs)[0]}
    shown.update((f"state {k}", state) for k, state in enumerate(leaves_of(trace.states)))
    shown = {name: values for name, values in shown.items() if values.ndim == 3}
    if gates is None:
        gates = list(trace.gates) or ["outputs"]
    gates = [gates] if isinstance(gates, str) else list(gates)
    for name in gates:
        if name not in shown:
            raise ValueError(f"`gates` must be among {list(shown)}. Received: {name!r}")
    batch, timesteps = next(iter(shown.values())).shape[:2]
    if not -batch <= row < batch:
        raise ValueError(f"`row` must be one of the {batch} rows of the trace. Received: row={row}")

    axes = _axes(ax, (8, 0.6 + 0.9 * max(2, len(gates))))
    edges, lower, ticks, maps = np.arange(timesteps + 1) - 0.5, 0.0, [], {}
    height, gap = 1.0, 0.12
    for name in gates:
        values = np.array(shown[name][row], dtype=float)
        if trace.mask is not None:
            values[~trace.mask[row]] = np.nan
        signed = np.nanmin(values, initial=0.0) < 0 or np.nanmax(values, initial=0.0) > 1
        largest = max(1.0, np.nanmax(np.abs(values), initial=0.0))
        lines = lower + np.linspace(0, height, values.shape[1] + 1)
        mesh = axes.pcolormesh(
            edges,
            lines,
            values.T,
            cmap="BrBG" if signed else "Blues",
            vmin=-largest if signed else 0.0,
            vmax=largest if signed else 1.0,
            rasterized=True,
        )
        if signed not in maps or maps[signed].norm.vmax < largest:
            maps[signed] = mesh
        ticks.append(lower + height / 2)
        lower += height + gap
    for mesh in axes.collections:  # all that share a colour map share its range
        kind = mesh.cmap.name == "BrBG"
        mesh.set_clim(maps[kind].norm.vmin, maps[kind].norm.vmax)
    axes.set_facecolor("white")
    if trace.mask is not None and not trace.mask[row].all():
        for t in np.flatnonzero(~trace.mask[row]):
            axes.axvspan(t - 0.5, t + 0.5, color=_MASKED, linewidth=0)
        axes.legend(
            handles=[Patch(color=_MASKED, label="masked")], loc="lower right", bbox_to_anchor=(1, 1), frameon=False
        )
    axes.set(
        xlim=(-0.5, timesteps - 0.5),
        ylim=(lower - gap, 0),
        yticks=ticks,
        yticklabels=gates,
        xlabel="timestep",
        title=f"{trace.name}: {shown[gates[0]].shape[2]} units, row {row % batch}",
    )
    axes.title.set_fontsize("medium")
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _add_colorbars(axes, [(mesh, "value" if signed else "0: closed, 1: open") for signed, mesh in sorted(maps.items())])
    return axes


def _add_colorbars(axes, bars):
    """Add a colour bar for each (mesh, label), the first of them outermost, so that labels and ticks stay clear."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    inches = axes.get_window_extent().width / axes.figure.dpi
    for number, (mesh, label) in enumerate(bars):
        inner = number == len(bars) - 1
        # Only a constrained layout makes room for what stands beside the bar within, which comes next.
        makes_room = isinstance(axes.figure.get_layout_engine(), ConstrainedLayoutEngine)
        pad = 0.015 if inner or makes_room else min(0.3, 0.85 / inches)
        axes.figure.colorbar(mesh, ax=axes, label=label, pad=pad, fraction=0.05)


def plot_gradient_norms(trace, *, ax=None):
    """Draw how large the gradient of the loss is with respect to the states, from timestep to timestep.

    Lines that fall towards earlier timesteps, by powers of ten on this logarithmic axis, are gradients that vanish:
    what happened then teaches the layer nothing. Lines that rise are gradients that explode.

    Parameters
    ----------
    trace : LayerTrace, Directions, or dict of them
        From `model.trace` with targets or `output`, so that there are `state_gradients`: of one layer, or of several.
    ax : Axes, optional

    Returns
    -------
    Axes
        A line for each state: the median over the batch of the Euclidean norm over the units; a band from the lower to
        the upper quartile. Masked timesteps are left out, norms of zero are not drawn.

    Raises
    ------
    TypeError
        If `trace` is no trace, or `ax` is no Axes.
    ValueError
        If there are no gradients in it.
    """
    lines = _gradient_lines(trace)
    axes = _axes(ax, (7, 3.4))
    for (label, timesteps, norms), color in zip(lines, _colors(), strict=False):
        norms = np.where(norms > 0, norms, np.nan)
        known = np.isfinite(norms).any(axis=0)
        low, middle, high = np.full((3, norms.shape[1]), np.nan)
        low[known], middle[known], high[known] = np.nanpercentile(norms[:, known], [25, 50, 75], axis=0)
        axes.plot(timesteps, middle, color=color, label=label)
        if len(norms) > 1:
            axes.fill_between(timesteps, low, high, color=color, alpha=0.2, linewidth=0)
    axes.set_yscale("log")
    rows = len(lines[0][2])
    axes.set(
        xlabel="timestep of the state",
        ylabel="norm of the gradient",
        title="d loss / d state" + (f": median and quartiles of {rows} rows" if rows > 1 else ""),
    )
    axes.title.set_fontsize("medium")
    axes.xaxis.get_major_locator().set_params(integer=True)
    _plain(axes)
    axes.legend(frameon=False)
    return axes


def _gradient_lines(trace, name=None):
    """Return (label, timesteps, norms of shape (batch, timesteps)) for each state."""
    if isinstance(trace, dict):
        return [line for key, value in trace.items() for line in _gradient_lines(value, key)]
    if isinstance(trace, Directions):
        sides = [(side, value) for side, value in zip(trace._fields, trace, strict=True) if value is not None]
        return [x for side, value in sides for x in _gradient_lines(value, f"{name or value.name}, {side}")]
    trace = _layer_trace(trace, "trace").chronological()
    if trace.state_gradients is None:
        raise ValueError(
            f"The trace of layer '{trace.name}' has no gradients. Give `model.trace` targets, model.trace(x, y), or "
            "say what is to be differentiated: model.trace(x, output=0)"
        )
    states = leaves_of(trace.state_gradients)
    name = name or trace.name
    labels = [name] if len(states) == 1 else [f"{name}, state {k}" for k in range(len(states))]
    if "forget" in trace.gates:
        labels = [f"{name}, h", f"{name}, c"]
    norms = [np.sqrt(np.square(s.reshape(*s.shape[:2], -1), dtype=float).sum(axis=2)) for s in states]
    return [(label, trace.timesteps, norm) for label, norm in zip(labels, norms, strict=True)]


# ---------------------------------------------------------------------------------------------------------------
# weights


def plot_recurrent_spectrum(layer, *, ax=None):
    """Draw the eigenvalues of the recurrent weights in the complex plane, with the unit circle.

    Eigenvalues outside of the circle let a linear recurrence grow, those deep inside let it forget; those on the circle
    turn and keep. Activations and gates bend this, so it is a first look, not a proof.

    Parameters
    ----------
    layer : RNN, cell, or array of shape (units, gates * units)
        With a `recurrent_kernel`: its columns are those of the gates, one square matrix after the other.
    ax : Axes, optional

    Returns
    -------
    Axes
        The legend says the spectral radius, the largest modulus, of each.

    Raises
    ------
    TypeError
        If there are several layers or cells in it, or no `recurrent_kernel`, or `ax` is no Axes.
    ValueError
        If the layer is not built, or the shape is another one.
    """
    matrix, names, title = _recurrent_kernel(layer)
    if matrix.ndim != 2 or 0 in matrix.shape or matrix.shape[1] % matrix.shape[0]:
        raise ValueError(
            "The recurrent weights must have shape (units, gates * units), one square matrix after the other. "
            f"Received shape {matrix.shape}"
        )
    blocks = np.split(matrix.astype(float), matrix.shape[1] // matrix.shape[0], axis=1)
    if len(names) != len(blocks):
        names = [f"block {k}" for k in range(len(blocks))] if len(blocks) > 1 else ["recurrent kernel"]
    axes = _axes(ax, (6.2, 4.2))
    turn = np.linspace(0, 2 * np.pi, 361)
    largest = 1.0
    axes.plot(np.cos(turn), np.sin(turn), color="0.6", linewidth=1, label="unit circle", zorder=1)
    for name, block, color, marker in zip(names, blocks, _colors(), itertools.cycle("osD^vP"), strict=False):
        values = np.linalg.eigvals(block)
        radius = np.abs(values).max()
        label = f"{name}: radius {radius:.2f}"
        axes.scatter(values.real, values.imag, s=22, color=color, marker=marker, alpha=0.75, label=label, linewidth=0)
        largest = max(largest, radius)
    axes.set_aspect("equal")
    axes.set(xlim=(-1.1 * largest, 1.1 * largest), ylim=(-1.1 * largest, 1.1 * largest))
    axes.set(xlabel="real part", ylabel="imaginary part", title=title)
    axes.title.set_fontsize("medium")
    _plain(axes)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small", markerscale=1.2)
    return axes


def _recurrent_kernel(layer):
    """Return the recurrent weights, the names of their blocks, and a title."""
    if isinstance(layer, np.ndarray):
        return layer, [], ""
    if isinstance(layer, Bidirectional):
        raise TypeError(
            f"Layer '{layer.name}' is two layers. Pass one of them: layer.forward_layer or layer.backward_layer"
        )
    cell = getattr(layer, "cell", layer)
    if getattr(cell, "cells", None):
        raise TypeError(f"Layer '{layer.name}' has several cells. Pass one of them: layer.cell.cells[0], say")
    if hasattr(cell, "built") and not cell.built:
        raise ValueError(f"{type(layer).__name__} '{layer.name}' has no weights yet: call it on data, or build it")
    weights = getattr(cell, "recurrent_kernel", None)
    if weights is None:
        raise TypeError(
            "`layer` must be a recurrent layer, a cell with a `recurrent_kernel`, or an array. Received: "
            f"{type(layer).__name__}"
        )
    return np.asarray(weights), getattr(cell, "gate_names", ()), f"recurrent weights of {layer.name}"


# ---------------------------------------------------------------------------------------------------------------
# series


def plot_predictions(
    series, predictions, *, time=None, start=None, label="observed", xlabel="timestep", ylabel="value", ax=None
):
    """Draw predictions beside the series that they are of.

    Parameters
    ----------
    series : array of shape (timesteps,)
        What was observed; NaN where nothing was.
    predictions : array of shape (n,), or dict of str to such arrays
        By the names that the legend is to show; NaN where there is none.
    time : array of shape (timesteps,), optional
        Where the points are: numbers or dates. Numbered from 0 by default.
    start : int or dict of str to int, optional
        The place in the series that the first prediction is for, one for all or by name. By default the last prediction
        is for the last point; predictions may go on beyond the series if `time` does.
    label : str
        Of the series.
    xlabel, ylabel : str
        What is drawn, with units: ``"CO2 (ppm)"``.
    ax : Axes, optional

    Returns
    -------
    Axes

    Raises
    ------
    TypeError
        If `ax` is no Axes.
    ValueError
        If an array does not have one axis, or a prediction does not fit into the time.
    """
    series = _one_axis("series", series)
    if not isinstance(predictions, dict):
        predictions = {"predicted": predictions}
    x = np.arange(len(series)) if time is None else np.asarray(time)
    if x.ndim != 1 or len(x) < len(series):
        raise ValueError(
            f"`time` must have one axis and a place for each of the {len(series)} points of `series`. Received: shape "
            f"{x.shape}"
        )
    placed = []
    for name, values in predictions.items():
        values = _one_axis(f"predictions[{name!r}]", values)
        first = start.get(name) if isinstance(start, dict) else start
        first = len(series) - len(values) if first is None else first
        last = len(x) if time is not None else max(len(x), first + len(values))
        if not 0 <= first <= last - len(values):
            raise ValueError(
                f"The {len(values)} values of predictions[{name!r}], from place {first} on, do not fit into the {last} "
                "places of the time. Say where they begin with `start`, and give `time` for what is beyond the series"
            )
        where = np.arange(first, first + len(values)) if time is None else x[first : first + len(values)]
        placed.append((name, where, values))
    axes = _axes(ax, (9, 3.4))
    few = len(series) <= 60
    axes.plot(x[: len(series)], series, color="0.55", linewidth=2.5, marker="o" if few else None, ms=4, label=label)
    for (name, where, values), color in zip(placed, _colors(), strict=False):
        axes.plot(where, values, color=color, linewidth=1.3, marker="." if len(values) <= 60 else None, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.margins(x=0.01)
    _plain(axes)
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    axes.legend(frameon=False, ncols=min(4, 1 + len(placed)), **above)
    return axes


def _one_axis(name, values):
    values = np.asarray(values)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # what `predict` returns for one sequence or one output
    if values.ndim != 1 or not len(values) or values.dtype.kind not in "fiub":
        raise ValueError(
            f"`{name}` must be numbers along one axis. Received: shape {values.shape}, dtype {values.dtype}"
        )
    return values.astype(float)
