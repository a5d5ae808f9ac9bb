from __future__ import annotations

import pytest

from ondol.errors import MonitorError
from ondol.monitor.series import OVERFLOW_NAME, MetricBook, Series
from ondol.monitor.sketch import Sketch


def fold(book: MetricBook, name: str, value: float, at_s: float = 0.0, unit: str = "", **labels: str) -> None:
    series, _ = book.find(name, unit, labels)
    series.fold(value, at_s)


def recent_count(series: Series, now_s: float) -> int:
    sketch = Sketch()
    series.add_recent(sketch, now_s)
    return sketch.count


def whole_count(series: Series) -> int:
    sketch = Sketch()
    series.add_whole(sketch)
    return sketch.count


def test_a_metric_has_its_figures() -> None:
    book = MetricBook()
    for value in (1.0, 2.0, 3.0, 10.0):
        fold(book, "api.time", value, 5.0, "seconds")
    figures = book.summaries(10.0)["api.time"]
    assert figures["unit"] == "seconds"
    assert (figures["count"], figures["sum"], figures["mean"]) == (4, 16.0, 4.0)
    assert (figures["min"], figures["max"], figures["last"]) == (1.0, 10.0, 10.0)
    assert figures["p50"] == pytest.approx(2.0, rel=0.01)
    assert figures["p99"] == pytest.approx(10.0, rel=0.01)
    assert figures["last_5_minutes"]["rate_per_s"] == pytest.approx(4 / 5)
    assert "series" not in figures


def test_the_recent_window_forgets_and_the_whole_life_does_not() -> None:
    series = Series()
    for minute in range(20):
        series.fold(1.0, minute * 60.0)
    assert whole_count(series) == 20
    assert recent_count(series, 19 * 60.0) == 5
    assert recent_count(series, 19 * 60.0 + 250) == 1
    assert recent_count(series, 19 * 60.0 + 301) == 0
    assert whole_count(series) == 20


def test_a_silent_metric_keeps_its_whole_life() -> None:
    book = MetricBook()
    fold(book, "a", 4.0, 0.0)
    figures = book.summaries(100_000.0)["a"]
    assert figures["count"] == 1
    assert figures["last_5_minutes"]["count"] == 0
    assert figures["last_5_minutes"]["min"] == 0.0


def test_a_long_life_takes_bounded_slots() -> None:
    series = Series()
    for second in range(0, 100_000, 7):
        series.fold(float(second), float(second))
    assert len(series._recent) <= 10


def test_labels_make_series_whatever_their_order() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0, "", model="x", kind="y")
    fold(book, "a", 2.0, 0.0, "", kind="y", model="x")
    fold(book, "a", 3.0, 0.0, "", model="z", kind="y")
    figures = book.summaries(1.0)["a"]
    assert figures["count"] == 3
    assert [(s["labels"]["model"], s["count"]) for s in figures["series"]] == [("x", 2), ("z", 1)]


def test_a_second_unit_is_refused_and_both_are_named() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0, "s")
    fold(book, "a", 1.0, 0.0, "seconds")
    fold(book, "a", 1.0)
    with pytest.raises(MonitorError, match=r"'seconds'.*'bytes'"):
        book.find("a", "bytes", {})
    assert book.summaries(0.0)["a"]["count"] == 3


def test_a_unit_may_be_said_later() -> None:
    book = MetricBook()
    fold(book, "a", 1.0)
    fold(book, "a", 1.0, 0.0, "bytes")
    assert book.summaries(0.0)["a"]["unit"] == "bytes"


def test_hostile_labels_end_in_an_overflow_series() -> None:
    book = MetricBook(max_series_per_name=10)
    for number in range(1000):
        fold(book, "a", 1.0, 0.0, "", user=str(number))
    fold(book, "b", 1.0)
    assert book.series_count == 11
    figures = book.summaries(0.0)["a"]
    assert figures["count"] == 1000
    assert figures["series"][-1]["labels"] == {"overflow": "true"}
    assert figures["series"][-1]["count"] == 990


def test_series_are_bounded_over_all_names() -> None:
    book = MetricBook(max_names=50, max_series=20, max_series_per_name=10)
    for name in range(40):
        for user in range(10):
            fold(book, f"m{name}", 1.0, 0.0, "", user=str(user))
    # 20, and the first series of each of the other names, of which there are at most 50
    assert book.series_count <= 20 + 40
    assert sum(figures["count"] for figures in book.summaries(0.0).values()) == 400


def test_too_many_names_are_counted_together() -> None:
    book = MetricBook(max_names=5)
    for number in range(100):
        fold(book, f"name{number}", 1.0, 0.0, "bytes")
    assert len(book.metrics) == 6
    assert book.summaries(0.0)[OVERFLOW_NAME]["count"] == 95
    assert not book.find("name99", "", {})[1]
    assert book.find("name0", "", {})[1]


def test_the_newest_value_of_any_series_is_the_reading() -> None:
    book = MetricBook()
    assert book.reading("a") is None
    book.find("a", "", {})
    assert book.reading("a") is None
    fold(book, "a", 1.0, 5.0, "", model="x")
    fold(book, "a", 2.0, 4.0, "", model="y")
    reading = book.reading("a")
    assert reading is not None
    assert (reading.value, reading.at_s) == (1.0, 5.0)


def test_collect_gives_each_series_with_values() -> None:
    book = MetricBook()
    fold(book, "b", 1.0, 0.0, "seconds", model="x")
    fold(book, "a.errors", 1.0, 0.0, "count")
    book.find("never", "", {})
    snapshots = book.collect()
    assert [(s.name, s.kind, dict(s.labels)) for s in snapshots] == [
        ("a.errors", "counter", {}),
        ("b", "summary", {"model": "x"}),
    ]
    assert snapshots[1].count == 1
    assert snapshots[1].quantiles[0.99] == 1.0
