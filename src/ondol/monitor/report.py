"""decision: what the periodic measurements line of performance.log holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["MAX_METRICS", "measurement_fields"]

MAX_METRICS: Final = 30
"""Most metrics in one line: those with the most values in the last five minutes."""

_RECENT: Final = "5m"
_FIGURES: Final = ("count", "mean", "p50", "p99", "p99.9", "max")


def measurement_fields(
    summaries: Mapping[str, Mapping[str, Any]], health: Mapping[str, Any], active_alerts: Sequence[str]
) -> dict[str, Any]:
    """Return the fields of the line: the machine's health, the active alerts, and the busiest metrics by name.

    What the host sampler records is left out of the metrics: the health says it already.
    """
    own = {name: s for name, s in summaries.items() if not name.startswith(("system.", "process."))}
    busiest = sorted(own, key=lambda name: (-own[name]["windows"][_RECENT]["count"], name))[:MAX_METRICS]
    return {
        "event": "measurements",
        "system_health": dict(health),
        "active_alerts": list(active_alerts),
        "metrics": {name: _figures(own[name]) for name in sorted(busiest)},
    }


def _figures(summary: Mapping[str, Any]) -> dict[str, Any]:
    recent = {key: summary["windows"][_RECENT][key] for key in _FIGURES}
    return {"unit": summary["unit"], "last": summary["last"], "total_count": summary["count"], "last_5_minutes": recent}
