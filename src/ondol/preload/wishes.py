"""service: what is wanted ahead of use, and how it ended; safe in any thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from ondol.preload.plan import Plan, Room, Wish, find_hopeless, plan_loads

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from ondol.models import ModelPool
    from ondol.models.status import ModelOutline

__all__ = ["Wishes"]


class _Wanted(NamedTuple):
    priority: int | None
    position: int


class Wishes:
    """The wanted models of a pool. Each is tried once, until it is wanted anew."""

    def __init__(self, pool: ModelPool) -> None:
        """Begin with no wishes."""
        self._pool = pool
        self._lock = threading.Lock()
        self._wanted: dict[str, _Wanted] = {}
        self._open: dict[str, _Wanted] = {}
        """Those of them that were not tried yet."""
        self._errors: dict[str, str | None] = {}
        self._expected: set[str] = set()

    def want(self, names: Iterable[str], priority: int | None) -> None:
        """Want ``names`` (anew); without a ``priority`` the one they are registered with applies."""
        with self._lock:
            for name in names:
                known = self._wanted.get(name) or _Wanted(None, len(self._wanted))
                self._wanted[name] = known if priority is None else known._replace(priority=priority)
                self._reopen(name)

    def want_resident(self, names: Iterable[str]) -> None:
        """Want those of ``names`` whose residency is not lazy; forget how any of them ended."""
        for name in names:
            is_wanted = self._pool.status(name).residency != "lazy"
            with self._lock:
                if is_wanted and name not in self._wanted:
                    self._wanted[name] = _Wanted(None, len(self._wanted))
                self._reopen(name)

    def _reopen(self, name: str) -> None:
        """Forget how ``name`` ended."""
        self._errors.pop(name, None)
        if name in self._wanted:
            self._open[name] = self._wanted[name]

    def forget_outcomes(self) -> None:
        """Begin anew: everything wanted is to be tried again."""
        with self._lock:
            self._errors.clear()
            self._open = dict(self._wanted)

    def end(self, name: str, error: str | None) -> None:
        """Note how a load ended, of whomever it was: with ``error``, or with ``None`` when the model is ready."""
        with self._lock:
            self._errors[name] = error
            self._open.pop(name, None)

    def retry(self, name: str) -> None:
        """Try ``name`` again if it is wanted and failed."""
        with self._lock:
            if self._errors.get(name) is not None:
                self._reopen(name)

    def errors(self) -> dict[str, str]:
        """Return the last error of each model whose preload failed."""
        with self._lock:
            return {name: error for name, error in self._errors.items() if error is not None}

    def set_expected(self, names: set[str]) -> None:
        """Have the pool expect ``names`` and no others."""
        self._expected = names
        self._pool.set_expected(names)

    def expect(self, names: Iterable[str]) -> None:
        """Have the pool expect ``names`` too, with all they depend on."""
        rest = set(names)
        while rest:
            self._expected |= rest
            found = self._pool.outline(rest).values()
            rest = {other for outline in found for other in outline.depends_on} - self._expected
        self._pool.set_expected(self._expected)

    def plan(self, loading: Collection[str], worth_of: Callable[[str], float]) -> Plan:
        """Return what to load next; ``worth_of`` says what a byte of a model saves.

        Cost: nothing without open wishes, else 1 µs a model of the pool and as much a wish that does not fit.
        """
        with self._lock:
            wanted = dict(self._open)
            failed = {name for name, error in self._errors.items() if error is not None} if wanted else set()
        known = self._pool.outline() if wanted else {}
        fulfilled = [name for name in wanted if name in known and known[name].is_ready]
        with self._lock:
            for name in fulfilled:
                del wanted[name]
                self._errors.setdefault(name, None)  # or it would be loaded again when it has left
                self._open.pop(name, None)
        if not wanted:
            return Plan((), (), {}, {})
        priorities = {
            name: (known[name].priority if name in known else 1) if wish.priority is None else wish.priority
            for name, wish in wanted.items()
        }
        room = self._room(known, loading)
        hopeless = (
            {} if room is None else find_hopeless(priorities.items(), known, failed=failed, loading=loading, room=room)
        )
        wishes = [
            Wish(name, priority, worth_of(name), wanted[name].position)
            for name, priority in priorities.items()
            if name not in hopeless
        ]
        return plan_loads(wishes, known, failed=failed, loading=loading, room=room, hopeless=hopeless)

    def _room(self, known: Mapping[str, ModelOutline], loading: Collection[str]) -> Room | None:
        """Return the free bytes and those of idle models, which may leave; ``None`` is without a bound."""
        free_bytes = self._pool.memory_limit_bytes
        if free_bytes is None:
            return None
        idle_bytes: dict[int, int] = {}
        for name, model in known.items():
            if model.is_in_memory or name in loading:
                free_bytes -= model.size_bytes
                if model.is_ready and not model.is_pinned and not model.leases:
                    idle_bytes[model.priority] = idle_bytes.get(model.priority, 0) + model.size_bytes
        return Room(free_bytes, idle_bytes)
