"""Peers, each in a process of its own: what they need, whether it is there, how they are asked for times."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .timing import Unable

__all__ = ["PEERS", "WORKER", "Peer", "missing_packages", "started"]

#: What must be importable for a peer.
PEERS = {
    "torch": ("torch",),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-jax": ("keras", "jax"),
    "onnxruntime": ("onnxruntime", "onnx"),
}
WORKER = Path(__file__).parent / "peers" / "worker.py"
_FIND = "import importlib.util, sys; print(*(name for name in sys.argv[1:] if not importlib.util.find_spec(name)))"


def missing_packages(peer, python):
    """Which of the packages that a peer needs an interpreter lacks.

    Parameters
    ----------
    peer : str
        Name in `PEERS`.
    python : str
        The interpreter.

    Returns
    -------
    list of str

    Raises
    ------
    ValueError
        If `python` cannot be run.
    """
    if python == sys.executable:
        return [name for name in PEERS[peer] if importlib.util.find_spec(name) is None]
    try:
        done = subprocess.run([python, "-c", _FIND, *PEERS[peer]], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"{python!r} is no Python interpreter that could be run: {error}") from None
    return done.stdout.split()


class Peer:
    """A process that runs one peer.

    Parameters
    ----------
    name : str
        Name in `PEERS`.
    python : str
        The interpreter that has it.
    threads : int
    label : str
        What its times are filed under.
    """

    def __init__(self, name, python, threads, label):
        self.name, self.label = name, label
        self.failures = []  # in what should have worked
        self._gone = False
        self._errors = tempfile.TemporaryFile(mode="w+", errors="replace")
        self._process = subprocess.Popen(
            [python, str(WORKER), name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: we end it
        )

    def versions(self):
        """Wait until it is there; return the versions of its packages.

        Raises
        ------
        Unable
            If it does not start.
        """
        return self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._gone = True
        self._errors.seek(0)
        said = self._errors.read().strip().splitlines()[-3:]
        raise self._failed(f"the process of {self.label} ended: {' / '.join(said) or 'without a word'}")

    def _failed(self, reason):
        self.failures.append(reason)
        return Unable(f"failed: {reason}")

    def ask(self, request):
        """Send one request.

        Parameters
        ----------
        request : dict
            As in `numbarnn.bench.peers.worker`.

        Returns
        -------
        list of float
            Milliseconds.

        Raises
        ------
        Unable
            If the peer cannot do it, failed in it, or is gone.
        """
        if self._gone:
            raise Unable("its process has ended")
        with suppress(BrokenPipeError):  # the answer says why
            print(json.dumps(request), file=self._process.stdin, flush=True)
        found = self._answer()
        if "failed" in found:
            raise self._failed(found["failed"])
        if "unable" in found:
            raise Unable(found["unable"])
        return found["times"]

    def close(self):
        """End the process."""
        with suppress(BrokenPipeError):  # a request that it never read
            self._process.stdin.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


@dataclass
class Asked:
    """A peer with what it is asked: somebody to take turns with."""

    peer: Peer
    request: dict

    @property
    def name(self):
        """Of the peer, with its threads."""
        return self.peer.label

    def times(self, seconds):
        """Milliseconds of some calls."""
        return self.peer.ask({**self.request, "seconds": seconds})


@contextmanager
def started(pythons, threads):
    """Start peers, and end them in the end.

    Parameters
    ----------
    pythons : dict
        ``{name in PEERS: interpreter}``.
    threads : int
        PyTorch runs with one thread as well: the better of the two counts.

    Yields
    ------
    peers : list of Peer
    """
    peers = []
    try:
        for name, python in pythons.items():
            if name == "torch" and threads > 1:
                peers.append(Peer(name, python, 1, "torch, 1 thread"))
                peers.append(Peer(name, python, threads, f"torch, {threads} threads"))
            else:
                peers.append(Peer(name, python, threads, name))
        yield peers
    finally:
        for peer in peers:
            peer.close()
