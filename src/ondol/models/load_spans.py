"""service: what a request that waits for a model waited for: its own span, and each load that happened meanwhile.

A load runs in a task of its own, once for all who wait; so it is told to each of them, in its trace.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from ondol.models.ledger import Phase
from ondol.tracing import SpanRelay

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ondol.clock import Clock
    from ondol.models.entry import Entry
    from ondol.models.job import LoadJob
    from ondol.models.ledger import Ledger
    from ondol.tracing import Value

__all__ = ["LoadSpans"]

_NOT_KEPT: Final = "not kept"


class _Load(NamedTuple):
    """A load that has ended, or was left unfinished by who waited."""

    model: str
    started_s: float
    ended_s: float
    size_bytes: int | None = None
    error: str = ""
    is_over: bool = True


class LoadSpans:
    """Tells those who wait for models of the loads they wait for; costs nothing while nobody listens.

    Thread-safety: none; in the pool's loop only.
    """

    __slots__ = ("_clock", "_entries", "_watching", "relay")

    def __init__(self, relay: SpanRelay | None, clock: Clock, entries: Mapping[str, Entry]) -> None:
        """Tell ``relay``; ``entries`` are the pool's models."""
        self.relay = relay if relay is not None else SpanRelay()
        self._clock = clock
        self._entries = entries
        self._watching: dict[str, list[list[_Load]]] = {}

    @contextmanager
    def wait(self, name: str, needed: Collection[str], under_way: Collection[str]) -> Iterator[None]:
        """Trace the wait for a lease of ``name``, which needs the models ``needed``.

        Args:
            name: of the model.
            needed: what must be loaded before it.
            under_way: what was being loaded, or wanted, before this wait began.
        """
        seen: list[_Load] = []
        names = {name, *needed}
        asked_at_s = self._clock.monotonic()
        with self.relay.span("models.lease", {"model.name": name, "lease.cold": True}) as span:
            for each in names:
                self._watching.setdefault(each, []).append(seen)
            try:
                yield
            finally:
                self._forget(names, seen)
                now_s = self._clock.monotonic()
                span.set("lease.wait_seconds", now_s - asked_at_s)
                seen.extend(self._unfinished(names, now_s))
                for load in sorted(seen, key=lambda load: load.started_s):
                    self._tell(load, asked_at_s, now_s, is_joined=load.model in under_way)

    def found_ready(self, name: str) -> None:
        """Note a lease that nobody waited for."""
        self.relay.event("models.lease", {"model.name": name, "lease.cold": False, "lease.wait_seconds": 0.0})

    def ended(self, entry: Entry, job: LoadJob, ledger: Ledger) -> None:
        """Tell those who wait for it that a load has ended; before the pool forgets when it began."""
        watching = self._watching.get(job.spec.name)
        if not watching or entry.job is not job or entry.load_started_s is None:
            return
        is_kept = ledger.phase(job.account) is Phase.RESIDENT
        size_bytes = ledger.size(job.account) if is_kept else None
        error = "" if is_kept else job.error or _NOT_KEPT
        load = _Load(job.spec.name, entry.load_started_s, self._clock.monotonic(), size_bytes, error)
        for seen in watching:
            seen.append(load)

    def _unfinished(self, names: Collection[str], now_s: float) -> list[_Load]:
        """Return what still loads: whoever waits no longer, waited for that."""
        found = [entry for name in names if (entry := self._entries.get(name)) is not None]
        return [
            _Load(entry.spec.name, entry.load_started_s, now_s, is_over=False)
            for entry in found
            if entry.load_started_s is not None
        ]

    def _tell(self, load: _Load, asked_at_s: float, now_s: float, *, is_joined: bool) -> None:
        attributes: dict[str, Value] = {"model.name": load.model, "load.joined": is_joined}
        attributes["load.seconds"] = load.ended_s - load.started_s
        if load.size_bytes is not None:
            attributes["model.bytes"] = load.size_bytes
        if not load.is_over:
            attributes["load.unfinished"] = True
        # Within the wait: what was loaded before somebody asked is no part of the request.
        start_s, end_s = max(load.started_s, asked_at_s), min(load.ended_s, now_s)
        self.relay.record("models.load", start_s, end_s, attributes, load.error)

    def _forget(self, names: Collection[str], seen: list[_Load]) -> None:
        for each in names:
            others = [other for other in self._watching[each] if other is not seen]
            if others:
                self._watching[each] = others
            else:
                del self._watching[each]
