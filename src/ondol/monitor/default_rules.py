"""decision: the alert rules for what the runtime itself can suffer; each message says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ondol.monitor.alert_rule import AlertRule

__all__ = ["DEFAULT_RULES", "default_rules", "is_default_rule"]

_MEMORY: Final = (
    AlertRule(
        name="memory_high",
        metric_name="system.memory_percent",
        threshold=90.0,
        operator=">=",
        duration_seconds=30.0,
        severity="critical",
        clear_threshold=85.0,
        message=(
            "the process is near the limit at which it would be killed: lower CACHE_MEMORY_LIMIT_MB or "
            "MODEL_MEMORY_LIMIT_MB, unload models (`ondol models unload NAME`), or give the container more memory"
        ),
    ),
    AlertRule(
        name="memory_pressure",
        metric_name="system.memory_pressure_percent",
        threshold=20.0,
        operator=">",
        duration_seconds=60.0,
        severity="warning",
        clear_threshold=10.0,
        message=(
            "the process is stalled, waiting for memory that the kernel must free first: lower CACHE_MEMORY_LIMIT_MB "
            "or MODEL_MEMORY_LIMIT_MB, give the container more memory, or raise its memory.high"
        ),
    ),
)

_WORK: Final = (
    AlertRule(
        name="cache_hit_rate_low",
        metric_name="cache.hit_rate",
        threshold=80.0,
        operator="<",
        duration_seconds=600.0,
        severity="info",
        message=(
            "most of the gain of caching is lost: raise CACHE_MEMORY_LIMIT_MB if entries are being evicted, lengthen "
            "ttl_hours if they expire, or check that keys hold nothing that changes on every call; `ondol stats` "
            "shows both counts"
        ),
    ),
    AlertRule(
        name="model_load_failing",
        metric_name="models.load_failures",
        threshold=0.0,
        operator=">",
        severity="warning",
        aggregate="sum",
        window_seconds=300.0,
        message=(
            "a model could not be loaded in the last five minutes: `ondol models` shows which one and why; the "
            "traceback is in application.log under ondol.models"
        ),
    ),
)

_STARTUP: Final = AlertRule(
    name="startup_slow",
    metric_name="service.startup_seconds",
    threshold=30.0,
    operator=">",
    severity="warning",
    message=(
        "getting ready took longer than it should (30 s in development; 120 s in production, which warms all models "
        "first): set FAST_STARTUP=true to serve before models are loaded, or PRELOAD_MODELS=false; application.log "
        'says how long each model took ("is ready after")'
    ),
)

_HOST: Final = (
    AlertRule(
        name="loop_lag_high",
        metric_name="process.loop_lag_seconds",
        threshold=0.25,
        operator=">",
        duration_seconds=30.0,
        severity="warning",
        message=(
            "something blocks the event loop, so every request waits: move blocking calls out of coroutines with "
            "`asyncio.to_thread`, run with PYTHONASYNCIODEBUG=1 to have slow callbacks logged, lower "
            "ONDOL_MAX_CONCURRENT_REQUESTS, or give the process more CPU"
        ),
    ),
    AlertRule(
        name="open_files_high",
        metric_name="process.open_files_percent",
        threshold=85.0,
        operator=">=",
        duration_seconds=60.0,
        severity="warning",
        clear_threshold=80.0,
        message=(
            "the process will soon be unable to open files or accept connections: raise the limit (`ulimit -n 65536`, "
            "LimitNOFILE= in systemd), lower ONDOL_MAX_CONCURRENT_REQUESTS, or look for files and sockets that are "
            "never closed (`lsof -p PID`)"
        ),
    ),
    AlertRule(
        name="disk_full",
        metric_name="system.disk_percent",
        threshold=95.0,
        operator=">=",
        duration_seconds=60.0,
        severity="critical",
        clear_threshold=90.0,
        message=(
            "documents, history and logs cannot be written once the disk is full: free space, lower "
            "CACHE_DISK_LIMIT_MB, or move ONDOL_DATA_DIR and ONDOL_LOG_DIR to a larger disk"
        ),
    ),
)

DEFAULT_RULES: Final = (*_MEMORY, *_WORK, _STARTUP, *_HOST)
"""Watched by every monitor unless other rules are given, or a file disables or replaces some of them."""


def default_rules(environment: str) -> tuple[AlertRule, ...]:
    """Return the default rules as they are in ``environment``: in production, starting may take longer."""
    if environment != "production":
        return DEFAULT_RULES
    return tuple(replace(rule, threshold=120.0) if rule is _STARTUP else rule for rule in DEFAULT_RULES)


_EVERY: Final = frozenset({*DEFAULT_RULES, *default_rules("production")})


def is_default_rule(rule: AlertRule) -> bool:
    """Return whether ``rule`` is a default rule, as it is in any environment."""
    return rule in _EVERY
