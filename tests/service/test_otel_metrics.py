"""The monitor's series in OpenTelemetry's words: kinds, base units, names, buckets, examples."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, Gauge, Histogram, Sum
from opentelemetry.sdk.resources import Resource

from ondol.errors import MissingExtraError
from ondol.monitor.otel import OpenTelemetry
from ondol.monitor.otel_metrics import MetricTranslator, exported_name
from ondol.monitor.otel_traces import OpenTelemetrySpans
from ondol.monitor.snapshots import Exemplar, MetricSnapshot
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def snapshot(name: str, unit: str, kind: Any, **fields: Any) -> MetricSnapshot:
    base = MetricSnapshot(name, unit, {}, kind, 1, 1.0, 1.0, 1.0, 1.0, started_at=1_700_000_000.0)
    return base._replace(**fields)


def summary(name: str = "http.request_seconds", unit: str = "seconds", **fields: Any) -> MetricSnapshot:
    given = {
        "count": 4,
        "sum": 6.5,
        "last": 3.0,
        "minimum": 0.5,
        "maximum": 3.0,
        "bounds": (1.0, 2.0),
        "bucket_counts": (1, 2, 1),
    }
    return snapshot(name, unit, "summary", **(given | fields))


def translate(*snapshots: MetricSnapshot) -> dict[str, Metric]:
    clock = FakeClock()
    data = MetricTranslator(Resource({"service.name": "t"}), clock=clock).translate(snapshots)
    (resource,) = data.resource_metrics
    assert resource.resource.attributes["service.name"] == "t"
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "ondol"
    return {metric.name: metric for metric in scope.metrics}


def test_a_counter_is_a_monotonic_cumulative_sum_since_the_series_began() -> None:
    metric = translate(snapshot("api.errors", "count", "counter", sum=3.0, labels={"route": "/v1"}))["ondol.api.errors"]
    assert metric.unit == "{count}"
    assert isinstance(metric.data, Sum)
    assert metric.data.is_monotonic
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    (point,) = metric.data.data_points
    assert (point.value, dict(point.attributes or {})) == (3.0, {"route": "/v1"})
    assert point.start_time_unix_nano == 1_700_000_000 * 10**9
    assert point.time_unix_nano == round(FakeClock().wall() * 1e9)


def test_a_gauge_is_its_newest_value_and_percent_becomes_a_ratio() -> None:
    metric = translate(snapshot("system.memory_percent", "percent", "gauge", last=42.0))["ondol.system.memory_ratio"]
    assert metric.unit == "1"
    assert isinstance(metric.data, Gauge)
    assert metric.data.data_points[0].value == pytest.approx(0.42)


def test_a_summary_is_a_cumulative_histogram_with_the_snapshots_buckets() -> None:
    metric = translate(summary())["ondol.http.request_seconds"]
    assert metric.unit == "s"
    assert isinstance(metric.data, Histogram)
    assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
    (point,) = metric.data.data_points
    assert list(point.explicit_bounds) == [1.0, 2.0]
    assert list(point.bucket_counts) == [1, 2, 1]
    assert (point.count, point.sum, point.min, point.max) == (4, 6.5, 0.5, 3.0)


def test_values_bounds_and_names_in_milliseconds_are_turned_into_seconds_together() -> None:
    example = Exemplar(1500.0, 1_700_000_001.0, {"trace_id": TRACE, "span_id": SPAN, "request_id": "r-1"})
    metric = translate(
        summary(
            "api.wait_ms",
            "milliseconds",
            sum=6500.0,
            minimum=500.0,
            maximum=3000.0,
            bounds=(1000.0, 2000.0),
            exemplars=(None, example, None),
        )
    )["ondol.api.wait_seconds"]
    assert metric.unit == "s"
    assert isinstance(metric.data, Histogram)
    (point,) = metric.data.data_points
    assert list(point.explicit_bounds) == pytest.approx([1.0, 2.0])
    assert (point.sum, point.min, point.max) == pytest.approx((6.5, 0.5, 3.0))
    (shown,) = point.exemplars
    assert shown.value == pytest.approx(1.5)
    assert (shown.trace_id, shown.span_id) == (int(TRACE, 16), int(SPAN, 16))
    assert dict(shown.filtered_attributes or {}) == {"request_id": "r-1"}
    assert shown.time_unix_nano == 1_700_000_001 * 10**9


def test_an_example_without_a_span_keeps_its_trace_as_an_attribute() -> None:
    example = Exemplar(1.5, 1.0, {"trace_id": TRACE})
    data = translate(summary(exemplars=(example,)))["ondol.http.request_seconds"].data
    assert isinstance(data, Histogram)
    (shown,) = data.data_points[0].exemplars
    assert (shown.trace_id, dict(shown.filtered_attributes or {})) == (None, {"trace_id": TRACE})


def test_series_of_one_name_are_one_metric_and_empty_ones_are_left_out() -> None:
    found = translate(
        summary(labels={"route": "/a"}),
        summary(labels={"route": "/b"}),
        summary("empty.seconds", count=0, bucket_counts=(0, 0, 0)),
        summary("without.bounds", bounds=(), bucket_counts=()),
    )
    assert sorted(found) == ["ondol.http.request_seconds", "ondol.without.bounds"]
    data = found["ondol.http.request_seconds"].data
    assert [dict(point.attributes or {}) for point in data.data_points] == [{"route": "/a"}, {"route": "/b"}]
    whole = found["ondol.without.bounds"].data
    assert isinstance(whole, Histogram)
    assert list(whole.data_points[0].bucket_counts) == [4]


@pytest.mark.parametrize(
    ("unit", "ucum"),
    [("bytes", "By"), ("ratio", "1"), ("count", "{count}"), ("", ""), ("texts", "{texts}"), ("microseconds", "s")],
)
def test_units_are_those_of_ucum(unit: str, ucum: str) -> None:
    assert translate(summary("a.b", unit))["ondol.a.b"].unit == ucum


@pytest.mark.parametrize(
    ("name", "unit", "names", "exported"),
    [
        ("http.request_seconds", "seconds", set(), "ondol.http.request_seconds"),
        ("api.wait_milliseconds", "milliseconds", set(), "ondol.api.wait_seconds"),
        ("api.wait_us", "microseconds", set(), "ondol.api.wait_seconds"),
        ("api.atoms", "milliseconds", set(), "ondol.api.atoms"),
        ("api.ms", "milliseconds", set(), "ondol.api.seconds"),
        ("api.wait_ms", "milliseconds", {"api.wait_seconds"}, "ondol.api.wait_ms"),
        ("percent", "percent", set(), "ondol.percent"),
        ("disk.used_percent", "ratio", set(), "ondol.disk.used_percent"),
    ],
)
def test_a_name_ends_in_the_unit_that_is_exported(name: str, unit: str, names: set[str], exported: str) -> None:
    assert exported_name(name, unit, names) == exported


def test_without_the_extra_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    clock = FakeClock()
    with pytest.raises(MissingExtraError, match=r"pip install 'ondol\[otel\]'"):
        OpenTelemetry(list, clock=clock)
    with pytest.raises(MissingExtraError, match="exporting metrics by OpenTelemetry"):
        MetricTranslator(Resource({}), clock=clock)
    with pytest.raises(MissingExtraError, match="tracing"):
        OpenTelemetrySpans(None, clock=clock)  # type: ignore[arg-type]
