"""service: what the settings mean for the parts of a runtime that are made from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondol.cache import TierOptions
from ondol.monitor.applied_alerts import AlertSources

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor import PerformanceMonitor
    from ondol.monitor.otel import OpenTelemetry
    from ondol.preload.ports import KnowledgeExchange
    from ondol.settings import Settings
    from ondol.tracing import SpanRelay

__all__ = ["ALERT_FILE", "Telemetry", "alert_sources", "cache_tiers", "shared_knowledge"]

ALERT_FILE: Final = "ondol-alerts.toml"
"""Read from the working directory where ``ONDOL_ALERTS_FILE`` names no other."""


def shared_knowledge(settings: Settings, clock: Clock) -> KnowledgeExchange | None:
    """Return where nodes exchange what use has taught them: the Redis of the cache, if there is one."""
    if not settings.cache_redis_url:
        return None
    from ondol.preload.history_redis import RedisHistory  # noqa: PLC0415  # an extra: only where it is asked for

    return RedisHistory(settings.cache_redis_url, namespace=settings.cache_namespace, clock=clock)


def cache_tiers(settings: Settings) -> TierOptions:
    """Return the tiers that ``settings`` put below the memory of the cache."""
    disk_bytes = settings.cache_disk_limit_bytes
    options = TierOptions(redis_url=settings.cache_redis_url, namespace=settings.cache_namespace)
    if disk_bytes is None:
        return options
    return options._replace(disk_dir=Path(settings.data_dir) / "cache", disk_max_bytes=disk_bytes)


def alert_sources(settings: Settings) -> AlertSources:
    """Return where ``settings`` have the rules of alerts and those to be told come from."""
    path = settings.alerts_file or (ALERT_FILE if Path(ALERT_FILE).is_file() else None)
    return AlertSources(settings.environment, path, settings.alert_webhook_url, settings.alert_webhook_secret)


class Telemetry:
    """The export by OpenTelemetry, where the settings ask for it; never two at a time.

    Belongs to the event loop that the runtime was started in.
    """

    def __init__(self, monitor: PerformanceMonitor, spans: SpanRelay, clock: Clock) -> None:
        """Export nothing yet."""
        self._monitor = monitor
        self._spans = spans
        self._clock = clock
        self._running: OpenTelemetry | None = None
        self._last: OpenTelemetry | None = None

    def make(self, settings: Settings) -> OpenTelemetry | None:
        """Return what exports metrics and traces; nothing is begun.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
        """
        if not settings.otel_enabled:
            return None
        from ondol.monitor.otel import OpenTelemetry  # noqa: PLC0415  # an extra: only where it is asked for

        return OpenTelemetry(self._monitor.collect, clock=self._clock)

    async def start(self, settings: Settings) -> None:
        """Export as ``settings`` say; one that runs still, as when its event loop was closed, is ended first.

        Raises:
            ConfigurationError: OpenTelemetry is not installed, or its environment variables are not valid.
        """
        made = self.make(settings)
        await self.stop()
        self._last = made
        if made is not None:
            await made.start()
            self._running = made
            self._spans.connect(made.sink)

    async def follow(self, settings: Settings) -> None:
        """Start or stop it while the runtime runs; what goes on as it did is not touched.

        Raises:
            ConfigurationError: as :meth:`start`.
        """
        if settings.otel_enabled != (self._running is not None):
            await self.start(settings)

    async def stop(self) -> None:
        """Export what is left, and end. Safe to call twice.

        Cancellation: the exports end by themselves.
        """
        self._spans.connect(None)
        running, self._running = self._running, None
        if running is not None:
            await running.stop()

    def get_stats(self) -> dict[str, Any] | None:
        """Return the figures of the export that was begun last; ``None`` when there was none."""
        return None if self._last is None else self._last.get_stats()
