"""Whatever is measured, under whatever names and labels: ``/metrics`` can be read, and nothing is in it twice."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from ondol.errors import MonitorError
from ondol.monitor import AlertRule, PerformanceMonitor
from ondol.monitor.names import label_text
from ondol.monitor.prometheus import PrometheusExporter
from ondol.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric

PARSERS: dict[str, Callable[[str], Iterable[Metric]]] = {
    "": parse,
    "application/openmetrics-text; version=1.0.0": parse_openmetrics,
}

# Few words, so that names clash with each other, with the suffixes of the formats and with the monitor's own.
WORDS = (
    "a",
    "A",
    "_",
    "b_total",
    "errors",
    "total",
    "sum",
    "count",
    "bucket",
    "created",
    "info",
    "quantile",
    "seconds",
)
names = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).flatmap(
        lambda words: st.sampled_from([".".join(words), "_".join(words)])
    ),
    st.sampled_from(["alerts.active", "exporter.errors", "system.a", "process.a", "monitor.overflow"]),
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}(\.[A-Za-z0-9_]{1,3}){0,2}", fullmatch=True),
)
units = st.one_of(
    st.sampled_from(["", "count", "seconds", "ms", "us", "bytes", "gibibytes", "percent", "ratio", "total", "info"]),
    st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
)
any_text = st.text(st.characters(), max_size=8)  # surrogates as well
label_values = st.one_of(
    any_text, st.sampled_from(["true", "", "\\", '"', "\n", "\r\n", "{}", "} 1 # {", 'le="1"', "\0"])
)
label_names = st.sampled_from(["k", "le", "le_", "quantile", "quantile_", "overflow", "rule", "severity", "_", "K"])
labels = st.dictionaries(label_names, label_values, max_size=3)
values = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-10, 10), st.booleans())
# The parser, not the format, fails at quotation marks within exemplars when their number is odd.
exemplar_values = st.one_of(any_text, st.text(max_size=200), st.integers(), st.none()).map(
    lambda value: value.replace('"', "'") if isinstance(value, str) else value
)
exemplars = st.dictionaries(st.one_of(st.sampled_from(["request_id", "trace_id", "__x"]), any_text), exemplar_values)
records = st.lists(st.tuples(names, units, st.lists(values, min_size=1, max_size=4), labels, exemplars), max_size=12)


def monitor_of(recorded: list[Any]) -> tuple[PerformanceMonitor, set[str]]:
    """Return a monitor that was given all this, and the texts that the label ``k`` has in it."""
    clock = FakeClock()
    monitor = PerformanceMonitor(clock=clock, rules=[AlertRule("hot", "a", 1, ">")])
    texts = set()
    for name, unit, numbers, tags, leads_to in recorded:
        with contextlib.suppress(MonitorError):  # the name has another unit already
            for number in numbers:
                monitor.add_metric(name, number, unit, **tags)
            texts.add(label_text(tags.get("k", "")))
            monitor.add_exemplar(name, numbers[-1], leads_to, **tags)
        clock.advance(4.0)
    return monitor, texts - {""}


@settings(max_examples=150, deadline=None)
@given(records)
def test_whatever_is_measured_can_be_read_and_is_there_once(recorded: list[Any]) -> None:
    monitor, texts = monitor_of(recorded)
    exporter = PrometheusExporter(monitor.collect)
    for accept, read in PARSERS.items():
        body = exporter.render(accept)[0].decode()
        samples = [sample for family in read(body) for sample in family.samples]
        # Parsers drop what is there twice without a word, so the lines are counted too.
        seen = {(sample.name, *sorted(sample.labels.items())) for sample in samples}
        lines = [line for line in body.split("\n") if line and not line.startswith("#")]
        assert len(seen) == len(samples) == len(lines)
        assert [sample.value for sample in samples if sample.name == "ondol_exporter_errors_total"] == [0]
        assert texts == {sample.labels["k"] for sample in samples if "k" in sample.labels}
