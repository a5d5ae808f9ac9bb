"""Metrics and traces at the wire: a collector on the loopback decodes them; one that is down disturbs nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ondol.cache import Cache
from ondol.clock import SystemClock
from ondol.errors import ConfigurationError
from ondol.monitor import otel as otel_module
from ondol.monitor.otel import OpenTelemetry
from ondol.monitor.snapshots import Exemplar, MetricSnapshot
from ondol.testing import run_virtual
from ondol.tracing import SpanRelay
from tests.service.otlp_double import Collector, Told

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from ondol.testing import VirtualClock

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

SNAPSHOTS = [
    MetricSnapshot(
        "http.request_seconds",
        "seconds",
        {"route": "/v1"},
        "summary",
        *(3, 6.0, 3.0, 1.0, 3.0),
        bounds=(1.5, 2.5),
        bucket_counts=(1, 1, 1),
        exemplars=(None, None, Exemplar(3.0, 1_700_000_001.0, {"trace_id": TRACE, "span_id": SPAN})),
        started_at=1_700_000_000.0,
    ),
    MetricSnapshot("api.errors", "count", {}, "counter", 2, 2.0, 1.0, started_at=1_700_000_000.0),
    MetricSnapshot("system.memory_percent", "percent", {}, "gauge", 2, 90.0, 50.0),
]


class Metrics(MetricExporter):
    """Keeps what it is given; does what ``behave`` does first."""

    def __init__(self, behave: Any = None) -> None:
        super().__init__()
        self.exports: list[Any] = []
        self.is_shut_down = threading.Event()
        self._behave = behave

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **_: Any) -> MetricExportResult:
        self.exports.append(metrics_data)
        result = None if self._behave is None else self._behave(self)
        return result or MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        self.is_shut_down.set()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


async def one_request(relay: SpanRelay) -> None:
    cache = Cache(spans=relay)
    with relay.serve("GET", {"url.path": "/열"}, None):
        await cache.get_or_compute("page", compute=lambda: 1)


def test_traces_and_metrics_arrive_at_the_collector(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")

    async def scenario() -> dict[str, Any]:
        otel, relay = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock()), SpanRelay()
        assert otel.sink is None
        await otel.start()
        await otel.start()
        relay.connect(otel.sink)
        await one_request(relay)
        relay.connect(None)
        await otel.stop()
        await otel.stop()
        assert otel.sink is None
        return otel.get_stats()

    stats = asyncio.run(scenario())
    assert stats["spans"] == {"exports": 1, "failed_exports": 0, "exported": 3, "failures": 0}
    assert stats["metrics"] == {"exports": 1, "failed_exports": 0, "exported": 1}
    assert {kind for _path, kind in collector.requests} == {"application/x-protobuf"}
    spans = {span.name: span for span in collector.spans()}
    assert spans["cache.compute"].parent_span_id == spans["cache.get_or_compute"].span_id
    assert spans["cache.get_or_compute"].parent_span_id == spans["GET"].span_id
    assert spans["GET"].parent_span_id == b""
    assert {span.trace_id for span in spans.values()} == {spans["GET"].trace_id}
    told = {each.key: each.value.string_value for each in spans["GET"].attributes}
    assert told["url.path"] == "/열"
    resource = collector.traces[0].resource_spans[0].resource
    assert {each.key: each.value.string_value for each in resource.attributes}["service.name"] == "shop"


def test_the_values_of_metrics_at_the_wire(collector: Collector) -> None:
    async def scenario() -> None:
        otel = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock())
        await otel.start()
        await otel.stop()

    asyncio.run(scenario())
    metrics = collector.newest_metrics()
    histogram = metrics["ondol.http.request_seconds"].histogram
    assert histogram.aggregation_temporality == 2  # cumulative
    (point,) = histogram.data_points
    assert (point.count, point.sum, point.min, point.max) == (3, 6.0, 1.0, 3.0)
    assert list(point.explicit_bounds) == [1.5, 2.5]
    assert list(point.bucket_counts) == [1, 1, 1]
    assert point.start_time_unix_nano == 1_700_000_000 * 10**9
    (example,) = point.exemplars
    assert (example.as_double, example.trace_id.hex(), example.span_id.hex()) == (3.0, TRACE, SPAN)
    total = metrics["ondol.api.errors"].sum
    assert (total.is_monotonic, total.data_points[0].as_double) == (True, 2.0)
    assert metrics["ondol.system.memory_ratio"].gauge.data_points[0].as_double == 0.5
    assert metrics["ondol.system.memory_ratio"].unit == "1"
    resource = collector.metrics[0].resource_metrics[0].resource
    assert {each.key: each.value.string_value for each in resource.attributes}["service.name"] == "ondol"


def test_metrics_are_exported_again_and_again(collector: Collector) -> None:
    async def scenario() -> None:
        otel = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock(), interval_s=0.01)
        await otel.start()
        await asyncio.to_thread(collector.wait_for, "/v1/metrics", 3)
        await otel.stop()

    asyncio.run(scenario())
    collector.wait_for("/v1/metrics", 3)


def test_a_collector_that_refuses_is_counted_and_told_once(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    caplog.set_level(logging.INFO)

    async def scenario() -> dict[str, Any]:
        otel, relay = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock(), interval_s=0.01), SpanRelay()
        await otel.start()
        relay.connect(otel.sink)
        await one_request(relay)
        await asyncio.to_thread(collector.wait_for, "/v1/metrics", 3)
        await otel.stop()
        return otel.get_stats()

    stats = asyncio.run(scenario())
    assert stats["metrics"]["failed_exports"] >= 3
    assert stats["metrics"]["exports"] == 0
    assert stats["spans"]["failed_exports"] == 1
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert sorted(record.getMessage().split(" cannot ")[0] for record in warnings) == ["metrics", "spans"]
    assert all("400" in record.getMessage() for record in warnings)


def test_a_collector_that_is_down_costs_requests_nothing_and_a_stop_little(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Collector() as gone:
        url = gone.url  # nobody listens there once it is closed
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    monkeypatch.setattr(otel_module, "FLUSH_S", 0.2)  # else it would be tried again for seconds

    async def scenario() -> dict[str, Any]:
        otel, relay = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock()), SpanRelay()
        await otel.start()
        relay.connect(otel.sink)
        await one_request(relay)
        await otel.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == "ondol-otel-metrics"]
        return otel.get_stats()

    stats = asyncio.run(scenario())
    assert (stats["metrics"]["failed_exports"], stats["spans"]["failed_exports"]) == (1, 1)
    assert len([record for record in caplog.records if "cannot be exported" in record.message]) == 2


def test_when_the_collector_is_back_that_is_told(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ondol.monitor")
    collector.status = 400

    async def scenario() -> dict[str, Any]:
        otel = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock(), interval_s=0.01)
        await otel.start()
        await asyncio.to_thread(collector.wait_for, "/v1/metrics", 1)
        collector.status = 200
        await asyncio.to_thread(collector.wait_for, "/v1/metrics", len(collector.requests) + 2)
        await otel.stop()
        return otel.get_stats()

    assert asyncio.run(scenario())["metrics"]["exports"] >= 1
    messages = [record.message for record in caplog.records]
    assert messages.count("the OpenTelemetry collector takes metrics again") == 1


def test_exporters_and_series_that_raise_are_failures_like_others(caplog: pytest.LogCaptureFixture) -> None:
    def explode(_exporter: Metrics) -> None:
        raise OSError("no route")

    class Spans(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no route")

    def collect() -> list[MetricSnapshot]:
        raise ZeroDivisionError

    async def scenario(clock: VirtualClock) -> None:
        otel, relay = (
            OpenTelemetry(list, clock=clock, span_exporter=Spans(), metric_exporter=Metrics(explode)),
            SpanRelay(),
        )
        await otel.start()
        relay.connect(otel.sink)
        await one_request(relay)
        await otel.stop()
        stats = otel.get_stats()
        assert (stats["spans"]["failed_exports"], stats["metrics"]["failed_exports"]) == (1, 1)
        broken = OpenTelemetry(collect, clock=clock, span_exporter=InMemorySpanExporter(), metric_exporter=Metrics())
        await broken.start()
        await broken.stop()
        assert broken.get_stats()["metrics"]["failed_exports"] == 1

    run_virtual(scenario)
    assert all(record.exc_info for record in caplog.records if "cannot be exported" in record.message)


def test_an_exporter_that_hangs_does_not_hold_up_a_stop_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel_module, "FLUSH_S", 0.1)

    def hang(exporter: Metrics) -> None:
        assert exporter.is_shut_down.wait(60)

    async def scenario() -> None:
        metrics = Metrics(hang)
        otel = OpenTelemetry(list, clock=SystemClock(), span_exporter=InMemorySpanExporter(), metric_exporter=metrics)
        await otel.start()
        await otel.stop()
        assert metrics.is_shut_down.is_set()

    asyncio.run(scenario())


def test_it_can_be_started_again(collector: Collector) -> None:
    async def scenario() -> None:
        otel, relay = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock()), SpanRelay()
        for count in (1, 2):
            await otel.start()
            relay.connect(otel.sink)
            await one_request(relay)
            relay.connect(None)
            await otel.stop()
            assert len(collector.metrics) == count
            assert len(collector.spans()) == 3 * count

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("variable", "value", "has_spans", "has_metrics"),
    [
        ("OTEL_TRACES_EXPORTER", "none", False, True),
        ("OTEL_METRICS_EXPORTER", "none", True, False),
        ("OTEL_SDK_DISABLED", "true", False, False),
        ("OTEL_TRACES_EXPORTER", "otlp", True, True),
    ],
)
def test_the_standard_variables_switch_signals_off(
    variable: str, value: str, has_spans: bool, has_metrics: bool, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)

    async def scenario() -> None:
        otel, relay = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock()), SpanRelay()
        await otel.start()
        relay.connect(otel.sink)
        assert relay.is_on is has_spans
        await one_request(relay)
        await otel.stop()

    asyncio.run(scenario())
    assert (bool(collector.traces), bool(collector.metrics)) == (has_spans, has_metrics)


def test_an_exporter_that_there_is_none_of_is_refused_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ConfigurationError, match="OTEL_TRACES_EXPORTER='zipkin' in the environment"):
        OpenTelemetry(list, clock=SystemClock(), metric_exporter=Metrics())


def test_spans_go_to_the_provider_that_the_application_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(clock: VirtualClock) -> None:
        told = Told(clock)
        monkeypatch.setattr(trace, "get_tracer_provider", lambda: told.provider)
        otel, relay = OpenTelemetry(list, clock=clock, metric_exporter=Metrics()), SpanRelay()
        await otel.start()
        relay.connect(otel.sink)
        await one_request(relay)
        await otel.stop()
        await one_request(relay)  # the application's provider is not shut down by ours
        assert len(told.named("GET")) == 2

    run_virtual(scenario)


def test_a_start_that_is_cancelled_leaves_nothing_behind(collector: Collector) -> None:
    async def scenario() -> None:
        otel = OpenTelemetry(list, clock=SystemClock())
        starting = asyncio.create_task(otel.start())
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not [thread for thread in threading.enumerate() if thread.name == "ondol-otel-metrics"]
        await otel.start()
        relay = SpanRelay()
        relay.connect(otel.sink)
        assert relay.is_on
        await otel.stop()

    asyncio.run(scenario())


def test_another_protocol_than_http_is_told(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    async def scenario() -> None:
        otel = OpenTelemetry(lambda: SNAPSHOTS, clock=SystemClock())
        await otel.start()
        await otel.stop()

    asyncio.run(scenario())
    assert "OTEL_EXPORTER_OTLP_PROTOCOL='grpc' is not supported: http/protobuf is used" in caplog.messages
    assert len(collector.metrics) == 1
