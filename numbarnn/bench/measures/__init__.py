"""What can be measured, one module for each subject.

A measure is a function of a `Setup` that yields a `numbarnn.bench.timing.Row` for each comparison.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..cases import CELLS, Case, parse_cases
from ..processes import Asked, Peer
from ..timing import Local, Row, take_turns

__all__ = ["MEASURES", "Measure", "Setup"]


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


class Measure(NamedTuple):
    """One measure.

    Attributes
    ----------
    module, summary : str
    heading : str
        What the ratios of its rows mean, for the table.
    """

    module: str
    summary: str
    heading: str

    def run(self, name, setup) -> Iterator[Row]:
        """Run it."""
        return getattr(importlib.import_module(f".{self.module}", __name__), name)(setup)


_BESIDE_PEERS = "how many times as fast as each peer"

#: Measures by name.
MEASURES = {
    "layers": Measure("layers", "forward and forward + backward of layers, beside peers", _BESIDE_PEERS),
    "steps": Measure("training", "train_on_batch of Embedding + layer + Dense, beside peers", _BESIDE_PEERS),
    "epochs": Measure("training", "fit of the guide's model on rows of digits, beside peers", _BESIDE_PEERS),
    "streaming": Measure("streaming", "one timestep of an LSTM at a time, beside peers", _BESIDE_PEERS),
    "custom": Measure("custom", "cells of a user's own, per timestep, beside peers", _BESIDE_PEERS),
    "options": Measure("options", "each option beside the plain layer", "how many times as fast as the plain layer"),
    "lengths": Measure("options", "padded sequences beside a full batch", "how many times as fast as a full batch"),
    "threads": Measure("hardware", "all threads beside one", "how many times as fast as one thread"),
    "bandwidth": Measure("hardware", "one row at a time beside reading the weights", "share of the memory's speed"),
    "kernels": Measure("hardware", "a matrix product beside the FMA peak, a pointwise step", "share of the FMA peak"),
    "memory": Measure("memory", "rise of peak memory in a training step, beside PyTorch (Linux)", "PyTorch's by ours"),
    "startup": Measure("startup", "fresh processes: import, first trained step", ""),
}
