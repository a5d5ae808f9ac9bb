"""adapter: the monitor's series in Prometheus' text format, written by ``prometheus_client``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ondol.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ondol.monitor.series import MetricSnapshot

__all__ = ["PrometheusExporter"]

PREFIX: Final = "ondol_"
_UNITS_WITHOUT_NAME: Final = frozenset({"", "count"})


class PrometheusExporter:
    """Renders ``PerformanceMonitor.collect()`` for ``GET /metrics``.

    It has a registry of its own: what a program registers with ``prometheus_client`` itself is left alone.
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
        """Yield one family a metric, in the order of names."""
        families: dict[str, list[MetricSnapshot]] = {}
        for snapshot in self._collect():
            families.setdefault(snapshot.name, []).append(snapshot)
        taken: set[str] = set()
        for name, snapshots in sorted(families.items()):
            yield _family(_free_name(_exposed_name(name, snapshots[0].unit), taken), snapshots)


def _exposed_name(name: str, unit: str) -> str:
    text = PREFIX + name.replace(".", "_")
    return text if unit in _UNITS_WITHOUT_NAME or text.endswith(f"_{unit}") else f"{text}_{unit}"


def _free_name(wanted: str, taken: set[str]) -> str:
    """Return a name that no other family has: ``a.b`` and ``a_b`` look alike in Prometheus, suffixes clash too."""
    name, number = wanted, 1
    while not taken.isdisjoint(_sample_names(name)):
        number += 1
        name = f"{wanted}_{number}"
    taken.update(_sample_names(name))
    return name


def _sample_names(name: str) -> tuple[str, ...]:
    return (name, f"{name}_sum", f"{name}_count", f"{name}_total")


def _family(name: str, snapshots: list[MetricSnapshot]) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    first = snapshots[0]
    unit = first.unit if name.endswith(f"_{first.unit}") else ""
    family = Metric(name, f"{first.name}, recorded by ondol", first.kind, unit)
    for snapshot in snapshots:
        labels = dict(snapshot.labels)
        if snapshot.kind == "gauge":
            family.add_sample(name, labels, snapshot.last)
        elif snapshot.kind == "counter":
            family.add_sample(f"{name}_total", labels, snapshot.sum)
        else:
            for rank, value in snapshot.quantiles.items():
                family.add_sample(name, {**labels, "quantile": f"{rank:g}"}, value)
            family.add_sample(f"{name}_sum", labels, snapshot.sum)
            family.add_sample(f"{name}_count", labels, snapshot.count)
    return family
