"""What can be measured, one module for each subject.

A measure is a function of a `Setup` that yields a `numbarnn.bench.timing.Row` for each comparison.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..cases import CELLS, Case, parse_cases
from ..processes import Asked, Peer
from ..timing import Local, Row, take_turns

__all__ = ["MEASURES", "Measure", "Setup", "obstacle"]


@dataclass
class Setup:
    """What the command line asks for.

    Attributes
    ----------
    seconds : float
        For each comparison, all who take part together.
    threads : int
    peers : list of Peer
        Those running.
    pythons : dict
        ``{name of a peer: interpreter}``.
    cells : list of str, optional
        None: what a measure takes by default.
    cases : list of Case, optional
    """

    seconds: float
    threads: int
    peers: list[Peer] = field(default_factory=list)
    pythons: dict[str, str] = field(default_factory=dict)
    cells: list[str] | None = None
    cases: list[Case] | None = None

    def pairs(self, *sizes, cells=CELLS):
        """Cells and cases: those asked for, else the given ones."""
        cases = parse_cases(sizes) if self.cases is None else self.cases
        return [(cell, case) for cell in self.cells or cells for case in cases]

    def against_peers(self, function, request, others=()):
        """Run a function of ours, and what peers are asked for, in turns.

        Parameters
        ----------
        function : callable
        request : dict
            For the peers.
        others : iterable
            More participants.

        Returns
        -------
        times, unable : dict
            Of `take_turns`.
        """
        asked = [Asked(peer, request) for peer in self.peers]
        return take_turns([Local("numbarnn", function), *asked, *others], self.seconds)


def _plain(case):
    return case.layers == 1 and not (case.masked or case.bidirectional)


class Measure(NamedTuple):
    """One measure.

    Attributes
    ----------
    module, summary : str
    heading : str
        What the ratios of its rows mean, for the table.
    reference : str
        Who the wins and losses of `numbarnn.bench.report.closing` are against; empty: there are none to count.
    fits : callable
        Says whether it takes a case that the user asks for.
    takes : str
        What it takes, in words.
    share : bool
        Its ratios are shares of something that cannot be had whole.
    """

    module: str
    summary: str
    heading: str
    reference: str = ""
    fits: Callable[[Case], bool] = lambda case: True
    takes: str = "any size"
    share: bool = False

    @property
    def needs_peers(self):
        """Whether peers have a part in it."""
        return self.reference in (_PEERS, _TORCH)

    def unfit(self, setup):
        """Names of the cases that the user asks for and this does not take."""
        return [case.name for case in setup.cases or () if not self.fits(case)]

    def run(self, name, setup) -> Iterator[Row]:
        """Measure what fits."""
        if setup.cases is not None:
            setup = replace(setup, cases=[case for case in setup.cases if self.fits(case)])
        return getattr(importlib.import_module(f".{self.module}", __name__), name)(setup)


_PEERS, _TORCH = "the best peer", "PyTorch"
_BESIDE_PEERS = {"heading": "how many times as fast as each peer", "reference": _PEERS}
_PLAIN = {"fits": _plain, "takes": "sizes without masks, with one layer in one direction"}

#: Measures by name.
MEASURES = {
    "layers": Measure("layers", "forward and forward + backward of layers, beside peers", **_BESIDE_PEERS),
    "steps": Measure("training", "training steps of Embedding + layer + Dense, beside peers", **_BESIDE_PEERS),
    "epochs": Measure("training", "epochs of the guide's model on rows of digits, beside peers", **_BESIDE_PEERS),
    "streaming": Measure("streaming", "one timestep of an LSTM at a time, beside peers", **_BESIDE_PEERS),
    "custom": Measure("custom", "cells of a user's own, per timestep, beside peers", **_BESIDE_PEERS),
    "options": Measure(
        "options", "each option beside the plain layer", "how many times as fast as the plain layer", **_PLAIN
    ),
    "lengths": Measure(
        "options", "padded sequences beside a full batch", "how many times as fast as a full batch", "a full batch",
        **_PLAIN,
    ),
    "threads": Measure("hardware", "all threads beside one", "how many times as fast as one thread", "one thread"),
    "bandwidth": Measure(
        "hardware", "one row at a time beside reading the weights", "share of the memory's speed",
        fits=lambda case: case.batch == 1 and _plain(case), takes="plain sizes of batch 1", share=True,
    ),
    "kernels": Measure(
        "hardware", "a matrix product beside the FMA peak, a pointwise step", "share of the FMA peak", share=True
    ),
    "memory": Measure(
        "memory", "rise of peak memory in a training step, beside PyTorch (Linux)", "PyTorch's rise by ours", _TORCH
    ),
    "startup": Measure("startup", "fresh processes: import, first trained step", ""),
}  # fmt: skip


def obstacle(name, setup):
    """Say why a measure cannot be taken.

    Parameters
    ----------
    name : str
        In `MEASURES`.
    setup : Setup

    Returns
    -------
    str or None
    """
    measure = MEASURES[name]
    unfit = measure.unfit(setup)
    if unfit and len(unfit) == len(setup.cases):
        return f"{name} takes {measure.takes}; got {', '.join(unfit)}"
    if name == "threads" and setup.threads == 1:
        return "threads needs two threads at least; got 1"
    if name == "memory" and not os.path.exists("/proc/self/clear_refs"):
        return "memory needs /proc/self/clear_refs, which Linux has"
    return None
