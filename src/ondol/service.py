"""service: the whole runtime in one object; starts, stops and joins cache, models, preload, monitor and tuning."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.cache import Cache
from ondol.clock import SystemClock
from ondol.errors import LifecycleError
from ondol.models import ModelPool
from ondol.models.allocator import give_back, prepare_allocator
from ondol.models.estimates_file import EstimatesFile
from ondol.monitor import PerformanceMonitor
from ondol.monitor.applied_alerts import AppliedAlerts
from ondol.monitor.default_rules import default_rules
from ondol.monitor.host import HostSampler
from ondol.preload import Preloader
from ondol.preload.hints_file import HintsFile
from ondol.preload.history_file import HistoryFile
from ondol.readiness import Readiness, StartupTime
from ondol.service_options import Telemetry, alert_sources, cache_tiers, shared_knowledge
from ondol.settings_reader import load_settings
from ondol.strategy import loading_strategy, switched_settings
from ondol.tracing import SpanRelay
from ondol.tuning import AutoTuner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from ondol.clock import Clock
    from ondol.settings import Settings
    from ondol.strategy import LoadingStrategy

__all__ = ["MODEL_MEMORY_SHARE", "OptimizationService"]

logger = logging.getLogger("ondol.service")

MODEL_MEMORY_SHARE: Final = 0.6
"""Share of the allowed memory that models may take together when ``MODEL_MEMORY_LIMIT_MB`` is not set."""

ESTIMATES_FILE: Final = "model-estimates.json"
HINTS_FILE: Final = "preload-hints.json"
HISTORY_FILE: Final = "preload-history.json"


class OptimizationService:
    """One runtime: its parts are public attributes and keep their identity for its whole life.

    Starting applies the settings to the parts; nothing is replaced, so what was cached or registered before
    the start is still there. It can be stopped and started again, also in another event loop.

    Thread-safety: ``start`` and ``stop`` belong to one event loop; the parts say for themselves what else is safe.
    """

    def __init__(
        self, settings: Settings | None = None, *, clock: Clock | None = None, is_memory_kept: bool = False
    ) -> None:
        """Make the parts; starts nothing.

        Args:
            settings: read from the environment when not given.
            clock: where time is read.
            is_memory_kept: keep what is learnt of models (sizes, load times, use), and hints, in ``ONDOL_DATA_DIR``.
        """
        self.settings = settings if settings is not None else load_settings().values
        self._clock = clock if clock is not None else SystemClock()
        self._host = HostSampler()
        self.monitor = PerformanceMonitor(
            clock=self._clock, is_enabled=self.settings.monitoring_enabled, host=self._host
        )
        record = self.monitor.add_metric
        self.spans = SpanRelay()
        self.cache = Cache(
            max_bytes=self.settings.cache_memory_limit_bytes,
            clock=self._clock,
            policy=self.settings.cache_policy,
            recorder=record,
            tiers=cache_tiers(self.settings),
            is_enabled=self.settings.cache_enabled,
            spans=self.spans,
        )
        self.models = ModelPool(
            clock=self._clock,
            recorder=record,
            memory_probe=self._host.rss_bytes,
            estimates=EstimatesFile(Path(self.settings.data_dir) / ESTIMATES_FILE) if is_memory_kept else None,
            prepare_memory=prepare_allocator,
            release_memory=give_back,
            spans=self.spans,
        )
        self.models.add_listener(self._noticed)
        self.preloader = Preloader(
            self.models,
            clock=self._clock,
            recorder=record,
            hints=HintsFile(Path(self.settings.data_dir) / HINTS_FILE) if is_memory_kept else None,
            history=HistoryFile(Path(self.settings.data_dir) / HISTORY_FILE) if is_memory_kept else None,
            shared=shared_knowledge(self.settings, self._clock),
        )
        self.tuner = AutoTuner(
            self.cache, self.preloader, self.monitor.get_system_health, clock=self._clock, recorder=record
        )
        self._alerts = AppliedAlerts(self.monitor, self._clock)
        self._telemetry = Telemetry(self.monitor, self.spans, self._clock)
        self._readiness = Readiness(self.models, self.preloader)
        self._startup = StartupTime(self._clock, record, lambda: self.readiness()["ready"])
        self.monitor.add_probe(self._startup.look)
        self._started: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        self._started_at_s: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._apply(self.settings)

    @property
    def is_started(self) -> bool:
        """Whether it is between ``start`` and ``stop``; an event loop that was closed meanwhile ended it, too."""
        return self._started_at_s is not None and self._loop is not None and not self._loop.is_closed()

    def _my_turn(self) -> asyncio.Lock:
        """Return the lock that keeps starts and stops of the running loop from overtaking each other."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop and not self.is_started:
            self._loop, self._turn = loop, asyncio.Lock()  # a lock belongs to the loop it was first waited for in
            self._started_at_s = None
        return self._turn

    def _apply(self, settings: Settings) -> None:
        self.settings = settings
        self.strategy = loading_strategy(settings)
        self.cache.set_enabled(settings.cache_enabled)
        self.cache.configure(policy=settings.cache_policy, tiers=cache_tiers(settings))
        self.cache.resize(settings.cache_memory_limit_bytes)
        self.models.configure(
            memory_limit_bytes=self._model_memory_limit_bytes(settings),
            max_background_loads=settings.preload_max_concurrent,
            is_lazy_loading_enabled=self.strategy.is_lazy_loading_enabled,
            lease_timeout_s=settings.lease_timeout_s,
            load_timeout_s=settings.load_timeout_s,
            idle_ttl_s=settings.model_idle_ttl_s,
        )
        self.preloader.configure(
            max_concurrent=settings.preload_max_concurrent,
            is_enabled=settings.preloading_enabled,
            may_displace=self.strategy.is_lazy_loading_enabled,  # else what left could not come back
        )
        self.monitor.configure(is_enabled=settings.monitoring_enabled)
        self.monitor.use_default_rules(default_rules(settings.environment))
        self.tuner.configure(
            is_enabled=settings.auto_tuning_enabled, base_cache_bytes=settings.cache_memory_limit_bytes
        )

    def _model_memory_limit_bytes(self, settings: Settings) -> int:
        if settings.model_memory_limit_bytes is not None:
            return settings.model_memory_limit_bytes
        return int(self._host.allowed_memory_bytes() * MODEL_MEMORY_SHARE)

    def _noticed(self, event: str, name: str) -> None:
        # A model registered while serving is loaded ahead of use like those that were there before.
        if event == "registered" and self.is_started and self.strategy.is_preloading_all:
            self.preloader.want(name)
        self._readiness.noticed(event, name, is_started=self.is_started)
        self._startup.noticed(event)

    def check(self) -> None:
        """Look at what the settings name outside of themselves: the file of alerts, addresses, packages.

        Nothing changes. ``start`` looks too; this is for who would rather know before anything else is begun.

        Raises:
            ConfigurationError: something is not valid or not installed; the message says where and what is allowed.
        """
        self._alerts.check(alert_sources(self.settings))
        self._telemetry.make(self.settings)

    async def start(self, settings: Settings | None = None) -> None:
        """Start every part; serving can begin as soon as this returns, models go on loading behind it.

        Starting a running service again with the same settings does nothing; with others it applies them: other
        alerts and notices, too, and OpenTelemetry. A stop under way is waited for.

        Raises:
            ConfigurationError: what the settings name is not valid or not installed, see ``check``. A running service
                goes on with the settings that it had.
            Exception: a part failed to start; those already started are stopped again first.
        """
        async with self._my_turn():
            is_changed = settings is not None and settings != self.settings
            if settings is not None and is_changed and self.is_started:
                await self._change(settings)
                return
            if settings is not None and is_changed:
                self._apply(settings)
            if not self.is_started:
                self._follow_strategy()
                await self._start_parts()

    async def _change(self, settings: Settings) -> None:
        """Go on with ``settings``, or as before when they are refused."""
        self._alerts.check(alert_sources(settings))
        try:
            await self._telemetry.follow(settings)
            self._alerts.apply(alert_sources(settings))
        except BaseException:
            await self._telemetry.follow(self.settings)
            raise
        self._apply(settings)
        self._follow_strategy()
        self._startup.look()
        await self.monitor.start()  # which begins and ends notices where others are to be told

    def _follow_strategy(self, *, is_wanting_all: bool = True) -> None:
        for warning in self.strategy.warnings:
            logger.warning(warning)
        if self.strategy.is_preloading_all and is_wanting_all:
            self.preloader.want(*self.models.names())

    def switch_strategy(
        self,
        *,
        environment: str | None = None,
        fast_startup: bool | None = None,
        lazy_loading_enabled: bool | None = None,
        preload_models: bool | None = None,
    ) -> LoadingStrategy:
        """Change the loading variables while it runs (or before it starts); return what they mean now.

        Models that are to be loaded ahead of use from now on are asked for at once, leases and readiness follow the
        new meaning. What has been asked for before is loaded all the same, and nothing is unloaded.

        Args:
            environment: take the three variables of this profile; nothing else of it.
            fast_startup: as ``FAST_STARTUP``; it and the next two win over the profile, ``None`` leaves as it is.
            lazy_loading_enabled: as ``LAZY_LOADING_ENABLED``.
            preload_models: as ``PRELOAD_MODELS``.

        Thread-safety: once started, it belongs to the event loop that ``start`` ran in.

        Raises:
            InvalidSettingError: there is no such profile; nothing was changed.
        """
        settings = switched_settings(
            self.settings,
            environment=environment,
            fast_startup=fast_startup,
            lazy_loading_enabled=lazy_loading_enabled,
            preload_models=preload_models,
        )
        before = self.strategy
        self.settings, self.strategy = settings, loading_strategy(settings)
        logger.info(
            "loading strategy switched to FAST_STARTUP=%s LAZY_LOADING_ENABLED=%s PRELOAD_MODELS=%s: %s",
            *(settings.fast_startup, settings.lazy_loading_enabled, settings.preload_models, self.strategy.meaning),
        )
        if self.is_started:
            is_use_refused_now = before.is_lazy_loading_enabled and not self.strategy.is_lazy_loading_enabled
            self._follow_strategy(is_wanting_all=is_use_refused_now or not before.is_preloading_all)
        self.models.configure(is_lazy_loading_enabled=self.strategy.is_lazy_loading_enabled)
        self.preloader.configure(may_displace=self.strategy.is_lazy_loading_enabled)
        self._startup.look()
        return self.strategy

    async def _start_parts(self) -> None:
        self._started = []  # not those of a loop that was closed: each part clears up after that by itself
        self._readiness.begin()
        self._startup.end()
        began_at_s = self._started_at_s = self._clock.monotonic()
        try:
            self._alerts.apply(alert_sources(self.settings))
            for name, start, stop in self._parts():
                self._started.append((name, stop))  # first: one that fails may have begun something
                await start()
        except BaseException:
            with contextlib.suppress(ExceptionGroup):  # logged; what is to be known is why it did not start
                await self._stop_parts()
            raise
        self._startup.await_ready(began_at_s)
        logger.info(
            "service started: environment %s, cache %.0f MB, preloading %s, tuning %s",
            self.settings.environment,
            self.settings.cache_memory_limit_mb,
            "on" if self.settings.preloading_enabled else "off",
            "on" if self.settings.auto_tuning_enabled else "off",
        )

    def _parts(self) -> list[tuple[str, Callable[[], Awaitable[None]], Callable[[], Awaitable[None]]]]:
        return [
            ("monitor", self.monitor.start, self.monitor.stop),
            ("OpenTelemetry", self._start_telemetry, self._telemetry.stop),
            ("cache", self.cache.start, self.cache.stop),
            ("models", self.models.start, self._stop_models),
            ("preloader", self.preloader.start, self.preloader.stop),
            ("tuner", self.tuner.start, self.tuner.stop),
        ]

    async def _start_telemetry(self) -> None:
        await self._telemetry.start(self.settings)

    async def _stop_models(self) -> None:
        await self.models.stop(grace_s=self.settings.shutdown_grace_s)

    async def stop(self) -> None:
        """Stop every part in reverse order: loads end, leases are waited for, models unloaded. Safe to call twice.

        Cancellation: a part that is stopping is cancelled; the parts after it are still stopped.

        Raises:
            LifecycleError: it runs in another event loop; nothing was stopped.
            ExceptionGroup: parts that failed to stop; the others are stopped all the same.
        """
        if self.is_started and self._loop is not asyncio.get_running_loop():
            raise LifecycleError(
                "the service runs in another event loop; stop it there: await service.stop() in that loop, or "
                "asyncio.run_coroutine_threadsafe(service.stop(), loop) from another thread"
            )
        async with self._my_turn():
            await self._stop_parts()

    async def _stop_parts(self) -> None:
        failures: list[Exception] = []
        cancelled: asyncio.CancelledError | None = None
        was_started = bool(self._started)
        self._startup.end()
        while self._started:
            name, stop = self._started.pop()
            try:
                await stop()
            except asyncio.CancelledError as exc:
                cancelled = exc
            except Exception as exc:
                logger.exception("%s failed to stop", name)
                failures.append(exc)
        self._started_at_s = None
        if cancelled is not None:
            raise cancelled
        if failures:
            raise ExceptionGroup("parts of the service failed to stop", failures)
        if was_started:
            logger.info("service stopped")

    async def __aenter__(self) -> Self:
        """Start it."""
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Stop it."""
        await self.stop()

    def readiness(self) -> dict[str, Any]:
        """Return whether it may be sent requests, and each model's state in words.

        Where the loading strategy says so (``ondol.strategy``), it is ready only when every model has been loaded
        and has answered its warm-up call.
        """
        return self._readiness.report(is_started=self.is_started, is_waiting=self.strategy.is_ready_after_preload)

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics of every part, and the health of the machine, as plain values."""
        telemetry = self._telemetry.get_stats()
        return {
            "environment": self.settings.environment,
            "started": self.is_started,
            "uptime_seconds": 0.0 if self._started_at_s is None else self._clock.monotonic() - self._started_at_s,
            "cache": self.cache.get_stats(),
            "models": self.models.get_stats(),
            "preloader": self.preloader.get_stats(),
            "monitor": self.monitor.get_stats(),
            "tuner": self.tuner.get_stats(),
            "system_health": self.monitor.get_system_health(),
            **({} if telemetry is None else {"otel": telemetry}),
        }
