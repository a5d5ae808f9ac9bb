"""adapter: what a child process is to call, as an import path that it can follow by itself."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import MethodType
from typing import Any, NamedTuple

from ondol.errors import ConfigurationError

__all__ = ["Loader", "Target", "find", "resolve_target"]

Loader = str | Callable[..., Any]
"""``"package.module:function"``, or a function or class of a module, also within ``functools.partial``."""

_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_ADVICE = "give a function of a module (or functools.partial of one), or its path 'package.module:function'"


class Target(NamedTuple):
    """A callable by its path, and its arguments."""

    path: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}  # noqa: RUF012  # never changed; a named tuple has no default factories


def resolve_target(loader: Loader, *, name: str) -> Target:
    """Return ``loader`` as a path, after a look whether a new process can find it.

    A function is looked up here. Of a text only the module is looked for, not imported, nor are its packages: that may
    be just what this process is to be spared.

    Raises:
        ConfigurationError: it is a lambda, a function within a function, bound to an object, part of the script that
            was started, or not found; the message says which.
    """
    if isinstance(loader, str):
        return Target(_checked_path(loader, name))
    if isinstance(loader, functools.partial):
        inner = resolve_target(loader.func, name=name)
        return Target(inner.path, (*inner.args, *loader.args), {**inner.kwargs, **loader.keywords})
    return Target(_path_of(loader, name))


def _refusal(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"the loader of isolated model {name!r} {reason}: {_ADVICE}")


def _checked_path(path: str, name: str) -> str:
    if not _PATH.fullmatch(path):
        raise _refusal(name, f"{path!r} is no import path")
    module = path.partition(":")[0]
    if module == "__main__":
        raise _refusal(name, f"{path!r} is in the script that was started, which another process must not run again")
    if not _is_findable(module):
        raise _refusal(name, f"{path!r} is in a module that cannot be found")
    return path


def _is_findable(module: str) -> bool:
    """Tell whether there is such a module. Packages above it are imported only if nothing else can tell."""
    try:
        return _is_found_aside(module) or importlib.util.find_spec(module) is not None
    except Exception:  # noqa: BLE001  # a package may raise anything when it is imported
        return False


def _is_found_aside(module: str) -> bool:
    """Look for the file of a module where its packages lie, without importing them."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return False
        try:
            spec = PathFinder.find_spec(f"{spec.name}.{part}", list(spec.submodule_search_locations))
        except KeyError:  # a folder without __init__.py in a package: its places are asked of the imported package
            return False
    return spec is not None


def _path_of(loader: Callable[..., Any], name: str) -> str:
    module: object = getattr(loader, "__module__", None)
    qualname: object = getattr(loader, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise _refusal(name, f"is an object of type {type(loader).__name__}, which another process cannot find")
    if "<lambda>" in qualname:
        raise _refusal(name, f"is a lambda of {module}, which another process cannot find")
    if "<locals>" in qualname:
        raise _refusal(name, f"{qualname} of {module} is made within a function, so another process cannot find it")
    if module == "__main__":
        raise _refusal(name, f"{qualname} is in the script that was started, which another process must not run again")
    path = f"{module}:{qualname}"
    try:
        found = _follow(sys.modules[module], qualname)
    except (KeyError, AttributeError):
        raise _refusal(name, f"{path} is not found under that name") from None
    if found is not loader and not (isinstance(loader, MethodType) and found == loader):
        raise _refusal(name, f"{path} is another object than the one under that name (bound or replaced)")
    return path


def _follow(module: Any, qualname: str) -> Any:
    return functools.reduce(getattr, qualname.split("."), module)


def find(path: str) -> Callable[..., Any]:
    """Return the callable at ``path``, importing its module.

    Raises:
        ImportError: there is no such module.
        AttributeError: it has no such name.
        TypeError: what it names cannot be called.
    """
    module, _, qualname = path.partition(":")
    found = _follow(importlib.import_module(module), qualname)
    if not callable(found):
        message = f"{path} is a {type(found).__name__}, not a function"
        raise TypeError(message)
    return found  # type: ignore[no-any-return]  # any callable
