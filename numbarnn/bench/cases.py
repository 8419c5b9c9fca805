"""What is measured: named sizes, groups of them, and sizes given as numbers.

A size is written ``NAME`` or ``B,T,I,H`` (batch, timesteps, inputs, units), followed by what makes it special, each
behind a colon: ``text:float64``, ``medium:masked``, ``64,28,28,64:bidirectional:2-layers``.
"""

import re
from dataclasses import asdict, dataclass, replace

__all__ = ["CELLS", "GATES", "GROUPS", "SIZES", "Case", "parse_cases"]

#: batch, timesteps, inputs, units
SIZES = {
    "rows_of_digits": (64, 28, 28, 64),
    "short_series": (256, 50, 8, 16),
    "long_series": (16, 1000, 16, 32),
    "text": (32, 100, 64, 128),
    "medium": (64, 50, 256, 256),
    "wide": (64, 25, 512, 512),
    "one_at_a_time": (1, 100, 64, 128),
    "one_at_a_time_wide": (1, 100, 512, 512),
    "smallest": (1, 1, 8, 8),
}

#: Names of groups; each holds sizes as they are written on the command line.
GROUPS = {
    "grid": [name for name in SIZES if name != "smallest"],
    "batched": [name for name, size in SIZES.items() if size[0] >= 16],
    "batches": [f"{batch},100,64,128" for batch in (2, 4, 8)],
    "units": [f"32,50,64,{units}" for units in (8, 24, 100, 200, 1024)],
    "timesteps": [f"16,{timesteps},32,64" for timesteps in (1, 10, 4096)],
    "float64": ["rows_of_digits:float64", "text:float64", "medium:float64"],
    "masks": ["rows_of_digits:masked", "text:masked", "medium:masked"],
    "bidirectional": ["rows_of_digits:bidirectional", "text:bidirectional", "one_at_a_time:bidirectional"],
    "stacks": ["rows_of_digits:2-layers", "text:3-layers", "rows_of_digits:4-layers"],
}

#: Cells by the names of their layers, with the number of their gates.
GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}
CELLS = tuple(GATES)


@dataclass(frozen=True)
class Case:
    """One size, and what is special about it.

    Attributes
    ----------
    name : str
        As on the command line.
    batch, timesteps, inputs, units : int
    dtype : str
        "float32" or "float64".
    masked : bool
        Right-padded sequences of 1 to T timesteps, in no order.
    bidirectional : bool
        Both directions, concatenated.
    layers : int
        On top of each other.
    """

    name: str
    batch: int
    timesteps: int
    inputs: int
    units: int
    dtype: str = "float32"
    masked: bool = False
    bidirectional: bool = False
    layers: int = 1

    @property
    def size(self):
        """(batch, timesteps, inputs, units)."""
        return self.batch, self.timesteps, self.inputs, self.units

    def request(self):
        """What peers are told: a dict of plain values."""
        return asdict(self)

    def flops(self, cell):
        """Operations of the matrix products of a forward pass, a masked case's padding left out.

        Parameters
        ----------
        cell : str
            Name in `CELLS`.

        Returns
        -------
        float
            A multiply-add counts as two.
        """
        directions = 2 if self.bidirectional else 1
        widths = [self.inputs] + [directions * self.units] * (self.layers - 1)
        return 2 * GATES[cell] * self.updates() / self.layers * sum(width + self.units for width in widths)

    def updates(self):
        """How many units step in a forward pass, each as often as it does, a masked case's padding left out."""
        from .peers.recipes import lengths

        steps = sum(lengths(self.request())) if self.masked else self.batch * self.timesteps
        return steps * self.units * self.layers * (2 if self.bidirectional else 1)


def parse_cases(given):
    """Read sizes and groups of the command line.

    Parameters
    ----------
    given : iterable of str
        Names of groups, names of sizes or ``B,T,I,H``; several names may be joined by commas.

    Returns
    -------
    list of Case
        In the order given, each once.

    Raises
    ------
    ValueError
        If one is not understood.
    """
    cases = {}
    for text in given:
        joined = [text] if re.match(r"[\d,\s-]+(:|$)", text) else text.split(",")
        for name in joined:
            for member in GROUPS.get(name, [name]):
                case = _parse_case(member)
                cases[case.name] = case
    return list(cases.values())


def _parse_case(text):
    base, *special = text.split(":")
    if base in SIZES:
        size = SIZES[base]
    elif re.fullmatch(r"[1-9]\d*(,[1-9]\d*){3}", base):
        size = tuple(map(int, base.split(",")))
    else:
        raise ValueError(
            f"size {text!r} is not known. Expected a group ({', '.join(GROUPS)}), a size ({', '.join(SIZES)}) or four "
            "whole numbers from 1 on, batch,timesteps,inputs,units"
        )
    case = Case(text, *size)
    for word in special:
        if word in ("float32", "float64"):
            case = replace(case, dtype=word)
        elif word in ("masked", "bidirectional"):
            case = replace(case, **{word: True})
        elif re.fullmatch(r"[1-9]-layers?", word):
            case = replace(case, layers=int(word[0]))
        else:
            raise ValueError(
                f"size {text!r}: {word!r} is not known. Expected float64, masked, bidirectional or N-layers (N from 1 "
                "to 9) behind a colon"
            )
    return case
