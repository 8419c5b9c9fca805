"""What layers and kernels reach of the machine: threads, the memory's speed, the FMA peak."""

from ... import jit
from .. import ours, roofline
from ..cases import GATES
from ..timing import Local, Row, scaled, take_turns

__all__ = ["bandwidth", "kernels", "threads"]


def _on(count, function):
    """Call a function on so many threads."""

    def call():
        before = jit.get_num_threads()
        jit.set_num_threads(count)
        try:
            function()
        finally:
            jit.set_num_threads(before)

    return call


def threads(setup):
    """All threads against one."""
    for cell, case in setup.pairs("batched"):
        for what, shown in (("forward", "forward"), ("train", "forward + backward")):
            function = getattr(ours, what)(cell, case.request())
            times, _ = take_turns(
                [
                    Local(f"{setup.threads} threads", _on(setup.threads, function)),
                    Local("1 thread", _on(1, function)),
                ],
                setup.seconds,
            )
            yield Row("threads", f"{cell} {case.name}", shown, times, details={"size": case.size})


def bandwidth(setup):
    """Forward passes against reading the recurrent weights once for each timestep, which one row cannot do without."""
    for cell, case in setup.pairs("one_at_a_time", "one_at_a_time_wide"):
        size = GATES[cell] * case.units**2 * (8 if case.dtype == "float64" else 4)
        reading = roofline.Reading(size, case.timesteps)
        function = ours.forward(cell, case.request())
        for count in sorted({1, setup.threads}):
            shown = "1 thread" if count == 1 else f"{count} threads"
            times, _ = take_turns(
                [Local("numbarnn", _on(count, function)), Local("reading", _on(count, reading))], setup.seconds
            )
            details = {
                "size": case.size,
                "bytes per step": size,
                "GB/s": size * case.timesteps / times["reading"]["minimum"] / 1e6,
            }
            yield Row("bandwidth", f"{cell} {case.name}", shown, times, details=details)


def kernels(setup):
    """A matrix product against the FMA peak; the pointwise part of a step; one thread."""
    peak, product, pointwise = roofline.FmaPeak(), roofline.PackedProduct(64, 256, 1024), roofline.Pointwise()
    times, _ = take_turns(
        [Local("product", product), Local("FMA peak", peak), Local("pointwise", pointwise, pointwise.units)],
        setup.seconds,
    )
    as_many = scaled({"FMA peak": times["FMA peak"]}, product.flops / peak.flops)
    details = {"peak GFLOP/s": peak.flops / times["FMA peak"]["minimum"] / 1e6}
    yield Row("kernels", "product", "64 x 256 x 1024", {"product": times["product"], **as_many}, details=details)
    own = scaled({"pointwise": times["pointwise"]}, 1e6)
    yield Row("kernels", "LSTM, pointwise", "one unit and step", own, "ns")
