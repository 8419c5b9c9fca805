"""One timestep at a time."""

from ..cases import parse_cases
from ..ours import StreamedStep
from ..timing import Local, Row, scaled

__all__ = ["streaming"]

STEPS = 1000  # of a call in compiled code


def streaming(setup):
    """`Model.stepper` from Python and in compiled code, LSTM(32) on 8 features, one row."""
    (case,) = parse_cases(["1,1,8,32"])
    stream = StreamedStep(case.request(), STEPS)
    compiled = Local("compiled", stream.compiled, STEPS)
    request = {"what": "stream", "case": case.request()}
    times, unable = setup.against_peers(stream.from_python, request, [compiled])
    times = scaled(times, 1e3)
    in_compiled_code = times.pop("compiled")
    for what, own in (("from Python", times["numbarnn"]), ("in compiled code", in_compiled_code)):
        yield Row("streaming", "LSTM, one step", what, {**times, "numbarnn": own}, "us", unable, {"size": case.size})
