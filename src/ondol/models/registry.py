"""service: what a pool knows independently of any event loop: models, options, ledger, counters, listeners.

Thread-safety: registering and reading are safe from any thread; everything else belongs to the loop's thread.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondol.errors import ConfigurationError, DependencyCycleError, UnknownModelError
from ondol.models.entry import Entry
from ondol.models.graph import dependencies, find_cycle, load_order, missing
from ondol.models.spec import ModelSpec, ModelState, ModelStatus

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.models.ledger import Ledger
    from ondol.models.ports import Listener
    from ondol.recorder import Recorder

__all__ = ["Options", "Registry", "Totals"]

logger = logging.getLogger("ondol.models")

_NOT_LOADED = frozenset({ModelState.REGISTERED, ModelState.UNLOADED, ModelState.BLOCKED, ModelState.FAILED})


@dataclass(slots=True, eq=False, repr=False)
class Options:
    """What can be configured while running."""

    max_background_loads: int
    max_demand_loads: int
    is_lazy_loading_enabled: bool
    lease_timeout_s: float


@dataclass(slots=True, eq=False, repr=False)
class Totals:
    """Counters over the pool's whole life."""

    loads: int = 0
    load_failures: int = 0
    unload_failures: int = 0
    listener_failures: int = 0
    lease_timeouts: int = 0
    evictions: int = 0
    leases: int = 0
    load_seconds: float = 0.0


class Registry:
    """The pool's memory: it outlives any event loop."""

    __slots__ = (
        "clock",
        "entries",
        "expected",
        "graph",
        "has_unloaded",
        "ledger",
        "listeners",
        "lock",
        "needed_by",
        "options",
        "recorder",
        "totals",
    )

    def __init__(self, clock: Clock, recorder: Recorder, ledger: Ledger, options: Options) -> None:
        """Begin without any model."""
        self.clock = clock
        self.recorder = recorder
        self.ledger = ledger
        self.options = options
        self.totals = Totals()
        self.entries: dict[str, Entry] = {}
        self.graph: dict[str, tuple[str, ...]] = {}
        self.needed_by: dict[str, tuple[str, ...]] = {}
        self.expected: frozenset[str] = frozenset()
        self.has_unloaded = False
        self.lock = threading.RLock()
        self.listeners: tuple[Listener, ...] = ()

    def register(self, spec: ModelSpec, *, replace: bool) -> None:
        """Take in a specification; ``review`` its name afterwards (in the loop's thread while the pool runs).

        Raises:
            ConfigurationError: the name is taken and ``replace`` is false.
            DependencyCycleError: it closes a circle of dependencies; nothing was changed.
        """
        with self.lock:
            known = self.entries.get(spec.name)
            if known is not None and not replace:
                message = f"a model {spec.name!r} is registered already; pass replace=True to replace it"
                raise ConfigurationError(message)
            cycle = find_cycle(self.graph, spec.name, spec.depends_on)
            if cycle:
                message = f"models depend on each other in a circle: {' -> '.join(cycle)}"
                raise DependencyCycleError(message)
            self._link(spec)
            if known is not None:
                known.adopt(spec)
                return
            entry = Entry(spec, len(self.entries), self.clock.monotonic())
            self._review(entry)
            self.entries[spec.name] = entry

    def _link(self, spec: ModelSpec) -> None:
        for name in self.graph.get(spec.name, ()):
            self.needed_by[name] = tuple(other for other in self.needed_by[name] if other != spec.name)
        for name in spec.depends_on:
            self.needed_by[name] = (*self.needed_by.get(name, ()), spec.name)
        self.graph[spec.name] = spec.depends_on

    def review(self, name: str) -> None:
        """Bring the states of ``name`` and of all that depend on it up to date, after it was registered or loaded."""
        for other in load_order(self.needed_by, [name]):
            entry = self.entries.get(other)
            if entry is not None and entry.state in _NOT_LOADED:
                self._review(entry)

    def _review(self, entry: Entry) -> None:
        now_s = self.clock.monotonic()
        name = entry.spec.name
        if absent := missing(self.graph, name):
            entry.move(ModelState.BLOCKED, f"waits for {', '.join(absent)}, which nobody has registered", now_s)
        elif entry.state is ModelState.BLOCKED and not self.failed_dependencies(name):
            entry.move(entry.idle_state, "nothing is in its way any more; not asked for", now_s)
        elif entry.state is ModelState.FAILED and entry.last_error is None:
            entry.move(entry.idle_state, "registered anew; not asked for", now_s)

    def entry(self, name: str) -> Entry:
        """Return a model's entry.

        Raises:
            UnknownModelError: no model of that name is registered.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise UnknownModelError(name, self.names())
        return entry

    def names(self) -> list[str]:
        """Return the names in the order of registration."""
        with self.lock:
            return list(self.entries)

    def snapshot(self) -> list[Entry]:
        """Return the entries in the order of registration."""
        with self.lock:
            return list(self.entries.values())

    def failed_dependencies(self, name: str) -> list[str]:
        """Return the dependencies of ``name``, direct or not, whose last load failed."""
        members = (self.entries.get(other) for other in dependencies(self.graph, name))
        return [entry.spec.name for entry in members if entry is not None and entry.state is ModelState.FAILED]

    def waits_on(self, entry: Entry) -> list[str]:
        """Return on whom a blocked or queued model waits."""
        name = entry.spec.name
        if entry.state is ModelState.BLOCKED:
            return missing(self.graph, name) or self.failed_dependencies(name)
        if entry.state is not ModelState.QUEUED:
            return []
        return [
            other
            for other in dependencies(self.graph, name)
            if (found := self.entries.get(other)) is None or found.state is not ModelState.READY
        ]

    def status(self, entry: Entry) -> ModelStatus:
        """Return what can be seen of a model."""
        spec = entry.spec
        resident = entry.resident
        size_bytes = entry.measured_bytes if entry.measured_bytes is not None else spec.size_bytes
        load_seconds = entry.measured_seconds if entry.measured_seconds is not None else spec.load_seconds
        return ModelStatus(
            name=spec.name,
            state=entry.state,
            reason=entry.reason,
            since_s=max(0.0, self.clock.monotonic() - entry.changed_at_s),
            residency=spec.residency,
            priority=spec.priority,
            depends_on=spec.depends_on,
            waits_on=tuple(self.waits_on(entry)),
            leases=resident.leases if resident else 0,
            size_bytes=size_bytes,
            load_seconds=load_seconds,
            load_count=entry.load_count,
            failure_count=entry.failure_count,
            last_error=entry.last_error,
            is_warm=entry.state is ModelState.READY,
        )

    def move(self, entry: Entry, state: ModelState, reason: str) -> None:
        """Let a model enter ``state`` now."""
        entry.move(state, reason, self.clock.monotonic())

    def record(self, name: str, value: float, unit: str, model: str) -> None:
        """Hand a measurement on; a recorder that fails is logged and counted, and disturbs nobody."""
        try:
            self.recorder(name, value, unit, model=model)
        except Exception:
            self.totals.listener_failures += 1
            logger.exception("recording %s of model %s failed", name, model)

    def announce(self, event: str, name: str) -> None:
        """Tell the listeners; one that fails is logged and counted, and disturbs nobody."""
        for listener in self.listeners:
            try:
                listener(event, name)
            except Exception:
                self.totals.listener_failures += 1
                logger.exception("a listener of the model pool failed on %s of %s", event, name)
