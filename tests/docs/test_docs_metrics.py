"""Every metric that the runtime records says what it measures; the example of a file of alerts is one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ondol.monitor.alert_file import load_alert_file
from ondol.monitor.descriptions import DESCRIPTIONS
from ondol.monitor.health import HealthSource
from ondol.monitor.host import HostSampler
from ondol.testing import FakeClock
from tests.docs.test_docs_complete import metric_names


def test_every_metric_of_ours_is_described() -> None:
    recorded = metric_names() - {"models.load"}  # a span
    sampled = {name for name, _value, _unit in HealthSource(HostSampler(), FakeClock()).sample_metrics()}
    assert recorded | sampled <= set(DESCRIPTIONS)


def test_the_example_of_a_file_of_alerts_is_read() -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "ondol-alerts.toml"
    clock = FakeClock(epoch_s=datetime(2026, 11, 26, tzinfo=UTC).timestamp())  # before its silence ends
    content = load_alert_file(example, environ={"ALERTS_WEBHOOK_SECRET": "secret"}, clock=clock)
    assert content.rules
    assert content.webhooks
