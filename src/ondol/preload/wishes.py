"""service: what is wanted ahead of use, and how it ended; safe in any thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ondol.errors import UnknownModelError
from ondol.models import ModelState
from ondol.preload.plan import Plan, Prospect, Wish, plan_loads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from ondol.models import ModelPool

__all__ = ["Wishes"]

_IN_MEMORY = frozenset({ModelState.READY, ModelState.LOADING, ModelState.WARMING, ModelState.DRAINING})


class Wishes:
    """The wanted models of a pool. Each is tried once, until it is wanted anew."""

    def __init__(self, pool: ModelPool) -> None:
        """Begin with no wishes."""
        self._pool = pool
        self._lock = threading.Lock()
        self._priorities: dict[str, int | None] = {}
        self._errors: dict[str, str | None] = {}

    def want(self, names: Iterable[str], priority: int | None) -> None:
        """Want ``names`` (anew); without a ``priority`` the one they are registered with applies."""
        with self._lock:
            for name in names:
                self._priorities[name] = self._priorities.get(name) if priority is None else priority
                self._errors.pop(name, None)

    def want_resident(self, names: Iterable[str]) -> None:
        """Want those of ``names`` whose residency is not lazy; forget how any of them ended."""
        for name in names:
            is_wanted = self._pool.status(name).residency != "lazy"
            with self._lock:
                self._errors.pop(name, None)
                if is_wanted:
                    self._priorities.setdefault(name, None)

    def forget_outcomes(self) -> None:
        """Begin anew: everything wanted is to be tried again."""
        with self._lock:
            self._errors.clear()

    def end(self, name: str, error: str | None) -> None:
        """Note how a load ended, of whomever it was: with ``error``, or with ``None`` when the model is ready."""
        with self._lock:
            self._errors[name] = error

    def retry(self, name: str) -> None:
        """Try ``name`` again if it is wanted and failed."""
        with self._lock:
            if self._errors.get(name) is not None:
                del self._errors[name]

    def errors(self) -> dict[str, str]:
        """Return the last error of each model whose preload failed."""
        with self._lock:
            return {name: error for name, error in self._errors.items() if error is not None}

    def plan(self, loading: Collection[str], worth_of: Callable[[str], float]) -> Plan:
        """Return what to load next; ``worth_of`` says what a byte of a model saves."""
        with self._lock:
            open_wishes = {name: priority for name, priority in self._priorities.items() if name not in self._errors}
            failed = {name for name, error in self._errors.items() if error is not None}
        known, own_priorities = self._look_up(open_wishes)
        fulfilled = {name for name in open_wishes if name in known and known[name].is_ready}
        with self._lock:
            for name in fulfilled:
                self._errors.setdefault(name, None)  # or it would be loaded again when it has left
        wishes = [
            Wish(name, own_priorities.get(name, 1) if priority is None else priority, worth_of(name), position)
            for position, (name, priority) in enumerate(open_wishes.items())
            if name not in fulfilled
        ]
        if not wishes:
            return plan_loads((), known, failed=failed, loading=loading)
        room_bytes, idle = self._room(loading)
        return plan_loads(wishes, known, failed=failed, loading=loading, room_bytes=room_bytes, idle=idle)

    def _room(self, loading: Collection[str]) -> tuple[int | None, list[tuple[int, int]]]:
        """Return the free bytes, without a bound ``None``; and the idle models, which may leave: priority and bytes."""
        limit_bytes = self._pool.memory_limit_bytes
        if limit_bytes is None:
            return None, []
        statuses = self._pool.statuses()
        there = [status for status in statuses if status.state in _IN_MEMORY or status.name in loading]
        idle = [status for status in there if status.state is ModelState.READY and not status.is_pinned]
        return (
            limit_bytes - sum(status.size_bytes or 0 for status in there),
            [(status.priority, status.size_bytes or 0) for status in idle if not status.leases],
        )

    def _look_up(self, names: Iterable[str]) -> tuple[dict[str, Prospect], dict[str, int]]:
        """Return what the pool knows of ``names`` and all they depend on."""
        known: dict[str, Prospect] = {}
        priorities: dict[str, int] = {}
        rest = list(names)
        while rest:
            name = rest.pop()
            if name in known:
                continue
            try:
                status = self._pool.status(name)
            except UnknownModelError:
                continue
            is_ready = status.state is ModelState.READY
            known[name] = Prospect(status.depends_on, is_ready, status.size_bytes or 0)
            priorities[name] = status.priority
            rest.extend(status.depends_on)
        return known, priorities
