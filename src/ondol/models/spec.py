"""decision: what a model is to the pool: its specification, its states, its visible status."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, get_args

from ondol.errors import ConfigurationError, DependencyCycleError

__all__ = ["MAX_PRIORITY", "MIN_PRIORITY", "ModelSpec", "ModelState", "ModelStatus", "Residency", "check_priority"]

MIN_PRIORITY = 1
MAX_PRIORITY = 10
MAX_NAME_CHARS = 200

Residency = Literal["lazy", "eager", "pinned"]


class ModelState(StrEnum):
    """Where a model is in its life.

    ``REGISTERED`` was never loaded, ``UNLOADED`` was; both load on demand. ``BLOCKED`` waits for a dependency
    that is not registered or failed; ``FAILED`` keeps its last error and is tried again by the next demand.
    """

    REGISTERED = "registered"
    QUEUED = "queued"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    UNLOADED = "unloaded"
    FAILED = "failed"
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
        load: returns the model, or an awaitable of it. Plain functions run in a thread of their own.
        priority: 1 to 10; 10 loads first.
        depends_on: names of models that must be ready first; they may be registered later.
        residency: ``lazy`` loads on use, ``eager`` is wanted by the preloader, ``pinned`` is eager and never evicted.
        size_bytes: expected memory; replaced by what is measured.
        load_seconds: expected load time; replaced by what is measured.
        warm_up: called with the model before it counts as ready.
        unload: called with the model when it goes; without it the model is only let go of.

    Raises:
        ConfigurationError: a field is not allowed; the message says which and what is.
        DependencyCycleError: the model depends on itself.
    """

    name: str
    load: Callable[[], Any | Awaitable[Any]]
    priority: int = 5
    depends_on: tuple[str, ...] = ()
    residency: Residency = "lazy"
    size_bytes: int | None = None
    load_seconds: float | None = None
    warm_up: Callable[[Any], Any | Awaitable[Any]] | None = None
    unload: Callable[[Any], Any | Awaitable[Any]] | None = None

    def __post_init__(self) -> None:
        """Check every field; a list of dependencies becomes a tuple without duplicates."""
        _check_name(self.name, "name of a model")
        check_priority(self.priority, self.name)
        object.__setattr__(self, "depends_on", self._checked_dependencies())
        self._check_callables()
        self._check_numbers()
        if self.residency not in get_args(Residency):
            message = f"residency of model {self.name!r} must be one of {get_args(Residency)}, not {self.residency!r}"
            raise ConfigurationError(message)

    def _checked_dependencies(self) -> tuple[str, ...]:
        given: object = self.depends_on  # the guide's callers pass lists
        if isinstance(given, str) or not isinstance(given, Iterable):
            message = f"depends_on of model {self.name!r} must be a list of names, not {given!r}"
            raise ConfigurationError(message)
        names: tuple[str, ...] = tuple(dict.fromkeys(given))
        for name in names:
            _check_name(name, f"dependency of model {self.name!r}")
        if self.name in names:
            message = f"models depend on each other in a circle: {self.name} -> {self.name}"
            raise DependencyCycleError(message)
        return names

    def _check_callables(self) -> None:
        for field, is_needed in (("load", True), ("warm_up", False), ("unload", False)):
            value = getattr(self, field)
            if not callable(value) and (is_needed or value is not None):
                message = f"{field} of model {self.name!r} must be a function, not {value!r}"
                raise ConfigurationError(message)

    def _check_numbers(self) -> None:
        size: object = self.size_bytes
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
            message = f"size_bytes of model {self.name!r} must be an integer >= 0, not {size!r}"
            raise ConfigurationError(message)
        seconds: object = self.load_seconds
        if seconds is None:
            return
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not 0 <= float(str(seconds)) < math.inf:
            message = f"load_seconds of model {self.name!r} must be a number >= 0, not {seconds!r}"
            raise ConfigurationError(message)


def _check_name(name: object, what: str) -> None:
    is_text = isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS
    if not is_text or not str(name).isprintable() or str(name) != str(name).strip():
        message = f"{what} must be 1 to {MAX_NAME_CHARS} printable characters without spaces around, not {name!r}"
        raise ConfigurationError(message)


class ModelStatus(NamedTuple):
    """What can be seen of one model.

    Attributes:
        since_s: how long it has been in this state, in seconds.
        waits_on: for a blocked model the dependencies that are missing or failed, for a queued one those not ready.
        leases: how many hold it now.
        size_bytes: measured, else expected, else ``None``.
        load_seconds: of the last load with its warm-up, else expected, else ``None``.
        last_error: of the last failed load; cleared by the next that succeeds.
        is_warm: ready, and its warm-up call (if it has one) was answered.
    """

    name: str
    state: ModelState
    reason: str
    since_s: float
    residency: Residency
    priority: int
    depends_on: tuple[str, ...]
    waits_on: tuple[str, ...]
    leases: int
    size_bytes: int | None
    load_seconds: float | None
    load_count: int
    failure_count: int
    last_error: str | None
    is_warm: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data for JSON."""
        return self._asdict() | {
            "state": self.state.value,
            "depends_on": list(self.depends_on),
            "waits_on": list(self.waits_on),
        }
