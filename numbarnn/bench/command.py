"""The command line of ``python -m numbarnn bench``."""

import argparse
import json
import shlex
import shutil
import sys
from pathlib import Path

from .. import jit
from . import machine, report
from .cases import CELLS, GROUPS, SIZES, parse_cases
from .measures import MEASURES, Setup, obstacle
from .processes import PEERS, missing_packages, started
from .timing import Row, Unable

__all__ = ["add_arguments", "run"]

DEFAULT = ("layers", "steps", "epochs")
FORMAT = 1

EPILOG = f"""\
measures (--what):
{{measures}}

sizes (--sizes), batch,timesteps,inputs,units:
{{sizes}}
groups of them: {", ".join(GROUPS)}
Behind a size, each after a colon: float64, masked, bidirectional, N-layers (text:float64:2-layers).

All who are compared take turns of some milliseconds in one run, peers in processes of their own, PyTorch with one
thread and with all of them, of which the better counts. A ratio is how many times as fast numbarnn is; of the ratio
of the minima and that of the medians the lower one counts.

Examples:
  python -m numbarnn bench                                    layers, training steps, epochs, beside what is installed
  python -m numbarnn bench --cells LSTM --sizes text 8,20,32,64 --against torch
  python -m numbarnn bench --what all --json figures.json
  python -m numbarnn bench --table figures.json               what was measured, as Markdown

Exit status: 0; 1 if a peer failed in what it should be able to do; 2 if the command line is wrong; 130 after Ctrl-C
(with --json, what was measured until then is kept).
"""


def _names(known):
    """Make a type of comma-separated names."""

    def parse(text):
        names = [name for name in text.split(",") if name]
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(known)}")
        return names

    return parse


def _seconds(text):
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text}")
    return value


def _threads(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _peer_python(text):
    name, separator, python = text.partition("=")
    if name not in PEERS or not separator or not python:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PYTHON with NAME one of {', '.join(PEERS)}")
    found = shutil.which(python)
    if found is None:
        raise argparse.ArgumentTypeError(f"{python!r} is no interpreter that could be run")
    return name, found


def add_arguments(parser):
    """Add the arguments of ``bench``.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    """
    measures = "\n".join(f"  {name:12s} {measure.summary}" for name, measure in MEASURES.items())
    sizes = "\n".join(f"  {name:20s} {','.join(map(str, size))}" for name, size in SIZES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG.format(measures=measures, sizes=sizes)
    several = {"nargs": "+", "action": "extend"}
    parser.add_argument(
        "--what", **several, type=_names([*MEASURES, "all"]), metavar="MEASURE", help=f"default: {' '.join(DEFAULT)}"
    )
    parser.add_argument(
        "--cells", **several, type=_names(CELLS), metavar="CELL", help=f"{', '.join(CELLS)} (default: by measure)"
    )
    parser.add_argument(
        "--sizes", **several, metavar="SIZE", help="sizes and groups, see below (default: by measure; layers: grid)"
    )
    parser.add_argument(
        "--against",
        nargs="*",
        action="extend",
        type=_names(PEERS),
        metavar="PEER",
        help=f"{', '.join(PEERS)} (default: those installed; none if nothing follows)",
    )
    parser.add_argument(
        "--peer-python",
        **several,
        type=_peer_python,
        default=[],
        metavar="PEER=PYTHON",
        help="the interpreter of another environment that has a peer",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=3.0, help="for each comparison, all together (default: %(default)s)"
    )
    parser.add_argument("--threads", type=_threads, help="of everybody (default: as numbarnn uses)")
    parser.add_argument("--verbose", "-v", action="store_true", help="print everybody's minima and medians")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write versions, machine and all figures to a file")
    parser.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE", help="measure nothing: print what --json wrote as Markdown"
    )


def run(options):
    """Carry out the command.

    Parameters
    ----------
    options : argparse.Namespace

    Returns
    -------
    int
        Exit status.
    """
    try:
        if options.table:
            print(report.markdown([_read(path) for path in options.table]), end="")
            return 0
        what, setup = _setup(options)
    except ValueError as error:
        print(f"numbarnn bench: {error}", file=sys.stderr)
        return 2
    jit.set_num_threads(setup.threads)
    return _measure(what, setup, options)


def _setup(options):
    """Check the command line; return the measures' names and their `Setup`."""
    what = [name for group in options.what or [DEFAULT] for name in group]
    everything = "all" in what
    what = list(MEASURES) if everything else list(dict.fromkeys(what))
    pythons = dict(options.peer_python)
    if options.against is None:
        installed = [name for name in PEERS if not missing_packages(name, pythons.get(name, sys.executable))]
        against = [name for name in PEERS if name in pythons or name in installed]
    else:
        against = list(dict.fromkeys(name for group in options.against for name in group))
    for name in against:
        python = pythons.get(name, sys.executable)
        missing = missing_packages(name, python)
        if missing:
            raise ValueError(
                f"{name} is not installed for {python}: pip install {' '.join(missing)}, or name the interpreter that "
                f"has it: --peer-python {name}=PYTHON"
            )
    if options.json and (options.json.is_dir() or not options.json.absolute().parent.is_dir()):
        raise ValueError(f"--json: {options.json} is no file that could be written")
    setup = Setup(
        seconds=options.seconds,
        threads=options.threads or jit.get_num_threads(),
        pythons={name: pythons.get(name, sys.executable) for name in against},
        cells=None if options.cells is None else list(dict.fromkeys(n for group in options.cells for n in group)),
        cases=None if options.sizes is None else parse_cases(options.sizes),
    )
    obstacles = {name: reason for name in what if (reason := obstacle(name, setup))}
    if obstacles and not everything:
        raise ValueError("; ".join(f"--what {reason}" for reason in obstacles.values()))
    for reason in obstacles.values():
        print(f"left out: {reason}")
    return [name for name in what if name not in obstacles], setup


def _measure(what, setup, options):
    """Measure, print and store."""
    result = {
        "format": FORMAT,
        "command": shlex.join(["numbarnn", *sys.argv[1:]]),
        "machine": machine.describe(setup.threads),
        "seconds": setup.seconds,
        "peers": {},
        "complete": False,
        "rows": [],
    }
    rows = []
    try:
        needed = setup.pythons if any(MEASURES[name].needs_peers for name in what) else {}
        with started(needed, setup.threads) as peers:
            for peer in peers:
                result["peers"][peer.name] = peer.versions()
            setup.peers = peers
            print(machine.sentence(result["machine"], result["peers"]))
            if not setup.pythons:
                print("No peer takes part: numbarnn alone.")
            for name in what:
                print(f"\n{name}: {MEASURES[name].summary}; minimum, median", flush=True)
                if unfit := MEASURES[name].unfit(setup):
                    print(f"left out: {', '.join(unfit)}; {name} takes {MEASURES[name].takes}")
                found = []
                for row in MEASURES[name].run(name, setup):
                    found.append(row)
                    rows.append(row)
                    print("\n".join(report.lines(row, options.verbose)), flush=True)
                for line in report.closing(found):
                    print(line, flush=True)
            failed = {peer.label: peer.failures for peer in peers if peer.failures}
        result["complete"] = True
    except KeyboardInterrupt:
        print("\nnumbarnn bench: interrupted", file=sys.stderr)
        return 130
    except Unable as reason:
        print(f"numbarnn bench: a peer did not start: {reason}", file=sys.stderr)
        return 1
    finally:
        if options.json and rows:
            result["rows"] = [row.as_dict() for row in rows]
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for label, reasons in failed.items():
        print(f"numbarnn bench: {label} failed {len(reasons)} times, first: {reasons[0]}", file=sys.stderr)
    return 1 if failed else 0


def _read(path):
    """Read what `_measure` wrote."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["format"] != FORMAT:
            raise ValueError(f"format {result['format']}")
        result["rows"] = [Row.from_dict(row) for row in result["rows"]]
    except OSError as error:
        raise ValueError(f"--table: {error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--table: {path} is no file that --json has written ({error})") from None
    return result
