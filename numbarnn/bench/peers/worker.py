"""One peer in a process of its own, timed on request.

``python worker.py PEER THREADS``, PEER one of torch, keras-tensorflow, keras-jax, onnxruntime. The first line on
standard output holds the versions of its packages. Each line on standard input is then a request, answered by a line,
both JSON:

``{"what": WHAT, "cell": ..., "case": {...}, "seconds": ...}``
    WHAT is forward; train (forward and backward, the gradients of inputs and weights, outputs at every step); step (one
    step of training a classifier of words); epoch (training on `batches` batches); stream (one timestep whose states go
    on); custom (forward and backward through a cell of the user's own).
``{"times": [...]}``
    Milliseconds of some calls.
``{"unable": REASON}``
    The peer cannot express it.
``{"failed": REASON}``
    It should have been able to; the traceback goes to standard error.
"""

import functools
import importlib
import json
import os
import sys
import traceback

MODULES = {
    "torch": "torch_peer",
    "keras-tensorflow": "keras_peer",
    "keras-jax": "keras_peer",
    "onnxruntime": "onnxruntime_peer",
}


def main(peer, threads):
    """Answer requests until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # what libraries print is not an answer
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if peer.startswith("keras-"):
        os.environ["KERAS_BACKEND"] = peer.removeprefix("keras-")
    clock = importlib.import_module("clock")
    module = importlib.import_module(MODULES[peer])
    module.set_threads(threads)

    @functools.lru_cache(maxsize=2)  # forward and train of one case, or the like
    def problem(text):
        request = json.loads(text)
        what = request.pop("what")
        return getattr(module, what)(**request) if what in module.__all__ else "it has nothing like that"

    def answer(request):
        seconds = request.pop("seconds")
        function = problem(json.dumps(request, sort_keys=True))
        return {"unable": function} if isinstance(function, str) else {"times": clock.timed(function, seconds)}

    print(json.dumps(module.versions()), file=answers, flush=True)
    for line in sys.stdin:
        try:
            found = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
