"""service: hints on when models will be wanted: each loads its model shortly before, and keeps it for a while."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import ConfigurationError, ModelBudgetError, OndolError, UnknownModelError
from ondol.models import ModelState
from ondol.preload.hint import Hint, asked_of, check_hint
from ondol.preload.hints_keeper import HintsKeeper

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime, tzinfo

    from ondol.clock import Clock
    from ondol.models import ModelPool
    from ondol.preload.foresight import Foresight
    from ondol.preload.hint import HintStatus
    from ondol.preload.ports import HintStore

__all__ = ["MOST_HINTS", "Hints"]

logger = logging.getLogger("ondol.preload")

MOST_HINTS: Final = 1000
LOOK_S: Final = 60.0
"""So often the wall clock is compared with the monotonic one, and load times are looked at anew."""
_JUMP_S: Final = 1.0
_NEAR_S: Final = 600.0
_UNKNOWN_LOAD_S: Final = 1.0


class Hints:
    """The hints of a preloader. They win over ``forbid``, and over what use has taught.

    At the time of a hint, less 1.5 times what the load takes and 5 s, its model is loaded in the background; models
    that are worth less leave for it, whatever their priority, but none that is pinned, in use or hinted at itself.
    While preloading is off or paused nothing is loaded; it is made up for as long as the hint's hold lasts.

    Thread-safety: ``add``, ``remove``, ``list`` and ``get_stats`` may be called from any thread, before the start, too;
    the rest belongs to the preloader's loop.
    """

    def __init__(self, pool: ModelPool, clock: Clock, foresight: Foresight, store: HintStore | None = None) -> None:
        """Begin with none; what ``store`` holds is read at the first start."""
        self._pool = pool
        self._clock = clock
        self._foresight = foresight
        self._lock = threading.RLock()  # held for no call of the pool or of the foresight: they call back
        self._hints: dict[str, Hint] = {}
        self._revision = 0
        self._keeper = HintsKeeper(store, self._captured)
        self._promised: dict[str, float] = {}
        self._offset_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_look_due = False
        self.on_due: Callable[[], None] = lambda: None
        """Called in the loop when there may be something to load."""

    # The hints

    def add(
        self,
        model: str,
        *,
        at: datetime | float | str | None = None,
        repeat: str | float | None = None,
        zone: str | tzinfo | None = None,
        hold_s: float = 300.0,
    ) -> HintStatus:
        """Have ``model`` in memory at these times; the same hint again is that hint.

        Args:
            model: its name; it may be registered later.
            at: the first time, as ``parse_recurrence`` takes it: ``08:55``, a datetime, ISO 8601, seconds since 1970.
            repeat: ``None`` for once; ``daily``, ``weekdays``, an interval such as ``1h`` (from ``at``, else from now
                on, now included), or a cron expression such as ``55 8 * * 1-5``.
            zone: an IANA name such as ``Asia/Seoul``; the machine's own when not given.
            hold_s: so long it is kept after each of the times.

        Raises:
            ConfigurationError: one of these is not allowed, the time is over, or there are 1,000 hints already.
        """
        from ondol.preload.recurrence import parse_recurrence  # noqa: PLC0415  # an idle start shall not pay for it

        check_hint(model, hold_s)
        now_s = self._clock.wall()
        recurrence = parse_recurrence(at, repeat, zone=self._zone(zone), now_wall_s=now_s)
        hint = Hint(asked_of(model, at, repeat, zone), recurrence, float(hold_s))
        hint.set_load(self._load_s(model))
        with self._lock:
            known = self._hints.get(hint.id)
            if known is not None:
                known.renew(recurrence, float(hold_s), now_s)
                hint = known
            else:
                hint.plan(now_s)
                self._check_new(hint)
                self._hints[hint.id] = hint
            self._revision += 1
        self._wake()
        logger.info("hint %s: model %s is wanted %s", hint.id, model, recurrence.describe())
        return self._status(hint)

    def _zone(self, zone: str | tzinfo | None) -> str | tzinfo:
        if zone is not None:
            return zone
        from ondol.preload.local_zone import local_zone  # noqa: PLC0415  # an idle start shall not pay for it

        return local_zone()

    def _check_new(self, hint: Hint) -> None:
        if hint.next_at_s is None:
            message = f"the hint is over already: {hint.recurrence.describe()} is past; give a later at=, or repeat="
            raise ConfigurationError(message)
        if len(self._hints) >= MOST_HINTS:
            message = f"there are {MOST_HINTS} hints already, no more are kept: remove one (`ondol preload unhint ID`)"
            raise ConfigurationError(message)

    def remove(self, hint_id: str) -> bool:
        """Forget a hint; return whether there was one. A load under way goes on; the model is not kept for it."""
        with self._lock:
            hint = self._hints.pop(hint_id, None)
            self._revision += hint is not None
        if hint is not None:
            logger.info("hint %s on model %s is removed", hint_id, hint.asked.model)
            self._wake()
        return hint is not None

    def list(self) -> Sequence[HintStatus]:
        """Return them all, the one that acts next first."""
        with self._lock:
            hints = sorted(self._hints.values(), key=lambda hint: (hint.load_at_s(), hint.id))
        names = frozenset(self._pool.names())
        return [self._status(hint, names) for hint in hints]

    def _status(self, hint: Hint, names: Collection[str] | None = None) -> HintStatus:
        known = frozenset(self._pool.names()) if names is None else names
        return hint.status(self._clock.wall(), is_registered=hint.asked.model in known)

    def get_stats(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        with self._lock:
            hints = list(self._hints.values())
        return {
            "count": len(hints),
            "loads": sum(hint.loads for hint in hints),
            "failures": sum(hint.failures for hint in hints),
            "missed": sum(hint.missed for hint in hints),
            "file_failures": self._keeper.failures,
            "file_damaged": self._keeper.damaged,
        }

    def _captured(self) -> tuple[int, Sequence[Hint]]:
        with self._lock:
            return self._revision, list(self._hints.values())

    # Lifecycle

    def start(self) -> None:
        """Take in what earlier processes kept, and begin to act, in the running loop."""
        self._loop, self._timer, self._is_look_due = asyncio.get_running_loop(), None, False
        self._promised = {}
        kept = self._keeper.start()
        now_s = self._clock.wall()
        self._offset_s = now_s - self._clock.monotonic()
        with self._lock:
            self._revision += self._keeper.damaged  # the sound ones are written anew
            for hint in kept[:MOST_HINTS]:
                given = self._hints.setdefault(hint.id, hint)
                if given is not hint:
                    hint.renew(given.recurrence, given.hold_s, now_s)
                    self._hints[hint.id] = hint
            for hint in self._hints.values():
                hint.restart()
                hint.plan(now_s)
        if self._hints:
            self._look()

    def halt(self) -> None:
        """Act no more; loads under way are the preloader's to end."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Write what is not written yet; after ``halt``."""
        await self._keeper.close()

    # What happens next

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed() and not self._is_look_due:
            self._is_look_due = True
            loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Act on what is due, and come back when the next thing is: one timer for all."""
        self._is_look_due = False
        loop = self._loop
        if loop is None:
            return
        now_s = self._clock.wall()
        offset_s = now_s - self._clock.monotonic()
        is_jump = abs(offset_s - self._offset_s) > _JUMP_S
        self._offset_s = offset_s
        loads_s = self._near_loads(now_s)
        with self._lock:
            is_due = self._advance(now_s, loads_s, is_jump=is_jump)
            keeping = self._keeping(now_s)
            next_s = min((hint.boundary_s(now_s) for hint in self._hints.values()), default=None)
        if is_jump:
            logger.warning("the clock has been set, or the machine slept: the times of hints are found anew")
        self._promise(keeping, now_s)
        self._keeper.changed()
        if self._timer is not None:
            self._timer.cancel()
        wait_s = None if next_s is None else min(max(0.0, next_s - now_s), LOOK_S)
        self._timer = None if wait_s is None else loop.call_later(wait_s, self._look)
        if is_due:
            self.on_due()

    def _near_loads(self, now_s: float) -> dict[str, float]:
        """Return how long the loads take that may be due soon; the lock is not held while the pool is asked."""
        with self._lock:
            names = {
                hint.asked.model for hint in self._hints.values() if hint.load_at_s() - now_s < hint.lead_s + _NEAR_S
            }
        return {name: self._load_s(name) for name in names}

    def _load_s(self, name: str) -> float:
        found = 0.0
        for member in self._with_dependencies(name):
            try:
                load_s = self._pool.status(member).load_seconds
            except UnknownModelError:
                load_s = None
            found += _UNKNOWN_LOAD_S if load_s is None else load_s
        return found

    def _with_dependencies(self, name: str) -> Sequence[str]:
        """Return a model and all it depends on."""
        found: dict[str, None] = {}
        rest = [name]
        while rest:
            member = rest.pop()
            if member in found:
                continue
            found[member] = None
            try:
                rest.extend(self._pool.status(member).depends_on)
            except UnknownModelError:
                continue
        return list(found)

    def _advance(self, now_s: float, loads_s: dict[str, float], *, is_jump: bool) -> bool:
        is_due = False
        for hint in list(self._hints.values()):
            if hint.asked.model in loads_s:
                hint.set_load(loads_s[hint.asked.model])
            if is_jump:
                hint.plan(now_s)
            is_due |= hint.advance(now_s)
            if hint.is_over(now_s):
                del self._hints[hint.id]
                self._revision += 1
        return is_due

    def _keeping(self, now_s: float) -> dict[str, float]:
        """Return the models that are kept now, and until when."""
        keeping: dict[str, float] = {}
        for hint in self._hints.values():
            if hint.is_active(now_s):
                name = hint.asked.model
                keeping[name] = max(keeping.get(name, 0.0), hint.until_s)
        return keeping

    def _promise(self, keeping: dict[str, float], now_s: float) -> None:
        """Promise these models, and what they depend on, to be kept, and take back what holds no more."""
        wanted: dict[str, float] = {}
        for name, until_s in keeping.items():
            for member in self._with_dependencies(name):
                wanted[member] = max(wanted.get(member, 0.0), until_s - self._offset_s)
        now_monotonic_s = now_s - self._offset_s
        for name in self._promised.keys() - wanted.keys():
            self._foresight.promise(name, now_monotonic_s)
        for name, until_s in wanted.items():
            if abs(self._promised.get(name, -_JUMP_S) - until_s) >= _JUMP_S / 2:
                self._foresight.promise(name, until_s)
        self._promised = wanted

    # Asked by the preloader

    def due(self, loading: Collection[str]) -> Sequence[str]:
        """Return the models to load now, the one wanted soonest first; none that is in memory or being loaded by it."""
        if not self._hints:
            return ()
        with self._lock:
            pending = [hint for hint in self._hints.values() if hint.is_pending and not hint.is_begun]
        pending.sort(key=lambda hint: hint.last_at_s or 0.0)
        names = dict.fromkeys(hint.asked.model for hint in pending)
        states = {name: self._state(name) for name in names if name not in loading}
        with self._lock:
            for hint in pending:
                if states.get(hint.asked.model) is ModelState.READY:
                    hint.is_pending = False
        return [name for name, state in states.items() if state not in {None, ModelState.READY}]

    def _state(self, name: str) -> ModelState | None:
        try:
            return self._pool.status(name).state
        except UnknownModelError:
            return None

    def begun(self, name: str) -> None:
        """Note that the load of a model that was due has begun."""
        with self._lock:
            for hint in self._of(name):
                if hint.is_pending:
                    hint.is_pending, hint.is_begun = False, True

    def ended(self, name: str, error: OndolError | None) -> None:
        """Note how a load ended; of models that nobody hinted at, too."""
        if not self._hints:
            return
        now_s = self._clock.wall()
        text = None if error is None else f"{type(error).__name__}: {error}"
        with self._lock:
            begun = [hint for hint in self._of(name) if hint.is_begun]
            for hint in begun:
                hint.ended(text, has_no_room=isinstance(error, ModelBudgetError), now_s=now_s)
        if begun:
            self._wake()

    def _of(self, name: str) -> Sequence[Hint]:
        return [hint for hint in self._hints.values() if hint.asked.model == name]
