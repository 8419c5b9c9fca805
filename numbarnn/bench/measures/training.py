"""Training steps and epochs beside peers."""

from .. import ours
from ..cases import parse_cases
from ..timing import Row

__all__ = ["epochs", "steps"]

BATCHES = 50  # of an epoch


def steps(setup):
    """`train_on_batch` of a classifier of words; the inputs of a case are the width of its embedding."""
    for cell, case in setup.pairs("smallest", "rows_of_digits", "text", "medium", cells=["LSTM"]):
        function = ours.step(cell, case.request())
        times, unable = setup.against_peers(function, {"what": "step", "cell": cell, "case": case.request()})
        yield Row("steps", f"{cell} {case.name}", "train_on_batch", times, unable=unable, details={"size": case.size})


def epochs(setup):
    """`fit` of the guide's model."""
    (case,) = parse_cases(["rows_of_digits"])
    for cell in setup.cells or ["LSTM"]:
        request = {"cell": cell, "case": case.request(), "batches": BATCHES}
        times, unable = setup.against_peers(ours.epoch(**request), {"what": "epoch", **request})
        samples = BATCHES * case.batch
        details = {"size": case.size, "samples/s": samples / times["numbarnn"]["minimum"] * 1e3}
        yield Row("epochs", f"{cell} {case.name}", f"fit, {samples} samples", times, unable=unable, details=details)
