"""adapter: the monitor's series in Prometheus' and OpenMetrics' text formats, written by ``prometheus_client``."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from ondol.errors import MissingExtraError
from ondol.monitor.base_units import base_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ondol.monitor.snapshots import MetricSnapshot

__all__ = ["PrometheusExporter"]

PREFIX: Final = "ondol_"
_UNITS_WITHOUT_NAME: Final = frozenset({"", "count"})
_OWN_LABELS: Final = frozenset({"le", "quantile"})  # of the format itself
_EXEMPLAR_CHARS: Final = 128  # of names and values together: OpenMetrics' bound


class PrometheusExporter:
    """Renders ``PerformanceMonitor.collect()`` for ``GET /metrics``.

    Observations are shown as a histogram, whose buckets can be added up over processes, and as the percentiles of the
    last five minutes beside it, which are within 1 %. It has a registry of its own: what a program registers with
    ``prometheus_client`` itself is left alone.
    """

    def __init__(self, collect: Callable[[], list[MetricSnapshot]]) -> None:
        """Render what ``collect`` gives at each call; ``prometheus_client`` is imported at the first."""
        self._collect = collect
        self._registry: Any = None

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the ``Accept`` header asks for.

        Raises:
            MissingExtraError: ``prometheus_client`` is not installed.
        """
        try:
            from prometheus_client import CollectorRegistry  # noqa: PLC0415  # 30 ms that only /metrics needs
            from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # the same
        except ImportError as exc:
            raise MissingExtraError("prometheus-client", "server", "/metrics") from exc
        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(_Collector(self._collect))
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collector:
    """What ``prometheus_client`` asks for families of samples."""

    def __init__(self, collect: Callable[[], list[MetricSnapshot]]) -> None:
        self._collect = collect

    def describe(self) -> list[Any]:
        """Name nothing in advance: the metrics are known when they come."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the families in the order of names."""
        families: dict[str, list[MetricSnapshot]] = {}
        for snapshot in self._collect():
            families.setdefault(snapshot.name, []).append(snapshot)
        taken: set[str] = set()
        for name, snapshots in sorted(families.items()):
            exposed = _free_name(_exposed_name(name, snapshots[0].unit), taken)
            yield _family(exposed, snapshots)
            if any(snapshot.quantiles for snapshot in snapshots) and snapshots[0].kind == "summary":
                yield _quantiles(_free_name(f"{exposed}_quantile", taken), snapshots)


def _exposed_name(name: str, unit: str) -> str:
    text = PREFIX + name.replace(".", "_")
    base, _ = base_unit(unit)
    if base != unit:
        text = text.removesuffix(f"_{unit}")
    return text if base in _UNITS_WITHOUT_NAME or text.endswith(f"_{base}") else f"{text}_{base}"


def _free_name(wanted: str, taken: set[str]) -> str:
    """Return a name that no other family has: ``a.b`` and ``a_b`` look alike in Prometheus, suffixes clash too."""
    name, number = wanted, 1
    while not taken.isdisjoint(_sample_names(name)):
        number += 1
        name = f"{wanted}_{number}"
    taken.update(_sample_names(name))
    return name


def _sample_names(name: str) -> tuple[str, ...]:
    return (name, *(f"{name}_{suffix}" for suffix in ("sum", "count", "total", "bucket", "created")))


def _labels(snapshot: MetricSnapshot) -> dict[str, str]:
    return {f"{name}_" if name in _OWN_LABELS else name: text for name, text in snapshot.labels.items()}


def _family(name: str, snapshots: Sequence[MetricSnapshot]) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    first = snapshots[0]
    unit, factor = base_unit(first.unit)
    kind = "histogram" if first.kind == "summary" else first.kind
    family = Metric(name, f"{first.name}, recorded by ondol", kind, unit if name.endswith(f"_{unit}") else "")
    for snapshot in snapshots:
        labels = _labels(snapshot)
        if kind == "gauge":
            family.add_sample(name, labels, snapshot.last * factor)
        elif kind == "counter":
            family.add_sample(f"{name}_total", labels, snapshot.sum)
        else:
            _add_buckets(family, snapshot, factor)
    return family


def _add_buckets(family: Any, snapshot: MetricSnapshot, factor: float) -> None:
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415  # imported by render() already

    labels = _labels(snapshot)
    bounds = [*(round(bound * factor, 12) for bound in snapshot.bounds), float("inf")]
    exemplars = snapshot.exemplars or (None,) * len(bounds)
    for bound, count, exemplar in zip(bounds, accumulate(snapshot.bucket_counts), exemplars, strict=True):
        shown = None if exemplar is None else _exemplar(exemplar.labels, exemplar.value * factor, exemplar.at)
        within = {**labels, "le": floatToGoString(bound)}  # type: ignore[no-untyped-call]  # of prometheus_client
        family.add_sample(f"{family.name}_bucket", within, count, exemplar=shown)
    if snapshot.minimum >= 0:  # OpenMetrics: the sum of values of both signs may fall, and then neither is shown
        family.add_sample(f"{family.name}_count", labels, snapshot.count)
        family.add_sample(f"{family.name}_sum", labels, snapshot.sum * factor)


def _exemplar(labels: Any, value: float, at: float) -> Any:
    from prometheus_client.samples import Exemplar  # noqa: PLC0415  # imported by render() already

    kept: dict[str, str] = {}
    room = _EXEMPLAR_CHARS
    for name, text in labels.items():
        room -= len(name) + len(text)
        if room >= 0:
            kept[name] = text
    return Exemplar(kept, value, at) if kept else None


def _quantiles(name: str, snapshots: Sequence[MetricSnapshot]) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    first = snapshots[0]
    _, factor = base_unit(first.unit)
    family = Metric(name, f"{first.name}, percentiles of the last five minutes", "gauge")
    for snapshot in snapshots:
        for rank, value in snapshot.quantiles.items():
            family.add_sample(name, {**_labels(snapshot), "quantile": f"{rank:g}"}, value * factor)
    return family
