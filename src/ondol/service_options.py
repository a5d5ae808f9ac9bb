"""service: what the settings mean for the parts of a runtime that are made from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ondol.cache import TierOptions

if TYPE_CHECKING:
    from ondol.clock import Clock
    from ondol.monitor import PerformanceMonitor
    from ondol.monitor.otel import OpenTelemetry
    from ondol.preload.ports import KnowledgeExchange
    from ondol.settings import Settings

__all__ = ["ALERT_FILE", "apply_alerts", "cache_tiers", "open_telemetry", "shared_knowledge"]

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


def apply_alerts(monitor: PerformanceMonitor, settings: Settings, clock: Clock) -> None:
    """Let ``monitor`` watch the rules of the file, and tell whom it and the settings name.

    Raises:
        InvalidSettingError: the file or an address is not valid; every mistake is told with its line.
        MissingExtraError: Apprise is asked for and not installed.
    """
    if settings.alerts_file is None and settings.alert_webhook_url is None and not Path(ALERT_FILE).is_file():
        monitor.send_notices_to(None)
        return
    # HTTP, TLS and TOML are imported only where somebody is to be told.
    from ondol.monitor.alert_setup import AlertSources, set_up_alerts  # noqa: PLC0415

    path = settings.alerts_file or (ALERT_FILE if Path(ALERT_FILE).is_file() else None)
    sources = AlertSources(settings.environment, path, settings.alert_webhook_url, settings.alert_webhook_secret)
    set_up_alerts(monitor, sources, clock)


def open_telemetry(monitor: PerformanceMonitor, settings: Settings, clock: Clock) -> OpenTelemetry | None:
    """Return what exports metrics and traces, where the settings ask for it.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """
    if not settings.otel_enabled:
        return None
    from ondol.monitor.otel import OpenTelemetry  # noqa: PLC0415  # an extra: only where it is asked for

    return OpenTelemetry(monitor.collect, clock=clock)
