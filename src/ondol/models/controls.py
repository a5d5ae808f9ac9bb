"""service: what can be seen of a pool, and set, in any thread, whether it runs or not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ondol.models.figures import figures
from ondol.models.loops import in_loop
from ondol.models.options import check_bound
from ondol.models.spec import ModelState
from ondol.models.status import LoadState, ModelOutline

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from types import EllipsisType

    from ondol.models.ports import Advisor, Listener
    from ondol.models.registry import Registry
    from ondol.models.retry import RetryPolicy
    from ondol.models.run import PoolRun
    from ondol.models.status import ModelStatus

__all__ = ["PoolControls"]

logger = logging.getLogger("ondol.models")

_READY, _LOADING, _WARMING, _DRAINING = ModelState.READY, ModelState.LOADING, ModelState.WARMING, ModelState.DRAINING


class PoolControls:
    """The part of a pool that needs no event loop.

    Thread-safety: everything here may be called from any thread, with or without a running loop.
    """

    def __init__(self, registry: Registry) -> None:
        """Look at ``registry``; nothing runs yet."""
        self._registry = registry
        self._run: PoolRun | None = None
        self._outlines: dict[str, tuple[tuple[object, ...], ModelOutline]] = {}
        """Of models that are not in memory, with what they were made of: those are many, and seldom change."""

    @property
    def memory_limit_bytes(self) -> int | None:
        """The bound of all models together; ``None`` is none."""
        return self._registry.ledger.limit_bytes

    def pin(self, name: str) -> None:
        """Never evict the model from now on, nor unload it for being idle. It is not loaded by this. In any thread.

        Raises:
            UnknownModelError: no such model.
        """
        self._set_pinned(name, is_pinned=True)

    def unpin(self, name: str) -> None:
        """Let the model be evicted like any other, also one whose residency is ``pinned``. In any thread.

        Raises:
            UnknownModelError: no such model.
        """
        self._set_pinned(name, is_pinned=False)

    def _set_pinned(self, name: str, *, is_pinned: bool) -> None:
        self._registry.entry(name).pinned_by_hand = is_pinned
        logger.info("model %s is %s by hand", name, "pinned" if is_pinned else "unpinned")
        self._reconsider()

    def promise(self, name: str, until_s: float) -> None:
        """Keep the model in memory, once it is there, until ``until_s``; it is not loaded by this. In any thread.

        Until then it is not unloaded for being idle, and no background load displaces it. What a request waits for
        may, as may a lowered limit: the advisor says how late it goes. An unknown name is ignored.

        Args:
            name: of a model.
            until_s: monotonic; takes the place of what was promised before, ``-math.inf`` takes it back.
        """
        if not self._registry.promise(name, until_s):
            return  # else it may leave sooner than others were told
        run = self._run
        if run is not None and not run.loop.is_closed():
            in_loop(run.loop, run.no_longer_promised, name)

    def status(self, name: str) -> ModelStatus:
        """Return what can be seen of one model.

        Raises:
            UnknownModelError: no such model.
        """
        return self._registry.status(self._registry.entry(name))

    def statuses(self) -> list[ModelStatus]:
        """Return what can be seen of every model, in the order of registration."""
        return [self._registry.status(entry) for entry in self._registry.snapshot()]

    def names(self) -> list[str]:
        """Return the names in the order of registration."""
        return self._registry.names()

    def outline(self, names: Iterable[str] | None = None) -> dict[str, ModelOutline]:
        """Return what plans need of every model, or of those of ``names`` that there are. Cost: 1 µs a model."""
        entries = self._registry.entries
        chosen = self._registry.snapshot() if names is None else [entries[name] for name in names if name in entries]
        found: dict[str, ModelOutline] = {}
        for entry in chosen:
            facts = entry.spec, entry.state, entry.resident, entry.measured_bytes, entry.pinned_by_hand
            spec, state, resident, size_bytes, _ = facts
            kept = self._outlines.get(spec.name)
            if kept is not None and resident is None and kept[0][0] is spec and kept[0] == facts:
                found[spec.name] = kept[1]
                continue
            found[spec.name] = outline = ModelOutline(
                spec.name,
                spec.priority,
                spec.depends_on,
                size_bytes if size_bytes is not None else spec.size_bytes or 0,
                state is _READY,
                state is _READY or state is _LOADING or state is _WARMING or state is _DRAINING,
                entry.is_pinned,
                0 if resident is None else resident.leases,
            )
            if resident is None:
                self._outlines[spec.name] = facts, outline
        return found

    def configure(
        self,
        *,
        memory_limit_bytes: int | EllipsisType | None = ...,
        max_background_loads: int | None = None,
        max_demand_loads: int | None = None,
        is_lazy_loading_enabled: bool | None = None,
        lease_timeout_s: float | None = None,
        load_timeout_s: float | EllipsisType | None = ...,
        idle_ttl_s: float | EllipsisType | None = ...,
        retry: RetryPolicy | EllipsisType | None = ...,
    ) -> None:
        """Change what is given; a lowered limit or idle time lets idle models go at once.

        Raises:
            ConfigurationError: a bound is not positive; nothing was changed.
        """
        given: dict[str, Any] = {
            "max_background_loads": max_background_loads,
            "max_demand_loads": max_demand_loads,
            "lease_timeout_s": lease_timeout_s,
            "is_lazy_loading_enabled": is_lazy_loading_enabled,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        unlimited = {
            "memory_limit_bytes": memory_limit_bytes,
            "load_timeout_s": load_timeout_s,
            "idle_ttl_s": idle_ttl_s,
            "retry": retry,
        }
        changes |= {name: value for name, value in unlimited.items() if value is not ...}
        limit = changes.pop("memory_limit_bytes", ...)
        if limit is not ...:
            check_bound("memory_limit_bytes", limit)
        self._registry.options.change(changes)
        self._reconsider(*(() if limit is ... else (limit,)))

    def _reconsider(self, *limit_bytes: int | None) -> None:
        run = self._run
        if run is not None and not run.loop.is_closed():
            in_loop(run.loop, run.reconsider, *limit_bytes)
        elif limit_bytes and self._registry.change_limit(*limit_bytes):
            self._registry.announce("limit", "")

    def set_expected(self, names: Collection[str]) -> None:
        """Name the models that somebody is going to load ahead of use.

        With lazy loading off a lease on one of them waits for its load instead of being refused (and hurries it).
        """
        self._registry.expected = frozenset(names)

    def add_listener(self, callback: Listener) -> None:
        """Have ``callback(event, name)`` called; ``Listener`` lists the events."""
        self._registry.listeners = (*self._registry.listeners, callback)

    def set_advisor(self, advisor: Advisor | None) -> None:
        """Have ``advisor`` say which models leave first when room is needed; without one it goes by their worth.

        One that fails is logged and counted (``advisor_failures``), and does not keep anything from leaving.
        """
        self._registry.advisor = advisor

    def load_state(self) -> LoadState:
        """Return what the pool is busy with: cheap enough to ask after every event; all 0 when it does not run."""
        run = self._run
        return LoadState() if run is None or run.is_closing or run.loop.is_closed() else run.load_state()

    def get_stats(self) -> dict[str, Any]:
        """Return the figures of the pool and of each model as plain data."""
        return figures(self._registry.totals, self._registry.ledger, self.statuses())
