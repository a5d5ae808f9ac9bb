"""service: watches the machine's memory and moves the knobs of cache and preloading as the guard decides."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Any

from ondol.clock import SystemClock
from ondol.recorder import Recorder, discard
from ondol.tuning.guard import MemoryGuard, Observation
from ondol.tuning.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ondol.clock import Clock
    from ondol.tuning.guard import Move
    from ondol.tuning.ports import PausableLoads, ResizableCache

__all__ = ["AutoTuner"]

logger = logging.getLogger("ondol.tuning")
performance_logger = logging.getLogger("ondol.performance")

PAUSE_REASON = "memory pressure"


class AutoTuner:
    """Shrinks the cache and pauses preloading under memory pressure, restores both when it has passed.

    Every change is a sentence with its figures: in ``get_stats()``, in ``performance.log``, in ``application.log``.
    Turned off it changes nothing; when it is turned off or stopped, it gives back what it took.

    Thread-safety: belongs to one event loop (or thread) at a time; ``get_stats`` from any.
    """

    def __init__(
        self,
        cache: ResizableCache,
        preloader: PausableLoads,
        health: Callable[[], Mapping[str, Any]],
        *,
        clock: Clock | None = None,
        recorder: Recorder = discard,
        is_enabled: bool = True,
        interval_s: float = 5.0,
    ) -> None:
        """Change nothing yet.

        Args:
            cache: whose bound is moved; its bound now is the one that is restored, until ``configure`` names another.
            preloader: whose background loads are paused.
            health: gives ``memory_percent``, of the limit that would kill the process.
            clock: dates the journal.
            recorder: takes the metrics of tuning.
            is_enabled: whether anything is changed at all.
            interval_s: time between two looks once started.
        """
        self._cache = cache
        self._preloader = preloader
        self._health = health
        self._clock = clock if clock is not None else SystemClock()
        self._record = recorder
        self._is_enabled = is_enabled
        self._interval_s = interval_s
        self._base_cache_bytes = cache.max_bytes
        self._guard = MemoryGuard()
        self._journal = Journal()
        self._ticks = 0
        self._errors = 0
        self._task: asyncio.Task[None] | None = None

    def configure(self, *, is_enabled: bool | None = None, base_cache_bytes: int | None = None) -> None:
        """Turn it on or off, or name the configured bound of the cache.

        Naming the bound does not move the cache: who changes the setting does. Under pressure the guard goes on from
        whatever bound the cache has at its next look.

        Raises:
            ValueError: ``base_cache_bytes`` is not above 0.
        """
        if base_cache_bytes is not None:
            self._set_base(base_cache_bytes)
        if is_enabled is not None and is_enabled != self._is_enabled:
            self._is_enabled = is_enabled
            if not is_enabled:
                self._give_back("tuning was turned off")

    def _set_base(self, base_cache_bytes: int) -> None:
        if base_cache_bytes <= 0:
            raise ValueError(f"base_cache_bytes={base_cache_bytes} is not allowed: it must be > 0")
        self._base_cache_bytes = base_cache_bytes

    def tick(self) -> None:
        """Look at the memory once and do what the guard decides.

        Raises:
            Exception: health, cache or preloader failed; what was decided before that has been done.
        """
        if not self._is_enabled:
            return
        self._ticks += 1
        self._apply(self._guard.look(self._observe(_memory_percent(self._health()))))
        self._record("tuning.cache_bound_bytes", float(self._cache.max_bytes), "bytes")

    def _observe(self, memory_percent: float | None) -> Observation:
        return Observation(
            memory_percent=memory_percent,
            cache_max_bytes=self._cache.max_bytes,
            base_cache_bytes=self._base_cache_bytes,
            is_paused=self._preloader.is_paused,
        )

    def _apply(self, moves: list[Move]) -> None:
        for move in moves:
            if move.cache_bytes is not None:
                self._cache.resize(move.cache_bytes)
            elif move.action == "pause":
                self._preloader.pause(PAUSE_REASON)
            else:
                self._preloader.resume()
            self._tell(move)

    def _tell(self, move: Move) -> None:
        entry = self._journal.add(self._clock.wall(), move.action, move.sentence)
        level = logging.WARNING if move.action in {"shrink", "pause"} else logging.INFO
        fields = {"event": "tuning", "action": move.action, "cache_bound_bytes": self._cache.max_bytes}
        performance_logger.log(level, entry.sentence, extra={"fields": fields})
        self._record("tuning.decisions", 1.0, "count", action=move.action)

    def _give_back(self, why: str) -> None:
        self._apply(self._guard.give_back(self._observe(None), why))

    async def start(self) -> None:
        """Look every ``interval_s`` from now on. Starting a running tuner does nothing."""
        task = self._task
        # A loop that was closed without a stop() has left a task behind that will never run again.
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="ondol.tuning")

    async def stop(self) -> None:
        """Stop looking and give back what the guard took. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
        self._give_back("tuning was stopped")  # before anything is awaited: a stop that is cancelled gives back, too
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([task])

    async def _run(self) -> None:
        while True:
            try:
                self.tick()
            except Exception:
                self._errors += 1
                logger.exception("a look of the tuner failed; the next one follows in %g s", self._interval_s)
            await asyncio.sleep(self._interval_s)

    def get_stats(self) -> dict[str, Any]:
        """Return mode, state, the last decisions (sentences, newest last) and counts, as plain values."""
        return {
            "mode": "on" if self._is_enabled else "off",
            "state": self._guard.state,
            "decisions": self._journal.sentences(),
            "journal": [entry.as_dict() for entry in self._journal.entries()],
            "decision_count": self._journal.count,
            "ticks": self._ticks,
            "errors": self._errors,
            "cache_bound_bytes": self._cache.max_bytes,
            "base_cache_bytes": self._base_cache_bytes,
        }


def _memory_percent(health: Mapping[str, Any]) -> float | None:
    value = health.get("memory_percent")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
