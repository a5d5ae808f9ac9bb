"""service: what can be seen of a preloader, and set, in any thread, whether it runs or not."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ondol.errors import UnknownModelError
from ondol.preload.plan import Plan
from ondol.preload.plan_report import PlanFacts, hint_in_words, plan_report
from ondol.units import Percent

if TYPE_CHECKING:
    import asyncio

    from ondol.clock import Clock
    from ondol.models import ModelPool
    from ondol.preload.foresight import Foresight
    from ondol.preload.hints import Hints
    from ondol.preload.history import History
    from ondol.preload.wishes import Wishes
    from ondol.recorder import Recorder

__all__ = ["NOTHING", "PreloadControls"]

logger = logging.getLogger("ondol.preload")

NOTHING = Plan((), (), {}, {})


class PreloadControls:
    """The part of a preloader that needs no event loop.

    Thread-safety: everything here may be called from any thread, with or without a running loop.
    """

    foresight: Foresight
    hints: Hints
    _wishes: Wishes
    _history: History

    def __init__(self, pool: ModelPool, clock: Clock, recorder: Recorder) -> None:
        """Begin with nothing done."""
        self._pool = pool
        self._clock = clock
        self._recorder = recorder
        self._is_enabled = True
        self._max_concurrent = 1
        self._paused_reason: str | None = None
        self._plan = NOTHING
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._attempts = self._succeeded = self._failed = self._recorder_failures = 0
        self._told_lock = threading.Lock()
        self._told_count = self._told_fetched = self._told_used = self._told_wasted = 0
        self._told_saved_s = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self._paused_reason is not None

    def record_usage(self, name: str) -> None:
        """Count one use of a model, also of one not registered (yet). Leases are counted by themselves."""
        self.foresight.record_usage(name)
        self._record_fetches(name)

    def forbid(self, name: str) -> None:
        """Never fetch a model ahead because of what is foreseen, until ``allow`` or the end of the process.

        Nor is it loaded because it is probably used soon after a start. Whoever wants it explicitly (``want``,
        ``register``, a hint, an eager or pinned residency) still gets it, and requests load it as ever.
        """
        self.foresight.forbid(name, is_forbidden=True)
        logger.info("model %s is not fetched ahead any more: that was forbidden", name)

    def allow(self, name: str) -> None:
        """Let a model be fetched ahead again."""
        self.foresight.forbid(name, is_forbidden=False)
        self.foresight.wake()
        logger.info("model %s may be fetched ahead again", name)

    def forecast(self) -> list[dict[str, Any]]:
        """Return what is foreseen of each model, those in memory first, then by worth; ``why`` has the same of one."""
        return self.foresight.forecast()

    def why(self, name: str) -> dict[str, Any]:
        """Return why a model is in memory or not and what comes next, with the figures and in ``words``.

        Raises:
            UnknownModelError: it was neither registered, used nor hinted at.
        """
        hints = [hint for hint in self.hints.list() if hint.model == name]
        try:
            found = self.foresight.explain(name)
        except UnknownModelError:
            if not hints:
                raise
            self.foresight.forbid(name, is_forbidden=False)  # with that it has heard of it
            found = self.foresight.explain(name)
        plan, words = self._plan, [found["words"].strip()]
        try:
            is_pinned = self._pool.status(name).is_pinned
        except UnknownModelError:
            is_pinned = False
        if is_pinned:
            words.append("It is pinned: it never leaves to make room.")
        if name in plan.left_out:
            words.append(f"It is wanted ahead of use, but {plan.left_out[name]}.")
        elif name in plan.blocked:
            words.append(f"It is wanted ahead of use, but waits for {', '.join(plan.blocked[name])}.")
        elif name in plan.loads or name in plan.waiting:
            words.append("It is wanted ahead of use, and loaded when its turn comes.")
        error = self._wishes.errors().get(name)
        if error is not None:
            words.append(f"Its last preload failed: {error}.")
        now_s = self._clock.wall()
        words += [hint_in_words(hint, now_s) for hint in hints]
        return {
            **found,
            "is_pinned": is_pinned,
            "last_error": error,
            "hints": [hint.as_dict() for hint in hints],
            "words": " ".join(words),
        }

    def get_plan(self) -> dict[str, Any]:
        """Return what is loaded ahead of use now and next as plain data, and in ``words``.

        ``loading``, ``loads`` and ``waiting`` are names in order; ``left_out`` and ``blocked`` have a ``reason``;
        ``foreseen`` says what would be fetched next, and ``in_s`` when; ``hints`` have ``next_at_s`` and ``load_at_s``.
        """
        facts = PlanFacts(
            self._is_enabled,
            self._paused_reason,
            list(self._loading),
            frozenset(self._pool.names()),
            self._wishes.errors(),
            self.foresight.foreseen(),
            self.hints.list(),
            self._clock.wall(),
        )
        return plan_report(self._plan, facts)

    def outstanding(self) -> tuple[frozenset[str], frozenset[str]]:
        """Return the models that are being loaded ahead of use or will be, and those there is no room for."""
        plan = self._plan
        return frozenset((*plan.loads, *plan.waiting, *self._loading)), frozenset(plan.left_out)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain data.

        ``success_rate`` is the share of ended preloads that succeeded; of none it is 100 %, because an alert on a
        low rate must not fire where nothing failed. ``attempts`` counts dependencies loaded on behalf of others too.
        """
        plan = self._plan
        ended = self._succeeded + self._failed
        queued = [name for name in (*plan.loads, *plan.waiting) if name not in self._loading]
        return {
            "success_rate": Percent.of(self._succeeded, ended) if ended else Percent(100.0),
            "attempts": self._attempts,
            "succeeded": self._succeeded,
            "failed": self._failed,
            "queued": len(queued),
            "queued_names": queued,
            "loading": len(self._loading),
            "loading_names": list(self._loading),
            "blocked": {name: list(obstacles) for name, obstacles in plan.blocked.items()},
            "left_out": dict(plan.left_out),
            "errors": self._wishes.errors(),
            "recorder_failures": self._recorder_failures,
            "is_enabled": self._is_enabled,
            "max_concurrent": self._max_concurrent,
            "paused_reason": self._paused_reason,
            "usage": self.foresight.usage_rows(),
            "foresight": self.foresight.get_stats(),
            "hints": self.hints.get_stats(),
            "history": self._history.get_stats(),
        }

    # Measurements

    def _record(self, metric_name: str, value: float, unit: str, model: str) -> None:
        try:
            self._recorder(metric_name, value, unit, model=model)
        except Exception:
            self._recorder_failures += 1
            logger.exception("recording %s failed", metric_name)

    def _record_fetches(self, model: str) -> None:
        """Record what has come of fetching ahead since it was recorded last. Cost: hardly any when it is nothing."""
        tally = self.foresight.tally
        if tally.fetched + tally.used + tally.wasted == self._told_count:
            return
        with self._told_lock:
            fetched, used, wasted, saved_s = tally.fetched, tally.used, tally.wasted, tally.saved_s
            news = fetched - self._told_fetched, used - self._told_used, wasted - self._told_wasted
            saved_s -= self._told_saved_s
            self._told_fetched, self._told_used, self._told_wasted = fetched, used, wasted
            self._told_saved_s += saved_s
            self._told_count = fetched + used + wasted
        if news[0]:
            self._record("preload.fetched", float(news[0]), "count", model)
        if news[1]:
            self._record("preload.fetched_used", float(news[1]), "count", model)
        if news[2]:
            self._record("preload.fetched_wasted", float(news[2]), "count", model)
        if saved_s > 0.0:
            self._record("preload.saved_time", saved_s, "seconds", model)
