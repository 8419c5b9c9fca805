"""Objects to plain dicts and back, in Keras 3's format.

An object becomes ``{"module", "class_name", "config", "registered_name"}``. Built-in classes carry Keras's own module
names (``keras.layers``, ``keras.initializers``), so that what numbarnn writes can be read by Keras and the other way
round.
"""

from __future__ import annotations

import contextlib
import inspect
import threading

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
]

_BUILTIN: dict[str, dict[str, object]] = {}  # module name as Keras spells it -> name -> class or function
_MODULE_OF: dict[object, tuple[str, str]] = {}  # class or function -> (module, name)
_REGISTERED: dict[str, object] = {}  # "package>name" -> class or function
_REGISTERED_NAMES: dict[object, str] = {}
_scopes = threading.local()


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


def serialize_keras_object(obj):
    """Turn an object into plain Python values.

    Parameters
    ----------
    obj : None, bool, number, str, array, list, tuple, dict, function, or object with `get_config`

    Returns
    -------
    None, bool, int, float, str, list or dict

    Raises
    ------
    ValueError
        If the object is none of these; a lambda has no name under which it could be found again.
    """
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
    if isinstance(obj, tuple):
        return tuple(serialize_keras_object(item) for item in obj)
    if isinstance(obj, list):
        return [serialize_keras_object(item) for item in obj]
    if isinstance(obj, dict):
        return {key: serialize_keras_object(value) for key, value in obj.items()}
    if inspect.isfunction(obj) or inspect.isbuiltin(obj):
        if obj.__name__ == "<lambda>":
            raise ValueError(
                "A lambda cannot be serialized: it has no name. Define a function with `def` and decorate it with "
                "`register_keras_serializable()`."
            )
        module, name = _MODULE_OF.get(obj, (obj.__module__, obj.__name__))
        registered = None if obj in _MODULE_OF else get_registered_name(obj)
        return {"module": module, "class_name": "function", "config": name, "registered_name": registered}
    if not hasattr(obj, "get_config") or inspect.isclass(obj):
        raise ValueError(f"Cannot serialize {obj!r} (of type {type(obj).__name__}): it has no get_config() method.")
    cls = type(obj)
    builtin = _MODULE_OF.get(cls)
    config = {
        "module": builtin[0] if builtin else cls.__module__,
        "class_name": cls.__name__,
        "config": serialize_keras_object(obj.get_config()),
        "registered_name": None if builtin else get_registered_name(cls),
    }
    if hasattr(obj, "get_build_config"):
        build_config = obj.get_build_config()
        if build_config is not None:
            config["build_config"] = serialize_keras_object(build_config)
    return config


def _find(name, module, registered_name, custom_objects, module_objects):
    for key in (registered_name, name):
        found = key and get_registered_object(key, custom_objects)
        if found:
            return found
    for table in (_BUILTIN.get(module), module_objects):
        if table and name in table:
            return table[name]
    if module is None or module.split(".")[0] in ("keras", "tf_keras", "numbarnn"):
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


def deserialize_keras_object(config, custom_objects=None, module_objects=None, **kwargs):
    """Make the object that `serialize_keras_object` turned into `config`.

    Parameters
    ----------
    config : None, bool, number, str, list or dict
    custom_objects : dict, optional
        Name -> class or function, looked into first.
    module_objects : dict, optional
        Name -> class or function: what a bare string or a dict without `module` may mean.

    Returns
    -------
    object

    Raises
    ------
    ValueError, TypeError
        If the configuration names something unknown.
    """
    if config is None or isinstance(config, (bool, int, float)):
        return config
    if isinstance(config, str):
        found = get_registered_object(config, custom_objects, module_objects)
        return config if found is None else found
    if isinstance(config, (list, tuple)):
        return [deserialize_keras_object(item, custom_objects) for item in config]
    if not isinstance(config, dict):
        raise TypeError(f"Could not parse config: {config!r}")
    if "class_name" not in config or "config" not in config:
        return {key: deserialize_keras_object(value, custom_objects) for key, value in config.items()}

    name, inner = config["class_name"], config["config"]
    if name == "__tuple__":
        return tuple(deserialize_keras_object(item, custom_objects) for item in inner["value"])
    if name == "__numpy__":
        return np.asarray(inner["value"], dtype=inner["dtype"])
    if name == "__bytes__":
        return inner["value"].encode("utf-8")
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
            instance.build_from_config(deserialize_keras_object(build_config))
    return instance


def interpret(identifier, what, deserialize):
    """Turn a name, a configuration, a class or a callable into a callable: what the `get` functions share.

    Parameters
    ----------
    identifier : str, dict, class or callable
    what : str
        What it stands for, as in messages.
    deserialize : callable
        Takes names and configurations.

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
        raise ValueError(f"Could not interpret {what} identifier: {identifier}")
    return found


def _unknown(kind, name, module):
    return (
        f"Could not locate {kind} '{name}'"
        + (f" of module '{module}'" if module else "")
        + ". Make sure custom classes "
        "and functions are decorated with `register_keras_serializable()` or passed in `custom_objects`."
    )
