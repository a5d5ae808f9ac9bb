"""adapter: the monitor's series in Prometheus' and OpenMetrics' text formats, written by ``prometheus_client``."""

from __future__ import annotations

import logging
import re
from itertools import accumulate
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ondol.errors import MissingExtraError
from ondol.monitor.base_units import base_unit
from ondol.monitor.descriptions import description_of
from ondol.monitor.names import check_exemplar, label_text
from ondol.monitor.snapshots import without_doubles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ondol.monitor.snapshots import Exemplar, MetricSnapshot

__all__ = ["PrometheusExporter"]

logger = logging.getLogger("ondol.monitor")

PREFIX: Final = "ondol_"
_ERRORS: Final = f"{PREFIX}exporter_errors"
_UNITS_WITHOUT_NAME: Final = frozenset({"", "count"})
_OWN_LABEL: Final = re.compile(r"(?:le|quantile)_*")  # of the format itself
_VERSION: Final = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}")


class PrometheusExporter:
    """Renders ``PerformanceMonitor.collect()`` for ``GET /metrics``.

    Observations are shown as a histogram, whose buckets can be added up over processes, and as the percentiles of the
    last five minutes beside it, which are within 1 %. What a program registers with ``prometheus_client`` itself is
    left alone.

    A metric that cannot be written is left out, logged once with its traceback, and counted in
    ``ondol_exporter_errors_total``: it never keeps the others from being read.
    """

    def __init__(self, collect: Callable[[], list[MetricSnapshot]]) -> None:
        """Render what ``collect`` gives at each call; ``prometheus_client`` is imported at the first."""
        self._collect = collect
        self._errors = 0
        self._failed: set[str] = set()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type, in the format that the ``Accept`` header asks for.

        A header that asks for nothing that can be given is answered with the plain text format.

        Raises:
            MissingExtraError: ``prometheus_client`` is not installed.
        """
        try:
            from prometheus_client.exposition import choose_encoder  # noqa: PLC0415  # 30 ms that only /metrics needs
        except ImportError as exc:
            raise MissingExtraError("prometheus-client", "server", "/metrics") from exc
        encode, content_type = choose_encoder(_understood(accept))
        end = encode(_Families())
        texts = [
            text.removesuffix(end)
            for plan in _planned(self._collect())
            if (text := self._written(plan, encode)) is not None
        ]
        return b"".join([*texts, encode(_Families(_error_count(self._errors)))]), content_type

    def _written(self, plan: _Plan, encode: Callable[[Any], bytes]) -> bytes | None:
        try:
            return encode(_Families(plan.make(plan.name, plan.snapshots)))
        except Exception as exc:
            self._errors += 1
            # The encoders put the whole family into the error, which is too much for a log.
            exc.args = tuple(arg for arg in exc.args if not hasattr(arg, "samples"))
            if plan.name not in self._failed:
                self._failed.add(plan.name)
                logger.exception("metric %s cannot be shown in /metrics and is left out; this is said once", plan.name)
            return None


class _Families:
    """What ``prometheus_client``'s encoders ask for families of samples."""

    def __init__(self, *families: Any) -> None:
        self._families = families

    def collect(self) -> Iterator[Any]:
        """Yield the families."""
        yield from self._families


class _Plan(NamedTuple):
    """A family to be made, under a name that no other has."""

    name: str
    make: Callable[[str, Sequence[MetricSnapshot]], Any]
    snapshots: Sequence[MetricSnapshot]


def _understood(accept: str) -> str:
    """Return the header without what ``choose_encoder`` fails at, or answers wrongly.

    A version that is no number makes it raise. The names here need no escaping, so a reader gets what it wants without
    any; and in the escaping ``values`` the names of samples are not those of their families.
    """
    kept = []
    for entry in accept.split(","):
        kind, *parameters = (part.strip() for part in entry.split(";"))
        wanted = [parameter for parameter in parameters if not parameter.startswith("escaping=")]
        versions = [parameter.partition("=")[2] for parameter in wanted if parameter.startswith("version=")]
        if all(_VERSION.fullmatch(version) for version in versions if version):
            kept.append(";".join([kind, *wanted]))
    return ",".join(kept)


def _planned(snapshots: Sequence[MetricSnapshot]) -> Iterator[_Plan]:
    """Yield the families in the order of names.

    One name may come with several kinds: a program's own ``alerts.active``, say. Each is a family of its own.
    """
    families: dict[tuple[str, bool, str, str], list[MetricSnapshot]] = {}
    for snapshot in snapshots:
        # Gauges first: the plain name belongs to what the monitor itself shows under it.
        key = (snapshot.name, snapshot.kind != "gauge", snapshot.kind, snapshot.unit)
        families.setdefault(key, []).append(snapshot)
    taken = set(_sample_names(_ERRORS))
    for (name, _, kind, unit), members in sorted(families.items()):
        exposed = _free_name(_exposed_name(name, unit), taken)
        yield _Plan(exposed, _family, members)
        if kind == "summary" and any(member.quantiles for member in members):
            yield _Plan(_free_name(f"{exposed}_quantile", taken), _quantiles, members)


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


def _as_shown(snapshots: Sequence[MetricSnapshot]) -> list[MetricSnapshot]:
    """Return the snapshots with labels as the formats take them, none of them twice."""
    return without_doubles(snapshot._replace(labels=_labels(snapshot.labels)) for snapshot in snapshots)


def _labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels as texts, those with the format's own names renamed.

    ``le`` becomes ``le_``, and ``le_`` becomes ``le__``: what was different stays so. To Prometheus an empty label is
    none, so it is none here, too.
    """
    texts = ((name, label_text(value)) for name, value in labels.items())
    return {f"{name}_" if _OWN_LABEL.fullmatch(name) else name: text for name, text in texts if text}


def _family(name: str, snapshots: Sequence[MetricSnapshot]) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    first = snapshots[0]
    unit, factor = base_unit(first.unit)
    kind, text = "histogram" if first.kind == "summary" else str(first.kind), description_of(first)
    if kind == "counter" and any(snapshot.minimum < 0 for snapshot in snapshots):
        # Neither format knows a counter that falls.
        kind, text = "gauge", f"{text}; a gauge, because values below zero were counted"
    family = Metric(name, text, kind, unit if name.endswith(f"_{unit}") else "")
    for snapshot in _as_shown(snapshots):
        if first.kind == "gauge":
            family.add_sample(name, dict(snapshot.labels), snapshot.last * factor)
        elif first.kind == "counter":
            family.add_sample(name if kind == "gauge" else f"{name}_total", dict(snapshot.labels), snapshot.sum)
        else:
            _add_buckets(family, snapshot, factor)
    return family


def _add_buckets(family: Any, snapshot: MetricSnapshot, factor: float) -> None:
    from prometheus_client.utils import floatToGoString  # noqa: PLC0415  # imported by render() already

    bounds = [*(round(bound * factor, 12) for bound in snapshot.bounds), float("inf")]
    exemplars = snapshot.exemplars or (None,) * len(bounds)
    for bound, count, exemplar in zip(bounds, accumulate(snapshot.bucket_counts), exemplars, strict=True):
        within = {**snapshot.labels, "le": floatToGoString(bound)}  # type: ignore[no-untyped-call]  # its own
        shown = None if exemplar is None else _exemplar(exemplar, factor)
        family.add_sample(f"{family.name}_bucket", within, count, exemplar=shown)
    if snapshot.minimum >= 0:  # OpenMetrics: the sum of values of both signs may fall, and then neither is shown
        family.add_sample(f"{family.name}_count", dict(snapshot.labels), snapshot.count)
        family.add_sample(f"{family.name}_sum", dict(snapshot.labels), snapshot.sum * factor)


def _exemplar(exemplar: Exemplar, factor: float) -> Any:
    from prometheus_client.samples import Exemplar as Shown  # noqa: PLC0415  # imported by render() already

    labels = check_exemplar(exemplar.labels)
    # A value that is not finite lies in no bucket.
    return Shown(labels, exemplar.value * factor, exemplar.at) if labels and isfinite(exemplar.value) else None


def _quantiles(name: str, snapshots: Sequence[MetricSnapshot]) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    first = snapshots[0]
    _, factor = base_unit(first.unit)
    family = Metric(name, f"{description_of(first)}: percentiles of the last five minutes", "gauge")
    for snapshot in _as_shown(snapshots):
        for rank, value in snapshot.quantiles.items():
            family.add_sample(name, {**snapshot.labels, "quantile": f"{rank:g}"}, value * factor)
    return family


def _error_count(count: int) -> Any:
    from prometheus_client.core import Metric  # noqa: PLC0415  # imported by render() already

    family = Metric(_ERRORS, "metrics that could not be shown and were left out, since the start", "counter")
    family.add_sample(f"{_ERRORS}_total", {}, count)
    return family
