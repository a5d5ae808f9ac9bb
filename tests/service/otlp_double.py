"""Where spans and metrics go in tests: a list in memory, and a collector on the loopback that decodes what it gets."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ondol.monitor.otel_traces import OpenTelemetrySpans
from ondol.tracing import SpanRelay

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span
    from opentelemetry.sdk.trace import ReadableSpan

    from ondol.clock import Clock


class Told:
    """What was told to a relay that is connected to OpenTelemetry's own SDK."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.sink = OpenTelemetrySpans(self.provider, clock=clock)
        self.relay = SpanRelay()
        self.relay.connect(self.sink)

    def all(self) -> list[ReadableSpan]:
        """Return the spans that have ended, by their beginning."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        wanted = span.parent.span_id if span.parent is not None else None
        return next((each for each in self.all() if each.context.span_id == wanted), None)

    def path(self, span: ReadableSpan) -> list[str]:
        """Return the names from the root of the trace to ``span``."""
        parent = self.parent(span)
        return [*(self.path(parent) if parent is not None else []), span.name]

    def times(self, span: ReadableSpan) -> tuple[float, float]:
        """Return beginning and end as monotonic seconds of the clock, rounded to what the wall clock resolves."""
        assert span.start_time is not None
        assert span.end_time is not None
        offset_s = self._clock.wall() - self._clock.monotonic()
        return round(span.start_time / 1e9 - offset_s, 5), round(span.end_time / 1e9 - offset_s, 5)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


class Collector:
    """An OTLP collector over HTTP in a thread; answers ``status``, and keeps what it decoded."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.requests: list[tuple[str, str]] = []
        """Path and content type of each."""
        self._came = threading.Condition()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that the server looks for
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(self.path, self.headers["content-type"], body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: object) -> None:  # nothing is logged
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, path: str, content_type: str, body: bytes) -> None:
        with self._came:
            self.requests.append((path, content_type))
            if self.status == 200 and path == "/v1/traces":
                self.traces.append(ExportTraceServiceRequest.FromString(body))
            elif self.status == 200 and path == "/v1/metrics":
                self.metrics.append(ExportMetricsServiceRequest.FromString(body))
            self._came.notify_all()

    def wait_for(self, path: str, count: int = 1) -> None:
        """Wait until so many requests came for ``path``."""

        def is_there() -> bool:
            return sum(each == path for each, _type in self.requests) >= count

        with self._came:
            assert self._came.wait_for(is_there, timeout=30), self.requests

    def spans(self) -> list[Span]:
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def newest_metrics(self) -> dict[str, Metric]:
        """Return the metrics of the last export by name."""
        scopes = [scope for resource in self.metrics[-1].resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}
