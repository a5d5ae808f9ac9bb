"""``GET /metrics`` through the app: whatever a client asks for, it gets the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ondol.monitor import PerformanceMonitor
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from tests.server.conftest import Api

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def with_metrics(api: Api, monkeypatch: pytest.MonkeyPatch) -> Api:
    monitor = PerformanceMonitor(clock=FakeClock(), rules=())
    monitor.add_metric("job.errors", 3, "count", kind="a")
    monkeypatch.setattr(api.service.monitor, "collect", monitor.collect)
    return api


@pytest.mark.parametrize(
    "accept",
    [
        *("", "*/*", "text/html", ";;,,=", ",", "=", ";version", "text/plain;version", "\xff\xfe;version=\xb2"),
        *(
            f"{OPENMETRICS};version={version}"
            for version in ("abc", "", "1.x", "x.1", "-1", "1..0", ".", "2.\xe9", "²")
        ),
        *(f"{OPENMETRICS};version={version}" for version in ("1.0.0", "0.0.1", "99", "9" * 5000, "1" + ".1" * 3000)),
        *(f"text/plain;version={version}" for version in ("abc", "0.0.4", "1.0.0", "1.", "1 0", "1;version=abc")),
        *(f"{kind};version=1.0.0;escaping=zzz;q=abc" for kind in (OPENMETRICS, "text/plain")),
        "text/plain;version=abc;q=0.5,application/openmetrics-text;version=1.0.0;q=0.1",
    ],
)
def test_an_odd_accept_header_never_fails(with_metrics: Api, accept: str) -> None:
    response = with_metrics.http.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
    assert response.status_code == 200
    content_type = response.headers["content-type"]
    assert content_type.startswith(("text/plain; version=", f"{OPENMETRICS}; version="))
    read = parse_openmetrics if content_type.startswith(OPENMETRICS) else parse
    samples = {sample.name: sample.value for family in read(response.text) for sample in family.samples}
    assert samples["ondol_job_errors_total"] == 3


def test_each_accept_header_counts(with_metrics: Api) -> None:
    headers = [("Accept", "text/html"), ("Accept", f"{OPENMETRICS}; version=1.0.0")]
    assert with_metrics.http.get("/metrics", headers=headers).headers["content-type"].startswith(OPENMETRICS)
