"""service: what a pool knows independently of any event loop: models, options, ledger, counters, listeners.

Thread-safety: registering and reading are safe from any thread; everything else belongs to the loop's thread.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ondol.errors import ConfigurationError, DependencyCycleError, UnknownModelError
from ondol.models.entry import Entry
from ondol.models.estimates import Estimate, EstimateBook
from ondol.models.figures import Totals
from ondol.models.graph import dependencies, find_cycle, load_order, missing
from ondol.models.load_spans import LoadSpans
from ondol.models.progress import eta_s, progress, remaining_s
from ondol.models.spec import ModelSpec, ModelState
from ondol.models.status import ModelStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from ondol.clock import Clock
    from ondol.models.entry import Resident
    from ondol.models.ledger import Ledger
    from ondol.models.options import Options
    from ondol.models.ports import Advisor, EstimateStore, Listener
    from ondol.recorder import Recorder
    from ondol.tracing import SpanRelay

__all__ = ["Registry"]

logger = logging.getLogger("ondol.models")

_FAILED = frozenset({ModelState.FAILED, ModelState.BACKOFF, ModelState.QUARANTINED})
_UNDER_WAY = frozenset({ModelState.QUEUED, ModelState.LOADING, ModelState.WARMING, ModelState.BACKOFF})
_NOT_LOADED = frozenset({ModelState.REGISTERED, ModelState.UNLOADED, ModelState.BLOCKED}) | _FAILED


class Registry:
    """The pool's memory: it outlives any event loop."""

    __slots__ = (
        "_accounts",
        "_book",
        "_has_abandoned",
        "advisor",
        "alive",
        "clock",
        "entries",
        "expected",
        "graph",
        "has_unloaded",
        "is_memory_prepared",
        "ledger",
        "listeners",
        "lock",
        "needed_by",
        "on_ended",
        "on_learnt",
        "options",
        "recorder",
        "spans",
        "totals",
    )

    def __init__(
        self, clock: Clock, recorder: Recorder, ledger: Ledger, options: Options, spans: SpanRelay | None = None
    ) -> None:
        """Begin without any model."""
        self.clock = clock
        self.recorder = recorder
        self.ledger = ledger
        self.options = options
        self.totals = Totals()
        self.entries: dict[str, Entry] = {}
        self.spans = LoadSpans(spans, clock, self.entries)
        self.graph: dict[str, tuple[str, ...]] = {}
        self.needed_by: dict[str, tuple[str, ...]] = {}
        self.expected: frozenset[str] = frozenset()
        self.has_unloaded = False
        self.is_memory_prepared = False
        self.alive: dict[str, Resident] = {}
        """Every copy of a model in memory by its account, those that leave included."""
        self.on_learnt: Callable[[], None] = lambda: None
        """Called when a load has measured something."""
        self.on_ended: Callable[[], None] = lambda: None
        """Called when a load or an unload has ended, also one of an earlier run: there may be room."""
        self._accounts = 0
        self._has_abandoned = False
        self._book = EstimateBook()
        self.lock = threading.RLock()
        self.listeners: tuple[Listener, ...] = ()
        self.advisor: Advisor | None = None

    def register(self, spec: ModelSpec, *, replace: bool) -> bool:
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
            if known is not None:
                return False
            entry = Entry(spec, len(self.entries), self.clock.monotonic())
            entry.learn(self._book.find(spec.name, spec.version))
            self.entries[spec.name] = entry  # before the graph names it: the loop may look at both at any time
            self._link(spec)
            self._review(entry)
            return True

    def adopt(self, spec: ModelSpec) -> None:
        """Put ``spec`` in the place of the one of its name; while the pool runs, in the loop's thread only."""
        with self.lock:
            if cycle := find_cycle(self.graph, spec.name, spec.depends_on):
                logger.error(
                    "model %s is not replaced: another registration came first, and now %s would be a circle",
                    spec.name,
                    " -> ".join(cycle),
                )
                return
            self._link(spec)
            self.entries[spec.name].adopt(spec)

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
        elif entry.state in _FAILED and entry.last_error is None:
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
        """Return the dependencies of ``name``, direct or not, that failed and are not tried again by themselves."""
        members = (self.entries.get(other) for other in dependencies(self.graph, name))
        final = (ModelState.FAILED, ModelState.QUARANTINED)
        return [entry.spec.name for entry in members if entry is not None and entry.state in final]

    def free_account(self, name: str) -> str:
        """Return a name under which the bytes of a new copy are booked: the model's own unless a copy has or had it."""
        if not self._has_abandoned and name not in self.alive and self.ledger.phase(name) is None:
            return name
        self._accounts += 1
        return f"{name}#{self._accounts}"

    def abandon(self, reason: str) -> list[Resident]:
        """Make all models idle, whatever they are, and return every copy in memory whose unload had not begun."""
        self._has_abandoned = True  # what is left of the old tasks may still give bytes back, under the old names
        for resident in self.alive.values():
            resident.on_unused = None  # who waited for that did so in a loop that is closed
        left_behind = [resident for resident in self.alive.values() if not resident.is_parting]
        self.alive.clear()
        self.ledger.clear()
        for resident in left_behind:
            resident.let_go_of_bases()
        ready = [entry.spec.name for entry in self.snapshot() if entry.state is ModelState.READY]
        for entry in self.snapshot():
            entry.reset(reason, self.clock.monotonic())
        for name in ready:
            self.announce("leaving", name)
        return left_behind

    def forgive_all(self) -> None:
        """End every quarantine: a new start tries everything anew, also what an earlier run did not get rid of."""
        for entry in self.snapshot():
            entry.forgive()
            if entry.job is not None or entry.resident is not None:
                entry.reset("an unload or a load of the run before does not end", self.clock.monotonic())
            if entry.state is ModelState.QUARANTINED:
                self.move(entry, entry.idle_state, "the pool was started anew; not asked for")

    def promise(self, name: str, until_s: float) -> bool:
        """Keep until when somebody counts on a model to stay; return whether that ends sooner than it would have."""
        with self.lock:
            entry = self.entries.get(name)
            if entry is None:
                return False
            before_s, entry.promised_until_s = entry.promised_until_s, until_s
        return before_s > self.clock.monotonic() and not until_s >= before_s

    def change_limit(self, limit_bytes: int | None) -> bool:
        """Bound all models by ``limit_bytes``; return whether that is another limit than before."""
        before_bytes, self.ledger.limit_bytes = self.ledger.limit_bytes, limit_bytes
        return limit_bytes != before_bytes

    def idle_ttl_s(self, entry: Entry) -> float | None:
        """Return after how long without use a model is unloaded; ``None`` is never."""
        if entry.is_pinned or not self.options.is_lazy_loading_enabled:
            return None  # without loading on use it could not come back
        return self.options.idle_ttl_s if entry.spec.idle_ttl_s is None else entry.spec.idle_ttl_s

    # What is learnt

    def learn(self, name: str, estimate: Estimate) -> None:
        """Keep what a load measured."""
        with self.lock:
            self._book.learn(name, estimate)
        self.on_learnt()

    def estimates(self) -> dict[str, Any]:
        """Return all that was learnt, as plain data."""
        with self.lock:
            return self._book.to_plain()

    def remember(self, store: EstimateStore) -> None:
        """Take in what an earlier process learnt; a store that fails is logged and counted, it costs knowledge only."""
        try:
            plain = store.read()
            with self.lock:
                if plain is not None:
                    self._book.take_in(plain)
                for entry in self.entries.values():
                    entry.learn(self._book.find(entry.spec.name, entry.spec.version))
        except (OSError, ValueError):
            self.totals.estimate_failures += 1
            logger.exception("what was learnt of models earlier cannot be read; sizes and load times are learnt anew")

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
        now_s = self.clock.monotonic()
        wall_offset_s = self.clock.wall() - now_s

        def wall(at_s: float | None) -> float | None:
            return None if at_s is None else at_s + wall_offset_s

        return ModelStatus(
            name=spec.name,
            state=entry.state,
            reason=entry.reason,
            since_s=max(0.0, now_s - entry.changed_at_s),
            residency=spec.residency,
            priority=spec.priority,
            depends_on=spec.depends_on,
            waits_on=tuple(self.waits_on(entry)),
            leases=resident.leases if resident else 0,
            size_bytes=entry.measured_bytes if entry.measured_bytes is not None else spec.size_bytes,
            load_seconds=entry.expected_seconds,
            load_count=entry.load_count,
            failure_count=entry.failure_count,
            last_error=entry.last_error,
            is_warm=entry.state is ModelState.READY,
            version=(resident.spec if resident else spec).version,
            isolation=spec.isolation,
            is_pinned=entry.is_pinned,
            progress=_progress(entry, now_s),
            eta_s=self._eta_s(entry, now_s),
            retry_in_s=None if entry.retry_at_s is None else max(0.0, entry.retry_at_s - now_s),
            failures_in_a_row=entry.strikes,
            idle_ttl_s=self.idle_ttl_s(entry),
            changed_at=entry.changed_at_s + wall_offset_s,
            loaded_at=wall(entry.ready_at_s),
            last_used_at=wall(entry.use.noted_at_s),
            last_error_at=wall(entry.failed_at_s),
        )

    def _eta_s(self, entry: Entry, now_s: float) -> float | None:
        if entry.load_started_s is None and entry.state not in _UNDER_WAY:
            return None
        return eta_s(self.graph, entry.spec.name, lambda name: self._own_eta_s(name, entry, now_s))

    def _own_eta_s(self, name: str, wanted: Entry, now_s: float) -> float | None:
        entry = self.entries.get(name)
        if entry is None:
            return None
        if entry.load_started_s is not None:
            return remaining_s(now_s - entry.load_started_s, entry.expected_seconds)
        if entry.state is ModelState.READY and entry is not wanted:
            return 0.0
        if entry.expected_seconds is None:
            return None
        return entry.expected_seconds + max(0.0, (entry.retry_at_s or now_s) - now_s)

    def move(self, entry: Entry, state: ModelState, reason: str) -> None:
        """Let a model enter ``state`` now."""
        entry.move(state, reason, self.clock.monotonic())

    def move_back_to_loading(self, entry: Entry) -> None:
        """Let a model be what it is when the copy that served left or crashed while another one is loaded."""
        reason = "a new copy is loaded"
        if entry.state is ModelState.QUARANTINED:
            self.move(entry, entry.idle_state, reason)
        if entry.state is not ModelState.QUEUED:
            self.move(entry, ModelState.QUEUED, reason)
        self.move(entry, ModelState.LOADING, reason)

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


def _progress(entry: Entry, now_s: float) -> float | None:
    if entry.load_started_s is not None:
        return progress(now_s - entry.load_started_s, entry.expected_seconds)
    return 1.0 if entry.state is ModelState.READY else None
