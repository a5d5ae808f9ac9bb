from __future__ import annotations

import json

from ondol.monitor.report import MAX_METRICS, measurement_fields
from ondol.monitor.series import MetricBook


def test_the_busiest_metrics_are_named_and_the_hosts_are_not_repeated() -> None:
    book = MetricBook()
    for number in range(MAX_METRICS + 10):
        for _ in range(number + 1):
            book.find(f"m{number:02}", "seconds", {})[0].fold(0.5, 1.0)
    book.find("system.memory_percent", "percent", {})[0].fold(50.0, 1.0)
    fields = measurement_fields(book.summaries(2.0), {"memory_percent": 50.0}, ["hot"])
    assert len(fields["metrics"]) == MAX_METRICS
    assert "m39" in fields["metrics"]
    assert "m09" not in fields["metrics"]
    assert fields["system_health"] == {"memory_percent": 50.0}
    assert fields["active_alerts"] == ["hot"]
    assert fields["metrics"]["m39"]["last_5_minutes"]["count"] == 40
    json.dumps(fields, allow_nan=False)
