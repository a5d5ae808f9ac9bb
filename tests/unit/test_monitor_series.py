from __future__ import annotations

import math
from typing import Any

import pytest

from ondol.errors import MonitorError
from ondol.monitor.metric_book import OVERFLOW_NAME, MetricBook
from ondol.monitor.query import Query
from ondol.monitor.series import Series
from ondol.monitor.snapshots import Exemplar


def fold(book: MetricBook, name: str, value: float, at_s: float = 0.0, unit: str = "", **labels: str) -> None:
    series, _ = book.find(name, unit, labels)
    series.pending.append(value)
    series.at_s = at_s
    book.fold(at_s)


def figures(book: MetricBook, name: str, now_s: float = 0.0) -> dict[str, Any]:
    return book.summaries(now_s)[name]


def value_of(book: MetricBook, query: Query, now_s: float) -> float | None:
    reading = book.reading(query, now_s)
    return None if reading is None else reading.value


def test_a_metric_has_its_figures() -> None:
    book = MetricBook()
    for value in (1.0, 2.0, 3.0, 10.0):
        fold(book, "api.time", value, 5.0, "seconds")
    found = figures(book, "api.time", 10.0)
    assert found["unit"] == "seconds"
    assert (found["count"], found["sum"], found["mean"]) == (4, 16.0, 4.0)
    assert (found["min"], found["max"], found["last"]) == (1.0, 10.0, 10.0)
    assert found["p50"] == pytest.approx(2.0, rel=0.01)
    assert found["p99.9"] == pytest.approx(10.0, rel=0.01)
    assert list(found["windows"]) == ["1m", "5m", "1h", "24h"]
    assert found["windows"]["5m"]["rate_per_s"] == pytest.approx(4 / 5)
    assert "series" not in found


def test_each_window_forgets_in_its_time_and_the_whole_life_does_not() -> None:
    book = MetricBook()
    fold(book, "a", 4.0, 1.0)
    counts = {
        now_s: [window["count"] for window in figures(book, "a", now_s)["windows"].values()]
        for now_s in (30.0, 70.0, 310.0, 3610.0, 86_410.0)
    }
    assert list(counts.values()) == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    late = figures(book, "a", 86_410.0)
    assert (late["count"], late["last"], late["p50"]) == (1, 4.0, 4.0)
    assert (late["windows"]["24h"]["min"], late["windows"]["24h"]["p99"]) == (0.0, 0.0)


def test_a_counters_rate_is_what_it_counted() -> None:
    book = MetricBook()
    fold(book, "cache.evictions", 30.0, 0.0, "count")
    fold(book, "orders", 30.0, 0.0)
    assert figures(book, "cache.evictions", 10.0)["windows"]["1m"]["rate_per_s"] == pytest.approx(3.0)
    assert figures(book, "orders", 10.0)["windows"]["1m"]["rate_per_s"] == pytest.approx(0.1)


def test_a_summary_follows_its_values_and_the_time() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0)
    first = figures(book, "a", 1.0)
    first["windows"]["1m"]["count"] = "a reader's own"
    assert figures(book, "a", 2.0)["windows"]["1m"]["count"] == 1
    assert (figures(book, "a", 2.0)["windows"]["1m"]["rate_per_s"], first["windows"]["1m"]["rate_per_s"]) == (0.5, 1.0)
    fold(book, "a", 2.0, 3.0)
    assert figures(book, "a", 3.0)["count"] == 2
    assert figures(book, "a", 100.0)["windows"]["1m"]["count"] == 0


def test_one_window_alone_is_as_among_all() -> None:
    book = MetricBook()
    for second in range(0, 900, 7):
        fold(book, "a", float(second), float(second), "", model=str(second % 2))
    alone, among = book.summaries(900.0, only="5m")["a"], figures(book, "a", 900.0)
    assert alone["windows"] == {"5m": among["windows"]["5m"]}
    assert (alone["unit"], alone["kind"], alone["count"], alone["last"]) == (
        "",
        "summary",
        among["count"],
        among["last"],
    )


def test_buckets_for_exporters_never_fall() -> None:
    series = Series()
    series.is_bound = True
    series.pending.extend([20.0] * 1000)
    series.fold("bytes", 0.0)
    before = series.bucket_counts("bytes")
    series.pending.append(2e12)  # so far off that a sketch gives up the smallest buckets
    series.fold("bytes", 1.0)
    after = series.bucket_counts("bytes")
    assert (before[0], after[0], sum(after)) == (1000, 1000, 1001)


def test_labels_make_series_whatever_their_order() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0, "", model="x", kind="y")
    fold(book, "a", 2.0, 0.0, "", kind="y", model="x")
    fold(book, "a", 3.0, 0.0, "", model="z", kind="y")
    found = figures(book, "a", 1.0)
    assert found["count"] == 3
    assert [(s["labels"]["model"], s["count"]) for s in found["series"]] == [("x", 2), ("z", 1)]


def test_a_second_unit_is_refused_and_both_are_named() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0, "s")
    fold(book, "a", 1.0, 0.0, "seconds")
    fold(book, "a", 1.0)
    with pytest.raises(MonitorError, match=r"'seconds'.*'bytes'"):
        book.find("a", "bytes", {})
    assert figures(book, "a")["count"] == 3


def test_a_unit_may_be_said_later() -> None:
    book = MetricBook()
    fold(book, "a", 1.0)
    fold(book, "a", 1.0, 0.0, "bytes")
    assert figures(book, "a")["unit"] == "bytes"


def test_hostile_labels_end_in_an_overflow_series() -> None:
    book = MetricBook(max_series_per_name=10)
    for number in range(1000):
        fold(book, "a", 1.0, 0.0, "", user=str(number))
    fold(book, "b", 1.0)
    assert book.series_count == 11
    found = figures(book, "a")
    assert found["count"] == 1000
    assert found["series"][-1]["labels"] == {"overflow": "true"}
    assert found["series"][-1]["count"] == 990


def test_series_are_bounded_over_all_names() -> None:
    book = MetricBook(max_names=50, max_series=20, max_series_per_name=10)
    for name in range(40):
        for user in range(10):
            fold(book, f"m{name}", 1.0, 0.0, "", user=str(user))
    # 20, and the first series of each of the other names, of which there are at most 50
    assert book.series_count <= 20 + 40
    assert sum(found["count"] for found in book.summaries(0.0).values()) == 400


def test_too_many_names_are_counted_together() -> None:
    book = MetricBook(max_names=5)
    for number in range(100):
        fold(book, f"name{number}", 1.0, 0.0, "bytes")
    assert len(book.metrics) == 6
    assert figures(book, OVERFLOW_NAME)["count"] == 95
    assert not book.find("name99", "", {})[1]
    assert book.find("name0", "", {})[1]


def test_the_newest_value_of_any_series_is_the_reading() -> None:
    book = MetricBook()
    assert book.reading(Query("a"), 0.0) is None
    book.find("a", "", {})
    assert book.reading(Query("a"), 0.0) is None
    fold(book, "a", 1.0, 5.0, "", model="x")
    fold(book, "a", 2.0, 4.0, "", model="y")
    reading = book.reading(Query("a"), 6.0)
    assert reading is not None
    assert (reading.value, reading.at_s) == (1.0, 5.0)


def test_every_aggregate_is_answered_over_its_window() -> None:
    book = MetricBook()
    for second, value in enumerate((1.0, 2.0, 3.0, 94.0)):
        fold(book, "a", value, float(second))
    wanted = {"avg": 25.0, "min": 1.0, "max": 94.0, "sum": 100.0, "count": 4.0, "rate": 0.4, "last": 94.0}
    assert {name: value_of(book, Query("a", name), 10.0) for name in wanted} == pytest.approx(wanted)
    assert value_of(book, Query("a", "p50"), 10.0) == pytest.approx(2.0, rel=0.01)
    assert value_of(book, Query("a", "p99.9"), 10.0) == pytest.approx(94.0, rel=0.01)
    # An hour later the minute is empty: nothing has a mean, but there is a count of it.
    assert value_of(book, Query("a", "avg"), 3000.0) is None
    assert value_of(book, Query("a", "count"), 3000.0) == 0.0
    assert value_of(book, Query("a", "avg", 3600.0), 3000.0) == 25.0
    assert value_of(book, Query("never", "count"), 3000.0) is None


def test_a_query_may_be_of_some_series_only() -> None:
    book = MetricBook()
    fold(book, "a", 1.0, 0.0, "", model="x", kind="k")
    fold(book, "a", 5.0, 0.0, "", model="y", kind="k")
    assert value_of(book, Query("a", "max", 60.0, (("kind", "k"),)), 1.0) == 5.0
    assert value_of(book, Query("a", "max", 60.0, (("kind", "k"), ("model", "x"))), 1.0) == 1.0
    assert book.reading(Query("a", "last", 60.0, (("model", "z"),)), 1.0) is None


def test_collect_gives_each_series_with_values() -> None:
    book = MetricBook()
    fold(book, "b", 1.0, 0.0, "seconds", model="x")
    fold(book, "b", 0.02, 100.0, "seconds", model="x")
    fold(book, "a.errors", 1.0, 0.0, "count")
    book.find("never", "", {})
    book.find("b", "seconds", {"model": "x"})[0].add_exemplar("seconds", Exemplar(1.0, 5.0, {"request_id": "r"}))
    errors, times = book.collect(100.0, 1000.0)
    assert (errors.name, errors.kind, dict(errors.labels), errors.bounds) == ("a.errors", "counter", {}, ())
    assert (times.name, times.kind, dict(times.labels), times.count) == ("b", "summary", {"model": "x"}, 2)
    by_bound = dict(zip((*times.bounds, math.inf), times.bucket_counts, strict=True))
    assert {bound: count for bound, count in by_bound.items() if count} == {0.025: 1, 1.0: 1}
    shown = dict(zip((*times.bounds, math.inf), times.exemplars, strict=True))
    assert [bound for bound, exemplar in shown.items() if exemplar] == [1.0]
    assert times.quantiles[0.999] == 1.0
    assert (times.minimum, times.maximum, times.started_at) == (0.02, 1.0, 900.0)


def test_what_is_no_number_is_left_out_and_counted() -> None:
    book = MetricBook()
    series, _ = book.find("a", "", {})

    class Odd:
        def __float__(self) -> float:
            raise RuntimeError("more than one element")

    odd: list[Any] = [1.0, math.nan, "5", b"6", None, math.inf, 10**400, 2, True, [3.0], Odd()]
    series.pending.extend(odd)
    series.is_bound = True
    assert book.fold(1.0) == {"a": 8}
    assert (figures(book, "a")["count"], figures(book, "a")["sum"], figures(book, "a")["last"]) == (3, 4.0, 1.0)
    series.pending.append("only this")  # type: ignore[arg-type]  # on purpose
    assert book.fold(1.0) == {"a": 1}
    assert figures(book, "a")["count"] == 3


def test_numbers_beyond_each_other_add_up_to_the_largest() -> None:
    series = Series()
    series.is_bound = True
    series.pending.extend([1.7e308, 1.7e308, 1.0])
    assert series.fold("", 0.0) == 0
    assert series.count == 3
    assert series.total == pytest.approx(1.7976931348623157e308)
    assert series.windows.whole().quantiles([0.5, 0.9]) == [pytest.approx(1.7e308, rel=0.01)] * 2
