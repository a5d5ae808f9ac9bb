"""decision: the alert rules for what the runtime itself can suffer; each message says what to do."""

from __future__ import annotations

from typing import Final

from ondol.monitor.alerts import AlertRule

__all__ = ["DEFAULT_RULES"]

DEFAULT_RULES: Final = (
    AlertRule(
        name="memory_high",
        metric_name="system.memory_percent",
        threshold=90.0,
        operator=">=",
        duration_seconds=30.0,
        severity="critical",
        message=(
            "the process is near the limit at which it would be killed: lower CACHE_MEMORY_LIMIT_MB or "
            "MODEL_MEMORY_LIMIT_MB, unload models, or give the container more memory"
        ),
    ),
    AlertRule(
        name="cache_hit_rate_low",
        metric_name="cache.hit_rate",
        threshold=80.0,
        operator="<",
        duration_seconds=600.0,
        severity="info",
        message=(
            "most of the gain of caching is lost: raise CACHE_MEMORY_LIMIT_MB if entries are being evicted, lengthen "
            "ttl_hours if they expire, or check that keys hold nothing that changes on every call"
        ),
    ),
    AlertRule(
        name="model_load_failing",
        metric_name="models.load_failures",
        threshold=0.0,
        operator=">",
        severity="warning",
        message=(
            "a model could not be loaded: `ondol models` shows which one and why; the traceback is in "
            "application.log under ondol.models"
        ),
    ),
)
"""Watched by every monitor unless other rules are given."""
