from __future__ import annotations

import pytest

from ondol.errors import MonitorError
from ondol.monitor.names import check_labels, check_name, check_time_unit, check_unit, kind_of


@pytest.mark.parametrize("name", ["api.response_time", "a", "_x.1", "my_function_0f3", "Cache.Hits", "a" * 120])
def test_a_valid_name_is_returned(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "1a", "a b", "a-b", "응답", "a\n", "a" * 121, None, 3])
def test_an_invalid_name_is_refused_with_an_example(name: object) -> None:
    with pytest.raises(MonitorError, match=r"api\.response_time"):
        check_name(name)


def test_a_huge_name_does_not_make_a_huge_message() -> None:
    with pytest.raises(MonitorError) as raised:
        check_name("x" * 1_000_000)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("given", "unit"),
    [("s", "seconds"), ("Second", "seconds"), ("B", "bytes"), ("%", "percent"), ("widgets", "widgets")],
)
def test_units_have_one_spelling(given: str, unit: str) -> None:
    assert check_unit(given) == unit


@pytest.mark.parametrize("unit", ["in words", "m/s", "초", 5, None, "x" * 33])
def test_an_invalid_unit_is_refused(unit: object) -> None:
    with pytest.raises(MonitorError, match="is not valid"):
        check_unit(unit)


def test_only_time_measures_a_duration() -> None:
    assert check_time_unit("ms") == ("milliseconds", 1000.0)
    for unit in ("bytes", ""):
        with pytest.raises(MonitorError, match="seconds, milliseconds, microseconds"):
            check_time_unit(unit)


def test_labels_become_sorted_texts_of_bounded_length() -> None:
    assert check_labels({"b": 1, "a": "x" * 500}) == (("a", "x" * 120), ("b", "1"))


@pytest.mark.parametrize("labels", [{"모델": "x"}, {"a b": "x"}, {f"l{i}": "x" for i in range(9)}])
def test_bad_labels_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(MonitorError):
        check_labels(labels)


def test_the_kind_follows_name_and_unit() -> None:
    assert kind_of("system.memory_percent", "percent") == "gauge"
    assert kind_of("process.threads", "count") == "gauge"
    assert kind_of("cache.hit_rate", "percent") == "gauge"
    assert kind_of("api.errors", "count") == "counter"
    assert kind_of("models.load_failures", "count") == "counter"
    assert kind_of("cache.used_bytes", "bytes") == "gauge"
    assert kind_of("api.errors", "seconds") == "summary"
    assert kind_of("api.response_time", "seconds") == "summary"
