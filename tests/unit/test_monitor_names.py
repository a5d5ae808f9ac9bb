from __future__ import annotations

import enum
import os

import pytest

from ondol.errors import MonitorError
from ondol.monitor.names import (
    MAX_TIMED_NAME_CHARS,
    check_exemplar,
    check_labels,
    check_name,
    check_time_unit,
    check_timed_name,
    check_unit,
    kind_of,
)
from ondol.monitor.targets import AppriseTarget, WebhookTarget


class Mode(str, enum.Enum):  # noqa: UP042  # its str() is not its text, which is the case in question
    FAST = "fast"


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


def test_labels_that_prometheus_keeps_for_itself_are_refused() -> None:
    with pytest.raises(MonitorError, match=r"'__name__' is not valid.*'__'"):
        check_labels({"__name__": "x"})
    assert check_labels({"_name_": "x"}) == (("_name_", "x"),)


def test_a_text_of_an_enumeration_is_the_same_label_as_the_plain_text() -> None:
    ((_, text),) = check_labels({"mode": Mode.FAST})
    assert (text, type(text)) == ("fast", str)


def test_a_label_value_can_always_be_written_as_utf_8() -> None:
    ((_, one),) = check_labels({"path": os.fsdecode(b"/data/caf\xe9")})
    ((_, other),) = check_labels({"path": os.fsdecode(b"/data/caf\xe8")})
    assert (one, other) == (r"/data/caf\udce9", r"/data/caf\udce8")  # still two files
    ((_, long),) = check_labels({"path": "\ud800" * 500})
    assert len(long.encode()) == 120
    assert check_labels({"path": "카페 ☕"}) == (("path", "카페 ☕"),)


def test_a_label_value_without_a_text_is_refused() -> None:
    with pytest.raises(MonitorError, match="cannot be written as text"):
        check_labels({"size": 10**5000})


def test_a_timed_name_leaves_room_for_the_names_of_its_failures() -> None:
    longest = "a" * MAX_TIMED_NAME_CHARS
    assert check_timed_name(longest) == longest
    check_name(f"{longest}.errors")
    check_name(f"{longest}.cancelled")
    with pytest.raises(MonitorError, match=r"at most 110 characters.*\.cancelled"):
        check_timed_name(f"{longest}a")
    with pytest.raises(MonitorError, match=r"api\.response_time"):
        check_timed_name("a b")


def test_an_exemplar_keeps_what_it_can_carry() -> None:
    given = {"request_id": 7, "not a name": "x", "1st": "x", "__x": "x", "trace_id": "", "span_id": None, "모델": "x"}
    assert check_exemplar({**given, "mode": Mode.FAST, "size": 10**5000}) == {"request_id": "7", "mode": "fast"}
    assert check_exemplar({"path": "caf\udce9"}) == {"path": r"caf\udce9"}


def test_an_exemplar_is_cut_to_the_bound_of_openmetrics() -> None:
    kept = check_exemplar({"request_id": "x" * 1_000_000, "trace_id": "a" * 32})
    assert kept["trace_id"] == "a" * 32
    assert kept["request_id"].startswith("xxx")
    assert sum(len(name) + len(text) for name, text in kept.items()) == 128
    assert check_exemplar({"n" * 120: "12345678", "m" * 20: "x" * 200, "k": "v"}) == {"n" * 120: "123456", "k": "v"}


def test_where_notices_go_is_shown_without_secrets() -> None:
    webhook = WebhookTarget("https://bot:geheim@hooks.example:8443/T0/geheim?token=geheim", "geheim")
    apprise = AppriseTarget(("mailto://u:geheim@example.org", "slack://geheim/a/b", "geheim"))
    for shown in (repr(webhook), str(apprise), f"{[webhook, apprise]}"):
        assert "geheim" not in shown
    assert repr(webhook).startswith("WebhookTarget(url='https://hooks.example/…', secret='…', timeout_s=10.0, ")
    assert "secret=None" in repr(WebhookTarget("http://[broken"))
    assert repr(apprise).startswith("AppriseTarget(urls=('mailto://…', 'slack://…', '…'), timeout_s=30.0, ")


def test_the_kind_follows_name_and_unit() -> None:
    assert kind_of("system.memory_percent", "percent") == "gauge"
    assert kind_of("process.threads", "count") == "gauge"
    assert kind_of("cache.hit_rate", "percent") == "gauge"
    assert kind_of("api.errors", "count") == "counter"
    assert kind_of("models.load_failures", "count") == "counter"
    assert kind_of("cache.used_bytes", "bytes") == "gauge"
    assert kind_of("api.errors", "seconds") == "summary"
    assert kind_of("api.response_time", "seconds") == "summary"
