"""The zip archive that a ``.keras`` file is."""

from __future__ import annotations

import zipfile
import zlib

__all__ = ["CONFIG", "METADATA", "WEIGHTS", "pack", "unpack"]

METADATA, CONFIG, WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
_ASSETS = "assets/"
# Texts are small; weights are stored as they are, and hardly shrink if somebody packed them.
_LARGEST_TEXT = 1 << 26
_LARGEST_UNQUESTIONED, _MOST_EXPANSION = 1 << 26, 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError)


def unpack(path):
    """Read the members of an archive. Nothing is written anywhere.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict
        Name -> bytes; `CONFIG` and `WEIGHTS` are there.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is no such archive, is damaged, has other members, or one that would unpack to far more than is stored.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {}
            for info in archive.infolist():
                members[_checked(path, info, members)] = archive.read(info) if info.file_size else b""
    except (FileNotFoundError, IsADirectoryError):
        raise
    except _DAMAGED as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        raise ValueError(f"{path} is not a .keras file, or a damaged one: {error}") from error
    members.pop(_ASSETS, None)
    missing = [name for name in (CONFIG, WEIGHTS) if name not in members]
    if missing:
        raise ValueError(f"{path} is not a .keras file: it has no {' and no '.join(missing)}")
    return members


def _checked(path, info, members):
    """The name of a member that may be read."""
    name, size = info.filename, info.file_size
    if name not in (METADATA, CONFIG, WEIGHTS, _ASSETS) or name in members:
        raise ValueError(f"{path}: unexpected member {name!r}; a .keras file of a model of ours has no such thing")
    if name == _ASSETS and size:
        raise ValueError(f"{path}: {name!r} should be a folder")
    if name in (METADATA, CONFIG) and size > _LARGEST_TEXT:
        raise ValueError(f"{path}: {name!r} would have {size} bytes: refused")
    if size > _LARGEST_UNQUESTIONED and size > _MOST_EXPANSION * info.compress_size:
        raise ValueError(f"{path}: {name!r} would unpack {info.compress_size} bytes to {size}: refused")
    return name


def pack(file, members):
    """Write an archive.

    Parameters
    ----------
    file : binary file
        Open for writing.
    members : dict
        Name -> bytes or memoryview.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
