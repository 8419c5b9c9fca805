"""Recurrent layers beside peers."""

from .. import ours, roofline
from ..timing import Local, Row

__all__ = ["layers"]


# What a unit's step computes beside its products, forward and on the way back.
_ACTIVATIONS = {"LSTM": (5, 1), "GRU": (3, 0), "SimpleRNN": (1, 0)}


def layers(setup):
    """Forward, then forward and backward, of each cell and case, and what nobody gets below: the arithmetic's floor.

    That is the products at the FMA peak, on all threads, and the activations at the speed of those of the LSTM's step
    on data in the first-level cache. Memory, hand-offs between threads and Python come on top.
    """
    peaks, pointwise = {}, roofline.Pointwise()
    for cell, case in setup.pairs("grid"):
        if case.dtype not in peaks:
            peaks[case.dtype] = roofline.FmaPeak(case.dtype, setup.threads)
        peak = peaks[case.dtype]
        width = 2 if case.dtype == "float64" else 1
        for what, passes in (("forward", 1), ("train", 3)):
            request = {"what": what, "cell": cell, "case": case.request()}
            function = getattr(ours, what)(cell, case.request())
            machine = [Local("FMA peak", peak), Local("pointwise", pointwise)]
            times, unable = setup.against_peers(function, request, machine)
            speed = peak.flops / times.pop("FMA peak")["minimum"] / 1e6
            activation = times.pop("pointwise")["minimum"] / pointwise.units / _ACTIVATIONS["LSTM"][0] * width
            activations = case.updates() * sum(_ACTIVATIONS[cell][: 1 if what == "forward" else 2])
            flops = passes * case.flops(cell)
            floor = flops / speed / 1e6 + activations * activation / setup.threads
            details = {
                "size": case.size,
                "flops": flops,
                "FMA peak, GFLOP/s": speed,
                "share of FMA peak": flops / times["numbarnn"]["minimum"] / 1e6 / speed,
                "floor, ms": floor,
            }
            peers = [its["minimum"] for who, its in times.items() if who != "numbarnn"]
            if peers:
                details["best peer, in floors"] = min(peers) / floor
            shown = "forward" if what == "forward" else "forward + backward"
            yield Row("layers", f"{cell} {case.name}", shown, times, unable=unable, details=details)
