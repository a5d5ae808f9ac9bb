"""service: loads wanted models ahead of their use, in the background and in the plan's order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from ondol.clock import Clock, SystemClock
from ondol.errors import ConfigurationError, LifecycleError, NotStartedError, OndolError
from ondol.models import ModelPool, ModelSpec
from ondol.models.spec import check_priority
from ondol.preload.plan import Plan
from ondol.preload.wishes import Wishes
from ondol.recorder import Recorder, discard
from ondol.units import Percent, format_seconds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Preloader"]

logger = logging.getLogger("ondol.preload")

_NOTHING = Plan((), (), {})


class Preloader:
    """Keeps a list of wanted models and loads each once per start, dependencies first.

    Eager and pinned models of the pool are wanted by themselves. A preload that fails is logged, counted and
    visible; it is tried again only when the model is wanted anew (``want``, ``register``, a restart), while any
    request for the model tries on its own. Nothing is preloaded again after an eviction.

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
    ) -> None:
        """Watch ``pool``; nothing is loaded before ``start``.

        Args:
            pool: where models are registered and loaded.
            max_concurrent: preloads at once; while started the pool's ``max_background_loads`` is kept equal to it.
            is_enabled: off means that nothing is loaded ahead of use; usage is still learned.
            clock: where time is read.
            recorder: where measurements go.

        Raises:
            ConfigurationError: ``max_concurrent`` is less than 1.
        """
        self._pool = pool
        self._max_concurrent = _checked_concurrency(max_concurrent)
        self._is_enabled = is_enabled
        self._clock = clock or SystemClock()
        self._recorder = recorder
        self._wishes = Wishes(pool)
        self._paused_reason: str | None = None
        self._plan = _NOTHING
        self._attempts = self._succeeded = self._failed = self._recorder_failures = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._is_review_due = False
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
        self._plan_now()

    def want(self, *names: str) -> None:
        """Preload these models, with the priority they are registered with; one that failed or left is tried again."""
        self._wishes.want(names, None)
        self._plan_now()

    def record_usage(self, name: str) -> None:
        """Count one use of a model, also of one not registered (yet). Leases are counted by themselves."""
        self._wishes.use(name, self._clock.monotonic(), self._clock.wall())

    def _noticed(self, event: str, name: str) -> None:
        if event == "leased":
            self.record_usage(name)
            return
        if event == "registered":
            self._wishes.want_resident([name])
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
        self._loop = loop
        self._loading, self._idle_waiters, self._is_review_due = {}, [], False
        self._wishes.forget_outcomes()
        self._wishes.want_resident(self._pool.names())
        self._pool.configure(max_background_loads=self._max_concurrent)
        self._review()
        logger.info(
            "preloading %s: %d models to load ahead of use, %d at once",
            *(
                "on" if self._is_enabled else "off",
                len(self._plan.loads) + len(self._plan.waiting),
                self._max_concurrent,
            ),
        )

    async def stop(self) -> None:
        """Load nothing more; loads under way belong to the pool and go on. Safe to call twice."""
        if self._loop is not asyncio.get_running_loop():
            return
        self._loop = None
        self._plan = _NOTHING
        self._pool.set_expected(())
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        self._release_idle_waiters()  # before anything is awaited: a stop that is cancelled leaves nobody waiting
        if tasks:
            await asyncio.wait(tasks)

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

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return self._paused_reason is not None

    def configure(self, *, max_concurrent: int | None = None, is_enabled: bool | None = None) -> None:
        """Change what is given.

        Raises:
            ConfigurationError: ``max_concurrent`` is less than 1; nothing was changed.
        """
        if max_concurrent is not None:
            self._max_concurrent = _checked_concurrency(max_concurrent)
            if self._loop is not None:
                self._pool.configure(max_background_loads=max_concurrent)
        if is_enabled is not None:
            self._is_enabled = is_enabled
        self._wake()

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
        """Review the plan soon, in the loop's thread."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            is_here = asyncio.get_running_loop() is loop
        except RuntimeError:
            is_here = False
        if not is_here:
            loop.call_soon_threadsafe(self._review)
        elif not self._is_review_due:
            self._is_review_due = True
            loop.call_soon(self._review)

    def _plan_now(self) -> None:
        """Review the plan at once where possible: a lease that follows directly must find its model expected."""
        try:
            is_here = self._loop is not None and asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            self._review()
        else:
            self._wake()

    def _review(self) -> None:
        self._is_review_due = False
        loop = self._loop
        if loop is None:
            return
        self._plan = plan = self._make_plan()
        self._pool.set_expected({*plan.loads, *plan.waiting, *self._loading})
        free_slots = 0 if self.is_paused else self._max_concurrent - len(self._loading)
        for name in plan.loads[: max(0, free_slots)]:
            self._attempts += 1
            self._loading[name] = loop.create_task(self._preload(name), name=f"ondol-preload-{name}")
        if self._is_idle():
            self._release_idle_waiters()

    def _make_plan(self) -> Plan:
        return self._wishes.plan(self._clock.monotonic(), self._loading) if self._is_enabled else _NOTHING

    async def _preload(self, name: str) -> None:
        started_s = self._clock.monotonic()
        try:
            await self._pool.load(name, is_background=True)
        except LifecycleError:
            logger.info("preloading stopped: the model pool is not running")
            self._loop = None  # until the next start; without the pool there is nothing to do
            self._release_idle_waiters()
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

    def _ended(self, name: str, error: OndolError | None) -> None:
        self._wishes.end(name, None if error is None else f"{type(error).__name__}: {error}")
        if error is None:
            self._succeeded += 1
            return
        self._failed += 1
        logger.warning("preloading model %s failed: %s", name, error, extra={"fields": {"model": name}}, exc_info=error)
        self._record("preload.failures", 1.0, "count", name)

    def _record(self, metric_name: str, value: float, unit: str, model: str) -> None:
        try:
            self._recorder(metric_name, value, unit, model=model)
        except Exception:
            self._recorder_failures += 1
            logger.exception("recording %s failed", metric_name)

    def _is_idle(self) -> bool:
        return not self._loading and not self._plan.loads

    def _release_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

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
            "errors": self._wishes.errors(),
            "recorder_failures": self._recorder_failures,
            "is_enabled": self._is_enabled,
            "max_concurrent": self._max_concurrent,
            "paused_reason": self._paused_reason,
            "usage": self._wishes.usage_rows(),
        }


def _checked_concurrency(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        message = f"max_concurrent must be an integer >= 1, not {value!r}"
        raise ConfigurationError(message)
    return value
