"""MNIST: 70,000 handwritten digits, pictures of 28 x 28 grey levels.

Yann LeCun and Corinna Cortes hold the copyright of MNIST, a derivative work of the NIST data sets; it is available
under the Creative Commons Attribution-Share Alike 3.0 license.
"""

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np

__all__ = ["load_data"]

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"


def load_data(path="mnist.npz"):
    """Load MNIST, from a file that is downloaded at the first call: 11 MB.

    Parameters
    ----------
    path : str
        Where the file is, or is to be: in the folder ``datasets`` of ``~/.keras``, or of the folder that the
        environment variable ``KERAS_HOME`` names, unless `path` is absolute. Keras keeps its file in the same place.

    Returns
    -------
    ((x_train, y_train), (x_test, y_test))
        `x` is uint8 of shape (60000, 28, 28) and (10000, 28, 28), grey levels from 0 to 255; `y` is uint8 of shape
        (60000,) and (10000,), the digit 0 to 9.

    Raises
    ------
    ImportError
        If there is no file and pooch, which downloads it, is not installed.
    OSError
        If there is no file and it cannot be downloaded.
    ValueError
        If the file is not the one that it should be: cut off, or altered.
    """
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path = Path(home).expanduser() / "datasets" / path
    if not path.exists():
        _download(path)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise ValueError(
            f"The file {path} is not MNIST, or not all of it: its SHA-256 is {found}, expected {SHA256}. Delete it to "
            "have it downloaded again."
        )
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"The file {path} does not hold the arrays of MNIST: {error}") from error


def _download(path):
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"MNIST is not in {path}, and pooch, which downloads it, is not installed. "
            "Install it with: pip install 'numbarnn[datasets]'"
        ) from error
    # pooch writes to another file first and gives it its name when the hash is right.
    pooch.retrieve(URL, f"sha256:{SHA256}", fname=path.name, path=path.parent, progressbar=False)
