"""Every metric that the runtime records says what it measures."""

from __future__ import annotations

from ondol.monitor.descriptions import DESCRIPTIONS
from ondol.monitor.health import HealthSource
from ondol.monitor.host import HostSampler
from ondol.testing import FakeClock
from tests.docs.test_docs_complete import metric_names


def test_every_metric_of_ours_is_described() -> None:
    recorded = metric_names() - {"models.load"}  # a span
    sampled = {name for name, _value, _unit in HealthSource(HostSampler(), FakeClock()).sample_metrics()}
    assert recorded | sampled <= set(DESCRIPTIONS)
