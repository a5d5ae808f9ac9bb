from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ondol.errors import MonitorError
from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.prometheus import PrometheusExporter
from ondol.monitor.snapshots import Exemplar, MetricSnapshot
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TIME = "ondol_api_response_time_seconds"
ERRORS = "ondol_exporter_errors"
FORMATS = pytest.mark.parametrize("accept", ["", OPENMETRICS])


@pytest.fixture
def monitor() -> PerformanceMonitor:
    monitor = PerformanceMonitor(clock=FakeClock(), rules=[AlertRule("hot", "t", 1, ">")])
    for value in range(1, 101):
        monitor.add_metric("api.response_time", value / 100, "seconds", route='/v1/"odd"\n')
    monitor.add_metric("api.errors", 1, "count")
    monitor.add_metric("api.errors", 1, "count")
    monitor.add_metric("cache.hit_rate", 83.0, "percent")
    return monitor


def read(body: bytes, accept: str = "") -> dict[str, Metric]:
    """Parse what was rendered; no sample may be there twice."""
    found = list((parse_openmetrics if "openmetrics" in accept else parse)(body.decode()))
    samples = [(sample.name, *sorted(sample.labels.items())) for family in found for sample in family.samples]
    assert len(samples) == len(set(samples)) == sum(line[:1] not in {"", "#"} for line in body.decode().split("\n"))
    return {family.name: family for family in found}


def families(monitor: PerformanceMonitor, accept: str = "") -> dict[str, Metric]:
    found = read(PrometheusExporter(monitor.collect).render(accept)[0], accept)
    assert found[ERRORS].samples[0].value == 0
    return found


def buckets(family: Metric) -> dict[str, Sample]:
    return {sample.labels["le"]: sample for sample in family.samples if sample.name.endswith("_bucket")}


@FORMATS
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
    monitor.add_exemplar("api.response_time", 0.02, {"request_id": "x" * 300}, **route)
    shown = {bound: sample.exemplar for bound, sample in buckets(families(monitor, OPENMETRICS)[TIME]).items()}
    found = {bound: exemplar for bound, exemplar in shown.items() if exemplar}
    assert {bound: exemplar.value for bound, exemplar in found.items()} == {"0.025": 0.02, "1.0": 0.8}
    assert found["1.0"].labels == {"request_id": "second"}
    assert found["0.025"].labels == {"request_id": "x" * 118}  # the format takes no more
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


@FORMATS
def test_a_file_name_that_is_no_utf_8_can_be_a_label(monitor: PerformanceMonitor, accept: str) -> None:
    monitor.add_metric("file.size", 1.0, "bytes", path=os.fsdecode(b"/data/caf\xe9"))
    monitor.add_alert_rule(AlertRule("caf\udce9", "t", 1, ">"))
    found = families(monitor, accept)
    assert found["ondol_file_size_bytes"].samples[0].labels["path"] == r"/data/caf\udce9"
    assert r"caf\udce9" in {sample.labels["rule"] for sample in found["ondol_alerts_active"].samples}


@FORMATS
@pytest.mark.parametrize(
    "leads_to", [{"request_id": 123}, {"request id": "a", "ok": "b"}, {"1r": "a"}, {"r": "\udce9"}, {"__r": "a"}]
)
def test_odd_exemplars_do_no_harm(monitor: PerformanceMonitor, leads_to: dict[str, Any], accept: str) -> None:
    monitor.add_exemplar("api.response_time", 0.7, leads_to, route='/v1/"odd"\n')
    assert TIME in families(monitor, accept)
    snapshot = next(snapshot for snapshot in monitor.collect() if snapshot.name == "api.response_time")
    exemplars = (*(None for _ in snapshot.bounds), Exemplar(float("nan"), 0.0, leads_to))
    odd = snapshot._replace(exemplars=(Exemplar(1e-9, 0.0, leads_to), *exemplars[1:]))
    read(PrometheusExporter(lambda: [odd]).render(accept)[0], accept)


@FORMATS
@pytest.mark.parametrize("unit", ["", "count", "seconds", "percent"])
def test_a_metric_called_like_one_of_the_monitors_is_a_family_of_its_own(
    monitor: PerformanceMonitor, unit: str, accept: str
) -> None:
    monitor.add_metric("alerts.active", 1.0, unit, rule="hot", severity="warning")
    monitor.add_metric("exporter.errors", 7, "count")
    found = families(monitor, accept)
    assert [sample.value for sample in found["ondol_alerts_active"].samples] == [0.0]
    mine = {"": "_2", "count": "_2", "seconds": "_seconds", "percent": "_ratio"}[unit]
    assert f"ondol_alerts_active{mine}" in found
    assert found["ondol_exporter_errors_2"].samples[0].value == 7


@FORMATS
def test_renamed_labels_stay_apart(monitor: PerformanceMonitor, accept: str) -> None:
    monitor.add_metric("odd", 1.0, le="x", le_="y", quantile="q", quantile_="r")
    monitor.add_metric("odd", 1.0, le="z", le_="y", quantile="q", quantile_="r")
    monitor.add_metric("odd", 1.0, le_="z")
    monitor.add_metric("odd", 1.0, le="z")
    shown = [sample.labels for sample in families(monitor, accept)["ondol_odd"].samples if sample.name[-5:] == "count"]
    assert {"le_": "x", "le__": "y", "quantile_": "q", "quantile__": "r"} in shown
    assert {"le_": "z"} in shown
    assert {"le__": "z"} in shown
    assert len(shown) == 4


@FORMATS
def test_a_label_like_that_of_the_overflow_series_is_counted_with_it(monitor: PerformanceMonitor, accept: str) -> None:
    monitor.add_metric("wide", 1.0, overflow="true")
    monitor.add_exemplar("wide", 1.0, {"r": "a"}, overflow="true")
    for number in range(200):
        monitor.add_metric("wide", 2.0, k=str(number))
    found = families(monitor, accept)
    shown = [sample for sample in found["ondol_wide"].samples if sample.labels.get("overflow") == "true"]
    values = {sample.labels.get("le", sample.name): sample.value for sample in shown}
    assert (values["ondol_wide_count"], values["ondol_wide_sum"]) == (102, 203)
    assert (values["1.0"], values["2.0"], values["+Inf"]) == (1, 102, 102)
    # Percentiles of two cannot be put together.
    assert all("overflow" not in sample.labels for sample in found["ondol_wide_quantile"].samples)


@FORMATS
def test_an_empty_label_is_none(monitor: PerformanceMonitor, accept: str) -> None:
    monitor.add_metric("plain.errors", 1, "count", k="")
    monitor.add_metric("plain.errors", 2, "count")
    (sample,) = families(monitor, accept)["ondol_plain_errors"].samples
    assert (sample.labels, sample.value) == ({}, 3)


@FORMATS
def test_a_counter_that_falls_is_shown_as_a_gauge(monitor: PerformanceMonitor, accept: str) -> None:
    for value in (5, -2):
        monitor.add_metric("x.errors", value, "count")
    family = families(monitor, accept)["ondol_x_errors"]
    assert (family.type, [(sample.name, sample.value) for sample in family.samples]) == (
        "gauge",
        [("ondol_x_errors", 3)],
    )


@FORMATS
def test_what_cannot_be_rendered_is_left_out_logged_once_and_counted(
    monitor: PerformanceMonitor, caplog: pytest.LogCaptureFixture, accept: str
) -> None:
    torn = MetricSnapshot("torn", "", {"k": "v"}, "summary", 1, 1.0, 1.0, bounds=(1.0, 2.0), bucket_counts=(1,))
    text: Any = "no number"
    odd = MetricSnapshot("odd", "", {}, "counter", 1, text, 1.0)  # fails only when it is written
    exporter = PrometheusExporter(lambda: [*monitor.collect(), torn, odd])
    for errors in (2, 4):
        found = read(exporter.render(accept)[0], accept)
        assert found[ERRORS].samples[0].value == errors
        assert {TIME, "ondol_api_errors", "ondol_alerts_active"} <= set(found)
        assert not {"ondol_torn", "ondol_odd"} & set(found)
    logged = [record for record in caplog.records if "cannot be shown" in record.message]
    assert [record.args for record in logged] == [("ondol_odd",), ("ondol_torn",)]
    assert all(record.exc_info for record in logged)
    assert "Metric(" not in caplog.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/openmetrics-text;version=abc", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.x", "text/plain; version=0.0.4"),
        ('text/plain;version="1.0.0"', "text/plain; version=0.0.4"),
        (
            "application/openmetrics-text;version=x,application/openmetrics-text;version=1.0.0",
            "application/openmetrics",
        ),
        ("application/openmetrics-text;version=", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0;escaping=values", "application/openmetrics-text; version=1.0.0"),
        ("text/plain; version=1.0.0; escaping=dots", "text/plain; version=1.0.0"),
    ],
)
def test_an_odd_accept_header_is_answered(monitor: PerformanceMonitor, accept: str, kind: str) -> None:
    body, content_type = PrometheusExporter(monitor.collect).render(accept)
    assert content_type.startswith(kind)
    found = read(body, content_type)
    assert {sample.name for sample in found["ondol_api_errors"].samples} == {"ondol_api_errors_total"}


def test_a_metric_is_what_it_is_said_to_be(monitor: PerformanceMonitor) -> None:
    monitor.describe("queue.depth", "Orders  that\nwait", kind="gauge", unit="count")
    monitor.add_metric("queue.depth", 9, "count")
    monitor.add_metric("queue.depth", 3, "count")
    monitor.add_metric("orders.created", 2, "count")
    monitor.add_metric("orders.created", 3, "count")
    assert families(monitor)["ondol_orders_created"].type == "histogram"
    monitor.describe("orders.created", kind="counter")
    monitor.describe("temperature", kind="gauge", unit="celsius")
    monitor.add_metric("temperature", -3, "celsius")
    for accept in ("", OPENMETRICS):
        found = families(monitor, accept)
        assert (found["ondol_queue_depth"].type, found["ondol_queue_depth"].samples[0].value) == ("gauge", 3)
        assert found["ondol_queue_depth"].documentation == "Orders that wait"
        assert (found["ondol_orders_created"].type, found["ondol_orders_created"].samples[0].value) == ("counter", 5)
        assert found["ondol_temperature_celsius"].samples[0].value == -3
    assert monitor.get_stats()["metrics"]["queue.depth"]["kind"] == "gauge"
    assert monitor.get_stats()["metrics"]["orders.created"]["windows"]["1m"]["rate_per_s"] == 5.0
    monitor.describe("orders.created", kind="summary")
    assert {bound: sample.value for bound, sample in buckets(families(monitor)["ondol_orders_created"]).items()}[
        "+Inf"
    ] == 2


def test_a_description_is_checked(monitor: PerformanceMonitor) -> None:
    with pytest.raises(MonitorError, match="gauge, counter, summary"):
        monitor.describe("a", kind="histogram")
    with pytest.raises(MonitorError, match=r"'seconds'.*'bytes'"):
        monitor.describe("api.response_time", unit="bytes")
    with pytest.raises(MonitorError, match="not valid"):
        monitor.describe("not a name")
    assert "a" not in monitor.get_stats()["metrics"]
