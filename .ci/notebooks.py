"""The notebooks, from their sources: ``python .ci/notebooks.py`` runs each in its own kernel and writes its .ipynb.

``--check`` writes nothing: it runs them as well, and fails where the committed .ipynb does not have its source's cells.
Names of notebooks choose some of them. Needs ``pip install -e ".[notebooks]"``.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
LONGEST = 120  # seconds that one cell may take: compiling, on a slow machine
LARGEST = 300_000  # bytes


def read_source(path):
    """Return a py:percent source as a notebook, with cell names that stay the same from one run to the next."""
    notebook = jupytext.read(path)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    notebook.metadata.setdefault("kernelspec", {"display_name": "Python 3", "language": "python", "name": "python3"})
    return notebook


def run(notebook):
    """Execute a notebook in place, in a kernel of this Python."""
    os.environ["IPYKERNEL_CELL_NAME"] = "cell"  # in messages, in place of a temporary file's name
    NotebookClient(
        notebook, timeout=LONGEST, kernel_name="python3", record_timing=False, resources={"metadata": {"path": FOLDER}}
    ).execute()
    notebook.metadata.language_info = {"name": "python"}  # not which version of Python it was


def cells(notebook):
    """Return what a source and its .ipynb must have in common: types and texts of the cells."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def complaints(notebook, path):
    """Return what is wrong with the .ipynb at `path` as the pair of a source's notebook."""
    again = "run: python .ci/notebooks.py"
    if not path.exists():
        return [f"{path.name} is missing: {again}"]
    found = nbformat.read(path, as_version=4)
    wrong = []
    if cells(found) != cells(notebook):
        wrong.append(f"{path.name} does not have the cells of its source: {again}")
    if any(cell.cell_type == "code" and cell.execution_count is None for cell in found.cells):
        wrong.append(f"{path.name} was not executed: {again}")
    if path.stat().st_size > LARGEST:
        wrong.append(f"{path.name} has {path.stat().st_size} bytes, more than {LARGEST}: draw with fewer dots per inch")
    return wrong


def main():
    """Run the notebooks; end with status 1 and the complaints, if there are any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of notebooks, without ending (default: all)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args()
    sources = sorted(path for path in FOLDER.glob("*.py") if not options.names or path.stem in options.names)
    if not sources:
        sys.exit(f"no notebook of that name in {FOLDER}")
    wrong = [
        f"{path.name} has no source"
        for path in FOLDER.glob("*.ipynb")
        if not options.names and path.with_suffix(".py") not in sources
    ]
    for source in sources:
        begin = time.perf_counter()
        notebook, pair = read_source(source), source.with_suffix(".ipynb")
        run(notebook)
        if not options.check:
            nbformat.write(notebook, pair)
        wrong += complaints(notebook, pair)
        print(f"{source.stem}: {time.perf_counter() - begin:.1f} s")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
