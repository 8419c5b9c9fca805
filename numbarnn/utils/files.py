"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["replacing"]


def _opened(temporary, path):
    try:
        return open(temporary, "xb")
    except OSError as error:
        why = "there is no such folder" if isinstance(error, FileNotFoundError) else error.strerror
        said = f"Cannot write '{path.name}' into this folder: {why}"
        raise OSError(error.errno, said, str(path.parent)) from None


@contextlib.contextmanager
def replacing(path):
    """Write a file that takes the place of another only when it is whole and on the disk.

    Whatever ends the process on the way, the old file stays, or the new one is complete; one that was begun may be left
    beside it, named ``.<name>.<random>``.

    Parameters
    ----------
    path : str or path
        Where a symbolic link leads to is replaced, not the link.

    Yields
    ------
    binary file
        Open for writing, in the same folder.

    Raises
    ------
    OSError
        If there is no such folder, or it cannot be written to.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with contextlib.ExitStack() as on_error:
        with _opened(temporary, path) as file:
            on_error.callback(temporary.unlink, missing_ok=True)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        on_error.pop_all()
    if hasattr(os, "O_DIRECTORY"):  # the new name itself; folders cannot be opened everywhere
        folder = os.open(path.parent, os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
