"""adapter: the monitor's series as OpenTelemetry metrics, exported now and then by a thread of its own."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Final

from ondol._version import __version__
from ondol.errors import MissingExtraError
from ondol.monitor.descriptions import description_of
from ondol.monitor.snapshots import without_doubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricExporter, MetricsData
    from opentelemetry.sdk.metrics.export import NumberDataPoint as NumberPoint
    from opentelemetry.sdk.resources import Resource

    from ondol.clock import Clock
    from ondol.monitor.otel_watch import ExportWatch
    from ondol.monitor.snapshots import Exemplar, MetricSnapshot

__all__ = ["MetricExports", "MetricTranslator"]

PREFIX: Final = "ondol."
SCOPE: Final = "ondol"

_UNITS: Final[Mapping[str, tuple[str, float, str]]] = {
    "": ("", 1.0, ""),
    "seconds": ("s", 1.0, ""),
    "milliseconds": ("s", 1e-3, "seconds"),
    "microseconds": ("s", 1e-6, "seconds"),
    "bytes": ("By", 1.0, ""),
    "percent": ("1", 1e-2, "ratio"),
    "ratio": ("1", 1.0, ""),
    "count": ("{count}", 1.0, ""),
}
"""By ondol's unit: UCUM's, what a value is multiplied by, and the word that takes the unit's place in a name."""

_SHORT: Final[Mapping[str, tuple[str, ...]]] = {"milliseconds": ("ms",), "microseconds": ("us",), "percent": ()}
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}\Z")


class MetricTranslator:
    """Says in OpenTelemetry's words what the monitor has."""

    def __init__(self, resource: Resource, *, clock: Clock) -> None:
        """Say it of ``resource``.

        Raises:
            MissingExtraError: OpenTelemetry's SDK is not installed.
        """
        try:
            from opentelemetry.sdk.metrics import Exemplar as SdkExemplar  # noqa: PLC0415  # an extra
            from opentelemetry.sdk.metrics import export  # noqa: PLC0415  # the same
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415  # the same
        except ImportError as exc:
            raise MissingExtraError("opentelemetry-sdk", "otel", "exporting metrics by OpenTelemetry") from exc
        self._sdk = export
        self._exemplar = SdkExemplar
        self._resource = resource
        self._scope = InstrumentationScope(SCOPE, __version__)
        self._clock = clock

    def translate(self, snapshots: Iterable[MetricSnapshot]) -> MetricsData:
        """Return all series: one metric a name, in base units.

        Counters become monotonic cumulative sums, summaries cumulative histograms with the snapshot's bounds. A name
        that ends in a unit which is converted ends in the new one: ``system.memory_percent`` is exported as
        ``ondol.system.memory_ratio``, unless there is a metric of that name.
        """
        now_ns = round(self._clock.wall() * 1e9)
        families: dict[tuple[str, str, str], list[MetricSnapshot]] = {}
        for snapshot in snapshots:
            families.setdefault((snapshot.name, snapshot.unit, snapshot.kind), []).append(snapshot)
        names = {name for name, _unit, _kind in families}
        metrics = [
            self._metric(key, without_doubles(family), names, now_ns) for key, family in sorted(families.items())
        ]
        sdk = self._sdk
        scope = sdk.ScopeMetrics(self._scope, [metric for metric in metrics if metric.data.data_points], "")
        data: MetricsData = sdk.MetricsData([sdk.ResourceMetrics(self._resource, [scope], self._resource.schema_url)])
        return data

    def _metric(self, key: tuple[str, str, str], family: list[MetricSnapshot], names: set[str], now_ns: int) -> Metric:
        name, unit, kind = key
        ucum, factor, _word = _UNITS.get(unit, (f"{{{unit}}}", 1.0, ""))
        sdk = self._sdk
        data: Any
        if kind == "gauge":
            data = sdk.Gauge([self._number(each, each.last * factor, now_ns) for each in family])
        elif kind == "counter":
            numbers = [self._number(each, each.sum * factor, now_ns) for each in family]
            data = sdk.Sum(numbers, sdk.AggregationTemporality.CUMULATIVE, is_monotonic=True)
        else:
            points = [self._histogram(each, factor, now_ns) for each in family if each.count]
            data = sdk.Histogram(points, sdk.AggregationTemporality.CUMULATIVE)
        metric: Metric = sdk.Metric(exported_name(name, unit, names), description_of(family[0]), ucum, data)
        return metric

    def _number(self, snapshot: MetricSnapshot, value: float, now_ns: int) -> NumberPoint:
        return self._sdk.NumberDataPoint(dict(snapshot.labels), round(snapshot.started_at * 1e9), now_ns, float(value))

    def _histogram(self, snapshot: MetricSnapshot, factor: float, now_ns: int) -> HistogramDataPoint:
        return self._sdk.HistogramDataPoint(
            attributes=dict(snapshot.labels),
            start_time_unix_nano=round(snapshot.started_at * 1e9),
            time_unix_nano=now_ns,
            count=snapshot.count,
            sum=snapshot.sum * factor,
            bucket_counts=list(snapshot.bucket_counts) or [snapshot.count],
            explicit_bounds=[bound * factor for bound in snapshot.bounds],
            min=snapshot.minimum * factor,
            max=snapshot.maximum * factor,
            exemplars=[self._example(each, factor) for each in snapshot.exemplars if each is not None],
        )

    def _example(self, exemplar: Exemplar, factor: float) -> Any:
        labels = dict(exemplar.labels)
        trace_id, span_id = labels.get("trace_id", ""), labels.get("span_id", "")
        ids: dict[str, int] = {}
        if _TRACE_ID.match(trace_id) and _SPAN_ID.match(span_id):  # the protocol takes both or none
            del labels["trace_id"], labels["span_id"]
            ids = {"trace_id": int(trace_id, 16), "span_id": int(span_id, 16)}
        return self._exemplar(labels, float(exemplar.value) * factor, round(exemplar.at * 1e9), **ids)


def exported_name(name: str, unit: str, names: set[str]) -> str:
    """Return the name under which a metric in ``unit`` is exported; ``names`` are all names there are.

    >>> exported_name("http.request_seconds", "seconds", set()), exported_name("api.wait_ms", "milliseconds", set())
    ('ondol.http.request_seconds', 'ondol.api.wait_seconds')
    """
    word = _UNITS[unit][2] if unit in _UNITS else ""
    if word:
        for ending in (unit, *_SHORT[unit]):
            stem = name.removesuffix(ending)
            if stem != name and stem.endswith(("_", ".")) and stem + word not in names:
                return PREFIX + stem + word
    return PREFIX + name


class MetricExports:
    """Exports what the monitor has every so often, and once more when it is closed.

    Thread-safety: ``start`` and ``close`` must not be called at once from two threads.
    """

    def __init__(
        self,
        collect: Callable[[], list[MetricSnapshot]],
        translator: MetricTranslator,
        exporter: MetricExporter,
        watch: ExportWatch,
        *,
        interval_s: float,
    ) -> None:
        """Export through ``exporter``; nothing runs until ``start``."""
        self._collect = collect
        self._translator = translator
        self._exporter = exporter
        self._watch = watch
        self._interval_s = interval_s
        self._is_ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; the first export comes after one interval."""
        self._thread = threading.Thread(target=self._run, name="ondol-otel-metrics", daemon=True)
        self._thread.start()

    def close(self, flush_s: float) -> None:
        """Export a last time and end, after ``flush_s`` at most and a moment. Blocks."""
        thread, self._thread = self._thread, None
        self._is_ending.set()
        if thread is not None:
            thread.join(flush_s)
        # Ends the attempts of an export that still goes on.
        self._exporter.shutdown()
        if thread is not None and thread.is_alive():
            thread.join(1.0)

    def _run(self) -> None:
        while not self._is_ending.wait(self._interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        with self._watch.attempt(1) as outcome:
            data = self._translator.translate(self._collect())
            result = self._exporter.export(data)
            outcome.append(result.name == "SUCCESS")
