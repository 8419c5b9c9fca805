"""Keras's files: whole models (``.keras``; ``.h5`` to read) and weights (``.weights.h5``; ``.h5`` to read).

Nothing in a file is ever run: configurations name classes and functions that are built in, registered or given in
`custom_objects`. A file is read and checked as a whole before any weight changes. The states of recurrent layers and
the seeds of random generators are not stored, as in Keras.
"""

from __future__ import annotations

import json
import os
import time
import warnings

from ..serialization import custom_object_scope
from ..utils.files import replacing
from . import archive, hdf5, keras_config, legacy_config, legacy_weights, weights_tree

__all__ = ["load_model", "load_weights", "save_model", "save_weights"]

_KERAS_VERSION = "3.15.1"  # whose layout is written


def _path(filepath, *suffixes):
    """A path as a str, which must end so."""
    path = os.fspath(filepath)
    if not isinstance(path, str) or not path.endswith(suffixes):
        raise ValueError(f"The filename must end in {' or '.join(f'`{s}`' for s in suffixes)}. Received: {filepath!r}")
    return path


def _require_built(model, doing):
    if not model.built:
        raise ValueError(
            f"You are {doing} a model that has not yet been built. Call it on data, or use `build()`, first. "
            f"Received: model '{model.name}'"
        )


def save_weights(model, filepath):
    """Write a model's weights, and its optimizer's state, as Keras 3 does.

    Parameters
    ----------
    model : Model
        Built.
    filepath : path
        Ends in ``.weights.h5``. A file of this name is replaced when the new one is complete.

    Raises
    ------
    ValueError
        If the name ends otherwise, the model is not built, or has weights where Keras finds none.
    ImportError
        Without h5py.
    """
    path = _path(filepath, ".weights.h5")
    _require_built(model, "saving the weights of")
    content = weights_tree.pack(model)
    with replacing(path) as file:
        file.write(content)


def load_weights(model, filepath, skip_mismatch=False):
    """Set a model's weights, and its optimizer's state if it is compiled, from a file of Keras 2 or 3.

    The file is recognised by what is in it: Keras 3's tree, or layers in their order.

    Parameters
    ----------
    model : Model
        Built; with the same layers as that whose weights were saved.
    filepath : path
        Ends in ``.weights.h5``, ``.h5``, ``.hdf5`` or ``.keras``.
    skip_mismatch : bool
        Leave out layers whose weights do not fit, with a warning.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the model is not built, or the file is damaged or does not fit; no weight is changed then.
    ImportError
        Without h5py.
    """
    path = _path(filepath, ".h5", ".hdf5", ".keras")
    _require_built(model, "loading weights into")
    source = archive.unpack(path)[archive.WEIGHTS] if path.endswith(".keras") else path
    with hdf5.reading(source, path) as root:
        layers = root if root.texts("layer_names") is not None else root.find("model_weights")
        if layers is None:
            found = weights_tree.read(model, root, skip_mismatch)
        else:
            found = legacy_weights.read(model, layers, skip_mismatch=skip_mismatch)
            if model.compiled:
                legacy_weights.read_optimizer(model, root, found)
    found.assign()


def save_model(model, filepath, include_optimizer=True):
    """Write a whole model as a ``.keras`` file, which Keras 3 loads: architecture, weights, what it was compiled with.

    Parameters
    ----------
    model : Model
    filepath : path
        Ends in ``.keras``. A file of this name is replaced when the new one is complete.
    include_optimizer : bool
        Whether what the model was compiled with, and the optimizer's state, are written.

    Raises
    ------
    ValueError
        If the name ends otherwise, or the model has something that Keras has not; nothing is written then.
    NotImplementedError
        If a layer has no configuration.
    ImportError
        Without h5py.
    """
    path = _path(filepath, ".keras")
    hdf5.require_h5py()
    if not model.built:
        warnings.warn(
            f"Model '{model.name}' is saved before it is built: the file will have no weights. Call it on data first.",
            stacklevel=2,
        )
    config = keras_config.described(model)
    if not include_optimizer:
        config.pop("compile_config", None)
    metadata = {"keras_version": _KERAS_VERSION, "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S")}
    members = {
        archive.METADATA: json.dumps(metadata).encode(),
        archive.CONFIG: json.dumps(config).encode(),
        archive.WEIGHTS: weights_tree.pack(model, include_optimizer),
    }
    with replacing(path) as file:
        archive.pack(file, members)


def load_model(filepath, custom_objects=None, compile=True, safe_mode=True):
    """Make the model that is in a file of Keras 2 or 3.

    Parameters
    ----------
    filepath : path
        Ends in ``.keras``, ``.h5`` or ``.hdf5``.
    custom_objects : dict, optional
        Name -> class or function, for what is neither built in nor registered.
    compile : bool
        Compile the model as it was, and go on with its optimizer's state.
    safe_mode : bool
        Accepted for Keras's sake: code in a file is never run.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
    ValueError, TypeError
        If the file is damaged, does not fit together, holds code, or names a class that is not known.
    ImportError
        Without h5py.
    """
    path = _path(filepath, ".keras", ".h5", ".hdf5")
    hdf5.require_h5py()
    with custom_object_scope(custom_objects or {}):
        return _load_archive(path, compile) if path.endswith(".keras") else _load_hdf5(path, compile)


def _load_archive(path, compile):
    members = archive.unpack(path)
    config = keras_config.parsed(members[archive.CONFIG], path)
    metadata = keras_config.parsed(members.get(archive.METADATA, b"{}"), path)
    compiled = config.pop("compile_config", None) if compile else None
    if _is_keras_2(metadata.get("keras_version", _KERAS_VERSION)):
        config = legacy_config.modern_model(config, True)
        compiled = compiled and legacy_config.modern_compile(compiled)
    with hdf5.reading(members[archive.WEIGHTS], path) as root:
        model = keras_config.made(config, compiled, root.count_numbers())
        found = weights_tree.read(model, root)
    found.assign()
    return model


def _load_hdf5(path, compile):
    with hdf5.reading(path, path) as root:
        text = root.text("model_config")
        if text is None:
            raise ValueError(
                f"{path} holds no model: the attribute 'model_config' is missing. Is it a file of weights?"
            )
        is_keras_2 = _is_keras_2(root.text("keras_version") or root.group("model_weights").text("keras_version"))
        config = legacy_config.modern_model(keras_config.parsed(text, path), is_keras_2)
        compiled = root.text("training_config") if compile else None
        compiled = compiled and legacy_config.modern_compile(keras_config.parsed(compiled, path))
        model = keras_config.made(config, compiled, root.count_numbers())
        found = legacy_weights.read(model, root.group("model_weights"), by_name=True)
        if model.compiled:
            legacy_weights.read_optimizer(model, root, found)
    found.assign()
    return model


def _is_keras_2(version):
    return version is None or str(version).startswith(("1.", "2."))
