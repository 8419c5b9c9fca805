"""HDF5 files, read with suspicion.

A file may come from anywhere. Nothing is read from outside of it (no links, no external or virtual datasets), nothing
that is larger than what it is for, and whatever HDF5 itself finds wrong is a `ValueError` here.
"""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np

__all__ = ["Dataset", "Group", "require_h5py", "reading"]

MOST_GROUPS, MOST_LEVELS = 100_000, 64
_MOST_EXPANSION = 20  # numbers in a byte that is stored
LARGEST_CHUNK = 1 << 26  # bytes that HDF5 may have to unpack to give a part of a dataset
_DAMAGED = (OSError, RuntimeError, KeyError, TypeError, ValueError, UnicodeDecodeError)  # as h5py reports it


def require_h5py():
    """Return the module h5py.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError("Files of Keras need h5py: pip install 'numbarnn[hdf5]'") from error
    return h5py


@contextlib.contextmanager
def reading(source, name):
    """Open a file to read.

    Parameters
    ----------
    source : path or bytes
        A file, or all that is in one.
    name : str
        What to call it in messages.

    Yields
    ------
    Group
        Its root.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is no HDF5 file, or a damaged one.
    """
    library = require_h5py()
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        file = library.File(source, "r")
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{name} is not an HDF5 file, or a damaged one: {error}") from error
    try:
        yield Group(file, name, "")
    finally:
        file.close()


class Group:
    """A group of a file.

    Parameters
    ----------
    group : h5py.Group
    file_name, path : str
        Of the file and in it, for messages.
    """

    def __init__(self, group, file_name, path):
        self._group, self._file_name, self.path = group, file_name, path

    def _at(self, name):
        return f"{self.path}/{name}".lstrip("/")

    def _invalid(self, name, reason):
        return ValueError(f"{self._file_name}: '{self._at(name)}' {reason}")

    def names(self):
        """Return the names of what is in the group, sorted.

        Returns
        -------
        list of str
        """
        try:
            return sorted(self._group)
        except _DAMAGED as error:
            raise self._invalid("", f"is damaged: {error}") from error

    def _member(self, name):
        """Return what has a name in the group itself, None if nothing has."""
        try:
            link = self._group.get(name, getclass=True, getlink=True)
            if link is None:
                return None
            if link is not require_h5py().HardLink:
                raise self._invalid(name, "is a link, which could lead out of the file: refused")
            return self._group[name]
        except _DAMAGED as error:
            if isinstance(error, ValueError) and self._file_name in str(error):
                raise
            raise self._invalid(name, f"is damaged: {error}") from error

    def find(self, path):
        """Return the group at a path below this one, None if there is nothing.

        Parameters
        ----------
        path : str

        Returns
        -------
        Group or None

        Raises
        ------
        ValueError
            If something on the way is no group of this file.
        """
        group = self
        for part in path.split("/") if path else ():
            if part in ("", ".", ".."):
                raise self._invalid(path, "is no path of a group")
            member = group._member(part)
            if member is None:
                return None
            if not isinstance(member, require_h5py().Group):
                raise group._invalid(part, "is no group")
            group = Group(member, self._file_name, group._at(part))
        return group

    def group(self, path):
        """Return the group at a path below this one.

        Parameters
        ----------
        path : str

        Returns
        -------
        Group

        Raises
        ------
        ValueError
            If there is none.
        """
        found = self.find(path)
        if found is None:
            raise self._invalid(path, "is missing")
        return found

    def dataset(self, path):
        """Return the dataset at a path below this group, unread.

        Parameters
        ----------
        path : str

        Returns
        -------
        Dataset

        Raises
        ------
        ValueError
            If there is none, or it is not what numbers of a weight are stored in.
        """
        above, _, name = path.rpartition("/")
        group = self.group(above)
        if name in ("", ".", ".."):
            raise self._invalid(path, "is no path of a dataset")
        member = group._member(name)
        if member is None:
            raise self._invalid(path, "is missing")
        if not isinstance(member, require_h5py().Dataset):
            raise self._invalid(path, "is no dataset")
        try:
            return Dataset(member, f"{self._file_name}: '{self._at(path)}'")
        except (OSError, RuntimeError, TypeError) as error:
            raise self._invalid(path, f"is damaged: {error}") from error

    def contents(self):
        """Find all datasets below.

        Returns
        -------
        dict
            Path of a group -> how many numbers its datasets hold; no more than what is stored of them could be.
        """
        found, count = {}, 0
        waiting = [(self, 0)]
        while waiting:
            group, level = waiting.pop()
            for name in group.names():
                count += 1
                member = group._member(name)
                if isinstance(member, require_h5py().Dataset):
                    stored = _MOST_EXPANSION * member.id.get_storage_size()
                    found[group.path] = found.get(group.path, 0) + min(member.size or 0, stored)
                elif isinstance(member, require_h5py().Group):
                    if level == MOST_LEVELS or count > MOST_GROUPS:
                        raise group._invalid(name, "is one group too many: no model is so deep or so large")
                    waiting.append((Group(member, self._file_name, group._at(name)), level + 1))
        return found

    def count_numbers(self):
        """Return how many numbers all datasets below hold.

        Returns
        -------
        int
        """
        return sum(self.contents().values())

    def _attribute(self, name):
        try:
            return self._group.attrs.get(name)
        except _DAMAGED as error:
            raise self._invalid("", f"has a damaged attribute '{name}': {error}") from error

    def text(self, name):
        """Return an attribute that is a text, None if there is none.

        Parameters
        ----------
        name : str

        Returns
        -------
        str or None
        """
        value = self._attribute(name)
        return None if value is None else self._decoded(name, value)

    def texts(self, name):
        """Return an attribute that is a list of texts, which Keras cuts into pieces if it is long.

        Parameters
        ----------
        name : str

        Returns
        -------
        list of str, or None
            None if there is none.
        """
        values = self._attribute(name)
        if values is None:
            pieces, number = [], 0
            while (piece := self._attribute(f"{name}{number}")) is not None:
                pieces.append(piece)
                number += 1
            if not pieces:
                return None
        else:
            pieces = [values]
        return [self._decoded(name, value) for piece in pieces for value in np.atleast_1d(piece)]

    def _decoded(self, name, value):
        if isinstance(value, bytes):
            try:
                value = value.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self._invalid("", f"has an attribute '{name}' that is no text: {error}") from error
        if not isinstance(value, str):
            raise self._invalid("", f"has an attribute '{name}' that is no text, but {type(value).__name__}")
        return str(value)


class Dataset:
    """An array in a file, not read yet.

    Parameters
    ----------
    dataset : h5py.Dataset
    name : str
        What to call it in messages.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype

    Raises
    ------
    ValueError
        If its numbers are not in the file, or are no numbers.
    """

    def __init__(self, dataset, name):
        if dataset.external or dataset.is_virtual:
            raise ValueError(f"{name} has its numbers in another file: refused")
        if dataset.shape is None or dataset.dtype.kind not in "fiub":
            raise ValueError(f"{name}: a weight is an array of numbers, not of {dataset.dtype}")
        chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
        if chunk > LARGEST_CHUNK:
            raise ValueError(f"{name} is packed in pieces of {chunk} bytes: refused")
        self._dataset, self._name = dataset, name
        self.shape, self.dtype = dataset.shape, dataset.dtype

    def read(self, shape=None):
        """Return the array.

        Parameters
        ----------
        shape : tuple of int, optional
            What it must have, so that a file cannot fill the memory. Where that is not known, the array may be about
            as large as what is stored of it.

        Returns
        -------
        ndarray

        Raises
        ------
        ValueError
            If it has another shape, is too large or damaged.
        """
        if shape is None and self._dataset.size > _MOST_EXPANSION * self._dataset.id.get_storage_size():
            raise ValueError(f"{self._name} would have {self._dataset.size} numbers, of which few are stored: refused")
        if shape is not None and self.shape != tuple(shape):
            raise ValueError(f"{self._name} should have shape {tuple(shape)}, and has {self.shape}")
        try:
            return np.asarray(self._dataset[()])
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{self._name} is damaged: {error}") from error
