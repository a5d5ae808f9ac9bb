"""service: the keep-warm policy at work: fed by the events of the pool, asked who leaves, and what to fetch ahead."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from typing import TYPE_CHECKING, Any

from ondol.errors import UnknownModelError
from ondol.models.spec import check_name
from ondol.preload.foreseen import foreseen, unpromised
from ondol.preload.knowledge import knowledge_of, take_in
from ondol.preload.outlook import outlook_of, wanted_within
from ondol.preload.policy import KeepWarmPolicy
from ondol.preload.surroundings import PoolSurroundings
from ondol.units import Percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ondol.clock import Clock
    from ondol.models import ModelPool
    from ondol.preload.proposal import Proposal, Tally

__all__ = ["Foresight"]

logger = logging.getLogger("ondol.preload")

SOON_S = 600.0
"""What is probably used within ten minutes of a start is loaded without being asked for."""


class Foresight:
    """Sees what the pool does, advises it whom to let go, and says what is to be fetched ahead while nobody waits.

    Thread-safety: what is public may be called from any thread, but for ``start`` and ``stop``.
    """

    def __init__(self, pool: ModelPool, clock: Clock, fetch: Callable[[Proposal], None]) -> None:
        """Watch ``pool``; ``fetch`` is called in the loop of ``start`` when something is worth fetching."""
        self._pool = pool
        self._clock = clock
        self._fetch = fetch
        self._policy = KeepWarmPolicy()
        self.lock = threading.RLock()
        """Held while what was learnt is asked or told."""
        self.under_way: set[str] = set()
        """Models whose load under way was not asked for by a request."""
        self._loading: set[str] = set()
        self._surroundings = PoolSurroundings(pool)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_look_due = False
        self.may_fetch: Callable[[], bool] = lambda: True
        self.on_used: Callable[[str, float], None] = lambda _name, _at_s: None
        """Told of each use, in the order of their times."""
        pool.set_advisor(self)

    # What happens

    def noticed(self, event: str, name: str) -> None:
        """Take in an event of the pool."""
        if event in {"leased", "asked"}:
            self.record_usage(name)
            return
        now_s = self._clock.monotonic()
        with self.lock:
            if event == "loading":
                self._loading.add(name)
                self._policy.loading(name, now_s, is_ahead=name in self.under_way)
            elif event == "ready":
                self._loading.discard(name)
                self._describe(name)
                self._policy.loaded(name, now_s)
            elif event == "leaving":
                self._policy.left(name, now_s)
            elif event == "registered":
                self._describe(name)
            elif event == "failed" and name in self._loading:
                self._loading.discard(name)
                self._policy.failed(name, now_s)
        self.wake()

    def _describe(self, name: str) -> None:
        try:
            status = self._pool.status(name)
        except UnknownModelError:  # pragma: no cover  # a pool never forgets a model
            return
        self._policy.know(name, size_bytes=status.size_bytes, load_s=status.load_seconds, priority=status.priority)

    def record_usage(self, name: str) -> None:
        """Count one use of a model, also of one not registered (yet).

        Raises:
            ConfigurationError: it is not a name that a model can have.
        """
        check_name(name, "name of a used model")
        with self.lock:
            now_s = self._clock.monotonic()
            self._policy.used(name, now_s)
            self.on_used(name, now_s)
            is_due = self._policy.wake_at_s() <= now_s
        if is_due and self.may_fetch():
            self.wake()

    # The pool's advisor

    def coldest_first(self, now_s: float) -> Iterator[str]:
        """Yield the models in memory, the least worth keeping first."""
        with self.lock:
            self._policy.set_budget(self._pool.memory_limit_bytes)
            yield from self._policy.coldest_first(now_s)

    # Fetching ahead

    def start(self) -> None:
        """Begin to look ahead in the running loop."""
        for name in self._pool.names():  # also those registered before there was a preloader, and by what was learnt
            self._describe(name)
        self._loop = asyncio.get_running_loop()
        self._timer, self._is_look_due = None, False
        self.wake()

    def stop(self) -> None:
        """Look ahead no more; uses still count."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def wake(self) -> None:
        """Look soon, in the loop's thread, whether something is to be fetched."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._is_look_due:
            return
        self._is_look_due = True
        try:
            loop.call_soon_threadsafe(self._look)
        except RuntimeError:  # it was closed in this instant: the next start looks
            self._is_look_due = False

    def _look(self) -> None:
        self._is_look_due = False
        loop = self._loop
        if loop is None or not self.may_fetch():
            return
        state = self._pool.load_state()
        now_s = self._clock.monotonic()
        with self.lock:
            self._policy.set_budget(self._pool.memory_limit_bytes)
            proposal = None
            if self._loading and not (state.demand_loads or state.background_loads):
                self._forget_loads(now_s)
            if not (state.is_demand_waiting or state.demand_loads or state.background_loads):
                proposal = self._policy.propose(now_s, state.free_bytes, self._surroundings)
            else:
                self._policy.look_at_due(now_s)
            if proposal is not None:
                self._policy.begin_ahead(proposal, now_s)
            at_s = self._policy.wake_at_s()
        self._wake_at(loop, at_s, now_s)
        if proposal is not None:
            self.under_way.add(proposal.name)
            logger.info(
                "fetching model %s ahead: it is used with a probability of %.0f %% before it would leave again%s",
                *(
                    proposal.name,
                    proposal.probability * 100,
                    f"; {', '.join(proposal.victims)} leaves" * bool(proposal.victims),
                ),
                extra={"fields": {"model": proposal.name, "probability": proposal.probability}},
            )
            self._fetch(proposal)

    def _forget_loads(self, now_s: float) -> None:
        """Note that loads came to nothing that ended without a word: they were taken back, or begin anew."""
        for name in self._loading:
            self._policy.failed(name, now_s)
        self._loading.clear()

    def _wake_at(self, loop: asyncio.AbstractEventLoop, at_s: float, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_later(max(0.0, at_s - now_s), self._look) if at_s < math.inf else None

    def fetched(self, name: str, *, has_failed: bool) -> None:
        """Note that a load ahead of use is over."""
        self.under_way.discard(name)
        if has_failed:
            with self.lock:
                self._policy.failed(name, self._clock.monotonic())
        self.wake()

    def set_displacing(self, *, may_displace: bool) -> None:
        """Let what is fetched ahead take the room of others, or only room that is free."""
        self._surroundings.may_displace = may_displace

    def soon(self) -> list[str]:
        """Return the models probably used within ten minutes, those worth most first."""
        now_s = self._clock.monotonic()
        with self.lock:
            return wanted_within(self._policy, SOON_S, now_s)

    def worth_of(self, name: str) -> float:
        """Return what a byte of the model saves, in the policy's own unit; 0 for one never used."""
        with self.lock:
            return self._policy.worth_of(name, self._clock.monotonic())

    def promise(self, name: str, until_s: float) -> None:
        """Keep a model until then (monotonic), once it is in memory."""
        self._pool.promise(name, until_s)
        with self.lock:
            self._policy.promise(name, until_s, self._clock.monotonic())

    def forbid(self, name: str, *, is_forbidden: bool) -> None:
        """Never fetch a model ahead, or do so again."""
        with self.lock:
            self._policy.forbid(name, is_forbidden=is_forbidden)

    @property
    def tally(self) -> Tally:
        """What came of fetching ahead."""
        return self._policy.tally

    def unpromised(self) -> list[str]:
        """Return the models in memory that may leave: not those promised to stay, none where nobody may."""
        if not self._surroundings.may_displace:
            return []
        with self.lock:
            return unpromised(self._policy, self._clock.monotonic())

    def foreseen(self) -> list[dict[str, Any]]:
        """Return what would be fetched ahead next, soonest first."""
        with self.lock:
            return foreseen(self._policy, self._clock.monotonic())

    def explain(self, name: str) -> dict[str, Any]:
        """Return what is foreseen of a model, with the figures behind it.

        Raises:
            UnknownModelError: it was neither registered nor used.
        """
        with self.lock:
            found = outlook_of(self._policy, name, self._clock.monotonic())
        if found is None:
            raise UnknownModelError(name, list(self._policy.tracks))
        return found

    def forecast(self) -> list[dict[str, Any]]:
        """Return what is foreseen of every model, the one worth most first."""
        now_s = self._clock.monotonic()
        with self.lock:
            found = [outlook_of(self._policy, name, now_s) for name in self._policy.tracks]
        rows = [row for row in found if row is not None]
        return sorted(rows, key=lambda row: (not row["is_loaded"], -row["worth"]))

    # What it has learnt (the part of history.py)

    def to_plain(self, now_s: float) -> dict[str, Any]:
        """Return what was learnt."""
        with self.lock:
            return knowledge_of(self._policy, now_s)

    def take_in(self, plain: Mapping[str, Any], now_s: float) -> int:
        """Add what another process learnt; return of how many models.

        Raises:
            ValueError: it is damaged.
        """
        with self.lock:
            count = take_in(self._policy, plain, now_s)
        self.wake()
        return count

    def replay(self, name: str, at_s: float) -> None:
        """Count a use that happened at an earlier time; one before a use that is known already teaches nothing."""
        with self.lock:
            track = self._policy.tracks.get(name)
            if track is None or at_s >= track.last_s:
                self._policy.used(name, at_s)

    def usage_rows(self) -> dict[str, dict[str, Any]]:
        """Return count and wall-clock time of the last use, by model."""
        offset_s = self._clock.wall() - self._clock.monotonic()
        with self.lock:
            tracks = [track for track in self._policy.tracks.values() if track.count]
            return {track.name: {"count": track.count, "last_used_at": track.last_s + offset_s} for track in tracks}

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        with self.lock:
            policy = self._policy
            tally = policy.tally
            ended = tally.used + tally.wasted
            return {
                "fetched": tally.fetched,
                "used": tally.used,
                "wasted": tally.wasted,
                "failed": tally.failed,
                "precision": Percent.of(tally.used, ended) if ended else Percent(100.0),
                "waiting_saved_s": tally.saved_s,
                "uses": policy.events,
                "expert": policy.experts.chosen,
                "expert_changes": policy.experts.changes,
                "expert_losses_s": {name: ghost.loss_s for name, ghost in policy.experts.ghosts.items()},
            }
