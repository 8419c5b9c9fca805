"""The file of a model: a zip of JSON and safetensors, read with care.

Members are stored as they are, not compressed, so that nothing unpacks to more than the file has. Each has its
checksum, and ``metadata.json`` says which there are, and their sizes. Nothing in it is ever run, or written to disk.
"""

from __future__ import annotations

import json
import time
import zipfile

import numpy as np

from ..utils.files import replacing

__all__ = ["arrays_of", "bytes_of", "json_of", "read", "write"]

_FORMAT, _VERSION = "numbarnn", 1
_METADATA = "metadata.json"
_MEMBERS = {
    *("config.json", "extras.json", "optimizer.json"),
    *("weights.safetensors", "state.safetensors", "optimizer.safetensors"),
}


def write(path, members, version):
    """Write an archive in the place of the file there, which stays until the new one is on the disk.

    Parameters
    ----------
    path : str or path
    members : dict
        Name -> bytes, or what `bytes_of` takes. Arrays are written from where they lie: nothing is copied.
    version : str
        Of the library.
    """
    parts = {name: [item] if isinstance(item, bytes) else _parts(item) for name, item in members.items()}
    metadata = {
        "format": _FORMAT,
        "format_version": _VERSION,
        "numbarnn_version": version,
        "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S"),
        "members": {name: sum(map(len, content)) for name, content in parts.items()},
    }
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in {_METADATA: _parts(metadata), **parts}.items():
            info = zipfile.ZipInfo(name, time.localtime()[:6])
            info.external_attr = 0o600 << 16  # as `ZipFile.writestr` has it
            with archive.open(info, "w", force_zip64=sum(map(len, content)) > zipfile.ZIP64_LIMIT) as member:
                for part in content:
                    member.write(part)


def read(path, needed):
    """Read an archive.

    Parameters
    ----------
    path : str or path
    needed : iterable of str
        Names of members that must be there.

    Returns
    -------
    dict
        Name -> bytes.

    Raises
    ------
    FileNotFoundError
    ValueError
        If it is no such archive, is damaged, or has other members than it should.
    """
    with open(path, "rb") as file:
        try:
            members = _members(file)
            metadata = json_of(members.pop(_METADATA), _METADATA)
            if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
                raise ValueError(f"{_METADATA} does not say that it is one")
            if metadata.get("format_version") != _VERSION:
                raise ValueError(
                    f"it is of format {metadata.get('format_version')!r}, written by numbarnn "
                    f"{metadata.get('numbarnn_version')!r}; this version reads format {_VERSION}"
                )
            if metadata.get("members") != {name: len(content) for name, content in members.items()}:
                raise ValueError(f"its members are not those that {_METADATA} names: {sorted(members)}")
            missing = sorted(set(needed) - set(members))
            if missing:
                raise ValueError(f"it has no {', no '.join(missing)}, but {sorted(members)}")
        except Exception as error:  # a damaged zip comes out in a dozen ways
            raise ValueError(f"{path} is not a numbarnn file, or a damaged one: {error}") from error
    return members


def _members(file):
    size = file.seek(0, 2)
    found, total = {}, 0
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename
            if name not in _MEMBERS and name != _METADATA:
                raise ValueError(f"it has a member {name!r}")
            if name in found:
                raise ValueError(f"it has two members {name!r}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise ValueError(f"its member {name!r} is compressed")
            total += info.file_size
            if total > size:
                raise ValueError("its members are larger than the file")
            found[name] = archive.read(info)
    if _METADATA not in found:
        raise ValueError(f"it has no {_METADATA}")
    return found


# ---------------------------------------------------------------------------------------------------------------
# what is in the members


def bytes_of(item):
    """Return a dict of arrays as safetensors, anything else as JSON.

    Parameters
    ----------
    item : dict of str to ndarray, or what JSON has

    Returns
    -------
    bytes
    """
    return b"".join(_parts(item))


# Of safetensors: a number's kind and bytes.
_TYPES = {
    "b1": "BOOL", "i1": "I8", "u1": "U8", "i2": "I16", "u2": "U16", "i4": "I32", "u4": "U32", "i8": "I64", "u8": "U64",
    "f2": "F16", "f4": "F32", "f8": "F64",
}  # fmt: skip


def _parts(item):
    """Return the pieces of `bytes_of`: for arrays their memory, behind a header that says what lies where.

    The writer of safetensors copies everything three times.
    """
    if not (isinstance(item, dict) and item and all(isinstance(value, np.ndarray) for value in item.values())):
        return [json.dumps(item).encode()]
    header, end, parts = {}, 0, []
    for key, x in sorted(item.items(), key=lambda pair: (-pair[1].itemsize, pair[0])):  # each on a multiple of its size
        x = np.ascontiguousarray(x, x.dtype.newbyteorder("<")).reshape(x.shape)
        start, end = end, end + x.nbytes
        header[key] = {"dtype": _TYPES[x.dtype.str[1:]], "shape": x.shape, "data_offsets": (start, end)}
        parts.append(memoryview(x.reshape(-1).view(np.uint8)))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *parts]


def json_of(content, name):
    """Read JSON.

    Parameters
    ----------
    content : bytes
    name : str
        Of the member, for messages.

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    ValueError
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON, or nested too deeply: {error}") from error


def arrays_of(content, name):
    """Read safetensors.

    Parameters
    ----------
    content : bytes
    name : str
        Of the member, for messages.

    Returns
    -------
    dict of str to ndarray
        Read-only arrays.

    Raises
    ------
    ValueError
    """
    from safetensors.numpy import load

    if content == b"{}":  # `bytes_of` an empty dict
        return {}
    try:
        arrays = load(content)
    except Exception as error:  # its own type, and KeyError for types that NumPy lacks
        raise ValueError(f"{name} holds no safetensors, or damaged ones: {error}") from error
    for key, array in arrays.items():
        if array.dtype == bool and (array.view(np.uint8) > 1).any():
            raise ValueError(f"{name}: {key!r} holds other bytes than those of booleans")
    return arrays
