"""decision: what a model is to the pool: its specification and its states."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_args

from ondol.errors import ConfigurationError, DependencyCycleError

__all__ = [
    "MAX_PRIORITY",
    "MIN_PRIORITY",
    "Isolation",
    "ModelSpec",
    "ModelState",
    "Residency",
    "check_name",
    "check_priority",
]

MIN_PRIORITY = 1
MAX_PRIORITY = 10
MAX_NAME_CHARS = 200

Residency = Literal["lazy", "eager", "pinned"]
Isolation = Literal["thread", "process"]


class ModelState(StrEnum):
    """Where a model is in its life.

    ``REGISTERED`` was never loaded, ``UNLOADED`` was; both load on demand. ``BLOCKED`` waits for a dependency
    that is not registered or failed. A load that failed is tried again by itself after a ``BACKOFF``; after several
    failures in a row the model is ``QUARANTINED`` until somebody releases it. ``FAILED`` is a failure that trying again
    cannot mend; the next demand tries all the same.
    """

    REGISTERED = "registered"
    QUEUED = "queued"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"
    BLOCKED = "blocked"


def check_priority(priority: object, name: str) -> int:
    """Return ``priority`` when it is an integer from 1 to 10 (10 goes first).

    Raises:
        ConfigurationError: it is anything else.
    """
    if isinstance(priority, bool) or not isinstance(priority, int) or not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        message = (
            f"priority of model {name!r} must be an integer from {MIN_PRIORITY} to {MAX_PRIORITY}, not {priority!r}"
        )
        raise ConfigurationError(message)
    return priority


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How a model is loaded, what it needs and how it is treated. Checked when made.

    Attributes:
        name: printable, not blank, at most 200 characters.
        load: returns the model, or an awaitable of it. Plain functions run in a thread of their own. With
            ``isolation="process"`` a function of a module, or its path ``"package.module:function"``.
        priority: 1 to 10; 10 loads first.
        depends_on: names of models that must be ready first; they may be registered later.
        residency: ``lazy`` loads on use, ``eager`` is wanted by the preloader, ``pinned`` is eager and never evicted.
        size_bytes: expected memory; replaced by what is measured.
        load_seconds: expected load time; replaced by what is measured.
        warm_up: called with the model before it counts as ready.
        unload: called with the model when it goes; without it the model is only let go of.
        isolation: ``process`` loads it in a process of its own; a lease gives an ``IsolatedModel`` then.
        version: names what is loaded. What was learnt of one version does not count for another.
        idle_ttl_s: unloaded after so many seconds without a lease, unless it is pinned.
        load_timeout_s: longest load, warm-up included.
        call_timeout_s: longest call of an isolated model; its process is ended after that.

    Raises:
        ConfigurationError: a field is not allowed; the message says which and what is.
        DependencyCycleError: the model depends on itself.
    """

    name: str
    load: Callable[[], Any | Awaitable[Any]] | str
    priority: int = 5
    depends_on: tuple[str, ...] = ()
    residency: Residency = "lazy"
    size_bytes: int | None = None
    load_seconds: float | None = None
    warm_up: Callable[[Any], Any | Awaitable[Any]] | None = None
    unload: Callable[[Any], Any | Awaitable[Any]] | None = None
    isolation: Isolation = "thread"
    version: str = ""
    idle_ttl_s: float | None = None
    load_timeout_s: float | None = None
    call_timeout_s: float | None = None

    def __post_init__(self) -> None:
        """Check every field; a list of dependencies becomes a tuple without duplicates."""
        check_name(self.name, "name of a model")
        check_priority(self.priority, self.name)
        object.__setattr__(self, "depends_on", self._checked_dependencies())
        self._check_callables()
        self._check_numbers()
        for field, allowed in (("residency", get_args(Residency)), ("isolation", get_args(Isolation))):
            value = getattr(self, field)
            if value not in allowed:
                raise self._refusal(field, f"one of {allowed}", value)
        version: object = self.version
        if (
            not isinstance(version, str)
            or len(version) > MAX_NAME_CHARS
            or not (version == "" or version.isprintable())
        ):
            raise self._refusal("version", f"at most {MAX_NAME_CHARS} printable characters", version)
        if self.call_timeout_s is not None and self.isolation != "process":
            raise self._refusal(
                "call_timeout_s", "left out: only a model in a process of its own can be stopped", "set"
            )

    def _refusal(self, field: str, allowed: str, value: object) -> ConfigurationError:
        return ConfigurationError(f"{field} of model {self.name!r} must be {allowed}, not {value!r}")

    def _checked_dependencies(self) -> tuple[str, ...]:
        given: object = self.depends_on  # the guide's callers pass lists
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise self._refusal("depends_on", "a list of names", given)
        names: tuple[str, ...] = tuple(dict.fromkeys(given))
        for name in names:
            check_name(name, f"dependency of model {self.name!r}")
        if self.name in names:
            message = f"models depend on each other in a circle: {self.name} -> {self.name}"
            raise DependencyCycleError(message)
        return names

    def _check_callables(self) -> None:
        if isinstance(self.load, str) and self.isolation == "process":
            if not self.load.strip():
                raise self._refusal("load", "a function or its path 'package.module:function'", self.load)
        elif not callable(self.load):
            allowed = "a function" if self.isolation == "thread" else "a function or its path 'package.module:function'"
            raise self._refusal("load", allowed, self.load)
        for field in ("warm_up", "unload"):
            value = getattr(self, field)
            if value is not None and not callable(value):
                raise self._refusal(field, "a function", value)

    def _check_numbers(self) -> None:
        size: object = self.size_bytes
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            raise self._refusal("size_bytes", "an integer >= 0", size)
        if self.load_seconds is not None and not _is_number(self.load_seconds, least=0.0):
            raise self._refusal("load_seconds", "a number >= 0", self.load_seconds)
        for field in ("idle_ttl_s", "load_timeout_s", "call_timeout_s"):
            value = getattr(self, field)
            if value is not None and not (_is_number(value, least=0.0) and value > 0):
                raise self._refusal(field, "a number of seconds > 0", value)


def _is_number(value: object, *, least: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= float(value) < math.inf


def check_name(name: object, what: str) -> None:
    """Refuse what cannot be the name of a model; ``what`` says what it was given as.

    Raises:
        ConfigurationError: it is no text, blank, too long or not printable.
    """
    is_text = isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS
    if not is_text or not str(name).isprintable() or str(name) != str(name).strip():
        message = f"{what} must be 1 to {MAX_NAME_CHARS} printable characters without spaces around, not {name!r}"
        raise ConfigurationError(message)
