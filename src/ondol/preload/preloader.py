"""service: loads wanted models ahead of their use, in the background and in the plan's order."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, cast

from ondol.clock import Clock, SystemClock
from ondol.errors import ConfigurationError, LifecycleError, ModelBudgetError, NotStartedError, OndolError
from ondol.models import ModelPool, ModelSpec
from ondol.models.spec import check_priority
from ondol.preload.controls import NOTHING, PreloadControls
from ondol.preload.foresight import Foresight
from ondol.preload.hints import Hints
from ondol.preload.history import History
from ondol.preload.wishes import Wishes
from ondol.recorder import Recorder, discard
from ondol.units import format_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence

    from ondol.preload.plan import Plan
    from ondol.preload.ports import HintStore, HistoryStore, KnowledgeExchange
    from ondol.preload.proposal import Proposal

__all__ = ["Preloader"]

logger = logging.getLogger("ondol.preload")

_OF_FORESIGHT_ALONE = frozenset({"leased", "asked", "loading"})


class Preloader(PreloadControls):
    """Loads models ahead of use: those that are wanted, those hinted at, and those whose use it foresees.

    What is wanted is loaded once per start, dependencies first. Eager and pinned models of the pool are wanted by
    themselves, and so is what is probably used soon after a start by what earlier runs have seen. A preload that fails
    is logged, counted and visible; it is tried again only when the model is wanted anew (``want``, ``register``, a
    restart), while any request for the model tries on its own.

    A model that is hinted at (``hints``) is loaded shortly before its time, before everything else.

    While it runs, it tells the pool whom to let go when room is short, and fetches ahead what will be used in all
    likelihood, as long as no request waits for a load.

    Thread-safety: everything but ``start``, ``stop`` and ``wait_idle`` may be called from any thread, also before any
    event loop exists.
    """

    def __init__(
        self,
        pool: ModelPool,
        *,
        max_concurrent: int = 1,
        is_enabled: bool = True,
        clock: Clock | None = None,
        recorder: Recorder = discard,
        history: HistoryStore | None = None,
        shared: KnowledgeExchange | None = None,
        hints: HintStore | None = None,
    ) -> None:
        """Watch ``pool``; nothing is loaded before ``start``.

        Args:
            pool: where models are registered and loaded.
            max_concurrent: preloads at once; while started the pool's ``max_background_loads`` is kept equal to it.
            is_enabled: off means that nothing is loaded ahead of use; usage is still learned.
            clock: where time is read.
            recorder: where measurements go.
            history: where what was learnt outlives the process.
            shared: where nodes exchange what they have learnt.
            hints: where hints outlive the process.

        Raises:
            ConfigurationError: ``max_concurrent`` is less than 1.
        """
        super().__init__(pool, clock or SystemClock(), recorder)
        self._max_concurrent = _checked_concurrency(max_concurrent)
        self._is_enabled = is_enabled
        self._wishes = Wishes(pool)
        self.foresight = Foresight(pool, self._clock, self._fetch)
        self.foresight.may_fetch = self._may_fetch
        self._history = History(self.foresight, history, clock=self._clock, shared=shared, lock=self.foresight.lock)
        self.foresight.on_used = self._history.used
        self._soon: frozenset[str] = frozenset()
        self.hints = Hints(pool, self._clock, self.foresight, hints)
        self.hints.on_due = self._wake
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started_in: asyncio.AbstractEventLoop | None = None
        """What is to be stopped; ``_loop`` is given up before that when the pool stops."""
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._review_lock, self._has_planned_now = threading.Lock(), False
        self._review_due_in: asyncio.AbstractEventLoop | None = None
        pool.add_listener(self._noticed)

    # What is wanted

    def register(
        self,
        name: str,
        priority: int = 5,
        load_function: Callable[[], Any | Awaitable[Any]] | None = None,
        dependencies: Sequence[str] = (),
        estimated_load_time: float | None = None,
        *,
        size_bytes: int | None = None,
    ) -> None:
        """Register a model in the pool and want it ahead of use.

        Without a ``load_function`` the model is one that is (or will be) registered in the pool by somebody else;
        then only ``priority`` applies.

        Raises:
            ConfigurationError: the name is taken, a value is out of its range, or what describes a model comes
                without its ``load_function``.
            DependencyCycleError: the model closes a circle of dependencies.
        """
        check_priority(priority, name)
        if load_function is not None:
            spec = ModelSpec(
                name,
                load_function,
                priority,
                cast("tuple[str, ...]", dependencies),  # checked and made a tuple there
                size_bytes=size_bytes,
                load_seconds=estimated_load_time,
            )
            self._pool.register(spec)
        elif dependencies or estimated_load_time is not None or size_bytes is not None:
            message = f"preload task {name!r} has dependencies or figures but no load_function they could belong to"
            raise ConfigurationError(message)
        self._wishes.want([name], priority)
        self._plan_now([name])

    def want(self, *names: str) -> None:
        """Preload these models, with the priority they are registered with; one that failed or left is tried again."""
        self._wishes.want(names, None)
        self._plan_now(names)

    def _noticed(self, event: str, name: str) -> None:
        self.foresight.noticed(event, name)
        self._record_fetches(name)
        if event in _OF_FORESIGHT_ALONE:
            return
        if event == "registered":
            self._wishes.want_resident([name])
            if self._loop is not None and name in self._soon:
                self._wishes.want([name], None)
        elif event == "ready":
            self._wishes.end(name, None)
        elif event == "released":
            self._wishes.retry(name)
        self._wake()

    # Lifecycle

    async def start(self) -> None:
        """Begin to load what is wanted, everything anew after a stop; returns at once.

        Raises:
            LifecycleError: it runs in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed():
            raise LifecycleError("the preloader runs in another event loop: stop it there first")
        await self._history.start()
        self._loop = self._started_in = loop
        self._loading, self._idle_waiters, self._has_planned_now = {}, [], False
        self._wishes.forget_outcomes()
        self._wishes.want_resident(self._pool.names())
        self.foresight.start()
        self._soon = frozenset(self.foresight.soon())
        self._wishes.want([name for name in self._pool.names() if name in self._soon], None)
        self.hints.start()
        self._pool.configure(max_background_loads=self._max_concurrent)
        self._review()
        state, count = "on" if self._is_enabled else "off", len(self._plan.loads) + len(self._plan.waiting)
        logger.info("preloading %s: %d models to load ahead of use, %d at once", state, count, self._max_concurrent)

    async def stop(self) -> None:
        """Load nothing more; loads under way belong to the pool and go on. Safe to call twice."""
        if self._started_in is not asyncio.get_running_loop():
            return
        self._loop = self._started_in = None
        self.foresight.stop()
        self.hints.halt()
        self._plan = NOTHING
        self._pool.set_expected(())
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        self._release_idle_waiters()  # before anything is awaited: a stop that is cancelled leaves nobody waiting
        if tasks:
            await asyncio.wait(tasks)
        await self.hints.close()
        await self._history.stop()

    def pause(self, reason: str) -> None:
        """Begin no further preloads until ``resume``; those under way end."""
        if self._paused_reason is None:
            logger.info("preloading paused: %s", reason, extra={"fields": {"reason": reason}})
        self._paused_reason = reason

    def resume(self) -> None:
        """Go on after a ``pause``."""
        if self._paused_reason is not None:
            logger.info("preloading resumed")
        self._paused_reason = None
        self._wake()
        self.foresight.wake()

    def configure(
        self, *, max_concurrent: int | None = None, is_enabled: bool | None = None, may_displace: bool | None = None
    ) -> None:
        """Change what is given; ``may_displace``: whether others may leave for what is foreseen or hinted at.

        Raises:
            ConfigurationError: ``max_concurrent`` is less than 1; nothing was changed.
        """
        if max_concurrent is not None:
            self._max_concurrent = _checked_concurrency(max_concurrent)
            if self._loop is not None:
                self._pool.configure(max_background_loads=max_concurrent)
        if is_enabled is not None:
            self._is_enabled = is_enabled
        if may_displace is not None:
            self.foresight.set_displacing(may_displace=may_displace)
        self._wake()
        self.foresight.wake()

    async def wait_idle(self) -> None:
        """Return when every wanted model has ended as ready, failed or blocked, or nothing is to be preloaded at all.

        While paused with work left it waits for the ``resume``; ``stop`` ends the wait.

        Raises:
            NotStartedError: it is not started.
        """
        if self._loop is not asyncio.get_running_loop():
            raise NotStartedError("the preloader is not running: await preloader.start() first")
        self._review()
        if not self._is_idle():
            waiter = self._loop.create_future()
            self._idle_waiters.append(waiter)
            await waiter

    # What happens next

    def _wake(self) -> None:
        """Review the plan soon, in the loop's thread, once for all that happens until then."""
        with self._review_lock:
            loop = self._loop
            if loop is None or loop.is_closed() or self._review_due_in is loop:
                return
            self._review_due_in = loop
        loop.call_soon_threadsafe(self._review_due)

    def _plan_now(self, names: Collection[str]) -> None:
        """Review the plan at once where possible: a lease that follows directly must find ``names`` expected."""
        try:
            is_here = self._loop is not None and asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here and not self._has_planned_now:
            self._has_planned_now = True
            self._review()
        elif is_here and self._is_enabled:
            self._wishes.expect(names)  # fit or not: one review a turn is enough, the next one tells
        self._wake()

    def _review_due(self) -> None:
        self._review_due_in, self._has_planned_now = None, False  # first: what is wanted from here on is news again
        self._review()

    def _review(self) -> None:
        if self._loop is None:
            return
        plan = self._make_plan()
        for name in plan.left_out.keys() - self._plan.left_out.keys():
            logger.warning("model %s is not preloaded: it %s", name, plan.left_out[name])
        self._plan = plan
        may_load = self._is_enabled and not self.is_paused
        hinted = self.hints.due(self._loading) if may_load else ()
        self._wishes.set_expected({*plan.loads, *plan.waiting, *self._loading, *hinted})
        free_slots = max(0, self._max_concurrent - len(self._loading)) if may_load else 0
        begun = hinted[:free_slots]
        for name in begun:
            self.hints.begun(name)
            self._begin(name, self._load_hinted(name))
        for name in [name for name in plan.loads if name not in begun][: free_slots - len(begun)]:
            self._begin(name, self._preload(name))
        if self._is_idle():
            self._release_idle_waiters()

    def _begin(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        self._attempts += 1
        self._loading[name] = self._loop.create_task(work, name=f"ondol-preload-{name}")

    async def _load_hinted(self, name: str) -> None:
        """Load a model that is hinted at; all that is not promised, pinned or in use may leave for it."""
        self.foresight.under_way.add(name)
        try:
            await self._preload(name, self.foresight.unpromised())
        finally:
            self.foresight.fetched(name, has_failed=False)

    def _make_plan(self) -> Plan:
        return self._wishes.plan(self._loading, self.foresight.worth_of) if self._is_enabled else NOTHING

    def _may_fetch(self) -> bool:
        """Tell whether something may be fetched that nobody has asked for."""
        return self._is_enabled and not self.is_paused and not self._loading

    def _fetch(self, proposal: Proposal) -> None:
        if self._loop is None:
            self.foresight.fetched(proposal.name, has_failed=True)
            return
        self._begin(proposal.name, self._fetch_ahead(proposal))
        self._record_fetches(proposal.name)

    async def _fetch_ahead(self, proposal: Proposal) -> None:
        name = proposal.name
        error: OndolError | None = None
        try:
            await self._pool.load(name, is_background=True, displacing=proposal.victims, is_only_displacing=True)
        except LifecycleError as exc:
            error = exc
            self._pool_stopped()
        except OndolError as exc:
            error = exc
            level = logging.INFO if isinstance(exc, ModelBudgetError) else logging.WARNING  # room was taken: no fault
            logger.log(level, "fetching model %s ahead came to nothing: %s", name, exc)
        finally:
            self._loading.pop(name, None)
            self.foresight.fetched(name, has_failed=error is not None)
            self._wake()
        if error is None:
            self._succeeded += 1
        elif not isinstance(error, ModelBudgetError | LifecycleError):
            self._failed += 1

    async def _preload(self, name: str, displacing: Collection[str] = ()) -> None:
        started_s = self._clock.monotonic()
        try:
            await self._pool.load(name, is_background=True, displacing=displacing)
        except LifecycleError:
            self._pool_stopped()
        except OndolError as exc:
            self._ended(name, exc)
        else:
            self._ended(name, None)
            seconds = self._clock.monotonic() - started_s
            logger.info("preloaded model %s in %s", name, format_seconds(seconds), extra={"fields": {"model": name}})
            self._record("preload.load_time", seconds, "seconds", name)
        finally:
            self._loading.pop(name, None)
            self._wake()
            self.foresight.wake()

    def _pool_stopped(self) -> None:
        """Do nothing more until the next start: without the pool there is nothing to do."""
        logger.info("preloading stopped: the model pool is not running")
        self._loop = None
        self.foresight.stop()
        self.hints.halt()
        self._release_idle_waiters()

    def _ended(self, name: str, error: OndolError | None) -> None:
        self._wishes.end(name, None if error is None else f"{type(error).__name__}: {error}")
        self.hints.ended(name, error)
        if error is None:
            self._succeeded += 1
            return
        self._failed += 1
        logger.warning("preloading model %s failed: %s", name, error, extra={"fields": {"model": name}}, exc_info=error)
        self._record("preload.failures", 1.0, "count", name)

    def _is_idle(self) -> bool:
        return not self._loading and not self._plan.loads

    def _release_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _checked_concurrency(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        message = f"max_concurrent must be an integer >= 1, not {value!r}"
        raise ConfigurationError(message)
    return value
