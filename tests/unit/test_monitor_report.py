from __future__ import annotations

import json
from typing import Any

from ondol.monitor.report import MAX_METRICS, measurement_fields


def summary(count: int) -> dict[str, Any]:
    figures = {"rate_per_s": 0.1, "mean": 0.5, "min": 0.5, "p50": 0.5, "p90": 0.6, "p99": 0.7, "p99.9": 0.8, "max": 0.9}
    windows = {name: {"count": count * factor, **figures} for name, factor in (("1m", 0), ("5m", 1), ("1h", 2))}
    return {"unit": "seconds", "last": 0.5, "count": count * 3, "windows": windows}


def test_the_busiest_metrics_are_named_and_the_hosts_are_not_repeated() -> None:
    summaries = {f"m{number:02}": summary(number + 1) for number in range(MAX_METRICS + 10)}
    summaries["system.memory_percent"] = summary(1000)
    fields = measurement_fields(summaries, {"memory_percent": 50.0}, ["hot"])
    assert list(fields["metrics"]) == [f"m{number:02}" for number in range(10, MAX_METRICS + 10)]
    assert fields["system_health"] == {"memory_percent": 50.0}
    assert fields["active_alerts"] == ["hot"]
    json.dumps(fields, allow_nan=False)


def test_a_metric_is_told_by_its_last_five_minutes() -> None:
    fields = measurement_fields({"m": summary(40)}, {}, [])
    assert fields["metrics"]["m"] == {
        "unit": "seconds",
        "last": 0.5,
        "total_count": 120,
        "last_5_minutes": {"count": 40, "mean": 0.5, "p50": 0.5, "p99": 0.7, "p99.9": 0.8, "max": 0.9},
    }
