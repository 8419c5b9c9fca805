"""Models in files.

``.numbarnn`` is one zip of JSON and safetensors (see `archive`): the configuration, the weights, the state of the
optimizer, of random generators and of stateful layers, so that a training goes on from it as if it had not stopped.
Files of Keras are the affair of `numbarnn.interop.keras_files`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import warnings

import numpy as np

from ..loading import expecting
from ..random import SeedGenerator
from ..serialization import custom_object_scope, deserialize_keras_object, serialize_keras_object
from . import archive
from .functional import Functional
from .model import Model
from .sequential import Sequential

__all__ = [
    "load_model",
    "load_weights",
    "read_training_state",
    "save_model",
    "save_weights",
    "write_training_state",
]

_OURS = ".numbarnn"
_WEIGHTS, _STATE, _OPTIMIZER = "weights.safetensors", "state.safetensors", "optimizer.safetensors"
_CONFIG, _EXTRAS, _TRAINED = "config.json", "extras.json", "optimizer.json"
_SHUFFLE = "shuffle"  # in `_STATE`: what gives the order of the samples


def save_model(model, filepath, overwrite=True, zipped=None, include_optimizer=True):
    """Write a whole model to a file.

    Parameters
    ----------
    model : Model
    filepath : str or path
        Ends in ``.numbarnn``: with `load_model` everything goes on as it was, training included, bit for bit. Or ends
        in ``.keras``, for Keras, whose files leave out the states of random generators and stateful layers.
    overwrite : bool
        Whether a file of this name may be replaced: by the new one at once, when it is whole and on the disk.
    zipped : bool, optional
        Accepted for Keras's sake: a file is one zip; True or None.
    include_optimizer : bool
        Whether what the model was compiled with, and the optimizer's state, are written.

    Raises
    ------
    ValueError
        If the name ends otherwise, or something cannot be described: a lambda, a layer that is an attribute of the
        model but not in its graph. Nothing is written then.
    NotImplementedError
        If a layer of your own has no `get_config` and was made of other than plain values.
    FileExistsError
        If there is such a file and `overwrite` is False.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from numbarnn import layers, models
    >>> model = models.Sequential([layers.Input((None, 3)), layers.LSTM(4), layers.Dense(1)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "forecast.numbarnn"
    ...     model.save(path)
    ...     twin = models.load_model(path)
    >>> all((a == b).all() for a, b in zip(model.get_weights(), twin.get_weights()))
    True
    """
    _check_model(model)
    if zipped is False:
        raise ValueError("A model is saved as one zip file. Received: zipped=False")
    path = _path(filepath, "save a model to", (_OURS, ".keras"), (".weights.numbarnn", ".weights.h5"))
    if not path.endswith(_OURS):
        keras_files = _keras_files()
        _check_overwrite(path, overwrite)
        keras_files.save_model(model, path, include_optimizer)
        return
    config = serialize_keras_object(model)
    if not include_optimizer:
        config.pop("compile_config", None)
    _check_attributes(model)
    members = {_CONFIG: _lossless(config), **_states(model, include_optimizer)}
    _check_overwrite(path, overwrite)
    _write(path, members)


def load_model(filepath, custom_objects=None, compile=True, safe_mode=True):
    """Make the model that is in a file.

    Nothing in a file is run, and classes are found by name among those that are built in, registered or given here: it
    is safe to load a file from somebody else.

    Parameters
    ----------
    filepath : str or path
        ``.numbarnn``, or Keras's ``.keras``, ``.h5`` and ``.hdf5``.
    custom_objects : dict, optional
        Name -> class or function, for what is neither built in nor registered.
    compile : bool
        Compile it as it was, with the optimizer's state.
    safe_mode : bool
        Accepted for Keras's sake: code in a file is never run.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged, or does not fit together, or names a class that is not known.
    """
    path = _path(filepath, "load a model from", (_OURS, ".keras", ".h5", ".hdf5"))
    if not path.endswith(_OURS):
        return _keras_files().load_model(path, custom_objects, compile, safe_mode)
    members = archive.read(path, (_CONFIG, _WEIGHTS, _STATE))
    with _speaking_of(path):
        config = archive.json_of(members[_CONFIG], _CONFIG)
        weights, state = (archive.arrays_of(members[name], name) for name in (_WEIGHTS, _STATE))
        if not isinstance(config, dict):
            raise ValueError(f"{_CONFIG} describes no model")
        compiled = config.pop("compile_config", None)
        count = sum(array.size for array in (*weights.values(), *state.values()))
        with expecting(count), custom_object_scope(custom_objects or {}):
            model = deserialize_keras_object(_restored(config), custom_objects)
            if not isinstance(model, Model):
                raise ValueError(f"{_CONFIG} describes no model")
            if compiled and compile:
                model.compile_from_config(compiled)
        _assign(model, members, weights, state)
    return model


def save_weights(model, filepath, overwrite=True):
    """Write a model's weights to a file; see `Model.save_weights`."""
    _check_model(model)
    path = _path(filepath, "save weights to", (".weights.numbarnn", ".weights.h5"))
    if not path.endswith(_OURS):
        keras_files = _keras_files()
        _check_overwrite(path, overwrite)
        keras_files.save_weights(model, path)
        return
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' has no weights to save yet: call it on data, or use `model.build(input_shape)`."
        )
    weights, _ = model._named_variables()
    _check_overwrite(path, overwrite)
    _write(path, {_WEIGHTS: _values(weights)})


def load_weights(model, filepath, skip_mismatch=False):
    """Set a model's weights from a file; see `Model.load_weights`."""
    _check_model(model)
    path = _path(filepath, "load weights from", (_OURS, ".weights.h5", ".h5", ".hdf5", ".keras"))
    if not path.endswith(_OURS):
        _keras_files().load_weights(model, path, skip_mismatch)
        return
    members = archive.read(path, (_WEIGHTS,))
    with _speaking_of(path):
        weights = archive.arrays_of(members[_WEIGHTS], _WEIGHTS)
        variables, _ = model._named_variables()
        pairs, problems = _matched(variables, weights)
        if problems and not skip_mismatch:
            built = "" if model.built else "The model is not built: call it on data first. "
            raise ValueError(f"it does not fit model '{model.name}', and nothing was loaded. {built}{_some(problems)}")
    if problems:
        warnings.warn(f"Not loaded from {path}: {_some(problems)}", stacklevel=3)
    _store(pairs)


# ---------------------------------------------------------------------------------------------------------------
# the state of a training


def write_training_state(model, path, extras=None):
    """Write all that training changes in a model, so that `read_training_state` puts it back: for callbacks.

    That is the weights, the optimizer's state, the states of stateful layers and of random generators, among them the
    one that gives the order of the samples. The file takes the place of an older one when it is whole and on the disk.

    Parameters
    ----------
    model : Model
    path : str or path
        Of any name.
    extras : dict, optional
        What JSON has: the number of the epoch, say.
    """
    _check_model(model)
    _write(path, {_EXTRAS: dict(extras or {}), **_states(model, True)})


def read_training_state(model, path, prepare=None):
    """Put back what `write_training_state` wrote, all of it or nothing.

    Parameters
    ----------
    model : Model
        Of the same structure, built and compiled.
    path : str or path
    prepare : callable, optional
        ``prepare(extras)``, before anything is put back: what it raises says that the file is damaged.

    Returns
    -------
    dict
        The extras.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is damaged or does not fit the model, which stays as it was.
    """
    _check_model(model)
    members = archive.read(path, (_EXTRAS, _WEIGHTS, _STATE))
    with _speaking_of(path):
        extras = archive.json_of(members[_EXTRAS], _EXTRAS)
        if not isinstance(extras, dict):
            raise ValueError(f"{_EXTRAS} holds no dict")
        if prepare is not None:
            prepare(extras)
        if _OPTIMIZER in members and not model.compiled:
            raise ValueError(f"it holds the state of an optimizer: compile model '{model.name}' first")
        weights, state = (archive.arrays_of(members[name], name) for name in (_WEIGHTS, _STATE))
        _assign(model, members, weights, state)
    return extras


def _states(model, with_optimizer):
    """Return what training changes, as members of an archive."""
    weights, state = model._named_variables()
    arrays = _values(state)
    shuffle = model._training.shuffle_seed
    if shuffle is not None:
        arrays[_SHUFFLE] = shuffle.state.data
    members = {_WEIGHTS: _values(weights), _STATE: arrays}
    if not with_optimizer or not model.compiled:
        return members
    optimizer = model.optimizer
    names = {id(variable): name for name, variable in weights.items()}
    strangers = [v.path for v in optimizer._built_for if id(v) not in names]
    if strangers:
        raise ValueError(
            f"The optimizer of model '{model.name}' also updates variables that are not the model's, which would be "
            f"lost: {strangers}. Save without it: `include_optimizer=False`."
        )
    members[_TRAINED] = [names[id(variable)] for variable in optimizer._built_for]
    members[_OPTIMIZER] = {str(i): variable.data for i, variable in enumerate(optimizer.variables)}
    return members


def _assign(model, members, weights, state):
    """Set what training changes; raise ValueError before anything is set."""
    variables, carried = model._named_variables()
    state = dict(state)
    shuffle = state.pop(_SHUFFLE, None)
    pairs, problems = _matched(variables, weights, exact=True)
    more, further = _matched(carried, state, exact=True)
    pairs, problems = pairs + more, problems + further
    generator = None
    if shuffle is not None:
        generator = model._training.shuffle_seed or SeedGenerator(0, name=_SHUFFLE)
        more, further = _matched({_SHUFFLE: generator.state}, {_SHUFFLE: shuffle}, exact=True)
        pairs, problems = pairs + more, problems + further
    if problems:
        raise ValueError(f"it does not fit model '{model.name}', and nothing was loaded. {_some(problems)}")
    if _OPTIMIZER in members and model.compiled:
        pairs += _optimizer_pairs(model, members, variables)
    _store(pairs)
    model._training.shuffle_seed = generator


def _optimizer_pairs(model, members, variables):
    optimizer = model.optimizer
    trained = archive.json_of(members.get(_TRAINED, b"[]"), _TRAINED)
    arrays = archive.arrays_of(members[_OPTIMIZER], _OPTIMIZER)
    unknown = [name for name in trained if name not in variables]
    if unknown:
        raise ValueError(f"{_TRAINED} names weights that model '{model.name}' does not have: {unknown[:3]}")
    wanted = [variables[name] for name in trained]
    known = {id(v) for v in optimizer._built_for}
    if any(id(v) not in known for v in wanted):
        optimizer.build(wanted)
    if [id(v) for v in optimizer._built_for] != [id(v) for v in wanted]:
        raise ValueError(
            f"the optimizer of model '{model.name}' updates other variables, or in another order, than the one that "
            "was saved: make a new model, and load into that"
        )
    own = {str(i): variable for i, variable in enumerate(optimizer.variables)}
    pairs, problems = _matched(own, arrays, exact=True)
    if problems:
        raise ValueError(f"it does not fit the optimizer of model '{model.name}'. {_some(problems)}")
    return pairs


# ---------------------------------------------------------------------------------------------------------------
# variables and arrays


def _values(variables):
    return {name: variable.data for name, variable in variables.items()}


def _matched(variables, arrays, exact=False):
    """Return which variable is to get which array, and what does not fit."""
    pairs, problems = [], []
    for name, variable in variables.items():
        array = arrays.get(name)
        if array is None:
            problems.append(f"'{name}' is missing")
        elif array.shape != variable.shape:
            problems.append(f"'{name}' has shape {array.shape}, the model's {variable.shape}")
        elif array.dtype != variable.dtype and (exact or not np.can_cast(array.dtype, variable.dtype, "safe")):
            problems.append(f"'{name}' is of {array.dtype}, the model's of {variable.dtype}")
        else:
            pairs.append((variable, array))
    problems += [f"'{name}' is not in the model" for name in arrays if name not in variables]
    return pairs, problems


def _store(pairs):
    for variable, array in pairs:
        variable.assign(array)


def _some(problems, most=5):
    more = f"; and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(problems[:most]) + more


# ---------------------------------------------------------------------------------------------------------------
# files


def _write(path, members):
    package = importlib.import_module(__package__.partition(".")[0])
    archive.write(path, members, package.__version__)


@contextlib.contextmanager
def _speaking_of(path):
    """Say of which file it is that something is wrong with; whatever is raised becomes a ValueError."""
    try:
        yield
    except Exception as error:
        said = error if isinstance(error, (ValueError, TypeError)) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} cannot be loaded: {said}") from error


def _keras_files():
    # By name, because it lies above: see numbarnn.interop.
    return importlib.import_module("..interop.keras_files", __package__)


def _path(filepath, doing, suffixes, others=()):
    """Return a path as a string, which must end so and not so."""
    path = os.fspath(filepath)
    if not isinstance(path, str) or not path.endswith(suffixes) or path.endswith(others):
        raise ValueError(f"To {doing} a file, its name must end in {' or '.join(suffixes)}. Received: {filepath!r}")
    return path


def _check_overwrite(path, overwrite):
    if not overwrite and os.path.exists(path):
        raise FileExistsError(f"{path} exists. Pass `overwrite=True` to replace it.")


def _check_model(model):
    if not isinstance(model, Model):
        raise ValueError(f"`model` must be a Model. Received: {model!r}")


def _check_attributes(model):
    """Refuse layers that are attributes of a model which its configuration does not have."""
    if type(model) not in (Sequential, Functional):
        return
    drawn = {id(layer) for layer in model.layers}
    if isinstance(model, Sequential):
        drawn.add(id(model._input))
    extra = [layer.name for layer in model._sublayers if id(layer) not in drawn]
    if extra:
        raise ValueError(
            f"Model '{model.name}' has layers as attributes that are not among its `layers`, and would be lost: "
            f"{extra}. Make the model in a subclass of `Model`."
        )


def _lossless(config):
    """Return a configuration with the tuples of its ends marked, which JSON would make lists."""
    if isinstance(config, dict):
        ends = ("input_layers", "output_layers")
        return {key: _marked(value) if key in ends else _lossless(value) for key, value in config.items()}
    return [_lossless(item) for item in config] if isinstance(config, (list, tuple)) else config


def _marked(nest):
    if isinstance(nest, dict):
        return {key: _marked(value) for key, value in nest.items()}
    if isinstance(nest, tuple):
        return {"class_name": "__tuple__", "config": {"value": [_marked(item) for item in nest]}}
    return [_marked(item) for item in nest] if isinstance(nest, list) else nest


def _restored(config):
    """Undo `_lossless`."""
    if isinstance(config, dict):
        ends = ("input_layers", "output_layers")
        return {key: _unmarked(value) if key in ends else _restored(value) for key, value in config.items()}
    return [_restored(item) for item in config] if isinstance(config, list) else config


def _unmarked(nest):
    if isinstance(nest, dict):
        if nest.get("class_name") == "__tuple__" and "config" in nest:
            return tuple(_unmarked(item) for item in nest["config"]["value"])
        return {key: _unmarked(value) for key, value in nest.items()}
    return [_unmarked(item) for item in nest] if isinstance(nest, list) else nest
