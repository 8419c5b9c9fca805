"""What is printed while it is measured, and the Markdown table of stored results."""

from .cases import CELLS
from .machine import sentence
from .measures import MEASURES
from .timing import geometric_mean

__all__ = ["closing", "lines", "markdown"]

NAME, WHAT = 34, 20


def _number(value):
    """Four digits or so."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _notes(row):
    """What a row's details say beside its ratios."""
    formats = {
        "share of FMA peak": "{:.0%} of the FMA peak",
        "best peer, in floors": "best peer at {:.1f} times the floor",
        "samples/s": "{:,.0f} samples/s",
        "GB/s": "reading at {:.3g} GB/s",
        "peak GFLOP/s": "peak {:.4g} GFLOP/s",
        "share of steps that count": "{:.0%} of the steps count",
    }
    return [text.format(row.details[name]) for name, text in formats.items() if name in row.details]


def lines(row, verbose=False):
    """Return what is printed of a row.

    Parameters
    ----------
    row : Row
    verbose : bool
        Everybody's times as well, and why somebody has none.

    Returns
    -------
    list of str
    """
    own = row.times[row.subject]
    of = "of " if MEASURES[row.measure].share else ""
    parts = [f"{_ratio(row, ratio):>6s} {of}{peer}" for peer, ratio in row.ratios.items()]
    if len(parts) > 1:
        parts.append(f"best peer {row.best[0]:.2f}x")
    parts += _notes(row)
    speed = f"{_number(own['minimum']):>8s} {_number(own['median']):>8s} {row.unit}"
    shown = [f"{row.name:{NAME}s} {row.what:{WHAT}s} {speed}  " + ", ".join(parts)]
    if verbose:
        for who, its in row.times.items():
            numbers = f"{_number(its['minimum']):>8s} {_number(its['median']):>8s} {row.unit}"
            shown.append(f"{'':{NAME}s} {who:>{WHAT}s} {numbers}  ({its['calls']} times)")
    for who, reason in row.unable.items():
        if verbose or reason.startswith("failed"):
            shown.append(f"{'':{NAME}s} {who:>{WHAT}s} {reason}")
    return shown


def closing(rows):
    """Sum up the rows of one measure: geometric mean and least of the ratios, every loss.

    Parameters
    ----------
    rows : list of Row

    Returns
    -------
    list of str
        Empty where nothing was compared.
    """
    compared = [row for row in rows if row.best]
    reference = MEASURES[compared[0].measure].reference if compared else ""
    if not reference:
        return []
    groups = {}
    for row in compared:
        first = row.name.split()[0]
        groups.setdefault(f"{first}, {row.what}" if first in CELLS else row.what, []).append(row)
    found = [_sum(*group) for group in groups.items()] if len(groups) > 1 else []
    found.append(_sum("all", compared))
    minima, medians = (geometric_mean([_best(row, kind) for row in compared]) for kind in ("minimum", "median"))
    found.append(f"all, one kind alone: geometric mean {minima:.2f}x of minima, {medians:.2f}x of medians")
    floors = [row.details["best peer, in floors"] for row in compared if "best peer, in floors" in row.details]
    if floors:
        mean, least = geometric_mean(floors), min(floors)
        found.append(f"at the floor of arithmetic it would be: geometric mean {mean:.2f}x, least {least:.2f}x")
    slower = sorted((row for row in compared if row.best[0] < 1), key=lambda row: row.best[0])
    found.append(f"below {reference} in {len(slower)} of {len(compared)} comparisons{':' * bool(slower)}")
    return found + [f"    {row.best[0]:.2f}x {row.best[1]}: {row.name}, {row.what}" for row in slower]


def _best(row, kind):
    """The ratio to the fastest peer by minima, or by medians, alone."""
    own = row.times[row.subject][kind]
    return min(its[kind] / own for who, its in row.times.items() if who != row.subject)


def _sum(title, rows):
    least = min(rows, key=lambda row: row.best[0])
    mean = geometric_mean([row.best[0] for row in rows])
    return f"{title}: geometric mean {mean:.2f}x, least {least.best[0]:.2f}x ({least.name}, {least.best[1]})"


def markdown(results):
    """Write stored results as Markdown.

    Parameters
    ----------
    results : list of dict
        Each as the command writes it, with the rows read into `Row`.

    Returns
    -------
    str
        For each measure a table, for layers a short one before it; ratios below 1 stand in bold.
    """
    parts = []
    for result in results:
        parts.append([f"Measured by `python -m numbarnn bench` on {sentence(result['machine'], result['peers'])}."])
        if not result["complete"]:
            parts.append(["The run was interrupted: what follows is a part of it."])
        measures = {}
        for row in result["rows"]:
            measures.setdefault(row.measure, []).append(row)
        for name, rows in measures.items():
            about = MEASURES[name]
            parts.append([f"### {about.summary[0].upper()}{about.summary[1:]}"])
            if name == "layers" and any(row.best for row in rows):
                parts += [[f"Ratios to {about.reference}, forward / forward + backward."], _short_table(rows)]
            if any(row.ratios for row in rows):
                parts.append([f"Ratios: {about.heading}, the lower of that of the minima and that of the medians."])
            parts.append(_table(rows))
            if sums := closing(rows):
                parts.append(
                    [line.replace("    ", "  - ", 1) if line.startswith(" ") else f"- {line}" for line in sums]
                )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _lined_up(heads, rows):
    """A Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _short_table(rows):
    """Sizes by cells, the ratio to the best peer."""
    ratios = {}
    for row in rows:
        cell, case = row.name.split()
        special = "".join(f", {word}" for word in case.split(":")[1:])
        size = ", ".join(map(str, row.details["size"])) + special
        ratios.setdefault(size, {}).setdefault(cell, []).append(_bold(row, row.best[0]) if row.best else "")
    cells = list(dict.fromkeys(cell for found in ratios.values() for cell in found))
    table = [[size, *(" / ".join(found.get(cell, [])) for cell in cells)] for size, found in ratios.items()]
    return _lined_up(["batch, timesteps, inputs, units", *cells], table)


def _table(rows):
    """One line for each row, one column for each peer."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.ratios))
    noted = any(_notes(row) for row in rows)
    heads = ["what", "", f"minimum / median, {rows[0].unit}", *peers]
    heads += ["best peer"] * (len(peers) > 1) + [""] * noted
    table = []
    for row in rows:
        own = row.times[row.subject]
        size = ", ".join(map(str, row.details.get("size", [])))
        unit = "" if row.unit == rows[0].unit else f" {row.unit}"
        line = [row.name + (f" ({size})" if size else ""), row.what]
        line.append(f"{_number(own['minimum'])} / {_number(own['median'])}{unit}")
        line += [_bold(row, row.ratios[peer]) if peer in row.ratios else "" for peer in peers]
        if len(peers) > 1:
            line.append(_bold(row, row.best[0]) if row.best else "")
        if noted:
            line.append(", ".join(_notes(row)))
        table.append(line)
    return _lined_up(heads, table)


def _ratio(row, ratio):
    return f"{ratio:.0%}" if MEASURES[row.measure].share else f"{ratio:.2f}x"


def _bold(row, ratio):
    """A ratio for Markdown: losses stand out."""
    return f"**{_ratio(row, ratio)}**" if ratio < 1 and MEASURES[row.measure].reference else _ratio(row, ratio)
