"""service: the OpenTelemetry side of a runtime: its figures and the traces of its requests, sent to a collector."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from ondol._version import __version__
from ondol.errors import ConfigurationError, MissingExtraError
from ondol.monitor.otel_metrics import MetricExports, MetricTranslator
from ondol.monitor.otel_traces import OpenTelemetrySpans
from ondol.monitor.otel_watch import ExportWatch, WatchedSpanExporter

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry import trace as trace_api
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

    from ondol.clock import Clock
    from ondol.monitor.snapshots import MetricSnapshot
    from ondol.tracing import SpanSink

__all__ = ["FLUSH_S", "OpenTelemetry"]

logger = logging.getLogger("ondol.monitor")

FLUSH_S: Final = 1.5
"""How long a stop waits for what is left to be exported."""

_GRACE_S: Final = 0.5
_EXPORTERS: Final = ("OTEL_METRICS_EXPORTER", "OTEL_TRACES_EXPORTER")
_PROTOCOL: Final = "http/protobuf"
_PACKAGES: Final = {
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter.otlp.proto.http": "opentelemetry-exporter-otlp-proto-http",
}


class OpenTelemetry:
    """Exports metrics and traces by OTLP over HTTP, between ``start`` and ``stop``.

    The standard environment variables apply: ``OTEL_EXPORTER_OTLP_ENDPOINT`` and its relatives, ``OTEL_SERVICE_NAME``
    (else the service is called ``ondol``), ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_*``,
    ``OTEL_TRACES_EXPORTER`` and ``OTEL_METRICS_EXPORTER`` (``otlp`` or ``none``), ``OTEL_SDK_DISABLED``. Where the
    application has set OpenTelemetry's global tracer provider before the start, spans go there.

    A collector that is down or slow costs figures and spans, never a request; that is counted, and logged once.

    Thread-safety: none for ``start`` and ``stop``, which belong to one event loop at a time.
    """

    def __init__(
        self,
        collect: Callable[[], list[MetricSnapshot]],
        *,
        clock: Clock,
        interval_s: float = 60.0,
        span_exporter: SpanExporter | None = None,
        metric_exporter: MetricExporter | None = None,
        tracer_provider: trace_api.TracerProvider | None = None,
    ) -> None:
        """Prepare the exports; nothing is imported, opened or started before ``start``.

        Args:
            collect: returns every series; called in a thread.
            clock: where time is read.
            interval_s: between two exports of metrics.
            span_exporter: where spans go, instead of the collector that the environment names.
            metric_exporter: where metrics go, instead of it.
            tracer_provider: where spans go, instead of a provider made here; it is not shut down.

        Raises:
            MissingExtraError: OpenTelemetry is not installed.
            ConfigurationError: the environment asks for an exporter that there is none of here.
        """
        for module, package in _PACKAGES.items():
            if not _is_installed(module):
                raise MissingExtraError(package, "otel", "exporting by OpenTelemetry")
        for variable in _EXPORTERS:
            _is_wanted(variable)
        self._collect = collect
        self._clock = clock
        self._interval_s = interval_s
        self._given = (span_exporter, metric_exporter, tracer_provider)
        self._span_watch = ExportWatch("spans")
        self._metric_watch = ExportWatch("metrics")
        self._spans: OpenTelemetrySpans | None = None
        self._span_failures = 0
        self._closing: list[Callable[[], None]] = []
        self._is_started = False
        self._is_exporting_metrics = False

    @property
    def sink(self) -> SpanSink | None:
        """Where spans go: what a ``SpanRelay`` is connected to; ``None`` unless it runs and exports traces."""
        return self._spans

    async def start(self) -> None:
        """Begin; does nothing when it runs already.

        Raises:
            ConfigurationError: the environment asks for an exporter that there is none of here.
        """
        if self._is_started:
            return
        self._is_started = True
        try:
            await _in_own_thread(self._open, None)  # importing takes a few hundred milliseconds
        except BaseException:
            self._is_started = False
            await self._close_all()
            raise
        logger.info(
            "OpenTelemetry: traces %s, metrics %s",
            "on" if self._spans is not None else "off",
            f"every {self._interval_s:g} s" if self._is_exporting_metrics else "off",
        )

    async def stop(self) -> None:
        """Export what is left, within seconds, and end. Safe to call twice; it can be started again.

        Disconnect what is connected to ``sink`` first.

        Cancellation: the exports end by themselves.
        """
        self._is_started = False
        await self._close_all()

    def get_stats(self) -> dict[str, Any]:
        """Return how much was exported, and how often that failed, as plain values."""
        failures = self._span_failures + (0 if self._spans is None else self._spans.failures)
        return {
            "spans": self._span_watch.get_stats() | {"failures": failures},
            "metrics": self._metric_watch.get_stats(),
        }

    # In threads

    def _open(self) -> None:
        if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":  # as the SDK reads it
            return
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or _PROTOCOL
        if protocol != _PROTOCOL:
            logger.warning("OTEL_EXPORTER_OTLP_PROTOCOL=%r is not supported: %s is used", protocol, _PROTOCOL)
        span_exporter, metric_exporter, provider = self._given
        resource = _resource()
        if metric_exporter is not None or _is_wanted("OTEL_METRICS_EXPORTER"):
            self._open_metrics(resource, metric_exporter)
        if span_exporter is not None or provider is not None or _is_wanted("OTEL_TRACES_EXPORTER"):
            provider = provider or (None if span_exporter is not None else _hosts_provider())
            provider = provider or self._own_provider(resource, span_exporter)
            self._spans = OpenTelemetrySpans(provider, clock=self._clock)

    def _open_metrics(self, resource: Resource, exporter: MetricExporter | None) -> None:
        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            exporter = OTLPMetricExporter()
        translator = MetricTranslator(resource, clock=self._clock)
        watch = self._metric_watch
        exports = MetricExports(self._collect, translator, exporter, watch, interval_s=self._interval_s)
        watch.open()
        exports.start()
        self._is_exporting_metrics = True

        def close() -> None:
            exports.close(FLUSH_S)
            watch.close()

        self._closing.append(close)

    def _own_provider(self, resource: Resource, exporter: SpanExporter | None) -> trace_api.TracerProvider:
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  # an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # the same

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter = OTLPSpanExporter()
        watch = self._span_watch
        watched = WatchedSpanExporter(exporter, watch)
        watch.open()
        # Not at exit: a process that could not stop in order should not wait for a collector, either.
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(watched))  # type: ignore[arg-type]  # has what it needs of one

        def close() -> None:
            # The provider would wait for half a minute; an exporter that is shut down gives up.
            timer = threading.Timer(FLUSH_S, watched.shutdown)
            timer.daemon = True
            timer.start()
            provider.shutdown()
            timer.cancel()
            watch.close()

        self._closing.append(close)
        return provider

    async def _close_all(self) -> None:
        spans, self._spans = self._spans, None
        if spans is not None:
            self._span_failures += spans.failures
        closing, self._closing = self._closing, []
        self._is_exporting_metrics = False
        ended = await asyncio.gather(*(_in_own_thread(close, FLUSH_S + _GRACE_S) for close in closing))
        if not all(ended):
            logger.warning("OpenTelemetry's exporters do not end; they are left behind")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _is_wanted(variable: str) -> bool:
    """Tell whether a signal is to be exported, by the variable that OpenTelemetry has for that.

    Raises:
        ConfigurationError: it asks for something that is not supported.
    """
    value = os.environ.get(variable, "").strip().lower()
    if value not in {"", "otlp", "none"}:
        message = f"{variable}={value!r} in the environment is not supported: it must be 'otlp' (the default) or 'none'"
        raise ConfigurationError(message)
    return value != "none"


def _resource() -> Resource:
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource  # noqa: PLC0415  # an extra

    resource = Resource.create()
    name = str(resource.attributes.get(SERVICE_NAME, ""))
    if not name or name.startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "ondol", SERVICE_VERSION: __version__}))
    return resource


def _hosts_provider() -> trace_api.TracerProvider | None:
    from opentelemetry import trace  # noqa: PLC0415  # an extra

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


async def _in_own_thread(work: Callable[[], None], limit_s: float | None) -> bool:
    """Run ``work`` in a thread that nothing else waits for; return whether it ended within ``limit_s``.

    Cancellation: the thread goes on by itself; without a limit it is waited for first.

    Raises:
        Exception: what it raised.
    """
    threads = ThreadPoolExecutor(1, thread_name_prefix="ondol-otel")
    try:
        running = asyncio.get_running_loop().run_in_executor(threads, work)
        try:
            ended, _ = await asyncio.wait([running], timeout=limit_s)
        except asyncio.CancelledError:
            if limit_s is None:
                await asyncio.wait([running])
                running.exception()
            raise
        for each in ended:
            each.result()
        return bool(ended)
    finally:
        threads.shutdown(wait=False)
