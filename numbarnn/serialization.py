"""Objects to plain dicts and back, in Keras 3's format.

An object becomes ``{"module", "class_name", "config", "registered_name"}``. Built-in classes carry Keras's own module
names (``keras.layers``, ``keras.initializers``), so that what numbarnn writes can be read by Keras and the other way
round.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import itertools
import threading
from collections.abc import Hashable

import numpy as np

__all__ = [
    "CustomObjectScope",
    "custom_object_scope",
    "deserialize_keras_object",
    "export",
    "get_custom_objects",
    "get_registered_name",
    "get_registered_object",
    "lookup",
    "register_keras_serializable",
    "serialize_keras_object",
    "sharing",
]

_BUILTIN: dict[str, dict[str, object]] = {}  # module name as Keras spells it -> name -> class or function
_MODULE_OF: dict[object, tuple[str, str]] = {}  # class or function -> (module, name)
_REGISTERED: dict[str, object] = {}  # "package>name" -> class or function
_REGISTERED_NAMES: dict[object, str] = {}
_scopes = threading.local()  # stack: custom objects; written, read: see `sharing`


def export(module, *objects, **aliases):
    """Make built-in classes known under one of Keras's module names.

    Parameters
    ----------
    module : str
        E.g. ``"keras.layers"``.
    *objects : class or function
        Known by their `__name__`.
    **aliases : class or function
        Further names.
    """
    table = _BUILTIN.setdefault(module, {})
    for item in objects:
        table[item.__name__] = item
        _MODULE_OF[item] = (module, item.__name__)
    table.update(aliases)


def register_keras_serializable(package="Custom", name=None):
    """Decorate a class or function so that configurations naming it can be read.

    Parameters
    ----------
    package, name : str
        It is known as ``"package>name"``; the name defaults to its own.

    Returns
    -------
    callable
        The decorator.
    """

    def decorator(item):
        registered = f"{package}>{name or item.__name__}"
        if inspect.isclass(item) and not hasattr(item, "get_config"):
            raise ValueError("Cannot register a class that does not have a get_config() method.")
        _REGISTERED[registered] = item
        _REGISTERED_NAMES[item] = registered
        return item

    return decorator


def get_registered_name(item):
    """Return the name under which `item` was registered, or its own.

    Parameters
    ----------
    item : class or function

    Returns
    -------
    str
    """
    return _REGISTERED_NAMES.get(item, item.__name__)


def get_registered_object(name, custom_objects=None, module_objects=None):
    """Find a class or function by name among the scopes, the registry and the tables given.

    Parameters
    ----------
    name : str
    custom_objects, module_objects : dict, optional

    Returns
    -------
    object or None
    """
    for table in (custom_objects, *reversed(getattr(_scopes, "stack", ())), _REGISTERED, module_objects):
        if table and name in table:
            return table[name]
    return None


def get_custom_objects():
    """Return the registry of custom objects itself: name -> class or function.

    Returns
    -------
    dict
    """
    return _REGISTERED


@contextlib.contextmanager
def custom_object_scope(custom_objects):
    """Within the block, names in `custom_objects` are understood when configurations are read.

    Parameters
    ----------
    custom_objects : dict
        Name -> class or function.
    """
    stack = _scopes.__dict__.setdefault("stack", [])
    stack.append(dict(custom_objects))
    try:
        yield
    finally:
        stack.pop()


CustomObjectScope = custom_object_scope


@contextlib.contextmanager
def sharing(apart=False):
    """Within the block, an object that occurs several times in what is written or read is one object.

    The outermost block counts. `serialize_keras_object` and `deserialize_keras_object` open one themselves; who calls
    them several times for one configuration, such as a model for its layers, opens it around them.

    Parameters
    ----------
    apart : bool
        Whether this is another configuration than that of a block around: none of its objects is one of that.

    Yields
    ------
    callable
        ``drop_single(config)`` takes the marks of those that occur once out of what was written; it does nothing in an
        inner block.
    """
    before = getattr(_scopes, "written", None), getattr(_scopes, "read", None)
    if before[0] is not None and not apart:
        yield lambda config: config
        return
    _scopes.written, _scopes.read = {}, {}  # id -> (object, its mark); mark -> object
    try:
        yield _drop_single
    finally:
        _scopes.written, _scopes.read = before


def _drop_single(config):
    """Take away the marks of objects that occur once; number the others 1, 2, ... as they come."""
    counts, marked = {}, []

    def visit(item):
        if isinstance(item, dict):
            if "shared_object_id" in item:
                mark = item["shared_object_id"]
                counts[mark] = counts.get(mark, 0) + 1
                marked.append(item)
            for value in item.values():
                visit(value)
        elif isinstance(item, (list, tuple)):
            for value in item:
                visit(value)

    visit(config)
    fresh = itertools.count(1)
    numbers = {mark: next(fresh) for mark, count in counts.items() if count > 1}
    for item in marked:
        mark = item.pop("shared_object_id")
        if mark in numbers:
            item["shared_object_id"] = numbers[mark]
    return config


def serialize_keras_object(obj):
    """Turn an object into plain Python values.

    Parameters
    ----------
    obj : None, bool, number, str, array, slice, list, tuple, dict, function, or object with `get_config`
        An object that occurs in it several times, such as a cell in two layers, is marked by a ``shared_object_id``.

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    ValueError
        If the object is none of these; a lambda has no name under which it could be found again.
    """
    with sharing() as drop_single:
        return drop_single(_serialize(obj))


def _serialize(obj):
    if obj is None or isinstance(obj, (bool, int, float, str)):
        return obj
    if isinstance(obj, bytes):
        return {"class_name": "__bytes__", "config": {"value": obj.decode("utf-8")}}
    if isinstance(obj, np.generic):
        return obj.item()
    if isinstance(obj, np.ndarray):
        return {"class_name": "__numpy__", "config": {"value": obj.tolist(), "dtype": obj.dtype.name}}
    if isinstance(obj, np.dtype):
        return obj.name
    if isinstance(obj, slice):
        bounds = {key: _serialize(getattr(obj, key)) for key in ("start", "stop", "step")}
        return {"class_name": "__slice__", "config": bounds}
    if obj is Ellipsis:
        return {"class_name": "__ellipsis__", "config": {}}
    if isinstance(obj, tuple):
        return tuple(_serialize(item) for item in obj)
    if isinstance(obj, list):
        return [_serialize(item) for item in obj]
    if isinstance(obj, dict):
        return {key: _serialize(value) for key, value in obj.items()}
    if inspect.isfunction(obj) or inspect.isbuiltin(obj) or _is_known_function(obj):
        if obj.__name__ == "<lambda>":
            raise ValueError(
                "A lambda cannot be serialized: it has no name. Define a function with `def` and decorate it with "
                f"`numbarnn.saving.register_keras_serializable()`. Received: {obj!r}"
            )
        registered = None if obj in _MODULE_OF else get_registered_name(obj)
        module, name = _MODULE_OF.get(obj, (obj.__module__, registered))
        return {"module": module, "class_name": "function", "config": name, "registered_name": registered}
    if not hasattr(obj, "get_config") or inspect.isclass(obj):
        raise ValueError(f"Cannot serialize {obj!r} (of type {type(obj).__name__}): it has no get_config() method.")
    cls = getattr(type(obj), "_serialized_as", type(obj))
    builtin = _MODULE_OF.get(cls)
    inner = obj.get_config()
    if not isinstance(inner, dict):
        raise ValueError(f"The `get_config()` method of {obj!r} should return a dict. It returned: {inner!r}")
    config = {
        "module": builtin[0] if builtin else cls.__module__,
        "class_name": cls.__name__,
        "config": _serialize(inner),
        "registered_name": None if builtin else get_registered_name(cls),
    }
    for key in ("build_config", "compile_config"):
        further = getattr(obj, f"get_{key}", None)
        further = None if further is None else further()
        if further is not None:
            config[key] = _serialize(further)
    # The object is kept, so that no other one has its id while this lasts.
    config["shared_object_id"] = _scopes.written.setdefault(id(obj), (obj, len(_scopes.written)))[1]
    return config


def _is_known_function(obj):
    """Say whether something callable that is no Python function, such as an operation, was exported or registered."""
    if inspect.isclass(obj) or not callable(obj) or not isinstance(obj, Hashable):
        return False
    return obj in _MODULE_OF or obj in _REGISTERED_NAMES


def _find(name, module, registered_name, custom_objects, module_objects):
    for key in (registered_name, name):
        found = key and get_registered_object(key, custom_objects)
        if found:
            return found
    for table in (_BUILTIN.get(module), module_objects):
        if table and name in table:
            return table[name]
    if module is None or module.split(".")[0] in ("keras", "tf_keras", "numbarnn", "builtins"):  # functions of Keras
        for table in _BUILTIN.values():
            if name in table:
                return table[name]
    return None


def lookup(module, name):
    """Find a built-in by Keras's module name and its own name.

    Parameters
    ----------
    module, name : str

    Returns
    -------
    class, function or None
    """
    return _BUILTIN.get(module, {}).get(name)


def deserialize_keras_object(config, custom_objects=None, module_objects=None, safe_mode=True):
    """Make the object that `serialize_keras_object` turned into `config`.

    Parameters
    ----------
    config : None, bool, number, str, list or dict
    custom_objects : dict, optional
        Name -> class or function, looked into first.
    module_objects : dict, optional
        Name -> class or function: what a bare string or a dict without `module` may mean.
    safe_mode : bool
        Accepted for Keras's sake: code in a configuration is never run.

    Returns
    -------
    object

    Raises
    ------
    ValueError, TypeError
        If the configuration names something unknown, or holds code.
    """
    with sharing():
        return _deserialize(config, custom_objects, module_objects)


def _deserialize(config, custom_objects, module_objects=None):
    if config is None or isinstance(config, (bool, int, float)):
        return config
    if isinstance(config, str):
        found = get_registered_object(config, custom_objects, module_objects)
        return config if found is None else found
    if isinstance(config, (list, tuple)):
        return [_deserialize(item, custom_objects) for item in config]
    if not isinstance(config, dict):
        raise TypeError(f"Could not parse config: {config!r}")
    if "class_name" not in config or "config" not in config:
        return {key: _deserialize(value, custom_objects) for key, value in config.items()}

    name, inner = config["class_name"], config["config"]
    if name in _PLAIN:
        return _PLAIN[name](inner, custom_objects)
    if name == "__lambda__":
        raise ValueError(
            "The configuration holds the code of a lambda, which numbarnn never runs. Write a function with `def`, "
            "register it by `numbarnn.saving.register_keras_serializable()`, and save the model with that."
        )
    mark = config.get("shared_object_id")
    if mark is not None and mark in _scopes.read:
        return _scopes.read[mark]
    module, registered_name = config.get("module"), config.get("registered_name")
    if name == "function":
        found = _find(inner, module, registered_name, custom_objects, module_objects)
        if found is None:
            raise TypeError(_unknown("function", inner, module))
        return found
    cls = _find(name, module, registered_name, custom_objects, module_objects)
    if cls is None:
        raise TypeError(_unknown("class", name, module))
    if not hasattr(cls, "from_config"):
        raise TypeError(
            f"Unable to reconstruct an instance of '{name}' because the class has no `from_config()` method."
        )
    with custom_object_scope(custom_objects or {}):
        instance = cls.from_config(inner)
        build_config = config.get("build_config")
        if build_config and not getattr(instance, "built", True):
            instance.build_from_config(_deserialize(build_config, None))
        compile_config = config.get("compile_config")
        if compile_config and hasattr(instance, "compile_from_config"):
            instance.compile_from_config(compile_config)
    if mark is not None:
        _scopes.read[mark] = instance
    return instance


def _array_of(value, dtype):
    dtype = np.dtype(dtype)
    if dtype.kind not in "biufc":  # a string of a billion characters, say, takes so much memory for each value
        raise ValueError(
            f"An array in a configuration must be one of numbers or booleans. Received: dtype={dtype!s:.99}"
        )
    return np.asarray(value, dtype)


_PLAIN = {
    "__tuple__": lambda inner, custom_objects: tuple(_deserialize(item, custom_objects) for item in inner["value"]),
    "__numpy__": lambda inner, _: _array_of(inner["value"], inner["dtype"]),
    "__bytes__": lambda inner, _: inner["value"].encode("utf-8"),
    "__slice__": lambda inner, _: slice(inner["start"], inner["stop"], inner["step"]),
    "__ellipsis__": lambda inner, _: Ellipsis,
}


def suggestion(name, names):
    """Say which of several names may have been meant: str, empty if none looks like it."""
    close = difflib.get_close_matches(str(name), list(map(str, names)), 1)
    return f". Did you mean {close[0]!r}?" if close else ""


def interpret(identifier, what, deserialize, names=()):
    """Turn a name, a configuration, a class or a callable into a callable: what the `get` functions share.

    Parameters
    ----------
    identifier : str, dict, class or callable
    what : str
        What it stands for, as in messages.
    deserialize : callable
        Takes names and configurations.
    names : iterable of str
        Those that are known, to suggest one of.

    Returns
    -------
    callable
        A class is instantiated without arguments.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    found = identifier
    if isinstance(identifier, (dict, str)):
        try:
            found = deserialize(identifier)
        except TypeError as error:
            raise ValueError(f"Could not interpret {what} identifier: {identifier}. {error}") from error
    if inspect.isclass(found):
        found = found()
    if not callable(found):
        meant = suggestion(identifier, names) if isinstance(identifier, str) else ""
        raise ValueError(f"Could not interpret {what} identifier: {identifier}{meant}")
    return found


def _unknown(kind, name, module):
    return (
        f"Could not locate {kind} '{name}'"
        + (f" of module '{module}'" if module else "")
        + ". Make sure custom classes and functions are decorated with "
        "`numbarnn.saving.register_keras_serializable()` or passed in `custom_objects`."
    )
