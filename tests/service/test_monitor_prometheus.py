from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.prometheus import PrometheusExporter
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from prometheus_client import Metric


@pytest.fixture
def monitor() -> PerformanceMonitor:
    monitor = PerformanceMonitor(clock=FakeClock(), rules=[AlertRule("hot", "t", 1, ">")])
    for value in range(1, 101):
        monitor.add_metric("api.response_time", value / 100, "seconds", route='/v1/"odd"\n')
    monitor.add_metric("api.errors", 1, "count")
    monitor.add_metric("api.errors", 1, "count")
    monitor.add_metric("cache.hit_rate", 83.0, "percent")
    return monitor


def families(monitor: PerformanceMonitor, accept: str = "") -> dict[str, Metric]:
    body, _ = PrometheusExporter(monitor.collect).render(accept)
    read = parse_openmetrics if "openmetrics" in accept else parse
    return {family.name: family for family in read(body.decode())}


def test_prometheus_own_parser_reads_it(monitor: PerformanceMonitor) -> None:
    found = families(monitor)
    summary = found["ondol_api_response_time_seconds"]
    assert summary.type == "summary"
    samples = {(s.name, s.labels.get("quantile", "")): s for s in summary.samples}
    assert samples["ondol_api_response_time_seconds_count", ""].value == 100
    assert samples["ondol_api_response_time_seconds_sum", ""].value == pytest.approx(50.5)
    assert samples["ondol_api_response_time_seconds", "0.99"].value == pytest.approx(0.99, rel=0.01)
    assert samples["ondol_api_response_time_seconds", "0.99"].labels["route"] == '/v1/"odd"\n'
    assert found["ondol_cache_hit_rate_percent"].samples[0].value == 83.0
    assert found["ondol_api_errors"].type == "counter"
    assert (found["ondol_api_errors"].samples[0].name, found["ondol_api_errors"].samples[0].value) == (
        "ondol_api_errors_total",
        2.0,
    )
    assert found["ondol_alerts_active"].samples[0].labels == {"rule": "hot", "severity": "warning"}


def test_openmetrics_is_given_to_who_asks_for_it(monitor: PerformanceMonitor) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    found = families(monitor, accept)
    assert found["ondol_api_response_time_seconds"].type == "summary"
    assert PrometheusExporter(monitor.collect).render(accept)[1].startswith("application/openmetrics-text")
    assert PrometheusExporter(monitor.collect).render("")[1].startswith("text/plain")


def test_names_that_look_alike_stay_apart(monitor: PerformanceMonitor) -> None:
    monitor.add_metric("a.b", 1.0)
    monitor.add_metric("a_b", 2.0)
    monitor.add_metric("a.b.sum", 3.0)
    found = families(monitor)
    assert {"ondol_a_b", "ondol_a_b_2", "ondol_a_b_sum_2"} <= set(found)


def test_it_is_rendered_anew_each_time_and_leaves_the_common_registry_alone(monitor: PerformanceMonitor) -> None:
    before = {family.name for family in REGISTRY.collect()}
    exporter = PrometheusExporter(monitor.collect)
    exporter.render()
    monitor.add_metric("later", 1.0)
    assert b"ondol_later" in exporter.render()[0]
    assert {family.name for family in REGISTRY.collect()} == before
