"""Recurrent layers beside peers."""

from .. import ours, roofline
from ..timing import Local, Row

__all__ = ["layers"]


def layers(setup):
    """Forward, then forward and backward, of each cell and case."""
    peaks = {}
    for cell, case in setup.pairs("grid"):
        if case.dtype not in peaks:
            peaks[case.dtype] = roofline.FmaPeak(case.dtype, setup.threads)
        peak = peaks[case.dtype]
        for what, passes in (("forward", 1), ("train", 3)):
            request = {"what": what, "cell": cell, "case": case.request()}
            function = getattr(ours, what)(cell, case.request())
            times, unable = setup.against_peers(function, request, [Local("FMA peak", peak)])
            speed = peak.flops / times.pop("FMA peak")["minimum"] / 1e6
            flops = passes * case.flops(cell)
            details = {
                "size": case.size,
                "flops": flops,
                "FMA peak, GFLOP/s": speed,
                "share of FMA peak": flops / times["numbarnn"]["minimum"] / 1e6 / speed,
            }
            shown = "forward" if what == "forward" else "forward + backward"
            yield Row("layers", f"{cell} {case.name}", shown, times, unable=unable, details=details)
