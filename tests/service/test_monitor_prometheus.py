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
    from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TIME = "ondol_api_response_time_seconds"


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


def buckets(family: Metric) -> dict[str, Sample]:
    return {sample.labels["le"]: sample for sample in family.samples if sample.name.endswith("_bucket")}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_prometheus_own_parser_reads_it(monitor: PerformanceMonitor, accept: str) -> None:
    found = families(monitor, accept)
    times = found[TIME]
    assert times.type == "histogram"
    samples = {sample.name: sample for sample in times.samples if "le" not in sample.labels}
    assert samples[f"{TIME}_count"].value == 100
    assert samples[f"{TIME}_sum"].value == pytest.approx(50.5)
    within = {bound: sample.value for bound, sample in buckets(times).items()}
    # Values that equal a bound count as within it.
    assert (within["0.005"], within["0.01"], within["0.1"], within["0.5"], within["1.0"]) == (0, 1, 10, 50, 100)
    assert within["+Inf"] == 100
    assert {sample.labels["route"] for sample in times.samples} == {'/v1/"odd"\n'}
    recent = {sample.labels["quantile"]: sample.value for sample in found[f"{TIME}_quantile"].samples}
    assert set(recent) == {"0.5", "0.9", "0.99", "0.999"}
    assert recent["0.99"] == pytest.approx(0.99, rel=0.01)
    assert found["ondol_api_errors"].type == "counter"
    assert [(sample.name, sample.value) for sample in found["ondol_api_errors"].samples] == [
        ("ondol_api_errors_total", 2.0)
    ]
    assert found["ondol_alerts_active"].samples[0].labels == {"rule": "hot", "severity": "warning"}


def test_openmetrics_is_given_to_who_asks_for_it(monitor: PerformanceMonitor) -> None:
    assert PrometheusExporter(monitor.collect).render(OPENMETRICS)[1].startswith("application/openmetrics-text")
    assert PrometheusExporter(monitor.collect).render("")[1].startswith("text/plain")


def test_everything_is_shown_in_base_units(monitor: PerformanceMonitor) -> None:
    monitor.add_metric("parse.time", 250, "ms")
    monitor.add_metric("parse.part_ms", 250, "ms")
    monitor.add_metric("disk.used_percent", 40, "%")
    found = families(monitor)
    assert found["ondol_cache_hit_rate_ratio"].samples[0].value == pytest.approx(0.83)
    assert found["ondol_disk_used_ratio"].samples[0].value == pytest.approx(0.4)
    assert "ondol_parse_part_ms_seconds" in found
    times = buckets(found["ondol_parse_time_seconds"])
    assert (times["0.1"].value, times["0.25"].value) == (0, 1)
    (total,) = (sample.value for sample in found["ondol_parse_time_seconds"].samples if sample.name.endswith("_sum"))
    assert total == pytest.approx(0.25)
    assert monitor.get_stats()["metrics"]["parse.time"]["last"] == 250  # as it was given


def test_buckets_of_the_whole_life_survive_the_windows(monitor: PerformanceMonitor) -> None:
    clock = FakeClock()
    old = PerformanceMonitor(clock=clock, rules=())
    for _ in range(40):
        old.add_metric("api.response_time", 0.02, "seconds")
        old.add_metric("api.response_time", 7.0, "seconds")
        clock.advance(3600)
    times = buckets(families(old)[TIME])
    assert (times["0.01"].value, times["0.025"].value, times["5.0"].value, times["10.0"].value) == (0, 40, 40, 80)


def test_a_unit_that_is_said_later_keeps_the_counts() -> None:
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=())
    for _ in range(3):
        monitor.add_metric("api.response_time", 0.02)
        clock.advance(60)
    monitor.add_metric("api.response_time", 0.02, "seconds")
    times = buckets(families(monitor)[TIME])
    assert (times["0.01"].value, times["0.025"].value, times["+Inf"].value) == (0, 4, 4)


def test_slow_requests_lead_to_their_traces(monitor: PerformanceMonitor) -> None:
    route = {"route": '/v1/"odd"\n'}
    monitor.add_exemplar("api.response_time", 0.7, {"request_id": "first", "trace_id": "a" * 32}, **route)
    monitor.add_exemplar("api.response_time", 0.8, {"request_id": "second", "trace_id": ""}, **route)
    monitor.add_exemplar("api.response_time", 0.02, {"request_id": "x" * 300}, **route)  # more than the format takes
    shown = {bound: sample.exemplar for bound, sample in buckets(families(monitor, OPENMETRICS)[TIME]).items()}
    assert {bound for bound, exemplar in shown.items() if exemplar} == {"1.0"}
    exemplar = shown["1.0"]
    assert exemplar is not None
    assert (exemplar.labels, exemplar.value) == ({"request_id": "second"}, 0.8)
    assert "request_id" not in PrometheusExporter(monitor.collect).render("")[0].decode()  # no place for it there


def test_values_below_zero_can_be_read(monitor: PerformanceMonitor) -> None:
    monitor.add_metric("balance", -4)
    monitor.add_metric("balance", 3)
    monitor.add_metric("balance", 0)
    shown = buckets(families(monitor, OPENMETRICS)["ondol_balance"])
    assert (shown["1.0"].value, shown["5.0"].value, shown["+Inf"].value) == (2, 3, 3)


def test_labels_that_the_format_needs_itself_are_renamed(monitor: PerformanceMonitor) -> None:
    monitor.add_metric("odd", 1.0, le="2", quantile="x")
    assert {"le_", "quantile_"} <= set(families(monitor, OPENMETRICS)["ondol_odd"].samples[0].labels)


def test_names_that_look_alike_stay_apart(monitor: PerformanceMonitor) -> None:
    monitor.add_metric("a.b", 1.0)
    monitor.add_metric("a_b", 2.0)
    monitor.add_metric("a.b.sum", 3.0)
    monitor.add_metric("a.b.quantile", 3.0)
    found = families(monitor, OPENMETRICS)
    assert {"ondol_a_b", "ondol_a_b_2", "ondol_a_b_sum_2", "ondol_a_b_quantile_2"} <= set(found)


def test_it_is_rendered_anew_each_time_and_leaves_the_common_registry_alone(monitor: PerformanceMonitor) -> None:
    before = {family.name for family in REGISTRY.collect()}
    exporter = PrometheusExporter(monitor.collect)
    exporter.render()
    monitor.add_metric("later", 1.0)
    assert b"ondol_later" in exporter.render()[0]
    assert {family.name for family in REGISTRY.collect()} == before
